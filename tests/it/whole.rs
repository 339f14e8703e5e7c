//! The real binary end to end: certificates, processor, hunter, files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use lippycat::capture::{FileSource, Progress, Source};
use parking_lot::Mutex;

use super::numbered::Dice;
use super::sick_disk::{SickDisk, is_possible};
use super::started::Started;

/// The binary under test.
pub(crate) const LC: &str = env!("CARGO_BIN_EXE_lc");

/// A processor that is stopped when the test ends.
pub(crate) struct Processor {
    child: Started,
    pub(crate) port: u16,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Processor {
    /// Starts one in `dir`; returns once it listens.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_at(dir, 0, arguments)
    }

    /// Starts one on a port an earlier one had.
    pub(crate) fn start_at(dir: &Path, port: u16, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(LC), dir, port, arguments)
    }

    /// Starts one by `command`, which runs `lc`.
    pub(crate) fn spawn(command: Command, dir: &Path, port: u16, arguments: &[&str]) -> Self {
        Self::spawn_on(command, dir, "127.0.0.1", port, arguments)
    }

    /// The same, on another address.
    pub(crate) fn spawn_on(mut command: Command, dir: &Path, host: &str, port: u16, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["process", "--listen", &format!("{host}:{port}"), "--log-format", "json"])
            .args(arguments)
            .current_dir(dir)
            .env("HOME", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let say = |log: &Mutex<String>, line: &str| {
            let mut log = log.lock();
            log.push_str(line);
            log.push('\n');
        };
        let port = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the processor ended: {}", log.lock())).unwrap();
            say(&log, &line);
            if let Some(rest) = line.split(&format!("\"listening\",\"address\":\"{host}:")).nth(1) {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
        };
        let shared = Arc::clone(&log);
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| say(&shared, &l)));
        Self { child: Started(child), port, log, reader: Some(reader) }
    }

    /// Whether this stands in its log so far.
    pub(crate) fn has_said(&self, what: &str) -> bool {
        self.log.lock().contains(what)
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit must be clean. Returns the log.
    pub(crate) fn stop(self) -> String {
        let (code, log) = self.end();
        assert!(code == Some(0), "processor: {code:?}\n{log}");
        log
    }

    /// SIGTERM. Returns the exit code and the log.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log.lock().clone();
        (status.code(), log)
    }
}

pub(crate) fn lc(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(LC).args(arguments).current_dir(dir).env("HOME", dir).output().unwrap()
}

pub(crate) fn succeed(dir: &Path, arguments: &[&str]) -> String {
    let out = lc(dir, arguments);
    assert!(out.status.success(), "lc {arguments:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The equation, on both sides: what the hunter has acknowledged is what the processor has stored.
fn assert_equation(hunter: &str, processor: &str, packets: u64) {
    assert!(hunter.contains("\"unaccounted\":0") && hunter.contains("\"difference\":\"k1=0 k2=0 k3=0\""), "{hunter}");
    assert!(hunter.contains(&format!("\"acknowledged\":{packets}")), "{hunter}");
    assert!(processor.contains(&format!("\"written\":{packets}")), "{processor}");
    assert!(processor.contains("\"difference\":\"p1=0 p2=0\""), "{processor}");
}

pub(crate) fn calls_capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip/calls.pcap")
}

/// Time, length on the wire and bytes.
type StoredFrame = (i64, u32, Vec<u8>);

/// Every frame of a file.
pub(crate) fn frames(path: &Path) -> Vec<StoredFrame> {
    let mut source = FileSource::open(&[path]).unwrap();
    let mut all = Vec::new();
    while source.poll(&mut |f| all.push((f.ts.as_nanos(), f.wire_len, f.data.to_vec()))).unwrap() != Progress::End {}
    all
}

pub(crate) fn records(dir: &Path) -> BTreeMap<String, serde_json::Value> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            all.insert(record["call_id"].as_str().unwrap().to_owned(), record);
        }
    }
    all
}

