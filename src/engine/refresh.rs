//! Following the log: what other processes appended comes into this one's index.
//!
//! A read looks at the shared words first ([`Engine::catch_up`]): one load, if nothing is new.
//! Whoever takes the writer lock over from another process comes up to all that is appended
//! ([`Engine::take_over`]), and mends what that one may have died in the middle of.
//!
//! Invariants:
//! 1. The cursor, who has which, is the one who changes the index; `applied` is how far it is.
//! 2. This process's `visible` never passes `applied`, and does not move while a walk from it to a
//!    newer published state drops what lies between.
//!
//! What a crash leaves: nothing of a walk. Of mending a log's end, what [`repair`] says; the next
//! owner finds the mark of the dead one still there, and begins again.

use std::sync::atomic::Ordering;

use super::Engine;
use super::absorb::cross_gap;
use super::baton::Held;
use super::load::{known, load_finished, sealed_end};
use super::replay::{Readers, Sink, replay};
use crate::error::{Error, Result};
use crate::format::header::SEGMENT_HEADER_BYTES;
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::index::Index;
use crate::log::fault::Fault;
use crate::log::group_sync::{Number, Numbers};
use crate::log::leftovers::remove_leftovers;
use crate::log::repair::{self, Tail};
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;
use crate::log::tail::place;
use crate::log::writer::{Active, Writer};
use crate::log::{Log, manifest};

impl Engine {
    /// Sees to it that readers of this process see all that is published.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io` of what other processes appended.
    pub(crate) fn catch_up(&self) -> Result<()> {
        let published = self.log.published();
        let visible = self.log.visible();
        // First, and by a word that lies beside the one before: what this one shows may be lost.
        if let Err(cause) = self.log.check_history() {
            // Nothing of the index may be of the log that is there now.
            let path = self.identity.path.clone();
            let cause = cause.to_string().into();
            return Err(Error::Poisoned { path, cause });
        }
        if published <= visible.load(Ordering::Acquire) {
            return Ok(());
        }
        if published <= self.applied.load(Ordering::Acquire) {
            visible.fetch_max(published, Ordering::AcqRel);
            return Ok(());
        }
        let mut cursor = self.cursor.take(self.vfs.as_ref());
        self.follow_published(&mut cursor, published)
    }

    /// Brings index and readers up to `published`.
    fn follow_published(&self, cursor: &mut Writer, published: u64) -> Result<()> {
        let applied = self.applied.load(Ordering::Acquire);
        let visible = self.log.visible();
        // Up to here now, so that nobody gets between this and what is published below.
        visible.fetch_max(published.min(applied), Ordering::AcqRel);
        if published > applied {
            let mut horizon = self.horizon();
            let now = std::mem::replace(&mut horizon.visible, published);
            if let Err(at) = horizon.pinned.binary_search(&now) {
                horizon.pinned.insert(at, now);
            }
            let mut sink = Sink::new(&self.index, Readers::Some(&horizon));
            // After an error readers stay where they were, which is pinned: what came before the error
            // is in the index all the same, and may have dropped what lies between.
            let mut reached = published;
            while follow(&self.log, cursor, reached, &mut sink)? == Way::OverAGap {
                // Of what lies in between only the last of each key is left: no moment of it is shown.
                reached = self.log.published();
            }
            visible.fetch_max(reached, Ordering::AcqRel);
            self.applied.store(cursor.sequence, Ordering::Release);
            while self.index.prune(&self.horizon(), 0) {}
            self.retire(cursor);
            if !cursor.unabsorbed.is_empty() {
                self.compactor.wake();
            }
        }
        Ok(())
    }

    /// Brings this process up to all that is appended, after it took the writer lock from another
    /// one, and mends what that one died in the middle of.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`; of what poisons, the store is poisoned.
    pub(super) fn take_over(&self) -> Result<()> {
        let mut cursor = self.cursor.take(self.vfs.as_ref());
        self.follow_published(&mut cursor, self.log.published())?;
        self.follow_appended(&mut cursor)?;
        if self.log.shared().is_writing() {
            let mended = self.mend_end(&mut cursor);
            self.applied.store(cursor.sequence, Ordering::Release);
            mended.map_err(|fault| self.failed(fault))?;
        }
        Ok(())
    }

