//! Looking after a store: figures, and checking all of it.

mod stats;
mod verify;

pub(crate) use stats::stats;
pub use stats::Stats;
pub(crate) use verify::verify;
pub use verify::VerifyReport;
