//! The uplink against peers made of the generated stubs, over real sockets.

mod elsewhere;
mod passed_on;
mod peer;
mod spooled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::peer::{Peer, State};
use super::*;
use crate::batch::{BatchStats, Context, ContextKey, Encoder, EncoderConfig, Epoch, Limits, Pushed, SealedBatch};
use crate::net::{Dialer, Target};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::reason::DropReason;
use crate::wire::data::FlowControl;
use crate::wire::management::{Filter, FilterUpdate, HunterHeartbeat, HunterStatus};

const A: Epoch = Epoch(0xa);
const B: Epoch = Epoch(0xb);
/// Far above what anything here takes.
const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn batches_of_two_epochs_arrive_once_in_order_and_drain() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    let hunter = Hunter::start(&[&peer.target]);
    hunter.offer(&sealed(A, 30));
    hunter.offer(&sealed(B, 20));

    hunter.stop(Ending::Drain).await.unwrap();

    let batches = peer.state.batches.lock();
    for (epoch, n) in [(A, 30), (B, 20)] {
        let seqs: Vec<_> = batches.iter().filter(|b| b.epoch == epoch.0).map(|b| b.sequence).collect();
        assert_eq!(seqs, (1..=n).collect::<Vec<_>>());
    }
    let call = &batches[0].contexts[0];
    assert_eq!((batches[0].packets[0].context, &*call.call_id, &*call.filter_ids[0]), (1, "call@host", "f1"));
}

