//! One capture thread: source → engine → batches, run to completion. It never waits for the network, except when it reads files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::batch::{BatchStats, ContextKey, Encoder, Pushed, SealedBatch};
use crate::capture::{CaptureError, KernelStats, Outages, Progress, Source};
use crate::engine::{Counters, Guarded};
use crate::filter::FilterSet;
use crate::flow::PacketTime;
use crate::packet::{FiveTuple, Frame};
use crate::uplink::{Backlog, Offer, Road};
use crate::voip::event::Event;
use crate::voip::output::{Output, Owner};

use crate::telemetry::{Windows, clock, memory};

use super::figures::LOSSES;

use super::names::Names;
use super::promise::Promise;
use super::unaccounted::{Before, UNSEEN};

/// Frames handed to the engine at once.
const BURST: usize = 32;
/// A live source without traffic is looked at this often: batches age, holds expire.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// Counters are published, and timers served, at least this often (in frames).
const PUBLISH_EVERY: u64 = 4096;
/// A processor that asks for less gets batches that are this much older.
const SLOW_FACTOR: u32 = 5;
/// Looks at an idle ring at a stop, [`IDLE_WAIT`] apart, until what it still holds is given up, counted: longer than a block takes to retire.
const IDLE_AT_STOP: u32 = 4;
/// How long a file reader waits for room in the backlog before it looks whether it must stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// The filters in force, swapped whole.
#[derive(Debug)]
pub struct FilterSlot {
    set: RwLock<Arc<FilterSet>>,
    /// Counts the swaps; a capture thread compares it between frames.
    generation: AtomicU64,
    /// Whether filters have ever come.
    known: AtomicBool,
    /// Told when they have.
    came: Notify,
}

impl Default for FilterSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl FilterSlot {
    /// Empty; calls are held undecided until the first filters come.
    pub fn new() -> Self {
        Self {
            set: RwLock::new(Arc::new(FilterSet::empty())),
            generation: AtomicU64::new(0),
            known: AtomicBool::new(false),
            came: Notify::new(),
        }
    }

    /// Puts a set in force.
    pub fn swap(&self, set: Arc<FilterSet>) {
        *self.set.write() = set;
        self.known.store(true, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
        self.came.notify_waiters();
    }

    /// The set in force.
    pub fn current(&self) -> Arc<FilterSet> {
        Arc::clone(&self.set.read())
    }

    /// Whether filters have ever come.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Resolves when filters have come.
    pub async fn known(&self) {
        // made before the look, so that filters that come in between are told
        let came = self.came.notified();
        if !self.is_known() {
            came.await;
        }
    }
}

/// What a capture thread tells about itself. What the engine counted changes in the same instant as what is handed to the backlog: whoever
/// holds this sees no packet in neither place, and none in both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progressed {
    /// The engine's counters.
    pub engine: Counters,
    /// The source's counters.
    pub kernel: KernelStats,
    /// Frames captured when those were read: they cost a system call, so the engine's are newer.
    pub kernel_captured: u64,
    /// Packets refused because no batch may be that large.
    pub oversize: u64,
    /// Packets in the open batch, and in sealed ones that wait for room.
    pub open: u64,
    /// Calls known.
    pub calls: usize,
    /// Packets whose time jumped ahead of all others.
    pub doubted_times: u64,
    /// Whether the source is down.
    pub degraded: bool,
    /// The thread's last sign of life.
    pub alive: Option<clock::Moment>,
    /// It has ended.
    pub ended: bool,
}

/// How a hunter stands to its processors.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The one it is connected to.
    pub processor: Option<String>,
    /// The same, or the one it was connected to last.
    pub last: Option<String>,
    /// All of them.
    pub roads: Vec<Road>,
}

