//! Live capture on veth pairs, each test in a network namespace of its own. Needs root; says so where there is none.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test helpers")]

#[path = "it/not_run.rs"]
mod not_run;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use lippycat::capture::{
    CaptureError, FileSource, KernelStats, LiveOptions, LiveSource, LiveState, Progress, Source, Wake, list_interfaces, open_live,
};
use lippycat::packet::Timestamp;

const INSIDE: &str = "LC_TEST_IN_NAMESPACE";

/// Runs `body` in a process with a fresh network namespace that has `lo` up and a pair `ve0`–`ve1`.
fn in_namespace(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        pair();
        body();
        return;
    }
    if !not_run::has_namespaces_and(test, &["ip"]) {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(exe)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
}

fn pair() {
    sh("ip link add ve0 type veth peer name ve1");
    for end in ["ve0", "ve1"] {
        // No neighbour discovery of the kernel's between our frames.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        sh(&format!("ip link set {end} up"));
    }
}

fn sh(command: &str) {
    let status = Command::new("sh").arg("-c").arg(command).status().unwrap();
    assert!(status.success(), "{command}");
}

struct Sender(pcap::Capture<pcap::Active>);

impl Sender {
    fn on(interface: &str) -> Self {
        Self(pcap::Capture::from_device(interface).unwrap().snaplen(64).open().unwrap())
    }

    fn send(&mut self, frame: &[u8]) {
        // A full queue answers ENOBUFS.
        while self.0.sendpacket(frame).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// An Ethernet frame around `packet`.
fn ethernet(tag: Option<u16>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = tag {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// UDP over IPv4; `offset` in units of 8 bytes, a later fragment when not zero. The mark is the last four bytes.
fn udp4(src: [u8; 4], dst: [u8; 4], port: u16, offset: u16, mark: u32) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 32, 0, 1];
    p.extend(offset.to_be_bytes());
    p.extend([64, 17, 0, 0]);
    p.extend(src);
    p.extend(dst);
    if offset == 0 {
        p.extend([port.to_be_bytes(), port.to_be_bytes(), [0, 12], [0, 0]].concat());
    } else {
        p.extend([0xaa; 8]);
    }
    p.extend(mark.to_be_bytes());
    p
}

fn udp6(src: u8, dst: u8, fragment: Option<u16>, mark: u32) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, if fragment.is_some() { 20 } else { 12 }, if fragment.is_some() { 44 } else { 17 }, 64];
    for host in [src, dst] {
        p.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    if let Some(offset) = fragment {
        p.extend([17, 0]);
        p.extend((offset << 3).to_be_bytes());
        p.extend([0, 0, 0, 1]);
    }
    p.extend([0x13, 0xc4, 0x13, 0xc4, 0, 12, 0, 0]);
    p.extend(mark.to_be_bytes());
    p
}

fn mark(data: &[u8]) -> u32 {
    u32::from_be_bytes(*data.last_chunk().unwrap())
}

fn open(interface: &str, options: &LiveOptions) -> LiveSource {
    open_live(&[interface.to_owned()], 1, options).unwrap().pop().unwrap()
}

/// Takes everything until it was quiet for a while; what `take` is told: mark, time, captured and original length.
fn drain(source: &mut LiveSource, mut take: impl FnMut(&[u8], Timestamp, u32)) -> usize {
    let (mut count, mut quiet) = (0, 0);
    while quiet < 3 {
        match source.poll(&mut |f| take(f.data, f.ts, f.wire_len)) {
            Ok(Progress::Frames(n)) => count += n,
            Ok(_) => {
                if matches!(source.wait(Duration::from_millis(80)), Ok(Wake::Timeout) | Err(_)) {
                    quiet += 1;
                }
            }
            Err(e) => eprintln!("{e}"),
        }
    }
    count
}

fn assert_closed(stats: KernelStats, captured: usize) {
    assert_eq!(stats.in_ring, 0, "{stats:?}");
    assert_eq!(stats.seen(), captured as u64 + stats.kernel_dropped + stats.interface_dropped, "{stats:?}");
}

#[test]
fn every_frame_comes_once_with_nanoseconds_and_its_true_length_and_k1_closes() {
    in_namespace("every_frame_comes_once_with_nanoseconds_and_its_true_length_and_k1_closes", || {
        let mut source = open("ve1", &LiveOptions { snaplen: 64, ..LiveOptions::default() });
        let mut sender = Sender::on("ve0");
        let mut packet = udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, 0);
        packet.resize(200, 0);
        for n in 0..30_000u32 {
            // The mark lies within the snap length.
            packet[28..32].copy_from_slice(&n.to_be_bytes());
            sender.send(&ethernet(None, 0x0800, &packet));
        }

        let mut marks = Vec::new();
        let mut fractions = 0;
        let count = drain(&mut source, |data, ts, len| {
            assert_eq!((data.len(), len), (64, 214));
            fractions += i64::from(ts.as_nanos() % 1000 != 0);
            marks.push(u32::from_be_bytes(data[42..46].try_into().unwrap()));
        });

        assert!(marks.iter().copied().eq(0..30_000));
        assert!(fractions > 20_000, "nanoseconds, not microseconds: {fractions}");
        assert_closed(source.stats(), count);
        assert_eq!(source.stats().received, 30_000);
    });
}

