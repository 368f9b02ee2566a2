//! The child: writers and a reader work on a store until the process is killed.
//!
//! It reports what it does to its parent ([`crate::protocol`]) and keeps nothing of it: what its
//! operations are follows from their ids. Shift by shift it closes the store and opens it again.
//! One that works beside other processes has a [`watch`] for a reader, or is nothing but that.

mod end;
mod planted;
mod reader;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use happystore::{Compaction, Error, Options, Store};
use rustix::process::getppid;

use crate::arguments::{ChildArguments, Mode, Planted};
use crate::protocol::{Event, Reporter};
use crate::work::perform::{Manner, Outcome, perform};
use crate::work::{Id, Operation};
use watch::Watch;

/// How long a child that works beside others waits for the writer lock: longer than its parent
/// waits for a sign of life.
const LOCK_PATIENCE: Duration = Duration::from_mins(2);

/// What all threads of the child share.
struct Shared<'a> {
    arguments: &'a ChildArguments,
    reporter: Reporter,
    /// How many commits have returned.
    acked: AtomicU64,
    /// Whether the writers of this shift are done.
    is_over: AtomicBool,
    /// The bits of the id that was begun last, for the planted reader.
    begun: AtomicU64,
    /// How many shared operations had the writer lock.
    held: AtomicU64,
    watch: Mutex<Watch>,
}

/// Runs the child; returns only if it cannot go on.
pub(crate) fn run(arguments: &ChildArguments) -> ExitCode {
    let reporter = match Reporter::new() {
        Ok(reporter) if arguments.together => reporter.named(arguments.life),
        Ok(reporter) => reporter,
        Err(error) => return crate::cannot(format!("report to the parent: {error}")),
    };
    let shared = Shared {
        arguments,
        reporter,
        acked: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        begun: AtomicU64::new(0),
        held: AtomicU64::new(0),
        watch: Mutex::new(Watch::new(arguments)),
    };
    shared.reporter.say(&Event::Hello(std::process::id()));
    let planted = match arguments.planted {
        Some(Planted::EarlyRemoval) => planted::remove_early(&arguments.store),
        _ => Ok(()),
    };
    if let Err(error) = planted.and_then(|()| end::prepare(arguments)) {
        return crate::cannot(error);
    }
    let ended = match arguments.reads {
        Some(access) => watch::only_watch(&shared, access),
        None => shared.shifts(),
    };
    if let Err(error) = ended {
        shared.reporter.say(&Event::Failed(error.to_string()));
    }
    ExitCode::FAILURE
}

/// Opens the store of a directory as the harness does everywhere.
///
/// # Errors
/// Whatever the store says.
pub(crate) fn open(path: &Path, mode: Mode, segment_bytes: u64) -> happystore::Result<Store> {
    options(mode, segment_bytes).open(path)
}

/// The same, before it is opened: with a compaction that rewrites what it can.
pub(crate) fn options(mode: Mode, segment_bytes: u64) -> Options {
    Options::new()
        .compaction(Compaction::automatic().dead_bytes(0))
        .durability(mode.durability())
        .segment_bytes(segment_bytes)
        .label("crash harness")
}

/// Rests until the process is killed; ends it if its parent is gone.
fn rest() -> ! {
    let parent = getppid();
    while getppid() == parent {
        thread::sleep(Duration::from_millis(50));
    }
    std::process::exit(crate::EXIT_ORPHAN);
}

impl Shared<'_> {
    fn shifts(&self) -> happystore::Result<()> {
        let mut first = 0;
        loop {
            let arguments = self.arguments;
            let mut options = options(arguments.mode, arguments.segment_bytes);
            if arguments.together {
                options = options.lock_timeout(LOCK_PATIENCE);
            }
            let store = options.open(&arguments.store)?;
            self.reporter.say(&Event::Opened);
            if arguments.hold {
                rest();
            }
            if arguments.planted == Some(Planted::Leftover) {
                planted::leave_a_file(&arguments.store);
            }
            self.shift(&store, first)?;
            first += arguments.shift;
            store.close()?;
            self.reporter.say(&Event::Closed);
        }
    }

    /// One shift of all writers, with a reader beside them.
    fn shift(&self, store: &Store, first: u32) -> happystore::Result<()> {
        self.is_over.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let write = |writer| move || self.write(store, writer, first);
            let first_writer = self.arguments.first_writer;
            let writers: Vec<_> = (first_writer..first_writer + self.arguments.writers)
                .map(|writer| scope.spawn(write(writer)))
                .collect();
            let reader = scope.spawn(|| {
                if self.arguments.together {
                    watch::watch(self, store)
                } else {
                    reader::read(self, store)
                }
            });
            let done = writers.into_iter().map(|writer| join(writer));
            // All of them, whatever one of them says.
            let done: Vec<_> = done.collect();
            self.is_over.store(true, Ordering::Relaxed);
            join(reader)?;
            done.into_iter().collect()
        })
    }

    fn write(&self, store: &Store, writer: u8, first: u32) -> happystore::Result<()> {
        let arguments = self.arguments;
        for number in first..first + arguments.shift {
            let id = Id {
                life: arguments.life,
                writer,
                number,
            };
            let operation = Operation::new(arguments.seed, id);
            self.reporter.say(&Event::Begun(id));
            self.begun.store(id.bits(), Ordering::Relaxed);
            let performed = match arguments.planted {
                Some(fault) => planted::perform(fault, store, &operation, self).transpose(),
                None => Some(self.perform(store, &operation)),
            };
            match performed {
                Some(Err(Error::LockTimeout { holder, .. }))
                    if arguments.lock_wait_ms.is_some() =>
                {
                    let holder = holder.map_or(0, |holder| holder.process_id);
                    self.reporter.say(&Event::Refused(id, holder));
                }
                Some(outcome) => self.acknowledge(id, outcome?),
                None => {}
            }
            if number % 64 == 63 {
                store.sync()?;
            }
            if arguments.together && number % 32 == 31 {
                // Who comes back after a while finds that others have written.
                thread::sleep(Duration::from_micros(u64::from(number) % 1500));
            }
        }
        Ok(())
    }

    /// Performs `operation` as this child was told to.
    fn perform(&self, store: &Store, operation: &Operation) -> happystore::Result<Outcome> {
        let before_commit = |id| {
            if operation.is_shared
                && Some(self.held.fetch_add(1, Ordering::Relaxed) + 1) == self.arguments.hold_at
            {
                self.reporter.say(&Event::Holds(id));
                rest();
            }
        };
        let manner = Manner {
            mode: self.arguments.mode,
            patience: self.arguments.lock_wait_ms.map(Duration::from_millis),
            before_commit: &before_commit,
        };
        perform(store, operation, &manner)
    }

    fn acknowledge(&self, id: Id, outcome: Outcome) {
        self.reporter.say(&Event::Acked(id, outcome));
        let acked = self.acked.fetch_add(1, Ordering::Relaxed) + 1;
        if acked == self.arguments.limit_from
            && let Err(error) = end::limit_files(self.arguments)
        {
            self.reporter.say(&Event::Failed(error));
        }
    }
}

/// The result of a thread; its panic goes on here, and ends the child.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
