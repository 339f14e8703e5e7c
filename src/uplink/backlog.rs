//! Sealed batches on their way: what was not sent, what was sent and not acknowledged, what was given up.
//!
//! ```text
//!   offer ─▶ ┌──────────────── one queue, in order of offering ────────────────┐
//!            │ sent, unacknowledged │ to be sent again │ never sent            │
//!            └──────────────────────┴──────────────────┴───────────────────────┘
//!  ack ──────▶ leaves              sent           ever_sent ─▶ the oldest of these is given up when memory is full
//! ```
//!
//! Promises: order within an epoch; what was sent once is never given up for want of memory, so what is declared dropped was
//! never delivered; at every instant `offered + recovered = acked + in memory + on disk + Σ dropped by reason`, in packets; with a
//! spool (`backlog/disk.rs`) what does not fit goes to disk instead of being given up. Refuses: more bytes or
//! batches than its bounds (the oldest never-sent batch is counted as given up, or the caller waits), acknowledgements of
//! batches that were never sent.

mod config;
mod disk;
mod elsewhere;
mod exposed;
mod flow;
mod log;
mod relay;
mod snapshot;

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::batch::{BatchKey, BatchSeq, DroppedRange, Epoch, SealedBatch, key_of};
use crate::reason::DropReason;
use crate::telemetry::clock;

pub use self::config::{BacklogConfig, Credit, WhenFull};
use self::disk::Disk;
pub use self::disk::Durability;
pub(super) use self::disk::{Done, Head, Kept, ToWrite};
use self::elsewhere::Taken;
pub use self::exposed::Exposed;
use self::flow::Probe;
use self::log::Log;
pub use self::snapshot::BacklogSnapshot;

/// What a waiting batch costs beside its bytes: its entry here and the allocator's share.
const ENTRY_BYTES: usize = 256;
/// Declarations that travel with one batch; the rest goes with the next.
const RANGES_PER_BATCH: usize = 256;

/// What became of an offered batch.
#[derive(Debug)]
#[must_use]
pub enum Offer {
    /// The backlog has it (or counted it, or an older one, as given up).
    Taken,
    /// No room, and [`WhenFull::Block`]: try again.
    Full(SealedBatch),
}

/// How the peer acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// By epoch, cumulatively, what it has taken over.
    #[default]
    Extended,
    /// By the batch's number on this connection, what it has received.
    Plain,
}

/// One connection's right to send; a later [`Backlog::begin`] ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(u64);

/// A batch to put on the wire.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The batch.
    pub batch: SealedBatch,
    /// Batches of its epoch that were given up, to be declared with it.
    pub ranges: Vec<DroppedRange>,
    /// Batches before it, of its epoch, that another processor has taken over: the first and the last.
    pub elsewhere: Option<(BatchSeq, BatchSeq)>,
    /// Its number on this connection, from 1; for plain peers.
    pub connection_seq: BatchSeq,
}

/// The queue; shared by the capture threads (offer) and the network (the rest).
#[derive(Debug)]
pub struct Backlog {
    config: BacklogConfig,
    state: Mutex<State>,
    room: Condvar,
    /// The spool's thread waits here.
    work: Condvar,
    drained: Notify,
}

#[derive(Debug)]
struct State {
    /// As [`BacklogConfig::relays`].
    relays: bool,
    entries: VecDeque<Entry>,
    /// `entries[..sent]` went out on the present connection.
    sent: usize,
    /// `entries[..ever_sent]` went out on some connection; at least `sent`.
    ever_sent: usize,
    in_flight: InFlight,
    ranges: Vec<Declared>,
    taken: Taken,
    connection: u64,
    connected: bool,
    kind: PeerKind,
    next_connection_seq: u64,
    credit: Credit,
    probe: Probe,
    /// When a pause began or was last questioned.
    questioned: Instant,
    hung_up: bool,
    waker: Option<Waker>,
    /// Of the memory alone; [`Disk`] adds its own.
    figures: BacklogSnapshot,
    disk: Option<Disk>,
}

#[derive(Debug, Default)]
struct InFlight {
    batches: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    batch: SealedBatch,
    cost: u64,
    connection_seq: u64,
    acked: bool,
    /// Whose it is, where that is not the queue's own.
    key: Option<BatchKey>,
    log: Log,
    /// When it last went out.
    sent_at: Option<Instant>,
}

