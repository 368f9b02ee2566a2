//! Group commit: who syncs and for whom, what becomes visible by it, and who is woken.
//!
//! Pure bookkeeping over numbers and wakers: no file, no clock, no thread. [`super::tail`] does
//! what is decided here, with the machine; `tests/loom` tries all interleavings of it. What other
//! processes have to know is in [`Numbers`], which all of them see at once; who waits and who
//! leads among the threads of this process is in `State`.
//!
//! A position is a place in the log, a sequence number the number of a batch. All of them only
//! rise: *durable* ≤ *appended* are positions, *visible* ≤ *appended* are sequence numbers. A
//! commit is *awaited* if it must not be shown before it is durable.
//!
//! Invariants:
//! 1. One sync of this process runs at a time. It covers what was appended when its target was
//!    taken, which is after its leader has waited for those who may share it.
//! 2. `visible` never reaches an awaited commit that is not durable, nor anything behind one.
//! 3. A failed sync is remembered before anybody is woken; none is begun after it.
//! 4. Waking is a chain: who was woken wakes the next few. While anybody is left to be woken,
//!    somebody who was woken has not done that yet.
//! 5. While anybody waits, a sync is running, or one of those who waited is on its way: to lead
//!    one, or, if another process has brought what it wants, to let another one do that.
//! 6. The mutex is held over no look at the shared numbers.
//!
//! Threads and processes: any thread of any process comes in; appends come from the holder of the
//! writer lock alone. A process that dies in the middle of [`GroupSync::append`] leaves numbers
//! that lag behind the log; in the middle of [`GroupSync::end_sync`], a visible that lags behind
//! the durable: the next append, or the next sync, makes up for it.

use std::collections::VecDeque;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, WAKE_AT_ONCE};

/// How many wakers are kept for the next who wait.
const SPARE_MAX: usize = 64;

/// A number that all who have the log open see at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// Behind the last record: a position.
    Appended,
    /// The number of the last batch.
    Sequence,
    /// Behind the last awaited commit: a position.
    Awaited,
    /// The position before which all is durable.
    Durable,
    /// The sequence number up to which readers see.
    Visible,
    /// How many awaited commits there ever were.
    Arrived,
    /// How many of them there were when the last target was taken.
    Taken,
    /// How many may come for the next target if all who committed of late do it again.
    Expected,
    /// How often a write or a sync has failed in a way that only opening again can mend.
    Failures,
    /// How many of those were mended by one who opened again.
    Mended,
}

/// The shared numbers; sequentially consistent.
pub(crate) trait Numbers {
    /// The number as it is.
    fn get(&self, number: Number) -> u64;

    /// Sets it.
    fn set(&self, number: Number, value: u64);

    /// Sets it, before anything that is set afterwards.
    fn release(&self, number: Number, value: u64);

    /// Sets it to `value` if it is smaller.
    fn raise(&self, number: Number, value: u64);
}

/// What wakes one who waits.
pub(crate) trait Wake {
    /// Lets the waiter go on, now or as soon as it waits.
    fn raise(&self);
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That readers see this sequence number.
    Visible(u64),
    /// That the log is durable up to this position.
    Durable(u64),
}

/// What somebody who wants something is to do.
#[derive(Debug)]
pub(crate) enum Todo<W> {
    /// It is there.
    Nothing,
    /// Lead a sync, ended by [`GroupSync::end_sync`]; then ask again.
    Lead,
    /// Come back with a waker.
    BringWaker,
    /// Wait for this waker, [`GroupSync::woken`], then ask again.
    Wait(W),
}

/// How far the log reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Behind the last record.
    pub(crate) position: u64,
    /// The number of the last batch.
    pub(crate) sequence: u64,
}

/// What a sync is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// All that was appended.
    pub(crate) end: End,
    /// How many awaited commits there had been before those that it is for.
    taken_before: u64,
}

/// The state of the growing end of a log.
pub(crate) struct GroupSync<N, W, F> {
    numbers: N,
    /// The number of failures that this process knows to be mended.
    mended: AtomicU64,
    /// The number of those that were mended before this process looked at the log: more, and
    /// another one has recovered it since.
    history: AtomicU64,
    /// What is told of the failures of others.
    foreign: F,
    state: Mutex<State<W, F>>,
}

struct State<W, F> {
    is_syncing: bool,
    /// How many syncs have ended.
    ended: u64,
    failure: Option<F>,
    /// Whether the other processes were told of it.
    is_told: bool,
    sync_count: u64,
    waiting: VecDeque<(Wanted, W)>,
    to_wake: VecDeque<W>,
    spare: Vec<W>,
}

/// How far the shared numbers were, at one moment or a little later.
#[derive(Clone, Copy)]
struct Reached {
    visible: u64,
    durable: u64,
    /// Whether others have failed.
    is_over: bool,
}

