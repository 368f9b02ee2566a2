//! What was asked for on the command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::stores::{self, Kind, STORES};

pub const HELP: &str = "\
happystore beside other embedded stores, in one run, each in a process of its own

usage: happystore-peers [options]

  --only single|durable  one part alone:
                           single   one thread; commits that survive a killed process
                           durable  several threads; commits that survive a power cut
  --stores A,B           of happystore, rocksdb, lmdb, redb, fjall, sqlite; all unless said
  --keys N               keys of the single part, at least 1000; 1000000 unless said
  --threads N,M          committing threads of the durable part; 1,2,8,32 unless said
  --seconds N            for each cell of the durable part, may be 0.5; 5 unless said
  --rounds N             how often all is run; 3 unless said; tables show the median of the
                         rounds, and the least and the most
  --directory DIR        where the stores lie, each in a fresh directory that is removed;
                         the system's directory for temporary files unless said. It must be on
                         a disk: in memory, no commit of the durable part is durable
  --help                 this text

A whole run needs about 10 GiB of disk and 4 GiB of memory. Builds with the Debian packages g++,
clang and libclang-dev, for RocksDB; from benches/peers, whose .cargo/config.toml lets it use the
checksum instructions of the processor.";

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Single,
    Durable,
}

/// How much work, and where.
pub struct Plan {
    /// How many keys the single part loads.
    pub keys: u64,
    /// How long a cell of the durable part takes.
    pub seconds: f64,
    /// Where the stores lie.
    pub directory: PathBuf,
}

impl Plan {
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
    pub rounds: usize,
    /// Set in a child: the store to run, for one part and one number of threads.
    pub child: Option<&'static Kind>,
}

impl Asked {
    /// From the command line; `None` if that asks for help.
    pub fn parse() -> Result<Option<Self>, String> {
        let mut asked = Self {
            plan: Plan {
                keys: 1_000_000,
                seconds: 5.0,
                directory: std::env::temp_dir(),
            },
            parts: vec![Part::Single, Part::Durable],
            stores: STORES.iter().collect(),
            threads: vec![1, 2, 8, 32],
            rounds: 3,
            child: None,
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
            "only" if value == "single" => self.parts = vec![Part::Single],
            "only" if value == "durable" => self.parts = vec![Part::Durable],
            "only" => return Err(format!("there is no part {value}")),
            "stores" => {
                self.stores = value
                    .split(',')
                    .map(stores::find)
                    .collect::<Result<_, _>>()?;
            }
            "keys" => self.plan.keys = number(option, value)?,
            "threads" => {
                let numbers = value.split(',').map(|value| number(option, value));
                self.threads = numbers.collect::<Result<_, _>>()?;
            }
            "seconds" => self.plan.seconds = number(option, value)?,
            "rounds" => self.rounds = number(option, value)?,
            "directory" => self.plan.directory = PathBuf::from(value),
            "child" => self.child = Some(stores::find(value)?),
            _ => return Err(format!("there is no option --{option}; see --help")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.plan.keys < 1000 || self.rounds == 0 {
            return Err("there must be at least 1000 keys and one round".to_owned());
        }
        if !(0.1..=3600.0).contains(&self.plan.seconds) {
            return Err("a cell takes from 0.1 to 3600 seconds".to_owned());
        }
        if self
            .threads
            .iter()
            .any(|threads| !(1..=256).contains(threads))
        {
            return Err("there may be 1 to 256 threads".to_owned());
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("--{option} does not take {value}"))
}
