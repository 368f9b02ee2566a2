//! What to read, which way, how much: queries and scans, on anything that can be read.
//!
//! A user builds a [`Query`]; when it is run it asks its source for a view, and walks that with a
//! cursor. Nothing is read before it is run.

use std::marker::PhantomData;
use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use crate::cursor::{Cursor, Iter, Selection};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::serializer::{Decode, Serializer};
use crate::transaction::view::View;

/// What a query can be asked of.
pub(crate) trait Source {
    /// What the source shows now.
    fn view(&self) -> Result<View>;

    /// Deletes what `selection` selects; how many keys that were.
    fn delete_selected(&self, selection: Selection) -> Result<u64>;
}

/// Bounds of a range of keys.
type OwnedBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A range of keys: every range of Rust whose ends are keys, and pairs of [`Bound`]s.
pub trait KeyRange<K: Key + ?Sized> {
    /// The two ends, as bytes.
    fn key_bounds(self) -> OwnedBounds;
}

fn owned_bounds<K: Key + ?Sized, Q: AsRef<K>>(range: &impl RangeBounds<Q>) -> OwnedBounds {
    let bytes = |key: &Q| key.as_ref().as_bytes().to_vec();
    (range.start_bound().map(bytes), range.end_bound().map(bytes))
}

macro_rules! key_range {
    ($($range:ty),*) => {
        $(impl<K: Key + ?Sized, Q: AsRef<K>> KeyRange<K> for $range {
            fn key_bounds(self) -> OwnedBounds {
                owned_bounds::<K, Q>(&self)
            }
        })*
    };
}

key_range!(
    Range<Q>,
    RangeInclusive<Q>,
    RangeFrom<Q>,
    RangeTo<Q>,
    RangeToInclusive<Q>,
    (Bound<Q>, Bound<Q>)
);

impl<K: Key + ?Sized> KeyRange<K> for RangeFull {
    fn key_bounds(self) -> OwnedBounds {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

/// Reads, counts or deletes a range of keys; made by `query()` of a store, a transaction or a
/// snapshot.
///
/// Without a prefix or a range it is about everything. Keys are ordered by their bytes. What one
/// query returns is all of one moment.
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.bulk_set([("a/1", 1), ("a/2", 2), ("b/1", 3)])?;
/// let pairs: Vec<(String, i32)> = store.query().prefix("a/").pairs()?;
/// assert_eq!(pairs, [("a/1".to_owned(), 1), ("a/2".to_owned(), 2)]);
/// let last = store.query().range("a/2"..).reverse().limit(1).keys()?;
/// assert_eq!(last, ["b/1"]);
/// # Ok::<(), happystore::Error>(())
/// ```
#[must_use = "a query does nothing until it is run"]
pub struct Query<'a, S, K: ?Sized> {
    source: &'a dyn Source,
    serializer: &'a S,
    bounds: Option<OwnedBounds>,
    after: Option<Vec<u8>>,
    backwards: bool,
    limit: Option<usize>,
    wrong: Option<&'static str>,
    keys: PhantomData<fn(&K)>,
}

impl<'a, S: Serializer, K: Key + ?Sized> Query<'a, S, K> {
    pub(crate) fn new(source: &'a dyn Source, serializer: &'a S) -> Self {
        Self {
            source,
            serializer,
            bounds: None,
            after: None,
            backwards: false,
            limit: None,
            wrong: None,
            keys: PhantomData,
        }
    }

    /// Only keys that begin with `prefix`, byte for byte; the empty prefix is everything.
    pub fn prefix(self, prefix: impl AsRef<K>) -> Self {
        let prefix = prefix.as_ref().as_bytes();
        let bounds = (Bound::Included(prefix.to_vec()), prefix_end(prefix));
        self.bounded(
            bounds,
            "it has two prefixes, or a prefix and a range; use one of them",
        )
    }

