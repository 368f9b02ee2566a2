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
enum End {
    Commit,
    Abort,
    Fail,
    Panic,
}

const ENDS: [End; 4] = [End::Commit, End::Abort, End::Fail, End::Panic];

/// Runs `body` in a transaction of `db`, and lets it end as `end` says.
fn run(db: &impl Write, end: End, body: &dyn Fn(&Transaction<'_>)) {
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

/// The same by guards, where all that is no commit is a drop.
fn guard(db: &impl Write, end: End, body: &dyn Fn(&Transaction<'_>)) {
    let tx = db.begin().unwrap();
    body(&tx);
    match end {
        End::Commit => tx.commit().unwrap(),
        End::Abort => {
            tx.abort(()).unwrap();
            assert_refused(
                tx.commit(),
                ErrorKind::Aborted,
                &["return from it, or drop it"],
            );
        }
        End::Fail | End::Panic => drop(tx),
    }
}

type Level = fn(&Transaction<'_>, End, &dyn Fn(&Transaction<'_>));

fn pairs(db: &impl Read) -> Vec<(String, i32)> {
    db.query().pairs().unwrap()
}

#[test]
fn every_level_ends_in_every_way_without_touching_the_others() {
    for place in everywhere() {
        for outer in ENDS {
            for middle in ENDS {
                for inner in ENDS {
                    let levels: [Level; 2] = [
                        |tx, end, body| run(tx, end, body),
                        |tx, end, body| guard(tx, end, body),
                    ];
                    for (n, level) in levels.into_iter().enumerate() {
                        let store = place.open();
                        store.query().delete().unwrap();
                        store.bulk_set([("a", 0), ("gone", 0)]).unwrap();
                        let before = pairs(&store);
                        let expected = Cell::new(before.clone());
                        run(&store, outer, &|tx| {
                            expected.set(three_levels(tx, middle, inner, level));
                        });
                        let expected = if outer == End::Commit {
                            expected.take()
                        } else {
                            before
                        };
                        let ends = (outer, middle, inner, n);
                        assert_eq!(pairs(&store), expected, "{ends:?}");
                    }
                }
            }
        }
    }
}

/// Writes at three levels; gives what the outermost sees at its end.
fn three_levels(tx: &Transaction<'_>, middle: End, inner: End, level: Level) -> Vec<(String, i32)> {
    tx.set("a", &1).unwrap();
    tx.set("outer", &1).unwrap();
    let at_one = pairs(tx);
    let after_middle = Cell::new(Vec::new());
    level(tx, middle, &|tx| {
        tx.set("a", &2).unwrap();
        tx.delete("gone").unwrap();
        let at_two = pairs(tx);
        assert_eq!(at_two, owned(&[("a", 2), ("outer", 1)]));
        let at_three = Cell::new(Vec::new());
        level(tx, inner, &|tx| {
            tx.set("a", &3).unwrap();
            tx.set("gone", &3).unwrap();
            tx.delete("outer").unwrap();
            tx.set("inner", &3).unwrap();
            tx.delete("inner").unwrap();
            at_three.set(pairs(tx));
        });
        let at_three = at_three.take();
        assert_eq!(at_three, owned(&[("a", 3), ("gone", 3)]));
        let now = if inner == End::Commit {
            at_three
        } else {
            at_two
        };
        assert_eq!(pairs(tx), now);
        tx.set("middle", &2).unwrap();
        after_middle.set(pairs(tx));
    });
    let now = if middle == End::Commit {
        after_middle.take()
    } else {
        at_one
    };
    assert_eq!(pairs(tx), now);
    tx.set("outer", &9).unwrap();
    pairs(tx)
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

/// Nests closures down to `depth`; each level writes, and every third one aborts.
fn nest(tx: &Transaction<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    tx.transaction(|inner| {
        inner.set("depth", &depth)?;
        inner.set(&format!("{depth:04}"), &depth)?;
        nest(inner, depth - 1)?;
        if depth % 3 == 0 {
            inner.abort(())
        } else {
            Ok(())
        }
    })
}

/// The same with guards: each level sets its key, and the innermost aborts.
fn nest_guards(tx: &Transaction<'_>, depth: usize) -> Result<()> {
    let inner = tx.begin()?;
    inner.set(&format!("{depth:04}"), &depth)?;
    if depth > 1 {
        nest_guards(&inner, depth - 1)?;
        assert_eq!(
            inner.get(&format!("{:04}", depth - 1))?,
            (depth > 2).then_some(depth - 1)
        );
        inner.commit()?;
    }
    Ok(())
}

#[test]
fn nesting_has_no_depth_limit() {
    for place in everywhere() {
        let store = place.open();
        store.transaction(|tx| nest(tx, 100)).unwrap();
        // 100 commits; 99 does not, and takes all below with it.
        assert_eq!(store.query().keys().unwrap(), ["0100", "depth"]);
        assert_eq!(store.get("depth").unwrap(), Some(100));
        let tx = store.begin().unwrap();
        nest_guards(&tx, 1_000).unwrap();
        tx.commit().unwrap();
        assert_eq!(
            store.query().prefix("0").count().unwrap(),
            998,
            "all but the innermost"
        );
    }
}

#[test]
fn own_writes_are_read_at_every_level_in_every_form() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set([("a", 1), ("b", 2), ("c", 3), ("d", 4)])
            .unwrap();
        let tx = store.begin().unwrap();
        tx.set("b", &20).unwrap();
        tx.delete("c").unwrap();
        let inner = tx.begin().unwrap();
        inner.set("aa", &11).unwrap();
        inner.set("c", &30).unwrap();
        inner.delete("d").unwrap();
        inner.set("e", &5).unwrap();
        assert_reads(
            &inner,
            &[("a", 1), ("aa", 11), ("b", 20), ("c", 30), ("e", 5)],
        );
        drop(inner);
        assert_reads(&tx, &[("a", 1), ("b", 20), ("d", 4)]);
        assert_reads(&store, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        assert!(!tx.delete("c").unwrap(), "it is deleted already");
        assert_eq!(
            tx.bulk_delete(["b", "c", "b", "d"]).unwrap(),
            [true, false, false, true]
        );
        assert_reads(&tx, &[("a", 1)]);
        assert_eq!(tx.query().delete().unwrap(), 1);
        assert_reads(&tx, &[]);
    }
}

/// Checks that `db` shows exactly `expected`, in every form of reading.
fn assert_reads(db: &impl Read, expected: &[(&str, i32)]) {
    let keys = ["a", "aa", "b", "c", "d", "e"];
    let value = |key| {
        expected
            .iter()
            .find(|pair| pair.0 == key)
            .map(|pair| pair.1)
    };
    for key in keys {
        assert_eq!(db.get(key).unwrap(), value(key));
        assert_eq!(db.has(key).unwrap(), value(key).is_some());
    }
    assert_eq!(db.bulk_get::<i32>(keys).unwrap(), keys.map(value));
    let expected = owned(expected);
    let backwards: Vec<_> = expected.iter().rev().cloned().collect();
    let collected = |iter: happystore::Iter<i32, _, str>| iter.collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(db.query().pairs::<i32>().unwrap(), expected);
    assert_eq!(db.query().reverse().pairs::<i32>().unwrap(), backwards);
    assert_eq!(db.query().count().unwrap(), expected.len() as u64);
    let listed: Vec<_> = expected.iter().map(|pair| pair.0.clone()).collect();
    assert_eq!(db.query().keys().unwrap(), listed);
    assert_eq!(collected(db.query().iter().unwrap()), expected);
    assert_eq!(collected(db.scan().page_size(1).iter().unwrap()), expected);
    assert_eq!(
        collected(db.scan().page_size(2).reverse().iter().unwrap()),
        backwards
    );
    for limit in 0..expected.len() {
        assert_eq!(
            db.query().limit(limit).pairs::<i32>().unwrap(),
            expected[..limit]
        );
        let last = db.query().reverse().limit(limit).pairs::<i32>().unwrap();
        assert_eq!(last, backwards[..limit]);
    }
    let (low, high) = ("aa", "d");
    let inside = |pair: &&(String, i32)| (low..high).contains(&&*pair.0);
    let ranged = db.query().range(low..high).pairs::<i32>().unwrap();
    assert!(ranged.iter().eq(expected.iter().filter(inside)));
}

#[test]
fn a_parent_is_not_touched_while_its_child_is_open() {
    for place in everywhere() {
        let store = place.open();
        let tx = store.begin().unwrap();
        tx.set("a", &1).unwrap();
        let child = tx.begin().unwrap();
        let refuse = |result: Result<()>| {
            assert_refused(
                result,
                ErrorKind::ChildActive,
                &["commit or drop that one first"],
            );
        };
        refuse(tx.get::<i32>("a").map(drop));
        refuse(tx.has("a").map(drop));
        refuse(tx.bulk_get::<i32>(["a"]).map(drop));
        refuse(tx.set("a", &2));
        refuse(tx.delete("a").map(drop));
        refuse(tx.bulk_set([("a", 2)]));
        refuse(tx.bulk_delete(["a"]).map(drop));
        refuse(tx.query().keys().map(drop));
        refuse(tx.query().delete().map(drop));
        refuse(tx.scan().iter::<i32>().map(drop));
        refuse(tx.begin().map(drop));
        refuse(tx.transaction(|_| Ok(())));
        refuse(tx.abort(()));
        child.set("b", &2).unwrap();
        child.commit().unwrap();
        tx.commit().unwrap();
        assert_eq!(pairs(&store), owned(&[("a", 1), ("b", 2)]));
    }
}

#[test]
fn a_forgotten_child_blocks_its_parent_but_not_the_store() {
    for place in everywhere() {
        let store = place.open();
        let tx = store.begin().unwrap();
        std::mem::forget(tx.begin().unwrap());
        assert_refused(tx.set("a", &1), ErrorKind::ChildActive, &[]);
        assert_refused(tx.commit(), ErrorKind::ChildActive, &[]);
        let forgot = store.transaction(|tx| -> Result<()> {
            tx.set("a", &1)?;
            tx.transaction(|inner| {
                inner.set("b", &1)?;
                std::mem::forget(inner.begin()?);
                Ok(())
            })
        });
        assert_refused(forgot, ErrorKind::ChildActive, &[]);
        let tx = store.begin().unwrap();
        let inner = tx.begin().unwrap();
        inner.set("b", &1).unwrap();
        std::mem::forget(inner.begin().unwrap());
        drop(inner);
        tx.set("c", &1).unwrap();
        tx.commit().unwrap();
        assert_eq!(
            store.query().keys().unwrap(),
            ["c"],
            "the drop undid the forgotten one too"
        );
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
        assert_eq!(durable(Durability::Deferred(Duration::from_secs(3600))), 0);
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
