//! Backups: a live store as of one moment, in a directory of its own.
//!
//! `store` comes in with an engine and a directory. What the store is made of at one moment is
//! [`Engine::cut`]; finished segments are linked, the active one is copied as far as the cut goes,
//! the manifest comes last. `BACKUP` in the target is the manifest that the backup wrote: if the
//! target's own is another one, somebody has written to it.
//!
//! Nobody has the target open meanwhile ([`Alone`]).
//!
//! Invariants:
//! 1. Until the new manifest is durable, all that the old one lists stays what it is.
//! 2. A file that the source or the target may write to has one name: what the target's manifest
//!    lists as active is copied.
//! 3. What stays in the target is what the source has under the same name, byte for byte: a copy of
//!    a store that went another way has the same identity, and may have segments of the same numbers.
//!
//! What a crash leaves: the backup that was there before, or a directory without a manifest; and
//! `BACKUP.tmp`, by which the next backup, and whoever opens the old one, know what was brought
//! (`log::leftovers`).

mod check;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::alone::Alone;
use crate::engine::cut::Cut;
use crate::engine::open::memory_path;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::limits::ALLOCATE_BYTES_MIN;
use crate::log::directory::Directory;
use crate::log::leftovers::remove;
use crate::log::segment::Segment;
use crate::log::{file_name, manifest};
use crate::vfs::{NodeKind, OpenMode, VfsFile};
use check::{file_reaches, refuse};

/// What a backup calls itself to who waits for it.
const LABEL: &str = "backup";

/// Files are copied in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// What a backup did; made by [`Store::backup_to`](crate::Store::backup_to).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Segments that were there already.
    pub kept: u64,
    /// Segments that got a second name.
    pub linked: u64,
    /// Segments that were copied.
    pub copied: u64,
    /// Segments that were removed, because the store does not have them any more.
    pub removed: u64,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// Bytes of records in the backup.
    pub bytes: u64,
    /// The sequence number of the last batch in the backup.
    pub sequence: u64,
}

/// Brings the directory `to` up to what the store is at a moment of this call, waiting up to
/// `timeout` for who has it open.
///
/// # Errors
/// `NotABackup`, `LockTimeout`, `DiskFull`, `Io`, `Corrupt`; what makes the engine unusable.
pub(crate) fn backup(engine: &Engine, to: &Path, timeout: Duration) -> Result<BackupReport> {
    engine.check_open()?;
    let vfs = engine.vfs.as_ref();
    if engine.identity.path == Path::new("/").join(memory_path()) {
        return Err(refuse(to, "the store is in memory, and has no files"));
    }
    let look = |error| Error::io("look at", to, error);
    if let Some(NodeKind::File | NodeKind::Other) = vfs.node(to).map_err(look)? {
        return Err(refuse(to, "it is no directory"));
    }
    vfs.create_dir_all(to)
        .map_err(|error| Error::io("create", to, error))?;
    let path = vfs.absolute(to).map_err(look)?;
    let id = vfs.directory_id(&path).map_err(look)?;
    if id == engine.identity.id {
        return Err(refuse(&path, "it is the store itself"));
    }
    let directory = Directory::open(vfs, &path, id)?;
    // Before anything is made in it, and again when nobody else can change it.
    check::known(vfs, &path, engine)?;
    let _alone = Alone::enter(&engine.vfs, &directory, timeout, &LABEL.into())?;
    let before = check::known(vfs, &path, engine)?;
    let mut target = Target {
        engine,
        directory,
        before,
        report: BackupReport::default(),
    };
    target.settle_mark()?;
    let cut = engine.cut(timeout)?;
    target.fill(&cut)?;
    Ok(target.report)
}

/// The directory that a backup goes into.
struct Target<'a> {
    engine: &'a Engine,
    directory: Directory,
    /// The manifest that is there already.
    before: Option<Manifest>,
    report: BackupReport,
}

