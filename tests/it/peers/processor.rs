//! Our hunter with an old processor.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Lines, Peer, Running, base64, calls, is_now, num, pcap, texts, there};
use crate::not_run;
use crate::whole::{LC, calls_capture};

struct Processor {
    peer: Peer,
    port: u64,
}

impl Processor {
    /// `None` where there are no old peers.
    fn start(settings: &[Value]) -> Option<Self> {
        if !there() {
            return None;
        }
        let peer = Peer::start("processor.py");
        let port = peer.hear()["listening"].as_u64().unwrap();
        let mut processor = Self { peer, port };
        for setting in settings {
            processor.tell(setting);
            assert_eq!(processor.peer.hear(), json!({"done": true}));
        }
        Some(processor)
    }

    fn tell(&mut self, setting: &Value) {
        self.peer.tell(setting);
    }

    /// What it is told of up to the first call of that name, that one included.
    fn until(&self, call: &str) -> Vec<Value> {
        let lines = self.peer.said.until(&format!("{{\"call\": \"{call}\""));
        lines.iter().map(|l| serde_json::from_str(l).unwrap()).filter(|v: &Value| v.get("call").is_some()).collect()
    }

    /// Acknowledges every batch of `events` and those to come, until there are so many packets.
    fn acknowledge(&mut self, mut events: Vec<Value>, count: usize) -> Vec<Value> {
        let mut next = 0;
        loop {
            for event in events[next..].iter().filter(|e| e["call"] == "batch") {
                self.peer.tell(&json!({"control": {"ack_sequence": event["batch"]["sequence"]}}));
            }
            next = events.len();
            if packets(&events).len() >= count {
                return events;
            }
            events.extend(self.until("batch"));
        }
    }

    /// The rest, once no hunter is there any more.
    fn rest(mut self) -> Vec<Value> {
        drop(self.peer.running.stdin.take());
        let lines = self.peer.said.rest();
        lines.iter().map(|l| serde_json::from_str(l).unwrap()).filter(|v: &Value| v.get("call").is_some()).collect()
    }
}

fn filter(id: &str, kind: &str, pattern: &str) -> Value {
    json!({"id": id, "type": kind, "pattern": pattern, "enabled": true})
}

/// `lc hunt` towards that processor; packets come from its standard input when `capture` is `-`.
fn hunt(dir: &Path, port: u64, capture: &Path, more: &[&str]) -> (Running, Lines) {
    let address = format!("127.0.0.1:{port}");
    let (voip, more) = more.split_at(usize::from(more.first() == Some(&"voip")));
    let mut command = Command::new(LC);
    command
        .arg("hunt")
        .args(voip)
        .args(["-P", &address, "--insecure", "--id", "edge", "--log-format", "json", "-r"])
        .arg(capture)
        .args(more)
        .env("HOME", dir)
        .stderr(Stdio::piped());
    let mut running = Running::new(&mut command);
    let said = Lines::of(running.child.stderr.take().unwrap());
    (running, said)
}

fn of<'v>(events: &'v [Value], call: &str) -> Vec<&'v Value> {
    events.iter().filter(|e| e["call"] == call).collect()
}

fn packets(events: &[Value]) -> Vec<&Value> {
    of(events, "batch").into_iter().flat_map(|b| b["batch"]["packets"].as_array().unwrap()).collect()
}

