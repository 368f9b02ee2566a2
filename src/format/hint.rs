//! Hints: the keys of a finished segment in order, each with its newest version there.
//!
//! What `log::hints` writes and reads. The chain of trust goes backwards: the footer has its own
//! checksum and holds that of the index, which holds one for each block. So a part can be read
//! without the whole, and a file that was never finished has no footer.

use super::checksum::{Place, StoreId, header_crc, plain_crc, store_seed};
use super::header::{FileKind, PREFIX_BYTES, decode_prefix, encode_prefix};
use super::record::ENTRY_HEADER_BYTES;
use super::{Defect, read_u32, read_u64};
use crate::limits::KEY_BYTES_MAX;

/// The length of the footer.
pub(crate) const FOOTER_BYTES: usize = 72;

/// A block is ended when it has this many bytes: one page, mostly.
const BLOCK_BYTES: usize = 4 << 10;

/// The length of a hint before its key.
pub(crate) const HINT_BYTES: usize = 24;

const INDEX_ENTRY_LEN: usize = 20;
const TOMBSTONE_BIT: u32 = 1 << 31;

/// A key of a segment, and where its newest version there lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// The sequence number of the version.
    pub(crate) sequence: u64,
    /// Where its entry begins in the segment.
    pub(crate) offset: u32,
    /// The epoch it was written in.
    pub(crate) epoch: u32,
    /// The value's length in bytes; `None` is a tombstone.
    pub(crate) value_bytes: Option<u32>,
}

/// Which segment hints are of, and up to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HintsOf {
    /// The store.
    pub(crate) store_id: StoreId,
    /// The segment's id.
    pub(crate) segment: u32,
    /// The length of its header and records, all of which the hints cover.
    pub(crate) len_bytes: u32,
    /// The highest sequence number in it.
    pub(crate) last_sequence: u64,
}

impl HintsOf {
    fn place(&self, offset: u64) -> Place {
        let [low, high] = [offset & u64::from(u32::MAX), offset >> 32];
        let half = |half: u64| u32::try_from(half).unwrap_or(u32::MAX);
        Place {
            store: store_seed(&self.store_id) ^ u64::from(half(high)),
            segment: self.segment,
            offset: half(low),
        }
    }
}

/// The end of a file of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// What they are of.
    pub(crate) of: HintsOf,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// The length of their entries in the segment, in bytes.
    pub(crate) entry_bytes: u64,
    /// How many of the keys have a tombstone.
    pub(crate) tombstones: u64,
    /// Where the index begins in the file.
    pub(crate) index_at: u64,
    /// The index's checksum.
    index_crc: u32,
}

/// A block as the index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins in the file.
    pub(crate) at: u64,
    /// Its length in bytes.
    pub(crate) bytes: u32,
    /// Its first key.
    pub(crate) first_key: Box<[u8]>,
    crc: u32,
}

/// Makes the bytes of a file of hints, a piece at a time.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// What the caller is to append to the file next.
    pub(crate) out: Vec<u8>,
    /// How much of the file was handed out before `out`.
    at: u64,
    store_id: StoreId,
    segment: u32,
    block: Vec<u8>,
    first_key: Vec<u8>,
    /// The blocks: where, how long, first key. Their checksums need to know the end, and come last.
    index: Vec<u8>,
    keys: u64,
    entry_bytes: u64,
    tombstones: u64,
}

impl Encoder {
    /// Begins the hints of `segment`.
    pub(crate) fn new(store_id: StoreId, segment: u32) -> Self {
        let mut out = Vec::new();
        encode_prefix(FileKind::Hints, &mut out);
        Self {
            out,
            at: 0,
            store_id,
            segment,
            block: Vec::new(),
            first_key: Vec::new(),
            index: Vec::new(),
            keys: 0,
            entry_bytes: 0,
            tombstones: 0,
        }
    }

    /// Adds a key, which comes after all before it.
    pub(crate) fn push(&mut self, hint: &Hint<'_>) {
        if self.block.len() >= BLOCK_BYTES {
            self.end_block();
        }
        if self.block.is_empty() {
            self.first_key.clear();
            self.first_key.extend_from_slice(hint.key);
        }
        self.keys += 1;
        self.tombstones += u64::from(hint.value_bytes.is_none());
        self.entry_bytes += u64::from(ENTRY_HEADER_BYTES)
            + hint.key.len() as u64
            + u64::from(hint.value_bytes.unwrap_or(0));
        let key_len = u32::try_from(hint.key.len()).unwrap_or(u32::MAX);
        let block = &mut self.block;
        block.extend_from_slice(&hint.sequence.to_le_bytes());
        block.extend_from_slice(&hint.offset.to_le_bytes());
        block.extend_from_slice(&hint.epoch.to_le_bytes());
        let value_field = hint.value_bytes.unwrap_or(TOMBSTONE_BIT);
        block.extend_from_slice(&value_field.to_le_bytes());
        block.extend_from_slice(&key_len.to_le_bytes());
        block.extend_from_slice(hint.key);
    }

