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
use super::{Asked, Candidate, Election, Run, Step, candidates, sweep};
use crate::engine::Engine;
use crate::engine::absorb::hints_of_segment;
use crate::engine::compactor::CompactionState;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Manifest;
use crate::log::file_name;
use crate::options::Compaction;
use crate::vfs::Next;

/// How long between two looks when there is nothing to do: what other processes have moved is
/// taken in that late, and its space given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long it waits for the writer lock before it lets others stop it: at first, and at most, where
/// so many want it that it never has its turn.
const PATIENCE: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// How long after each run others may begin with what they have to do.
const BREATH: Duration = Duration::from_millis(20);

/// How much free space it leaves to others, beside a segment.
const SPARED_BYTES: u64 = 1 << 20;

/// From how many bytes on a segment takes long to be read.
const LONG_BYTES: u64 = 1 << 20;

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
    /// Segments that cannot be read.
    damaged: HashSet<u32>,
    /// See [`PATIENCE`].
    patience: Duration,
    /// Until when it rests, whoever wakes it: after work that is limited, and after a failure.
    rests_until: Duration,
    /// How long it rests after the next failure.
    retry: Duration,
}

/// Has the worker of `engine` started as soon as there is something to look at. If no thread can be
/// had there is no compaction, and nothing else is the worse for it.
pub(crate) fn start(engine: &Arc<Engine>, compaction: &Compaction) {
    let may_write = engine.check_writable().is_ok();
    let policy = (compaction.automatic && may_write).then(|| Policy {
        dead_ratio: compaction.dead_ratio,
        dead_bytes: compaction.dead_bytes,
        segment_bytes: u64::from(engine.log.segment_bytes()),
        is_partial: false,
    });
    let (weak, rate_limit) = (Arc::downgrade(engine), compaction.rate_limit_bytes);
    let start = Box::new(move || {
        let engine = weak.upgrade()?;
        let mut state = Automatic {
            engine: weak.clone(),
            policy,
            rate_limit,
            has_swept: false,
            damaged: HashSet::new(),
            patience: PATIENCE,
            rests_until: Duration::ZERO,
            retry: RETRY_MIN,
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
        if let Some(left) = self.rest_left(&engine) {
            return Next::After(left);
        }
        let job = engine.compactor.take_job();
        let advanced = match job.and_then(|job| job.downcast::<Job>().ok()) {
            Some(job) => self.go_on(&engine, job),
            None => self.begin(&engine),
        };
        match advanced {
            Ok(After::Work(pause)) => {
                self.patience = PATIENCE;
                self.rests_until = engine.vfs.monotonic().saturating_add(pause);
                Next::After(pause.min(IDLE))
            }
            Ok(After::Nothing) => Next::After(IDLE),
            Err(error) if is_only_late(&error) => {
                self.patience = (self.patience * 2).min(PATIENCE_MAX);
                Next::After(PATIENCE)
            }
            Err(error) => {
                self.note_failure(&engine, &error);
                Next::After(IDLE)
            }
        }
    }

    /// How long it has to rest still; what others have moved it takes in meanwhile.
    fn rest_left(&self, engine: &Arc<Engine>) -> Option<Duration> {
        let left = self.rests_until.saturating_sub(engine.vfs.monotonic());
        if left.is_zero() {
            return None;
        }
        // An error is met again, and told, when the rest is over.
        let _ = engine.check_open().and_then(|()| engine.absorb());
        Some(left.min(IDLE))
    }

    fn note_failure(&mut self, engine: &Engine, error: &Error) {
        tracing::warn!(path = %engine.identity.path.display(), %error, "compaction failed");
        let state = CompactionState::Failed(error.kind());
        engine.compactor.set_state(state);
        if let Error::Corrupt { path, .. } = error {
            // The others are not to blame.
            let name = path.file_name().and_then(|name| name.to_str());
            self.damaged.extend(name.and_then(file_name::segment_id));
        }
        self.rests_until = engine.vfs.monotonic().saturating_add(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    /// Looks whether there is anything to do, and begins with it if nobody else has.
    fn begin(&mut self, engine: &Arc<Engine>) -> Result<After> {
        if engine.check_open().is_err() {
            return Ok(After::Nothing);
        }
        // Of a store that takes no writes any more too: others' space is given back.
        engine.absorb()?;
        let is_mine_to_do = self.policy.is_some() && !engine.compactor.is_wanted();
        if !is_mine_to_do || engine.check_writable().is_err() {
            return Ok(After::Nothing);
        }
        if self.has_swept && self.work(engine, &engine.settled_manifest()?)?.is_none() {
            return Ok(self.rest(engine));
        }
        let Some(election) = Election::win(engine)? else {
            return Ok(self.rest(engine));
        };
        if !self.has_swept {
            sweep(engine, self.patience)?;
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
                sweep(engine, self.patience)?;
                let run = Run::new(engine, manifest, &ids, Asked::ByItself, self.patience)?;
                let job = Box::new(Job { run, election });
                engine.compactor.leave_job(job);
                Ok(After::Work(Duration::ZERO))
            }
        }
    }

    /// Notes that there is nothing to do.
    fn rest(&mut self, engine: &Engine) -> After {
        let state = if self.damaged.is_empty() {
            CompactionState::Idle
        } else {
            CompactionState::Failed(ErrorKind::Corrupt)
        };
        engine.compactor.set_state(state);
        self.retry = RETRY_MIN;
        After::Nothing
    }

    fn write_hints(&self, engine: &Engine, manifest: &Manifest, id: u32) -> Result<After> {
        let mut listed = manifest.segments.iter();
        let Some(entry) = listed.find(|entry| entry.id == id) else {
            return Ok(After::Nothing);
        };
        let hints = hints_of_segment(engine, manifest, entry)?;
        // All of the segment was read for it.
        let bytes = entry.end.len_bytes + hints.file_bytes();
        // Many short ones are done soon; between long ones others have their turn.
        let breath = if bytes < LONG_BYTES {
            Duration::ZERO
        } else {
            BREATH
        };
        Ok(After::Work(self.pause(bytes).max(breath)))
    }

    /// Goes on with `job`, and gives it up if it is done or somebody else wants to compact.
    fn go_on(&mut self, engine: &Arc<Engine>, mut job: Box<Job>) -> Result<After> {
        if engine.check_writable().is_err() || engine.compactor.is_wanted() {
            return Ok(After::Nothing);
        }
        job.election.check()?;
        job.run.set_patience(self.patience);
        let before = job.run.done().written_bytes;
        let step = job.run.step();
        let pause = self.pause(job.run.done().written_bytes.saturating_sub(before));
        match step {
            Ok(Step::Finished) => {
                self.retry = RETRY_MIN;
                return Ok(After::Work(pause.max(BREATH)));
            }
            Err(error) if !is_only_late(&error) => return Err(error),
            Ok(Step::More) | Err(_) => {}
        }
        engine.compactor.leave_job(job);
        step.map(|_| After::Work(pause))
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// `DiskFull` if there is no room for it; `Io`.
    fn work(&mut self, engine: &Engine, manifest: &Manifest) -> Result<Option<Work>> {
        let Some(policy) = &mut self.policy else {
            return Ok(None);
        };
        self.damaged.retain(|id| manifest.lists(*id));
        policy.is_partial = !self.damaged.is_empty();
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
        // Tombstones are read in order, which takes little memory from hints; and hints of all others
        // say whether they are needed.
        let is_deleting = |one: &Candidate| one.has_tombstones && ids.contains(&one.id);
        let mut unhinted = candidates.iter().filter(is_unhinted);
        if candidates.iter().any(is_deleting)
            && let Some(candidate) = unhinted.next()
        {
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

/// What a step leads to.
enum After {
    /// Something was done; so long it rests.
    Work(Duration),
    /// There was nothing to do.
    Nothing,
}

/// What there is to do.
enum Work {
    /// A segment has no hints.
    Hint(u32),
    /// Segments are worth rewriting.
    Rewrite(Vec<u32>),
}
