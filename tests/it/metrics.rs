//! `--metrics-listen` of the real binary: the equation in every answer while packets flow and the processor comes and goes, health, and no word of
//! anybody who is captured.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use crate::privacy::{captures, secrets};
use crate::whole::{LC, Processor, wait_for};

/// One page; status and body. `None` when nobody answers, or not to the end.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())?;
    assert!(length >= body.len(), "{head}");
    (length == body.len()).then_some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The port of `--metrics-listen` in a log.
pub(crate) fn metrics_port(log: &str) -> Option<u16> {
    let line = log.lines().find(|l| l.contains("serving metrics"))?;
    line.split("\"address\":\"127.0.0.1:").nth(1)?.split('"').next()?.parse().ok()
}

pub(crate) fn port_of(processor: &Processor) -> u16 {
    wait_for(|| metrics_port(&processor.log()).is_some());
    metrics_port(&processor.log()).unwrap()
}

/// A running hunter and its log.
struct Hunter {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Hunter {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(LC)
            .args(arguments)
            .args(["--metrics-listen", "127.0.0.1:0", "--log-format", "json"])
            .current_dir(dir)
            .env("HOME", dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                to.lock().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, log, reader }
    }

    fn port(&self) -> u16 {
        wait_for(|| metrics_port(&self.log.lock()).is_some());
        metrics_port(&self.log.lock()).unwrap()
    }

    fn ended(mut self) -> String {
        assert!(self.child.wait().unwrap().success(), "{}", self.log.lock());
        self.reader.join().unwrap();
        Arc::try_unwrap(self.log).unwrap().into_inner()
    }
}

fn n(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value}"))
}

fn sum(of: &Value, terms: &[&str]) -> i64 {
    terms.iter().map(|t| n(&of[*t])).sum()
}

/// Adds up what `/statusz` says; how many packets were taken in so far.
pub(crate) fn check_status(text: &str) -> i64 {
    let s: Value = serde_json::from_str(text).unwrap();
    let e = &s["equation"];
    for equation in e.as_object().unwrap().values() {
        assert_eq!(equation["difference"], 0, "{text}");
    }
    if s["role"] == "hunter" {
        let (k1, k2, k3) = (&e["k1"], &e["k2"], &e["k3"]);
        assert_eq!(n(&k1["kernel_seen"]), sum(k1, &["captured", "kernel_dropped", "interface_dropped", "in_ring"]), "{text}");
        let out = ["matched", "filtered", "duplicates", "own", "held", "dropped"];
        assert_eq!(sum(k2, &["captured", "shared"]), sum(k2, &out), "{text}");
        assert_eq!(sum(k3, &["matched", "recovered"]), sum(k3, &["acked", "in_memory", "on_disk", "dropped"]), "{text}");
        n(&k2["captured"])
    } else {
        let (p1, p2) = (&e["p1"], &e["p2"]);
        let rejected: i64 = p1["rejected"].as_object().unwrap().values().map(n).sum();
        assert_eq!(n(&p1["received"]), sum(p1, &["unique", "duplicate", "waiting"]) + rejected, "{text}");
        assert_eq!(n(&p2["unique"]), sum(p2, &["committed", "in_queue", "dropped", "doubled", "unwanted"]), "{text}");
        n(&p1["received"])
    }
}

/// Every line of `/metrics` is one; the value of a name, all labels added up.
fn check_metrics(text: &str) -> impl Fn(&str) -> f64 {
    let mut known: Option<&str> = None;
    let mut values: Vec<(String, f64)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            known = rest.split(' ').next();
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("lc_") && known.is_some_and(|k| name.starts_with(k)), "{line} below {known:?}");
        values.push((name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
    }
    assert!((20..2000).contains(&values.len()), "{} series", values.len());
    move |name| values.iter().filter(|(n, _)| n == name).map(|(_, v)| v).sum()
}

/// Asks for everything again and again until told to stop; how many answers, and in how many of them packets had come since.
fn sample(port: u16, stop: &Arc<AtomicBool>) -> JoinHandle<(u32, u32)> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut samples, mut moved, mut before) = (0, 0, 0);
        while !stop.load(Ordering::Relaxed) {
            // the process may end at any time
            let (Some((200, status)), Some((200, metrics))) = (get(port, "/statusz"), get(port, "/metrics")) else { break };
            let now = check_status(&status);
            let value = check_metrics(&metrics);
            assert!(value("lc_conservation_error_packets").abs() < 0.5, "{metrics}");
            samples += 1;
            moved += u32::from(now > before);
            before = now;
        }
        (samples, moved)
    })
}

