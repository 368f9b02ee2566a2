//! Compaction by itself: a background worker of each process that has the store open.
//!
//! In all processes, also in those that only read or do not compact, it takes in what others have
//! moved; one, which holds the lock `COMPACT` meanwhile, writes hints and compacts. It waits for the
//! writer lock for moments only, and tries again, so that closing the store never waits for it long.
//!
//! A failure ends the run, never the store: it is tried again after a while that doubles each time,
//! without the segments that cannot be read. Space that commits may soon need it leaves alone.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::plan::{Policy, victims, within_room};
use super::{Candidate, Election, Run, Step, candidates, sweep};
use crate::engine::Engine;
use crate::engine::absorb::hints_of_segment;
use crate::engine::compactor::CompactionState;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Manifest;
use crate::options::Compaction;
use crate::vfs::Next;

/// How long between two looks when there is nothing to do: what other processes have moved is
/// taken in that late, and its space given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long it waits for the writer lock before it lets others stop it.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long after each run others may begin with what they have to do.
const BREATH: Duration = Duration::from_millis(20);

/// How much free space it leaves to others, beside a segment.
const SPARED_BYTES: u64 = 1 << 20;

/// How long after a failure it tries again, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// The worker's state.
struct Automatic {
    engine: Weak<Engine>,
    /// None if it only takes in what others have moved.
    policy: Option<Policy>,
    /// Bytes a second.
    rate_limit: Option<u64>,
    /// Whether it has removed what somebody who died before may have left.
    has_swept: bool,
    /// What it is rewriting, and segments of runs that have met damage.
    victims: Vec<u32>,
    damaged: HashSet<u32>,
    /// How long it waits after the next failure, and until when after the last.
    retry: Duration,
    not_before: Duration,
}

/// Has the worker of `engine` started as soon as there is something to look at. If no thread can be
/// had there is no compaction, and nothing else is the worse for it.
pub(crate) fn start(engine: &Arc<Engine>, compaction: &Compaction) {
    let may_write = engine.check_writable().is_ok();
    let policy = (compaction.automatic && may_write).then(|| Policy {
        dead_ratio: compaction.dead_ratio,
        dead_bytes: compaction.dead_bytes,
        segment_bytes: u64::from(engine.log.segment_bytes()),
    });
    let (weak, rate_limit) = (Arc::downgrade(engine), compaction.rate_limit_bytes);
    let start = Box::new(move || {
        let engine = weak.upgrade()?;
        let mut state = Automatic {
            engine: weak.clone(),
            policy,
            rate_limit,
            has_swept: false,
            victims: Vec::new(),
            damaged: HashSet::new(),
            retry: RETRY_MIN,
            not_before: Duration::ZERO,
        };
        let step = Box::new(move || state.step());
        let spawned = engine.vfs.spawn("happystore-compact", step);
        spawned
            .inspect_err(|error| tracing::warn!(%error, "the store is not compacted by itself"))
            .ok()
    });
    engine.compactor.set(start, policy.is_some());
    if policy.is_some() && engine.log.segments().len() > 1 {
        engine.compactor.wake();
    }
}

impl Automatic {
    fn step(&mut self) -> Next {
        let Some(engine) = self.engine.upgrade() else {
            return Next::Done;
        };
        let job = engine.compactor.take_job();
        let advanced = match job.and_then(|job| job.downcast::<Job>().ok()) {
            Some(job) => self.go_on(&engine, job),
            None => self.begin(&engine),
        };
        match advanced {
            Ok(pause) => Next::After(pause),
            Err(error) if is_only_late(&error) => Next::After(PATIENCE),
            Err(error) => {
                tracing::warn!(path = %engine.identity.path.display(), %error, "compaction failed");
                engine
                    .compactor
                    .set_state(CompactionState::Failed(error.kind()));
                if error.kind() == ErrorKind::Corrupt {
                    self.damaged.extend(self.victims.drain(..));
                }
                self.not_before = engine.vfs.monotonic().saturating_add(self.retry);
                self.retry = (self.retry * 2).min(RETRY_MAX);
                Next::After(IDLE)
            }
        }
    }

    /// Looks whether there is anything to do, and begins with it if nobody else has; how long until
    /// the next step.
    fn begin(&mut self, engine: &Arc<Engine>) -> Result<Duration> {
        if engine.check_open().is_err() {
            return Ok(IDLE);
        }
        // Of a store that takes no writes any more too: others' space is given back.
        engine.absorb()?;
        let is_mine_to_do = self.policy.is_some() && !engine.compactor.is_wanted();
        let is_too_soon = engine.vfs.monotonic() < self.not_before;
        if !is_mine_to_do || is_too_soon || engine.check_writable().is_err() {
            return Ok(IDLE);
        }
        if self.has_swept && self.work(engine, &engine.settled_manifest()?)?.is_none() {
            return Ok(self.rest(engine));
        }
        let Some(election) = Election::win(engine)? else {
            return Ok(self.rest(engine));
        };
        if !self.has_swept {
            sweep(engine, PATIENCE)?;
            self.has_swept = true;
        }
        // Others may have done it meanwhile.
        let manifest = engine.settled_manifest()?;
        match self.work(engine, &manifest)? {
            None => Ok(self.rest(engine)),
            Some(Work::Hint(id)) => {
                engine.compactor.set_state(CompactionState::Running);
                self.write_hints(engine, &manifest, id)
            }
            Some(Work::Rewrite(ids)) => {
                engine.compactor.set_state(CompactionState::Running);
                // Whoever compacted before may have died since.
                sweep(engine, PATIENCE)?;
                self.victims.clone_from(&ids);
                let run = Run::new(engine, manifest, &ids, PATIENCE)?;
                engine.compactor.leave_job(Box::new(Job { run, election }));
                Ok(Duration::ZERO)
            }
        }
    }

