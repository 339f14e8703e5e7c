//! pcapng: section and interface blocks, and one packet as an Enhanced Packet Block.
//!
//! ```text
//! SHB   byte order 1a2b3c4d | 1.0 | length unknown | [comment] | user application
//! IDB   link type | snaplen | if_name | if_tsresol 9 | comment "hunter: H"        one per (hunter, interface, link type)
//! EPB   interface | time (ns) | captured | original | bytes | [comment "filters: A,B"]
//! ```
//!
//! Little-endian, nanoseconds (draft-ietf-opsawg-pcapng §4.1–4.3). The filters that chose a packet stand in a comment of
//! the packet at which they change, per interface: packets after it without a comment were chosen by the same ones. Every
//! (re)opening after a restart begins a new section, so interface numbers never depend on what was there before.

use super::pcap::{lengths, snaplen};
use super::{Origin, Packet};
use crate::packet::LinkType;

/// Section Header Block type.
pub(super) const SHB: u32 = 0x0a0d_0d0a;
/// Interface Description Block type.
pub(super) const IDB: u32 = 1;
/// Enhanced Packet Block type.
pub(super) const EPB: u32 = 6;
/// Byte-order magic.
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Interface blocks per section; later origins share one unnamed interface per link type, and are counted. A processor
/// has at most 1000 hunters with a few interfaces each.
pub const MAX_INTERFACES: usize = 4096;
/// Bytes of a name or comment that are kept; option lengths are 16 bit.
const MAX_TEXT: usize = 1024;
/// All a record can need beside its data: two blocks, four texts, padding.
pub(super) const MAX_OVERHEAD: usize = 5 * MAX_TEXT + 256;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
/// Ten to the minus nine.
const NANOSECONDS: u8 = 9;

#[derive(Debug)]
struct Interface {
    hunter: Box<str>,
    name: Box<str>,
    link: LinkType,
    /// Filters last written for a packet of this interface.
    filters: String,
}

/// What encoding a record did beside writing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The time did not fit and was moved to the nearest that does.
    pub clamped: bool,
    /// The interface table was full; the packet stands under the shared interface of its link type.
    pub shared_interface: bool,
}

/// The interfaces of one section, and how packets refer to them.
#[derive(Debug, Default)]
pub struct Section {
    comment: Box<str>,
    interfaces: Vec<Interface>,
    last: usize,
    /// How many of `interfaces` stand in bytes that reached the disk.
    announced: usize,
}

impl Section {
    /// A section whose header carries `comment` (nothing when empty).
    pub fn new(comment: &str) -> Self {
        Self { comment: cut(comment).into(), ..Self::default() }
    }

    /// Appends the section header and the interfaces already announced by an earlier header.
    pub fn header(&self, buf: &mut Vec<u8>) {
        block(buf, SHB, |b| {
            b.extend_from_slice(&BYTE_ORDER.to_le_bytes());
            b.extend_from_slice(&[1, 0, 0, 0]);
            b.extend_from_slice(&u64::MAX.to_le_bytes());
            if !self.comment.is_empty() {
                option(b, OPT_COMMENT, self.comment.as_bytes());
            }
            option(b, SHB_USERAPPL, concat!("lippycat ", env!("CARGO_PKG_VERSION")).as_bytes());
            option(b, OPT_END, &[]);
        });
        for i in self.interfaces.iter().take(self.announced) {
            describe(buf, i);
        }
    }

    /// Everything encoded so far is on the disk, or is going to be.
    pub fn written(&mut self) {
        self.announced = self.interfaces.len();
    }

