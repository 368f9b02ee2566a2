//! What was asked for on the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lexopt::prelude::*;

use crate::processes::Work;
use crate::stores::{self, Kind, STORES};

pub const HELP: &str = "\
happystore beside other embedded stores, in one run, each in a process of its own

usage: happystore-peers [options]

  --only PART            one part alone:
                           single     one thread; commits that survive a killed process
                           durable    several threads; commits that survive a power cut
                           processes  several processes on one store, of those that can:
                                      happystore, LMDB, redb, SQLite
  --stores A,B           of happystore, rocksdb, lmdb, redb, fjall, sled, sqlite; all unless said
  --keys N               keys of the single part, 1000000 unless said, and of the processes
                         part, 200000 unless said; at least 1000
  --threads N,M          committing threads of the durable part; 1,2,8,32 unless said
  --processes N,M        of the processes part; 1,2,4 unless said
  --work A,B             of the processes part: gets, sets, durable, mixed, seen, alone; all
                         unless said
  --seconds N            for each cell, may be 0.5; unless said 5 in the durable part and 2 in
                         the processes part
  --rounds N             how often all is run; 3 unless said; tables show the median of the
                         rounds, and the least and the most
  --directory DIR        where the stores lie, each in a fresh directory that is removed;
                         the system's directory for temporary files unless said. It must be on
                         a disk: in memory no commit is durable
  --help                 this text

A whole run needs about 10 GiB of disk and 4 GiB of memory. Builds with the Debian packages g++,
clang and libclang-dev, for RocksDB; from benches/peers, whose .cargo/config.toml lets it use the
checksum instructions of the processor. `cargo run --release --no-default-features` leaves RocksDB
out, and builds in a minute or two.";

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Single,
    Durable,
    Processes,
}

const PARTS: [(&str, Part); 3] = [
    ("single", Part::Single),
    ("durable", Part::Durable),
    ("processes", Part::Processes),
];

/// What one store does at a time, in a process of its own that may start others.
#[derive(Clone, Copy)]
pub enum Cell {
    Single,
    Durable { threads: usize },
    Processes { work: Work, processes: usize },
}

/// How much work, and where.
pub struct Plan {
    /// How many keys the single part loads.
    pub keys: u64,
    /// How many keys the store of the processes part has.
    pub shared_keys: u64,
    /// How long a cell takes; what its part takes unless said.
    seconds: Option<f64>,
    /// Where the stores lie.
    pub directory: PathBuf,
}

impl Plan {
    pub fn seconds(&self, part: Part) -> f64 {
        let unless_said = if part == Part::Processes { 2.0 } else { 5.0 };
        self.seconds.unwrap_or(unless_said)
    }

    /// A directory of its own for one store.
    pub fn fresh_directory(&self) -> Result<tempfile::TempDir, String> {
        let made = tempfile::Builder::new()
            .prefix("happystore-peers-")
            .tempdir_in(&self.directory);
        made.map_err(|error| format!("no directory in {}: {error}", self.directory.display()))
    }
}

pub struct Asked {
    pub plan: Plan,
    pub parts: Vec<Part>,
    pub stores: Vec<&'static Kind>,
    pub threads: Vec<usize>,
    pub processes: Vec<usize>,
    pub works: Vec<Work>,
    pub rounds: usize,
    /// Set in a child: the store to run, for one cell.
    pub child: Option<&'static Kind>,
    /// Set in a child of a child: which of the processes it is. The directory is its store's.
    pub worker: Option<usize>,
}

impl Cell {
    /// For people who watch.
    pub fn title(self) -> String {
        match self {
            Self::Single => "single".to_owned(),
            Self::Durable { threads } => format!("durable, {threads} at once"),
            Self::Processes { work, processes } => {
                format!("processes, {}, {processes} at once", work.name())
            }
        }
    }

    /// The options that tell a child of it.
    pub fn arguments(self) -> Vec<String> {
        let said = match self {
            Self::Single => "--only single".to_owned(),
            Self::Durable { threads } => format!("--only durable --threads {threads}"),
            Self::Processes { work, processes } => {
                let work = work.name();
                format!("--only processes --work {work} --processes {processes}")
            }
        };
        said.split(' ').map(str::to_owned).collect()
    }

