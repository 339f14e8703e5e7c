//! One SIP message and what it changes: state, parties, claims, verdict.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::filter::{FilterIndex, FilterKind, Hits};
use crate::packet::{Endpoint, FiveTuple, Timestamp};
use crate::protocols::sdp::{self, Transport};
use crate::protocols::sip::{self, Message, NameAddr, Start};

use super::call::{CallRef, Party, Verdict};
use super::claim::{Claim, Evidence, GRACE};
use super::event::Place;
use super::hold::Part;
use super::matching::find_hits;
use super::mux::{OfferedMux, rtcp_beside};
use super::output::Output;
use super::state::{CallState, Step};
use super::table::{CallTable, Wanted};

/// Claims one call may hold: 16 m-lines with RTP and RTCP on both sides.
const CLAIMS_PER_CALL: usize = 64;
/// A longer Call-ID is cut for look-up: no real one comes near.
const MAX_CALL_ID: usize = 1024;

/// Where and when a message was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Addresses, innermost.
    pub tuple: FiveTuple,
    /// Time of the packet that completed it.
    pub ts: Timestamp,
    /// That packet's place.
    pub place: Place,
}

/// Who speaks to whom, read once for a message.
struct Sides<'m> {
    from: Option<NameAddr<'m>>,
    to: Option<NameAddr<'m>>,
    from_tag: Cow<'m, str>,
    to_tag: Option<&'m [u8]>,
}

impl<'m> Sides<'m> {
    fn of(msg: &Message<'m>) -> Self {
        let (from, to) = (msg.from(), msg.to());
        let tag = |a: Option<NameAddr<'m>>| a.and_then(|a| a.tag());
        Self { from, to, from_tag: tag(from).map(text).unwrap_or_default(), to_tag: tag(to) }
    }
}

impl CallTable {
    /// Takes one message and the SDP it carries; returns its call, to which the packets that carried it are then delivered. `None`: the message
    /// has no Call-ID.
    pub fn handle_message(
        &mut self,
        msg: &Message<'_>,
        sessions: &[sdp::Session],
        seen: &Seen,
        out: &mut dyn Output,
    ) -> Option<CallRef> {
        let raw = msg.call_id()?;
        if raw.is_empty() {
            return None;
        }
        let id = call_id_text(&raw);
        let request = matches!(msg.start(), Start::Request { .. });
        let sides = Sides::of(msg);
        let step = self.step(msg, &sides, seen.ts);
        self.make_room(0, out);
        let r = self.call_for(&id, &sides.from_tag, &step, seen, out);
        self.note_facts(r, msg, &sides, &step);
        if let Some(call) = self.get_mut(r) {
            call.machine.handle(&step);
        }
        self.settle_claims(r);
        self.match_filters(r, msg, sessions, seen, out);
        for session in sessions {
            self.claim_session(r, session, &sides.from_tag, request, seen, out);
        }
        self.conclude(r, &step);
        self.weigh(r);
        self.schedule(r);
        Some(r)
    }

    fn step<'m>(&self, msg: &Message<'m>, sides: &Sides<'m>, ts: Timestamp) -> Step<'m> {
        let cseq = msg.cseq();
        let (method, status) = match msg.start() {
            Start::Request { method, .. } => (method, None),
            Start::Response { status, .. } => (cseq.as_ref().map_or(&b""[..], |c| c.method), Some(status)),
        };
        Step {
            method,
            status,
            cseq: cseq.map_or(0, |c| c.number),
            to_tag: sides.to_tag.is_some(),
            dialog: self.dialog(sides.from_tag.as_bytes(), sides.to_tag.unwrap_or_default()),
            branch: msg.via_branch().map_or(0, |b| self.hasher.hash_one(b)),
            ts,
        }
    }

    /// As [`Step::dialog`].
    fn dialog(&self, from_tag: &[u8], to_tag: &[u8]) -> u64 {
        if from_tag.is_empty() || to_tag.is_empty() {
            return 0;
        }
        self.hasher.hash_one(from_tag).wrapping_add(self.hasher.hash_one(to_tag))
    }

    /// Finds the call, or makes it. A Call-ID used again by a new INVITE with another From tag, after the end, is another call; so is one that
    /// happens to be the name we gave to media without signalling.
    fn call_for(&mut self, id: &str, from_tag: &str, step: &Step<'_>, seen: &Seen, out: &mut dyn Output) -> CallRef {
        if let Some(r) = self.find(id) {
            let invited = step.status.is_none() && step.method == b"INVITE" && !step.to_tag;
            let again = self.get(r).is_some_and(|c| {
                let state = c.machine.state();
                state == CallState::RtpOnly || (state == CallState::Ended && invited && *c.from_tag != *from_tag)
            });
            if !again {
                return r;
            }
            self.remove(r, false, out);
        }
        self.create(id, seen.tuple, seen.ts, out)
    }

