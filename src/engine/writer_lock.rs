//! The writer lock between threads: first come, first served, within a deadline.
//!
//! What is locked is the [`Writer`] itself: the lock hands it out, and takes it back when the
//! [`WriteTurn`] ends. Its mutex is held for moments only, never while somebody waits or a file
//! is touched; waiting is done on a [`Signal`] of one's own. Most turns are shorter than going to
//! sleep and waking up is, so whoever would be the first to queue looks a few times more before;
//! those who look at the same time have no order among them, those who queue do.
//!
//! Invariants:
//! 1. `writer` is `None` exactly while a turn is running.
//! 2. Whoever is first in the queue has been, or will be, woken when the writer is back.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Holder, Result};
use crate::log::writer::Writer;
use crate::vfs::{Signal, Vfs};
use crate::yielding::Yielding;

/// How often one looks for a free lock before one queues.
const LOOKS: u32 = 40;

/// The lock.
pub(crate) struct WriterLock {
    /// What a turn without a label of its own is called.
    label: Arc<str>,
    yielding: Yielding,
    state: Mutex<State>,
}

struct State {
    writer: Option<Box<Writer>>,
    running: Option<Running>,
    queue: VecDeque<Arc<dyn Signal>>,
}

/// The turn that is running.
struct Running {
    thread: u64,
    label: Option<Arc<str>>,
    since: Duration,
}

/// The right to write, until dropped.
pub(crate) struct WriteTurn<E: Deref<Target = Engine>> {
    pub(super) engine: E,
    /// `None` once it was given back.
    writer: Option<Box<Writer>>,
    /// Whether a commit is on its way; still true when the turn is dropped if it panicked.
    pub(super) committing: bool,
}

impl WriterLock {
    /// A free lock around `writer`.
    pub(crate) fn new(writer: Writer, label: Arc<str>) -> Self {
        let state = State {
            writer: Some(Box::new(writer)),
            running: None,
            queue: VecDeque::new(),
        };
        Self {
            label,
            yielding: Yielding::default(),
            state: Mutex::new(state),
        }
    }

    /// Takes the lock of `engine`, waiting up to `timeout`; zero tries once.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `WouldDeadlock` if this thread holds it.
    pub(crate) fn lock<E: Deref<Target = Engine>>(
        &self,
        engine: E,
        timeout: Duration,
        label: Option<&Arc<str>>,
    ) -> Result<WriteTurn<E>> {
        let thread = engine.vfs.thread_id();
        let mut state = self.lock_state();
        if !timeout.is_zero() && state.is_worth_a_look(thread) && self.yielding.is_worth_it() {
            drop(state);
            self.look_again(engine.vfs.as_ref(), thread);
            state = self.lock_state();
        }
        if state.queue.is_empty()
            && let Some(writer) = state.writer.take()
        {
            state.run(&engine, thread, label);
            return Ok(WriteTurn {
                engine,
                writer: Some(writer),
                committing: false,
            });
        }
        if let Some(running) = state
            .running
            .as_ref()
            .filter(|running| running.thread == thread)
        {
            let label = self.label_of(running).to_string();
            return Err(Error::WouldDeadlock { label });
        }
        drop(state);
        engine.counters.lock_waits.fetch_add(1, Ordering::Relaxed);
        let writer = self.wait(&engine, timeout, thread, label)?;
        Ok(WriteTurn {
            engine,
            writer: Some(writer),
            committing: false,
        })
    }

    /// Looks for a while whether the lock is free.
    fn look_again(&self, vfs: &dyn Vfs, thread: u64) {
        let mut now = vfs.monotonic();
        for _ in 0..LOOKS {
            match self.yielding.yield_at(vfs, now) {
                Some(then) if self.lock_state().is_worth_a_look(thread) => now = then,
                _ => break,
            }
        }
    }

    fn wait(
        &self,
        engine: &Engine,
        timeout: Duration,
        thread: u64,
        label: Option<&Arc<str>>,
    ) -> Result<Box<Writer>> {
        let vfs = &engine.vfs;
        let begun = vfs.monotonic();
        let deadline = begun.saturating_add(timeout);
        let signal = vfs.signal();
        self.lock_state().queue.push_back(signal.clone());
        loop {
            let mut state = self.lock_state();
            let first = state
                .queue
                .front()
                .is_some_and(|front| Arc::ptr_eq(front, &signal));
            if first && let Some(writer) = state.writer.take() {
                state.queue.pop_front();
                state.run(engine, thread, label);
                return Ok(writer);
            }
            drop(state);
            if timeout.is_zero() || !signal.wait(deadline) {
                break;
            }
        }
        let mut state = self.lock_state();
        state.queue.retain(|queued| !Arc::ptr_eq(queued, &signal));
        let now = vfs.monotonic();
        let holder = state.running.as_ref().map(|running| {
            Box::new(Holder {
                process_id: vfs.process_id(),
                label: self.label_of(running).to_string(),
                held_for: now.saturating_sub(running.since),
            })
        });
        // The wake may have come to us just now; it is the next one's.
        let next = state.next_to_wake();
        drop(state);
        raise(next);
        let path = engine.identity.path.clone();
        Err(Error::LockTimeout {
            path,
            waited: now.saturating_sub(begun),
            holder,
        })
    }

    fn give_back(&self, writer: Box<Writer>) {
        let mut state = self.lock_state();
        state.writer = Some(writer);
        state.running = None;
        let next = state.next_to_wake();
        drop(state);
        raise(next);
    }

    fn label_of<'a>(&'a self, running: &'a Running) -> &'a str {
        running.label.as_deref().unwrap_or(&self.label)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether `thread` would be the next to have the lock, once another one is done with it.
    fn is_worth_a_look(&self, thread: u64) -> bool {
        let is_mine = |running: &Running| running.thread == thread;
        self.writer.is_none()
            && self.queue.is_empty()
            && !self.running.as_ref().is_some_and(is_mine)
    }

    fn run(&mut self, engine: &Engine, thread: u64, label: Option<&Arc<str>>) {
        self.running = Some(Running {
            thread,
            label: label.cloned(),
            since: engine.vfs.monotonic(),
        });
    }

    /// Who is to be told that the writer is back.
    fn next_to_wake(&self) -> Option<Arc<dyn Signal>> {
        self.writer
            .is_some()
            .then(|| self.queue.front().cloned())
            .flatten()
    }
}

fn raise(next: Option<Arc<dyn Signal>>) {
    if let Some(next) = next {
        next.raise();
    }
}

impl<E: Deref<Target = Engine>> WriteTurn<E> {
    /// The engine, and the writer to append with.
    pub(super) fn parts(&mut self) -> (&Engine, &mut Writer) {
        let writer = self
            .writer
            .as_mut()
            .expect("OK because it is given back at the end of a commit, which consumes the turn");
        (&self.engine, writer)
    }

    /// Ends the right to write. A second call does nothing.
    pub(super) fn give_back(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.engine.writer_lock.give_back(writer);
        }
    }
}

impl<E: Deref<Target = Engine>> Drop for WriteTurn<E> {
    fn drop(&mut self) {
        // In a forked child another thread of the parent may hold the mutex for ever.
        if self.engine.is_forked() {
            return;
        }
        if self.committing {
            self.engine.poison("a panic inside a commit");
        }
        self.give_back();
    }
}
