//! After a crash, however it came, a store holds what it promised and nothing else.
//!
//! A [`workload`] runs on a simulated machine; [`explore`] stops that machine at its crash points
//! and hands each disk to the [`oracle`]; [`exhaustive`] and [`random`] say which workloads.
//! [`planted`] plants bugs that all of this must find.
//!
//! `HAPPYSTORE_SEED` sets the seed of the random tier, `HAPPYSTORE_CRASH_STATES` how many states
//! it goes through.

mod exhaustive;
pub(crate) mod explore;
pub(crate) mod oracle;
mod planted;
mod random;
pub(crate) mod workload;
