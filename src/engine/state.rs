//! Who holds the writer lock, for messages: words of the page of `STATE`.
//!
//! They mean nothing without a living process that holds `LOCK`: they are written after the lock
//! was taken, and read only by those who waited for it in vain.
//!
//! | word | what |
//! |---:|---|
//! | 11 | the holder's process id, or 0 |
//! | 12 | when its turn began, in nanoseconds of the machine's monotonic clock |
//! | 13 | length of its label in bytes |
//! | 56 … 63 | the label, 8 bytes a word, little-endian |

use std::time::Duration;

use crate::error::Holder;
use crate::limits::LABEL_BYTES_MAX;
use crate::vfs::{SHARED_WORDS, SharedPage, Vfs};

const PROCESS_ID: usize = 11;
const SINCE: usize = 12;
const LABEL_BYTES: usize = 13;
const LABEL: usize = 56;
const LABEL_WORDS: usize = LABEL_BYTES_MAX.div_ceil(8);

const _: () = assert!(LABEL + LABEL_WORDS <= SHARED_WORDS);

/// Writes this process into the page.
pub(super) fn write_holder(page: &dyn SharedPage, vfs: &dyn Vfs, label: &str) {
    let label = &label.as_bytes()[..label.len().min(LABEL_BYTES_MAX)];
    page.store(PROCESS_ID, 0);
    for (index, chunk) in label.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        page.store(LABEL + index, u64::from_le_bytes(word));
    }
    page.store(LABEL_BYTES, label.len() as u64);
    page.store(PROCESS_ID, u64::from(vfs.process_id()));
}

/// Writes when this process's turn began.
pub(super) fn write_since(page: &dyn SharedPage, since: Duration) {
    page.release(SINCE, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
}

/// Says that nobody holds the directory.
pub(super) fn clear_holder(page: &dyn SharedPage) {
    page.store(PROCESS_ID, 0);
}

/// Who holds the directory; `None` if the page does not say.
pub(super) fn read_holder(page: &dyn SharedPage, vfs: &dyn Vfs) -> Option<Holder> {
    let process_id = u32::try_from(page.load(PROCESS_ID))
        .ok()
        .filter(|&id| id != 0)?;
    let words = (0..LABEL_WORDS).flat_map(|index| page.load(LABEL + index).to_le_bytes());
    let len = usize::try_from(page.load(LABEL_BYTES))
        .unwrap_or(0)
        .min(LABEL_BYTES_MAX);
    let bytes: Vec<u8> = words.take(len).collect();
    let held_for = vfs
        .monotonic()
        .saturating_sub(Duration::from_nanos(page.load(SINCE)));
    Some(Holder {
        process_id,
        label: String::from_utf8_lossy(&bytes).into_owned(),
        held_for,
    })
}
