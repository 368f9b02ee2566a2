//! The simulated world's only source of chance: a small generator that a seed decides fully.
//!
//! Everything random in this folder draws from here, so that a seed repeats a run.
//!
//! Invariants:
//! 1. No clock and no randomness of the operating system.
//!
//! Threads: a generator belongs to whoever owns it.

/// A `SplitMix64` generator.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that `seed` decides fully.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator of one of many independent streams under the same seed.
    pub fn stream(seed: u64, stream: u64) -> Self {
        Self::new(mix(seed ^ mix(stream.wrapping_add(1))))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number from 0 up to, not including, `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits().checked_rem(bound).unwrap_or(0)
    }

    /// An index into something of `count` elements; 0 if it is empty.
    pub fn index(&mut self, count: usize) -> usize {
        let index = self.below(count as u64);
        usize::try_from(index).unwrap_or(0)
    }

    /// True half the time.
    pub fn coin(&mut self) -> bool {
        self.bits() & 1 == 1
    }
}

/// Spreads every bit of `value` over all 64.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
