//! Media: which call a UDP packet belongs to, in constant time per packet.
//!
//! A flow remembers what it was resolved to ([`FlowMemo`]); the stamp of its endpoints says whether that still stands. Resolution looks for
//! live claims on the destination, then on the source (symmetric RTP behind NAT, RFC 4961), and decides between several claims by
//! evidence; media that cannot be told apart is delivered to nobody.

use smallvec::SmallVec;

use crate::flow::FlowHasher;
use crate::packet::{Endpoint, FiveTuple, Frame, Timestamp};
use crate::protocols::rtp;
use crate::reason::DropReason;

use super::call::{CallRef, Verdict};
use super::claim::{Claim, Claims, StampPlaces, Tie};
use super::deliver::Delivery;
use super::hold::Part;
use super::output::Output;
use super::table::{CallTable, Wanted};
use super::unclaimed::{Facts, Packet as Unclaimed};

/// No claim, no flow.
const NONE: u32 = u32::MAX;

/// What a flow remembers of its last resolution; lives in the flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowMemo {
    stamp: u32,
    /// Number of a claim or of an unclaimed flow, by `kind`.
    id: u32,
    kind: Kind,
    /// Packets kept unclaimed.
    kept: u8,
}

impl FlowMemo {
    /// Whether packets of the flow may be wanted, as far as its last look-up said.
    pub fn is_wanted(&self) -> bool {
        matches!(self.kind, Kind::Unknown | Kind::Claimed | Kind::Kept | Kind::Opening)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Unknown,
    /// Claimed by one call only.
    Claimed,
    /// Claimed by a call nobody wants.
    Unwanted,
    /// Kept until somebody claims it.
    Kept,
    /// Nobody's so far, but what came may open a media flow.
    Opening,
    /// Nobody's: not media, or has had its share of the hold.
    Nobodys,
}

/// A UDP packet that is no SIP message.
pub struct MediaPacket<'a, 'f> {
    /// The frame.
    pub frame: &'a Frame<'f>,
    /// Where the UDP payload begins in it.
    pub payload_at: usize,
    /// The UDP payload.
    pub payload: &'a [u8],
    /// Addresses.
    pub tuple: FiveTuple,
    /// First packet of its flow, as far as the flow table knows.
    pub new_flow: bool,
    /// A further fragment of a datagram that was taken with its first: it goes along, but is not measured again.
    pub continues: bool,
}

enum Resolved {
    None,
    One { claim: u32, contested: bool },
    Ambiguous,
}

impl CallTable {
    /// Where what was claimed at a packet's endpoints is noted; for [`Self::handle_media`].
    #[inline]
    pub fn stamp_places(&self, tuple: &FiveTuple) -> StampPlaces {
        self.claims.places(tuple)
    }

    /// What endpoints are hashed by.
    pub fn hasher(&self) -> &FlowHasher {
        self.claims.hasher()
    }

    /// As [`Self::stamp_places`], where the hashes of both endpoints are known.
    #[inline]
    pub fn stamp_places_of(ends: [u64; 2]) -> StampPlaces {
        Claims::places_of(ends)
    }

    /// Reads what [`Self::handle_media`] will read at these places, so that it is in the cache by then; the value means
    /// nothing.
    pub fn warm(&self, places: impl Iterator<Item = StampPlaces>) -> u32 {
        std::hint::black_box(places.fold(0, |all, at| all ^ self.claims.stamp(at)))
    }

