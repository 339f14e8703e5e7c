//! Our processor with an old hunter, and with an old monitor.

use std::path::Path;

use serde_json::{Value, json};

use super::old::{FILTERS, Old, VOIP, batch, ids, packet, registration, start};
use super::{calls, is_now, num, texts, there};
use crate::not_run;
use crate::whole::{Processor, frames, lc};

#[test]
fn an_old_hunter_is_accepted_under_its_id_with_its_filters_and_a_configuration() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);

    let answer = old.register("edge", VOIP);

    assert_eq!((&answer["accepted"], &answer["assigned_id"], &answer["error"]), (&json!(true), &json!("edge"), &json!("")));
    assert_eq!(ids(&answer["filters"]), ["net", "user"]);
    assert_eq!(num(&answer["config"]["batch_size"]), 64);
    assert_eq!(num(&answer["config"]["batch_timeout_ms"]), 100);
    assert_eq!(answer["config"]["processor_id"], "mid");
    let again = old.register("edge", VOIP);
    assert_eq!(again["accepted"], true, "the same hunter, again");
    processor.stop();
}

#[test]
fn a_hunter_gets_the_filters_of_the_kinds_it_announced_and_by_their_old_names() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);

    assert_eq!(ids(&old.register("http", &["bpf", "ip_address", "http_path"])["filters"]), ["net", "url"]);
    assert_eq!(ids(&old.register("another", &["sip_user"])["filters"]), ["other", "user"]);
    let bare = old.call("RegisterHunter", &json!({"hunter_id": "bare"}));
    assert_eq!(ids(&bare["filters"]), ["net"], "announced nothing: bpf and ip_address");
    assert_eq!(ids(&old.call("GetFilters", &json!({"hunter_id": "http"}))["filters"]), ["net", "url"]);
    assert_eq!(ids(&old.call("GetFilters", &json!({}))["filters"]), ["net", "off", "other", "url", "user"]);
    processor.stop();
}

#[test]
fn an_old_hunter_is_told_patterns_that_mean_to_it_what_they_mean_to_us() {
    let tmp = tempfile::tempdir().unwrap();
    let filters = "filters:\n  - {id: a, type: sip_user, pattern: alice}\n  - {id: b, type: sip_user, pattern: bob*}\n  \
                   - {id: c, type: phone_number, pattern: +49 30 1234567}\n  - {id: d, type: sip_uri, pattern: dan@example.com}\n";
    let Some(processor) = start(tmp.path(), filters, &[]) else { return };
    let mut old = Old::at(&processor);

    let told = old.register("edge", VOIP);
    let kinds: Vec<_> = told["filters"].as_array().unwrap().iter().map(|f| (f["type"].as_str(), f["pattern"].as_str())).collect();
    assert_eq!(
        kinds,
        [
            (Some("FILTER_SIP_URI"), Some("alice@*")),
            (Some("FILTER_SIP_USER"), Some("bob*")),
            (Some("FILTER_PHONE_NUMBER"), Some("49301234567")),
            (Some("FILTER_SIP_URI"), Some("dan@example.com*")),
        ]
    );
    old.ask(&json!({"open": "SubscribeFilters", "on": "control", "message": {"hunter_id": "edge"}}));
    assert_eq!(old.updates(4), ["+a=alice@*", "+b=bob*", "+c=49301234567", "+d=dan@example.com*"]);
    let shown = old.call("GetFilters", &json!({}));
    assert_eq!(shown["filters"][0]["pattern"], "alice", "monitors see what was written");
    let log = processor.stop();
    assert!(log.contains("an old hunter cannot apply these filters exactly") && log.contains("\"filters\":1"), "{log}");
}

#[test]
fn a_subscription_says_the_current_filters_first_then_every_change_and_stays_open() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);

    old.ask(&json!({"open": "SubscribeFilters", "on": "control", "message": {"hunter_id": "edge"}}));
    assert_eq!(old.updates(2), ["+net=192.0.2.0/24", "+user=alice@*"]);
    std::fs::write(tmp.path().join("f.yaml"), "filters:\n  - {id: new, type: sip_user, pattern: dan*}\n").unwrap();
    assert_eq!(old.updates(5)[2..], ["+new=dan*", "-net", "-user"]);
    std::fs::write(tmp.path().join("f.yaml"), "filters:\n  - {id: new, type: sip_user, pattern: eve*}\n").unwrap();
    assert_eq!(old.updates(6)[5..], ["~new=eve*"]);
    processor.stop();
}

