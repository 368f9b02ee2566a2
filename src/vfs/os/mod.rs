//! The operating system behind the one door.
//!
//! [`OsVfs`] is stateless and shared: [`OsVfs::new`] gives the one instance of the process. What
//! it does is spread over the files of this room, each with one duty:
//!
//! | file | duty |
//! |---|---|
//! | `directories` | names: create, list, rename, unlink, sync, identify |
//! | `file` | one open file: read, view, write, allocate, sync, lock |
//! | `mapping` | mapped memory; **unsafe** |
//! | `page` | the words of a shared page |
//! | `fork` | how often this memory was forked; **unsafe** |
//! | `locality` | which file systems are not of this host |
//! | `host` | process, threads, clocks, chance |
//! | `signal`, `worker` | waiting and background work |
//! | `unix`, `other` | what is said differently on different systems |
//!
//! The clock, signals and workers serve [`memory`](super::memory) too.
//!
//! Invariants:
//! 1. Only regular files are opened, never through a symbolic link in the last part of the path.
//! 2. No file is ever shrunk, but by [`OpenMode::CreateEmpty`].
//! 3. A mapped page is touched only below a file length that the kernel has told or granted.
//!
//! Threads and processes: everything may be called from any thread. After a fork the child may
//! ask [`Vfs::fork_count`] and drop what it inherited; workers do not exist in it, and locks
//! taken before the fork belong to the parent. Linux is tested; other Unixes are meant to work
//! and are untested; elsewhere this room compiles at best, without shared identities or a clock
//! common to processes.

#![expect(clippy::disallowed_methods, reason = "this is the one door")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{
    DirectoryId, Locality, NodeKind, OpenMode, SharedPage, Signal, Step, Vfs, VfsDirectory,
    VfsFile, Worker,
};
use directories::OsDirectory;
use file::OsFile;
use mapping::PageMapping;
use page::{Page, PlainWords};

mod directories;
mod file;
pub(super) mod fork;
pub(super) mod host;
mod locality;
mod mapping;
pub(super) mod page;
pub(super) mod signal;
pub(super) mod worker;

#[cfg(not(unix))]
#[path = "other.rs"]
mod system;
#[cfg(unix)]
#[path = "unix.rs"]
mod system;

#[cfg(all(test, unix))]
mod tests;

/// The operating system.
#[derive(Debug)]
pub(crate) struct OsVfs {
    /// Whether [`VfsFile::map`] does anything.
    maps_files: bool,
}

impl OsVfs {
    /// The machine, files mapped for reading; one instance is shared by all callers.
    ///
    /// If somebody outside shortens a file that is mapped, reading the lost part ends the process
    /// with a SIGBUS. Where such people are about, [`OsVfs::without_mapping`] is the choice.
    #[expect(
        clippy::new_ret_no_self,
        reason = "callers hold machines as Arc<dyn Vfs> alone"
    )]
    pub(crate) fn new() -> Arc<dyn Vfs> {
        static SHARED: OnceLock<Arc<OsVfs>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(true)).clone()
    }

    /// The machine, files read by system calls alone; one instance is shared by all callers.
    ///
    /// A file shortened by somebody outside is then an error of the read. The shared page
    /// ([`Vfs::shared_page`]) is mapped all the same.
    pub(crate) fn without_mapping() -> Arc<dyn Vfs> {
        static SHARED: OnceLock<Arc<OsVfs>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(false)).clone()
    }

    fn start(maps_files: bool) -> Arc<Self> {
        fork::watch();
        Arc::new(Self { maps_files })
    }
}

impl Vfs for OsVfs {
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        directories::create_all(directory)
    }

    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>> {
        directories::node(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        directories::list(directory)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(OsFile::open(path, mode, self.maps_files)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn directory(&self, directory: &Path) -> io::Result<Arc<dyn VfsDirectory>> {
        Ok(Arc::new(OsDirectory::open(directory)?))
    }

    fn directory_id(&self, directory: &Path) -> io::Result<DirectoryId> {
        directories::id(directory)
    }

    fn absolute(&self, directory: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(directory)
    }

    #[cfg(unix)]
    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        locality::free_bytes(directory)
    }

    fn locality(&self, directory: &Path) -> io::Result<Locality> {
        locality::of(directory)
    }

    fn shared_page(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SharedPage>> {
        let file = OsFile::open(path, mode, false)?;
        let is_writable = mode != OpenMode::Read;
        if is_writable {
            file.reserve_page(PageMapping::LEN_BYTES)?;
        }
        let mapping = PageMapping::new(file.as_std(), is_writable)?;
        Ok(Arc::new(Page::new(mapping, is_writable)))
    }

    fn private_page(&self) -> Arc<dyn SharedPage> {
        Arc::new(Page::new(PlainWords::new(), true))
    }

    fn boot_id(&self) -> u64 {
        static BOOT: OnceLock<u64> = OnceLock::new();
        match BOOT.get() {
            Some(id) => *id,
            // Perhaps there is no file descriptor left, for now.
            None => match system::boot_id() {
                0 => 0,
                id => *BOOT.get_or_init(|| id),
            },
        }
    }

    fn process_id(&self) -> u32 {
        host::process_id()
    }

    fn fork_count(&self) -> u64 {
        fork::count()
    }

    fn thread_id(&self) -> u64 {
        host::thread_id()
    }

    fn monotonic(&self) -> Duration {
        host::monotonic()
    }

    fn unix_time(&self) -> Duration {
        host::unix_time()
    }

    fn unique_id(&self) -> [u8; 16] {
        host::unique_id()
    }

    fn yield_now(&self) {
        host::yield_now();
    }

    fn sleep(&self, duration: Duration) {
        host::sleep(duration);
    }

    fn signal(&self) -> Arc<dyn Signal> {
        Arc::new(signal::OsSignal::default())
    }

    fn parallelism(&self) -> usize {
        worker::parallelism()
    }

    fn side_by_side(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        worker::side_by_side(count, job);
    }

    fn spawn(&self, name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
        Ok(Box::new(worker::OsWorker::start(name, step)?))
    }
}
