//! Queries on the store and on the model, side by side.

use std::collections::VecDeque;
use std::ops::Bound;
use std::rc::Rc;

use happystore::{Error, Query, Raw, Read, Write};

use super::Map;
use super::operations::{Ask, Filter, Keys, Within};

/// The pairs that `filter` selects of `map`, in the order of the query.
pub(crate) type Selected = VecDeque<(Rc<[u8]>, Rc<[u8]>)>;

/// What `filter` selects of `map`, told key by key.
pub(crate) fn select(map: &Map, filter: &Filter, keys: &Keys) -> Selected {
    let after = filter.after.map(|key| keys.bytes(key));
    let within = |key: &[u8]| match filter.within {
        Within::All => true,
        Within::Prefix(prefix) => key.starts_with(keys.bytes(prefix)),
        Within::Range(low, high) => {
            let above = match low {
                Bound::Included(low) => *key >= **keys.bytes(low),
                Bound::Excluded(low) => *key > **keys.bytes(low),
                Bound::Unbounded => true,
            };
            above
                && match high {
                    Bound::Included(high) => *key <= **keys.bytes(high),
                    Bound::Excluded(high) => *key < **keys.bytes(high),
                    Bound::Unbounded => true,
                }
        }
    };
    let behind = |key: &[u8]| {
        after.is_none_or(|after| {
            if filter.reverse {
                *key < **after
            } else {
                *key > **after
            }
        })
    };
    let chosen = map.iter().filter(|(key, _)| within(key) && behind(key));
    let pairs = chosen.map(|(key, value)| (key.clone(), value.clone()));
    let limit = filter.limit.unwrap_or(usize::MAX);
    if filter.reverse {
        pairs.rev().take(limit).collect()
    } else {
        pairs.take(limit).collect()
    }
}

/// The same selection as a query, through every range type that can say it.
pub(crate) fn query<'a>(
    source: &'a impl Read<Raw, [u8]>,
    filter: &Filter,
    keys: &Keys,
) -> Query<'a, Raw, [u8]> {
    let bytes = |key| keys.bytes(key).clone();
    let query = source.query();
    let mut query = match filter.within {
        Within::All => query,
        Within::Prefix(prefix) => query.prefix(bytes(prefix)),
        Within::Range(low, high) => match (low, high) {
            (Bound::Included(low), Bound::Excluded(high)) => query.range(bytes(low)..bytes(high)),
            (Bound::Included(low), Bound::Included(high)) => query.range(bytes(low)..=bytes(high)),
            (Bound::Included(low), Bound::Unbounded) => query.range(bytes(low)..),
            (Bound::Unbounded, Bound::Excluded(high)) => query.range(..bytes(high)),
            (Bound::Unbounded, Bound::Included(high)) => query.range(..=bytes(high)),
            (Bound::Unbounded, Bound::Unbounded) => query.range(..),
            (low, high) => query.range((low.map(bytes), high.map(bytes))),
        },
    };
    if let Some(after) = filter.after {
        query = query.after(bytes(after));
    }
    if let Some(limit) = filter.limit {
        query = query.limit(limit);
    }
    if filter.reverse {
        query.reverse()
    } else {
        query
    }
}

/// Runs the query on `source` and compares with what `map` says. A deletion is left to
/// [`delete`].
pub(crate) fn compare(
    source: &impl Read<Raw, [u8]>,
    map: &Map,
    filter: &Filter,
    ask: Ask,
    keys: &Keys,
) {
    let expected = select(map, filter, keys);
    let query = query(source, filter, keys);
    match ask {
        Ask::Pairs => {
            let pairs: Vec<(Vec<u8>, Vec<u8>)> = query.pairs().unwrap();
            assert!(
                same(&pairs, &expected),
                "pairs: {pairs:?}, expected {expected:?}"
            );
        }
        Ask::Keys => {
            let found = query.keys().unwrap();
            let expected: Vec<_> = expected.iter().map(|(key, _)| key.to_vec()).collect();
            assert_eq!(found, expected);
        }
        Ask::Count | Ask::Delete => assert_eq!(query.count().unwrap(), expected.len() as u64),
        Ask::Iter(ends) => both_ends(query.iter().unwrap(), expected, ends),
    }
}

/// Takes pairs from either end, as the bits of `ends` say, until nothing is left.
pub(crate) fn both_ends(
    mut iter: impl DoubleEndedIterator<Item = Result<(Vec<u8>, Vec<u8>), Error>>,
    mut expected: Selected,
    ends: u64,
) {
    let mut ends = ends;
    loop {
        let back = ends & 1 == 1;
        ends = ends.rotate_right(1);
        let found = if back { iter.next_back() } else { iter.next() };
        let wanted = if back {
            expected.pop_back()
        } else {
            expected.pop_front()
        };
        same_pair(found, wanted.as_ref());
        if wanted.is_none() {
            break;
        }
    }
    assert!(iter.next().is_none() && iter.next_back().is_none());
}

/// One step of an iterator.
pub(crate) fn same_pair(
    found: Option<Result<(Vec<u8>, Vec<u8>), Error>>,
    wanted: Option<&(Rc<[u8]>, Rc<[u8]>)>,
) {
    let found = found.transpose().unwrap();
    let found = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
    assert_eq!(found, wanted.map(|(key, value)| (&key[..], &value[..])));
}

/// Deletes what the query selects, on both sides.
pub(crate) fn delete(target: &impl Write<Raw, [u8]>, map: &mut Map, filter: &Filter, keys: &Keys) {
    let expected = select(map, filter, keys);
    assert_eq!(
        query(target, filter, keys).delete().unwrap(),
        expected.len() as u64
    );
    for (key, _) in expected {
        map.remove(&key);
    }
}

fn same(found: &[(Vec<u8>, Vec<u8>)], expected: &Selected) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(one, other)| *one.0 == *other.0 && *one.1 == *other.1)
}
