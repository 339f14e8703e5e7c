use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::batch::{SealedBatch, grpc_prefix};
use crate::record::dir::MinFree;
use crate::spool::{Disk, Queue, SpoolConfig, SpoolFull, unlocked};
use crate::uplink::{Backlog, BacklogConfig, Durability, PeerKind, Spooler};

/// Packets in a batch: so many that one cannot hide in [`UNSEEN`].
const EACH: u64 = 5000;

fn crashed(at_risk: u64, rate: u64) -> LastRun {
    LastRun::Crashed(vec![StateRecord { epoch: 5, at_risk, rate, ..StateRecord::default() }])
}

fn before(last: &LastRun, found: u64, age_ms: i64) -> Before {
    Before::of(last, |_, _| found, age_ms * 1_000_000, None)
}

#[test]
fn a_run_that_stopped_and_one_that_left_no_word_leave_nothing_to_report() {
    for last in [LastRun::Unknown, LastRun::Stopped] {
        assert_eq!(before(&last, 0, 50), Before::default());
    }
    assert_eq!(before(&LastRun::Unreadable, 0, 50), Before { unreadable: true, ..Before::default() });
}

#[test]
fn what_came_after_the_record_is_bounded_by_rate_and_age_and_the_clock_is_not_trusted() {
    let at = |age_ms| before(&crashed(7, 1000), 0, age_ms).last_run - 7 - UNSEEN;

    assert_eq!([at(0), at(200), at(900), at(1_000_000), at(-1)], [200, 200, 900, 2000, 2000]);
}

#[test]
fn what_is_found_on_disk_is_taken_off_but_never_all_that_may_have_come_unseen() {
    let left = |found| before(&crashed(5000, 0), found, 0).last_run;

    assert_eq!([left(0), left(4000), left(1 << 40)], [5000 + UNSEEN, 1000 + UNSEEN, UNSEEN]);
}

