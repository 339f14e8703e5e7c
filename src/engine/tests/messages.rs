//! Messages in segments, fragments and cut packets, and what they make of a call.

use super::*;

#[test]
fn every_message_in_a_segment_is_told_and_a_call_gets_the_segment_once() {
    let mut w = Wire::new(&["alice"]);
    w.tcp(1, (5060, 5061), 99, SYN, &[]);
    let two = join(&[&invite("one", "alice", 4000), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None)]);
    w.tcp(2, (5060, 5061), 100, ACK, &two);

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [2]);
    let told: Vec<&str> = out.sip.iter().filter_map(|e| e.method.as_deref()).collect();
    assert_eq!(told, ["INVITE", "BYE"]);
    assert_eq!(out.calls[0].signalling_packets, 1);
}

#[test]
fn every_segment_of_a_fragmented_web_socket_message_goes_to_its_call_and_needs_no_length() {
    let mut w = Wire::new(&["alice"]);
    w.tcp(1, (5060, 5061), 99, SYN, &[]);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
                 Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";
    w.tcp(2, (5060, 5061), 100, ACK, head);
    let message = String::from_utf8(sip("OPTIONS sip:bob@b.example SIP/2.0", "one", "alice", "1 OPTIONS", None)).unwrap();
    let message = message.replace("Content-Length: 0\r\n", "").into_bytes();
    let (first, second) = message.split_at(100);
    let last = u8::try_from(second.len()).unwrap();
    assert!(last < 126, "the short length form");
    let pieces = [join(&[&[0x01, 100], first]), vec![0x89, 0], join(&[&[0x80, last], second])];
    let at = |n: usize| 100 + u32::try_from(head.len() + n).unwrap();
    let mut from = 0;
    for (n, piece) in pieces.iter().enumerate() {
        w.tcp(3 + i64::try_from(n).unwrap(), (5060, 5061), at(from), ACK, piece);
        from += piece.len();
    }

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [3, 5], "the ping between carries nothing of it");
    assert!(out.sip[0].malformed.is_empty(), "{:?}", out.sip[0].malformed);
}

#[test]
fn a_web_socket_is_joined_in_mid_connection() {
    let mut w = Wire::new(&["alice"]);
    let frame = |message: Vec<u8>, masked: bool| {
        let key = if masked { *b"key!" } else { [0; 4] };
        let len = u16::try_from(message.len()).unwrap().to_be_bytes();
        let body: Vec<u8> = message.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
        let mask = if masked { &key[..] } else { &[] };
        join(&[&[0x81, if masked { 0xfe } else { 0x7e }], &len, mask, &body])
    };
    w.tcp(1, (5060, 8080), 100, ACK, b"\x8a\x80key!");
    let options = frame(sip("OPTIONS sip:bob@b.example SIP/2.0", "one", "alice", "1 OPTIONS", None), true);
    w.tcp(2, (5060, 8080), 106, ACK, &options);
    w.tcp(3, (8080, 5060), 900, ACK, &frame(sip("SIP/2.0 200 OK", "one", "alice", "1 OPTIONS", None), false));

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [2, 3]);
}

#[test]
fn a_connection_joined_in_the_middle_of_a_message_is_read_from_the_next_one_on() {
    let ack = sip("ACK sip:bob@b.example SIP/2.0", "one", "alice", "1 ACK", None);
    let bye = sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None);
    for (syn, found) in [(false, vec![2, 3]), (true, vec![3])] {
        let mut w = Wire::new(&["alice"]);
        let first = join(&[b"=audio 4000 RTP/AVP 8\r\na=sendrecv\r\n", &ack]);
        if syn {
            w.tcp(1, (5060, 5061), 99, SYN, &[]);
        }
        w.tcp(2, (5060, 5061), 100, ACK, &first);
        w.tcp(3, (5060, 5061), 100 + u32::try_from(first.len()).unwrap(), ACK, &bye);

        let (out, _) = w.end();

        assert_eq!(out.of("one"), found, "what a connection begins with is SIP, or it is something else");
    }
}

#[test]
fn a_message_of_no_call_is_told_on_tcp_too() {
    let mut w = Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow);
    w.tcp(1, (5060, 5061), 99, SYN, &[]);
    let message = String::from_utf8(sip("OPTIONS sip:bob@b.example SIP/2.0", "one", "alice", "1 OPTIONS", None)).unwrap();
    w.tcp(2, (5060, 5061), 100, ACK, message.replace("Call-ID: one\r\n", "").as_bytes());

    let (out, _) = w.end();

    assert_eq!(out.sip.len(), 1);
}

