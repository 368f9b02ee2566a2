//! What is whole in a record that is not: entries that verify by themselves.
//!
//! For salvage alone. A batch is all or nothing; but what compaction has moved belongs together by
//! chance, each entry has its own sequence number and its own checksum, and one damaged byte need not
//! cost sixty-four kibibytes.

use super::checksum::{Place, Stamp};
use super::manifest::SEQUENCE_MAX;
use super::read_u64;
use super::record::{EntryRef, MOVED_BYTES, split_entry, verify_entry};

/// How often every byte is looked at, on average, before the rest is given up: lengths in a value
/// that look like those of entries could make it a long search.
const LOOKS_MAX: usize = 64;

/// The entries that verify by themselves in `payload`, which lies at `place`, of a record of moved
/// ones whose epoch is `epoch`.
pub(crate) fn whole_moved(payload: &[u8], place: Place, epoch: u32) -> Scraps<'_> {
    Scraps {
        payload,
        place,
        epoch,
        at: 0,
        left: payload.len().saturating_mul(LOOKS_MAX),
    }
}

/// See [`whole_moved`].
#[derive(Debug)]
pub(crate) struct Scraps<'a> {
    payload: &'a [u8],
    place: Place,
    epoch: u32,
    at: usize,
    /// How many bytes may still be looked at in vain.
    left: usize,
}

impl<'a> Iterator for Scraps<'a> {
    type Item = (EntryRef<'a>, usize);

    /// The next one, and where it ends in the payload.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.payload.get(self.at..)?;
            let (before, rest) = rest.split_at_checked(MOVED_BYTES as usize)?;
            let begin = self.at + before.len();
            if let Ok((entry, len)) = split_entry(rest) {
                let sequence = read_u64(before, 0);
                let at = u32::try_from(begin).ok()?;
                let place = Place {
                    offset: self.place.offset.checked_add(at)?,
                    ..self.place
                };
                let epoch = self.epoch;
                let stamp = Stamp { sequence, epoch };
                if sequence <= SEQUENCE_MAX && verify_entry(&rest[..len], place, stamp).is_ok() {
                    self.at = begin + len;
                    let sequence = Some(sequence);
                    return Some((
                        EntryRef {
                            at,
                            sequence,
                            ..entry
                        },
                        self.at,
                    ));
                }
                self.left = self.left.checked_sub(len)?;
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{Frame, RECORD_HEADER_BYTES, RecordKind, push_moved, seal_record};

    const PLACE: Place = Place {
        store: 7,
        segment: 2,
        offset: 64,
    };

    fn payload() -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER_BYTES as usize];
        push_moved(&mut record, 3, b"a", Some(b"value"));
        push_moved(&mut record, 5, b"b", None);
        push_moved(&mut record, 4, b"c", Some(b""));
        let frame = Frame {
            kind: RecordKind::Moved,
            entry_count: 3,
            stamp: Stamp {
                sequence: 5,
                epoch: 1,
            },
            synced_upto: 64,
        };
        seal_record(&mut record, PLACE, frame);
        record.split_off(RECORD_HEADER_BYTES as usize)
    }

    fn keys(payload: &[u8], epoch: u32) -> Vec<u8> {
        let place = Place {
            offset: PLACE.offset + RECORD_HEADER_BYTES,
            ..PLACE
        };
        let found = whole_moved(payload, place, epoch);
        found.map(|(entry, _)| entry.key[0]).collect()
    }

    #[test]
    fn each_damaged_byte_costs_the_entry_it_is_in_alone() {
        let whole = payload();
        assert_eq!(keys(&whole, 1), b"abc");
        assert_eq!(keys(&whole, 2), b"");
        let ends = [26, 47, 68];
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let hit = ends.iter().position(|end| at < *end);
            let expected: Vec<u8> = (0..3)
                .filter(|n| Some(*n) != hit)
                .map(|n| b"abc"[n])
                .collect();
            assert_eq!(keys(&damaged, 1), expected, "byte {at}");
        }
    }

    #[test]
    fn bytes_that_look_like_entries_without_end_are_given_up() {
        let payload: Vec<u8> = [200_u8, 0, 0, 0].repeat(1 << 16);
        assert_eq!(keys(&payload, 1), b"");
    }
}
