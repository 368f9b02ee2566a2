//! One key, many keys, closing and opening again: what every user does first.

use happystore::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use happystore::{BoxError, Encode, ErrorKind, Options, Raw, Serializer, Store};

use crate::support::{assert_refused, everywhere, owned, with_a_disk};

#[test]
fn a_key_is_set_read_and_deleted() {
    for place in everywhere() {
        let store = place.open();
        assert_eq!(store.get::<i32>("a").unwrap(), None);
        assert!(!store.has("a").unwrap());
        assert!(!store.delete("a").unwrap());
        store.set("a", &1).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(1));
        assert!(store.has("a").unwrap());
        store.set("a", &2).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(2));
        assert!(store.delete("a").unwrap());
        assert!(!store.delete("a").unwrap());
        assert_eq!(store.get::<i32>("a").unwrap(), None);
        assert!(!store.has("a").unwrap());
    }
}

#[test]
fn what_was_closed_is_there_again() {
    for place in with_a_disk() {
        let store = place.open();
        store.set("kept", "old").unwrap();
        store.set("kept", "new").unwrap();
        store.set("deleted", "x").unwrap();
        store.delete("deleted").unwrap();
        store.close().unwrap();
        let store = place.open();
        assert_eq!(store.get::<String>("kept").unwrap().as_deref(), Some("new"));
        assert!(!store.has("deleted").unwrap());
        assert_eq!(store.scan().iter::<String>().unwrap().count(), 1);
        assert_eq!(store.stats().unwrap().keys, 1);
    }
}

#[test]
fn dropping_the_last_handle_closes_the_store() {
    for place in with_a_disk() {
        let store = place.open();
        let clone = store.clone();
        drop(store);
        clone.set("a", &1).unwrap();
        let snapshot = clone.snapshot().unwrap();
        drop(clone);
        assert_eq!(snapshot.get("a").unwrap(), Some(1));
        drop(snapshot);
        let options = place.options().access(happystore::Access::Exclusive);
        // Another access than before: only possible if the engine has ended.
        let store = place.open_with(options).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(1));
    }
}

#[test]
fn a_closed_store_says_so_through_every_handle() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", &1).unwrap();
        let (clone, snapshot) = (store.clone(), store.snapshot().unwrap());
        let mut iter = store.query().iter::<i32>().unwrap();
        store.close().unwrap();
        let closed = |result: happystore::Result<()>| {
            assert_refused(result, ErrorKind::Closed, &["was closed", "open it again"]);
        };
        closed(clone.get::<i32>("a").map(drop));
        closed(clone.has("a").map(drop));
        closed(clone.set("a", &2));
        closed(clone.delete("a").map(drop));
        closed(clone.bulk_set([("a", 1)]));
        closed(clone.bulk_get::<i32>(["a"]).map(drop));
        closed(clone.bulk_delete(["a"]).map(drop));
        closed(clone.query().keys().map(drop));
        closed(clone.query().count().map(drop));
        closed(clone.query().delete().map(drop));
        closed(clone.scan().iter::<i32>().map(drop));
        closed(clone.snapshot().map(drop));
        closed(clone.begin().map(drop));
        closed(clone.transaction(|_| Ok(())));
        closed(clone.sync());
        closed(clone.stats().map(drop));
        closed(clone.verify().map(drop));
        closed(snapshot.get::<i32>("a").map(drop));
        closed(snapshot.has("a").map(drop));
        closed(snapshot.query().count().map(drop));
        closed(iter.next().unwrap().map(drop));
        closed(clone.close());
    }
}

#[test]
fn clones_and_second_openings_share_one_engine() {
    for place in with_a_disk() {
        let first = place.open();
        let second = place.open();
        let clone = first.clone();
        first.set("a", &1).unwrap();
        assert_eq!(second.get("a").unwrap(), Some(1));
        second.set("a", &2).unwrap();
        assert_eq!(clone.get("a").unwrap(), Some(2));
        assert_eq!(clone.stats().unwrap().commits, 2);
        first.close().unwrap();
        assert_refused(clone.has("a"), ErrorKind::Closed, &[]);
        assert_eq!(
            second.get("a").unwrap(),
            Some(2),
            "another opening stays open"
        );
        let path = place.path().join("..").join("store");
        let by_another_path: Store = place.open_at(place.options(), &path).unwrap();
        by_another_path.set("a", &3).unwrap();
        assert_eq!(second.get("a").unwrap(), Some(3));
    }
}

