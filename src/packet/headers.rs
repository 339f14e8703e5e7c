//! What the headers of one frame say: link layer, tags, tunnels, IP, transport.
//!
//! Promises: [`decode`] allocates nothing, takes time linear in the headers, terminates and does not panic on any bytes;
//! the frame itself is never changed, so what is forwarded is what was captured. Lengths are believed only as far as bytes
//! are there: Ethernet padding is cut off, a packet the snap length cut is described as far as it goes and marked
//! [`Headers::truncated`], a zero IPv4 total length (segmentation offload) means "to the end".
//!
//! Refuses: what is not IP ([`DecodeError::NotIp`]), a base IP header that is cut or contradicts itself, and link types not
//! in [`LinkType`]. Whatever is wrong *after* a sound IP header is no error: the packet has addresses and a protocol, and
//! says [`Transport::Other`].
//!
//! ```text
//! link.rs    Ethernet, SLL, SLL2, raw, NULL, LOOP ─▶ 802.1Q tags, MPLS, PPPoE, MACsec in the clear
//!               └▶ ip.rs      IPv4, IPv6, extension headers, UDP, TCP, SCTP
//!                     └▶ tunnel.rs, esp.rs    GRE, ERSPAN, VXLAN, GENEVE, GTP-U, IP-in-IP, ESP-NULL ─▶ back to link.rs or ip.rs
//! ```
//! usual.rs reads the packets that need none of this at fixed places, first.
//!
//! To add a tunnel: a function in `tunnel.rs` that ends in a call into `link` or `ip`, and its port or protocol number in
//! `ip::transport`. To add a link type: an arm in `link::frame`.

use super::cursor::Cursor;
use super::{FiveTuple, IpProto, LinkType, ip, link, usual};

/// Default of [`DecodeOptions::max_depth`]: deeper nesting than GTP-U in IP in GRE in MPLS is not seen in practice, and
/// each level costs a hostile sender only a few bytes.
pub const MAX_DEPTH: u8 = 4;

/// Which interpretations are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Encapsulations peeled per frame; what lies deeper is described by its innermost peeled header and
    /// [`Headers::too_deep`].
    pub max_depth: u8,
    /// Reads ESP (RFC 4303) whose trailer is consistent with NULL encryption (RFC 2410) as its content.
    pub esp_null: bool,
    /// As `esp_null`, but only if the content also looks like SIP, RTP or RTCP.
    pub esp_heuristic: bool,
    /// Length of the ESP integrity value in bytes; `None` tries 12, 16, 8 and 0.
    pub esp_icv: Option<u8>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_depth: MAX_DEPTH, esp_null: false, esp_heuristic: false, esp_icv: None }
    }
}

/// Why a frame has no [`Headers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The link layer is not one we read.
    #[error("link type {} is not supported", .0.0)]
    LinkType(LinkType),
    /// The frame carries something else than IP; the `EtherType`, PPP or family number says what.
    #[error("not IP (protocol number {0:#06x})")]
    NotIp(u16),
    /// The capture ends inside the named header.
    #[error("ends inside the {0} header")]
    Truncated(&'static str),
    /// The named header contradicts itself or its surroundings.
    #[error("malformed {0} header")]
    Malformed(&'static str),
    /// More tags, labels or encapsulations than we peel, and no IP header before them.
    #[error("more encapsulations than are peeled")]
    TooDeep,
}

/// A range of bytes in the data that was decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// Bytes in the range.
    #[inline]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The bytes of `data` in the range; empty when `data` is not what was decoded.
    #[inline]
    pub fn of(self, data: &[u8]) -> &[u8] {
        data.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// TCP control bits (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);

    /// Whether every bit of `bits` is set.
    #[inline]
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
}

/// What TCP reassembly needs of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// Sequence number of the first byte (or of the SYN).
    pub seq: u32,
    /// Acknowledgement number; meaningful with [`TcpFlags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window as sent, not scaled.
    pub window: u16,
}

/// The transport header found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp(TcpFacts),
    /// SCTP; the payload begins with its first chunk.
    Sctp,
    /// Another protocol, a later fragment, or a transport header that is cut or malformed (ports are set if they are there).
    Other,
}

/// One piece of a fragmented IP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// IPv4 identification, or that of the IPv6 fragment header.
    pub id: u32,
    /// Where the piece belongs in the datagram's body, in bytes.
    pub offset: u16,
    /// Whether more pieces follow.
    pub more: bool,
    /// Protocol of the body's first byte as this piece gives it. For IPv6 only the first piece's counts (RFC 8200 §4.5).
    pub next: IpProto,
}