    fn follow_appended(&self, cursor: &mut Held<'_, Box<Writer>>) -> Result<()> {
        let appended = self.log.shared().get(Number::Sequence);
        let horizon = self.horizon();
        let mut sink = Sink::new(&self.index, Readers::Some(&horizon));
        let followed = follow(&self.log, cursor, appended, &mut sink)
            .and_then(|_| stand_at_end(&self.log, cursor, &mut sink))
            .and_then(|()| check_end(&self.log, cursor));
        self.applied.store(cursor.sequence, Ordering::Release);
        followed
    }

    /// Mends the end of the log after its owner died while it changed files: what is whole counts
    /// and is made durable, what is not is zeroed.
    ///
    /// CRASH: the mark that somebody writes stays until all is done; the next owner comes here too.
    fn mend_end(&self, cursor: &mut Writer) -> Result<(), Fault> {
        let log = &self.log;
        log.directory
            .check(self.vfs.as_ref())
            .map_err(Fault::harmless)?;
        tracing::warn!(
            path = %log.directory.path.display(),
            "a process died while it wrote; the end of the log is looked at"
        );
        let manifest = log.load_manifest().map_err(Fault::harmless)?;
        // It may have died between the manifest's rename and the directory's sync.
        log.directory.sync()?;
        let generation = manifest.generation;
        take_manifest(log, cursor, manifest).map_err(Fault::harmless)?;
        log.shared().set_generation(generation);
        remove_leftovers(log.vfs.as_ref(), &log.directory, &cursor.manifest, false)?;
        let horizon = self.horizon();
        let mut sink = Sink::new(&self.index, Readers::Some(&horizon));
        // CRASH: before the mark goes, so that the owner before comes here too.
        log.shared().set_owner();
        let Some(last) = cursor.manifest.log().last().copied() else {
            log.shared().set_writing(false);
            return Ok(());
        };
        move_to(log, cursor, last.id, u64::MAX, &mut sink).map_err(Fault::harmless)?;
        let segment = cursor_segment(cursor).map_err(Fault::harmless)?;
        let file_bytes = segment.file_bytes().map_err(Fault::harmless)?;
        walk(log, cursor, file_bytes, u64::MAX, &mut sink).map_err(Fault::harmless)?;
        let offset = cursor.active.as_ref().map_or(0, |active| active.end);
        let tail = repair::examine(&segment, offset, file_bytes).map_err(Fault::harmless)?;
        // Nobody is told of a sync that failed and whose process died before it told: what is not
        // known to be durable is written over itself.
        let durable = log
            .synced_upto(segment.id)
            .clamp(SEGMENT_HEADER_BYTES, offset);
        repair::settle(&segment, durable, offset, file_bytes)?;
        if let Tail::Torn { .. } = tail {
            raise_epoch(log, cursor, offset)?;
        }
        log.restart(Some((segment.id, offset)), cursor.sequence);
        log.shared().set_writing(false);
        Ok(())
    }
}

/// Raises the epoch after what lies behind `offset` was zeroed.
fn raise_epoch(log: &Log, cursor: &mut Writer, offset: u32) -> Result<(), Fault> {
    let mut manifest = cursor.manifest.clone();
    if let Some(last) = manifest.last_of_log() {
        last.end.len_bytes = u64::from(offset);
        last.end.last_sequence = cursor.sequence;
    }
    manifest.epoch += 1;
    manifest.generation += 1;
    manifest::save(log.vfs.as_ref(), &log.directory, &manifest)?;
    log.shared().set_generation(manifest.generation);
    cursor.manifest = manifest;
    Ok(())
}

/// How a walk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Batch by batch.
    Steady,
    /// Over batches whose segments are retired: what is left of them may be newer than what was
    /// walked over last.
    OverAGap,
}

