//! Places for single reads, which say nothing of where they stand.
//!
//! Such a read may stand behind any writer whose position shows the value that it has seen, if
//! that respects real time: not before what had ended when it began, and not behind what began
//! after it had ended. Reads are taken in the order in which they began, and each gets the least
//! place that does not go against the first of these. The second is left to [`real_time`].
//!
//! **Nothing is refused that has a right order.** Call *x* an assignment of positions to the
//! single reads that keeps the values and the first rule, with all other transactions in their
//! claimed places. The first rule says: x(b) is at least the position of every transaction with a
//! claim that ended before b began, and at least x(a) for every single read a that did. By
//! induction over the order of begins, the assignment *m* made here is below each such *x*: what
//! ended before b began had begun before b, so it is placed already, at most where *x* has it; m(b)
//! is the least position with the right value that is not below all of these, and x(b) is one of
//! those positions. If some *x* also keeps the second rule, then so does *m*: the rule bounds
//! positions from above by those of transactions with a claim, and m(b) ≤ x(b); between two single
//! reads both rules are the same one. So if *m* is refused, there is no right order.
//!
//! [`real_time`]: super::real_time

use super::replay::Versions;
use super::witness::Role;
use super::{Place, Violation};
use crate::history::{Operation, Transaction};

/// Fills in the places of all single reads.
pub(super) fn place(
    history: &[Transaction<'_>],
    roles: &[Role],
    versions: &Versions<'_>,
    places: &mut [Option<Place>],
) -> Result<(), Violation> {
    // At one time begins come before ends: what ended just when another began may have overlapped.
    let mut events = Vec::with_capacity(2 * history.len());
    for (at, transaction) in history.iter().enumerate() {
        events.push((transaction.end, true, at));
        if roles[at] == Role::Plain {
            events.push((transaction.begin, false, at));
        }
    }
    events.sort_unstable();
    // The furthest place of all that has ended.
    let mut floor: (Place, Option<usize>) = (Place::default(), None);
    for (_, is_end, at) in events {
        if is_end {
            // OK because a single read begins, and is placed, no later than it ends.
            floor = floor.max((places[at].unwrap_or_default(), Some(at)));
            continue;
        }
        let earliest = floor.0.position();
        let read = &history[at].operations[0];
        let position = least(read, versions, earliest).ok_or_else(|| {
            let (key, seen) = seen(read);
            Violation::Nowhere {
                id: history[at].id,
                key,
                seen,
                earliest,
                after: floor.1.map(|at| history[at].id),
            }
        })?;
        places[at] = Some(Place::reader(position));
    }
    Ok(())
}

/// The least position from `earliest` on at which `read` is answered as it was.
///
/// Walks over versions: as many as were made while the read ran, if it is right.
fn least(read: &Operation<'_>, versions: &Versions<'_>, earliest: u64) -> Option<u64> {
    let (Operation::Get { key, .. } | Operation::Has { key, .. }) = read else {
        return None;
    };
    let versions = versions.get(key.as_ref())?;
    let behind = versions.partition_point(|(position, _)| *position <= earliest);
    let current = behind.saturating_sub(1);
    let mut versions = versions[current..].iter();
    let right = versions.find(|(_, value)| is_right(read, *value))?;
    Some(right.0.max(earliest))
}

/// Whether `read` is answered as it was where its key holds `value`.
fn is_right(read: &Operation<'_>, value: Option<&str>) -> bool {
    match read {
        Operation::Get { value: seen, .. } => value == seen.as_deref(),
        Operation::Has { there, .. } => value.is_some() == *there,
        _ => false,
    }
}

/// The key of a single read and what it has seen.
fn seen(read: &Operation<'_>) -> (String, Option<String>) {
    match read {
        Operation::Get { key, value } => (key.to_string(), value.as_deref().map(str::to_owned)),
        Operation::Has { key, there } => (key.to_string(), there.then(|| "there".to_owned())),
        _ => (String::new(), None),
    }
}