/// What the threads of one hunter share.
pub struct Shared {
    /// Filters.
    pub filters: FilterSlot,
    /// Sealed batches.
    pub backlog: Arc<Backlog>,
    /// Told to stop capturing.
    pub stop: AtomicBool,
    /// What each capture thread captures from.
    pub sources: Vec<String>,
    /// One snapshot per capture thread.
    pub progress: Vec<Mutex<Progressed>>,
    /// Packets of sealed batches for which a stopping hunter had no room.
    pub refused: AtomicU64,
    /// The way to the processor.
    pub(super) link: Mutex<Link>,
    /// What was lost lately.
    pub(super) recent: Mutex<Windows<{ LOSSES.len() }>>,
    /// What was found of the run before.
    pub(super) before: Mutex<Before>,
    /// Records of this run's state, or the last's, that could not be written or read.
    pub(super) state_errors: AtomicU64,
    /// What that allows for.
    pub(super) promise: Promise,
    own: RwLock<Arc<[FiveTuple]>>,
}

impl Shared {
    /// For this many capture threads, of one unnamed source.
    pub fn new(backlog: Arc<Backlog>, threads: usize) -> Self {
        Self::of(backlog, vec![String::new(); threads])
    }

    /// For a capture thread on each of these.
    pub fn of(backlog: Arc<Backlog>, sources: Vec<String>) -> Self {
        let threads = sources.len() as u64;
        Self {
            filters: FilterSlot::new(),
            backlog,
            stop: AtomicBool::new(false),
            progress: sources.iter().map(|_| Mutex::default()).collect(),
            sources,
            refused: AtomicU64::new(0),
            link: Mutex::default(),
            recent: Mutex::default(),
            before: Mutex::default(),
            state_errors: AtomicU64::new(0),
            promise: Promise::new(UNSEEN.saturating_mul(threads)),
            own: RwLock::new(Arc::from([])),
        }
    }

    /// With batches of so many packets.
    #[must_use]
    pub(super) fn sealing_at(self, packets: u64) -> Self {
        let threads = self.sources.len() as u64;
        // the open batch, and what one burst puts into the next before either is handed over
        let unseen = packets.max(UNSEEN).saturating_add(BURST as u64);
        Self { promise: Promise::new(unseen.saturating_mul(threads)), ..self }
    }

    /// Our own connections, which are not captured.
    pub fn set_own(&self, own: Vec<FiveTuple>) {
        *self.own.write() = own.into();
        self.filters.generation.fetch_add(1, Ordering::Release);
    }
}

/// One capture thread's work.
pub struct Inspector {
    /// Where frames come from.
    pub source: Box<dyn Source>,
    /// What looks at them.
    pub engine: Guarded,
    /// What they become.
    pub encoder: Encoder,
    /// What the processor knows of the source's interfaces.
    pub names: Names,
    /// What does not deliver is tried again.
    pub outages: Outages,
    /// Which snapshot is ours.
    pub index: usize,
    /// A file: wait for room instead of giving anything up, and end with it.
    pub offline: bool,
    /// Stop after this many frames.
    pub count: Option<u64>,
    /// What time it is by the packets.
    pub time: PacketTime,
    /// Shared with the others.
    pub shared: Arc<Shared>,
}

/// Seals batches; the engine's output. They are handed over when the engine is done with its burst, and its counters are whole.
struct Batching<'a> {
    encoder: &'a mut Encoder,
    sealed: &'a mut Vec<SealedBatch>,
    stats: BatchStats,
    filter_version: u64,
    opened: Option<clock::Moment>,
}

impl Output for Batching<'_> {
    fn forward(&mut self, frame: &Frame<'_>, owner: Option<&Owner<'_>>) {
        loop {
            let (context, repeat) = match owner {
                Some(o) => (Some((ContextKey(o.key), &**o.context)), o.repeat),
                None => (None, false),
            };
            match self.encoder.push(frame, context, &[], repeat) {
                // a refused packet is counted by the encoder
                Pushed::Stored | Pushed::Refused(_) => break,
                Pushed::StoredFull => {
                    self.seal();
                    break;
                }
                Pushed::SealFirst => self.seal(),
            }
        }
        if self.opened.is_none() {
            self.opened = Some(clock::Moment::now());
        }
    }

    fn event(&mut self, _event: Event) {}

    fn wants_events(&self) -> bool {
        false
    }
}

