//! Signals and background workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::super::super::{Next, Vfs, Worker};
use super::super::OsVfs;
use super::machines;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

/// A worker whose steps say when they begin, and end with what they are told.
struct Puppet {
    worker: Box<dyn Worker>,
    began: Receiver<()>,
    answer: Sender<Next>,
}

impl Puppet {
    fn new(vfs: &dyn Vfs) -> Self {
        let (started, began) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let step = move || {
            started.send(()).unwrap();
            answers.recv().unwrap_or(Next::Done)
        };
        Self {
            worker: vfs.spawn("puppet", Box::new(step)).unwrap(),
            began,
            answer,
        }
    }

    fn step(&self, answer: Next) {
        self.began.recv_timeout(LONG).unwrap();
        self.answer.send(answer).unwrap();
    }

    fn rests(&self) -> bool {
        self.began.recv_timeout(SHORT).is_err()
    }
}

#[test]
fn a_signal_holds_one_permit() {
    for m in machines() {
        let signal = m.vfs.signal();
        assert!(!signal.wait(Duration::ZERO));
        signal.raise();
        signal.raise();
        assert!(
            signal.wait(Duration::ZERO),
            "taken though the deadline is past"
        );
        assert!(!signal.wait(Duration::ZERO));
    }
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    for m in machines() {
        let signal = m.vfs.signal();
        let deadline = m.vfs.monotonic() + SHORT;
        assert!(!signal.wait(deadline));
        assert!(m.vfs.monotonic() >= deadline);
    }
}

#[test]
fn a_raise_wakes_one_waiter_each() {
    let vfs = OsVfs::new();
    let (signal, taken) = (vfs.signal(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    assert!(signal.wait(Duration::MAX));
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for given in 0..1000 {
            while taken.load(Ordering::SeqCst) < given {
                std::thread::yield_now();
            }
            signal.raise();
        }
    });
    assert_eq!(taken.into_inner(), 1000);
}

#[test]
fn a_worker_begins_at_once_and_runs_when_woken() {
    for m in machines() {
        let puppet = Puppet::new(&*m.vfs);
        puppet.step(Next::WhenWoken);
        assert!(puppet.rests(), "{}", m.name);
        puppet.worker.wake();
        puppet.step(Next::After(LONG * 10));
        assert!(puppet.rests());
        puppet.worker.wake();
        puppet.step(Next::After(Duration::from_millis(1)));
        puppet.step(Next::Done);
        puppet.worker.wake();
        assert!(puppet.rests());
        puppet.worker.stop();
    }
}

#[test]
fn a_wake_during_a_step_makes_it_run_once_more() {
    let puppet = Puppet::new(&*OsVfs::new());
    puppet.began.recv_timeout(LONG).unwrap();
    puppet.worker.wake();
    puppet.worker.wake();
    puppet.answer.send(Next::WhenWoken).unwrap();
    puppet.step(Next::WhenWoken);
    assert!(puppet.rests());
    puppet.worker.stop();
}

#[test]
fn no_wake_is_lost() {
    let vfs = OsVfs::new();
    let (asked, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, finished) = (Arc::clone(&asked), Arc::clone(&done));
    let step = move || {
        finished.store(seen.load(Ordering::SeqCst), Ordering::SeqCst);
        Next::WhenWoken
    };
    let worker = vfs.spawn("w", Box::new(step)).unwrap();
    for number in 1..5000 {
        asked.store(number, Ordering::SeqCst);
        worker.wake();
        while done.load(Ordering::SeqCst) < number {
            std::thread::yield_now();
        }
    }
    worker.stop();
}

#[test]
fn stop_waits_for_the_step_and_drops_it() {
    for m in machines() {
        let (began, ended) = (m.vfs.signal(), Arc::new(AtomicBool::new(false)));
        let held = Arc::new(());
        let (vfs, raised, end) = (Arc::clone(&m.vfs), Arc::clone(&began), Arc::clone(&ended));
        let copy = Arc::clone(&held);
        let step = move || {
            let _ = &copy;
            raised.raise();
            vfs.sleep(SHORT);
            end.store(true, Ordering::SeqCst);
            Next::After(Duration::ZERO)
        };
        let worker = m.vfs.spawn("w", Box::new(step)).unwrap();
        assert!(began.wait(Duration::MAX));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    worker.stop();
                    assert!(ended.load(Ordering::SeqCst));
                    assert_eq!(Arc::strong_count(&held), 1);
                });
            }
        });
        worker.wake();
        worker.stop();
    }
}

#[test]
fn a_step_that_never_began_is_dropped_by_stop() {
    let vfs = OsVfs::new();
    for _ in 0..200 {
        let held = Arc::new(());
        let copy = Arc::clone(&held);
        let step = move || {
            let _ = &copy;
            Next::WhenWoken
        };
        vfs.spawn("w", Box::new(step)).unwrap().stop();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn a_step_may_stop_its_own_worker() {
    let vfs = OsVfs::new();
    let own: Arc<OnceLock<Box<dyn Worker>>> = Arc::default();
    let (runs, seen) = (Arc::new(AtomicU64::new(0)), Arc::clone(&own));
    let (counted, done) = (Arc::clone(&runs), vfs.signal());
    let stopped = Arc::clone(&done);
    let step = move || match seen.get() {
        Some(worker) => {
            counted.fetch_add(1, Ordering::SeqCst);
            worker.stop();
            stopped.raise();
            Next::After(Duration::ZERO)
        }
        None => Next::After(Duration::from_millis(1)),
    };
    assert!(own.set(vfs.spawn("w", Box::new(step)).unwrap()).is_ok());
    assert!(done.wait(Duration::MAX));
    own.get().unwrap().stop();
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&own), 1, "the step was dropped");
}

#[test]
fn a_step_that_panics_ends_its_worker_quietly() {
    let vfs = OsVfs::new();
    let held = Arc::new(Mutex::new(()));
    let copy = Arc::clone(&held);
    let step = move || {
        let _guard = copy.lock();
        panic!("as the test wants it");
    };
    let worker = vfs.spawn("w\0", Box::new(step)).unwrap();
    worker.wake();
    worker.stop();
    worker.stop();
    worker.wake();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_worker_outlives_its_handle() {
    let vfs = OsVfs::new();
    let done = vfs.signal();
    let raised = Arc::clone(&done);
    let mut runs = 0;
    let step = move || {
        runs += 1;
        if runs < 3 {
            return Next::After(Duration::from_millis(1));
        }
        raised.raise();
        Next::Done
    };
    drop(vfs.spawn("w", Box::new(step)).unwrap());
    assert!(done.wait(vfs.monotonic() + LONG));
}
