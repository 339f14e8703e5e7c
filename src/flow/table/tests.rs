use super::*;
use crate::packet::{Endpoint, FiveTuple, Ip};
use proptest::prelude::*;
use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;

fn table(initial_slots: usize, max_flows: usize) -> FlowTable<[u32; 4]> {
    FlowTable::new(FlowHasher::new([7, 9]), TableLimits { initial_slots, max_flows }, IdleLimits::default())
}

fn key(n: u32) -> FlowKey {
    key_of(n, IpProto::UDP)
}

fn key_of(n: u32, proto: IpProto) -> FlowKey {
    let [b0, b1, b2, b3] = n.to_be_bytes();
    let src = Endpoint { ip: Ip::v4([10, b0, b1, b2]), port: 10_000 + u16::from(b3) };
    let dst = Endpoint { ip: Ip::v4([192, 168, 0, 1]), port: 5060 };
    FlowKey::new(&FiveTuple { src, dst, proto }).0
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

/// A packet of flow `n` each way: somebody has answered.
fn talk(t: &mut FlowTable<[u32; 4]>, n: u32, proto: IpProto, now: i64) {
    let k = key_of(n, proto);
    for side in [Side::Low, Side::High] {
        let lookup = t.lookup(&k);
        t.entry(&k, side, lookup, at(now));
    }
}

/// One packet of flow `n`; whether it was new.
fn knock(t: &mut FlowTable<[u32; 4]>, n: u32, proto: IpProto, now: i64) -> bool {
    let k = key_of(n, proto);
    let lookup = t.lookup(&k);
    t.entry(&k, Side::Low, lookup, at(now)).is_new
}

fn has(t: &FlowTable<[u32; 4]>, n: u32, proto: IpProto, now: i64) -> bool {
    let k = key_of(n, proto);
    t.get(&k, t.lookup(&k), at(now)).is_some()
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

    assert_eq!(t.counters(), TableCounters { live: 262_144, ..TableCounters::default() });
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
    assert_eq!(t.counters(), TableCounters { live: 1, expired: 1, ..TableCounters::default() });
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
    assert_eq!(t.counters(), TableCounters { live: 40, expired: 60, ..TableCounters::default() });
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

#[test]
fn a_flood_of_udp_flows_evicts_no_established_tcp_flow_and_the_other_way_round() {
    for (here, flood) in [(IpProto::TCP, IpProto::UDP), (IpProto::UDP, IpProto::TCP)] {
        let mut t = table(256, 192);
        for n in 0..60 {
            talk(&mut t, n, here, i64::from(n));
        }

        for n in 1000..100_000 {
            knock(&mut t, n, flood, i64::from(n));
        }

        assert!(t.counters().evicted > 90_000);
        assert!((0..60).all(|n| has(&t, n, here, SECOND)), "{here:?}");
    }
}

#[test]
fn where_no_flow_of_its_class_could_go_for_it_a_new_one_takes_the_place_of_any() {
    let mut t = table(16, 12);
    for n in 0..16 {
        talk(&mut t, n, IpProto::UDP, i64::from(n));
    }

    assert!(knock(&mut t, 99, IpProto::TCP, 100) && has(&t, 99, IpProto::TCP, 100));

    assert_eq!((0..16).filter(|n| !has(&t, *n, IpProto::UDP, 100)).collect::<Vec<_>>(), [0]);
}

#[test]
fn one_way_flows_go_before_answered_ones_and_of_each_the_one_silent_for_longest() {
    let mut t = table(16, 12);
    for n in 0..12 {
        talk(&mut t, n, IpProto::UDP, i64::from(n));
    }
    for n in 12..16 {
        knock(&mut t, n, IpProto::UDP, i64::from(100 + n));
    }
    let gone = |t: &FlowTable<_>| (0..16).filter(|n| !has(t, *n, IpProto::UDP, 1000)).collect::<Vec<_>>();

    talk(&mut t, 20, IpProto::UDP, 200);
    talk(&mut t, 21, IpProto::UDP, 201);
    assert_eq!(gone(&t), [12, 13]);
    talk(&mut t, 22, IpProto::UDP, 202);
    talk(&mut t, 23, IpProto::UDP, 203);
    assert_eq!(gone(&t), [12, 13, 14, 15]);
    talk(&mut t, 24, IpProto::UDP, 204);
    assert_eq!(gone(&t), [0, 12, 13, 14, 15]);
    for n in 1000..10_000 {
        knock(&mut t, n, IpProto::UDP, i64::from(n));
    }
    assert_eq!(gone(&t), [0, 1, 12, 13, 14, 15], "a flood of flows that nobody answers takes its own places");
}

#[test]
fn a_flow_past_its_idle_limit_goes_before_all_others_and_is_not_counted_as_evicted() {
    let mut t = table(16, 12);
    talk(&mut t, 0, IpProto::TCP, 0);
    for n in 1..16 {
        knock(&mut t, n, IpProto::UDP, 100 * SECOND);
    }

    let victim = t.victim(t.lookup(&key(99)).hash, IpProto::UDP, at(101 * SECOND));
    assert_eq!(t.slots[victim].key.proto(), IpProto::TCP);
    assert!(knock(&mut t, 99, IpProto::UDP, 101 * SECOND));

    assert!((1..16).all(|n| has(&t, n, IpProto::UDP, 101 * SECOND)));
    assert_eq!(t.counters(), TableCounters { live: 16, hurried: 1, ..TableCounters::default() });
}

#[test]
fn an_expired_flow_that_begins_again_has_not_been_answered() {
    let mut t = table(16, 12);
    for n in 0..16 {
        talk(&mut t, n, IpProto::UDP, 0);
    }
    for n in 0..16 {
        knock(&mut t, n, IpProto::UDP, 400 * SECOND);
    }
    for n in 1..16 {
        talk(&mut t, n, IpProto::UDP, 399 * SECOND);
    }

    knock(&mut t, 99, IpProto::UDP, 401 * SECOND);

    assert!(!has(&t, 0, IpProto::UDP, 401 * SECOND));
}

#[test]
fn in_an_emergency_idle_limits_are_a_sixth_and_are_back_afterwards() {
    let mut t = table(64, 100);
    for (proto, usual) in [(IpProto::UDP, 300), (IpProto::TCP, 600)] {
        t.set_short(true);
        assert!(t.is_emergency());
        knock(&mut t, 1, proto, 0);
        assert!(has(&t, 1, proto, usual * SECOND / 6) && !has(&t, 1, proto, usual * SECOND / 6 + 1));
        t.set_short(false);
        assert!(!t.is_emergency());
        assert!(has(&t, 1, proto, usual * SECOND) && !has(&t, 1, proto, usual * SECOND + 1));
    }
    knock(&mut t, 1, IpProto::TCP, 0);
    t.set_short(true);

    assert!(knock(&mut t, 1, IpProto::UDP, 51 * SECOND) && !knock(&mut t, 1, IpProto::TCP, 51 * SECOND));
    t.expire(at(152 * SECOND), usize::MAX, |_, _| ());
    assert_eq!(t.counters(), TableCounters { hurried: 3, ..TableCounters::default() });
    knock(&mut t, 1, IpProto::TCP, 0);
    assert!(knock(&mut t, 1, IpProto::TCP, 601 * SECOND));
    assert_eq!((t.counters().expired, t.counters().hurried), (1, 3), "it would have been idle in any case");
}

#[test]
fn an_emergency_begins_at_nine_tenths_and_lasts_until_there_are_less_than_eight() {
    let mut t = table(256, 100);
    for n in 0..90 {
        assert!(!t.is_emergency(), "{n}");
        see(&mut t, n, 0);
    }

    for n in 0..11 {
        assert!(t.is_emergency() && !has(&t, 89, IpProto::UDP, 60 * SECOND), "{n}");
        let lookup = t.lookup(&key(n));
        t.remove(&key(n), lookup);
    }
    for n in 0..11 {
        assert!(!t.is_emergency() && has(&t, 89, IpProto::UDP, 60 * SECOND), "{n}");
        see(&mut t, n, 0);
    }
    assert!(t.is_emergency());
    t.expire(at(60 * SECOND), usize::MAX, |_, _| ());
    assert_eq!((t.is_emergency(), t.counters().live, t.counters().hurried), (false, 0, 90));
}

#[test]
fn flows_long_idle_make_room_for_new_ones_without_an_emergency() {
    let mut t = table(16, 1000);
    for n in 0..850 {
        see(&mut t, n, 0);
    }

    for n in 1000..5000 {
        see(&mut t, n, i64::from(n) * SECOND);
        assert!(!t.is_emergency(), "{n}: {:?}", t.counters());
    }

    let c = t.counters();
    assert_eq!((c.evicted, c.hurried, c.live + c.expired), (0, 0, 4850));
}

/// What a flood leaves behind in a table: who went for whom, and the counters.
fn flood(packets: &[(u32, bool, bool, i64)]) -> (Vec<Option<[u32; 4]>>, TableCounters) {
    let mut t = table(8, 48);
    let mut now = 0;
    let displaced = packets.iter().map(|&(n, tcp, back, dt)| {
        now += dt;
        let k = key_of(n, if tcp { IpProto::TCP } else { IpProto::UDP });
        let lookup = t.lookup(&k);
        let e = t.entry(&k, if back { Side::High } else { Side::Low }, lookup, at(now));
        *e.value = [n; 4];
        e.displaced
    });
    (displaced.collect(), t.counters())
}

proptest! {
    #[test]
    fn the_same_packets_forget_the_same_flows(
        packets in prop::collection::vec((0u32..500, any::<bool>(), any::<bool>(), 0i64..4 * SECOND), 1..2000),
    ) {
        let (displaced, counters) = flood(&packets);
        prop_assert_eq!(flood(&packets), (displaced, counters));
        prop_assert!(counters.live <= 64);
    }

    #[test]
    fn agrees_with_a_hash_map_while_nothing_is_evicted(
        ops in prop::collection::vec((0u32..400, 0u8..8, 0i64..40 * SECOND), 1..600),
    ) {
        // never nine tenths of what it may hold
        let mut t = table(8, 500);
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
