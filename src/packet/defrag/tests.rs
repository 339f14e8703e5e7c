use proptest::prelude::*;

use super::*;
use crate::packet::build::{self, ethernet, join, udp, v4, v4_piece, v6, v6_piece};
use crate::packet::headers::{Transport, decode};
use crate::packet::{IpProto, LinkType};

const ETH: LinkType = LinkType::ETHERNET;
const SECOND: i64 = 1_000_000_000;

#[test]
fn puts_three_reordered_fragments_together_and_keeps_the_originals() {
    let body = udp(5060, 5061, &message(100));
    let pieces: Vec<_> = [2, 0, 1].map(|n| piece4(7, &body, n * 40, 40)).into();
    let mut defrag = Defrag::default();

    let mut outcomes: Vec<_> = pieces.iter().map(|p| give(&mut defrag, p, 0)).collect();

    let Outcome::Complete(whole) = outcomes.pop().unwrap() else { panic!("not whole") };
    assert!(outcomes.iter().all(|o| matches!(o, Outcome::Held)));
    assert_eq!((whole.headers.tuple.src.port, whole.headers.transport), (5060, Transport::Udp));
    assert_eq!(whole.payload(), message(100));
    assert_eq!(whole.frames.iter().map(|f| &f.data[..]).collect::<Vec<_>>(), pieces);
    assert_eq!((defrag.bytes(), defrag.trackers(), defrag.counters().completed), (0, 0, 1));
}

#[test]
fn keeps_vlan_and_outer_addresses_and_works_on_cooked_frames() {
    let body = udp(5060, 5061, &message(32));
    let (one, two) = (v4_piece(17, 7, 0, true, &body[..24]), v4_piece(17, 7, 24, false, &body[24..]));
    let tagged = |p: &[u8]| ethernet(0x8100, &join(&[&[0, 9, 8, 0], &v4(4, p)]));
    let cooked = |p: &[u8]| join(&[&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0], p]);

    let mut defrag = Defrag::default();
    give(&mut defrag, &tagged(&one), 0);
    let Outcome::Complete(whole) = give(&mut defrag, &tagged(&two), 0) else { panic!("not whole") };
    assert_eq!((whole.headers.vlan, whole.headers.depth), (Some(9), 1));
    assert_eq!(whole.headers.outer.map(|o| o.proto), Some(IpProto(4)));

    give_as(LinkType::LINUX_SLL, &mut defrag, &cooked(&one), 0);
    let outcome = give_as(LinkType::LINUX_SLL, &mut defrag, &cooked(&two), 0);
    assert!(matches!(outcome, Outcome::Complete(w) if w.payload() == message(32)));
}

#[test]
fn peels_a_tunnel_once_its_fragments_are_together() {
    let inside = ethernet(0x0800, &v4(17, &udp(5060, 5061, b"INVITE")));
    let body = udp(1, 4789, &join(&[&[8, 0, 0, 0, 0, 0, 1, 0], &inside]));
    let mut defrag = Defrag::default();

    give(&mut defrag, &piece4(7, &body, 0, 48), 0);
    let Outcome::Complete(whole) = give(&mut defrag, &piece4(7, &body, 48, 48), 0) else { panic!("not whole") };

    assert_eq!((whole.headers.tuple.src.port, whole.payload()), (5060, &b"INVITE"[..]));
}

#[test]
fn follows_fragments_inside_of_a_fragmented_tunnel() {
    let body = udp(5060, 5061, &message(100));
    let inner = [piece4(7, &body, 0, 56), piece4(7, &body, 56, 56)];
    let mut defrag = Defrag::default();
    let mut outcomes = Vec::new();
    for (id, inner) in (100..).zip(&inner) {
        let carried = join(&[&[0, 0, 0x65, 0x58], inner]);
        outcomes.push(give(&mut defrag, &ethernet(0x0800, &v4_piece(47, id, 0, true, &carried[..40])), 0));
        outcomes.push(give(&mut defrag, &ethernet(0x0800, &v4_piece(47, id, 40, false, &carried[40..])), 0));
    }

    let Some(Outcome::Complete(whole)) = outcomes.pop() else { panic!("not whole") };
    assert_eq!((whole.payload(), whole.frames.len()), (&message(100)[..], 4));
    assert_eq!((defrag.bytes(), defrag.trackers()), (0, 0));
}

#[test]
fn does_not_mix_protocols_or_directions_of_one_identification() {
    let body = message(48);
    let mut defrag = Defrag::default();

    give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 0, true, &body[..24])), 0);
    let other = give(&mut defrag, &ethernet(0x0800, &v4_piece(6, 7, 24, false, &body[24..])), 0);

    assert!(matches!(other, Outcome::Held));
    assert_eq!(defrag.trackers(), 2);
}

