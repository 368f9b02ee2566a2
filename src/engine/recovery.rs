//! Recovering: log and index from what the manifest lists, and the tail mended.
//!
//! `open` comes in with the manifest, while it holds the lock. What a crash in the middle leaves
//! is said at each step; recovering may be killed and repeated at any point.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::load::{known, load_finished};
use super::replay::{Readers, Sink, replay};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::manifest::Manifest;
use crate::index::Index;
use crate::limits::ALLOCATE_BYTES_MIN;
use crate::log::fault::Fault;
use crate::log::repair::{self, Tail as TailState};
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::writer::{Active, Writer};
use crate::log::{Log, find, manifest};
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

    /// Opens all segments and fills the index from them, and mends the tail; the writer that goes on
    /// behind it.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`.
    pub(super) fn run(mut self) -> Result<Writer> {
        self.log.open_segments(&self.manifest)?;
        let segments = self.log.segments();
        let total_bytes = total_bytes(&self.manifest, &segments)?;
        let (settings, index) = (self.settings, self.index);
        let mut done_bytes = 0;
        let mut report_done = |bytes_done| {
            done_bytes = bytes_done;
            report(settings, index, bytes_done, total_bytes);
        };
        load_finished(self.log, index, &self.manifest, &mut report_done)?;
        self.done_bytes = done_bytes;
        let mut sequence = 0;
        let mut active = None;
        if let Some(last) = self.manifest.log().last().copied() {
            let segment = known(self.log, &segments, &last)?;
            sequence = last.end.last_sequence;
            if !last.is_sealed() {
                let file_bytes = active_bytes(segment)?;
                let mut scanner = Scanner::new(segment, file_bytes, self.manifest.epoch);
                let marked = self.replay(&mut scanner, segment, &segments, total_bytes)?;
                check_known(&scanner, segment, last.end.len_bytes)?;
                sequence = scanner.sequence();
                active = Some(self.recover_tail(segment, &scanner, file_bytes, marked)?);
            }
        }
        report(settings, index, total_bytes, total_bytes);
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
            unabsorbed: Vec::new(),
        })
    }

    /// Replays the active segment. True if its last record is a seal mark.
    fn replay(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &Segment,
        segments: &[Arc<Segment>],
        total_bytes: u64,
    ) -> Result<bool> {
        let before = self.done_bytes;
        let settings = self.settings;
        let index = self.index;
        let mut report = |done: u32| {
            report(settings, index, before + u64::from(done), total_bytes);
        };
        let mut sink = Sink::new(index, Readers::None);
        sink.report = Some(&mut report);
        let marked = replay(scanner, u64::MAX, segment, segments, &mut sink)?;
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
        if let Some(last) = self.manifest.last_of_log() {
            last.end.len_bytes = u64::from(offset);
            last.end.last_sequence = sequence;
        }
        self.manifest.epoch += 1;
        self.manifest.generation += 1;
        let saved = manifest::save(self.log.vfs.as_ref(), &self.log.directory, &self.manifest);
        saved.map_err(|fault: Fault| fault.error)
    }
}

fn report(settings: &Settings, index: &Index, bytes_done: u64, bytes_total: u64) {
    let keys = index.keys();
    settings.report(OpenProgress {
        bytes_done,
        bytes_total,
        keys,
    });
}

fn total_bytes(manifest: &Manifest, segments: &[Arc<Segment>]) -> Result<u64> {
    let mut total = 0_u64;
    for entry in &manifest.segments {
        let bytes = match find(segments, entry.id) {
            Some(segment) if !entry.is_sealed() => u64::from(segment.file_bytes()?),
            _ => entry.end.len_bytes,
        };
        // A length is only believed later; this is for the progress alone.
        total = total.saturating_add(bytes);
    }
    Ok(total)
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
