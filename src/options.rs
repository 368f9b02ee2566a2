//! How a store is opened: each option with its unit, default and bounds, checked once.
//!
//! A user builds [`Options`] and opens; what is left of them afterwards is a `Settings`, which
//! every room below may trust.

mod compaction;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::limits::{
    DEFERRED_DELAY_MAX, DEFERRED_DELAY_MIN, LABEL_BYTES_MAX, LOCK_TIMEOUT_DEFAULT,
    LOCK_TIMEOUT_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SERIALIZER_NAME_BYTES_MAX,
};
use crate::serializer::{Cbor, Serializer};
use crate::store::Store;
use crate::vfs::{Vfs, os::OsVfs};
pub use compaction::Compaction;

/// Who else may have the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Access {
    /// Reads and writes, beside any number of other processes of this host; the directory must be on
    /// a local file system.
    ///
    /// Opening waits for the write transaction that is running, up to the lock timeout. A process that
    /// dies, at whatever moment, leaves nothing that keeps others waiting. One that is stopped (SIGSTOP)
    /// within a write transaction, or while it writes all the time, does: they get `LockTimeout`.
    #[default]
    Shared,
    /// Reads and writes, with nobody beside; works on network file systems too, as far as their locks
    /// and syncs can be trusted.
    Exclusive,
    /// Reads alone, beside any number of processes that read or write; the store must exist.
    ///
    /// Nothing in the directory is changed, not even repaired. What is shown is what those who write
    /// have published; what was left unpublished by a death is found by the next who opens to write.
    /// What is written by a process that came later is not seen if the directory had no `STATE` file
    /// when this one opened it, as a copy has that was made without it.
    ReadOnly,
}

/// What happens if the store is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Create {
    /// A missing store is made.
    #[default]
    IfMissing,
    /// The store is made; one that exists is an error.
    New,
    /// A missing store is an error.
    Never,
}

/// What a commit has reached when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The disk: it survives a killed process and a power cut.
    #[default]
    Sync,
    /// The operating system; the disk within this delay, by a sync in the background. A power cut
    /// takes at most what was committed within the delay; of a process that was killed before its
    /// sync, what others have not synced since, as with `Os`. From one millisecond to an hour.
    ///
    /// A failed background sync is told by the next write, and by `close`. As with `Os`, a commit
    /// waits for the sync of a [`Durability::Sync`] commit before it, and shares its failure.
    Deferred(Duration),
    /// The operating system: it survives a killed process. A power cut leaves a prefix of what
    /// was committed. Whoever fills a segment still waits for its sync.
    Os,
}

/// How far opening has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// How many bytes of the log were read.
    pub bytes_done: u64,
    /// How many there are.
    pub bytes_total: u64,
    /// How many keys were found so far.
    pub keys: u64,
}

type Progress = Arc<Mutex<dyn FnMut(OpenProgress) + Send>>;

/// What is left of [`Options`] once they were checked.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) access: Access,
    pub(crate) create: Create,
    pub(crate) durability: Durability,
    pub(crate) lock_timeout: Duration,
    pub(crate) label: Arc<str>,
    pub(crate) segment_bytes: u64,
    pub(crate) verify_reads: bool,
    pub(crate) any_serializer: bool,
    pub(crate) any_key_kind: bool,
    pub(crate) compaction: Compaction,
    pub(crate) progress: Option<Progress>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access: Access::default(),
            create: Create::default(),
            durability: Durability::default(),
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            label: "happystore".into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            verify_reads: true,
            any_serializer: false,
            any_key_kind: false,
            compaction: Compaction::default(),
            progress: None,
        }
    }
}

impl Settings {
    /// Tells the user how far opening has come.
    pub(crate) fn report(&self, progress: OpenProgress) {
        if let Some(report) = &self.progress {
            report.lock().unwrap_or_else(PoisonError::into_inner)(progress);
        }
    }

    fn check(&self, serializer: &str) -> Result<()> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let what = format!("from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes");
            return Err(invalid(
                "segment_bytes",
                self.segment_bytes.to_string(),
                what,
            ));
        }
        if serializer.is_empty() || serializer.len() > SERIALIZER_NAME_BYTES_MAX {
            let what = format!("a name of 1 to {SERIALIZER_NAME_BYTES_MAX} bytes");
            return Err(invalid("serializer", format!("{serializer:?}"), what));
        }
        check_lock_timeout(self.lock_timeout)?;
        check_durability(self.durability)?;
        check_label(&self.label)?;
        self.compaction.check()
    }
}

