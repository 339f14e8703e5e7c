//! What comes from hunters of the predecessor, set right before it is filed.
//!
//! - They send each packet of a call twice, the second time without its metadata. Copies are recognised as our own hunters do
//!   ([`crate::packet::dedup`]), kept once and counted `doubled`.
//! - What some filters mean they cannot be told (an exact user, for one that knows only "contains"), and they select more. Each message of a call
//!   is held against the filters themselves: a call that none of them means is not filed, its packets are counted `unwanted`; one that is meant
//!   by a later message is filed from there on, as decision-late calls are. What is not known to be unwanted is filed.
//! - They know no media policy: it is carried out here.
//!
//! Their packets name no filters; what the messages match is named in the record.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use crate::filter::{CompileOptions, FilterSet, Hits, MediaPolicy, Mode};
use crate::packet::InterfaceId;
use crate::packet::dedup::Dedup;
use crate::packet::headers::{self, DecodeOptions, Headers};
use crate::processor::filters::{Distribution, Subscriber};
use crate::protocols::{rtp, sdp, sip};
use crate::record::Packet;
use crate::voip::matching::{Strangers, find_hits};

/// Hunters remembered; further ones make room by forgetting all, which lets a double pass at worst.
const HUNTERS: usize = 1000;
/// Packets whose copies are recognised, per hunter: 256 KiB, the window at 80 000 packets/s.
const DOUBLES: usize = 8192;
/// Calls remembered per hunter, in each of two generations.
const CALLS: usize = 16_384;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is filed; media cut to this many bytes. The filters that its message matched are named.
    Filed(usize, Vec<Arc<str>>),
    /// The same, but its copy without a call has been filed where no call is needed.
    CallOnly(usize, Vec<Arc<str>>),
    /// A copy.
    Doubled,
    /// Its call is none that was asked for, or its media was not.
    Unwanted,
}

/// Packets left out of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Copies.
    pub(super) doubled: u64,
    /// Of calls nobody asked for.
    pub(super) unwanted: u64,
}

/// What was found of a call: the media asked for, or that nobody asked for it.
type Found = Option<MediaPolicy>;

/// One of them.
struct OldHunter {
    version: Option<u64>,
    filters: FilterSet,
    strangers: Strangers,
    /// It selects more than it was asked for.
    narrows: bool,
    /// Packets that came with the call they belong to, and without.
    of_calls: Dedup,
    others: Dedup,
    found: [HashMap<u64, Found, RandomState>; 2],
}

impl OldHunter {
    fn new() -> Self {
        // the same seed, so that one identity serves both
        let seed = RandomState::new().hash_one(0_u8);
        Self {
            version: None,
            filters: FilterSet::empty(),
            strangers: Strangers::default(),
            narrows: false,
            of_calls: Dedup::new(seed, DOUBLES),
            others: Dedup::new(seed, DOUBLES),
            found: Default::default(),
        }
    }

    fn refresh(&mut self, set: &Distribution, s: &Subscriber) {
        if self.version == Some(set.version()) {
            return;
        }
        let (version, filters, narrows) = set.meant(s);
        let options = CompileOptions { mode: Mode::Voip, ..CompileOptions::default() };
        // what cannot be compiled was refused when it was set, or is of a kind that selects no calls
        (self.filters, _) = FilterSet::compile(&filters, &options);
        self.strangers.forget();
        (self.version, self.narrows) = (Some(version), narrows && !self.filters.only_bpf());
        // calls are found again by the new filters
        self.found = Default::default();
    }

    fn recall(&self, call: u64) -> Option<Found> {
        self.found.iter().find_map(|generation| generation.get(&call).copied())
    }

    fn remember(&mut self, call: u64, found: Found) {
        let [new, old] = &mut self.found;
        if new.len() >= CALLS {
            *old = std::mem::take(new);
        }
        new.insert(call, found);
    }

