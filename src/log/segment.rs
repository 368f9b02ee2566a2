//! One segment file: its identity, and the reading of single entries.
//!
//! Segments are made by the writer and by opening; every read of a value ends here. A segment
//! never shrinks and its records never change, so borrowed views of published entries stay what
//! they are for as long as the segment is held.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::fault::Fault;
use super::file_name;
use super::location::Version;
use super::manifest::refuse;
use crate::error::{Error, Result};
use crate::format::checksum::{Place, StoreId, store_seed};
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::format::record::{ENTRY_HEADER_BYTES, entry_value};
use crate::limits::{ALLOCATE_BYTES_MIN, SEGMENT_FILE_BYTES_MAX};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// What [`Segment::is_needed`] is behind for ever.
const NOT_RETIRED: u64 = u64::MAX;

/// The header of the file `path`, if it has one.
///
/// # Errors
/// `Io`.
pub(crate) fn peek(vfs: &dyn Vfs, path: &Path) -> Result<Option<SegmentHeader>> {
    let file = match vfs.open(path, OpenMode::Read) {
        // Somebody who compacts has removed it since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| Error::io("open", path, error))?,
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    let got = file
        .read_at(0, &mut bytes)
        .map_err(|error| Error::io("read", path, error))?;
    Ok(SegmentHeader::decode(&bytes[..got]).ok())
}

/// Of a long entry only the beginning is worth bringing near: the rest the machine foresees.
const WARM_BYTES_MAX: usize = 512;

/// A segment of the log.
pub(crate) struct Segment {
    /// Its id.
    pub(crate) id: u32,
    /// Its file's path.
    pub(crate) path: PathBuf,
    /// Its file.
    pub(crate) file: Arc<dyn VfsFile>,
    /// The length up to which the file may grow, in bytes.
    pub(crate) capacity: u32,
    /// The sequence number of its first batch; of a compacted one, the lowest of its entries.
    pub(crate) first_sequence: u64,
    /// How its records came there.
    pub(crate) kind: SegmentKind,
    /// Behind its last whole record.
    end: AtomicU32,
    /// The bytes of entries that the index points to.
    pub(crate) live_bytes: AtomicU64,
    /// Of a compacted one, the length of its entries; 0 if it is not known.
    entry_bytes: AtomicU64,
    /// Of a compacted one, the bytes of tombstones that were needed when it was made.
    pub(crate) needed_bytes: AtomicU64,
    /// How many tombstones it has, at least; more if a key was deleted more than once.
    tombstones: AtomicU64,
    /// The length of its hints; 0 if it is not known to have whole ones.
    hint_bytes: AtomicU64,
    /// Once compaction has retired it: the sequence number from which on no reader needs it.
    retired_at: AtomicU64,
    store: u64,
}

impl Segment {
    /// Creates the file of a segment that no manifest lists yet; durable on return, but for its
    /// name.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        directory: &Path,
        header: &SegmentHeader,
    ) -> Result<Self, Fault> {
        let path = file_name::segment(directory, header.segment);
        let file = vfs
            .open(&path, OpenMode::CreateEmpty)
            .map_err(|error| Fault::harmless(Error::create(&path, error)))?;
        let len = ALLOCATE_BYTES_MIN.min(u64::from(header.capacity));
        if let Err(error) = file.allocate(len) {
            // Harmless: no manifest lists the file, and opening would remove it too.
            let _ = vfs.unlink(&path);
            return Err(Fault::harmless(Error::allocate(&path, len, error)));
        }
        file.write_at(0, &header.encode())
            .map_err(|error| Fault::poison("write", &path, error))?;
        file.sync()
            .map_err(|error| Fault::poison("sync", &path, error))?;
        file.expect_writes(u64::from(SEGMENT_HEADER_BYTES), len);
        Ok(Self::new(path, file, header))
    }

    /// Opens the file of a segment that the manifest lists.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        directory: &Path,
        store_id: &StoreId,
        id: u32,
        mode: OpenMode,
    ) -> Result<Self> {
        let path = file_name::segment(directory, id);
        let node = vfs
            .node(&path)
            .map_err(|error| Error::io("look at", &path, error))?;
        if node.is_none() {
            return Err(Error::corrupt(
                &path,
                0,
                "the manifest lists this segment, but it is gone",
            ));
        }
        let file = vfs
            .open(&path, mode)
            .map_err(|error| Error::io("open", &path, error))?;
        let read_error = |error| Error::io("read", &path, error);
        let len = file.len().map_err(read_error)?;
        if len < u64::from(SEGMENT_HEADER_BYTES) {
            return Err(Error::corrupt(
                &path,
                len,
                "the segment ends within its header",
            ));
        }
        let bytes = file
            .view(0, SEGMENT_HEADER_BYTES as usize)
            .map_err(read_error)?;
        let header = SegmentHeader::decode(&bytes).map_err(|defect| refuse(&path, &defect))?;
        drop(bytes);
        if header.store_id != *store_id {
            return Err(Error::corrupt(
                &path,
                16,
                "the segment belongs to another store",
            ));
        }
        if header.segment != id {
            return Err(Error::corrupt(
                &path,
                32,
                "the segment has another id than its name",
            ));
        }
        if u64::from(header.capacity) > SEGMENT_FILE_BYTES_MAX || len > u64::from(header.capacity) {
            return Err(Error::corrupt(
                &path,
                36,
                "the segment is longer than it may be",
            ));
        }
        Ok(Self::new(path, file, &header))
    }

    /// Opens the file of a segment that is damaged, and was as `header` says but for its capacity, to
    /// read what is whole. It has the length of the file then, as far as a segment can reach.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open_as(vfs: &dyn Vfs, directory: &Path, header: &SegmentHeader) -> Result<Self> {
        let path = file_name::segment(directory, header.segment);
        let file = vfs
            .open(&path, OpenMode::Read)
            .map_err(|error| Error::io("open", &path, error))?;
        let len = file
            .len()
            .map_err(|error| Error::io("read", &path, error))?;
        let capacity = u32::try_from(len.min(SEGMENT_FILE_BYTES_MAX)).unwrap_or(u32::MAX);
        let header = SegmentHeader {
            capacity,
            ..*header
        };
        Ok(Self::new(path, file, &header))
    }

    fn new(path: PathBuf, file: Arc<dyn VfsFile>, header: &SegmentHeader) -> Self {
        file.map(u64::from(header.capacity));
        Self {
            id: header.segment,
            path,
            file,
            capacity: header.capacity,
            first_sequence: header.first_sequence,
            kind: header.kind,
            end: AtomicU32::new(SEGMENT_HEADER_BYTES),
            live_bytes: AtomicU64::new(0),
            entry_bytes: AtomicU64::new(0),
            needed_bytes: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            hint_bytes: AtomicU64::new(0),
            retired_at: AtomicU64::new(NOT_RETIRED),
            store: store_seed(&header.store_id),
        }
    }

    /// Whether it is a part of the log, in which batches follow each other.
    pub(crate) fn is_log(&self) -> bool {
        self.kind == SegmentKind::Log
    }

    /// A place in this segment, for checksums.
    pub(crate) fn place(&self, offset: u32) -> Place {
        Place {
            store: self.store,
            segment: self.id,
            offset,
        }
    }

    /// The bytes from `offset`.
    pub(crate) fn view(&self, offset: u32, len_bytes: usize) -> Result<Cow<'_, [u8]>> {
        self.file
            .view(u64::from(offset), len_bytes)
            .map_err(|error| Error::io("read", &self.path, error))
    }

    /// The file's length in bytes, at most [`Segment::capacity`].
    pub(crate) fn file_bytes(&self) -> Result<u32> {
        let len = self
            .file
            .len()
            .map_err(|error| Error::io("read", &self.path, error))?;
        u32::try_from(len)
            .ok()
            .filter(|&len| len <= self.capacity)
            .ok_or_else(|| Error::corrupt(&self.path, 36, "the segment is longer than it may be"))
    }

    /// Hands the value of the entry at `version` to `take`, checked as far as `verify` asks.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        version: Version,
        verify: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let offset = version.location.offset;
        let value_len = version.location.value_bytes().unwrap_or(0) as usize;
        let len = ENTRY_HEADER_BYTES as usize + key.len() + value_len;
        let bytes = match self.file.view(u64::from(offset), len) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(Error::corrupt(
                    &self.path,
                    u64::from(offset),
                    "the file was cut off",
                ));
            }
            Err(error) => return Err(Error::io("read", &self.path, error)),
        };
        match entry_value(&bytes, self.place(offset), version.stamp(), key, verify) {
            Ok(value) => Ok(take(value)),
            Err(what) => Err(Error::corrupt(&self.path, u64::from(offset), what)),
        }
    }

    /// Says that the entry at `version`, of a key of `key_len` bytes, is read soon.
    pub(crate) fn warm(&self, key_len: usize, version: Version) {
        let len = usize::try_from(version.entry_bytes(key_len)).unwrap_or(0);
        self.file
            .warm(u64::from(version.location.offset), len.min(WARM_BYTES_MAX));
    }

    /// Behind the last whole record, header included.
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// Notes that whole records reach up to `end`.
    pub(crate) fn set_end(&self, end: u32) {
        self.end.store(end, Ordering::Release);
    }

    /// Notes that it is finished: `end` is behind its last record, and its keys have entries of
    /// `entry_bytes`.
    pub(crate) fn set_finished(&self, end: u32, entry_bytes: u64) {
        self.entry_bytes.store(entry_bytes, Ordering::Relaxed);
        self.set_end(end);
    }

    /// The length of what it holds, frames included in the log, and left out in a compacted one.
    pub(crate) fn content_bytes(&self) -> u64 {
        match self.entry_bytes.load(Ordering::Relaxed) {
            bytes if bytes > 0 && !self.is_log() => bytes,
            _ => u64::from(self.end() - SEGMENT_HEADER_BYTES),
        }
    }

    /// Counts a tombstone of `bytes`: compaction moves only those that are needed.
    pub(crate) fn add_tombstone(&self, bytes: u64) {
        self.add_tombstones(1);
        if !self.is_log() {
            self.needed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts so many tombstones.
    pub(crate) fn add_tombstones(&self, count: u64) {
        self.tombstones.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes that it has whole hints of that length.
    pub(crate) fn set_hinted(&self, hint_bytes: u64) {
        self.hint_bytes.store(hint_bytes, Ordering::Relaxed);
    }

    /// The length of its hints; 0 if it is not known to have whole ones.
    pub(crate) fn hint_bytes(&self) -> u64 {
        self.hint_bytes.load(Ordering::Relaxed)
    }

    /// Whether it has a tombstone.
    pub(crate) fn has_tombstones(&self) -> bool {
        self.tombstones.load(Ordering::Relaxed) > 0
    }

    /// Says that whoever reads at `sequence` or later does not need it, unless that was said before.
    pub(crate) fn retire(&self, sequence: u64) {
        self.retired_at.fetch_min(sequence, Ordering::AcqRel);
    }

    /// Says that it is listed: what was said before was of a time before that.
    pub(crate) fn set_listed(&self) {
        self.retired_at.store(NOT_RETIRED, Ordering::Release);
    }

    /// Whether somebody who reads at `oldest` or later may need it.
    pub(crate) fn is_needed(&self, oldest: u64) -> bool {
        oldest < self.retired_at.load(Ordering::Acquire)
    }

    /// Counts `bytes` of an entry as pointed to by the index.
    pub(crate) fn add_live(&self, bytes: u64) {
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` of an entry as dead.
    pub(crate) fn remove_live(&self, bytes: u64) {
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
