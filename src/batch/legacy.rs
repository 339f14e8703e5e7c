//! Batches for peers without our extensions: what the contexts say goes into every packet, as strings.
//!
//! Promises: below [`LEGACY_MAX`] bytes; no empty `sip` or `rtp` sub-message (monitors conclude the protocol from their
//! presence); packets' bytes and times unchanged. When the strings would not fit, packets go without them, counted.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::declare::{GRPC_PREFIX, grpc_prefix};
use super::protobuf::{Out, batch, bytes_len, field_len, packet};
use super::{BatchSeq, BatchView, PacketView};

/// Old receivers refuse 10 MiB; a little stays free for the batch's own fields.
pub const LEGACY_MAX: usize = (10 << 20) - 4096;

/// What an old peer says, or needs to hear, about one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyMeta<'a> {
    /// The signalling it carries; for media, the call it belongs to.
    pub sip: Option<LegacySip<'a>>,
    /// The RTP header.
    pub rtp: Option<LegacyRtp>,
}

/// `SIPMetadata`, as far as it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacySip<'a> {
    /// Request method, or `RESPONSE`.
    pub method: Cow<'a, str>,
    /// Call-ID.
    pub call_id: Cow<'a, str>,
    /// User part of From.
    pub from_user: Cow<'a, str>,
    /// User part of To.
    pub to_user: Cow<'a, str>,
    /// Status code of a response, else 0.
    pub response_code: u32,
    /// P-Asserted-Identity.
    pub p_asserted_identity: Cow<'a, str>,
    /// Tag of From.
    pub from_tag: Cow<'a, str>,
    /// Tag of To.
    pub to_tag: Cow<'a, str>,
    /// URI of From.
    pub from_uri: Cow<'a, str>,
    /// URI of To.
    pub to_uri: Cow<'a, str>,
    /// Method of the `CSeq` header.
    pub cseq_method: Cow<'a, str>,
}

impl LegacySip<'_> {
    fn texts(&self) -> [(u32, &str); 10] {
        [
            (1, &self.method),
            (2, &self.call_id),
            (3, &self.from_user),
            (4, &self.to_user),
            (6, &self.p_asserted_identity),
            (7, &self.from_tag),
            (8, &self.to_tag),
            (9, &self.from_uri),
            (10, &self.to_uri),
            (13, &self.cseq_method),
        ]
    }

    fn len(&self) -> usize {
        let texts: usize = self.texts().iter().map(|(n, s)| text_len(*n, s)).sum();
        texts + field_len(5, u64::from(self.response_code))
    }

    fn write(&self, out: &mut impl Out) {
        for (n, s) in self.texts() {
            out.text(n, s);
        }
        out.number(5, u64::from(self.response_code));
    }
}

/// `RTPMetadata`: the fixed header (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegacyRtp {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u32,
    /// Sequence number.
    pub sequence: u32,
    /// Timestamp.
    pub timestamp: u32,
}

impl LegacyRtp {
    fn fields(self) -> [(u32, u64); 4] {
        let Self { ssrc, payload_type, sequence, timestamp } = self;
        [(1, ssrc.into()), (2, payload_type.into()), (3, sequence.into()), (4, timestamp.into())]
    }

    fn len(self) -> usize {
        self.fields().iter().map(|(n, v)| field_len(*n, *v)).sum()
    }
}

/// A batch for an old peer.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// The gRPC message with its prefix.
    pub bytes: Bytes,
    /// Packets that went without their strings for want of room.
    pub without_metadata: u32,
}

