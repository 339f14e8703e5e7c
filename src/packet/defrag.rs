//! IP reassembly (RFC 791, RFC 8200 §4.5) for analysis. The original fragments are kept beside the result, in order of
//! arrival: they are what is forwarded.
//!
//! Promises: any order and any repetition of the fragments of a datagram gives the same datagram; time is packet time;
//! memory is bounded by [`Limits`]; one fragment costs at most a pass over the at most `max_fragments` pieces of its own
//! datagram, whatever else is going on.
//!
//! Policy, where fragments contradict each other:
//! * exact repetitions are kept as frames and otherwise ignored;
//! * overlapping IPv4 fragments: the bytes that came first win (what an attacker sends later cannot change what was seen);
//! * overlapping IPv6 fragments: the datagram is given up (RFC 5722), and so is whatever else comes under its key;
//! * a fragment that ends behind the last one, or a second, different last one, is refused.
//!
//! Refuses, each with its counter: fragments the capture cut, empty ones, pieces that are not a multiple of eight bytes
//! though more follow, what would exceed 65 535 bytes, and what the limits leave no room for (the oldest datagram goes).
//!
//! ```text
//! Headers with a fragment ─▶ handle_fragment ─▶ Held                   copied, not whole yet
//!                                             ├▶ Complete(Datagram)     decoded again, with every original frame
//!                                             ├▶ Late(key)              repeats a fragment of a datagram that was completed
//!                                             └▶ Refused(reason)        not kept
//! ```
//! A decision about a datagram is kept under its key with [`Defrag::remember`] and asked for with [`Defrag::recall`]: for
//! late repetitions, and for those who forward without reassembly and want to know what became of the first fragment.

use std::collections::HashMap;
use std::time::Duration;

use super::headers::{DecodeOptions, Headers, decode_ip};
use super::owned::OwnedFrame;
use super::{Frame, Ip, Timestamp};

mod ages;
mod tracker;

use ages::Ages;
use tracker::{Insert, Piece, Tracker};

/// Bounds of reassembly.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of copied fragments, book-keeping included. 16 MiB hold 10 000 full-size fragments.
    pub max_bytes: usize,
    /// Datagrams under reassembly, and as many decided ones remembered.
    pub max_trackers: usize,
    /// Frames per datagram, repetitions included; 65 535 bytes take 45 Ethernet frames.
    pub max_fragments: usize,
    /// How long a datagram is waited for after its first fragment, and a decision remembered (RFC 791 §3.2: at least 15 s).
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 16 << 20, max_trackers: 8192, max_fragments: 64, timeout: Duration::from_secs(30) }
    }
}

/// What became of the fragments so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams put together.
    pub completed: u64,
    /// Exact repetitions, late ones included.
    pub duplicates: u64,
    /// IPv4 fragments that overlapped others.
    pub overlaps_v4: u64,
    /// IPv6 datagrams given up because of an overlap.
    pub overlaps_v6: u64,
    /// Datagrams given up because others needed their tracker.
    pub evicted_trackers: u64,
    /// Datagrams given up because others needed their bytes.
    pub evicted_bytes: u64,
    /// Datagrams given up because of their age.
    pub timed_out: u64,
    /// Datagrams given up because they had too many fragments.
    pub too_many: u64,
    /// Fragments refused: beyond 65 535 bytes.
    pub oversize: u64,
    /// Fragments refused: cut by the capture.
    pub truncated: u64,
    /// Fragments refused: empty, odd length, or behind the end.
    pub malformed: u64,
    /// Fragments refused: their datagram had been given up.
    pub given_up: u64,
    /// Frames that were copied and then given up with their datagram, for whatever cause.
    pub frames_given_up: u64,
}

/// Why a fragment was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The headers do not describe a fragment.
    NotAFragment,
    /// The capture holds only a part of it.
    Truncated,
    /// Empty, of odd length, or behind the end of its datagram.
    Malformed,
    /// The datagram would be longer than IP allows.
    Oversize,
    /// IPv6 overlap; the datagram is given up.
    Overlap,
    /// More than [`Limits::max_fragments`]; the datagram is given up.
    TooMany,
    /// The datagram was given up before.
    GivenUp,
}

/// What one datagram's fragments have in common. The protocol belongs to it in IPv4 (RFC 791 §3.2) and not in IPv6
/// (RFC 8200 §4.5), where it is 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    src: Ip,
    dst: Ip,
    id: u32,
    proto: u8,
    vlan: Option<u16>,
}

