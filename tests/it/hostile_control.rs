//! A hostile peer on the control plane beside a good hunter: registrations by the thousand and as large as they may be, heartbeats without end
//! that lie and stop again and again, subscriptions that nobody reads. Refusals are counted, memory stays bounded, and every packet of the good
//! hunter arrives.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use lippycat::wire::management::{
    FilterError, FilterRequest, HunterCapabilities, HunterHeartbeat, HunterRegistration, HunterStats, HunterStatus,
};
use tokio::time::timeout;

use super::hostile::{REGISTER, call, http2, resident};
use super::hostile_good::{Good, assert_stored};
use super::hostile_hunter::framed;
use super::metrics::{get, port_of};
use super::whole::Processor;

pub(super) const HEARTBEAT: &str = "/lippycat.management.ManagementService/Heartbeat";
const FILTERS: &str = "/lippycat.management.ManagementService/SubscribeFilters";
/// Half of the calls are refused at least: what they bring is more than a sixteenth of it.
const LIMIT: &str = "256M";
/// Hunters that register, each with as much as it may say.
const HUNTERS: usize = 400;

fn registration(id: &str, texts: usize) -> HunterRegistration {
    let names = || (0..texts).map(|n| format!("{n:0100}")).collect::<Vec<_>>();
    HunterRegistration {
        hunter_id: id.into(),
        durable_acks: true,
        instance: 7,
        interfaces: names(),
        capabilities: Some(HunterCapabilities { filter_types: names(), ..HunterCapabilities::default() }),
        epochs: (0..4000).collect(),
        ..HunterRegistration::default()
    }
}

/// Calls, and the status that came back.
pub(super) async fn said(connection: &SendRequest<Bytes>, path: &str, message: Bytes) -> String {
    let (answer, mut body) = connection.clone().ready().await.unwrap().send_request(call(path), false).unwrap();
    let _cut = body.send_data(message, true);
    let Ok(answer) = timeout(Duration::from_secs(20), answer).await.unwrap() else { return "reset".into() };
    match answer.headers().get("grpc-status") {
        Some(status) => status.to_str().unwrap().to_owned(),
        None => "0".into(),
    }
}

/// A heartbeat that lies about all it can.
fn beat(id: &str, n: u64) -> Bytes {
    let error = |m: u64| FilterError { id: format!("{n}-{m}-{}", "x".repeat(500)), reason: "y".repeat(500) };
    let stats = HunterStats {
        kernel_dropped: if n.is_multiple_of(2) { u64::MAX } else { 0 },
        interface_dropped: n,
        packets_captured: u64::MAX,
        drops: (0..100).map(|m| (format!("{n}-{m}-{}", "z".repeat(200)), u64::MAX)).collect(),
        ..HunterStats::default()
    };
    let mut beat = HunterHeartbeat {
        hunter_id: id.into(),
        timestamp_ns: if n.is_multiple_of(3) { i64::MIN } else { i64::MAX },
        stats: Some(stats),
        filter_version: n,
        filter_errors: (0..200).map(error).collect(),
        ..HunterHeartbeat::default()
    };
    beat.set_status(if n.is_multiple_of(2) { HunterStatus::StatusStopping } else { HunterStatus::StatusHealthy });
    framed(&beat)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn registrations_heartbeats_and_subscriptions_without_end_are_bounded_and_counted() {
    let tmp = tempfile::tempdir().unwrap();
    let start =
        ["--insecure", "--state-dir", "state", "-w", "all.pcap", "--memory-limit", LIMIT, "--metrics-listen", "127.0.0.1:0"];
    let processor = Processor::start(tmp.path(), &start);
    let before = resident(processor.id());
    let good = Good::start(tmp.path(), &processor);
    let evil = http2(processor.port).await.unwrap();

    let mut statuses = std::collections::BTreeMap::<String, usize>::new();
    for n in 0..HUNTERS {
        let status = said(&evil, REGISTER, framed(&registration(&format!("evil-{n}"), 900))).await;
        *statuses.entry(status).or_default() += 1;
    }
    let huge = said(&evil, REGISTER, framed(&registration(&"x".repeat(100_000), 1))).await;
    let large = said(&evil, REGISTER, framed(&registration("large", 3000))).await;
    assert_eq!(said(&evil, REGISTER, framed(&registration("beats", 1))).await, "0", "a small one has room still");
    // on one stream, as fast as they are taken
    let (answer, mut beats) = evil.clone().ready().await.unwrap().send_request(call(HEARTBEAT), false).unwrap();
    // read, since the client ends a connection with too many small frames that nobody reads
    let answers = tokio::spawn(async move {
        let Ok(answer) = answer.await else { return };
        let mut body = answer.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _room = body.flow_control().release_capacity(data.len());
        }
    });
    for n in 0..300 {
        let bytes = beat("beats", n);
        beats.reserve_capacity(bytes.len());
        while beats.capacity() < bytes.len() {
            let room = timeout(Duration::from_secs(20), std::future::poll_fn(|cx| beats.poll_capacity(cx))).await;
            room.expect("it is read on").unwrap().unwrap();
        }
        beats.send_data(bytes, false).unwrap();
    }
    // and subscriptions, of one hunter and of many, that nobody reads
    let mut kept = Vec::new();
    for n in 0..50 {
        let request = FilterRequest { hunter_id: if n < 25 { "beats".into() } else { format!("evil-{}", n - 25) } };
        let ready = timeout(Duration::from_secs(5), evil.clone().ready()).await.unwrap().unwrap();
        let mut ready = ready;
        let (answer, mut body) = ready.send_request(call(FILTERS), false).unwrap();
        body.send_data(framed(&request), true).unwrap();
        kept.push(answer);
    }
    let sent = tokio::task::block_in_place(|| good.end());
    let grown = resident(processor.id()).saturating_sub(before);
    let port = port_of(&processor);
    let figures = tokio::task::block_in_place(|| get(port, "/metrics")).unwrap().1;
    answers.abort();
    drop((beats, kept));
    let log = processor.stop();

    let value = |series: &str| -> f64 {
        let line = figures.lines().find_map(|l| l.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{series}: {figures}")).trim().parse().unwrap()
    };
    let refused = statuses.get("8").copied().unwrap_or_default();
    println!("{statuses:?}, {} MiB", grown >> 20);
    assert!(refused >= HUNTERS / 2 && statuses.get("0").copied().unwrap_or_default() > 20, "{statuses:?}");
    assert_eq!((huge.as_str(), large.as_str()), ("3", "3"));
    assert!(
        (value("lc_registrations_refused_total{reason=\"crowded\"}") - f64::from(u32::try_from(refused).unwrap())).abs() < 0.5
    );
    assert!((value("lc_registrations_refused_total{reason=\"bad_id\"}") - 1.0).abs() < 0.5);
    assert!(value("lc_registration_bytes") <= f64::from(16 << 20) && value("lc_heartbeats_cut_total") > 100.0, "{figures}");
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    assert!(log.contains("p1=0 p2=0"), "{log}");
    let told = log.lines().filter(|l| l.contains("filters applied by hunter") && l.contains("\"beats\"")).count();
    assert_eq!(told, 0, "versions that never were: {log}");
    assert_stored(&tmp.path().join("all.pcap"), sent);
}
