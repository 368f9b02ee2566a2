//! Stopping a machine everywhere, and looking at what is left.
//!
//! [`Explorer::explore`] goes through the crash points and the kill points of a run. A share of
//! the machines that start from what was left is stopped again, some a third time.
//!
//! Invariants:
//! 1. Seed and run decide everything that is tried.

use happystore::vfs::sim::{
    CrashPoint, EXHAUSTIVE_UNIT_COUNT_MAX, Image, Journal, Operation, OrderRules, Random, World,
};

use super::oracle::{Bounds, History, Setup, check, rules};
use super::workload::{Op, Run, run};

/// How many images to sample where not all subsets of the pending changes are tried.
const SAMPLES: usize = 12;

/// How often crashes follow each other at most.
const DEPTH_MAX: u32 = 3;

/// How much of a run to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// At how many power-cut positions at most, spread over the run.
    pub(crate) points: usize,
    /// How many images of each at most, spread over all.
    pub(crate) images: usize,
    /// At how many positions the processes are killed, at most.
    pub(crate) kills: usize,
}

impl Effort {
    /// Everything there is.
    pub(crate) const ALL: Self = Self {
        points: usize::MAX,
        images: usize::MAX,
        kills: usize::MAX,
    };
}

/// How many states were looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// After a first power cut.
    pub(crate) cuts: u64,
    /// After a first kill.
    pub(crate) kills: u64,
    /// After a second power cut or one that followed a kill.
    pub(crate) doubles: u64,
    /// After a third crash.
    pub(crate) triples: u64,
}

impl Tally {
    /// All states.
    pub(crate) fn states(&self) -> u64 {
        self.cuts + self.kills + self.doubles + self.triples
    }

    /// States after more than one crash.
    pub(crate) fn repeated(&self) -> u64 {
        self.doubles + self.triples
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.doubles += other.doubles;
        self.triples += other.triples;
    }
}

/// Looks at crash states, and counts them.
pub(crate) struct Explorer {
    pub(crate) tally: Tally,
    /// Whether an order that is broken is a failure.
    pub(crate) look_at_order: bool,
    random: Random,
    rules: OrderRules,
}

