//! The hand-off of group commit under loom, which tries every interleaving of a few threads.
//!
//! The file under test is the one that the library is built from; only the mutex and the atomic
//! below it are loom's. A thread here does what `log::tail` does: append under a writer lock, ask
//! what is to do, lead or wait. The disk is a number that a sync raises.
//!
//! Threads are interrupted where they could have gone on as often as `PREEMPTIONS_MAX` says for so
//! many of them, or `LOOM_MAX_PREEMPTIONS`.
#![cfg(test)]

#[path = "../../src/log/group_sync.rs"]
mod group_sync;

/// What `group_sync` synchronizes with.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;

    /// So that the chain has links.
    pub(crate) const WAKE_AT_ONCE: usize = 1;
}

use group_sync::{End, GroupSync, Number, Numbers, Todo, Wake, Wanted};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// How often threads are interrupted where there are two of them, and three.
const PREEMPTIONS_MAX: [usize; 2] = [5, 3];

/// Tries all interleavings of `body`, which has so many threads.
fn try_all(threads: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    if model.preemption_bound.is_none() {
        model.preemption_bound = Some(PREEMPTIONS_MAX[threads - 2]);
    }
    model.check(body);
}

/// A permit, as the library's signals are.
#[derive(Clone)]
struct Permit(Arc<(Mutex<bool>, Condvar)>);

impl Permit {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn wait(&self) {
        let mut is_there = self.0.0.lock().unwrap();
        while !*is_there {
            is_there = self.0.1.wait(is_there).unwrap();
        }
        *is_there = false;
    }
}

impl Wake for Permit {
    fn raise(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
}

/// The numbers that processes share. Those that only say whom it is worth to wait for are not
/// loom's: whatever they are, nothing may go wrong.
struct Words {
    promised: [AtomicU64; 5],
    guessed: [std::sync::atomic::AtomicU64; 5],
}

impl Words {
    fn new() -> Self {
        Self {
            promised: std::array::from_fn(|_| AtomicU64::new(0)),
            guessed: std::array::from_fn(|_| std::sync::atomic::AtomicU64::new(0)),
        }
    }
}

/// The place of a number among the promised, or among the guessed.
fn place(number: Number) -> Result<usize, usize> {
    match number {
        Number::Appended => Ok(0),
        Number::Sequence => Ok(1),
        Number::Awaited => Ok(2),
        Number::Durable => Ok(3),
        Number::Visible => Ok(4),
        Number::Arrived => Err(0),
        Number::Taken => Err(1),
        Number::Expected => Err(2),
        Number::Failures => Err(3),
        Number::Mended => Err(4),
    }
}

impl Numbers for Arc<Words> {
    fn get(&self, number: Number) -> u64 {
        match place(number) {
            Ok(at) => self.promised[at].load(Ordering::SeqCst),
            Err(at) => self.guessed[at].load(Ordering::SeqCst),
        }
    }

    fn set(&self, number: Number, value: u64) {
        match place(number) {
            Ok(at) => self.promised[at].store(value, Ordering::SeqCst),
            Err(at) => self.guessed[at].store(value, Ordering::SeqCst),
        }
    }

    fn release(&self, number: Number, value: u64) {
        match place(number) {
            Ok(at) => self.promised[at].store(value, Ordering::Release),
            Err(at) => self.guessed[at].store(value, Ordering::Release),
        }
    }

    fn raise(&self, number: Number, value: u64) {
        match place(number) {
            Ok(at) => self.promised[at].fetch_max(value, Ordering::SeqCst),
            Err(at) => self.guessed[at].fetch_max(value, Ordering::SeqCst),
        };
    }
}

/// A log whose records are as long as one.
struct Log {
    /// One for each process.
    groups: Vec<GroupSync<Arc<Words>, Permit, &'static str>>,
    /// The number of the last batch, for the holder of the writer lock.
    writer: Mutex<u64>,
    /// How many records a power cut leaves.
    disk: AtomicU64,
    /// Which commits are awaited, by their numbers less one.
    awaited: Vec<bool>,
    /// Whether the next sync fails.
    fails: bool,
}

impl Log {
    fn new(awaited: &[bool], fails: bool) -> Arc<Self> {
        Self::of_processes(1, awaited, fails)
    }

