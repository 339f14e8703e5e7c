//! Every thread, task and channel of a processor.
//!
//! ```text
//!  listener task(s) ─ HTTP/2 ─┬─ data streams ──jobs (bounded 256 batches, Block)──▶ record thread
//!                             └─ management ── roster, filters            asks (bounded 4, Block) ──▶ commit thread ──acks──▶ streams
//!  filter task: file changed or SIGHUP ──▶ Distribution ──▶ filter streams         stats task: one line every 5 s
//!  pressure task: queue, commits, disk ──▶ flow control ──▶ streams                 pages task: figures and health over HTTP
//!
//!  with a processor above:  commit thread ──offer (bounded, Block)──▶ Backlog ──▶ uplink task ──▶ processor above
//!                                         ◀─secure─                    │  ▲
//!                                                                 spool thread ──▶ files
//!
//!  an error of fsync: both threads end, the files are opened again from what is stored, and what came since is written again
//!  shutdown: stop accepting, end streams ─▶ stopping flag ─▶ record thread writes, commit thread checkpoints, both end
//!            ─▶ uplink drains, or leaves the rest to its files ─▶ spool thread closes them
//! ```

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tower::Layer;

use super::access::{Access, AccessLayer};
use super::branches::record::{self, End};
use super::commit::{Commit, Committer, Left, Line, Progress};
use super::data::DataService;
use super::filters::read_file;
use super::ingest::Ingest;
use super::intake::CALL_MAX;
use super::management::Management;
use super::pages::ProcessorPages;
use super::shared::{Doors, Job, Shared};
use super::upstream::{self, Alone, Plane, Upstream, UpstreamParts};
use super::{Order, Outcome, Outputs, Parts, ProcessorError, Reopen};
use crate::net::PeerInfo;
use crate::net::accept::http2;
use crate::record::fault;
use crate::spool::{Disk, Queue};
use crate::telemetry::{OPERATOR, RELOADS, clock, memory};
use crate::uplink::{self, Backlog, BacklogSnapshot, Ending, Spooler, UplinkError};
use crate::wire::management::management_service_server::ManagementServiceServer;

/// Batches waiting for the record thread.
const JOBS: usize = 256;
/// Groups and announcements waiting for the commit thread.
const ASKS: usize = 4;
/// Bytes in the commit log between two checkpoints.
const CHECKPOINT: u64 = 128 << 20;
/// The filter file is looked at this often.
const LOOK: Duration = Duration::from_millis(250);
/// Between two attempts to go on after an error of the disk.
const RETRY: Duration = Duration::from_millis(500);
/// A statistics line this often.
const STATS: Duration = Duration::from_secs(5);
/// What presses is looked at this often.
const PRESSURE: Duration = Duration::from_millis(100);
/// Patience for open connections at a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Patience for files at a stop, and for the end once there is no time for more of them.
const WRITING: Duration = Duration::from_secs(10);
const ENDING: Duration = Duration::from_secs(20);
/// Largest management message we send: 100 000 filters to a hunter that takes as much.
const ANSWER_MAX: usize = 64 << 20;

/// The channel on which a processor is told what to do.
pub fn orders() -> (watch::Sender<Order>, watch::Receiver<Order>) {
    watch::channel(Order::Run)
}

