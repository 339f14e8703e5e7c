//! Writes packets into a batch as they come and seals it.
//!
//! Promises: one copy of a packet's bytes, no allocation per packet; buffers of batches that are done are used again. A
//! batch stays within [`Limits`]; a packet larger than [`Limits::bytes`] travels alone, one above [`Limits::hard_bytes`]
//! is refused and counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::declare::{GRPC_PREFIX, grpc_prefix};
use super::protobuf::{Out, Piece, WireType, batch, bytes_len, field_len, key, packet, varint_len};
use super::{BatchSeq, BatchStats, Context, ContextKey, Epoch, Limits, SealedBatch};
use crate::packet::{Frame, InterfaceId, Timestamp};
use crate::reason::DropReason;

/// Sealed buffers remembered for reuse: as many as are usually in flight between two acknowledgements.
const RETIRED_MAX: usize = 16;
/// Room behind [`Limits::bytes`] for the batch's own fields, the hunter id not counted.
const TAIL_MAX: usize = 192;
/// Longest key, lengths and small fields of one packet, and the room that its last number is written with.
const HEAD_MAX: usize = 80;

/// A call that owns a packet.
pub type Owner<'a> = (ContextKey, &'a Context);

/// What an [`Encoder`] is made of.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Who captures; at most 255 bytes are sensible, the configuration checks it.
    pub hunter_id: Arc<str>,
    /// This batcher's epoch.
    pub epoch: Epoch,
    /// When a batch is full.
    pub limits: Limits,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in the batch.
    Stored,
    /// It is in the batch, and the batch is full: seal.
    StoredFull,
    /// It is not in the batch, which has no room for it: seal, then push it again.
    SealFirst,
    /// It will never fit; counted in [`Encoder::oversize`].
    Refused(DropReason),
}

/// One batcher. Sequences start at 1; a new encoder needs a new [`Epoch`].
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    /// Where batches end at present.
    ends: Limits,
    open: BytesMut,
    contexts: Vec<u8>,
    known: HashMap<ContextKey, u32, ahash::RandomState>,
    last_known: Option<(ContextKey, u32)>,
    shared: Vec<u32>,
    /// The fields of the packet at hand that few have; kept for its memory.
    rare: Vec<u8>,
    /// By interface; empty for one whose name the receiver knows.
    names: Vec<Box<str>>,
    packets: u32,
    captured_bytes: u64,
    first_ts: Timestamp,
    last_ts: Timestamp,
    next_seq: u64,
    next_index: u64,
    oversize: u64,
    retired: VecDeque<Bytes>,
}

impl Encoder {
    /// An encoder with an empty batch.
    #[must_use]
    pub fn new(config: EncoderConfig) -> Self {
        let mut this = Self {
            open: BytesMut::new(),
            contexts: Vec::with_capacity(4096),
            known: HashMap::default(),
            last_known: None,
            shared: Vec::new(),
            rare: Vec::new(),
            names: Vec::new(),
            packets: 0,
            captured_bytes: 0,
            first_ts: Timestamp::default(),
            last_ts: Timestamp::default(),
            next_seq: 1,
            next_index: 0,
            oversize: 0,
            retired: VecDeque::with_capacity(RETIRED_MAX),
            ends: config.limits.lengthened(1),
            config,
        };
        this.open = BytesMut::with_capacity(this.buffer_bytes());
        this.open.put(&grpc_prefix(0));
        this
    }

    /// This batcher's epoch.
    pub const fn epoch(&self) -> Epoch {
        self.config.epoch
    }

    /// Packets in the open batch.
    pub const fn pending(&self) -> u32 {
        self.packets
    }

    /// Packets refused because they exceed [`Limits::hard_bytes`].
    pub const fn oversize(&self) -> u64 {
        self.oversize
    }

    /// Packets sealed so far: the index the next batch begins with.
    pub const fn sealed_packets(&self) -> u64 {
        self.next_index
    }

    /// Whether the open batch has waited long enough, its first packet having come `age` ago.
    pub fn is_due(&self, age: Duration) -> bool {
        self.packets > 0 && age >= self.ends.age
    }

    /// From here on batches are this many times as long in packets, bytes and time, as far as a message may be.
    pub fn lengthen(&mut self, times: u32) {
        self.ends = self.config.limits.lengthened(times);
    }

    /// From here on packets of this interface carry its name; without one the receiver looks the interface up in the registration.
    pub fn name_interface(&mut self, interface: InterfaceId, name: &str) {
        let at = usize::from(interface.0);
        if self.names.len() <= at {
            self.names.resize_with(at.saturating_add(1), Box::default);
        }
        if let Some(known) = self.names.get_mut(at) {
            *known = name.into();
        }
    }

