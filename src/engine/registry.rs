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

/// A forked child has engines of its own: those of its parent are not for it to use.
type Key = (u64, DirectoryId);

static REGISTRY: LazyLock<Mutex<HashMap<Key, Slot>>> = LazyLock::new(Mutex::default);

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
    open: impl FnOnce(DirectoryId) -> Result<Arc<Engine>>,
) -> Result<(Arc<Engine>, bool)> {
    let id = vfs
        .directory_id(directory)
        .map_err(|error| Error::io("look at", directory, error))?;
    let key = (vfs.fork_count(), id);
    if let Some(engine) = wait_for_slot(vfs.as_ref(), directory, key, timeout)? {
        return Ok((engine, true));
    }
    // From here on the slot is busy, and must be given back on every way out.
    let busy = Busy { key };
    let engine = open(id)?;
    let opened = Slot::Open {
        engine: Arc::downgrade(&engine),
        openings: 1,
    };
    lock().insert(key, opened);
    std::mem::forget(busy);
    Ok((engine, false))
}

/// Ends one opening of `engine`; the engine itself, if it was the last.
///
/// # Errors
/// As the engine's end; the opening still counts if the engine could not be ended.
pub(super) fn release(engine: &Arc<Engine>, lock_timeout: Duration) -> Result<()> {
    let Some(key) = take_last(engine) else {
        // The engine lives on, and may be dropped by others later; this opening promises now.
        return if engine.is_read_only() {
            Ok(())
        } else {
            engine.sync()
        };
    };
    let busy = Busy { key };
    let ended = engine.shutdown(lock_timeout);
    if !engine.is_closed() {
        let engine = Arc::downgrade(engine);
        lock().insert(
            key,
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
fn take_last(engine: &Arc<Engine>) -> Option<Key> {
    let mut registry = lock();
    let (&key, slot) = registry.iter_mut().find(|(_, slot)| match slot {
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
    Some(key)
}

/// The open engine, with one opening more; `None` if the slot is the caller's to fill.
fn wait_for_slot(
    vfs: &dyn Vfs,
    directory: &Path,
    key: Key,
    timeout: Duration,
) -> Result<Option<Arc<Engine>>> {
    let begun = vfs.monotonic();
    loop {
        {
            let mut registry = lock();
            match registry.get_mut(&key) {
                Some(Slot::Open { engine, openings }) => {
                    if let Some(engine) = engine.upgrade() {
                        *openings += 1;
                        return Ok(Some(engine));
                    }
                    registry.insert(key, Slot::Busy);
                    return Ok(None);
                }
                Some(Slot::Busy) => {}
                None => {
                    registry.insert(key, Slot::Busy);
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
    key: Key,
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock().remove(&self.key);
    }
}

fn lock() -> MutexGuard<'static, HashMap<Key, Slot>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
