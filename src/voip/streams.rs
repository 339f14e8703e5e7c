//! Media streams of a call: quality per SSRC and direction, with the clock its SDP announced.

use smallvec::SmallVec;

use crate::packet::{Endpoint, FiveTuple, Timestamp};
use crate::protocols::rtp::{self, Header, codec, dtmf, mos};
use crate::protocols::sdp;
use crate::protocols::text::Short;

use super::call::CallRef;
use super::claim::{Claims, Tie};
use super::event::StreamFacts;
use super::media::MediaPacket;
use super::reports::{self, Reported, Secure};
use super::summary;
use super::table::CallTable;

/// Streams measured per call; packets of further ones are counted with the call's media, no more.
const STREAMS: usize = 64;
/// Payload formats remembered per call.
const FORMATS: usize = 64;
/// Digits remembered per stream.
const DIGITS: usize = 128;

/// One payload type of one side's SDP: that side receives it.
#[derive(Clone, Copy, Debug)]
struct Format {
    caller_side: bool,
    media: u8,
    payload_type: u8,
    codec: Short<16>,
    clock_hz: u32,
}

/// One SSRC in one direction.
#[derive(Debug)]
struct Stream {
    tuple: FiveTuple,
    ssrc: u32,
    /// The claim on where it goes; while there is none, the one on where it comes from.
    tie: Tie,
    payload_types: SmallVec<[u8; 4]>,
    codec: Short<16>,
    /// Packets, duplicates included.
    packets: u64,
    quality: rtp::Stream,
    events: dtmf::Events,
    digits: String,
    /// What RTCP says of it.
    reported: Option<Box<Reported>>,
}

/// What became of one packet.
enum Measured {
    Taken,
    NotRtp,
    NotRtcp,
    /// It is of a stream beyond the limit.
    Beyond,
}

/// All streams of one call.
#[derive(Debug, Default)]
pub struct Streams {
    formats: Vec<Format>,
    all: Vec<Stream>,
    /// RTCP packets.
    reports: u64,
    /// Which m-lines have SRTP.
    secure: Secure,
}

impl Streams {
    /// Forgets what was measured, not what payload types mean: somebody may still ask for the call.
    pub(super) fn forget(&mut self) {
        (self.all, self.reports) = (Vec::new(), 0);
    }

    /// Reads where the streams' figures are; the value means nothing.
    pub(super) fn warm(&self) -> u32 {
        self.all.iter().take(2).fold(0, |all, s| all ^ s.ssrc ^ u32::from(s.packets > 1) ^ u32::from(s.digits.is_empty()))
    }

    /// Streams measured.
    pub fn measured(&self) -> usize {
        self.all.len()
    }

    /// RTCP packets seen.
    pub fn reports(&self) -> u64 {
        self.reports
    }

    /// What each stream came to, in order of first packet.
    pub fn facts(&self, claims: &Claims) -> Vec<StreamFacts> {
        self.all.iter().map(|s| s.facts(claims)).collect()
    }

    /// Addresses and first packet of each stream, in the same order.
    pub fn tuples(&self) -> impl Iterator<Item = (FiveTuple, Timestamp)> {
        self.all.iter().map(|s| (s.tuple, s.quality.summary().first))
    }

    /// Takes over the streams of a call without signalling, now that a claim on `at` explains them.
    pub(super) fn join(&mut self, other: Self, claim: u32, at: Endpoint) {
        self.reports = self.reports.saturating_add(other.reports);
        for mut s in other.all.into_iter().take(STREAMS.saturating_sub(self.all.len())) {
            s.tie = Tie { claim, symmetric: s.tuple.dst != at };
            self.all.push(s);
        }
        self.all.sort_by_key(|s| s.quality.summary().first);
    }

    fn note(&mut self, media: u8, caller_side: bool, m: &sdp::Media) {
        self.secure.note(media, caller_side, m);
        self.formats.reserve_exact(m.formats.len());
        for f in &m.formats {
            let new = Format { caller_side, media, payload_type: f.payload_type, codec: f.codec, clock_hz: f.clock_hz };
            let same = |o: &&mut Format| o.caller_side == caller_side && o.media == media && o.payload_type == f.payload_type;
            let room = self.formats.len() < FORMATS;
            match self.formats.iter_mut().find(same) {
                Some(old) => *old = new,
                None if room => self.formats.push(new),
                None => {}
            }
        }
    }

