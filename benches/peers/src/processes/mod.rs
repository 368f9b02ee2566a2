//! Several processes on one store, which each of them opens for itself.
//!
//! A cell makes a store of 200,000 keys and closes it. Then it starts the processes; each opens
//! the store, reads every key once, makes its operations, and says that it is ready. All begin at
//! the same moment and end at the same moment. What ends later is not counted, but its latency is:
//! a store that lets one starve shows it there. Figures are sums over the processes; *fair* is what
//! the slowest did in proportion to the fastest.
//!
//! Sets are overwrites of random keys that are there, so that no store grows in another way than
//! another; each process has keys of its own for that. So it is known what every key must have in
//! the end: the store is opened again, and all of it is compared.
//!
//! Who comes in: [`run`] from the parent, one cell; [`worker`] is a process of a cell, [`seen`] what
//! two of them do for the time until a set is seen, [`alone`] a cell without others, and [`table`]
//! what people read.

mod alone;
mod clock;
mod latencies;
mod seen;
pub mod table;
pub mod worker;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use crate::asked::{Asked, Cell, Part};
use crate::figures::Figures;
use crate::pairs::{pair, stamped};
use crate::stores::{Class, Kind, Peer};
use latencies::Latencies;
use worker::Operations;

/// How long after the last process said that it is ready all of them begin.
const START_AFTER_NS: u64 = 20_000_000;

/// What the processes of a cell do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Get random keys.
    Gets,
    /// Set random keys, to survive a kill.
    Sets,
    /// Set random keys, to survive a power cut.
    Durable,
    /// Nine gets, one set that survives a kill.
    Mixed,
    /// One sets, the other gets until it sees that.
    Seen,
    /// Gets of a lone process that lets others in, beside those of one that does not.
    Alone,
}

impl Work {
    pub const ALL: [Self; 6] = [
        Self::Gets,
        Self::Sets,
        Self::Durable,
        Self::Mixed,
        Self::Seen,
        Self::Alone,
    ];

    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gets => "gets",
            Self::Sets => "sets",
            Self::Durable => "durable",
            Self::Mixed => "mixed",
            Self::Seen => "seen",
            Self::Alone => "alone",
        }
    }

    /// The work of this name.
    pub fn find(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|work| work.name() == name);
        found.ok_or_else(|| format!("there is no work {name}"))
    }

    /// How many processes it is for, of those that are asked for.
    pub fn counts(self, asked: &[usize]) -> impl Iterator<Item = usize> {
        let counts = match self {
            Self::Seen => vec![2],
            Self::Alone => vec![1],
            _ => asked.to_vec(),
        };
        counts.into_iter()
    }

    /// Whether a store can do it.
    pub fn is_for(self, kind: &Kind) -> bool {
        match self {
            Self::Sets => kind.share.is_some() && kind.kill_safe,
            Self::Alone => kind.name == "happystore",
            _ => kind.share.is_some(),
        }
    }

    /// What its commits survive. Those of a store that has none which survive a kill alone
    /// survive a power cut.
    fn class(self, kind: &Kind) -> Class {
        match self {
            Self::Durable => Class::Power,
            _ if kind.kill_safe => Class::Kill,
            _ => Class::Power,
        }
    }

    fn has_sets(self) -> bool {
        matches!(self, Self::Sets | Self::Durable | Self::Mixed)
    }
}

/// Opens the store of `kind` as one of several processes.
fn share(kind: &Kind, home: &Path, class: Class) -> Result<Box<dyn Peer>, String> {
    let share = kind
        .share
        .ok_or_else(|| format!("{} is one process's", kind.title))?;
    Ok(share(home, class))
}

/// The stamp of the values that a store begins with.
const FIRST_STAMP: u64 = 0;

/// Fills a store with its keys.
fn load(peer: &mut dyn Peer, keys: u64) {
    let numbers: Vec<u64> = (0..keys).collect();
    for numbers in numbers.chunks(1000) {
        let pairs = numbers
            .iter()
            .map(|&number| (pair(number, 0).0, stamped(number, FIRST_STAMP)));
        peer.set_batch(&pairs.collect::<Vec<_>>());
    }
}

/// Runs one cell on one store.
pub fn run(asked: &Asked, kind: &Kind, work: Work, processes: usize) -> Result<Figures, String> {
    if work == Work::Alone {
        return alone::run(&asked.plan);
    }
    let directory = asked.plan.fresh_directory()?;
    let home = directory.path();
    let keys = asked.plan.shared_keys;
    let class = work.class(kind);
    let mut peer = share(kind, home, class)?;
    load(peer.as_mut(), keys);
    drop(peer);
    // What was written before is not to be in the way of the syncs that are measured.
    let synced = File::open(home).map(rustix::fs::syncfs);
    synced
        .and_then(|synced| synced.map_err(Into::into))
        .map_err(|error| format!("the disk: {error}"))?;

    let cell = Cell::Processes { work, processes };
    let workers: Vec<Worker> = (0..processes)
        .map(|worker| Worker::start(asked, kind, cell, home, worker))
        .collect::<Result<_, _>>()?;
    let done = together(workers)?;
    verify(share(kind, home, class)?.as_mut(), work, keys, &done)?;
    let figures = match work {
        Work::Seen => seen::figures(&done[1]),
        _ => sum_up(work, &done, asked.plan.seconds(Part::Processes)),
    };
    Ok(figures)
}