impl Explorer {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            tally: Tally::default(),
            look_at_order: true,
            random: Random::new(seed),
            rules: rules(),
        }
    }

    /// Runs `ops` and checks the order of what they did.
    pub(crate) fn run(&self, setup: Setup, ops: &[Op]) -> Result<Run, String> {
        let run = run(setup, ops)?;
        self.check_order(&run.journal)?;
        Ok(run)
    }

    /// Refuses a journal in which an order was broken.
    pub(crate) fn check_order(&self, journal: &Journal) -> Result<(), String> {
        if !self.look_at_order {
            return Ok(());
        }
        match journal.violations(&self.rules).first() {
            None => Ok(()),
            Some(violation) => Err(format!("order: {violation}")),
        }
    }

    /// Stops the machine of `run` everywhere from `begin` on that `effort` allows.
    pub(crate) fn explore(
        &mut self,
        run: &Run,
        begin: usize,
        effort: Effort,
    ) -> Result<(), String> {
        let bounds = Bounds::default();
        let count = run.journal.operations().len() + 1 - begin;
        let seed = self.random.bits();
        let stride = count.div_ceil(effort.points.max(1));
        let phase = self.random.index(stride);
        let points = run
            .journal
            .crash_points(SAMPLES, seed)
            .skip_while(|at| at.position < begin);
        for point in points.skip(phase).step_by(stride) {
            self.cut(run, &point, bounds, effort.images)?;
        }
        let stride = count.div_ceil(effort.kills.max(1));
        let phase = self.random.index(stride);
        let points = run.journal.kill_points(SAMPLES, seed).skip(begin + phase);
        for point in points.step_by(stride).take(effort.kills) {
            let random = self.random.bits();
            self.kill(run, &point, random)
                .map_err(|error| format!("killed after {} operations: {error}", point.position))?;
        }
        Ok(())
    }

    /// Cuts the power at `point`.
    fn cut(
        &mut self,
        run: &Run,
        point: &CrashPoint,
        bounds: Bounds,
        images: usize,
    ) -> Result<(), String> {
        let stride = image_count(point, EXHAUSTIVE_UNIT_COUNT_MAX).div_ceil(images.max(1));
        let phase = self.random.index(stride);
        for (number, image) in point.images().skip(phase).step_by(stride).enumerate() {
            self.tally.cuts += 1;
            self.state(run.setup, &run.history, image, bounds.cut(point), 1)
                .map_err(|error| {
                    let position = point.position;
                    format!("cut after {position} operations, image {number}: {error}")
                })?;
        }
        Ok(())
    }

    /// Starts a machine from what a power cut left; cuts its power too, sometimes.
    fn state(
        &mut self,
        setup: Setup,
        history: &History,
        image: Image,
        bounds: Bounds,
        depth: u32,
    ) -> Result<(), String> {
        let mut random = Random::new(self.random.bits());
        let world = setup.prepare(World::from_image(image, random.bits()));
        let mut history = history.clone();
        check(&world, setup, bounds, &mut history, &mut random)?;
        let journal = world.journal();
        self.check_order(&journal)?;
        if depth < DEPTH_MAX && random.below(if depth == 1 { 3 } else { 5 }) == 0 {
            self.again(setup, &history, &journal, 0, bounds, depth)?;
        }
        Ok(())
    }

    /// Kills all processes at `point`; the power stays, for now.
    fn kill(&mut self, run: &Run, point: &CrashPoint, seed: u64) -> Result<(), String> {
        self.tally.kills += 1;
        let mut random = Random::new(seed);
        let world = run.setup.prepare(point.kill(random.bits()));
        let mut history = run.history.clone();
        let bounds = Bounds::default();
        check(
            &world,
            run.setup,
            bounds.killed(point),
            &mut history,
            &mut random,
        )?;
        let journal = world.journal();
        self.check_order(&journal)?;
        self.again(run.setup, &history, &journal, point.position, bounds, 1)
    }

    /// A place among `operations` where a power cut may hurt: early, while the store is being
    /// recovered; behind a write; anywhere.
    fn aim(&mut self, operations: &[Operation]) -> usize {
        let count = operations.len();
        match self.random.below(4) {
            0 => self.random.index(count.min(24) + 1),
            1 | 2 => {
                let is_write = |at: &usize| matches!(operations[*at], Operation::Write { .. });
                let writes: Vec<usize> = (0..count).filter(is_write).collect();
                writes
                    .get(self.random.index(writes.len()))
                    .map_or(count, |at| at + 1)
            }
            _ => self.random.index(count + 1),
        }
    }

    /// Cuts the power somewhere behind `begin`.
    fn again(
        &mut self,
        setup: Setup,
        history: &History,
        journal: &Journal,
        begin: usize,
        bounds: Bounds,
        depth: u32,
    ) -> Result<(), String> {
        let target = begin + self.aim(&journal.operations()[begin..]);
        let mut points = journal.crash_points(SAMPLES, self.random.bits());
        let Some(point) = points.find(|point| point.position >= target) else {
            return Ok(());
        };
        let wanted = self.random.index(image_count(&point, 5));
        let mut image = None;
        for (number, each) in point.images().enumerate() {
            image = Some(each);
            if number == wanted {
                break;
            }
        }
        let Some(image) = image else { return Ok(()) };
        if depth == 1 {
            self.tally.doubles += 1;
        } else {
            self.tally.triples += 1;
        }
        self.state(setup, history, image, bounds.cut(&point), depth + 1)
            .map_err(|error| format!("then cut after {} operations: {error}", point.position))
    }
}

/// About how many images `point` has, as if it had no more than `most` pending units.
fn image_count(point: &CrashPoint, most: usize) -> usize {
    (1 << point.pending_unit_count().min(most)) + SAMPLES
}
