//! The judges refuse every broken history, and find nothing in what the store did.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

mod black_box;
mod broken;
mod exhaustive;
mod runs;
mod simulated;
