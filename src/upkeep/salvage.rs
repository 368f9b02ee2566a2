//! Salvage: what is whole in a damaged directory, as a new store.
//!
//! Every record that verifies counts, wherever it lies; behind one that does not, the next is
//! looked for at every place where one can begin. Of a record of moved entries each one counts. Checksums are seeded by place, so that nothing is
//! taken for a record that was not written as one right there. The newest version of each key wins
//! by its sequence number, tombstones included.
//!
//! Nothing is written into the damaged directory, and no lock is taken in it.
//!
//! What a crash leaves: a new store with a part of what was whole; it is to be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::Batch;
use crate::engine::open::{Wanted, open};
use crate::engine::{Engine, Opening};
use crate::error::{Error, Result};
use crate::format::checksum::StoreId;
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::format::manifest::{KeyKind, Manifest, SegmentEntry};
use crate::format::record::{MOVED_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use crate::format::scraps::whole_moved;
use crate::log::location::{Location, Version};
use crate::log::repair::end_of_nonzero;
use crate::log::scanner::{Record, What, damaged_moved, salvage_record};
use crate::log::segment::{Segment, peek};
use crate::log::{file_name, manifest};
use crate::options::{Create, Durability, Settings};
use crate::vfs::os::OsVfs;
use crate::vfs::{NodeKind, OpenMode, Vfs};

/// A batch of the new store is committed when it has so many bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// What a disk reads or not as a whole.
const BLOCK_BYTES: u32 = 4096;

/// Why a part of what compaction has moved is lost.
const DAMAGED_ENTRIES: &str = "the checksums of the entries there are wrong";

/// A part of a damaged store that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostBytes {
    /// The file.
    pub path: PathBuf,
    /// Where the part begins, in bytes.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What was found in a damaged store; made by [`salvage`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Segments that were looked at.
    pub segments: u64,
    /// Records in them that are whole.
    pub records: u64,
    /// Keys in the new store.
    pub keys: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Whether the manifest could not be relied on: it is lost, or an old one that was put back. Then
    /// every segment counts, also one that compaction had retired: deleted keys may be back. Without
    /// any manifest, what keys are is guessed from them, and the serializer is taken for the default
    /// one.
    pub is_guessed: bool,
    /// What is lost, by file and offset.
    pub lost: Vec<LostBytes>,
}

/// Reads whatever is whole in the damaged store in `from`, and makes a new store of it in `to`.
///
/// It is for a store that does not open any more, or whose values are reported as corrupt, and of
/// which there is no backup. Values are taken as the bytes that they are: any serializer and any
/// kind of keys will do. A commit of which a part is damaged is lost as a whole; what the keys in it
/// were before that comes back, if it is still there. Of what compaction has moved each entry counts
/// by itself. All keys have to fit into memory.
///
/// # Durability
/// The new store is on disk when this returns. Nothing is written into `from`.
///
/// # Blocking
/// Waits for nobody; reads everything. Nobody may write to `from` meanwhile.
///
/// # Errors
/// `NotFound` if there is no segment in `from` of which the store is known; `AlreadyExists` if there
/// is a store in `to`; `FormatVersion`; `DiskFull`, `Io`. Damage is no error, but in the report.
///
/// # Examples
/// ```
/// use happystore::{Store, salvage};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let (data, saved) = (directory.path().join("data"), directory.path().join("saved"));
/// let store = Store::open(&data)?;
/// store.set("a", &1)?;
/// store.close()?;
/// std::fs::remove_file(data.join("MANIFEST")).unwrap();
/// assert!(Store::open(&data).is_err());
///
/// let report = salvage(&data, &saved)?;
/// assert_eq!((report.keys, report.lost.len()), (1, 1));
/// assert_eq!(Store::open(&saved)?.get("a")?, Some(1));
/// # Ok::<(), happystore::Error>(())
/// ```
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport> {
    // What a disk cannot read any more would end a process that has it mapped.
    salvage_on(&OsVfs::without_mapping(), from.as_ref(), to.as_ref())
}