#[derive(Debug)]
struct Declared {
    epoch: Epoch,
    range: DroppedRange,
    /// Told on the present connection.
    told: bool,
}

impl Backlog {
    /// An empty backlog, not connected.
    #[must_use]
    pub fn new(config: BacklogConfig) -> Self {
        let figures = BacklogSnapshot { max_bytes: config.max_bytes as u64, ..BacklogSnapshot::default() };
        let state = State {
            relays: config.relays,
            entries: VecDeque::new(),
            sent: 0,
            ever_sent: 0,
            in_flight: InFlight::default(),
            ranges: Vec::new(),
            taken: Taken::default(),
            connection: 0,
            connected: false,
            kind: PeerKind::default(),
            next_connection_seq: 0,
            credit: Credit::default(),
            probe: Probe::No,
            questioned: Instant::now(),
            hung_up: false,
            waker: None,
            figures,
            disk: Disk::new(config.durability),
        };
        Self { config, state: Mutex::new(state), room: Condvar::new(), work: Condvar::new(), drained: Notify::new() }
    }

    /// Takes a batch; never waits.
    pub fn offer(&self, batch: SealedBatch) -> Offer {
        let mut state = self.state.lock();
        self.offer_locked(&mut state, batch)
    }

    /// Waits up to `patience` until there may be room for a batch that came back. Blocks the thread: not for tasks.
    pub fn wait_for_room(&self, batch: &SealedBatch, patience: Duration) {
        let mut state = self.state.lock();
        if !self.takes(&state, batch) {
            // One wait: the caller looks whether it is to stop and comes again.
            clock::wait(&self.room, &mut state, patience);
        }
    }

    fn takes(&self, state: &State, batch: &SealedBatch) -> bool {
        let cost = (batch.bytes.len() as u64).saturating_add(ENTRY_BYTES as u64);
        let room = self.has_room(state, cost);
        if self.waits_for_acks(state, room) {
            return false;
        }
        state.disk.as_ref().map_or(room, |disk| disk.takes(cost, room, self.config.stage_bytes()))
    }

    fn offer_locked(&self, state: &mut State, batch: SealedBatch) -> Offer {
        if state.disk.is_some() {
            return self.offer_spooled(state, batch);
        }
        let packets = u64::from(batch.packets);
        let cost = (batch.bytes.len() as u64).saturating_add(ENTRY_BYTES as u64);
        while !self.has_room(state, cost) {
            if self.config.when_full == WhenFull::Block {
                return Offer::Full(batch);
            }
            if !state.give_up_oldest_unsent(DropReason::MemFull) {
                state.figures.offered_packets = state.figures.offered_packets.saturating_add(packets);
                state.count_dropped(&batch, DropReason::MemFull);
                return Offer::Taken;
            }
        }
        state.figures.offered_packets = state.figures.offered_packets.saturating_add(packets);
        state.push(batch, false);
        Offer::Taken
    }

    fn has_room(&self, state: &State, cost: u64) -> bool {
        let f = &state.figures;
        let fits = f.in_memory_bytes.saturating_add(cost) <= self.config.entry_bytes();
        f.in_memory_batches == 0 || (fits && f.in_memory_batches < self.config.max_batches as u64)
    }

    /// Starts on a new connection: `resume` is acknowledged, all else that is unacknowledged will be sent again, in order.
    pub fn begin(&self, kind: PeerKind, resume: &[(Epoch, BatchSeq)]) -> Connection {
        let mut state = self.state.lock();
        for (epoch, seq) in resume {
            state.resume(*epoch, *seq);
            state.acknowledge(|e| e.batch.epoch == *epoch && e.batch.seq <= *seq, false);
            state.ranges.retain(|d| d.epoch != *epoch || d.range.to > *seq);
        }
        state.taken = Taken::new(resume);
        state.sent = 0;
        state.in_flight = InFlight::default();
        state.connection = state.connection.wrapping_add(1);
        state.connected = true;
        state.kind = kind;
        state.next_connection_seq = 1;
        state.credit = Credit::default();
        state.figures.paused = false;
        state.figures.slow = false;
        state.probe = Probe::No;
        state.hung_up = false;
        for declared in &mut state.ranges {
            declared.told = false;
        }
        state.wake();
        let connection = Connection(state.connection);
        self.after_acks(&state);
        connection
    }

