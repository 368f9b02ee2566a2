//! Right histories that were broken on purpose: each must be refused, and for the right reason.
//!
//! [`answers`] falsifies what was read, [`writes`] what was written, [`order`] where and when
//! transactions stand. A planter that finds nothing to break in a history says so.
#![allow(clippy::unnecessary_wraps, reason = "all planters stand in one table")]

mod answers;
mod order;
mod writes;

use fastrand::Rng;
use happystore_history_check::checker::{Violation, check};
use happystore_history_check::history::{Id, Operation, Outcome, Transaction};

use crate::simulated::{Case, STEP_NS, history};

/// How many histories each planter is given.
const SEEDS: u64 = 100;

/// In how many of them at least it must find something to break.
const PLANTED_MIN: u64 = 40;

/// Transactions of each history.
const TRANSACTIONS: usize = 120;

/// Breaks a history; `None` if it has nothing of that kind to break.
type Planter = fn(&mut Case, &mut Rng) -> Option<()>;

/// A planter, and the kinds of refusal that are right.
type Row = (&'static str, Planter, &'static [&'static str]);

fn kind(violation: &Violation) -> &'static str {
    match violation {
        Violation::NoWitness { .. } => "no witness",
        Violation::Duplicate { .. } => "duplicate",
        Violation::Gap { .. } => "gap",
        Violation::Nesting { .. } => "nesting",
        Violation::Read { .. } => "read",
        Violation::Presence { .. } => "presence",
        Violation::Range { .. } => "range",
        Violation::Count { .. } => "count",
        Violation::Nowhere { .. } => "nowhere",
        Violation::RealTime { .. } => "real time",
        Violation::Final { .. } => "final",
    }
}

fn assert_refused(rows: &[Row]) {
    let right: Vec<Case> = (0..SEEDS).map(|seed| history(seed, TRANSACTIONS)).collect();
    for (name, plant, kinds) in rows {
        let mut planted = 0;
        for (seed, right) in (0..).zip(&right) {
            let mut random = Rng::with_seed(seed);
            let mut case = right.clone();
            if plant(&mut case, &mut random).is_none() {
                continue;
            }
            planted += 1;
            random.shuffle(&mut case.history);
            match check(&case.history, &case.content) {
                Ok(_) => panic!("{name}, seed {seed}: accepted"),
                Err(violation) => assert!(
                    kinds.contains(&kind(&violation)),
                    "{name}, seed {seed}: refused because {violation}"
                ),
            }
        }
        assert!(
            planted >= PLANTED_MIN,
            "{name}: only in {planted} histories"
        );
    }
}

impl Case {
    /// Adds a transaction behind all others, which runs from `begin` to `end` steps from now.
    fn append(&mut self, begin: u64, end: u64, operations: Vec<Operation<'static>>) -> Id {
        let id = self.next_id();
        self.history.push(Transaction {
            id,
            kind: 'x',
            begin: self.now + begin * STEP_NS,
            end: self.now + end * STEP_NS,
            outcome: Outcome::Committed,
            operations,
        });
        id
    }

    fn next_id(&self) -> Id {
        Id {
            process: 0,
            thread: 0,
            number: u32::try_from(self.history.len()).unwrap(),
        }
    }

    /// Committed writers, in the order of their positions.
    fn writers(&self) -> Vec<usize> {
        let is_writer = |at: &usize| {
            let transaction = &self.history[*at];
            transaction.kind == 'w' && transaction.outcome == Outcome::Committed
        };
        (0..self.history.len()).filter(is_writer).collect()
    }

    /// Where an operation of a transaction that knows its place is wanted.
    fn sites(&self, wanted: impl Fn(&Operation<'_>) -> bool) -> Vec<(usize, usize)> {
        let placed = (0..self.history.len()).filter(|&at| self.history[at].kind != 'g');
        placed
            .flat_map(|at| {
                let operations = self.history[at].operations.iter().enumerate();
                let wanted = operations.filter(|(_, operation)| wanted(operation));
                wanted
                    .map(move |(operation, _)| (at, operation))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Single reads.
    fn plain(&self) -> Vec<usize> {
        (0..self.history.len())
            .filter(|&at| self.history[at].kind == 'g')
            .collect()
    }

    fn operation(&mut self, (at, operation): (usize, usize)) -> &mut Operation<'static> {
        &mut self.history[at].operations[operation]
    }
}

#[test]
fn false_answers_are_refused() {
    assert_refused(answers::ROWS);
}

#[test]
fn false_writes_are_refused() {
    assert_refused(writes::ROWS);
}

#[test]
fn false_orders_are_refused() {
    assert_refused(order::ROWS);
}
