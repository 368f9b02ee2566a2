//! The clock that all processes of a machine share, which no adjustment moves.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment, the same for all processes.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits for a moment: asleep, and awake in the last millisecond.
pub fn wait_until(moment_ns: u64) {
    let left = moment_ns.saturating_sub(now_ns());
    std::thread::sleep(Duration::from_nanos(left.saturating_sub(1_000_000)));
    while now_ns() < moment_ns {
        std::hint::spin_loop();
    }
}
