//! Who is connected: identity, liveness and what each hunter said last. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;

use super::filters::Subscriber;
use crate::batch::Epoch;
use crate::packet::Timestamp;
use crate::wire::management::{HunterCapabilities, HunterRegistration, HunterStats, HunterStatus};

/// Silent for this long: shown as in error.
const SILENT: Duration = Duration::from_secs(30);
/// Silent for this long: forgotten.
const GONE: Duration = Duration::from_mins(5);
/// Another process may take over an id whose owner has been silent for this long.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// Longest id: it stands in logs, records and file comments.
pub(super) const ID_MAX: usize = 256;
/// Most bytes of a registration, which is kept and shown: a thousand files to read and as many epochs.
const REGISTRATION_MAX: usize = 256 << 10;

/// One hunter.
#[derive(Clone, Debug)]
pub struct Hunter {
    /// What it said when it registered.
    pub registration: HunterRegistration,
    /// Where it connected from.
    pub remote: Option<SocketAddr>,
    /// When it registered.
    pub since: Timestamp,
    /// When anything was last heard of it, by our clock.
    pub heard: Timestamp,
    /// Its data stream is open.
    pub streaming: u32,
    /// Last status it reported.
    pub status: HunterStatus,
    /// Last statistics it reported.
    pub stats: HunterStats,
    /// How far its clock was ahead of ours at its last heartbeat, the way of that included.
    pub clock_skew_ms: i64,
    /// Filter version it reported.
    pub filter_version: u64,
    /// Filters it could not apply.
    pub filter_errors: Vec<(String, String)>,
}

impl Hunter {
    /// When its process began, as its newest batcher says; none for peers without our extensions.
    pub fn began(&self) -> Option<Timestamp> {
        self.registration.epochs.iter().max().map(|epoch| Epoch(*epoch).began())
    }

    /// Filter kinds it announced; an old hunter that announced nothing knows two.
    pub fn capabilities(&self) -> Vec<String> {
        match &self.registration.capabilities {
            Some(HunterCapabilities { filter_types, .. }) => filter_types.clone(),
            None => vec!["bpf".to_owned(), "ip_address".to_owned()],
        }
    }

    /// How its filters are chosen and told.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber {
            id: self.registration.hunter_id.clone(),
            capabilities: self.capabilities(),
            extended: self.registration.durable_acks,
        }
    }
}

/// Why a registration is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No id, or one that would not be fit for logs and files.
    #[error("a hunter needs an id of at most {ID_MAX} bytes without control characters")]
    BadId,
    /// Larger than anything sensible.
    #[error("a registration of {0} bytes; the limit is {REGISTRATION_MAX}")]
    TooLarge(usize),
    /// Too many.
    #[error("this processor takes {0} hunters at most; raise --max-hunters")]
    Full(usize),
    /// Somebody else has this id.
    #[error("hunter id '{id}' is in use by {owner}; you are {you}: give each hunter an id of its own (--id)")]
    Taken {
        /// The id.
        id: String,
        /// Whose it is.
        owner: String,
        /// Who asks.
        you: String,
    },
}

impl Refusal {
    /// In a word, for the log: who has the id is said to who asks, not to everybody.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BadId => "bad id",
            Self::TooLarge(_) => "too large",
            Self::Full(_) => "too many hunters",
            Self::Taken { .. } => "id in use",
        }
    }
}

/// All hunters, by id.
#[derive(Debug)]
pub struct Roster {
    hunters: BTreeMap<String, Hunter>,
    max: usize,
}

impl Roster {
    /// For at most `max` hunters.
    pub const fn new(max: usize) -> Self {
        Self { hunters: BTreeMap::new(), max }
    }

