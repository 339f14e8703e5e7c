//! What `lc` writes is its user's alone, whatever the umask says, and there is one place in the code where files are made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::not_run;
use super::rust_text::{without_comments_and_strings, without_tests};
use super::whole::{LC, Processor, calls_capture, lc, succeed};

fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, all);
        }
        all.push(path);
    }
}

#[test]
fn every_file_is_made_with_mode_0600_and_every_directory_with_0700_whatever_the_umask() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let careless = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0; exec \"$0\" \"$@\"", LC]);
        command
    };
    let certs = careless().args(["certs", "init", "--dir", "made/c"]).current_dir(dir).status().unwrap();
    let outputs =
        ["--per-call-pcap", "--per-call-pcap-dir", "made/calls", "--auto-rotate-pcap", "--auto-rotate-pcap-dir", "made/rotated"];
    let unified = ["--insecure", "--state-dir", "made/state", "-w", "made/unified/all.pcap"];
    let processor = Processor::spawn(careless(), dir, 0, &[&outputs[..], &unified].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    let capture = calls_capture().display().to_string();
    let start = ["hunt", "voip", "-P", &address, "--insecure", "--id", "e", "--no-filter-policy", "allow", "-r", &capture];
    let hunted = careless()
        .args(start)
        .args(["--durability", "wal", "--disk-buffer-dir", "made/spool"])
        .current_dir(dir)
        .env("HOME", dir)
        .status()
        .unwrap();
    processor.stop();
    succeed(dir, &["sniff", "voip", "-r", &capture, "-w", "made/unified/sniffed.pcap"]);

    assert!(certs.success() && hunted.success());
    let mut all = Vec::new();
    walk(&dir.join("made"), &mut all);
    let mut kinds = [0, 0];
    for path in &all {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let is_public = path.extension().is_some_and(|e| e == "crt" || e == "crl");
        kinds[usize::from(path.is_dir())] += 1;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert!(mode == expected || (is_public && mode == 0o644), "{}: {mode:o}", path.display());
    }
    assert!(kinds[0] > 15 && kinds[1] >= 6, "{all:?}");
}

/// A group that nobody is in.
const GROUP: u32 = 64_321;

/// What a processor and a sniffer write for that group, started by this command; the processor with more options.
fn write_for_the_group(dir: &Path, as_user: fn() -> Command, more: &[&str]) {
    let group = ["--pcap-group", "64321"];
    let outputs = [
        "--per-call-pcap",
        "--per-call-pcap-dir",
        "made/in/calls",
        "--auto-rotate-pcap",
        "--auto-rotate-pcap-dir",
        "made/rotated",
    ];
    let unified = ["--insecure", "--state-dir", "state", "-w", "made/unified/all.pcap"];
    let processor = Processor::spawn(as_user(), dir, 0, &[&outputs[..], &unified, &group, more].concat());
    let (address, capture) = (format!("127.0.0.1:{}", processor.port), calls_capture().display().to_string());
    succeed(dir, &["hunt", "voip", "-P", &address, "--insecure", "--id", "e", "--no-filter-policy", "allow", "-r", &capture]);
    processor.stop();
    let sniff = [&["sniff", "voip", "-r", &capture, "-w", "made/unified/sniffed.pcapng"][..], &group, more].concat();
    let sniffed = as_user().args(sniff).current_dir(dir).env("HOME", dir).output().unwrap();
    assert!(sniffed.status.success(), "{sniffed:?}");
}

/// All that is below `made` is the group's to read and nobody else's, and what is below `state` its owner's alone.
fn assert_the_groups(dir: &Path, owner: u32) {
    let (mut output, mut state) = (Vec::new(), Vec::new());
    walk(&dir.join("made"), &mut output);
    walk(&dir.join("state"), &mut state);
    let facts = |path: &PathBuf| {
        let meta = fs::metadata(path).unwrap();
        (meta.uid(), meta.gid() == GROUP, meta.permissions().mode() & 0o7777, meta.is_dir())
    };
    let mut kinds = [0, 0];
    for path in &output {
        let (uid, is_the_groups, mode, is_dir) = facts(path);
        kinds[usize::from(is_dir)] += 1;
        let expected = if is_dir { 0o750 } else { 0o640 };
        assert!(uid == owner && is_the_groups && mode == expected, "{}: {uid} {mode:o} {is_the_groups}", path.display());
    }
    assert!(kinds[0] > 12 && kinds[1] == 4, "{output:?}");
    assert!(state.len() > 2, "{state:?}");
    for path in &state {
        let (_, is_the_groups, mode, _) = facts(path);
        assert!(!is_the_groups && mode.trailing_zeros() >= 6, "{}: {mode:o}", path.display());
    }
}

