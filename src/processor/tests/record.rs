//! The record thread: batches in, files and records out, over restarts.

mod checkpoints;
mod room;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use serde_json::Value;

use super::*;
use crate::batch::{BatchView, ELSEWHERE, ViewLimits};
use crate::capture::{FileSource, Progress, Source};
use crate::packet::headers::{DecodeOptions, Transport, decode};
use crate::processor::Outputs;
use crate::processor::commit::{Recovered, recover};
use crate::processor::data::Acks;
use crate::processor::shared::Incoming;
use crate::processor::topology::{self, Files};
use crate::protocols::sip;
use crate::record::calls::{CallFiles, CallFilesConfig, Layout};
use crate::record::dir::{Access, Dir, MinFree};
use crate::record::name::{Pattern, Purpose};
use crate::record::state::{Places, State};
use crate::wire::data;
use crate::wire::management::ProcessorRegistration;

/// One frame of a capture and what a hunter says of it.
#[derive(Clone)]
struct Packet {
    call_id: String,
    sip: bool,
    ts: Timestamp,
    data: Vec<u8>,
}

/// A capture as the hunter forwards it: all of it one call, or each SIP message's own.
fn capture(name: &str, call_id: &str) -> Vec<Packet> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("captures/voip").join(name);
    let mut source = FileSource::open(&[path]).unwrap();
    let mut all = Vec::new();
    let mut take = |f: Frame<'_>| {
        assert_eq!(f.link, LinkType::ETHERNET);
        let h = decode(f.link, f.data, &DecodeOptions::default()).unwrap();
        let payload = h.payload(f.data);
        let stream = matches!(h.transport, Transport::Tcp(_));
        // what a hunter forwards of a stream are the segments that carry messages
        if !(stream && payload.is_empty()) {
            let sip = stream || sip::looks_like(payload);
            all.push(Packet { call_id: call_id.to_owned(), sip, ts: f.ts, data: f.data.to_vec() });
        }
    };
    while source.poll(&mut take).unwrap() != Progress::End {}
    all
}

/// The Call-ID of a capture's only call.
fn call_id(packets: &[Packet]) -> String {
    let h = decode(LinkType::ETHERNET, &packets[0].data, &DecodeOptions::default()).unwrap();
    let m = sip::Message::index(h.payload(&packets[0].data)).unwrap();
    String::from_utf8(m.call_id().unwrap().to_vec()).unwrap()
}

fn one_call(name: &str) -> Vec<Packet> {
    let id = call_id(&capture(name, ""));
    capture(name, &id)
}

/// A hunter's batcher.
struct Batcher {
    encoder: Encoder,
    interfaces: Arc<[String]>,
}

impl Batcher {
    fn new(hunter: &str, epoch: u64) -> Self {
        let config = EncoderConfig { hunter_id: hunter.into(), epoch: Epoch(epoch), limits: Limits::default() };
        Self { encoder: Encoder::new(config), interfaces: Arc::from(["eth0".to_owned()]) }
    }

    fn batch(&mut self, packets: &[Packet], hunter: &str) -> Incoming {
        for p in packets {
            let claim = if p.sip { "" } else { "sdp" };
            let context = CallContext {
                call_id: (&*p.call_id).into(),
                filter_ids: [Arc::from("f1")].into(),
                leg: "",
                claim: claim.into(),
                holes: "".into(),
                phone_rule: "".into(),
            };
            let mut key = p.call_id.bytes().fold(7_u64, |k, b| k.wrapping_mul(31).wrapping_add(u64::from(b)));
            key = key << 1 | u64::from(p.sip);
            let frame = Frame {
                ts: p.ts,
                wire_len: u32::try_from(p.data.len()).unwrap(),
                link: LinkType::ETHERNET,
                interface: InterfaceId(0),
                data: &p.data,
            };
            let pushed = self.encoder.push(&frame, Some((ContextKey(key), &context)), &[], false);
            assert!(matches!(pushed, Pushed::Stored | Pushed::StoredFull), "{pushed:?}");
        }
        let sealed = self.encoder.seal(5, 1, &BatchStats::default()).unwrap();
        let view = BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap();
        Incoming {
            hunter: hunter.into(),
            interfaces: Arc::clone(&self.interfaces),
            view,
            epoch: sealed.epoch,
            announced: Some(sealed.epoch),
            seq: sealed.seq,
            acks: Arc::new(Acks::default()),
            received: crate::telemetry::clock::wall(),
            missing: 0,
            queued: crate::processor::counts::Queued::default(),
            room: None,
        }
    }
}

