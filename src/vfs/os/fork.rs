//! What a `fork` means to open files: the second of two addresses of `unsafe`.
//!
//! [`watch`] asks the C library, once, to call a handler in every child of a `fork`. It counts:
//! [`count`] is then one relaxed load, cheap enough for every operation of a store. And it gives up
//! the child's copies of the descriptors that locks are held through, [`Guarded`]: a file lock lasts
//! until the last copy is closed, so a child would hold the lock of a parent that was killed. Their
//! numbers stay taken, by the null device, until their owners close them. `posix_spawn` and `vfork`,
//! which `std::process::Command` prefers, run no handler, and a spawned program never sees this
//! memory. A child made by a bare `clone` system call is not noticed.
//!
//! Invariants:
//! 1. The count only rises, and only in children.
//! 2. A number in the table is that of an open descriptor: it leaves the table before it is closed.
//!
//! Threads and processes: in the child, one thread is left, and it runs the handler before `fork`
//! returns to it; so nobody in the child sees the parent's count.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// How many descriptors are guarded at most: two a store. Of more, a child keeps copies.
const GUARDED_MAX: usize = 1024;

/// A place in the table without a descriptor.
const NONE: i32 = -1;

static FORKS: AtomicU64 = AtomicU64::new(0);

static GUARDED: [AtomicI32; GUARDED_MAX] = [const { AtomicI32::new(NONE) }; GUARDED_MAX];

/// A descriptor of which forked children keep no copy.
#[derive(Debug)]
pub(super) struct Guarded {
    place: Option<&'static AtomicI32>,
    descriptor: i32,
}

impl Guarded {
    /// Guards `descriptor`, which must stay open for as long as this lives.
    pub(super) fn new(descriptor: i32) -> Self {
        let is_taken = |place: &&AtomicI32| {
            let taken =
                place.compare_exchange(NONE, descriptor, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        };
        Self {
            place: GUARDED.iter().find(is_taken),
            descriptor,
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // In a forked child it is not there any more, and the place may be another one's.
            let (gone, relaxed) = (NONE, Ordering::Relaxed);
            let _ = place.compare_exchange(self.descriptor, gone, relaxed, relaxed);
        }
    }
}

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
    unsafe extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        give_up_copies();
    }
    // SAFETY: `in_child` is a plain function that lives as long as the program (the C library drops
    // the handlers of a shared object it unloads) and does only what is allowed between fork and
    // exec: atomic operations on statics and calls that are safe in signal handlers, no
    // allocation, no lock.
    let failure = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    // The only failure named by POSIX is "no memory", upon which Rust programs end anyway; going
    // on would let a forked child write into its parent's store.
    assert_eq!(failure, 0, "no memory to register a fork handler");
}

/// In a child: puts the null device in the place of every guarded descriptor. They are guarded no
/// more: the child may close them, and use their numbers for something else.
#[cfg(unix)]
fn give_up_copies() {
    let mut null = NONE;
    for place in &GUARDED {
        let descriptor = place.swap(NONE, Ordering::Relaxed);
        if descriptor == NONE {
            continue;
        }
        // SAFETY: all calls are safe in signal handlers, and the path ends with a zero. `descriptor`
        // is a copy of one that its owner has not closed (invariant 2): nobody in this process
        // relies on what it leads to, because its owner refuses to use it after a fork. That
        // nothing else has got its number is why it is replaced and not closed.
        unsafe {
            if null == NONE {
                null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            }
            if null != NONE {
                libc::dup2(null, descriptor);
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    if null != NONE {
        // SAFETY: opened above, and known to nobody else.
        unsafe { libc::close(null) };
    }
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
