//! The part of a backlog that is on its way to the disk, on it, or on its way back.
//!
//! ```text
//!             nothing behind, room            wal: a copy (`log`)
//!   offer ──────────────────────▶ entries (memory) ───append──▶ spool
//!     │                              ▲    ▲                     ▲  │
//!     │                              │    └ much room           │  │
//!     └── otherwise ─────────────────┼─────▶ staged ────append──┘  │
//!                                    └── feed, as there is room ◀──┘ read
//! ```
//! Once anything is behind the memory, new batches go behind it: order is kept. The spool's thread is the only one that takes from
//! `staged`, and it says in one step what it did, so that at every instant
//! `offered + recovered = acked + in memory + on disk + Σ dropped by reason`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::log::{Log, ToLog};
use super::{Backlog, ENTRY_BYTES, Entry, Offer, State, WhenFull};
use crate::batch::{BatchSeq, Epoch, SealedBatch};
use crate::reason::DropReason;
use crate::spool::{Lost, Stats, TOGETHER, Tally};
use crate::telemetry::clock::{self, Moment};

/// So long a batch waits at most for others to be written with.
const GATHER: Duration = Duration::from_millis(2);
/// The share of the memory that holds what is staged.
const STAGED_SHARE: u64 = 4;

/// Where batches live until they are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// In memory.
    #[default]
    Memory,
    /// In memory, and on disk what does not fit; all of it at a stop.
    Spill,
    /// On disk, every one, beside memory.
    Wal,
}

/// What a backlog with a spool knows beyond its memory.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) wal: bool,
    /// Of what is in memory.
    pub(super) to_log: ToLog,
    /// What is in memory here alone, behind that.
    pub(super) staged: VecDeque<ToWrite>,
    staged_bytes: u64,
    pub(super) staged_tally: Tally,
    /// On disk and not in memory.
    unread: Tally,
    /// Of these, what the spool takes for read, since it was in memory when the hunter ended.
    kept: Tally,
    bytes: u64,
    oldest_ns: i64,
    io_errors: u64,
    /// Epochs of earlier processes.
    recovered: Vec<Epoch>,
    /// Epochs of which something is on disk alone.
    epochs: Vec<Epoch>,
    /// Acknowledged so far.
    pub(super) acked: BTreeMap<Epoch, BatchSeq>,
    /// Acknowledged, and not yet told to the spool.
    acks: BTreeMap<Epoch, BatchSeq>,
    /// Epochs whose newest batch is in memory alone.
    in_memory_only: Vec<Epoch>,
    /// The last batch that was written, and the last that the disk had confirmed when it was asked.
    pub(super) written: Option<(Epoch, BatchSeq)>,
    /// The same of each epoch of this process.
    pub(super) logged: BTreeMap<Epoch, BatchSeq>,
    pub(super) synced: Option<(Epoch, BatchSeq)>,
    /// Somebody waits for it to confirm this one.
    pub(super) wanted: Option<(Epoch, BatchSeq)>,
    /// Why the spool does not take what is staged, if it does not.
    trouble: Option<DropReason>,
    pub(super) closing: bool,
}

/// A batch that is to be written.
#[derive(Clone, Debug)]
pub(in crate::uplink) struct ToWrite {
    pub(in crate::uplink) batch: SealedBatch,
    /// It is among the entries, and stays there.
    pub(in crate::uplink) in_memory: bool,
    /// Batches before it are in memory alone.
    pub(in crate::uplink) follows_memory: bool,
}

fn cost(batch: &SealedBatch) -> u64 {
    (batch.bytes.len() as u64).saturating_add(ENTRY_BYTES as u64)
}

fn tally(batch: &SealedBatch) -> Tally {
    Tally { batches: 1, packets: u64::from(batch.packets) }
}

/// Of an epoch it is known up to this batch, or further.
pub(super) fn raise(known: &mut BTreeMap<Epoch, BatchSeq>, epoch: Epoch, seq: BatchSeq) {
    let last = known.entry(epoch).or_default();
    *last = seq.max(*last);
}

