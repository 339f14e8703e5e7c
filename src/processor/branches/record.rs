//! The record branch: every packet into every file it belongs to, then the acknowledgement. Runs on a thread of its own, since disks block.
//!
//! ```text
//! queue ─▶ take several batches ─▶ unified · per call · rotating ─▶ a group for the commit thread, which acknowledges them all
//! ```
//! A full disk pauses the hunters and is tried again with the same packet; nothing is acknowledged that is not stored, and a
//! record is never written in part. `durable` is the side that deals with the commit thread.

mod durable;
mod tend;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

pub(in crate::processor) use durable::End;

use super::calls::{Calls, Owned};
use super::old::{Judged, OldHunters};
use super::story::parties;
use crate::batch::{ELSEWHERE, PacketView};
use crate::packet::{Frame, InterfaceId, Timestamp};
use crate::processor::commit::{Group, Line};
use crate::processor::losses::{News, PENDING, UNDECLARED};
use crate::processor::roster::Hunter;
use crate::processor::shared::{Incoming, Job, OpenFiles, Shared};
use crate::record::calls::{CallFiles, ClosedCall, Part, Written};
use crate::record::json::CallRecord;
use crate::record::losses::{Gap, HunterLosses};
use crate::record::name::Parties;
use crate::record::retain;
use crate::record::rotate::Rotating;
use crate::record::state::CallMemory;
use crate::record::unified::Unified;
use crate::record::{Origin, Packet, RecordError};
use crate::telemetry::clock;
use crate::voip::expiry::CallTimes;

/// A queue without work is left this often to serve timers.
const TICK: Duration = Duration::from_millis(100);
/// How long an empty queue is left alone, and one that was empty so many times in a row.
const IDLE: Duration = Duration::from_millis(1);
const LONG_IDLE: (u32, Duration) = (100, Duration::from_millis(10));
/// Old files are looked for this often.
const SWEEP: Duration = Duration::from_mins(1);
/// Records kept because they could not be written; with so many, calls that end wait for the disk.
const UNSAVED: usize = 256;
/// Time per tick for calls of an earlier process, for looking whose files and records are due, and for records that say something else now; what is
/// left is done in the next.
const SHARE: Duration = Duration::from_millis(50);

/// The files a processor writes.
pub struct Outputs {
    /// `-w`.
    pub unified: Option<Unified>,
    /// Per call.
    pub calls: Option<CallFiles>,
    /// Rotating, for packets of no call.
    pub rotating: Option<Rotating>,
    /// Calls whose files are continued.
    pub memory: Vec<CallMemory>,
    /// What hunters had lost, or had not sent yet.
    pub losses: Vec<HunterLosses>,
    /// When a call is over whose end nobody saw.
    pub times: CallTimes,
    /// Files stay open this long after a call's end (packet time).
    pub grace: Duration,
    /// Closed call files older than this are deleted; zero: never.
    pub retain_age: Duration,
}

struct Writer {
    shared: Arc<Shared>,
    out: Outputs,
    calls: Calls,
    old: OldHunters,
    /// A packet may be cut into the pcapng comment only with its ids joined; joined once per change.
    filters: String,
    said: HashSet<String>,
    /// A file could not take the packet at hand.
    refused: bool,
    swept: Timestamp,
    /// Stopping on a full disk, or the disk confirms nothing: what is not committed is left to the hunters, or written again.
    given_up: bool,
    /// What was not taken when it gave up.
    left: Vec<Job>,
    /// Closed calls whose last record could not be written; tried again.
    unsaved: VecDeque<ClosedCall>,
    /// Closed calls whose records are to be written again.
    stale: BTreeSet<Arc<str>>,
    line: Line,
    /// What goes to the commit thread next.
    group: Group,
    at: durable::At,
}

