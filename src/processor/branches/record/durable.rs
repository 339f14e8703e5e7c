//! The record branch's dealings with the commit thread: groups, checkpoints, what is read again after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{Owned, Writer};
use crate::batch::{BatchSeq, BatchView, Epoch, PacketView, ViewLimits};
use crate::packet::Timestamp;
use crate::processor::commit::{Ask, BatchHead, Checkpoint, CommitError, Entry, Logged, Pending, Place};
use crate::processor::counts::Queued;
use crate::processor::data::Acks;
use crate::processor::shared::{Incoming, Job};
use crate::record::calls::CallFiles;
use crate::record::rotate::Rotating;
use crate::record::state::State;
use crate::record::unified::Unified;
use crate::record::{Packet, RecordError};
use crate::telemetry::clock;

/// A group is sent at this size even while the one before is not durable: half of what one hunter may have unacknowledged.
const GROUP_BATCHES: usize = 128;
const GROUP_BYTES: usize = 8 << 20;
/// A checkpoint is due after this long, if anything was stored.
const CHECKPOINT_EVERY: Duration = Duration::from_mins(1);
/// What an entry without a batch counts for.
const SMALL_ENTRY: u64 = 256;

/// Where the writer is.
#[derive(Debug, Default)]
pub(super) struct At {
    /// Bytes of batches in the group.
    bytes: usize,
    /// Groups sent.
    sent: u64,
    /// Groups that were seen to be durable.
    seen: u64,
    /// Bytes logged since the last checkpoint, and when it was asked for.
    logged: u64,
    checkpoint: Timestamp,
    /// Checkpoints asked for.
    checkpoints: u64,
    /// Closed calls whose records could not be written, as the last one says.
    unsaved: BTreeSet<String>,
    /// Nothing comes after the next one.
    clean: bool,
    /// The batch at hand has packets of calls.
    pub(super) has_calls: bool,
    /// The batch at hand is of an earlier process: its calls' files want it, the others have it.
    pub(super) again: bool,
    /// Of a batch of a predecessor's hunter: how many bytes of each packet its call gets.
    pub(super) kept: Vec<Option<usize>>,
}

/// How the writing ended.
pub(in crate::processor) enum End {
    /// The processor stops, and everything is stored.
    Done,
    /// The processor stops, and not everything is.
    GivenUp,
    /// The processor stops before it has begun: what an earlier one left is in the log for the next.
    Unfinished,
    /// The disk does not confirm what was written: these are to be written again, after those of the commit thread.
    Failed(Vec<Job>),
    /// The commit thread has ended before.
    Broken,
}

impl Writer {
    /// Before the first batch: what an earlier process stored and did not write, then a checkpoint.
    pub(super) fn begin(&mut self, now: Timestamp) {
        if let Some(u) = &mut self.out.unified {
            u.watch(self.line.announcer(Place::Unified));
        }
        if let Some(c) = &mut self.out.calls {
            c.watch(self.line.announcer(Place::Calls));
        }
        if let Some(r) = &mut self.out.rotating {
            r.watch(self.line.announcer(Place::Rotating));
        }
        // files know the time before anything is written to them or closed
        self.tick_files(now);
        self.read_log_again();
        if !self.given_up {
            self.at.checkpoint = now;
            self.send(true);
        }
        if !self.given_up {
            // a crash goes back to it
            let at = self.line.progress.wait(|at| at.checkpoints > 0 || self.is_late());
            self.given_up |= at.checkpoints == 0;
            self.look();
        }
        self.shared.begun.store(!self.given_up, Ordering::Release);
    }

