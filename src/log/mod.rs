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
//! manifest lists: of a roll-over, or of compaction, which [`leftovers`] removes.

pub(crate) mod directory;
pub(crate) mod fault;
pub(crate) mod file_name;
pub(crate) mod group_sync;
pub(crate) mod hints;
pub(crate) mod hints_writer;
pub(crate) mod leftovers;
pub(crate) mod location;
pub(crate) mod manifest;
pub(crate) mod merge;
pub(crate) mod repair;
pub(crate) mod scanner;
pub(crate) mod segment;
pub(crate) mod shared;
pub(crate) mod tail;
pub(crate) mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::vfs::{OpenMode, Vfs};
use directory::Directory;
use fault::Fault;
use group_sync::{Number, Numbers};
use location::Version;
use segment::Segment;
use shared::{PageOf, Shared};
use tail::GrowingTail;

/// The live segments, in log order.
pub(crate) type Segments = Vec<Arc<Segment>>;

/// The log of an open store.
pub(crate) struct Log {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) directory: Directory,
    /// The segment target in bytes.
    segment_bytes: u32,
    /// How the active segment is opened.
    mode: OpenMode,
    segments: ArcSwap<Segments>,
    /// For those who add to `segments`.
    adding: Mutex<()>,
    tail: GrowingTail,
    /// The sequence number that readers of this process read at: all before it is in the index.
    visible: AtomicU64,
    /// Whether the shared words tell of this log.
    follows: AtomicBool,
    page_of: PageOf,
}

