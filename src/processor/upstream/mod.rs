//! The road to the processor above this one: the same uplink that hunters have, with a disk queue of its own.
//!
//! ```text
//! commit thread:  offer ─▶ fdatasync of files ─▶ secure ─▶ Commit entry ─▶ fdatasync of the log ─▶ acknowledgement to the hunter
//!                   │                              ▲
//!                   ▼                              │ on this disk, or acknowledged by the processor above
//!                 Backlog ──▶ spool thread ──▶ files
//!                   └──────▶ uplink task ──▶ processor above
//! ```
//! Why no end of this process loses or doubles a packet on the way up:
//!
//! 1. Nothing is lost. A hunter lets go of a batch once it is acknowledged, which is after its group's Commit entry is durable, which is
//!    after `secure`: the batch is in the queue's files as the disk confirmed them, or the processor above has it. An end before `secure`
//!    comes before the Commit entry too: the next start does not know the batch, the hunter still has it and sends it again.
//! 2. Nothing is doubled. An end between `secure` and the Commit entry leaves the batch in the queue, and the hunter's repetition puts it there
//!    once more; what the queue sent but had not removed is sent again as well. Each copy has the hunter's own epoch and sequence, so the
//!    processor above recognises every further copy, as it does those of a hunter, in whatever order they come: a hunter that went from this
//!    processor to another below the same one sends by two ways. What is acknowledged is named from one number to another, for that reason.
//! 3. Nothing is given up. A full queue takes nothing more (it never drops its oldest); the commit thread waits, the hunters are paused
//!    and keep what they have. That ends once the processor above takes something, for which the queue needs nothing from here: there
//!    is no circle of waiting. Loops of processors are refused ([`super::below`]).
//!
//! What may be lost is a damaged part of the queue, counted as `spool_corrupt`.

pub(super) mod pages;
mod plane;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::shared::Incoming;
use crate::batch::{BatchSeq, Epoch, Relay, SealedBatch, relayed};
use crate::spool::{Disk, Queue};
use crate::telemetry::clock;
use crate::uplink::{Backlog, BacklogConfig, BacklogSnapshot, Durability, Offer, PeerKind, Road, UplinkConfig, WhenFull};

pub(super) use plane::{Alone, Plane};

/// The commit thread looks this often whether it is to stop while it waits.
const LOOK: Duration = Duration::from_millis(200);
/// Waiting for so long says that the queue takes nothing; before, a slow disk may have been all.
const PATIENCE: Duration = Duration::from_secs(1);
/// Batches in memory at most.
const BATCHES: usize = 8192;

/// What the road is made of.
pub struct UpstreamParts {
    /// How the processor above is reached.
    pub uplink: UplinkConfig,
    /// The disk queue.
    pub queue: Queue<Disk>,
    /// Bytes it may take.
    pub queue_limit: u64,
    /// Bytes of batches in memory.
    pub memory: usize,
    /// Where this processor listens, as it is told above.
    pub listen_address: String,
    /// Unique for this process start.
    pub instance: u64,
}

/// The road, as the rest of the processor sees it.
pub struct Upstream {
    processor: String,
    /// Orders the queue; never on the wire.
    epoch: Epoch,
    last: AtomicU64,
    pub(super) backlog: Arc<Backlog>,
    queue_limit: u64,
    /// The commit thread waits for it.
    blocked: AtomicBool,
    /// Waiting for so long says that the queue takes nothing.
    pub(super) patience: Duration,
    link: Mutex<Link>,
}

/// How the processor above is reached.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Where, while there is a connection.
    pub connected: Option<String>,
    /// Every address, and whether it is tried.
    pub roads: Vec<Road>,
}

/// The figures of one instant.
#[derive(Clone, Debug)]
pub struct UpstreamFigures {
    /// The queue's.
    pub backlog: BacklogSnapshot,
    /// Bytes it may take on disk.
    pub queue_limit: u64,
    /// Whether acknowledgements to hunters wait for it.
    pub blocked: bool,
    /// The connection.
    pub link: Link,
}

impl UpstreamFigures {
    /// `offered + recovered − (acked + in memory + on disk + dropped)`: 0, or there is a bug.
    pub fn imbalance(&self) -> i64 {
        let b = &self.backlog;
        let sum = |terms: &[u64]| terms.iter().fold(0_i128, |s, n| s.saturating_add(i128::from(*n)));
        let difference = sum(&[b.offered_packets, b.recovered_packets])
            - sum(&[b.acked_packets, b.in_memory_packets, b.on_disk_packets, b.dropped()]);
        i64::try_from(difference).unwrap_or(i64::MAX)
    }

    /// Packets that are not acknowledged yet.
    pub const fn waiting(&self) -> u64 {
        self.backlog.in_memory_packets.saturating_add(self.backlog.on_disk_packets)
    }

