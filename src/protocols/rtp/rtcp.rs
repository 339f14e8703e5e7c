//! RTCP compound packets (RFC 3550 §6) and the voice metrics of extended reports (RFC 3611 §4.7).
//!
//! Promises: every field read is inside the datagram; a packet that breaks the rules ends the walk with a [`Violation`], and
//! what stood before it was handed out. SRTCP (RFC 3711 §3.4) leaves only the first eight octets readable: the caller
//! knows, the bytes do not say.

use super::header::Violation;
use super::{u16_at, u32_at};

const SHORT: Violation = Violation("rtcp: shorter than its header says");

/// One packet of a compound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// SR (200).
    SenderReport(SenderReport<'a>),
    /// RR (201).
    ReceiverReport(ReceiverReport<'a>),
    /// SDES (202).
    SourceDescription(SourceDescription<'a>),
    /// BYE (203).
    Bye(Bye<'a>),
    /// APP (204).
    App(App<'a>),
    /// XR (207).
    ExtendedReport(ExtendedReport<'a>),
    /// Feedback (205, 206) and types this room has no use for.
    Unread(u8),
}

/// RFC 3550 §6.4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// Who sent it.
    pub ssrc: u32,
    /// Wall-clock time of sending, in NTP format (seconds since 1900, 32.32 bits).
    pub ntp_timestamp: u64,
    /// The same instant in RTP units.
    pub rtp_timestamp: u32,
    /// Packets sent so far.
    pub packet_count: u32,
    /// Payload octets sent so far.
    pub octet_count: u32,
    blocks: &'a [u8],
}

impl SenderReport<'_> {
    /// What its sender receives.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock> {
        blocks(self.blocks)
    }
}

/// RFC 3550 §6.4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// Who sent it.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl ReceiverReport<'_> {
    /// What its sender receives.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock> {
        blocks(self.blocks)
    }
}

/// How one source is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning; negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub extended_highest_sequence: u32,
    /// In clock units.
    pub jitter: u32,
    /// LSR: middle 32 bits of the NTP timestamp of the last sender report; 0 for none.
    pub last_sr: u32,
    /// DLSR: time since that report, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// RFC 3550 §6.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDescription<'a> {
    chunks: &'a [u8],
    count: u8,
}

impl<'a> SourceDescription<'a> {
    /// Each source's canonical name, in order; sources without one are left out.
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let (mut rest, mut left) = (self.chunks, self.count);
        std::iter::from_fn(move || {
            while left > 0 {
                left = left.saturating_sub(1);
                let ssrc = u32_at(rest, 0)?;
                let (cname, behind) = walk_chunk(rest)?;
                rest = behind;
                if let Some(cname) = cname {
                    return Some((ssrc, cname));
                }
            }
            None
        })
    }
}

/// RFC 3550 §6.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    sources: &'a [u8],
    /// Why, in the sender's words.
    pub reason: Option<&'a [u8]>,
}

impl Bye<'_> {
    /// Who leaves.
    pub fn sources(&self) -> impl Iterator<Item = u32> {
        self.sources.as_chunks().0.iter().map(|&b| u32::from_be_bytes(b))
    }
}

/// RFC 3550 §6.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App<'a> {
    /// Subtype.
    pub subtype: u8,
    /// Who sent it.
    pub ssrc: u32,
    /// Four ASCII octets.
    pub name: [u8; 4],
    /// The rest.
    pub data: &'a [u8],
}

/// RFC 3611 §2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedReport<'a> {
    /// Who sent it.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl ExtendedReport<'_> {
    /// Its voice metrics blocks, in order; blocks of other types are passed over.
    pub fn voip_metrics(&self) -> impl Iterator<Item = VoipMetrics> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            loop {
                let kind = *rest.first()?;
                let len = usize::from(u16_at(rest, 2)?).saturating_mul(4).saturating_add(4);
                let (block, behind) = rest.split_at_checked(len)?;
                rest = behind;
                if let Some(metrics) = VoipMetrics::read(block).filter(|_| kind == 7) {
                    return Some(metrics);
                }
            }
        })
    }
}

