//! The engine on frames made here: one behaviour each. Real traffic is in `captures/`.

mod details;
mod expiry;
mod limits;
mod messages;
mod reports;
mod standards;
mod unsignalled;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::filter::{CompileOptions, Filter, FilterKind, PacketTest};
use crate::packet::build::{A, B, be16, ethernet, frame, join, tcp, udp, v4, v4_piece};
use crate::packet::{Endpoint, Ip, LinkType};
use crate::reason::DropReason;
use crate::voip::event::{CallFacts, SipEvent};
use crate::voip::expiry::CallTimes;
use crate::voip::hold::Part;
use crate::voip::table::NoFilterPolicy;

const SEC: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

struct NoBpf;

impl BpfCompiler for NoBpf {
    fn compile(&self, _: LinkType, _: &str) -> Result<Box<dyn PacketTest>, String> {
        Err("none here".into())
    }
}

/// What came out.
#[derive(Default)]
struct Seen {
    packets: Vec<(i64, String, Part, Vec<u8>)>,
    sip: Vec<SipEvent>,
    calls: Vec<CallFacts>,
}

impl Output for Seen {
    fn forward(&mut self, f: &Frame<'_>, owner: Option<&crate::voip::output::Owner<'_>>) {
        let (id, part) = owner.map_or((String::new(), Part::Media), |o| (o.context.call_id.to_string(), o.part));
        self.packets.push((f.ts.as_nanos(), id, part, f.data.to_vec()));
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Sip(e) => self.sip.push(*e),
            Event::Call(e) => self.calls.push(e.facts),
            Event::Stream(_) => {}
        }
    }

    fn wants_events(&self) -> bool {
        true
    }
}

impl Seen {
    fn of(&self, call: &str) -> Vec<i64> {
        self.packets.iter().filter(|p| p.1 == call).map(|p| p.0).collect()
    }
}

struct Wire {
    engine: Engine,
    out: Seen,
    number: u64,
    /// Until when nothing but time has come.
    waited: i64,
}

impl Wire {
    fn new(users: &[&str]) -> Self {
        Self::with(users, |_| {})
    }

    fn with(users: &[&str], change: impl FnOnce(&mut EngineConfig)) -> Self {
        let filters: Vec<Filter> = users.iter().map(|u| Filter::new(*u, FilterKind::SipUser, *u)).collect();
        let (set, errors) = FilterSet::compile(&filters, &CompileOptions::default());
        assert!(errors.is_empty(), "{errors:?}");
        let mut config = EngineConfig {
            mode: Mode::Voip,
            table: TableConfig { quality: true, details: true, no_filter: NoFilterPolicy::Deny, ..TableConfig::default() },
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 10_000,
            bounds: Bounds::default(),
        };
        change(&mut config);
        Self { engine: Engine::new(config, Arc::new(set), Arc::new(NoBpf)), out: Seen::default(), number: 0, waited: 0 }
    }

    fn frame(&mut self, at: i64, link: LinkType, data: &[u8]) {
        self.number += 1;
        let f = frame(link, data, at);
        self.engine.handle_frame(&f, self.number, &mut self.out);
        assert_eq!(self.engine.counters().imbalance(), 0, "after frame {}", self.number);
    }

    fn udp(&mut self, at: i64, ports: (u16, u16), payload: &[u8]) {
        self.frame(at, LinkType::ETHERNET, &ethernet(0x0800, &v4(17, &udp(ports.0, ports.1, payload))));
    }

    fn udp_back(&mut self, at: i64, ports: (u16, u16), payload: &[u8]) {
        self.frame(at, LinkType::ETHERNET, &ethernet(0x0800, &reversed(&v4(17, &udp(ports.0, ports.1, payload)))));
    }

    fn tcp(&mut self, at: i64, ports: (u16, u16), seq: u32, flags: u8, payload: &[u8]) {
        self.frame(at, LinkType::ETHERNET, &ethernet(0x0800, &v4(6, &tcp(ports.0, ports.1, seq, flags, payload))));
    }

    fn rtp(&mut self, at: i64, ports: (u16, u16), ssrc: u32, seq: u16) {
        self.udp(at, ports, &rtp(ssrc, seq));
    }

    fn end(mut self) -> (Seen, Counters) {
        self.engine.finish(&mut self.out);
        let counters = self.engine.counters();
        assert_eq!(counters.imbalance(), 0);
        assert_eq!(counters.held, 0, "nothing is held after the end");
        (self.out, counters)
    }
}

fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    join(&[&[0x80, 8], &be16(usize::from(seq)), &(u32::from(seq) * 160).to_be_bytes(), &ssrc.to_be_bytes(), &[0x55; 160]])
}

/// One message; `sdp` is a port at the receiver of frames made here.
fn sip(start: &str, call: &str, from: &str, cseq: &str, sdp: Option<u16>) -> Vec<u8> {
    let tag = if start.starts_with("INVITE") { "" } else { ";tag=b" };
    let body = sdp.map_or_else(String::new, |port| {
        format!("v=0\r\no=- 1 1 IN IP4 198.51.100.2\r\ns=-\r\nc=IN IP4 198.51.100.2\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n")
    });
    let kind = if sdp.is_some() { "Content-Type: application/sdp\r\n" } else { "" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{cseq}\r\nFrom: <sip:{from}@a.example>;tag=a\r\nTo: <sip:bob@b.example>{tag}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn invite(call: &str, from: &str, port: u16) -> Vec<u8> {
    sip("INVITE sip:bob@b.example SIP/2.0", call, from, "1 INVITE", Some(port))
}

#[test]
fn every_packet_of_the_targets_call_is_forwarded_once_with_its_own_time_and_nothing_else_is() {
    let mut w = Wire::new(&["alice"]);
    w.udp(10, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(11, (5062, 5060), &invite("two", "carol", 4100));
    w.rtp(12, (4001, 4000), 1, 1);
    w.rtp(13, (4101, 4100), 2, 1);
    w.udp(14, (53, 40_000), b"not sip, not rtp");

    let (out, counters) = w.end();

    assert_eq!(out.of("one"), [10, 12]);
    assert_eq!(out.packets.len(), 2);
    assert_eq!(counters.forwarded, 2);
}

#[test]
fn media_goes_on_minutes_after_the_invite() {
    let mut w = Wire::new(&["alice"]);
    w.udp(0, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(MS, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(5000)));
    for n in 0..600_i64 {
        w.rtp(SEC + n * SEC, (4001, 4000), 1, u16::try_from(n).unwrap());
        let now = Timestamp::from_nanos(SEC + n * SEC);
        w.engine.handle_timeout(now, &mut w.out);
    }

    let (out, _) = w.end();

    assert_eq!(out.of("one").len(), 602);
}

#[test]
fn a_fragmented_invite_on_the_any_device_is_found_and_its_fragments_are_forwarded_as_they_came() {
    let mut w = Wire::new(&["alice"]);
    let message = udp(5060, 5060, &invite("one", "alice", 4000));
    let (first, second) = message.split_at(160);
    let sll = |ip: &[u8]| join(&[&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0], ip]);
    let pieces = [sll(&v4_piece(17, 7, 0, true, first)), sll(&v4_piece(17, 7, 160, false, second))];
    w.frame(1, LinkType::LINUX_SLL, &pieces[1]);
    w.frame(2, LinkType::LINUX_SLL, &pieces[0]);
    w.frame(3, LinkType::LINUX_SLL, &pieces[0]);

    let (out, counters) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3], "both fragments and the late double of one");
    assert_eq!(out.packets[0].3, pieces[1]);
    assert_eq!(counters.sip_messages, 1);
}

#[test]
fn sip_is_found_on_any_port() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (31_337, 31_338), &invite("one", "alice", 4000));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1]);
}

#[test]
fn other_protocols_that_begin_like_sip_are_not_taken_for_it() {
    let mut w = Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow);
    w.udp(1, (1900, 1900), b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n");
    w.udp(2, (1900, 1901), b"OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n");
    w.udp(3, (4222, 4223), b"INFO {\"server_id\":\"x\"}\r\n");

    let (out, counters) = w.end();

    assert_eq!(counters.sip_messages, 0);
    assert!(out.sip.is_empty());
}

#[test]
fn a_call_behind_a_challenge_is_one_call_and_succeeds() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &sip("INVITE sip:bob@b.example SIP/2.0", "one", "alice", "1 INVITE", Some(4000)));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 407 Proxy Authentication Required", "one", "alice", "1 INVITE", None));
    w.udp(3, (5060, 5060), &sip("INVITE sip:bob@b.example SIP/2.0", "one", "alice", "2 INVITE", Some(4000)));
    w.udp(4, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "2 INVITE", Some(5000)));
    w.rtp(5 + 40 * SEC, (4001, 4000), 1, 1);

    let (out, _) = w.end();

    assert_eq!(out.of("one").len(), 5);
    assert_eq!(out.calls.len(), 1);
    assert_eq!(out.calls[0].state, "ACTIVE");
    assert!(out.calls[0].unfinished);
}

