//! Records from the packets of one or two hunters.

use super::*;
use crate::engine::ParseLimit;
use crate::packet::build::{be16, ethernet, frame, join, udp, v4};
use crate::record::json;
use crate::record::losses::{LossWindow, RunLosses};

const SEC: i64 = 1_000_000_000;

fn at(ns: i64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

fn message(start: &str, cseq: &str, to_tag: &str, more: &str, body: &str) -> Vec<u8> {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{cseq}\r\nFrom: \"Alice\" <sip:alice@a.example>;tag=a\r\nTo: <sip:bob@b.example>{to_tag}\r\n\
         Call-ID: one\r\nCSeq: {cseq}\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    join(&[&[0x80, 8], &be16(usize::from(seq)), &(u32::from(seq) * 160).to_be_bytes(), &ssrc.to_be_bytes(), &[0x55; 160]])
}

/// Gives one datagram to the calls, as a hunter sent it.
fn take(calls: &mut Calls, ns: i64, ports: (u16, u16), payload: &[u8], owned: Owned<'_>) {
    let data = ethernet(0x0800, &v4(17, &udp(ports.0, ports.1, payload)));
    let hunter: Arc<str> = "edge".into();
    calls.take(&hunter, &owned, &mut ["f1"].into_iter(), &frame(LinkType::ETHERNET, &data, ns));
    calls.heard(&hunter, Some(at(ns)), at(ns));
}

/// What is due at a moment when the hunters are there, or not.
fn look(calls: &mut Calls, now: Timestamp, there: bool) -> Vec<Due> {
    calls.note_there(now, |_| there);
    calls.due(now, Duration::from_secs(5))
}

fn owned(call_id: &str, sip: bool) -> Owned<'_> {
    Owned { call_id, sip, phone_rule: "", holes: "", again: false }
}

#[test]
fn what_of_a_call_cannot_be_read_is_counted_whether_the_call_is_still_known_or_not() {
    let mut calls = Calls::default();
    let headers: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", &headers, "");

    take(&mut calls, SEC, (5060, 5060), &invite, owned("one", true));
    take(&mut calls, 2 * SEC, (5060, 5060), &invite, owned("two", true));
    calls.forget("one");

    assert_eq!((calls.parsing().at(ParseLimit::Headers), calls.parsing().at(ParseLimit::HeaderBytes)), (2, 0));
    assert_eq!(calls.parsing().named_errors().find(|(proto, _)| *proto == "sip"), Some(("sip", 2)));
}

