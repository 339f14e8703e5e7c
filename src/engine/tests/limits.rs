//! Every bound of an engine, how it is reached, and the counter that says so; and everything that cannot be read.

use super::*;
use crate::protocols::{sdp, sip as protocol};

/// One row: what it is called, how small the bound is made, what comes, and the counter that moves.
struct Row {
    name: &'static str,
    bound: fn(&mut EngineConfig),
    traffic: fn(&mut Wire),
    counter: fn(&Counters) -> u64,
}

const USUAL: fn(&mut EngineConfig) = |_| {};

fn dropped(c: &Counters, reason: DropReason) -> u64 {
    c.dropped[reason.index()]
}

fn unread(c: &Counters, proto: Proto) -> u64 {
    c.parsing.errors().find(|(p, _)| *p == proto).unwrap().1
}

/// A call of alice whose INVITE has this in the place of its last header.
fn with_headers(w: &mut Wire, headers: &str) {
    let message = String::from_utf8(invite("one", "alice", 4000)).unwrap();
    w.udp(1, (5060, 5060), message.replacen("Content-Type", &format!("{headers}Content-Type"), 1).as_bytes());
}

/// A call of alice whose body goes on with this.
fn with_sdp(w: &mut Wire, lines: &str) {
    let message = String::from_utf8(invite("one", "alice", 4000)).unwrap();
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let length = format!("Content-Length: {}", body.len() + lines.len());
    let head = head.replace(&format!("Content-Length: {}", body.len()), &length);
    w.udp(1, (5060, 5060), format!("{head}\r\n\r\n{body}{lines}").as_bytes());
}

/// This stream, in segments of 1000 bytes.
fn stream(w: &mut Wire, bytes: &[u8]) {
    w.tcp(1, (5060, 5060), 0, SYN, b"");
    let mut seq = 1;
    for (n, piece) in (2..).zip(bytes.chunks(1000)) {
        w.tcp(n, (5060, 5060), seq, ACK, piece);
        seq += u32::try_from(piece.len()).unwrap();
    }
}

/// A message that announces far more than is kept, and 20 kB of its body.
fn half_a_message(w: &mut Wire) {
    let half = sip("INVITE sip:b SIP/2.0", "one", "alice", "1 INVITE", None);
    let long = String::from_utf8(half).unwrap().replace("Content-Length: 0", "Content-Length: 100000");
    stream(w, &join(&[long.as_bytes(), &vec![0x55; 20_000]]));
}

/// A WebSocket connection for SIP, and these frames.
fn web_socket(w: &mut Wire, frames: &[u8]) {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: sip\r\n\r\n";
    stream(w, &join(&[head, frames]));
}

/// The fragments of as many datagrams, one of each.
fn fragments(w: &mut Wire, n: u16) {
    for id in 0..n {
        w.frame(i64::from(id), LinkType::ETHERNET, &ethernet(0x0800, &v4_piece(17, id, 0, true, &[0x55; 800])));
    }
}

/// Calls of nobody known.
fn calls(w: &mut Wire, n: u16) {
    for call in 0..n {
        w.udp(i64::from(call), (5060, 5060), &invite(&format!("c{call}"), "carol", 4000 + 2 * call));
    }
}

/// Whole IPv4 inside of IPv4, so deep.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(udp(5060, 5060, b"x"), |inside, n| v4(if n == 0 { 17 } else { 4 }, &inside))
}