    /// Only keys within `range`; an inverted range is empty.
    pub fn range(self, range: impl KeyRange<K>) -> Self {
        let bounds = range.key_bounds();
        self.bounded(
            bounds,
            "it has two ranges, or a prefix and a range; use one of them",
        )
    }

    /// Only keys that come after `key` in the query's direction: to go on behind a page.
    ///
    /// # Examples
    /// ```
    /// let store = happystore::Store::in_memory();
    /// store.bulk_set((0..10).map(|n| (format!("log/{n}"), n)))?;
    /// let mut last = String::new();
    /// let mut seen = 0;
    /// loop {
    ///     let page = store.query().prefix("log/").after(&last).limit(4).pairs::<i32>()?;
    ///     let Some((key, _)) = page.last() else { break };
    ///     seen += page.len();
    ///     last = key.clone();
    /// }
    /// assert_eq!(seen, 10);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn after(mut self, key: impl AsRef<K>) -> Self {
        self.after = Some(key.as_ref().as_bytes().to_vec());
        self
    }

    /// At most `count` keys, from the end that the direction begins at.
    pub fn limit(mut self, count: usize) -> Self {
        self.limit = Some(count);
        self
    }

    /// From the last key to the first; reversing twice is forwards again.
    pub fn reverse(mut self) -> Self {
        self.backwards = !self.backwards;
        self
    }

    /// The selected keys with their values.
    ///
    /// # Errors
    /// `InvalidQuery` for a prefix with a range; `Decode` with the key; `Corrupt`, `Io`;
    /// `Closed`, `Forked`; in a transaction `ChildActive`, `Aborted`.
    pub fn pairs<V>(self) -> Result<Vec<(K::Owned, V)>>
    where
        S: Decode<V>,
    {
        self.iter()?.collect()
    }

    /// The selected keys; no value is read.
    ///
    /// # Errors
    /// As [`Query::pairs`], but for `Decode` and `Corrupt`.
    pub fn keys(self) -> Result<Vec<K::Owned>> {
        let mut cursor = self.cursor()?;
        let mut keys = Vec::new();
        while let Some(item) = cursor.next() {
            keys.push(K::from_bytes(item.key()));
        }
        Ok(keys)
    }

    /// How many keys are selected; no value is read.
    ///
    /// # Errors
    /// As [`Query::keys`].
    pub fn count(self) -> Result<u64> {
        let mut cursor = self.cursor()?;
        let mut count = 0;
        while cursor.next().is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Deletes the selected keys, in one transaction; how many they were.
    ///
    /// # Durability
    /// As any write of the store; inside a transaction, as its commit.
    ///
    /// # Blocking
    /// On a store, waits for the writer lock up to its lock timeout.
    ///
    /// # Errors
    /// `InvalidQuery` for a prefix with a range, or on a snapshot; as any write.
    pub fn delete(self) -> Result<u64> {
        let source = self.source;
        source.delete_selected(self.selection()?)
    }

    /// Iterates over the selected keys with their values, from both ends.
    ///
    /// # Errors
    /// As [`Query::keys`]; the iterator returns errors of its own.
    #[expect(
        clippy::iter_not_returning_iterator,
        reason = "a query may be wrong, or the store closed"
    )]
    pub fn iter<V>(self) -> Result<Iter<V, S, K>>
    where
        S: Decode<V>,
    {
        let serializer = self.serializer.clone();
        Ok(Iter::new(self.cursor()?, serializer))
    }

    fn bounded(mut self, bounds: OwnedBounds, wrong: &'static str) -> Self {
        if self.bounds.replace(bounds).is_some() {
            self.wrong = Some(wrong);
        }
        self
    }

    fn cursor(self) -> Result<Cursor> {
        let source = self.source;
        let selection = self.selection()?;
        Ok(Cursor::new(source.view()?, selection))
    }

    fn selection(self) -> Result<Selection> {
        if let Some(what) = self.wrong {
            return Err(Error::InvalidQuery { what });
        }
        let (mut low, mut high) = self.bounds.unwrap_or((Bound::Unbounded, Bound::Unbounded));
        if let Some(after) = self.after {
            if self.backwards {
                high = lower_high(high, after);
            } else {
                low = higher_low(low, after);
            }
        }
        let (backwards, limit) = (self.backwards, self.limit);
        Ok(Selection {
            low,
            high,
            backwards,
            limit,
            page_size: None,
        })
    }
}

