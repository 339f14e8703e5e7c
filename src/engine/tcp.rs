//! SIP over TCP and over WebSocket: which original segments carry which message.
//!
//! A connection is a candidate until its first bytes say whether SIP (or a WebSocket upgrade for SIP) is inside; the segments that came until
//! then are kept. Then each direction is reassembled and framed on its own. A segment leaves when every byte of it belongs to a finished
//! message or to nothing: it goes to the calls of the messages it carries a byte of, once to each, with its retransmissions, in order of
//! arrival (decision: pure acknowledgements carry nothing and are let go).

use std::collections::VecDeque;
use std::ops::Range;

use smallvec::SmallVec;

use crate::flow::tcp;
use crate::flow::{FlowKey, Side};
use crate::packet::headers::{Headers, TcpFacts, TcpFlags};
use crate::packet::{Frame, Timestamp};
use crate::protocols::sip::{self, Framed, Framer};
use crate::protocols::ws;
use crate::reason::DropReason;
use crate::voip::call::CallRef;
use crate::voip::event::{Event, Place, SipEvent};
use crate::voip::message::Seen;
use crate::voip::output::Output;

use super::Engine;
use super::connections::{Carries, Finished, Half, Segment};

/// Segments kept per direction.
const SEGMENTS: usize = 512;
/// Finished messages remembered per direction, for late retransmissions.
const REMEMBERED: usize = 64;
/// Fragments of an unfinished WebSocket message told apart; further ones count as one with what lies between.
const PARTS: usize = 32;
/// The port of SIP over TLS.
const SIPS: u16 = 5061;
/// Bytes a candidate may send before it must look like SIP.
const CANDIDATE_BYTES: usize = 4096;

