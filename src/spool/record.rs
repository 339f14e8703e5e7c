//! One record: a sealed batch on disk.
//!
//! ```text
//!  0     4         12        16        20      22         24      28
//!  +-----+---------+---------+---------+-------+----------+-------+-----------------
//!  | len | seq     | packets | before  | flags | reserved | CRC   | payload, len bytes
//!  +-----+---------+---------+---------+-------+----------+-------+-----------------
//! ```
//! Little-endian. `before` counts the packets of the segment in front of this record, so that a hole in the middle of a file is known to
//! the packet. The CRC32C covers the segment's identity (epoch and first sequence), the header without the CRC, and the payload: bytes
//! of another file that a crash left here are not taken for ours, nor is a captured copy of a spool. The payload is one `PacketBatch`
//! without its gRPC prefix. A record with the flag `FOOTER` closes a segment and says what is in it.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};

use super::fs::{FsFile, read_full};
use super::segment::Key;
use super::{Item, Tally};
use crate::batch::{BatchSeq, GRPC_PREFIX, grpc_prefix};

/// Bytes before the payload.
pub(super) const HEADER: usize = 28;
/// Largest payload: what a processor takes of an old hunter in one message (10 MiB), and what its log puts around it.
pub const MAX_PAYLOAD: usize = 12 << 20;
/// Bytes of a footer with its header.
pub(super) const FOOTER: usize = HEADER + FOOTER_PAYLOAD;

const FOOTER_PAYLOAD: usize = 16;
const IS_FOOTER: u16 = 1;
/// Bytes looked through at a time when the next whole record is searched.
const WINDOW: usize = 64 << 10;
/// How often the bytes behind a damage may be checksummed before the rest is given up: a hostile payload can look like many headers.
const SEARCH_FACTOR: u64 = 4;

/// A record's header, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) seq: u64,
    pub(super) packets: u32,
    pub(super) before: u32,
    flags: u16,
    reserved: u16,
    crc: u32,
}

impl Header {
    /// Reads the bytes; says nothing about their truth.
    fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        Some(Self {
            len: u32::from_le_bytes(take(&mut rest)?),
            seq: u64::from_le_bytes(take(&mut rest)?),
            packets: u32::from_le_bytes(take(&mut rest)?),
            before: u32::from_le_bytes(take(&mut rest)?),
            flags: u16::from_le_bytes(take(&mut rest)?),
            reserved: u16::from_le_bytes(take(&mut rest)?),
            crc: u32::from_le_bytes(take(&mut rest)?),
        })
    }

    fn head(&self) -> [u8; HEADER - 4] {
        let mut out = [0; HEADER - 4];
        let mut rest = out.as_mut_slice();
        rest.put_u32_le(self.len);
        rest.put_u64_le(self.seq);
        rest.put_u32_le(self.packets);
        rest.put_u32_le(self.before);
        rest.put_u16_le(self.flags);
        rest.put_u16_le(self.reserved);
        out
    }

    fn checksum(&self, key: Key, payload: &[u8]) -> u32 {
        let identity = crc32c::crc32c_append(crc32c::crc32c(&key.epoch.0.to_le_bytes()), &key.first.0.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(identity, &self.head()), payload)
    }

    fn encode(mut self, key: Key, payload: &[u8]) -> [u8; HEADER] {
        self.crc = self.checksum(key, payload);
        let mut out = [0; HEADER];
        let mut rest = out.as_mut_slice();
        rest.put_slice(&self.head());
        rest.put_u32_le(self.crc);
        out
    }

    /// Whether this can be a batch of a segment that may hold these sequences, with `room` bytes left in it.
    fn is_plausible(&self, seqs: &RangeInclusive<u64>, room: u64) -> bool {
        let len = self.len as usize;
        self.flags == 0
            && self.reserved == 0
            && self.packets > 0
            && (1..=MAX_PAYLOAD).contains(&len)
            && seqs.contains(&self.seq)
            && (len + HEADER) as u64 <= room
    }
}

/// Takes a fixed number of bytes from the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// The bytes of a record around its payload.
pub(super) fn encode(key: Key, item: &Item, before: u32) -> [u8; HEADER] {
    let payload = item.payload();
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    Header { len, seq: item.seq.0, packets: item.packets, before, flags: 0, reserved: 0, crc: 0 }.encode(key, payload)
}

