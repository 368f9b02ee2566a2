//! The one door to the outside world: files, locks, the shared page, the clock, workers.
//!
//! Every room that asks something of the machine asks it here, through [`Vfs`]; nothing below
//! this door knows what a record or a key is. Three machines stand behind it: the operating
//! system (`os`), plain memory (`memory`), and the simulated world (`sim`, feature `sim`), whose
//! power can be cut.
//!
//! Invariants:
//! 1. No other room names `std::fs`, a clock, a thread or a process id.
//! 2. A call that fails has either done nothing or left what its documentation says.
//! 3. No mutex of the rooms above is held over a call into this door, so that a simulated
//!    scheduler may switch clients at every call. Turns that last longer are built on [`Signal`].
//!
//! Threads and processes: every method may be called from any thread; a [`Vfs`] value is one
//! process's view of its machine.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) mod memory;
pub(crate) mod os;
#[cfg(feature = "sim")]
pub mod sim;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; created empty if missing, kept as it is if present.
    WriteOrCreate,
    /// For reading and writing; created empty, emptied if present.
    ///
    /// Only for names that no process has open or mapped.
    CreateEmpty,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a pipe, a socket, a device, a symbolic link that leads nowhere.
    Other,
}

/// Exclusive or shared, for [`VfsFile::try_lock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Many holders, as long as none is exclusive.
    Shared,
    /// One holder.
    Exclusive,
}

/// Which directory of which machine, however it was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryId {
    /// One process's view of one machine; the operating system is 0.
    pub machine: u64,
    /// The device the directory is on.
    pub device: u64,
    /// The directory's inode on that device.
    pub inode: u64,
}

/// Whether locks and mappings of a directory are coherent between the processes of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality {
    /// A local file system.
    Local,
    /// A network or user-space file system, with its name.
    Remote(String),
}

/// One process's view of a machine.
pub trait Vfs: Send + Sync + 'static {
    /// Creates `directory` and its missing parents, and makes their entries durable.
    ///
    /// # Errors
    /// What the machine says; an existing directory is no error.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;

    /// What `path` names, after following symbolic links; `None` if nothing is there.
    ///
    /// # Errors
    /// What the machine says, but for "not found".
    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>>;

    /// The names in `directory`, in any order; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// What the machine says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Opens a regular file. Neither follows a symbolic link in the last part of `path` nor
    /// waits on a pipe; the descriptor is not inherited by spawned programs.
    ///
    /// # Errors
    /// What the machine says; [`io::ErrorKind::InvalidInput`] if `path` is no regular file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// Renames `from` to `to`, replacing it. Not durable before [`VfsDirectory::sync`].
    ///
    /// # Errors
    /// What the machine says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the second name `to`, where nothing is yet. Not durable before
    /// [`VfsDirectory::sync`].
    ///
    /// # Errors
    /// What the machine says; [`io::ErrorKind::Unsupported`] where a file has one name.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a name. Not durable before [`VfsDirectory::sync`]; open files and mappings live on.
    ///
    /// # Errors
    /// What the machine says.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Opens an existing directory, to make its entries durable. Who will have to do that later
    /// opens it early: a machine that is out of descriptors then fails no sync.
    ///
    /// # Errors
    /// What the machine says.
    fn directory(&self, directory: &Path) -> io::Result<Arc<dyn VfsDirectory>>;

    /// The identity of an existing directory, the same for every path that leads to it.
    ///
    /// # Errors
    /// What the machine says.
    fn directory_id(&self, directory: &Path) -> io::Result<DirectoryId>;

    /// The absolute path of an existing directory, for messages and for later calls that must
    /// not depend on the current directory.
    ///
    /// # Errors
    /// What the machine says.
    fn absolute(&self, directory: &Path) -> io::Result<PathBuf>;

    /// Whether `directory` lies on a file system whose locks and mappings are coherent.
    ///
    /// # Errors
    /// What the machine says.
    fn locality(&self, directory: &Path) -> io::Result<Locality>;

    /// How much free space this process could take for files in `directory`, in bytes, as far as the
    /// machine tells. A guide alone: others take space meanwhile.
    ///
    /// # Errors
    /// What the machine says.
    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Opens the page of shared 64-bit words in the file `path`: to read it, or with
    /// [`OpenMode::WriteOrCreate`] to change it too, created zeroed if missing.
    ///
    /// # Errors
    /// What the machine says; [`io::ErrorKind::UnexpectedEof`] if a page that is only to be read
    /// is no page yet.
    fn shared_page(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SharedPage>>;

    /// A page of words that nobody else has.
    fn private_page(&self) -> Arc<dyn SharedPage>;

    /// A number that stays the same as long as the machine is on, and is another one afterwards;
    /// 0 where the machine does not tell.
    fn boot_id(&self) -> u64;

    /// The id of this process.
    fn process_id(&self) -> u32;

    /// How often this process's memory was forked off: a handle that remembers another number
    /// belongs to a parent. Cheap enough to ask before every operation.
    fn fork_count(&self) -> u64;

    /// The id of the calling thread, never used again within the process.
    fn thread_id(&self) -> u64;

    /// Time since some fixed point, never going backwards, comparable between processes.
    fn monotonic(&self) -> Duration;

    /// Time since 1970, for messages alone.
    fn unix_time(&self) -> Duration;

    /// Sixteen bytes nobody else has, for the id of a new store.
    fn unique_id(&self) -> [u8; 16];

    /// Lets other threads run, if there are any that can.
    fn yield_now(&self);

    /// Waits.
    fn sleep(&self, duration: Duration);

    /// A new signal, not raised.
    fn signal(&self) -> Arc<dyn Signal>;

    /// How many calls of [`Vfs::side_by_side`] may run at once.
    fn parallelism(&self) -> usize {
        1
    }

    /// Calls `job` with each number below `count`, as many at once as the machine can; all have ended
    /// on return.
    fn side_by_side(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }

    /// Starts a background worker: `step` is run now, and again as its answer says.
    ///
    /// # Errors
    /// What the machine says, when it has no thread left.
    fn spawn(&self, name: &str, step: Step) -> io::Result<Box<dyn Worker>>;
}

