//! Order: the same keys in order, for prefix, range and scan, in both directions.
//!
//! Handles lie in blocks; a directory leads to the block that a key belongs to. New keys are staged
//! first and merged into the blocks in groups: by whoever stages the key that makes a group full,
//! and by every walk, so that it sees all that was staged before it began.
//!
//! Invariants:
//! 1. Blocks and directory are changed by who holds `change`, one at a time, in the order in which
//!    keys were staged. A block covers the keys from its `first` to the next one's; `first` never
//!    changes, and keys only ever move up, into a block that was split off. The block of `first` ""
//!    never goes.
//! 2. A key is staged before any of its versions is visible, and taken out when everybody sees its
//!    tombstone. So what a walk must see is in the blocks before the walk looks for its first one,
//!    and stays until the walk ends, because a pin holds it.
//! 3. Locks: `change`, then one block, then `directory` or one shard of `points`; `staged` after
//!    `change`. Nobody goes the other way: `points` takes none of these, the directory is read and
//!    let go. So nobody waits in a circle.
//!
//! Why a handle in a block is alive: a slot is freed behind [`Order::remove`], which finds the
//! handle in the block and takes it out under the block's lock, or finds that another slot of the
//! same key has taken its place. A handle is looked at under that lock alone, or by who holds
//! `change`, which `remove` needs.
//!
//! Why a walk misses nothing: it looks for the next block while it holds the lock of the one before,
//! which cannot be split then. Downwards, and at the beginning, a block may be split between the
//! look into the directory and its lock; upwards what was split off is the next block, downwards
//! the directory is looked at again under the lock. A block that was taken out meanwhile is empty:
//! nothing that the walk must see was in it, and the directory tells what lies behind.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::block::{Block, Places};
use super::points::{Handle, Points};
use super::staged::Staged;
use crate::log::location::Version;

/// A range of keys.
pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The key that a block begins with.
type First = Arc<[u8]>;

type Directory = BTreeMap<First, Arc<Block>>;

/// About what a block takes beside its handles: itself and its place in the directory.
const BLOCK_BYTES: usize = size_of::<Block>() + 96;

/// All keys in order.
pub(super) struct Order {
    directory: RwLock<Directory>,
    staged: Mutex<Staged>,
    /// How many keys were staged and are not in the blocks yet.
    unmerged: AtomicUsize,
    /// The right to change blocks and directory; and the group that is merged.
    change: Mutex<Staged>,
    places_bytes: AtomicUsize,
    /// The most handles in a block.
    block_max: usize,
}

impl Order {
    pub(super) fn new(block_max: usize) -> Self {
        let first: First = Arc::new([]);
        let block = Block::new(first.clone(), Places::default());
        Self {
            directory: RwLock::new(BTreeMap::from([(first, Arc::new(block))])),
            staged: Mutex::default(),
            unmerged: AtomicUsize::new(0),
            change: Mutex::default(),
            places_bytes: AtomicUsize::new(0),
            block_max,
        }
    }

    /// Adds a new key, in a group of `group`.
    pub(super) fn stage(&self, key: &[u8], handle: Handle, group: usize, points: &Points) {
        let is_full = {
            let mut staged = lock(&self.staged);
            staged.push(key, handle);
            self.unmerged.fetch_add(1, Ordering::AcqRel);
            staged.is_full(group)
        };
        if is_full {
            self.merge_into(&mut lock(&self.change), points);
        }
    }

    /// Sees to it that all that was staged before this call is in the blocks.
    pub(super) fn settle(&self, points: &Points) {
        if self.unmerged.load(Ordering::Acquire) > 0 {
            self.merge_into(&mut lock(&self.change), points);
        }
    }

    /// Takes `handle`, whose key is gone from `points`, out.
    pub(super) fn remove(&self, handle: Handle, points: &Points) {
        let key: Box<[u8]> = points.with_key(handle, |key| Box::from(key));
        let mut change = lock(&self.change);
        self.merge_into(&mut change, points);
        let Some(block) = self.last_within(Bound::Included(&key)) else {
            return;
        };
        let mut places = block.write();
        let before = places.memory_bytes();
        places.remove(&key, handle);
        self.count(before, places.memory_bytes());
        if places.list().is_empty() && !block.first.is_empty() {
            self.count(places.memory_bytes(), 0);
            self.change_directory(|directory| directory.remove(&block.first));
        }
    }

    /// Adds keys in order, between or behind all that are there; the block of `first` "" stays as it
    /// is, so that others may add keys before or behind them at the same time.
    pub(super) fn append<K: AsRef<[u8]>>(&self, keys: &[(K, Version)], handles: &[Handle]) {
        // The rest is for keys that come between.
        let filled = self.block_max / 8 * 7;
        let block = |(keys, handles): (&[(K, Version)], &[Handle])| {
            let places = Places::of(keys, handles);
            self.count(0, places.memory_bytes());
            let first: First = keys[0].0.as_ref().into();
            (first.clone(), Arc::new(Block::new(first, places)))
        };
        let blocks = keys.chunks(filled).zip(handles.chunks(filled));
        let blocks: Vec<_> = blocks.map(block).collect();
        let _change = lock(&self.change);
        self.change_directory(|directory| directory.extend(blocks));
    }