#[test]
fn a_record_tells_who_how_and_why_and_what_is_missing() {
    let mut calls = Calls::default();
    let sdp = "v=0\r\nc=IN IP4 198.51.100.2\r\nm=audio 4000 RTP/AVP 8\r\n";
    let more = "P-Asserted-Identity: <tel:+4930123456>\r\nContent-Type: application/sdp\r\n";
    let sip = Owned { phone_rule: "whole number", holes: "before_match 1 2 3", again: true, ..owned("one", true) };
    let ports = (5060, 5060);
    take(&mut calls, SEC, ports, &message("INVITE sip:bob@b.example;user=phone SIP/2.0", "1 INVITE", "", more, sdp), sip);
    take(&mut calls, 2 * SEC, ports, &message("SIP/2.0 180 Ringing", "1 INVITE", ";tag=b", "", ""), owned("one", true));
    take(&mut calls, 3 * SEC, ports, &message("SIP/2.0 200 OK", "1 INVITE", ";tag=b", "", ""), owned("one", true));
    take(&mut calls, 4 * SEC, (4001, 4000), &rtp(7, 1), owned("one", false));
    take(&mut calls, 4 * SEC + SEC / 4, (4001, 4000), &rtp(7, 2), owned("one", false));
    let reason = "Reason: SIP;cause=200\r\n";
    take(
        &mut calls,
        9 * SEC,
        ports,
        &message("BYE sip:bob@b.example SIP/2.0", "2 BYE", ";tag=b", reason, ""),
        owned("one", true),
    );
    take(&mut calls, 9 * SEC, ports, &message("SIP/2.0 200 OK", "2 BYE", ";tag=b", "", ""), owned("one", true));

    let r = calls.record("one", Vec::new(), true);

    assert_eq!(
        (r.kind.as_str(), r.state.as_str(), r.status, r.reason.as_deref()),
        ("call", "ended", Some(200), Some("SIP;cause=200"))
    );
    let from = json::Party {
        user: "alice".into(),
        host: "a.example".into(),
        display: "Alice".into(),
        uri: "sip:alice@a.example".into(),
        tag: "a".into(),
    };
    assert_eq!((&r.from, r.to.tag.as_str()), (&from, "b"));
    assert_eq!(r.request_uri.as_deref(), Some("sip:bob@b.example;user=phone"));
    assert_eq!(r.identities, [json::Identity { field: "sip.pai".into(), value: "+4930123456".into() }]);
    let dialog = json::Dialog { from_tag: "a".into(), to_tag: "b".into(), state: "terminated".into() };
    assert_eq!(r.dialogs, [dialog]);
    let times =
        [r.first_packet, r.ringing, r.answered, r.ended, r.last_packet].map(|t| t.map_or(0, |t| t[17..19].parse().unwrap()));
    assert_eq!((times, r.talk_secs), ([1, 2, 3, 9, 9], Some(6.0)));
    assert_eq!(
        (r.phone_rule.as_deref(), r.filter_ids, r.hunters),
        (Some("whole number"), vec!["f1".to_owned()], vec!["edge".to_owned()])
    );
    assert_eq!((r.packets, r.shared_packets), (json::Packets { sip: 5, rtp: 2, rtcp: 0 }, 1));
    assert_eq!(
        (r.streams[0].max_gap_ms, r.streams[0].evidence.as_str()),
        (250.0, "sdp message 1 media 0 caller 198.51.100.2:4000")
    );
    assert_eq!((r.holes[0].reason.as_str(), r.holes[0].packets, r.holes[0].hunter.as_str()), ("before_match", Some(3), "edge"));
    assert_eq!(r.media_from.as_deref(), Some("1970-01-01T00:00:04.000000000Z"), "a filter came too late for all of it");
}

#[test]
fn media_that_is_whole_begins_at_the_start() {
    let mut calls = Calls::default();
    let sdp = "v=0\r\nc=IN IP4 198.51.100.2\r\nm=audio 4000 RTP/AVP 8\r\n";
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "Content-Type: application/sdp\r\n", sdp);
    take(&mut calls, 1, (5060, 5060), &invite, owned("one", true));
    take(&mut calls, 2, (4001, 4000), &rtp(7, 1), owned("one", false));

    let r = calls.record("one", Vec::new(), false);

    assert_eq!((r.media_from.as_deref(), r.phone_rule), (Some("start"), None));
}

#[test]
fn media_that_nobody_signalled_stays_open_while_it_flows_and_closes_after_its_silence() {
    let mut calls = Calls::default();
    for seq in 0..100_u16 {
        take(&mut calls, i64::from(seq) * SEC / 50, (4002, 4000), &rtp(0xabcd, seq), owned("rtp-0000abcd", false));
        let close = look(&mut calls, at(i64::from(seq) * SEC / 50), true).iter().any(|d| d.close);
        assert!(!close, "packet {seq}");
    }

    assert!(!look(&mut calls, at(30 * SEC), true).iter().any(|d| d.close));
    let record = calls.record("rtp-0000abcd", Vec::new(), false);
    assert_eq!((record.kind.as_str(), record.state.as_str(), record.streams.len()), ("media", "rtp-only", 1));
    assert_eq!(record.streams[0].packets, 100);
    look(&mut calls, at(70 * SEC), true);
    assert!(look(&mut calls, at(71 * SEC), true).iter().any(|d| d.close && &*d.call_id == "rtp-0000abcd"));
}

