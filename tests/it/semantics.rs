//! The model that this store follows, row by row: where it does the same, and where better.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use happystore::{
    BoxError, Cbor, Decode, Encode, Error, ErrorKind, Json, Options, Raw, Serializer, Store,
};

use crate::support::{assert_refused, everywhere, owned, refused, with_a_disk, with_threads};

#[test]
fn getting_a_missing_key_is_none() {
    for place in everywhere() {
        let store = place.open();
        assert_eq!(store.get::<i32>("missing").unwrap(), None);
        assert_eq!(
            store.snapshot().unwrap().get::<i32>("missing").unwrap(),
            None
        );
        assert_eq!(store.begin().unwrap().get::<i32>("missing").unwrap(), None);
    }
}

#[derive(Debug, PartialEq)]
enum MyError {
    Empty,
    Store(ErrorKind),
}

impl From<Error> for MyError {
    fn from(error: Error) -> Self {
        Self::Store(error.kind())
    }
}

#[test]
fn an_abort_an_error_and_a_panic_roll_back_each_in_its_way() {
    for place in everywhere() {
        let store = place.open();
        let aborted = store.transaction(|tx| -> Result<i32, MyError> {
            tx.set("a", &1)?;
            tx.abort(7)
        });
        assert_eq!(aborted, Ok(7), "an abort is not an error");
        let failed = store.transaction(|tx| -> Result<i32, MyError> {
            tx.set("a", &1)?;
            Err(MyError::Empty)
        });
        assert_eq!(failed, Err(MyError::Empty), "an error is given on");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transaction(|tx| -> Result<i32, MyError> {
                tx.set("a", &1)?;
                panic!("as planned")
            })
        }));
        assert_eq!(
            panicked.unwrap_err().downcast_ref(),
            Some(&"as planned"),
            "it goes on"
        );
        assert_eq!(store.query().count().unwrap(), 0);
        store.set("a", &1).unwrap();
    }
}

#[test]
fn the_store_does_not_join_the_transaction_of_its_thread() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", &1).unwrap();
        store
            .transaction(|tx| -> happystore::Result<()> {
                tx.set("a", &2)?;
                assert_eq!(store.get("a")?, Some(1));
                let refused = store.set("a", &3);
                assert_refused(
                    refused,
                    ErrorKind::WouldDeadlock,
                    &["through the transaction"],
                );
                Ok(())
            })
            .unwrap();
        assert_eq!(store.get("a").unwrap(), Some(2));
    }
}

#[test]
fn a_prefix_is_literal() {
    for place in everywhere() {
        let store = place.open();
        let keys = ["a_b", "axb", "A_b", "a%b", "a_", "a"];
        store.bulk_set(keys.map(|key| (key, 0))).unwrap();
        assert_eq!(store.query().prefix("a_").keys().unwrap(), ["a_", "a_b"]);
        assert_eq!(store.query().prefix("a%").keys().unwrap(), ["a%b"]);
        assert_eq!(store.query().prefix("A").keys().unwrap(), ["A_b"]);
        assert_eq!(store.query().prefix("%").count().unwrap(), 0);
    }
}

#[test]
fn reverse_is_honoured_with_a_prefix() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set([("a/1", 1), ("a/2", 2), ("b/1", 3)])
            .unwrap();
        let pairs = store.query().prefix("a/").reverse().pairs::<i32>().unwrap();
        assert_eq!(pairs, owned(&[("a/2", 2), ("a/1", 1)]));
        assert_eq!(
            store
                .query()
                .prefix("a/")
                .reverse()
                .limit(1)
                .keys()
                .unwrap(),
            ["a/2"]
        );
    }
}

#[test]
fn a_query_about_nothing_in_particular_is_about_everything() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set([("b", 2), ("a", 1)]).unwrap();
        assert_eq!(
            store.query().pairs::<i32>().unwrap(),
            owned(&[("a", 1), ("b", 2)])
        );
        assert_eq!(store.query().delete().unwrap(), 2);
        assert_eq!(store.query().count().unwrap(), 0);
    }
}

#[test]
fn an_abort_after_an_inner_abort_leaks_no_writes() {
    for place in everywhere() {
        let store = place.open();
        store
            .transaction(|tx| -> happystore::Result<()> {
                tx.set("outer", &1)?;
                tx.transaction(|inner| {
                    inner.set("inner", &1)?;
                    inner.transaction(|innermost| {
                        innermost.set("innermost", &1)?;
                        innermost.abort(())
                    })?;
                    inner.abort(())
                })?;
                assert_eq!(tx.query().keys()?, ["outer"]);
                tx.abort(())
            })
            .unwrap();
        assert_eq!(store.query().count().unwrap(), 0);
    }
}

#[test]
fn bulk_calls_about_no_keys_or_very_many_work() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set(std::iter::empty::<(String, i32)>()).unwrap();
        let keys: Vec<String> = (0..40_000).map(|n| n.to_string()).collect();
        store.bulk_set(keys.iter().map(|key| (key, 1))).unwrap();
        assert_eq!(store.bulk_get::<i32>(&keys).unwrap(), vec![Some(1); 40_000]);
        assert_eq!(store.bulk_delete(&keys).unwrap(), vec![true; 40_000]);
    }
}

