//! The classic capture file (pcap savefile format, draft-ietf-opsawg-pcap).
//!
//! ```text
//! magic u32 | major u16 | minor u16 | reserved 2×u32 | snaplen u32 | FCS bits and link type u32      24 bytes, then
//! seconds u32 | micro- or nanoseconds u32 | captured u32 | original u32 | bytes                       16 + captured
//! ```
//! Both byte orders, both resolutions, the exchanged lengths of versions before 2.3. Refuses Kuznetzov's modified format.

use super::InterfaceInfo;
use super::file::{MAX_CAPLEN, Records, Step};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};

/// Bytes before the first record.
pub(super) const HEADER: usize = 24;

const RECORD_HEADER: usize = 16;

/// A classic file after its header.
pub(super) struct Classic {
    big_endian: bool,
    nanos_per_tick: i64,
    lengths: Lengths,
    link: LinkType,
    interface: [InterfaceInfo; 1],
}

/// How old writers ordered the two lengths (libpcap `sf-pcap.c` documents the history).
#[derive(Clone, Copy)]
enum Lengths {
    CapturedFirst,
    /// Version 2.3: either; the larger one is the original.
    Unknown,
    /// Before 2.3.
    OriginalFirst,
}

impl Classic {
    /// Reads the file header.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn open(header: &[u8; HEADER], name: &str) -> Result<Self, &'static str> {
        let [m0, m1, m2, m3, j0, j1, n0, n1, .., s0, s1, s2, s3, l0, l1, l2, l3] = *header;
        let (big_endian, nanos_per_tick) = match [m0, m1, m2, m3] {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
            _ => return Err("it does not begin like a pcap file"),
        };
        let short = |b| if big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
        let word = |b| if big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) };
        let lengths = match (short([j0, j1]), short([n0, n1])) {
            (2, 0..=2) => Lengths::OriginalFirst,
            (2, 3) => Lengths::Unknown,
            (2, _) => Lengths::CapturedFirst,
            _ => return Err("its pcap version is not 2.x; convert it: editcap -F pcap IN OUT"),
        };
        let [.., hi, lo] = word([l0, l1, l2, l3]).to_be_bytes();
        let link = normal_link(u16::from_be_bytes([hi, lo]));
        let snaplen = word([s0, s1, s2, s3]);
        let interface = [InterfaceInfo { name: name.to_owned(), link, snaplen }];
        Ok(Self { big_endian, nanos_per_tick, lengths, link, interface })
    }
}

impl Records for Classic {
    #[inline]
    fn step<'a>(&mut self, data: &'a [u8]) -> Step<'a> {
        let Some((head, rest)) = data.split_first_chunk::<RECORD_HEADER>() else {
            return Step::Need(RECORD_HEADER);
        };
        let [s0, s1, s2, s3, t0, t1, t2, t3, c0, c1, c2, c3, w0, w1, w2, w3] = *head;
        let word = |b: [u8; 4]| if self.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) };
        let (seconds, ticks) = (word([s0, s1, s2, s3]), word([t0, t1, t2, t3]));
        let (mut caplen, mut wire_len) = (word([c0, c1, c2, c3]), word([w0, w1, w2, w3]));
        match self.lengths {
            Lengths::CapturedFirst => {}
            Lengths::Unknown if caplen <= wire_len => {}
            Lengths::Unknown | Lengths::OriginalFirst => std::mem::swap(&mut caplen, &mut wire_len),
        }
        if caplen > MAX_CAPLEN {
            return Step::Bad("a packet of more than 262144 bytes, the limit");
        }
        let Some(bytes) = rest.get(..caplen as usize) else {
            return Step::Need(RECORD_HEADER.saturating_add(caplen as usize));
        };
        // two numbers of 32 bits and these factors: neither product nor their sum reaches 2^63
        let ts = Timestamp::from_nanos(i64::from(seconds) * 1_000_000_000 + i64::from(ticks) * self.nanos_per_tick);
        let frame = Frame { ts, wire_len, link: self.link, interface: InterfaceId(0), data: bytes };
        Step::Frame(frame, RECORD_HEADER.saturating_add(bytes.len()))
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &self.interface
    }
}

/// Raw IP under the numbers that systems use internally (`DLT_RAW` 12, 14 on OpenBSD) is `LINKTYPE_RAW`.
pub(super) fn normal_link(number: u16) -> LinkType {
    match number {
        12 | 14 => LinkType::RAW,
        n => LinkType(n),
    }
}
