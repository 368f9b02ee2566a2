//! Appending: the one place where bytes are added to the log.
//!
//! The holder of the writer lock owns the [`Writer`]. Space is allocated before anything is
//! written, so a full disk changes nothing; behind the last record some is kept for batches that
//! only delete, which go on until it is used up. A record is written in one call; nobody looks at
//! it before the caller publishes it.
//!
//! What a crash leaves in [`Writer::roll_over`], step by step: a segment that no manifest lists
//! (removed by the next opening); the old or the new manifest (each whole, and the old segment
//! durable under both); a listed segment without records.

use std::sync::Arc;

use super::fault::Fault;
use super::segment::Segment;
use super::{Log, manifest};
use crate::error::Error;
use crate::failpoint;
use crate::format::checksum::Stamp;
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::format::manifest::{Manifest, SegmentEnd, SegmentEntry, SegmentState};
use crate::format::record::{Frame, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordKind, seal_record};
use crate::limits::{
    ALLOCATE_BYTES_MAX, ALLOCATE_BYTES_MIN, RESERVE_BYTES_MAX, SEGMENT_FILE_BYTES_MAX,
};

/// The right to append, and what it needs to know.
pub(crate) struct Writer {
    /// The manifest as it is on disk.
    pub(crate) manifest: Manifest,
    /// The sequence number of the last batch.
    pub(crate) sequence: u64,
    /// Where the next record goes.
    pub(crate) active: Option<Active>,
    /// Listed segments that compaction has made and whose entries the index does not point to yet.
    pub(crate) unabsorbed: Vec<u32>,
}

/// The segment that takes records.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Behind the last record.
    pub(crate) end: u32,
    /// The file's length: up to here space is reserved.
    pub(crate) allocated: u32,
    /// Whether the last record is a seal mark.
    pub(crate) marked: bool,
}

/// Which space a record may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// What leaves the reserve for others.
    Ordinary,
    /// The reserve too: for what frees space, or ends the log.
    Reserve,
}

/// Where a record was appended.
pub(crate) struct Appended {
    /// The segment.
    pub(crate) segment: Arc<Segment>,
    /// Where the record begins in it.
    pub(crate) offset: u32,
    /// Behind it.
    pub(crate) end: u32,
    /// Sequence number and epoch.
    pub(crate) stamp: Stamp,
}

impl Writer {
    /// Appends a batch with the next sequence number: `record` is room for a record header, then
    /// `entry_count` entries without checksums. Not durable on return, and not noted in `log`.
    ///
    /// # Errors
    /// `DiskFull`, harmless; any failed write or sync, poisoning.
    pub(crate) fn append(
        &mut self,
        log: &Log,
        record: &mut Vec<u8>,
        entry_count: u32,
        space: Space,
    ) -> Result<Appended, Fault> {
        let record_bytes = record.len().next_multiple_of(RECORD_ALIGN as usize) as u64;
        self.make_room(log, record_bytes, space)?;
        let stamp = Stamp {
            sequence: self.sequence + 1,
            epoch: self.manifest.epoch,
        };
        let offset = self.write(log, record, RecordKind::Batch, entry_count, stamp)?;
        let active = self.active_mut();
        let (segment, end) = (active.segment.clone(), active.end);
        self.sequence = stamp.sequence;
        Ok(Appended {
            segment,
            offset,
            end,
            stamp,
        })
    }

    /// What a clean close leaves: all durable, a seal mark as the last record, and a manifest that
    /// knows how far the log reaches. What is there already is not written again.
    ///
    /// # Errors
    /// Any failed write or sync, poisoning. A full disk is no error: the mark or the manifest is
    /// left out, and the end of the log is protected a little less.
    pub(crate) fn seal_mark(&mut self, log: &Log) -> Result<(), Fault> {
        log.sync()?;
        let Some(active) = self.active.as_ref() else {
            return Ok(());
        };
        // Every batch left room for one mark behind it.
        let has_room = active.end + RECORD_HEADER_BYTES <= active.segment.capacity;
        if !active.marked
            && has_room
            && self
                .allocate(u64::from(RECORD_HEADER_BYTES), Space::Reserve)
                .is_ok()
        {
            let stamp = Stamp {
                sequence: self.sequence,
                epoch: self.manifest.epoch,
            };
            let mut record = vec![0; RECORD_HEADER_BYTES as usize];
            failpoint::hit!("close-synced");
            self.write(log, &mut record, RecordKind::SealMark, 0, stamp)?;
            let active = self.active_mut();
            log.note_end(&active.segment, active.end, stamp.sequence, false)?;
            log.sync()?;
            failpoint::hit!("close-marked");
        }
        // CRASH: the mark protects the last batch; the manifest is the one before.
        self.save_end(log)
    }

