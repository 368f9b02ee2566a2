//! What the program can be asked: by people, and, out of their sight, by itself for its children.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use happystore::Durability;

/// How long a commit of the mode `deferred` may wait for its sync.
pub(crate) const DEFERRED_DELAY: Duration = Duration::from_millis(3);

/// Kills processes that write to a store, and checks that nothing they were promised is lost.
///
/// Stores of one process: a child with several writing threads and a reading one works on a store; it
/// is killed with SIGKILL (at a random time, at its N-th system call, at byte N of a file, at a
/// named point of the code, while it is opening the store after another kill, while it is stopped,
/// or while it compacts, again while the next one does what was left undone); then the store is opened and compared with what the child was told.
///
/// Stores of several processes: up to four that write, one that reads beside them, and one that has
/// the store open for reading alone. All who write compact, too. One of them is killed in one of these
/// ways, or while it has the writer lock and others wait for it, or all are at once, or some of those that open the store
/// after that. At least three in ten of all kills hit who compacts. Who lives on must go on, and everybody who looks must see one order of all commits.
///
/// A killed process loses nothing acknowledged, whatever the durability: every acknowledged commit
/// must be there, what was begun must be there as a whole or not at all, and nothing else may be.
///
/// Exit code: 0 if all promises were kept, 1 if one was broken, 2 if this could not be tried, 130 if
/// all were kept until it was interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "happystore-crash-harness",
    version,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) campaign: CampaignArguments,
}

/// What a child process of this program is.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Works on a store until it is killed; started by the harness.
    #[command(hide = true)]
    Child(ChildArguments),
    /// Works on a store while the machine refuses calls.
    #[command(hide = true)]
    Fault(FaultArguments),
    /// Runs a child of that kind, and checks the store afterwards.
    #[command(hide = true)]
    Supervise(SuperviseArguments),
    /// Fills a disk to the brim.
    #[command(hide = true)]
    FullDisk(FullDiskArguments),
    /// Tries to open a store.
    #[command(hide = true)]
    Attempt(AttemptArguments),
}

/// What people ask for.
#[derive(Debug, Clone, Args)]
pub(crate) struct CampaignArguments {
    /// What happens follows from this number, but for the exact times; a random one if missing
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many kills [default: 200, without --minutes]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) kills: Option<u64>,
    /// For how long, with as many kills as fit in
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000), conflicts_with = "kills")]
    pub(crate) minutes: Option<u64>,
    /// The durabilities that the stores take turns with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Mode::ALL)]
    pub(crate) modes: Vec<Mode>,
    /// How many processes write to a store at a time; the stores differ in that
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4],
        value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) processes: Vec<u8>,
    /// How many threads write in a child; a random number if missing, and at most two in each of
    /// several processes
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) writers: Option<u8>,
    /// How many seconds it may take those who live on to go on after a death
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) patience: u64,
    /// How many stores are worked on beside each other
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// Where the stores are made; the machine's directory for temporary files if missing
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Keep all stores, not only one with a broken promise
    #[arg(long)]
    pub(crate) keep: bool,
    /// A fault that the children have, to see it found
    #[arg(long, value_enum, hide = true)]
    pub(crate) planted: Option<Planted>,
}

/// What a child is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChildArguments {
    /// The store's directory.
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The store's seed.
    #[arg(long)]
    pub(crate) seed: u64,
    /// How many children there were before this one.
    #[arg(long)]
    pub(crate) life: u16,
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    #[arg(long)]
    pub(crate) writers: u8,
    #[arg(long)]
    pub(crate) segment_bytes: u64,
    /// How many operations each writer performs before the child closes and opens the store.
    #[arg(long)]
    pub(crate) shift: u32,
    /// Only open the store, then wait for the end.
    #[arg(long)]
    pub(crate) hold: bool,
    /// Writing behind this byte of any file ends the process.
    #[arg(long)]
    pub(crate) file_bytes_max: Option<u64>,
    /// From which acknowledged commit on that is so; 0 is before the store is opened.
    #[arg(long, default_value_t = 0)]
    pub(crate) limit_from: u64,
    /// Ends the process at a named point, at its n-th hit: `name:n`.
    #[arg(long)]
    pub(crate) point: Option<String>,
    /// Works beside other processes: begins each line with the number of its life.
    #[arg(long)]
    pub(crate) together: bool,
    /// The number of its first writer.
    #[arg(long, default_value_t = 0)]
    pub(crate) first_writer: u8,
    /// Only reads, with this access.
    #[arg(long, value_enum)]
    pub(crate) reads: Option<Reads>,
    /// Keeps the writer lock for ever in its n-th shared operation.
    #[arg(long)]
    pub(crate) hold_at: Option<u64>,
    /// How long it waits for the writer lock, where it does not wait for as long as it takes.
    #[arg(long)]
    pub(crate) lock_wait_ms: Option<u64>,
    #[arg(long, value_enum)]
    pub(crate) planted: Option<Planted>,
}

