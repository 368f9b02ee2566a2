//! One run: a plan that follows from a seed, clients on threads of their own, and what is left.
//!
//! [`Plan::run`] gives a journal and a history that `crash::explore` stops everywhere.
//!
//! Invariants:
//! 1. A plan decides everything: who runs when, what is done, what fails.
//! 2. No run lasts for ever: one that hangs inside of the world is noticed by its turns, and one
//!    that hangs outside of it, on a mutex, ends the whole program.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{
    Fault, FaultEffect, Operation, Pauses, Plant, Random, Style, Turns, World,
};
use happystore::{Error, ErrorKind, TxOptions};

use super::client::{Client, Death, ONCE_KEYS, Taste, Trouble, everything, is_poison};
use super::record::{Halt, Record, be_of};
use crate::crash::oracle::{
    Bounds, Bytes, History, KEYS, Recovered, Setup, has_moved_entries, recover, rules, value,
};
use crate::crash::workload::{Mode, Run};

/// What all clients together may wait for; no pause and no delay is as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of so many schedules of several processes one is long, and looked at everywhere.
const THOROUGH_ONE_IN: u64 = 16;

/// Longer than a process keeps the writer lock for nothing.
const KEEP: Duration = Duration::from_millis(2);

/// How long, on the real clock, until a client that does not end is stuck on a mutex.
const STUCK_AFTER: Duration = Duration::from_mins(2);

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    /// How many processes the clients are of, in turn.
    pub(super) processes: usize,
    pub(super) writers: usize,
    pub(super) readers: usize,
    pub(super) operations: usize,
    pub(super) style: Style,
    /// How clients stand still, each by itself.
    pub(super) pauses: Option<Pauses>,
    pub(super) taste: Taste,
}

/// A process with the store open.
#[derive(Clone)]
struct Member {
    process: Arc<dyn Vfs>,
    store: Bytes,
}

/// What a run left behind, without any failure of the store.
pub(super) struct Outcome {
    pub(super) run: Run,
    /// The world with its process dead, and the history up to there.
    pub(super) world: World,
    pub(super) commits: u64,
    pub(super) steps: u64,
    /// How many commits began while one before them had not returned.
    pub(super) overlapping: u64,
    /// Whether a failure happened or the store was closed, as planned.
    pub(super) had_trouble: bool,
    /// Whether entries were moved by compaction meanwhile.
    pub(super) was_compacted: bool,
    /// Whether that was the death of a process.
    pub(super) was_killed: bool,
    reasons: BTreeMap<u64, String>,
}