#[test]
fn a_key_deleted_twice_in_one_call_was_there_once() {
    for place in everywhere() {
        let store = place.open();
        store.set("x", &1).unwrap();
        assert_eq!(store.bulk_delete(["x", "x"]).unwrap(), [true, false]);
        store.set("x", &1).unwrap();
        let tx = store.begin().unwrap();
        assert_eq!(tx.bulk_delete(["x", "x"]).unwrap(), [true, false]);
        tx.commit().unwrap();
        assert!(!store.has("x").unwrap());
    }
}

#[test]
fn one_deadline_holds_between_threads_and_zero_tries_once() {
    for place in with_threads() {
        let options = place.options().lock_timeout(Duration::ZERO);
        let store = place.open_with(options).unwrap();
        let tx = store.begin().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let begun = Instant::now();
                (refused(store.set("a", &1)), begun.elapsed())
            });
            let (error, took) = waiter.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::LockTimeout);
            assert!(
                took < Duration::from_secs(4),
                "five seconds are the model's answer"
            );
        });
        drop(tx);
        store.set("a", &1).unwrap();
    }
}

#[test]
fn the_pages_of_a_scan_are_of_one_snapshot() {
    for place in everywhere() {
        let store = place.open();
        let key = |n: i32| format!("{n:03}");
        store.bulk_set((0..100).map(|n| (key(n), 0))).unwrap();
        let mut pairs = store.scan().page_size(10).iter::<i32>().unwrap();
        assert_eq!(pairs.next().unwrap().unwrap(), (key(0), 0));
        store.bulk_set((0..200).map(|n| (key(n), 1))).unwrap();
        store.query().prefix("05").delete().unwrap();
        let rest: Vec<_> = pairs.map(|pair| pair.unwrap()).collect();
        assert_eq!(rest, (1..100).map(|n| (key(n), 0)).collect::<Vec<_>>());
    }
}

#[test]
fn a_store_in_memory_is_a_store() {
    let memory: Store = Store::in_memory();
    let with_options: Store<Json> = Options::new().serializer(Json).in_memory().unwrap();
    memory.set("a", &1).unwrap();
    with_options.set("a", &1).unwrap();
    assert_eq!(
        memory.query().count().unwrap(),
        with_options.query().count().unwrap()
    );
}

/// Numbers as their digits.
#[derive(Clone)]
struct Digits;

impl Serializer for Digits {
    fn name(&self) -> &'static str {
        "digits"
    }
}

impl Encode<u32> for Digits {
    fn encode(&self, value: &u32, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }
}

impl Decode<u32> for Digits {
    fn decode(&self, bytes: &[u8]) -> Result<u32, BoxError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

#[test]
fn each_serializer_of_the_model_has_its_like() {
    let value = BTreeMap::from([("half".to_owned(), 0.5), ("most".to_owned(), 0.75)]);
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Cbor)).unwrap();
        store.set("a", &value).unwrap();
        assert_eq!(store.get("a").unwrap().as_ref(), Some(&value));
        let json = store.with(Json);
        json.set("b", &value).unwrap();
        assert_eq!(
            store.with(Raw).get("b").unwrap(),
            Some(br#"{"half":0.5,"most":0.75}"#.to_vec())
        );
        let own = store.with(Digits);
        own.set("c", &123).unwrap();
        assert_eq!(own.get("c").unwrap(), Some(123));
        assert_eq!(store.with(Raw).get("c").unwrap(), Some(b"123".to_vec()));
    }
}

#[test]
fn a_value_that_cannot_be_encoded_changes_nothing() {
    let bad = BTreeMap::from([((1, 2), 3)]);
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Json)).unwrap();
        store.set("a", &1).unwrap();
        assert_refused(
            store.set("a", &bad),
            ErrorKind::Encode,
            &["\"a\"", "\"json\""],
        );
        let tx = store.begin().unwrap();
        tx.set("b", &2).unwrap();
        assert_refused(tx.set("b", &bad), ErrorKind::Encode, &["\"b\""]);
        assert_eq!(tx.get("b").unwrap(), Some(2));
        tx.commit().unwrap();
        assert_refused(
            store.get::<String>("a"),
            ErrorKind::Decode,
            &["\"a\"", "String"],
        );
        assert_eq!(
            store.query().pairs::<i32>().unwrap(),
            owned(&[("a", 1), ("b", 2)])
        );
    }
}

#[test]
fn the_defaults_are_those_of_the_model() {
    assert_eq!(
        happystore::limits::LOCK_TIMEOUT_DEFAULT,
        Duration::from_secs(5)
    );
    assert_eq!(happystore::limits::PAGE_SIZE_DEFAULT, 100);
}

#[test]
fn leaving_the_scope_closes_the_store_and_close_reports_errors() {
    for place in with_a_disk() {
        {
            let store = place.open();
            store.set("a", &1).unwrap();
        }
        let store = place.open();
        assert_eq!(store.get("a").unwrap(), Some(1));
        let clone = store.clone();
        store.close().unwrap();
        assert_refused(clone.close(), ErrorKind::Closed, &[]);
    }
}

#[test]
fn readers_wait_for_nobody_and_nobody_waits_for_readers() {
    for place in with_threads() {
        let store = place.open();
        store.set("a", &1).unwrap();
        let tx = store.begin().unwrap();
        tx.set("a", &2).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                assert_eq!(store.get("a").unwrap(), Some(1));
                store.query().iter::<i32>().unwrap()
            });
            // The writer is still at it: a reader that waited for it would never end.
            let mut iter = reader.join().unwrap();
            tx.commit().unwrap();
            store.set("a", &3).unwrap();
            assert_eq!(iter.next().unwrap().unwrap().1, 1);
        });
    }
}
