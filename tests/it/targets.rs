//! One subscriber targeted in a capture of several: what `lc sniff voip -w` keeps is every packet of the target's calls, unchanged and in order, and
//! nothing else. The numbers come from the scenarios (`captures/voip/expected.tsv`, packets that carry signalling counted by hand for TCP).

use std::fs;
use std::path::Path;
use std::process::Command;

/// Capture, target, packets of the target's calls.
const CASES: [(&str, &str, usize); 30] = [
    // two calls made, two received, of 6 messages and 100 RTP packets
    ("calls", "alice", 4 * 106),
    ("calls", "dave", 4 * 106),
    ("calls", "nobody", 0),
    // one call made, one received; every message in a segment of its own
    ("tcp", "alice", 2 * 46),
    ("tcp", "dave", 46),
    // four segments of one INVITE; a fourth is sent again in tcp-disorder
    ("tcp-long", "bob", 70),
    ("tcp-disorder", "bob", 71),
    // six messages in nine fragments and packets
    ("fragments", "alice", 49),
    ("fragments6", "bob", 49),
    // found by P-Asserted-Identity, Diversion, History-Info and the callee's identity in the 200
    ("anonymous", "alice", 46),
    ("anonymous", "frank", 46),
    ("anonymous", "grace", 46),
    ("anonymous", "bob.desk", 46),
    ("anonymous", "mallory", 0),
    // media of the next call on the same ports
    ("port-reuse", "alice", 55),
    ("port-reuse", "carol", 55),
    // one SSRC in every call, one port of the callee's
    ("rtp-echo", "alice", 2 * 106),
    ("rtp-echo", "dave", 106),
    ("calls6", "carol", 2 * 46),
    // her registration and the call she was given; the one before it stays out
    ("baresip-transfer", "carol", 8 + 16 + 226),
    ("baresip-transfer", "bob", 8 + 42 + 512),
    // the transferred call alone, and both
    ("transfer", "carol", 46),
    ("transfer", "alice", 98),
    // media before its SDP; media on an address nobody advertised
    ("rtp-first", "bob", 41),
    ("nat", "alice", 56),
    // each of the doubled packets once
    ("doubled", "bob", 71),
    // fragments of a WebSocket message; two messages of two calls in one segment
    ("odd-ws", "phone", 28),
    ("odd-ws", "text", 2),
    ("odd-tcp", "joined", 15),
    ("tunnel-gtpu", "alice", 71),
];

fn captures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip")
}

/// The packets of a nanosecond capture file: record header without time, then bytes; with their time.
fn packets(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let u32_at = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    assert_eq!(u32_at(0), 0xa1b2_3c4d, "nanoseconds, little endian");
    let (mut at, mut found) = (24, Vec::new());
    while at < bytes.len() {
        let end = at + 16 + usize::try_from(u32_at(at + 8)).unwrap();
        found.push((u32_at(at) * 1_000_000_000 + u32_at(at + 4), bytes[at + 8..end].to_vec()));
        at = end;
    }
    found
}

/// What `-w` keeps of a capture when `user` is targeted.
fn kept(capture: &Path, user: &str) -> Vec<(u64, Vec<u8>)> {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("kept.pcap");
    let output = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["sniff", "voip", "--output-format", "json", "--sip-user", user, "-r"])
        .arg(capture)
        .arg("-w")
        .arg(&file)
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).map(|bytes| packets(&bytes)).unwrap_or_default()
}

#[test]
fn a_targets_calls_are_kept_whole_and_unchanged_and_nothing_else_is() {
    let mut wrong = Vec::new();
    for (name, user, count) in CASES {
        let capture = captures().join(name).with_extension("pcap");
        let all = packets(&fs::read(&capture).unwrap());

        let kept = kept(&capture, user);

        if kept.len() != count {
            wrong.push(format!("{name}, {user}: {} packets of {count}", kept.len()));
        }
        // each once, with its own time and bytes (in the order of their release, which is that of their call)
        let mut left = all.clone();
        for packet in &kept {
            match left.iter().position(|p| p == packet) {
                Some(at) => drop(left.remove(at)),
                None => wrong.push(format!("{name}, {user}: a packet at {} that is none of the capture's, or twice", packet.0)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_filter_file_with_every_filter_off_selects_nothing() {
    let home = tempfile::tempdir().unwrap();
    let filters = home.path().join("filters.yaml");
    fs::write(&filters, "filters:\n  - {id: a, type: sip_user, pattern: alice, enabled: false}\n").unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["sniff", "voip", "--output-format", "json", "-r"])
        .arg(captures().join("plain.pcap"))
        .arg("--filter-file")
        .arg(&filters)
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();

    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), ""));
}

#[test]
fn a_capture_of_a_link_type_nobody_knows_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("odd.pcap");
    let mut bytes = fs::read(captures().join("plain.pcap")).unwrap();
    bytes[20] = 147;
    fs::write(&file, bytes).unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["sniff", "voip", "-r"])
        .arg(&file)
        .env("HOME", home.path())
        .output()
        .unwrap();

    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.contains("link type"), "{log}");
}
