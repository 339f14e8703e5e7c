//! Real processes that are killed (`kill -9`) while numbered packets go through them: what is in the files is what was generated, each
//! packet once. A short form runs always; `make chaos` runs many rounds and prints a table (`LC_CHAOS_ROUNDS`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lippycat::telemetry::clock::Moment;

use super::whole::{LC, Processor, frames, wait_for};

/// Numbers that look like chance and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }
}

/// A UDP packet that says its number, as a record of a capture file.
fn record(number: u64) -> Vec<u8> {
    let mut payload = format!("number {number:012} ").into_bytes();
    payload.resize(200 + usize::try_from(number % 700).unwrap(), b'.');
    let len = u16::try_from(payload.len()).unwrap();
    let mut data = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    data.extend((28 + len).to_be_bytes());
    data.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x75, 0x30, 0x75, 0x31]);
    data.extend((8 + len).to_be_bytes());
    data.extend([0, 0]);
    data.extend(payload);
    let micros = number * 100;
    let mut out = Vec::new();
    for field in [1_700_000_000 + micros / 1_000_000, micros % 1_000_000 * 1000, data.len() as u64, data.len() as u64] {
        out.extend(u32::try_from(field).unwrap().to_le_bytes());
    }
    out.extend(data);
    out
}

fn header() -> Vec<u8> {
    let mut out = Vec::new();
    for field in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        out.extend(field.to_le_bytes());
    }
    out
}

fn number(frame: &[u8]) -> u64 {
    std::str::from_utf8(&frame[42 + 7..42 + 19]).unwrap().parse().unwrap()
}

/// `lc hunt` on a pipe.
struct Hunter {
    child: Child,
    log: PathBuf,
}

impl Drop for Hunter {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Hunter {
    fn start(dir: &Path, port: u16, more: &[&str]) -> Self {
        let log = dir.join("hunter.log");
        let stderr = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = Command::new(LC)
            .args(["hunt", "-P", &format!("127.0.0.1:{port}"), "--insecure", "--id", "edge", "--no-filter-policy", "allow"])
            .args(["--keep-duplicates", "--log-format", "json", "--connect-timeout", "60s", "-r", "-"])
            .args(more)
            .current_dir(dir)
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(&header()).unwrap();
        Self { child, log }
    }

    fn send(&mut self, numbers: std::ops::Range<u64>) {
        let bytes: Vec<u8> = numbers.flat_map(record).collect();
        self.child.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// The end of its input; it must deliver everything and end well. What its final line counts as dropped.
    fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let began = Moment::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_mins(2), "the hunter does not get rid of its packets: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}: {}", self.said());
        let said = self.said();
        assert!(said.contains("\"unaccounted\":0"), "{said}");
        let dropped = said.lines().rev().find_map(|l| l.split("\"dropped\":\"").nth(1)).unwrap();
        dropped.split('"').next().unwrap().to_owned()
    }

