//! A hunter that was let in and lies: about who it is, about what it sends, about how much. It is refused or ignored, counted, and the hunter
//! beside it delivers everything.

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use lippycat::wire::data::{DroppedRange, PacketBatch};
use lippycat::wire::management::HunterRegistration;
use prost::Message;
use tokio::time::timeout;

use super::hostile::{REGISTER, STREAM, call, http2, processor, resident};
use super::hostile_good::{Good, assert_stored};

/// What one stream may say to it before it says something else.
type Stream = (ResponseFuture, SendStream<Bytes>);

pub(super) fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &bytes].concat().into()
}

pub(super) fn batch(hunter: &str, epoch: u64, sequence: u64) -> PacketBatch {
    PacketBatch { hunter_id: hunter.into(), epoch, sequence, ..PacketBatch::default() }
}

pub(super) async fn register(connection: &SendRequest<Bytes>, hunter: &str) {
    let me = HunterRegistration { hunter_id: hunter.into(), durable_acks: true, instance: 7, ..HunterRegistration::default() };
    let (answer, mut body) = connection.clone().ready().await.unwrap().send_request(call(REGISTER), false).unwrap();
    body.send_data(framed(&me), true).unwrap();
    timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
}

async fn stream(connection: &SendRequest<Bytes>) -> Stream {
    connection.clone().ready().await.unwrap().send_request(call(STREAM), false).unwrap()
}

/// Sends all of it; the status that the stream ends with.
pub(super) async fn told(connection: &SendRequest<Bytes>, messages: Vec<Bytes>) -> String {
    answered(connection, call(STREAM), messages.concat().into()).await
}

/// Calls with all of it in one piece: small ones by the thousand end the connection; the status that the call ends with.
pub(super) async fn answered(connection: &SendRequest<Bytes>, request: http::Request<()>, all: Bytes) -> String {
    let (answer, mut body) = connection.clone().ready().await.unwrap().send_request(request, false).unwrap();
    // cut off before its end, it has been told
    let _cut = body.send_data(all, true);
    let Ok(answer) = timeout(Duration::from_secs(20), answer).await.unwrap() else { return "reset".into() };
    if let Some(status) = answer.headers().get("grpc-status") {
        return status.to_str().unwrap().to_owned();
    }
    let mut body = answer.into_body();
    let read = async {
        while let Some(Ok(data)) = body.data().await {
            let _room = body.flow_control().release_capacity(data.len());
        }
        body.trailers().await
    };
    match timeout(Duration::from_secs(20), read).await.unwrap() {
        Ok(Some(trailers)) => trailers["grpc-status"].to_str().unwrap().to_owned(),
        _ => "reset".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hunter_that_lies_is_refused_and_the_one_beside_it_delivers_everything() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let before = resident(processor.id());
    let good = Good::start(tmp.path(), &processor);
    let evil = http2(processor.port).await.unwrap();
    register(&evil, "evil").await;

    let raw = |bytes: &'static [u8]| vec![Bytes::from_static(bytes)];
    let own = |n| framed(&batch("evil", 9, n));
    let mut statuses = vec![
        ("a hunter that is not registered", "9", told(&evil, vec![framed(&batch("nobody", 1, 1))]).await),
        ("no name", "9", told(&evil, vec![framed(&batch("", 1, 1))]).await),
        ("an empty message", "9", told(&evil, raw(&[0, 0, 0, 0, 0])).await),
        ("no batch", "3", told(&evil, raw(&[0, 0, 0, 0, 2, 0xff, 0xff])).await),
        ("a compressed one", "12", told(&evil, raw(&[1, 0, 0, 0, 0])).await),
        ("one of 4 GiB", "8", told(&evil, raw(&[0, 0xff, 0xff, 0xff, 0xff])).await),
        ("one that ends in the middle", "3", told(&evil, raw(&[0, 0, 0, 0, 9, 10])).await),
        ("its own, then another's", "7", told(&evil, vec![own(1), framed(&batch("good", 9, 2))]).await),
    ];
    // what is told twice, out of order, far ahead, and further than any hunter gets
    let repeated = std::iter::repeat_with(|| own(2)).take(60).collect();
    statuses.push(("a replay", "0", told(&evil, repeated).await));
    let jumps = [5, 3, 1 << 40, 4, 0, (1 << 40) - 1].map(own).to_vec();
    statuses.push(("jumps", "0", told(&evil, jumps).await));
    for n in [u64::MAX, 1 << 60] {
        statuses.push(("a leap", "3", told(&evil, vec![own(n)]).await));
    }
    // a new epoch each time
    let churn = (1..60).map(|n| framed(&batch("evil", n << 20, 1))).collect();
    statuses.push(("epochs", "0", told(&evil, churn).await));
    // losses that nobody can have had
    let range = DroppedRange { from_seq: 1, to_seq: u64::MAX, packets: u64::MAX, ..DroppedRange::default() };
    let liar = PacketBatch { first_packet_index: u64::MAX, dropped_ranges: vec![range; 100], ..batch("evil", 77, 8) };
    statuses.push(("false counters", "3", told(&evil, vec![framed(&liar)]).await));
    // and some that say nothing more
    let mut silent = Vec::new();
    for _ in 0..3 {
        let (answer, mut body) = stream(&evil).await;
        body.send_data(Bytes::from_static(&[0, 0, 1, 0, 0, 7]), false).unwrap();
        silent.push((answer, body));
    }
    let sent = tokio::task::block_in_place(|| good.end());
    let grown = resident(processor.id()).saturating_sub(before);
    let log = processor.stop();

    for (what, expected, status) in &statuses {
        assert_eq!(status, expected, "{what}: {log}");
    }
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    assert!(log.contains("p1=0 p2=0"), "{log}");
    assert_stored(&tmp.path().join("all.pcap"), sent);
}