impl Batching<'_> {
    fn seal(&mut self) {
        self.opened = None;
        self.sealed.extend(self.encoder.seal(clock::wall().as_nanos(), self.filter_version, &self.stats));
    }

    fn seal_if_due(&mut self) {
        if self.opened.is_some_and(|at| self.encoder.is_due(at.elapsed())) {
            self.seal();
        }
    }

    /// Gives the backlog what is sealed, and tells what the engine has counted, at once.
    fn hand_over(&mut self, engine: &Guarded, to: &Recipient<'_>) {
        if self.sealed.is_empty() {
            return;
        }
        let Some(slot) = to.shared.progress.get(to.index) else { return };
        let mut told = slot.lock();
        let before = taken(&told.engine);
        told.engine = engine.counters();
        let now = taken(&told.engine);
        told.oversize = self.encoder.oversize();
        told.alive = Some(clock::Moment::now());
        let waiting = self.sealed.iter().map(|b| u64::from(b.packets)).fold(0, u64::saturating_add);
        told.open = waiting.saturating_add(u64::from(self.encoder.pending()));
        for mut batch in self.sealed.drain(..) {
            let packets = u64::from(batch.packets);
            // a file is never read faster than what it becomes is taken over
            while let Offer::Full(back) = to.shared.backlog.offer(batch) {
                if !to.offline || to.shared.stop.load(Ordering::Relaxed) {
                    to.shared.refused.fetch_add(packets, Ordering::Relaxed);
                    break;
                }
                batch = back;
                drop(told);
                to.shared.backlog.wait_for_room(&batch, PATIENCE);
                told = slot.lock();
                told.alive = Some(clock::Moment::now());
            }
            told.open = told.open.saturating_sub(packets);
        }
        drop(told);
        self.encoder.lengthen(if to.shared.backlog.is_slow() { SLOW_FACTOR } else { 1 });
        let _asked = to.shared.promise.took(before, now);
    }
}

/// Packets that were chosen or wait for a verdict.
pub(super) const fn taken(c: &Counters) -> u64 {
    c.forwarded.saturating_add(c.held)
}

/// Where a capture thread hands over what it sealed.
#[derive(Clone, Copy)]
struct Recipient<'a> {
    shared: &'a Shared,
    index: usize,
    offline: bool,
}

/// Puts in force what changed since `seen`: filters, and our own connections.
fn adopt(engine: &mut Guarded, shared: &Shared, seen: &mut u64, filter_version: &mut u64) {
    let current = shared.filters.generation.load(Ordering::Acquire);
    if current == *seen {
        return;
    }
    *seen = current;
    engine.set_own_connections(shared.own.read().to_vec());
    if shared.filters.is_known() {
        let set = shared.filters.current();
        *filter_version = set.version();
        engine.set_filters(&set);
    } else {
        engine.await_filters();
    }
}

