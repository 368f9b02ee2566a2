//! The index between threads: what each of them sees is known from its sequence number alone.
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{SMALL, key, version, walk};
use crate::index::{Horizon, Index, is_empty};
use crate::log::location::Location;

/// How many batches are applied.
const BATCHES: u64 = 3000;

/// Who reads at what, as the engine keeps it.
struct Readers {
    visible: AtomicU64,
    pinned: Mutex<BTreeMap<u64, usize>>,
}

impl Readers {
    fn horizon(&self) -> Horizon {
        let pinned = self.pinned.lock().unwrap();
        Horizon {
            visible: self.visible.load(Ordering::Acquire),
            pinned: pinned.keys().copied().collect(),
        }
    }

    fn pinned<R>(&self, read: impl FnOnce(u64) -> R) -> R {
        let sequence = {
            let mut pinned = self.pinned.lock().unwrap();
            let sequence = self.visible.load(Ordering::Acquire);
            *pinned.entry(sequence).or_default() += 1;
            sequence
        };
        let result = read(sequence);
        let mut pinned = self.pinned.lock().unwrap();
        *pinned.get_mut(&sequence).unwrap() -= 1;
        pinned.retain(|_, count| *count > 0);
        result
    }
}

/// Numbers that look random (splitmix64).
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What batch `sequence` changes: some keys, each once, set or deleted.
fn batch(sequence: u64) -> BTreeMap<Vec<u8>, bool> {
    let change = |n: u64| {
        let any = mix(sequence * 64 + n).to_le_bytes();
        (key(any[0]), any[1] % 5 < 2)
    };
    (0..=mix(sequence) % 24).map(change).collect()
}

/// The keys that are there after each batch, each with the batch that set it.
fn histories() -> Vec<BTreeMap<Vec<u8>, u64>> {
    let mut now = BTreeMap::new();
    let after = |sequence| {
        for (key, is_deleted) in batch(sequence) {
            if is_deleted {
                now.remove(&key);
            } else {
                now.insert(key, sequence);
            }
        }
        now.clone()
    };
    std::iter::once(BTreeMap::new())
        .chain((1..=BATCHES).map(after))
        .collect()
}

fn write_all(index: &Index, readers: &Readers) {
    for sequence in 1..=BATCHES {
        let horizon = readers.horizon();
        for (key, is_deleted) in batch(sequence) {
            index.apply(&key, version(sequence, is_deleted), &horizon);
        }
        // Some batches become visible together, as those do that share a sync.
        if sequence % 3 != 0 || sequence == BATCHES {
            readers.visible.store(sequence, Ordering::Release);
        }
        if sequence % 7 == 0 {
            index.prune(&readers.horizon(), 24);
        }
    }
}

/// Walks a random range at a pin, and looks keys up, until nothing is written any more.
fn read_all(
    index: &Index,
    readers: &Readers,
    seed: u64,
    is_over: &AtomicBool,
    histories: &[BTreeMap<Vec<u8>, u64>],
) {
    for round in seed * 1_000_000.. {
        let last = is_over.load(Ordering::Acquire);
        let [a, b, way, ..] = mix(round).to_le_bytes();
        let (low, high) = (key(a).min(key(b)), key(a).max(key(b)));
        let bounds = match way % 4 {
            0 => (Bound::Unbounded, Bound::Unbounded),
            1 => (Bound::Included(&low[..]), Bound::Excluded(&high[..])),
            2 => (Bound::Excluded(&low[..]), Bound::Unbounded),
            _ => (Bound::Unbounded, Bound::Included(&high[..])),
        };
        readers.pinned(|sequence| {
            let walked = walk(index, bounds, way > 127, sequence, usize::MAX);
            let at = usize::try_from(sequence).unwrap();
            let expected = &histories[at];
            let mut expected: Vec<_> = if is_empty(bounds) {
                Vec::new()
            } else {
                expected
                    .range::<[u8], _>(bounds)
                    .map(|(k, s)| (k.clone(), *s))
                    .collect()
            };
            if way > 127 {
                expected.reverse();
            }
            let walked: Vec<_> = walked.into_iter().map(|(k, v)| (k, v.sequence)).collect();
            assert_eq!(walked, expected, "at {sequence}, {bounds:?}, {}", way > 127);
            let got = index.get(&low, sequence).map(|version| version.sequence);
            assert_eq!(got, histories[at].get(&low).copied());
        });
        let before = readers.visible.load(Ordering::Acquire);
        let got = index.get_visible(&high, &readers.visible);
        let after = readers.visible.load(Ordering::Acquire);
        let mut possible = (before..=after).map(|at| &histories[usize::try_from(at).unwrap()]);
        let got = got.map(|version| version.sequence);
        assert!(possible.any(|there| there.get(&high).copied() == got));
        if last {
            return;
        }
    }
}

