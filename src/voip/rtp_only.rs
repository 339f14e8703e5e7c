//! Media that no signalling explains, where everything is wanted: a call of its own, named after the SSRC of its first packet.
//!
//! ```text
//!  unclaimed flow ──50 packets or 2 s, and it is RTP──▶ call `rtp-SSRC` (RTP-ONLY), with claims on both ends
//!                                                             │ an SDP names one of them, and no other call's, while the media flows
//!                                                             ▼
//!                                            its streams and counts become those of the call behind the SDP
//! ```
//! Packets forwarded before that stay under the name they were forwarded under.

use crate::packet::{Endpoint, FiveTuple};

use super::call::{Call, CallRef};
use super::claim::{Claim, Evidence, GRACE};
use super::output::Output;
use super::state::Machine;
use super::table::{CallTable, Wanted};
use super::unclaimed::Facts;

/// Calls that may have the same SSRC (a relay keeps it on all its legs); further ones are not told apart and are let go.
const SAME_SSRC: u32 = 16;

impl CallTable {
    /// Makes a call of a flow that is RTP beyond doubt; its packets are handed over. Returns the claim on where the first packet went.
    pub(super) fn call_of_its_own(&mut self, flow: &Facts, out: &mut dyn Output) -> Option<u32> {
        if self.wanted != Wanted::Everything || !flow.is_rtp {
            return None;
        }
        let name = |n: u32| if n == 1 { format!("rtp-{:08x}", flow.ssrc) } else { format!("rtp-{:08x}-{n}", flow.ssrc) };
        let id = (1..=SAME_SSRC).map(name).find(|id| self.find(id).is_none())?;
        let r = self.create(&id, flow.tuple, flow.first, out);
        if let Some(call) = self.get_mut(r) {
            call.machine = Machine::rtp_only();
        }
        self.counters.rtp_only = self.counters.rtp_only.saturating_add(1);
        let (src, dst) = (flow.tuple.src, flow.tuple.dst);
        let mut packets = self.unclaimed.take_flow(&flow.tuple, &mut self.pool);
        let mut ends = vec![(dst, false, Evidence::Rtp), (src, true, Evidence::Rtp)];
        if let (Some(src), Some(dst)) = (above(src), above(dst)) {
            ends.extend([(dst, false, Evidence::Rtcp), (src, true, Evidence::Rtcp)]);
            packets.append(&mut self.unclaimed.take_flow(&FiveTuple { src, dst, ..flow.tuple }, &mut self.pool));
        }
        let mut claims = ends.into_iter().map(|(at, caller_side, evidence)| {
            let since = flow.first;
            let (until, replaced) = (None, false);
            self.claims.add(Claim { call: r.slot, at, media: 0, caller_side, evidence, message: 0, since, until, replaced })
        });
        let to = claims.next()?;
        let claims = [to].into_iter().chain(claims).collect();
        if let Some(call) = self.get_mut(r) {
            call.claims = claims;
        }
        packets.sort_by_key(|p| p.frame.ts());
        self.adopt_unclaimed(r, to, packets, out);
        self.schedule(r);
        Some(to)
    }

    /// Whether a claim says something of a packet between these endpoints: one without signalling speaks of its own flow and its RTCP only,
    /// since many calls may meet at one port of a server.
    pub(super) fn speaks_of(&self, c: &Claim, at: &Endpoint, other: &Endpoint) -> bool {
        if c.message != 0 {
            return true;
        }
        let Some(call) = self.calls.get(c.call as usize).and_then(Option::as_ref) else { return false };
        let rtcp = c.evidence == Evidence::Rtcp;
        let is = |e: &Endpoint, named: Endpoint| Some(*e) == if rtcp { above(named) } else { Some(named) };
        let (a, b) = (call.tuple.src, call.tuple.dst);
        (is(at, a) && is(other, b)) || (is(at, b) && is(other, a))
    }

    /// An SDP of call `r` names an endpoint: the call without signalling that has it, and whose media still flows, becomes part of `r`. Of
    /// several that meet at one port nobody can tell which is meant; they stay by themselves.
    pub(super) fn explain_media(&mut self, r: CallRef, claim: u32, out: &mut dyn Output) {
        let Some(c) = self.claims.get(claim).cloned() else { return };
        let mut unsignalled: Vec<CallRef> = Vec::new();
        for other in self.claims.at(&c.at) {
            let Some(slot) = self.claims.get(*other).filter(|o| o.evidence == Evidence::Rtp).map(|o| o.call) else { continue };
            if let Some(call) = self.calls.get(slot as usize).and_then(Option::as_ref) {
                unsignalled.push(CallRef { slot, serial: call.serial });
            }
        }
        let flows = |t: &Self, old: CallRef| t.get(old).is_some_and(|call| c.since.since(call.last) <= GRACE);
        // the port is used again: what was there is over
        for old in unsignalled.extract_if(.., |old| !flows(self, *old)).collect::<Vec<_>>() {
            self.remove(old, false, out);
        }
        if let [old] = unsignalled.as_slice()
            && let Some(old) = self.detach(*old)
        {
            self.drop_claims(&old);
            self.counters.rtp_only = self.counters.rtp_only.saturating_sub(1);
            self.join(r, old, claim, c.at);
        }
    }

    fn join(&mut self, r: CallRef, old: Call, claim: u32, at: Endpoint) {
        let Some(call) = self.get_mut(r) else { return };
        call.media_packets = call.media_packets.saturating_add(old.media_packets);
        call.media_from = call.media_from.into_iter().chain(old.media_from).min();
        call.last = call.last.max(old.last);
        call.alive = call.alive.max(old.alive);
        old.ssrcs.iter().for_each(|s| call.note_ssrc(*s));
        if let Some(streams) = old.streams {
            call.streams.get_or_insert_default().join(*streams, claim, at);
        }
    }
}

/// Where the RTCP of RTP at `at` goes, unless something else is said: RTP on an even port, RTCP on the next (RFC 3550 §11).
fn above(at: Endpoint) -> Option<Endpoint> {
    at.port.is_multiple_of(2).then(|| Endpoint { port: at.port.saturating_add(1), ..at })
}
