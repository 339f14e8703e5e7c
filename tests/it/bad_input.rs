//! Bad input at the real binary: one clear error with its exit code, or a counted refusal, and nothing received is lost.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use super::not_run;
use super::whole::{LC, Processor, calls_capture, frames, lc};

/// The command, and what it must end with: exit code, and every one of these texts in its one error.
type Case<'c> = (&'c [&'c str], i32, &'c [&'c str]);

fn errors(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|l| l.starts_with("error: ")).map(str::to_owned).collect()
}

#[track_caller]
fn ends(output: &Output, what: &[&str], code: i32, says: &[&str]) {
    let errors = errors(output);
    let all = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what:?}\n{all}");
    assert_eq!(errors.len(), 1, "{what:?}: one error\n{all}");
    for text in says {
        assert!(errors[0].contains(text), "{what:?} does not say '{text}': {}", errors[0]);
    }
}

#[track_caller]
fn all_end(dir: &Path, cases: &[Case<'_>]) {
    for (arguments, code, says) in cases {
        ends(&lc(dir, arguments), arguments, *code, says);
    }
}

fn capture() -> String {
    calls_capture().display().to_string()
}

/// A processor that keeps everything.
fn keeps_all(dir: &Path) -> Processor {
    Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state"])
}

#[test]
fn wrong_options_and_misspelt_keys_name_the_right_ones() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("bad.yaml"), "hunter:\n  procesor_addr: mid\n").unwrap();
    fs::write(dir.join("list.yaml"), "hunter: [1]\n").unwrap();

    all_end(
        dir,
        &[
            (&["hunt", "--no-such"], 2, &["--no-such"]),
            (&["hunt", "-P", "mid", "--batch-size", "many"], 2, &["--batch-size", "'many' is not a whole number"]),
            (&["process", "--insecure", "-l", "127.0.0.1:1x"], 2, &["--listen", "127.0.0.1:1x"]),
            (&["hunt", "-c", "bad.yaml"], 2, &["bad.yaml:2", "procesor_addr", "did you mean 'hunter.processor_addr'"]),
            (&["hunt", "-c", "list.yaml"], 2, &["list.yaml:1", "'hunter' is a section"]),
            (&["hunt", "-c", "none.yaml"], 2, &["none.yaml"]),
            (&["sniff", "--capture-threads", "2"], 2, &["--capture-threads"]),
        ],
    );
}

#[test]
fn what_cannot_be_captured_from_says_why_and_what_to_try() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let capture = capture();
    let hunt = ["hunt", "voip", "-P", "localhost:1", "--insecure", "-r", &capture];

    all_end(
        dir,
        &[
            (&["sniff", "voip", "-i", "eth99"], 4, &["cannot open eth99", "no such interface", "lc list interfaces"]),
            (&["hunt", "-i", "eth99", "-P", "localhost:1", "--insecure"], 4, &["no such interface (have: "]),
            (&["sniff", "voip", "-r", &capture, "-f", "prot 53"], 2, &["BPF filter 'prot 53'", "syntax error", "pcap-filter"]),
            (&[&hunt[..], &["-f", "port x y"]].concat(), 2, &["BPF filter 'port x y'"]),
        ],
    );
    if !not_run::is_root() {
        return not_run::say_unless_it_must("captures without permission", "only root can be somebody else");
    }
    let binary = dir.join("lc");
    fs::copy(LC, &binary).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("secret.pcap"), fs::read(&capture).unwrap()).unwrap();
    fs::set_permissions(dir.join("secret.pcap"), fs::Permissions::from_mode(0o600)).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        command.args(arguments).current_dir("/").env("HOME", "/").output().unwrap()
    };
    let secret = dir.join("secret.pcap").display().to_string();
    let cases: [Case<'_>; 2] = [
        (&["sniff", "voip", "-i", "lo"], 1, &["cannot capture on lo", "permission denied", "setcap cap_net_raw+ep"]),
        (&["sniff", "voip", "-r", &secret], 1, &["secret.pcap", "permission denied"]),
    ];
    for (arguments, code, says) in cases {
        ends(&nobody(arguments), arguments, code, says);
    }
}

