//! Group commit: who syncs and for whom, what becomes visible by it, and who is woken.
//!
//! Pure bookkeeping over numbers and wakers: no file, no clock, no thread. [`super::tail`] does
//! what is decided here, with the machine; `tests/loom` tries all interleavings of it.
//!
//! A position is a place in the log, a sequence number the number of a batch. Both only rise:
//! *durable* ≤ *appended* are positions, *visible* ≤ *appended* are sequence numbers. A commit is
//! *awaited* if it must not be shown before it is durable.
//!
//! Invariants:
//! 1. One sync runs at a time. It covers what was appended when its target was taken, which is
//!    after its leader has waited for those who may share it.
//! 2. `visible` never reaches an awaited commit that is not durable, nor anything behind one.
//! 3. A failed sync is remembered before anybody is woken; none is begun after it.
//! 4. Waking is a chain: who was woken wakes the next few. While anybody is left to be woken,
//!    somebody who was woken has not done that yet.
//! 5. While anybody waits, a sync is running, or one of those who waited is on its way to lead one.
//!
//! Threads and processes: any thread comes in; appends come from the holder of the writer lock
//! alone. Everything a second process would have to know is one of the few numbers in `State`.

use std::collections::VecDeque;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, WAKE_AT_ONCE};

/// How many wakers are kept for the next who wait.
const SPARE_MAX: usize = 64;

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
    /// Lead a sync: [`GroupSync::begin_sync`], sync, [`GroupSync::end_sync`]; then ask again.
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

/// The state of the growing end of a log.
pub(crate) struct GroupSync<W, F> {
    /// Read without the mutex, raised under it.
    visible: AtomicU64,
    /// How many more may come to share the next sync. Read without the mutex, because a leader
    /// that waits for them looks often, and must not keep them out.
    missing: AtomicU64,
    state: Mutex<State<W, F>>,
}

struct State<W, F> {
    appended: End,
    /// The position before which all is durable.
    durable: u64,
    /// The first awaited commit that no sync has begun for.
    awaited: Option<u64>,
    /// The first awaited commit that the running sync is for.
    in_sync: Option<u64>,
    is_syncing: bool,
    failure: Option<F>,
    sync_count: u64,
    waiting: VecDeque<(Wanted, W)>,
    to_wake: VecDeque<W>,
    spare: Vec<W>,
    /// How many awaited commits have come since the last target was taken.
    arrived: u64,
    /// How many came for that target.
    group: u64,
    /// How many may come if all who committed of late do it again.
    expected: u64,
}

impl<W, F> State<W, F> {
    fn has(&self, wanted: Wanted, visible: u64) -> bool {
        match wanted {
            Wanted::Visible(sequence) => visible >= sequence,
            Wanted::Durable(position) => self.durable >= position,
        }
    }
}

impl<W: Wake + Clone, F: Clone> GroupSync<W, F> {
    /// The end of an empty log.
    pub(crate) fn new() -> Self {
        let state = State {
            appended: End::default(),
            durable: 0,
            awaited: None,
            in_sync: None,
            is_syncing: false,
            failure: None,
            sync_count: 0,
            waiting: VecDeque::new(),
            to_wake: VecDeque::new(),
            spare: Vec::new(),
            arrived: 0,
            group: 0,
            expected: 0,
        };
        Self {
            visible: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }

    /// Takes `end` as an end that is durable, with all before it: after opening, and when a new
    /// segment goes on behind one that was synced.
    pub(crate) fn restart(&self, end: End) {
        let mut state = self.lock();
        state.appended = end;
        state.durable = end.position;
        self.visible.fetch_max(end.sequence, Ordering::Release);
    }

    /// Notes that the log reaches up to `end`, and that the index has what is before it. Visible
    /// at once, unless the commit is awaited, or one before it is.
    ///
    /// # Errors
    /// The failure of a sync, if there was one: then nothing more becomes visible.
    pub(crate) fn append(&self, end: End, is_awaited: bool) -> Result<(), F> {
        let mut state = self.lock();
        state.appended = end;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if is_awaited {
            state.awaited.get_or_insert(end.sequence);
            state.arrived += 1;
            self.count_missing(&state);
        } else if state.awaited.is_none() && state.in_sync.is_none() {
            self.visible.store(end.sequence, Ordering::Release);
        }
        Ok(())
    }

    /// What new readers read at.
    pub(crate) fn visible(&self) -> &AtomicU64 {
        &self.visible
    }

    /// Behind the last record.
    pub(crate) fn appended(&self) -> u64 {
        self.lock().appended.position
    }

    /// The position before which all is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.lock().durable
    }