impl Plan {
    /// The plan of a seed. About one in three has trouble.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::stream(seed, 1);
        let segment_bytes = match random.below(3) {
            0 => 512,
            1 => 512 + random.below(1024),
            _ => 512 + random.below(8 << 10),
        };
        let sync_percent = [10, 40, 70, 100][random.index(4)];
        let os_percent = [0, (100 - sync_percent) / 2, 100 - sync_percent][random.index(3)];
        let is_done = random.below(4) == 0;
        let trouble = match random.below(16) {
            0 | 1 => Trouble::Sync {
                nth: 1 + random.below(12),
                is_done,
            },
            2 => Trouble::Call {
                nth: 1 + random.below(120),
                is_done,
            },
            3 => Trouble::Kill {
                nth: 1 + random.below(200),
                death: Death::BeforeCall,
            },
            4 => Trouble::Close,
            _ => Trouble::None,
        };
        let taste = Taste {
            sync_percent,
            os_percent,
            delay: Duration::from_millis(2 + random.below(20)),
            len_bytes_max: [24, 80, 400][random.index(3)],
            key_count: 1 + random.index(KEYS.len()),
            is_alone: true,
            is_visited: false,
            trouble,
        };
        let writers = [1, 2, 3, 3, 4, 4][random.index(6)];
        let readers = 1 + random.index(2);
        Self {
            seed,
            setup: Setup {
                segment_bytes,
                // A sync that fails for compaction would be no commit's.
                is_compacted: seed.is_multiple_of(3) && !matches!(trouble, Trouble::Sync { .. }),
                plant: None,
            },
            processes: 1,
            writers,
            readers,
            operations: 3 + random.index(10),
            style: Style::random(&mut random, writers + readers + 1),
            pauses: None,
            taste,
        }
    }

    /// The plan of a seed, with several processes. About one in three has trouble.
    pub(super) fn of_processes(seed: u64) -> Self {
        let mut plan = Self::new(seed);
        let mut random = Random::stream(seed, 3);
        plan.processes = [1, 2, 2, 2, 3, 3, 4][random.index(7)];
        plan.writers = plan.writers.max(plan.processes);
        if !plan.is_thorough() {
            plan.operations = 2 + plan.operations / 3;
        }
        plan.taste.is_alone = false;
        plan.taste.is_visited = plan.processes == 1 || random.coin();
        if random.below(3) == 0 {
            let death = [Death::BeforeCall, Death::InCall, Death::BeforeStore][random.index(3)];
            plan.taste.trouble = Trouble::Kill {
                nth: 1 + random.below(300),
                death,
            };
        }
        plan.style = Style::random(&mut random, plan.writers + plan.readers + 1);
        plan.pauses = random.coin().then(|| Pauses {
            one_in: 20 + random.below(400),
            longest: Duration::from_millis([3, 30, 100][random.index(3)]),
        });
        plan
    }

    /// Whether it is one of the few of several processes that are long and looked at everywhere.
    pub(super) fn is_thorough(&self) -> bool {
        self.seed.is_multiple_of(THOROUGH_ONE_IN)
    }

    /// The plan with a bug planted.
    pub(super) fn planted(mut self, plant: Plant) -> Self {
        self.setup.plant = Some(plant);
        self.setup.is_compacted = false;
        self
    }

    fn arm(&self, world: &World) {
        let fault = |is_done: bool| {
            let effect = if is_done {
                FaultEffect::Done
            } else {
                FaultEffect::Clean
            };
            Fault::once(effect, std::io::ErrorKind::Other)
        };
        match self.taste.trouble {
            Trouble::None | Trouble::Close => {}
            Trouble::Sync { nth, is_done } => world.fail_segment_sync(nth, fault(is_done)),
            Trouble::Call { nth, is_done } => world.fail_call(nth, fault(is_done)),
            Trouble::Kill { nth, death } => match death {
                Death::BeforeCall => world.fail_call(nth, Fault::kill()),
                Death::InCall => world.fail_call(nth, Fault::kill_halfway()),
                Death::BeforeStore => world.kill_at_store(nth),
            },
        }
    }

    /// Runs it.
    pub(super) fn run(&self) -> Result<Outcome, String> {
        let world = self.setup.prepare(World::new(self.seed));
        let mut history = History::new();
        let Recovered { process, store, .. } =
            recover(&world, self.setup, Bounds::default(), &mut history)?;
        let pause = self.pauses.map_or(Duration::ZERO, |pauses| pauses.longest);
        let record = Record::with_pauses(&world, history, pause);
        set_once_keys(&record, &store).map_err(|error| format!("before all: {error}"))?;
        let mut members = vec![Member { process, store }];
        while members.len() < self.processes {
            rest(&world);
            let process = world.process();
            let opened = self.setup.open(process.clone());
            let store = opened.map_err(|error| format!("opening beside others: {error}"))?;
            members.push(Member { process, store });
        }
        self.arm(&world);
        let turns = self.take_turns(&world, &record, &members)?;
        if let Some(hang) = turns.hang() {
            return Err(format!("a hang: {hang}"));
        }
        world.heal();
        for member in &members {
            if world.is_alive(&member.process) {
                rest(&world);
                self.settle(&world, &record, &member.store)?;
            }
        }
        let journal = world.journal();
        // What closing would do is a workload of its own.
        for member in &members {
            world.kill(&member.process);
        }
        drop(members);
        let commits = record.returned_count();
        let (mut history, reasons) = record.into_history();
        history.freeze();
        let had_trouble = world.faults_fired() > 0 || self.taste.trouble == Trouble::Close;
        let is_kill = matches!(self.taste.trouble, Trouble::Kill { .. });
        let setup = self.setup;
        Ok(Outcome {
            was_compacted: has_moved_entries(&world),
            was_killed: is_kill && world.faults_fired() > 0,
            overlapping: overlapping(journal.operations()),
            run: Run {
                setup,
                journal,
                history,
                last_began_at: 0,
            },
            world,
            commits,
            steps: turns.step_count(),
            had_trouble,
            reasons,
        })
    }

    /// Runs all clients to their ends.
    fn take_turns(
        &self,
        world: &World,
        record: &Record,
        members: &[Member],
    ) -> Result<Arc<Turns>, String> {
        let count = self.writers + self.readers + 1;
        let turns = Turns::new(world, count, self.style, PATIENCE, self.seed);
        turns.set_pauses(self.pauses);
        let (sender, ends) = mpsc::channel();
        world.set_schedule(Some(turns.clone()));
        let halts = thread::scope(|scope| {
            for number in 0..count {
                let (turns, sender) = (&turns, sender.clone());
                let Member { process, store } = members[number % members.len()].clone();
                let setup = self.setup;
                scope.spawn(move || {
                    if number > 0 {
                        be_of(&process);
                    }
                    let client = Client {
                        record,
                        store,
                        process,
                        setup,
                        is_visitor: false,
                        taste: self.taste,
                        random: Random::stream(self.seed, 100 + number as u64),
                    };
                    let body = || self.be_client(number, client, turns);
                    let end = catch_unwind(AssertUnwindSafe(|| turns.run(number, body)));
                    let end = end.unwrap_or_else(|panic| Err(Halt::Wrong(said(&*panic))));
                    // OK because nobody stops listening before all have ended.
                    let _ = sender.send((number, end));
                });
            }
            (0..count)
                .map(|_| match ends.recv_timeout(STUCK_AFTER) {
                    Ok(end) => end,
                    Err(_) => self.give_up(),
                })
                .collect::<Vec<_>>()
        });
        world.set_schedule(None);
        let wrong = halts.into_iter().find_map(|(number, end)| match end {
            Err(Halt::Wrong(wrong)) => Some(format!("client {number}: {wrong}")),
            Err(Halt::Dead) | Ok(()) => None,
        });
        match (wrong, turns.hang()) {
            (Some(wrong), Some(hang)) => Err(format!("{wrong}; and a hang: {hang}")),
            (Some(wrong), None) => Err(wrong),
            (None, _) => Ok(turns),
        }
    }

    /// The first is the background, then writers, then readers.
    fn be_client(&self, number: usize, client: Client<'_>, turns: &Turns) -> Result<(), Halt> {
        if number == 0 {
            let Client { record, store, .. } = client;
            drop(store);
            turns.run_background(|began| record.background_ran(began));
            Ok(())
        } else if number <= self.writers {
            let is_closer = number == 1 && self.taste.trouble == Trouble::Close;
            client.write_for(self.operations, is_closer)
        } else {
            client.read_for(self.operations * 2)
        }
    }

    /// A thread is stuck where no other can reach it, and no test can go on.
    fn give_up(&self) -> ! {
        let message = format!(
            "{self:?}\nis stuck: a client holds a mutex of the store over a call into the vfs\n{}\n",
            self.how_to_repeat()
        );
        // Past the capture of the test's output, which nobody would print.
        let _ = std::io::stderr().write_all(message.as_bytes());
        std::process::abort();
    }

    /// What to type to see it again, where the seed alone decides.
    pub(super) fn how_to_repeat(&self) -> String {
        let seed = self.seed;
        let is_mine = |same: Self| format!("{self:?}") == format!("{same:?}");
        let test = if is_mine(Self::new(seed)) {
            "random"
        } else if is_mine(Self::of_processes(seed)) {
            "processes"
        } else {
            return "not of a seed alone: this test, run again, comes to the same plan".to_owned();
        };
        format!(
            "HAPPYSTORE_SEED={seed} HAPPYSTORE_CLIENT_SCHEDULES=1 cargo test --test it clients::tiers::{test}"
        )
    }

    /// What holds when all clients are done.
    fn settle(&self, world: &World, record: &Record, store: &Bytes) -> Result<(), String> {
        if record.is_closing() && self.processes == 1 {
            return match store.has(KEYS[0]).map_err(|error| error.kind()) {
                Err(ErrorKind::Closed) => Ok(()),
                other => Err(format!("a closed store gives {other:?}")),
            };
        }
        if record.has_failed() {
            return self.settle_after_trouble(world, record, store);
        }
        if record.is_closing() && store.has(KEYS[0]).is_err() {
            return Ok(());
        }
        let (mark, state) = record.top();
        let found = everything(store).map_err(|error| format!("after all: {error}"))?;
        if found != *state {
            return Err(format!("after all, it does not hold state {mark}"));
        }
        world.advance(PATIENCE);
        let now = world.now();
        world.run_background();
        record.background_ran(now);
        Ok(())
    }

    fn settle_after_trouble(
        &self,
        world: &World,
        record: &Record,
        store: &Bytes,
    ) -> Result<(), String> {
        let is_kill = matches!(self.taste.trouble, Trouble::Kill { .. });
        if is_kill {
            // Who compacts comes to an end, and who has kept the writer lock for nothing gives it up.
            rest(world);
            for _ in 0..50 {
                world.advance(Duration::from_millis(2));
                world.run_background();
            }
        }
        if is_kill || record.has_failed_at_opening() {
            // Who lives on writes on, on top of what the other one left.
            let after = |error: Error| format!("after another process died or failed: {error}");
            let tx = match store.begin_with(&TxOptions::new()) {
                // It was told of the same failure when it synced itself.
                Err(error) if !is_kill && is_poison(&error) => return Ok(()),
                begun => begun.map_err(after)?,
            };
            let found = everything(&tx).map_err(after)?;
            let Ok(_) = record.base(&found) else {
                return Err("after another process's end, a state is shown that never was".into());
            };
            tx.set(KEYS[0], &b"after"[..]).map_err(after)?;
            let mut state = found;
            state.insert(KEYS[0].to_vec(), b"after"[..].into());
            let mark = record.begin(state, Mode::Sync, Duration::ZERO);
            tx.commit().map_err(after)?;
            record.returned(mark);
            return Ok(());
        }
        if let Trouble::Sync { .. } = self.taste.trouble {
            let refused = store
                .set(KEYS[0], &b"never"[..])
                .map_err(|error| error.kind());
            if refused != Err(ErrorKind::Poisoned) {
                return Err(format!("after a failed sync, a write gives {refused:?}"));
            }
            let window = record.window(record.floor());
            let found = match everything(store) {
                Err(error) if self.taste.is_visited && is_poison(&error) => return Ok(()),
                found => found.map_err(|error| format!("after a failure: {error}"))?,
            };
            return match record.seen_all("a scan after a failure", window, &found) {
                Err(Halt::Wrong(wrong)) => Err(wrong),
                Err(Halt::Dead) | Ok(_) => Ok(()),
            };
        }
        Ok(())
    }
}