    /// Ends a connection: nothing goes out until the next [`Self::begin`].
    pub fn end(&self, connection: Connection) {
        let mut state = self.state.lock();
        if state.connection == connection.0 {
            state.connected = false;
            state.wake();
            // who waited for acknowledgements goes on over the disk
            self.room.notify_all();
        }
    }

    /// The next batch for this connection, if there is one and the peer may have it.
    pub fn next_to_send(&self, connection: Connection) -> Option<Outgoing> {
        let mut state = self.state.lock();
        if !state.connected || state.connection != connection.0 { None } else { state.next_to_send() }
    }

    /// Like [`Self::next_to_send`], waking the task when there may be one; ends after [`Self::hang_up`] or when another
    /// connection took over.
    pub fn poll_send(&self, connection: Connection, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let mut state = self.state.lock();
        if !state.connected || state.connection != connection.0 || state.hung_up {
            return Poll::Ready(None);
        }
        if let Some(outgoing) = state.next_to_send() {
            return Poll::Ready(Some(outgoing));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The peer has taken over every batch of `epoch` up to `seq`.
    pub fn ack(&self, connection: Connection, epoch: Epoch, seq: BatchSeq) {
        let mut state = self.state.lock();
        if state.connection != connection.0 {
            return;
        }
        // Nothing beyond the highest batch that ever went out can have been stored.
        if state.highest_sent(epoch).is_some_and(|highest| seq > highest) {
            state.figures.bad_acks = state.figures.bad_acks.saturating_add(1);
        }
        state.acknowledge(|e| e.batch.epoch == epoch && e.batch.seq <= seq, false);
        state.ranges.retain(|d| !(d.epoch == epoch && d.told && d.range.to <= seq));
        state.wake();
        self.after_acks(&state);
    }

    /// A plain peer has received what went out on this connection up to `seq`.
    pub fn ack_plain(&self, connection: Connection, seq: BatchSeq) {
        let mut state = self.state.lock();
        if state.connection != connection.0 {
            return;
        }
        if seq.0 >= state.next_connection_seq {
            state.figures.bad_acks = state.figures.bad_acks.saturating_add(1);
        }
        state.acknowledge(|e| e.connection_seq <= seq.0, true);
        // A plain peer cannot be told what is missing.
        state.ranges.clear();
        state.wake();
        self.after_acks(&state);
    }

    fn after_acks(&self, state: &State) {
        self.room.notify_all();
        self.work.notify_one();
        if state.is_drained() {
            self.drained.notify_waiters();
        }
    }

    /// How much may be in flight on the present connection.
    pub fn set_credit(&self, credit: Credit) {
        let mut state = self.state.lock();
        state.credit = credit;
        state.wake();
    }

    /// Ends the sending side of the present connection once nothing is left to say.
    pub fn hang_up(&self) {
        let mut state = self.state.lock();
        state.hung_up = true;
        state.wake();
    }

    /// Whether there is a connection to send on.
    pub fn is_connected(&self) -> bool {
        self.state.lock().connected
    }

    /// Gives up everything in memory; returns how many packets that was.
    pub fn abandon(&self, reason: DropReason) -> u64 {
        let mut state = self.state.lock();
        let before = state.figures.dropped();
        let entries = std::mem::take(&mut state.entries);
        state.disk.iter_mut().for_each(|disk| disk.to_log.clear());
        state.sent = 0;
        state.ever_sent = 0;
        state.in_flight = InFlight::default();
        for entry in entries.iter().filter(|entry| !entry.acked) {
            state.count_out(u64::from(entry.batch.packets), entry.cost);
            state.count_dropped(&entry.batch, reason);
        }
        self.after_acks(&state);
        state.figures.dropped().saturating_sub(before)
    }

    /// Resolves when nothing is in memory or on disk.
    pub async fn wait_drained(&self) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            // Registered before looking, so that an acknowledgement in between is not missed.
            notified.as_mut().enable();
            if self.is_drained() {
                return;
            }
            notified.await;
        }
    }

    /// Whether nothing is in memory or on disk.
    pub fn is_drained(&self) -> bool {
        self.state.lock().is_drained()
    }