/// Builds and runs a processor until it is told to end.
///
/// # Errors
/// [`ProcessorError`].
pub async fn run(parts: Parts, orders: watch::Receiver<Order>) -> Result<Outcome, ProcessorError> {
    let (jobs, queue) = mpsc::channel(JOBS);
    let ingest = Ingest::restore(&parts.acked);
    let durability = parts.commit.durability;
    let bound = parts.access.is_bound();
    let shared = Shared::new(parts.id, bound, parts.max_hunters, ingest, parts.filter_version, durability, jobs);
    let shared = Arc::new(shared.watched_by(parts.max_subscribers).reading(parts.hunter_rates));
    shared.filters.replace(parts.filters, "file").map_err(|e| ProcessorError::Filters(e.to_string()))?;

    let doors = Doors { connections: parts.acceptor.counters(), access: parts.access.clone(), peers: parts.peers };
    // set once: there was none before
    let _first = shared.doors.set(doors);
    let above = parts.upstream.map(|up| climb(up, &shared)).transpose()?;
    let files = Files { outputs: parts.outputs, commit: parts.commit, reopen: parts.reopen, checkpoint_bytes: CHECKPOINT };
    let mut finished = write(Arc::clone(&shared), files, queue)?;
    // said when everything is open: who reads it may connect, and may take the folders away
    for address in parts.acceptor.addresses() {
        tracing::info!(name: OPERATOR, %address, tls = parts.acceptor.is_tls(), "listening");
    }

    let connections = parts.acceptor.counters();
    let server = tokio::spawn(serve(parts.acceptor, parts.access, Arc::clone(&shared), orders.clone()));
    let files = tokio::spawn(follow_file(parts.filter_file, Arc::clone(&shared), orders.clone()));
    let stats = tokio::spawn(tell_stats(Arc::clone(&shared), parts.stats));
    let pressure = tokio::spawn(watch_pressure(Arc::clone(&shared)));
    let pages = parts.pages.map(|listener| {
        let pages = ProcessorPages::new(Arc::clone(&shared), parts.transport, connections);
        tokio::spawn(listener.serve(Arc::new(pages)))
    });

    let mut told = orders.clone();
    // whoever gives orders outlives us; if not, there is nobody left to work for. What this answers is a lock on the order:
    // kept, it would stop whoever gives the next one
    drop(told.wait_for(|o| *o == Order::Stop || *o == Order::StopNow).await);
    stats.abort();
    files.abort();
    shared.ending.shut();
    if timeout(GRACE, server).await.is_err() {
        tracing::info!("connections still open after 5 s; cutting them");
    }
    // what was handed in is written; nobody hands in more
    shared.counters.end();
    shared.stopping.store(true, Ordering::Release);
    // the guard goes before anything is awaited
    let mut ended = timeout(WRITING, finished.wait_for(|f| *f)).await.map(|f| f.is_ok());
    if ended.is_err() {
        tracing::warn!(
            "too many files to write now: calls are complete in the commit log, and the next start writes them to their files"
        );
        shared.late.store(true, Ordering::Release);
        ended = timeout(ENDING, finished.wait_for(|f| *f)).await.map(|f| f.is_ok());
    }
    match ended {
        Ok(true) => {}
        Ok(false) => return Err(ProcessorError::Panicked),
        Err(_) => return Err(ProcessorError::Stuck),
    }
    if let Some(above) = above {
        above.end(&orders).await?;
    }
    pressure.abort();
    pages.iter().for_each(JoinHandle::abort);
    let lately = shared.recent.lock().together();
    Ok(Outcome { counts: shared.counters.counts(), lately, upstream: shared.above() })
}

/// The road to the processor above, at work.
struct Climb {
    backlog: Arc<Backlog>,
    uplink: JoinHandle<Result<(), UplinkError>>,
    ending: watch::Sender<Ending>,
    spool: std::thread::JoinHandle<()>,
}

/// Opens the road to the processor above.
fn climb(parts: UpstreamParts, shared: &Arc<Shared>) -> Result<Climb, ProcessorError> {
    let UpstreamParts { uplink, queue, queue_limit, memory, listen_address, instance } = parts;
    let upstream = Arc::new(Upstream::new(shared.id.clone(), memory, queue_limit, instance));
    let backlog = Arc::clone(&upstream.backlog);
    let spool = spawn_spool(queue, &backlog)?;
    let (ending, told) = watch::channel(Ending::Run);
    // set once: there was none before
    let _first = shared.upstream.set(Arc::clone(&upstream));
    let plane = Arc::new(Plane { shared: Arc::clone(shared), upstream, listen_address, instance });
    let uplink = tokio::spawn(uplink::run(uplink, Arc::clone(&backlog), plane, told));
    Ok(Climb { backlog, uplink, ending, spool })
}

fn spawn_spool(queue: Queue<Disk>, backlog: &Arc<Backlog>) -> Result<std::thread::JoinHandle<()>, ProcessorError> {
    let spooler = Spooler::new(queue, Arc::clone(backlog));
    std::thread::Builder::new().name("lc-spool".to_owned()).spawn(move || spooler.run()).map_err(ProcessorError::Thread)
}