fn contains(frame: &[u8], what: &str) -> bool {
    frame.windows(what.len()).any(|w| w == what.as_bytes())
}

#[test]
fn a_targets_calls_arrive_complete_over_mutual_tls_and_nothing_else_does() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    succeed(dir, &["certs", "init", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "processor", "mid", "--dns", "localhost", "--ip", "127.0.0.1", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "hunter", "edge-1", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "subscriber", "desk", "--dir", "c"]);
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t, type: sip_user, pattern: alice}\n").unwrap();
    let processor = Processor::start(
        dir,
        &[
            "--tls-cert",
            "c/processor-mid.crt",
            "--tls-key",
            "c/processor-mid.key",
            "--tls-ca",
            "c/ca.crt",
            "--tls-client-auth",
            "--filter-file",
            "f.yaml",
            "-w",
            "all.pcap",
            "--per-call-pcap",
            "--per-call-pcap-dir",
            "calls",
            "--state-dir",
            "state",
        ],
    );
    let address = format!("localhost:{}", processor.port);
    let capture = calls_capture();
    let tls = ["--tls-cert", "c/hunter-edge-1.crt", "--tls-key", "c/hunter-edge-1.key", "--tls-ca", "c/ca.crt"];
    let hunt = ["hunt", "voip", "-P", &address, "--id", "edge-1", "-r", capture.to_str().unwrap()];

    let said = succeed(dir, &[&hunt[..], &tls[..]].concat());
    let desk = ["--tls-cert", "c/subscriber-desk.crt", "--tls-key", "c/subscriber-desk.key", "--tls-ca", "c/ca.crt"];
    let listed = lc(dir, &[&["list", "hunters", "-P", &address, "--output-format", "json"], &desk[..]].concat());
    let stranger = lc(
        dir,
        &[
            "hunt",
            "voip",
            "-P",
            &address,
            "--id",
            "edge-1",
            "-r",
            capture.to_str().unwrap(),
            "--tls-ca",
            "c/ca.crt",
            "--connect-timeout",
            "1s",
        ],
    );
    let impostor = lc(
        dir,
        &[
            &["hunt", "voip", "-P", &address, "--id", "other", "-r", capture.to_str().unwrap(), "--connect-timeout", "1s"],
            &tls[..],
        ]
        .concat(),
    );
    let log = processor.stop();

    assert_equation(&said, &log, 424);
    assert!(
        String::from_utf8_lossy(&listed.stdout).contains("\"hunter_id\":\"edge-1\""),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    assert_eq!(stranger.status.code(), Some(3), "no certificate: {}", String::from_utf8_lossy(&stranger.stderr));
    assert_eq!(impostor.status.code(), Some(3), "another's certificate: {}", String::from_utf8_lossy(&impostor.stderr));
    let got = records(&dir.join("calls"));
    assert_eq!(got.len(), 4, "{:?}\n{log}", got.keys());
    let mut of_calls = Vec::new();
    for record in got.values() {
        assert_eq!((&record["state"], &record["closed"]), (&"ended".into(), &true.into()), "{record}");
        assert_eq!(record["complete"], true, "{record}");
        assert_eq!((&record["packets"]["sip"], &record["packets"]["rtp"]), (&6.into(), &100.into()));
        for file in record["files"].as_array().unwrap() {
            let path = dir.join("calls").join(file["name"].as_str().unwrap());
            let packets = frames(&path);
            assert_eq!(file["packets"], packets.len());
            assert_eq!(file["sha256"].as_str().unwrap(), sha256(&path));
            of_calls.extend(packets);
        }
    }
    // the unified file is the original, without what nobody asked for: same order, same times, same bytes
    let unified = frames(&dir.join("all.pcap"));
    let mut rest = unified.iter();
    let original = frames(&capture);
    let mut next = rest.next();
    for frame in &original {
        if next == Some(frame) {
            next = rest.next();
        } else {
            assert!(!contains(&frame.2, "alice"), "a message of the target is missing");
        }
    }
    assert_eq!((next, unified.len()), (None, 424), "the unified file holds what was not captured, or in another order");
    of_calls.sort();
    let mut sorted = unified;
    sorted.sort();
    assert_eq!(of_calls, sorted, "per-call files and the unified file hold the same packets, each once");
}

