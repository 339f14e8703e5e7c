//! Processors below each other: what hunters give to the one at the edge is at the centre, each packet once, whoever is killed, cut off or
//! full meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::metrics::{get, port_of};
use super::numbered::number;
use super::numbered_file::{header, record};
use super::started::Started;
use super::whole::{LC, Processor, calls_capture, frames, lc, succeed, wait_for};

pub(crate) const CENTRE: [&str; 7] = ["--insecure", "--id", "centre", "-w", "centre.pcap", "--state-dir", "centre"];
const WEST: [&str; 8] = ["--insecure", "--id", "west", "-w", "west.pcap", "--state-dir", "west", "--upstream-insecure"];

/// The processor at the edge; `above` is the port of the one at the centre.
pub(crate) fn west(dir: &Path, port: u16, above: u16, more: &[&str]) -> Processor {
    let above = format!("127.0.0.1:{above}");
    Processor::start_at(dir, port, &[&WEST[..], &["-P", &above], more].concat())
}

/// The figures of its last line about the road upwards.
pub(crate) fn passed_on(log: &str) -> serde_json::Value {
    let line = log.lines().rev().find(|l| l.contains("\"passed on\"")).unwrap();
    let figures: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((figures["difference"].as_i64(), figures["dropped"].as_u64()), (Some(0), Some(0)), "{figures}");
    figures
}

pub(crate) fn status(dir: &Path, port: u16) -> serde_json::Value {
    let to = format!("127.0.0.1:{port}");
    let out = lc(dir, &["show", "status", "-P", &to, "--insecure", "--output-format", "json"]);
    serde_json::from_slice(&out.stdout).unwrap_or_default()
}

/// Hunters that each read a file of numbered packets, ten thousand of them a second at speed `1x`.
struct Hunters {
    children: Vec<Started>,
    packets: u64,
}

impl Hunters {
    fn start(dir: &Path, port: u16, hunters: u64, packets: u64, speed: &str) -> Self {
        let start = |n: u64| {
            let name = format!("h{n}");
            let mut file = header();
            file.extend((n * packets..(n + 1) * packets).flat_map(record));
            fs::write(dir.join(format!("{name}.in")), file).unwrap();
            let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
            let child = Command::new(LC)
                .args(["hunt", "-P", &format!("127.0.0.1:{port}"), "--insecure", "--id", &name, "--no-filter-policy", "allow"])
                .args(["--keep-duplicates", "--connect-timeout", "60s", "--speed", speed, "-r", &format!("{name}.in")])
                .current_dir(dir)
                .env("HOME", dir)
                .stderr(log)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            Started(child)
        };
        Self { children: (0..hunters).map(start).collect(), packets: hunters * packets }
    }

    fn are_done(&mut self) -> bool {
        self.children.iter_mut().all(|c| c.try_wait().unwrap().is_some())
    }

    /// They deliver everything and end well.
    fn finish(mut self) -> u64 {
        for _ in 0..1800 {
            if self.are_done() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        for child in &mut self.children {
            assert!(child.try_wait().unwrap().is_some_and(|s| s.success()), "a hunter does not get rid of its packets");
        }
        self.packets
    }
}

/// Every number once.
fn assert_exact(path: &Path, packets: u64) {
    let mut numbers: Vec<u64> = frames(path).iter().map(|(_, _, data)| number(data)).collect();
    numbers.sort_unstable();
    let (all, distinct) = (numbers.len() as u64, {
        numbers.dedup();
        numbers.len() as u64
    });
    assert_eq!((distinct, all - distinct), (packets, 0), "{}: delivered, doubled", path.display());
}

/// Waits until everything is at the centre, then stops both and compares.
fn conclude(dir: &Path, west: Processor, centre: Processor, packets: u64) {
    let port = west.port;
    wait_for(|| {
        let s = status(dir, port);
        s["upstream_backlog"] == 0 && s["upstream_connected"] == true
    });
    passed_on(&west.stop());
    let log = centre.stop();
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    for file in ["west.pcap", "centre.pcap"] {
        assert_exact(&dir.join(file), packets);
    }
    let sorted = |file: &str| {
        let mut all = frames(&dir.join(file));
        all.sort();
        all
    };
    assert_eq!(sorted("west.pcap"), sorted("centre.pcap"), "times and lengths too");
}

#[test]
fn calls_reach_the_centre_through_a_processor_at_the_edge() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let calls = ["--per-call-pcap", "--per-call-pcap-dir"];
    let centre = Processor::start(dir, &[&CENTRE[..], &calls, &["calls-centre"]].concat());
    let west = west(dir, 0, centre.port, &[&calls[..], &["calls-west"]].concat());
    let to = format!("127.0.0.1:{}", west.port);
    let capture = calls_capture();
    succeed(
        dir,
        &["hunt", "voip", "-P", &to, "--insecure", "--id", "sbc", "--sip-user", "alice", "-r", capture.to_str().unwrap()],
    );
    let told = status(dir, centre.port);
    assert_eq!(told["processors"], serde_json::json!(["west"]), "{told}");

