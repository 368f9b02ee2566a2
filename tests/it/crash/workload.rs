//! Workloads: lists of operations, run on a machine while a model keeps up.
//!
//! [`run`] gives the journal that `explore` cuts, and the history that the oracle compares with.
//!
//! Invariants:
//! 1. Commit *n* is begun before the store hears of it and acknowledged after it returned;
//!    as durable if it was, or if something later made it so.
//! 2. The same workload on the same setup gives the same journal.

use std::sync::Arc;
use std::time::Duration;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{Fault, Journal, World};
use happystore::{Durability, Transaction, TxOptions};

use super::oracle::{Bounds, Bytes, History, KEYS, Model, Recovered, Setup, recover, twin, value};

/// How long a deferred commit may stay undurable.
const DELAY: Duration = Duration::from_millis(10);

/// What a commit is to have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Sync,
    Os,
    Deferred,
}

impl Mode {
    /// As a transaction is told.
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Sync => Durability::Sync,
            Self::Os => Durability::Os,
            Self::Deferred => Durability::Deferred(DELAY),
        }
    }
}

/// One step of a workload. Keys are indices into [`KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Sets a key to a value of so many bytes.
    Set {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    /// Sets a key to a copy of what lies in the store's own segments, from an offset into all.
    Bait {
        key: usize,
        from: usize,
        len_bytes: usize,
        mode: Mode,
    },
    Delete {
        key: usize,
        mode: Mode,
    },
    /// Three keys from this one, at once.
    Batch {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    /// An outer change that stays, an inner one that stays, and an inner one that is undone.
    Nested {
        key: usize,
        len_bytes: usize,
        mode: Mode,
    },
    /// Sets what [`twin`] says.
    Twin {
        mode: Mode,
    },
    /// Deletes the keys from this one in one query.
    QueryDelete {
        key: usize,
    },
    Sync,
    /// Lets the time of a deferred commit come.
    Background,
    Reopen,
    /// Rewrites the finished segments whose ids have a bit in this mask, or all of them.
    Compact {
        mask: u32,
    },
    /// The process dies between two operations.
    Kill,
    /// The process dies at this call from now.
    KillAt {
        call: u64,
    },
}

/// What a workload left behind.
pub(crate) struct Run {
    pub(crate) setup: Setup,
    pub(crate) journal: Journal,
    pub(crate) history: History,
    /// How much of the journal there was before the last operation.
    pub(crate) last_began_at: usize,
}

struct Runner {
    world: World,
    setup: Setup,
    history: History,
    process: Arc<dyn Vfs>,
    /// `None` only while it is opened anew.
    store: Option<Bytes>,
    /// The newest commit that the store acknowledged.
    acknowledged: u64,
    /// Whether a deferred commit waits for its sync.
    is_deferred: bool,
    faults_seen: u64,
}

/// Runs `ops` on a new machine.
pub(crate) fn run(setup: Setup, ops: &[Op]) -> Result<Run, String> {
    let world = setup.prepare(World::new(7));
    let mut history = History::new();
    let Recovered { process, store, .. } = recover(&world, setup, Bounds::default(), &mut history)?;
    let mut runner = Runner {
        world,
        setup,
        history,
        process,
        store: Some(store),
        acknowledged: 1,
        is_deferred: false,
        faults_seen: 0,
    };
    let mut last_began_at = 0;
    for (number, op) in ops.iter().enumerate() {
        if number + 1 == ops.len() && number > 0 {
            last_began_at = runner.world.journal().operations().len();
        }
        runner
            .step(*op)
            .map_err(|error| format!("operation {number}, {op:?}: {error}"))?;
    }
    let Runner {
        world,
        process,
        mut history,
        store,
        ..
    } = runner;
    let journal = world.journal();
    // What closing would do is a workload of its own.
    world.kill(&process);
    drop(store);
    history.freeze();
    Ok(Run {
        setup,
        journal,
        history,
        last_began_at,
    })
}

impl Runner {
    fn step(&mut self, op: Op) -> Result<(), String> {
        let done = self.act(op);
        if op == Op::Kill {
            return self.come_back();
        }
        if self.world.faults_fired() > self.faults_seen {
            self.faults_seen = self.world.faults_fired();
            return self.come_back();
        }
        done.map_err(|error| error.to_string())
    }

    fn act(&mut self, op: Op) -> happystore::Result<()> {
        match op {
            Op::Set {
                key,
                len_bytes,
                mode,
            } => {
                let value = value(self.history_len(), len_bytes);
                self.put(mode, &[(KEYS[key], value)])
            }
            Op::Bait {
                key,
                from,
                len_bytes,
                mode,
            } => {
                let value = self.own_bytes(from, len_bytes);
                self.put(mode, &[(KEYS[key], value)])
            }
            Op::Batch {
                key,
                len_bytes,
                mode,
            } => {
                let pairs = [0, 1, 2].map(|at| {
                    let value = value(self.history_len() + at as u64 * 1000, len_bytes);
                    (KEYS[(key + at) % KEYS.len()], value)
                });
                self.put(mode, &pairs)
            }
            Op::Twin { mode } => self.put(mode, &twin(self.history_len())),
            Op::Delete { key, mode } => self.delete(KEYS[key], mode),
            Op::Nested {
                key,
                len_bytes,
                mode,
            } => self.nest(key, len_bytes, mode),
            Op::QueryDelete { key } => self.query_delete(KEYS[key]),
            Op::Sync => self.store().sync().map(|()| self.all_durable()),
            Op::Background => {
                self.world.advance(DELAY);
                self.world.run_background();
                let was_killed = self.world.faults_fired() > self.faults_seen;
                if std::mem::take(&mut self.is_deferred) && !was_killed {
                    self.all_durable();
                }
                Ok(())
            }
            Op::Reopen => self.reopen(),
            Op::Compact { mask } => self.compact(mask),
            Op::Kill => Ok(()),
            Op::KillAt { call } => {
                self.world.fail_call(call, Fault::kill());
                Ok(())
            }
        }
    }

    fn reopen(&mut self) -> happystore::Result<()> {
        let store = self
            .store
            .take()
            .expect("OK because it is open between operations");
        store.close()?;
        self.all_durable();
        self.is_deferred = false;
        self.process = self.world.process();
        self.store = Some(self.setup.open(self.process.clone())?);
        Ok(())
    }

    fn compact(&self, mask: u32) -> happystore::Result<()> {
        if mask == u32::MAX {
            self.store().compact()?;
        } else {
            let is_wanted = |id: u32| mask >> (id % 32) & 1 == 1;
            self.store().compact_segments(is_wanted)?;
        }
        self.all_durable();
        Ok(())
    }

    /// A process died: another one opens the store.
    fn come_back(&mut self) -> Result<(), String> {
        self.world.heal();
        self.world.kill(&self.process);
        self.store = None;
        self.is_deferred = false;
        let point = self.world.journal().last_point(0, 0);
        let bounds = Bounds::default().killed(&point);
        let Recovered { process, store, .. } =
            recover(&self.world, self.setup, bounds, &mut self.history)?;
        self.acknowledged = self.history_len() - 1;
        (self.process, self.store) = (process, Some(store));
        Ok(())
    }

    fn store(&self) -> &Bytes {
        self.store
            .as_ref()
            .expect("OK because it is open between operations")
    }

    fn history_len(&self) -> u64 {
        self.history.len()
    }

    fn all_durable(&self) {
        self.world.acknowledge(self.acknowledged, true);
    }

    /// Commits what `change` does; the model has it already.
    fn commit(
        &mut self,
        mode: Mode,
        after: Model,
        change: impl FnOnce(&Bytes) -> happystore::Result<()>,
    ) -> happystore::Result<()> {
        let mark = self.history.push(after.into());
        self.world.begin(mark);
        change(self.store())?;
        self.world.acknowledge(mark, mode == Mode::Sync);
        self.acknowledged = mark;
        self.is_deferred |= mode == Mode::Deferred;
        Ok(())
    }

    fn put(&mut self, mode: Mode, pairs: &[(&[u8], Arc<[u8]>)]) -> happystore::Result<()> {
        let mut after = (**self.history.last()).clone();
        after.extend(
            pairs
                .iter()
                .map(|(key, value)| (key.to_vec(), value.clone())),
        );
        self.commit(mode, after, |store| match pairs {
            [(key, value)] if mode == Mode::Sync => store.set(key, &**value),
            pairs if mode == Mode::Sync => {
                store.bulk_set(pairs.iter().map(|(key, value)| (key, value.to_vec())))
            }
            pairs => in_transaction(store, mode, |tx| {
                pairs
                    .iter()
                    .try_for_each(|(key, value)| tx.set(key, &**value))
            }),
        })
    }

    fn delete(&mut self, key: &[u8], mode: Mode) -> happystore::Result<()> {
        let mut after = (**self.history.last()).clone();
        if after.remove(key).is_none() {
            // Nothing is appended, and nothing is synced.
            return self.store().delete(key).map(drop);
        }
        self.commit(mode, after, |store| match mode {
            Mode::Sync => store.delete(key).map(drop),
            Mode::Os | Mode::Deferred => in_transaction(store, mode, |tx| tx.delete(key).map(drop)),
        })
    }

    fn nest(&mut self, key: usize, len_bytes: usize, mode: Mode) -> happystore::Result<()> {
        let [outer, inner, undone] = [0, 1, 2].map(|at| KEYS[(key + at) % KEYS.len()]);
        let value = value(self.history_len(), len_bytes);
        let mut after = (**self.history.last()).clone();
        after.insert(outer.to_vec(), value.clone());
        after.insert(inner.to_vec(), value.clone());
        self.commit(mode, after, |store| {
            in_transaction(store, mode, |tx| {
                tx.set(outer, &*value)?;
                let child = tx.begin()?;
                child.set(undone, &*value)?;
                child.delete(outer)?;
                drop(child);
                let child = tx.begin()?;
                child.set(inner, &*value)?;
                child.commit()
            })
        })
    }

    fn query_delete(&mut self, from: &[u8]) -> happystore::Result<()> {
        let mut after = (**self.history.last()).clone();
        let gone = after.split_off(from);
        if gone.is_empty() {
            return self.store().query().range(from..).delete().map(drop);
        }
        self.commit(Mode::Sync, after, |store| {
            store.query().range(from..).delete().map(drop)
        })
    }

    /// Bytes of the store's own segments, from a multiple of four.
    fn own_bytes(&self, from: usize, len_bytes: usize) -> Arc<[u8]> {
        let image = self.world.image_now();
        let mut all = Vec::new();
        for name in image.list("/s") {
            if name.strip_suffix(".seg").is_some() {
                let bytes = image.read(format!("/s/{name}")).unwrap_or_default();
                let end = bytes
                    .iter()
                    .rposition(|&byte| byte != 0)
                    .map_or(0, |last| last + 1);
                all.extend_from_slice(&bytes[..end.next_multiple_of(4).min(bytes.len())]);
            }
        }
        let from = if all.is_empty() {
            0
        } else {
            from % all.len() / 4 * 4
        };
        all[from..].iter().copied().take(len_bytes).collect()
    }
}

fn in_transaction(
    store: &Bytes,
    mode: Mode,
    body: impl FnOnce(&Transaction<'_, happystore::Raw, [u8]>) -> happystore::Result<()>,
) -> happystore::Result<()> {
    let tx = store.begin_with(&TxOptions::new().durability(mode.durability()))?;
    body(&tx)?;
    tx.commit()
}
