//! Giving others the processor for a moment, and noticing when that moment is a long one.
//!
//! A yield is a short way to wait while processors are free. Where others compute all the time it
//! gives away a whole time slice, which is many syncs long: then it is left alone for a while.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::vfs::Vfs;

/// From how long on a yield has given a time slice away.
const LONG: Duration = Duration::from_millis(1);

/// How many waits go without yields after a long one.
const REST: u32 = 256;

/// Whether yields are worth it at the moment.
#[derive(Debug, Default)]
pub(crate) struct Yielding {
    /// How many waits are to go without yet.
    rest: AtomicU32,
}

impl Yielding {
    /// Whether a wait that begins now is to be one of yields.
    pub(crate) fn is_worth_it(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    /// Yields once, at `now`; what time it is then, or `None` if that took too long to go on.
    pub(crate) fn yield_at(&self, vfs: &dyn Vfs, now: Duration) -> Option<Duration> {
        vfs.yield_now();
        let then = vfs.monotonic();
        if then.saturating_sub(now) < LONG {
            return Some(then);
        }
        self.rest.store(REST, Ordering::Relaxed);
        None
    }
}
