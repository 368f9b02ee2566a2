//! One engine a directory and process, however often and by whatever path it is opened.
//!
//! Directories are told apart by machine, device and inode. While an engine is being opened or
//! closed, its slot is busy and others wait, so that no two engines of one process ever fight
//! over the lock file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Result};
use crate::vfs::{DirectoryId, Vfs};

const RETRY: Duration = Duration::from_millis(1);

static REGISTRY: LazyLock<Mutex<HashMap<DirectoryId, Slot>>> = LazyLock::new(Mutex::default);

enum Slot {
    Busy,
    Open {
        engine: Weak<Engine>,
        openings: usize,
    },
}

/// The engine of `directory`: the one that is open already, or the one that `open` makes.
/// True if it was open already.
///
/// # Errors
/// `LockTimeout` if another thread is opening or closing the directory all the time; as `open`.
pub(super) fn find_or_open(
    vfs: &Arc<dyn Vfs>,
    directory: &Path,
    timeout: Duration,
    open: impl FnOnce() -> Result<Arc<Engine>>,
) -> Result<(Arc<Engine>, bool)> {
    let id = vfs
        .directory_id(directory)
        .map_err(|error| Error::io("look at", directory, error))?;
    if let Some(engine) = wait_for_slot(vfs.as_ref(), directory, id, timeout)? {
        return Ok((engine, true));
    }
    // From here on the slot is busy, and must be given back on every way out.
    let busy = Busy { id };
    let engine = open()?;
    let opened = Slot::Open {
        engine: Arc::downgrade(&engine),
        openings: 1,
    };
    lock().insert(id, opened);
    std::mem::forget(busy);
    Ok((engine, false))
}

/// Ends one opening of `engine`; the engine itself, if it was the last.
///
/// # Errors
/// As the engine's end; the opening still counts if the engine could not be ended.
pub(super) fn release(engine: &Arc<Engine>, lock_timeout: Duration) -> Result<()> {
    let Some(id) = take_last(engine) else {
        return Ok(());
    };
    let busy = Busy { id };
    let ended = engine.shutdown(lock_timeout);
    if !engine.is_closed() {
        let engine = Arc::downgrade(engine);
        lock().insert(
            id,
            Slot::Open {
                engine,
                openings: 1,
            },
        );
        std::mem::forget(busy);
    }
    ended
}

/// Counts one opening less; the id of a slot that is now busy if that was the last.
fn take_last(engine: &Arc<Engine>) -> Option<DirectoryId> {
    let mut registry = lock();
    let (&id, slot) = registry.iter_mut().find(|(_, slot)| match slot {
        Slot::Open { engine: open, .. } => std::ptr::eq(open.as_ptr(), Arc::as_ptr(engine)),
        Slot::Busy => false,
    })?;
    let Slot::Open { openings, .. } = slot else {
        return None;
    };
    *openings -= 1;
    if *openings > 0 {
        return None;
    }
    *slot = Slot::Busy;
    Some(id)
}

/// The open engine, with one opening more; `None` if the slot is the caller's to fill.
fn wait_for_slot(
    vfs: &dyn Vfs,
    directory: &Path,
    id: DirectoryId,
    timeout: Duration,
) -> Result<Option<Arc<Engine>>> {
    let begun = vfs.monotonic();
    loop {
        {
            let mut registry = lock();
            match registry.get_mut(&id) {
                Some(Slot::Open { engine, openings }) => {
                    if let Some(engine) = engine.upgrade() {
                        *openings += 1;
                        return Ok(Some(engine));
                    }
                    registry.insert(id, Slot::Busy);
                    return Ok(None);
                }
                Some(Slot::Busy) => {}
                None => {
                    registry.insert(id, Slot::Busy);
                    return Ok(None);
                }
            }
        }
        let waited = vfs.monotonic().saturating_sub(begun);
        if waited >= timeout {
            return Err(Error::LockTimeout {
                path: directory.to_owned(),
                waited,
                holder: None,
            });
        }
        vfs.sleep(RETRY);
    }
}

/// A busy slot; empty again when dropped.
struct Busy {
    id: DirectoryId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock().remove(&self.id);
    }
}

fn lock() -> MutexGuard<'static, HashMap<DirectoryId, Slot>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
