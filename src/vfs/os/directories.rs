//! Names: directories and what they hold.
//!
//! Invariants:
//! 1. A directory that is not empty has a durable entry in its parent, if it was made here: the
//!    entry is synced before [`create_all`] puts anything into the directory or returns.
//!
//! Threads and processes: plain functions; several processes may create one directory at once.
//!
//! What a crash leaves behind: some of the directories to be created, each of them empty or
//! durable. The next [`create_all`] relies on that (invariant 1).

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use super::super::{DirectoryId, NodeKind, VfsDirectory};
use super::system;

/// Creates `directory` and its missing parents, and makes their entries durable.
///
/// # Errors
/// [`io::ErrorKind::NotADirectory`] if something else is in the way; what the machine says.
pub(super) fn create_all(directory: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut nearest = directory;
    while !is_directory(nearest)? {
        missing.push(nearest);
        let parent = parent_of(nearest);
        if parent == nearest {
            return Err(io::ErrorKind::NotFound.into());
        }
        nearest = parent;
    }
    // CRASH: whoever made `nearest` may have died before its entry was durable, or may not be
    // done yet. Then it is still empty (invariant 1), and the sync is ours to do.
    let first = || std::fs::read_dir(nearest)?.next().transpose();
    if uninterrupted(first).is_ok_and(|first| first.is_none()) {
        sync_entry_of_stranger(nearest)?;
    }
    for path in missing.into_iter().rev() {
        match std::fs::create_dir(path) {
            // Another process was faster; it may not have synced the entry yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(path)? => {}
            created => created?,
        }
        sync(parent_of(path))?;
    }
    Ok(())
}

/// The directory that holds the name `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        // The root, or the empty path.
        None => path,
    }
}

/// Whether `path` is a directory rather than nothing.
fn is_directory(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) => Err(not_a_directory(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn not_a_directory(found: &Metadata) -> io::Error {
    let what = if found.is_file() {
        "a file"
    } else {
        system::type_name(found.file_type())
    };
    io::Error::new(
        io::ErrorKind::NotADirectory,
        format!("this is {what}, not a directory"),
    )
}

/// Syncs the entry of an existing directory, where this process may read its parent.
fn sync_entry_of_stranger(directory: &Path) -> io::Result<()> {
    let full = std::fs::canonicalize(directory)?;
    match full.parent().map_or(Ok(()), sync) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// An open directory; nothing where the system opens none.
#[derive(Debug)]
pub(super) struct OsDirectory(Option<File>);

impl OsDirectory {
    /// Opens `directory`.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        match system::open_directory(directory) {
            Ok(opened) => Ok(Self(Some(opened))),
            Err(error) if system::cannot_sync_directories(&error) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

impl VfsDirectory for OsDirectory {
    /// File systems that cannot sync a directory (EINVAL) are taken at their word that there is
    /// nothing to do.
    fn sync(&self) -> io::Result<()> {
        match self.0.as_ref().map_or(Ok(()), File::sync_all) {
            Err(error) if system::cannot_sync_directories(&error) => Ok(()),
            done => done,
        }
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    OsDirectory::open(directory)?.sync()
}

/// What `path` names, after following symbolic links; `None` if nothing is there.
///
/// # Errors
/// What the machine says, but for "not found".
pub(super) fn node(path: &Path) -> io::Result<Option<NodeKind>> {
    let missing = match std::fs::metadata(path) {
        Ok(found) => return Ok(Some(kind_of(&found))),
        Err(error) => error,
    };
    if missing.kind() != io::ErrorKind::NotFound && !system::is_link_loop(&missing) {
        return Err(missing);
    }
    match std::fs::symlink_metadata(path) {
        // If it is no link that leads nowhere, somebody has made it just now.
        Ok(found) => Ok(Some(kind_of(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind_of(found: &std::fs::Metadata) -> NodeKind {
    if found.is_file() {
        NodeKind::File
    } else if found.is_dir() {
        NodeKind::Directory
    } else {
        NodeKind::Other
    }
}

/// The names in `directory`; names that are not UTF-8 are left out. Begins anew when a signal
/// interrupts it.
///
/// # Errors
/// What the machine says.
pub(super) fn list(directory: &Path) -> io::Result<Vec<String>> {
    uninterrupted(|| list_once(directory))
}

/// Repeats what a signal interrupted.
fn uninterrupted<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn list_once(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The identity of an existing directory.
///
/// # Errors
/// [`io::ErrorKind::NotADirectory`] if it is something else; what the machine says.
pub(super) fn id(directory: &Path) -> io::Result<DirectoryId> {
    let found = std::fs::metadata(directory)?;
    if !found.is_dir() {
        return Err(not_a_directory(&found));
    }
    let (device, inode) = system::identity(directory, &found)?;
    Ok(DirectoryId {
        machine: 0,
        device,
        inode,
    })
}
