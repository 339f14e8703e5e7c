use super::*;
use crate::packet::{Endpoint, FiveTuple, Ip};
use proptest::prelude::*;
use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;

fn table(initial_slots: usize, max_flows: usize) -> FlowTable<[u32; 4]> {
    FlowTable::new(FlowHasher::new([7, 9]), TableLimits { initial_slots, max_flows }, IdleLimits::default())
}

fn key(n: u32) -> FlowKey {
    let [b0, b1, b2, b3] = n.to_be_bytes();
    let src = Endpoint { ip: Ip::v4([10, b0, b1, b2]), port: 10_000 + u16::from(b3) };
    let dst = Endpoint { ip: Ip::v4([192, 168, 0, 1]), port: 5060 };
    FlowKey::new(&FiveTuple { src, dst, proto: IpProto::UDP }).0
}

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// Sees flow `n`: whether it was new, and what was displaced.
fn see(t: &mut FlowTable<[u32; 4]>, n: u32, now: i64) -> (bool, Option<[u32; 4]>) {
    let k = key(n);
    let lookup = t.lookup(&k);
    let e = t.entry(&k, Side::Low, lookup, at(now));
    if e.is_new {
        assert_eq!(*e.value, [0; 4]);
        *e.value = [n; 4];
    } else {
        assert_eq!(*e.value, [n; 4]);
    }
    (e.is_new, e.displaced)
}

#[test]
fn remembers_a_flow_and_who_began_it() {
    let mut t = table(64, 1000);
    let k = key(1);
    let lookup = t.lookup(&k);
    *t.entry(&k, Side::High, lookup, at(5)).value = [42; 4];

    let e = t.entry(&k, Side::Low, lookup, at(9));

    assert_eq!((*e.value, e.is_new, e.last_seen), ([42; 4], false, at(5)));
    assert_eq!((e.first_side, e.direction), (Side::High, Direction::Responder));
    assert_eq!(t.entry(&k, Side::High, lookup, at(3)).last_seen, at(9));
    assert_eq!(t.entry(&k, Side::High, lookup, at(9)).last_seen, at(9), "time does not go back");
}

#[test]
fn grows_from_small_to_its_limit_without_losing_a_flow() {
    let mut t = table(64, 262_144);
    assert!(t.bytes() < 8192);

    for n in 0..262_144 {
        assert!(see(&mut t, n, 0).0);
    }

    assert_eq!(t.counters(), TableCounters { live: 262_144, evicted: 0, expired: 0 });
    assert!((0..262_144).all(|n| !see(&mut t, n, 1).0));
    assert!(t.bytes() <= 33 << 20, "{}", t.bytes());
}

#[test]
fn the_least_recently_seen_goes_when_there_is_no_room_and_is_handed_back() {
    let mut t = table(16, 12);
    for n in 0..16 {
        see(&mut t, n, i64::from(n));
    }
    let evicted_before = t.counters().evicted;

    let (is_new, displaced) = see(&mut t, 99, 100);

    assert!(is_new);
    assert_eq!(t.counters().live + t.counters().evicted, 17);
    assert_eq!(displaced.is_some(), t.counters().evicted > evicted_before);
    for n in 100..10_000 {
        assert!(see(&mut t, n, i64::from(n)).0);
        assert!(!see(&mut t, n, i64::from(n)).0, "the newest flow is never the victim");
    }
    assert_eq!(t.counters().live, 16);
}

#[test]
fn an_idle_flow_is_new_again_and_its_value_comes_back() {
    let mut t = table(64, 100);
    see(&mut t, 1, 0);

    assert!(!see(&mut t, 1, 300 * SECOND).0, "at the limit it still lives");
    assert_eq!(see(&mut t, 1, 601 * SECOND), (true, Some([1; 4])));
    assert_eq!(t.counters(), TableCounters { live: 1, evicted: 0, expired: 1 });
    let lookup = t.lookup(&key(1));
    assert!(t.get(&key(1), lookup, at(700 * SECOND)).is_some());
    assert!(t.get(&key(1), lookup, at(1000 * SECOND)).is_none());
}

#[test]
fn the_sweep_hands_over_what_is_idle_and_nothing_else() {
    let mut t = table(1024, 1000);
    for n in 0..100 {
        see(&mut t, n, if n < 60 { 0 } else { 200 * SECOND });
    }
    let mut gone = Vec::new();

    for _ in 0..16 {
        t.expire(at(400 * SECOND), 8, |_, v| gone.push(v[0]));
    }

    gone.sort_unstable();
    assert_eq!(gone, (0..60).collect::<Vec<_>>());
    assert_eq!(t.counters(), TableCounters { live: 40, evicted: 0, expired: 60 });
}

#[test]
fn a_removed_flow_is_gone_and_its_slot_is_used_again() {
    let mut t = table(8, 6);
    see(&mut t, 1, 0);
    let lookup = t.lookup(&key(1));

    assert_eq!(t.remove(&key(1), lookup), Some([1; 4]));
    assert_eq!(t.remove(&key(1), lookup), None);
    assert!(t.get(&key(1), lookup, at(0)).is_none());
    assert_eq!(t.counters().live, 0);
    assert!(see(&mut t, 1, 1).0);
}

#[test]
fn an_empty_slot_never_matches_the_key_of_all_zeroes() {
    let mut t = table(64, 100);
    let zero = FlowKey::default();
    let lookup = t.lookup(&zero);

    assert!(t.get(&zero, lookup, at(0)).is_none());
    assert!(t.entry(&zero, Side::Low, lookup, at(0)).is_new);
    assert!(!t.entry(&zero, Side::Low, lookup, at(0)).is_new);
}

proptest! {
    #[test]
    fn agrees_with_a_hash_map_while_nothing_is_evicted(
        ops in prop::collection::vec((0u32..400, 0u8..8, 0i64..40 * SECOND), 1..600),
    ) {
        let mut t = table(8, 400);
        let mut model: HashMap<u32, i64> = HashMap::new();
        let mut now = 0;
        for (n, op, dt) in ops {
            now += dt;
            let fresh = model.get(&n).is_some_and(|&seen| now - seen <= 300 * SECOND);
            if op == 0 {
                let lookup = t.lookup(&key(n));
                prop_assert_eq!(t.remove(&key(n), lookup).is_some(), model.remove(&n).is_some());
            } else if op == 1 {
                t.expire(at(now), usize::MAX, |_, _| ());
                model.retain(|_, seen| now - *seen <= 300 * SECOND);
            } else {
                let (is_new, displaced) = see(&mut t, n, now);
                prop_assert_eq!(is_new, !fresh);
                prop_assert_eq!(displaced.is_some(), !fresh && model.contains_key(&n));
                model.insert(n, now);
            }
            prop_assert_eq!(t.counters().evicted, 0);
            prop_assert_eq!(t.counters().live, model.len() as u64);
        }
    }
}
