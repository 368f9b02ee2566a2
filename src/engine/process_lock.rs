//! The writer lock between processes: a file lock on `LOCK`, held from opening to closing.
//!
//! The kernel frees the lock when its process dies, however it dies; nothing is left to sweep.
//! A process that opens for reading alone takes the lock shared, so that any number of them read
//! beside each other, and none beside a writer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::state;
use crate::error::{Error, Result, is_disk_full};
use crate::log::file_name;
use crate::vfs::{LockKind, NodeKind, OpenMode, SharedPage, Vfs, VfsFile};

/// How long between two looks at a held lock, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(10);

/// The held lock.
pub(super) struct ProcessLock {
    held: Mutex<Option<Held>>,
}

struct Held {
    file: Arc<dyn VfsFile>,
    page: Option<Arc<dyn SharedPage>>,
}

impl ProcessLock {
    /// Takes the lock of `directory`, waiting up to `timeout`; zero tries once. A process that
    /// is to write leaves its `label` for those who wait.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `Io`.
    pub(super) fn acquire(
        vfs: &dyn Vfs,
        directory: &Path,
        read_only: bool,
        timeout: Duration,
        label: &str,
    ) -> Result<Self> {
        let Some(file) = open_lock(vfs, directory, read_only)? else {
            return Ok(Self {
                held: Mutex::new(None),
            });
        };
        let kind = if read_only {
            LockKind::Shared
        } else {
            LockKind::Exclusive
        };
        let page = open_page(vfs, directory, read_only);
        wait(
            vfs,
            directory,
            file.as_ref(),
            kind,
            timeout,
            page.as_deref(),
        )?;
        if let Some(page) = page.as_deref().filter(|_| !read_only) {
            state::write_holder(page, vfs, label);
        }
        let page = page.filter(|_| !read_only);
        Ok(Self {
            held: Mutex::new(Some(Held { file, page })),
        })
    }

    /// Gives the lock back. A second call does nothing.
    pub(super) fn release(&self) {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(held) = held {
            if let Some(page) = &held.page {
                state::clear_holder(page.as_ref());
            }
            // OK because dropping the file frees the lock too.
            let _ = held.file.unlock();
        }
    }
}

/// Opens `LOCK`; `None` for a reader of a store that was copied without it.
fn open_lock(vfs: &dyn Vfs, directory: &Path, read_only: bool) -> Result<Option<Arc<dyn VfsFile>>> {
    let path = directory.join(file_name::LOCK);
    let open_error = |error| match error {
        error if !read_only && is_disk_full(&error) => Error::create(&path, error),
        error => Error::io("open", &path, error),
    };
    if read_only && vfs.node(&path).map_err(open_error)? != Some(NodeKind::File) {
        return Ok(None);
    }
    let mode = if read_only {
        OpenMode::Read
    } else {
        OpenMode::WriteOrCreate
    };
    vfs.open(&path, mode).map(Some).map_err(open_error)
}

/// Opens `STATE`. Without it, in a directory that may only be read or that is only to be read and
/// has none, the holder stays unknown.
fn open_page(vfs: &dyn Vfs, directory: &Path, read_only: bool) -> Option<Arc<dyn SharedPage>> {
    let path = directory.join(file_name::STATE);
    if read_only && vfs.node(&path).ok().flatten() != Some(NodeKind::File) {
        return None;
    }
    vfs.shared_page(&path).ok()
}

fn wait(
    vfs: &dyn Vfs,
    directory: &Path,
    file: &dyn VfsFile,
    kind: LockKind,
    timeout: Duration,
    page: Option<&dyn SharedPage>,
) -> Result<()> {
    let begun = vfs.monotonic();
    let mut pause = RETRY_MIN;
    loop {
        let path = directory.join(file_name::LOCK);
        if file
            .try_lock(kind)
            .map_err(|error| Error::io("lock", &path, error))?
        {
            return Ok(());
        }
        let waited = vfs.monotonic().saturating_sub(begun);
        if waited >= timeout {
            // Readers leave no label; what the page says is then of a writer that is gone.
            let by_writer =
                kind == LockKind::Shared || !file.try_lock(LockKind::Shared).unwrap_or(false);
            let holder = page
                .filter(|_| by_writer)
                .and_then(|page| state::read_holder(page, vfs))
                .map(Box::new);
            return Err(Error::LockTimeout {
                path: directory.to_owned(),
                waited,
                holder,
            });
        }
        vfs.sleep(pause.min(timeout.saturating_sub(waited)));
        pause = (pause * 2).min(RETRY_MAX);
    }
}
