//! A backlog whose batches come from several hunters: a processor's road to the one above it.
//!
//! The queue has an epoch and a sequence of its own, by which the spool keeps its order; on the wire each batch keeps its hunter's.
//! Acknowledgements name the hunter's, and say from which to which: the peer may have a part of an epoch by another way, and what it has is
//! not always what came before. So they may come out of the queue's order: the spool hears of a batch once all before it are acknowledged too.
//! Nothing is declared as given up, since a declaration would name batches of the wrong epoch; it is counted.

use std::time::Duration;

use super::log::Log;
use super::{Backlog, Connection, Entry, State};
use crate::batch::{BatchKey, BatchSeq, Epoch, SealedBatch};
use crate::telemetry::clock;

impl Backlog {
    /// The peer has taken over this batch, and all of its hunter's epoch before it, back to `from`.
    pub fn ack_key(&self, connection: Connection, key: &BatchKey, from: BatchSeq) {
        let mut state = self.state.lock();
        if state.connection != connection.0 {
            return;
        }
        state.acknowledge(|e| e.key.as_ref().is_some_and(|k| k.seq >= from && covers(key, k)), false);
        state.wake();
        self.after_acks(&state);
    }

    /// Waits up to `patience` until every batch of the queue's `epoch` up to `through` is safe from the end of this process: on disk as the
    /// spool's disk confirmed it, or acknowledged by the peer. False when that is not so yet. Blocks the thread: not for tasks.
    pub fn secure(&self, epoch: Epoch, through: BatchSeq, patience: Duration) -> bool {
        let mut state = self.state.lock();
        if state.is_secure(epoch, through) {
            return true;
        }
        if let Some(disk) = &mut state.disk {
            disk.wanted = Some((epoch, through));
        }
        self.work.notify_one();
        // one wait: the caller looks whether it is to stop and comes again
        clock::wait(&self.room, &mut state, patience);
        state.is_secure(epoch, through)
    }
}

fn covers(acked: &BatchKey, batch: &BatchKey) -> bool {
    batch.epoch == acked.epoch && batch.seq <= acked.seq && batch.hunter == acked.hunter
}

impl State {
    /// What is not safe when a processor ends was not acknowledged to its hunter, and comes again: it counts as never offered.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.relays && self.disk.as_ref().is_some_and(super::disk::Disk::is_closing)
    }

    fn is_secure(&self, epoch: Epoch, through: BatchSeq) -> bool {
        let Some(disk) = &self.disk else { return false };
        if disk.acked.get(&epoch).is_some_and(|acked| *acked >= through) {
            return true;
        }
        let of_it = |e: Epoch, seq: BatchSeq| e == epoch && seq <= through;
        let to_write = disk.staged.iter().any(|s| of_it(s.batch.epoch, s.batch.seq));
        let memory_only = |e: &Entry| of_it(e.batch.epoch, e.batch.seq) && !e.acked && e.log != Log::Written;
        // what is in neither place was written, acknowledged, or counted as given up
        !to_write && !self.entries.iter().any(memory_only) && disk.is_synced(epoch, through)
    }

    /// Whether the disk is to confirm what was written: somebody waits for it, and everything that is to be is written.
    pub(super) fn sync_is_wanted(&self) -> bool {
        let Some((disk, (epoch, through))) = self.disk.as_ref().and_then(|disk| Some((disk, disk.wanted?))) else { return false };
        let of_it = |batch: &SealedBatch| batch.epoch == epoch && batch.seq <= through;
        let waits = |e: &Entry| e.log == Log::Waits && of_it(&e.batch);
        let is_written =
            || !self.entries.iter().skip(disk.to_log.passed).any(waits) && !disk.staged.iter().any(|s| of_it(&s.batch));
        !disk.is_synced(epoch, through) && is_written()
    }
}

impl super::disk::Disk {
    pub(super) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the disk has confirmed what was written of `epoch` up to `through`.
    fn is_synced(&self, epoch: Epoch, through: BatchSeq) -> bool {
        let of_it = |at: Option<(Epoch, BatchSeq)>| at.filter(|(e, _)| *e == epoch).map(|(_, seq)| seq);
        let needed = of_it(self.written).map_or(BatchSeq(0), |written| written.min(through));
        of_it(self.synced).unwrap_or_default() >= needed
    }
}
