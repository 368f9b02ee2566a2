//! The worker that compacts in the background, started when there is something to look at.
//!
//! What it does is `compaction`'s; the engine only wakes it, when a segment is finished, here or in
//! another process, and stops it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::ErrorKind;
use crate::vfs::Worker;

/// Starts the worker; `None` if there is no thread to be had.
pub(crate) type Start = Box<dyn Fn() -> Option<Box<dyn Worker>> + Send + Sync>;

/// What the compaction of a store by itself is doing, as far as this process does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CompactionState {
    /// Nothing, and it never will: the policy is manual, or the store is open for reading only.
    #[default]
    Off,
    /// Nothing: there is nothing to do, or another process does it.
    Idle,
    /// It writes.
    Running,
    /// Nothing, as long as somebody in this process holds a
    /// [`CompactionPause`](crate::CompactionPause) or compacts by hand.
    Paused,
    /// It has met an error, and tries again within a minute. With `DiskFull` it waits for space, and
    /// leaves a segment and a mebibyte to commits; with `Corrupt` it leaves the damaged segments alone.
    Failed(ErrorKind),
}

/// The worker, or how it is started.
#[derive(Default)]
pub(crate) struct Compactor {
    start: OnceLock<Start>,
    /// Whether it does more than to take in what others have moved.
    compacts: AtomicBool,
    is_started: AtomicBool,
    worker: Mutex<Option<Arc<dyn Worker>>>,
    state: Mutex<CompactionState>,
    /// How many want to compact themselves.
    wanted: AtomicUsize,
    /// What it is in the middle of, between its steps: whoever wants to compact himself takes it away.
    job: Mutex<Option<Job>>,
}

/// See [`Compactor::want`].
pub(crate) struct Wanted<'a>(&'a Compactor);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.end_wanting();
    }
}

/// Work that is dropped by whoever takes it away.
pub(crate) type Job = Box<dyn Any + Send>;

impl Compactor {
    /// Says how it is started, and whether it also compacts. Only the first call counts.
    pub(crate) fn set(&self, start: Start, compacts: bool) {
        if self.start.set(start).is_ok() {
            self.compacts.store(compacts, Ordering::Release);
            if compacts {
                self.set_state(CompactionState::Idle);
            }
        }
    }

    /// Notes what it is doing.
    pub(crate) fn set_state(&self, state: CompactionState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> CompactionState {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state != CompactionState::Off && self.is_wanted() {
            return CompactionState::Paused;
        }
        state
    }

    /// Says that this process has finished a segment.
    pub(super) fn segment_finished(&self) {
        if self.compacts.load(Ordering::Acquire) {
            self.wake();
        }
    }

    /// Says that there may be something to do.
    pub(crate) fn wake(&self) {
        let worker = self.lock_worker().clone();
        if let Some(worker) = worker {
            worker.wake();
        } else if let Some(start) = self.start.get()
            && !self.is_started.swap(true, Ordering::AcqRel)
        {
            *self.lock_worker() = start().map(Arc::from);
        }
    }

    /// Says, until that is dropped, that the caller wants to compact himself: the worker gives up
    /// what it is in the middle of, and begins with nothing.
    pub(crate) fn want(&self) -> Wanted<'_> {
        self.begin_wanting();
        Wanted(self)
    }

    /// As [`Compactor::want`], until [`Compactor::end_wanting`].
    pub(crate) fn begin_wanting(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
    }

    /// See [`Compactor::begin_wanting`].
    pub(crate) fn end_wanting(&self) {
        self.wanted.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether somebody wants to compact himself.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > 0
    }

    /// Takes away what it is in the middle of, if it has not got that in its hands.
    pub(crate) fn take_job(&self) -> Option<Job> {
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        job.take()
    }

    /// Leaves what it goes on with later.
    pub(crate) fn leave_job(&self, job: Job) {
        let mut place = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(job);
    }

    /// Stops it.
    pub(super) fn stop(&self) {
        self.is_started.store(true, Ordering::Release);
        let worker = self.lock_worker().take();
        if let Some(worker) = worker {
            worker.stop();
        }
        drop(self.take_job());
    }

    /// Starts it again.
    pub(super) fn start_again(&self) {
        self.is_started.store(false, Ordering::Release);
        self.wake();
    }

    fn lock_worker(&self) -> MutexGuard<'_, Option<Arc<dyn Worker>>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
