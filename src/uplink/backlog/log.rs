//! Which batches in memory are to be written to disk too (`wal`), and which of them are.
//!
//! ```text
//!   entries   │ on disk, acknowledged, or never to be there │ to be written, in this order │
//!                                                           └ the first of these: in the hands of the spool's thread
//! ```
//! One that waits takes no memory beside its own, so a disk that is slow, or takes nothing for a time, is waited for: it gets every batch that is
//! not acknowledged by then, in order. So what a killed hunter had and its disk had not is the last of it, never something in the middle, but
//! where a full disk gave up its oldest for what came later, or a batch can never be written.

use std::collections::VecDeque;

use super::disk::{ToWrite, together};
use super::{Entry, State};
use crate::batch::{BatchSeq, Epoch, SealedBatch};

/// A batch in memory, and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// It is not there, and nobody writes it.
    No,
    /// It is to be written.
    Waits,
    /// It is there.
    Written,
}

/// What is to be written of the memory.
#[derive(Debug, Default)]
pub(super) struct ToLog {
    /// None of `entries[..passed]` waits.
    pub(super) passed: usize,
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// What the spool's thread has taken from there, and not settled.
    pub(super) in_hand: VecDeque<(Epoch, BatchSeq)>,
}

impl ToLog {
    pub(super) fn add(&mut self, cost: u64) {
        self.batches = self.batches.saturating_add(1);
        self.bytes = self.bytes.saturating_add(cost);
    }

    /// There is nothing in memory.
    pub(super) fn clear(&mut self) {
        (self.passed, self.batches, self.bytes) = (0, 0, 0);
    }

    /// It waits no more.
    pub(super) fn settle(&mut self, entry: &mut Entry, log: Log) {
        if entry.log == Log::Waits {
            self.batches = self.batches.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(entry.cost);
            entry.log = log;
        }
    }
}

impl Entry {
    /// What was written of it is gone.
    pub(super) fn leaves_the_disk(&mut self) {
        if self.log == Log::Written {
            self.log = Log::No;
        }
    }
}

impl State {
    /// Where the first batch is that waits.
    fn next_to_log(&self) -> Option<usize> {
        let to_log = &self.disk.as_ref()?.to_log;
        (to_log.batches > 0).then(|| {
            self.entries.iter().skip(to_log.passed).take_while(|e| e.log != Log::Waits).count().saturating_add(to_log.passed)
        })
    }

    /// The first batch that waits.
    pub(super) fn first_to_log(&self) -> Option<ToWrite> {
        let entry = self.entries.get(self.next_to_log()?)?;
        Some(ToWrite { batch: entry.batch.clone(), in_memory: true, follows_memory: false })
    }

    /// Takes note of what the spool's thread is about to write; returns what can be written with the first of it.
    pub(super) fn take_in_hand(&mut self, head: Option<&ToWrite>) -> Vec<SealedBatch> {
        let at = self.next_to_log();
        let Some(disk) = &mut self.disk else { return Vec::new() };
        disk.to_log.in_hand.clear();
        let (Some(head), Some(at)) = (head.filter(|head| head.in_memory), at) else { return disk.behind_head() };
        disk.to_log.passed = at;
        let waiting = self.entries.iter().skip(at.saturating_add(1)).take_while(|e| e.log == Log::Waits);
        let behind = together(&head.batch, waiting.map(|e| &e.batch));
        disk.to_log.in_hand.push_back((head.batch.epoch, head.batch.seq));
        disk.to_log.in_hand.extend(behind.iter().map(|batch| (batch.epoch, batch.seq)));
        behind
    }

    /// What became of the first batch in hand, which may have been acknowledged meanwhile.
    pub(super) fn settle_logged(&mut self, epoch: Epoch, seq: BatchSeq, written: bool) {
        let at = self.next_to_log();
        let Some(disk) = &mut self.disk else { return };
        if written {
            disk.note_written(epoch, seq);
        }
        let Some(at) = at else { return };
        disk.to_log.passed = at;
        if let Some(entry) = self.entries.get_mut(at).filter(|e| e.batch.epoch == epoch && e.batch.seq == seq) {
            disk.to_log.settle(entry, if written { Log::Written } else { Log::No });
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