/// Of these, which stand behind `head`, those that are written with it.
pub(super) fn together<'a>(head: &SealedBatch, behind: impl Iterator<Item = &'a SealedBatch>) -> Vec<SealedBatch> {
    let mut bytes = cost(head);
    let fits = |b: &&SealedBatch| {
        bytes = bytes.saturating_add(cost(b));
        b.epoch == head.epoch && bytes <= TOGETHER as u64
    };
    behind.take_while(fits).cloned().collect()
}

/// What the spool's thread finds to do.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a task of its own")]
pub(in crate::uplink) struct Todo {
    /// Acknowledged since.
    pub(in crate::uplink) acks: Vec<(Epoch, BatchSeq)>,
    /// The next batch to write.
    pub(in crate::uplink) head: Option<ToWrite>,
    /// Those behind it that may be written with it.
    pub(in crate::uplink) behind: Vec<SealedBatch>,
    /// There is room in memory.
    pub(in crate::uplink) room: bool,
    /// So much that what is staged goes there, and not to the disk.
    pub(in crate::uplink) free: bool,
    /// Something is on disk alone.
    pub(in crate::uplink) unread: bool,
    /// The hunter ends.
    pub(in crate::uplink) closing: bool,
    /// The disk is to confirm what was written.
    pub(in crate::uplink) sync: bool,
}

/// What became of the batch that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::uplink) enum Head {
    /// Written.
    Written,
    /// Not written: there is room for it in memory; or it is there, and the spool will never take it.
    Skipped,
    /// The spool does not take it now.
    Refused(DropReason),
    /// The spool will never take it.
    Dropped(DropReason),
}

/// What became of a batch in memory when the hunter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::uplink) enum Kept {
    /// It was on disk before.
    Logged,
    /// It is now.
    Written,
    /// It is given up.
    Dropped(DropReason),
}

/// What the spool's thread did in one step.
#[derive(Debug, Default)]
pub(in crate::uplink) struct Done {
    pub(in crate::uplink) head: Option<Head>,
    /// How many of those behind it were written with it.
    pub(in crate::uplink) together: usize,
    /// Read from disk.
    pub(in crate::uplink) fed: Option<SealedBatch>,
    pub(in crate::uplink) lost: Vec<Lost>,
    /// Segments that were given up: copies of what is in memory went with them.
    pub(in crate::uplink) given_way: Vec<(Epoch, BatchSeq)>,
    /// Acknowledged without having been read.
    pub(in crate::uplink) spared: Tally,
    /// Whether the disk confirmed everything that was written, if it was asked.
    pub(in crate::uplink) synced: Option<bool>,
    pub(in crate::uplink) stats: Stats,
    pub(in crate::uplink) epochs: Vec<Epoch>,
}

impl Backlog {
    /// Whether there is a spool: then nothing is given up at a stop.
    pub fn is_spooled(&self) -> bool {
        self.state.lock().disk.is_some()
    }

    /// What the spool found at the start; before the first [`Self::offer`].
    pub(in crate::uplink) fn recover(&self, found: Stats, epochs: Vec<Epoch>) {
        let mut state = self.state.lock();
        state.figures.recovered_packets = found.unread.packets;
        if let Some(disk) = &mut state.disk {
            disk.recovered.clone_from(&epochs);
            disk.publish(found, epochs);
        }
    }

    /// Waits until the spool's thread has something to do, `wait` at most; `stuck` when the spool takes nothing.
    pub(in crate::uplink) fn todo(&self, wait: Duration, stuck: bool) -> Todo {
        let mut state = self.state.lock();
        if state.todo(&self.config, stuck).is_idle(stuck) {
            clock::wait(&self.work, &mut state, wait);
        }
        let mut todo = state.todo(&self.config, stuck);
        todo.behind = state.take_in_hand(todo.head.as_ref());
        state.disk.iter_mut().for_each(|disk| disk.acks.clear());
        todo
    }

    /// Waits a moment for more to write, where there is little: a long write costs hardly more than a short one, and what is
    /// acknowledged meanwhile needs none.
    pub(in crate::uplink) fn gather(&self) {
        let mut state = self.state.lock();
        let began = Moment::now();
        while state.gathers() {
            let left = GATHER.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            clock::wait(&self.work, &mut state, left);
        }
    }

