//! The promises of the store, kept: one binary, a module for each promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

mod damage;
mod file_index;
mod format_golden;
mod model;
mod processes;
mod smoke;
