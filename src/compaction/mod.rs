//! Compaction: rewriting what lives of segments that are mostly dead.
//!
//! `store` and the background worker come in with an engine; one of all processes compacts at a time
//! ([`Election`]). [`plan`] says which segments are worth it. What the index points to in them is
//! copied in key order ([`source::Source`]) into [`output::Output`]s, each listed as soon as it is
//! finished. When all are, the victims are not listed any more, and go.
//!
//! Invariants:
//! 1. An entry is left out only if a newer version of its key is durable when the victims go, or if
//!    it is a tombstone and no segment that stays holds an older version of its key.
//! 2. A file is removed only after a manifest that does not list it is durable.
//! 3. The writer lock is held for one manifest at a time, never while entries are copied.
//!
//! What a crash leaves: finished outputs that are listed beside the victims, so that their work is not
//! done again; files that no manifest lists, which the next compaction removes ([`sweep`]).

mod automatic;
mod manual;
mod output;
mod pause;
mod plan;
mod source;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::absorb::{found_hints, hints_of_segment, sorted_keys};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::limits::{ALLOCATE_BYTES_MIN, SEGMENT_FILE_BYTES_MAX};
use crate::log::hints::Hints;
use crate::log::leftovers::{remove, remove_abandoned};
use crate::log::location::Version;
use crate::log::merge::Merge;
use crate::log::segment::Segment;
use crate::log::{file_name, find};
use crate::vfs::{LockKind, OpenMode, VfsFile};
pub(crate) use automatic::start;
pub use manual::{CompactProgress, CompactReport};
pub(crate) use manual::{compact, compact_chosen};
use output::Output;
pub use pause::CompactionPause;
pub(crate) use plan::Candidate;
use source::Source;

/// How long between two looks whether another process is still compacting.
const RETRY: Duration = Duration::from_millis(10);

/// How much is copied in one step.
const STEP_BYTES: u64 = 1 << 20;

/// How many keys are looked at in one step.
const STEP_KEYS: u32 = 16 << 10;

/// The right to compact a directory, until dropped.
pub(crate) struct Election {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
}

impl Election {
    /// The right to compact, if nobody has it.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn win(engine: &Engine) -> Result<Option<Self>> {
        let path = engine.log.directory.path.join(file_name::COMPACT);
        let file = engine.vfs.open(&path, OpenMode::WriteOrCreate);
        let file = file.map_err(|error| Error::create(&path, error))?;
        let is_mine = file.try_lock(LockKind::Exclusive);
        let is_mine = is_mine.map_err(|error| Error::io("lock", &path, error))?;
        Ok(is_mine.then_some(Self { file, path }))
    }

    /// The right to compact, waiting for whoever has it up to `timeout`: what this process does by
    /// itself it leaves to the caller, who [wants](crate::engine::compactor::Compactor::want) it.
    ///
    /// # Errors
    /// `LockTimeout`, `DiskFull`, `Io`.
    pub(crate) fn wait(engine: &Engine, timeout: Duration) -> Result<Self> {
        let begun = engine.vfs.monotonic();
        loop {
            drop(engine.compactor.take_job());
            if let Some(election) = Self::win(engine)? {
                return Ok(election);
            }
            let waited = engine.vfs.monotonic().saturating_sub(begun);
            if waited >= timeout {
                return Err(Error::LockTimeout {
                    path: engine.identity.path.clone(),
                    waited,
                    holder: None,
                });
            }
            engine.vfs.sleep(RETRY);
        }
    }

    /// Refuses if the file was removed: then somebody else may have the right too.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.file.is_named(&self.path).unwrap_or(true) {
            return Ok(());
        }
        let cause = std::io::Error::other("it was removed while it was held");
        Err(Error::io("lock", &self.path, cause))
    }
}

/// Removes what a compaction before has left: files of segments that are not listed, and whose ids
/// were taken. The caller is the only one who compacts. Waits for the writer lock up to `timeout`.
///
/// # Errors
/// `LockTimeout`, `Poisoned`, `Io`.
pub(crate) fn sweep(engine: &Arc<Engine>, timeout: Duration) -> Result<()> {
    Engine::with_manifest(engine, timeout, |manifest| {
        remove_abandoned(engine.vfs.as_ref(), &engine.log.directory, manifest)
    })
}

/// What there is to know of the finished segments of `manifest`.
pub(crate) fn candidates(engine: &Engine, manifest: &Manifest) -> Vec<Candidate> {
    let segments = engine.log.segments();
    let finished = manifest.segments.iter().filter(|entry| entry.is_sealed());
    finished
        .filter_map(|entry| find(&segments, entry.id))
        .map(|segment| Candidate {
            id: segment.id,
            is_compacted: !segment.is_log(),
            bytes: segment.content_bytes(),
            live_bytes: segment.live_bytes.load(Ordering::Relaxed),
            needed_bytes: segment.needed_bytes.load(Ordering::Relaxed),
            has_tombstones: segment.has_tombstones(),
            hint_bytes: segment.hint_bytes(),
        })
        .collect()
}

