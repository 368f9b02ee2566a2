//! Children that break a promise on purpose, so that the harness can be seen to find it.

use std::path::Path;

use happystore::{Result, Store};

use super::Shared;
use crate::arguments::Planted;
use crate::work::perform::{self, Outcome};
use crate::work::{Form, Id, Operation, Step, own_prefix, value};

/// Performs `operation` with a fault; `None` if it has been acknowledged already.
///
/// # Errors
/// Whatever the store says.
pub(super) fn perform(
    fault: Planted,
    store: &Store,
    operation: &Operation,
    shared: &Shared<'_>,
) -> Result<Option<Outcome>> {
    let id = operation.id;
    let plain = (operation.form == Form::Plain).then(|| &operation.steps[0]);
    match (fault, plain) {
        (Planted::EarlyAcknowledgement, Some(Step::Set(_) | Step::BulkSet(_))) => {
            shared.acknowledge(id, Outcome::default());
            right(store, operation, shared)?;
            return Ok(None);
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
        _ => {}
    }
    right(store, operation, shared).map(Some)
}

fn right(store: &Store, operation: &Operation, shared: &Shared<'_>) -> Result<Outcome> {
    perform::perform(store, operation, shared.arguments.mode)
}

/// Leaves a file that looks like one that is not finished.
pub(super) fn leave_a_file(store: &Path) {
    // If it cannot be left, the harness finds nothing, and says so.
    let _ = std::fs::write(store.join("planted.tmp"), "");
}
