//! Tests that cannot run everywhere. What a passing test prints is swallowed by the harness, so a test that has not run says so past it.
#![allow(dead_code, reason = "each crate of tests needs a part of it")]

use std::fs::{File, metadata};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

/// Says that `test` has not run, on stderr and in the file that `LC_NOT_RUN` names (the gate prints it at its end).
pub(crate) fn say(test: &str, why: &str) {
    let line = format!("NOT RUN: {test}: {why}\n");
    let _told = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("LC_NOT_RUN") {
        File::options().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// As [`say`], for a test that must run on the build server: it fails where `LC_MUST_RUN` is set.
pub(crate) fn say_unless_it_must(test: &str, why: &str) {
    assert!(std::env::var_os("LC_MUST_RUN").is_none(), "{test} must run here: {why}");
    say(test, why);
}

pub(crate) fn is_root() -> bool {
    metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Whether `test` can make network namespaces and has its programs; says so when not.
pub(crate) fn has_namespaces_and(test: &str, programs: &[&str]) -> bool {
    let succeeds = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success())
    };
    let missing: Vec<&str> = programs.iter().copied().filter(|p| !succeeds("sh", &["-c", &format!("command -v {p}")])).collect();
    if !succeeds("unshare", &["--net", "true"]) {
        say_unless_it_must(test, "it needs root and network namespaces");
    } else if !missing.is_empty() {
        say_unless_it_must(test, &format!("missing: {}", missing.join(", ")));
    } else {
        return true;
    }
    false
}
