//! The store at one moment, as files: which segments, and how much of the active one.
//!
//! `upkeep` comes in to copy that. Nobody is kept from writing meanwhile: what is within the cut is
//! durable and never changes, and whatever comes later lies behind it.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentEnd, SegmentState};
use crate::log::group_sync::{Number, Numbers};
use crate::log::segment::Segment;
use crate::log::tail::position;
use crate::log::{Log, Segments, find};

/// How long between two tries.
const RETRY: Duration = Duration::from_millis(1);

/// The store at one moment.
pub(crate) struct Cut {
    /// The segments; of the active one, the end is where the cut goes through it.
    pub(crate) manifest: Manifest,
    /// The active segment, if there is one.
    pub(crate) active: Option<Arc<Segment>>,
    /// All of them, which can be read though compaction removes their files.
    pub(crate) segments: Arc<Segments>,
    /// The last batch within the cut.
    pub(crate) sequence: u64,
}

impl Cut {
    /// The segment that the manifest lists as `id`.
    ///
    /// # Errors
    /// `Corrupt` if it is not open: the cursor has all open that its manifest lists.
    pub(crate) fn segment(&self, log: &Log, id: u32) -> Result<&Arc<Segment>> {
        find(&self.segments, id).ok_or_else(|| log.gone(id, 0))
    }
}

impl Engine {
    /// What the store is made of now. All within it is durable, and it is the whole commit order up
    /// to its last batch. Waits up to `timeout` for others who write all the time.
    ///
    /// # Errors
    /// `LockTimeout`, `Corrupt`, `FormatVersion`, `Io`, `Poisoned`, `Closed`, `Forked`.
    pub(crate) fn cut(&self, timeout: Duration) -> Result<Cut> {
        let vfs = self.vfs.as_ref();
        let begun = vfs.monotonic();
        let mut found = None;
        loop {
            self.sync()?;
            if found.is_none() {
                // Catches up, too. What the newest manifest lists had been published before it was
                // there, so that some time the cursor gets there.
                self.absorb()?;
                found = self.try_cut();
            }
            if let Some(cut) = &found
                && self.is_durable(cut)?
            {
                break;
            }
            let waited = vfs.monotonic().saturating_sub(begun);
            if waited >= timeout {
                return Err(Error::LockTimeout {
                    path: self.identity.path.clone(),
                    waited,
                    holder: None,
                });
            }
            vfs.sleep(RETRY);
        }
        found.ok_or_else(|| self.closed_error())
    }

    /// A cut where the cursor is; `None` if that is in another segment than the manifest's active one.
    ///
    /// INVARIANT: a cursor in the active segment has walked over all that is finished, and compacted
    /// segments have versions of finished ones alone: compaction seals before it begins.
    fn try_cut(&self) -> Option<Cut> {
        let cursor = self.cursor.take(self.vfs.as_ref());
        let (mut manifest, sequence) = (cursor.manifest.clone(), cursor.sequence);
        let mut cut_segment = None;
        if let Some(last) = manifest.last_of_log()
            && last.state == SegmentState::Active
        {
            let active = cursor.active.as_ref();
            let active = active.filter(|active| active.segment.id == last.id)?;
            last.end = SegmentEnd {
                len_bytes: u64::from(active.end),
                last_sequence: sequence,
            };
            cut_segment = Some(active.segment.clone());
        }
        Some(Cut {
            manifest,
            active: cut_segment,
            segments: self.log.segments(),
            sequence,
        })
    }

    /// Whether all of `cut` is durable.
    fn is_durable(&self, cut: &Cut) -> Result<bool> {
        let Some(segment) = &cut.active else {
            return Ok(true);
        };
        if self.is_read_only() {
            // The shared words may be nobody's.
            let synced = segment.file.sync();
            synced.map_err(|error| Error::io("sync", &segment.path, error))?;
            return Ok(true);
        }
        let end = cut
            .manifest
            .log()
            .last()
            .map_or(0, |last| last.end.len_bytes);
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        Ok(self.log.shared().get(Number::Durable) >= position(segment.id, end))
    }
}
