//! What the benchmarks have in common: keys, values, a loaded store.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "each benchmark uses a part of this, on the real machine"
)]

use std::time::Duration;

use happystore::{CompactionState, Durability, Options, Raw, Store};
use tempfile::TempDir;

/// How many keys a loaded store has: 1,000,000, or as `HAPPYSTORE_BENCH_KEYS` says.
pub fn key_count() -> u64 {
    let asked = std::env::var("HAPPYSTORE_BENCH_KEYS").ok();
    asked
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000)
}

/// Spreads numbers over all 64 bits, so that neighbours are not neighbours (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A key of 24 bytes; numbers from [`key_count`] upwards make keys that are missing.
pub fn key(number: u64) -> [u8; 24] {
    let mut key = *b"key/0000000000000000/abc";
    let digits = format!("{:016x}", mix(number));
    key[4..20].copy_from_slice(digits.as_bytes());
    key
}

/// A value of 150 bytes, different for each key and round.
pub fn value(number: u64, round: u64) -> [u8; 150] {
    let mut value = [0; 150];
    for (at, piece) in value.chunks_mut(8).enumerate() {
        let word = mix(number ^ (round << 40) ^ ((at as u64) << 52)).to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    value
}

pub type BytesStore = Store<Raw, [u8]>;

/// Opens a store the way the benchmarks do: raw values, byte keys, `Os` durability.
pub fn open(directory: &TempDir) -> BytesStore {
    Options::new()
        .serializer(Raw)
        .byte_keys()
        .durability(Durability::Os)
        .open(directory.path())
        .expect("a fresh directory opens")
}

/// A store with [`key_count`] keys, set one by one in random order.
pub fn loaded() -> (TempDir, BytesStore) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let store = open(&directory);
    for number in 0..key_count() {
        store
            .set(&key(number), &value(number, 0))
            .expect("a set succeeds");
    }
    (directory, store)
}

/// Waits until compaction has nothing to do for a while: all finished segments have hints.
pub fn wait_for_rest(store: &BytesStore) {
    let mut idle = 0;
    while idle < 20 {
        std::thread::sleep(Duration::from_millis(100));
        let state = store.stats().expect("it has figures").compaction;
        idle = if state == CompactionState::Idle {
            idle + 1
        } else {
            0
        };
    }
}
