//! One open file of the real machine.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fs4::TryLockError;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::mapping::MappedFile;
use crate::vfs::{LockKind, VfsFile};

/// How much is written at once where space cannot be reserved.
const ZEROS: &[u8] = &[0; 64 << 10];

/// An open file.
pub(super) struct OsFile {
    file: File,
    /// The file's length as far as this process knows; it only grows.
    known_len: AtomicU64,
    mapped: bool,
    map: OnceLock<Option<MappedFile>>,
}

impl OsFile {
    pub(super) fn new(file: File, len: u64, mapped: bool) -> Self {
        Self {
            file,
            known_len: AtomicU64::new(len),
            mapped,
            map: OnceLock::new(),
        }
    }

    /// Refuses a range that reaches beyond the file.
    fn check_within(&self, offset: u64, len_bytes: usize) -> io::Result<()> {
        let end = offset.checked_add(len_bytes as u64);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if end <= self.known_len.load(Ordering::Acquire) {
            return Ok(());
        }
        let len = self.len()?;
        if end <= len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn grown_to(&self, len: u64) {
        self.known_len.fetch_max(len, Ordering::AcqRel);
    }

    /// Reserves by writing zeros, where the file system cannot do it without.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let len = usize::try_from(to - at)
                .unwrap_or(ZEROS.len())
                .min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }
}

impl VfsFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        self.grown_to(len);
        Ok(len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        self.check_within(offset, len_bytes)?;
        let mapped = self.map.get().and_then(Option::as_ref);
        if let Some(bytes) = mapped.and_then(|map| map.bytes(offset, len_bytes)) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = vec![0; len_bytes];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Cow::Owned(bytes))
    }

    fn map(&self, len_bytes: u64) {
        if self.mapped {
            self.map
                .get_or_init(|| MappedFile::new(&self.file, len_bytes));
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.grown_to(offset + bytes.len() as u64);
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        let len = self.len()?;
        if len_bytes <= len {
            return Ok(());
        }
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), len, len_bytes - len) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.write_zeros(len, len_bytes)?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.grown_to(len_bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        loop {
            let tried = match kind {
                LockKind::Shared => fs4::FileExt::try_lock_shared(&self.file),
                LockKind::Exclusive => fs4::FileExt::try_lock(&self.file),
            };
            match tried {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn unlock(&self) -> io::Result<()> {
        fs4::FileExt::unlock(&self.file)
    }
}
