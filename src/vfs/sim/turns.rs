//! A [`Schedule`] under which clients, each on a thread of its own, run one at a time.
//!
//! A test makes [`Turns`] for so many clients, gives it to [`World::set_schedule`], and has each of
//! its threads call [`Turns::run`] with another number. The baton goes from client to client inside
//! of the calls that the store makes into the world, before what is asked for is done and before a
//! change is told of; the [`Style`] and the seed decide to whom. An
//! idle client is looked after when something happened that it may wait for, or its time has come.
//! If nobody can run, the clock moves to the earliest deadline, and its client goes on.
//!
//! Invariants:
//! 1. One client runs at a time, under a thread id of its own; same seed, same order.
//! 2. The mutex in here is held over no code of the store.
//! 3. A client that waits for a thing nobody will do is noticed: all are idle, for longer than
//!    the patience, and [`Turns::hang`] says so. The clock moves on all the same, so that most such
//!    runs end.
//!
//! Threads: made by the test. A client that holds a mutex of the store over a call into the vfs
//! may block another one for ever, outside of this world; only the test's own clock sees that.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Random, Schedule, World};

/// The most switches of one run; more of them are a client that runs in circles.
const STEP_COUNT_MAX: u64 = 4_000_000;

/// How often all clients may be idle beyond the patience before the run is given up.
const HANG_COUNT_MAX: u64 = 100;

/// How the next client is chosen. Clients are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Anybody, at every call.
    Always,
    /// Whoever runs goes on for about this many calls; then anybody.
    Rarely(u64),
    /// This client whenever it can, but for one call in eight.
    Prefer(usize),
    /// This client only when no other one can.
    Starve(usize),
    /// The first that can run, in a random order of all; at about every so many calls the one
    /// that runs becomes the last. It finds what needs few switches, but just those.
    Ranked(u64),
}

impl Style {
    /// A style for `clients` clients.
    pub fn random(random: &mut Random, clients: usize) -> Self {
        match random.below(7) {
            0..=2 => Self::Always,
            3 => Self::Rarely(2 + random.below(20)),
            4 => Self::Prefer(random.index(clients)),
            5 => Self::Starve(random.index(clients)),
            _ => Self::Ranked(3 + random.below(40)),
        }
    }
}

/// Who runs when. See the sign of this file.
pub struct Turns {
    world: World,
    state: Mutex<State>,
    /// One for each client: told when it is the client's turn.
    turn: Vec<Condvar>,
}

struct State {
    clients: Vec<Client>,
    /// Who runs; none once all are done.
    current: Option<usize>,
    style: Style,
    random: Random,
    /// For [`Style::Ranked`]: the clients, first to last.
    ranks: Vec<usize>,
    pauses: Option<Pauses>,
    /// How many things happened that an idle client may wait for.
    event_count: u64,
    step_count: u64,
    patience: Duration,
    hang: Option<String>,
    hang_count: u64,
    /// Whether there were too many hangs: then a client panics.
    is_given_up: bool,
}

/// How often a client stands still, wherever it is, while the clock and all others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// At one call of so many.
    pub one_in: u64,
    /// For how long at most.
    pub longest: Duration,
}

struct Client {
    /// The thread id it runs under: its own, or that of a worker whose step it runs.
    thread: u64,
    status: Status,
    /// Until when it stands still.
    paused_until: Duration,
}

impl Client {
    fn is_paused(&self, now: Duration) -> bool {
        self.paused_until > now && self.status != Status::Done
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ready,
    Idle {
        deadline: Duration,
        /// The count of events when it last looked.
        seen: u64,
    },
    /// Nobody else could run, so the clock goes to its deadline.
    TimedOut,
    Done,
}

impl State {
    /// Who could run now: the ready, and the idle that have a reason to look again.
    fn candidates(&self, now: Duration) -> Vec<usize> {
        let can_run = |client: &Client| match client.status {
            _ if client.is_paused(now) => false,
            Status::Ready | Status::TimedOut => true,
            Status::Idle { deadline, seen } => seen < self.event_count || deadline <= now,
            Status::Done => false,
        };
        let clients = self.clients.iter().enumerate();
        clients
            .filter(|(_, client)| can_run(client))
            .map(|(number, _)| number)
            .collect()
    }

