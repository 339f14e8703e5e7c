//! Captures of others, with answers of others, outside this repository: `../shared/corpora`, or where `LC_CORPORA` says. Absent, nothing is tested,
//! and the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lippycat::capture::{FileSource, Libpcap};
use lippycat::engine::{EngineConfig, Mode};
use lippycat::filter::FilterSet;
use lippycat::packet::Timestamp;
use lippycat::packet::headers::DecodeOptions;
use lippycat::record::dir::MinFree;
use lippycat::sniffer::{self, Format, Outcome, SnifferConfig};
use lippycat::voip::table::{NoFilterPolicy, TableConfig};
use serde_json::Value;

use crate::not_run;

/// Where the corpora are, if they are.
fn corpora() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let path = std::env::var_os("LC_CORPORA").map_or(here, PathBuf::from);
    if path.join("pcap").is_dir() {
        return Some(path);
    }
    not_run::say("captures of others", "set LC_CORPORA");
    None
}

fn captures(corpora: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["pcap/ndpi", "pcap/arkime", "pcap/ja4", "tls"]
        .iter()
        .filter_map(|d| fs::read_dir(corpora.join(d)).ok())
        .flatten()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e != "keys" && e != "dat"))
        .collect();
    found.sort();
    found
}

/// The inspection of `lc sniff voip` in this process: its events, and what became of every frame.
fn sniff(capture: &Path) -> (String, Outcome) {
    let table = TableConfig { no_filter: NoFilterPolicy::Allow, quality: true, ..TableConfig::default() };
    let config = SnifferConfig {
        engine: EngineConfig {
            mode: Mode::Voip,
            table,
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 1 << 16,
            bounds: lippycat::engine::Bounds::default(),
        },
        filters: Arc::new(FilterSet::default()),
        bpf: Arc::new(Libpcap),
        format: Format::Json,
        write: None,
        min_free: MinFree::NONE,
        readers: lippycat::record::readers::Readers::NONE,
        count: None,
        renewed: Arc::default(),
        is_short: || false,
    };
    let mut events = Vec::new();
    let mut source = FileSource::open(&[capture]).unwrap_or_else(|e| panic!("{}: {e}", capture.display()));
    let outcome = sniffer::run(config, &mut source, &|| Timestamp::MIN, &mut events, &AtomicBool::new(false));
    (String::from_utf8(events).unwrap(), outcome.unwrap_or_else(|e| panic!("{}: {e}", capture.display())))
}

#[test]
fn every_capture_ever_made_is_read_to_its_end() {
    let Some(corpora) = corpora() else { return };
    let home = tempfile::tempdir().unwrap();

    for capture in captures(&corpora) {
        let output = Command::new(env!("CARGO_BIN_EXE_lc"))
            .args(["sniff", "voip", "--output-format", "json", "-r"])
            .arg(&capture)
            .env_clear()
            .env("HOME", home.path())
            .output()
            .unwrap();

        assert_eq!(output.status.code(), Some(0), "{}: {}", capture.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_frame_of_every_capture_is_accounted_for() {
    let Some(corpora) = corpora() else { return };

    for capture in captures(&corpora) {
        let (_, outcome) = sniff(&capture);

        assert_eq!(outcome.counters.imbalance(), 0, "{}: {:?}", capture.display(), outcome.counters);
        assert_eq!(outcome.counters.held, 0, "{}", capture.display());
    }
}

/// A message: frame, method or status, `CSeq` method, Call-ID, users.
type Message = (u64, String, String, String, String, String);

#[test]
fn sip_messages_are_those_that_tshark_reads() {
    let Some(corpora) = corpora() else { return };
    let mut expected: BTreeMap<String, BTreeSet<Message>> = BTreeMap::new();
    for line in fs::read_to_string(corpora.join("expected/sip_messages.tsv")).unwrap().lines().skip(1) {
        let c: Vec<&str> = line.split('\t').collect();
        let what = if c[7].is_empty() { c[8] } else { c[7] };
        let message = (c[1].parse().unwrap(), what.into(), c[9].into(), c[10].into(), c[11].into(), c[12].into());
        expected.entry(c[0].into()).or_default().insert(message);
    }
    assert!(!expected.is_empty());

    for (capture, want) in expected {
        let (events, _) = sniff(&corpora.join("pcap").join(&capture));
        let events = events.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        let got: BTreeSet<Message> = events.filter(|e| e["event_type"] == "sip").map(|e| message(&e)).collect();

        assert_eq!(want.difference(&got).next(), None, "{capture}: missed");
        assert_eq!(got.difference(&want).next(), None, "{capture}: invented");
    }
}

fn message(event: &Value) -> Message {
    let sip = &event["sip"];
    let text = |key: &str| sip[key].as_str().unwrap_or_default().to_owned();
    let what = sip["status"].as_u64().map_or_else(|| text("method"), |s| s.to_string());
    (event["frame"].as_u64().unwrap(), what, text("cseq_method"), text("call_id"), text("from_user"), text("to_user"))
}