#[test]
fn the_kernel_filter_passes_what_was_asked_and_every_later_fragment() {
    in_namespace("the_kernel_filter_passes_what_was_asked_and_every_later_fragment", || {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let frames = |n: u32| {
            [
                (true, ethernet(None, 0x0800, &udp4(a, b, 5060, 0, n))),
                (false, ethernet(None, 0x0800, &udp4(a, b, 5061, 0, n + 1))),
                (true, ethernet(None, 0x0800, &udp4(a, b, 0, 100, n + 2))),
                (true, ethernet(Some(7), 0x0800, &udp4(a, b, 0, 100, n + 3))),
                (true, ethernet(None, 0x86dd, &udp6(1, 2, Some(90), n + 4))),
                (true, ethernet(Some(7), 0x86dd, &udp6(1, 2, Some(90), n + 5))),
                (false, ethernet(None, 0x0806, &[0; 28])),
            ]
        };
        let mut sender = Sender::on("ve0");
        for filter in ["udp port 5060", "udp port 5060 or (vlan 9 and tcp)"] {
            // Frames sent while the handle opens must not confuse its counters.
            let mut early = Sender::on("ve0");
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = std::sync::Arc::clone(&stop);
            let noise = ethernet(None, 0x0800, &udp4(a, b, 9, 0, u32::MAX));
            let background = std::thread::spawn(move || {
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    early.send(&noise);
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            let mut source = open("ve1", &LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            background.join().unwrap();
            let mut expected = Vec::new();
            for n in 0..100 {
                for (wanted, frame) in frames(n * 10) {
                    if wanted {
                        expected.push(frame.clone());
                    }
                    sender.send(&frame);
                }
            }

            let mut got = Vec::new();
            let count = drain(&mut source, |data, _, _| got.push(data.to_vec()));

            assert_eq!(got.len(), expected.len(), "{filter}");
            assert!(got == expected, "{filter}");
            assert_closed(source.stats(), count);
        }
    });
}

#[test]
fn fan_out_gives_every_frame_once_and_keeps_an_address_pair_together() {
    in_namespace("fan_out_gives_every_frame_once_and_keeps_an_address_pair_together", || {
        for filter in ["", "udp"] {
            let options = LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() };
            // Sending begins before the handles open: nothing may come twice while they join.
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = std::sync::Arc::clone(&stop);
            let background = std::thread::spawn(move || {
                let mut sender = Sender::on("ve0");
                let mut n = 1_000_000u32;
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    let host = n.to_le_bytes()[0];
                    sender.send(&ethernet(None, 0x0800, &udp4([10, 1, 0, host], [10, 1, 1, 1], 5060, 0, n)));
                    n += 1;
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            std::thread::sleep(Duration::from_millis(30));
            let mut sources = open_live(&["ve1".to_owned()], 4, &options).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            background.join().unwrap();

            let mut sender = Sender::on("ve0");
            let mut mark_of = 0u32;
            let mut pair_of = HashMap::new();
            for host in 0..=255u8 {
                let (a, b) = ([10, 0, 0, host], [192, 168, host, 9]);
                for tag in [None, Some(5)] {
                    let mut frames = Vec::new();
                    for (src, dst) in [(a, b), (b, a)] {
                        for offset in [0, 0x2000, 185] {
                            frames.push((4u8, 0x0800, udp4(src, dst, 5060, offset, mark_of)));
                            mark_of += 1;
                        }
                    }
                    for (src, dst) in [(host, 200), (200, host)] {
                        for fragment in [None, Some(0), Some(150)] {
                            frames.push((6u8, 0x86dd, udp6(src, dst, fragment, mark_of)));
                            mark_of += 1;
                        }
                    }
                    for (version, ethertype, packet) in frames {
                        pair_of.insert(mark(&packet), (version, host));
                        sender.send(&ethernet(tag, ethertype, &packet));
                    }
                }
            }

            let mut seen: HashMap<u32, usize> = HashMap::new();
            let mut early = Vec::new();
            let mut captured = 0;
            let mut total = KernelStats::default();
            for (n, source) in sources.iter_mut().enumerate() {
                captured += drain(source, |data, _, _| match mark(data) {
                    early_mark if early_mark >= 1_000_000 => early.push(early_mark),
                    other => assert_eq!(seen.insert(other, n), None, "seen twice"),
                });
                total = total.plus(source.stats());
            }

            assert_eq!(seen.len(), mark_of as usize, "{filter}");
            let mut member_of: HashMap<(u8, u8), usize> = HashMap::new();
            for (mark, member) in &seen {
                // Host 200 to itself and its IPv6 pair are one pair like any other.
                let member_before = *member_of.entry(pair_of[mark]).or_insert(*member);
                assert_eq!(member_before, *member, "pair {:?}", pair_of[mark]);
            }
            let mut load = [0usize; 4];
            for n in seen.values() {
                load[*n] += 1;
            }
            assert!(load.iter().all(|n| *n > seen.len() / 16), "{load:?}");
            early.sort_unstable();
            let first = early.first().copied().unwrap();
            let count = u32::try_from(early.len()).unwrap();
            assert!(early.iter().copied().eq(first..first + count), "while joining, nothing twice and nothing lost");
            assert_closed(total, captured);
        }
    });
}

#[test]
fn a_wait_times_out_on_an_idle_interface_and_ends_when_woken() {
    in_namespace("a_wait_times_out_on_an_idle_interface_and_ends_when_woken", || {
        let mut source = open("ve1", &LiveOptions::default());

        assert_eq!(source.poll(&mut |_| {}).unwrap(), Progress::Idle);
        assert_eq!(source.wait(Duration::from_millis(30)).unwrap(), Wake::Timeout);
        let waker = source.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            waker.wake();
        });
        assert_eq!(source.wait(Duration::from_mins(1)).unwrap(), Wake::Woken);
        thread.join().unwrap();
        Sender::on("ve0").send(&ethernet(None, 0x0800, &[0; 60]));
        assert_eq!(source.wait(Duration::from_mins(1)).unwrap(), Wake::Ready);
        assert_eq!(source.poll(&mut |_| {}).unwrap(), Progress::Frames(1));
    });
}

#[test]
fn promiscuous_mode_is_asked_of_the_interface_and_given_back() {
    in_namespace("promiscuous_mode_is_asked_of_the_interface_and_given_back", || {
        for (promiscuous, promiscuity) in [(false, "promiscuity 0"), (true, "promiscuity 1")] {
            let source = open("ve1", &LiveOptions { promiscuous, ..LiveOptions::default() });
            sh(&format!("ip -d link show ve1 | grep -q '{promiscuity} '"));

            drop(source);

            sh("ip -d link show ve1 | grep -q 'promiscuity 0 '");
        }
    });
}

#[test]
fn an_idle_interface_delays_no_batch_and_no_end() {
    in_namespace("an_idle_interface_delays_no_batch_and_no_end", || {
        let dir = tempfile::tempdir().unwrap();
        let lc = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_lc"));
            command.args(arguments).current_dir(dir.path()).env("HOME", dir.path()).stdin(Stdio::null());
            command.stderr(File::options().append(true).create(true).open(dir.path().join("log")).unwrap());
            Running(command.spawn().unwrap())
        };
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let filed = || std::fs::read(dir.path().join("all.pcap")).unwrap_or_default();
        let processor = lc(&[
            "process",
            "--insecure",
            "--listen",
            "127.0.0.1:5555",
            "-w",
            "all.pcap",
            "--state-dir",
            "s",
            "--log-format",
            "json",
        ]);
        wait_for("the processor", || log().contains("listening"));
        let to = "-P 127.0.0.1:5555 --insecure --no-filter-policy allow --log-format json --capture-threads 2".split(' ');
        let hunt: Vec<&str> = ["hunt", "-i", "lo,ve1", "-f", "udp port 9"].into_iter().chain(to).collect();
        let hunter = lc(&hunt);
        wait_for("the hunter", || log().contains("connected"));
        // nothing follows this packet, on either interface
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _refused = socket.send_to(b"the only one", "127.0.0.1:9");
        wait_for("its batch", || filed().windows(12).any(|w| w == b"the only one"));

        hunter.stop();
        processor.stop();

        assert!(log().contains("\"unaccounted\":0"), "{}", log());
    });
}

/// A process of ours: SIGTERM ends it well, and a test that failed leaves nothing running.
struct Running(std::process::Child);

impl Running {
    fn stop(mut self) {
        sh(&format!("kill -TERM {}", self.0.id()));
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Waits for what takes as long as it takes, up to 20 s.
fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..200 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within the time");
}

#[test]
fn loopback_and_any_show_each_frame_once_and_k1_closes() {
    in_namespace("loopback_and_any_show_each_frame_once_and_k1_closes", || {
        for (interface, filter) in [("lo", ""), ("lo", "udp"), ("any", ""), ("any", "udp port 9")] {
            let mut source = open(interface, &LiveOptions { filter: filter.to_owned(), ..LiveOptions::default() });
            let (from, to) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), "127.0.0.1:9");
            for n in 0..500u32 {
                let _refused = from.send_to(&n.to_be_bytes(), to);
            }

            let mut marks = Vec::new();
            let mut icmp = 0;
            let count = drain(&mut source, |data, _, _| {
                let ip = if interface == "lo" { &data[14..] } else { &data[16..] };
                if ip[9] == 17 { marks.push(mark(data)) } else { icmp += 1 }
            });

            assert!(marks.iter().copied().eq(0..500), "{interface} '{filter}': {}", marks.len());
            assert_eq!(source.interfaces()[0].link.0, if interface == "lo" { 1 } else { 113 });
            assert!(filter.is_empty() || icmp == 0);
            assert_closed(source.stats(), count);
        }
    });
}

