//! Floods beside real calls: whoever sends many of something takes memory up to the limit and no further, and the calls that somebody
//! asked for are still filed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::whole::{LC, Processor, calls_capture, frames, succeed};

/// Frames of one flood.
const FRAMES: u32 = 150_000;
/// Calls of a flood that is filed whole.
const FILED: u32 = 5000;
/// The limit, and the tenth above it that is allowed.
const LIMIT: u64 = 96 << 20;

/// What a flood sends, as UDP payload or as something else on IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// RTP that nobody signalled, each packet of another flow.
    Flows,
    /// The first fragment of a datagram, and never another.
    Fragments,
    /// A SYN, and half an INVITE after it.
    HalfOpen,
    /// INVITEs, each of another call.
    Calls,
    /// RTP that nobody signalled, four packets of each flow.
    Streams,
}

const ALL: [Kind; 4] = [Kind::Flows, Kind::Fragments, Kind::HalfOpen, Kind::Calls];

/// Ethernet and IPv4 around `rest`; `n` makes the source, the ports and the identification.
pub(super) fn ipv4(n: u32, protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let source = n.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    let total = u16::try_from(20 + rest.len()).unwrap();
    frame.extend(total.to_be_bytes());
    frame.extend(&source[2..]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 64 + source[0], source[1], source[2], 10, 1, 1, 1 + (source[3] & 7)]);
    frame.extend(rest);
    frame
}

pub(super) fn udp(n: u32, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend((10_000 + u16::try_from(n % 50_000).unwrap()).to_be_bytes());
    rest.extend(port.to_be_bytes());
    rest.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    rest.extend([0, 0]);
    rest.extend(payload);
    rest
}

pub(super) fn tcp(n: u32, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend((10_000 + u16::try_from(n % 50_000).unwrap()).to_be_bytes());
    rest.extend(5060_u16.to_be_bytes());
    rest.extend(seq.to_be_bytes());
    rest.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    rest.extend(payload);
    rest
}

pub(super) fn invite(n: u32) -> Vec<u8> {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 10.9.9.9\r\ns=-\r\nc=IN IP4 10.9.9.9\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
        1024 + n % 60_000
    );
    format!(
        "INVITE sip:mallory@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bK{n}\r\nFrom: <sip:eve{n}@example.net>;tag={n}\r\n\
         To: <sip:mallory@example.net>\r\nCall-ID: flood-{n}@example.net\r\nCSeq: 1 INVITE\r\nContact: <sip:eve@10.9.9.9>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
    .into_bytes()
}

fn hostile(kind: Kind, n: u32) -> Vec<u8> {
    match kind {
        Kind::Flows => {
            let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 160];
            rtp.extend(n.to_be_bytes());
            rtp.resize(172, 0x55);
            ipv4(n, 17, 0, &udp(n, 20_000, &rtp))
        }
        Kind::Fragments => ipv4(n, 17, 0x2000, &udp(n, 5060, &invite(n)[..300])),
        Kind::HalfOpen if n.is_multiple_of(2) => ipv4(n / 2, 6, 0, &tcp(n / 2, 1, 2, b"")),
        Kind::HalfOpen => ipv4(n / 2, 6, 0, &tcp(n / 2, 2, 16, &invite(n)[..300])),
        Kind::Calls => ipv4(n, 17, 0, &udp(n, 5060, &invite(n))),
        Kind::Streams => {
            let (flow, seq) = (n / 4, u8::try_from(n % 4).unwrap());
            let mut rtp = vec![0x80, 0, 0, seq, 0, 0, 0, 160 * (seq & 1)];
            rtp.extend(flow.to_be_bytes());
            rtp.resize(172, 0x55);
            let port = 10_000 + 2 * u16::try_from(flow % 20_000).unwrap();
            ipv4(flow, 17, 0, &udp(flow, port, &rtp))
        }
    }
}

/// The calls with a flood of so many frames spread between theirs.
fn write(path: &Path, kinds: &[Kind], flood: u32) {
    let calls = frames(&calls_capture());
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&[0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]).unwrap();
    let mut put = |ns: i64, wire: u32, data: &[u8]| {
        let header = [ns / 1_000_000_000, ns % 1_000_000_000, i64::try_from(data.len()).unwrap(), i64::from(wire)];
        for field in header {
            file.write_all(&u32::try_from(field).unwrap().to_le_bytes()).unwrap();
        }
        file.write_all(data).unwrap();
    };
    let between = flood / u32::try_from(calls.len()).unwrap();
    let mut n = 0;
    for (ns, wire, data) in &calls {
        for _ in 0..between {
            let kind = kinds[usize::try_from(n).unwrap() % kinds.len()];
            let frame = hostile(kind, n);
            put(*ns, u32::try_from(frame.len()).unwrap(), &frame);
            n += 1;
        }
        put(*ns, *wire, data);
    }
}

