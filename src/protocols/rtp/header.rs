//! The RTP header (RFC 3550 §5.1), and telling media from other datagrams.

use std::ops::Range;

use super::{u16_at, u32_at};

/// Why bytes are not what they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);

/// One RTP header.
///
/// ```text
///  0                   1                   2                   3
/// |V=2|P|X|  CC   |M|     PT      |       sequence number         |
/// |                           timestamp                           |
/// |                             SSRC                              |
/// |                   CSRC × CC · extension (X)                   |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// M: for audio, the first packet of a talk spurt (RFC 3551 §4.1).
    pub marker: bool,
    /// PT.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// In units of the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// CC: contributing sources.
    pub csrc_count: u8,
    /// The profile of the header extension, when there is one.
    pub extension: Option<u16>,
    /// Octets of padding at the end.
    pub padding: u8,
    /// Where the payload lies in the datagram, padding excluded.
    pub payload: Range<usize>,
}

/// The fixed header without contributing sources.
const MIN_LEN: usize = 12;

impl Header {
    /// Reads the header of a whole datagram.
    ///
    /// # Errors
    /// The datagram is too short for what its header says, or not version 2.
    pub fn parse(datagram: &[u8]) -> Result<Self, Violation> {
        let short = Violation("rtp: shorter than its header says");
        let [first, second, ..] = *datagram else { return Err(short) };
        if first >> 6 != 2 {
            return Err(Violation("rtp: not version 2"));
        }
        let csrc_count = first & 0x0f;
        let sequence = u16_at(datagram, 2).ok_or(short)?;
        let timestamp = u32_at(datagram, 4).ok_or(short)?;
        let ssrc = u32_at(datagram, 8).ok_or(short)?;
        let mut start = MIN_LEN.saturating_add(usize::from(csrc_count).saturating_mul(4));
        let mut extension = None;
        if first & 0x10 != 0 {
            // RFC 3550 §5.3.1: profile, then the number of 32-bit words that follow.
            extension = Some(u16_at(datagram, start).ok_or(short)?);
            let words = u16_at(datagram, start.saturating_add(2)).ok_or(short)?;
            start = start.saturating_add(4).saturating_add(usize::from(words).saturating_mul(4));
        }
        let mut padding = 0;
        if first & 0x20 != 0 {
            padding = datagram.last().copied().unwrap_or(0);
            if padding == 0 {
                return Err(Violation("rtp: padding of no length"));
            }
        }
        let end = datagram.len().checked_sub(usize::from(padding)).filter(|&end| end >= start).ok_or(short)?;
        let (marker, payload_type) = (second & 0x80 != 0, second & 0x7f);
        Ok(Self { marker, payload_type, sequence, timestamp, ssrc, csrc_count, extension, padding, payload: start..end })
    }
}

/// The SSRC of a datagram that begins like RTP; `None` for RTCP and everything else.
#[inline]
pub fn ssrc(datagram: &[u8]) -> Option<u32> {
    match datagram {
        [128..=191, 192..=223, ..] => None,
        [128..=191, _, ..] => u32_at(datagram, 8),
        _ => None,
    }
}

/// The sequence number of a datagram that begins like RTP; `None` for RTCP and everything else.
#[inline]
pub fn sequence(datagram: &[u8]) -> Option<u16> {
    ssrc(datagram).and_then(|_| u16_at(datagram, 2))
}

/// Whether a datagram may come before RTP on its flow: STUN, DTLS and ZRTP open media flows (RFC 8445, RFC 5764, RFC 6189).
#[inline]
pub fn may_precede(datagram: &[u8]) -> bool {
    matches!(FirstByte::of(datagram), FirstByte::Stun | FirstByte::Dtls | FirstByte::Zrtp)
}

/// Octets of the header of an RTP packet, contributing sources and extension included. RTCP, which says nothing else, is all header;
/// anything that is no RTP has none.
pub fn header_len(datagram: &[u8]) -> usize {
    if is_rtcp(datagram) {
        return datagram.len();
    }
    Header::parse(datagram).map_or(0, |h| h.payload.start)
}

/// What a datagram on a media port may be, by its first octet (RFC 7983 §7, RFC 9443 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FirstByte {
    /// 0–3.
    Stun,
    /// 16–19.
    Zrtp,
    /// 20–63.
    Dtls,
    /// 64–79: TURN channel data (or QUIC).
    TurnChannel,
    /// 128–191: RTP or RTCP; see [`is_rtcp`].
    Rtp,
    /// Anything else, the empty datagram included.
    Unassigned,
}

impl FirstByte {
    /// Of a datagram.
    pub fn of(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(0..=3) => Self::Stun,
            Some(16..=19) => Self::Zrtp,
            Some(20..=63) => Self::Dtls,
            Some(64..=79) => Self::TurnChannel,
            Some(128..=191) => Self::Rtp,
            _ => Self::Unassigned,
        }
    }
}

/// Whether a datagram of version 2 is RTCP: its second octet is 192–223, payload types 64–95 with the marker bit
/// (RFC 5761 §4), and its first packet fits.
pub fn is_rtcp(datagram: &[u8]) -> bool {
    let words = u16_at(datagram, 2).map_or(usize::MAX, usize::from);
    matches!(datagram, [128..=191, 192..=223, ..]) && words.saturating_add(1).saturating_mul(4) <= datagram.len()
}

