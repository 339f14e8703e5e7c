//! A peer that was let in and sends what is not read because it reads nothing itself, or asks for much and takes none of it: what it makes a
//! processor hold stays within `--memory-limit`, and the hunter beside it delivers everything.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use lippycat::wire::management::{FilterError, FilterRequest, HunterHeartbeat};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::flood::peak_of;
use super::hostile::{STREAM, call, connect_from};
use super::hostile_good::{Good, assert_stored};
use super::hostile_hunter::{batch, framed, register};
use super::hostile_wire::{DATA, END_STREAM, PREFACE, SETTINGS, WINDOW_UPDATE, frame, odd, open};
use super::whole::Processor;

const HEARTBEAT: &str = "/lippycat.management.ManagementService/Heartbeat";
const FILTERS: &str = "/lippycat.management.ManagementService/GetFilters";
const LIMIT: u64 = 96 << 20;
/// From each of so many addresses.
const ADDRESSES: u8 = 4;
const CONNECTIONS: usize = 50;

fn processor(dir: &std::path::Path, more: &[&str]) -> Processor {
    let start = ["--insecure", "--memory-limit", "96M", "--state-dir", "state", "-w", "all.pcap"];
    Processor::start(dir, &[&start[..], more].concat())
}

/// A connection on which nothing can be answered but heads: no stream has a window.
async fn deaf(last: u8, port: u16) -> Option<SendRequest<Bytes>> {
    let socket = connect_from(last, port).await?;
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_window_size(0).handshake(socket).await.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    send.ready().await.ok()
}

/// Sends the same again and again until no more is taken; says how many bytes were.
async fn fill(body: &mut SendStream<Bytes>, message: &Bytes) -> usize {
    let mut sent = 0;
    loop {
        body.reserve_capacity(message.len());
        while body.capacity() < message.len() {
            match timeout(Duration::from_secs(2), std::future::poll_fn(|cx| body.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                _ => return sent,
            }
        }
        if body.send_data(message.clone(), false).is_err() {
            return sent;
        }
        sent += message.len();
    }
}

/// Heartbeats on two streams and batches on two, none of the answers to which can be sent.
async fn unread(last: u8, port: u16) -> Option<(SendRequest<Bytes>, Vec<SendStream<Bytes>>, usize)> {
    let connection = deaf(last, port).await?;
    let error = |n: u64| FilterError { id: format!("{n:0100}"), reason: "y".repeat(500) };
    let beat =
        HunterHeartbeat { hunter_id: "evil".into(), filter_errors: (0..25).map(error).collect(), ..HunterHeartbeat::default() };
    let (mut bodies, mut sent) = (Vec::new(), 0);
    let beat = framed(&beat);
    let repeated = framed(&batch("evil", 9, 1));
    for (path, message) in [(HEARTBEAT, &beat), (STREAM, &repeated), (HEARTBEAT, &beat), (STREAM, &repeated)] {
        let Ok(mut ready) = connection.clone().ready().await else { break };
        let Ok((_answer, mut body)) = ready.send_request(call(path), false) else { break };
        sent += fill(&mut body, message).await;
        bodies.push(body);
    }
    Some((connection, bodies, sent))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn what_is_sent_and_cannot_be_read_stays_within_the_limit() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path(), &[]);
    let port = processor.port;
    let good = Good::start(tmp.path(), &processor);
    register(&deaf(2, port).await.unwrap(), "evil").await;

    let mut evil = JoinSet::new();
    for n in 0..usize::from(ADDRESSES) * CONNECTIONS {
        evil.spawn(unread(3 + u8::try_from(n / CONNECTIONS).unwrap(), port));
    }
    let kept: Vec<_> = evil.join_all().await.into_iter().flatten().collect();
    let peak = peak_of(processor.id());
    let stored = tokio::task::block_in_place(|| good.end());
    let at_last = peak_of(processor.id());
    let sent: usize = kept.iter().map(|k| k.2).sum();
    let connections = kept.len();
    drop(kept);
    let log = processor.stop();

    println!("{} MiB taken on {connections} connections: {} MiB, {} MiB at last", sent >> 20, peak >> 20, at_last >> 20);
    assert!(at_last <= LIMIT + LIMIT / 10, "{} MiB", at_last >> 20);
    assert!(log.contains("p1=0 p2=0"), "{log}");
    assert_stored(&tmp.path().join("all.pcap"), stored);
}

