//! Named points at which a test may stop or kill the process; nothing in a normal build.
//!
//! They stand where a crash leaves something of its own behind: between an append and its sync,
//! between the steps of a roll-over, inside a recovery, inside a compaction. Only a build with the
//! feature `failpoints` looks whether one is armed (with the crate `fail`); the crash harness arms them.

/// The names of all points, in the order in which a store comes to them; those that begin with
/// `compaction-` come up only in whoever has the right to compact.
#[cfg(feature = "failpoints")]
pub const FAILPOINTS: &[&str] = &[
    "recovery-settled",
    "recovery-zeroed",
    "manifest-written",
    "manifest-renamed",
    "roll-over-created",
    "roll-over-listed",
    "commit-appended",
    "commit-indexed",
    "sync-before",
    "sync-after",
    "compaction-created",
    "compaction-written",
    "compaction-hints-written",
    "compaction-finished",
    "compaction-listed",
    "compaction-retired",
    "compaction-removing",
    "close-synced",
    "close-marked",
];

/// Does nothing, or what a test has armed at the point of this name.
macro_rules! hit {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        {
            debug_assert!($crate::failpoint::FAILPOINTS.contains(&$name));
            fail::fail_point!($name);
        }
    };
}
pub(crate) use hit;
