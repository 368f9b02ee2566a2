//! Files that no manifest lists: which are a crash's, and go, and which mean that something is wrong.
//!
//! Whoever recovers a directory comes in here, and whoever compacts one. Names alone are looked at,
//! and of segments their headers; what is listed is not touched.
//!
//! Invariants:
//! 1. An unlisted segment that holds records is never removed, unless it is known whose it was: of
//!    compaction, whose ids were taken, or of a backup, whose mark lists it.
//! 2. Nothing that a backup has brought is ever emptied or written to: its source has that file too.
//!
//! What a crash leaves: a part of that removed; the next one goes on. The mark of a backup goes
//! after what it lists has gone for good.

use std::io;
use std::path::Path;

use super::directory::Directory;
use super::fault::Fault;
use super::{file_name, manifest, segment};
use crate::error::{Error, Result};
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentKind};
use crate::format::manifest::Manifest;
use crate::vfs::{OpenMode, Vfs};

/// Removes what a crash left: an unfinished manifest, the segment of a roll-over that no manifest
/// lists, and what a backup that was not finished has brought. Who opens for reading only removes
/// nothing, and refuses the same.
///
/// Segments of lower ids that are not listed are what compaction has retired, or is just making.
///
/// # Errors
/// `Corrupt` if an unlisted segment holds records: no crash leaves that, an old manifest was put
/// back; `Io`.
pub(crate) fn remove_leftovers(
    vfs: &dyn Vfs,
    directory: &Directory,
    manifest: &Manifest,
    read_only: bool,
) -> Result<(), Fault> {
    let path = &directory.path;
    let list_error = |error| Fault::harmless(Error::io("list", path, error));
    let names = vfs.list(path).map_err(list_error)?;
    let brought = unfinished_backup(vfs, path, manifest);
    let is_brought = |id: u32| brought.contains(&id);
    let mut is_marked = false;
    for name in names {
        let file = path.join(&name);
        let is_left = if let Some(id) = file_name::segment_id(&name) {
            check_unlisted(vfs, &file, id, manifest, is_brought(id)).map_err(Fault::harmless)?
        } else if let Some(id) = file_name::hints_id(&name) {
            // They would be taken for those of a segment that gets this id.
            is_brought(id) || id >= manifest.next_segment
        } else {
            is_marked |= name == file_name::BACKUP_TEMPORARY;
            name == file_name::MANIFEST_TEMPORARY || name == file_name::COPY_TEMPORARY
        };
        if is_left && !read_only {
            unlink(vfs, &file)?;
        }
    }
    if is_marked && !read_only {
        // CRASH: what it lists is gone for good before it goes.
        directory.sync()?;
        end_mark(vfs, path, manifest)?;
        // CRASH: and it is gone before anything is written that the next backup would write over.
        directory.sync()?;
    }
    Ok(())
}

/// Removes what a compaction has left that was killed: files of segments that `manifest` does not
/// list, though their ids were taken, and hints that were not finished. Nobody compacts meanwhile, and
/// `manifest` is the newest: all that it lists is there.
///
/// # Errors
/// `Io`.
pub(crate) fn remove_abandoned(
    vfs: &dyn Vfs,
    directory: &Directory,
    manifest: &Manifest,
) -> Result<()> {
    directory.check(vfs)?;
    let names = vfs
        .list(&directory.path)
        .map_err(|error| Error::io("list", &directory.path, error))?;
    let is_retired = |id: u32| id < manifest.next_segment && !manifest.lists(id);
    for name in names {
        let id = file_name::segment_id(&name).or_else(|| file_name::hints_id(&name));
        if id.is_some_and(is_retired) || file_name::is_unfinished_hints(&name) {
            remove(vfs, &directory.path.join(&name))?;
        }
    }
    Ok(())
}

/// Removes a file, if it is there.
///
/// # Errors
/// `Io`.
pub(crate) fn remove(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.unlink(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Whether `directory` holds segments.
///
/// # Errors
/// `Io`.
pub(crate) fn has_segments(vfs: &dyn Vfs, directory: &Path) -> Result<bool> {
    let names = vfs
        .list(directory)
        .map_err(|error| Error::io("list", directory, error))?;
    Ok(names
        .iter()
        .any(|name| file_name::segment_id(name).is_some()))
}

/// The segments that a backup which was not finished has brought, and `manifest` does not list.
fn unfinished_backup(vfs: &dyn Vfs, directory: &Path, manifest: &Manifest) -> Vec<u32> {
    // A mark that was not finished was written before anything was brought.
    let path = directory.join(file_name::BACKUP_TEMPORARY);
    let mark = manifest::load_file(vfs, &path).ok().flatten();
    let of_this = |mark: &Manifest| mark.store_id == manifest.store_id;
    let brought = mark
        .filter(of_this)
        .map_or(Vec::new(), |mark| mark.segments);
    let ids = brought.iter().map(|entry| entry.id);
    ids.filter(|id| !manifest.lists(*id)).collect()
}

/// Removes the mark of a backup that was not finished; or finishes it, if that was all that was left
/// to do.
fn end_mark(vfs: &dyn Vfs, directory: &Path, manifest: &Manifest) -> Result<(), Fault> {
    let path = directory.join(file_name::BACKUP_TEMPORARY);
    let mark = manifest::load_file(vfs, &path).ok().flatten();
    if mark.as_ref() != Some(manifest) {
        return unlink(vfs, &path);
    }
    vfs.rename(&path, &directory.join(file_name::BACKUP))
        .map_err(|error| Fault::harmless(Error::io("rename", &path, error)))
}

/// Whether the segment `id`, which `manifest` may list, is left of something that was not finished.
fn check_unlisted(
    vfs: &dyn Vfs,
    path: &Path,
    id: u32,
    manifest: &Manifest,
    is_brought: bool,
) -> Result<bool> {
    if is_brought {
        return Ok(true);
    }
    if id < manifest.next_segment {
        return refuse_newer(vfs, path, id, manifest).map(|()| false);
    }
    refuse_records(vfs, path).map(|()| true)
}

fn unlink(vfs: &dyn Vfs, path: &Path) -> Result<(), Fault> {
    remove(vfs, path).map_err(Fault::harmless)
}

/// A segment of the log that is not listed any more is older than the one that takes records:
/// compaction has retired it.
fn refuse_newer(vfs: &dyn Vfs, path: &Path, id: u32, manifest: &Manifest) -> Result<()> {
    if manifest.lists(id) {
        return Ok(());
    }
    let last = manifest.log().last().map_or(0, |last| last.first_sequence);
    match segment::peek(vfs, path)? {
        Some(header) if header.kind == SegmentKind::Log && header.first_sequence > last => {
            refuse_records(vfs, path)
        }
        // What is no segment was never finished.
        _ => Ok(()),
    }
}

/// An unlisted segment has nothing but zeros behind its header: records are written only after the
/// manifest that lists it is durable.
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
