//! The synchronization that group commit is made of; its model check puts other types here.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many waiters are woken by one: enough to keep processors busy, so few that nobody does it
/// for all. The model check has too few threads for more than one.
pub(crate) const WAKE_AT_ONCE: usize = 8;
