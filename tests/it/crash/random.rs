//! The random tier: workloads of up to 200 operations, stopped at a sample of points.
//!
//! A case is a seed and a number of operations, and nothing else. One that fails is shrunk before
//! it is reported, and belongs into [`PAST_FAILURES`] from then on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use happystore::vfs::sim::Random;

use super::explore::{Effort, Explorer, Tally};
use super::oracle::{KEYS, Setup};
use super::workload::{Mode, Op};

/// How many states to go through unless `HAPPYSTORE_CRASH_STATES` says otherwise.
const STATES: u64 = 260_000;

/// Where seeds begin unless `HAPPYSTORE_SEED` says otherwise.
const SEED: u64 = 1;

/// Seeds and numbers of operations that failed once: all of them when opening did not make the
/// name of a killed process's manifest durable.
const PAST_FAILURES: [(u64, usize); 3] = [(0, 1), (2, 7), (3, 3)];

/// A workload with the machine it runs on.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) ops: Vec<Op>,
    /// Decides where it is stopped, and what goes on there.
    pub(super) seed: u64,
    pub(super) effort: Effort,
}

impl Case {
    /// The case of a seed.
    pub(super) fn new(seed: u64, op_count: usize) -> Self {
        let mut random = Random::stream(seed, op_count as u64);
        let segment_bytes = match random.below(4) {
            0 => 512,
            1 => 512 + random.below(1024),
            2 => 512 + random.below(8 << 10),
            _ => 512 + random.below((64 << 10) - 511),
        };
        // Each workload has its own mixture, so that some are extreme.
        let taste = Taste {
            sync_percent: [0, 10, 50, 100][random.index(4)],
            len_bytes_max: [41, 100, 600, 2001][random.index(4)],
            is_fixed_len: random.coin(),
            kill_percent: [0, 0, 2, 10][random.index(4)],
            bait_percent: [0, 0, 30][random.index(3)],
            twin_percent: [0, 10, 50][random.index(3)],
            // Drawn apart, so that seeds of old make the workloads of old, but for this.
            compact_percent: [0, 5, 20][Random::stream(seed, 77).index(3)],
        };
        Self::of_taste(seed, op_count, segment_bytes, &taste)
    }

    /// The case of a seed, with operations that are like `taste`.
    pub(super) fn of_taste(seed: u64, op_count: usize, segment_bytes: u64, taste: &Taste) -> Self {
        let mut random = Random::new(seed);
        let ops = (0..op_count)
            .map(|_| taste.operation(&mut random))
            .collect();
        // Long workloads are stopped at fewer of their points.
        let effort = Effort {
            points: 40,
            images: 6,
            kills: 12,
        };
        Self {
            setup: Setup {
                segment_bytes,
                is_compacted: random.coin(),
                plant: None,
            },
            ops,
            seed,
            effort,
        }
    }

    /// The case with a number of operations that follows from its seed too, mostly small.
    fn sized(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let most = [8, 20, 60, 200][random.index(4)];
        Self::new(seed, 3 + random.index(most - 2))
    }

    /// Runs and explores the case.
    pub(super) fn check(&self) -> Result<Tally, String> {
        let mut explorer = Explorer::new(self.seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let run = explorer.run(self.setup, &self.ops)?;
            explorer.explore(&run, 0, self.effort)
        }));
        match outcome {
            Ok(Ok(())) => Ok(explorer.tally),
            Ok(Err(error)) => Err(error),
            Err(_) => Err("it panicked".to_owned()),
        }
    }

    /// Leaves out operations for as long as it still fails; gives its last failure too.
    fn shrink(mut self, mut error: String) -> (Self, String) {
        let mut piece = self.ops.len().div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < self.ops.len() {
                let mut smaller = self.clone();
                smaller.ops.drain(at..(at + piece).min(self.ops.len()));
                match smaller.check() {
                    Ok(_) => at += piece,
                    Err(found) => (self, error) = (smaller, found),
                }
            }
            piece /= 2;
        }
        (self, error)
    }

    /// Checks the case; if it fails, says so in the smallest words that can be found.
    fn insist(self) -> Tally {
        match self.check() {
            Ok(tally) => tally,
            Err(error) => {
                let (seed, op_count) = (self.seed, self.ops.len());
                let (small, smaller) = self.shrink(error.clone());
                panic!(
                    "HAPPYSTORE_SEED={seed}, {op_count} operations: {error}\n\
                     shrunk to {} operations: {smaller}\n{small:#?}",
                    small.ops.len()
                );
            }
        }
    }
}

/// What the operations of one workload are like.
pub(super) struct Taste {
    pub(super) sync_percent: u64,
    pub(super) len_bytes_max: usize,
    pub(super) is_fixed_len: bool,
    pub(super) kill_percent: u64,
    pub(super) bait_percent: u64,
    pub(super) twin_percent: u64,
    pub(super) compact_percent: u64,
}

impl Taste {
    fn operation(&self, random: &mut Random) -> Op {
        if random.below(100) < self.kill_percent {
            return if random.coin() {
                Op::Kill
            } else {
                Op::KillAt {
                    call: 1 + random.below(30),
                }
            };
        }
        let key = random.index(KEYS.len());
        let mode = if random.below(100) < self.sync_percent {
            Mode::Sync
        } else if random.below(4) == 0 {
            Mode::Deferred
        } else {
            Mode::Os
        };
        let len_bytes = if self.is_fixed_len {
            self.len_bytes_max - 1
        } else {
            random.index(self.len_bytes_max)
        };
        if random.below(100) < self.twin_percent {
            return Op::Twin { mode };
        }
        if random.below(100) < self.bait_percent {
            return Op::Bait {
                key,
                from: random.index(1 << 20),
                len_bytes,
                mode,
            };
        }
        if self.compact_percent > 0 && random.below(100) < self.compact_percent {
            let some = u32::try_from(random.below(1 << 32)).unwrap_or(1);
            return Op::Compact {
                mask: if random.coin() { u32::MAX } else { some },
            };
        }
        match random.below(16) {
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
            8 | 9 => Op::Background,
            10 => Op::Reopen,
            _ => Op::Set {
                key,
                len_bytes,
                mode,
            },
        }
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_workloads_survive_crashes_of_crashes() {
    let first = from_environment("HAPPYSTORE_SEED", SEED);
    let wanted = from_environment("HAPPYSTORE_CRASH_STATES", STATES);
    let mut tally = Tally::default();
    let mut seed = first;
    while tally.states() < wanted {
        tally += Case::sized(seed).insist();
        seed += 1;
    }
    eprintln!(
        "seeds {first}..{seed}, {} states: {tally:?}",
        tally.states()
    );
    assert!(tally.repeated() * 5 >= tally.states(), "{tally:?}");
}

#[test]
fn what_failed_once_never_fails_again() {
    for (seed, op_count) in PAST_FAILURES {
        Case::new(seed, op_count).insist();
    }
}
