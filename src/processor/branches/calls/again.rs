//! Calls of an earlier process: what it knew of them is read again from their files.

use std::sync::Arc;

use super::{Calls, Entry, Owned};
use crate::packet::{Frame, Timestamp};
use crate::record::state::CallMemory;

impl Calls {
    /// Calls of an earlier process; their files are read again when they are needed.
    pub(in crate::processor::branches) fn restore(&mut self, calls: Vec<CallMemory>) {
        for c in calls {
            let unread = Some(c.gone.into_iter().map(Arc::from).collect());
            let entry = Entry {
                filter_ids: c.filter_ids.into_iter().collect(),
                phone_rule: c.phone_rule,
                said_holes: c.said_holes.into_iter().map(|(h, text)| (Arc::from(h), text)).collect(),
                shared: c.shared,
                holes: c.holes,
                unread,
                ..Entry::default()
            };
            let id: Arc<str> = c.call_id.into();
            if c.open {
                self.to_read.push_back(Arc::clone(&id));
            }
            let map = if c.open { &mut self.open } else { &mut self.closed };
            self.unread = self.unread.saturating_add(usize::from(map.insert(id, entry).is_none()));
        }
    }

    /// Whether this call's files must be read before it goes on.
    pub(in crate::processor::branches) fn is_unread(&self, call_id: &str) -> bool {
        self.unread > 0 && self.get(call_id).is_some_and(|e| e.unread.is_some())
    }

    /// An open call whose files must be read before anything can be said of it.
    pub(in crate::processor::branches) fn next_unread(&mut self) -> Option<Arc<str>> {
        while let Some(id) = self.to_read.front() {
            if self.open.get(id).is_some_and(|e| e.unread.is_some()) {
                return Some(Arc::clone(id));
            }
            self.to_read.pop_front();
        }
        None
    }

    /// Reads a call again: `packets` hands each of its packets, in order, to what it is given.
    pub(in crate::processor::branches) fn read_again(
        &mut self,
        call_id: &str,
        now: Timestamp,
        packets: impl FnOnce(&mut dyn FnMut(&Arc<str>, bool, &Frame<'_>)),
    ) {
        let Some(gone) = self.get_mut(call_id).and_then(|e| e.unread.take()) else { return };
        self.unread = self.unread.saturating_sub(1);
        packets(&mut |hunter, sip, frame| {
            // its time goes on from its last packet, whether it is back already or not
            self.clocks.meet(hunter, now);
            self.clocks.note_packet(hunter, frame.ts);
            let owned = Owned { call_id, sip, phone_rule: "", holes: "", again: false };
            let _known = self.take(hunter, &owned, &mut std::iter::empty(), frame);
        });
        let Some(entry) = self.get_mut(call_id) else { return };
        for (_, seen) in entry.seen.iter_mut().filter(|(hunter, _)| gone.contains(hunter)) {
            seen.hunter_gone(call_id);
        }
    }
}
