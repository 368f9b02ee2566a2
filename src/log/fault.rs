//! A failure on the way to the disk, and whether the store may go on after it.

use std::io;
use std::path::Path;

use crate::error::Error;

/// An error of the write path.
///
/// `poisons` is true where bytes may lie on the disk, or be lost from it, in a way that only
/// reopening can tell; false where nothing that counts was touched.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: Error,
    pub(crate) poisons: bool,
    /// Whether all processes were told of the failure that it comes of.
    pub(crate) is_told: bool,
}

impl Fault {
    /// Nothing that counts was touched: the caller gets the error, and may try again.
    pub(crate) fn harmless(error: Error) -> Self {
        Self {
            error,
            poisons: false,
            is_told: false,
        }
    }

    /// A failed call after which only reopening tells what is on the disk.
    pub(crate) fn poison(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            error: Error::io(operation, path, source),
            poisons: true,
            is_told: false,
        }
    }
}