    /// Takes what is to be appended to the file.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.at += self.out.len() as u64;
        std::mem::take(&mut self.out)
    }

    /// Ends the hints of the segment's first `len_bytes`, whose highest sequence number is
    /// `last_sequence`; the last of the file's bytes.
    pub(crate) fn finish(mut self, len_bytes: u32, last_sequence: u64) -> Vec<u8> {
        self.end_block();
        let of = HintsOf {
            store_id: self.store_id,
            segment: self.segment,
            len_bytes,
            last_sequence,
        };
        let index_at = self.at + self.out.len() as u64;
        let index_crc = header_crc(of.place(index_at), &self.index);
        self.out.append(&mut self.index);
        let start = self.out.len();
        self.out.extend_from_slice(&of.store_id);
        self.out.extend_from_slice(&of.segment.to_le_bytes());
        self.out.extend_from_slice(&of.len_bytes.to_le_bytes());
        self.out.extend_from_slice(&of.last_sequence.to_le_bytes());
        self.out.extend_from_slice(&self.keys.to_le_bytes());
        self.out.extend_from_slice(&index_at.to_le_bytes());
        self.out.extend_from_slice(&index_crc.to_le_bytes());
        self.out.extend_from_slice(&self.entry_bytes.to_le_bytes());
        self.out.extend_from_slice(&self.tombstones.to_le_bytes());
        self.out.resize(start + FOOTER_BYTES - 4, 0);
        let crc = plain_crc(&self.out[start..]);
        self.out.extend_from_slice(&crc.to_le_bytes());
        self.out
    }

    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let at = self.at + self.out.len() as u64;
        let bytes = u32::try_from(self.block.len()).unwrap_or(u32::MAX);
        let key_len = u32::try_from(self.first_key.len()).unwrap_or(u32::MAX);
        let crc = block_crc(&self.store_id, self.segment, at, &self.block);
        self.index.extend_from_slice(&at.to_le_bytes());
        self.index.extend_from_slice(&bytes.to_le_bytes());
        self.index.extend_from_slice(&crc.to_le_bytes());
        self.index.extend_from_slice(&key_len.to_le_bytes());
        self.index.extend_from_slice(&self.first_key);
        self.out.append(&mut self.block);
    }
}

fn block_crc(store_id: &StoreId, segment: u32, at: u64, bytes: &[u8]) -> u32 {
    let of = HintsOf {
        store_id: *store_id,
        segment,
        len_bytes: 0,
        last_sequence: 0,
    };
    header_crc(of.place(at), bytes)
}

impl Footer {
    /// Takes a file's first and last bytes apart, of which there are `file_bytes` in all.
    pub(crate) fn decode(prefix: &[u8], footer: &[u8], file_bytes: u64) -> Result<Self, Defect> {
        decode_prefix(FileKind::Hints, prefix)?;
        if footer.len() != FOOTER_BYTES {
            return Err(Defect::Damaged("the hints end within their footer"));
        }
        if plain_crc(&footer[..FOOTER_BYTES - 4]) != read_u32(footer, FOOTER_BYTES - 4) {
            return Err(Defect::Damaged(
                "the checksum of the hints' footer is wrong",
            ));
        }
        let mut store_id = StoreId::default();
        store_id.copy_from_slice(&footer[..16]);
        let index_at = read_u64(footer, 40);
        let before_footer = file_bytes.saturating_sub(FOOTER_BYTES as u64);
        if !(PREFIX_BYTES as u64..=before_footer).contains(&index_at) {
            return Err(Defect::Damaged("the index of the hints is not within them"));
        }
        Ok(Self {
            of: HintsOf {
                store_id,
                segment: read_u32(footer, 16),
                len_bytes: read_u32(footer, 20),
                last_sequence: read_u64(footer, 24),
            },
            keys: read_u64(footer, 32),
            entry_bytes: read_u64(footer, 52),
            tombstones: read_u64(footer, 60),
            index_at,
            index_crc: read_u32(footer, 48),
        })
    }