    /// What a payload type means on its way to `to`: as the receiving side announced it, else as anybody of the call did.
    fn format(&self, payload_type: u8, to: Option<(bool, u8)>) -> Option<&Format> {
        let mut named = self.formats.iter().filter(|f| f.payload_type == payload_type);
        named.clone().find(|f| to == Some((f.caller_side, f.media))).or_else(|| named.next())
    }

    /// Gives each part of a compound report to the stream it speaks of. The parts of SRTCP cannot be read, nor those of a packet that is cut.
    fn report(&mut self, p: &MediaPacket<'_, '_>, media: Option<u8>) -> Measured {
        if self.secure.covers(media) {
            return Measured::Taken;
        }
        let Some(all) = reports::read(p.payload) else { return Measured::NotRtcp };
        for said in all {
            let score = |s: &Stream| if s.ssrc == said.ssrc() { said.fit(&s.tuple, &p.tuple) } else { 0 };
            let best = self.all.iter().map(score).max().unwrap_or(0);
            let mut fit = self.all.iter_mut().filter(|s| best > 0 && score(s) == best);
            // of two that fit alike nobody can tell which is meant
            if let (Some(stream), None) = (fit.next(), fit.next()) {
                stream.reported.get_or_insert_default().take(&said, p.frame.ts);
            }
        }
        Measured::Taken
    }

    fn measure(&mut self, p: &MediaPacket<'_, '_>, tie: Tie, to: Option<(bool, u8)>) -> Measured {
        if rtp::is_rtcp(p.payload) || is_cut_rtcp(p.payload) {
            self.reports = self.reports.saturating_add(1);
            return self.report(p, to.map(|(_, media)| media));
        }
        let Ok(header) = Header::parse(p.payload) else { return Measured::NotRtp };
        let format = self.format(header.payload_type, to).copied();
        let event = format.is_some_and(|f| f.codec.as_bytes().eq_ignore_ascii_case(b"telephone-event"));
        let at = self.all.iter().position(|s| s.ssrc == header.ssrc && s.tuple == p.tuple);
        let at = match at {
            Some(at) => at,
            None if self.all.len() < STREAMS => {
                let named = format.map(|f| (f.codec, f.clock_hz));
                // most calls have two, and a stream is large
                self.all.reserve_exact(1);
                self.all.push(Stream::new(p.tuple, &header, tie, named, event));
                self.all.len().saturating_sub(1)
            }
            None => return Measured::Beyond,
        };
        if let Some(s) = self.all.get_mut(at) {
            if s.tie.symmetric {
                s.tie = tie;
            }
            if let Some(f) = format.filter(|_| !event && s.codec.is_empty()) {
                s.name(f.codec, f.clock_hz, header.payload_type);
            }
            s.take(&header, p, event);
        }
        Measured::Taken
    }
}

impl Stream {
    fn new(tuple: FiveTuple, h: &Header, tie: Tie, named: Option<(Short<16>, u32)>, event: bool) -> Self {
        let signalled = named.as_ref().filter(|(name, _)| !event && !name.as_bytes().is_empty());
        let clock = codec::measuring_clock(h.payload_type, signalled.map(|(name, hz)| (name.as_str(), *hz))).unwrap_or(0);
        let name = match signalled {
            Some((name, _)) => *name,
            None => Short::cut(codec::static_payload(h.payload_type).map_or("", |c| c.name).as_bytes()),
        };
        Self {
            tuple,
            ssrc: h.ssrc,
            tie,
            payload_types: SmallVec::new(),
            codec: name,
            packets: 0,
            quality: rtp::Stream::new(clock),
            events: dtmf::Events::default(),
            digits: String::new(),
            reported: None,
        }
    }

    /// What its payload type means has come to light after its first packet.
    fn name(&mut self, codec: Short<16>, clock_hz: u32, payload_type: u8) {
        self.codec = codec;
        let clock = codec::measuring_clock(payload_type, Some((codec.as_str(), clock_hz)));
        self.quality.set_clock(clock.unwrap_or(0));
    }