/// Takes `first`, then the queue, until that is closed and empty; then stops gracefully.
pub(in crate::processor) fn run(
    shared: Arc<Shared>,
    mut out: Outputs,
    first: Vec<Job>,
    jobs: &mut Receiver<Job>,
    line: Line,
) -> End {
    let mut calls = Calls::new(Arc::clone(&shared.losses), out.times);
    calls.restore(std::mem::take(&mut out.memory));
    shared.losses.lock().restore(std::mem::take(&mut out.losses));
    let mut w = Writer {
        shared,
        out,
        calls,
        old: OldHunters::default(),
        filters: String::new(),
        said: HashSet::new(),
        refused: false,
        swept: Timestamp::MIN,
        given_up: false,
        left: Vec::new(),
        unsaved: VecDeque::new(),
        stale: BTreeSet::new(),
        line,
        group: Group::default(),
        at: durable::At::default(),
    };
    let mut next_tick = clock::wall();
    w.begin(next_tick);
    let mut first = VecDeque::from(first);
    let mut idle = 0_u32;
    while !w.given_up {
        let mut next = || first.pop_front().map_or_else(|| jobs.try_recv(), Ok);
        let mut job = match next() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) if !w.shared.stopping.load(Ordering::Acquire) => {
                idle = idle.saturating_add(1);
                clock::pause(if idle > LONG_IDLE.0 { LONG_IDLE.1 } else { IDLE });
                None
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        };
        while let Some(j) = job {
            idle = 0;
            w.take(j);
            job = if w.given_up || w.is_group_full() { None } else { next().ok() };
        }
        w.look();
        w.send_group(false);
        let now = clock::wall();
        if now >= next_tick {
            next_tick = now.saturating_add(TICK);
            w.shared.note_alive();
            w.tick(now);
        }
    }
    w.left.extend(first);
    w.end()
}

impl Writer {
    fn take(&mut self, job: Job) {
        match job {
            Job::Batch(batch) => {
                self.hear(&batch);
                let dropped = self.write_batch(&batch);
                let left_out = self.old.take_left_out();
                if self.given_up {
                    self.left.push(Job::Batch(batch));
                } else {
                    self.group_batch(*batch, dropped, [left_out.doubled, left_out.unwanted]);
                }
            }
            Job::Stopping { hunter } => {
                tracing::info!(%hunter, "hunter stops");
                self.calls.hunter_gone(&hunter);
                self.group_gone(&hunter);
            }
        }
    }

    /// Something came. What does not, or comes after all, stands in the records of the calls that its hunter had then.
    fn hear(&mut self, batch: &Incoming) {
        let times = || batch.view.packets().map(|p| p.ts());
        let newest = times().max();
        self.calls.heard(&batch.hunter, newest, clock::wall());
        let Some((until, last)) = times().next().zip(newest) else { return };
        let (hunter, epoch) = (&batch.hunter, batch.epoch);
        let mut losses = self.shared.losses.lock();
        let mut missing = batch.missing;
        let (given_up, elsewhere): (Vec<_>, Vec<_>) = batch.view.dropped_ranges().partition(|range| range.reason != ELSEWHERE);
        for range in given_up {
            missing = missing.saturating_sub(range.packets);
            if losses.is_declared_first(hunter, epoch, (range.from, range.to)) {
                losses.missing(hunter, epoch, range.reason, range.packets, until, None);
            }
        }
        let first = batch.view.first_packet_index();
        let other_ways = batch.view.is_passed_on() || self.shared.below.lock().iter().next().is_some();
        if !elsewhere.is_empty() && !other_ways {
            losses.missing(hunter, epoch, ELSEWHERE, missing, until, None);
        } else if missing > 0 {
            let gap = Gap { epoch: epoch.0, first: first.saturating_sub(batch.missing), end: first };
            let reason = if other_ways { PENDING } else { UNDECLARED };
            losses.missing(hunter, epoch, reason, missing, until, Some(gap));
        }
        let filled = losses.came(hunter, epoch, last, first, batch.view.len() as u64);
        // a restart must know it, too
        self.at.has_calls |= filled && self.out.calls.is_some();
    }

    /// Writes the records again that say something else now.
    fn hear_of_losses(&mut self) {
        let news = self.shared.losses.lock().take_news();
        if !news.is_empty() {
            self.stale.extend(self.calls.touched(&news));
        }
        for (stems, hole) in news.iter().filter_map(News::filled) {
            for stem in stems {
                let Some(files) = &self.out.calls else { continue };
                if let Err(e) = CallRecord::fill(files.dir(), stem, &hole) {
                    self.say(&e, "a call's record still says that packets are missing that have come");
                }
            }
        }
        let began = clock::Moment::now();
        while let Some(id) = self.stale.pop_first() {
            if self.calls.is_closed(&id) {
                // no log entry and no checkpoint stands behind what is written now: a loss of power may not tear it
                self.close_call(&id, true);
            }
            if began.elapsed() >= SHARE {
                break;
            }
        }
    }

