//! How far each epoch was acknowledged, as a small file: a hint that spares the processor batches it has.
//!
//! ```text
//!  0          8       12
//!  +----------+-------+-------------------------+-------+
//!  | LCACK001 | count | count × (epoch, seq)    | CRC32C|
//!  +----------+-------+-------------------------+-------+
//! ```
//! It is not synced: a stale or missing one costs duplicates that the processor recognises.

use std::collections::BTreeMap;

use bytes::BufMut;

use super::record::take;
use crate::batch::{BatchSeq, Epoch};

/// Its name.
pub(super) const NAME: &str = "ack";
/// Epochs remembered: as many as a processor remembers per hunter.
pub(super) const EPOCHS: usize = 64;
const MAGIC: [u8; 8] = *b"LCACK001";

pub(super) type Acked = BTreeMap<Epoch, BatchSeq>;

pub(super) fn encode(acked: &Acked) -> Vec<u8> {
    // the newest, should there be more
    let skip = acked.len().saturating_sub(EPOCHS);
    let mut out = Vec::with_capacity(16 + EPOCHS * 16);
    out.put_slice(&MAGIC);
    out.put_u32_le(u32::try_from(acked.len() - skip).unwrap_or(0));
    for (epoch, seq) in acked.iter().skip(skip) {
        out.put_u64_le(epoch.0);
        out.put_u64_le(seq.0);
    }
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// `None` for anything that is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Acked> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body;
    if take(&mut rest)? != MAGIC {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut acked = Acked::new();
    for _ in 0..count {
        let epoch = Epoch(u64::from_le_bytes(take(&mut rest)?));
        acked.insert(epoch, BatchSeq(u64::from_le_bytes(take(&mut rest)?)));
    }
    Some(acked)
}
