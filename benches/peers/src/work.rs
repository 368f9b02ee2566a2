//! The work that is timed, the same for every store.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use crate::stores::{Class, Peer, open};

/// How much work.
pub struct Plan {
    /// How many keys are loaded.
    pub keys: u64,
}

/// What came out: operations a second, unless the row says otherwise.
pub struct Figures {
    pub rows: Vec<(String, f64)>,
}

impl Figures {
    pub fn to_lines(&self) -> String {
        self.rows
            .iter()
            .map(|(name, value)| format!("{name}\t{value}\n"))
            .collect()
    }

    pub fn from_lines(lines: &str) -> Result<Self, String> {
        let row = |line: &str| {
            let (name, value) = line.split_once('\t').ok_or("a line without a figure")?;
            Ok((
                name.to_owned(),
                value.parse::<f64>().map_err(|error| error.to_string())?,
            ))
        };
        Ok(Self {
            rows: lines.lines().map(row).collect::<Result<_, String>>()?,
        })
    }
}

/// A figure as people read it.
pub fn show(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0} k", value / 1e3)
    } else if value >= 1e3 {
        format!("{:.1} k", value / 1e3)
    } else if value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

type Pair = ([u8; 24], [u8; 150]);

/// Spreads numbers over all 64 bits (splitmix64).
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn pair(number: u64, round: u64) -> Pair {
    let mut key = *b"key/0000000000000000/abc";
    key[4..20].copy_from_slice(format!("{:016x}", mix(number)).as_bytes());
    let mut value = [0; 150];
    for (at, piece) in value.chunks_mut(8).enumerate() {
        let word = mix(number ^ (round << 40) ^ ((at as u64) << 52)).to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    (key, value)
}

/// Times `work` on every item of `items`; operations a second.
fn rate<T>(items: &[T], mut work: impl FnMut(&T)) -> f64 {
    let begun = Instant::now();
    for item in items {
        work(item);
    }
    items.len() as f64 / begun.elapsed().as_secs_f64()
}

/// Runs everything on the store `name`.
pub fn run(name: &str, plan: &Plan) -> Result<Figures, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    kill_class(name, plan, directory.path(), &mut rows)?;
    batches(name, plan, &mut rows)?;
    durable(name, &mut rows)?;
    Ok(Figures { rows })
}

fn kill_class(
    name: &str,
    plan: &Plan,
    directory: &Path,
    rows: &mut Vec<(String, f64)>,
) -> Result<(), String> {
    let mut row = |what: &str, value: f64| rows.push((what.to_owned(), value));
    let pairs: Vec<Pair> = (0..plan.keys).map(|number| pair(number, 0)).collect();
    let any: Vec<u64> = (0..plan.keys / 2)
        .map(|number| mix(number) % plan.keys)
        .collect();
    let again: Vec<Pair> = any.iter().map(|&number| pair(number, 1)).collect();
    let missing: Vec<Pair> = any
        .iter()
        .map(|&number| pair(plan.keys + number, 0))
        .collect();
    let harness_bytes = anonymous_bytes();
    let mut peer = open(name, directory, Class::Kill)?;
    row(
        "empty run /s",
        rate(&pairs, |pair| {
            black_box(pair);
        }),
    );
    row(
        "single sets /s",
        rate(&pairs, |(key, value)| peer.set(key, value)),
    );
    row(
        "single overwrites /s",
        rate(&again, |(key, value)| peer.set(key, value)),
    );
    check(peer.as_mut(), &again);
    row(
        "get, hit /s",
        rate(&again, |(key, _)| {
            black_box(peer.get(key).expect("it is there"));
        }),
    );
    row(
        "get, miss /s",
        rate(&missing, |(key, _)| assert!(peer.get(key).is_none())),
    );
    let starts = &again[..again.len().min(5_000)];
    let mut entries = 0;
    let ranges = rate(starts, |(key, _)| entries += peer.range(key, 100).0);
    row(
        "range of 100, entries /s",
        ranges * entries as f64 / starts.len() as f64,
    );
    let scan = rate(&[()], |()| {
        let (count, bytes) = peer.range(&[], usize::MAX);
        assert_eq!((count as u64, bytes as u64), (plan.keys, plan.keys * 150));
    });
    row("scan of everything, entries /s", scan * plan.keys as f64);
    row(
        "anonymous memory, bytes a key",
        (anonymous_bytes() - harness_bytes) / plan.keys as f64,
    );
    drop(peer);
    row(
        "disk, bytes for a live byte",
        disk_bytes(directory) / (plan.keys * 174) as f64,
    );
    let begun = Instant::now();
    let mut peer = open(name, directory, Class::Kill)?;
    assert!(peer.get(&again[0].0).is_some());
    row(
        "open after a clean close, ms",
        begun.elapsed().as_secs_f64() * 1e3,
    );
    Ok(())
}

/// The values that were written last are what is read.
fn check(peer: &mut dyn Peer, pairs: &[Pair]) {
    for (key, value) in pairs.iter().step_by(17) {
        assert_eq!(peer.get(key).as_deref(), Some(&value[..]));
    }
}

fn batches(name: &str, plan: &Plan, rows: &mut Vec<(String, f64)>) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut peer = open(name, directory.path(), Class::Kill)?;
    let pairs: Vec<Pair> = (0..plan.keys / 2).map(|number| pair(number, 0)).collect();
    let batches: Vec<&[Pair]> = pairs.chunks(1000).collect();
    let batches_a_second = rate(&batches, |batch| peer.set_batch(batch));
    rows.push((
        "batches of 1,000, sets /s".to_owned(),
        batches_a_second * 1000.0,
    ));
    Ok(())
}

fn durable(name: &str, rows: &mut Vec<(String, f64)>) -> Result<(), String> {
    const COUNT: u64 = 2_000;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut peer = open(name, directory.path(), Class::Power)?;
    let pairs: Vec<Pair> = (0..COUNT).map(|number| pair(number, 0)).collect();
    let sets = rate(&pairs, |(key, value)| peer.set(key, value));
    rows.push(("durable sets, 1 thread /s".to_owned(), sets));
    rows.push((
        "raw fdatasync loop /s".to_owned(),
        raw_syncs(directory.path(), &pairs)?,
    ));
    Ok(())
}

/// The bound of durable sets: a write into allocated space and an fdatasync, again and again.
fn raw_syncs(directory: &Path, pairs: &[Pair]) -> Result<f64, String> {
    use std::io::{Seek, SeekFrom, Write};
    let say = |error: std::io::Error| error.to_string();
    let mut file = std::fs::File::create(directory.join("raw")).map_err(say)?;
    file.write_all(&vec![1; pairs.len() * 256]).map_err(say)?;
    file.sync_all().map_err(say)?;
    file.seek(SeekFrom::Start(0)).map_err(say)?;
    let mut failed = None;
    let syncs = rate(pairs, |(key, value)| {
        let written = file.write_all(key).and_then(|()| file.write_all(value));
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            failed = Some(error);
        }
    });
    failed.map_or(Ok(syncs), |error| Err(say(error)))
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

/// Blocks that the files in `directory` take.
fn disk_bytes(directory: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let blocks: u64 = entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.blocks())
        .sum();
    blocks as f64 * 512.0
}