/// RFC 3611 §4.7; what the sender marked unavailable (127) is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoipMetrics {
    /// The source measured.
    pub ssrc: u32,
    /// Lost in the network, in 1/256.
    pub loss_rate: u8,
    /// Discarded by the jitter buffer, in 1/256.
    pub discard_rate: u8,
    /// Loss within bursts, in 1/256.
    pub burst_density: u8,
    /// Loss between bursts, in 1/256.
    pub gap_density: u8,
    /// Mean length of bursts, ms.
    pub burst_duration_ms: u16,
    /// Mean length of gaps, ms.
    pub gap_duration_ms: u16,
    /// Round trip, ms; 0 when unknown.
    pub round_trip_delay_ms: u16,
    /// Delay inside the end system, ms.
    pub end_system_delay_ms: u16,
    /// Speech level, dBm0.
    pub signal_level_dbm: Option<i8>,
    /// Noise level, dBm0.
    pub noise_level_dbm: Option<i8>,
    /// Residual echo return loss, dB.
    pub residual_echo_return_loss_db: Option<u8>,
    /// Gmin, the threshold between burst and gap.
    pub gmin: u8,
    /// R factor, 0–100.
    pub r_factor: Option<u8>,
    /// R factor of the segment behind an external network.
    pub external_r_factor: Option<u8>,
    /// MOS-LQ × 10.
    pub mos_lq_tenths: Option<u8>,
    /// MOS-CQ × 10.
    pub mos_cq_tenths: Option<u8>,
    /// RX config, as sent.
    pub rx_config: u8,
    /// Jitter buffer, nominal delay, ms.
    pub jitter_buffer_nominal_ms: u16,
    /// Its current maximum, ms.
    pub jitter_buffer_maximum_ms: u16,
    /// Its absolute maximum, ms.
    pub jitter_buffer_absolute_maximum_ms: u16,
}

impl VoipMetrics {
    /// From a whole block, its four header octets included.
    fn read(block: &[u8]) -> Option<Self> {
        /// RFC 3611 §4.7.2 and following.
        const UNAVAILABLE: u8 = 127;
        let octet = |at: usize| block.get(at).copied();
        let known = |at: usize| octet(at).map(|v| Some(v).filter(|&v| v != UNAVAILABLE));
        Some(Self {
            ssrc: u32_at(block, 4)?,
            loss_rate: octet(8)?,
            discard_rate: octet(9)?,
            burst_density: octet(10)?,
            gap_density: octet(11)?,
            burst_duration_ms: u16_at(block, 12)?,
            gap_duration_ms: u16_at(block, 14)?,
            round_trip_delay_ms: u16_at(block, 16)?,
            end_system_delay_ms: u16_at(block, 18)?,
            signal_level_dbm: known(20)?.map(u8::cast_signed),
            noise_level_dbm: known(21)?.map(u8::cast_signed),
            residual_echo_return_loss_db: known(22)?,
            gmin: octet(23)?,
            r_factor: known(24)?,
            external_r_factor: known(25)?,
            mos_lq_tenths: known(26)?,
            mos_cq_tenths: known(27)?,
            rx_config: octet(28)?,
            jitter_buffer_nominal_ms: u16_at(block, 30)?,
            jitter_buffer_maximum_ms: u16_at(block, 32)?,
            jitter_buffer_absolute_maximum_ms: u16_at(block, 34)?,
        })
    }
}

/// The packets of a datagram, in order; after a violation there are no more.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Over a whole datagram; reduced-size ones (RFC 5506) that begin with any packet type are taken too.
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = split(self.rest).and_then(|first| {
            self.rest = first.rest;
            read(&first)
        });
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

/// A packet cut off the front of a compound.
struct Cut<'a> {
    /// Of reports, chunks or sources; the subtype of APP.
    count: u8,
    kind: u8,
    /// Without the four header octets and the padding.
    body: &'a [u8],
    rest: &'a [u8],
}

fn split(b: &[u8]) -> Result<Cut<'_>, Violation> {
    let &[first, kind, ..] = b else { return Err(SHORT) };
    if first >> 6 != 2 {
        return Err(Violation("rtcp: not version 2"));
    }
    let len = usize::from(u16_at(b, 2).ok_or(SHORT)?).saturating_mul(4).saturating_add(4);
    let (packet, rest) = b.split_at_checked(len).ok_or(SHORT)?;
    let mut body = packet.get(4..).ok_or(SHORT)?;
    if first & 0x20 != 0 {
        // RFC 3550 §6.4.1: the last octet counts the padding, itself included.
        let padding = body.last().copied().map(usize::from).filter(|&n| n > 0).ok_or(SHORT)?;
        let end = body.len().checked_sub(padding).ok_or(SHORT)?;
        body = body.get(..end).ok_or(SHORT)?;
    }
    Ok(Cut { count: first & 0x1f, kind, body, rest })
}

