//! When calls are forgotten: whose end was seen, whose was not, and which go where others need room.

use super::*;

const MIN: i64 = 60 * SEC;
const HOUR: i64 = 60 * MIN;

/// An answered call of alice, whose caller receives media at 4000.
fn answered(w: &mut Wire, at: i64, name: &str) {
    w.udp(at, (5060, 5060), &invite(name, "alice", 4000));
    accepted(w, at, name);
}

fn accepted(w: &mut Wire, at: i64, name: &str) {
    w.udp_back(at + 1, (5060, 5060), &sip("SIP/2.0 200 OK", name, "alice", "1 INVITE", Some(5000)));
    w.udp(at + 2, (5060, 5060), &sip("ACK sip:bob@b.example SIP/2.0", name, "alice", "1 ACK", None));
}

fn hung_up(w: &mut Wire, at: i64, name: &str) {
    w.udp(at, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", name, "alice", "2 BYE", None));
    w.udp_back(at + 1, (5060, 5060), &sip("SIP/2.0 200 OK", name, "alice", "2 BYE", None));
}

/// A new description of alice's media, which goes one way only.
fn reinvite(w: &mut Wire, at: i64, name: &str, cseq: u32, way: &str) {
    let message =
        String::from_utf8(sip("INVITE sip:bob@b.example SIP/2.0", name, "alice", &format!("{cseq} INVITE"), Some(4000)));
    let inside = message.unwrap().replacen("To: <sip:bob@b.example>", "To: <sip:bob@b.example>;tag=b", 1);
    let (head, body) = inside.split_once("\r\n\r\n").unwrap();
    let body = format!("{body}a={way}\r\n");
    let head: Vec<&str> = head.split("\r\n").filter(|l| !l.starts_with("Content-Length")).collect();
    let whole = format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len());
    w.udp(at, (5060, 5060), whole.as_bytes());
}

/// Time goes on in small steps.
fn wait(w: &mut Wire, until: i64) -> (usize, u64, u64) {
    for at in (w.waited..until).step_by(30_000_000_000).skip(1).chain([until]) {
        w.engine.handle_timeout(Timestamp::from_nanos(at), &mut w.out);
    }
    w.waited = until;
    let counters = w.engine.counters();
    (w.engine.calls().len(), counters.calls_idle, counters.calls_aged)
}

#[test]
fn a_call_with_media_goes_on_while_packets_come_however_old_and_is_over_five_minutes_after_them() {
    let mut w = Wire::new(&["alice"]);
    answered(&mut w, 0, "one");
    for n in 1..200 {
        w.rtp(n * 4 * MIN, (4001, 4000), 7, u16::try_from(n).unwrap());
        assert_eq!(wait(&mut w, n * 4 * MIN + 3 * MIN), (1, 0, 0));
    }
    let last = 199 * 4 * MIN;

    assert_eq!(wait(&mut w, last + 5 * MIN - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, last + 5 * MIN), (0, 1, 0));
    assert_eq!((w.out.calls[0].media_packets, w.out.calls[0].unfinished), (199, true));
}

#[test]
fn media_may_stop_as_soon_as_it_has_begun() {
    // nothing is held here, so no other timer wakes the call
    let mut w = Wire::with(&[], |c| c.table.no_filter = NoFilterPolicy::Allow);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);

    assert_eq!(wait(&mut w, 5 * MIN), (1, 0, 0));
    assert_eq!(wait(&mut w, 5 * MIN + SEC), (0, 1, 0));
}

#[test]
fn a_call_without_media_is_over_after_two_hours_or_once_no_session_timer_has_refreshed_it_for_35_minutes() {
    let mut w = Wire::new(&["alice"]);
    answered(&mut w, 0, "silent");
    answered(&mut w, 0, "refreshed");
    for n in 1..=10 {
        let refresh = sip("UPDATE sip:bob@b.example SIP/2.0", "refreshed", "alice", &format!("{n} UPDATE"), None);
        w.udp(n * 30 * MIN, (5060, 5060), &refresh);
        let known = usize::from(n < 4) + 1;
        assert_eq!(wait(&mut w, n * 30 * MIN), (known, 0, 2 - known as u64));
    }

    assert_eq!(wait(&mut w, 5 * HOUR + 35 * MIN - 1), (1, 0, 1));
    assert_eq!(wait(&mut w, 5 * HOUR + 35 * MIN), (0, 0, 2));
    assert!(w.out.calls.iter().all(|c| c.unfinished));
}

#[test]
fn a_call_on_hold_needs_no_media_until_it_is_taken_up_again() {
    let mut w = Wire::new(&["alice"]);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);
    reinvite(&mut w, 2 * SEC, "one", 2, "sendonly");

    w.rtp(3 * SEC, (4001, 4000), 7, 2);
    assert_eq!(wait(&mut w, HOUR), (1, 0, 0), "on hold");
    reinvite(&mut w, HOUR, "one", 3, "sendrecv");
    w.rtp(HOUR + SEC, (4001, 4000), 7, 3);
    assert_eq!(wait(&mut w, HOUR + SEC + 5 * MIN - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, HOUR + SEC + 5 * MIN), (0, 1, 0));
}