#[test]
fn a_filter_deleted_while_an_old_hunter_was_not_subscribed_is_gone_when_it_subscribes_again() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);
    old.ask(&json!({"connect": old.address, "on": "short"}));
    old.ask(&json!({"open": "SubscribeFilters", "on": "short", "message": {"hunter_id": "edge"}}));
    old.updates(2);
    old.ask(&json!({"leave": "short"}));
    std::fs::write(tmp.path().join("f.yaml"), "filters:\n  - {id: net, type: ip_address, pattern: 192.0.2.0/24}\n").unwrap();
    while ids(&old.call("GetFilters", &json!({}))["filters"]) != ["net"] {}

    old.ask(&json!({"open": "SubscribeFilters", "on": "control", "message": {"hunter_id": "edge"}}));

    assert_eq!(old.updates(2), ["+net=192.0.2.0/24", "-user"]);
    processor.stop();
}

#[test]
fn every_heartbeat_is_answered_and_a_clock_in_the_past_makes_nobody_sick() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);
    old.ask(&json!({"open": "Heartbeat", "on": "control"}));

    for n in 1..=3 {
        let beat =
            json!({"hunter_id": "edge", "timestamp_ns": 1000, "status": "STATUS_WARNING", "stats": {"packets_captured": n}});
        let answer = old.exchange("Heartbeat", &beat, n);
        is_now(&answer["timestamp_ns"]);
        assert_eq!((&answer["processor_id"], &answer["hunters_connected"]), (&json!("mid"), &json!(1)));
    }

    let shown = old.call("GetHunterStatus", &json!({"hunter_id": "edge"}));
    assert_eq!(shown["hunters"][0]["status"], "STATUS_WARNING", "what it said of itself, not what its clock says");
    is_now(&shown["hunters"][0]["last_heartbeat_ns"]);
    assert_eq!(shown["hunters"][0]["stats"]["packets_captured"], "3");
    processor.stop();
}

#[test]
fn a_status_has_everything_an_old_monitor_looks_at_without_asking() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);
    let empty = old.call("GetHunterStatus", &json!({}));
    assert_eq!((&empty["processor_stats"]["processor_id"], &empty["hunters"]), (&json!("mid"), &json!([])));
    old.register("edge", VOIP);

    let all = old.call("GetHunterStatus", &json!({}));
    let hunter = &all["hunters"][0];

    assert!(hunter["stats"].is_object(), "before any heartbeat: {hunter}");
    assert_eq!((&hunter["hunter_id"], &hunter["hostname"]), (&json!("edge"), &json!("192.0.2.7")));
    assert_eq!((&hunter["interfaces"], hunter["status"].as_str()), (&json!(["eth0"]), Some("STATUS_HEALTHY")));
    assert!(hunter["remote_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{hunter}");
    assert_eq!((ids(&hunter["filters"]), texts(&hunter["capabilities"]["filter_types"])), (vec!["net", "user"], VOIP.to_vec()));
    let stats = &all["processor_stats"];
    assert_eq!(
        (&stats["status"], num(&stats["total_hunters"]), num(&stats["total_filters"])),
        (&json!("PROCESSOR_HEALTHY"), 1, 5)
    );
    assert_eq!(num(&stats["healthy_hunters"]), 1);
    assert_eq!(old.call("GetHunterStatus", &json!({"hunter_id": "nobody"}))["hunters"], json!([]));
    let listed = old.call("ListAvailableHunters", &json!({}));
    let listed = &listed["hunters"][0];
    assert_eq!((&listed["hunter_id"], &listed["interfaces"]), (&json!("edge"), &json!(["eth0"])));
    assert_eq!((&listed["remote_addr"], &listed["capabilities"]), (&hunter["remote_addr"], &hunter["capabilities"]));
    processor.stop();
}

