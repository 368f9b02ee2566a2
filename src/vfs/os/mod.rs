//! The real machine: files, flock, mapped pages, the monotonic clock, threads.
//!
//! Everything the store asks of an operating system is asked in this folder. Tested on Linux;
//! other Unix systems compile as far as their crates do, and are untested.
//!
//! Invariants:
//! 1. `unsafe` stands in `mapping` and `fork` alone.
//! 2. Interrupted and short calls are repeated here, and seen by nobody above.
//! 3. Descriptors are never inherited by spawned programs, and opening never waits on a pipe.
//!
//! Threads and processes: all methods may be called from any thread; file locks are between
//! opens of a file, in this and other processes.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the door that the others go through"
)]

mod file;
mod fork;
mod locality;
mod mapping;
pub(super) mod shared;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{
    DirectoryId, Locality, NodeKind, OpenMode, SharedPage, Signal, Step, Vfs, VfsFile, Worker,
};
use file::OsFile;
use mapping::MappedPage;

/// The operating system.
#[derive(Debug)]
pub(crate) struct OsVfs {
    mapped: bool,
}

static MAPPED: LazyLock<Arc<dyn Vfs>> = LazyLock::new(|| Arc::new(OsVfs { mapped: true }));
static UNMAPPED: LazyLock<Arc<dyn Vfs>> = LazyLock::new(|| Arc::new(OsVfs { mapped: false }));

impl OsVfs {
    /// The operating system, with files mapped for reading.
    ///
    /// A mapped file that another program cuts off ends the process with `SIGBUS` when the lost
    /// part is read; nothing in this crate ever cuts one off.
    #[expect(clippy::new_ret_no_self, reason = "all callers want the trait")]
    pub(crate) fn new() -> Arc<dyn Vfs> {
        fork::watch();
        MAPPED.clone()
    }

    /// The operating system, with every read a system call.
    pub(crate) fn without_mapping() -> Arc<dyn Vfs> {
        fork::watch();
        UNMAPPED.clone()
    }
}

impl Vfs for OsVfs {
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        match fs::create_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = directory
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                self.create_dir_all(parent.ok_or(error)?)?;
                fs::create_dir(directory)?;
            }
            Err(_) if directory.is_dir() => return Ok(()),
            Err(error) => return Err(error),
        }
        // CRASH: without this the new directory, and all in it, may be gone.
        match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            Some(_) => self.sync_dir(Path::new(".")),
            None => Ok(()),
        }
    }

    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(Some(NodeKind::File)),
            Ok(found) if found.is_dir() => Ok(Some(NodeKind::Directory)),
            Ok(_) => Ok(Some(NodeKind::Other)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A symbolic link that leads nowhere is there, all the same.
                Ok(fs::symlink_metadata(path)
                    .is_ok()
                    .then_some(NodeKind::Other))
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let write = mode != OpenMode::Read;
        let create = matches!(mode, OpenMode::WriteOrCreate | OpenMode::CreateEmpty);
        let file = File::options()
            .read(true)
            .write(write)
            .create(create)
            .truncate(mode == OpenMode::CreateEmpty)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(Arc::new(OsFile::new(file, found.len(), self.mapped)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn directory_id(&self, directory: &Path) -> io::Result<DirectoryId> {
        let found = fs::metadata(directory)?;
        Ok(DirectoryId {
            machine: 0,
            device: found.dev(),
            inode: found.ino(),
        })
    }

    fn absolute(&self, directory: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(directory)
    }

    fn locality(&self, directory: &Path) -> io::Result<Locality> {
        locality::of(directory)
    }

    fn shared_page(&self, path: &Path) -> io::Result<Arc<dyn SharedPage>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        Ok(Arc::new(MappedPage::new(&file)?))
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    fn fork_count(&self) -> u64 {
        fork::count()
    }

    fn thread_id(&self) -> u64 {
        shared::thread_id()
    }

    fn monotonic(&self) -> Duration {
        shared::monotonic()
    }

    fn unix_time(&self) -> Duration {
        shared::unix_time()
    }

    fn unique_id(&self) -> [u8; 16] {
        shared::unique_id()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn signal(&self) -> Arc<dyn Signal> {
        shared::signal()
    }

    fn spawn(&self, name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
        shared::spawn(name, step)
    }
}