/// What a child that works under faults is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct FaultArguments {
    #[arg(long)]
    pub(crate) store: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    #[arg(long)]
    pub(crate) segment_bytes: u64,
    /// How many operations are tried.
    #[arg(long)]
    pub(crate) operations: u32,
    /// Writing behind this byte of any file is an error.
    #[arg(long)]
    pub(crate) file_bytes_max: Option<u64>,
    /// More open files than this are an error.
    #[arg(long)]
    pub(crate) files_max: Option<u64>,
    /// From which acknowledged commit on these limits hold.
    #[arg(long, default_value_t = 0)]
    pub(crate) limit_from: u64,
    /// After how many errors they are lifted.
    #[arg(long, default_value_t = u64::MAX)]
    pub(crate) heal_after: u64,
    /// A fault of the child itself: it takes what has failed as done.
    #[arg(long)]
    pub(crate) shrug: bool,
}

impl FaultArguments {
    /// The arguments that give this again.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--store".into(), self.store.clone().into()];
        let mut add = |name: &str, value: String| args.extend([name.into(), value.into()]);
        add("--seed", self.seed.to_string());
        add("--mode", name_of(&self.mode));
        add("--segment-bytes", self.segment_bytes.to_string());
        add("--operations", self.operations.to_string());
        add("--limit-from", self.limit_from.to_string());
        add("--heal-after", self.heal_after.to_string());
        let limits = [
            ("--file-bytes-max", self.file_bytes_max),
            ("--files-max", self.files_max),
        ];
        for (name, limit) in limits {
            if let Some(limit) = limit {
                add(name, limit.to_string());
            }
        }
        args.extend(self.shrug.then(|| "--shrug".into()));
        args
    }
}

/// What the supervisor of such a child is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct SuperviseArguments {
    /// What strace does to the calls of the child: `name:error=EIO:when=3`.
    #[arg(long)]
    pub(crate) inject: Option<String>,
    /// Only to calls that name this file of the store, or have it open.
    #[arg(long)]
    pub(crate) file: Vec<String>,
    #[command(flatten)]
    pub(crate) child: FaultArguments,
}

/// What a child that fills a disk is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct FullDiskArguments {
    #[arg(long)]
    pub(crate) store: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    #[arg(long)]
    pub(crate) segment_bytes: u64,
    /// A file that takes space at first, and whose removal frees it.
    #[arg(long)]
    pub(crate) ballast: PathBuf,
    /// Close and open the store while the disk is full.
    #[arg(long)]
    pub(crate) reopen: bool,
    /// Delete keys while the disk is full.
    #[arg(long)]
    pub(crate) deletes: bool,
}

/// What a child that tries to open a store is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct AttemptArguments {
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// Open it for reading alone.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Remove its directory once it is open.
    #[arg(long)]
    pub(crate) vanish: bool,
}

/// The durability of a store's commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Sync,
    Deferred,
    Os,
    /// Each transaction has its own.
    Mix,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Sync, Self::Deferred, Self::Os, Self::Mix];

    /// What the store is opened with.
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Sync | Self::Mix => Durability::Sync,
            Self::Deferred => Durability::Deferred(DEFERRED_DELAY),
            Self::Os => Durability::Os,
        }
    }
}

/// How a child that only reads has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reads {
    Shared,
    ReadOnly,
}

/// Faults that a child can have on purpose; the harness must find each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planted {
    /// Says that a commit has returned before it was begun.
    EarlyAcknowledgement,
    /// Commits a batch as two.
    SplitBatch,
    /// Says that it has deleted a key, and has not.
    ForgottenDelete,
    /// Writes what it has never said it would.
    Unannounced,
    /// A reader says that it has seen what was only begun.
    EarlySight,
    /// Leaves a temporary file.
    Leftover,
    /// Removes the oldest segment when a compaction has finished an output that replaces it, before any
    /// manifest says so.
    EarlyRemoval,
    /// Of several processes: reads the clock in one transaction, and moves it on in another.
    LostTurn,
    /// Of several processes: looks at one snapshot for ever.
    OldSight,
    /// Of several processes: does not go on some day.
    Asleep,
}

/// What `value` is called on the command line.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