    fn said(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// What came out of a trial.
#[derive(Debug, Default)]
struct Tally {
    kills: [u64; 2],
    generated: u64,
    delivered: u64,
    missing: u64,
    doubled: u64,
}

fn count(paths: &[PathBuf], generated: u64) -> (u64, u64, u64) {
    let mut times = BTreeMap::<u64, u64>::new();
    for path in paths {
        for (_, _, data) in frames(path) {
            *times.entry(number(&data)).or_default() += 1;
        }
    }
    assert!(times.keys().next_back().is_none_or(|last| *last < generated), "a packet nobody generated");
    (times.len() as u64, generated - times.len() as u64, times.values().filter(|n| **n > 1).count() as u64)
}

/// The rotating files; each has its name, and nothing is left without one.
fn rotated(dir: &Path) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = fs::read_dir(dir.join("rotating")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(all.iter().all(|p| p.extension().is_some_and(|e| e == "pcap")), "{all:?}");
    all
}

/// What a trial does with its processes.
#[derive(Clone, Copy)]
struct Trial {
    kills: u64,
    /// Of ten kills so many are the hunter's.
    hunters: u64,
    durability: &'static str,
    wal: bool,
}

fn run(dir: &Path, trial: Trial, seed: u64) -> Tally {
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    let arguments = ["--insecure", "-w", "all.pcap", "--state-dir", "state", "--durability", trial.durability];
    let rotating = ["--auto-rotate-pcap", "--auto-rotate-pcap-dir", "rotating", "--auto-rotate-max-size", "200K"];
    let arguments = [&arguments[..], &rotating].concat();
    let mut processor = Processor::start(dir, &arguments);
    let port = processor.port;
    let wal = ["--durability", "wal", "--disk-buffer-dir", "spool"];
    let more: &[&str] = if trial.wal { &wal } else { &[] };
    let mut hunter = Hunter::start(dir, port, more);
    for _ in 0..trial.kills {
        let kill_hunter = dice.roll(10) < trial.hunters;
        for _ in 0..=dice.roll(6) {
            let n = 100 + dice.roll(3000);
            hunter.send(tally.generated..tally.generated + n);
            tally.generated += n;
        }
        if kill_hunter {
            // what it was given is in its log once a batch is sealed and written: the promise begins there
            std::thread::sleep(Duration::from_secs(1));
            hunter.kill();
            tally.kills[1] += 1;
            hunter = Hunter::start(dir, port, more);
        } else {
            std::thread::sleep(Duration::from_millis(dice.roll(250)));
            processor.kill();
            tally.kills[0] += 1;
            processor = Processor::start_at(dir, port, &arguments);
        }
    }
    let dropped = hunter.finish();
    assert_eq!(dropped, "none", "nothing is dropped here");
    wait_for(|| !processor.has_said("cannot be confirmed"));
    let log = processor.stop();
    assert!(!log.contains("\"ERROR\"") && log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    let generated = tally.generated;
    (tally.delivered, tally.missing, tally.doubled) = count(&[dir.join("all.pcap")], generated);
    let (delivered, ..) = count(&rotated(dir), generated);
    assert_eq!(count(&rotated(dir), generated), (tally.delivered, tally.missing, tally.doubled), "rotating: {delivered}");
    tally
}

fn assert_exact(tally: &Tally) {
    assert_eq!((tally.missing, tally.doubled, tally.delivered), (0, 0, tally.generated), "{tally:?}");
}

#[test]
fn a_processor_killed_again_and_again_loses_and_doubles_nothing() {
    for durability in ["disk", "process"] {
        let tmp = tempfile::tempdir().unwrap();
        assert_exact(&run(tmp.path(), Trial { kills: 4, hunters: 0, durability, wal: false }, 1));
    }
}

#[test]
fn a_hunter_with_a_log_killed_again_and_again_loses_and_doubles_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    assert_exact(&run(tmp.path(), Trial { kills: 4, hunters: 7, durability: "disk", wal: true }, 2));
}

/// `make chaos`: many rounds; the table is the result.
#[test]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn many_rounds() {
    let Some(rounds) = std::env::var("LC_CHAOS_ROUNDS").ok().and_then(|n| n.parse::<u64>().ok()) else { return };
    let began = Moment::now();
    println!("| round | processor kills | hunter kills | generated | delivered | missing | doubled | counted drops |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut sum = Tally::default();
    let line = |name: &str, t: &Tally| {
        let [processor, hunter] = t.kills;
        println!("| {name} | {processor} | {hunter} | {} | {} | {} | {} | 0 |", t.generated, t.delivered, t.missing, t.doubled);
    };
    for round in 0..rounds {
        let tmp = tempfile::tempdir().unwrap();
        let durability = if round % 4 == 3 { "process" } else { "disk" };
        let t = run(tmp.path(), Trial { kills: 10, hunters: 5, durability, wal: true }, round);
        line(&(round + 1).to_string(), &t);
        sum.kills = [sum.kills[0] + t.kills[0], sum.kills[1] + t.kills[1]];
        sum.generated += t.generated;
        sum.delivered += t.delivered;
        sum.missing += t.missing;
        sum.doubled += t.doubled;
    }
    line("all", &sum);
    println!("in {:.0?}", began.elapsed());
    assert_exact(&sum);
}
