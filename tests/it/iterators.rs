//! Iterators: from both ends, of one moment, with a life of their own.

use std::collections::VecDeque;

use happystore::{Cbor, ErrorKind, Iter, Query, Read, Result, Snapshot, Store, Transaction};

use crate::support::{assert_refused, everywhere, owned};

/// Takes from the ends of a query as the bits of `ends` say, and checks against a deque.
fn assert_interleaved(query: Query<'_, Cbor, str>, mut expected: VecDeque<i32>, ends: u32) {
    let mut iter = query.iter::<i32>().unwrap();
    for step in 0..u32::BITS {
        let back = ends >> step & 1 == 1;
        let (found, expected) = if back {
            (iter.next_back(), expected.pop_back())
        } else {
            (iter.next(), expected.pop_front())
        };
        let found = found.map(|pair| pair.unwrap().1);
        assert_eq!(found, expected, "step {step} of {ends:b}");
        if found.is_none() {
            assert!(
                iter.next().is_none() && iter.next_back().is_none(),
                "it stays ended"
            );
            return;
        }
    }
}

/// Every way to walk over `count` keys, with every limit up to one more.
fn assert_every_interleaving(db: &impl Read, count: i32) {
    let limit_max = usize::try_from(count).unwrap() + 1;
    for ends in 0..1_u32 << (count + 1) {
        for reverse in [false, true] {
            for limit in std::iter::once(None).chain((0..=limit_max).map(Some)) {
                let mut expected: VecDeque<i32> = if reverse {
                    (0..count).rev().collect()
                } else {
                    (0..count).collect()
                };
                expected.truncate(limit.unwrap_or(usize::MAX));
                let mut query = db.query();
                if reverse {
                    query = query.reverse();
                }
                if let Some(limit) = limit {
                    query = query.limit(limit);
                }
                assert_interleaved(query, expected, ends);
            }
        }
    }
}

#[test]
fn both_ends_meet_in_the_middle() {
    for place in everywhere() {
        let store = place.open();
        for count in 0..5 {
            assert_every_interleaving(&store, count);
            // In a transaction, odd keys are changes over stored ones.
            let tx = store.begin().unwrap();
            for n in (1..count).step_by(2) {
                tx.set(&n.to_string(), &n).unwrap();
            }
            assert_every_interleaving(&tx, count);
            drop(tx);
            store.set(&count.to_string(), &count).unwrap();
        }
    }
}

