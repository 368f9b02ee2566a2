//! The harness as a program: it kills and finds nothing, and finds what is broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

mod arguments;
mod faults;
mod kills;
mod several;
mod support;
