//! Media that nobody has signalled.

use super::*;

fn everything() -> Wire {
    Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow)
}

/// `n` packets a direction between 4002 and 4000, 20 ms apart, from `at` on.
fn talk(w: &mut Wire, at: i64, n: u16) {
    for seq in 0..n {
        let ts = at + i64::from(seq) * 20 * MS;
        w.rtp(ts, (4002, 4000), 0xabcd, seq);
        w.udp_back(ts + 1, (4000, 4002), &rtp(0x1234, 700 + seq));
    }
}

#[test]
fn it_is_a_call_of_its_own_with_its_streams() {
    let mut w = everything();
    // RTCP on the next port, before it is clear what this is and after
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    w.udp(-1, (4003, 4001), &report);
    talk(&mut w, 0, 40);
    w.udp_back(SEC, (4001, 4003), &report);

    let (out, counters) = w.end();

    assert_eq!(out.of("rtp-0000abcd").len(), 82);
    assert!(out.of("rtp-0000abcd").is_sorted());
    let [call] = out.calls.as_slice() else { panic!("{:?}", out.calls) };
    assert_eq!((call.state, call.messages, call.media_packets, call.rtcp_packets), ("RTP-ONLY", 0, 82, 2));
    let streams: Vec<_> =
        call.streams.iter().map(|s| (s.ssrc, s.packets, s.lost, s.codec.as_str(), s.evidence.as_str())).collect();
    let (to, back) = ("rtp without signalling 198.51.100.2:4000", "rtp without signalling 192.0.2.1:4002");
    assert_eq!(streams, [(0xabcd, 40, 0, "PCMA", to), (0x1234, 40, 0, "PCMA", back)]);
    assert_eq!(counters.rtp_only, 1);
}

#[test]
fn it_is_told_even_when_the_input_ends_before_its_time() {
    let mut w = everything();
    talk(&mut w, 0, 3);

    let (out, counters) = w.end();

    assert_eq!((out.calls.len(), counters.forwarded), (1, 6));
}

