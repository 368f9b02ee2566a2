//! Walking what a query selects: in pages, from both ends, holding no lock.
//!
//! `query` comes in with a view and a selection. A cursor keeps the keys between its two ends as
//! bounds, and fetches pages of keys from either end; where the pages meet, one end goes on
//! with what the other has fetched. Values are read one by one, when they are asked for.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::serializer::{Decode, decode};
use crate::transaction::view::{Found, View};

/// The first page of a query without a page size, unless it has a limit, and the largest, in keys.
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

/// Keys that were fetched from one end, in the order in which they were.
#[derive(Default)]
struct Page {
    items: VecDeque<PageItem>,
    /// The bytes of the keys, one behind the other.
    bytes: Vec<u8>,
}

struct PageItem {
    start: usize,
    len: usize,
    found: Found,
}

impl Page {
    fn push(&mut self, key: &[u8], found: Found) {
        self.items.push_back(PageItem {
            start: self.bytes.len(),
            len: key.len(),
            found,
        });
        self.bytes.extend_from_slice(key);
    }

    fn key(&self, item: &PageItem) -> &[u8] {
        &self.bytes[item.start..item.start + item.len]
    }
}

/// A key of a selection, and where its value is.
pub(crate) struct Item<'a> {
    view: &'a View,
    key: &'a [u8],
    found: Found,
}

impl Item<'_> {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        self.key
    }

    /// Hands the value to `take`.
    pub(crate) fn read<R>(&self, take: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        self.view.read_found(self.key, &self.found, take)
    }
}

/// A walk over the keys of a selection, from both ends.
pub(crate) struct Cursor {
    view: View,
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    /// Fetched from the low end, lowest key first.
    front: Page,
    /// Fetched from the high end, highest key first.
    back: Page,
    /// How many more may come from the leading end, until the other end is asked.
    limit: Option<usize>,
    backwards: bool,
    page_len: usize,
    page_len_max: usize,
    /// Whether the values are read too.
    reads_values: bool,
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
        let first = limit.map_or(PAGE_MIN, |limit| limit.clamp(1, PAGE_MAX));
        Self {
            view,
            low,
            high,
            front: Page::default(),
            back: Page::default(),
            limit,
            backwards,
            page_len: page_size.unwrap_or(first),
            page_len_max: page_size.unwrap_or(PAGE_MAX),
            reads_values: false,
        }
    }

    /// The next key in the direction of the selection.
    pub(crate) fn next(&mut self) -> Option<Item<'_>> {
        match &mut self.limit {
            Some(0) => return None,
            Some(limit) => *limit -= 1,
            None => {}
        }
        self.take(self.backwards)
    }

    /// The next key from the other end.
    pub(crate) fn next_back(&mut self) -> Option<Item<'_>> {
        if let Some(limit) = self.limit.take() {
            self.fetch_all(limit);
        }
        self.take(!self.backwards)
    }

    /// All the keys. What the view shares with others is free when they are there.
    pub(crate) fn into_keys(mut self) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        while let Some(item) = self.next() {
            keys.push(item.key().into());
        }
        keys
    }

    fn take(&mut self, from_high: bool) -> Option<Item<'_>> {
        if self.page(from_high).items.is_empty() {
            self.fetch(from_high, self.page_len);
        }
        let near = self.page(from_high).items.pop_front();
        let (page, item) = match near {
            Some(item) => (from_high, item),
            None => (!from_high, self.page(!from_high).items.pop_back()?),
        };
        let page = if page { &self.back } else { &self.front };
        Some(Item {
            view: &self.view,
            key: page.key(&item),
            found: item.found,
        })
    }

    fn page(&mut self, from_high: bool) -> &mut Page {
        if from_high {
            &mut self.back
        } else {
            &mut self.front
        }
    }

    /// Fetches all that a limit lets through, so that both ends are known.
    fn fetch_all(&mut self, limit: usize) {
        let fetched = self.page(self.backwards).items.len();
        match limit.checked_sub(fetched) {
            Some(more) => self.fetch(self.backwards, more),
            None => self.page(self.backwards).items.truncate(limit),
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
        let page = if from_high {
            &mut self.back
        } else {
            &mut self.front
        };
        if page.items.is_empty() {
            page.bytes.clear();
        }
        let mut left = count;
        self.view.walk(bounds, from_high, |key, found| {
            page.push(key, found);
            left -= 1;
            left > 0
        });
        if self.reads_values {
            let fetched = page.items.iter().rev().take(count - left);
            self.view.warm(fetched.map(|item| (item.len, &item.found)));
        }
        if left < count {
            let last = page.items.back().map_or(&[][..], |item| page.key(item));
            let last = Bound::Excluded(last.to_vec());
            if from_high {
                self.high = last;
            } else {
                self.low = last;
            }
        }
        self.page_len = (self.page_len * 2).min(self.page_len_max);
    }
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
    pub(crate) fn new(mut cursor: Cursor, serializer: S) -> Self {
        cursor.reads_values = true;
        Self {
            cursor,
            serializer,
            error: None,
            values: PhantomData,
            keys: PhantomData,
        }
    }

    fn pair(&mut self, from_back: bool) -> Option<Result<(K::Owned, V)>> {
        if let Some(error) = &self.error {
            return Some(Err(error.clone()));
        }
        let item = if from_back {
            self.cursor.next_back()
        } else {
            self.cursor.next()
        }?;
        let serializer = &self.serializer;
        match item.read(|bytes| decode(serializer, item.key(), bytes)) {
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
        self.pair(false)
    }
}

impl<V, S: Decode<V>, K: Key + ?Sized> DoubleEndedIterator for Iter<V, S, K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.pair(true)
    }
}

impl<V, S, K: ?Sized> std::fmt::Debug for Iter<V, S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