    /// How full the disk queue is, in percent.
    pub fn percent(&self) -> u64 {
        self.backlog.spool_bytes.saturating_mul(100).checked_div(self.queue_limit).unwrap_or(0)
    }

    /// What an acknowledgement from above means.
    pub const fn delivery(&self) -> &'static str {
        match self.backlog.peer {
            PeerKind::Extended => "acknowledged",
            PeerKind::Plain => "best_effort",
        }
    }

    /// What the processor above asks for.
    pub const fn asked(&self) -> &'static str {
        match (self.backlog.paused, self.backlog.slow) {
            (true, _) => "pause",
            (false, true) => "slow",
            (false, false) => "continue",
        }
    }
}

/// How much of the queue may be in memory.
pub(super) const fn room(memory: usize) -> BacklogConfig {
    BacklogConfig {
        max_bytes: memory,
        max_batches: BATCHES,
        when_full: WhenFull::Block,
        durability: Durability::Wal,
        relays: true,
    }
}

impl Upstream {
    /// Of a processor of this name.
    pub(super) fn new(processor: String, memory: usize, queue_limit: u64, instance: u64) -> Self {
        Self {
            processor,
            epoch: Epoch::starting(clock::wall(), instance),
            last: AtomicU64::new(0),
            backlog: Arc::new(Backlog::new(room(memory))),
            queue_limit,
            blocked: AtomicBool::new(false),
            patience: PATIENCE,
            link: Mutex::default(),
        }
    }

    /// Puts a batch into the queue, however long that takes; false when `stop` says that it need not. The commit thread alone calls this.
    pub(super) fn offer(&self, batch: &Incoming, stop: &AtomicBool) -> bool {
        let packets = u32::try_from(batch.view.len()).unwrap_or(u32::MAX);
        let seq = self.last.load(Ordering::Relaxed).saturating_add(1);
        self.last.store(seq, Ordering::Relaxed);
        let mut sealed = SealedBatch::stored(self.epoch, BatchSeq(seq), packets, passed_on(batch, &self.processor));
        let began = clock::Moment::now();
        while let Offer::Full(back) = self.backlog.offer(sealed) {
            if self.gives_up(stop, began) {
                return false;
            }
            self.note_waiting(began);
            self.backlog.wait_for_room(&back, LOOK);
            sealed = back;
        }
        true
    }

    /// Waits until everything that was offered is safe; false when `stop` says that it will not be. The commit thread alone calls this.
    pub(super) fn secure(&self, stop: &AtomicBool) -> bool {
        let through = BatchSeq(self.last.load(Ordering::Relaxed));
        let began = clock::Moment::now();
        while !self.backlog.secure(self.epoch, through, LOOK) {
            if self.gives_up(stop, began) {
                return false;
            }
            self.note_waiting(began);
        }
        self.blocked.store(false, Ordering::Release);
        true
    }

    /// A stop waits for a disk that is slow, not for one that takes nothing: what is written and not safe is written again after the next start.
    fn gives_up(&self, stop: &AtomicBool, began: clock::Moment) -> bool {
        stop.load(Ordering::Acquire) && began.elapsed() >= self.patience
    }

    /// Time says it, not the number of looks: every change of the queue ends one.
    fn note_waiting(&self, began: clock::Moment) {
        if began.elapsed() >= self.patience && !self.blocked.swap(true, Ordering::AcqRel) {
            tracing::warn!("the queue for the processor above takes nothing; hunters wait until that processor does");
        }
    }

    /// The figures now.
    pub fn figures(&self) -> UpstreamFigures {
        UpstreamFigures {
            backlog: self.backlog.snapshot(),
            queue_limit: self.queue_limit,
            blocked: self.blocked.load(Ordering::Acquire),
            link: self.link.lock().clone(),
        }
    }
}

/// A batch as this processor passes it on. One of a hunter without epochs goes by the epoch and number that it has here: the numbers of such a
/// hunter begin anew whenever it connects, here or to a processor like it.
pub(super) fn passed_on(batch: &Incoming, processor: &str) -> Bytes {
    let key = batch.view.epoch().is_none().then_some((batch.epoch, batch.seq));
    relayed(&batch.view, &Relay { processor, interfaces: &batch.interfaces, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_moves_is_not_called_blocked_however_often_it_is_looked_at() {
        let upstream = Upstream::new("mid".into(), 1 << 20, 1 << 20, 1);
        let began = clock::Moment::now();
        for _ in 0..50 {
            upstream.note_waiting(began);
        }
        assert!(!upstream.figures().blocked);
        tokio::time::advance(PATIENCE).await;
        upstream.note_waiting(began);
        assert!(upstream.figures().blocked);
    }
}