    fn of_processes(processes: usize, awaited: &[bool], fails: bool) -> Arc<Self> {
        let words = Arc::new(Words::new());
        let group = |_| GroupSync::new(words.clone(), "another process has failed");
        let groups: Vec<_> = (0..processes).map(group).collect();
        groups[0].restart(End::default());
        Arc::new(Self {
            groups,
            writer: Mutex::new(0),
            disk: AtomicU64::new(0),
            awaited: awaited.to_vec(),
            fails,
        })
    }

    /// Commits a batch; its number once it is visible.
    fn commit(&self) -> Result<u64, &'static str> {
        self.commit_in(0)
    }

    /// As [`Log::commit`], in this process.
    fn commit_in(&self, process: usize) -> Result<u64, &'static str> {
        let sequence = {
            let mut writer = self.writer.lock().unwrap();
            *writer += 1;
            let end = End {
                position: *writer,
                sequence: *writer,
            };
            self.groups[process].append(end, self.is_awaited(*writer))?;
            *writer
        };
        self.wait_in(process, Wanted::Visible(sequence))
            .map(|()| sequence)
    }

    fn wait(&self, wanted: Wanted) -> Result<(), &'static str> {
        self.wait_in(0, wanted)
    }

    fn wait_in(&self, process: usize, wanted: Wanted) -> Result<(), &'static str> {
        let group = &self.groups[process];
        let (mut brought, mut has_waited) = (None, false);
        let done = loop {
            match group.todo(wanted, brought.take()) {
                Ok(Todo::Nothing) => break Ok(()),
                Err(failure) => break Err(failure),
                Ok(Todo::BringWaker) => brought = Some(Permit::new()),
                Ok(Todo::Wait(permit)) => {
                    permit.wait();
                    has_waited = true;
                    group.woken(permit);
                }
                Ok(Todo::Lead) => {
                    has_waited = false;
                    if !group.is_complete() {
                        thread::yield_now();
                    }
                    let target = group.begin_sync();
                    let synced = if self.fails {
                        Err("the sync failed")
                    } else {
                        self.disk.fetch_max(target.end.position, Ordering::SeqCst);
                        Ok(())
                    };
                    group.end_sync(Some(target), &synced, || ());
                }
            }
        };
        if has_waited {
            group.pass_on();
        }
        done
    }

    fn is_awaited(&self, sequence: u64) -> bool {
        self.awaited[usize::try_from(sequence).unwrap() - 1]
    }

    /// What a reader sees; checks that no power cut can take awaited commits of it back.
    fn read(&self) -> u64 {
        let visible = self.groups[0].numbers().get(Number::Visible);
        let disk = self.disk.load(Ordering::SeqCst);
        for sequence in disk + 1..=visible {
            assert!(
                !self.is_awaited(sequence),
                "{sequence} was shown with {disk} on disk"
            );
        }
        visible
    }
}

/// Runs `threads` that each commit once beside this one, which commits and reads.
fn commits_beside_each_other(awaited: &'static [bool], threads: usize) {
    try_all(threads + 1, move || {
        let log = Log::new(awaited, false);
        let others: Vec<_> = (0..threads)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || {
                    let mine = log.commit().unwrap();
                    assert!(log.read() >= mine);
                })
            })
            .collect();
        let before = log.read();
        let mine = log.commit().unwrap();
        let after = log.read();
        assert!(after >= mine && after >= before);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(log.read(), awaited.len() as u64);
        assert!((1..=awaited.len() as u64).contains(&log.groups[0].sync_count()));
    });
}

#[test]
fn two_awaited_commits_return_visible_and_durable() {
    commits_beside_each_other(&[true, true], 1);
}

#[test]
fn three_awaited_commits_return_visible_and_durable() {
    commits_beside_each_other(&[true, true, true], 2);
}

#[test]
fn what_is_not_awaited_is_not_shown_before_what_is() {
    commits_beside_each_other(&[true, false], 1);
    commits_beside_each_other(&[false, true], 1);
    commits_beside_each_other(&[true, false, true], 2);
}

