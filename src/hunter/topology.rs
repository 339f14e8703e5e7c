//! Every thread, task and channel of a hunter.
//!
//! ```text
//!  capture thread ×N  ──offer──▶ Backlog (bounded, DropOldest live · Block files) ──▶ uplink task ──▶ processor
//!        ▲  FilterSlot, own connections, stop flag                                        │
//!        │                              ▲ │ staged, fed back                              │
//!        │                              │ ▼                                               │
//!        │                         spool thread ──▶ files                                 │
//!        └──────────────────────────────── Plane (filters, heartbeat facts) ◀─────────────┘
//!
//!  state thread ◀─bool─ at a stop: writes once a second what is known of every packet; waits for nobody, and nobody for it
//!
//!  seconds task: windows of losses        pages task: figures and health over HTTP, bounded, read only
//!
//!  shutdown: stop flag → capture threads end, seal, publish → uplink drains (acknowledged, or left to the spool, or given up, counted)
//!            → goodbye → the spool thread writes what is in memory and closes its files → the state thread says that all is accounted for
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use crate::batch::{Encoder, EncoderConfig, Epoch, Limits};
use crate::capture::{CaptureError, Outages, Source};
use crate::engine::{EngineConfig, Guarded};
use crate::filter::{BpfCompiler, CompileOptions, Filter};
use crate::flow::PacketTime;
use crate::net::{PageListener, Transport};
use crate::spool::{Disk, Queue};
use crate::telemetry::{clock, memory};
use crate::uplink::{
    self, Backlog, BacklogConfig, BacklogSnapshot, Control, Durability, Ending, Spooler, UplinkConfig, UplinkError,
};

use super::control::{Facts, Plane};
use super::inspect::{Inspector, Shared};
use super::names::Names;
use super::pages::HunterPages;
use super::unaccounted::{Account, Recorder};
use super::{Hunt, HunterError, Report};

/// A statistics line this often.
const STATS: Duration = Duration::from_secs(5);
/// Losses are noted this often.
const SECOND: Duration = Duration::from_secs(1);

/// What a hunter is made of.
pub struct Parts {
    /// One source per capture thread; files: one.
    pub sources: Vec<Box<dyn Source>>,
    /// Files: wait for filters first, never drop, end with them.
    pub offline: bool,
    /// Stop after this many frames (per thread).
    pub count: Option<u64>,
    /// The inspection.
    pub engine: EngineConfig,
    /// Compiles BPF filters.
    pub bpf: Arc<dyn BpfCompiler + Send + Sync>,
    /// How filters are compiled.
    pub compile: CompileOptions,
    /// Filters named on this machine, and named anew.
    pub local: watch::Receiver<Vec<Filter>>,
    /// When a batch is full.
    pub limits: Limits,
    /// How much may wait in memory.
    pub backlog: BacklogConfig,
    /// Where the rest waits; as [`BacklogConfig::durability`] says.
    pub spool: Option<Queue<Disk>>,
    /// Where it is written down what is known of every packet, for the case that this process is killed.
    pub account: Option<Account>,
    /// What is said at registration; epochs are added here.
    pub facts: Facts,
    /// The road to the processor.
    pub uplink: UplinkConfig,
    /// Where figures and health are asked for.
    pub pages: Option<PageListener>,
    /// What they say of the connection.
    pub transport: Transport,
    /// And of the disk queue: how many bytes it may take.
    pub spool_limit: u64,
}

/// The channel on which a hunter is told to end.
pub fn endings() -> (watch::Sender<Ending>, watch::Receiver<Ending>) {
    watch::channel(Ending::Run)
}

/// The channel on which filters named on this machine come, the first of them being these.
pub fn local_filters(first: Vec<Filter>) -> (watch::Sender<Vec<Filter>>, watch::Receiver<Vec<Filter>>) {
    watch::channel(first)
}

