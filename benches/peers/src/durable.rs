//! Durable sets: one thread or several, each commit waits until it would survive a power cut.
//!
//! With one thread the store and the [raw loop](crate::raw) run in turn, a slice each, so that the
//! drift of the disk is in both and their ratio is a fair one. In the end the store is opened
//! again, and every commit that returned must be there, with its value, and nothing else.
//!
//! Pairs are made between the commits, as nobody knows how many there will be. That takes a
//! tenth of a microsecond; it is in the rates of all stores alike, and in no latency.

use std::slice;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::asked::{Part, Plan};
use crate::figures::Figures;
use crate::pairs::{Pair, pair};
use crate::raw::RawLoop;
use crate::stores::{Class, Kind, Peer};

/// How long the store and the raw loop run at a time, when they run in turn.
const SLICE: Duration = Duration::from_millis(50);

/// The name of a row.
pub fn row(threads: usize, what: &str) -> String {
    let label = if threads == 1 { "thread" } else { "threads" };
    format!("{threads} {label}: {what}")
}

pub const COMMITS: &str = "commits /s";
pub const RAW: &str = "raw loop in turn with it /s";
pub const OF_RAW: &str = "of the raw loop";
pub const OF_RAW_P50: &str = "of the raw loop, by p50";
pub const SYNCS: &str = "syncs a commit";

/// One committing thread; its keys are its own.
struct Committer {
    peer: Box<dyn Peer>,
    thread: u64,
    /// One for each commit.
    latencies_ns: Vec<u64>,
}

impl Committer {
    fn new(peer: Box<dyn Peer>, thread: usize) -> Self {
        Self {
            peer,
            thread: thread as u64,
            latencies_ns: Vec::with_capacity(1 << 18),
        }
    }

    /// Commits for this time, and then to the end of a commit; how long it took.
    fn commit_for(&mut self, time: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let (key, value) = nth_pair(self.thread, self.latencies_ns.len());
            let start = Instant::now();
            self.peer.set(&key, &value);
            let end = Instant::now();
            self.latencies_ns.push((end - start).as_nanos() as u64);
            if end - begun >= time {
                return end - begun;
            }
        }
    }
}

/// What a thread commits at its nth time.
fn nth_pair(thread: u64, count: usize) -> Pair {
    pair((thread << 32) | count as u64, 0)
}

/// Runs one cell on one store: so many threads.
pub fn run(kind: &Kind, threads: usize, plan: &Plan) -> Result<Figures, String> {
    let directory = plan.fresh_directory()?;
    let home = directory.path().join("store");
    std::fs::create_dir(&home).map_err(|error| error.to_string())?;
    let peer = (kind.open)(&home, Class::Power);
    let mut committers: Vec<Committer> = (1..threads)
        .map(|thread| Committer::new(peer.another(), thread))
        .collect();
    committers.insert(0, Committer::new(peer, 0));

    let before = committers[0].peer.commits_and_syncs();
    let time = Duration::from_secs_f64(plan.seconds(Part::Durable));
    let mut figures = if threads == 1 {
        let raw = RawLoop::new(&directory.path().join("raw"));
        raw.and_then(|raw| in_turn(&mut committers[0], raw, time))
            .map_err(|error| format!("the raw loop: {error}"))?
    } else {
        together(&mut committers, time)
    };
    let after = committers[0].peer.commits_and_syncs();
    if let Some((before, after)) = before.zip(after) {
        let (commits, syncs) = (after.0 - before.0, after.1 - before.1);
        figures.add(&row(threads, SYNCS), syncs as f64 / commits as f64);
    }

    let counts: Vec<usize> = committers
        .iter()
        .map(|one| one.latencies_ns.len())
        .collect();
    drop(committers);
    verify((kind.open)(&home, Class::Power).as_mut(), &counts);
    Ok(figures)
}

/// One thread and the raw loop, turn by turn.
fn in_turn(one: &mut Committer, mut raw: RawLoop, time: Duration) -> std::io::Result<Figures> {
    let mut taken = Duration::ZERO;
    while taken < time {
        raw.run_for(SLICE)?;
        taken += one.commit_for(SLICE);
    }
    let mut figures = Figures::default();
    let rate = one.latencies_ns.len() as f64 / taken.as_secs_f64();
    let p50 = add_commits(&mut figures, slice::from_ref(one), rate);
    let raw_p50 = percentile(raw.latencies_ns().to_vec(), 0.5);
    figures.add(&row(1, RAW), raw.rate());
    figures.add(&row(1, "raw loop takes, p50"), raw_p50);
    figures.add(&row(1, OF_RAW), rate / raw.rate());
    figures.add(&row(1, OF_RAW_P50), raw_p50 / p50);
    Ok(figures)
}

/// All threads at once.
fn together(committers: &mut [Committer], time: Duration) -> Figures {
    let barrier = Barrier::new(committers.len());
    std::thread::scope(|scope| {
        for one in committers.iter_mut() {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                one.commit_for(time);
            });
        }
    });
    // The last commit of each thread ended when the time was over: a store that lets one starve
    // is not made slower by waiting for it.
    let in_time = committers.iter().map(|one| one.latencies_ns.len() - 1);
    let rate = in_time.sum::<usize>() as f64 / time.as_secs_f64();
    let mut figures = Figures::default();
    add_commits(&mut figures, committers, rate);
    figures
}

/// The rows that every cell has; returns the p50 in seconds.
fn add_commits(figures: &mut Figures, committers: &[Committer], rate: f64) -> f64 {
    let threads = committers.len();
    figures.add(&row(threads, COMMITS), rate);
    let latencies = committers.iter().map(|one| &one.latencies_ns[..]);
    let latencies: Vec<u64> = latencies.collect::<Vec<_>>().concat();
    for (what, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let name = row(threads, &format!("a commit takes, {what}"));
        figures.add(&name, percentile(latencies.clone(), part));
    }
    percentile(latencies, 0.5)
}

/// The least of the values that at least this part of them does not exceed, in seconds.
fn percentile(mut latencies_ns: Vec<u64>, part: f64) -> f64 {
    let rank = (latencies_ns.len() as f64 * part).ceil() as usize;
    let at = rank.clamp(1, latencies_ns.len()) - 1;
    *latencies_ns.select_nth_unstable(at).1 as f64 / 1e9
}

/// Every commit that returned is there, and nothing else; `counts` has the commits of each thread.
fn verify(peer: &mut dyn Peer, counts: &[usize]) {
    for (thread, count) in counts.iter().enumerate() {
        for nth in 0..*count {
            let (key, value) = nth_pair(thread as u64, nth);
            let found = peer.get(&key);
            assert_eq!(found.as_deref(), Some(&value[..]), "a commit was lost");
        }
    }
    let all: usize = counts.iter().sum();
    assert_eq!(peer.range(&[], usize::MAX), (all, all * 150));
}
