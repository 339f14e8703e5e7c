//! What a session description means for media, rule by rule.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{CandidateKind, Direction, MAX_CANDIDATES, MAX_FORMATS, MAX_MEDIA, Media, MediaKind, Session, Transport, parse};
use crate::packet::{Endpoint, Ip};

fn sdp(lines: &[&str]) -> Session {
    parse(lines.join("\r\n").as_bytes())
}

fn ip(text: &str) -> Ip {
    Ip::from(text.parse::<IpAddr>().unwrap())
}

fn at(text: &str, port: u16) -> Endpoint {
    Endpoint { ip: ip(text), port }
}

#[test]
fn a_connection_line_belongs_to_its_own_media_line() {
    let session = sdp(&[
        "v=0",
        "c=IN IP4 192.0.2.1",
        "m=audio 1000 RTP/AVP 0",
        "c=IN IP4 192.0.2.9",
        "m=video 2000 RTP/AVP 31",
        "m=audio 3000 RTP/AVP 8",
        "c=IN IP6 2001:db8::1",
    ]);

    let rtp: Vec<_> = session.media.iter().filter_map(Media::rtp).collect();
    assert_eq!(rtp, [at("192.0.2.9", 1000), at("192.0.2.1", 2000), at("2001:db8::1", 3000)]);
}

#[test]
fn lf_only_bodies_and_odd_lines_are_read() {
    let session = parse(b"v=0\nc=IN IP4 192.0.2.15\nm=audio 49217 RTP/AVP 0 12\nm =video 3227 RTP/AVP 31\n\na=sendrecv");

    assert_eq!((session.media.len(), session.bad_lines), (1, 1));
    assert_eq!(session.media[0].rtp(), Some(at("192.0.2.15", 49217)));
}

#[test]
fn port_zero_is_refused_and_keeps_its_place() {
    let session = sdp(&["c=IN IP4 192.0.2.1", "m=audio 0 RTP/AVP 0", "m=video 2000 RTP/AVP 31"]);

    assert_eq!((session.media.len(), session.media[0].rtp(), session.media[1].port), (2, None, 2000));
}

#[test]
fn hold_has_three_forms_and_a_held_address_is_no_endpoint() {
    for (lines, direction, rtp) in [
        (&["c=IN IP4 192.0.2.1", "m=audio 1000 RTP/AVP 0", "a=sendonly"][..], Direction::SendOnly, true),
        (&["c=IN IP4 192.0.2.1", "a=inactive", "m=audio 1000 RTP/AVP 0"], Direction::Inactive, true),
        (&["c=IN IP4 0.0.0.0", "m=audio 1000 RTP/AVP 0"], Direction::SendRecv, false),
        (&["c=IN IP4 192.0.2.1", "m=audio 1000 RTP/AVP 0", "c=IN IP6 ::"], Direction::SendRecv, false),
    ] {
        let media = &sdp(lines).media[0];
        assert!(media.on_hold, "{lines:?}");
        assert_eq!((media.direction, media.rtp().is_some()), (direction, rtp), "{lines:?}");
    }
    let resumed = &sdp(&["a=inactive", "m=audio 1000 RTP/AVP 0", "a=sendrecv"]).media[0];
    assert_eq!((resumed.direction, resumed.on_hold), (Direction::SendRecv, false));
    assert!(!sdp(&["m=audio 1000 RTP/AVP 0", "a=recvonly"]).media[0].on_hold);
}

#[test]
fn rtcp_is_the_next_port_unless_said_otherwise() {
    let rtcp = |extra: &str| sdp(&["c=IN IP4 192.0.2.1", "m=audio 1000 RTP/AVP 0", extra]).media[0].rtcp_endpoint();

    assert_eq!(rtcp("a=x"), Some(at("192.0.2.1", 1001)));
    assert_eq!(rtcp("a=rtcp:53020"), Some(at("192.0.2.1", 53020)));
    assert_eq!(rtcp("a=rtcp:53020 IN IP4 192.0.2.7"), Some(at("192.0.2.7", 53020)));
    assert_eq!(rtcp("a=rtcp-mux"), Some(at("192.0.2.1", 1000)));
    assert_eq!(rtcp("a=rtcp:x"), Some(at("192.0.2.1", 1001)));
}

#[test]
fn several_ports_are_consecutive_pairs() {
    let media = &sdp(&["m=audio 49170/2 RTP/AVP 0"]).media[0];

    assert_eq!((media.port, media.ports), (49170, 2));
}

#[test]
fn formats_take_their_names_and_clocks_from_rtpmap_or_the_static_table() {
    let session = sdp(&[
        "m=audio 1000 RTP/AVP 9 111 101 18 200 x 9",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:77 not/offered",
        "a=rtpmap:18 G729/8000",
        "a=fmtp:101 0-15",
    ]);

    let formats: Vec<_> =
        session.media[0].formats.iter().map(|f| (f.payload_type, f.codec.as_str(), f.clock_hz, f.channels)).collect();
    assert_eq!(
        formats,
        [(9, "G722", 8000, 1), (111, "opus", 48000, 2), (101, "telephone-event", 8000, 1), (18, "G729", 8000, 1)]
    );
}

