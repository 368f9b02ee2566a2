//! Runs one child under a fault, and checks the store afterwards, without one.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::arguments::SuperviseArguments;
use crate::campaign::aim::under_strace;
use crate::campaign::report;
use crate::oracle::check::Found;
use crate::oracle::{Broken, History};
use crate::process::{Ended, Running};
use crate::protocol::Event;

/// How long a child may take: it works for a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the child that `arguments` ask for, and says how it went.
pub(crate) fn run(arguments: &SuperviseArguments) -> ExitCode {
    let (ended, fired, errors) = match start_and_wait(arguments) {
        Ok(ended) => ended,
        Err(error) => return crate::cannot(format!("run a child: {error}")),
    };
    report::line(format!("fired: {fired}"));
    for event in &ended.events {
        if let Event::Done(text) = event {
            report::line(format!("done {text}"));
        }
    }
    match check(arguments, &ended) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Broken(what)) => {
            report::line(format!("BROKEN: {what}; {}", errors.trim()));
            ExitCode::from(crate::EXIT_BROKEN)
        }
    }
}

/// The child's end, how many calls strace made fail, and what the child wrote to its standard
/// error.
fn start_and_wait(arguments: &SuperviseArguments) -> io::Result<(Ended, usize, String)> {
    let scratch = tempfile::tempdir()?;
    let [errors, trace] = ["errors", "trace"].map(|name| scratch.path().join(name));
    let mut running = Running::start(command(arguments, &trace)?, &errors)?;
    if !running.wait_for_end(Instant::now() + PATIENCE) {
        running.signal(Signal::KILL);
    }
    let ended = running.finish()?;
    let fired = match &arguments.inject {
        Some(_) => std::fs::read_to_string(trace)?
            .matches("(INJECTED)")
            .count(),
        None => 0,
    };
    Ok((ended, fired, std::fs::read_to_string(errors)?))
}

/// The child's command line, behind what makes its calls fail.
fn command(arguments: &SuperviseArguments, trace: &Path) -> io::Result<Command> {
    let program = std::env::current_exe()?;
    let mut command = if let Some(inject) = &arguments.inject {
        let calls = inject.split(':').next().unwrap_or_default();
        let mut command = under_strace(inject, calls, trace);
        for file in &arguments.file {
            command.arg("-P").arg(arguments.child.store.join(file));
        }
        command
    } else {
        // A signal that is ignored stays so over `exec`; without it a write behind the limit of a
        // file's size is an error, and no end of the process.
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        shell
    };
    command.arg(program).arg("fault");
    command.args(arguments.child.to_args());
    Ok(command)
}

fn check(arguments: &SuperviseArguments, ended: &Ended) -> Result<(), Broken> {
    let mut history = History::new(arguments.child.seed);
    history.take(&ended.events)?;
    if !ended.died_by_itself {
        return Broken::new(format!("the child hangs after {:?}", ended.events.last()));
    }
    if !matches!(ended.events.last(), Some(Event::Done(_))) {
        return Broken::new(format!("the child ended early: {}", ended.how()));
    }
    let found = Found {
        is_alone: true,
        path: &arguments.child.store,
        mode: arguments.child.mode,
        segment_bytes: arguments.child.segment_bytes,
    };
    history.check_by_reading(found)?;
    history.check_by_writing(found)
}
