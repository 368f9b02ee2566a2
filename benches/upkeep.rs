//! What does looking after a store cost? Scans before and after compaction, space under a steady
//! overwrite, sets while it is compacted, and opening.
//!
//! `cargo bench --bench upkeep`; with `HAPPYSTORE_BENCH_KEYS=5000000` for more keys, and
//! `HAPPYSTORE_BENCH_SECONDS=60` for a longer overwrite.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "a benchmark looks at the real machine, and its figures are not exact"
)]

mod support;

use std::time::{Duration, Instant};

use happystore::{Compaction, Durability, Options, Raw};
use support::{BytesStore, key, key_count, mix, value, wait_for_rest};
use tempfile::TempDir;

/// How long sets go on in each part.
fn seconds() -> u64 {
    let asked = std::env::var("HAPPYSTORE_BENCH_SECONDS").ok();
    asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(10)
}

fn open(directory: &TempDir, compaction: Compaction) -> BytesStore {
    Options::new()
        .serializer(Raw)
        .byte_keys()
        .durability(Durability::Os)
        .compaction(compaction)
        .open(directory.path())
        .expect("the directory opens")
}

/// The bytes that the files of a store take on the disk.
fn disk_bytes(directory: &TempDir) -> u64 {
    let files = std::fs::read_dir(directory.path()).expect("it can be listed");
    let lens = files.filter_map(|file| file.ok()?.metadata().ok().map(|data| data.len()));
    lens.sum()
}

/// Entries a second of a scan of everything, and of ranges of a hundred.
fn scan(store: &BytesStore) -> (f64, f64) {
    let begun = Instant::now();
    let all = store.scan().page_size(1000).iter::<Vec<u8>>();
    let mut count = 0;
    for pair in all.expect("a scan begins") {
        pair.expect("it is whole");
        count += 1;
    }
    let count = f64::from(count);
    let whole = count / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for number in 0..2000 {
        let start = key(mix(number) % key_count());
        let query = store.query().range(&start[..]..).limit(100);
        query.pairs::<Vec<u8>>().expect("a query succeeds");
    }
    (whole, 200_000.0 / begun.elapsed().as_secs_f64())
}

/// Entries a second of the first of a scan, with nothing of the values in the machine's memory. `None`
/// where this process may not empty that.
fn scan_cold(directory: &TempDir) -> Option<f64> {
    let store = open(directory, Compaction::manual());
    let synced = std::process::Command::new("sync").status();
    if !synced.is_ok_and(|status| status.success())
        || std::fs::write("/proc/sys/vm/drop_caches", "3").is_err()
    {
        return None;
    }
    let begun = Instant::now();
    let pairs = store.query().limit(20_000).pairs::<Vec<u8>>();
    let count = pairs.expect("a query succeeds").len() as f64;
    let rate = count / begun.elapsed().as_secs_f64();
    store.close().expect("it closes");
    Some(rate)
}

/// Says how fast a scan from the disk was.
fn tell_cold(what: &str, rate: Option<f64>) {
    match rate {
        Some(rate) => {
            println!("{what}, from the disk: the first 20,000 of a scan {rate:.0} entries/s");
        }
        None => {
            println!("SKIPPED: {what}, from the disk: only root may empty the machine's memory");
        }
    }
}

/// Overwrites random keys for a while: sets a second, the times one took (p50, p99, p99.9, max), and
/// the space for each live byte, each second.
fn overwrite(
    store: &BytesStore,
    directory: &TempDir,
    round: u64,
) -> (f64, [Duration; 4], Vec<f64>) {
    let begun = Instant::now();
    let length = Duration::from_secs(seconds());
    let mut times: Vec<u32> = Vec::with_capacity(1 << 24);
    let mut space = Vec::new();
    for number in 0.. {
        let at = mix(number ^ round << 32) % key_count();
        let (key, value) = (key(at), value(at, number));
        let before = Instant::now();
        store.set(&key, &value).expect("a set succeeds");
        times.push(u32::try_from(before.elapsed().as_nanos()).unwrap_or(u32::MAX));
        if number % 4096 == 0 {
            let seconds = space.len() as u64;
            if begun.elapsed() >= Duration::from_secs(seconds) {
                let live = store.stats().expect("it has figures").live_bytes;
                space.push(disk_bytes(directory) as f64 / live.max(1) as f64);
            }
            if begun.elapsed() >= length {
                break;
            }
        }
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        Duration::from_nanos(u64::from(times[place.min(times.len() - 1)]))
    };
    (rate, [at(0.5), at(0.99), at(0.999), at(1.0)], space)
}

