//! One open regular file.
//!
//! Segments are read through [`VfsFile::view`]: borrowed from the mapping where there is one,
//! copied by a system call elsewhere. Everything else is one system call, repeated when it is
//! interrupted or falls short.
//!
//! Invariants:
//! 1. `known_len` was the file's length at some time, told by the kernel or granted by it; as
//!    files are not shrunk, the file is at least that long now.
//! 2. A lock is given back by the process that took it, and by no forked child of it.
//!
//! Threads and processes: all calls may be made from any thread; the kernel orders those that
//! touch the same bytes. A child forked off shares the descriptor: it may read and write, but
//! neither lock nor unlock, and the parent's lock outlives the child's copy. Of a file that the
//! parent has locked it has no copy at all, so that the lock goes with the parent.
//!
//! What a crash leaves behind: of a write any part of its sectors, and of one that was stored into
//! a window, if the process alone is killed, any part of its bytes; of an allocation a longer
//! file whose new bytes are zero.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use fs4::TryLockError;

use super::mapping::{FileMapping, WriteWindow};
use super::{fork, host, locality, system};
use crate::vfs::{LockKind, OpenMode, VfsFile};

/// The least that is brought into the cache at once.
const CACHE_LINE_BYTES: usize = 64;

/// How many zeros are written in one call where space cannot be reserved.
const ZEROS_BYTES: usize = 64 * 1024;

/// The longest write that is stored into a window. Above it one call is faster than a page fault
/// for every page.
const STORED_BYTES_MAX: usize = 16 << 10;

/// A [`VfsFile`] of the operating system.
#[derive(Debug)]
pub(super) struct OsFile {
    /// Of files that locks are taken on; goes before the descriptor is closed.
    guarded: OnceLock<fork::Guarded>,
    file: File,
    known_len: AtomicU64,
    /// `Some(None)` if it could not be mapped.
    mapping: OnceLock<Option<FileMapping>>,
    /// Where small writes are stored without a system call.
    window: Mutex<Option<WriteWindow>>,
    /// Up to here space was reserved through this descriptor, on a file system that keeps it.
    reserved: AtomicU64,
    /// Whether [`VfsFile::map`] and [`VfsFile::expect_writes`] do anything.
    maps: bool,
    /// Whether the lock of this descriptor is held.
    locked: AtomicBool,
    /// The fork count of the process that opened the file.
    forks: u64,
}

