//! The commands that look into a processor's queue for the one above it, and send what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::numbered::number;
use super::numbered_file::{header, record};
use super::started::Started;
use super::upstream::{CENTRE, free_port, passed_on, west};
use super::whole::{LC, Processor, frames, lc, succeed, wait_for};

/// A file of numbered packets.
fn numbered(dir: &Path, name: &str, numbers: std::ops::Range<u64>) {
    let mut file = header();
    file.extend(numbers.flat_map(record));
    fs::write(dir.join(name), file).unwrap();
}

/// Packets in the queues that `lc spool ls` lists.
fn listed(dir: &Path, more: &[&str]) -> u64 {
    let out = lc(dir, &[&["spool", "ls", "--output-format", "json", "-q"], more].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    all.as_array().unwrap().iter().map(|s| s["packets"].as_u64().unwrap()).sum()
}

/// The numbers of a capture, each of which is there once.
fn assert_distinct(path: &Path, packets: u64) -> BTreeSet<u64> {
    let all = frames(path);
    let numbers: BTreeSet<u64> = all.iter().map(|(_, _, data)| number(data)).collect();
    assert_eq!((numbers.len(), all.len() as u64), (all.len(), packets), "{}", path.display());
    numbers
}

/// Reads `first.in` until its processor is gone for good; what was not acknowledged is in `hunters`.
fn left_by_a_hunter(dir: &Path, hunt: &[&str]) {
    let gone = Processor::start(dir, &["--insecure", "--state-dir", "gone"]);
    let address = format!("127.0.0.1:{}", gone.port);
    let more = ["first.in", "--speed", "1x", "--durability", "wal", "--disk-buffer-dir", "hunters", "--connect-timeout", "1s"];
    let mut hunter = Command::new(LC)
        .args([hunt, &more, &["-P", &address]].concat())
        .current_dir(dir)
        .env("HOME", dir)
        .stderr(Stdio::null())
        .spawn()
        .map(Started)
        .unwrap();
    wait_for(|| gone.has_said("hunter registered"));
    gone.kill();
    assert_eq!(hunter.wait().unwrap().code(), Some(3));
}

fn copy(dir: &Path, from: &str, to: &str) {
    assert!(Command::new("cp").args(["-r", from, to]).current_dir(dir).status().unwrap().success());
}

#[test]
fn a_stopped_processors_queue_is_looked_into_and_sent_up_with_its_hunters_own_keys() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    // a hunter's queue, and the same once more
    numbered(dir, "first.in", 0..10_000);
    numbered(dir, "second.in", 10_000..11_000);
    let hunt = ["hunt", "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates", "-r"];
    left_by_a_hunter(dir, &hunt);
    let of_hunter = ["--id", "edge", "--disk-buffer-dir"];
    copy(dir, "hunters", "again");
    let above = free_port();
    let edge = west(dir, 0, above, &[]);
    let drain = |more: &[&str]| succeed(dir, &[&["spool", "drain", "--insecure", "--log-format", "json"], more].concat());
    drain(&[&of_hunter[..], &["hunters", "-P", &format!("127.0.0.1:{}", edge.port)]].concat());
    let first = passed_on(&edge.stop())["on_disk"].as_u64().unwrap();
    assert!(first > 0);
    let of_west = ["--role", "processor", "--id", "west", "--state-dir", "west"];
    assert_eq!(listed(dir, &of_west), first);
    copy(dir, "west/upstream", "part");
    let edge = west(dir, 0, above, &[]);
    succeed(dir, &[&hunt[..], &["second.in", "-P", &format!("127.0.0.1:{}", edge.port)]].concat());
    let all = first + 1000;
    assert_eq!(passed_on(&edge.stop())["on_disk"], all);

    assert_eq!(lc(dir, &[&["spool", "verify"], &of_west[..]].concat()).status.code(), Some(0));
    succeed(dir, &[&["spool", "cat", "--pcap", "waiting.pcap"], &of_west[..]].concat());
    let centre = Processor::start_at(dir, above, &CENTRE);
    let far = format!("127.0.0.1:{above}");
    drain(&["--role", "processor", "--id", "west", "-P", &far, "--disk-buffer-dir", "part"]);
    let log = drain(&[&of_west[..], &["-P", &far]].concat());
    assert!(log.contains(&format!("\"sent\":{all},")) && log.contains("\"left\":0"), "{log}");
    assert_eq!(listed(dir, &of_west), 0);
    // what the hunter itself sends by another way is known by its own epoch and number
    drain(&[&of_hunter[..], &["again", "-P", &far]].concat());

    let log = centre.stop();
    let counts = format!("\"received\":{},\"unique\":{all},\"duplicate\":{},", all + 2 * first, 2 * first);
    assert!(log.contains(&counts) && log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    let there = assert_distinct(&dir.join("centre.pcap"), all);
    assert_eq!(assert_distinct(&dir.join("waiting.pcap"), all), there);
}

#[test]
fn a_damaged_segment_of_a_queue_is_counted_when_it_is_sent_and_listed_in_quarantine() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    numbered(dir, "first.in", 0..1500);
    let above = free_port();
    let edge = west(dir, 0, above, &[]);
    let near = format!("127.0.0.1:{}", edge.port);
    let hunt = ["hunt", "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates", "-r", "first.in", "-P"];
    succeed(dir, &[&hunt[..], &[&near]].concat());
    edge.stop();
    let queue = dir.join("west/upstream/processor%3Awest");
    let segment = fs::read_dir(&queue).unwrap().map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "seg"));
    let segment = segment.unwrap();
    // one that is cut is told
    copy(dir, "west/upstream", "cut");
    let cut = dir.join("cut/processor%3Awest").join(segment.file_name().unwrap());
    let len = fs::metadata(&cut).unwrap().len();
    fs::OpenOptions::new().write(true).open(cut).unwrap().set_len(len - 300).unwrap();
    let said = succeed(dir, &["spool", "verify", "--role", "processor", "--disk-buffer-dir", "cut"]);
    assert!(said.contains("ends in the middle of a batch"), "{said}");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[64 + 28 + 100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let of_processor = ["--role", "processor", "--state-dir", "west", "--id", "west"];
    let quarantined = || {
        let out = lc(dir, &[&["spool", "quarantine", "--output-format", "json"], &of_processor[..]].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };

    assert_eq!(quarantined(), serde_json::json!([]));
    assert_eq!(lc(dir, &[&["spool", "verify"], &of_processor[..]].concat()).status.code(), Some(5));
    let centre = Processor::start_at(dir, above, &CENTRE);
    let up = ["spool", "drain", "--role", "processor", "--insecure", "-P", &format!("127.0.0.1:{above}"), "--state-dir", "west"];
    let drained = lc(dir, &[&up[..], &["--id", "west"]].concat());
    centre.stop();

    let lost = 1500 - frames(&dir.join("centre.pcap")).len() as u64;
    assert!(lost > 0 && lost < 1500, "{lost}");
    assert_eq!(drained.status.code(), Some(5), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(quarantined()[0]["damaged_packets"], lost);
}