    /// Chooses one of `candidates`; `me` is who ran, and may be one of them.
    fn choose(&mut self, candidates: &[usize], me: usize) -> Option<usize> {
        let any = |random: &mut Random, from: &[usize]| from.get(random.index(from.len())).copied();
        let may_stay = candidates.contains(&me);
        match self.style {
            Style::Rarely(calls) if may_stay && self.random.below(calls) != 0 => Some(me),
            Style::Always | Style::Rarely(_) => any(&mut self.random, candidates),
            Style::Prefer(favourite) => {
                if candidates.contains(&favourite) && self.random.below(8) != 0 {
                    Some(favourite)
                } else {
                    any(&mut self.random, candidates)
                }
            }
            Style::Starve(last) => {
                let others = candidates.iter().copied().filter(|each| *each != last);
                let others: Vec<usize> = others.collect();
                any(&mut self.random, &others).or(any(&mut self.random, candidates))
            }
            Style::Ranked(calls) => {
                if self.random.below(calls) == 0 {
                    self.ranks.retain(|each| *each != me);
                    self.ranks.push(me);
                }
                let mut ranks = self.ranks.iter().copied();
                ranks.find(|each| candidates.contains(each))
            }
        }
    }

    /// Perhaps makes `me` stand still.
    fn pause(&mut self, me: usize, now: Duration) {
        if let Some(pauses) = self.pauses
            && self.random.below(pauses.one_in) == 0
        {
            let nanos = u64::try_from(pauses.longest.as_nanos()).unwrap_or(u64::MAX);
            let pause = Duration::from_nanos(1 + self.random.below(nanos));
            self.clients[me].paused_until = now.saturating_add(pause);
        }
    }

    /// When the first of those who stand still goes on.
    fn pause_ends(&self, now: Duration) -> Option<Duration> {
        let paused = self.clients.iter().filter(|client| client.is_paused(now));
        paused.map(|client| client.paused_until).min()
    }

    /// The earliest deadline of those who are idle and do not stand still, and who has it.
    fn first_deadline(&self, now: Duration) -> Option<(Duration, usize)> {
        let idle = |(number, client): (usize, &Client)| match client.status {
            Status::Idle { deadline, .. } if !client.is_paused(now) => Some((deadline, number)),
            _ => None,
        };
        self.clients.iter().enumerate().filter_map(idle).min()
    }

    /// The idle client with the earliest deadline, whose time is over now. Notes a hang.
    fn time_out(&mut self, now: Duration) -> Option<usize> {
        let (deadline, number) = self.first_deadline(now)?;
        if deadline.saturating_sub(now) > self.patience {
            self.hang_count += 1;
            if self.hang.is_none() {
                let all: Vec<String> = (self.clients.iter().enumerate())
                    .map(|(number, client)| format!("client {number}: {:?}", client.status))
                    .collect();
                self.hang = Some(format!("all wait at {now:?}: {}", all.join(", ")));
            }
            self.is_given_up = self.hang_count > HANG_COUNT_MAX;
            assert!(!self.is_given_up, "clients wait for ever: {:?}", self.hang);
        }
        self.clients[number].status = Status::TimedOut;
        Some(number)
    }
}

impl Turns {
    /// Turns for `clients` clients of `world`, none of which has begun. Waits that last longer
    /// than `patience` while everybody waits are hangs.
    pub fn new(
        world: &World,
        clients: usize,
        style: Style,
        patience: Duration,
        seed: u64,
    ) -> Arc<Self> {
        let mut random = Random::new(seed);
        let mut ranks: Vec<usize> = (0..clients).collect();
        for at in (1..ranks.len()).rev() {
            ranks.swap(at, random.index(at + 1));
        }
        let own = |number: usize| Client {
            thread: number as u64 + 1,
            status: Status::Ready,
            paused_until: Duration::ZERO,
        };
        let state = State {
            clients: (0..clients).map(own).collect(),
            current: None,
            style,
            random,
            ranks,
            pauses: None,
            event_count: 0,
            step_count: 0,
            patience,
            hang: None,
            hang_count: 0,
            is_given_up: false,
        };
        let turns = Self {
            world: world.clone(),
            state: Mutex::new(state),
            turn: (0..clients).map(|_| Condvar::new()).collect(),
        };
        {
            let mut state = turns.lock();
            let everybody: Vec<usize> = (0..clients).collect();
            let first = state.choose(&everybody, 0);
            turns.give(&mut state, first);
        }
        Arc::new(turns)
    }

    /// Lets clients stand still from now on: a deadline may come upon anybody in the middle of
    /// anything.
    pub fn set_pauses(&self, pauses: Option<Pauses>) {
        self.lock().pauses = pauses;
    }

