//! Our processor with an old monitor.

use serde_json::{Value, json};

use super::old::{FILTERS, Old, VOIP, batch, packet, start};
use super::{base64, calls, calls_capture, num};
use crate::whole::{Processor, lc, succeed};

/// What a monitor sees once it has received so many messages.
fn watched(monitor: &mut Old, count: usize) -> Vec<Value> {
    monitor.read("SubscribePackets", count)
}

/// Opens a subscription, and waits until it is one.
fn subscribe(processor: &Processor, monitor: &mut Old, request: &Value) {
    let before = processor.log().matches("subscription began").count();
    monitor.ask(&json!({"open": "SubscribePackets", "on": "monitor", "message": request}));
    until(processor, &|log| log.matches("subscription began").count() > before);
}

#[track_caller]
fn until(processor: &Processor, so: &dyn Fn(&str) -> bool) {
    let seen = (0..1200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        so(&processor.log())
    });
    assert!(seen, "{}", processor.log());
}

/// Old monitors connect with their library's limit of 4 MiB.
fn monitor(processor: &Processor) -> Old {
    let mut monitor = Old::at(processor);
    monitor.ask(&json!({"connect": monitor.address, "on": "monitor"}));
    monitor
}

#[test]
fn an_old_monitor_sees_what_an_old_hunter_sends_by_filter_and_its_subscription_is_in_the_log() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &["-w", "all.pcap", "--max-subscribers", "2"]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);
    let [mut one, mut two, mut three] = [(); 3].map(|()| monitor(&processor));
    let filtered = json!({"client_id": "tui", "bpf_filter": "udp port 5060", "hunter_ids": ["edge"], "has_hunter_filter": true});
    subscribe(&processor, &mut one, &filtered);
    subscribe(&processor, &mut two, &json!({"client_id": "tui"}));
    let too_many = three.failure("SubscribePackets", &json!({}));
    let wrong = three.failure("SubscribePackets", &json!({"bpf_filter": "udp port and"}));

    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    let sent: Vec<Value> = calls()[..60].iter().map(packet).collect();
    for n in 1..=3 {
        // the second comes again
        for sequence in [n, n.min(2)] {
            let part = &sent[20 * (sequence - 1)..20 * sequence];
            old.ask(&json!({"send": "StreamPackets", "message": batch(sequence, part)}));
        }
    }
    let seen = watched(&mut two, 3);
    let of_sip = watched(&mut one, 1);
    one.ask(&json!({"leave": "monitor"}));
    until(&processor, &|log| log.contains("subscription ended"));
    let log = processor.stop();
    let end = two.ask(&json!({"read": "SubscribePackets", "count": 1_000_000}));

    let bytes = |batches: &[Value]| -> Vec<String> {
        let packets = batches.iter().flat_map(|b| b["packets"].as_array().unwrap());
        packets.map(|p| p["data"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bytes(&seen[..3]), calls()[..60].iter().map(|(_, _, data)| base64(data)).collect::<Vec<_>>());
    assert_eq!((&seen[0]["hunter_id"], num(&seen[0]["sequence"])), (&json!("edge"), 1));
    let sip = calls()[..60].iter().filter(|(_, _, d)| d[34..36] == [0x13, 0xc4] || d[36..38] == [0x13, 0xc4]).count();
    assert!(!of_sip.is_empty() && sip > 0 && sip < 60, "{sip}");
    assert!(too_many.starts_with("RESOURCE_EXHAUSTED") && too_many.contains("--max-subscribers"), "{too_many}");
    assert!(wrong.starts_with("INVALID_ARGUMENT") && wrong.contains("syntax error"), "{wrong}");
    assert_eq!(end["ended"], "OK", "the processor stopped");
    let ended = log.lines().find(|l| l.contains("subscription ended")).unwrap();
    for part in
        ["\"target\":\"audit\"", "\"client\":\"tui\"", "\"filter\":\"udp port 5060\"", "\"hunters\":\"edge\"", "\"skipped\":0"]
    {
        assert!(ended.contains(part), "{part}: {ended}");
    }
    let whole = log.lines().filter(|l| l.contains("subscription ended")).nth(1).unwrap();
    assert!(whole.contains("\"offered\":60,\"delivered\":60"), "{whole}");
}

/// It decodes nothing of SIP itself: its list of calls is made of what the messages say.
#[test]
fn an_old_monitor_learns_of_calls_from_what_a_hunter_of_ours_forwards() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let filters = "filters:\n  - {id: user, type: sip_user, pattern: alice}\n";
    let Some(processor) = start(dir, filters, &[]) else { return };
    let mut monitor = monitor(&processor);
    subscribe(&processor, &mut monitor, &json!({}));

    let address = format!("127.0.0.1:{}", processor.port);
    let capture = calls_capture();
    succeed(dir, &["hunt", "voip", "-P", &address, "--insecure", "--id", "edge-1", "-r", capture.to_str().unwrap()]);
    until(&processor, &|_| {
        let status = lc(dir, &["show", "status", "-P", &address, "--insecure", "--output-format", "json"]);
        String::from_utf8_lossy(&status.stdout).replace(' ', "").contains("\"total_packets_received\":424")
    });
    let status = lc(dir, &["show", "status", "-P", &address, "--insecure"]);
    processor.stop();
    let seen = monitor.ask(&json!({"read": "SubscribePackets", "count": 1_000_000}));

    let batches = seen["messages"].as_array().unwrap();
    let packets: Vec<&Value> = batches.iter().flat_map(|b| b["packets"].as_array().unwrap()).collect();
    let methods = packets.iter().filter_map(|p| p["metadata"]["sip"]["method"].as_str()).filter(|m| *m == "INVITE").count();
    assert_eq!((packets.len(), seen["ended"].as_str()), (424, Some("OK")));
    assert!(methods >= 4, "alice has four calls: {methods}");
    assert!(packets.iter().all(|p| p["metadata"]["sip"]["call_id"].as_str().is_some_and(|id| !id.is_empty())));
    assert!(batches.iter().all(|b| b["hunter_id"] == "edge-1"));
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.lines().any(|l| l.starts_with("subscribers") && l.contains("1 (packets skipped: 0)")), "{said}");
}