#[test]
fn any_opens_beside_promiscuous_mode_and_names_the_direction() {
    in_namespace("any_opens_beside_promiscuous_mode_and_names_the_direction", || {
        let mut source =
            open("any", &LiveOptions { promiscuous: true, filter: "udp port 5060".into(), ..LiveOptions::default() });
        Sender::on("ve0").send(&ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, 1)));

        let mut kinds = Vec::new();
        drain(&mut source, |data, _, _| kinds.push(data[1]));

        // Sent on ve0 (4), broadcast on ve1 (1).
        kinds.sort_unstable();
        assert_eq!(kinds, [1, 4]);
    });
}

#[test]
fn an_interface_that_goes_down_or_away_is_an_error_once_then_a_gap() {
    in_namespace("an_interface_that_goes_down_or_away_is_an_error_once_then_a_gap", || {
        let options = LiveOptions { filter: "udp".to_owned(), ..LiveOptions::default() };
        let mut source = open_live(&["ve1".to_owned(), "lo".to_owned()], 1, &options).unwrap().pop().unwrap();
        let frame = |n| ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 5060, 0, n));
        Sender::on("ve0").send(&frame(1));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        sh("ip link set ve1 down");
        let error = first_error(&mut source);
        assert!(matches!(&error, CaptureError::InterfaceDown { name } if name == "ve1"), "{error}");
        assert_eq!(source.states().next().unwrap().state, LiveState::Down);
        assert!(source.recover().is_err());
        sh("ip link set ve1 up");
        source.recover().unwrap();
        Sender::on("ve0").send(&frame(2));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        sh("ip link del ve1");
        let error = first_error(&mut source);
        assert!(matches!(&error, CaptureError::InterfaceGone { name, .. } if name == "ve1"), "{error}");
        assert!(matches!(source.recover(), Err(CaptureError::NoSuchInterface { .. })));
        // The other interface goes on.
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);
        pair();
        source.recover().unwrap();
        Sender::on("ve0").send(&frame(3));
        assert_eq!(drain(&mut source, |_, _, _| {}), 1);

        let gaps = source.gaps();
        assert_eq!(gaps.len(), 2, "{gaps:?}");
        assert!(gaps.iter().all(|g| g.interface.0 == 0 && g.after.is_some() && g.after < g.before), "{gaps:?}");
        assert!(source.states().all(|s| s.state == LiveState::Up));
        assert_closed(source.stats(), 4);
    });
}

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
    fn start(dir: &std::path::Path, log: &str, arguments: &[&str]) -> Self {
        let log = File::create(dir.join(log)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lc"));
        Self(command.args(arguments).current_dir(dir).env("HOME", dir).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// A processor that keeps a file per call in `calls`, on port 55555; its log is `p`.
    fn process(dir: &std::path::Path) -> Self {
        let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "state"];
        Self::start(dir, "p", &[&["process", "--insecure", "--listen", "127.0.0.1:55555"], &files[..]].concat())
    }

    /// SIGTERM; its exit code.
    fn stop(mut self) -> Option<i32> {
        sh(&format!("kill -TERM {}", self.0.id()));
        self.0.wait().unwrap().code()
    }
}

/// Whether a log comes to say something.
fn says(dir: &std::path::Path, log: &str, what: &str) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        std::fs::read_to_string(dir.join(log)).is_ok_and(|said| said.contains(what))
    })
}