    fn part(self) -> Part {
        match self {
            Self::Single => Part::Single,
            Self::Durable { .. } => Part::Durable,
            Self::Processes { .. } => Part::Processes,
        }
    }
}

impl Asked {
    /// This program again, as a child for `cell` of the store `kind`.
    pub fn child_of(&self, kind: &Kind, cell: Cell, directory: &Path) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let keys = match cell.part() {
            Part::Processes => self.plan.shared_keys,
            _ => self.plan.keys,
        };
        let mut command = Command::new(program);
        command
            .args(["--child", kind.name])
            .args(cell.arguments())
            .args(["--keys", &keys.to_string()])
            .args(["--seconds", &self.plan.seconds(cell.part()).to_string()])
            .arg("--directory")
            .arg(directory)
            .stderr(Stdio::inherit());
        Ok(command)
    }

    /// From the command line; `None` if that asks for help.
    pub fn parse() -> Result<Option<Self>, String> {
        let mut asked = Self {
            plan: Plan {
                keys: 1_000_000,
                shared_keys: 200_000,
                seconds: None,
                directory: std::env::temp_dir(),
            },
            parts: PARTS.iter().map(|(_, part)| *part).collect(),
            stores: STORES.iter().collect(),
            threads: vec![1, 2, 8, 32],
            processes: vec![1, 2, 4],
            works: Work::ALL.to_vec(),
            rounds: 3,
            child: None,
            worker: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            let option = match argument {
                Long("help") | Short('h') => return Ok(None),
                Long(option) => option.to_owned(),
                other => return Err(other.unexpected().to_string()),
            };
            let value = parser.value().map_err(|error| error.to_string())?;
            let value = value.into_string().map_err(|_| "an option is no text")?;
            asked.take(&option, &value)?;
        }
        asked.check()?;
        Ok(Some(asked))
    }

    fn take(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "only" => {
                let found = PARTS.iter().find(|(name, _)| *name == value);
                self.parts = vec![found.ok_or(format!("there is no part {value}"))?.1];
            }
            "stores" => self.stores = list(value, stores::find)?,
            "keys" => {
                self.plan.keys = number(option, value)?;
                self.plan.shared_keys = self.plan.keys;
            }
            "threads" => self.threads = list(value, |value| number(option, value))?,
            "processes" => self.processes = list(value, |value| number(option, value))?,
            "work" => self.works = list(value, Work::find)?,
            "seconds" => self.plan.seconds = Some(number(option, value)?),
            "rounds" => self.rounds = number(option, value)?,
            "directory" => self.plan.directory = PathBuf::from(value),
            "child" => self.child = Some(stores::find(value)?),
            "worker" => self.worker = Some(number(option, value)?),
            _ => return Err(format!("there is no option --{option}; see --help")),
        }
        Ok(())
    }

    /// What each store runs, in this order.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for part in &self.parts {
            match part {
                Part::Single => cells.push(Cell::Single),
                Part::Durable => {
                    let threads = self.threads.iter();
                    cells.extend(threads.map(|&threads| Cell::Durable { threads }));
                }
                Part::Processes => {
                    for &work in &self.works {
                        let counts = work.counts(&self.processes);
                        cells.extend(counts.map(|processes| Cell::Processes { work, processes }));
                    }
                }
            }
        }
        cells
    }

    fn check(&self) -> Result<(), String> {
        if self.plan.keys < 1000 || self.rounds == 0 {
            return Err("there must be at least 1000 keys and one round".to_owned());
        }
        if !(0.1..=3600.0).contains(&self.plan.seconds.unwrap_or(1.0)) {
            return Err("a cell takes from 0.1 to 3600 seconds".to_owned());
        }
        if self
            .threads
            .iter()
            .any(|threads| !(1..=256).contains(threads))
        {
            return Err("there may be 1 to 256 threads".to_owned());
        }
        if self.processes.iter().any(|count| !(1..=64).contains(count)) {
            return Err("there may be 1 to 64 processes".to_owned());
        }
        Ok(())
    }
}

/// The items of a list with commas.
fn list<T>(value: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').map(item).collect()
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("--{option} does not take {value}"))
}
