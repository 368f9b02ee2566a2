//! The index beside a model that keeps all versions of all keys.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "quickcheck hands out values, and operations are any bits"
)]

mod threads;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicU64;

use quickcheck::{Gen, QuickCheck, Testable};

use crate::index::{Horizon, Index, KeyBounds, Put, Sizes, Version};
use crate::log::location::Location;

/// How many random workloads are run.
const WORKLOADS: u64 = 400;

/// Few keys fill many blocks.
const SMALL: Sizes = Sizes {
    block: 8,
    group: 4,
    replay_group: 16,
};

fn version(sequence: u64, is_tombstone: bool) -> Version {
    let location = Location::new(1, 64, 0, (!is_tombstone).then_some(5));
    Version { sequence, location }
}

/// Keys that begin with each other, have much in common, are long, or hold bytes of all kinds.
fn key(number: u8) -> Vec<u8> {
    match number % 4 {
        0 => vec![b'a'; usize::from(number / 16)],
        1 => [&b"common/beginning/"[..], &[number]].concat(),
        2 => [&[b'x'; 40][..], &[number / 32, 0, number]].concat(),
        _ => [
            &[number / 64 * 85, 0][..],
            &vec![0; usize::from(number % 5)],
            &[number],
        ]
        .concat(),
    }
}

/// All versions of all keys, and who reads at what.
#[derive(Default)]
struct Model {
    /// Newest last.
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    applied: u64,
    horizon: Horizon,
}

impl Model {
    fn at(&self, key: &[u8], sequence: u64) -> Option<Version> {
        let versions = self.keys.get(key)?.iter().rev();
        let mut seen = versions.filter(|version| version.sequence <= sequence);
        seen.next()
            .copied()
            .filter(|version| !version.is_tombstone())
    }

    fn walk(
        &self,
        bounds: KeyBounds<'_>,
        backwards: bool,
        sequence: u64,
    ) -> Vec<(Vec<u8>, Version)> {
        if crate::index::is_empty(bounds) {
            return Vec::new();
        }
        let keys = self.keys.range::<[u8], _>(bounds);
        let seen = keys.filter_map(|(key, _)| Some((key.clone(), self.at(key, sequence)?)));
        let mut seen: Vec<_> = seen.collect();
        if backwards {
            seen.reverse();
        }
        seen
    }

    /// Something that is read at: what is visible, or pinned.
    fn reader(&self, number: u8) -> u64 {
        let pinned = &self.horizon.pinned;
        let visible = std::iter::once(self.horizon.visible);
        let all: Vec<u64> = visible.chain(pinned.iter().copied()).collect();
        all[usize::from(number) % all.len()]
    }

    /// Whether somebody reads the version of this number of `key`, or it is not visible yet; not
    /// if it is a tombstone, which may go with its key when all see it.
    fn must_be_there(&self, key: &[u8], sequence: u64) -> bool {
        let versions = &self.keys[key];
        let is_tombstone =
            |version: &Version| version.sequence == sequence && version.is_tombstone();
        if sequence <= self.horizon.oldest() && versions.iter().any(is_tombstone) {
            return false;
        }
        let seen_at = |reader| {
            let seen = versions
                .iter()
                .rev()
                .find(|version| version.sequence <= reader);
            seen.is_some_and(|version| version.sequence == sequence)
        };
        let mut pinned = self.horizon.pinned.iter();
        sequence > self.horizon.visible
            || seen_at(self.horizon.visible)
            || pinned.any(|&pinned| seen_at(pinned))
    }
}

fn walk(
    index: &Index,
    bounds: KeyBounds<'_>,
    backwards: bool,
    sequence: u64,
    limit: usize,
) -> Vec<(Vec<u8>, Version)> {
    let mut seen = Vec::new();
    index.walk(bounds, backwards, sequence, |key, version| {
        seen.push((key.to_vec(), version));
        seen.len() < limit
    });
    seen
}

fn apply(index: &Index, model: &mut Model, key: &[u8], is_tombstone: bool) -> Result<(), String> {
    model.applied += 1;
    let version = version(model.applied, is_tombstone);
    let versions = model.keys.entry(key.into()).or_default();
    let newest = versions.last().copied();
    versions.push(version);
    // A tombstone may be gone, with its key.
    let is_live = |version: &Version| !version.is_tombstone();
    let Put::Newest(before) = index.apply(key, version, &model.horizon) else {
        return Err(format!("{version:?} is taken for an old one"));
    };
    same("before", before.filter(is_live), newest.filter(is_live))
}

