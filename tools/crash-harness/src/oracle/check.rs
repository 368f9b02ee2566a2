//! Opening a store after a kill, and looking at everything in it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use happystore::{Access, Compaction, Error, ErrorKind, Options, Read, Store};

use super::settle::PARENT;
use super::{Broken, History};
use crate::arguments::Mode;
use crate::child::options;
use crate::work::model::Content;
use crate::work::{Id, Value, value};

/// A store as a child left it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Whether nobody else has it open; otherwise some do who neither write nor compact.
    pub(crate) is_alone: bool,
    pub(crate) path: &'a Path,
    pub(crate) mode: Mode,
    pub(crate) segment_bytes: u64,
}

impl History {
    /// Looks at what kills have left: as a writer, who finds out what became of what was unfinished,
    /// and then as one who only reads.
    ///
    /// # Errors
    /// The first broken promise.
    pub(crate) fn check(&mut self, found: Found<'_>) -> Result<(), Broken> {
        self.check_by_writing(found)?;
        self.check_by_reading(found)
    }

    /// Looks at the store without changing anything in it, as one that opens it for reading alone.
    ///
    /// # Errors
    /// The first broken promise.
    pub(crate) fn check_by_reading(&mut self, found: Found<'_>) -> Result<(), Broken> {
        caught(|| {
            let opened = Options::new().access(Access::ReadOnly).open(found.path);
            let is_missing = |error: &Error| error.kind() == ErrorKind::NotFound;
            if !self.is_made && opened.as_ref().is_err_and(is_missing) {
                return Ok(());
            }
            let store = said("open for reading", opened)?;
            self.compare(&store)?;
            said("close what was read", store.close())
        })
    }

    /// Looks at the store as the next one that writes to it: opens it, compares, commits, closes
    /// it, opens it again and compares again.
    ///
    /// # Errors
    /// The first broken promise.
    pub(crate) fn check_by_writing(&mut self, found: Found<'_>) -> Result<(), Broken> {
        caught(|| {
            for _ in 0..2 {
                // Nobody is at work while the files are looked at.
                let options = options(found.mode, found.segment_bytes);
                let store = options.compaction(Compaction::manual()).open(found.path);
                let store = said("open", store)?;
                no_temporary_files(found)?;
                self.compare(&store)?;
                self.commit(&store)?;
                said("close", store.close())?;
            }
            Ok(())
        })
    }

    fn commit(&mut self, store: &Store) -> Result<(), Broken> {
        let number = u32::try_from(self.parent.len()).unwrap_or(u32::MAX);
        let id = Id {
            life: u16::MAX,
            writer: u8::MAX,
            number,
        };
        let key = format!("{PARENT}{number:06}");
        let value = value(id, 0, &key);
        said("take a commit", store.set(&key, &value))?;
        self.parent.insert(key, value);
        Ok(())
    }

    fn compare(&mut self, store: &Store) -> Result<(), Broken> {
        said("verify", store.verify())?;
        let content: Content = said("scan", scan(store))?;
        for (key, value) in &content {
            let got: Option<Value> = said("get", Read::get(store, key))?;
            if got.as_ref() != Some(value) {
                return Broken::new(format!("a get of {key} is not what a scan shows"));
            }
        }
        let count = said("count", store.query().count())?;
        if count != content.len() as u64 {
            return Broken::new("a count is not what a scan shows");
        }
        self.checked.openings += 1;
        self.settle(&content)
    }
}

fn scan(store: &Store) -> happystore::Result<Content> {
    let pairs = store.scan().iter::<Value>()?;
    pairs.collect::<happystore::Result<BTreeMap<_, _>>>()
}

/// What the store answered; an error is a broken promise: nothing was done to the files.
fn said<T>(what: &str, answer: Result<T, Error>) -> Result<T, Broken> {
    answer.map_err(|error| Broken(format!("cannot {what}: {error}")))
}

/// A panic of the store is a broken promise too.
fn caught(check: impl FnOnce() -> Result<(), Broken>) -> Result<(), Broken> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Broken::new(format!("the store panics: {}", text.unwrap_or("?")))
    })
}

/// Opening for writing leaves no temporary file of whoever was killed; beside others it may leave
/// hints, which who compacts next removes.
fn no_temporary_files(found: Found<'_>) -> Result<(), Broken> {
    let listed = std::fs::read_dir(found.path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.map_err(|error| Broken(format!("cannot list the files: {error}")))?;
    let mut names = listed.iter().map(std::fs::DirEntry::path);
    let is_left = |name: &PathBuf| {
        let name = name.to_string_lossy();
        name.ends_with(".tmp") && (found.is_alone || !name.ends_with(".hint.tmp"))
    };
    match names.find(is_left) {
        None => Ok(()),
        Some(name) => Broken::new(format!("{} is left after opening", name.display())),
    }
}