#[tokio::test]
async fn a_drained_hunter_says_that_it_stops_and_ends_its_stream_cleanly() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    let hunter = Hunter::start(&[&peer.target]);
    hunter.offer(&sealed(A, 3));

    hunter.stop(Ending::Drain).await.unwrap();

    let last = peer.state.beats.lock().last().map(HunterHeartbeat::status);
    assert_eq!(last, Some(HunterStatus::StatusStopping));
    until(|| peer.state.clean_ends.load(Ordering::Relaxed) == 1).await;
    assert_eq!(peer.state.broken.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_plain_peer_gets_batches_numbered_from_one_without_contexts() {
    let peer = Peer::start(State::default());
    let hunter = Hunter::start(&[&peer.target]);
    hunter.offer(&sealed(A, 5));
    hunter.offer(&sealed(B, 5));

    hunter.stop(Ending::Drain).await.unwrap();

    let batches = peer.state.batches.lock();
    assert_eq!(batches.iter().map(|b| b.sequence).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    for batch in &*batches {
        assert_eq!((batch.epoch, batch.contexts.len(), &*batch.hunter_id), (0, 0, "edge"));
        let p = &batch.packets[0];
        assert_eq!((&*p.interface_name, &p.matched_filter_ids[..]), ("eth7", &["f1".to_owned()][..]));
        assert_eq!(p.metadata.as_ref().unwrap().sip.as_ref().unwrap().call_id, "call@host");
    }
}

#[tokio::test]
async fn a_peer_killed_in_mid_stream_loses_nothing_and_sees_doubles_only_across_the_kill() {
    let mut peer = Peer::start(State { extended: true, ack_lag: AtomicU64::new(5), ..State::default() });
    let hunter = Hunter::start(&[&peer.target]);
    let (a, b) = (sealed(A, 300), sealed(B, 300));
    let mut kills = Vec::new();
    for (n, part) in a.chunks(60).zip(b.chunks(60)).enumerate() {
        hunter.offer(part.0);
        hunter.offer(part.1);
        let before = peer.state.batches.lock().len();
        until(|| peer.state.batches.lock().len() > before + 20).await;
        if n < 4 {
            peer.kill();
            kills.push(peer.state.batches.lock().len());
            peer.restart();
        }
    }

    hunter.stop(Ending::Drain).await.unwrap();

    let batches = peer.state.batches.lock();
    // Each life's arrivals: in order per epoch, and what comes twice was not acknowledged in an earlier life.
    kills.push(batches.len());
    let mut seen: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut doubles = 0;
    let mut start = 0;
    for end in kills {
        for epoch in [A, B] {
            let life: Vec<_> = batches[start..end].iter().filter(|x| x.epoch == epoch.0).map(|x| x.sequence).collect();
            assert!(life.windows(2).all(|w| w[0] + 1 == w[1]), "a gap or a repetition within one life: {life:?}");
            let known = seen.entry(epoch.0).or_default();
            doubles += life.iter().filter(|seq| !known.insert(**seq)).count();
        }
        start = end;
    }
    for epoch in [A, B] {
        assert_eq!(seen[&epoch.0].iter().copied().collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
    }
    let s = hunter.backlog.snapshot();
    assert_eq!((s.acked_batches, s.in_memory_batches, s.dropped()), (600, 0, 0));
    assert!(s.resent_batches >= doubles as u64);
    assert!(peer.state.registrations.lock().len() >= 5);
}

#[tokio::test]
async fn a_reconnect_resumes_at_the_acknowledged_batch() {
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    let hunter = Hunter::start(&[&peer.target]);
    hunter.offer(&sealed(A, 10));
    until(|| hunter.backlog.snapshot().in_memory_batches == 0).await;

    peer.kill();
    peer.restart();
    until(|| peer.state.registrations.lock().len() == 2).await;
    hunter.offer(&sealed_from(A, 11, 5));
    hunter.stop(Ending::Drain).await.unwrap();

    let seqs: Vec<_> = peer.state.batches.lock().iter().map(|b| b.sequence).collect();
    assert_eq!(seqs, (1..=15).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_first_retry_comes_within_100_ms_and_an_unreachable_processor_is_tried_for_ever() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Target { host: "127.0.0.1".into(), port: free.port() };
    let hunter = Hunter::start(&[&away]);

    while hunter.control.downs.lock().len() < 5 + 3 + 3 + 1 {
        sleep(Duration::from_millis(1)).await;
    }
    hunter.stop(Ending::Now).await.unwrap();

    let downs = hunter.control.downs.lock();
    let waits: Vec<Duration> = downs.windows(2).map(|w| w[1] - w[0]).collect();
    let (open, short): (Vec<Duration>, Vec<Duration>) = waits.iter().partition(|w| **w >= Duration::from_secs(5));
    assert!(waits[0] < Duration::from_millis(100), "{waits:?}");
    assert!(waits[..4].windows(2).all(|w| w[0] < w[1] * 2), "ever longer: {waits:?}");
    assert!([4, 7, 10].iter().all(|n| (30..34).contains(&waits[*n].as_secs())), "5 failures, then 3, then 3: {waits:?}");
    assert_eq!((open.len(), short.len()), (3, 8));
    let (closed, open, half) = ([BreakerState::Closed], [BreakerState::Open], [BreakerState::HalfOpen]);
    assert_eq!(*hunter.control.roads.lock(), [closed, open, half, open, half, open, half]);
}

#[tokio::test(start_paused = true)]
async fn told_to_end_now_it_does_not_wait_for_its_next_attempt() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Target { host: "127.0.0.1".into(), port: free.port() };
    let hunter = Hunter::start(&[&away]);
    hunter.offer(&sealed(A, 2));
    while hunter.control.roads.lock().last() != Some(&vec![BreakerState::Open]) {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(1)).await;

    let told = Instant::now();
    hunter.stop(Ending::Now).await.unwrap();

    assert!(told.elapsed() < Duration::from_millis(100), "{:?}", told.elapsed());
    let s = hunter.backlog.snapshot();
    assert_eq!((s.dropped_packets[DropReason::Shutdown.index()], s.in_memory_packets), (s.offered_packets, 0));
}

#[tokio::test]
async fn packets_the_kernel_lost_are_told_within_two_seconds() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    let hunter = Hunter::start(&[&peer.target]);
    until(|| !peer.state.beats.lock().is_empty()).await;
    let before = peer.state.beats.lock().len();

    hunter.control.lost.store(7, Ordering::Relaxed);
    let began = Instant::now();
    until(|| peer.state.beats.lock().iter().any(|b| b.stats.as_ref().is_some_and(|s| s.kernel_dropped == 7))).await;

    assert!(began.elapsed() < Duration::from_millis(2500) && before < 3, "{:?}, {before} before", began.elapsed());
    hunter.stop(Ending::Now).await.unwrap();
}

#[tokio::test]
async fn registration_replaces_the_filters_and_updates_follow() {
    let filter = |id: &str| Filter { id: id.into(), pattern: "alice".into(), enabled: true, ..Filter::default() };
    let peer = Peer::start(State { extended: true, ..State::default() });
    *peer.state.filters.lock() = vec![filter("one")];
    *peer.state.updates.lock() = vec![
        FilterUpdate { update_type: 0, filter: Some(filter("two")), version: 2, more: true },
        FilterUpdate { update_type: 2, filter: Some(filter("one")), version: 2, more: false },
    ];
    let hunter = Hunter::start(&[&peer.target]);

    until(|| hunter.control.changes.lock().len() == 3).await;

    let changes = hunter.control.changes.lock().clone();
    assert!(matches!(&changes[0], FilterChange::Replace { filters, version: 1, legacy: false } if filters[0].id == "one"));
    assert!(matches!(&changes[1], FilterChange::Put { filter, version: 2, more: true, legacy: false } if filter.id == "two"));
    assert!(matches!(&changes[2], FilterChange::Remove { id, version: 2, more: false } if id == "one"));
    hunter.stop(Ending::Now).await.unwrap();
}

#[tokio::test]
async fn a_pause_holds_batches_back_until_it_is_lifted() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    peer.state.flow.store(FlowControl::FlowPause.into(), Ordering::Relaxed);
    let hunter = Hunter::start(&[&peer.target]);
    until(|| hunter.backlog.snapshot().paused).await;

    hunter.offer(&sealed(A, 10));
    sleep(Duration::from_millis(200)).await;
    let while_paused = peer.state.batches.lock().len();
    peer.state.flow.store(FlowControl::FlowResume.into(), Ordering::Relaxed);
    hunter.stop(Ending::Drain).await.unwrap();

    assert_eq!(while_paused, 0);
    assert_eq!(peer.state.batches.lock().len(), 10);
}

#[tokio::test]
async fn batches_given_up_while_nobody_listened_are_declared() {
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    peer.kill();
    let batches = sealed(A, 10);
    let room = batches.iter().map(|b| b.bytes.len() + 256).take(4).sum();
    let hunter = Hunter::with(&[&peer.target], |c| c, BacklogConfig { max_bytes: room, ..BacklogConfig::default() });
    hunter.offer(&batches);
    peer.restart();

    hunter.stop(Ending::Drain).await.unwrap();

    let got = peer.state.batches.lock();
    let first = &got[0];
    let range = &first.dropped_ranges[0];
    assert_eq!((range.from_seq, range.to_seq + 1, &*range.reason), (1, first.sequence, "mem_full"));
    let s = hunter.backlog.snapshot();
    assert_eq!(s.offered_packets, s.acked_packets + s.dropped());
}

#[tokio::test]
async fn the_next_processor_is_tried_when_one_is_away() {
    let mut away = Peer::start(State::default());
    away.kill();
    let peer = Peer::start(State { extended: true, ..State::default() });
    let hunter = Hunter::start(&[&away.target, &peer.target]);
    hunter.offer(&sealed(A, 3));

    hunter.stop(Ending::Drain).await.unwrap();

    assert_eq!(peer.state.batches.lock().len(), 3);
}

#[tokio::test]
async fn told_to_stop_it_tries_a_processor_once_more_that_it_has_left_alone() {
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    peer.kill();
    let hunter = Hunter::start(&[&peer.target]);
    hunter.offer(&sealed(A, 3));
    until(|| hunter.control.roads.lock().last() == Some(&vec![BreakerState::Open])).await;

    peer.restart();
    hunter.stop(Ending::Drain).await.unwrap();

    assert_eq!(peer.state.batches.lock().len(), 3);
}

#[tokio::test]
async fn a_reader_of_files_gives_up_an_unreachable_processor() {
    let mut away = Peer::start(State::default());
    away.kill();
    let patience = Some(Duration::from_millis(300));
    let hunter = Hunter::with(&[&away.target], |c| UplinkConfig { connect_timeout: patience, ..c }, BacklogConfig::default());

    let ended = hunter.ended().await;

    let error = ended.unwrap_err().to_string();
    assert!(error.contains("cannot reach") && error.contains(&away.target.to_string()), "{error}");
}

#[tokio::test]
async fn a_reader_of_files_gives_up_a_processor_that_went_away() {
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    let patience = Some(Duration::from_millis(500));
    let hunter = Hunter::with(&[&peer.target], |c| UplinkConfig { connect_timeout: patience, ..c }, BacklogConfig::default());
    hunter.offer(&sealed(A, 3));
    until(|| hunter.backlog.snapshot().acked_batches == 3).await;

    peer.kill();

    assert!(hunter.ended().await.is_err());
}

#[tokio::test]
async fn a_drain_ends_when_the_peer_acknowledges_nothing() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    peer.state.silent.store(true, Ordering::Relaxed);
    let patience = Duration::from_millis(300);
    let hunter = Hunter::with(&[&peer.target], |c| UplinkConfig { drain_timeout: patience, ..c }, BacklogConfig::default());
    hunter.offer(&sealed(A, 3));

    hunter.stop(Ending::Drain).await.unwrap();

    let s = hunter.backlog.snapshot();
    assert_eq!((s.in_memory_packets, s.dropped_packets[DropReason::Shutdown.index()]), (0, s.offered_packets));
}

