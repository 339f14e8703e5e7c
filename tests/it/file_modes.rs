//! What `lc` writes is its user's alone, whatever the umask says, and there is one place in the code where files are made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rust_text::{without_comments_and_strings, without_tests};
use super::whole::{LC, Processor, calls_capture, succeed};

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
