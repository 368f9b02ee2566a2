//! What transactions do that write.
//!
//! Ten hot keys, ten accounts, lists that are full after a while, and cells: a window of keys that
//! moves on as transactions are committed, in which keys come and go.

use std::ops::Bound;

use fastrand::Rng;
use happystore::{Raw, Transaction, Write};

use super::Failure;
use super::recorded::{Keys, Recorded, Span};
use crate::black_box::{LISTS, SEPARATOR};
use crate::history::{CLOCK, Claim, Id, Operation};

/// How many keys are hot, and how many accounts there are.
const HOT: u8 = 10;

/// How many lists are appended to at a time, for how many positions, and the longest there is.
const LISTS_AT_A_TIME: u64 = 8;
const LIST_POSITIONS: u64 = 600;
const LIST_ELEMENTS_MAX: usize = 60;

/// How many cells are in use, and for how many positions one end of them stays.
const CELLS: u64 = 96;
const CELL_POSITIONS: u64 = 16;

/// How deep transactions are nested.
const DEPTH_MAX: u32 = 4;

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Increment,
    Transfer,
    Append,
    Cells,
    Bulk,
}

/// How a nested transaction ends.
enum Ending {
    Commit,
    Abort,
    Fail,
}

/// What the parts of a transaction are told.
pub(super) struct Context<'r> {
    pub(super) random: &'r mut Rng,
    /// Its position.
    pub(super) position: u64,
    pub(super) id: Id,
    /// How many list elements it has made.
    pub(super) elements: u32,
    pub(super) depth: u32,
}

impl Work {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Increment => 'i',
            Self::Transfer => 't',
            Self::Append => 'l',
            Self::Cells => 'c',
            Self::Bulk => 'b',
        }
    }

    pub(super) fn any(random: &mut Rng) -> Self {
        match random.u8(..20) {
            0..=5 => Self::Increment,
            6..=10 => Self::Transfer,
            11..=14 => Self::Append,
            15..=18 => Self::Cells,
            _ => Self::Bulk,
        }
    }

    pub(super) fn perform<W: Write<Raw>>(
        self,
        tx: &Recorded<'_, W>,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Increment => increment(tx, context),
            Self::Transfer => transfer(tx, context),
            Self::Append => append(tx, context),
            Self::Cells => cells(tx, context),
            Self::Bulk => bulk(tx, context),
        }
    }
}

/// Reads the clock and counts it up: the claim of a transaction that is to write.
pub(super) fn claim<W: Write<Raw>>(tx: &Recorded<'_, W>, id: Id) -> Result<u64, Failure> {
    let clock = tx.get(CLOCK)?;
    let before: Option<Claim> = clock.and_then(|clock| clock.parse().ok());
    let position = before.map_or(0, |claim| claim.position) + 1;
    let own = Claim {
        position,
        author: id,
    };
    tx.set(CLOCK, &own.to_string())?;
    Ok(position)
}

pub(super) fn hot(random: &mut Rng) -> String {
    format!("hot/{}", random.u8(..HOT))
}

pub(super) fn account(random: &mut Rng) -> String {
    format!("account/{}", random.u8(..HOT))
}

/// A list that is appended to at `position`.
pub(super) fn list(random: &mut Rng, position: u64) -> String {
    let generation = position / LIST_POSITIONS;
    let number = generation * LISTS_AT_A_TIME + random.u64(..LISTS_AT_A_TIME);
    format!("{LISTS}{number:05}")
}

/// A cell that is in use at `position`.
pub(super) fn cell(random: &mut Rng, position: u64) -> String {
    cell_of(position / CELL_POSITIONS + random.u64(..CELLS))
}

fn cell_of(number: u64) -> String {
    format!("cell/{number:07}")
}

/// Some cells that are in use at `position`.
pub(super) fn cells_span(random: &mut Rng, position: u64) -> Span {
    let low = cell(random, position);
    let high = cell_of(position / CELL_POSITIONS + random.u64(..CELLS + CELLS / 2));
    let end = |random: &mut Rng, key| {
        if random.bool() {
            Bound::Included(key)
        } else {
            Bound::Excluded(key)
        }
    };
    let keys = match random.u8(..8) {
        0 => Keys::Prefix("cell/"),
        1 => Keys::Range(Bound::Included(low), Bound::Unbounded),
        // Inverted ones are empty.
        _ => Keys::Range(end(random, low), end(random, high)),
    };
    let unbounded = !matches!(
        keys,
        Keys::Range(_, Bound::Included(_) | Bound::Excluded(_))
    );
    Span {
        keys,
        after: None,
        reverse: random.bool(),
        limit: (unbounded || random.u8(..4) == 0).then(|| random.usize(..20)),
    }
}

/// The content of a store that has just been made.
pub(super) fn set_up<W: Write<Raw>>(tx: &Recorded<'_, W>) -> Result<(), Failure> {
    for number in 0..HOT {
        tx.set(&format!("hot/{number}"), "0")?;
        tx.set(&format!("account/{number}"), "1000")?;
    }
    Ok(())
}

fn number<W: Write<Raw>>(tx: &Recorded<'_, W>, key: &str) -> Result<i64, Failure> {
    let value = tx.get(key)?;
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

fn increment<W: Write<Raw>>(
    tx: &Recorded<'_, W>,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    for _ in 0..context.random.u8(1..3) {
        let key = hot(context.random);
        let value = number(tx, &key)?;
        tx.set(&key, &(value + 1).to_string())?;
    }
    maybe_nested(tx, context, Work::Increment)
}

