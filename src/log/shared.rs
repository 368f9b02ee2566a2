//! The page of shared words: what the processes that have a store open tell each other.
//!
//! It lies in `STATE`; a store that nobody else may open has a page of its own. The page is a
//! cache of what the log says: who is alone with a directory builds it anew, whatever it says.
//!
//! Words that change together lie together; those of different matters lie in cache lines apart.
//!
//! | word | what |
//! |---:|---|
//! | 0 | [`VALID`] if the others mean something: stored last |
//! | 1 | the machine's boot that they are of |
//! | 2, 3 | the store's id |
//! | 4 | the directory: device and inode, mixed |
//! | 8 … | the writer lock: who owns it, who waits; see `engine::process_lock` |
//! | 56 … | the label of its owner |
//! | 16 | behind the last record: segment << 32 \| offset |
//! | 17 | the number of the last batch |
//! | 18 | behind the last awaited commit |
//! | 19 | how many awaited commits there were |
//! | 20 | whether somebody is writing: if its owner is gone, the log's end has to be looked at |
//! | 21 | the generation of the manifest |
//! | 24 | the position before which all is durable |
//! | 25, 26 | awaited commits taken by the last sync, and expected for the next |
//! | 27 | who leads a sync |
//! | 28 | whether somebody waits for that one to end |
//! | 29 | how long the last sync took, in nanoseconds |
//! | 32 | the sequence number up to which readers see |
//! | 33 | how many failures were mended by opening again |
//! | 40 | how many writes or syncs have failed |

use std::sync::Arc;
use std::time::Duration;

use super::group_sync::{Number, Numbers};
use crate::format::checksum::StoreId;
use crate::vfs::{SharedPage, Vfs};

/// What says that the page means something, and in which layout.
const VALID: u64 = u64::from_le_bytes(*b"happy\0\0\x01");

const IS_VALID: usize = 0;
const BOOT: usize = 1;
const STORE: [usize; 2] = [2, 3];
const DIRECTORY: usize = 4;
const OWNER: usize = 8;
/// The last ticket of the waiting line that was drawn, and the last that was served.
pub(crate) const DRAWN: usize = 9;
pub(crate) const SERVED: usize = 10;
const WRITING: usize = 20;
const GENERATION: usize = 21;
const LEADER: usize = 27;
const SOMEBODY_WAITS: usize = 28;
const SYNC_NANOS: usize = 29;
const MENDED: usize = 33;
const FAILURES: usize = 40;

/// The bell of those who wait for the leader of a sync.
const LEADER_BELL: usize = 0;

/// How long a leader may take, in times of the last sync, and at least, before somebody else syncs
/// beside it: it may be dead. Two at once are harmless, because each process syncs through a
/// file of its own and is told of failures by itself.
const LEADER_PATIENCE: u64 = 4;
const LEADER_PATIENCE_MIN: Duration = Duration::from_millis(20);
const LEADER_PATIENCE_MAX: Duration = Duration::from_secs(1);

/// The shared page of one opening.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) page: Arc<dyn SharedPage>,
    /// Who this process is in the page; never 0.
    pub(crate) me: u64,
}

/// Which store a page is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageOf {
    pub(crate) boot: u64,
    pub(crate) store_id: StoreId,
    /// Made of the device and the inode of its directory.
    pub(crate) directory: u64,
}

impl Numbers for Shared {
    fn get(&self, number: Number) -> u64 {
        self.page.load(word(number))
    }

    fn set(&self, number: Number, value: u64) {
        self.page.store(word(number), value);
    }

    fn release(&self, number: Number, value: u64) {
        self.page.release(word(number), value);
    }

    fn raise(&self, number: Number, value: u64) {
        let word = word(number);
        let mut found = self.page.load(word);
        while found < value {
            match self.page.compare_exchange(word, found, value) {
                Ok(_) => return,
                // A page that is only to be read.
                Err(now) if now == found => return,
                Err(now) => found = now,
            }
        }
    }
}

fn word(number: Number) -> usize {
    match number {
        Number::Appended => 16,
        Number::Sequence => 17,
        Number::Awaited => 18,
        Number::Arrived => 19,
        Number::Durable => 24,
        Number::Taken => 25,
        Number::Expected => 26,
        Number::Visible => 32,
        Number::Failures => FAILURES,
        Number::Mended => MENDED,
    }
}

impl Shared {
    /// The page of this process alone.
    pub(crate) fn private(vfs: &dyn Vfs) -> Self {
        Self::new(vfs, vfs.private_page())
    }

    /// This process in `page`.
    pub(crate) fn new(vfs: &dyn Vfs, page: Arc<dyn SharedPage>) -> Self {
        let [first, second] = halves(&vfs.unique_id());
        let me = (first ^ second).max(1);
        Self { page, me }
    }

    /// Whether the page means something, and is of this store.
    pub(crate) fn is_of(&self, store: &PageOf) -> bool {
        let [first, second] = halves(&store.store_id);
        self.page.load(IS_VALID) == VALID
            && self.page.load(BOOT) == store.boot
            && self.page.load(STORE[0]) == first
            && self.page.load(STORE[1]) == second
            && self.page.load(DIRECTORY) == store.directory
    }

