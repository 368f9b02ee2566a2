//! The promises of the store, kept: one binary, a module for each promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

mod automatic;
mod backup;
mod backup_between;
mod backup_crash;
mod basics;
mod clients;
mod closing;
mod compaction;
mod compaction_kills;
mod crash;
mod damage;
mod disk_full;
mod faults;
mod file_index;
mod format_golden;
mod injected;
mod iterators;
mod late_wake;
mod model;
mod nesting;
mod opening;
mod panics;
mod process_cases;
mod process_guards;
mod process_kills;
mod processes;
mod queries;
mod salvage;
mod semantics;
mod serializers;
mod snapshots;
mod support;
mod threads;
mod transactions;
mod walkthrough;
