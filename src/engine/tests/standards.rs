//! What the standards say and captures get wrong, each with its pitfall.

use super::*;

/// A wire without filters: everything is told and forwarded.
fn everything() -> Wire {
    Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow)
}

/// An INVITE with this body instead of the usual one.
fn offer(call: &str, cseq: u32, body: &str) -> Vec<u8> {
    request("INVITE", call, cseq, "", body)
}

fn request(method: &str, call: &str, cseq: u32, to_tag: &str, body: &str) -> Vec<u8> {
    message(&format!("{method} sip:bob@b.example SIP/2.0"), call, &format!("{cseq} {method}"), to_tag, body)
}

fn message(start: &str, call: &str, cseq: &str, to_tag: &str, body: &str) -> Vec<u8> {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{cseq}\r\nFrom: <sip:alice@a.example>;tag=a\r\nTo: <sip:bob@b.example>{to_tag}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A description at the receiver of frames made here, with these lines behind its own.
fn sdp(lines: &[&str]) -> String {
    let mut text = "v=0\r\no=- 1 1 IN IP4 198.51.100.2\r\ns=-\r\nc=IN IP4 198.51.100.2\r\nt=0 0\r\n".to_owned();
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text
}

/// Sends one RTP packet to each port, a second after the messages; the ports whose packet went with the call.
fn ports_of(w: &mut Wire, call: &str, ports: &[u16]) -> Vec<u16> {
    let before = w.out.packets.len();
    for (n, port) in ports.iter().enumerate() {
        w.rtp(SEC + i64::from(*port), (9000, *port), u32::from(*port), u16::try_from(n).unwrap());
    }
    let new = &w.out.packets[before..];
    ports.iter().copied().filter(|p| new.iter().any(|x| x.1 == call && x.0 == SEC + i64::from(*p))).collect()
}

#[test]
fn call_ids_that_differ_in_case_are_two_calls() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &invite("One", "alice", 4000));
    w.udp(2, (5060, 5060), &invite("one", "alice", 4100));

    let (out, _) = w.end();

    assert_eq!(out.calls.len(), 2);
}

#[test]
fn octets_behind_the_content_length_are_no_sdp() {
    let mut w = everything();
    let text = String::from_utf8(invite("one", "alice", 4000)).unwrap();
    let at = text.find("Content-Length: ").unwrap();
    let line = &text[at..at + text[at..].find('\r').unwrap()];
    w.udp(1, (5060, 5060), text.replace(line, "Content-Length: 0").as_bytes());

    assert!(ports_of(&mut w, "one", &[4000]).is_empty());
    assert!(w.out.sip[0].media.is_empty());
}

#[test]
fn a_message_as_of_rfc_2543_makes_a_call() {
    let mut w = everything();
    let old = "INVITE sip:bob@b.example SIP/2.0\nVia: SIP/2.0/UDP a\nFrom: sip:alice@a.example\nTo: sip:bob@b.example\nCall-ID: one\nCSeq: 1 INVITE\n\n";
    w.udp(1, (5060, 5060), old.as_bytes());
    w.udp_back(2, (5060, 5060), old.replacen("INVITE sip:bob@b.example SIP/2.0", "SIP/2.0 200 OK", 1).as_bytes());

    let (out, _) = w.end();

    assert_eq!((out.calls[0].state, out.calls[0].from_user.as_str()), ("ACTIVE", "alice"));
}

#[test]
fn messages_of_a_call_on_other_ports_and_flows_are_one_call() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    // RFC 3581: the answer goes to where the request came from, wherever the Via points
    w.udp_back(2, (5060, 40_000), &sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", None));
    w.tcp(3, (5070, 5080), 1, ACK, &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));

    let (out, _) = w.end();

    assert_eq!((out.calls.len(), out.calls[0].messages), (1, 3));
}

#[test]
fn an_answer_seen_before_its_request_is_part_of_the_same_call() {
    let mut w = everything();
    w.udp_back(1, (5060, 5060), &sip("SIP/2.0 100 Trying", "one", "alice", "1 INVITE", None));
    w.udp(2, (5060, 5060), &invite("one", "alice", 4000));

    assert_eq!(ports_of(&mut w, "one", &[4000]), [4000]);
    let (out, _) = w.end();
    assert_eq!((out.calls.len(), out.calls[0].state, out.calls[0].from_user.as_str()), (1, "TRYING", "alice"));
}

