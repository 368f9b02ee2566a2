//! What does one key cost? Sets, overwrites, gets and misses on a million keys.
//!
//! `cargo bench --bench points`

mod support;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use support::{BytesStore, key, key_count, loaded, mix, open, value};
use tempfile::TempDir;

static STORE: LazyLock<(TempDir, BytesStore)> = LazyLock::new(loaded);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() {
    divan::main();
}

/// A number below the count of keys, another one each time.
fn any() -> u64 {
    mix(NEXT.fetch_add(1, Ordering::Relaxed)) % key_count()
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn set_new_keys_os(bencher: Bencher<'_, '_>) {
    bencher
        .counter(divan::counter::ItemsCount::new(key_count()))
        .with_inputs(|| {
            let directory = tempfile::tempdir().expect("a temporary directory can be made");
            let store = open(&directory);
            (directory, store)
        })
        .bench_local_refs(|(_, store)| {
            for number in 0..key_count() {
                store
                    .set(&key(number), &value(number, 0))
                    .expect("a set succeeds");
            }
        });
}

#[divan::bench(sample_count = 20, sample_size = 10_000)]
fn overwrite_os(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(1_u32))
        .with_inputs(|| {
            let number = any();
            (key(number), value(number, 1))
        })
        .bench_local_refs(|(key, value)| store.set(&*key, value).expect("a set succeeds"));
}

#[divan::bench(sample_count = 20, sample_size = 10_000)]
fn get_hit(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(1_u32))
        .with_inputs(|| key(any()))
        .bench_local_refs(|key| {
            store
                .get(&*key)
                .expect("a get succeeds")
                .expect("it is there")
        });
}

#[divan::bench(sample_count = 20, sample_size = 10_000)]
fn get_miss(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(1_u32))
        .with_inputs(|| key(key_count() + any()))
        .bench_local_refs(|key| store.get(&*key).expect("a get succeeds").is_none());
}

#[divan::bench(sample_count = 20, sample_size = 10_000)]
fn has(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(1_u32))
        .with_inputs(|| key(any()))
        .bench_local_refs(|key| store.has(&*key).expect("a has succeeds"));
}
