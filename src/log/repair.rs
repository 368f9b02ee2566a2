//! The recovery rule: what lies behind the last whole record of the active segment.
//!
//! A first bad record at offset *o* is corruption if a later record proves that *o* was durable
//! once, by its `synced_upto`; otherwise it is a torn tail, a record that was never finished and
//! never acknowledged as durable. Corruption is refused; a torn tail is zeroed.

use super::fault::Fault;
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::format::record::{RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader};

/// How much is looked at, or zeroed, in one go.
const PIECE_BYTES: usize = 64 << 10;

/// What lies behind the last whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros: nothing.
    Clean,
    /// A record that was never finished; its last byte that is not zero is before `end`.
    Torn {
        /// Behind the last byte that is not zero.
        end: u32,
    },
}

/// Looks at the bytes from `offset`, where the last whole record ends, up to `file_bytes`.
///
/// # Errors
/// `Corrupt` if a later record proves that the bytes at `offset` were whole once; `Io`.
pub(crate) fn examine(segment: &Segment, offset: u32, file_bytes: u32) -> Result<Tail> {
    let Some(end) = end_of_nonzero(segment, offset, file_bytes)? else {
        return Ok(Tail::Clean);
    };
    if let Some(proof) = find_proof(segment, offset, file_bytes)? {
        return Err(Error::corrupt(
            &segment.path,
            u64::from(offset),
            format!("there is no whole record, but one at offset {proof} proves that there was"),
        ));
    }
    Ok(Tail::Torn { end })
}

/// Makes what was read durable: the records from `synced_upto`, behind which nothing is known to
/// be, up to `offset`; and zeros from there up to `end`, whatever was there.
///
/// The records are written over themselves. After a failed sync the machine may take lost bytes
/// for durable, because it has them in memory still; a sync alone would then do nothing.
///
/// CRASH: records that are written over themselves stay what they are; a tail that is zeroed in
/// part is a torn tail still, and is found again.
pub(crate) fn settle(
    segment: &Segment,
    synced_upto: u32,
    offset: u32,
    end: u32,
) -> Result<(), Fault> {
    rewrite(segment, synced_upto, offset)?;
    zero(segment, offset, end)?;
    failpoint::hit!("recovery-zeroed");
    segment
        .file
        .sync()
        .map_err(|error| Fault::poison("sync", &segment.path, error))
}

/// Writes the records from `from` up to `to` over themselves.
pub(crate) fn rewrite(segment: &Segment, from: u32, to: u32) -> Result<(), Fault> {
    let mut at = from;
    while at < to {
        let next = to.min(at.saturating_add(piece_u32()));
        let view = segment.view(at, (next - at) as usize);
        let piece = view.map_err(Fault::harmless)?.into_owned();
        segment
            .file
            .write_at(u64::from(at), &piece)
            .map_err(|error| Fault::poison("write", &segment.path, error))?;
        at = next;
    }
    Ok(())
}

fn zero(segment: &Segment, offset: u32, end: u32) -> Result<(), Fault> {
    let zeros = vec![0; PIECE_BYTES.min(end.saturating_sub(offset) as usize)];
    let mut at = offset;
    while at < end {
        let piece = &zeros[..zeros.len().min((end - at) as usize)];
        segment
            .file
            .write_at(u64::from(at), piece)
            .map_err(|error| Fault::poison("write", &segment.path, error))?;
        at += u32::try_from(piece.len()).unwrap_or(end - at);
    }
    Ok(())
}

/// Behind the last byte from `offset` to `file_bytes` that is not zero; `None` if all are.
///
/// # Errors
/// `Io`.
pub(crate) fn end_of_nonzero(
    segment: &Segment,
    offset: u32,
    file_bytes: u32,
) -> Result<Option<u32>> {
    let mut end = file_bytes;
    while end > offset {
        let start = offset.max(end.saturating_sub(piece_u32()));
        let bytes = segment.view(start, (end - start) as usize)?;
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            let last = u32::try_from(last).unwrap_or(end - start);
            return Ok(Some(start + last + 1));
        }
        end = start;
    }
    Ok(None)
}

/// The offset of a record header behind `offset` that says `offset` was durable.
fn find_proof(segment: &Segment, offset: u32, file_bytes: u32) -> Result<Option<u32>> {
    let mut start = offset;
    while file_bytes - start >= RECORD_HEADER_BYTES {
        let end = file_bytes.min(start.saturating_add(piece_u32()));
        let bytes = segment.view(start, (end - start) as usize)?;
        let last = (end - start).saturating_sub(RECORD_HEADER_BYTES);
        for at in (0..=last).step_by(RECORD_ALIGN as usize) {
            let header = RecordHeader::decode(segment.place(start + at), &bytes[at as usize..]);
            if header.is_some_and(|header| header.synced_upto > offset) {
                return Ok(Some(start + at));
            }
        }
        if end == file_bytes {
            break;
        }
        // Pieces overlap by a header, so that none is cut in two.
        start = end - RECORD_HEADER_BYTES;
    }
    Ok(None)
}

fn piece_u32() -> u32 {
    const { assert!(PIECE_BYTES <= u32::MAX as usize) };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "asserted in the line above"
    )]
    let piece = PIECE_BYTES as u32;
    piece
}
