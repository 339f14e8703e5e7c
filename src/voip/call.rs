//! One call: everything known under one Call-ID.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::packet::{FiveTuple, Timestamp};
use crate::protocols::sdp::Session;

use super::claim::Tie;
use super::details::Details;
use super::event::Hole;
use super::expiry::{Queued, Turn};
use super::hold::Hold;
use super::mux::OfferedMux;
use super::output::Context;
use super::state::Machine;
use super::streams::Streams;

/// SSRCs a call remembers for the decision between two claims.
const SSRCS: usize = 8;
/// Holes a call remembers; further ones are added to the last.
const HOLES: usize = 32;

/// To tags counted per call.
const TO_TAGS: usize = 16;

/// What becomes of a call's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Undecided: keep copies.
    Hold,
    /// Chosen.
    Forward,
    /// Nobody asked for it (so far).
    Drop,
}

/// How much of the media is wanted: the most generous of the filters that chose the call.
pub use crate::filter::MediaPolicy;

/// One side of a call, as the first request named it.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// User part, unescaped.
    pub user: Box<str>,
    /// Host part.
    pub host: Box<str>,
}

/// The place of a call in the table; stale once the call is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallRef {
    pub(super) slot: u32,
    pub(super) serial: u64,
}

impl CallRef {
    /// As a number that is never 0 or 1 in practice: the low half of the serial above the slot.
    pub fn pack(self) -> u64 {
        (self.serial << 32) | u64::from(self.slot)
    }
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Call-ID as text.
    pub id: Arc<str>,
    /// Unique in this table, never reused.
    pub serial: u64,
    /// State machine.
    pub machine: Machine,
    /// From of the first request.
    pub from: Party,
    /// To of the first request.
    pub to: Party,
    /// From tag of the first message: says which side speaks.
    pub from_tag: Box<str>,
    /// Hashes of the To tags seen.
    pub to_tags: SmallVec<[u64; 2]>,
    /// What only records tell, where that is wanted.
    pub details: Option<Box<Details>>,
    /// First packet's addresses.
    pub tuple: FiveTuple,
    /// First packet.
    pub first: Timestamp,
    /// Last packet.
    pub last: Timestamp,
    /// From when on it may be silent: its last packet, by the table's time if that is ahead; or since when it is watched again.
    pub(super) alive: Timestamp,
    /// SIP messages.
    pub messages: u32,
    /// Signalling packets.
    pub signalling_packets: u64,
    /// Media packets.
    pub media_packets: u64,
    /// First media packet.
    pub media_from: Option<Timestamp>,
    /// Verdict.
    pub verdict: Verdict,
    /// Set-up is over: an undecided call is let go.
    pub set_up_done: bool,
    /// Packets waiting for the verdict.
    pub hold: Hold,
    /// Filters that chose it.
    pub filter_ids: Arc<[Arc<str>]>,
    /// Version of the filter set `filter_ids` was checked against.
    pub filter_version: u64,
    /// How much of the media goes.
    pub media: MediaPolicy,
    /// Claims, by number.
    pub claims: SmallVec<[u32; 4]>,
    /// Offers to send RTCP beside RTP, for as long as the answer may still decline.
    pub(super) offered_mux: Vec<OfferedMux>,
    /// By which rule a phone number filter chose it.
    pub phone_rule: Option<Arc<str>>,
    /// Contexts handed out: what ties the packet to the call (`None`: signalling), key, context.
    pub contexts: Vec<(Option<Tie>, u64, Arc<Context>)>,
    /// SSRCs seen in its media.
    pub ssrcs: SmallVec<[u32; 4]>,
    /// Streams, where quality is wanted.
    pub streams: Option<Box<Streams>>,
    /// What is missing.
    pub holes: Vec<Hole>,
    /// Media has come since the last SDP.
    pub(super) media_seen: bool,
    /// Which sides have all their media on hold.
    pub(super) on_hold: [bool; 2],
    /// Earliest queued timer.
    pub(super) timer: Option<Queued<Timestamp>>,
    /// Its turn to make room for others, as it is queued.
    pub(super) turn: Option<Queued<Turn>>,
    /// Bytes of it that are weighed.
    pub(super) weight: usize,
}

