//! The kinds of calls that can fail.
//!
//! `process` and `file` say of each call which kind it is; a test asks which kinds failed.
//!
//! Invariants:
//! 1. A call that only looks changes neither files nor names.
//!
//! Threads: plain values.

/// A kind of call, named after the method of the vfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method with its name")]
pub enum Call {
    Absolute,
    Allocate,
    CreateDirAll,
    DirectoryId,
    Len,
    Link,
    List,
    Locality,
    Node,
    Open,
    OpenDir,
    ReadAt,
    Rename,
    SharedPage,
    Spawn,
    Sync,
    SyncDir,
    TryLock,
    Unlink,
    Unlock,
    View,
    Write,
}

impl Call {
    /// Whether calls of this kind change neither files nor names, whatever they are asked for.
    pub fn only_looks(self) -> bool {
        match self {
            Self::Absolute
            | Self::DirectoryId
            | Self::Len
            | Self::List
            | Self::Locality
            | Self::Node
            | Self::OpenDir
            | Self::ReadAt
            | Self::Spawn
            | Self::TryLock
            | Self::Unlock
            | Self::View => true,
            Self::Allocate
            | Self::CreateDirAll
            | Self::Link
            | Self::Open
            | Self::Rename
            | Self::SharedPage
            | Self::Sync
            | Self::SyncDir
            | Self::Unlink
            | Self::Write => false,
        }
    }

    /// Whether a call of this kind can be half done.
    pub fn has_halves(self) -> bool {
        matches!(self, Self::Allocate | Self::Write)
    }
}
