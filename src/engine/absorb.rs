//! Taking in what compaction has moved: where keys lie now, and which segments nobody needs any more.
//!
//! A process that has walked over all that was moved has nothing to hurry for: it reads on from the
//! retired segments, which are open. One that was behind reads from what is left instead
//! ([`cross_gap`]).
//!
//! Invariants:
//! 1. A retired segment is forgotten when all that was moved out of it is found where it is now, and
//!    nobody reads at a moment at which what was not moved was seen.
//! 2. A key is taken for deleted only if all that is listed was taken in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::load::{hints_of, known};
use super::replay::{Readers, Sink};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::log::hints::{Hints, SortedKeys, walk};
use crate::log::hints_writer::HintsWriter;
use crate::log::segment::Segment;
use crate::log::writer::Writer;
use crate::log::{Log, find};

/// The keys of a finished segment in order, from its hints or from itself.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(crate) fn sorted_keys(
    log: &Log,
    manifest: &Manifest,
    entry: &SegmentEntry,
) -> Result<SortedKeys> {
    let segments = log.segments();
    let segment = known(log, &segments, entry)?;
    let of = hints_of(segment, manifest, entry)?;
    match Hints::open(log.vfs.as_ref(), &log.directory.path, &of) {
        Some(hints) => {
            segment.set_hinted(hints.file_bytes());
            SortedKeys::hinted(Arc::new(hints), &[])
        }
        None => Ok(SortedKeys::walked(walk(segment, &of, manifest.epoch)?)),
    }
}

/// The hints of a finished segment, if there are any.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(crate) fn found_hints(
    engine: &Engine,
    manifest: &Manifest,
    entry: &SegmentEntry,
) -> Result<Option<Hints>> {
    let log = &engine.log;
    let segments = log.segments();
    let of = hints_of(known(log, &segments, entry)?, manifest, entry)?;
    Ok(Hints::open(log.vfs.as_ref(), &log.directory.path, &of))
}

/// The hints of a finished segment, which are written if there are none.
///
/// # Errors
/// `Corrupt`, `DiskFull`, `Io`.
pub(crate) fn hints_of_segment(
    engine: &Engine,
    manifest: &Manifest,
    entry: &SegmentEntry,
) -> Result<Hints> {
    let log = &engine.log;
    let segments = log.segments();
    let segment = known(log, &segments, entry)?;
    let of = hints_of(segment, manifest, entry)?;
    let (vfs, path) = (&log.vfs, &log.directory.path);
    let hints = if let Some(hints) = Hints::open(vfs.as_ref(), path, &of) {
        hints
    } else {
        let mut keys = SortedKeys::walked(walk(segment, &of, manifest.epoch)?);
        log.directory.check(vfs.as_ref())?;
        let mut writer = HintsWriter::create(vfs, path, of.store_id, of.segment)?;
        while let Some((key, version)) = keys.current() {
            writer.push(key, version)?;
            keys.advance()?;
        }
        writer.finish(of.len_bytes, of.last_sequence)?;
        Hints::open(vfs.as_ref(), path, &of).ok_or_else(|| {
            let what = "hints that were just written cannot be read";
            Error::corrupt(&crate::log::file_name::hints(path, of.segment), 0, what)
        })?
    };
    segment.set_hinted(hints.file_bytes());
    Ok(hints)
}