    fn read_log_again(&mut self) {
        let again = self.line.again.clone();
        self.at.again = true;
        let (mut batches, mut troubles) = (0_u64, 0_u64);
        let read = again.read(&mut |entry, body| {
            if self.given_up || self.shared.stopping.load(Ordering::Acquire) {
                return Err(CommitError::Stopped);
            }
            match entry {
                Entry::Batch(head) => match BatchView::parse(body, &ViewLimits::default()) {
                    Ok(view) => {
                        batches = batches.saturating_add(1);
                        self.take_again(head, view);
                    }
                    Err(_) => troubles = troubles.saturating_add(1),
                },
                Entry::Gone(hunter) => self.calls.hunter_gone(&Arc::from(hunter)),
                Entry::Word(_) | Entry::Start | Entry::Names { .. } | Entry::Disowned { .. } | Entry::Commit { .. } => {}
            }
            Ok(())
        });
        self.at.again = false;
        match read {
            Ok(()) => {}
            // the log keeps it for the next start
            Err(CommitError::Stopped) => self.given_up = true,
            Err(e) => {
                tracing::error!(error = %e, "the commit log could not be read again; its call packets are not in their files");
                self.given_up = true;
            }
        }
        if troubles > 0 {
            tracing::error!(batches = troubles, "batches of the commit log make no sense; their call packets are lost");
        }
        if batches > 0 && !self.given_up {
            tracing::info!(batches, "call packets of the last process were written again");
        }
    }

    fn take_again(&mut self, head: BatchHead, view: BatchView) {
        let batch = Incoming {
            hunter: head.hunter.into(),
            interfaces: head.interfaces.into(),
            view,
            epoch: Epoch(head.epoch),
            // only for telling the predecessor's hunters from ours
            announced: head.kept.is_none().then_some(Epoch(head.epoch)),
            seq: BatchSeq(head.seq),
            acks: Arc::new(Acks::default()),
            received: Timestamp::from_nanos(head.received),
            missing: head.missing,
            queued: Queued::default(),
            room: None,
        };
        self.at.kept = head.kept.unwrap_or_default();
        self.at.kept.reverse();
        self.hear(&batch);
        self.write_batch(&batch);
        self.at.has_calls = false;
        self.at.kept.clear();
    }

    /// As an earlier process judged it: it knew of its copies, and what was asked for.
    pub(super) fn write_old_again(
        &mut self,
        batch: &Incoming,
        p: &PacketView<'_>,
        packet: &Packet<'_>,
        call_id: Option<&str>,
        media: bool,
    ) {
        let (Some(Some(keep)), Some(id)) = (self.at.kept.pop(), call_id) else { return };
        let packet = &Packet { data: packet.data.get(..keep).unwrap_or(packet.data), ..*packet };
        let call = Owned { call_id: id, sip: !media, phone_rule: "", holes: "", again: false };
        self.write_call(batch, &call, &mut p.matched_filter_ids(), packet);
    }

    /// Puts a batch that is written into the group; one that calls have a part of is logged.
    pub(super) fn group_batch(&mut self, batch: Incoming, dropped: u64, left_out: [u64; 2]) {
        let kept = std::mem::take(&mut self.at.kept);
        self.at.bytes = self.at.bytes.saturating_add(batch.view.bytes());
        let holes = self.out.calls.is_some() && (batch.missing > 0 || batch.view.dropped_ranges().len() > 0);
        if std::mem::take(&mut self.at.has_calls) || holes {
            let head = BatchHead {
                hunter: batch.hunter.to_string(),
                interfaces: batch.interfaces.to_vec(),
                epoch: batch.epoch.0,
                seq: batch.seq.0,
                received: batch.received.as_nanos(),
                missing: batch.missing,
                kept: batch.view.epoch().is_none().then_some(kept),
            };
            self.log(Entry::Batch(head), batch.view.message().clone(), batch.view.len() as u64);
        }
        self.group.batches.push(Pending { batch, dropped, left_out });
    }

    /// A hunter's end, in the order of its batches.
    pub(super) fn group_gone(&mut self, hunter: &Arc<str>) {
        if self.out.calls.is_some() {
            self.log(Entry::Gone(hunter.to_string()), Bytes::new(), 0);
        }
        self.group.gone.push((self.group.batches.len(), Arc::clone(hunter)));
    }