/// A running record thread on files in a directory.
struct Recorder {
    shared: Arc<Shared>,
    dir: PathBuf,
    ended: tokio::sync::watch::Receiver<bool>,
}

#[derive(Clone, Copy)]
struct Setup {
    pattern: &'static str,
    layout: Layout,
    grace: Duration,
    max_calls: usize,
    checkpoint_bytes: u64,
    durability: Durability,
}

const SPLIT: Setup = Setup {
    pattern: "{callid}.pcap",
    layout: Layout::Split,
    grace: Duration::ZERO,
    max_calls: 1000,
    checkpoint_bytes: 128 << 20,
    durability: Durability::Process,
};

impl Recorder {
    /// Starts one, continuing what an earlier one left.
    fn start(dir: &Path, setup: Setup) -> Self {
        let state_dir = Dir::open(dir.join("state"), Access::Private, MinFree::NONE).unwrap();
        let places = Places { calls: Some(dir.join("calls")), ..Places::default() };
        let Recovered { state, commit } =
            recover(&state_dir, setup.durability, MinFree::NONE, places, &AtomicBool::new(false)).unwrap();
        let cfg = CallFilesConfig {
            min_free: MinFree::NONE,
            layout: setup.layout,
            max_file_bytes: 4000,
            max_calls: setup.max_calls,
            close_again_after: Duration::from_millis(50),
            ..CallFilesConfig::new(Pattern::parse(setup.pattern, Purpose::Call).unwrap())
        };
        let mut calls = CallFiles::open(&dir.join("calls"), cfg).unwrap();
        calls.restore(&state.calls);
        let outputs = Outputs {
            unified: None,
            calls: Some(calls),
            rotating: None,
            memory: state.memory,
            losses: state.losses,
            times: crate::voip::expiry::CallTimes::default(),
            grace: setup.grace,
            retain_age: Duration::ZERO,
        };
        let (jobs, queue) = mpsc::channel(256);
        let ingest = Ingest::restore(&state.acked);
        let shared = Arc::new(Shared::new("mid".into(), false, 10, ingest, 1, setup.durability, jobs));
        let reopen = Box::new(|| Err("the disk of this test is well".into()));
        let files = Files { outputs, commit, reopen, checkpoint_bytes: setup.checkpoint_bytes };
        let ended = topology::write(Arc::clone(&shared), files, queue).unwrap();
        Self { shared, dir: dir.join("calls"), ended }
    }

    fn send(&self, batch: Incoming) {
        self.shared.jobs.try_send(Job::Batch(Box::new(batch))).ok().unwrap();
    }

    fn hunter_stops(&self, hunter: &str) {
        self.shared.jobs.try_send(Job::Stopping { hunter: hunter.into() }).ok().unwrap();
    }

    /// Waits until what an earlier one left is in the files.
    fn begun(self) -> Self {
        while !self.shared.begun.load(Ordering::Acquire) {
            self.ended.has_changed().expect("the record thread panicked");
            std::thread::sleep(Duration::from_millis(1));
        }
        self
    }

    /// Stops it gracefully, once it has begun.
    fn stop(self) {
        let this = self.begun();
        this.shared.stopping.store(true, Ordering::Release);
        while !*this.ended.borrow() {
            this.ended.has_changed().expect("the record thread panicked");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(this.shared.counters.counts().dropped, 0);
    }

    fn records(&self) -> BTreeMap<String, Value> {
        records(&self.dir)
    }

    /// Waits until a call's record says so.
    fn wait(&self, call_id: &str, mut there: impl FnMut(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            if let Some(record) = self.records().remove(call_id).filter(|r| there(r)) {
                return record;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not come about: {:#?}", self.records().get(call_id));
    }
}

fn records(dir: &Path) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "json") {
            // one that is replaced in this moment is there the next time
            let Ok(text) = fs::read_to_string(&entry) else { continue };
            let record: Value = serde_json::from_str(&text).unwrap();
            all.insert(record["call_id"].as_str().unwrap().to_owned(), record);
        }
    }
    all
}

fn is_closed(record: &Value) -> bool {
    record["closed"] == true
}

#[test]
fn a_call_is_not_over_because_its_hunter_has_sent_but_one_batch() {
    let tmp = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(tmp.path(), SPLIT);
    let call = one_call("plain.pcap");
    let other = one_call("refused.pcap");

    recorder.send(Batcher::new("h", 1).batch(&call[..3], "h"));
    recorder.send(Batcher::new("other", 2).batch(&other, "other"));
    recorder.wait(&other[0].call_id, is_closed);

    let record = recorder.wait(&call[0].call_id, |_| true);
    recorder.stop();
    assert!(!is_closed(&record), "{record:#}");
}

#[test]
fn a_late_packet_is_added_to_what_was_said_of_its_call() {
    let tmp = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(tmp.path(), SPLIT);
    let call = one_call("plain.pcap");
    let id = &*call[0].call_id;
    let mut hunter = Batcher::new("h", 1);
    recorder.send(hunter.batch(&call, "h"));
    let before = recorder.wait(id, is_closed);

    let again = Packet { ts: call.last().unwrap().ts.saturating_add(Duration::from_secs(6)), ..call.last().unwrap().clone() };
    recorder.send(hunter.batch(&[again], "h"));
    let sip = before["packets"]["sip"].as_u64().unwrap() + 1;
    let after = recorder.wait(id, |r| is_closed(r) && r["packets"]["sip"] == sip);
    recorder.stop();

    for same in ["state", "from", "to", "streams", "first_packet", "answered", "hunters", "filter_ids"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_ne!(after["last_packet"], before["last_packet"]);
}

/// Everything a run leaves: records, and the bytes of every file.
fn left(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&entry).unwrap();
        let text = if entry.extension().is_some_and(|e| e == "json") {
            String::from_utf8(bytes).unwrap()
        } else {
            format!("{bytes:02x?}")
        };
        all.insert(name, text);
    }
    all
}