/// The frames of one call.
fn a_call() -> Vec<Vec<u8>> {
    let mut call = Vec::new();
    let mut source = FileSource::open(&[concat!(env!("CARGO_MANIFEST_DIR"), "/captures/voip/plain.pcap")]).unwrap();
    while source.poll(&mut |f| call.push(f.data.to_vec())).unwrap() != Progress::End {}
    call
}

#[test]
fn a_hunter_captures_again_from_an_interface_that_vanished_and_says_so_in_the_calls() {
    in_namespace("a_hunter_captures_again_from_an_interface_that_vanished_and_says_so_in_the_calls", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let says = |log: &str, what: &str| says(dir, log, what);
        let call = a_call();
        let processor = Lc::process(dir);
        assert!(says("p", "listening"));
        let hunt = ["hunt", "voip", "--insecure", "-P", "127.0.0.1:55555", "-i", "ve1", "--no-filter-policy", "allow"];
        let hunter = Lc::start(dir, "h", &[&hunt[..], &["--durability", "memory", "--keep-duplicates"]].concat());
        assert!(says("h", "connected"));

        let (before, after) = call.split_at(20);
        let mut sender = Sender::on("ve0");
        for frame in before {
            sender.send(frame);
        }
        std::thread::sleep(Duration::from_millis(200));
        sh("ip link del ve1");
        assert!(says("h", "capture interrupted"));
        let status = |what: &str| {
            let show = ["show", "status", "-P", "127.0.0.1:55555", "--insecure", "--output-format", "json", "-q"];
            (0..150).any(|_| {
                std::thread::sleep(Duration::from_millis(50));
                let out = Command::new(env!("CARGO_BIN_EXE_lc")).args(show).env("HOME", dir).output().unwrap();
                String::from_utf8_lossy(&out.stdout).contains(what)
            })
        };
        assert!(status("\"warning_hunters\":1"), "the next heartbeat says it");
        pair();
        assert!(says("h", "capturing again"));
        let mut sender = Sender::on("ve0");
        for frame in after {
            sender.send(frame);
        }
        assert!(status("\"healthy_hunters\":1"));
        assert_eq!((hunter.stop(), processor.stop()), (Some(0), Some(0)));

        let records = std::fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().path());
        let record = records.into_iter().find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
        let count = |what: &str| record["packets"][what].as_u64().unwrap();
        assert_eq!(count("sip") + count("rtp") + count("rtcp"), call.len() as u64, "{record}");
        assert_eq!((&record["complete"], &record["holes"][0]["reason"]), (&false.into(), &"interface_down".into()), "{record}");
        assert!(record["holes"][0].get("packets").is_none(), "nobody knows how many: {record}");
    });
}