#[test]
fn both_ends_meet_over_many_pages() {
    for place in everywhere() {
        let store = place.open();
        let count = 1_000;
        store
            .bulk_set((0..count).map(|n| (format!("{n:04}"), n)))
            .unwrap();
        for limit in [1_000, 333, 17, 16, 15] {
            for reverse in [false, true] {
                let mut expected: VecDeque<i32> = if reverse {
                    (0..count).rev().collect()
                } else {
                    (0..count).collect()
                };
                expected.truncate(limit);
                let mut query = store.query().limit(limit);
                if reverse {
                    query = query.reverse();
                }
                let mut iter = query.iter::<i32>().unwrap();
                for step in 0_usize.. {
                    // Now three from one end, now two from the other.
                    let back = step % 5 < 2;
                    let (found, expected) = if back {
                        (iter.next_back(), expected.pop_back())
                    } else {
                        (iter.next(), expected.pop_front())
                    };
                    let found = found.map(|pair| pair.unwrap().1);
                    assert_eq!(found, expected, "step {step}, limit {limit}");
                    if found.is_none() {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn an_iterator_walked_forwards_for_a_while_may_still_be_limited_from_behind() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set((0..500).map(|n| (format!("{n:03}"), n)))
            .unwrap();
        for taken in [0, 1, 15, 16, 17, 40, 99, 100] {
            for reverse in [false, true] {
                let query = store.query().limit(100);
                let query = if reverse { query.reverse() } else { query };
                let mut iter = query.iter::<i32>().unwrap();
                let value = |n: i32| if reverse { 499 - n } else { n };
                for n in 0..taken {
                    assert_eq!(iter.next().unwrap().unwrap().1, value(n));
                }
                let rest: Vec<i32> = iter.rev().map(|pair| pair.unwrap().1).collect();
                assert_eq!(rest, (taken..100).rev().map(value).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn an_iterator_outlives_its_handles_and_goes_to_other_threads() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set((0..300).map(|n| (format!("{n:03}"), n)))
            .unwrap();
        let iter = {
            let snapshot = store.snapshot().unwrap();
            let tx = store.begin().unwrap();
            tx.set("300", &300).unwrap();
            let in_transaction = tx.query().iter::<i32>().unwrap();
            drop(tx);
            assert_eq!(
                in_transaction.count(),
                301,
                "with what was rolled back since"
            );
            snapshot.query().iter::<i32>().unwrap()
        };
        drop(store);
        let sum = std::thread::spawn(move || iter.map(|pair| pair.unwrap().1).sum::<i32>());
        assert_eq!(sum.join().unwrap(), 299 * 300 / 2);
    }
}

#[test]
fn an_iterator_is_of_the_moment_it_was_made() {
    for place in everywhere() {
        let store = place.open();
        let key = |n: i32| format!("{n:03}");
        store.bulk_set((0..300).map(|n| (key(n), n))).unwrap();
        let before = store.query().pairs::<i32>().unwrap();
        let (whole, mut begun) = (
            store.query().iter::<i32>().unwrap(),
            store.query().iter::<i32>().unwrap(),
        );
        assert!(begun.next().is_some());
        for round in 0..3 {
            store.bulk_set((0..300).map(|n| (key(n), -round))).unwrap();
            store.query().range("100".."200").delete().unwrap();
            store.set("2505", &0).unwrap();
        }
        assert_eq!(whole.collect::<Result<Vec<_>>>().unwrap(), before);
        assert_eq!(begun.collect::<Result<Vec<_>>>().unwrap(), before[1..]);
    }
}

#[test]
fn an_iterator_in_a_transaction_does_not_see_later_changes_of_it() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set([("a", 1), ("c", 3)]).unwrap();
        let tx = store.begin().unwrap();
        tx.set("b", &2).unwrap();
        let iter = tx.query().iter::<i32>().unwrap();
        tx.set("a", &10).unwrap();
        tx.delete("b").unwrap();
        tx.set("d", &4).unwrap();
        let now = tx.query().pairs::<i32>().unwrap();
        tx.commit().unwrap();
        let pairs: Result<Vec<_>> = iter.collect();
        assert_eq!(pairs.unwrap(), owned(&[("a", 1), ("b", 2), ("c", 3)]));
        assert_eq!(now, owned(&[("a", 10), ("c", 3), ("d", 4)]));
    }
}

#[test]
fn an_iterator_keeps_the_error_it_met() {
    for place in everywhere() {
        let store = place.open();
        store.bulk_set([("a", 1), ("c", 3)]).unwrap();
        store.set("b", "not a number").unwrap();
        let mut iter = store.query().iter::<i32>().unwrap();
        assert_eq!(iter.next().unwrap().unwrap().1, 1);
        for _ in 0..3 {
            assert_refused(iter.next().unwrap(), ErrorKind::Decode, &["\"b\"", "i32"]);
            assert_refused(iter.next_back().unwrap(), ErrorKind::Decode, &["\"b\""]);
        }
        let mut iter = store.scan().iter::<i32>().unwrap();
        assert_eq!(iter.next_back().unwrap().unwrap().1, 3);
        assert_refused(iter.next_back().unwrap(), ErrorKind::Decode, &["\"b\""]);
        assert_refused(iter.next().unwrap(), ErrorKind::Decode, &["\"b\""]);
        assert_refused(store.query().pairs::<i32>(), ErrorKind::Decode, &["\"b\""]);
        assert_eq!(
            store.query().count().unwrap(),
            3,
            "what reads no values meets no error"
        );
        assert_eq!(store.query().keys().unwrap(), ["a", "b", "c"]);
        assert_eq!(store.query().delete().unwrap(), 3);
    }
}

fn is_send<T: Send + 'static>() {}
fn is_sync<T: Sync>() {}

#[test]
fn handles_go_where_their_documentation_says() {
    is_send::<Store>();
    is_sync::<Store>();
    is_send::<Store<happystore::Raw, [u8]>>();
    is_sync::<Store<happystore::Raw, [u8]>>();
    is_send::<Snapshot>();
    is_sync::<Snapshot>();
    is_send::<Iter<i32, Cbor, str>>();
    // The value's type does not matter: it is made where the iterator is.
    is_send::<Iter<std::rc::Rc<i32>, Cbor, str>>();
    is_send::<happystore::Error>();
    is_sync::<happystore::Error>();
    is_send::<happystore::Options>();
}

/// Has a method of this name for types that are not `Send`, and a better one for those that are.
struct Probe<T>(std::marker::PhantomData<T>);

trait NotSend {
    fn may_be_sent(&self) -> bool {
        false
    }
}

impl<T> NotSend for Probe<T> {}

impl<T: Send> Probe<T> {
    #[expect(
        clippy::unused_self,
        reason = "the receiver is what chooses the method"
    )]
    fn may_be_sent(&self) -> bool {
        true
    }
}

#[test]
fn a_transaction_stays_on_its_thread() {
    assert!(Probe::<Store>(std::marker::PhantomData).may_be_sent());
    assert!(!Probe::<Transaction<'static>>(std::marker::PhantomData).may_be_sent());
}