#[test]
fn a_call_that_moves_its_media_to_where_it_is_not_seen_is_judged_by_its_signalling() {
    let mut w = Wire::new(&["alice"]);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);
    reinvite(&mut w, 2 * SEC, "one", 2, "sendrecv");

    assert_eq!(wait(&mut w, 2 * HOUR - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, 2 * HOUR), (0, 0, 1));
}

#[test]
fn a_call_whose_hanging_up_nobody_answers_has_ended_however_short_its_silence_may_be() {
    let mut w = Wire::with(&["alice"], |c| {
        c.table.limits.times = CallTimes { rtp_idle: Duration::from_secs(10), ..CallTimes::default() };
    });
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);
    w.udp(2 * SEC, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", "one", "alice", "2 BYE", None));

    assert_eq!(wait(&mut w, 34 * SEC - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, 34 * SEC), (0, 0, 0));
    assert_eq!((w.out.calls[0].state, w.out.calls[0].unfinished), ("ENDED", false));
}

#[test]
fn a_call_nobody_wants_stays_although_its_media_is_not_looked_at() {
    let mut w = Wire::new(&["nobody"]);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);

    assert_eq!(wait(&mut w, 2 * HOUR - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, 2 * HOUR), (0, 0, 1));
}

#[test]
fn times_that_are_off_end_no_call() {
    let mut w = Wire::with(&["alice"], |c| {
        c.table.limits.times = CallTimes { rtp_idle: Duration::MAX, max_age: Duration::MAX, live: false };
    });
    answered(&mut w, 0, "media");
    w.rtp(SEC, (4001, 4000), 7, 1);
    w.udp(2 * SEC, (5060, 5060), &sip("INFO sip:bob@b.example SIP/2.0", "joined", "alice", "9 INFO", None));

    assert_eq!(wait(&mut w, 24 * 30 * HOUR), (2, 0, 0));
}

#[test]
fn time_that_nobody_watched_is_no_silence_on_an_interface() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.times.live = true);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);
    wait(&mut w, 2 * SEC);

    // a clock that is set, a machine that slept
    w.engine.handle_timeout(Timestamp::from_nanos(HOUR), &mut w.out);
    w.waited = HOUR;
    assert_eq!(wait(&mut w, HOUR + 5 * MIN - 1), (1, 0, 0));
    // set back: packets have earlier times than those that timers go by
    w.rtp(3 * SEC, (4001, 4000), 7, 2);
    assert_eq!(wait(&mut w, HOUR + 10 * MIN - 2), (1, 0, 0));
    assert_eq!(wait(&mut w, HOUR + 10 * MIN - 1), (0, 1, 0));
    assert_eq!(w.out.calls[0].last_ns, 3 * SEC);
}

#[test]
fn in_a_file_a_pause_is_silence_however_seldom_packets_come() {
    let mut w = Wire::new(&["alice"]);
    for n in 0..20 {
        let register = sip("REGISTER sip:b.example SIP/2.0", &format!("r{n}"), "carol", "1 REGISTER", None);
        w.udp(n * 2 * MIN, (5060, 5060), &register);
        w.engine.handle_timeout(Timestamp::from_nanos(n * 2 * MIN), &mut w.out);
    }

    assert_eq!(w.engine.calls().len(), 1);
}

#[test]
fn the_time_that_an_interface_was_away_is_no_silence() {
    let mut w = Wire::new(&["alice"]);
    answered(&mut w, 0, "one");
    w.rtp(SEC, (4001, 4000), 7, 1);
    wait(&mut w, 4 * MIN);

    w.engine.note_outage(Timestamp::from_nanos(SEC), Timestamp::from_nanos(4 * MIN));

    assert_eq!(wait(&mut w, 9 * MIN - 1), (1, 0, 0));
    assert_eq!(wait(&mut w, 9 * MIN), (0, 1, 0));
}

#[test]
fn a_call_that_has_ended_makes_room_before_one_that_time_takes_sooner() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 2);
    w.udp(0, (5062, 5060), &invite("undecided", "carol", 4100));
    answered(&mut w, SEC, "over");
    hung_up(&mut w, 170 * SEC, "over");

    // the undecided one is held until 180 s, the other stays until 202 s
    answered(&mut w, 175 * SEC, "new");

    let known = ["undecided", "over", "new"].map(|name| w.engine.calls().by_id(name).is_some());
    assert_eq!((known, w.engine.counters().calls_evicted), ([true, false, true], 1));
}

