//! Looking after a store: figures, checking all of it, copies of it.

mod backup;
mod dump;
mod holders;
mod salvage;
mod segments;
mod stats;
mod verify;

pub use backup::BackupReport;
pub(crate) use backup::backup;
pub use dump::{Dump, DumpedEntry, DumpedKind, dump};
pub use holders::Holders;
pub(crate) use holders::holders;
pub use salvage::{LostBytes, SalvageReport, salvage};
pub use segments::SegmentStats;
pub(crate) use segments::segments;
pub use stats::Stats;
pub(crate) use stats::stats;
pub use verify::VerifyReport;
pub(crate) use verify::verify;