    /// What hunters said of their runs: the records of calls want it, and no packet says it again.
    fn group_words(&mut self) {
        if self.out.calls.is_none() {
            return;
        }
        let words = self.shared.losses.lock().take_words(!self.group.batches.is_empty());
        for word in words {
            self.log(Entry::Word(word), Bytes::new(), 0);
        }
    }

    fn log(&mut self, entry: Entry, body: Bytes, packets: u64) {
        self.at.logged = self.at.logged.saturating_add(SMALL_ENTRY).saturating_add(body.len() as u64);
        self.group.entries.push(Logged { entry, body, packets });
    }

    pub(super) fn is_group_full(&self) -> bool {
        self.group.batches.len().saturating_add(self.group.gone.len()) >= GROUP_BATCHES || self.at.bytes >= GROUP_BYTES
    }

    /// Sends the group when the one before is durable, or it is full.
    pub(super) fn send_group(&mut self, checkpoint: bool) {
        self.group_words();
        let nothing = self.group.batches.is_empty() && self.group.entries.is_empty();
        let waits = self.at.sent > self.at.seen && !self.is_group_full();
        if !checkpoint && (nothing || waits || self.given_up) {
            return;
        }
        let due = self.at.logged >= self.line.checkpoint_bytes || clock::wall().since(self.at.checkpoint) >= CHECKPOINT_EVERY;
        let running = self.at.checkpoints > self.line.progress.at().checkpoints;
        self.send(checkpoint || (due && !running));
    }

    /// Hands everything written to the kernel, and the group to the commit thread.
    fn send(&mut self, checkpoint: bool) {
        if !self.retry(|w| w.flush(checkpoint)) {
            return;
        }
        let number = self.at.sent.saturating_add(1);
        if let Some(c) = &mut self.out.calls {
            self.group.names.extend(c.take_names(number));
        }
        if !self.retry(|w| w.take_grown(number)) {
            return;
        }
        if checkpoint && !self.retry(Self::add_checkpoint) {
            return;
        }
        self.group.number = number;
        self.at.sent = number;
        self.at.bytes = 0;
        self.at.logged = self.at.logged.saturating_add(SMALL_ENTRY);
        let group = std::mem::take(&mut self.group);
        if !clock::send(&self.line.asks, Ask::Group(Box::new(group))) {
            self.given_up = true;
        }
    }

    /// Again and again, while the disk is full; false when the processor is stopping and cannot wait.
    pub(super) fn retry(&mut self, mut what: impl FnMut(&mut Self) -> Result<(), RecordError>) -> bool {
        let mut waited = false;
        while let Err(e) = what(self) {
            if !self.wait(&e) {
                return false;
            }
            waited = true;
        }
        if waited && self.shared.pause(false) {
            tracing::info!("writing works again; hunters go on");
        }
        true
    }

    fn flush(&mut self, calls: bool) -> Result<(), RecordError> {
        if let Some(u) = &mut self.out.unified {
            u.flush()?;
        }
        if let Some(r) = &mut self.out.rotating {
            r.commit()?;
        }
        match &mut self.out.calls {
            // they stand behind the log
            Some(c) if calls => c.commit(),
            Some(_) | None => Ok(()),
        }
    }

    fn take_grown(&mut self, number: u64) -> Result<(), RecordError> {
        let mut grown = Vec::new();
        let unified = self.out.unified.as_mut().map_or(Ok(None), |u| u.take_grown(&mut grown));
        self.group.grown.extend(grown.drain(..).map(|g| (Place::Unified, g)));
        self.group.dirs.extend(unified?);
        let rotating = self.out.rotating.as_mut().map_or(Ok(None), |r| r.take_grown(number, &mut grown));
        self.group.grown.extend(grown.drain(..).map(|g| (Place::Rotating, g)));
        self.group.dirs.extend(rotating?);
        Ok(())
    }

