//! Transactions: all or nothing, nested to any depth, seen by nobody before their commit.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use happystore::limits::{LABEL_BYTES_MAX, LOCK_TIMEOUT_MAX};
use happystore::{
    Durability, Error, ErrorKind, Read, Result, Store, Transaction, TxOptions, Write,
};

use crate::support::{assert_refused, everywhere, owned};

/// How a level of a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    Commit,
    Abort,
    Fail,
    Panic,
}

pub(crate) const ENDS: [End; 4] = [End::Commit, End::Abort, End::Fail, End::Panic];

/// Runs `body` in a transaction of `db`, and lets it end as `end` says.
pub(crate) fn run(db: &impl Write, end: End, body: &dyn Fn(&Transaction<'_>)) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        db.transaction(|tx| {
            body(tx);
            match end {
                End::Commit => Ok(()),
                End::Abort => tx.abort(()),
                End::Fail => Err(Error::Aborted),
                End::Panic => std::panic::resume_unwind(Box::new("as planned")),
            }
        })
    }));
    match end {
        End::Commit | End::Abort => ended.unwrap().unwrap(),
        End::Fail => assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::Aborted),
        End::Panic => assert!(ended.is_err()),
    }
}

pub(crate) fn pairs(db: &impl Read) -> Vec<(String, i32)> {
    db.query().pairs().unwrap()
}

#[test]
fn a_transaction_is_invisible_until_its_commit() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", &1).unwrap();
        let before = store.snapshot().unwrap();
        let tx = store.begin().unwrap();
        tx.set("a", &2).unwrap();
        let inner = tx.begin().unwrap();
        inner.set("b", &2).unwrap();
        inner.commit().unwrap();
        for db in [&before, &store.snapshot().unwrap()] {
            assert_eq!(pairs(db), owned(&[("a", 1)]));
        }
        assert_eq!(pairs(&store), owned(&[("a", 1)]));
        assert_eq!(store.bulk_get::<i32>(["a", "b"]).unwrap(), [Some(1), None]);
        tx.commit().unwrap();
        assert_eq!(pairs(&store), owned(&[("a", 2), ("b", 2)]));
        assert_eq!(pairs(&before), owned(&[("a", 1)]));
        assert_eq!(store.stats().unwrap().commits, 2, "one batch each");
    }
}

#[test]
fn writing_through_the_store_of_an_open_transaction_is_refused_at_once() {
    for place in everywhere() {
        let options = place
            .options()
            .lock_timeout(LOCK_TIMEOUT_MAX)
            .label("loader");
        let store = place.open_with(options).unwrap();
        store.set("a", &1).unwrap();
        let tx = store.begin().unwrap();
        tx.set("a", &2).unwrap();
        let refuse = |result: Result<()>| {
            let parts = ["\"loader\"", "wait for itself", "through the transaction"];
            assert_refused(result, ErrorKind::WouldDeadlock, &parts);
        };
        refuse(store.set("a", &3));
        refuse(store.delete("a").map(drop));
        refuse(store.bulk_set([("a", 3)]));
        refuse(store.bulk_delete(["a"]).map(drop));
        refuse(store.query().delete().map(drop));
        refuse(store.begin().map(drop));
        refuse(
            store
                .begin_with(&TxOptions::new().timeout(Duration::ZERO))
                .map(drop),
        );
        refuse(store.transaction(|_| panic!("the closure does not run")));
        assert_eq!(store.get("a").unwrap(), Some(1), "the last committed state");
        assert_eq!(pairs(&store.snapshot().unwrap()), owned(&[("a", 1)]));
        tx.commit().unwrap();
        assert_eq!(store.get("a").unwrap(), Some(2));
        let tx = store.begin_with(&TxOptions::new().label("job 7")).unwrap();
        let parts = ["\"job 7\""];
        assert_refused(store.clone().close(), ErrorKind::WouldDeadlock, &parts);
        drop(tx);
    }
}

#[test]
fn an_aborted_transaction_says_so() {
    for place in everywhere() {
        let store = place.open();
        let aborted = store.transaction(|tx| -> Result<&str> {
            tx.set("a", &1)?;
            let value = tx.abort("value")?;
            let refuse = |result: Result<()>| {
                assert_refused(result, ErrorKind::Aborted, &["was aborted"]);
            };
            refuse(tx.get::<i32>("a").map(drop));
            refuse(tx.has("a").map(drop));
            refuse(tx.set("a", &1));
            refuse(tx.delete("a").map(drop));
            refuse(tx.bulk_set([("a", 1)]));
            refuse(tx.query().count().map(drop));
            refuse(tx.query().delete().map(drop));
            refuse(tx.scan().iter::<i32>().map(drop));
            refuse(tx.begin().map(drop));
            refuse(tx.transaction(|_| Ok(())));
            refuse(tx.abort(()));
            Ok(value)
        });
        assert_eq!(aborted.unwrap(), "value");
        // Whoever aborts and goes on to fail, fails.
        let failed = store.transaction(|tx| -> Result<()> {
            tx.abort(())?;
            tx.set("a", &1)
        });
        assert_refused(failed, ErrorKind::Aborted, &[]);
        assert_eq!(store.query().count().unwrap(), 0);
        store.set("a", &1).unwrap();
    }
}

