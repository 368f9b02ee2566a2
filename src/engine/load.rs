//! Filling an empty index from the finished segments: from their hints, without a look at a value, or
//! by walking over those that have none.

use std::sync::{Arc, OnceLock};

use super::replay::{Readers, Sink, count_live, replay};
use crate::error::{Error, Result};
use crate::format::header::SEGMENT_HEADER_BYTES;
use crate::format::hint::HintsOf;
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::index::Index;
use crate::log::hints::{Hints, SortedKeys, check_end};
use crate::log::location::Version;
use crate::log::merge::Merge;
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::{Log, Segments, find};

/// How many keys are loaded at once: they fit the cache.
const PAGE_KEYS: usize = 16 << 10;

/// Fills `index`, which is empty, with what the finished segments of `manifest` hold, which are open:
/// the newest version of each key, wherever it lies. Tells `report` how many bytes of segments are
/// done.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(super) fn load_finished(
    log: &Log,
    index: &Index,
    manifest: &Manifest,
    report: &mut dyn FnMut(u64),
) -> Result<()> {
    let segments = log.segments();
    let mut finished = Vec::new();
    for entry in manifest.segments.iter().filter(|entry| entry.is_sealed()) {
        let segment = known(log, &segments, entry)?;
        finished.push((segment, hints_of(segment, manifest, entry)?));
    }
    let (mut hinted, mut unhinted) = (Vec::new(), Vec::new());
    let mut hinted_bytes = 0;
    let opened = open_hints(log, &finished);
    for ((segment, of), hints) in finished.into_iter().zip(opened) {
        let Some(hints) = hints else {
            unhinted.push((segment, of));
            continue;
        };
        segment.set_finished(of.len_bytes, hints.entry_bytes());
        segment.set_hinted(hints.file_bytes());
        // Those of the keys that others have superseded count too.
        segment.add_tombstones(hints.tombstones());
        hinted_bytes += u64::from(of.len_bytes);
        hinted.push(Arc::new(hints));
    }
    // What was deleted must be known as long as older segments are still to come.
    if unhinted.is_empty() {
        let keys = expected_keys(&hinted, hinted_bytes, active_bytes(&segments, manifest)?);
        index.reserve(keys);
        load_living(log, index, &hinted, &segments)?;
        index.shrink(keys);
    } else {
        load_all(index, &hinted, &segments)?;
    }
    report(hinted_bytes);
    let mut done_bytes = hinted_bytes;
    for (segment, of) in unhinted {
        let mut scanner = Scanner::new(segment, of.len_bytes, manifest.epoch);
        let mut within = |done: u32| report(done_bytes + u64::from(done));
        let mut sink = Sink::new(index, Readers::None);
        sink.report = Some(&mut within);
        replay(&mut scanner, u64::MAX, segment, &segments, &mut sink)?;
        check_end(&scanner, segment, &of)?;
        segment.set_end(of.len_bytes);
        done_bytes += u64::from(of.len_bytes);
        report(done_bytes);
    }
    Ok(())
}

/// How long the segment that takes records may be.
fn active_bytes(segments: &Segments, manifest: &Manifest) -> Result<u64> {
    let active = manifest.log().last().filter(|last| !last.is_sealed());
    let segment = active.and_then(|active| find(segments, active.id));
    segment.map_or(Ok(0), |segment| segment.file_bytes().map(u64::from))
}

/// How many keys there may be in `hinted` segments of `hinted_bytes`, and in `more_bytes` of the same
/// kind; a table that grows on the way costs a fifth of the time.
fn expected_keys(hinted: &[Arc<Hints>], hinted_bytes: u64, more_bytes: u64) -> usize {
    let keys: u64 = hinted.iter().map(|hints| hints.keys()).sum();
    let more = u128::from(keys) * u128::from(more_bytes) / u128::from(hinted_bytes.max(1));
    // No more than twice as many as there are hints: what was only said takes no memory.
    let more = u64::try_from(more).unwrap_or(keys).min(keys);
    usize::try_from(keys + more).unwrap_or(0)
}

/// The hints of the segments that have whole ones; all bytes of them are verified, side by side.
fn open_hints(log: &Log, finished: &[(&Arc<Segment>, HintsOf)]) -> Vec<Option<Hints>> {
    let (vfs, path) = (log.vfs.as_ref(), &log.directory.path);
    let opened: Vec<OnceLock<Hints>> = finished.iter().map(|_| OnceLock::new()).collect();
    vfs.side_by_side(finished.len(), &|number| {
        if let Some(hints) = Hints::open(vfs, path, &finished[number].1) {
            // OK because each number comes once.
            let _ = opened[number].set(hints);
        }
    });
    opened.into_iter().map(OnceLock::into_inner).collect()
}