impl<W, F> State<W, F> {
    /// Puts those who have what they want among those who are to be woken; gives the one who is to
    /// lead for the others.
    fn part_waiting(&mut self, reached: Reached) -> Option<W> {
        let is_over = reached.is_over || self.failure.is_some();
        for (wanted, waker) in std::mem::take(&mut self.waiting) {
            let has = match wanted {
                Wanted::Visible(sequence) => reached.visible >= sequence,
                Wanted::Durable(position) => reached.durable >= position,
            };
            if is_over || has {
                self.to_wake.push_back(waker);
            } else {
                self.waiting.push_back((wanted, waker));
            }
        }
        self.waiting.pop_front().map(|(_, waker)| waker)
    }
}

impl<N: Numbers, W: Wake + Clone, F: Clone> GroupSync<N, W, F> {
    /// The end of a log that others may have open too; `foreign` is told of their failures.
    pub(crate) fn new(numbers: N, foreign: F) -> Self {
        let state = State {
            is_syncing: false,
            ended: 0,
            failure: None,
            is_told: false,
            sync_count: 0,
            waiting: VecDeque::new(),
            to_wake: VecDeque::new(),
            spare: Vec::new(),
        };
        Self {
            mended: AtomicU64::new(numbers.get(Number::Failures)),
            history: AtomicU64::new(numbers.get(Number::Mended)),
            numbers,
            foreign,
            state: Mutex::new(state),
        }
    }

    /// Takes `end` as an end that is durable, with all before it: after recovery, and when a new
    /// segment goes on behind one that was synced. The caller holds the writer lock.
    pub(crate) fn restart(&self, end: End) {
        self.numbers.set(Number::Awaited, 0);
        self.numbers.set(Number::Durable, end.position);
        self.numbers.set(Number::Appended, end.position);
        self.numbers.set(Number::Sequence, end.sequence);
        self.numbers.set(Number::Visible, end.sequence);
    }

    /// Takes the first `failures` as mended: the caller has recovered the log since.
    pub(crate) fn mend(&self, failures: u64) {
        self.mended.store(failures, Ordering::SeqCst);
        self.history.store(failures, Ordering::SeqCst);
    }

    /// The shared numbers.
    pub(crate) fn numbers(&self) -> &N {
        &self.numbers
    }

    /// Notes that the log reaches up to `end`, and that the index has what is before it. Visible
    /// at once, unless the commit is awaited, or one before it is.
    ///
    /// # Errors
    /// The failure of a sync, if there was one: then nothing more becomes visible.
    pub(crate) fn append(&self, end: End, is_awaited: bool) -> Result<(), F> {
        let numbers = &self.numbers;
        if is_awaited {
            // Before the sequence number: whoever sees that sees this too.
            numbers.release(Number::Awaited, end.position);
            let arrived = numbers.get(Number::Arrived).wrapping_add(1);
            numbers.release(Number::Arrived, arrived);
        }
        numbers.release(Number::Appended, end.position);
        numbers.set(Number::Sequence, end.sequence);
        self.check()?;
        // Looked at after the sequence number was set: whoever raises the durable looks at them
        // the other way round, so that one of us sees the other.
        if !is_awaited && numbers.get(Number::Awaited) <= numbers.get(Number::Durable) {
            numbers.raise(Number::Visible, end.sequence);
        }
        Ok(())
    }

    /// How many syncs of this process have succeeded.
    pub(crate) fn sync_count(&self) -> u64 {
        self.lock().sync_count
    }

