//! Who goes when too many calls are known, and what is too much of one.

use super::*;

#[test]
fn too_many_calls_close_the_oldest_properly() {
    let mut b = bed(|c| c.max_calls = 3);

    for id in ["a", "b", "c", "d", "e"] {
        b.put(id, Part::Rtp, 1, id.as_bytes());
    }

    let evicted: Vec<_> = std::iter::from_fn(|| b.calls.poll_closed()).collect();
    assert_eq!(evicted.iter().map(|c| &*c.call_id).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(payloads(&b.read(&evicted[0].files[0].name)), [b"a"]);
    assert_eq!((b.calls.counters().evicted, b.calls.open_calls().count()), (2, 3));
}

#[test]
fn a_call_that_is_over_goes_before_one_that_is_silent_and_that_before_one_that_goes_on() {
    let mut b = bed(|c| c.max_calls = 3);
    b.calls.tick(at(0)).unwrap();
    for id in ["talks", "silent", "over"] {
        b.put(id, Part::Rtp, 1, b"1");
    }
    b.calls.tick(at(1)).unwrap();
    b.put("talks", Part::Rtp, 1, b"2");
    b.close("over");

    b.put("first", Part::Rtp, 1, b"1");
    b.put("second", Part::Rtp, 1, b"1");

    let evicted: Vec<_> = std::iter::from_fn(|| b.calls.poll_closed()).map(|c| c.call_id).collect();
    assert_eq!(evicted.iter().map(|c| &**c).collect::<Vec<_>>(), [b"silent"], "the other was closed before");
    assert_eq!((b.calls.counters().evicted_closed, b.calls.counters().evicted), (1, 1));
    assert!(b.calls.stem(b"talks").is_some());
}

impl Bed {
    fn bring(&mut self, hunter: &str, id: &str) {
        let mut pkt = packet(1, b"1");
        pkt.origin.hunter = hunter;
        self.calls.write(&Parties { call_id: id.as_bytes(), ..Parties::default() }, Part::Rtp, &pkt).unwrap();
    }
}

#[test]
fn whoever_brings_calls_without_end_makes_room_among_its_own() {
    let mut b = bed(|c| c.max_calls = 21);
    b.calls.tick(at(0)).unwrap();
    let good: Vec<String> = (0..10).map(|n| format!("good{n}")).collect();
    for id in &good {
        b.bring("good", id);
    }
    for id in good.iter().take(3) {
        b.close(id);
    }
    b.calls.tick(at(60)).unwrap();

    for n in 0..1000 {
        b.bring("evil", &format!("evil{n}"));
    }

    for id in &good {
        assert!(b.calls.stem(id.as_bytes()).is_some(), "{id}");
    }
    assert_eq!((b.calls.counters().evicted, b.calls.counters().evicted_closed), (989, 0));
    b.bring("late", "late0");
    assert!(b.calls.stem(b"late0").is_some() && good.iter().all(|id| b.calls.stem(id.as_bytes()).is_some()));
}

#[test]
fn whoever_makes_much_known_of_few_calls_makes_room_among_its_own() {
    let mut b = bed(|c| c.max_known_bytes = 100_000);
    let good: Vec<String> = (0..10).map(|n| format!("good{n}")).collect();
    for id in &good {
        b.bring("good", id);
    }
    for id in ["evil0", "evil1", "evil2"] {
        b.bring("evil", id);
    }

    let mut elsewhere = 0;
    for id in ["evil0", "evil1", "evil2"] {
        elsewhere += 90_000;
        b.calls.note_known(id.as_bytes(), 90_000);
        while b.calls.evict_for(elsewhere).unwrap() {
            assert!(elsewhere > 90_000);
            elsewhere -= 90_000;
        }
    }

    assert!(good.iter().all(|id| b.calls.stem(id.as_bytes()).is_some()));
    assert!(b.calls.stem(b"evil2").is_some());
    assert_eq!(b.calls.counters().evicted, 2);
}

#[test]
fn after_a_restart_calls_are_still_their_hunters() {
    let mut b = bed(|c| c.max_calls = 6);
    for id in ["good0", "good1", "good2"] {
        b.bring("good", id);
    }
    for n in 0..3 {
        b.bring("evil", &format!("evil{n}"));
    }
    b.calls.commit().unwrap();
    let states = b.calls.snapshot();
    let mut cfg = config("{callid}.pcap");
    cfg.max_calls = 6;
    b.calls = CallFiles::open(&b.tmp.path().join("d"), cfg).unwrap();
    b.calls.restore(&states);

    for n in 3..30 {
        b.bring("evil", &format!("evil{n}"));
    }

    assert!(["good0", "good1", "good2"].iter().all(|id| b.calls.stem(id.as_bytes()).is_some()));
}

/// Two hunters that take turns make a run of each packet.
#[test]
fn a_call_counts_with_all_that_its_packets_make_known_of_its_files() {
    const ROOM: usize = 1 << 20;
    let mut b = bed(|c| {
        c.max_known_bytes = ROOM;
        c.max_file_bytes = 1000;
    });
    for n in 0..20_000_usize {
        let call = (n / 1000).to_string();
        let mut pkt = packet(1, b"some bytes of a packet");
        pkt.origin.hunter = ["west", "east"][n % 2];
        b.calls.write(&Parties { call_id: call.as_bytes(), ..Parties::default() }, Part::Rtp, &pkt).unwrap();
        while b.calls.evict_for(0).unwrap() {}
        assert!(b.calls.known_bytes() <= ROOM, "{n}");
    }

    let runs: usize = b.calls.snapshot().iter().flat_map(|c| &c.tracks).map(|t| t.runs.len()).sum();
    assert!(b.calls.counters().evicted > 5 && runs * 64 <= ROOM, "{runs} {:?}", b.calls.counters());
    while b.calls.evict_for(usize::MAX).unwrap() {}
    assert_eq!(b.calls.known_bytes(), 0);
}

#[test]
fn a_link_type_too_many_is_refused_and_makes_no_file() {
    let mut b = bed(|_| {});
    let id = Parties { call_id: b"a", ..Parties::default() };

    for link in 1..=16 {
        b.put("a", Part::Rtp, link, b"1");
    }
    let e = b.calls.write(&id, Part::Rtp, &packet(17, b"1")).unwrap_err();
    b.close("a");

    assert!(matches!(e, RecordError::LinkTypes { .. }) && !e.is_retryable(), "{e}");
    assert_eq!(b.names().len(), crate::record::MAX_LINKS);
}

#[test]
fn after_a_start_with_fewer_calls_those_go_that_would_make_room_one_by_one_and_others_are_told_where_their_packets_lie() {
    let mut b = bed(|_| {});
    b.calls.tick(at(0)).unwrap();
    let ids = ["closed0", "old", "older than the rest", "closed1", "new", "newer", "newest"];
    for id in ids {
        b.put(id, Part::Rtp, 1, id.as_bytes());
    }
    b.close("closed0");
    b.close("closed1");
    b.calls.commit().unwrap();
    let states = b.calls.snapshot();
    let restart = |b: &mut Bed| {
        let cfg = CallFilesConfig { max_calls: 3, ..config("{callid}.pcap") };
        b.calls = CallFiles::open(&b.tmp.path().join("d"), cfg).unwrap();
        b.calls.restore(&states);
    };

    restart(&mut b);
    assert_eq!(ids.iter().filter(|id| b.calls.stem(id.as_bytes()).is_some()).count(), 7, "none is left out");
    while b.calls.evict_beyond().unwrap() {}
    let forgotten: Vec<_> = std::iter::from_fn(|| b.calls.poll_forgotten()).collect();
    let closed: Vec<_> = std::iter::from_fn(|| b.calls.poll_closed()).collect();
    assert_eq!(forgotten.iter().map(|id| &**id).collect::<Vec<_>>(), [b"closed0", b"closed1"]);
    assert_eq!(closed.iter().map(|c| &*c.call_id).collect::<Vec<_>>(), [&b"old"[..], b"older than the rest"]);
    assert_eq!((b.calls.counters().evicted_closed, b.calls.counters().evicted), (2, 2));
    for c in &closed {
        assert_eq!(payloads(&b.read(&c.files[0].name)), [&*c.call_id]);
        assert_eq!(c.history[0].files, [(b.calls.dir().join(&c.files[0].name), 1)]);
        assert_eq!((c.history[0].runs.len(), c.files[0].sha256.is_some()), (1, true));
    }

    restart(&mut b);
    b.put("another", Part::Rtp, 1, b"x");
    assert_eq!((b.calls.counters().evicted_closed, b.calls.counters().evicted), (2, 0), "no packet waits for all of them");
}
