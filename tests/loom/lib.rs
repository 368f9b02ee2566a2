//! The hand-off of group commit under loom, which tries every interleaving of a few threads.
//!
//! The file under test is the one that the library is built from; only the mutex and the atomic
//! below it are loom's. A thread here does what `log::tail` does: append under a writer lock, ask
//! what is to do, lead or wait. The disk is a number that a sync raises.
//!
//! Two threads are tried without a bound; three with `PREEMPTIONS_MAX` interruptions where a
//! thread could have gone on, or as many as `LOOM_MAX_PREEMPTIONS` says.
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

use group_sync::{End, GroupSync, Todo, Wake, Wanted};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// How often threads are interrupted where there are three of them.
const PREEMPTIONS_MAX: usize = 3;

/// Tries all interleavings of `body`, which has so many threads.
fn try_all(threads: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    if threads > 2 && model.preemption_bound.is_none() {
        model.preemption_bound = Some(PREEMPTIONS_MAX);
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

/// A log whose records are as long as one.
struct Log {
    group: GroupSync<Permit, &'static str>,
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
        let group = GroupSync::new();
        group.restart(End::default());
        Arc::new(Self {
            group,
            writer: Mutex::new(0),
            disk: AtomicU64::new(0),
            awaited: awaited.to_vec(),
            fails,
        })
    }

    /// Commits a batch; its number once it is visible.
    fn commit(&self) -> Result<u64, &'static str> {
        let sequence = {
            let mut writer = self.writer.lock().unwrap();
            *writer += 1;
            let end = End {
                position: *writer,
                sequence: *writer,
            };
            self.group.append(end, self.is_awaited(*writer))?;
            *writer
        };
        self.wait(Wanted::Visible(sequence)).map(|()| sequence)
    }

    fn wait(&self, wanted: Wanted) -> Result<(), &'static str> {
        let mut brought = None;
        loop {
            match self.group.todo(wanted, brought.take())? {
                Todo::Nothing => return Ok(()),
                Todo::BringWaker => brought = Some(Permit::new()),
                Todo::Wait(permit) => {
                    permit.wait();
                    self.group.woken(permit);
                }
                Todo::Lead => {
                    if !self.group.is_complete() {
                        thread::yield_now();
                    }
                    let target = self.group.begin_sync();
                    let synced = if self.fails {
                        Err("the sync failed")
                    } else {
                        self.disk.store(target.position, Ordering::SeqCst);
                        Ok(())
                    };
                    self.group.end_sync(target, synced);
                }
            }
        }
    }

    fn is_awaited(&self, sequence: u64) -> bool {
        self.awaited[usize::try_from(sequence).unwrap() - 1]
    }

    /// What a reader sees; checks that no power cut can take awaited commits of it back.
    fn read(&self) -> u64 {
        let visible = self.group.visible().load(Ordering::Acquire);
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
        let durable = awaited.iter().filter(|is_awaited| **is_awaited).count();
        assert!((1..=durable as u64).contains(&log.group.sync_count()));
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
        let appended = log.group.appended();
        log.wait(Wanted::Durable(appended)).unwrap();
        assert!(log.disk.load(Ordering::SeqCst) >= appended);
        assert!(log.group.durable() >= appended);
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
        assert!(log.wait(Wanted::Durable(log.group.appended())).is_err());
    });
}
