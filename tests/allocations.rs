//! The write path allocates nothing but, now and then, room for many new keys in the index.
//!
//! A binary of its own, because the allocator that counts is the program's. What is counted is the
//! committing thread, after a few commits that fill its buffers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use allocation_counter::{AllocationInfo, measure};
use happystore::{Durability, Options, Raw, Store};

const COMMITS: u64 = 200;

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Counts what `COMMITS` calls of `commit` allocate, after as many that are not counted.
fn count(durability: Durability, commit: impl Fn(&Store<Raw, [u8]>, u64)) -> AllocationInfo {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().serializer(Raw).byte_keys();
    let store = options
        .durability(durability)
        .open(directory.path())
        .unwrap();
    (0..COMMITS).for_each(|number| commit(&store, number));
    let counted = measure(|| (COMMITS..2 * COMMITS).for_each(|number| commit(&store, number)));
    assert_eq!(store.stats().unwrap().commits, 2 * COMMITS);
    counted
}

#[test]
fn overwriting_a_key_allocates_nothing() {
    for durability in [Durability::Os, Durability::Sync] {
        let counted = count(durability, |store, number| {
            store.set(&key(number % 10), &[7; 150][..]).unwrap();
        });
        // The file grows a few times: its window is mapped anew, which takes memory of its own.
        assert!(counted.count_total <= 3, "{durability:?}: {counted:?}");
    }
}

#[test]
fn new_keys_allocate_less_than_once_each() {
    for durability in [Durability::Os, Durability::Sync] {
        let counted = count(durability, |store, number| {
            store.set(&key(number), &[7; 150][..]).unwrap();
        });
        // The first keys of a shard, a table that grows.
        let most = COMMITS / 2;
        assert!(counted.count_total <= most, "{durability:?}: {counted:?}");
    }
}
