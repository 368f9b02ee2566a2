//! Recovering: log and index from what the manifest lists, and the tail mended.
//!
//! `open` comes in with the manifest, while it holds the lock. What a crash in the middle leaves
//! is said at each step; recovering may be killed and repeated at any point.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::replay::{Readers, Sink, replay};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::header::SEGMENT_HEADER_BYTES;
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::index::Index;
use crate::limits::ALLOCATE_BYTES_MIN;
use crate::log::fault::Fault;
use crate::log::repair::{self, Tail as TailState};
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::writer::{Active, Writer};
use crate::log::{Log, manifest};
use crate::options::{Access, OpenProgress, Settings};

/// Filling log and index from what the manifest lists.
pub(super) struct Recovery<'a> {
    log: &'a Log,
    index: &'a Index,
    settings: &'a Settings,
    manifest: Manifest,
    done_bytes: u64,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(
        log: &'a Log,
        index: &'a Index,
        settings: &'a Settings,
        manifest: Manifest,
    ) -> Self {
        Self {
            log,
            index,
            settings,
            manifest,
            done_bytes: 0,
        }
    }

    /// Opens and replays all segments, and mends the tail; the writer that goes on behind it.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`.
    pub(super) fn run(mut self) -> Result<Writer> {
        let listed = self.manifest.segments.clone();
        self.log.open_segments(&self.manifest)?;
        let segments = self.log.segments();
        let total_bytes = total_bytes(&listed, &segments)?;
        let mut active = None;
        let mut sequence = 0;
        for (at, entry) in listed.iter().enumerate() {
            let segment = &segments[at];
            let replayed = &segments[..at];
            if entry.first_sequence != segment.first_sequence {
                let what = "the segment begins with another sequence number than its manifest says";
                return Err(Error::corrupt(&segment.path, 40, what));
            }
            let end = entry.end;
            if entry.is_sealed {
                let end_bytes = sealed_end(segment, end.len_bytes)?;
                let mut scanner = Scanner::new(segment, end_bytes, self.manifest.epoch);
                self.replay(&mut scanner, segment, replayed, total_bytes)?;
                check_sealed(&scanner, segment, end_bytes, end.last_sequence)?;
                sequence = scanner.sequence();
            } else {
                let file_bytes = active_bytes(segment)?;
                let mut scanner = Scanner::new(segment, file_bytes, self.manifest.epoch);
                let marked = self.replay(&mut scanner, segment, replayed, total_bytes)?;
                check_known(&scanner, segment, end.len_bytes)?;
                sequence = scanner.sequence();
                active = Some(self.recover_tail(segment, &scanner, file_bytes, marked)?);
            }
        }
        self.report(total_bytes, total_bytes);
        let end = active
            .as_ref()
            .map(|active: &Active| (active.segment.id, active.end));
        // First: who sees the new end looks whether its manifest is of that.
        self.log.shared().set_generation(self.manifest.generation);
        self.log.restart(end, sequence);
        self.log.visible().store(sequence, Ordering::Release);
        Ok(Writer {
            manifest: self.manifest.clone(),
            sequence,
            active,
        })
    }

    /// Replays one segment. True if its last record is a seal mark.
    fn replay(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &Segment,
        replayed: &[Arc<Segment>],
        total_bytes: u64,
    ) -> Result<bool> {
        let before = self.done_bytes;
        let settings = self.settings;
        let index = self.index;
        let mut report = |done: u32| {
            let bytes_done = before + u64::from(done);
            settings.report(OpenProgress {
                bytes_done,
                bytes_total: total_bytes,
                keys: index.keys(),
            });
        };
        let mut sink = Sink::new(index, Readers::None);
        sink.report = Some(&mut report);
        let marked = replay(scanner, u64::MAX, segment, replayed, &mut sink)?;
        segment.set_end(scanner.offset());
        self.done_bytes += u64::from(scanner.offset());
        Ok(marked)
    }

    /// Applies the recovery rule to the active segment, whose whole records `scanner` has walked
    /// over, and makes durable what readers are about to see.
    fn recover_tail(
        &mut self,
        segment: &Arc<Segment>,
        scanner: &Scanner<'_>,
        file_bytes: u32,
        marked: bool,
    ) -> Result<Active> {
        let offset = scanner.offset();
        let tail = repair::examine(segment, offset, file_bytes)?;
        if self.settings.access == Access::ReadOnly {
            let synced = segment.file.sync();
            synced.map_err(|error| Error::io("sync", &segment.path, error))?;
        } else {
            // Behind the seal mark of a clean close there is nothing; anywhere else there may be
            // bytes on the disk that the machine's memory does not show.
            let is_sealed = marked && tail == TailState::Clean;
            let end = if is_sealed { offset } else { file_bytes };
            repair::settle(segment, scanner.synced_upto(), offset, end)
                .map_err(|fault| fault.error)?;
            failpoint::hit!("recovery-settled");
            if let TailState::Torn { end } = tail {
                self.raise_epoch(segment, scanner, end)?;
            }
            // A file that was copied may have lost its space; on a full disk that is found later.
            if segment.file.allocate(u64::from(file_bytes)).is_ok() {
                segment
                    .file
                    .expect_writes(u64::from(offset), u64::from(file_bytes));
            }
        }
        Ok(Active {
            segment: segment.clone(),
            end: offset,
            allocated: file_bytes,
            marked,
        })
    }

    /// Raises the epoch after a torn tail was zeroed, so that nothing of it ever verifies again.
    fn raise_epoch(&mut self, segment: &Segment, scanner: &Scanner<'_>, end: u32) -> Result<()> {
        let (offset, sequence) = (scanner.offset(), scanner.sequence());
        tracing::warn!(
            path = %segment.path.display(),
            offset,
            bytes = end - offset,
            "a torn tail was zeroed: a record that was never finished"
        );
        // CRASH: the tail is zero and the epoch is the old one: a clean log.
        if let Some(last) = self.manifest.segments.last_mut() {
            last.end.len_bytes = u64::from(offset);
            last.end.last_sequence = sequence;
        }
        self.manifest.epoch += 1;
        self.manifest.generation += 1;
        let saved = manifest::save(self.log.vfs.as_ref(), &self.log.directory, &self.manifest);
        saved.map_err(|fault: Fault| fault.error)
    }

    fn report(&self, bytes_done: u64, bytes_total: u64) {
        let keys = self.index.keys();
        self.settings.report(OpenProgress {
            bytes_done,
            bytes_total,
            keys,
        });
    }
}

