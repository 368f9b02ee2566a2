//! Faults of the machine that do not kill: a full disk, limits, refused calls.
//!
//! A child ([`worker`]) works on a store beside a model, meets errors, and checks after each of
//! them that reads are right, that the error is of a kind that says what happened, and that the
//! store goes on, or goes on after it was opened again. It settles what became of each operation
//! and reports that; [`supervise`] runs it under a fault, and checks the store afterwards without
//! one. [`full_disk`] and [`attempt`] are children for single cases.

pub(crate) mod attempt;
pub(crate) mod full_disk;
pub(crate) mod supervise;
pub(crate) mod worker;

use std::collections::BTreeMap;
use std::fmt;

use happystore::{Error, ErrorKind, Store};

use crate::work::Value;
use crate::work::model::Content;

/// Why a child cannot go on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A promise was broken.
    Broken(String),
    /// The fault does not end; what is left is for the supervisor.
    GaveUp,
}

/// The errors that were met, by kind.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    counts: BTreeMap<String, u64>,
}

impl Errors {
    /// Takes note of `error`, which must be one of `kinds`.
    ///
    /// # Errors
    /// Broken, if it is not.
    pub(crate) fn expect(
        &mut self,
        doing: &str,
        error: &Error,
        kinds: &[ErrorKind],
    ) -> Result<ErrorKind, Trouble> {
        let kind = error.kind();
        let is_retryable = matches!(kind, ErrorKind::DiskFull | ErrorKind::LockTimeout);
        if !kinds.contains(&kind) || error.is_retryable() != is_retryable {
            return Err(Trouble::Broken(format!(
                "cannot {doing}: {kind:?}: {error}"
            )));
        }
        *self.counts.entry(format!("{kind:?}")).or_default() += 1;
        Ok(kind)
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts
            .iter()
            .try_for_each(|(kind, count)| write!(f, " {kind}={count}"))
    }
}

/// All that is in the store.
///
/// # Errors
/// Whatever the store says.
pub(crate) fn content(store: &Store) -> happystore::Result<Content> {
    store.scan().iter::<Value>()?.collect()
}

/// The first difference between two contents, for people.
pub(crate) fn difference(found: &Content, right: &Content) -> String {
    let mut keys = found.keys().chain(right.keys());
    let key = keys.find(|key| found.get(*key) != right.get(*key));
    let key = key.map_or("nothing", String::as_str);
    let [found, right] = [found, right].map(|content| content.get(key).map(|value| value.0));
    format!("{key} is of {found:?}, and was to be of {right:?}")
}
