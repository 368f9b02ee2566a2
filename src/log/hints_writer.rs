//! Writing the hints of a segment.
//!
//! What a crash leaves: a temporary file, or hints whose bytes are not on the disk, which is noticed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_name;
use super::location::Version;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::checksum::StoreId;
use crate::format::hint::{Encoder, Hint};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Bytes are written to a file of hints in pieces of about this many.
const WRITE_BYTES: usize = 256 << 10;

/// Writes the hints of a segment, key by key.
pub(crate) struct HintsWriter {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    temporary: PathBuf,
    at: u64,
    encoder: Encoder,
    is_finished: bool,
}

impl HintsWriter {
    /// Begins the hints of `segment`.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn create(
        vfs: &Arc<dyn Vfs>,
        directory: &Path,
        store_id: StoreId,
        segment: u32,
    ) -> Result<Self> {
        let temporary = file_name::hints_temporary(directory, segment);
        let file = vfs
            .open(&temporary, OpenMode::CreateEmpty)
            .map_err(|error| Error::create(&temporary, error))?;
        Ok(Self {
            vfs: vfs.clone(),
            path: file_name::hints(directory, segment),
            file,
            temporary,
            at: 0,
            encoder: Encoder::new(store_id, segment),
            is_finished: false,
        })
    }

    /// Adds a key, which comes after all before it.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn push(&mut self, key: &[u8], version: Version) -> Result<()> {
        self.encoder.push(&Hint {
            key,
            sequence: version.sequence,
            offset: version.location.offset,
            epoch: version.location.epoch,
            value_bytes: version.location.value_bytes(),
        });
        if self.encoder.out.len() >= WRITE_BYTES {
            let bytes = self.encoder.take();
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// How many bytes were written.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.at
    }

    /// Ends the hints of the segment's first `len_bytes`. They are not durable on return, and need
    /// not be: what is missing of them is noticed. Their length, in bytes.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(crate) fn finish(mut self, len_bytes: u32, last_sequence: u64) -> Result<u64> {
        let unused = Encoder::new(StoreId::default(), 0);
        let encoder = std::mem::replace(&mut self.encoder, unused);
        self.write(&encoder.finish(len_bytes, last_sequence))?;
        failpoint::hit!("compaction-hints-written");
        self.vfs
            .rename(&self.temporary, &self.path)
            .map_err(|error| Error::io("rename", &self.temporary, error))?;
        self.is_finished = true;
        Ok(self.at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_at(self.at, bytes);
        self.at += bytes.len() as u64;
        written.map_err(|error| Error::write(&self.temporary, bytes.len() as u64, error))
    }
}

impl Drop for HintsWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // OK because it is of no use to anybody, and the next compaction removes it too.
            let _ = self.vfs.unlink(&self.temporary);
        }
    }
}