/// A capture file of so many UDP packets, evenly spread over some seconds.
fn numbered(path: &Path, packets: u32, secs: u32) {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.extend(word.to_le_bytes());
    }
    for i in 0..packets {
        let mut frame =
            vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        frame.extend([0x30, 0x39, 0x30, 0x3a, 0, 108, 0, 0]);
        frame.extend(i.to_be_bytes());
        frame.resize(142, 0x55);
        let micros = u64::from(i) * u64::from(secs) * 1_000_000 / u64::from(packets);
        for word in [1_700_000_000 + micros / 1_000_000, micros % 1_000_000, 142, 142] {
            out.extend(u32::try_from(word).unwrap().to_le_bytes());
        }
        out.extend(frame);
    }
    fs::write(path, out).unwrap();
}

#[test]
#[expect(clippy::print_stdout, reason = "says how much was looked at")]
fn the_equation_holds_in_every_answer_while_packets_flow_and_a_processor_goes_and_comes() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    numbered(&dir.join("n.pcap"), 60_000, 6);
    let process = ["--insecure", "-w", "all.pcap", "--state-dir", "state", "--metrics-listen", "127.0.0.1:0"];
    let processor = Processor::start(dir, &process);
    let address = format!("127.0.0.1:{}", processor.port);
    let stop = Arc::new(AtomicBool::new(false));
    let sampled_processor = sample(port_of(&processor), &stop);

    let hunt = ["hunt", "-P", &address, "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates"];
    let paced = ["-r", "n.pcap", "--speed", "1x", "--durability", "wal", "--disk-buffer-dir", "spool", "--batch-size", "64"];
    let hunter = Hunter::start(dir, &[&hunt[..], &paced].concat());
    let port = hunter.port();
    let at_hunter = sample(port, &stop);
    wait_for(|| get(port, "/statusz").is_some_and(|(_, s)| check_status(&s) > 10_000));
    let health = (get(port, "/readyz").unwrap().0, get(port, "/livez").unwrap().0, get(port, "/nothing").unwrap().0);
    let again = processor.port;
    let first = processor.stop();
    wait_for(|| get(port, "/metrics").is_some_and(|(_, m)| m.contains("lc_connected 0\n")));
    let cut_off = get(port, "/readyz").unwrap();
    let processor = Processor::start_at(dir, again, &process);
    let second_sampled = sample(port_of(&processor), &stop);
    let by_curl = Command::new("curl")
        .args(["-sS", "--max-time", "10"])
        .args(["/metrics", "/statusz"].map(|path| format!("http://127.0.0.1:{port}{path}")))
        .output();
    let said = hunter.ended();
    let figures = get(port_of(&processor), "/metrics").unwrap().1;
    let of = check_metrics(&figures);
    stop.store(true, Ordering::Relaxed);
    let second = processor.stop();

    let (samples, moved) = at_hunter.join().unwrap();
    let (processor_samples, processor_moved) = sampled_processor.join().unwrap();
    let (last_samples, last_moved) = second_sampled.join().unwrap();
    println!(
        "hunter {samples} answers, {moved} while packets came; processor {processor_samples}+{last_samples}, {processor_moved}+{last_moved}"
    );
    match by_curl {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout);
            let (metrics, status) = text.split_once("lc_metrics_left_out 0\n").unwrap_or_else(|| panic!("{text}{out:?}"));
            assert!(check_status(status) > 0 && metrics.contains("lc_captured_packets_total "), "{text}");
        }
        Err(e) => crate::not_run::say("curl", &e.to_string()),
    }
    assert!(samples > 50 && moved > 20, "{samples} {moved}");
    assert!(processor_samples + last_samples > 50 && processor_moved + last_moved > 10);
    assert_eq!((health, cut_off.0), ((200, 200, 404), 200), "an outage is no reason to restart a capture: {}", cut_off.1);
    assert!(said.contains("\"acknowledged\":60000") && said.contains("\"difference\":\"k1=0 k2=0 k3=0\""), "{said}\n{second}");
    assert!(said.contains("\"lately\":\"1s=0 1m=0 1h=0\""), "{said}");
    assert_eq!(crate::whole::frames(&dir.join("all.pcap")).len(), 60_000, "{first}\n{second}");
    assert_eq!((of("lc_insecure"), of("lc_flow_control_state"), of("lc_hunters")), (1.0, 1.0, 1.0), "{figures}");
    assert!(of("lc_commit_duration_seconds_count") > 0.0 && of("lc_dropped_packets_total") == 0.0, "{figures}");
}

