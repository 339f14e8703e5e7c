//! A processor that ends before any of its changes to the file system, again and again, and a machine that loses power: every packet is
//! once in each of its files, and what was said to be stored is never asked for again.
//!
//! `LC_CRASH_CASES` sets the number of cases, `LC_CRASH_FIRST` the first one's number.

mod sick;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::batch::{BatchView, ViewLimits};
use crate::capture::{FileSource, Progress as Read, Source};
use crate::numbered::{self, Dice};
use crate::processor::commit::{Commit, Recovered, recover};
use crate::processor::data::Acks;
use crate::processor::ingest::{Arrival, Span};
use crate::processor::shared::Incoming;
use crate::processor::topology::{self, Files};
use crate::processor::{Outputs, Reopen};
use crate::record::calls::{CallFiles, CallFilesConfig, Layout};
use crate::record::dir::{Access, Dir, MinFree};
use crate::record::fault::{Crash, Witness};
use crate::record::name::{Pattern, Purpose};
use crate::record::rotate::{RotateConfig, Rotating};
use crate::record::state::{Acked, Places, State};
use crate::record::unified::Unified;
use crate::spool::unlocked;
use crate::wire::data::FlowControl;

const HUNTERS: [(&str, u64); 2] = [("h1", 11), ("h2", 22)];
const BATCHES: usize = 30;
/// Where a processor has files.
const DIRS: [&str; 5] = ["", "calls", "rotating", "state", "state/commit-log"];

/// What kind of processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    durability: Durability,
    unified: &'static str,
    calls: &'static str,
    layout: Layout,
}

