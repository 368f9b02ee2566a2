//! Why a history is refused: which transactions, which key.

use crate::history::{Id, NEVER};

/// Why a history is not strictly serializable in the order that it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Nobody can tell where a transaction is to stand.
    #[error("transaction {id} does not say where it stands: its first read must be the clock")]
    NoWitness {
        /// The transaction.
        id: Id,
    },
    /// Two committed transactions claim one position.
    #[error("transactions {first} and {second} both claim position {position}")]
    Duplicate {
        /// The position.
        position: u64,
        /// A transaction that claims it.
        first: Id,
        /// Another one.
        second: Id,
    },
    /// A position was reached that no transaction could have taken.
    #[error("no transaction stands at position {position}, but {} found it taken", or_final(.found_by.as_ref()))]
    Gap {
        /// The position.
        position: u64,
        /// Who stands behind it; nobody if it is the final content that names it.
        found_by: Option<Id>,
    },
    /// Begins and ends of nested transactions do not match.
    #[error(
        "transaction {id} ends nested transactions that it has not begun, or does not end them"
    )]
    Nesting {
        /// The transaction.
        id: Id,
    },
    /// A transaction was shown what no serial execution shows.
    #[error(
        "transaction {id} at position {position} was shown {seen:?} for key {key:?}, not {expected:?}"
    )]
    Read {
        /// The transaction.
        id: Id,
        /// Behind how many writers it stands.
        position: u64,
        /// The key.
        key: String,
        /// What is there at its position; `None`: nothing.
        expected: Option<String>,
        /// What it was shown.
        seen: Option<String>,
    },
    /// A transaction was told that a key is there, or that it is not, and it was the other way.
    #[error("transaction {id} at position {position} was told of key {key:?} that there={seen}")]
    Presence {
        /// The transaction.
        id: Id,
        /// Behind how many writers it stands.
        position: u64,
        /// The key.
        key: String,
        /// What it was told.
        seen: bool,
    },
    /// A query of a transaction has shown what no serial execution shows.
    #[error(
        "a query of transaction {id} at position {position} has shown {seen:?} where {expected:?} follows"
    )]
    Range {
        /// The transaction.
        id: Id,
        /// Behind how many writers it stands.
        position: u64,
        /// The key, and its value if that was read, that comes next at its position.
        expected: Option<(String, Option<String>)>,
        /// What it was shown instead.
        seen: Option<(String, Option<String>)>,
    },
    /// A transaction was told a wrong number of keys.
    #[error(
        "transaction {id} at position {position} was told that {seen} keys from {key:?} on are selected, not {expected}"
    )]
    Count {
        /// The transaction.
        id: Id,
        /// Behind how many writers it stands.
        position: u64,
        /// The lower end of what was counted.
        key: String,
        /// How many there are at its position.
        expected: u64,
        /// How many it was told.
        seen: u64,
    },
    /// A single read has seen what was not there at any moment from its earliest on.
    #[error(
        "read {id} has seen {seen:?} for key {key:?}, which is there at no position from {earliest} on{}",
        behind(.after.as_ref())
    )]
    Nowhere {
        /// The read.
        id: Id,
        /// The key.
        key: String,
        /// The value; for a question whether the key is there, `there` or nothing.
        seen: Option<String>,
        /// The position of what had ended when it began.
        earliest: u64,
        /// Whose position that is.
        after: Option<Id>,
    },
    /// A transaction stands behind one that began only after it had ended.
    #[error(
        "transaction {before} ended{} before {after} began{}, but stands behind it: positions {} and {}",
        at(*.ended), at(*.began), .position_before, .position_after
    )]
    RealTime {
        /// The one that ended.
        before: Id,
        /// When.
        ended: u64,
        /// Behind how many writers it stands, itself included.
        position_before: u64,
        /// The one that began afterwards.
        after: Id,
        /// When.
        began: u64,
        /// Behind how many writers it stands, itself included.
        position_after: u64,
    },
    /// What is in the store afterwards is not what the transactions have left.
    #[error("in the end key {key:?} is {found:?}, not {expected:?}{}", written_by(.author.as_ref()))]
    Final {
        /// The key.
        key: String,
        /// What it must be.
        expected: Option<String>,
        /// What it is.
        found: Option<String>,
        /// The transaction at the last position.
        author: Option<Id>,
    },
}

fn or_final(id: Option<&Id>) -> String {
    id.map_or_else(
        || "the final content".to_owned(),
        |id| format!("transaction {id}"),
    )
}

fn behind(id: Option<&Id>) -> String {
    id.map_or_else(String::new, |id| {
        format!(" (transaction {id} had ended by then)")
    })
}

fn written_by(id: Option<&Id>) -> String {
    id.map_or_else(String::new, |id| {
        format!(" (the last writer is transaction {id})")
    })
}

fn at(time: u64) -> String {
    if time == NEVER {
        String::new()
    } else {
        format!(" at {time} ns")
    }
}