#[test]
fn figures_name_nobody_and_certificates_are_watched() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let lc = |arguments: &[&str]| crate::whole::succeed(dir, arguments);
    lc(&["certs", "init", "--dir", "c"]);
    lc(&["certs", "issue", "processor", "mid", "--dns", "localhost", "--ip", "127.0.0.1", "--dir", "c"]);
    lc(&["certs", "issue", "hunter", "edge", "--dir", "c"]);
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t1, type: sip_user, pattern: alice}\n").unwrap();
    let tls =
        ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt", "--tls-client-auth"];
    let files = ["--filter-file", "f.yaml", "--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "state"];
    let processor = Processor::start(dir, &[&tls[..], &files, &["--metrics-listen", "127.0.0.1:0"]].concat());
    let address = format!("localhost:{}", processor.port);
    let captures = captures();
    let secrets = secrets(&captures);
    let mut hunt = vec!["hunt", "voip", "-P", &address, "--id", "edge", "--tls-ca", "c/ca.crt"];
    hunt.extend(["--tls-cert", "c/hunter-edge.crt", "--tls-key", "c/hunter-edge.key", "--speed", "1x", "-r"]);
    let calls = crate::whole::calls_capture();
    hunt.push(calls.to_str().unwrap());

    let mut hunter = Hunter::start(dir, &hunt);
    let (port, at_processor) = (hunter.port(), port_of(&processor));
    wait_for(|| get(port, "/statusz").is_some_and(|(_, s)| check_status(&s) > 50));
    let mut text = String::new();
    for port in [port, at_processor] {
        for path in ["/metrics", "/statusz", "/livez", "/readyz"] {
            let (_, page) = get(port, path).unwrap();
            // what a figure means is the same for everybody
            page.lines().filter(|l| !l.starts_with("# HELP")).for_each(|l| text.extend([l, "\n"]));
        }
    }
    hunter.child.kill().unwrap();
    hunter.child.wait().unwrap();
    processor.stop();

    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || "\"{}[](),='<>;".contains(c)).collect();
    let is_ours = |s: &str| ["edge", "mid", "127.0.0.1", "localhost"].contains(&s);
    let named: Vec<&String> = secrets
        .iter()
        .filter(|s| {
            !s.is_empty() && !is_ours(s) && if s.len() > 6 { text.contains(s.as_str()) } else { words.contains(&s.as_str()) }
        })
        // a number may be anything's
        .filter(|s| s.parse::<u64>().is_err())
        .collect();
    assert!(named.is_empty(), "{named:?}: {text}");
    assert!(text.matches("lc_cert_expiry_seconds{role=\"own\"} 7").count() == 2, "90 days in seconds begin with 7: {text}");
    assert!(text.contains("lc_insecure 0\n") && text.contains("lc_hunter_up{hunter=\"edge\"} 1\n"), "{text}");
}

#[test]
fn an_address_in_use_ends_the_start_and_says_why() {
    let tmp = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let out = crate::whole::lc(
        tmp.path(),
        &["process", "--insecure", "-l", "127.0.0.1:0", "--state-dir", "s", "--metrics-listen", &address],
    );

    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}: another program has this address")), "{said}");
}

