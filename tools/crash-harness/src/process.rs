//! A child process as its parent sees it: what it reports, and how it ends.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::protocol::Event;

/// A running child. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    events: Vec<Event>,
    /// The worker itself, which strace may stand before.
    worker: Option<Pid>,
    is_killed: bool,
    /// Whether the pipe has ended, and with it all that wrote into it.
    is_over: bool,
}

/// A child that has ended.
pub(crate) struct Ended {
    /// All that it reported, in order.
    pub(crate) events: Vec<Event>,
    /// Whether its end came before its parent sent a signal.
    pub(crate) died_by_itself: bool,
    status: ExitStatus,
}

impl Ended {
    /// The signal that ended it; strace ends by the signal that ended its child.
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.status.signal().and_then(Signal::from_named_raw)
    }

    /// How it ended, for people.
    pub(crate) fn how(&self) -> String {
        self.status.to_string()
    }
}

impl Running {
    /// Starts `command`; what it writes to its standard error is added to the file `errors`.
    ///
    /// # Errors
    /// What the machine says.
    pub(crate) fn start(mut command: Command, errors: &Path) -> io::Result<Self> {
        let errors = File::options().create(true).append(true).open(errors)?;
        let mut child = command
            // Who interrupts the program means the program alone.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self {
            child,
            lines,
            events: Vec::new(),
            worker: None,
            is_killed: false,
            is_over: false,
        })
    }

    /// Waits for an event of the child; false if it did not come by `deadline`, or will not.
    pub(crate) fn wait_for(&mut self, deadline: Instant, wanted: fn(&Event) -> bool) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let event = self.take(&line);
                    if wanted(&event) {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_over = true;
                    return false;
                }
            }
        }
    }

    /// Waits until the child has ended; false if it has not by `deadline`.
    pub(crate) fn wait_for_end(&mut self, deadline: Instant) -> bool {
        self.wait_for(deadline, |_| false);
        self.is_over
    }

    /// The worker's process, once it has said so.
    pub(crate) fn worker(&self) -> Option<Pid> {
        self.worker
    }

    /// Sends `signal` to the worker, if it lives.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_over {
            return;
        }
        self.is_killed = true;
        // If it has ended already there is nothing to do.
        let _ = match self.worker {
            Some(worker) => kill_process(worker, signal).map_err(io::Error::from),
            None => self.child.kill(),
        };
    }

    /// Waits for the end of the child, which comes: it was killed, or ends by itself.
    ///
    /// # Errors
    /// What the machine says.
    pub(crate) fn finish(mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        while let Ok(line) = self.lines.recv() {
            self.take(&line);
        }
        let events = std::mem::take(&mut self.events);
        Ok(Ended {
            events,
            died_by_itself: !self.is_killed,
            status,
        })
    }

    fn take(&mut self, line: &str) -> Event {
        let event = line
            .parse()
            .unwrap_or_else(|()| Event::Broken(format!("a child says {line:?}")));
        if let Event::Hello(process_id) = event {
            self.worker = i32::try_from(process_id).ok().and_then(Pid::from_raw);
        }
        self.events.push(event.clone());
        event
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // OK because a child that has ended, and was waited for, is left alone by these.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