    /// Writes a batch; how many of its packets no file can take.
    fn write_batch(&mut self, batch: &Incoming) -> u64 {
        let mut dropped = 0_u64;
        if batch.view.epoch().is_none() {
            let subscriber = self.shared.roster.lock().get(&batch.hunter).map(Hunter::subscriber);
            match subscriber {
                Some(s) => self.old.meet(&batch.hunter, &self.shared.filters, &s),
                None => self.old.meet_passed_on(&batch.hunter),
            }
        }
        for p in batch.view.packets() {
            if self.given_up {
                break;
            }
            let index = usize::try_from(p.interface_index()).unwrap_or(usize::MAX);
            let interface = p.interface_name().or_else(|| batch.interfaces.get(index).map(String::as_str)).unwrap_or("");
            self.join_filters(&p);
            let filters = std::mem::take(&mut self.filters);
            let origin = Origin { hunter: &batch.hunter, interface, filters: &filters };
            let packet = Packet { ts: p.ts(), wire_len: p.wire_len(), link: p.link(), data: p.data(), origin };
            self.write_packet(batch, &p, &packet);
            self.filters = filters;
            dropped = dropped.saturating_add(u64::from(std::mem::take(&mut self.refused)));
        }
        dropped
    }

    fn join_filters(&mut self, p: &PacketView<'_>) {
        self.filters.clear();
        let Some(context) = p.context() else { return };
        for id in context.filter_ids() {
            if !self.filters.is_empty() {
                self.filters.push(',');
            }
            self.filters.push_str(id);
        }
    }

    fn write_packet(&mut self, batch: &Incoming, p: &PacketView<'_>, packet: &Packet<'_>) {
        if batch.view.epoch().is_none() {
            return self.write_old_packet(batch, p, packet);
        }
        if !p.repeat() {
            self.write_unified(packet);
        }
        let mut owned = false;
        for context in p.context().into_iter().chain(p.shared()) {
            owned = true;
            let call = Owned {
                call_id: context.call_id(),
                sip: context.claim().is_empty(),
                phone_rule: context.phone_rule(),
                holes: context.holes(),
                again: p.repeat(),
            };
            self.write_call(batch, &call, &mut context.filter_ids(), packet);
        }
        if !owned {
            self.write_rotating(packet);
        }
    }

    /// One packet of a hunter of the predecessor: its metadata says which call it belongs to.
    fn write_old_packet(&mut self, batch: &Incoming, p: &PacketView<'_>, packet: &Packet<'_>) {
        let meta = p.legacy();
        let call_id = meta.as_ref().and_then(|l| l.sip.as_ref()).map(|s| s.call_id.clone()).filter(|id| !id.is_empty());
        let media = meta.is_some_and(|l| l.rtp.is_some());
        if self.at.again {
            return self.write_old_again(batch, p, packet, call_id.as_deref(), media);
        }
        let judged = self.old.judge(&batch.hunter, call_id.as_deref(), media, packet);
        let call_only = matches!(judged, Judged::CallOnly(..));
        let (Judged::Filed(keep, named) | Judged::CallOnly(keep, named)) = judged else { return self.at.kept.push(None) };
        self.at.kept.push(Some(keep));
        let packet = &Packet { data: packet.data.get(..keep).unwrap_or(packet.data), ..*packet };
        if !call_only {
            self.write_unified(packet);
        }
        match call_id {
            Some(id) => {
                let call = Owned { call_id: &id, sip: !media, phone_rule: "", holes: "", again: false };
                let mut filters = p.matched_filter_ids().chain(named.iter().map(|id| &**id));
                self.write_call(batch, &call, &mut filters, packet);
            }
            None => self.write_rotating(packet),
        }
    }

    fn write_unified(&mut self, packet: &Packet<'_>) {
        if self.at.again {
            return;
        }
        self.insist(packet, |out, packet| out.unified.as_mut().map_or(Ok(()), |u| u.write(packet)));
    }

    fn write_rotating(&mut self, packet: &Packet<'_>) {
        if self.at.again {
            return;
        }
        self.insist(packet, |out, packet| out.rotating.as_mut().map_or(Ok(()), |r| r.write(packet)));
    }

