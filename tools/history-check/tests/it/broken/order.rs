//! Places and times that do not fit together.

use fastrand::Rng;
use happystore_history_check::history::{CLOCK, Claim, NEVER, Operation, Outcome};

use super::Row;
use crate::simulated::{Case, STEP_NS, claim, clock, get, set};

pub(super) const ROWS: &[Row] = &[
    (
        "a writer that ends before the one before it",
        shifted_writers,
        &["real time", "nowhere"],
    ),
    (
        "a reader that ends before what it has seen",
        shifted_reader,
        &["real time", "nowhere"],
    ),
    ("a stale snapshot", stale_snapshot, &["real time"]),
    (
        "a stale snapshot behind another reader",
        stale_reader,
        &["real time"],
    ),
    ("a stale aborted transaction", stale_aborted, &["real time"]),
    (
        "a snapshot of what begins later",
        future_snapshot,
        &["real time"],
    ),
    ("a stale single read", stale_plain, &["nowhere"]),
    (
        "a single read of what begins later",
        future_plain,
        &["real time"],
    ),
    (
        "two single reads that go back",
        plain_goes_back,
        &["nowhere"],
    ),
    (
        "a snapshot behind a single read that saw more",
        snapshot_behind_plain,
        &["real time"],
    ),
    (
        "a single read behind a snapshot that saw more",
        plain_behind_snapshot,
        &["nowhere"],
    ),
    ("a duplicated witness", duplicated_witness, &["duplicate"]),
    ("a witness that skips", skipped_witness, &["no witness"]),
    (
        "the witness of somebody else",
        foreign_witness,
        &["no witness"],
    ),
    (
        "a writer without a witness",
        missing_witness,
        &["no witness", "gap"],
    ),
    (
        "several reads without a witness",
        missing_clock,
        &["no witness"],
    ),
    (
        "a clock written twice",
        clock_written_twice,
        &["no witness"],
    ),
    ("a clock that is no claim", broken_clock, &["no witness"]),
    (
        "a clock read from its wrong author",
        wrong_author,
        &["read", "gap"],
    ),
    (
        "an inner transaction that is not ended",
        open_inner,
        &["nesting"],
    ),
    (
        "an inner transaction that is ended twice",
        ended_twice,
        &["nesting"],
    ),
];

/// Adds a writer that sets `key` behind all others; what the clock said before it, and its place
/// in the history.
fn add_writer(case: &mut Case, begin: u64, end: u64, key: &str) -> (Option<Claim>, usize) {
    let before = case.last;
    let own = claim(before, case.next_id());
    case.append(
        begin,
        end,
        vec![clock(before), set(CLOCK, &own.to_string()), set(key, "1")],
    );
    case.last = Some(own);
    case.content
        .retain(|(other, _)| other != key && other != CLOCK);
    case.content.push((key.to_owned(), "1".to_owned()));
    case.content.push((CLOCK.to_owned(), own.to_string()));
    (before, case.history.len() - 1)
}

fn shifted_writers(case: &mut Case, random: &mut Rng) -> Option<()> {
    let writers = case.writers();
    let first = random.usize(..writers.len().checked_sub(1)?);
    let (first, second) = (writers[first], writers[first + 1]);
    let end = case.history[second].end;
    case.history[first].begin = end + 1;
    case.history[first].end = end + STEP_NS;
    Some(())
}

fn shifted_reader(case: &mut Case, random: &mut Rng) -> Option<()> {
    let readers: Vec<_> = (0..case.history.len())
        .filter(|&at| case.history[at].kind == 's' && at > 10)
        .collect();
    let at = random.choice(readers)?;
    // The writer that it stands behind.
    let writer = (0..at).rev().find(|&before| {
        let Operation::Get { value, .. } = &case.history[at].operations[0] else {
            return false;
        };
        case.history[before].outcome == Outcome::Committed
            && matches!(case.history[before].operations.get(1),
                Some(Operation::Set { key, value: own }) if key == CLOCK && Some(own) == value.as_ref())
    })?;
    let begin = case.history[writer].begin;
    case.history[at].begin = begin.saturating_sub(STEP_NS);
    case.history[at].end = begin - 1;
    Some(())
}

fn stale_snapshot(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, _) = add_writer(case, 0, 1, "new");
    case.append(2, 3, vec![clock(before), get("new", None)]);
    Some(())
}