    /// Takes over what the spool's thread did.
    pub(in crate::uplink) fn done(&self, done: Done) {
        let mut state = self.state.lock();
        for head in done.head.into_iter().chain(std::iter::repeat_n(Head::Written, done.together)) {
            state.settle(head);
        }
        for lost in done.lost {
            state.declare_dropped(lost.epoch, lost.range);
        }
        for (epoch, through) in done.given_way {
            let of_it = |e: &&mut Entry| e.batch.epoch == epoch && e.batch.seq <= through;
            state.entries.iter_mut().filter(of_it).for_each(Entry::leaves_the_disk);
        }
        let f = &mut state.figures;
        f.acked_packets = f.acked_packets.saturating_add(done.spared.packets);
        f.acked_batches = f.acked_batches.saturating_add(done.spared.batches);
        if let Some(batch) = done.fed {
            state.push(batch, true);
        }
        if let Some(disk) = &mut state.disk {
            match done.synced {
                Some(true) => disk.synced = disk.written,
                // asked again by whoever waits
                Some(false) => disk.wanted = None,
                None => {}
            }
            disk.publish(done.stats, done.epochs);
        }
        self.after_acks(&state);
    }

    /// Ends the spool's thread once all that can be is on disk. What is in memory only comes first, since it is older.
    pub fn close_spool(&self) {
        let mut state = self.state.lock();
        if let Some(disk) = &mut state.disk {
            disk.closing = true;
        }
        self.work.notify_all();
    }

    /// What is in memory and not acknowledged, in order, with whether it is on disk as far as is known here; memory is empty afterwards.
    /// [`Self::kept`] says what became of each.
    pub(in crate::uplink) fn take_memory(&self) -> Vec<(SealedBatch, bool)> {
        let mut state = self.state.lock();
        let entries = std::mem::take(&mut state.entries);
        (state.sent, state.ever_sent, state.in_flight) = (0, 0, super::InFlight::default());
        state.disk.iter_mut().for_each(|disk| disk.to_log.clear());
        entries.into_iter().filter(|e| !e.acked).map(|e| (e.batch, e.log == Log::Written)).collect()
    }

    /// What became of a batch of [`Self::take_memory`], and the spool's figures after it.
    pub(in crate::uplink) fn kept(&self, batch: &SealedBatch, kept: Kept, figures: Stats) {
        let mut state = self.state.lock();
        state.count_out(u64::from(batch.packets), cost(batch));
        if let Kept::Dropped(reason) = kept {
            state.count_dropped(batch, reason);
        }
        let Some(disk) = &mut state.disk else { return };
        if kept == Kept::Logged {
            // the spool takes it for read
            disk.kept = disk.kept.plus(tally(batch));
        }
        if matches!(kept, Kept::Logged | Kept::Written) {
            raise(&mut disk.logged, batch.epoch, batch.seq);
        }
        let epochs = std::mem::take(&mut disk.epochs);
        disk.publish(figures, epochs);
    }

    /// A batch that was [kept](Self::kept) since it was on disk is there no more: what came behind it has its room.
    pub(in crate::uplink) fn made_way(&self, batch: &SealedBatch) {
        let mut state = self.state.lock();
        state.count_dropped(batch, DropReason::SpoolFull);
        if let Some(disk) = &mut state.disk {
            (disk.kept, disk.unread) = (disk.kept.minus(tally(batch)), disk.unread.minus(tally(batch)));
        }
    }

    /// Whether whoever offers, and can wait, waits for the peer to acknowledge: quicker than the way over the disk and back.
    pub(super) fn waits_for_acks(&self, state: &State, has_room: bool) -> bool {
        let slow = state.disk.as_ref().is_some_and(|disk| !has_room || disk.is_behind());
        let can_wait = self.config.when_full == WhenFull::Block && !state.relays;
        slow && can_wait && state.connected && !state.figures.paused
    }

