//! What calls take, in bytes: how much one has is decided by whoever sends its messages and its media.
//!
//! Promises: known at any time without a look at the calls; a call is weighed again with each of its messages and each new stream. Where calls
//! take more than they may, some go, as where they are too many.

use super::call::{Call, CallRef};
use super::details::Details;
use super::output::Output;
use super::table::CallTable;

/// An ordinary call with all it has (`make bench`: 100 000 calls in some 240 MB).
pub(crate) const CALL: usize = 2432;
/// Of this, what is weighed: some text, claims on four endpoints.
const USUAL: usize = 1536;
/// A stream that is measured, a claim, a context, and what is small.
const STREAM: usize = 1024;
const CLAIM: usize = 256;
const CONTEXT: usize = 192;
const SMALL: usize = 48;

fn times(n: usize, bytes: usize) -> usize {
    n.saturating_mul(bytes)
}

impl Call {
    fn weight(&self) -> usize {
        let texts = [&self.from.user, &self.from.host, &self.to.user, &self.to.host, &self.from_tag].map(|t| t.len());
        let lists = [
            self.id.len(),
            times(self.claims.len(), CLAIM),
            times(self.contexts.len(), CONTEXT),
            times(self.streams.as_ref().map_or(0, |s| s.measured()), STREAM),
            times(self.offered_mux.len().saturating_add(self.holes.len()).saturating_add(self.filter_ids.len()), SMALL),
            self.details.as_ref().map_or(0, |d| d.bytes()),
        ];
        texts.into_iter().chain(lists).fold(0, usize::saturating_add)
    }
}

impl Details {
    fn bytes(&self) -> usize {
        let sides = [&self.from, &self.to].map(|s| s.display.len().saturating_add(s.uri.len()));
        let identities = self.identities.iter().map(|i| i.user.len().saturating_add(i.host.len()).saturating_add(SMALL));
        let dialogs = self.dialogs.iter().map(|d| d.from_tag.len().saturating_add(d.to_tag.len()).saturating_add(SMALL));
        let single = [self.request_uri.len(), self.reason.len()];
        sides.into_iter().chain(identities).chain(dialogs).chain(single).fold(size_of::<Self>(), usize::saturating_add)
    }
}

impl CallTable {
    /// Weighs a call again.
    pub(super) fn weigh(&mut self, r: CallRef) {
        let Some(call) = self.get_mut(r) else { return };
        let after = call.weight();
        let before = std::mem::replace(&mut call.weight, after);
        self.weight = self.weight.saturating_sub(before).saturating_add(after);
    }

    /// A call is gone.
    pub(super) const fn unweigh(&mut self, call: &Call) {
        self.weight = self.weight.saturating_sub(call.weight);
    }

    /// What all calls take; `more` ordinary ones with them.
    fn taken(&self, more: usize) -> usize {
        let calls = self.len().saturating_add(more);
        times(calls, CALL).saturating_add(self.weight.saturating_sub(times(calls, USUAL)))
    }

    /// Makes room for one more call, or for what those there are have come to.
    pub(super) fn make_room(&mut self, more: usize, out: &mut dyn Output) {
        let limits = self.config.limits;
        let too_many = |t: &Self| t.len().saturating_add(more) > limits.calls || t.taken(more) > limits.call_bytes;
        while too_many(self) && self.evict(out) {}
    }

    /// About what the calls, their streams and claims, and media that nobody has claimed take, in bytes.
    pub fn bytes(&self) -> usize {
        let waiting = self.unclaimed.bytes().saturating_add(self.pool.bytes());
        times(self.len(), CALL).saturating_add(self.weight).saturating_add(waiting)
    }
}
