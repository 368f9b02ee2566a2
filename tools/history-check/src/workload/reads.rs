//! What transactions do that only read: snapshots, queries, iterators, single reads.

use std::cell::Cell;
use std::ops::Bound;

use happystore::{Raw, Read, Snapshot};

use super::recorded::{Keys, Line, Recorded, Span};
use super::writes::{account, cell, cells_span, hot, list};
use super::{Failure, Worker, now};
use crate::arguments::Planted;
use crate::history::{CLOCK, Claim};
use crate::text::write_begin;

/// How many snapshots a thread holds at a time, and how often it reads from each.
const HELD_MAX: usize = 3;
const READINGS: u8 = 4;

/// How many keys a query on the store shows at most, beside the clock.
const SHOWN_MAX: usize = 30;

/// A snapshot that is read from time and again.
pub(super) struct Held {
    snapshot: Snapshot<Raw>,
    /// Its moment had passed by then.
    end: u64,
    line: Line,
    position: u64,
    readings: u8,
}

impl Worker<'_> {
    /// Notes the position in a clock.
    fn see(&mut self, clock: Option<&str>) {
        let claim: Option<Claim> = clock.and_then(|clock| clock.parse().ok());
        self.seen = claim.map_or(self.seen, |claim| claim.position);
    }

    /// Any key.
    fn key(&mut self) -> String {
        match self.random.u8(..8) {
            0..=2 => hot(&mut self.random),
            3 | 4 => account(&mut self.random),
            5 => list(&mut self.random, self.seen),
            _ => cell(&mut self.random, self.seen),
        }
    }

    pub(super) fn plain_get(&mut self) -> Result<(), Failure> {
        let key = self.key();
        self.begin('g');
        if self.planted == Some(Planted::StaleRead)
            && let Some(held) = self.held.first()
        {
            let recorded = Recorded {
                source: &held.snapshot,
                line: &self.line,
            };
            recorded.get(&key)?;
            return self.end(true);
        }
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        recorded.get(&key)?;
        self.end(true)
    }

    pub(super) fn plain_has(&mut self) -> Result<(), Failure> {
        let key = self.key();
        self.begin('h');
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        recorded.has(&key)?;
        self.end(true)
    }

    /// Several keys of one moment, the clock among them.
    pub(super) fn bulk_get(&mut self) -> Result<(), Failure> {
        let mut keys: Vec<String> = (0..self.random.u8(1..8)).map(|_| self.key()).collect();
        keys.insert(self.random.usize(..=keys.len()), CLOCK.to_owned());
        self.begin('m');
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        let values = recorded.bulk_get(&keys)?;
        self.end(true)?;
        let clock = keys
            .iter()
            .position(|key| key == CLOCK)
            .and_then(|at| values[at].as_deref());
        self.see(clock);
        Ok(())
    }

    /// A query on the store that shows the clock, which comes right behind the cells.
    pub(super) fn query(&mut self) -> Result<(), Failure> {
        let mut span = if self.random.bool() {
            let low = cell(&mut self.random, self.seen);
            Span::of(Keys::Range(
                Bound::Included(low),
                Bound::Included(CLOCK.to_owned()),
            ))
        } else {
            Span::of(Keys::Prefix("c"))
        };
        if self.random.bool() {
            span.reverse = true;
            span.limit = Some(self.random.usize(1..SHOWN_MAX));
        }
        self.begin('q');
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        let pairs = recorded.pairs(&span)?;
        self.end(true)?;
        let clock = pairs.iter().find(|(key, _)| key == CLOCK);
        self.see(clock.map(|(_, value)| value.as_str()));
        Ok(())
    }

    /// A long walk over the store, while others write: of all cells from both ends, or a scan.
    pub(super) fn walk(&mut self) -> Result<(), Failure> {
        self.begin('w');
        let end = Cell::new(0);
        let begun = || {
            end.set(now());
            std::thread::yield_now();
        };
        let recorded = Recorded {
            source: self.store,
            line: &self.line,
        };
        if self.random.u8(..40) == 0 {
            recorded.scan(self.random.usize(1..200), begun)?;
        } else {
            let random = &mut self.random;
            let mut span = Span::of(Keys::Prefix("c"));
            span.reverse = random.bool();
            recorded.iterate(&span, begun, || {
                if random.u8(..32) == 0 {
                    std::thread::yield_now();
                }
                random.u8(..4) == 0
            })?;
        }
        self.end_at(end.get(), true)
    }

    /// Takes a snapshot, and holds it.
    pub(super) fn hold_snapshot(&mut self) -> Result<(), Failure> {
        let begin = now();
        let snapshot = self.store.snapshot()?;
        let end = now();
        let line = Line::default();
        write_begin(&mut line.borrow_mut(), 's', begin);
        let recorded = Recorded {
            source: &snapshot,
            line: &line,
        };
        let clock = recorded.get(CLOCK)?;
        self.see(clock.as_deref());
        self.held.push(Held {
            snapshot,
            end,
            line,
            position: self.seen,
            readings: 0,
        });
        while self.held.len() > HELD_MAX {
            self.read_held()?;
        }
        Ok(())
    }

    /// Reads from the oldest snapshot that is held; lets go of it after some times.
    pub(super) fn read_held(&mut self) -> Result<(), Failure> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut held = self.held.remove(0);
        let recorded = Recorded {
            source: &held.snapshot,
            line: &held.line,
        };
        let random = &mut self.random;
        recorded.get(&hot(random))?;
        recorded.get(&list(random, held.position))?;
        match random.u8(..5) {
            0 => {
                recorded.pairs(&Span::of(Keys::Prefix("account/")))?;
            }
            1 => recorded.count(&cells_span(random, held.position))?,
            2 => {
                recorded.keys(&cells_span(random, held.position))?;
            }
            3 => page_through(&recorded)?,
            _ => {
                recorded.pairs(&cells_span(random, held.position))?;
            }
        }
        held.readings += 1;
        if held.readings < READINGS {
            self.held.push(held);
            return Ok(());
        }
        self.line.swap(&held.line);
        self.end_at(held.end, true)
    }
}

/// Some pages, each behind the last key of the one before.
fn page_through(source: &Recorded<'_, impl Read<Raw>>) -> Result<(), Failure> {
    let mut span = Span::of(Keys::Prefix("cell/"));
    span.limit = Some(5);
    span.reverse = true;
    for _ in 0..3 {
        let page = source.pairs(&span)?;
        let Some((key, _)) = page.last() else { break };
        span.after = Some(key.clone());
    }
    Ok(())
}