#[test]
fn a_commit_beside_one_who_wants_all_durable() {
    try_all(2, || {
        let log = Log::new(&[true, false], false);
        let other = {
            let log = log.clone();
            thread::spawn(move || log.commit().unwrap())
        };
        log.commit().unwrap();
        let appended = log.groups[0].numbers().get(Number::Appended);
        log.wait(Wanted::Durable(appended)).unwrap();
        assert!(log.disk.load(Ordering::SeqCst) >= appended);
        assert!(log.groups[0].numbers().get(Number::Durable) >= appended);
        other.join().unwrap();
        log.read();
    });
}

#[test]
fn a_failed_sync_is_told_to_everybody_and_shows_nothing() {
    try_all(3, || {
        let log = Log::new(&[true, true, true], true);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || log.commit().is_err())
            })
            .collect();
        assert!(log.commit().is_err());
        for other in others {
            assert!(other.join().unwrap());
        }
        assert_eq!(log.read(), 0);
        let appended = log.groups[0].numbers().get(Number::Appended);
        assert!(log.wait(Wanted::Durable(appended)).is_err());
    });
}

/// Each process syncs by itself here: whatever is brought by whom, nothing is shown too early, and
/// nobody waits for ever.
#[test]
fn processes_share_what_is_visible_and_what_is_durable() {
    try_all(3, || {
        let log = Log::of_processes(2, &[true, false, true], false);
        let others: Vec<_> = (0..2)
            .map(|process| {
                let log = log.clone();
                thread::spawn(move || {
                    let mine = log.commit_in(process).unwrap();
                    assert!(log.read() >= mine);
                })
            })
            .collect();
        let mine = log.commit_in(1).unwrap();
        assert!(log.read() >= mine);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(log.read(), 3);
    });
}

#[test]
fn the_failure_of_one_process_is_told_in_all_until_it_is_mended() {
    try_all(2, || {
        let log = Log::of_processes(2, &[true, true], true);
        let other = {
            let log = log.clone();
            thread::spawn(move || log.commit_in(1).is_err())
        };
        assert!(log.commit_in(0).is_err());
        assert!(other.join().unwrap());
        assert_eq!(log.read(), 0);
        assert!(log.groups.iter().all(|group| group.failure().is_some()));
        let failures = log.groups[0].numbers().get(Number::Failures);
        let mended = GroupSync::<_, Permit, _>::new(log.groups[0].numbers().clone(), "foreign");
        assert!(mended.failure().is_none());
        log.groups[0].tell_failure();
        assert_eq!(mended.failure(), Some("foreign"));
        mended.mend(failures + 1);
        assert!(mended.failure().is_none());
    });
}

/// Who was woken to lead may find that another process has brought what it wants: those who wait
/// behind it must not be forgotten.
#[test]
fn who_need_not_lead_any_more_passes_that_on() {
    try_all(2, || {
        let log = Log::of_processes(2, &[true, true, true], false);
        let group = &log.groups[1];
        let append = |number: u64| {
            let (position, sequence) = (number, number);
            group.append(End { position, sequence }, true).unwrap();
        };
        let wait = |number| match group.todo(Wanted::Visible(number), Some(Permit::new())) {
            Ok(Todo::Wait(permit)) => permit,
            _ => panic!("it is to wait"),
        };
        append(1);
        assert!(matches!(
            group.todo(Wanted::Visible(1), None),
            Ok(Todo::Lead)
        ));
        let target = group.begin_sync();
        append(2);
        append(3);
        let [second, third] = [wait(2), wait(3)];
        group.end_sync(Some(target), &Ok(()), || ());
        // Woken to lead; but the other process has synced meanwhile.
        second.wait();
        group.woken(second);
        log.wait_in(0, Wanted::Visible(3)).unwrap();
        assert!(matches!(
            group.todo(Wanted::Visible(2), None),
            Ok(Todo::Nothing)
        ));
        group.pass_on();
        // Hangs, and is told so, if it was not raised.
        third.wait();
    });
}