    /// Adds a packet that belongs to `owner` and, when several calls share it, to those in `shared` too. `repeat` says it
    /// went out before in another batch, for another call.
    pub fn push(&mut self, frame: &Frame<'_>, owner: Option<Owner<'_>>, shared: &[Owner<'_>], repeat: bool) -> Pushed {
        if self.packets >= self.ends.packets {
            return Pushed::SealFirst;
        }
        let known = self.known.len();
        let contexts = self.contexts.len();
        let context = owner.map_or(0, |owner| self.context(owner));
        self.shared.clear();
        for owner in shared {
            let index = self.context(*owner);
            self.shared.push(index);
        }
        let name = self.names.get(usize::from(frame.interface.0)).map_or("", |name| name);
        let head = Head::of(frame, name, context, &self.shared, repeat, &mut self.rare);
        let total =
            self.open.len().saturating_add(head.len()).saturating_add(self.contexts.len()).saturating_add(self.tail_max());
        let ends = &self.ends;
        if total > ends.bytes && (self.packets > 0 || total > ends.hard_bytes) {
            self.forget(known, contexts);
            if self.packets > 0 {
                return Pushed::SealFirst;
            }
            self.oversize = self.oversize.saturating_add(1);
            return Pushed::Refused(DropReason::Oversize);
        }
        head.write(&mut self.open, &self.rare, frame.data);
        if self.packets == 0 {
            self.first_ts = frame.ts;
        }
        self.last_ts = frame.ts;
        self.packets = self.packets.saturating_add(1);
        self.captured_bytes = self.captured_bytes.saturating_add(frame.data.len() as u64);
        if self.packets >= ends.packets || total >= ends.bytes { Pushed::StoredFull } else { Pushed::Stored }
    }

    /// Closes the batch and opens the next; `None` when there is nothing in it. `now_ns` is wall-clock time.
    pub fn seal(&mut self, now_ns: i64, filter_version: u64, stats: &BatchStats) -> Option<SealedBatch> {
        if self.packets == 0 {
            return None;
        }
        self.write_tail(now_ns, filter_version, stats);
        let len = self.open.len().saturating_sub(GRPC_PREFIX);
        if let Some(prefix) = self.open.get_mut(..GRPC_PREFIX) {
            prefix.copy_from_slice(&grpc_prefix(len));
        }
        let sealed = SealedBatch {
            epoch: self.config.epoch,
            seq: BatchSeq(self.next_seq),
            packets: self.packets,
            first_index: self.next_index,
            captured_bytes: self.captured_bytes,
            first_ts: self.first_ts,
            last_ts: self.last_ts,
            bytes: self.take_bytes(),
        };
        self.next_seq = self.next_seq.saturating_add(1);
        self.next_index = self.next_index.saturating_add(u64::from(self.packets));
        self.packets = 0;
        self.captured_bytes = 0;
        self.forget(0, 0);
        Some(sealed)
    }

    /// The 1-based index of a context, written into the table at its first use.
    fn context(&mut self, (name, context): Owner<'_>) -> u32 {
        if let Some((last, index)) = self.last_known
            && last == name
        {
            return index;
        }
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX).saturating_add(1);
        let index = *self.known.entry(name).or_insert(next);
        if index == next {
            put_context(&mut self.contexts, context);
        }
        self.last_known = Some((name, index));
        index
    }

    /// Takes back what a packet that did not fit had added to the context table.
    fn forget(&mut self, known: usize, contexts: usize) {
        if self.known.len() > known {
            if known == 0 {
                self.known.clear();
            } else {
                self.known.retain(|_, index| *index as usize <= known);
            }
        }
        self.contexts.truncate(contexts);
        self.last_known = None;
    }

    fn tail_max(&self) -> usize {
        TAIL_MAX.saturating_add(self.config.hunter_id.len())
    }

    fn buffer_bytes(&self) -> usize {
        self.ends.bytes.saturating_add(4096)
    }

    fn write_tail(&mut self, now_ns: i64, filter_version: u64, stats: &BatchStats) {
        let out = &mut self.open;
        out.text(batch::HUNTER_ID, &self.config.hunter_id);
        out.number(batch::SEQUENCE, self.next_seq);
        out.number(batch::TIMESTAMP_NS, now_ns.cast_unsigned());
        let fields = [stats.total_captured, stats.filtered_matched, stats.dropped, u64::from(stats.buffer_usage)];
        let len = (1..).zip(fields).map(|(n, v)| field_len(n, v)).sum();
        out.open(batch::STATS, len);
        for (n, v) in (1..).zip(fields) {
            out.number(n, v);
        }
        out.varint(key(batch::EPOCH, WireType::Fixed64));
        out.put(&self.config.epoch.0.to_le_bytes());
        out.number(batch::FIRST_PACKET_INDEX, self.next_index);
        out.number(batch::FILTER_VERSION, filter_version);
        out.put(&self.contexts);
    }