#[test]
fn the_alerts_ask_for_what_there_is() {
    let alerts = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus/alerts.yml")).unwrap();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    numbered(&dir.join("n.pcap"), 2000, 2);
    // with a processor above, which is away: it has figures of that too
    let above = ["-P", "127.0.0.1:1", "--upstream-insecure"];
    let own = ["--insecure", "-w", "all.pcap", "--state-dir", "state", "--metrics-listen", "127.0.0.1:0"];
    let processor = Processor::start(dir, &[&own[..], &above].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    let hunt = ["hunt", "-P", &address, "--insecure", "--no-filter-policy", "allow", "-r", "n.pcap", "--speed", "1x"];
    let hunter = Hunter::start(dir, &hunt);
    let port = hunter.port();
    wait_for(|| get(port, "/metrics").is_some_and(|(_, m)| m.contains("lc_connected 1\n")));
    let there = get(port, "/metrics").unwrap().1 + &get(port_of(&processor), "/metrics").unwrap().1;
    hunter.ended();
    processor.stop();

    let mut asked = 0;
    for word in alerts
        .lines()
        .filter(|l| l.trim_start().starts_with("expr:"))
        .flat_map(|l| l.split(|c: char| !c.is_alphanumeric() && c != '_'))
    {
        if word.starts_with("lc_") {
            asked += 1;
            assert!(there.contains(&format!("# TYPE {word} ")), "{word}");
        }
    }
    assert!(asked >= 8, "{asked}");
}

/// Figures that the reliability contract names, by role.
const BOTH: &[&str] = &[
    "lc_build_info",
    "lc_memory_budget_bytes",
    "lc_memory_short",
    "lc_config_reload_total",
    "lc_insecure",
    "lc_conservation_error_packets",
    "lc_dropped_packets_total",
    "lc_inflight_packets",
    "lc_flow_control_state",
    "lc_calls_active",
    "lc_calls_evicted_total",
    "lc_parser_panics_total",
    "lc_cert_expiry_seconds",
    "lc_lost_packets",
    "lc_metrics_left_out",
];
const OF_A_HUNTER: &[&str] = &[
    "lc_kernel_packets_total",
    "lc_kernel_dropped_packets_total",
    "lc_interface_dropped_packets_total",
    "lc_captured_packets_total",
    "lc_matched_packets_total",
    "lc_acked_packets_total",
    "lc_spool_bytes",
    "lc_spool_oldest_seconds",
    "lc_ack_latency_seconds",
    "lc_breaker_state",
    "lc_parse_errors_total",
    "lc_parse_limit_total",
    "lc_flows_evicted_total",
    "lc_tcp_reassembly_dropped_bytes_total",
    "lc_defrag_evicted_total",
];
const OF_A_PROCESSOR: &[&str] = &[
    "lc_commit_duration_seconds",
    "lc_duplicates_total",
    "lc_hunter_up",
    "lc_hunter_clock_skew_seconds",
    "lc_pcap_reopen_total",
    "lc_calls_denied_total",
    "lc_connections_refused_total",
    "lc_unfinished_message_bytes",
];

#[test]
fn the_figures_of_the_contract_are_there_and_what_is_read_again_is_counted() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    numbered(&dir.join("n.pcap"), 4000, 8);
    fs::write(dir.join("f.yaml"), "filters:\n  - {id: t1, type: sip_user, pattern: alice}\n").unwrap();
    let files = ["--filter-file", "f.yaml", "-w", "all.pcap", "--state-dir", "state", "--memory-limit", "1G"];
    let processor = Processor::start(dir, &[&["--insecure", "--metrics-listen", "127.0.0.1:0"][..], &files].concat());
    let address = format!("127.0.0.1:{}", processor.port);
    let hunt = ["hunt", "-P", &address, "--insecure", "--no-filter-policy", "allow", "-r", "n.pcap", "--speed", "1x"];
    let mut hunter = Hunter::start(dir, &[&hunt[..], &["--memory-limit", "512M"]].concat());
    let (of_hunter, of_processor) = (hunter.port(), port_of(&processor));
    wait_for(|| get(of_hunter, "/metrics").is_some_and(|(_, m)| m.contains("lc_connected 1\n")));
    wait_for(|| get(of_processor, "/metrics").is_some_and(|(_, m)| m.contains("lc_hunter_up{")));

    let pages = [of_hunter, of_processor].map(|port| get(port, "/metrics").unwrap().1);
    // as an editor does it: half a file would be one more that cannot be used
    let put = |text: &str| {
        fs::write(dir.join("f.new"), text).unwrap();
        fs::rename(dir.join("f.new"), dir.join("f.yaml")).unwrap();
    };
    put("filters: [{id: t1, type: nonsense}]\n");
    wait_for(|| get(of_processor, "/metrics").is_some_and(|(_, m)| m.contains("lc_config_reload_total{result=\"failure\"} 1\n")));
    put("filters:\n  - {id: t2, type: sip_user, pattern: bob}\n");
    let hung_up = Command::new("kill").args(["-HUP", &hunter.child.id().to_string()]).status().unwrap();
    wait_for(|| get(of_hunter, "/metrics").is_some_and(|(_, m)| m.contains("lc_config_reload_total{result=\"success\"} 1\n")));
    wait_for(|| {
        get(of_processor, "/metrics").is_some_and(|(_, m)| m.contains("lc_filters_version ") && m.contains("lc_filters 1\n"))
    });
    let last = get(of_processor, "/metrics").unwrap().1;
    hunter.child.kill().unwrap();
    hunter.child.wait().unwrap();
    processor.stop();

    for (page, own) in pages.iter().zip([OF_A_HUNTER, OF_A_PROCESSOR]) {
        for name in BOTH.iter().chain(own) {
            assert!(page.contains(&format!("# TYPE {name} ")), "{name}: {page}");
        }
        let value = check_metrics(page);
        assert!(value("lc_parser_panics_total") == 0.0 && value("lc_metrics_left_out") == 0.0, "{page}");
    }
    assert!(hung_up.success());
    assert!(pages[0].contains("lc_memory_budget_bytes{of=\"limit\"} 536870912\n"), "{}", pages[0]);
    assert!(pages[1].contains("lc_memory_budget_bytes{of=\"limit\"} 1073741824\n"), "{}", pages[1]);
    assert!(pages[0].contains("lc_kernel_packets_total{if=\"file\"} "), "{}", pages[0]);
    assert!(last.contains("lc_config_reload_total{result=\"failure\"} 1\n"), "{last}");
}