impl FragmentKey {
    /// The key of a fragment; `None` for a whole packet.
    pub fn of(headers: &Headers) -> Option<Self> {
        let f = headers.fragment?;
        let (src, dst) = (headers.tuple.src.ip, headers.tuple.dst.ip);
        let proto = if src.is_v4() { f.next.0 } else { 0 };
        Some(Self { src, dst, id: f.id, proto, vlan: headers.vlan })
    }
}

/// A datagram that has become whole.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// What its fragments had in common.
    pub key: FragmentKey,
    /// What the headers say; ranges are into `bytes`.
    pub headers: Headers,
    /// The datagram with a minimal IP header: no options, no extension headers before the fragment header, checksum 0.
    pub bytes: Vec<u8>,
    /// The frames it came in, repetitions included, in order of arrival.
    pub frames: Vec<OwnedFrame>,
}

impl Datagram {
    /// The transport payload.
    pub fn payload(&self) -> &[u8] {
        self.headers.payload(&self.bytes)
    }
}

/// What became of one fragment.
#[derive(Debug)]
pub enum Outcome {
    /// Copied; its datagram is not whole.
    Held,
    /// The datagram is whole.
    Complete(Box<Datagram>),
    /// Repeats a fragment of a datagram that was completed; see [`Defrag::recall`].
    Late(FragmentKey),
    /// Not copied.
    Refused(Refusal),
}

/// IPv4 and IPv6 reassembly.
#[derive(Debug)]
pub struct Defrag {
    limits: Limits,
    hash: ahash::RandomState,
    trackers: HashMap<FragmentKey, Tracker, ahash::RandomState>,
    ages: Ages,
    /// What all trackers hold.
    bytes: usize,
    decided: HashMap<FragmentKey, Decided, ahash::RandomState>,
    decided_ages: Ages,
    counters: Counters,
}

/// What is remembered of a datagram: 16 bytes per fragment it was made of, and none if it was not reassembled here.
#[derive(Debug)]
struct Decided {
    ts: Timestamp,
    age: u64,
    verdict: Option<u64>,
    pieces: Box<[Piece]>,
}

/// Where a piece comes from.
enum Source<'f> {
    /// A captured frame.
    Frame(&'f Frame<'f>),
    /// A datagram just put together, which is a piece itself (fragments inside of a fragmented tunnel).
    Frames(Vec<OwnedFrame>),
}

/// How often what was put together may be a piece again.
const MAX_NESTING: usize = 4;

impl Default for Defrag {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Defrag {
    /// Empty, with these bounds.
    pub fn new(limits: Limits) -> Self {
        let hash = ahash::RandomState::new();
        Self {
            limits,
            trackers: HashMap::with_hasher(hash.clone()),
            ages: Ages::default(),
            bytes: 0,
            decided: HashMap::with_hasher(hash.clone()),
            decided_ages: Ages::default(),
            hash,
            counters: Counters::default(),
        }
    }

    /// Takes a fragment; `headers` are those of `frame`, decoded with `options`.
    pub fn handle_fragment(&mut self, frame: &Frame<'_>, headers: &Headers, options: &DecodeOptions) -> Outcome {
        let mut outcome = self.insert(Source::Frame(frame), frame.ts, headers, frame.data, *options);
        for _ in 0..MAX_NESTING {
            outcome = match outcome {
                Outcome::Complete(whole) if whole.headers.fragment.is_some() => {
                    let Datagram { headers, bytes, frames, .. } = *whole;
                    let earlier = frames.len().saturating_sub(1);
                    let nested = self.insert(Source::Frames(frames), frame.ts, &headers, &bytes, *options);
                    if matches!(nested, Outcome::Refused(_) | Outcome::Late(_)) {
                        count(&mut self.counters.frames_given_up, earlier);
                    }
                    nested
                }
                Outcome::Held | Outcome::Complete(_) | Outcome::Late(_) | Outcome::Refused(_) => return outcome,
            };
        }
        outcome
    }

    /// Changes how long a datagram is waited for.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.limits.timeout = timeout;
    }

    /// Gives up what is older than the limit at `now`; answers how many frames that were.
    pub fn handle_timeout(&mut self, now: Timestamp) -> u64 {
        let before = self.counters.frames_given_up;
        while let Some(key) = self.oldest() {
            if self.trackers.get(&key).is_none_or(|t| now.since(t.first) <= self.limits.timeout) {
                break;
            }
            self.give_up(&key, |c| &mut c.timed_out);
        }
        while let Some(key) = self.oldest_decided() {
            if self.decided.get(&key).is_none_or(|d| now.since(d.ts) <= self.limits.timeout) {
                break;
            }
            self.decided.remove(&key);
        }
        self.counters.frames_given_up.saturating_sub(before)
    }

