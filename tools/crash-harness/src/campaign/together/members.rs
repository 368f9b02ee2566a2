//! The processes that work on one store, as their parent sees them.
//!
//! All of them report into one pipe, so what they say is in one order. A thread waits for the end of
//! each and says so in the same pipe, behind everything that the dead one said.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::super::aim::{Aim, Kind};
use super::super::compactor;
use crate::arguments::Reads;
use crate::protocol::Event;

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes, in this place among those who do.
    Writer(u8),
    Reader(Reads),
}

/// How a process is to die, unless its parent ends it otherwise.
#[derive(Debug, Clone)]
pub(super) struct Fate {
    pub(super) aim: Aim,
    /// How its death counts, if it is the one that is aimed at.
    pub(super) kind: Kind,
    /// In which of its shared operations it keeps the writer lock for ever.
    pub(super) hold_at: Option<u64>,
}

/// Who says what the parent itself does: no child has this number.
pub(super) const PARENT: u16 = u16::MAX;

/// A process that was started.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that has happened to it or not, apart from the others"
)]
pub(super) struct Member {
    pub(super) life: u16,
    pub(super) role: Role,
    pub(super) fate: Fate,
    child: Child,
    /// The worker itself, which strace may stand before.
    pub(super) worker: Option<Pid>,
    /// Whether it has had the store open.
    pub(super) was_open: bool,
    /// Whether it keeps the writer lock for ever.
    pub(super) holds: bool,
    pub(super) is_stopped: bool,
    /// Whether its parent has killed it.
    pub(super) is_killed: bool,
    pub(super) is_ended: bool,
    /// Whether it was stopped while it compacted, and is going to die there.
    pub(super) is_caught: bool,
    /// How many of its operations are begun, and have not ended.
    pub(super) in_flight: usize,
    /// Since the last death: whether a commit has returned, whether a look has begun and ended.
    pub(super) went_on: bool,
    looking: bool,
    pub(super) has_looked: bool,
}

impl Member {
    /// Whether it is a process that writes, and lives.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.role, Role::Writer(_)) && !self.is_ended
    }

    /// Whether it must go on, whatever happens to others.
    pub(super) fn is_well(&self) -> bool {
        !self.is_ended && !self.is_killed && !self.is_stopped && !self.holds
    }

    /// Begins to wait for a sign that it goes on.
    pub(super) fn watch_for_signs(&mut self) {
        self.went_on = matches!(self.role, Role::Reader(_));
        self.looking = false;
        self.has_looked = false;
    }

    /// Takes note of what it says.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Hello(process_id) => {
                self.worker = i32::try_from(*process_id).ok().and_then(Pid::from_raw);
            }
            Event::Opened => self.was_open = true,
            Event::Begun(_) => self.in_flight += 1,
            Event::Acked(..) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.went_on = true;
            }
            Event::Refused(..) => self.in_flight = self.in_flight.saturating_sub(1),
            Event::Holds(_) => self.holds = true,
            Event::Looking => self.looking = true,
            Event::Saw(..) => self.has_looked |= self.looking,
            Event::Ended => self.is_ended = true,
            _ => {}
        }
    }

    /// Sends `signal` to the worker, if it lives.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.is_ended {
            return;
        }
        match signal {
            Signal::KILL => self.is_killed = true,
            Signal::STOP => self.is_stopped = true,
            _ => self.is_stopped = false,
        }
        // If it has ended already there is nothing to do.
        let _ = match self.worker {
            Some(worker) => kill_process(worker, signal).map_err(io::Error::from),
            None => self.child.kill(),
        };
    }

    /// Whether a signal to it would reach strace instead, which would leave it alone with the store.
    pub(super) fn is_hidden(&self) -> bool {
        !self.is_ended && self.worker.is_none() && matches!(self.fate.aim, Aim::Call { .. })
    }

    /// The signal that ended it, once it has ended; else how it ended, for people.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn ending(&mut self) -> io::Result<Result<Signal, String>> {
        let status = self.child.wait()?;
        let signal = status.signal().and_then(Signal::from_named_raw);
        Ok(signal.ok_or_else(|| status.to_string()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // OK because a child that has ended, and was waited for, is left alone by these.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes of a store that live, and their pipe.
pub(super) struct Members {
    pub(super) all: Vec<Member>,
    lines: Receiver<String>,
    pipe: PipeWriter,
}

impl Members {
    /// Nobody yet.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn new() -> io::Result<Self> {
        let (output, pipe) = io::pipe()?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            all: Vec::new(),
            lines,
            pipe,
        })
    }

    /// Starts `command`; what it writes to its standard error is added to the file `errors`.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn start(
        &mut self,
        mut command: Command,
        life: u16,
        role: Role,
        fate: Fate,
        errors: &Path,
    ) -> io::Result<()> {
        let errors = File::options().create(true).append(true).open(errors)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(self.pipe.try_clone()?)
            .stderr(errors)
            .spawn()?;
        let process_id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut pipe = self.pipe.try_clone()?;
        thread::spawn(move || {
            if let Some(process_id) = process_id {
                // It is not taken from the machine's list yet, so its number is nobody else's.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while waitid(WaitId::Pid(process_id), options).is_err_and(|e| e == Errno::INTR) {}
            }
            // Nobody reads any more if the store is done with.
            let _ = pipe.write_all(format!("{life} {}\n", Event::Ended).as_bytes());
        });
        self.all.push(Member {
            life,
            role,
            fate,
            child,
            worker: None,
            was_open: false,
            holds: false,
            is_stopped: false,
            is_killed: false,
            is_ended: false,
            is_caught: false,
            in_flight: 0,
            went_on: false,
            looking: false,
            has_looked: false,
        });
        Ok(())
    }

    /// The next line, if one comes by `deadline`: who said it, and what.
    pub(super) fn next(&self, deadline: Instant) -> Option<Result<(u16, Event), String>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = if left == Duration::ZERO {
            self.lines.try_recv().ok()?
        } else {
            self.lines.recv_timeout(left).ok()?
        };
        let parsed = line
            .split_once(' ')
            .and_then(|(life, event)| Some((life.parse().ok()?, event.parse().ok()?)));
        Some(parsed.ok_or(line))
    }

    /// Says in the pipe that what the parent has found is settled.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn settled(&mut self) -> io::Result<()> {
        let line = format!("{PARENT} {}\n", Event::Settled);
        self.pipe.write_all(line.as_bytes())
    }

    pub(super) fn get(&mut self, life: u16) -> Option<&mut Member> {
        self.all.iter_mut().find(|member| member.life == life)
    }

    /// Who compacts `store` at this moment, and the process.
    pub(super) fn compacting(&self, store: &Path) -> Option<(u16, Pid)> {
        let process = compactor::of(store)?;
        let mut all = self.all.iter();
        let member = all.find(|member| member.worker == Some(process) && member.is_well())?;
        Some((member.life, process))
    }

    /// The lives of all who write.
    pub(super) fn writing(&self) -> Vec<u16> {
        let writing = self.all.iter().filter(|member| member.is_writing());
        writing.map(|member| member.life).collect()
    }
}
