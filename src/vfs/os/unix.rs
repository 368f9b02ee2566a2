//! What is said differently on different systems: the Unix way.
//!
//! Invariants:
//! 1. Every call that a signal may interrupt is repeated.
//!
//! Threads and processes: plain functions. Linux is tested, other Unixes are not.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Makes `options` refuse symbolic links, not wait on pipes, and not leak to spawned programs.
pub(super) fn harden(options: &mut OpenOptions) {
    options.custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK);
}

/// Opens a directory, to sync it.
pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_DIRECTORY)
        .open(path)
}

/// Whether a sync of a directory failed because the file system has no such thing.
pub(super) fn cannot_sync_directories(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Whether a path could not be followed because its links go round and round.
pub(super) fn is_link_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// The number of an open file.
pub(super) fn descriptor(file: &File) -> i32 {
    file.as_raw_fd()
}

/// What a file type is called in messages.
pub(super) fn type_name(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_fifo() {
        "a named pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "a device"
    } else {
        "something unknown"
    }
}

/// Device and inode of what `path` leads to.
#[expect(clippy::unnecessary_wraps, reason = "other systems may fail")]
pub(super) fn identity(_path: &Path, metadata: &Metadata) -> io::Result<(u64, u64)> {
    Ok((metadata.dev(), metadata.ino()))
}

/// Device and inode of a file.
#[expect(clippy::unnecessary_wraps, reason = "other systems do not tell")]
pub(super) fn file_identity(metadata: &Metadata) -> Option<(u64, u64)> {
    Some((metadata.dev(), metadata.ino()))
}

/// The processes that have locked `file` as a whole, by the kernel's list of all locks.
///
/// Some file systems show another device there than a file's own; but who has locked the file too
/// finds its own line, and the device in that.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn lockers(file: &File) -> io::Result<Vec<u32>> {
    let found = file.metadata()?;
    let (major, minor) = (
        rustix::fs::major(found.dev()),
        rustix::fs::minor(found.dev()),
    );
    let list = std::fs::read_to_string("/proc/locks")?;
    let (inode, me) = (found.ino().to_string(), std::process::id());
    let locks: Vec<(u32, &str)> = list
        .lines()
        .filter_map(|line| {
            // Its number, kind, `ADVISORY`, `READ` or `WRITE`, process, `device:inode`, range. Who
            // waits has an arrow in the second place.
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[_, "FLOCK", _, _, process, place, ..] = words.as_slice() else {
                return None;
            };
            let (device, of_inode) = place.rsplit_once(':')?;
            // Processes of other containers have no number here.
            let process = process.parse().ok().filter(|&process| process != 0)?;
            (of_inode == inode).then_some((process, device))
        })
        .collect();
    let mut devices: Vec<&str> = locks
        .iter()
        .filter(|(process, _)| *process == me)
        .map(|(_, device)| *device)
        .collect();
    let own = format!("{major:02x}:{minor:02x}");
    if devices.is_empty() {
        devices.push(&own);
    }
    let here = locks.iter().filter(|(_, on)| devices.contains(on));
    let mut processes: Vec<u32> = here.map(|(process, _)| *process).collect();
    processes.sort_unstable();
    processes.dedup();
    Ok(processes)
}

/// Not known: these systems have no such list.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn lockers(_file: &File) -> io::Result<Vec<u32>> {
    Ok(Vec::new())
}

/// Whether a file is more than a hole.
pub(super) fn has_space(metadata: &Metadata) -> bool {
    metadata.blocks() > 0
}

/// One read at `offset`, possibly short.
pub(super) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(out, offset)
}

/// Writes all of `bytes`; repeats interrupted and short calls.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Reserves the first `len_bytes` of `file` and grows it to them; false where the file system
/// cannot.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn reserve(file: &File, len_bytes: u64) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};

    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len_bytes)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reserves nothing: the calls of these systems differ too much to be used untested.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn reserve(_file: &File, _len_bytes: u64) -> io::Result<bool> {
    Ok(false)
}

/// Time since the host started, the same in all its processes.
pub(in crate::vfs) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

/// Waits while `word` is `value`, up to `left`; may come back early.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn wait_while(word: &AtomicU32, value: u32, left: Duration) {
    use rustix::thread::futex::{Flags, wait};
    use rustix::time::Timespec;

    let left = Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    // OK because every way in which it ends early is allowed. Not private: other processes ring.
    let _ = wait(word, Flags::empty(), value, Some(&left));
}

/// Lets all who wait for `word` to change go on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn wake_all(word: &AtomicU32) {
    use rustix::thread::futex::{Flags, wake};

    // OK because it can only fail for addresses that are none.
    let _ = wake(word, Flags::empty(), i32::MAX as u32);
}

/// Looks again after a moment: the calls of these systems differ too much to be used untested.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn wait_while(_word: &AtomicU32, _value: u32, left: Duration) {
    std::thread::sleep(left.min(Duration::from_millis(1)));
}

/// Nothing: who waits looks again by himself.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn wake_all(_word: &AtomicU32) {}

/// What tells the times between two boots of the machine apart; 0 where the machine does not say.
pub(super) fn boot_id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mix = |id: u64, digit| (id ^ u64::from(digit)).wrapping_mul(0x0100_0000_01b3);
    let digits = text.bytes().filter(u8::is_ascii_hexdigit);
    digits
        .fold(None, |id, digit| Some(mix(id.unwrap_or(1), digit).max(1)))
        .unwrap_or(0)
}