/// The record that closes a segment.
pub(super) fn encode_footer(key: Key, last: BatchSeq, total: Tally) -> [u8; FOOTER] {
    let mut payload = [0; FOOTER_PAYLOAD];
    let mut rest = payload.as_mut_slice();
    rest.put_u64_le(total.batches);
    rest.put_u64_le(total.packets);
    let len = u32::try_from(FOOTER_PAYLOAD).unwrap_or(u32::MAX);
    let header = Header { len, seq: last.0, packets: 0, before: 0, flags: IS_FOOTER, reserved: 0, crc: 0 }.encode(key, &payload);
    let mut out = [0; FOOTER];
    let mut rest = out.as_mut_slice();
    rest.put_slice(&header);
    rest.put_slice(&payload);
    out
}

/// Reads a footer: the last sequence and what is in the segment.
pub(super) fn decode_footer(key: Key, bytes: &[u8]) -> Option<(BatchSeq, Tally)> {
    let mut rest = bytes;
    let header = Header::decode(&take(&mut rest)?)?;
    if header.flags != IS_FOOTER || header.len as usize != rest.len() || header.crc != header.checksum(key, rest) {
        return None;
    }
    let batches = u64::from_le_bytes(take(&mut rest)?);
    let packets = u64::from_le_bytes(take(&mut rest)?);
    Some((BatchSeq(header.seq), Tally { batches, packets }))
}

/// A record that was found where it was looked for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) item: Item,
    /// Where the next one begins.
    pub(super) end: u64,
}

/// The record at `at` of a segment whose records end at `end`; `None` when there is no whole and true one.
pub(super) fn read<F: FsFile>(
    file: &F,
    key: Key,
    at: u64,
    end: u64,
    seqs: &RangeInclusive<u64>,
) -> std::io::Result<Option<Found>> {
    let mut bytes = [0; HEADER];
    if end.saturating_sub(at) < HEADER as u64 || !read_full(file, at, &mut bytes)? {
        return Ok(None);
    }
    match Header::decode(&bytes) {
        Some(header) if header.is_plausible(seqs, end.saturating_sub(at)) => read_payload(file, key, at, header),
        Some(_) | None => Ok(None),
    }
}

fn read_payload<F: FsFile>(file: &F, key: Key, at: u64, header: Header) -> std::io::Result<Option<Found>> {
    let len = header.len as usize;
    let mut bytes = BytesMut::zeroed(GRPC_PREFIX + len);
    let Some((prefix, payload)) = bytes.split_at_mut_checked(GRPC_PREFIX) else { return Ok(None) };
    prefix.copy_from_slice(&grpc_prefix(len));
    if !read_full(file, at.saturating_add(HEADER as u64), payload)? || header.checksum(key, payload) != header.crc {
        return Ok(None);
    }
    let item = Item { epoch: key.epoch, seq: BatchSeq(header.seq), packets: header.packets, bytes: Bytes::from(bytes) };
    let end = at.saturating_add((HEADER + len) as u64);
    Ok(Some(Found { header, item, end }))
}

/// The first whole and true record at or behind `from`, and where it begins.
///
/// Linear in the size of the segment, whatever its bytes look like.
pub(super) fn search<F: FsFile>(
    file: &F,
    key: Key,
    from: u64,
    end: u64,
    seqs: &RangeInclusive<u64>,
) -> std::io::Result<Option<(u64, Found)>> {
    let mut budget = end.saturating_mul(SEARCH_FACTOR);
    let mut window = vec![0; WINDOW];
    let mut at = from;
    while end.saturating_sub(at) >= HEADER as u64 {
        let want = usize::try_from(end.saturating_sub(at)).unwrap_or(WINDOW).min(WINDOW);
        let Some(part) = window.get_mut(..want) else { return Ok(None) };
        if !read_full(file, at, part)? {
            return Ok(None);
        }
        for (i, candidate) in part.windows(HEADER).enumerate() {
            let start = at.saturating_add(i as u64);
            let header = candidate.first_chunk::<HEADER>().and_then(Header::decode);
            let Some(header) = header.filter(|h| h.is_plausible(seqs, end.saturating_sub(start))) else { continue };
            let Some(left) = budget.checked_sub(u64::from(header.len)) else { return Ok(None) };
            budget = left;
            if let Some(found) = read_payload(file, key, start, header)? {
                return Ok(Some((start, found)));
            }
        }
        // the last bytes of the window may begin a header that ends in the next
        at = at.saturating_add((want - (HEADER - 1)) as u64);
    }
    Ok(None)
}