#[test]
fn a_flood_of_calls_nobody_asked_for_pushes_out_none_that_somebody_did_ask_for_however_silent_that_is() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 20);
    answered(&mut w, 0, "chosen");
    for n in 0..400_u16 {
        let (at, name) = (SEC + i64::from(n) * SEC / 4, format!("f{n}"));
        w.udp(at, (5062, 5060), &invite(&name, "carol", 4100 + 2 * n));
        if n % 2 == 0 {
            // declined: its set-up is over
            w.udp_back(at + 1, (5062, 5060), &sip("SIP/2.0 200 OK", &name, "carol", "1 INVITE", None));
            w.udp(at + 2, (5062, 5060), &sip("ACK sip:bob@b.example SIP/2.0", &name, "carol", "1 ACK", None));
        }
    }

    assert!(w.engine.calls().by_id("chosen").is_some());
    assert_eq!((w.engine.calls().len(), w.engine.counters().calls_evicted), (20, 381));
}

#[test]
fn a_call_that_goes_on_after_its_end_is_no_longer_the_first_to_make_room() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 2);
    answered(&mut w, 0, "again");
    hung_up(&mut w, SEC, "again");
    answered(&mut w, 2 * SEC, "silent");
    let anew = sip("INVITE sip:bob@b.example SIP/2.0", "again", "alice", "3 INVITE", Some(4000));
    w.udp(3 * SEC, (5060, 5060), &anew);

    answered(&mut w, 4 * SEC, "new");

    let known = ["again", "silent", "new"].map(|name| w.engine.calls().by_id(name).is_some());
    assert_eq!(known, [true, false, true]);
}

#[test]
fn what_is_queued_of_calls_that_are_gone_does_not_pile_up() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 16);

    for n in 0..5000_u16 {
        w.udp(i64::from(n), (5060, 5060), &invite(&format!("c{n}"), "carol", 4000 + 2 * n));
        let queued = w.engine.calls().queued();
        assert!(queued.iter().all(|n| *n <= 2 * 16 + 64), "{queued:?} after {n}");
    }

    assert_eq!((w.engine.calls().len(), w.engine.counters().calls_evicted), (16, 4984));
}

#[test]
fn calls_that_are_challenged_again_and_again_are_queued_once_each_after_others_have_left() {
    let mut w = Wire::new(&["nobody"]);
    for n in 0..100_u16 {
        answered(&mut w, i64::from(n), &format!("c{n}"));
    }
    for n in 0..400_u16 {
        let register = sip("REGISTER sip:b.example SIP/2.0", &format!("r{n}"), "carol", "1 REGISTER", None);
        w.udp(SEC + i64::from(n), (5060, 5060), &register);
    }
    for round in 0..5 {
        for n in 0..100_u16 {
            let (at, name) = (2 * SEC + round * SEC + 2 * i64::from(n), format!("c{n}"));
            w.udp(at, (5060, 5060), &sip("BYE sip:bob@b.example SIP/2.0", &name, "alice", "2 BYE", None));
            w.udp_back(at + 1, (5060, 5060), &sip("SIP/2.0 401 Unauthorized", &name, "alice", "2 BYE", None));
        }
        wait(&mut w, 2 * SEC + round * SEC + 999 * MS);
    }

    wait(&mut w, 4 * MIN);
    w.udp(4 * MIN, (5060, 5060), &sip("INFO sip:bob@b.example SIP/2.0", "c0", "alice", "3 INFO", None));

    assert_eq!(w.engine.calls().len(), 100);
    let queued = w.engine.calls().queued();
    assert!(queued.iter().all(|n| *n <= 2 * 100 + 64), "{queued:?}");
}

#[test]
fn a_full_table_loses_calls_that_are_over_first_then_the_one_silent_for_longest_however_old_each_is() {
    let mut w = Wire::with(&["alice"], |c| c.table.limits.calls = 5);
    let names = ["talked-in", "silent", "silent-since", "over", "over-before"];
    for (n, name) in (0..).zip(names) {
        w.udp(n * SEC, (5060, 5060), &invite(name, "alice", 4000 + 10 * u16::try_from(n).unwrap()));
        accepted(&mut w, n * SEC, name);
    }
    for (at, name) in [(90, "over-before"), (95, "over")] {
        hung_up(&mut w, at * SEC, name);
    }
    w.rtp(94 * SEC, (4001, 4000), 7, 1);
    let mut gone = Vec::new();

    for n in 0..5_u16 {
        w.udp((100 + i64::from(n)) * SEC, (5060, 5060), &invite(&format!("new-{n}"), "alice", 5000 + 10 * n));
        let lost: Vec<_> = names.into_iter().filter(|name| w.engine.calls().by_id(name).is_none()).collect();
        gone.extend(lost.into_iter().filter(|name| !gone.contains(name)).collect::<Vec<_>>());
        assert_eq!((gone.len(), w.engine.counters().calls_evicted), (usize::from(n) + 1, u64::from(n) + 1));
    }

    assert_eq!(gone, ["over-before", "over", "silent", "silent-since", "talked-in"]);
}
