//! The disk queue with real processes: a hunter that captures live, in a network namespace of its own, and loses its processor.

mod sick;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lippycat::batch::{BatchStats, Encoder, EncoderConfig, Epoch, Limits, Pushed};
use lippycat::capture::{FileSource, Progress, Source};
use lippycat::packet::Frame;
use lippycat::record::dir::MinFree;
use lippycat::spool::{Item, Now, Queue, SpoolConfig, SpoolFull};
use lippycat::telemetry::clock::Moment;

use super::started::Started;
use crate::full_disk::Disk;
use crate::metrics;
use crate::not_run;
use crate::whole::{LC, Processor, lc};

const CALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/voip/plain.pcap");
const INSIDE: &str = "LC_TEST_IN_NAMESPACE";

/// Runs `body` in a process with a fresh network namespace that has `lo` up and a pair `ve0`–`ve1`.
fn in_namespace(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_none() {
        if not_run::has_namespaces_and(test, &["ip"]) {
            let exe = std::env::current_exe().unwrap();
            let mut inside = Command::new("unshare");
            inside.arg("--net").arg(exe).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
            assert!(inside.status().unwrap().success(), "{test} failed in its namespace");
        }
        return;
    }
    sh("ip link set lo up && ip link add ve0 type veth peer name ve1");
    for end in ["ve0", "ve1"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        sh(&format!("ip link set {end} up"));
    }
    body();
}

fn sh(command: &str) {
    assert!(Command::new("sh").arg("-c").arg(command).status().unwrap().success(), "{command}");
}

/// A running `lc hunt`.
struct Hunter {
    child: Started,
    lines: BufReader<std::process::ChildStderr>,
    log: String,
}

impl Hunter {
    /// Starts it; returns once it is connected, or has said that it is not.
    fn start(dir: &Path, port: u16, durability: &str) -> Self {
        Self::start_with(dir, port, durability, &[])
    }

    fn start_with(dir: &Path, port: u16, durability: &str, more: &[&str]) -> Self {
        Self::start_by(Command::new(LC), dir, port, &[&["--durability", durability], more].concat())
    }

    /// By what runs `lc`.
    fn start_by(mut command: Command, dir: &Path, port: u16, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut child = command
            .args(["hunt", "-i", "ve0", "-f", "udp port 4000", "-P", &address, "--insecure", "--no-filter-policy", "allow"])
            .args(["--id", "edge", "--keep-duplicates", "--log-format", "json"])
            .args(more)
            .current_dir(dir)
            .env("HOME", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut hunter = Self { child: Started(child), lines, log: String::new() };
        hunter.until("connected");
        hunter
    }

    fn until(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the hunter ended: {}", self.log);
            self.log.push_str(&line);
        }
    }

    fn signal(&self, name: &str) {
        sh(&format!("kill -{name} {}", self.child.id()));
    }

    /// SIGTERM; returns its exit code and log.
    fn stop(mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.lines, &mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, std::mem::take(&mut self.log) + &rest)
    }
}

/// Of a frame that holds a number and nothing else.
const SHORT: usize = 46;

/// Puts numbered UDP datagrams on the wire.
fn send(numbers: std::ops::Range<u32>) {
    send_while(numbers, SHORT, || true);
}

/// The same, of some length, some 5000 a second, until told otherwise; the number that would have come next.
fn send_steadily(from: u32, len: usize, go_on: &AtomicBool) -> u32 {
    send_while(from..u32::MAX, len, || {
        std::thread::sleep(Duration::from_micros(100));
        go_on.load(Ordering::Relaxed)
    })
}

fn send_while(numbers: std::ops::Range<u32>, len: usize, go_on: impl Fn() -> bool) -> u32 {
    let mut wire = pcap::Capture::from_device("ve1").unwrap().snaplen(64).open().unwrap();
    let end = numbers.end;
    for n in numbers {
        if !go_on() {
            return n;
        }
        let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x0f, 0xa0, 0x0f, 0xa0, 0, 12, 0, 0]);
        frame.extend(n.to_be_bytes());
        frame.resize(len, 0);
        while wire.sendpacket(&frame[..]).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    end
}

/// The numbers in a capture file, in order; empty while it cannot be read.
fn numbers(path: &Path) -> Vec<u32> {
    let mut all = Vec::new();
    // while it is written it may be empty, or end in the middle of a record
    let Ok(mut source) = FileSource::open(&[path]) else { return all };
    let mut take = |f: Frame<'_>| all.push(u32::from_be_bytes(f.data[42..46].try_into().unwrap()));
    while source.poll(&mut take).is_ok_and(|progress| progress != Progress::End) {}
    all
}