#[test]
fn a_call_is_held_until_a_late_message_names_the_target() {
    let mut w = Wire::new(&["zoe"]);
    w.udp(1, (5060, 5060), &invite("one", "anonymous", 4000));
    w.rtp(2, (4001, 4000), 1, 1);
    let ringing = String::from_utf8(sip("SIP/2.0 180 Ringing", "one", "anonymous", "1 INVITE", None)).unwrap();
    let ringing = ringing.replace("Content-Length", "P-Asserted-Identity: <sip:zoe@b.example>\r\nContent-Length");
    w.udp(3, (5060, 5060), ringing.as_bytes());
    w.rtp(4, (4001, 4000), 1, 2);

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3, 4]);
    assert!(out.calls[0].holes.is_empty());
}

#[test]
fn media_that_comes_before_its_sdp_is_forwarded_in_order() {
    let mut w = Wire::new(&["alice"]);
    w.rtp(1, (4001, 4000), 1, 1);
    w.rtp(2, (4001, 4000), 1, 2);
    w.udp(3, (5060, 5060), &invite("one", "alice", 4000));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3]);
}

#[test]
fn both_directions_of_media_before_its_sdp_are_measured_as_they_went() {
    let mut w = Wire::new(&["alice"]);
    for seq in 0..3 {
        w.rtp(i64::from(seq), (4001, 4000), 1, seq);
        w.udp_back(i64::from(seq), (4000, 4001), &rtp(2, seq));
    }
    w.udp(3, (5060, 5060), &invite("one", "alice", 4000));

    let (out, _) = w.end();

    let streams: Vec<_> = out.calls[0].streams.iter().map(|s| (s.ssrc, s.dst.as_str(), s.packets)).collect();
    assert_eq!(streams, [(1, "198.51.100.2:4000", 3), (2, "192.0.2.1:4001", 3)]);
}

#[test]
fn media_nobody_claims_is_let_go_and_counted() {
    let mut w = Wire::new(&["alice"]);
    for n in 0..60 {
        w.rtp(i64::from(n), (4001, 4000), 1, n);
    }
    w.rtp(10 * SEC, (4001, 4000), 1, 100);

    let (out, counters) = w.end();

    assert!(out.packets.is_empty());
    assert_eq!(counters.dropped[DropReason::HoldUnclaimed.index()] + counters.filtered, 61);
}

#[test]
fn a_port_used_again_does_not_cross_calls() {
    let mut w = Wire::new(&["alice", "carol"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", None));
    w.rtp(3, (4001, 4000), 1, 1);
    w.udp(4, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));
    w.udp(5, (5060, 5060), &invite("two", "carol", 4000));
    w.rtp(6, (4003, 4000), 2, 1);
    w.rtp(7, (4001, 4000), 1, 2);
    w.rtp(8, (4003, 4000), 2, 2);

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3, 4, 7], "the old stream's straggler");
    assert_eq!(out.of("two"), [5, 6, 8]);
}

#[test]
fn media_that_cannot_be_told_apart_is_delivered_to_nobody() {
    let mut w = Wire::new(&["alice", "carol"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(2, (4001, 4000), 1, 1);
    w.udp(3, (5060, 5060), &invite("two", "carol", 4000));
    w.rtp(4, (4009, 4000), 99, 1);

    let (out, counters) = w.end();

    assert_eq!(out.packets.len(), 3);
    assert_eq!(counters.dropped[DropReason::AmbiguousMedia.index()], 1);
}

#[test]
fn media_behind_nat_is_learnt_from_its_destination() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    // from the claimed endpoint to an address nobody named
    w.udp_back(2, (4000, 61_000), &rtp(7, 1));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2]);
}

#[test]
fn the_same_packet_seen_twice_is_forwarded_once() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(1 + MS, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(2 + MS, (4001, 4000), 1, 1);
    w.rtp(3 + MS, (4001, 4000), 1, 1);

    let (out, counters) = w.end();

    assert_eq!(out.packets.len(), 2);
    assert_eq!(counters.duplicates, 2);
}