/// How far a compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Done {
    /// How many thousandths of the keys were looked at.
    pub(crate) of_thousand: u64,
    /// Bytes that were written.
    pub(crate) written_bytes: u64,
}

/// What a step of a compaction leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// All is done.
    Finished,
}

/// Who has asked for a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Somebody; it may write hints that are missing.
    ByHand,
    /// Nobody: it writes no more than was reckoned with.
    ByItself,
}

impl Asked {
    /// The hints of a segment that stays; `None` if there are none: what is not known may need every
    /// tombstone.
    fn hints_of(
        self,
        engine: &Engine,
        manifest: &Manifest,
        entry: &SegmentEntry,
    ) -> Result<Option<Hints>> {
        let hints = match self {
            Self::ByHand => hints_of_segment(engine, manifest, entry).map(Some),
            Self::ByItself => found_hints(engine, manifest, entry),
        };
        match hints {
            Err(Error::Corrupt { .. }) => Ok(None),
            hints => hints,
        }
    }
}

/// One compaction: some segments that are rewritten.
pub(crate) struct Run {
    engine: Arc<Engine>,
    manifest: Manifest,
    asked: Asked,
    victims: Vec<Arc<Segment>>,
    victim_ids: HashSet<u32>,
    first_sequence: u64,
    source: Source,
    /// The key that is copied.
    key: Vec<u8>,
    /// Of the finished segments that stay; looked at if there are tombstones. `None` for one that
    /// cannot be asked.
    staying: Option<Vec<Option<Hints>>>,
    output: Option<Output>,
    /// How the manifest is to list it, once it is finished.
    made: Option<SegmentEntry>,
    /// How long it waits for the writer lock, once for each manifest.
    patience: Duration,
    /// What was written into outputs that are finished.
    finished_bytes: u64,
}