#[test]
fn a_capture_file_that_is_none_is_named_with_what_is_wrong_with_it() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let whole = fs::read(calls_capture()).unwrap();
    fs::write(dir.join("empty.pcap"), "").unwrap();
    fs::write(dir.join("head.pcap"), &whole[..10]).unwrap();
    fs::write(dir.join("text.pcap"), "once upon a time there was a file").unwrap();
    fs::write(dir.join("cut.pcap"), &whole[..1000]).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();

    all_end(
        dir,
        &[
            (&["sniff", "voip", "-r", "none.pcap"], 4, &["cannot open none.pcap", "no such file"]),
            (&["sniff", "voip", "-r", "empty.pcap"], 1, &["empty.pcap", "empty"]),
            (&["sniff", "voip", "-r", "head.pcap"], 1, &["head.pcap", "ends after 10 bytes"]),
            (&["sniff", "voip", "-r", "text.pcap"], 1, &["text.pcap", "neither pcap nor pcapng"]),
            (&["sniff", "voip", "-r", "folder"], 1, &["folder", "directory"]),
        ],
    );
    // what was whole is used, and the rest is said
    let cut = lc(dir, &["sniff", "voip", "-r", "cut.pcap", "--output-format", "json"]);
    assert_eq!(cut.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&cut.stdout).matches("\"event_type\":\"sip\"").count(), 2);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut.pcap is truncated: the record at byte 963"));
}

#[test]
fn a_capture_filter_holds_for_files_as_it_does_for_interfaces() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = keeps_all(tmp.path());
    let (address, capture) = (format!("127.0.0.1:{}", processor.port), capture());
    let hunt = ["hunt", "-P", &address, "--insecure", "--no-filter-policy", "allow", "--keep-duplicates", "-r", &capture];

    let out = lc(tmp.path(), &[&hunt[..], &["-f", "udp port 5060"]].concat());
    processor.stop();

    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let port = |f: &[u8], at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
    let sip = |f: &(i64, u32, Vec<u8>)| port(&f.2, 34) == 5060 || port(&f.2, 36) == 5060;
    let wanted: Vec<_> = frames(&calls_capture()).into_iter().filter(sip).collect();
    assert_eq!(frames(&tmp.path().join("all.pcap")), wanted);
    assert_eq!(wanted.len(), 60);
}

#[test]
fn certificates_that_cannot_serve_are_told_before_anything_starts() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for arguments in [
        &["certs", "init", "--dir", "c"][..],
        &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"],
        &["certs", "issue", "hunter", "h", "--dir", "c"],
    ] {
        assert!(lc(dir, arguments).status.success());
    }
    let mut expired = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.join("old.crt"), expired.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join("old.key"), key.serialize_pem()).unwrap();
    let capture = capture();
    let serve = |cert: &'static str, key: &'static str| ["process", "--tls-cert", cert, "--tls-key", key];
    let hunt =
        ["hunt", "-P", "localhost:1", "--tls-ca", "c/ca.crt", "-r", &capture, "--tls-cert", "old.crt", "--tls-key", "old.key"];

    all_end(
        dir,
        &[
            (&serve("none.crt", "c/processor-mid.key"), 2, &["none.crt"]),
            (&serve("c/processor-mid.crt", "c/hunter-h.key"), 2, &["hunter-h.key does not belong to", "processor-mid.crt"]),
            (&serve("old.crt", "old.key"), 2, &["old.crt", "expired"]),
            (&hunt, 2, &["old.crt", "expired"]),
            (&["process", "--tls-cert", &capture, "--tls-key", "old.key"], 2, &["calls.pcap", "CERTIFICATE"]),
        ],
    );
}

