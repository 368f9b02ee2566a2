//! Running the program, and reading its report.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

/// Says loudly, past the test harness, what this machine does not allow.
pub(crate) fn skipped(what: &str) {
    counted(&format!("SKIPPED: {what}"));
}

/// Says past the test harness what was counted.
pub(crate) fn counted(what: &str) {
    // Not by a macro that prints: the test harness hides what those say in tests that pass.
    std::io::stderr()
        .write_all(format!("{what}\n").as_bytes())
        .unwrap();
}

/// A directory for stores whose syncs need no disk, where the machine has one: the faults that are
/// tried there are made by hand.
pub(crate) fn quick_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A seed from the environment, to repeat a run that printed it, or a new one for each run: one from
/// which the first stores have all modes and all numbers of processes.
pub(crate) fn seed() -> u64 {
    let told = ["HAPPYSTORE_CRASH_SEED", "HAPPYSTORE_SEED"];
    let told = told.iter().find_map(|name| std::env::var(name).ok());
    told.map_or_else(
        || u64::from(std::process::id()) * 1200,
        |seed| seed.parse().unwrap(),
    )
}

/// The program, with these arguments.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happystore-crash-harness"));
    command.args(arguments);
    command
}

/// Runs `command` to its end.
fn output(command: &mut Command) -> Output {
    loop {
        match command.output() {
            // A copy of the program that was written just now: a child that another thread has just
            // forked has it open for writing, until it becomes its own program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(5));
            }
            output => return output.unwrap(),
        }
    }
}

/// What the program printed, and how it ended.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
}

impl Report {
    pub(crate) fn of(arguments: &[&str]) -> Self {
        Self::from(program(arguments))
    }

    pub(crate) fn from(mut command: Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = output(&mut command);
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        Self {
            text,
            code: status.code(),
        }
    }

    /// The number behind `name=` in the line of a child that has done its work; 0 without it.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let words = self.done().split(' ');
        let mut figures = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        figures.next().map_or(0, |figure| figure.parse().unwrap())
    }

    /// The line of a child that has done its work.
    pub(crate) fn done(&self) -> &str {
        let mut lines = self.text.lines();
        let done = lines.find_map(|line| line.strip_prefix("done "));
        done.unwrap_or_else(|| panic!("the child has not done its work: {}", self.text))
    }

    /// The number behind `name: `, at the begin of a line.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let mut lines = self.text.lines();
        let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let number = number.unwrap_or_else(|| panic!("no {name} in {}", self.text));
        number.parse().unwrap()
    }
}
