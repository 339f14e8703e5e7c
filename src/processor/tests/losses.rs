//! What a hunter's heartbeats say of its kernel and its interfaces.

use super::*;
use crate::wire::management::{HunterHeartbeat, HunterStats, RunLosses};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

/// A heartbeat at this second: frames dropped by the kernel and by the interface.
fn beat(shared: &Shared, secs: i64, (kernel, interface): (u64, u64)) {
    let said = HunterStats { kernel_dropped: kernel, interface_dropped: interface, ..HunterStats::default() };
    shared.note_heartbeat(HunterHeartbeat {
        hunter_id: "edge".into(),
        timestamp_ns: at(secs).as_nanos(),
        stats: Some(said),
        ..HunterHeartbeat::default()
    });
}

fn register_as(shared: &Shared, instance: u64) {
    let r = HunterRegistration { hunter_id: "edge".into(), durable_acks: true, instance, ..HunterRegistration::default() };
    shared.roster.lock().register(r, None, crate::telemetry::clock::wall()).unwrap();
}

#[test]
fn what_was_lost_between_two_heartbeats_is_told_once_with_its_time() {
    let (shared, _queue) = processor(1);
    register_as(&shared, 1);

    beat(&shared, 100, (0, 0));
    beat(&shared, 101, (7, 2));
    beat(&shared, 106, (7, 2));
    // the same process after an outage: what it lost meanwhile is of that time
    register_as(&shared, 1);
    beat(&shared, 200, (9, 2));
    // another one counts from 0
    register_as(&shared, 2);
    beat(&shared, 300, (3, 0));

    let second = |time: Option<String>| time.map(|t| t[14..16].parse::<u64>().unwrap() * 60 + t[17..19].parse::<u64>().unwrap());
    let holes: Vec<_> = shared
        .losses
        .lock()
        .holes("edge", at(0), at(1000))
        .map(|h| (h.reason, second(h.from), second(h.until).unwrap(), h.packets.unwrap()))
        .collect();
    let expected = [
        ("kernel_dropped", Some(100), 101, 7),
        ("interface_dropped", Some(100), 101, 2),
        ("kernel_dropped", Some(106), 200, 2),
        ("kernel_dropped", None, 300, 3),
    ];
    assert_eq!(holes, expected.map(|(r, from, until, n)| (r.to_owned(), from, until, n)));
}

#[test]
fn what_a_killed_hunter_lost_is_told_by_its_next_run_and_stands_between_its_last_word_and_its_death() {
    let (shared, _queue) = processor(1);
    let epoch = |secs: u64| Epoch::new(secs * 1000, 1).0;
    let register = |instance, secs| {
        let base = HunterRegistration { hunter_id: "edge".into(), durable_acks: true, ..HunterRegistration::default() };
        let r = HunterRegistration { instance, epochs: vec![epoch(secs), epoch(10)], ..base };
        shared.roster.lock().register(r, None, crate::telemetry::clock::wall()).unwrap();
    };
    register(1, 100);
    shared.note_run("edge", 1, &[]);
    beat(&shared, 200, (7, 0));
    register(2, 220);
    let last = RunLosses {
        instance: 1,
        began_ns: at(100).as_nanos(),
        until_ns: at(203).as_nanos(),
        kernel_dropped: 9,
        interface_dropped: 0,
    };
    for _ in 0..2 {
        shared.note_run("edge", 2, std::slice::from_ref(&last));
    }
    // what this run loses is of its own time
    beat(&shared, 225, (3, 0));

    let losses = shared.losses.lock().snapshot().remove(0);
    let secs = |ns: i64| ns / 1_000_000_000;
    let told: Vec<_> = losses.windows.iter().map(|w| (&*w.reason, w.from.map(secs), secs(w.until), w.packets)).collect();
    let expected =
        [("kernel_dropped", Some(100), 203, 9), ("hunter_down", Some(203), 220, 0), ("kernel_dropped", Some(220), 225, 3)];
    assert_eq!(told, expected);
}