#[test]
fn a_processor_that_is_none_or_does_not_answer_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    assert!(lc(dir, &["certs", "init", "--dir", "c"]).status.success());
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let [web_at, mute_at] = [&web, &mute].map(|l| l.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for mut socket in web.incoming().map_while(Result::ok) {
            let mut asked = [0; 64];
            let _read = socket.read(&mut asked);
            let _written = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let capture = capture();
    let hunt = |address: &str, more: &[&str]| {
        let start = ["hunt", "voip", "-r", &capture, "--connect-timeout", "3s", "-P", address];
        lc(dir, &[&start[..], more].concat())
    };
    let plain: &[&str] = &["--insecure"];
    let tls: &[&str] = &["--tls-ca", "c/ca.crt"];

    for (address, security, says) in [
        ("127.0.0.1:1", plain, "Connection refused"),
        ("no.such.host.invalid", plain, "cannot resolve `no.such.host.invalid`"),
        (&*web_at, plain, "is no processor"),
        (&*web_at, tls, "does not speak TLS"),
        (&*mute_at, plain, "does not begin HTTP/2"),
        (&*mute_at, tls, "no answer"),
    ] {
        ends(&hunt(address, security), &[address], 3, &[says, address]);
    }
    ends(&lc(dir, &["list", "hunters", "-P", "127.0.0.1:1", "--insecure"]), &["list"], 3, &["127.0.0.1:1", "Connection refused"]);
}

#[test]
fn hunters_with_the_wrong_certificate_or_none_are_told_what_to_do() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for arguments in [
        &["certs", "init", "--dir", "c"][..],
        &["certs", "init", "--dir", "d"],
        &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"],
        &["certs", "issue", "hunter", "h", "--dir", "c"],
        &["certs", "issue", "subscriber", "s", "--dir", "c"],
        &["certs", "issue", "hunter", "h", "--dir", "d"],
    ] {
        assert!(lc(dir, arguments).status.success());
    }
    let tls =
        ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt", "--tls-client-auth"];
    let processor = Processor::start(dir, &[&tls[..], &["--state-dir", "state"]].concat());
    let (address, capture) = (format!("localhost:{}", processor.port), capture());
    let hunt = |more: &[&str]| {
        let start = ["hunt", "voip", "-r", &capture, "--connect-timeout", "3s", "--id", "h", "-P", &address];
        lc(dir, &[&start[..], more].concat())
    };
    let with = |dir: &str, name: &str, ca: &str| {
        let file = |end: &str| format!("{dir}/{name}.{end}");
        hunt(&["--tls-ca", ca, "--tls-cert", &file("crt"), "--tls-key", &file("key")])
    };

    ends(&hunt(&["--insecure"]), &["plain text"], 3, &[&address, "if it runs with TLS, leave out --insecure"]);
    ends(&hunt(&["--tls-ca", "c/ca.crt"]), &["no certificate"], 3, &["demands a certificate", "--tls-cert"]);
    ends(&with("d", "hunter-h", "c/ca.crt"), &["another CA"], 3, &["does not trust the CA of this side's certificate"]);
    ends(&with("c", "hunter-h", "d/ca.crt"), &["another CA here"], 3, &["not signed by the CA given here", "--tls-ca"]);
    ends(
        &with("c", "subscriber-s", "c/ca.crt"),
        &["another role"],
        3,
        &["RegisterHunter is for hunter", "lc certs issue hunter"],
    );
    let unverified = hunt(&["--tls-skip-verify", "--tls-cert", "c/hunter-h.crt", "--tls-key", "c/hunter-h.key"]);
    assert_eq!(unverified.status.code(), Some(0), "{}", String::from_utf8_lossy(&unverified.stderr));
    assert!(String::from_utf8_lossy(&unverified.stderr).contains("INSECURE"));
    let production = Command::new(LC)
        .args(["hunt", "-P", &address, "--tls-skip-verify"])
        .env("LIPPYCAT_PRODUCTION", "true")
        .env("HOME", dir)
        .current_dir(dir)
        .output()
        .unwrap();
    ends(&production, &["in production"], 2, &["--tls-skip-verify", "LIPPYCAT_PRODUCTION"]);
    let log = processor.stop();
    assert!(log.contains("connection refused") && !log.contains("\"remote\""), "addresses of peers are for DEBUG: {log}");
}