fn salvage_on(vfs: &Arc<dyn Vfs>, from: &Path, to: &Path) -> Result<SalvageReport> {
    let mut found = Found::default();
    let names = vfs
        .list(from)
        .map_err(|error| Error::io("list", from, error))?;
    let ids = names.iter().filter_map(|name| file_name::segment_id(name));
    let mut ids: BTreeSet<u32> = ids.collect();
    let listed = found.read_manifest(vfs.as_ref(), from, &ids)?;
    if let Some(manifest) = &listed {
        if !found.report.is_guessed {
            ids.clear();
        }
        ids.extend(manifest.segments.iter().map(|entry| entry.id));
    }
    let store_id = listed.as_ref().map(|manifest| manifest.store_id);
    let Some(store_id) = store_id.or_else(|| most_frequent(vfs.as_ref(), from, &ids)) else {
        return Err(Error::NotFound {
            path: from.to_owned(),
        });
    };
    for id in ids {
        found.read_segment(vfs.as_ref(), from, &store_id, id, listed.as_ref())?;
    }
    found.newest.retain(|_, version| !version.is_tombstone());
    found.write(vfs, to, listed.as_ref())
}

/// The store of which most of the segments are.
fn most_frequent(vfs: &dyn Vfs, from: &Path, ids: &BTreeSet<u32>) -> Option<StoreId> {
    let mut counts: BTreeMap<StoreId, u32> = BTreeMap::new();
    for id in ids {
        if let Ok(Some(header)) = peek(vfs, &file_name::segment(from, *id)) {
            *counts.entry(header.store_id).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(store_id, _)| store_id)
}

/// Whether `manifest` may be the newest that there was of the segments `ids`: all segments of the
/// store that it does not list are older, or have no records; or all that it does list are there.
fn is_newest(vfs: &dyn Vfs, from: &Path, manifest: &Manifest, ids: &BTreeSet<u32>) -> bool {
    let is_there = |entry: &SegmentEntry| ids.contains(&entry.id);
    let has_all = manifest.segments.iter().all(is_there);
    let unlisted = ids.iter().filter(|id| !manifest.lists(**id));
    let mut newer = unlisted.filter(|id| !has_all || **id >= manifest.next_segment);
    !newer.any(|id| {
        let path = file_name::segment(from, *id);
        let is_of_store = peek(vfs, &path)
            .ok()
            .flatten()
            .is_some_and(|header| header.store_id == manifest.store_id);
        let mut first = [0; 4];
        let file = vfs.open(&path, OpenMode::Read);
        let read = file.and_then(|file| file.read_at(SEGMENT_HEADER_BYTES.into(), &mut first));
        is_of_store && read.is_ok() && first != [0; 4]
    })
}

/// What was found so far.
#[derive(Default)]
struct Found {
    report: SalvageReport,
    newest: BTreeMap<Box<[u8]>, Version>,
    segments: BTreeMap<u32, Segment>,
}

impl Found {
    fn lose(&mut self, path: &Path, from: u64, to: u64, what: impl Into<String>) {
        self.report.lost.push(LostBytes {
            path: path.to_owned(),
            from,
            to,
            what: what.into(),
        });
    }

    /// The manifest, if it is whole; an old one says at least what store it is. The segments `ids`
    /// are there.
    fn read_manifest(
        &mut self,
        vfs: &dyn Vfs,
        from: &Path,
        ids: &BTreeSet<u32>,
    ) -> Result<Option<Manifest>> {
        let path = from.join(file_name::MANIFEST);
        let (manifest, what) = match manifest::load(vfs, from) {
            Ok(Some(manifest)) if is_newest(vfs, from, &manifest, ids) => {
                return Ok(Some(manifest));
            }
            Ok(Some(manifest)) => (Some(manifest), "it is older than the segments".to_owned()),
            Ok(None) => (None, "it is gone".to_owned()),
            Err(Error::Corrupt { what, .. }) => (None, what),
            Err(error) => return Err(error),
        };
        let file = vfs.open(&path, OpenMode::Read);
        let len = file.and_then(|file| file.len()).unwrap_or(0);
        self.lose(&path, 0, len, what);
        self.report.is_guessed = true;
        Ok(manifest)
    }

    /// Reads the segment `id`, as far as `listed` says that it goes.
    fn read_segment(
        &mut self,
        vfs: &dyn Vfs,
        from: &Path,
        store_id: &StoreId,
        id: u32,
        listed: Option<&Manifest>,
    ) -> Result<()> {
        let path = file_name::segment(from, id);
        let entry = listed.and_then(|manifest| manifest.segments.iter().find(|e| e.id == id));
        let known_end = entry.map_or(0, |entry| entry.end.len_bytes);
        let look = |error| Error::io("look at", &path, error);
        match vfs.node(&path).map_err(look)? {
            Some(NodeKind::File) => {}
            Some(_) => {
                self.lose(&path, 0, known_end, "it is no regular file");
                return Ok(());
            }
            None => {
                self.lose(&path, 0, known_end, "the file is gone");
                return Ok(());
            }
        }
        self.report.segments += 1;
        let is_log = entry.is_none_or(SegmentEntry::is_log);
        let header = SegmentHeader {
            store_id: *store_id,
            segment: id,
            capacity: 0,
            first_sequence: 0,
            kind: if is_log {
                SegmentKind::Log
            } else {
                SegmentKind::Compacted
            },
        };
        let head = peek(vfs, &path).ok().flatten();
        if head.is_none_or(|head| head.store_id != *store_id || head.segment != id) {
            let what = "the header is damaged, or of another segment";
            self.lose(&path, 0, u64::from(SEGMENT_HEADER_BYTES), what);
        }
        // Whatever the header says: records tell by their checksums where they belong.
        let segment = Segment::open_as(vfs, from, &header)?;
        let mut end = segment.capacity;
        if let Some(entry) = entry.filter(|entry| entry.is_sealed()) {
            let sealed = u32::try_from(entry.end.len_bytes).unwrap_or(u32::MAX);
            end = end.min(sealed);
        }
        let known = u32::try_from(known_end).unwrap_or(u32::MAX).min(end);
        self.read_records(&segment, end, known);
        if known_end > u64::from(end) {
            self.lose(&path, u64::from(end), known_end, "the file was cut off");
        }
        self.segments.insert(id, segment);
        Ok(())
    }

    /// Takes in all whole records in the first `end` bytes of `segment`, which has some up to `known`.
    fn read_records(&mut self, segment: &Segment, end: u32, known: u32) {
        let mut at = SEGMENT_HEADER_BYTES.min(end);
        // Where what is lost begins, and why.
        let mut lost: Option<(u32, &'static str)> = None;
        // Whether it is known that something was written behind that.
        let mut is_looked_at = false;
        while at < end {
            match readable(salvage_record(segment, at, end)) {
                Ok(record) => {
                    if let Some((from, what)) = lost.take() {
                        self.lose(&segment.path, from.into(), at.into(), what);
                    }
                    self.report.records += 1;
                    for entry in record.entries().map_while(std::result::Result::ok) {
                        let version = record.version(segment, &entry);
                        self.take(entry.key, version);
                    }
                    at = record.payload_offset() + record.header.payload_bytes;
                }
                Err(what) => {
                    if let Ok(Some((header, payload))) = damaged_moved(segment, at, end) {
                        if let Some((from, what)) = lost.take() {
                            self.lose(&segment.path, from.into(), at.into(), what);
                        }
                        at = self.read_scraps(segment, at, &header, &payload);
                    } else {
                        lost = lost.or(Some((at, what)));
                        at = next_place(segment, at, end);
                    }
                }
            }
            if let Some((from, _)) = lost
                && from >= known
                && !is_looked_at
                && end_of_nonzero(segment, from, end).is_ok_and(|end| end.is_none())
            {
                // Nothing was ever written there.
                return;
            }
            is_looked_at = lost.is_some();
        }
        if let Some((from, what)) = lost {
            let written = end_of_nonzero(segment, from, end).ok().flatten();
            let to = written.unwrap_or(end).max(known);
            self.lose(&segment.path, from.into(), to.into(), what);
        }
    }

    /// Takes in what is whole of a damaged record at `at`, whose entries belong together by chance;
    /// where the record ends.
    fn read_scraps(
        &mut self,
        segment: &Segment,
        at: u32,
        header: &RecordHeader,
        payload: &[u8],
    ) -> u32 {
        let begin = at + RECORD_HEADER_BYTES;
        let offset = |at: usize| u64::from(begin) + at as u64;
        let epoch = header.stamp.epoch;
        let mut done = 0;
        for (entry, end) in whole_moved(payload, segment.place(begin), epoch) {
            let entry_at = entry.at as usize - MOVED_BYTES as usize;
            if entry_at > done {
                let (from, to) = (offset(done), offset(entry_at));
                self.lose(&segment.path, from, to, DAMAGED_ENTRIES);
            }
            done = end;
            let value_bytes = entry
                .value
                .map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
            let location = Location::new(segment.id, begin + entry.at, epoch, value_bytes);
            let sequence = entry.sequence.unwrap_or(header.stamp.sequence);
            self.take(entry.key, Version { sequence, location });
        }
        // Records are filled up with zeros.
        let is_filled = |rest: &[u8]| rest.len() < RECORD_ALIGN as usize;
        if !is_filled(&payload[done..]) {
            let (from, to) = (offset(done), offset(payload.len()));
            self.lose(&segment.path, from, to, DAMAGED_ENTRIES);
        }
        begin + header.payload_bytes
    }

    fn take(&mut self, key: &[u8], version: Version) {
        match self.newest.get_mut(key) {
            Some(newest) if newest.sequence >= version.sequence => {}
            Some(newest) => *newest = version,
            None => {
                self.newest.insert(key.into(), version);
            }
        }
    }

    /// Makes the new store.
    fn write(
        mut self,
        vfs: &Arc<dyn Vfs>,
        to: &Path,
        listed: Option<&Manifest>,
    ) -> Result<SalvageReport> {
        let is_text = || {
            self.newest
                .keys()
                .all(|key| std::str::from_utf8(key).is_ok())
        };
        let key_kind = match listed {
            Some(manifest) => manifest.key_kind,
            None if is_text() => KeyKind::Text,
            None => KeyKind::Bytes,
        };
        let settings = Settings {
            create: Create::New,
            durability: Durability::Os,
            ..Settings::default()
        };
        let wanted = Wanted {
            key_kind,
            serializer: listed.map_or("cbor", |manifest| &manifest.serializer),
        };
        let opening = open(vfs, to, &settings, &wanted)?;
        let mut batch = Batch::new();
        let mut batch_bytes = 0;
        for (key, version) in &self.newest {
            let Some(segment) = self.segments.get(&version.location.segment) else {
                continue;
            };
            let mut value = Vec::new();
            match segment.read(key, *version, true, |bytes| value.extend_from_slice(bytes)) {
                Ok(()) => {}
                // Whatever it is: it was whole a moment ago.
                Err(error) => {
                    let from = u64::from(version.location.offset);
                    self.report.lost.push(LostBytes {
                        path: segment.path.clone(),
                        from,
                        to: from + version.entry_bytes(key.len()),
                        what: error.to_string(),
                    });
                    continue;
                }
            }
            batch.change(key, Some(&value))?;
            batch_bytes += version.entry_bytes(key.len());
            self.report.keys += 1;
            self.report.bytes += (key.len() + value.len()) as u64;
            if batch_bytes >= BATCH_BYTES {
                commit(&opening, &mut batch)?;
                batch = Batch::new();
                batch_bytes = 0;
            }
        }
        commit(&opening, &mut batch)?;
        opening.close()?;
        Ok(self.report)
    }
}

/// What cannot be read is lost like what is damaged.
fn readable(
    record: Result<std::result::Result<Record<'_>, What>>,
) -> std::result::Result<Record<'_>, What> {
    record.unwrap_or(Err("it cannot be read"))
}

/// The next place behind `at` at which a record may begin: not in a block that cannot be read, nor
/// among zeros, because the second word of a header is none.
fn next_place(segment: &Segment, at: u32, end: u32) -> u32 {
    let next = at.saturating_add(RECORD_ALIGN);
    let block = (at / BLOCK_BYTES + 1).saturating_mul(BLOCK_BYTES).min(end);
    let Ok(bytes) = segment.view(at, (block - at) as usize) else {
        return block.max(next);
    };
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let zeros = u32::try_from(zeros).unwrap_or(0);
    // Where the first byte that is not zero is one of the second word.
    let first = (at + zeros) / RECORD_ALIGN * RECORD_ALIGN;
    first.saturating_sub(RECORD_ALIGN).max(next)
}

fn commit(opening: &Arc<Opening>, batch: &mut Batch) -> Result<()> {
    let engine: &Arc<Engine> = &opening.engine;
    Engine::begin(engine, opening.lock_timeout, None)?.commit(batch, Durability::Os)
}
