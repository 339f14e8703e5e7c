//! A flood on a wire beside the calls somebody asked for: frames come when they come, and nobody waits for the hunter.

use std::collections::HashSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap::{Active, Capture};
use tokio::time::Instant;

use super::flood::{LIMIT, peak_of};
use super::flood_frames::{ALL, hostile};
use super::metrics::get;
use super::not_run;
use super::started::Started;
use super::whole::{LC, Processor, frames, records, wait_for};

const INSIDE: &str = "LC_TEST_IN_NAMESPACE";
/// The hunter's pages; nobody else has ports in this namespace.
const PAGES: u16 = 9464;
/// Calls at once: each end sends fifty packets a second.
const CALLS: u8 = 20;
const SECONDS: u32 = 10;
/// Handfuls a second, in each a packet of each end of each call.
const HANDFULS: u32 = 50;

/// Frames of the flood a second: 5000, or as `LC_FLOOD_RATE` says.
fn rate() -> u32 {
    std::env::var("LC_FLOOD_RATE").map_or(5000, |rate| rate.parse().unwrap())
}

fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(from.0, to.0, 64).udp(from.1, to.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// The end of a call that called, and the one that was called.
fn ends(call: u8) -> [([u8; 4], u16); 2] {
    [([10, 8, call, 1], 4000), ([10, 9, call, 1], 5000)]
}

/// What alice sends first and last in a call, with the answer to it.
fn signalling(call: u8, method: &str) -> [Vec<u8>; 2] {
    let [here, there] = ends(call);
    let message = |first: &str, ([a, b, c, d], port): ([u8; 4], u16)| {
        let address = format!("IN IP4 {a}.{b}.{c}.{d}");
        let sdp = format!("v=0\r\no=- 1 1 {address}\r\ns=-\r\nc={address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n");
        // the first message of a call has none
        let tag = if first.starts_with("INVITE") { String::new() } else { format!(";tag=b{call}") };
        let (kind, sdp) = if method == "INVITE" { ("Content-Type: application/sdp\r\n", sdp) } else { ("", String::new()) };
        format!(
            "{first}\r\nVia: SIP/2.0/UDP 10.8.0.1;branch=z9hG4bK{method}{call}\r\nFrom: <sip:alice@example.org>;tag=a{call}\r\n\
             To: <sip:bob@example.org>{tag}\r\nCall-ID: {call}\r\nCSeq: {} {method}\r\n\
             Contact: <sip:alice@10.8.0.1>\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            method.len(),
            sdp.len()
        )
    };
    let (phone, server) = (([10, 8, 0, 1], 5060), ([10, 9, 0, 1], 5060));
    [
        udp(phone, server, message(&format!("{method} sip:bob@example.org SIP/2.0"), here).as_bytes()),
        udp(server, phone, message("SIP/2.0 200 OK", there).as_bytes()),
    ]
}

/// A packet that somebody asked for, and its call.
type Good = (u8, Vec<u8>);

/// Those of a handful.
fn media(handful: u32) -> Vec<Good> {
    let mut all = Vec::new();
    for call in 0..CALLS {
        let [here, there] = ends(call);
        for (from, to) in [(here, there), (there, here)] {
            let sequence = u16::try_from(handful).unwrap().to_be_bytes();
            let mut rtp = [&[0x80, 0][..], &sequence, &(160 * handful).to_be_bytes(), &from.0].concat();
            rtp.resize(172, 0xd5);
            all.push((call, udp(from, to, &rtp)));
        }
    }
    all
}

/// A wire that takes what it is given, or says how long it took.
struct Wire(Capture<Active>);

impl Wire {
    fn send(&mut self, frame: &[u8]) {
        // a full queue answers ENOBUFS
        while self.0.sendpacket(frame).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// The calls and the flood, at their rates; what of it was asked for, how much was sent in all, and in what time.
fn send() -> (Vec<Good>, u64, Duration) {
    let mut wire = Wire(Capture::from_device("gen0").unwrap().open().unwrap());
    let talk = |wire: &mut Wire, method| {
        let said: Vec<Good> = (0..CALLS).flat_map(|call| signalling(call, method).map(|frame| (call, frame))).collect();
        for (_, frame) in &said {
            wire.send(frame);
        }
        said
    };
    let mut good = talk(&mut wire, "INVITE");
    let (mut evil, began) = (0, Instant::now());
    for handful in 0..SECONDS * HANDFULS {
        let due = Duration::from_secs(1) * handful / HANDFULS;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let calls = media(handful);
        let beside = rate() / HANDFULS / u32::try_from(calls.len()).unwrap();
        for (_, frame) in &calls {
            for _ in 0..beside {
                wire.send(&hostile(ALL[usize::try_from(evil).unwrap() % ALL.len()], evil));
                evil += 1;
            }
            wire.send(frame);
        }
        good.extend(calls);
    }
    good.extend(talk(&mut wire, "BYE"));
    let all = good.len() as u64 + u64::from(evil);
    (good, all, began.elapsed())
}

fn sh(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

#[test]
fn nine_tenths_of_the_calls_arrive_beside_a_flood_on_a_wire_and_what_is_missing_is_counted() {
    let test = "flood_live::nine_tenths_of_the_calls_arrive_beside_a_flood_on_a_wire_and_what_is_missing_is_counted";
    if std::env::var_os(INSIDE).is_some() {
        return beside_a_flood();
    }
    if !not_run::has_namespaces_and(test, &["ip"]) {
        return;
    }
    let again = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status();
    assert!(again.unwrap().success(), "{test} failed in its namespace");
}

#[expect(clippy::print_stdout, reason = "says what was measured")]
fn beside_a_flood() {
    sh("ip link set lo up && ip link add gen0 type veth peer name cap0");
    for end in ["gen0", "cap0"] {
        // no neighbour discovery of the kernel's between our frames
        fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        sh(&format!("ip link set {end} up"));
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let limit = LIMIT.to_string();
    let start = ["--insecure", "--state-dir", "state", "-w", "kept.pcap", "--durability", "process", "--memory-limit", &limit];
    let processor = Processor::start(dir, &[&start[..], &["--per-call-pcap", "--per-call-pcap-dir", "calls"]].concat());
    let (address, pages) = (format!("127.0.0.1:{}", processor.port), format!("127.0.0.1:{PAGES}"));
    let hunt = ["hunt", "voip", "-P", &address, "--insecure", "--id", "edge", "-i", "cap0", "--sip-user", "alice"];
    let more = ["--memory-limit", &limit, "--metrics-listen", &pages, "--log-format", "json"];
    let mut command = Command::new(LC);
    command.args(hunt).args(more).current_dir(dir).env("HOME", dir);
    command.stdout(Stdio::null()).stderr(File::create(dir.join("said")).unwrap());
    let mut hunter = Started(command.spawn().unwrap());
    wait_for(|| get(PAGES, "/readyz").is_some_and(|(code, _)| code == 200));

    let (good, all, time) = send();
    wait_for(|| {
        let page: serde_json::Value = serde_json::from_str(&get(PAGES, "/statusz").unwrap().1).unwrap();
        page["equation"]["k1"]["kernel_seen"].as_u64().unwrap_or_else(|| panic!("{page}")) >= all
            && page["equation"]["k1"]["in_ring"] == 0
    });
    let peaks = [peak_of(hunter.id()), peak_of(processor.id())];
    sh(&format!("kill -TERM {}", hunter.id()));
    let status = hunter.wait().unwrap();
    let log = processor.stop();
    let said = fs::read_to_string(dir.join("said")).unwrap();
    let done: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap_or_else(|_| panic!("{said}"));
    let figure = |name: &str| done[name].as_u64().unwrap_or_else(|| panic!("{name}: {said}"));

    let kept: HashSet<Vec<u8>> = frames(&dir.join("kept.pcap")).into_iter().map(|frame| frame.2).collect();
    let mut missing_of = [0; CALLS as usize];
    for (call, _) in good.iter().filter(|(_, frame)| !kept.contains(frame)) {
        missing_of[usize::from(*call)] += 1;
    }
    let missing: usize = missing_of.iter().sum();
    println!(
        "{all} frames in {time:.1?}, {} of them asked for: {missing} of these missing, {} counted as lost; hunter {} MiB, processor {} MiB",
        good.len(),
        figure("lost"),
        peaks[0] >> 20,
        peaks[1] >> 20
    );
    assert!(matches!(status.code(), Some(0 | 5)), "{status}: {said}");
    assert_eq!(figure("captured") + figure("kernel_dropped") + figure("interface_dropped"), all, "every frame: {said}");
    assert!(missing * 10 <= good.len(), "{missing} of {} missing: {said}", good.len());
    assert!(missing as u64 <= figure("lost"), "{missing} missing, and not all of them counted: {said}");
    let records = records(&dir.join("calls"));
    for (call, missing) in missing_of.iter().enumerate() {
        let record = &records[&call.to_string()];
        assert!(*missing == 0 || record["complete"] == false, "{missing} missing: {record}");
        assert!(record["complete"] == true || figure("kernel_dropped") > 0, "{record}: {said}");
    }
    assert_eq!((kept.len(), records.len()), (good.len() - missing, usize::from(CALLS)), "nothing else");
    assert_eq!(figure("acknowledged"), kept.len() as u64, "{said}");
    assert!(said.contains("k1=0 k2=0 k3=0") && log.contains("p1=0 p2=0"), "{said}\n{log}");
    assert!(peaks.iter().all(|peak| *peak <= LIMIT + LIMIT / 10), "{peaks:?}");
}
