//! The manifest: which segments are the store, and what it was made with.

use super::checksum::{StoreId, plain_crc};
use super::header::{FileKind, PREFIX_BYTES, decode_prefix, encode_prefix};
use super::{Defect, read_u32, read_u64};

/// The longest manifest that is read: some ten million segments.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 512 << 20;

/// What is counted up stops far from where its integer would overflow: nothing that a machine
/// could write in its life, so a larger number is damage.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 62;
const EPOCH_MAX: u32 = 1 << 31;

const FIXED_BYTES: usize = 60;
const SEGMENT_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// What keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// UTF-8 strings.
    Text,
    /// Any bytes.
    Bytes,
}

impl KeyKind {
    /// The kind's name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "str",
            Self::Bytes => "[u8]",
        }
    }
}

/// A segment as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    /// Its id, which names its file.
    pub(crate) id: u32,
    /// The sequence number of its first batch; of a compacted one, the lowest of its entries.
    pub(crate) first_sequence: u64,
    /// What became of it.
    pub(crate) state: SegmentState,
    /// Where it ends, if it is sealed; otherwise how far it was durable when the manifest was
    /// written.
    pub(crate) end: SegmentEnd,
}

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// It takes records; only the last one of the log may.
    Active,
    /// It is a part of the log, and finished for ever.
    Sealed,
    /// It was made by compaction: entries of others, finished for ever.
    Compacted,
}

impl SegmentEntry {
    /// Whether it is finished for ever.
    pub(crate) fn is_sealed(&self) -> bool {
        self.state != SegmentState::Active
    }

    /// Whether it is a part of the log, in which batches follow each other.
    pub(crate) fn is_log(&self) -> bool {
        self.state != SegmentState::Compacted
    }
}

