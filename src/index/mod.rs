//! Where is my key: every key in memory, with the locations of its versions.
//!
//! `engine` comes in with a key and a sequence number and gets a version, with the changes of a
//! batch to apply, or with a range to walk. Values are not here; nothing here knows a file.
//!
//! Invariants:
//! 1. An entry is in both structures or in neither, but for the moment of its insertion, when
//!    its only version is not visible yet, and of its removal, when nobody can see it any more.
//! 2. A version that somebody at the [`Horizon`] can see is never dropped.
//! 3. A tombstone that everybody sees is dropped with its entry.
//!
//! Threads: readers take short shared locks on one shard and one entry; nothing here waits for a
//! file. Changes are applied by the holder of the writer lock; pruning may run beside it.

mod order;
mod points;
mod versions;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::log::location::Version;
pub(crate) use order::{KeyBounds, is_empty};
pub(crate) use versions::Horizon;
use versions::Versions;

/// Memory of an entry but for a key that lies apart, for statistics: the entry, its node in the skiplist.
const ENTRY_OVERHEAD_BYTES: u64 = size_of::<Entry>() as u64 + 16 + 48;

/// Memory of a waiting entry, for statistics.
const WAITING_BYTES: u64 = (size_of::<Waiting>() + size_of::<usize>()) as u64;

/// How many waiting entries a call to [`Index::prune`] looks at beside those that its caller may
/// have added: more than are added, so that the queue cannot grow for ever.
const PRUNE_AT_ONCE: usize = 256;

/// A key and its versions.
pub(crate) struct Entry {
    key: EntryKey,
    versions: RwLock<Versions>,
}

/// Keys up to this long lie in their entries: to compare one is to read what was read anyway.
const INLINE_KEY_BYTES_MAX: usize = 30;

/// The bytes of a key.
enum EntryKey {
    Inline {
        len: u8,
        bytes: [u8; INLINE_KEY_BYTES_MAX],
    },
    Apart(Box<[u8]>),
}

impl From<&[u8]> for EntryKey {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE_KEY_BYTES_MAX];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(key);
                Self::Inline { len, bytes }
            }
            _ => Self::Apart(key.into()),
        }
    }
}

/// What a key takes beside its entry.
fn bytes_apart(key: &[u8]) -> u64 {
    if key.len() > INLINE_KEY_BYTES_MAX {
        key.len() as u64
    } else {
        0
    }
}

