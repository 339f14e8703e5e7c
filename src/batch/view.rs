//! Reads a batch in place: one walk over the protobuf checks every bound and remembers where things are; packets are then
//! slices of the received message.
//!
//! Promises: fields in any order, unknown ones skipped, repeated scalars last-wins and sub-messages merged as protobuf has
//! it; batches of peers with and without our extensions; memory in proportion to [`ViewLimits`], whatever the bytes.
//! Refuses the whole batch on a broken length, a string that is not UTF-8, a context index without a context, or a limit.

mod entries;
mod parts;

use bytes::Bytes;
use thiserror::Error;

use self::parts::{read_metadata, read_range};
use super::protobuf::{Cursor, Span, WireType, batch, key, metadata, packet, relay};
use super::{BatchSeq, BatchStats, Epoch, HOPS_MAX};
pub use entries::{ContextView, DroppedView, PacketView};

/// What one received batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewLimits {
    /// Bytes of the message; default 10 MiB, what old hunters may send, and 128 KiB that processors on the way may add.
    pub bytes: usize,
    /// Packets; default 16 384, sixteen times what our hunters send.
    pub packets: usize,
    /// Contexts, and separately dropped ranges; default 16 384.
    pub contexts: usize,
    /// Filter ids and shared contexts over the whole batch; default 65 536.
    pub references: usize,
}