#[test]
fn stores_in_memory_are_apart_from_each_other() {
    let (one, other) = (Store::in_memory(), Store::in_memory());
    one.set("a", &1).unwrap();
    assert!(!other.has("a").unwrap());
    assert_eq!(one.clone().get("a").unwrap(), Some(1));
}

#[test]
fn bulk_calls_answer_in_the_order_asked() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set([("b", 2), ("a", 1), ("c", 3), ("a", 9)])
            .unwrap();
        let asked = ["c", "missing", "a", "c", "b"];
        let found = store.bulk_get::<i32>(asked).unwrap();
        assert_eq!(found, [Some(3), None, Some(9), Some(3), Some(2)]);
        let gone = store.bulk_delete(["c", "missing", "a", "c"]).unwrap();
        assert_eq!(gone, [true, false, true, false]);
        assert_eq!(store.query().pairs::<i32>().unwrap(), owned(&[("b", 2)]));
    }
}

#[test]
fn bulk_calls_about_nothing_do_nothing() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set([] as [(&str, i32); 0]).unwrap();
        assert_eq!(store.bulk_get::<i32>([] as [&str; 0]).unwrap(), []);
        assert!(store.bulk_delete([] as [&str; 0]).unwrap().is_empty());
        assert_eq!(store.bulk_delete(["a"]).unwrap(), [false]);
        assert_eq!(store.stats().unwrap().commits, 0);
    }
}

#[test]
fn a_bulk_call_is_one_batch_and_takes_any_number_of_keys() {
    for place in everywhere() {
        let store = place.open();
        let key = |n: u32| format!("{n:06}");
        store
            .bulk_set((0..100_000).rev().map(|n| (key(n), n)))
            .unwrap();
        assert_eq!(store.stats().unwrap().commits, 1);
        let keys: Vec<String> = (0..100_000).map(key).collect();
        let values = store.bulk_get::<u32>(&keys).unwrap();
        assert!(values.into_iter().eq((0..100_000).map(Some)));
        assert_eq!(store.query().keys().unwrap(), keys, "keys are in order");
        assert!(
            store
                .bulk_delete(&keys)
                .unwrap()
                .into_iter()
                .all(|there| there)
        );
        assert_eq!(store.query().count().unwrap(), 0);
        assert_eq!(store.stats().unwrap().commits, 2);
    }
}

#[test]
fn many_segments_are_read_back_in_one_order() {
    for place in with_a_disk() {
        let options = || place.options().segment_bytes(512);
        let store = place.open_with(options()).unwrap();
        for n in 0..200_u32 {
            store.set(&format!("{:03}", n % 50), &n).unwrap();
        }
        assert!(store.stats().unwrap().segments > 5);
        store.close().unwrap();
        let store = place.open_with(options()).unwrap();
        let values: Vec<u32> = store
            .query()
            .pairs()
            .unwrap()
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert!(values.into_iter().eq(150..200));
        store.verify().unwrap();
    }
}

#[test]
fn keys_may_be_any_bytes() {
    for place in everywhere() {
        let store = place.open_with(place.options().byte_keys()).unwrap();
        let keys: [&[u8]; 5] = [&[], &[0], &[0, 0], &[0x80, 0xff], &[0xff]];
        for (n, key) in keys.iter().enumerate().rev() {
            store.set(key, &n).unwrap();
        }
        assert_eq!(store.query().keys().unwrap(), keys);
        assert_eq!(store.get(&[0x80, 0xff]).unwrap(), Some(3_usize));
        let numbers = store.query().range(1_u32.to_be_bytes()..).keys().unwrap();
        assert_eq!(numbers, keys[3..]);
        assert!(store.delete(&[]).unwrap());
        assert_eq!(store.query().count().unwrap(), 4);
    }
}

#[test]
fn text_keys_are_in_the_order_of_code_points() {
    for place in everywhere() {
        let store = place.open();
        let keys = [
            "", "A", "Z", "_", "a", "a\0", "ab", "z", "é", "ß", "中", "\u{ffff}", "😀",
        ];
        let mut sorted = keys;
        sorted.sort_by(|a, b| a.chars().cmp(b.chars()));
        for key in keys {
            store.set(key, key).unwrap();
        }
        assert_eq!(store.query().keys().unwrap(), sorted);
        assert_eq!(
            store.get::<String>("").unwrap().as_deref(),
            Some(""),
            "empty is a key"
        );
    }
}