#[test]
fn what_the_kernel_drops_stands_in_the_calls_alive_then_and_in_the_figures() {
    in_namespace("what_the_kernel_drops_stands_in_the_calls_alive_then_and_in_the_figures", || {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let says = |log: &str, what: &str| says(dir, log, what);
        let call = a_call();
        let processor = Lc::process(dir);
        assert!(says("p", "listening"));
        let hunt =
            ["hunt", "voip", "--insecure", "-P", "127.0.0.1:55555", "-i", "ve1", "--no-filter-policy", "allow", "--id", "edge"];
        let more = ["--durability", "memory", "--keep-duplicates", "--pcap-buffer-size", "1M"];
        let hunter = Lc::start(dir, "h", &[&hunt[..], &more].concat());
        assert!(says("h", "connected"));
        let show = || {
            let show = ["show", "hunter", "edge", "-P", "127.0.0.1:55555", "--insecure", "--output-format", "json", "-q"];
            let out = Command::new(env!("CARGO_BIN_EXE_lc")).args(show).env("HOME", dir).output().unwrap();
            serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_default()
        };
        let until = |what: &dyn Fn(&serde_json::Value) -> bool| {
            (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(50));
                what(&show())
            })
        };

        let (before, after) = call.split_at(20);
        let mut sender = Sender::on("ve0");
        for f in before {
            sender.send(f);
        }
        assert!(until(&|h| h["stats"]["packets_forwarded"].as_u64() >= Some(15)), "{}", show());
        // a stall: the ring runs over
        sh(&format!("kill -STOP {}", hunter.0.id()));
        let noise = ethernet(None, 0x0800, &udp4([10, 0, 0, 1], [10, 0, 0, 2], 9, 1, 1));
        let noise = [noise, vec![0; 1000]].concat();
        for _ in 0..20_000 {
            sender.send(&noise);
        }
        sh(&format!("kill -CONT {}", hunter.0.id()));
        assert!(until(&|h| h["stats"]["kernel_dropped"].as_u64() > Some(0)), "{}", show());
        for f in after {
            sender.send(f);
        }
        std::thread::sleep(Duration::from_millis(300));
        let (stopped, log) = (hunter.stop(), std::fs::read_to_string(dir.join("h")).unwrap());
        assert_eq!((stopped, processor.stop()), (Some(5), Some(0)), "packets were lost: {log}");

        let records = std::fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().path());
        let record = records.into_iter().find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
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

