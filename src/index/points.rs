//! Points: key to versions by hash, for get, has, set and delete.
//!
//! The keys are cut into shards, each behind a lock of its own that is held for one lookup or
//! one change, never while anything is read from or written to a file. A [`Handle`] says where a
//! key is; the order of keys is made of handles.
//!
//! Invariants:
//! 1. Who holds the lock of a shard takes no other lock of the index.
//! 2. A slot is freed by [`Points::free`] alone, when its handle is nowhere any more: [`Points::look`]
//!    has taken it out of the table, [`Order`](super::order::Order) out of its blocks.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::DefaultHashBuilder;

use super::Put;
use super::shard::{Looked, Shard};
use super::versions::Horizon;
use crate::log::location::{Location, Version};

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;
/// Shards are chosen by bits that the table itself uses for neither slots nor tags.
const SHARD_SHIFT: u32 = 40;

/// Where a key is: its shard and its slot. Four bytes, so there are at most 2³² keys, which would
/// take 400 GB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(u32);

impl Handle {
    fn new(shard: usize, number: u32) -> Self {
        let is_known = number >> (u32::BITS - SHARD_BITS) == 0;
        assert!(is_known, "more than 2^32 keys");
        // OK because there are few shards.
        Self(number << SHARD_BITS | u32::try_from(shard).unwrap_or(0))
    }

    fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }

    fn number(self) -> u32 {
        self.0 >> SHARD_BITS
    }
}

/// What [`Points::change`] did.
pub(super) struct Changed {
    pub(super) handle: Handle,
    pub(super) put: Put,
    /// Whether the key is to be looked at later, and does not wait for that yet.
    pub(super) waits: bool,
}

/// The hash table over all keys.
pub(super) struct Points {
    hasher: DefaultHashBuilder,
    shards: Box<[RwLock<Shard>]>,
}

impl Points {
    pub(super) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    /// What a reader at `sequence` sees of `key`.
    pub(super) fn at(&self, key: &[u8], sequence: u64) -> Option<Version> {
        let hash = self.hasher.hash_one(key);
        let shard = self.read(shard_of(hash));
        let number = shard.find(hash, key)?;
        shard.at(shard.slot(number), sequence)
    }

    /// What whoever begins to read now sees of `key`.
    pub(super) fn now(&self, key: &[u8], visible: &AtomicU64) -> Option<Version> {
        let hash = self.hasher.hash_one(key);
        let shard = self.read(shard_of(hash));
        let number = shard.find(hash, key)?;
        shard.now(shard.slot(number), visible)
    }

    /// Gives `key` a new version, beside readers at `horizon`, or in place of all it has if there
    /// are none; only if that comes after what is there: it is newer, or it is the same one in a
    /// younger segment, which compaction has made.
    pub(super) fn change(
        &self,
        key: &[u8],
        version: Version,
        horizon: Option<&Horizon>,
    ) -> Changed {
        let hash = self.hasher.hash_one(key);
        let at = shard_of(hash);
        let mut shard = self.write(at);
        let Some(number) = shard.find(hash, key) else {
            let number = shard.add(&self.hasher, hash, key, version);
            return Changed {
                handle: Handle::new(at, number),
                put: Put::Newest(None),
                waits: version.is_tombstone() && shard.wait(number),
            };
        };
        let handle = Handle::new(at, number);
        let before = shard.slot(number).newest;
        let age = |version: Version| (version.sequence, version.location.segment);
        if age(version) <= age(before) {
            return Changed {
                handle,
                put: Put::TooOld,
                waits: false,
            };
        }
        let is_crowded = if let Some(horizon) = horizon {
            shard.push(number, version, horizon)
        } else {
            shard.replace(number, version);
            false
        };
        Changed {
            handle,
            put: Put::Newest(Some(before)),
            waits: (is_crowded || version.is_tombstone()) && shard.wait(number),
        }
    }