    /// Notes that there is nothing to do.
    fn rest(&mut self, engine: &Engine) -> Duration {
        let state = if self.damaged.is_empty() {
            CompactionState::Idle
        } else {
            CompactionState::Failed(ErrorKind::Corrupt)
        };
        engine.compactor.set_state(state);
        self.retry = RETRY_MIN;
        IDLE
    }

    fn write_hints(&mut self, engine: &Engine, manifest: &Manifest, id: u32) -> Result<Duration> {
        self.victims = vec![id];
        let mut listed = manifest.segments.iter();
        let Some(entry) = listed.find(|entry| entry.id == id) else {
            return Ok(Duration::ZERO);
        };
        let hints = hints_of_segment(engine, manifest, entry)?;
        // All of the segment was read for it.
        Ok(self.pause(entry.end.len_bytes + hints.file_bytes()))
    }

    /// Goes on with `job`, and gives it up if it is done or somebody else wants to compact; how long
    /// until the next step.
    fn go_on(&mut self, engine: &Arc<Engine>, mut job: Box<Job>) -> Result<Duration> {
        if engine.check_writable().is_err() || engine.compactor.is_wanted() {
            return Ok(Duration::ZERO);
        }
        job.election.check()?;
        let before = job.run.done().written_bytes;
        let step = job.run.step();
        let pause = self.pause(job.run.done().written_bytes.saturating_sub(before));
        match step {
            Ok(Step::Finished) => {
                self.retry = RETRY_MIN;
                return Ok(pause.max(BREATH));
            }
            Err(error) if !is_only_late(&error) => return Err(error),
            Ok(Step::More) | Err(_) => {}
        }
        engine.compactor.leave_job(job);
        step.map(|_| pause)
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// `DiskFull` if there is no room for it; `Io`.
    fn work(&self, engine: &Engine, manifest: &Manifest) -> Result<Option<Work>> {
        let Some(policy) = &self.policy else {
            return Ok(None);
        };
        let mut candidates = candidates(engine, manifest);
        candidates.retain(|candidate| !self.damaged.contains(&candidate.id));
        let room_bytes = room(engine, policy)?;
        let is_unhinted = |candidate: &&Candidate| {
            candidate.hint_bytes == 0 && candidate.hint_bytes_max() <= room_bytes
        };
        let ids = victims(&candidates, policy);
        if ids.is_empty() {
            let unhinted = candidates.iter().find(is_unhinted);
            return Ok(unhinted.map(|candidate| Work::Hint(candidate.id)));
        }
        // The keys of a segment with tombstones are read in order, which takes little memory from
        // hints, and much without.
        let of_victims = |candidate: &&Candidate| ids.contains(&candidate.id);
        let mut with_tombstones = candidates.iter().filter(of_victims);
        let unhinted = with_tombstones.find(|one| one.has_tombstones && is_unhinted(one));
        if let Some(candidate) = unhinted {
            return Ok(Some(Work::Hint(candidate.id)));
        }
        match within_room(&candidates, &ids, room_bytes) {
            Ok(ids) => Ok(Some(Work::Rewrite(ids))),
            Err(needed_bytes) => {
                let full = std::io::ErrorKind::StorageFull;
                let path = &engine.identity.path;
                Err(Error::allocate(path, needed_bytes, full.into()))
            }
        }
    }

    /// How long to wait after so many bytes.
    fn pause(&self, bytes: u64) -> Duration {
        let Some(limit) = self.rate_limit else {
            return Duration::ZERO;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limit.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// How many bytes may be written for compaction: commits keep room for a segment, and for all the
/// small files and blocks that a file system needs beside it.
fn room(engine: &Engine, policy: &Policy) -> Result<u64> {
    let path = &engine.identity.path;
    let free = engine.vfs.free_bytes(path);
    let free = free.map_err(|error| Error::io("look at", path, error))?;
    Ok(free.saturating_sub(policy.segment_bytes + SPARED_BYTES))
}

/// What the worker is in the middle of: the run first, which removes what it leaves undone while nobody
/// else compacts.
struct Job {
    run: Run,
    election: Election,
}

/// Whether somebody else had the writer lock: the next step goes on from there.
fn is_only_late(error: &Error) -> bool {
    error.kind() == ErrorKind::LockTimeout
}

/// What there is to do.
enum Work {
    /// A segment has no hints.
    Hint(u32),
    /// Segments are worth rewriting.
    Rewrite(Vec<u32>),
}