impl Call {
    /// A call at its first packet.
    pub fn new(id: Arc<str>, serial: u64, tuple: FiveTuple, ts: Timestamp, verdict: Verdict) -> Self {
        Self {
            id,
            serial,
            machine: Machine::default(),
            from: Party::default(),
            to: Party::default(),
            from_tag: Box::default(),
            to_tags: SmallVec::new(),
            details: None,
            tuple,
            first: ts,
            last: ts,
            alive: ts,
            messages: 0,
            signalling_packets: 0,
            media_packets: 0,
            media_from: None,
            verdict,
            set_up_done: false,
            hold: Hold::default(),
            filter_ids: Arc::from([]),
            filter_version: 0,
            media: MediaPolicy::Full,
            claims: SmallVec::new(),
            offered_mux: Vec::new(),
            phone_rule: None,
            contexts: Vec::new(),
            ssrcs: SmallVec::new(),
            streams: None,
            holes: Vec::new(),
            media_seen: false,
            on_hold: [false; 2],
            timer: None,
            turn: None,
            weight: 0,
        }
    }

    /// Reads what a media packet of the call will read, wherever in the call it stands; the value means nothing.
    pub(super) fn warm(&self) -> u32 {
        let counts = self.serial ^ self.media_packets;
        let lengths = self.contexts.len() ^ self.claims.len() ^ self.ssrcs.len();
        let rest = self.streams.is_some() ^ self.timer.is_some() ^ self.set_up_done;
        u32::from((counts ^ lengths as u64) % 2 == 1) ^ u32::from(rest)
    }

    /// As [`Self::warm`], of what the call points to.
    pub(super) fn warm_behind(&self) -> u32 {
        let context = self.contexts.first().is_some_and(|(_, key, _)| key % 2 == 1);
        u32::from(context ^ self.streams.as_ref().is_some_and(|s| s.measured() > 1))
    }

    /// Remembers an SSRC.
    pub fn note_ssrc(&mut self, ssrc: u32) {
        if self.ssrcs.contains(&ssrc) {
            return;
        }
        if self.ssrcs.len() >= SSRCS {
            self.ssrcs.remove(0);
        }
        self.ssrcs.push(ssrc);
    }

    /// Remembers a To tag by its hash.
    pub fn note_to_tag(&mut self, tag: u64) {
        if self.to_tags.len() < TO_TAGS && !self.to_tags.contains(&tag) {
            self.to_tags.push(tag);
        }
    }

    /// One side describes its media: where that goes is to be seen, and on hold is who wants to hear nothing of all of it (RFC 3264 §8.4).
    pub(super) fn note_session(&mut self, caller_side: bool, session: &Session) {
        self.media_seen = false;
        let mut media = session.media.iter().filter(|m| m.port != 0).peekable();
        if media.peek().is_some()
            && let Some(side) = self.on_hold.get_mut(usize::from(caller_side))
        {
            *side = media.all(|m| m.on_hold);
        }
    }

    /// Writes down that packets between two moments are missing.
    pub fn note_hole(&mut self, cause: &'static str, from: Timestamp, to: Timestamp, packets: u64) {
        self.contexts.clear();
        let (from_ns, to_ns) = (from.as_nanos(), to.as_nanos());
        let full = self.holes.len() >= HOLES;
        if let Some(last) = self.holes.last_mut().filter(|h| full || h.cause == cause) {
            last.from_ns = last.from_ns.min(from_ns);
            last.to_ns = last.to_ns.max(to_ns);
            last.packets = last.packets.saturating_add(packets);
            return;
        }
        self.holes.push(Hole { cause, from_ns, to_ns, packets });
    }

    /// Position in [`Self::contexts`] of the context for a packet of this call, made on first use.
    pub fn context(&mut self, tie: Option<Tie>, text: impl FnOnce() -> Arc<str>, next_key: &mut u64) -> usize {
        if let Some(at) = self.contexts.iter().position(|(t, _, _)| *t == tie) {
            return at;
        }
        *next_key = next_key.wrapping_add(1);
        let context = Arc::new(Context {
            call_id: Arc::clone(&self.id),
            filter_ids: Arc::clone(&self.filter_ids),
            leg: if tie.is_some() { "media" } else { "sip" },
            claim: text(),
            phone_rule: self.phone_rule.clone().unwrap_or_default(),
            holes: if self.holes.is_empty() { Arc::default() } else { Hole::write(&self.holes).into() },
        });
        // most calls have three: signalling and two directions
        self.contexts.reserve_exact(1);
        self.contexts.push((tie, *next_key, context));
        self.contexts.len().saturating_sub(1)
    }

    /// Whether the caller sent this message: requests carry the sender's tag in From, responses the receiver's.
    pub fn is_caller(&self, from_tag: &str, is_request: bool) -> bool {
        (from_tag == &*self.from_tag) == is_request
    }
}
