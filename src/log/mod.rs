//! Append-only files: the segments, the manifest that lists them, and the tail that grows.
//!
//! `engine::commit` comes in with a batch and gets the place where it lies; `engine::open` comes
//! in with a directory; reads come in with a location. Segments and `format` are below, the
//! index is not known here.
//!
//! Invariants:
//! 1. Records are written to a segment only after the manifest that lists it is durable.
//! 2. A segment is sealed, durable as a whole, before the next one takes a record.
//! 3. Files are never shrunk, and unlinked only when no manifest lists them.
//!
//! Threads and processes: one [`writer::Writer`] at a time appends (the writer lock); any thread
//! reads segments and syncs the tail.
//!
//! What a crash leaves: a torn record behind the tail, which [`repair`] zeroes; a segment that no
//! manifest lists, which [`remove_leftovers`] removes.

pub(crate) mod directory;
pub(crate) mod fault;
pub(crate) mod file_name;
mod group_sync;
pub(crate) mod location;
pub(crate) mod manifest;
pub(crate) mod repair;
pub(crate) mod scanner;
pub(crate) mod segment;
mod tail;
pub(crate) mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

use crate::error::{Error, Result};
use crate::format::header::SEGMENT_HEADER_BYTES;
use crate::format::manifest::Manifest;
use crate::vfs::{OpenMode, Vfs};
use directory::Directory;
use fault::Fault;
use location::Version;
use segment::Segment;
use tail::GrowingTail;

/// The live segments, in log order.
pub(crate) type Segments = Vec<Arc<Segment>>;

/// The log of an open store.
pub(crate) struct Log {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) directory: Directory,
    /// The segment target in bytes.
    segment_bytes: u32,
    segments: ArcSwap<Segments>,
    tail: GrowingTail,
}

impl Log {
    /// The log of `directory`, without segments yet.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, directory: Directory, segment_bytes: u32) -> Self {
        let segments = ArcSwap::from_pointee(Segments::new());
        Self {
            vfs,
            directory,
            segment_bytes,
            segments,
            tail: GrowingTail::new(),
        }
    }

    /// The live segments as they are now.
    pub(crate) fn segments(&self) -> Arc<Segments> {
        self.segments.load_full()
    }

    /// Takes `segments` as the live ones, all durable up to `end` in the last of them, and the
    /// batch `sequence` as the last before that end.
    pub(crate) fn install(&self, segments: Segments, end: u32, sequence: u64) {
        let active = segments.last().cloned();
        self.segments.store(Arc::new(segments));
        self.tail
            .restart(active.map(|segment| (segment, end)), sequence);
    }

    /// Notes that whole records reach up to `end` of the active segment, the last batch being
    /// `sequence`, and that the index has them. Readers see it now, or when what is awaited
    /// before it is durable.
    ///
    /// # Errors
    /// A poisoning fault if a sync has failed before.
    pub(crate) fn note_end(
        &self,
        segment: &Segment,
        end: u32,
        sequence: u64,
        is_awaited: bool,
    ) -> Result<(), Fault> {
        self.tail.append(segment.id, end, sequence, is_awaited)
    }

    /// The sequence number that new readers read at.
    pub(crate) fn visible(&self) -> &AtomicU64 {
        self.tail.visible()
    }

    /// Waits until readers see the batch `sequence`, sharing the syncs that takes.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub(crate) fn wait_visible(&self, sequence: u64) -> Result<(), Fault> {
        self.tail.wait_visible(self.vfs.as_ref(), sequence)
    }

    /// Hands the value at `version` of `key` to `take`.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        version: Version,
        verify: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let segments = self.segments.load();
        let segment = find(&segments, version.location.segment).ok_or_else(|| {
            let path = file_name::segment(&self.directory.path, version.location.segment);
            Error::corrupt(
                &path,
                u64::from(version.location.offset),
                "the segment is gone",
            )
        })?;
        segment.read(key, version, verify, take)
    }

    /// Counts the entry at `version` as dead.
    pub(crate) fn count_dead(&self, version: Version, key_len: usize) {
        if version.is_tombstone() {
            return;
        }
        let segments = self.segments.load();
        if let Some(segment) = find(&segments, version.location.segment) {
            segment.remove_live(version.entry_bytes(key_len));
        }
    }

    /// Makes all that is appended by now durable.
    ///
    /// # Errors
    /// A poisoning fault if this sync fails, or any before it has.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        self.tail.sync(self.vfs.as_ref())
    }

    /// How many syncs of segments have succeeded since the log was opened.
    pub(crate) fn sync_count(&self) -> u64 {
        self.tail.sync_count()
    }
}

/// The segment `id` among `segments`, whose ids rise.
pub(crate) fn find(segments: &[Arc<Segment>], id: u32) -> Option<&Arc<Segment>> {
    let at = segments
        .binary_search_by_key(&id, |segment| segment.id)
        .ok()?;
    segments.get(at)
}

/// Removes what a crash left: an unfinished manifest, and a segment that no manifest lists. Who
/// opens for reading only removes nothing, and refuses the same.
///
/// # Errors
/// `Corrupt` if an unlisted segment holds records: no crash leaves that, an old manifest was put
/// back; `Io`.
pub(crate) fn remove_leftovers(
    vfs: &dyn Vfs,
    directory: &Path,
    manifest: &Manifest,
    read_only: bool,
) -> Result<(), Fault> {
    let list_error = |error| Fault::harmless(Error::io("list", directory, error));
    for name in vfs.list(directory).map_err(list_error)? {
        let path = directory.join(&name);
        if name == file_name::MANIFEST_TEMPORARY {
            if !read_only {
                unlink(vfs, &path)?;
            }
        } else if let Some(id) = file_name::segment_id(&name)
            && manifest
                .segments
                .binary_search_by_key(&id, |listed| listed.id)
                .is_err()
        {
            refuse_records(vfs, &path).map_err(Fault::harmless)?;
            if !read_only {
                unlink(vfs, &path)?;
            }
        }
    }
    Ok(())
}

/// Whether `directory` holds segments.
pub(crate) fn has_segments(vfs: &dyn Vfs, directory: &Path) -> Result<bool> {
    let names = vfs
        .list(directory)
        .map_err(|error| Error::io("list", directory, error))?;
    Ok(names
        .iter()
        .any(|name| file_name::segment_id(name).is_some()))
}

fn unlink(vfs: &dyn Vfs, path: &Path) -> Result<(), Fault> {
    vfs.unlink(path)
        .map_err(|error| Fault::harmless(Error::io("remove", path, error)))
}

/// An unlisted segment has nothing but zeros behind its header (invariant 1).
fn refuse_records(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let read_error = |error| Error::io("read", path, error);
    let file = vfs
        .open(path, OpenMode::Read)
        .map_err(|error| Error::io("open", path, error))?;
    let mut first = [0; 4];
    let got = file
        .read_at(u64::from(SEGMENT_HEADER_BYTES), &mut first)
        .map_err(read_error)?;
    if first[..got].iter().any(|&byte| byte != 0) {
        return Err(Error::corrupt(
            path,
            u64::from(SEGMENT_HEADER_BYTES),
            "the segment holds records, but the manifest does not list it; an old manifest was put back",
        ));
    }
    Ok(())
}