impl Run {
    /// Begins to rewrite the segments `ids` of `manifest`, in which all that was moved before is taken
    /// in; waits for the writer lock up to `patience` each time.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        manifest: Manifest,
        ids: &[u32],
        asked: Asked,
        patience: Duration,
    ) -> Result<Self> {
        let segments = engine.log.segments();
        let victim_ids: HashSet<u32> = ids.iter().copied().collect();
        let (mut with_tombstones, mut victims) = (Vec::new(), Vec::new());
        let mut first_sequence = u64::MAX;
        let listed = manifest.segments.iter();
        for entry in listed.filter(|entry| entry.is_sealed() && victim_ids.contains(&entry.id)) {
            let victim = find(&segments, entry.id).cloned();
            if victim.as_ref().is_none_or(|victim| victim.has_tombstones()) {
                with_tombstones.push(sorted_keys(&engine.log, &manifest, entry)?);
            }
            first_sequence = first_sequence.min(entry.first_sequence);
            victims.extend(victim);
        }
        let source = Source::new(engine, victim_ids.clone(), Merge::new(with_tombstones))?;
        Ok(Self {
            engine: engine.clone(),
            manifest,
            asked,
            victims,
            victim_ids,
            first_sequence,
            source,
            key: Vec::new(),
            staying: None,
            output: None,
            made: None,
            patience,
            finished_bytes: 0,
        })
    }

    /// Waits up to `patience` each time from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How far it has come.
    pub(crate) fn done(&self) -> Done {
        let pending = self.output.as_ref().map_or(0, Output::written_bytes);
        Done {
            of_thousand: self.source.done_of_thousand(),
            written_bytes: self.finished_bytes + pending,
        }
    }

    /// Goes on for about a mebibyte.
    ///
    /// # Errors
    /// `LockTimeout`, and the next step goes on from here; `DiskFull`; `Corrupt` of an entry that
    /// cannot be read; `Poisoned`, `Io`. What was written for nothing is removed when this is dropped.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let begun = self.done().written_bytes;
        if self.made.is_some() && self.source.current().is_some() {
            self.list(&[])?;
        }
        for _ in 0..STEP_KEYS {
            let Some((key, version)) = self.source.current() else {
                if self.source.look_on() {
                    return Ok(Step::More);
                }
                self.finish()?;
                return Ok(Step::Finished);
            };
            self.key.clear();
            self.key.extend_from_slice(key);
            let key = std::mem::take(&mut self.key);
            let copied = self.is_kept(&key, version).and_then(|is_kept| {
                if is_kept {
                    self.copy(&key, version)
                } else {
                    Ok(())
                }
            });
            self.key = key;
            copied?;
            self.source.advance()?;
            if self.done().written_bytes - begun >= STEP_BYTES {
                break;
            }
        }
        Ok(Step::More)
    }

    /// Whether an entry has to be copied.
    fn is_kept(&mut self, key: &[u8], version: Version) -> Result<bool> {
        if !version.is_tombstone() {
            // The index points to it, or did a moment ago.
            return Ok(true);
        }
        match self.engine.index.newest(key) {
            Some(newest) if newest.sequence > version.sequence => Ok(false),
            _ => self.is_needed(key, version.sequence),
        }
    }

    /// Whether a segment that stays holds an older version of `key` than `sequence`, and none a newer.
    fn is_needed(&mut self, key: &[u8], sequence: u64) -> Result<bool> {
        let staying = match &mut self.staying {
            Some(staying) => staying,
            none => {
                let listed = self.manifest.segments.iter();
                let stays = |entry: &&SegmentEntry| {
                    entry.is_sealed() && !self.victim_ids.contains(&entry.id)
                };
                let hints = listed
                    .filter(stays)
                    .map(|entry| self.asked.hints_of(&self.engine, &self.manifest, entry));
                none.insert(hints.collect::<Result<_>>()?)
            }
        };
        let mut is_needed = false;
        for hints in staying.iter() {
            let Some(hints) = hints else {
                is_needed = true;
                continue;
            };
            match hints.find(key)? {
                Some(version) if version.sequence > sequence => return Ok(false),
                Some(_) => is_needed = true,
                None => {}
            }
        }
        Ok(is_needed)
    }

    fn copy(&mut self, key: &[u8], version: Version) -> Result<()> {
        let is_full = |output: &Output| !output.has_room(key.len(), version);
        if self.output.as_ref().is_some_and(is_full) {
            // So that its work is not done again, whatever happens.
            self.list(&[])?;
        }
        let output = match self.output.take() {
            Some(output) => output,
            None => self.begin_output(key.len(), version)?,
        };
        let output = self.output.insert(output);
        if version.is_tombstone() {
            return output.push(key, version, None);
        }
        let id = version.location.segment;
        let mut victims = self.victims.iter();
        let victim = victims.find(|victim| victim.id == id);
        let victim = victim.ok_or_else(|| self.engine.log.gone_at(version))?;
        victim.read(key, version, true, |value| {
            output.push(key, version, Some(value))
        })?
    }

    fn begin_output(&self, key_len: usize, version: Version) -> Result<Output> {
        let live = |victim: &Arc<Segment>| victim.content_bytes();
        let left: u64 = self.victims.iter().map(live).sum();
        let segment_bytes = u64::from(self.engine.log.segment_bytes());
        let capacity = segment_bytes
            // Frames and hints of the few entries that may be left included.
            .min(left.saturating_mul(2).saturating_add(ALLOCATE_BYTES_MIN))
            .max(Output::needed_bytes(key_len, version))
            .min(SEGMENT_FILE_BYTES_MAX);
        let id = Engine::reserve_segment(&self.engine, self.patience)?;
        let log = &self.engine.log;
        Output::create(log, &self.manifest, id, self.first_sequence, capacity)
    }

    /// Lists the last output, and the victims no more; and removes them.
    fn finish(&mut self) -> Result<()> {
        let retired: Vec<u32> = self.victims.iter().map(|victim| victim.id).collect();
        self.list(&retired)?;
        failpoint::hit!("compaction-retired");
        self.engine.absorb()?;
        let directory = &self.engine.log.directory;
        let vfs = self.engine.vfs.as_ref();
        directory.check(vfs)?;
        for victim in &self.victims {
            remove(vfs, &victim.path)?;
            failpoint::hit!("compaction-removing");
            remove(vfs, &file_name::hints(&directory.path, victim.id))?;
        }
        Ok(())
    }

    /// Finishes the output, if there is one, and lists it, and `retired` no more.
    fn list(&mut self, retired: &[u32]) -> Result<()> {
        if let (Some(output), None) = (&mut self.output, &self.made) {
            self.made = Some(output.finish()?);
            failpoint::hit!("compaction-finished");
        }
        let installed = Engine::install(&self.engine, self.patience, self.made, retired);
        if installed.is_ok() || self.engine.check_writable().is_err() {
            // After a failure nobody knows which manifest is on the disk.
            self.made = None;
            if let Some(mut output) = self.output.take() {
                self.finished_bytes += output.written_bytes();
                output.set_listed();
                failpoint::hit!("compaction-listed");
            }
        }
        installed
    }
}
