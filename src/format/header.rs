//! The first bytes of a file: what it is, in which version, of which store.

use super::checksum::{StoreId, plain_crc};
use super::{Defect, FORMAT_VERSION, read_u32, read_u64};

/// The length of the part that is the same in every file of every version.
pub(crate) const PREFIX_BYTES: usize = 16;

/// The length of a segment's header; its first record follows.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 64;

const HEADER_LEN: usize = SEGMENT_HEADER_BYTES as usize;

/// Which kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A segment.
    Segment,
    /// The manifest.
    Manifest,
    /// The hints of a segment.
    Hints,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Segment => b"hpystore",
            Self::Manifest => b"hpymanif",
            Self::Hints => b"hpyhints",
        }
    }
}

/// Writes the prefix of a file.
pub(crate) fn encode_prefix(kind: FileKind, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(kind.magic());
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let crc = plain_crc(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks the prefix of a file.
pub(crate) fn decode_prefix(kind: FileKind, bytes: &[u8]) -> Result<(), Defect> {
    if bytes.len() < PREFIX_BYTES {
        return Err(Defect::Damaged("the file ends within its header"));
    }
    if bytes[..8] != *kind.magic() {
        return Err(Defect::Damaged("the file's magic number is wrong"));
    }
    if plain_crc(&bytes[..12]) != read_u32(bytes, 12) {
        return Err(Defect::Damaged(
            "the checksum of the file's first bytes is wrong",
        ));
    }
    let version = read_u32(bytes, 8);
    match version {
        FORMAT_VERSION => Ok(()),
        0 => Err(Defect::Damaged("the format version is zero")),
        newer => Err(Defect::Newer(newer)),
    }
}

/// How the records of a segment came there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Commit by commit, in the order of their sequence numbers.
    Log,
    /// By compaction, in key order.
    Compacted,
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The store it belongs to.
    pub(crate) store_id: StoreId,
    /// Its id.
    pub(crate) segment: u32,
    /// The length up to which it may grow, in bytes.
    pub(crate) capacity: u32,
    /// The sequence number of its first batch; of a compacted one, the lowest of its entries.
    pub(crate) first_sequence: u64,
    /// How its records came there.
    pub(crate) kind: SegmentKind,
}

impl SegmentHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        encode_prefix(FileKind::Segment, &mut out);
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.capacity.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.push(match self.kind {
            SegmentKind::Log => 0,
            SegmentKind::Compacted => 1,
        });
        out.resize(HEADER_LEN - 4, 0);
        let crc = plain_crc(&out[PREFIX_BYTES..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Takes the header apart.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Defect> {
        decode_prefix(FileKind::Segment, bytes)?;
        if bytes.len() < HEADER_LEN {
            return Err(Defect::Damaged("the file ends within its header"));
        }
        if plain_crc(&bytes[PREFIX_BYTES..HEADER_LEN - 4]) != read_u32(bytes, HEADER_LEN - 4) {
            return Err(Defect::Damaged(
                "the checksum of the segment's header is wrong",
            ));
        }
        let kind = match bytes[48] {
            0 => SegmentKind::Log,
            1 => SegmentKind::Compacted,
            _ => return Err(Defect::Damaged("the segment is of no known kind")),
        };
        let mut store_id = StoreId::default();
        store_id.copy_from_slice(&bytes[16..32]);
        Ok(Self {
            store_id,
            segment: read_u32(bytes, 32),
            capacity: read_u32(bytes, 36),
            first_sequence: read_u64(bytes, 40),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Defect, FileKind, SegmentHeader, SegmentKind, decode_prefix, plain_crc};

    fn header() -> SegmentHeader {
        SegmentHeader {
            store_id: [7; 16],
            segment: 3,
            capacity: 4096,
            first_sequence: 99,
            kind: SegmentKind::Compacted,
        }
    }

    #[test]
    fn a_header_survives_the_round_trip_and_every_flipped_bit_is_found() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), 64);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(SegmentHeader::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert!(matches!(
            decode_prefix(FileKind::Segment, &bytes),
            Err(Defect::Damaged(_))
        ));
        let crc = plain_crc(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            decode_prefix(FileKind::Segment, &bytes),
            Err(Defect::Newer(2))
        );
        assert!(decode_prefix(FileKind::Manifest, &bytes).is_err());
    }
}
