//! The child: writers and a reader work on a store until the process is killed.
//!
//! It reports what it does to its parent ([`crate::protocol`]) and keeps nothing of it: what its
//! operations are follows from their ids. Shift by shift it closes the store and opens it again.

mod end;
mod planted;
mod reader;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use happystore::{Options, Store};

use crate::arguments::{ChildArguments, Mode, Planted};
use crate::protocol::{Event, Reporter};
use crate::work::perform::perform;
use crate::work::{Id, Operation};

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
}

/// Runs the child; returns only if it cannot go on.
pub(crate) fn run(arguments: &ChildArguments) -> ExitCode {
    let reporter = match Reporter::new() {
        Ok(reporter) => reporter,
        Err(error) => return crate::cannot(format!("report to the parent: {error}")),
    };
    let shared = Shared {
        arguments,
        reporter,
        acked: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        begun: AtomicU64::new(0),
    };
    shared.reporter.say(&Event::Hello(std::process::id()));
    if let Err(error) = end::prepare(arguments) {
        return crate::cannot(error);
    }
    if let Err(error) = shared.shifts() {
        shared.reporter.say(&Event::Failed(error.to_string()));
    }
    ExitCode::FAILURE
}

/// Opens the store of a directory as the harness does everywhere.
///
/// # Errors
/// Whatever the store says.
pub(crate) fn open(path: &Path, mode: Mode, segment_bytes: u64) -> happystore::Result<Store> {
    Options::new()
        .durability(mode.durability())
        .segment_bytes(segment_bytes)
        .label("crash harness")
        .open(path)
}

impl Shared<'_> {
    fn shifts(&self) -> happystore::Result<()> {
        let mut first = 0;
        loop {
            let arguments = self.arguments;
            let store = open(&arguments.store, arguments.mode, arguments.segment_bytes)?;
            self.reporter.say(&Event::Opened);
            if arguments.hold {
                loop {
                    thread::sleep(Duration::from_hours(1));
                }
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
            let writers: Vec<_> = (0..self.arguments.writers)
                .map(|writer| scope.spawn(write(writer)))
                .collect();
            let reader = scope.spawn(|| reader::read(self, store));
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
            let outcome = match arguments.planted {
                Some(fault) => match planted::perform(fault, store, &operation, self)? {
                    Some(outcome) => outcome,
                    None => continue,
                },
                None => perform(store, &operation, arguments.mode)?,
            };
            self.acknowledge(id, outcome);
            if number % 64 == 63 {
                store.sync()?;
            }
        }
        Ok(())
    }

    fn acknowledge(&self, id: Id, outcome: crate::work::perform::Outcome) {
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