#[test]
fn walks_beside_writers_pruners_and_relocations_see_exactly_their_moment() {
    let histories = histories();
    let index = Index::of(SMALL);
    let readers = Readers {
        visible: AtomicU64::new(0),
        pinned: Mutex::default(),
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (index, readers, is_over, histories) = (&index, &readers, &is_over, &histories);
        for seed in 0..3 {
            scope.spawn(move || read_all(index, readers, seed, is_over, histories));
        }
        for _ in 0..2 {
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    index.prune(&readers.horizon(), 0);
                    std::thread::yield_now();
                }
            });
        }
        scope.spawn(move || {
            for round in 0.. {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                let visible = readers.visible.load(Ordering::Acquire);
                let sequence = visible.saturating_sub(mix(round) % 8);
                for key in batch(sequence).keys() {
                    let to = Location::new(u32::try_from(round % 1000).unwrap(), 64, 0, Some(5));
                    let now = index.get(key, sequence);
                    if now.is_some_and(|now| now.sequence == sequence) {
                        index.relocate(key, sequence, to);
                    }
                }
            }
        });
        let outcome = std::panic::catch_unwind(|| write_all(index, readers));
        is_over.store(true, Ordering::Release);
        outcome.unwrap();
    });
    while index.prune(&readers.horizon(), 0) {}
    let left = walk(
        &index,
        (Bound::Unbounded, Bound::Unbounded),
        false,
        BATCHES,
        usize::MAX,
    );
    assert_eq!(left.len(), histories.last().unwrap().len());
    assert_eq!(index.keys(), left.len() as u64);
    assert_eq!(index.lock_waiting().len(), 0);
}

#[test]
fn walks_beside_blocks_that_are_split_see_each_key_once() {
    const OLD: u64 = 3000;
    const NEW: u64 = 9000;
    let index = Index::of(SMALL);
    let numbered = |number: u64| mix(number).to_be_bytes();
    let mut old: Vec<_> = (0..OLD).map(numbered).collect();
    old.sort_unstable();
    let loaded: Vec<_> = old.iter().map(|key| (key, version(1, false))).collect();
    index.load(&loaded);
    let horizon = Horizon {
        visible: 1,
        pinned: vec![1],
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (index, is_over, old) = (&index, &is_over, &old);
        for reader in 0..4 {
            scope.spawn(move || {
                let all = (Bound::Unbounded, Bound::Unbounded);
                while !is_over.load(Ordering::Acquire) {
                    let mut walked = walk(index, all, reader % 2 == 0, 1, usize::MAX);
                    if reader % 2 == 0 {
                        walked.reverse();
                    }
                    let walked = walked.iter().map(|(key, _)| &key[..]);
                    assert!(walked.eq(old.iter().map(|key| &key[..])));
                }
            });
        }
        for number in OLD..OLD + NEW {
            index.apply(&numbered(number), version(number, false), &horizon);
        }
        is_over.store(true, Ordering::Release);
    });
}
