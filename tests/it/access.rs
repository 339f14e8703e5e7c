//! Who may do what at the real binary: API keys, roles, and that no key ever stands where somebody reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::whole::{LC, Processor, calls_capture, frames, lc, succeed};

/// Secrets that must not turn up anywhere.
const HUNTER_KEY: &str = "canary-hunter-5c1a9e7730d24f0b";
const ADMIN_KEY: &str = "canary-admin-98f0be11c7a6442d";
const WRONG_KEY: &str = "canary-wrong-00aa11bb22cc33dd";
/// A capture of seven seconds.
const SLOW: &str = "baresip-udp.pcap";

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn hash(key: &str) -> String {
    lippycat::net::keys::hash(key.as_bytes())
}

/// Certificates for a processor, and a processor that knows two keys.
fn processor(dir: &Path) -> Processor {
    succeed(dir, &["certs", "init", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"]);
    let keys = format!("# keys\nhunter edge sha256:{}\nadmin ops sha256:{}\n", hash(HUNTER_KEY), hash(ADMIN_KEY));
    write_private(&dir.join("keys"), &keys);
    for (file, key) in [("hunter.key", HUNTER_KEY), ("admin.key", ADMIN_KEY), ("wrong.key", WRONG_KEY)] {
        write_private(&dir.join(file), &format!("{key}\n"));
    }
    let tls = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--api-keys", "keys"];
    Processor::start(dir, &[&tls[..], &["--state-dir", "state", "-w", "all.pcap", "--log-level", "trace"]].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_key_lets_its_hunter_in_and_its_admin_look_and_stands_in_no_log() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = processor(dir);
    let (address, capture) = (format!("localhost:{}", processor.port), calls_capture());
    let hunt = |id: &str, key: &[&str]| {
        let start =
            ["hunt", "-r", capture.to_str().unwrap(), "--no-filter-policy", "allow", "-P", &address, "--tls-ca", "c/ca.crt"];
        lc(dir, &[&start[..], &["--id", id, "--connect-timeout", "3s", "--log-level", "trace"], key].concat())
    };
    let list = |key: &[&str]| {
        lc(dir, &[&["list", "hunters", "-P", &address, "--tls-ca", "c/ca.crt", "--log-level", "trace"][..], key].concat())
    };

    let good = hunt("edge", &["--api-key-file", "hunter.key"]);
    let [none, wrong, foreign, admin] = [
        hunt("edge", &[]),
        hunt("edge", &["--api-key-file", "wrong.key"]),
        hunt("other", &["--api-key-file", "hunter.key"]),
        hunt("edge", &["--api-key-file", "admin.key"]),
    ];
    let (looked, peeped) = (list(&["--api-key-file", "admin.key"]), list(&["--api-key-file", "hunter.key"]));
    // a key that is struck out counts no longer, without a restart
    write_private(&dir.join("keys"), &format!("admin ops sha256:{}\n", hash(ADMIN_KEY)));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let struck = hunt("edge", &["--api-key-file", "hunter.key"]);
    let log = processor.stop();

    assert!(good.status.success(), "{}", said(&good));
    assert!(looked.status.success() && said(&looked).contains("edge"), "{}", said(&looked));
    for (output, part) in [
        (&none, "--api-key-file"),
        (&wrong, "not known here"),
        (&foreign, "not hunter 'other'"),
        (&admin, "RegisterHunter is for hunter, processor"),
        (&struck, "not known here"),
    ] {
        assert_eq!(output.status.code(), Some(3), "{}", said(output));
        assert!(said(output).contains(part), "'{part}' is not said: {}", said(output));
    }
    assert!(!peeped.status.success() && said(&peeped).contains("lc certs issue"), "{}", said(&peeped));
    let all = [&good, &none, &wrong, &foreign, &admin, &looked, &peeped, &struck].map(said).concat() + &log;
    assert!(!all.contains("canary"), "a key stands in a log");
    assert!(log.contains("call denied"), "{log}");
}

#[test]
fn no_secret_stands_in_a_dump_of_the_configuration_or_on_a_command_line() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    write_private(&dir.join("own.key"), ADMIN_KEY);
    fs::write(dir.join("lc.yaml"), "hunter: {processor_addr: [mid], tls: {api_key_file: own.key, ca_file: ca}}\n").unwrap();

    let dump = said(&lc(dir, &["config", "dump", "-c", "lc.yaml"]));
    let help = String::from_utf8(Command::new(LC).args(["hunt", "--help"]).output().unwrap().stdout).unwrap();

    assert!(dump.contains("own.key") && !dump.contains("canary"), "{dump}");
    assert!(help.contains("--api-key-file") && !help.contains("--api-key "), "a key on a command line is seen by everybody");
}

#[test]
fn keys_are_refused_where_they_would_not_stay_secret() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("open.key"), ADMIN_KEY).unwrap();
    fs::set_permissions(dir.join("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    succeed(dir, &["certs", "init", "--dir", "c"]);
    let capture = calls_capture().display().to_string();
    let start = ["hunt", "-r", &capture, "-P", "localhost:1", "--api-key-file", "open.key"];

    for (more, part) in [
        (&["--insecure"][..], "plain text"),
        (&["--tls-skip-verify"], "whoever answers"),
        (&["--tls-ca", "c/ca.crt"], "chmod 600"),
    ] {
        let output = lc(dir, &[&start[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(part) && !said(&output).contains("canary"), "{}", said(&output));
    }
}

/// What a hunter needs of this folder's CA.
fn mutual(dir: &Path) -> Processor {
    succeed(dir, &["certs", "init", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"]);
    succeed(dir, &["certs", "issue", "hunter", "edge", "--dir", "c"]);
    let tls = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt"];
    let more =
        ["--tls-client-auth", "--tls-crl", "c/ca.crl", "--state-dir", "state", "-w", "all.pcap", "--max-connection-age", "1s"];
    Processor::start(dir, &[&tls[..], &more[..]].concat())
}

/// A hunter that replays a capture of some seconds at its own pace.
fn hunt_slowly(dir: &Path, processor: &Processor) -> std::process::Child {
    let address = format!("localhost:{}", processor.port);
    let tls = ["--tls-ca", "c/ca.crt", "--tls-cert", "c/hunter-edge.crt", "--tls-key", "c/hunter-edge.key"];
    Command::new(LC)
        .args([
            "hunt",
            "-P",
            &address,
            "--id",
            "edge",
            "--no-filter-policy",
            "allow",
            "--speed",
            "1x",
            "--keep-duplicates",
            "--log-format",
            "json",
        ])
        .args(tls)
        .arg("-r")
        .arg(slow_capture())
        .current_dir(dir)
        .env("HOME", dir)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn slow_capture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/voip").join(SLOW)
}

#[test]
fn a_connection_that_is_rolled_loses_and_doubles_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = mutual(dir);

    let out = hunt_slowly(dir, &processor).wait_with_output().unwrap();
    let log = processor.stop();

    assert!(out.status.success(), "{}", said(&out));
    assert!(log.matches("hunter registered").count() > 2, "rolled at least twice: {log}");
    assert!(log.contains("\"difference\":\"p1=0 p2=0\"") && log.contains("\"refused\":\"none\""), "{log}");
    assert_eq!(frames(&dir.join("all.pcap")), frames(&slow_capture()));
}

#[test]
fn a_revoked_hunter_is_cut_off_and_delivers_the_rest_with_a_renewed_certificate() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let processor = mutual(dir);
    let hunter = hunt_slowly(dir, &processor);
    let until = |what: &str| {
        let seen = (0..1200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            processor.has_said(what)
        });
        assert!(seen, "'{what}' is not said");
    };
    until("hunter registered");

    let revoked = lc(dir, &["certs", "revoke", "hunter", "edge", "--dir", "c"]);
    until("the peer's certificate was revoked");
    let shown = said(&lc(dir, &["certs", "show", "--dir", "c"]));
    let checked = lc(dir, &["certs", "check", "--dir", "c", "--tls-cert", "c/hunter-edge.crt", "--tls-key", "c/hunter-edge.key"]);
    let renewed = lc(dir, &["certs", "renew", "hunter", "edge", "--dir", "c"]);
    let out = hunter.wait_with_output().unwrap();
    let log = processor.stop();

    assert!(revoked.status.success() && renewed.status.success(), "{}{}", said(&revoked), said(&renewed));
    assert!(shown.contains("REVOKED"), "{shown}");
    assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
    assert!(said(&checked).contains("BAD           it was revoked"), "{}", said(&checked));
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("certificate was revoked"), "{}", said(&out));
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    assert_eq!(frames(&dir.join("all.pcap")), frames(&slow_capture()));
}