    /// Makes the manifest know that the log is durable up to its end, as it is now.
    fn save_end(&mut self, log: &Log) -> Result<(), Fault> {
        let end = SegmentEnd {
            len_bytes: u64::from(self.active_mut().end),
            last_sequence: self.sequence,
        };
        let mut manifest = self.manifest.clone();
        match manifest.last_of_log() {
            Some(last) if last.end != end => last.end = end,
            _ => return Ok(()),
        }
        manifest.generation += 1;
        match manifest::save(log.vfs.as_ref(), &log.directory, &manifest) {
            Ok(()) => {
                log.shared().set_generation(manifest.generation);
                self.manifest = manifest;
            }
            Err(fault) if fault.poisons => return Err(fault),
            Err(_) => {}
        }
        Ok(())
    }

    /// Writes a sealed record at the end of the active segment, where there is room for it.
    fn write(
        &mut self,
        log: &Log,
        record: &mut Vec<u8>,
        kind: RecordKind,
        entry_count: u32,
        stamp: Stamp,
    ) -> Result<u32, Fault> {
        let active = self.active_mut();
        let (segment, offset) = (active.segment.clone(), active.end);
        let synced_upto = log.tail.synced_upto(segment.id).min(offset);
        let frame = Frame {
            kind,
            entry_count,
            stamp,
            synced_upto,
        };
        seal_record(record, segment.place(offset), frame);
        // CRASH: any part of the record may be on disk; it is the torn tail that repair zeroes.
        segment
            .file
            .write_at(u64::from(offset), record)
            .map_err(|error| Fault::poison("write", &segment.path, error))?;
        active.end = offset + u32::try_from(record.len()).unwrap_or(u32::MAX - offset);
        active.marked = kind == RecordKind::SealMark;
        segment.set_end(active.end);
        Ok(offset)
    }

    /// Makes sure that a record of `record_bytes` fits and its space is reserved.
    fn make_room(&mut self, log: &Log, record_bytes: u64, space: Space) -> Result<(), Fault> {
        let fits = self.active.as_ref().is_some_and(|active| {
            let capacity = u64::from(active.segment.capacity);
            let kept = space.kept_bytes(capacity);
            u64::from(active.end) + room_bytes(record_bytes) + kept <= capacity
        });
        if !fits {
            self.roll_over(log, record_bytes)?;
        }
        self.allocate(record_bytes, space)
    }