/// Sends up what an earlier run left in its queue, with the keys it came with, and receives nothing; returns once that is done or cannot be.
///
/// # Errors
/// [`ProcessorError`]; what was not acknowledged stays on disk.
pub async fn drain(parts: UpstreamParts, ending: watch::Receiver<Ending>) -> Result<BacklogSnapshot, ProcessorError> {
    let UpstreamParts { uplink, queue, memory, listen_address, instance, .. } = parts;
    let backlog = Arc::new(Backlog::new(upstream::room(memory)));
    let spool = spawn_spool(queue, &backlog)?;
    let drained = uplink::run(uplink, Arc::clone(&backlog), Arc::new(Alone { instance, listen_address }), ending).await;
    backlog.close_spool();
    spool.join().map_err(|_| ProcessorError::Panicked)?;
    drained?;
    Ok(backlog.snapshot())
}

impl Climb {
    /// After the last batch: what is not acknowledged soon is left to the files of the queue.
    async fn end(self, orders: &watch::Receiver<Order>) -> Result<(), ProcessorError> {
        let Self { backlog, uplink, ending, spool } = self;
        ending.send_replace(if *orders.borrow() == Order::StopNow { Ending::Now } else { Ending::Drain });
        let mut orders = orders.clone();
        let at_once = async {
            drop(orders.wait_for(|o| *o == Order::StopNow).await);
            ending.send_replace(Ending::Now);
            std::future::pending::<()>().await;
        };
        // without a time limit of its own the uplink ends well, always
        tokio::select! {
            ended = uplink => drop(ended),
            () = at_once => {}
        }
        backlog.close_spool();
        spool.join().map_err(|_| ProcessorError::Panicked)
    }
}

/// Starts the threads that write; the answer turns true when both have ended well.
///
/// # Errors
/// [`ProcessorError::Thread`], [`ProcessorError::State`].
pub(super) fn write(
    shared: Arc<Shared>,
    files: Files,
    mut jobs: mpsc::Receiver<Job>,
) -> Result<watch::Receiver<bool>, ProcessorError> {
    let (done, finished) = watch::channel(false);
    let Files { outputs, commit, mut reopen, checkpoint_bytes } = files;
    let mut life = Life::begin(&shared, outputs, commit, checkpoint_bytes)?;
    let fault = fault::here();
    let records = move || {
        fault.enter();
        let mut first = Vec::new();
        let ended = loop {
            let left = match life.run(&shared, first, &mut jobs) {
                Ended::Well => break true,
                Ended::Broken => break false,
                Ended::Failed(left) => left,
            };
            let Some(next) = start_over(&shared, &left, &mut reopen, checkpoint_bytes) else { break true };
            (life, first) = (next, left.jobs);
        };
        if ended {
            done.send_replace(true);
        }
    };
    std::thread::Builder::new().name("lc-record".to_owned()).spawn(records).map_err(ProcessorError::Thread)?;
    Ok(finished)
}

/// The files, and how they are opened once more after an error of the disk: from what is stored.
pub(super) struct Files {
    pub(super) outputs: Outputs,
    pub(super) commit: Commit,
    pub(super) reopen: Reopen,
    /// Bytes in the commit log between two checkpoints.
    pub(super) checkpoint_bytes: u64,
}

/// Both threads, from one opening of the files to the next.
struct Life {
    outputs: Outputs,
    line: Line,
    commits: Commits,
}

/// The commit thread, which never outlives its record thread.
struct Commits(Option<std::thread::JoinHandle<Left>>);

impl Commits {
    /// What it leaves; `None` when it panicked.
    fn join(mut self) -> Option<Left> {
        self.0.take()?.join().ok()
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        // where the record thread panics, the line between them is gone before
        self.0.take().map(std::thread::JoinHandle::join);
    }
}

enum Ended {
    /// The processor stops.
    Well,
    /// The disk does not confirm what was written.
    Failed(Left),
    /// A thread panicked.
    Broken,
}

impl Life {
    /// Starts the commit thread.
    fn begin(shared: &Arc<Shared>, outputs: Outputs, commit: Commit, checkpoint_bytes: u64) -> Result<Self, ProcessorError> {
        let (asks, asked) = std::sync::mpsc::sync_channel(ASKS);
        let progress = Arc::new(Progress::default());
        let (again, places) = (commit.again.clone(), commit.places.clone());
        let line = Line { asks, progress: Arc::clone(&progress), again, places, checkpoint_bytes };
        let committer = Committer::new(commit, Arc::clone(shared), progress).map_err(ProcessorError::State)?;
        let fault = fault::here();
        let commits = move || {
            fault.enter();
            committer.run(&asked)
        };
        let commits = std::thread::Builder::new().name("lc-commit".to_owned()).spawn(commits).map_err(ProcessorError::Thread)?;
        Ok(Self { outputs, line, commits: Commits(Some(commits)) })
    }

