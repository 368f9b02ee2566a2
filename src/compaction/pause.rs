//! Keeping a directory as it is: nobody compacts it for a while.

use std::sync::Arc;
use std::time::Duration;

use super::Election;
use crate::engine::Engine;
use crate::error::Result;

/// As long as this lives nobody compacts the store, in no process; made by
/// [`Store::pause_compaction`](crate::Store::pause_compaction). Files of finished segments and their
/// hints stay what and where they are meanwhile; others may come, as commits fill them.
#[must_use = "compaction goes on when this is dropped"]
pub struct CompactionPause {
    engine: Arc<Engine>,
    _election: Election,
}

impl CompactionPause {
    /// Waits for whoever compacts up to `timeout`.
    ///
    /// # Errors
    /// `LockTimeout`, `DiskFull`, `Io`; what makes writes impossible.
    pub(crate) fn new(engine: &Arc<Engine>, timeout: Duration) -> Result<Self> {
        engine.check_writable()?;
        engine.compactor.begin_wanting();
        let election = Election::wait(engine, timeout).inspect_err(|_| {
            engine.compactor.end_wanting();
        })?;
        Ok(Self {
            engine: engine.clone(),
            _election: election,
        })
    }
}

impl std::fmt::Debug for CompactionPause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.engine.identity.path;
        let mut shown = formatter.debug_struct("CompactionPause");
        shown.field("path", path).finish_non_exhaustive()
    }
}

impl Drop for CompactionPause {
    fn drop(&mut self) {
        self.engine.compactor.end_wanting();
    }
}