impl Target<'_> {
    /// Sees to it that the manifest that is there is known by a mark which is not going to be written.
    fn settle_mark(&self) -> Result<()> {
        let Some(before) = &self.before else {
            return Ok(());
        };
        let path = self.path(file_name::BACKUP);
        let mark = manifest::load_file(self.engine.vfs.as_ref(), &path);
        if mark.is_ok_and(|mark| mark.as_ref() == Some(before)) {
            return Ok(());
        }
        self.mark(file_name::BACKUP, before)
    }

    /// Brings the directory up to `cut`.
    fn fill(&mut self, cut: &Cut) -> Result<()> {
        let vfs = self.engine.vfs.as_ref();
        self.check_history(cut)?;
        self.sweep(self.before.clone().as_ref())?;
        // CRASH: what an attempt before has left is known by its mark alone, and has gone before it.
        self.directory.sync().map_err(|fault| fault.error)?;
        self.raise_epoch(cut)?;
        self.report = BackupReport {
            sequence: cut.sequence,
            ..BackupReport::default()
        };
        self.mark(file_name::BACKUP_TEMPORARY, &cut.manifest)?;
        // What is a copy of an active segment grows while the old manifest still counts: then there are
        // some later commits in the old backup.
        for entry in &cut.manifest.segments {
            self.report.bytes += entry.end.len_bytes;
            match &cut.active {
                Some(active) if active.id == entry.id => self.copy(active, entry)?,
                _ => self.bring(entry, cut)?,
            }
        }
        self.directory.sync().map_err(|fault| fault.error)?;
        // CRASH: the old backup is whole still, or there is none.
        let saved = manifest::save(vfs, &self.directory, &cut.manifest);
        saved.map_err(|fault| fault.error)?;
        // CRASH: the new backup is whole; both marks are known.
        self.mark(file_name::BACKUP, &cut.manifest)?;
        self.remove(&self.path(file_name::BACKUP_TEMPORARY))?;
        self.sweep(Some(&cut.manifest))?;
        self.directory.sync().map_err(|fault| fault.error)?;
        Ok(())
    }

    /// Sees to it that the manifest that is there knows of the repairs that the store had since: the
    /// copy of the active segment is going to have records that are younger than those.
    fn raise_epoch(&mut self, cut: &Cut) -> Result<()> {
        let Some(before) = self.before.as_ref() else {
            return Ok(());
        };
        if before.epoch >= cut.manifest.epoch {
            return Ok(());
        }
        let mut raised = before.clone();
        raised.epoch = cut.manifest.epoch;
        raised.generation += 1;
        self.mark(file_name::BACKUP, &raised)?;
        // CRASH: the mark is taken for that of a manifest of an earlier epoch, too.
        let saved = manifest::save(self.engine.vfs.as_ref(), &self.directory, &raised);
        saved.map_err(|fault| fault.error)?;
        self.before = Some(raised);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }

    /// A new file, to be renamed.
    fn temporary(&self) -> Result<(PathBuf, Arc<dyn VfsFile>)> {
        let path = self.path(file_name::COPY_TEMPORARY);
        // Not written into: it may be another name of what it was renamed to before a power cut.
        self.remove(&path)?;
        let file = self.engine.vfs.open(&path, OpenMode::CreateEmpty);
        let file = file.map_err(|error| Error::create(&path, error))?;
        Ok((path, file))
    }

    /// Says in the file `name` that `manifest` is a backup's; durable on return.
    fn mark(&self, name: &str, manifest: &Manifest) -> Result<()> {
        let (path, file) = self.temporary()?;
        let bytes = manifest.encode();
        let vfs = self.engine.vfs.as_ref();
        file.write_at(0, &bytes)
            .map_err(|error| Error::write(&path, bytes.len() as u64, error))?;
        file.sync()
            .map_err(|error| Error::io("sync", &path, error))?;
        // CRASH: the mark before or this one, never none.
        vfs.rename(&path, &self.path(name))
            .map_err(|error| Error::io("rename", &path, error))?;
        self.directory.sync().map_err(|fault| fault.error)
    }

    /// Sees to it that the finished segment `entry` is here, and its hints.
    fn bring(&mut self, entry: &SegmentEntry, cut: &Cut) -> Result<()> {
        let vfs = self.engine.vfs.as_ref();
        let source = &self.engine.identity.path;
        let (from, to) = (
            file_name::segment(source, entry.id),
            file_name::segment(&self.directory.path, entry.id),
        );
        let mut listed = self.before.iter().flat_map(|before| &before.segments);
        let was = listed.find(|before| before.id == entry.id);
        if was == Some(entry) && file_reaches(vfs, &to, entry.end.len_bytes)? {
            self.report.kept += 1;
            return self.bring_hints(entry.id, false);
        }
        if was.is_none() {
            self.remove(&to)?;
            if vfs.link(&from, &to).is_ok() {
                self.report.linked += 1;
                return self.bring_hints(entry.id, true);
            }
            // Another file system, say; or compaction has removed it, and it is open still.
        }
        self.copy(cut.segment(&self.engine.log, entry.id)?, entry)?;
        self.bring_hints(entry.id, true)
    }

    /// Copies `segment` as far as `entry` says.
    fn copy(&mut self, segment: &Segment, entry: &SegmentEntry) -> Result<()> {
        let to = file_name::segment(&self.directory.path, entry.id);
        // No segment is listed as active without its first space, and the old manifest may list it so.
        let space = ALLOCATE_BYTES_MIN.min(u64::from(segment.capacity));
        let len_bytes = entry.end.len_bytes.max(space);
        let end = entry.end.len_bytes;
        self.copy_file(segment.file.as_ref(), &segment.path, end, len_bytes, &to)?;
        self.report.copied += 1;
        self.report.bytes_copied += end;
        if !entry.is_sealed() {
            self.remove(&file_name::hints(&self.directory.path, entry.id))?;
        }
        Ok(())
    }

    /// Copies the first `end` bytes of `from` into a file of `len_bytes`, which is then named `to`.
    fn copy_file(
        &self,
        from: &dyn VfsFile,
        from_path: &Path,
        end: u64,
        len_bytes: u64,
        to: &Path,
    ) -> Result<()> {
        let vfs = self.engine.vfs.as_ref();
        let (temporary, file) = self.temporary()?;
        file.allocate(len_bytes)
            .map_err(|error| Error::allocate(&temporary, len_bytes, error))?;
        let mut bytes = vec![0; piece(end)];
        let mut at = 0;
        while at < end {
            let got = from.read_at(at, &mut bytes[..piece(end - at)]);
            let got = got.map_err(|error| Error::io("read", from_path, error))?;
            if got == 0 {
                return Err(Error::corrupt(from_path, at, "the file was cut off"));
            }
            file.write_at(at, &bytes[..got])
                .map_err(|error| Error::write(&temporary, got as u64, error))?;
            at += got as u64;
        }
        file.sync()
            .map_err(|error| Error::io("sync", &temporary, error))?;
        vfs.rename(&temporary, to)
            .map_err(|error| Error::io("rename", &temporary, error))
    }

    /// Brings the hints of a finished segment, if there are any; they are a cache, and no errors of
    /// theirs matter. With `is_new` those that are here already are of something else.
    fn bring_hints(&self, id: u32, is_new: bool) -> Result<()> {
        let vfs = self.engine.vfs.as_ref();
        let from = file_name::hints(&self.engine.identity.path, id);
        let to = file_name::hints(&self.directory.path, id);
        if is_new {
            self.remove(&to)?;
        } else if vfs.node(&to).is_ok_and(|node| node.is_some()) {
            return Ok(());
        }
        let Err(error) = vfs.link(&from, &to) else {
            return Ok(());
        };
        if error.kind() != ErrorKind::NotFound
            && let Ok(file) = vfs.open(&from, OpenMode::Read)
            && let Ok(len) = file.len()
        {
            return self.copy_file(file.as_ref(), &from, len, len, &to);
        }
        Ok(())
    }

    /// Removes what `manifest`, which is durable, does not list; without one, all segments.
    fn sweep(&mut self, manifest: Option<&Manifest>) -> Result<()> {
        let path = &self.directory.path;
        let names = self.engine.vfs.list(path);
        for name in names.map_err(|error| Error::io("list", path, error))? {
            let segment = file_name::segment_id(&name);
            let Some(id) = segment.or_else(|| file_name::hints_id(&name)) else {
                continue;
            };
            if !manifest.is_some_and(|manifest| manifest.lists(id)) {
                self.remove(&self.path(&name))?;
                self.report.removed += u64::from(segment.is_some());
            }
        }
        // As with a temporary file of ours.
        self.remove(&self.path(file_name::MANIFEST_TEMPORARY))?;
        self.remove(&self.path(file_name::COPY_TEMPORARY))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        remove(self.engine.vfs.as_ref(), path)
    }
}

/// How much of what is left is read in one go.
fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES))
}