#[test]
fn answers_fit_into_what_old_peers_receive() {
    let tmp = tempfile::tempdir().unwrap();
    let text = "x".repeat(4000);
    let rows: Vec<String> =
        (0..4000).map(|n| format!("  - {{id: f{n:05}, type: sip_user, pattern: u{n}*, description: {text}}}\n")).collect();
    let Some(processor) = start(tmp.path(), &format!("filters:\n{}", rows.concat()), &[]) else { return };
    let mut old = Old::at(&processor);

    let given = old.register("edge", VOIP)["filters"].as_array().unwrap().len();
    old.ask(&json!({"connect": old.address, "on": "monitor"}));
    let shown = old.ask(&json!({"call": "GetHunterStatus", "on": "monitor"}));

    assert!((1000..4000).contains(&given), "{given}");
    assert!(!shown["answer"]["hunters"][0]["filters"].as_array().unwrap().is_empty(), "{shown}");
    old.ask(&json!({"open": "SubscribeFilters", "on": "control", "message": {"hunter_id": "edge"}}));
    assert_eq!(old.updates(4000).len(), 4000, "the rest comes with the subscription");
    processor.stop();
}

#[test]
fn batches_are_acknowledged_one_by_one_and_the_answers_never_end_by_themselves() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &["-w", "all.pcap"]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", &["bpf", "ip_address"]);
    let all = calls();

    // two connections, each numbering from one, as after a reconnect
    for (connection, part) in all[..20].chunks(10).enumerate() {
        old.ask(&json!({"open": "StreamPackets", "on": "data"}));
        for (n, packets) in part.chunks(5).enumerate() {
            let packets: Vec<Value> = packets.iter().map(packet).collect();
            let control = old.exchange("StreamPackets", &batch(n + 1, &packets), n + 1);
            assert_eq!((num(&control["ack_sequence"]), control["flow_control"].as_str()), (n as u64 + 1, Some("FLOW_CONTINUE")));
        }
        let state = old.ask(&json!({"read": "StreamPackets", "count": 2}));
        assert_eq!(state["ended"], Value::Null, "connection {connection}");
        let end = old.ask(&json!({"close": "StreamPackets"}));
        assert_eq!(end["ended"], "OK");
    }
    let status = old.call("GetHunterStatus", &json!({}));
    is_now(&status["hunters"][0]["last_heartbeat_ns"]);
    assert_eq!(num(&status["processor_stats"]["total_packets_received"]), 20);
    processor.stop();

    assert_eq!(frames(&tmp.path().join("all.pcap")), all[..20]);
}

#[test]
fn a_call_from_an_old_hunter_is_filed_by_the_metadata_of_its_packets() {
    let tmp = tempfile::tempdir().unwrap();
    let more = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--pcap-grace-period", "0s"];
    let Some(processor) = start(tmp.path(), FILTERS, &more) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);
    let (id, call) = first_call();

    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    for (n, packets) in call.chunks(64).enumerate() {
        let packets: Vec<Value> = packets
            .iter()
            .map(|(frame, media)| {
                let mut p = packet(frame);
                p["metadata"] = json!({"sip": {"call_id": id}});
                if *media {
                    p["metadata"]["rtp"] = json!({"ssrc": 1, "payload_type": 8});
                }
                p
            })
            .collect();
        old.exchange("StreamPackets", &batch(n + 1, &packets), n + 1);
    }
    old.ask(&json!({"close": "StreamPackets"}));
    processor.stop();

    let files: Vec<_> = std::fs::read_dir(tmp.path().join("calls")).unwrap().map(|e| e.unwrap().path()).collect();
    let of = |end: &str| files.iter().find(|f| f.to_str().unwrap().ends_with(end)).unwrap_or_else(|| panic!("{end}: {files:?}"));
    let record: Value = serde_json::from_str(&std::fs::read_to_string(of(".json")).unwrap()).unwrap();
    assert_eq!((&record["call_id"], &record["hunters"]), (&json!(id), &json!(["edge"])));
    assert_eq!(record["packets"], json!({"sip": 6, "rtp": 100, "rtcp": 0}));
    let sip: Vec<_> = call.iter().filter(|(_, media)| !media).map(|(f, _)| f.clone()).collect();
    let rtp: Vec<_> = call.iter().filter(|(_, media)| *media).map(|(f, _)| f.clone()).collect();
    assert_eq!((frames(of("_sip.pcap")), frames(of("_rtp.pcap"))), (sip, rtp));
}

