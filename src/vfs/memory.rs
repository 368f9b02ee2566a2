//! A machine in memory: for stores without files.
//!
//! Every [`MemoryVfs`] is an own, empty machine of one process. There is nothing to make durable,
//! and every directory is there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::os::{OsVfs, shared};
use super::{
    DirectoryId, Locality, LockKind, NodeKind, OpenMode, SHARED_WORDS, SharedPage, Signal, Step,
    Vfs, VfsFile, Worker,
};

/// Files are cut into pieces, so that growing never copies what is there.
const PIECE_BYTES: usize = 64 << 10;

/// A machine in memory.
pub(crate) struct MemoryVfs {
    machine: u64,
    os: Arc<dyn Vfs>,
    files: Mutex<BTreeMap<PathBuf, Arc<Content>>>,
    pages: Mutex<BTreeMap<PathBuf, Arc<Page>>>,
}

impl MemoryVfs {
    /// A machine without files.
    #[expect(clippy::new_ret_no_self, reason = "all callers want the trait")]
    pub(crate) fn new() -> Arc<dyn Vfs> {
        static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
        Arc::new(Self {
            machine: NEXT.fetch_sub(1, Ordering::Relaxed),
            os: OsVfs::new(),
            files: Mutex::default(),
            pages: Mutex::default(),
        })
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Content>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs for MemoryVfs {
    fn create_dir_all(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>> {
        let files = self.files();
        if files.contains_key(path) {
            return Ok(Some(NodeKind::File));
        }
        // A path without a parent that has files is a directory that nobody has to make.
        let is_file_name = path
            .parent()
            .is_some_and(|parent| !parent.as_os_str().is_empty());
        Ok((!is_file_name).then_some(NodeKind::Directory))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let files = self.files();
        let inside = files.keys().filter(|path| path.parent() == Some(directory));
        let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
        Ok(inside.filter_map(name).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut files = self.files();
        let content = match (files.get(path), mode) {
            (Some(content), OpenMode::CreateEmpty) => {
                content.clear();
                content.clone()
            }
            (Some(content), _) => content.clone(),
            (None, OpenMode::WriteOrCreate | OpenMode::CreateEmpty) => {
                let content = Arc::new(Content::default());
                files.insert(path.to_owned(), content.clone());
                content
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemoryFile { content }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.files()
            .remove(path)
            .map(|_| ())
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn directory_id(&self, _directory: &Path) -> io::Result<DirectoryId> {
        Ok(DirectoryId {
            machine: self.machine,
            device: 0,
            inode: 0,
        })
    }

    fn absolute(&self, directory: &Path) -> io::Result<PathBuf> {
        Ok(directory.to_owned())
    }

    fn locality(&self, _directory: &Path) -> io::Result<Locality> {
        Ok(Locality::Local)
    }

    fn shared_page(&self, path: &Path) -> io::Result<Arc<dyn SharedPage>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(pages.entry(path.to_owned()).or_default().clone())
    }

    fn process_id(&self) -> u32 {
        self.os.process_id()
    }

    fn fork_count(&self) -> u64 {
        self.os.fork_count()
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
        self.os.sleep(duration);
    }

    fn signal(&self) -> Arc<dyn Signal> {
        shared::signal()
    }

    fn spawn(&self, name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
        shared::spawn(name, step)
    }
}

/// The words of a page.
struct Page([AtomicU64; SHARED_WORDS]);

impl Default for Page {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl SharedPage for Page {
    fn load(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.0[index].compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_add(&self, index: usize, value: u64) -> u64 {
        self.0[index].fetch_add(value, Ordering::SeqCst)
    }
}

/// The bytes of a file, whoever has it open.
#[derive(Default)]
struct Content {
    bytes: RwLock<Bytes>,
    locks: Mutex<Locks>,
}

#[derive(Default)]
struct Bytes {
    len: u64,
    pieces: Vec<Box<[u8]>>,
}

#[derive(Default)]
struct Locks {
    /// The handles that hold a lock, by address.
    holders: Vec<usize>,
    exclusive: bool,
}

impl Content {
    fn clear(&self) {
        *self.bytes.write().unwrap_or_else(PoisonError::into_inner) = Bytes::default();
    }

    fn read(&self) -> RwLockReadGuard<'_, Bytes> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Bytes)) {
        change(&mut self.bytes.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        let pieces = self.len.div_ceil(PIECE_BYTES as u64);
        while (self.pieces.len() as u64) < pieces {
            self.pieces.push(vec![0; PIECE_BYTES].into_boxed_slice());
        }
    }

    /// The piece that `offset` lies in, and where in it.
    fn split(offset: u64) -> (usize, usize) {
        let piece = usize::try_from(offset / PIECE_BYTES as u64).unwrap_or(usize::MAX);
        (
            piece,
            usize::try_from(offset % PIECE_BYTES as u64).unwrap_or(0),
        )
    }

    fn copy_out(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (piece, at) = Self::split(offset);
            let len = out.len().min(PIECE_BYTES - at);
            let (now, rest) = out.split_at_mut(len);
            now.copy_from_slice(&self.pieces[piece][at..at + len]);
            out = rest;
            offset += len as u64;
        }
    }

    fn copy_in(&mut self, mut offset: u64, mut bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let (piece, at) = Self::split(offset);
            let len = bytes.len().min(PIECE_BYTES - at);
            let (now, rest) = bytes.split_at(len);
            self.pieces[piece][at..at + len].copy_from_slice(now);
            bytes = rest;
            offset += len as u64;
        }
    }
}

/// One open of a file.
struct MemoryFile {
    content: Arc<Content>,
}

impl MemoryFile {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl VfsFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.content.read();
        let left = usize::try_from(bytes.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = out.len().min(left);
        bytes.copy_out(offset, &mut out[..len]);
        Ok(len)
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        let bytes = self.content.read();
        let within = offset
            .checked_add(len_bytes as u64)
            .is_some_and(|end| end <= bytes.len);
        if !within {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = vec![0; len_bytes];
        bytes.copy_out(offset, &mut out);
        Ok(Cow::Owned(out))
    }

    fn map(&self, _len_bytes: u64) {}

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.content
            .change(|content| content.copy_in(offset, bytes));
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.content.change(|content| content.grow(len_bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let mut locks = self.content.locks();
        let others = locks.holders.iter().any(|&holder| holder != self.address());
        let exclusive = kind == LockKind::Exclusive;
        if others && (exclusive || locks.exclusive) {
            return Ok(false);
        }
        if !locks.holders.contains(&self.address()) {
            locks.holders.push(self.address());
        }
        locks.exclusive = exclusive;
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        let mut locks = self.content.locks();
        locks.holders.retain(|&holder| holder != self.address());
        locks.exclusive &= !locks.holders.is_empty();
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // OK because unlocking in memory never fails.
        let _ = self.unlock();
    }
}
