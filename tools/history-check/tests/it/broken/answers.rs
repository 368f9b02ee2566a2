//! Answers that no serial execution gives.

use fastrand::Rng;
use happystore_history_check::history::{CLOCK, Operation};

use super::Row;
use crate::simulated::{Case, get, set};

pub(super) const ROWS: &[Row] = &[
    ("two reads swapped", swapped_reads, &["read"]),
    ("a value that nobody wrote", invented_value, &["read"]),
    ("a missing key is read", missing_key_read, &["read"]),
    ("a key is read as missing", read_as_missing, &["read"]),
    ("a stale value", stale_value, &["read"]),
    (
        "a key is said to be there or not",
        flipped_has,
        &["presence"],
    ),
    (
        "a delete is said to have found or not",
        flipped_delete,
        &["presence"],
    ),
    ("a query misses a key", phantom_missed, &["range"]),
    ("a query shows a deleted key", phantom_shown, &["range"]),
    ("a query shows an old value", old_value_in_range, &["range"]),
    (
        "a query misses a key, without values",
        missed_key,
        &["range"],
    ),
    ("a query in the wrong order", wrong_order, &["range"]),
    ("a query over its limit", over_limit, &["range"]),
    (
        "a query that begins at the other end",
        other_end,
        &["range", "read"],
    ),
    ("a wrong count", wrong_count, &["count"]),
    ("a wrong count of deletes", wrong_delete_count, &["count"]),
    (
        "a single read of what nobody wrote",
        plain_invented,
        &["nowhere"],
    ),
    (
        "a single question about what was never there",
        plain_never_there,
        &["nowhere"],
    ),
    ("the own write is not read", own_write_missed, &["read"]),
    (
        "the own write that was undone is read",
        undone_write_read,
        &["read"],
    ),
    (
        "what was undone inside stays deleted",
        undone_delete_seen,
        &["read"],
    ),
];

fn is_get(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Get { key, .. } if key != CLOCK)
}

fn value_of(operation: &Operation<'_>) -> Option<(String, Option<String>)> {
    match operation {
        Operation::Get { key, value } => {
            Some((key.to_string(), value.as_ref().map(ToString::to_string)))
        }
        _ => None,
    }
}

fn pick<T: Copy>(random: &mut Rng, from: &[T]) -> Option<T> {
    random.choice(from.iter().copied())
}

fn swapped_reads(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(is_get);
    let first = pick(random, &sites)?;
    let (key, value) = value_of(case.operation(first))?;
    let others: Vec<_> = sites
        .into_iter()
        .filter(|&site| {
            let (other_key, other_value) = value_of(case.operation(site)).unwrap();
            other_key == key && other_value != value
        })
        .collect();
    let second = pick(random, &others)?;
    let other = case.operation(second).clone();
    *case.operation(second) = std::mem::replace(case.operation(first), other);
    Some(())
}

fn with_value(
    case: &mut Case,
    random: &mut Rng,
    was_there: bool,
    new: Option<&'static str>,
) -> Option<()> {
    let sites = case.sites(|operation| {
        is_get(operation)
            && matches!(operation, Operation::Get { value, .. } if value.is_some() == was_there)
    });
    let site = pick(random, &sites)?;
    if let Operation::Get { value, .. } = case.operation(site) {
        *value = new.map(Into::into);
    }
    Some(())
}

fn invented_value(case: &mut Case, random: &mut Rng) -> Option<()> {
    with_value(case, random, true, Some("invented"))
}

fn missing_key_read(case: &mut Case, random: &mut Rng) -> Option<()> {
    with_value(case, random, false, Some("v1"))
}

fn read_as_missing(case: &mut Case, random: &mut Rng) -> Option<()> {
    with_value(case, random, true, None)
}

fn stale_value(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(is_get);
    let site = pick(random, &sites)?;
    let (key, value) = value_of(case.operation(site))?;
    let earlier = sites.iter().filter(|other| **other < site);
    let old = earlier
        .filter_map(|&other| value_of(case.operation(other)))
        .filter(|(other, old)| *other == key && *old != value)
        .last()?;
    *case.operation(site) = get(&key, old.1.as_deref());
    Some(())
}

fn flipped_has(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(|operation| matches!(operation, Operation::Has { .. }));
    let site = pick(random, &sites)?;
    if let Operation::Has { there, .. } = case.operation(site) {
        *there = !*there;
    }
    Some(())
}

fn flipped_delete(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(|operation| matches!(operation, Operation::Delete { .. }));
    let site = pick(random, &sites)?;
    if let Operation::Delete { there, .. } = case.operation(site) {
        *there = !*there;
    }
    Some(())
}