#[test]
fn generic_mode_forwards_everything_when_told_to() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = Processor::start(dir, &["--insecure", "-w", "all.pcapng", "--state-dir", "state"]);
    let address = format!("127.0.0.1:{}", processor.port);
    let capture = calls_capture();

    succeed(
        dir,
        &[
            "hunt",
            "-P",
            &address,
            "--insecure",
            "--no-filter-policy",
            "allow",
            "--keep-duplicates",
            "-r",
            capture.to_str().unwrap(),
        ],
    );
    let log = processor.stop();

    assert!(!log.contains("\"ERROR\""), "nothing is wrong, not even without a filter file: {log}");
    assert_eq!(frames(&dir.join("all.pcapng")), frames(&capture));
}

#[test]
fn filters_pushed_while_a_hunter_is_away_are_there_when_it_comes_and_bad_files_change_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: a, type: sip_user, pattern: alice}\n").unwrap();
    let processor = Processor::start(
        dir,
        &["--insecure", "--filter-file", "f.yaml", "--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "s"],
    );
    let address = format!("127.0.0.1:{}", processor.port);
    let hunt = ["hunt", "voip", "-P", &address, "--insecure", "--id", "h", "-r"];
    let capture = calls_capture();

    fs::write(
        dir.join("f.yaml"),
        "filters:\n  - {id: c, type: sip_user, pattern: carol}\n  - {id: n, type: sip_user, pattern: nobody}\n",
    )
    .unwrap();
    wait_for(|| status_filters(dir, &address) == Some(2));
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: c, type: sip_usr, pattern: carol}\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    succeed(dir, &[&hunt[..], &[capture.to_str().unwrap()]].concat());
    let log = processor.stop();

    let got = records(&dir.join("calls"));
    assert!(log.contains("f.yaml:2:"), "the mistake is named with its line: {log}");
    assert!(got.values().all(|r| r["filter_ids"] == serde_json::json!(["c"])), "{got:?}");
    assert_eq!(got.len(), 4, "carol's calls");
}

/// How a processor ends in the middle of calls.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Stopped,
    Killed,
    /// With what its disk did not confirm.
    Powerless,
}

