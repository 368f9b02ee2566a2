//! Every workload on disks of every size: full is `DiskFull`, and nothing worse.
//!
//! Sizes between two on which the same happened are left out below a step, so that each byte is
//! tried where it makes a difference.

use super::case::{After, Base, guarded};
use super::runner::Runner;
use super::workload::{self, Op, Workload};

/// The largest disk that is tried; no listed workload needs more.
const FREE_BYTES_MAX: u64 = 200 << 10;

/// How far apart sizes may be of which only the ends are tried.
const STEP_BYTES: u64 = 1000;

/// What happened on a disk, as far as sizes can be told apart by it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Happened {
    full_count: u64,
    calls: u64,
}

/// Runs `workload` with `free_bytes` left, then with space again, without reopening.
fn run(workload: &Workload, runner: &mut Runner, free_bytes: u64) -> Result<Happened, String> {
    let world = runner.world.clone();
    runner.is_limited = true;
    world.set_free_bytes(Some(free_bytes));
    for op in &workload.ops {
        let told = |broken| format!("{op:?}: {broken}");
        runner.step(*op).map_err(told)?;
        runner.glance().map_err(told)?;
    }
    let happened = Happened {
        full_count: runner.full_count,
        calls: world.calls(),
    };
    if free_bytes.is_multiple_of(2) && runner.exists() {
        // What was opened once opens again, full or not.
        let end = [Op::Kill, Op::Close][usize::from(free_bytes.is_multiple_of(4))];
        runner.step(end)?;
        let opened = runner.opened()?.is_some();
        if !opened {
            return Err("it does not open on the full disk".to_owned());
        }
        runner.step(Op::Look)?;
    }
    runner.is_limited = false;
    world.set_free_bytes(None);
    let mut after = After::new(free_bytes);
    after.go_on(runner)?;
    after.cut(runner)?;
    after.end(runner)?;
    after.open_again(runner)?;
    after.cut(runner)?;
    Ok(happened)
}

/// Tries all sizes of disk at which something changes.
struct Sizes<'a> {
    workload: &'a Workload,
    base: Base,
    runs: u64,
}

impl Sizes<'_> {
    fn at(&mut self, free_bytes: u64) -> Happened {
        self.runs += 1;
        let (workload, name) = (self.workload, &self.workload.name);
        let runner = self.base.begin(workload.segment_bytes, free_bytes);
        guarded(runner, |runner| run(workload, runner, free_bytes)).unwrap_or_else(|broken| {
            panic!("{name} with {free_bytes} bytes free: {broken}\n{workload:?}")
        })
    }

    fn between(&mut self, low: (u64, &Happened), high: (u64, &Happened)) {
        let gap = high.0 - low.0;
        if gap < 2 || gap < STEP_BYTES && low.1 == high.1 {
            return;
        }
        let at = low.0 + gap / 2;
        let happened = self.at(at);
        self.between(low, (at, &happened));
        self.between((at, &happened), high);
    }
}

#[test]
fn a_disk_that_is_full_at_any_byte_changes_nothing_and_is_no_end() {
    let mut runs = 0;
    for workload in workload::all() {
        let mut sizes = Sizes {
            base: Base::new(&workload).unwrap(),
            workload: &workload,
            runs: 0,
        };
        let (low, high) = (sizes.at(0), sizes.at(FREE_BYTES_MAX));
        assert_eq!(high.full_count, 0, "{}", workload.name);
        sizes.between((0, &low), (FREE_BYTES_MAX, &high));
        runs += sizes.runs;
    }
    eprintln!("{runs} disks");
    assert!(runs > 5_000, "{runs}");
}