/// Builds and runs a hunter until its source ends or it is told to end.
///
/// # Errors
/// [`HunterError`].
pub async fn run(mut parts: Parts, ending: watch::Receiver<Ending>) -> Result<Report, HunterError> {
    let backlog = Arc::new(Backlog::new(parts.backlog));
    // a file's name is for nobody's dashboard
    let name = |source: &dyn Source| if parts.offline { "file".to_owned() } else { source.describe() };
    let shared = Shared::of(Arc::clone(&backlog), parts.sources.iter().map(|source| name(&**source)).collect());
    let shared = Arc::new(shared.sealing_at(parts.limits.packets.into()));
    let spooler = parts.spool.take().map(|queue| {
        let shared = Arc::clone(&shared);
        Spooler::new(queue, Arc::clone(&backlog)).telling(move || shared.promise.ask())
    });
    let spool = spooler.map(spawn_spool).transpose()?;
    let epochs: Vec<Epoch> =
        (0..parts.sources.len()).map(|n| Epoch::starting(clock::wall(), (parts.facts.instance, n))).collect();
    let account = parts.account.take();
    parts.facts.earlier = account.as_ref().map(|account| account.earlier.clone()).unwrap_or_default();
    let instance = parts.facts.instance;
    let account = account.map(|account| spawn_account(account, epochs.clone(), instance, &shared)).transpose()?;
    let seconds = tokio::spawn(every_second(Arc::clone(&shared)));
    let pages = parts.pages.take().map(|listener| {
        let (id, transport) = (Arc::clone(&parts.uplink.hunter_id), std::mem::take(&mut parts.transport));
        let pages = HunterPages::new(Arc::clone(&shared), id, transport, parts.spool_limit);
        tokio::spawn(listener.serve(Arc::new(pages)))
    });
    let hunted = hunt(parts, epochs, &shared, ending).await;
    // also after an error: what was taken over is not lost for it
    if let Some(thread) = spool {
        backlog.close_spool();
        thread.join().map_err(|_| HunterError::Panicked)?;
    }
    if let Some((told, thread)) = account {
        // what a thread had that is gone is nowhere
        let stopped = !matches!(hunted, Err(HunterError::Panicked));
        let _ended = told.send(stopped);
        shared.promise.wake();
        thread.join().map_err(|_| HunterError::Panicked)?;
    }
    seconds.abort();
    pages.iter().for_each(JoinHandle::abort);
    Ok(hunted?.report(&shared))
}

/// Notes what was lost, for the windows.
async fn every_second(shared: Arc<Shared>) {
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        shared.tick();
        memory::look();
    }
}

fn spawn_spool(spooler: Spooler<Disk>) -> Result<std::thread::JoinHandle<()>, HunterError> {
    std::thread::Builder::new().name("lc-spool".to_owned()).spawn(move || spooler.run()).map_err(HunterError::Thread)
}

fn spawn_account(account: Account, epochs: Vec<Epoch>, instance: u64, shared: &Arc<Shared>) -> Result<Accounting, HunterError> {
    let recorder = Recorder::new(account, epochs, instance, Arc::clone(shared));
    let (told, end) = sync_channel(1);
    let thread = std::thread::Builder::new().name("lc-state".to_owned()).spawn(move || recorder.run(&end));
    Ok((told, thread.map_err(HunterError::Thread)?))
}

/// The state thread, and where it is told that the hunter has stopped.
type Accounting = (SyncSender<bool>, std::thread::JoinHandle<()>);

/// Sends what an earlier run left on disk, capturing nothing; returns once that is done or cannot be.
///
/// # Errors
/// [`HunterError`]; what was not acknowledged stays on disk.
pub async fn drain(
    queue: Queue<Disk>,
    room: BacklogConfig,
    facts: Facts,
    uplink: UplinkConfig,
    ending: watch::Receiver<Ending>,
) -> Result<BacklogSnapshot, HunterError> {
    let backlog = Arc::new(Backlog::new(BacklogConfig { durability: Durability::Spill, ..room }));
    let spool = spawn_spool(Spooler::new(queue, Arc::clone(&backlog)))?;
    let shared = Arc::new(Shared::new(Arc::clone(&backlog), 0));
    let control: Arc<dyn Control> = Arc::new(Plane::new(facts, shared, CompileOptions::default(), Vec::new()));
    let drained = uplink::run(uplink, Arc::clone(&backlog), control, ending).await;
    backlog.close_spool();
    spool.join().map_err(|_| HunterError::Panicked)?;
    drained.map_err(HunterError::Uplink)?;
    Ok(backlog.snapshot())
}