fn read<'a>(packet: &Cut<'a>) -> Result<Packet<'a>, Violation> {
    let &Cut { count, kind, body, .. } = packet;
    let word = |at: usize| u32_at(body, at).ok_or(SHORT);
    let reports = |at: usize| {
        let end = at.saturating_add(usize::from(count).saturating_mul(BLOCK_LEN));
        body.get(at..end).ok_or(SHORT)
    };
    Ok(match kind {
        200 => Packet::SenderReport(SenderReport {
            ssrc: word(0)?,
            ntp_timestamp: u64::from(word(4)?) << 32 | u64::from(word(8)?),
            rtp_timestamp: word(12)?,
            packet_count: word(16)?,
            octet_count: word(20)?,
            blocks: reports(24)?,
        }),
        201 => Packet::ReceiverReport(ReceiverReport { ssrc: word(0)?, blocks: reports(4)? }),
        202 => Packet::SourceDescription(SourceDescription { chunks: body, count }),
        203 => {
            let (sources, rest) = body.split_at_checked(usize::from(count).saturating_mul(4)).ok_or(SHORT)?;
            let reason = match rest.split_first() {
                Some((&len, text)) if len > 0 => Some(text.get(..usize::from(len)).ok_or(SHORT)?),
                _ => None,
            };
            Packet::Bye(Bye { sources, reason })
        }
        204 => Packet::App(App {
            subtype: count,
            ssrc: word(0)?,
            name: word(4)?.to_be_bytes(),
            data: body.get(8..).unwrap_or_default(),
        }),
        207 => Packet::ExtendedReport(ExtendedReport { ssrc: word(0)?, blocks: body.get(4..).unwrap_or_default() }),
        other => Packet::Unread(other),
    })
}

/// RFC 3550 §6.4.1: a report block is six words.
const BLOCK_LEN: usize = 24;

fn blocks(b: &[u8]) -> impl Iterator<Item = ReportBlock> {
    b.as_chunks::<BLOCK_LEN>().0.iter().filter_map(|b| {
        let lost = u32_at(b, 4)?;
        Some(ReportBlock {
            ssrc: u32_at(b, 0)?,
            fraction_lost: u8::try_from(lost >> 24).unwrap_or(0),
            // The low 24 bits are a signed number.
            cumulative_lost: (lost << 8).cast_signed() >> 8,
            extended_highest_sequence: u32_at(b, 8)?,
            jitter: u32_at(b, 12)?,
            last_sr: u32_at(b, 16)?,
            delay_since_last_sr: u32_at(b, 20)?,
        })
    })
}

