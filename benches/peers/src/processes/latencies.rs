//! How long operations took, counted in classes that are less than a hundredth wide.
//!
//! A process makes millions of them: kept one by one, they would touch fresh memory while it is
//! measured.

use crate::figures::Figures;

/// Bits of a float's mantissa that no class looks at.
const BITS_LEFT_OUT: u32 = 16;

pub struct Latencies {
    /// By the first bits of the nanoseconds as a float.
    counts: Vec<u64>,
    max_ns: u64,
}

/// In the name of a line between processes: a class and its count.
const CLASS: &str = "class ";
const MAX: &str = "max";

impl Latencies {
    pub fn new() -> Self {
        let counts = vec![1; (f32::INFINITY.to_bits() >> BITS_LEFT_OUT) as usize];
        // Ones, and then none: so that the memory is there before anything is measured.
        let counts = counts.into_iter().map(|one: u64| one - 1).collect();
        Self { counts, max_ns: 0 }
    }

    pub fn add(&mut self, ns: u64) {
        self.counts[class(ns)] += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Puts them among what a process tells.
    pub fn tell(&self, figures: &mut Figures) {
        for (class, count) in self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            figures.add(&format!("{CLASS}{class}"), *count as f64);
        }
        figures.add(MAX, self.max_ns as f64);
    }

    /// Adds what a process has told.
    pub fn add_lines(&mut self, figures: &Figures) {
        for (name, count) in &figures.rows {
            let class = name.strip_prefix(CLASS).map(str::parse::<usize>);
            if let Some(Ok(class)) = class {
                self.counts[class] += *count as u64;
            }
        }
        self.max_ns = self.max_ns.max(figures.get(MAX).unwrap_or(0.0) as u64);
    }

    /// What at least this part of them did not exceed, in seconds.
    pub fn seconds(&self, part: f64) -> f64 {
        let all: u64 = self.counts.iter().sum();
        let rank = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        let class = class.unwrap_or(0) as u32;
        let most_ns = f64::from(f32::from_bits((class + 1) << BITS_LEFT_OUT));
        most_ns.min(self.max_ns as f64) / 1e9
    }
}

fn class(ns: u64) -> usize {
    ((ns as f32).to_bits() >> BITS_LEFT_OUT) as usize
}