#[tokio::test]
async fn a_drain_with_nothing_in_memory_does_not_wait_for_a_processor() {
    let mut away = Peer::start(State::default());
    away.kill();
    let hunter = Hunter::with(&[&away.target], |c| UplinkConfig { drain_timeout: LONG * 9, ..c }, BacklogConfig::default());

    hunter.stop(Ending::Drain).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_registrations_but_no_streams_is_left_alone_for_longer_and_longer() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    peer.state.refuses_streams.store(true, Ordering::Relaxed);
    let hunter = Hunter::start(&[&peer.target]);

    sleep(Duration::from_secs(3)).await;
    let tries = peer.state.registrations.lock().len();
    hunter.stop(Ending::Now).await.unwrap();

    // 90, 180, 360 … ms at most, half of it at least: 6 to 8 in three seconds.
    assert!((4..=9).contains(&tries), "{tries} registrations in 3 s");
}

/// Runs an uplink as a hunter would.
struct Hunter {
    backlog: Arc<Backlog>,
    control: Arc<Recorder>,
    ending: watch::Sender<Ending>,
    running: Mutex<Option<JoinHandle<Result<(), UplinkError>>>>,
}

impl Hunter {
    fn start(targets: &[&Target]) -> Self {
        Self::with(targets, |config| config, BacklogConfig::default())
    }

