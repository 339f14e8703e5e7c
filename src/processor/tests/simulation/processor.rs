//! A processor: the real services, ingest, pressure, record and commit threads, on turmoil's network; its files are real ones in a
//! directory of memory, and what was not synced is lost with the power.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::network::{Cost, PORT, SimRoad, listen};
use crate::filter::{Filter, FilterKind};
use crate::net::{Dialer, Target};
use crate::processor::Order;
use crate::processor::access::Access;
use crate::processor::branches::record::{self, End, Outputs};
use crate::processor::commit::{Ask, Commit, Committer, Durability, Left, Line, Progress, Recovered, recover};
use crate::processor::ingest::Ingest;
use crate::processor::monitors::Monitors;
use crate::processor::shared::{Doors, Job, Shared};
use crate::processor::topology::{serve, tell_stats, watch_pressure};
use crate::processor::upstream::{Plane, Upstream};
use crate::record::calls::{CallFiles, CallFilesConfig, Layout};
use crate::record::dir::{Access as DirAccess, Dir, MinFree};
use crate::record::fault::{Crash, Witness};
use crate::record::name::{Pattern, Purpose};
use crate::record::rotate::{RotateConfig, Rotating};
use crate::record::state::{Acked, Places};
use crate::record::unified::Unified;
use crate::spool::{Disk, Queue, SpoolConfig, SpoolError, SpoolFull, unlocked};
use crate::telemetry::clock;
use crate::telemetry::clock::played::{Actor, Play};
use crate::uplink::{self, Backlog, Ending, Party, Spooler, UplinkConfig, UplinkError};

/// What kind of processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) durability: Durability,
    pub(super) unified: &'static str,
    pub(super) calls: &'static str,
    pub(super) layout: Layout,
    /// Between two turns of its threads.
    pub(super) lag: Duration,
    /// Connections are rolled at this age.
    pub(super) age: Option<Duration>,
    /// Batches that wait for the record thread.
    pub(super) jobs: usize,
    /// The processor above.
    pub(super) above: Option<usize>,
    /// Hunters it has room for.
    pub(super) hunters: usize,
    /// Another one that it names to them.
    pub(super) peer: Option<usize>,
}

/// A processor over all its lives.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) root: PathBuf,
    pub(super) kind: Kind,
    cost: Cost,
    play: Arc<Play>,
    /// The process at hand: when it ends, and what it has made durable.
    pub(super) crash: RefCell<Arc<Crash>>,
    actors: RefCell<Vec<Actor>>,
    spool: RefCell<Option<Actor>>,
    pub(super) shared: RefCell<Option<Arc<Shared>>>,
    pub(super) stop: Cell<bool>,
    /// Times its disk did not confirm, in lives that are over.
    pub(super) refused: Cell<u64>,
}

/// What the record thread hands over once it has begun.
struct Begun {
    shared: Arc<Shared>,
    commits: Commits,
    queue: Option<Queue<Disk>>,
}

/// What the commit thread takes, from one opening of the files to the next, and where it leaves what was not stored.
struct Commits {
    taken: Receiver<(Committer, Receiver<Ask>)>,
    left: SyncSender<Left>,
}

impl Commits {
    fn run(self) {
        while let Some((committer, asked)) = clock::receive(&self.taken) {
            clock::send(&self.left, committer.run(&asked));
        }
    }
}

