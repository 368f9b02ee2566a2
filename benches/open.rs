//! What does opening cost? A million keys after a clean close, all finished segments with their hints.
//!
//! `cargo bench --bench open`

mod support;

use std::sync::LazyLock;

use divan::Bencher;
use support::{key_count, loaded, open, wait_for_rest};
use tempfile::TempDir;

static CLOSED: LazyLock<TempDir> = LazyLock::new(|| {
    let (directory, store) = loaded();
    wait_for_rest(&store);
    store.close().expect("a store closes");
    directory
});

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn reopen_after_a_clean_close(bencher: Bencher<'_, '_>) {
    let directory = &*CLOSED;
    bencher
        .counter(divan::counter::ItemsCount::new(key_count()))
        .bench_local(|| open(directory).stats().expect("figures are there").keys);
}
