//! How often this process's memory was forked off: the second of two addresses of `unsafe`.
//!
//! [`watch`] asks the C library, once, to call a handler in every child of a `fork`; [`count`] is
//! then one relaxed load, cheap enough for every operation of a store. `posix_spawn` and `vfork`,
//! which `std::process::Command` prefers, run no handler, and a spawned program never sees this
//! memory. A child made by a bare `clone` system call is not noticed.
//!
//! Invariants:
//! 1. The count only rises, and only in children.
//!
//! Threads and processes: in the child, one thread is left, and it runs the handler before `fork`
//! returns to it; so nobody in the child sees the parent's count.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the first process that called [`watch`] and this one.
pub(in crate::vfs) fn count() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Begins to count. Further calls do nothing.
pub(in crate::vfs) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(register);
}

#[cfg(unix)]
fn register() {
    unsafe extern "C" fn raise() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: `raise` is a plain function that lives as long as the program (the C library drops
    // the handlers of a shared object it unloads) and does only what is allowed between fork and
    // exec: one atomic addition on a static, no allocation, no lock.
    let failure = unsafe { libc::pthread_atfork(None, None, Some(raise)) };
    // The only failure named by POSIX is "no memory", upon which Rust programs end anyway; going
    // on would let a forked child write into its parent's store.
    assert_eq!(failure, 0, "no memory to register a fork handler");
}

#[cfg(not(unix))]
fn register() {}

/// Forks, and gives the exit code of a child that ends with the answer of `child`.
#[cfg(all(test, unix))]
pub(super) fn exit_code_of_forked(child: impl FnOnce() -> u8) -> i32 {
    // SAFETY: `fork` has no precondition. The child has one thread; `child` is chosen by the
    // tests to need no lock that another thread of theirs may have held, and the child leaves by
    // `_exit` without running destructors or exit handlers of the parent.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no process left");
    if pid == 0 {
        let code = i32::from(child());
        // SAFETY: ends the process at once; touches no memory.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `pid` is our own child, waited for by nobody else; `status` outlives the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        -1
    }
}
