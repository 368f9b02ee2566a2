//! Compaction by itself: a background worker of each process that has the store open.
//!
//! In all processes, also in those that only read or do not compact, it takes in what others have
//! moved; one, which holds the lock `COMPACT` meanwhile, writes hints and compacts. It waits for the
//! writer lock for moments only, and tries again, so that closing the store never waits for it long.
//!
//! A failure ends the run, never the store: it is tried again after a while that doubles each time,
//! without the segments that cannot be read.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::plan::{Policy, victims};
use super::{Election, Run, Step, candidates, sweep};
use crate::engine::Engine;
use crate::engine::absorb::hints_of_segment;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Manifest;
use crate::log::find;
use crate::options::Compaction;
use crate::vfs::Next;

/// How long between two looks when there is nothing to do: what other processes have moved is
/// taken in that late, and its space given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long it waits for the writer lock before it lets others stop it.
const PATIENCE: Duration = Duration::from_millis(10);

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
    /// Whether it has removed what somebody who died may have left.
    has_swept: bool,
    /// What it is rewriting, and segments of runs that have met damage.
    victims: Vec<u32>,
    damaged: HashSet<u32>,
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
        let job = job.and_then(|job| job.downcast::<Job>().ok());
        let advanced = match job {
            Some(mut job) => {
                let next = self.go_on(&engine, &mut job);
                if next.as_ref().map_or_else(is_only_late, Option::is_some) {
                    engine.compactor.leave_job(job);
                }
                next.map(|next| next.unwrap_or(Duration::ZERO))
            }
            None => self.begin(&engine),
        };
        match advanced {
            Ok(pause) => Next::After(pause),
            Err(error) if is_only_late(&error) => Next::After(PATIENCE),
            Err(error) => {
                tracing::warn!(path = %engine.identity.path.display(), %error, "compaction failed");
                if error.kind() == ErrorKind::Corrupt {
                    self.damaged.extend(self.victims.drain(..));
                }
                let retry = self.retry;
                self.retry = (retry * 2).min(RETRY_MAX);
                Next::After(retry)
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
        if !is_mine_to_do || engine.check_writable().is_err() {
            return Ok(IDLE);
        }
        let manifest = engine.settled_manifest()?;
        if self.has_swept && self.work(engine, &manifest).is_none() {
            self.retry = RETRY_MIN;
            return Ok(IDLE);
        }
        let Some(election) = Election::win(engine)? else {
            return Ok(IDLE);
        };
        // Others may have done it meanwhile, or died while they did.
        sweep(engine, PATIENCE)?;
        self.has_swept = true;
        let job = Job {
            election,
            run: None,
        };
        engine.compactor.leave_job(Box::new(job));
        Ok(Duration::ZERO)
    }

    /// Goes on with `job`: how long until the next step, or `None` if all is done.
    fn go_on(&mut self, engine: &Arc<Engine>, job: &mut Job) -> Result<Option<Duration>> {
        if engine.check_writable().is_err() || engine.compactor.is_wanted() {
            return Ok(None);
        }
        job.election.check()?;
        if let Some(run) = &mut job.run {
            let before = run.done().written_bytes;
            let step = run.step()?;
            let written = run.done().written_bytes.saturating_sub(before);
            if step == Step::Finished {
                job.run = None;
                self.retry = RETRY_MIN;
            }
            return Ok(Some(self.pause(written)));
        }
        let manifest = engine.settled_manifest()?;
        match self.work(engine, &manifest) {
            None => return Ok(None),
            Some(Work::Hint(id)) => {
                self.victims = vec![id];
                let mut segments = manifest.segments.iter();
                if let Some(entry) = segments.find(|entry| entry.id == id) {
                    hints_of_segment(engine, &manifest, entry)?;
                }
            }
            Some(Work::Rewrite(ids)) => {
                self.victims.clone_from(&ids);
                job.run = Some(Run::new(engine, manifest, &ids, PATIENCE)?);
            }
        }
        Ok(Some(Duration::ZERO))
    }

    /// What is to be done next.
    fn work(&self, engine: &Engine, manifest: &Manifest) -> Option<Work> {
        let mut candidates = candidates(engine, manifest);
        candidates.retain(|candidate| !self.damaged.contains(&candidate.id));
        let ids = victims(&candidates, self.policy.as_ref()?);
        if !ids.is_empty() {
            return Some(Work::Rewrite(ids));
        }
        let segments = engine.log.segments();
        let mut ids = candidates.iter().map(|candidate| candidate.id);
        let unhinted = ids.find(|id| find(&segments, *id).is_some_and(|one| !one.is_hinted()));
        unhinted.map(Work::Hint)
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

/// What the worker is in the middle of.
struct Job {
    election: Election,
    run: Option<Run>,
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