    /// Reserves space for `record_bytes` more in the active segment.
    fn allocate(&mut self, record_bytes: u64, space: Space) -> Result<(), Fault> {
        let active = self.active_mut();
        let (end, allocated) = (u64::from(active.end), u64::from(active.allocated));
        let capacity = u64::from(active.segment.capacity);
        let needed = end + record_bytes + space.kept_bytes(allocated);
        if needed <= allocated {
            return Ok(());
        }
        let step = allocated.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
        let generous = (allocated + step).min(capacity).max(needed);
        let file = &active.segment.file;
        let reserved = match file.allocate(generous) {
            Ok(()) => generous,
            // A nearly full disk may still hold this one record.
            Err(_) => match file.allocate(needed) {
                Ok(()) => needed,
                Err(error) => {
                    let path = &active.segment.path;
                    let error = Error::allocate(path, needed - allocated, error);
                    return Err(Fault::harmless(error));
                }
            },
        };
        file.expect_writes(end, reserved);
        active.allocated = u32::try_from(reserved).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Seals the active segment and starts one that has room for `record_bytes`.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub(crate) fn roll_over(&mut self, log: &Log, record_bytes: u64) -> Result<(), Fault> {
        // Sealing syncs in every durability mode (log invariant 2).
        log.sync()?;
        let vfs = log.vfs.as_ref();
        log.directory.check(vfs).map_err(Fault::harmless)?;
        let id = self.manifest.next_segment;
        if id == u32::MAX {
            return Err(no_more_segments());
        }
        let capacity = capacity_for(record_bytes, u64::from(log.segment_bytes));
        let header = SegmentHeader {
            store_id: self.manifest.store_id,
            segment: id,
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            first_sequence: self.sequence + 1,
            kind: SegmentKind::Log,
        };
        let segment = Arc::new(Segment::create(vfs, &log.directory.path, &header)?);
        log.directory.sync()?;
        // Asked before the manifest counts: nothing behind it may fail and be called harmless.
        let allocated = segment.file_bytes().map_err(Fault::harmless)?;
        // CRASH: a segment that no manifest lists; opening removes it.
        failpoint::hit!("roll-over-created");
        let manifest = self.next_manifest(&segment);
        if let Err(fault) = manifest::save(vfs, &log.directory, &manifest) {
            if !fault.poisons {
                // Harmless: opening removes the unlisted segment too.
                let _ = vfs.unlink(&segment.path);
            }
            return Err(fault);
        }
        // CRASH: the new segment is listed and empty; the old one is sealed and durable.
        failpoint::hit!("roll-over-listed");
        log.add_segments(vec![segment.clone()]);
        let end = SEGMENT_HEADER_BYTES;
        log.shared().set_generation(manifest.generation);
        log.restart(Some((id, end)), self.sequence);
        self.manifest = manifest;
        self.active = Some(Active {
            segment,
            end,
            allocated,
            marked: false,
        });
        Ok(())
    }

    /// The manifest that seals the active segment and lists `next` behind it.
    fn next_manifest(&self, next: &Segment) -> Manifest {
        let mut manifest = self.manifest.clone();
        manifest.generation += 1;
        manifest.next_segment = next.id + 1;
        if let (Some(active), Some(last)) = (&self.active, manifest.last_of_log()) {
            let len_bytes = u64::from(active.end);
            last.state = SegmentState::Sealed;
            last.end = SegmentEnd {
                len_bytes,
                last_sequence: self.sequence,
            };
        }
        let first_sequence = next.first_sequence;
        manifest.segments.push(SegmentEntry {
            id: next.id,
            first_sequence,
            state: SegmentState::Active,
            end: SegmentEnd::default(),
        });
        manifest
    }

    /// The active segment, where [`Writer::make_room`] or a look at `active` came before.
    fn active_mut(&mut self) -> &mut Active {
        self.active
            .as_mut()
            .expect("OK because every caller has made sure of a segment")
    }
}

/// The error where a segment's id would be used again.
fn no_more_segments() -> Fault {
    let max_bytes = u64::from(u32::MAX);
    let what = "the log of all segments there ever were".into();
    Fault::harmless(Error::TooLarge {
        what,
        actual_bytes: max_bytes + 1,
        max_bytes,
    })
}

/// What is kept free comes in steps of this many bytes.
const KEPT_STEP: u64 = 4 << 10;

impl Space {
    /// How much of `bytes` of a segment must stay free behind a record.
    fn kept_bytes(self, bytes: u64) -> u64 {
        match self {
            Self::Ordinary => (bytes / 8 / KEPT_STEP * KEPT_STEP).min(RESERVE_BYTES_MAX),
            Self::Reserve => 0,
        }
    }
}

/// The capacity of a new segment in which a record of `record_bytes` fits, whatever it is for.
fn capacity_for(record_bytes: u64, segment_bytes: u64) -> u64 {
    let needed = u64::from(SEGMENT_HEADER_BYTES) + room_bytes(record_bytes);
    if needed + Space::Ordinary.kept_bytes(segment_bytes) <= segment_bytes {
        return segment_bytes;
    }
    // An eighth of the sum is a seventh of what is needed.
    let kept = match needed / 7 {
        0..KEPT_STEP => 0,
        seventh => seventh.next_multiple_of(KEPT_STEP).min(RESERVE_BYTES_MAX),
    };
    (needed + kept)
        .max(segment_bytes)
        .min(SEGMENT_FILE_BYTES_MAX)
}

/// The room a record needs in its segment: itself, and a seal mark behind it.
fn room_bytes(record_bytes: u64) -> u64 {
    record_bytes + u64::from(RECORD_HEADER_BYTES)
}