    /// Gives the version `sequence` of `key` another location; the one before, and whether it is
    /// the newest version.
    pub(super) fn relocate(
        &self,
        key: &[u8],
        sequence: u64,
        to: Location,
    ) -> Option<(Location, bool)> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.write(shard_of(hash));
        let number = shard.find(hash, key)?;
        let is_newest = shard.slot(number).newest.sequence == sequence;
        Some((shard.relocate(number, sequence, to)?, is_newest))
    }

    /// The keys whose newest versions `is_wanted`.
    pub(super) fn keys_where(&self, is_wanted: impl Fn(Version) -> bool) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for at in 0..SHARDS {
            let shard = self.read(at);
            let wanted = shard.slots().filter(|slot| is_wanted(slot.newest));
            keys.extend(wanted.map(|slot| Box::from(slot.key())));
        }
        keys
    }

    /// Drops what nobody at `horizon` can see of a key that has waited.
    pub(super) fn look(&self, handle: Handle, horizon: &Horizon) -> Looked {
        self.write(handle.shard())
            .look(&self.hasher, handle.number(), horizon)
    }

    /// Frees the slot of a key that is gone, and whose handle is nowhere any more.
    pub(super) fn free(&self, handle: Handle) {
        self.write(handle.shard()).free(handle.number());
    }

    /// Adds keys that are not there yet, and appends their handles in the same order to `handles`.
    ///
    /// Shard by shard: a lock is taken once, and one table is in the cache.
    pub(super) fn add_all<K: AsRef<[u8]>>(&self, keys: &[(K, Version)], handles: &mut Vec<Handle>) {
        let hashes: Vec<u64> = keys
            .iter()
            .map(|(key, _)| self.hasher.hash_one(key.as_ref()))
            .collect();
        let mut ends = [0_usize; SHARDS];
        for &hash in &hashes {
            ends[shard_of(hash)] += 1;
        }
        let mut begin = 0;
        for end in &mut ends {
            begin += std::mem::replace(end, begin);
        }
        let mut by_shard = vec![0; keys.len()];
        for (at, &hash) in hashes.iter().enumerate() {
            let end = &mut ends[shard_of(hash)];
            by_shard[*end] = at;
            *end += 1;
        }
        let base = handles.len();
        handles.resize(base + keys.len(), Handle(0));
        let mut left: VecDeque<usize> = (0..SHARDS).collect();
        while let Some(shard_at) = left.pop_front() {
            let mut shard = match self.shards[shard_at].try_write() {
                Ok(shard) => shard,
                // Others add keys too: one after the other would wait for each shard.
                Err(_) if !left.is_empty() => {
                    left.push_back(shard_at);
                    continue;
                }
                Err(_) => self.write(shard_at),
            };
            let begin = shard_at.checked_sub(1).map_or(0, |before| ends[before]);
            for &at in &by_shard[begin..ends[shard_at]] {
                let (key, version) = &keys[at];
                let number = shard.add(&self.hasher, hashes[at], key.as_ref(), *version);
                handles[base + at] = Handle::new(shard_at, number);
            }
        }
    }

    /// Makes place for about `count` keys more.
    pub(super) fn reserve(&self, count: usize) {
        // Shards are never quite equal.
        let each = count / SHARDS + count / SHARDS / 16;
        for at in 0..SHARDS {
            self.write(at).reserve(&self.hasher, each);
        }
    }

    /// Gives back place for keys that have not come.
    pub(super) fn shrink(&self) {
        for at in 0..SHARDS {
            self.write(at).shrink(&self.hasher);
        }
    }

    /// How the key of `handle` compares to `key`. The caller keeps the slot from being freed: it
    /// holds the lock of the block that the handle is in.
    pub(super) fn compare(&self, handle: Handle, key: &[u8]) -> Ordering {
        self.with_key(handle, |found| found.cmp(key))
    }

    /// Hands the key of `handle` to `take`; as [`Points::compare`].
    pub(super) fn with_key<R>(&self, handle: Handle, take: impl FnOnce(&[u8]) -> R) -> R {
        let shard = self.read(handle.shard());
        take(shard.slot(handle.number()).key())
    }

    /// Hands the key of `handle`, and what a reader at `sequence` sees of it, to `visit`, unless
    /// that is nothing; as [`Points::compare`]. False if `visit` says stop.
    pub(super) fn visit(
        &self,
        handle: Handle,
        sequence: u64,
        visit: &mut impl FnMut(&[u8], Version) -> bool,
    ) -> bool {
        let shard = self.read(handle.shard());
        let slot = shard.slot(handle.number());
        match shard.at(slot, sequence) {
            Some(version) if !version.is_tombstone() => visit(slot.key(), version),
            _ => true,
        }
    }

    /// How many versions all keys have.
    pub(super) fn versions(&self) -> usize {
        (0..SHARDS).map(|at| self.read(at).versions()).sum()
    }

    /// How many bytes all shards take.
    pub(super) fn memory_bytes(&self) -> usize {
        (0..SHARDS).map(|at| self.read(at).memory_bytes()).sum()
    }

    /// How many versions `key` has.
    #[cfg(test)]
    pub(super) fn count(&self, key: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let shard = self.read(shard_of(hash));
        shard.find(hash, key).map(|number| shard.count(number))
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard_of(hash: u64) -> usize {
    usize::try_from((hash >> SHARD_SHIFT) % SHARDS as u64).unwrap_or(0)
}
