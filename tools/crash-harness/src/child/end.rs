//! How a child ends itself: at a byte of a file, at a named point of the store's code.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use crate::arguments::ChildArguments;

/// Arms what `arguments` ask for before the store is opened.
///
/// # Errors
/// What could not be armed, for people.
pub(super) fn prepare(arguments: &ChildArguments) -> Result<(), String> {
    // Thousands of deaths would leave thousands of core files.
    limit(Resource::Core, 0)?;
    if arguments.limit_from == 0 {
        limit_files(arguments)?;
    }
    match &arguments.point {
        Some(point) => arm(point),
        None => Ok(()),
    }
}

/// From now on writing behind the byte that `arguments` name ends this process with SIGXFSZ.
///
/// # Errors
/// What the machine says, for people.
pub(super) fn limit_files(arguments: &ChildArguments) -> Result<(), String> {
    arguments
        .file_bytes_max
        .map_or(Ok(()), |bytes| limit(Resource::Fsize, bytes))
}

fn limit(resource: Resource, most: u64) -> Result<(), String> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).map_err(|error| format!("limit {resource:?} to {most}: {error}"))
}

/// Ends this process at the n-th hit of a point, as `name:n` says.
fn arm(point: &str) -> Result<(), String> {
    let wrong = || format!("arm the point {point:?}: it is not one, or has no number");
    let (name, nth) = point.split_once(':').ok_or_else(wrong)?;
    let nth: u64 = nth.parse().map_err(|_| wrong())?;
    if !happystore::FAILPOINTS.contains(&name) {
        return Err(wrong());
    }
    let hits = AtomicU64::new(0);
    fail::cfg_callback(name, move || {
        if hits.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            die();
        }
    })
}

/// Ends this process as if it were killed from outside.
fn die() {
    // OK because a signal to oneself is delivered before the call returns.
    let _ = kill_process(getpid(), Signal::KILL);
}
