//! Making a store, if there is none yet: its directory, and its first manifest.
//!
//! What a crash leaves: a directory without `MANIFEST`, perhaps with a `MANIFEST.tmp`, which is no
//! store yet and is made again; from the manifest's rename on, a store without segments.

use std::path::Path;

use super::open::Wanted;
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::log::directory::Directory;
use crate::log::leftovers::has_segments;
use crate::log::{self, manifest};
use crate::options::{Access, Create, Settings};
use crate::vfs::{NodeKind, Vfs};

/// Sees to it that `path` is a directory.
pub(super) fn make_directory(vfs: &dyn Vfs, path: &Path, settings: &Settings) -> Result<()> {
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

/// The manifest of `directory`, which is made if there is none.
///
/// # Errors
/// `AlreadyExists`, `Corrupt`, `FormatVersion`, `DiskFull`, `Io`.
pub(super) fn load_or_create(
    vfs: &dyn Vfs,
    directory: &Directory,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Manifest> {
    if let Some(manifest) = manifest::load(vfs, &directory.path)? {
        if settings.create == Create::New {
            return Err(Error::AlreadyExists {
                path: directory.path.clone(),
            });
        }
        // CRASH: whoever renamed this manifest may have been killed before it synced the directory.
        // Records of what only this manifest says, removals of what only the one before lists, and
        // what readers are shown must not come before it.
        directory.sync().map_err(|fault| fault.error)?;
        return Ok(manifest);
    }
    let path = directory.path.join(log::file_name::MANIFEST);
    if has_segments(vfs, &directory.path)? {
        // The manifest is durable before the first segment is made, so no crash leaves this.
        return Err(Error::corrupt(
            &path,
            0,
            "it is gone, though there are segments",
        ));
    }
    make_durable(vfs, &directory.path)?;
    let manifest = Manifest {
        store_id: vfs.unique_id(),
        generation: 1,
        epoch: 1,
        key_kind: wanted.key_kind,
        serializer: wanted.serializer.to_owned(),
        next_segment: 1,
        segments: Vec::new(),
    };
    manifest::save(vfs, directory, &manifest).map_err(|fault| fault.error)?;
    Ok(manifest)
}

/// Makes the directory's own name durable: it may have been made just now, by whomever.
fn make_durable(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let Some(parent) = directory
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
    else {
        return Ok(());
    };
    match vfs.directory(parent).and_then(|parent| parent.sync()) {
        // Who may not read the parent has not made an entry in it either.
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(Error::io("sync", parent, error))
        }
        _ => Ok(()),
    }
}
