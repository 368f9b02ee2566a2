//! A block: some handles in the order of their keys.
//!
//! Beside each handle lie four bytes of its key, those behind what all keys of the block begin
//! with. They find nearly every place without a look at a key, each of which is a cache miss.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::points::{Handle, Points};
use crate::log::location::Version;

/// By how many handles a block grows.
const BLOCK_GROWTH: usize = 32;

/// A key of a block: where it is, and a part of it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The bytes of the key behind what is common, as a big-endian number; zeros behind its end.
    part: u32,
    pub(super) handle: Handle,
}

/// Some keys, in order: from `first`, to the `first` of the next block.
pub(super) struct Block {
    /// The lowest key that belongs here; it never changes.
    pub(super) first: Arc<[u8]>,
    places: RwLock<Places>,
}

/// The keys of a block.
#[derive(Default)]
pub(super) struct Places {
    /// What all keys here begin with.
    common: Box<[u8]>,
    list: Vec<Place>,
}

impl Block {
    pub(super) fn new(first: Arc<[u8]>, places: Places) -> Self {
        Self {
            first,
            places: RwLock::new(places),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Places> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Of keys in order, with their handles.
    pub(super) fn of<K: AsRef<[u8]>>(keys: &[(K, Version)], handles: &[Handle]) -> Self {
        let (Some((first, _)), Some((last, _))) = (keys.first(), keys.last()) else {
            return Self::default();
        };
        let first = first.as_ref();
        let common = common_len(first, last.as_ref());
        let place = |((key, _), &handle): (&(K, Version), &Handle)| Place {
            part: part(key.as_ref(), common),
            handle,
        };
        Self {
            common: first[..common].into(),
            list: keys.iter().zip(handles).map(place).collect(),
        }
    }

    /// The keys, in order.
    pub(super) fn list(&self) -> &[Place] {
        &self.list
    }

    /// How many of the keys lie below `low`.
    pub(super) fn below_low(&self, low: Bound<&[u8]>, points: &Points) -> usize {
        match low {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.lower(key, points),
            Bound::Excluded(key) => self.upper(key, points),
        }
    }

    /// How many of the keys lie within `high`.
    pub(super) fn within_high(&self, high: Bound<&[u8]>, points: &Points) -> usize {
        match high {
            Bound::Unbounded => self.list.len(),
            Bound::Included(key) => self.upper(key, points),
            Bound::Excluded(key) => self.lower(key, points),
        }
    }

    /// Puts `key` in its place; a handle that is there for the same key is of one that is gone,
    /// and makes room. How many keys lie below it.
    pub(super) fn insert(&mut self, key: &[u8], handle: Handle, points: &Points) -> usize {
        if self.list.is_empty() {
            self.common = key.into();
        } else if !key.starts_with(&self.common) {
            let common = common_len(key, &self.common);
            self.set_common(key[..common].into(), points);
        }
        let at = self.lower(key, points);
        let place = Place {
            part: part(key, self.common.len()),
            handle,
        };
        if self.is_at(at, place.part, key, points) {
            self.list[at] = place;
            return at;
        }
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(BLOCK_GROWTH);
        }
        self.list.insert(at, place);
        at
    }

    /// Takes `handle`, which is of `key`, out, if it is there.
    pub(super) fn remove(&mut self, key: &[u8], handle: Handle) {
        if !key.starts_with(&self.common) {
            return;
        }
        let wanted = part(key, self.common.len());
        let from = self.list.partition_point(|place| place.part < wanted);
        let mut same = self.list[from..]
            .iter()
            .take_while(|place| place.part == wanted);
        if let Some(at) = same.position(|place| place.handle == handle) {
            self.list.remove(from + at);
        }
        if self.list.capacity() >= 2 * self.list.len() + 2 * BLOCK_GROWTH {
            self.list.shrink_to(self.list.len() + BLOCK_GROWTH);
        }
    }

    /// Cuts the keys from `at` on off; the first of them, and they themselves.
    pub(super) fn split_off(&mut self, at: usize, points: &Points) -> (Arc<[u8]>, Self) {
        let mut upper = Self {
            common: self.common.clone(),
            list: self.list.split_off(at),
        };
        self.list.shrink_to(at + BLOCK_GROWTH);
        self.tighten(points);
        upper.tighten(points);
        (
            points.with_key(upper.list[0].handle, |key| Arc::from(key)),
            upper,
        )
    }

    /// How many bytes this takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Place>() + self.common.len()
    }

    /// How many keys lie below `key`.
    fn lower(&self, key: &[u8], points: &Points) -> usize {
        let common = self.common.len();
        match key[..common.min(key.len())].cmp(&self.common) {
            Ordering::Less => 0,
            Ordering::Greater => self.list.len(),
            Ordering::Equal => {
                let wanted = part(key, common);
                let from = self.list.partition_point(|place| place.part < wanted);
                let same = self.list[from..]
                    .iter()
                    .take_while(|place| place.part == wanted);
                let same = &self.list[from..from + same.count()];
                from + same.partition_point(|place| points.compare(place.handle, key).is_lt())
            }
        }
    }

    /// How many keys lie below `key` or are equal to it.
    fn upper(&self, key: &[u8], points: &Points) -> usize {
        let at = self.lower(key, points);
        let is_there = key.starts_with(&self.common)
            && self.is_at(at, part(key, self.common.len()), key, points);
        at + usize::from(is_there)
    }

    fn is_at(&self, at: usize, part: u32, key: &[u8], points: &Points) -> bool {
        self.list
            .get(at)
            .is_some_and(|place| place.part == part && points.compare(place.handle, key).is_eq())
    }

    /// Finds again what all keys begin with, after some have gone.
    fn tighten(&mut self, points: &Points) {
        let (Some(first), Some(last)) = (self.list.first(), self.list.last()) else {
            return;
        };
        let first: Box<[u8]> = points.with_key(first.handle, |key| Box::from(key));
        let common = points.with_key(last.handle, |last| common_len(&first, last));
        if common != self.common.len() {
            self.set_common(first[..common].into(), points);
        }
    }

    fn set_common(&mut self, common: Box<[u8]>, points: &Points) {
        for place in &mut self.list {
            place.part = points.with_key(place.handle, |key| part(key, common.len()));
        }
        self.common = common;
    }
}

/// The four bytes of `key` behind the first `skipped`.
fn part(key: &[u8], skipped: usize) -> u32 {
    let rest = key.get(skipped..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 4];
    bytes[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(bytes)
}

/// How many bytes `a` and `b` have in common.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
