//! The same operations, kept in other segments, synced otherwise, reopened elsewhere: the same
//! content.

use std::sync::atomic::{AtomicU64, Ordering};

use happystore::Durability;
use happystore::vfs::sim::Random;

use super::check;
use super::interpreter::Run;
use super::operations::{Again, Op, Setup, Workload};
use super::place::Place;

const OPERATIONS: u64 = 300_000;

#[test]
fn segment_sizes_durabilities_and_reopenings_change_no_content() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fn property(workload: Workload) {
        let setups = [
            Setup {
                segment_bytes: 512,
                durability: Durability::Os,
            },
            Setup {
                segment_bytes: 5000,
                durability: Durability::Sync,
            },
            Setup {
                segment_bytes: 1 << 20,
                durability: Durability::Os,
            },
        ];
        let mut random = Random::new(workload.ops.len() as u64);
        let mut contents = Vec::new();
        for setup in setups {
            let workload = Workload {
                setup,
                ops: reopened(&workload.ops, &mut random),
            };
            let (content, count) = Run::new(Place::simulated(), &workload).run(setup);
            COUNTER.fetch_add(count, Ordering::Relaxed);
            contents.push(content);
        }
        assert!(contents.windows(2).all(|pair| pair[0] == pair[1]));
    }
    check(
        "metamorphic",
        property as fn(Workload),
        &COUNTER,
        OPERATIONS,
    );
}

/// `ops` with reopenings at other places than before.
fn reopened(ops: &[Op], random: &mut Random) -> Vec<Op> {
    let mut changed = Vec::new();
    for op in ops.iter().filter(|op| !matches!(op, Op::Reopen(..))) {
        changed.push(op.clone());
        if random.below(40) == 0 {
            let again = [Again::Close, Again::Drop, Again::Kill, Again::Share][random.index(4)];
            changed.push(Op::Reopen(again, Setup::random(random)));
        }
    }
    changed
}
