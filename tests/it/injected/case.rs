//! One case: a workload, what was there before it, and a fault at one of its calls.
//!
//! [`Case::run`] injects the fault, heals, goes on, ends the process in one of several ways, opens
//! again, and cuts the power here and there.
//!
//! Invariants:
//! 1. Workload, call, fault and seed decide everything that is tried.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use happystore::Access;
use happystore::vfs::sim::{Call, CrashPoint, Fault, FaultEffect, Plant, Random, World};

use super::expected::{Expected, Model};
use super::faults::Errno;
use super::runner::{Runner, open};
use super::workload::{Before, KEYS, Mode, Op, Workload};

/// How many calls and looks at the clock there may be in one run; the longest needs a tenth.
const PATIENCE: u64 = 20_000;

/// One power cut in so many is tried.
const CUT_SHARE: u64 = 8;

/// How many images a power cut is tried with.
const IMAGES: usize = 3;

/// How far into a reopening a second fault comes.
const SECOND_CALL_MAX: u64 = 24;

/// What was there before a workload.
pub(super) struct Base {
    point: CrashPoint,
    expected: Expected,
    exists: bool,
}

impl Base {
    /// Runs what is to come before.
    pub(super) fn new(workload: &Workload) -> Result<Self, String> {
        let world = World::new(1);
        world.set_patience(Some(PATIENCE));
        let expected = Expected::nothing();
        let runner = Runner::new(world, workload.segment_bytes, expected, false);
        guarded(runner, |runner| Self::run_before(workload, runner))
    }

    fn run_before(workload: &Workload, runner: &mut Runner) -> Result<Self, String> {
        let world = runner.world.clone();
        let (ops, fault, is_closed) = match &workload.before {
            Before::Nothing => (&[][..], None, false),
            Before::Killed(ops, fault) => (&ops[..], *fault, false),
            Before::Closed(ops) => (&ops[..], None, true),
        };
        if let Some((nth, fault)) = fault {
            world.fail_call(nth, fault);
        }
        for op in ops {
            runner.step(*op)?;
        }
        world.heal();
        if is_closed {
            runner.step(Op::Close)?;
        }
        runner.kill();
        Ok(Self {
            point: world.journal().last_point(0, 1),
            expected: runner.expected.clone(),
            exists: runner.exists(),
        })
    }

    /// A world in which that was there, with patience.
    pub(super) fn begin(&self, segment_bytes: u64, seed: u64) -> Runner {
        let world = self.point.kill(seed);
        world.set_patience(Some(PATIENCE));
        let expected = self.expected.clone();
        Runner::new(world, segment_bytes, expected, self.exists)
    }
}

/// A fault that is injected into a workload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) nth: u64,
    pub(super) errno: Errno,
    pub(super) fault: Fault,
    /// Decides what goes on after the fault.
    pub(super) seed: u64,
    pub(super) plant: Option<Plant>,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// The kind of the call that failed in the workload; of several, any.
    pub(super) first: Option<Call>,
    /// How many calls of each kind failed.
    pub(super) fired: BTreeMap<Call, u64>,
    /// How many disks that a power cut left were looked at.
    pub(super) cuts: u64,
    /// How many calls there were.
    pub(super) calls: u64,
}

impl Case {
    /// Runs the case; the error says what broke.
    pub(super) fn run(&self, workload: &Workload, base: &Base) -> Result<Done, String> {
        let mut at = "before the workload".to_owned();
        let runner = base.begin(workload.segment_bytes, self.seed);
        let done = guarded(runner, |runner| self.run_at(workload, runner, &mut at));
        done.map_err(|broken| {
            format!(
                "{}, call {}, {:?}, {:?}, seed {}: {at}: {broken}\n{workload:?}",
                workload.name, self.nth, self.errno, self.fault, self.seed
            )
        })
    }

    fn run_at(
        &self,
        workload: &Workload,
        runner: &mut Runner,
        at: &mut String,
    ) -> Result<Done, String> {
        let world = runner.world.clone();
        if let Some(plant) = self.plant {
            world.plant(plant);
            runner.looks_at_syncs = false;
        }
        runner.is_full = self.errno.is_full();
        world.fail_call(self.nth, self.fault);
        for (number, op) in workload.ops.iter().enumerate() {
            *at = format!("operation {number}, {op:?}");
            runner.step(*op)?;
            runner.glance()?;
        }
        world.heal();
        let first = world.faults_by_call().keys().next().copied();
        let mut after = After::new(self.seed);
        "cut before it is healed".clone_into(at);
        after.cut(runner)?;
        "healed".clone_into(at);
        after.go_on(runner)?;
        "cut".clone_into(at);
        after.cut(runner)?;
        "at the end".clone_into(at);
        after.end(runner)?;
        "opened again".clone_into(at);
        after.open_again(runner)?;
        "opened again and cut".clone_into(at);
        after.cut(runner)?;
        "closed at last".clone_into(at);
        runner.step(Op::Close)?;
        after.cut(runner)?;
        Ok(Done {
            first,
            fired: world.faults_by_call(),
            cuts: after.cuts,
            calls: world.calls(),
        })
    }
}

