//! What a campaign tells: a progress line while it runs, figures at its end.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::aim::Kind;
use super::{Campaign, Goal};
use crate::arguments::Mode;
use crate::oracle::Checked;

/// How often whoever watches a terminal, and whoever reads lines later, is told.
const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_mins(1);

/// Counts of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    kills: [u64; Kind::ALL.len()],
    missed: u64,
    stores: [u64; Mode::ALL.len()],
    checked: Checked,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_begun(&self, mode: Mode) {
        self.counts().stores[mode as usize] += 1;
    }

    /// A child was killed in this way; `hit` is whether it is the way that was aimed at.
    pub(super) fn killed(&self, kind: Kind, hit: bool) {
        let mut counts = self.counts();
        counts.kills[kind as usize] += 1;
        counts.missed += u64::from(!hit);
    }

    /// A history has come from `before` to `now`.
    pub(super) fn checked(&self, before: &Checked, now: &Checked) {
        self.counts().checked.add(&now.since(before));
    }

    pub(super) fn kills(&self) -> u64 {
        self.counts().kills.iter().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        for kind in Kind::ALL {
            let kills = counts.kills[kind as usize];
            writeln!(f, "kills {}: {kills}", kind.name())?;
        }
        let all: u64 = counts.kills.iter().sum();
        writeln!(f, "kills: {all}")?;
        writeln!(
            f,
            "of which came before what they were aimed at: {}",
            counts.missed
        )?;
        for mode in Mode::ALL {
            let stores = counts.stores[mode as usize];
            writeln!(f, "stores of mode {}: {stores}", mode.name())?;
        }
        let checked = &counts.checked;
        writeln!(f, "openings checked: {}", checked.openings)?;
        writeln!(f, "acknowledged commits: {}", checked.acknowledged)?;
        writeln!(
            f,
            "unacknowledged, there as a whole: {}",
            checked.found_whole
        )?;
        writeln!(f, "unacknowledged, not there: {}", checked.found_absent)?;
        writeln!(f, "seen by readers: {}", checked.seen)?;
        write!(f, "keys compared: {}", checked.keys)
    }
}

/// Shows how far the campaign is, until `is_over`.
pub(super) fn progress(campaign: &Campaign, is_over: impl Fn() -> bool) {
    let bar = bar(campaign);
    let mut next = Instant::now() + LINE;
    while !is_over() {
        std::thread::sleep(REDRAW / 5);
        let kills = campaign.tally.kills();
        match campaign.goal {
            Goal::Kills(_) => bar.set_position(kills),
            Goal::Time(_) => bar.set_position(campaign.begun.elapsed().as_secs()),
        }
        let openings = campaign.tally.counts().checked.openings;
        bar.set_message(format!("{kills} kills, {openings} openings checked"));
        if bar.is_hidden() && Instant::now() >= next {
            next += LINE;
            let minutes = campaign.begun.elapsed().as_secs() / 60;
            line(format!(
                "after {minutes} min: {kills} kills, {openings} openings checked"
            ));
        }
    }
    bar.finish_and_clear();
}

fn bar(campaign: &Campaign) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (length, template) = match campaign.goal {
        Goal::Kills(kills) => (kills, "{bar:30} {pos} of {len}  {msg}"),
        Goal::Time(time) => (time.as_secs(), "{bar:30} {pos} of {len} s  {msg}"),
    };
    let style = ProgressStyle::with_template(template)
        .expect("OK because the templates are constants of this file");
    ProgressBar::new(length).with_style(style)
}

/// Says something on the standard output; nobody may be listening any more.
pub(crate) fn line(text: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says loudly what this machine does not allow.
pub(crate) fn skipped(what: &str) {
    line(format!("SKIPPED: {what}"));
}
