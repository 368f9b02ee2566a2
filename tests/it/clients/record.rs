//! What the clients of one run did and were told, and the check of it while they run.
//!
//! Whoever holds the writer lock notes the state after its commit just before it commits, so the
//! order of the [`Record`] is the order of the log; the mark of a commit is its place in it. A read
//! must show one of these states: none older than what had returned or been shown to anybody
//! before the read began, none newer than what was begun when it took its snapshot. What a read
//! showed is noted in the world's journal: a state that was shown holds `Sync` commits up to the
//! newest one in it, and a power cut must not take them.
//!
//! Invariants:
//! 1. Nothing in here calls into the vfs, so no other client runs between what the store told and
//!    its note.
//! 2. Where several states look the same, the oldest that is allowed is taken: nothing is asked of
//!    the store that it has not promised.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happystore::vfs::Vfs;
use happystore::vfs::sim::World;

use crate::crash::oracle::{History, Model};
use crate::crash::workload::Mode;

/// How much later than promised a deferred commit may be durable: what the clock moves by while
/// the store works out when that is.
const DELAY_SLACK: Duration = Duration::from_millis(1);

thread_local! {
    /// The process of the client that runs on this thread.
    static PROCESS: RefCell<Option<Arc<dyn Vfs>>> = const { RefCell::new(None) };
}

/// Says of which process the client is that runs on this thread.
pub(super) fn be_of(process: &Arc<dyn Vfs>) {
    PROCESS.set(Some(process.clone()));
}

/// Why a client stops.
#[derive(Debug, Clone)]
pub(super) enum Halt {
    /// The store broke a promise.
    Wrong(String),
    /// Its process was killed, as planned.
    Dead,
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Begun,
    Returned,
    /// It gave an error: it is there, or not.
    Failed,
    /// It failed, and the next writer saw that it is not there.
    Absent,
}

struct Commit {
    mode: Mode,
    /// As `Deferred`, by when after its return it must be durable.
    delay: Duration,
    fate: Fate,
}

/// What was noted so far.
struct Notes {
    history: History,
    /// Of the marks from `first_mark` on.
    commits: Vec<Commit>,
    /// The newest state that whoever begins to read must see.
    floor: u64,
    /// What showed it.
    floor_reason: String,
    /// The highest marks in the journal's acknowledgements.
    noted: u64,
    noted_durable: u64,
    /// Deferred commits that returned: the time by which they must be durable, and their marks.
    deferred: Vec<(Duration, u64)>,
    /// Whether a client was told of a failure after which every write is refused.
    poisoned: bool,
    /// Whether it was an opening that met the planned failure: others go on.
    failed_at_opening: bool,
    /// Whether a client began to close the store.
    closing: bool,
    returned_count: u64,
    /// Why each mark that was noted as durable was.
    reasons: BTreeMap<u64, String>,
}

/// The notes of one run.
pub(super) struct Record {
    pub(super) world: World,
    first_mark: u64,
    /// How much later than promised a deferred commit may be durable.
    delay_slack: Duration,
    notes: Mutex<Notes>,
}

