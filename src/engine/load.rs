//! Filling an empty index from the finished segments: from their hints, without a look at a value, or
//! by walking over those that have none.

use std::sync::Arc;

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
    let (mut hinted, mut unhinted) = (Vec::new(), Vec::new());
    let mut hinted_bytes = 0;
    for entry in manifest.segments.iter().filter(|entry| entry.is_sealed()) {
        let segment = known(log, &segments, entry)?;
        let of = hints_of(segment, manifest, entry)?;
        match Hints::open(log.vfs.as_ref(), &log.directory.path, &of) {
            Some(hints) => {
                segment.set_finished(of.len_bytes, hints.entry_bytes());
                segment.set_hinted(hints.file_bytes());
                // Those of the keys that others have superseded count too.
                segment.add_tombstones(hints.tombstones());
                hinted_bytes += u64::from(of.len_bytes);
                hinted.push(SortedKeys::hinted(Arc::new(hints))?);
            }
            None => unhinted.push((segment, of)),
        }
    }
    // What was deleted must be known as long as older segments are still to come.
    load_hinted(index, hinted, !unhinted.is_empty(), &segments)?;
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

fn load_hinted(
    index: &Index,
    hinted: Vec<SortedKeys>,
    with_tombstones: bool,
    segments: &Segments,
) -> Result<()> {
    if !with_tombstones {
        let keys = hinted.iter().map(SortedKeys::key_count).max().unwrap_or(0);
        index.reserve(usize::try_from(keys).unwrap_or(0));
        return load_living(index, Merge::new(hinted), segments);
    }
    let sink = Sink::new(index, Readers::None);
    let mut merge = Merge::new(hinted);
    while let Some((key, version)) = merge.current() {
        sink.put(key, version, segments);
        merge.advance()?;
    }
    Ok(())
}

/// Loads the keys of `merge` that are not deleted, page by page.
fn load_living(index: &Index, mut merge: Merge, segments: &Segments) -> Result<()> {
    let (mut bytes, mut entries) = (Vec::new(), Vec::with_capacity(PAGE_KEYS));
    loop {
        bytes.clear();
        entries.clear();
        while entries.len() < PAGE_KEYS
            && let Some((key, version)) = merge.current()
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
