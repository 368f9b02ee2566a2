//! Running the program, and reading its report.

use std::process::{Command, Output};

/// The program, with these arguments.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happystore-crash-harness"));
    command.args(arguments);
    command
}

/// What the program printed, and how it ended.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
}

impl Report {
    pub(crate) fn of(arguments: &[&str]) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = program(arguments).output().unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        Self {
            text,
            code: status.code(),
        }
    }

    /// The number behind `name: `, at the begin of a line.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let mut lines = self.text.lines();
        let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let number = number.unwrap_or_else(|| panic!("no {name} in {}", self.text));
        number.parse().unwrap()
    }
}