    fn add_checkpoint(&mut self) -> Result<(), RecordError> {
        let (files, entries) = self.out.calls.as_mut().map_or(Ok(Default::default()), CallFiles::take_written)?;
        let unsaved: BTreeSet<String> = self.unsaved.iter().map(|c| String::from_utf8_lossy(&c.call_id).into_owned()).collect();
        let changes = self.at.checkpoints > 0 && !self.line.progress.at().whole;
        let (mut calls, gone) = self.out.calls.as_mut().map(CallFiles::take_changes).unwrap_or_default();
        let (mut memory, forgotten) = self.calls.take_changes(&unsaved, &self.at.unsaved);
        if !changes {
            calls = self.out.calls.as_ref().map(CallFiles::snapshot).unwrap_or_default();
            memory = self.calls.memory(&unsaved);
        }
        let state = State {
            calls,
            gone: if changes { gone } else { Vec::new() },
            forgotten: if changes { forgotten } else { Vec::new() },
            unified: self.out.unified.as_ref().map(Unified::lengths).unwrap_or_default(),
            rotating: self.out.rotating.as_ref().map(Rotating::lengths).unwrap_or_default(),
            memory,
            losses: self.shared.losses.lock().snapshot(),
            places: self.line.places.clone(),
            clean: self.at.clean,
            ..State::default()
        };
        self.at.unsaved = unsaved;
        self.group.checkpoint = Some(Checkpoint { state, changes, files: files.into_iter().collect(), entries });
        (self.at.logged, self.at.checkpoint) = (0, clock::wall());
        self.at.checkpoints = self.at.checkpoints.saturating_add(1);
        Ok(())
    }

    /// Looks how far the commit thread is: new call files are made, complete rotating files get their names.
    pub(super) fn look(&mut self) {
        let at = self.line.progress.at();
        self.given_up |= at.failed || at.ended;
        if at.durable <= self.at.seen || self.given_up {
            return;
        }
        self.at.seen = at.durable;
        // packets are safe in the log, but what cannot be written to its file must not pile up there
        let made = self.retry(|w| w.out.calls.as_mut().map_or(Ok(()), |c| c.durable(at.durable)));
        if made {
            self.retry(|w| w.out.rotating.as_mut().map_or(Ok(()), |r| r.durable(at.durable)));
        }
    }

    /// The last of everything.
    fn stop(&mut self) {
        self.tick(clock::wall());
        self.retry(|w| {
            w.out.unified.as_mut().map_or(Ok(()), Unified::finish)?;
            w.out.rotating.as_mut().map_or(Ok(()), Rotating::close)
        });
    }

    /// The records of calls that go on; every file of theirs is there.
    fn save_rest(&mut self) {
        if self.retry(|w| w.out.calls.as_mut().map_or(Ok(()), CallFiles::commit)) {
            for id in self.calls.rest() {
                if self.is_late() {
                    return;
                }
                self.save_record(&id);
            }
        }
    }

    /// Whether there is no time left for what a start can do as well.
    fn is_late(&self) -> bool {
        self.shared.late.load(Ordering::Acquire)
    }

    /// Writes everything, and waits until it is stored.
    pub(super) fn end(mut self) -> End {
        if !self.given_up {
            self.stop();
        }
        if !self.given_up {
            // rotating files get their names between the two, and new call files are made
            self.send(false);
            let number = self.at.sent;
            self.line.progress.wait(|at| at.durable >= number);
            self.look();
        }
        if !self.given_up && !self.is_late() {
            self.save_rest();
        }
        if !self.given_up {
            // the last goes on from the one before
            let asked = self.at.checkpoints;
            self.line.progress.wait(|at| at.checkpoints >= asked);
            if !self.is_late() {
                self.at.clean = true;
                self.send(true);
            }
        }
        let at = self.line.progress.at();
        if at.ended {
            return End::Broken;
        }
        let _sent = clock::send(&self.line.asks, Ask::End);
        if at.failed {
            let mut left = std::mem::take(&mut self.group).into_jobs();
            left.append(&mut self.left);
            return End::Failed(left);
        }
        self.line.progress.wait_ended();
        match self.given_up {
            false => End::Done,
            true if self.shared.begun.load(Ordering::Acquire) => End::GivenUp,
            true => End::Unfinished,
        }
    }
}
