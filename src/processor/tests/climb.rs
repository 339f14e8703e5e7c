//! The road upwards of a processor that ends before any change to the file system, and of a machine that loses power: what was said to be
//! safe is in the queue of the next start, and each hunter's batches come out in their order.
//!
//! `LC_CRASH_CASES` sets the number of cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::batch::{BatchView, ViewLimits, key_of};
use crate::numbered::Dice;
use crate::processor::data::Acks;
use crate::processor::shared::Incoming;
use crate::processor::upstream::Upstream;
use crate::record::dir::MinFree;
use crate::record::fault::{Crash, Witness};
use crate::spool::{Disk, Queue, SpoolConfig, SpoolFull, unlocked};
use crate::uplink::Spooler;

const HUNTERS: [(&str, u64); 2] = [("h1", 11), ("h2", 11)];
const BATCHES: usize = 40;

fn incoming(hunter: &str, sealed: &SealedBatch) -> Incoming {
    Incoming {
        hunter: hunter.into(),
        interfaces: Arc::from(["eth0".to_owned()]),
        view: BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap(),
        epoch: sealed.epoch,
        announced: Some(sealed.epoch),
        seq: sealed.seq,
        acks: Arc::new(Acks::default()),
        received: Timestamp::from_nanos(0),
        missing: 0,
        queued: crate::processor::counts::Queued::default(),
        room: None,
    }
}

fn queue(path: &Path) -> Queue<Disk> {
    let config = SpoolConfig {
        hunter_id: "processor:mid".into(),
        max_bytes: 64 << 20,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 6000,
        sync_after: Duration::from_millis(50),
        sync_bytes: 2000,
    };
    Queue::open(unlocked(|| Disk::lock(path)).unwrap(), config).unwrap()
}

/// The spool's thread at work on a queue; none when it ended before.
fn live(path: &Path, crash: &Arc<Crash>) -> Option<(Upstream, std::thread::JoinHandle<()>)> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let (path, of) = (path.to_path_buf(), Arc::clone(crash));
    let thread = std::thread::spawn(move || {
        of.enter();
        let queue = queue(&path);
        let mut upstream = Upstream::new("mid".into(), 1 << 20, 64 << 20, 1);
        // a queue whose thread is dead does not get better
        upstream.patience = Duration::ZERO;
        let spooler = Spooler::new(queue, Arc::clone(&upstream.backlog));
        ready.send(upstream).unwrap();
        spooler.run();
    });
    if let Ok(upstream) = started.recv() {
        return Some((upstream, thread));
    }
    assert!(thread.join().is_err() && crash.is_dead(), "it did not start");
    None
}

fn case(seed: u64, all: &[Vec<SealedBatch>]) {
    let mut dice = Dice(seed);
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("queue");
    let mut witness = Witness::default();
    // what a commit log would remember: safe batches of each hunter
    let mut stored = [0; HUNTERS.len()];
    for life in 0.. {
        let steps = if life < 4 { 1 + dice.roll(60) } else { u64::MAX };
        let crash = Crash::after(steps, witness);
        if let Some((upstream, thread)) = live(&path, &crash) {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !crash.is_dead() && !stop.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    stop.store(true, Ordering::Release);
                });
                while !stop.load(Ordering::Acquire) && stored != [BATCHES; HUNTERS.len()] {
                    let mut next = stored;
                    for _ in 0..=dice.roll(4) {
                        let h = dice.pick(HUNTERS.len());
                        if let Some(batch) = all[h].get(next[h]) {
                            next[h] += usize::from(upstream.offer(&incoming(HUNTERS[h].0, batch), &stop));
                        }
                    }
                    if upstream.secure(&stop) {
                        stored = next;
                    }
                }
                stop.store(true, Ordering::Release);
            });
            upstream.backlog.close_spool();
            let _ended = thread.join();
            assert_eq!(upstream.figures().imbalance(), 0);
        }
        if !crash.is_dead() {
            break;
        }
        witness = crash.witness();
        if dice.roll(2) == 0 {
            let dirs: Vec<PathBuf> = vec![tmp.path().into(), path.clone()];
            let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
            witness.lose_power(&dirs, &mut |below| dice.roll(below));
        }
    }
    assert_eq!(stored, [BATCHES; HUNTERS.len()]);
    check(&path, all);
}

/// What the processor above would store: each batch by its key, the first time it comes.
fn check(path: &Path, all: &[Vec<SealedBatch>]) {
    let mut queue = queue(path);
    let mut highest = BTreeMap::<Box<str>, u64>::new();
    while let Some(item) = queue.read() {
        let message = item.bytes.slice(5..);
        let key = key_of(&message).unwrap();
        let h = HUNTERS.iter().position(|(id, _)| **id == *key.hunter).unwrap();
        let original = &all[h][usize::try_from(key.seq.0).unwrap() - 1];
        assert!(message.starts_with(&original.message()), "it travels unchanged");
        let seen = highest.entry(key.hunter).or_default();
        assert!(key.seq.0 <= *seen + 1, "batch {} comes after {seen}", key.seq);
        *seen = key.seq.0.max(*seen);
    }
    assert_eq!(queue.take_lost(), []);
    assert_eq!(highest.into_values().collect::<Vec<_>>(), [BATCHES as u64; HUNTERS.len()]);
}

#[test]
fn whenever_a_processor_ends_what_was_safe_for_the_one_above_is_in_its_queue_in_order() {
    // two hunters with the same epoch: the key is both
    let all: Vec<Vec<SealedBatch>> = HUNTERS.iter().map(|(id, epoch)| sealed(id, *epoch, BATCHES)).collect();
    let cases = std::env::var("LC_CRASH_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    for seed in 0..cases {
        if let Err(e) = std::panic::catch_unwind(|| case(seed, &all)) {
            println!("case {seed}");
            std::panic::resume_unwind(e);
        }
    }
}

/// It was given up at the first look, which no disk that has much to do is quick enough for.
#[test]
fn a_stop_waits_for_a_queue_whose_disk_is_slow() {
    let tmp = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::new("mid".into(), 1 << 20, 64 << 20, 1);
    upstream.patience = LONG;
    let spooler = Spooler::new(queue(&tmp.path().join("queue")), Arc::clone(&upstream.backlog));
    let stop = AtomicBool::new(true);
    assert!(upstream.offer(&incoming("h1", &sealed("h1", 11, 1)[0]), &stop));
    let slow = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(500));
        spooler.run();
    });

    assert!(upstream.secure(&stop));

    upstream.backlog.close_spool();
    slow.join().unwrap();
}
