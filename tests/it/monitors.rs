//! Monitors at the real binary: fifty that read nothing, beside one that reads everything.

use std::io::Write;

use lippycat::wire::data::data_service_client::DataServiceClient;
use lippycat::wire::data::{PacketBatch, SubscribeRequest};
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::numbered_file::{header, record};
use super::whole::{Processor, frames, succeed};

/// Of 550 bytes: three times what a monitor's ring holds.
const PACKETS: u64 = 48_000;

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
    let processor = Processor::start(dir, &["--insecure", "-w", "all.pcap", "--state-dir", "state"]);
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
        std::thread::sleep(std::time::Duration::from_millis(10));
        processor.log().matches("subscription began").count() == 51
    });
    assert!(seated, "{}", processor.log());

    succeed(dir, &["hunt", "-P", &address, "--insecure", "--id", "edge", "--no-filter-policy", "allow", "-r", "in.pcap"]);
    let log = processor.stop();
    let (packets, told) = runtime.block_on(reader).unwrap();
    drop(stalled);

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
