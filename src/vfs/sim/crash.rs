//! Crash states: the disks that a power cut may leave at each point of a journal.
//!
//! Tests of the store come in through [`Journal::crash_points`]; an image goes on into a
//! [`World`], on which a store is opened.
//!
//! Invariants:
//! 1. With up to [`EXHAUSTIVE_UNIT_COUNT_MAX`] pending units, every subset of them is among the
//!    images; above, nothing and everything are, and a sample of what lies between.
//! 2. Torn writes are sampled besides, by bytes and by sectors.
//! 3. The images of a point differ from each other, and follow from journal, position and seed.
//!
//! Threads: plain values.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::World;
use super::disk::Image;
use super::journal::{Journal, Operation};
use super::pending::{CrashState, Keep, Unit, whole_if};
use super::random::Random;

/// Up to how many pending units all subsets are tried.
pub const EXHAUSTIVE_UNIT_COUNT_MAX: usize = 10;

/// How many images to sample where nothing speaks for another number.
pub const SAMPLE_COUNT_DEFAULT: usize = 64;

/// How many torn images to sample for each pending write, up to the number of samples.
const TORN_PER_WRITE_COUNT: usize = 8;

/// A moment at which the power may fail or the processes be killed.
#[derive(Debug, Clone)]
pub struct CrashPoint {
    /// How many operations were done.
    pub position: usize,
    /// The highest commit begun.
    pub last_begin: Option<u64>,
    /// The highest commit acknowledged: what a killed process must leave.
    pub last_ack: Option<u64>,
    /// The highest commit acknowledged as durable: what a power cut must leave.
    pub last_durable_ack: Option<u64>,
    samples: usize,
    seed: u64,
    state: Arc<CrashState>,
    journal: Journal,
}

impl CrashPoint {
    fn first(journal: &Journal, samples: usize, seed: u64) -> Self {
        Self {
            position: 0,
            last_begin: None,
            last_ack: None,
            last_durable_ack: None,
            samples,
            seed,
            state: Arc::new(CrashState::new(journal.base())),
            journal: journal.clone(),
        }
    }

    /// The point after all operations.
    pub(super) fn last(journal: &Journal, samples: usize, seed: u64) -> Self {
        let mut point = Self::first(journal, samples, seed);
        while point.step() {}
        point
    }

    /// Goes one operation further; false at the end.
    fn step(&mut self) -> bool {
        let Some(operation) = self.journal.operations().get(self.position) else {
            return false;
        };
        match *operation {
            Operation::Begin(mark) => self.last_begin = self.last_begin.max(Some(mark)),
            Operation::Acknowledge { mark, durable } => {
                self.last_ack = self.last_ack.max(Some(mark));
                if durable {
                    self.last_durable_ack = self.last_durable_ack.max(Some(mark));
                }
            }
            _ => Arc::make_mut(&mut self.state).step(operation),
        }
        self.position += 1;
        true
    }

    /// Whether a neighbour's power cut says all that this one's would.
    fn says_nothing_new(&self) -> bool {
        let operations = self.journal.operations();
        let before = self
            .position
            .checked_sub(1)
            .map(|position| &operations[position]);
        matches!(
            before,
            Some(Operation::Begin(_) | Operation::PageStore { .. })
        ) || matches!(
            operations.get(self.position),
            Some(Operation::Acknowledge { .. })
        )
    }

    /// The operation that was done last.
    pub fn last_operation(&self) -> Option<&Operation> {
        self.journal.operations().get(self.position.checked_sub(1)?)
    }

    /// How many changes a power cut may take back, each on its own.
    pub fn pending_unit_count(&self) -> usize {
        let data: usize = self.state.data_units().map(<[Unit]>::len).sum();
        data + self.state.name_counts().sum::<usize>()
    }

    /// The disks that a power cut may leave, the one without any pending unit first.
    pub fn images(&self) -> Images<'_> {
        let units = self.pending_unit_count();
        let writes = self.state.data_units().flatten();
        let writes = writes
            .filter(|unit| matches!(unit, Unit::Write { .. }))
            .count();
        let exhaustive = units <= EXHAUSTIVE_UNIT_COUNT_MAX;
        Images {
            state: &self.state,
            random: Random::stream(self.seed, self.position as u64),
            seen: BTreeSet::new(),
            selection: vec![Keep::Lost; units],
            subsets: if exhaustive { 1 << units } else { 2 },
            exhaustive,
            samples: if exhaustive {
                self.samples.min(writes * TORN_PER_WRITE_COUNT)
            } else {
                self.samples.saturating_sub(2)
            },
            next: 0,
        }
    }

    /// The disks without and with all that is pending, and by chance others between, up to `count`
    /// in all: for tests that cut the power often, and look at little each time.
    pub fn few_images(&self, count: usize) -> Images<'_> {
        let few = count.saturating_sub(2);
        Images {
            subsets: 2,
            exhaustive: false,
            samples: few,
            ..self.images()
        }
    }

    /// The disk as processes started later see it if all die here and the power stays.
    pub fn killed_image(&self) -> Image {
        let mut image = self.state.cached.clone();
        image.drop_unnamed();
        image
    }

    /// The world after the death of all processes here. Unlike a world made of
    /// [`CrashPoint::killed_image`], it knows what is still pending, and its journal goes on.
    pub fn kill(&self, seed: u64) -> World {
        World::resume(
            self.journal.prefix(self.position),
            self.killed_image(),
            seed,
        )
    }
}

