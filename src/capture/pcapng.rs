//! The next-generation capture file (draft-ietf-opsawg-pcapng): sections, interfaces, packet blocks.
//!
//! ```text
//! type u32 | total length u32 | body | total length u32          every block; the length is a multiple of 4
//! ```
//! Reads section headers of both byte orders (several in one file), interface descriptions with every time resolution and
//! offset, enhanced, simple and obsolete packet blocks. Other blocks are skipped and counted. A simple packet block has no
//! time: it gets that of the packet before it. Refuses packets of interfaces that were never described.

use std::collections::HashMap;

use super::InterfaceInfo;
use super::classic::normal_link;
use super::file::{MAX_CAPLEN, MAX_RECORD, Records, Step};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};

/// Interfaces of one section, and different interfaces of one file. A capture of every port of a large switch has a few
/// hundred.
const MAX_INTERFACES: usize = 4096;

/// An interface name is kept to this many bytes; Linux allows 15.
const MAX_NAME: usize = 64;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Bytes of a block that are not its body.
const FRAMING: u32 = 12;
/// Body bytes of an enhanced or obsolete packet block before the packet.
const PACKET_HEAD: usize = 20;

/// State of a pcapng file: the section being read, and the interfaces of all of them.
pub(super) struct Pcapng {
    file: String,
    big_endian: bool,
    /// Interfaces of the current section, by their number in it.
    section: Vec<Described>,
    interfaces: Vec<InterfaceInfo>,
    ids: HashMap<InterfaceInfo, InterfaceId, ahash::RandomState>,
    last: Timestamp,
    /// Blocks that are neither packets nor descriptions.
    pub(super) skipped_blocks: u64,
}

/// One interface description.
#[derive(Clone, Copy)]
struct Described {
    id: InterfaceId,
    link: LinkType,
    snaplen: u32,
    clock: Clock,
    offset_secs: i64,
}

/// What a timestamp counts (option `if_tsresol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// Units of this many nanoseconds.
    Times(u64),
    /// This many units make a nanosecond.
    Over(u64),
    /// Units of 2^-n seconds.
    Binary(u32),
}

impl Clock {
    fn from_option(resolution: u8) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        if resolution & 0x80 != 0 {
            return Self::Binary(exponent);
        }
        match 9u32.checked_sub(exponent) {
            Some(more) => Self::Times(10u64.saturating_pow(more)),
            None => Self::Over(10u64.saturating_pow(exponent.saturating_sub(9))),
        }
    }

    /// Nanoseconds, rounded down, saturating.
    #[inline]
    fn nanos(self, ticks: u64) -> i64 {
        let nanos = match self {
            Self::Times(n) => ticks.saturating_mul(n),
            Self::Over(n) => ticks.checked_div(n).unwrap_or(0),
            Self::Binary(bits) => {
                let scaled = u128::from(ticks).saturating_mul(1_000_000_000).checked_shr(bits).unwrap_or(0);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
        };
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }
}