/// Gives `index` all keys of `hinted`, deleted ones too, which more may come to.
fn load_all(index: &Index, hinted: &[Arc<Hints>], segments: &Segments) -> Result<()> {
    let sink = Sink::new(index, Readers::None);
    let mut merge = merge(hinted, &[])?;
    while let Some((key, version)) = merge.current() {
        sink.put(key, version, segments);
        merge.advance()?;
    }
    Ok(())
}

fn merge(hinted: &[Arc<Hints>], low: &[u8]) -> Result<Merge> {
    let keys = hinted.iter();
    let keys = keys.map(|hints| SortedKeys::hinted(hints.clone(), low));
    Ok(Merge::new(keys.collect::<Result<_>>()?))
}

/// Gives `index` the keys of `hinted` that are not deleted: several parts of them side by side.
fn load_living(log: &Log, index: &Index, hinted: &[Arc<Hints>], segments: &Segments) -> Result<()> {
    let Some(longest) = hinted.iter().max_by_key(|hints| hints.keys()) else {
        return Ok(());
    };
    let cuts = longest.cuts(log.vfs.parallelism());
    let failed = OnceLock::new();
    log.vfs.side_by_side(cuts.len() + 1, &|part| {
        let low = part.checked_sub(1).map_or(&[][..], |before| &cuts[before]);
        let high = cuts.get(part).map(Box::as_ref);
        if let Err(error) = load_part(index, hinted, (low, high), segments) {
            // OK because one of several errors is enough.
            let _ = failed.set(error);
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}

/// Gives `index` the keys from `low` up to `high`, page by page.
fn load_part(
    index: &Index,
    hinted: &[Arc<Hints>],
    (low, high): (&[u8], Option<&[u8]>),
    segments: &Segments,
) -> Result<()> {
    let mut merge = merge(hinted, low)?;
    let (mut bytes, mut entries) = (Vec::new(), Vec::with_capacity(PAGE_KEYS));
    loop {
        bytes.clear();
        entries.clear();
        while entries.len() < PAGE_KEYS
            && let Some((key, version)) = merge.current()
            && high.is_none_or(|high| key < high)
        {
            count_live(segments, key, version, None);
            if !version.is_tombstone() {
                bytes.extend_from_slice(key);
                entries.push((bytes.len(), version));
            }
            merge.advance()?;
        }
        if entries.is_empty() {
            return Ok(());
        }
        let mut begin = 0;
        let key = |&(end, version): &(usize, Version)| {
            let key = &bytes[begin..end];
            begin = end;
            (key, version)
        };
        let page: Vec<(&[u8], Version)> = entries.iter().map(key).collect();
        index.load(&page);
    }
}

/// The segment that the manifest lists as `entry`, as its manifest says it is.
///
/// # Errors
/// `Corrupt`.
pub(super) fn known<'a>(
    log: &Log,
    segments: &'a Segments,
    entry: &SegmentEntry,
) -> Result<&'a Arc<Segment>> {
    let segment = find(segments, entry.id).ok_or_else(|| {
        let path = crate::log::file_name::segment(&log.directory.path, entry.id);
        Error::corrupt(&path, 0, "the segment is gone")
    })?;
    if segment.first_sequence != entry.first_sequence {
        let what = "the segment begins with another sequence number than its manifest says";
        return Err(Error::corrupt(&segment.path, 40, what));
    }
    if entry.is_log() != segment.is_log() {
        let what = "the segment is of another kind than its manifest says";
        return Err(Error::corrupt(&segment.path, 48, what));
    }
    Ok(segment)
}

/// What the hints of a finished segment have to be of; its file reaches that far.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(super) fn hints_of(
    segment: &Segment,
    manifest: &Manifest,
    entry: &SegmentEntry,
) -> Result<HintsOf> {
    Ok(HintsOf {
        store_id: manifest.store_id,
        segment: segment.id,
        len_bytes: sealed_end(segment, entry.end.len_bytes)?,
        last_sequence: entry.end.last_sequence,
    })
}

/// The end of a finished segment, which its file must reach.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(super) fn sealed_end(segment: &Segment, len_bytes: u64) -> Result<u32> {
    let file_bytes = segment.file_bytes()?;
    u32::try_from(len_bytes)
        .ok()
        .filter(|end| (SEGMENT_HEADER_BYTES..=file_bytes).contains(end))
        .ok_or_else(|| {
            let what = "the file was cut off: it is sealed, and longer in the manifest";
            Error::corrupt(&segment.path, u64::from(file_bytes), what)
        })
}