#[test]
fn what_a_kernel_lost_stands_in_the_calls_alive_then_whether_it_is_told_before_or_after_their_packets() {
    let edge: Arc<str> = "edge".into();
    let loss = |from: i64, until: i64| LossWindow {
        reason: "kernel_dropped".to_owned(),
        from: Some(from * SEC),
        until: until * SEC,
        packets: 5,
        ..LossWindow::default()
    };
    let losses = Arc::<Mutex<Losses>>::default();
    let mut calls = Calls::new(Arc::clone(&losses), CallTimes::default());
    losses.lock().note(&edge, loss(10, 11));
    for (ns, id) in [(SEC, "over"), (5 * SEC, "alive"), (60 * SEC, "later")] {
        let mut say = |ns, start: &str, cseq| {
            let bytes = message(start, cseq, if start.starts_with("INVITE") { "" } else { ";tag=b" }, "", "");
            let bytes = String::from_utf8(bytes).unwrap().replace("Call-ID: one", &format!("Call-ID: {id}")).into_bytes();
            take(&mut calls, ns, (5060, 5060), &bytes, owned(id, true));
        };
        say(ns, "INVITE sip:b@b SIP/2.0", "1 INVITE");
        say(ns + SEC / 8, "SIP/2.0 200 OK", "1 INVITE");
        if id == "over" {
            say(ns + SEC / 4, "BYE sip:b@b SIP/2.0", "2 BYE");
            say(ns + SEC / 2, "SIP/2.0 200 OK", "2 BYE");
        }
    }
    losses.lock().note(&edge, loss(70, 71));

    let holes = |id: &str| {
        let r = calls.record(id, Vec::new(), true);
        assert_eq!(r.complete, r.holes.is_empty());
        r.holes
            .into_iter()
            .map(|h| h.from.map_or(0, |t| t[14..16].parse::<u32>().unwrap() * 60 + t[17..19].parse::<u32>().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!((holes("over"), holes("alive"), holes("later")), (vec![], vec![10, 70], vec![70]));
    // a call whose files were closed before the word came
    losses.lock().take_news();
    for id in ["over", "alive"] {
        calls.close(id, id);
    }
    losses.lock().note(&edge, loss(5, 6));
    let touched = calls.touched(&losses.lock().take_news());
    assert_eq!(touched, ["alive".into()]);
}

/// Reason, seconds from and until.
fn holes(calls: &Calls, call_id: &str) -> Vec<(String, Option<i64>, Option<i64>)> {
    let secs = |t: Option<String>| t.map(|t| t[14..16].parse::<i64>().unwrap() * 60 + t[17..19].parse::<i64>().unwrap());
    let r = calls.record(call_id, Vec::new(), true);
    assert_eq!(r.complete, r.holes.is_empty());
    r.holes.into_iter().map(|h| (h.reason, secs(h.from), secs(h.until))).collect()
}

const BYE: &str = "BYE sip:bob@b.example SIP/2.0";

#[test]
fn a_call_that_was_joined_in_its_middle_misses_its_beginning() {
    let mut calls = Calls::default();
    take(&mut calls, 5 * SEC, (5060, 5060), &message(BYE, "2 BYE", ";tag=b", "", ""), owned("one", true));
    take(&mut calls, 6 * SEC, (5060, 5060), &message("SIP/2.0 200 OK", "2 BYE", ";tag=b", "", ""), owned("one", true));
    let late = Owned { holes: "before_match 5000000000 5000000000 3", ..owned("two", true) };
    let bye = String::from_utf8(message(BYE, "2 BYE", ";tag=b", "", "")).unwrap().replace("Call-ID: one", "Call-ID: two");
    take(&mut calls, 5 * SEC, (5060, 5060), bye.as_bytes(), late);

    assert_eq!(holes(&calls, "one"), [("before_capture".to_owned(), None, Some(5))]);
    assert_eq!(holes(&calls, "two"), [("before_match".to_owned(), Some(5), Some(5))], "that says it already");
}

#[test]
fn a_call_that_goes_on_after_its_hunter_had_stopped_misses_what_came_since_and_one_that_was_over_does_not() {
    let edge: Arc<str> = "edge".into();
    let losses = Arc::<Mutex<Losses>>::default();
    let mut calls = Calls::new(Arc::clone(&losses), CallTimes::default());
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "", "");
    let bye = |id: &str| {
        let text = String::from_utf8(message(BYE, "2 BYE", ";tag=b", "", "")).unwrap();
        text.replace("Call-ID: one", &format!("Call-ID: {id}")).into_bytes()
    };
    for id in ["one", "two", "early"] {
        let invite = String::from_utf8(invite.clone()).unwrap().replace("Call-ID: one", &format!("Call-ID: {id}"));
        take(&mut calls, 5 * SEC, (5060, 5060), invite.as_bytes(), owned(id, true));
    }
    let answer = String::from_utf8(bye("two")).unwrap().replace(BYE, "SIP/2.0 200 OK");
    take(&mut calls, 6 * SEC, (5060, 5060), &bye("two"), owned("two", true));
    take(&mut calls, 6 * SEC, (5060, 5060), answer.as_bytes(), owned("two", true));
    let stop = RunLosses { run: 1, at: 10 * SEC, stopped: true, ..RunLosses::default() };
    losses.lock().hear(&edge, None, stop);
    calls.hunter_gone(&edge);

    take(&mut calls, 20 * SEC, (5060, 5060), &bye("one"), owned("one", true));
    take(&mut calls, 20 * SEC, (5060, 5060), &bye("two"), owned("two", true));
    // from its disk queue
    take(&mut calls, 9 * SEC, (5060, 5060), &bye("early"), owned("early", true));

    assert_eq!(holes(&calls, "one"), [("hunter_down".to_owned(), Some(10), None)]);
    assert_eq!((holes(&calls, "two"), holes(&calls, "early")), (vec![], vec![]));
}

/// Segments of a message that is announced as long and never ends.
fn unfinished(n: u32) -> Vec<u8> {
    let mut payload = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "", "");
    if n == 0 {
        payload = String::from_utf8(payload).unwrap().replace("Content-Length: 0", "Content-Length: 250000").into_bytes();
    }
    payload.resize(1400, b'x');
    ethernet(0x0800, &v4(6, &crate::packet::build::tcp(5060, 5060, 1 + n * 1400, 16, &payload)))
}

#[test]
fn what_waits_in_a_call_weighs_and_weighs_nothing_once_it_is_forgotten() {
    let hunter: Arc<str> = "edge".into();
    let mut calls = Calls::default();
    let give = |calls: &mut Calls, call_id: &str, ns: i64, data: &[u8]| {
        calls.take(&hunter, &owned(call_id, true), &mut ["f1"].into_iter(), &frame(LinkType::ETHERNET, data, ns));
    };
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "", "");
    give(&mut calls, "one", 1, &ethernet(0x0800, &v4(17, &udp(5060, 5060, &invite))));
    let usual = calls.bytes();
    for n in 0..150_u32 {
        give(&mut calls, "two", i64::from(n), &unfinished(n));
    }
    let waiting = calls.bytes() - usual;
    for n in 0..100_u32 {
        calls.take(
            &hunter,
            &owned("three", true),
            &mut [&*format!("{n:0>1000}")].into_iter(),
            &frame(LinkType::ETHERNET, &[], 1),
        );
    }
    let named = calls.bytes() - usual - waiting;
    calls.close("two", "two");
    for id in ["one", "two", "three"] {
        calls.forget(id);
    }

    assert!((10_000..30_000).contains(&usual), "{usual}");
    assert!((300_000..700_000).contains(&waiting), "read in order, and kept as it came: {waiting}");
    assert!(named > 90_000, "{named}");
    assert_eq!(calls.bytes(), 0);
}