impl<S, K: ?Sized> std::fmt::Debug for Query<'_, S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("bounds", &self.bounds)
            .field("after", &self.after)
            .field("backwards", &self.backwards)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// Everything, in pages, of one snapshot; made by `scan()` of a store, a transaction or a
/// snapshot.
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.bulk_set((0..1000).map(|n| (format!("{n:04}"), n)))?;
/// let mut sum = 0;
/// for pair in store.scan().page_size(500).iter::<i32>()? {
///     let (_key, value) = pair?;
///     sum += value;
/// }
/// assert_eq!(sum, 499_500);
/// # Ok::<(), happystore::Error>(())
/// ```
#[must_use = "a scan does nothing until it is iterated over"]
pub struct Scan<'a, S, K: ?Sized> {
    query: Query<'a, S, K>,
    page_size: usize,
}

impl<'a, S: Serializer, K: Key + ?Sized> Scan<'a, S, K> {
    pub(crate) fn new(source: &'a dyn Source, serializer: &'a S) -> Self {
        Self {
            query: Query::new(source, serializer),
            page_size: PAGE_SIZE_DEFAULT,
        }
    }

    /// How many keys are looked up at once: from 1 to [`PAGE_SIZE_MAX`]. Default:
    /// [`PAGE_SIZE_DEFAULT`].
    pub fn page_size(mut self, keys: usize) -> Self {
        self.page_size = keys;
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.query = self.query.reverse();
        self
    }

    /// Iterates over all keys with their values, from both ends.
    ///
    /// # Errors
    /// `InvalidOption` for a page size out of bounds; as [`Query::iter`].
    #[expect(
        clippy::iter_not_returning_iterator,
        reason = "a query may be wrong, or the store closed"
    )]
    pub fn iter<V>(self) -> Result<Iter<V, S, K>>
    where
        S: Decode<V>,
    {
        if !(1..=PAGE_SIZE_MAX).contains(&self.page_size) {
            return Err(Error::InvalidOption {
                option: "page_size",
                value: self.page_size.to_string(),
                what: format!("it must be from 1 to {PAGE_SIZE_MAX} keys"),
            });
        }
        let (source, serializer) = (self.query.source, self.query.serializer.clone());
        let selection = Selection {
            page_size: Some(self.page_size),
            ..self.query.selection()?
        };
        Ok(Iter::new(
            Cursor::new(source.view()?, selection),
            serializer,
        ))
    }
}

impl<S, K: ?Sized> std::fmt::Debug for Scan<'_, S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}

/// The end of the keys that begin with `prefix`: the first key behind them, if there is one.
fn prefix_end(prefix: &[u8]) -> Bound<Vec<u8>> {
    match prefix.iter().rposition(|&byte| byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bound::Excluded(end)
        }
        None => Bound::Unbounded,
    }
}

fn higher_low(low: Bound<Vec<u8>>, after: Vec<u8>) -> Bound<Vec<u8>> {
    match low {
        Bound::Included(low) if low > after => Bound::Included(low),
        Bound::Excluded(low) if low > after => Bound::Excluded(low),
        _ => Bound::Excluded(after),
    }
}

fn lower_high(high: Bound<Vec<u8>>, after: Vec<u8>) -> Bound<Vec<u8>> {
    match high {
        Bound::Included(high) if high < after => Bound::Included(high),
        Bound::Excluded(high) if high < after => Bound::Excluded(high),
        _ => Bound::Excluded(after),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, prefix_end};

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it_any_more() {
        assert_eq!(prefix_end(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), Bound::Excluded(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), Bound::Unbounded);
        assert_eq!(prefix_end(b""), Bound::Unbounded);
    }
}
