//! `happystore-crash-harness`: kills processes that write to a store, and checks what is left.
//!
//! A parent starts children ([`process`]), which work on a store ([`child`]) as their seed says
//! ([`work`]), and report to it ([`protocol`]). It kills them ([`campaign`]) and compares what is
//! found with what was reported ([`oracle`]). Only the public face of `happystore` is used.
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own has clocks, files and threads; the library's are behind its vfs"
)]

mod arguments;
mod campaign;
mod child;
mod faults;
mod oracle;
mod process;
mod protocol;
mod work;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Role};

/// A promise of the store was broken.
const EXIT_BROKEN: u8 = 1;

/// Wrong arguments, or a machine that does not let the harness work.
const EXIT_CANNOT: u8 = 2;

/// It was interrupted before it was done.
const EXIT_INTERRUPTED: u8 = 130;

/// A child whose parent is gone.
const EXIT_ORPHAN: i32 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.role {
        None => campaign::run(&arguments.campaign),
        Some(Role::Child(arguments)) => child::run(arguments),
        Some(Role::Fault(arguments)) => faults::worker::run(arguments),
        Some(Role::Supervise(arguments)) => faults::supervise::run(arguments),
        Some(Role::FullDisk(arguments)) => faults::full_disk::run(arguments),
        Some(Role::Attempt(arguments)) => faults::attempt::run(arguments),
    }
}

/// Says what cannot be done, and how the process ends because of it.
fn cannot(what: impl std::fmt::Display) -> ExitCode {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "happystore-crash-harness: cannot {what}");
    ExitCode::from(EXIT_CANNOT)
}