    fn write_call(&mut self, batch: &Incoming, call: &Owned<'_>, filters: &mut dyn Iterator<Item = &str>, packet: &Packet<'_>) {
        let (call_id, sip) = (call.call_id, call.sip);
        if self.out.calls.is_none() || call_id.is_empty() {
            return;
        }
        self.at.has_calls = true;
        let frame =
            Frame { ts: packet.ts, wire_len: packet.wire_len, link: packet.link, interface: InterfaceId(0), data: packet.data };
        let (from, to) = if sip { parties(&frame) } else { (String::new(), String::new()) };
        let part = if sip { Part::Sip } else { Part::Rtp };
        let mut written = Written::Continued;
        let recorded = self.insist(packet, |out, packet| {
            if let Some(files) = &mut out.calls {
                written = files.write(&Parties { call_id: call_id.as_bytes(), from: &from, to: &to }, part, packet)?;
            }
            Ok(())
        });
        if !recorded {
            return;
        }
        if written == Written::New {
            // others may have made room for it
            self.retry(Self::save_finished);
            self.calls.forget(call_id);
        } else if self.calls.is_unread(call_id) {
            self.read_again(call_id);
        }
        let known = self.calls.take(&batch.hunter, call, filters, &frame);
        if let Some((files, bytes)) = self.out.calls.as_mut().zip(known) {
            files.note_known(call_id.as_bytes(), bytes);
        }
        self.retry(Self::make_room);
        if written == Written::New {
            self.save_record(call_id);
        }
    }

    /// Writes until it is written: a full disk pauses the hunters; a packet no file can take is counted and said once. False when it is not
    /// written.
    fn insist(
        &mut self,
        packet: &Packet<'_>,
        mut write: impl FnMut(&mut Outputs, &Packet<'_>) -> Result<(), RecordError>,
    ) -> bool {
        loop {
            match write(&mut self.out, packet) {
                Ok(()) => return true,
                Err(e) if e.is_retryable() => {
                    if !self.wait(&e) {
                        return false;
                    }
                }
                Err(e) => {
                    self.refused = true;
                    self.say(&e, "a packet could not be recorded");
                    return false;
                }
            }
        }
    }

    /// Pauses the hunters and waits a moment; false when the processor is stopping and cannot wait, or waiting does not help.
    fn wait(&mut self, e: &RecordError) -> bool {
        let way_out = if e.is_full() { "; --min-free says how much must stay free" } else { "" };
        let waited = !self.line.progress.at().failed && self.shared.wait_to_write(e, way_out);
        self.given_up |= !waited;
        waited
    }

    /// Each trouble is said once.
    fn say(&mut self, e: &RecordError, what: &'static str) {
        if self.said.len() < 100 && self.said.insert(e.to_string()) {
            tracing::error!(error = %e, "{what}");
        }
    }

    /// Timers: calls that are over, records to be renewed, rotation.
    fn tick(&mut self, now: Timestamp) {
        if let Err(e) = self.go_on_with_calls() {
            self.say(&e, "files of calls could not be closed; trying again");
        }
        self.look_at_calls(now);
        self.hear_of_losses();
        self.tick_files(now);
        let counters = self.out.calls.as_ref().map(CallFiles::counters).unwrap_or_default();
        *self.shared.files.lock() = OpenFiles::of(self.calls.open(), self.calls.overdue(), self.calls.parsing(), &counters);
        let _later = self.save_unsaved();
        self.sweep(now);
        let rotated = self.out.rotating.as_mut().map_or(Ok(()), |r| {
            r.take_finished();
            r.tick(now)
        });
        if let Err(e) = rotated {
            self.say(&e, "rotating files could not be written; trying again");
        }
    }

    /// Tells the call files the time; those that closed by themselves get their last record.
    fn tick_files(&mut self, now: Timestamp) {
        let Some(files) = &mut self.out.calls else { return };
        if let Err(e) = files.tick(now) {
            self.say(&e, "call files could not be written; trying again");
        }
        // what cannot be saved is said, and kept
        let _later = self.save_finished();
    }

    /// Forgets calls while too much is known of them.
    fn make_room(&mut self) -> Result<(), RecordError> {
        while let Some(files) = &mut self.out.calls
            && files.evict_for(self.calls.bytes())?
        {
            self.save_finished()?;
        }
        Ok(())
    }

    /// The last records of calls that closed by themselves, after late packets or since others needed their room; and those are forgotten that
    /// were closed before.
    fn save_finished(&mut self) -> Result<(), RecordError> {
        let serious = |saved: Result<(), RecordError>| saved.or_else(|e| if e.is_retryable() { Err(e) } else { Ok(()) });
        if self.unsaved.len() >= UNSAVED {
            serious(self.save_unsaved())?;
            self.unsaved.truncate(UNSAVED);
        }
        while let Some(mut c) = self.out.calls.as_mut().and_then(CallFiles::poll_closed) {
            // one of an earlier process may have had to go before it was read again
            self.read_history(&String::from_utf8_lossy(&c.call_id), std::mem::take(&mut c.history));
            serious(self.save_closed(c, false))?;
        }
        while let Some(id) = self.out.calls.as_mut().and_then(CallFiles::poll_forgotten) {
            if self.unsaved.iter().all(|c| c.call_id != id) {
                self.calls.forget(&String::from_utf8_lossy(&id));
            }
        }
        Ok(())
    }

    /// Forgets what is over, and deletes closed call files that are old enough, now and then.
    fn sweep(&mut self, now: Timestamp) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let Some(files) = &self.out.calls else { return };
        let unsaved: HashSet<&[u8]> = self.unsaved.iter().map(|c| &*c.call_id).collect();
        self.calls.keep(|id| files.stem(id.as_bytes()).is_some() || unsaved.contains(id.as_bytes()));
        if self.out.retain_age.is_zero() {
            return;
        }
        match retain::calls(files.dir(), now, self.out.retain_age) {
            Ok(swept) => tracing::debug!(?swept, "old call files deleted"),
            Err(e) => tracing::warn!(error = %e, "old call files could not be deleted"),
        }
    }