    fn note_facts(&mut self, r: CallRef, msg: &Message<'_>, sides: &Sides<'_>, step: &Step<'_>) {
        let described = self.config.details;
        let to_tag = sides.to_tag.map(|t| self.hasher.hash_one(t));
        // provisional and positive answers to the caller's INVITE make dialogs, refusals and challenges do not (RFC 3261 §12.1)
        let makes_dialog = step.method == b"INVITE" && step.status.is_some_and(|s| (101..300).contains(&s));
        let Some(call) = self.get_mut(r) else { return };
        call.messages = call.messages.saturating_add(1);
        if call.messages == 1 {
            call.from_tag = sides.from_tag.as_ref().into();
            // a response says the same as its request; a request inside a dialog from the callee has the sides exchanged, and nothing
            // tells: the first message decides
            [call.from, call.to] = [sides.from, sides.to].map(|a| a.and_then(|a| a.uri()).map(|u| party(&u)).unwrap_or_default());
        }
        let from_caller = *call.from_tag == *sides.from_tag;
        if let Some(tag) = to_tag.filter(|_| makes_dialog && from_caller) {
            call.note_to_tag(tag);
        }
        if described {
            call.details.get_or_insert_default().note(msg, step, from_caller);
        }
    }

    /// Asks the filters. Done for every message: a later one may match, and every filter that chose a call is named with it.
    fn match_filters(&mut self, r: CallRef, msg: &Message<'_>, sessions: &[sdp::Session], seen: &Seen, out: &mut dyn Output) {
        match self.wanted {
            Wanted::Nothing => return,
            Wanted::Everything => {
                if self.get(r).is_some_and(|c| c.verdict != Verdict::Forward) {
                    self.choose(r, seen.ts, out);
                }
                return;
            }
            Wanted::Matching => {}
        }
        let mut hits = std::mem::take(&mut self.hits);
        hits.clear();
        find_hits(&self.filters, &mut self.strangers, msg, sessions, &seen.tuple, &mut hits);
        if !hits.is_empty() {
            self.add_filters(r, &hits);
            if self.get(r).is_some_and(|c| c.verdict != Verdict::Forward) {
                self.choose(r, seen.ts, out);
            }
        }
        self.hits = hits;
    }

    /// Adds the filters that matched to the call's list; the most generous media policy wins.
    fn add_filters(&mut self, r: CallRef, hits: &Hits) {
        let filters = Arc::clone(&self.filters);
        let Some(call) = self.get_mut(r) else { return };
        let mut ids: Vec<Arc<str>> = call.filter_ids.to_vec();
        let media = filters.media(hits);
        call.media = if ids.is_empty() { media } else { call.media.max(media) };
        for id in hits.as_slice().iter().filter_map(|hit| filters.id(*hit)) {
            if !ids.contains(id) {
                ids.push(Arc::clone(id));
            }
        }
        if ids.len() != call.filter_ids.len() {
            call.filter_ids = Arc::from(ids);
            call.contexts.clear();
        }
        if call.phone_rule.is_none() {
            let of_phone = |hit: &&FilterIndex| filters.filter(**hit).is_some_and(|f| f.kind == FilterKind::PhoneNumber);
            if let Some(rule) = hits.as_slice().iter().find(of_phone).and_then(|hit| filters.rule(*hit)) {
                call.phone_rule = Some(rule.into());
                call.contexts.clear();
            }
        }
    }

    /// The call is wanted from here on; what is kept of it goes out first. Media of a call nobody wanted is not counted without look-back: how
    /// much of it is missing is not known then, and it is missing until now.
    fn choose(&mut self, r: CallRef, now: Timestamp, out: &mut dyn Output) {
        let kept = self.lookback.take(r);
        let counted = self.lookback.is_enabled();
        if let Some(call) = self.get_mut(r).filter(|c| c.verdict == Verdict::Drop) {
            let noted = call.holes.iter().fold(0_u64, |n, h| n.saturating_add(h.packets));
            let seen = call.signalling_packets.saturating_add(call.media_packets);
            let missing = seen.saturating_sub(noted).saturating_sub(kept.len() as u64);
            if missing > 0 {
                let until = kept.iter().find(|h| h.part == Part::Media).map_or(call.last, |h| h.frame.ts());
                let (until, missing) = if counted || call.claims.is_empty() { (until, missing) } else { (now, 0) };
                call.note_hole("before_match", call.first, until, missing);
            }
        }
        self.release(r, kept, out);
        self.set_verdict(r, Verdict::Forward);
    }

