//! A hunter that was let in and whose packets are not what a hunter sends: memory, files and the calls of others stay as they are.

use lippycat::wire::data::{BatchRelay, BatchStats, CapturedPacket, PacketBatch, PacketContext};

use super::flood::peak_of;
use super::flood_frames::{invite, ipv4, tcp, udp};
use super::hostile::http2;
use super::hostile_good::{Good, assert_stored};
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
    let files = ["--per-call-pcap", "--per-call-pcap-dir", "calls", "-w", "all.pcap"];
    let more = ["--insecure", "--memory-limit", "96M", "--state-dir", "state", "--durability", "process"];
    let processor = Processor::start(tmp.path(), &[&files[..], &more].concat());
    let good = Good::start(tmp.path(), &processor);
    let evil = http2(processor.port).await.unwrap();
    register(&evil, "evil").await;

    for round in 0..30_u32 {
        let batches = (0..10).map(|n| round * 10 + n);
        let batches = batches.map(|n| framed(&of_call(&format!("c{n}"), u64::from(n) + 1, endless(n)))).collect();
        assert_eq!(told(&evil, batches).await, "0");
    }
    let sent = tokio::task::block_in_place(|| good.end());
    let peak = peak_of(processor.id());
    let log = processor.stop();

    assert!(log.contains("p1=0 p2=0"), "{log}");
    assert!(peak <= LIMIT + LIMIT / 10, "{} MiB", peak >> 20);
    assert_stored(&tmp.path().join("all.pcap"), sent);
}

/// Batches that no hunter sends: what is in them, the status that their stream ends with, the batches.
fn strange() -> Vec<(&'static str, &'static str, Vec<PacketBatch>)> {
    let sip = || packet(ipv4(1, 17, 0, &udp(1, 5060, &invite(1))));
    let one = |n: u64, change: &dyn Fn(&mut CapturedPacket)| {
        let mut p = sip();
        change(&mut p);
        vec![of_call("strange", n, vec![p])]
    };
    let many = |n: u64, p: &dyn Fn(u32) -> CapturedPacket| vec![of_call("strange", n, (0..1000).map(p).collect())];
    let with = |n: u64, change: &dyn Fn(&mut PacketBatch)| {
        let mut b = of_call("strange", n, vec![sip()]);
        change(&mut b);
        vec![b]
    };
    let named = |n: u64, call_id: &str| vec![of_call(call_id, n, vec![sip()])];
    vec![
        ("a packet of 3 MB", "0", one(10, &|p| p.data = vec![0; 3_000_000].into())),
        ("empty packets", "0", many(11, &|_| packet(Vec::new()))),
        ("lengths that are not the packet's", "0", one(12, &|p| (p.capture_length, p.original_length) = (u32::MAX, 0))),
        (
            "the first and the last time",
            "0",
            [i64::MIN, i64::MAX, -1, 0].iter().zip(13..).flat_map(|(t, n)| one(n, &|p| p.timestamp_ns = *t)).collect(),
        ),
        ("an interface nobody has", "0", one(20, &|p| p.interface_index = u32::MAX)),
        ("the name of an interface, 1 MB", "0", one(21, &|p| p.interface_name = "i".repeat(1_000_000))),
        ("interfaces by the thousand", "0", many(22, &|n| CapturedPacket { interface_name: format!("i{n}"), ..sip() })),
        ("link types by the thousand", "0", many(23, &|n| CapturedPacket { link_type: n, ..sip() })),
        ("link types by the thousand, of no call", "0", many(24, &|n| CapturedPacket { link_type: n, context: 0, ..sip() })),
        ("a link type that does not fit", "0", one(25, &|p| p.link_type = u32::MAX)),
        ("a context that is not there", "3", one(26, &|p| p.context = 2)),
        ("a context that does not fit", "3", one(26, &|p| p.context = u32::MAX)),
        ("too many contexts", "3", with(26, &|b| b.contexts = vec![b.contexts[0].clone(); 20_000])),
        ("too many filters", "3", with(26, &|b| b.contexts[0].filter_ids = vec!["f".into(); 70_000])),
        ("a call shared with itself", "0", one(27, &|p| p.shared_contexts = vec![1; 1000])),
        ("a repetition of what never came", "0", one(28, &|p| p.repeat = true)),
        ("no Call-ID", "0", named(29, "")),
        ("a Call-ID of 1 MB", "0", named(30, &"c".repeat(1_000_000))),
        ("a Call-ID that is a path", "0", named(31, "../../../../tmp/evil")),
        ("a Call-ID of control characters", "0", named(32, "a\0b\nc\r\x1b[31m")),
        (
            "Call-IDs that differ in case",
            "0",
            ["Case", "case", "CASE"].iter().zip(33..).flat_map(|(id, n)| named(n, id)).collect(),
        ),
        ("filters by the thousand", "0", with(40, &|b| b.contexts[0].filter_ids = (0..5000).map(|n| format!("f{n}")).collect())),
        ("a rule of 1 MB", "0", with(41, &|b| b.contexts[0].phone_rule = "r".repeat(1_000_000))),
        (
            "holes that are none",
            "0",
            with(42, &|b| b.contexts[0].holes = "x y z; ; 1 2 3 4 5 -1 99999999999999999999".repeat(1000)),
        ),
        (
            "figures beyond reason",
            "0",
            with(43, &|b| {
                b.stats = Some(BatchStats {
                    total_captured: u64::MAX,
                    filtered_matched: u64::MAX,
                    dropped: u64::MAX,
                    buffer_usage: u32::MAX,
                });
            }),
        ),
        ("filters of a version to come", "0", with(44, &|b| b.filter_version = u64::MAX)),
        ("a time that is none", "0", with(45, &|b| b.timestamp_ns = i64::MIN)),
        (
            "a way that it has not come",
            "9",
            with(46, &|b| b.relay = Some(BatchRelay { path: vec!["x".into()], ..BatchRelay::default() })),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_batches_are_refused_or_filed_and_change_nothing_for_the_hunter_beside() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let calls =
        ["--per-call-pcap", "--per-call-pcap-dir", "out/calls", "--auto-rotate-pcap", "--auto-rotate-pcap-dir", "out/rotated"];
    let files = ["--state-dir", "state", "-w", "out/all.pcap", "--durability", "process", "--memory-limit", "128M"];
    let processor = Processor::start(dir, &[&["--insecure"], &calls[..], &files].concat());
    let good = Good::start(dir, &processor);
    let evil = http2(processor.port).await.unwrap();
    register(&evil, "evil").await;

    let mut statuses = Vec::new();
    for (what, expected, batches) in strange() {
        statuses.push((what, expected, told(&evil, batches.iter().map(framed).collect()).await));
    }
    let sent = tokio::task::block_in_place(|| good.end());
    let peak = peak_of(processor.id());
    let (code, log) = processor.end();

    let wrong: Vec<_> = statuses.iter().filter(|(_, expected, status)| status != expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}: {log}");
    assert!(code == Some(5) && log.contains("p1=0 p2=0"), "what no file takes is lost, and counted: {log}");
    assert!(peak <= 140 << 20, "{} MiB", peak >> 20);
    assert_stored(&dir.join("out/all.pcap"), sent);
    let mut names = Vec::new();
    for part in ["", "calls"] {
        names.extend(
            std::fs::read_dir(dir.join("out").join(part)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()),
        );
    }
    assert!(names.len() < 200, "{}: {names:?}", names.len());
    assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))), "{names:?}");
    let above: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(above.iter().all(|n| n == "out" || n == "state" || n.to_string_lossy().starts_with('.')), "{above:?}");
}
