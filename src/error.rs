//! What can go wrong: one error type, its kinds, and what to do about each.
//!
//! Every room returns [`Error`]; it holds paths, offsets and numbers, no types of other rooms.
//! A message says what happened, where, and what to do next. Errors are cheap to clone, because
//! an iterator that met one keeps returning it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cause from outside this crate, such as a serializer's own error.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Who holds a lock that somebody waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process that holds it.
    pub process_id: u32,
    /// What the holder calls itself: the label of its transaction or of its store.
    pub label: String,
    /// How long it has been held.
    pub held_for: Duration,
}

/// Everything that can go wrong.
///
/// # Examples
/// ```
/// use happystore::{ErrorKind, Store};
///
/// let store = Store::in_memory();
/// store.set("answer", &42)?;
/// let error = store.get::<String>("answer").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Decode);
/// assert!(!error.is_retryable());
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A lock was not free until the deadline. Nothing has changed.
    #[error(
        "the lock of the store at {path} was not free within {waited:?}{}; try again, or set a longer lock_timeout",
        show_holder(holder.as_deref())
    )]
    LockTimeout {
        /// The store.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// Who holds the lock, if that could be found out.
        holder: Option<Box<Holder>>,
    },

    /// The thread writes through the store while it holds a write transaction on it.
    #[error(
        "this thread already has a write transaction open (\"{label}\"), so writing through the store would wait for itself; write through the transaction, or end it first"
    )]
    WouldDeadlock {
        /// The label of the open transaction.
        label: String,
    },

    /// No space is left. Nothing has changed; reads go on; try again when space is free on the disk.
    ///
    /// Batches that only delete go on from a reserve ([`RESERVE_BYTES_MAX`](crate::limits::RESERVE_BYTES_MAX));
    /// but that frees no space on the disk by itself. A smaller batch may still find room.
    #[error(
        "no space to allocate {needed_bytes} bytes for {path}: {source}; free space on the disk and try again"
    )]
    DiskFull {
        /// The file that was to grow.
        path: PathBuf,
        /// How many bytes were asked for, with the reserve; 0 where the file could not be made.
        needed_bytes: u64,
        /// What the machine said.
        source: Arc<io::Error>,
    },

    /// The machine refused a call. [`Error::may_have_changed`] tells whether the outcome is unknown.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the machine said.
        source: Arc<io::Error>,
    },

    /// Bytes that were whole once are not any more. Nothing was changed or dropped.
    #[error(
        "{path} is corrupt at offset {offset}: {what}; restore the store from a backup, and keep the damaged directory as it is"
    )]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },

    /// A value could not be turned into bytes. Store and transaction are as they were.
    #[error("cannot encode the value of key {key} with the serializer \"{serializer}\": {source}")]
    Encode {
        /// The key, shown for people.
        key: String,
        /// The serializer's name.
        serializer: String,
        /// What the serializer said.
        source: Cause,
    },

    /// A stored value is not of the type asked for. The value is still there.
    #[error(
        "cannot decode the value of key {key} as {type_name} with the serializer \"{serializer}\": {source}; ask for the type it was stored with, through the same serializer"
    )]
    Decode {
        /// The key, shown for people.
        key: String,
        /// The type asked for.
        type_name: &'static str,
        /// The serializer's name.
        serializer: String,
        /// What the serializer said.
        source: Cause,
    },

    /// A write to a store that was opened for reading only.
    #[error("the store at {path} is open for reading only; open it with Access::Shared to write")]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },

    /// The store was closed.
    #[error("the store at {path} was closed; open it again")]
    Closed {
        /// The store.
        path: PathBuf,
    },

    /// The files were written by a newer version of this crate.
    #[error(
        "{path} has format version {found}, and this version of happystore reads up to {supported}; use a newer happystore"
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },

    /// The store holds values of another serializer.
    #[error(
        "the store at {path} was made with the serializer \"{stored}\", not \"{asked}\"; open it with that one, or set any_serializer(true)"
    )]
    SerializerMismatch {
        /// The store.
        path: PathBuf,
        /// The name in the store.
        stored: String,
        /// The name asked for.
        asked: String,
    },

    /// The store holds keys of another kind.
    #[error("the store at {path} has {stored} keys, not {asked} keys; open it with that kind")]
    KeyKindMismatch {
        /// The store.
        path: PathBuf,
        /// The kind in the store.
        stored: &'static str,
        /// The kind asked for.
        asked: &'static str,
    },

    /// Something is over a limit of [`limits`](crate::limits). Nothing has changed.
    #[error(
        "{what} has {actual_bytes} bytes, and the limit is {max_bytes}; store less in one piece"
    )]
    TooLarge {
        /// What is too large.
        what: Cow<'static, str>,
        /// Its size.
        actual_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },

    /// A write or a sync failed before, so nothing more is written until the store is reopened.
    #[error(
        "the store at {path} takes no writes after this failure: {cause}; close every handle that this process has of it, and open it again"
    )]
    Poisoned {
        /// The store.
        path: PathBuf,
        /// The failure.
        cause: Arc<str>,
    },

    /// The handle was made by the parent of this forked process.
    #[error(
        "this handle of the store at {path} belongs to the parent process; open the store again after fork"
    )]
    Forked {
        /// The store.
        path: PathBuf,
    },

    /// The file system cannot be shared safely.
    #[error(
        "{path} is on {file_system}, whose locks and mappings cannot be trusted between processes; use a local disk, or Access::Exclusive"
    )]
    NotLocal {
        /// The store.
        path: PathBuf,
        /// The file system.
        file_system: String,
    },

    /// A query that says two things at once.
    #[error("this query cannot be answered: {what}")]
    InvalidQuery {
        /// What is wrong with it.
        what: &'static str,
    },

    /// An option out of its bounds.
    #[error("the option {option} cannot be {value}: {what}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        what: String,
    },

    /// A transaction was used while a nested one of it is open.
    #[error("this transaction has a nested transaction open; commit or drop that one first")]
    ChildActive,

    /// A transaction was used after its abort.
    #[error("this transaction was aborted; return from it, or drop it")]
    Aborted,

    /// There is no store, and none was to be made.
    #[error("there is no store at {path}; check the path, or open it with Create::IfMissing")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },

    /// There is a store already, and a new one was to be made.
    #[error(
        "there is a store at {path} already; choose another directory, or open it with Create::IfMissing"
    )]
    AlreadyExists {
        /// Where it is.
        path: PathBuf,
    },

    /// The path names something that cannot be a store.
    #[error("{path} cannot be a store: {what}")]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },

    /// A directory that no backup goes into. Nothing in it has changed.
    #[error("no backup goes into {path}: {what}; choose an empty directory")]
    NotABackup {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
}