/// Refuses a wait beyond the bound.
pub(crate) fn check_lock_timeout(timeout: Duration) -> Result<()> {
    if timeout > LOCK_TIMEOUT_MAX {
        let what = format!("at most {LOCK_TIMEOUT_MAX:?}");
        return Err(invalid("lock_timeout", format!("{timeout:?}"), what));
    }
    Ok(())
}

/// Refuses a delay out of bounds.
pub(crate) fn check_durability(durability: Durability) -> Result<()> {
    if let Durability::Deferred(delay) = durability
        && !(DEFERRED_DELAY_MIN..=DEFERRED_DELAY_MAX).contains(&delay)
    {
        let what = format!(
            "a delay from {DEFERRED_DELAY_MIN:?} to {DEFERRED_DELAY_MAX:?}; for none, use Sync"
        );
        return Err(invalid("durability", format!("Deferred({delay:?})"), what));
    }
    Ok(())
}

/// Refuses a label over the limit.
pub(crate) fn check_label(label: &str) -> Result<()> {
    if label.len() > LABEL_BYTES_MAX {
        let what = format!("at most {LABEL_BYTES_MAX} bytes");
        return Err(invalid("label", format!("{label:?}"), what));
    }
    Ok(())
}

fn invalid(option: &'static str, value: String, what: impl Into<String>) -> Error {
    Error::InvalidOption {
        option,
        value,
        what: format!("it must be {}", what.into()),
    }
}

/// How to open a store.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use happystore::{Durability, Json, Options, Store};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("data");
/// let store: Store<Json> = Options::new()
///     .serializer(Json)
///     .durability(Durability::Os)
///     .lock_timeout(Duration::from_secs(1))
///     .label("importer")
///     .open(&path)?;
/// store.set("a", &1)?;
/// # store.close()?;
/// # Ok::<(), happystore::Error>(())
/// ```
#[must_use = "options do nothing until a store is opened with them"]
pub struct Options<S = Cbor, K: ?Sized = str> {
    serializer: S,
    settings: Settings,
    mapped_files: bool,
    /// Another machine than the real one.
    vfs: Option<Arc<dyn Vfs>>,
    keys: std::marker::PhantomData<fn(&K)>,
}

impl Options {
    /// The defaults: CBOR values, `str` keys, [`Access::Shared`], [`Create::IfMissing`],
    /// [`Durability::Sync`], five seconds of lock timeout, segments of 64 MiB.
    pub fn new() -> Self {
        Self {
            serializer: Cbor,
            settings: Settings::default(),
            mapped_files: true,
            vfs: None,
            keys: std::marker::PhantomData,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Serializer, K: Key + ?Sized> Options<S, K> {
    /// How values become bytes; the name is kept in the store, and another one is refused.
    pub fn serializer<T: Serializer>(self, serializer: T) -> Options<T, K> {
        let Self {
            settings,
            mapped_files,
            vfs,
            ..
        } = self;
        Options {
            serializer,
            settings,
            mapped_files,
            vfs,
            keys: std::marker::PhantomData,
        }
    }

    /// Keys of any bytes instead of UTF-8 strings; the kind is kept in the store.
    ///
    /// # Examples
    /// Numbers in big-endian bytes are ordered as numbers:
    /// ```
    /// use happystore::Options;
    ///
    /// let store = Options::new().byte_keys().in_memory()?;
    /// for number in [3_u64, 20, 100] {
    ///     store.set(&number.to_be_bytes(), &number)?;
    /// }
    /// let from_ten = store.query().range(10_u64.to_be_bytes()..).pairs::<u64>()?;
    /// assert_eq!(from_ten.len(), 2);
    /// assert_eq!(from_ten[0].1, 20);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn byte_keys(self) -> Options<S, [u8]> {
        let Self {
            serializer,
            settings,
            mapped_files,
            vfs,
            ..
        } = self;
        Options {
            serializer,
            settings,
            mapped_files,
            vfs,
            keys: std::marker::PhantomData,
        }
    }

    /// Opens a store that was made with another serializer all the same. The name in the store
    /// stays; values that do not decode are errors where they are read. Default: false.
    pub fn any_serializer(mut self, any: bool) -> Self {
        self.settings.any_serializer = any;
        self
    }

    /// Opens a store of strings with keys of bytes all the same, for programs that look after any
    /// store. Who writes to it then takes care that keys are UTF-8. Default: false.
    ///
    /// # Examples
    /// ```
    /// use happystore::{Create, Options, Raw, Store};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("data");
    /// Store::open(&path)?.set("a", &1)?;
    /// let raw = Options::new()
    ///     .serializer(Raw)
    ///     .byte_keys()
    ///     .any_serializer(true)
    ///     .any_key_kind(true)
    ///     .create(Create::Never)
    ///     .open(&path)?;
    /// assert_eq!(raw.get(b"a")?, Some(vec![1])); // as CBOR has it
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn any_key_kind(mut self, any: bool) -> Self {
        self.settings.any_key_kind = any;
        self
    }

    /// Who else may have the store open. Default: [`Access::Shared`].
    pub fn access(mut self, access: Access) -> Self {
        self.settings.access = access;
        self
    }

    /// What happens if the store is there, or is not. Default: [`Create::IfMissing`].
    pub fn create(mut self, create: Create) -> Self {
        self.settings.create = create;
        self
    }

    /// What a commit has reached when it returns. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// How long opening and writing wait for a lock, over threads and processes together; zero
    /// tries once. Default: [`LOCK_TIMEOUT_DEFAULT`], at most [`LOCK_TIMEOUT_MAX`].
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lock_timeout = timeout;
        self
    }

    /// What this process calls itself to those who wait for it; at most [`LABEL_BYTES_MAX`]
    /// bytes. Default: `happystore`.
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.settings.label = label.as_ref().into();
        self
    }

