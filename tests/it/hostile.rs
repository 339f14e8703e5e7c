//! A hostile peer beside a good hunter: idle connections, unfinished messages, rapid resets, lies. Refusals are counted, memory stays
//! bounded, and every packet of the good hunter arrives.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::hostile_good::{Good, assert_stored};
use super::whole::{Processor, calls_capture, frames, succeed};

pub(super) const REGISTER: &str = "/lippycat.management.ManagementService/RegisterHunter";
pub(super) const STREAM: &str = "/lippycat.data.DataService/StreamPackets";
/// Where the hostile peer sits: another address than the good hunter's.
const THERE: u8 = 2;

async fn connect(port: u16) -> Option<TcpStream> {
    connect_from(THERE, port).await
}

pub(super) async fn connect_from(last: u8, port: u16) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    timeout(Duration::from_secs(10), socket.connect(to)).await.ok()?.ok()
}

/// An HTTP/2 connection, or nothing when it is refused.
pub(super) async fn http2(port: u16) -> Option<SendRequest<Bytes>> {
    http2_from(THERE, port).await
}

async fn http2_from(last: u8, port: u16) -> Option<SendRequest<Bytes>> {
    let (send, connection) = h2::client::handshake(connect_from(last, port).await?).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    send.ready().await.ok()
}

pub(super) fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://x{path}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub(super) fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

pub(super) fn hunt(dir: &Path, port: u16, id: &str) {
    let (address, capture) = (format!("127.0.0.1:{port}"), calls_capture());
    let start = ["hunt", "-P", &address, "--insecure", "--id", id, "--no-filter-policy", "allow", "--keep-duplicates", "-r"];
    succeed(dir, &[&start[..], &[capture.to_str().unwrap()]].concat());
}

/// A value of the last line about refusals.
fn refusals(log: &str, name: &str) -> u64 {
    let line = log.lines().rfind(|l| l.contains("connections and calls refused so far")).unwrap_or_else(|| panic!("{log}"));
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"))
}

fn stats_line() {
    std::thread::sleep(Duration::from_millis(5500));
}

pub(super) fn processor(dir: &Path) -> Processor {
    Processor::start(dir, &["--insecure", "--state-dir", "state", "-w", "all.pcap"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_leave_room_for_a_good_hunter() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let before = resident(processor.id());

    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.extend(connect(processor.port).await);
    }
    tokio::task::block_in_place(|| hunt(tmp.path(), processor.port, "good"));
    let grown = resident(processor.id()).saturating_sub(before);
    tokio::task::block_in_place(stats_line);
    let log = processor.stop();

    assert_eq!(idle.len(), 1000);
    assert_eq!(refusals(&log, "too_many"), 1000 - 256, "one address has 256");
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    assert_eq!(frames(&tmp.path().join("all.pcap")), frames(&calls_capture()));
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn unfinished_messages_are_bounded_in_bytes_and_the_rest_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let good = Good::start(tmp.path(), &processor);
    let piece = Bytes::from(vec![0; 16 << 10]);
    let before = resident(processor.id());

    // 60 connections of 6 addresses, on each 30 calls that announce as much as they may, or more, and send half a MiB: 900 MiB in all
    let mut kept = Vec::new();
    for n in 0..60 {
        let Some(mut connection) = http2_from(THERE + n % 6, processor.port).await else { continue };
        for m in 0..30 {
            let (path, length) = match (n % 3, m) {
                (0, 0..4) => (STREAM, 10 << 20),
                (1, _) => (REGISTER, 1 << 20),
                _ => (REGISTER, 10 << 20),
            };
            let Ok((answer, mut body)) = connection.send_request(call(path), false) else { break };
            let announced = [&[0][..], &u32::to_be_bytes(length)].concat().into();
            let mut good = body.send_data(announced, false).is_ok();
            for _ in 0..32 {
                good = good && body.send_data(piece.clone(), false).is_ok();
            }
            kept.push((answer, body));
            let Ok(next) = timeout(Duration::from_secs(5), connection.clone().ready()).await else { break };
            let Ok(next) = next else { break };
            connection = next;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident(processor.id()).saturating_sub(before);
    let stored = tokio::task::block_in_place(|| good.end());
    tokio::task::block_in_place(stats_line);
    let log = processor.stop();

    assert!(refusals(&log, "crowded") > 0 && refusals(&log, "large") > 0, "{log}");
    println!("unfinished messages: {} MiB", grown >> 20);
    assert!(grown <= 64 << 20, "{} MiB", grown >> 20);
    assert_stored(&tmp.path().join("all.pcap"), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_large_headers_unknown_methods_and_streams_without_end_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let good = Good::start(tmp.path(), &processor);

    // calls that are reset at once: the connection ends long before they do
    let mut rapid = http2(processor.port).await.unwrap();
    let mut sent = 0;
    for _ in 0..20_000 {
        let Ok((_, mut body)) = rapid.send_request(call(REGISTER), false) else { break };
        body.send_reset(h2::Reason::CANCEL);
        sent += 1;
        match timeout(Duration::from_secs(5), rapid.clone().ready()).await {
            Ok(Ok(next)) => rapid = next,
            _ => break,
        }
        tokio::task::yield_now().await;
    }
    // a header list of 32 KiB
    let mut large = http2(processor.port).await.unwrap();
    let mut request = call(REGISTER);
    request.headers_mut().insert("x-padding", "a".repeat(32 << 10).parse().unwrap());
    let large = match large.send_request(request, true) {
        Ok((answer, _)) => timeout(Duration::from_secs(5), answer).await.unwrap().map_err(|_| ()).map(|a| a.status().as_u16()),
        Err(_) => Err(()),
    };
    // methods that are not served, and more data streams than a hunter needs
    let mut other = http2(processor.port).await.unwrap();
    let mut denied = Vec::new();
    for path in ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y"] {
        let (answer, _) = other.send_request(call(path), true).unwrap();
        let answer = timeout(Duration::from_secs(5), answer).await.unwrap().unwrap();
        denied.push(answer.headers()["grpc-status"].to_str().unwrap().to_owned());
        other = other.ready().await.unwrap();
    }
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(other.send_request(call(STREAM), false).unwrap());
        other = other.ready().await.unwrap();
    }
    let stored = tokio::task::block_in_place(|| good.end());
    tokio::task::block_in_place(stats_line);
    let log = processor.stop();

    assert!(sent < 20_000, "{sent} resets on one connection");
    assert!(matches!(large, Err(()) | Ok(431)), "{large:?}");
    assert_eq!(denied, ["7", "7"], "PERMISSION_DENIED");
    assert_eq!((refusals(&log, "unknown_methods"), refusals(&log, "streams")), (2, 2));
    assert_stored(&tmp.path().join("all.pcap"), stored);
}