/// One SDES chunk that begins with its SSRC: its CNAME and what follows the chunk.
fn walk_chunk(chunk: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (mut at, mut cname) = (4usize, None);
    loop {
        let kind = *chunk.get(at)?;
        if kind == 0 {
            // The list ends with a null octet, filled up to the next word.
            let end = at.saturating_add(4) & !3;
            return Some((cname, chunk.get(end..).unwrap_or_default()));
        }
        let len = usize::from(*chunk.get(at.saturating_add(1))?);
        let text = at.saturating_add(2);
        let value = chunk.get(text..text.saturating_add(len))?;
        if kind == 1 && cname.is_none() {
            cname = Some(value);
        }
        at = text.saturating_add(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(list: &[u32]) -> Vec<u8> {
        list.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    #[test]
    fn reads_a_compound_of_report_description_and_bye() {
        let mut b = words(&[0x81c8_000c, 7, 0x83aa_7e80, 0x8000_0000, 160, 50, 8000]);
        b.extend(words(&[9, 0x40ff_fffe, 0x0001_0005, 30, 0x7e80_8000, 65_536]));
        // SDES: source 7 with NAME and CNAME, source 8 with CNAME only.
        let chunks = [&7u32.to_be_bytes()[..], b"\x02\x03Ann\x01\x03a@b\0\0", &8u32.to_be_bytes(), b"\x01\x01c\0"].concat();
        assert_eq!(chunks.len() % 4, 0);
        b.extend(words(&[0x82ca_0000 | u32::try_from(chunks.len() / 4).unwrap()]));
        b.extend(chunks);
        b.extend(words(&[0x81cb_0002, 7]));
        b.extend(b"\x03end");

        let packets: Vec<_> = Compound::new(&b).map(Result::unwrap).collect();

        let [Packet::SenderReport(sr), Packet::SourceDescription(sdes), Packet::Bye(bye)] = packets.as_slice() else {
            panic!("{packets:?}")
        };
        assert_eq!((sr.ssrc, sr.rtp_timestamp, sr.packet_count, sr.octet_count), (7, 160, 50, 8000));
        assert_eq!(sr.ntp_timestamp, 0x83aa_7e80_8000_0000);
        let block = ReportBlock {
            ssrc: 9,
            fraction_lost: 64,
            cumulative_lost: -2,
            extended_highest_sequence: 65_541,
            jitter: 30,
            last_sr: 0x7e80_8000,
            delay_since_last_sr: 65_536,
        };
        assert_eq!(sr.reports().collect::<Vec<_>>(), [block]);
        assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(7, b"a@b".as_slice()), (8, b"c".as_slice())]);
        assert_eq!((bye.sources().collect::<Vec<_>>(), bye.reason), (vec![7], Some(b"end".as_slice())));
    }

    #[test]
    fn reads_voip_metrics_and_knows_unavailable() {
        let mut b = words(&[0x80cf_000d, 7]);
        b.extend(words(&[0x0400_0002, 1, 2])); // receiver reference time: passed over
        b.extend(words(&[0x0700_0008, 9]));
        b.extend([10, 20, 30, 40, 0, 100, 0, 200, 0, 150, 0, 60]);
        b.extend([0xec, 0xc4, 127, 16, 82, 127, 38, 127, 0xb0, 0, 0, 40, 0, 80, 0, 160]);
        assert_eq!(b.len(), 56);

        let packet = Compound::new(&b).next().unwrap().unwrap();

        let Packet::ExtendedReport(xr) = packet else { panic!("{packet:?}") };
        let all: Vec<_> = xr.voip_metrics().collect();
        let [m] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((m.ssrc, m.loss_rate, m.discard_rate, m.burst_density, m.gap_density), (9, 10, 20, 30, 40));
        assert_eq!((m.burst_duration_ms, m.gap_duration_ms, m.round_trip_delay_ms, m.end_system_delay_ms), (100, 200, 150, 60));
        assert_eq!((m.signal_level_dbm, m.noise_level_dbm, m.residual_echo_return_loss_db), (Some(-20), Some(-60), None));
        assert_eq!((m.r_factor, m.external_r_factor, m.mos_lq_tenths, m.mos_cq_tenths), (Some(82), None, Some(38), None));
        assert_eq!((m.jitter_buffer_nominal_ms, m.jitter_buffer_maximum_ms, m.jitter_buffer_absolute_maximum_ms), (40, 80, 160));
    }

    #[test]
    fn reads_application_packets_and_passes_feedback_over() {
        let mut b = words(&[0x85cc_0003, 7]);
        b.extend(b"lc  data");
        b.extend(words(&[0x81cd_0002, 1, 2]));

        let packets: Vec<_> = Compound::new(&b).map(Result::unwrap).collect();

        assert_eq!(packets, [Packet::App(App { subtype: 5, ssrc: 7, name: *b"lc  ", data: b"data" }), Packet::Unread(205)]);
    }

    #[test]
    fn a_broken_packet_ends_the_walk_after_what_was_good() {
        let mut b = words(&[0x80c9_0001, 7]);
        b.extend(words(&[0x81c9_0001, 7]));

        let packets: Vec<_> = Compound::new(&b).collect();

        assert!(matches!(packets.as_slice(), [Ok(Packet::ReceiverReport(_)), Err(_)]), "a report block is missing: {packets:?}");
        assert!(matches!(Compound::new(&[0x80, 201, 0]).next(), Some(Err(_))));
        assert!(matches!(Compound::new(&[0xa0, 201, 0, 1, 0, 0, 0, 9]).next(), Some(Err(_))), "padding beyond the packet");
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(
            mut b in prop::collection::vec(any::<u8>(), 0..300),
            kinds in prop::collection::vec(200u8..208, 1..20),
        ) {
            // Make the first packets credible, so that the walk gets somewhere.
            for (i, kind) in kinds.into_iter().enumerate() {
                if let Some(head) = b.get_mut(i * 28..i * 28 + 4) {
                    head[0] = 0x80 | head[0] & 0x3f;
                    head[1] = kind;
                    head[2] = 0;
                    head[3] = 6;
                }
            }
            let mut packets = 0;
            for packet in Compound::new(&b).flatten() {
                packets += 1;
                let _ = match packet {
                    Packet::SenderReport(p) => p.reports().count(),
                    Packet::ReceiverReport(p) => p.reports().count(),
                    Packet::SourceDescription(p) => p.cnames().count(),
                    Packet::Bye(p) => p.sources().count(),
                    Packet::ExtendedReport(p) => p.voip_metrics().count(),
                    Packet::App(_) | Packet::Unread(_) => 0,
                };
            }
            prop_assert!(packets <= b.len() / 4);
        }
    }
}