    /// As [`Self::warm`], of what these flows belong to: what is kept of them, or their call. How many of them are wanted.
    ///
    /// A call is found by its claim, what it measures by the call: one pass for each step, so that the loads of a pass overlap.
    pub fn warm_wanted<'a>(&self, memos: impl Iterator<Item = &'a FlowMemo> + Clone) -> usize {
        let (mut wanted, mut claimed, mut seen) = (0_usize, false, 0);
        for memo in memos.clone() {
            wanted = wanted.saturating_add(usize::from(memo.is_wanted()));
            claimed |= memo.kind == Kind::Claimed;
            seen ^= match memo.kind {
                Kind::Kept => self.unclaimed.warm(memo.id),
                Kind::Claimed => self.claims.get(memo.id).map_or(0, |c| c.call),
                Kind::Unknown | Kind::Unwanted | Kind::Opening | Kind::Nobodys => 0,
            };
        }
        if claimed {
            let claims = memos.filter(|m| m.kind == Kind::Claimed).filter_map(|m| self.claims.get(m.id));
            let calls = claims.filter_map(|c| self.calls.get(c.call as usize)?.as_ref());
            seen = calls.clone().fold(seen, |seen, call| seen ^ call.warm());
            seen = calls.clone().fold(seen, |seen, call| seen ^ call.warm_behind());
            seen = calls.filter_map(|call| call.streams.as_ref()).fold(seen, |seen, streams| seen ^ streams.warm());
        }
        std::hint::black_box(seen);
        wanted
    }

    /// Takes one packet; it is forwarded, held, given to its call's look-back or let go.
    pub fn handle_media(&mut self, p: &MediaPacket<'_, '_>, at: StampPlaces, memo: &mut FlowMemo, out: &mut dyn Output) {
        let stamp = self.claims.stamp(at);
        if memo.stamp == stamp {
            match memo.kind {
                Kind::Unwanted | Kind::Nobodys => return self.let_pass(),
                Kind::Claimed => return self.deliver_media(memo.id, p, out),
                Kind::Kept => return self.keep_unclaimed(p, memo, out),
                Kind::Opening if rtp::may_precede(p.payload) => return self.let_pass(),
                Kind::Unknown | Kind::Opening => {}
            }
        }
        let ssrc = rtp::ssrc(p.payload);
        match self.resolve(&p.tuple, ssrc, p.frame.ts) {
            Resolved::One { claim, contested } => {
                let kind = self.kind_of(claim);
                if memo.kind == Kind::Kept
                    && self.unclaimed.holds(memo.id, &p.tuple)
                    && let Some(r) = self.claims.get(claim).and_then(|c| self.call_of(c))
                {
                    // the claim did not find it
                    let packets = self.unclaimed.take_one(memo.id, &mut self.pool);
                    self.adopt_unclaimed(r, claim, packets, out);
                }
                // a contested endpoint is looked at packet by packet: its next packet may be another call's
                *memo = FlowMemo { stamp: if contested { 0 } else { stamp }, id: claim, kind, kept: 0 };
                self.deliver_media(claim, p, out);
            }
            Resolved::Ambiguous => self.count_drop(DropReason::AmbiguousMedia, 1),
            Resolved::None => {
                let fresh = p.new_flow || matches!(memo.kind, Kind::Kept | Kind::Opening);
                let media = rtp::plausible(p.payload) || rtp::is_rtcp(p.payload);
                if fresh && media && self.wanted != Wanted::Nothing {
                    if memo.kind != Kind::Kept {
                        *memo = FlowMemo { stamp, id: NONE, kind: Kind::Kept, kept: 0 };
                    }
                    memo.stamp = stamp;
                    self.keep_unclaimed(p, memo, out);
                } else {
                    let kind = if fresh && rtp::may_precede(p.payload) { Kind::Opening } else { Kind::Nobodys };
                    *memo = FlowMemo { stamp, id: NONE, kind, kept: 0 };
                    self.let_pass();
                }
            }
        }
    }

    fn kind_of(&self, claim: u32) -> Kind {
        let call = self.claims.get(claim).and_then(|c| self.calls.get(c.call as usize)).and_then(Option::as_ref);
        match call.map(|c| c.verdict) {
            Some(Verdict::Drop) if !self.lookback.is_enabled() => Kind::Unwanted,
            _ => Kind::Claimed,
        }
    }

