//! What is known of calls, in bytes: whoever can send packets of a call decides how much its inspection has to remember.
//!
//! Promises: never further from the truth than [`SLACK`] for each call. A call is weighed again once packets of so many bytes have come.

use super::{Calls, Entry, Seen};

/// A call beside its inspections: its entry, the state of its files, its record when it is written.
const CALL: usize = 6 << 10;
/// One inspection of an ordinary call, before its calls are counted; measured.
const INSPECTION: usize = 10 << 10;
/// What is known of a call that has left its inspection.
const LEFT: usize = 2 << 10;
/// A hole, or a hunter's name.
const SMALL: usize = 128;
/// Bytes of packets, and for each of them [`PACKET`], until a call is weighed again.
const SLACK: usize = 8 << 10;
/// The most that an ordinary packet adds: a stream.
const PACKET: usize = 1 << 10;

impl Seen {
    fn bytes(&self) -> usize {
        let inspection = self.engine.as_ref().map_or(0, |e| INSPECTION.saturating_add(e.bytes()));
        inspection.saturating_add(if self.left.is_some() { LEFT } else { 0 })
    }
}

impl Entry {
    /// Packets have come; whether it is time to weigh it.
    pub(super) const fn note_packet(&mut self, bytes: usize) -> bool {
        self.unweighed = self.unweighed.saturating_add(bytes).saturating_add(PACKET);
        self.weight == 0 || self.unweighed >= SLACK
    }

    fn weigh(&mut self, call_id: &str) -> usize {
        self.unweighed = 0;
        let seen = self.seen.values().map(Seen::bytes);
        let filters = self.filter_ids.iter().map(|id| id.len().saturating_add(SMALL));
        let said = self.said_holes.values().map(|text| text.len().saturating_add(SMALL));
        // the Call-ID is a key in four tables
        let fixed = [CALL, call_id.len().saturating_mul(4), self.phone_rule.len(), self.holes.len().saturating_mul(SMALL)];
        self.weight = fixed.into_iter().chain(seen).chain(filters).chain(said).fold(0, usize::saturating_add);
        self.weight
    }
}

impl Calls {
    /// About what is known of all calls.
    pub(in crate::processor::branches) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Weighs one call again.
    pub(super) fn weigh(&mut self, call_id: &str) -> Option<usize> {
        let entry = self.open.get_mut(call_id).or_else(|| self.closed.get_mut(call_id))?;
        let (before, weight) = (entry.weight, entry.weigh(call_id));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(weight);
        Some(weight)
    }

    /// What one call took when it was last weighed.
    pub(in crate::processor::branches) fn weight(&self, call_id: &str) -> usize {
        self.get(call_id).map_or(0, |entry| entry.weight)
    }

    /// A call is forgotten.
    pub(super) const fn unweigh(&mut self, entry: &Entry) {
        self.bytes = self.bytes.saturating_sub(entry.weight);
    }
}