/// Sends everything in batches of some packets, with a restart before each batch in `restarts`; waits until the calls are closed.
fn run(setup: Setup, packets: &[Packet], hunters: &[&str], restarts: &[usize]) -> BTreeMap<String, String> {
    let tmp = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(tmp.path(), setup);
    let mut batchers: Vec<Batcher> = (1..).zip(hunters).map(|(e, h)| Batcher::new(h, e)).collect();
    for (n, part) in packets.chunks(10).enumerate() {
        if restarts.contains(&n) {
            recorder.stop();
            recorder = Recorder::start(tmp.path(), setup);
        }
        for (batcher, hunter) in batchers.iter_mut().zip(hunters) {
            recorder.send(batcher.batch(part, hunter));
        }
    }
    let ids: std::collections::BTreeSet<&str> = packets.iter().map(|p| &*p.call_id).collect();
    for id in ids {
        recorder.wait(id, is_closed);
    }
    recorder.stop();
    left(tmp.path())
}

#[test]
fn a_restart_in_mid_call_leaves_no_trace_in_files_and_records() {
    // calls end by themselves in these: they are closed some while after their last packet
    let grace = Duration::from_millis(400);
    for (name, layout, hunters) in [
        ("plain.pcap", Layout::Split, &["h"][..]),
        ("hold.pcap", Layout::Merged, &["h"]),
        ("tcp-long.pcap", Layout::Split, &["h"]),
        ("loss.pcap", Layout::Split, &["h1", "h2"]),
    ] {
        let call = one_call(name);
        let setup = Setup { layout, grace, ..SPLIT };

        let whole = run(setup, &call, hunters, &[]);
        let cut = run(setup, &call, hunters, &[1, 4, 5]);

        assert!(whole.len() >= 3, "several files each: {:?}", whole.keys());
        for (name, bytes) in &whole {
            assert_eq!(cut.get(name), Some(bytes), "{name}");
        }
        assert_eq!(cut.len(), whole.len());
    }
}

#[test]
fn a_call_that_ended_before_a_restart_is_closed_after_it_and_late_packets_find_it() {
    let tmp = tempfile::tempdir().unwrap();
    let call = one_call("plain.pcap");
    let id = &*call[0].call_id;
    let mut hunter = Batcher::new("h", 1);
    let first = Recorder::start(tmp.path(), Setup { grace: Duration::from_hours(1), ..SPLIT });
    first.send(hunter.batch(&call, "h"));
    first.wait(id, |_| true);
    first.stop();

    let second = Recorder::start(tmp.path(), SPLIT);
    let closed = second.wait(id, is_closed);
    second.stop();
    let third = Recorder::start(tmp.path(), SPLIT);
    let late = Packet { ts: call.last().unwrap().ts.saturating_add(Duration::from_secs(6)), ..call.last().unwrap().clone() };
    third.send(hunter.batch(&[late], "h"));
    let sip = closed["packets"]["sip"].as_u64().unwrap() + 1;
    let after = third.wait(id, |r| is_closed(r) && r["packets"]["sip"] == sip);
    third.stop();

    assert_eq!((&closed["state"], closed["streams"].as_array().unwrap().len()), (&"ended".into(), 2));
    assert_eq!((&after["streams"], &after["state"]), (&closed["streams"], &closed["state"]));
}

