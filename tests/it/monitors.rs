//! Monitors at the real binary: fifty that read nothing, beside one that reads everything.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lippycat::wire::data::data_service_client::DataServiceClient;
use lippycat::wire::data::{PacketBatch, SubscribeRequest};
use serde_json::Value;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::metrics::{check_status, get, metrics_port};
use super::numbered_file::{header, record};
use super::whole::{LC, Processor, frames, wait_for};

/// Of 550 bytes: three times what a monitor's ring holds.
const PACKETS: u64 = 48_000;

/// So many go to the hunter at a time; in between somebody looks.
const HANDFUL: u64 = 2000;

/// Puts the packets through a hunter while the equations of the processor are looked at ten times a second; how many had come at each look.
fn hunt_watched(dir: &Path, address: &str, pages: u16) -> Vec<i64> {
    let mut hunter = Command::new(LC)
        .args(["hunt", "-P", address, "--insecure", "--id", "edge", "--no-filter-policy", "allow", "-r", "-"])
        .current_dir(dir)
        .env("HOME", dir)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = hunter.stdin.take().unwrap();
    let looks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut came = Vec::new();
            while looks.load(Ordering::Acquire) != u64::MAX {
                let (_, text) = get(pages, "/statusz").unwrap();
                came.push(check_status(&text));
                let of: Value = serde_json::from_str(&text).unwrap();
                let n = |term: &str| of["subscribers"][term].as_u64().unwrap();
                assert_eq!(
                    (n("now"), n("offered")),
                    (51, n("delivered") + n("skipped") + n("filtered") + n("waiting")),
                    "{text}"
                );
                let _last = looks.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n != u64::MAX).then(|| n + 1));
                std::thread::sleep(Duration::from_millis(100));
            }
            came
        });
        input.write_all(&header()).unwrap();
        for first in (0..PACKETS).step_by(usize::try_from(HANDFUL).unwrap()) {
            let before = looks.load(Ordering::Acquire);
            (first..first + HANDFUL).for_each(|n| input.write_all(&record(n)).unwrap());
            wait_for(|| watch.is_finished() || looks.load(Ordering::Acquire) > before);
        }
        drop(input);
        let status = hunter.wait().unwrap();
        looks.store(u64::MAX, Ordering::Release);
        assert!(status.success(), "{status}");
        watch.join().unwrap()
    })
}

/// What a monitor that reads everything gets: packets, and how many it is told that it missed; at the end of its stream.
async fn read_all(mut stream: Streaming<PacketBatch>) -> (u64, u64) {
    let (mut packets, mut skipped) = (0, 0);
    while let Some(batch) = stream.message().await.unwrap() {
        packets += batch.packets.len() as u64;
        skipped += batch.skipped_packets;
    }
    (packets, skipped)
}

#[test]
fn fifty_monitors_that_read_nothing_keep_nobody_from_storing_and_a_stop_is_clean() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let mut capture = std::fs::File::create(dir.join("in.pcap")).unwrap();
    capture.write_all(&header()).unwrap();
    (0..PACKETS).for_each(|n| capture.write_all(&record(n)).unwrap());
    let processor =
        Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state", "--metrics-listen", "127.0.0.1:0"]);
    let address = format!("127.0.0.1:{}", processor.port);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().initial_stream_window_size(65_535);
    let subscribe = async || {
        let mut client = DataServiceClient::new(endpoint.connect().await.unwrap());
        client.subscribe_packets(SubscribeRequest::default()).await.unwrap().into_inner()
    };
    let (stalled, reader) = runtime.block_on(async {
        let mut stalled = Vec::new();
        for _ in 0..50 {
            stalled.push(subscribe().await);
        }
        (stalled, subscribe().await)
    });
    let reader = runtime.spawn(read_all(reader));
    let seated = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        processor.log().matches("subscription began").count() == 51
    });
    assert!(seated, "{}", processor.log());

    let looks = hunt_watched(dir, &address, metrics_port(&processor.log()).unwrap());
    let log = processor.stop();
    let (packets, told) = runtime.block_on(reader).unwrap();
    drop(stalled);

    let between = looks.iter().filter(|came| (1..i64::try_from(PACKETS).unwrap()).contains(*came)).count();
    assert!(between as u64 > PACKETS / HANDFUL / 2, "it was looked at while packets came: {looks:?}");
    assert_eq!(frames(&dir.join("all.pcap")), frames(&dir.join("in.pcap")));
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    assert_eq!(packets + told, PACKETS, "delivered and skipped make what was offered");
    let ends: Vec<&str> = log.lines().filter(|l| l.contains("subscription ended")).collect();
    let of = |line: &str, key: &str| -> u64 {
        let rest = line.split(&format!("\"{key}\":")).nth(1).unwrap();
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    };
    assert_eq!(ends.len(), 51, "{log}");
    assert!(ends.iter().all(|l| of(l, "offered") == PACKETS && of(l, "delivered") + of(l, "skipped") == PACKETS), "{ends:#?}");
    assert!(ends.iter().filter(|l| of(l, "skipped") > PACKETS / 2).count() >= 50, "{ends:#?}");
}