/// A call of edge's, answered, and one packet of its media after a second.
fn talking(calls: &mut Calls) {
    let sdp = "v=0\r\nc=IN IP4 198.51.100.2\r\nm=audio 4000 RTP/AVP 8\r\n";
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "Content-Type: application/sdp\r\n", sdp);
    take(calls, 1, (5060, 5060), &invite, owned("one", true));
    take(calls, 2, (5060, 5060), &message("SIP/2.0 200 OK", "1 INVITE", ";tag=b", "", ""), owned("one", true));
    take(calls, SEC, (4001, 4000), &rtp(7, 1), owned("one", false));
}

#[test]
fn a_call_goes_on_after_its_hunter_was_away_for_an_hour() {
    let mut calls = Calls::default();
    talking(&mut calls);
    let hour = 3600 * SEC;
    for minutes in 1..60 {
        assert!(!look(&mut calls, at(minutes * 60 * SEC), false).iter().any(|d| d.close), "away for {minutes} min");
    }
    assert!(!look(&mut calls, at(hour), true).iter().any(|d| d.close), "back, and what it has is still on its way");

    let hunter: Arc<str> = "edge".into();
    for n in 2..6_u16 {
        let data = ethernet(0x0800, &v4(17, &udp(4001, 4000, &rtp(7, n))));
        let packet = frame(LinkType::ETHERNET, &data, i64::from(n) * SEC);
        calls.take(&hunter, &owned("one", false), &mut std::iter::empty(), &packet);
        calls.heard(&hunter, Some(packet.ts), at(hour + i64::from(n)));
        look(&mut calls, at(hour + i64::from(n)), false);
    }

    let record = calls.record("one", Vec::new(), false);
    assert_eq!((record.state.as_str(), record.packets.rtp, record.streams.len()), ("active", 5, 1));
    assert_eq!(calls.overdue(), Overdue::default());
}

