//! Writes that are not there as they were made.

use fastrand::Rng;
use happystore_history_check::history::{CLOCK, NEVER, Operation, Outcome, Transaction};

use super::Row;
use crate::simulated::{Case, claim, clock, get, set};

pub(super) const ROWS: &[Row] = &[
    (
        "a dropped write",
        dropped_write,
        &["read", "final", "range", "count", "presence"],
    ),
    (
        "a dropped transaction",
        dropped_transaction,
        &["gap", "final"],
    ),
    ("a lost update", lost_update, &["duplicate"]),
    (
        "a lost update behind a right clock",
        lost_update_behind_clock,
        &["read"],
    ),
    ("write skew", write_skew, &["read"]),
    ("a torn batch", torn_batch, &["read"]),
    (
        "a torn batch, seen by a query",
        torn_batch_in_query,
        &["range"],
    ),
    (
        "a read from an aborted transaction",
        aborted_read,
        &["read"],
    ),
    (
        "a single read from an aborted transaction",
        aborted_plain_read,
        &["nowhere"],
    ),
    (
        "an aborted transaction that is there",
        aborted_there,
        &["gap", "final"],
    ),
    (
        "an unknown commit that is there in part",
        unknown_in_part,
        &["final"],
    ),
    ("an absent commit that was seen", absent_seen, &["read"]),
    ("a clock taken from nobody", clock_of_nobody, &["gap"]),
    (
        "a value that is lost in the end",
        lost_in_the_end,
        &["final"],
    ),
    (
        "the last transaction is lost in the end",
        lost_last_transaction,
        &["final"],
    ),
    (
        "the clock is lost in the end",
        clock_lost_in_the_end,
        &["final", "read", "range", "count", "presence", "nowhere"],
    ),
    ("a value that is old in the end", old_in_the_end, &["final"]),
    ("a key too much in the end", too_much_in_the_end, &["final"]),
];

/// Begins a writer behind all others.
fn begin_writer(case: &mut Case) -> Vec<Operation<'static>> {
    let own = claim(case.last, case.next_id());
    vec![clock(case.last), set(CLOCK, &own.to_string())]
}

/// Adds a writer behind all others, which does what `operations` say, and leaves `left`.
fn add_writer(
    case: &mut Case,
    (begin, end): (u64, u64),
    operations: Vec<Operation<'static>>,
    left: &[(&str, &str)],
) {
    let own = claim(case.last, case.next_id());
    let mut all = begin_writer(case);
    all.extend(operations);
    case.append(begin, end, all);
    case.last = Some(own);
    let clock = own.to_string();
    for (key, value) in left.iter().chain([&(CLOCK, clock.as_str())]) {
        case.content.retain(|(other, _)| other != key);
        case.content.push(((*key).to_owned(), (*value).to_owned()));
    }
}

fn dropped_write(case: &mut Case, random: &mut Rng) -> Option<()> {
    // The last write of a key whose value is there in the end.
    let content = case.content.clone();
    let sites = case.sites(|operation| {
        matches!(operation, Operation::Set { key, value }
            if key != CLOCK && content.iter().any(|(k, v)| k == key && v == value))
    });
    let (at, operation) = random.choice(sites)?;
    case.history[at].operations.remove(operation);
    Some(())
}

fn dropped_transaction(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    case.history.remove(at);
    Some(())
}

fn lost_update(case: &mut Case, _: &mut Rng) -> Option<()> {
    let last = case.last;
    add_writer(
        case,
        (0, 2),
        vec![get("sum", None), set("sum", "1")],
        &[("sum", "1")],
    );
    case.last = last;
    add_writer(
        case,
        (1, 3),
        vec![get("sum", None), set("sum", "1")],
        &[("sum", "1")],
    );
    Some(())
}

fn lost_update_behind_clock(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_writer(
        case,
        (0, 2),
        vec![get("sum", None), set("sum", "1")],
        &[("sum", "1")],
    );
    add_writer(
        case,
        (1, 3),
        vec![get("sum", None), set("sum", "1")],
        &[("sum", "1")],
    );
    Some(())
}

