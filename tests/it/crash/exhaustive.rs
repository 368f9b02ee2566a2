//! The exhaustive tier: all workloads of up to three operations, stopped everywhere.
//!
//! A workload's crash points before its last operation are those of a shorter workload, so each
//! is stopped from the beginning of its last operation on.

use super::explore::{Effort, Explorer};
use super::oracle::Setup;
use super::workload::{Mode, Op};

/// Segments in which every second record rolls over, and such in which only the largest do.
const SEGMENT_BYTES: [u64; 2] = [512, 4096];

/// How many states there must be at least.
const STATES_MIN: u64 = 200_000;

/// What workloads are made of.
fn operations(segment_bytes: u64) -> Vec<Op> {
    let large = usize::try_from(segment_bytes).unwrap();
    vec![
        Op::Set {
            key: 2,
            len_bytes: 40,
            mode: Mode::Sync,
        },
        Op::Set {
            key: 1,
            len_bytes: 0,
            mode: Mode::Sync,
        },
        Op::Delete {
            key: 2,
            mode: Mode::Sync,
        },
        Op::Batch {
            key: 0,
            len_bytes: 40,
            mode: Mode::Sync,
        },
        Op::Nested {
            key: 1,
            len_bytes: 40,
            mode: Mode::Sync,
        },
        // Rolls over: larger than a segment.
        Op::Set {
            key: 3,
            len_bytes: large,
            mode: Mode::Sync,
        },
        Op::Reopen,
        Op::Kill,
        Op::Set {
            key: 2,
            len_bytes: 40,
            mode: Mode::Os,
        },
        Op::Set {
            key: 2,
            len_bytes: 40,
            mode: Mode::Deferred,
        },
        Op::Background,
        Op::Sync,
        Op::QueryDelete { key: 1 },
    ]
}

/// All lists of one to three of `operations`.
fn workloads(operations: &[Op]) -> Vec<Vec<Op>> {
    let mut all = Vec::new();
    let mut shorter = vec![Vec::new()];
    for _ in 0..3 {
        let longer = |ops: &Vec<Op>| {
            let ops = ops.clone();
            operations.iter().map(move |op| [&ops[..], &[*op]].concat())
        };
        shorter = shorter.iter().flat_map(longer).collect();
        all.extend_from_slice(&shorter);
    }
    all
}

#[test]
fn three_operations_survive_every_crash_at_every_point() {
    let mut explorer = Explorer::new(1);
    let mut workload_count = 0;
    for segment_bytes in SEGMENT_BYTES {
        let setup = Setup {
            is_compacted: true,
            segment_bytes,
            plant: None,
        };
        for ops in workloads(&operations(segment_bytes)) {
            workload_count += 1;
            let run = explorer.run(setup, &ops);
            let done = run.and_then(|run| explorer.explore(&run, run.last_began_at, Effort::ALL));
            if let Err(error) = done {
                panic!("{setup:?}, {ops:?}: {error}");
            }
        }
    }
    let tally = explorer.tally;
    eprintln!(
        "{workload_count} workloads, {} states: {tally:?}",
        tally.states()
    );
    assert!(tally.states() >= STATES_MIN, "{tally:?}");
    assert!(tally.repeated() * 5 >= tally.states(), "{tally:?}");
}