/// Walks on from where `cursor` is up to the batch `sequence`, which is appended.
///
/// # Errors
/// `Corrupt` if the log ends before; `FormatVersion`, `Io`.
pub(super) fn follow(
    log: &Log,
    cursor: &mut Writer,
    sequence: u64,
    sink: &mut Sink<'_>,
) -> Result<Way> {
    if cursor.sequence >= sequence {
        return Ok(Way::Steady);
    }
    // Looked at after the sequence number was, and before the manifest is.
    let (id, end) = place(log.shared().get(Number::Appended));
    refresh_manifest(log, cursor)?;
    let way = move_to(log, cursor, id, sequence, sink)?;
    if cursor.sequence < sequence {
        walk(log, cursor, end, sequence, sink)?;
    }
    if cursor.sequence >= sequence {
        return Ok(way);
    }
    let segment = cursor_segment(cursor)?;
    let what = format!(
        "the log ends with batch {}, but {sequence} was appended",
        cursor.sequence
    );
    Err(Error::corrupt(&segment.path, u64::from(end), what))
}

/// Walks to the end of all segments before the segment `id`, and stands at the begin of that one, or
/// of the next one if it is retired; or stays, if it is there already. Ends before at the batch
/// `sequence`.
fn move_to(
    log: &Log,
    cursor: &mut Writer,
    id: u32,
    sequence: u64,
    sink: &mut Sink<'_>,
) -> Result<Way> {
    let mut way = Way::Steady;
    let at = cursor.active.as_ref().map_or(0, |active| active.segment.id);
    let listed: Vec<SegmentEntry> = cursor.manifest.log().copied().collect();
    for entry in listed.iter().filter(|entry| entry.id >= at) {
        if entry.id != at {
            if entry.first_sequence > cursor.sequence + 1 {
                cross_gap(log, cursor, entry.first_sequence - 1, sink)?;
                way = Way::OverAGap;
            }
            enter(log, cursor, entry)?;
        }
        if entry.id >= id {
            return Ok(way);
        }
        let segment = cursor_segment(cursor)?;
        if !entry.is_sealed() {
            let what =
                "the manifest lists another segment behind it, and does not say where it ends";
            return Err(Error::corrupt(
                &segment.path,
                u64::from(SEGMENT_HEADER_BYTES),
                what,
            ));
        }
        let end = sealed_end(&segment, entry.end.len_bytes)?;
        walk(log, cursor, end, sequence, sink)?;
        if cursor.sequence >= sequence {
            return Ok(way);
        }
        let is_whole = cursor
            .active
            .as_ref()
            .is_some_and(|active| active.end == end)
            && cursor.sequence == entry.end.last_sequence;
        if !is_whole {
            let what = "the segment does not end with the record that its manifest says";
            return Err(Error::corrupt(&segment.path, u64::from(end), what));
        }
    }
    let path = crate::log::file_name::segment(&log.directory.path, id);
    Err(Error::corrupt(&path, 0, "no manifest lists this segment"))
}

/// Stands at the begin of the segment `entry`.
fn enter(log: &Log, cursor: &mut Writer, entry: &SegmentEntry) -> Result<()> {
    let segments = log.segments();
    let segment = known(log, &segments, entry)?;
    cursor.active = Some(Active {
        segment: segment.clone(),
        end: SEGMENT_HEADER_BYTES,
        allocated: SEGMENT_HEADER_BYTES,
        marked: false,
    });
    Ok(())
}

/// Walks over the records of the cursor's segment, up to the offset `end` or the batch `sequence`.
fn walk(
    log: &Log,
    cursor: &mut Writer,
    end: u32,
    sequence: u64,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let segment = cursor_segment(cursor)?;
    let Some(active) = &mut cursor.active else {
        return Ok(());
    };
    let mut scanner = Scanner::resume(
        &segment,
        active.end,
        end,
        cursor.manifest.epoch,
        cursor.sequence,
    );
    // An error leaves the cursor where it was: half of a record may be in the index, and none of it
    // is seen before that was walked over again.
    let is_marked = replay(&mut scanner, sequence, &segment, &log.segments(), sink)?;
    if scanner.offset() > active.end {
        // Else there was nothing to walk over, and a mark that was there is there still.
        active.marked = is_marked;
    }
    active.end = scanner.offset();
    cursor.sequence = scanner.sequence();
    segment.set_end(active.end);
    active.allocated = active.allocated.max(active.end);
    Ok(())
}

fn cursor_segment(cursor: &Writer) -> Result<std::sync::Arc<Segment>> {
    match &cursor.active {
        Some(active) => Ok(active.segment.clone()),
        None => Err(Error::corrupt(
            std::path::Path::new(crate::log::file_name::MANIFEST),
            0,
            "it lists no segments, though there are some",
        )),
    }
}

