//! Fifty strings that nobody may read, each where a secret comes in: they stand in no log, error, page, dump, record or command line, and no core
//! is left behind that could hold them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use super::flood_frames::{ipv4, udp};
use super::metrics::{get, port_of};
use super::whole::{LC, Processor, lc, succeed};

/// The secrets by where they came in.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// A new one, in words that are a key, a number or a name.
    fn seed(&mut self, place: &str) -> String {
        let text = format!("canary{:02}{:016x}", self.0.len(), 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(self.0.len() as u64 + 1));
        assert!(self.0.insert(place.to_owned(), text.clone()).is_none(), "{place}");
        text
    }

    /// The lines between the marks of a private key; whoever has one of them has a third of it.
    fn key(&mut self, path: &Path) {
        let pem = fs::read_to_string(path).unwrap();
        for (n, line) in pem.lines().filter(|l| !l.starts_with("-----")).enumerate() {
            self.0.insert(format!("{}, line {n}", path.display()), line.to_owned());
        }
    }

    #[track_caller]
    fn are_not_in(&self, what: &str, text: &[u8]) {
        for (place, secret) in &self.0 {
            let found = memchr::memmem::find(text, secret.as_bytes()).is_some();
            assert!(!found, "the secret of {place} stands in {what}: {}", String::from_utf8_lossy(text));
        }
    }
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn said(output: &Output) -> Vec<u8> {
    [&output.stdout[..], &output.stderr].concat()
}

/// A call whose messages carry what only its ends may know.
fn call(canaries: &mut Canaries) -> Vec<u8> {
    let mut secret = |place: &str| canaries.seed(place);
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nk=base64:{}\r\nm=audio 4000 RTP/SAVP 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\r\na=ice-ufrag:x\r\na=ice-pwd:{}\r\na=key-mgmt:mikey {}\r\n",
        secret("k="),
        secret("a=crypto"),
        secret("a=ice-pwd"),
        secret("a=key-mgmt")
    );
    let headers = format!(
        "Authorization: Digest username=\"alice\", realm=\"x\", nonce=\"{}\", cnonce=\"{}\", response=\"{}\"\r\n\
         Proxy-Authorization: Digest username=\"alice\", realm=\"x\", nonce=\"{}\", response=\"{}\"\r\nIdentity: {}\r\nCookie: {}\r\n\
         X-Api-Key: {}\r\n",
        secret("nonce"),
        secret("cnonce"),
        secret("response"),
        secret("nonce of a proxy"),
        secret("response of a proxy"),
        secret("Identity"),
        secret("Cookie"),
        secret("X-Api-Key")
    );
    let message = format!(
        "INVITE sip:bob:{}@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:alice:{}@example.org>;tag=1\r\n\
         To: <sip:bob@example.org>\r\nCall-ID: one@example.org\r\nCSeq: 1 INVITE\r\n{headers}Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        secret("a password in the Request-URI"),
        secret("a password in a URI"),
        sdp.len()
    );
    let frame = ipv4(1, 17, 0, &udp(1, 5060, message.as_bytes()));
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    file.extend([&[1, 2, 3, 0x65, 0, 0, 0, 0][..], &length, &length, &frame].concat());
    file
}

/// Keys in files, patterns in files, values in variables; returns what hunters and processors are started with.
fn prepare(dir: &Path, canaries: &mut Canaries) -> Vec<(&'static str, String)> {
    succeed(dir, &["certs", "init", "--dir", "c"]);
    let issue = |role: &str, id: &str, more: &[&str]| {
        succeed(dir, &[&["certs", "issue", role, id, "--dir", "c"][..], more].concat());
    };
    issue("processor", "mid", &["--dns", "localhost"]);
    issue("hunter", "edge", &[]);
    issue("admin", "ops", &[]);
    issue("subscriber", "view", &[]);
    for name in ["ca", "processor-mid", "hunter-edge", "admin-ops", "subscriber-view"] {
        canaries.key(&dir.join("c").join(name).with_extension("key"));
    }
    let mut ring = Vec::new();
    for (file, line) in [("hunter.key", "hunter edge"), ("admin.key", "admin ops"), ("wrong.key", "")] {
        let key = canaries.seed(file);
        private(&dir.join(file), &format!("{key}\n"));
        if !line.is_empty() {
            ring.push(format!("{line} sha256:{}\n", lippycat::net::keys::hash(key.as_bytes())));
        }
    }
    private(&dir.join("keys"), &ring.concat());
    let filters = format!(
        "filters:\n  - {{id: f1, type: sip_user, pattern: {}, description: {}}}\n  - {{id: f2, type: phone_number, pattern: '+49301234567'}}\n  \
         - {{id: f3, type: sip_user, pattern: alice}}\n  - {{id: f4, type: sip_uri, pattern: {}@example.org}}\n",
        canaries.seed("a pattern"),
        canaries.seed("a description"),
        canaries.seed("a URI")
    );
    fs::write(dir.join("filters.yaml"), filters).unwrap();
    let config = format!(
        "filters: {{sip_user: [{}], call_id: [{}], phone: []}}\n",
        canaries.seed("filters.sip_user of a file"),
        canaries.seed("filters.call_id of a file")
    );
    fs::write(dir.join("lc.yaml"), config).unwrap();
    ["AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SSLKEYLOGFILE_SECRET", "HTTP_PROXY_PASSWORD"]
        .map(|name| (name, canaries.seed(name)))
        .to_vec()
}

