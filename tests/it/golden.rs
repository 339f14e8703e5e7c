//! Captures of real programs and what `lc sniff voip` says about them.
//!
//! A case is a capture, its golden events beside it (`NAME.events.jsonl`, rewritten with `LC_GOLDEN=write`), its rows in `expected.tsv` (from the
//! scenario, checked against tshark by `captures/make/expect.py`) and its line in `captures/README.md`.

mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Most bytes of one capture, and of all.
const ONE: u64 = 1 << 20;
const ALL: u64 = 10 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures")
}

/// Every capture, as a path under `captures/`.
fn captures() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|e| e == "pcap" || e == "pcapng") {
                found.push(entry);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no captures in {}", root().display());
    found.iter().map(|p| p.strip_prefix(root()).unwrap().to_owned()).collect()
}

/// What `lc sniff voip` prints about a capture, in a time zone.
fn events(capture: &Path, zone: &str) -> String {
    events_with(capture, zone, &[])
}

fn events_with(capture: &Path, zone: &str, options: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["sniff", "voip", "--output-format", "json", "-r"])
        .arg(capture)
        .args(options)
        .current_dir(root())
        .env_clear()
        .env("HOME", home.path())
        .env("TZ", zone)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}: {said}", capture.display());
    String::from_utf8(output.stdout).unwrap()
}

fn golden_path(capture: &Path) -> PathBuf {
    root().join(capture).with_extension("events.jsonl")
}