#[test]
fn a_call_id_used_again_after_the_end_is_another_call() {
    let mut w = everything();
    for (at, tag) in [(0, "a"), (10, "z")] {
        let with = |m: Vec<u8>| String::from_utf8(m).unwrap().replace(";tag=a", &format!(";tag={tag}")).into_bytes();
        w.udp(at * SEC, (5060, 5060), &with(invite("one", "alice", 4000)));
        w.udp_back(at * SEC + 1, (5060, 5060), &with(sip("SIP/2.0 200 OK", "one", "alice", "1 INVITE", None)));
        w.udp(at * SEC + 2, (5060, 5060), &with(sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None)));
        w.udp_back(at * SEC + 3, (5060, 5060), &with(sip("SIP/2.0 200 OK", "one", "alice", "2 BYE", None)));
    }

    let (out, _) = w.end();

    assert_eq!(out.calls.iter().map(|c| c.messages).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn a_repeated_invite_takes_nothing_from_its_call() {
    let mut w = everything();
    for n in 0..3 {
        w.udp(n * SEC / 2, (5060, 5060), &invite("one", "alice", 4000));
    }
    w.rtp(2 * SEC, (9000, 4000), 1, 1);

    let (out, _) = w.end();

    assert_eq!(out.calls[0].claims.len(), 2, "RTP and RTCP, once: {:?}", out.calls[0].claims);
    assert_eq!(out.calls[0].media_packets, 1);
}

#[test]
fn a_session_timer_is_no_new_call_and_no_new_media() {
    let mut w = everything();
    let same = sdp(&["m=audio 4000 RTP/AVP 8"]);
    w.udp(1, (5060, 5060), &offer("one", 1, &same));
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", ""));
    w.udp(3, (5060, 5060), &request("UPDATE", "one", 2, ";tag=b", &same));
    w.udp(4, (5060, 5060), &request("INVITE", "one", 3, ";tag=b", &same));
    w.udp_back(5, (5060, 5060), &message("SIP/2.0 200 OK", "one", "3 INVITE", ";tag=b", ""));

    assert_eq!(ports_of(&mut w, "one", &[4000]), [4000]);
    let (out, _) = w.end();
    assert_eq!((out.calls.len(), out.calls[0].claims.len(), out.calls[0].state), (1, 2, "ACTIVE"));
}

#[test]
fn an_update_before_the_answer_moves_the_media() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&["m=audio 4000 RTP/AVP 8"])));
    w.udp(2, (5060, 5060), &request("UPDATE", "one", 2, ";tag=b", &sdp(&["m=audio 4200 RTP/AVP 8"])));

    assert_eq!(ports_of(&mut w, "one", &[4200]), [4200]);
}

#[test]
fn a_prack_may_carry_the_answer() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &request("INVITE", "one", 1, "", ""));
    w.udp(2, (5060, 5060), &request("PRACK", "one", 2, ";tag=b", &sdp(&["m=audio 4000 RTP/AVP 8"])));

    assert_eq!(ports_of(&mut w, "one", &[4000]), [4000]);
}

#[test]
fn a_late_offer_has_its_answer_in_the_ack() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &request("INVITE", "one", 1, "", ""));
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", &sdp(&["m=audio 5000 RTP/AVP 8"])));
    w.udp(3, (5060, 5060), &request("ACK", "one", 1, ";tag=b", &sdp(&["m=audio 4000 RTP/AVP 8"])));

    assert_eq!(ports_of(&mut w, "one", &[4000, 5000]), [4000, 5000]);
}

#[test]
fn ports_are_kept_through_a_hold_and_no_address_is_no_endpoint() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&["m=audio 4000 RTP/AVP 8"])));
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", ""));
    let hold = sdp(&["m=audio 4000 RTP/AVP 8", "a=sendonly"]);
    w.udp(3, (5060, 5060), &request("INVITE", "one", 2, ";tag=b", &hold));
    let old = hold.replace("c=IN IP4 198.51.100.2", "c=IN IP4 0.0.0.0");
    w.udp(4, (5060, 5060), &request("INVITE", "one", 3, ";tag=b", &old));

    assert_eq!(ports_of(&mut w, "one", &[4000]), [4000]);
    let (out, _) = w.end();
    assert!(out.calls[0].claims.iter().all(|c| !c.contains("0.0.0.0")), "{:?}", out.calls[0].claims);
}

#[test]
fn every_media_line_counts_and_a_refused_one_does_not() {
    let mut w = everything();
    let lines = [
        "m=audio 4000 RTP/AVP 8",
        "m=video 4010 RTP/AVP 96",
        "c=IN IP4 198.51.100.2",
        "m=image 4020 udptl t38",
        "m=audio 0 RTP/AVP 0",
    ];
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&lines)));

    assert_eq!(ports_of(&mut w, "one", &[4000, 4010, 4020, 0]), [4000, 4010, 4020]);
}

#[test]
fn an_address_behind_a_media_line_is_that_lines_alone() {
    let mut w = everything();
    let lines = ["m=audio 4000 RTP/AVP 8", "c=IN IP4 203.0.113.9", "m=video 4010 RTP/AVP 96"];
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&lines)));

    assert_eq!(ports_of(&mut w, "one", &[4000, 4010]), [4010]);
}