    fn with(targets: &[&Target], change: impl FnOnce(UplinkConfig) -> UplinkConfig, room: BacklogConfig) -> Self {
        Self::on(targets, change, Arc::new(Backlog::new(room)))
    }

    fn on(targets: &[&Target], change: impl FnOnce(UplinkConfig) -> UplinkConfig, backlog: Arc<Backlog>) -> Self {
        let config = change(UplinkConfig {
            party: Party::Hunter,
            hunter_id: "edge".into(),
            targets: targets.iter().map(|t| (*t).clone()).collect(),
            dialer: Dialer::insecure(),
            connect_timeout: None,
            drain_timeout: LONG,
            seed: 7,
        });
        let control = Arc::new(Recorder::default());
        let (ending, told) = watch::channel(Ending::Run);
        let running = tokio::spawn(run(config, Arc::clone(&backlog), Arc::<Recorder>::clone(&control), told));
        Self { backlog, control, ending, running: Mutex::new(Some(running)) }
    }

    fn offer(&self, batches: &[SealedBatch]) {
        offer(&self.backlog, batches);
    }

    async fn stop(&self, how: Ending) -> Result<(), UplinkError> {
        self.ending.send_replace(how);
        self.ended().await
    }

    /// How it ended, of itself or told to.
    async fn ended(&self) -> Result<(), UplinkError> {
        let running = self.running.lock().take().expect("asked once");
        timeout(LONG, running).await.expect("it goes on").expect("it does not panic")
    }
}

#[derive(Default)]
struct Recorder {
    changes: Mutex<Vec<FilterChange>>,
    links: Mutex<Vec<LinkState>>,
    /// When a session ended, or did not come about.
    downs: Mutex<Vec<Instant>>,
    /// How the breakers stood after each change.
    roads: Mutex<Vec<Vec<BreakerState>>>,
    /// What a heartbeat says of the kernel.
    lost: AtomicU64,
}

impl Control for Recorder {
    fn registration(&self) -> RegistrationFacts {
        let interfaces = (0..8).map(|i| format!("eth{i}")).collect();
        RegistrationFacts { hostname: "here".into(), interfaces, instance: 1, ..RegistrationFacts::default() }
    }

    fn apply(&self, change: FilterChange) {
        self.changes.lock().push(change);
    }

    fn heartbeat(&self) -> HeartbeatFacts {
        HeartbeatFacts { kernel_dropped: self.urgent(), ..HeartbeatFacts::default() }
    }

    fn urgent(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn link(&self, state: LinkState) {
        if state == LinkState::Down {
            self.downs.lock().push(Instant::now());
        }
        self.links.lock().push(state);
    }

    fn roads(&self, roads: Vec<Road>) {
        self.roads.lock().push(roads.iter().map(|r| r.breaker).collect());
    }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("it did not happen");
}

fn offer(backlog: &Backlog, batches: &[SealedBatch]) {
    for batch in batches {
        assert!(matches!(backlog.offer(batch.clone()), Offer::Taken));
    }
}

/// The first `n` batches of an epoch, three packets of 200 bytes each.
fn sealed(epoch: Epoch, n: usize) -> Vec<SealedBatch> {
    let call = Context { call_id: "call@host".into(), filter_ids: [Arc::from("f1")].into(), ..Context::default() };
    let mut encoder = Encoder::new(EncoderConfig { hunter_id: "edge".into(), epoch, limits: Limits::default() });
    let frame = |i: usize| Frame {
        ts: Timestamp::from_nanos(i64::try_from(i).unwrap()),
        wire_len: 200,
        link: LinkType::ETHERNET,
        interface: InterfaceId(7),
        data: &[0x55; 200],
    };
    let batch = |i| {
        for _ in 0..3 {
            assert_eq!(encoder.push(&frame(i), Some((ContextKey(1), &call)), &[], false), Pushed::Stored);
        }
        encoder.seal(5, 1, &BatchStats::default()).unwrap()
    };
    (0..n).map(batch).collect()
}

/// Batches `first ..= first + n - 1` of an epoch.
fn sealed_from(epoch: Epoch, first: usize, n: usize) -> Vec<SealedBatch> {
    sealed(epoch, first + n - 1).split_off(first - 1)
}