fn each_once(all: &[u32], of: std::ops::Range<u32>) {
    let known: BTreeSet<u32> = all.iter().copied().collect();
    let missing: Vec<u32> = of.clone().filter(|n| !known.contains(n)).collect();
    assert_eq!((missing, all.len()), (Vec::new(), of.len()), "missing, and how many there are");
}

/// Packets in the spool, as `lc spool ls` says.
fn spooled(dir: &Path) -> u64 {
    let out = lc(dir, &["spool", "ls", "--output-format", "json", "-q"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    all.as_array().unwrap().iter().map(|s| s["packets"].as_u64().unwrap()).sum()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within a minute");
}

fn processor(dir: &Path) -> Processor {
    Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state"])
}

/// The segments of a queue, in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    all.sort();
    all
}

fn segment(dir: &Path) -> PathBuf {
    segments(dir).swap_remove(0)
}

#[test]
fn a_hunter_killed_while_its_processor_is_away_delivers_everything_once_after_a_restart() {
    in_namespace("spool::a_hunter_killed_while_its_processor_is_away_delivers_everything_once_after_a_restart", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let first = processor(dir);
        let hunter = Hunter::start(dir, first.port, "wal");
        send(0..500);
        wait_for("the first half to arrive", || numbers(&dir.join("all.pcap")).len() == 500);
        first.stop();
        send(500..1000);
        wait_for("every packet to be on disk", || spooled(dir) == 1000);

        hunter.signal("KILL");
        drop(hunter);
        let second = processor(dir);
        let hunter = Hunter::start(dir, second.port, "wal");
        wait_for("the rest to arrive", || numbers(&dir.join("all.pcap")).len() >= 1000);
        send(1000..1100);
        wait_for("what came after", || numbers(&dir.join("all.pcap")).len() >= 1100);
        let (code, log) = hunter.stop();
        second.stop();

        each_once(&numbers(&dir.join("all.pcap")), 0..1100);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("\"unaccounted\":0") && log.contains("\"dropped\":\"none\""), "{log}");
        assert_eq!(spooled(dir), 0, "nothing is left behind");
    });
}

/// What a hunter says in its log that the run before it lost, at most, and those before that.
fn said_lost(log: &str) -> (u64, u64) {
    let line = log.lines().find(|l| l.contains("did not stop by itself")).unwrap_or_else(|| panic!("{log}"));
    let number =
        |name: &str| line.split(&format!("\"{name}\":")).nth(1).unwrap().split([',', '}']).next().unwrap().parse().unwrap();
    (number("last_run"), number("at_most"))
}

/// What `spill` may keep in memory alone, and the length of packets that are more than that within seconds.
const SPILLS_AT: (&str, usize) = ("8M", 8 << 20);
const LONG: usize = 1400;

/// How many packets may be gone with a hunter that is killed, however many its next run reports: `wal` has all in its log but the open batch
/// (100 ms, or 1024 packets) and what it has not read yet, for which a machine with better things to do has the rest of a second; `spill` has all on
/// disk that its memory does not hold. `memory` has all that its processor has not acknowledged in memory.
fn may_be_gone(durability: &str, per_second: u64) -> u64 {
    let unread_and_open = per_second + 1024;
    match durability {
        "wal" => unread_and_open,
        "spill" => unread_and_open + (SPILLS_AT.1 / LONG) as u64,
        _ => u64::MAX,
    }
}

