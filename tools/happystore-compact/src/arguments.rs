//! What the program can be asked for.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// Compacts a store: rewrites what lives, and gives the space of all else back.
///
/// The store may be in use: others read and write on meanwhile. Interrupted or killed in the
/// middle, it stays whole, and what was finished by then need not be done again.
///
/// Exit code: 0 if all was done, 1 if it could not be done, 2 if the arguments are wrong, 3 if damage
/// was found (`verify`, `salvage`), 130 if it was interrupted.
#[derive(Debug, Parser)]
#[command(name = "happystore-compact", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
    /// The directory of the store
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compact: CompactArguments,
    /// Tell programs instead of people: JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Arguments {
    /// Those of this process; ends it if they are wrong.
    pub(crate) fn of_process() -> Self {
        let arguments = Self::parse();
        let compact = &arguments.compact;
        let compacts = arguments.path.is_some()
            || compact.dry_run
            || compact.min_dead.is_some()
            || compact.rate_limit.is_some();
        if arguments.task.is_some() && compacts {
            let what = "a path or an option of compacting stands before a command";
            Self::command()
                .error(ErrorKind::ArgumentConflict, what)
                .exit();
        }
        arguments
    }
}

/// How it is compacted.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompactArguments {
    /// Change nothing, and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Rewrite only segments of which at least this share is dead, from 0 to 1; if missing, all that
    /// is not compact already
    #[arg(long, value_name = "RATIO", value_parser = share)]
    pub(crate) min_dead: Option<f64>,
    /// Write at most so many bytes a second
    #[arg(long, value_name = "BYTES/S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate_limit: Option<u64>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("it must be from 0 to 1".to_owned())
    }
}

/// Whatever else can be done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Shows what a store is made of: its segments, and what of them lives
    Stats {
        /// The directory of the store
        path: PathBuf,
    },
    /// Reads all of a store, and checks every checksum
    Verify {
        /// The directory of the store
        path: PathBuf,
    },
    /// Makes a new store of whatever is whole in a damaged one, which stays as it is
    Salvage {
        /// The directory of the damaged store
        from: PathBuf,
        /// Where the new one is made
        to: PathBuf,
    },
    /// Copies a live store into a directory, or brings a backup there up to date
    Backup {
        /// The directory of the store
        path: PathBuf,
        /// The directory of the backup
        to: PathBuf,
    },
    /// Shows every entry of the files of a store, one a line, also dead ones; takes no lock
    Dump {
        /// The directory of the store
        path: PathBuf,
    },
    /// Sets and deletes what JSON lines from the standard input say, as `dump --json` writes them
    ///
    /// A line has a `key` (text) or a `key_hex`, and a `value_hex`, or none to delete the key. If
    /// lines have a `sequence`, the highest of a key counts, otherwise the last. Nothing is changed
    /// unless all lines are right; then it is done in transactions of 1000 keys.
    Load {
        /// The directory of the store, which exists
        path: PathBuf,
    },
    /// Makes a store of a backup, which stays as it is
    Restore {
        /// The directory of the backup
        backup: PathBuf,
        /// Where the store is made; nothing may be there yet
        to: PathBuf,
    },
}