    /// Appends one packet, and its interface when it is new.
    ///
    /// `pkt.data` is at most [`super::MAX_CAPTURED`]; the caller has checked.
    pub fn record(&mut self, buf: &mut Vec<u8>, pkt: &Packet<'_>) -> Noted {
        let (id, shared_interface) = self.interface(buf, pkt);
        let (captured, original) = lengths(pkt);
        let nanos = u64::try_from(pkt.ts.as_nanos());
        let ts = nanos.unwrap_or(0);
        let filters = cut(pkt.origin.filters);
        let changed = self.interfaces.get_mut(id).filter(|i| i.filters != filters).is_some_and(|i| {
            i.filters.clear();
            i.filters.push_str(filters);
            true
        });
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let high_low = ts.rotate_left(32);
        block(buf, EPB, |b| {
            let head = u128::from(id) | u128::from(high_low) << 32 | u128::from(captured) << 96;
            b.extend_from_slice(&head.to_le_bytes());
            b.extend_from_slice(&original.to_le_bytes());
            b.extend_from_slice(pkt.data);
            pad(b, pkt.data.len());
            if changed {
                comment(b, "filters: ", filters);
                option(b, OPT_END, &[]);
            }
        });
        Noted { clamped: nanos.is_err(), shared_interface }
    }

    fn interface(&mut self, buf: &mut Vec<u8>, pkt: &Packet<'_>) -> (usize, bool) {
        if self.interfaces.get(self.last).is_some_and(|i| i.is(&pkt.origin, pkt.link)) {
            return (self.last, false);
        }
        let full = self.interfaces.len() >= MAX_INTERFACES;
        let origin =
            if full && !self.interfaces.iter().any(|i| i.is(&pkt.origin, pkt.link)) { Origin::default() } else { pkt.origin };
        let shared = full && origin.hunter.is_empty() && origin.interface.is_empty();
        let at = self.interfaces.iter().position(|i| i.is(&origin, pkt.link)).unwrap_or_else(|| {
            let new = Interface {
                hunter: cut(origin.hunter).into(),
                name: cut(origin.interface).into(),
                link: pkt.link,
                filters: String::new(),
            };
            describe(buf, &new);
            self.interfaces.push(new);
            self.interfaces.len().saturating_sub(1)
        });
        self.last = at;
        (at, shared)
    }
}

impl Interface {
    fn is(&self, o: &Origin<'_>, link: LinkType) -> bool {
        self.link == link && *self.name == *cut(o.interface) && *self.hunter == *cut(o.hunter)
    }
}

fn describe(buf: &mut Vec<u8>, i: &Interface) {
    block(buf, IDB, |b| {
        b.extend_from_slice(&i.link.0.to_le_bytes());
        b.extend_from_slice(&[0, 0]);
        b.extend_from_slice(&snaplen().to_le_bytes());
        if !i.name.is_empty() {
            option(b, IF_NAME, i.name.as_bytes());
        }
        option(b, IF_TSRESOL, &[NANOSECONDS]);
        if !i.hunter.is_empty() {
            comment(b, "hunter: ", &i.hunter);
        }
        option(b, OPT_END, &[]);
    });
}

/// A block around `body`: type, length, body, length again. The lengths are patched in afterwards.
#[inline]
fn block(buf: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    buf.extend_from_slice(&u64::from(kind).to_le_bytes());
    body(buf);
    let total = buf.len().saturating_sub(start).saturating_add(4);
    let total = u32::try_from(total).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(len) = buf.get_mut(start.saturating_add(4)..).and_then(|b| b.first_chunk_mut::<4>()) {
        *len = total;
    }
    buf.extend_from_slice(&total);
}

fn option(buf: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    buf.extend_from_slice(&code.to_le_bytes());
    buf.extend_from_slice(&len.to_le_bytes());
    buf.extend_from_slice(value);
    pad(buf, value.len());
}

fn comment(buf: &mut Vec<u8>, label: &str, value: &str) {
    let len = label.len().saturating_add(value.len());
    buf.extend_from_slice(&OPT_COMMENT.to_le_bytes());
    buf.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    buf.extend_from_slice(label.as_bytes());
    buf.extend_from_slice(value.as_bytes());
    pad(buf, len);
}

#[inline]
fn pad(buf: &mut Vec<u8>, len: usize) {
    const ZEROS: [&[u8]; 4] = [&[], &[0; 3], &[0; 2], &[0; 1]];
    buf.extend_from_slice(ZEROS.get(len % 4).copied().unwrap_or(&[]));
}

