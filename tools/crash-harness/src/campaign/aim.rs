//! When and where a child is killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;

/// The kinds of kills, in the order in which they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Random,
    Call,
    FileBytes,
    Point,
    Opening,
    Stopped,
    CompactionPoint,
    Compacting,
    OneOfSeveral,
    Owner,
    StoppedOwner,
    AllAtOnce,
    OpeningOfSeveral,
    CallOfSeveral,
    FileBytesOfSeveral,
    PointOfSeveral,
    CompactionPointOfSeveral,
    CompactingOfSeveral,
}

impl Kind {
    pub(crate) const ALL: [Self; 18] = [
        Self::Random,
        Self::Call,
        Self::FileBytes,
        Self::Point,
        Self::Opening,
        Self::Stopped,
        Self::CompactionPoint,
        Self::Compacting,
        Self::OneOfSeveral,
        Self::Owner,
        Self::StoppedOwner,
        Self::AllAtOnce,
        Self::OpeningOfSeveral,
        Self::CallOfSeveral,
        Self::FileBytesOfSeveral,
        Self::PointOfSeveral,
        Self::CompactionPointOfSeveral,
        Self::CompactingOfSeveral,
    ];

    /// Those of the only process that has a store.
    pub(crate) const ALONE: &[Self] = Self::ALL.split_at(8).0;

    /// Those of one of several processes.
    pub(crate) const OF_SEVERAL: &[Self] = Self::ALL.split_at(8).1;

    /// For people, and for whoever reads the report with a program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "at a random time",
            Self::Call => "at a system call",
            Self::FileBytes => "at a byte of a file",
            Self::Point => "at a named point",
            Self::Opening => "while opening",
            Self::Stopped => "while stopped",
            Self::CompactionPoint => "at a named point of compaction",
            Self::Compacting => "while compacting",
            Self::OneOfSeveral => "beside others, at a random time",
            Self::Owner => "with the writer lock, while others wait",
            Self::StoppedOwner => "with the writer lock or without, after a stop",
            Self::AllAtOnce => "all at once",
            Self::OpeningOfSeveral => "while several open",
            Self::CallOfSeveral => "beside others, at a system call",
            Self::FileBytesOfSeveral => "beside others, at a byte of a file",
            Self::PointOfSeveral => "beside others, at a named point",
            Self::CompactionPointOfSeveral => "beside others, at a named point of compaction",
            Self::CompactingOfSeveral => "beside others, while compacting",
        }
    }

    /// Whether who is killed in this way is known to have the right to compact, and to use it.
    pub(crate) fn is_of_compaction(self) -> bool {
        matches!(
            self,
            Self::CompactionPoint
                | Self::Compacting
                | Self::CompactionPointOfSeveral
                | Self::CompactingOfSeveral
        )
    }
}

/// How one child is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aim {
    /// So long after the store is open, or, of one that is to be killed while opening, after the
    /// child was started.
    Random { after: Duration },
    /// By strace, when any thread makes a call of this name for the n-th time.
    Call { name: &'static str, nth: u32 },
    /// By the kernel, when it writes behind this byte of a file; from this acknowledged commit on.
    FileBytes { most: u64, from: u64 },
    /// By itself, at the n-th hit of a named point.
    Point { name: &'static str, nth: u32 },
    /// As at a random time, but first it is stopped for so long.
    Stopped { after: Duration, pause: Duration },
    /// So long after it was seen to compact, if it still does then.
    Compacting { after: Duration },
}

/// The system calls that each commit makes, and those that come with a segment, an opening or a
/// closing; those the machine does not have are passed over.
const CALLS_OFTEN: &[&str] = &["pwrite64", "fdatasync", "write"];
const CALLS_SELDOM: &[&str] = &[
    "fallocate",
    "fsync",
    "openat",
    "mmap",
    "/^rename",
    "close",
    "flock",
    "munmap",
    "msync",
];

/// Where what strace sees goes.
const NOWHERE: &str = "/dev/null";

/// The points that are hit while a store is opened.
const OPENING_POINTS: &[&str] = &[
    "recovery-settled",
    "recovery-zeroed",
    "manifest-written",
    "manifest-renamed",
];

/// The points that one of several processes comes to while it works; a close or a recovery is not
/// among them: it is seldom the last to leave, or the first to come.
const POINTS_OF_SEVERAL: &[&str] = &[
    "commit-appended",
    "commit-indexed",
    "sync-before",
    "sync-after",
    "roll-over-created",
    "roll-over-listed",
    "manifest-written",
    "manifest-renamed",
];

/// The points at which a process dies and leaves an end of the log that others have to mend, and
/// those that the one comes to who does.
const POINTS_TO_MEND: &[&str] = &[
    "commit-appended",
    "commit-indexed",
    "roll-over-created",
    "roll-over-listed",
    "manifest-renamed",
];
const POINTS_OF_MENDING: &[&str] = &["recovery-zeroed"];

/// What the names of the points begin with at which a process compacts.
const COMPACTION: &str = "compaction-";

/// Other points than those of compaction, or just those.
fn points(of_compaction: bool) -> Vec<&'static str> {
    let all = happystore::FAILPOINTS.iter().copied();
    all.filter(|name| name.starts_with(COMPACTION) == of_compaction)
        .collect()
}