const BOUNDS: [Row; 29] = [
    Row {
        name: "flows",
        bound: |c| c.flows = 64,
        traffic: |w| (0..2000).for_each(|n| w.udp(i64::from(n), (10_000 + n, 20_000), &rtp(7, n))),
        counter: |c| c.forgotten.flows,
    },
    Row {
        name: "flows that are idle when there are many",
        bound: |c| c.flows = 64,
        traffic: |w| [0, 60 * SEC].into_iter().for_each(|at| (0..60).for_each(|n| w.udp(at, (10_000 + n, 20_000), &rtp(7, n)))),
        counter: |c| c.forgotten.flows_emergency,
    },
    Row { name: "calls", bound: |c| c.table.limits.calls = 8, traffic: |w| calls(w, 20), counter: |c| c.calls_evicted },
    Row {
        name: "bytes of calls",
        bound: |c| c.table.limits.call_bytes = 30_000,
        traffic: |w| calls(w, 20),
        counter: |c| c.calls_evicted,
    },
    Row {
        name: "packets of an evicted call",
        bound: |c| c.table.limits.calls = 8,
        traffic: |w| calls(w, 20),
        counter: |c| dropped(c, DropReason::EvictedCall),
    },
    Row {
        name: "messages held of a call",
        bound: |c| c.table.limits.hold_messages = 4,
        traffic: |w| (0..9).for_each(|n| w.udp(n * SEC, (5060, 5060), &invite("one", "carol", 4000))),
        counter: |c| dropped(c, DropReason::HoldMessages),
    },
    Row {
        name: "media held of a call",
        bound: |c| c.table.limits.hold_media_packets = 4,
        traffic: |w| {
            calls(w, 1);
            (0..9).for_each(|n| w.rtp(i64::from(n) * MS, (4001, 4000), 7, n));
        },
        counter: |c| dropped(c, DropReason::HoldMedia),
    },
    Row {
        name: "age of what is held",
        bound: USUAL,
        traffic: |w| {
            calls(w, 1);
            w.engine.handle_timeout(Timestamp::from_nanos(181 * SEC), &mut w.out);
        },
        counter: |c| dropped(c, DropReason::HoldAge),
    },
    Row {
        name: "signalling held of all calls",
        bound: |c| c.table.limits.hold_bytes = 4000,
        traffic: |w| calls(w, 20),
        counter: |c| dropped(c, DropReason::HoldBytes),
    },
    Row {
        name: "media that nobody has claimed",
        bound: |c| c.table.limits.unclaimed_bytes = 1000,
        traffic: |w| (0..50).for_each(|n| w.rtp(i64::from(n), (10_000 + n, 20_000), 7, n)),
        counter: |c| dropped(c, DropReason::HoldUnclaimed),
    },
    Row {
        name: "bytes of TCP under reassembly",
        bound: |c| c.bounds.reassembly_bytes = 8000,
        traffic: half_a_message,
        counter: |c| c.forgotten.tcp_bytes,
    },
    Row {
        name: "directions of TCP given up",
        bound: |c| c.bounds.reassembly_bytes = 8000,
        traffic: half_a_message,
        counter: |c| c.forgotten.tcp_directions,
    },
    Row {
        name: "segments kept of TCP",
        bound: |c| c.bounds.kept_bytes = 4000,
        traffic: |w| stream(w, &join(&[&invite("one", "alice", 4000)[..200], &b"X: y\r\n".repeat(1500)])),
        counter: |c| dropped(c, DropReason::TcpUnframed),
    },
    Row {
        name: "datagrams, by bytes",
        bound: |c| c.bounds.fragments.max_bytes = 4000,
        traffic: |w| fragments(w, 20),
        counter: |c| c.forgotten.datagrams,
    },
    Row {
        name: "datagrams, by number",
        bound: |c| c.bounds.fragments.max_trackers = 4,
        traffic: |w| fragments(w, 20),
        counter: |c| c.forgotten.datagrams,
    },
    Row {
        name: "fragments of a datagram",
        bound: USUAL,
        traffic: |w| {
            for n in 0..70 {
                let piece = v4_piece(17, 1, n * 16, true, &[0x55; 8]);
                w.frame(1, LinkType::ETHERNET, &ethernet(0x0800, &piece));
            }
        },
        counter: |c| c.parsing.at(ParseLimit::Fragments),
    },
    Row {
        name: "encapsulations",
        bound: USUAL,
        traffic: |w| w.frame(1, LinkType::ETHERNET, &ethernet(0x0800, &nested(9))),
        counter: |c| c.parsing.at(ParseLimit::Encapsulations),
    },
    Row {
        name: "headers of a message",
        bound: USUAL,
        traffic: |w| with_headers(w, &"A: b\r\n".repeat(protocol::MAX_HEADERS)),
        counter: |c| c.parsing.at(ParseLimit::Headers),
    },
    Row {
        name: "length of a header",
        bound: USUAL,
        traffic: |w| with_headers(w, &format!("A: {}\r\n", "b".repeat(protocol::MAX_HEADER))),
        counter: |c| c.parsing.at(ParseLimit::HeaderBytes),
    },
    Row {
        name: "length of a line in a stream",
        bound: USUAL,
        traffic: |w| stream(w, &join(&[&invite("one", "alice", 4000)[..60], &[b'b'; 2 * protocol::MAX_LINE]])),
        counter: |c| c.parsing.at(ParseLimit::HeaderBytes),
    },
    Row {
        name: "length of a message over WebSocket",
        bound: USUAL,
        traffic: |w| web_socket(w, &join(&[&[0x82, 127], &(300_000_u64).to_be_bytes(), &[0x55; 9000]])),
        counter: |c| c.parsing.at(ParseLimit::WebSocketBytes),
    },
    Row {
        name: "m-lines",
        bound: USUAL,
        traffic: |w| with_sdp(w, &"m=audio 4002 RTP/AVP 8\r\n".repeat(sdp::MAX_MEDIA)),
        counter: |c| c.parsing.at(ParseLimit::Media),
    },
    Row {
        name: "claims of a call",
        bound: USUAL,
        traffic: |w| {
            let media: String = (0..60).map(|n| format!("m=audio {} RTP/AVP 8\r\n", 6000 + 2 * n)).collect();
            with_sdp(w, &media);
        },
        counter: |c| c.parsing.at(ParseLimit::Claims),
    },
    Row {
        name: "Content-Length of a stream",
        bound: USUAL,
        traffic: |w| {
            let message = String::from_utf8(invite("one", "alice", 4000)).unwrap();
            let (head, _) = message.split_once("Content-Length").unwrap();
            stream(w, format!("{head}Content-Length: 2000000\r\n\r\nv=0\r\n").as_bytes());
        },
        counter: |c| c.parsing.at(ParseLimit::ContentLength),
    },
    Row {
        name: "formats of an m-line",
        bound: USUAL,
        traffic: |w| {
            let formats: String = (0..100).map(|n| format!(" {n}")).collect();
            with_sdp(w, &format!("m=audio 4002 RTP/AVP{formats}\r\n"));
        },
        counter: |c| c.parsing.at(ParseLimit::Formats),
    },
    Row {
        name: "candidates of an m-line",
        bound: USUAL,
        traffic: |w| {
            let lines: String = (0..80).map(|n| format!("a=candidate:1 1 UDP 1 192.0.2.9 {} typ host\r\n", 7000 + n)).collect();
            with_sdp(w, &lines);
        },
        counter: |c| c.parsing.at(ParseLimit::Candidates),
    },
    Row {
        name: "streams of a call",
        bound: USUAL,
        traffic: |w| {
            w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
            (0..70).for_each(|n| w.rtp(2 + i64::from(n), (10_000 + n, 4000), 7, n));
        },
        counter: |c| c.parsing.at(ParseLimit::Streams),
    },
    Row {
        name: "length of a message",
        bound: USUAL,
        traffic: |w| {
            let message = String::from_utf8(invite("one", "alice", 4000)).unwrap();
            let (head, _) = message.split_once("Content-Length").unwrap();
            stream(w, format!("{head}Content-Length: {}\r\n\r\nv=0\r\n", protocol::MAX_MESSAGE).as_bytes());
        },
        counter: |c| c.parsing.at(ParseLimit::MessageBytes),
    },
    Row {
        name: "headers of a message in a stream",
        bound: USUAL,
        traffic: |w| stream(w, &join(&[&invite("one", "alice", 4000)[..60], &b"\r\nA: b".repeat(protocol::MAX_MESSAGE / 6)])),
        counter: |c| c.parsing.at(ParseLimit::MessageBytes),
    },
];