impl Engine {
    /// One segment, in the frame or the fragments it came in.
    pub(super) fn handle_tcp(
        &mut self,
        frames: &[Frame<'_>],
        h: &Headers,
        payload: &[u8],
        facts: &TcpFacts,
        place: Place,
        out: &mut dyn Output,
    ) {
        let Some(frame) = frames.last() else { return };
        let segment = Arrival { frames, payload, facts: *facts, seen: Seen { tuple: h.tuple, ts: frame.ts, place } };
        let (key, side) = FlowKey::new(&h.tuple);
        let lookup = self.flows.lookup(&key);
        let entry = self.flows.entry(&key, side, lookup, frame.ts);
        let known = entry.value.tcp.checked_sub(1);
        let known = known.filter(|id| self.tcp.get(*id).is_some_and(|c| c.key == key));
        let starts = facts.flags.contains(TcpFlags::SYN) || (entry.is_new && !payload.is_empty()) || begins(payload);
        let id = match known {
            Some(id) => id,
            None if starts => {
                let id = self.tcp.open(key, frame.ts);
                entry.value.tcp = id.wrapping_add(1);
                self.make_room_for_tcp(id, frame.ts, out);
                id
            }
            None => return self.filtered_many(frames.len()),
        };
        let half = usize::from(side == Side::High);
        if self.tcp.get(id).is_some_and(|c| c.carries == Carries::Else) {
            // the port pair is used again, or SIP begins late
            if !facts.flags.contains(TcpFlags::SYN) && !begins(payload) {
                return self.filtered_many(frames.len());
            }
            self.tcp.renew(id, Carries::Unknown);
        }
        let Some(c) = self.tcp.get(id) else { return self.filtered_many(frames.len()) };
        c.last = frame.ts;
        if frames.len() == 1 && !payload.is_empty() && self.is_duplicate(frame, self.dedup.packet_id(h, frame.data)) {
            return;
        }
        self.take_segment(id, half, &segment, out);
    }

    fn take_segment(&mut self, id: u32, half: usize, a: &Arrival<'_, '_>, out: &mut dyn Output) {
        let (payload, facts, seen) = (a.payload, a.facts, a.seen);
        let Some((c, pool, budget)) = self.tcp.get_with_memory(id) else { return };
        if payload.is_empty() && c.notes(half, &facts) {
            return self.filtered_many(a.frames.len());
        }
        let (this, other) = c.listen(half, budget);
        if facts.flags.contains(TcpFlags::ACK) {
            other.stream.handle_ack(facts.ack);
        }
        let placed =
            this.stream.insert(facts.seq, facts.flags.contains(TcpFlags::SYN), facts.flags.contains(TcpFlags::FIN), payload);
        if payload.is_empty() {
            self.filtered_many(a.frames.len());
        } else {
            for frame in a.frames {
                this.segments.push_back(Segment { range: placed.range.clone(), frame: pool.copy(frame), events: Vec::new() });
            }
            let bytes = a.frames.iter().fold(0_usize, |n, f| n.saturating_add(f.data.len()));
            self.tcp.kept_bytes = self.tcp.kept_bytes.saturating_add(bytes);
            self.counters.held = self.counters.held.saturating_add(a.frames.len() as u64);
        }
        for (half, tuple) in [(half, seen.tuple), (1 - half, seen.tuple.reversed())] {
            self.read_half(id, half, &Seen { tuple, ..seen }, out);
        }
        if facts.flags.contains(TcpFlags::RST) || self.tcp.get(id).is_some_and(|c| c.is_closed()) {
            self.close_tcp(id, out);
        }
        self.keep_tcp_budget(seen.ts, out);
    }

    /// Reads what one direction has in order, message by message, and lets segments go that are finished.
    fn read_half(&mut self, id: u32, half: usize, seen: &Seen, out: &mut dyn Output) {
        loop {
            match self.next_step(id, half, seen.ts) {
                Next::Wait => break,
                Next::Again => {}
                Next::Joined(what) => {
                    if let Some(c) = self.tcp.get(id) {
                        c.carries = what;
                        for half in c.halves() {
                            half.ws = ws::Ws::mid_stream();
                            if !half.stream.has_begun() {
                                half.framer = Framer::mid_stream();
                            }
                        }
                    }
                }
                Next::Lost { consumed, message } => {
                    let found = message.and_then(|bytes| self.handle_framed(id, &bytes, seen, out));
                    self.finish_range(id, half, consumed, found);
                    if let Some(h) = self.tcp.get(id).and_then(|c| c.half(half)) {
                        h.stream.skip_gap();
                        h.gap_since = None;
                    }
                }
                Next::Skip(n) => self.finish_range(id, half, n, None),
                Next::Part(n) => self.note_part(id, half, n),
                Next::Message { consumed, bytes } => {
                    let found = self.handle_framed(id, &bytes, seen, out);
                    self.finish_range(id, half, consumed, found);
                }
                Next::NotSip => {
                    self.abandon(id, out);
                    return;
                }
            }
        }
        self.let_segments_go(id, half, out);
    }

    fn next_step(&mut self, id: u32, half: usize, now: Timestamp) -> Next {
        let Some(c) = self.tcp.get(id) else { return Next::Wait };
        let decided = c.carries;
        let Some(h) = c.halves.as_mut().and_then(|halves| halves.get_mut(half)) else { return Next::Wait };
        let gives_up = gives_gap_up(h, now);
        let (_, buf) = h.stream.readable();
        if buf.is_empty() && !gives_up {
            return Next::Wait;
        }
        let step = match decided {
            Carries::Else => Next::NotSip,
            Carries::Unknown => match look(buf, h.stream.has_begun()) {
                Look::Sip => {
                    c.carries = Carries::Sip;
                    Next::Again
                }
                Look::Upgrade => {
                    c.carries = Carries::WebSocket;
                    Next::Again
                }
                Look::Tail => Next::Joined(Carries::Sip),
                Look::Frame => Next::Joined(Carries::WebSocket),
                Look::More => Next::Wait,
                Look::Else => {
                    if is_sip_in_tls(buf, &c.key) {
                        self.counters.sip_tls = self.counters.sip_tls.saturating_add(1);
                    }
                    Next::NotSip
                }
            },
            Carries::Sip => {
                let before = h.framer.counts();
                let framed = h.framer.next(buf);
                self.counters.parsing.note_framing(before, h.framer.counts());
                match framed {
                    Framed::NeedMore => Next::Wait,
                    Framed::Skip(n) => Next::Skip(n),
                    Framed::Message(n) => Next::Message { consumed: n, bytes: buf.get(..n).unwrap_or_default().to_vec() },
                }
            }
            Carries::WebSocket if h.ws.is_foreign() => Next::NotSip,
            Carries::WebSocket => {
                let (before, counted) = (h.ws.collected(), h.ws.counts());
                let step = match h.ws.next(buf) {
                    ws::Next::NeedMore => Next::Wait,
                    ws::Next::Message { consumed, payload } => Next::Message { consumed, bytes: payload.to_vec() },
                    ws::Next::Skip(n) => Next::Skip(n),
                };
                self.counters.parsing.note_frames(counted, h.ws.counts());
                match (step, h.ws.collected()) {
                    (Next::Skip(n), now) if now > before => Next::Part(n),
                    (Next::Skip(n), 0) => {
                        h.parts.clear();
                        Next::Skip(n)
                    }
                    (step, _) => step,
                }
            }
        };
        let step = step.checked();
        if !gives_up || !matches!(step, Next::Wait) {
            return step;
        }
        let (framed, counted) = (h.framer.counts(), h.ws.counts());
        let message = match decided {
            Carries::WebSocket => {
                h.ws.gap();
                h.parts.clear();
                None
            }
            Carries::Unknown | Carries::Sip | Carries::Else => {
                h.framer.gap(buf).map(|n| buf.get(..n).unwrap_or_default().to_vec())
            }
        };
        self.counters.parsing.note_framing(framed, h.framer.counts());
        self.counters.parsing.note_frames(counted, h.ws.counts());
        Next::Lost { consumed: buf.len(), message }
    }

    /// The next `n` bytes are a finished message of a call, or nobody's.
    fn finish_range(&mut self, id: u32, half: usize, n: usize, found: Option<(CallRef, Option<SipEvent>)>) {
        let Some(h) = self.tcp.get(id).and_then(|c| c.half(half)) else { return };
        let (offset, _) = h.stream.readable();
        h.stream.consume(n);
        let range = offset..offset.saturating_add(n as u64);
        let Some((call, event)) = found else { return };
        if let Some(event) = event {
            // the event goes with the segment that completed the message
            let last = h.segments.iter_mut().rev().find(|s| s.range.start < range.end && s.range.end > range.start);
            if let Some(s) = last {
                s.events.push((call, event));
            }
        }
        for range in h.parts.drain(..).chain([range]) {
            h.finished.push_back(Finished { range, call });
        }
        while h.finished.len() > REMEMBERED {
            h.finished.pop_front();
        }
    }

    /// The next `n` bytes are a fragment of a WebSocket message that goes on: whose they are is not known yet.
    fn note_part(&mut self, id: u32, half: usize, n: usize) {
        let Some(h) = self.tcp.get(id).and_then(|c| c.half(half)) else { return };
        let (offset, _) = h.stream.readable();
        h.stream.consume(n);
        let end = offset.saturating_add(n as u64);
        let many = h.parts.len() >= PARTS;
        match h.parts.back_mut().filter(|last| many || last.end == offset) {
            Some(last) => last.end = end,
            None => h.parts.push_back(offset..end),
        }
    }

    /// One framed message; what belongs to no call is told at once.
    fn handle_framed(&mut self, id: u32, bytes: &[u8], seen: &Seen, out: &mut dyn Output) -> Option<(CallRef, Option<SipEvent>)> {
        // a WebSocket message has its end from its frame and needs no Content-Length (RFC 7118 §5)
        let stream = self.tcp.get(id).is_some_and(|c| c.carries != Carries::WebSocket);
        let (call, event) = self.handle_sip(bytes, seen, stream, out);
        if call.is_none() {
            if let Some(event) = event {
                out.event(Event::Sip(Box::new(event)));
            }
            return None;
        }
        call.map(|call| (call, event))
    }

    /// Lets the segments at the front go whose every byte is decided.
    fn let_segments_go(&mut self, id: u32, half: usize, out: &mut dyn Output) {
        loop {
            let Some(h) = self.tcp.get(id).and_then(|c| c.half(half)) else { return };
            let read_to = h.parts.front().map_or_else(|| h.stream.readable().0, |part| part.start);
            let full = h.segments.len() > SEGMENTS;
            let Some(front) = h.segments.front() else { return };
            if front.range.end > read_to && !full {
                return;
            }
            let range = front.range.clone();
            let owners = owners(&h.finished, &range);
            let Some(segment) = h.segments.pop_front() else { return };
            self.settle(segment, &owners, full, out);
        }
    }

    fn settle(&mut self, segment: Segment, owners: &[CallRef], gave_up: bool, out: &mut dyn Output) {
        let Segment { frame, events, .. } = segment;
        self.counters.held = self.counters.held.saturating_sub(1);
        self.tcp.kept_bytes = self.tcp.kept_bytes.saturating_sub(frame.len());
        match owners {
            [] if gave_up => self.drop_one(DropReason::TcpUnframed),
            [] => self.filtered(),
            _ => self.calls.deliver_shared(owners, &frame.as_frame(), events, out),
        }
        self.tcp.pool.recycle(frame);
    }

    /// The connection carries no SIP: what was kept of it is let go.
    fn abandon(&mut self, id: u32, out: &mut dyn Output) {
        let Some(c) = self.tcp.get(id) else { return };
        let kept: Vec<Segment> = c.halves().flat_map(|h| std::mem::take(&mut h.segments)).collect();
        self.tcp.renew(id, Carries::Else);
        for s in kept {
            self.settle(s, &[], false, out);
        }
    }

    /// The connection is over: messages cut short are nobody's.
    fn close_tcp(&mut self, id: u32, out: &mut dyn Output) {
        for half in 0..2 {
            self.let_segments_go(id, half, out);
        }
        let Some(mut c) = self.tcp.close(id) else { return };
        let sip = c.carries == Carries::Sip;
        for h in c.halves() {
            for s in std::mem::take(&mut h.segments) {
                let owners = owners(&h.finished, &s.range);
                self.settle(s, &owners, sip, out);
            }
        }
    }

    /// A full table loses a connection, any but the newest.
    fn make_room_for_tcp(&mut self, newest: u32, now: Timestamp, out: &mut dyn Output) {
        if self.tcp.is_full()
            && let Some(id) = self.tcp.choose(now, |id, _| id != newest)
        {
            self.close_tcp(id, out);
        }
    }

    /// Too much is kept over all connections: those that keep something and were silent for longest lose it.
    fn keep_tcp_budget(&mut self, now: Timestamp, out: &mut dyn Output) {
        while self.tcp.kept_bytes > self.config.bounds.kept_bytes
            && let Some(id) = self.tcp.choose(now, |_, c| c.keeps())
        {
            self.close_tcp(id, out);
        }
    }

    pub(super) fn expire_tcp(&mut self, now: Timestamp, out: &mut dyn Output) {
        while let Some(id) = self.tcp.choose(now, |_, _| false) {
            self.close_tcp(id, out);
        }
    }

    pub(super) fn finish_tcp(&mut self, out: &mut dyn Output) {
        for id in 0..self.tcp.slots() {
            self.close_tcp(id, out);
        }
    }

    pub(super) fn filtered(&mut self) {
        self.filtered_many(1);
    }

    fn filtered_many(&mut self, frames: usize) {
        self.counters.filtered = self.counters.filtered.saturating_add(frames as u64);
    }

    pub(super) fn drop_one(&mut self, reason: DropReason) {
        if let Some(n) = self.counters.dropped.get_mut(reason.index()) {
            *n = n.saturating_add(1);
        }
    }
}

/// A segment and the frames it came in: one, or the fragments of its datagram.
struct Arrival<'a, 'f> {
    frames: &'a [Frame<'f>],
    payload: &'a [u8],
    facts: TcpFacts,
    seen: Seen,
}