    /// The record thread's part.
    fn run(self, shared: &Arc<Shared>, first: Vec<Job>, jobs: &mut mpsc::Receiver<Job>) -> Ended {
        let Self { outputs, line, commits } = self;
        let end = record::run(Arc::clone(shared), outputs, first, jobs, line);
        match (end, commits.join()) {
            (End::Done, Some(_)) => Ended::Well,
            (End::GivenUp, Some(_)) => {
                tell_given_up();
                Ended::Well
            }
            (End::Unfinished, Some(_)) => {
                tracing::info!("call packets of the last process are still in the commit log; the next start goes on with it");
                Ended::Well
            }
            (End::Failed(theirs), Some(mut left)) => {
                left.jobs.extend(theirs);
                Ended::Failed(left)
            }
            (End::Broken, _) | (_, None) => Ended::Broken,
        }
    }
}

fn tell_given_up() {
    tracing::error!("stopping with a disk that takes no more; what was not acknowledged is left to the hunters");
}

/// After an error of fsync: goes back to what is stored and opens the files again, however often that has to be tried; `None` when the
/// processor is to stop before it succeeds.
fn start_over(shared: &Arc<Shared>, left: &Left, reopen: &mut Reopen, checkpoint_bytes: u64) -> Option<Life> {
    let mut said = String::new();
    while !shared.stopping.load(Ordering::Acquire) {
        let again = left
            .take_back()
            .map_err(Into::into)
            .and_then(|()| reopen())
            .and_then(|(outputs, commit)| Life::begin(shared, outputs, commit, checkpoint_bytes).map_err(Into::into));
        match again {
            Ok(life) => return Some(life),
            Err(e) => {
                let e = e.to_string();
                if e != said {
                    tracing::error!(error = %e, "the disk is still not well; hunters stay paused, and it is tried again");
                    said = e;
                }
            }
        }
        shared.note_alive();
        clock::pause(RETRY);
    }
    tell_given_up();
    None
}