    let west = west.stop();
    let centre = centre.stop();

    let stored = frames(&dir.join("west.pcap"));
    assert!(stored.len() > 10);
    assert_eq!(frames(&dir.join("centre.pcap")), stored);
    let files = |of: &str| {
        let all = fs::read_dir(dir.join(of)).unwrap().map(|e| e.unwrap().path());
        let mut pcaps: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "pcap")).collect();
        pcaps.sort();
        pcaps
    };
    let (here, there) = (files("calls-west"), files("calls-centre"));
    assert!(!here.is_empty() && here.len() == there.len());
    for (a, b) in here.iter().zip(&there) {
        assert_eq!((a.file_name(), frames(a)), (b.file_name(), frames(b)));
    }
    let up = passed_on(&west);
    assert_eq!((up["acknowledged"].as_u64(), &up["delivery"]), (Some(stored.len() as u64), &"acknowledged".into()), "{up}");
    assert!(west.contains("\"difference\":\"p1=0 p2=0\"") && centre.contains("\"difference\":\"p1=0 p2=0\""));
}

#[test]
fn processors_killed_again_and_again_lose_and_double_nothing_on_the_way_up() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let mut centre = Processor::start(dir, &CENTRE);
    let above = centre.port;
    let mut edge = west(dir, 0, above, &[]);
    let port = edge.port;
    let mut hunters = Hunters::start(dir, port, 3, 25_000, "1x");
    let mut kills = 0;
    for pause in [120, 250, 40, 330, 180, 90, 410, 60] {
        std::thread::sleep(Duration::from_millis(pause));
        kills += u32::from(!hunters.are_done());
        if pause % 20 == 0 {
            edge.kill();
            edge = west(dir, port, above, &[]);
        } else {
            centre.kill();
            std::thread::sleep(Duration::from_millis(pause));
            centre = Processor::start_at(dir, above, &CENTRE);
        }
    }
    let packets = hunters.finish();
    assert!(kills > 2, "{kills} kills in mid-stream");
    conclude(dir, edge, centre, packets);
}

/// A wire that can be cut: every connection ends, and none is made, until it is mended.
struct Wire {
    port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), cut: Arc::default(), open: Arc::default() };
        let (cut, open) = (Arc::clone(&wire.cut), Arc::clone(&wire.open));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = if cut.load(Ordering::SeqCst) { None } else { TcpStream::connect(("127.0.0.1", port)).ok() };
                let Some(far) = far else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    open.lock().push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let mut bytes = [0; 16 << 10];
                        while let Ok(n @ 1..) = from.read(&mut bytes) {
                            if to.write_all(&bytes[..n]).is_err() {
                                break;
                            }
                        }
                        let _gone = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        wire
    }

    fn cut_for(&self, time: Duration) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
        std::thread::sleep(time);
        self.cut.store(false, Ordering::SeqCst);
    }
}

/// A port nobody listens on, and that no connection is given: below those the kernel deals out (32768 on).
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::SeqCst));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[test]
fn a_network_cut_again_and_again_loses_nothing_and_the_equation_holds_at_every_look() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let centre = Processor::start(dir, &CENTRE);
    let wire = Wire::to(centre.port);
    let edge = west(dir, 0, wire.port, &["--metrics-listen", "127.0.0.1:0"]);
    let pages = port_of(&edge);
    let hunters = Hunters::start(dir, edge.port, 2, 20_000, "1x");
    let done = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                let (_, metrics) = get(pages, "/metrics").unwrap();
                let error = metrics.lines().find_map(|l| l.strip_prefix("lc_upstream_conservation_error_packets "));
                assert_eq!(error, Some("0"), "{metrics}");
                let (_, status) = get(pages, "/statusz").unwrap();
                assert!(!status.contains("\"difference\": -") && status.contains("\"upstream\""), "{status}");
                looks += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            looks
        });
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(200));
            wire.cut_for(Duration::from_millis(400));
        }
        // nobody waits for the far side: the queue at the edge took everything
        hunters.finish();
        done.store(true, Ordering::SeqCst);
        sampler.join().unwrap()
    });
    assert!(looks > 0);
    conclude(dir, edge, centre, 40_000);
}

