//! What does the index alone cost? Insertions, loads, lookups and walks of a million keys, no log.
//!
//! The files are those that the library is built from. `cargo bench --bench index`
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a benchmark uses a part of this"
)]

mod support;

#[allow(
    dead_code,
    unused_imports,
    reason = "this asks for less than the library does"
)]
#[path = "../src/index/mod.rs"]
mod index;

/// What the index knows of its neighbours.
#[path = "."]
mod log {
    #[path = "../src/log/location.rs"]
    pub(crate) mod location;
}

mod format {
    pub(crate) mod checksum {
        pub(crate) struct Stamp {
            pub(crate) sequence: u64,
            pub(crate) epoch: u32,
        }
    }
    pub(crate) mod record {
        pub(crate) const ENTRY_HEADER_BYTES: u32 = 12;
    }
}

use std::hint::black_box;
use std::ops::Bound;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use index::{Horizon, Index};

/// How many keys are loaded at once.
const PAGE_KEYS: usize = 16 << 10;
use log::location::{Location, Version};
use support::{key, key_count, mix};

static KEYS: LazyLock<Vec<[u8; 24]>> = LazyLock::new(|| (0..key_count()).map(key).collect());
static SORTED: LazyLock<Vec<[u8; 24]>> = LazyLock::new(|| {
    let mut keys = KEYS.clone();
    keys.sort_unstable();
    keys
});
static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let index = Index::new();
    apply_all(&index, &KEYS, 0);
    index
});
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() {
    divan::main();
}

fn version(sequence: u64) -> Version {
    Version {
        sequence,
        location: Location::new(1, 64, 0, Some(150)),
    }
}

/// Applies `keys` as so many commits of one key, from the sequence number `base` on.
fn apply_all(index: &Index, keys: &[[u8; 24]], base: u64) {
    for (sequence, key) in (base + 1..).zip(keys) {
        let horizon = Horizon {
            visible: sequence - 1,
            pinned: Vec::new(),
        };
        index.apply(key, version(sequence), &horizon);
    }
}

fn any() -> &'static [u8; 24] {
    let number = mix(NEXT.fetch_add(1, Ordering::Relaxed)) % key_count();
    &KEYS[usize::try_from(number).unwrap_or(0)]
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn apply_new_keys(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(KEYS.len()))
        .with_inputs(Index::new)
        .bench_local_refs(|index| apply_all(index, &KEYS, 0));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn apply_new_keys_in_order(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(SORTED.len()))
        .with_inputs(Index::new)
        .bench_local_refs(|index| apply_all(index, &SORTED, 0));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn replay_new_keys(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(KEYS.len()))
        .with_inputs(Index::new)
        .bench_local_refs(|index| {
            for (sequence, key) in (1..).zip(KEYS.iter()) {
                index.replay(key, version(sequence));
            }
        });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn load_keys_in_order(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(SORTED.len()))
        .with_inputs(Index::new)
        .bench_local_refs(|index| {
            index.reserve(SORTED.len());
            for page in SORTED.chunks(PAGE_KEYS) {
                let page: Vec<_> = page.iter().map(|key| (key, version(1))).collect();
                index.load(&page);
            }
        });
}

#[divan::bench(sample_count = 20, sample_size = 20_000)]
fn overwrite(bencher: Bencher<'_, '_>) {
    let index = &*INDEX;
    let mut sequence = 2 * key_count();
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(any)
        .bench_local_values(|key| {
            sequence += 1;
            let horizon = Horizon {
                visible: sequence - 1,
                pinned: Vec::new(),
            };
            index.apply(key, version(sequence), &horizon)
        });
}

#[divan::bench(sample_count = 20, sample_size = 20_000)]
fn get(bencher: Bencher<'_, '_>) {
    let index = &*INDEX;
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(any)
        .bench_local_values(|key| index.get(key, u64::MAX));
}

#[divan::bench(sample_count = 20, sample_size = 500, args = [false, true])]
fn walk_100(bencher: Bencher<'_, '_>, backwards: bool) {
    let index = &*INDEX;
    bencher
        .counter(ItemsCount::new(100_u32))
        .with_inputs(any)
        .bench_local_values(|key| {
            let mut left = 100;
            let bounds = if backwards {
                (Bound::Unbounded, Bound::Excluded(&key[..]))
            } else {
                (Bound::Included(&key[..]), Bound::Unbounded)
            };
            index.walk(bounds, backwards, u64::MAX, |key, version| {
                black_box((key, version));
                left -= 1;
                left > 0
            });
        });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn walk_all(bencher: Bencher<'_, '_>) {
    let index = &*INDEX;
    bencher
        .counter(ItemsCount::new(KEYS.len()))
        .bench_local(|| {
            let mut count = 0_u64;
            let all = (Bound::Unbounded, Bound::Unbounded);
            index.walk(all, false, u64::MAX, |key, version| {
                black_box((key, version));
                count += 1;
                true
            });
            assert!(count >= key_count());
        });
}

/// No time: what [`Index::memory_bytes`] and the machine say that a key takes.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn memory(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| {
        let before = anonymous_bytes();
        let index = Index::new();
        apply_all(&index, &KEYS, 0);
        let (says, took) = (index.memory_bytes(), anonymous_bytes() - before);
        eprintln!(
            "bytes a key: {} by its own count, {} of this process",
            says / key_count(),
            took / key_count()
        );
    });
}

/// Memory of this process that no file backs.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0_u64) * 1024
}
