//! One client: what it writes, and what it is shown by transactions that write nothing.

use std::time::Duration;

use happystore::{Durability, Error, ErrorKind, Raw, Transaction, TxOptions};

use super::client::{Client, ONCE_KEYS, Trouble, everything, wrong};
use super::record::{Halt, Window};
use crate::crash::oracle::{KEYS, Model, value};
use crate::crash::workload::Mode;

/// Why a closure gives no result.
#[derive(Debug)]
enum Refusal {
    Store(Error),
    Wrong(Halt),
    /// Its own will.
    Asked,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Halt> for Refusal {
    fn from(halt: Halt) -> Self {
        Self::Wrong(halt)
    }
}

/// How a transaction of the closure form ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It only read.
    Nothing,
    /// It is rolled back, and its result is returned.
    Abort,
    /// It is rolled back, and its error is returned.
    Error,
    Commit,
}

impl Client<'_> {
    /// Writes for so many operations; as the closer, closes the store in the middle of them.
    pub(super) fn write_for(mut self, operations: usize, is_closer: bool) -> Result<(), Halt> {
        for number in 0..operations {
            self.record.check_alive()?;
            if is_closer && number == operations / 2 {
                self.close()?;
            }
            match self.random.below(16) {
                0 => self.in_closure(Ending::Nothing)?,
                1 => self.in_closure(Ending::Abort)?,
                2 => self.in_closure(Ending::Error)?,
                3 | 4 => self.in_closure(Ending::Commit)?,
                5 => self.delete_what_is_gone()?,
                6 => self.sync()?,
                7 => self.read_one()?,
                8 => self.pause()?,
                9 => self.hold_a_snapshot(Self::write)?,
                _ => self.write()?,
            }
        }
        Ok(())
    }

    /// A transaction of the guard form.
    pub(super) fn write(&mut self) -> Result<(), Halt> {
        let mode = self.taste.mode(&mut self.random);
        let delay = self.taste.delay / if self.random.coin() { 2 } else { 1 };
        let durability = match mode {
            Mode::Deferred => Durability::Deferred(delay),
            mode => mode.durability(),
        };
        let mut options = TxOptions::new().durability(durability);
        let in_a_hurry = self.random.below(12) == 0;
        if in_a_hurry {
            options = options.timeout(Duration::from_millis(self.random.below(2)));
        }
        // Who has come since has mended it.
        let was_poisoned = self.record.is_poisoned() && !self.is_visitor;
        let begun = self.store.begin_with(&options);
        if in_a_hurry && matches!(&begun, Err(error) if error.kind() == ErrorKind::LockTimeout) {
            return Ok(());
        }
        let Some(tx) = self.done("begin", begun)? else {
            return Ok(());
        };
        if was_poisoned {
            return wrong("a transaction began after a failed sync was told of");
        }
        let Some((base, mut state)) = self.base(&tx)? else {
            return Ok(());
        };
        let is_changed = self.change(&tx, &mut state)?;
        if self.random.below(10) == 0 {
            drop(tx);
            return Ok(());
        }
        if !is_changed {
            if self.done("commit of nothing", tx.commit())?.is_some() {
                self.record.shown("a commit of nothing", base)?;
            }
            return Ok(());
        }
        let mark = self.record.begin(state, mode, delay);
        let committed = tx.commit();
        self.committed(mark, committed)
    }

    /// What is true when a commit has returned.
    fn committed(&mut self, mark: u64, committed: happystore::Result<()>) -> Result<(), Halt> {
        if self.done("commit", committed)?.is_none() {
            self.record.failed(mark);
            return Ok(());
        }
        self.record.returned(mark);
        match self.random.below(4) {
            0 => self.hold_a_snapshot(|_| Ok(())),
            1 | 2 => self.read_one(),
            _ => Ok(()),
        }
    }

    /// The state below a transaction's changes, which it reads as a whole now and then.
    fn base<E>(
        &mut self,
        tx: &Transaction<'_, Raw, [u8], E>,
    ) -> Result<Option<(u64, Model)>, Halt> {
        self.record.check_alive()?;
        let is_unsure = self.record.has_failed()
            || matches!(
                self.taste.trouble,
                Trouble::Call { .. } | Trouble::Kill { .. }
            );
        if !is_unsure && self.random.below(3) != 0 {
            let (mark, state) = self.record.top();
            return Ok(Some((mark, (*state).clone())));
        }
        let Some(found) = self.answer("a transaction's scan", everything(tx))? else {
            return Ok(None);
        };
        let mark = self.record.base(&found)?;
        Ok(Some((mark, found)))
    }

    /// Changes a few keys, as `state` is changed; true if anything is left to commit.
    fn change<E>(
        &mut self,
        tx: &Transaction<'_, Raw, [u8], E>,
        state: &mut Model,
    ) -> Result<bool, Halt> {
        let mark = self.record.next_mark();
        let mut is_changed = false;
        for step in 0..=self.random.below(3) {
            is_changed |= match self.random.below(12) {
                0 => self.be_a_nuisance(tx).map(|()| false)?,
                1 | 2 => self.nest(tx, state, mark * 100 + step)?,
                3 | 4 => self.delete(tx, state)?,
                _ => self.rewrite(tx, state, mark * 100 + step)?,
            };
        }
        Ok(is_changed)
    }

    /// Reads a key and sets it to something longer or shorter, with a count of how often.
    fn rewrite<E>(
        &mut self,
        tx: &Transaction<'_, Raw, [u8], E>,
        state: &mut Model,
        number: u64,
    ) -> Result<bool, Halt> {
        let key = self.key();
        let before: happystore::Result<Option<Vec<u8>>> = tx.get(key);
        let Some(before) = self.answer("a transaction's get", before)? else {
            return Ok(false);
        };
        if before.as_deref() != state.get(key).map(|value| &**value) {
            return wrong(format!("a transaction reads another value of {key:?}"));
        }
        let count = before.and_then(|before| before.first_chunk().copied());
        let count = u64::from_le_bytes(count.unwrap_or_default()) + 1;
        let len_bytes = self.random.index(self.taste.len_bytes_max);
        let bytes = [&count.to_le_bytes()[..], &value(number, 8 + len_bytes)].concat();
        if let Err(error) = tx.set(key, &bytes[..]) {
            return wrong(format!("a transaction's set: {error}"));
        }
        state.insert(key.to_vec(), bytes.into());
        Ok(true)
    }

    fn delete<E>(
        &mut self,
        tx: &Transaction<'_, Raw, [u8], E>,
        state: &mut Model,
    ) -> Result<bool, Halt> {
        let once = ONCE_KEYS[self.random.index(ONCE_KEYS.len())];
        let key = if self.random.coin() { self.key() } else { once };
        let expected = state.remove(key).is_some();
        match tx.delete(key) {
            Ok(gone) if gone == expected => Ok(gone),
            Ok(_) => wrong(format!("a transaction deletes another value of {key:?}")),
            Err(error) => wrong(format!("a transaction's delete: {error}")),
        }
    }

    /// A nested transaction, kept or undone.
    fn nest<E>(
        &mut self,
        tx: &Transaction<'_, Raw, [u8], E>,
        state: &mut Model,
        number: u64,
    ) -> Result<bool, Halt> {
        let inner = match tx.begin() {
            Ok(inner) => inner,
            Err(error) => return wrong(format!("a nested begin: {error}")),
        };
        let mut after = state.clone();
        let is_changed =
            self.rewrite(&inner, &mut after, number + 10)? | self.delete(&inner, &mut after)?;
        if self.random.coin() {
            return Ok(false);
        }
        if let Err(error) = inner.commit() {
            return wrong(format!("a nested commit: {error}"));
        }
        *state = after;
        Ok(is_changed)
    }

    /// Keeps others waiting, or does what must be refused or does no harm.
    fn be_a_nuisance<E>(&mut self, _tx: &Transaction<'_, Raw, [u8], E>) -> Result<(), Halt> {
        match self.random.below(3) {
            0 => self.pause(),
            1 => self.read_one(),
            _ => match self
                .store
                .set(KEYS[0], &b"never"[..])
                .map_err(|error| error.kind())
            {
                Err(ErrorKind::WouldDeadlock) => Ok(()),
                Err(ErrorKind::Poisoned | ErrorKind::Io) if self.record.has_failed() => Ok(()),
                other => wrong(format!("writing beside an own transaction: {other:?}")),
            },
        }
    }

    /// A transaction of the closure form, as durable as the store: whatever it returns, it was
    /// read by the caller.
    fn in_closure(&mut self, ending: Ending) -> Result<(), Halt> {
        let was_poisoned = self.record.is_poisoned();
        let store = self.store.clone();
        let (mut base, mut begun) = (None, None);
        let result = store.transaction(|tx| -> Result<(), Refusal> {
            if was_poisoned {
                return Err(wrong::<()>("a transaction began in a poisoned store")
                    .unwrap_err()
                    .into());
            }
            let Some((mark, mut state)) = self.base(tx)? else {
                return Err(Refusal::Asked);
            };
            base = Some(mark);
            if ending != Ending::Nothing {
                let is_changed = self.change(tx, &mut state)?;
                if ending == Ending::Commit && is_changed {
                    begun = Some(self.record.begin(state, Mode::Sync, Duration::ZERO));
                }
            }
            match ending {
                Ending::Abort => tx.abort(()),
                Ending::Error => Err(Refusal::Asked),
                Ending::Nothing | Ending::Commit => Ok(()),
            }
        });
        let (result, was_asked) = match result {
            Ok(()) => (Ok(()), false),
            Err(Refusal::Asked) => (Ok(()), true),
            Err(Refusal::Wrong(halt)) => return Err(halt),
            Err(Refusal::Store(error)) => (Err(error), false),
        };
        if let Some(mark) = begun {
            return self.committed(mark, result);
        }
        let Some(base) = base else {
            return self.done("begin", result).map(drop);
        };
        if self.done("a transaction of no change", result)?.is_some() {
            let what = if was_asked {
                "the error of a closure"
            } else {
                "the result of a closure"
            };
            self.record.shown(what, base)?;
        }
        Ok(())
    }

    /// Deletes a key that was deleted for ever: that it is not there was shown.
    fn delete_what_is_gone(&mut self) -> Result<(), Halt> {
        // Who deleted it may have failed.
        let may_fail = matches!(
            self.taste.trouble,
            Trouble::Call { .. } | Trouble::Kill { .. }
        );
        if may_fail || self.record.has_failed() {
            return Ok(());
        }
        let (low, top) = self.record.top();
        let Some(key) = ONCE_KEYS.into_iter().find(|key| !top.contains_key(*key)) else {
            return Ok(());
        };
        let gone = match self.random.below(3) {
            0 => self.store.delete(key),
            1 => self.store.bulk_delete([key]).map(|gone| gone[0]),
            _ => self
                .store
                .query()
                .range(key..=key)
                .delete()
                .map(|count| count > 0),
        };
        let Some(gone) = self.done("delete", gone)? else {
            return Ok(());
        };
        if gone {
            return wrong("a key was deleted twice");
        }
        let Window { high, .. } = self.record.window(low);
        let fits = |state: &Model| !state.contains_key(key);
        self.record
            .seen("delete", Window { low, high }, fits)
            .map(drop)
    }
}
