//! Sealed batches that were given up, told to the receiver so that a gap in the sequence always has a reason.
//!
//! A sealed batch is never opened again: protobuf lets further fields follow, so the declaration is appended behind it and
//! only the gRPC length in front changes.

use bytes::{BufMut, Bytes, BytesMut};

use super::protobuf::{Out, batch, field_len};
use super::{BatchSeq, SealedBatch};
use crate::reason::DropReason;

/// Length of the prefix gRPC puts before every message.
pub const GRPC_PREFIX: usize = 5;

/// The prefix of an uncompressed gRPC message of `len` bytes; lengths above 4 GiB saturate (no batch comes near).
#[must_use]
pub fn grpc_prefix(len: usize) -> [u8; GRPC_PREFIX] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// Consecutive batches of one epoch that will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedRange {
    /// The first of them.
    pub from: BatchSeq,
    /// The last of them.
    pub to: BatchSeq,
    /// How many packets they held.
    pub packets: u64,
    /// Why.
    pub reason: DropReason,
}

/// The reason of batches that another processor has taken over: they are not lost, and how many packets they held the receiver knows best.
pub const ELSEWHERE: &str = "elsewhere";

/// The batch as gRPC data, with `ranges` declared behind its own fields, and the batches before it that are elsewhere: at most three pieces, the
/// sealed one not copied.
#[must_use]
pub fn with_ranges(sealed: &SealedBatch, ranges: &[DroppedRange], elsewhere: Option<(BatchSeq, BatchSeq)>) -> [Bytes; 3] {
    if ranges.is_empty() && elsewhere.is_none() {
        return [sealed.bytes.clone(), Bytes::new(), Bytes::new()];
    }
    let mut tail = BytesMut::with_capacity(ranges.len().saturating_mul(48));
    for range in ranges {
        put_range(&mut tail, (range.from, range.to), range.packets, range.reason.name());
    }
    if let Some(range) = elsewhere {
        put_range(&mut tail, range, 0, ELSEWHERE);
    }
    let body = sealed.message();
    let mut prefix = BytesMut::with_capacity(GRPC_PREFIX);
    prefix.put_slice(&grpc_prefix(body.len().saturating_add(tail.len())));
    [prefix.freeze(), body, tail.freeze()]
}

fn put_range(out: &mut impl Out, (from, to): (BatchSeq, BatchSeq), packets: u64, reason: &str) {
    let len = field_len(1, from.0) + field_len(2, to.0) + field_len(3, packets) + 2 + reason.len();
    out.open(batch::DROPPED_RANGES, len);
    out.number(1, from.0);
    out.number(2, to.0);
    out.number(3, packets);
    out.text(4, reason);
}
