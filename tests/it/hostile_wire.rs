//! A peer that was never let in and speaks HTTP/2 as no client does: floods of every frame there is, resets by the million, streams by the ten
//! thousand, bombs, slow and silent ones. Memory stays bounded, and the hunter beside delivers everything.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::flood::peak_of;
use super::hostile::{REGISTER, STREAM, hunt, processor, resident};
use super::hostile_bombs::zstd;
use super::hostile_good::{Good, assert_stored};
use super::not_run;
use super::whole::{calls_capture, frames};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types and flags (RFC 9113 §6).
pub(super) const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header list without dynamic entries (RFC 7541 §6.2.2).
fn headers(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let text = |t: &str| [&[u8::try_from(t.len()).unwrap()], t.as_bytes()].concat();
    let mut list = [&[0x83, 0x86, 0x04][..], &text(path), &[0x01, 1, b'x', 0x0f, 0x10], &text("application/grpc")].concat();
    for (name, value) in [("te", "trailers")].iter().chain(more) {
        list.extend([&[0][..], &text(name), &text(value)].concat());
    }
    list
}

pub(super) fn open(path: &str, stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &headers(path, &[]))
}

/// Streams of a client have odd numbers.
pub(super) fn odd(n: u32) -> u32 {
    2 * n + 1
}

fn many(n: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..n).flat_map(each).collect()
}

/// A gigabyte in 32 KiB, to a method that takes one message.
fn bomb(stream: u32) -> Vec<u8> {
    let (list, packed) = (headers(REGISTER, &[("grpc-encoding", "zstd")]), zstd());
    let body = [&[1][..], &u32::try_from(packed.len()).unwrap().to_be_bytes(), &packed].concat();
    [frame(HEADERS, END_HEADERS, stream, &list), frame(DATA, END_STREAM, stream, &body)].concat()
}

/// A header list of 4 KiB in the dynamic table, named again and again (RFC 7541 §7.3).
fn hpack_bomb() -> Vec<u8> {
    let entry = [&[0x40, 1, b'x', 0x7f, 0x80 | 0x21, 0x1f][..], &[b'v'; 4000]].concat();
    frame(HEADERS, END_HEADERS, 1, &[headers(REGISTER, &[]), entry, vec![0xbe; 12_000]].concat())
}

/// What is said, after the beginning that a client makes.
fn wrong() -> Vec<(&'static str, Vec<u8>)> {
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let after = |bytes: Vec<u8>| [start.clone(), bytes].concat();
    let unread = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let grown = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    vec![
        ("anything", (0..=255).cycle().take(5000).collect()),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS to plain text", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat()),
        ("half a beginning", PREFACE[..10].to_vec()),
        ("a beginning and nothing", start.clone()),
        ("two beginnings", after(PREFACE.to_vec())),
        ("settings without end", after(frame(SETTINGS, 0, 0, &[]).repeat(100_000))),
        ("settings of no length", after(frame(SETTINGS, 0, 0, &[1, 2, 3]))),
        ("pings without end", after(frame(PING, 0, 0, &[7; 8]).repeat(100_000))),
        ("priorities without end", after(many(50_000, |n| frame(PRIORITY, 0, odd(n), &[0, 0, 0, 0, 1])))),
        ("windows that overflow", after(grown.repeat(3))),
        ("windows that do not grow", after(frame(WINDOW_UPDATE, 0, 0, &[0; 4]).repeat(1000))),
        (
            "headers that go on for ever",
            after([frame(HEADERS, 0, 1, &[0x83]), frame(CONTINUATION, 0, 1, &[0x82; 1000]).repeat(5000)].concat()),
        ),
        (
            "headers that go on with nothing",
            after([frame(HEADERS, 0, 1, &[0x83]), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat()),
        ),
        ("headers that unfold", after(hpack_bomb())),
        ("headers that are none", after(many(1000, |n| frame(HEADERS, END_HEADERS, odd(n), &[0xff; 40])))),
        ("data without end, of no bytes", after([open(STREAM, 1, 0), frame(DATA, 0, 1, &[]).repeat(100_000)].concat())),
        ("data of no stream", after(frame(DATA, 0, 0, &[0; 100]))),
        ("data of a stream that was not opened", after(frame(DATA, 0, 9, &[0; 100]))),
        ("a frame of 16 MB", after([&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 10_000]].concat())),
        ("frames of a sort to come", after(frame(200, 255, 1, &[1; 100]).repeat(20_000))),
        ("streams of a server", after(many(100, |n| open(STREAM, 2 * n + 2, 0)))),
        ("streams backwards", after(many(100, |n| open(STREAM, odd(1000 - n), 0)))),
        ("10 000 streams", after(many(10_000, |n| open(STREAM, odd(n), 0)))),
        ("10 000 calls", after(many(10_000, |n| open(REGISTER, odd(n), END_STREAM)))),
        ("calls, no answer to which is read", after([unread, many(64, |n| open(REGISTER, odd(n), END_STREAM))].concat())),
        ("a hundred bombs", after(many(100, |n| bomb(odd(n))))),
        ("resets", after(many(50_000, |n| [open(REGISTER, odd(n), 0), frame(RST_STREAM, 0, odd(n), &[0, 0, 0, 8])].concat()))),
        ("resets of nothing", after(many(50_000, |n| frame(RST_STREAM, 0, odd(n), &[0, 0, 0, 8])))),
    ]
}

