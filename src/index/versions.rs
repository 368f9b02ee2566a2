//! The older versions of keys, and which of them somebody may still see.
//!
//! Most keys have a newest version alone, which lies in its slot. The older ones of a shard lie in
//! one pool, each linked to the next older one of its key, so that overwriting allocates nothing.
//! A version that nobody sees any more may stay there until its place is needed: when the pool is
//! full it is looked through, and grows only if half of it is still seen.

use super::slots::{NONE, Slots};
use crate::log::location::{Location, Version};

/// The first places of a pool.
const POOL_MIN: usize = 16;

/// A pool gives memory back when so few of its places are in use: one of so many.
const SPARSE: usize = 8;

/// Which sequence numbers somebody reads at, or may begin to read at.
///
/// A version is kept if it is the newest at one of these, or newer than all that is visible.
#[derive(Debug, Clone, Default)]
pub(crate) struct Horizon {
    /// What new snapshots see.
    pub(crate) visible: u64,
    /// What the living snapshots see, oldest first.
    pub(crate) pinned: Vec<u64>,
}

impl Horizon {
    /// The oldest sequence number that somebody reads at, now or later.
    pub(crate) fn oldest(&self) -> u64 {
        self.pinned
            .first()
            .map_or(self.visible, |&pinned| pinned.min(self.visible))
    }

    /// Whether somebody may see a version of number `sequence` below one of number `above`, or
    /// it is not visible yet.
    fn sees(&self, sequence: u64, above: u64) -> bool {
        // Seen by whoever reads at a number from this version's up to the one above it.
        let seen = sequence..above;
        sequence > self.visible || seen.contains(&self.visible) || {
            let from = self.pinned.partition_point(|&pinned| pinned < seen.start);
            self.pinned
                .get(from)
                .is_some_and(|&pinned| pinned < seen.end)
        }
    }
}

struct Place {
    version: Version,
    /// The next older version of the same key, or the next free place.
    next: u32,
    /// Whose version this is; [`NONE`] if the place is free.
    slot: u32,
}

/// The older versions of all keys of a shard.
pub(super) struct Older {
    places: Vec<Place>,
    free: u32,
    used: usize,
}

impl Default for Older {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            used: 0,
        }
    }
}

impl Older {
    /// Makes `version` the newest of the slot `number`, and drops what nobody at `horizon` can
    /// see. True if more than one older version had to stay.
    pub(super) fn push(
        &mut self,
        slots: &mut Slots,
        number: u32,
        version: Version,
        horizon: &Horizon,
    ) -> bool {
        let slot = slots.get_mut(number);
        let below = slot.newest;
        if below.sequence == version.sequence {
            // Its batch was walked over before, up to an error.
            slot.newest = version;
            return false;
        }
        let only_below_is_seen = horizon.pinned.is_empty() && below.sequence <= horizon.visible;
        if only_below_is_seen && slot.older != NONE {
            slot.newest = version;
            let place = &mut self.places[slot.older as usize];
            place.version = below;
            let rest = std::mem::replace(&mut place.next, NONE);
            self.free_chain(rest);
            return false;
        }
        self.make_room(slots, horizon);
        let slot = slots.get_mut(number);
        slot.newest = version;
        slot.older = self.take(Place {
            version: below,
            next: slot.older,
            slot: number,
        });
        !only_below_is_seen && self.prune(&mut slot.older, version.sequence, horizon) > 1
    }

    /// The newest version from `first` on that a reader at `sequence` sees.
    pub(super) fn at(&self, first: u32, sequence: u64) -> Option<Version> {
        let mut link = first;
        while let Some(place) = self.places.get(link as usize) {
            if place.version.sequence <= sequence {
                return Some(place.version);
            }
            link = place.next;
        }
        None
    }

    /// Gives the version of number `sequence`, from `first` on, a location in a younger segment; the
    /// one before.
    pub(super) fn relocate(&mut self, first: u32, sequence: u64, to: Location) -> Option<Location> {
        let mut link = first;
        while let Some(place) = self.places.get_mut(link as usize) {
            if place.version.sequence == sequence {
                let location = &mut place.version.location;
                let is_younger = to.segment > location.segment;
                return is_younger.then(|| std::mem::replace(location, to));
            }
            link = place.next;
        }
        None
    }

