//! Telling people, or programs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    Damaged,
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Damaged => Self::from(3),
            Outcome::Interrupted => Self::from(130),
        }
    }
}

/// Where it is told.
pub(crate) struct Output {
    is_json: bool,
    has_colours: bool,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            is_json,
            has_colours: std::io::stdout().is_terminal() && !wants_none,
        }
    }

    /// Whether a progress bar is seen by anybody.
    pub(crate) fn has_progress(&self) -> bool {
        !self.is_json && std::io::stderr().is_terminal()
    }

    /// Tells people `lines`, or programs `value`.
    pub(crate) fn tell(&self, lines: &[String], value: &Value) {
        let mut out = std::io::stdout().lock();
        // Whoever does not listen any more needs no answer.
        let _ = if self.is_json {
            writeln!(out, "{value}")
        } else {
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))
        };
    }

    /// Whether programs are told.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Tells of what went wrong.
    pub(crate) fn error(&self, message: &str) {
        let mut out = std::io::stderr().lock();
        let _ = if self.is_json {
            writeln!(out, "{}", json!({ "error": message }))
        } else {
            writeln!(out, "error: {message}")
        };
    }

    /// A bar of `width` characters, of which the share of `part` in `whole` lives.
    pub(crate) fn bar(&self, part: u64, whole: u64, width: u64) -> String {
        let lives = match part.min(whole).saturating_mul(width).checked_div(whole) {
            Some(lives) => usize::try_from(lives).unwrap_or(0),
            None => 0,
        };
        let width = usize::try_from(width).unwrap_or(0);
        let (live, dead) = ("█".repeat(lives), "░".repeat(width.saturating_sub(lives)));
        if self.has_colours {
            format!("\u{1b}[32m{live}\u{1b}[31m{dead}\u{1b}[0m")
        } else {
            format!("{live}{dead}")
        }
    }
}

/// A number of bytes as people read it.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
