//! Bringing the index up to date with the tree.
//!
//! Each directory at the top is a subtree: one transaction, one commit, one sync. In it each
//! directory is a nested transaction. A directory that cannot be read, or vanishes while it is
//! read, undoes what was done for it and nothing else: what the index knew of it before stays, and
//! the walk goes on with the next one. Nothing is counted before its transaction has ended well.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::entry::{Entry, Index, IndexTx, Kind, below, child, children};
use crate::progress::Progress;

/// How much of a file is in memory at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// How many of the changes are remembered by name.
pub(crate) const NAMED_CHANGES_MAX: usize = 20;

/// Why a closure given to a transaction fails, and the transaction is undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The store cannot go on, and so the walk cannot.
    #[error(transparent)]
    Store(#[from] happystore::Error),
    /// The directory cannot be read; the others may be.
    #[error(transparent)]
    Directory(io::Error),
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Changed,
    Removed,
}

/// What a run, or a part of it, did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) removed: u64,
    pub(crate) unchanged: u64,
    /// Content that was read, and how long that took.
    pub(crate) read_bytes: u64,
    pub(crate) reading: Duration,
    /// The first of the changes.
    pub(crate) changes: Vec<(Change, Vec<u8>)>,
    /// Directories and files that could not be read, and why.
    pub(crate) unreadable: Vec<(Vec<u8>, String)>,
}

impl Outcome {
    /// Entries put into the index or deleted from it.
    pub(crate) fn written(&self) -> u64 {
        self.added + self.changed + self.removed
    }

    fn change(&mut self, change: Change, key: &[u8]) {
        match change {
            Change::Added => self.added += 1,
            Change::Changed => self.changed += 1,
            Change::Removed => self.removed += 1,
        }
        if self.changes.len() < NAMED_CHANGES_MAX {
            self.changes.push((change, key.to_vec()));
        }
    }

    /// Takes in what a part did, once that stands.
    fn take(&mut self, part: Self) {
        self.added += part.added;
        self.changed += part.changed;
        self.removed += part.removed;
        self.unchanged += part.unchanged;
        self.read_bytes += part.read_bytes;
        self.reading += part.reading;
        let room = NAMED_CHANGES_MAX.saturating_sub(self.changes.len());
        self.changes.extend(part.changes.into_iter().take(room));
        self.unreadable.extend(part.unreadable);
    }
}

/// A directory to be walked through.
#[derive(Clone)]
struct Directory {
    path: PathBuf,
    key: Vec<u8>,
}

