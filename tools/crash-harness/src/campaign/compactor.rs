//! Who compacts a store at this moment.
//!
//! Whoever has the right to compact holds a lock on the file `COMPACT` meanwhile. Who holds it is read
//! from the kernel's list of locks. Trying the lock would tell as much, and keep a child from getting
//! it for so long, which then looks again only after a second.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Where the kernel lists all locks.
const LOCKS: &str = "/proc/locks";

/// How long a child may take until all its threads stand still.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Whether this machine says who holds a lock.
pub(super) fn is_known() -> bool {
    fs::read_to_string(LOCKS).is_ok()
}

/// The process that has the right to compact `store`, if any has.
pub(super) fn of(store: &Path) -> Option<Pid> {
    let file = fs::metadata(store.join("COMPACT")).ok()?.ino().to_string();
    let locks = fs::read_to_string(LOCKS).ok()?;
    locks.lines().find_map(|line| holder(line, &file))
}

/// Who holds the lock of this line, if it is one on the file of this number:
/// `5: FLOCK  ADVISORY  WRITE 4711 fe:00:60912 0 EOF`. A store's files and those of others may have the
/// same number, on different devices; then the holder is no child that works on this store.
fn holder(line: &str, file: &str) -> Option<Pid> {
    let mut words = line.split_whitespace();
    let of_whom = [words.nth(1)?, words.nth(1)?];
    let (process_id, place) = (words.next()?, words.next()?);
    let is_it = of_whom == ["FLOCK", "WRITE"] && place.rsplit(':').next() == Some(file);
    is_it.then(|| Pid::from_raw(process_id.parse().ok()?))?
}

/// Stops `child`, if it still compacts `store` then: once all its threads stand still the lock says so
/// for certain. Otherwise it goes on.
pub(super) fn stop(child: Pid, store: &Path) -> bool {
    // If it has ended already there is nothing to do.
    if kill_process(child, Signal::STOP).is_err() {
        return false;
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    while !matches!(waitid(WaitId::Pid(child), options), Ok(Some(_))) {
        // One that has died does not stop any more.
        if Instant::now() >= deadline || has_ended(child) {
            return false;
        }
        thread::sleep(Duration::from_micros(50));
    }
    if of(store) == Some(child) {
        return true;
    }
    let _ = kill_process(child, Signal::CONT);
    false
}

/// Whether it is dead, though nobody has waited for its end yet.
fn has_ended(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(child), options), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::{Pid, holder};

    #[test]
    fn the_holder_of_a_lock_is_read_from_its_line() {
        let of = |line| holder(line, "60912").map(Pid::as_raw_pid);
        assert_eq!(
            of("5: FLOCK  ADVISORY  WRITE 4711 fe:00:60912 0 EOF"),
            Some(4711)
        );
        assert_eq!(of("5: FLOCK  ADVISORY  READ 4711 fe:00:60912 0 EOF"), None);
        assert_eq!(
            of("5: -> FLOCK  ADVISORY  WRITE 4711 fe:00:60912 0 EOF"),
            None
        );
        assert_eq!(of("5: POSIX  ADVISORY  WRITE 4711 fe:00:60912 0 EOF"), None);
        assert_eq!(of("5: FLOCK  ADVISORY  WRITE 4711 fe:00:6091 0 EOF"), None);
        assert_eq!(of("nothing"), None);
    }
}
