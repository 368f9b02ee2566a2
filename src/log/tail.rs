//! The growing end of the log, and the one stream of syncs that makes it durable.
//!
//! The writer moves the end; whoever needs it durable comes in at [`GrowingTail::sync`]: a commit,
//! the background sync, `store.sync()`. One sync runs at a time. Two at once on one file would
//! be told of a failure only once, and the other one would take lost bytes for durable.
//!
//! Invariants:
//! 1. While a sync runs, everybody else waits for it, and then looks again.
//! 2. A failed sync is remembered before anybody is woken; no sync is tried after it.
//! 3. Bytes before [`Tail::synced`] are durable; bytes before [`Tail::end`] never change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::segment::Segment;
use crate::error::Error;
use crate::failpoint;
use crate::vfs::{Signal, Vfs};

/// How long a waiter sleeps before it looks again, woken or not.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The growing end of the log.
#[derive(Clone)]
pub(crate) struct Tail {
    /// The active segment.
    pub(crate) segment: Arc<Segment>,
    /// Behind the last record.
    pub(crate) end: u32,
    /// Up to here the segment is durable.
    pub(crate) synced: u32,
}

impl Tail {
    /// Whether all that was before the end of `earlier` is durable. A segment that is not the
    /// active one any more was made durable when it was sealed.
    fn covers(&self, earlier: &Self) -> bool {
        self.segment.id != earlier.segment.id || self.synced >= earlier.end
    }
}

/// The tail, behind a mutex that is held for moments only.
#[derive(Default)]
pub(crate) struct GrowingTail {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tail: Option<Tail>,
    /// How many syncs have succeeded.
    sync_count: u64,
    is_syncing: bool,
    failure: Option<Error>,
    waiting: Vec<Arc<dyn Signal>>,
}

/// What is to be done to have a tail durable.
enum Todo {
    Nothing,
    Sync(Tail),
    Wait(Arc<dyn Signal>),
}

impl GrowingTail {
    /// The tail, if anything was ever written.
    pub(super) fn get(&self) -> Option<Tail> {
        self.lock().tail.clone()
    }

    /// Takes `tail` as the tail.
    pub(super) fn replace(&self, tail: Option<Tail>) {
        self.lock().tail = tail;
    }

    /// Up to where the active segment is durable.
    pub(super) fn synced_upto(&self) -> u32 {
        self.lock().tail.as_ref().map_or(0, |tail| tail.synced)
    }

    /// Notes that whole records reach up to `end`.
    pub(super) fn set_end(&self, end: u32) {
        if let Some(tail) = self.lock().tail.as_mut() {
            tail.end = end;
        }
    }

    /// How many syncs have succeeded.
    pub(super) fn sync_count(&self) -> u64 {
        self.lock().sync_count
    }

    /// Makes all that is appended by now durable.
    ///
    /// # Errors
    /// A poisoning fault if this sync fails, or any before it has.
    pub(super) fn sync(&self, vfs: &dyn Vfs) -> Result<(), Fault> {
        let Some(target) = self.get() else {
            return Ok(());
        };
        loop {
            match self.todo(vfs, &target)? {
                Todo::Nothing => return Ok(()),
                Todo::Sync(tail) => self.run(&tail),
                Todo::Wait(signal) => {
                    signal.wait(vfs.monotonic().saturating_add(LOOK_AGAIN));
                }
            }
        }
    }

    fn todo(&self, vfs: &dyn Vfs, target: &Tail) -> Result<Todo, Fault> {
        let mut state = self.lock();
        if let Some(error) = &state.failure {
            return Err(Fault {
                error: error.clone(),
                poisons: true,
            });
        }
        let Some(tail) = state.tail.clone().filter(|tail| !tail.covers(target)) else {
            return Ok(Todo::Nothing);
        };
        if !state.is_syncing {
            state.is_syncing = true;
            return Ok(Todo::Sync(tail));
        }
        let signal = vfs.signal();
        state.waiting.push(signal.clone());
        Ok(Todo::Wait(signal))
    }

    /// Syncs what is before the end of `tail`, and wakes those who wait for it.
    fn run(&self, tail: &Tail) {
        let segment = &tail.segment;
        failpoint::hit!("sync-before");
        let synced = segment.file.sync();
        failpoint::hit!("sync-after");
        let mut state = self.lock();
        state.is_syncing = false;
        match synced {
            Ok(()) => {
                state.sync_count += 1;
                if let Some(now) = state.tail.as_mut()
                    && now.segment.id == segment.id
                {
                    now.synced = now.synced.max(tail.end);
                }
            }
            Err(error) => state.failure = Some(Error::io("sync", &segment.path, error)),
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for signal in waiting {
            signal.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
