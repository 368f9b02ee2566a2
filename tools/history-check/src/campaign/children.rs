//! The children: started, watched, killed and replaced.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;

use crate::arguments::{CampaignArguments, ChildArguments};
use crate::workload::history_file;

/// How often is looked after the children.
const LOOK: Duration = Duration::from_millis(5);

/// Without anything written for so long, they hang.
const HANG: Duration = Duration::from_mins(2);

/// How long the processes go on between two kills, at most.
const KILL_PAUSE_MS_MAX: u64 = 60;

/// How many transactions a thread still does, after a kill or to be killed, at least.
const REST_MIN: u64 = 500;

/// A running child.
struct Running {
    child: Child,
    process: u32,
    /// How many transactions each of its threads is to do.
    transactions: u64,
}

/// All of them.
pub(super) struct Children {
    arguments: ChildArguments,
    running: Vec<Running>,
    random: Rng,
    processes: u32,
    share: u64,
    kills_wanted: u64,
    kills: u64,
    started: u32,
}

impl Children {
    pub(super) fn new(wanted: &CampaignArguments, arguments: ChildArguments) -> Self {
        let threads = u64::from(wanted.processes) * u64::from(wanted.threads);
        Self {
            random: Rng::with_seed(arguments.seed),
            arguments,
            running: Vec::new(),
            processes: wanted.processes,
            share: wanted.transactions.div_ceil(threads),
            kills_wanted: wanted.kills,
            kills: 0,
            started: 0,
        }
    }

    /// How many children there were; they are numbered from 1.
    pub(super) fn started(&self) -> u32 {
        self.started
    }

    /// How many were killed.
    pub(super) fn kills(&self) -> u64 {
        self.kills
    }

    /// Lets them work until all is done, and all kills were made.
    ///
    /// # Errors
    /// What a child said that failed, or that they hang.
    pub(super) fn work(&mut self) -> Result<(), String> {
        for _ in 0..self.processes {
            self.start(self.share)?;
        }
        let mut progress = (0, Instant::now());
        let mut next_kill = self.next_kill();
        while !self.running.is_empty() {
            sleep(LOOK);
            self.collect()?;
            if self.kills < self.kills_wanted && Instant::now() >= next_kill {
                self.kill_one()?;
                next_kill = self.next_kill();
            }
            let written = self.written();
            if written != progress.0 {
                progress = (written, Instant::now());
            } else if progress.1.elapsed() > HANG {
                return Err(format!("the processes hang: nothing was done for {HANG:?}"));
            }
        }
        Ok(())
    }

    fn next_kill(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.random.u64(1..=KILL_PAUSE_MS_MAX))
    }

    fn start(&mut self, transactions: u64) -> Result<(), String> {
        self.started += 1;
        let arguments = ChildArguments {
            process: self.started,
            transactions,
            ..self.arguments.clone()
        };
        let child = spawn(&arguments).map_err(|error| format!("cannot start a child: {error}"))?;
        self.running.push(Running {
            child,
            process: self.started,
            transactions,
        });
        Ok(())
    }

    /// Takes note of those that have ended; while kills are wanted, others take their places.
    fn collect(&mut self) -> Result<(), String> {
        let mut at = 0;
        while at < self.running.len() {
            let running = &mut self.running[at];
            let ended = running.child.try_wait();
            let Some(status) =
                ended.map_err(|error| format!("cannot wait for a child: {error}"))?
            else {
                at += 1;
                continue;
            };
            let mut ended = self.running.swap_remove(at);
            if !status.success() {
                return Err(said(&mut ended.child, status));
            }
            if self.kills < self.kills_wanted {
                self.start(REST_MIN)?;
            }
        }
        Ok(())
    }

    /// Kills one at random; another one does what it has left.
    fn kill_one(&mut self) -> Result<(), String> {
        let at = self.random.usize(..self.running.len());
        let mut running = self.running.swap_remove(at);
        // If it has just ended there is nothing to kill.
        let _ = running.child.kill();
        let status = running.child.wait();
        let status = status.map_err(|error| format!("cannot wait for a child: {error}"))?;
        if status.code().is_some_and(|code| code != 0) {
            return Err(said(&mut running.child, status));
        }
        self.kills += u64::from(!status.success());
        let rest = running
            .transactions
            .saturating_sub(self.done(running.process));
        self.start(rest.max(REST_MIN))
    }

    /// How many transactions the threads of a process have done, on average.
    fn done(&self, process: u32) -> u64 {
        let lines = |thread| {
            let path = history_file(&self.arguments.scratch, process, thread);
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().count() as u64 / 2
        };
        let all: u64 = (0..self.arguments.threads).map(lines).sum();
        all / u64::from(self.arguments.threads)
    }

    /// How many bytes of history those have written that run.
    fn written(&self) -> u64 {
        let files = self.running.iter().flat_map(|running| {
            let thread = |thread| history_file(&self.arguments.scratch, running.process, thread);
            (0..self.arguments.threads).map(thread)
        });
        let bytes = files.map(|path| path.metadata().map_or(0, |metadata| metadata.len()));
        // Who takes a place has a number of its own, so that a change is seen.
        bytes.sum::<u64>() + u64::from(self.started)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for running in &mut self.running {
            // OK because one that has ended by itself needs no more.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

fn spawn(arguments: &ChildArguments) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child");
    command.arg("--scratch").arg(&arguments.scratch);
    let numbers = [
        ("--seed", arguments.seed.to_string()),
        ("--process", arguments.process.to_string()),
        ("--threads", arguments.threads.to_string()),
        ("--transactions", arguments.transactions.to_string()),
        (
            "--sync-per-thousand",
            arguments.sync_per_thousand.to_string(),
        ),
    ];
    for (name, number) in numbers {
        command.arg(name).arg(number);
    }
    if arguments.pauses {
        command.arg("--pauses");
    }
    if let Some(planted) = arguments.planted.and_then(|it| it.to_possible_value()) {
        command.args(["--planted", planted.get_name()]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// What a child that has failed said, and how it ended.
fn said(child: &mut Child, status: ExitStatus) -> String {
    let mut text = String::new();
    if let Some(errors) = &mut child.stderr {
        // What cannot be read is left out; how it ended is said all the same.
        let _ = errors.read_to_string(&mut text);
    }
    format!("a child has ended with {status}: {}", text.trim())
}