/// A packet of a call as the voice mode of an old hunter sends it: first with what it knows of it, then once more without.
fn twice(id: &str, (frame, media): &(Frame, bool)) -> [Value; 2] {
    let mut known = packet(frame);
    known["metadata"] = json!({"sip": {"call_id": id}});
    if *media {
        known["metadata"]["rtp"] = json!({"ssrc": 1, "payload_type": 8});
    }
    let mut again = packet(frame);
    // it stamps packets when it converts them
    again["timestamp_ns"] = json!(frame.0 + 40_000);
    [known, again]
}

#[test]
fn what_an_old_hunter_sends_twice_is_filed_once_and_counted() {
    let tmp = tempfile::tempdir().unwrap();
    let more = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "-w", "all.pcap"];
    let Some(processor) = start(tmp.path(), FILTERS, &more) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);
    let (id, call) = first_call();

    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    let sent: Vec<Value> = call.iter().flat_map(|p| twice(&id, p)).collect();
    for (n, packets) in sent.chunks(64).enumerate() {
        old.exchange("StreamPackets", &batch(n + 1, packets), n + 1);
    }
    old.ask(&json!({"close": "StreamPackets"}));
    let log = processor.stop();

    let original: Vec<_> = call.iter().map(|(f, _)| f.clone()).collect();
    assert_eq!(frames(&tmp.path().join("all.pcap")), original);
    let kept = |end: &str| frames(&named(&tmp.path().join("calls"), end)).len();
    assert_eq!((kept("_sip.pcap"), kept("_rtp.pcap")), (6, 100));
    assert!(log.contains("\"written\":106,\"doubled\":106,\"unwanted\":0"), "{log}");
    assert!(log.contains("p1=0 p2=0"), "{log}");
    let record = std::fs::read_to_string(named(&tmp.path().join("calls"), ".json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["filter_ids"], json!(["user"]), "its packets name no filter, its messages match one");
}

#[test]
fn a_call_that_only_an_old_hunters_wider_words_select_is_not_filed() {
    let tmp = tempfile::tempdir().unwrap();
    // it is told `*ice` and no policy
    let filters = "filters:\n  - {id: case, type: sip_user, pattern: a*ice, media: headers}\n";
    let Some(processor) = start(tmp.path(), filters, &["--per-call-pcap", "--per-call-pcap-dir", "calls", "-w", "all.pcap"])
    else {
        return;
    };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);

    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    // alice's call, carol's, and another of alice's
    let calls = [call_of(1), call_of(2), call_of(6)];
    let sent: Vec<Value> =
        calls.iter().flat_map(|(id, call)| call.iter().flat_map(|p| twice(id, p)).collect::<Vec<_>>()).collect();
    for (n, packets) in sent.chunks(64).enumerate() {
        old.exchange("StreamPackets", &batch(n + 1, packets), n + 1);
    }
    old.ask(&json!({"close": "StreamPackets"}));
    let log = processor.stop();

    let kept = frames(&tmp.path().join("all.pcap"));
    assert_eq!(kept.len(), 212);
    assert!(!kept.iter().any(|f| String::from_utf8_lossy(&f.2).contains("carol")));
    assert!(log.contains("\"written\":212,\"doubled\":318,\"unwanted\":106") && log.contains("p1=0 p2=0"), "{log}");
    let records = crate::whole::records(&tmp.path().join("calls"));
    assert_eq!(records.keys().collect::<Vec<_>>(), [&calls[0].0, &calls[2].0]);
    // nor what was said: it sends whole media whatever the policy
    let media = frames(&named(&tmp.path().join("calls"), "_rtp.pcap"));
    assert!(media.iter().all(|(_, wire, data)| data.len() == 14 + 20 + 8 + 12 && usize::try_from(*wire).unwrap() > data.len()));
}

