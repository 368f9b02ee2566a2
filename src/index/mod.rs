//! Where is my key: every key in memory, with the locations of its versions.
//!
//! `engine` comes in with a key and a sequence number and gets a version, with the changes of a
//! batch to apply, or with a range to walk. Values are not here; nothing here knows a file.
//!
//! A key and its newest version lie in a slot ([`slots`]), of a shard ([`shard`]) that finds it by
//! hash ([`points`]); what is below the newest version lies apart ([`versions`]). New keys are
//! [`staged`] and merged in groups into the sorted blocks ([`block`]) of the [`order`].
//!
//! Invariants:
//! 1. A key is in both structures or in neither, but for the moments of its insertion, when its
//!    only version is not visible yet, and of its removal, when nobody can see it any more.
//! 2. A version that somebody at the [`Horizon`] can see is never dropped.
//! 3. A tombstone that everybody sees is dropped with its key.
//! 4. A key waits to be looked at at most once, and only who has taken it from the queue takes it
//!    out of the index: so a handle in the queue is alive.
//!
//! Threads: readers take short shared locks on one block and one shard; nothing here waits for a
//! file. Changes are applied by the holder of the writer lock; pruning may run beside it.

mod block;
mod order;
mod points;
mod shard;
mod slots;
mod staged;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::log::location::{Location, Version};
pub(crate) use order::{KeyBounds, is_empty};
use points::{Changed, Handle};
use shard::Looked;
pub(crate) use versions::Horizon;

/// How much is done at once. The tests of this room have few keys, and smaller sizes.
#[derive(Clone, Copy)]
struct Sizes {
    /// The most handles in a block.
    block: usize,
    /// How many new keys a commit puts into the order at once: a longer group costs less for each
    /// key, but one commit of so many has to do it.
    group: usize,
    /// The same while nobody reads yet.
    replay_group: usize,
}

const SIZES: Sizes = Sizes {
    block: 256,
    group: 1024,
    replay_group: 64 * 1024,
};

/// How many waiting keys a call to [`Index::prune`] looks at beside those that its caller may
/// have added: more than are added, so that the queue cannot grow for ever.
const PRUNE_AT_ONCE: usize = 256;

/// A key that holds more than its newest version, or a tombstone: to be looked at once its
/// newest version, of this sequence number, is seen by everybody.
struct Waiting {
    sequence: u64,
    handle: Handle,
}

/// What became of a version that the index was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is the newest of its key; the one that was before.
    Newest(Option<Version>),
    /// A newer one was there, or the same, and not in an older segment.
    TooOld,
}

/// The index of an open store.
pub(crate) struct Index {
    points: points::Points,
    order: order::Order,
    waiting: Mutex<VecDeque<Waiting>>,
    keys: AtomicU64,
    sizes: Sizes,
}

impl Index {
    /// An index without keys.
    pub(crate) fn new() -> Self {
        Self::of(SIZES)
    }

    fn of(sizes: Sizes) -> Self {
        Self {
            points: points::Points::new(),
            order: order::Order::new(sizes.block),
            waiting: Mutex::default(),
            keys: AtomicU64::new(0),
            sizes,
        }
    }

    /// How many keys are not deleted, by their newest versions.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// How many versions it has of all keys: the newest ones, tombstones too, and older ones.
    pub(crate) fn versions(&self) -> u64 {
        self.points.versions() as u64
    }