impl Entry {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        match &self.key {
            EntryKey::Inline { len, bytes } => &bytes[..usize::from(*len)],
            EntryKey::Apart(bytes) => bytes,
        }
    }

    /// What a reader at `sequence` sees of this key: its version, unless it is a tombstone.
    pub(crate) fn live_at(&self, sequence: u64) -> Option<Version> {
        self.at(sequence).filter(|version| !version.is_tombstone())
    }

    /// What whoever begins to read now sees. What is visible is looked at under the lock that
    /// pruning takes: what a pruning before it has dropped is not seen at that number.
    fn now(&self, visible: &AtomicU64) -> Option<Version> {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        versions.at(visible.load(Ordering::Acquire))
    }

    fn at(&self, sequence: u64) -> Option<Version> {
        self.versions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .at(sequence)
    }

    fn newest(&self) -> Version {
        self.versions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .newest()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Versions) -> R) -> R {
        change(
            &mut self
                .versions
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// An entry that holds more than its newest version, or a tombstone: to be looked at once its
/// newest version, of this sequence number, is seen by everybody.
struct Waiting {
    sequence: u64,
    entry: Arc<Entry>,
}

/// The waiting entries, each once however often it is overwritten meanwhile.
#[derive(Default)]
struct WaitingRoom {
    queue: VecDeque<Waiting>,
    /// The addresses of the entries in the queue, which keeps them alive.
    members: HashSet<usize>,
}

/// The index of an open store.
pub(crate) struct Index {
    points: points::Points,
    order: order::Order,
    waiting: Mutex<WaitingRoom>,
    keys: AtomicU64,
    entries: AtomicU64,
    key_bytes: AtomicU64,
}

impl Index {
    /// An index without keys.
    pub(crate) fn new() -> Self {
        Self {
            points: points::Points::new(),
            order: order::Order::new(),
            waiting: Mutex::default(),
            keys: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            key_bytes: AtomicU64::new(0),
        }
    }

    /// How many keys are not deleted, by their newest versions.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// About how much memory the index takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.entries.load(Ordering::Relaxed) * ENTRY_OVERHEAD_BYTES
            + self.key_bytes.load(Ordering::Relaxed)
            + self.points.table_bytes()
            + self.lock_waiting().queue.len() as u64 * WAITING_BYTES
    }

    /// What a pinned reader at `sequence` sees of `key`; tombstones are `None`.
    pub(crate) fn get(&self, key: &[u8], sequence: u64) -> Option<Version> {
        self.points
            .get(key, |entry| entry.live_at(sequence))
            .flatten()
    }

    /// The newest visible version of `key`, for a reader without a pin; tombstones are `None`.
    pub(crate) fn get_visible(&self, key: &[u8], visible: &AtomicU64) -> Option<Version> {
        let found = self.points.get(key, |entry| entry.now(visible));
        found.flatten().filter(|version| !version.is_tombstone())
    }

    /// Gives `key` a new version. The version that was the newest before, if there was one.
    ///
    /// The caller holds the writer lock, and raises what is visible afterwards.
    pub(crate) fn apply(&self, key: &[u8], version: Version, horizon: &Horizon) -> Option<Version> {
        let change = |entry: &Arc<Entry>| {
            let (before, crowded) = entry.change(|versions| {
                let before = versions.newest();
                (before, versions.push(version, horizon))
            });
            if crowded || version.is_tombstone() {
                self.wait(version.sequence, entry);
            }
            Some(before)
        };
        let insert = || (self.insert(key, version), None);
        let before = self.points.change_or_insert(key, change, insert);
        self.count(before, version);
        before
    }

    /// Gives `key` its only version, while nobody reads yet. The version before, if there was
    /// one: it is forgotten.
    pub(crate) fn replay(&self, key: &[u8], version: Version) -> Option<Version> {
        let change = |entry: &Arc<Entry>| {
            let before = entry.change(|versions| {
                let before = versions.newest();
                versions.replace(version);
                before
            });
            if version.is_tombstone() {
                self.wait(version.sequence, entry);
            }
            Some(before)
        };
        let insert = || (self.insert(key, version), None);
        let before = self.points.change_or_insert(key, change, insert);
        self.count(before, version);
        before
    }

    /// Drops versions and entries that nobody at `horizon` can see; some of them, if there are
    /// many: `added`, which is what a batch may have added, and some more. True if more may be left.
    pub(crate) fn prune(&self, horizon: &Horizon, added: usize) -> bool {
        for _ in 0..added.saturating_add(PRUNE_AT_ONCE) {
            let Some(waiting) = self.next_waiting(horizon.oldest()) else {
                return false;
            };
            let entry = &waiting.entry;
            let newest = entry.change(|versions| {
                versions.prune(horizon);
                versions.newest()
            });
            if newest.sequence > horizon.oldest() {
                // It was overwritten while it waited, and somebody may see what is below.
                self.wait(newest.sequence, entry);
            } else if newest.is_tombstone() {
                self.remove(entry, horizon);
            }
        }
        true
    }

    /// Hands the entries within `bounds` to `visit`, with what a reader at `sequence` sees of
    /// them, in key order or backwards, until it says stop.
    pub(crate) fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        sequence: u64,
        mut visit: impl FnMut(&Arc<Entry>, Version) -> bool,
    ) {
        self.order
            .walk(bounds, backwards, |entry| match entry.live_at(sequence) {
                Some(version) => visit(entry, version),
                None => true,
            });
    }

    fn insert(&self, key: &[u8], version: Version) -> Arc<Entry> {
        let versions = RwLock::new(Versions::new(version));
        let entry = Arc::new(Entry {
            key: key.into(),
            versions,
        });
        self.order.insert(entry.clone());
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.key_bytes
            .fetch_add(bytes_apart(key), Ordering::Relaxed);
        if version.is_tombstone() {
            self.wait(version.sequence, &entry);
        }
        entry
    }

    /// Removes an entry whose newest version is a tombstone that everybody sees.
    fn remove(&self, entry: &Arc<Entry>, horizon: &Horizon) {
        self.points.remove_if(entry, |entry| {
            // Looked at again under the shard's lock: a new version may have come.
            let newest = entry.newest();
            let dead = newest.is_tombstone() && newest.sequence <= horizon.oldest();
            if dead {
                self.order.remove(entry.key());
                self.entries.fetch_sub(1, Ordering::Relaxed);
                self.key_bytes
                    .fetch_sub(bytes_apart(entry.key()), Ordering::Relaxed);
            }
            dead
        });
    }

    fn count(&self, before: Option<Version>, version: Version) {
        let was_live = before.is_some_and(|before| !before.is_tombstone());
        match (was_live, !version.is_tombstone()) {
            (false, true) => self.keys.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.keys.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    fn wait(&self, sequence: u64, entry: &Arc<Entry>) {
        let mut waiting = self.lock_waiting();
        if waiting.members.insert(Arc::as_ptr(entry).addr()) {
            waiting.queue.push_back(Waiting {
                sequence,
                entry: entry.clone(),
            });
        }
    }

    fn next_waiting(&self, oldest: u64) -> Option<Waiting> {
        let mut waiting = self.lock_waiting();
        let next = waiting
            .queue
            .pop_front_if(|front| front.sequence <= oldest)?;
        waiting.members.remove(&Arc::as_ptr(&next.entry).addr());
        Some(next)
    }

    fn lock_waiting(&self) -> MutexGuard<'_, WaitingRoom> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Horizon, Index, Version};
    use crate::log::location::Location;

    #[test]
    fn what_an_ended_snapshot_saw_is_dropped_though_the_key_was_overwritten_meanwhile() {
        let index = Index::new();
        let at = |visible, pinned: &[u64]| Horizon {
            visible,
            pinned: pinned.to_vec(),
        };
        let apply = |sequence, horizon: Horizon| {
            let location = Location::new(1, 64, 0, Some(0));
            index.apply(b"a", Version { sequence, location }, &horizon);
        };
        let count = || {
            index
                .points
                .get(b"a", |entry| entry.change(|versions| versions.count()))
        };
        apply(10, at(9, &[]));
        apply(20, at(10, &[10]));
        apply(30, at(20, &[10]));
        let waiting_bytes = index.memory_bytes();
        apply(40, at(30, &[10, 30]));
        assert_eq!(count(), Some(3));
        assert_eq!(index.memory_bytes(), waiting_bytes, "it waits once");
        index.prune(&at(40, &[30]), 0);
        assert_eq!(count(), Some(2));
        assert_eq!(index.memory_bytes(), waiting_bytes, "and goes on waiting");
        index.prune(&at(40, &[]), 0);
        assert_eq!(count(), Some(1));
        assert!(index.memory_bytes() < waiting_bytes);
    }
}
