//! At INFO nobody who is captured is ever named: no user, number, domain, Call-ID, address or payload of the captures stands in a log.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::whole::{LC, Processor, lc, wait_for};

pub(crate) fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip");
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "pcap" || e == "pcapng")).collect();
    found.sort();
    found
}

/// What the golden events say of people and their machines, and lines of the messages themselves.
pub(crate) fn secrets(captures: &[PathBuf]) -> BTreeSet<String> {
    const KEYS: [&str; 12] =
        ["call_id", "from_user", "to_user", "from_host", "to_host", "user", "host", "src_ip", "dest_ip", "src", "dst", "number"];
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(text) = value.as_str().filter(|_| KEYS.contains(&key.as_str())) {
                        found.insert(text.to_owned());
                    }
                    walk(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|v| walk(v, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found: BTreeSet<String> = ["sip:", "SIP/2.0", "rtpmap", "branch=", "telephone-event"].map(str::to_owned).into();
    for capture in captures {
        for line in fs::read_to_string(capture.with_extension("events.jsonl")).unwrap().lines() {
            walk(&serde_json::from_str(line).unwrap(), &mut found);
        }
    }
    found
}

/// The words of a log: what stands between characters that no name has. Times are no words: a short number may stand in any of them.
fn words(log: &str) -> BTreeSet<&str> {
    let words = log.split(|c: char| c.is_whitespace() || "\"{}[](),='<>;".contains(c));
    words.filter(|w| !(w.starts_with("20") && w.ends_with('Z'))).collect()
}

/// Names that stand in `log`; those that `usual`, a log of nobody's calls, has too are words of ours.
fn named<'s>(log: &str, usual: &str, secrets: &'s BTreeSet<String>) -> Vec<&'s String> {
    let (log_words, usual_words) = (words(log), words(usual));
    let in_log = |s: &str| if s.len() > 6 { log.contains(s) } else { log_words.contains(s) };
    let ours = |s: &str| if s.len() > 6 { usual.contains(s) } else { usual_words.contains(s) };
    secrets.iter().filter(|s| !s.is_empty() && in_log(s) && !ours(s)).collect()
}

#[test]
fn a_name_in_a_log_is_found() {
    let secrets = secrets(&captures());
    for secret in secrets.iter().filter(|s| !s.is_empty()) {
        let log = format!("{{\"level\":\"INFO\",\"message\":\"call\",\"of\":\"{secret}\"}} at={secret} now");

        assert!(named(&log, "", &secrets).contains(&secret), "{secret}");
    }
}

#[test]
fn sniffing_names_nobody() {
    let home = tempfile::tempdir().unwrap();
    let sniff = |capture: &Path| {
        let file = capture.to_str().unwrap();
        let out =
            lc(home.path(), &["sniff", "voip", "--output-format", "json", "--sip-user", "alice", "-w", "k.pcapng", "-r", file]);
        assert!(out.status.success(), "{file}");
        let _none = fs::remove_file(home.path().join("k.pcapng"));
        String::from_utf8(out.stderr).unwrap()
    };
    let captures = captures();
    let usual = sniff(captures.iter().find(|c| c.ends_with("rtp-only.pcap")).unwrap());
    assert!(usual.contains("\"captured\":60"), "{usual}");

    for capture in &captures {
        let log = sniff(capture);

        let secrets = secrets(std::slice::from_ref(capture));
        let named = named(&log, &usual, &secrets);
        assert!(named.is_empty(), "{} names {named:?}: {log}", capture.display());
    }
}

#[test]
fn hunting_and_processing_name_nobody() {
    let tmp = tempfile::tempdir().unwrap();
    let captures = captures();
    let secrets = secrets(&captures);
    assert!(secrets.len() > 200, "{}", secrets.len());
    let silence: Vec<PathBuf> = captures.iter().filter(|c| c.ends_with("rtp-only.pcap")).cloned().collect();

    let (_, usual) = hunt(&tmp.path().join("silence"), &silence);
    let (calls, log) = hunt(&tmp.path().join("calls"), &captures);

    assert!(calls > 50, "{calls} calls");
    let named = named(&log, &usual, &secrets);
    assert!(named.is_empty(), "{named:?}: {log}");
}

#[test]
fn call_files_that_cannot_be_written_are_not_named() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let captures: Vec<PathBuf> = captures().into_iter().filter(|c| c.ends_with("calls.pcap")).collect();
    let secrets = secrets(&captures);
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t1, type: sip_user, pattern: alice}\n").unwrap();
    let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "state"];
    let processor = Processor::start(dir, &[&["--insecure", "--filter-file", "f.yaml"], &files[..]].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    // the folder is taken away from under it
    fs::remove_dir(dir.join("calls")).unwrap();

    let mut hunt = Command::new(LC);
    hunt.args(["hunt", "voip", "-P", &address, "--insecure", "--id", "edge", "-r"]).args(&captures);
    let mut hunter = hunt.current_dir(dir).env("HOME", dir).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| processor.has_said("hunters are paused"));
    hunter.kill().unwrap();
    hunter.wait().unwrap();
    let log = processor.stop();

    assert!(log.contains("calls/(a call)"), "{log}");
    let named = named(&log, "", &secrets);
    let ours = ["127.0.0.1", "t1"];
    assert!(named.iter().all(|n| ours.contains(&n.as_str())), "{named:?}: {log}");
    assert!(!log.contains("27388"), "{log}");
}

/// A hunter on these captures and a processor whose filters, which are changed once and then broken, want most of what there is. Gives the number
/// of calls filed, and both logs.
fn hunt(dir: &Path, captures: &[PathBuf]) -> (usize, String) {
    fs::create_dir_all(dir).unwrap();
    let filters = dir.join("f.yaml");
    fs::write(&filters, "filters:\n  - {id: t1, type: sip_user, pattern: alice}\n").unwrap();
    let processor = Processor::start(
        dir,
        &[
            "--insecure",
            "--stats",
            "--filter-file",
            "f.yaml",
            "--state-dir",
            "state",
            "-w",
            "all.pcapng",
            "--per-call-pcap",
            "--per-call-pcap-dir",
            "calls",
        ],
    );
    let wanted = "filters:\n  - {id: t1, type: sip_uri, pattern: '*@example.org'}\n  - {id: t2, type: sip_user, pattern: bob}\n";
    fs::write(&filters, wanted).unwrap();
    let address = format!("127.0.0.1:{}", processor.port);
    let changed = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let out = lc(dir, &["show", "status", "-P", &address, "--insecure", "--output-format", "json", "-q"]);
        String::from_utf8_lossy(&out.stdout).contains("\"total_filters\":2")
    });
    assert!(changed, "the filters were not reloaded");
    let mut arguments = vec!["hunt", "voip", "-P", &address, "--insecure", "--id", "edge", "-r"];
    arguments.extend(captures.iter().map(|c| c.to_str().unwrap()));
    let out = lc(dir, &arguments);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::write(&filters, "filters:\n  - {id: t1, type: sip_usr, pattern: carol}\n").unwrap();
    let killed = Command::new("kill").args(["-HUP", &processor.id().to_string()]).status().unwrap();
    assert!(killed.success());
    std::thread::sleep(std::time::Duration::from_millis(600));
    let log = processor.stop() + &String::from_utf8(out.stderr).unwrap();
    assert!(log.contains("filter file not used"), "{log}");
    let calls = fs::read_dir(dir.join("calls"))
        .map_or(0, |d| d.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "json")).count());
    (calls, log)
}
