//! Everything that peers can do wrong, at once and for seconds: the log stays short, says what it leaves out, and what is not theirs stands in it.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use lippycat::wire::data::SubscribeRequest;
use lippycat::wire::management::{
    FilterError, FilterRequest, HunterHeartbeat, HunterRegistration, HunterStatus, ProcessorRegistration,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::hostile::{REGISTER, STREAM, call, connect_from, http2};
use super::hostile_control::{HEARTBEAT, said};
use super::hostile_hunter::{batch, framed};
use super::whole::{Processor, wait_for};

/// How long they do it.
const FLOOD: Duration = Duration::from_secs(4);
/// Lines in the worst second.
const LINES: usize = 50;
const PROCESSOR: &str = "/lippycat.management.ManagementService/RegisterProcessor";
const FILTERS: &str = "/lippycat.management.ManagementService/SubscribeFilters";
const MONITOR: &str = "/lippycat.data.DataService/SubscribePackets";

fn hunter(id: &str, version: u64, old: bool) -> HunterRegistration {
    let instance = if old { 0 } else { 7 };
    let id = id.to_owned();
    HunterRegistration {
        hunter_id: id,
        durable_acks: !old,
        instance,
        version: version.to_string(),
        ..HunterRegistration::default()
    }
}

/// A heartbeat of a hunter that can apply no filter, another one each time, and stops every other time.
fn beat(id: &str, n: u64) -> HunterHeartbeat {
    let errors = (0..20).map(|m| FilterError { id: format!("{n}-{m}"), reason: "no".into() });
    let mut beat = HunterHeartbeat {
        hunter_id: id.into(),
        filter_version: n,
        filter_errors: errors.collect(),
        ..HunterHeartbeat::default()
    };
    beat.set_status(if n.is_multiple_of(2) { HunterStatus::StatusStopping } else { HunterStatus::StatusHealthy });
    beat
}

/// What the `n`th call says, and where.
fn words(kind: u64, n: u64) -> (&'static str, Bytes) {
    let id = format!("h{}", n % 200);
    match kind {
        0 => ("/no/such", Bytes::new()),
        1 => (REGISTER, framed(&hunter("a\nb", n, false))),
        2 => (REGISTER, framed(&hunter(&id, n, false))),
        3 => (STREAM, framed(&batch("nobody", n, 1))),
        4 => (PROCESSOR, framed(&ProcessorRegistration { processor_id: "a\nb".into(), ..ProcessorRegistration::default() })),
        5 => (
            PROCESSOR,
            framed(&ProcessorRegistration { processor_id: id, instance: n, depth: 1, ..ProcessorRegistration::default() }),
        ),
        6 => (HEARTBEAT, [framed(&beat(&id, n)), framed(&beat(&id, n + 1))].concat().into()),
        _ => (MONITOR, framed(&SubscribeRequest::default())),
    }
}

/// One kind of call on one connection after another, until the flood is over.
async fn call_on(kind: u64, port: u16, until: Instant) -> u64 {
    let mut n = 0;
    while Instant::now() < until {
        let Some(connection) = http2(port).await else { continue };
        for _ in 0..50 {
            let (path, message) = words(kind, n);
            n += 1;
            if timeout(Duration::from_millis(500), said(&connection, path, message)).await.is_err() {
                break;
            }
        }
    }
    n
}

/// Old hunters that follow the filters, and are told what they cannot apply exactly.
async fn follow(port: u16, until: Instant) -> u64 {
    let mut n = 0;
    while Instant::now() < until {
        let Some(connection) = http2(port).await else { continue };
        for _ in 0..20 {
            let id = format!("old{}", n % 100);
            n += 1;
            let _status = timeout(Duration::from_millis(500), said(&connection, REGISTER, framed(&hunter(&id, n, true)))).await;
            let _open = timeout(Duration::from_millis(500), subscribe(&connection, &id)).await;
        }
    }
    n
}

async fn subscribe(connection: &SendRequest<Bytes>, id: &str) -> Option<()> {
    let mut ready = connection.clone().ready().await.ok()?;
    let (answer, mut body) = ready.send_request(call(FILTERS), false).ok()?;
    body.send_data(framed(&FilterRequest { hunter_id: id.into() }), true).ok()?;
    answer.await.ok().map(drop)
}

/// More connections than an address may have.
async fn crowd(port: u16, until: Instant) -> u64 {
    let (mut n, mut open) = (0, Vec::new());
    while Instant::now() < until {
        open.extend(connect_from(3, port).await);
        n += 1;
        if open.len() > 400 {
            open.clear();
        }
    }
    n
}

/// Lines that peers caused in the worst second, wherever it begins; what an operator does is not theirs.
fn worst(log: &str) -> usize {
    const OPERATORS: [&str; 3] = ["filters changed", "filter file in force", "log level applied"];
    let theirs =
        log.lines().take_while(|line| !line.contains("stopping: ")).filter(|line| !OPERATORS.iter().any(|o| line.contains(o)));
    let millis = |line: &str| -> Option<u64> {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let time = line["timestamp"].as_str()?;
        let part = |range: Range<usize>| -> Option<u64> { time.get(range)?.parse().ok() };
        Some(((part(11..13)? * 60 + part(14..16)?) * 60 + part(17..19)?) * 1000 + part(20..23)?)
    };
    let mut times: Vec<u64> = theirs.map(|line| millis(line).unwrap_or_else(|| panic!("{line}"))).collect();
    times.sort_unstable();
    times.iter().enumerate().map(|(n, from)| times[n..].iter().take_while(|at| **at < from + 1000).count()).max().unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "says what was measured")]
