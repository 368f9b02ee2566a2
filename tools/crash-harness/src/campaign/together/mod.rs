//! One store that several processes write to at once, from its first child to its last.
//!
//! Round by round some of them are killed ([`rounds`]); those who live on must go on, and new ones
//! take the places of the dead. Whenever no writer lives the parent looks at all that is left.

mod members;
mod rounds;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal};

use super::aim::{Aim, Kind};
use super::life::{OPEN_PATIENCE, Stop, keep_as_killed};
use super::report::Beside;
use super::{Settings, Tally};
use crate::arguments::{Mode, Reads, name_of};
use crate::oracle::check::Found;
use crate::oracle::{Broken, Checked, History};
use crate::protocol::Event;
use crate::work::{Id, TOGETHER};
use members::{Fate, Member, Members, PARENT, Role};

/// How many writing children a store sees, at most: what they committed grows, and their writers have
/// a number each.
const CHILDREN_MAX: u16 = 56;

/// Rounds of other kinds have to wait until so many of a hundred kills hit who compacts: they kill many
/// at once, or hit who compacts only by chance, which nobody knows.
const COMPACTION_PERCENT: u32 = 42;

/// A store under the work of several processes.
pub(super) struct Together<'a> {
    settings: &'a Settings,
    tally: &'a Tally,
    seed: u64,
    /// The store is in `store`, a copy of what the last kills left in `killed`.
    directory: &'a Path,
    mode: Mode,
    processes: u8,
    /// Writing threads of each process.
    threads: u8,
    segment_bytes: u64,
    shift: u32,
    /// How long writers wait for the writer lock, where that is short.
    lock_wait_ms: Option<u64>,
    random: Rng,
    /// How many children there were, and how many of them write.
    lives: u16,
    writers: u16,
    members: Members,
    history: History,
    /// What was told of the history already.
    told: Checked,
    /// How many were killed, and how many of them while they compacted.
    kills: u32,
    of_compaction: u32,
    /// Who keeps the writer lock for ever.
    owner: Option<(u16, u32)>,
    /// The operations that have begun since it does.
    under_owner: BTreeSet<Id>,
    /// What happened of late, for people.
    last: String,
}

