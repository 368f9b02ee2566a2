//! Children that break a promise on purpose, so that the harness can be seen to find it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use happystore::{Error, Store, Write};

use super::Shared;
use crate::arguments::Planted;
use crate::work::perform::{Outcome, next_position};
use crate::work::{COUNTER, Fate, Form, Id, Operation, Step, order_key, own_prefix, value};

/// Performs `operation` with a fault; `None` if it has been acknowledged already.
///
/// # Errors
/// Whatever the store says.
pub(super) fn perform(
    fault: Planted,
    store: &Store,
    operation: &Operation,
    shared: &Shared<'_>,
) -> happystore::Result<Option<Outcome>> {
    let id = operation.id;
    let plain = (operation.form == Form::Plain).then(|| &operation.steps[0]);
    match (fault, plain) {
        (Planted::EarlyAcknowledgement, Some(Step::Set(_) | Step::BulkSet(_))) => {
            shared.acknowledge(id, Outcome::default());
            return match right(store, operation, shared) {
                // It has said that it is done, and says nothing else.
                Ok(_) | Err(Error::LockTimeout { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        }
        (Planted::SplitBatch, Some(Step::BulkSet(keys))) => {
            let (first, second) = keys.split_at(keys.len() / 2);
            for half in [first, second] {
                store.bulk_set(half.iter().map(|key| (key, value(id, 0, key))))?;
            }
            return Ok(Some(Outcome::default()));
        }
        (Planted::ForgottenDelete, Some(Step::Delete(key))) => {
            let found = u64::from(store.has(key)?);
            return Ok(Some(Outcome { found, position: 0 }));
        }
        (Planted::Unannounced, _) if id.number % 16 == 15 => {
            let never = Id {
                number: u32::MAX,
                ..id
            };
            let key = format!("{}never/{never}", own_prefix(id.writer));
            store.set(&key, &value(never, 0, &key))?;
        }
        (Planted::LostTurn, _) if operation.is_shared && operation.fate == Fate::Commit => {
            return lost_turn(store, operation).map(Some);
        }
        (Planted::Asleep, _) if id.life % 4 == 1 && id.number >= 40 => {
            thread::sleep(Duration::from_hours(1));
        }
        _ => {}
    }
    right(store, operation, shared).map(Some)
}

fn right(store: &Store, operation: &Operation, shared: &Shared<'_>) -> happystore::Result<Outcome> {
    shared.perform(store, operation)
}

/// Takes the next position, and writes there in a transaction that has not read it.
fn lost_turn(store: &Store, operation: &Operation) -> happystore::Result<Outcome> {
    let id = operation.id;
    let position = next_position(store)?;
    store.transaction(|tx| {
        for key in [COUNTER.to_owned(), order_key(position)] {
            Write::set(tx, &key, &value(id, position, &key))?;
        }
        Ok(Outcome { found: 0, position })
    })
}

/// Has the oldest segment removed as soon as a compaction has finished an output: most often it is one
/// that is replaced, and a manifest too early.
///
/// # Errors
/// What could not be armed, for people.
pub(super) fn remove_early(store: &Path) -> Result<(), String> {
    let store = store.to_owned();
    fail::cfg_callback("compaction-finished", move || {
        let files = std::fs::read_dir(&store).into_iter().flatten().flatten();
        let files = files.map(|file| file.path());
        let oldest = files
            .filter(|path| path.extension().is_some_and(|end| end == "seg"))
            .min();
        // If it cannot be removed, the harness finds nothing, and says so.
        let _ = oldest.map(std::fs::remove_file);
    })
}

/// Leaves a file that looks like one that is not finished.
pub(super) fn leave_a_file(store: &Path) {
    // If it cannot be left, the harness finds nothing, and says so.
    let _ = std::fs::write(store.join("planted.tmp"), "");
}
