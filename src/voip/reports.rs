//! What RTCP says of a call's streams: the senders' counts, the receivers' loss, jitter and round trip (RFC 3550 §6.4), their voice metrics
//! (RFC 3611 §4.7).
//!
//! A report speaks of an SSRC; which stream that is, its addresses decide too: a relay keeps the SSRC on all its legs. What is said of a
//! stream that was not seen is left out.

use std::time::Duration;

use smallvec::SmallVec;

use crate::packet::{Endpoint, FiveTuple, Timestamp};
use crate::protocols::rtp::rtcp::{Compound, Packet, ReportBlock, VoipMetrics};
use crate::protocols::sdp;

use super::event::{RtcpFacts, VoipMetricsFacts};
use super::streams::round;

/// Sender reports a receiver's report may refer to. It names the last it got; more than two are seldom on their way.
const SENT: usize = 4;
/// Parts taken of one datagram: a conference's reports, and no more work than that.
const PARTS: usize = 64;
/// A longer round trip is another sender report with the same middle of its time.
const LONGEST: Duration = Duration::from_mins(1);
/// The units of DLSR, and the rounding of senders.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// One thing that a compound says of one SSRC.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// By its sender: SSRC, middle of the NTP time, packets, payload bytes.
    Sent(u32, u32, u32, u32),
    /// By its receiver.
    Received(ReportBlock),
    /// By its receiver, of voice.
    Voice(VoipMetrics),
}

impl Said {
    /// The source it speaks of.
    pub(super) const fn ssrc(&self) -> u32 {
        match self {
            Self::Sent(ssrc, ..) => *ssrc,
            Self::Received(b) => b.ssrc,
            Self::Voice(m) => m.ssrc,
        }
    }

    /// How well the way of a stream fits the way of the report: 1 when nothing but the SSRC speaks for it.
    pub(super) fn fit(&self, stream: &FiveTuple, report: &FiveTuple) -> u8 {
        // a receiver's report goes the other way
        let (from, to) = match self {
            Self::Sent(..) => (&report.src, &report.dst),
            Self::Received(_) | Self::Voice(_) => (&report.dst, &report.src),
        };
        1_u8.saturating_add(near(&stream.src, from)).saturating_add(near(&stream.dst, to))
    }
}

/// 2 for the port of RTP or the one above it, 1 for the address alone.
fn near(media: &Endpoint, report: &Endpoint) -> u8 {
    match media.ip == report.ip {
        true if report.port == media.port || Some(report.port) == media.port.checked_add(1) => 2,
        same => u8::from(same),
    }
}

/// The parts of a datagram; `None` when any of it breaks the rules, as it does when it is cut or encrypted.
pub(super) fn read(datagram: &[u8]) -> Option<SmallVec<[Said; 4]>> {
    let mut all = SmallVec::new();
    for packet in Compound::new(datagram) {
        let packet = packet.ok()?;
        match packet {
            Packet::SenderReport(sr) => {
                let middle = u32::try_from(sr.ntp_timestamp >> 16 & 0xffff_ffff).unwrap_or(0);
                all.push(Said::Sent(sr.ssrc, middle, sr.packet_count, sr.octet_count));
                all.extend(sr.reports().map(Said::Received));
            }
            Packet::ReceiverReport(rr) => all.extend(rr.reports().map(Said::Received)),
            Packet::ExtendedReport(xr) => all.extend(xr.voip_metrics().map(Said::Voice)),
            Packet::SourceDescription(_) | Packet::Bye(_) | Packet::App(_) | Packet::Unread(_) => {}
        }
    }
    all.truncate(PARTS);
    Some(all)
}

/// What was said of one stream.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Middle of the NTP time and time of arrival here of the last sender reports.
    sent: SmallVec<[(u32, Timestamp); SENT]>,
    sender_reports: u64,
    /// Packets and bytes.
    sender: Option<(u32, u32)>,
    receiver_reports: u64,
    last: Option<ReportBlock>,
    fraction_max: u8,
    jitter_max: u32,
    round_trip: Option<Duration>,
    round_trip_max: Option<Duration>,
    voice: Option<VoipMetrics>,
}

impl Reported {
    /// Takes one part that arrived at `now`.
    pub(super) fn take(&mut self, said: &Said, now: Timestamp) {
        match said {
            Said::Sent(_, middle, packets, bytes) => {
                self.sender_reports = self.sender_reports.saturating_add(1);
                self.sender = Some((*packets, *bytes));
                if self.sent.len() >= SENT {
                    self.sent.remove(0);
                }
                self.sent.push((*middle, now));
            }
            Said::Received(b) => {
                self.receiver_reports = self.receiver_reports.saturating_add(1);
                self.fraction_max = self.fraction_max.max(b.fraction_lost);
                self.jitter_max = self.jitter_max.max(b.jitter);
                self.last = Some(*b);
                if let Some(rtt) = self.round_trip(b, now) {
                    self.round_trip = Some(rtt);
                    self.round_trip_max = self.round_trip_max.max(Some(rtt));
                }
            }
            Said::Voice(m) => self.voice = Some(*m),
        }
    }