/// Runs `body`; a panic is an error too.
pub(super) fn guarded<T>(
    mut runner: Runner,
    body: impl FnOnce(&mut Runner) -> Result<T, String>,
) -> Result<T, String> {
    let run = AssertUnwindSafe(|| {
        let done = body(&mut runner)?;
        runner.kill();
        Ok(done)
    });
    let done = catch_unwind(run)
        .unwrap_or_else(|panic| Err(format!("a panic: {}", words_of(panic.as_ref()))));
    if done.is_err() {
        // A store that is broken might not come to an end of its closing.
        std::mem::forget(runner);
    }
    done
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without words".to_owned())
}

/// What comes when the fault is over.
pub(super) struct After {
    random: Random,
    cuts: u64,
}

impl After {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            cuts: 0,
        }
    }

    /// Reads everything and does three operations more, with what a background sync does.
    pub(super) fn go_on(&mut self, runner: &mut Runner) -> Result<(), String> {
        let Some(store) = runner.opened()? else {
            return Err("it does not open when all is well".to_owned());
        };
        runner.look(&store, true)?;
        drop(store);
        for _ in 0..3 {
            let key = self.random.index(KEYS.len());
            let mode = Mode::ALL[self.random.index(3)];
            let len_bytes = [0, 20, 90, 700][self.random.index(4)];
            let op = match self.random.below(4) {
                0 => Op::Delete { key, mode },
                _ => Op::Set {
                    key,
                    len_bytes,
                    mode,
                },
            };
            runner.step(op)?;
        }
        if self.random.coin() {
            runner.step(Op::Background)?;
        }
        match runner.opened()? {
            Some(store) => runner.look(&store, true),
            None => Err("it is not open any more".to_owned()),
        }
    }

    /// Ends the process, or this opening of its.
    pub(super) fn end(&mut self, runner: &mut Runner) -> Result<(), String> {
        match self.random.below(4) {
            0 => runner.step(Op::Close)?,
            1 => runner.store = None,
            2 => runner.step(Op::Kill)?,
            _ => {
                // A second fault, while it closes or is opened.
                let effects = [FaultEffect::Clean, FaultEffect::Done, FaultEffect::Half];
                let effect = effects[self.random.index(3)];
                let mut fault = Fault::once(effect, std::io::ErrorKind::Other);
                fault.lasting = self.random.coin();
                let nth = 1 + self.random.below(SECOND_CALL_MAX);
                let op = [Op::Close, Op::Kill][self.random.index(2)];
                runner.is_full = false;
                runner.world.fail_call(nth, fault);
                runner.step(op)?;
                runner.step(Op::Look)?;
                runner.world.heal();
                runner.step(Op::Kill)?;
            }
        }
        Ok(())
    }

    pub(super) fn open_again(&mut self, runner: &mut Runner) -> Result<(), String> {
        runner.step(Op::Open)?;
        runner.step(Op::Look)?;
        let (key, mode) = (self.random.index(KEYS.len()), Mode::Sync);
        runner.step(Op::Set {
            key,
            len_bytes: 30,
            mode,
        })?;
        runner.step(Op::Look)
    }

    /// Cuts the power, sometimes, and looks at some of the disks that may be left.
    pub(super) fn cut(&mut self, runner: &Runner) -> Result<(), String> {
        if self.random.below(CUT_SHARE) != 0 {
            return Ok(());
        }
        let point = runner.world.journal().last_point(0, self.random.bits());
        for image in point.few_images(IMAGES) {
            self.cuts += 1;
            let world = World::from_image(image, 1);
            let process = world.process();
            let store = open(&process, runner.segment_bytes, Access::Shared)
                .map_err(|error| format!("after a power cut, opening said {error:?}"))?;
            let pairs = store.query().pairs::<Vec<u8>>();
            let pairs = pairs.map_err(|error| format!("after a power cut: {error:?}"))?;
            let found: Model = pairs
                .into_iter()
                .map(|(key, value)| (key, value.into()))
                .collect();
            runner.expected.left_by_cut(&found)?;
            world.kill(&process);
        }
        Ok(())
    }
}

impl Runner {
    /// Reads every key, if anything has failed.
    pub(super) fn glance(&mut self) -> Result<(), String> {
        let has_failed = self.world.faults_fired() > 0 || self.full_count > 0;
        if !has_failed || !self.is_resolved() {
            return Ok(());
        }
        match self.store.clone() {
            Some(store) => self.look(&store, false),
            None => Ok(()),
        }
    }
}