    /// The claim that speaks for a packet on its way to `dst`: the call's newest one on that endpoint, if it has one. A flow remembers one
    /// claim for both directions, so half of a wanted call's packets are looked up here.
    fn tie(&self, id: u32, claim: &Claim, dst: &Endpoint, now: Timestamp) -> Tie {
        if claim.at == *dst {
            return Tie { claim: id, symmetric: false };
        }
        let same = |other: &u32| self.claims.get(*other).is_some_and(|o| o.call == claim.call && o.is_live(now));
        let direct = self.claims.at(dst).iter().rev().copied().find(same);
        Tie { claim: direct.unwrap_or(id), symmetric: direct.is_none() }
    }

    fn call_of(&self, claim: &Claim) -> Option<CallRef> {
        let call = self.calls.get(claim.call as usize)?.as_ref()?;
        Some(CallRef { slot: claim.call, serial: call.serial })
    }

    fn deliver_media(&mut self, claim: u32, p: &MediaPacket<'_, '_>, out: &mut dyn Output) {
        let Some(c) = self.claims.get(claim) else { return self.let_pass() };
        if !c.is_live(p.frame.ts) {
            // its time ran out since the flow was resolved
            let at = c.at;
            self.claims.touch(&at);
            return self.let_pass();
        }
        let tie = self.tie(claim, c, &p.tuple.dst, p.frame.ts);
        let Some(r) = self.call_of(c) else { return self.let_pass() };
        self.note_media(r, tie, p);
        let d = Delivery {
            frame: p.frame,
            payload_at: p.payload_at,
            part: Part::Media,
            tie: Some(tie),
            events: Vec::new(),
            sent: None,
        };
        self.deliver(r, d, out);
    }

    fn note_media(&mut self, r: CallRef, tie: Tie, p: &MediaPacket<'_, '_>) {
        let kept = self.lookback.is_enabled();
        let Some(call) = self.get_mut(r) else { return };
        if let Some(ssrc) = rtp::ssrc(p.payload) {
            call.note_ssrc(ssrc);
        }
        // nobody asked for the quality of a call that is let go
        let asked = kept || call.verdict != Verdict::Drop;
        if asked && self.config.quality && !p.continues {
            self.measure(r, tie, p);
        }
    }

    /// Who owns a packet between these endpoints.
    fn resolve(&self, tuple: &FiveTuple, ssrc: Option<u32>, now: Timestamp) -> Resolved {
        for (at, other) in [(&tuple.dst, &tuple.src), (&tuple.src, &tuple.dst)] {
            let found = self.decide(at, other, ssrc, now);
            if !matches!(found, Resolved::None) {
                return found;
            }
        }
        Resolved::None
    }

    fn decide(&self, at: &Endpoint, other: &Endpoint, ssrc: Option<u32>, now: Timestamp) -> Resolved {
        let counts = |c: &Claim| c.is_live(now) && self.speaks_of(c, at, other);
        let live: SmallVec<[u32; 8]> =
            self.claims.at(at).iter().copied().filter(|id| self.claims.get(*id).is_some_and(counts)).collect();
        let Some(&newest) = live.last() else { return Resolved::None };
        let call = |id: u32| self.claims.get(id).map_or(u32::MAX, |c| c.call);
        if live.iter().all(|id| call(*id) == call(newest)) {
            return Resolved::One { claim: newest, contested: false };
        }
        let only = |test: &dyn Fn(u32) -> bool| -> Option<u32> {
            let mut found = live.iter().rev().copied().filter(|id| test(*id));
            let first = found.next()?;
            found.all(|id| call(id) == call(first)).then_some(first)
        };
        let of = |id: u32| self.claims.get(id).and_then(|c| self.calls.get(c.call as usize)).and_then(Option::as_ref);
        let knows_ssrc = |id: u32| ssrc.is_some_and(|s| of(id).is_some_and(|c| c.ssrcs.contains(&s)));
        let goes_on = |id: u32| self.claims.get(id).is_some_and(|c| c.until.is_none());
        let names_other = |id: u32| {
            self.claims.at(other).iter().any(|o| self.claims.get(*o).is_some_and(|c| c.call == call(id) && c.is_live(now)))
        };
        // the only call that names both ends (one whose peer sends every call's media with one SSRC has nothing else to tell them apart); then
        // SSRC continuity; then the only call that has not ended; then the newest, if no older call has had media here that might have changed
        // its SSRC
        let decided = only(&names_other).or_else(|| only(&knows_ssrc)).or_else(|| only(&goes_on)).or_else(|| {
            let silent =
                live.iter().filter(|id| call(**id) != call(newest)).all(|id| of(*id).is_none_or(|c| c.media_packets == 0));
            silent.then_some(newest)
        });
        decided.map_or(Resolved::Ambiguous, |claim| Resolved::One { claim, contested: true })
    }

