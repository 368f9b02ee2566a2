//! A shard: a part of the keys, found by their hashes; all of it lies behind one lock.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::slots::{Slot, Slots};
use super::versions::{Horizon, Older};
use crate::log::location::{Location, Version};

/// A part of the keys.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard {
    table: HashTable<u32>,
    slots: Slots,
    older: Older,
}

/// What became of a key that waited to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It is as small as it can be.
    Done,
    /// Somebody may see more of it than its newest version, of this number: it waits again.
    Again(u64),
    /// It was deleted, and everybody sees that: it is found by its hash no more.
    Gone,
}

impl Shard {
    /// The number of the slot of `key`.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let found = self
            .table
            .find(hash, |&number| self.slots.get(number).key() == key);
        found.copied()
    }

    /// The slot `number`.
    pub(super) fn slot(&self, number: u32) -> &Slot {
        self.slots.get(number)
    }

    /// The slots of all keys.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.table.iter().map(|&number| self.slots.get(number))
    }

    /// What a reader at `sequence` sees of the key in `slot`.
    pub(super) fn at(&self, slot: &Slot, sequence: u64) -> Option<Version> {
        if slot.newest.sequence <= sequence {
            return Some(slot.newest);
        }
        self.older.at(slot.older, sequence)
    }

    /// What whoever begins to read now sees of the key in `slot`. What is visible is looked at
    /// under the lock that pruning takes: what a pruning before it has dropped is not seen at that
    /// number.
    pub(super) fn now(&self, slot: &Slot, visible: &AtomicU64) -> Option<Version> {
        self.at(slot, visible.load(Ordering::Acquire))
    }

    /// A slot for a `key` that has none; its number.
    pub(super) fn add(
        &mut self,
        hasher: &DefaultHashBuilder,
        hash: u64,
        key: &[u8],
        version: Version,
    ) -> u32 {
        let number = self.slots.add(key, version);
        let slots = &self.slots;
        self.table.insert_unique(hash, number, |&number| {
            hasher.hash_one(slots.get(number).key())
        });
        number
    }

    /// Puts `version` on top of those of the slot `number`, and drops what nobody at `horizon`
    /// can see. True if more than one older version had to stay.
    pub(super) fn push(&mut self, number: u32, version: Version, horizon: &Horizon) -> bool {
        self.older.push(&mut self.slots, number, version, horizon)
    }

    /// Puts `version` in place of all those of the slot `number`.
    pub(super) fn replace(&mut self, number: u32, version: Version) {
        let slot = self.slots.get_mut(number);
        slot.newest = version;
        let older = std::mem::replace(&mut slot.older, super::slots::NONE);
        self.older.free_chain(older);
    }

    /// Notes that the slot `number` waits; false if it did already.
    pub(super) fn wait(&mut self, number: u32) -> bool {
        !std::mem::replace(&mut self.slots.get_mut(number).is_waiting, true)
    }

    /// Gives the version of number `sequence` in the slot `number` a location in a younger segment;
    /// the one before.
    pub(super) fn relocate(
        &mut self,
        number: u32,
        sequence: u64,
        to: Location,
    ) -> Option<Location> {
        let slot = self.slots.get_mut(number);
        if slot.newest.sequence == sequence {
            let is_younger = to.segment > slot.newest.location.segment;
            return is_younger.then(|| std::mem::replace(&mut slot.newest.location, to));
        }
        self.older.relocate(slot.older, sequence, to)
    }

    /// Drops what nobody at `horizon` can see of the slot `number`, which has waited.
    pub(super) fn look(
        &mut self,
        hasher: &DefaultHashBuilder,
        number: u32,
        horizon: &Horizon,
    ) -> Looked {
        let slot = self.slots.get_mut(number);
        let newest = slot.newest;
        self.older.prune(&mut slot.older, newest.sequence, horizon);
        slot.is_waiting = newest.sequence > horizon.oldest();
        if slot.is_waiting {
            return Looked::Again(newest.sequence);
        }
        self.older.shrink(&mut self.slots);
        if !newest.is_tombstone() {
            return Looked::Done;
        }
        let hash = hasher.hash_one(self.slots.get(number).key());
        if let Ok(found) = self.table.find_entry(hash, |&found| found == number) {
            found.remove();
        }
        Looked::Gone
    }

    /// Frees the slot `number`, which nobody can find any more.
    pub(super) fn free(&mut self, number: u32) {
        self.slots.free(number);
    }

    /// Makes place for `count` keys more.
    pub(super) fn reserve(&mut self, hasher: &DefaultHashBuilder, count: usize) {
        let slots = &self.slots;
        self.table
            .reserve(count, |&number| hasher.hash_one(slots.get(number).key()));
    }

    /// Gives back place for keys that have not come.
    pub(super) fn shrink(&mut self, hasher: &DefaultHashBuilder) {
        let slots = &self.slots;
        self.table
            .shrink_to_fit(|&number| hasher.hash_one(slots.get(number).key()));
    }

    /// How many versions the keys of the shard have.
    pub(super) fn versions(&self) -> usize {
        self.table.len() + self.older.len()
    }

    /// How many bytes the shard takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.table.allocation_size() + self.slots.memory_bytes() + self.older.memory_bytes()
    }

    /// How many versions the slot `number` has.
    #[cfg(test)]
    pub(super) fn count(&self, number: u32) -> usize {
        1 + self.older.count(self.slots.get(number).older)
    }
}
