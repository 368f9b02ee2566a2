//! Workloads: what runs while calls fail, and what was there before.
//!
//! [`all`] lists those that are swept through entirely; `random` makes more of the same kind.

use happystore::Durability;
use happystore::vfs::sim::{Call, Fault, FaultEffect, FaultScope, Random};
use std::io;
use std::time::Duration;

/// How long a deferred commit may stay undurable.
pub(super) const DELAY: Duration = Duration::from_millis(10);

/// The keys of all workloads.
pub(super) const KEYS: [&[u8]; 5] = [b"", b"a", b"key1", b"key2", b"longer/key/0"];

/// What a commit is to have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Sync,
    Os,
    Deferred,
}

impl Mode {
    pub(super) const ALL: [Self; 3] = [Self::Sync, Self::Os, Self::Deferred];

    pub(super) fn durability(self) -> Durability {
        match self {
            Self::Sync => Durability::Sync,
            Self::Os => Durability::Os,
            Self::Deferred => Durability::Deferred(DELAY),
        }
    }
}

/// One step. Keys are indices into [`KEYS`]. Whatever needs an open store opens it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Open,
    Set {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    Delete {
        key: usize,
        mode: Mode,
    },
    /// Three keys from this one, at once.
    Batch {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    /// Reads, an outer change that stays, an inner one that stays, and an inner one that is undone.
    Nested {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    /// Deletes the keys from this one in one query.
    QueryDelete {
        key: usize,
    },
    Sync,
    /// Lets the time of a deferred commit come.
    Background,
    /// Reads in every way.
    Look,
    /// Opens the directory a second time in the same process, and closes that opening.
    SecondOpening,
    /// Closes, then opens for reading alone, reads, closes.
    ReadOnly,
    Close,
    /// The process dies, and another one takes its place.
    Kill,
}

/// How what was there before came about.
#[derive(Debug, Clone)]
pub(super) enum Before {
    /// Nothing was there.
    Nothing,
    /// These operations ran, under this fault, and the process died.
    Killed(Vec<Op>, Option<(u64, Fault)>),
    /// These operations ran, and the store was closed.
    Closed(Vec<Op>),
}

/// What to do while calls fail.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) segment_bytes: u64,
    pub(super) before: Before,
    pub(super) ops: Vec<Op>,
}

impl Workload {
    fn new(name: &str, segment_bytes: u64, before: Before, ops: &[Op]) -> Self {
        Self {
            name: name.to_owned(),
            segment_bytes,
            before,
            ops: ops.to_vec(),
        }
    }
}

fn set(key: usize, len_bytes: usize, mode: Mode) -> Op {
    Op::Set {
        key,
        len_bytes,
        mode,
    }
}

/// Commits of all kinds in one durability.
fn commits(mode: Mode) -> Vec<Op> {
    let len_bytes = 60;
    vec![
        set(1, len_bytes, mode),
        Op::Batch {
            key: 0,
            len_bytes,
            mode,
        },
        Op::Nested {
            key: 2,
            len_bytes,
            mode,
        },
        Op::Delete { key: 1, mode },
        set(3, 9, mode),
        Op::QueryDelete { key: 3 },
        set(4, 0, mode),
    ]
}

/// Half of a write that fails: a torn tail.
fn torn(nth: u64) -> (u64, Fault) {
    let fault = Fault::once(FaultEffect::Half, io::ErrorKind::Other);
    (nth, fault.scope(FaultScope::Only(Call::Write)))
}

fn clean(call: Call, nth: u64) -> (u64, Fault) {
    let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
    (nth, fault.scope(FaultScope::Only(call)))
}

/// Fills two segments and begins a third.
fn three_segments(mode: Mode) -> Vec<Op> {
    (0..7).map(|n| set(n % 5, 150, mode)).collect()
}

/// All workloads that are swept through.
pub(super) fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    for mode in Mode::ALL {
        add_commits(&mut all, mode);
    }
    add_openings(&mut all);
    add_recoveries(&mut all);
    all
}

fn add_commits(all: &mut Vec<Workload>, mode: Mode) {
    let with = |ops: &[Op], more: &[Op]| [ops, more].concat();
    let name = |what: &str| format!("{what}, {mode:?}");
    let ends = [Op::Background, Op::Sync, Op::Look, Op::Close];
    let ops = with(&commits(mode), &ends);
    let new = Workload::new(&name("commits"), 4096, Before::Nothing, &ops);
    all.push(new);
    let before = Before::Closed(commits(Mode::Sync));
    let ops = with(&commits(mode), &[Op::Background, Op::SecondOpening]);
    all.push(Workload::new(
        &name("commits behind others"),
        64 << 20,
        before,
        &ops,
    ));
    let ops = with(
        &three_segments(mode),
        &[Op::Background, set(1, 150, mode), Op::Close],
    );
    all.push(Workload::new(
        &name("roll-overs"),
        512,
        Before::Nothing,
        &ops,
    ));
    // Batches beyond the segment target, and steps in which a segment's space grows.
    let ops = [set(0, 700, mode), set(1, 40, mode), set(2, 1500, mode)];
    all.push(Workload::new(
        &name("large batches"),
        512,
        Before::Nothing,
        &ops,
    ));
    let mut ops: Vec<Op> = (0..4).map(|n| set(n, 14 << 10, mode)).collect();
    ops.extend([Op::Sync, Op::Delete { key: 1, mode }]);
    all.push(Workload::new(
        &name("growing segments"),
        256 << 10,
        Before::Nothing,
        &ops,
    ));
    let ops = [
        set(1, 30, mode),
        Op::Background,
        set(2, 30, mode),
        Op::Background,
        set(3, 30, Mode::Os),
        Op::Sync,
        set(1, 10, mode),
        Op::SecondOpening,
        Op::Close,
    ];
    all.push(Workload::new(&name("syncs"), 4096, Before::Nothing, &ops));
}

