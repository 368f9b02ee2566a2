//! The background sync of `Deferred` durability.
//!
//! A commit sets the time by which it must be durable, and wakes the worker; the worker sleeps
//! until then and syncs once for all commits so far. A failed sync poisons the engine, so the
//! next write and `close` report it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::Engine;
use crate::vfs::{Next, Worker};

/// When the next background sync is due, and who does it.
#[derive(Default)]
pub(super) struct Deferred {
    due: Mutex<Option<Duration>>,
    worker: OnceLock<Box<dyn Worker>>,
    engine: OnceLock<Weak<Engine>>,
}

impl Deferred {
    /// Tells the worker to be whose engine it is.
    pub(super) fn attach(&self, engine: &Arc<Engine>) {
        // OK because this is called once, by open.
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    /// Stops the worker; no background sync begins after this.
    pub(super) fn stop(&self) {
        if let Some(worker) = self.worker.get() {
            worker.stop();
        }
    }

    fn take_due(&self, now: Duration) -> Due {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match *due {
            None => Due::Never,
            Some(at) if at > now => Due::In(at.saturating_sub(now)),
            Some(_) => {
                *due = None;
                Due::Now
            }
        }
    }

    /// Sets the time by which all must be durable; true if that is earlier than it was.
    fn bring_forward(&self, at: Duration) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = due.is_none_or(|due| at < due);
        if earlier {
            *due = Some(at);
        }
        earlier
    }
}

enum Due {
    Never,
    In(Duration),
    Now,
}

impl Engine {
    /// Sees to it that all that is appended by now is durable within `delay`; false if the caller
    /// has to, because there is no worker. The caller holds the writer lock.
    pub(super) fn sync_within(&self, delay: Duration) -> bool {
        let at = self.vfs.monotonic().saturating_add(delay);
        let is_earlier = self.deferred.bring_forward(at);
        if let Some(worker) = self.deferred.worker.get() {
            if is_earlier {
                worker.wake();
            }
            return true;
        }
        let engine = self.deferred.engine.get().cloned().unwrap_or_default();
        let step = Box::new(move || match engine.upgrade() {
            Some(engine) => engine.deferred_step(),
            None => Next::Done,
        });
        let spawned = self.vfs.spawn("happystore-sync", step);
        let is_spawned = spawned.is_ok();
        if let Ok(worker) = spawned {
            // OK because only the holder of the writer lock comes here.
            let _ = self.deferred.worker.set(worker);
        }
        is_spawned
    }

    fn deferred_step(&self) -> Next {
        match self.deferred.take_due(self.vfs.monotonic()) {
            Due::Never => Next::WhenWoken,
            Due::In(left) => Next::After(left),
            Due::Now => {
                if let Err(fault) = self.log.sync() {
                    self.failed(fault);
                }
                Next::WhenWoken
            }
        }
    }
}