#[test]
fn candidates_are_udp_addresses_and_names_are_counted() {
    let session = sdp(&[
        "a=ice-ufrag:all",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
        "a=candidate:1 1 UDP 2130706431 10.0.1.1 8998 typ host",
        "a=candidate:2 2 udp 1694498815 192.0.2.3 45664 typ srflx raddr 10.0.1.1 rport 8998",
        "a=candidate:3 1 UDP 1 2001:db8::7 3478 typ relay raddr 192.0.2.3 rport 9",
        "a=candidate:4 1 TCP 1 10.0.1.1 9 typ host tcptype active",
        "a=candidate:5 1 UDP 1 1f4712db-ea17-4bcf.local 8998 typ host",
        "a=candidate:6 1 UDP",
        "a=mid:0",
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        "a=ice-ufrag:own",
    ]);

    let audio = &session.media[0];
    let candidates: Vec<_> = audio.candidates.iter().map(|c| (c.component, c.kind, c.endpoint)).collect();
    assert_eq!(
        candidates,
        [
            (1, CandidateKind::Host, at("10.0.1.1", 8998)),
            (2, CandidateKind::ServerReflexive, at("192.0.2.3", 45664)),
            (1, CandidateKind::Relayed, at("2001:db8::7", 3478)),
        ]
    );
    assert_eq!((session.names_skipped, session.bad_lines), (1, 1));
    assert_eq!(
        (audio.transport, audio.ice_ufrag.as_str(), session.media[1].ice_ufrag.as_str()),
        (Transport::DtlsSrtp, "all", "own")
    );
}

#[test]
fn bundled_media_lines_are_those_the_group_names() {
    let session = sdp(&[
        "a=group:BUNDLE a v",
        "a=group:LS x",
        "m=audio 1000 RTP/AVP 0",
        "a=mid:a",
        "m=video 0 RTP/AVP 31",
        "a=mid:v",
        "m=text 3 RTP/AVP 98",
    ]);

    let bundled: Vec<_> = session.media.iter().map(|m| m.bundled).collect();
    assert_eq!((bundled, session.bundle.len()), (vec![true, true, false], 2));
}

#[test]
fn t38_is_not_rtp() {
    let media = &sdp(&["c=IN IP4 192.0.2.1", "m=image 4000 udptl t38", "a=T38FaxVersion:0"]).media[0];

    assert_eq!((media.kind, media.transport, media.t38, media.formats.len()), (MediaKind::Image, Transport::Udptl, true, 0));
    assert_eq!(media.rtp(), Some(at("192.0.2.1", 4000)));
}

#[test]
fn transports_are_told_apart_and_keys_are_not_kept() {
    for (word, transport) in [
        ("RTP/AVP", Transport::Rtp),
        ("RTP/AVPF", Transport::Rtp),
        ("RTP/SAVP", Transport::Srtp),
        ("UDP/TLS/RTP/SAVPF", Transport::DtlsSrtp),
        ("UDP/DTLS/SCTP", Transport::DtlsSctp),
        ("TCP/MSRP", Transport::Tcp),
        ("TCP/RTP/AVP", Transport::Tcp),
        ("UDP/BFCP", Transport::Udp),
        ("x", Transport::Other),
    ] {
        assert_eq!(sdp(&[&format!("m=audio 1 {word} 0")]).media[0].transport, transport, "{word}");
    }
    let session = sdp(&["m=audio 1 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRETKEYSECRETKEY"]);
    assert!(session.media[0].crypto);
    assert!(!format!("{session:?}").contains("SECRET"));
}

#[test]
fn names_and_multicast_forms_of_the_connection() {
    let named = sdp(&["c=IN IP4 media.example.com", "m=audio 1 RTP/AVP 0"]);
    assert_eq!((named.media[0].addr, named.media[0].on_hold, named.names_skipped), (None, false, 1));

    let multicast = sdp(&["m=audio 1 RTP/AVP 0", "c=IN IP4 224.2.1.1/127/3", "c=IN IP4 224.2.1.2/127"]);
    assert_eq!(multicast.media[0].addr, Some(ip("224.2.1.1")));
}

#[test]
fn what_is_beyond_the_limits_is_counted_and_says_nothing_about_what_is_kept() {
    let formats: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let mut lines = vec![format!("m=audio 1 RTP/AVP {}", formats.join(" "))];
    lines.extend((0..100).map(|n| format!("a=candidate:1 1 UDP 1 192.0.2.1 {} typ host", n + 1)));
    lines.extend((0..99).map(|_| "m=video 2 RTP/AVP 31".to_owned()));
    lines.push("c=IN IP4 192.0.2.1".to_owned());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();

    let session = sdp(&lines);

    assert_eq!((session.media.len(), session.dropped_media), (MAX_MEDIA, 36));
    assert_eq!((session.media[0].candidates.len(), session.dropped_candidates), (MAX_CANDIDATES, 36));
    assert_eq!((session.media[0].formats.len(), session.dropped_formats), (MAX_FORMATS, 36));
    assert_eq!(session.media.last().unwrap().addr, None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        words in prop::collection::vec(prop_oneof![
            Just("m=audio "), Just("1000"), Just("/2"), Just(" RTP/AVP "), Just("0 8 101"), Just("\r\n"), Just("\n"), Just("c=IN IP4 "),
            Just("0.0.0.0"), Just("::1"), Just("a=rtpmap:"), Just("a=candidate:1 1 UDP 1 ::1 5 typ host"), Just("a=rtcp:"), Just("99999"), Just("x"),
            Just("a=group:BUNDLE a"), Just("a=mid:a"), Just("/"), Just(" "),
        ], 0..60),
    ) {
        for body in [bytes, words.concat().into_bytes()] {
            let session = parse(&body);
            for media in &session.media {
                prop_assert!(media.ports >= 1);
                prop_assert!(media.rtp().is_none_or(|e| e.port != 0 && !e.ip.is_unspecified()));
                let _ = media.rtcp_endpoint();
            }
        }
    }
}
