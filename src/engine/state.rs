//! The page of shared words in `STATE`: for messages, who holds the directory.
//!
//! The page means nothing without a living process that holds `LOCK`: it is written after the
//! lock was taken, read only by those who wait for it, and never needed to recover.
//!
//! | word | what |
//! |---:|---|
//! | 0 | the holder's process id, or 0 |
//! | 1 | when it took the lock, in milliseconds since 1970 |
//! | 2 | length of its label in bytes |
//! | 3 … 10 | the label, 8 bytes a word, little-endian |

use std::time::Duration;

use crate::error::Holder;
use crate::limits::LABEL_BYTES_MAX;
use crate::vfs::{SHARED_WORDS, SharedPage, Vfs};

const PROCESS_ID: usize = 0;
const SINCE_MS: usize = 1;
const LABEL_BYTES: usize = 2;
const LABEL: usize = 3;
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
    let since_ms = u64::try_from(vfs.unix_time().as_millis()).unwrap_or(u64::MAX);
    page.store(SINCE_MS, since_ms);
    page.store(PROCESS_ID, u64::from(vfs.process_id()));
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
    let now_ms = u64::try_from(vfs.unix_time().as_millis()).unwrap_or(u64::MAX);
    let held_for = Duration::from_millis(now_ms.saturating_sub(page.load(SINCE_MS)));
    Some(Holder {
        process_id,
        label: String::from_utf8_lossy(&bytes).into_owned(),
        held_for,
    })
}