    /// Gives up everything, at the end of input; answers how many frames that were.
    pub fn finish(&mut self) -> u64 {
        let before = self.counters.frames_given_up;
        while let Some(key) = self.oldest() {
            self.give_up(&key, |c| &mut c.timed_out);
        }
        self.counters.frames_given_up.saturating_sub(before)
    }

    /// Keeps what was decided about a datagram, for late fragments of it; the newest decision under a key counts.
    pub fn remember(&mut self, key: FragmentKey, verdict: u64, now: Timestamp) {
        match self.decided.get_mut(&key) {
            Some(decided) => (decided.verdict, decided.ts) = (Some(verdict), now),
            None => self.decide(key, Some(verdict), now, Box::default()),
        }
    }

    /// What was decided about a datagram within the last [`Limits::timeout`].
    pub fn recall(&self, key: &FragmentKey, now: Timestamp) -> Option<u64> {
        self.decided.get(key).filter(|d| now.since(d.ts) <= self.limits.timeout)?.verdict
    }

    /// What became of the fragments so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes held.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Datagrams under reassembly, given-up ones that still refuse their fragments included.
    pub fn trackers(&self) -> usize {
        self.trackers.len()
    }

    fn insert(&mut self, from: Source<'_>, now: Timestamp, h: &Headers, data: &[u8], options: DecodeOptions) -> Outcome {
        let (Some(key), Some(fragment)) = (FragmentKey::of(h), h.fragment) else {
            return Outcome::Refused(Refusal::NotAFragment);
        };
        let body = h.body.of(data);
        if let Err(refusal) = self.check(h, body, fragment.more, fragment.offset) {
            return Outcome::Refused(refusal);
        }
        let piece = Piece::new(fragment, body, &self.hash);
        if self.trackers.get(&key).is_some_and(|t| now.since(t.first) > self.limits.timeout) {
            self.give_up(&key, |c| &mut c.timed_out);
        }
        if !self.trackers.contains_key(&key) && self.is_late(&key, &piece, now) {
            count(&mut self.counters.duplicates, 1);
            return Outcome::Late(key);
        }
        let cost = body.len().saturating_add(match &from {
            Source::Frame(frame) => Tracker::cost(frame.data.len()),
            Source::Frames(frames) => frames.iter().map(|f| Tracker::cost(f.data.len())).sum(),
        });
        if !self.make_room(&key, cost) {
            count(&mut self.counters.oversize, 1);
            return Outcome::Refused(Refusal::Oversize);
        }
        let (ages, max_fragments) = (&mut self.ages, self.limits.max_fragments);
        let tracker = self.trackers.entry(key).or_insert_with(|| Tracker::new(now, ages.push(key), key.src.is_v4()));
        let frames = if let Source::Frames(frames) = &from { frames.len() } else { 1 };
        let insert = tracker.insert(piece, fragment.next, body, frames, max_fragments);
        match insert {
            Insert::Refused(refusal) => {
                count(if refusal == Refusal::GivenUp { &mut self.counters.given_up } else { &mut self.counters.malformed }, 1);
                return Outcome::Refused(refusal);
            }
            Insert::Fatal(refusal) => {
                let cause =
                    if refusal == Refusal::Overlap { &mut self.counters.overlaps_v6 } else { &mut self.counters.too_many };
                count(cause, 1);
                count(&mut self.counters.frames_given_up, tracker.frames.len());
                self.bytes = self.bytes.saturating_sub(tracker.bytes);
                tracker.poison();
                return Outcome::Refused(refusal);
            }
            Insert::Duplicate => count(&mut self.counters.duplicates, 1),
            Insert::Kept { overlap: true, .. } => count(&mut self.counters.overlaps_v4, 1),
            Insert::Kept { .. } => {}
        }
        match from {
            Source::Frame(frame) => tracker.frames.push(OwnedFrame::from(frame)),
            Source::Frames(frames) => tracker.frames.extend(frames),
        }
        tracker.bytes = tracker.bytes.saturating_add(cost);
        self.bytes = self.bytes.saturating_add(cost);
        if matches!(insert, Insert::Kept { whole: true, .. }) { self.complete(key, now, h, options) } else { Outcome::Held }
    }