    fn close_call(&mut self, call_id: &str, synced: bool) {
        let closed = match &mut self.out.calls {
            Some(files) => files.close(call_id.as_bytes()),
            None => Ok(None),
        };
        match closed {
            Ok(Some(c)) => {
                let _later = self.save_closed(c, synced);
            }
            Ok(None) => self.calls.forget(call_id),
            Err(e) => self.say(&e, "a call's files could not be closed; trying again"),
        }
    }

    /// Tries the records again that could not be written.
    fn save_unsaved(&mut self) -> Result<(), RecordError> {
        while let Some(c) = self.unsaved.pop_front() {
            // one that late packets woke is closed again, with its files as they are then
            if self.calls.is_closed(&String::from_utf8_lossy(&c.call_id)) {
                self.save_closed(c, true)?;
            }
        }
        Ok(())
    }

    /// Writes the record of a call whose files are closed, and forgets it if late packets would not find it; one that cannot be written is kept
    /// for later.
    fn save_closed(&mut self, c: ClosedCall, synced: bool) -> Result<(), RecordError> {
        // of a call that was closed before and could not be saved then, this is what is true now
        self.unsaved.retain(|older| older.call_id != c.call_id);
        let id = String::from_utf8_lossy(&c.call_id).into_owned();
        let record = self.calls.record(&id, c.files.clone(), true);
        self.calls.close(&id, &c.stem);
        let saved = self.out.calls.as_ref().map_or(Ok(()), |files| record.save(files.dir(), &c.stem, synced));
        match &saved {
            Err(e) => {
                self.say(e, "a call's record could not be written; trying again");
                self.unsaved.push_back(c);
            }
            Ok(()) if self.out.calls.as_ref().is_none_or(|files| files.stem(&c.call_id).is_none()) => self.calls.forget(&id),
            Ok(()) => {}
        }
        saved
    }

    fn save_record(&mut self, call_id: &str) {
        let Some(files) = &self.out.calls else { return };
        let Some(stem) = files.stem(call_id.as_bytes()).filter(|_| files.may_save(call_id.as_bytes())) else { return };
        let record = self.calls.record(call_id, files.files(call_id.as_bytes()), false);
        match record.save(files.dir(), stem, false) {
            Ok(()) => self.calls.written(call_id, clock::wall()),
            Err(e) => self.say(&e, "a call's record could not be written; trying again"),
        }
    }
}