impl Pcapng {
    /// Before the first block, which must be a section header.
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            big_endian: false,
            section: Vec::new(),
            interfaces: Vec::new(),
            ids: HashMap::default(),
            last: Timestamp::from_nanos(0),
            skipped_blocks: 0,
        }
    }

    #[inline]
    fn word(&self, b: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
    }

    #[inline]
    fn short(&self, b: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }
    }

    fn section_header(&mut self, data: &[u8]) -> Step<'static> {
        let Some(head) = data.first_chunk::<16>() else { return Step::Need(16) };
        let [_, _, _, _, l0, l1, l2, l3, m0, m1, m2, m3, v0, v1, ..] = *head;
        self.big_endian = match [m0, m1, m2, m3] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Step::Bad("a section without its byte-order mark"),
        };
        if self.short([v0, v1]) != 1 {
            return Step::Bad("a section whose pcapng version is not 1.x");
        }
        let total = self.word([l0, l1, l2, l3]);
        if total < 28 || !total.is_multiple_of(4) {
            return Step::Bad("a section header with an impossible length");
        }
        self.section.clear();
        Step::Skip(u64::from(total))
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let Some((&[l0, l1, _, _, s0, s1, s2, s3], mut options)) = body.split_first_chunk::<8>() else {
            return Err("an interface description that is too short");
        };
        if self.section.len() >= MAX_INTERFACES {
            return Err("more than 4096 interfaces in one section, the limit");
        }
        let (mut clock, mut offset_secs, mut name) = (Clock::Times(1000), 0, None);
        while let Some((&[c0, c1, n0, n1], rest)) = options.split_first_chunk::<4>() {
            let len = usize::from(self.short([n0, n1]));
            let Some(value) = rest.get(..len) else { break };
            match self.short([c0, c1]) {
                0 => break,
                2 => name = Some(readable(value)),
                9 => clock = value.first().map_or(clock, |&r| Clock::from_option(r)),
                14 => {
                    if let Some(&b) = value.first_chunk::<8>() {
                        offset_secs = if self.big_endian { i64::from_be_bytes(b) } else { i64::from_le_bytes(b) };
                    }
                }
                _ => {}
            }
            options = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        let link = normal_link(self.short([l0, l1]));
        let snaplen = self.word([s0, s1, s2, s3]);
        let name = name.filter(|n| !n.is_empty()).unwrap_or_else(|| self.file.clone());
        let id = self.id_of(InterfaceInfo { name, link, snaplen })?;
        self.section.push(Described { id, link, snaplen, clock, offset_secs });
        Ok(())
    }

    /// The same interface described again (every section of a rotated capture does) keeps its id.
    fn id_of(&mut self, info: InterfaceInfo) -> Result<InterfaceId, &'static str> {
        if let Some(&id) = self.ids.get(&info) {
            return Ok(id);
        }
        let id = match u16::try_from(self.interfaces.len()) {
            Ok(n) if usize::from(n) < MAX_INTERFACES => InterfaceId(n),
            _ => return Err("more than 4096 different interfaces, the limit"),
        };
        self.interfaces.push(info.clone());
        self.ids.insert(info, id);
        Ok(id)
    }

    #[inline]
    fn packet<'a>(&mut self, body: &'a [u8], obsolete: bool) -> Result<Frame<'a>, &'static str> {
        let Some((head, rest)) = body.split_first_chunk::<PACKET_HEAD>() else {
            return Err("a packet block that is too short");
        };
        let [i0, i1, i2, i3, h0, h1, h2, h3, t0, t1, t2, t3, c0, c1, c2, c3, w0, w1, w2, w3] = *head;
        let number = if obsolete { u32::from(self.short([i0, i1])) } else { self.word([i0, i1, i2, i3]) };
        let Some(on) = self.section.get(number as usize) else {
            return Err("a packet of an interface that was not described");
        };
        let caplen = self.word([c0, c1, c2, c3]);
        if caplen > MAX_CAPLEN {
            return Err("a packet of more than 262144 bytes, the limit");
        }
        let Some(data) = rest.get(..caplen as usize) else {
            return Err("a packet that is longer than its block");
        };
        let ticks = u64::from(self.word([h0, h1, h2, h3])) << 32 | u64::from(self.word([t0, t1, t2, t3]));
        let ts = Timestamp::from_secs_nanos(on.offset_secs, on.clock.nanos(ticks));
        self.last = ts;
        Ok(Frame { ts, wire_len: self.word([w0, w1, w2, w3]), link: on.link, interface: on.id, data })
    }

    fn simple_packet<'a>(&self, body: &'a [u8]) -> Result<Frame<'a>, &'static str> {
        let Some((&wire, rest)) = body.split_first_chunk::<4>() else {
            return Err("a packet block that is too short");
        };
        let Some(on) = self.section.first() else {
            return Err("a packet of an interface that was not described");
        };
        let wire_len = self.word(wire);
        let snaplen = if on.snaplen == 0 { MAX_CAPLEN } else { on.snaplen };
        let caplen = wire_len.min(snaplen);
        if caplen > MAX_CAPLEN {
            return Err("a packet of more than 262144 bytes, the limit");
        }
        // The block's padding must not become packet; a packet cut by an unsaid snap length ends with the block.
        let data = rest.get(..caplen as usize).unwrap_or(rest);
        Ok(Frame { ts: self.last, wire_len, link: on.link, interface: on.id, data })
    }
}

impl Records for Pcapng {
    #[inline]
    fn step<'a>(&mut self, data: &'a [u8]) -> Step<'a> {
        let Some(&[k0, k1, k2, k3, l0, l1, l2, l3]) = data.first_chunk::<8>() else { return Step::Need(8) };
        let kind = self.word([k0, k1, k2, k3]);
        if kind == SECTION {
            return self.section_header(data);
        }
        let total = self.word([l0, l1, l2, l3]);
        if total < FRAMING || !total.is_multiple_of(4) {
            return Step::Bad("a block with an impossible length");
        }
        if !matches!(kind, INTERFACE | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET) {
            self.skipped_blocks = self.skipped_blocks.saturating_add(1);
            return Step::Skip(u64::from(total));
        }
        // Blocks that are skipped have no limit.
        let total = total as usize;
        if total > MAX_RECORD {
            return Step::Bad("a block of more than 393216 bytes, the limit for packets and interfaces");
        }
        let Some(body) = data.get(8..total.saturating_sub(4)) else { return Step::Need(total) };
        if data.len() < total {
            return Step::Need(total);
        }
        let frame = match kind {
            INTERFACE => {
                return match self.interface(body) {
                    Ok(()) => Step::Described(total),
                    Err(what) => Step::Bad(what),
                };
            }
            SIMPLE_PACKET => self.simple_packet(body),
            _ => self.packet(body, kind == OBSOLETE_PACKET),
        };
        match frame {
            Ok(frame) => Step::Frame(frame, total),
            Err(what) => Step::Bad(what),
        }
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &self.interfaces
    }
}

/// A name from a file, fit for a terminal.
fn readable(bytes: &[u8]) -> String {
    let kept = bytes.get(..MAX_NAME).unwrap_or(bytes);
    String::from_utf8_lossy(kept).trim_end_matches('\0').chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
