//! Merging sorted keys of several segments into one order, the newest version of each key first.

use super::hints::SortedKeys;
use super::location::Version;
use crate::error::Result;

/// A walk over the keys of several segments, in order.
///
/// Of a key that several of them have, the newest version is shown; of one version that lies in two
/// segments, the one in the younger segment, which is the one that compaction made.
pub(crate) struct Merge {
    sources: Vec<SortedKeys>,
    /// Those that have keys left, by what they are at; the next to be shown first.
    order: Vec<usize>,
}

impl Merge {
    /// Over `sources`, each at its first key.
    pub(crate) fn new(sources: Vec<SortedKeys>) -> Self {
        let mut merge = Self {
            order: Vec::with_capacity(sources.len()),
            sources,
        };
        for source in 0..merge.sources.len() {
            merge.place(source);
        }
        merge
    }

    /// The key at this place, and its newest version; `None` behind the last.
    pub(crate) fn current(&self) -> Option<(&[u8], Version)> {
        self.at(0)
    }

    /// Goes on to the next key.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let Some((key, _)) = self.current() else {
            return Ok(());
        };
        let same = (1..self.order.len())
            .take_while(|&at| self.at(at).is_some_and(|(other, _)| other == key))
            .count();
        if same == 0 {
            self.sources[self.order[0]].advance()?;
            self.settle_first();
            return Ok(());
        }
        let done: Vec<usize> = self.order.drain(..=same).collect();
        for source in done {
            self.sources[source].advance()?;
            self.place(source);
        }
        Ok(())
    }

    /// Moves the first one behind those that come before what it is at now.
    fn settle_first(&mut self) {
        let source = self.order[0];
        if self.sources[source].current().is_none() {
            self.order.remove(0);
            return;
        }
        let others = &self.order[1..];
        let before = others.partition_point(|&other| self.comes_before(other, source));
        self.order[..=before].rotate_left(1);
    }

    fn at(&self, at: usize) -> Option<(&[u8], Version)> {
        self.sources[*self.order.get(at)?].current()
    }

    /// Puts `source` where it belongs.
    fn place(&mut self, source: usize) {
        if self.sources[source].current().is_none() {
            return;
        }
        let others = &self.order;
        let at = others.partition_point(|&other| self.comes_before(other, source));
        self.order.insert(at, source);
    }

    /// Whether what source `one` is at is to be shown before what `other` is at, which is something.
    fn comes_before(&self, one: usize, other: usize) -> bool {
        let newer = |version: Version| (version.sequence, version.location.segment);
        match (self.sources[one].current(), self.sources[other].current()) {
            (Some((one_key, one)), Some((other_key, other))) => {
                let by_key = one_key.cmp(other_key);
                by_key.then_with(|| newer(other).cmp(&newer(one))).is_lt()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Merge, SortedKeys, Version};
    use crate::log::hints::KeysInAnyOrder;
    use crate::log::location::Location;

    fn keys(segment: u32, list: &[(&str, u64)]) -> SortedKeys {
        let version = |sequence| Version {
            sequence,
            location: Location::new(segment, 64, 0, Some(1)),
        };
        let mut keys = KeysInAnyOrder::default();
        for (key, sequence) in list {
            keys.push(key.as_bytes(), version(*sequence));
        }
        SortedKeys::walked(keys)
    }

    #[test]
    fn each_key_comes_once_in_order_with_its_newest_version() {
        let mut merge = Merge::new(vec![
            keys(1, &[("b", 2), ("a", 1), ("b", 4)]),
            keys(2, &[("c", 5), ("d", 6)]),
            keys(3, &[]),
            keys(4, &[("a", 7), ("b", 3), ("d", 6), ("e", 0)]),
        ]);
        let mut found = Vec::new();
        while let Some((key, version)) = merge.current() {
            let key = String::from_utf8(key.to_vec()).unwrap();
            found.push((key, version.sequence, version.location.segment));
            merge.advance().unwrap();
        }
        let found: Vec<_> = found.iter().map(|(k, s, g)| (k.as_str(), *s, *g)).collect();
        assert_eq!(
            found,
            [
                ("a", 7, 4),
                ("b", 4, 1),
                ("c", 5, 2),
                ("d", 6, 4),
                ("e", 0, 4)
            ]
        );
    }
}
