//! One thread: sets, gets, ranges, memory, disk and opening, the same for every store.
//!
//! Keys and operations are made before the clock starts; the empty run says what walking through
//! them takes. Values are checked after they were written, and all are counted by the scan.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use crate::asked::Plan;
use crate::figures::Figures;
use crate::pairs::{PAIR_BYTES, Pair, mix, pair};
use crate::stores::{Class, Kind, Peer};

pub const SETS: &str = "single sets /s";
pub const OVERWRITES: &str = "single overwrites /s";
pub const BATCHES: &str = "batches of 1,000, sets /s";
pub const HIT: &str = "get, hit /s";
pub const MISS: &str = "get, miss /s";
pub const RANGE: &str = "range of 100, entries /s";
pub const SCAN: &str = "scan of everything, entries /s";

/// The rows in which commits are of [`Class::Kill`].
pub const KILL_ROWS: [&str; 3] = [SETS, OVERWRITES, BATCHES];

/// Times `work` on every item of `items`; operations a second.
fn rate<T>(items: &[T], mut work: impl FnMut(&T)) -> f64 {
    let begun = Instant::now();
    for item in items {
        work(item);
    }
    items.len() as f64 / begun.elapsed().as_secs_f64()
}

/// Runs the whole part on one store.
pub fn run(kind: &Kind, plan: &Plan) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let directory = plan.fresh_directory()?;
    let pairs: Vec<Pair> = (0..plan.keys).map(|number| pair(number, 0)).collect();
    let any = (0..plan.keys / 2).map(|number| mix(number) % plan.keys);
    let again: Vec<Pair> = any.clone().map(|number| pair(number, 1)).collect();
    let missing: Vec<Pair> = any.map(|number| pair(plan.keys + number, 0)).collect();
    let harness_bytes = anonymous_bytes();

    let mut peer = (kind.open)(directory.path(), Class::Kill);
    writes(peer.as_mut(), &pairs, &again, &mut figures);
    gets(peer.as_mut(), &again, &missing, &mut figures);
    walks(peer.as_mut(), &again, plan.keys, &mut figures);
    let bytes_a_key = (anonymous_bytes() - harness_bytes) / plan.keys as f64;
    figures.add("anonymous memory, bytes a key", bytes_a_key);
    drop(peer);

    let live_bytes = plan.keys * PAIR_BYTES;
    let disk = disk_bytes(directory.path()) / live_bytes as f64;
    figures.add("disk, bytes for a live byte", disk);
    let begun = Instant::now();
    let mut peer = (kind.open)(directory.path(), Class::Kill);
    assert!(peer.get(&again[0].0).is_some());
    let opening = begun.elapsed().as_secs_f64();
    figures.add("opening takes, after a clean close", opening);
    drop(peer);

    batches(kind, plan, &pairs[..pairs.len() / 2], &mut figures)?;
    Ok(figures)
}

fn writes(peer: &mut dyn Peer, pairs: &[Pair], again: &[Pair], figures: &mut Figures) {
    let empty = rate(pairs, |pair| {
        black_box(*pair);
    });
    figures.add("empty run /s", empty);
    let sets = rate(pairs, |(key, value)| peer.set(key, value));
    figures.add(SETS, sets);
    let overwrites = rate(again, |(key, value)| peer.set(key, value));
    figures.add(OVERWRITES, overwrites);
    check(peer, again);
}

fn gets(peer: &mut dyn Peer, again: &[Pair], missing: &[Pair], figures: &mut Figures) {
    let hits = rate(again, |(key, _)| {
        black_box(peer.get(key).expect("it is there"));
    });
    figures.add(HIT, hits);
    let misses = rate(missing, |(key, _)| assert!(peer.get(key).is_none()));
    figures.add(MISS, misses);
}

fn walks(peer: &mut dyn Peer, again: &[Pair], keys: u64, figures: &mut Figures) {
    let starts = &again[..again.len().min(5_000)];
    let mut entries = 0;
    let ranges = rate(starts, |(key, _)| entries += peer.range(key, 100).0);
    figures.add(RANGE, ranges * entries as f64 / starts.len() as f64);
    let scan = rate(&[()], |()| {
        let (count, bytes) = peer.range(&[], usize::MAX);
        assert_eq!((count as u64, bytes as u64), (keys, keys * 150));
    });
    figures.add(SCAN, scan * keys as f64);
}

fn batches(kind: &Kind, plan: &Plan, pairs: &[Pair], figures: &mut Figures) -> Result<(), String> {
    let directory = plan.fresh_directory()?;
    let mut peer = (kind.open)(directory.path(), Class::Kill);
    let batches: Vec<&[Pair]> = pairs.chunks(1000).collect();
    let batches_a_second = rate(&batches, |batch| peer.set_batch(batch));
    let sets = batches_a_second * pairs.len() as f64 / batches.len() as f64;
    figures.add(BATCHES, sets);
    check(peer.as_mut(), pairs);
    Ok(())
}

/// The values that were written last are what is read.
fn check(peer: &mut dyn Peer, pairs: &[Pair]) {
    for (key, value) in pairs.iter().step_by(17) {
        assert_eq!(peer.get(key).as_deref(), Some(&value[..]));
    }
}

/// Memory of this process that no file backs, in bytes.
fn anonymous_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// Blocks that the files in and below `directory` take, in bytes.
fn disk_bytes(directory: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() as f64 * 512.0,
        Err(_) => 0.0,
    });
    bytes.sum()
}
