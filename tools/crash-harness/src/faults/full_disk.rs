//! A child that fills the disk to the brim, looks at its store, frees space and goes on.

use std::collections::BTreeMap;
use std::process::ExitCode;

use happystore::{ErrorKind, Raw, Result, Store};

use super::{Errors, Trouble};
use crate::arguments::FullDiskArguments;
use crate::child::open;
use crate::protocol::{Event, Reporter};

/// The values that are tried, largest first, each until the disk refuses it, in bytes.
const VALUES_BYTES: [usize; 6] = [6000, 1500, 400, 90, 17, 0];

/// What is freed in the end, in bytes.
const BALLAST_BYTES: usize = 192 << 10;

/// More than fit on the disk of any test.
const COMMITS_MAX: u64 = 20_000;

/// How many single deletes must go on when no write does any more.
const DELETES: usize = 16;

/// How many commits must go on once there is space again.
const COMMITS_AFTER: u64 = 40;

/// Runs the child.
pub(crate) fn run(arguments: &FullDiskArguments) -> ExitCode {
    let reporter = match Reporter::new() {
        Ok(reporter) => reporter,
        Err(error) => return crate::cannot(format!("report to the parent: {error}")),
    };
    reporter.say(&Event::Hello(std::process::id()));
    match fill_and_go_on(arguments) {
        Ok(text) => {
            reporter.say(&Event::Done(text));
            ExitCode::SUCCESS
        }
        Err(Trouble::Broken(what)) => {
            reporter.say(&Event::Broken(what));
            ExitCode::FAILURE
        }
        Err(Trouble::GaveUp) => crate::cannot("fill the disk: it is too large"),
    }
}

struct Full<'a> {
    arguments: &'a FullDiskArguments,
    store: Store<Raw>,
    /// What was acknowledged.
    right: BTreeMap<String, Vec<u8>>,
    commits: u64,
    errors: Errors,
}

fn fill_and_go_on(arguments: &FullDiskArguments) -> std::result::Result<String, Trouble> {
    // Made here, not by the parent: a process that the parent starts at the same moment could have
    // it open for a while, and then its removal would free nothing.
    let ballast = vec![1; BALLAST_BYTES];
    let made = std::fs::write(&arguments.ballast, ballast);
    made.map_err(|error| Trouble::Broken(format!("the harness cannot take space: {error}")))?;
    let store = match open_raw(arguments) {
        // Not even an empty store fits on it.
        Err(error) if error.kind() == ErrorKind::DiskFull && error.is_retryable() => {
            return Ok("open=0".to_owned());
        }
        answer => said("open", answer)?,
    };
    let mut full = Full {
        arguments,
        store,
        right: BTreeMap::new(),
        commits: 0,
        errors: Errors::default(),
    };
    full.fill()?;
    full.compare()?;
    if arguments.reopen {
        full.reopen()?;
        full.fill()?;
    }
    if arguments.deletes {
        full.delete_some()?;
    }
    let on_full_disk = full.commits;
    let removed = std::fs::remove_file(&arguments.ballast);
    removed.map_err(|error| Trouble::Broken(format!("cannot free space: {error}")))?;
    for _ in 0..COMMITS_AFTER {
        if let Some(kind) = full.set(VALUES_BYTES[1])? {
            let free = free_bytes(arguments);
            let what = format!("{kind:?} though {free} bytes are free again, without reopening");
            return Err(Trouble::Broken(what));
        }
    }
    full.compare()?;
    full.reopen()?;
    Ok(format!("open=1 commits={on_full_disk}{}", full.errors))
}

/// How much space there is, for people.
fn free_bytes(arguments: &FullDiskArguments) -> u64 {
    rustix::fs::statvfs(&arguments.store).map_or(0, |found| found.f_bavail * found.f_frsize)
}

fn open_raw(arguments: &FullDiskArguments) -> Result<Store<Raw>> {
    let store = open(&arguments.store, arguments.mode, arguments.segment_bytes)?;
    Ok(store.with(Raw))
}

fn said<T>(doing: &str, answer: Result<T>) -> std::result::Result<T, Trouble> {
    answer.map_err(|error| Trouble::Broken(format!("cannot {doing}: {error}")))
}

impl Full<'_> {
    /// Sets keys until not even the smallest value finds room.
    fn fill(&mut self) -> std::result::Result<(), Trouble> {
        for bytes in VALUES_BYTES {
            loop {
                if self.commits >= COMMITS_MAX {
                    return Err(Trouble::GaveUp);
                }
                if self.set(bytes)?.is_some() {
                    // It stays so: nothing was freed.
                    if self.set(bytes)?.is_none() {
                        continue;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sets one more key; what kept it from that, which can only be the disk.
    fn set(&mut self, bytes: usize) -> std::result::Result<Option<ErrorKind>, Trouble> {
        let key = format!("fill/{:06}", self.commits);
        let letter = u8::try_from(self.commits % 251).unwrap_or(0);
        let value = vec![letter; bytes];
        match self.store.set(&key, &value) {
            Ok(()) => {
                self.commits += 1;
                self.right.insert(key, value);
                Ok(None)
            }
            Err(error) => {
                let full = [ErrorKind::DiskFull];
                self.errors.expect("set", &error, &full).map(Some)
            }
        }
    }

    fn delete_some(&mut self) -> std::result::Result<(), Trouble> {
        let keys: Vec<_> = self.right.keys().take(DELETES).cloned().collect();
        for key in keys {
            if !said("delete on a full disk", self.store.delete(&key))? {
                return Err(Trouble::Broken(format!("{key} was not there to delete")));
            }
            self.right.remove(&key);
        }
        self.compare()
    }

    fn reopen(&mut self) -> std::result::Result<(), Trouble> {
        said("close", self.store.clone().close())?;
        self.store = said("open again", open_raw(self.arguments))?;
        self.compare()
    }

    fn compare(&self) -> std::result::Result<(), Trouble> {
        said("verify", self.store.verify())?;
        let found = self.store.scan().iter::<Vec<u8>>();
        let found = found.and_then(Iterator::collect::<Result<BTreeMap<String, Vec<u8>>>>);
        let found = said("read", found)?;
        if found == self.right {
            return Ok(());
        }
        let (found, right) = (found.len(), self.right.len());
        let what = format!("reads are wrong: {found} keys, {right} were acknowledged");
        Err(Trouble::Broken(what))
    }
}
