//! A hunter: the real backlog, spool and uplink, fed with numbered packets; and the book of what became of them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::disk::{Facts as DiskFacts, SpoolDisk};
use super::network::{Cost, PORT, SimRoad};
use super::packets::{PER_HUNTER, push};
use crate::batch::{BatchStats, Encoder, EncoderConfig, Epoch, Limits, SealedBatch};
use crate::filter::{CompileOptions, Mode};
use crate::hunter::Facts;
use crate::hunter::control::Plane;
use crate::hunter::inspect::Shared;
use crate::net::{Dialer, Target};
use crate::record::dir::MinFree;
use crate::spool::{self, Item, Queue, SpoolConfig, SpoolError, SpoolFull};
use crate::telemetry::clock;
use crate::uplink::{
    self, Backlog, BacklogConfig, BacklogSnapshot, Control, Durability, Ending, Offer, Party, Spooler, UplinkConfig, WhenFull,
};

/// What kind of hunter.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) durability: Durability,
    pub(super) when_full: WhenFull,
    pub(super) max_bytes: usize,
    pub(super) spool_bytes: u64,
    /// Processors, most preferred first.
    pub(super) roads: Vec<usize>,
    /// Between two batches.
    pub(super) gap: Duration,
    pub(super) most_packets: u32,
    /// The crash of its host ends the process alone.
    pub(super) kernel_goes_on: bool,
}

/// What it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Hunt,
    /// Nothing new comes.
    Rest,
    /// End as on SIGTERM.
    Stop,
}

pub(super) type BatchId = (u64, u64);

/// One process of a hunter.
pub(super) struct Life {
    backlog: Arc<Backlog>,
    /// How it ended: the last figures, and whether by a crash.
    pub(super) end: Option<(BacklogSnapshot, bool)>,
}

impl Life {
    /// The figures, of its end where it has ended.
    pub(super) fn figures(&self) -> BacklogSnapshot {
        self.end.as_ref().map_or_else(|| self.backlog.snapshot(), |(s, _)| s.clone())
    }
}

/// What was made, and what was seen of it.
#[derive(Default)]
pub(super) struct Book {
    /// The numbers in each batch that was offered, and the lives that knew of it.
    pub(super) batches: BTreeMap<BatchId, (Range<u32>, Vec<usize>)>,
    pub(super) lives: Vec<Life>,
    next: u32,
}

/// A hunter over all its lives.
pub(super) struct Node {
    pub(super) name: String,
    index: u32,
    pub(super) kind: Kind,
    pub(super) disk: Rc<DiskFacts>,
    pub(super) told: Cell<Told>,
    /// A batch waits for room.
    pub(super) waits: Cell<bool>,
    /// Between two steps of the spool.
    pub(super) spool_lag: Cell<Duration>,
    pub(super) book: RefCell<Book>,
    cost: Cost,
}

impl Node {
    pub(super) fn new(index: u32, kind: Kind, cost: Cost) -> Rc<Self> {
        let disk = Rc::new(DiskFacts::new(kind.kernel_goes_on));
        Rc::new(Self {
            name: format!("h{index}"),
            index,
            kind,
            disk,
            told: Cell::default(),
            waits: Cell::default(),
            spool_lag: Cell::new(Duration::from_millis(10)),
            book: RefCell::default(),
            cost,
        })
    }

    /// Its host has crashed.
    pub(super) fn crashed(&self) {
        if let Some(life) = self.book.borrow_mut().lives.last_mut().filter(|l| l.end.is_none()) {
            life.end = Some((life.backlog.snapshot(), true));
        }
        self.disk.crashed();
        self.waits.set(false);
    }

    /// The life at hand, if it goes on.
    pub(super) fn alive(&self) -> Option<Arc<Backlog>> {
        self.book.borrow().lives.last().filter(|l| l.end.is_none()).map(|l| Arc::clone(&l.backlog))
    }

    /// The equation of this instant; an error says what does not fit.
    pub(super) fn check(&self, way: &mut impl Hasher) -> Result<(), String> {
        let Some(backlog) = self.alive() else { return Ok(()) };
        let s = backlog.snapshot();
        [s.offered_packets, s.acked_packets, s.in_memory_packets, s.on_disk_packets, s.sent_batches].hash(way);
        let left = s.offered_packets + s.recovered_packets;
        let right = s.acked_packets + s.in_memory_packets + s.on_disk_packets + s.dropped();
        if left == right { Ok(()) } else { Err(format!("{}: K3: {left} is not {right}: {s:?}", self.name)) }
    }

    fn begin(&self, backlog: &Arc<Backlog>, recovered: &BTreeSet<BatchId>) -> Epoch {
        let mut book = self.book.borrow_mut();
        let n = book.lives.len();
        if n > 0 {
            let missing: Vec<_> = self.disk.must_survive().difference(recovered).copied().collect();
            let told = self.disk.told();
            assert!(missing.is_empty(), "{}: its disk had confirmed {missing:?}, and they are gone:\n{told}", self.name);
        }
        for id in recovered {
            book.batches.get_mut(id).unwrap_or_else(|| panic!("{}: {id:?} was never made", self.name)).1.push(n);
        }
        book.lives.push(Life { backlog: Arc::clone(backlog), end: None });
        let ms = u64::try_from(clock::wall().as_nanos() / 1_000_000).unwrap();
        Epoch::new(ms, u32::try_from(n).unwrap())
    }

