//! What the parts of a processor share.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::access::Access;
use super::below::Below;
use super::commit::Durability;
use super::counts::{Counters, LOSSES, Queued};
use super::data::{Acks, Awaited, ack, of_hunter};
use super::filters::Distribution;
use super::ingest::{Ingest, Told};
use super::losses::Losses;
use super::monitors::Monitors;
use super::pace::Rates;
use super::pressure::{Gauge, Level};
use super::roster::{Hunter, Roster, said};
use super::upstream::{Upstream, UpstreamFigures};
use crate::batch::{BatchSeq, BatchView, Epoch};
use crate::engine::Parsing;
use crate::net::{AcceptCounters, Grant, PeerInfo, Role};
use crate::packet::Timestamp;
use crate::record::calls::Counters as FileCounters;
use crate::telemetry::Windows;
use crate::telemetry::clock::{self, Moment, Steady};
use crate::wire::data::{FlowControl, StreamControl};

/// Between two attempts on a full disk.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// KiB of batches that may wait for the record thread: 64 MiB, as much as it may hold in blocks, and no more than an eighth of the limit on
/// memory.
fn queue_kib() -> usize {
    const USUAL: u64 = 64 << 10;
    let limit = crate::telemetry::memory::read().limit;
    let kib = if limit == 0 { USUAL } else { USUAL.min(limit / 8 / 1024) };
    usize::try_from(kib).unwrap_or(1)
}

/// One batch on its way to the record thread.
pub struct Incoming {
    /// Whose.
    pub hunter: Arc<str>,
    /// The names behind its packets' interface indices.
    pub interfaces: Arc<[String]>,
    /// The batch.
    pub view: BatchView,
    /// Its epoch; one of ours for a peer that has none.
    pub epoch: Epoch,
    /// The epoch it announced.
    pub announced: Option<Epoch>,
    /// Its number.
    pub seq: BatchSeq,
    /// Where the acknowledgement goes.
    pub acks: Arc<Acks>,
    /// When it came, by our clock.
    pub received: Timestamp,
    /// Packets before it that will not come.
    pub missing: u64,
    /// Its packets among those on their way into files, unless it is read again after a restart.
    pub queued: Queued,
    /// Its place among the bytes that wait, unless it is read again after a restart; free again when it is written.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Work for the record thread.
pub enum Job {
    /// Write this.
    Batch(Box<Incoming>),
    /// A hunter said that it stops: its calls will not go on.
    Stopping {
        /// Which.
        hunter: Arc<str>,
    },
}

/// Shut once; whoever waits for that is told in the order of asking.
#[derive(Debug, Default)]
pub(super) struct Latch {
    shut: AtomicBool,
    told: Notify,
}

impl Latch {
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    pub(super) async fn wait(&self) {
        // asked for before the look, so that it is not missed in between
        let told = self.told.notified();
        if !self.is_shut() {
            told.await;
        }
    }
}

/// What stands before every service, and counts what it refuses.
pub struct Doors {
    /// Connections.
    pub connections: Arc<AcceptCounters>,
    /// Calls.
    pub access: Access,
    /// Where else those may go that are not let in.
    pub peers: Vec<String>,
}

/// Everything shared.
pub struct Shared {
    /// This processor's name.
    pub id: String,
    /// Whether clients must say who they are: then ids are bound to that.
    pub bound: bool,
    /// For how long somebody was silent.
    pub clock: Steady,
    /// Hunters.
    pub roster: Mutex<Roster>,
    /// Processors below this one.
    pub below: Mutex<Below>,
    /// What arrived and what is stored.
    pub ingest: Ingest,
    /// Filters and their distribution.
    pub filters: Arc<Distribution>,
    /// Packet counters.
    pub counters: Arc<Counters>,
    /// Who watches.
    pub monitors: Monitors,
    /// What is read from one hunter in a second.
    pub(super) hunter_rates: Rates,
    /// Times a stream was not read on for that.
    pub(super) rate_waits: AtomicU64,
    /// What an acknowledgement says.
    durability: Durability,
    /// The road to the processor above, once there is one.
    pub upstream: OnceLock<Arc<Upstream>>,
    /// What stands before it all, once it does.
    pub doors: OnceLock<Doors>,
    /// KiB of batches that may wait for the record thread.
    pub queue: Arc<Semaphore>,
    /// How many in all.
    pub queue_kib: usize,
    /// To the record thread.
    pub jobs: mpsc::Sender<Job>,
    /// Set when data streams are to end.
    pub(super) ending: Latch,
    /// Set once what an earlier process left is in its files.
    pub(super) begun: AtomicBool,
    /// Set once nobody hands in work any more.
    pub(super) stopping: AtomicBool,
    /// Set when the end takes long: what is in the commit log alone is left there, and the next start writes it to its files.
    pub(super) late: AtomicBool,
    /// What presses, and what the hunters were last asked.
    flow: Mutex<Flow>,
    /// What hunters say their kernels and interfaces lost; read when a call's record is written. No queue: that may be full for long.
    pub(super) losses: Arc<Mutex<Losses>>,
    /// The record thread's last sign of life.
    alive: Mutex<Option<Moment>>,
    /// What it has open.
    pub(super) files: Mutex<OpenFiles>,
    /// What was lost lately.
    pub(super) recent: Mutex<Windows<{ LOSSES.len() }>>,
}

/// What the record thread has open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenFiles {
    /// Calls whose files may still grow.
    pub(super) calls: usize,
    /// Call files that were closed for want of descriptors and opened again.
    pub(super) reopened: u64,
    /// Calls that were closed before their end for want of room.
    pub(super) evicted: u64,
    /// Calls that were closed, and forgotten before their time for want of room.
    pub(super) evicted_closed: u64,
    /// Calls that time has ended.
    pub(super) overdue: Overdue,
    /// What of their packets could not be read, or only up to a bound.
    pub(super) parsing: Parsing,
}

