//! What is said differently on different systems: where there is no Unix. Untested.
//!
//! Invariants:
//! 1. What these systems cannot say in safe code is answered so that one process alone is
//!    right: directories are told apart by their absolute paths, the clock starts with it.
//!
//! Threads and processes: plain functions. Stores are not to be shared between processes here.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Nothing: links are found by the check of the type alone.
pub(super) fn harden(_options: &mut OpenOptions) {}

/// Directories are not opened here; [`cannot_sync_directories`] takes the error for done.
pub(super) fn open_directory(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a sync of a directory failed because there is no such thing.
pub(super) fn cannot_sync_directories(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// Not told apart from other failures.
pub(super) fn is_link_loop(_error: &io::Error) -> bool {
    false
}

/// None: nothing is forked here.
pub(super) fn descriptor(_file: &File) -> i32 {
    -1
}

/// What a file type is called in messages.
pub(super) fn type_name(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else {
        "something unknown"
    }
}

/// A number for the absolute path of the directory `path`, the same in one build of the program.
pub(super) fn identity(path: &Path, _metadata: &Metadata) -> io::Result<(u64, u64)> {
    let mut hasher = DefaultHasher::new();
    std::fs::canonicalize(path)?.hash(&mut hasher);
    Ok((0, hasher.finish()))
}

/// Not known here.
pub(super) fn file_identity(_metadata: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Not known here.
#[expect(clippy::unnecessary_wraps, reason = "other systems may fail")]
pub(super) fn lockers(_file: &File) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

/// Not known here; taken for granted.
pub(super) fn has_space(_metadata: &Metadata) -> bool {
    true
}

/// One read at `offset`, possibly short.
#[cfg(windows)]
pub(super) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Not to be had.
#[cfg(not(windows))]
pub(super) fn read_at(_file: &File, _out: &mut [u8], _offset: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes all of `bytes`; repeats short calls.
#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Not to be had.
#[cfg(not(windows))]
pub(super) fn write_all_at(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reserves nothing.
pub(super) fn reserve(_file: &File, _len_bytes: u64) -> io::Result<bool> {
    Ok(false)
}

/// Time since this process first asked.
pub(in crate::vfs) fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Looks again after a moment.
pub(super) fn wait_while(_word: &AtomicU32, _value: u32, left: Duration) {
    std::thread::sleep(left.min(Duration::from_millis(1)));
}

/// Nothing: who waits looks again by himself.
pub(super) fn wake_all(_word: &AtomicU32) {}

/// Not told here.
pub(super) fn boot_id() -> u64 {
    0
}
