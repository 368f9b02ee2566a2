//! Queries and scans: what they select, which way, how much, and when.

use std::ops::Bound;

use happystore::limits::PAGE_SIZE_MAX;
use happystore::{ErrorKind, Query, Read, Result, Store};

use crate::support::{assert_refused, everywhere, owned};

const KEYS: [&str; 9] = ["", "a", "a/1", "a/2", "a/3", "b", "b/1", "c", "é"];

fn filled(store: Store) -> Store {
    store.bulk_set(KEYS.iter().zip(0_i32..)).unwrap();
    store
}

/// A query to make anew for each of its forms.
type Make<'a> = dyn Fn() -> Query<'a, happystore::Cbor, str> + 'a;

/// Checks that every form of a query selects `expected`.
fn assert_selects(make: &Make<'_>, expected: &[&str]) {
    let value = |key: &str| (0_i32..).zip(KEYS).find(|pair| pair.1 == key).unwrap().0;
    let pairs: Vec<(String, i32)> = expected
        .iter()
        .map(|key| ((*key).to_owned(), value(key)))
        .collect();
    assert_eq!(make().keys().unwrap(), expected);
    assert_eq!(make().count().unwrap(), expected.len() as u64);
    assert_eq!(make().pairs::<i32>().unwrap(), pairs);
    let iterated: Result<Vec<(String, i32)>> = make().iter().unwrap().collect();
    assert_eq!(iterated.unwrap(), pairs);
    let backwards: Result<Vec<(String, i32)>> = make().iter().unwrap().rev().collect();
    assert!(
        backwards.unwrap().into_iter().rev().eq(pairs),
        "from the other end"
    );
}

/// What a form of `bounds`, `after`, direction and `limit` must select.
fn model(
    inside: &dyn Fn(&str) -> bool,
    after: Option<&str>,
    reverse: bool,
    limit: Option<usize>,
) -> Vec<&'static str> {
    let mut keys: Vec<&str> = KEYS.iter().copied().filter(|key| inside(key)).collect();
    if reverse {
        keys.reverse();
    }
    if let Some(after) = after {
        keys.retain(|key| if reverse { *key < after } else { *key > after });
    }
    keys.truncate(limit.unwrap_or(usize::MAX));
    keys
}

/// Checks a selection with every `after`, direction and limit, in reading and in deleting.
fn assert_every_form(db: &Store, select: &Make<'_>, inside: &dyn Fn(&str) -> bool) {
    let afters = [
        None,
        Some(""),
        Some("a/2"),
        Some("a/25"),
        Some("zzz"),
        Some("\u{10ffff}"),
    ];
    for after in afters {
        for reverse in [false, true] {
            for limit in [None, Some(0), Some(1), Some(2), Some(100), Some(usize::MAX)] {
                let make = || {
                    let mut query = select();
                    if let Some(after) = after {
                        query = query.after(after);
                    }
                    if reverse {
                        query = query.reverse();
                    }
                    if let Some(limit) = limit {
                        query = query.limit(limit);
                    }
                    query
                };
                let expected = model(inside, after, reverse, limit);
                assert_selects(&make, &expected);
                assert_eq!(make().delete().unwrap(), expected.len() as u64);
                let left = KEYS.iter().copied().filter(|key| !expected.contains(key));
                assert!(db.query().keys().unwrap().into_iter().eq(left));
                db.bulk_set(KEYS.iter().zip(0_i32..)).unwrap();
            }
        }
    }
}

#[test]
fn prefixes_select_in_every_form() {
    for place in everywhere() {
        let store = filled(place.open());
        assert_every_form(&store, &|| store.query(), &|_| true);
        for prefix in ["", "a", "a/", "a/2", "a/22", "é", "A", "_", "%", "z"] {
            let inside = |key: &str| key.starts_with(prefix);
            assert_every_form(&store, &|| store.query().prefix(prefix), &inside);
        }
    }
}