    /// Says that the page means nothing.
    pub(crate) fn invalidate(&self) {
        self.page.store(IS_VALID, 0);
    }

    /// Forgets what a page may say that nobody else relies on: whatever lies there, it harms
    /// nobody from now on. The caller is alone, or the page is of another store.
    pub(crate) fn clear(&self) {
        self.invalidate();
        for word in [19, 20, 25, 26, 27, 28, 29] {
            self.page.store(word, 0);
        }
        // What was mended stays: a reader that is there takes another number for a recovery.
        let mended = self.page.load(MENDED);
        self.page.store(FAILURES, mended);
        // Who waits for the lock finds its ticket served, and draws another one.
        let drawn = self.page.load(DRAWN);
        self.page.store(SERVED, drawn);
    }

    /// Says that the page means something, and of which store.
    pub(crate) fn validate(&self, store: &PageOf) {
        let [first, second] = halves(&store.store_id);
        self.page.store(BOOT, store.boot);
        self.page.store(STORE[0], first);
        self.page.store(STORE[1], second);
        self.page.store(DIRECTORY, store.directory);
        self.page.store(IS_VALID, VALID);
    }

    /// Whether this process was the last one to have the writer lock.
    pub(crate) fn is_owner(&self) -> bool {
        self.page.load(OWNER) == self.me
    }

    /// Says that this process has the writer lock, and knows all that is appended.
    pub(crate) fn set_owner(&self) {
        self.page.store(OWNER, self.me);
    }

    /// Says whether the holder of the writer lock is about to change files.
    pub(crate) fn set_writing(&self, is_writing: bool) {
        if is_writing {
            // Before any byte that is written now, whatever the compiler thinks of the order.
            self.page.store(WRITING, 1);
        } else {
            self.page.release(WRITING, 0);
        }
    }

    /// Whether a holder of the writer lock has begun to change files and has not said that it was
    /// done.
    pub(crate) fn is_writing(&self) -> bool {
        self.page.load(WRITING) != 0
    }

    /// The generation of the manifest on disk.
    pub(crate) fn generation(&self) -> u64 {
        self.page.load(GENERATION)
    }

    /// Says which manifest is on disk.
    pub(crate) fn set_generation(&self, generation: u64) {
        self.page.store(GENERATION, generation);
    }

    /// Whether a write or a sync has failed, and nobody has opened the store anew since.
    pub(crate) fn has_unmended_failure(&self) -> bool {
        self.get(Number::Failures) != self.page.load(MENDED)
    }

    /// Says that what failed up to `failures` is mended.
    pub(crate) fn set_mended(&self, failures: u64) {
        self.page.store(MENDED, failures);
    }

    /// How long the last sync took.
    pub(crate) fn sync_nanos(&self) -> u64 {
        self.page.load(SYNC_NANOS)
    }

    /// Notes how long a sync took.
    pub(crate) fn set_sync_nanos(&self, nanos: u64) {
        self.page.store(SYNC_NANOS, nanos);
    }

    /// Makes this process the leader of the next sync, if nobody is; else the leader.
    ///
    /// # Errors
    /// The leader.
    pub(crate) fn try_lead(&self) -> Result<(), u64> {
        self.page.compare_exchange(LEADER, 0, self.me).map(|_| ())
    }

    /// Ends this process's lead, and wakes those of others who wait for that.
    pub(crate) fn end_lead(&self) {
        // OK if it is not ours any more: somebody found this sync too long.
        let _ = self.page.compare_exchange(LEADER, self.me, 0);
        if self.page.load(SOMEBODY_WAITS) != 0 {
            self.page.store(SOMEBODY_WAITS, 0);
            self.page.ring(LEADER_BELL);
        }
    }

    /// Waits until `leader` has ended its lead. False if that takes too long: then this process
    /// leads beside it, or after its death.
    pub(crate) fn wait_for_leader(&self, vfs: &dyn Vfs, leader: u64) -> bool {
        let patience = Duration::from_nanos(self.sync_nanos().saturating_mul(LEADER_PATIENCE));
        let deadline = vfs
            .monotonic()
            .saturating_add(patience.clamp(LEADER_PATIENCE_MIN, LEADER_PATIENCE_MAX));
        loop {
            let rings = self.page.rings(LEADER_BELL);
            self.page.store(SOMEBODY_WAITS, 1);
            // After that was stored: the leader ends first and looks then.
            if self.page.load(LEADER) != leader {
                return true;
            }
            if vfs.monotonic() >= deadline {
                // OK if it has ended just now.
                let _ = self.page.compare_exchange(LEADER, leader, self.me);
                return false;
            }
            self.page.wait(LEADER_BELL, rings, deadline);
        }
    }
}

fn halves(id: &[u8; 16]) -> [u64; 2] {
    let id = u128::from_le_bytes(*id);
    let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or_default();
    [low, u64::try_from(id >> 64).unwrap_or_default()]
}