#[test]
fn tcp_segments_go_to_the_call_whose_message_they_carry() {
    let mut w = Wire::new(&["alice"]);
    let (a, b) = (invite("one", "alice", 4000), invite("two", "carol", 4100));
    let both = join(&[&a, b"\r\n\r\n", &b]);
    let (x, rest) = both.split_at(100);
    let (y, z) = rest.split_at(a.len());
    w.tcp(1, (5070, 5060), 999, SYN, b"");
    w.tcp(2, (5070, 5060), 1000, ACK, x);
    w.tcp(3, (5070, 5060), 1000 + 100 + u32::try_from(y.len()).unwrap(), ACK, z);
    w.tcp(4, (5070, 5060), 1100, ACK, y);
    w.tcp(5 + SEC, (5070, 5060), 1000, ACK, x);

    let (out, counters) = w.end();

    assert_eq!(counters.sip_messages, 2);
    assert_eq!(out.of("one"), [2, 4, 5 + SEC], "both segments and the retransmission, nothing of the other call alone");
    assert!(out.of("two").is_empty());
}

#[test]
fn a_segment_shared_by_two_wanted_calls_goes_to_both() {
    let mut w = Wire::new(&["alice", "carol"]);
    let both = join(&[&invite("one", "alice", 4000), &invite("two", "carol", 4100)]);
    w.tcp(1, (5070, 5060), 999, SYN, b"");
    w.tcp(2, (5070, 5060), 1000, ACK, &both);

    let (out, counters) = w.end();

    assert_eq!((out.of("one"), out.of("two")), (vec![2], vec![2]));
    assert_eq!(counters.shared, 1);
}

#[test]
fn compact_content_length_frames_a_message_on_tcp() {
    let mut w = Wire::new(&["alice"]);
    let text = String::from_utf8(invite("one", "alice", 4000)).unwrap().replace("Content-Length:", "l :");
    w.tcp(1, (5070, 5060), 999, SYN, b"");
    w.tcp(2, (5070, 5060), 1000, ACK, text.as_bytes());

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [2]);
    assert_eq!(out.sip[0].media, ["audio 198.51.100.2:4000"]);
}

#[test]
fn both_directions_of_a_connection_are_read_on_their_own() {
    let mut w = Wire::new(&["alice"]);
    let request = invite("one", "alice", 4000);
    let (x, y) = request.split_at(50);
    w.tcp(1, (5070, 5060), 1000, ACK, x);
    let answer = sip("SIP/2.0 100 Trying", "one", "alice", "1 INVITE", None);
    let back = ethernet(0x0800, &reversed(&v4(6, &tcp(5060, 5070, 5000, ACK, &answer))));
    w.frame(2, LinkType::ETHERNET, &back);
    w.tcp(3, (5070, 5060), 1050, ACK, y);

    let (out, counters) = w.end();

    assert_eq!(counters.sip_messages, 2);
    assert_eq!(out.of("one").len(), 3);
}

#[test]
fn a_hole_in_a_stream_costs_one_message() {
    let mut w = Wire::new(&["alice"]);
    let (a, b) = (invite("one", "alice", 4000), invite("two", "alice", 4100));
    let len = u32::try_from(a.len()).unwrap();
    w.tcp(1, (5070, 5060), 1000, ACK, &a);
    w.tcp(2, (5070, 5060), 1000 + len + 700, ACK, &b);
    w.tcp(3 + 3 * SEC, (5070, 5060), 1000 + len + 700 + u32::try_from(b.len()).unwrap(), ACK, b"\r\n\r\n");

    let (out, _) = w.end();

    assert_eq!((out.of("one"), out.of("two")), (vec![1], vec![2]));
}

#[test]
fn look_back_gives_the_whole_call_when_the_filter_comes_late() {
    let mut w = Wire::with(&["nobody"], |c| c.table.lookback = (Duration::from_secs(30), 1 << 20));
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(5000)));
    w.udp(3, (5060, 5060), &sip("ACK sip:bob@b.example SIP/2.0", "one", "alice", "1 ACK", None));
    w.rtp(4, (4001, 4000), 1, 1);
    let (set, _) = FilterSet::compile(&[Filter::new("f", FilterKind::SipUser, "alice")], &CompileOptions::default());
    w.engine.set_filters(&Arc::new(set));
    w.udp(5, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3, 4, 5]);
}

