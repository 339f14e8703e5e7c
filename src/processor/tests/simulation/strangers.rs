//! Who takes part to disturb: a hunter that lies, one that asks for everything and reads nothing, a monitor that reads slowly.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use turmoil::net::TcpStream;

use super::Dice;
use super::network::PORT;
use super::oracle::STRANGERS;
use super::packets::push;
use crate::batch::{BatchStats, Encoder, EncoderConfig, Epoch, Limits};
use crate::wire::data::data_service_client::DataServiceClient;
use crate::wire::data::{DroppedRange, PacketBatch, SubscribeRequest};
use crate::wire::management::management_service_client::ManagementServiceClient;
use crate::wire::management::{FilterRequest, HunterRegistration, StatusRequest};

/// The name of the one that lies; its connections show it.
pub(super) const LIAR: &str = "x0";
/// The name of the one that reads nothing.
pub(super) const IDLER: &str = "w0";
/// The name of the one that watches.
pub(super) const MONITOR: &str = "s0";
/// What it lets the processor send before it has read: little is played, and it is to be too much.
const UNREAD: u32 = 700;
/// Nothing is waited for longer.
const PATIENCE: Duration = Duration::from_secs(3);

async fn channel(to: &str) -> Option<Channel> {
    let stream = timeout(PATIENCE, TcpStream::connect((to, PORT))).await.ok()?.ok()?;
    let mut io = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        std::future::ready(io.take().ok_or_else(|| std::io::Error::other("the connection is gone")))
    });
    Endpoint::from_static("http://processor").initial_stream_window_size(UNREAD).connect_with_connector(connector).await.ok()
}

fn registration(id: &str, instance: u64) -> HunterRegistration {
    HunterRegistration { hunter_id: id.into(), durable_acks: true, instance, ..HunterRegistration::default() }
}

/// Batches of an epoch, one packet of no call each.
fn batches(id: &str, epoch: u64, n: u32) -> Vec<PacketBatch> {
    let config = EncoderConfig { hunter_id: id.into(), epoch: Epoch(epoch), limits: Limits::default() };
    let mut encoder = Encoder::new(config);
    let batch = |i: u32| {
        push(&mut encoder, STRANGERS + u32::try_from(epoch % 1000).unwrap() * 700 + 7 * i);
        let sealed = encoder.seal(1, 1, &BatchStats::default()).unwrap();
        PacketBatch::decode(sealed.message()).unwrap()
    };
    (0..n).map(batch).collect()
}

/// Says and sends what no hunter should, one thing after the other.
pub(super) async fn lie(processors: usize, seed: u64, calm: Rc<Cell<bool>>) -> turmoil::Result {
    let mut dice = Dice(seed ^ 0xbad);
    let mut epoch = 1_000_000;
    loop {
        sleep(Duration::from_millis(50 + dice.roll(500))).await;
        if calm.get() {
            continue;
        }
        let to = format!("p{}", dice.roll(processors as u64));
        if dice.roll(4) == 0 {
            mumble(&to, &mut dice).await;
            continue;
        }
        let Some(channel) = channel(&to).await else { continue };
        let mut management = ManagementServiceClient::new(channel.clone());
        let victim = format!("h{}", dice.roll(5));
        let registered = if dice.roll(5) == 0 { victim.as_str() } else { LIAR };
        if dice.roll(4) > 0 {
            let _answer = timeout(PATIENCE, management.register_hunter(registration(registered, dice.roll(3)))).await;
        }
        epoch += 1;
        let named = if dice.roll(4) == 0 { victim.as_str() } else { LIAR };
        let mut made = batches(named, epoch, 6);
        match dice.roll(6) {
            // numbers jump
            0 => made.iter_mut().for_each(|b| b.sequence = b.sequence.wrapping_mul(u64::from(u32::MAX)).wrapping_add(3)),
            // everything again
            1 => made = [made.clone(), made].concat(),
            // backwards
            2 => made.reverse(),
            // an epoch each
            3 => (0..).zip(&mut made).for_each(|(n, b)| b.epoch = epoch + 1000 * n),
            // larger than any batch may be
            4 if dice.roll(4) == 0 => made[1].packets[0].data = vec![0; 5 << 20].into(),
            // other numbers than it says
            _ => made[2].dropped_ranges = vec![DroppedRange { from_seq: 1, to_seq: u64::MAX, packets: 7, reason: "x".into() }],
        }
        let mut data = DataServiceClient::new(channel);
        let stream = timeout(PATIENCE, data.stream_packets(tokio_stream::iter(made))).await;
        if let Ok(Ok(answers)) = stream
            && dice.roll(2) == 0
        {
            let mut answers = answers.into_inner();
            while let Ok(Ok(Some(_))) = timeout(PATIENCE, answers.message()).await {}
        }
    }
}