impl Default for ViewLimits {
    fn default() -> Self {
        Self { bytes: (10 << 20) + (128 << 10), packets: super::LONG_PACKETS as usize, contexts: 16_384, references: 65_536 }
    }
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// A length points behind the end.
    #[error("batch ends inside a field")]
    Truncated,
    /// Not what the schema says.
    #[error("batch is malformed: {0}")]
    Malformed(&'static str),
    /// Larger than a batch may be.
    #[error("batch of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More of something than a batch may hold.
    #[error("batch has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A packet names a context the batch does not have.
    #[error("packet names context {index} of {contexts}")]
    NoSuchContext {
        /// 1-based index.
        index: u32,
        /// How many there are.
        contexts: usize,
    },
}

/// Keys of the fields that every packet has, each a byte: number and wire type.
const BYTES: u8 = 0x0a;
const TIME: u8 = 0x10;
const CAPTURED: u8 = 0x18;
const ORIGINAL: u8 = 0x20;
const LINK: u8 = 0x30;
const _: () = {
    assert!(key(packet::DATA, WireType::Bytes) == BYTES as u64 && key(packet::TIMESTAMP_NS, WireType::Varint) == TIME as u64);
    assert!(
        key(packet::CAPTURE_LENGTH, WireType::Varint) == CAPTURED as u64
            && key(packet::LINK_TYPE, WireType::Varint) == LINK as u64
    );
    assert!(key(packet::ORIGINAL_LENGTH, WireType::Varint) == ORIGINAL as u64);
};

/// A batch as received.
#[derive(Clone, Debug)]
pub struct BatchView {
    message: Bytes,
    hunter_id: Span,
    sequence: u64,
    timestamp_ns: i64,
    epoch: u64,
    first_packet_index: u64,
    filter_version: u64,
    stats: BatchStats,
    packets: Vec<RawPacket>,
    contexts: Vec<RawContext>,
    ranges: Vec<RawRange>,
    texts: Vec<Span>,
    shared: Vec<u32>,
    legacy: Vec<RawLegacy>,
    /// Processors that passed it on.
    path: Vec<Span>,
    interfaces: Vec<Span>,
    relay_key: (u64, u64),
    /// Session secrets of TLS that came with packets.
    tls_keys: u64,
}

/// What a batch of this epoch and number is recognised by, where `given` stands in its relay.
pub(super) const fn key_by(epoch: u64, seq: u64, given: (u64, u64)) -> Option<(Epoch, BatchSeq)> {
    match (epoch, given) {
        (0, (0, _)) => None,
        (0, (epoch, given)) if given != 0 => Some((Epoch(epoch), BatchSeq(given))),
        (0, (epoch, _)) | (epoch, _) => Some((Epoch(epoch), BatchSeq(seq))),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct RawPacket {
    ts: i64,
    data: Span,
    wire_len: u32,
    link: u32,
    interface: u32,
    context: u32,
    shared_start: u32,
    shared_len: u32,
    /// 1-based into `legacy`.
    legacy: u32,
    repeat: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct RawContext {
    call_id: Span,
    leg: Span,
    claim: Span,
    phone_rule: Span,
    holes: Span,
    filters_start: u32,
    filters_len: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct RawRange {
    from: u64,
    to: u64,
    packets: u64,
    reason: Span,
}

#[derive(Clone, Copy, Debug, Default)]
struct RawLegacy {
    interface_name: Span,
    filters_start: u32,
    filters_len: u32,
    has_sip: bool,
    has_rtp: bool,
    response_code: u32,
    /// By field number of `SIPMetadata`, 0 unused.
    sip: [Span; 14],
    /// By field number of `RTPMetadata`, 0 unused.
    rtp: [u32; 5],
}

impl BatchView {
    /// Reads a `PacketBatch` (without gRPC prefix).
    ///
    /// # Errors
    /// [`BatchError`]; the batch is refused as a whole.
    pub fn parse(message: Bytes, limits: &ViewLimits) -> Result<Self, BatchError> {
        if message.len() > limits.bytes {
            return Err(BatchError::TooLarge { bytes: message.len(), limit: limits.bytes });
        }
        let mut view = Self {
            hunter_id: Span::default(),
            sequence: 0,
            timestamp_ns: 0,
            epoch: 0,
            first_packet_index: 0,
            filter_version: 0,
            stats: BatchStats::default(),
            // An average packet with its framing is above 64 bytes; growth covers the rest.
            packets: Vec::with_capacity((message.len() / 64).min(1024).min(limits.packets)),
            contexts: Vec::new(),
            ranges: Vec::new(),
            texts: Vec::new(),
            shared: Vec::new(),
            legacy: Vec::new(),
            path: Vec::new(),
            interfaces: Vec::new(),
            relay_key: (0, 0),
            tls_keys: 0,
            message: Bytes::new(),
        };
        view.read(&message, limits)?;
        view.check_contexts()?;
        view.message = message;
        Ok(view)
    }

    fn read(&mut self, whole: &[u8], limits: &ViewLimits) -> Result<(), BatchError> {
        let mut at = Cursor::new(whole);
        while !at.at_end() {
            let (field, wire) = at.key()?;
            match field {
                batch::PACKETS => {
                    let span = at.span(wire)?;
                    room("packets", self.packets.len(), limits.packets)?;
                    let raw = self.read_packet(whole, span, limits)?;
                    self.packets.push(raw);
                }
                batch::HUNTER_ID => self.hunter_id = at.text(wire)?,
                batch::SEQUENCE => self.sequence = at.number(wire)?,
                batch::TIMESTAMP_NS => self.timestamp_ns = at.number(wire)?.cast_signed(),
                batch::STATS => {
                    let span = at.span(wire)?;
                    self.read_stats(whole, span)?;
                }
                batch::EPOCH => self.epoch = at.fixed64(wire)?,
                batch::FIRST_PACKET_INDEX => self.first_packet_index = at.number(wire)?,
                batch::FILTER_VERSION => self.filter_version = at.number(wire)?,
                batch::DROPPED_RANGES => {
                    let span = at.span(wire)?;
                    room("dropped ranges", self.ranges.len(), limits.contexts)?;
                    self.ranges.push(read_range(whole, span)?);
                }
                batch::CONTEXTS => {
                    let span = at.span(wire)?;
                    room("contexts", self.contexts.len(), limits.contexts)?;
                    let raw = self.read_context(whole, span, limits)?;
                    self.contexts.push(raw);
                }
                batch::RELAY => {
                    let span = at.span(wire)?;
                    self.read_relay(whole, span, limits)?;
                }
                _ => at.skip(wire)?,
            }
        }
        Ok(())
    }

    fn read_packet(&mut self, whole: &[u8], span: Span, limits: &ViewLimits) -> Result<RawPacket, BatchError> {
        let mut raw = RawPacket { shared_start: count(self.shared.len()), ..RawPacket::default() };
        let mut at = Cursor::within(whole, span);
        while !at.at_end() {
            // the fields of every packet of ours first; each key is one byte
            let known = at.byte().filter(|key| matches!(*key, TIME | CAPTURED | ORIGINAL | LINK | BYTES));
            let Some(key) = known else {
                self.read_field(&mut at, &mut raw, whole, limits)?;
                continue;
            };
            at.step();
            match key {
                TIME => raw.ts = at.varint()?.cast_signed(),
                ORIGINAL => raw.wire_len = at.number32(WireType::Varint)?,
                LINK => raw.link = at.number32(WireType::Varint)?,
                BYTES => raw.data = at.span(WireType::Bytes)?,
                _ => at.skip(WireType::Varint)?,
            }
        }
        raw.shared_len = count(self.shared.len()).saturating_sub(raw.shared_start);
        Ok(raw)
    }

    /// Any field of a packet.
    fn read_field(
        &mut self,
        at: &mut Cursor<'_>,
        raw: &mut RawPacket,
        whole: &[u8],
        limits: &ViewLimits,
    ) -> Result<(), BatchError> {
        let (field, wire) = at.key()?;
        match field {
            packet::DATA => raw.data = at.span(wire)?,
            packet::TIMESTAMP_NS => raw.ts = at.number(wire)?.cast_signed(),
            packet::ORIGINAL_LENGTH => raw.wire_len = at.number32(wire)?,
            packet::INTERFACE_INDEX => raw.interface = at.number32(wire)?,
            packet::LINK_TYPE => raw.link = at.number32(wire)?,
            packet::CONTEXT => raw.context = at.number32(wire)?,
            packet::REPEAT => raw.repeat = at.number(wire)? != 0,
            packet::SHARED_CONTEXTS if wire == WireType::Bytes => {
                let packed = at.span(wire)?;
                let mut numbers = Cursor::within(whole, packed);
                while !numbers.at_end() {
                    room("shared contexts", self.shared.len(), limits.references)?;
                    self.shared.push(numbers.number32(WireType::Varint)?);
                }
            }
            packet::SHARED_CONTEXTS => {
                room("shared contexts", self.shared.len(), limits.references)?;
                self.shared.push(at.number32(wire)?);
            }
            packet::METADATA => {
                let span = at.span(wire)?;
                let mut old = self.legacy_of(raw);
                read_metadata(&mut old, whole, span)?;
                self.store_legacy(*raw, old);
            }
            packet::INTERFACE_NAME => {
                let mut old = self.legacy_of(raw);
                old.interface_name = at.text(wire)?;
                self.store_legacy(*raw, old);
            }
            packet::MATCHED_FILTER_IDS => {
                room("filter ids", self.texts.len(), limits.references)?;
                let mut old = self.legacy_of(raw);
                self.texts.push(at.text(wire)?);
                old.filters_len = old.filters_len.saturating_add(1);
                self.store_legacy(*raw, old);
            }
            packet::TLS_KEYS => {
                at.skip(wire)?;
                self.tls_keys = self.tls_keys.saturating_add(1);
            }
            _ => at.skip(wire)?,
        }
        Ok(())
    }

    fn legacy_of(&mut self, raw: &mut RawPacket) -> RawLegacy {
        if raw.legacy == 0 {
            self.legacy.push(RawLegacy { filters_start: count(self.texts.len()), ..RawLegacy::default() });
            raw.legacy = count(self.legacy.len());
        }
        self.legacy.last().copied().unwrap_or_default()
    }

    fn store_legacy(&mut self, raw: RawPacket, old: RawLegacy) {
        debug_assert_eq!(raw.legacy as usize, self.legacy.len(), "the packet being read is the last one with old fields");
        if let Some(last) = self.legacy.last_mut() {
            *last = old;
        }
    }

    fn read_stats(&mut self, whole: &[u8], span: Span) -> Result<(), BatchError> {
        let mut at = Cursor::within(whole, span);
        while !at.at_end() {
            match at.key()? {
                (1, wire) => self.stats.total_captured = at.number(wire)?,
                (2, wire) => self.stats.filtered_matched = at.number(wire)?,
                (3, wire) => self.stats.dropped = at.number(wire)?,
                (4, wire) => self.stats.buffer_usage = at.number32(wire)?,
                (_, wire) => at.skip(wire)?,
            }
        }
        Ok(())
    }

    fn read_context(&mut self, whole: &[u8], span: Span, limits: &ViewLimits) -> Result<RawContext, BatchError> {
        let mut raw = RawContext { filters_start: count(self.texts.len()), ..RawContext::default() };
        let mut at = Cursor::within(whole, span);
        while !at.at_end() {
            match at.key()? {
                (1, wire) => raw.call_id = at.text(wire)?,
                (2, wire) => {
                    room("filter ids", self.texts.len(), limits.references)?;
                    self.texts.push(at.text(wire)?);
                }
                (3, wire) => raw.leg = at.text(wire)?,
                (4, wire) => raw.claim = at.text(wire)?,
                (5, wire) => raw.phone_rule = at.text(wire)?,
                (6, wire) => raw.holes = at.text(wire)?,
                (_, wire) => at.skip(wire)?,
            }
        }
        raw.filters_len = count(self.texts.len()).saturating_sub(raw.filters_start);
        Ok(raw)
    }

    fn read_relay(&mut self, whole: &[u8], span: Span, limits: &ViewLimits) -> Result<(), BatchError> {
        let mut at = Cursor::within(whole, span);
        while !at.at_end() {
            match at.key()? {
                (relay::PATH, wire) => {
                    // one more than is taken, so that whoever takes it can say so
                    room("processors that passed it on", self.path.len(), HOPS_MAX + 1)?;
                    self.path.push(at.text(wire)?);
                }
                (relay::INTERFACES, wire) => {
                    room("interfaces", self.interfaces.len(), limits.contexts)?;
                    self.interfaces.push(at.text(wire)?);
                }
                (relay::EPOCH, wire) => self.relay_key.0 = at.fixed64(wire)?,
                (relay::SEQUENCE, wire) => self.relay_key.1 = at.fixed64(wire)?,
                (_, wire) => at.skip(wire)?,
            }
        }
        Ok(())
    }

    /// Contexts may stand behind the packets, so indices are checked when all is read.
    fn check_contexts(&self) -> Result<(), BatchError> {
        let contexts = self.contexts.len();
        let bad = |index: u32| index as usize > contexts;
        let first = self.packets.iter().map(|p| p.context).find(|index| bad(*index));
        match first.or_else(|| self.shared.iter().copied().find(|index| *index == 0 || bad(*index))) {
            None => Ok(()),
            Some(index) => Err(BatchError::NoSuchContext { index, contexts }),
        }
    }

    /// Who captured.
    pub fn hunter_id(&self) -> &str {
        self.hunter_id.text(&self.message)
    }

    /// What it takes in memory, beside the message what was noted of it: thousands of packets without a byte are a short message.
    pub fn bytes(&self) -> usize {
        fn of<T>(all: &Vec<T>) -> usize {
            all.capacity().saturating_mul(size_of::<T>())
        }
        let noted =
            [of(&self.packets), of(&self.contexts), of(&self.ranges), of(&self.texts), of(&self.shared), of(&self.legacy)];
        let way = [of(&self.path), of(&self.interfaces)];
        noted.into_iter().chain(way).fold(self.message.len(), usize::saturating_add)
    }

    /// The batch's number in its epoch, or in its connection for peers without epochs.
    pub const fn sequence(&self) -> BatchSeq {
        BatchSeq(self.sequence)
    }

    /// The batcher; `None` from peers without our extensions.
    pub fn epoch(&self) -> Option<Epoch> {
        (self.epoch != 0).then_some(Epoch(self.epoch))
    }

    /// Epoch and number by which it is recognised: its batcher's, or what the first processor that passed it on gave to its stream.
    pub const fn key(&self) -> Option<(Epoch, BatchSeq)> {
        key_by(self.epoch, self.sequence, self.relay_key)
    }

    /// Whether a processor passed it on: it does not come from its hunter.
    pub const fn is_passed_on(&self) -> bool {
        !self.path.is_empty()
    }

    /// Processors that passed it on, the first of them first; none: it comes from its hunter.
    pub fn path(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.path.iter().map(|span| span.text(&self.message))
    }

    /// The names behind its interface indices, where it was passed on.
    pub fn relay_interfaces(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.interfaces.iter().map(|span| span.text(&self.message))
    }

    /// The sender's wall clock at sealing, ns since 1970; not to be trusted for liveness.
    pub const fn timestamp_ns(&self) -> i64 {
        self.timestamp_ns
    }

    /// Packets sealed in this epoch before this batch.
    pub const fn first_packet_index(&self) -> u64 {
        self.first_packet_index
    }

    /// The filter set that chose these packets.
    pub const fn filter_version(&self) -> u64 {
        self.filter_version
    }

    /// The sender's totals.
    pub const fn stats(&self) -> BatchStats {
        self.stats
    }

    /// How many session secrets of TLS came with its packets; [`without_tls_keys`](super::without_tls_keys) takes them out.
    pub const fn tls_keys(&self) -> u64 {
        self.tls_keys
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The message this reads.
    pub const fn message(&self) -> &Bytes {
        &self.message
    }

    /// The packets in order.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = PacketView<'_>> + Clone {
        self.packets.iter().map(|raw| PacketView { view: self, raw })
    }

    /// The contexts in order; a packet's index counts from 1.
    pub fn contexts(&self) -> impl ExactSizeIterator<Item = ContextView<'_>> + Clone {
        self.contexts.iter().map(|raw| ContextView { view: self, raw })
    }

    /// Sealed batches the sender gave up.
    pub fn dropped_ranges(&self) -> impl ExactSizeIterator<Item = DroppedView<'_>> + Clone {
        self.ranges.iter().map(|raw| DroppedView {
            from: BatchSeq(raw.from),
            to: BatchSeq(raw.to),
            packets: raw.packets,
            reason: raw.reason.text(&self.message),
        })
    }

    fn context(&self, index: u32) -> Option<ContextView<'_>> {
        let raw = self.contexts.get(index.checked_sub(1)? as usize)?;
        Some(ContextView { view: self, raw })
    }

    fn texts(&self, start: u32, len: u32) -> impl ExactSizeIterator<Item = &str> + Clone {
        let end = start.saturating_add(len) as usize;
        self.texts.get(start as usize..end).unwrap_or_default().iter().map(|span| span.text(&self.message))
    }
}

fn room(what: &'static str, have: usize, limit: usize) -> Result<(), BatchError> {
    if have < limit { Ok(()) } else { Err(BatchError::TooMany { what, limit }) }
}

/// Counts stay below 2³²: every element takes at least one byte of a message whose spans fit 32 bits.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