fn parsed(capture: &Path) -> Vec<Value> {
    events(capture, "UTC").lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The first line in which two texts differ, for a message.
fn difference(golden: &str, got: &str) -> String {
    let (mut a, mut b) = (golden.lines(), got.lines());
    for n in 1.. {
        match (a.next(), b.next()) {
            (None, None) => return "they differ in line ends".into(),
            (x, y) if x == y => {}
            (x, y) => return format!("line {n}\n  golden {}\n  got    {}", x.unwrap_or("nothing"), y.unwrap_or("nothing")),
        }
    }
    String::new()
}

#[test]
fn every_capture_gives_its_golden_events() {
    let write = std::env::var("LC_GOLDEN").is_ok_and(|v| v == "write");
    let mut wrong = Vec::new();
    for capture in captures() {
        let got = events(&capture, "UTC");
        let path = golden_path(&capture);
        if write {
            fs::write(&path, &got).unwrap();
        }
        match fs::read_to_string(&path) {
            Ok(golden) if golden == got => {}
            Ok(golden) => wrong.push(format!("{}: {}", capture.display(), difference(&golden, &got))),
            Err(_) => wrong.push(format!("{}: no golden events; make golden writes them", capture.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_golden_events_lie_about_without_their_capture() {
    let wanted: BTreeSet<PathBuf> = captures().iter().map(|c| golden_path(c)).collect();
    let directories: BTreeSet<&Path> = wanted.iter().filter_map(|p| p.parent()).collect();
    let there = directories.iter().flat_map(|d| fs::read_dir(d).unwrap()).map(|e| e.unwrap().path());
    let left: Vec<PathBuf> = there.filter(|p| p.extension().is_some_and(|e| e == "jsonl") && !wanted.contains(p)).collect();

    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn events_are_the_same_in_every_run_and_time_zone() {
    for capture in captures() {
        assert_eq!(events(&capture, "UTC"), events(&capture, "Asia/Kathmandu"), "{}", capture.display());
    }
}

#[test]
fn events_do_not_depend_on_what_carried_the_packets() {
    let carried = |name: &str, by: &str| name.starts_with(by);
    let mut checked = 0;
    for capture in captures() {
        let name = capture.file_name().unwrap().to_str().unwrap();
        let (original, options): (&str, &[&str]) = match name {
            "tunnel-6in4.pcap" => ("ipv6.pcap", &[]),
            "tunnel-esp.pcap" => ("plain.pcap", &["--esp-null"]),
            "format-us-be.pcap" => ("format-us-le.pcap", &[]),
            _ if carried(name, "tunnel-") || carried(name, "link-") || name == "format-ns-be.pcap" => ("plain.pcap", &[]),
            _ => continue,
        };

        let want = events(Path::new("voip").join(original).as_path(), "UTC");

        let got = events_with(&capture, "UTC", options).replace(name, original);
        assert!(got == want && !want.is_empty(), "{name}: {}", difference(&want, &got));
        checked += 1;
    }
    assert_eq!(checked, 21, "captures of carriers");
}

#[test]
fn events_come_in_the_order_of_their_frames_and_follow_the_schema() {
    let schema = schema::Schema::load();
    for capture in captures() {
        let mut frame = 0;
        for (n, event) in parsed(&capture).iter().enumerate() {
            let place = format!("{} line {}", capture.display(), n + 1);
            schema.check(event).unwrap_or_else(|why| panic!("{place}: {why}"));
            if let Some(next) = event.get("frame").and_then(Value::as_u64) {
                assert!(next >= frame, "{place}: frame {next} after {frame}");
                frame = next;
            }
        }
    }
}

/// What a call must show, or shows: parties, state, messages and media packets.
type Row = (String, String, String, u64, u64);

/// `expected.tsv`: per capture its calls, and the words their evidence must have.
fn expected() -> BTreeMap<PathBuf, Vec<(Row, String)>> {
    let mut rows: BTreeMap<PathBuf, Vec<(Row, String)>> = BTreeMap::new();
    for line in fs::read_to_string(root().join("voip/expected.tsv")).unwrap().lines().filter(|l| !l.starts_with('#')) {
        let c: Vec<&str> = line.split('\t').collect();
        let row = (c[1].into(), c[2].into(), c[3].into(), c[4].parse().unwrap(), c[5].parse().unwrap());
        rows.entry(Path::new("voip").join(c[0])).or_default().push((row, c[6].into()));
    }
    rows
}

fn shown(call: &Value) -> Row {
    let text = |key: &str| call[key].as_str().unwrap().to_owned();
    let count = |key: &str| call[key].as_u64().unwrap();
    (text("from_user"), text("to_user"), text("state"), count("messages"), count("media_packets"))
}

#[test]
fn calls_are_what_the_scenarios_made() {
    let expected = expected();
    let mut wrong = Vec::new();
    for capture in captures() {
        let name = capture.display();
        let all = parsed(&capture);
        let calls: Vec<&Value> = all.iter().filter_map(|e| e.get("call")).collect();
        let mut got: Vec<Row> = calls.iter().map(|c| shown(c)).collect();
        let rows = expected.get(&capture).cloned().unwrap_or_default();
        let mut want: Vec<Row> = rows.iter().map(|(row, _)| row.clone()).collect();
        got.sort();
        want.sort();
        if got != want {
            wrong.push(format!("{name}:\n  expected {want:?}\n  got      {got:?}"));
        }
        let told = all.iter().filter(|e| e.get("sip").is_some()).count() as u64;
        let messages: u64 = want.iter().map(|r| r.3).sum();
        if told != messages {
            wrong.push(format!("{name}: {messages} messages, {told} sip events"));
        }
        for word in rows.iter().map(|(_, word)| word).filter(|w| *w != "-") {
            let says = |key: &str| calls.iter().any(|c| c[key].to_string().contains(word.as_str()));
            if !says("claims") && !says("streams") {
                wrong.push(format!("{name}: no evidence says {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn media_packets_of_a_call_are_those_of_its_streams_and_its_reports() {
    // other media between claimed endpoints: UDPTL and STUN
    const OTHERS: [&str; 2] = ["voip/t38.pcap", "voip/baresip-ice.pcap"];
    for capture in captures().iter().filter(|c| OTHERS.iter().all(|o| Path::new(o) != c.as_path())) {
        for call in parsed(capture).iter().filter_map(|e| e.get("call")) {
            let streams = call["streams"].as_array().unwrap();
            let packets: u64 = streams.iter().map(|s| s["packets"].as_u64().unwrap()).sum();
            let reports = call["rtcp_packets"].as_u64().unwrap();

            assert_eq!(Some(packets + reports), call["media_packets"].as_u64(), "{}: {call}", capture.display());
        }
    }
}

#[test]
fn captures_are_small_and_each_has_its_line_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut all = 0;
    for capture in captures() {
        let size = fs::metadata(root().join(&capture)).unwrap().len();
        all += size;

        assert!(size <= ONE, "{}: {size} bytes", capture.display());
        assert!(readme.contains(&format!("`{}`", capture.display())), "captures/README.md does not name {}", capture.display());
    }
    assert!(all <= ALL, "{all} bytes");
}

#[test]
fn several_files_keep_their_own_names_and_frame_numbers() {
    // named out of their order in time
    let files = ["voip/tcp.pcap", "voip/calls.pcap", "voip/message.pcap"];
    let messages = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|l| l.contains("\"event_type\":\"sip\"")).map(str::to_owned).collect()
    };
    let golden: String = files.iter().map(|f| fs::read_to_string(golden_path(Path::new(f))).unwrap()).collect();

    let got = events_with(Path::new(files[0]), "UTC", &["-r", files[1], "-r", files[2]]);

    assert_eq!(messages(&got), messages(&golden));
}

#[test]
fn people_are_told_the_addresses_of_media_that_has_no_names() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["sniff", "voip", "-r", "voip/rtp-only.pcap"])
        .current_dir(root())
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    let call = said.lines().find(|l| l.contains("  call ")).unwrap_or_default();

    let want = "call RTP-ONLY (unfinished)  10.60.0.2:6030 > 10.60.0.3:6130  0 messages, 60 media packets  rtp-00000117";
    assert!(call.ends_with(want), "{said}");
}
