//! Proves that what several processes did on one store was strictly serializable.
//!
//! A parent starts children (`campaign`), which work on a store (`workload`) and write down what
//! they did ([`history`], as [`text`]); it may kill some. Two judges read that: the witness
//! [`checker`], which knows in which order the transactions claim to stand and performs them
//! again, queries included; and a [`black_box`] that trusts no claim and looks for cycles. Only
//! the public face of `happystore` is used.
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own has clocks, files and threads; the library's are behind its vfs"
)]

mod arguments;
pub mod black_box;
mod campaign;
pub mod checker;
pub mod history;
pub mod text;
mod workload;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Role};

/// A promise of the store was broken.
const EXIT_BROKEN: u8 = 1;

/// Wrong arguments, or a machine that does not let the program work.
const EXIT_CANNOT: u8 = 2;

/// Does what the arguments of this process ask for.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.role {
        None => campaign::run(&arguments.campaign),
        Some(Role::Child(arguments)) => workload::run(arguments),
    };
    result.unwrap_or_else(|what| {
        // Nobody may be listening.
        let _ = writeln!(io::stderr(), "happystore-history-check: {what}");
        ExitCode::from(EXIT_CANNOT)
    })
}
