//! One client: what every kind of client does, reading above all.
//!
//! A client draws its operations from its own stream of chance, asks the store, and tells the
//! [`Record`] what it was told. Its `write` half is in [`write`](super::write).

use std::sync::Arc;
use std::time::Duration;

use happystore::vfs::Vfs;
use happystore::vfs::sim::Random;
use happystore::{Access, Error, ErrorKind, Read, Snapshot};

use super::record::{Halt, Record, Window, be_of};
use crate::crash::oracle::{Bytes, KEYS, Model, Setup};
use crate::crash::workload::Mode;

/// Keys that are set before the clients begin, and deleted once, if at all.
pub(super) const ONCE_KEYS: [&[u8]; 6] = [
    b"once/0", b"once/1", b"once/2", b"once/3", b"once/4", b"once/5",
];

/// What may go wrong in a run, as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// This sync of a segment fails, having done nothing, or everything.
    Sync { nth: u64, is_done: bool },
    /// This call fails.
    Call { nth: u64, is_done: bool },
    /// The process that makes this call, or this change of shared words, dies of it; others live on.
    Kill { nth: u64, death: Death },
    /// A client closes the store while others use it.
    Close,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    BeforeCall,
    /// A write or a growth is done in part.
    InCall,
    BeforeStore,
}

/// What all clients of a run are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taste {
    /// Of 100 commits, how many are `Sync`, and how many `Os`; the rest is `Deferred`.
    pub(super) sync_percent: u64,
    pub(super) os_percent: u64,
    /// How long a `Deferred` commit may stay undurable; half of them half as long.
    pub(super) delay: Duration,
    pub(super) len_bytes_max: usize,
    /// Of the keys of the workload, how many are used.
    pub(super) key_count: usize,
    /// Whether there is one process alone.
    pub(super) is_alone: bool,
    /// Whether other processes come and go.
    pub(super) is_visited: bool,
    pub(super) trouble: Trouble,
}

impl Taste {
    pub(super) fn mode(&self, random: &mut Random) -> Mode {
        let percent = random.below(100);
        if percent < self.sync_percent {
            Mode::Sync
        } else if percent < self.sync_percent + self.os_percent {
            Mode::Os
        } else {
            Mode::Deferred
        }
    }
}

/// One client of a run.
pub(super) struct Client<'run> {
    pub(super) record: &'run Record,
    pub(super) store: Bytes,
    pub(super) process: Arc<dyn Vfs>,
    pub(super) setup: Setup,
    /// Whether its process came while others were at work.
    pub(super) is_visitor: bool,
    pub(super) taste: Taste,
    pub(super) random: Random,
}

/// Whether a store says that it has to be opened again.
pub(super) fn is_poison(error: &Error) -> bool {
    error.kind() == ErrorKind::Poisoned
}

pub(super) fn wrong<T>(what: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Wrong(what.into()))
}

/// All that `source` shows.
pub(super) fn everything(source: &impl Read<happystore::Raw, [u8]>) -> happystore::Result<Model> {
    let pairs = source
        .scan()
        .iter()?
        .map(|pair: happystore::Result<(Vec<u8>, Vec<u8>)>| {
            let (key, value) = pair?;
            Ok((key, value.into()))
        });
    pairs.collect()
}

