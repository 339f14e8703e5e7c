//! Frame headers (RFC 6455 §5.2).

use super::MAX_MESSAGE;
use crate::protocols::text::from;

/// The longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: u64 = 125;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) compressed: bool,
    opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    /// Bytes of the header itself.
    pub(super) len: usize,
    /// Bytes of payload.
    pub(super) payload: u64,
}

/// Not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

impl Header {
    /// Reads the header at the front of `buf`; `None` when there are too few bytes.
    pub(super) fn read(buf: &[u8]) -> Result<Option<Self>, BadFrame> {
        let [b0, b1, rest @ ..] = buf else { return Ok(None) };
        if b0 & 0x30 != 0 || !matches!(b0 & 0x0f, 0..=2 | 8..=10) {
            return Err(BadFrame);
        }
        let (payload, rest, extended) = match (b1 & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 2_usize),
            (127, _) => match rest.first_chunk::<8>() {
                Some(long) => (u64::from_be_bytes(*long), from(rest, 8), 8),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest, 0),
        };
        let masked = b1 & 0x80 != 0;
        let mask = match rest.first_chunk::<4>() {
            Some(key) if masked => Some(*key),
            None if masked => return Ok(None),
            _ => None,
        };
        let header = Self {
            fin: b0 & 0x80 != 0,
            compressed: b0 & 0x40 != 0,
            opcode: b0 & 0x0f,
            mask,
            len: extended.saturating_add(if masked { 6 } else { 2 }),
            payload,
        };
        let too_large = payload > i64::MAX.unsigned_abs();
        let bad_control = header.is_control() && (!header.fin || payload > MAX_CONTROL || header.compressed);
        let bad_continuation = header.is_continuation() && header.compressed;
        if too_large || bad_control || bad_continuation { Err(BadFrame) } else { Ok(Some(header)) }
    }

    pub(super) const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    pub(super) const fn is_continuation(&self) -> bool {
        self.opcode == 0
    }

    /// The payload's length as far as it is of interest: anything above the limit is as good as the limit and one.
    pub(super) fn payload_len(&self) -> usize {
        usize::try_from(self.payload).unwrap_or(usize::MAX).min(MAX_MESSAGE.saturating_add(1))
    }
}

/// Adds `payload` to `out`, unmasked (RFC 6455 §5.3).
pub(super) fn unmask(out: &mut Vec<u8>, payload: &[u8], mask: Option<[u8; 4]>) {
    let Some(mask) = mask else {
        out.extend_from_slice(payload);
        return;
    };
    let begin = out.len();
    out.extend_from_slice(payload);
    for chunk in out.get_mut(begin..).unwrap_or_default().chunks_mut(4) {
        for (b, key) in chunk.iter_mut().zip(mask) {
            *b ^= key;
        }
    }
}