/// Calls that time has ended, each for each hunter that sent of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// Their media had stopped.
    pub(super) idle: u64,
    /// They had none, and were old.
    pub(super) aged: u64,
}

impl Overdue {
    /// What was added between two looks.
    pub(super) const fn add_since(&mut self, before: Self, now: Self) {
        self.idle = self.idle.saturating_add(now.idle.saturating_sub(before.idle));
        self.aged = self.aged.saturating_add(now.aged.saturating_sub(before.aged));
    }
}

impl OpenFiles {
    pub(super) const fn of(calls: usize, overdue: Overdue, parsing: Parsing, files: &FileCounters) -> Self {
        let FileCounters { reopened, evicted, evicted_closed, .. } = *files;
        Self { calls, reopened, evicted, evicted_closed, overdue, parsing }
    }
}

/// Flow control, under one lock, so that every stream hears of every change, in order.
#[derive(Debug, Default)]
struct Flow {
    gauge: Gauge,
    level: Level,
    /// Open data streams, to be told of changes.
    streams: Vec<Weak<Acks>>,
}

impl Flow {
    /// Tells every stream what has changed, at once and unasked: a hunter that is silent hears of it too.
    fn settle(&mut self, now: Instant) {
        let (before, level) = (self.level, self.gauge.level(now));
        if before == level {
            return;
        }
        self.level = level;
        tracing::info!(from = before.name(), to = level.name(), "flow control");
        self.streams.retain(|s| s.strong_count() > 0);
        for acks in self.streams.iter().filter_map(Weak::upgrade) {
            if level < before {
                // the only word that ends a pause for everybody; it takes back everything
                acks.tell(ack(None, BatchSeq(0), FlowControl::FlowResume));
            }
            if level > Level::Continue {
                acks.tell(ack(None, BatchSeq(0), wire(level)));
            }
        }
    }
}

const fn wire(level: Level) -> FlowControl {
    match level {
        Level::Continue => FlowControl::FlowContinue,
        Level::Slow => FlowControl::FlowSlow,
        Level::Pause => FlowControl::FlowPause,
    }
}