/// The states that a read may show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Record {
    /// A record that begins with `history`, all of it durable.
    pub(super) fn new(world: &World, history: History) -> Self {
        Self::with_pauses(world, history, Duration::ZERO)
    }

    /// Of clients who may stand still for as long as `pause`.
    pub(super) fn with_pauses(world: &World, history: History, pause: Duration) -> Self {
        let first_mark = history.len();
        let notes = Notes {
            history,
            commits: Vec::new(),
            floor: first_mark - 1,
            floor_reason: "opening".to_owned(),
            noted: 0,
            noted_durable: 0,
            deferred: Vec::new(),
            poisoned: false,
            failed_at_opening: false,
            closing: false,
            returned_count: 0,
            reasons: BTreeMap::new(),
        };
        Self {
            world: world.clone(),
            first_mark,
            delay_slack: DELAY_SLACK + 2 * pause,
            notes: Mutex::new(notes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a planned failure has happened.
    pub(super) fn has_failed(&self) -> bool {
        self.world.faults_fired() > 0
    }

    /// Stops clients of a killed process: what they hear from now on nobody hears.
    pub(super) fn check_alive(&self) -> Result<(), Halt> {
        PROCESS.with_borrow(|process| match process {
            Some(process) if !self.world.is_alive(process) => Err(Halt::Dead),
            _ => Ok(()),
        })
    }

    /// The states, and why each mark that was noted as durable was.
    pub(super) fn into_history(self) -> (History, BTreeMap<u64, String>) {
        let notes = self.notes.into_inner();
        let notes = notes.unwrap_or_else(PoisonError::into_inner);
        (notes.history, notes.reasons)
    }

    /// How many commits have returned.
    pub(super) fn returned_count(&self) -> u64 {
        self.lock().returned_count
    }

    // Writers.

    /// The newest state begun, with its mark.
    pub(super) fn top(&self) -> (u64, Arc<Model>) {
        let notes = self.lock();
        (notes.history.len() - 1, notes.history.last().clone())
    }

    /// Checks what the holder of the writer lock reads: all that was begun before it, less what
    /// failed. Gives the state's mark.
    pub(super) fn base(&self, found: &Model) -> Result<u64, Halt> {
        let failed = self.has_failed();
        let mut notes = self.lock();
        let top = notes.history.len() - 1;
        let mut mark = top;
        while **notes.history.get(mark) != *found {
            let fate = self.commit(&mut notes, mark).map(|commit| commit.fate);
            if !failed || matches!(fate, None | Some(Fate::Returned)) {
                let read = describe(&notes.history, top, found);
                return Err(Halt::Wrong(format!(
                    "who holds the writer lock does not read state {top}, the newest: {read}"
                )));
            }
            mark -= 1;
        }
        for absent in mark + 1..=top {
            if let Some(commit) = self.commit(&mut notes, absent) {
                commit.fate = Fate::Absent;
            }
        }
        Ok(mark)
    }

    fn commit<'notes>(&self, notes: &'notes mut Notes, mark: u64) -> Option<&'notes mut Commit> {
        let at = usize::try_from(mark.checked_sub(self.first_mark)?).unwrap();
        notes.commits.get_mut(at)
    }

    /// The mark of the next commit; stays it for as long as the caller holds the writer lock.
    pub(super) fn next_mark(&self) -> u64 {
        self.lock().history.len()
    }

    /// Notes that a commit to `state` begins, which as `Deferred` is to be durable `delay` after
    /// it returned. The caller holds the writer lock.
    pub(super) fn begin(&self, state: Model, mode: Mode, delay: Duration) -> u64 {
        let mut notes = self.lock();
        let mark = notes.history.push(state.into());
        let fate = Fate::Begun;
        notes.commits.push(Commit { mode, delay, fate });
        self.world.begin(mark);
        mark
    }

    /// Notes that commit `mark` returned.
    pub(super) fn returned(&self, mark: u64) {
        let now = self.world.now();
        let mut notes = self.lock();
        notes.returned_count += 1;
        let Some(commit) = self.commit(&mut notes, mark) else {
            return;
        };
        assert_ne!(
            commit.fate,
            Fate::Absent,
            "commit {mark} returned, but the next writer did not see it"
        );
        commit.fate = Fate::Returned;
        if commit.mode == Mode::Deferred {
            let due = now + commit.delay + self.delay_slack;
            notes.deferred.push((due, mark));
        }
        self.show(&mut notes, mark, "a commit");
    }

    /// Notes that commit `mark` gave an error.
    pub(super) fn failed(&self, mark: u64) {
        if let Some(commit) = self.commit(&mut self.lock(), mark) {
            commit.fate = Fate::Failed;
        }
    }

    /// Notes that a client was told of a failure after which every write is refused.
    pub(super) fn set_poisoned(&self) {
        self.lock().poisoned = true;
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.lock().poisoned
    }

    /// Notes that it was an opening that met the planned failure.
    pub(super) fn set_failed_at_opening(&self) {
        self.lock().failed_at_opening = true;
    }

    pub(super) fn has_failed_at_opening(&self) -> bool {
        self.lock().failed_at_opening
    }

    /// Notes that the store is being closed.
    pub(super) fn set_closing(&self) {
        self.lock().closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    // Readers.

    /// The newest state that whoever begins to read now must see.
    pub(super) fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// What a read may show that began when the floor was `low`, and just took its snapshot.
    pub(super) fn window(&self, low: u64) -> Window {
        let high = self.lock().history.len() - 1;
        Window { low, high }
    }

    /// Notes what a read showed: one of the states of `window` that fit. Gives its mark.
    pub(super) fn seen(
        &self,
        what: &str,
        window: Window,
        fits: impl Fn(&Model) -> bool,
    ) -> Result<u64, Halt> {
        self.check_alive()?;
        let mut notes = self.lock();
        for mark in window.low..=window.high {
            let absent = self
                .commit(&mut notes, mark)
                .is_some_and(|commit| commit.fate == Fate::Absent);
            if !absent && fits(notes.history.get(mark)) {
                self.show(&mut notes, mark, what);
                return Ok(mark);
            }
        }
        let all = 0..notes.history.len();
        let others: Vec<u64> = all.filter(|&mark| fits(notes.history.get(mark))).collect();
        let (floor, reason) = (notes.floor, &notes.floor_reason);
        Err(Halt::Wrong(format!(
            "{what} shows no state of {window:?}, but one like {others:?}; \
             {floor} was shown by {reason}"
        )))
    }

    /// As [`Record::seen`], where the whole state was read.
    pub(super) fn seen_all(&self, what: &str, window: Window, found: &Model) -> Result<u64, Halt> {
        self.seen(what, window, |state| state == found)
            .map_err(|halt| match halt {
                Halt::Wrong(wrong) => {
                    let read = describe(&self.lock().history, window.low, found);
                    Halt::Wrong(format!("{wrong}; {read}"))
                }
                Halt::Dead => Halt::Dead,
            })
    }

    /// Notes that a transaction that wrote nothing gave what it read of state `mark`.
    pub(super) fn shown(&self, what: &str, mark: u64) -> Result<(), Halt> {
        self.check_alive()?;
        self.show(&mut self.lock(), mark, what);
        Ok(())
    }

    fn show(&self, notes: &mut Notes, mark: u64, what: &str) {
        if mark > notes.floor {
            notes.floor = mark;
            what.clone_into(&mut notes.floor_reason);
        }
        if mark > notes.noted {
            notes.noted = mark;
            self.world.acknowledge(mark, false);
        }
        let is_sync = |commit: &Commit| commit.mode == Mode::Sync && commit.fate != Fate::Absent;
        let synced = (self.first_mark..=mark).rev().find(|&mark| {
            self.commit(notes, mark)
                .is_some_and(|commit| is_sync(commit))
        });
        if let Some(synced) = synced {
            self.durable(notes, synced, &format!("{what}, at {mark}"));
        }
    }

    /// Notes that everything up to `mark` was promised to be durable.
    pub(super) fn synced(&self, mark: u64) -> Result<(), Halt> {
        self.check_alive()?;
        self.durable(&mut self.lock(), mark, "a sync");
        Ok(())
    }

    fn durable(&self, notes: &mut Notes, mark: u64, why: &str) {
        if mark > notes.noted_durable {
            notes.noted_durable = mark;
            notes.reasons.insert(mark, why.to_owned());
            self.world.acknowledge(mark, true);
        }
    }

    /// Notes that the background had nothing left to do at `time`: deferred commits whose time
    /// had come are durable, if nothing failed.
    pub(super) fn background_ran(&self, time: Duration) {
        if self.has_failed() {
            return;
        }
        let mut notes = self.lock();
        let due = notes.deferred.iter().filter(|(due, _)| *due <= time);
        if let Some(mark) = due.map(|(_, mark)| *mark).max() {
            self.durable(&mut notes, mark, "a delay that is over");
        }
    }
}

/// How a state that was read differs from that of `mark`.
fn describe(history: &History, mark: u64, found: &Model) -> String {
    let state = history.get(mark);
    let all = 0..history.len();
    let like: Vec<u64> = all.filter(|&mark| **history.get(mark) == *found).collect();
    let keys: Vec<_> = state
        .keys()
        .chain(found.keys())
        .filter(|key| state.get(*key) != found.get(*key))
        .map(|key| String::from_utf8_lossy(key))
        .collect();
    format!("it is like {like:?} and differs from {mark} at {keys:?}")
}
