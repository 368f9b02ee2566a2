//! A segment that compaction makes: entries in key order, with hints, durable before it is listed.
//!
//! What a crash leaves: files that no manifest lists and whose id was taken, which the next compaction
//! removes.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::checksum::Stamp;
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::format::manifest::{Manifest, SegmentEnd, SegmentEntry, SegmentState};
use crate::format::record::{
    ENTRY_HEADER_BYTES, Frame, MOVED_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordKind,
    push_moved, seal_record,
};
use crate::limits::SEGMENT_FILE_BYTES_MAX;
use crate::log::Log;
use crate::log::directory::Directory;
use crate::log::file_name;
use crate::log::hints_writer::HintsWriter;
use crate::log::location::{Location, Version};
use crate::log::segment::Segment;
use crate::vfs::Vfs;

/// A record is ended when its entries have this many bytes.
const RECORD_BYTES: usize = 64 << 10;

/// The file is synced after every so many bytes, so that the last sync is short.
const SYNC_BYTES: u32 = 8 << 20;

/// A segment under work; its files are removed if it is dropped before it was listed.
pub(crate) struct Output {
    vfs: Arc<dyn Vfs>,
    directory: Directory,
    segment: Segment,
    hints: Option<HintsWriter>,
    /// The length of hints that are finished.
    hint_bytes: u64,
    epoch: u32,
    /// Room for a header, then entries without checksums.
    record: Vec<u8>,
    /// The keys of the record, one behind the other, and for each its length and version; where
    /// the entries lie is known when the record is written.
    keys: Vec<u8>,
    entries: Vec<(usize, Version)>,
    /// Behind the last record that was written.
    at: u32,
    synced: u32,
    last_sequence: u64,
    is_listed: bool,
}