#[test]
fn a_full_queue_pauses_hunters_survives_a_stop_and_drains_when_the_centre_comes() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let above = free_port();
    let more = ["--disk-buffer-max-mb", "16", "--metrics-listen", "127.0.0.1:0"];
    let edge = west(dir, 0, above, &more);
    let (port, pages) = (edge.port, port_of(&edge));
    let hunters = Hunters::start(dir, port, 1, 50_000, "max");
    wait_for(|| edge.has_said("takes nothing"));
    wait_for(|| {
        status(dir, port)["status"] == "warning" && get(pages, "/statusz").unwrap().1.contains("\"flow_control\": \"pause\"")
    });
    assert!(get(pages, "/readyz").unwrap().1.contains("the queue for the processor above takes nothing"));
    // told to stop it does, and says that nothing is lost
    let log = edge.stop();
    assert!(passed_on(&log)["on_disk"].as_u64().unwrap() > 10_000 && log.contains("left to the hunters"), "{log}");

    let edge = west(dir, port, above, &more);
    let centre = Processor::start_at(dir, above, &CENTRE);
    let packets = hunters.finish();

    conclude(dir, edge, centre, packets);
}

#[test]
fn certificates_bind_a_processor_to_its_id_on_the_way_up() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    succeed(dir, &["certs", "init", "--dir", "ca"]);
    for (role, id) in [("processor", "centre"), ("processor", "west"), ("hunter", "sbc")] {
        let names: &[&str] = if role == "processor" { &["--ip", "127.0.0.1"] } else { &[] };
        succeed(dir, &[&["certs", "issue", role, id, "--dir", "ca"], names].concat());
    }
    let tls = ["--tls-ca", "ca/ca.crt", "--tls-client-auth", "--tls-cert"];
    let centre = [&["--id", "centre", "-w", "centre.pcap", "--state-dir", "centre"], &tls[..]].concat();
    let centre =
        Processor::start(dir, &[&centre[..], &["ca/processor-centre.crt", "--tls-key", "ca/processor-centre.key"]].concat());
    let above = format!("127.0.0.1:{}", centre.port);
    let edge = |id: &str| {
        let own = ["ca/processor-west.crt", "--tls-key", "ca/processor-west.key", "-P", &above, "--state-dir", id, "--id", id];
        Processor::start(dir, &[&tls[..], &own, &["-w", "west.pcap"]].concat())
    };
    let feigned = edge("east");
    wait_for(|| feigned.has_said("this peer is processor 'west', not processor 'east'"));
    feigned.stop();

    let west = edge("west");
    let (to, capture) = (format!("127.0.0.1:{}", west.port), calls_capture());
    let from = ["hunt", "-P", &to, "--id", "sbc", "--no-filter-policy", "allow", "-r", capture.to_str().unwrap()];
    let shown = ["--tls-ca", "ca/ca.crt", "--tls-cert", "ca/hunter-sbc.crt", "--tls-key", "ca/hunter-sbc.key"];
    succeed(dir, &[&from[..], &shown].concat());
    passed_on(&west.stop());
    centre.stop();

    let stored = frames(&dir.join("west.pcap"));
    assert!(stored.len() > 100);
    assert_eq!(frames(&dir.join("centre.pcap")), stored);
}

#[test]
fn processors_that_pass_on_to_each_other_are_told_of_the_loop() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let (one, two) = (free_port(), free_port());
    let start = |id: &str, port: u16, above: u16| {
        let above = format!("127.0.0.1:{above}");
        Processor::start_at(dir, port, &["--insecure", "--upstream-insecure", "--id", id, "--state-dir", id, "-P", &above])
    };
    let (a, b) = (start("a", one, two), start("b", two, one));

    wait_for(|| a.has_said("refuses this processor: loop: ") || b.has_said("refuses this processor: loop: "));

    a.stop();
    b.stop();
}
