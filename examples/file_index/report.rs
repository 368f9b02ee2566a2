//! What the index answers, in columns.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use happystore::{Cbor, Snapshot};

use crate::entry::{Entry, Index, Kind, paths, shown};
use crate::walk::{Change, Outcome};

/// How many of the largest files are shown, and how many extensions.
const LARGEST_MAX: usize = 10;
const EXTENSIONS_MAX: usize = 15;

type AnyError = Box<dyn std::error::Error>;

/// What a run did, how fast, and what it could not read.
pub(crate) fn outcome(
    out: &mut impl Write,
    tree: &Path,
    outcome: &Outcome,
    elapsed: Duration,
) -> io::Result<()> {
    let path = shown(tree.as_os_str().as_encoded_bytes());
    writeln!(out, "{path}, in {:.2} s\n", elapsed.as_secs_f64())?;
    let rows = [
        ("added", outcome.added),
        ("changed", outcome.changed),
        ("removed", outcome.removed),
        ("unchanged", outcome.unchanged),
    ];
    for (name, entries) in rows {
        writeln!(out, "  {name:<9}  {:>12}", count(entries))?;
    }
    let (written, reading) = (outcome.written(), outcome.reading);
    let seen = written + outcome.unchanged;
    // Disks differ more than stores: how fast the index is, is told without them.
    let indexing = elapsed.saturating_sub(reading);
    let rows = [
        ("looked at", count(seen), rate(seen, elapsed)),
        (
            "wrote",
            count(written),
            rate(written, indexing) + ", reading aside",
        ),
        (
            "read",
            bytes(outcome.read_bytes),
            format!("in {:.2} s", reading.as_secs_f64()),
        ),
    ];
    writeln!(out)?;
    for (name, number, how_fast) in rows {
        writeln!(out, "  {name:<9}  {number:>12}  {how_fast}")?;
    }
    if !outcome.unreadable.is_empty() {
        let unreadable = count(outcome.unreadable.len() as u64);
        writeln!(
            out,
            "\nCould not be read: {unreadable}; what was known of them stays"
        )?;
        for (key, why) in &outcome.unreadable {
            writeln!(out, "  {}: {why}", shown(key))?;
        }
    }
    Ok(())
}

/// The largest files under `prefix`.
pub(crate) fn largest(
    out: &mut impl Write,
    snapshot: &Snapshot<Cbor, [u8]>,
    prefix: &[u8],
) -> Result<(), AnyError> {
    // The smallest of the largest is on top, to be pushed out.
    let mut largest = BinaryHeap::new();
    for pair in paths(snapshot.query(), prefix).iter::<Entry>()? {
        let (key, entry) = pair?;
        if entry.kind == Kind::File {
            largest.push(Reverse((entry.size, Reverse(key))));
            if largest.len() > LARGEST_MAX {
                largest.pop();
            }
        }
    }
    writeln!(out, "\nLargest files{}", under(prefix))?;
    for Reverse((size, Reverse(key))) in largest.into_sorted_vec() {
        writeln!(out, "  {:>10}  {}", bytes(size), shown(&key))?;
    }
    Ok(())
}

/// How many files under `prefix` there are of each extension, those with most bytes first.
pub(crate) fn extensions(
    out: &mut impl Write,
    snapshot: &Snapshot<Cbor, [u8]>,
    prefix: &[u8],
) -> Result<(), AnyError> {
    let mut by_extension: HashMap<Option<Vec<u8>>, (u64, u64)> = HashMap::new();
    for pair in paths(snapshot.query(), prefix).iter::<Entry>()? {
        let (key, entry) = pair?;
        if entry.kind == Kind::File {
            let extension = extension(&key).map(<[u8]>::to_ascii_lowercase);
            let (files, bytes) = by_extension.entry(extension).or_default();
            *files += 1;
            *bytes += entry.size;
        }
    }
    let mut rows: Vec<_> = by_extension.into_iter().collect();
    rows.sort_by(|(a_name, (_, a)), (b_name, (_, b))| b.cmp(a).then(a_name.cmp(b_name)));
    writeln!(out, "\nExtensions{}", under(prefix))?;
    for (extension, (files, size)) in rows.iter().take(EXTENSIONS_MAX) {
        let name = extension
            .as_deref()
            .map_or("none".into(), |e| format!(".{}", shown(e)));
        writeln!(
            out,
            "  {:>10}  {:>9} files  {name}",
            bytes(*size),
            count(*files)
        )?;
    }
    let more = rows.len().saturating_sub(EXTENSIONS_MAX) as u64;
    if more > 0 {
        writeln!(out, "  and {} more", count(more))?;
    }
    Ok(())
}

/// What changed in this run, by name.
pub(crate) fn changes(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(out, "\nWhat changed")?;
    for (change, key) in &outcome.changes {
        let sign = match change {
            Change::Added => '+',
            Change::Changed => '~',
            Change::Removed => '-',
        };
        writeln!(out, "  {sign} {}", shown(key))?;
    }
    let more = outcome.written() - outcome.changes.len() as u64;
    match (more, outcome.changes.is_empty()) {
        (0, true) => writeln!(out, "  nothing"),
        (0, false) => Ok(()),
        _ => writeln!(out, "  and {} more", count(more)),
    }
}

/// Where the store lies, and what it takes.
pub(crate) fn store(out: &mut impl Write, index: &Index, place: &Path) -> Result<(), AnyError> {
    let stats = index.stats()?;
    let (disk, memory) = (bytes(stats.disk_bytes), bytes(stats.index_bytes));
    writeln!(out, "\nThe index is in {}", place.display())?;
    writeln!(
        out,
        "  {} keys, {disk} on disk, {memory} in memory",
        count(stats.keys)
    )?;
    Ok(())
}

fn under(prefix: &[u8]) -> String {
    if prefix.is_empty() {
        String::new()
    } else {
        format!(" under {}", shown(prefix))
    }
}

/// What is behind the last dot of a file's name; `.profile` has no extension.
fn extension(key: &[u8]) -> Option<&[u8]> {
    let name = key.rsplit(|&byte| byte == b'/').next()?;
    let dot = name
        .iter()
        .rposition(|&byte| byte == b'.')
        .filter(|&dot| dot > 0)?;
    Some(&name[dot + 1..])
}

/// A number with its thousands apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit that leaves a whole number before the point.
fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let unit = size.ilog2() / 10;
    // Shifted so that tenths are left: no float, no rounding up to "1024.0 KiB".
    let tenths = (u128::from(size) * 10) >> (10 * unit);
    format!(
        "{}.{} {}",
        tenths / 10,
        tenths % 10,
        UNITS[unit as usize - 1]
    )
}

fn rate(entries: u64, elapsed: Duration) -> String {
    let milliseconds = elapsed.as_millis().max(1);
    let a_second = u128::from(entries) * 1000 / milliseconds;
    format!(
        "{} entries/s",
        count(u64::try_from(a_second).unwrap_or(u64::MAX))
    )
}