impl Output {
    /// Makes the segment `id`, for entries of sequence number `first_sequence` or higher, that grows
    /// up to `capacity` bytes.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn create(
        log: &Log,
        manifest: &Manifest,
        id: u32,
        first_sequence: u64,
        capacity: u64,
    ) -> Result<Self> {
        let (vfs, directory) = (&log.vfs, &log.directory);
        directory.check(vfs.as_ref())?;
        let header = SegmentHeader {
            store_id: manifest.store_id,
            segment: id,
            capacity: u32::try_from(capacity.min(SEGMENT_FILE_BYTES_MAX)).unwrap_or(u32::MAX),
            first_sequence,
            kind: SegmentKind::Compacted,
        };
        let segment =
            Segment::create(vfs.as_ref(), &directory.path, &header).map_err(|fault| fault.error)?;
        let mut output = Self {
            vfs: vfs.clone(),
            directory: directory.clone(),
            segment,
            hints: None,
            hint_bytes: 0,
            epoch: manifest.epoch,
            record: vec![0; RECORD_HEADER_BYTES as usize],
            keys: Vec::new(),
            entries: Vec::new(),
            at: SEGMENT_HEADER_BYTES,
            synced: SEGMENT_HEADER_BYTES,
            last_sequence: first_sequence,
            is_listed: false,
        };
        // After the segment, which removes what is here if this fails.
        let hints = HintsWriter::create(vfs, &directory.path, manifest.store_id, id)?;
        output.hints = Some(hints);
        failpoint::hit!("compaction-created");
        Ok(output)
    }

    /// How long a segment has to be in which an entry with a key of `key_len` bytes is alone.
    pub(crate) fn needed_bytes(key_len: usize, version: Version) -> u64 {
        let record_bytes = u64::from(RECORD_HEADER_BYTES + MOVED_BYTES + RECORD_ALIGN);
        u64::from(SEGMENT_HEADER_BYTES) + record_bytes + version.entry_bytes(key_len)
    }

    /// Whether there is room for an entry with a key of `key_len` bytes.
    pub(crate) fn has_room(&self, key_len: usize, version: Version) -> bool {
        let pending = (self.record.len() + RECORD_ALIGN as usize) as u64;
        // As if it needed a record of its own.
        let more = Self::needed_bytes(key_len, version);
        u64::from(self.at) + pending + more <= u64::from(self.segment.capacity)
    }

    /// Adds an entry, whose key comes after all before it.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        version: Version,
        value: Option<&[u8]>,
    ) -> Result<()> {
        push_moved(&mut self.record, version.sequence, key, value);
        self.keys.extend_from_slice(key);
        self.entries.push((key.len(), version));
        self.last_sequence = self.last_sequence.max(version.sequence);
        if self.record.len() >= RECORD_BYTES {
            self.write_record()?;
        }
        Ok(())
    }

    /// How many bytes were written, hints included.
    pub(crate) fn written_bytes(&self) -> u64 {
        let hints = self.hints.as_ref();
        u64::from(self.at) + hints.map_or(self.hint_bytes, HintsWriter::written_bytes)
    }

    fn write_record(&mut self) -> Result<()> {
        let Some(highest) = self
            .entries
            .iter()
            .map(|(_, version)| version.sequence)
            .max()
        else {
            return Ok(());
        };
        let (at, epoch) = (self.at, self.epoch);
        let frame = Frame {
            kind: RecordKind::Moved,
            entry_count: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
            stamp: Stamp {
                sequence: highest,
                epoch,
            },
            synced_upto: self.synced,
        };
        seal_record(&mut self.record, self.segment.place(at), frame);
        let record_bytes = u32::try_from(self.record.len()).unwrap_or(u32::MAX);
        let (file, path) = (&self.segment.file, &self.segment.path);
        let end = at.saturating_add(record_bytes);
        if u64::from(end) > u64::from(self.segment.file_bytes()?) {
            file.allocate(u64::from(end))
                .map_err(|error| Error::allocate(path, u64::from(record_bytes), error))?;
        }
        file.write_at(u64::from(at), &self.record)
            .map_err(|error| Error::write(path, u64::from(record_bytes), error))?;
        failpoint::hit!("compaction-written");
        self.push_hints(at)?;
        self.at = end;
        self.record.truncate(RECORD_HEADER_BYTES as usize);
        if self.at - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Gives the hints the entries of the record that begins at `at`.
    fn push_hints(&mut self, at: u32) -> Result<()> {
        let mut offset = at + RECORD_HEADER_BYTES;
        let mut keys = self.keys.as_slice();
        for (key_len, version) in self.entries.drain(..) {
            let (key, rest) = keys.split_at(key_len);
            keys = rest;
            offset += MOVED_BYTES;
            let value_bytes = version.location.value_bytes();
            let moved = Version {
                location: Location::new(self.segment.id, offset, self.epoch, value_bytes),
                ..version
            };
            if let Some(hints) = &mut self.hints {
                hints.push(key, moved)?;
            }
            let entry_bytes = ENTRY_HEADER_BYTES as usize + key_len;
            offset += u32::try_from(entry_bytes).unwrap_or(u32::MAX) + value_bytes.unwrap_or(0);
        }
        self.keys.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.segment.file.sync();
        self.synced = self.at;
        synced.map_err(|error| Error::io("sync", &self.segment.path, error))
    }

    /// Ends it: all of it is durable on return, but for its name and its hints. How the manifest is
    /// to list it.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn finish(&mut self) -> Result<SegmentEntry> {
        self.write_record()?;
        self.sync()?;
        if let Some(hints) = self.hints.take() {
            self.hint_bytes = hints.finish(self.at, self.last_sequence)?;
        }
        Ok(SegmentEntry {
            id: self.segment.id,
            first_sequence: self.segment.first_sequence,
            state: SegmentState::Compacted,
            end: SegmentEnd {
                len_bytes: u64::from(self.at),
                last_sequence: self.last_sequence,
            },
        })
    }

    /// Says that a manifest lists it, or may.
    pub(crate) fn set_listed(&mut self) {
        self.is_listed = true;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_listed && self.directory.check(self.vfs.as_ref()).is_ok() {
            // OK because nobody knows of them, and the next compaction removes them too.
            let _ = self.vfs.unlink(&self.segment.path);
            let hints = file_name::hints(&self.directory.path, self.segment.id);
            let _ = self.vfs.unlink(&hints);
        }
    }
}
