//! Claims on media endpoints: who said that media will appear where, and since when.
//!
//! An SDP in a message of call N is a claim of N on the addresses it names. Claims are kept per endpoint as a list, because ports are
//! used again: the newest claim does not erase the one before, whose media may still be on its way (grace after BYE, decision of the
//! SSRC). A table of stamps lets a flow remember what it was resolved to: a stamp changes whenever a claim on an endpoint that shares its
//! slot comes, goes or changes its verdict, so that a flow asks again only when something near it has changed.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use crate::flow::FlowHasher;
use crate::packet::{Endpoint, FiveTuple, Timestamp};

/// Media that arrives this long after BYE still belongs to the call (packet time).
pub const GRACE: Duration = Duration::from_secs(5);
/// Claims on one endpoint; beyond that the oldest goes.
const PER_ENDPOINT: usize = 8;
/// Slots of the stamp table: 256 KiB.
const STAMPS: usize = 1 << 16;
/// Stamps per call where there are fewer; a call names four endpoints, RTCP included, seldom more.
const ENDS_PER_CALL: usize = 16;

/// Where a claim comes from: the evidence a record shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// `m=` with its `c=`.
    Sdp,
    /// `a=rtcp`, or the port above RTP's (RFC 3605, RFC 3550 §11).
    Rtcp,
    /// `a=candidate` (RFC 8839).
    Ice,
    /// RTP was seen there that nobody has signalled.
    Rtp,
}

impl Evidence {
    /// The word in contexts and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sdp => "sdp",
            Self::Rtcp => "rtcp",
            Self::Ice => "ice",
            Self::Rtp => "rtp",
        }
    }
}

/// How a media packet is tied to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tie {
    /// The number of the claim.
    pub claim: u32,
    /// The claim is not on where the packet goes but on where it comes from: the other side's SDP names another address than its media has
    /// (symmetric RTP, RFC 4961).
    pub symmetric: bool,
}

/// One claim of one call on one endpoint.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Slot of the call in the call table.
    pub call: u32,
    /// The endpoint.
    pub at: Endpoint,
    /// Number of the m-line.
    pub media: u8,
    /// Whether the caller's side (the sender of the first INVITE) receives here.
    pub caller_side: bool,
    /// Why.
    pub evidence: Evidence,
    /// Number of the message of its call that made it, from 1.
    pub message: u32,
    /// When it was made.
    pub since: Timestamp,
    /// When it stops to count; `None` while the call lives.
    pub until: Option<Timestamp>,
    /// A later SDP of the same side took its place: it does not live again.
    pub replaced: bool,
}

impl Claim {
    /// Whether the claim holds at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|end| now <= end)
    }
}

/// Where two endpoints' stamps are; see [`Claims::places`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StampPlaces(u16, u16);

/// All claims, by endpoint.
#[derive(Debug)]
pub struct Claims {
    slots: Vec<Option<Claim>>,
    free: Vec<u32>,
    by_endpoint: HashMap<Endpoint, SmallVec<[u32; 2]>, RandomState>,
    stamps: Vec<u32>,
    hasher: FlowHasher,
}

