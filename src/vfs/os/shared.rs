//! What a machine in memory has in common with the real one: time, threads, signals, workers.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use crate::vfs::{Next, Signal, Step, Worker};

/// The clock that all processes of a host read alike.
pub(in crate::vfs) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

pub(in crate::vfs) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

pub(in crate::vfs) fn thread_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static ID: Cell<u64> = const { Cell::new(0) };
    }
    // A thread that is ending has no id any more, and holds no lock either.
    ID.try_with(|id| {
        if id.get() == 0 {
            id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        id.get()
    })
    .unwrap_or(0)
}

/// Sixteen bytes from the operating system's randomness, by way of the standard library's hash
/// keys, with the time and the process mixed in.
pub(in crate::vfs) fn unique_id() -> [u8; 16] {
    let half = || RandomState::new().hash_one((unix_time(), std::process::id(), thread_id()));
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half().to_le_bytes());
    id[8..].copy_from_slice(&half().to_le_bytes());
    id
}

/// A permit behind a mutex.
#[derive(Default)]
struct OsSignal {
    raised: Mutex<bool>,
    change: Condvar,
}

pub(in crate::vfs) fn signal() -> Arc<dyn Signal> {
    Arc::new(OsSignal::default())
}

impl Signal for OsSignal {
    fn raise(&self) {
        *lock(&self.raised) = true;
        self.change.notify_one();
    }

    fn wait(&self, deadline: Duration) -> bool {
        let mut raised = lock(&self.raised);
        loop {
            if std::mem::take(&mut *raised) {
                return true;
            }
            let left = deadline.saturating_sub(monotonic());
            if left.is_zero() {
                return false;
            }
            let waited = self.change.wait_timeout(raised, left);
            raised = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker is a thread of its own.
struct OsWorker {
    control: Arc<Control>,
    thread: Thread,
}

/// What worker and handle say to each other.
#[derive(Default)]
struct Control {
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    stopping: bool,
    /// The step was dropped; no code of it runs any more.
    ended: bool,
}

pub(in crate::vfs) fn spawn(name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
    let control = Arc::new(Control::default());
    let theirs = control.clone();
    let handle = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Ends the worker on every way out of it, a panic included; the step is dropped before.
            let _ended = Ended(&theirs);
            run(&theirs, step);
        })?;
    Ok(Box::new(OsWorker {
        control,
        thread: handle.thread().clone(),
    }))
}

struct Ended<'a>(&'a Control);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).ended = true;
        self.0.change.notify_all();
    }
}

fn run(control: &Control, mut step: Step) {
    loop {
        {
            let mut state = lock(&control.state);
            if state.stopping {
                return;
            }
            state.woken = false;
        }
        let deadline = match step() {
            Next::Done => return,
            Next::WhenWoken => None,
            Next::After(wait) => Some(monotonic().saturating_add(wait)),
        };
        control.wait(deadline);
    }
}

impl Control {
    /// Waits until woken, stopped, or `deadline`.
    fn wait(&self, deadline: Option<Duration>) {
        let mut state = lock(&self.state);
        while !state.woken && !state.stopping {
            state = match deadline {
                None => self
                    .change
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_sub(monotonic());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.change.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Worker for OsWorker {
    fn wake(&self) {
        lock(&self.control.state).woken = true;
        self.control.change.notify_all();
    }

    fn stop(&self) {
        let mut state = lock(&self.control.state);
        state.stopping = true;
        self.control.change.notify_all();
        if thread::current().id() == self.thread.id() {
            return;
        }
        while !state.ended {
            state = self
                .control
                .change
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