/// The first [`MAX_TEXT`] bytes, at a character boundary.
#[inline]
fn cut(s: &str) -> &str {
    if s.len() <= MAX_TEXT { s } else { s.get(..s.floor_char_boundary(MAX_TEXT)).unwrap_or("") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Timestamp;

    fn packet<'a>(hunter: &'a str, filters: &'a str, link: LinkType, data: &'a [u8]) -> Packet<'a> {
        let origin = Origin { hunter, interface: "eth0", filters };
        Packet { ts: Timestamp::from_nanos(1_700_000_000_123_456_789), wire_len: 1500, link, data, origin }
    }

    /// (type, body) of every block; panics when the two lengths of one differ.
    fn blocks(mut b: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap());
        let mut out = Vec::new();
        while !b.is_empty() {
            let len = word(&b[4..]) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(&b[len - 4..]) as usize, len);
            out.push((word(b), b[8..len - 4].to_vec()));
            b = &b[len..];
        }
        out
    }

    #[test]
    fn one_interface_block_per_hunter_interface_and_link_type() {
        let (mut s, mut buf) = (Section::new(""), Vec::new());
        s.header(&mut buf);

        for (hunter, link) in [("a", 1), ("b", 1), ("a", 1), ("a", 113), ("b", 1)] {
            s.record(&mut buf, &packet(hunter, "", LinkType(link), &[1, 2, 3]));
        }

        let kinds: Vec<u32> = blocks(&buf).iter().map(|b| b.0).collect();
        assert_eq!(kinds, [SHB, IDB, EPB, IDB, EPB, EPB, IDB, EPB, EPB]);
        let ids: Vec<u8> = blocks(&buf).iter().filter(|b| b.0 == EPB).map(|b| b.1[0]).collect();
        assert_eq!(ids, [0, 1, 0, 2, 1]);
    }

    #[test]
    fn a_packet_block_carries_nanoseconds_lengths_and_padding() {
        let (mut s, mut buf) = (Section::new(""), Vec::new());

        s.record(&mut buf, &packet("a", "", LinkType::ETHERNET, &[9, 8, 7]));

        let epb = &blocks(&buf)[1].1;
        let at = |i: usize| u64::from(u32::from_le_bytes(epb[i..i + 4].try_into().unwrap()));
        assert_eq!(at(4) << 32 | at(8), 1_700_000_000_123_456_789);
        assert_eq!((at(12), at(16)), (3, 1500));
        assert_eq!(epb[20..], [9, 8, 7, 0]);
    }

    #[test]
    fn filters_are_written_only_where_they_change() {
        let (mut s, mut buf) = (Section::new(""), Vec::new());

        for filters in ["f1", "f1", "f1,f2", "f1,f2", ""] {
            s.record(&mut buf, &packet("a", filters, LinkType::ETHERNET, &[0; 4]));
        }

        let sizes: Vec<usize> = blocks(&buf).iter().filter(|b| b.0 == EPB).map(|b| b.1.len()).collect();
        assert_eq!(sizes, [24 + 4 + 12 + 4, 24, 24 + 4 + 16 + 4, 24, 24 + 4 + 12 + 4]);
    }

    #[test]
    fn a_full_interface_table_shares_one_interface_and_says_so() {
        let (mut s, mut buf) = (Section::new(""), Vec::new());
        let names: Vec<String> = (0..MAX_INTERFACES + 2).map(|i| i.to_string()).collect();

        let noted: Vec<bool> =
            names.iter().map(|n| s.record(&mut buf, &packet(n, "", LinkType::RAW, &[])).shared_interface).collect();

        assert_eq!(noted.iter().filter(|n| **n).count(), 2);
        assert_eq!(s.interfaces.len(), MAX_INTERFACES + 1);
        assert!(!s.record(&mut buf, &packet("7", "", LinkType::RAW, &[])).shared_interface);
    }

    #[test]
    fn overlong_text_is_cut_and_stays_within_the_overhead() {
        let (mut s, mut buf) = (Section::new(&"c".repeat(70_000)), Vec::new());
        s.header(&mut buf);
        let before = buf.len();
        let long = "ü".repeat(40_000);

        s.record(&mut buf, &packet(&long, &long, LinkType::ETHERNET, &[]));

        assert!(buf.len() - before <= MAX_OVERHEAD);
        assert_eq!(blocks(&buf).len(), 3);
    }
}