/// Files that are none of what they are given as, each with a secret in it, and what is told of them.
fn mistakes(dir: &Path, canaries: &mut Canaries) -> Vec<(String, Output)> {
    let mut told = Vec::new();
    let mut run = |what: &str, arguments: &[&str]| told.push((what.to_owned(), lc(dir, arguments)));
    let hunt = ["hunt", "-P", "localhost:1", "-r", "call.pcap", "--connect-timeout", "1s", "--log-level", "trace"];
    let serve = ["process", "--listen", "127.0.0.1:0", "--log-level", "trace"];
    let good = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key"];
    for (what, text) in [
        ("two keys in a file", format!("{}\n{}\n", canaries.seed("two keys, one"), canaries.seed("two keys, other"))),
        ("a key of two words", format!("{} {}", canaries.seed("two words, one"), canaries.seed("two words, other"))),
        ("a key with signs", format!("\u{1}{}\u{7f}é", canaries.seed("a key with signs"))),
    ] {
        private(&dir.join("bad.key"), &text);
        run(what, &[&hunt[..], &["--tls-ca", "c/ca.crt", "--api-key-file", "bad.key"]].concat());
    }
    for (what, line) in [
        ("a key where its hash belongs", format!("admin ops {}", canaries.seed("a bare key"))),
        ("a key as a hash", format!("admin ops sha256:{}", canaries.seed("a key as a hash"))),
        ("a key as a role", format!("{} ops sha256:00", canaries.seed("a key as a role"))),
        ("a key and more words", format!("admin ops sha256:00 {}", canaries.seed("a key behind"))),
        ("a key alone", canaries.seed("a key alone")),
    ] {
        private(&dir.join("bad.keys"), &line);
        run(what, &[&serve[..], &good, &["--api-keys", "bad.keys"]].concat());
    }
    let broken = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", canaries.seed("a broken private key"));
    private(&dir.join("broken.pem"), &broken);
    private(&dir.join("none.pem"), &canaries.seed("a key that is no PEM"));
    let private_option = format!("filters: {{phone: [{}]}}\n", canaries.seed("filters.phone that is no number"));
    fs::write(dir.join("wrong.yaml"), private_option).unwrap();
    run("a private option that is wrong", &[&hunt[..], &["--insecure", "-c", "wrong.yaml"]].concat());
    let unknown = format!("hunter: {{tls: {{api_key: {}}}}}\n", canaries.seed("a key in a file of options"));
    fs::write(dir.join("unknown.yaml"), unknown).unwrap();
    run("a key where its file belongs", &[&hunt[..], &["-c", "unknown.yaml"]].concat());
    run("a key where its file belongs, checked", &["config", "check", "unknown.yaml"]);
    for file in ["broken.pem", "none.pem", "c/hunter-edge.key", "keys", "admin.key"] {
        run("a key as options", &["sniff", "voip", "-r", "call.pcap", "-c", file]);
        run("a key as options, checked", &["config", "check", file]);
        let checked = ["certs", "check", "--tls-cert", "c/hunter-edge.crt", "--tls-ca", "c/ca.crt"];
        run("a key as another's key", &[&checked[..4], &["--tls-ca", file]].concat());
        run("a key as a list, checked", &[&checked[..], &["--tls-crl", file]].concat());
        run("another file as a key", &[&serve[..], &["--tls-cert", "c/processor-mid.crt", "--tls-key", file]].concat());
        run("a key as a certificate", &[&serve[..], &["--tls-cert", file, "--tls-key", "c/processor-mid.key"]].concat());
        run("a key as a CA", &[&hunt[..], &["--tls-ca", file]].concat());
        run("a key as a list of the revoked", &[&hunt[..], &["--tls-ca", "c/ca.crt", "--tls-crl", file]].concat());
        run("a key as a filter file", &["sniff", "voip", "-r", "call.pcap", "--filter-file", file]);
        run("a key as a capture", &["sniff", "voip", "-r", file]);
        run("a key shown as a certificate", &["certs", "show", file]);
    }
    told
}

/// Everything in a pcapng file but the packets, which are what somebody asked for: names, comments, and where they begin and end.
fn beside_packets(file: &[u8]) -> Vec<u8> {
    let word = |at: usize| usize::try_from(u32::from_le_bytes(file[at..at + 4].try_into().unwrap())).unwrap();
    let (mut said, mut at, mut packets) = (Vec::new(), 0, 0);
    while at < file.len() {
        let block = &file[at..at + word(at + 4)];
        // an enhanced packet block (draft-ietf-opsawg-pcapng §4.3): 28 bytes, the packet to a multiple of 4, its options
        let from = if word(at) == 6 { 28 + word(at + 20).next_multiple_of(4) } else { 0 };
        packets += usize::from(word(at) == 6);
        said.extend(&block[from..]);
        at += block.len();
    }
    assert!(packets > 0, "{} bytes", file.len());
    said
}