/// What a background worker does in one go. Long work is cut into steps, so that a worker can be
/// stopped, and a simulated world can run others in between.
pub type Step = Box<dyn FnMut() -> Next + Send>;

/// When a worker's step wants to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// After this long, or when woken.
    After(Duration),
    /// When woken.
    WhenWoken,
    /// Never again.
    Done,
}

/// The handle of a background worker. Dropping it does not stop the worker.
pub trait Worker: Send + Sync {
    /// Runs the step soon; a wake during a step makes it run once more.
    fn wake(&self);

    /// Ends the worker: waits for a running step, unless that step is the caller, then lets no
    /// further one begin. A second stop does nothing.
    fn stop(&self);
}

/// A binary semaphore: [`Signal::raise`] gives one permit, [`Signal::wait`] takes it.
pub trait Signal: Send + Sync {
    /// Gives the permit; does nothing if it is there already.
    fn raise(&self);

    /// Takes the permit, waiting for it up to `deadline` on the clock of [`Vfs::monotonic`].
    /// False if there was none until then.
    fn wait(&self, deadline: Duration) -> bool;
}

/// A page of 64-bit words that all processes of a host see at once; sequentially consistent.
///
/// Beside the words the page has bells, which processes wait at. One that is killed while it
/// waits leaves nothing behind.
pub trait SharedPage: Send + Sync {
    /// The value of word `index`, below [`SHARED_WORDS`].
    fn load(&self, index: usize) -> u64;

    /// Sets word `index`.
    fn store(&self, index: usize, value: u64);

    /// Sets word `index`; what was done before is seen by who sees that, but what the caller looks
    /// at afterwards may be older than what others see of it.
    fn release(&self, index: usize, value: u64) {
        self.store(index, value);
    }

    /// Sets word `index` to `new` if it is `current`; the value found is `Ok` or `Err`.
    ///
    /// # Errors
    /// The value found, if it is not `current`.
    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64>;