#[test]
fn a_call_whose_hunter_stopped_is_unfinished_also_after_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let call = one_call("plain.pcap");
    let half = &call[..call.len() / 2];
    let id = &*call[0].call_id;
    let setup = Setup { grace: Duration::from_hours(1), ..SPLIT };
    let first = Recorder::start(tmp.path(), setup);
    first.send(Batcher::new("h", 1).batch(half, "h"));
    first.wait(id, |_| true);
    first.stop();

    let second = Recorder::start(tmp.path(), setup);
    second.hunter_stops("h");
    let record = second.wait(id, is_closed);
    second.stop();

    assert_eq!(record["state"], "unfinished");
    let packets: u64 = record["packets"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(packets, half.len() as u64);
}

#[test]
fn packets_that_will_not_come_stand_in_the_records_of_their_hunters_calls() {
    let tmp = tempfile::tempdir().unwrap();
    let (call, other) = (one_call("plain.pcap"), one_call("hold.pcap"));
    let (mut hunter, mut elsewhere) = (Batcher::new("h", 1), Batcher::new("other", 2));
    let recorder = Recorder::start(tmp.path(), SPLIT);
    recorder.send(elsewhere.batch(&other[..50], "other"));
    recorder.send(hunter.batch(&call[..20], "h"));
    let gap = hunter.batch(&call[30..], "h");
    recorder.send(Incoming { missing: 10, ..gap });
    recorder.send(elsewhere.batch(&other[50..], "other"));

    let record = recorder.wait(&call[0].call_id, is_closed);
    let whole = recorder.wait(&other[0].call_id, is_closed);
    recorder.stop();

    let hole = &record["holes"][0];
    assert_eq!((&record["complete"], &hole["reason"], &hole["packets"]), (&false.into(), &"undeclared".into(), &10.into()));
    assert_eq!((&hole["hunter"], &hole["until"]), (&"h".into(), &call[30].ts.to_string().into()));
    assert_eq!(hole["from"], call[..20].iter().map(|p| p.ts).max().unwrap().to_string());
    assert_eq!((&whole["complete"], whole.get("holes")), (&true.into(), None));
}

/// As its hunter sends it that comes from another processor.
fn comes_back(batch: Incoming, missing: u64) -> Incoming {
    let range = data::DroppedRange { from_seq: 1, to_seq: batch.seq.0 - 1, packets: 0, reason: ELSEWHERE.into() };
    let range = data::PacketBatch { dropped_ranges: vec![range], ..Default::default() }.encode_to_vec();
    let message = [batch.view.message(), &range[..]].concat();
    Incoming { view: BatchView::parse(message.into(), &ViewLimits::default()).unwrap(), missing, ..batch }
}

#[test]
fn what_another_processor_has_stands_in_the_records_of_the_calls_that_went_on_there() {
    let tmp = tempfile::tempdir().unwrap();
    let (call, other) = (one_call("plain.pcap"), one_call("hold.pcap"));
    let (mut hunter, mut new) = (Batcher::new("h", 1), Batcher::new("new", 2));
    let _to_another = new.batch(&other[..20], "new");
    let recorder = Recorder::start(tmp.path(), SPLIT);
    recorder.send(hunter.batch(&call[..20], "h"));
    let _to_another = hunter.batch(&call[20..30], "h");
    recorder.send(comes_back(hunter.batch(&call[30..], "h"), 10));
    recorder.send(comes_back(new.batch(&other[20..], "new"), 0));

    let records = [&call, &other].map(|call| recorder.wait(&call[0].call_id, is_closed));
    recorder.stop();

    let until = [call[30].ts, other[20].ts];
    for ((record, packets), until) in records.iter().zip([Some(10), None]).zip(until) {
        let hole = record["holes"].as_array().unwrap().iter().find(|hole| hole["reason"] == "elsewhere");
        let hole = hole.unwrap_or_else(|| panic!("{record:#}"));
        assert_eq!(record["complete"], false);
        assert_eq!((hole["packets"].as_u64(), &hole["until"]), (packets, &until.to_string().into()), "{record:#}");
    }
}