    /// Whether `wanted` is there.
    pub(crate) fn has(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Visible(sequence) => self.numbers.get(Number::Visible) >= sequence,
            Wanted::Durable(position) => self.numbers.get(Number::Durable) >= position,
        }
    }

    /// Refuses if another process has recovered the log since this one opened it: what this one
    /// had appended may be lost, and others may have appended in its place.
    pub(crate) fn check_history(&self) -> Result<(), F> {
        if self.numbers.get(Number::Mended) != self.history.load(Ordering::Relaxed) {
            return Err(self.foreign.clone());
        }
        Ok(())
    }

    /// The failure of this process, or what stands for those of others.
    pub(crate) fn failure(&self) -> Option<F> {
        // This process has told the others of its own.
        if !self.others_failed() {
            return None;
        }
        let failure = self.lock().failure.clone();
        Some(failure.unwrap_or_else(|| self.foreign.clone()))
    }

    /// Also true once this process has told the others of its own failure.
    fn others_failed(&self) -> bool {
        self.numbers.get(Number::Failures) != self.mended.load(Ordering::SeqCst)
    }

    /// Tells all processes that a write or a sync has failed.
    pub(crate) fn tell_failure(&self) {
        let failures = self.numbers.get(Number::Failures);
        self.numbers.raise(Number::Failures, failures + 1);
    }

    /// What one who wants `wanted` is to do. Whoever is told to lead must end a sync, whatever
    /// happens.
    ///
    /// # Errors
    /// The failure of a sync, if there was one and `wanted` is not there.
    pub(crate) fn todo(&self, wanted: Wanted, brought: Option<W>) -> Result<Todo<W>, F> {
        let mut brought = brought;
        loop {
            let ended = self.lock().ended;
            if self.has(wanted) {
                // Looked at afterwards: what is wanted may be of another history.
                self.check_history()?;
                return Ok(Todo::Nothing);
            }
            self.check()?;
            let mut state = self.lock();
            if state.ended != ended {
                // It may have brought what is wanted, and looks no more for who waits.
                continue;
            }
            if !state.is_syncing {
                state.is_syncing = true;
                return Ok(Todo::Lead);
            }
            let Some(waker) = brought.take().or_else(|| state.spare.pop()) else {
                return Ok(Todo::BringWaker);
            };
            state.waiting.push_back((wanted, waker.clone()));
            drop(state);
            if matches!(wanted, Wanted::Durable(_)) {
                // This one may have the writer lock: then nobody else will come.
                self.numbers.set(Number::Expected, 0);
            }
            return Ok(Todo::Wait(waker));
        }
    }

    /// Whether all who may share the next sync have come.
    pub(crate) fn is_complete(&self) -> bool {
        let numbers = &self.numbers;
        let expected = numbers.get(Number::Expected);
        let arrived = numbers.get(Number::Arrived);
        expected == 0 || arrived.saturating_sub(numbers.get(Number::Taken)) >= expected
    }

    /// Takes the target of the sync that the caller leads: all that is appended by now.
    pub(crate) fn begin_sync(&self) -> Target {
        let numbers = &self.numbers;
        let taken_before = numbers.get(Number::Taken);
        numbers.set(Number::Taken, numbers.get(Number::Arrived));
        // In this order: what is before the sequence number is before the position.
        let sequence = numbers.get(Number::Sequence);
        let position = numbers.get(Number::Appended);
        Target {
            end: End { position, sequence },
            taken_before,
        }
    }

    /// Ends the sync that the caller leads, whose target is `None` if another process has brought
    /// what was wanted: raises what is durable and visible, and begins to wake those who have what
    /// they want, and one who is to lead the next; before that it calls `published`.
    pub(crate) fn end_sync(
        &self,
        target: Option<Target>,
        synced: &Result<(), F>,
        published: impl FnOnce(),
    ) {
        if let Err(failure) = synced {
            // Before the others are told: to the threads of this process it is no foreign one.
            self.lock().failure = Some(failure.clone());
            self.tell_failure();
            self.lock().is_told = true;
        }
        // What others have failed to write may be among what this sync took for written.
        let counts = synced.is_ok() && self.check().is_ok();
        if let Some(target) = target.filter(|_| counts) {
            self.publish(target);
        }
        let reached = self.reached();
        let mut state = self.lock();
        state.is_syncing = false;
        state.ended += 1;
        state.sync_count += u64::from(counts && target.is_some());
        let next_to_lead = state.part_waiting(reached);
        drop(state);
        published();
        self.wake(next_to_lead);
    }

    /// To be called by one who had to wait, and goes on without having led: others may have been
    /// left to it.
    pub(crate) fn pass_on(&self) {
        let reached = self.reached();
        let mut state = self.lock();
        if state.is_syncing || state.waiting.is_empty() {
            return;
        }
        let next_to_lead = state.part_waiting(reached);
        drop(state);
        self.wake(next_to_lead);
    }

    fn reached(&self) -> Reached {
        Reached {
            visible: self.numbers.get(Number::Visible),
            durable: self.numbers.get(Number::Durable),
            is_over: self.others_failed(),
        }
    }

    fn wake(&self, next_to_lead: Option<W>) {
        // The disk is idle until that one has begun.
        if let Some(waker) = next_to_lead {
            waker.raise();
        }
        self.wake_some();
    }

    /// Raises what is durable and visible after a sync for `target`.
    fn publish(&self, target: Target) {
        let numbers = &self.numbers;
        numbers.raise(Number::Durable, target.end.position);
        numbers.raise(Number::Visible, target.end.sequence);
        // In this order: an awaited commit that this sequence number counts is seen.
        let sequence = numbers.get(Number::Sequence);
        if numbers.get(Number::Awaited) <= numbers.get(Number::Durable) {
            numbers.raise(Number::Visible, sequence);
        }
        let expected = numbers
            .get(Number::Arrived)
            .saturating_sub(target.taken_before);
        numbers.set(Number::Expected, expected);
    }

    /// Goes on with the chain after `waker` has let the caller go on.
    pub(crate) fn woken(&self, waker: W) {
        let mut state = self.lock();
        if state.spare.len() < SPARE_MAX {
            state.spare.push(waker);
        }
        drop(state);
        self.wake_some();
    }

    /// Refuses if this process has failed, or another one. A failure of this process that the others
    /// were not told of yet is none yet: nobody hears of one after which somebody still writes.
    fn check(&self) -> Result<(), F> {
        let (failure, is_told) = {
            let state = self.lock();
            (state.failure.clone(), state.is_told)
        };
        if is_told || self.others_failed() {
            return Err(failure.unwrap_or_else(|| self.foreign.clone()));
        }
        Ok(())
    }

    fn wake_some(&self) {
        let next: [Option<W>; WAKE_AT_ONCE] = {
            let mut state = self.lock();
            std::array::from_fn(|_| state.to_wake.pop_front())
        };
        for waker in next.into_iter().flatten() {
            waker.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W, F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