/// A hunter gets traffic while its processor is away, and is killed in the middle of it, twice.
fn killed_under_load(durability: &str) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let named = ["--disk-buffer-dir", "queue", "--max-memory", SPILLS_AT.0];
    let named = if durability == "spill" { &named[..] } else { &named[..2] };
    let len = if durability == "spill" { LONG } else { SHORT };
    let pages = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = processor(dir);
    let port = first.port;
    let mut hunter = Hunter::start_with(dir, port, durability, named);
    let (mut next, mut there, mut gone, mut reported) = (0, BTreeSet::new(), 0, Vec::new());
    let mut up = Some(first);
    for round in 0..2 {
        drop(up.take().map(Processor::stop));
        let (go_on, before, began) = (AtomicBool::new(true), next, Moment::now());
        next = std::thread::scope(|scope| {
            let wire = scope.spawn(|| send_steadily(next, len, &go_on));
            // 32 bytes into the record: packets matched
            let matched = || fs::read(dir.join("queue/edge/state")).unwrap()[32..40].try_into().map(u64::from_le_bytes).unwrap();
            wait_for("a record of this traffic", || matched() > 12_000);
            go_on.store(false, Ordering::Relaxed);
            wire.join().unwrap()
        });
        // SIGKILL
        drop(hunter);
        let per_second = u64::from(next - before) * 1000 / u64::try_from(began.elapsed().as_millis()).unwrap();
        up = Some(Processor::start_at(dir, port, &["--insecure", "-w", "all.pcap", "--state-dir", "state"]));
        let listen = pages.to_string();
        hunter = Hunter::start_with(dir, port, durability, &[named, &["--metrics-listen", &listen]].concat());
        wait_for("what survived to arrive", || {
            let (_, page) = metrics::get(pages.port(), "/metrics").unwrap_or_default();
            page.contains("\nlc_inflight_packets{place=\"memory\"} 0\n")
                && page.contains("\nlc_inflight_packets{place=\"disk\"} 0\n")
        });
        let (_, page) = metrics::get(pages.port(), "/metrics").unwrap();
        wait_for("what was acknowledged to be in the file", || numbers(&dir.join("all.pcap")).len() >= there.len());
        there = numbers(&dir.join("all.pcap")).into_iter().collect();
        let (last_run, at_most) = said_lost(&hunter.log);
        assert!(page.contains(&format!("\nlc_hunter_unaccounted_packets_max {at_most}\n")), "{page}");
        let missing = u64::from(next) - there.len() as u64;
        assert!(missing <= at_most, "{missing} are missing, {at_most} reported: {}", hunter.log);
        let may_be = may_be_gone(durability, per_second);
        assert!(missing - gone <= may_be, "{durability}: {} are gone, and no more than {may_be} may be", missing - gone);
        gone = missing;
        assert!(at_most < u64::from(next) + 10_000 * (round + 1), "{at_most} of {next} says nothing");
        reported.push((last_run, at_most));
    }
    assert_eq!(reported[1].1, reported[0].0 + reported[1].0, "the second report has the first in it");

    let (code, log) = hunter.stop();
    assert_eq!(code, Some(0), "{log}");
    let hunter = Hunter::start_with(dir, port, durability, named);
    let (_, log) = hunter.stop();
    assert!(!log.contains("did not stop by itself"), "it did: {log}");
    up.unwrap().stop();
}

#[test]
fn a_killed_hunter_reports_at_its_next_start_no_less_than_what_was_lost_with_it() {
    in_namespace("spool::a_killed_hunter_reports_at_its_next_start_no_less_than_what_was_lost_with_it", || {
        for durability in ["memory", "spill", "wal"] {
            killed_under_load(durability);
        }
    });
}

#[test]
fn a_hunter_stopped_without_a_processor_keeps_its_packets_for_the_commands_and_the_next_processor() {
    in_namespace("spool::a_hunter_stopped_without_a_processor_keeps_its_packets_for_the_commands_and_the_next_processor", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let first = processor(dir);
        let mut hunter = Hunter::start(dir, first.port, "spill");
        let taken = lc(dir, &["spool", "drain", "--id", "edge", "-P", "127.0.0.1:1", "--insecure"]);
        send(0..300);
        wait_for("the first half to arrive", || numbers(&dir.join("all.pcap")).len() == 300);
        first.stop();
        send(300..700);
        // the statistics line: what is still in the kernel at a stop was not captured
        hunter.until("\"captured\":700");

        let (code, log) = hunter.stop();

        assert_eq!(taken.status.code(), Some(1), "{}", String::from_utf8_lossy(&taken.stderr));
        assert!(String::from_utf8_lossy(&taken.stderr).contains("in use by another process"));
        assert_eq!(code, Some(0), "nothing is lost: {log}");
        assert!(log.contains("\"on_disk\":400") && log.contains("\"unaccounted\":0"), "{log}");
        assert_eq!(spooled(dir), 400);
        let cat = lc(dir, &["spool", "cat", "--id", "edge", "--pcap", "waiting.pcap"]);
        assert!(cat.status.success(), "{}", String::from_utf8_lossy(&cat.stderr));
        each_once(&numbers(&dir.join("waiting.pcap")), 300..700);

        // a damaged copy: said, counted, and the rest is read
        sh(&format!("cp -r {0}/.local/state/lippycat/spool {0}/copy", dir.display()));
        let victim = segment(&dir.join("copy/edge"));
        let mut bytes = fs::read(&victim).unwrap();
        bytes[64 + 28 + 100] ^= 1;
        fs::write(&victim, bytes).unwrap();
        let verified = lc(dir, &["spool", "verify", "--disk-buffer-dir", "copy"]);
        assert_eq!(verified.status.code(), Some(5), "{}", String::from_utf8_lossy(&verified.stdout));
        assert_eq!(lc(dir, &["spool", "verify"]).status.code(), Some(0));

        let second = processor(dir);
        let address = format!("127.0.0.1:{}", second.port);
        let drained = lc(dir, &["spool", "drain", "--id", "edge", "-P", &address, "--insecure"]);
        assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
        second.stop();
        each_once(&numbers(&dir.join("all.pcap")), 0..700);
        assert_eq!(spooled(dir), 0);
    });
}