/// What the headers of one frame say. All ranges are into the bytes given to [`decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Addresses, ports and protocol of the innermost IP packet.
    pub tuple: FiveTuple,
    /// The outermost IP packet's, when something was peeled from it.
    pub outer: Option<FiveTuple>,
    /// The innermost transport header.
    pub transport: Transport,
    /// Set when the innermost IP packet is a piece of a larger one. Then ports are known only in the first piece.
    pub fragment: Option<Fragment>,
    /// The innermost IP packet: from its header to its end, without link padding.
    pub ip: Span,
    /// What that packet carries: the transport header and its payload, or the bytes of the piece.
    pub body: Span,
    /// Transport payload; all of `body` where there is no transport header.
    pub payload: Span,
    /// Outermost 802.1Q VLAN identifier.
    pub vlan: Option<u16>,
    /// Encapsulations peeled (VLAN tags not counted).
    pub depth: u8,
    /// Whether the capture holds less of the packet than its headers announce.
    pub truncated: bool,
    /// Whether an encapsulation was left unpeeled because of [`DecodeOptions::max_depth`].
    pub too_deep: bool,
}

impl Headers {
    pub(super) const EMPTY: Self = Self {
        tuple: FiveTuple {
            src: super::Endpoint { ip: super::Ip::v6([0; 16]), port: 0 },
            dst: super::Endpoint { ip: super::Ip::v6([0; 16]), port: 0 },
            proto: IpProto(0),
        },
        outer: None,
        transport: Transport::Other,
        fragment: None,
        ip: Span { start: 0, end: 0 },
        body: Span { start: 0, end: 0 },
        payload: Span { start: 0, end: 0 },
        vlan: None,
        depth: 0,
        truncated: false,
        too_deep: false,
    };

    /// The transport payload in `data`, the bytes that were decoded.
    #[inline]
    pub fn payload<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        self.payload.of(data)
    }
}

/// Reads the headers of a frame from the link layer to the innermost transport.
///
/// # Errors
/// [`DecodeError`] when there is no sound IP header; see the module's text.
#[inline]
pub fn decode(link: LinkType, data: &[u8], options: &DecodeOptions) -> Result<Headers, DecodeError> {
    let mut headers = Headers::EMPTY;
    decode_into(link, data, *options, &mut headers).map(|()| headers)
}

/// A place for the headers of one frame, used again for another: in a burst they lie side by side, and none is moved.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    headers: Headers,
    is_known: bool,
}

impl Decoded {
    /// Nothing yet.
    pub const EMPTY: Self = Self { headers: Headers::EMPTY, is_known: false };

    /// As [`decode`], to be kept here.
    ///
    /// # Errors
    /// As [`decode`].
    #[inline]
    pub fn decode(&mut self, link: LinkType, data: &[u8], options: &DecodeOptions) -> Result<(), DecodeError> {
        let read = decode_into(link, data, *options, &mut self.headers);
        self.is_known = read.is_ok();
        read
    }

    /// What the frame's headers say; `None` where it has none that are sound.
    #[inline]
    pub const fn headers(&self) -> Option<&Headers> {
        if self.is_known { Some(&self.headers) } else { None }
    }
}

#[inline]
fn decode_into(link: LinkType, data: &[u8], options: DecodeOptions, headers: &mut Headers) -> Result<(), DecodeError> {
    match usual::read_into(link, data, headers) {
        Some(()) => Ok(()),
        None => decode_at_length(link, data, options, headers),
    }
}

/// Header by header, whatever the packet is.
#[cold]
pub(super) fn decode_at_length(
    link: LinkType,
    data: &[u8],
    options: DecodeOptions,
    headers: &mut Headers,
) -> Result<(), DecodeError> {
    *headers = Headers::EMPTY;
    link::frame(Context { options, strict: false }, link, Cursor::new(data), headers)
}

/// Reads `packet`, which begins with an IP header and was carried as `around` says (VLAN, outer addresses, depth).
pub(super) fn decode_ip(packet: &[u8], around: &Headers, options: DecodeOptions) -> Result<Headers, DecodeError> {
    let mut headers = Headers { vlan: around.vlan, outer: around.outer, depth: around.depth, ..Headers::EMPTY };
    ip::any(Context { options, strict: false }, Cursor::new(packet), &mut headers)?;
    Ok(headers)
}

/// What holds for the rest of a decode.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) options: DecodeOptions,
    /// Set inside what only a UDP port says is a tunnel: there, lengths that do not fit mean "no tunnel".
    pub(super) strict: bool,
}

#[cfg(test)]
mod tests;
