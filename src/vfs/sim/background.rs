//! Background workers and signals of a world in which one thing happens at a time.
//!
//! Processes come in through [`Vfs::spawn`](super::super::Vfs::spawn) and
//! [`Vfs::signal`](super::super::Vfs::signal); steps run when the test calls
//! [`World::run_background`].
//!
//! Invariants:
//! 1. A step runs without the world's mutex, under a thread id of its own.
//! 2. Steps run in the order in which their workers were spawned.
//! 3. A wait never sleeps: it takes the permit, lets others go on, or moves the clock.
//!
//! Threads: none are made here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::{Next, Signal, Step, Worker};
use super::World;
use super::machine::Machine;

/// A worker that was spawned and neither stopped nor done.
pub(super) struct Registered {
    pub(super) process: u32,
    /// Taken out while it runs.
    pub(super) step: Option<Step>,
    /// When it is due; `None` if only a wake makes it run.
    pub(super) due: Option<Duration>,
    /// Whether it was woken since its last run began.
    pub(super) is_woken: bool,
    /// Whether it was stopped while its step ran.
    pub(super) is_stopped: bool,
}

impl World {
    /// Runs each worker's step that is due or was woken, once; gives how many ran.
    ///
    /// A step that is running already, because this is called from within, is left alone.
    pub fn run_background(&self) -> usize {
        let due: Vec<u64> = {
            let machine = self.lock();
            let now = machine.clock;
            let ready = |worker: &Registered| {
                worker.step.is_some()
                    && (worker.is_woken || worker.due.is_some_and(|due| due <= now))
            };
            let workers = machine.workers.iter().filter(|(_, worker)| ready(worker));
            workers.map(|(&worker, _)| worker).collect()
        };
        due.into_iter()
            .filter(|&worker| self.run_step(worker))
            .count()
    }

    /// Runs one step; false if its worker was stopped or killed meanwhile.
    fn run_step(&self, worker: u64) -> bool {
        let (mut step, thread) = {
            let mut machine = self.lock();
            let Some(registered) = machine.workers.get_mut(&worker) else {
                return false;
            };
            let Some(step) = registered.step.take() else {
                return false;
            };
            registered.is_woken = false;
            registered.due = None;
            (step, std::mem::replace(&mut machine.thread, worker))
        };
        let next = step();
        let ended = self.end_step(worker, thread, step, next);
        drop(ended);
        self.woken();
        true
    }

    /// Notes that a step ran; gives it back if it is never to run again.
    fn end_step(&self, worker: u64, thread: u64, step: Step, next: Next) -> Option<Step> {
        let mut machine = self.lock();
        machine.thread = thread;
        let now = machine.clock;
        let registered = machine
            .workers
            .get_mut(&worker)
            .filter(|worker| !worker.is_stopped);
        match (next, registered) {
            (Next::After(pause), Some(registered)) => {
                registered.due = Some(now.saturating_add(pause));
                registered.step = Some(step);
                None
            }
            (Next::WhenWoken, Some(registered)) => {
                registered.step = Some(step);
                None
            }
            (Next::Done, _) | (_, None) => {
                machine.workers.remove(&worker);
                Some(step)
            }
        }
    }

    /// When the next worker is due; `None` if all wait to be woken.
    pub fn next_due(&self) -> Option<Duration> {
        let machine = self.lock();
        let now = machine.clock;
        let due = machine.workers.values();
        due.filter_map(|worker| {
            if worker.is_woken {
                Some(now)
            } else {
                worker.due
            }
        })
        .min()
    }

    /// Registers a worker whose first step is due at once.
    pub(super) fn register(&self, process: u32, step: Step) -> SimWorker {
        let mut machine = self.lock();
        let id = machine.new_id();
        let due = Some(machine.clock);
        machine.workers.insert(
            id,
            Registered {
                process,
                step: Some(step),
                due,
                is_woken: false,
                is_stopped: false,
            },
        );
        drop(machine);
        self.woken();
        SimWorker {
            world: self.clone(),
            id,
        }
    }

    /// Lets others go on until `is_done` or the deadline; gives what `is_done` says then.
    pub(super) fn wait_until(&self, deadline: Duration, is_done: impl Fn() -> bool) -> bool {
        loop {
            if is_done() {
                return true;
            }
            if self.now() >= deadline {
                return false;
            }
            if !self
                .schedule()
                .is_some_and(|schedule| schedule.idle(deadline))
            {
                self.advance_to(deadline);
                return is_done();
            }
        }
    }
}

/// The handle of a simulated worker.
pub(super) struct SimWorker {
    world: World,
    id: u64,
}

impl Worker for SimWorker {
    fn wake(&self) {
        if let Some(worker) = self.world.lock().workers.get_mut(&self.id) {
            worker.is_woken = true;
        }
        self.world.woken();
    }

    fn stop(&self) {
        let mut machine = self.world.lock();
        let is_running = |machine: &Machine| {
            machine
                .workers
                .get(&self.id)
                .is_some_and(|worker| worker.step.is_none())
        };
        if !is_running(&machine) {
            let worker = machine.workers.remove(&self.id);
            drop(machine);
            drop(worker);
            return;
        }
        if let Some(worker) = machine.workers.get_mut(&self.id) {
            worker.is_stopped = true;
        }
        let is_caller = machine.thread == self.id;
        drop(machine);
        // Only under a schedule can a step be running that is not below this call.
        while !is_caller && is_running(&self.world.lock()) {
            if !self
                .world
                .schedule()
                .is_some_and(|schedule| schedule.idle(Duration::MAX))
            {
                break;
            }
        }
    }
}

/// A permit.
pub(super) struct SimSignal {
    world: World,
    permit: AtomicBool,
}

impl SimSignal {
    pub(super) fn new(world: World) -> Self {
        Self {
            world,
            permit: AtomicBool::new(false),
        }
    }
}

impl Signal for SimSignal {
    fn raise(&self) {
        if !self.world.lock().plants.swallow_raise() {
            self.permit.store(true, Ordering::SeqCst);
        }
        self.world.woken();
    }

    fn wait(&self, deadline: Duration) -> bool {
        self.world
            .wait_until(deadline, || self.permit.swap(false, Ordering::SeqCst))
    }
}
