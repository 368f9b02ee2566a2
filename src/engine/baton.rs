//! One thing that goes from hand to hand: who has it may wait for files, others wait for their turn.
//!
//! A mutex would do the same, but none of ours may be held over a call into the vfs.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::vfs::{Signal, Vfs};

/// How long a waiter sleeps at a time.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The thing, or its empty place while somebody has it.
pub(super) struct Baton<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    thing: Option<T>,
    queue: VecDeque<Arc<dyn Signal>>,
}

/// The thing in somebody's hand; goes back when dropped.
pub(super) struct Held<'a, T> {
    baton: &'a Baton<T>,
    thing: Option<T>,
}

impl<T> Baton<T> {
    /// A place with `thing` in it.
    pub(super) fn new(thing: T) -> Self {
        let state = State {
            thing: Some(thing),
            queue: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes the thing, as soon as nobody has it.
    pub(super) fn take(&self, vfs: &dyn Vfs) -> Held<'_, T> {
        let mut signal: Option<Arc<dyn Signal>> = None;
        loop {
            let mut state = self.lock();
            if let Some(mine) = &signal {
                // Still there if nobody has raised it.
                state.queue.retain(|queued| !Arc::ptr_eq(queued, mine));
            }
            if let Some(thing) = state.thing.take() {
                return Held {
                    baton: self,
                    thing: Some(thing),
                };
            }
            let Some(mine) = &signal else {
                drop(state);
                signal = Some(vfs.signal());
                continue;
            };
            state.queue.push_back(Arc::clone(mine));
            drop(state);
            mine.wait(vfs.monotonic().saturating_add(LOOK_AGAIN));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing
            .as_ref()
            .expect("OK because it is taken out by the drop alone")
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing
            .as_mut()
            .expect("OK because it is taken out by the drop alone")
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let mut state = self.baton.lock();
        state.thing = self.thing.take();
        let next = state.queue.pop_front();
        drop(state);
        if let Some(next) = next {
            next.raise();
        }
    }
}