impl Aim {
    /// Aims at two of several processes: one dies with the log's end unfinished, and the other while
    /// it mends that, if it is the next.
    pub(crate) fn at_mending(random: &mut Rng) -> [Self; 2] {
        let name = random.choice(POINTS_TO_MEND).unwrap_or(&"commit-appended");
        let nth = nth(random, 4);
        let mending = POINTS_OF_MENDING[random.usize(..POINTS_OF_MENDING.len())];
        let next = Self::Point {
            name: mending,
            nth: 1,
        };
        [Self::Point { name, nth }, next]
    }

    /// An aim of `kind` at a child that works.
    pub(crate) fn new(kind: Kind, random: &mut Rng, segment_bytes: u64) -> Self {
        match kind {
            Kind::Random
            | Kind::OneOfSeveral
            | Kind::Owner
            | Kind::StoppedOwner
            | Kind::AllAtOnce => Self::Random {
                after: micros(random, 40_000),
            },
            Kind::Call | Kind::CallOfSeveral => call(random),
            Kind::FileBytes | Kind::FileBytesOfSeveral => Self::FileBytes {
                most: random.u64(1..segment_bytes),
                from: random.u64(..60),
            },
            Kind::CompactionPoint => Self::at_compaction(random, 3),
            // The others compact too, and take turns with it.
            Kind::CompactionPointOfSeveral => Self::at_compaction(random, 2),
            Kind::Compacting | Kind::CompactingOfSeveral => Self::Compacting {
                after: micros(random, 2_000),
            },
            Kind::Point => {
                let name = random.choice(points(false)).unwrap_or("commit-appended");
                let digits = match name.split('-').next() {
                    Some("commit" | "sync") => 6,
                    Some("recovery" | "close") => 1,
                    _ => 4,
                };
                Self::Point {
                    name,
                    nth: nth(random, digits),
                }
            }
            Kind::PointOfSeveral => Self::Point {
                name: random.choice(POINTS_OF_SEVERAL).unwrap_or(&"sync-before"),
                nth: nth(random, 5),
            },
            Kind::Opening | Kind::OpeningOfSeveral => Self::while_opening(random, false),
            Kind::Stopped => Self::Stopped {
                after: micros(random, 40_000),
                pause: micros(random, 5_000),
            },
        }
    }

    /// An aim at a child that comes to a point of compaction up to so often, in binary digits.
    pub(crate) fn at_compaction(random: &mut Rng, digits: u32) -> Self {
        let name = random.choice(points(true));
        Self::Point {
            name: name.unwrap_or("compaction-created"),
            nth: nth(random, digits),
        }
    }

    /// The name of the point of compaction that this is at.
    pub(crate) fn compaction_point(&self) -> Option<&'static str> {
        match self {
            Self::Point { name, .. } if name.starts_with(COMPACTION) => Some(name),
            _ => None,
        }
    }

    /// An aim at a child that opens a store after another kill.
    pub(crate) fn while_opening(random: &mut Rng, has_strace: bool) -> Self {
        match random.u8(..8) {
            0..=2 => Self::Point {
                name: random.choice(OPENING_POINTS).unwrap_or(&"recovery-settled"),
                nth: 1,
            },
            3 | 4 if has_strace => call(random),
            5 => Self::FileBytes {
                most: random.u64(..600),
                from: 0,
            },
            _ => Self::Random {
                after: micros(random, 8_000),
            },
        }
    }

    /// What the child is told, and what is put before it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Self::Call { name, nth } = self else {
            let mut command = Command::new(program);
            command.arg("child");
            match self {
                Self::FileBytes { most, from } => {
                    command.args(["--file-bytes-max", &most.to_string()]);
                    command.args(["--limit-from", &from.to_string()]);
                }
                Self::Point { name, nth } => {
                    command.args(["--point", &format!("{name}:{nth}")]);
                }
                _ => {}
            }
            return command;
        };
        let mut command = under_strace(
            &format!("{name}:signal=KILL:when={nth}"),
            name,
            Path::new(NOWHERE),
        );
        command.arg(program).arg("child");
        command
    }
}

/// strace, which does `inject` to each thread of what stands behind it, and writes what it saw of
/// `calls` to `output`.
///
/// Without `--seccomp-bpf`, though it is faster: with it, strace 6.1 loses signals that it is to
/// inject anywhere but at the first call.
pub(crate) fn under_strace(inject: &str, calls: &str, output: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o"]).arg(output);
    command.args(["-e", &format!("trace=?{calls}")]);
    command.args(["-e", &format!("inject=?{inject}")]);
    command
}

/// Whether strace is there and may trace.
pub(crate) fn has_strace() -> bool {
    let mut command = under_strace("flock:error=EIO", "flock", Path::new(NOWHERE));
    let tried = command
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

fn call(random: &mut Rng) -> Aim {
    let often = random.bool();
    let calls = if often { CALLS_OFTEN } else { CALLS_SELDOM };
    let name = *random.choice(calls).unwrap_or(&"pwrite64");
    let digits = match name {
        // The loader makes dozens of these before the program begins.
        "mmap" | "openat" | "close" => 7,
        _ if often => 6,
        _ => 3,
    };
    Aim::Call {
        name,
        nth: nth(random, digits),
    }
}

/// A number from 1 on, small ones more often: as many of each number of binary digits.
fn nth(random: &mut Rng, bits: u32) -> u32 {
    let digits = random.u32(..bits);
    random.u32(1..=1 << digits)
}

fn micros(random: &mut Rng, most: u64) -> Duration {
    Duration::from_micros(random.u64(..most))
}
