//! A machine of plain memory, for stores that live as long as their process.
//!
//! Every [`MemoryVfs::new`] is an empty machine of its own with one root. Relative and absolute
//! paths are the same here, directories come into being with what is put into them, `.` and `..`
//! are resolved by their names, there are no links. Time, threads, signals and workers are those
//! of the operating system.
//!
//! The bytes of a file are kept by `content`. Views are copies.
//!
//! Invariants:
//! 1. Whatever lies in a directory, the directory and its parents are nodes too.
//! 2. The lock of a file is held by opens of it that live: a dropped one is no holder.
//!
//! Threads and processes: every method may be called from any thread; a write is seen by readers
//! piece by piece, as in a real file. A forked child gets a copy of the machine.
//!
//! What a crash leaves behind: nothing; all syncs do nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::os::page::{Page, PlainWords};
use super::os::signal::OsSignal;
use super::os::worker::OsWorker;
use super::os::{fork, host};
use super::{
    DirectoryId, Locality, LockKind, NodeKind, OpenMode, SHARED_PAGE_BYTES, SharedPage, Signal,
    Step, Vfs, VfsDirectory, VfsFile, Worker,
};
use content::Content;

mod content;

/// A machine of plain memory.
#[derive(Debug)]
pub(crate) struct MemoryVfs {
    /// Its number among all machines, for [`DirectoryId`].
    machine: u64,
    /// By path below the root, which is the empty path.
    nodes: Mutex<BTreeMap<PathBuf, Node>>,
    /// The inode of the next directory.
    inodes: AtomicU64,
}

/// A directory, whose entries are as durable as anything here.
struct MemoryDirectory;