#[test]
fn fifty_secrets_stand_nowhere_but_where_they_were_put() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let mut canaries = Canaries::default();
    let environment = prepare(dir, &mut canaries);
    fs::write(dir.join("call.pcap"), call(&mut canaries)).unwrap();
    let mistakes = mistakes(dir, &mut canaries);
    assert!(canaries.0.len() >= 50, "{}", canaries.0.len());

    // the whole chain, everything kept and every line logged that names nobody
    let mut command = Command::new(LC);
    command.envs(environment.iter().map(|(k, v)| (k, v)));
    let tls =
        ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt", "--api-keys", "keys"];
    let calls = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--per-call-pcap-pattern", "{timestamp}_{callid}.pcapng"];
    let files = ["--state-dir", "state", "-w", "all.pcapng", "--filter-file", "filters.yaml"];
    let more = ["--metrics-listen", "127.0.0.1:0", "--stats", "-c", "lc.yaml"];
    let processor = Processor::spawn(command, dir, 0, &[&tls[..], &calls, &files, &more].concat());
    let address = format!("localhost:{}", processor.port);
    let remote = ["-P", &address, "--tls-ca", "c/ca.crt"];
    let run = |arguments: &[&str]| {
        let mut command = Command::new(LC);
        command.envs(environment.iter().map(|(k, v)| (k, v)));
        command.args(arguments).args(remote).current_dir(dir).env("HOME", dir).output().unwrap()
    };
    let hunted = run(&["hunt", "voip", "-r", "call.pcap", "--id", "edge", "--api-key-file", "hunter.key", "--durability", "wal"]);
    let refused =
        run(&["hunt", "voip", "-r", "call.pcap", "--id", "edge", "--api-key-file", "wrong.key", "--connect-timeout", "1s"]);
    let shown: Vec<Output> = [&["list", "hunters"][..], &["show", "status"], &["show", "hunter", "edge"]]
        .iter()
        .map(|what| run(&[what, &["--api-key-file", "admin.key", "--output-format", "json"][..]].concat()))
        .collect();
    let mut dump = Command::new(LC);
    dump.env("LIPPYCAT_FILTERS__PHONE", &environment[0].1).args(["config", "dump", "-c", "lc.yaml"]);
    let dump = dump.current_dir(dir).env("HOME", dir).output().unwrap();
    let sniffed = lc(dir, &["sniff", "voip", "-r", "call.pcap", "--output-format", "json", "--sip-user", "alice"]);
    let pages = ["/metrics", "/statusz", "/readyz"].map(|page| get(port_of(&processor), page).unwrap().1);
    let proc = |name: &str| fs::read(format!("/proc/{}/{name}", processor.id())).unwrap_or_default();
    let (line, limits) = (proc("cmdline"), String::from_utf8(proc("limits")).unwrap());
    let memory = fs::metadata(format!("/proc/{}/mem", processor.id())).unwrap().uid();
    let log = processor.stop();

    assert!(hunted.status.success(), "{}", String::from_utf8_lossy(&hunted.stderr));
    assert_eq!(refused.status.code(), Some(3), "{}\n{log}", String::from_utf8_lossy(&refused.stderr));
    assert!(shown.iter().all(|s| s.status.success()), "{shown:?}");
    for (what, output) in &mistakes {
        assert!(!output.status.success(), "{what}: {}", String::from_utf8_lossy(&said(output)));
        canaries.are_not_in(what, &said(output));
    }
    for output in shown.iter().chain([&hunted, &refused, &dump, &sniffed]) {
        canaries.are_not_in("what a command says", &said(output));
    }
    for page in &pages {
        canaries.are_not_in("a page", page.as_bytes());
    }
    canaries.are_not_in("the command line", &line);
    canaries.are_not_in("the log", log.as_bytes());
    let (mut records, mut captures) = (0, vec![dir.join("all.pcapng")]);
    for entry in fs::read_dir(dir.join("calls")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            records += 1;
            canaries.are_not_in("the record of a call", &fs::read(path).unwrap());
        } else {
            captures.push(path);
        }
    }
    assert_eq!((records, captures.len()), (1, 2), "{log}");
    for path in captures {
        let said = beside_packets(&fs::read(&path).unwrap());
        let holds = |what: &str| memchr::memmem::find(&said, what.as_bytes()).is_some();
        assert!(holds("hunter: edge") && holds("filters: f3"), "{}: {}", path.display(), String::from_utf8_lossy(&said));
        canaries.are_not_in("the comments of a capture", &said);
    }
    assert!(limits.lines().any(|l| l.starts_with("Max core file size") && l.split_whitespace().nth(4) == Some("0")), "{limits}");
    assert_eq!(memory, 0, "not dumpable: its memory is root's to read");
}