    /// How many syncs have succeeded.
    pub(crate) fn sync_count(&self) -> u64 {
        self.lock().sync_count
    }

    /// What one who wants `wanted` is to do. Whoever is told to lead must end a sync, whatever
    /// happens.
    ///
    /// # Errors
    /// The failure of a sync, if there was one and `wanted` is not there.
    pub(crate) fn todo(&self, wanted: Wanted, brought: Option<W>) -> Result<Todo<W>, F> {
        let visible = self.visible.load(Ordering::Acquire);
        if matches!(wanted, Wanted::Visible(sequence) if visible >= sequence) {
            return Ok(Todo::Nothing);
        }
        let mut state = self.lock();
        if state.has(wanted, self.visible.load(Ordering::Acquire)) {
            return Ok(Todo::Nothing);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if !state.is_syncing {
            state.is_syncing = true;
            return Ok(Todo::Lead);
        }
        let Some(waker) = brought.or_else(|| state.spare.pop()) else {
            return Ok(Todo::BringWaker);
        };
        state.waiting.push_back((wanted, waker.clone()));
        if matches!(wanted, Wanted::Durable(_)) {
            // This one may have the writer lock: then nobody else will come.
            self.missing.store(0, Ordering::Relaxed);
        }
        Ok(Todo::Wait(waker))
    }

    /// Whether all who may share the next sync have come.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Relaxed) == 0
    }

    fn count_missing(&self, state: &State<W, F>) {
        let missing = state.expected.saturating_sub(state.arrived);
        self.missing.store(missing, Ordering::Relaxed);
    }

    /// Takes the target of the sync that the caller leads: all that is appended by now.
    pub(crate) fn begin_sync(&self) -> End {
        let mut state = self.lock();
        state.in_sync = state.awaited.take();
        state.group = std::mem::take(&mut state.arrived);
        state.appended
    }

    /// Ends the sync that the caller leads: raises what is durable and visible, and begins to wake
    /// those who have what they want, and one who is to lead the next.
    pub(crate) fn end_sync(&self, target: End, synced: Result<(), F>) {
        let mut state = self.lock();
        state.is_syncing = false;
        match synced {
            Ok(()) => {
                state.sync_count += 1;
                state.durable = state.durable.max(target.position);
                state.in_sync = None;
                let visible = state
                    .awaited
                    .map_or(state.appended.sequence, |next| next - 1);
                self.visible.store(visible, Ordering::Release);
            }
            // What is not visible stays so: `in_sync` or `awaited` is before it.
            Err(failure) => state.failure = Some(failure),
        }
        state.expected = state.group + state.arrived;
        self.count_missing(&state);
        let visible = self.visible.load(Ordering::Acquire);
        for (wanted, waker) in std::mem::take(&mut state.waiting) {
            if state.failure.is_some() || state.has(wanted, visible) {
                state.to_wake.push_back(waker);
            } else {
                state.waiting.push_back((wanted, waker));
            }
        }
        let next_to_lead = state.waiting.pop_front();
        drop(state);
        // The disk is idle until that one has begun.
        if let Some((_, waker)) = next_to_lead {
            waker.raise();
        }
        self.wake_some();
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
