//! An index of a directory tree, kept in a store: path → size, modified time, kind, checksum.
//!
//! ```text
//! cargo run --release --example file_index -- /usr
//! cargo run --release --example file_index -- /usr --prefix share/doc/
//! ```
//!
//! The first run reads every file; later runs only those whose size or modified time changed, and
//! tell what was added, changed and removed. Stop it whenever you like: what was committed stays.
//!
//! [`walk`] brings the store up to date, with a transaction for each subtree and a nested one for
//! each directory; [`report`] asks it questions; [`entry`] is what both know about keys and
//! values.

mod entry;
mod progress;
mod report;
mod walk;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use happystore::Options;

use entry::{Index, ROOT_KEY};
use walk::Walk;

/// Keeps an index of a directory tree, and tells what is in it and what changed.
#[derive(Parser)]
struct Arguments {
    /// The directory to index.
    #[arg(default_value = ".")]
    tree: PathBuf,
    /// Report only on paths that begin with this, byte for byte, such as `share/doc/`.
    #[arg(long, default_value = "")]
    prefix: OsString,
    /// Where the index lies, instead of in your cache directory.
    #[arg(long)]
    store: Option<PathBuf>,
}

type AnyError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("file_index: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own has a clock; the library's is behind its vfs"
)]
fn run(arguments: &Arguments) -> Result<(), AnyError> {
    let tree = &arguments.tree;
    let tree = tree
        .canonicalize()
        .map_err(|error| format!("cannot index {}: {error}", tree.display()))?;
    if !tree.is_dir() {
        return Err(format!("cannot index {}: it is not a directory", tree.display()).into());
    }
    let place = match &arguments.store {
        Some(path) => path.clone(),
        None => default_place(&tree),
    };
    let index = open(&place, &tree)?;
    // Only now that it exists can its path be told from others.
    let place = place.canonicalize()?;
    if tree.starts_with(&place) {
        let place = place.display();
        return Err(format!("the index in {place} cannot be of that directory itself").into());
    }

    let begin = Instant::now();
    let outcome = Walk::new(&index, &tree, &place)?.run()?;
    let elapsed = begin.elapsed();

    let out = &mut BufWriter::new(io::stdout().lock());
    report::outcome(out, &tree, &outcome, elapsed)?;
    // One snapshot, so that all answers are of the same moment, whoever writes meanwhile.
    let snapshot = index.snapshot()?;
    let prefix = arguments.prefix.as_encoded_bytes();
    report::largest(out, &snapshot, prefix)?;
    report::extensions(out, &snapshot, prefix)?;
    report::changes(out, &outcome)?;
    report::store(out, &index, &place)?;
    out.flush()?;
    drop(snapshot);
    // Dropping it would close it too, but could not tell of errors.
    Ok(index.close()?)
}

/// Opens the index in `place`, and makes sure that it is the one of `tree`: brought up to date
/// with another tree, it would lose all it has.
fn open(place: &Path, tree: &Path) -> Result<Index, AnyError> {
    let index = Options::new()
        .byte_keys() // a path is bytes: not every file name is UTF-8
        .label("file_index")
        .open(place)?;
    let tree_bytes = tree.as_os_str().as_encoded_bytes();
    match index.get::<Vec<u8>>(ROOT_KEY)? {
        Some(indexed) if indexed != tree_bytes => {
            let (place, indexed) = (place.display(), entry::shown(&indexed));
            Err(format!("{place} is the index of {indexed}; use another --store").into())
        }
        Some(_) => Ok(index),
        None => {
            index.set(ROOT_KEY, tree_bytes)?;
            Ok(index)
        }
    }
}

/// A directory for the index of `tree` that the next run finds again.
fn default_place(tree: &Path) -> PathBuf {
    let from_environment = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let caches = from_environment("XDG_CACHE_HOME")
        .or_else(|| from_environment("LOCALAPPDATA"))
        .or_else(|| Some(from_environment("HOME")?.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    // The name is for people, the hash tells trees of the same name apart.
    let mut name = tree.file_name().unwrap_or("root".as_ref()).to_os_string();
    let hash = crc32fast::hash(tree.as_os_str().as_encoded_bytes());
    name.push(format!("-{hash:08x}"));
    caches.join("happystore").join("file_index").join(name)
}

/// Whether whoever read our output has seen enough, such as `head`.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
