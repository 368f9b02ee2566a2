//! Points: key to entry by hash, for get, has, set and delete.
//!
//! The table is cut into shards, each behind a lock of its own that is held for one lookup or
//! one change, never while anything is read from or written to a file.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::hash_table::Entry as Slot;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::Entry;

const SHARDS: usize = 64;
/// Shards are chosen by bits that the table itself uses for neither slots nor tags.
const SHARD_SHIFT: u32 = 40;

type Table = HashTable<Arc<Entry>>;

/// The hash table over all entries.
pub(super) struct Points {
    hasher: DefaultHashBuilder,
    shards: Vec<RwLock<Table>>,
}

impl Points {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(Table::new())).collect();
        Self {
            hasher: DefaultHashBuilder::default(),
            shards,
        }
    }

    /// Hands the entry of `key` to `take`.
    pub(super) fn get<R>(&self, key: &[u8], take: impl FnOnce(&Entry) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        let shard = self.read(hash);
        shard
            .find(hash, |entry| entry.key() == key)
            .map(|entry| take(entry))
    }

    /// Hands the entry of `key` to `change`, or makes one by `insert`.
    ///
    /// `insert` runs under the shard's lock, so that no entry is in one structure of the index
    /// alone while another writer looks.
    pub(super) fn change_or_insert<R>(
        &self,
        key: &[u8],
        change: impl FnOnce(&Arc<Entry>) -> R,
        insert: impl FnOnce() -> (Arc<Entry>, R),
    ) -> R {
        let hash = self.hasher.hash_one(key);
        {
            // Overwriting changes no structure, so readers of the shard go on.
            let shard = self.read(hash);
            if let Some(entry) = shard.find(hash, |entry| entry.key() == key) {
                return change(entry);
            }
        }
        let mut shard = self.write(hash);
        let rehash = |entry: &Arc<Entry>| self.hasher.hash_one(entry.key());
        match shard.entry(hash, |entry| entry.key() == key, rehash) {
            Slot::Occupied(slot) => change(slot.get()),
            Slot::Vacant(slot) => {
                let (entry, result) = insert();
                slot.insert(entry);
                result
            }
        }
    }

    /// Removes `entry` if `condemn` says so under the shard's lock.
    pub(super) fn remove_if(&self, entry: &Arc<Entry>, condemn: impl FnOnce(&Entry) -> bool) {
        let hash = self.hasher.hash_one(entry.key());
        let mut shard = self.write(hash);
        if let Ok(slot) = shard.find_entry(hash, |found| Arc::ptr_eq(found, entry))
            && condemn(entry)
        {
            slot.remove();
        }
    }

    /// How many bytes the table takes.
    pub(super) fn table_bytes(&self) -> u64 {
        let bytes = |shard: &RwLock<Table>| {
            shard
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .allocation_size()
        };
        self.shards.iter().map(|shard| bytes(shard) as u64).sum()
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Table> {
        self.shard(hash)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Table> {
        self.shard(hash)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, hash: u64) -> &RwLock<Table> {
        let at = (hash >> SHARD_SHIFT) % SHARDS as u64;
        &self.shards[usize::try_from(at).unwrap_or(0)]
    }
}
