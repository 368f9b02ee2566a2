//! Keys and values of the index, and how keys are told from each other and shown.
//!
//! A key is a path below the tree's root, with `/` between names on every platform, as bytes. In
//! byte order all that is below a directory `a` lies between `a/` and `a0`, the byte after `/`;
//! what is below is therefore one range, but `a-b` lies between `a` and `a/`.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::ops::Bound;
use std::time::{SystemTime, UNIX_EPOCH};

use happystore::{Cbor, Query, Result, Store, Transaction};
use serde::{Deserialize, Serialize};

use crate::walk::Failure;

/// The store: any bytes are a key.
pub(crate) type Index = Store<Cbor, [u8]>;

/// A transaction on it, whose closure fails with a [`Failure`].
pub(crate) type IndexTx<'a> = Transaction<'a, Cbor, [u8], Failure>;

/// Holds the path of the tree's root. No path has a zero byte, so it is before every path.
pub(crate) const ROOT_KEY: &[u8] = b"\0root";

/// The first key that a path could be.
const FIRST_PATH: &[u8] = &[1];

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A FIFO, a socket, a device: named, never opened.
    Other,
}

/// What is known of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    /// Nanoseconds since 1970, negative before.
    pub(crate) modified_ns: i64,
    pub(crate) kind: Kind,
    /// Of a file's content; `None` if it could not be read, and for what is not a file.
    pub(crate) crc32: Option<u32>,
}

impl Entry {
    /// All but the checksum.
    pub(crate) fn new(metadata: &Metadata) -> Self {
        let file_type = metadata.file_type();
        let kind = if file_type.is_file() {
            Kind::File
        } else if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_symlink() {
            Kind::Symlink
        } else {
            Kind::Other
        };
        // A directory's own size says nothing of what is below, and differs by file system.
        let size = if kind == Kind::Directory {
            0
        } else {
            metadata.len()
        };
        Self {
            size,
            modified_ns: metadata.modified().map_or(0, nanoseconds),
            kind,
            crc32: None,
        }
    }

    /// Whether a file has not changed since `self` was indexed, as far as can be told without
    /// reading it. One that could not be read is tried again.
    pub(crate) fn is_current(&self, now: &Self) -> bool {
        self.crc32.is_some() && (self.size, self.modified_ns) == (now.size, now.modified_ns)
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let clamped = |nanoseconds| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => clamped(after.as_nanos()),
        Err(before) => -clamped(before.duration().as_nanos()),
    }
}

/// The key of `name` in the directory `directory`; the root's key is empty.
pub(crate) fn child(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut key = below(directory);
    key.extend_from_slice(name);
    key
}

/// What the keys of everything below `directory` begin with.
pub(crate) fn below(directory: &[u8]) -> Vec<u8> {
    match directory {
        [] => Vec::new(),
        _ => [directory, b"/"].concat(),
    }
}

/// The paths that begin with `prefix`.
pub(crate) fn paths<'a>(query: Query<'a, Cbor, [u8]>, prefix: &[u8]) -> Query<'a, Cbor, [u8]> {
    if prefix.is_empty() {
        query.range(FIRST_PATH..)
    } else {
        query.prefix(prefix)
    }
}

/// The entries right in `directory`, without those further below.
///
/// Walks along the names in order, and jumps over what is below each of them, so that it costs
/// what the directory holds, however large the tree is.
pub(crate) fn children(tx: &IndexTx<'_>, directory: &[u8]) -> Result<BTreeMap<Vec<u8>, Entry>> {
    let prefix = below(directory);
    let (mut from, end) = match directory {
        [] => (FIRST_PATH.to_vec(), Bound::Unbounded),
        _ => (prefix.clone(), Bound::Excluded([directory, b"0"].concat())),
    };
    let mut found = BTreeMap::new();
    'jump: loop {
        let range = (Bound::Included(from), end.clone());
        for pair in tx.query().range(range).iter::<Entry>()? {
            let (key, entry) = pair?;
            let name = &key[prefix.len()..];
            if let Some(slash) = name.iter().position(|&byte| byte == b'/') {
                from = [&key[..prefix.len() + slash], b"0"].concat();
                continue 'jump;
            }
            found.insert(key, entry);
        }
        return Ok(found);
    }
}

/// A key for people: what is not text is replaced, and nothing in it moves the cursor.
pub(crate) fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let escape = |c: char| -> String {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.into()
        }
    };
    text.chars().map(escape).collect()
}