    /// Epochs of which batches are in memory or on disk, oldest first.
    pub fn epochs(&self) -> Vec<Epoch> {
        let state = self.state.lock();
        let mut epochs: Vec<_> = state.entries.iter().filter(|e| !e.acked).map(|e| e.batch.epoch).collect();
        epochs.extend(state.disk.iter().flat_map(Disk::epochs));
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// All figures at one instant.
    pub fn snapshot(&self) -> BacklogSnapshot {
        let state = self.state.lock();
        let mut figures = state.figures.clone();
        figures.in_flight_batches = state.in_flight.batches;
        figures.connected = state.connected;
        figures.peer = state.kind;
        if let Some(disk) = &state.disk {
            disk.add_to(&mut figures);
        }
        figures
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn push(&mut self, batch: SealedBatch, logged: bool) {
        let cost = (batch.bytes.len() as u64).saturating_add(ENTRY_BYTES as u64);
        let f = &mut self.figures;
        f.in_memory_packets = f.in_memory_packets.saturating_add(u64::from(batch.packets));
        f.in_memory_bytes = f.in_memory_bytes.saturating_add(cost);
        f.in_memory_batches = f.in_memory_batches.saturating_add(1);
        // what has no key is never acknowledged: it stays, and is seen to stay
        let key = if self.relays { key_of(&batch.message()).ok() } else { None };
        let log = match &mut self.disk {
            _ if logged => Log::Written,
            Some(disk) if disk.wal => {
                disk.to_log.add(cost);
                Log::Waits
            }
            Some(_) | None => Log::No,
        };
        self.entries.push_back(Entry { batch, cost, connection_seq: 0, acked: false, key, log, sent_at: None });
        self.wake();
    }

    fn is_drained(&self) -> bool {
        self.figures.in_memory_batches == 0 && !self.disk.as_ref().is_some_and(Disk::is_behind)
    }

    /// The peer has this much of an epoch of an earlier process; this process may never have sent any of it.
    fn resume(&mut self, epoch: Epoch, seq: BatchSeq) {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.is_recovered(epoch)) else { return };
        disk.acknowledged(epoch, seq);
    }

    fn next_to_send(&mut self) -> Option<Outgoing> {
        while self.entries.get(self.sent).is_some_and(|entry| entry.acked) {
            self.sent = self.sent.saturating_add(1);
        }
        if self.figures.paused && self.probe != Probe::Allowed {
            return None;
        }
        let cost = self.entries.get(self.sent)?.cost;
        let full = self.in_flight.batches >= u64::from(self.credit.batches.max(1))
            || self.in_flight.bytes.saturating_add(cost) > self.credit.bytes;
        if full && self.in_flight.batches > 0 && self.probe != Probe::Allowed {
            return None;
        }
        let connection_seq = self.next_connection_seq;
        let entry = self.entries.get_mut(self.sent)?;
        entry.connection_seq = connection_seq;
        entry.sent_at = Some(Instant::now());
        let batch = entry.batch.clone();
        self.next_connection_seq = connection_seq.saturating_add(1);
        if self.probe == Probe::Allowed {
            self.probe = Probe::Sent;
        }
        self.in_flight.batches = self.in_flight.batches.saturating_add(1);
        self.in_flight.bytes = self.in_flight.bytes.saturating_add(cost);
        self.figures.sent_batches = self.figures.sent_batches.saturating_add(1);
        if self.sent < self.ever_sent {
            self.figures.resent_batches = self.figures.resent_batches.saturating_add(1);
        }
        self.sent = self.sent.saturating_add(1);
        self.ever_sent = self.ever_sent.max(self.sent);
        let elsewhere = self.elsewhere(batch.epoch, batch.seq);
        let ranges = self.ranges_before(batch.epoch, batch.seq);
        Some(Outgoing { batch, ranges, elsewhere, connection_seq: BatchSeq(connection_seq) })
    }

    fn ranges_before(&mut self, epoch: Epoch, seq: BatchSeq) -> Vec<DroppedRange> {
        self.ranges
            .iter_mut()
            .filter(|d| d.epoch == epoch && d.range.to < seq && !d.told)
            .take(RANGES_PER_BATCH)
            .map(|d| {
                d.told = true;
                d.range
            })
            .collect()
    }

    fn highest_sent(&self, epoch: Epoch) -> Option<BatchSeq> {
        let sent = self.entries.iter().take(self.ever_sent);
        sent.filter(|e| e.batch.epoch == epoch).map(|e| e.batch.seq).max()
    }

    /// Lets go of what `covers` says among what was sent (on this connection only, if so wanted).
    fn acknowledge(&mut self, covers: impl Fn(&Entry) -> bool, this_connection: bool) {
        let reach = if this_connection { self.sent } else { self.ever_sent };
        let (mut packets, mut bytes, mut batches) = (0_u64, 0_u64, 0_u64);
        let (now, latency) = (Instant::now(), &mut self.figures.ack_latency);
        for (i, entry) in self.entries.iter_mut().take(reach).enumerate() {
            if entry.acked || !covers(entry) {
                continue;
            }
            entry.acked = true;
            entry.sent_at.into_iter().for_each(|at| latency.take(now.saturating_duration_since(at)));
            if let Some(disk) = &mut self.disk {
                // a copy of it need not be written
                disk.to_log.settle(entry, Log::No);
                if !self.relays {
                    disk.acknowledged(entry.batch.epoch, entry.batch.seq);
                }
            }
            entry.batch.bytes = Bytes::new();
            packets = packets.saturating_add(u64::from(entry.batch.packets));
            bytes = bytes.saturating_add(entry.cost);
            batches = batches.saturating_add(1);
            if i < self.sent {
                self.in_flight.batches = self.in_flight.batches.saturating_sub(1);
                self.in_flight.bytes = self.in_flight.bytes.saturating_sub(entry.cost);
            }
        }
        let f = &mut self.figures;
        f.acked_packets = f.acked_packets.saturating_add(packets);
        f.acked_batches = f.acked_batches.saturating_add(batches);
        f.in_memory_packets = f.in_memory_packets.saturating_sub(packets);
        f.in_memory_bytes = f.in_memory_bytes.saturating_sub(bytes);
        f.in_memory_batches = f.in_memory_batches.saturating_sub(batches);
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.acked) {
            if let Some(disk) = &mut self.disk {
                disk.to_log.passed = disk.to_log.passed.saturating_sub(1);
                if self.relays {
                    disk.acknowledged(entry.batch.epoch, entry.batch.seq);
                }
            }
            self.sent = self.sent.saturating_sub(1);
            self.ever_sent = self.ever_sent.saturating_sub(1);
        }
    }