/// Moves an amount in a nested transaction, which is undone if it goes wrong; then once more.
fn transfer<W: Write<Raw>>(tx: &Recorded<'_, W>, context: &mut Context<'_>) -> Result<(), Failure> {
    let (from, to) = (account(context.random), account(context.random));
    let amount = context.random.i64(1..50);
    let left = number(tx, &from)? - amount;
    tx.set(&from, &left.to_string())?;
    maybe_nested(tx, context, Work::Transfer)?;
    let there = number(tx, &to)? + amount;
    tx.set(&to, &there.to_string())?;
    if context.random.u8(..8) == 0 {
        tx.pairs(&Span::of(Keys::Prefix("account/")))?;
    }
    Ok(())
}

fn append<W: Write<Raw>>(tx: &Recorded<'_, W>, context: &mut Context<'_>) -> Result<(), Failure> {
    for _ in 0..context.random.u8(1..3) {
        let key = list(context.random, context.position);
        let mut value = tx.get(&key)?.unwrap_or_default();
        if value.split(SEPARATOR).count() >= LIST_ELEMENTS_MAX {
            continue;
        }
        if !value.is_empty() {
            value.push(SEPARATOR);
        }
        // No element is made twice.
        let element = format!("{}.{}", context.id, context.elements);
        value.push_str(&element);
        context.elements += 1;
        tx.set(&key, &value)?;
        if context.random.u8(..4) == 0 {
            tx.get(&key)?;
        }
    }
    maybe_nested(tx, context, Work::Append)
}

fn cells<W: Write<Raw>>(tx: &Recorded<'_, W>, context: &mut Context<'_>) -> Result<(), Failure> {
    let position = context.position;
    for step in 0..context.random.u8(1..5) {
        let key = cell(context.random, position);
        match context.random.u8(..16) {
            0..=5 => tx.set(&key, &format!("{position}-{step}"))?,
            6..=9 => tx.delete(&key)?,
            10 => {
                tx.has(&key)?;
            }
            11 => {
                tx.keys(&cells_span(context.random, position))?;
            }
            12 => tx.count(&cells_span(context.random, position))?,
            13 => {
                let first = cell_of(position / CELL_POSITIONS);
                let old = Keys::Range(Bound::Included("cell/".to_owned()), Bound::Excluded(first));
                tx.delete_range(&Span::of(old))?;
            }
            _ => {
                tx.pairs(&cells_span(context.random, position))?;
            }
        }
    }
    maybe_nested(tx, context, Work::Cells)
}

fn bulk<W: Write<Raw>>(tx: &Recorded<'_, W>, context: &mut Context<'_>) -> Result<(), Failure> {
    let position = context.position;
    let count = context.random.usize(2..12);
    let keys: Vec<String> = (0..count).map(|_| cell(context.random, position)).collect();
    match context.random.u8(..3) {
        0 => {
            let value = |(at, key)| (key, format!("{position}-b{at}"));
            tx.bulk_set(&keys.into_iter().enumerate().map(value).collect::<Vec<_>>())?;
        }
        1 => tx.bulk_delete(&keys)?,
        _ => {
            tx.bulk_get(&keys)?;
            tx.bulk_delete(&keys[..1])?;
        }
    }
    tx.count(&cells_span(context.random, position))?;
    Ok(())
}

/// Does some of `work` in a nested transaction, sometimes.
fn maybe_nested<W: Write<Raw>>(
    tx: &Recorded<'_, W>,
    context: &mut Context<'_>,
    work: Work,
) -> Result<(), Failure> {
    if context.depth >= DEPTH_MAX || context.random.u8(..3) != 0 {
        return Ok(());
    }
    context.depth += 1;
    let ending = match context.random.u8(..6) {
        0 | 1 => Ending::Abort,
        2 => Ending::Fail,
        _ => Ending::Commit,
    };
    tx.note(&Operation::Begin);
    let is_committed = if context.random.bool() {
        nested_closure(tx, context, work, &ending)?
    } else {
        nested_guard(tx, context, work, &ending)?
    };
    tx.note(if is_committed {
        &Operation::Commit
    } else {
        &Operation::Abort
    });
    context.depth -= 1;
    if context.random.bool() {
        // What was undone, or was not, is seen from outside.
        tx.get(&hot(context.random))?;
        tx.get(&account(context.random))?;
        tx.get(&list(context.random, context.position))?;
        tx.pairs(&cells_span(context.random, context.position))?;
    }
    Ok(())
}

fn nested_closure<W: Write<Raw>>(
    tx: &Recorded<'_, W>,
    context: &mut Context<'_>,
    work: Work,
    ending: &Ending,
) -> Result<bool, Failure> {
    let body = |inner: &Transaction<'_, Raw, str, Failure>| {
        let recorded = Recorded {
            source: inner,
            line: tx.line,
        };
        work.perform(&recorded, context)?;
        match ending {
            Ending::Commit => Ok(true),
            Ending::Abort => inner.abort(false),
            Ending::Fail => Err(Failure::Wanted),
        }
    };
    match tx.source.transaction(body) {
        Err(Failure::Wanted) => Ok(false),
        other => other,
    }
}

fn nested_guard<W: Write<Raw>>(
    tx: &Recorded<'_, W>,
    context: &mut Context<'_>,
    work: Work,
    ending: &Ending,
) -> Result<bool, Failure> {
    let inner = tx.source.begin()?;
    let recorded = Recorded {
        source: &inner,
        line: tx.line,
    };
    work.perform(&recorded, context)?;
    if matches!(ending, Ending::Commit) {
        inner.commit()?;
        return Ok(true);
    }
    // Dropped, it is undone.
    Ok(false)
}
