//! Every call of every workload fails, in every way.
//!
//! Invariants:
//! 1. Two runs try the same cases, however many threads share the work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use happystore::vfs::sim::{Call, Plant, Random};

use super::case::{Base, Case, Done};
use super::faults;
use super::workload::{self, Workload};

/// How many faults the suite must have injected, in as many runs.
const RUNS_MIN: u64 = 100_000;

/// Where seeds begin unless `HAPPYSTORE_SEED` says otherwise.
const SEED: u64 = 1;

/// How many workloads are made by chance unless `HAPPYSTORE_FAULT_WORKLOADS` says otherwise.
const RANDOM_COUNT: u64 = 60;

/// Of workloads made by chance, one in so many faults is tried.
const RANDOM_SHARE: u64 = 3;

/// What was tried.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Runs into which a fault was injected that fired.
    pub(super) runs: u64,
    /// The calls at which it fired first.
    pub(super) first: BTreeMap<Call, u64>,
    /// All calls that failed.
    pub(super) failed: BTreeMap<Call, u64>,
    /// Disks that a power cut left.
    pub(super) cuts: u64,
    /// The most calls that a run needed.
    pub(super) calls_max: u64,
}

impl Tally {
    fn count(&mut self, call: Call, done: &Done) {
        self.runs += 1;
        *self.first.entry(call).or_default() += 1;
        for (call, count) in &done.fired {
            *self.failed.entry(*call).or_default() += count;
        }
        self.cuts += done.cuts;
        self.calls_max = self.calls_max.max(done.calls);
    }

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.cuts += other.cuts;
        self.calls_max = self.calls_max.max(other.calls_max);
        for (into, from) in [
            (&mut self.first, &other.first),
            (&mut self.failed, &other.failed),
        ] {
            for (call, count) in from {
                *into.entry(*call).or_default() += count;
            }
        }
    }
}

/// Injects faults into every call of `workload`, one in `share` of those there are.
pub(super) fn sweep(
    workload: &Workload,
    share: u64,
    plant: Option<Plant>,
    tally: &mut Tally,
) -> Result<(), String> {
    let base = Base::new(workload)
        .map_err(|broken| format!("before {}: {broken}\n{workload:?}", workload.name))?;
    let mut random = Random::stream(7, workload.ops.len() as u64);
    for nth in 1.. {
        let (errno, fault) = faults::probe();
        let mut case = Case {
            nth,
            errno,
            fault,
            seed: random.bits(),
            plant,
        };
        let done = case.run(workload, &base)?;
        // What a second fault hit counts as well, but only the first tells the kind of the call.
        let Some(call) = done.first else {
            return Ok(());
        };
        tally.count(call, &done);
        for (errno, fault) in faults::of(call) {
            case.seed = random.bits();
            if case.seed.is_multiple_of(share) {
                (case.errno, case.fault) = (errno, fault);
                let done = case.run(workload, &base)?;
                if done.first.is_some() {
                    tally.count(call, &done);
                }
            }
        }
    }
    Ok(())
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_call_may_fail_in_every_way_and_no_promise_is_broken() {
    let first = from_environment("HAPPYSTORE_SEED", SEED);
    let count = from_environment("HAPPYSTORE_FAULT_WORKLOADS", RANDOM_COUNT);
    let listed = workload::all().into_iter().map(|each| (each, 1));
    let by_chance = (first..first + count).map(|seed| (workload::random(seed), RANDOM_SHARE));
    let workloads: Vec<(Workload, u64)> = listed.chain(by_chance).collect();
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Tally::default());
    let broken = Mutex::new(Vec::new());
    let begun = Instant::now();
    let work = || {
        while let Some((workload, share)) = workloads.get(next.fetch_add(1, Ordering::SeqCst)) {
            let mut tally = Tally::default();
            if let Err(what) = sweep(workload, *share, None, &mut tally) {
                broken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(what);
            }
            total.lock().unwrap().add(&tally);
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(2, Into::into);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap();
    let took = begun.elapsed();
    eprintln!("seeds {first}..{}, {took:?}: {total:#?}", first + count);
    let broken = broken.into_inner().unwrap();
    assert!(
        broken.is_empty(),
        "{} workloads broke:\n{}",
        broken.len(),
        broken.join("\n\n")
    );
    if count >= RANDOM_COUNT {
        assert!(total.runs >= RUNS_MIN, "only {} faults", total.runs);
    }
}