#[test]
fn an_old_processor_sees_registration_stream_filters_and_heartbeats_on_two_connections_of_one_hunter() {
    let Some(mut processor) = Processor::start(&[json!({"hold": true, "filters": [filter("a", "FILTER_SIP_USER", "alice")]})])
    else {
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let (hunter, said) = hunt(tmp.path(), processor.port, &calls_capture(), &["voip"]);

    // nothing is acknowledged before the second heartbeat: the hunter waits (for 10 s), and they keep coming
    let mut events = Vec::new();
    for _ in 0..2 {
        events.extend(processor.until("Heartbeat"));
    }
    let batches = of(&events, "batch").iter().map(|b| num(&b["batch"]["sequence"])).collect::<Vec<_>>();
    for sequence in &batches {
        processor.tell(&json!({"control": {"ack_sequence": sequence}}));
    }
    let code = hunter.exit_code();
    let said = said.rest().join("\n");
    assert_eq!(code, Some(0), "{said}");
    events.extend(processor.rest());

    // what comes on two connections has no order between them
    assert_eq!(events[0]["call"], "RegisterHunter");
    let peer = |call: &str| of(&events, call)[0]["peer"].as_str().unwrap().to_owned();
    assert_eq!((peer("SubscribeFilters"), peer("Heartbeat")), (peer("RegisterHunter"), peer("RegisterHunter")));
    assert_ne!(peer("StreamPackets"), peer("RegisterHunter"), "packets have a connection of their own");
    assert_eq!(of(&events, "SubscribeFilters")[0]["message"]["hunter_id"], "edge");
    let beats = of(&events, "Heartbeat");
    assert!(beats.len() >= 3);
    for beat in &beats {
        is_now(&beat["message"]["timestamp_ns"]);
    }
    let (last, before) = beats.split_last().unwrap();
    assert_eq!(last["message"]["status"], "STATUS_STOPPING");
    assert!(before.iter().all(|b| b["message"]["status"] == "STATUS_HEALTHY"), "{before:?}");
    assert_eq!(last["message"]["stats"]["packets_matched"], "424");
    assert_eq!(last["message"]["stats"]["packets_forwarded"], "424");
    let registered = &of(&events, "RegisterHunter")[0]["message"];
    let kinds = texts(&registered["capabilities"]["filter_types"]);
    for kind in ["bpf", "ip_address", "sip_user", "phone_number", "sip_uri", "imsi", "imei"] {
        assert!(kinds.contains(&kind), "{kind} is not announced: {kinds:?}");
    }
    assert!(said.contains("\"delivery\":\"best_effort\""), "an acknowledgement from there means received, not stored: {said}");
}

#[test]
fn an_old_processor_gets_the_time_of_capture_in_packets_and_now_in_batches() {
    let Some(processor) = Processor::start(&[]) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let allow = ["--no-filter-policy", "allow", "--keep-duplicates"];
    let (hunter, _said) = hunt(tmp.path(), processor.port, &calls_capture(), &allow);

    assert_eq!(hunter.exit_code(), Some(0));
    let events = processor.rest();

    let got = packets(&events);
    let sent = calls();
    assert_eq!(got.len(), sent.len());
    for (got, (ns, wire, data)) in got.iter().zip(&sent) {
        assert_eq!((num(&got["timestamp_ns"]), num(&got["original_length"])), (u64::try_from(*ns).unwrap(), u64::from(*wire)));
        assert_eq!((got["data"].as_str().unwrap(), num(&got["capture_length"])), (&*base64(data), data.len() as u64));
        assert_eq!((num(&got["link_type"]), got["interface_name"].as_str().unwrap().is_empty()), (1, false));
    }
    let batches = of(&events, "batch");
    for (n, event) in (1..).zip(&batches) {
        let batch = &event["batch"];
        assert_eq!((batch["hunter_id"].as_str(), num(&batch["sequence"])), (Some("edge"), n));
        is_now(&batch["timestamp_ns"]);
        assert_eq!(event["unknown"], json!([]), "an old node is told nothing it does not know");
    }
}

#[test]
fn a_batch_for_an_old_processor_stays_below_ten_mebibytes_whatever_the_frames() {
    let Some(processor) = Processor::start(&[json!({"terse": true})]) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let mut frame = calls()[0].2.clone();
    frame.resize(60_000, 0);
    let file = tmp.path().join("large.pcap");
    let many: Vec<_> = (0..400).map(|n| (1_000_000_000 + n, 60_000, frame.clone())).collect();
    std::fs::write(&file, pcap(&many)).unwrap();
    let largest = ["--no-filter-policy", "allow", "--keep-duplicates", "--batch-bytes", "4M", "--batch-size", "16384"];

    let (hunter, said) = hunt(tmp.path(), processor.port, &file, &largest);

    assert_eq!(hunter.exit_code(), Some(0), "{}", said.rest().join("\n"));
    let events = processor.rest();
    let sizes: Vec<u64> = of(&events, "batch").iter().map(|b| num(&b["size"])).collect();
    assert!(sizes.len() > 4 && sizes.iter().all(|s| *s < 5 << 20), "{sizes:?}");
    assert_eq!(packets(&events).len(), 400);
}

#[test]
fn a_hostile_name_reaches_an_old_processor_as_valid_text() {
    let Some(processor) = Processor::start(&[]) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let mut call: Vec<_> = calls().into_iter().filter(|f| f.2.windows(5).any(|w| w == b"alice")).collect();
    for (_, _, data) in &mut call {
        while let Some(at) = data.windows(5).position(|w| w == b"alice") {
            data[at..at + 5].copy_from_slice(b"\xff\xfe\x80ce");
        }
    }
    let file = tmp.path().join("odd.pcap");
    std::fs::write(&file, pcap(&call)).unwrap();

    let (hunter, said) = hunt(tmp.path(), processor.port, &file, &["voip", "--no-filter-policy", "allow"]);

    assert_eq!(hunter.exit_code(), Some(0), "{}", said.rest().join("\n"));
    let events = processor.rest();
    let names: Vec<&str> = packets(&events).iter().filter_map(|p| p["metadata"]["sip"]["from_user"].as_str()).collect();
    assert!(names.contains(&"\u{fffd}\u{fffd}\u{fffd}ce"), "{names:?}");
}

#[test]
fn packets_for_an_old_processor_name_their_call_and_filters_and_nothing_is_empty() {
    let Some(processor) = Processor::start(&[json!({"filters": [filter("a", "FILTER_SIP_USER", "alice")]})]) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let (hunter, _said) = hunt(tmp.path(), processor.port, &calls_capture(), &["voip"]);

    assert_eq!(hunter.exit_code(), Some(0));
    let events = processor.rest();

    let got = packets(&events);
    assert_eq!(got.len(), 424);
    let (mut sip, mut rtp) = (0, 0);
    for p in got {
        assert_eq!(texts(&p["matched_filter_ids"]), ["a"]);
        let meta = &p["metadata"];
        assert!(!meta["sip"]["call_id"].as_str().unwrap().is_empty(), "{meta}");
        if let Some(media) = meta.get("rtp") {
            assert_eq!(num(&media["payload_type"]), 8, "{media}");
            rtp += 1;
        } else {
            assert!(meta["sip"]["cseq_method"] != "" && meta["sip"]["from_user"] != "", "{meta}");
            sip += 1;
        }
    }
    assert_eq!((sip, rtp), (24, 400));
}

/// The packets that reach an old processor with these filters in the registration, and these updates before the first packet.
fn chosen(registered: &[Value], updates: &[Value], in_force: usize) -> Option<usize> {
    let mut processor = Processor::start(&[json!({"filters": registered})])?;
    let tmp = tempfile::tempdir().unwrap();
    let (mut hunter, said) = hunt(tmp.path(), processor.port, Path::new("-"), &["voip"]);
    let bytes = pcap(&calls());
    hunter.write(&bytes[..24]);
    processor.until("SubscribeFilters");
    for update in updates {
        processor.tell(&json!({"update": update}));
    }
    let last = format!("\"message\":\"filters applied\",\"filters\":{in_force},");
    // the registration's, each of them again, and the updates
    for _ in 0..1 + registered.len() + updates.len() {
        said.until("\"message\":\"filters applied\"");
        if registered.is_empty() && updates.is_empty() {
            said.until(&last);
        }
    }
    hunter.write(&bytes[24..]);
    assert_eq!(hunter.exit_code(), Some(0), "{}", said.rest().join("\n"));
    let events = processor.rest();
    let mut times: Vec<u64> = packets(&events).iter().map(|p| num(&p["timestamp_ns"])).collect();
    times.sort_unstable();
    let all = times.len();
    times.dedup();
    assert_eq!(times.len(), all, "a filter given twice selects nothing twice");
    Some(all)
}

fn update(kind: &str, filter: &Value) -> Value {
    json!({"update_type": kind, "filter": filter})
}

#[test]
fn an_old_processors_filters_count_from_the_registration_and_from_the_stream_alike() {
    if !there() {
        return;
    }
    let alice = filter("a", "FILTER_SIP_USER", "alice");
    let carol = filter("c", "FILTER_SIP_USER", "carol");
    let (udp, tcp) = (filter("b", "FILTER_BPF", "udp"), filter("b", "FILTER_BPF", "tcp"));
    let add = |f| update("UPDATE_ADD", f);

    assert_eq!(chosen(&[alice.clone(), udp.clone()], &[], 2), Some(424));
    assert_eq!(chosen(&[alice.clone(), tcp.clone()], &[], 2), Some(0), "a BPF filter of the registration restricts");
    assert_eq!(chosen(&[], &[add(&alice), add(&udp)], 2), Some(424));
    assert_eq!(chosen(std::slice::from_ref(&alice), &[add(&tcp)], 2), Some(0), "and one of the stream");
    let swapped = [add(&carol), update("UPDATE_DELETE", &alice), update("UPDATE_MODIFY", &udp)];
    assert_eq!(chosen(&[alice, tcp], &swapped, 2), Some(424), "carol's calls instead");
}

#[test]
fn an_old_processors_bare_pattern_means_contains() {
    if !there() {
        return;
    }
    assert_eq!(chosen(&[filter("a", "FILTER_SIP_USER", "lic")], &[], 1), Some(424));
    assert_eq!(chosen(&[filter("a", "FILTER_SIP_USER", "lic*")], &[], 1), Some(0));
}

#[test]
fn a_pause_of_an_old_processor_ends_with_its_resume_and_costs_no_packet() {
    let Some(mut processor) = Processor::start(&[json!({"hold": true, "filters": [filter("a", "FILTER_SIP_USER", "alice")]})])
    else {
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let (mut hunter, said) = hunt(tmp.path(), processor.port, Path::new("-"), &["voip"]);
    let bytes = pcap(&calls());
    // enough for a batch of 64 KiB
    let half = 24 + calls()[..950].iter().map(|f| 16 + f.2.len()).sum::<usize>();
    hunter.write(&bytes[..half]);
    let mut events = processor.until("batch");
    processor.tell(&json!({"control": {"flow_control": "FLOW_PAUSE"}}));
    events.extend(processor.until("Heartbeat"));
    hunter.write(&bytes[half..]);
    drop(hunter.stdin.take());

    // until the next heartbeat the rest is captured, and waits
    events.extend(processor.until("Heartbeat"));
    assert!(packets(&events).len() < 424, "{} packets in spite of the pause", packets(&events).len());
    processor.tell(&json!({"control": {"flow_control": "FLOW_RESUME"}}));
    processor.acknowledge(events, 424);

    assert_eq!(hunter.exit_code(), Some(0), "{}", said.rest().join("\n"));
}

#[test]
fn each_connection_to_an_old_processor_numbers_its_batches_from_one_and_what_was_not_acknowledged_comes_again() {
    let Some(mut processor) = Processor::start(&[json!({"hold": true, "filters": [filter("a", "FILTER_SIP_USER", "alice")]})])
    else {
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let (hunter, said) = hunt(tmp.path(), processor.port, &calls_capture(), &["voip"]);
    let before = processor.until("batch");
    processor.tell(&json!({"end": true}));
    let between = processor.until("RegisterHunter");
    let after = processor.acknowledge(Vec::new(), 424);

    assert_eq!(hunter.exit_code(), Some(0), "{}", said.rest().join("\n"));
    let first = |events: &[Value]| num(&of(events, "batch")[0]["batch"]["sequence"]);
    assert_eq!((first(&before), first(&after)), (1, 1), "{between:?}");
    assert_eq!(packets(&after).len(), 424, "all of it, since nothing was acknowledged");
}

#[test]
fn what_a_processor_calls_its_filters_stays_within_a_line_of_the_log() {
    let evil = "evil\nlevel=ERROR\r\u{1b}[31m\u{2028}\u{202e}";
    let filters = [
        filter(evil, "FILTER_SIP_USER", "a"),
        filter(&"x".repeat(5000), "FILTER_SIP_USER", "b"),
        filter("c", "FILTER_BPF", evil),
    ];
    let Some(processor) = Processor::start(&[json!({"filters": filters})]) else { return };
    let tmp = tempfile::tempdir().unwrap();

    let (_hunter, said) = hunt(tmp.path(), processor.port, &calls_capture(), &["voip"]);

    let said = said.until("\"message\":\"filters applied\"");
    let refused: Vec<Value> =
        said.iter().filter(|l| l.contains("filter cannot be applied")).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(refused.len(), 3, "{said:?}");
    for text in refused.iter().flat_map(|line| [&line["filter"], &line["reason"]]).map(|text| text.as_str().unwrap()) {
        assert!(
            text.len() < 1100 && !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}')),
            "{text:?}"
        );
    }
}

#[test]
fn an_old_processor_that_is_full_is_named_with_what_it_said() {
    let Some(processor) = Processor::start(&[json!({"refuse": "RESOURCE_EXHAUSTED"})]) else { return };
    let tmp = tempfile::tempdir().unwrap();

    let (hunter, said) = hunt(tmp.path(), processor.port, &calls_capture(), &["--connect-timeout", "1s"]);

    assert_eq!(hunter.exit_code(), Some(3));
    let said = said.rest();
    let error = said.iter().find(|l| l.starts_with("error: ")).unwrap();
    assert!(
        error.contains(&format!("127.0.0.1:{}", processor.port)) && error.contains("maximum number of hunters reached"),
        "{error}"
    );
}

#[test]
fn the_interface_any_reaches_an_old_processor_as_linux_sll() {
    let Some(processor) = Processor::start(&[]) else { return };
    if !not_run::is_root() {
        return not_run::say_unless_it_must("capturing on 'any'", "it needs root");
    }
    let tmp = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", processor.port);
    let mut command = Command::new(LC);
    command
        .args(["hunt", "-P", &address, "--insecure", "--id", "edge", "-i", "any", "-f", "udp port 40123"])
        .args(["--no-filter-policy", "allow", "--count", "1", "--log-format", "json"])
        .env("HOME", tmp.path())
        .stderr(Stdio::piped());
    let mut running = Running::new(&mut command);
    let said = Lines::of(running.child.stderr.take().unwrap());
    said.until("\"message\":\"connected\"");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // the capture begins when it begins
    while running.child.try_wait().unwrap().is_none() {
        socket.send_to(b"hello", "127.0.0.1:40123").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }

    let events = processor.rest();
    let links: Vec<u64> = packets(&events).iter().map(|p| num(&p["link_type"])).collect();
    assert!(!links.is_empty() && links.iter().all(|l| *l == 113), "{links:?}: {}", said.rest().join("\n"));
}
