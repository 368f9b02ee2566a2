//! What the tests share: the machines a store can be on, and looking at errors.
//!
//! A test asks for [`everywhere`] or [`with_a_disk`] and runs once on each [`Place`] it gets; if
//! it fails, the place is named.

pub(crate) mod hooked;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use happystore::vfs::sim::World;
use happystore::vfs::{OpenMode, Vfs};
use happystore::{Durability, Error, ErrorKind, Key, Options, Result, Serializer, Store};

/// A machine with room for one store.
pub(crate) struct Place {
    machine: Machine,
}

enum Machine {
    Simulated(Arc<dyn Vfs>),
    Memory,
    Real(tempfile::TempDir),
}

/// The simulated machine, plain memory, and the operating system.
pub(crate) fn everywhere() -> impl Iterator<Item = Place> {
    with_a_disk().chain(std::iter::once(memory()))
}

/// The machines on which a store can be closed and opened again.
pub(crate) fn with_a_disk() -> impl Iterator<Item = Place> {
    [simulated as fn() -> Place, real]
        .into_iter()
        .map(|place| place())
}

/// The machines on which threads run by themselves.
pub(crate) fn with_threads() -> impl Iterator<Item = Place> {
    [memory as fn() -> Place, real]
        .into_iter()
        .map(|place| place())
}

pub(crate) fn simulated() -> Place {
    Place {
        machine: Machine::Simulated(World::new(1).process()),
    }
}

pub(crate) fn memory() -> Place {
    Place {
        machine: Machine::Memory,
    }
}

pub(crate) fn real() -> Place {
    Place {
        machine: Machine::Real(tempfile::tempdir().unwrap()),
    }
}

impl Place {
    /// The options of [`Place::open`]: as ever, but on the real disk nothing is synced, so that
    /// thousands of commits take no time.
    pub(crate) fn options(&self) -> Options {
        match self.machine {
            Machine::Real(_) => Options::new().durability(Durability::Os),
            _ => Options::new(),
        }
    }

    /// The store of this place; one in memory is a new one every time.
    pub(crate) fn open(&self) -> Store {
        self.open_with(self.options()).unwrap()
    }

    pub(crate) fn open_with<S: Serializer, K: Key + ?Sized>(
        &self,
        options: Options<S, K>,
    ) -> Result<Store<S, K>> {
        self.open_at(options, &self.path())
    }

    pub(crate) fn open_at<S: Serializer, K: Key + ?Sized>(
        &self,
        options: Options<S, K>,
        path: &Path,
    ) -> Result<Store<S, K>> {
        match &self.machine {
            Machine::Simulated(process) => options.vfs(process.clone()).open(path),
            Machine::Memory => options.in_memory(),
            Machine::Real(_) => options.open(path),
        }
    }

    /// The store's directory.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.machine {
            Machine::Real(directory) => directory.path().join("store"),
            _ => "/data/store".into(),
        }
    }

    /// Every file of the store with its bytes.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let path = self.path();
        let mut names = match &self.machine {
            Machine::Simulated(process) => process.list(&path).unwrap(),
            _ => std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect(),
        };
        names.sort();
        names
            .into_iter()
            .map(|name| (name.clone(), self.read_file(&name)))
            .collect()
    }

    pub(crate) fn read_file(&self, name: &str) -> Vec<u8> {
        let path = self.path().join(name);
        match &self.machine {
            Machine::Simulated(process) => {
                let file = process.open(&path, OpenMode::Read).unwrap();
                let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
                bytes
            }
            _ => std::fs::read(path).unwrap(),
        }
    }

    /// Makes a file, or replaces what is in it.
    pub(crate) fn write_file(&self, path: &Path, bytes: &[u8]) {
        let parent = path.parent().unwrap();
        if let Machine::Simulated(process) = &self.machine {
            process.create_dir_all(parent).unwrap();
            let file = process.open(path, OpenMode::CreateEmpty).unwrap();
            file.write_at(0, bytes).unwrap();
        } else {
            std::fs::create_dir_all(parent).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn remove_file(&self, name: &str) {
        let path = self.path().join(name);
        match &self.machine {
            Machine::Simulated(process) => process.unlink(&path).unwrap(),
            _ => std::fs::remove_file(path).unwrap(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let machine = match self.machine {
                Machine::Simulated(_) => "the simulated machine",
                Machine::Memory => "a store in memory",
                Machine::Real(_) => "the real disk",
            };
            eprintln!("this was on {machine}");
        }
    }
}

/// The error of a call that must fail.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}

/// Checks that a call failed with an error of this kind, whose message holds each of `parts`.
#[track_caller]
pub(crate) fn assert_refused<T>(result: Result<T>, kind: ErrorKind, parts: &[&str]) {
    let error = refused(result);
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Pairs as queries return them.
pub(crate) fn owned<V: Clone>(pairs: &[(&str, V)]) -> Vec<(String, V)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}