/// Does what `operation` says to both; what differed.
fn perform(index: &Index, model: &mut Model, operation: (u8, u8, u8)) -> Result<(), String> {
    let (what, a, b) = operation;
    let key_a = key(a);
    match what % 16 {
        0..6 => {
            apply(index, model, &key_a, b % 3 == 0)?;
            if b % 2 == 0 {
                model.horizon.visible = model.applied;
            }
        }
        6 => model.horizon.visible = model.applied,
        7 => {
            let now = model.horizon.visible;
            if let Err(at) = model.horizon.pinned.binary_search(&now) {
                model.horizon.pinned.insert(at, now);
            }
        }
        8 if !model.horizon.pinned.is_empty() => {
            let at = usize::from(a) % model.horizon.pinned.len();
            model.horizon.pinned.remove(at);
        }
        9 => while index.prune(&model.horizon, usize::from(b)) {},
        10 | 11 => {
            let known = model.keys.get(&key_a).map_or(&[][..], Vec::as_slice);
            let Some(at) = usize::from(b).checked_rem(known.len()) else {
                return Ok(());
            };
            let Version { sequence, location } = known[at];
            let younger = location.segment + 1 + u32::from(b);
            let to = Location::new(younger, 80, 1, location.value_bytes());
            let before = index.relocate(&key_a, sequence, to);
            if before.is_some() || model.must_be_there(&key_a, sequence) {
                let is_newest = at + 1 == known.len();
                same("relocated", before, Some((location, is_newest)))?;
                model.keys.get_mut(&key_a).unwrap()[at].location = to;
            }
        }
        12 => {
            let reader = model.reader(b);
            same("got", index.get(&key_a, reader), model.at(&key_a, reader))?;
            let visible = model.horizon.visible;
            let got = index.get_visible(&key_a, &AtomicU64::new(visible));
            same("got now", got, model.at(&key_a, visible))?;
        }
        _ => {
            let key_b = key(b);
            let bound = |number: u8, key| match number % 3 {
                0 => Bound::Unbounded,
                1 => Bound::Included(key),
                _ => Bound::Excluded(key),
            };
            let bounds = (bound(a / 4, &key_a[..]), bound(b / 4, &key_b[..]));
            let (backwards, reader) = (what > 127, model.reader(a ^ b));
            let limit = 1 + usize::from(what / 4);
            let mut expected = model.walk(bounds, backwards, reader);
            expected.truncate(limit);
            same(
                "walked",
                walk(index, bounds, backwards, reader, limit),
                expected,
            )?;
        }
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {expected:?}"))
}

/// What holds at the end, when nobody reads but now.
fn settle(index: &Index, model: &mut Model) -> Result<(), String> {
    model.horizon.visible = model.applied;
    model.horizon.pinned.clear();
    while index.prune(&model.horizon, 0) {}
    let all = (Bound::Unbounded, Bound::Unbounded);
    let expected = model.walk(all, false, model.applied);
    same("keys", index.keys(), expected.len() as u64)?;
    same(
        "walked",
        walk(index, all, false, model.applied, usize::MAX),
        expected,
    )?;
    same("waiting", index.lock_waiting().len(), 0)?;
    let dead = model
        .keys
        .keys()
        .filter(|key| model.at(key, model.applied).is_none());
    same(
        "dead keys",
        dead.filter_map(|key| index.points.count(key)).sum(),
        0,
    )
}

/// Checks `property` on random workloads of so many operations; `HAPPYSTORE_SEED=<seed>` makes others.
fn check<P: Testable>(operations: usize, property: P) {
    let seed = std::env::var("HAPPYSTORE_SEED").map_or(1, |seed| seed.parse().unwrap());
    eprintln!("to repeat this, set HAPPYSTORE_SEED={seed}");
    let workloads = Gen::from_size_and_seed(operations, seed);
    QuickCheck::new()
        .rng(workloads)
        .tests(WORKLOADS)
        .quickcheck(property);
}

fn behaves_like_the_model(operations: Vec<(u8, u8, u8)>) -> Result<(), String> {
    let (index, mut model) = (Index::of(SMALL), Model::default());
    for operation in operations {
        perform(&index, &mut model, operation)?;
    }
    settle(&index, &mut model)
}

#[test]
fn whatever_is_done_to_it_the_index_shows_what_the_model_shows() {
    check(
        3000,
        behaves_like_the_model as fn(Vec<(u8, u8, u8)>) -> Result<(), String>,
    );
}

/// Whatever the order, the newest version of each key is what a replay leaves.
fn replays_in_any_order(versions: Vec<(u8, u16, bool)>) -> Result<(), String> {
    let (index, mut model) = (Index::of(SMALL), Model::default());
    for (number, sequence, is_tombstone) in versions {
        let sequence = u64::from(sequence);
        let key = key(number);
        let versions = model.keys.entry(key.clone()).or_default();
        if versions.iter().any(|version| version.sequence == sequence) {
            continue;
        }
        let version = version(sequence, is_tombstone);
        let newest = versions.last().copied();
        let is_newest = newest.is_none_or(|newest| newest.sequence < sequence);
        let expected = if is_newest {
            Put::Newest(newest)
        } else {
            Put::TooOld
        };
        same("replayed", index.replay(&key, version), expected)?;
        versions.push(version);
        versions.sort_by_key(|version| version.sequence);
        model.applied = model.applied.max(sequence);
    }
    settle(&index, &mut model)
}

#[test]
fn a_replay_leaves_the_newest_versions_in_whatever_order_they_come() {
    check(
        600,
        replays_in_any_order as fn(Vec<(u8, u16, bool)>) -> Result<(), String>,
    );
}

fn loads_and_goes_on(loaded: Vec<u8>, operations: Vec<(u8, u8, u8)>) -> Result<(), String> {
    let (index, mut model) = (Index::of(SMALL), Model::default());
    for number in loaded {
        model.applied += 1;
        let version = version(model.applied, false);
        model.keys.insert(key(number), vec![version]);
    }
    let keys = model.keys.iter().map(|(key, versions)| (key, versions[0]));
    let keys: Vec<_> = keys.collect();
    // In any order of the pages, as when parts are loaded side by side.
    keys.chunks(16).rev().for_each(|page| index.load(page));
    model.horizon.visible = model.applied;
    for operation in operations {
        perform(&index, &mut model, operation)?;
    }
    settle(&index, &mut model)
}

#[test]
fn an_index_that_was_loaded_is_like_any_other() {
    check(
        1000,
        loads_and_goes_on as fn(Vec<u8>, Vec<(u8, u8, u8)>) -> Result<(), String>,
    );
}

#[test]
fn what_an_ended_snapshot_saw_is_dropped_though_the_key_was_overwritten_meanwhile() {
    let index = Index::of(SMALL);
    let at = |visible, pinned: &[u64]| Horizon {
        visible,
        pinned: pinned.to_vec(),
    };
    let apply = |sequence, horizon: Horizon| {
        index.apply(b"a", version(sequence, false), &horizon);
    };
    apply(10, at(9, &[]));
    apply(20, at(10, &[10]));
    apply(30, at(20, &[10]));
    let waiting_bytes = index.memory_bytes();
    apply(40, at(30, &[10, 30]));
    assert_eq!(index.points.count(b"a"), Some(3));
    assert_eq!(index.memory_bytes(), waiting_bytes, "it waits once");
    index.prune(&at(40, &[30]), 0);
    assert_eq!(index.points.count(b"a"), Some(2));
    assert_eq!(index.memory_bytes(), waiting_bytes, "and goes on waiting");
    index.prune(&at(40, &[]), 0);
    assert_eq!(index.points.count(b"a"), Some(1));
    assert!(index.memory_bytes() < waiting_bytes);
}

#[test]
fn many_versions_that_a_snapshot_held_give_their_memory_back() {
    let index = Index::new();
    let keys: Vec<Vec<u8>> = (0..5000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let loaded: Vec<_> = keys.iter().map(|key| (key, version(1, false))).collect();
    loaded.chunks(16).for_each(|page| index.load(page));
    let mut horizon = Horizon {
        visible: 1,
        pinned: vec![1],
    };
    let few = index.memory_bytes();
    for sequence in 2..5 {
        for key in &keys {
            index.apply(key, version(sequence, false), &horizon);
        }
        horizon.visible = sequence;
        horizon.pinned.push(sequence);
    }
    let many = index.memory_bytes();
    assert!(many > few + 5000 * 3 * 24, "{few} bytes, then {many}");
    horizon.pinned.clear();
    while index.prune(&horizon, 0) {}
    let left = index.memory_bytes();
    assert!(
        left < few + few / 10,
        "{few} bytes, {many} bytes, then {left}"
    );
    assert_eq!(index.get(&keys[7], 4).unwrap().sequence, 4);
}

#[test]
fn keys_that_are_gone_give_their_memory_back() {
    let index = Index::new();
    let empty = index.memory_bytes();
    let keys: Vec<Vec<u8>> = (0..5000_u32)
        .map(|n| format!("{n:0100}").into_bytes())
        .collect();
    let loaded: Vec<_> = keys.iter().map(|key| (key, version(1, false))).collect();
    loaded.chunks(16).for_each(|page| index.load(page));
    let full = index.memory_bytes();
    let horizon = Horizon {
        visible: 2,
        pinned: Vec::new(),
    };
    for key in &keys {
        index.apply(key, version(2, true), &horizon);
    }
    while index.prune(&horizon, 0) {}
    let left = index.memory_bytes() - empty;
    assert!(left * 5 < full, "{full} bytes, then {left}");
    assert_eq!(index.keys(), 0);
}

#[test]
fn nothing_is_moved_back_to_an_older_segment() {
    let index = Index::of(SMALL);
    let horizon = Horizon {
        visible: 0,
        pinned: vec![],
    };
    let at = |segment| Location::new(segment, 64, 0, Some(0));
    for sequence in [1, 2] {
        let location = at(u32::try_from(sequence).unwrap());
        index.apply(b"a", Version { sequence, location }, &horizon);
    }
    for (sequence, is_newest) in [(1, false), (2, true)] {
        let first = at(u32::try_from(sequence).unwrap());
        assert_eq!(
            index.relocate(b"a", sequence, at(9)),
            Some((first, is_newest))
        );
        assert_eq!(index.relocate(b"a", sequence, at(9)), None);
        assert_eq!(index.relocate(b"a", sequence, at(5)), None);
    }
}