    /// `call`: the Call-ID that came with it.
    fn judge(&mut self, call: Option<&str>, media: bool, packet: &Packet<'_>) -> Judged {
        let Ok(h) = headers::decode(packet.link, packet.data, &DecodeOptions::default()) else {
            return Judged::Filed(packet.data.len(), Vec::new());
        };
        let id = self.of_calls.packet_id(&h, packet.data);
        let Some(call) = call else {
            if self.of_calls.knows(id, packet.ts) {
                return Judged::Doubled;
            }
            let _again = self.others.seen(id, packet.ts, InterfaceId(0));
            return Judged::Filed(packet.data.len(), Vec::new());
        };
        if self.of_calls.seen(id, packet.ts, InterfaceId(0)) {
            return Judged::Doubled;
        }
        let (found, named) = self.find(call, media, &h, packet);
        let policy = match found {
            Some(None) => return Judged::Unwanted,
            Some(Some(policy)) if media => policy,
            Some(Some(_)) | None => MediaPolicy::Full,
        };
        let keep = match policy {
            MediaPolicy::None => return Judged::Unwanted,
            MediaPolicy::Headers => head(&h, packet),
            MediaPolicy::Full => packet.data.len(),
        };
        if self.others.knows(id, packet.ts) { Judged::CallOnly(keep, named) } else { Judged::Filed(keep, named) }
    }

    /// What is known of the packet's call, and the filters its message matches.
    fn find(&mut self, call: &str, media: bool, h: &Headers, packet: &Packet<'_>) -> (Option<Found>, Vec<Arc<str>>) {
        let key = self.found[0].hasher().hash_one(call);
        let known = self.recall(key);
        let message = if media || self.filters.is_empty() { None } else { sip::Message::index(h.payload(packet.data)) };
        let Some(message) = message else { return (known, Vec::new()) };
        let sessions: Vec<sdp::Session> = message.sdp_bodies().into_iter().map(sdp::parse).collect();
        let mut hits = Hits::new();
        find_hits(&self.filters, &mut self.strangers, &message, &sessions, &h.tuple, &mut hits);
        let named = hits.as_slice().iter().filter_map(|hit| self.filters.id(*hit)).cloned().collect();
        let found = match (hits.is_empty(), known) {
            (false, before) => Some(before.flatten().into_iter().chain([self.filters.media(&hits)]).max().unwrap_or_default()),
            (true, Some(before)) => before,
            (true, None) if self.narrows => None,
            // it was told exactly what is meant: it has its reason
            (true, None) => return (None, named),
        };
        self.remember(key, found);
        (Some(found), named)
    }
}

/// Bytes up to the end of the RTP header.
fn head(h: &Headers, packet: &Packet<'_>) -> usize {
    let payload = h.payload(packet.data);
    let before = packet.data.len().saturating_sub(payload.len());
    before.saturating_add(rtp::header_len(payload)).min(packet.data.len())
}

/// All of them.
#[derive(Default)]
pub(super) struct OldHunters {
    all: HashMap<Arc<str>, OldHunter, RandomState>,
    left_out: LeftOut,
}

impl OldHunters {
    /// A batch of `s` is about to be filed.
    pub(super) fn meet(&mut self, hunter: &Arc<str>, set: &Distribution, s: &Subscriber) {
        if self.all.len() >= HUNTERS && !self.all.contains_key(hunter) {
            self.all.clear();
        }
        self.all.entry(Arc::clone(hunter)).or_insert_with(OldHunter::new).refresh(set, s);
    }

    /// A batch of a hunter of a processor below is about to be filed: what it was asked for is not known here, its copies are recognised.
    pub(super) fn meet_passed_on(&mut self, hunter: &Arc<str>) {
        if self.all.len() >= HUNTERS && !self.all.contains_key(hunter) {
            self.all.clear();
        }
        self.all.entry(Arc::clone(hunter)).or_insert_with(OldHunter::new);
    }

    /// What becomes of one of its packets.
    pub(super) fn judge(&mut self, hunter: &str, call: Option<&str>, media: bool, packet: &Packet<'_>) -> Judged {
        let Some(old) = self.all.get_mut(hunter) else { return Judged::Filed(packet.data.len(), Vec::new()) };
        let judged = old.judge(call, media, packet);
        match judged {
            Judged::Doubled => self.left_out.doubled = self.left_out.doubled.saturating_add(1),
            Judged::Unwanted => self.left_out.unwanted = self.left_out.unwanted.saturating_add(1),
            Judged::Filed(..) | Judged::CallOnly(..) => {}
        }
        judged
    }

    /// What was left out since the last time this was asked.
    pub(super) fn take_left_out(&mut self) -> LeftOut {
        std::mem::take(&mut self.left_out)
    }
}
