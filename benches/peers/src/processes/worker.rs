//! One of the processes of a cell: it opens the store, waits for the start, works, and tells.

use std::fs;
use std::hint::black_box;
use std::io::Write;

use super::latencies::Latencies;
use super::{FIRST_STAMP, Work, clock, seen, share};
use crate::asked::{Asked, Part};
use crate::figures::Figures;
use crate::pairs::{Pair, mix, pair, stamp_of, stamped};
use crate::stores::{Kind, Peer};

/// What it says once it can begin.
pub const READY: &str = "ready\n";

/// What it tells in the end: operations that ended in time; sets that returned, in time or not;
/// how often it went to sleep; how often it synced, if it counts that.
pub const OPERATIONS: &str = "operations";
pub const SETS: &str = "sets";
pub const SLEEPS: &str = "sleeps";
pub const SYNCS: &str = "syncs";

/// How many operations are made before the clock starts; they are gone through again and again.
const OPERATION_COUNT: u64 = 1 << 18;

/// Gets between two looks at the clock.
const GETS_AT_ONCE: usize = 16;

/// Gets for each set of [`Work::Mixed`].
const GETS_A_SET: usize = 9;

/// What a process does: random keys, and values for those that are its own.
pub struct Operations {
    keys: u64,
    processes: u64,
    worker: u64,
}

impl Operations {
    pub fn new(keys: u64, processes: usize, worker: usize) -> Self {
        Self {
            keys,
            processes: processes as u64,
            worker: worker as u64,
        }
    }

    fn random(&self, nth: u64) -> u64 {
        mix(nth ^ (self.worker + 1) << 32)
    }

    /// The key of the nth get, of all there are.
    fn get(&self, nth: u64) -> u64 {
        self.random(nth) % self.keys
    }

    /// The key of the nth set, of its own ones, and the stamp of its value.
    fn set(&self, nth: u64) -> (u64, u64) {
        let nth = nth % OPERATION_COUNT;
        let own = self.keys / self.processes;
        let number = self.random(nth) % own * self.processes + self.worker;
        (number, (self.worker + 1) << 32 | nth)
    }

    /// Keys and stamps of the last of so many sets, later ones behind earlier ones.
    pub fn last_sets(&self, count: usize) -> impl Iterator<Item = (u64, u64)> {
        let count = count as u64;
        (count.saturating_sub(OPERATION_COUNT)..count).map(|nth| self.set(nth))
    }
}

/// A process at work.
struct Working {
    peer: Box<dyn Peer>,
    gets: Vec<(u64, [u8; 24])>,
    sets: Vec<Pair>,
    operations: usize,
    get_count: usize,
    set_count: usize,
    latencies: Latencies,
}

/// Runs this process's share of a cell.
pub fn run(
    asked: &Asked,
    kind: &Kind,
    work: Work,
    processes: usize,
    worker: usize,
) -> Result<Figures, String> {
    let keys = asked.plan.shared_keys;
    let mut peer = share(kind, &asked.plan.directory, work.class(kind))?;
    read_all(peer.as_mut(), keys)?;
    let span_ns = (asked.plan.seconds(Part::Processes) * 1e9) as u64;
    if work == Work::Seen {
        return if worker == 0 {
            seen::set(peer, span_ns)
        } else {
            seen::get(peer, span_ns)
        };
    }
    let mut working = Working::new(peer, work, &Operations::new(keys, processes, worker));
    let until = await_start()? + span_ns;
    let syncs = working.peer.commits_and_syncs();
    let sleeps = sleeps();
    match work {
        Work::Gets => working.only_get(until),
        Work::Mixed => working.mix(until),
        _ => working.only_set(until),
    }
    let slept = self::sleeps() - sleeps;
    let synced = working.peer.commits_and_syncs();
    let mut figures = Figures::default();
    figures.add(OPERATIONS, working.operations as f64);
    figures.add(SETS, working.set_count as f64);
    figures.add(SLEEPS, slept);
    if let Some(((_, before), (_, after))) = syncs.zip(synced) {
        figures.add(SYNCS, (after - before) as f64);
    }
    working.latencies.tell(&mut figures);
    Ok(figures)
}

/// Reads every key once: what is kept in memory is there before the clock starts.
fn read_all(peer: &mut dyn Peer, keys: u64) -> Result<(), String> {
    for number in 0..keys {
        let found = peer.get(&pair(number, 0).0);
        if found.as_deref() != Some(&stamped(number, FIRST_STAMP)[..]) {
            return Err("a process does not see what was loaded".to_owned());
        }
    }
    Ok(())
}

/// Says that this process can begin, and waits until all begin; says when that was.
pub fn await_start() -> Result<u64, String> {
    let mut stdout = std::io::stdout();
    let said = stdout.write_all(READY.as_bytes());
    said.and_then(|()| stdout.flush())
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| error.to_string())?;
    let told = line.trim().parse().map_err(|_| "the start was called off");
    let start_ns = told?;
    clock::wait_until(start_ns);
    Ok(start_ns)
}

/// How often this thread has gone to sleep so far.
fn sleeps() -> f64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0.0)
}

impl Working {
    fn new(peer: Box<dyn Peer>, work: Work, operations: &Operations) -> Self {
        let numbers = 0..OPERATION_COUNT;
        let get = |nth| {
            let number = operations.get(nth);
            (number, pair(number, 0).0)
        };
        let set = |nth| {
            let (number, stamp) = operations.set(nth);
            (pair(number, 0).0, stamped(number, stamp))
        };
        let has_gets = matches!(work, Work::Gets | Work::Mixed);
        let gets = numbers.clone().filter(|_| has_gets).map(get);
        let sets = numbers.filter(|_| work.has_sets()).map(set);
        Self {
            peer,
            gets: gets.collect(),
            sets: sets.collect(),
            operations: 0,
            get_count: 0,
            set_count: 0,
            latencies: Latencies::new(),
        }
    }

    fn only_get(&mut self, until: u64) {
        while self.get_some(GETS_AT_ONCE) <= until {
            self.operations += GETS_AT_ONCE;
        }
    }

    fn only_set(&mut self, until: u64) {
        let mut begun = clock::now_ns();
        while begun < until {
            begun = self.set_one(begun);
            self.operations += usize::from(begun <= until);
        }
    }

    fn mix(&mut self, until: u64) {
        let mut begun = 0;
        while begun < until {
            begun = self.get_some(GETS_A_SET);
            begun = self.set_one(begun);
            self.operations += (GETS_A_SET + 1) * usize::from(begun <= until);
        }
    }

    /// Gets so many keys; when that was done.
    fn get_some(&mut self, count: usize) -> u64 {
        for _ in 0..count {
            let (number, key) = &self.gets[self.get_count % self.gets.len()];
            let value = self.peer.get(key).expect("it is there");
            assert!(stamp_of(*number, &value).is_some(), "it is another one's");
            black_box(value);
            self.get_count += 1;
        }
        clock::now_ns()
    }

    /// Sets a key; when that was done.
    fn set_one(&mut self, begun: u64) -> u64 {
        let (key, value) = &self.sets[self.set_count % self.sets.len()];
        self.peer.set(key, value);
        let end = clock::now_ns();
        self.latencies.add(end - begun);
        self.set_count += 1;
        end
    }
}