#[test]
fn an_interface_that_is_down_is_refused_in_words() {
    in_namespace("an_interface_that_is_down_is_refused_in_words", || {
        sh("ip link set ve1 down");

        let error = open_live(&["ve1".to_owned()], 1, &LiveOptions::default()).err().unwrap().to_string();

        assert_eq!(error, "cannot capture on ve1: the interface is down; bring it up: ip link set ve1 up");
    });
}

#[test]
fn an_interface_that_goes_down_is_noticed_while_another_is_busy() {
    in_namespace("an_interface_that_goes_down_is_noticed_while_another_is_busy", || {
        let interfaces = ["ve1".to_owned(), "lo".to_owned()];
        let mut source = open_live(&interfaces, 1, &LiveOptions::default()).unwrap().pop().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sh("ip link set ve1 down");

        let error = (0..20_000).find_map(|_| {
            let _refused = socket.send_to(b"busy", "127.0.0.1:9");
            source.poll(&mut |_| {}).err()
        });

        assert!(matches!(error, Some(CaptureError::InterfaceDown { name }) if name == "ve1"));
    });
}

/// Polls and waits until something is wrong.
fn first_error(source: &mut LiveSource) -> CaptureError {
    for _ in 0..100 {
        if let Err(e) = source.poll(&mut |_| {}).and_then(|_| source.wait(Duration::from_millis(20))) {
            return e;
        }
    }
    panic!("no error in 100 rounds");
}

