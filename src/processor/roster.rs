//! Who is connected: identity, liveness and what each hunter said last. Pure: time is an argument.

pub(super) mod said;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::filters::Subscriber;
use super::pace::Pace;
use crate::batch::Epoch;
use crate::packet::Timestamp;
use crate::telemetry::is_plain;
use crate::wire::management::{HunterCapabilities, HunterHeartbeat, HunterRegistration, HunterStats, HunterStatus};

/// Silent for this long: shown as in error.
const SILENT: Duration = Duration::from_secs(30);
/// Silent for this long: forgotten.
const GONE: Duration = Duration::from_mins(5);
/// Another process may take over an id whose owner has been silent for this long.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// Longest id: it stands in logs, records and file comments.
pub(super) const ID_MAX: usize = 256;
/// Most bytes of a registration: a thousand files to read and as many epochs.
const REGISTRATION_MAX: usize = 256 << 10;
/// Most bytes kept of one: many short texts take more here than on the wire.
const KEPT_MAX: usize = 2 * REGISTRATION_MAX;

/// One hunter.
#[derive(Clone, Debug)]
pub struct Hunter {
    /// What it said when it registered.
    pub registration: HunterRegistration,
    /// Where it connected from.
    pub remote: Option<SocketAddr>,
    /// When it registered.
    pub since: Timestamp,
    /// When anything was last heard of it, by our steady clock.
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
    /// The newest version it said to have applied, in whatever run.
    pub applied: u64,
    /// How fast it is read.
    pub(super) pace: Arc<Pace>,
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

    /// Whether it is connected and, as it said last, has nothing that it has not sent.
    pub const fn has_sent_all(&self) -> bool {
        self.streaming > 0 && self.stats.buffer_bytes == 0 && self.stats.spool_batches == 0
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
    #[error("a hunter needs an id of at most {ID_MAX} bytes without control or invisible characters")]
    BadId,
    /// Larger than anything sensible.
    #[error("a registration of {0} bytes; the limit is {REGISTRATION_MAX}")]
    TooLarge(usize),
    /// Too many.
    #[error("this processor takes {0} hunters at most; raise --max-hunters")]
    Full(usize),
    /// What hunters say of themselves takes too much memory.
    #[error(
        "what the hunters here say of themselves takes {0} bytes, and more may not be kept; say less, or raise --memory-limit"
    )]
    Crowded(usize),
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
    /// Every reason, in the order of the enum.
    pub const NAMES: [&'static str; 5] = ["bad_id", "too_large", "full", "crowded", "id_in_use"];

    const fn index(&self) -> usize {
        match self {
            Self::BadId => 0,
            Self::TooLarge(_) => 1,
            Self::Full(_) => 2,
            Self::Crowded(_) => 3,
            Self::Taken { .. } => 4,
        }
    }

    /// In a word, for logs and metrics: who has the id is said to who asks, not to everybody.
    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or_default()
    }
}

/// All hunters, by id.
#[derive(Debug)]
pub struct Roster {
    hunters: BTreeMap<String, Hunter>,
    max: usize,
    /// Bytes of what they say of themselves, and how many there may be.
    bytes: usize,
    max_bytes: usize,
    refused: [u64; Refusal::NAMES.len()],
    cut: u64,
}

/// What a heartbeat brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The hunter says that it stops, and did not before.
    pub stops: bool,
    /// It says other filters than before that it cannot apply.
    pub errors: bool,
}

impl Roster {
    /// For at most `max` hunters, who say at most `max_bytes` of themselves.
    pub const fn new(max: usize, max_bytes: usize) -> Self {
        Self { hunters: BTreeMap::new(), max, bytes: 0, max_bytes, refused: [0; Refusal::NAMES.len()], cut: 0 }
    }

    /// Bytes of what the hunters say of themselves.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Registrations refused, by [`Refusal::NAMES`].
    pub const fn refused(&self) -> [u64; Refusal::NAMES.len()] {
        self.refused
    }

