//! What a store may hold when calls have failed: the oracle.
//!
//! The runner tells it of every commit, as it was answered; it judges what reads show, what a
//! reopening shows, and what a power cut leaves.
//!
//! Which losses are allowed:
//! 1. Reopening, whether the process closed, dropped the store or was killed, loses nothing that
//!    was acknowledged, in any durability, also after a failed sync: the simulated machine keeps
//!    what it could not write, as Linux does, and opening writes it over itself.
//! 2. A power cut may take commits in `Os` and `Deferred` that no later `Sync` commit, successful
//!    `sync`, background sync, close or opening has covered: the newest first, so that a prefix
//!    of all commits is left. A failed sync covers nothing, and takes nothing that one before it
//!    has covered.
//! 3. A commit that failed with an `Io` that may have changed something is there as a whole or not at all. It is not there if the
//!    store took another commit, a sync or a clean close afterwards: then it was not poisoned, and
//!    nothing of the failed commit may have counted.
//! 4. A commit that failed with anything else is not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::workload::Mode;

/// What a store holds.
pub(super) type Model = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// What somebody saw of a store: the keys that could be read, with what they had.
pub(super) type Seen = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// All that a store may hold.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// The states after each commit that was acknowledged, oldest first; before them, what the
    /// last opening showed.
    states: Vec<Arc<Model>>,
    /// The oldest state that a power cut may leave.
    durable: usize,
    /// The newest state that a commit in `Deferred` led to.
    deferred: usize,
    /// The state with the commit that failed last, as long as nobody knows what became of it.
    unknown: Option<Arc<Model>>,
    /// Whether this opening has shown that commit, or has shown that it is not there.
    shown: Option<bool>,
}

impl Expected {
    /// Nothing was ever committed.
    pub(super) fn nothing() -> Self {
        Self {
            states: vec![Arc::default()],
            durable: 0,
            deferred: 0,
            unknown: None,
            shown: None,
        }
    }

    /// The state without the commit that nobody knows of.
    pub(super) fn last(&self) -> &Arc<Model> {
        &self.states[self.states.len() - 1]
    }

    /// Whether it is certain what the store holds.
    pub(super) fn is_certain(&self) -> bool {
        self.unknown.is_none()
    }

    /// The store took a write, a sync or a clean close, so it was not poisoned.
    pub(super) fn goes_on(&mut self) -> Result<(), String> {
        self.unknown = None;
        match self.shown.take() {
            Some(true) => Err("a commit that failed was shown, and the store goes on".to_owned()),
            _ => Ok(()),
        }
    }

    /// A commit was acknowledged that makes the store hold `after`.
    pub(super) fn acknowledged(&mut self, after: Model, mode: Mode) -> Result<(), String> {
        self.goes_on()?;
        self.states.push(after.into());
        match mode {
            Mode::Sync => self.all_durable(),
            Mode::Deferred => self.deferred = self.states.len() - 1,
            Mode::Os => {}
        }
        Ok(())
    }

    /// The time of the deferred commits has come.
    pub(super) fn deferred_durable(&mut self) {
        self.durable = self.durable.max(self.deferred);
    }

    /// All that was acknowledged is durable.
    pub(super) fn all_durable(&mut self) {
        self.durable = self.states.len() - 1;
    }

    /// A commit failed in a way that leaves open what became of it.
    pub(super) fn failed(&mut self, after: Model) {
        self.unknown = Some(after.into());
        self.shown = None;
    }

    /// Judges what reads of the opening that is there showed, all at one moment.
    pub(super) fn shows(&mut self, seen: &Seen) -> Result<(), String> {
        let is_last = fits(self.last(), seen);
        let is_unknown = self.unknown.as_ref().is_some_and(|state| fits(state, seen));
        let is_right = match self.shown {
            None => is_last || is_unknown,
            Some(true) => is_unknown,
            Some(false) => is_last,
        };
        if !is_right {
            return Err(format!(
                "reads show neither all nor nothing of what was committed: {}",
                self.differences(seen)
            ));
        }
        if self.unknown.is_some() && is_last != is_unknown {
            self.shown = Some(is_unknown);
        }
        Ok(())
    }

    /// Judges what an opening showed; from then on that is durable.
    pub(super) fn reopened(&mut self, found: Model) -> Result<(), String> {
        let states = std::iter::once(self.last()).chain(&self.unknown);
        self.judge(states, &found, "reopening")?;
        *self = Self {
            states: vec![found.into()],
            ..Self::nothing()
        };
        Ok(())
    }

    /// Judges what an opening showed that only reads: what is published. It settles nothing of
    /// what nobody knows of, and makes nothing durable.
    pub(super) fn shown_to_reader(&self, found: &Model) -> Result<(), String> {
        let states = std::iter::once(self.last()).chain(&self.unknown);
        self.judge(states, found, "opening to read")
    }

    /// Judges what a power cut left.
    pub(super) fn left_by_cut(&self, found: &Model) -> Result<(), String> {
        let states = self.states[self.durable..].iter().chain(&self.unknown);
        self.judge(states, found, "a power cut")
    }

    fn judge<'a>(
        &self,
        mut allowed: impl Iterator<Item = &'a Arc<Model>>,
        found: &Model,
        what: &str,
    ) -> Result<(), String> {
        if allowed.any(|state| **state == *found) {
            return Ok(());
        }
        let older = self.states[..self.durable]
            .iter()
            .rposition(|state| **state == *found);
        let what = match older {
            Some(older) => format!(
                "{what} took {} acknowledged commits that were to stay",
                self.durable - older
            ),
            None => format!("{what} left what never was"),
        };
        let seen = found
            .iter()
            .map(|(key, value)| (key.clone(), Some(value.to_vec())));
        let mut seen: Seen = seen.collect();
        for key in self.last().keys() {
            seen.entry(key.clone()).or_insert(None);
        }
        Err(format!("{what}: {}", self.differences(&seen)))
    }

    /// Where `seen` is not the last state.
    fn differences(&self, seen: &Seen) -> String {
        let shown = |value: Option<&[u8]>| match value {
            Some(value) => format!(
                "{} bytes {:02x?}",
                value.len(),
                &value[..value.len().min(4)]
            ),
            None => "nothing".to_owned(),
        };
        let last = self.last();
        let differs = seen.iter().filter_map(|(key, value)| {
            let wanted = last.get(key).map(|value| &**value);
            let key = String::from_utf8_lossy(key);
            let (value, expected) = (shown(value.as_deref()), shown(wanted));
            (value != expected).then(|| format!("{key:?} has {value}, not {expected}"))
        });
        let differs: Vec<String> = differs.collect();
        format!("{}; unknown: {}", differs.join(", "), !self.is_certain())
    }
}

fn fits(state: &Model, seen: &Seen) -> bool {
    seen.iter()
        .all(|(key, value)| state.get(key).map(|value| &**value) == value.as_deref())
}
