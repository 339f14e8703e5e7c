//! The real binary on such an interface.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lippycat::capture::{FileSource, Progress, Source as _};

use crate::rig::{Sender, ethernet, in_namespace, pair, sh, udp4};

/// A running `lc`; killed when the test ends before it does.
struct Lc(std::process::Child);

impl Drop for Lc {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Lc {
    /// Its log goes to `LOG` in `dir`.
    fn start(dir: &Path, log: &str, arguments: &[&str]) -> Self {
        let log = File::create(dir.join(log)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lc"));
        Self(command.args(arguments).current_dir(dir).env("HOME", dir).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// A processor that keeps a file per call in `calls`, on port 55555, and a hunter on `ve1` beside it; their logs are `p` and `h`.
    fn both(dir: &Path, more: &[&str]) -> (Self, Self) {
        let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "state"];
        let processor = Self::start(dir, "p", &[&["process", "--insecure", "--listen", "127.0.0.1:55555"], &files[..]].concat());
        assert!(says(dir, "p", "listening"));
        let hunt = ["hunt", "voip", "--insecure", "-P", "127.0.0.1:55555", "-i", "ve1", "--no-filter-policy", "allow"];
        let hunter = Self::start(dir, "h", &[&hunt[..], &["--durability", "memory", "--keep-duplicates"], more].concat());
        assert!(says(dir, "h", "connected"));
        (processor, hunter)
    }

    /// SIGTERM; its exit code.
    fn stop(mut self) -> Option<i32> {
        sh(&format!("kill -TERM {}", self.0.id()));
        self.0.wait().unwrap().code()
    }
}

/// Whether this comes to be true, within 20 s.
fn until(mut there: impl FnMut() -> bool) -> bool {
    (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        there()
    })
}

/// Whether a log comes to say something.
fn says(dir: &Path, log: &str, what: &str) -> bool {
    until(|| std::fs::read_to_string(dir.join(log)).is_ok_and(|said| said.contains(what)))
}

/// What `lc show` answers.
fn show(dir: &Path, what: &[&str]) -> serde_json::Value {
    let to = ["-P", "127.0.0.1:55555", "--insecure", "--output-format", "json", "-q"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_lc"));
    let out = command.arg("show").args(what).args(to).env("HOME", dir).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_default()
}

/// The record of the only call.
fn record(dir: &Path) -> serde_json::Value {
    let mut files = std::fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().path());
    let record = files.find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap()
}

/// The frames of one call.
fn a_call() -> Vec<Vec<u8>> {
    let mut call = Vec::new();
    let mut source = FileSource::open(&[concat!(env!("CARGO_MANIFEST_DIR"), "/captures/voip/plain.pcap")]).unwrap();
    while source.poll(&mut |f| call.push(f.data.to_vec())).unwrap() != Progress::End {}
    call
}

#[test]
fn an_idle_interface_delays_no_batch_and_no_end() {
    in_namespace("lc::an_idle_interface_delays_no_batch_and_no_end", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let process = ["process", "--insecure", "--listen", "127.0.0.1:5555", "-w", "all.pcap", "--state-dir", "s"];
        let processor = Lc::start(dir, "p", &process);
        assert!(says(dir, "p", "listening"));
        let to = "-P 127.0.0.1:5555 --insecure --no-filter-policy allow --capture-threads 2".split(' ');
        let hunt: Vec<&str> = ["hunt", "-i", "lo,ve1", "-f", "udp port 9"].into_iter().chain(to).collect();
        let hunter = Lc::start(dir, "h", &hunt);
        assert!(says(dir, "h", "connected"));
        // nothing follows this packet, on either interface
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _refused = socket.send_to(b"the only one", "127.0.0.1:9");
        let filed = || std::fs::read(dir.join("all.pcap")).unwrap_or_default();
        assert!(until(|| filed().windows(12).any(|w| w == b"the only one")));

        assert_eq!((hunter.stop(), processor.stop()), (Some(0), Some(0)));
        assert!(says(dir, "h", "\"unaccounted\":0"));
    });
}

#[test]
fn a_hunter_captures_again_from_an_interface_that_vanished_and_says_so_in_the_calls() {
    in_namespace("lc::a_hunter_captures_again_from_an_interface_that_vanished_and_says_so_in_the_calls", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let says = |log: &str, what: &str| says(dir, log, what);
        let call = a_call();
        let (processor, hunter) = Lc::both(dir, &[]);

        let (before, after) = call.split_at(20);
        let mut sender = Sender::on("ve0");
        for frame in before {
            sender.send(frame);
        }
        std::thread::sleep(Duration::from_millis(200));
        sh("ip link del ve1");
        assert!(says("h", "capture interrupted"));
        let hunters = |health: &str| until(|| show(dir, &["status"])[health] == 1);
        assert!(hunters("warning_hunters"), "the next heartbeat says it");
        pair();
        assert!(says("h", "capturing again"));
        let mut sender = Sender::on("ve0");
        for frame in after {
            sender.send(frame);
        }
        assert!(hunters("healthy_hunters"));
        assert_eq!((hunter.stop(), processor.stop()), (Some(0), Some(0)));

        let record = record(dir);
        let count = |what: &str| record["packets"][what].as_u64().unwrap();
        assert_eq!(count("sip") + count("rtp") + count("rtcp"), call.len() as u64, "{record}");
        assert_eq!((&record["complete"], &record["holes"][0]["reason"]), (&false.into(), &"interface_down".into()), "{record}");
        assert!(record["holes"][0].get("packets").is_none(), "nobody knows how many: {record}");
    });
}

#[test]
fn what_the_kernel_drops_stands_in_the_calls_alive_then_and_in_the_figures() {
    in_namespace("lc::what_the_kernel_drops_stands_in_the_calls_alive_then_and_in_the_figures", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let call = a_call();
        let (processor, hunter) = Lc::both(dir, &["--id", "edge", "--pcap-buffer-size", "1M"]);
        let stat = |name: &str| show(dir, &["hunter", "edge"])["stats"][name].as_u64();

        let (before, after) = call.split_at(20);
        let mut sender = Sender::on("ve0");
        for f in before {
            sender.send(f);
        }
        assert!(until(|| stat("packets_forwarded") >= Some(15)));
        // a stall: the ring runs over
        sh(&format!("kill -STOP {}", hunter.0.id()));
        let noise = ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 9, 1, 1));
        let noise = [noise, vec![0; 1000]].concat();
        for _ in 0..20_000 {
            sender.send(&noise);
        }
        sh(&format!("kill -CONT {}", hunter.0.id()));
        assert!(until(|| stat("kernel_dropped") > Some(0)));
        for f in after {
            sender.send(f);
        }
        std::thread::sleep(Duration::from_millis(300));
        let (stopped, log) = (hunter.stop(), std::fs::read_to_string(dir.join("h")).unwrap());
        assert_eq!((stopped, processor.stop()), (Some(5), Some(0)), "packets were lost: {log}");

        let record = record(dir);
        let hole = &record["holes"][0];
        assert_eq!(
            (&record["complete"], &hole["reason"], &hole["hunter"]),
            (&false.into(), &"kernel_dropped".into(), &"edge".into()),
            "{record}"
        );
        assert!(hole["packets"].as_u64() > Some(100) && hole["from"].is_string() && hole["until"].is_string(), "{record}");
        let last = log.lines().last().unwrap();
        assert!(last.contains("\"difference\":\"k1=0 k2=0 k3=0\"") && !last.contains("\"lately\":\"1s=0 1m=0 1h=0\""), "{last}");
    });
}
