//! What another processor has taken over, so that the one at hand does not take it for lost.
//!
//! Of an epoch of this process a batch leaves the queue acknowledged, or is declared as given up. So what is missing between the last batch that the
//! peer has and the first that it is sent, and was not given up, is with another processor. Of earlier processes' epochs that is not known: what
//! was in their memory is gone without a word.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::batch::{BatchSeq, Epoch};

/// What the peer had of each epoch when the connection began, and of which epochs it has got anything since.
#[derive(Debug, Default)]
pub(super) struct Taken {
    before: BTreeMap<Epoch, BatchSeq>,
    since: BTreeSet<Epoch>,
}

impl Taken {
    pub(super) fn new(resume: &[(Epoch, BatchSeq)]) -> Self {
        Self { before: resume.iter().copied().collect(), since: BTreeSet::new() }
    }
}

impl State {
    /// This batch goes out: which before it are elsewhere.
    pub(super) fn elsewhere(&mut self, epoch: Epoch, seq: BatchSeq) -> Option<(BatchSeq, BatchSeq)> {
        let recovered = self.disk.as_ref().is_some_and(|disk| disk.is_recovered(epoch));
        if self.relays || recovered || !self.taken.since.insert(epoch) {
            return None;
        }
        let from = self.taken.before.get(&epoch).map_or(1, |last| last.0.saturating_add(1));
        let between = self.ranges.iter().filter(|d| d.epoch == epoch && d.range.to < seq).map(|d| d.range);
        let given_up = between.map(|r| r.to.0.saturating_sub(r.from.0.max(from)).saturating_add(1)).fold(0, u64::saturating_add);
        let gap = seq.0.saturating_sub(from);
        (gap > given_up).then(|| (BatchSeq(from), BatchSeq(seq.0.saturating_sub(1))))
    }
}