#[test]
fn a_panic_frees_the_lock_and_poisons_nothing() {
    for place in everywhere() {
        let store = place
            .open_with(place.options().lock_timeout(Duration::ZERO))
            .unwrap();
        for _ in 0..3 {
            run(&store, End::Panic, &|tx| tx.set("a", &1).unwrap());
            assert!(!store.has("a").unwrap());
        }
        // In an iterator of the user's, below a call of the store's.
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let tx = store.begin().unwrap();
            tx.set("b", &1).unwrap();
            tx.bulk_set((0..3).map(|n| {
                if n < 2 {
                    (n.to_string(), n)
                } else {
                    panic!("no")
                }
            }))
        }));
        assert!(panicked.is_err());
        store.set("a", &1).unwrap();
        assert_eq!(pairs(&store), owned(&[("a", 1)]));
        store.close().unwrap();
    }
}

#[test]
fn a_closure_runs_exactly_once() {
    for place in everywhere() {
        let store = place.open();
        for end in ENDS {
            let runs = Cell::new(0);
            run(&store, end, &|_| runs.set(runs.get() + 1));
            assert_eq!(runs.get(), 1, "{end:?}");
        }
    }
}

#[test]
fn a_transaction_has_options_of_its_own() {
    for place in everywhere() {
        let store = place.open();
        let (timeout, delay) = (LOCK_TIMEOUT_MAX + Duration::from_secs(1), Duration::ZERO);
        let refuse = |options: TxOptions, part: &str| {
            let begun = store.begin_with(&options);
            assert_refused(begun, ErrorKind::InvalidOption, &[part, "it must be"]);
        };
        refuse(TxOptions::new().timeout(timeout), "timeout");
        refuse(
            TxOptions::new().durability(Durability::Deferred(delay)),
            "durability",
        );
        refuse(
            TxOptions::new().label("x".repeat(LABEL_BYTES_MAX + 1)),
            "label",
        );
        let durable = |durability| {
            let before = store.stats().unwrap().syncs;
            let tx = store
                .begin_with(&TxOptions::new().durability(durability))
                .unwrap();
            tx.set("a", &1).unwrap();
            tx.commit().unwrap();
            store.stats().unwrap().syncs - before
        };
        assert_eq!(durable(Durability::Os), 0);
        assert!(durable(Durability::Sync) > 0);
        assert_eq!(durable(Durability::Deferred(Duration::from_hours(1))), 0);
        assert_eq!(store.stats().unwrap().commits, 3);
    }
}

#[test]
fn a_transaction_without_changes_commits_nothing() {
    for place in everywhere() {
        let store = place.open();
        store.begin().unwrap().commit().unwrap();
        store
            .transaction(|tx| -> Result<()> { tx.get::<i32>("a").map(drop) })
            .unwrap();
        let stats = store.stats().unwrap();
        assert_eq!((stats.commits, stats.sequence), (0, 0));
    }
}

#[test]
fn what_a_bulk_call_iterates_over_may_read_the_transaction() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set([("a", 1), ("b", 2)]).unwrap();
        let tx = store.begin().unwrap();
        let doubled = |key| (key, tx.get::<i32>(key).unwrap().unwrap() * 2);
        tx.bulk_set(["a", "b"].into_iter().map(doubled)).unwrap();
        let gone = tx.bulk_delete(
            ["a", "b"]
                .into_iter()
                .filter(|key| tx.get::<i32>(key).unwrap() == Some(4)),
        );
        assert_eq!(gone.unwrap(), [true]);
        tx.commit().unwrap();
        assert_eq!(pairs(&store), owned(&[("a", 2)]));
    }
}

fn increment(db: &impl Write, key: &str) -> Result<i64> {
    db.transaction(|tx| {
        let next = tx.get(key)?.unwrap_or(0) + 1;
        tx.set(key, &next)?;
        Ok(next)
    })
}

#[test]
fn one_function_serves_stores_and_transactions_of_any_level() {
    for place in everywhere() {
        let store: Store = place.open();
        assert_eq!(increment(&store, "n").unwrap(), 1);
        let tx = store.begin().unwrap();
        assert_eq!(increment(&tx, "n").unwrap(), 2);
        let inner = Write::begin(&tx).unwrap();
        assert_eq!(increment(&inner, "n").unwrap(), 3);
        drop(inner);
        assert_eq!(increment(&tx, "n").unwrap(), 3);
        tx.commit().unwrap();
        assert_eq!(Read::get(&store, "n").unwrap(), Some(3_i64));
        let values = Read::bulk_get::<i64>(&store, ["n", "m"]).unwrap();
        assert_eq!(values, [Some(3), None]);
        Write::bulk_set(&store, [("m", 1)]).unwrap();
        assert!(Write::delete(&store, "m").unwrap() && !Read::has(&store, "m").unwrap());
        assert_eq!(Write::bulk_delete(&store, ["n"]).unwrap(), [true]);
    }
}