    /// Turns an SDP into claims; packets that came before are handed over.
    fn claim_session(
        &mut self,
        r: CallRef,
        session: &sdp::Session,
        from_tag: &str,
        request: bool,
        seen: &Seen,
        out: &mut dyn Output,
    ) {
        let Some(call) = self.get_mut(r) else { return };
        let caller_side = call.is_caller(from_tag, request);
        call.note_session(caller_side, session);
        for (index, m) in session.media.iter().enumerate() {
            let media = u8::try_from(index).unwrap_or(u8::MAX);
            if let (Some(ip), true) = (m.addr.filter(|ip| !ip.is_unspecified()), m.port != 0 && m.transport != Transport::Tcp) {
                let beside = rtcp_beside(m);
                self.forget_offered_mux(r, media, caller_side);
                for pair in 0..m.ports.clamp(1, 8) {
                    let port = m.port.saturating_add(pair.saturating_mul(2));
                    self.claim(r, media, caller_side, Endpoint { ip, port }, Evidence::Sdp, seen, out);
                    let Some(above) = port.checked_add(1).filter(|_| beside) else { continue };
                    let at = Endpoint { ip, port: above };
                    if m.rtcp_mux {
                        self.note_offered_mux(r, OfferedMux { media, caller_side, otherwise: at });
                    } else {
                        self.claim(r, media, caller_side, at, Evidence::Rtcp, seen, out);
                    }
                }
                if let Some((rtcp_ip, port)) = m.rtcp {
                    let at = Endpoint { ip: rtcp_ip.unwrap_or(ip), port };
                    if port != 0 && !(m.rtcp_mux && port == m.port) {
                        self.claim(r, media, caller_side, at, Evidence::Rtcp, seen, out);
                    }
                }
                if !m.rtcp_mux {
                    for at in self.declined_mux(r, media, !caller_side) {
                        self.claim(r, media, !caller_side, at, Evidence::Rtcp, seen, out);
                    }
                }
            }
            for c in &m.candidates {
                if c.endpoint.port != 0 && !c.endpoint.ip.is_unspecified() {
                    self.claim(r, media, caller_side, c.endpoint, Evidence::Ice, seen, out);
                }
            }
        }
        self.note_formats(r, session, caller_side);
    }

    #[expect(clippy::too_many_arguments, reason = "one claim has this many facts; they are all of one line of SDP")]
    fn claim(
        &mut self,
        r: CallRef,
        media: u8,
        caller_side: bool,
        at: Endpoint,
        evidence: Evidence,
        seen: &Seen,
        out: &mut dyn Output,
    ) {
        let Some(call) = self.calls.get(r.slot as usize).and_then(Option::as_ref).filter(|c| c.serial == r.serial) else {
            return;
        };
        let message = call.messages;
        let same_place = |c: &Claim| c.media == media && c.caller_side == caller_side && c.evidence == evidence;
        for id in &call.claims {
            let Some(old) = self.claims.get(*id) else { continue };
            if old.at == at && old.is_live(seen.ts) {
                return;
            }
        }
        // the same side names another address for the same media (re-INVITE, hold with new ports): the old one runs out. An answer of
        // another fork and further pairs or candidates of this very message stand beside it.
        let replaced: Vec<u32> = call
            .claims
            .iter()
            .copied()
            .filter(|id| {
                self.claims
                    .get(*id)
                    .is_some_and(|old| same_place(old) && old.message != message && call.machine.answered_at().is_some())
            })
            .collect();
        if call.claims.len() >= CLAIMS_PER_CALL {
            self.counters.claims_refused = self.counters.claims_refused.saturating_add(1);
            return;
        }
        for id in replaced {
            self.claims.replace(id, seen.ts.saturating_add(GRACE));
        }
        let id = self.claims.add(Claim {
            call: r.slot,
            at,
            media,
            caller_side,
            evidence,
            message,
            since: seen.ts,
            until: None,
            replaced: false,
        });
        if let Some(call) = self.get_mut(r) {
            call.claims.push(id);
        }
        self.explain_media(r, id, out);
        let packets = self.unclaimed.take(&at, &mut self.pool);
        self.adopt_unclaimed(r, id, packets, out);
    }

    /// A set-up that is over without a match ends the hold: nobody asked for this call.
    fn conclude(&mut self, r: CallRef, step: &Step<'_>) {
        let Some(call) = self.get_mut(r) else { return };
        let established = call.machine.answered_at().is_some() && step.status.is_none() && step.method == b"ACK";
        let done = established || (call.machine.state() == CallState::Ended);
        if !done || call.set_up_done {
            return;
        }
        call.set_up_done = true;
        if call.verdict == Verdict::Hold {
            self.let_go(r);
            self.set_verdict(r, Verdict::Drop);
        }
    }
}

/// A Call-ID as text: bytes that are no UTF-8 are written `\xNN`, so that two different ones stay different.
pub fn call_id_text(raw: &[u8]) -> Cow<'_, str> {
    let raw = raw.get(..MAX_CALL_ID).unwrap_or(raw);
    text(raw)
}

/// Bytes as text; what is no UTF-8 is written `\xNN`.
pub fn text(raw: &[u8]) -> Cow<'_, str> {
    if let Ok(s) = std::str::from_utf8(raw) {
        return Cow::Borrowed(s);
    }
    let mut s = String::with_capacity(raw.len().saturating_add(8));
    for chunk in raw.utf8_chunks() {
        s.push_str(chunk.valid());
        for b in chunk.invalid() {
            let _infallible = write!(s, "\\x{b:02x}");
        }
    }
    Cow::Owned(s)
}

fn party(uri: &sip::Uri<'_>) -> Party {
    Party { user: text(&uri.user()).into(), host: text(uri.host()).into() }
}
