//! Monitors: who gets what, what they miss and are told of, and that nothing waits for them.

use super::*;
use crate::batch::{Relay, relayed};
use crate::net::{AcceptCounters, Health, PeerInfo, Transport};
use crate::processor::management::Management;
use crate::processor::monitors::{Figures, Monitors};
use crate::processor::pages::ProcessorPages;
use crate::wire::data::{CapturedPacket, PacketBatch, SubscribeRequest, TlsSessionKeys};
use crate::wire::management::management_service_server::ManagementService;
use crate::wire::management::{ProcessorRegistration, StatusRequest};

/// A monitor's end of its stream.
pub(super) struct Monitor {
    answers: tonic::body::Body,
    frames: Deframer,
}

/// What a monitor reads next.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    Batch(Box<PacketBatch>),
    End(Code, String),
    Silence,
}

impl Monitor {
    fn open(shared: &Arc<Shared>, request: &SubscribeRequest) -> Self {
        Self::with(shared, request, None)
    }

    pub(super) fn with(shared: &Arc<Shared>, request: &SubscribeRequest, peer: Option<PeerInfo>) -> Self {
        let message = request.encode_to_vec();
        let prefix = crate::batch::grpc_prefix(message.len());
        let (send, receive) = mpsc::channel(1);
        send.try_send(Bytes::from([&prefix[..], &message].concat())).unwrap();
        let mut request = http::Request::post("/lippycat.data.DataService/SubscribePackets");
        if let Some(peer) = peer {
            request = request.extension(peer);
        }
        let request = request.body(tonic::body::Body::new(Upload(receive))).unwrap();
        let response = DataService::new(Arc::clone(shared)).call(request).into_inner().unwrap();
        Self { answers: response.into_body(), frames: Deframer::new(4 << 20) }
    }

    pub(super) async fn next(&mut self) -> Seen {
        let next = async {
            loop {
                if let Some(message) = self.frames.next().unwrap() {
                    assert!(message.len() < 4 << 20, "{}", message.len());
                    return Seen::Batch(Box::new(PacketBatch::decode(message).unwrap()));
                }
                let answers = &mut self.answers;
                match std::future::poll_fn(|cx| Pin::new(&mut *answers).poll_frame(cx)).await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.frames.push(data),
                        Err(frame) => {
                            let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
                            return Seen::End(status.code(), status.message().to_owned());
                        }
                    },
                    other => panic!("no trailers: {other:?}"),
                }
            }
        };
        timeout(SHORT, next).await.unwrap_or(Seen::Silence)
    }

    /// Reads until nothing more comes.
    pub(super) async fn all(&mut self) -> Vec<PacketBatch> {
        let mut all = Vec::new();
        while let Seen::Batch(batch) = self.next().await {
            all.push(*batch);
        }
        all
    }
}

/// A monitor that has its seat.
async fn seated(shared: &Arc<Shared>, request: &SubscribeRequest) -> Monitor {
    let mut monitor = Monitor::open(shared, request);
    assert_eq!(monitor.next().await, Seen::Silence);
    monitor
}

pub(super) fn anything() -> SubscribeRequest {
    SubscribeRequest { contexts: true, ..SubscribeRequest::default() }
}

/// What an old hunter sends.
fn old(hunter: &str, sequence: u64, sizes: &[usize]) -> Bytes {
    let packet = |size: &usize| CapturedPacket { data: vec![9; *size].into(), link_type: 1, ..CapturedPacket::default() };
    let packets = sizes.iter().map(packet).collect();
    let message = PacketBatch { hunter_id: hunter.into(), sequence, packets, ..PacketBatch::default() }.encode_to_vec();
    [&crate::batch::grpc_prefix(message.len())[..], &message].concat().into()
}