fn all_that_peers_can_do_wrong_at_once_is_a_short_log_in_which_nothing_else_is_missing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let write = |n: u32| {
        fs::write(dir.join("f.yaml"), format!("filters:\n  - {{id: t{n}, type: sip_user, pattern: 'alice*'}}\n")).unwrap();
    };
    write(0);
    let processor = Processor::start(dir, &["--insecure", "--state-dir", "state", "--filter-file", "f.yaml"]);
    let port = processor.port;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let until = Instant::now() + FLOOD;
    let mut flood = JoinSet::new();
    for kind in 0..8 {
        flood.spawn_on(call_on(kind, port, until), runtime.handle());
    }
    flood.spawn_on(follow(port, until), runtime.handle());
    flood.spawn_on(crowd(port, until), runtime.handle());

    // what an operator does meanwhile
    for n in 1..=3 {
        write(n);
        let hung = Command::new("kill").args(["-HUP", &processor.id().to_string()]).status().unwrap();
        assert!(hung.success());
        wait_for(|| processor.log().matches("filter file in force").count() >= usize::try_from(n).unwrap());
    }
    let calls: Vec<u64> = runtime.block_on(flood.join_all());
    let log = processor.stop();

    let mut messages: HashMap<String, u64> = HashMap::new();
    let mut suppressed = 0;
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        *messages.entry(line["message"].as_str().unwrap().to_owned()).or_default() += 1;
        suppressed += line["suppressed"].as_u64().unwrap_or(0);
    }
    let worst = worst(&log);
    println!("{worst} lines in the worst second; {calls:?} calls; {suppressed} lines suppressed; {messages:?}");
    assert!(worst <= LINES, "{worst} lines in a second: {log}");
    for what in ["listening", "filters changed", "log level applied", "stopping: writing what was received", "done"] {
        assert!(messages.contains_key(what), "{what}: {log}");
    }
    for what in [
        "call denied",
        "registration refused",
        "hunter registered",
        "data stream refused",
        "processor refused",
        "hunter cannot apply a filter",
        "hunter stops",
        "connection refused; -v names the peer",
    ] {
        assert!(messages.contains_key(what), "{what}: {log}");
    }
    assert_eq!(messages["subscription began"], messages["subscription ended"], "{log}");
    assert!(suppressed > 0, "{log}");
}