impl Shared {
    /// For a processor of this name.
    pub fn new(
        id: String,
        bound: bool,
        max_hunters: usize,
        ingest: Ingest,
        filter_version: u64,
        durability: Durability,
        jobs: mpsc::Sender<Job>,
    ) -> Self {
        let queue_kib = queue_kib();
        Self {
            id,
            bound,
            roster: Mutex::new(Roster::new(max_hunters, said::room(crate::telemetry::memory::read().limit))),
            below: Mutex::default(),
            ingest,
            filters: Arc::new(Distribution::new(filter_version)),
            counters: Arc::default(),
            monitors: Monitors::default(),
            hunter_rates: Rates::default(),
            rate_waits: AtomicU64::new(0),
            durability,
            upstream: OnceLock::new(),
            doors: OnceLock::new(),
            queue: Arc::new(Semaphore::new(queue_kib)),
            queue_kib,
            jobs,
            clock: Steady::start(),
            ending: Latch::default(),
            begun: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            late: AtomicBool::new(false),
            flow: Mutex::default(),
            losses: Arc::default(),
            alive: Mutex::default(),
            files: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// So much from one hunter in a second.
    #[must_use]
    pub fn reading(mut self, hunter_rates: Rates) -> Self {
        self.hunter_rates = hunter_rates;
        self
    }

    /// By so many monitors at most.
    #[must_use]
    pub fn watched_by(self, max: usize) -> Self {
        Self { monitors: Monitors::new(max), ..self }
    }

    /// What whoever calls `method` may see; none: everything.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(super) fn grant(&self, peer: Option<&PeerInfo>, method: &str) -> Result<Option<Arc<Grant>>, Status> {
        self.doors.get().map_or(Ok(None), |doors| doors.access.grant(peer, method))
    }

    /// Refuses what is not granted.
    pub(super) fn not_granted(&self, method: &str, why: &str) -> Status {
        self.doors.get().map_or_else(|| Status::permission_denied(why), |doors| doors.access.not_granted(method, why))
    }

    /// Other processors that hunters may go to.
    pub(super) fn peers(&self) -> &[String] {
        self.doors.get().map_or(&[], |doors| &doors.peers)
    }

    /// What an acknowledgement says here; durable means that the disk has confirmed it.
    pub(super) fn ack(&self, epoch: Option<Epoch>, seq: BatchSeq, flow: FlowControl) -> StreamControl {
        let durable = self.durability == Durability::Disk && epoch.is_some();
        StreamControl { durable, ..ack(epoch, seq, flow) }
    }

    /// What whoever sent a batch of this epoch, if it knows of epochs, is told of it: its hunter, or a processor that passed it on.
    pub(super) fn say(
        &self,
        hunter: &str,
        epoch: Option<Epoch>,
        told: Told,
        passed_on: bool,
        flow: FlowControl,
    ) -> StreamControl {
        let control = StreamControl { ack_from: told.from, ..self.ack(epoch, BatchSeq(told.through), flow) };
        of_hunter(control, hunter, passed_on)
    }

    /// Answers a batch that is stored.
    pub(super) fn answer(&self, batch: &Incoming, flow: FlowControl) {
        let bytes = batch.view.message().len();
        let Some(epoch) = batch.announced else { return batch.acks.answer(bytes, self.ack(None, batch.seq, flow)) };
        let (hunter, seq, passed_on) = (&batch.hunter, batch.seq, batch.view.is_passed_on());
        let told = self.ingest.told(hunter, epoch, seq, passed_on);
        batch.acks.answer(bytes, self.say(hunter, Some(epoch), told, passed_on, flow));
        if told.through < seq.0 {
            // something below it came meanwhile, and is on its way into the files
            batch.acks.await_stored(Awaited { hunter: Arc::clone(hunter), epoch, seq, passed_on });
        }
    }

    /// Flow control in force.
    pub fn flow(&self) -> FlowControl {
        wire(self.level())
    }

    /// The same, as a level.
    pub fn level(&self) -> Level {
        self.flow.lock().level
    }

    /// The figures of the road upwards, if there is one.
    pub fn above(&self) -> Option<UpstreamFigures> {
        self.upstream.get().map(|u| u.figures())
    }

    /// What presses.
    pub(super) fn gauge(&self) -> Gauge {
        self.flow.lock().gauge.clone()
    }

    /// Batches that wait for the record thread, and how many may.
    pub(super) fn queue(&self) -> [usize; 2] {
        let room = self.jobs.max_capacity();
        [room.saturating_sub(self.jobs.capacity()), room]
    }

    /// The record thread goes on.
    pub(super) fn note_alive(&self) {
        *self.alive.lock() = Some(Moment::now());
    }

    /// When it last said so.
    pub(super) fn record_alive(&self) -> Option<Moment> {
        *self.alive.lock()
    }

    /// Whether a hunter is connected and has nothing that it has not sent. Of one below another processor nobody knows that here.
    pub(super) fn has_sent_all(&self, hunter: &str) -> bool {
        self.roster.lock().get(hunter).is_some_and(Hunter::has_sent_all)
    }

    /// The disk takes nothing, or does again; false when that was so already.
    pub fn pause(&self, paused: bool) -> bool {
        self.note_alive();
        let mut flow = self.flow.lock();
        if flow.gauge.is_disk_full() == paused {
            return false;
        }
        flow.gauge.disk(paused);
        flow.settle(Instant::now());
        true
    }

    /// Something cannot be written now: pauses the hunters, says so where they were not paused, and waits a moment. False when the processor is
    /// stopping and cannot wait.
    pub(super) fn wait_to_write(&self, e: &dyn Error, way_out: &str) -> bool {
        if self.pause(true) {
            tracing::error!(error = %e, "cannot write; hunters are paused until it works again{way_out}");
        }
        if self.stopping.load(Ordering::Acquire) {
            return false;
        }
        clock::pause(RETRY);
        true
    }

    /// A commit begins.
    pub(super) fn commit_begins(&self) {
        self.flow.lock().gauge.commit_begins(Instant::now());
    }

    /// A commit is done.
    pub(super) fn commit_ends(&self) {
        let mut flow = self.flow.lock();
        flow.gauge.commit_ends(Instant::now());
        self.look_at_queue(&mut flow);
    }

    /// Looks at what presses; ten times a second.
    pub(super) fn look(&self) {
        self.look_at_queue(&mut self.flow.lock());
    }

    /// Memory is short, or no longer.
    pub(super) fn note_memory(&self, short: bool) {
        self.flow.lock().gauge.memory(short);
    }

    fn look_at_queue(&self, flow: &mut Flow) {
        let (now, [waiting, room]) = (Instant::now(), self.queue());
        // full is full, of batches or of bytes
        let taken = self.queue_kib.saturating_sub(self.queue.available_permits());
        let bytes = taken.saturating_mul(room).checked_div(self.queue_kib).unwrap_or(0);
        flow.gauge.queue(now, waiting.max(bytes), room);
        if let Some(above) = self.above() {
            let b = &above.backlog;
            flow.gauge.upstream(above.percent(), above.blocked, b.paused || b.slow);
        }
        flow.settle(now);
    }

    /// Batches were stored: the streams on which they came again are told too.
    pub(super) fn tell_stored(&self) {
        let flow = self.flow.lock();
        for acks in flow.streams.iter().filter_map(Weak::upgrade) {
            acks.tell_stored(self, wire(flow.level));
        }
    }

    /// Reminds every stream that waits of what is in force; once a second.
    pub(super) fn remind(&self) {
        let mut flow = self.flow.lock();
        flow.streams.retain(|s| s.strong_count() > 0);
        for acks in flow.streams.iter().filter_map(Weak::upgrade) {
            acks.remind(wire(flow.level));
        }
    }

    /// A data stream opened; it is told at once what is asked of it.
    pub(super) fn add_stream(&self, acks: &Arc<Acks>) {
        let mut flow = self.flow.lock();
        flow.streams.retain(|s| s.strong_count() > 0);
        flow.streams.push(Arc::downgrade(acks));
        // under the lock, so that a change is told after this
        if flow.level > Level::Continue {
            acks.tell(ack(None, BatchSeq(0), wire(flow.level)));
        }
    }

    /// A processor's id must be the one of its certificate or key, where these are in use.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check_processor(&self, peer: Option<&PeerInfo>, processor: &str) -> Result<(), Status> {
        let issue = format!("use the certificate issued with: lc certs issue processor {processor}");
        match peer.and_then(|p| p.identity.as_ref()) {
            Some(i) if i.role == Role::Processor && i.id == processor => Ok(()),
            Some(i) => Err(Status::permission_denied(format!(
                "this peer is {} '{}', not processor '{processor}'; {issue}, or say --id {}",
                i.role, i.id, i.id
            ))),
            None if self.bound => Err(Status::permission_denied(format!("the certificate names no processor; {issue}"))),
            None => Ok(()),
        }
    }

    /// A hunter's id must be the one of its certificate or key, where these are in use.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check_identity(&self, peer: Option<&PeerInfo>, hunter: &str) -> Result<(), Status> {
        let identity = peer.and_then(|p| p.identity.as_ref());
        match identity {
            Some(i) if i.role == Role::Hunter && i.id == hunter => Ok(()),
            Some(i) if i.role == Role::Processor => Ok(()),
            Some(i) => Err(Status::permission_denied(format!(
                "this peer is {} '{}', not hunter '{hunter}'; use the certificate issued with: lc certs issue hunter {hunter}",
                i.role, i.id
            ))),
            None if self.bound => Err(Status::permission_denied(format!(
                "the certificate names no hunter; issue one with: lc certs issue hunter {hunter}"
            ))),
            None => Ok(()),
        }
    }
}
