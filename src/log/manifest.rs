//! The manifest's file: read whole, replaced whole.
//!
//! What a crash leaves: before the rename, an unfinished `MANIFEST.tmp`, which opening removes;
//! after it and before the directory's sync, the old or the new manifest, each of them whole.

use std::path::Path;

use super::directory::Directory;
use super::fault::Fault;
use super::file_name::{MANIFEST, MANIFEST_TEMPORARY};
use crate::error::{Error, Result, is_disk_full};
use crate::failpoint;
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::format::{Defect, FORMAT_VERSION};
use crate::vfs::{NodeKind, OpenMode, Vfs};

/// Reads the manifest of `directory`; `None` if there is none.
pub(crate) fn load(vfs: &dyn Vfs, directory: &Path) -> Result<Option<Manifest>> {
    load_file(vfs, &directory.join(MANIFEST))
}

/// Reads the manifest in the file `path`; `None` if there is none.
pub(crate) fn load_file(vfs: &dyn Vfs, path: &Path) -> Result<Option<Manifest>> {
    let read_error = |error| Error::io("read", path, error);
    match vfs.node(path).map_err(read_error)? {
        None => return Ok(None),
        Some(NodeKind::File) => {}
        Some(_) => return Err(Error::corrupt(path, 0, "it is no regular file")),
    }
    let file = vfs
        .open(path, OpenMode::Read)
        .map_err(|error| Error::io("open", path, error))?;
    let len = file.len().map_err(read_error)?;
    let Some(len) = usize::try_from(len)
        .ok()
        .filter(|_| len <= MANIFEST_BYTES_MAX)
    else {
        return Err(Error::corrupt(path, 0, "it is longer than any manifest"));
    };
    let bytes = file.view(0, len).map_err(read_error)?;
    match Manifest::decode(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(defect) => Err(refuse(path, &defect)),
    }
}

/// Replaces the manifest of `directory`; durable on return.
pub(crate) fn save(vfs: &dyn Vfs, directory: &Directory, manifest: &Manifest) -> Result<(), Fault> {
    directory.check(vfs).map_err(Fault::harmless)?;
    let temporary = directory.path.join(MANIFEST_TEMPORARY);
    let bytes = manifest.encode();
    let file = vfs
        .open(&temporary, OpenMode::CreateEmpty)
        .map_err(|error| Fault::harmless(Error::create(&temporary, error)))?;
    if let Err(error) = file.write_at(0, &bytes) {
        // Harmless: the unfinished file is no manifest, and opening would remove it too.
        let _ = vfs.unlink(&temporary);
        if is_disk_full(&error) {
            return Err(Fault::harmless(Error::allocate(
                &temporary,
                bytes.len() as u64,
                error,
            )));
        }
        return Err(Fault::poison("write", &temporary, error));
    }
    file.sync()
        .map_err(|error| Fault::poison("sync", &temporary, error))?;
    // CRASH: the old manifest still counts; opening removes the temporary one.
    failpoint::hit!("manifest-written");
    let path = directory.path.join(MANIFEST);
    vfs.rename(&temporary, &path)
        .map_err(|error| Fault::poison("rename", &temporary, error))?;
    // CRASH: either manifest counts; nothing that only one of them lists holds records yet.
    failpoint::hit!("manifest-renamed");
    directory.sync()
}

/// The error for a file of ours that cannot be read.
pub(crate) fn refuse(path: &Path, defect: &Defect) -> Error {
    match *defect {
        Defect::Newer(found) => Error::FormatVersion {
            path: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        },
        Defect::Damaged(what) => Error::corrupt(path, 0, what),
    }
}