impl<'a> Together<'a> {
    /// A store of this seed, in `directory`, which is empty.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn new(
        settings: &'a Settings,
        seed: u64,
        directory: &'a Path,
        processes: u8,
        tally: &'a Tally,
    ) -> io::Result<Self> {
        let mut random = Rng::with_seed(seed);
        let modes = &settings.modes;
        let at = usize::try_from(seed % modes.len() as u64).unwrap_or(0);
        Ok(Self {
            settings,
            tally,
            seed,
            directory,
            mode: modes[at],
            processes,
            threads: settings
                .writers
                .map_or_else(|| random.u8(1..=2), |n| n.min(2)),
            segment_bytes: 1 << random.u32(11..=15),
            shift: random.u32(40..=400),
            lock_wait_ms: (random.u8(..3) == 0).then(|| random.u64(2..40)),
            random,
            lives: 0,
            writers: 0,
            members: Members::new()?,
            history: History::new(seed),
            told: Checked::default(),
            kills: 0,
            of_compaction: 0,
            owner: None,
            under_owner: BTreeSet::new(),
            last: "not killed yet".to_owned(),
        })
    }

    /// Runs all of it, or until `goes_on` says no.
    ///
    /// # Errors
    /// The first broken promise; what the machine refuses.
    pub(super) fn run(&mut self, goes_on: &dyn Fn() -> bool) -> Result<(), Stop> {
        let mut kinds = self.settings.kinds.clone();
        kinds.retain(|kind| Kind::OF_SEVERAL.contains(kind));
        let (of_compaction, mut others): (Vec<_>, Vec<_>) =
            kinds.into_iter().partition(|kind| kind.is_of_compaction());
        self.tally.store_begun(self.mode);
        self.random.shuffle(&mut others);
        let mut others = others.into_iter().cycle();
        while goes_on() && self.writers + 2 * u16::from(self.processes) <= CHILDREN_MAX {
            let kind = if self.of_compaction * 100 < self.kills * COMPACTION_PERCENT {
                self.random.choice(&of_compaction).copied()
            } else {
                others.next()
            };
            self.round(kind.unwrap_or(Kind::OneOfSeveral))?;
        }
        self.kill_all(true)
    }

    /// Ends it, and says what happened at last. What those who live still leave is copied, too.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn end(mut self) -> io::Result<String> {
        if !self.members.all.is_empty() {
            self.members.all.clear();
            keep_as_killed(self.directory)?;
        }
        let (mode, processes, threads) = (name_of(&self.mode), self.processes, self.threads);
        Ok(format!(
            "{}; mode {mode}, {processes} processes with {threads} writers",
            self.last
        ))
    }

    /// A process that nobody aims at.
    fn unharmed() -> Fate {
        Fate {
            aim: Aim::Random {
                after: Duration::ZERO,
            },
            kind: Kind::OneOfSeveral,
            hold_at: None,
        }
    }

    /// Starts a process for each of `fates`, in empty places.
    fn start_writers(&mut self, fates: Vec<Fate>) -> Result<(), Stop> {
        let mut fates = fates.into_iter();
        for place in 0..self.processes {
            let is_taken = |member: &Member| member.role == Role::Writer(place);
            if !self.members.all.iter().any(is_taken)
                && let Some(fate) = fates.next()
            {
                self.start(Role::Writer(place), fate)?;
            }
        }
        Ok(())
    }

    /// Starts those who read, if they do not live.
    fn start_readers(&mut self) -> Result<(), Stop> {
        for access in [Reads::Shared, Reads::ReadOnly] {
            let role = Role::Reader(access);
            if !self.members.all.iter().any(|member| member.role == role) {
                self.start(role, Self::unharmed())?;
            }
        }
        Ok(())
    }

    fn start(&mut self, role: Role, fate: Fate) -> Result<(), Stop> {
        let mut command = fate.aim.command(&self.settings.program);
        command.arg("--store").arg(self.directory.join("store"));
        let mut add = |name: &str, value: &dyn ToString| {
            command.args([name, &value.to_string()]);
        };
        add("--seed", &self.seed);
        add("--life", &self.lives);
        add("--mode", &name_of(&self.mode));
        add("--writers", &self.threads);
        add("--segment-bytes", &self.segment_bytes);
        add("--shift", &self.shift);
        match role {
            Role::Reader(access) => add("--reads", &name_of(&access)),
            Role::Writer(_) => {
                let first = u16::from(TOGETHER) + self.writers * u16::from(self.threads);
                add("--first-writer", &first);
                self.writers += 1;
            }
        }
        if let Some(hold_at) = fate.hold_at {
            add("--hold-at", &hold_at);
        } else if let Some(wait) = self.lock_wait_ms {
            add("--lock-wait-ms", &wait);
        }
        if let Some(fault) = self.settings.planted {
            add("--planted", &name_of(&fault));
        }
        command.arg("--together");
        let errors = self.directory.join("errors");
        self.members
            .start(command, self.lives, role, fate, &errors)?;
        self.lives += 1;
        Ok(())
    }

    /// Takes in what children say until `is_so`, or `deadline`; whether it is so.
    fn until(
        &mut self,
        deadline: Instant,
        is_so: impl Fn(&[Member]) -> bool,
    ) -> Result<bool, Stop> {
        loop {
            if is_so(&self.members.all) {
                return Ok(true);
            }
            match self.members.next(deadline) {
                Some(Ok((life, event))) => self.take(life, &event)?,
                Some(Err(line)) => Broken::new(format!("a child says {line:?}"))?,
                None => return Ok(is_so(&self.members.all)),
            }
        }
    }

    /// Takes in what children say for so long.
    fn pause(&mut self, time: Duration) -> Result<(), Stop> {
        self.until(Instant::now() + time, |_| false).map(drop)
    }

    fn take(&mut self, life: u16, event: &Event) -> Result<(), Stop> {
        if life == PARENT {
            return Ok(self.history.take_from(life, event)?);
        }
        let owner = self.owner;
        let Some(member) = self.members.get(life) else {
            return Ok(Broken::new(format!(
                "child {life} says {event}, and is dead"
            ))?);
        };
        member.note(event);
        match event {
            Event::Holds(_) => {
                let worker = member.worker.map_or(0, Pid::as_raw_pid);
                self.owner = Some((life, worker.unsigned_abs()));
            }
            Event::Begun(id) if owner.is_some() => {
                self.under_owner.insert(*id);
            }
            Event::Refused(id, holder) if self.under_owner.contains(id) => {
                let own = member.worker;
                self.refused(*id, *holder, own)?;
            }
            Event::Ended => self.ended(life)?,
            _ => {}
        }
        Ok(self.history.take_from(life, event)?)
    }

    /// Takes in that an operation was refused whose whole wait lay within the time of one owner: the
    /// store must have named that one.
    fn refused(&self, id: Id, holder: u32, own: Option<Pid>) -> Result<(), Stop> {
        let Some((_, owner)) = self.owner else {
            return Ok(());
        };
        // A thread behind another one of its process is told of that one, which waits too, or of
        // nobody, if that one has just been refused.
        let own = own.map(|own| own.as_raw_pid().unsigned_abs());
        let is_behind_its_own = self.threads > 1 && (holder == 0 || Some(holder) == own);
        if holder != owner && !is_behind_its_own {
            let what = format!("{id} waited for process {owner}, and was told of {holder}");
            return Ok(Broken::new(what)?);
        }
        self.tally.beside(&Beside {
            named: u64::from(holder == owner),
            ..Beside::default()
        });
        Ok(())
    }

    /// Takes in that a child is dead, as it was to be.
    fn ended(&mut self, life: u16) -> Result<(), Stop> {
        let writing = self.members.writing().len() + 1;
        let at = self
            .members
            .all
            .iter()
            .position(|member| member.life == life);
        let Some(at) = at else { return Ok(()) };
        let mut member = self.members.all.swap_remove(at);
        let by_itself = !member.is_killed;
        match member.ending()? {
            Ok(Signal::KILL | Signal::XFSZ) if !by_itself => Ok(()),
            Ok(Signal::KILL | Signal::XFSZ) if is_aimed(&member.fate.aim) => {
                let hit = member.fate.kind != Kind::OpeningOfSeveral || !member.was_open;
                self.killed(&member, hit, writing);
                Ok(())
            }
            Ok(signal) => self.not_killed(&member, &format!("signal {signal:?}")),
            Err(how) => self.not_killed(&member, &how),
        }
    }

    fn not_killed(&mut self, member: &Member, how: &str) -> Result<(), Stop> {
        let errors = std::fs::read_to_string(self.directory.join("errors"))?;
        let (life, role) = (member.life, member.role);
        let what = format!("child {life}, a {role:?}, was not killed, but ended: {how}");
        Ok(Broken::new(format!("{what}; {}", errors.trim()))?)
    }

    /// Counts a kill; one that is no `hit` was at a random time.
    fn killed(&mut self, member: &Member, hit: bool, writing: usize) {
        let kind = if hit {
            member.fate.kind
        } else {
            Kind::OneOfSeveral
        };
        self.count(kind, hit, writing, member.fate.aim.compaction_point());
        self.last = format!(
            "child {}, a {:?}, {:?}, one of {writing} that wrote: {}",
            member.life,
            member.role,
            member.fate.aim,
            kind.name()
        );
    }

    /// Counts a kill, perhaps at this point of compaction.
    fn count(&mut self, kind: Kind, hit: bool, writing: usize, point: Option<&'static str>) {
        self.kills += 1;
        self.tally.killed(kind, hit, writing);
        if kind.is_of_compaction() {
            self.of_compaction += 1;
            self.tally.killed_in_compaction(point, false);
        }
    }

    /// Waits until all who live have the store open.
    fn all_open(&mut self, since: Instant, is_beside_deaths: bool) -> Result<(), Stop> {
        let patience = if is_beside_deaths {
            self.settings.patience
        } else {
            OPEN_PATIENCE
        };
        let has_opened = |member: &Member| member.was_open || !member.is_well();
        let all = self.until(since + patience, |members| members.iter().all(has_opened))?;
        if !all {
            let who = self.members.all.iter().filter(|member| !has_opened(member));
            let who: Vec<_> = who.map(|member| (member.life, member.role)).collect();
            Broken::new(format!("{who:?} could not open within {patience:?}"))?;
        }
        if is_beside_deaths {
            self.tally.beside(&Beside {
                longest_opening: since.elapsed(),
                ..Beside::default()
            });
        }
        Ok(())
    }

    /// Those who live on after a death at `since` commit again, and see all that was acknowledged.
    fn others_go_on(&mut self, since: Instant) -> Result<(), Stop> {
        for member in &mut self.members.all {
            member.watch_for_signs();
        }
        let mut waiting: Vec<u16> = self.members.all.iter().map(|member| member.life).collect();
        let deadline = since + self.settings.patience;
        let is_done = |member: &Member| {
            !member.is_well() || !member.was_open || member.went_on && member.has_looked
        };
        let mut beside = Beside::default();
        while !waiting.is_empty() {
            let left = waiting.clone();
            let of = |members: &[Member], life: u16| {
                members
                    .iter()
                    .find(|member| member.life == life)
                    .is_none_or(is_done)
            };
            let some = self.until(deadline, |members| {
                left.iter().any(|life| of(members, *life))
            })?;
            if !some {
                let who: Vec<_> = self
                    .members
                    .all
                    .iter()
                    .filter(|member| !is_done(member))
                    .collect();
                let who: Vec<_> = who
                    .iter()
                    .map(|member| (member.life, member.role))
                    .collect();
                let patience = self.settings.patience;
                Broken::new(format!(
                    "after a death {who:?} did not go on within {patience:?}"
                ))?;
            }
            let members = &self.members.all;
            waiting.retain(|life| {
                let goes_on = of(members, *life);
                let lives = members
                    .iter()
                    .any(|m| m.life == *life && m.is_well() && m.is_writing());
                beside.went_on += u64::from(goes_on && lives);
                !goes_on
            });
            beside.longest = since.elapsed();
        }
        self.tally.beside(&beside);
        Ok(())
    }

    /// Looks at what is left, now that nobody writes.
    fn look(&mut self) -> Result<(), Stop> {
        let store = self.directory.join("store");
        keep_as_killed(self.directory)?;
        let is_there = |member: &Member| !member.is_ended;
        self.history.check(Found {
            is_alone: !self.members.all.iter().any(is_there),
            path: &store,
            mode: self.mode,
            segment_bytes: self.segment_bytes,
        })?;
        self.members.settled()?;
        let now = *self.history.checked();
        self.tally.checked(&self.told, &now);
        self.told = now;
        Ok(())
    }
}

/// Whether a process may end without its parent.
fn is_aimed(aim: &Aim) -> bool {
    !matches!(aim, Aim::Random { .. } | Aim::Stopped { .. })
}