    /// The size in bytes at which a segment is sealed and the next one begun, from
    /// [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]. A larger batch gets a segment of its own.
    /// Below 32 KiB no space is kept in it for deletes on a full disk.
    /// Default: [`SEGMENT_BYTES_DEFAULT`].
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.settings.segment_bytes = bytes;
        self
    }

    /// Whether every read verifies the checksum of what it returns. Default: true.
    pub fn verify_reads(mut self, verify: bool) -> Self {
        self.settings.verify_reads = verify;
        self
    }

    /// Whether segments are mapped, for reading and, on ext4 and tmpfs, for appending. Without,
    /// every read and every append is a system call, and a file that somebody cuts off or a disk
    /// that fails is an I/O error instead of a fatal signal. Default: true.
    pub fn mapped_files(mut self, mapped: bool) -> Self {
        self.mapped_files = mapped;
        self
    }

    /// When segments are rewritten; see [`Compaction`]. Default: automatic.
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.settings.compaction = compaction;
        self
    }

    /// Is told how far opening has come, about every mebibyte, and at the end.
    pub fn on_open_progress(mut self, report: impl FnMut(OpenProgress) + Send + 'static) -> Self {
        self.settings.progress = Some(Arc::new(Mutex::new(report)));
        self
    }

    /// Opens the store on another machine than the real one.
    #[cfg(feature = "sim")]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = Some(vfs);
        self
    }

    /// Opens the store in the directory `path`.
    ///
    /// Missing parents of `path` are made too. Use a directory of its own for a store: other
    /// files in it are left alone, but nothing keeps them apart.
    ///
    /// A directory that this process has open already shares its engine: durability, lock timeout
    /// and label are this opening's own, the access must be the same, and all else stays as it
    /// was.
    ///
    /// # Durability
    /// A store that was made is on disk when this returns. After a crash, what a reader sees from
    /// now on is durable; a commit that is not there though its process died will not come later.
    ///
    /// # Blocking
    /// Waits for another process up to the lock timeout; reads the log.
    ///
    /// # Errors
    /// `InvalidOption` for an option out of bounds; `NotAStore`, `NotFound`, `AlreadyExists`;
    /// `LockTimeout` with the holder; `NotLocal`; `SerializerMismatch`, `KeyKindMismatch`;
    /// `FormatVersion`; `Corrupt` with file and offset; `DiskFull`, `Io`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store<S, K>> {
        self.settings.check(self.serializer.name())?;
        let real = if self.mapped_files {
            OsVfs::new
        } else {
            OsVfs::without_mapping
        };
        let vfs = self.vfs.unwrap_or_else(real);
        Store::open_on(&vfs, path.as_ref(), &self.settings, self.serializer)
    }

    /// Opens a new store in memory, gone with its last handle. Access, creation and durability
    /// make no difference to it.
    ///
    /// # Errors
    /// `InvalidOption` for an option out of bounds.
    pub fn in_memory(mut self) -> Result<Store<S, K>> {
        self.settings.check(self.serializer.name())?;
        self.settings.access = Access::Exclusive;
        self.settings.create = Create::New;
        self.settings.durability = Durability::Os;
        let vfs = crate::vfs::memory::MemoryVfs::new();
        let path = crate::engine::open::memory_path();
        Store::open_on(&vfs, &path, &self.settings, self.serializer)
    }
}

impl<S, K: ?Sized> std::fmt::Debug for Options<S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("access", &self.settings.access)
            .field("create", &self.settings.create)
            .field("durability", &self.settings.durability)
            .field("lock_timeout", &self.settings.lock_timeout)
            .field("label", &self.settings.label)
            .field("segment_bytes", &self.settings.segment_bytes)
            .finish_non_exhaustive()
    }
}