#[test]
fn unfinished_messages_on_many_connections_are_bounded_in_bytes_and_what_goes_is_counted() {
    let mut w = Wire::new(&["alice"]);
    let head =
        join(&[b"INVITE sip:bob@b.example SIP/2.0\r\nCall-ID: one\r\nContent-Length: 250000\r\n\r\n", &vec![b'x'; 60_000]]);
    let len = u32::try_from(head.len()).unwrap();
    for port in 0..400 {
        let at = i64::from(port);
        w.tcp(at, (10_000 + port, 5061), 0, SYN, &[]);
        w.tcp(at, (10_000 + port, 5061), 1, ACK, &head);
        for n in 0..3 {
            w.tcp(at, (10_000 + port, 5061), 1 + len + n * 60_000, ACK, &vec![b'y'; 60_000]);
        }
    }
    let kept = w.engine.counters().held;

    assert!(kept * 60_000 <= 64 << 20, "{kept} segments");
    assert!(kept * 61_000 > 60 << 20, "{kept} segments: no more is given up than must be");
    let (_, counters) = w.end();
    assert_eq!(counters.dropped[DropReason::TcpUnframed.index()], 1600);
}

#[test]
fn only_answers_to_the_caller_count_as_dialogs() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    let tagged = |status: &str, tag: &str| {
        let text = String::from_utf8(sip(status, "one", "alice", "1 INVITE", None)).unwrap();
        text.replace(";tag=b", &format!(";tag={tag}")).into_bytes()
    };
    w.udp_back(2, (5060, 5060), &tagged("SIP/2.0 407 Proxy Authentication Required", "proxy"));
    w.udp_back(3, (5060, 5060), &tagged("SIP/2.0 180 Ringing", "left"));
    w.udp_back(4, (5060, 5060), &tagged("SIP/2.0 200 OK", "right"));
    // the callee's own re-INVITE, answered by the caller
    let own = String::from_utf8(sip("SIP/2.0 200 OK", "one", "bob", "7 INVITE", None)).unwrap();
    w.udp(5, (5060, 5060), own.replace(";tag=a", ";tag=right").replace(";tag=b", ";tag=a").as_bytes());

    let (out, _) = w.end();

    assert_eq!(out.calls[0].dialogs, 2);
}

#[test]
fn a_stream_names_the_claim_on_where_it_goes_whoever_spoke_first() {
    let mut w = Wire::new(&["alice"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp(2, (5060, 5060), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", Some(5000)));
    w.udp(3, (9000, 4000), &rtp(1, 1));
    w.udp_back(4, (4000, 9000), &rtp(2, 1));

    let (out, _) = w.end();

    let evidence: Vec<&str> = out.calls[0].streams.iter().map(|s| s.evidence.as_str()).collect();
    let claim = "sdp message 1 media 0 caller 198.51.100.2:4000";
    assert_eq!(evidence, [claim.to_owned(), format!("symmetric to {claim}")]);
}

#[test]
fn packets_cut_by_the_snaplen_are_read_as_far_as_they_go() {
    let mut w = Wire::new(&["alice"]);
    let mut whole = String::from_utf8(invite("one", "alice", 4000)).unwrap();
    whole.push_str("a=rtpmap:8 PCMA/8000\r\n");
    let cut = whole.replace("Content-Length: ", "Content-Length: 9");
    w.udp(1, (5060, 5060), &cut.as_bytes()[..cut.len() - 4]);
    w.udp(2, (9000, 4000), &rtp(1, 1)[..12]);
    // a sender report of 28 octets of which 12 are left
    w.udp(3, (9001, 4001), &[0x80, 200, 0, 6, 0, 0, 0, 1, 1, 2, 3, 4]);

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3]);
    let streams: Vec<(u32, u32)> = out.calls[0].streams.iter().map(|s| (s.ssrc, s.clock_hz)).collect();
    assert_eq!(streams, [(1, 8000)], "not 80 Hz, and the report is no stream");
    assert_eq!(out.calls[0].rtcp_packets, 1);
}

#[test]
fn sip_inside_tls_is_counted_by_connection_and_other_tls_is_not() {
    let mut w = Wire::new(&["alice"]);
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3];
    for (at, ports) in [(1, (40_000, 5061)), (2, (40_001, 5061)), (3, (40_002, 443))] {
        w.tcp(at * 10, ports, 99, SYN, &[]);
        w.tcp(at * 10 + 1, ports, 100, ACK, &hello);
        w.tcp(at * 10 + 2, ports, 110, ACK, &hello);
    }

    assert_eq!(w.end().1.sip_tls, 2);
}
