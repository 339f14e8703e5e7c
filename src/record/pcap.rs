//! Classic pcap with nanoseconds: the header, and one packet as a record.
//!
//! ```text
//! file    magic a1b23c4d | version 2.4 | 0 | 0 | snaplen 262144 | link type          24 bytes
//! record  seconds u32 | nanoseconds u32 | captured u32 | original u32 | bytes        16 + captured
//! ```
//!
//! Always little-endian, so that the same packets give the same bytes everywhere (draft-ietf-opsawg-pcap §4, §5).
//! One link type per file. The format ends in the year 2106: an earlier or later time is written as the nearest
//! one it can say, and counted.

use super::{MAX_CAPTURED, Packet};
use crate::packet::{LinkType, Timestamp};

/// Nanosecond magic (draft-ietf-opsawg-pcap §4).
pub(super) const MAGIC_NS: u32 = 0xa1b2_3c4d;
/// Microsecond magic; such files are not continued, they would lose digits.
pub(super) const MAGIC_US: u32 = 0xa1b2_c3d4;
/// Bytes before the first record.
pub(super) const HEADER_LEN: usize = 24;
/// Bytes before a record's data.
pub(super) const RECORD_LEN: usize = 16;
const NANOS_PER_SEC: i64 = 1_000_000_000;

/// The file header for one link type.
pub fn header(link: LinkType) -> [u8; HEADER_LEN] {
    let [m0, m1, m2, m3] = MAGIC_NS.to_le_bytes();
    let [s0, s1, s2, s3] = snaplen().to_le_bytes();
    let [l0, l1] = link.0.to_le_bytes();
    [m0, m1, m2, m3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, s0, s1, s2, s3, l0, l1, 0, 0]
}

/// [`MAX_CAPTURED`] as the headers carry it.
pub(super) const fn snaplen() -> u32 {
    const { assert!(MAX_CAPTURED <= u32::MAX as usize) };
    #[expect(clippy::cast_possible_truncation, reason = "asserted at compile time")]
    {
        MAX_CAPTURED as u32
    }
}

/// Appends one record; true when the time did not fit and was moved to the nearest that does.
///
/// `pkt.data` is at most [`MAX_CAPTURED`]; the caller has checked.
#[inline]
pub fn record(buf: &mut Vec<u8>, pkt: &Packet<'_>) -> bool {
    let (secs, nanos, clamped) = split(pkt.ts);
    let (captured, original) = lengths(pkt);
    let head = u128::from(secs) | u128::from(nanos) << 32 | u128::from(captured) << 64 | u128::from(original) << 96;
    buf.extend_from_slice(&head.to_le_bytes());
    buf.extend_from_slice(pkt.data);
    clamped
}

/// Captured and original length; the original is never the shorter one.
#[inline]
pub(super) fn lengths(pkt: &Packet<'_>) -> (u32, u32) {
    let captured = u32::try_from(pkt.data.len()).unwrap_or(u32::MAX);
    (captured, pkt.wire_len.max(captured))
}

#[inline]
fn split(ts: Timestamp) -> (u32, u32, bool) {
    let n = ts.as_nanos();
    match (u32::try_from(n.div_euclid(NANOS_PER_SEC)), u32::try_from(n.rem_euclid(NANOS_PER_SEC))) {
        (Ok(secs), Ok(nanos)) => (secs, nanos, false),
        _ if n < 0 => (0, 0, true),
        _ => (u32::MAX, 999_999_999, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;

    fn packet(nanos: i64, wire_len: u32, data: &[u8]) -> Packet<'_> {
        Packet { ts: Timestamp::from_nanos(nanos), wire_len, link: LinkType::ETHERNET, data, origin: Origin::default() }
    }

    #[test]
    fn header_and_record_are_the_bytes_of_the_format() {
        let mut buf = header(LinkType::LINUX_SLL).to_vec();

        let clamped = record(&mut buf, &packet(1_700_000_000_123_456_789, 1500, &[0xaa, 0xbb]));

        assert!(!clamped);
        assert_eq!(buf[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
        assert_eq!(buf[4..8], [2, 0, 4, 0]);
        assert_eq!(buf[16..24], [0, 0, 4, 0, 113, 0, 0, 0]);
        assert_eq!(buf[24..28], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(buf[28..32], 123_456_789_u32.to_le_bytes());
        assert_eq!(buf[32..40], [2, 0, 0, 0, 0xdc, 5, 0, 0]);
        assert_eq!(buf[40..], [0xaa, 0xbb]);
    }

    #[test]
    fn original_length_is_never_below_the_captured_one() {
        let mut buf = Vec::new();

        record(&mut buf, &packet(0, 0, &[1, 2, 3]));

        assert_eq!(buf[8..16], [3, 0, 0, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn a_time_the_format_cannot_say_becomes_the_nearest_and_is_reported() {
        let mut buf = Vec::new();

        assert!(record(&mut buf, &packet(-1, 0, &[])));
        assert!(record(&mut buf, &packet(i64::MAX, 0, &[])));

        assert_eq!(buf[..8], [0; 8]);
        assert_eq!(buf[16..20], [0xff; 4]);
    }
}