/// What kind of error it is; one for each variant of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each is documented at the variant of Error with its name"
)]
pub enum ErrorKind {
    LockTimeout,
    WouldDeadlock,
    DiskFull,
    Io,
    Corrupt,
    Encode,
    Decode,
    ReadOnly,
    Closed,
    FormatVersion,
    SerializerMismatch,
    KeyKindMismatch,
    TooLarge,
    Poisoned,
    Forked,
    NotLocal,
    InvalidQuery,
    InvalidOption,
    ChildActive,
    Aborted,
    NotFound,
    AlreadyExists,
    NotAStore,
    NotABackup,
}

impl Error {
    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::LockTimeout { .. } => ErrorKind::LockTimeout,
            Self::WouldDeadlock { .. } => ErrorKind::WouldDeadlock,
            Self::DiskFull { .. } => ErrorKind::DiskFull,
            Self::Io { .. } => ErrorKind::Io,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Encode { .. } => ErrorKind::Encode,
            Self::Decode { .. } => ErrorKind::Decode,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Closed { .. } => ErrorKind::Closed,
            Self::FormatVersion { .. } => ErrorKind::FormatVersion,
            Self::SerializerMismatch { .. } => ErrorKind::SerializerMismatch,
            Self::KeyKindMismatch { .. } => ErrorKind::KeyKindMismatch,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Poisoned { .. } => ErrorKind::Poisoned,
            Self::Forked { .. } => ErrorKind::Forked,
            Self::NotLocal { .. } => ErrorKind::NotLocal,
            Self::InvalidQuery { .. } => ErrorKind::InvalidQuery,
            Self::InvalidOption { .. } => ErrorKind::InvalidOption,
            Self::ChildActive => ErrorKind::ChildActive,
            Self::Aborted => ErrorKind::Aborted,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::NotAStore { .. } => ErrorKind::NotAStore,
            Self::NotABackup { .. } => ErrorKind::NotABackup,
        }
    }

    /// Whether the same call may succeed later without any other change: the lock was held, or
    /// the disk was full.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::LockTimeout { .. } | Self::DiskFull { .. })
    }

    /// Whether a commit that failed with this error may be there all the same, as a whole: true for
    /// an [`Error::Io`] of a write, a sync or a rename. The store takes no writes after it
    /// ([`Error::Poisoned`]), and opening it again tells. Every other error of a commit changed
    /// nothing.
    ///
    /// # Examples
    /// ```
    /// let store = happystore::Store::in_memory();
    /// store.set("answer", &42)?;
    /// let error = store.get::<String>("answer").unwrap_err();
    /// assert!(!error.may_have_changed());
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn may_have_changed(&self) -> bool {
        matches!(
            self,
            Self::Io {
                operation: "write" | "sync" | "rename",
                ..
            }
        )
    }

    /// Gives a failed call of the machine its place: what was tried, and on what.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// A failed allocation of space: [`Error::DiskFull`] if that is what the machine said.
    pub(crate) fn allocate(path: &Path, needed_bytes: u64, source: io::Error) -> Self {
        if is_disk_full(&source) {
            Self::DiskFull {
                path: path.to_owned(),
                needed_bytes,
                source: Arc::new(source),
            }
        } else {
            Self::io("allocate space for", path, source)
        }
    }

    /// A failed write into space that was not allocated before: [`Error::DiskFull`] if that is what
    /// the machine said.
    pub(crate) fn write(path: &Path, needed_bytes: u64, source: io::Error) -> Self {
        if is_disk_full(&source) {
            Self::allocate(path, needed_bytes, source)
        } else {
            Self::io("write", path, source)
        }
    }

    /// A file that could not be made: [`Error::DiskFull`] if that is what the machine said.
    pub(crate) fn create(path: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            Self::allocate(path, 0, source)
        } else {
            Self::io("create", path, source)
        }
    }

    /// Damage in a file.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }
}