/// Asks for every filter on as many streams as there may be, and takes nothing.
async fn untaken(last: u8, port: u16) -> Option<(SendRequest<Bytes>, usize)> {
    let connection = deaf(last, port).await?;
    let mut asked = 0;
    for _ in 0..60 {
        let Ok(ready) = timeout(Duration::from_secs(5), connection.clone().ready()).await else { break };
        let Ok(mut ready) = ready else { break };
        let Ok((answer, mut body)) = ready.send_request(call(FILTERS), false) else { break };
        let _cut = body.send_data(framed(&FilterRequest { hunter_id: String::new() }), true);
        // kept open by the connection, not by what is dropped here
        tokio::spawn(async move {
            if let Ok(answer) = answer.await {
                let _body = answer.into_body();
                std::future::pending::<()>().await;
            }
        });
        asked += 1;
    }
    Some((connection, asked))
}

/// Grants more than can be sent, asks for every filter on half of its streams, says how it is again and again on the others, and reads nothing.
async fn unheard(last: u8, port: u16) -> Option<TcpStream> {
    let mut socket = connect_from(last, port).await?;
    let asks = framed(&FilterRequest { hunter_id: String::new() });
    let beats = framed(&HunterHeartbeat { hunter_id: "evil".into(), ..HunterHeartbeat::default() }).repeat(500);
    let mut all = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])].concat();
    all.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]));
    for n in 0..60 {
        if n % 2 == 0 {
            all.extend([open(FILTERS, odd(n), 0), frame(DATA, END_STREAM, odd(n), &asks)].concat());
        } else {
            all.extend([open(HEARTBEAT, odd(n), 0), frame(DATA, 0, odd(n), &beats)].concat());
        }
    }
    let _cut = timeout(Duration::from_secs(10), socket.write_all(&all)).await;
    Some(socket)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn what_is_asked_for_and_not_taken_stays_within_the_limit() {
    let tmp = tempfile::tempdir().unwrap();
    let mut filters = String::from("filters:\n");
    for n in 0..10_000 {
        let _infallible = writeln!(filters, "  - {{id: f{n:05}, type: sip_user, pattern: '{n:0100}'}}");
    }
    fs::write(tmp.path().join("f.yaml"), filters).unwrap();
    let processor = processor(tmp.path(), &["--filter-file", "f.yaml"]);
    let port = processor.port;
    let good = Good::start(tmp.path(), &processor);
    register(&deaf(2, port).await.unwrap(), "evil").await;

    let mut evil = JoinSet::new();
    for n in 0..20 {
        evil.spawn(untaken(3 + n % ADDRESSES, port));
    }
    let mut mute = JoinSet::new();
    for n in 0..100 {
        mute.spawn(unheard(3 + n % ADDRESSES, port));
    }
    let kept: Vec<_> = evil.join_all().await.into_iter().flatten().collect();
    let unheard = mute.join_all().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let peak = peak_of(processor.id());
    let stored = tokio::task::block_in_place(|| good.end());
    let at_last = peak_of(processor.id());
    let asked: usize = kept.iter().map(|k| k.1).sum();
    drop((kept, unheard));
    let log = processor.stop();

    println!("{asked} answers on 20 connections: {} MiB, {} MiB at last", peak >> 20, at_last >> 20);
    assert!(at_last <= LIMIT + LIMIT / 10, "{} MiB", at_last >> 20);
    assert!(log.contains("p1=0 p2=0"), "{log}");
    assert_stored(&tmp.path().join("all.pcap"), stored);
}