#[test]
fn consecutive_pairs_rtcp_elsewhere_and_candidates_are_endpoints() {
    let mut w = everything();
    let pairs = ["m=audio 4000/2 RTP/AVP 8"];
    let elsewhere = ["m=audio 4100 RTP/AVP 8", "a=rtcp:4177"];
    let candidate = "a=candidate:1 1 UDP 2130706431 198.51.100.2 4300 typ srflx raddr 10.0.0.1 rport 9";
    w.udp(1, (5060, 5060), &offer("pairs", 1, &sdp(&pairs)));
    w.udp(2, (5062, 5060), &offer("elsewhere", 1, &sdp(&elsewhere)));
    w.udp(3, (5064, 5060), &offer("ice", 1, &sdp(&["m=audio 4200 RTP/AVP 8", candidate])));

    assert_eq!(ports_of(&mut w, "pairs", &[4000, 4001, 4002, 4003]), [4000, 4001, 4002, 4003]);
    assert_eq!(ports_of(&mut w, "elsewhere", &[4101, 4177]), [4177]);
    assert_eq!(ports_of(&mut w, "ice", &[4200, 4300]), [4200, 4300]);
}

#[test]
fn bundled_media_lines_share_one_endpoint_and_keep_their_formats() {
    let mut w = everything();
    let lines = [
        "a=group:BUNDLE 0 1",
        "m=audio 4000 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-mux",
        "m=video 4000 UDP/TLS/RTP/SAVPF 96",
        "a=mid:1",
        "a=rtpmap:96 VP8/90000",
        "a=rtcp-mux",
    ];
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&lines)));
    for (ssrc, pt) in [(1, 111), (2, 96)] {
        let mut packet = rtp(ssrc, 1);
        packet[1] = pt;
        w.udp(2, (9000, 4000), &packet);
    }
    // RTCP on the same port
    w.udp(3, (9000, 4000), &[0x80, 201, 0, 1, 0, 0, 0, 1]);

    let (out, _) = w.end();

    let call = &out.calls[0];
    let codecs: Vec<_> = call.streams.iter().map(|s| (s.codec.as_str(), s.clock_hz)).collect();
    assert_eq!(codecs, [("opus", 48_000), ("VP8", 90_000)]);
    assert_eq!((call.claims.len(), call.rtcp_packets), (1, 1));
}

#[test]
fn a_payload_type_belongs_to_one_direction() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&["m=audio 4000 RTP/AVP 100", "a=rtpmap:100 speex/16000"])));
    let theirs = sdp(&["m=audio 4001 RTP/AVP 100", "a=rtpmap:100 iLBC/8000"]).replace("198.51.100.2", "192.0.2.1");
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", &theirs));
    let packet = |ssrc| {
        let mut p = rtp(ssrc, 1);
        p[1] = 100;
        p
    };
    w.udp(3, (4001, 4000), &packet(1));
    w.udp_back(4, (4000, 4001), &packet(2));

    let (out, _) = w.end();

    let codecs: Vec<_> = out.calls[0].streams.iter().map(|s| (s.ssrc, s.codec.as_str(), s.clock_hz)).collect();
    assert_eq!(codecs, [(1, "speex", 16_000), (2, "iLBC", 8000)]);
}

#[test]
fn a_new_ssrc_after_a_re_invite_goes_on_as_another_stream() {
    let mut w = everything();
    let same = sdp(&["m=audio 4000 RTP/AVP 8"]);
    w.udp(1, (5060, 5060), &offer("one", 1, &same));
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", ""));
    w.rtp(3, (9000, 4000), 1, 1);
    w.udp(4, (5060, 5060), &request("INVITE", "one", 2, ";tag=b", &same));
    w.rtp(5, (9000, 4000), 2, 1);

    let (out, _) = w.end();

    assert_eq!(out.calls[0].streams.iter().map(|s| s.ssrc).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(out.of("one").len(), 5);
}

#[test]
fn rtcp_video_and_fax_go_with_their_call() {
    let mut w = Wire::new(&["alice"]);
    w.udp(
        1,
        (5060, 5060),
        &offer("one", 1, &sdp(&["m=audio 4000 RTP/AVP 8", "m=video 4010 RTP/AVP 96", "m=image 4020 udptl t38"])),
    );
    w.udp(2, (9001, 4001), &[0x80, 201, 0, 1, 0, 0, 0, 1]);
    w.rtp(3, (9010, 4010), 1, 1);
    w.udp(4, (9020, 4020), &[0, 1, 1, 6, 0]);

    let (out, _) = w.end();

    assert_eq!(out.of("one"), [1, 2, 3, 4]);
    assert_eq!(out.calls[0].streams.len(), 1, "a fax is no RTP");
}

#[test]
fn two_targets_of_one_call_are_both_named() {
    let mut w = Wire::new(&["alice", "bob"]);
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));

    let (out, _) = w.end();

    assert_eq!(out.calls[0].filter_ids.iter().map(|id| &**id).collect::<Vec<_>>(), ["alice", "bob"]);
    assert_eq!(out.of("one").len(), 1);
}