#[test]
fn takes_the_protocol_of_the_first_ipv6_piece() {
    let body = udp(5060, 5061, &message(40));
    let mut defrag = Defrag::default();

    give(&mut defrag, &ethernet(0x86dd, &v6_piece(99, 7, 24, false, &body[24..])), 0);
    let outcome = give(&mut defrag, &ethernet(0x86dd, &v6_piece(17, 7, 0, true, &body[..24])), 0);

    assert!(matches!(outcome, Outcome::Complete(w) if w.payload() == message(40) && w.headers.tuple.src.port == 5060));
}

#[test]
fn first_bytes_win_where_ipv4_pieces_overlap() {
    let (good, evil) = (udp(5060, 5061, &[b'a'; 40]), udp(5060, 5061, &[b'b'; 40]));
    let mut defrag = Defrag::default();

    give(&mut defrag, &piece4(7, &good, 16, 16), 0);
    give(&mut defrag, &piece4(7, &evil, 8, 32), 0);
    give(&mut defrag, &piece4(7, &good, 0, 8), 0);
    let Outcome::Complete(whole) = give(&mut defrag, &piece4(7, &good, 40, 8), 0) else { panic!("not whole") };

    assert_eq!(whole.payload(), [&[b'b'; 8][..], &[b'a'; 16], &[b'b'; 8], &[b'a'; 8]].concat());
    assert_eq!((defrag.counters().overlaps_v4, whole.frames.len()), (1, 4));
}

#[test]
fn an_ipv6_overlap_ends_the_datagram() {
    let body = udp(5060, 5061, &message(40));
    let mut defrag = Defrag::default();

    give(&mut defrag, &piece6(7, &body, 0, 24), 0);
    assert!(matches!(give(&mut defrag, &piece6(7, &body, 0, 24), 0), Outcome::Held));
    let overlap = give(&mut defrag, &piece6(7, &body, 16, 16), 0);
    let rest = give(&mut defrag, &piece6(7, &body, 24, 24), 0);

    assert!(matches!(overlap, Outcome::Refused(Refusal::Overlap)));
    assert!(matches!(rest, Outcome::Refused(Refusal::GivenUp)));
    let c = defrag.counters();
    assert_eq!((c.overlaps_v6, c.duplicates, c.frames_given_up, c.given_up, defrag.bytes()), (1, 1, 2, 1, 0));
}

#[test]
fn recognises_a_late_repetition_and_recalls_the_decision() {
    let body = udp(5060, 5061, &message(40));
    let pieces = [piece4(7, &body, 0, 24), piece4(7, &body, 24, 24)];
    let mut defrag = Defrag::default();
    give(&mut defrag, &pieces[0], 0);
    let Outcome::Complete(whole) = give(&mut defrag, &pieces[1], 0) else { panic!("not whole") };
    defrag.remember(whole.key, 42, Timestamp::from_nanos(0));

    let late = give(&mut defrag, &pieces[0], SECOND);
    let reused = give(&mut defrag, &piece4(7, &udp(5060, 5061, &[1; 40]), 0, 24), SECOND);

    assert!(matches!(late, Outcome::Late(key) if defrag.recall(&key, Timestamp::from_nanos(SECOND)) == Some(42)));
    assert!(matches!(reused, Outcome::Held));
    assert_eq!(defrag.recall(&whole.key, Timestamp::from_nanos(31 * SECOND)), None);
}

#[test]
fn remembers_decisions_without_reassembly_within_its_bound() {
    let mut defrag = Defrag::new(Limits { max_trackers: 4, ..Limits::default() });
    let key = |id: u16| {
        let frame = ethernet(0x0800, &v4_piece(17, id, 0, true, &[0; 8]));
        FragmentKey::of(&decode(ETH, &frame, &DecodeOptions::default()).unwrap()).unwrap()
    };
    let now = Timestamp::from_nanos(5);

    for id in 0..1000 {
        defrag.remember(key(id), u64::from(id), now);
        defrag.remember(key(id), u64::from(id) + 1, now);
    }

    assert_eq!((defrag.recall(&key(999), now), defrag.recall(&key(995), now)), (Some(1000), None));
    assert_eq!(defrag.decided.len(), 4);
    defrag.handle_timeout(Timestamp::from_nanos(40 * SECOND));
    assert_eq!(defrag.decided.len(), 0);
}

#[test]
fn refuses_what_belongs_to_no_datagram_and_counts_it() {
    let mut defrag = Defrag::default();
    let body = message(4000);
    let mut cut = piece4(7, &body, 0, 800);
    cut.truncate(500);

    let refused = [
        give(&mut defrag, &cut, 0),
        give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 8, false, b"")), 0),
        give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 8, true, &[0; 9])), 0),
        give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 65_528, false, &[0; 8])), 0),
        give(&mut defrag, &ethernet(0x0800, &v4(17, &udp(1, 2, b"whole"))), 0),
    ];

    assert!(refused.iter().all(|o| matches!(o, Outcome::Refused(_))));
    let c = defrag.counters();
    assert_eq!((c.truncated, c.malformed, c.oversize, defrag.trackers()), (1, 2, 1, 0));
}