impl Outcome {
    /// Refuses a journal in which an order was broken.
    pub(super) fn check_order(&self) -> Result<(), String> {
        let violations = self.run.journal.violations(&rules());
        let Some(violation) = violations.first() else {
            return Ok(());
        };
        let reason = match self.run.journal.operations()[violation.position] {
            Operation::Acknowledge { mark, .. } => self.reasons.get(&mark),
            _ => None,
        };
        Err(format!("order: {violation}, because of {reason:?}"))
    }
}

/// Where nobody takes turns: lets whoever has the writer lock see that he needs it no more.
fn rest(world: &World) {
    for _ in 0..3 {
        world.advance(KEEP);
        world.run_background();
    }
}

/// How many commits began while one before them had not returned.
fn overlapping(operations: &[Operation]) -> u64 {
    let (mut begun, mut returned, mut count) = (0, 0, 0);
    for operation in operations {
        match *operation {
            Operation::Begin(mark) => {
                count += u64::from(begun > returned);
                begun = mark;
            }
            Operation::Acknowledge { mark, .. } => returned = returned.max(mark),
            _ => {}
        }
    }
    count
}

/// One commit before all others.
fn set_once_keys(record: &Record, store: &Bytes) -> happystore::Result<()> {
    let tx = store.begin_with(&TxOptions::new())?;
    let mut state = (*record.top().1).clone();
    for (number, key) in ONCE_KEYS.into_iter().enumerate() {
        let once = value(number as u64, 8);
        tx.set(key, &*once)?;
        state.insert(key.to_vec(), once);
    }
    let mark = record.begin(state, Mode::Sync, Duration::ZERO);
    tx.commit()?;
    record.returned(mark);
    Ok(())
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