fn write_skew(case: &mut Case, _: &mut Rng) -> Option<()> {
    let both = |own: &str| vec![get("x", None), get("y", None), set(own, "1")];
    add_writer(case, (0, 2), both("x"), &[("x", "1")]);
    add_writer(case, (1, 3), both("y"), &[("y", "1")]);
    Some(())
}

/// Adds a writer of two keys, then one more, then a snapshot between them that has seen the first
/// key alone, as `seen` says.
fn torn(case: &mut Case, seen: Operation<'static>) {
    let both = vec![set("torn/a", "1"), set("torn/b", "1")];
    add_writer(case, (0, 1), both, &[("torn/a", "1"), ("torn/b", "1")]);
    let clock = clock(case.last);
    add_writer(case, (3, 5), vec![], &[]);
    case.append(2, 4, vec![clock, seen]);
}

fn torn_batch(case: &mut Case, _: &mut Rng) -> Option<()> {
    torn(case, get("torn/b", None));
    Some(())
}

fn torn_batch_in_query(case: &mut Case, _: &mut Rng) -> Option<()> {
    let selection = happystore_history_check::history::Selection {
        low: std::ops::Bound::Included("torn/".into()),
        high: std::ops::Bound::Unbounded,
        reverse: true,
        limit: None,
    };
    let pairs = vec![("torn/a".into(), "1".into())];
    torn(case, Operation::Pairs { selection, pairs });
    Some(())
}

/// Adds a transaction that sets a key, with this outcome, and is not there.
fn add_absent(case: &mut Case, outcome: Outcome) {
    let mut operations = begin_writer(case);
    operations.push(set("absent", "1"));
    case.append(0, 2, operations);
    let transaction = case.history.last_mut().unwrap();
    transaction.outcome = outcome;
    if outcome == Outcome::Unknown {
        transaction.end = NEVER;
    }
}

fn aborted_read(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_absent(case, Outcome::Aborted);
    case.append(1, 3, vec![clock(case.last), get("absent", Some("1"))]);
    Some(())
}

fn aborted_plain_read(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_absent(case, Outcome::Aborted);
    case.append(1, 3, vec![get("absent", Some("1"))]);
    Some(())
}

fn absent_seen(case: &mut Case, _: &mut Rng) -> Option<()> {
    add_absent(case, Outcome::Unknown);
    case.append(1, 3, vec![clock(case.last), get("absent", Some("1"))]);
    Some(())
}

fn aborted_there(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.choice(case.writers())?;
    case.history[at].outcome = Outcome::Aborted;
    Some(())
}

fn unknown_in_part(case: &mut Case, _: &mut Rng) -> Option<()> {
    let both = vec![set("torn/a", "1"), set("torn/b", "1")];
    add_writer(case, (0, 1), both, &[("torn/a", "1")]);
    let Transaction { outcome, end, .. } = case.history.last_mut()?;
    (*outcome, *end) = (Outcome::Unknown, NEVER);
    Some(())
}

fn clock_of_nobody(case: &mut Case, _: &mut Rng) -> Option<()> {
    let id = case.next_id();
    case.last = Some(claim(case.last, id));
    add_writer(case, (0, 1), vec![], &[]);
    Some(())
}

fn lost_in_the_end(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.usize(..case.content.len());
    if case.content[at].0 == CLOCK {
        return None;
    }
    case.content.swap_remove(at);
    Some(())
}

/// The store is, with its clock, as it was before the last commit.
fn lost_last_transaction(case: &mut Case, _: &mut Rng) -> Option<()> {
    let content = case.content.clone();
    add_writer(case, (0, 1), vec![set("last", "1")], &[("last", "1")]);
    case.content = content;
    Some(())
}

/// Without the clock nobody can tell whether a last commit of unknown outcome is there.
fn clock_lost_in_the_end(case: &mut Case, _: &mut Rng) -> Option<()> {
    case.content.retain(|(key, _)| key != CLOCK);
    Some(())
}

fn old_in_the_end(case: &mut Case, random: &mut Rng) -> Option<()> {
    let (key, value) = random.choice(&mut case.content)?;
    if key == CLOCK {
        return None;
    }
    "v0".clone_into(value);
    Some(())
}

fn too_much_in_the_end(case: &mut Case, _: &mut Rng) -> Option<()> {
    case.content.push(("nobody".to_owned(), "v1".to_owned()));
    Some(())
}