/// Writes `view` as an old peer expects it, numbered `sequence` on its connection. `interfaces` are the names behind the
/// packets' interface indices; `describe` says what a packet carries (protocol knowledge stays with the caller): the call
/// id of the packet's context is filled in where `describe` leaves it empty.
pub fn rewrite<'v>(
    view: &'v BatchView,
    sequence: BatchSeq,
    interfaces: &[String],
    mut describe: impl FnMut(&PacketView<'v>) -> LegacyMeta<'v>,
) -> Rewritten {
    let mut out = BytesMut::with_capacity(view.message().len().saturating_mul(2).min(LEGACY_MAX));
    out.put(&grpc_prefix(0));
    out.text(batch::HUNTER_ID, view.hunter_id());
    out.number(batch::SEQUENCE, sequence.0);
    out.number(batch::TIMESTAMP_NS, view.timestamp_ns().cast_unsigned());
    let stats = view.stats();
    let fields = [stats.total_captured, stats.filtered_matched, stats.dropped, u64::from(stats.buffer_usage)];
    out.open(batch::STATS, (1..).zip(fields).map(|(n, v)| field_len(n, v)).sum());
    for (n, v) in (1..).zip(fields) {
        out.number(n, v);
    }
    // What the packets alone will take: the strings share the rest.
    let plain: usize = view.packets().map(|p| p.data().len().saturating_add(64)).sum();
    let mut room = LEGACY_MAX.saturating_sub(plain).saturating_sub(out.len());
    let mut without_metadata = 0_u32;
    for p in view.packets() {
        let words = Words::of(&p, interfaces, describe(&p));
        let len = words.len();
        if len <= room {
            room = room.saturating_sub(len);
            put_packet(&mut out, &p, &words);
        } else {
            without_metadata = without_metadata.saturating_add(1);
            put_packet(&mut out, &p, &Words::default());
        }
    }
    let len = out.len().saturating_sub(GRPC_PREFIX);
    if let Some(prefix) = out.get_mut(..GRPC_PREFIX) {
        prefix.copy_from_slice(&grpc_prefix(len));
    }
    Rewritten { bytes: out.freeze(), without_metadata }
}

/// The strings of one packet.
#[derive(Default)]
struct Words<'a> {
    interface: &'a str,
    filter_ids: Vec<&'a str>,
    sip: Option<LegacySip<'a>>,
    rtp: Option<LegacyRtp>,
}

impl<'a> Words<'a> {
    fn of(p: &PacketView<'a>, interfaces: &'a [String], meta: LegacyMeta<'a>) -> Self {
        let registered = || interfaces.get(p.interface_index() as usize).map_or("", String::as_str);
        let interface = p.interface_name().unwrap_or_else(registered);
        let Some(context) = p.context() else {
            return Self { interface, filter_ids: Vec::new(), sip: meta.sip, rtp: meta.rtp }.without_empty();
        };
        let mut sip = meta.sip.unwrap_or_default();
        if sip.call_id.is_empty() {
            sip.call_id = Cow::Borrowed(context.call_id());
        }
        Self { interface, filter_ids: context.filter_ids().collect(), sip: Some(sip), rtp: meta.rtp }.without_empty()
    }

    fn without_empty(mut self) -> Self {
        self.sip = self.sip.filter(|sip| sip.len() > 0);
        self.rtp = self.rtp.filter(|rtp| rtp.len() > 0);
        self
    }

    fn metadata_len(&self) -> usize {
        self.sip.as_ref().map_or(0, |sip| bytes_len(7, sip.len())) + self.rtp.map_or(0, |rtp| bytes_len(8, rtp.len()))
    }

    fn len(&self) -> usize {
        let metadata = match self.metadata_len() {
            0 => 0,
            len => bytes_len(packet::METADATA, len),
        };
        let ids: usize = self.filter_ids.iter().map(|id| bytes_len(packet::MATCHED_FILTER_IDS, id.len())).sum();
        metadata + ids + text_len(packet::INTERFACE_NAME, self.interface)
    }
}

fn put_packet(out: &mut BytesMut, p: &PacketView<'_>, words: &Words<'_>) {
    let data = p.data();
    let numbers = [
        (packet::TIMESTAMP_NS, p.ts().as_nanos().cast_unsigned()),
        (packet::CAPTURE_LENGTH, data.len() as u64),
        (packet::ORIGINAL_LENGTH, u64::from(p.wire_len())),
        (packet::INTERFACE_INDEX, u64::from(p.interface_index())),
        (packet::LINK_TYPE, u64::from(p.link().0)),
    ];
    let small: usize = numbers.iter().map(|(n, v)| field_len(*n, *v)).sum();
    out.open(batch::PACKETS, small + bytes_len(packet::DATA, data.len()) + words.len());
    out.open(packet::DATA, data.len());
    out.put(data);
    for (n, v) in numbers {
        out.number(n, v);
    }
    let metadata = words.metadata_len();
    if metadata > 0 {
        out.open(packet::METADATA, metadata);
        if let Some(sip) = &words.sip {
            out.open(7, sip.len());
            sip.write(out);
        }
        if let Some(rtp) = words.rtp {
            out.open(8, rtp.len());
            for (n, v) in rtp.fields() {
                out.number(n, v);
            }
        }
    }
    out.text(packet::INTERFACE_NAME, words.interface);
    for id in &words.filter_ids {
        out.open(packet::MATCHED_FILTER_IDS, id.len());
        out.put(id.as_bytes());
    }
}

fn text_len(field: u32, s: &str) -> usize {
    if s.is_empty() { 0 } else { bytes_len(field, s.len()) }
}