#[test]
fn every_range_of_rust_selects_in_every_form() {
    for place in everywhere() {
        let db = filled(place.open());
        let form = |select: &Make<'_>, inside: &dyn Fn(&str) -> bool| {
            assert_every_form(&db, select, inside);
        };
        form(&|| db.query().range(..), &|_| true);
        form(&|| db.query().range("a/1".."b"), &|k| {
            ("a/1".."b").contains(&k)
        });
        form(&|| db.query().range("a/1"..="b"), &|k| {
            ("a/1"..="b").contains(&k)
        });
        form(&|| db.query().range("a/15"..), &|k| k >= "a/15");
        form(&|| db.query().range(.."b"), &|k| k < "b");
        form(&|| db.query().range(..="b"), &|k| k <= "b");
        form(&|| db.query().range(..="a/2"), &|k| k <= "a/2");
        form(&|| db.query().range("a/2"..), &|k| k >= "a/2");
        form(&|| db.query().range(String::from("b")..), &|k| k >= "b");
        let bounds = (Bound::Excluded("a/1"), Bound::Excluded("b"));
        form(&|| db.query().range(bounds), &|k| "a/1" < k && k < "b");
        let bounds = (Bound::Excluded("b"), Bound::Unbounded);
        form(&|| db.query().range(bounds), &|k| k > "b");
    }
}

#[test]
fn an_inverted_or_empty_range_is_empty() {
    for place in everywhere() {
        let store = filled(place.open());
        assert_selects(&|| store.query().range("b".."a"), &[]);
        assert_selects(&|| store.query().range("b"..="a/2"), &[]);
        assert_selects(&|| store.query().range("b".."b"), &[]);
        assert_selects(&|| store.query().range("b"..="b"), &["b"]);
        assert_selects(&|| store.query().range(..""), &[]);
        let both_out = (Bound::Excluded("b"), Bound::Excluded("b"));
        assert_selects(&|| store.query().range(both_out), &[]);
        let half_out = (Bound::Included("b"), Bound::Excluded("b"));
        assert_selects(&|| store.query().range(half_out).reverse(), &[]);
        let inverted = (Bound::Excluded("c"), Bound::Included("a"));
        assert_selects(&|| store.query().range(inverted).limit(3), &[]);
        assert_eq!(store.query().range("c".."a").delete().unwrap(), 0);
        assert_selects(
            &|| store.query().range("b"..).after("c").reverse().after("b"),
            &[],
        );
    }
}

#[test]
fn a_prefix_with_a_range_is_refused_in_every_form() {
    for place in everywhere() {
        let store = filled(place.open());
        let refuse = |result: Result<()>| {
            assert_refused(result, ErrorKind::InvalidQuery, &["two", "use one of them"]);
        };
        refuse(
            store
                .query()
                .prefix("a")
                .range("a"..)
                .pairs::<i32>()
                .map(drop),
        );
        refuse(store.query().range("a"..).prefix("a").keys().map(drop));
        refuse(store.query().prefix("a").prefix("a").count().map(drop));
        refuse(store.query().range("a"..).range(.."b").delete().map(drop));
        refuse(store.query().prefix("").range(..).iter::<i32>().map(drop));
        assert_eq!(store.query().count().unwrap(), 9, "nothing was deleted");
    }
}

#[test]
fn prefixes_of_bytes_work_up_to_the_last_byte() {
    for place in everywhere() {
        let store = place.open_with(place.options().byte_keys()).unwrap();
        let keys: [&[u8]; 7] = [
            &[1],
            &[1, 0xff],
            &[1, 0xff, 0],
            &[2],
            &[0xff],
            &[0xff, 0xff],
            &[0xff, 0xff, 1],
        ];
        for key in keys {
            store.set(key, &0).unwrap();
        }
        let select = |prefix: &[u8]| store.query().prefix(prefix).keys().unwrap();
        assert_eq!(select(&[1]), keys[..3]);
        assert_eq!(select(&[1, 0xff]), keys[1..3]);
        assert_eq!(select(&[0xff]), keys[4..]);
        assert_eq!(select(&[0xff, 0xff]), keys[5..]);
        assert_eq!(select(&[0xff, 0xff, 0xff]), [] as [Vec<u8>; 0]);
        assert_eq!(
            store
                .query()
                .prefix([0xff])
                .reverse()
                .limit(1)
                .keys()
                .unwrap(),
            keys[6..]
        );
        assert_eq!(select(&[]).len(), 7);
    }
}

#[test]
fn reversing_twice_is_forwards_again() {
    for place in everywhere() {
        let store = filled(place.open());
        let query = || store.query().prefix("a/").reverse().reverse();
        assert_selects(&query, &["a/1", "a/2", "a/3"]);
    }
}

