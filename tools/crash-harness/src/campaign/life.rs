//! One store, from its first child to its last: work, a kill, perhaps kills while opening, a look.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use super::aim::{Aim, Kind};
use super::{Settings, Tally, compactor};
use crate::arguments::{Mode, name_of};
use crate::oracle::check::Found;
use crate::oracle::{Broken, History};
use crate::process::{Ended, Running};
use crate::protocol::Event;

/// How many working children a store sees, at most: what they committed grows.
const CHILDREN_MAX: u16 = 8;

/// How long a child may take to come to its end, before it is killed at last.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same, of one that only has the store open: if there is anything to compact it does so at once.
const HELD_PATIENCE: Duration = Duration::from_millis(60);

/// How long between two looks whether a child compacts.
const LOOK: Duration = Duration::from_micros(100);

/// How long opening may take, with thousands of records and a machine that does other things too.
pub(super) const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// A promise that was broken, or a harness that could not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    Broken(Broken),
    Cannot(io::Error),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Cannot(error)
    }
}

/// A store under work.
pub(crate) struct Life<'a> {
    settings: &'a Settings,
    seed: u64,
    /// The store is in `store`, a copy of what the last kill left in `killed`.
    directory: &'a Path,
    store: PathBuf,
    mode: Mode,
    writers: u8,
    segment_bytes: u64,
    shift: u32,
    random: Rng,
    lives: u16,
    /// Whether the last child was killed while it compacted.
    was_compacting: bool,
    history: History,
    /// How the last child was killed, for people.
    pub(crate) last: String,
}

impl<'a> Life<'a> {
    /// A store of this seed, in `directory`, which is empty.
    pub(crate) fn new(settings: &'a Settings, seed: u64, directory: &'a Path) -> Self {
        let mut random = Rng::with_seed(seed);
        let modes = &settings.modes;
        let at = usize::try_from(seed % modes.len() as u64).unwrap_or(0);
        Self {
            settings,
            seed,
            directory,
            store: directory.join("store"),
            mode: modes[at],
            writers: settings.writers.unwrap_or_else(|| random.u8(1..=4)),
            segment_bytes: 1 << random.u32(11..=15),
            shift: random.u32(40..=400),
            random,
            lives: 0,
            was_compacting: false,
            history: History::new(seed),
            last: "not killed yet".to_owned(),
        }
    }

    /// Runs all of it, or until `goes_on` says no; counts into `tally`.
    ///
    /// # Errors
    /// The first broken promise; what the machine refuses.
    pub(crate) fn run(&mut self, tally: &Tally, goes_on: &dyn Fn() -> bool) -> Result<(), Stop> {
        let mut kinds = self.settings.kinds.clone();
        kinds.retain(|kind| Kind::ALONE.contains(kind) && *kind != Kind::Opening);
        // Those during compaction come twice.
        let of_compaction: Vec<_> = kinds
            .iter()
            .copied()
            .filter(|kind| kind.is_of_compaction())
            .collect();
        kinds.extend(of_compaction);
        self.random.shuffle(&mut kinds);
        tally.store_begun(self.mode);
        let mut checked = *self.history.checked();
        for child in 0..usize::from(CHILDREN_MAX) {
            if !goes_on() {
                break;
            }
            let kind = kinds[child % kinds.len()];
            self.work(kind, tally)?;
            if self.random.bool() {
                for _ in 0..self.random.u8(1..=2) {
                    self.open_and_die(tally)?;
                }
            }
            self.look()?;
            let now = *self.history.checked();
            tally.checked(&checked, &now);
            checked = now;
        }
        Ok(())
    }

    /// A child works until it is killed.
    fn work(&mut self, kind: Kind, tally: &Tally) -> Result<(), Stop> {
        let aim = Aim::new(kind, &mut self.random, self.segment_bytes);
        let mut running = self.start(&aim, false)?;
        let mut is_caught = false;
        if running.wait_for(Instant::now() + OPEN_PATIENCE, |event| {
            *event == Event::Opened
        }) {
            match &aim {
                Aim::Random { after } => {
                    running.wait_for_end(Instant::now() + *after);
                }
                Aim::Stopped { after, pause } => {
                    running.wait_for_end(Instant::now() + *after);
                    running.signal(Signal::STOP);
                    std::thread::sleep(*pause);
                }
                Aim::Compacting { after } => {
                    is_caught = self.catch_compacting(&mut running, *after, PATIENCE);
                }
                _ => {
                    running.wait_for_end(Instant::now() + PATIENCE);
                }
            }
        }
        running.signal(Signal::KILL);
        let ended = running.finish()?;
        self.count(tally, kind, is_caught || hit(&aim, &ended), &aim);
        self.take(&ended)
    }

