//! Carrying out verdicts: forward, hold, release, let go. Every packet that enters leaves through exactly one counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::filter::MediaPolicy;
use crate::packet::{Frame, Timestamp};
use crate::protocols::rtp;
use crate::reason::DropReason;

use super::call::{CallRef, Verdict};
use super::claim::Tie;
use super::event::{Event, SipEvent};
use super::hold::{Held, Part};
use super::output::{Output, Owner};
use super::table::CallTable;

/// One packet of a call on its way to its fate.
pub struct Delivery<'a, 'f> {
    /// The packet.
    pub frame: &'a Frame<'f>,
    /// Where its transport payload begins, to cut media to its headers.
    pub payload_at: usize,
    /// Signalling or media.
    pub part: Part,
    /// What ties media to the call.
    pub tie: Option<Tie>,
    /// The events of the messages this packet completed; several in one TCP segment.
    pub events: Vec<SipEvent>,
    /// Set once the packet has been handed out, when several calls own it.
    pub sent: Option<Arc<AtomicBool>>,
}

impl CallTable {
    /// Forwards, holds or lets go of one packet, as its call's verdict says.
    pub fn deliver(&mut self, r: CallRef, d: Delivery<'_, '_>, out: &mut dyn Output) {
        self.count_part(r, d.part, d.frame.ts);
        match self.get(r).map(|c| c.verdict) {
            Some(Verdict::Forward) => self.forward(r, d, out),
            Some(Verdict::Hold) => self.hold(r, d),
            Some(Verdict::Drop) if self.lookback.is_enabled() => self.keep(r, d),
            Some(Verdict::Drop) | None => self.counters.filtered = self.counters.filtered.saturating_add(1),
        }
    }

    /// The same for a TCP segment that carries messages of several calls: each takes it, as its own verdict says.
    pub fn deliver_shared(
        &mut self,
        owners: &[CallRef],
        frame: &Frame<'_>,
        mut events: Vec<(CallRef, SipEvent)>,
        out: &mut dyn Output,
    ) {
        let sent = (owners.len() > 1).then(|| Arc::new(AtomicBool::new(false)));
        for (n, r) in owners.iter().enumerate() {
            if n > 0 {
                self.counters.shared = self.counters.shared.saturating_add(1);
            }
            let events = events.extract_if(.., |(call, _)| call == r).map(|(_, event)| event).collect();
            self.deliver(
                *r,
                Delivery { frame, payload_at: 0, part: Part::Signalling, tie: None, events, sent: sent.clone() },
                out,
            );
        }
    }

    /// Tells that a packet was given to the table but belongs to no call.
    pub fn let_pass(&mut self) {
        self.counters.filtered = self.counters.filtered.saturating_add(1);
    }

    fn forward(&mut self, r: CallRef, d: Delivery<'_, '_>, out: &mut dyn Output) {
        if out.wants_events() {
            d.events.into_iter().for_each(|event| out.event(Event::Sip(Box::new(event))));
        }
        let Some(cut) = self.cut(r, d.frame, d.payload_at, d.part) else {
            self.counters.filtered = self.counters.filtered.saturating_add(1);
            return;
        };
        self.hand_out(r, &cut, (d.part, d.tie), d.sent.as_deref(), out);
    }