/// Fills `index`, which is empty, with what is published; `report` is told how many bytes of segments
/// are done.
///
/// # Errors
/// As [`follow`].
pub(super) fn attach(
    log: &Log,
    index: &Index,
    manifest: Manifest,
    report: &mut dyn FnMut(u64),
) -> Result<Writer> {
    let manifest = log.open_listed(manifest)?;
    let mut done_bytes = 0;
    load_finished(log, index, &manifest, &mut |done| {
        done_bytes = done;
        report(done);
    })?;
    let last = manifest.log().last().copied();
    let before_last = last.map_or(0, |last| last.first_sequence.saturating_sub(1));
    let mut cursor = Writer {
        manifest,
        sequence: before_last,
        active: None,
        unabsorbed: Vec::new(),
    };
    if let Some(last) = last {
        enter(log, &mut cursor, &last)?;
    }
    // Looked at now: all that is finished was published before its manifest was there.
    let mut published = log.published();
    let mut within = |done: u32| report(done_bytes + u64::from(done));
    let mut sink = Sink::new(index, Readers::None);
    sink.report = Some(&mut within);
    while follow(log, &mut cursor, published, &mut sink)? == Way::OverAGap {
        published = log.published();
    }
    log.visible().store(published, Ordering::Release);
    Ok(cursor)
}

/// Stands where the next record goes, behind a seal mark, or in a segment that has no records yet.
/// The caller holds the writer lock.
fn stand_at_end(log: &Log, cursor: &mut Writer, sink: &mut Sink<'_>) -> Result<()> {
    let (id, end) = place(log.shared().get(Number::Appended));
    refresh_manifest(log, cursor)?;
    let is_beyond = |active: &Active| active.segment.id > id;
    let rolls_over = log.shared().is_writing() && cursor.active.as_ref().is_some_and(is_beyond);
    if id == 0 || rolls_over {
        // Who died in a roll-over had listed a segment, and said nothing of it yet.
        return Ok(());
    }
    // What is appended is not retired, so this way has no gap that the one before had not.
    move_to(log, cursor, id, u64::MAX, sink)?;
    walk(log, cursor, end, u64::MAX, sink)?;
    match &cursor.active {
        Some(active) if active.end != end => {
            let what = "there is no whole record, but one was appended";
            Err(Error::corrupt(
                &active.segment.path,
                u64::from(active.end),
                what,
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses if something lies behind the end that the page tells of, and nobody died in front of
/// it: the page is of another time than the log, as when one of them was put back.
fn check_end(log: &Log, cursor: &Writer) -> Result<()> {
    let Some(active) = &cursor.active else {
        return Ok(());
    };
    if log.shared().is_writing() {
        return Ok(());
    }
    let left = active
        .segment
        .file_bytes()?
        .saturating_sub(active.end)
        .min(4);
    let behind = active.segment.view(active.end, left as usize)?;
    if behind.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let path = log.directory.path.join(crate::log::file_name::STATE);
    let cause = "there are records behind the end of the log that it tells of, one of both was put \
                 back; close the store in all processes, then open it again";
    Err(Error::io("follow", &path, std::io::Error::other(cause)))
}

/// Reads the manifest if there is a newer one than the cursor's.
pub(super) fn refresh_manifest(log: &Log, cursor: &mut Writer) -> Result<()> {
    if cursor.manifest.generation != log.shared().generation() {
        take_manifest(log, cursor, log.load_manifest()?)?;
    }
    Ok(())
}

/// Goes on with `manifest`, or a newer one. The index is told later of what compaction has moved.
pub(super) fn take_manifest(log: &Log, cursor: &mut Writer, manifest: Manifest) -> Result<()> {
    // First, so that a failure is tried again.
    let manifest = log.open_listed(manifest)?;
    let before = std::mem::replace(&mut cursor.manifest, manifest);
    let was_listed = |id| before.segments.iter().any(|listed| listed.id == id);
    let compacted = cursor.manifest.segments.iter().filter(|e| !e.is_log());
    let ids: Vec<u32> = compacted.map(|entry| entry.id).collect();
    cursor.unabsorbed.retain(|id| ids.contains(id));
    let new = ids.into_iter().filter(|id| !was_listed(*id));
    cursor.unabsorbed.extend(new);
    Ok(())
}
