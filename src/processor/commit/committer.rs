//! The commit thread: groups in, acknowledgements out; a checkpoint now and then.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bytes::Bytes;

use super::entry::{Entry, Extent, Place};
use super::{Ask, Checkpoint, Commit, CommitError, Durability, Group, Left, Logged, Pending, Progress, log::Log};
use crate::batch::SeqRanges;
use crate::processor::shared::{Job, RETRY, Shared};
use crate::record::RecordError;
use crate::record::dir::{Access, Dir, Entries, MinFree, sync_data};
use crate::record::state::{Acked, Saving};
use crate::telemetry::clock::{self, Moment};

/// Changes that are read on top of each other at most; and bytes of them that are always worth keeping.
const CHANGES: u64 = 1000;
const SMALL: u64 = if cfg!(test) { 8000 } else { 1 << 20 };
/// Time for a checkpoint between two looks for a group.
const SLICE: Duration = Duration::from_millis(10);

/// The thread's memory.
pub(in crate::processor) struct Committer {
    log: Log,
    durability: Durability,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    state: Dir,
    calls: Option<Dir>,
    running: Option<Checkpoint>,
    /// Its state, as far as it is written.
    saving: Option<Saving>,
    written: Written,
    /// The log ends with something that was not stored.
    tail: bool,
    latency: Latency,
    /// What could not be made durable, in order.
    left: Vec<Job>,
    /// The last of them: the log is closed before.
    _ended: Ended,
}

/// What the next checkpoint goes on from.
#[derive(Debug, Default)]
struct Written {
    /// The last entry of the log that is in the last one.
    log: u64,
    /// Changes since everything was written.
    changes: u64,
    /// Bytes of everything, and of the changes.
    whole_bytes: u64,
    change_bytes: u64,
}

impl Written {
    /// Whether everything is to be written again: the changes are as long, or as many as nobody wants to look for.
    const fn is_outgrown(&self) -> bool {
        let least = if self.whole_bytes < SMALL { SMALL } else { self.whole_bytes };
        self.change_bytes >= least || self.changes >= CHANGES
    }
}

/// However the thread ends: whoever waits for it must know.
struct Ended(Arc<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note(|at| at.ended = true);
    }
}

impl Committer {
    pub(in crate::processor) fn new(commit: Commit, shared: Arc<Shared>, progress: Arc<Progress>) -> Result<Self, RecordError> {
        let open = |path: &Path| Dir::open(path, Access::Private, MinFree::NONE);
        Ok(Self {
            state: open(&commit.state)?,
            calls: commit.places.calls.as_deref().map(open).transpose()?,
            log: commit.log,
            durability: commit.durability,
            shared,
            _ended: Ended(Arc::clone(&progress)),
            progress,
            running: None,
            saving: None,
            written: Written::default(),
            tail: commit.tail,
            latency: Latency::default(),
            left: Vec::new(),
        })
    }