    fn give_up_oldest_unsent(&mut self, reason: DropReason) -> bool {
        // `ever_sent` is at most the window, so this shifts few entries.
        let Some(entry) = self.entries.remove(self.ever_sent) else {
            return false;
        };
        self.count_out(u64::from(entry.batch.packets), entry.cost);
        self.count_dropped(&entry.batch, reason);
        true
    }

    fn count_out(&mut self, packets: u64, cost: u64) {
        let f = &mut self.figures;
        f.in_memory_packets = f.in_memory_packets.saturating_sub(packets);
        f.in_memory_bytes = f.in_memory_bytes.saturating_sub(cost);
        f.in_memory_batches = f.in_memory_batches.saturating_sub(1);
    }

    fn count_dropped(&mut self, batch: &SealedBatch, reason: DropReason) {
        if self.is_withdrawn() {
            self.figures.offered_packets = self.figures.offered_packets.saturating_sub(u64::from(batch.packets));
            return;
        }
        let range = DroppedRange { from: batch.seq, to: batch.seq, packets: u64::from(batch.packets), reason };
        self.declare_dropped(batch.epoch, range);
    }

    fn declare_dropped(&mut self, epoch: Epoch, range: DroppedRange) {
        let DroppedRange { from, to, packets, reason } = range;
        if let Some(n) = self.figures.dropped_packets.get_mut(reason.index()) {
            *n = n.saturating_add(packets);
        }
        if self.relays {
            return;
        }
        let follows = |d: &&mut Declared| d.epoch == epoch && !d.told && d.range.reason == reason;
        match self.ranges.iter_mut().rev().find(follows) {
            Some(d) if d.range.to.0.saturating_add(1) == from.0 => {
                d.range.to = to;
                d.range.packets = d.range.packets.saturating_add(packets);
            }
            _ => self.ranges.push(Declared { epoch, range, told: false }),
        }
    }
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
