//! The directory of a store: its path, and the open handle that its entries are synced through.
//!
//! Opened once, with the store: a process that is out of descriptors can then still sync what it
//! has created or renamed, and none of its roll-overs fails half-way for the want of one.
//!
//! Files are made, renamed and removed by their paths. If the directory was moved and another one
//! lies in its place, these would be that one's: [`Directory::check`] comes before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use crate::error::{Error, Result};
use crate::vfs::{DirectoryId, Vfs, VfsDirectory};

/// An open directory.
#[derive(Clone)]
pub(crate) struct Directory {
    /// Its path, absolute.
    pub(crate) path: PathBuf,
    pub(crate) id: DirectoryId,
    handle: Arc<dyn VfsDirectory>,
}

impl Directory {
    /// Opens the directory `path`, which is to be the one of `id`.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path, id: DirectoryId) -> Result<Self> {
        let handle = vfs
            .directory(path)
            .map_err(|error| Error::io("open", path, error))?;
        let path = path.to_owned();
        let directory = Self { path, id, handle };
        directory.check(vfs)?;
        Ok(directory)
    }

    /// Refuses if its path does not lead to it any more.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn check(&self, vfs: &dyn Vfs) -> Result<()> {
        let found = vfs.directory_id(&self.path);
        if found.as_ref().is_ok_and(|found| *found == self.id) {
            return Ok(());
        }
        let moved = || std::io::Error::other("the directory was moved or replaced");
        let cause = found.err().unwrap_or_else(moved);
        Err(Error::io("write to", &self.path, cause))
    }

    /// Makes its entries durable.
    ///
    /// # Errors
    /// A poisoning fault.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        self.handle
            .sync()
            .map_err(|error| Fault::poison("sync", &self.path, error))
    }
}
