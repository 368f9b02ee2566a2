//! What may have to be copied of some segments, in key order.
//!
//! What lives the index knows, in order: it is walked a page at a time. Tombstones it forgets; those
//! come from the segments that have any.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::log::location::Version;
use crate::log::merge::Merge;

/// How many pages are looked at in one go.
const PAGES: usize = 16;

/// How many keys of the index a page looks at, at most.
const PAGE_KEYS: usize = 8 << 10;

/// A place among what may have to be copied.
pub(super) struct Source {
    engine: Arc<Engine>,
    victims: HashSet<u32>,
    page: Page,
    /// The newest entry of each key in the segments that have tombstones.
    tombstones: Merge,
    /// How many keys of the index were looked at, and how many there are about.
    seen_keys: u64,
    all_keys: u64,
}

/// Some keys that live in the victims.
#[derive(Default)]
struct Page {
    keys: Vec<u8>,
    /// Where each key ends, and where its entry lies.
    entries: Vec<(usize, Version)>,
    next: usize,
    /// The last key that was looked at.
    last: Vec<u8>,
    is_last: bool,
}

impl Page {
    /// Whether keys behind those it has are still to be looked for.
    fn is_behind(&self) -> bool {
        self.next == self.entries.len() && !self.is_last
    }

    fn current(&self) -> Option<(&[u8], Version)> {
        let (end, version) = *self.entries.get(self.next)?;
        let begin = self.next.checked_sub(1).map_or(0, |at| self.entries[at].0);
        Some((&self.keys[begin..end], version))
    }
}

impl Source {
    /// The first of what lies in the segments `victims`; of those of them that have tombstones
    /// `tombstones` has all keys.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(super) fn new(
        engine: &Arc<Engine>,
        victims: HashSet<u32>,
        tombstones: Merge,
    ) -> Result<Self> {
        let mut source = Self {
            engine: engine.clone(),
            victims,
            page: Page::default(),
            tombstones,
            seen_keys: 0,
            all_keys: engine.index.keys(),
        };
        source.fill_page(true);
        source.find_tombstone()?;
        Ok(source)
    }

    /// The key at this place, and its entry; `None` behind the last, or before it is found: see
    /// [`Source::look_on`].
    pub(super) fn current(&self) -> Option<(&[u8], Version)> {
        if self.page.is_behind() {
            return None;
        }
        match (self.page.current(), self.tombstones.current()) {
            (Some((living, _)), Some((deleted, version))) if deleted < living => {
                Some((deleted, version))
            }
            (Some(living), _) => Some(living),
            (None, deleted) => deleted,
        }
    }

    /// Goes on to the next key.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(super) fn advance(&mut self) -> Result<()> {
        let Some((key, _)) = self.current() else {
            return Ok(());
        };
        let is_at = |at: Option<(&[u8], Version)>| at.is_some_and(|(other, _)| other == key);
        let (is_living, is_deleted) =
            (is_at(self.page.current()), is_at(self.tombstones.current()));
        if is_living {
            self.page.next += 1;
            self.fill_page(false);
        }
        if is_deleted {
            self.tombstones.advance()?;
            self.find_tombstone()?;
        }
        Ok(())
    }

    /// Looks for the next key for a while longer; false if there is no more to look for.
    pub(super) fn look_on(&mut self) -> bool {
        let is_behind = self.page.is_behind();
        if is_behind {
            self.fill_page(false);
        }
        is_behind
    }

    /// How many thousandths are done.
    pub(super) fn done_of_thousand(&self) -> u64 {
        if self.current().is_none() && !self.page.is_behind() {
            return 1000;
        }
        (self.seen_keys.saturating_mul(1000) / self.all_keys.max(1)).min(999)
    }

    /// Walks on over the index until there is a key that lives in the victims, but not too far.
    fn fill_page(&mut self, is_first: bool) {
        let page = &mut self.page;
        let mut is_first = is_first;
        for _ in 0..PAGES {
            if !page.is_behind() {
                break;
            }
            page.keys.clear();
            page.entries.clear();
            page.next = 0;
            let last = std::mem::take(&mut page.last);
            let low = if is_first {
                Bound::Unbounded
            } else {
                Bound::Excluded(last.as_slice())
            };
            is_first = false;
            let mut looked = 0;
            let everything = u64::MAX;
            let victims = &self.victims;
            let visit = |key: &[u8], newest: Version| {
                looked += 1;
                if victims.contains(&newest.location.segment) {
                    page.keys.extend_from_slice(key);
                    page.entries.push((page.keys.len(), newest));
                }
                let goes_on = looked < PAGE_KEYS;
                if !goes_on {
                    page.last.extend_from_slice(key);
                }
                goes_on
            };
            let bounds = (low, Bound::Unbounded);
            self.engine.index.walk(bounds, false, everything, visit);
            page.is_last = looked < PAGE_KEYS;
            self.seen_keys += looked as u64;
        }
    }

    /// Goes on to the next key whose newest entry is a tombstone.
    fn find_tombstone(&mut self) -> Result<()> {
        while self
            .tombstones
            .current()
            .is_some_and(|(_, version)| !version.is_tombstone())
        {
            self.tombstones.advance()?;
        }
        Ok(())
    }
}
