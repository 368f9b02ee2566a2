//! Opening: find or make the directory, lock it, recover the log, fill the index.
//!
//! `store` comes in with a path and settings, and gets an [`Opening`]. Only the process that
//! holds `LOCK` changes anything here. What a crash in the middle leaves, step by step: a
//! directory without `MANIFEST` (made anew next time); a torn tail zeroed in part (found again);
//! a zeroed tail under the old epoch (clean, nothing of it verifies). Opening may be killed and
//! repeated at any point.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::process_lock::ProcessLock;
use super::replay::replay;
use super::writer_lock::WriterLock;
use super::{Counters, Engine, Identity, Opening, deferred, registry, snapshot};
use crate::error::{Error, Result};
use crate::format::manifest::{KeyKind, Manifest, SegmentEntry};
use crate::index::Index;
use crate::limits::ALLOCATE_BYTES_MIN;
use crate::log::fault::Fault;
use crate::log::repair::{self, Tail as TailState};
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::writer::{Active, Writer};
use crate::log::{self, Log, Segments, Tail, has_segments, manifest, remove_leftovers};
use crate::options::{Access, Create, OpenProgress, Settings};
use crate::vfs::{Locality, NodeKind, OpenMode, Vfs};

/// What the store above wants its directory to be made with.
pub(crate) struct Wanted<'a> {
    pub(crate) key_kind: KeyKind,
    pub(crate) serializer: &'a str,
}