enum Next {
    Wait,
    /// It has just become clear what the connection carries.
    Again,
    /// It carries this, and its beginning was not seen.
    Joined(Carries),
    Skip(usize),
    /// A fragment of a message.
    Part(usize),
    Message {
        consumed: usize,
        bytes: Vec<u8>,
    },
    /// A hole is given up: what is before it, and perhaps a message cut short by it.
    Lost {
        consumed: usize,
        message: Option<Vec<u8>>,
    },
    NotSip,
}

impl Next {
    /// A step that consumes nothing would never end.
    fn checked(self) -> Self {
        if matches!(self, Self::Skip(0) | Self::Part(0) | Self::Message { consumed: 0, .. }) { Self::Wait } else { self }
    }
}

/// The calls that own a byte of a range of the stream, each once.
fn owners(finished: &VecDeque<Finished>, range: &Range<u64>) -> SmallVec<[CallRef; 4]> {
    let mut owners = SmallVec::new();
    for f in finished.iter().filter(|f| f.range.start < range.end && f.range.end > range.start) {
        if !owners.contains(&f.call) {
            owners.push(f.call);
        }
    }
    owners
}

/// Whether a hole before the next data has been waited for long enough.
fn gives_gap_up(h: &mut Half, now: Timestamp) -> bool {
    let Some(gap) = h.stream.gap() else {
        h.gap_since = None;
        return false;
    };
    let waited = now.since(*h.gap_since.get_or_insert(now));
    waited > if gap.acked { tcp::SKIP_ACKED_AFTER } else { tcp::SKIP_AFTER }
}

