//! The policy of compaction.

use super::invalid;
use crate::error::Result;

/// When segments are rewritten to free the space of dead bytes.
///
/// With [`Compaction::automatic`], the default, segments of which nothing lives go, and those that are
/// half dead are rewritten, a few at a time: in steady state a store takes at most twice the bytes of
/// what lives in it ([`Stats::live_bytes`](crate::Stats::live_bytes)), hints included, and two segments.
/// (Where hints take more than half of what lives, because values are short: half as much again as a
/// store that was just compacted.) It also writes hints of finished segments, which make opening fast,
/// and leaves a segment and a mebibyte of the disk's free space to commits. One of all processes compacts
/// at a time, in a thread of its own; [`Stats::compaction`](crate::Stats::compaction) says how it is.
///
/// A store whose policy is [`Compaction::manual`] in all processes grows until somebody calls
/// [`Store::compact`](crate::Store::compact).
#[derive(Debug, Clone, PartialEq)]
pub struct Compaction {
    pub(crate) automatic: bool,
    pub(crate) dead_ratio: f64,
    pub(crate) dead_bytes: u64,
    pub(crate) rate_limit_bytes: Option<u64>,
}

impl Compaction {
    /// In the background, once half of a segment is dead.
    pub fn automatic() -> Self {
        Self {
            automatic: true,
            dead_ratio: 0.5,
            dead_bytes: 1 << 20,
            rate_limit_bytes: None,
        }
    }

    /// Never by itself.
    pub fn manual() -> Self {
        Self {
            automatic: false,
            ..Self::automatic()
        }
    }

    /// The share of dead bytes from which a segment is worth rewriting, above 0 and at most 1.
    #[must_use]
    pub fn dead_ratio(mut self, ratio: f64) -> Self {
        self.dead_ratio = ratio;
        self
    }

    /// How many dead bytes there must be before anything is rewritten.
    #[must_use]
    pub fn dead_bytes(mut self, bytes: u64) -> Self {
        self.dead_bytes = bytes;
        self
    }

    /// The most bytes a second that are rewritten, or read to write hints; above zero.
    #[must_use]
    pub fn rate_limit_bytes(mut self, bytes_a_second: u64) -> Self {
        self.rate_limit_bytes = Some(bytes_a_second);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(self.dead_ratio > 0.0 && self.dead_ratio <= 1.0) {
            let value = self.dead_ratio.to_string();
            return Err(invalid(
                "compaction.dead_ratio",
                value,
                "above 0 and at most 1",
            ));
        }
        if self.rate_limit_bytes == Some(0) {
            return Err(invalid(
                "compaction.rate_limit_bytes",
                "0".into(),
                "above 0",
            ));
        }
        Ok(())
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self::automatic()
    }
}