    pub(super) fn offer_spooled(&self, state: &mut State, batch: SealedBatch) -> Offer {
        let has_room = self.has_room(state, cost(&batch));
        if self.waits_for_acks(state, has_room) {
            return Offer::Full(batch);
        }
        let Some(disk) = &mut state.disk else { return Offer::Full(batch) };
        let has_stage_room = disk.has_stage_room(cost(&batch), self.config.stage_bytes());
        let to_memory = has_room && !disk.is_behind();
        if !to_memory && !has_stage_room && self.config.when_full == WhenFull::Block {
            return Offer::Full(batch);
        }
        let f = &mut state.figures;
        f.offered_packets = f.offered_packets.saturating_add(u64::from(batch.packets));
        if to_memory {
            disk.goes_to_memory(batch.epoch);
            state.push(batch, false);
        } else if has_stage_room {
            disk.stage(batch);
        } else {
            let reason = disk.trouble.unwrap_or(DropReason::MemFull);
            state.count_dropped(&batch, reason);
        }
        if state.disk.as_ref().is_some_and(Disk::has_news) {
            self.work.notify_one();
        }
        Offer::Taken
    }
}

impl super::BacklogConfig {
    /// Bytes that may be staged.
    pub(super) fn stage_bytes(&self) -> u64 {
        self.max_bytes as u64 / STAGED_SHARE
    }

    /// Bytes that may wait for acknowledgement.
    pub(super) fn entry_bytes(&self) -> u64 {
        let all = self.max_bytes as u64;
        if self.durability == Durability::Memory { all } else { all.saturating_sub(self.stage_bytes()) }
    }
}

impl Todo {
    fn is_idle(&self, stuck: bool) -> bool {
        let writes = self.head.as_ref().is_some_and(|head| !stuck || (self.free && !head.in_memory));
        let reads = self.room && self.unread;
        let acks = !self.acks.is_empty();
        !(acks || writes || reads || self.sync || self.closing)
    }
}

impl Disk {
    pub(super) fn new(durability: Durability) -> Option<Self> {
        (durability != Durability::Memory).then(|| Self { wal: durability == Durability::Wal, ..Self::default() })
    }

    /// Whether anything is behind the memory.
    pub(super) fn is_behind(&self) -> bool {
        !self.staged.is_empty() || self.unread.packets > 0
    }

    fn has_stage_room(&self, cost: u64, stage_bytes: u64) -> bool {
        self.staged.is_empty() || self.staged_bytes.saturating_add(cost) <= stage_bytes
    }

    /// Whether a batch would be taken, `room` saying whether there is some in memory.
    pub(super) fn takes(&self, cost: u64, room: bool, stage_bytes: u64) -> bool {
        (room && !self.is_behind()) || self.has_stage_room(cost, stage_bytes)
    }

    pub(super) fn acknowledged(&mut self, epoch: Epoch, seq: BatchSeq) {
        raise(&mut self.acked, epoch, seq);
        raise(&mut self.acks, epoch, seq);
    }

    /// Those behind the head that are like it, as many as are written at once.
    pub(super) fn behind_head(&self) -> Vec<SealedBatch> {
        let Some(head) = self.staged.front() else { return Vec::new() };
        together(&head.batch, self.staged.iter().skip(1).take_while(|s| !s.follows_memory).map(|s| &s.batch))
    }

    /// Whether the spool's thread is to hear of one more batch. It need not while it is busy, gathers more, or waits for a disk that refuses.
    fn has_news(&self) -> bool {
        let (batches, bytes) = self.to_write();
        batches <= 1 || (self.trouble.is_none() && bytes >= TOGETHER as u64)
    }

    /// A batch of it is in memory, and perhaps nowhere else: what is written of it next begins a file, so that this one may still be written
    /// before. With `wal` it is.
    fn goes_to_memory(&mut self, epoch: Epoch) {
        if self.wal {
            return;
        }
        match self.staged.iter_mut().find(|s| s.batch.epoch == epoch) {
            Some(next) => next.follows_memory = true,
            None if self.in_memory_only.contains(&epoch) => {}
            None => self.in_memory_only.push(epoch),
        }
    }

    /// Batches and bytes that are to be written.
    fn to_write(&self) -> (u64, u64) {
        let staged = self.staged.len() as u64;
        (self.to_log.batches.saturating_add(staged), self.to_log.bytes.saturating_add(self.staged_bytes))
    }

    pub(super) fn is_recovered(&self, epoch: Epoch) -> bool {
        self.recovered.contains(&epoch)
    }

