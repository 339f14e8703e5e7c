//! A hunter that was let in and whose packets are not what a hunter sends: memory, files and the calls of others stay as they are.

use lippycat::wire::data::{CapturedPacket, PacketBatch, PacketContext};

use super::flood::{ipv4, peak_of, tcp};
use super::hostile::http2;
use super::hostile_hunter::{batch, framed, register, told};
use super::whole::Processor;

/// One packet of the first context.
pub(super) fn packet(data: Vec<u8>) -> CapturedPacket {
    let length = u32::try_from(data.len()).unwrap();
    CapturedPacket {
        data: data.into(),
        timestamp_ns: 1_700_000_000_000_000_000,
        capture_length: length,
        original_length: length,
        link_type: 1,
        context: 1,
        ..CapturedPacket::default()
    }
}

/// A batch of the evil hunter with these packets of one call.
pub(super) fn of_call(call_id: &str, sequence: u64, packets: Vec<CapturedPacket>) -> PacketBatch {
    let context = PacketContext { call_id: call_id.into(), filter_ids: vec!["f".into()], ..PacketContext::default() };
    PacketBatch { packets, contexts: vec![context], ..batch("evil", 9, sequence) }
}

/// 250 000 bytes of a message that is announced as longer and never ends, in segments.
fn endless(n: u32) -> Vec<CapturedPacket> {
    let head = format!(
        "INVITE sip:b@example.net SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK{n}\r\nFrom: <sip:a@example.net>;tag=a\r\nTo: <sip:b@example.net>\r\n\
         Call-ID: c{n}\r\nCSeq: 1 INVITE\r\nContent-Length: 255000\r\n\r\n"
    );
    let bytes = [head.into_bytes(), vec![b'x'; 250_000]].concat();
    let mut seq = 1;
    let mut all = Vec::new();
    for piece in bytes.chunks(1400) {
        all.push(packet(ipv4(n, 6, 0, &tcp(n, seq, 16, piece))));
        seq += u32::try_from(piece.len()).unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hunter_leaves_unfinished_in_many_calls_stays_within_the_limit() {
    const LIMIT: u64 = 96 << 20;
    let tmp = tempfile::tempdir().unwrap();
    let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "--state-dir", "state", "--durability", "process"];
    let processor = Processor::start(tmp.path(), &[&["--insecure", "--memory-limit", "96M"], &files[..]].concat());
    let evil = http2(processor.port).await.unwrap();
    register(&evil, "evil").await;

    for round in 0..30_u32 {
        let batches = (0..10).map(|n| round * 10 + n);
        let batches = batches.map(|n| framed(&of_call(&format!("c{n}"), u64::from(n) + 1, endless(n)))).collect();
        assert_eq!(told(&evil, batches).await, "0");
    }
    let peak = peak_of(processor.id());
    let log = processor.stop();

    assert!(log.contains("p1=0 p2=0"), "{log}");
    assert!(peak <= LIMIT + LIMIT / 10, "{} MiB", peak >> 20);
}