fn stale_reader(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, writer) = add_writer(case, 0, 9, "new");
    case.append(1, 2, vec![clock(case.last), get("new", Some("1"))]);
    case.append(3, 4, vec![clock(before), get("new", None)]);
    if case.last.is_some_and(|claim| claim.position % 2 == 0) {
        case.history[writer].outcome = Outcome::Unknown;
        case.history[writer].end = NEVER;
    }
    Some(())
}

fn stale_aborted(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, _) = add_writer(case, 0, 1, "new");
    let own = claim(before, case.next_id());
    case.append(2, 3, vec![clock(before), set(CLOCK, &own.to_string())]);
    case.history.last_mut()?.outcome = Outcome::Aborted;
    Some(())
}

fn future_snapshot(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(case, 5, 6, "new");
    case.append(0, 4, vec![clock(case.last), get("new", Some("1"))]);
    Some(())
}

fn stale_plain(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(case, 0, 1, "new");
    case.append(2, 3, vec![get("new", None)]);
    Some(())
}

fn future_plain(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(case, 5, 6, "new");
    case.append(0, 4, vec![get("new", Some("1"))]);
    Some(())
}

fn plain_goes_back(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(case, 0, 9, "new");
    case.append(1, 2, vec![get("new", Some("1"))]);
    case.append(
        3,
        4,
        vec![Operation::Has {
            key: "new".into(),
            there: false,
        }],
    );
    Some(())
}

fn snapshot_behind_plain(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, _) = add_writer(case, 0, 9, "new");
    case.append(1, 2, vec![get("new", Some("1"))]);
    case.append(3, 4, vec![clock(before), get("new", None)]);
    Some(())
}

fn plain_behind_snapshot(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(case, 0, 9, "new");
    case.append(1, 2, vec![clock(case.last)]);
    case.append(3, 4, vec![get("new", None)]);
    Some(())
}

/// Changes what the transaction at `at` has read from the clock, and claims.
fn witness(case: &mut Case, at: usize, behind: Option<Claim>, own: Claim) {
    case.history[at].operations[0] = clock(behind);
    case.history[at].operations[1] = set(CLOCK, &own.to_string());
}

fn duplicated_witness(case: &mut Case, random: &mut Rng) -> Option<()> {
    let writers = case.writers();
    let first = random.usize(..writers.len().checked_sub(1)?);
    let (first, second) = (writers[first], writers[first + 1]);
    let Operation::Get { value, .. } = &case.history[first].operations[0] else {
        return None;
    };
    let behind: Option<Claim> = value.as_ref().map(|value| value.parse().unwrap());
    let own = claim(behind, case.history[second].id);
    witness(case, second, behind, own);
    Some(())
}

fn skipped_witness(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, at) = add_writer(case, 0, 1, "new");
    let mut own = claim(before, case.history[at].id);
    own.position += 1;
    witness(case, at, before, own);
    Some(())
}

fn foreign_witness(case: &mut Case, _: &mut Rng) -> Option<()> {
    let (before, at) = add_writer(case, 0, 1, "new");
    let own = claim(before, case.history[0].id);
    witness(case, at, before, own);
    Some(())
}

fn missing_witness(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    case.history[at].operations.remove(random.usize(..2));
    Some(())
}

fn missing_clock(case: &mut Case, _: &mut Rng) -> Option<()> {
    case.append(0, 1, vec![get("a", None), get("b", None)]);
    Some(())
}

fn clock_written_twice(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    let again = case.history[at].operations[1].clone();
    case.history[at].operations.push(again);
    Some(())
}

fn broken_clock(case: &mut Case, _: &mut Rng) -> Option<()> {
    case.append(0, 1, vec![get(CLOCK, Some("noon"))]);
    Some(())
}

fn wrong_author(case: &mut Case, random: &mut Rng) -> Option<()> {
    let writers = case.writers();
    let at = writers[random.usize(1..writers.len())];
    let Operation::Get { value, .. } = &case.history[at].operations[0] else {
        return None;
    };
    let mut behind: Claim = value.as_ref()?.parse().unwrap();
    behind.author.process += 1;
    case.history[at].operations[0] = clock(Some(behind));
    Some(())
}

fn open_inner(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    case.history[at].operations.push(Operation::Begin);
    Some(())
}

fn ended_twice(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    let end = if random.bool() {
        Operation::Commit
    } else {
        Operation::Abort
    };
    case.history[at].operations.push(end);
    Some(())
}