impl Log {
    /// The log of `directory`, without segments yet, whose active one is opened in `mode`.
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        directory: Directory,
        shared: Shared,
        page_of: PageOf,
        segment_bytes: u32,
        mode: OpenMode,
    ) -> Self {
        let segments = ArcSwap::from_pointee(Segments::new());
        // Nobody knows what became of what waited for its sync then.
        let cause = io::Error::other("a write or a sync has failed, here or in another process");
        let foreign = Error::io("sync", &directory.path, cause);
        Self {
            vfs,
            directory,
            segment_bytes,
            mode,
            segments,
            adding: Mutex::default(),
            tail: GrowingTail::new(shared, foreign),
            visible: AtomicU64::new(0),
            follows: AtomicBool::new(true),
            page_of,
        }
    }

    /// How long a segment may become, unless a batch is longer.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// Says that this is a reader of a log that nobody writes, until the shared words say that
    /// somebody does.
    pub(crate) fn stand_still(&self) {
        self.follows.store(false, Ordering::Release);
    }

    /// The sequence number that is published: what readers of all processes are to see.
    pub(crate) fn published(&self) -> u64 {
        if !self.follows.load(Ordering::Acquire) {
            if !self.shared().is_of(&self.page_of) {
                return self.visible.load(Ordering::Acquire);
            }
            self.follows.store(true, Ordering::Release);
        }
        self.shared().get(Number::Visible)
    }

    /// Which store the shared words have to be of.
    pub(crate) fn page_of(&self) -> &PageOf {
        &self.page_of
    }

    /// The page of shared words.
    pub(crate) fn shared(&self) -> &Shared {
        self.tail.shared()
    }

    /// The live segments as they are now.
    pub(crate) fn segments(&self) -> Arc<Segments> {
        self.segments.load_full()
    }

    /// Says of a log that was recovered, or has gone on to an empty segment, that it ends at `end`
    /// of `segment`, behind the batch `sequence`, and is durable. The caller holds the writer lock.
    pub(crate) fn restart(&self, segment: Option<(u32, u32)>, sequence: u64) {
        self.tail.restart(segment, sequence);
    }

    /// Takes the first `failures` of all processes as mended.
    pub(crate) fn mend(&self, failures: u64) {
        self.tail.mend(failures);
    }

    /// Adds what is missing of `segments` to the live ones.
    pub(crate) fn add_segments(&self, segments: Segments) {
        let _guard = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.segments().as_ref().clone();
        for segment in segments {
            if let Err(at) = all.binary_search_by_key(&segment.id, |each| each.id) {
                all.insert(at, segment);
            }
        }
        self.segments.store(Arc::new(all));
    }

    /// Opens what is missing of the segments that `manifest` lists.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`.
    pub(crate) fn open_segments(&self, manifest: &Manifest) -> Result<()> {
        let known = self.segments();
        let (vfs, directory) = (self.vfs.as_ref(), &self.directory.path);
        let open = |entry: &SegmentEntry| {
            let mode = if entry.is_sealed() {
                OpenMode::Read
            } else {
                self.mode
            };
            Segment::open(vfs, directory, &manifest.store_id, entry.id, mode).map(Arc::new)
        };
        let missing = manifest.segments.iter();
        let missing = missing.filter(|entry| find(&known, entry.id).is_none());
        let opened = missing.map(open).collect::<Result<Segments>>()?;
        self.add_segments(opened);
        Ok(())
    }

    /// Opens what is missing of the segments that `manifest` lists, or the newest one, if that is
    /// not the newest any more; the one whose segments are open.
    ///
    /// # Errors
    /// As [`Log::open_segments`].
    pub(crate) fn open_listed(&self, manifest: Manifest) -> Result<Manifest> {
        let mut manifest = manifest;
        loop {
            let Err(error) = self.open_segments(&manifest) else {
                return Ok(manifest);
            };
            // Compaction may have removed one just now.
            let newest = self.load_manifest()?;
            if newest.generation == manifest.generation {
                return Err(error);
            }
            manifest = newest;
        }
    }

    /// Forgets segments that `is_needed` says no reader needs any more.
    pub(crate) fn keep_segments(&self, is_needed: impl Fn(&Segment) -> bool) {
        let _guard = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.segments();
        if !all.iter().all(|segment| is_needed(segment)) {
            let needed = all.iter().filter(|segment| is_needed(segment));
            self.segments.store(Arc::new(needed.cloned().collect()));
        }
    }

    /// The segment `id`, which may be one that another process has made; `None` for the id 0, and
    /// for one that is finished, and not needed any more.
    ///
    /// # Errors
    /// As [`Log::open_segments`].
    pub(crate) fn known_segment(&self, id: u32) -> Result<Option<Arc<Segment>>> {
        if id == 0 {
            return Ok(None);
        }
        if let Some(segment) = find(&self.segments.load(), id) {
            return Ok(Some(segment.clone()));
        }
        let manifest = self.open_listed(self.load_manifest()?)?;
        match find(&self.segments.load(), id) {
            Some(segment) => Ok(Some(segment.clone())),
            None if manifest.log().any(|listed| listed.id > id) => Ok(None),
            None => Err(self.gone(id, 0)),
        }
    }

    /// The manifest as it is on disk.
    ///
    /// # Errors
    /// `Corrupt`, also if there is none any more; `FormatVersion`, `Io`.
    pub(crate) fn load_manifest(&self) -> Result<Manifest> {
        self.directory.check(self.vfs.as_ref())?;
        let path = &self.directory.path;
        let refuse = |what| Error::corrupt(&path.join(file_name::MANIFEST), 0, what);
        let manifest = manifest::load(self.vfs.as_ref(), path)?
            .ok_or_else(|| refuse("it is gone, though the store is open"))?;
        if manifest.store_id != self.page_of.store_id {
            return Err(refuse("it is another store's, though this one is open"));
        }
        Ok(manifest)
    }

    /// The error for what lay at `offset` of a segment that is gone.
    pub(crate) fn gone(&self, id: u32, offset: u32) -> Error {
        let path = file_name::segment(&self.directory.path, id);
        Error::corrupt(&path, u64::from(offset), "the segment is gone")
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

    /// The sequence number that new readers of this process read at.
    pub(crate) fn visible(&self) -> &AtomicU64 {
        &self.visible
    }

    /// Waits until readers see the batch `sequence`, sharing the syncs that takes.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub(crate) fn wait_visible(&self, sequence: u64) -> Result<(), Fault> {
        self.tail.wait_visible(self, sequence)
    }

    /// The sync that has failed here, or what stands for failures of other processes.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.tail.failure()
    }

    /// Refuses if another process has recovered the log since this one opened it.
    ///
    /// # Errors
    /// What stands for failures of other processes.
    pub(crate) fn check_history(&self) -> Result<()> {
        self.tail.check_history()
    }

    /// Tells all processes that a write or a sync has failed.
    pub(crate) fn tell_failure(&self) {
        self.tail.tell_failure();
    }

    /// Hands the value at `version` of `key` to `take`, or gives that back if the segment is not there
    /// any more: the version lies elsewhere now.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn read<R, F: FnOnce(&[u8]) -> R>(
        &self,
        key: &[u8],
        version: Version,
        verify: bool,
        take: F,
    ) -> Result<std::result::Result<R, F>> {
        let segments = self.segments.load();
        match find(&segments, version.location.segment) {
            Some(segment) => segment.read(key, version, verify, take).map(Ok),
            None => Ok(Err(take)),
        }
    }

    /// The error for an entry whose segment is gone.
    pub(crate) fn gone_at(&self, version: Version) -> Error {
        self.gone(version.location.segment, version.location.offset)
    }

    /// Says that these entries, each with the length of its key, are read soon.
    pub(crate) fn warm(&self, entries: impl Iterator<Item = (usize, Version)>) {
        let segments = self.segments.load();
        for (key_len, version) in entries {
            if let Some(segment) = find(&segments, version.location.segment) {
                segment.warm(key_len, version);
            }
        }
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

    /// Up to where `segment`, the active one, is durable.
    pub(crate) fn synced_upto(&self, segment: u32) -> u32 {
        self.tail.synced_upto(segment)
    }

    /// Makes all that is appended by now durable.
    ///
    /// # Errors
    /// A poisoning fault if this sync fails, or any before it has.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        self.tail.sync(self)
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
