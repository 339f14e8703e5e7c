//! Look-back: packets of calls nobody has asked for, kept for a while in case somebody does.
//!
//! Off by default (`--lookback 30s --lookback-mb 256`). Signalling is kept as long as its call is known, under a budget of its own, since it
//! says whose call it is; media is kept by age and bytes, oldest first out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ahash::RandomState;

use crate::packet::Timestamp;

use super::call::CallRef;
use super::hold::{Held, Part, Pool};

/// Bytes of signalling kept over all calls.
const SIGNALLING_BYTES: usize = 64 << 20;

/// Both rings.
#[derive(Debug)]
pub struct Lookback {
    signalling: Ring,
    media: Ring,
    enabled: bool,
}

impl Lookback {
    /// Keeps media for `age` and at most `bytes`; zero of either turns look-back off.
    pub fn new(age: Duration, bytes: usize) -> Self {
        Self {
            signalling: Ring::new(None, SIGNALLING_BYTES.min(bytes)),
            media: Ring::new(Some(age), bytes),
            enabled: !age.is_zero() && bytes > 0,
        }
    }

    /// Bytes that both rings take when they are full.
    pub(crate) fn bytes(age: Duration, media: usize) -> usize {
        if age.is_zero() { 0 } else { media.saturating_add(media.min(SIGNALLING_BYTES)) }
    }

    /// Bytes of media where both rings may take so many.
    pub(crate) fn media_within(both: usize) -> usize {
        both.saturating_sub(SIGNALLING_BYTES).max(both / 2)
    }

    /// Whether anything is kept.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Keeps a packet; returns how many older ones had to go.
    pub fn push(&mut self, call: CallRef, held: Held, pool: &mut Pool) -> u64 {
        match held.part {
            Part::Signalling => self.signalling.push(call, held, pool),
            Part::Media => self.media.push(call, held, pool),
        }
    }

    /// Takes everything kept of one call, in order of arrival.
    pub fn take(&mut self, call: CallRef) -> Vec<Held> {
        let mut all = self.signalling.take(call);
        all.append(&mut self.media.take(call));
        all.sort_by_key(|(order, _)| *order);
        all.into_iter().map(|(_, h)| h).collect()
    }

    /// Lets go of what is too old; returns how many packets that were.
    pub fn expire(&mut self, now: Timestamp, pool: &mut Pool) -> u64 {
        self.media.expire(now, pool)
    }

    /// Forgets a call that is gone; returns how many packets that were.
    pub fn forget(&mut self, call: CallRef, pool: &mut Pool) -> u64 {
        let mut n = 0;
        for held in self.take(call) {
            pool.recycle(held.frame);
            n += 1;
        }
        n
    }
}

#[derive(Debug)]
struct Ring {
    age: Option<Duration>,
    max_bytes: usize,
    bytes: usize,
    entries: VecDeque<Option<(CallRef, Held)>>,
    /// Number of the entry at the front.
    base: u64,
    by_call: HashMap<CallRef, VecDeque<u64>, RandomState>,
}

impl Ring {
    fn new(age: Option<Duration>, max_bytes: usize) -> Self {
        Self { age, max_bytes, bytes: 0, entries: VecDeque::new(), base: 0, by_call: HashMap::default() }
    }

    fn push(&mut self, call: CallRef, held: Held, pool: &mut Pool) -> u64 {
        self.bytes = self.bytes.saturating_add(held.frame.len());
        let number = self.base.saturating_add(self.entries.len() as u64);
        self.by_call.entry(call).or_default().push_back(number);
        self.entries.push_back(Some((call, held)));
        let mut gone = 0;
        while self.bytes > self.max_bytes && !self.entries.is_empty() {
            gone += self.pop(pool);
        }
        gone
    }

    /// Takes the front entry out; 1 when it still held a packet.
    fn pop(&mut self, pool: &mut Pool) -> u64 {
        let number = self.base;
        let Some(entry) = self.entries.pop_front() else { return 0 };
        self.base = self.base.saturating_add(1);
        let Some((call, held)) = entry else { return 0 };
        self.bytes = self.bytes.saturating_sub(held.frame.len());
        pool.recycle(held.frame);
        if let Some(list) = self.by_call.get_mut(&call) {
            // entries leave in order, so this one is the call's oldest
            if list.front() == Some(&number) {
                list.pop_front();
            }
            if list.is_empty() {
                self.by_call.remove(&call);
            }
        }
        1
    }

    fn expire(&mut self, now: Timestamp, pool: &mut Pool) -> u64 {
        let Some(age) = self.age else { return 0 };
        let mut gone = 0;
        while let Some(front) = self.entries.front() {
            if front.as_ref().is_some_and(|(_, h)| now.since(h.frame.ts()) <= age) {
                break;
            }
            gone += self.pop(pool);
        }
        gone
    }

    fn take(&mut self, call: CallRef) -> Vec<(Timestamp, Held)> {
        let mut taken = Vec::new();
        for number in self.by_call.remove(&call).unwrap_or_default() {
            let at = usize::try_from(number.saturating_sub(self.base)).unwrap_or(usize::MAX);
            if let Some((_, held)) = self.entries.get_mut(at).and_then(Option::take) {
                self.bytes = self.bytes.saturating_sub(held.frame.len());
                taken.push((held.frame.ts(), held));
            }
        }
        taken
    }
}