impl Node {
    pub(super) fn new(index: usize, root: &Path, kind: Kind, cost: Cost, play: &Arc<Play>) -> Rc<Self> {
        let root = root.join(format!("p{index}"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(root.join("state")).unwrap();
        Rc::new(Self {
            name: format!("p{index}"),
            root,
            kind,
            cost,
            play: Arc::clone(play),
            crash: RefCell::new(Crash::after(u64::MAX, Witness::default())),
            actors: RefCell::default(),
            spool: RefCell::default(),
            shared: RefCell::default(),
            stop: Cell::new(false),
            refused: Cell::new(0),
        })
    }

    /// P1 and P2 of this instant, the equations of the road upwards and of monitors.
    pub(super) fn check(&self, way: &mut impl Hasher) -> Result<(), String> {
        let Some(shared) = &*self.shared.borrow() else { return Ok(()) };
        let counts = shared.counters.counts();
        [counts.received, counts.unique, counts.committed, counts.in_queue].hash(way);
        let above = shared.above().map_or(0, |a| a.imbalance());
        let watched = shared.monitors.figures();
        [watched.offered, watched.delivered, watched.skipped].hash(way);
        // with its host dies what was in its queue
        if (counts.imbalance() == [0, 0] || self.is_dead()) && above == 0 && watched.imbalance() == 0 {
            Ok(())
        } else {
            Err(format!("{}: {}: {counts:?} {watched:?}", self.name, counts.difference()))
        }
    }

    /// Its host has crashed, or it has ended: the threads end where they are. The next life ends after `steps` changes of its files.
    pub(super) fn ended(&self, steps: u64, lose_power: Option<&mut dyn FnMut(u64) -> u64>) {
        self.shared.take();
        self.crash.borrow().kill();
        for actor in self.actors.take().into_iter().chain(self.spool.take()) {
            if let Err(panic) = actor.kill() {
                std::panic::resume_unwind(panic);
            }
        }
        self.refused.set(self.refused.get() + self.crash.borrow().refused());
        let mut witness = self.crash.borrow().witness();
        if let Some(choose) = lose_power.filter(|_| self.kind.durability == Durability::Disk) {
            let dirs: Vec<PathBuf> =
                ["", "calls", "rotating", "state", "state/commit-log", "upstream"].map(|d| self.root.join(d)).into();
            witness.lose_power(&dirs.iter().map(PathBuf::as_path).collect::<Vec<_>>(), choose);
        }
        // a disk that was full, slow or deaf is well again at the start
        self.crash.replace(Crash::after(steps, witness));
    }

    /// From here on its disk does not confirm so many times, where it is asked at all.
    pub(super) fn do_not_confirm(&self, times: u64) {
        if self.kind.durability == Durability::Disk {
            self.crash.borrow().fail_syncs(0, times);
        }
    }

    /// Puts other filters in force, so that whoever follows them is told.
    pub(super) fn change_filters(&self, n: u64) {
        if let Some(shared) = &*self.shared.borrow() {
            let filters = (0..3).map(|i| Filter::new(format!("f{i}"), FilterKind::SipUser, format!("user{n}"))).collect();
            shared.filters.replace(filters, "the test").unwrap();
        }
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let shared = self.shared.borrow();
        shared.as_ref().map_or_else(String::new, |s| {
            format!("{:?} {:?} {:?}", s.counters.counts(), s.above().map(|a| a.backlog), s.ingest.snapshot())
        })
    }

    /// Whether its process has ended at a change of its files.
    pub(super) fn is_dead(&self) -> bool {
        self.crash.borrow().is_dead()
    }

    /// Lets the thread of the queue for the processor above act; false once it has ended.
    fn act_spool(&self) -> bool {
        let spool = self.spool.borrow();
        spool.iter().for_each(Actor::act);
        spool.as_ref().is_some_and(|s| !s.has_ended())
    }

    /// Whether it has begun, and everything is with the processor above.
    pub(super) fn has_passed_on(&self) -> bool {
        let shared = self.shared.borrow();
        shared.as_ref().is_some_and(|s| s.upstream.get().is_none_or(|u| u.backlog.is_drained()))
    }

    /// Lets its threads act; false once they have ended.
    fn act(&self) -> bool {
        self.act_spool();
        let actors = self.actors.borrow();
        actors.iter().for_each(Actor::act);
        !actors.iter().all(Actor::has_ended)
    }
}

/// Bytes in the queue for the processor above.
const QUEUE: u64 = 1 << 20;
/// A disk that is not well is tried again after this.
const RETRY: Duration = Duration::from_millis(500);
/// Monitors at once.
const MONITORS: usize = 3;
/// Bytes that wait for one: some batches.
const RING: usize = 2000;

/// The files, as they are found.
fn open(root: &Path, kind: Kind) -> Result<(Vec<Acked>, Outputs, Commit), Box<dyn Error + Send + Sync>> {
    let state_dir = Dir::open(root.join("state"), DirAccess::Private, MinFree::NONE)?;
    let places = Places { unified: Some(root.into()), calls: Some(root.join("calls")), rotating: Some(root.join("rotating")) };
    let stopping = AtomicBool::new(false);
    let recover = || recover(&state_dir, kind.durability, MinFree::NONE, places.clone(), &stopping);
    let Recovered { state, commit } = unlocked(recover)?;
    let pattern = |p, purpose| Pattern::parse(p, purpose).unwrap();
    let cfg = CallFilesConfig {
        min_free: MinFree::NONE,
        layout: kind.layout,
        max_file_bytes: 3000,
        block_bytes: 700,
        max_open_files: 3,
        ..CallFilesConfig::new(pattern(kind.calls, Purpose::Call))
    };
    let mut calls = CallFiles::open(&root.join("calls"), cfg)?;
    calls.restore(&state.calls);
    let unified = Unified::open(&root.join(kind.unified), None, MinFree::NONE, state.unified)?.bypassing_cache(700);
    let cfg = RotateConfig {
        max_bytes: 1500,
        block_bytes: 300,
        min_free: MinFree::NONE,
        ..RotateConfig::new(pattern("{timestamp}.pcap", Purpose::Rotating))
    };
    let rotating = Rotating::open(&root.join("rotating"), cfg)?;
    let outputs = Outputs {
        unified: Some(unified),
        calls: Some(calls),
        rotating: Some(rotating),
        memory: state.memory,
        losses: state.losses,
        times: crate::voip::expiry::CallTimes::default(),
        grace: Duration::from_secs(5),
        retain_age: Duration::ZERO,
    };
    Ok((state.acked, outputs, commit))
}

/// What waits for the processor above.
fn open_queue(id: &str, root: &Path, kind: Kind) -> Result<Queue<Disk>, SpoolError> {
    let disk = unlocked(|| Disk::lock(&root.join("upstream")))?;
    let config = SpoolConfig {
        hunter_id: format!("processor:{id}"),
        max_bytes: QUEUE,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 4 << 10,
        sync_after: Duration::from_millis(50),
        sync_bytes: 2 << 10,
    };
    Queue::open(if kind.durability == Durability::Disk { disk } else { disk.volatile() }, config)
}

/// The road to the processor above, at work.
struct Climb {
    backlog: Arc<Backlog>,
    uplink: JoinHandle<Result<(), UplinkError>>,
    ending: watch::Sender<Ending>,
}

/// Opens it.
fn climb(node: &Node, crash: Arc<Crash>, shared: &Arc<Shared>, queue: Queue<Disk>, above: usize) -> Climb {
    let instance = u64::try_from(clock::wall().as_nanos()).unwrap();
    let upstream = Arc::new(Upstream::new(shared.id.clone(), 64 << 10, QUEUE, instance));
    let backlog = Arc::clone(&upstream.backlog);
    let spooler = Spooler::new(queue, Arc::clone(&backlog));
    let actor = Actor::new(&node.play, Handle::current(), move || {
        crash.enter();
        spooler.run();
    });
    node.spool.replace(Some(actor));
    let (ending, told) = watch::channel(Ending::Run);
    shared.upstream.set(Arc::clone(&upstream)).ok().unwrap();
    let config = UplinkConfig {
        party: Party::Processor,
        hunter_id: shared.id.as_str().into(),
        targets: vec![Target { host: format!("p{above}"), port: PORT }],
        dialer: Dialer::over(Arc::new(SimRoad(node.cost))),
        connect_timeout: None,
        // it is judged by whether all is on top after its last stop
        drain_timeout: Duration::from_mins(1),
        seed: instance,
    };
    let plane = Arc::new(Plane { shared: Arc::clone(shared), upstream, listen_address: String::new(), instance });
    let uplink = tokio::task::spawn_local(uplink::run(config, Arc::clone(&backlog), plane, told));
    Climb { backlog, uplink, ending }
}

/// The record thread, from the start on; over again from what is stored when the disk does not confirm, as in `topology::write`.
fn records(name: String, root: &Path, kind: Kind, begun: &SyncSender<Begun>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (known, outputs, commit) = open(root, kind)?;
    let (jobs, mut queue): (_, mpsc::Receiver<Job>) = mpsc::channel(kind.jobs);
    let mut shared = Shared::new(name, true, kind.hunters, Ingest::restore(&known), 1, kind.durability, jobs);
    shared.monitors = Monitors::new(MONITORS).with_rings(RING);
    let shared = Arc::new(shared);
    let peers = kind.peer.map(|p| format!("p{p}:{PORT}")).into_iter().collect();
    shared.doors.set(Doors { connections: Arc::default(), access: Access::new(true, None), peers }).ok().unwrap();
    let (give, taken) = sync_channel(1);
    let (left, back) = sync_channel(1);
    let mut line = begin(&shared, commit, &give)?;
    let up = kind.above.map(|_| open_queue(&shared.id, root, kind)).transpose()?;
    begun.send(Begun { shared: Arc::clone(&shared), commits: Commits { taken, left }, queue: up }).unwrap();
    let (mut outputs, mut first) = (outputs, Vec::new());
    while let End::Failed(theirs) = record::run(Arc::clone(&shared), outputs, first, &mut queue, line) {
        let mut left = clock::receive(&back).unwrap();
        left.jobs.extend(theirs);
        let again = || {
            left.take_back()?;
            let (_, outputs, commit) = open(root, kind)?;
            Ok::<_, Box<dyn Error + Send + Sync>>((outputs, begin(&shared, commit, &give)?))
        };
        (outputs, line) = loop {
            if shared.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            match again() {
                Ok(again) => break again,
                Err(_) => clock::pause(RETRY),
            }
        };
        first = left.jobs;
    }
    Ok(())
}

/// Gives the commit thread what is open.
fn begin(
    shared: &Arc<Shared>,
    commit: Commit,
    give: &SyncSender<(Committer, Receiver<Ask>)>,
) -> Result<Line, Box<dyn Error + Send + Sync>> {
    let (asks, asked) = sync_channel(4);
    let progress = Arc::new(Progress::default());
    let (again, places) = (commit.again.clone(), commit.places.clone());
    let line = Line { asks, progress: Arc::clone(&progress), again, places, checkpoint_bytes: 4000 };
    let committer = Committer::new(commit, Arc::clone(shared), progress)?;
    clock::send(give, (committer, asked));
    Ok(line)
}

/// One life, until its host crashes or it is told to stop.
pub(super) async fn run(node: Rc<Node>) -> turmoil::Result {
    let (kind, crash) = (node.kind, Arc::clone(&node.crash.borrow()));
    let (begun, begins) = sync_channel(1);
    let (name, root, of) = (node.name.clone(), node.root.clone(), Arc::clone(&crash));
    let actor = Actor::new(&node.play, Handle::current(), move || {
        of.enter();
        if records(name, &root, kind, &begun).is_err() {
            // a start that its disk does not confirm is none
            of.kill();
        }
    });
    node.actors.borrow_mut().push(actor);
    let Begun { shared, commits, queue } = loop {
        node.act();
        if let Ok(begun) = begins.try_recv() {
            break begun;
        }
        sleep(kind.lag).await;
    };
    let of = Arc::clone(&crash);
    let actor = Actor::new(&node.play, Handle::current(), move || {
        of.enter();
        commits.run();
    });
    let road = queue.zip(kind.above).map(|(queue, above)| climb(&node, crash, &shared, queue, above));
    node.actors.borrow_mut().push(actor);
    node.shared.replace(Some(Arc::clone(&shared)));

    let (orders, told) = watch::channel(Order::Run);
    let server = tokio::spawn(serve(listen(kind.age, node.cost).await?, Access::new(true, None), Arc::clone(&shared), told));
    tokio::spawn(watch_pressure(Arc::clone(&shared)));
    tokio::spawn(tell_stats(Arc::clone(&shared), false));
    let threads = Rc::clone(&node);
    let threads = tokio::task::spawn_local(async move {
        while threads.act() {
            sleep(kind.lag).await;
        }
    });
    // one that is stopped before it has read its log leaves that to the next, and this may be the last
    let begins = || !(shared.begun.load(Ordering::Acquire) || shared.gauge().is_disk_full() || node.is_dead());
    while !node.stop.get() || begins() {
        sleep(Duration::from_millis(20)).await;
    }
    orders.send_replace(Order::Stop);
    shared.ending.shut();
    let _cut = timeout(Duration::from_secs(5), server).await;
    shared.counters.end();
    shared.stopping.store(true, Ordering::Release);
    threads.await?;
    if let Some(Climb { backlog, uplink, ending }) = road {
        ending.send_replace(Ending::Drain);
        // what it waits for is with the disk queue's thread
        let spool = Rc::clone(&node);
        let spool = tokio::task::spawn_local(async move {
            while spool.act_spool() {
                sleep(kind.lag).await;
            }
        });
        uplink.await??;
        backlog.close_spool();
        spool.await?;
    }
    Ok(())
}
