//! Many more calls at once than a process may open files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::metrics::{get, port_of};
use super::whole::{LC, Processor, frames, records, succeed, wait_for};

/// Calls at once.
const CALLS: usize = 300;
/// Files the processor may open, sockets and all.
const FILES: usize = 64;

/// Time, length on the wire and bytes of a frame.
type Frame = (i64, u32, Vec<u8>);

/// Call `n`, made of the one in `captures/voip/plain.pcap`: another Call-ID and other ports, as long as they were.
fn call(n: usize, plain: &[Frame]) -> Vec<Frame> {
    let (from, to) = (2000 + 4 * n, 2002 + 4 * n);
    let text = [("1-24511", format!("{n:07}")), ("audio 6000", format!("audio {from}")), ("audio 6100", format!("audio {to}"))];
    let port = |p: u16| match p {
        6000 | 6001 => p - 6000 + u16::try_from(from).unwrap(),
        6100 | 6101 => p - 6100 + u16::try_from(to).unwrap(),
        p => p,
    };
    let change = |(ts, len, bytes): &Frame| {
        let mut bytes = bytes.clone();
        for (old, new) in &text {
            assert_eq!(old.len(), new.len());
            while let Some(at) = bytes.windows(old.len()).position(|w| w == old.as_bytes()) {
                bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
            }
        }
        for at in [34, 36] {
            let new = port(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
        }
        (ts + i64::try_from(n).unwrap(), *len, bytes)
    };
    plain.iter().map(change).collect()
}

fn write_capture(path: &Path, frames: &[&Frame]) {
    let mut out = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip/plain.pcap")).unwrap();
    out.truncate(24);
    for (ts, len, bytes) in frames {
        let captured = u32::try_from(bytes.len()).unwrap();
        let (secs, nanos) = (ts / 1_000_000_000, ts % 1_000_000_000);
        for field in [u32::try_from(secs).unwrap(), u32::try_from(nanos).unwrap(), captured, *len] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(bytes);
    }
    fs::write(path, out).unwrap();
}

#[test]
fn more_calls_at_once_than_files_may_be_open_are_filed_completely() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t, type: sip_user, pattern: alice}\n").unwrap();
    let plain = frames(&Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip/plain.pcap"));
    let calls: Vec<Vec<Frame>> = (0..CALLS).map(|n| call(n, &plain)).collect();
    // side by side: frame by frame of all calls
    let side_by_side: Vec<&Frame> = (0..plain.len()).flat_map(|k| calls.iter().map(move |c| &c[k])).collect();
    write_capture(&dir.join("many.pcap"), &side_by_side);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\""), LC]);
    let arguments = ["--insecure", "--filter-file", "f.yaml", "--per-call-pcap", "--per-call-pcap-dir", "calls"];
    let processor = Processor::spawn(limited, dir, 0, &[&arguments[..], &["--state-dir", "state"]].concat());
    let address = format!("127.0.0.1:{}", processor.port);

    succeed(dir, &["hunt", "voip", "-P", &address, "--insecure", "--id", "h", "-r", "many.pcap"]);
    wait_for(|| records(&dir.join("calls")).values().filter(|r| r["closed"] == true).count() == CALLS);
    let log = processor.stop();

    let written = format!("\"written\":{}", CALLS * plain.len());
    assert!(log.contains(&written) && log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
    assert_filed(dir, &calls);
}

/// Every packet of every call is in its files, and the record says that it ended.
fn assert_filed(dir: &Path, calls: &[Vec<Frame>]) {
    let got: BTreeMap<_, _> = records(&dir.join("calls"));
    for (n, call) in calls.iter().enumerate() {
        let record = &got[&format!("{n:07}@10.60.0.2")];
        let mut filed = Vec::new();
        for file in record["files"].as_array().unwrap() {
            filed.extend(frames(&dir.join("calls").join(file["name"].as_str().unwrap())));
        }
        filed.sort();
        let mut want = call.clone();
        want.sort();
        assert!(filed == want, "call {n}: {} of {} packets", filed.len(), want.len());
        assert_eq!((&record["state"], &record["complete"]), (&"ended".into(), &true.into()), "call {n}");
    }
}

/// One call after the other: an evicted call is not continued.
#[test]
fn a_processor_that_may_know_fewer_calls_than_come_closes_each_in_turn_and_files_all() {
    const MOST: usize = 100;
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t, type: sip_user, pattern: alice}\n").unwrap();
    let plain = frames(&Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip/plain.pcap"));
    let last = plain.last().unwrap().0 - plain[0].0;
    let after = |n: usize, (ts, len, bytes): Frame| (ts + i64::try_from(n).unwrap() * (last + 1), len, bytes);
    let calls: Vec<Vec<Frame>> = (0..CALLS).map(|n| call(n, &plain).into_iter().map(|f| after(n, f)).collect()).collect();
    write_capture(&dir.join("many.pcap"), &calls.iter().flatten().collect::<Vec<_>>());
    let most = MOST.to_string();
    let arguments =
        ["--insecure", "--filter-file", "f.yaml", "--per-call-pcap", "--per-call-pcap-dir", "calls", "--max-calls", &most];
    let processor =
        Processor::start(dir, &[&arguments[..], &["--state-dir", "state", "--metrics-listen", "127.0.0.1:0"]].concat());
    let address = format!("127.0.0.1:{}", processor.port);

    succeed(dir, &["hunt", "voip", "-P", &address, "--insecure", "--id", "h", "-r", "many.pcap"]);
    wait_for(|| records(&dir.join("calls")).values().filter(|r| r["closed"] == true).count() == CALLS);
    let pages = port_of(&processor);
    let evicted = || {
        let (_, text) = get(pages, "/metrics").unwrap();
        let of = text
            .lines()
            .filter(|l| ["ended", "full"].iter().any(|r| l.starts_with(&format!("lc_calls_evicted_total{{reason=\"{r}\"}}"))));
        of.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum::<usize>()
    };
    wait_for(|| evicted() == CALLS - MOST);
    processor.stop();

    assert_filed(dir, &calls);
}