/// A place in a segment up to which it has whole records; zeros if nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SegmentEnd {
    /// The length of its header and records, in bytes.
    pub(crate) len_bytes: u64,
    /// The sequence number of the last batch; of a compacted one, the highest of its entries.
    pub(crate) last_sequence: u64,
}

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The store's identity.
    pub(crate) store_id: StoreId,
    /// Raised by every new manifest.
    pub(crate) generation: u64,
    /// How often the log was repaired.
    pub(crate) epoch: u32,
    /// What keys are.
    pub(crate) key_kind: KeyKind,
    /// The name of the serializer.
    pub(crate) serializer: String,
    /// The id of the segment that is made next: no id is ever used again.
    pub(crate) next_segment: u32,
    /// The segments by their ids: those of the log in its order, those of compaction in between.
    pub(crate) segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// The manifest's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let len =
            FIXED_BYTES + self.serializer.len() + self.segments.len() * SEGMENT_BYTES + CRC_BYTES;
        let mut out = Vec::with_capacity(len);
        encode_prefix(FileKind::Manifest, &mut out);
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.push(match self.key_kind {
            KeyKind::Text => 1,
            KeyKind::Bytes => 2,
        });
        out.push(u8::try_from(self.serializer.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&[0; 2]);
        let count = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.next_segment.to_le_bytes());
        out.extend_from_slice(self.serializer.as_bytes());
        for segment in &self.segments {
            let end = segment.end;
            out.extend_from_slice(&segment.id.to_le_bytes());
            out.push(match segment.state {
                SegmentState::Active => 1,
                SegmentState::Sealed => 2,
                SegmentState::Compacted => 3,
            });
            out.extend_from_slice(&[0; 3]);
            out.extend_from_slice(&end.len_bytes.to_le_bytes());
            out.extend_from_slice(&segment.first_sequence.to_le_bytes());
            out.extend_from_slice(&end.last_sequence.to_le_bytes());
        }
        let crc = plain_crc(&out[PREFIX_BYTES..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Takes a manifest apart.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Defect> {
        decode_prefix(FileKind::Manifest, bytes)?;
        if bytes.len() < FIXED_BYTES + CRC_BYTES || read_u32(bytes, 16) as usize != bytes.len() {
            return Err(Defect::Damaged("the manifest is not as long as it says"));
        }
        let crc_at = bytes.len() - CRC_BYTES;
        if plain_crc(&bytes[PREFIX_BYTES..crc_at]) != read_u32(bytes, crc_at) {
            return Err(Defect::Damaged("the manifest's checksum is wrong"));
        }
        let key_kind = match bytes[48] {
            1 => KeyKind::Text,
            2 => KeyKind::Bytes,
            _ => return Err(Defect::Damaged("the manifest names no known kind of keys")),
        };
        let name_end = FIXED_BYTES + usize::from(bytes[49]);
        let list = bytes
            .get(name_end..crc_at)
            .filter(|list| {
                list.len() as u64 == u64::from(read_u32(bytes, 52)) * SEGMENT_BYTES as u64
            })
            .ok_or(Defect::Damaged(
                "the manifest's list of segments does not fill it",
            ))?;
        let serializer = std::str::from_utf8(&bytes[FIXED_BYTES..name_end])
            .map_err(|_| Defect::Damaged("the serializer's name is not UTF-8"))?;
        let mut store_id = StoreId::default();
        store_id.copy_from_slice(&bytes[20..36]);
        let segments = list
            .chunks_exact(SEGMENT_BYTES)
            .map(decode_segment)
            .collect::<Result<_, _>>()?;
        let manifest = Self {
            store_id,
            generation: read_u64(bytes, 36),
            epoch: read_u32(bytes, 44),
            key_kind,
            serializer: serializer.to_owned(),
            next_segment: read_u32(bytes, 56),
            segments,
        };
        manifest.check_order()?;
        manifest.check_numbers()?;
        Ok(manifest)
    }

    /// Whether it lists the segment `id`.
    pub(crate) fn lists(&self, id: u32) -> bool {
        let listed = &self.segments;
        listed.binary_search_by_key(&id, |entry| entry.id).is_ok()
    }

    /// The segments of the log, in its order.
    pub(crate) fn log(&self) -> impl DoubleEndedIterator<Item = &SegmentEntry> {
        self.segments.iter().filter(|segment| segment.is_log())
    }

    /// The last segment of the log.
    pub(crate) fn last_of_log(&mut self) -> Option<&mut SegmentEntry> {
        let mut log = self.segments.iter_mut().rev();
        log.find(|segment| segment.is_log())
    }

    fn check_numbers(&self) -> Result<(), Defect> {
        let sequences = self
            .segments
            .iter()
            .map(|segment| segment.end.last_sequence.max(segment.first_sequence));
        let largest = sequences.max().unwrap_or(0).max(self.generation);
        if largest <= SEQUENCE_MAX && self.epoch <= EPOCH_MAX {
            Ok(())
        } else {
            Err(Defect::Damaged(
                "a number in the manifest is larger than any can be",
            ))
        }
    }

    fn check_order(&self) -> Result<(), Defect> {
        let rising = self.segments.windows(2).all(|pair| pair[0].id < pair[1].id);
        let mut pairs = self.log().zip(self.log().skip(1));
        let in_order =
            pairs.all(|(one, next)| one.is_sealed() && one.end.last_sequence < next.first_sequence);
        let mut ids = self.segments.iter().map(|segment| segment.id);
        let ids_name_files = ids.all(|id| id > 0 && id < self.next_segment);
        if rising && in_order && ids_name_files {
            Ok(())
        } else {
            Err(Defect::Damaged("the manifest's segments are out of order"))
        }
    }
}

fn decode_segment(bytes: &[u8]) -> Result<SegmentEntry, Defect> {
    let state = match bytes[4] {
        1 => SegmentState::Active,
        2 => SegmentState::Sealed,
        3 => SegmentState::Compacted,
        _ => {
            return Err(Defect::Damaged(
                "a segment in the manifest is in no known state",
            ));
        }
    };
    Ok(SegmentEntry {
        id: read_u32(bytes, 0),
        first_sequence: read_u64(bytes, 16),
        state,
        end: SegmentEnd {
            len_bytes: read_u64(bytes, 8),
            last_sequence: read_u64(bytes, 24),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, first_sequence: u64, state: SegmentState) -> SegmentEntry {
        let end = SegmentEnd {
            len_bytes: 4000,
            last_sequence: 41,
        };
        SegmentEntry {
            id,
            first_sequence,
            state,
            end: if state == SegmentState::Active {
                SegmentEnd::default()
            } else {
                end
            },
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            store_id: [9; 16],
            generation: 3,
            epoch: 1,
            key_kind: KeyKind::Bytes,
            serializer: "cbor".to_owned(),
            next_segment: 5,
            segments: vec![
                entry(1, 1, SegmentState::Sealed),
                entry(2, 42, SegmentState::Active),
                entry(4, 7, SegmentState::Compacted),
            ],
        }
    }

    #[test]
    fn a_manifest_survives_the_round_trip_and_every_flipped_bit_is_found() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn segments_out_of_order_are_refused() {
        let refused = |change: fn(&mut Manifest)| {
            let mut changed = manifest();
            change(&mut changed);
            assert!(Manifest::decode(&changed.encode()).is_err(), "{changed:?}");
        };
        refused(|manifest| manifest.segments.swap(0, 1));
        refused(|manifest| manifest.segments[0].state = SegmentState::Active);
        refused(|manifest| manifest.segments[1].first_sequence = 41);
        refused(|manifest| manifest.next_segment = 4);
        refused(|manifest| manifest.segments[0].id = 0);
        let mut alone = manifest();
        alone.segments[0].state = SegmentState::Compacted;
        assert_eq!(Manifest::decode(&alone.encode()), Ok(alone));
    }
}