    /// Registers a hunter, or the same one again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn register(&mut self, r: HunterRegistration, remote: Option<SocketAddr>, now: Timestamp) -> Result<Subscriber, Refusal> {
        if r.hunter_id.is_empty() || r.hunter_id.len() > ID_MAX || r.hunter_id.chars().any(char::is_control) {
            return Err(Refusal::BadId);
        }
        if r.encoded_len() > REGISTRATION_MAX {
            return Err(Refusal::TooLarge(r.encoded_len()));
        }
        let text = |a: Option<SocketAddr>| a.map_or_else(|| "an unknown address".to_owned(), |a| a.to_string());
        let before = match self.hunters.get(&r.hunter_id) {
            Some(old) if !may_replace(old, &r, remote, now) => {
                return Err(Refusal::Taken { id: r.hunter_id, owner: text(old.remote), you: text(remote) });
            }
            // another process counts from 0
            Some(old) if old.registration.instance != r.instance => Some((old.streaming, HunterStats::default())),
            Some(old) => Some((old.streaming, old.stats.clone())),
            None if self.hunters.len() >= self.max => return Err(Refusal::Full(self.max)),
            None => None,
        };
        let (streaming, stats) = before.unwrap_or_default();
        let id = r.hunter_id.clone();
        let hunter = Hunter {
            registration: r,
            remote,
            since: now,
            heard: now,
            streaming,
            status: HunterStatus::StatusHealthy,
            stats,
            clock_skew_ms: 0,
            filter_version: 0,
            filter_errors: Vec::new(),
        };
        let subscriber = hunter.subscriber();
        self.hunters.insert(id, hunter);
        Ok(subscriber)
    }

    /// A hunter by id.
    pub fn get(&self, id: &str) -> Option<&Hunter> {
        self.hunters.get(id)
    }

    /// A hunter by id, heard of just now.
    pub fn heard(&mut self, id: &str, now: Timestamp) -> Option<&mut Hunter> {
        let hunter = self.hunters.get_mut(id)?;
        hunter.heard = now;
        Some(hunter)
    }

    /// A data stream opened or closed.
    pub fn stream(&mut self, id: &str, opened: bool) {
        if let Some(h) = self.hunters.get_mut(id) {
            h.streaming = if opened { h.streaming.saturating_add(1) } else { h.streaming.saturating_sub(1) };
        }
    }

    /// All hunters, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Hunter)> {
        self.hunters.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.hunters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hunters.is_empty()
    }

    /// The status to show: silence counts more than what was last said.
    pub fn status(hunter: &Hunter, now: Timestamp) -> HunterStatus {
        if now.since(hunter.heard) > SILENT { HunterStatus::StatusError } else { hunter.status }
    }

    /// Forgets who has been silent for long; returns their ids.
    pub fn expire(&mut self, now: Timestamp) -> Vec<String> {
        let gone: Vec<String> =
            self.hunters.iter().filter(|(_, h)| now.since(h.heard) > GONE).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.hunters.remove(id);
        }
        gone
    }
}

/// The same process start is the same hunter. Another one may have the id once the owner's stream is closed or silent. A peer without our
/// extensions has no instance: then the same address counts as the same hunter.
fn may_replace(old: &Hunter, new: &HunterRegistration, remote: Option<SocketAddr>, now: Timestamp) -> bool {
    let (a, b) = (old.registration.instance, new.instance);
    let same_place = old.remote.map(|r| r.ip()) == remote.map(|r| r.ip());
    (a != 0 && a == b)
        || (a == 0 && b == 0 && same_place)
        || old.streaming == 0
        || now.since(old.heard) >= TAKE_OVER
        || old.status == HunterStatus::StatusStopping
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reg(id: &str, instance: u64) -> HunterRegistration {
        HunterRegistration { hunter_id: id.to_owned(), instance, ..HunterRegistration::default() }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs_nanos(secs, 0)
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], 4000))
    }

    #[test]
    fn a_second_process_with_a_live_id_is_refused_by_name_and_the_same_one_is_not() {
        let mut r = Roster::new(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();
        r.stream("edge", true);

        let refused = r.register(reg("edge", 2), Some(from(2)), at(1)).unwrap_err();

        assert!(refused.to_string().contains("127.0.0.1:4000") && refused.to_string().contains("127.0.0.2:4000"));
        assert!(r.register(reg("edge", 1), Some(from(1)), at(1)).is_ok());
    }

    #[test]
    fn an_id_is_free_again_once_its_owner_is_gone_or_silent() {
        let mut r = Roster::new(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();
        r.stream("edge", true);

        assert!(r.register(reg("edge", 2), Some(from(2)), at(5)).is_ok(), "silent for 5 s");
        r.stream("edge", false);
        assert!(r.register(reg("edge", 3), Some(from(3)), at(5)).is_ok(), "no stream");
    }

    #[test]
    fn liveness_is_judged_by_our_clock() {
        let mut r = Roster::new(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();

        assert_eq!(Roster::status(r.get("edge").unwrap(), at(30)), HunterStatus::StatusHealthy);
        assert_eq!(Roster::status(r.get("edge").unwrap(), at(31)), HunterStatus::StatusError);
        assert!(r.expire(at(300)).is_empty());
        assert_eq!(r.expire(at(301)), ["edge"]);
    }

    #[test]
    fn more_hunters_than_allowed_are_refused() {
        let mut r = Roster::new(1);
        r.register(reg("a", 1), Some(from(1)), at(0)).unwrap();

        assert_eq!(r.register(reg("b", 2), Some(from(2)), at(0)).unwrap_err(), Refusal::Full(1));
    }

    #[test]
    fn what_would_harm_logs_or_memory_is_refused() {
        let mut r = Roster::new(10);
        for id in ["", "a\nb", "a\u{1b}[2J", &"x".repeat(257)] {
            assert_eq!(r.register(reg(id, 1), None, at(0)).unwrap_err(), Refusal::BadId, "{id:?}");
        }
        let large = HunterRegistration { epochs: vec![1; 40_000], ..reg("a", 1) };

        assert!(matches!(r.register(large, None, at(0)), Err(Refusal::TooLarge(_))));
    }
}
