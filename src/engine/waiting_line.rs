//! The line in which processes wait for the writer lock.
//!
//! The lock itself is the kernel's: a file lock on `LOCK`, which goes when its process dies. The
//! line gives it an order and a bell. Who waits draws a ticket, and tries the lock when all before
//! it were served; whoever gives the lock up rings for the next. Someone who died while it waited
//! leaves a ticket that nobody serves: after two looks at a line that stands still, anybody tries.
//!
//! Invariants:
//! 1. What the words say never lets anybody write: only the file lock does. Any values of them,
//!    left by whatever came before, cost a few milliseconds at most.
//! 2. Who has drawn a ticket is rung for by whoever gives up the lock after that.

use std::time::Duration;

use crate::log::shared::{DRAWN, SERVED};
use crate::vfs::{LockKind, SharedPage, Vfs, VfsFile};

/// The bells of the line: a ticket's is one of these. Bell 0 is another room's.
const FIRST_BELL: usize = 1;
const BELLS: u64 = 32;

/// How long the first in the line, and another one, sleeps at most before it looks again: its
/// predecessor may have died, which rings no bell.
const FIRST_NAP: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_millis(8);

/// The line at one lock.
#[derive(Clone, Copy)]
pub(super) struct WaitingLine<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) page: &'a dyn SharedPage,
    pub(super) file: &'a dyn VfsFile,
}

impl WaitingLine<'_> {
    /// Takes the lock, waiting up to `deadline`; with `once`, tries once. False if it was not to
    /// be had.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn take(&self, deadline: Duration, once: bool) -> std::io::Result<bool> {
        if once || !self.is_waited_for() {
            let taken = self.file.try_lock(LockKind::Exclusive)?;
            if taken || once {
                return Ok(taken);
            }
        }
        let mut ticket = self.draw();
        let taken = self.wait(&mut ticket, deadline)?;
        if taken {
            self.raise_served(ticket);
        } else if self.page.load(SERVED).wrapping_add(1) == ticket {
            // The line must not stand still for one who has left it.
            self.raise_served(ticket);
            self.ring();
        }
        Ok(taken)
    }

    fn draw(&self) -> u64 {
        self.page.fetch_add(DRAWN, 1).wrapping_add(1)
    }

    fn wait(&self, ticket: &mut u64, deadline: Duration) -> std::io::Result<bool> {
        let mut stood_at = None;
        loop {
            let mut served = self.page.load(SERVED);
            if served >= *ticket {
                // Taken for dead, and passed over: nobody would see that somebody waits.
                *ticket = self.draw();
                served = self.page.load(SERVED);
            }
            let bell = bell(*ticket);
            let rings = self.page.rings(bell);
            let is_first = served.wrapping_add(1) >= *ticket;
            if (is_first || stood_at == Some(served)) && self.file.try_lock(LockKind::Exclusive)? {
                return Ok(true);
            }
            let now = self.vfs.monotonic();
            if now >= deadline {
                return Ok(false);
            }
            let nap = if is_first { FIRST_NAP } else { NAP };
            let until = deadline.min(now.saturating_add(nap));
            self.page.wait(bell, rings, until);
            stood_at = (self.vfs.monotonic() >= until).then_some(served);
        }
    }

    /// Whether somebody waits, or died waiting.
    pub(super) fn is_waited_for(&self) -> bool {
        self.page.load(SERVED) != self.page.load(DRAWN)
    }

    /// Gives the lock up, for the next one in the line.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn give_up(&self) -> std::io::Result<()> {
        self.file.unlock()?;
        // Looked at after that: who draws a ticket now finds the lock free.
        if self.is_waited_for() {
            self.ring();
        }
        Ok(())
    }

    fn ring(&self) {
        self.page.ring(bell(self.page.load(SERVED).wrapping_add(1)));
    }

    fn raise_served(&self, ticket: u64) {
        let mut served = self.page.load(SERVED);
        while served < ticket {
            match self.page.compare_exchange(SERVED, served, ticket) {
                Ok(_) => return,
                Err(now) => served = now,
            }
        }
    }
}

fn bell(ticket: u64) -> usize {
    FIRST_BELL + usize::try_from(ticket % BELLS).unwrap_or_default()
}
