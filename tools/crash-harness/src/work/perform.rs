//! What an operation does, said with a store.

use std::time::Duration;

use happystore::{Durability, Result, Store, Transaction, TxOptions, Write};

use super::{COUNTER, Fate, Form, Id, Operation, Reach, Step, Value, order_key, value};
use crate::arguments::{DEFERRED_DELAY, Mode};

/// What a performed operation tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// How many keys its deletes found.
    pub(crate) found: u64,
    /// Its position among shared operations; 0 for those of one writer, and where nothing was
    /// committed.
    pub(crate) position: u64,
}

/// How the operations of a child are performed, whatever they are.
pub(crate) struct Manner<'a> {
    pub(crate) mode: Mode,
    /// How long is waited for the writer lock, if not as long as the store waits.
    pub(crate) patience: Option<Duration>,
    /// Told of each operation that has the writer lock, before its commit.
    pub(crate) before_commit: &'a dyn Fn(Id),
}

impl Manner<'_> {
    /// The manner of a child that nothing is known of but its mode.
    pub(crate) fn plain(mode: Mode) -> Self {
        Self {
            mode,
            patience: None,
            before_commit: &|_| {},
        }
    }
}

/// Performs `operation`, and returns when its commit has.
///
/// # Errors
/// Whatever the store says.
pub(crate) fn perform(
    store: &Store,
    operation: &Operation,
    manner: &Manner<'_>,
) -> Result<Outcome> {
    let body = |tx: &Transaction<'_>| {
        let outcome = body_of(tx, operation)?;
        (manner.before_commit)(operation.id);
        Ok(outcome)
    };
    let by_guard = |options: &TxOptions| {
        let tx = store.begin_with(options)?;
        let outcome = body(&tx)?;
        if operation.fate == Fate::Commit {
            tx.commit()?;
        }
        Ok(outcome)
    };
    let mut options = TxOptions::new();
    if let Some(patience) = manner.patience {
        options = options.timeout(patience);
    }
    if manner.mode == Mode::Mix {
        return by_guard(&options.durability(durability(operation.reach)));
    }
    match operation.form {
        Form::Plain => body_of(store, operation),
        Form::Closure if manner.patience.is_none() => store.transaction(|tx| {
            let outcome = body(tx)?;
            match operation.fate {
                Fate::Commit => Ok(outcome),
                Fate::Abort | Fate::Drop => tx.abort(outcome),
            }
        }),
        Form::Closure | Form::Guard => by_guard(&options),
    }
}

/// The durability of a commit that reaches so far.
fn durability(reach: Reach) -> Durability {
    match reach {
        Reach::Sync => Durability::Sync,
        Reach::Deferred => Durability::Deferred(DEFERRED_DELAY),
        Reach::Os => Durability::Os,
    }
}

fn body_of(db: &impl Write, operation: &Operation) -> Result<Outcome> {
    let mut position = 0;
    if operation.is_shared {
        position = next_position(db)?;
        for key in [COUNTER.to_owned(), order_key(position)] {
            db.set(&key, &value(operation.id, position, &key))?;
        }
    }
    let found = steps(db, operation.id, position, &operation.steps)?;
    if operation.fate != Fate::Commit {
        position = 0;
    }
    Ok(Outcome { found, position })
}

/// The position that the next shared operation takes.
pub(crate) fn next_position(db: &impl Write) -> Result<u64> {
    let counter: Option<Value> = db.get(COUNTER)?;
    Ok(counter.map_or(0, |(_, position, _)| position) + 1)
}

fn steps(db: &impl Write, id: Id, position: u64, steps: &[Step]) -> Result<u64> {
    let found = steps.iter().map(|each| step(db, id, position, each));
    found.sum()
}

fn step(db: &impl Write, id: Id, position: u64, step: &Step) -> Result<u64> {
    let count = |found: &[bool]| found.iter().filter(|&&found| found).count() as u64;
    match step {
        Step::Set(key) => db.set(key, &value(id, position, key)).map(|()| 0),
        Step::BulkSet(keys) => {
            let pairs = keys.iter().map(|key| (key, value(id, position, key)));
            db.bulk_set(pairs).map(|()| 0)
        }
        Step::Delete(key) => db.delete(key).map(u64::from),
        Step::BulkDelete(keys) => db.bulk_delete(keys).map(|found| count(&found)),
        Step::QueryDelete {
            prefix,
            limit,
            reverse,
        } => {
            let mut query = db.query().prefix(prefix);
            if let Some(limit) = limit {
                query = query.limit(*limit);
            }
            if *reverse {
                query = query.reverse();
            }
            query.delete()
        }
        Step::Nested(inner, Fate::Drop) => {
            let nested = db.begin()?;
            steps(&nested, id, position, inner)
        }
        Step::Nested(inner, fate) => db.transaction(|nested| {
            let found = steps(nested, id, position, inner)?;
            match fate {
                Fate::Commit => Ok(found),
                Fate::Abort | Fate::Drop => nested.abort(found),
            }
        }),
    }
}
