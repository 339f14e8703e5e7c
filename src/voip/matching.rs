//! Asks the filters about a message.
//!
//! The messages of a call say the same names again and again, and so do those of a trunk. What no filter meant is noted by a keyed hash of
//! its bytes and not asked about again; two values in 2^64 share one. Whatever some filter means is asked about every time.

use ahash::RandomState;

use crate::field::Field;
use crate::filter::{FilterSet, Hits};
use crate::packet::FiveTuple;
use crate::protocols::{
    sdp,
    sip::{self, Message},
};

/// Values noted, 32 KiB once there is one: those of some hundred calls at a time.
const CAPACITY: usize = 4096;

/// Addresses as they stood in messages that no filter of the set in force means.
#[derive(Debug)]
pub struct Strangers {
    hasher: RandomState,
    /// Each in the place its hash says; 0 is none.
    slots: Vec<u64>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: Vec::new() }
    }
}

impl Strangers {
    /// Other filters may mean them.
    pub fn forget(&mut self) {
        self.slots.clear();
    }

    fn hash(&self, field: Field, value: &[u8]) -> u64 {
        self.hasher.hash_one((field, value)).max(1)
    }

    fn slot(&mut self, hash: u64) -> Option<&mut u64> {
        self.slots.get_mut(usize::try_from(hash).unwrap_or(0) % CAPACITY)
    }

    fn knows(&mut self, hash: u64) -> bool {
        self.slot(hash).is_some_and(|known| *known == hash)
    }

    fn note(&mut self, hash: u64) {
        self.slots.resize(CAPACITY, 0);
        self.slot(hash).into_iter().for_each(|slot| *slot = hash);
    }
}

/// Asks a set of filters about one message, the SDP it carries and where it was seen.
pub fn find_hits(
    set: &FilterSet,
    strangers: &mut Strangers,
    msg: &Message<'_>,
    sessions: &[sdp::Session],
    tuple: &FiveTuple,
    hits: &mut Hits,
) {
    if set.has_identity() {
        find_identities(set, strangers, msg, hits);
    }
    if set.has_imsi() {
        sip::imsis(msg, &mut |imsi| set.match_imsi(imsi, hits));
    }
    if set.has_imei() {
        sip::imeis(msg, &mut |imei| set.match_imei(imei, hits));
    }
    if set.has_call_id()
        && let Some(id) = msg.call_id()
    {
        set.match_call_id(&id, hits);
    }
    if set.has_ip() {
        for ip in [tuple.src.ip, tuple.dst.ip] {
            set.match_ip(ip, hits);
        }
        for ip in sessions.iter().flat_map(|s| &s.media).filter_map(|m| m.addr) {
            set.match_ip(ip, hits);
        }
    }
    if set.has_codec() {
        for f in sessions.iter().flat_map(|s| &s.media).flat_map(|m| &m.formats) {
            set.match_codec(f.codec.as_str(), hits);
        }
    }
}

fn find_identities(set: &FilterSet, strangers: &mut Strangers, msg: &Message<'_>, hits: &mut Hits) {
    let ask = |field, who: sip::Identity<'_>, hits: &mut Hits| {
        let number = who.number.as_ref().map(sip::Number::as_str);
        set.match_identity(field, who.user, who.host, number, hits);
    };
    sip::addresses(msg, &mut |field, value| {
        let hash = strangers.hash(field, value);
        if strangers.knows(hash) {
            return;
        }
        // on its own: a filter that another value has hit already is no stranger to this one
        let mut own = Hits::new();
        sip::identity_in(field, value, &mut |field, who| ask(field, who, &mut own));
        if own == Hits::new() {
            strangers.note(hash);
        }
        hits.extend(&own);
    });
    sip::credentials(msg, &mut |field, who| ask(field, who, hits));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{CompileOptions, Filter, FilterKind};

    fn set(pattern: &str) -> FilterSet {
        let filter = Filter::new("f", FilterKind::SipUser, pattern.to_owned());
        FilterSet::compile(&[filter], &CompileOptions::default()).0
    }

    fn ask(set: &FilterSet, strangers: &mut Strangers, from: &str) -> bool {
        let text = format!(
            "OPTIONS sip:bob@b.example SIP/2.0\r\nFrom: <sip:{from}@a.example>;tag=1\r\nP-Asserted-Identity: <sip:{from}@a.example>\r\n\r\n"
        );
        let mut hits = Hits::new();
        find_hits(set, strangers, &Message::index(text.as_bytes()).unwrap(), &[], &FiveTuple::default(), &mut hits);
        !hits.is_empty()
    }

    #[test]
    fn who_is_meant_is_found_every_time_and_who_is_not_is_none_the_less_found_by_other_filters() {
        let (alice, carol) = (set("alice"), set("carol"));
        let mut strangers = Strangers::default();

        for _ in 0..3 {
            assert!(ask(&alice, &mut strangers, "alice"));
            assert!(!ask(&alice, &mut strangers, "carol"));
        }
        strangers.forget();

        assert!(ask(&carol, &mut strangers, "carol"));
        assert!(!ask(&carol, &mut strangers, "alice"));
    }

    #[test]
    fn a_value_is_known_under_the_field_it_stood_in_as_long_as_there_is_room_for_it() {
        let mut strangers = Strangers::default();
        let hash = strangers.hash(Field::SipFrom, b"<sip:bob@b.example>");
        assert!(!strangers.knows(hash));

        strangers.note(hash);

        let elsewhere = strangers.hash(Field::SipTo, b"<sip:bob@b.example>");
        assert!(strangers.knows(hash) && !strangers.knows(elsewhere));
        for n in 0..100_000_u32 {
            let hash = strangers.hash(Field::SipFrom, &n.to_le_bytes());
            strangers.note(hash);
        }
        assert_eq!(strangers.slots.len(), CAPACITY);
    }
}