/// Opens the store at `path`.
///
/// # Errors
/// Nearly every kind; `Options::open` lists them.
pub(crate) fn open(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Arc<Opening>> {
    make_directory(vfs.as_ref(), path, settings)?;
    let directory = vfs
        .absolute(path)
        .map_err(|error| Error::io("look at", path, error))?;
    let open = || open_engine(vfs, &directory, settings, wanted);
    let (engine, was_open) = registry::find_or_open(vfs, &directory, settings.lock_timeout, open)?;
    let opening = Arc::new(Opening {
        engine,
        lock_timeout: settings.lock_timeout,
        durability: settings.durability,
        label: settings.label.clone(),
        closing: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    if was_open {
        // From here on the opening's drop gives back what was counted.
        check_reopen(&opening.engine.identity, settings, wanted)?;
    }
    Ok(opening)
}

/// Sees to it that `path` is a directory.
fn make_directory(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<()> {
    match vfs
        .node(path)
        .map_err(|error| Error::io("look at", path, error))?
    {
        Some(NodeKind::Directory) => Ok(()),
        Some(NodeKind::File) => Err(Error::NotAStore {
            path: path.to_owned(),
            what: "it is a file, not a directory",
        }),
        Some(NodeKind::Other) => Err(Error::NotAStore {
            path: path.to_owned(),
            what: "it is not a directory",
        }),
        None if settings.access == Access::ReadOnly || settings.create == Create::Never => {
            Err(Error::NotFound {
                path: path.to_owned(),
            })
        }
        None => vfs
            .create_dir_all(path)
            .map_err(|error| Error::io("create", path, error)),
    }
}

/// A directory that is open already is shared only with the same meaning.
fn check_reopen(open: &Identity, settings: &Settings, wanted: &Wanted<'_>) -> Result<()> {
    if settings.create == Create::New {
        return Err(Error::AlreadyExists {
            path: open.path.clone(),
        });
    }
    if open.access != settings.access {
        return Err(Error::InvalidOption {
            option: "access",
            value: format!("{:?}", settings.access),
            what: format!(
                "this process has the store open as {:?}; open it the same way, or close it first",
                open.access
            ),
        });
    }
    check_identity(
        &open.path,
        open.key_kind,
        &open.serializer,
        settings,
        wanted,
    )
}

fn check_identity(
    path: &Path,
    key_kind: KeyKind,
    serializer: &str,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<()> {
    if key_kind != wanted.key_kind {
        let (stored, asked) = (key_kind.name(), wanted.key_kind.name());
        return Err(Error::KeyKindMismatch {
            path: path.to_owned(),
            stored,
            asked,
        });
    }
    if serializer != wanted.serializer && !settings.any_serializer {
        return Err(Error::SerializerMismatch {
            path: path.to_owned(),
            stored: serializer.to_owned(),
            asked: wanted.serializer.to_owned(),
        });
    }
    Ok(())
}

fn open_engine(
    vfs: &Arc<dyn Vfs>,
    directory: &Path,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Arc<Engine>> {
    let read_only = settings.access == Access::ReadOnly;
    refuse_remote(vfs.as_ref(), directory, settings)?;
    refuse_missing(vfs.as_ref(), directory, settings)?;
    let process_lock = ProcessLock::acquire(
        vfs.as_ref(),
        directory,
        read_only,
        settings.lock_timeout,
        &settings.label,
    )?;
    let manifest = load_or_create(vfs.as_ref(), directory, settings, wanted)?;
    check_identity(
        directory,
        manifest.key_kind,
        &manifest.serializer,
        settings,
        wanted,
    )?;
    let identity = Identity {
        path: directory.to_owned(),
        access: settings.access,
        key_kind: manifest.key_kind,
        serializer: manifest.serializer.clone(),
        verify_reads: settings.verify_reads,
    };
    remove_leftovers(vfs.as_ref(), directory, &manifest, read_only).map_err(|fault| fault.error)?;
    let segment_bytes = u32::try_from(settings.segment_bytes).unwrap_or(u32::MAX);
    let log = Log::new(vfs.clone(), directory.to_owned(), segment_bytes);
    let index = Index::new();
    let mut recovery = Recovery {
        log: &log,
        index: &index,
        settings,
        manifest,
        done_bytes: 0,
    };
    let writer = recovery.run()?;
    let visible = AtomicU64::new(writer.sequence);
    let fork_count = vfs.fork_count();
    let engine = Arc::new(Engine {
        vfs: vfs.clone(),
        identity,
        log,
        index,
        counters: Counters::default(),
        writer_lock: WriterLock::new(writer, settings.label.clone()),
        pins: snapshot::Pins::default(),
        visible,
        deferred: deferred::Deferred::default(),
        closed: AtomicBool::new(false),
        poison: OnceLock::new(),
        fork_count,
        process_lock,
    });
    engine.deferred.attach(&engine);
    while engine.index.prune(&engine.horizon(), 0) {}
    tracing::debug!(path = %directory.display(), keys = engine.index.keys(), "store opened");
    Ok(engine)
}

/// Locks and mapped pages are shared with others on local file systems alone.
fn refuse_remote(vfs: &dyn Vfs, directory: &Path, settings: &Settings) -> Result<()> {
    let look = |error| Error::io("look at", directory, error);
    if settings.access != Access::Exclusive
        && let Locality::Remote(file_system) = vfs.locality(directory).map_err(look)?
    {
        return Err(Error::NotLocal {
            path: directory.to_owned(),
            file_system,
        });
    }
    Ok(())
}

/// Without a lock yet: says early, and without making a `LOCK` file, that there is no store.
fn refuse_missing(vfs: &dyn Vfs, directory: &Path, settings: &Settings) -> Result<()> {
    if settings.create != Create::Never && settings.access != Access::ReadOnly {
        return Ok(());
    }
    let path = directory.join(log::file_name::MANIFEST);
    let node = vfs
        .node(&path)
        .map_err(|error| Error::io("look at", &path, error))?;
    if node.is_none() && !has_segments(vfs, directory)? {
        return Err(Error::NotFound {
            path: directory.to_owned(),
        });
    }
    Ok(())
}

fn load_or_create(
    vfs: &dyn Vfs,
    directory: &Path,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Manifest> {
    if let Some(manifest) = manifest::load(vfs, directory)? {
        if settings.create == Create::New {
            return Err(Error::AlreadyExists {
                path: directory.to_owned(),
            });
        }
        // CRASH: whoever renamed this manifest may have been killed before it synced the directory.
        // Records of what only this manifest says, removals of what only the one before lists, and
        // what readers are shown must not come before it.
        vfs.sync_dir(directory)
            .map_err(|error| Error::io("sync", directory, error))?;
        return Ok(manifest);
    }
    let path = directory.join(log::file_name::MANIFEST);
    if has_segments(vfs, directory)? {
        // The manifest is durable before the first segment is made, so no crash leaves this.
        return Err(Error::corrupt(
            &path,
            0,
            "it is gone, though there are segments",
        ));
    }
    let manifest = Manifest {
        store_id: vfs.unique_id(),
        generation: 1,
        epoch: 1,
        key_kind: wanted.key_kind,
        serializer: wanted.serializer.to_owned(),
        segments: Vec::new(),
    };
    manifest::save(vfs, directory, &manifest).map_err(|fault| fault.error)?;
    Ok(manifest)
}

/// Filling log and index from what the manifest lists.
struct Recovery<'a> {
    log: &'a Log,
    index: &'a Index,
    settings: &'a Settings,
    manifest: Manifest,
    done_bytes: u64,
}

impl Recovery<'_> {
    fn run(&mut self) -> Result<Writer> {
        let listed = self.manifest.segments.clone();
        let segments = self.open_segments(&listed)?;
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
            if let Some(end) = entry.sealed {
                let end_bytes = sealed_end(segment, end.len_bytes)?;
                let mut scanner = Scanner::new(segment, end_bytes, self.manifest.epoch);
                self.replay(&mut scanner, segment, replayed, total_bytes)?;
                check_sealed(&scanner, segment, end_bytes, end.last_sequence)?;
                sequence = scanner.sequence();
            } else {
                let file_bytes = active_bytes(segment)?;
                let mut scanner = Scanner::new(segment, file_bytes, self.manifest.epoch);
                let marked = self.replay(&mut scanner, segment, replayed, total_bytes)?;
                sequence = scanner.sequence();
                active = Some(self.recover_tail(segment, scanner.offset(), file_bytes, marked)?);
            }
        }
        self.report(total_bytes, total_bytes);
        let tail = active.as_ref().map(|active: &Active| Tail {
            segment: active.segment.clone(),
            end: active.end,
            synced: active.end,
        });
        self.log.install(segments, tail);
        Ok(Writer {
            manifest: self.manifest.clone(),
            sequence,
            active,
        })
    }

    fn open_segments(&self, listed: &[SegmentEntry]) -> Result<Segments> {
        let mode = if self.settings.access == Access::ReadOnly {
            OpenMode::Read
        } else {
            OpenMode::Write
        };
        let (vfs, directory) = (self.log.vfs.as_ref(), &self.log.directory);
        let store_id = &self.manifest.store_id;
        let open = |entry: &SegmentEntry| {
            let mode = if entry.sealed.is_some() {
                OpenMode::Read
            } else {
                mode
            };
            Segment::open(vfs, directory, store_id, entry.id, mode).map(Arc::new)
        };
        listed.iter().map(open).collect()
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
        let marked = replay(scanner, segment, replayed, index, &mut report)?;
        segment.set_end(scanner.offset());
        self.done_bytes += u64::from(scanner.offset());
        Ok(marked)
    }

    /// Applies the recovery rule to the active segment, whose whole records end at `offset`.
    fn recover_tail(
        &mut self,
        segment: &Arc<Segment>,
        offset: u32,
        file_bytes: u32,
        marked: bool,
    ) -> Result<Active> {
        let active = Active {
            segment: segment.clone(),
            end: offset,
            allocated: file_bytes,
            marked,
        };
        let tail = repair::examine(segment, offset, file_bytes)?;
        match tail {
            TailState::Torn { end } if self.settings.access != Access::ReadOnly => {
                self.repair(segment, offset, end)?;
            }
            // What a killed process wrote may not be durable yet, and readers are about to see it,
            // and later records are about to say that it is.
            TailState::Torn { .. } | TailState::Clean => {
                segment
                    .file
                    .sync()
                    .map_err(|error| Error::io("sync", &segment.path, error))?;
            }
        }
        Ok(active)
    }

    /// Zeroes a torn tail, and raises the epoch so that nothing of it ever verifies again.
    fn repair(&mut self, segment: &Segment, offset: u32, end: u32) -> Result<()> {
        tracing::warn!(
            path = %segment.path.display(),
            offset,
            bytes = end - offset,
            "zeroing a torn tail: a record that was never finished"
        );
        repair::zero(segment, offset, end).map_err(|fault| fault.error)?;
        // CRASH: the tail is zero and the epoch is the old one: a clean log.
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

fn total_bytes(listed: &[SegmentEntry], segments: &Segments) -> Result<u64> {
    listed
        .iter()
        .zip(segments)
        .try_fold(0, |total, (entry, segment)| {
            let bytes = match entry.sealed {
                Some(end) => end.len_bytes,
                None => u64::from(segment.file_bytes()?),
            };
            // A sealed length is only believed later; this is for the progress alone.
            Ok(u64::saturating_add(total, bytes))
        })
}

/// The end of a sealed segment, which its file must reach.
fn sealed_end(segment: &Segment, len_bytes: u64) -> Result<u32> {
    let file_bytes = segment.file_bytes()?;
    u32::try_from(len_bytes)
        .ok()
        .filter(|&end| end <= file_bytes)
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

/// The path of the store of an engine in memory, for messages.
pub(crate) fn memory_path() -> PathBuf {
    PathBuf::from("in-memory store")
}