#[test]
fn what_cannot_be_a_spool_is_a_clear_error_when_one_is_demanded_and_a_warning_when_not() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("file"), "not a directory").unwrap();
    fs::write(dir.join("empty.pcap"), [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])
        .unwrap();
    let processor = Processor::start(dir, &["--insecure", "--state-dir", "state"]);
    let address = format!("127.0.0.1:{}", processor.port);
    let hunt = |more: &[&str]| {
        let all = [&["hunt", "-r", "empty.pcap", "-P", &address, "--insecure", "--id", "edge"], more].concat();
        let out = lc(dir, &all);
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };

    let demanded = hunt(&["--durability", "wal", "--disk-buffer-dir", "file"]);
    let alias = hunt(&["--disk-buffer", "--disk-buffer-dir", "file"]);
    let not_asked = hunt(&["--disk-buffer-dir", "file"]);
    let usable = hunt(&["--durability", "wal"]);
    let live = lc(dir, &["hunt", "-i", "lo", "-P", &address, "--insecure", "--spool-full", "block"]);
    let nothing = lc(dir, &["spool", "ls", "--disk-buffer-dir", "nowhere"]);
    processor.stop();

    for (code, said) in [&demanded, &alias] {
        assert_eq!(*code, Some(1), "{said}");
        assert!(said.contains("cannot open the spool file/edge"), "{said}");
    }
    assert_eq!(not_asked.0, Some(0), "{}", not_asked.1);
    assert_eq!(usable.0, Some(0), "{}", usable.1);
    assert_eq!(live.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&live.stderr).contains("'block' is for files"));
    assert_eq!(nothing.status.code(), Some(4));
}

#[test]
fn a_queue_whose_disk_turns_read_only_is_counted_and_then_refused_and_capture_goes_on() {
    const TEST: &str = "spool::a_queue_whose_disk_turns_read_only_is_counted_and_then_refused_and_capture_goes_on";
    if !not_run::has_namespaces_and(TEST, &["unshare", "nsenter", "mkfs.ext4"]) {
        return;
    }
    in_namespace(TEST, || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let all = dir.join("all.pcap");
        let disk = Disk::mount_ext4(Command::new("env"), &dir.join("disk"));
        let pages = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let first = processor(dir);
        let port = first.port;
        let listen = pages.to_string();
        let queue = ["--disk-buffer-dir", "disk/queue", "--spool-min-free", "0"];
        let wal = [&["--durability", "wal", "--metrics-listen", &listen], &queue[..]].concat();
        let hunter = Hunter::start_by(disk.enter(dir), dir, port, &wal);
        first.stop();
        send(0..300);
        let has = |line: &str| metrics::get(pages.port(), "/metrics").is_some_and(|(_, page)| page.contains(line));
        let waiting = |n: u32| format!("\nlc_inflight_packets{{place=\"memory\"}} {n}\n");
        wait_for("the first half, in memory and on disk", || has(&waiting(300)) && !has("\nlc_spool_bytes 0\n"));

        disk.make_read_only();
        send(300..600);
        wait_for("the rest in memory", || has(&waiting(600)));
        wait_for("its errors to be counted", || !has("\nlc_spool_errors_total 0\n"));
        let second = Processor::start_at(dir, port, &["--insecure", "-w", "all.pcap", "--state-dir", "state"]);
        wait_for("everything to arrive", || numbers(&all).len() >= 600);
        let (code, log) = hunter.stop();
        let address = format!("127.0.0.1:{port}");
        let demanded = disk
            .enter(dir)
            .args(["hunt", "-i", "ve0", "-P", &address, "--insecure", "--id", "edge"])
            .args(&wal)
            .output()
            .unwrap();
        let not_asked = Hunter::start_by(disk.enter(dir), dir, port, &queue);
        send(600..900);
        wait_for("what was sent without a queue", || numbers(&all).len() >= 900);
        let (not_asked_code, not_asked_log) = not_asked.stop();
        second.stop();

        let demanded_log = String::from_utf8_lossy(&demanded.stderr);
        for (said, what) in
            [(&*log, "batches stay in memory"), (&*demanded_log, "error: cannot"), (&*not_asked_log, "no disk queue")]
        {
            let reason = said.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("{what}: {said}"));
            assert!(reason.contains("the spool") && reason.contains("Read-only file system"), "{reason}");
            assert!(!reason.contains("cannot read"), "it can be read: {reason}");
        }
        assert_eq!(demanded.status.code(), Some(1));
        assert_eq!((code, not_asked_code), (Some(0), Some(0)), "{log}\n{not_asked_log}");
        each_once(&numbers(&all), 0..900);
    });
}