enum Look {
    Sip,
    /// The head that asks for a WebSocket.
    Upgrade,
    /// A message after the rest of one whose beginning was not seen.
    Tail,
    /// A WebSocket's frame, in mid-connection.
    Frame,
    More,
    Else,
}

/// A TLS handshake (RFC 8446 §5.1) on the port of SIP over TLS (RFC 3261 §19.1.2): nobody here can read what follows.
fn is_sip_in_tls(buf: &[u8], key: &FlowKey) -> bool {
    matches!(buf, [0x16, 3, ..]) && [Side::Low, Side::High].iter().any(|side| key.endpoint(*side).port == SIPS)
}

/// Whether a segment begins with a message of SIP, be it in a WebSocket's frame.
fn begins(payload: &[u8]) -> bool {
    sip::looks_like(payload) || ws::finds_sip(payload)
}

/// Whether a message follows the rest of another.
fn has_tail(buf: &[u8]) -> bool {
    let after = |n: usize| buf.get(n..).unwrap_or_default();
    memchr::memmem::find(buf, b"SIP/2.0").is_some()
        && matches!(Framer::mid_stream().next(buf), Framed::Skip(n) if matches!(sip::probe(after(n)), sip::Probe::Yes))
}

/// Does a connection that begins like this carry SIP? One whose beginning was not seen may have been joined in the middle of a message.
fn look(buf: &[u8], begun: bool) -> Look {
    match sip::probe(buf) {
        sip::Probe::Yes => Look::Sip,
        sip::Probe::NeedMore if buf.len() < CANDIDATE_BYTES => Look::More,
        sip::Probe::NeedMore | sip::Probe::No => match ws::probe(buf) {
            sip::Probe::Yes => Look::Upgrade,
            sip::Probe::NeedMore if buf.len() < CANDIDATE_BYTES => Look::More,
            sip::Probe::NeedMore | sip::Probe::No if ws::finds_sip(buf) => Look::Frame,
            sip::Probe::NeedMore | sip::Probe::No if !begun && has_tail(buf) => Look::Tail,
            sip::Probe::NeedMore | sip::Probe::No => Look::Else,
        },
    }
}
