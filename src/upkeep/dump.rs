//! Dumps: every entry of a directory, as it lies in the files, without any lock.
//!
//! What is finished never changes, and what grows is read as far as it is whole; so others may write
//! and compact meanwhile. All segments are open before the first is read: compaction may remove
//! their names.

use std::collections::VecDeque;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::format::record::RecordKind;
use crate::log::manifest;
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::vfs::os::OsVfs;
use crate::vfs::{OpenMode, Vfs};

/// What an entry came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpedKind {
    /// A commit.
    Batch,
    /// A clean close; it has neither key nor value.
    SealMark,
    /// Compaction, which has moved it here.
    Moved,
}

/// One entry of a store's files; see [`dump`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpedEntry {
    /// The id of the segment, which names its file.
    pub segment: u32,
    /// Where in it the record begins that has the entry, in bytes.
    pub offset: u32,
    /// The sequence number of the batch that wrote it.
    pub sequence: u64,
    /// What it came with.
    pub kind: DumpedKind,
    /// The key; empty in a seal mark.
    pub key: Vec<u8>,
    /// The value as it lies there; `None` if the key was deleted, and in a seal mark.
    pub value: Option<Vec<u8>>,
}

/// The entries of a store's files, segment by segment; made by [`dump`].
///
/// Damage in a finished segment is one error, and the next segment comes after it.
pub struct Dump {
    segments: VecDeque<(Segment, SegmentEntry)>,
    epoch: u32,
    /// Where the next record begins in the first segment, and the last batch before it.
    at: u32,
    sequence: u64,
    entries: VecDeque<DumpedEntry>,
}

/// All entries in the files of the store in `path`, also those that are dead, in the order in which
/// they lie there: the newest version of a key is the one with the highest sequence number.
///
/// # Blocking
/// Waits for nobody, and keeps nobody from anything; others may write and compact meanwhile. What
/// is committed after this call may be seen or not.
///
/// # Errors
/// `NotFound`; `Corrupt`, `FormatVersion`, `Io`.
///
/// # Examples
/// ```
/// use happystore::{Store, dump};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("data");
/// let store = Store::open(&path)?;
/// store.set("a", &1)?;
/// store.delete("a")?;
/// let entries = dump(&path)?.collect::<happystore::Result<Vec<_>>>()?;
/// assert_eq!(entries[0].value, Some(vec![1]));
/// assert_eq!((entries[1].sequence, &entries[1].value), (2, &None));
/// # Ok::<(), happystore::Error>(())
/// ```
pub fn dump(path: impl AsRef<Path>) -> Result<Dump> {
    let (vfs, path) = (OsVfs::new(), path.as_ref());
    let load = || -> Result<Manifest> {
        manifest::load(vfs.as_ref(), path)?.ok_or_else(|| Error::NotFound {
            path: path.to_owned(),
        })
    };
    let mut manifest = load()?;
    let segments = loop {
        let error = match open_all(vfs.as_ref(), path, &manifest) {
            Ok(segments) => break segments,
            Err(error) => error,
        };
        // Compaction may have removed one just now.
        let newest = load()?;
        if newest.generation == manifest.generation {
            return Err(error);
        }
        manifest = newest;
    };
    let mut dump = Dump {
        segments,
        epoch: manifest.epoch,
        at: 0,
        sequence: 0,
        entries: VecDeque::new(),
    };
    dump.begin_segment();
    Ok(dump)
}

fn open_all(
    vfs: &dyn Vfs,
    path: &Path,
    manifest: &Manifest,
) -> Result<VecDeque<(Segment, SegmentEntry)>> {
    let open = |entry: &SegmentEntry| {
        let store_id = &manifest.store_id;
        Segment::open(vfs, path, store_id, entry.id, OpenMode::Read)
            .map(|segment| (segment, *entry))
    };
    manifest.segments.iter().map(open).collect()
}

impl Dump {
    /// Stands at the begin of the first segment that is left.
    fn begin_segment(&mut self) {
        if let Some((segment, _)) = self.segments.front() {
            (self.at, self.sequence) = (0, segment.first_sequence.saturating_sub(1));
        }
    }

    /// Reads the next record; false if there is none.
    fn read_record(&mut self) -> Result<bool> {
        while let Some((segment, entry)) = self.segments.front() {
            let file_bytes = segment.file_bytes()?;
            let end = match u32::try_from(entry.end.len_bytes) {
                Ok(end) if entry.is_sealed() => end.min(file_bytes),
                _ => file_bytes,
            };
            // A repair may have raised the epoch of what grows since the manifest was read.
            let epoch_max = if entry.is_sealed() {
                self.epoch
            } else {
                u32::MAX
            };
            let mut scanner = Scanner::resume(segment, self.at, end, epoch_max, self.sequence);
            if let Some(record) = scanner.next()? {
                let kind = match record.header.kind {
                    RecordKind::Batch => DumpedKind::Batch,
                    RecordKind::SealMark => DumpedKind::SealMark,
                    RecordKind::Moved => DumpedKind::Moved,
                };
                let of = |key: &[u8], value: Option<&[u8]>, sequence: u64| DumpedEntry {
                    segment: segment.id,
                    offset: record.offset,
                    sequence,
                    kind,
                    key: key.to_vec(),
                    value: value.map(<[u8]>::to_vec),
                };
                let sequence = record.header.stamp.sequence;
                if kind == DumpedKind::SealMark {
                    self.entries.push_back(of(&[], None, sequence));
                }
                for entry in record.entries() {
                    let damaged =
                        |what| Error::corrupt(&segment.path, u64::from(record.offset), what);
                    let entry = entry.map_err(damaged)?;
                    let sequence = entry.sequence.unwrap_or(sequence);
                    self.entries.push_back(of(entry.key, entry.value, sequence));
                }
                (self.at, self.sequence) = (scanner.offset(), scanner.sequence());
                return Ok(true);
            }
            // What grows ends where the next record is not there yet.
            if entry.is_sealed() && u64::from(scanner.offset()) < entry.end.len_bytes {
                let what = scanner.stopped().unwrap_or("the file was cut off");
                return Err(Error::corrupt(
                    &segment.path,
                    u64::from(scanner.offset()),
                    what,
                ));
            }
            self.segments.pop_front();
            self.begin_segment();
        }
        Ok(false)
    }
}

impl Iterator for Dump {
    type Item = Result<DumpedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Some(Ok(entry));
            }
            match self.read_record() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.segments.pop_front();
                    self.begin_segment();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump")
            .field("segments_left", &self.segments.len())
            .finish_non_exhaustive()
    }
}