/// The most memory a process had so far; nothing when it is gone.
pub(super) fn peak_of(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs to its end; the most memory it had.
fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    loop {
        peak = peak.max(peak_of(child.id()));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // lost packets are counted, and end with 5
    assert!(matches!(out.status.code(), Some(0 | 5)), "{said}");
    peak
}

#[test]
fn floods_stay_within_the_memory_limit_and_the_calls_asked_for_are_filed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let target = ["--sip-user", "alice", "--log-format", "json"];
    let alone = calls_capture().display().to_string();
    succeed(dir, &[&["sniff", "voip", "-r", &alone, "-w", "alone.pcap"][..], &target].concat());
    let wanted = frames(&dir.join("alone.pcap"));
    assert_eq!(wanted.len(), 424);

    let mut floods: Vec<Vec<Kind>> = ALL.iter().map(|k| vec![*k]).collect();
    floods.push(ALL.to_vec());
    for kinds in floods {
        write(&dir.join("flood.pcap"), &kinds, FRAMES);
        let limit = format!("{LIMIT}");
        let peak = peak(
            Command::new(LC)
                .args(["sniff", "voip", "-r", "flood.pcap", "-w", "kept.pcap", "--memory-limit", &limit])
                .args(target)
                .current_dir(dir)
                .env("HOME", dir),
        );
        let kept = frames(&dir.join("kept.pcap"));
        fs::remove_file(dir.join("kept.pcap")).unwrap();

        let good = wanted.iter().filter(|frame| kept.contains(frame)).count();
        assert!(good * 10 >= wanted.len() * 9, "{kinds:?}: {good} of {}", wanted.len());
        assert_eq!(kept.len(), good, "{kinds:?}: nothing else");
        assert!(peak <= LIMIT + LIMIT / 10, "{kinds:?}: {} MiB", peak >> 20);
    }
}

/// What a hunter and its processor take while a flood comes by beside the calls, and how much of these is filed.
struct Brought {
    hunter: u64,
    processor: u64,
    kept: Vec<(i64, u32, Vec<u8>)>,
}

/// `process` as a hunter's target, which `hunt`s the flood; both within [`LIMIT`].
fn bring(dir: &Path, process: &[&str], hunt: &[&str]) -> Brought {
    let limit = format!("{LIMIT}");
    let start = ["--insecure", "--state-dir", "state", "-w", "kept.pcap", "--durability", "process", "--memory-limit", &limit];
    let processor = Processor::start(dir, &[&start[..], process].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    let hunter = peak(
        Command::new(LC)
            .args(["hunt", "voip", "-P", &address, "--insecure", "--id", "edge", "-r", "flood.pcap", "--memory-limit", &limit])
            .args(["--log-format", "json"])
            .args(hunt)
            .current_dir(dir)
            .env("HOME", dir),
    );
    let at_processor = peak_of(processor.id());
    let log = processor.stop();
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    let kept = frames(&dir.join("kept.pcap"));
    fs::remove_file(dir.join("kept.pcap")).unwrap();
    fs::remove_dir_all(dir.join("state")).unwrap();
    Brought { hunter, processor: at_processor, kept }
}

#[test]
fn a_hunter_and_its_processor_stay_within_their_limits_and_deliver_the_calls_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let alone = calls_capture().display().to_string();
    succeed(dir, &["sniff", "voip", "-r", &alone, "-w", "alone.pcap", "--sip-user", "alice"]);
    let wanted = frames(&dir.join("alone.pcap"));

    let mut floods: Vec<Vec<Kind>> = ALL.iter().map(|k| vec![*k]).collect();
    floods.push(ALL.to_vec());
    for kinds in floods {
        write(&dir.join("flood.pcap"), &kinds, FRAMES);
        let brought = bring(dir, &[], &["--sip-user", "alice"]);

        let good = wanted.iter().filter(|frame| brought.kept.contains(frame)).count();
        assert!(good * 10 >= wanted.len() * 9, "{kinds:?}: {good} of {}", wanted.len());
        for (who, peak) in [("hunter", brought.hunter), ("processor", brought.processor)] {
            assert!(peak <= LIMIT + LIMIT / 10, "{kinds:?}: {who}: {} MiB", peak >> 20);
        }
    }
}

#[test]
fn a_processor_that_files_every_call_of_a_flood_stays_within_its_limit() {
    file_all(Kind::Calls, FILED);
}

#[test]
fn a_processor_that_files_every_stream_of_a_flood_stays_within_its_limit() {
    file_all(Kind::Streams, 4 * FILED);
}

/// Files a flood of so many frames in a processor, whole.
fn file_all(kind: Kind, frames: u32) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    write(&dir.join("flood.pcap"), &[kind], frames);

    let brought = bring(dir, &["--per-call-pcap", "--per-call-pcap-dir", "calls"], &["--no-filter-policy", "allow"]);

    assert!(brought.processor <= LIMIT + LIMIT / 10, "{} MiB", brought.processor >> 20);
    let names: Vec<String> =
        fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let part = if kind == Kind::Calls { "_sip.pcap" } else { "_rtp.pcap" };
    let stems: Vec<&str> = names.iter().filter_map(|n| n.strip_suffix(part)).collect();
    let recorded = stems.iter().filter(|stem| names.contains(&format!("{stem}.json"))).count();
    assert!(stems.len() > 4000 && recorded == stems.len(), "{} files, {recorded} with their record", stems.len());
}