#[test]
fn refuses_pieces_behind_the_end() {
    let body = message(64);
    let mut defrag = Defrag::default();

    give(&mut defrag, &piece4(7, &body, 48, 16), 0);
    let behind = give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 64, true, &body[..8])), 0);
    let second_end = give(&mut defrag, &ethernet(0x0800, &v4_piece(17, 7, 16, false, &body[..8])), 0);

    assert!(matches!((behind, second_end), (Outcome::Refused(Refusal::Malformed), Outcome::Refused(Refusal::Malformed))));
}

#[test]
fn a_datagram_of_the_greatest_length_is_whole() {
    for (bytes, link, piece) in [
        (65_515, LinkType::IPV4, (|o, m, b| v4_piece(17, 7, o, m, b)) as fn(usize, bool, &[u8]) -> Vec<u8>),
        (65_535, LinkType::IPV6, |o, m, b| v6_piece(17, 7, o, m, b)),
    ] {
        let body = udp(1, 2, &vec![5; bytes - 8]);
        let mut defrag = Defrag::default();
        let step = 1480;
        let mut last = None;
        for at in (0..body.len()).step_by(step) {
            let end = body.len().min(at + step);
            last = Some(give_as(link, &mut defrag, &piece(at, end < body.len(), &body[at..end]), 0));
        }
        assert!(matches!(last, Some(Outcome::Complete(w)) if w.payload().len() == bytes - 8), "{link:?}");
    }
}

#[test]
fn gives_up_after_the_timeout_and_says_how_many_frames() {
    let body = message(200);
    let mut defrag = Defrag::default();
    give(&mut defrag, &piece4(7, &body, 0, 24), 0);
    give(&mut defrag, &piece4(7, &body, 24, 24), SECOND);
    give(&mut defrag, &piece4(8, &body, 0, 24), 20 * SECOND);

    assert_eq!(defrag.handle_timeout(Timestamp::from_nanos(30 * SECOND)), 0);
    assert_eq!(defrag.handle_timeout(Timestamp::from_nanos(30 * SECOND + 1)), 2);
    assert_eq!((defrag.trackers(), defrag.counters().timed_out), (1, 1));
    give(&mut defrag, &piece4(8, &body, 24, 24), 60 * SECOND);
    assert_eq!((defrag.trackers(), defrag.counters().timed_out, defrag.finish()), (1, 2, 1));
    assert_eq!((defrag.trackers(), defrag.bytes(), defrag.counters().frames_given_up), (0, 0, 4));
}

#[test]
fn stays_within_its_bounds_and_gives_up_the_oldest() {
    let limits = Limits { max_bytes: 64 << 10, max_trackers: 50, ..Limits::default() };
    let mut defrag = Defrag::new(limits);
    let body = message(4000);

    for id in 0..2000 {
        let size = if id % 2 == 0 { 8 } else { 1400 };
        give(&mut defrag, &piece4(id, &body, 0, size), i64::from(id));
        assert!(defrag.bytes() <= limits.max_bytes && defrag.trackers() <= limits.max_trackers);
    }

    let c = defrag.counters();
    assert!(c.evicted_bytes > 0);
    assert_eq!(c.evicted_bytes + c.evicted_trackers, 2000 - u64::try_from(defrag.trackers()).unwrap());
    assert!(matches!(give(&mut defrag, &piece4(1999, &body, 1400, 2600), 2000), Outcome::Complete(_)));
}

#[test]
fn a_flood_of_overlapping_fragments_costs_one_tracker_and_no_memory() {
    let body = message(4000);
    let mut defrag = Defrag::default();

    for n in 0..65_535_usize {
        give(&mut defrag, &piece4(7, &body, n % 400 * 8, 16 + n % 3 * 8), 0);
    }

    let c = defrag.counters();
    assert_eq!((defrag.trackers(), defrag.bytes(), c.too_many), (1, 0, 1));
    assert_eq!((c.given_up, c.frames_given_up), (65_535 - 65, 64));
}

#[test]
fn forgets_completed_datagrams_in_its_order_of_ages() {
    let body = message(48);
    let mut defrag = Defrag::new(Limits { max_trackers: 8, ..Limits::default() });
    give(&mut defrag, &piece4(60_000, &body, 0, 24), 0);

    for id in 0..10_000 {
        give(&mut defrag, &piece4(id, &body, 0, 24), 0);
        give(&mut defrag, &piece4(id, &body, 24, 24), 0);
    }

    assert_eq!((defrag.counters().completed, defrag.trackers()), (10_000, 1));
    assert!(matches!(give(&mut defrag, &piece4(60_000, &body, 24, 24), 0), Outcome::Complete(_)));
}

