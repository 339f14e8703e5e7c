//! What a call misses by what its hunters lost.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Calls, Entry, FOREVER};
use crate::packet::Timestamp;
use crate::processor::losses::{DOWN, Losses, News};
use crate::record::json::{self, Hole};

impl Entry {
    /// A packet of a hunter that had stopped: what it would have sent meanwhile is missing, and its next run does not know the call.
    pub(super) fn note_return(&mut self, call_id: &str, hunter: &Arc<str>, ts: Timestamp, losses: &Mutex<Losses>) {
        let Some((seen, first)) = self.seen.get(hunter).filter(|s| s.gone).zip(self.first) else { return };
        let known = self.holes.iter().any(|h| h.reason == DOWN && h.hunter == **hunter);
        if known || seen.facts(call_id).any(|f| f.has_ended()) {
            return;
        }
        if let Some(at) = losses.lock().stopped(hunter, first, ts) {
            let from = Some(json::time(at));
            self.holes.push(Hole { reason: DOWN.to_owned(), from, until: None, packets: None, hunter: hunter.to_string() });
        }
    }
}

impl Calls {
    /// When a call was alive; one whose end nobody saw may have lived on.
    pub(super) fn life(call_id: &str, entry: &Entry) -> Option<(Timestamp, Timestamp)> {
        let mut facts = entry.seen.values().flat_map(|s| s.facts(call_id));
        let over = facts.any(|f| f.has_ended());
        Some((entry.first?, entry.last.filter(|_| over).unwrap_or(FOREVER)))
    }

    /// What a call misses by the losses of its hunters, beyond the holes its entry has.
    pub(super) fn lost_of(&self, call_id: &str, entry: &Entry) -> Vec<Hole> {
        let losses = self.losses.lock();
        // almost always so; what is said of a call costs much more
        if !entry.seen.keys().any(|hunter| losses.has(hunter)) {
            return Vec::new();
        }
        let Some((first, last)) = Self::life(call_id, entry) else { return Vec::new() };
        let all = entry.seen.keys().flat_map(|hunter| losses.holes(hunter, first, last));
        all.filter(|hole| !entry.holes.contains(hole)).collect()
    }

    /// The losses of hunters changed: closed calls whose records say something else now. Those of open calls are written again in time.
    pub(in crate::processor::branches) fn touched(&self, news: &[News]) -> Vec<Arc<str>> {
        let is_touched = |(_, entry): &(&Arc<str>, &Entry)| {
            let touches = |n: &News, (first, last)| n.meets(first, last) && entry.seen.contains_key(&n.hunter);
            entry.done.is_some_and(|life| news.iter().any(|n| touches(n, life)))
        };
        self.closed.iter().filter(is_touched).map(|(id, _)| Arc::clone(id)).collect()
    }
}