    fn keep_unclaimed(&mut self, p: &MediaPacket<'_, '_>, memo: &mut FlowMemo, out: &mut dyn Output) {
        let limits = self.config.limits;
        let known = (memo.id != NONE).then_some(memo.id);
        let kept = known.filter(|id| self.unclaimed.holds(*id, &p.tuple));
        if known.is_some() && kept.is_none() && self.wanted != Wanted::Everything {
            // it has been let go: nobody claimed it in time
            memo.kind = Kind::Nobodys;
            return self.let_pass();
        }
        let id = if usize::from(memo.kept) < limits.unclaimed_packets {
            self.unclaimed.push(kept, p, limits.unclaimed_packets)
        } else {
            None
        };
        if let Some(id) = id {
            memo.id = id;
            memo.kept = memo.kept.saturating_add(1);
            self.counters.held = self.counters.held.saturating_add(1);
            self.expire_unclaimed(p.frame.ts, out);
            return;
        }
        if let Some(claim) = kept.and_then(|id| self.unclaimed.facts(id)).and_then(|flow| self.call_of_its_own(&flow, out)) {
            *memo = FlowMemo::default();
            return self.deliver_media(claim, p, out);
        }
        memo.kind = Kind::Nobodys;
        self.count_drop(DropReason::HoldUnclaimed, 1);
    }

    /// Lets go of unclaimed media that is too old, or too much; where everything is wanted it becomes a call of its own.
    pub(super) fn expire_unclaimed(&mut self, now: Timestamp, out: &mut dyn Output) {
        let limits = self.config.limits;
        while let Some(flow) = self.unclaimed.oldest()
            && (now.since(flow.first) > limits.unclaimed_age || self.unclaimed.bytes() > limits.unclaimed_bytes)
        {
            self.end_unclaimed(&flow, out);
        }
    }

    /// The end of the hold of one flow.
    pub(super) fn end_unclaimed(&mut self, flow: &Facts, out: &mut dyn Output) {
        if self.call_of_its_own(flow, out).is_some() {
            return;
        }
        self.counters.rtp_only = self.counters.rtp_only.saturating_add(u64::from(flow.is_rtp));
        let n = self.unclaimed.let_go(flow.id);
        self.counters.held = self.counters.held.saturating_sub(n);
        self.count_drop(DropReason::HoldUnclaimed, n);
    }

    /// Hands over what came before its claim.
    pub(super) fn adopt_unclaimed(
        &mut self,
        r: CallRef,
        claim: u32,
        packets: impl IntoIterator<Item = Unclaimed>,
        out: &mut dyn Output,
    ) {
        for Unclaimed { frame: held, tuple, payload_at } in packets {
            let frame = held.as_frame();
            let payload = frame.data.get(payload_at..).unwrap_or_default();
            let direct = Tie { claim, symmetric: false };
            let tie = self.claims.get(claim).map_or(direct, |c| self.tie(claim, c, &tuple.dst, frame.ts));
            let p = MediaPacket { frame: &frame, payload_at, payload, tuple, new_flow: false, continues: false };
            self.note_media(r, tie, &p);
            self.counters.held = self.counters.held.saturating_sub(1);
            let d = Delivery { frame: &frame, payload_at, part: Part::Media, tie: Some(tie), events: Vec::new(), sent: None };
            self.deliver(r, d, out);
            self.pool.recycle(held);
        }
    }
}
