//! A machine that exists only in memory, whose power can be cut at any moment.
//!
//! Tests come in through [`World`]: its processes run the store as the operating system's would,
//! and all that changes its disk goes into a [`Journal`]. From a journal come crash states
//! ([`Journal::crash_points`]), each an [`Image`] on which a new world starts, and a list of
//! broken orders ([`Journal::violations`]).
//!
//! | room | what it is for |
//! |---|---|
//! | `process`, `file`, `background` | the vfs traits, as one process sees them |
//! | `machine` | the machine's state, behind the world's mutex |
//! | `disk`, `content` | names and bytes, shared between images |
//! | `journal`, `order` | what happened, and whether in the right order |
//! | `crash`, `pending` | what a power cut leaves |
//! | `call`, `fault`, `random` | planned failures, planted bugs, chance |
//! | `turns` | a schedule: clients on threads of their own, one at a time |
//!
//! Invariants:
//! 1. Nothing here asks the machine it runs on for anything: same calls and seed, same world.
//! 2. The world's mutex is held over no code of the store: steps and a [`Schedule`] run without.
//!
//! Threads and processes: any thread may call; the world itself makes none, and nothing in it
//! happens by itself. Clients that should run in turns share a [`Schedule`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Locality, Vfs};

mod background;
mod call;
mod content;
mod crash;
mod disk;
mod fault;
mod file;
mod journal;
mod machine;
mod order;
mod pending;
mod process;
mod random;
#[cfg(test)]
mod tests;
mod turns;

pub use call::Call;
pub use crash::{CrashPoint, CrashPoints, EXHAUSTIVE_UNIT_COUNT_MAX, Images, SAMPLE_COUNT_DEFAULT};
pub use disk::Image;
pub use fault::{Fault, FaultEffect, FaultError, FaultScope, Plant};
pub use journal::{Journal, Operation};
pub use order::{IsOfLog, Lists, OrderRules, Rule, SegmentNumber, Violation};
pub use random::Random;
pub use turns::{Pauses, Style, Turns};

use fault::FaultEffect::KillHalf;
use machine::Machine;
use process::Process;

/// The number of the next process's view, unique among all worlds of the program.
static NEXT_MACHINE: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static UNSEEDED_CHECKSUMS: Cell<bool> = const { Cell::new(false) };
}

/// Plants a bug above this door, for the calling thread: all checksums start from one seed.
pub fn plant_unseeded_checksums(planted: bool) {
    UNSEEDED_CHECKSUMS.set(planted);
}

/// Whether [`plant_unseeded_checksums`] is in force on the calling thread.
pub(crate) fn planted_unseeded_checksums() -> bool {
    UNSEEDED_CHECKSUMS.get()
}

/// Who runs when several clients take turns. Called without the world's mutex.
pub trait Schedule: Send + Sync {
    /// The running client is about to make a call or to touch a shared word.
    fn switch(&self);

    /// The running client has nothing to do before `deadline` or a signal. False if nobody else
    /// can run; the clock then moves to the deadline.
    fn idle(&self, deadline: Duration) -> bool;

    /// What the running client asked for is done, and it is about to be told: what others do now
    /// comes after it, and the client does not know of it.
    fn returning(&self) {}

    /// The running client raised a signal, woke a worker, or did something else that an idle one
    /// may wait for; another client may run.
    fn woken(&self) {}
}

/// A simulated machine; clones are the same machine.
#[derive(Clone)]
pub struct World {
    machine: Arc<Mutex<Machine>>,
    schedule: Arc<Mutex<Option<Arc<dyn Schedule>>>>,
}

