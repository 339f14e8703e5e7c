//! The protobuf wire format, as much of it as a batch needs: varints, keys, bounds-checked reading.
//!
//! Field numbers live here once, for writing and reading. Groups (wire types 3 and 4) are refused.

use super::BatchError;

/// Field numbers of `PacketBatch`.
pub(super) mod batch {
    pub(crate) const HUNTER_ID: u32 = 1;
    pub(crate) const SEQUENCE: u32 = 2;
    pub(crate) const TIMESTAMP_NS: u32 = 3;
    pub(crate) const PACKETS: u32 = 4;
    pub(crate) const STATS: u32 = 5;
    pub(crate) const EPOCH: u32 = 200;
    pub(crate) const FIRST_PACKET_INDEX: u32 = 201;
    pub(crate) const DROPPED_RANGES: u32 = 202;
    pub(crate) const FILTER_VERSION: u32 = 203;
    pub(crate) const CONTEXTS: u32 = 204;
    pub(crate) const RELAY: u32 = 205;
    pub(crate) const SKIPPED_PACKETS: u32 = 206;
}

/// Field numbers of `BatchRelay`.
pub(super) mod relay {
    pub(crate) const PATH: u32 = 1;
    pub(crate) const INTERFACES: u32 = 2;
    pub(crate) const EPOCH: u32 = 3;
    pub(crate) const SEQUENCE: u32 = 4;
}

/// Field numbers of `CapturedPacket`.
pub(super) mod packet {
    pub(crate) const DATA: u32 = 1;
    pub(crate) const TIMESTAMP_NS: u32 = 2;
    pub(crate) const CAPTURE_LENGTH: u32 = 3;
    pub(crate) const ORIGINAL_LENGTH: u32 = 4;
    pub(crate) const INTERFACE_INDEX: u32 = 5;
    pub(crate) const LINK_TYPE: u32 = 6;
    pub(crate) const METADATA: u32 = 7;
    pub(crate) const INTERFACE_NAME: u32 = 8;
    pub(crate) const MATCHED_FILTER_IDS: u32 = 9;
    pub(crate) const TLS_KEYS: u32 = 10;
    pub(crate) const CONTEXT: u32 = 200;
    pub(crate) const SHARED_CONTEXTS: u32 = 201;
    pub(crate) const REPEAT: u32 = 202;
}

/// Field numbers of `PacketMetadata` that carry what a batch's contexts carry among peers with the extensions.
pub(super) mod metadata {
    pub(crate) const SIP: u32 = 7;
    pub(crate) const RTP: u32 = 8;
}

