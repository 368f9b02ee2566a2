//! What a store must hold, given what its children have reported.
//!
//! A [`History`] takes in the events of each child, and then the content that is found after its
//! death. Of each writer at most one operation was begun and not acknowledged: it must be there as
//! a whole, or not at all; everything else is known exactly. Whether such an operation is there is
//! settled by the first look, and must stay so.

pub(crate) mod check;
mod settle;
mod together;

use std::collections::BTreeMap;

use crate::protocol::Event;
use crate::work::model::{Content, Model};
use crate::work::perform::Outcome;
use crate::work::{Fate, Id, Operation};
use together::Sights;

/// A broken promise, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

impl Broken {
    pub(crate) fn new<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self(what.into()))
    }
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checked {
    /// Acknowledged commits whose effects were looked for.
    pub(crate) acknowledged: u64,
    /// Operations that were begun and not acknowledged, and are there as a whole.
    pub(crate) found_whole: u64,
    /// Operations that were begun and not acknowledged, and are not there.
    pub(crate) found_absent: u64,
    /// Reports of a reader.
    pub(crate) seen: u64,
    /// Keys whose values were compared.
    pub(crate) keys: u64,
    /// Times that a store was opened and compared.
    pub(crate) openings: u64,
    /// Snapshots of children that were compared with all that had been committed by then.
    pub(crate) looks: u64,
}

impl Checked {
    /// What has come since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged - before.acknowledged,
            found_whole: self.found_whole - before.found_whole,
            found_absent: self.found_absent - before.found_absent,
            seen: self.seen - before.seen,
            keys: self.keys - before.keys,
            openings: self.openings - before.openings,
            looks: self.looks - before.looks,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.found_whole += other.found_whole;
        self.found_absent += other.found_absent;
        self.seen += other.seen;
        self.keys += other.keys;
        self.openings += other.openings;
        self.looks += other.looks;
    }
}

/// What one writer has done.
#[derive(Debug, Default)]
struct Writer {
    /// Its own keys after all that is settled.
    own: Model,
    in_flight: Option<InFlight>,
}

#[derive(Debug, Clone)]
struct InFlight {
    operation: Operation,
    /// The highest position that was acknowledged before it began: its own is higher.
    behind: u64,
}

/// Everything a store was told, and all that is known of its content.
#[derive(Debug)]
pub(crate) struct History {
    seed: u64,
    /// Whether any child had the store open, so that it must be there.
    is_made: bool,
    writers: BTreeMap<u8, Writer>,
    /// What is in the order of shared operations, up to `settled`.
    shared: Model,
    settled: u64,
    /// Acknowledged shared operations behind `settled`.
    acked: BTreeMap<u64, (Id, u64)>,
    seen: Vec<Id>,
    /// What the parent itself has written.
    parent: Content,
    sights: Sights,
    checked: Checked,
}

impl History {
    /// The history of a store that is not there yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            is_made: false,
            writers: BTreeMap::new(),
            shared: Model::default(),
            settled: 0,
            acked: BTreeMap::new(),
            seen: Vec::new(),
            parent: Content::new(),
            sights: Sights::default(),
            checked: Checked::default(),
        }
    }

    pub(crate) fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Takes in what a child has reported.
    ///
    /// # Errors
    /// What the child itself saw broken, an error of the store, or a report that cannot be.
    pub(crate) fn take(&mut self, events: &[Event]) -> Result<(), Broken> {
        for event in events {
            match event {
                Event::Begun(id) => self.begun(*id)?,
                Event::Acked(id, outcome) => self.acked(*id, *outcome)?,
                Event::Undone(id) | Event::Refused(id, _) => self.undone(*id)?,
                Event::Seen(id) => {
                    self.seen.push(*id);
                    self.checked.seen += 1;
                }
                Event::Failed(what) => {
                    return Broken::new(format!("the store said, without a cause: {what}"));
                }
                Event::Broken(what) => return Broken::new(what.clone()),
                Event::Opened => self.is_made = true,
                Event::Hello(_)
                | Event::Holds(_)
                | Event::Looking
                | Event::Saw(..)
                | Event::Closed
                | Event::Ended
                | Event::Settled
                | Event::Done(_) => {}
            }
        }
        Ok(())
    }

    /// The highest position that was acknowledged, or found.
    fn last_acked(&self) -> u64 {
        let acked = self.acked.last_key_value().map(|(position, _)| *position);
        acked.unwrap_or(self.settled)
    }

    fn begun(&mut self, id: Id) -> Result<(), Broken> {
        let behind = self.last_acked();
        let writer = self.writers.entry(id.writer).or_default();
        let operation = Operation::new(self.seed, id);
        match writer.in_flight.replace(InFlight { operation, behind }) {
            None => Ok(()),
            Some(before) => Broken::new(format!("{} never ended before {id}", before.operation.id)),
        }
    }

    /// What has failed, and was not there when its child looked, must not come later.
    fn undone(&mut self, id: Id) -> Result<(), Broken> {
        let writer = self.writers.entry(id.writer).or_default();
        match writer
            .in_flight
            .take_if(|in_flight| in_flight.operation.id == id)
        {
            Some(_) => Ok(()),
            None => Broken::new(format!("{id} has failed and was never begun")),
        }
    }

    fn acked(&mut self, id: Id, outcome: Outcome) -> Result<(), Broken> {
        let writer = self.writers.entry(id.writer).or_default();
        let Some(InFlight { operation, behind }) = writer
            .in_flight
            .take_if(|in_flight| in_flight.operation.id == id)
        else {
            return Broken::new(format!("{id} was acknowledged and never begun"));
        };
        self.checked.acknowledged += 1;
        if operation.is_shared {
            if operation.fate != Fate::Commit {
                return Ok(());
            }
            let position = outcome.position;
            if position <= behind {
                let what = format!("{id} began behind position {behind}, and is at {position}");
                return Broken::new(what);
            }
            return match self.acked.insert(position, (id, outcome.found)) {
                None => Ok(()),
                Some((other, _)) => {
                    Broken::new(format!("{other} and {id} were both at position {position}"))
                }
            };
        }
        let found = writer.own.apply(&operation, 0);
        if found == outcome.found {
            return Ok(());
        }
        let (said, what) = (outcome.found, format!("{operation:?}"));
        Broken::new(format!(
            "{id} found {said} keys to delete, not {found}: {what}"
        ))
    }
}
