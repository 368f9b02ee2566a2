//! Nested transactions: every level is undone by itself, and seen by the levels within.

use std::cell::Cell;

use happystore::{ErrorKind, Read, Result, Transaction, Write};

use crate::support::{assert_refused, everywhere, owned};
use crate::transactions::{ENDS, End, pairs, run};

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

/// Nests closures down to `depth`; each level writes, and every third one aborts.
fn nest(tx: &Transaction<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    tx.transaction(|inner| {
        inner.set("depth", &depth)?;
        inner.set(&format!("{depth:04}"), &depth)?;
        nest(inner, depth - 1)?;
        if depth.is_multiple_of(3) {
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
