//! A binary semaphore with deadlines.
//!
//! Turns that last longer than a mutex may be held (a sync, a wait for the writer lock) are
//! built on it by the rooms above.
//!
//! Invariants:
//! 1. The permit is there or it is not, and whoever finds it under the mutex takes it: a waiter
//!    looks once more after its deadline has passed, so a raise that woke it is never lost.
//!
//! Threads and processes: any number of raisers and waiters; a permit wakes one of them. Not
//! shared with other processes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Signal;
use super::host;

/// A [`Signal`] between the threads of this process.
#[derive(Debug, Default)]
pub(in crate::vfs) struct OsSignal {
    permit: Mutex<bool>,
    raised: Condvar,
}

impl Signal for OsSignal {
    fn raise(&self) {
        *host::lock(&self.permit) = true;
        self.raised.notify_one();
    }

    fn wait(&self, deadline: Duration) -> bool {
        let mut permit = host::lock(&self.permit);
        loop {
            if *permit {
                *permit = false;
                return true;
            }
            let left = deadline.saturating_sub(host::monotonic());
            if left.is_zero() {
                return false;
            }
            permit = wait_for(&self.raised, permit, left);
        }
    }
}

/// Waits for a notice, up to `duration`; may return early.
pub(super) fn wait_for<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    duration: Duration,
) -> MutexGuard<'a, T> {
    condition
        .wait_timeout(guard, duration)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}
