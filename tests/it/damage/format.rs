//! Format version 1 once more, written from its specification alone: the tests' own encoder.
//!
//! It shares no code with the store, so that a change of the store's bytes cannot go unseen, and
//! it can write what the store never would.

/// The length of a segment's header, and of a record's.
pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const RECORD_HEADER: usize = 36;

/// CRC-32 (IEEE) of `bytes`, started from `initial`.
pub(crate) fn crc(initial: u32, bytes: &[u8]) -> u32 {
    let mut crc = !initial;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn fold(seed: u64) -> u32 {
    (seed ^ (seed >> 32)) as u32
}

/// The checksum of bytes at `offset` of a file of a segment, whose store's id is `store`.
pub(crate) fn place_crc(store: &[u8], segment: u32, offset: usize, bytes: &[u8]) -> u32 {
    let store = mix(u64_at(store, 0)) ^ u64_at(store, 8);
    let place = mix(store ^ (u64::from(segment) << 32 | offset as u64));
    crc(fold(place), bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Writes `value` at `at`.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at `at`.
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where the records of a segment begin and end, as their headers say.
pub(crate) fn records(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER;
    while at + RECORD_HEADER <= segment.len() && segment[at + 4] != 0 {
        let end = at + RECORD_HEADER + u32_at(segment, at + 8) as usize;
        found.push((at, end));
        at = end;
    }
    found
}

/// Makes all checksums of a record right, whatever it says.
pub(crate) fn seal_record(segment: &mut [u8], at: usize, end: usize) {
    let store = mix(u64_at(segment, 16)) ^ u64_at(segment, 24);
    let id = u64::from(u32_at(segment, 32));
    let place = |offset: usize| mix(store ^ (id << 32 | offset as u64));
    let (sequence, epoch) = (u64_at(segment, at + 16), u32_at(segment, at + 24));
    let content = |offset: usize| {
        let seed = mix(place(offset) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        fold(mix(seed ^ u64::from(epoch)))
    };
    let mut entry = at + RECORD_HEADER;
    for _ in 0..u32_at(segment, at + 12) {
        if entry + 12 > end {
            break;
        }
        let key = u32_at(segment, entry + 4) as usize;
        let value = (u32_at(segment, entry + 8) & !(1 << 31)) as usize;
        let stop = entry
            .saturating_add(12)
            .saturating_add(key)
            .saturating_add(value);
        if stop > end {
            break;
        }
        let sum = crc(content(entry), &segment[entry + 4..stop]);
        put_u32(segment, entry, sum);
        entry = stop;
    }
    let payload = crc(content(at + 1), &segment[at + RECORD_HEADER..end]);
    put_u32(segment, at + 32, payload);
    let header = crc(fold(place(at)), &segment[at + 4..at + RECORD_HEADER]);
    put_u32(segment, at, header);
}

/// Makes the checksums of a segment's header right.
pub(crate) fn seal_header(segment: &mut [u8]) {
    let prefix = crc(0, &segment[..12]);
    put_u32(segment, 12, prefix);
    let sum = crc(0, &segment[16..60]);
    put_u32(segment, 60, sum);
}

/// Makes length and checksums of a manifest right.
pub(crate) fn seal_manifest(manifest: &mut [u8]) {
    let prefix = crc(0, &manifest[..12]);
    put_u32(manifest, 12, prefix);
    let len = manifest.len();
    put_u32(manifest, 16, u32::try_from(len).unwrap());
    let sum = crc(0, &manifest[16..len - 4]);
    put_u32(manifest, len - 4, sum);
}

/// A segment in a manifest.
pub(crate) struct Listed {
    pub(crate) id: u32,
    pub(crate) state: u8,
    pub(crate) len_bytes: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// `manifest` with other segments; the next one has the id behind all of them.
pub(crate) fn with_segments(manifest: &[u8], segments: &[Listed]) -> Vec<u8> {
    let mut out = manifest[..60 + usize::from(manifest[49])].to_vec();
    put_u32(&mut out, 52, u32::try_from(segments.len()).unwrap());
    let ids = segments.iter().map(|segment| segment.id.saturating_add(1));
    let next = ids.max().unwrap_or(0).max(u32_at(manifest, 56));
    put_u32(&mut out, 56, next);
    for segment in segments {
        out.extend_from_slice(&segment.id.to_le_bytes());
        out.extend_from_slice(&[segment.state, 0, 0, 0]);
        out.extend_from_slice(&segment.len_bytes.to_le_bytes());
        out.extend_from_slice(&segment.first.to_le_bytes());
        out.extend_from_slice(&segment.last.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    seal_manifest(&mut out);
    out
}