const ERRORS: [Row; 10] = [
    Row {
        name: "frame",
        bound: USUAL,
        traffic: |w| w.frame(1, LinkType::ETHERNET, &ethernet(0x0800, &[0x45, 0, 0])),
        counter: |c| unread(c, Proto::Frame),
    },
    Row {
        name: "fragments",
        bound: USUAL,
        traffic: |w| w.frame(1, LinkType::ETHERNET, &ethernet(0x0800, &v4_piece(17, 1, 0, true, &[0x55; 9]))),
        counter: |c| unread(c, Proto::Ip),
    },
    Row {
        name: "segments that disagree",
        bound: USUAL,
        traffic: |w| {
            let half = &invite("one", "alice", 4000)[..200];
            stream(w, half);
            w.tcp(9, (5060, 5060), 1, ACK, &half.to_ascii_uppercase());
        },
        counter: |c| unread(c, Proto::Tcp),
    },
    Row {
        name: "messages that break a rule",
        bound: USUAL,
        traffic: |w| w.udp(1, (5060, 5060), b"INVITE sip:b SIP/2.0\r\nCall-ID: one\r\n\r\n"),
        counter: |c| unread(c, Proto::Sip),
    },
    Row {
        name: "messages over WebSocket that are no SIP",
        bound: USUAL,
        traffic: |w| web_socket(w, b"\x81\x05hello"),
        counter: |c| unread(c, Proto::Sip),
    },
    Row {
        name: "no message in a stream",
        bound: USUAL,
        traffic: |w| stream(w, &join(&[&invite("one", "alice", 4000), &b"garbage\r\n".repeat(50)])),
        counter: |c| unread(c, Proto::Sip),
    },
    Row {
        name: "frames of WebSocket",
        bound: USUAL,
        traffic: |w| web_socket(w, &[0xff; 50]),
        counter: |c| unread(c, Proto::WebSocket),
    },
    Row { name: "lines of SDP", bound: USUAL, traffic: |w| with_sdp(w, "no line\r\n"), counter: |c| unread(c, Proto::Sdp) },
    Row {
        name: "media",
        bound: USUAL,
        traffic: |w| {
            w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
            w.udp(2, (4001, 4000), b"\x40 no RTP");
        },
        counter: |c| unread(c, Proto::Rtp),
    },
    Row {
        name: "reports",
        bound: USUAL,
        traffic: |w| {
            w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
            w.udp(2, (4001, 4001), &[0x81, 201, 0, 40, 0, 0, 0, 7]);
        },
        counter: |c| unread(c, Proto::Rtcp),
    },
];

