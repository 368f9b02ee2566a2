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
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Random,
        Self::Call,
        Self::FileBytes,
        Self::Point,
        Self::Opening,
        Self::Stopped,
    ];

    /// For people, and for whoever reads the report with a program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "at a random time",
            Self::Call => "at a system call",
            Self::FileBytes => "at a byte of a file",
            Self::Point => "at a named point",
            Self::Opening => "while opening",
            Self::Stopped => "while stopped",
        }
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

impl Aim {
    /// An aim of `kind` at a child that works.
    pub(crate) fn new(kind: Kind, random: &mut Rng, segment_bytes: u64) -> Self {
        match kind {
            Kind::Random => Self::Random {
                after: micros(random, 40_000),
            },
            Kind::Call => call(random),
            Kind::FileBytes => Self::FileBytes {
                most: random.u64(1..segment_bytes),
                from: random.u64(..60),
            },
            Kind::Point => {
                let points = happystore::FAILPOINTS;
                let name = random.choice(points).unwrap_or(&"commit-appended");
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
            Kind::Opening => Self::while_opening(random, false),
            Kind::Stopped => Self::Stopped {
                after: micros(random, 40_000),
                pause: micros(random, 5_000),
            },
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