#[test]
fn a_host_that_went_down_with_the_last_run_is_told_apart() {
    let of = |booted| Before::of(&crashed(1, 0), |_, _| 0, 10, Some(booted)).host_down;

    assert_eq!([of(-1), of(1)], [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_record_is_due_every_second_and_at_once_when_more_comes_than_the_last_one_allows_for() {
    let mut rate = Rate::new();
    let after = |ms| tokio::time::advance(Duration::from_millis(ms));

    after(100).await;
    assert!(!rate.is_due(UNSEEN / 2) && rate.is_due(UNSEEN / 2 + 1));
    assert_eq!(rate.note(1000), 10_000);
    after(500).await;
    assert!(!rate.is_due(1000 + 5000 + UNSEEN / 2) && rate.is_due(1000 + 5001 + UNSEEN / 2));
    after(500).await;
    assert!(rate.is_due(1000));
    assert_eq!(rate.note(1000), 8750, "a peak is remembered");
    for _ in 0..100 {
        after(1000).await;
        rate.note(1000);
    }
    assert_eq!(rate.note(1000), 0, "but not for ever");
}

#[test]
fn what_a_killed_runs_kernel_lost_is_handed_on_by_the_next_and_by_the_one_after() {
    let tmp = tempfile::tempdir().unwrap();
    let lost = |run: &RunRecord| (run.instance, run.kernel_dropped, run.interface_dropped);
    let mut handed_on = Vec::new();
    for n in 1..=7 {
        let mut run = Run::start(tmp.path(), n, Durability::Memory);
        handed_on.push(run.earlier.iter().map(lost).collect::<Vec<_>>());
        // the second loses nothing
        let kernel_dropped = if n == 2 { 0 } else { 10 + n };
        run.shared.progress[0].lock().kernel = KernelStats { kernel_dropped, interface_dropped: 0, ..KernelStats::default() };
        run.recorder.write(false);
    }

    assert_eq!(handed_on[..3], [vec![], vec![(1, 11, 0)], vec![(1, 11, 0), (2, 0, 0)]]);
    assert_eq!(handed_on[6], [(3, 13, 0), (4, 14, 0), (5, 15, 0), (6, 16, 0)]);
}

/// One run of a hunter, in one thread, with what is true of its packets.
struct Run {
    shared: Arc<Shared>,
    spooler: Option<Spooler<Disk>>,
    recorder: Recorder,
    epoch: Epoch,
    before: Before,
    earlier: Vec<RunRecord>,
    next: u64,
}

impl Run {
    fn start(dir: &Path, n: u64, durability: Durability) -> Self {
        let disk = unlocked(|| Disk::lock(dir)).unwrap();
        let (account, queue) = if durability == Durability::Memory {
            let (file, last, runs) = StateFile::open(&disk, "h").unwrap();
            (Account::new(file.holding(disk), before(&last, 0, 0), runs), None)
        } else {
            let config = SpoolConfig {
                hunter_id: "h".into(),
                max_bytes: 8000,
                min_free: MinFree::NONE,
                when_full: SpoolFull::DropOldest,
                segment_bytes: 4000,
                sync_after: Duration::MAX,
                sync_bytes: u64::MAX,
            };
            let queue = Queue::open(disk.volatile(), config).unwrap();
            let (file, last, runs) = StateFile::open(queue.fs(), "h").unwrap();
            let now = clock::wall().as_nanos();
            let before = Before::of(&last, |epoch, seq| queue.packets_after(epoch, seq), now, None);
            (Account::new(file, before, runs), Some(queue))
        };
        let (before, earlier) = (account.before, account.earlier.clone());
        // eight batches in memory, some more on their way to the disk
        let room = BacklogConfig { max_bytes: 8 * 1100, durability, ..BacklogConfig::default() };
        let shared = Arc::new(Shared::new(Arc::new(Backlog::new(room)), 1));
        let of = Arc::clone(&shared);
        let spooler = queue.map(|queue| Spooler::new(queue, Arc::clone(&shared.backlog)).telling(move || of.promise.ask()));
        let epoch = Epoch(n);
        let recorder = Recorder::new(account, vec![epoch], n, Arc::clone(&shared));
        Self { shared, spooler, recorder, epoch, before, earlier, next: 1 }
    }

    fn capture(&mut self) {
        let mut slot = self.shared.progress[0].lock();
        slot.engine.forwarded += EACH;
        let bytes = [&grpc_prefix(500)[..], &[7; 500]].concat();
        let batch = SealedBatch::stored(self.epoch, BatchSeq(self.next), u32::try_from(EACH).unwrap(), bytes.into());
        self.next += 1;
        let _taken = self.shared.backlog.offer(batch);
        let taken = slot.engine.forwarded;
        drop(slot);
        let _asked = self.shared.promise.took(taken - EACH, taken);
        self.record_if_asked();
    }

    /// The state thread's work.
    fn record_if_asked(&mut self) {
        if self.shared.promise.wait_asked(Duration::ZERO) {
            self.recorder.write(false);
        }
    }

    /// Nothing comes for minutes.
    fn be_quiet(&mut self) {
        self.recorder.write(false);
        self.recorder.rate.peak = 0;
        self.recorder.write(false);
    }

    fn spool(&mut self, steps: u64) {
        if let Some(spooler) = &mut self.spooler {
            (0..steps).for_each(|_| assert!(spooler.step(Duration::ZERO)));
        }
        self.record_if_asked();
    }

    /// A processor takes so many batches.
    fn deliver(&self, batches: u64, to: &mut BTreeSet<(Epoch, BatchSeq)>) {
        let backlog = &self.shared.backlog;
        let connection = backlog.begin(PeerKind::Extended, &[]);
        for _ in 0..batches {
            let Some(out) = backlog.next_to_send(connection) else { break };
            to.insert((out.batch.epoch, out.batch.seq));
            backlog.ack(connection, out.batch.epoch, out.batch.seq);
        }
        backlog.end(connection);
    }
}

/// What is on the disk.
fn kept(dir: &Path) -> BTreeSet<(Epoch, BatchSeq)> {
    let (disk, mut all) = (Disk::look(dir).unwrap(), BTreeSet::new());
    let read = |item: crate::spool::Item| {
        all.insert((item.epoch, item.seq));
        Ok::<_, crate::spool::SpoolError>(())
    };
    crate::spool::list(&disk, true, read).unwrap();
    all
}

#[derive(Clone, Debug)]
enum Step {
    Capture,
    Spool(u64),
    Deliver(u64),
    Quiet,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        8 => Just(Step::Capture),
        4 => (1..4_u64).prop_map(Step::Spool),
        2 => (1..6_u64).prop_map(Step::Deliver),
        2 => Just(Step::Quiet),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whenever_and_however_often_a_run_is_killed_the_next_one_reports_no_less_than_what_is_missing(
        steps in steps(),
        durability in prop_oneof![Just(Durability::Memory), Just(Durability::Spill), Just(Durability::Wal)],
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let (mut run, mut n, mut delivered) = (Run::start(tmp.path(), 1, durability), 1, BTreeSet::new());
        let (mut chosen, mut given_up) = (0, 0);
        for step in steps.into_iter().chain([Step::Kill]) {
            match step {
                Step::Capture => {
                    run.capture();
                    chosen += EACH;
                }
                Step::Spool(steps) => run.spool(steps),
                Step::Deliver(batches) => run.deliver(batches, &mut delivered),
                Step::Quiet => run.be_quiet(),
                Step::Kill => {
                    given_up += run.shared.backlog.snapshot().dropped();
                    drop(run);
                    let there = delivered.union(&kept(tmp.path())).count() as u64 * EACH;
                    n += 1;
                    run = Run::start(tmp.path(), n, durability);
                    let missing = chosen - there - given_up;
                    prop_assert!(run.before.at_most() >= missing, "{} are missing: {:?}", missing, run.before);
                }
            }
        }
        run.recorder.write(true);
        drop(run);
        prop_assert_eq!(Run::start(tmp.path(), n + 1, durability).before, Before::default(), "it stopped by itself");
    }
}

#[test]
fn what_stands_on_disk_before_the_record_is_not_taken_for_what_was_in_memory() {
    let tmp = tempfile::tempdir().unwrap();
    let mut run = Run::start(tmp.path(), 1, Durability::Wal);
    for _ in 0..4 {
        run.capture();
        run.spool(2);
    }
    (0..3).for_each(|_| run.capture());
    run.be_quiet();
    run.spool(1);
    drop(run);

    assert_eq!(Run::start(tmp.path(), 2, Durability::Wal).before.last_run, 2 * EACH + UNSEEN);
}

#[test]
fn what_is_in_memory_and_had_to_leave_the_disk_for_newer_batches_is_at_risk() {
    let tmp = tempfile::tempdir().unwrap();
    let mut run = Run::start(tmp.path(), 1, Durability::Wal);
    for _ in 0..30 {
        run.capture();
        run.spool(2);
    }
    run.be_quiet();
    let s = run.shared.backlog.snapshot();
    drop(run);

    let on_disk = kept(tmp.path()).len() as u64 * EACH;
    let gone = 30 * EACH - s.dropped() - on_disk;
    assert!(gone > EACH, "{gone}");
    assert_eq!(Run::start(tmp.path(), 2, Durability::Wal).before.last_run, gone + UNSEEN);
}

#[test]
fn what_leaves_the_disk_after_the_record_while_it_is_in_memory_is_at_risk_too() {
    let tmp = tempfile::tempdir().unwrap();
    let mut run = Run::start(tmp.path(), 1, Durability::Wal);
    // memory is full, its copies and four more on the disk, and two wait to be written
    for batches in [8, 2, 2, 2] {
        run.spool(8);
        (0..batches).for_each(|_| run.capture());
    }
    run.be_quiet();
    run.spool(8);
    let gone = (run.next - 1) * EACH - run.shared.backlog.snapshot().dropped() - kept(tmp.path()).len() as u64 * EACH;
    drop(run);

    assert!(gone > EACH + UNSEEN, "{gone}");
    assert!(Run::start(tmp.path(), 2, Durability::Wal).before.last_run >= gone);
}

#[test]
fn a_torn_record_stops_no_start_is_counted_and_the_next_run_is_accounted_for_again() {
    let tmp = tempfile::tempdir().unwrap();
    drop(Run::start(tmp.path(), 1, Durability::Wal));
    let path = tmp.path().join("state");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();

    let torn = Run::start(tmp.path(), 2, Durability::Wal);
    let (before, errors) = (torn.before, torn.shared.state_errors.load(Ordering::Relaxed));
    drop(torn);
    let after = Run::start(tmp.path(), 3, Durability::Wal).before;

    assert_eq!((before, errors), (Before { unreadable: true, ..Before::default() }, 1));
    assert_eq!((after.unreadable, after.at_most()), (false, UNSEEN));
}

#[test]
fn the_thread_says_that_a_run_stopped_only_if_it_is_told_so() {
    let tmp = tempfile::tempdir().unwrap();
    let end = |told: Option<bool>| {
        let Run { recorder, spooler, .. } = Run::start(tmp.path(), 1, Durability::Wal);
        let (tell, end) = std::sync::mpsc::sync_channel(1);
        if let Some(stopped) = told {
            tell.send(stopped).unwrap();
        }
        drop(tell);
        recorder.run(&end);
        drop(spooler);
        let Run { before, .. } = Run::start(tmp.path(), 2, Durability::Wal);
        before.last_run
    };

    assert_eq!([end(Some(true)), end(Some(false)), end(None)], [0, UNSEEN, UNSEEN]);
}