/// The first file in a folder whose name ends so.
fn named(dir: &Path, end: &str) -> std::path::PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().find(|f| f.to_str().unwrap().ends_with(end)).unwrap_or_else(|| panic!("{end}: {files:?}")).clone()
}

type Frame = (i64, u32, Vec<u8>);

/// The first call of the capture: its Call-ID, its packets, and whether each is media.
fn first_call() -> (String, Vec<(Frame, bool)>) {
    call_of(1)
}

/// The same for another of them.
fn call_of(number: usize) -> (String, Vec<(Frame, bool)>) {
    let text = |f: &Frame| String::from_utf8_lossy(&f.2).into_owned();
    let value = |t: &str, name: &str| t.split(name).nth(1).map(|v| v.split(['\r', ' ']).next().unwrap().to_owned());
    let all = calls();
    let ids = all.iter().filter_map(|f| value(&text(f), "Call-ID: "));
    let id = ids.into_iter().find(|id| id.starts_with(&format!("{number}-"))).unwrap();
    let signalling = |f: &Frame| text(f).contains(&id);
    let ports: Vec<u16> =
        all.iter().filter(|f| signalling(f)).filter_map(|f| value(&text(f), "m=audio ")?.parse().ok()).collect();
    let port = |f: &Frame, at: usize| u16::from_be_bytes([f.2[at], f.2[at + 1]]);
    let media = |f: &Frame| ports.contains(&port(f, 34)) && ports.contains(&port(f, 36));
    let call = all.iter().filter(|f| signalling(f) || media(f)).map(|f| (f.clone(), !signalling(f))).collect();
    (id, call)
}

#[test]
fn a_full_processor_refuses_a_further_hunter_with_resource_exhausted() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &["--max-hunters", "1"]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", VOIP);

    let refused = old.failure("RegisterHunter", &registration("second", VOIP));

    assert!(refused.starts_with("RESOURCE_EXHAUSTED") && refused.contains("--max-hunters"), "{refused}");
    processor.stop();
}

#[test]
fn a_batch_beyond_ten_mebibytes_is_refused_and_what_came_before_it_is_kept() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &["-w", "all.pcap"]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", &["bpf"]);
    let good = calls()[0].clone();
    let mut large = good.clone();
    large.2.resize(6 << 20, 0);

    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    old.exchange("StreamPackets", &batch(1, &[packet(&good)]), 1);
    old.ask(&json!({"send": "StreamPackets", "message": batch(2, &[packet(&large), packet(&large)])}));
    let refused = old.ask(&json!({"read": "StreamPackets", "count": 2}));
    // the next stream is as good as the first
    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    old.exchange("StreamPackets", &batch(1, &[packet(&good)]), 1);
    processor.stop();

    let why = refused["ended"].as_str().unwrap();
    assert!(why.starts_with("RESOURCE_EXHAUSTED") && why.contains("larger than"), "{why}");
    assert_eq!(frames(&tmp.path().join("all.pcap")), [good.clone(), good]);
}

#[test]
fn what_is_not_served_says_so_and_who_is_not_registered_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);

    for call in [
        "UpdateFilter",
        "DeleteFilter",
        "GetTopology",
        "SubscribeTopology",
        "UpdateFilterOnProcessor",
        "DeleteFilterOnProcessor",
        "GetFiltersFromProcessor",
        "RequestAuthToken",
        "SubscribeCorrelatedCalls",
    ] {
        assert!(old.failure(call, &json!({})).starts_with("UNIMPLEMENTED"), "{call}");
    }
    let answer = old.call("RegisterProcessor", &json!({}));
    assert!(answer["error"].as_str().unwrap().contains("needs an id"), "{answer}");
    assert!(old.failure("SubscribeFilters", &json!({"hunter_id": "edge"})).contains("RegisterHunter first"));
    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    old.ask(&json!({"send": "StreamPackets", "message": batch(1, &[packet(&calls()[0])])}));
    let ended = old.ask(&json!({"read": "StreamPackets", "count": 1}));
    assert!(ended["ended"].as_str().unwrap().contains("RegisterHunter first"), "{ended}");
    processor.stop();
}