    fn next_batch(&self, encoder: &mut Encoder, packets: u32) -> (SealedBatch, Range<u32>) {
        let from = {
            let mut book = self.book.borrow_mut();
            let from = self.index * PER_HUNTER + book.next;
            book.next += packets;
            from
        };
        (from..from + packets).for_each(|n| push(encoder, n));
        (encoder.seal(clock::wall().as_nanos(), 1, &BatchStats::default()).unwrap(), from..from + packets)
    }

    /// Offers a batch; it comes back when a reader of files has to wait.
    fn offer(&self, backlog: &Backlog, (batch, numbers): (SealedBatch, Range<u32>)) -> Option<(SealedBatch, Range<u32>)> {
        let id = (batch.epoch.0, batch.seq.0);
        match backlog.offer(batch) {
            Offer::Full(back) => Some((back, numbers)),
            Offer::Taken => {
                let mut book = self.book.borrow_mut();
                let life = book.lives.len() - 1;
                book.batches.insert(id, (numbers, vec![life]));
                None
            }
        }
    }

    fn spooler(&self, backlog: &Arc<Backlog>) -> turmoil::Result<(Option<Spooler<SpoolDisk>>, BTreeSet<BatchId>)> {
        let mut found = BTreeSet::new();
        if self.kind.durability == Durability::Memory {
            return Ok((None, found));
        }
        let disk = SpoolDisk::open(&self.disk)?;
        spool::list(&disk, true, |item: Item| {
            found.insert((item.epoch.0, item.seq.0));
            Ok::<(), SpoolError>(())
        })?;
        let config = SpoolConfig {
            hunter_id: self.name.clone(),
            max_bytes: self.kind.spool_bytes,
            min_free: MinFree::NONE,
            when_full: if self.kind.when_full == WhenFull::Block { SpoolFull::Refuse } else { SpoolFull::DropOldest },
            segment_bytes: 4 << 10,
            sync_after: Duration::from_millis(50),
            sync_bytes: 2 << 10,
        };
        let queue = Queue::open(disk, config)?;
        Ok((Some(Spooler::new(queue, Arc::clone(backlog))), found))
    }

    fn uplink(&self, life: usize) -> UplinkConfig {
        UplinkConfig {
            party: Party::Hunter,
            hunter_id: self.name.as_str().into(),
            targets: self.kind.roads.iter().map(|p| Target { host: format!("p{p}"), port: PORT }).collect(),
            dialer: Dialer::over(Arc::new(SimRoad(self.cost))),
            connect_timeout: None,
            drain_timeout: Duration::from_secs(5),
            seed: self.cost.seed.wrapping_add(life as u64),
        }
    }
}

/// One life, until its host crashes or it is told to stop.
pub(super) async fn run(node: Rc<Node>) -> turmoil::Result {
    let kind = &node.kind;
    let config = BacklogConfig {
        max_bytes: kind.max_bytes,
        when_full: kind.when_full,
        durability: kind.durability,
        ..BacklogConfig::default()
    };
    let backlog = Arc::new(Backlog::new(config));
    let (spooler, found) = node.spooler(&backlog)?;
    let epoch = node.begin(&backlog, &found);
    let life = node.book.borrow().lives.len();
    let (closed, mut is_closed) = watch::channel(spooler.is_none());
    if let Some(mut spooler) = spooler {
        let node = Rc::clone(&node);
        tokio::task::spawn_local(async move {
            while (0..2).all(|_| spooler.step(Duration::ZERO)) {
                sleep(node.spool_lag.get()).await;
            }
            closed.send_replace(true);
        });
    }
    let facts = Facts {
        hostname: node.name.clone(),
        interfaces: vec!["eth0".into()],
        mode: Mode::default(),
        max_memory: kind.max_bytes as u64,
        memory_limit: 0,
        instance: epoch.0,
        epochs: vec![epoch],
        earlier: Vec::new(),
    };
    let shared = Arc::new(Shared::new(Arc::clone(&backlog), 0));
    let control: Arc<dyn Control> = Arc::new(Plane::new(facts, shared, CompileOptions::default(), Vec::new()));
    let (ending, told) = watch::channel(Ending::Run);
    let uplink = tokio::task::spawn_local(uplink::run(node.uplink(life), Arc::clone(&backlog), control, told));

    let mut encoder = Encoder::new(EncoderConfig { hunter_id: node.name.as_str().into(), epoch, limits: Limits::default() });
    let mut waits = None;
    let mut dice = super::Dice(node.cost.seed ^ life as u64);
    while node.told.get() != Told::Stop {
        let gap = u64::try_from(kind.gap.as_millis()).unwrap();
        sleep(Duration::from_millis(1 + dice.roll(2 * gap))).await;
        if node.told.get() == Told::Hunt && waits.is_none() {
            let packets = 1 + u32::try_from(dice.roll(u64::from(kind.most_packets))).unwrap();
            waits = Some(node.next_batch(&mut encoder, packets));
        }
        waits = waits.and_then(|batch| node.offer(&backlog, batch));
        node.waits.set(waits.is_some());
    }
    node.waits.set(false);
    ending.send_replace(Ending::Drain);
    uplink.await??;
    backlog.close_spool();
    is_closed.wait_for(|c| *c).await?;
    if let Some(life) = node.book.borrow_mut().lives.last_mut() {
        life.end = Some((backlog.snapshot(), false));
    }
    Ok(())
}