async fn hunt(
    mut parts: Parts,
    epochs: Vec<Epoch>,
    shared: &Arc<Shared>,
    ending: watch::Receiver<Ending>,
) -> Result<Hunt, HunterError> {
    let backlog = &shared.backlog;
    parts.facts.epochs.clone_from(&epochs);
    let registered: Arc<[String]> = parts.facts.interfaces.clone().into();
    let first = parts.local.borrow_and_update().clone();
    let plane = Arc::new(Plane::new(parts.facts, Arc::clone(shared), parts.compile, first));
    let _renewal = renew_local(Arc::clone(&plane), parts.local);
    let hunter_id = Arc::clone(&parts.uplink.hunter_id);

    let (uplink_ending, uplink_told) = watch::channel(Ending::Run);
    let control: Arc<dyn Control> = Arc::clone(&plane) as Arc<dyn Control>;
    let mut uplink = tokio::spawn(uplink::run(parts.uplink, Arc::clone(backlog), control, uplink_told));
    if parts.offline {
        // a file is over before a filter could come: it waits for the registration
        if let Some(early) = wait_for_filters(shared, &mut uplink, &mut ending.clone()).await? {
            return Ok(early);
        }
    }

    let (failed, mut failures) = mpsc::channel::<CaptureError>(parts.sources.len().max(1));
    let mut threads = Vec::new();
    for (index, (mut source, epoch)) in parts.sources.into_iter().zip(&epochs).enumerate() {
        if let Some(ahead) = source.read_ahead() {
            let reader = std::thread::Builder::new().name(format!("lc-read-{index}")).spawn(move || ahead.run());
            threads.push(reader.map_err(HunterError::Thread)?);
        }
        let inspector = Inspector {
            source,
            engine: Guarded::new(parts.engine, shared.filters.current(), Arc::clone(&parts.bpf)),
            encoder: Encoder::new(EncoderConfig { hunter_id: Arc::clone(&hunter_id), epoch: *epoch, limits: parts.limits }),
            names: Names::new(Arc::clone(&registered)),
            outages: Outages::default(),
            index,
            offline: parts.offline,
            count: parts.count,
            time: PacketTime::default(),
            shared: Arc::clone(shared),
        };
        let failed = failed.clone();
        let work = move || {
            if let Err(e) = inspector.run() {
                // the receiver is only gone when the hunter has ended
                let _told = failed.blocking_send(e);
            }
        };
        threads.push(std::thread::Builder::new().name(format!("lc-capture-{index}")).spawn(work).map_err(HunterError::Thread)?);
    }
    drop(failed);

    let mut failure = None;
    let result = supervise(shared, &mut uplink, ending, &uplink_ending, (&mut failures, &mut failure)).await;
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        if thread.join().is_err() {
            return Err(HunterError::Panicked);
        }
    }
    if let Some(error) = failure.or_else(|| failures.try_recv().ok()) {
        return Err(HunterError::Capture(error));
    }
    result?;
    Ok(Hunt::Finished)
}

/// A task that ends with whoever asked for it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Puts filters in force that are named anew on this machine.
fn renew_local(plane: Arc<Plane>, mut local: watch::Receiver<Vec<Filter>>) -> Task {
    Task(tokio::spawn(async move {
        while local.changed().await.is_ok() {
            let filters = local.borrow_and_update().clone();
            plane.set_local(filters);
        }
    }))
}

type Uplink = JoinHandle<Result<(), UplinkError>>;

async fn wait_for_filters(
    shared: &Shared,
    uplink: &mut Uplink,
    ending: &mut watch::Receiver<Ending>,
) -> Result<Option<Hunt>, HunterError> {
    tokio::select! {
        ended = &mut *uplink => {
            joined(ended)?;
            Ok(Some(Hunt::NeverStarted))
        }
        _ = ending.wait_for(|e| *e != Ending::Run) => Ok(Some(Hunt::NeverStarted)),
        () = shared.filters.known() => Ok(None),
    }
}

/// Waits for the end of the capture, then for the end of the uplink. `failures` ends with the last capture thread; the first
/// of them is kept.
async fn supervise(
    shared: &Shared,
    uplink: &mut Uplink,
    mut ending: watch::Receiver<Ending>,
    uplink_ending: &watch::Sender<Ending>,
    (failures, first): (&mut mpsc::Receiver<CaptureError>, &mut Option<CaptureError>),
) -> Result<(), HunterError> {
    let mut stats = interval_at(Instant::now() + STATS, STATS);
    let mut said = false;
    loop {
        tokio::select! {
            ended = &mut *uplink => return joined(ended),
            told = ending.wait_for(|e| *e != Ending::Run) => {
                let how = told.map_or(Ending::Now, |e| *e);
                shared.stop.store(true, Ordering::Relaxed);
                if how == Ending::Now {
                    uplink_ending.send_replace(Ending::Now);
                    return joined(uplink.await);
                }
                break;
            }
            failure = failures.recv() => match failure {
                Some(e) => *first = first.take().or(Some(e)),
                None => break,
            },
            _ = stats.tick() => super::stats_line(shared, &mut said),
        }
    }
    while let Some(e) = failures.recv().await {
        *first = first.take().or(Some(e));
    }
    uplink_ending.send_replace(Ending::Drain);
    tokio::select! {
        ended = &mut *uplink => return joined(ended),
        _ = ending.wait_for(|e| *e == Ending::Now) => {}
    }
    uplink_ending.send_replace(Ending::Now);
    match timeout(Duration::from_secs(2), uplink).await {
        Ok(ended) => joined(ended),
        Err(_) => Ok(()),
    }
}

fn joined(ended: Result<Result<(), UplinkError>, tokio::task::JoinError>) -> Result<(), HunterError> {
    match ended {
        Ok(result) => result.map_err(HunterError::Uplink),
        Err(_) => Err(HunterError::Panicked),
    }
}