#[test]
fn answers_tell_their_status_their_method_and_their_parties() {
    let mut w = everything();
    w.udp(1, (5060, 5060), &invite("one", "alice", 4000));
    w.udp_back(2, (5060, 5060), &sip("SIP/2.0 486 Busy Here", "one", "alice", "1 INVITE", None));

    let (out, _) = w.end();

    let e = &out.sip[1];
    assert_eq!((e.status, e.cseq_method.as_str(), e.method.as_deref()), (Some(486), "INVITE", None));
    assert_eq!((e.from_user.as_str(), e.to_user.as_str()), ("alice", "bob"));
}

#[test]
fn a_message_in_several_segments_has_the_time_of_the_one_that_completes_it() {
    let mut w = everything();
    let message = invite("one", "alice", 4000);
    let (x, y) = message.split_at(50);
    w.tcp(1, (5070, 5060), 1000, ACK, x);
    w.tcp(SEC, (5070, 5060), 1050, ACK, y);

    let (out, _) = w.end();

    assert_eq!((out.sip[0].common.ts, out.sip[0].common.place.frame), (Timestamp::from_nanos(SEC), 2));
}

#[test]
fn silence_suppression_is_no_loss_and_no_jitter() {
    let mut w = everything();
    w.udp(0, (5060, 5060), &invite("one", "alice", 4000));
    for n in 0..20_u16 {
        // ten packets, three seconds of silence, ten packets
        let silence = i64::from(n / 10) * 3;
        let mut packet = rtp(1, n);
        let played = u32::from(n) * 160 + u32::try_from(silence).unwrap() * 8000;
        packet[4..8].copy_from_slice(&played.to_be_bytes());
        packet[1] |= u8::from(n % 10 == 0) << 7;
        w.udp(SEC + i64::from(n) * 20 * MS + silence * SEC, (9000, 4000), &packet);
    }

    let (out, _) = w.end();

    let s = &out.calls[0].streams[0];
    assert_eq!((s.packets, s.lost, s.max_gap_ms), (20, 0, 3020.0));
    assert!(s.jitter_max_ms < 0.1, "{s:?}");
}

#[test]
fn an_answer_without_rtcp_mux_puts_the_rtcp_of_both_sides_above_their_rtp() {
    for (answer, expected) in [
        (&["m=audio 5000 RTP/AVP 8"][..], &[4000, 4001, 5000, 5001][..]),
        (&["m=audio 5000 RTP/AVP 8", "a=rtcp-mux"], &[4000, 5000]),
    ] {
        let mut w = everything();
        w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&["m=audio 4000 RTP/AVP 8", "a=rtcp-mux"])));
        w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", &sdp(answer)));

        assert_eq!(ports_of(&mut w, "one", &[4000, 4001, 5000, 5001]), expected, "{answer:?}");
    }
}

#[test]
fn a_declined_rtcp_mux_is_known_of_the_m_line_and_side_it_was_offered_for() {
    let mut w = everything();
    let offered = ["m=audio 4000 RTP/AVP 8", "a=rtcp-mux", "m=video 4100 RTP/AVP 31", "a=rtcp-mux", "m=audio 4200 RTP/AVP 8"];
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&offered)));
    let answered = ["m=audio 5000 RTP/AVP 8", "a=rtcp-mux", "m=video 5100 RTP/AVP 31", "m=audio 0 RTP/AVP 8"];
    w.udp_back(2, (5060, 5060), &message("SIP/2.0 200 OK", "one", "1 INVITE", ";tag=b", &sdp(&answered)));

    assert_eq!(ports_of(&mut w, "one", &[4001, 4101, 4201, 5001, 5101]), [4101, 4201, 5101]);
    let (out, _) = w.end();
    assert!(
        out.calls[0].claims.iter().any(|c| c == "rtcp message 2 media 1 caller 198.51.100.2:4101"),
        "{:?}",
        out.calls[0].claims
    );
}

#[test]
fn what_is_not_rtp_has_no_rtcp_beside_it() {
    let mut w = everything();
    let lines = ["m=image 4000 udptl t38", "m=message 4100 TCP/MSRP *", "m=audio 4200 RTP/AVP 8"];
    w.udp(1, (5060, 5060), &offer("one", 1, &sdp(&lines)));

    assert_eq!(ports_of(&mut w, "one", &[4000, 4001, 4100, 4200, 4201]), [4000, 4200, 4201]);
}
