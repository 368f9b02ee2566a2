//! `happystore-history-check`: works on a store with several processes, and proves that what they
//! did was strictly serializable. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    happystore_history_check::run()
}