    /// Stops the child `after` it was seen to compact, if it still does then; or tries again, sooner
    /// each time. False if it has not come to that within `patience`.
    fn catch_compacting(&self, child: &mut Running, after: Duration, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut after = after;
        loop {
            let Some(worker) = child.worker() else {
                return false;
            };
            if compactor::of(&self.store) == Some(worker) {
                let is_over = child.wait_for_end(Instant::now() + after);
                if is_over || compactor::stop(worker, &self.store) {
                    return !is_over;
                }
                after /= 2;
            }
            if child.wait_for_end(Instant::now() + LOOK) || Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Counts a kill; one that is no `hit` was at a random time.
    fn count(&mut self, tally: &Tally, kind: Kind, hit: bool, aim: &Aim) {
        tally.killed(if hit { kind } else { Kind::Random }, hit, 1);
        let is_compacting = hit && kind.is_of_compaction();
        if is_compacting {
            tally.killed_in_compaction(aim.compaction_point(), self.was_compacting);
        }
        self.was_compacting = is_compacting;
    }

    /// A child opens the store, and is killed while it does, or while it compacts what it has found.
    fn open_and_die(&mut self, tally: &Tally) -> Result<(), Stop> {
        if self.random.bool() {
            return self.open_and_compact(tally);
        }
        let aim = Aim::while_opening(&mut self.random, self.settings.has_strace());
        let mut running = self.start(&aim, true)?;
        let wait = match &aim {
            Aim::Random { after } => *after,
            _ => OPEN_PATIENCE,
        };
        running.wait_for(Instant::now() + wait, |event| *event == Event::Opened);
        running.signal(Signal::KILL);
        let ended = running.finish()?;
        let was_open = ended.events.contains(&Event::Opened);
        self.count(tally, Kind::Opening, !was_open, &aim);
        self.take(&ended)
    }

    /// A child opens the store, and is killed while it compacts it: often what somebody has left who
    /// was killed in a compaction too.
    fn open_and_compact(&mut self, tally: &Tally) -> Result<(), Stop> {
        let is_seen = self.settings.kinds.contains(&Kind::Compacting) && self.random.bool();
        let (kind, aim) = if is_seen {
            let kind = Kind::Compacting;
            (kind, Aim::new(kind, &mut self.random, self.segment_bytes))
        } else {
            let aim = Aim::at_compaction(&mut self.random, 1);
            (Kind::CompactionPoint, aim)
        };
        let mut running = self.start(&aim, true)?;
        let mut is_caught = false;
        if running.wait_for(Instant::now() + OPEN_PATIENCE, |event| {
            *event == Event::Opened
        }) {
            if let Aim::Compacting { after } = aim {
                is_caught = self.catch_compacting(&mut running, after, HELD_PATIENCE);
            } else {
                running.wait_for_end(Instant::now() + HELD_PATIENCE);
            }
        }
        running.signal(Signal::KILL);
        let ended = running.finish()?;
        self.count(tally, kind, is_caught || hit(&aim, &ended), &aim);
        self.take(&ended)
    }

    fn start(&mut self, aim: &Aim, hold: bool) -> io::Result<Running> {
        let mut command = aim.command(&self.settings.program);
        command.arg("--store").arg(&self.store);
        let numbers = [
            ("--seed", self.seed.to_string()),
            ("--life", self.lives.to_string()),
            ("--mode", name_of(&self.mode)),
            ("--writers", self.writers.to_string()),
            ("--segment-bytes", self.segment_bytes.to_string()),
            ("--shift", self.shift.to_string()),
        ];
        for (name, value) in numbers {
            command.args([name, &value]);
        }
        if hold {
            command.arg("--hold");
        }
        if let Some(fault) = self.settings.planted {
            command.arg("--planted").arg(name_of(&fault));
        }
        let doing = if hold { "opening" } else { "working" };
        self.last = format!("child {} while {doing}, {aim:?}", self.lives);
        self.lives += 1;
        Running::start(command, &self.directory.join("errors"))
    }

    /// Takes in what a child reported; it must have been killed. What it left is copied first, for
    /// people to look at: looking at it with a store may change it.
    fn take(&mut self, ended: &Ended) -> Result<(), Stop> {
        keep_as_killed(self.directory)?;
        if !matches!(ended.signal(), Some(Signal::KILL | Signal::XFSZ)) {
            let errors = std::fs::read_to_string(self.directory.join("errors"))?;
            let what = format!("the child was not killed, but ended: {}", ended.how());
            let said = self.history.take(&ended.events).err();
            let said = said.map_or_else(String::new, |broken| format!("; {}", broken.0));
            return Err(Broken(format!("{what}{said}; {}", errors.trim())).into());
        }
        Ok(self.history.take(&ended.events)?)
    }

    /// Looks at what the kill has left: as a writer, who finds out what became of what was unfinished,
    /// and then as one who only reads.
    fn look(&mut self) -> Result<(), Stop> {
        let found = Found {
            is_alone: true,
            path: &self.store,
            mode: self.mode,
            segment_bytes: self.segment_bytes,
        };
        self.history.check(found)?;
        Ok(())
    }
}

/// Whether the child died where the aim was, not because patience ended.
fn hit(aim: &Aim, ended: &Ended) -> bool {
    match aim {
        Aim::Random { .. } | Aim::Stopped { .. } => true,
        // Whether it was seen is told by whoever has looked.
        Aim::Compacting { .. } => false,
        Aim::FileBytes { .. } => ended.signal() == Some(Signal::XFSZ),
        // The harness kills with the same signal, but not before its patience has ended.
        Aim::Call { .. } | Aim::Point { .. } => ended.died_by_itself,
    }
}

/// Copies the store in `directory` as a kill has left it, for people to look at: looking at it with a
/// store may change it.
///
/// # Errors
/// What the machine says.
pub(super) fn keep_as_killed(directory: &Path) -> io::Result<()> {
    copy(&directory.join("store"), &directory.join("killed"))
}

/// Replaces `to` by a copy of the files in `from`, which may not be there yet.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir(to)?;
    if !from.exists() {
        return Ok(());
    }
    for item in std::fs::read_dir(from)? {
        let item = item?;
        match std::fs::copy(item.path(), to.join(item.file_name())) {
            // Who still has the store open may remove what is not finished.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    Ok(())
}
