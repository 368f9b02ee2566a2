//! Commits of all kinds, each with what the store holds if it is done.
//!
//! Invariants:
//! 1. A commit that the store acknowledges is whole; one that it refuses is not, unless its error
//!    says that it may have changed something.

use std::sync::Arc;

use happystore::vfs::sim::Random;
use happystore::{Error, ErrorKind, Raw, Transaction, TxOptions};

use super::expected::Model;
use super::runner::{Bytes, Runner};
use super::workload::{KEYS, Mode};

/// A value that no other commit writes.
pub(super) fn value(mark: u64, len_bytes: usize) -> Arc<[u8]> {
    let mut random = Random::stream(mark, len_bytes as u64);
    let words = (0..len_bytes.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes());
    words.take(len_bytes).collect()
}

/// How a commit failed.
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether it failed before it could have changed anything.
    pub(super) is_certain: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            is_certain: false,
        }
    }
}

impl Runner {
    pub(super) fn next_value(&self, len_bytes: usize) -> Arc<[u8]> {
        value(self.mark + 1, len_bytes)
    }

    /// Makes a commit that leads to `after`.
    fn commit(
        &mut self,
        mode: Mode,
        after: Model,
        call: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<(), String> {
        self.mark += 1;
        let is_change = after != **self.expected.last();
        self.world.begin(self.mark);
        let before = self.world.faults_by_call();
        let done = call();
        let fired = self.fired_since(&before);
        match done {
            Ok(()) if fired.sync => Err("a commit succeeded over a sync that failed".to_owned()),
            Ok(()) => {
                self.may_be_poisoned = false;
                if !is_change {
                    return self.expected.goes_on();
                }
                self.world.acknowledge(self.mark, mode == Mode::Sync);
                self.expected.acknowledged(after, mode)
            }
            Err(Failed { error, is_certain }) => {
                let allowed = [ErrorKind::Io, ErrorKind::DiskFull, ErrorKind::Poisoned];
                self.judge("a commit", &error, fired, &allowed)?;
                if self.is_full && !fired.not_allocating && error.kind() == ErrorKind::Io {
                    return Err(format!(
                        "a commit said {error:?}, though only space was missing"
                    ));
                }
                if error.may_have_changed() && is_change && !is_certain {
                    self.expected.failed(after);
                }
                Ok(())
            }
        }
    }

    pub(super) fn put(
        &mut self,
        store: &Bytes,
        mode: Mode,
        pairs: &[(&'static [u8], Arc<[u8]>)],
    ) -> Result<(), String> {
        let mut after = (**self.expected.last()).clone();
        after.extend(
            pairs
                .iter()
                .map(|(key, value)| (key.to_vec(), value.clone())),
        );
        self.commit(mode, after, || match pairs {
            [(key, value)] if mode == Mode::Sync => Ok(store.set(key, &**value)?),
            pairs if mode == Mode::Sync => {
                let pairs = pairs.iter().map(|(key, value)| (key, value.to_vec()));
                Ok(store.bulk_set(pairs)?)
            }
            pairs => in_transaction(store, mode, |tx| {
                pairs
                    .iter()
                    .try_for_each(|(key, value)| tx.set(key, &**value))
            }),
        })
    }

    pub(super) fn delete(&mut self, store: &Bytes, key: &[u8], mode: Mode) -> Result<(), String> {
        let mut after = (**self.expected.last()).clone();
        let was_there = after.remove(key).is_some();
        let mut said = was_there;
        self.commit(mode, after, || {
            if mode == Mode::Sync {
                said = store.delete(key)?;
                return Ok(());
            }
            in_transaction(store, mode, |tx| {
                said = tx.delete(key)?;
                Ok(())
            })
        })?;
        if said == was_there {
            Ok(())
        } else {
            Err(format!("a deletion said that the key was there: {said}"))
        }
    }

    pub(super) fn nest(
        &mut self,
        store: &Bytes,
        key: usize,
        len_bytes: usize,
        mode: Mode,
    ) -> Result<(), String> {
        let [outer, inner, undone] = [0, 1, 2].map(|at| KEYS[(key + at) % KEYS.len()]);
        let value = self.next_value(len_bytes);
        let last = self.expected.last().clone();
        let mut after = (*last).clone();
        after.insert(outer.to_vec(), value.clone());
        after.insert(inner.to_vec(), value.clone());
        let mut got = None;
        self.commit(mode, after, || {
            in_transaction(store, mode, |tx| {
                got = Some(tx.get::<Vec<u8>>(outer)?);
                tx.set(outer, &*value)?;
                let child = tx.begin()?;
                child.set(undone, &*value)?;
                child.delete(outer)?;
                drop(child);
                let child = tx.begin()?;
                child.set(inner, &*value)?;
                child.commit()
            })
        })?;
        let wanted = last.get(outer).map(|value| &**value);
        match got {
            Some(got) if got.as_deref() != wanted => {
                Err("a transaction read what was not the last state".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn query_delete(&mut self, store: &Bytes, from: &[u8]) -> Result<(), String> {
        let mut after = (**self.expected.last()).clone();
        let gone = after.split_off(from).len() as u64;
        let mut said = gone;
        self.commit(Mode::Sync, after, || {
            said = store.query().range(from..).delete()?;
            Ok(())
        })?;
        if said == gone {
            Ok(())
        } else {
            Err(format!("a query deleted {said} keys of {gone}"))
        }
    }
}

fn in_transaction(
    store: &Bytes,
    mode: Mode,
    body: impl FnOnce(&Transaction<'_, Raw, [u8]>) -> happystore::Result<()>,
) -> Result<(), Failed> {
    let options = TxOptions::new().durability(mode.durability());
    let certain = |error| Failed {
        error,
        is_certain: true,
    };
    let tx = store.begin_with(&options).map_err(certain)?;
    body(&tx).map_err(certain)?;
    Ok(tx.commit()?)
}
