//! What every machine promises, asked of the operating system with and without mapping and of
//! plain memory; and what the operating system alone has to keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::super::memory::MemoryVfs;
use super::super::{Locality, LockKind, NodeKind, OpenMode, Vfs};
use super::OsVfs;

mod files;
mod processes;
mod workers;

/// One machine under test, with a directory to play in.
struct Machine {
    name: &'static str,
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    _kept: TempDir,
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn machine(name: &'static str, vfs: Arc<dyn Vfs>) -> Machine {
    let kept = tempfile::tempdir().unwrap();
    let root = kept.path().to_owned();
    vfs.create_dir_all(&root).unwrap();
    Machine {
        name,
        vfs,
        root,
        _kept: kept,
    }
}

/// The machine of the tests that ask for what only it has.
fn os() -> Machine {
    machine("os", OsVfs::new())
}

/// All of them.
fn machines() -> [Machine; 3] {
    [
        os(),
        machine("os without mapping", OsVfs::without_mapping()),
        machine("memory", MemoryVfs::new()),
    ]
}

#[test]
fn names_are_created_listed_renamed_and_removed() {
    for m in machines() {
        let directory = m.path("a/b/c");
        m.vfs.create_dir_all(&directory).unwrap();
        m.vfs.create_dir_all(&directory).unwrap();
        for name in ["one", "two"] {
            m.vfs
                .open(&directory.join(name), OpenMode::CreateEmpty)
                .unwrap();
        }
        m.vfs
            .rename(&directory.join("one"), &directory.join("two"))
            .unwrap();
        m.vfs.directory(&directory).unwrap().sync().unwrap();
        assert_eq!(m.vfs.list(&directory).unwrap(), ["two"], "{}", m.name);
        assert_eq!(m.vfs.node(&directory).unwrap(), Some(NodeKind::Directory));
        assert_eq!(m.vfs.node(&directory.join("one")).unwrap(), None);
        assert_eq!(
            m.vfs.node(&directory.join("two")).unwrap(),
            Some(NodeKind::File)
        );
        m.vfs.unlink(&directory.join("two")).unwrap();
        assert!(m.vfs.list(&directory).unwrap().is_empty());
        assert_eq!(
            m.vfs.list(&m.path("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let gone = m.vfs.unlink(&directory.join("two")).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_directory_is_the_same_by_every_path() {
    for m in machines() {
        m.vfs.create_dir_all(&m.path("a/b")).unwrap();
        let id = m.vfs.directory_id(&m.path("a")).unwrap();
        assert_eq!(
            m.vfs.directory_id(&m.path("a/b/..")).unwrap(),
            id,
            "{}",
            m.name
        );
        assert_ne!(
            m.vfs.directory_id(&m.path("a/b")).unwrap(),
            id,
            "{}",
            m.name
        );
        assert!(m.vfs.directory_id(&m.path("none")).is_err());
        assert!(m.vfs.absolute(&m.path("a")).unwrap().is_absolute());
    }
}

#[test]
fn a_directory_is_the_same_through_a_symbolic_link() {
    let m = os();
    m.vfs.create_dir_all(&m.path("real")).unwrap();
    std::os::unix::fs::symlink(m.path("real"), m.path("link")).unwrap();
    let id = m.vfs.directory_id(&m.path("real")).unwrap();
    assert_eq!(m.vfs.directory_id(&m.path("link")).unwrap(), id);
    assert_eq!(id.machine, 0);
    assert_eq!(
        m.vfs.absolute(&m.path("link")).unwrap(),
        m.vfs.absolute(&m.path("real")).unwrap()
    );
}

#[test]
fn directories_are_not_created_over_files() {
    for m in machines() {
        m.vfs.open(&m.path("file"), OpenMode::CreateEmpty).unwrap();
        assert!(m.vfs.create_dir_all(&m.path("file")).is_err(), "{}", m.name);
        assert!(
            m.vfs.create_dir_all(&m.path("file/below")).is_err(),
            "{}",
            m.name
        );
        assert!(m.vfs.directory_id(&m.path("file")).is_err(), "{}", m.name);
    }
    let m = os();
    std::os::unix::fs::symlink(m.path("nowhere"), m.path("link")).unwrap();
    assert!(m.vfs.create_dir_all(&m.path("link")).is_err());
    assert!(m.vfs.create_dir_all(Path::new("")).is_err());
}

#[test]
fn links_that_lead_nowhere_are_something_else() {
    let m = os();
    for (target, link) in [("nowhere", "broken"), ("loop", "loop")] {
        std::os::unix::fs::symlink(m.path(target), m.path(link)).unwrap();
        assert_eq!(
            m.vfs.node(&m.path(link)).unwrap(),
            Some(NodeKind::Other),
            "{link}"
        );
    }
}

/// Between two looks at it, too: another process may open the same new store.
#[test]
fn a_directory_that_somebody_makes_just_now_is_one() {
    let m = os();
    let path = m.path("made just now");
    std::thread::scope(|scope| {
        let making = scope.spawn(|| {
            for _ in 0..30_000 {
                std::fs::create_dir(&path).unwrap();
                std::fs::remove_dir(&path).unwrap();
            }
        });
        while !making.is_finished() {
            let found = m.vfs.node(&path).unwrap();
            assert!(
                matches!(found, None | Some(NodeKind::Directory)),
                "{found:?}"
            );
        }
    });
}

#[test]
fn names_that_are_not_utf8_are_left_out() {
    use std::os::unix::ffi::OsStrExt;

    let m = os();
    fs::write(m.root.join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    fs::write(m.path("good"), b"").unwrap();
    assert_eq!(m.vfs.list(&m.root).unwrap(), ["good"]);
}

#[test]
fn this_directory_is_local_or_has_a_name() {
    for m in machines() {
        match m.vfs.locality(&m.root).unwrap() {
            Locality::Local => {}
            Locality::Remote(name) => assert!(m.name != "memory" && !name.is_empty()),
        }
        assert!(m.vfs.locality(&m.path("none")).is_err());
    }
}

#[test]
fn locks_are_between_opens_of_a_file() {
    for m in machines() {
        let open = || {
            m.vfs
                .open(&m.path("LOCK"), OpenMode::WriteOrCreate)
                .unwrap()
        };
        let (one, other) = (open(), open());
        assert!(one.try_lock(LockKind::Exclusive).unwrap(), "{}", m.name);
        assert!(one.try_lock(LockKind::Exclusive).unwrap(), "held already");
        assert!(!other.try_lock(LockKind::Exclusive).unwrap());
        assert!(!other.try_lock(LockKind::Shared).unwrap());
        one.unlock().unwrap();
        assert!(other.try_lock(LockKind::Shared).unwrap());
        assert!(one.try_lock(LockKind::Shared).unwrap());
        assert!(!one.try_lock(LockKind::Exclusive).unwrap());
        drop(other);
        assert!(one.try_lock(LockKind::Exclusive).unwrap());
        drop(one);
        assert!(open().try_lock(LockKind::Exclusive).unwrap());
        assert!(
            open().try_lock(LockKind::Exclusive).unwrap(),
            "given back by drop"
        );
    }
}

#[test]
fn a_shared_page_is_seen_by_a_second_opening() {
    for m in machines() {
        let one = m
            .vfs
            .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
            .unwrap();
        assert!((0..super::super::SHARED_WORDS).all(|index| one.load(index) == 0));
        one.store(3, 7);
        let other = m
            .vfs
            .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
            .unwrap();
        assert_eq!(other.load(3), 7, "{}", m.name);
        assert_eq!(other.compare_exchange(3, 7, 8), Ok(7));
        assert_eq!(other.compare_exchange(3, 7, 9), Err(8));
        assert_eq!(other.fetch_add(479, u64::MAX), 0);
        assert_eq!(other.fetch_add(479, 2), u64::MAX);
        assert_eq!((one.load(3), one.load(479)), (8, 1));
        let file = m.vfs.open(&m.path("STATE"), OpenMode::Read).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
    }
    let m = os();
    m.vfs
        .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
        .unwrap()
        .store(1, 0x0102);
    assert_eq!(fs::read(m.path("STATE")).unwrap()[8..10], [2, 1]);
}