fn total_bytes(listed: &[SegmentEntry], segments: &[Arc<Segment>]) -> Result<u64> {
    listed
        .iter()
        .zip(segments)
        .try_fold(0, |total, (entry, segment)| {
            let bytes = if entry.is_sealed {
                entry.end.len_bytes
            } else {
                u64::from(segment.file_bytes()?)
            };
            // A sealed length is only believed later; this is for the progress alone.
            Ok(u64::saturating_add(total, bytes))
        })
}

/// The end of a sealed segment, which its file must reach.
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

/// The length of the active segment's file. Its first space was durable before the manifest listed
/// it, so a shorter file was cut off, and what it lost is not guessed at.
fn active_bytes(segment: &Segment) -> Result<u32> {
    let file_bytes = segment.file_bytes()?;
    if u64::from(file_bytes) < ALLOCATE_BYTES_MIN.min(u64::from(segment.capacity)) {
        let what = "the file was cut off: it is shorter than any segment that was ever listed";
        return Err(Error::corrupt(&segment.path, u64::from(file_bytes), what));
    }
    Ok(file_bytes)
}

/// What the manifest knows to be durable must be there, however the segment ends behind it.
fn check_known(scanner: &Scanner<'_>, segment: &Segment, len_bytes: u64) -> Result<()> {
    let offset = u64::from(scanner.offset());
    if offset >= len_bytes {
        return Ok(());
    }
    let what =
        format!("there is no whole record, but there was: the manifest knows of {len_bytes} bytes");
    Err(Error::corrupt(&segment.path, offset, what))
}

/// A sealed segment is never guessed at.
fn check_sealed(
    scanner: &Scanner<'_>,
    segment: &Segment,
    end: u32,
    last_sequence: u64,
) -> Result<()> {
    let offset = u64::from(scanner.offset());
    if let Some(what) = scanner.stopped() {
        return Err(Error::corrupt(&segment.path, offset, what));
    }
    if scanner.offset() != end || scanner.sequence() != last_sequence {
        let what = "the segment does not end with the record that its manifest says";
        return Err(Error::corrupt(&segment.path, offset, what));
    }
    Ok(())
}
