//! The versions of one key, newest first, and which of them somebody may still see.

use crate::log::location::Version;

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
}

/// A key's versions; at least one.
#[derive(Debug)]
pub(crate) struct Versions {
    newest: Version,
    older: Older,
}

/// What lies below a key's newest version, newest first. Most keys have none, and one that is
/// overwritten again and again has one, which needs no place of its own.
#[derive(Debug, Default)]
enum Older {
    #[default]
    None,
    One(Version),
    More(Box<[Version]>),
}

impl Older {
    fn as_slice(&self) -> &[Version] {
        match self {
            Self::None => &[],
            Self::One(version) => std::slice::from_ref(version),
            Self::More(versions) => versions,
        }
    }
}

impl From<Vec<Version>> for Older {
    fn from(versions: Vec<Version>) -> Self {
        match versions[..] {
            [] => Self::None,
            [version] => Self::One(version),
            _ => Self::More(versions.into_boxed_slice()),
        }
    }
}

impl Versions {
    /// A key's first version.
    pub(crate) fn new(newest: Version) -> Self {
        Self {
            newest,
            older: Older::None,
        }
    }

    /// The newest version.
    pub(crate) fn newest(&self) -> Version {
        self.newest
    }

    /// The newest version that a reader at `sequence` sees.
    pub(crate) fn at(&self, sequence: u64) -> Option<Version> {
        if self.newest.sequence <= sequence {
            return Some(self.newest);
        }
        self.older
            .as_slice()
            .iter()
            .find(|version| version.sequence <= sequence)
            .copied()
    }

    /// Puts `version` on top, and drops what nobody at `horizon` can see.
    /// True if more than one older version had to stay.
    pub(crate) fn push(&mut self, version: Version, horizon: &Horizon) -> bool {
        let below = std::mem::replace(&mut self.newest, version);
        let only_below_is_seen = horizon.pinned.is_empty() && below.sequence <= horizon.visible;
        if only_below_is_seen && !matches!(self.older, Older::More(_)) {
            self.older = Older::One(below);
            return false;
        }
        let older = self.older.as_slice();
        let mut list = Vec::with_capacity(older.len() + 1);
        list.push(below);
        list.extend_from_slice(older);
        prune(&mut list, version.sequence, horizon);
        self.older = list.into();
        matches!(self.older, Older::More(_))
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        1 + self.older.as_slice().len()
    }

    /// Puts `version` in place of all others: for replaying, when nobody reads yet.
    pub(crate) fn replace(&mut self, version: Version) {
        self.newest = version;
        self.older = Older::None;
    }

    /// Drops what nobody at `horizon` can see.
    pub(crate) fn prune(&mut self, horizon: &Horizon) {
        let mut list = self.older.as_slice().to_vec();
        prune(&mut list, self.newest.sequence, horizon);
        self.older = list.into();
    }
}

/// Keeps of `list`, newest first below a version of sequence number `above`, what is the newest
/// at some point of `horizon`, and what is not visible yet.
fn prune(list: &mut Vec<Version>, mut above: u64, horizon: &Horizon) {
    list.retain(|version| {
        // Seen by whoever reads at a number from this version's up to the one above it.
        let seen = version.sequence..above;
        above = version.sequence;
        version.sequence > horizon.visible || seen.contains(&horizon.visible) || {
            let from = horizon
                .pinned
                .partition_point(|&pinned| pinned < seen.start);
            horizon
                .pinned
                .get(from)
                .is_some_and(|&pinned| pinned < seen.end)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Horizon, Version, Versions};
    use crate::log::location::Location;

    fn version(sequence: u64) -> Version {
        Version {
            sequence,
            location: Location::new(1, 64, 0, Some(0)),
        }
    }

    fn sequences(versions: &Versions) -> Vec<u64> {
        let all = std::iter::once(&versions.newest).chain(versions.older.as_slice());
        all.map(|version| version.sequence).collect()
    }

    #[test]
    fn a_version_stays_exactly_as_long_as_somebody_can_see_it() {
        let mut versions = Versions::new(version(10));
        let at = |visible, pinned: &[u64]| Horizon {
            visible,
            pinned: pinned.to_vec(),
        };
        assert!(!versions.push(version(20), &at(19, &[])));
        assert_eq!(sequences(&versions), [20, 10]);
        assert!(versions.push(version(30), &at(29, &[15])));
        assert_eq!(sequences(&versions), [30, 20, 10]);
        versions.push(version(40), &at(39, &[15]));
        assert_eq!(sequences(&versions), [40, 30, 10]);
        assert_eq!(versions.at(9).map(|v| v.sequence), None);
        assert_eq!(versions.at(19).map(|v| v.sequence), Some(10));
        assert_eq!(versions.at(39).map(|v| v.sequence), Some(30));
        assert_eq!(versions.at(40).map(|v| v.sequence), Some(40));
        versions.prune(&at(40, &[15, 40]));
        assert_eq!(sequences(&versions), [40, 10]);
        versions.prune(&at(40, &[]));
        assert_eq!(sequences(&versions), [40]);
    }

    #[test]
    fn what_is_not_visible_yet_stays() {
        let mut versions = Versions::new(version(10));
        let horizon = Horizon {
            visible: 10,
            pinned: vec![],
        };
        versions.push(version(20), &horizon);
        versions.push(version(30), &horizon);
        assert_eq!(sequences(&versions), [30, 20, 10]);
    }
}
