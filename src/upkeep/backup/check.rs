//! Which directories a backup goes into: an empty one, or one that has a backup of this very store,
//! which nobody has written to.
//!
//! Whatever is refused was not changed.

use std::path::Path;

use super::{PIECE_BYTES, Target, piece};
use crate::engine::Engine;
use crate::engine::cut::Cut;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::record::RecordKind;
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::{file_name, manifest};
use crate::vfs::{NodeKind, OpenMode, Vfs, VfsFile};

/// The manifest of the backup that is in `path`, if there is one, as the backup wrote it.
///
/// # Errors
/// `NotABackup`; `Corrupt`, `FormatVersion`, `Io`.
pub(super) fn known(vfs: &dyn Vfs, path: &Path, engine: &Engine) -> Result<Option<Manifest>> {
    let store_id = engine.log.page_of().store_id;
    let marks = [file_name::BACKUP, file_name::BACKUP_TEMPORARY];
    // One that was not finished says nothing.
    let marks = marks.map(|name| manifest::load_file(vfs, &path.join(name)).ok().flatten());
    let mut known = marks.iter().flatten();
    let Some(found) = manifest::load(vfs, path)? else {
        let names = vfs.list(path);
        let names = names.map_err(|error| Error::io("list", path, error))?;
        let is_ours = |name: &String| {
            let own = [
                file_name::BACKUP_TEMPORARY,
                file_name::COPY_TEMPORARY,
                file_name::LOCK,
                file_name::OPEN,
                file_name::STATE,
                file_name::MANIFEST_TEMPORARY,
            ];
            own.contains(&name.as_str())
        };
        return if known.any(|mark| mark.store_id == store_id) || names.iter().all(is_ours) {
            Ok(None)
        } else {
            Err(refuse(path, "it is not empty, and no backup"))
        };
    };
    if found.store_id != store_id {
        return Err(refuse(path, "it is another store"));
    }
    let Some(mark) = known.find(|mark| is_of_mark(&found, mark)) else {
        return Err(refuse(path, "this backup was written to, or is no backup"));
    };
    let is_unfinished = marks[1].as_ref().is_some_and(|next| next != mark);
    // One that was not finished may have brought more of the active segment already.
    if !is_unfinished && has_batches_behind(vfs, path, mark)? {
        return Err(refuse(path, "this backup was written to"));
    }
    let mut before = mark.clone();
    (before.epoch, before.generation) = (found.epoch, found.generation);
    Ok(Some(before))
}

impl Target<'_> {
    /// Refuses what is the backup of another copy of this store, which has gone another way.
    ///
    /// # Errors
    /// `NotABackup`; `Io`.
    pub(super) fn check_history(&self, cut: &Cut) -> Result<()> {
        let Some(before) = &self.before else {
            return Ok(());
        };
        let path = &self.directory.path;
        let last = |manifest: &Manifest| {
            let ends = manifest.segments.iter().map(|entry| entry.end);
            ends.map(|end| end.last_sequence).max().unwrap_or(0)
        };
        if last(before) > cut.sequence {
            return Err(refuse(path, "it holds later commits than the store"));
        }
        for was in &before.segments {
            let mut listed = cut.manifest.segments.iter();
            let Some(entry) = listed.find(|entry| entry.id == was.id) else {
                continue;
            };
            let segment = cut.segment(&self.engine.log, was.id)?;
            let mut grown = *was;
            if !was.is_sealed() && entry.end.len_bytes >= was.end.len_bytes {
                (grown.end, grown.state) = (entry.end, entry.state);
            }
            if grown != *entry || !self.holds_the_same(segment, was.end.len_bytes)? {
                let what = "it is of a copy of this store that has gone another way, or is damaged";
                return Err(refuse(path, what));
            }
        }
        Ok(())
    }

    /// Whether the first `end` bytes of `segment` are here, or, as what is lost is brought again,
    /// whether there are not so many.
    fn holds_the_same(&self, segment: &Segment, end: u64) -> Result<bool> {
        let vfs = self.engine.vfs.as_ref();
        let path = file_name::segment(&self.directory.path, segment.id);
        if !file_reaches(vfs, &path, end)? {
            return Ok(true);
        }
        let file = vfs.open(&path, OpenMode::Read);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        if let Ok(Some(identity)) = file.identity()
            && segment.file.identity().is_ok_and(|of| of == Some(identity))
        {
            return Ok(true);
        }
        let (mut here, mut there) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut at = 0;
        while at < end {
            let len = piece(end - at);
            let read = |file: &dyn VfsFile, path: &Path, out: &mut Vec<u8>| {
                let got = file.read_at(at, &mut out[..len]);
                got.map_err(|error| Error::io("read", path, error))
            };
            let got = read(file.as_ref(), &path, &mut here)?;
            let source = read(segment.file.as_ref(), &segment.path, &mut there)?;
            if got != len || source != len || here[..len] != there[..len] {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}

pub(super) fn refuse(path: &Path, what: &'static str) -> Error {
    Error::NotABackup {
        path: path.to_owned(),
        what,
    }
}

pub(super) fn file_reaches(vfs: &dyn Vfs, path: &Path, len_bytes: u64) -> Result<bool> {
    let look = |error| Error::io("look at", path, error);
    if vfs.node(path).map_err(look)? != Some(NodeKind::File) {
        return Ok(false);
    }
    let file = vfs.open(path, OpenMode::Read).map_err(look)?;
    Ok(file.len().map_err(look)? >= len_bytes)
}

/// Whether `found` is what a backup wrote as `mark`, or was about to, or what closing that cleanly
/// leaves.
fn is_of_mark(found: &Manifest, mark: &Manifest) -> bool {
    let end = |manifest: &Manifest| manifest.log().last().map(|last| last.end);
    let mut closed = mark.clone();
    closed.generation = found.generation;
    // It is raised in the mark first.
    closed.epoch = closed.epoch.min(found.epoch);
    if let (Some(last), Some(end)) = (closed.last_of_log(), end(found))
        && last.state == SegmentState::Active
    {
        last.end.len_bytes = end.len_bytes;
    }
    closed == *found
}

/// Whether the active segment has more batches than the backup brought.
fn has_batches_behind(vfs: &dyn Vfs, path: &Path, manifest: &Manifest) -> Result<bool> {
    let Some(last) = manifest.log().last().filter(|last| !last.is_sealed()) else {
        return Ok(false);
    };
    let segment = Segment::open(vfs, path, &manifest.store_id, last.id, OpenMode::Read)?;
    let end = u32::try_from(last.end.len_bytes).unwrap_or(u32::MAX);
    let (file_bytes, sequence) = (segment.file_bytes()?, last.end.last_sequence);
    let mut scanner = Scanner::resume(&segment, end, file_bytes, manifest.epoch, sequence);
    while let Some(record) = scanner.next()? {
        if record.header.kind == RecordKind::Batch {
            return Ok(true);
        }
    }
    Ok(false)
}