#[test]
fn pages_by_after_are_the_whole() {
    for place in everywhere() {
        let store = place.open();
        store
            .bulk_set((0..100).map(|n| (format!("{n:02}"), n)))
            .unwrap();
        for reverse in [false, true] {
            let (mut all, mut last) = (Vec::new(), None::<String>);
            loop {
                let mut query = store.query().limit(7);
                if let Some(last) = &last {
                    query = query.after(last);
                }
                let page = if reverse { query.reverse() } else { query }
                    .pairs::<i32>()
                    .unwrap();
                let Some(end) = page.last() else { break };
                last = Some(end.0.clone());
                all.extend(page.into_iter().map(|(_, value)| value));
            }
            let expected: Vec<i32> = if reverse {
                (0..100).rev().collect()
            } else {
                (0..100).collect()
            };
            assert_eq!(all, expected);
        }
    }
}

#[test]
fn a_query_of_a_snapshot_deletes_nothing() {
    for place in everywhere() {
        let store = filled(place.open());
        let snapshot = store.snapshot().unwrap();
        let parts = ["a snapshot never changes", "its store"];
        assert_refused(snapshot.query().delete(), ErrorKind::InvalidQuery, &parts);
        assert_eq!(snapshot.query().prefix("a/").count().unwrap(), 3);
    }
}

#[test]
fn pages_of_a_scan_are_from_one_key_to_the_limit() {
    for place in everywhere() {
        let store = place.open();
        let pairs: Vec<_> = (0..60).map(|n| (format!("{n:02}"), n)).collect();
        store
            .bulk_set(pairs.iter().map(|(key, value)| (key, *value)))
            .unwrap();
        for size in [1, 2, 3, 7, 59, 60, 61, 1000, PAGE_SIZE_MAX] {
            let scan = || store.scan().page_size(size);
            let all: Result<Vec<_>> = scan().iter::<i32>().unwrap().collect();
            assert_eq!(all.unwrap(), pairs, "pages of {size}");
            let reversed: Result<Vec<_>> = scan().reverse().iter::<i32>().unwrap().collect();
            assert!(
                reversed.unwrap().iter().eq(pairs.iter().rev()),
                "pages of {size}"
            );
            let mut both = scan().iter::<i32>().unwrap();
            let ends: Vec<i32> = std::iter::from_fn(|| {
                let (low, high) = (both.next()?, both.next_back()?);
                Some(low.unwrap().1 + high.unwrap().1)
            })
            .collect();
            assert_eq!(ends, [59; 30], "pages of {size}");
        }
        for size in [0, PAGE_SIZE_MAX + 1] {
            let refused = store.scan().page_size(size).iter::<i32>();
            let parts = ["page_size", &size.to_string(), "from 1 to 1048576"];
            assert_refused(refused, ErrorKind::InvalidOption, &parts);
        }
    }
}

#[test]
fn a_scan_of_an_empty_store_is_empty() {
    for place in everywhere() {
        let store = place.open();
        assert!(store.scan().iter::<i32>().unwrap().next().is_none());
        assert!(
            store
                .scan()
                .reverse()
                .iter::<i32>()
                .unwrap()
                .next_back()
                .is_none()
        );
        assert_eq!(store.query().pairs::<i32>().unwrap(), []);
        assert_eq!(store.query().reverse().limit(3).delete().unwrap(), 0);
    }
}

fn first_and_last(db: &impl Read) -> Result<(Vec<String>, Vec<String>)> {
    Ok((
        db.query().limit(1).keys()?,
        db.query().reverse().limit(1).keys()?,
    ))
}

#[test]
fn the_same_query_runs_on_all_that_can_be_read() {
    for place in everywhere() {
        let store = filled(place.open());
        let ends = (vec![String::new()], vec!["é".to_owned()]);
        assert_eq!(first_and_last(&store).unwrap(), ends);
        assert_eq!(first_and_last(&store.snapshot().unwrap()).unwrap(), ends);
        let tx = store.begin().unwrap();
        assert_eq!(first_and_last(&tx).unwrap(), ends);
        assert_eq!(first_and_last(&tx.begin().unwrap()).unwrap(), ends);
        assert_eq!(
            tx.query().limit(1).pairs::<i32>().unwrap(),
            owned(&[("", 0)])
        );
    }
}