#[test]
fn subscriptions_are_for_subscribers_and_end_with_their_certificate() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    if !super::there() {
        return;
    }
    for (role, id) in [("processor", "mid"), ("hunter", "edge"), ("subscriber", "desk")] {
        if role == "processor" {
            succeed(dir, &["certs", "init", "--dir", "c"]);
        }
        let dns: &[&str] = if role == "processor" { &["--dns", "localhost"] } else { &[] };
        succeed(dir, &[&["certs", "issue", role, id, "--dir", "c"], dns].concat());
    }
    let tls = ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt"];
    let more = ["--tls-client-auth", "--tls-crl", "c/ca.crl", "--id", "mid", "--state-dir", "state"];
    let processor = Processor::start(dir, &[&tls[..], &more].concat());
    let mut old = Old::near(&processor);
    let pem = |name: &str| dir.join("c").join(name);
    for (on, who) in [("control", "hunter-edge"), ("monitor", "subscriber-desk")] {
        let (cert, key) = (pem(&format!("{who}.crt")), pem(&format!("{who}.key")));
        old.ask(&json!({"connect": old.address, "on": on, "ca": pem("ca.crt"), "cert": cert, "key": key}));
    }

    let denied = old.failure("SubscribePackets", &json!({}));
    subscribe(&processor, &mut old, &json!({}));
    succeed(dir, &["certs", "revoke", "subscriber", "desk", "--dir", "c"]);
    let end = old.ask(&json!({"read": "SubscribePackets", "count": 1_000_000}));
    until(&processor, &|log| log.contains("subscription ended"));
    let log = processor.stop();

    assert!(denied.starts_with("PERMISSION_DENIED") && denied.contains("admin, subscriber"), "{denied}");
    assert!(!end["ended"].as_str().unwrap().starts_with("OK"), "{end}");
    assert!(log.contains("\"who\":\"subscriber desk\""), "{log}");
}
