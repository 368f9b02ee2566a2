//! Pins: which sequence numbers somebody reads at.
//!
//! A reader of more than one key pins the sequence number it reads at, so that pruning keeps
//! what it sees. Taking a pin and working out the [`Horizon`] exclude each other: a new pin is
//! at or above what was visible when the last horizon was worked out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Engine, Opening};
use crate::error::Result;
use crate::index::Horizon;

/// The pinned sequence numbers, each with how many pins it has.
#[derive(Default)]
pub(super) struct Pins {
    counts: Mutex<BTreeMap<u64, usize>>,
}

impl Pins {
    /// What somebody reads at, now or later.
    pub(super) fn horizon(&self, visible: &AtomicU64) -> Horizon {
        let counts = self.lock();
        let visible = visible.load(Ordering::Acquire);
        Horizon {
            visible,
            pinned: counts.keys().copied().collect(),
        }
    }

    /// How many pins there are.
    pub(super) fn count(&self) -> usize {
        self.lock().values().sum()
    }

    fn add(&self, visible: &AtomicU64, at: Option<u64>) -> u64 {
        let mut counts = self.lock();
        let sequence = at.unwrap_or_else(|| visible.load(Ordering::Acquire));
        *counts.entry(sequence).or_default() += 1;
        sequence
    }

    /// True if nobody reads at `sequence` any more.
    fn remove(&self, sequence: u64) -> bool {
        let mut counts = self.lock();
        let Some(count) = counts.get_mut(&sequence) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            counts.remove(&sequence);
        }
        last
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sequence number to read at; what it sees is kept until it is dropped.
pub(crate) struct Pin {
    pub(crate) opening: Arc<Opening>,
    pub(crate) sequence: u64,
}

impl Pin {
    /// Pins what is visible now.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub(crate) fn new(opening: &Arc<Opening>) -> Result<Self> {
        Self::add(opening, None)
    }

    /// Pins `sequence`, up to which the caller, who holds the writer lock, sees.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub(crate) fn at(opening: &Arc<Opening>, sequence: u64) -> Result<Self> {
        Self::add(opening, Some(sequence))
    }

    fn add(opening: &Arc<Opening>, at: Option<u64>) -> Result<Self> {
        opening.check_open()?;
        let engine = &opening.engine;
        engine.check_open()?;
        if at.is_none() {
            engine.catch_up()?;
        }
        let sequence = engine.pins.add(engine.log.visible(), at);
        Ok(Self {
            opening: opening.clone(),
            sequence,
        })
    }

    /// The engine to read from.
    pub(crate) fn engine(&self) -> &Engine {
        &self.opening.engine
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let engine = &self.opening.engine;
        if engine.is_forked() {
            return;
        }
        if engine.pins.remove(self.sequence) {
            engine.index.prune(&engine.horizon(), 0);
        }
    }
}
