//! Checksums and their seeds: bytes verify only in the place they were written for.
//!
//! A CRC that starts from a seed differs from one that starts from another seed over the same
//! bytes, always. The seed mixes store, segment, offset and, where they are known before the
//! bytes are read, sequence number and epoch. So a record that lay here before a repair, in
//! another segment, or in another store is never taken for a record of this place.

use crc32fast::Hasher;

/// The identity of a store, as 16 bytes in every file of it.
pub(crate) type StoreId = [u8; 16];

/// Where bytes lie, for their seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From [`store_seed`].
    pub(crate) store: u64,
    /// The segment's id.
    pub(crate) segment: u32,
    /// The offset in the segment.
    pub(crate) offset: u32,
}

/// When bytes were written, for their seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The sequence number of the record.
    pub(crate) sequence: u64,
    /// The epoch of the record.
    pub(crate) epoch: u32,
}

/// The part of every seed that is the same in one store.
pub(crate) fn store_seed(id: &StoreId) -> u64 {
    let (low, high) = id.split_at(8);
    mix(super::read_u64(low, 0)) ^ super::read_u64(high, 0)
}

/// The CRC of a record's header, whose place is known before it is read.
pub(crate) fn header_crc(place: Place, bytes: &[u8]) -> u32 {
    seeded(place_seed(place), bytes)
}

/// The CRC of a payload or an entry, whose stamp is known before it is read.
pub(crate) fn content_crc(place: Place, stamp: Stamp, bytes: &[u8]) -> u32 {
    let seed = mix(place_seed(place) ^ stamp.sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    seeded(mix(seed ^ u64::from(stamp.epoch)), bytes)
}

/// The CRC of bytes that must be readable before anything else is known.
pub(crate) fn plain_crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

fn place_seed(place: Place) -> u64 {
    #[cfg(feature = "sim")]
    if crate::vfs::sim::planted_unseeded_checksums() {
        return 0;
    }
    mix(place.store ^ (u64::from(place.segment) << 32 | u64::from(place.offset)))
}

fn seeded(seed: u64, bytes: &[u8]) -> u32 {
    let folded = u32::try_from((seed ^ (seed >> 32)) & 0xffff_ffff).unwrap_or(0);
    let mut hasher = Hasher::new_with_initial(folded);
    hasher.update(bytes);
    hasher.finalize()
}

/// Spreads every bit over all others (the finalizer of splitmix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Place, Stamp, content_crc, header_crc};

    #[test]
    fn the_same_bytes_verify_in_one_place_and_time_only() {
        let place = Place {
            store: 7,
            segment: 1,
            offset: 64,
        };
        let stamp = Stamp {
            sequence: 5,
            epoch: 1,
        };
        let crc = content_crc(place, stamp, b"bytes");
        assert_eq!(crc, content_crc(place, stamp, b"bytes"));
        for other in [
            Place { store: 8, ..place },
            Place {
                segment: 2,
                ..place
            },
            Place {
                offset: 68,
                ..place
            },
        ] {
            assert_ne!(crc, content_crc(other, stamp, b"bytes"));
            assert_ne!(header_crc(place, b"bytes"), header_crc(other, b"bytes"));
        }
        for other in [
            Stamp {
                sequence: 6,
                ..stamp
            },
            Stamp { epoch: 2, ..stamp },
        ] {
            assert_ne!(crc, content_crc(place, other, b"bytes"));
        }
    }
}