impl Client<'_> {
    /// The answer to a read: no failure of a sync or a write may keep it from coming.
    pub(super) fn answer<T>(
        &self,
        what: &str,
        result: happystore::Result<T>,
    ) -> Result<Option<T>, Halt> {
        self.record.check_alive()?;
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_planned(&error) => match self.taste.trouble {
                Trouble::Call { .. } | Trouble::Close => Ok(None),
                // A visitor has recovered the store: this opening is over.
                Trouble::Sync { .. } if self.taste.is_visited && is_poison(&error) => Ok(None),
                _ => wrong(format!("{what}, after a failed sync: {error}")),
            },
            Err(error) => wrong(format!("{what}: {error}")),
        }
    }

    /// The answer to a write or a sync; none if a planned failure kept it from being done.
    pub(super) fn done<T>(
        &self,
        what: &str,
        result: happystore::Result<T>,
    ) -> Result<Option<T>, Halt> {
        self.record.check_alive()?;
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_planned(&error) => {
                if matches!(self.taste.trouble, Trouble::Sync { .. }) {
                    self.record.set_poisoned();
                }
                Ok(None)
            }
            Err(error) => wrong(format!("{what}: {error}")),
        }
    }

    /// Whether an error may come of a planned failure.
    fn is_planned(&self, error: &Error) -> bool {
        match error.kind() {
            // Those who live on beside a process that died notice nothing.
            ErrorKind::Io | ErrorKind::Poisoned => {
                self.record.has_failed() && !matches!(self.taste.trouble, Trouble::Kill { .. })
            }
            ErrorKind::Closed => self.record.is_closing(),
            _ => false,
        }
    }

    pub(super) fn key(&mut self) -> &'static [u8] {
        KEYS[self.random.index(self.taste.key_count)]
    }

    /// Reads for so many operations.
    pub(super) fn read_for(mut self, operations: usize) -> Result<(), Halt> {
        for _ in 0..operations {
            self.record.check_alive()?;
            match self.random.below(12) {
                0 | 1 => self.read_everything()?,
                2 => self.hold_a_snapshot(Self::pause)?,
                3 => self.hold_a_snapshot(Self::read_one)?,
                4 => self.pause()?,
                5 => self.sync()?,
                6 => self.read_backwards()?,
                7 => self.read_many()?,
                8 if self.random.below(4) == 0 => self.verify()?,
                9 if self.taste.is_visited => self.visit()?,
                _ => self.read_one()?,
            }
        }
        Ok(())
    }

    /// Comes as another process, looks around, perhaps leaves something, and goes or is killed.
    fn visit(&mut self) -> Result<(), Halt> {
        let process = self.record.world.process();
        be_of(&process);
        let visited = self.visit_as(&process);
        be_of(&self.process);
        // Also if it has closed its store: then nothing is left of it.
        self.record.world.kill(&process);
        match visited {
            // That it died is no matter of the one who sent it.
            Err(Halt::Dead) => self.record.check_alive(),
            visited => visited,
        }
    }

    fn visit_as(&mut self, process: &Arc<dyn Vfs>) -> Result<(), Halt> {
        let only_reads = self.random.below(3) == 0;
        let access = if only_reads {
            Access::ReadOnly
        } else {
            Access::Shared
        };
        let low = self.record.floor();
        let had_failed = self.record.has_failed();
        let opened = self.setup.open_for(access, process.clone());
        if let Err(error) = &opened
            && error.kind() == ErrorKind::Io
            && !had_failed
            && self.is_planned(error)
        {
            // Its own sync, of a log that it found unfinished, has failed.
            self.record.set_failed_at_opening();
            return Ok(());
        }
        let Some(store) = self.answer("opening", opened)? else {
            return Ok(());
        };
        let seed = self.random.bits();
        let mut visitor = Client {
            record: self.record,
            store: store.clone(),
            process: process.clone(),
            setup: self.setup,
            is_visitor: true,
            taste: self.taste,
            random: Random::stream(seed, 0),
        };
        visitor.read_everything_since(low)?;
        if !only_reads && visitor.random.coin() {
            visitor.write()?;
        }
        if visitor.random.coin() {
            let floor = self.record.floor();
            drop(visitor);
            if self.done("closing", store.close())?.is_some() && !only_reads {
                self.record.synced(floor)?;
            }
        }
        Ok(())
    }

    /// Does nothing for a while.
    pub(super) fn pause(&mut self) -> Result<(), Halt> {
        let milliseconds = 1 + self.random.below(8);
        self.process.sleep(Duration::from_millis(milliseconds));
        self.record.check_alive()
    }

    /// One key, outside of any transaction.
    pub(super) fn read_one(&mut self) -> Result<(), Halt> {
        let key = self.key();
        let low = self.record.floor();
        if self.random.below(4) == 0 {
            let Some(there) = self.answer("has", self.store.has(key))? else {
                return Ok(());
            };
            let window = self.record.window(low);
            let fits = |state: &Model| state.contains_key(key) == there;
            return self.record.seen("has", window, fits).map(drop);
        }
        let got: happystore::Result<Option<Vec<u8>>> = self.store.get(key);
        let Some(got) = self.answer("get", got)? else {
            return Ok(());
        };
        let window = self.record.window(low);
        let fits = |state: &Model| state.get(key).map(|value| &**value) == got.as_deref();
        self.record.seen("get", window, fits).map(drop)
    }

    fn read_everything(&mut self) -> Result<(), Halt> {
        let low = self.record.floor();
        self.read_everything_since(low)
    }

    fn read_everything_since(&mut self, low: u64) -> Result<(), Halt> {
        let pairs = self.store.scan().iter();
        let window = self.record.window(low);
        let Some(pairs) = self.answer("scan", pairs)? else {
            return Ok(());
        };
        let pairs = pairs.map(|pair: happystore::Result<(Vec<u8>, Vec<u8>)>| {
            let (key, value) = pair?;
            Ok((key, value.into()))
        });
        let found: happystore::Result<Model> = pairs.collect();
        let Some(found) = self.answer("scan", found)? else {
            return Ok(());
        };
        self.record.seen_all("a scan", window, &found).map(drop)
    }

    /// A range, from its end; its snapshot is taken within the call.
    fn read_backwards(&mut self) -> Result<(), Halt> {
        let from = self.key();
        let low = self.record.floor();
        let pairs: happystore::Result<Vec<(Vec<u8>, Vec<u8>)>> =
            self.store.query().range(from..).reverse().pairs();
        let window = self.record.window(low);
        let Some(mut pairs) = self.answer("query", pairs)? else {
            return Ok(());
        };
        pairs.reverse();
        let fits = |state: &Model| {
            let expected = state.range(from.to_vec()..);
            let expected = expected.map(|(key, value)| (&key[..], &value[..]));
            expected.eq(pairs.iter().map(|(key, value)| (&key[..], &value[..])))
        };
        self.record.seen("a range", window, fits).map(drop)
    }

    fn read_many(&mut self) -> Result<(), Halt> {
        let low = self.record.floor();
        let values: happystore::Result<Vec<Option<Vec<u8>>>> = self.store.bulk_get(KEYS);
        let window = self.record.window(low);
        let Some(values) = self.answer("bulk_get", values)? else {
            return Ok(());
        };
        let fits = |state: &Model| {
            let expected = KEYS.iter().map(|key| state.get(*key).map(|value| &**value));
            expected.eq(values.iter().map(Option::as_deref))
        };
        self.record.seen("bulk_get", window, fits).map(drop)
    }

    /// Takes a snapshot and reads it before and after `meanwhile`.
    pub(super) fn hold_a_snapshot(
        &mut self,
        meanwhile: impl FnOnce(&mut Self) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let low = self.record.floor();
        let snapshot = self.store.snapshot();
        let Some(snapshot) = self.answer("snapshot", snapshot)? else {
            return Ok(());
        };
        let window = self.record.window(low);
        let before = if self.random.coin() {
            self.read_snapshot(&snapshot, window)?
        } else {
            None
        };
        meanwhile(self)?;
        let after = self.read_snapshot(&snapshot, window)?;
        match (before, after) {
            (Some(before), Some(after)) if before != after => wrong("a snapshot changed"),
            _ => Ok(()),
        }
    }

    fn read_snapshot(
        &self,
        snapshot: &Snapshot<happystore::Raw, [u8]>,
        window: Window,
    ) -> Result<Option<Model>, Halt> {
        let found = self.answer("a snapshot's scan", everything(snapshot))?;
        if let Some(found) = &found {
            self.record.seen_all("a snapshot", window, found)?;
        }
        Ok(found)
    }

    /// What had returned or was shown before is durable after.
    pub(super) fn sync(&mut self) -> Result<(), Halt> {
        let mark = self.record.floor();
        if self.done("sync", self.store.sync())?.is_some() {
            self.record.synced(mark)?;
        }
        Ok(())
    }

    /// Closes the store; everything that returned until then is durable. What other processes
    /// commit meanwhile is their matter.
    pub(super) fn close(&mut self) -> Result<(), Halt> {
        self.record.set_closing();
        let before = self.record.floor();
        let closed = self.store.clone().close();
        if self.done("close", closed)?.is_some() {
            let floor = if self.taste.is_alone {
                self.record.floor()
            } else {
                before
            };
            self.record.synced(floor)?;
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Halt> {
        self.answer("verify", self.store.verify()).map(drop)
    }
}
