//! Changes over a snapshot: what a store, a snapshot or a transaction shows of itself.
//!
//! Every read that takes more than one lookup goes through a [`View`]: it pins a sequence number,
//! and shows the changes of a transaction, if there are any, over what is pinned. A view owns all
//! it needs; it never waits for a writer.

use std::ops::Bound;
use std::sync::Arc;

use super::overlay::Changes;
use crate::engine::snapshot::Pin;
use crate::error::Result;
use crate::index::{KeyBounds, is_empty};
use crate::log::location::Version;

/// A pinned sequence number, with changes over it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) pin: Arc<Pin>,
    pub(crate) changes: Option<Arc<Changes>>,
}

/// Where a view has the value of a key that it shows.
pub(crate) enum Found {
    /// In the log.
    Stored(Version),
    /// In a transaction.
    Changed(Arc<[u8]>),
}

impl View {
    /// Hands the value of `key` to `take`.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        match self.changes.as_ref().and_then(|changes| changes.get(key)) {
            Some(change) => change.value.as_deref().map(take).transpose(),
            None => self
                .pin
                .engine()
                .read_at(key, self.pin.sequence, take)?
                .transpose(),
        }
    }

    /// Hands the value of `key`, which this view has shown and found there, to `take`.
    pub(crate) fn read_found<R>(
        &self,
        key: &[u8],
        found: &Found,
        take: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<R> {
        self.check_open()?;
        match found {
            Found::Stored(version) => {
                let engine = self.pin.engine();
                engine.read_version(key, *version, engine.identity.verify_reads, take)?
            }
            Found::Changed(value) => take(value),
        }
    }

    /// Says that what was found is read soon; each with the length of its key.
    pub(crate) fn warm<'a>(&self, found: impl Iterator<Item = (usize, &'a Found)>) {
        let stored = found.filter_map(|(key_len, found)| match found {
            Found::Stored(version) => Some((key_len, *version)),
            Found::Changed(_) => None,
        });
        self.pin.engine().log.warm(stored);
    }

    /// Refuses if the store was closed meanwhile.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.pin.opening.check_open()?;
        self.pin.engine().check_open()
    }

    /// Hands the keys within `bounds` to `visit`, in order or backwards, until it says stop.
    ///
    /// `visit` runs under locks of the index: it copies what it needs.
    pub(crate) fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        mut visit: impl FnMut(&[u8], Found) -> bool,
    ) {
        if is_empty(bounds) {
            return;
        }
        let index = &self.pin.engine().index;
        let mut changed = Changed::new(self.changes.as_deref(), bounds, backwards);
        let mut going = true;
        index.walk(bounds, backwards, self.pin.sequence, |key, version| {
            going = changed.visit_before(key, &mut visit);
            if going && !changed.skip(key, &mut visit, &mut going) {
                going = visit(key, Found::Stored(version));
            }
            going
        });
        if going {
            changed.visit_rest(&mut visit);
        }
    }
}

type Range<'a> = Box<dyn Iterator<Item = (&'a Arc<[u8]>, &'a super::overlay::Change)> + 'a>;

/// The changes within some bounds, in the direction of a walk.
struct Changed<'a> {
    range: std::iter::Peekable<Range<'a>>,
    backwards: bool,
}

impl<'a> Changed<'a> {
    fn new(changes: Option<&'a Changes>, bounds: KeyBounds<'_>, backwards: bool) -> Self {
        let range: Range<'a> = match changes {
            None => Box::new(std::iter::empty()),
            Some(changes) => {
                let range = changes.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(bounds);
                if backwards {
                    Box::new(range.rev())
                } else {
                    Box::new(range)
                }
            }
        };
        Self {
            range: range.peekable(),
            backwards,
        }
    }

    /// Visits the changed keys that come before `key`. False to stop.
    fn visit_before(&mut self, key: &[u8], visit: &mut impl FnMut(&[u8], Found) -> bool) -> bool {
        let backwards = self.backwards;
        let before = |changed: &[u8]| {
            if backwards {
                changed > key
            } else {
                changed < key
            }
        };
        while let Some((key, change)) = self.range.next_if(|(changed, _)| before(changed)) {
            if let Some(value) = &change.value
                && !visit(key, Found::Changed(value.clone()))
            {
                return false;
            }
        }
        true
    }

    /// Visits `key` if it was changed, and says whether it was; sets `going` to false to stop.
    fn skip(
        &mut self,
        key: &[u8],
        visit: &mut impl FnMut(&[u8], Found) -> bool,
        going: &mut bool,
    ) -> bool {
        let Some((key, change)) = self.range.next_if(|(changed, _)| changed.as_ref() == key) else {
            return false;
        };
        if let Some(value) = &change.value {
            *going = visit(key, Found::Changed(value.clone()));
        }
        true
    }

    fn visit_rest(&mut self, visit: &mut impl FnMut(&[u8], Found) -> bool) {
        for (key, change) in self.range.by_ref() {
            if let Some(value) = &change.value
                && !visit(key, Found::Changed(value.clone()))
            {
                return;
            }
        }
    }
}