#[test]
fn a_clock_that_is_set_makes_no_call_silent() {
    let mut calls = Calls::default();
    talking(&mut calls);
    let (day, mut closed) = (24 * 3600 * SEC, false);
    for from in [SEC, day, 2 * day, day] {
        closed |= (0..4).any(|minute| look(&mut calls, at(from + minute * 60 * SEC), true).iter().any(|d| d.close));
    }

    assert!(!closed, "it was set every four minutes");
    assert!((4..8).any(|minute| look(&mut calls, at(day + minute * 60 * SEC), true).iter().any(|d| d.close)));
}

#[test]
fn a_hunter_that_does_not_come_back_is_waited_for_two_hours_and_its_calls_are_unfinished_then() {
    let mut calls = Calls::default();
    talking(&mut calls);
    let mut closed = (0..130).filter(|n| look(&mut calls, at(SEC + n * 60 * SEC), false).iter().any(|d| d.close));

    assert_eq!(closed.next(), Some(125));
    assert_eq!(calls.record("one", Vec::new(), true).state, "unfinished");
}

#[test]
fn a_call_whose_end_nobody_saw_is_closed_unfinished_when_its_media_has_stopped_for_as_long_as_was_said() {
    for (times, minutes) in
        [(CallTimes::default(), 5), (CallTimes { rtp_idle: Duration::from_mins(20), ..CallTimes::default() }, 20)]
    {
        let mut calls = Calls::new(Arc::default(), times);
        talking(&mut calls);
        let mut closes = |ns: i64| {
            let mut steps = (SEC..ns).step_by(30_000_000_000).chain([ns]);
            steps.any(|ns| look(&mut calls, at(ns), true).iter().any(|d| d.close))
        };
        let idle = SEC + minutes * 60 * SEC;

        assert!(!closes(idle - 1) && closes(idle), "{minutes}");

        let record = calls.record("one", Vec::new(), true);
        assert_eq!((record.state.as_str(), record.packets.rtp), ("unfinished", 1));
        assert_eq!(calls.overdue(), Overdue { idle: 1, aged: 0 });
    }
}

#[test]
fn many_calls_are_looked_at_in_portions_each_once_a_round() {
    let mut calls = Calls::default();
    let invite = message("INVITE sip:bob@b.example SIP/2.0", "1 INVITE", "", "", "");
    for n in 0..2 * LOOK + 10 {
        take(&mut calls, SEC, (5060, 5060), &invite, owned(&format!("{n:04}"), true));
    }
    for rest in [10, 9] {
        let mut seen = Vec::new();
        for portion in [LOOK, LOOK, rest] {
            let due = look(&mut calls, at(SEC), true);
            assert_eq!((due.len(), calls.is_round()), (portion, portion == rest));
            seen.extend(due.into_iter().map(|d| d.call_id));
            // where it goes on from is gone, the first time, and one that was looked at is new
            calls.forget(&format!("{:04}", LOOK - 1));
            calls.forget("0000");
            take(&mut calls, SEC, (5060, 5060), &invite, owned("0000", true));
        }
        assert!(seen.is_sorted() && seen.len() == seen.iter().collect::<BTreeSet<_>>().len());
    }
}