#[test]
fn a_processor_that_cannot_start_says_what_stands_in_its_way() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    fs::write(dir.join("text.pcap"), "once upon a time").unwrap();
    fs::write(dir.join("bad.yaml"), "filters:\n  - {id: a, type: sip_usr, pattern: x}\n  - {id: b, type: imei, pattern: x}\n")
        .unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let other = keeps_all(&fs::canonicalize(dir).unwrap());
    let taken = format!("127.0.0.1:{}", other.port);
    let start: &[&str] = &["process", "--insecure", "--state-dir", "s"];

    all_end(
        dir,
        &[
            (&[start, &["-l", &taken]].concat(), 1, &[&taken, "another program has this address"]),
            (&[start, &["-l", "192.0.2.1:1"]].concat(), 1, &["192.0.2.1:1", "no interface of this machine has this address"]),
            (&[start, &["-w", "text.pcap"]].concat(), 1, &["will not append to", "text.pcap", "not a capture file"]),
            (&[start, &["-w", "folder"]].concat(), 1, &["folder", "Is a directory"]),
            (&[start, &["--per-call-pcap", "--per-call-pcap-dir", "/proc/x"]].concat(), 1, &["/proc/x"]),
            (&["process", "--insecure", "--state-dir", "/proc/x"], 1, &["/proc/x"]),
            (&[start, &["-f", "none.yaml"]].concat(), 4, &["none.yaml", "No such file"]),
        ],
    );
    let filters = lc(dir, &[start, &["-f", "bad.yaml"]].concat());
    let said = errors(&filters);
    assert_eq!((filters.status.code(), said.len()), (Some(2), 2), "both mistakes: {said:?}");
    assert!(said[0].contains("bad.yaml:2:19") && said[0].contains("did you mean \"sip_user\""), "{said:?}");
    assert!(said[1].contains("bad.yaml:3:"), "{said:?}");
    other.stop();
}

#[test]
fn garbage_at_the_door_is_refused_and_costs_no_hunter_anything() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = keeps_all(tmp.path());
    let (address, capture) = (format!("127.0.0.1:{}", processor.port), capture());
    let junk: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();

    let mut held = Vec::new();
    for bytes in [&junk[..], b"GET / HTTP/1.1\r\n\r\n", b"", &[&preface[..], &junk[..]].concat(), &preface] {
        let mut socket = TcpStream::connect(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // refused is as good as ignored
        let _written = socket.write_all(bytes);
        let _answer = socket.read(&mut [0; 1024]);
        held.push(socket);
    }
    let hunt = ["hunt", "-P", &address, "--insecure", "--no-filter-policy", "allow", "--keep-duplicates", "-r", &capture];
    let out = lc(tmp.path(), &hunt);
    drop(held);
    processor.stop();

    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(frames(&tmp.path().join("all.pcap")), frames(&calls_capture()));
}

#[test]
fn a_sniffer_with_a_full_disk_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    if !not_run::is_root() {
        return not_run::say_unless_it_must("a full disk", "mounting a small one needs root");
    }
    let disk = tmp.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&disk).status();
    if !mounted.is_ok_and(|s| s.success()) {
        return not_run::say_unless_it_must("a full disk", "this machine mounts nothing");
    }

    let out = lc(tmp.path(), &["sniff", "voip", "-r", &capture(), "-w", "disk/out.pcap", "-q"]);
    let unmounted = Command::new("umount").arg(&disk).status();

    assert!(unmounted.unwrap().success());
    ends(&out, &["full disk"], 1, &["disk/out.pcap", "free some space"]);
    assert!(!errors(&out)[0].contains("--min-free"), "an option that lc sniff does not have: {:?}", errors(&out));
}
