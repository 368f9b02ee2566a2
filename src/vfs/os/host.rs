//! The process, its threads, its clocks and its chance.
//!
//! Small answers without state of a store; used by the operating system and by memory machines.
//!
//! Invariants:
//! 1. A thread id is given to one thread of the process, ever; none is 0.
//! 2. [`monotonic`] never goes back, and on Unix is one clock for all processes of the host.
//!
//! Threads and processes: all may be called from any thread. A forked child keeps the thread id
//! of the thread that forked.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(in crate::vfs) use super::system::monotonic;

/// The id of this process.
pub(in crate::vfs) fn process_id() -> u32 {
    std::process::id()
}

/// The id of the calling thread, from 1.
pub(in crate::vfs) fn thread_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        // Without a destructor, so that it can be asked while a thread winds down.
        static ID: Cell<u64> = const { Cell::new(0) };
    }
    ID.with(|id| {
        if id.get() == 0 {
            id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        id.get()
    })
}

/// Time since 1970; zero on a machine whose clock is set before.
pub(in crate::vfs) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Sixteen bytes nobody else has.
///
/// The chance is that of the keys of the standard library's hash maps, which come from the
/// kernel once a thread. A forked child inherits them: process id, clocks and a counter are mixed
/// in to keep it, and later calls, apart. Unique, but no secret.
pub(in crate::vfs) fn unique_id() -> [u8; 16] {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let word = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(call);
        hasher.write_u32(process_id());
        hasher.write_u64(thread_id());
        hasher.write_u128(monotonic().as_nanos());
        hasher.write_u128(unix_time().as_nanos());
        hasher.finish()
    };
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        half.copy_from_slice(&(word() ^ word()).to_le_bytes());
    }
    id
}

/// A number that no other call in this process gives.
pub(in crate::vfs) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Lets other threads run.
pub(in crate::vfs) fn yield_now() {
    std::thread::yield_now();
}

/// Waits.
pub(in crate::vfs) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Locks a mutex whose data is whole at every instruction, whoever panicked while holding it.
pub(in crate::vfs) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