    /// Refuses what cannot be a piece of any datagram.
    fn check(&mut self, h: &Headers, body: &[u8], more: bool, offset: u16) -> Result<(), Refusal> {
        // The IPv4 total length counts its header, the IPv6 payload length does not.
        let longest = if h.tuple.src.ip.is_v4() { 65_535 - tracker::V4_HEADER } else { 65_535 };
        let (counter, refusal) = if h.truncated {
            (&mut self.counters.truncated, Refusal::Truncated)
        } else if body.is_empty() || (more && !body.len().is_multiple_of(8)) {
            (&mut self.counters.malformed, Refusal::Malformed)
        } else if body.len().saturating_add(usize::from(offset)) > longest {
            (&mut self.counters.oversize, Refusal::Oversize)
        } else {
            return Ok(());
        };
        count(counter, 1);
        Err(refusal)
    }

    /// Takes a whole datagram out and decodes it.
    fn complete(&mut self, key: FragmentKey, now: Timestamp, around: &Headers, options: DecodeOptions) -> Outcome {
        let Some(tracker) = self.remove(&key) else { return Outcome::Held };
        let bytes = tracker.packet(key.src, key.dst);
        let Ok(headers) = decode_ip(&bytes, around, options) else {
            count(&mut self.counters.malformed, 1);
            count(&mut self.counters.frames_given_up, tracker.frames.len().saturating_sub(1));
            return Outcome::Refused(Refusal::Malformed);
        };
        count(&mut self.counters.completed, 1);
        self.decide(key, None, now, tracker.pieces.into_boxed_slice());
        Outcome::Complete(Box::new(Datagram { key, headers, bytes, frames: tracker.frames }))
    }

    /// Whether a piece was already part of a datagram completed under `key`. Identifications are used again within
    /// seconds on fast links (RFC 4963), so the key alone does not say.
    fn is_late(&self, key: &FragmentKey, piece: &Piece, now: Timestamp) -> bool {
        self.decided.get(key).is_some_and(|d| now.since(d.ts) <= self.limits.timeout && d.pieces.contains(piece))
    }

    fn decide(&mut self, key: FragmentKey, verdict: Option<u64>, ts: Timestamp, pieces: Box<[Piece]>) {
        if self.decided.len() >= self.limits.max_trackers
            && let Some(oldest) = self.oldest_decided()
        {
            self.decided.remove(&oldest);
        }
        let age = self.decided_ages.push(key);
        self.decided.insert(key, Decided { ts, age, verdict, pieces });
        let decided = &self.decided;
        self.decided_ages.compact(decided.len(), |k, age| decided.get(k).is_some_and(|d| d.age == age));
    }

    /// Gives up the oldest datagrams until `cost` more bytes and a tracker for `key` fit. False when they never will.
    fn make_room(&mut self, key: &FragmentKey, cost: usize) -> bool {
        if cost > self.limits.max_bytes {
            return false;
        }
        while self.bytes.saturating_add(cost) > self.limits.max_bytes {
            let Some(oldest) = self.oldest() else { break };
            self.give_up(&oldest, |c| &mut c.evicted_bytes);
        }
        if self.trackers.len() >= self.limits.max_trackers
            && !self.trackers.contains_key(key)
            && let Some(oldest) = self.oldest()
        {
            self.give_up(&oldest, |c| &mut c.evicted_trackers);
        }
        true
    }

    fn give_up(&mut self, key: &FragmentKey, cause: impl FnOnce(&mut Counters) -> &mut u64) {
        let Some(tracker) = self.remove(key) else { return };
        // One that was given up before has been counted then.
        if !tracker.is_poisoned() {
            count(cause(&mut self.counters), 1);
        }
        count(&mut self.counters.frames_given_up, tracker.frames.len());
    }

    fn remove(&mut self, key: &FragmentKey) -> Option<Tracker> {
        let tracker = self.trackers.remove(key)?;
        self.bytes = self.bytes.saturating_sub(tracker.bytes);
        let trackers = &self.trackers;
        self.ages.compact(trackers.len(), |k, age| trackers.get(k).is_some_and(|t| t.age == age));
        Some(tracker)
    }

    fn oldest(&mut self) -> Option<FragmentKey> {
        let trackers = &self.trackers;
        self.ages.oldest(|k, age| trackers.get(k).is_some_and(|t| t.age == age))
    }

    fn oldest_decided(&mut self) -> Option<FragmentKey> {
        let decided = &self.decided;
        self.decided_ages.oldest(|k, age| decided.get(k).is_some_and(|d| d.age == age))
    }
}

fn count(counter: &mut u64, n: usize) {
    *counter = counter.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests;