/// Changes the answer to a query that has shown so many keys at least, none of them the clock.
fn with_pairs(
    case: &mut Case,
    random: &mut Rng,
    least: usize,
    change: impl Fn(
        &mut Vec<(
            std::borrow::Cow<'static, str>,
            std::borrow::Cow<'static, str>,
        )>,
    ),
) -> Option<()> {
    let sites = case.sites(|operation| {
        matches!(operation, Operation::Pairs { pairs, .. }
            if pairs.len() >= least && pairs.iter().all(|(key, _)| key != CLOCK))
    });
    let site = pick(random, &sites)?;
    if let Operation::Pairs { pairs, .. } = case.operation(site) {
        change(pairs);
    }
    Some(())
}

fn phantom_missed(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.usize(..);
    with_pairs(case, random, 1, |pairs| {
        drop(pairs.remove(at % pairs.len()));
    })
}

fn phantom_shown(case: &mut Case, random: &mut Rng) -> Option<()> {
    let at = random.usize(..);
    with_pairs(case, random, 1, |pairs| {
        let at = at % pairs.len();
        let near = format!("{}+", pairs[at].0);
        pairs.insert(at, (near.into(), "v1".into()));
    })
}

fn old_value_in_range(case: &mut Case, random: &mut Rng) -> Option<()> {
    with_pairs(case, random, 1, |pairs| pairs[0].1 = "v0".into())
}

fn wrong_order(case: &mut Case, random: &mut Rng) -> Option<()> {
    with_pairs(case, random, 2, |pairs| pairs.swap(0, 1))
}

fn over_limit(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(|operation| {
        matches!(operation, Operation::Pairs { selection, pairs }
            if selection.limit.is_some_and(|limit| limit > 0 && limit == pairs.len()))
    });
    let site = pick(random, &sites)?;
    if let Operation::Pairs { selection, .. } = case.operation(site) {
        selection.limit = selection.limit.map(|limit| limit - 1);
    }
    Some(())
}

fn other_end(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case
        .sites(|operation| matches!(operation, Operation::Pairs { pairs, .. } if pairs.len() >= 2));
    let site = pick(random, &sites)?;
    if let Operation::Pairs { selection, .. } = case.operation(site) {
        selection.reverse = !selection.reverse;
    }
    Some(())
}

fn missed_key(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case
        .sites(|operation| matches!(operation, Operation::Keys { keys, .. } if !keys.is_empty()));
    let site = pick(random, &sites)?;
    if let Operation::Keys { keys, .. } = case.operation(site) {
        keys.pop();
    }
    Some(())
}

fn wrong_count(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case.sites(|operation| matches!(operation, Operation::Count { .. }));
    let site = pick(random, &sites)?;
    if let Operation::Count { count, .. } = case.operation(site) {
        *count += 1;
    }
    Some(())
}

fn wrong_delete_count(case: &mut Case, random: &mut Rng) -> Option<()> {
    let sites = case
        .sites(|operation| matches!(operation, Operation::DeleteRange { count, .. } if *count > 0));
    let site = pick(random, &sites)?;
    if let Operation::DeleteRange { count, .. } = case.operation(site) {
        *count -= 1;
    }
    Some(())
}

fn plain_invented(case: &mut Case, random: &mut Rng) -> Option<()> {
    let plain = case.plain();
    let at = pick(random, &plain)?;
    let Operation::Get { value, .. } = &mut case.history[at].operations[0] else {
        return None;
    };
    *value = Some("invented".into());
    Some(())
}

fn plain_never_there(case: &mut Case, _: &mut Rng) -> Option<()> {
    case.append(
        0,
        1,
        vec![Operation::Has {
            key: "never".into(),
            there: true,
        }],
    );
    Some(())
}

/// Puts operations behind the claim of a writer.
fn behind_claim(
    case: &mut Case,
    random: &mut Rng,
    operations: Vec<Operation<'static>>,
) -> Option<()> {
    let writers = case.writers();
    let at = pick(random, &writers)?;
    case.history[at].operations.splice(2..2, operations);
    Some(())
}

fn own_write_missed(case: &mut Case, random: &mut Rng) -> Option<()> {
    behind_claim(case, random, vec![set("own", "new"), get("own", None)])
}

fn undone_write_read(case: &mut Case, random: &mut Rng) -> Option<()> {
    behind_claim(
        case,
        random,
        vec![
            Operation::Begin,
            set("own", "inner"),
            Operation::Begin,
            set("own", "innermost"),
            Operation::Commit,
            Operation::Abort,
            get("own", Some("innermost")),
        ],
    )
}

fn undone_delete_seen(case: &mut Case, random: &mut Rng) -> Option<()> {
    let writers = case.writers();
    let at = pick(random, &writers)?;
    let key = "own";
    case.history[at].operations.splice(
        2..2,
        [
            set(key, "outer"),
            Operation::Begin,
            Operation::Delete {
                key: key.into(),
                there: true,
            },
            Operation::Abort,
            get(key, None),
        ],
    );
    Some(())
}
