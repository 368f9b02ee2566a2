//! Looking after a store: figures, and checking all of it.

mod stats;
mod verify;

pub use stats::Stats;
pub(crate) use stats::stats;
pub use verify::VerifyReport;
pub(crate) use verify::verify;
