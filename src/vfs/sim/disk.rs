//! A disk at one moment: directories, names, and the bytes they lead to.
//!
//! A world keeps one as its page cache; every crash state is one; a world starts from one. The
//! operations of a [`Journal`](super::Journal) change it through [`Image::apply`] alone.
//!
//! Invariants:
//! 1. Inode numbers are never used again, neither in a world nor in those that follow from it.
//! 2. A directory never goes; files live in any directory, renames stay within one.
//! 3. Clones share all bytes.
//!
//! Threads: plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::journal::Operation;

/// The inode of the root directory.
const ROOT: u64 = 1;

/// Names and the inodes they lead to.
pub(super) type Entries = BTreeMap<Arc<str>, u64>;

/// A directory: where it is, and what it names. Directories within it are found by their paths.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) path: Arc<Path>,
    pub(super) entries: Entries,
}

/// A disk at one moment; cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) directories: BTreeMap<u64, Arc<Directory>>,
    pub(super) files: BTreeMap<u64, Arc<Content>>,
    pub(super) next_inode: u64,
    /// How often a machine was switched on with what became this disk.
    pub(super) boot: u64,
}

impl Default for Image {
    /// An empty disk.
    fn default() -> Self {
        let root = Directory {
            path: Path::new("/").into(),
            entries: Entries::new(),
        };
        Self {
            directories: BTreeMap::from([(ROOT, Arc::new(root))]),
            files: BTreeMap::new(),
            next_inode: ROOT + 1,
            boot: 1,
        }
    }
}

impl Image {
    /// The bytes of the file `path`; `None` if there is none.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let inode = self.file(&normal(path.as_ref()))?;
        self.files.get(&inode).map(|content| content.to_vec())
    }

    /// The file names in `directory`, sorted; empty if it is missing.
    pub fn list(&self, directory: impl AsRef<Path>) -> Vec<String> {
        self.directory(&normal(directory.as_ref()))
            .map_or_else(Vec::new, |(_, directory)| {
                directory.entries.keys().map(ToString::to_string).collect()
            })
    }

    /// The directory at a normal path, with its inode.
    pub(super) fn directory(&self, path: &Path) -> Option<(u64, &Directory)> {
        let mut directories = self.directories.iter();
        let (&inode, directory) = directories.find(|(_, each)| *each.path == *path)?;
        Some((inode, directory))
    }

    /// The inode of the file at a normal path.
    pub(super) fn file(&self, path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        let (_, directory) = self.directory(path.parent()?)?;
        directory.entries.get(name).copied()
    }

    /// All inodes that have a name.
    pub(super) fn named(&self) -> BTreeSet<u64> {
        self.directories
            .values()
            .flat_map(|each| each.entries.values().copied())
            .collect()
    }

    /// Forgets the files that no name leads to.
    pub(super) fn drop_unnamed(&mut self) {
        let named = self.named();
        self.files.retain(|inode, _| named.contains(inode));
    }

    /// Whether any name leads to `inode`.
    pub(super) fn is_named(&self, inode: u64) -> bool {
        self.directories
            .values()
            .any(|each| each.entries.values().any(|&named| named == inode))
    }

    /// The names in directory `inode`, to be changed.
    pub(super) fn entries_mut(&mut self, inode: u64) -> Option<&mut Entries> {
        let directory = self.directories.get_mut(&inode)?;
        Some(&mut Arc::make_mut(directory).entries)
    }

    /// The bytes of file `inode`, to be changed.
    pub(super) fn content_mut(&mut self, inode: u64) -> Option<&mut Content> {
        self.files.get_mut(&inode).map(Arc::make_mut)
    }

    fn set_name(&mut self, directory: u64, name: &Arc<str>, inode: u64) {
        if let Some(entries) = self.entries_mut(directory) {
            entries.insert(name.clone(), inode);
        }
    }

    /// Does to this disk what `operation` does to the page cache.
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeDirectory { inode, path } => {
                let directory = Directory {
                    path: path.clone(),
                    entries: Entries::new(),
                };
                self.directories.insert(*inode, Arc::new(directory));
                self.next_inode = self.next_inode.max(inode + 1);
            }
            Operation::Create {
                directory,
                name,
                inode,
            } => {
                self.files.insert(*inode, Arc::default());
                self.next_inode = self.next_inode.max(inode + 1);
                self.set_name(*directory, name, *inode);
            }
            Operation::Link {
                directory,
                name,
                inode,
            } => self.set_name(*directory, name, *inode),
            Operation::Resize { inode, len_bytes } => {
                if let Some(content) = self.content_mut(*inode) {
                    content.set_len(*len_bytes);
                }
            }
            Operation::Write {
                inode,
                offset,
                bytes,
            } => {
                if let Some(content) = self.content_mut(*inode) {
                    content.write(*offset, bytes);
                }
            }
            Operation::PageStore {
                inode,
                index,
                value,
            } => {
                if let Some(content) = self.content_mut(*inode) {
                    content.write(*index as u64 * 8, &value.to_le_bytes());
                }
            }
            Operation::Rename {
                directory,
                from,
                to,
            } => {
                if let Some(entries) = self.entries_mut(*directory)
                    && let Some(inode) = entries.remove(from)
                {
                    entries.insert(to.clone(), inode);
                }
            }
            Operation::Unlink { directory, name } => {
                if let Some(entries) = self.entries_mut(*directory) {
                    entries.remove(name);
                }
            }
            Operation::Sync { .. }
            | Operation::SyncFailed { .. }
            | Operation::SyncDirectory { .. }
            | Operation::Begin(_)
            | Operation::Acknowledge { .. } => {}
        }
    }
}

/// The absolute path without `.` and `..`; a relative one starts at the root.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    normal
}
