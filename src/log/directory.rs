//! The directory of a store: its path, and the open handle that its entries are synced through.
//!
//! Opened once, with the store: a process that is out of descriptors can then still sync what it
//! has created or renamed, and none of its roll-overs fails half-way for the want of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use crate::error::{Error, Result};
use crate::vfs::{Vfs, VfsDirectory};

/// An open directory.
pub(crate) struct Directory {
    /// Its path, absolute.
    pub(crate) path: PathBuf,
    handle: Arc<dyn VfsDirectory>,
}

impl Directory {
    /// Opens the directory `path`.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let handle = vfs
            .directory(path)
            .map_err(|error| Error::io("open", path, error))?;
        let path = path.to_owned();
        Ok(Self { path, handle })
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
