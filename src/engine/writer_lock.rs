//! The writer lock between threads: first come, first served, within a deadline.
//!
//! Whoever has it may take the lock between processes, with what is left of the deadline, and
//! holds both until the [`WriteTurn`] ends. Its mutex is held for moments only, never while
//! somebody waits or a file is touched; waiting is done on a [`Signal`] of one's own. Most turns are shorter than going to
//! sleep and waking up is, so whoever would be the first to queue looks a few times more before;
//! those who look at the same time have no order among them, those who queue do.
//!
//! Invariants:
//! 1. `is_free` is false exactly while a turn is running.
//! 2. Whoever is first in the queue has been, or will be, woken when the lock is free.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Holder, Result};
use crate::vfs::{Signal, Vfs};
use crate::yielding::Yielding;

/// How often one looks for a free lock before one queues.
const LOOKS: u32 = 40;

/// The lock.
pub(crate) struct WriterLock {
    /// What a turn without a label of its own is called.
    label: Arc<str>,
    yielding: Yielding,
    /// How many are in the queue, to be looked at without the mutex.
    queued: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    is_free: bool,
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
    /// Until it was given back.
    is_running: bool,
    /// When it began.
    began: Duration,
    /// Whether its thread is going to wait, rather than to come again at once.
    pub(super) is_over: bool,
    /// Whether a commit is on its way; still true when the turn is dropped if it panicked.
    pub(super) committing: bool,
}