impl World {
    /// A machine with an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::from_image(Image::default(), seed)
    }

    /// A machine switched on with `image` on its disk, all of it durable.
    pub fn from_image(mut image: Image, seed: u64) -> Self {
        image.boot += 1;
        Self::resume(Journal::new(image.clone()), image, seed)
    }

    /// A machine that goes on where `journal` ends, with `disk` in its page cache.
    fn resume(journal: Journal, disk: Image, seed: u64) -> Self {
        let machine = Machine::new(journal, disk, seed);
        Self {
            machine: Arc::new(Mutex::new(machine)),
            schedule: Arc::default(),
        }
    }

    /// The machine's state. Nothing that may call back is dropped or run under this mutex.
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Processes.

    /// Starts a process.
    pub fn process(&self) -> Arc<dyn Vfs> {
        let id = self.lock().add_process();
        let machine_number = NEXT_MACHINE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Process {
            world: self.clone(),
            id,
            machine_number,
        })
    }

    /// Kills a process of this world: its locks go, the page cache stays, its workers end, and
    /// each later call of it fails.
    pub fn kill(&self, process: &Arc<dyn Vfs>) {
        let steps = self.lock().kill(process.process_id());
        drop(steps);
    }

    /// Kills whichever process makes the `nth` change of a shared page from now on, 1 or more,
    /// before it is made.
    pub fn kill_at_store(&self, nth: u64) {
        self.lock().arm_store(nth.max(1));
    }

    /// Whether a process of this world was not killed.
    pub fn is_alive(&self, process: &Arc<dyn Vfs>) -> bool {
        !self.lock().process(process.process_id()).is_dead
    }

    /// Makes `process` a child that was forked off itself: its fork count rises.
    pub fn fork(&self, process: &Arc<dyn Vfs>) {
        self.lock().process(process.process_id()).fork_count += 1;
    }

    /// Sets the id, below 2^32, of the thread that calls from now on; gives the one before. The
    /// first is 1; a worker's step runs under an id of its own.
    pub fn set_thread(&self, thread: u64) -> u64 {
        std::mem::replace(&mut self.lock().thread, thread)
    }

    /// Sets who decides which client runs.
    pub fn set_schedule(&self, schedule: Option<Arc<dyn Schedule>>) {
        let mut current = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, schedule);
        drop(current);
        drop(before);
    }

    fn schedule(&self) -> Option<Arc<dyn Schedule>> {
        self.schedule
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets another client run.
    fn switch(&self) {
        if let Some(schedule) = self.schedule() {
            schedule.switch();
        }
    }

    /// Tells the schedule that idle clients have a reason to look again.
    fn woken(&self) {
        if let Some(schedule) = self.schedule() {
            schedule.woken();
        }
    }

    /// Sets what [`Vfs::locality`] says.
    pub fn set_locality(&self, locality: Locality) {
        self.lock().locality = locality;
    }

    // The clock.

    /// The time of the simulated clock.
    pub fn now(&self) -> Duration {
        self.lock().clock
    }

    /// Moves the clock.
    pub fn advance(&self, duration: Duration) {
        let mut machine = self.lock();
        machine.clock = machine.clock.saturating_add(duration);
    }

    /// Moves the clock to `time`, unless it is later already.
    fn advance_to(&self, time: Duration) {
        let mut machine = self.lock();
        machine.clock = machine.clock.max(time);
    }

    // The journal.

    /// Notes that commit `mark` begins.
    pub fn begin(&self, mark: u64) {
        self.lock().change(Operation::Begin(mark));
    }

    /// Notes that commit `mark` returned, and whether it promised to survive a power cut.
    pub fn acknowledge(&self, mark: u64, durable: bool) {
        self.lock().change(Operation::Acknowledge { mark, durable });
    }

    /// All that changed so far.
    pub fn journal(&self) -> Journal {
        self.lock().journal.clone()
    }

    /// The disk as processes see it now.
    pub fn image_now(&self) -> Image {
        let mut image = self.lock().disk.clone();
        image.drop_unnamed();
        image
    }

    // Failures.

    /// Lets the `nth` fallible call from now fail, the next one being 1, of those that the
    /// fault's scope counts. Replaces the faults that were set before.
    pub fn fail_call(&self, nth: u64, fault: Fault) {
        self.lock().faults.heal();
        self.also_fail_call(nth, fault);
    }

    /// As [`World::fail_call`], beside the faults that were set before.
    pub fn also_fail_call(&self, nth: u64, fault: Fault) {
        self.lock().faults.arm(nth, fault);
    }

    /// Lets the `nth` sync of a segment from now fail, the next one being 1, beside what
    /// [`World::fail_call`] set. Nobody dies of it, whatever the fault says.
    pub fn fail_segment_sync(&self, nth: u64, fault: Fault) {
        let mut machine = self.lock();
        let sync = machine.plants.segment_sync_count() + nth;
        machine.arm_sync(sync, fault);
    }

    /// Takes back what [`World::fail_call`], [`World::also_fail_call`] and
    /// [`World::fail_segment_sync`] set.
    pub fn heal(&self) {
        self.lock().heal();
    }

    /// How many fallible calls there were.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How many calls failed as planned.
    pub fn faults_fired(&self) -> u64 {
        self.lock().faults.fired().values().sum()
    }

    /// How many calls of each kind failed as planned.
    pub fn faults_by_call(&self) -> BTreeMap<Call, u64> {
        self.lock().faults.fired().clone()
    }

    /// Lets calls panic after so many more of them and of looks at the clock, so that a test ends
    /// where the store does not; `None` for no limit.
    pub fn set_patience(&self, patience: Option<u64>) {
        self.lock().patience = patience;
    }

    /// Sets how many bytes files may still grow by; `None` for no limit.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.lock().free_bytes = free_bytes;
    }

    /// Plants a bug.
    pub fn plant(&self, plant: Plant) {
        self.lock().plants.plant(plant);
    }

    /// A call that can fail and changes nothing on the disk: a planned failure does nothing.
    fn read_call<T>(
        &self,
        process: u32,
        kind: Call,
        call: impl FnOnce(&mut Machine) -> io::Result<T>,
    ) -> io::Result<T> {
        self.call(process, kind, |machine, fault| match fault {
            Some(fault) => Err(fault.error()),
            None => call(machine),
        })
    }

    /// A call that can fail and changes the disk; under a planned failure it is told which.
    fn change_call<T>(
        &self,
        process: u32,
        kind: Call,
        call: impl FnOnce(&mut Machine, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let done = self.call(process, kind, call);
        if let Some(schedule) = self.schedule() {
            schedule.returning();
        }
        done
    }

    /// A call that can fail.
    fn call<T>(
        &self,
        process: u32,
        kind: Call,
        call: impl FnOnce(&mut Machine, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.switch();
        let mut machine = self.lock();
        if machine.process(process).is_dead {
            return Err(io::Error::other("the process was killed"));
        }
        let fault = machine.count_call(kind);
        if let Some(fault) = fault
            && fault.kills()
        {
            if fault.effect == KillHalf && matches!(kind, Call::Write | Call::Allocate) {
                // OK because nobody is left to hear of it.
                let _ = call(&mut machine, Some(fault));
            }
            let steps = machine.kill(process);
            drop(machine);
            drop(steps);
            return Err(fault.error());
        }
        call(&mut machine, fault)
    }
}