    /// Epochs of which something is not in memory.
    pub(super) fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.epochs.iter().copied().chain(self.staged.iter().map(|s| s.batch.epoch))
    }

    /// Adds what is here to the figures of the memory.
    pub(super) fn add_to(&self, f: &mut super::BacklogSnapshot) {
        f.in_memory_packets = f.in_memory_packets.saturating_add(self.staged_tally.packets);
        f.in_memory_batches = f.in_memory_batches.saturating_add(self.staged_tally.batches);
        f.in_memory_bytes = f.in_memory_bytes.saturating_add(self.staged_bytes);
        f.staged_batches = self.to_write().0;
        f.on_disk_packets = self.unread.packets;
        f.on_disk_batches = self.unread.batches;
        f.spool_bytes = self.bytes;
        f.oldest_ns = if self.unread.packets > 0 { self.oldest_ns } else { 0 };
        f.spool_errors = self.io_errors;
    }

    fn stage(&mut self, batch: SealedBatch) {
        let before = self.in_memory_only.len();
        self.in_memory_only.retain(|epoch| *epoch != batch.epoch);
        let staged = ToWrite { batch, in_memory: false, follows_memory: self.in_memory_only.len() < before };
        self.staged_bytes = self.staged_bytes.saturating_add(cost(&staged.batch));
        self.staged_tally = self.staged_tally.plus(tally(&staged.batch));
        self.staged.push_back(staged);
    }

    pub(super) fn note_written(&mut self, epoch: Epoch, seq: BatchSeq) {
        self.trouble = None;
        self.written = Some((epoch, seq));
        self.logged.insert(epoch, seq);
    }

    fn publish(&mut self, stats: Stats, epochs: Vec<Epoch>) {
        (self.unread, self.bytes, self.io_errors) = (stats.unread.plus(self.kept), stats.bytes, stats.io_errors);
        self.oldest_ns = stats.oldest_ns;
        self.epochs = epochs;
    }
}

impl State {
    fn todo(&self, config: &super::BacklogConfig, stuck: bool) -> Todo {
        let Some(disk) = &self.disk else { return Todo { closing: true, ..Todo::default() } };
        let f = &self.figures;
        let batches = f.in_memory_batches == 0 || f.in_memory_batches < config.max_batches as u64;
        let room = batches && f.in_memory_bytes < config.entry_bytes();
        let unread = disk.unread.packets > 0;
        // not for each batch that leaves: the next that is written may have to begin a file
        let much = stuck || f.in_memory_bytes <= config.entry_bytes() / 2;
        let free = room && much && !unread;
        let staged = || disk.staged.front().cloned();
        let head = if free { staged().or_else(|| self.first_to_log()) } else { self.first_to_log().or_else(staged) };
        Todo {
            acks: disk.acks.iter().map(|(epoch, seq)| (*epoch, *seq)).collect(),
            head,
            behind: Vec::new(),
            room,
            free,
            unread,
            closing: disk.closing,
            sync: self.sync_is_wanted(),
        }
    }

    /// Whether there is so little to write that more may be waited for.
    fn gathers(&self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let (batches, bytes) = disk.to_write();
        let little = batches > 0 && bytes < TOGETHER as u64;
        little && disk.unread.packets == 0 && !disk.closing && !self.sync_is_wanted()
    }

    /// The batch at the head of what is to be written was, or what else became of it.
    fn settle(&mut self, head: Head) {
        let Some(disk) = &mut self.disk else { return };
        if let Head::Refused(reason) = head {
            disk.trouble = Some(reason);
            return;
        }
        if let Some((epoch, seq)) = disk.to_log.in_hand.pop_front() {
            self.settle_logged(epoch, seq, head == Head::Written);
            return;
        }
        let Some(ToWrite { batch, .. }) = disk.staged.pop_front() else { return };
        disk.staged_bytes = disk.staged_bytes.saturating_sub(cost(&batch));
        disk.staged_tally = disk.staged_tally.minus(tally(&batch));
        match head {
            Head::Written => disk.note_written(batch.epoch, batch.seq),
            Head::Refused(_) => {}
            Head::Skipped => {
                disk.goes_to_memory(batch.epoch);
                self.push(batch, false);
            }
            Head::Dropped(reason) => self.count_dropped(&batch, reason),
        }
    }
}
