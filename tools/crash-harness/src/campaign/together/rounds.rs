//! How one round goes: who is killed, when, and what must be true of the others then.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::aim::{Aim, Kind};
use super::super::compactor;
use super::super::life::{OPEN_PATIENCE, Stop};
use super::members::{Fate, Member, Role};
use super::{Together, is_aimed};

/// How long a process may take to come to where it is to die, before it is killed at last.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long between two looks whether anybody compacts.
const LOOK: Duration = Duration::from_micros(100);

/// How long it may take from a kill to the end of the process.
const END_PATIENCE: Duration = Duration::from_secs(30);

impl Together<'_> {
    /// Kills some, as `kind` says, and sees that the others go on.
    pub(super) fn round(&mut self, kind: Kind) -> Result<(), Stop> {
        match kind {
            Kind::AllAtOnce => self.kill_all(false),
            Kind::OpeningOfSeveral => self.kill_while_opening(),
            Kind::Owner => self.kill_owner(Kind::Owner),
            Kind::StoppedOwner if self.random.bool() => self.kill_owner(Kind::StoppedOwner),
            Kind::StoppedOwner => self.kill_one(Kind::StoppedOwner),
            Kind::CallOfSeveral
            | Kind::FileBytesOfSeveral
            | Kind::PointOfSeveral
            | Kind::CompactionPointOfSeveral => self.kill_by_aim(kind),
            Kind::CompactingOfSeveral => self.kill_compacting(),
            _ => self.kill_one(Kind::OneOfSeveral),
        }
    }

    /// Fills all places, last with those who are to die as `fates` say: others have the store open by
    /// then.
    fn gather(&mut self, fates: Vec<Fate>) -> Result<(), Stop> {
        let places = usize::from(self.processes);
        while self.members.writing().len() + fates.len() > places {
            self.kill_one_now(Kind::OneOfSeveral, None)?;
        }
        let others = places - fates.len() - self.members.writing().len();
        self.start_writers(vec![Self::unharmed(); others])?;
        self.start_readers()?;
        self.all_open(Instant::now(), false)?;
        if fates.is_empty() {
            return Ok(());
        }
        self.start_writers(fates)?;
        self.all_open(Instant::now(), false)
    }

    /// One at a random time, perhaps stopped before.
    fn kill_one(&mut self, kind: Kind) -> Result<(), Stop> {
        self.gather(Vec::new())?;
        let time = self.random.u64(..30_000);
        self.pause(Duration::from_micros(time))?;
        let pause = (kind == Kind::StoppedOwner).then(|| self.random.u64(..60));
        self.kill_one_now(kind, pause)
    }

    /// One of those who write, or, now and then, one who reads.
    fn kill_one_now(&mut self, kind: Kind, stopped_ms: Option<u64>) -> Result<(), Stop> {
        let mut lives = self.members.writing();
        if self.random.u8(..8) == 0 {
            let all = self.members.all.iter();
            lives = all.map(|member| member.life).collect();
        }
        let Some(life) = self.random.choice(lives) else {
            return Ok(());
        };
        if let Some(ms) = stopped_ms {
            self.stop(life, ms)?;
            if self.random.u8(..3) == 0 {
                // Others may have taken from it what they could, and it comes back.
                self.signal(life, Signal::CONT);
                let time = self.random.u64(..5_000);
                self.pause(Duration::from_micros(time))?;
            }
        }
        let since = Instant::now();
        self.kill(&[life], Some(kind))?;
        self.others_go_on(since)
    }

    fn stop(&mut self, life: u16, ms: u64) -> Result<(), Stop> {
        self.reach(life)?;
        self.signal(life, Signal::STOP);
        self.pause(Duration::from_millis(ms))
    }

    /// The one who has the writer lock, inside its transaction, while others wait for it.
    fn kill_owner(&mut self, kind: Kind) -> Result<(), Stop> {
        let owner = Fate {
            kind,
            hold_at: Some(self.random.u64(1..40)),
            ..Self::unharmed()
        };
        self.gather(vec![owner])?;
        let holds = |members: &[Member]| members.iter().any(|member| member.holds);
        self.until(Instant::now() + OPEN_PATIENCE, holds)?;
        let Some((life, _)) = self.owner else {
            return self.kill_one_now(Kind::OneOfSeveral, None);
        };
        let others_wait = |members: &[Member]| {
            let mut others = members.iter().filter(|member| member.life != life);
            others.any(|member| member.is_writing() && member.in_flight > 0)
        };
        self.until(Instant::now() + PATIENCE, others_wait)?;
        let time = self.random.u64(..12_000);
        self.pause(Duration::from_micros(time))?;
        if kind == Kind::StoppedOwner {
            let ms = self.random.u64(..80);
            self.stop(life, ms)?;
        }
        // Who waits with little patience begins another commit at once.
        self.until(Instant::now() + PATIENCE, others_wait)?;
        let since = Instant::now();
        self.kill(&[life], Some(kind))?;
        self.others_go_on(since)
    }

    /// The one who compacts, or, now and then, all at that moment.
    fn kill_compacting(&mut self) -> Result<(), Stop> {
        self.gather(Vec::new())?;
        let Some(life) = self.catch_compacting()? else {
            return self.kill_one_now(Kind::OneOfSeveral, None);
        };
        if self.random.u8(..4) == 0 {
            let readers_too = self.random.bool();
            self.kill_everybody(readers_too)?;
            return self.look();
        }
        let since = Instant::now();
        self.kill(&[life], Some(Kind::CompactingOfSeveral))?;
        self.others_go_on(since)
    }

    /// Stops whoever compacts a moment after he was seen to, if he still does then, or somebody else
    /// later; nobody, if it does not come to that within a while.
    fn catch_compacting(&mut self) -> Result<Option<u16>, Stop> {
        let store = self.directory.join("store");
        let deadline = Instant::now() + PATIENCE;
        let aim = Aim::new(
            Kind::CompactingOfSeveral,
            &mut self.random,
            self.segment_bytes,
        );
        let Aim::Compacting { mut after } = aim else {
            return Ok(None);
        };
        while self.sees_compactions() && Instant::now() < deadline {
            if let Some((life, process)) = self.members.compacting(&store) {
                self.pause(after)?;
                let lives = self
                    .members
                    .get(life)
                    .is_some_and(|member| member.is_well());
                if lives && compactor::stop(process, &store) {
                    if let Some(member) = self.members.get(life) {
                        member.is_stopped = true;
                        member.is_caught = true;
                    }
                    return Ok(Some(life));
                }
                after /= 2;
            }
            self.pause(LOOK)?;
        }
        Ok(None)
    }

    fn sees_compactions(&self) -> bool {
        self.settings.kinds.contains(&Kind::CompactingOfSeveral)
    }

    /// One or two who die by themselves, at a system call, a byte of a file, a named point.
    fn kill_by_aim(&mut self, kind: Kind) -> Result<(), Stop> {
        let is_double = self.processes > 2 && self.random.bool();
        let aims = match kind {
            Kind::PointOfSeveral if is_double => Aim::at_mending(&mut self.random).to_vec(),
            // Whoever compacts next finds what the first one has left, and dies of it, too.
            Kind::CompactionPointOfSeveral if is_double => vec![
                Aim::at_compaction(&mut self.random, 2),
                Aim::at_compaction(&mut self.random, 1),
            ],
            _ => vec![Aim::new(kind, &mut self.random, self.segment_bytes)],
        };
        let fate = |aim: &Aim| Fate {
            aim: aim.clone(),
            kind,
            hold_at: None,
        };
        let first = self.lives;
        self.gather(aims.iter().map(fate).collect())?;
        let is_target = |member: &Member| member.life >= first && is_aimed(&member.fate.aim);
        let since = Instant::now();
        self.until(since + PATIENCE, |members| !members.iter().any(is_target))?;
        let died = Instant::now();
        let left = self.members.all.iter().filter(|member| is_target(member));
        let left: Vec<u16> = left.map(|member| member.life).collect();
        if kind != Kind::CompactionPointOfSeveral {
            self.kill(&left, None)?;
        }
        // Others have compacted meanwhile; who has not dies at that point when its turn comes.
        self.others_go_on(died)
    }

    /// All who write, and often those who read, in any order; then looks at what is left.
    pub(super) fn kill_all(&mut self, readers_too: bool) -> Result<(), Stop> {
        if !readers_too {
            self.gather(Vec::new())?;
            let time = self.random.u64(..30_000);
            self.pause(Duration::from_micros(time))?;
        }
        let readers_too = readers_too || self.random.bool();
        if self.random.u8(..4) > 0 {
            self.catch_compacting()?;
        }
        self.kill_everybody(readers_too)?;
        self.look()
    }

    fn kill_everybody(&mut self, readers_too: bool) -> Result<(), Stop> {
        let mut lives = self.members.writing();
        if readers_too {
            lives = self.members.all.iter().map(|member| member.life).collect();
        }
        self.random.shuffle(&mut lives);
        self.kill(&lives, Some(Kind::AllAtOnce))
    }

    /// All, and then some of those who open the store after that; the others open it all the same.
    fn kill_while_opening(&mut self) -> Result<(), Stop> {
        // Without a look between: what has to be mended is mended by those who open it now.
        self.gather(Vec::new())?;
        let readers_too = self.random.u8(..4) > 0;
        if self.random.u8(..4) > 0 {
            self.catch_compacting()?;
        }
        self.kill_everybody(readers_too)?;
        let has_strace = self.settings.kinds.contains(&Kind::CallOfSeveral);
        let victims = self.random.u8(1..=self.processes);
        let mut fates = Vec::new();
        for _ in 0..victims {
            fates.push(Fate {
                aim: Aim::while_opening(&mut self.random, has_strace),
                kind: Kind::OpeningOfSeveral,
                hold_at: None,
            });
        }
        // Who comes first recovers the log, and dies of it, if it is one of those; then the next one.
        fates.extend(vec![
            Self::unharmed();
            usize::from(self.processes - victims)
        ]);
        let since = Instant::now();
        self.start_writers(fates)?;
        self.start_readers()?;
        let is_victim = |member: &Member| member.fate.kind == Kind::OpeningOfSeveral;
        let mut waits: Vec<(Duration, u16)> = Vec::new();
        for member in self.members.all.iter().filter(|member| is_victim(member)) {
            match member.fate.aim {
                Aim::Random { after } => waits.push((after, member.life)),
                _ => waits.push((PATIENCE, member.life)),
            }
        }
        waits.sort_unstable();
        for (after, life) in waits {
            let is_gone = |members: &[Member]| !members.iter().any(|member| member.life == life);
            self.until(since + after, is_gone)?;
            self.kill(&[life], None)?;
        }
        let died = Instant::now();
        self.all_open(died, true)?;
        self.others_go_on(Instant::now())
    }

    /// Waits until a signal to `life` would reach it.
    fn reach(&mut self, life: u16) -> Result<(), Stop> {
        let is_there = |member: &Member| member.life != life || !member.is_hidden();
        let deadline = Instant::now() + END_PATIENCE;
        self.until(deadline, |members| members.iter().all(is_there))
            .map(drop)
    }

    fn signal(&mut self, life: u16, signal: Signal) {
        if let Some(member) = self.members.get(life) {
            member.signal(signal);
        }
    }

    /// Kills all of `lives`, one after another without a pause, and waits for their ends. Of those
    /// that were aimed at otherwise, `None` says that the aim was missed.
    fn kill(&mut self, lives: &[u16], kind: Option<Kind>) -> Result<(), Stop> {
        for life in lives {
            self.reach(*life)?;
        }
        if self.owner.is_some_and(|owner| lives.contains(&owner.0)) {
            // What is told from now on may be of whoever comes next.
            self.pause(Duration::ZERO)?;
            self.owner = None;
            self.under_owner.clear();
        }
        let writing = self.members.writing().len();
        let mut killed = Vec::new();
        for life in lives {
            if let Some(member) = self.members.get(*life) {
                member.signal(Signal::KILL);
                killed.push(*life);
            }
        }
        for life in &killed {
            let Some(member) = self.members.get(*life) else {
                continue;
            };
            let is_opening = member.fate.kind == Kind::OpeningOfSeveral && !member.was_open;
            let was = match kind {
                _ if member.is_caught => Kind::CompactingOfSeveral,
                Some(kind) => kind,
                None if is_opening => Kind::OpeningOfSeveral,
                None => Kind::OneOfSeveral,
            };
            let hit = kind.is_some() || is_opening;
            let what = format!("child {life}, a {:?}, {:?}", member.role, member.fate.aim);
            let is_reader = matches!(member.role, Role::Reader(_));
            self.count(was, hit, writing, None);
            let reads = if is_reader { " and read" } else { "" };
            self.last = format!("{what}{reads}, one of {writing} that wrote: {}", was.name());
        }
        let deadline = Instant::now() + END_PATIENCE;
        let is_gone = |member: &Member| !killed.contains(&member.life);
        if !self.until(deadline, |members| members.iter().all(is_gone))? {
            let what = std::io::Error::other("a killed process does not end");
            return Err(Stop::Cannot(what));
        }
        Ok(())
    }
}