/// Walks through a journal's crash points. Cheapest where each point is dropped before the next
/// one is asked for.
#[derive(Debug)]
pub struct CrashPoints {
    point: CrashPoint,
    has_begun: bool,
    every_position: bool,
}

impl CrashPoints {
    pub(super) fn new(journal: &Journal, samples: usize, seed: u64, every_position: bool) -> Self {
        let point = CrashPoint::first(journal, samples, seed);
        Self {
            point,
            has_begun: false,
            every_position,
        }
    }
}

impl Iterator for CrashPoints {
    type Item = CrashPoint;

    fn next(&mut self) -> Option<CrashPoint> {
        loop {
            if std::mem::replace(&mut self.has_begun, true) && !self.point.step() {
                return None;
            }
            if self.every_position || !self.point.says_nothing_new() {
                return Some(self.point.clone());
            }
        }
    }
}

/// The images of one [`CrashPoint`].
#[derive(Debug)]
pub struct Images<'point> {
    state: &'point CrashState,
    random: Random,
    seen: BTreeSet<u64>,
    selection: Vec<Keep>,
    subsets: usize,
    exhaustive: bool,
    samples: usize,
    next: usize,
}

impl Iterator for Images<'_> {
    type Item = Image;

    fn next(&mut self) -> Option<Image> {
        while self.next < self.subsets + self.samples {
            let number = self.next;
            self.next += 1;
            if number < self.subsets {
                let mask = if self.exhaustive {
                    number
                } else {
                    number.wrapping_neg()
                };
                for (unit, keep) in self.selection.iter_mut().enumerate() {
                    let kept = if self.exhaustive {
                        mask >> unit & 1 == 1
                    } else {
                        mask != 0
                    };
                    *keep = if kept { Keep::Whole } else { Keep::Lost };
                }
            } else {
                self.sample();
            }
            let (image, hash) = self.state.image(&self.selection, &mut self.random);
            if self.seen.insert(hash) {
                return Some(image);
            }
        }
        None
    }
}

impl Images<'_> {
    /// Fills the selection by chance: each file and each directory fares in its own way.
    fn sample(&mut self) {
        let mut rest = &mut self.selection[..];
        for units in self.state.data_units() {
            let (keep, after) = rest.split_at_mut(units.len());
            rest = after;
            sample_file(keep, units, self.exhaustive, &mut self.random);
        }
        for count in self.state.name_counts() {
            let (keep, after) = rest.split_at_mut(count);
            rest = after;
            sample_names(keep, &mut self.random);
        }
    }
}

/// What is left of one file; mostly torn writes if whole units are tried elsewhere.
fn sample_file(keep: &mut [Keep], units: &[Unit], torn: bool, random: &mut Random) {
    let way = if torn {
        random.below(7)
    } else {
        random.below(5)
    };
    let cut = random.index(keep.len());
    let size_apart = random.below(3) == 0;
    for (number, (keep, unit)) in keep.iter_mut().zip(units).enumerate() {
        let bytes = match unit {
            Unit::Write { bytes, .. } => bytes.len(),
            Unit::Size(_) => 0,
        };
        *keep = match way {
            0 => Keep::Lost,
            1 => Keep::Whole,
            2 => whole_if(random.coin()),
            3 | 5 if number == cut => Keep::Prefix(random.index(bytes)),
            3 | 5 => whole_if(number < cut),
            _ => Keep::Sectors(random.bits()),
        };
        if bytes == 0 && (size_apart || !matches!(keep, Keep::Lost | Keep::Whole)) {
            *keep = whole_if(random.coin());
        }
    }
}

/// What is left of one directory's changes.
fn sample_names(keep: &mut [Keep], random: &mut Random) {
    let way = random.below(4);
    let cut = random.index(keep.len() + 1);
    for (number, keep) in keep.iter_mut().enumerate() {
        *keep = match way {
            0 => Keep::Lost,
            1 => Keep::Whole,
            2 => whole_if(number < cut),
            _ => whole_if(random.coin()),
        };
    }
}
