//! The witness checker: was a history strictly serializable, in the order that it claims?
//!
//! Pure: a history and the final content come in, a count or a [`Violation`] goes out.
//! `witness` finds out where each transaction claims to stand; `replay` performs all of them
//! in that order and compares every answer; `plain` finds places for single reads, which claim
//! none; `real_time` refuses an order in which a transaction stands behind one that began after
//! its end. If nothing is refused, the order found is a serial execution that explains every
//! answer and respects real time: that is what strict serializability means, so it is a proof.
//!
//! **Positions.** The n-th committed writer stands at position n. A reader stands at the position
//! of the writer right before it. `Place` orders both: a reader at n stands behind writer n and
//! before writer n + 1.
//!
//! Costs O(n log n) in the number of operations, and what queries have shown: each position is
//! found by a lookup in a sorted map, and everything is performed once.

mod plain;
mod real_time;
mod replay;
mod violation;
mod witness;

pub use violation::Violation;

use crate::history::{Outcome, Transaction};
use witness::Role;

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Committed transactions that wrote.
    pub writers: u64,
    /// Transactions with a witness that left nothing behind: snapshots, queries, aborted ones.
    pub readers: u64,
    /// Single reads without a witness.
    pub plain_reads: u64,
    /// Answers compared: of reads, deletes, queries and counts, each query once.
    pub answers: u64,
    /// Keys, with or without values, that queries have shown.
    pub shown: u64,
    /// Of the transactions of unknown outcome that would have written, how many are there.
    pub unknown_there: u64,
    /// And how many are not.
    pub unknown_absent: u64,
}

/// Where a transaction stands.
///
/// A writer at position n is 2n, a reader behind it 2n + 1: of two transactions the one with the
/// lesser place comes first, and readers in one place come in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place(u64);

impl Place {
    fn writer(position: u64) -> Self {
        Self(2 * position)
    }

    fn reader(position: u64) -> Self {
        Self(2 * position + 1)
    }

    fn position(self) -> u64 {
        self.0 / 2
    }

    fn is_writer(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// Checks `history`, of a store that began empty and in the end holds the pairs `content`.
///
/// # Errors
/// The first [`Violation`] found, if the history is not strictly serializable.
pub fn check(
    history: &[Transaction<'_>],
    content: &[(String, String)],
) -> Result<Checked, Violation> {
    let roles = witness::roles(history)?;
    let chain = witness::chain(history, &roles, content)?;
    let mut places = chain.places(&roles);
    let replayed = replay::run(history, &chain, &roles, &places, content)?;
    plain::place(history, &roles, &replayed.versions, &mut places)?;
    real_time::check(history, &places)?;

    let mut checked = replayed.checked;
    for (at, transaction) in history.iter().enumerate() {
        let is_there = places[at].is_some_and(Place::is_writer);
        match roles[at] {
            Role::Plain => {
                checked.plain_reads += 1;
                checked.answers += 1;
            }
            _ if is_there => checked.writers += 1,
            _ => checked.readers += 1,
        }
        let would_write = matches!(roles[at], Role::Writer { .. });
        if transaction.outcome == Outcome::Unknown && would_write {
            checked.unknown_there += u64::from(is_there);
            checked.unknown_absent += u64::from(!is_there);
        }
    }
    Ok(checked)
}