#[test]
fn pings_without_streams_are_tolerated() {
    let tmp = tempfile::tempdir().unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &[]) else { return };
    let mut old = Old::at(&processor);
    // ten times as often as old peers ping
    let pings = json!([
        ["grpc.keepalive_time_ms", 1000],
        ["grpc.keepalive_permit_without_calls", 1],
        ["grpc.http2.max_pings_without_data", 0]
    ]);
    old.ask(&json!({"connect": old.address, "on": "control", "options": pings}));
    old.register("edge", VOIP);

    std::thread::sleep(std::time::Duration::from_secs(5));

    old.register("edge", VOIP);
    let states = old.ask(&json!({"states": true}));
    assert_eq!(texts(&states["states"]).iter().filter(|s| **s == "READY").count(), 1, "one connection all the time: {states}");
    processor.stop();
}

#[test]
fn an_old_hunter_speaks_tls_with_its_own_library_and_is_who_its_certificate_says() {
    let tmp = tempfile::tempdir().unwrap();
    if !there() {
        return;
    }
    for arguments in [
        &["certs", "init", "--dir", "c"][..],
        &["certs", "issue", "processor", "mid", "--dns", "localhost", "--dir", "c"],
        &["certs", "issue", "hunter", "edge", "--dir", "c"],
    ] {
        assert!(lc(tmp.path(), arguments).status.success());
    }
    let tls =
        ["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt", "--tls-client-auth"];
    let processor = Processor::start(tmp.path(), &[&tls[..], &["--id", "mid", "--state-dir", "state"]].concat());
    let pem = |name: &str| tmp.path().join("c").join(name);
    let mut old = Old::near(&processor);
    let (ca, cert, key) = (pem("ca.crt"), pem("hunter-edge.crt"), pem("hunter-edge.key"));
    old.ask(&json!({"connect": old.address, "on": "control", "ca": ca, "cert": cert, "key": key}));

    assert_eq!(old.register("edge", VOIP)["accepted"], true);
    assert!(old.failure("RegisterHunter", &registration("other", VOIP)).starts_with("PERMISSION_DENIED"));
    processor.stop();
}

#[test]
fn a_pause_is_followed_by_a_resume_unasked_once_there_is_room_on_the_disk() {
    let tmp = tempfile::tempdir().unwrap();
    if !there() {
        return;
    }
    let disk = tmp.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |arguments: &[&str]| std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&disk).status();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "none"]).is_ok_and(|s| s.success()) {
        not_run::say_unless_it_must("a small disk", "mounting one needs root");
        return;
    }
    std::fs::write(disk.join("ballast"), vec![0; 3 << 20]).unwrap();
    let Some(processor) = start(tmp.path(), FILTERS, &["-w", "disk/all.pcap", "--min-free", "512K"]) else { return };
    let mut old = Old::at(&processor);
    old.register("edge", &["bpf"]);
    old.ask(&json!({"open": "StreamPackets", "on": "data"}));
    let (ns, wire, mut data) = calls()[0].clone();
    data.resize(60_000, 0);
    let large: Vec<Value> = (0..20).map(|n| packet(&(ns + n, wire.max(60_000), data.clone()))).collect();

    let paused = old.exchange("StreamPackets", &batch(1, &large), 1);
    std::fs::remove_file(disk.join("ballast")).unwrap();
    // what is in force is repeated while it waits
    let mut answers = old.read("StreamPackets", 3);
    while !answers.iter().any(|a| num(&a["ack_sequence"]) == 1) {
        answers = old.read("StreamPackets", answers.len() + 1);
    }
    let log = processor.stop();
    let written = frames(&disk.join("all.pcap")).len();
    mount(&["umount"]).unwrap();

    assert_eq!(paused["flow_control"], "FLOW_PAUSE", "{log}");
    let rest: Vec<_> = answers[1..].iter().map(|a| (a["flow_control"].as_str().unwrap(), num(&a["ack_sequence"]))).collect();
    assert!(rest.contains(&("FLOW_RESUME", 0)) && rest.contains(&("FLOW_CONTINUE", 1)), "{rest:?}");
    assert_eq!(written, 20, "the batch that met the full disk is whole");
}