pub(super) async fn serve<I>(
    incoming: impl Stream<Item = Result<I, Infallible>>,
    access: Access,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
) where
    I: AsyncRead + AsyncWrite + Connected<ConnectInfo = PeerInfo> + Unpin + Send + 'static,
{
    let management = ManagementServiceServer::new(Management::new(Arc::clone(&shared)))
        .max_decoding_message_size(CALL_MAX)
        .max_encoding_message_size(ANSWER_MAX);
    let routes = Routes::new(management).add_service(DataService::new(shared)).prepare();
    let service = AccessLayer(access).layer(routes);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stopped(orders.clone()));
    {
        // gone with the loop, so that nobody waits for a connection that is not accepted
        let mut incoming = pin!(incoming);
        loop {
            tokio::select! {
                () = &mut stop => break,
                next = incoming.next() => {
                    let Some(Ok(io)) = next else { break };
                    connections.spawn(http2::serve(io, service.clone(), stopped(orders.clone())));
                }
                Some(_ended) = connections.join_next() => {}
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Returns when the processor is told to end.
async fn stopped(mut orders: watch::Receiver<Order>) {
    let _told = orders.wait_for(|o| *o == Order::Stop || *o == Order::StopNow).await;
}

/// Does what takes long, as the filter of a monitor or a long log does, on a thread of its own; `None`: it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Puts the filter file in force whenever it changes or somebody asks; a bad one leaves the old set in force.
async fn follow_file(path: Option<PathBuf>, shared: Arc<Shared>, mut orders: watch::Receiver<Order>) {
    let Some(path) = path else { return };
    // looked at once more at the start: it may have changed, or come, since it was read for the first time
    let mut seen: Stamp = None;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            changed = orders.changed() => changed.is_ok() && matches!(*orders.borrow(), Order::Reload(_)),
        };
        let now = stamp(&path);
        if !asked && now == seen {
            continue;
        }
        seen = now;
        match read_file(&path).and_then(|filters| shared.filters.replace(filters, "file")) {
            Ok(change) if change.is_empty() && !asked => {}
            Ok(change) => {
                RELOADS.succeeded();
                tracing::info!(name: OPERATOR, version = change.version, filters = shared.filters.len(), "filter file in force");
            }
            Err(e) => {
                RELOADS.failed();
                tracing::error!(error = %e, "filter file not used; the filters in force stay");
            }
        }
    }
}

type Stamp = Option<(Option<SystemTime>, u64, u64)>;

fn stamp(path: &std::path::Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let m = std::fs::metadata(path).ok()?;
    Some((m.modified().ok(), m.len(), m.ino()))
}

/// Flow control, ten times a second; reminders and the windows of losses, once.
pub(super) async fn watch_pressure(shared: Arc<Shared>) {
    let mut ticks = interval(PRESSURE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = 0_u32;
    loop {
        ticks.tick().await;
        shared.look();
        n = n.wrapping_add(1);
        if n.is_multiple_of(10) {
            shared.remind();
            shared.recent.lock().tick(Instant::now(), shared.counters.counts().losses());
            shared.note_memory(memory::look().short);
            if let Some(doors) = shared.doors.get() {
                doors.access.answers.cut_late();
            }
        }
    }
}

pub(super) async fn tell_stats(shared: Arc<Shared>, wanted: bool) {
    let mut ticks = interval(STATS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = 0;
    loop {
        ticks.tick().await;
        refused = tell_refusals(&shared, refused);
        shared.below.lock().expire(shared.clock.now());
        let gone = shared.roster.lock().expire(shared.clock.now());
        for id in gone {
            shared.filters.forget(&id);
            tracing::info!(hunter = %id, "hunter forgotten: silent for 5 minutes");
        }
        if wanted {
            let hunters = shared.roster.lock().len();
            let c = shared.counters.counts();
            tracing::info!(
                hunters,
                filters = shared.filters.len(),
                received = c.received,
                unique = c.unique,
                duplicate = c.duplicate,
                committed = c.committed,
                in_queue = c.in_queue,
                dropped = c.dropped,
                doubled = c.doubled,
                unwanted = c.unwanted,
                declared = c.declared,
                undeclared = c.undeclared,
                lately = %shared.recent.lock().together(),
                flow = shared.level().name(),
                subscribers = shared.monitors.len(),
                skipped = shared.monitors.figures().skipped,
                refused = %c.refused(),
                difference = %c.difference(),
                "statistics"
            );
            if let Some(above) = shared.above() {
                let b = &above.backlog;
                tracing::info!(
                    processor = above.link.connected.as_deref().unwrap_or("none"),
                    offered = b.offered_packets,
                    recovered = b.recovered_packets,
                    acknowledged = b.acked_packets,
                    delivery = above.delivery(),
                    in_memory = b.in_memory_packets,
                    on_disk = b.on_disk_packets,
                    dropped = b.dropped(),
                    spool_bytes = b.spool_bytes,
                    asked = above.asked(),
                    difference = above.imbalance(),
                    "passing on"
                );
            }
        }
    }
}

/// A line when connections or calls were refused since the last one; returns how many there were so far.
fn tell_refusals(shared: &Shared, before: u64) -> u64 {
    let Some(doors) = shared.doors.get() else { return 0 };
    let (c, calls, bodies) = (doors.connections.read(), doors.access.counts(), doors.access.intake.counts());
    let answers = doors.access.answers.counts();
    let ended = bodies.refused().saturating_add(answers.refused).saturating_add(answers.late);
    let total = c.refused().saturating_add(calls.total()).saturating_add(ended);
    if total > before {
        tracing::warn!(
            open = c.open,
            accepted = c.accepted,
            too_many = c.refused_full.saturating_add(c.refused_address).saturating_add(c.refused_identity),
            no_memory = c.refused_memory,
            handshakes = c.handshakes_late.saturating_add(c.handshakes_failed).saturating_add(c.not_http2),
            revoked = c.revoked,
            silent = c.silent,
            unknown_methods = calls.unknown_method,
            unauthenticated = calls.wrong_key.saturating_add(calls.nameless),
            wrong_role = calls.wrong_role,
            large = bodies.large,
            crowded = bodies.crowded,
            slow = bodies.slow,
            streams = bodies.streams,
            answers = answers.refused,
            not_taken = answers.late,
            "connections and calls refused so far"
        );
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_holds_no_lock_while_it_waits() {
        fn is_send<F: Send>(_: impl Fn(Parts, watch::Receiver<Order>) -> F) {}

        is_send(run);
    }
}
