//! The disk queue with real processes: a hunter that captures live, in a network namespace of its own, and loses its processor.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lippycat::capture::{FileSource, Progress, Source};
use lippycat::packet::Frame;

use crate::not_run;
use crate::whole::{Processor, lc};

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
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    log: String,
}

impl Drop for Hunter {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Hunter {
    /// Starts it; returns once it is connected, or has said that it is not.
    fn start(dir: &Path, port: u16, durability: &str) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_lc"))
            .args(["hunt", "-i", "ve0", "-f", "udp port 4000", "-P", &address, "--insecure", "--no-filter-policy", "allow"])
            .args(["--id", "edge", "--keep-duplicates", "--durability", durability, "--log-format", "json"])
            .current_dir(dir)
            .env("HOME", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut hunter = Self { child, lines, log: String::new() };
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

/// Puts numbered UDP datagrams on the wire.
fn send(numbers: std::ops::Range<u32>) {
    let mut wire = pcap::Capture::from_device("ve1").unwrap().snaplen(64).open().unwrap();
    for n in numbers {
        let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x0f, 0xa0, 0x0f, 0xa0, 0, 12, 0, 0]);
        frame.extend(n.to_be_bytes());
        while wire.sendpacket(&frame[..]).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
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
    for _ in 0..300 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within 30 s");
}

fn processor(dir: &Path) -> Processor {
    Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state"])
}

fn segment(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "seg")).min().unwrap()
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
