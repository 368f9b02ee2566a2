//! Order: the same entries by key, for prefix, range and scan, in both directions.
//!
//! A lock-free skiplist; only a key's appearance or disappearance changes it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use crossbeam_skiplist::SkipSet;

use super::Entry;

/// A range of keys.
pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// An entry that compares by its key.
struct ByKey(Arc<Entry>);

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

/// The skiplist over all entries.
pub(super) struct Order {
    list: SkipSet<ByKey>,
}

impl Order {
    pub(super) fn new() -> Self {
        Self {
            list: SkipSet::new(),
        }
    }

    pub(super) fn insert(&self, entry: Arc<Entry>) {
        self.list.insert(ByKey(entry));
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.list.remove(key);
    }

    /// Hands the entries within `bounds` to `visit`, from the first or from the last, until it
    /// says stop.
    pub(super) fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        mut visit: impl FnMut(&Arc<Entry>) -> bool,
    ) {
        if is_empty(bounds) {
            return;
        }
        let mut range = self.list.range::<[u8], _>(bounds);
        while let Some(found) = if backwards {
            range.next_back()
        } else {
            range.next()
        } {
            if !visit(&found.value().0) {
                return;
            }
        }
    }
}

/// Whether no key can lie within `bounds`, as in an inverted range.
pub(crate) fn is_empty(bounds: KeyBounds<'_>) -> bool {
    match bounds {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high))
        | (Bound::Excluded(low), Bound::Included(high)) => low >= high,
        (Bound::Unbounded, Bound::Excluded(high)) => high.is_empty(),
        (_, Bound::Unbounded) | (Bound::Unbounded, _) => false,
    }
}