/// Whether the machine said that there is no space, or no quota, left.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A key as people read it: quoted text, or hex, cut after a line's length.
pub(crate) fn show_key(key: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let cut = key.len() > SHOWN_BYTES_MAX;
    let shown = &key[..key.len().min(SHOWN_BYTES_MAX)];
    let text = match std::str::from_utf8(shown) {
        Ok(text) => format!("{text:?}"),
        Err(error) if cut && shown.len() - error.valid_up_to() < 4 => {
            format!(
                "{:?}",
                String::from_utf8_lossy(&shown[..error.valid_up_to()])
            )
        }
        Err(_) => {
            use std::fmt::Write;
            shown.iter().fold(String::from("0x"), |mut hex, byte| {
                // OK because writing to a String never fails.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        }
    };
    if cut {
        format!("{text}… ({} bytes)", key.len())
    } else {
        text
    }
}

fn show_holder(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!(
            ": process {} (\"{}\") has held it for {:?}",
            holder.process_id, holder.label, holder.held_for
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::show_key;

    #[test]
    fn keys_are_shown_as_text_or_hex_and_cut() {
        assert_eq!(show_key(b"user/1"), "\"user/1\"");
        assert_eq!(show_key(b""), "\"\"");
        assert_eq!(show_key(&[0xff, 0x00]), "0xff00");
        let long = "é".repeat(100);
        let shown = show_key(long.as_bytes());
        assert!(
            shown.starts_with("\"éé") && shown.ends_with("… (200 bytes)"),
            "{shown}"
        );
    }
}
