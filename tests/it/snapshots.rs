//! Snapshots: one moment, to read from as long as one likes.

use happystore::{ErrorKind, Read, Result, Snapshot, Store};

use crate::support::{assert_refused, everywhere, owned};

fn pairs(db: &impl Read) -> Vec<(String, i32)> {
    db.query().pairs().unwrap()
}

#[test]
fn a_snapshot_never_changes() {
    for place in everywhere() {
        let store = place.open();
        let empty = store.snapshot().unwrap();
        store.bulk_set([("a", 1), ("b", 2)]).unwrap();
        let two = store.snapshot().unwrap();
        store.set("a", &10).unwrap();
        store.delete("b").unwrap();
        store.set("c", &3).unwrap();
        let later = store.snapshot().unwrap();
        store.query().delete().unwrap();
        store.set("b", &20).unwrap();
        assert_eq!(pairs(&empty), []);
        assert_eq!(pairs(&two), owned(&[("a", 1), ("b", 2)]));
        assert_eq!(
            two.get("b").unwrap(),
            Some(2),
            "a deleted key is still there"
        );
        assert!(two.has("b").unwrap() && !two.has("c").unwrap());
        assert_eq!(
            two.bulk_get::<i32>(["c", "b", "a"]).unwrap(),
            [None, Some(2), Some(1)]
        );
        assert_eq!(two.query().reverse().limit(1).keys().unwrap(), ["b"]);
        assert_eq!(two.scan().iter::<i32>().unwrap().count(), 2);
        assert_eq!(pairs(&later), owned(&[("a", 10), ("c", 3)]));
        assert_eq!(pairs(&store), owned(&[("b", 20)]));
    }
}

#[test]
fn clones_of_a_snapshot_are_of_its_moment() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", &1).unwrap();
        let snapshot = store.snapshot().unwrap();
        store.set("a", &2).unwrap();
        let clone = snapshot.clone();
        drop(snapshot);
        for n in 3..50 {
            store.set("a", &n).unwrap();
        }
        assert_eq!(clone.get("a").unwrap(), Some(1));
        assert_eq!(store.stats().unwrap().snapshots, 1);
        drop(clone);
        assert_eq!(store.stats().unwrap().snapshots, 0);
    }
}

#[test]
fn a_snapshot_is_read_from_many_threads() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set((0..100).map(|n| (n.to_string(), n)))
            .unwrap();
        let snapshot = store.snapshot().unwrap();
        store.query().delete().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(pairs(&snapshot).len(), 100));
            }
        });
        let moved: Snapshot = snapshot;
        let sum = std::thread::spawn(move || pairs(&moved).iter().map(|pair| pair.1).sum::<i32>());
        assert_eq!(sum.join().unwrap(), 4950);
    }
}

#[test]
fn a_snapshot_held_through_many_overwrites_costs_no_more_than_a_few() {
    for place in everywhere() {
        let store = place
            .open_with(place.options().segment_bytes(1 << 20))
            .unwrap();
        let key = |n: u32| format!("key {}", n % 10);
        let overwrite = |rounds: std::ops::Range<u32>| -> u64 {
            for n in rounds {
                store.set(&key(n), &n).unwrap();
            }
            store.stats().unwrap().index_bytes
        };
        store.bulk_set((0..10).map(|n| (key(n), n))).unwrap();
        let snapshot = store.snapshot().unwrap();
        let few = overwrite(10..1_000);
        let later = store.snapshot().unwrap();
        let many = overwrite(1_000..100_000);
        assert!(
            many < few * 2,
            "the index has grown from {few} to {many} bytes"
        );
        for n in 0..10 {
            assert_eq!(snapshot.get(&key(n)).unwrap(), Some(n));
            assert_eq!(later.get(&key(n)).unwrap(), Some(990 + n));
            assert_eq!(store.get(&key(n)).unwrap(), Some(99_990 + n));
        }
    }
}

#[test]
fn deleted_keys_leave_the_index_once_no_snapshot_sees_them() {
    for place in everywhere() {
        let store = place.open();
        store.set("first", &0).unwrap();
        let before = store.stats().unwrap().index_bytes;
        store
            .bulk_set((0..2_000).map(|n| (format!("{n:0100}"), n)))
            .unwrap();
        let snapshot = store.snapshot().unwrap();
        let full = store.stats().unwrap().index_bytes;
        assert_eq!(store.query().prefix("0").delete().unwrap(), 2_000);
        for n in 0..100 {
            store.set("first", &n).unwrap();
        }
        assert!(
            store.stats().unwrap().index_bytes >= full,
            "the snapshot still sees them"
        );
        assert_eq!(snapshot.query().count().unwrap(), 2_001);
        assert_eq!(
            snapshot.query().reverse().limit(1).pairs::<i32>().unwrap(),
            owned(&[("first", 0)])
        );
        drop(snapshot);
        for n in 0..100 {
            store.set("first", &n).unwrap();
        }
        let keys_of_100_bytes = 2_000 * 100;
        let now = store.stats().unwrap().index_bytes;
        assert!(
            now + keys_of_100_bytes < full,
            "{before} bytes, {full} bytes, and now {now} bytes"
        );
        assert_eq!(store.query().keys().unwrap(), ["first"]);
    }
}

#[test]
fn keys_set_deleted_and_set_again_are_seen_by_each_snapshot_as_they_were() {
    for place in everywhere() {
        let store = place.open();
        let mut snapshots = Vec::new();
        for round in 0..20_i32 {
            if round % 3 == 2 {
                store.delete("a").unwrap();
            } else {
                store.set("a", &round).unwrap();
            }
            snapshots.push(store.snapshot().unwrap());
            if round % 4 == 3 {
                // Holes among the pinned moments.
                snapshots.remove(snapshots.len() / 2);
            }
        }
        let mut seen: Vec<Option<i32>> = Vec::new();
        while let Some(snapshot) = snapshots.pop() {
            seen.push(snapshot.get("a").unwrap());
            for (n, older) in snapshots.iter().enumerate().step_by(3) {
                assert_eq!(
                    older.has("a").unwrap(),
                    older.query().count().unwrap() == 1,
                    "{n}"
                );
            }
        }
        let newest_first = seen.iter().flatten().is_sorted_by(|a, b| a > b);
        assert!(newest_first && seen.len() == 15, "{seen:?}");
        assert_eq!(seen.first(), Some(&Some(19)));
    }
}

fn total(db: &impl Read) -> Result<i32> {
    let mut total = 0;
    for pair in db.scan().page_size(3).iter::<i32>()? {
        total += pair?.1;
    }
    Ok(total)
}

#[test]
fn a_snapshot_is_one_of_the_things_that_can_be_read() {
    for place in everywhere() {
        let store: Store = place.open();
        store.bulk_set((0..10).map(|n| (n.to_string(), n))).unwrap();
        let snapshot = store.snapshot().unwrap();
        store.set("10", &10).unwrap();
        assert_eq!(
            (total(&snapshot).unwrap(), total(&store).unwrap()),
            (45, 55)
        );
        store.close().unwrap();
        assert_refused(total(&snapshot), ErrorKind::Closed, &[]);
    }
}
