//! `-r -` behind a pipe that stays open: what came is handed over, and a signal is heard.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::started::Started;
use super::whole::{LC, Processor, calls_capture, frames, lc, wait_for};

/// `lc` with this much on its standard input, and nobody who closes it.
struct Waiting(Started);

impl Waiting {
    fn start(dir: &Path, arguments: &[&str], fed: &[u8]) -> Self {
        let mut command = Command::new(LC);
        command.args(arguments).current_dir(dir).env("HOME", dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(fed).unwrap();
        let waiting = Self(Started(child));
        wait_for(|| waiting.minds(15));
        waiting
    }

    /// Whether it has a handler for this signal.
    fn minds(&self, signal: u32) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() >> (signal - 1) & 1 == 1
    }

    /// Sends a signal; it must end, and well, while its input stays open.
    fn stop(self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.ends();
    }

    /// It ends by itself, and well; what it said.
    fn ends(mut self) -> String {
        let mut ended = None;
        wait_for(|| {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        });
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(ended.unwrap().code(), Some(0), "{said}");
        said
    }
}

/// The header and the first records of a capture.
fn beginning(packets: usize) -> Vec<u8> {
    let bytes = fs::read(calls_capture()).unwrap();
    let mut end = 24;
    for _ in 0..packets {
        end += 16 + usize::try_from(u32::from_le_bytes(bytes[end + 8..end + 12].try_into().unwrap())).unwrap();
    }
    bytes[..end].to_vec()
}

#[test]
fn a_signal_is_heard_while_a_pipe_says_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let hunt = ["hunt", "-P", "127.0.0.1:1", "--insecure", "-r", "-"];
    for (arguments, signal) in [(&["sniff", "-r", "-"][..], "-TERM"), (&["sniff", "voip", "-r", "-"], "-INT"), (&hunt, "-TERM")] {
        Waiting::start(tmp.path(), arguments, b"").stop(signal);
        Waiting::start(tmp.path(), arguments, &beginning(2)).stop(signal);
    }
}

#[test]
fn a_signal_is_heard_while_nobody_writes_to_a_fifo_and_its_writer_may_come_late() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    assert!(Command::new("mkfifo").arg(dir.join("fifo")).status().unwrap().success());
    let hunt = ["hunt", "-P", "127.0.0.1:1", "--insecure", "-r", "fifo"];
    for (arguments, signal) in
        [(&["sniff", "-r", "fifo"][..], "-TERM"), (&["sniff", "voip", "-r", "fifo"], "-INT"), (&hunt, "-TERM")]
    {
        Waiting::start(dir, arguments, b"").stop(signal);
    }

    let late = Waiting::start(dir, &["sniff", "-r", "fifo", "-w", "kept.pcap"], b"");
    fs::write(dir.join("fifo"), beginning(3)).unwrap();
    late.ends();

    assert_eq!(frames(&dir.join("kept.pcap")), frames(&calls_capture())[..3]);
}

#[test]
fn packets_of_a_pipe_that_stays_open_arrive_without_waiting_for_more() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state"]);
    let address = format!("127.0.0.1:{}", processor.port);
    let hunt =
        ["hunt", "-P", &address, "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates", "-r", "-"];
    let kept = dir.join("all.pcap");

    let hunter = Waiting::start(dir, &hunt, &beginning(3));
    wait_for(|| fs::metadata(&kept).is_ok_and(|m| m.len() >= 24) && frames(&kept).len() == 3);
    let listed = lc(dir, &["list", "hunters", "-P", &address, "--insecure", "--output-format", "json"]);
    hunter.stop("-TERM");
    processor.stop();

    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!((&listed[0]["hunter_id"], &listed[0]["hostname"]), (&"edge".into(), &host.trim().into()), "{listed}");
    assert_eq!(frames(&kept), frames(&calls_capture())[..3]);
}

#[test]
fn filters_named_on_this_machine_are_read_again_at_a_hangup() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let of = |user: &str| format!("filters:\n  - {{id: t, type: sip_user, pattern: {user}}}\n");
    fs::write(dir.join("f.yaml"), of("nobody")).unwrap();
    let bytes = fs::read(calls_capture()).unwrap();
    let start = beginning(0);
    let arguments = ["sniff", "voip", "-r", "-", "--filter-file", "f.yaml", "-w", "kept.pcap"];

    let mut sniffer = Waiting::start(dir, &arguments, &start);
    for (text, pid) in [("filters: [", sniffer.0.id()), (&of("alice"), sniffer.0.id())] {
        fs::write(dir.join("f.yaml"), text).unwrap();
        assert!(Command::new("kill").args(["-HUP", &pid.to_string()]).status().unwrap().success());
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let mut input = sniffer.0.stdin.take().unwrap();
    input.write_all(&bytes[start.len()..]).unwrap();
    drop(input);
    let said = sniffer.ends();

    assert!(said.contains("filter file not used") && said.contains("filter file read again"), "{said}");
    assert_eq!(frames(&dir.join("kept.pcap")).len(), 424);
}