proptest! {
    #[test]
    fn any_order_and_repetition_gives_the_same_datagram(
        six in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 100..3000),
        cuts in prop::collection::vec(1_usize..13, 2..20),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        seed in any::<u64>(),
    ) {
        let body = udp(5060, 5061, &payload);
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().chain([&10_000]) {
            let len = (cut * 8).min(body.len() - at);
            if len > 0 {
                pieces.push(if six { piece6(7, &body, at, len) } else { piece4(7, &body, at, len) });
                at += len;
            }
        }
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.extend(repeats.iter().map(|r| r.index(pieces.len())));
        shuffle(&mut order, seed);
        let mut defrag = Defrag::default();

        let mut whole = None;
        let mut before = Vec::new();
        for n in &order {
            before.push(pieces[*n].clone());
            match give(&mut defrag, &pieces[*n], 0) {
                Outcome::Held => prop_assert!(whole.is_none()),
                Outcome::Complete(w) => {
                    prop_assert!(whole.is_none());
                    prop_assert_eq!(w.frames.iter().map(|f| f.data.to_vec()).collect::<Vec<_>>(), before.clone());
                    whole = Some(w);
                }
                Outcome::Late(key) => prop_assert_eq!(Some(key), whole.as_ref().map(|w| w.key)),
                Outcome::Refused(why) => prop_assert!(false, "{:?}", why),
            }
        }

        let whole = whole.unwrap();
        prop_assert_eq!(whole.payload(), &payload[..]);
        let unfragmented = if six { ethernet(0x86dd, &v6(17, &body)) } else { ethernet(0x0800, &v4(17, &body)) };
        let plain = decode(ETH, &unfragmented, &DecodeOptions::default()).unwrap();
        prop_assert_eq!((whole.headers.tuple, whole.headers.transport), (plain.tuple, plain.transport));
        prop_assert_eq!(defrag.bytes(), 0);
    }

    #[test]
    fn any_fragments_keep_the_books_right(
        pieces in prop::collection::vec((any::<bool>(), 0_u16..4, 0_usize..30, 1_usize..80, any::<bool>(), 0_i64..50), 1..200),
        max_bytes in 100_usize..20_000,
    ) {
        let limits = Limits { max_bytes, max_trackers: 5, max_fragments: 12, ..Limits::default() };
        let mut defrag = Defrag::new(limits);
        let (mut given, mut refused, mut out) = (0_u64, 0, 0);

        for (six, id, offset, len, more, at) in pieces {
            let body = message(len);
            let packet = if six { v6_piece(17, u32::from(id), offset * 8, more, &body) } else { v4_piece(17, id, offset * 8, more, &body) };
            let frame = ethernet(if six { 0x86dd } else { 0x0800 }, &packet);
            given += 1;
            match give(&mut defrag, &frame, at * SECOND) {
                Outcome::Held => {}
                Outcome::Complete(w) => out += u64::try_from(w.frames.len()).unwrap(),
                Outcome::Late(_) | Outcome::Refused(_) => refused += 1,
            }
            prop_assert!(defrag.bytes() <= max_bytes && defrag.trackers() <= limits.max_trackers);
        }

        defrag.finish();
        prop_assert_eq!(defrag.bytes(), 0);
        prop_assert_eq!(given, refused + out + defrag.counters().frames_given_up);
    }
}

fn give(defrag: &mut Defrag, data: &[u8], nanos: i64) -> Outcome {
    give_as(ETH, defrag, data, nanos)
}

fn give_as(link: LinkType, defrag: &mut Defrag, data: &[u8], nanos: i64) -> Outcome {
    let options = DecodeOptions::default();
    defrag.handle_fragment(&build::frame(link, data, nanos), &decode(link, data, &options).unwrap(), &options)
}

fn message(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// The piece of `body` at `at`, in IPv4.
fn piece4(id: u16, body: &[u8], at: usize, len: usize) -> Vec<u8> {
    let end = body.len().min(at + len);
    ethernet(0x0800, &v4_piece(17, id, at, end < body.len(), &body[at..end]))
}

fn piece6(id: u32, body: &[u8], at: usize, len: usize) -> Vec<u8> {
    let end = body.len().min(at + len);
    ethernet(0x86dd, &v6_piece(17, id, at, end < body.len(), &body[at..end]))
}

fn shuffle(order: &mut [usize], mut seed: u64) {
    for n in (1..order.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(n, usize::try_from(seed >> 33).unwrap() % (n + 1));
    }
}
