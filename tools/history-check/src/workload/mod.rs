//! A child: works on a store as its seed says, and writes down what it was answered.
//!
//! Each thread has a file of its own, and writes to it by plain calls, so that what is written
//! survives a kill. The first line of a transaction is written before its commit begins.

mod reads;
mod recorded;
mod writes;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fastrand::Rng;
use happystore::{Durability, Options, Raw, Store, Transaction, TxOptions};
use rustix::time::{ClockId, clock_gettime};

use crate::arguments::{ChildArguments, Planted};
use crate::history::{CLOCK, Claim, Id};
use crate::text::{write_begin, write_end};
use reads::Held;
use recorded::{Line, Recorded, text};
use writes::{Context, Work, claim};

/// Small, so that segments roll over.
const SEGMENT_BYTES: u64 = 512 << 10;

/// Far longer than any wait: one that is longer is an error.
const LOCK_TIMEOUT: Duration = Duration::from_mins(1);

/// How often, and for how long, a child that is to be killed waits before a commit, with all
/// written down that it will commit: one of so many.
const PAUSES: u8 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// How long a commit with a deferred sync may wait for it.
const DEFERRED_DELAY: Duration = Duration::from_millis(3);

/// Something that ends a transaction, and but for the first of these its process.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error that a transaction was to return.
    Wanted,
    /// Of the store.
    Store(happystore::Error),
    /// Of the file of the history.
    Machine(io::Error),
}