    /// About how much memory the index takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let waiting = self.lock_waiting().len() * size_of::<Waiting>();
        (self.points.memory_bytes() + self.order.memory_bytes() + waiting) as u64
    }

    /// What a pinned reader at `sequence` sees of `key`; tombstones are `None`.
    pub(crate) fn get(&self, key: &[u8], sequence: u64) -> Option<Version> {
        let found = self.points.at(key, sequence);
        found.filter(|version| !version.is_tombstone())
    }

    /// The newest visible version of `key`, for a reader without a pin; tombstones are `None`.
    pub(crate) fn get_visible(&self, key: &[u8], visible: &AtomicU64) -> Option<Version> {
        let found = self.points.now(key, visible);
        found.filter(|version| !version.is_tombstone())
    }

    /// Gives `key` a new version, which readers see once it is visible.
    ///
    /// The caller has the cursor, and raises what is visible afterwards.
    pub(crate) fn apply(&self, key: &[u8], version: Version, horizon: &Horizon) -> Put {
        let changed = self.points.change(key, version, Some(horizon));
        self.follow(key, version, &changed, self.sizes.group);
        changed.put
    }

    /// Gives `key` its only version, while nobody reads yet.
    pub(crate) fn replay(&self, key: &[u8], version: Version) -> Put {
        let changed = self.points.change(key, version, None);
        self.follow(key, version, &changed, self.sizes.replay_group);
        changed.put
    }

    /// The newest version of `key`, whether anybody sees it or not; tombstones too.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<Version> {
        self.points.at(key, u64::MAX)
    }

    /// The keys whose newest versions `is_wanted`, but for tombstones.
    pub(crate) fn keys_where(&self, is_wanted: impl Fn(Version) -> bool) -> Vec<Box<[u8]>> {
        let is_wanted = |newest: Version| !newest.is_tombstone() && is_wanted(newest);
        self.points.keys_where(is_wanted)
    }

    /// Puts all that was replayed into the order, so that no commit or walk has to.
    pub(crate) fn settle(&self) {
        self.order.settle(&self.points);
    }

    /// Gives the version of `key` with exactly this sequence number, whether it is the newest or
    /// an older one, the location `to`; the location before, and whether it is the newest. `None`
    /// if there is no such version, or if it is in a younger segment already: what compaction
    /// makes is younger than what it moves.
    ///
    /// Whoever has looked the version up before may read at the old location still.
    pub(crate) fn relocate(
        &self,
        key: &[u8],
        sequence: u64,
        to: Location,
    ) -> Option<(Location, bool)> {
        self.points.relocate(key, sequence, to)
    }

    /// Makes place for about `count` keys.
    pub(crate) fn reserve(&self, count: usize) {
        self.points.reserve(count);
    }

    /// Gives place back, if it was made for many more keys than have come.
    pub(crate) fn shrink(&self, reserved: usize) {
        if self.keys() < reserved as u64 / 2 {
            self.points.shrink();
        }
    }

    /// Adds keys in strictly rising order, none of which is deleted, while nobody reads yet. No other
    /// key, already there or loaded at the same time, lies between the first and the last of them.
    /// Some thousands at once fit the cache, and cost least.
    pub(crate) fn load<K: AsRef<[u8]>>(&self, sorted: &[(K, Version)]) {
        let mut handles = Vec::with_capacity(sorted.len());
        self.points.add_all(sorted, &mut handles);
        self.order.append(sorted, &handles);
        self.keys.fetch_add(sorted.len() as u64, Ordering::Relaxed);
    }

    /// Drops versions and keys that nobody at `horizon` can see; some of them, if there are
    /// many: `added`, which is what a batch may have added, and some more. True if more may be left.
    pub(crate) fn prune(&self, horizon: &Horizon, added: usize) -> bool {
        for _ in 0..added.saturating_add(PRUNE_AT_ONCE) {
            let oldest = horizon.oldest();
            let next = self
                .lock_waiting()
                .pop_front_if(|front| front.sequence <= oldest);
            let Some(Waiting { handle, .. }) = next else {
                return false;
            };
            match self.points.look(handle, horizon) {
                Looked::Done => {}
                Looked::Again(sequence) => self.wait(sequence, handle),
                Looked::Gone => {
                    self.order.remove(handle, &self.points);
                    self.points.free(handle);
                }
            }
        }
        true
    }

    /// Hands the keys within `bounds` to `visit`, with what a reader at `sequence` sees of
    /// them, in key order or backwards, until it says stop.
    ///
    /// The reader's sequence number is pinned. `visit` runs under locks: it copies what it needs,
    /// and neither waits nor asks this index anything.
    pub(crate) fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        sequence: u64,
        visit: impl FnMut(&[u8], Version) -> bool,
    ) {
        self.order
            .walk(bounds, backwards, sequence, &self.points, visit);
    }

    /// Does what follows from a change of `key`, whose version may be seen only afterwards.
    fn follow(&self, key: &[u8], version: Version, changed: &Changed, group: usize) {
        let Put::Newest(before) = changed.put else {
            return;
        };
        if before.is_none() {
            self.order.stage(key, changed.handle, group, &self.points);
        }
        if changed.waits {
            self.wait(version.sequence, changed.handle);
        }
        let was_live = before.is_some_and(|before| !before.is_tombstone());
        match (was_live, !version.is_tombstone()) {
            (false, true) => self.keys.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.keys.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    fn wait(&self, sequence: u64, handle: Handle) {
        self.lock_waiting().push_back(Waiting { sequence, handle });
    }

    fn lock_waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