    /// Runs until it is told to end; what it could not make durable comes back.
    pub(in crate::processor) fn run(mut self, asks: &Receiver<Ask>) -> Left {
        if self.tail {
            self.append_head(Entry::Start);
        }
        loop {
            let ask = if self.running.is_some() {
                match asks.try_recv() {
                    Ok(ask) => ask,
                    Err(TryRecvError::Empty) => {
                        self.sync_some(SLICE);
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => break,
                }
            } else {
                match clock::receive(asks) {
                    Some(ask) => ask,
                    None => break,
                }
            };
            match ask {
                Ask::End => break,
                Ask::Group(group) if self.progress.at().failed => self.left.extend(group.into_jobs()),
                // what waits for an answer sees that there will be none
                Ask::Names { .. } | Ask::Disowned { .. } if self.progress.at().failed => {}
                Ask::Group(group) => self.commit(*group),
                Ask::Names { place, names, ticket } => self.announce(place, names, ticket),
                Ask::Disowned { place, name } => {
                    self.append_head(Entry::Disowned { place, name });
                }
            }
            self.sync_some(SLICE);
        }
        while self.running.is_some() && !self.progress.at().failed {
            self.sync_some(SLICE);
        }
        self.latency.tell();
        let state = self.state.path().to_path_buf();
        Left { jobs: self.left, confirmed: self.log.confirmed(), state, durability: self.durability }
    }

    /// Makes a group durable and answers for it; where it does not become durable it is kept.
    fn commit(&mut self, mut group: Group) {
        if self.write(&group) && self.store(&mut group) {
            self.answer(group);
        } else {
            self.left.extend(group.into_jobs());
        }
    }

    /// Writes what of its files is still in memory; false when it never will be.
    fn write(&mut self, group: &Group) -> bool {
        group.grown.iter().all(|(_, grown)| self.insist(|_| grown.write().map_err(CommitError::Unwritten)))
    }

    /// False when it never becomes durable.
    fn store(&mut self, group: &mut Group) -> bool {
        self.shared.commit_begins();
        // what is offered is written while the files are synced
        if !self.offer(group) {
            return false;
        }
        for logged in &group.entries {
            if !self.append(logged) {
                return false;
            }
        }
        let names = std::mem::take(&mut group.names);
        if !names.is_empty() && !self.append_head(Entry::Names { place: Place::Calls, names }) {
            return false;
        }
        if self.durability == Durability::Disk {
            let synced =
                group.dirs.iter().try_for_each(Entries::sync).and_then(|()| group.grown.iter().try_for_each(|(_, g)| g.sync()));
            if let Err(e) = synced {
                return self.fail(&e.into());
            }
        }
        // before the Commit entry: see `upstream`
        if !self.secure() {
            return false;
        }
        let extents = group.grown.drain(..).map(|(place, g)| Extent { place, name: g.name.into(), bytes: g.bytes }).collect();
        let marks = marks(&group.batches);
        if !self.append_head(Entry::Commit { marks, extents }) {
            return false;
        }
        match self.log.sync() {
            Ok(()) => true,
            Err(e) => self.fail(&e),
        }
    }

    /// Says to everybody concerned that a group is stored.
    fn answer(&mut self, mut group: Group) {
        for p in &mut group.batches {
            p.batch.queued.commit(p.dropped, p.left_out);
            self.shared.ingest.store(&p.batch.hunter, p.batch.epoch, p.batch.seq);
        }
        // before the answers: they say what is in force
        if self.shared.pause(false) {
            tracing::info!("writing works again; hunters go on");
        }
        self.shared.commit_ends();
        let (now, flow) = (clock::wall(), self.shared.flow());
        for p in group.batches {
            self.latency.note(now.since(p.batch.received));
            self.shared.answer(&p.batch, flow);
        }
        self.shared.tell_stored();
        if let Some(mut checkpoint) = group.checkpoint {
            checkpoint.state.acked = self.shared.ingest.snapshot();
            checkpoint.state.log = self.log.last();
            checkpoint.state.since = checkpoint.changes.then_some(self.written.log);
            self.log.roll();
            self.running = Some(checkpoint);
        }
        self.progress.note(|at| at.durable = group.number);
    }

    /// Gives a group to the processor above, if there is one; false when its queue takes nothing more and this processor stops.
    fn offer(&self, group: &Group) -> bool {
        let Some(upstream) = self.shared.upstream.get() else { return true };
        let taken = group.batches.iter().all(|p| upstream.offer(&p.batch, &self.shared.stopping));
        self.told(taken)
    }

    /// Waits until what was offered is safe; false as above.
    fn secure(&self) -> bool {
        let Some(upstream) = self.shared.upstream.get() else { return true };
        self.told(upstream.secure(&self.shared.stopping))
    }

    fn told(&self, taken: bool) -> bool {
        if !taken {
            tracing::error!(
                "the queue for the processor above takes nothing more; what is not acknowledged is left to the hunters"
            );
            self.progress.note(|at| at.failed = true);
        }
        taken
    }

    /// Remembers names of files that are about to be made.
    fn announce(&mut self, place: Place, names: Vec<Box<str>>, ticket: u64) {
        if !names.is_empty() && !self.append_head(Entry::Names { place, names }) {
            return;
        }
        match self.log.sync() {
            Ok(()) => self.progress.note(|at| at.announced = at.announced.max(ticket)),
            Err(e) => drop(self.fail(&e)),
        }
    }

    /// As [`Self::append`], of an entry without a body.
    fn append_head(&mut self, entry: Entry) -> bool {
        self.append(&Logged { entry, body: Bytes::new(), packets: 0 })
    }

    /// Writes an entry, however long that takes; false when it never will be.
    fn append(&mut self, logged: &Logged) -> bool {
        self.insist(|c| c.log.append(&logged.entry, &logged.body, logged.packets))
    }

    /// Writes something, however long that takes; false when it never will be written.
    fn insist(&mut self, mut what: impl FnMut(&mut Self) -> Result<(), CommitError>) -> bool {
        loop {
            match what(self) {
                Ok(()) => return true,
                Err(e) if e.is_retryable() => {
                    if !self.shared.wait_to_write(&e, "") {
                        self.end_badly();
                        return false;
                    }
                }
                Err(e) => return self.fail(&e),
            }
        }
    }

    /// Nothing becomes durable any more: nobody knows what the disk has, so all of it is written again from what was stored before. False.
    fn fail(&mut self, e: &CommitError) -> bool {
        self.shared.pause(true);
        tracing::error!(
            error = %e,
            "the disk does not confirm what was written; hunters are paused, and everything since is written again"
        );
        self.end_badly();
        false
    }

    /// Whoever waits for something to become durable sees that nothing does any more.
    fn end_badly(&mut self) {
        // a checkpoint must not say that something is there of which nobody knows
        (self.running, self.saving) = (None, None);
        self.progress.note(|at| at.failed = true);
    }

    /// Goes on with a checkpoint for a while.
    fn sync_some(&mut self, time: Duration) {
        let Some(running) = &mut self.running else { return };
        // there is no time for it, nor for another. Without the first one nobody writes anything: whoever waits for it gives up, too
        if self.shared.late.load(Ordering::Acquire) {
            if self.progress.at().checkpoints > 0 {
                self.end_checkpoint();
            } else {
                (self.running, self.saving) = (None, None);
            }
            return;
        }
        let began = Moment::now();
        if let (Durability::Disk, Some(calls)) = (self.durability, &self.calls) {
            while let Some(name) = running.files.pop() {
                let synced = calls
                    .open_existing(&name)
                    // removed meanwhile, by its age or by somebody
                    .and_then(|f| f.map_or(Ok(()), |f| sync_data(&f).map_err(|e| RecordError::io("sync", calls.join(&name), e))));
                if let Err(e) = synced {
                    self.fail(&e.into());
                    return;
                }
                if began.elapsed() >= time {
                    return;
                }
            }
            if let Some(Err(e)) = running.entries.take().map(|d| d.sync()) {
                self.fail(&e.into());
                return;
            }
        }
        while !self.write_slice() && began.elapsed() < time {}
    }

    /// Written or not; whoever waits for it goes on. Where it was not, a start reads the log since the last one.
    fn end_checkpoint(&mut self) {
        (self.running, self.saving) = (None, None);
        self.progress.note(|at| at.checkpoints = at.checkpoints.saturating_add(1));
    }

    /// Writes one more slice of the checkpoint; true when nothing is left to do now.
    fn write_slice(&mut self) -> bool {
        let Some(Checkpoint { state, changes, .. }) = &self.running else { return true };
        let number = if *changes { self.written.changes.saturating_add(1) } else { 0 };
        let begun = match self.saving.take() {
            Some(saving) => Ok(saving),
            None => Saving::begin(&self.state, self.durability == Durability::Disk, number),
        };
        let written = begun.and_then(|mut saving| Ok((saving.step(state, &self.state)?, saving)));
        match written {
            Ok((false, saving)) => {
                self.saving = Some(saving);
                return false;
            }
            Ok((true, saving)) => {
                let (whole_bytes, change_bytes) = match number {
                    0 => (saving.bytes(), 0),
                    _ => (self.written.whole_bytes, self.written.change_bytes.saturating_add(saving.bytes())),
                };
                self.written = Written { log: state.log, changes: number, whole_bytes, change_bytes };
                self.log.trim(state.log);
                let whole = self.written.is_outgrown();
                self.progress.note(|at| at.whole = whole);
            }
            Err(e) if self.progress.at().checkpoints == 0 => {
                self.insist_on_first(&e);
                return true;
            }
            // the log since the last one is kept
            Err(e) => {
                tracing::error!(error = %e, "a checkpoint could not be written; a restart takes longer");
                self.progress.note(|at| at.whole = true);
            }
        }
        self.end_checkpoint();
        true
    }

    /// The first checkpoint must be there before anything is written: only it says what was there before. It is begun again.
    fn insist_on_first(&mut self, e: &RecordError) {
        if self.shared.stopping.load(Ordering::Acquire) {
            self.fail(&CommitError::File(RecordError::log(io::Error::other(e.to_string()))));
            return;
        }
        if self.shared.pause(true) {
            tracing::error!(error = %e, "cannot write the state; hunters are paused until it works again");
        }
        clock::pause(RETRY);
    }
}

/// What these batches add to what is stored, where their senders know their epochs.
fn marks(batches: &[Pending]) -> Vec<Acked> {
    let mut marks: BTreeMap<(&str, u64), Acked> = BTreeMap::new();
    for b in batches.iter().map(|p| &p.batch).filter(|b| b.announced.is_some()) {
        let new = || Acked { hunter: b.hunter.to_string(), epoch: b.epoch.0, through: 0, stored: Some(SeqRanges::default()) };
        let mark = marks.entry((&*b.hunter, b.epoch.0)).or_insert_with(new);
        mark.stored.iter_mut().for_each(|all| all.insert(b.seq.0, b.seq.0));
        if !b.view.is_passed_on() {
            mark.through = mark.through.max(b.seq.0);
        }
    }
    marks.into_values().collect()
}

/// How long batches waited for their acknowledgement, in steps of a quarter.
#[derive(Debug)]
struct Latency([u64; 96]);

impl Default for Latency {
    fn default() -> Self {
        Self([0; 96])
    }
}

impl Latency {
    /// The lower end of a step: 4 steps per doubling, from 1 µs.
    fn micros(step: usize) -> u64 {
        let (octave, quarter) = (step / 4, step as u64 % 4);
        (1_u64 << octave.min(40)).saturating_mul(4_u64.saturating_add(quarter)) / 4
    }

    fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = (0..self.0.len()).rev().find(|s| Self::micros(*s) <= micros).unwrap_or(0);
        if let Some(n) = self.0.get_mut(step) {
            *n = n.saturating_add(1);
        }
    }

    /// So many of a hundred took no longer.
    fn at(&self, share: u64) -> Duration {
        let total = self.0.iter().fold(0_u64, |a, b| a.saturating_add(*b));
        let mut below = 0_u64;
        for (step, n) in self.0.iter().enumerate() {
            below = below.saturating_add(*n);
            if below.saturating_mul(100) >= total.saturating_mul(share) {
                return Duration::from_micros(Self::micros(step.saturating_add(1)));
            }
        }
        Duration::ZERO
    }

    fn tell(&self) {
        if self.0.iter().any(|n| *n > 0) {
            tracing::info!(p50 = ?self.at(50), p99 = ?self.at(99), "time to acknowledgement");
        }
    }
}