impl From<happystore::Error> for Failure {
    fn from(error: happystore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Machine(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted => write!(f, "an error that was wanted"),
            Self::Store(error) => write!(f, "a call of the store failed: {error}"),
            Self::Machine(error) => write!(f, "the history cannot be written: {error}"),
        }
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    Abort,
    Fail,
}

/// Does the work of a child.
pub(crate) fn run(arguments: &ChildArguments) -> Result<ExitCode, String> {
    let cannot = |failure: Failure| format!("process {}: {failure}", arguments.process);
    let store =
        open(&arguments.scratch, arguments.process).map_err(|error| cannot(error.into()))?;
    let results: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let start = |thread| {
            let store = &store;
            scope.spawn(move || Worker::new(store, arguments, thread)?.work(arguments.transactions))
        };
        let threads: Vec<_> = (0..arguments.threads).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            let panicked = |_| Err(Failure::Machine(io::Error::other("a thread has panicked")));
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(join).collect()
    });
    results
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(cannot)?;
    store.close().map_err(|error| cannot(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the store and its first content, as thread 0 of `arguments.process`.
pub(crate) fn set_up(arguments: &ChildArguments) -> Result<(), Failure> {
    let store = open(&arguments.scratch, arguments.process)?;
    let mut worker = Worker::new(&store, arguments, 0)?;
    worker.begin('0');
    let tx = store.begin()?;
    let recorded = Recorded {
        source: &tx,
        line: &worker.line,
    };
    claim(&recorded, worker.id())?;
    writes::set_up(&recorded)?;
    announce(&worker.file, &worker.line, false)?;
    tx.commit()?;
    worker.end(true)?;
    store.close()?;
    Ok(())
}

/// All that is in the store.
pub(crate) fn content(scratch: &Path, process: u32) -> Result<Vec<(String, String)>, Failure> {
    let store = open(scratch, process)?;
    let mut content = Vec::new();
    for pair in store.scan().iter()? {
        let (key, value) = pair?;
        content.push((key, text(value)));
    }
    store.verify()?;
    store.close()?;
    Ok(content)
}

fn open(scratch: &Path, process: u32) -> happystore::Result<Store<Raw>> {
    Options::new()
        .serializer(Raw)
        .durability(Durability::Os)
        .segment_bytes(SEGMENT_BYTES)
        .lock_timeout(LOCK_TIMEOUT)
        .label(format!("process {process}"))
        .open(scratch.join("store"))
}

/// The history of a thread.
pub(crate) fn history_file(scratch: &Path, process: u32, thread: u32) -> PathBuf {
    scratch.join(format!("history-{process}-{thread}"))
}

/// The monotonic clock, which all processes share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Writes the first line of a transaction, before its commit.
fn announce(mut file: &File, line: &Line, pauses: bool) -> io::Result<()> {
    let mut line = line.borrow_mut();
    line.push('\n');
    file.write_all(line.as_bytes())?;
    line.clear();
    if pauses {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// A thread.
struct Worker<'s> {
    store: &'s Store<Raw>,
    file: File,
    line: Line,
    random: Rng,
    process: u32,
    thread: u32,
    /// How many transactions are in the file.
    number: u32,
    /// The last position that it has seen.
    seen: u64,
    held: Vec<Held>,
    sync_per_thousand: u32,
    pauses: bool,
    planted: Option<Planted>,
}

impl<'s> Worker<'s> {
    fn new(
        store: &'s Store<Raw>,
        arguments: &ChildArguments,
        thread: u32,
    ) -> Result<Self, Failure> {
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(history_file(&arguments.scratch, arguments.process, thread))?;
        let own = (u64::from(arguments.process) << 32) | u64::from(thread);
        Ok(Self {
            store,
            file,
            line: RefCell::new(String::new()),
            random: Rng::with_seed(arguments.seed ^ own.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            process: arguments.process,
            thread,
            number: 0,
            seen: 0,
            held: Vec::new(),
            sync_per_thousand: arguments.sync_per_thousand,
            pauses: arguments.pauses,
            planted: arguments.planted,
        })
    }

    fn id(&self) -> Id {
        Id {
            process: self.process,
            thread: self.thread,
            number: self.number,
        }
    }

    fn work(&mut self, transactions: u64) -> Result<(), Failure> {
        while u64::from(self.number) < transactions {
            match self.random.u8(..100) {
                0..=49 => self.write()?,
                50..=52 => self.hold_snapshot()?,
                53..=58 => self.read_held()?,
                59..=66 => self.query()?,
                67..=70 => self.bulk_get()?,
                71 => self.walk()?,
                72..=76 => self.plain_has()?,
                _ => self.plain_get()?,
            }
        }
        while !self.held.is_empty() {
            self.read_held()?;
        }
        Ok(())
    }

    /// Begins the line of a transaction.
    fn begin(&self, kind: char) {
        let mut line = self.line.borrow_mut();
        line.clear();
        write_begin(&mut line, kind, now());
    }

    /// Ends it now.
    fn end(&mut self, is_committed: bool) -> Result<(), Failure> {
        self.end_at(now(), is_committed)
    }

    /// Writes what is not written yet: at least the second line.
    fn end_at(&mut self, end: u64, is_committed: bool) -> Result<(), Failure> {
        let mut line = self.line.borrow_mut();
        if !line.is_empty() {
            line.push('\n');
        }
        write_end(&mut line, is_committed, end);
        self.file.write_all(line.as_bytes())?;
        line.clear();
        self.number += 1;
        Ok(())
    }

    /// The durability of the next transaction, where it is not the store's.
    fn durability(&mut self) -> Option<Durability> {
        let dice = self.random.u32(..1000);
        if dice < self.sync_per_thousand {
            Some(Durability::Sync)
        } else if dice >= 995 {
            Some(Durability::Deferred(DEFERRED_DELAY))
        } else {
            None
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let work = Work::any(&mut self.random);
        let ending = match self.random.u8(..20) {
            0 | 1 => Ending::Abort,
            2 => Ending::Fail,
            _ => Ending::Commit,
        };
        let kind = match ending {
            Ending::Commit => work.letter(),
            Ending::Abort => 'a',
            Ending::Fail => 'e',
        };
        let durability = self.durability();
        self.begin(kind);
        if self.planted == Some(Planted::LostUpdate) && self.random.u8(..50) == 0 {
            self.lose_update()?;
            return self.end(true);
        }
        let is_committed = if durability.is_some() || self.random.u8(..4) == 0 {
            self.write_guard(work, ending, durability)?
        } else {
            self.write_closure(work, ending)?
        };
        self.end(is_committed)?;
        if self.planted == Some(Planted::HiddenWrite) && self.random.u8(..100) == 0 {
            self.store.set("hot/0", "hidden")?;
        }
        Ok(())
    }

    /// Whether the next transaction waits before its commit.
    fn pauses(&mut self) -> bool {
        self.pauses && self.random.u8(..PAUSES) == 0
    }

    fn write_closure(&mut self, work: Work, ending: Ending) -> Result<bool, Failure> {
        let (id, pauses) = (self.id(), self.pauses());
        let (store, line, file, planted) = (self.store, &self.line, &self.file, self.planted);
        let (random, seen) = (&mut self.random, &mut self.seen);
        let body = |tx: &Transaction<'_, Raw, str, Failure>| {
            let recorded = Recorded { source: tx, line };
            *seen = perform(&recorded, id, random, work)?;
            if ending == Ending::Commit {
                announce(file, line, pauses)?;
            }
            match ending {
                Ending::Commit => Ok(true),
                Ending::Abort if planted == Some(Planted::CommittedAbort) => Ok(false),
                Ending::Abort => tx.abort(false),
                Ending::Fail => Err(Failure::Wanted),
            }
        };
        match store.transaction(body) {
            Err(Failure::Wanted) => Ok(false),
            other => other,
        }
    }

    fn write_guard(
        &mut self,
        work: Work,
        ending: Ending,
        durability: Option<Durability>,
    ) -> Result<bool, Failure> {
        let (id, pauses) = (self.id(), self.pauses());
        let mut options = TxOptions::new();
        if let Some(durability) = durability {
            options = options.durability(durability);
        }
        let tx = self.store.begin_with(&options)?;
        let recorded = Recorded {
            source: &tx,
            line: &self.line,
        };
        self.seen = perform(&recorded, id, &mut self.random, work)?;
        if ending != Ending::Commit {
            return Ok(false);
        }
        announce(&self.file, &self.line, pauses)?;
        tx.commit()?;
        Ok(true)
    }

    /// The planted fault: takes the clock from before the transaction.
    fn lose_update(&mut self) -> Result<(), Failure> {
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        let clock = recorded.get(CLOCK)?;
        let before: Option<Claim> = clock.and_then(|clock| clock.parse().ok());
        std::thread::yield_now();
        let own = Claim {
            position: before.map_or(0, |claim| claim.position) + 1,
            author: self.id(),
        };
        let tx = self.store.begin()?;
        let recorded = Recorded {
            source: &tx,
            line: &self.line,
        };
        recorded.set(CLOCK, &own.to_string())?;
        announce(&self.file, &self.line, false)?;
        tx.commit()?;
        Ok(())
    }
}

/// Claims a position and does the work; which position that is.
fn perform<W: happystore::Write<Raw>>(
    tx: &Recorded<'_, W>,
    id: Id,
    random: &mut Rng,
    work: Work,
) -> Result<u64, Failure> {
    let position = claim(tx, id)?;
    let mut context = Context {
        random,
        position,
        id,
        elements: 0,
        depth: 0,
    };
    work.perform(tx, &mut context)?;
    Ok(position)
}
