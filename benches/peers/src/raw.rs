//! The bound of durable sets: a small write into written space and an fdatasync, again and again.
//!
//! Nothing that is durable when it returns can be faster with one thread on the same disk. The
//! space is written and synced before, so that no sync has to put down a new length as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// About what a log takes for a key of 24 bytes, a value of 150 and a frame.
const RECORD_BYTES: usize = 210;
const SPACE_BYTES: usize = 16 << 20;

pub struct RawLoop {
    file: File,
    space: Vec<u8>,
    at: usize,
    /// Of a write and its sync, one for each.
    latencies_ns: Vec<u64>,
    taken: Duration,
}

impl RawLoop {
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let word = |number| crate::pairs::mix(number).to_le_bytes();
        let space: Vec<u8> = (0..SPACE_BYTES as u64 / 8).flat_map(word).collect();
        file.write_all_at(&space, 0)?;
        file.sync_all()?;
        Ok(Self {
            file,
            space,
            at: 0,
            latencies_ns: Vec::with_capacity(1 << 18),
            taken: Duration::ZERO,
        })
    }

    /// Writes and syncs for about this time.
    pub fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if self.at + RECORD_BYTES > SPACE_BYTES {
                self.at = 0;
            }
            let start = Instant::now();
            // Other bytes than those that are there.
            let record = &self.space[SPACE_BYTES - RECORD_BYTES - self.at..][..RECORD_BYTES];
            self.file.write_all_at(record, self.at as u64)?;
            self.file.sync_data()?;
            self.at += RECORD_BYTES;
            self.latencies_ns.push(start.elapsed().as_nanos() as u64);
        }
        self.taken += begun.elapsed();
        Ok(())
    }

    pub fn latencies_ns(&self) -> &[u64] {
        &self.latencies_ns
    }

    /// Syncs a second, of all the time it ran.
    pub fn rate(&self) -> f64 {
        self.latencies_ns.len() as f64 / self.taken.as_secs_f64()
    }
}