    fn take(&mut self, h: &Header, p: &MediaPacket<'_, '_>, event: bool) {
        self.packets = self.packets.saturating_add(1);
        if !self.payload_types.contains(&h.payload_type) && self.payload_types.len() < 16 {
            self.payload_types.push(h.payload_type);
        }
        self.quality.update(h, p.frame.ts, event);
        if event {
            let (clock, digits) = (self.quality.summary().clock_hz, &mut self.digits);
            let payload = p.payload.get(h.payload.clone()).unwrap_or_default();
            self.events.update(h, payload, clock, p.frame.ts, |d| {
                if digits.len() < DIGITS {
                    digits.push(d.symbol);
                }
            });
        }
    }

    fn facts(&self, claims: &Claims) -> StreamFacts {
        let q = self.quality.summary();
        let constants = mos::constants_for(self.codec.as_str()).filter(|_| q.received > 1);
        let estimate = constants.map(|c| mos::estimate(c, q.lost_percent, q.burst_ratio));
        let formula = estimate.map(|e| {
            format!(
                "{}; {}: Ie {} Bpl {}; Ppl {:.3} BurstR {:.3}",
                mos::FORMULA,
                e.constants.source,
                e.constants.ie,
                e.constants.bpl,
                e.ppl,
                e.burst_r
            )
        });
        StreamFacts {
            ssrc: self.ssrc,
            kind: "rtp",
            src: self.tuple.src.to_string(),
            dst: self.tuple.dst.to_string(),
            payload_types: self.payload_types.to_vec(),
            codec: self.codec.as_str().to_owned(),
            clock_hz: q.clock_hz,
            evidence: summary::evidence(Some(self.tie), claims),
            packets: self.packets,
            bytes: q.octets,
            expected: q.expected,
            lost: i64::try_from(q.lost).unwrap_or(i64::MAX),
            duplicates: u64::from(q.duplicates),
            reordered: u64::from(q.late),
            jitter_mean_ms: round(q.jitter_mean_ms.unwrap_or(0.0)),
            jitter_max_ms: round(q.jitter_max_ms.unwrap_or(0.0)),
            max_gap_ms: round(q.longest_pause.as_secs_f64() * 1000.0),
            mos: estimate.map(|e| round(e.mos)),
            mos_formula: formula,
            dtmf: self.digits.clone(),
            rtcp: self.reported.as_ref().map(|r| Box::new(r.facts(q.clock_hz))),
            first_ns: q.first.as_nanos(),
            last_ns: q.last.as_nanos(),
        }
    }
}

/// RTCP whose end is missing (snaplen): the type octet alone tells it from RTP, whose payload types 72 to 79 are reserved for that (RFC 3551 §6).
fn is_cut_rtcp(payload: &[u8]) -> bool {
    matches!(payload, [128..=191, 200..=207, ..])
}

/// To a thousandth: what the measurement is good for, and the same digits everywhere.
pub(super) fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

impl CallTable {
    /// Measures one media packet of a call.
    pub(super) fn measure(&mut self, r: CallRef, tie: Tie, p: &MediaPacket<'_, '_>) {
        // the side that receives: its claim is on the destination; on the source, the packet goes to the other side
        let to = self.claims.get(tie.claim).map(|c| (c.caller_side != tie.symmetric, c.media));
        let Some(call) = self.get_mut(r) else { return };
        let streams = call.streams.get_or_insert_default();
        let before = streams.measured();
        let measured = streams.measure(p, tie, to);
        if streams.measured() != before {
            self.weigh(r);
        }
        let counter = match measured {
            Measured::Taken => return,
            Measured::NotRtp => &mut self.counters.bad_rtp,
            Measured::NotRtcp => &mut self.counters.bad_rtcp,
            Measured::Beyond => &mut self.counters.streams_refused,
        };
        *counter = counter.saturating_add(1);
    }

    /// Remembers what an SDP's payload types mean.
    pub(super) fn note_formats(&mut self, r: CallRef, session: &sdp::Session, caller_side: bool) {
        if !self.config.quality {
            return;
        }
        let Some(call) = self.get_mut(r) else { return };
        let streams = call.streams.get_or_insert_default();
        for (n, m) in session.media.iter().enumerate() {
            streams.note(u8::try_from(n).unwrap_or(u8::MAX), caller_side, m);
        }
    }
}