#[test]
fn what_comes_by_another_way_is_pending_in_every_record_until_it_is_there_and_then_in_none() {
    let tmp = tempfile::tempdir().unwrap();
    let call = one_call("plain.pcap");
    // another call at the same time, no packet of which is missing
    let (id, same) = (call[0].call_id.clone(), call[0].call_id.replacen('1', "2", 1));
    let renamed = |p: &Packet| {
        let mut p = p.clone();
        p.call_id.clone_from(&same);
        while let Some(at) = p.data.windows(id.len()).position(|w| w == id.as_bytes()) {
            p.data[at..at + id.len()].copy_from_slice(same.as_bytes());
        }
        p
    };
    let other: Vec<Packet> = call.iter().map(renamed).collect();
    let mut hunter = Batcher::new("h", 1);
    let mut next = |parts: [&[Packet]; 2]| hunter.batch(&parts.concat(), "h");
    let (first, gap, rest) = (next([&call[..20], &other[..20]]), next([&call[20..30], &[]]), next([&call[30..], &other[20..]]));
    let recorder = Recorder::start(tmp.path(), SPLIT);
    let below = ProcessorRegistration { processor_id: "west".into(), ..ProcessorRegistration::default() };
    recorder.shared.below.lock().register("mid", below, None, crate::telemetry::clock::wall()).unwrap();
    recorder.send(first);
    recorder.send(Incoming { missing: 10, ..rest });
    let waiting = [&id, &same].map(|id| recorder.wait(id, is_closed));
    recorder.stop();

    // also to a process that knows of it from its state alone
    let recorder = Recorder::start(tmp.path(), SPLIT);
    recorder.send(gap);
    let filled = [&id, &same].map(|id| recorder.wait(id, |r| r["complete"] == true && is_closed(r)));
    recorder.stop();

    for record in waiting {
        let hole = &record["holes"][0];
        assert_eq!((&record["complete"], &hole["reason"], &hole["packets"]), (&false.into(), &"pending".into(), &10.into()));
    }
    let packets = |r: &Value| r["packets"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    for record in filled {
        assert_eq!((record.get("holes"), &record["closed"], packets(&record)), (None, &true.into(), call.len() as u64));
    }
}

#[tokio::test]
async fn every_packet_received_is_in_one_place() {
    let tmp = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(tmp.path(), SPLIT);
    register(&recorder.shared, "edge");
    register(&recorder.shared, "other");
    let batches = sealed("edge", 7, 40);
    let mut stream = Stream::open(&recorder.shared);
    for b in batches.iter().chain(&batches[10..20]) {
        stream.send(b.bytes.clone());
    }
    let mut stored = 0;
    while stored < 40 {
        match stream.answer().await {
            Answer::Control(c) => stored = stored.max(c.ack_sequence),
            Answer::Silence => {}
            Answer::End(code, text) => panic!("{code:?} {text}"),
        }
    }
    stream.send(sealed("other", 8, 1)[0].bytes.clone());
    while !matches!(stream.answer().await, Answer::End(Code::PermissionDenied, _)) {}

    let c = recorder.shared.counters.counts();
    recorder.stop();
    assert_eq!((c.received, c.unique, c.duplicate, c.rejected.iter().sum::<u64>()), (153, 120, 30, 3));
    assert_eq!((c.committed, c.in_queue, c.dropped, c.imbalance()), (120, 0, 0, [0, 0]));
}

#[test]
fn hostile_call_ids_and_users_stay_in_their_directory_and_apart() {
    let tmp = tempfile::tempdir().unwrap();
    let mut all: Vec<String> =
        ["../../etc/passwd", "/etc/passwd", "..", ".", "-rf", "a@b", "a_b", "A@B", "CON", "a\0b", "\n", "%2e%2e/"]
            .map(str::to_owned)
            .to_vec();
    all.extend(["x".repeat(10_000), "\u{202e}\u{1f600}".repeat(200), "a/".repeat(300)]);
    let mut packets = capture("refused.pcap", "");
    packets.truncate(1);
    let recorder = Recorder::start(tmp.path(), Setup { pattern: "{from}_{to}_{callid}.pcap", ..SPLIT });
    for (n, id) in (1..).zip(&all) {
        let mut first = packets[0].clone();
        first.call_id.clone_from(id);
        recorder.send(Batcher::new("h", n).batch(&[first], "h"));
    }
    recorder.hunter_stops("h");
    for id in &all {
        recorder.wait(id, is_closed);
    }
    let dir = recorder.dir.clone();
    recorder.stop();

    let names: Vec<String> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2 * all.len(), "a capture and a record each: {names:?}");
    for name in &names {
        let meta = fs::symlink_metadata(dir.join(name)).unwrap();
        assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600, "{name}");
        assert!(name.len() <= 255 && !name.starts_with(['.', '-']), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{name}");
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let mut outside: Vec<_> = fs::read_dir(tmp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    outside.sort();
    assert_eq!(outside, ["calls", "state"]);
}