    /// Takes the index apart, which is all that lies between [`Footer::index_at`] and the footer.
    pub(crate) fn blocks(&self, index: &[u8]) -> Result<Vec<Block>, Defect> {
        if header_crc(self.of.place(self.index_at), index) != self.index_crc {
            return Err(Defect::Damaged("the checksum of the hints' index is wrong"));
        }
        let cut_off = Defect::Damaged("the index of the hints is cut off");
        let mut blocks = Vec::new();
        let mut rest = index;
        let mut next_at = PREFIX_BYTES as u64;
        while !rest.is_empty() {
            let Some((head, tail)) = rest.split_at_checked(INDEX_ENTRY_LEN) else {
                return Err(cut_off);
            };
            let Some((key, tail)) = tail.split_at_checked(read_u32(head, 16) as usize) else {
                return Err(cut_off);
            };
            let block = Block {
                at: read_u64(head, 0),
                bytes: read_u32(head, 8),
                crc: read_u32(head, 12),
                first_key: key.into(),
            };
            if block.at != next_at {
                return Err(Defect::Damaged("the blocks of the hints do not join"));
            }
            next_at = block.at.saturating_add(u64::from(block.bytes));
            blocks.push(block);
            rest = tail;
        }
        if next_at != self.index_at {
            return Err(Defect::Damaged("the blocks of the hints do not join"));
        }
        Ok(blocks)
    }

    /// Whether `bytes` are what was written as `block`.
    pub(crate) fn verifies(&self, block: &Block, bytes: &[u8]) -> bool {
        bytes.len() == block.bytes as usize
            && block_crc(&self.of.store_id, self.of.segment, block.at, bytes) == block.crc
    }
}

/// The hint at the start of `bytes`, a part of a verified block, and its length.
pub(crate) fn split_hint(bytes: &[u8]) -> Result<(Hint<'_>, usize), &'static str> {
    let Some((head, rest)) = bytes.split_at_checked(HINT_BYTES) else {
        return Err("a hint reaches beyond its block");
    };
    let key_len = read_u32(head, 20) as usize;
    if key_len > KEY_BYTES_MAX {
        return Err("a hint's key is longer than any key");
    }
    let Some(key) = rest.get(..key_len) else {
        return Err("a hint's key reaches beyond its block");
    };
    let value_field = read_u32(head, 16);
    let hint = Hint {
        key,
        sequence: read_u64(head, 0),
        offset: read_u32(head, 8),
        epoch: read_u32(head, 12),
        value_bytes: (value_field & TOMBSTONE_BIT == 0).then_some(value_field),
    };
    Ok((hint, HINT_BYTES + key_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    fn file() -> Vec<u8> {
        let mut encoder = Encoder::new(STORE, 3);
        let mut bytes = Vec::new();
        for number in 0..400_u32 {
            let key = format!("key/{number:06}");
            encoder.push(&Hint {
                key: key.as_bytes(),
                sequence: u64::from(number) + 10,
                offset: 64 + 100 * number,
                epoch: 1,
                value_bytes: (number % 3 > 0).then_some(number),
            });
            if number % 50 == 0 {
                bytes.append(&mut encoder.take());
            }
        }
        bytes.append(&mut encoder.finish(40_064, 409));
        bytes
    }

    /// All keys of a file, or why it is refused.
    fn decode(bytes: &[u8]) -> Result<Vec<(String, u64, Option<u32>)>, Defect> {
        let cut = bytes.len().saturating_sub(FOOTER_BYTES);
        let (rest, footer) = bytes.split_at(cut);
        let footer = Footer::decode(bytes, footer, bytes.len() as u64)?;
        let (blocks, index) = rest.split_at(usize::try_from(footer.index_at).unwrap());
        let mut found = Vec::new();
        for block in footer.blocks(index)? {
            let at = usize::try_from(block.at).unwrap();
            let mut block_bytes = &blocks[at..][..block.bytes as usize];
            if !footer.verifies(&block, block_bytes) {
                return Err(Defect::Damaged("a block"));
            }
            while !block_bytes.is_empty() {
                let (hint, len) = split_hint(block_bytes).map_err(Defect::Damaged)?;
                let key = String::from_utf8(hint.key.to_vec()).unwrap();
                found.push((key, hint.sequence, hint.value_bytes));
                block_bytes = &block_bytes[len..];
            }
        }
        if footer.of.segment != 3 || footer.of.len_bytes != 40_064 {
            return Err(Defect::Damaged("of another segment"));
        }
        assert_eq!(found.len() as u64, footer.keys);
        let values: u64 = found
            .iter()
            .map(|(_, _, bytes)| u64::from(bytes.unwrap_or(0)))
            .sum();
        assert_eq!(footer.entry_bytes, 400 * (12 + 10) + values);
        assert_eq!(footer.tombstones, 134);
        Ok(found)
    }

    #[test]
    fn hints_survive_the_round_trip_and_every_flipped_bit_is_found() {
        let bytes = file();
        let found = decode(&bytes).unwrap();
        assert_eq!(found.len(), 400);
        assert_eq!(found[4], ("key/000004".to_owned(), 14, Some(4)));
        assert_eq!(found[3], ("key/000003".to_owned(), 13, None));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
    }
}