/// A call as calls are: none of the counters moves.
fn usual(w: &mut Wire) {
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp_back(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(4001)));
    (0..9).for_each(|n| w.rtp(3 + i64::from(n), (4001, 4000), 7, n));
    stream(w, &invite("two", "alice", 4100));
}

#[test]
fn every_bound_that_is_reached_is_counted_and_every_frame_is_accounted_for() {
    for row in BOUNDS.iter().chain(&ERRORS) {
        let mut w = Wire::with(&["alice"], row.bound);
        (row.traffic)(&mut w);
        let number = w.number;
        let (_, counters) = w.end();

        assert!((row.counter)(&counters) > 0, "{}: {counters:?}", row.name);
        assert_eq!(counters.captured, number, "{}", row.name);
    }
}

#[test]
fn a_usual_call_reaches_no_bound_and_is_read() {
    let mut w = Wire::new(&["alice"]);
    usual(&mut w);
    let (_, counters) = w.end();

    for row in BOUNDS.iter().chain(&ERRORS) {
        assert_eq!((row.counter)(&counters), 0, "{}: {counters:?}", row.name);
    }
    assert_eq!(counters.limits(), "none");
}

/// Long names, and an address for every candidate that one call may have.
#[test]
fn calls_are_bounded_by_their_bytes_however_much_each_of_them_names() {
    const ROOM: usize = 500_000;
    let mut w = Wire::with(&["alice"], |c| c.table.limits.call_bytes = ROOM);
    calls(&mut w, 150);
    assert_eq!(w.engine.counters().calls_evicted, 0, "as many ordinary ones have room");
    let candidates: String =
        (0..60).map(|n| format!("a=candidate:{n} 1 UDP 1 10.0.0.1 {} typ host\r\n", 10_000 + 2 * n)).collect();
    let body = format!("v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 8\r\n{candidates}");

    for n in 0..200_u16 {
        let (id, user) = (format!("{n}-{}", "i".repeat(900)), "u".repeat(4000));
        let message = format!(
            "INVITE sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:{user}@a.example>;tag=a\r\n\
             To: <sip:bob@b.example>\r\nCall-ID: {id}\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        w.udp(SEC + i64::from(n), (5060, 5060), message.as_bytes());
        assert!(w.engine.calls().bytes() <= 2 * ROOM, "{n}: {}", w.engine.calls().bytes());
    }

    let counters = w.engine.counters();
    assert!(w.engine.calls().len() < 40 && counters.calls_evicted > 300, "{} {counters:?}", w.engine.calls().len());
}

#[test]
fn when_memory_is_short_idle_flows_are_forgotten_six_times_as_soon_and_are_counted() {
    let mut w = Wire::new(&["alice"]);
    let mut early = |at: i64, short: bool| {
        w.engine.set_short(short);
        w.rtp(at * SEC, (4001, 4000), 7, 1);
        w.engine.counters().forgotten.flows_emergency
    };

    assert_eq!([early(0, true), early(50, true), early(101, true)], [0, 0, 1]);
    assert_eq!([early(152, false), early(900, false)], [1, 1], "idle as anywhere");
    let counters = w.engine.counters();
    assert_eq!((counters.forgotten.flows, counters.limits()), (0, "flows_emergency=1".to_owned()));
}

#[test]
fn an_emergency_is_over_once_flows_are_idle_though_nothing_comes() {
    let mut w = Wire::with(&["alice"], |c| c.flows = 64);
    (0..60).for_each(|n| w.udp(0, (10_000 + n, 20_000), &rtp(7, n)));
    assert!(w.engine.flows.is_emergency());

    w.engine.handle_timeout(Timestamp::from_nanos(51 * SEC), &mut w.out);

    assert!(!w.engine.flows.is_emergency());
    assert_eq!((w.engine.flows.counters().live, w.engine.counters().forgotten.flows_emergency), (0, 60));
}