#[test]
fn signalling_that_claims_it_later_makes_it_part_of_its_call() {
    let mut w = everything();
    talk(&mut w, 0, 40);
    w.udp(SEC, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(SEC + 1, (4002, 4000), 0xabcd, 40);

    let (out, counters) = w.end();

    let [call] = out.calls.as_slice() else { panic!("{:?}", out.calls) };
    assert_eq!((&*call.call_id, call.state, call.media_packets), ("one", "TRYING", 81));
    assert_eq!(call.media_from_ns, Some(0));
    let claim = "sdp message 1 media 0 caller 198.51.100.2:4000";
    let streams: Vec<_> = call.streams.iter().map(|s| (s.ssrc, s.packets, s.evidence.clone())).collect();
    assert_eq!(streams, [(0xabcd, 41, claim.to_owned()), (0x1234, 40, format!("symmetric to {claim}"))]);
    assert_eq!(out.of("one"), [SEC, SEC + 1], "what went out before stays under its name");
    assert_eq!(counters.rtp_only, 0, "it has been signalled after all");
}

#[test]
fn an_explained_stream_gets_its_codec_and_clock() {
    let mut w = everything();
    let packet = |seq: u16| {
        let mut p = rtp(7, seq);
        p[1] = 100;
        p
    };
    for seq in 0..60 {
        w.udp(i64::from(seq) * 20 * MS, (4002, 4000), &packet(seq));
    }
    let text = String::from_utf8(invite("one", "alice", 4000)).unwrap();
    let text = text.replace("AVP 8\r\n", "AVP 100\r\na=rtpmap:100 speex/16000\r\n").replace("Content-Length: ", "X: ");
    w.udp(1200 * MS, (5060, 5060), text.as_bytes());
    w.udp(1200 * MS, (4002, 4000), &packet(60));

    let (out, _) = w.end();

    let s = &out.calls[0].streams[0];
    assert_eq!((s.codec.as_str(), s.clock_hz, s.packets), ("speex", 16_000, 61));
}

#[test]
fn a_port_used_again_by_a_later_call_takes_nothing_from_it() {
    let mut w = everything();
    talk(&mut w, 0, 40);
    w.udp(20 * SEC, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(20 * SEC + 1, (4002, 4000), 0xabcd, 40);

    let (out, counters) = w.end();

    let told: Vec<_> = out.calls.iter().map(|c| (&*c.call_id, c.media_packets)).collect();
    assert_eq!(told, [("rtp-0000abcd", 80), ("one", 1)]);
    assert_eq!(counters.rtp_only, 1);
}

#[test]
fn a_call_that_calls_itself_like_it_does_not_get_it() {
    let mut w = everything();
    talk(&mut w, 0, 40);
    w.udp(SEC, (5060, 5060), &invite("rtp-0000abcd", "mallory", 4100));

    let (out, _) = w.end();

    let told: Vec<_> = out.calls.iter().map(|c| (c.state, c.media_packets)).collect();
    assert_eq!(told, [("RTP-ONLY", 80), ("TRYING", 0)]);
}

#[test]
fn it_ends_after_a_minute_of_silence() {
    let mut w = everything();
    talk(&mut w, 0, 40);
    w.engine.handle_timeout(Timestamp::from_nanos(62 * SEC), &mut w.out);

    assert_eq!(w.out.calls.len(), 1);
    assert!(!w.out.calls[0].unfinished);
}

#[test]
fn what_only_looks_like_it_once_is_no_media() {
    let mut w = everything();
    for n in 0..30_u16 {
        // one datagram to each of thirty ports, and thirty without order to one
        w.rtp(i64::from(n), (4002, 4000 + 2 * n), 1, n);
        w.rtp(i64::from(n), (4001, 6000), u32::from(n), n.wrapping_mul(7919));
    }
    // twice in sequence is chance, three times is not
    w.rtp(40, (4001, 6100), 5, 1);
    w.rtp(41, (4001, 6100), 5, 2);

    let (out, counters) = w.end();

    assert!(out.calls.is_empty() && out.packets.is_empty());
    assert_eq!(counters.rtp_only, 0);
}

#[test]
fn it_is_noticed_behind_stun_and_dtls() {
    let mut w = everything();
    w.udp(1, (4002, 4000), &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    w.udp_back(2, (4000, 4002), &[22, 254, 253, 0, 0]);
    talk(&mut w, 3, 5);

    let (out, _) = w.end();

    assert_eq!((out.calls.len(), out.of("rtp-0000abcd").len()), (1, 10));
}

#[test]
fn with_filters_it_is_counted_and_nothing_of_it_leaves() {
    let mut w = Wire::new(&["alice"]);
    talk(&mut w, 0, 40);
    talk(&mut w, 10 * SEC, 40);
    w.engine.handle_timeout(Timestamp::from_nanos(20 * SEC), &mut w.out);

    let (out, counters) = w.end();

    assert!(out.calls.is_empty() && out.packets.is_empty());
    assert_eq!(counters.rtp_only, 1);
    assert_eq!(counters.dropped[DropReason::HoldUnclaimed.index()], 51, "50 held, and the one that found no room");
}

#[test]
fn a_slow_flow_is_not_held_again_and_again() {
    let mut w = Wire::new(&["alice"]);
    for n in 0..40_u16 {
        w.rtp(i64::from(n) * SEC, (4002, 4000), 1, n);
    }

    let (_, counters) = w.end();

    assert_eq!(counters.dropped[DropReason::HoldUnclaimed.index()], 4, "two seconds of it");
}

#[test]
fn more_of_it_than_there_is_room_for_is_told_early_and_counted() {
    let mut w = Wire::with(&[], |c| {
        c.table.no_filter = NoFilterPolicy::Allow;
        c.table.limits.calls = 10;
    });
    for port in 0..30_u16 {
        for seq in 0..60 {
            w.rtp(i64::from(seq), (4002, 4000 + 4 * port), u32::from(port), seq);
        }
    }

    let (out, counters) = w.end();

    assert_eq!((out.calls.len(), counters.calls_evicted, counters.rtp_only), (30, 20, 30));
    assert_eq!(out.packets.len(), 1800);
}

#[test]
fn media_of_many_at_one_port_of_a_server_is_not_given_to_the_call_that_names_the_port() {
    let mut w = everything();
    for seq in 0..60 {
        w.rtp(i64::from(seq) * MS, (4002, 4000), 1, seq);
        w.rtp(i64::from(seq) * MS, (4003, 4000), 2, seq);
    }
    w.udp(70 * MS, (5060, 5060), &invite("one", "alice", 4000));
    w.rtp(71 * MS, (4002, 4000), 1, 60);

    let (out, _) = w.end();

    let told: Vec<_> = out.calls.iter().map(|c| (&*c.call_id, c.media_packets)).collect();
    assert_eq!(told, [("rtp-00000001", 61), ("rtp-00000002", 60), ("one", 0)]);
}

#[test]
fn a_relay_that_keeps_the_ssrc_is_two_calls() {
    let mut w = everything();
    for seq in 0..60 {
        w.rtp(i64::from(seq) * MS, (4002, 4000), 9, seq);
        w.rtp(i64::from(seq) * MS + 1, (4100, 4200), 9, seq);
    }

    let (out, _) = w.end();

    assert_eq!((out.of("rtp-00000009").len(), out.of("rtp-00000009-2").len()), (60, 60));
}