#[tokio::test]
async fn a_server_announces_sixty_four_streams_and_headers_of_sixteen_kilobytes() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let mut socket = connect(0, processor.port).await.unwrap();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();

    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    socket.read_exact(&mut settings).await.unwrap();

    // its first frame (RFC 9113 §3.4): settings of six bytes each (§6.5.1)
    assert_eq!((head[0], head[3..].to_vec()), (0, vec![SETTINGS, 0, 0, 0, 0, 0]));
    let value = |id: u16| {
        let one = settings.chunks(6).find(|one| one[..2] == id.to_be_bytes());
        one.map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()))
    };
    assert_eq!(value(3), Some(64), "SETTINGS_MAX_CONCURRENT_STREAMS");
    assert_eq!(value(6), Some(16_384), "SETTINGS_MAX_HEADER_LIST_SIZE");
}

/// From the n-th of many addresses.
async fn connect(n: usize, port: u16) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 3, u8::try_from(n % 100 + 1).unwrap()], 0))).ok()?;
    timeout(Duration::from_secs(10), socket.connect(([127, 0, 0, 1], port).into())).await.ok()?.ok()
}

/// Says it, as fast as it is taken, while what is answered is read or not; then says nothing until it is cut off, or long enough.
async fn say(n: usize, port: u16, bytes: Vec<u8>) {
    let Some(socket) = connect(n, port).await else { return };
    let (mut read, mut write) = socket.into_split();
    let reading = async {
        let mut buffer = [0; 4096];
        // every other one reads nothing
        while n.is_multiple_of(2) && matches!(read.read(&mut buffer).await, Ok(1..)) {}
        std::future::pending::<()>().await;
    };
    let writing = async {
        let _cut = write.write_all(&bytes).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let _done = timeout(Duration::from_secs(8), async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    })
    .await;
}

/// One byte at a time.
async fn say_slowly(n: usize, port: u16) {
    let Some(mut socket) = connect(n, port).await else { return };
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &open(STREAM, 1, 0)].concat();
    for byte in start.chunks(1).take(60) {
        if socket.write_all(byte).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Comes and is gone, with a reset where it is an even one.
async fn come_and_go(n: usize, port: u16) {
    if let Some(socket) = connect(n, port).await
        && n.is_multiple_of(2)
    {
        let socket = socket2::Socket::from(socket.into_std().unwrap());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn a_peer_that_breaks_every_rule_costs_the_hunter_beside_it_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let port = processor.port;
    let before = resident(processor.id());
    let good = Good::start(tmp.path(), &processor);
    let mut evil = JoinSet::new();

    // each four times, and a million resets in all
    for (n, (what, bytes)) in wrong().into_iter().enumerate() {
        let times = if what == "resets" { 20 } else { 4 };
        for time in 0..times {
            evil.spawn(say(4 * n + time, port, bytes.clone()));
        }
    }
    for n in 0..50 {
        evil.spawn(say_slowly(n, port));
    }
    for n in 0..2000 {
        evil.spawn(come_and_go(n, port));
    }
    evil.join_all().await;
    let sent = tokio::task::block_in_place(|| good.end());
    let grown = peak_of(processor.id()).saturating_sub(before);
    let at_last = resident(processor.id()).saturating_sub(before);
    let log = processor.stop();

    println!("every rule broken: {} MiB, {} MiB at last; {sent} packets beside it", grown >> 20, at_last >> 20);
    assert_stored(&tmp.path().join("all.pcap"), sent);
    assert!(grown.max(at_last) <= 64 << 20, "{} MiB, {} MiB at last", grown >> 20, at_last >> 20);
    assert!(log.contains("p1=0 p2=0") && !log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 1000, "{} lines", log.lines().count());
}

/// Descriptors of this process for so many sockets, where it may have them.
fn room_for(sockets: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let room = limit.maximum.is_none_or(|most| most >= sockets);
    room && setrlimit(Resource::Nofile, Rlimit { current: limit.current.map(|now| now.max(sockets)), ..limit }).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn ten_thousand_idle_connections_of_a_hundred_addresses_leave_room_for_the_next_one() {
    if !room_for(14_000) {
        return not_run::say("ten_thousand_idle_connections", "it needs 14 000 descriptors (ulimit -Hn)");
    }
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let port = processor.port;
    let before = resident(processor.id());

    let mut idle = Vec::new();
    for round in 0..100 {
        let came = futures_util::future::join_all((0..100).map(|n| connect(100 * round + n, port))).await;
        idle.extend(came.into_iter().flatten());
    }
    let grown = resident(processor.id()).saturating_sub(before);
    let came = idle.len();
    // silent ones are cut after 10 s, and their places are free
    tokio::time::sleep(Duration::from_secs(11)).await;
    tokio::task::block_in_place(|| hunt(tmp.path(), port, "good"));
    let log = processor.stop();

    println!("{came} idle connections: {} MiB", grown >> 20);
    assert!(came > 9900, "{came}");
    assert!(grown <= 64 << 20, "{} MiB", grown >> 20);
    assert_eq!(frames(&tmp.path().join("all.pcap")), frames(&calls_capture()), "{log}");
}