    /// RFC 3550 §6.4.1, with this place instead of the sender: arrival of the report − that of the sender report it names − DLSR.
    fn round_trip(&self, b: &ReportBlock, now: Timestamp) -> Option<Duration> {
        let (_, sent) = self.sent.iter().rev().find(|(middle, _)| b.last_sr != 0 && *middle == b.last_sr)?;
        let kept = Duration::from_nanos(u64::from(b.delay_since_last_sr).saturating_mul(1_000_000_000) >> 16);
        let away = now.since(*sent);
        let rtt = away.checked_sub(kept).or_else(|| (kept.saturating_sub(away) <= CLOCK_STEP).then_some(Duration::ZERO))?;
        (rtt <= LONGEST).then_some(rtt)
    }

    /// All of it, with the clock of the stream.
    pub(super) fn facts(&self, clock_hz: u32) -> RtcpFacts {
        let jitter = |units: u32| (clock_hz > 0).then(|| round(f64::from(units) * 1000.0 / f64::from(clock_hz)));
        let millis = |d: Duration| round(d.as_secs_f64() * 1000.0);
        RtcpFacts {
            sender_reports: self.sender_reports,
            sender_packets: self.sender.map(|(packets, _)| packets),
            sender_bytes: self.sender.map(|(_, bytes)| bytes),
            receiver_reports: self.receiver_reports,
            lost: self.last.map(|b| b.cumulative_lost),
            lost_percent_max: self.last.map(|_| percent(self.fraction_max)),
            jitter_ms: self.last.and_then(|b| jitter(b.jitter)),
            jitter_max_ms: self.last.and_then(|_| jitter(self.jitter_max)),
            round_trip_ms: self.round_trip.map(millis),
            round_trip_max_ms: self.round_trip_max.map(millis),
            voip_metrics: self.voice.as_ref().map(voice),
        }
    }
}

fn voice(m: &VoipMetrics) -> VoipMetricsFacts {
    let tenths = |mos: Option<u8>| mos.map(|n| round(f64::from(n) / 10.0));
    VoipMetricsFacts {
        loss_percent: percent(m.loss_rate),
        discard_percent: percent(m.discard_rate),
        burst_density_percent: percent(m.burst_density),
        burst_ms: m.burst_duration_ms,
        gap_ms: m.gap_duration_ms,
        round_trip_ms: Some(m.round_trip_delay_ms).filter(|ms| *ms != 0),
        end_system_ms: m.end_system_delay_ms,
        r_factor: m.r_factor,
        mos_lq: tenths(m.mos_lq_tenths),
        mos_cq: tenths(m.mos_cq_tenths),
        jitter_buffer_ms: m.jitter_buffer_nominal_ms,
    }
}

/// Of a share in 1/256.
fn percent(share: u8) -> f64 {
    round(f64::from(share) * 100.0 / 256.0)
}

/// Which m-lines carry SRTP, and so reports that nobody can read (RFC 3711 §3.4).
#[derive(Debug, Default)]
pub(super) struct Secure {
    /// M-line, side, how much its description says: 2 by its transport, 1 by a key alone, which the other side must have too.
    said: Vec<(u8, bool, u8)>,
}

impl Secure {
    /// Takes one side's description of an m-line.
    pub(super) fn note(&mut self, media: u8, caller_side: bool, m: &sdp::Media) {
        let by_transport = matches!(m.transport, sdp::Transport::Srtp | sdp::Transport::DtlsSrtp);
        let says = if by_transport { 2 } else { u8::from(m.crypto) };
        match self.said.iter_mut().find(|(at, side, _)| (*at, *side) == (media, caller_side)) {
            Some(old) => old.2 = says,
            // m-lines are limited where they are read
            None if says > 0 => self.said.push((media, caller_side, says)),
            None => {}
        }
    }

    /// Whether reports of this m-line are encrypted; of one that is not known, when any are.
    pub(super) fn covers(&self, media: Option<u8>) -> bool {
        let weight = |media: u8| self.said.iter().filter(|s| s.0 == media).fold(0_u8, |n, s| n.saturating_add(s.2));
        match media {
            Some(media) => weight(media) >= 2,
            None => self.said.iter().any(|s| weight(s.0) >= 2),
        }
    }
}