#[test]
fn output_is_for_a_group_to_read_where_one_is_named_and_state_never_is() {
    if !not_run::is_root() {
        return not_run::say_unless_it_must("output_is_for_a_group_to_read", "it needs root");
    }
    let careless = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 0; exec \"$0\" \"$@\"", LC]);
        command
    };
    let root = tempfile::tempdir().unwrap();
    write_for_the_group(root.path(), careless, &[]);
    assert_the_groups(root.path(), 0);

    // what is there from a run before belongs to the group from now on
    let grown = tempfile::tempdir().unwrap();
    let capture = calls_capture().display().to_string();
    succeed(grown.path(), &["sniff", "voip", "-r", &capture, "-w", "made/unified/sniffed.pcapng"]);
    let before = fs::metadata(grown.path().join("made/unified/sniffed.pcapng")).unwrap();
    assert_eq!((before.gid() == GROUP, before.permissions().mode() & 0o777), (false, 0o600));
    succeed(grown.path(), &["sniff", "voip", "-r", &capture, "-w", "made/unified/sniffed.pcapng", "--pcap-group", "64321"]);
    let after = fs::metadata(grown.path().join("made/unified/sniffed.pcapng")).unwrap();
    assert_eq!((after.gid(), after.permissions().mode() & 0o777), (GROUP, 0o640));

    // its directory keeps its mode, and that is said
    let sniff = ["sniff", "voip", "-r", &capture, "-w", "made/unified/sniffed.pcapng", "--pcap-group", "64321"];
    let warning = "--pcap-group may not enter this directory, which was there before: chgrp 64321 and chmod g+rx";
    assert!(succeed(grown.path(), &sniff).contains(warning));
    let unified = grown.path().join("made/unified");
    assert_eq!(fs::metadata(&unified).unwrap().permissions().mode() & 0o777, 0o700);
    chown(&unified, None, Some(GROUP)).unwrap();
    fs::set_permissions(&unified, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(!succeed(grown.path(), &sniff).contains(warning));

    // another user, who is no member until root makes it one
    let dropped = tempfile::tempdir().unwrap();
    chown(dropped.path(), Some(65_534), Some(65_534)).unwrap();
    write_for_the_group(dropped.path(), careless, &["--user", "65534:65534"]);
    assert_the_groups(dropped.path(), 65_534);
}

#[test]
fn a_group_that_is_not_there_or_not_ours_is_a_clear_error() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let capture = calls_capture().display().to_string();
    let process = ["process", "--insecure", "--listen", "127.0.0.1:0", "--state-dir", "state", "-w", "made/all.pcap"];
    let sniff = ["sniff", "voip", "-r", &capture, "-w", "made/all.pcap"];
    for command in [&process[..], &sniff] {
        let unknown = lc(dir, &[command, &["--pcap-group", "no-such-group"]].concat());
        let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
        assert_eq!(unknown.status.code(), Some(2), "{said}");
        assert!(said.contains("--pcap-group: there is no group 'no-such-group' in /etc/group"), "{said}");
    }
    if !not_run::is_root() {
        return not_run::say_unless_it_must("a_group_that_is_not_ours_is_a_clear_error", "it needs root");
    }
    chown(dir, Some(65_534), Some(65_534)).unwrap();
    let capture = dir.join("calls.pcap");
    fs::copy(calls_capture(), &capture).unwrap();
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o644)).unwrap();
    let binary = dir.join("lc");
    fs::copy(LC, &binary).unwrap();
    for (n, command) in [&process[..], &["sniff", "voip", "-r", "calls.pcap", "-w", "made/all.pcap"]].iter().enumerate() {
        // each makes the directory, and fails at it
        let _none = fs::remove_dir_all(dir.join("made"));
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary).args(*command);
        let refused = other.args(["--pcap-group", "64321"]).current_dir(dir).env("HOME", dir).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{said}");
        assert!(said.contains("to the group 64321 (--pcap-group): Operation not permitted"), "{n}: {said}");
    }
}

/// Where shipped code may make files: captures, records and state; certificates and keys.
const MAKERS: [&str; 2] = ["record/dir.rs", "net/certs.rs"];

#[test]
fn files_are_made_in_one_place_of_the_code_and_certificates_in_another() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    walk(&src, &mut all);
    let mut found = [0; 2];
    for path in all.iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        if name.ends_with("tests.rs") || name.contains("/tests/") || name.ends_with("build.rs") {
            continue;
        }
        let code = without_tests(&without_comments_and_strings(&fs::read_to_string(path).unwrap()));
        let makes = [
            "File::create(",
            "File::create_new(",
            "fs::write(",
            ".create(true)",
            ".create_new(true)",
            "OFlags::CREATE",
            "fs::copy(",
        ];
        let making = makes.iter().filter(|m| code.contains(**m)).count();
        // a capture file of ours is made in its directory, by the first of them
        let making = making - usize::from(making > 0 && code.contains("CaptureFile::create("));
        match MAKERS.iter().position(|m| name == *m) {
            Some(at) => found[at] += making,
            None => assert_eq!(making, 0, "{name} makes files"),
        }
    }
    assert!(found.iter().all(|n| *n > 0), "{found:?}");
}