    /// Heartbeats of which not everything was kept.
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// Registers a hunter, or the same one again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn register(&mut self, r: HunterRegistration, remote: Option<SocketAddr>, now: Timestamp) -> Result<Subscriber, Refusal> {
        let registered = self.admit(r, remote, now);
        if let Err(e) = &registered {
            self.refused.get_mut(e.index()).into_iter().for_each(|n| *n = n.saturating_add(1));
        }
        registered
    }

    fn admit(&mut self, mut r: HunterRegistration, remote: Option<SocketAddr>, now: Timestamp) -> Result<Subscriber, Refusal> {
        if r.hunter_id.is_empty() || r.hunter_id.len() > ID_MAX || !r.hunter_id.chars().all(is_plain) {
            return Err(Refusal::BadId);
        }
        if r.encoded_len() > REGISTRATION_MAX {
            return Err(Refusal::TooLarge(r.encoded_len()));
        }
        // told and answered; the newest tells when it began
        r.earlier = Vec::new();
        r.epochs = r.epochs.iter().max().copied().into_iter().collect();
        if said::of_registration(&r) > KEPT_MAX {
            return Err(Refusal::TooLarge(said::of_registration(&r)));
        }
        let text = |a: Option<SocketAddr>| a.map_or_else(|| "an unknown address".to_owned(), |a| a.to_string());
        let (applied, pace) = self.hunters.get(&r.hunter_id).map(|old| (old.applied, Arc::clone(&old.pace))).unwrap_or_default();
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
        let known = self.hunters.get(&id).map_or(0, Hunter::weight);
        let others = self.bytes.saturating_sub(known);
        if others.saturating_add(said::of_registration(&r)) > self.max_bytes {
            return Err(Refusal::Crowded(self.bytes));
        }
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
            applied,
            pace,
        };
        let subscriber = hunter.subscriber();
        self.bytes = others.saturating_add(hunter.weight());
        self.hunters.insert(id, hunter);
        Ok(subscriber)
    }

    /// Takes what a hunter says of itself, `now` on our steady clock and at this time of day; nothing when it is not registered.
    pub fn beat(&mut self, beat: &mut HunterHeartbeat, now: Timestamp, wall: Timestamp) -> Option<Beat> {
        let (bytes, max) = (self.bytes, self.max_bytes);
        let h = self.heard(&beat.hunter_id, now)?;
        let (before, errors) = (h.weight(), std::mem::take(&mut h.filter_errors));
        let status = beat.status();
        let stops = status == HunterStatus::StatusStopping && h.status != status;
        let others = bytes.saturating_sub(before);
        // half is for those who have still to come
        let room = (max / 2).saturating_sub(others).saturating_sub(said::of_registration(&h.registration));
        let kept = h.keep(beat, room);
        h.status = status;
        h.clock_skew_ms = beat.timestamp_ns.saturating_sub(wall.as_nanos()) / 1_000_000;
        h.filter_version = beat.filter_version;
        let (errors, after) = (errors != h.filter_errors, h.weight());
        self.bytes = others.saturating_add(after);
        self.cut = self.cut.saturating_add(u64::from(!kept));
        Some(Beat { stops, errors })
    }

    /// A hunter says that it applied this version of the filters: whether it is one of `those` there are, newer than any it has said.
    pub fn applies(&mut self, id: &str, version: u64, those: &RangeInclusive<u64>) -> bool {
        let Some(h) = self.hunters.get_mut(id).filter(|h| version > h.applied && those.contains(&version)) else { return false };
        h.applied = version;
        true
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
            let weight = self.hunters.remove(id).map_or(0, |h| h.weight());
            self.bytes = self.bytes.saturating_sub(weight);
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
    use crate::wire::management::FilterError;

    fn reg(id: &str, instance: u64) -> HunterRegistration {
        HunterRegistration { hunter_id: id.to_owned(), instance, ..HunterRegistration::default() }
    }

    fn roster(max: usize) -> Roster {
        Roster::new(max, 1 << 20)
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs_nanos(secs, 0)
    }

    fn from(host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], 4000))
    }

    #[test]
    fn a_second_process_with_a_live_id_is_refused_by_name_and_the_same_one_is_not() {
        let mut r = roster(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();
        r.stream("edge", true);

        let refused = r.register(reg("edge", 2), Some(from(2)), at(1)).unwrap_err();

        assert!(refused.to_string().contains("127.0.0.1:4000") && refused.to_string().contains("127.0.0.2:4000"));
        assert!(r.register(reg("edge", 1), Some(from(1)), at(1)).is_ok());
    }

    #[test]
    fn an_id_is_free_again_once_its_owner_is_gone_or_silent() {
        let mut r = roster(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();
        r.stream("edge", true);

        assert!(r.register(reg("edge", 2), Some(from(2)), at(5)).is_ok(), "silent for 5 s");
        r.stream("edge", false);
        assert!(r.register(reg("edge", 3), Some(from(3)), at(5)).is_ok(), "no stream");
    }

    #[test]
    fn liveness_is_judged_by_our_clock() {
        let mut r = roster(10);
        r.register(reg("edge", 1), Some(from(1)), at(0)).unwrap();

        assert_eq!(Roster::status(r.get("edge").unwrap(), at(30)), HunterStatus::StatusHealthy);
        assert_eq!(Roster::status(r.get("edge").unwrap(), at(31)), HunterStatus::StatusError);
        assert!(r.expire(at(300)).is_empty());
        assert_eq!(r.expire(at(301)), ["edge"]);
    }

    #[test]
    fn a_version_is_applied_once_however_often_a_hunter_says_so_and_registers() {
        let mut r = roster(10);
        r.register(reg("edge", 1), None, at(0)).unwrap();
        let versions = 1000..=1003;

        let told = |r: &mut Roster| (0..2000).filter(|v| r.applies("edge", *v, &versions)).collect::<Vec<_>>();
        assert_eq!(told(&mut r), [1000, 1001, 1002, 1003], "those that there are");
        r.register(reg("edge", 1), None, at(10)).unwrap();
        assert_eq!((told(&mut r), r.applies("nobody", 1000, &versions)), (vec![], false));
    }

    #[test]
    fn more_hunters_than_allowed_are_refused() {
        let mut r = roster(1);
        r.register(reg("a", 1), Some(from(1)), at(0)).unwrap();

        assert_eq!(r.register(reg("b", 2), Some(from(2)), at(0)).unwrap_err(), Refusal::Full(1));
    }

    #[test]
    fn what_would_harm_logs_or_memory_is_refused() {
        let mut r = roster(10);
        for id in ["", "a\nb", "a\u{1b}[2J", "a\u{202e}b", "a\u{2028}b", &"x".repeat(257)] {
            assert_eq!(r.register(reg(id, 1), None, at(0)).unwrap_err(), Refusal::BadId, "{id:?}");
        }
        let large = HunterRegistration { epochs: vec![1; 40_000], ..reg("a", 1) };

        assert!(matches!(r.register(large, None, at(0)), Err(Refusal::TooLarge(_))));
        let short = HunterRegistration { interfaces: vec![String::new(); 100_000], ..reg("a", 1) };
        assert!(matches!(r.register(short, None, at(0)), Err(Refusal::TooLarge(_))));
    }

    fn texts(n: usize, length: usize) -> Vec<String> {
        (0..n).map(|i| format!("{i:0length$}")).collect()
    }

    #[test]
    fn what_hunters_say_of_themselves_is_bounded_in_bytes_over_all_of_them_and_refusals_are_counted() {
        let mut r = Roster::new(10_000, 1 << 20);
        let says = |n: u32| HunterRegistration { interfaces: texts(100, 100), epochs: vec![1; 1000], ..reg(&format!("h{n}"), 1) };

        let taken = (0..1000).filter(|n| r.register(says(*n), None, at(0)).is_ok()).count();

        assert!((60..100).contains(&taken), "{taken} of some 14 KiB each");
        assert!(r.bytes() <= 1 << 20 && r.refused() == [0, 0, 0, 1000 - taken as u64, 0], "{:?}", r.refused());
        assert!(matches!(r.register(says(2000), None, at(0)), Err(Refusal::Crowded(_))));
        assert!(r.register(says(0), None, at(1)).is_ok(), "who is here may come again");
        assert_eq!(r.expire(at(400)).len(), taken);
        assert_eq!(r.bytes(), 0);
    }

    #[test]
    fn what_heartbeats_say_is_bounded_and_what_is_left_out_is_counted() {
        let mut r = Roster::new(10_000, 1 << 20);
        let error = |text: &str| FilterError { id: text.to_owned(), reason: text.to_owned() };
        let mut taken = 0;
        for n in 0..100 {
            r.register(reg(&format!("h{n}"), 1), None, at(0)).unwrap();
            let filter_errors = vec![error(&"\u{e9}".repeat(4000)); 1000];
            let drops = texts(10_000, 200).into_iter().map(|t| (t, u64::MAX)).collect();
            let stats = HunterStats { drops, packets_captured: u64::MAX, ..HunterStats::default() };
            let mut said =
                HunterHeartbeat { hunter_id: format!("h{n}"), stats: Some(stats), filter_errors, ..HunterHeartbeat::default() };
            assert!(r.beat(&mut said, at(1), at(1)).is_some());
            let h = r.get(&format!("h{n}")).unwrap();
            assert!(h.stats.drops.is_empty() && h.stats.packets_captured == u64::MAX);
            taken += usize::from(h.filter_errors.len() == 100);
            assert!(h.filter_errors.iter().all(|(id, why)| id.len() == 256 && why.len() == 256));
        }

        assert!((5..12).contains(&taken), "{taken} of 57 KiB each");
        assert!(r.bytes() <= 1 << 20 && r.cut() == 100, "{} {}", r.bytes(), r.cut());
        let usual = HunterStats { drops: [("mem_full".to_owned(), 7)].into(), ..HunterStats::default() };
        let mut said = HunterHeartbeat { hunter_id: "h1".into(), stats: Some(usual), ..HunterHeartbeat::default() };
        r.beat(&mut said, at(2), at(2)).unwrap();
        assert_eq!((r.get("h1").unwrap().stats.drops["mem_full"], r.cut()), (7, 100));
        r.expire(at(400));
        assert_eq!(r.bytes(), 0);
    }

    #[test]
    fn a_hunter_stops_once_and_nobody_else_does() {
        let mut r = roster(10);
        let mut stopping = HunterHeartbeat { hunter_id: "edge".into(), ..HunterHeartbeat::default() };
        stopping.set_status(HunterStatus::StatusStopping);
        assert_eq!(r.beat(&mut stopping.clone(), at(0), at(0)), None, "not registered");

        r.register(reg("edge", 1), None, at(0)).unwrap();
        let mut stops = |r: &mut Roster| r.beat(&mut stopping, at(1), at(1)).unwrap().stops;

        assert_eq!([stops(&mut r), stops(&mut r)], [true, false]);
        r.register(reg("edge", 1), None, at(2)).unwrap();
        assert!(stops(&mut r), "it was back");
    }
}