/// Bytes that are no HTTP/2, or its beginning and then nothing.
async fn mumble(to: &str, dice: &mut Dice) {
    let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect((to, PORT))).await else { return };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let bytes: Vec<u8> = match dice.roll(3) {
        0 => (0..200).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect(),
        1 => preface[..10].to_vec(),
        _ => preface.to_vec(),
    };
    let _lost = stream.write_all(&bytes).await;
    sleep(Duration::from_millis(dice.roll(4000))).await;
}

/// Opens streams of filters and figures, and reads none of them.
pub(super) async fn idle(processors: usize, calm: Rc<Cell<bool>>) -> turmoil::Result {
    let mut kept = Vec::new();
    let mut n = 0;
    loop {
        n = (n + 1) % processors;
        sleep(Duration::from_millis(300)).await;
        if calm.get() {
            continue;
        }
        let Some(channel) = channel(&format!("p{n}")).await else { continue };
        let mut management = ManagementServiceClient::new(channel);
        let _answer = timeout(PATIENCE, management.register_hunter(registration(IDLER, 1))).await;
        let _answer = timeout(PATIENCE, management.get_hunter_status(StatusRequest::default())).await;
        let request = FilterRequest { hunter_id: IDLER.into() };
        if let Ok(Ok(stream)) = timeout(PATIENCE, management.subscribe_filters(request)).await {
            kept.push(stream);
        }
        if kept.len() > 8 {
            kept.remove(0);
        }
    }
}

/// Watches one processor after the other, some of them for long; no batch comes twice in one subscription.
pub(super) async fn watch(processors: usize, seed: u64, pause: Duration, calm: Rc<Cell<bool>>) -> turmoil::Result {
    let mut dice = Dice(seed ^ 0x5ee);
    let mut kept = Vec::new();
    loop {
        sleep(Duration::from_millis(20 + dice.roll(500))).await;
        if calm.get() {
            continue;
        }
        let to = format!("p{}", dice.roll(processors as u64));
        let Some(channel) = channel(&to).await else { continue };
        let request =
            SubscribeRequest { client_id: "one name for all".into(), contexts: dice.roll(2) == 0, ..SubscribeRequest::default() };
        let asked = timeout(PATIENCE, DataServiceClient::new(channel).subscribe_packets(request)).await;
        let Ok(Ok(stream)) = asked else { continue };
        let (mut stream, mut came) = (stream.into_inner(), HashSet::new());
        for _ in 0..dice.roll(40) {
            match timeout(PATIENCE, stream.message()).await {
                Ok(Ok(Some(b))) if !b.packets.is_empty() => {
                    let first = b.packets[0].timestamp_ns;
                    assert!(came.insert((b.hunter_id.clone(), b.epoch, b.sequence, first)), "twice: {b:?}");
                }
                Ok(Ok(Some(b))) => assert!(b.skipped_packets > 0, "nothing is said: {b:?}"),
                _ => break,
            }
            sleep(pause * u32::try_from(dice.roll(100)).unwrap() / 100).await;
        }
        // it stays, and reads nothing more
        kept.push(stream);
        if kept.len() > 3 {
            kept.remove(0);
        }
    }
}