/// One packet: its number, and whose it is.
fn packet(number: u32) -> (Vec<u8>, Option<(&'static str, bool)>) {
    let data = numbered::frame(number.into(), 60 + (number % 50) as usize);
    // calls come and go: a new one every hundred packets
    let owner = match number % 7 {
        0 | 1 => None,
        2 => Some((["a@x", "b@x", "c@x"][number as usize / 100 % 3], true)),
        3 => Some((["d/x", "e@x", "f@x", "g@x"][number as usize / 50 % 4], false)),
        _ => Some(("long@x", number.is_multiple_of(2))),
    };
    (data, owner)
}

/// Every batch of every hunter, some packets each.
fn batches() -> Vec<Vec<SealedBatch>> {
    let mut next = 0;
    let of = |(hunter, epoch): (&str, u64)| {
        let config = EncoderConfig { hunter_id: hunter.into(), epoch: Epoch(epoch), limits: Limits::default() };
        let mut encoder = Encoder::new(config);
        let batch = |n: usize| {
            for _ in 0..=n % 9 {
                let (data, owner) = packet(next);
                let ts = Timestamp::from_nanos(i64::from(next) * 1_000_000);
                next += 1;
                let wire_len = u32::try_from(data.len()).unwrap();
                let frame = Frame { ts, wire_len, link: LinkType::ETHERNET, interface: InterfaceId(0), data: &data };
                let context = owner.map(|(call, sip)| {
                    let claim = if sip { "" } else { "sdp" };
                    let c = CallContext {
                        call_id: call.into(),
                        claim: claim.into(),
                        filter_ids: [Arc::from("f")].into(),
                        ..CallContext::default()
                    };
                    (ContextKey(call.bytes().fold(u64::from(sip), |k, b| k * 31 + u64::from(b) * 2)), c)
                });
                let pushed = encoder.push(&frame, context.as_ref().map(|(k, c)| (*k, c)), &[], false);
                assert_eq!(pushed, Pushed::Stored);
            }
            encoder.seal(5, 1, &BatchStats::default()).unwrap()
        };
        (0..BATCHES).map(batch).collect()
    };
    HUNTERS.map(of).into()
}

/// A processor's threads, which may end at any time.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

/// Everything a processor opens at its start, and again after an error of its disk.
fn open(root: &Path, kind: Kind) -> Result<(Vec<Acked>, Outputs, Commit), Box<dyn Error + Send + Sync>> {
    let state_dir = Dir::open(root.join("state"), Access::Private, MinFree::NONE)?;
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

/// Everything a processor does from its start on; `None` when it ended before it received anything.
pub(super) fn live(root: &Path, kind: Kind, crash: &Arc<Crash>) -> Option<Life> {
    live_told(root, kind, crash, 4000, |_| {})
}

/// The same, with checkpoints so far apart, and told something before its threads begin.
fn live_told(
    root: &Path,
    kind: Kind,
    crash: &Arc<Crash>,
    checkpoint_bytes: u64,
    told: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> Option<Life> {
    let (root, of) = (root.to_path_buf(), Arc::clone(crash));
    let start = move || {
        of.enter();
        let (acked, outputs, commit) = open(&root, kind).unwrap();
        let (jobs, queue) = mpsc::channel(8);
        let ingest = Ingest::restore(&acked);
        let shared = Arc::new(Shared::new("mid".into(), false, 10, ingest, 1, kind.durability, jobs));
        let reopen: Reopen = Box::new(move || {
            let (_, outputs, commit) = open(&root, kind)?;
            Ok((outputs, commit))
        });
        let files = Files { outputs, commit, reopen, checkpoint_bytes };
        told(&shared);
        let ended = topology::write(Arc::clone(&shared), files, queue).unwrap();
        Life { shared, ended }
    };
    let life = std::thread::spawn(start).join().ok();
    assert!(life.is_some() || crash.is_dead(), "it did not start");
    life
}

impl Life {
    fn stored(&self) -> Vec<u64> {
        HUNTERS.map(|(h, e)| self.shared.ingest.stored(h, Epoch(e)).0).into()
    }

    /// What a stream does with a batch; false when there is no room.
    fn offer(&self, hunter: &str, sealed: &SealedBatch) -> bool {
        let Ok(room) = self.shared.jobs.try_reserve() else { return false };
        let view = BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap();
        let span = Span { first: view.first_packet_index(), packets: view.len() as u64 };
        let batch = Incoming {
            hunter: hunter.into(),
            interfaces: Arc::from(["eth0".to_owned()]),
            view,
            epoch: sealed.epoch,
            announced: Some(sealed.epoch),
            seq: sealed.seq,
            acks: Arc::new(Acks::default()),
            received: crate::telemetry::clock::wall(),
            missing: 0,
            queued: crate::processor::counts::Queued::default(),
            room: None,
        };
        let arrival = self.shared.ingest.arrive(hunter, sealed.epoch, sealed.seq, span, false, |missing| {
            assert_eq!(missing, 0);
            room.send(Job::Batch(Box::new(batch)));
        });
        assert_ne!(arrival, Arrival::Late, "they come in order");
        true
    }

    /// Stops it, as gracefully as its disk allows.
    fn stop(self) {
        drop(self);
    }
}

impl Drop for Life {
    /// Waits until its threads have begun, so that what is in the log comes into the files, and then until they have ended.
    fn drop(&mut self) {
        let runs = |life: &Self| !*life.ended.borrow() && life.ended.has_changed().is_ok();
        while !self.shared.begun.load(Ordering::Acquire) && !self.shared.gauge().is_disk_full() && runs(self) {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.shared.stopping.store(true, Ordering::Release);
        while runs(self) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Sends everything that is not stored, as hunters do; true when all was stored before the process ended. The disk may be sick `sick`
/// times meanwhile: it does not confirm what is written, some times in a row.
fn feed(life: &Life, all: &[Vec<SealedBatch>], crash: &Crash, dice: &mut Dice, mut sick: u64) -> bool {
    // some come again although they are stored: their acknowledgement was lost
    let mut next: Vec<usize> = life
        .stored()
        .iter()
        .map(|s| usize::try_from(*s).unwrap().saturating_sub(usize::try_from(dice.roll(3)).unwrap()))
        .collect();
    loop {
        if crash.is_dead() {
            return false;
        }
        if life.stored().iter().all(|s| *s == BATCHES as u64) {
            return true;
        }
        if sick > 0 && crash.syncs_well() {
            crash.fail_syncs(dice.roll(30), 1 + dice.roll(3));
            sick -= 1;
        }
        let h = usize::try_from(dice.roll(2)).unwrap();
        let sent = all[h].get(next[h]).is_some_and(|b| life.offer(HUNTERS[h].0, b));
        if sent {
            next[h] += 1;
        } else {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Whether the last process left nothing to be done.
fn stopped_well(root: &Path) -> bool {
    let dir = Dir::open(root.join("state"), Access::Private, MinFree::NONE).unwrap();
    State::load(&dir).unwrap().is_some_and(|state| state.clean)
}

/// What was played, in one case or in many.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cases: u64,
    deaths: u64,
    power: u64,
    /// Times the disk did not confirm.
    refused: u64,
    packets: u64,
    missing: u64,
    doubled: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, o: Self) {
        self.cases += o.cases;
        self.deaths += o.deaths;
        self.power += o.power;
        self.refused += o.refused;
        self.packets += o.packets;
        self.missing += o.missing;
        self.doubled += o.doubled;
    }
}

/// One case: deaths until everything is stored, then a graceful stop.
fn case(seed: u64, kind: Kind, all: &[Vec<SealedBatch>]) -> Figures {
    let mut dice = Dice(seed);
    let mut figures = Figures { cases: 1, ..Figures::default() };
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path();
    let dirs: Vec<PathBuf> = DIRS.map(|d| root.join(d)).into();
    let mut witness = Witness::default();
    let mut known = vec![0; HUNTERS.len()];
    for life in 0.. {
        assert!(life < 500, "it does not get anywhere");
        let steps = if life < 4 { 1 + dice.roll(350) } else { u64::MAX };
        let crash = Crash::after(steps, witness);
        let mut graceful = false;
        if let Some(running) = live(root, kind, &crash) {
            let after: Vec<u64> = running.stored();
            assert!(after.iter().zip(&known).all(|(a, k)| a >= k), "stored {known:?}, and after a restart {after:?}");
            let sick = if kind.durability == Durability::Disk && dice.roll(3) == 0 { 1 + dice.roll(2) } else { 0 };
            graceful = feed(&running, all, &crash, &mut dice, sick);
            // some disks are still sick when it is to stop
            let still = kind.durability == Durability::Disk && life < 6 && dice.roll(3) == 0;
            crash.fail_syncs(0, if still { u64::MAX } else { 0 });
            known = running.stored();
            if graceful && dice.roll(3) == 0 && steps != u64::MAX {
                crash.kill();
                graceful = false;
            }
            running.stop();
        }
        figures.refused += crash.refused();
        // where the disk was sick when it was to stop, the next start gives files their names
        if graceful && !crash.is_dead() && stopped_well(root) {
            break;
        }
        figures.deaths += u64::from(crash.is_dead());
        witness = crash.witness();
        if kind.durability == Durability::Disk && dice.roll(2) == 0 {
            figures.power += 1;
            let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
            witness.lose_power(&dirs, &mut |below| dice.roll(below));
        }
    }
    (figures.packets, figures.missing, figures.doubled) = check(root, kind, all);
    figures
}

/// How often each number is in these files.
fn numbers(paths: impl Iterator<Item = PathBuf>) -> BTreeMap<u32, usize> {
    let mut seen = BTreeMap::new();
    for path in paths {
        let mut source = FileSource::open(&[&path]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        while source.poll(&mut |f| *seen.entry(u32::try_from(numbered::number(f.data)).unwrap()).or_default() += 1).unwrap()
            != Read::End
        {}
    }
    seen
}

/// Each number once.
fn assert_once(what: &str, got: &BTreeMap<u32, usize>, packets: u32, of: &dyn Fn(u32) -> bool) {
    let wrong: Vec<(u32, usize)> =
        (0..packets).map(|n| (n, got.get(&n).copied().unwrap_or(0))).filter(|(n, times)| *times != usize::from(of(*n))).collect();
    assert!(wrong.is_empty(), "{what}: packets that are not there as often as they should be: {wrong:?}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// Packets that should be in the files; of these missing, and there more than once.
fn check(root: &Path, kind: Kind, all: &[Vec<SealedBatch>]) -> (u64, u64, u64) {
    let packets: u32 = all.iter().flatten().map(|b| b.packets).sum();
    let unified = numbers([root.join(kind.unified)].into_iter());
    assert_once("unified", &unified, packets, &|_| true);
    let rotating = files(&root.join("rotating"));
    assert!(rotating.iter().all(|p| p.extension().is_some_and(|e| e == "pcap")), "{rotating:?}");
    assert!(rotating.len() > 5, "files rotate");
    assert_once("rotating", &numbers(rotating.into_iter()), packets, &|n| packet(n).1.is_none());

    let calls = files(&root.join("calls"));
    assert!(calls.iter().all(|p| p.extension().is_some_and(|e| e == "json" || e == "pcap" || e == "pcapng")), "{calls:?}");
    let mut named = 0;
    let mut told = Vec::new();
    for path in calls.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let call = record["call_id"].as_str().unwrap();
        let of = |n: u32| packet(n).1.is_some_and(|(c, _)| c == call);
        let list = record["files"].as_array().unwrap();
        named += list.len();
        let paths = list.iter().map(|f| root.join("calls").join(f["name"].as_str().unwrap()));
        assert_once(call, &numbers(paths), packets, &of);
        for f in list {
            let path = root.join("calls").join(f["name"].as_str().unwrap());
            assert_eq!(f["bytes"].as_u64().unwrap(), fs::metadata(&path).unwrap().len(), "{f}");
        }
        let count: u64 = ["sip", "rtp", "rtcp"].iter().filter_map(|k| record["packets"][k].as_u64()).sum();
        assert_eq!(count, (0..packets).filter(|n| of(*n)).count() as u64, "{record:#}");
        told.push(call.to_owned());
    }
    told.sort();
    assert_eq!(told, ["a@x", "b@x", "c@x", "d/x", "e@x", "f@x", "g@x", "long@x"]);
    assert_eq!(named, calls.iter().filter(|p| p.extension().is_some_and(|e| e != "json")).count(), "a file that no record names");
    let doubled = unified.values().filter(|times| **times > 1).count();
    (packets.into(), u64::from(packets) - unified.len() as u64, doubled as u64)
}

fn cases(default: u64) -> u64 {
    std::env::var("LC_CRASH_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn whenever_a_processor_ends_every_packet_is_once_in_each_of_its_files() {
    let all = batches();
    let kinds = [
        Kind { durability: Durability::Process, unified: "all.pcap", calls: "{callid}.pcap", layout: Layout::Split },
        Kind { durability: Durability::Disk, unified: "all.pcapng", calls: "{callid}.pcap", layout: Layout::Merged },
        Kind { durability: Durability::Disk, unified: "all.pcap", calls: "{timestamp}_{callid}.pcapng", layout: Layout::Split },
    ];
    let (done, mut sum) = (cases(30), Figures::default());
    let first = std::env::var("LC_CRASH_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + done {
        let kind = kinds[usize::try_from(seed % 3).unwrap()];
        match std::panic::catch_unwind(|| case(seed, kind, &all)) {
            Ok(figures) => sum += figures,
            Err(e) => {
                println!("case {seed}: {kind:?}");
                std::panic::resume_unwind(e);
            }
        }
    }
    println!("| crash test: cases | deaths | losses of power | not confirmed | packets | missing | doubled |");
    println!("|{}", "---|".repeat(7));
    let f = sum;
    println!("| {} | {} | {} | {} | {} | {} | {} |", f.cases, f.deaths, f.power, f.refused, f.packets, f.missing, f.doubled);
}

pub(super) const PLAIN: Kind =
    Kind { durability: Durability::Disk, unified: "all.pcap", calls: "{callid}.pcap", layout: Layout::Split };
pub(super) const KERNEL: Kind = Kind { durability: Durability::Process, ..PLAIN };

fn wait(mut until: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if until() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it does not come about");
}

/// A processor that was killed once everything was stored: its log has all of it, and the files of calls little. With its last checkpoint.
fn killed() -> (tempfile::TempDir, Vec<Vec<SealedBatch>>, OnDisk) {
    let (tmp, all) = (tempfile::tempdir().unwrap(), batches());
    let crash = Crash::after(u64::MAX, Witness::default());
    let life = live_told(tmp.path(), PLAIN, &crash, u64::MAX, |_| {}).unwrap();
    assert!(feed(&life, &all, &crash, &mut Dice(1), 0));
    crash.kill();
    let before = checkpoint(tmp.path());
    (tmp, all, before)
}

/// Files and what is in them.
type OnDisk = Vec<(PathBuf, Vec<u8>)>;

/// What the last checkpoint says.
fn checkpoint(root: &Path) -> OnDisk {
    let states = files(&root.join("state")).into_iter().filter(|p| p.is_file());
    states.map(|p| (p.clone(), fs::read(p).unwrap())).collect()
}

#[test]
fn a_start_that_is_told_to_stop_while_it_reads_the_log_again_ends_there_and_leaves_it_to_the_next() {
    let (tmp, all, before) = killed();

    let mut stopped = 0;
    loop {
        let crash = Crash::after(u64::MAX, Witness::default());
        let disk = Arc::clone(&crash);
        let told = move |shared: &Arc<Shared>| {
            let shared = Arc::clone(shared);
            let stop = move || shared.stopping.store(true, Ordering::Release);
            if stopped == 0 { stop() } else { disk.tell_at(stopped, stop) }
        };
        let life = live_told(tmp.path(), PLAIN, &crash, 4000, told).unwrap();
        assert_eq!(life.stored(), [BATCHES as u64; 2]);
        wait(|| *life.ended.borrow() || life.shared.begun.load(Ordering::Acquire));
        if checkpoint(tmp.path()) != before {
            break;
        }
        assert!(*life.ended.borrow(), "it ends");
        stopped += 1;
    }

    assert!(stopped > 20, "{stopped} starts were stopped before they had read everything");
    live(tmp.path(), PLAIN, &Crash::after(u64::MAX, Witness::default())).unwrap().stop();
    check(tmp.path(), PLAIN, &all);
}

#[test]
fn a_stop_without_time_for_the_first_checkpoint_leaves_it_to_the_next_start() {
    let (tmp, all, before) = killed();
    let crash = Crash::after(u64::MAX, Witness::default());

    let late = |shared: &Arc<Shared>| shared.late.store(true, Ordering::Release);
    let life = live_told(tmp.path(), PLAIN, &crash, 4000, late).unwrap();
    wait(|| *life.ended.borrow() || life.shared.begun.load(Ordering::Acquire));

    assert!(*life.ended.borrow() && checkpoint(tmp.path()) == before);
    live(tmp.path(), PLAIN, &crash).unwrap().stop();
    assert!(stopped_well(tmp.path()));
    check(tmp.path(), PLAIN, &all);
}

#[test]
fn what_a_hunter_said_of_its_runs_survives_a_kill() {
    let all = batches();
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("state")).unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let first = live(tmp.path(), KERNEL, &crash).unwrap();
    let hunter: Arc<str> = "edge".into();
    for (run, at) in [(1, 100), (2, 110)] {
        first.shared.losses.lock().begin(&hunter, run, Timestamp::from_nanos(at));
    }
    // what is said before a batch is stored with it
    while !first.offer(HUNTERS[0].0, &all[0][0]) {}
    wait(|| first.stored() == [1, 0]);
    crash.kill();
    first.stop();

    let crash = Crash::after(u64::MAX, Witness::default());
    let second = live(tmp.path(), KERNEL, &crash).unwrap();
    let holes =
        |life: &Life| life.shared.losses.lock().holes("edge", Timestamp::from_nanos(50), Timestamp::from_nanos(200)).count();
    wait(|| holes(&second) == 1);
    second.stop();
}