    /// Adds to word `index`, wrapping; gives the value before.
    fn fetch_add(&self, index: usize, value: u64) -> u64;

    /// How often bell `bell`, below [`SHARED_BELLS`], was rung, as far as it matters to
    /// [`SharedPage::wait`].
    fn rings(&self, bell: usize) -> u32;

    /// Rings a bell: whoever waits at it goes on.
    fn ring(&self, bell: usize);

    /// Waits until `bell` has been rung since it was `rings`, or up to `deadline` on the clock of
    /// [`Vfs::monotonic`]; may come back early.
    fn wait(&self, bell: usize, rings: u32, deadline: Duration);
}

/// How many words a [`SharedPage`] has.
pub const SHARED_WORDS: usize = 480;

/// How many bells a [`SharedPage`] has.
pub const SHARED_BELLS: usize = 64;

/// How long a file is that is a [`SharedPage`]: words and bells, one page of 4 KiB.
pub const SHARED_PAGE_BYTES: u64 = 8 * SHARED_WORDS as u64 + 4 * SHARED_BELLS as u64;

/// An open directory.
pub trait VfsDirectory: Send + Sync {
    /// Makes the directory's entries durable: what was created, renamed and unlinked in it.
    ///
    /// # Errors
    /// What the machine says. A failed sync must not be tried again.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. Offsets and lengths are in bytes.
#[allow(
    clippy::len_without_is_empty,
    reason = "nobody asks whether a file is empty"
)]
pub trait VfsFile: Send + Sync {
    /// The file's length.
    ///
    /// # Errors
    /// What the machine says.
    fn len(&self) -> io::Result<u64>;

    /// Whether `path` leads to this very file: otherwise whoever opens it by that gets another one.
    ///
    /// # Errors
    /// What the machine says.
    fn is_named(&self, _path: &Path) -> io::Result<bool> {
        Ok(true)
    }

    /// The device and the inode, which two names of one file have in common; `None` where the
    /// machine does not tell.
    ///
    /// # Errors
    /// What the machine says.
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// The processes that hold a lock on the file, as far as the machine tells.
    ///
    /// # Errors
    /// What the machine says.
    fn lockers(&self) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// Reads into `out` from `offset`; fewer bytes than asked only at the end of the file.
    ///
    /// # Errors
    /// What the machine says; interrupted and short calls are repeated within.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// The bytes from `offset`, borrowed where the machine maps files, copied elsewhere.
    ///
    /// The caller asks only for bytes that no writer changes any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before; what the machine says.
    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>>;

    /// Says that views of so many bytes are asked for soon: a machine that
    /// is told of many may bring them near at once.
    fn warm(&self, _offset: u64, _len_bytes: usize) {}

    /// Prepares borrowed views of the first `len_bytes`, which may lie beyond the file's end;
    /// one that cannot be prepared is copied. A second call does nothing.
    fn map(&self, len_bytes: u64);

    /// Writes all of `bytes` at `offset`, growing the file where needed.
    ///
    /// # Errors
    /// What the machine says; any part of `bytes` may then be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reserves space up to `len_bytes` and grows the file to it, new bytes zero; never shrinks.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] if there is no space:
    /// nothing that was in the file has changed.
    fn allocate(&self, len_bytes: u64) -> io::Result<()>;

    /// Says that the caller is going to write from `from` up to `to`, in order, in space that it
    /// has allocated: a machine may then take small writes without a system call.
    fn expect_writes(&self, _from: u64, _to: u64) {}

    /// Makes the file's bytes and length durable, but not its name.
    ///
    /// # Errors
    /// What the machine says. A failed sync must not be tried again: it may then claim success
    /// for bytes that were lost.
    fn sync(&self) -> io::Result<()>;

    /// Tries to lock the whole file against other opens of it, in this and other processes.
    /// The lock goes when the file is dropped or its process dies.
    ///
    /// # Errors
    /// What the machine says, but for "held by another", which is `Ok(false)`.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;

    /// Gives the lock back.
    ///
    /// # Errors
    /// What the machine says.
    fn unlock(&self) -> io::Result<()>;
}
