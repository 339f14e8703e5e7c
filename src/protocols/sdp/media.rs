//! What a session description and its media lines say.

use smallvec::SmallVec;

use crate::packet::{Endpoint, Ip};
use crate::protocols::text::Short;

/// One session description.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The media lines in their order, refused ones (port 0) included: an answer is matched to its offer by position (RFC 3264 §6).
    pub media: SmallVec<[Media; 2]>,
    /// The media ids of `a=group:BUNDLE` (RFC 8843), all groups together.
    pub bundle: SmallVec<[Short<16>; 4]>,
    /// Media lines beyond [`super::MAX_MEDIA`].
    pub dropped_media: u32,
    /// Candidates beyond [`super::MAX_CANDIDATES`] of their media line.
    pub dropped_candidates: u32,
    /// Formats beyond [`super::MAX_FORMATS`] of their media line.
    pub dropped_formats: u32,
    /// Candidates and connection addresses given by name (mDNS or DNS), which say nothing to a sniffer.
    pub names_skipped: u32,
    /// Lines that could not be read and were passed over.
    pub bad_lines: u32,
}

/// One `m=` line with what belongs to it.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute that is there or not")]
pub struct Media {
    /// What kind of media.
    pub kind: MediaKind,
    /// The port; 0 means refused (RFC 3264 §6), or bundled only (RFC 8843 §7).
    pub port: u16,
    /// Number of consecutive port pairs, `m=audio 49170/2`; at least 1.
    pub ports: u16,
    /// How it is carried.
    pub transport: Transport,
    /// The connection address: the media line's own `c=`, else the session's. `None` for `0.0.0.0`, `::`, names, and when there is none.
    pub addr: Option<Ip>,
    /// The direction attribute; the session's, when the media line has none.
    pub direction: Direction,
    /// `sendonly`, `inactive`, or the old form `c=0.0.0.0` (RFC 3264 §8.4).
    pub on_hold: bool,
    /// `a=rtcp:port [IN IP4 address]` (RFC 3605).
    pub rtcp: Option<(Option<Ip>, u16)>,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// The RTP formats in order of preference; empty for what is not RTP.
    pub formats: SmallVec<[Format; 8]>,
    /// Whether `t38` is among the formats of an UDPTL line.
    pub t38: bool,
    /// UDP candidates (RFC 8839).
    pub candidates: SmallVec<[Candidate; 4]>,
    /// `a=ice-ufrag`; the session's, when the media line has none. Empty when there is none or it is longer than 32.
    pub ice_ufrag: Short<32>,
    /// `a=mid` (RFC 5888), at most 16 bytes.
    pub mid: Short<16>,
    /// Whether `mid` is in a BUNDLE group.
    pub bundled: bool,
    /// Whether there is an `a=crypto` line (RFC 4568); the key itself is never kept.
    pub crypto: bool,
}

impl Media {
    /// Where RTP is expected: the port at the connection address; `None` when the line is refused or has no address.
    pub fn rtp(&self) -> Option<Endpoint> {
        (self.port != 0).then_some(Endpoint { ip: self.addr?, port: self.port })
    }

    /// Where RTCP is expected: the same port with `a=rtcp-mux`, else `a=rtcp`, else the next port (RFC 3605, RFC 5761). An offerer of
    /// `a=rtcp-mux` may still meet an answerer without it; then this is asked of both.
    pub fn rtcp_endpoint(&self) -> Option<Endpoint> {
        let rtp = self.rtp()?;
        if self.rtcp_mux {
            return Some(rtp);
        }
        match self.rtcp {
            Some((ip, port)) => Some(Endpoint { ip: ip.unwrap_or(rtp.ip), port }),
            None => Some(Endpoint { ip: rtp.ip, port: rtp.port.checked_add(1)? }),
        }
    }

    /// The format with this payload type.
    pub fn format(&self, payload_type: u8) -> Option<&Format> {
        self.formats.iter().find(|format| format.payload_type == payload_type)
    }
}

/// An RTP format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// RTP payload type, 0–127.
    pub payload_type: u8,
    /// Encoding name as written, at most 16 bytes; empty for a dynamic type without `a=rtpmap`.
    pub codec: Short<16>,
    /// RTP clock rate; 0 when not known.
    pub clock_hz: u32,
    /// Audio channels, 1 when not said.
    pub channels: u8,
}

/// An ICE candidate over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 for RTP, 2 for RTCP.
    pub component: u8,
    /// How it was found.
    pub kind: CandidateKind,
    /// Where.
    pub endpoint: Endpoint,
}

/// `typ` of a candidate (RFC 8839 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// As a STUN server saw it.
    ServerReflexive,
    /// As the peer saw it.
    PeerReflexive,
    /// An address of a TURN relay.
    Relayed,
}

/// The media name of an `m=` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `image`
    Image,
    /// `application`
    Application,
    /// `message`
    Message,
    /// `text`
    Text,
    /// Any other.
    #[default]
    Other,
}

/// The transport of an `m=` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// `RTP/AVP`, `RTP/AVPF`
    Rtp,
    /// `RTP/SAVP`, `RTP/SAVPF`: SRTP with keys from signalling.
    Srtp,
    /// `UDP/TLS/RTP/SAVP`, `UDP/TLS/RTP/SAVPF`: SRTP with keys from DTLS.
    DtlsSrtp,
    /// `udptl`: T.38.
    Udptl,
    /// `UDP/TLS/UDPTL`
    DtlsUdptl,
    /// `DTLS/SCTP`, `UDP/DTLS/SCTP`: data channels.
    DtlsSctp,
    /// Anything over TCP: MSRP, BFCP, RTP in TCP.
    Tcp,
    /// `udp` with a format of its own.
    Udp,
    /// Any other.
    #[default]
    Other,
}

impl Transport {
    /// Whether what flows is RTP or SRTP over UDP.
    pub const fn is_rtp(self) -> bool {
        matches!(self, Self::Rtp | Self::Srtp | Self::DtlsSrtp)
    }
}

/// Who sends (RFC 8866 §6.7), seen from the one who wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// Only the writer.
    SendOnly,
    /// Only the other.
    RecvOnly,
    /// Nobody.
    Inactive,
}
