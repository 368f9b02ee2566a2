//! What a campaign tells: a progress line while it runs, figures at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::aim::Kind;
use super::{Campaign, Goal};
use crate::arguments::{Mode, name_of};
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
    /// Of those during compaction: where the one before it was one too, of the same store.
    again: u64,
    /// Deaths at each point of compaction.
    points: BTreeMap<&'static str, u64>,
    stores: [u64; Mode::ALL.len()],
    /// Kills where so many processes were writing, the killed one too.
    kills_beside: [u64; PROCESSES_MAX],
    checked: Checked,
    beside: Beside,
}

/// What was counted where several processes worked together.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// How often one who lived on was waited for after a death, and was seen to go on.
    pub(super) went_on: u64,
    /// How long the longest of them took, to its next commit.
    pub(super) longest: Duration,
    /// How long the longest opening took beside dying processes.
    pub(super) longest_opening: Duration,
    /// Commits that were refused because somebody had the writer lock, who was named.
    pub(super) named: u64,
}

/// How many processes write to a store at a time, at most.
const PROCESSES_MAX: usize = 4;

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_begun(&self, mode: Mode) {
        self.counts().stores[mode as usize] += 1;
    }

    /// A child was killed in this way; `hit` is whether it is the way that was aimed at, `writing`
    /// how many processes were.
    pub(super) fn killed(&self, kind: Kind, hit: bool, writing: usize) {
        let mut counts = self.counts();
        counts.kills[kind as usize] += 1;
        counts.missed += u64::from(!hit);
        counts.kills_beside[writing.clamp(1, PROCESSES_MAX) - 1] += 1;
    }

    /// A child died at this point of compaction; `again` is whether the one before it died during a
    /// compaction too.
    pub(super) fn killed_in_compaction(&self, point: Option<&'static str>, again: bool) {
        let mut counts = self.counts();
        counts.again += u64::from(again);
        if let Some(point) = point {
            *counts.points.entry(point).or_default() += 1;
        }
    }

    /// Adds what several processes have shown.
    pub(super) fn beside(&self, more: &Beside) {
        let all = &mut self.counts().beside;
        all.went_on += more.went_on;
        all.longest = all.longest.max(more.longest);
        all.longest_opening = all.longest_opening.max(more.longest_opening);
        all.named += more.named;
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
        let of_compaction = Kind::ALL.iter().filter(|kind| kind.is_of_compaction());
        let of_compaction: u64 = of_compaction.map(|&kind| counts.kills[kind as usize]).sum();
        writeln!(f, "kills during compaction: {of_compaction}")?;
        writeln!(f, "of which right after another one: {}", counts.again)?;
        for (point, kills) in &counts.points {
            writeln!(f, "kills at the point {point}: {kills}")?;
        }
        writeln!(
            f,
            "of which came before what they were aimed at: {}",
            counts.missed
        )?;
        for (at, kills) in counts.kills_beside.iter().enumerate() {
            writeln!(f, "kills with {} writing: {kills}", at + 1)?;
        }
        for mode in Mode::ALL {
            let stores = counts.stores[mode as usize];
            writeln!(f, "stores of mode {}: {stores}", name_of(&mode))?;
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
        writeln!(f, "keys compared: {}", checked.keys)?;
        writeln!(f, "snapshots of readers compared: {}", checked.looks)?;
        let beside = &counts.beside;
        writeln!(f, "went on after a death: {}", beside.went_on)?;
        writeln!(f, "longest of them, in ms: {}", beside.longest.as_millis())?;
        writeln!(
            f,
            "longest opening beside deaths, in ms: {}",
            beside.longest_opening.as_millis()
        )?;
        write!(f, "refused, and told by whom: {}", beside.named)
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