#[test]
fn look_back_that_has_forgotten_media_says_so() {
    let mut w = Wire::with(&["nobody"], |c| c.table.lookback = (Duration::from_secs(30), 1 << 20));
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(5000)));
    w.udp(3, (5060, 5060), &sip("ACK sip:bob@b.example SIP/2.0", "one", "alice", "1 ACK", None));
    w.rtp(4, (4001, 4000), 1, 1);
    w.rtp(60 * SEC, (4001, 4000), 1, 2);
    let (set, _) = FilterSet::compile(&[Filter::new("f", FilterKind::SipUser, "alice")], &CompileOptions::default());
    w.engine.set_filters(&Arc::new(set));
    w.udp(61 * SEC, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3, 60 * SEC, 61 * SEC]);
    let holes: Vec<_> = out.calls[0].holes.iter().map(|h| (h.cause, h.from_ns, h.to_ns, h.packets)).collect();
    assert_eq!(holes, [("before_match", 1, 60 * SEC, 1)]);
}

#[test]
fn without_look_back_a_late_match_says_what_is_missing() {
    let mut w = Wire::new(&["nobody"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(5000)));
    w.udp(3, (5060, 5060), &sip("ACK sip:bob@b.example SIP/2.0", "one", "alice", "1 ACK", None));
    w.rtp(4, (4001, 4000), 1, 1);
    let (set, _) = FilterSet::compile(&[Filter::new("f", FilterKind::SipUser, "alice")], &CompileOptions::default());
    w.engine.set_filters(&Arc::new(set));
    w.udp(5, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [5]);
    let holes: Vec<_> = out.calls[0].holes.iter().map(|h| (h.cause, h.from_ns, h.to_ns, h.packets)).collect();
    assert_eq!(holes, [("before_match", 1, 5, 0)], "media of a call nobody wanted is not counted");
}

#[test]
fn holds_are_bounded_and_what_they_give_up_is_counted() {
    let mut w = Wire::new(&["alice"]);
    w.udp(0, (5060, 5060), &invite("one", "carol", 4000));
    for n in 0..300_u16 {
        w.rtp(i64::from(n), (4001, 4000), 1, n);
    }

    let counters = w.engine.counters();

    assert_eq!(counters.dropped[DropReason::HoldMedia.index()], 100);
    assert_eq!(counters.held, 201);
}

#[test]
fn a_full_table_loses_the_call_closest_to_its_end_and_counts_it() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 100);
    for n in 0..250 {
        w.udp(n * MS, (5060, 5060), &invite(&format!("call-{n}"), "carol", 4000));
    }

    let (_, counters) = w.end();

    assert_eq!(counters.calls_evicted, 150);
    assert_eq!(counters.dropped[DropReason::EvictedCall.index()], 150);
}

#[test]
fn quality_is_measured_per_stream_with_the_right_clock() {
    let mut w = Wire::new(&["alice"]);
    w.udp(0, (5060, 5060), &invite("one", "alice", 4000));
    for n in 0..100_u16 {
        let seq = 65_500_u16.wrapping_add(n);
        let packet =
            join(&[&[0x80, 8], &be16(usize::from(seq)), &(u32::from(n) * 160).to_be_bytes(), &1_u32.to_be_bytes(), &[0; 160]]);
        w.udp(i64::from(n) * 20 * MS, (4001, 4000), &packet);
        let back =
            join(&[&[0x80, 8], &be16(usize::from(n)), &(u32::from(n) * 160).to_be_bytes(), &2_u32.to_be_bytes(), &[0; 160]]);
        w.udp_back(i64::from(n) * 20 * MS + 1, (4000, 4001), &back);
    }

    let (out, _) = w.end();

    let streams = &out.calls[0].streams;
    assert_eq!(streams.len(), 2);
    assert!(
        streams.iter().all(|s| s.packets == 100 && s.lost == 0 && s.clock_hz == 8000 && s.jitter_max_ms < 0.1),
        "{streams:?}"
    );
}

#[test]
fn our_own_connections_are_let_go_and_counted() {
    let mut w = Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow);
    let at = |ip: [u8; 4], port| Endpoint { ip: Ip::v4(ip), port };
    w.engine.set_own_connections(vec![FiveTuple { src: at(B, 55_555), dst: at(A, 40_000), proto: crate::packet::IpProto::TCP }]);
    w.tcp(1, (40_000, 55_555), 1, ACK, b"x");

    let (_, counters) = w.end();

    assert_eq!(counters.own, 1);
}

/// Source and destination of an IPv4 packet exchanged.
fn reversed(ip: &[u8]) -> Vec<u8> {
    let mut out = ip.to_vec();
    let (a, b) = (ip[12..16].to_vec(), ip[16..20].to_vec());
    out[12..16].copy_from_slice(&b);
    out[16..20].copy_from_slice(&a);
    out
}
