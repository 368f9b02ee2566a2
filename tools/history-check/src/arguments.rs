//! What the program can be asked: by people, and, out of their sight, by itself for its children.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Works on one store with several processes, and proves that it was strictly serializable.
///
/// Each process has several threads, which increment, transfer, append to lists, insert, delete
/// and query ranges of keys, in transactions and nested ones, committed and aborted, from
/// snapshots, iterators and single reads. All of them write down what they were answered, and when.
///
/// Afterwards two judges read that. The first knows the order in which the transactions claim to
/// stand, because each that writes counts up one key: it performs them again in that order, and
/// compares every answer, what is in the store in the end, and real time. The second trusts no
/// claim, and looks for cycles among the transactions that append to lists.
///
/// Exit code: 0 if the history is strictly serializable, 1 if it is not or a call of the store
/// failed, 2 if this could not be tried.
#[derive(Debug, Parser)]
#[command(
    name = "happystore-history-check",
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
    /// Works on a store; started by the parent.
    #[command(hide = true)]
    Child(ChildArguments),
}

/// What people ask for.
#[derive(Debug, Clone, Args)]
pub(crate) struct CampaignArguments {
    /// What is done follows from this number, but for how it overlaps; a random one if missing
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many processes work on the store at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// How many threads each of them has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// How many transactions all of them do together, at least
    #[arg(long, default_value_t = 200_000)]
    pub(crate) transactions: u64,
    /// How many of the processes are killed, and replaced, in between
    #[arg(long, default_value_t = 0)]
    pub(crate) kills: u64,
    /// Where the store and the histories are made; the machine's directory for temporary files if
    /// missing
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Keep the store and the histories, not only broken ones
    #[arg(long)]
    pub(crate) keep: bool,
    /// A fault that the children have, to see it found
    #[arg(long, value_enum, hide = true)]
    pub(crate) planted: Option<Planted>,
}

/// What a child is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChildArguments {
    /// Where the store and the histories are.
    #[arg(long)]
    pub(crate) scratch: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
    /// How many processes there were before this one.
    #[arg(long)]
    pub(crate) process: u32,
    #[arg(long)]
    pub(crate) threads: u32,
    /// How many transactions each thread does.
    #[arg(long)]
    pub(crate) transactions: u64,
    /// Of how many thousand commits one waits for the disk.
    #[arg(long)]
    pub(crate) sync_per_thousand: u32,
    /// Wait before some commits, to be killed there.
    #[arg(long)]
    pub(crate) pauses: bool,
    #[arg(long, value_enum)]
    pub(crate) planted: Option<Planted>,
}

/// Faults that the children can have on purpose; the judges must find each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planted {
    /// Single reads are answered from an old snapshot.
    StaleRead,
    /// What a transaction builds on was read before it began.
    LostUpdate,
    /// A write that no transaction tells of.
    HiddenWrite,
    /// What is said to be rolled back is committed.
    CommittedAbort,
}