#[test]
fn what_the_kernel_drops_is_counted() {
    in_namespace("what_the_kernel_drops_is_counted", || {
        let mut source = open("ve1", &LiveOptions { buffer_bytes: 1 << 20, ..LiveOptions::default() });
        let mut sender = Sender::on("ve0");
        let frame = ethernet(None, 0x0800, &[1; 1200]);
        for _ in 0..5000 {
            sender.send(&frame);
        }

        let count = drain(&mut source, |_, _, _| {});

        let stats = source.stats();
        assert_eq!(stats.received, 5000);
        assert!(stats.kernel_dropped > 1000, "{stats:?}");
        assert_closed(stats, count);
    });
}

#[test]
fn a_wrong_filter_is_refused_before_anything_is_captured() {
    in_namespace("a_wrong_filter_is_refused_before_anything_is_captured", || {
        for interface in ["ve1", "any"] {
            let options = LiveOptions { filter: "udp prot 5060".to_owned(), ..LiveOptions::default() };

            let error = open_live(&[interface.to_owned()], 1, &options).err().unwrap().to_string();

            assert!(error.starts_with("cannot use the BPF filter 'udp prot 5060': "), "{error}");
        }
        let ve1 = list_interfaces().unwrap().into_iter().find(|i| i.name == "ve1").unwrap();
        assert!(ve1.up && ve1.links.unwrap()[0].0.0 == 1);
    });
}

#[test]
fn without_permission_the_error_says_what_to_do() {
    const NAME: &str = "without_permission_the_error_says_what_to_do";
    if std::env::var_os("LC_TEST_UNPRIVILEGED").is_some() || !not_run::is_root() {
        let error = open_live(&["lo".to_owned()], 1, &LiveOptions::default()).err().unwrap().to_string();

        assert_eq!(error, "cannot capture on lo: permission denied; run as root or: setcap cap_net_raw+ep $(command -v lc)");
        return;
    }
    // A copy, since the build folder may be closed to others.
    let copy = std::env::temp_dir().join(format!("lc-unprivileged-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let status = Command::new(&copy).args(["--exact", NAME]).env("LC_TEST_UNPRIVILEGED", "1").uid(65_534).gid(65_534).status();
    std::fs::remove_file(&copy).unwrap();
    assert!(status.unwrap().success());
}
