//! Knowing that this process is a forked child.
//!
//! `fork` copies memory, and with it every handle; what the handles stand for (threads, locks)
//! stays with the parent. A counter is raised in every child, so that a handle can tell.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How often this process's memory was forked off.
pub(super) fn count() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Begins to count. A failure, which takes exhausted memory, leaves forks unnoticed.
pub(super) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only touches an atomic, which is allowed between fork and exec,
        // and is a function that is never unloaded.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
    });
}