    /// Hands the keys within `bounds`, and what a reader at `sequence` sees of them, to `visit`,
    /// from the first or from the last, until it says stop.
    pub(super) fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        sequence: u64,
        points: &Points,
        mut visit: impl FnMut(&[u8], Version) -> bool,
    ) {
        if is_empty(bounds) {
            return;
        }
        self.settle(points);
        if backwards {
            self.walk_down(bounds, sequence, points, &mut visit);
        } else {
            self.walk_up(bounds, sequence, points, &mut visit);
        }
    }

    /// About how many bytes the order takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.places_bytes.load(Ordering::Relaxed)
            + self.read_directory().len() * BLOCK_BYTES
            + lock(&self.staged).memory_bytes()
    }

    fn walk_up(
        &self,
        (mut low, high): KeyBounds<'_>,
        sequence: u64,
        points: &Points,
        visit: &mut impl FnMut(&[u8], Version) -> bool,
    ) {
        let at = match low {
            Bound::Unbounded => Bound::Included(&[][..]),
            Bound::Included(key) | Bound::Excluded(key) => Bound::Included(key),
        };
        let mut next = self.last_within(at);
        while let Some(block) = next {
            let places = block.read();
            let from = places.below_low(low, points);
            let to = places.within_high(high, points);
            for place in places.list().get(from..to).unwrap_or_default() {
                if !points.visit(place.handle, sequence, visit) {
                    return;
                }
            }
            if to < places.list().len() {
                return;
            }
            if from < to {
                low = Bound::Unbounded;
            }
            next = self.behind(&block.first);
        }
    }

    fn walk_down(
        &self,
        (low, high): KeyBounds<'_>,
        sequence: u64,
        points: &Points,
        visit: &mut impl FnMut(&[u8], Version) -> bool,
    ) {
        let mut below: Option<First> = None;
        loop {
            let high = below.as_deref().map_or(high, Bound::Excluded);
            let Some(block) = self.last_within(high) else {
                return;
            };
            let places = block.read();
            if self
                .behind(&block.first)
                .is_some_and(|next| is_within(&next.first, high))
            {
                continue;
            }
            let from = places.below_low(low, points);
            let to = places.within_high(high, points);
            for place in places.list().get(from..to).unwrap_or_default().iter().rev() {
                if !points.visit(place.handle, sequence, visit) {
                    return;
                }
            }
            if from > 0 {
                return;
            }
            below = Some(block.first.clone());
        }
    }

    /// Puts what is staged into the blocks. The caller holds `change`, which is `group`, empty.
    fn merge_into(&self, group: &mut Staged, points: &Points) {
        std::mem::swap(&mut *lock(&self.staged), group);
        group.sort();
        let mut keys = group.iter().peekable();
        while let Some((key, _)) = keys.peek() {
            let Some((block, end)) = self.find(key) else {
                break;
            };
            let mut places = block.write();
            let before = places.memory_bytes();
            let is_here = |key: &[u8]| end.as_deref().is_none_or(|end| key < end);
            while let Some((key, handle)) = keys.next_if(|(key, _)| is_here(key)) {
                let at = places.insert(key, handle, points);
                if places.list().len() > self.block_max {
                    self.split(&mut places, at, points);
                    break;
                }
            }
            self.count(before, places.memory_bytes());
        }
        drop(keys);
        let merged = group.len();
        group.clear();
        self.unmerged.fetch_sub(merged, Ordering::AcqRel);
    }

    /// Splits a block that is too full since a key was inserted `at` a place: in the middle, or
    /// there, if it was at an end, where more of them may come.
    fn split(&self, places: &mut Places, at: usize, points: &Points) {
        let len = places.list().len();
        let middle = match at {
            0 => 1,
            at if at + 1 == len => at,
            _ => len / 2,
        };
        let (first, upper) = places.split_off(middle, points);
        self.count(0, upper.memory_bytes());
        let block = Arc::new(Block::new(first.clone(), upper));
        self.change_directory(|directory| directory.insert(first, block));
    }

    /// The block that `key` belongs to, and the first key that does not any more.
    fn find(&self, key: &[u8]) -> Option<(Arc<Block>, Option<First>)> {
        let directory = self.read_directory();
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let (_, block) = directory.range::<[u8], _>(up_to).next_back()?;
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let end = directory.range::<[u8], _>(behind).next();
        Some((block.clone(), end.map(|(first, _)| first.clone())))
    }

    /// The last block that begins within `high`.
    fn last_within(&self, high: Bound<&[u8]>) -> Option<Arc<Block>> {
        if is_empty((Bound::Unbounded, high)) {
            return None;
        }
        let directory = self.read_directory();
        let mut range = directory.range::<[u8], _>((Bound::Unbounded, high));
        range.next_back().map(|(_, block)| block.clone())
    }

    /// The block behind the one that begins with `first`.
    fn behind(&self, first: &[u8]) -> Option<Arc<Block>> {
        let behind = (Bound::Excluded(first), Bound::Unbounded);
        let directory = self.read_directory();
        let mut range = directory.range::<[u8], _>(behind);
        range.next().map(|(_, block)| block.clone())
    }

    fn read_directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change_directory<R>(&self, change: impl FnOnce(&mut Directory) -> R) -> R {
        let directory = self.directory.write();
        change(&mut directory.unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, before: usize, after: usize) {
        self.places_bytes.fetch_add(after, Ordering::Relaxed);
        self.places_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

fn lock(staged: &Mutex<Staged>) -> MutexGuard<'_, Staged> {
    staged.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `key` lies within `high`.
fn is_within(key: &[u8], high: Bound<&[u8]>) -> bool {
    match high {
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
        Bound::Unbounded => true,
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
