//! The uplink with a disk queue behind it.

use std::path::Path;

use super::*;
use crate::batch::BatchSeq;
use crate::record::dir::MinFree;
use crate::spool::{Disk, Queue, SpoolConfig, SpoolFull, unlocked};

/// Everything offered is acknowledged, somewhere, or counted.
fn check(s: &BacklogSnapshot) {
    let sum = s.acked_packets + s.in_memory_packets + s.on_disk_packets + s.dropped();
    assert_eq!(s.offered_packets + s.recovered_packets, sum, "{s:?}");
}

/// A hunter whose memory holds `batches` of [`sealed`], and its spool in `path`.
struct Spooled {
    hunter: Hunter,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Spooled {
    fn start(peer: &Peer, path: &Path, batches: usize, durability: Durability, max_bytes: u64) -> Self {
        let live = |c| UplinkConfig { drain_timeout: LONG, ..c };
        Self::of(peer, path, batches, durability, max_bytes, live)
    }

    fn of(
        peer: &Peer,
        path: &Path,
        batches: usize,
        durability: Durability,
        max_bytes: u64,
        patience: fn(UplinkConfig) -> UplinkConfig,
    ) -> Self {
        let size = sealed(A, 1)[0].bytes.len() + 256;
        // a quarter of the memory is for what is to be written
        let room = BacklogConfig { max_bytes: batches * size * 4 / 3 + 4, durability, ..BacklogConfig::default() };
        let config = config(max_bytes, SpoolFull::Refuse);
        let queue = queue(path, SpoolConfig { sync_after: Duration::from_millis(5), sync_bytes: 10_000, ..config });
        let backlog = Arc::new(Backlog::new(room));
        let spooler = Spooler::new(queue, Arc::clone(&backlog));
        let thread = Some(std::thread::spawn(move || spooler.run()));
        Self { hunter: Hunter::on(&[&peer.target], patience, backlog), thread }
    }

    fn snapshot(&self) -> BacklogSnapshot {
        let s = self.hunter.backlog.snapshot();
        check(&s);
        s
    }

    async fn offer_slowly(&self, batches: &[SealedBatch]) {
        for batch in batches {
            self.hunter.offer(std::slice::from_ref(batch));
            until(|| self.snapshot().staged_batches == 0).await;
        }
    }

    /// As a hunter ends.
    async fn stop(mut self, how: Ending) -> BacklogSnapshot {
        self.hunter.stop(how).await.unwrap();
        self.hunter.backlog.close_spool();
        self.thread.take().unwrap().join().unwrap();
        self.snapshot()
    }
}

fn arrived(peer: &Peer, epoch: Epoch) -> Vec<u64> {
    peer.state.batches.lock().iter().filter(|b| b.epoch == epoch.0).map(|b| b.sequence).collect()
}

const PLENTY: u64 = 64 << 20;

#[tokio::test]
async fn what_does_not_fit_into_memory_goes_to_disk_and_arrives_in_order() {
    let tmp = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    peer.kill();
    // a reader of files: however long the processor is away, it is tried again soon
    let patience = |c| UplinkConfig { drain_timeout: LONG, connect_timeout: Some(LONG * 9), ..c };
    let hunter = Spooled::of(&peer, tmp.path(), 9, Durability::Spill, PLENTY, patience);

    hunter.offer_slowly(&sealed(A, 5)).await;
    let (a, b) = (sealed(A, 300).split_off(5), sealed(B, 100));
    for n in 0..100 {
        hunter.offer_slowly(&a[2 * n..2 * n + 2]).await;
        hunter.offer_slowly(&b[n..=n]).await;
    }
    assert!(hunter.snapshot().on_disk_batches > 250, "{:?}", hunter.snapshot());
    peer.restart();
    hunter.offer_slowly(&a[200..]).await;
    let end = hunter.stop(Ending::Drain).await;

    assert_eq!(arrived(&peer, A), (1..=300).collect::<Vec<_>>());
    assert_eq!(arrived(&peer, B), (1..=100).collect::<Vec<_>>());
    assert_eq!((end.dropped(), end.on_disk_packets, end.in_memory_packets), (0, 0, 0));
    assert_eq!(segments(tmp.path()), 0, "what is done is removed");
}

#[tokio::test]
async fn a_stop_without_a_processor_leaves_everything_on_disk_and_the_next_start_delivers_it() {
    for durability in [Durability::Spill, Durability::Wal] {
        let tmp = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(State { extended: true, ..State::default() });
        let first = Spooled::start(&peer, tmp.path(), 40, durability, PLENTY);
        first.hunter.offer(&sealed(A, 20));
        until(|| first.snapshot().acked_batches == 20).await;
        peer.kill();
        first.offer_slowly(&sealed_from(A, 21, 80)).await;
        let end = first.stop(Ending::Drain).await;

        assert_eq!((end.dropped(), end.in_memory_packets), (0, 0), "{durability:?}");
        assert_eq!(end.on_disk_packets, 3 * 80);
        peer.restart();
        let second = Spooled::start(&peer, tmp.path(), 40, durability, PLENTY);
        assert_eq!(second.snapshot().recovered_packets, 3 * 80);
        second.hunter.offer(&sealed(B, 10));
        let end = second.stop(Ending::Drain).await;

        assert_eq!((end.dropped(), end.on_disk_packets, end.in_memory_packets), (0, 0, 0));
        assert_eq!(arrived(&peer, A), (1..=100).collect::<Vec<_>>());
        assert_eq!(arrived(&peer, B), (1..=10).collect::<Vec<_>>());
        assert_eq!(segments(tmp.path()), 0);
        let announced = peer.state.registrations.lock().last().unwrap().epochs.clone();
        assert!(announced.contains(&A.0), "{announced:?}");
    }
}

#[tokio::test]
async fn what_the_processor_had_before_a_restart_is_not_sent_again() {
    let tmp = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    peer.kill();
    let first = Spooled::start(&peer, tmp.path(), 9, Durability::Wal, PLENTY);
    first.offer_slowly(&sealed(A, 50)).await;
    let _end = first.stop(Ending::Now).await;
    // as if an earlier run had delivered this much before its hunter was killed
    peer.state.acked.lock().insert(A.0, 30);
    peer.restart();

    let second = Spooled::start(&peer, tmp.path(), 9, Durability::Wal, PLENTY);
    let end = second.stop(Ending::Drain).await;

    let got = arrived(&peer, A);
    assert_eq!(got.last(), Some(&50), "{got:?} {end:?}");
    // up to a memory full may have been read before the processor said what it has
    assert!(got.iter().all(|seq| *seq > 30 || *seq <= 12), "{got:?}");
    assert_eq!((end.dropped(), end.on_disk_packets, end.acked_packets), (0, 0, 150));
}

#[tokio::test]
async fn a_full_disk_stops_nothing_and_what_it_costs_is_counted() {
    let tmp = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(State { extended: true, ..State::default() });
    peer.kill();
    let hunter = Spooled::start(&peer, tmp.path(), 9, Durability::Spill, 30_000);

    let refused = || hunter.snapshot().dropped_packets[DropReason::SpoolFull.index()];
    for batch in &sealed(A, 5000) {
        hunter.hunter.offer(std::slice::from_ref(batch));
        sleep(Duration::from_millis(1)).await;
        if refused() > 0 {
            break;
        }
    }
    let full = hunter.snapshot();
    peer.restart();
    let end = hunter.stop(Ending::Drain).await;

    assert!(full.spool_bytes <= 30_000 && full.on_disk_batches > 10, "{full:?}");
    assert!(full.dropped_packets[DropReason::SpoolFull.index()] > 0, "{full:?}");
    let got = arrived(&peer, A);
    assert!(got.is_sorted() && got.windows(2).all(|w| w[0] < w[1]));
    assert_eq!(3 * got.len() as u64, end.acked_packets);
    assert_eq!((end.on_disk_packets, end.in_memory_packets, end.dropped()), (0, 0, full.dropped()));
}

/// Copies on disk of what was in memory make room, at the end, for what was in memory alone.
#[test]
fn what_made_room_while_the_hunter_ended_is_counted_and_the_next_start_finds_the_rest() {
    let tmp = tempfile::tempdir().unwrap();
    let batches = sealed(A, 30);
    let record = batches[0].bytes.len() as u64 + 64;
    let open = || queue(tmp.path(), config(20 * record, SpoolFull::DropOldest));
    let size = batches[0].bytes.len() + 256;
    let room = BacklogConfig { max_bytes: 48 * size, durability: Durability::Wal, ..BacklogConfig::default() };
    let backlog = Arc::new(Backlog::new(room));
    let mut spooler = Spooler::new(open(), Arc::clone(&backlog));

    offer(&backlog, &batches[..8]);
    while backlog.snapshot().staged_batches > 0 {
        assert!(spooler.step(Duration::ZERO));
    }
    offer(&backlog, &batches[8..]);
    backlog.close_spool();
    assert!(!spooler.step(Duration::ZERO));
    drop(spooler);

    let end = backlog.snapshot();
    check(&end);
    assert!(end.dropped() > 0 && end.in_memory_packets == 0, "{end:?}");
    assert_eq!(open().stats().unread.packets, end.on_disk_packets, "{end:?}");
}

/// A disk that stood still is written to in order once it goes on: whatever had come meanwhile, a killed hunter loses the last of it alone.
#[test]
fn a_log_that_was_behind_has_no_hole() {
    let tmp = tempfile::tempdir().unwrap();
    let batches = sealed(A, 90);
    let size = batches[89].bytes.len() + 256;
    let room = BacklogConfig { max_bytes: 120 * size, durability: Durability::Wal, ..BacklogConfig::default() };
    let backlog = Arc::new(Backlog::new(room));
    let mut spooler = Spooler::new(queue(tmp.path(), config(PLENTY, SpoolFull::Refuse)), Arc::clone(&backlog));

    offer(&backlog, &batches[..60]);
    for batch in &batches[60..] {
        assert!(spooler.step(Duration::ZERO));
        offer(&backlog, std::slice::from_ref(batch));
    }
    while backlog.snapshot().staged_batches > 0 {
        assert!(spooler.step(Duration::ZERO));
    }
    check(&backlog.snapshot());
    drop(spooler);

    let mut found = queue(tmp.path(), config(PLENTY, SpoolFull::Refuse));
    assert_eq!(left_in(&mut found), (1..=90).collect::<Vec<u64>>());
}

/// A batch that was on its way to the disk found room in memory after all, and the next one did not.
#[test]
fn what_passed_the_disk_by_is_written_at_the_end_before_what_did_not() {
    for durability in [Durability::Spill, Durability::Wal] {
        let tmp = tempfile::tempdir().unwrap();
        let batches = sealed(A, 10);
        // six in memory, two staged
        let size = batches[9].bytes.len() + 256;
        let backlog = Arc::new(Backlog::new(BacklogConfig { max_bytes: 8 * size, durability, ..BacklogConfig::default() }));
        let mut spooler = Spooler::new(queue(tmp.path(), config(PLENTY, SpoolFull::Refuse)), Arc::clone(&backlog));
        let mut work = || (0..12).for_each(|_| assert!(spooler.step(Duration::ZERO)));
        let connection = backlog.begin(PeerKind::Extended, &[]);
        let ack = |seq| {
            while backlog.next_to_send(connection).is_some() {}
            backlog.ack(connection, A, BatchSeq(seq));
        };

        offer(&backlog, &batches[..8]);
        work();
        ack(2);
        work();
        offer(&backlog, &batches[8..]);
        ack(5);
        work();
        let before = backlog.snapshot();
        backlog.close_spool();
        assert!(!spooler.step(Duration::ZERO));
        drop(spooler);

        assert_eq!(
            (before.in_memory_batches, before.on_disk_batches),
            (5, 0),
            "the tenth was written, and read back: {durability:?}"
        );
        let end = backlog.snapshot();
        check(&end);
        assert_eq!((end.dropped(), end.on_disk_batches), (0, 5), "{durability:?}");
        let mut found = queue(tmp.path(), config(PLENTY, SpoolFull::Refuse));
        found.ack(A, BatchSeq(5));
        assert_eq!(left_in(&mut found), [6, 7, 8, 9, 10], "{durability:?}");
    }
}

/// Of a queue that syncs nothing by itself.
fn config(max_bytes: u64, when_full: SpoolFull) -> SpoolConfig {
    SpoolConfig {
        hunter_id: "edge".into(),
        max_bytes,
        min_free: MinFree::NONE,
        when_full,
        segment_bytes: 20_000,
        sync_after: LONG,
        sync_bytes: u64::MAX,
    }
}

fn queue(path: &Path, config: SpoolConfig) -> Queue<Disk> {
    Queue::open(unlocked(|| Disk::lock(path)).unwrap(), config).unwrap()
}

/// The batches that are read from it.
fn left_in(queue: &mut Queue<Disk>) -> Vec<u64> {
    std::iter::from_fn(|| queue.read()).map(|item| item.seq.0).collect()
}

fn segments(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "seg")).count()
}