/// Sends all of this, and takes away what the record thread is given: how many batches that were.
pub(super) async fn bring(
    stream: &mut Stream,
    queue: &mut mpsc::Receiver<Job>,
    batches: impl IntoIterator<Item = Bytes>,
) -> usize {
    let mut stored = 0;
    for batch in batches {
        stream.send(batch);
        loop {
            match stream.answer().await {
                Answer::Control(_) => {}
                Answer::Silence => break,
                Answer::End(code, text) => panic!("{code:?} {text}"),
            }
        }
        while let Ok(Job::Batch(mut batch)) = queue.try_recv() {
            written(&mut batch);
            stored += 1;
        }
    }
    stored
}

/// A processor with a hunter whose stream is open, and a monitor that wants everything.
async fn watched() -> (Arc<Shared>, mpsc::Receiver<Job>, Monitor, Stream) {
    let (shared, queue) = processor(8);
    register(&shared, "edge");
    let monitor = seated(&shared, &anything()).await;
    let stream = Stream::open(&shared);
    (shared, queue, monitor, stream)
}

fn packets(batches: &[PacketBatch]) -> usize {
    batches.iter().map(|b| b.packets.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_monitor_gets_every_batch_once_as_its_hunter_sealed_it() {
    let (shared, mut queue, mut monitor, mut stream) = watched().await;
    let sent = sealed("edge", 7, 3);
    // the second comes after the third, and all come again
    let order = [0, 2, 1, 0, 1, 2].map(|n: usize| sent[n].bytes.clone());
    assert_eq!(bring(&mut stream, &mut queue, order).await, 3);

    let got = monitor.all().await;

    let meant = [0, 2, 1].map(|n: usize| PacketBatch::decode(sent[n].message()).unwrap());
    assert_eq!(got, meant);
    let bytes = sent.iter().map(|b| b.message().len() as u64).sum();
    let figures = Figures { offered: 9, delivered: 9, bytes, ..Figures::default() };
    assert_eq!(shared.monitors.figures(), figures);
}

#[tokio::test(start_paused = true)]
async fn session_secrets_of_tls_go_neither_to_monitors_nor_into_a_file_nor_upwards_and_their_packets_do() {
    let (shared, mut queue, mut monitor, mut stream) = watched().await;
    let secrets = TlsSessionKeys { client_traffic_secret_0: b"secret".to_vec(), ..TlsSessionKeys::default() };
    let batch = |tls_keys: [Option<TlsSessionKeys>; 3]| {
        let packet = |tls_keys| CapturedPacket { data: vec![9; 60].into(), link_type: 1, tls_keys, ..CapturedPacket::default() };
        let packets = tls_keys.map(packet).into();
        PacketBatch { hunter_id: "edge".into(), sequence: 1, epoch: 7, packets, ..PacketBatch::default() }
    };
    let message = batch([Some(secrets.clone()), None, Some(secrets)]).encode_to_vec();
    let prefix = crate::batch::grpc_prefix(message.len());

    stream.send([&prefix[..], &message].concat().into());
    while let Answer::Control(_) = stream.answer().await {}

    let Seen::Batch(got) = monitor.next().await else { panic!("nothing came") };
    let Some(Job::Batch(mut kept)) = queue.recv().await else { panic!("no batch") };
    assert_eq!(*got, batch([const { None }; 3]));
    assert_eq!(PacketBatch::decode(kept.view.message().clone()).unwrap(), *got, "what is stored and passed on");
    written(&mut kept);
    let counts = shared.counters.counts();
    assert_eq!((counts.received, counts.committed, counts.tls_keys, counts.imbalance()), (3, 3, 2, [0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_monitor_gets_the_hunters_it_asks_for_and_those_of_a_processor_below_by_their_own_names() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let below = ProcessorRegistration { processor_id: "west".into(), durable_acks: true, ..ProcessorRegistration::default() };
    shared.below.lock().register(&shared.id, below, None, crate::telemetry::clock::wall()).unwrap();
    let only = |ids: &[&str]| SubscribeRequest {
        hunter_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        has_hunter_filter: true,
        ..anything()
    };
    // ids without the flag mean nothing: the predecessor's monitors say so
    let mut all = seated(&shared, &SubscribeRequest { has_hunter_filter: false, ..only(&["nobody"]) }).await;
    let mut none = seated(&shared, &only(&[])).await;
    let mut far = seated(&shared, &only(&["far", "nobody"])).await;
    let mut stream = Stream::open(&shared);
    bring(&mut stream, &mut queue, [sealed("edge", 7, 1)[0].bytes.clone()]).await;
    let view = crate::batch::BatchView::parse(sealed("far", 8, 1)[0].message(), &crate::batch::ViewLimits::default()).unwrap();
    let passed = relayed(&view, &Relay { processor: "west", interfaces: &["eth9".to_owned()], key: None });
    let mut stream = Stream::open(&shared);
    bring(&mut stream, &mut queue, [passed]).await;

    let ids = |batches: Vec<PacketBatch>| batches.into_iter().map(|b| b.hunter_id).collect::<Vec<_>>();
    assert_eq!(ids(all.all().await), ["edge", "far"]);
    assert_eq!(ids(none.all().await), [""; 0]);
    assert_eq!(ids(far.all().await), ["far"]);
    assert_eq!(shared.monitors.figures().offered, 9, "what was not asked for is not offered");
}

/// Ethernet, IPv4, UDP to this port.
fn frame(port: u16) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    f.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    f.extend([&[0x13, 0xc4][..], &port.to_be_bytes(), &[0, 12, 0, 0, 1, 2, 3, 4]].concat());
    f
}

/// A batch of packets to these ports.
fn to_ports(epoch: u64, ports: &[u16]) -> Bytes {
    let mut encoder = Encoder::new(EncoderConfig { hunter_id: "edge".into(), epoch: Epoch(epoch), limits: Limits::default() });
    for port in ports {
        let data = frame(*port);
        let (ts, interface) = (Timestamp::from_nanos(1), InterfaceId(0));
        let frame = Frame { ts, wire_len: 46, link: LinkType::ETHERNET, interface, data: &data };
        assert_eq!(encoder.push(&frame, None, &[], false), Pushed::Stored);
    }
    encoder.seal(5, 1, &BatchStats::default()).unwrap().bytes
}

#[tokio::test]
async fn a_filter_is_that_of_pcap_and_what_does_not_pass_is_counted() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let expression = "udp and (dst port 5060 or not dst portrange 1-6000) and ip[8] = 64";
    let mut monitor = Monitor::open(&shared, &SubscribeRequest { bpf_filter: expression.into(), ..anything() });
    while shared.monitors.is_empty() {
        assert_eq!(monitor.next().await, Seen::Silence);
    }
    let mut stream = Stream::open(&shared);
    let sent = [to_ports(1, &[5060, 80, 7000]), to_ports(2, &[80, 81]), to_ports(3, &[5060])];
    assert_eq!(bring(&mut stream, &mut queue, sent).await, 3);

    let got = monitor.all().await;

    let ports = |b: &PacketBatch| b.packets.iter().map(|p| u16::from_be_bytes([p.data[36], p.data[37]])).collect::<Vec<_>>();
    assert_eq!(got.iter().map(ports).collect::<Vec<_>>(), [vec![5060, 7000], vec![5060]]);
    let f = shared.monitors.figures();
    assert_eq!((f.offered, f.delivered, f.filtered, f.skipped, f.imbalance()), (6, 3, 3, 0, 0));
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_with_the_reason() {
    let (long, wide) = (vec!["port 1"; 600].join(" or "), format!("udp{:4100}and ip", ""));
    for (request, code, why) in [
        (SubscribeRequest { bpf_filter: "udp port and".into(), ..anything() }, Code::InvalidArgument, "syntax error"),
        (SubscribeRequest { bpf_filter: long, ..anything() }, Code::InvalidArgument, "the limit is 64"),
        (SubscribeRequest { bpf_filter: wide, ..anything() }, Code::InvalidArgument, "the limit is 4096"),
        (
            SubscribeRequest { bpf_filter: "host example.org".into(), ..anything() },
            Code::InvalidArgument,
            "names are not looked up",
        ),
        (SubscribeRequest { client_id: "x".repeat(257), ..anything() }, Code::InvalidArgument, "client_id of 257 bytes"),
        (SubscribeRequest { hunter_ids: vec!["x".repeat(256); 1025], ..anything() }, Code::InvalidArgument, "hunter_ids"),
    ] {
        let (shared, _queue) = processor(1);
        let mut monitor = Monitor::open(&shared, &request);
        let end = loop {
            let seen = monitor.next().await;
            if seen != Seen::Silence {
                break seen;
            }
        };

        let Seen::End(told, text) = end else { panic!("{why}: {end:?}") };

        assert!(told == code && text.contains(why), "{told:?} {text}");
        assert!(shared.monitors.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_monitor_too_many_is_refused_and_one_that_leaves_makes_room() {
    let (mut shared, _queue) = processor(1);
    Arc::get_mut(&mut shared).unwrap().monitors = Monitors::new(2);
    let named = SubscribeRequest { client_id: "tui".into(), ..anything() };
    let [first, mut second] = [seated(&shared, &named).await, seated(&shared, &named).await];

    let Seen::End(code, text) = Monitor::open(&shared, &anything()).next().await else { panic!("it is let in") };
    assert!(code == Code::ResourceExhausted && text.contains("--max-subscribers"), "{code:?} {text}");
    drop(first);

    assert_eq!(second.next().await, Seen::Silence, "one with the same name left");
    assert_eq!(shared.monitors.len(), 1);
    let _third = seated(&shared, &anything()).await;
    assert_eq!(shared.monitors.len(), 2);
}

/// Each is two lines of the audit log, of which none may be left out.
#[tokio::test(start_paused = true)]
async fn whoever_subscribes_again_and_again_begins_ten_times_a_second() {
    let (shared, _queue) = processor(1);
    let began = tokio::time::Instant::now();
    let mut open: Vec<Monitor> = (0..35).map(|_| Monitor::open(&shared, &anything())).collect();

    let mut seated = Vec::new();
    for _ in 0..4 {
        for monitor in &mut open {
            let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut monitor.answers).poll_frame(cx)));
            assert!(polled.await.is_pending());
        }
        seated.push(shared.monitors.len());
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    assert_eq!((seated, began.elapsed()), (vec![10, 20, 30, 35], Duration::from_secs(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_as_may_get_a_seat_however_many_ask_at_once() {
    let (mut shared, _queue) = processor(1);
    Arc::get_mut(&mut shared).unwrap().monitors = Monitors::new(5);
    let ask = |_| {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut monitor = Monitor::open(&shared, &anything());
            (monitor.next().await, monitor)
        })
    };
    let asked: Vec<_> = (0..40).map(ask).collect();

    let mut seated = Vec::new();
    for asked in asked {
        let (seen, monitor) = asked.await.unwrap();
        match seen {
            Seen::Silence => seated.push(monitor),
            other => assert!(matches!(other, Seen::End(Code::ResourceExhausted, _)), "{other:?}"),
        }
    }

    assert_eq!((seated.len(), shared.monitors.len()), (5, 5));
}

/// Each ring holds 8 MiB; three times as much is brought.
#[tokio::test(start_paused = true)]
async fn fifty_monitors_that_read_nothing_stop_nobody_and_are_told_what_they_missed_once_they_read() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(seated(&shared, &anything()).await);
    }
    let mut reader = seated(&shared, &anything()).await;
    let mut stream = Stream::open(&shared);
    let (mut stored, mut read) = (0, Vec::new());
    for n in 1..=50 {
        stored += bring(&mut stream, &mut queue, [old("edge", n, &[10_000; 50])]).await;
        read.extend(reader.all().await);
    }

    assert_eq!((stored, shared.flow()), (50, crate::wire::data::FlowControl::FlowContinue));
    assert_eq!((packets(&read), read.iter().map(|b| b.skipped_packets).sum::<u64>()), (2500, 0));
    let f = shared.monitors.figures();
    assert_eq!((f.offered, f.imbalance()), (51 * 2500, 0));
    assert!(f.skipped > 50 * 1600 && f.waiting < 50 * 900, "8 MiB of 24 each: {f:?}");

    let mut late = stalled.pop().unwrap();
    let got = late.all().await;
    let told: u64 = got.iter().map(|b| b.skipped_packets).sum();
    assert_eq!(packets(&got) as u64 + told, 2500, "delivered and skipped make what was offered");
    assert_eq!(got.last().map(|b| (b.packets.len(), b.skipped_packets)), Some((0, told)), "what nothing follows is told too");
    bring(&mut stream, &mut queue, [old("edge", 51, &[10])]).await;
    assert_eq!(late.all().await.iter().map(|b| (b.packets.len(), b.skipped_packets)).collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(packets(&reader.all().await), 1);
    drop(stalled);
    let f = shared.monitors.figures();
    assert_eq!((f.waiting, f.imbalance(), shared.monitors.len()), (0, 0, 2), "what waits for one that leaves is skipped");
    assert_eq!(f.offered, 51 * 2501, "what became of its packets is not forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_where_it_is() {
    let (shared, mut queue, mut monitor, mut stream) = watched().await;
    // 4 MB, 4 MB, too much, and something small that would have room but is behind a gap
    let sizes: [&[usize]; 4] = [&[400_000; 10], &[400_000; 10], &[400_000; 7], &[10]];
    bring(&mut stream, &mut queue, (1..).zip(sizes).map(|(n, sizes)| old("edge", n, sizes))).await;
    let f = shared.monitors.figures();
    assert_eq!((f.offered, f.skipped, f.waiting, f.imbalance()), (28, 8, 20, 0));

    let Seen::Batch(first) = monitor.next().await else { panic!("nothing") };
    bring(&mut stream, &mut queue, [old("edge", 5, &[10])]).await;
    let rest = monitor.all().await;

    let told: Vec<_> = std::iter::once(&*first).chain(&rest).map(|b| (b.sequence, b.packets.len(), b.skipped_packets)).collect();
    assert_eq!(told, [(1, 10, 0), (2, 10, 0), (5, 1, 8)]);
    let asked = Management::new(Arc::clone(&shared)).get_hunter_status(tonic::Request::new(StatusRequest::default())).await;
    let stats = asked.unwrap().into_inner().processor_stats.unwrap();
    assert_eq!((stats.subscribers, stats.subscriber_skipped), (1, 8));
    let pages = ProcessorPages::new(Arc::clone(&shared), Transport::default(), Arc::new(AcceptCounters::default()));
    let metrics = pages.metrics();
    for line in [
        "lc_subscribers 1",
        "lc_subscriber_offered_packets_total 29",
        "lc_subscriber_delivered_packets_total 21",
        "lc_subscriber_skipped_packets_total 8",
        "lc_conservation_error_packets{side=\"subscriber\",equation=\"offered\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    let page: serde_json::Value = serde_json::from_str(&pages.status()).unwrap();
    let shown = serde_json::json!({"now": 1, "limit": 100, "offered": 29, "delivered": 21, "skipped": 8, "filtered": 0, "waiting": 0, "difference": 0});
    assert_eq!(page["subscribers"], shown);
}

#[tokio::test(start_paused = true)]
async fn a_batch_above_four_mebibytes_comes_in_parts_and_a_packet_that_is_larger_is_told_as_skipped() {
    let (shared, mut queue) = processor(8);
    let r = HunterRegistration { hunter_id: "old".into(), ..HunterRegistration::default() };
    shared.roster.lock().register(r, None, crate::telemetry::clock::wall()).unwrap();
    let mut monitor = seated(&shared, &anything()).await;
    let mut stream = Stream::open(&shared);
    let mut got = Vec::new();
    for (n, sizes) in [(1, &[3_000_000, 500_000, 2_000_000, 100][..]), (2, &[4_194_300, 5])] {
        bring(&mut stream, &mut queue, [old("old", n, sizes)]).await;
        got.extend(monitor.all().await);
    }

    let told: Vec<_> = got.iter().map(|b| (b.sequence, b.packets.len(), b.skipped_packets)).collect();
    assert_eq!(told, [(1, 2, 0), (1, 2, 0), (2, 1, 1)]);
    let f = shared.monitors.figures();
    assert_eq!((f.offered, f.delivered, f.skipped, f.imbalance()), (6, 5, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_old_monitor_reads_in_each_packet_what_contexts_say() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let request = SubscribeRequest::default();
    let (mut one, mut two) = (seated(&shared, &request).await, seated(&shared, &request).await);
    let mut stream = Stream::open(&shared);
    bring(&mut stream, &mut queue, [sealed("edge", 7, 1)[0].bytes.clone(), old("edge", 1, &[10])]).await;

    let got = one.all().await;

    assert_eq!(got, two.all().await);
    let [ours, theirs] = &got[..] else { panic!("{got:?}") };
    let sip = ours.packets[0].metadata.as_ref().and_then(|m| m.sip.as_ref()).unwrap();
    assert_eq!((sip.call_id.as_str(), &ours.packets[0].matched_filter_ids[..]), ("call@host", &["f1".to_owned()][..]));
    assert_eq!((ours.hunter_id.as_str(), ours.packets.len(), ours.packets[0].data.len()), ("edge", 3, 200));
    assert_eq!(theirs, &PacketBatch::decode(old("edge", 1, &[10]).slice(5..)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_well_with_what_waits_when_the_processor_stops_or_the_connection_is_old() {
    for stops in [true, false] {
        let (shared, mut queue) = processor(8);
        register(&shared, "edge");
        let here = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let rolls = Some(tokio::time::Instant::now() + LONG).filter(|_| !stops);
        let peer = PeerInfo { rolls, ..PeerInfo::new(here, here, None, false) };
        let mut monitor = Monitor::with(&shared, &anything(), Some(peer));
        assert_eq!(monitor.next().await, Seen::Silence);
        let mut stream = Stream::open(&shared);
        bring(&mut stream, &mut queue, [sealed("edge", 7, 1)[0].bytes.clone()]).await;
        if stops {
            shared.ending.shut();
        } else {
            tokio::time::advance(LONG).await;
        }

        assert!(matches!(monitor.next().await, Seen::Batch(b) if b.packets.len() == 3));
        assert_eq!(monitor.next().await, Seen::End(Code::Ok, String::new()));
        drop(monitor);
        assert!(shared.monitors.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_no_room_when_the_processor_stops_is_told_what_it_missed() {
    let (shared, mut queue, mut monitor, mut stream) = watched().await;
    bring(&mut stream, &mut queue, (1..=4).map(|n| old("edge", n, &[400_000; 9]))).await;
    shared.ending.shut();

    let mut told = Vec::new();
    let end = loop {
        match monitor.next().await {
            Seen::Batch(b) => told.push((b.packets.len(), b.skipped_packets)),
            other => break other,
        }
    };

    assert_eq!((told, end), (vec![(9, 0), (9, 0), (0, 18)], Seen::End(Code::Ok, String::new())));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_nobody() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    drop(seated(&shared, &anything()).await);
    let mut stream = Stream::open(&shared);
    let batch = sealed("edge", 7, 1)[0].bytes.clone();
    stream.send(batch.clone());
    assert_eq!(stream.answer().await, Answer::Silence);

    assert_eq!(shared.monitors.figures(), Figures::default());
    let Ok(Job::Batch(handed)) = queue.try_recv() else { panic!("no batch") };
    drop(batch);
    assert!(handed.view.message().is_unique(), "nobody else holds its bytes");
}