/// Records with the sums of their files, and the unified file, of calls in the middle of which the processor ends so, each time.
fn calls_with(dir: &Path, ends: &[End]) -> (BTreeMap<String, serde_json::Value>, Vec<StoredFrame>) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t, type: sip_user, pattern: alice}\n").unwrap();
    let disk = ends.contains(&End::Powerless).then(|| SickDisk::mount(Command::new("env"), &dir.join("disk")));
    let (inside, root) = disk.as_ref().map_or((".", dir.to_owned()), |d| ("disk", d.disk.outside()));
    let [unified, calls, state] = ["all.pcap", "calls", "state"].map(|name| format!("{inside}/{name}"));
    let arguments = ["--insecure", "--filter-file", "f.yaml", "-w", &unified, "--per-call-pcap"];
    let arguments = [&arguments[..], &["--per-call-pcap-dir", &calls, "--state-dir", &state]].concat();
    let start = |port| {
        let command = disk.as_ref().map_or_else(|| Command::new(LC), |d| d.disk.enter(dir));
        Processor::spawn(command, dir, port, &arguments)
    };
    let mut processor = start(0);
    let port = processor.port;
    let address = format!("127.0.0.1:{port}");
    let hunt = ["hunt", "voip", "-P", &address, "--insecure", "--id", "h", "--batch-size", "10", "-r", "-"];
    let mut hunter = Command::new(LC);
    hunter.args(hunt).current_dir(dir).env("HOME", dir);
    let mut hunter = hunter.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = hunter.stdin.take().unwrap();
    let capture = fs::read(calls_capture()).unwrap();
    let cut_at = |n: usize| capture.len() * n / (ends.len() + 1);
    let piece = |n: usize| &capture[cut_at(n)..cut_at(n + 1)];
    input.write_all(piece(0)).unwrap();
    for (n, end) in (1..).zip(ends) {
        let media = |r: &serde_json::Value| r["packets"]["rtp"].as_u64().unwrap() > 10;
        // a record of a call at work is written once a minute: what a killed one had is seen in its files
        wait_for(|| files_of_calls(&root) >= 2);
        if *end == End::Stopped {
            processor.stop();
            let left = records(&root.join("calls"));
            assert!(left.values().filter(|r| media(r) && r["closed"] == false).count() >= 2, "the middle of calls: {left:?}");
        } else {
            processor.kill();
            if let Some(disk) = &disk {
                disk.lose_power(&mut Dice(n as u64));
            }
        }
        processor = start(port);
        input.write_all(piece(n)).unwrap();
    }
    drop(input);
    let said = hunter.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("unaccounted=0") || said.contains("\"unaccounted\":0"), "{said}");
    wait_for(|| records(&root.join("calls")).values().filter(|r| r["closed"] == true).count() == 4);
    processor.stop();
    let calls = records(&root.join("calls"));
    for record in calls.values() {
        assert_eq!(record["complete"], true, "{record}");
        for file in record["files"].as_array().unwrap() {
            assert_eq!(file["sha256"].as_str().unwrap(), sha256(&root.join("calls").join(file["name"].as_str().unwrap())));
        }
    }
    (calls, frames(&root.join("all.pcap")))
}

#[test]
fn a_restart_in_the_middle_of_calls_changes_nothing_of_what_is_left_nor_does_a_kill() {
    let tmp = tempfile::tempdir().unwrap();
    let (whole, unified) = calls_with(&tmp.path().join("whole"), &[]);
    assert_eq!(whole.len(), 4);
    for (name, ends) in [("stopped", &[End::Stopped][..]), ("killed", &[End::Killed; 3])] {
        let (cut, cut_unified) = calls_with(&tmp.path().join(name), ends);

        assert_eq!(cut, whole, "{name}: records, with the sums of their files");
        assert_eq!(cut_unified, unified, "{name}");
    }
}

#[test]
fn a_loss_of_power_in_the_middle_of_calls_changes_nothing_of_what_is_left() {
    if !is_possible("a loss of power in the middle of calls") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let whole = calls_with(&tmp.path().join("whole"), &[]);

    let cut = calls_with(&tmp.path().join("powerless"), &[End::Powerless; 5]);

    assert_eq!(cut.0, whole.0, "records, with the sums of their files");
    assert_eq!(cut.1, whole.1);
}

/// Files of calls that hold more than their header.
fn files_of_calls(dir: &Path) -> usize {
    let Ok(all) = fs::read_dir(dir.join("calls")) else { return 0 };
    let all = all.map(|e| e.unwrap());
    all.filter(|e| e.file_name().to_str().unwrap().contains("_rtp.") && e.metadata().unwrap().len() > 3000).count()
}

fn status_filters(dir: &Path, address: &str) -> Option<u64> {
    let out = lc(dir, &["show", "status", "-P", address, "--insecure", "--output-format", "json", "-q"]);
    serde_json::from_slice::<serde_json::Value>(&out.stdout).ok()?["total_filters"].as_u64()
}

/// Waits up to a minute for something that takes as long as it takes.
pub(crate) fn wait_for(mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("it did not come about within a minute");
}

fn sha256(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
