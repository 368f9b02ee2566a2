//! A child that works on while calls of the machine fail.

use std::process::ExitCode;

use happystore::{Error, ErrorKind, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Errors, Trouble, content, difference};
use crate::arguments::FaultArguments;
use crate::child::open;
use crate::protocol::{Event, Reporter};
use crate::work::model::{Content, Model};
use crate::work::perform::{Manner, perform};
use crate::work::{Fate, Id, Operation};

/// How often a call is tried again before the fault is taken to last for ever.
const TRIES: u32 = 12;

/// What a failed write, sync or opening may say.
const REFUSALS: &[ErrorKind] = &[ErrorKind::Io, ErrorKind::DiskFull, ErrorKind::Poisoned];

struct Worker<'a> {
    arguments: &'a FaultArguments,
    reporter: &'a Reporter,
    store: Option<Store>,
    model: Model,
    /// The position of the last shared operation.
    position: u64,
    errors: Errors,
    acked: u64,
    reopened: u64,
    /// The limits as they were, while they are lower.
    limits: Vec<(Resource, Rlimit)>,
}

/// Runs the child.
pub(crate) fn run(arguments: &FaultArguments) -> ExitCode {
    let reporter = match Reporter::new() {
        Ok(reporter) => reporter,
        Err(error) => return crate::cannot(format!("report to the parent: {error}")),
    };
    reporter.say(&Event::Hello(std::process::id()));
    let mut worker = Worker {
        arguments,
        reporter: &reporter,
        store: None,
        model: Model::default(),
        position: 0,
        errors: Errors::default(),
        acked: 0,
        reopened: 0,
        limits: Vec::new(),
    };
    let outcome = worker.work();
    let gave_up = matches!(outcome, Err(Trouble::GaveUp));
    if let Err(Trouble::Broken(what)) = outcome {
        reporter.say(&Event::Broken(what));
        return ExitCode::FAILURE;
    }
    let (acked, reopened, errors) = (worker.acked, worker.reopened, &worker.errors);
    reporter.say(&Event::Done(format!(
        "acked={acked} reopened={reopened} gave-up={}{errors}",
        u64::from(gave_up)
    )));
    ExitCode::SUCCESS
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), Trouble> {
        self.limit_at(0)?;
        self.open(&[])?;
        self.reporter.say(&Event::Opened);
        for number in 0..self.arguments.operations {
            let id = Id {
                life: 0,
                writer: 0,
                number,
            };
            self.operate(&Operation::new(self.arguments.seed, id))?;
        }
        self.reopen(&[])
    }

    /// Performs one operation, and finds out what became of it.
    fn operate(&mut self, operation: &Operation) -> Result<(), Trouble> {
        let id = operation.id;
        self.reporter.say(&Event::Begun(id));
        let mut with = self.model.clone();
        let position = if operation.is_shared {
            self.position + 1
        } else {
            0
        };
        let found = with.apply(operation, position);
        match perform(
            self.store()?,
            operation,
            &Manner::plain(self.arguments.mode),
        ) {
            Ok(outcome) if outcome.found == found => self.take(operation, with, found),
            Ok(outcome) => {
                let what = format!("{id} found {} keys, not {found}", outcome.found);
                Err(Trouble::Broken(what))
            }
            Err(_) if self.arguments.shrug => self.take(operation, with, found),
            Err(error) => {
                let is_there = self.survive(&error, with.content())?;
                if is_there {
                    return self.take(operation, with, found);
                }
                self.reporter.say(&Event::Undone(id));
                Ok(())
            }
        }
    }

    /// Takes `operation` as committed.
    fn take(&mut self, operation: &Operation, with: Model, found: u64) -> Result<(), Trouble> {
        let mut position = 0;
        if operation.is_shared && operation.fate == Fate::Commit {
            self.position += 1;
            position = self.position;
        }
        self.model = with;
        self.acked += 1;
        let outcome = crate::work::perform::Outcome { found, position };
        self.reporter.say(&Event::Acked(operation.id, outcome));
        self.limit_at(self.acked)
    }

    /// After an operation failed with `error`: reads are right, and the store goes on, or, as
    /// always after a failed write or sync, goes on after it was opened again. Whether the operation is there, whose content would be `with`.
    fn survive(&mut self, error: &Error, with: &Content) -> Result<bool, Trouble> {
        let kind = self.met("commit", error)?;
        let outcomes: &[&Content] = if kind == ErrorKind::Io { &[with] } else { &[] };
        let found = self.compare(outcomes)?;
        if kind == ErrorKind::DiskFull {
            return Ok(false);
        }
        let on_the_way = match error {
            Error::Io { operation, .. } => ["write", "sync"].contains(operation),
            _ => false,
        };
        match self.store()?.sync() {
            Ok(()) if on_the_way => {
                let what = format!("the store goes on after a failed write or sync: {error}");
                Err(Trouble::Broken(what))
            }
            // It goes on: nothing that counts was touched, and what reads show is what is there.
            Ok(()) => Ok(found == *with && found != *self.model.content()),
            Err(error) => {
                self.met("sync", &error)?;
                self.reopen(outcomes)?;
                let found = self.compare(outcomes)?;
                Ok(found == *with && found != *self.model.content())
            }
        }
    }

    fn reopen(&mut self, outcomes: &[&Content]) -> Result<(), Trouble> {
        if let Some(store) = self.store.take()
            && let Err(error) = store.close()
        {
            self.met("close", &error)?;
        }
        self.reopened += 1;
        self.open(outcomes)
    }

    /// Opens the store, however often that fails, and compares what is in it.
    fn open(&mut self, outcomes: &[&Content]) -> Result<(), Trouble> {
        let arguments = self.arguments;
        for _ in 0..TRIES {
            match open(&arguments.store, arguments.mode, arguments.segment_bytes) {
                Ok(store) => {
                    self.store = Some(store);
                    return self.compare(outcomes).map(drop);
                }
                Err(error) => {
                    self.met("open", &error)?;
                }
            }
        }
        Err(Trouble::GaveUp)
    }

    /// Reads all; it must be as the model has it, or as one of `others`.
    fn compare(&mut self, others: &[&Content]) -> Result<Content, Trouble> {
        for _ in 0..TRIES {
            match content(self.store()?) {
                Ok(found) if found == *self.model.content() || others.contains(&&found) => {
                    return Ok(found);
                }
                Ok(found) => {
                    let what = difference(&found, self.model.content());
                    return Err(Trouble::Broken(format!("reads are wrong: {what}")));
                }
                Err(error) => {
                    self.errors.expect("read", &error, &[ErrorKind::Io])?;
                }
            }
        }
        Err(Trouble::GaveUp)
    }

    fn store(&self) -> Result<&Store, Trouble> {
        self.store.as_ref().ok_or(Trouble::GaveUp)
    }

    /// Takes note of an error; the limits go back after as many as the arguments say.
    fn met(&mut self, doing: &str, error: &Error) -> Result<ErrorKind, Trouble> {
        let kind = self.errors.expect(doing, error, REFUSALS)?;
        if self.errors.count() == self.arguments.heal_after {
            for (resource, before) in self.limits.drain(..) {
                set(resource, before)?;
            }
        }
        Ok(kind)
    }

    /// Lowers the limits, if this is when the arguments say so.
    fn limit_at(&mut self, acked: u64) -> Result<(), Trouble> {
        let arguments = self.arguments;
        if acked != arguments.limit_from || !self.limits.is_empty() {
            return Ok(());
        }
        let limits = [
            (Resource::Fsize, arguments.file_bytes_max),
            (Resource::Nofile, arguments.files_max),
        ];
        for (resource, most) in limits {
            if let Some(most) = most {
                let before = getrlimit(resource);
                let lower = Rlimit {
                    current: Some(most),
                    maximum: before.maximum,
                };
                set(resource, lower)?;
                self.limits.push((resource, before));
            }
        }
        Ok(())
    }
}

fn set(resource: Resource, limit: Rlimit) -> Result<(), Trouble> {
    let failed = |error| Trouble::Broken(format!("the harness cannot limit {resource:?}: {error}"));
    setrlimit(resource, limit).map_err(failed)
}