/// Makes a segment one of another format.
pub(crate) fn of_format(format: u8, segment: &Path) {
    let mut bytes = fs::read(segment).unwrap();
    bytes[8] = format;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(segment, bytes).unwrap();
}

/// What a hunter left in its queue: a call, as one batch; how many packets.
fn left_in_queue(base: &Path, epoch: u64) -> u64 {
    let config = EncoderConfig { hunter_id: "edge".into(), epoch: Epoch(epoch), limits: Limits::default() };
    let mut encoder = Encoder::new(config);
    let mut source = FileSource::open(&[CALL]).unwrap();
    let mut take = |f: Frame<'_>| assert_eq!(encoder.push(&f, None, &[], false), Pushed::Stored);
    while source.poll(&mut take).unwrap() != Progress::End {}
    let sealed = encoder.seal(5, 1, &BatchStats::default()).unwrap();
    let config = SpoolConfig {
        hunter_id: "edge".into(),
        max_bytes: 1 << 20,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 1 << 17,
        sync_after: Duration::ZERO,
        sync_bytes: 0,
    };
    let mut queue = Queue::open(lippycat::spool::lock(base, "edge").unwrap(), config).unwrap();
    let item = Item { epoch: sealed.epoch, seq: sealed.seq, packets: sealed.packets, bytes: sealed.bytes };
    queue.append(item, true, Now::default()).unwrap();
    queue.close(Now::default()).unwrap();
    sealed.packets.into()
}

#[test]
fn a_queue_goes_on_beside_segments_of_another_format_and_every_command_knows_both() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let (usual, beside) = (dir.join("spool/edge"), dir.join("spool/edge~v1"));
    left_in_queue(&dir.join("spool"), 1);
    of_format(9, &segment(&usual));
    let foreign = fs::read(segment(&usual)).unwrap();
    let packets = left_in_queue(&dir.join("spool"), 2);
    let run = |command: &[&str]| {
        let out = lc(dir, &[command, &["--id", "edge", "--disk-buffer-dir", "spool", "--log-format", "json"]].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };

    let away = ["-P", "127.0.0.1:1", "--insecure", "--connect-timeout", "1s", "--durability", "wal"];
    let hunt = run(&[&["hunt", "-r", CALL, "--no-filter-policy", "allow"], away.as_slice()].concat());
    let (ls, verify) = (run(&["spool", "ls"]), run(&["spool", "verify"]));
    let cat = run(&["spool", "cat", "--pcap", "waiting.pcap"]);
    let first = processor(dir);
    let drain = run(&["spool", "drain", "-P", &format!("127.0.0.1:{}", first.port), "--insecure"]);
    first.stop();

    for (code, _, said) in [&hunt, &drain] {
        assert!(said.contains("spool/edge~v1") && said.contains("\"format\":9"), "{code:?} {said}");
    }
    for (code, out, said) in [&ls, &verify] {
        assert_eq!((*code, out.matches("edge~v1").count()), (Some(1), 1), "{out}{said}");
        assert!(said.contains("left out") && said.contains("spool/edge"), "{said}");
    }
    assert!(cat.0 == Some(1) && cat.2.contains("\"format\":9"), "{}", cat.2);
    assert_eq!((hunt.0, drain.0), (Some(3), Some(0)), "{}", drain.2);
    assert!(drain.2.contains(&format!("\"sent\":{packets},\"lost\":0")), "{}", drain.2);
    let len = |name| fs::metadata(dir.join(name)).unwrap().len();
    assert!(len("waiting.pcap") > 1000 && len("waiting.pcap") == len("all.pcap"), "what can be read is written");
    assert_eq!(fs::read(segment(&usual)).unwrap(), foreign);
    assert!(fs::read_dir(beside).unwrap().all(|e| e.unwrap().path().extension().is_none()), "all of it was sent");
}