/// Whether a datagram on a flow that nobody announced may be RTP.
///
/// Version 2, a header that fits and something behind it, no more than an Ethernet frame holds, a payload type that is
/// assigned (RFC 3551 §6) or dynamic, and for codecs of fixed frames a payload made of them. One datagram proves nothing:
/// two of one SSRC with consecutive numbers do (RFC 3550 A.1), which [`super::Stream`] tells.
#[inline]
pub fn plausible(datagram: &[u8]) -> bool {
    /// A full Ethernet frame's UDP payload.
    const MAX_LEN: usize = 1472;
    let Some([first, second, ..]) = datagram.first_chunk::<MIN_LEN>() else { return false };
    if first >> 6 != 2 || datagram.len() > MAX_LEN || matches!(second, 192..=223) {
        return false;
    }
    let payload = if *first == 0x80 {
        // neither padding nor extension nor sources: nearly always
        datagram.len().saturating_sub(MIN_LEN)
    } else {
        Header::parse(datagram).map_or(0, |h| h.payload.len())
    };
    payload > 0 && may_carry(second & 0x7f, payload)
}

/// Whether a payload type that nobody announced can have a payload of this length.
#[inline]
fn may_carry(payload_type: u8, len: usize) -> bool {
    match payload_type {
        // GSM: frames of 33 octets (RFC 3551 §4.5.8).
        3 => len.is_multiple_of(33),
        // G.723.1: frames of 24, 20 and 4 octets (§4.5.3).
        4 => len.is_multiple_of(4),
        // Comfort noise: a level and a few coefficients (RFC 3389 §3).
        13 => len <= 32,
        // G.729: frames of 10 octets, the last may be a comfort noise frame of 2 (§4.5.6).
        18 => matches!(len % 10, 0 | 2),
        0 | 5..=12 | 14..=17 | 25 | 26 | 28 | 31..=34 | 96..=127 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FirstByte::{Dtls, Rtp, Stun, TurnChannel, Unassigned, Zrtp};
    use proptest::prelude::*;

    /// Version 2, PT 0, sequence 1, timestamp 160, SSRC 0xdeadbeef, four octets of payload.
    const PLAIN: [u8; 16] = [0x80, 0, 0, 1, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];

    #[test]
    fn reads_a_plain_header() {
        let h = Header::parse(&PLAIN).unwrap();

        assert_eq!((h.marker, h.payload_type, h.sequence, h.timestamp, h.ssrc), (false, 0, 1, 160, 0xdead_beef));
        assert_eq!((h.csrc_count, h.extension, h.padding, h.payload), (0, None, 0, 12..16));
    }

    #[test]
    fn reads_sources_extension_and_padding() {
        let mut b = vec![0x80 | 0x20 | 0x10 | 0x01, 0x80 | 0x60, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 7];
        b.extend([0, 0, 0, 9]);
        b.extend([0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
        b.extend([0xaa, 0, 0, 3]);

        let h = Header::parse(&b).unwrap();

        assert_eq!((h.marker, h.payload_type, h.sequence), (true, 96, 0xffff));
        assert_eq!((h.csrc_count, h.extension, h.padding, h.payload), (1, Some(0xbede), 3, 24..25));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(Header::parse(&PLAIN[..11]).is_err());
        assert!(Header::parse(&[0x40; 20]).is_err(), "version 1");
        assert!(Header::parse(&[0x8f; 20]).is_err(), "15 sources in 20 octets");
        let mut padded = PLAIN;
        padded[0] |= 0x20;
        assert!(Header::parse(&padded).is_ok());
        padded[15] = 5;
        assert!(Header::parse(&padded).is_err(), "more padding than payload");
        padded[15] = 0;
        assert!(Header::parse(&padded).is_err());
    }

    #[test]
    fn the_first_octet_tells_protocols_apart() {
        let kinds = [0, 3, 4, 16, 19, 20, 63, 64, 79, 80, 127, 128, 191, 192].map(|b| FirstByte::of(&[b]));
        assert_eq!(
            kinds,
            [
                Stun,
                Stun,
                Unassigned,
                Zrtp,
                Zrtp,
                Dtls,
                Dtls,
                TurnChannel,
                TurnChannel,
                Unassigned,
                Unassigned,
                Rtp,
                Rtp,
                Unassigned
            ]
        );
    }

    #[test]
    fn rtcp_is_told_from_rtp_on_one_port() {
        let receiver_report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert!(is_rtcp(&receiver_report));
        assert!(!plausible(&receiver_report));
        assert!(!is_rtcp(&[0x80, 201, 0, 9, 0, 0, 0, 1]), "longer than the datagram");
        assert!(!is_rtcp(&PLAIN));
        assert!(plausible(&PLAIN));
    }

    #[test]
    fn unannounced_media_needs_a_possible_payload() {
        let mut b = PLAIN;
        b[1] = 18;
        assert!(!plausible(&b), "4 octets are no G.729");
        b[1] = 1;
        assert!(!plausible(&b), "reserved type");
        b[1] = 0x80 | 0x48;
        assert!(!plausible(&b), "would be RTCP");
        b[1] = 101;
        assert!(plausible(&b));
        assert!(!plausible(&b[..12]), "no payload");
        assert!(!plausible(&[0x80; 1473]));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_to_a_payload_inside_them_or_not_at_all(b in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(h) = Header::parse(&b) {
                prop_assert!(h.payload.start <= h.payload.end && h.payload.end <= b.len());
            }
            prop_assert!(!(plausible(&b) && is_rtcp(&b)));
        }
    }
}