impl VfsDirectory for MemoryDirectory {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Node {
    File(Arc<Data>),
    /// With its inode.
    Directory(u64),
}

impl MemoryVfs {
    /// A new, empty machine.
    #[expect(
        clippy::new_ret_no_self,
        reason = "callers hold machines as Arc<dyn Vfs> alone"
    )]
    pub(crate) fn new() -> Arc<dyn Vfs> {
        // The operating system is 0; counting down keeps clear of it and of simulated machines.
        static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
        fork::watch();
        Arc::new(Self {
            machine: NEXT.fetch_sub(1, Ordering::Relaxed),
            nodes: Mutex::new(BTreeMap::from([(PathBuf::new(), Node::Directory(1))])),
            inodes: AtomicU64::new(2),
        })
    }

    /// Makes `directory` and its parents nodes.
    fn ensure_directory(
        &self,
        nodes: &mut BTreeMap<PathBuf, Node>,
        directory: &Path,
    ) -> io::Result<()> {
        // From the root down, so that nothing is made below a file.
        for depth in 1..=directory.components().count() {
            let ancestor: PathBuf = directory.components().take(depth).collect();
            let fresh = || Node::Directory(self.inodes.fetch_add(1, Ordering::Relaxed));
            if let Node::File(_) = nodes.entry(ancestor).or_insert_with(fresh) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Ok(())
    }

    /// The file at `path`, as `mode` wants it.
    fn data(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<Data>> {
        let path = below_root(path);
        let mut nodes = host::lock(&self.nodes);
        match nodes.get(&path) {
            Some(Node::File(data)) => {
                if mode == OpenMode::CreateEmpty {
                    data.empty();
                }
                Ok(Arc::clone(data))
            }
            Some(Node::Directory(_)) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is a directory, not a regular file",
            )),
            None if matches!(mode, OpenMode::Read | OpenMode::Write) => {
                Err(io::ErrorKind::NotFound.into())
            }
            None => {
                self.ensure_directory(&mut nodes, path.parent().unwrap_or(Path::new("")))?;
                let data = Arc::new(Data::default());
                nodes.insert(path, Node::File(Arc::clone(&data)));
                Ok(data)
            }
        }
    }

    /// The inode of the directory at `path`.
    fn inode(&self, path: &Path) -> io::Result<u64> {
        match host::lock(&self.nodes).get(&below_root(path)) {
            Some(Node::Directory(inode)) => Ok(*inode),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// The path as the map knows it.
fn below_root(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

impl Vfs for MemoryVfs {
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.ensure_directory(&mut host::lock(&self.nodes), &below_root(directory))
    }

    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>> {
        Ok(host::lock(&self.nodes)
            .get(&below_root(path))
            .map(|node| match node {
                Node::File(_) => NodeKind::File,
                Node::Directory(_) => NodeKind::Directory,
            }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.inode(directory)?;
        let directory = below_root(directory);
        let nodes = host::lock(&self.nodes);
        let inside = nodes
            .keys()
            .filter(|path| path.parent() == Some(&directory));
        Ok(inside
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(MemoryFile {
            data: self.data(path, mode)?,
            mode,
            handle: host::next_number(),
        }))
    }

    /// Renames a file; directories stay where they are.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (below_root(from), below_root(to));
        let mut nodes = host::lock(&self.nodes);
        let data = match nodes.get(&from) {
            Some(Node::File(data)) => Arc::clone(data),
            Some(Node::Directory(_)) => return Err(io::ErrorKind::Unsupported.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        if let Some(Node::Directory(_)) = nodes.get(&to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.ensure_directory(&mut nodes, to.parent().unwrap_or(Path::new("")))?;
        nodes.remove(&from);
        nodes.insert(to, Node::File(data));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let path = below_root(path);
        let mut nodes = host::lock(&self.nodes);
        match nodes.get(&path) {
            Some(Node::File(_)) => drop(nodes.remove(&path)),
            Some(Node::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn directory(&self, directory: &Path) -> io::Result<Arc<dyn VfsDirectory>> {
        self.inode(directory)?;
        Ok(Arc::new(MemoryDirectory))
    }

    fn directory_id(&self, directory: &Path) -> io::Result<DirectoryId> {
        Ok(DirectoryId {
            machine: self.machine,
            device: 0,
            inode: self.inode(directory)?,
        })
    }

    fn absolute(&self, directory: &Path) -> io::Result<PathBuf> {
        self.inode(directory)?;
        Ok(Path::new("/").join(below_root(directory)))
    }

    fn locality(&self, directory: &Path) -> io::Result<Locality> {
        self.inode(directory).map(|_| Locality::Local)
    }

    /// The words do not show in the bytes of the file, which are zero.
    fn shared_page(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SharedPage>> {
        let data = self.data(path, mode)?;
        let mut page = host::lock(&data.page);
        let page = page.get_or_insert_with(|| {
            data.write().grow(SHARED_PAGE_BYTES);
            Arc::new(Page::new(PlainWords::new(), true))
        });
        Ok(Arc::clone(page) as Arc<dyn SharedPage>)
    }

    fn private_page(&self) -> Arc<dyn SharedPage> {
        Arc::new(Page::new(PlainWords::new(), true))
    }

    fn boot_id(&self) -> u64 {
        1
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
        Arc::new(OsSignal::default())
    }

    fn spawn(&self, name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
        Ok(Box::new(OsWorker::start(name, step)?))
    }
}

/// A shared page that is not mapped.
type Words = Page<PlainWords>;

/// What a file is, whatever it is called and however often it is open.
#[derive(Debug, Default)]
struct Data {
    content: RwLock<Content>,
    holders: Mutex<Holders>,
    page: Mutex<Option<Arc<Words>>>,
}

/// Who holds the lock of a file, by handle.
#[derive(Debug, Default)]
struct Holders {
    exclusive: Option<u64>,
    shared: Vec<u64>,
}

impl Data {
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self) {
        *self.write() = Content::default();
        *host::lock(&self.page) = None;
    }
}

/// One open of a file.
#[derive(Debug)]
struct MemoryFile {
    data: Arc<Data>,
    mode: OpenMode,
    /// Its number among all opens of the process: the holder of a lock.
    handle: u64,
}

impl MemoryFile {
    /// Refuses to write through a file opened for reading.
    fn check_writable(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read => Err(io::ErrorKind::PermissionDenied.into()),
            OpenMode::Write | OpenMode::WriteOrCreate | OpenMode::CreateEmpty => Ok(()),
        }
    }

    /// Takes this handle out of the holders.
    fn release(&self, holders: &mut Holders) {
        holders.exclusive = holders.exclusive.filter(|holder| *holder != self.handle);
        holders.shared.retain(|holder| *holder != self.handle);
    }
}

impl VfsFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.data.read().len_bytes)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let content = self.data.read();
        let left = content.len_bytes.saturating_sub(offset);
        let count = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        content.copy_to(offset, &mut out[..count])?;
        Ok(count)
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        let end = offset
            .checked_add(len_bytes as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let content = self.data.read();
        if end > content.len_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len_bytes)?;
        bytes.resize(len_bytes, 0);
        content.copy_to(offset, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn map(&self, _len_bytes: u64) {}

    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        if offset
            .checked_add(bytes.len() as u64)
            .is_none_or(|end| i64::try_from(end).is_err())
        {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        while !bytes.is_empty() {
            // One piece at a time, so that readers get in between.
            let written = self.data.write().write_piece(offset, bytes)?;
            offset += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Memory is promised here, not taken.
    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        if i64::try_from(len_bytes).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.data.write().grow(len_bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Like the lock of the operating system, one that is changed to the other kind in vain is
    /// lost.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let mut holders = host::lock(&self.data.holders);
        self.release(&mut holders);
        let free = holders.exclusive.is_none();
        match kind {
            LockKind::Shared if free => holders.shared.push(self.handle),
            LockKind::Exclusive if free && holders.shared.is_empty() => {
                holders.exclusive = Some(self.handle);
            }
            LockKind::Shared | LockKind::Exclusive => return Ok(false),
        }
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        self.release(&mut host::lock(&self.data.holders));
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.release(&mut host::lock(&self.data.holders));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What all machines have in common is tested in `os/tests.rs`.

    #[test]
    fn machines_know_nothing_of_each_other() {
        let (one, other) = (MemoryVfs::new(), MemoryVfs::new());
        one.open(Path::new("a/b"), OpenMode::CreateEmpty).unwrap();
        assert_eq!(other.node(Path::new("a/b")).unwrap(), None);
        let root = Path::new("/");
        assert_ne!(
            one.directory_id(root).unwrap(),
            other.directory_id(root).unwrap()
        );
    }

    #[test]
    fn directories_come_with_what_is_put_into_them() {
        let vfs = MemoryVfs::new();
        vfs.open(Path::new("/a/b/c"), OpenMode::WriteOrCreate)
            .unwrap();
        assert_eq!(
            vfs.node(Path::new("a/./b")).unwrap(),
            Some(NodeKind::Directory)
        );
        assert_eq!(vfs.list(Path::new("a/x/..")).unwrap(), ["b"]);
        assert_eq!(vfs.absolute(Path::new("a/b/..")).unwrap(), Path::new("/a"));
        let below_a_file = vfs.create_dir_all(Path::new("a/b/c/d")).unwrap_err();
        assert_eq!(below_a_file.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn reserved_space_takes_no_memory_until_it_is_written() {
        let vfs = MemoryVfs::new();
        let file = vfs.open(Path::new("f"), OpenMode::CreateEmpty).unwrap();
        file.allocate(1 << 50).unwrap();
        file.write_at(3, b"x").unwrap();
        assert_eq!(file.view((1 << 50) - 2, 2).unwrap().as_ref(), [0, 0]);
        assert_eq!(
            file.write_at(u64::MAX - 1, b"xyz").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