/// A walk through the tree.
pub(crate) struct Walk<'a> {
    index: &'a Index,
    tree: &'a Path,
    /// Where the index itself lies: a walk through it would never find an end of changes.
    place: &'a Path,
    /// The tree's file system; what is mounted in it, such as `/proc`, is not entered.
    device: u64,
    progress: Progress,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        index: &'a Index,
        tree: &'a Path,
        place: &'a Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self {
            index,
            tree,
            place,
            device: device(&tree.symlink_metadata()?),
            // The key of the root is not an entry.
            progress: Progress::new(index.stats()?.keys.saturating_sub(1)),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Brings the index up to date.
    ///
    /// Fails if the tree's root cannot be read; whatever else cannot be is part of the outcome.
    pub(crate) fn run(mut self) -> Result<Outcome, Failure> {
        let root = Directory {
            path: self.tree.to_path_buf(),
            key: Vec::new(),
        };
        let index = self.index;
        let (mut outcome, subtrees) = index.transaction(|tx| self.directory(tx, &root))?;
        for top in subtrees {
            outcome.take(index.transaction(|tx| self.subtree(tx, &top))?);
        }
        Ok(outcome)
    }

    /// Brings `top` and all below it up to date, each directory in a transaction within `tx`.
    fn subtree(&mut self, tx: &IndexTx<'_>, top: &Directory) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        let mut waiting = vec![top.clone()];
        while let Some(directory) = waiting.pop() {
            match tx.transaction(|inner| self.directory(inner, &directory)) {
                Ok((part, subdirectories)) => {
                    outcome.take(part);
                    waiting.extend(subdirectories.into_iter().rev());
                }
                Err(Failure::Directory(error)) => {
                    outcome.unreadable.push((directory.key, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    /// Brings the entries of one directory up to date; returns the directories in it.
    fn directory(
        &mut self,
        tx: &IndexTx<'_>,
        directory: &Directory,
    ) -> Result<(Outcome, Vec<Directory>), Failure> {
        self.progress.enter(&directory.key);
        let mut outcome = Outcome::default();
        let mut subdirectories = Vec::new();
        let mut known = children(tx, &directory.key)?;
        for name in names(&directory.path).map_err(Failure::Directory)? {
            let path = directory.path.join(&name);
            if path == self.place {
                continue;
            }
            let Some(metadata) = metadata(&path).map_err(Failure::Directory)? else {
                continue; // gone since it was listed: what is left in `known` is removed
            };
            let key = child(&directory.key, name.as_encoded_bytes());
            let before = known.remove(&key);
            let entry = self.look(&path, &key, &metadata, before.as_ref(), &mut outcome);
            let is_directory = entry.kind == Kind::Directory;
            match before {
                Some(before) if before == entry => outcome.unchanged += 1,
                Some(before) => {
                    if before.kind == Kind::Directory && !is_directory {
                        remove_below(tx, &key, &mut outcome)?;
                    }
                    tx.set(&key, &entry)?;
                    outcome.change(Change::Changed, &key);
                }
                None => {
                    tx.set(&key, &entry)?;
                    outcome.change(Change::Added, &key);
                }
            }
            if is_directory && device(&metadata) == self.device {
                subdirectories.push(Directory { path, key });
            }
        }
        for (key, entry) in known {
            tx.delete(&key)?;
            outcome.change(Change::Removed, &key);
            if entry.kind == Kind::Directory {
                remove_below(tx, &key, &mut outcome)?;
            }
        }
        Ok((outcome, subdirectories))
    }

    /// What is at `path` now; a file is read unless it is as it was `before`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a program of its own has a clock"
    )]
    fn look(
        &mut self,
        path: &Path,
        key: &[u8],
        metadata: &Metadata,
        before: Option<&Entry>,
        outcome: &mut Outcome,
    ) -> Entry {
        let mut entry = Entry::new(metadata);
        let mut read_bytes = 0;
        if entry.kind == Kind::File {
            match before {
                Some(before) if before.is_current(&entry) => entry.crc32 = before.crc32,
                // The size and time are from before the reading. If the file changes during it,
                // the next run sees that they differ, and reads it again.
                _ => {
                    let begin = Instant::now();
                    match checksum(path, entry.size, &mut self.buffer) {
                        Ok((crc32, bytes)) => {
                            entry.crc32 = Some(crc32);
                            read_bytes = bytes;
                        }
                        Err(error) => outcome.unreadable.push((key.to_vec(), error.to_string())),
                    }
                    outcome.reading += begin.elapsed();
                }
            }
        }
        outcome.read_bytes += read_bytes;
        self.progress.entry(read_bytes);
        entry
    }
}

/// Deletes everything below `directory`, which is one any more.
fn remove_below(
    tx: &IndexTx<'_>,
    directory: &[u8],
    outcome: &mut Outcome,
) -> Result<(), happystore::Error> {
    let keys = tx.query().prefix(below(directory)).keys()?;
    tx.bulk_delete(&keys)?;
    for key in keys {
        outcome.change(Change::Removed, &key);
    }
    Ok(())
}

/// The names in a directory, in order, so that every run walks the same way.
#[expect(clippy::disallowed_methods, reason = "the tree is on the real machine")]
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?
        .map(|item| Ok(item?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// What is at `path`, symlinks not followed; `None` if it is gone from a directory that is not.
fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) => parent.symlink_metadata().map(|_| None),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The checksum of a file's first `size` bytes, and how many there were.
///
/// Files that grow, and those of `/proc` and `/sys` that have no true size, are not read further
/// than they are said to be long.
#[expect(clippy::disallowed_methods, reason = "the tree is on the real machine")]
fn checksum(path: &Path, size: u64, buffer: &mut [u8]) -> io::Result<(u32, u64)> {
    let mut hasher = crc32fast::Hasher::new();
    let mut left = size;
    if size > 0 {
        let mut content = File::open(path)?.take(size);
        loop {
            match content.read(buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        left = content.limit();
    }
    Ok((hasher.finalize(), size - left))
}

#[cfg(unix)]
fn device(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(metadata)
}

#[cfg(not(unix))]
fn device(_metadata: &Metadata) -> u64 {
    0
}
