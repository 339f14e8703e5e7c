//! `--user`: what a process that was started as root may still do. Needs root, or says "not run".

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::not_run;
use super::started::Started;
use super::whole::{LC, Processor, frames, lc, succeed};

/// Bit of `CAP_NET_RAW` (capabilities(7)).
const NET_RAW: u64 = 1 << 13;
/// Everybody's nobody.
const NOBODY: &str = "65534:65534";

fn as_root(test: &str) -> bool {
    let root = not_run::is_root();
    if !root {
        not_run::say_unless_it_must(test, "it needs root");
    }
    root
}

/// What the kernel says of every thread of a process.
fn statuses(id: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let read = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("status")).ok();
    tasks.filter_map(read).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim()
}

#[track_caller]
fn assert_has_only(id: u32, capabilities: u64) {
    let all = statuses(id);
    assert!(all.len() > 1, "threads");
    for status in &all {
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(u64::from_str_radix(field(status, set), 16).unwrap(), capabilities, "{status}");
        }
        assert_eq!((field(status, "CapInh:"), field(status, "CapAmb:")), ("0000000000000000", "0000000000000000"), "{status}");
        assert_eq!((field(status, "NoNewPrivs:"), field(status, "Seccomp:")), ("1", "2"), "{status}");
        assert_eq!(field(status, "Uid:"), "65534\t65534\t65534\t65534", "{status}");
        assert_eq!(field(status, "Gid:"), "65534\t65534\t65534\t65534", "{status}");
        assert_eq!(field(status, "Groups:"), "", "{status}");
    }
    // not dumpable: what is in its memory is root's to read
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{id}/mem")).unwrap()), 0);
}

/// A folder that nobody may write into.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["state", "out"] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
    }
    dir
}

struct Hunter(Started);

fn hunt(dir: &Path, port: u16) -> Hunter {
    let child = Command::new(LC)
        .args(["hunt", "-i", "lo", "-f", "udp port 47123", "--no-filter-policy", "allow", "--id", "edge", "--user", NOBODY])
        .args(["-P", &format!("127.0.0.1:{port}"), "--insecure", "--durability", "memory"])
        .current_dir(dir)
        .env("HOME", dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Hunter(Started(child))
}

#[test]
fn a_hunter_and_a_processor_of_root_become_nobody_and_do_their_work_without_root() {
    if !as_root("a_hunter_and_a_processor_of_root_become_nobody") {
        return;
    }
    let tmp = folder();
    let dir = tmp.path();
    let processor = Processor::start(dir, &["--insecure", "--user", NOBODY, "--state-dir", "state", "-w", "out/all.pcap"]);
    let mut hunter = hunt(dir, processor.port);
    let registered = (0..1200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        processor.has_said("hunter registered")
    });
    assert!(registered);

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for n in 0..20_u8 {
        socket.send_to(&[n; 64], "127.0.0.1:47123").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_has_only(processor.id(), 0);
    assert_has_only(hunter.0.id(), NET_RAW);
    let stopped = Command::new("kill").args(["-TERM", &hunter.0.id().to_string()]).status().unwrap();
    assert!(stopped.success() && hunter.0.wait().unwrap().success());
    let log = processor.stop();

    assert!(log.contains("privileges dropped"), "{log}");
    assert_eq!(frames(&dir.join("out/all.pcap")).len(), 20);
    let written = fs::metadata(dir.join("out/all.pcap")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&written), 65_534, "files are the new user's");
}

/// Bit of `CAP_DAC_OVERRIDE`.
const FILES_OF_OTHERS: u64 = 1 << 1;

#[test]
fn root_that_stays_root_keeps_little_and_a_sandbox_can_be_left_out() {
    if !as_root("root_that_stays_root_keeps_little") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let start = |more: &[&str]| Processor::start(dir, &[&["--insecure", "--state-dir", "state"], more].concat());
    let of = |processor: &Processor, name: &str| field(&statuses(processor.id())[0], name).to_owned();

    let sandboxed = start(&[]);
    let (kept, seccomp) = (of(&sandboxed, "CapEff:"), of(&sandboxed, "Seccomp:"));
    let log = sandboxed.stop();
    let free = start(&["--sandbox", "off"]);
    let free_seccomp = of(&free, "Seccomp:");
    free.stop();

    // as far as the test has it itself
    let kept = u64::from_str_radix(&kept, 16).unwrap();
    assert_eq!((kept & !FILES_OF_OTHERS, seccomp.as_str(), free_seccomp.as_str()), (0, "2", "0"));
    assert!(log.contains("\"message\":\"sandboxed\"") || log.contains("the sandbox is not whole"), "{log}");
}

#[test]
fn certificates_that_are_roots_alone_serve_a_process_that_becomes_nobody() {
    if !as_root("certificates_that_are_roots_alone_serve") {
        return;
    }
    let tmp = folder();
    let dir = tmp.path();
    succeed(dir, &["certs", "init", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"]);
    let tls = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key"];
    let processor = Processor::start(dir, &[&tls[..], &["--user", NOBODY, "--state-dir", "state"]].concat());

    let listed = lc(dir, &["list", "hunters", "-P", &format!("localhost:{}", processor.port), "--tls-ca", "c/ca.crt"]);
    processor.stop();

    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[test]
fn a_user_that_cannot_be_become_ends_the_start() {
    let tmp = tempfile::tempdir().unwrap();
    for (user, part) in [("no-such-user-here", "there is no user"), ("0:0", "is root"), ("1:x", "UID:GID")] {
        let out = lc(tmp.path(), &["process", "--insecure", "--listen", "127.0.0.1:0", "--user", user]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
}
