//! Sees to it that a kept writer lock is given up when this process has nothing to write.
//!
//! A process that writes a lot keeps the lock between its turns; this worker looks every
//! millisecond, as long as it is kept, whether that was for nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::Engine;
use super::process_lock::KEEP;
use crate::vfs::{Next, Worker};

/// The worker, made when it is needed first.
#[derive(Default)]
pub(super) struct Keeper {
    worker: OnceLock<Box<dyn Worker>>,
    engine: OnceLock<Weak<Engine>>,
    /// Whether it looks, or was told to.
    is_awake: AtomicBool,
    /// How many turns there had been when it looked last.
    turns_seen: AtomicU64,
}

impl Keeper {
    /// Tells the worker to be whose engine it is.
    pub(super) fn attach(&self, engine: &Arc<Engine>) {
        // OK because this is called once, by open.
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    /// Stops the worker.
    pub(super) fn stop(&self) {
        if let Some(worker) = self.worker.get() {
            worker.stop();
        }
    }
}

impl Engine {
    /// Sees to it that the lock, which this process keeps, is given up in time; false if the
    /// caller has to, because there is no worker. The caller holds the writer lock.
    pub(super) fn look_after_lock(&self) -> bool {
        let is_awake = &self.keeper.is_awake;
        if is_awake.load(Ordering::SeqCst) || is_awake.swap(true, Ordering::SeqCst) {
            return true;
        }
        if let Some(worker) = self.keeper.worker.get() {
            worker.wake();
            return true;
        }
        let engine = self.keeper.engine.get().cloned().unwrap_or_default();
        let step = Box::new(move || match engine.upgrade() {
            Some(engine) => engine.keeper_step(),
            None => Next::Done,
        });
        let spawned = self.vfs.spawn("happystore-lock", step);
        let is_spawned = spawned.is_ok();
        if let Ok(worker) = spawned {
            // OK because only the holder of the writer lock comes here.
            let _ = self.keeper.worker.set(worker);
        } else {
            is_awake.store(false, Ordering::SeqCst);
        }
        is_spawned
    }

    fn keeper_step(&self) -> Next {
        let turns = self.process_lock.turns();
        let is_used = self.keeper.turns_seen.swap(turns, Ordering::AcqRel) != turns;
        let is_wanted = self.process_lock.is_waited_for(self.vfs.as_ref());
        if !self.process_lock.holds() {
            return self.fall_asleep();
        }
        // One who keeps the lock for ever would never be told that nobody else respects it.
        let is_stale = self.process_lock.check_files(self.vfs.as_ref()).is_err();
        if is_used && !is_wanted && !is_stale {
            return Next::After(KEEP);
        }
        // Whoever runs at this moment gives it up himself, or is looked at next time.
        if self
            .writer_lock
            .while_free(|| self.process_lock.leave_turns(self.vfs.as_ref()))
        {
            return self.fall_asleep();
        }
        Next::After(KEEP)
    }

    /// Goes to sleep, unless the lock was taken and kept meanwhile by somebody who thought that it
    /// was awake.
    fn fall_asleep(&self) -> Next {
        self.keeper.is_awake.store(false, Ordering::SeqCst);
        if self.process_lock.holds() && !self.keeper.is_awake.swap(true, Ordering::SeqCst) {
            return Next::After(KEEP);
        }
        Next::WhenWoken
    }
}