impl OsFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if `path` is something else; what the machine says.
    pub(super) fn open(path: &Path, mode: OpenMode, maps: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::WriteOrCreate => {
                options.create(true).truncate(false);
            }
            OpenMode::CreateEmpty => {
                options.create(true).truncate(true);
            }
        }
        system::harden(&mut options);
        let file = options.open(path).map_err(|error| refusal(path, error))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(irregular(system::type_name(found.file_type())));
        }
        let guarded = OnceLock::new();
        if mode == OpenMode::WriteOrCreate {
            // A file of locks. One that is only read may be one too: see `try_lock`.
            guarded.get_or_init(|| fork::Guarded::new(system::descriptor(&file)));
        }
        Ok(Self {
            guarded,
            file,
            known_len: AtomicU64::new(found.len()),
            mapping: OnceLock::new(),
            window: Mutex::default(),
            reserved: AtomicU64::new(0),
            maps,
            locked: AtomicBool::new(false),
            forks: fork::count(),
        })
    }

    /// The file itself, to be mapped as a page.
    pub(super) fn as_std(&self) -> &File {
        &self.file
    }

    /// Makes the file at least `len_bytes` long, with space behind it where that can be had.
    ///
    /// Unlike [`VfsFile::allocate`] it may run in several processes at once: it writes nothing.
    /// On a file system without reservations and without space, storing into a page of it would
    /// end the process.
    ///
    /// # Errors
    /// As [`VfsFile::allocate`].
    pub(super) fn reserve_page(&self, len_bytes: usize) -> io::Result<()> {
        let len_bytes = len_bytes as u64;
        let reserved = system::reserve(&self.file, len_bytes);
        let found = self.file.metadata()?;
        let is_there = found.len() >= len_bytes;
        match reserved {
            // Some file systems refuse to reserve on a full disk what has its space already; a
            // store must be able to open there.
            Err(_) if is_there && system::has_space(&found) => {}
            Ok(false) if !is_there => {
                // No process makes this file longer than a page, so this cannot shrink it.
                self.file.set_len(len_bytes)?;
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads up to `out.len()` bytes; fewer only at the end of the file.
    fn read_fully(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            let position = offset
                .checked_add(done as u64)
                .ok_or(io::ErrorKind::InvalidInput)?;
            match system::read_at(&self.file, &mut out[done..], position) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Asks the kernel for the length.
    fn refresh_len(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        self.known_len.store(len, Ordering::Release);
        Ok(len)
    }

    /// A length that covers `end`, asked from the kernel only if the known one does not.
    fn len_covering(&self, end: u64) -> io::Result<u64> {
        let known = self.known_len.load(Ordering::Acquire);
        let len = if end <= known {
            known
        } else {
            self.refresh_len()?
        };
        if end <= len {
            Ok(len)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Writes zeros from `from` up to `to`.
    pub(super) fn write_zeros(&self, mut from: u64, to: u64) -> io::Result<()> {
        static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];
        while from < to {
            let count =
                usize::try_from(to - from).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
            system::write_all_at(&self.file, &ZEROS[..count], from)?;
            from += count as u64;
        }
        Ok(())
    }

    /// Stores `bytes` into the window; true if it has: it may not be there, and a call may be faster.
    pub(super) fn has_stored(&self, offset: u64, bytes: &[u8]) -> bool {
        bytes.len() <= STORED_BYTES_MAX
            && host::lock(&self.window)
                .as_ref()
                .is_some_and(|window| window.write(offset, bytes))
    }

    /// Refuses a forked child: the descriptor, and so the lock, is also its parent's.
    fn check_lock_is_ours(&self) -> io::Result<()> {
        if self.forks == fork::count() {
            return Ok(());
        }
        Err(io::Error::other(
            "this file was opened before a fork, its lock belongs to the parent",
        ))
    }
}

/// Replaces what the machine says about opening `path` where a clearer word is known.
fn refusal(path: &Path, error: io::Error) -> io::Error {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => irregular(system::type_name(found.file_type())),
        _ => error,
    }
}

fn irregular(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("this is {what}, not a regular file"),
    )
}

impl VfsFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        self.refresh_len()
    }

    fn is_named(&self, path: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(path) {
            Ok(named) => {
                let mine = system::identity(path, &self.file.metadata()?)?;
                Ok(system::identity(path, &named)? == mine)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(system::file_identity(&self.file.metadata()?))
    }

    fn lockers(&self) -> io::Result<Vec<u32>> {
        system::lockers(&self.file)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.read_fully(offset, out)
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        let end = offset
            .checked_add(len_bytes as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let file_len = self.len_covering(end)?;
        if let Some(Some(mapping)) = self.mapping.get()
            && let Some(bytes) = mapping.slice(offset, end, file_len)
        {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len_bytes)?;
        bytes.resize(len_bytes, 0);
        if self.read_fully(offset, &mut bytes)? < len_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Cow::Owned(bytes))
    }

    fn warm(&self, offset: u64, len_bytes: usize) {
        let end = offset.saturating_add(len_bytes as u64);
        let file_len = self.known_len.load(Ordering::Acquire);
        if let Some(Some(mapping)) = self.mapping.get()
            && end <= file_len
            && let Some(bytes) = mapping.slice(offset, end, file_len)
        {
            // Loads that nothing waits for: the processor has many of them under way at once.
            let lines = bytes.iter().step_by(CACHE_LINE_BYTES);
            std::hint::black_box(lines.fold(0, |all, &byte| all | byte));
        }
    }

    /// Maps the file once. If somebody outside the store then shortens it, a view of what is lost
    /// ends the process with a SIGBUS; [`OsVfs::without_mapping`](super::OsVfs::without_mapping)
    /// gives files whose views are copied.
    fn map(&self, len_bytes: u64) {
        if !self.maps || len_bytes == 0 {
            return;
        }
        self.mapping.get_or_init(|| {
            // A mapping that cannot be had is no error: views are then copied.
            usize::try_from(len_bytes)
                .ok()
                .and_then(|len| FileMapping::new(&self.file, len).ok())
        });
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if !self.has_stored(offset, bytes) {
            system::write_all_at(&self.file, bytes, offset)?;
        }
        if !bytes.is_empty() {
            self.known_len.fetch_max(end, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Where the file system cannot reserve space, zeros are written behind the file's end: not
    /// while somebody else makes it longer.
    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        // The kernel refuses to reserve nothing.
        if len_bytes == 0 {
            return Ok(());
        }
        // The whole range, not only what is beyond the end: a file that was copied with holes in
        // it gets its space back before anybody relies on it.
        if system::reserve(&self.file, len_bytes)? {
            self.reserved.fetch_max(len_bytes, Ordering::AcqRel);
        } else {
            let len = self.file.metadata()?.len();
            self.write_zeros(len, len_bytes)?;
        }
        self.known_len.fetch_max(len_bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Maps what was reserved of the range, where the file system keeps what it has reserved.
    /// A disk that fails then ends the process with a SIGBUS where a system call would have been
    /// an error; [`OsVfs::without_mapping`](super::OsVfs::without_mapping) gives files that are
    /// written by calls alone.
    fn expect_writes(&self, from: u64, to: u64) {
        let to = to.min(self.reserved.load(Ordering::Acquire));
        let is_wanted = self.maps && from < to && locality::keeps_reserved(&self.file);
        // Where it cannot be mapped it is written by calls, as ever.
        let window = is_wanted
            .then(|| WriteWindow::new(&self.file, from, to).ok())
            .flatten();
        *host::lock(&self.window) = window;
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A lock that is held is changed to the other kind, not atomically: it may be lost to
    /// another on the way, and is gone if this gives false.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.check_lock_is_ours()?;
        self.guarded
            .get_or_init(|| fork::Guarded::new(system::descriptor(&self.file)));
        loop {
            let tried = match kind {
                LockKind::Shared => fs4::FileExt::try_lock_shared(&self.file),
                LockKind::Exclusive => fs4::FileExt::try_lock(&self.file),
            };
            let taken = match tried {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            };
            self.locked.store(taken, Ordering::Release);
            return Ok(taken);
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.check_lock_is_ours()?;
        loop {
            match fs4::FileExt::unlock(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.locked.store(false, Ordering::Release);
                    return Ok(());
                }
            }
        }
    }
}

impl Drop for OsFile {
    /// Gives the lock back, even if a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        if *self.locked.get_mut() && self.forks == fork::count() {
            // Closing the descriptor is the next best, and follows.
            let _ = self.unlock();
        }
    }
}
