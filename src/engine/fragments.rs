//! Fragmented datagrams: put together for the inspection, forwarded as they came.
//!
//! In `VoIP` mode the fragments are kept until the datagram is whole, and then go where the message or the media in it goes, all of them. In
//! generic mode nothing is kept: a later fragment goes the way of the first one (its ports are known), whatever comes before the first
//! is tested by itself.

use crate::packet::defrag::{FragmentKey, Outcome};
use crate::packet::headers::{Fragment, Headers, Transport};
use crate::packet::owned::OwnedFrame;
use crate::packet::{Frame, Timestamp};
use crate::protocols::sip;
use crate::reason::DropReason;
use crate::voip::call::CallRef;
use crate::voip::event::Place;
use crate::voip::media::{FlowMemo, MediaPacket};
use crate::voip::message::Seen;
use crate::voip::output::Output;

use super::Engine;

/// Remembered for late fragments of a datagram that was let go.
const LET_GO: u64 = 0;
/// Generic mode: the first fragment passed.
const PASSED: u64 = 1;

impl Engine {
    pub(super) fn handle_fragment(&mut self, frame: &Frame<'_>, h: &Headers, place: Place, out: &mut dyn Output) {
        match self.defrag.handle_fragment(frame, h, &self.config.decode) {
            Outcome::Held => self.counters.held = self.counters.held.saturating_add(1),
            Outcome::Complete(whole) => {
                let before = (whole.frames.len() as u64).saturating_sub(1);
                self.counters.held = self.counters.held.saturating_sub(before);
                let frames: Vec<Frame<'_>> = whole.frames.iter().map(OwnedFrame::as_frame).collect();
                let verdict = self.handle_whole(&frames, &whole.headers, &whole.bytes, place, out);
                self.defrag.remember(whole.key, verdict, frame.ts);
            }
            Outcome::Late(key) => self.handle_late(&key, frame, out),
            Outcome::Refused(_) => self.drop_one(DropReason::Fragment),
        }
        self.note_fragments_given_up();
    }

    /// A datagram made whole; returns what late fragments of it are to know.
    fn handle_whole(&mut self, frames: &[Frame<'_>], h: &Headers, bytes: &[u8], place: Place, out: &mut dyn Output) -> u64 {
        let Some(last) = frames.last() else { return LET_GO };
        let payload = h.payload(bytes);
        match h.transport {
            Transport::Udp if sip::looks_like(payload) => {
                let seen = Seen { tuple: h.tuple, ts: last.ts, place };
                let (call, mut event) = self.handle_sip(payload, &seen, false, out);
                let count = frames.len();
                for (n, f) in frames.iter().enumerate() {
                    let event = if n.saturating_add(1) == count { event.take() } else { None };
                    self.deliver_signalling(call, f, event, out);
                }
                call.map_or(LET_GO, CallRef::pack)
            }
            Transport::Udp => {
                let mut memo = FlowMemo::default();
                let at = self.calls.stamp_places(&h.tuple);
                for (n, f) in frames.iter().enumerate() {
                    let p = MediaPacket {
                        frame: f,
                        payload_at: f.data.len(),
                        payload,
                        tuple: h.tuple,
                        new_flow: true,
                        continues: n > 0,
                    };
                    self.calls.handle_media(&p, at, &mut memo, out);
                }
                LET_GO
            }
            Transport::Tcp(facts) => {
                self.handle_tcp(frames, h, payload, &facts, place, out);
                LET_GO
            }
            Transport::Sctp | Transport::Other => {
                self.counters.filtered = self.counters.filtered.saturating_add(frames.len() as u64);
                LET_GO
            }
        }
    }

    /// A fragment seen again after its datagram was decided.
    fn handle_late(&mut self, key: &FragmentKey, frame: &Frame<'_>, out: &mut dyn Output) {
        match self.defrag.recall(key, frame.ts).filter(|v| *v != LET_GO) {
            Some(call) => self.deliver_signalling(self.calls.unpack(call), frame, None, out),
            None => self.filtered(),
        }
    }

    /// Generic mode: is a fragment wanted?
    pub(super) fn wants_fragment(&mut self, frame: &Frame<'_>, h: &Headers, f: Fragment) -> bool {
        let key = FragmentKey::of(h);
        if f.offset == 0 {
            let wanted = self.wants_packet(frame, Some(h));
            if let Some(key) = key {
                self.defrag.remember(key, if wanted { PASSED } else { LET_GO }, frame.ts);
            }
            return wanted;
        }
        match key.and_then(|k| self.defrag.recall(&k, frame.ts)) {
            Some(verdict) => verdict == PASSED,
            None => self.wants_packet(frame, Some(h)),
        }
    }

    pub(super) fn expire_fragments(&mut self, now: Timestamp) {
        self.defrag.handle_timeout(now);
        self.note_fragments_given_up();
    }

    pub(super) fn finish_fragments(&mut self) {
        self.defrag.finish();
        self.note_fragments_given_up();
    }

    /// Moves what the reassembly gave up from "held" to "dropped".
    fn note_fragments_given_up(&mut self) {
        let total = self.defrag.counters().frames_given_up;
        let new = total.saturating_sub(self.fragments_given_up);
        self.fragments_given_up = total;
        self.counters.held = self.counters.held.saturating_sub(new);
        if let Some(n) = self.counters.dropped.get_mut(DropReason::Fragment.index()) {
            *n = n.saturating_add(new);
        }
    }
}
