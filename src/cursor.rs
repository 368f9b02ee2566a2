//! Walking what a query selects: in pages, from both ends, holding no lock.
//!
//! `query` comes in with a view and a selection. A cursor keeps the keys between its two ends as
//! bounds, and fetches pages of entries from either end; where the pages meet, one end goes on
//! with what the other has fetched. Values are read one by one, when they are asked for.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::serializer::{Decode, decode};
use crate::transaction::view::{Item, View};

/// The first page of a query without a page size, and the largest, in keys.
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 256;

/// Which keys, which way, how many.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) low: Bound<Vec<u8>>,
    pub(crate) high: Bound<Vec<u8>>,
    pub(crate) backwards: bool,
    pub(crate) limit: Option<usize>,
    /// Keys in a page, or growing pages.
    pub(crate) page_size: Option<usize>,
}

/// A walk over the keys of a selection, from both ends.
pub(crate) struct Cursor {
    view: View,
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    /// Fetched from the low end, lowest key first.
    front: VecDeque<Item>,
    /// Fetched from the high end, lowest key first.
    back: VecDeque<Item>,
    /// How many more may come from the leading end, until the other end is asked.
    limit: Option<usize>,
    backwards: bool,
    page: usize,
    page_max: usize,
}

impl Cursor {
    /// A walk over `selection` of `view`.
    pub(crate) fn new(view: View, selection: Selection) -> Self {
        let Selection {
            low,
            high,
            backwards,
            limit,
            page_size,
        } = selection;
        Self {
            view,
            low,
            high,
            front: VecDeque::new(),
            back: VecDeque::new(),
            limit,
            backwards,
            page: page_size.unwrap_or(PAGE_MIN),
            page_max: page_size.unwrap_or(PAGE_MAX),
        }
    }

    /// The view that is walked over.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The next key in the direction of the selection.
    pub(crate) fn next(&mut self) -> Option<Item> {
        match &mut self.limit {
            Some(0) => return None,
            Some(limit) => *limit -= 1,
            None => {}
        }
        self.take(self.backwards)
    }

    /// The next key from the other end.
    pub(crate) fn next_back(&mut self) -> Option<Item> {
        if let Some(limit) = self.limit.take() {
            self.fetch_all(limit);
        }
        self.take(!self.backwards)
    }

    fn take(&mut self, from_high: bool) -> Option<Item> {
        if from_high {
            if self.back.is_empty() {
                self.fetch(true, self.page);
            }
            self.back.pop_back().or_else(|| self.front.pop_back())
        } else {
            if self.front.is_empty() {
                self.fetch(false, self.page);
            }
            self.front.pop_front().or_else(|| self.back.pop_front())
        }
    }

    /// Fetches all that a limit lets through, so that both ends are known.
    fn fetch_all(&mut self, limit: usize) {
        let fetched = if self.backwards {
            &self.back
        } else {
            &self.front
        }
        .len();
        if let Some(more) = limit.checked_sub(fetched) {
            self.fetch(self.backwards, more);
        } else if self.backwards {
            self.back.drain(..fetched - limit);
        } else {
            self.front.truncate(limit);
        }
        self.low = Bound::Excluded(Vec::new());
        self.high = Bound::Excluded(Vec::new());
    }

    /// Fetches up to `count` keys from one end of what is between the pages.
    fn fetch(&mut self, from_high: bool, count: usize) {
        if count == 0 {
            return;
        }
        let bounds = (as_slice(&self.low), as_slice(&self.high));
        let (front, back) = (&mut self.front, &mut self.back);
        let mut left = count;
        self.view.walk(bounds, from_high, |item| {
            if from_high {
                back.push_front(item);
            } else {
                front.push_back(item);
            }
            left -= 1;
            left > 0
        });
        if left < count {
            if from_high {
                self.high = last_bound(self.back.front());
            } else {
                self.low = last_bound(self.front.back());
            }
        }
        self.page = (self.page * 2).min(self.page_max);
    }
}

fn last_bound(item: Option<&Item>) -> Bound<Vec<u8>> {
    item.map_or(Bound::Unbounded, |item| {
        Bound::Excluded(item.key().to_vec())
    })
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Pairs of keys and values, from both ends; made by [`Query::iter`](crate::Query::iter) and
/// [`Scan::iter`](crate::Scan::iter).
///
/// It owns its snapshot: it may outlive the transaction or the store handle it came from, and be
/// sent to another thread. It reads in pages, holds no lock, and everything it returns is of one
/// moment.
///
/// **Once it met an error it keeps returning it, for ever**: what comes behind is never taken for
/// the end. Stop at the first error, by `?` or `collect::<Result<_, _>>()`; an adapter that skips
/// errors, such as `flatten()`, would never end.
///
/// An iterator over a transaction shows it as it was when the iterator was made; the first write
/// while one lives copies the transaction's changes.
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.bulk_set([("a", 1), ("b", 2), ("c", 3)])?;
/// let mut pairs = store.query().iter::<i32>()?;
/// assert_eq!(pairs.next().transpose()?, Some(("a".to_owned(), 1)));
/// assert_eq!(pairs.next_back().transpose()?, Some(("c".to_owned(), 3)));
/// # Ok::<(), happystore::Error>(())
/// ```
pub struct Iter<V, S, K: ?Sized> {
    cursor: Cursor,
    serializer: S,
    error: Option<Error>,
    values: PhantomData<fn() -> V>,
    keys: PhantomData<fn(&K)>,
}

impl<V, S: Decode<V>, K: Key + ?Sized> Iter<V, S, K> {
    pub(crate) fn new(cursor: Cursor, serializer: S) -> Self {
        Self {
            cursor,
            serializer,
            error: None,
            values: PhantomData,
            keys: PhantomData,
        }
    }

    fn pair(&mut self, item: Option<Item>) -> Option<Result<(K::Owned, V)>> {
        let item = item?;
        let serializer = &self.serializer;
        let value = self
            .cursor
            .view()
            .read_item(&item, |bytes| decode(serializer, item.key(), bytes));
        match value {
            Ok(value) => Some(Ok((K::from_bytes(item.key()), value))),
            Err(error) => {
                self.error = Some(error.clone());
                Some(Err(error))
            }
        }
    }
}

impl<V, S: Decode<V>, K: Key + ?Sized> Iterator for Iter<V, S, K> {
    type Item = Result<(K::Owned, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = &self.error {
            return Some(Err(error.clone()));
        }
        let item = self.cursor.next();
        self.pair(item)
    }
}

impl<V, S: Decode<V>, K: Key + ?Sized> DoubleEndedIterator for Iter<V, S, K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let Some(error) = &self.error {
            return Some(Err(error.clone()));
        }
        let item = self.cursor.next_back();
        self.pair(item)
    }
}

impl<V, S, K: ?Sized> std::fmt::Debug for Iter<V, S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