    /// Drops of the versions from `first` on, which lie below one of number `above`, what nobody
    /// at `horizon` can see. How many are left.
    pub(super) fn prune(&mut self, first: &mut u32, mut above: u64, horizon: &Horizon) -> usize {
        let mut kept = 0;
        let mut last = NONE;
        let mut link = *first;
        while let Some(place) = self.places.get(link as usize) {
            let next = place.next;
            let sequence = place.version.sequence;
            if horizon.sees(sequence, above) {
                kept += 1;
                last = link;
            } else {
                match self.places.get_mut(last as usize) {
                    Some(before) => before.next = next,
                    None => *first = next,
                }
                self.give_back(link);
            }
            above = sequence;
            link = next;
        }
        kept
    }

    /// Drops the versions from `first` on.
    pub(super) fn free_chain(&mut self, first: u32) {
        let mut link = first;
        while let Some(place) = self.places.get(link as usize) {
            let next = place.next;
            self.give_back(link);
            link = next;
        }
    }

    /// Gives memory back if most of the places are free.
    pub(super) fn shrink(&mut self, slots: &mut Slots) {
        if self.places.capacity() <= POOL_MIN || self.used * SPARSE > self.places.capacity() {
            return;
        }
        let mut before = std::mem::take(self);
        if before.used == 0 {
            return;
        }
        self.places.reserve_exact((2 * before.used).max(POOL_MIN));
        for at in 0..before.places.len() {
            let Some((number, link)) = before.first_of_its_key(at, slots) else {
                continue;
            };
            let mut chain: Vec<Version> = Vec::new();
            let mut next = link;
            while let Some(place) = before.places.get_mut(next as usize) {
                chain.push(place.version);
                place.slot = NONE;
                next = place.next;
            }
            let mut next = NONE;
            for version in chain.into_iter().rev() {
                next = self.take(Place {
                    version,
                    next,
                    slot: number,
                });
            }
            slots.get_mut(number).older = next;
        }
    }

    /// How many older versions there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// How many bytes the pool takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
    }

    /// How many older versions there are from `first` on.
    #[cfg(test)]
    pub(super) fn count(&self, first: u32) -> usize {
        let place = |link: &u32| self.places.get(*link as usize);
        let next = |link: &u32| place(link).map(|place| place.next);
        std::iter::successors(Some(first), next)
            .filter(|link| place(link).is_some())
            .count()
    }

    /// Sees to it that there is a place: drops what nobody at `horizon` can see, and grows if
    /// that does not free half of the pool, so that a look through it pays.
    fn make_room(&mut self, slots: &mut Slots, horizon: &Horizon) {
        if self.free != NONE || self.places.len() < self.places.capacity() {
            return;
        }
        for at in 0..self.places.len() {
            if let Some((number, _)) = self.first_of_its_key(at, slots) {
                let slot = slots.get_mut(number);
                self.prune(&mut slot.older, slot.newest.sequence, horizon);
            }
        }
        if self.used * 2 >= self.places.len() {
            self.places.reserve_exact(self.places.len().max(POOL_MIN));
        }
    }

    /// The slot and the number of the place `at`, if the versions of a key begin there.
    fn first_of_its_key(&self, at: usize, slots: &Slots) -> Option<(u32, u32)> {
        let number = self.places[at].slot;
        let link = u32::try_from(at).ok()?;
        (number != NONE && slots.get(number).older == link).then_some((number, link))
    }

    fn take(&mut self, place: Place) -> u32 {
        self.used += 1;
        if let Some(free) = self.places.get_mut(self.free as usize) {
            let link = std::mem::replace(&mut self.free, free.next);
            *free = place;
            return link;
        }
        // OK because a shard has fewer keys than that, and reads at so many numbers nobody.
        let link = u32::try_from(self.places.len()).expect("fewer versions than numbers");
        self.places.push(place);
        link
    }

    fn give_back(&mut self, link: u32) {
        let place = &mut self.places[link as usize];
        place.slot = NONE;
        place.next = std::mem::replace(&mut self.free, link);
        self.used -= 1;
    }
}
