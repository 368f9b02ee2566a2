//! A directory that nobody opens as a store meanwhile.
//!
//! `upkeep` comes in before it changes the files of a directory that is no open store: of a backup.
//! The locks are those of an opening for oneself, and so is what becomes of the shared words: they
//! mean nothing from now on, so that whoever comes next recovers what lies there.

use std::sync::Arc;
use std::time::Duration;

use super::process_lock::ProcessLock;
use crate::error::Result;
use crate::log::directory::Directory;
use crate::options::Access;
use crate::vfs::Vfs;

/// The right to a directory, until dropped.
pub(crate) struct Alone {
    vfs: Arc<dyn Vfs>,
    lock: ProcessLock,
}

impl Alone {
    /// Takes `directory`, waiting up to `timeout` for who has the store in it open; `label` is shown
    /// to who waits for this one.
    ///
    /// # Errors
    /// `LockTimeout`, `DiskFull`, `Io`.
    pub(crate) fn enter(
        vfs: &Arc<dyn Vfs>,
        directory: &Directory,
        timeout: Duration,
        label: &Arc<str>,
    ) -> Result<Self> {
        let lock = ProcessLock::open(vfs.as_ref(), directory, Access::Exclusive)?;
        let begun = vfs.monotonic();
        let deadline = begun.saturating_add(timeout);
        lock.enter(vfs.as_ref(), deadline, timeout.is_zero())?;
        lock.sign(vfs.as_ref(), label, begun);
        let alone = Self {
            vfs: vfs.clone(),
            lock,
        };
        // They may have been opened long ago.
        alone.lock.check_files(vfs.as_ref())?;
        Ok(alone)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.lock.leave(self.vfs.as_ref());
    }
}