impl Inspector {
    /// Runs until the source ends, the count is reached or the hunter stops.
    ///
    /// # Errors
    /// A source that cannot go on; what it gave before is sealed and offered.
    pub fn run(mut self) -> Result<(), CaptureError> {
        let shared = Arc::clone(&self.shared);
        let to = Recipient { shared: &shared, index: self.index, offline: self.offline };
        let mut sealed = Vec::new();
        let mut generation = u64::MAX;
        let mut number = 1_u64;
        let mut next_publish = 0_u64;
        let mut filter_version = 0;
        let mut opened = None;
        let mut stats = self.publish();
        // told to stop, what the kernel has already taken is still read
        let (mut until, mut idle) = (None, 0);
        let result = loop {
            adopt(&mut self.engine, &shared, &mut generation, &mut filter_version);
            if left(self.count, number) == 0 {
                break Ok(());
            }
            if shared.stop.load(Ordering::Relaxed) {
                let last = *until.get_or_insert_with(|| number.saturating_add(self.source.stats().in_ring));
                if self.offline || number >= last || idle >= IDLE_AT_STOP {
                    break Ok(());
                }
            }
            self.names.learn(&*self.source, &mut self.encoder);
            if let Some(since) = self.outages.poll(&mut *self.source) {
                self.engine.note_outage(since, clock::wall());
            }
            let (count, room) = (self.count, left(self.count, number).min(BURST));
            let (engine, source, time) = (&mut self.engine, &mut self.source, &mut self.time);
            let mut out = Batching { encoder: &mut self.encoder, sealed: &mut sealed, stats, filter_version, opened };
            let step = source.burst(room, &mut |frames| {
                // a pipe may have been waited for: what was asked for meanwhile counts for what came out of it
                adopt(engine, &shared, &mut generation, &mut out.filter_version);
                // a live source goes on slice by slice, to the end of its turn
                let frames = frames.get(..left(count, number)).unwrap_or(frames);
                engine.handle_burst(frames, number, &mut out);
                out.hand_over(engine, &to);
                number = number.wrapping_add(frames.len() as u64);
                if let Some(last) = frames.last() {
                    time.note(last.ts);
                }
            });
            out.seal_if_due();
            out.hand_over(engine, &to);
            opened = out.opened;
            filter_version = out.filter_version;
            match step {
                // a replay that waits for its next frame
                Ok(Progress::Frames(0)) => stats = self.publish(),
                Ok(Progress::Frames(_)) if number < next_publish => {}
                Ok(Progress::Frames(_)) => {
                    next_publish = number.saturating_add(PUBLISH_EVERY);
                    engine.handle_timeout(self.time.now(), &mut out);
                    out.hand_over(engine, &to);
                    opened = out.opened;
                    stats = self.publish();
                }
                Ok(Progress::Idle) => {
                    idle = if until.is_some() { idle + 1 } else { 0 };
                    // on a silent interface time goes on all the same
                    self.time.advance(clock::wall());
                    engine.handle_timeout(self.time.now(), &mut out);
                    out.seal_if_due();
                    out.hand_over(engine, &to);
                    opened = out.opened;
                    stats = self.publish();
                    if let Err(e) = self.source.wait(IDLE_WAIT) {
                        self.degraded(&e);
                    }
                }
                Ok(Progress::End) => break Ok(()),
                Err(e) if self.offline => break Err(e),
                Err(e) => self.degraded(&e),
            }
        };
        self.finish(filter_version);
        result
    }

    /// Settles what is still held and hands over the last batch.
    fn finish(&mut self, filter_version: u64) {
        if let Some(since) = self.outages.end() {
            self.engine.note_outage(since, clock::wall());
        }
        let stats = batch_stats(&self.engine.counters());
        let shared = Arc::clone(&self.shared);
        let to = Recipient { shared: &shared, index: self.index, offline: self.offline };
        let mut sealed = Vec::new();
        let mut out = Batching { encoder: &mut self.encoder, sealed: &mut sealed, stats, filter_version, opened: None };
        self.engine.finish(&mut out);
        out.seal();
        out.hand_over(&self.engine, &to);
        self.publish();
        if let Some(p) = self.shared.progress.get(self.index) {
            p.lock().ended = true;
        }
    }

    /// An interface that went away: said, counted as a warning, tried again.
    fn degraded(&mut self, e: &CaptureError) {
        self.outages.begin(e, self.time.now());
        self.publish();
        clock::pause(IDLE_WAIT);
    }

    /// Tells what there is to tell; returns what the next batches say of it. Counting costs more than a small burst that nobody wants.
    fn publish(&mut self) -> BatchStats {
        self.engine.set_short(memory::is_short());
        let engine = self.engine.counters();
        let stats = batch_stats(&engine);
        let Some(slot) = self.shared.progress.get(self.index) else { return stats };
        let facts = Progressed {
            engine,
            kernel: self.source.stats(),
            kernel_captured: engine.captured,
            oversize: self.encoder.oversize(),
            open: u64::from(self.encoder.pending()),
            calls: self.engine.calls().len(),
            doubted_times: self.time.doubted(),
            degraded: self.outages.is_on(),
            alive: Some(clock::Moment::now()),
            ended: false,
        };
        let before = std::mem::replace(&mut *slot.lock(), facts);
        let _asked = self.shared.promise.took(taken(&before.engine), taken(&engine));
        stats
    }
}

