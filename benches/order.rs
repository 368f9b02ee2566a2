//! What does order cost? Ranges of a hundred, and a scan of everything, on a million keys.
//!
//! `cargo bench --bench order`

mod support;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use support::{BytesStore, key, key_count, loaded, mix};
use tempfile::TempDir;

static STORE: LazyLock<(TempDir, BytesStore)> = LazyLock::new(loaded);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 20, sample_size = 200)]
fn range_of_100(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(100_u32))
        .with_inputs(|| key(mix(NEXT.fetch_add(1, Ordering::Relaxed)) % key_count()))
        .bench_local_refs(|start| {
            let query = store.query().range(&start[..]..).limit(100);
            query.pairs::<Vec<u8>>().expect("a query succeeds").len()
        });
}

#[divan::bench(sample_count = 20, sample_size = 200)]
fn range_of_100_reversed(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(100_u32))
        .with_inputs(|| key(mix(NEXT.fetch_add(1, Ordering::Relaxed)) % key_count()))
        .bench_local_refs(|start| {
            let query = store.query().range(..&start[..]).reverse().limit(100);
            query.pairs::<Vec<u8>>().expect("a query succeeds").len()
        });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn scan_of_everything(bencher: Bencher<'_, '_>) {
    let store = &STORE.1;
    bencher
        .counter(divan::counter::ItemsCount::new(key_count()))
        .bench_local(|| {
            let pairs = store
                .scan()
                .page_size(500)
                .iter::<Vec<u8>>()
                .expect("a scan begins");
            pairs
                .map(|pair| pair.expect("a pair is read").1.len())
                .sum::<usize>()
        });
}