fn opening(directory: &TempDir) -> Duration {
    let begun = Instant::now();
    let store = open(directory, Compaction::manual());
    let took = begun.elapsed();
    assert!(store.stats().expect("it has figures").keys > 0);
    took
}

/// The directory as a process leaves it that is killed: copied while the store is open.
fn killed(directory: &TempDir) -> TempDir {
    let store = open(directory, Compaction::manual());
    let copy = tempfile::tempdir().expect("a temporary directory can be made");
    for number in 0..100_000 {
        store
            .set(&key(number), &value(number, 9))
            .expect("a set succeeds");
    }
    for file in std::fs::read_dir(directory.path()).expect("it can be listed") {
        let file = file.expect("it can be listed");
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("it can be copied");
    }
    copy
}

/// Scans before and after a compaction.
fn compaction(directory: &TempDir) {
    let store = open(directory, Compaction::manual());
    let (whole, ranges) = scan(&store);
    println!("before compaction: scan {whole:.0} entries/s, ranges of 100 {ranges:.0} entries/s");
    store.close().expect("it closes");
    let cold = scan_cold(directory);
    tell_cold("before compaction", cold);
    let store = open(directory, Compaction::manual());
    let begun = Instant::now();
    let report = store.compact().expect("it is compacted");
    let took = begun.elapsed().as_secs_f64();
    let rate = report.bytes_before as f64 / took / 1e6;
    println!("compaction: {took:.2} s, {rate:.0} MB/s");
    let (whole_after, ranges_after) = scan(&store);
    let (all, some) = (whole_after / whole, ranges_after / ranges);
    println!(
        "after it: scan {whole_after:.0} entries/s ({all:.2}), ranges {ranges_after:.0} ({some:.2})"
    );
    store.close().expect("it closes");
    let cold_after = scan_cold(directory);
    tell_cold("after it", cold_after);
    if let (Some(before), Some(after)) = (cold, cold_after) {
        println!("  in proportion: {:.2}", after / before);
    }
}

fn main() {
    let keys = key_count();
    println!("{keys} keys of 24 B, values of 150 B, set in random order; sets survive a kill");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let store = open(&directory, Compaction::automatic());
    for number in 0..keys {
        store
            .set(&key(number), &value(number, 0))
            .expect("a set succeeds");
    }
    wait_for_rest(&store);
    store.close().expect("it closes");
    compaction(&directory);
    let store = open(&directory, Compaction::manual());
    let mut rates = Vec::new();
    for (round, what) in [(1, "without compaction"), (2, "with it")] {
        if round == 2 {
            store.clone().close().expect("it closes");
        }
        let again;
        let store = if round == 1 {
            &store
        } else {
            again = open(&directory, Compaction::automatic());
            wait_for_rest(&again);
            &again
        };
        let (rate, [p50, p99, p999, max], space) = overwrite(store, &directory, round);
        println!(
            "overwrites {what}: {rate:.0}/s, p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}, max {max:?}"
        );
        let space: Vec<String> = space.iter().map(|space| format!("{space:.2}")).collect();
        println!(
            "  disk bytes for each live byte, each second: {}",
            space.join(" ")
        );
        rates.push((rate, p999));
    }
    let (rate, p999) = (
        rates[1].0 / rates[0].0,
        rates[1].1.as_secs_f64() / rates[0].1.as_secs_f64(),
    );
    println!("with it, of without: rate {rate:.2}, p99.9 {p999:.2}");
    let store = open(&directory, Compaction::automatic());
    wait_for_rest(&store);
    store.close().expect("it closes");
    println!("open after a clean close: {:?}", opening(&directory));
    let copy = killed(&directory);
    println!(
        "open after a kill, with 100,000 sets behind: {:?}",
        opening(&copy)
    );
}