fn batch_stats(c: &Counters) -> BatchStats {
    BatchStats { total_captured: c.captured, filtered_matched: c.forwarded, dropped: c.dropped_total(), buffer_usage: 0 }
}

/// Frames still to be taken, `number` being the next one's.
fn left(count: Option<u64>, number: u64) -> usize {
    count.map_or(usize::MAX, |n| usize::try_from(n.saturating_add(1).saturating_sub(number)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{EncoderConfig, Epoch, Limits};
    use crate::capture::{InterfaceInfo, Libpcap, Wake};
    use crate::engine::{EngineConfig, Mode};
    use crate::packet::{InterfaceId, LinkType, Timestamp, headers::DecodeOptions};
    use crate::uplink::BacklogConfig;
    use crate::voip::table::{NoFilterPolicy, TableConfig};

    /// A live source: five slices of one frame in every call, and so many in the kernel's ring.
    struct Slices {
        in_ring: u64,
    }

    impl Source for Slices {
        fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
            for _ in 0..5 {
                let link = LinkType::ETHERNET;
                f(Frame { ts: Timestamp::from_nanos(1), wire_len: 4, link, interface: InterfaceId(0), data: &[0; 4] });
            }
            Ok(Progress::Frames(5))
        }

        fn burst(&mut self, _: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
            self.poll(&mut |frame| f(&[frame]))
        }

        fn wait(&mut self, _: Duration) -> Result<Wake, CaptureError> {
            Ok(Wake::Ready)
        }

        fn interfaces(&self) -> &[InterfaceInfo] {
            &[]
        }

        fn stats(&mut self) -> KernelStats {
            KernelStats { in_ring: self.in_ring, ..KernelStats::default() }
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    /// Frames that an inspector takes of [`Slices`].
    fn captured(in_ring: u64, count: Option<u64>, stop: bool) -> u64 {
        let shared = Arc::new(Shared::new(Arc::new(Backlog::new(BacklogConfig::default())), 1));
        shared.stop.store(stop, Ordering::Relaxed);
        inspect(&shared, in_ring, count);
        shared.report().engine.captured
    }

    fn inspect(shared: &Arc<Shared>, in_ring: u64, count: Option<u64>) {
        let config = EngineConfig {
            mode: Mode::Generic,
            table: TableConfig { no_filter: NoFilterPolicy::Allow, ..TableConfig::default() },
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 100,
            bounds: crate::engine::Bounds::default(),
        };
        let encoder = EncoderConfig { hunter_id: "h".into(), epoch: Epoch(1), limits: Limits::default() };
        let inspector = Inspector {
            source: Box::new(Slices { in_ring }),
            engine: Guarded::new(config, shared.filters.current(), Arc::new(Libpcap)),
            encoder: Encoder::new(encoder),
            names: Names::new(Arc::from([])),
            outages: Outages::default(),
            index: 0,
            offline: false,
            count,
            time: PacketTime::default(),
            shared: Arc::clone(shared),
        };
        inspector.run().unwrap();
    }

    #[test]
    fn asked_to_be_slower_it_seals_fewer_and_longer_batches_also_of_those_that_are_full() {
        let sealed = |slow: bool| {
            let shared = Arc::new(Shared::new(Arc::new(Backlog::new(BacklogConfig::default())), 1));
            shared.backlog.slow(slow);
            inspect(&shared, 0, Some(30 * 1024));
            let b = shared.backlog.snapshot();
            assert_eq!(b.in_memory_packets, 30 * 1024);
            b.in_memory_batches
        };

        // the first has ended before anybody was asked
        assert_eq!([sealed(false), sealed(true)], [30, 1 + 6]);
    }

    #[test]
    fn a_count_is_kept_to_the_frame_on_a_source_that_goes_on() {
        assert_eq!(captured(0, Some(7), false), 7);
    }

    #[test]
    fn told_to_stop_it_still_reads_what_the_kernel_had_taken_and_no_more() {
        assert_eq!(captured(10, None, true), 10);
        assert_eq!(captured(0, None, true), 0);
    }
}