/// How a field's value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// Bytes a varint takes: 1 to 10.
#[inline]
pub(super) const fn varint_len(v: u64) -> usize {
    let bits = 64 - (v | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// The key of a field.
pub(super) const fn key(field: u32, wire: WireType) -> u64 {
    let low = match wire {
        WireType::Varint => 0,
        WireType::Fixed64 => 1,
        WireType::Bytes => 2,
        WireType::Fixed32 => 5,
    };
    ((field as u64) << 3) | low
}

/// Bytes of a varint field with this value; 0 when it is the default and left out.
#[inline]
pub(super) const fn field_len(field: u32, v: u64) -> usize {
    if v == 0 { 0 } else { varint_len(key(field, WireType::Varint)) + varint_len(v) }
}

/// Bytes of a length-delimited field of `len` bytes, present even when empty.
#[inline]
pub(super) const fn bytes_len(field: u32, len: usize) -> usize {
    varint_len(key(field, WireType::Bytes)) + varint_len(len as u64) + len
}

/// The upper bit of every byte.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// A number as a varint, and the bytes it takes; all groups of seven bits are moved at once.
#[inline]
fn spread(v: u64) -> ([u8; 10], usize) {
    let len = varint_len(v);
    let x = v & 0x0fff_ffff | (v & 0x00ff_ffff_f000_0000) << 4;
    let x = x & 0x0000_3fff_0000_3fff | (x & 0x0fff_c000_0fff_c000) << 2;
    let x = x & 0x007f_007f_007f_007f | (x & 0x3f80_3f80_3f80_3f80) << 1;
    // every byte but the last says that another follows
    let marks = if len > 8 { CONTINUED } else { CONTINUED & ((1 << (8 * (len - 1))) - 1) };
    let [.., top] = v.to_le_bytes();
    let mut bytes = [0; 10];
    if let Some((first, last)) = bytes.split_first_chunk_mut() {
        *first = (x | marks).to_le_bytes();
        last.copy_from_slice(&[if len > 9 { top | 0x80 } else { top & 0x7f }, top >> 7]);
    }
    (bytes, len)
}

/// The number that eight bytes of a varint make.
#[inline]
const fn gather(bytes: u64) -> u64 {
    let x = bytes & 0x007f_007f_007f_007f | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let x = x & 0x0000_3fff_0000_3fff | (x & 0x3fff_0000_3fff_0000) >> 2;
    x & 0x0fff_ffff | (x & 0x0fff_ffff_0000_0000) >> 4
}

/// Somewhere encoded bytes go.
pub(super) trait Out {
    fn put(&mut self, bytes: &[u8]);

    #[inline]
    fn varint(&mut self, v: u64) {
        let (bytes, len) = spread(v);
        self.put(bytes.get(..len).unwrap_or_default());
    }

    /// A varint field; nothing for the default.
    #[inline]
    fn number(&mut self, field: u32, v: u64) {
        if v != 0 {
            self.varint(key(field, WireType::Varint));
            self.varint(v);
        }
    }

    /// The key and length of a length-delimited field; its bytes follow.
    #[inline]
    fn open(&mut self, field: u32, len: usize) {
        self.varint(key(field, WireType::Bytes));
        self.varint(len as u64);
    }

    /// A string field; nothing for the default.
    fn text(&mut self, field: u32, s: &str) {
        if !s.is_empty() {
            self.open(field, s.len());
            self.put(s.as_bytes());
        }
    }
}

impl Out for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Out for bytes::BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A small piece on the stack, so that a packet's fields reach the batch in one copy.
pub(super) struct Piece<const N: usize> {
    buf: [u8; N],
    len: usize,
}

impl<const N: usize> Piece<N> {
    #[inline]
    pub(super) const fn new() -> Self {
        Self { buf: [0; N], len: 0 }
    }

    /// A piece whose first `n` bytes are written later.
    #[inline]
    pub(super) const fn after(n: usize) -> Self {
        Self { buf: [0; N], len: n }
    }

    /// Writes bytes that were left out.
    #[inline]
    pub(super) fn fill(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.buf.get_mut(at..at.saturating_add(bytes.len())) {
            room.copy_from_slice(bytes);
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> Out for Piece<N> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        let room = self.buf.get_mut(self.len..end);
        debug_assert!(room.is_some(), "a piece holds the longest header there is");
        if let Some(room) = room {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    #[inline]
    fn varint(&mut self, v: u64) {
        let room: Option<&mut [u8; 10]> = self.buf.get_mut(self.len..).and_then(|room| room.first_chunk_mut());
        debug_assert!(room.is_some(), "a piece holds the longest header there is, and a number more");
        let Some(room) = room else { return };
        // what is written too much is written over by what comes next
        self.len += match v {
            0..0x80 => {
                let [low, ..] = v.to_le_bytes();
                [room[0], room[1]] = [low, 0];
                1
            }
            0x80..0x4000 => {
                let [low, high, ..] = (v & 0x7f | 0x80 | (v & 0x3f80) << 1).to_le_bytes();
                [room[0], room[1]] = [low, high];
                2
            }
            _ => {
                let (bytes, len) = spread(v);
                *room = bytes;
                len
            }
        };
    }
}

/// A run of bytes of the message, by position: half the size of a slice, and it outlives the borrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// The bytes it names.
    #[inline]
    pub(super) fn of(self, message: &[u8]) -> &[u8] {
        message.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The text it names; spans of text were checked when they were read.
    #[inline]
    pub(super) fn text(self, message: &[u8]) -> &str {
        std::str::from_utf8(self.of(message)).unwrap_or_default()
    }
}

/// Reads one message or sub-message; positions are those of the whole.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the sub-message at `span` of the same whole.
    #[inline]
    pub(super) fn within(whole: &'a [u8], span: Span) -> Self {
        Self { bytes: whole.get(..span.end as usize).unwrap_or_default(), at: span.start as usize }
    }

    /// Where it is in the whole.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[expect(clippy::inline_always, reason = "six numbers per packet, of one or two bytes nearly all")]
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, BatchError> {
        let rest = self.bytes.get(self.at..).ok_or(BatchError::Truncated)?;
        match rest {
            [a, ..] if *a < 0x80 => {
                self.at += 1;
                Ok(u64::from(*a))
            }
            [a, b, ..] if *b < 0x80 => {
                self.at += 2;
                Ok(u64::from(*a & 0x7f) | u64::from(*b) << 7)
            }
            _ => self.long_varint(rest),
        }
    }

    fn long_varint(&mut self, rest: &[u8]) -> Result<u64, BatchError> {
        let Some((first, [ninth, tenth])) =
            rest.first_chunk::<10>().and_then(|ten| Some((ten.first_chunk()?, ten.last_chunk()?)))
        else {
            return self.last_varint(rest);
        };
        let (first, ninth, tenth) = (u64::from_le_bytes(*first), *ninth, *tenth);
        let ends = !first & CONTINUED;
        if ends != 0 {
            self.at += ends.trailing_zeros() as usize / 8 + 1;
            // the bits up to the end of the first byte that says so
            return Ok(gather(first & (ends ^ (ends - 1))));
        }
        let (value, top) = (gather(first), u64::from(ninth & 0x7f) << 56);
        if ninth < 0x80 {
            self.at += 9;
            return Ok(value | top);
        }
        match tenth {
            0 | 1 => {
                self.at += 10;
                Ok(value | top | u64::from(tenth) << 63)
            }
            _ => Err(BatchError::Malformed("a number of more than 64 bits")),
        }
    }

    /// Near the end of the message, byte by byte.
    #[cold]
    fn last_varint(&mut self, rest: &[u8]) -> Result<u64, BatchError> {
        let mut v = 0_u64;
        for (i, b) in rest.iter().take(10).enumerate() {
            if i == 9 && *b > 1 {
                return Err(BatchError::Malformed("a number of more than 64 bits"));
            }
            v |= u64::from(*b & 0x7f) << (7 * i);
            if *b < 0x80 {
                self.at += i + 1;
                return Ok(v);
            }
        }
        Err(if rest.len() < 10 { BatchError::Truncated } else { BatchError::Malformed("a number of more than ten bytes") })
    }

    /// The byte at hand.
    #[inline]
    pub(super) fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over the byte at hand.
    #[inline]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// The next field's number and wire type.
    #[inline]
    pub(super) fn key(&mut self) -> Result<(u32, WireType), BatchError> {
        let k = self.varint()?;
        let wire = match k & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            _ => return Err(BatchError::Malformed("a group or an unknown wire type")),
        };
        match u32::try_from(k >> 3) {
            Ok(field) if field > 0 && field < 1 << 29 => Ok((field, wire)),
            _ => Err(BatchError::Malformed("a field number out of range")),
        }
    }

    /// A number, where the schema wants one.
    #[inline]
    pub(super) fn number(&mut self, wire: WireType) -> Result<u64, BatchError> {
        if wire == WireType::Varint { self.varint() } else { Err(WRONG_TYPE) }
    }

    /// An unsigned 32-bit number: wider values lose their upper bits, as protobuf has it.
    #[inline]
    pub(super) fn number32(&mut self, wire: WireType) -> Result<u32, BatchError> {
        #[expect(clippy::cast_possible_truncation, reason = "protobuf truncates wider varints")]
        self.number(wire).map(|v| v as u32)
    }

    pub(super) fn fixed64(&mut self, wire: WireType) -> Result<u64, BatchError> {
        if wire != WireType::Fixed64 {
            return Err(WRONG_TYPE);
        }
        let end = self.at.saturating_add(8);
        let raw = self.bytes.get(self.at..end).and_then(|s| <[u8; 8]>::try_from(s).ok()).ok_or(BatchError::Truncated)?;
        self.at = end;
        Ok(u64::from_le_bytes(raw))
    }

    /// A length-delimited value.
    #[inline]
    pub(super) fn span(&mut self, wire: WireType) -> Result<Span, BatchError> {
        if wire != WireType::Bytes {
            return Err(WRONG_TYPE);
        }
        let len = usize::try_from(self.varint()?).map_err(|_| BatchError::Truncated)?;
        let start = self.at;
        let end = start.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or(BatchError::Truncated)?;
        self.at = end;
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(Span { start, end }),
            _ => Err(BatchError::TooLarge { bytes: end, limit: u32::MAX as usize }),
        }
    }

    /// A string, checked.
    #[inline]
    pub(super) fn text(&mut self, wire: WireType) -> Result<Span, BatchError> {
        let span = self.span(wire)?;
        std::str::from_utf8(span.of(self.bytes)).map_err(|_| BatchError::Malformed("a string that is not UTF-8"))?;
        Ok(span)
    }

    /// Passes over a value nobody here reads.
    #[inline]
    pub(super) fn skip(&mut self, wire: WireType) -> Result<(), BatchError> {
        let step = match wire {
            WireType::Varint => return self.varint().map(drop),
            WireType::Bytes => return self.span(wire).map(drop),
            WireType::Fixed64 => 8,
            WireType::Fixed32 => 4,
        };
        let end = self.at.saturating_add(step);
        if end > self.bytes.len() {
            return Err(BatchError::Truncated);
        }
        self.at = end;
        Ok(())
    }
}

const WRONG_TYPE: BatchError = BatchError::Malformed("a known field of the wrong type");