    /// The frame as the media policy wants it; `None` when media is not wanted at all.
    fn cut<'f>(&self, r: CallRef, frame: &Frame<'f>, payload_at: usize, part: Part) -> Option<Frame<'f>> {
        let policy = self.get(r)?.media;
        if part == Part::Signalling || policy == MediaPolicy::Full {
            return Some(*frame);
        }
        if policy == MediaPolicy::None {
            return None;
        }
        let payload = frame.data.get(payload_at..).unwrap_or_default();
        let keep = payload_at.saturating_add(rtp::header_len(payload));
        Some(Frame { data: frame.data.get(..keep).unwrap_or(frame.data), ..*frame })
    }

    fn hand_out(
        &mut self,
        r: CallRef,
        frame: &Frame<'_>,
        (part, tie): (Part, Option<Tie>),
        sent: Option<&AtomicBool>,
        out: &mut dyn Output,
    ) {
        let repeat = sent.is_some_and(|s| s.swap(true, Ordering::Relaxed));
        let Some(call) = self.calls.get_mut(r.slot as usize).and_then(Option::as_mut).filter(|c| c.serial == r.serial) else {
            return;
        };
        let claims = &self.claims;
        let at = call.context(tie, || super::summary::evidence(tie, claims).into(), &mut self.next_key);
        if let Some((_, key, context)) = call.contexts.get(at) {
            let owner = Owner { key: *key, context, part, repeat };
            out.forward(frame, Some(&owner));
            if part == Part::Media {
                call.media_from = call.media_from.into_iter().chain([frame.ts]).min();
            }
            self.counters.forwarded = self.counters.forwarded.saturating_add(1);
        }
    }

    fn hold(&mut self, r: CallRef, d: Delivery<'_, '_>) {
        let limits = self.config.limits;
        let frame = self.pool.copy(d.frame);
        let (part, bytes, ts) = (d.part, frame.len(), frame.ts());
        let Some(call) = self.calls.get_mut(r.slot as usize).and_then(Option::as_mut).filter(|c| c.serial == r.serial) else {
            return;
        };
        if call.hold.is_empty() {
            self.hold_order.push_back(r);
        }
        call.hold.push(Held { frame, payload_at: d.payload_at, part, tie: d.tie, events: d.events, sent: d.sent });
        self.counters.held = self.counters.held.saturating_add(1);
        match part {
            Part::Signalling => {
                self.held_signalling_bytes = self.held_signalling_bytes.saturating_add(bytes);
                if call.hold.signalling() > limits.hold_messages {
                    self.drop_oldest(r, Part::Signalling, DropReason::HoldMessages);
                }
            }
            Part::Media => {
                if call.hold.media() > limits.hold_media_packets {
                    self.drop_oldest(r, Part::Media, DropReason::HoldMedia);
                }
                self.age_media(r, ts);
            }
        }
        self.keep_budget(r);
        self.tidy_hold_order();
    }

    /// Forgets the places of calls that hold nothing any more, once they are many.
    fn tidy_hold_order(&mut self) {
        if self.hold_order.len() > self.config.limits.calls.saturating_mul(2) {
            let calls = &self.calls;
            self.hold_order.retain(|r| {
                let call = calls.get(r.slot as usize).and_then(Option::as_ref);
                call.is_some_and(|c| c.serial == r.serial && !c.hold.is_empty())
            });
        }
    }

    /// Lets go of held media that is too old.
    fn age_media(&mut self, r: CallRef, now: Timestamp) {
        let age = self.config.limits.hold_media_age;
        while self.get(r).and_then(|c| c.hold.oldest_media()).is_some_and(|at| now.since(at) > age) {
            self.drop_oldest(r, Part::Media, DropReason::HoldAge);
        }
    }

    fn drop_oldest(&mut self, r: CallRef, part: Part, reason: DropReason) {
        let Some(held) = self.get_mut(r).and_then(|c| c.hold.pop_part(part)) else { return };
        self.counters.held = self.counters.held.saturating_sub(1);
        if part == Part::Signalling {
            self.held_signalling_bytes = self.held_signalling_bytes.saturating_sub(held.frame.len());
        }
        self.count_drop(reason, 1);
        let ts = held.frame.ts();
        if let Some(call) = self.get_mut(r) {
            call.note_hole(reason.name(), ts, ts, 1);
        }
        self.pool.recycle(held.frame);
    }

    /// All holds together are over budget: the call that has waited longest loses its own.
    fn keep_budget(&mut self, newest: CallRef) {
        while self.held_signalling_bytes > self.config.limits.hold_bytes {
            let Some(oldest) = self.hold_order.pop_front() else { break };
            self.give_up_hold(oldest, DropReason::HoldBytes);
            if oldest == newest {
                break;
            }
        }
    }

    /// Loses a call's hold, counted.
    pub(super) fn give_up_hold(&mut self, r: CallRef, reason: DropReason) {
        while let Some(held) = self.get_mut(r).and_then(|c| c.hold.pop()) {
            self.unhold(&held);
            self.count_drop(reason, 1);
            let ts = held.frame.ts();
            if let Some(call) = self.get_mut(r) {
                call.note_hole(reason.name(), ts, ts, 1);
            }
            self.pool.recycle(held.frame);
        }
    }

    /// Lets a hold go because nobody asked for the call: into look-back where that is on.
    pub(super) fn let_go(&mut self, r: CallRef) {
        while let Some(held) = self.get_mut(r).and_then(|c| c.hold.pop()) {
            self.unhold(&held);
            if self.lookback.is_enabled() {
                self.keep_held(r, held);
            } else {
                self.counters.filtered = self.counters.filtered.saturating_add(1);
                self.pool.recycle(held.frame);
            }
        }
    }

    /// Releases everything kept of a call that has just been chosen, in order of arrival: what look-back had of it, then what is held.
    pub(super) fn release(&mut self, r: CallRef, kept: Vec<Held>, out: &mut dyn Output) {
        for held in kept {
            self.counters.held = self.counters.held.saturating_sub(1);
            self.hand_out_held(r, held, out);
        }
        while let Some(held) = self.get_mut(r).and_then(|c| c.hold.pop()) {
            self.unhold(&held);
            self.hand_out_held(r, held, out);
        }
    }

    fn hand_out_held(&mut self, r: CallRef, held: Held, out: &mut dyn Output) {
        let Held { frame, payload_at, part, tie, events, sent } = held;
        self.forward(r, Delivery { frame: &frame.as_frame(), payload_at, part, tie, events, sent }, out);
        self.pool.recycle(frame);
    }

    /// Keeps a packet of an unwanted call for look-back.
    fn keep(&mut self, r: CallRef, d: Delivery<'_, '_>) {
        let frame = self.pool.copy(d.frame);
        self.keep_held(r, Held { frame, payload_at: d.payload_at, part: d.part, tie: d.tie, events: d.events, sent: d.sent });
    }

    fn keep_held(&mut self, r: CallRef, held: Held) {
        let now = held.frame.ts();
        self.counters.held = self.counters.held.saturating_add(1);
        let gone = self.lookback.push(r, held, &mut self.pool);
        let old = self.lookback.expire(now, &mut self.pool);
        self.lookback_gone(gone.saturating_add(old));
    }

    pub(super) fn lookback_gone(&mut self, packets: u64) {
        self.counters.held = self.counters.held.saturating_sub(packets);
        self.counters.filtered = self.counters.filtered.saturating_add(packets);
    }

    fn unhold(&mut self, held: &Held) {
        self.counters.held = self.counters.held.saturating_sub(1);
        if held.part == Part::Signalling {
            self.held_signalling_bytes = self.held_signalling_bytes.saturating_sub(held.frame.len());
        }
    }
}
