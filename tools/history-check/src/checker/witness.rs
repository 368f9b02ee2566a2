//! Where each transaction claims to stand, and whether these claims make one line.

use std::collections::{BTreeMap, HashMap};

use super::{Place, Violation};
use crate::history::{CLOCK, Claim, Id, Operation, Outcome, Transaction};

/// What a transaction is to the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Claims a position, and has committed or may have.
    Writer {
        position: u64,
        /// What it found in the clock.
        behind: Option<Claim>,
    },
    /// Leaves nothing behind; has seen the clock of this position.
    Reader { position: u64 },
    /// A single read that has not seen the clock.
    Plain,
}

/// The roles of all transactions of `history`.
pub(super) fn roles(history: &[Transaction<'_>]) -> Result<Vec<Role>, Violation> {
    history.iter().map(role).collect()
}

fn role(transaction: &Transaction<'_>) -> Result<Role, Violation> {
    let operations = &transaction.operations;
    let no_witness = Violation::NoWitness { id: transaction.id };
    let may_change = transaction.outcome != Outcome::Aborted;
    if may_change && operations.iter().any(Operation::is_write) {
        // Nothing but the claim itself may change the clock: positions would mean nothing.
        let changes = operations.iter().filter(|operation| match operation {
            Operation::Set { key, .. } | Operation::Delete { key, .. } => key == CLOCK,
            _ => false,
        });
        let (Some(Some(behind)), Some(own), 1) = (
            operations.first().map(clock_read),
            operations.get(1).and_then(claimed),
            changes.count(),
        ) else {
            return Err(no_witness);
        };
        let behind = behind.map_err(|()| no_witness.clone())?;
        let position = behind.map_or(0, |claim| claim.position) + 1;
        let wanted = Claim {
            position,
            author: transaction.id,
        };
        if own != wanted {
            return Err(no_witness);
        }
        return Ok(Role::Writer { position, behind });
    }
    if let Some(clock) = operations.iter().find_map(clock_read) {
        let clock = clock.map_err(|()| no_witness)?;
        let position = clock.map_or(0, |claim| claim.position);
        return Ok(Role::Reader { position });
    }
    match operations[..] {
        [Operation::Get { .. } | Operation::Has { .. }] => Ok(Role::Plain),
        _ => Err(no_witness),
    }
}

/// What `operation` has read from the clock, if it has read it; an error if that is no claim.
fn clock_read(operation: &Operation<'_>) -> Option<Result<Option<Claim>, ()>> {
    let value = match operation {
        Operation::Get { key, value } if key == CLOCK => value.as_ref(),
        Operation::Pairs { pairs, .. } => {
            let (_, value) = pairs.iter().find(|(key, _)| key == CLOCK)?;
            Some(value)
        }
        _ => return None,
    };
    Some(value.map(|value| value.parse()).transpose())
}

/// The claim that `operation` writes into the clock.
fn claimed(operation: &Operation<'_>) -> Option<Claim> {
    match operation {
        Operation::Set { key, value } if key == CLOCK => value.parse().ok(),
        _ => None,
    }
}

/// The writers in the order of their positions.
pub(super) struct Chain {
    /// Which transaction stands at position 1, 2, …
    pub(super) writers: Vec<usize>,
}

impl Chain {
    /// The last position.
    pub(super) fn end(&self) -> u64 {
        self.writers.len() as u64
    }

    /// The places of all transactions but single reads, which have none yet.
    ///
    /// A writer that may have committed, and is not in the chain, has not: it is a reader of what
    /// it found. A reader that names a position behind the last stands at the last, where its
    /// replay refuses what it has seen.
    pub(super) fn places(&self, roles: &[Role]) -> Vec<Option<Place>> {
        let reader = |position: u64| Some(Place::reader(position.min(self.end())));
        let place = |role: &Role| match *role {
            Role::Writer { position, .. } => reader(position - 1),
            Role::Reader { position } => reader(position),
            Role::Plain => None,
        };
        let mut places: Vec<_> = roles.iter().map(place).collect();
        for (position, &at) in (1..).zip(&self.writers) {
            places[at] = Some(Place::writer(position));
        }
        places
    }
}

/// Finds the writer of each position.
///
/// Committed writers stand where they say. A position without one was taken by a writer of unknown
/// outcome: the one that the next writer, or the final content, has found in the clock.
pub(super) fn chain(
    history: &[Transaction<'_>],
    roles: &[Role],
    content: &[(String, String)],
) -> Result<Chain, Violation> {
    let mut committed: BTreeMap<u64, usize> = BTreeMap::new();
    let mut unknown: HashMap<Id, usize> = HashMap::new();
    for (at, transaction) in history.iter().enumerate() {
        let Role::Writer { position, .. } = roles[at] else {
            continue;
        };
        if transaction.outcome == Outcome::Unknown {
            unknown.insert(transaction.id, at);
        } else if let Some(first) = committed.insert(position, at) {
            return Err(Violation::Duplicate {
                position,
                first: history[first].id,
                second: transaction.id,
            });
        }
    }
    let clock = content.iter().find(|(key, _)| key == CLOCK);
    let mut named: Option<Claim> = clock.and_then(|(_, value)| value.parse().ok());
    let last_committed = committed
        .last_key_value()
        .map_or(0, |(position, _)| *position);
    let last_named = named.map_or(0, |claim| claim.position);
    let mut writers = Vec::new();
    let mut found_by = None;
    for position in (1..=last_committed.max(last_named)).rev() {
        // The clock of the end may be behind what was committed: the replay says so.
        let author = named.filter(|claim| claim.position == position);
        let taken_by = |claim: Claim| {
            let at = *unknown.get(&claim.author)?;
            matches!(roles[at], Role::Writer { position: own, .. } if own == position).then_some(at)
        };
        let at = committed.get(&position).copied();
        let Some(at) = at.or_else(|| author.and_then(taken_by)) else {
            return Err(Violation::Gap { position, found_by });
        };
        writers.push(at);
        found_by = Some(history[at].id);
        if let Role::Writer { behind, .. } = roles[at] {
            named = behind;
        }
    }
    writers.reverse();
    Ok(Chain { writers })
}
