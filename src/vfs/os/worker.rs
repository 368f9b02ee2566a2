//! A background worker: one named thread that runs a step again and again.
//!
//! The thread owns the step; the handle and the thread share a [`Control`].
//!
//! Invariants:
//! 1. `woken` is cleared, under the mutex, before a step begins: a wake that comes later than
//!    that makes another step run.
//! 2. `ended` is set after the step was dropped, also when it panicked, and as the last thing the
//!    thread does with the control.
//!
//! Threads and processes: wake and stop may be called from any thread, the worker's own among
//! them. A forked child has no worker: its handles do nothing there.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::{Next, Step, Worker};
use super::signal::wait_for;
use super::{fork, host};

/// What a worker's thread and its handle both see.
#[derive(Debug, Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// The worker's thread; 0 until it runs.
    thread: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    stopping: bool,
    ended: bool,
}

/// How many threads are worth having.
pub(super) fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Calls `job` with each number below `count`, on several threads if they can be had.
pub(super) fn side_by_side(count: usize, job: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            job(number);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..count.min(parallelism()) {
            let builder = std::thread::Builder::new().name("happystore-load".into());
            if builder.spawn_scoped(scope, work).is_err() {
                // Then it takes longer, and nothing else.
                break;
            }
        }
        work();
    });
}

/// A [`Worker`] on a thread of its own.
#[derive(Debug)]
pub(in crate::vfs) struct OsWorker {
    control: Arc<Control>,
    /// Taken by the first stop that waits.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The fork count of the process that has the thread.
    forks: u64,
}

impl OsWorker {
    /// Starts a thread called `name` that runs `step` at once.
    pub(in crate::vfs) fn start(name: &str, step: Step) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        // A name with a zero byte in it would be a panic.
        let thread = std::thread::Builder::new()
            .name(name.replace('\0', ""))
            .spawn(move || {
                let _ended = Ended(&shared);
                shared.thread.store(host::thread_id(), Ordering::Relaxed);
                // INVARIANT: `run` owns the step, so it is dropped before `_ended`, even when
                // the step panics: the panic hook tells of it, and the thread ends here.
                run(&shared, step);
            })?;
        Ok(Self {
            control,
            thread: Mutex::new(Some(thread)),
            forks: fork::count(),
        })
    }

    /// Whether the worker is a thread of this process, and not of a parent.
    fn is_ours(&self) -> bool {
        self.forks == fork::count()
    }
}

impl Worker for OsWorker {
    fn wake(&self) {
        if self.is_ours() {
            host::lock(&self.control.state).woken = true;
            self.control.changed.notify_all();
        }
    }

    fn stop(&self) {
        if !self.is_ours() {
            return;
        }
        let mut state = host::lock(&self.control.state);
        state.stopping = true;
        self.control.changed.notify_all();
        // Only the worker's own thread can find its own id here, so no ordering is needed.
        if self.control.thread.load(Ordering::Relaxed) == host::thread_id() {
            return;
        }
        while !state.ended {
            state = self
                .control
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let thread = host::lock(&self.thread).take();
        if let Some(thread) = thread {
            // An error is the step's panic, which the panic hook has told.
            let _ = thread.join();
        }
    }
}

/// Says, when dropped, that the step is gone.
struct Ended<'a>(&'a Control);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        host::lock(&self.0.state).ended = true;
        self.0.changed.notify_all();
    }
}

/// Runs `step` until it is done or stopped.
fn run(control: &Control, mut step: Step) {
    let mut wanted = Next::After(Duration::ZERO);
    while await_turn(control, wanted) {
        wanted = step();
    }
}

/// Waits until a step that answered `wanted` is to run again; false if it never is.
fn await_turn(control: &Control, wanted: Next) -> bool {
    let due = match wanted {
        Next::After(wait) => Some(host::monotonic().saturating_add(wait)),
        Next::WhenWoken => None,
        Next::Done => return false,
    };
    let mut state = host::lock(&control.state);
    loop {
        if state.stopping {
            return false;
        }
        let left = due.map(|due| due.saturating_sub(host::monotonic()));
        if state.woken || left == Some(Duration::ZERO) {
            state.woken = false;
            return true;
        }
        state = match left {
            Some(left) => wait_for(&control.changed, state, left),
            None => control
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}
