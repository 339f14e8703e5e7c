//! Floods beside real calls: whoever sends many of something takes memory up to the limit and no further, and the calls that somebody
//! asked for are still filed.

use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::flood_frames::{ALL, Kind, size, write};
use super::memory_group::Group;
use super::not_run;
use super::started::Started;
use super::whole::{LC, Processor, calls_capture, frames, succeed};

/// Calls of a flood that is filed whole.
const FILED: u32 = 5000;
/// The limit, and the tenth above it that is allowed.
pub(super) const LIMIT: u64 = 96 << 20;
/// Frames of the calls beside a flood, and whose of them are asked for.
const CALLS: u64 = 1060;
const TARGET: [&str; 2] = ["--sip-user", "alice"];

/// The most memory a process had so far; nothing when it is gone.
pub(super) fn peak_of(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// How `lc` ended that was brought a flood.
struct Ran {
    /// The most memory it had.
    peak: u64,
    said: String,
}

impl Ran {
    /// A figure of its last line.
    fn figure(&self, name: &str) -> u64 {
        let line = self.said.lines().rfind(|line| line.contains("\"done\"")).unwrap_or_else(|| panic!("{}", self.said));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"))
    }
}

/// Runs `lc` to its end, while a flood of so many frames comes through its standard input, as fast as it is taken.
fn run(command: &mut Command, kinds: &[Kind], flood: u32) -> Ran {
    let mut said = tempfile::tempfile().unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said.try_clone().unwrap());
    let mut child = Started(command.spawn().unwrap());
    let pipe = child.stdin.take().unwrap();
    let kinds = kinds.to_vec();
    // cut off where it ends before it should, which its exit says
    let feeding = std::thread::spawn(move || write(pipe, &kinds, flood).is_ok());
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_of(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let whole = feeding.join().unwrap();
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    // lost packets are counted, and end with 5
    assert!(matches!(status.code(), Some(0 | 5)) && whole, "{status}: {text}");
    Ran { peak, said: text }
}

/// A sniffer beside a flood; `command` runs `lc`. How much of what it was asked for it filed is at least nine tenths, and nothing else is.
#[expect(clippy::print_stdout, reason = "says what was measured")]
fn sniff(dir: &Path, mut command: Command, kinds: &[Kind], wanted: &[(i64, u32, Vec<u8>)]) {
    let (flood, limit) = (size(kinds), LIMIT.to_string());
    command.args(["sniff", "voip", "-r", "-", "-w", "kept.pcap", "--memory-limit", &limit, "--log-format", "json"]).args(TARGET);
    let ran = run(command.current_dir(dir).env("HOME", dir), kinds, flood);
    let kept = frames(&dir.join("kept.pcap"));
    fs::remove_file(dir.join("kept.pcap")).unwrap();

    let good = wanted.iter().filter(|frame| kept.contains(frame)).count();
    println!("{flood} frames, {kinds:?}: a sniffer of {} MiB, {good} of {} filed", ran.peak >> 20, wanted.len());
    assert_eq!(ran.figure("captured"), u64::from(flood) + CALLS, "{kinds:?}: all of it came by");
    assert!(good * 10 >= wanted.len() * 9, "{kinds:?}: {good} of {}", wanted.len());
    assert_eq!(kept.len(), good, "{kinds:?}: nothing else");
    assert!(ran.peak <= LIMIT + LIMIT / 10, "{kinds:?}: {} MiB", ran.peak >> 20);
}

/// What is filed of the calls when no flood comes by.
fn wanted(dir: &Path) -> Vec<(i64, u32, Vec<u8>)> {
    let alone = calls_capture().display().to_string();
    succeed(dir, &[&["sniff", "voip", "-r", &alone, "-w", "alone.pcap"][..], &TARGET].concat());
    let wanted = frames(&dir.join("alone.pcap"));
    assert_eq!(wanted.len(), 424);
    wanted
}

/// Each alone, and all together.
fn floods() -> Vec<Vec<Kind>> {
    ALL.iter().map(|kind| vec![*kind]).chain([ALL.to_vec()]).collect()
}

#[test]
fn floods_stay_within_the_memory_limit_and_the_calls_asked_for_are_filed() {
    let tmp = tempfile::tempdir().unwrap();
    let wanted = wanted(tmp.path());
    for kinds in floods() {
        sniff(tmp.path(), Command::new(LC), &kinds, &wanted);
    }
}

#[test]
fn a_flood_ends_nobody_in_a_control_group_of_a_tenth_more_than_the_limit() {
    let test = "a_flood_ends_nobody_in_a_control_group";
    let groups = [(); 2].map(|()| Group::new(LIMIT + LIMIT / 10));
    let [Ok(hog), Ok(group)] = groups else {
        let why = groups.into_iter().find_map(Result::err).unwrap();
        return not_run::say(
            test,
            &format!("no control group for memory can be made here: {why}; memory is compared with the limit alone"),
        );
    };
    let tmp = tempfile::tempdir().unwrap();
    let wanted = wanted(tmp.path());

    // one that takes more is ended: the group is what it is said to be
    let taken = hog.enter("sh").args(["-c", "head -c 300M /dev/zero | tail -c 300M | wc -c"]).output().unwrap();
    assert!(hog.killed() > 0, "{taken:?}");
    sniff(tmp.path(), group.enter(LC), &ALL, &wanted);

    assert_eq!(group.killed(), 0);
}

/// What a hunter and its processor take while a flood comes by beside the calls, and how much of these is filed.
struct Brought {
    hunter: u64,
    processor: u64,
    /// Frames that the hunter read.
    captured: u64,
    kept: Vec<(i64, u32, Vec<u8>)>,
}

/// `process` as a hunter's target, which `hunt`s a flood of so many frames; both within [`LIMIT`].
fn bring(dir: &Path, process: &[&str], hunt: &[&str], kinds: &[Kind], flood: u32) -> Brought {
    let limit = format!("{LIMIT}");
    let start = ["--insecure", "--state-dir", "state", "-w", "kept.pcap", "--durability", "process", "--memory-limit", &limit];
    let processor = Processor::start(dir, &[&start[..], process].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    let mut command = Command::new(LC);
    command
        .args(["hunt", "voip", "-P", &address, "--insecure", "--id", "edge", "-r", "-", "--memory-limit", &limit])
        .args(["--log-format", "json"])
        .args(hunt);
    let hunter = run(command.current_dir(dir).env("HOME", dir), kinds, flood);
    let at_processor = peak_of(processor.id());
    let log = processor.stop();
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    let kept = frames(&dir.join("kept.pcap"));
    fs::remove_file(dir.join("kept.pcap")).unwrap();
    fs::remove_dir_all(dir.join("state")).unwrap();
    Brought { hunter: hunter.peak, processor: at_processor, captured: hunter.figure("captured"), kept }
}

#[test]
#[expect(clippy::print_stdout, reason = "says what was measured")]
fn a_hunter_and_its_processor_stay_within_their_limits_and_deliver_the_calls_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    let wanted = wanted(tmp.path());
    for kinds in floods() {
        let flood = size(&kinds);
        let brought = bring(tmp.path(), &[], &["--sip-user", "alice"], &kinds, flood);

        let good = wanted.iter().filter(|frame| brought.kept.contains(frame)).count();
        let (hunter, processor) = (brought.hunter, brought.processor);
        println!(
            "{flood} frames, {kinds:?}: a hunter of {} MiB, a processor of {} MiB, {good} of {} delivered",
            hunter >> 20,
            processor >> 20,
            wanted.len()
        );
        assert_eq!(brought.captured, u64::from(flood) + CALLS, "{kinds:?}: all of it came by");
        assert!(good * 10 >= wanted.len() * 9, "{kinds:?}: {good} of {}", wanted.len());
        for (who, peak) in [("hunter", hunter), ("processor", processor)] {
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

    let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls"];
    let brought = bring(dir, &files, &["--no-filter-policy", "allow"], &[kind], frames);

    assert!(brought.processor <= LIMIT + LIMIT / 10, "{} MiB", brought.processor >> 20);
    let names: Vec<String> =
        fs::read_dir(dir.join("calls")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let part = if kind == Kind::Calls { "_sip.pcap" } else { "_rtp.pcap" };
    let stems: Vec<&str> = names.iter().filter_map(|n| n.strip_suffix(part)).collect();
    let recorded = stems.iter().filter(|stem| names.contains(&format!("{stem}.json"))).count();
    assert!(stems.len() > 4000 && recorded == stems.len(), "{} files, {recorded} with their record", stems.len());
}