/// Takes in all that compaction has moved, up to the batch `sequence`, behind the cursor: the batches
/// in between are gone, and of what they did only the last is left.
///
/// # Errors
/// `Corrupt`, `Io`; then it is tried again by whoever comes next.
pub(super) fn cross_gap(
    log: &Log,
    cursor: &mut Writer,
    sequence: u64,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let segments = log.segments();
    let manifest = cursor.manifest.clone();
    for entry in manifest.segments.iter().filter(|entry| !entry.is_log()) {
        let is_known = !cursor.unabsorbed.contains(&entry.id);
        if is_known && entry.end.last_sequence <= cursor.sequence {
            continue;
        }
        let mut keys = sorted_keys(log, &manifest, entry)?;
        let mut entry_bytes = 0;
        while let Some((key, version)) = keys.current() {
            entry_bytes += version.entry_bytes(key.len());
            if version.sequence > cursor.sequence {
                sink.put(key, version, &segments);
            } else {
                sink.relocate(key, version, &segments);
            }
            keys.advance()?;
        }
        note_finished(&segments, entry, entry_bytes);
    }
    sink.sweep(|id| manifest.lists(id), sequence, &segments);
    cursor.unabsorbed.clear();
    cursor.sequence = sequence;
    Ok(())
}

fn note_finished(segments: &[Arc<Segment>], entry: &SegmentEntry, entry_bytes: u64) {
    if let Some(segment) = find(segments, entry.id) {
        let end = u32::try_from(entry.end.len_bytes).unwrap_or(u32::MAX);
        segment.set_finished(end, entry_bytes);
    }
}

impl Engine {
    /// Takes in what compaction has moved, here or in another process; nothing that is read waits
    /// for it.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`.
    pub(crate) fn absorb(&self) -> Result<()> {
        let _turn = self.absorbing.take(self.vfs.as_ref());
        self.catch_up()?;
        let known = self.known_generation.load(Ordering::Acquire);
        if known != self.log.shared().generation() {
            let mut cursor = self.cursor.take(self.vfs.as_ref());
            super::refresh::refresh_manifest(&self.log, &mut cursor)?;
        }
        while let Some((manifest, entry)) = self.next_to_absorb() {
            self.absorb_segment(&manifest, &entry)?;
            let mut cursor = self.cursor.take(self.vfs.as_ref());
            cursor.unabsorbed.retain(|id| *id != entry.id);
        }
        let cursor = self.cursor.take(self.vfs.as_ref());
        self.retire(&cursor);
        Ok(())
    }

    /// A segment whose entries this process has all walked over where they were before.
    fn next_to_absorb(&self) -> Option<(Manifest, SegmentEntry)> {
        let cursor = self.cursor.take(self.vfs.as_ref());
        let mut listed = cursor.manifest.segments.iter();
        let entry = listed.find(|entry| {
            cursor.unabsorbed.contains(&entry.id) && entry.end.last_sequence <= cursor.sequence
        })?;
        Some((cursor.manifest.clone(), *entry))
    }

    fn absorb_segment(&self, manifest: &Manifest, entry: &SegmentEntry) -> Result<()> {
        let segments = self.log.segments();
        let sink = Sink::new(&self.index, Readers::None);
        let mut keys = sorted_keys(&self.log, manifest, entry)?;
        let mut entry_bytes = 0;
        while let Some((key, version)) = keys.current() {
            entry_bytes += version.entry_bytes(key.len());
            sink.relocate(key, version, &segments);
            keys.advance()?;
        }
        note_finished(&segments, entry, entry_bytes);
        Ok(())
    }

    /// Forgets segments that the manifest does not list any more and that nobody reads.
    pub(super) fn retire(&self, cursor: &Writer) {
        let known = &self.known_generation;
        known.store(cursor.manifest.generation, Ordering::Release);
        let manifest = &cursor.manifest;
        // All that superseded what was not moved had been published when the manifest was made.
        let published = self.log.published();
        for segment in self.log.segments().iter() {
            if manifest.lists(segment.id) {
                segment.set_listed();
            } else if cursor.unabsorbed.is_empty() && segment.id < manifest.next_segment {
                // Or a newer manifest lists it, and this process opened it for that; then it is
                // opened again, if it is forgotten now.
                segment.retire(published);
            }
        }
        let oldest = self.horizon().oldest();
        self.log
            .keep_segments(|segment| manifest.lists(segment.id) || segment.is_needed(oldest));
    }
}