fn add_openings(all: &mut Vec<Workload>) {
    let opened = [
        Op::Open,
        Op::Look,
        set(1, 20, Mode::Sync),
        Op::Close,
        Op::Open,
        Op::Look,
    ];
    all.push(Workload::new("making", 512, Before::Nothing, &opened));
    let before = Before::Closed(vec![Op::Open]);
    all.push(Workload::new("opening an empty one", 512, before, &opened));
    let before = Before::Closed(three_segments(Mode::Os));
    all.push(Workload::new(
        "opening one that was closed",
        512,
        before.clone(),
        &opened,
    ));
    let ops = [Op::ReadOnly, Op::Look, Op::Kill, Op::ReadOnly];
    all.push(Workload::new("reading alone", 512, before, &ops));
    let before = Before::Killed(three_segments(Mode::Sync), Some(clean(Call::Sync, 7)));
    all.push(Workload::new(
        "reading alone after a failed sync",
        512,
        before,
        &ops,
    ));
    let before = Before::Killed(three_segments(Mode::Os), None);
    all.push(Workload::new(
        "reading alone what was killed",
        512,
        before,
        &ops,
    ));
}

fn add_recoveries(all: &mut Vec<Workload>) {
    let ops = [
        Op::Open,
        Op::Look,
        set(2, 50, Mode::Os),
        Op::Kill,
        Op::Open,
        set(3, 50, Mode::Sync),
    ];
    let kills = [
        ("recovering what was killed", Mode::Os, None),
        ("recovering a torn tail", Mode::Os, Some(torn(8))),
        (
            "recovering a torn tail of three segments",
            Mode::Os,
            Some(torn(16)),
        ),
        ("recovering torn syncs", Mode::Sync, Some(torn(8))),
        (
            "recovering after a failed sync",
            Mode::Sync,
            Some(clean(Call::Sync, 7)),
        ),
        (
            "recovering a manifest whose name is not durable",
            Mode::Os,
            Some(clean(Call::SyncDir, 5)),
        ),
        (
            "recovering a manifest that was not renamed",
            Mode::Os,
            Some(clean(Call::Rename, 3)),
        ),
        (
            "recovering a segment that is not listed",
            Mode::Sync,
            Some(clean(Call::Open, 11)),
        ),
    ];
    for (name, mode, fault) in kills {
        let before = Before::Killed(three_segments(mode), fault);
        all.push(Workload::new(name, 512, before, &ops));
    }
    let before = Before::Killed(commits(Mode::Os), Some(torn(9)));
    all.push(Workload::new(
        "recovering a torn tail of one segment",
        4096,
        before,
        &ops,
    ));
}

/// A workload by chance.
pub(super) fn random(seed: u64) -> Workload {
    let mut random = Random::stream(seed, 0xFA);
    let segment_bytes = [512, 512, 700, 2048, 40 << 10][random.index(5)];
    let len_bytes_max = [20, 100, 400, 1500][random.index(4)];
    let count = 3 + random.index(8);
    let ops = some_ops(&mut random, count, len_bytes_max);
    let count = 1 + random.index(8);
    let before = some_ops(&mut random, count, len_bytes_max);
    let before = match random.below(6) {
        0 => Before::Nothing,
        1 => Before::Closed(before),
        2 => Before::Killed(before, None),
        3 => Before::Killed(before, Some(torn(3 + random.below(8)))),
        4 => Before::Killed(before, Some(clean(Call::Sync, 2 + random.below(8)))),
        _ => {
            let fault = Fault::lasting(FaultEffect::Half, io::ErrorKind::Other);
            Before::Killed(before, Some((15 + random.below(40), fault)))
        }
    };
    Workload {
        name: format!("HAPPYSTORE_SEED={seed}"),
        segment_bytes,
        before,
        ops,
    }
}

fn some_ops(random: &mut Random, count: usize, len_bytes_max: usize) -> Vec<Op> {
    (0..count).map(|_| some_op(random, len_bytes_max)).collect()
}

fn some_op(random: &mut Random, len_bytes_max: usize) -> Op {
    let key = random.index(KEYS.len());
    let mode = Mode::ALL[random.index(3)];
    let len_bytes = random.index(len_bytes_max);
    match random.below(20) {
        0 | 1 => Op::Delete { key, mode },
        2 | 3 => Op::Batch {
            key,
            len_bytes: len_bytes / 3,
            mode,
        },
        4 | 5 => Op::Nested {
            key,
            len_bytes: len_bytes / 2,
            mode,
        },
        6 => Op::QueryDelete { key },
        7 => Op::Sync,
        8 => Op::Background,
        9 => Op::Look,
        10 => Op::SecondOpening,
        11 => Op::Close,
        12 => Op::Kill,
        13 => Op::ReadOnly,
        _ => set(key, len_bytes, mode),
    }
}