    /// Runs `body` as client `client` on the calling thread, from its first turn to its last. All
    /// clients have to come in, each once.
    pub fn run<T>(&self, client: usize, body: impl FnOnce() -> T) -> T {
        self.await_turn(self.lock(), client);
        let _end = End {
            turns: self,
            client,
        };
        body()
    }

    /// For the client that stands for the background: runs workers' steps when they are due until
    /// all other clients are done. `after` is called when none is due any more, with a time at
    /// which none was overdue.
    pub fn run_background(&self, mut after: impl FnMut(Duration)) {
        loop {
            loop {
                let began = self.world.now();
                if self.world.run_background() == 0 {
                    after(began);
                    break;
                }
            }
            if self.others_are_done() {
                return;
            }
            let due = self.world.next_due().unwrap_or(Duration::MAX);
            if !self.idle(due) && due != Duration::MAX {
                self.world.advance_to(due);
            }
        }
    }

    /// What all clients waited for when none of them could go on, if that ever happened.
    pub fn hang(&self) -> Option<String> {
        self.lock().hang.clone()
    }

    /// How many times a client could have been switched.
    pub fn step_count(&self) -> u64 {
        self.lock().step_count
    }

    fn others_are_done(&self) -> bool {
        let state = self.lock();
        let clients = state.clients.iter().enumerate();
        clients
            .filter(|(number, _)| Some(*number) != state.current)
            .all(|(_, client)| client.status == Status::Done)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_turn(&self, mut state: MutexGuard<'_, State>, client: usize) {
        while state.current != Some(client) {
            state = self.turn[client]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes `next` the one who runs, under its thread id; whoever ran before keeps its own.
    fn give(&self, state: &mut State, next: Option<usize>) {
        let before = std::mem::replace(&mut state.current, next);
        if before == next {
            return;
        }
        if let Some(next) = next {
            let thread = self.world.set_thread(state.clients[next].thread);
            if let Some(before) = before {
                state.clients[before].thread = thread;
            }
            self.turn[next].notify_one();
        }
    }

    /// Who runs now that `me` does not. If nobody can, the clock goes on to when somebody can.
    fn next(&self, state: &mut State, me: usize) -> Option<usize> {
        loop {
            let now = self.world.now();
            let candidates = state.candidates(now);
            let next = state.choose(&candidates, me);
            if next.is_some() {
                return next;
            }
            match state.pause_ends(now) {
                // Before those who wait for a later moment.
                Some(end)
                    if state
                        .first_deadline(now)
                        .is_none_or(|(first, _)| end <= first) =>
                {
                    self.world.advance_to(end);
                }
                _ => return state.time_out(now),
            }
        }
    }

    /// Lets whoever is chosen run, and comes back when it is the turn of `me` again.
    fn pass(&self, mut state: MutexGuard<'_, State>, me: usize) {
        if state.is_given_up {
            // What is dropped on the way out goes on alone.
            return;
        }
        state.step_count += 1;
        assert!(
            state.step_count <= STEP_COUNT_MAX,
            "a client runs in circles"
        );
        state.pause(me, self.world.now());
        let next = self.next(&mut state, me);
        self.give(&mut state, next);
        self.await_turn(state, me);
    }
}

impl Schedule for Turns {
    fn switch(&self) {
        let state = self.lock();
        if let Some(me) = state.current {
            self.pass(state, me);
        }
    }

    fn returning(&self) {
        self.switch();
    }

    fn idle(&self, deadline: Duration) -> bool {
        let mut state = self.lock();
        let Some(me) = state.current else {
            return false;
        };
        if state.is_given_up {
            return false;
        }
        let seen = state.event_count;
        state.clients[me].status = Status::Idle { deadline, seen };
        self.pass(state, me);
        let before = std::mem::replace(&mut self.lock().clients[me].status, Status::Ready);
        before != Status::TimedOut
    }

    fn woken(&self) {
        let mut state = self.lock();
        state.event_count += 1;
        if let Some(me) = state.current {
            self.pass(state, me);
        }
    }
}

/// Ends a client, even if it panics.
struct End<'turns> {
    turns: &'turns Turns,
    client: usize,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.clients[self.client].status = Status::Done;
        state.event_count += 1;
        let next = self.turns.next(&mut state, self.client);
        self.turns.give(&mut state, next);
    }
}
