//! Who has brought how many of the calls that are known, and how much is known of them: where there is no room, whoever has most makes it among
//! its own. A hunter that brings calls without end takes none from one that keeps to its part.
//!
//! A call is its hunter's who brought its first packet. Finding who goes looks at no other hunter and at no other call.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use super::CallNo;
use crate::packet::Timestamp;

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The number of calls.
    Calls,
    /// What is known of them.
    Bytes,
}

/// One hunter's calls.
#[derive(Debug, Default)]
pub(super) struct Share {
    calls: usize,
    bytes: usize,
    /// In the order they began, each with its last packet then; forgotten ones included until compacted.
    pub(super) begun: VecDeque<(CallNo, Timestamp)>,
    /// In the order they were closed; some are open again, or forgotten.
    pub(super) closed: VecDeque<(CallNo, Timestamp)>,
}

impl Share {
    /// Whether its lists hold so much of what is forgotten that they are to be made anew.
    pub(super) fn is_littered(&self) -> bool {
        self.begun.len() > self.calls.saturating_mul(2).saturating_add(64)
    }
}

/// Hunters by how much they have of something.
#[derive(Debug, Default)]
struct Ranking(BTreeSet<(usize, Arc<str>)>);

impl Ranking {
    fn change(&mut self, hunter: &Arc<str>, from: usize, to: usize) {
        if from == to {
            return;
        }
        self.0.remove(&(from, Arc::clone(hunter)));
        if to > 0 {
            self.0.insert((to, Arc::clone(hunter)));
        }
    }

    fn most(&self) -> Option<(usize, &Arc<str>)> {
        self.0.last().map(|(n, hunter)| (*n, hunter))
    }
}

/// The shares of all hunters.
#[derive(Debug, Default)]
pub(super) struct Shares {
    of: HashMap<Arc<str>, Share, RandomState>,
    by_calls: Ranking,
    by_bytes: Ranking,
}

impl Shares {
    /// One more call of this hunter, with `bytes` known of it; by which name it is remembered.
    pub(super) fn add(&mut self, hunter: &str, bytes: usize) -> Arc<str> {
        let known = self.of.get_key_value(hunter).map(|(name, _)| Arc::clone(name));
        let hunter = known.unwrap_or_else(|| Arc::from(hunter));
        let share = self.of.entry(Arc::clone(&hunter)).or_default();
        let (calls, before) = (share.calls, share.bytes);
        share.calls = calls.saturating_add(1);
        share.bytes = before.saturating_add(bytes);
        self.by_calls.change(&hunter, calls, share.calls);
        self.by_bytes.change(&hunter, before, share.bytes);
        hunter
    }

    /// More, or less, is known of one of its calls.
    pub(super) fn weigh(&mut self, hunter: &Arc<str>, before: usize, bytes: usize) {
        let Some(share) = self.of.get_mut(hunter) else { return };
        let sum = share.bytes;
        share.bytes = sum.saturating_sub(before).saturating_add(bytes);
        self.by_bytes.change(hunter, sum, share.bytes);
    }

    /// A call of this hunter, of which `bytes` were known, is forgotten; with its last one the hunter is.
    pub(super) fn remove(&mut self, hunter: &Arc<str>, bytes: usize) {
        self.weigh(hunter, bytes, 0);
        let Some(share) = self.of.get_mut(hunter) else { return };
        let calls = share.calls;
        share.calls = calls.saturating_sub(1);
        self.by_calls.change(hunter, calls, share.calls);
        if share.calls == 0 {
            self.by_bytes.change(hunter, share.bytes, 0);
            self.of.remove(hunter);
        }
    }

    /// Who makes room: whoever has most; of several, the one that wants it.
    pub(super) fn who_goes(&self, full: Full, wants: &str) -> Option<Arc<str>> {
        let most = if full == Full::Calls { &self.by_calls } else { &self.by_bytes };
        let (n, hunter) = most.most()?;
        let own = self.of.get_key_value(wants).filter(|(_, s)| n == if full == Full::Calls { s.calls } else { s.bytes });
        Some(Arc::clone(own.map_or(hunter, |(name, _)| name)))
    }

    pub(super) fn get_mut(&mut self, hunter: &str) -> Option<&mut Share> {
        self.of.get_mut(hunter)
    }

    /// What was closed so long ago; some of it is open again, or forgotten.
    pub(super) fn take_closed(&mut self, now: Timestamp, age: Duration) -> Vec<(CallNo, Timestamp)> {
        let mut old = Vec::new();
        for share in self.of.values_mut() {
            while let Some((no, at)) = share.closed.pop_front_if(|(_, at)| now.since(*at) >= age) {
                old.push((no, at));
            }
        }
        old
    }
}