/// A process of the cell, seen from the one that starts it.
struct Worker {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Worker {
    fn start(
        asked: &Asked,
        kind: &Kind,
        cell: Cell,
        home: &Path,
        worker: usize,
    ) -> Result<Self, String> {
        let mut command = asked.child_of(kind, cell, home)?;
        command.args(["--worker", &worker.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("a process without an output")?;
        Ok(Self {
            child,
            says: BufReader::new(stdout),
        })
    }

    fn await_ready(&mut self) -> Result<(), String> {
        let mut line = String::new();
        let read = self.says.read_line(&mut line);
        match read {
            Ok(_) if line == worker::READY => Ok(()),
            Ok(_) => Err("a process ended before it began".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn begin_at(&mut self, start_ns: u64) -> Result<(), String> {
        let mut stdin = self.child.stdin.take().ok_or("a process without input")?;
        writeln!(stdin, "{start_ns}").map_err(|error| error.to_string())
    }

    fn finish(mut self) -> Result<Figures, String> {
        let mut lines = String::new();
        let read = self.says.read_to_string(&mut lines);
        let status = self.child.wait().map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("a process failed: {status}"));
        }
        Figures::from_lines(&lines)
    }
}

/// Lets all work at the same time; what they say in the end. If one fails, those that have not
/// begun yet are told nothing, and end.
fn together(mut workers: Vec<Worker>) -> Result<Vec<Figures>, String> {
    for worker in &mut workers {
        worker.await_ready()?;
    }
    let start_ns = clock::now_ns() + START_AFTER_NS;
    for worker in &mut workers {
        worker.begin_at(start_ns)?;
    }
    workers.into_iter().map(Worker::finish).collect()
}

/// The store has what was set last on each key, and nothing else.
fn verify(peer: &mut dyn Peer, work: Work, keys: u64, done: &[Figures]) -> Result<(), String> {
    let mut stamps = vec![FIRST_STAMP; keys as usize];
    if work.has_sets() {
        for (worker, figures) in done.iter().enumerate() {
            let sets = figures.get(worker::SETS).unwrap_or(0.0) as usize;
            let operations = Operations::new(keys, done.len(), worker);
            for (number, stamp) in operations.last_sets(sets) {
                stamps[number as usize] = stamp;
            }
        }
    }
    if peer.range(&[], usize::MAX) != (keys as usize, keys as usize * 150) {
        return Err("there are other keys than there were".to_owned());
    }
    if work == Work::Seen {
        return seen::verify(peer, &done[0]);
    }
    for (number, stamp) in stamps.into_iter().enumerate() {
        let number = number as u64;
        let found = peer.get(&pair(number, 0).0);
        if found.as_deref() != Some(&stamped(number, stamp)[..]) {
            return Err("a set that had returned was lost".to_owned());
        }
    }
    Ok(())
}

/// The figures of a cell, from those of its processes.
fn sum_up(work: Work, done: &[Figures], seconds: f64) -> Figures {
    let mut figures = Figures::default();
    let each = |row| done.iter().map(move |one| one.get(row).unwrap_or(0.0));
    let sum = |row| each(row).sum::<f64>();
    let name = |what: &str| table::row(work, done.len(), what);
    figures.add(&name(table::RATE), sum(worker::OPERATIONS) / seconds);
    if done.len() > 1 {
        let slowest = each(worker::OPERATIONS).fold(f64::INFINITY, f64::min);
        let fastest = each(worker::OPERATIONS).fold(1.0, f64::max);
        figures.add(&name(table::FAIR), slowest / fastest);
    }
    if work.has_sets() {
        let mut all = Latencies::new();
        done.iter().for_each(|one| all.add_lines(one));
        for (what, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            figures.add(&name(&format!(": one takes, {what}")), all.seconds(part));
        }
        let sets = sum(worker::SETS).max(1.0);
        let sleeps = sum(worker::SLEEPS) * 1000.0 / sets;
        figures.add(&name(table::SLEEPS), sleeps);
        if work == Work::Durable && done.iter().any(|one| one.get(worker::SYNCS).is_some()) {
            let syncs = sum(worker::SYNCS) * 1000.0 / sets;
            figures.add(&name(table::SYNCS), syncs);
        }
    }
    figures
}