impl WriterLock {
    /// A free lock.
    pub(crate) fn new(label: Arc<str>) -> Self {
        let state = State {
            is_free: true,
            running: None,
            queue: VecDeque::new(),
        };
        Self {
            label,
            yielding: Yielding::default(),
            queued: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    /// Takes the lock of `engine`, between threads and between processes, waiting up to `timeout`
    /// for both; zero tries once.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `WouldDeadlock` if this thread holds it; what stands in the
    /// way of taking over from another process.
    pub(crate) fn lock<E: Deref<Target = Engine>>(
        &self,
        engine: E,
        timeout: Duration,
        label: Option<&Arc<str>>,
    ) -> Result<WriteTurn<E>> {
        let turn = self.lock_threads(engine, timeout, label)?;
        turn.enter(turn.waits_until(timeout), timeout.is_zero(), label)?;
        Ok(turn)
    }

    /// Takes the lock between threads alone.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `WouldDeadlock` if this thread holds it.
    pub(super) fn lock_threads<E: Deref<Target = Engine>>(
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
        if state.queue.is_empty() && state.is_free {
            let began = state.run(&engine, thread, label);
            return Ok(WriteTurn::new(engine, began, Duration::ZERO));
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
        let (began, waited) = self.wait(&engine, timeout, thread, label)?;
        Ok(WriteTurn::new(engine, began, waited))
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

    /// Runs `body` while nobody else has the lock between threads; false, and it was not run, if
    /// somebody has.
    pub(super) fn while_free(&self, body: impl FnOnce()) -> bool {
        let is_mine = std::mem::replace(&mut self.lock_state().is_free, false);
        if is_mine {
            body();
            self.give_back();
        }
        is_mine
    }

    /// Whether others wait for it.
    pub(super) fn has_queue(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// When the turn begins, and how long it was waited for.
    fn wait(
        &self,
        engine: &Engine,
        timeout: Duration,
        thread: u64,
        label: Option<&Arc<str>>,
    ) -> Result<(Duration, Duration)> {
        let vfs = &engine.vfs;
        let begun = vfs.monotonic();
        let deadline = begun.saturating_add(timeout);
        let signal = vfs.signal();
        self.lock_state().queue.push_back(signal.clone());
        self.queued.fetch_add(1, Ordering::Relaxed);
        loop {
            let mut state = self.lock_state();
            let first = state
                .queue
                .front()
                .is_some_and(|front| Arc::ptr_eq(front, &signal));
            if first && state.is_free {
                state.queue.pop_front();
                self.queued.fetch_sub(1, Ordering::Relaxed);
                let now = state.run(engine, thread, label);
                return Ok((now, now.saturating_sub(begun)));
            }
            drop(state);
            if timeout.is_zero() || !signal.wait(deadline) {
                break;
            }
        }
        let mut state = self.lock_state();
        state.queue.retain(|queued| !Arc::ptr_eq(queued, &signal));
        self.queued.fetch_sub(1, Ordering::Relaxed);
        let now = vfs.monotonic();
        let here = state.running.as_ref().map(|running| Holder {
            process_id: vfs.process_id(),
            label: self.label_of(running).to_string(),
            held_for: now.saturating_sub(running.since),
        });
        // The wake may have come to us just now; it is the next one's.
        let next = state.next_to_wake();
        drop(state);
        raise(next);
        // The thread before this one may itself wait, for another process.
        let lock = &engine.process_lock;
        let elsewhere = (!lock.holds()).then(|| lock.holder(vfs.as_ref())).flatten();
        Err(Error::LockTimeout {
            path: engine.identity.path.clone(),
            waited: now.saturating_sub(begun),
            holder: elsewhere.or(here).map(Box::new),
        })
    }

    fn give_back(&self) {
        let mut state = self.lock_state();
        state.is_free = true;
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
        !self.is_free && self.queue.is_empty() && !self.running.as_ref().is_some_and(is_mine)
    }

    /// Begins a turn; says when.
    fn run(&mut self, engine: &Engine, thread: u64, label: Option<&Arc<str>>) -> Duration {
        let since = engine.vfs.monotonic();
        self.is_free = false;
        self.running = Some(Running {
            thread,
            label: label.cloned(),
            since,
        });
        since
    }

    /// Who is to be told that the writer is back.
    fn next_to_wake(&self) -> Option<Arc<dyn Signal>> {
        self.is_free.then(|| self.queue.front().cloned()).flatten()
    }
}

fn raise(next: Option<Arc<dyn Signal>>) {
    if let Some(next) = next {
        next.raise();
    }
}

impl<E: Deref<Target = Engine>> WriteTurn<E> {
    fn new(engine: E, began: Duration, waited: Duration) -> Self {
        Self {
            engine,
            is_running: true,
            began: began.saturating_sub(waited),
            is_over: true,
            committing: false,
        }
    }

    /// Until when a turn that may wait for `timeout` in all goes on waiting.
    pub(super) fn waits_until(&self, timeout: Duration) -> Duration {
        self.began.saturating_add(timeout)
    }

    /// Takes the lock between processes, waiting up to `deadline`; with `once`, tries once. Comes
    /// up to all that others have appended.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; what stands in the way of taking over from another process.
    pub(super) fn enter(
        &self,
        deadline: Duration,
        once: bool,
        label: Option<&Arc<str>>,
    ) -> Result<()> {
        let engine = &self.engine;
        // It may have been closed while this thread waited: nobody would give that lock back.
        engine.check_open()?;
        let (vfs, lock) = (engine.vfs.as_ref(), &engine.process_lock);
        if !lock.holds() {
            // What it has missed it need not follow while all others wait for it. OK because it
            // tries again with the lock, and is told then.
            let _ = engine.catch_up();
        }
        lock.take(vfs, self.began, deadline, once)?;
        lock.sign(vfs, label.unwrap_or(&engine.writer_lock.label), self.began);
        let shared = engine.log.shared();
        if !shared.is_owner() || shared.is_writing() {
            // After a failure only opening again tells what is on the disk.
            if let Err(error) = engine.check_poison().and_then(|()| engine.take_over()) {
                lock.leave_turns(vfs);
                return Err(error);
            }
            lock.note_company(self.began);
            shared.set_owner();
        }
        Ok(())
    }

    /// The sequence number this turn's own reads are at: all that is appended. It needs no pin,
    /// because nobody else appends.
    pub(crate) fn sequence(&self) -> u64 {
        self.engine.applied.load(Ordering::Acquire)
    }

    /// Ends the right to write. A second call does nothing.
    pub(super) fn give_back(&mut self) {
        if !std::mem::replace(&mut self.is_running, false) {
            return;
        }
        let engine = &self.engine;
        let (vfs, lock) = (engine.vfs.as_ref(), &engine.process_lock);
        let is_queued = engine.writer_lock.has_queue();
        let is_kept = lock.end_turn(vfs, self.began, self.is_over, is_queued);
        if is_kept && !engine.look_after_lock() {
            lock.leave_turns(vfs);
        }
        engine.writer_lock.give_back();
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