#[test]
fn a_key_at_the_limit_is_kept_and_one_over_it_is_refused() {
    for place in everywhere() {
        let store = place.open();
        let (longest, over) = ("k".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX + 1));
        store.set(&longest, &1).unwrap();
        assert_eq!(store.get(&longest).unwrap(), Some(1));
        let limit = KEY_BYTES_MAX.to_string();
        let parts = [&*(KEY_BYTES_MAX + 1).to_string(), &limit, "\"kkk"];
        assert_refused(store.set(&over, &1), ErrorKind::TooLarge, &parts);
        assert_refused(
            store.bulk_set([("a", 1), (&*over, 2)]),
            ErrorKind::TooLarge,
            &parts,
        );
        assert!(!store.has("a").unwrap(), "none of the pairs is set");
        assert_eq!(
            store.get::<i32>(&over).unwrap(),
            None,
            "a key that cannot be is not there"
        );
        assert!(!store.delete(&over).unwrap());
        let tx = store.begin().unwrap();
        assert_refused(tx.set(&over, &1), ErrorKind::TooLarge, &parts);
        tx.set("a", &2).unwrap();
        tx.commit().unwrap();
        assert_eq!(store.get("a").unwrap(), Some(2));
        assert_eq!(store.query().count().unwrap(), 2);
    }
}

/// Encodes a number as that many zeros, in memory that is never touched.
#[derive(Clone)]
struct Zeros;

impl Serializer for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }
}

impl Encode<usize> for Zeros {
    fn encode(&self, len: &usize, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if out.is_empty() {
            *out = vec![0; *len];
        } else {
            out.resize(out.len() + len, 0);
        }
        Ok(())
    }
}

#[test]
fn a_value_or_a_batch_over_the_limit_is_refused() {
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Zeros)).unwrap();
        let over = VALUE_BYTES_MAX + 1;
        let parts = ["\"big\"", &over.to_string(), &VALUE_BYTES_MAX.to_string()];
        assert_refused(store.set("big", &over), ErrorKind::TooLarge, &parts);
        assert_refused(store.bulk_set([("big", over)]), ErrorKind::TooLarge, &parts);
        let tx = store.begin().unwrap();
        tx.set("small", &3).unwrap();
        assert_refused(tx.set("big", &over), ErrorKind::TooLarge, &parts);
        tx.commit().unwrap();
        let too_many = (0..3).map(|n| (n.to_string(), VALUE_BYTES_MAX));
        let parts = [&*BATCH_BYTES_MAX.to_string(), "batch"];
        assert_refused(store.bulk_set(too_many), ErrorKind::TooLarge, &parts);
        assert_eq!(store.query().keys().unwrap(), ["small"]);
        assert_eq!(store.with(Raw).get("small").unwrap(), Some(vec![0; 3]));
    }
}

#[test]
fn large_values_come_back_whole() {
    for place in with_a_disk() {
        let store = place.open_with(place.options().serializer(Raw)).unwrap();
        let sizes = [0, 1, 4095, 4096, 32 << 10, 5 << 20];
        let value = |size: usize| (0..=250).cycle().take(size).collect::<Vec<u8>>();
        for size in sizes {
            store.set(&size.to_string(), &value(size)).unwrap();
        }
        store.close().unwrap();
        let store = place.open_with(place.options().serializer(Raw)).unwrap();
        for size in sizes {
            assert!(
                store.get(&size.to_string()).unwrap() == Some(value(size)),
                "{size} bytes"
            );
        }
    }
}

#[test]
fn a_view_with_another_serializer_is_of_the_same_store() {
    for place in everywhere() {
        let store = place.open();
        let raw = store.with(Raw);
        raw.set("bytes", &[1, 2, 3]).unwrap();
        store.set("number", &24).unwrap();
        assert_eq!(raw.get("bytes").unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(raw.get("number").unwrap(), Some(vec![0x18, 24]), "CBOR");
        assert_eq!(store.query().count().unwrap(), 2);
        assert_eq!(raw.query().pairs::<Vec<u8>>().unwrap().len(), 2);
        let tx = raw.begin().unwrap();
        tx.set("bytes", "text").unwrap();
        assert_refused(store.set("a", &1), ErrorKind::WouldDeadlock, &[]);
        tx.commit().unwrap();
        assert_eq!(raw.get("bytes").unwrap(), Some(b"text".to_vec()));
    }
}

#[test]
fn the_defaults_of_options_are_those_of_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/yet/there");
    let store = Store::open(&path).unwrap();
    store.set("a", &1).unwrap();
    assert!(store.stats().unwrap().syncs > 0, "Sync is the default");
    let again: Store = Options::default().open(&path).unwrap();
    assert_eq!(again.get("a").unwrap(), Some(1));
}