impl Claims {
    /// For about so many calls: an engine that looks at one call of a processor has a small table.
    pub fn new(calls: usize) -> Self {
        let random = RandomState::new();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_endpoint: HashMap::default(),
            stamps: vec![0; calls.saturating_mul(ENDS_PER_CALL).clamp(ENDS_PER_CALL, STAMPS).next_power_of_two()],
            hasher: FlowHasher::new([random.hash_one(0), random.hash_one(1)]),
        }
    }

    /// What endpoints are hashed by.
    pub fn hasher(&self) -> &FlowHasher {
        &self.hasher
    }

    /// Where the stamps of a packet's endpoints are.
    #[inline]
    pub fn places(&self, tuple: &FiveTuple) -> StampPlaces {
        Self::places_of(self.hasher.ends(tuple))
    }

    /// The same, where the hashes of both are known.
    #[inline]
    pub fn places_of([src, dst]: [u64; 2]) -> StampPlaces {
        StampPlaces(slot_of(src), slot_of(dst))
    }

    /// The stamp of a pair of endpoints: equal to an earlier one only if nothing was claimed at either since.
    #[inline]
    pub fn stamp(&self, StampPlaces(a, b): StampPlaces) -> u32 {
        let read = |at: u16| self.stamps.get(self.place(at)).copied().unwrap_or(0);
        // never 0: 0 means "never resolved"
        read(a).wrapping_add(read(b)).wrapping_mul(2) | 1
    }

    /// Makes a claim; returns its number.
    pub fn add(&mut self, claim: Claim) -> u32 {
        let at = claim.at;
        let id = if let Some(id) = self.free.pop() {
            id
        } else {
            self.slots.push(None);
            u32::try_from(self.slots.len()).unwrap_or(u32::MAX).saturating_sub(1)
        };
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = Some(claim);
        }
        let list = self.by_endpoint.entry(at).or_default();
        let oldest = if list.len() >= PER_ENDPOINT { Some(list.remove(0)) } else { None };
        list.push(id);
        if let Some(old) = oldest {
            // its call still lists it; the slot is freed when the call goes
            if let Some(Some(c)) = self.slots.get_mut(old as usize) {
                c.until = Some(Timestamp::MIN);
                c.replaced = true;
            }
        }
        self.touch(&at);
        id
    }

    /// A claim by number.
    pub fn get(&self, id: u32) -> Option<&Claim> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// The claims on an endpoint, oldest first.
    #[inline]
    pub fn at(&self, e: &Endpoint) -> &[u32] {
        self.by_endpoint.get(e).map_or(&[], |l| l.as_slice())
    }

    /// Whether nobody ever claimed anything.
    pub fn is_empty(&self) -> bool {
        self.by_endpoint.is_empty()
    }

    /// Sets the end of a claim's time.
    pub fn end(&mut self, id: u32, until: Timestamp) {
        if let Some(Some(c)) = self.slots.get_mut(id as usize) {
            if c.until.is_none_or(|u| u > until) {
                c.until = Some(until);
            }
            let at = c.at;
            self.touch(&at);
        }
    }

    /// Another claim takes this one's place; it counts until `until`.
    pub fn replace(&mut self, id: u32, until: Timestamp) {
        if let Some(Some(c)) = self.slots.get_mut(id as usize) {
            c.replaced = true;
        }
        self.end(id, until);
    }

    /// Lets a claim live again (a call that goes on after all), unless another took its place.
    pub fn revive(&mut self, id: u32) {
        if let Some(Some(c)) =
            self.slots.get_mut(id as usize).filter(|c| c.as_ref().is_some_and(|c| !c.replaced && c.until.is_some()))
        {
            c.until = None;
            let at = c.at;
            self.touch(&at);
        }
    }

    /// Forgets a claim.
    pub fn remove(&mut self, id: u32) {
        let Some(claim) = self.slots.get_mut(id as usize).and_then(Option::take) else { return };
        if let Some(list) = self.by_endpoint.get_mut(&claim.at) {
            list.retain(|c| *c != id);
            if list.is_empty() {
                self.by_endpoint.remove(&claim.at);
            }
        }
        self.free.push(id);
        self.touch(&claim.at);
    }

    /// Makes every flow near `e` ask again.
    pub fn touch(&mut self, e: &Endpoint) {
        let slot = self.place(self.slot(e));
        if let Some(s) = self.stamps.get_mut(slot) {
            *s = s.wrapping_add(1);
        }
    }

    #[inline]
    fn place(&self, slot: u16) -> usize {
        usize::from(slot) & self.stamps.len().saturating_sub(1)
    }

    #[inline]
    fn slot(&self, e: &Endpoint) -> u16 {
        slot_of(self.hasher.endpoint(e))
    }
}

/// The slot of an endpoint with this hash.
#[inline]
fn slot_of(hash: u64) -> u16 {
    let [a, b, ..] = hash.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Ip;

    fn claim(call: u32, port: u16) -> Claim {
        Claim {
            call,
            at: Endpoint { ip: Ip::v4([192, 0, 2, 1]), port },
            media: 0,
            caller_side: true,
            evidence: Evidence::Sdp,
            message: 1,
            since: Timestamp::from_nanos(0),
            until: None,
            replaced: false,
        }
    }

    #[test]
    fn two_calls_on_one_port_are_both_remembered_oldest_first() {
        let mut c = Claims::new(10);
        let a = c.add(claim(1, 4000));
        let b = c.add(claim(2, 4000));

        assert_eq!(c.at(&claim(0, 4000).at), [a, b]);
        c.remove(a);
        assert_eq!(c.at(&claim(0, 4000).at), [b]);
    }

    #[test]
    fn a_stamp_changes_with_every_claim_on_either_endpoint() {
        let mut c = Claims::new(10);
        let tuple = FiveTuple { src: claim(1, 4000).at, dst: claim(1, 5000).at, ..FiveTuple::default() };
        let before = c.stamp(c.places(&tuple));

        let id = c.add(claim(1, 4000));
        let claimed = c.stamp(c.places(&tuple));
        c.end(id, Timestamp::from_nanos(5));
        let ended = c.stamp(c.places(&tuple));

        assert!(before != claimed && claimed != ended);
    }

    #[test]
    fn an_endpoint_claimed_too_often_forgets_the_oldest() {
        let mut c = Claims::new(10);
        let first = c.add(claim(0, 4000));
        for n in 1..=8 {
            c.add(claim(n, 4000));
        }

        assert_eq!(c.at(&claim(0, 4000).at).len(), 8);
        assert!(!c.get(first).unwrap().is_live(Timestamp::from_nanos(0)));
    }
}