    /// The written bytes. A mostly full buffer is handed over; a small batch is copied out, so that what waits for an
    /// acknowledgement occupies what it is counted as.
    fn take_bytes(&mut self) -> Bytes {
        let fresh = self.buffer_bytes();
        if self.open.len() < fresh / 4 * 3 {
            let bytes = Bytes::copy_from_slice(&self.open);
            self.open.truncate(GRPC_PREFIX);
            return bytes;
        }
        let next = match self.retired.pop_front() {
            Some(old) => match old.try_into_mut() {
                Ok(mut buffer) => {
                    buffer.clear();
                    buffer
                }
                Err(old) => {
                    if self.retired.len() < RETIRED_MAX - 1 {
                        self.retired.push_front(old);
                    }
                    BytesMut::with_capacity(fresh)
                }
            },
            None => BytesMut::with_capacity(fresh),
        };
        let full = std::mem::replace(&mut self.open, next);
        self.open.put(&grpc_prefix(0));
        let reusable = full.capacity() <= fresh.saturating_mul(2);
        let bytes = full.freeze();
        if reusable {
            self.retired.push_back(bytes.clone());
        }
        bytes
    }
}

/// One packet's encoding but for its bytes, made before it is known whether it fits.
///
/// ```text
/// key of the packet · length │ small fields │ rarely: shared contexts, interface name │ key of the bytes · length │ bytes
/// ```
struct Head {
    /// All before the bytes, or before what is rare.
    front: Piece<HEAD_MAX>,
    /// Where `front` begins: its first field is written last.
    start: usize,
    /// Bytes from the rare fields on.
    rest: usize,
}

impl Head {
    /// Room for the key and the length of the packet.
    const OUTER: usize = 6;

    /// `rare` takes the fields that few packets have, and what follows them.
    fn of(frame: &Frame<'_>, name: &str, context: u32, shared: &[u32], repeat: bool, rare: &mut Vec<u8>) -> Self {
        let data_len = frame.data.len();
        let mut front = Piece::<HEAD_MAX>::after(Self::OUTER);
        front.number(packet::TIMESTAMP_NS, frame.ts.as_nanos().cast_unsigned());
        front.number(packet::CAPTURE_LENGTH, data_len as u64);
        front.number(packet::ORIGINAL_LENGTH, u64::from(frame.wire_len));
        front.number(packet::INTERFACE_INDEX, u64::from(frame.interface.0));
        front.number(packet::LINK_TYPE, u64::from(frame.link.0));
        front.number(packet::CONTEXT, u64::from(context));
        front.number(packet::REPEAT, u64::from(repeat));
        rare.clear();
        if shared.is_empty() && name.is_empty() {
            front.open(packet::DATA, data_len);
        } else {
            put_rare(rare, shared, name);
            rare.open(packet::DATA, data_len);
        }
        let rest = rare.len().saturating_add(data_len);
        let body = front.as_slice().len().saturating_sub(Self::OUTER).saturating_add(rest);
        let mut outer = Piece::<16>::new();
        outer.open(batch::PACKETS, body);
        let start = Self::OUTER.saturating_sub(outer.as_slice().len());
        front.fill(start, outer.as_slice());
        Self { front, start, rest }
    }

    fn front(&self) -> &[u8] {
        self.front.as_slice().get(self.start..).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.front().len().saturating_add(self.rest)
    }

    fn write(&self, out: &mut BytesMut, rare: &[u8], data: &[u8]) {
        out.put(self.front());
        if !rare.is_empty() {
            out.put(rare);
        }
        out.put(data);
    }
}

fn put_rare(out: &mut Vec<u8>, shared: &[u32], name: &str) {
    if !shared.is_empty() {
        out.open(packet::SHARED_CONTEXTS, shared.iter().map(|i| varint_len(u64::from(*i))).sum());
        for index in shared {
            out.varint(u64::from(*index));
        }
    }
    out.text(packet::INTERFACE_NAME, name);
}

fn put_context(out: &mut Vec<u8>, context: &Context) {
    let text = |field, s: &str| if s.is_empty() { 0 } else { bytes_len(field, s.len()) };
    let len = text(1, &context.call_id)
        + context.filter_ids.iter().map(|id| bytes_len(2, id.len())).sum::<usize>()
        + text(3, context.leg)
        + text(4, &context.claim)
        + text(5, &context.phone_rule)
        + text(6, &context.holes);
    out.open(batch::CONTEXTS, len);
    out.text(1, &context.call_id);
    for id in &*context.filter_ids {
        out.open(2, id.len());
        out.put(id.as_bytes());
    }
    out.text(3, context.leg);
    out.text(4, &context.claim);
    out.text(5, &context.phone_rule);
    out.text(6, &context.holes);
}
