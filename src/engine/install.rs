//! What compaction changes in the list of segments: each time one manifest, under the writer lock.
//!
//! What a crash leaves: the old or the new manifest. A segment that is listed is durable before; one
//! that is not listed any more is removed after.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEntry};
use crate::log::manifest;
use crate::log::writer::Active;

/// What has to be durable before a manifest.
#[derive(Clone, Copy, Default)]
struct Before {
    /// The names of files that were made.
    is_making: bool,
    /// All that supersedes what is forgotten.
    is_forgetting: bool,
}

impl Engine {
    /// The manifest that this process follows, after it has walked over all that is finished in it
    /// and taken in all that was moved.
    ///
    /// # Errors
    /// `Corrupt`, `FormatVersion`, `Io`.
    pub(crate) fn settled_manifest(&self) -> Result<Manifest> {
        loop {
            self.absorb()?;
            let (manifest, sequence, is_settled) = {
                let cursor = self.cursor.take(self.vfs.as_ref());
                let is_settled = cursor.unabsorbed.is_empty();
                (cursor.manifest.clone(), cursor.sequence, is_settled)
            };
            let finished = manifest.segments.iter().filter(|entry| entry.is_sealed());
            let last = finished.map(|entry| entry.end.last_sequence).max();
            if is_settled && last.is_none_or(|last| last <= sequence) {
                return Ok(manifest);
            }
            // Somebody has finished more meanwhile. It was durable before it was listed; whoever
            // was to publish it may have died.
            self.wait_visible(last.unwrap_or(0))?;
        }
    }

    /// Hands the manifest that is on the disk to `take`, which may remove files that it does not list:
    /// under the writer lock, so that it is the newest, whoever died while he changed it. Waits for
    /// that up to `timeout`.
    ///
    /// # Errors
    /// `LockTimeout`, `Poisoned`; as `take`.
    pub(crate) fn with_manifest(
        engine: &Arc<Self>,
        timeout: Duration,
        take: impl FnOnce(&Manifest) -> Result<()>,
    ) -> Result<()> {
        let turn = Self::begin(engine, timeout, None)?;
        let cursor = engine.cursor.take(engine.vfs.as_ref());
        let taken = take(&cursor.manifest);
        drop(cursor);
        drop(turn);
        taken
    }

    /// Takes the id of a segment that is going to be made, waiting for the writer lock up to
    /// `timeout`. Durable on return: nobody else ever uses it.
    ///
    /// # Errors
    /// `LockTimeout`, `DiskFull`, `Poisoned`, `Io`.
    pub(crate) fn reserve_segment(engine: &Arc<Self>, timeout: Duration) -> Result<u32> {
        let mut id = 0;
        Self::change_manifest(engine, timeout, Before::default(), |manifest| {
            id = manifest.next_segment;
            manifest.next_segment = id.saturating_add(1);
        })?;
        Ok(id)
    }

    /// Lists `made`, which is durable, and does not list `retired` any more, waiting for the writer
    /// lock up to `timeout`. All that supersedes what was left out is durable.
    ///
    /// # Errors
    /// As [`Engine::reserve_segment`].
    pub(crate) fn install(
        engine: &Arc<Self>,
        timeout: Duration,
        made: Option<SegmentEntry>,
        retired: &[u32],
    ) -> Result<()> {
        let before = Before {
            is_making: made.is_some(),
            is_forgetting: !retired.is_empty(),
        };
        Self::change_manifest(engine, timeout, before, |manifest| {
            let segments = &mut manifest.segments;
            segments.retain(|listed| !retired.contains(&listed.id));
            if let Some(made) = made {
                let at = segments.partition_point(|listed| listed.id < made.id);
                segments.insert(at, made);
            }
        })?;
        Ok(())
    }

    /// Seals the active segment, if it has records, waiting for the writer lock up to `timeout`: what
    /// is committed later goes into another one.
    ///
    /// # Errors
    /// As [`Engine::reserve_segment`].
    pub(crate) fn seal_active(engine: &Arc<Self>, timeout: Duration) -> Result<()> {
        let turn = Self::begin(engine, timeout, None)?;
        let mut cursor = engine.cursor.take(engine.vfs.as_ref());
        let sequence = cursor.sequence;
        let has_batches = |active: &Active| active.segment.first_sequence <= sequence;
        if cursor.active.as_ref().is_some_and(has_batches) {
            let shared = engine.log.shared();
            // CRASH: as in a roll-over for a batch.
            shared.set_writing(true);
            let sealed = cursor.roll_over(&engine.log, 0);
            shared.set_writing(sealed.as_ref().is_err_and(|fault| fault.poisons));
            sealed.map_err(|fault| engine.failed(fault))?;
        }
        drop(cursor);
        drop(turn);
        Ok(())
    }

    fn change_manifest(
        engine: &Arc<Self>,
        timeout: Duration,
        before: Before,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        if before.is_forgetting {
            // Most of what has to be durable below; others commit meanwhile.
            engine.sync()?;
        }
        let turn = Self::begin(engine, timeout, None)?;
        if before.is_forgetting {
            // What is left out is superseded by batches that the index has. Only now, with nobody in
            // the middle of a commit, are all of them noted as appended, and can be synced and shown.
            engine.sync()?;
            engine.wait_visible(turn.sequence())?;
        }
        if before.is_making {
            // CRASH: the file's name before the manifest that lists it.
            let synced = engine.log.directory.sync();
            synced.map_err(|fault| engine.failed(fault))?;
        }
        let mut cursor = engine.cursor.take(engine.vfs.as_ref());
        let mut manifest = cursor.manifest.clone();
        change(&mut manifest);
        if manifest.next_segment == u32::MAX {
            let what = "the list of all segments there ever were".into();
            let max_bytes = u64::from(u32::MAX);
            return Err(Error::TooLarge {
                what,
                actual_bytes: max_bytes + 1,
                max_bytes,
            });
        }
        manifest.generation += 1;
        // First: whoever gets an error may take what it has made for unknown to anybody.
        engine.log.open_segments(&manifest)?;
        let shared = engine.log.shared();
        // CRASH: the next owner looks which manifest is there.
        shared.set_writing(true);
        let saved = manifest::save(engine.vfs.as_ref(), &engine.log.directory, &manifest);
        if let Err(fault) = saved {
            shared.set_writing(fault.poisons);
            return Err(engine.failed(fault));
        }
        let generation = manifest.generation;
        super::refresh::take_manifest(&engine.log, &mut cursor, manifest)?;
        shared.set_generation(generation);
        shared.set_writing(false);
        drop(cursor);
        drop(turn);
        Ok(())
    }
}
