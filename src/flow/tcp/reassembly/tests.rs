use super::*;
use crate::flow::tcp::TcpCounters;
use proptest::prelude::*;

const F: u64 = FIRST_OFFSET;

fn fresh() -> Reassembly {
    Reassembly::new(&Budget::default(), TcpLimits::default())
}

/// After a SYN with initial sequence number 999: the first byte has number 1000.
fn open() -> Reassembly {
    let mut r = fresh();
    assert_eq!(r.insert(999, true, false, b"").kind, Kind::Empty);
    r
}

fn put(r: &mut Reassembly, seq: u32, payload: &[u8]) -> Kind {
    r.insert(seq, false, false, payload).kind
}

fn text(r: &Reassembly) -> &str {
    std::str::from_utf8(r.readable().1).unwrap()
}

#[test]
fn in_order_segments_are_read_at_once() {
    let mut r = open();

    assert_eq!(r.insert(1000, false, false, b"INVITE "), Placement { range: F..F + 7, kind: Kind::New });
    assert_eq!(r.insert(1007, false, false, b"sip:"), Placement { range: F + 7..F + 11, kind: Kind::New });
    assert_eq!(r.readable(), (F, b"INVITE sip:".as_slice()));
    r.consume(7);
    assert_eq!(r.readable(), (F + 7, b"sip:".as_slice()));
    r.consume(99);
    assert_eq!(r.readable(), (F + 11, b"".as_slice()));
}

#[test]
fn a_hole_waits_and_is_filled() {
    let mut r = open();

    assert_eq!(put(&mut r, 1003, b"def"), Kind::OutOfOrder);
    assert_eq!(put(&mut r, 1008, b"i"), Kind::OutOfOrder);
    assert_eq!(r.gap(), Some(Gap { missing: 3, acked: false }));
    assert_eq!(put(&mut r, 1000, b"abc"), Kind::New);
    assert_eq!(text(&r), "abcdef");
    assert_eq!(put(&mut r, 1005, b"fgh"), Kind::PartlyNew);
    assert_eq!(text(&r), "abcdefghi");
    assert_eq!(r.gap(), None);
}

#[test]
fn the_first_bytes_received_win_and_conflicts_are_counted() {
    let mut r = open();
    put(&mut r, 1000, b"abc");
    put(&mut r, 1005, b"fg");

    assert_eq!(put(&mut r, 1001, b"BC"), Kind::Retransmission);
    assert_eq!(put(&mut r, 1002, b"cdeFGh"), Kind::PartlyNew);

    assert_eq!(text(&r), "abcdefgh");
    assert_eq!(r.budget.counters().conflicts, 2);
    assert_eq!(put(&mut r, 1000, b"abcdefgh"), Kind::Retransmission);
    assert_eq!(r.budget.counters().conflicts, 2);
}

#[test]
fn a_segment_over_several_islands_fills_only_the_holes() {
    let mut r = open();
    put(&mut r, 1002, b"C");
    put(&mut r, 1004, b"E");
    put(&mut r, 1008, b"I");

    assert_eq!(r.insert(1000, false, false, b"abcdefghij"), Placement { range: F..F + 10, kind: Kind::PartlyNew });

    assert_eq!(text(&r), "abCdEfghIj");
}

#[test]
fn retransmitted_syn_and_syn_with_data_change_nothing() {
    let mut r = fresh();
    assert_eq!(r.insert(999, true, false, b"abc"), Placement { range: F..F + 3, kind: Kind::New });
    assert_eq!(r.insert(999, true, false, b"abc").kind, Kind::Retransmission);
    assert_eq!(r.insert(999, true, false, b"").kind, Kind::Empty);
    assert_eq!(put(&mut r, 1003, b"d"), Kind::New);
    assert_eq!(text(&r), "abcd");
}

#[test]
fn sequence_numbers_wrap() {
    let mut r = fresh();
    r.insert(0xffff_fffc, true, false, b"");

    assert_eq!(put(&mut r, 2, b"fgh"), Kind::OutOfOrder);
    assert_eq!(put(&mut r, 0xffff_fffd, b"abcde"), Kind::New);
    assert_eq!(r.readable(), (F, b"abcdefgh".as_slice()));
}

#[test]
fn joins_in_mid_stream_and_takes_what_comes_late_from_before() {
    let mut r = fresh();
    assert_eq!(put(&mut r, 5000, b"ghi"), Kind::New);
    assert_eq!(r.insert(4997, false, false, b"def"), Placement { range: F - 3..F, kind: Kind::New });
    assert_eq!(r.readable(), (F - 3, b"defghi".as_slice()));
    assert_eq!(put(&mut r, 4990, b"xy"), Kind::New);
    assert_eq!(r.gap(), Some(Gap { missing: 5, acked: false }));
    assert_eq!(r.insert(4989, true, false, b"").kind, Kind::Empty);
    assert_eq!(put(&mut r, 4992, b"12345"), Kind::New);
    assert_eq!(text(&r), "xy12345defghi");

    r.consume(1);

    assert_eq!(put(&mut r, 4988, b"too late"), Kind::Retransmission);
    assert_eq!(text(&r), "y12345defghi");
}

#[test]
fn a_syn_that_comes_after_its_data_sets_the_beginning() {
    let mut r = fresh();
    put(&mut r, 1003, b"def");
    assert_eq!(r.insert(999, true, false, b"").kind, Kind::Empty);
    assert_eq!(r.gap(), Some(Gap { missing: 3, acked: false }));
    put(&mut r, 1000, b"abc");
    assert_eq!(text(&r), "abcdef");
}

#[test]
fn keep_alive_probes_cover_nothing() {
    let mut r = fresh();
    assert_eq!(put(&mut r, 999, b"\0"), Kind::Empty, "as the first thing seen of a stream");
    assert_eq!(put(&mut r, 1000, b"abc"), Kind::New);
    assert_eq!(r.insert(1002, false, false, b"\0"), Placement { range: F + 3..F + 3, kind: Kind::Empty });
    assert_eq!(put(&mut r, 1002, b""), Kind::Empty);
    assert_eq!(put(&mut r, 1003, b"d"), Kind::New);
    assert_eq!(text(&r), "abcd");
    assert_eq!(r.budget.counters(), TcpCounters::default());
}

#[test]
fn an_acknowledged_hole_says_so_and_can_be_skipped() {
    let mut r = open();
    put(&mut r, 1000, b"half a mess");
    put(&mut r, 1500, b"next");
    assert!(!r.handle_ack(1011));
    assert!(!r.handle_ack(1499));
    assert!(!r.handle_ack(0x7000_0000), "far outside the window");

    assert!(r.handle_ack(1504));

    assert_eq!(r.gap(), Some(Gap { missing: 489, acked: true }));
    assert_eq!(r.skip_gap(), 489);
    assert_eq!(r.readable(), (F + 500, b"next".as_slice()));
    assert_eq!(r.skip_gap(), 0);
    assert_eq!(put(&mut r, 1100, b"late"), Kind::Retransmission);
    let counters = r.budget.counters();
    assert_eq!((counters.missing_bytes, counters.discarded_bytes), (489, 11));
}

#[test]
fn closes_when_everything_up_to_the_fin_is_here() {
    let mut r = open();
    r.insert(1003, false, true, b"def");
    assert!(!r.is_closed());
    put(&mut r, 1000, b"abc");
    assert!(r.is_closed());
    assert_eq!(text(&r), "abcdef");
}

#[test]
fn a_fin_or_reset_that_data_outlives_was_none() {
    let mut r = open();
    r.insert(1000, false, true, b"");
    r.handle_reset(1000);
    assert!(r.is_closed());
    put(&mut r, 1000, b"abc");
    assert!(!r.is_closed());
    r.handle_reset(0x6000_0000);
    assert!(!r.is_closed(), "outside the window");
    r.handle_reset(1003);
    assert!(r.is_closed());
}

#[test]
fn a_new_connection_on_the_same_ports_begins_again() {
    let mut r = open();
    r.insert(1000, false, true, b"old");
    r.consume(3);

    assert_eq!(r.insert(77_777_776, true, false, b"").kind, Kind::Empty);
    assert_eq!(r.insert(77_777_777, false, false, b"new"), Placement { range: F + 3..F + 6, kind: Kind::New });
    assert_eq!(r.readable(), (F + 3, b"new".as_slice()));
}

#[test]
fn a_forged_syn_does_not_move_a_live_stream_but_its_own_data_does() {
    let mut r = open();
    put(&mut r, 1000, b"abc");

    r.insert(5_000_000, true, false, b"");
    assert_eq!(put(&mut r, 1003, b"def"), Kind::New);
    assert_eq!(put(&mut r, 9_000_001, b"x"), Kind::OutOfWindow);
    assert_eq!(text(&r), "abcdef");

    r.insert(9_000_000, true, false, b"");
    let placed = r.insert(9_000_001, false, false, b"new");
    assert_eq!(placed, Placement { range: F + 7..F + 10, kind: Kind::OutOfOrder });
    assert_eq!(r.gap(), Some(Gap { missing: 1, acked: true }), "the unread end of the old stream stays apart");
    r.skip_gap();
    assert_eq!(text(&r), "new");
}

#[test]
fn a_stream_that_is_really_elsewhere_is_followed_after_three_segments() {
    for far in [1000 + (5 << 20), 1000u32.wrapping_sub(3 << 20)] {
        let mut r = open();
        put(&mut r, 1000, b"abc");
        r.consume(3);
        assert_eq!(put(&mut r, far, b"123"), Kind::OutOfWindow);
        assert_eq!(put(&mut r, far.wrapping_add(3), b"456"), Kind::OutOfWindow);
        let placed = r.insert(far.wrapping_add(6), false, false, b"789");
        assert_eq!(placed.kind, Kind::OutOfOrder);
        assert!(r.gap().is_some_and(|g| g.acked));
        r.skip_gap();
        assert_eq!(r.readable(), (placed.range.start, b"789".as_slice()));
        assert_eq!(put(&mut r, far.wrapping_add(9), b"0"), Kind::New);
        assert_eq!(r.budget.counters().restarts, 1);
        assert_eq!(r.budget.counters().refused_bytes, 6);
    }
}

#[test]
fn holes_are_limited_and_what_does_not_fit_is_counted() {
    let mut r = open();
    for i in 0..100 {
        let kind = put(&mut r, 1010 + i * 10, b"xy");
        assert_eq!(kind, if i < 64 { Kind::OutOfOrder } else { Kind::OutOfWindow });
    }
    assert_eq!(r.budget.counters().refused_bytes, 72);
    assert_eq!(put(&mut r, 1012, b"z"), Kind::OutOfOrder, "what continues an island needs no new one");
    assert_eq!(put(&mut r, 1000, b"0123456789"), Kind::New, "what fills the first hole is always taken");
    assert_eq!(text(&r), "0123456789xyz");
}

#[test]
fn reaching_back_again_and_again_adds_no_more_holes_than_allowed() {
    let mut r = Reassembly::new(&Budget::default(), TcpLimits { max_islands: 8, ..TcpLimits::default() });
    put(&mut r, 3000, b"first");
    for i in 0..8 {
        put(&mut r, 4000 + 10 * i, b"x");
    }
    for i in 1..8 {
        put(&mut r, 3000 - 10 * i, b"ab");
    }
    assert_eq!((r.islands.len(), text(&r)), (8, "first"));
}

#[test]
fn gives_up_when_nobody_reads_and_can_be_resumed() {
    let budget = Budget::default();
    let mut r = Reassembly::new(&budget, TcpLimits { max_bytes: 100, ..TcpLimits::default() });
    r.insert(999, true, false, &[b'a'; 60]);
    assert_eq!(put(&mut r, 1060, &[b'b'; 60]), Kind::GivenUp);
    assert!(r.has_given_up());
    assert_eq!((budget.used(), budget.counters().given_up), (0, 1));
    assert_eq!(put(&mut r, 1120, b"cc"), Kind::GivenUp);

    r.resume();

    assert_eq!(put(&mut r, 1122, b"dd"), Kind::OutOfOrder);
    assert_eq!(r.skip_gap(), 62, "60 refused and 2 never seen");
    assert_eq!(text(&r), "dd");
}

#[test]
fn the_account_is_shared_and_given_back() {
    let budget = Budget::new(4096);
    let mut one = Reassembly::new(&budget, TcpLimits::default());
    let mut two = Reassembly::new(&budget, TcpLimits::default());
    one.insert(0, true, false, &[1; 3000]);
    assert_eq!(two.insert(0, true, false, &[2; 3000]).kind, Kind::GivenUp);
    assert!(two.has_given_up());
    assert!(budget.used() >= 3000);

    one.consume(3000);
    assert_eq!(budget.used(), 0, "an empty direction holds nothing large");
    one.insert(3001, false, false, &[1; 3000]);
    drop((one, two));
    assert_eq!(budget.used(), 0);
}

/// Bytes moved per byte received: a bound that does not depend on how many there are.
#[test]
fn work_is_linear_in_what_is_received_whatever_the_order() {
    type Order = fn(u32, u32) -> u32;
    let orders: [(&str, Order); 4] = [
        ("in order", |i, _| i),
        ("backwards", |i, n| n - 1 - i),
        ("even, then odd", |i, n| if i < n / 2 { i * 2 } else { (i - n / 2) * 2 + 1 }),
        ("every 61st", |i, n| (i * 61) % n),
    ];
    for (name, order) in orders {
        for n in [1u32 << 12, 1 << 16] {
            let mut r = fresh();
            r.insert(999, true, false, b"");
            let mut sent = 0;
            for round in 0..2 {
                for i in 0..n {
                    sent += 8;
                    put(&mut r, 1000 + 8 * order(i, n), &[7; 8]);
                    if round == 0 && i % 7 == 0 {
                        r.consume(3);
                    }
                }
            }
            assert!(r.moved <= 4 * sent, "{name}: {} bytes moved for {sent}", r.moved);
        }
    }
}

#[test]
fn reading_byte_by_byte_is_linear() {
    let mut r = open();
    let n = 1 << 19;
    for i in 0..n / 1024 {
        put(&mut r, 1000 + i * 1024, &[7; 1024]);
    }
    for _ in 0..n {
        r.consume(1);
    }
    assert_eq!(r.readable(), (F + u64::from(n), b"".as_slice()));
    assert!(r.moved <= 3 * usize::try_from(n).unwrap(), "{}", r.moved);
}

fn stream() -> Vec<u8> {
    (0..2000u32).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

proptest! {
    #[test]
    fn any_order_duplication_and_overlap_gives_the_same_bytes(
        isn: u32,
        cuts in prop::collection::vec((0usize..2000, 0usize..60), 1..60),
        shuffle in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        reads in prop::collection::vec(0usize..40, 0..60),
    ) {
        let stream = stream();
        let mut segments: Vec<(usize, usize)> = (0..40).map(|i| (i * 50, i * 50 + 50)).collect();
        segments.extend(cuts.iter().map(|&(from, n)| (from, (from + n).min(2000))));
        for (i, with) in shuffle.iter().enumerate() {
            let j = with.index(segments.len());
            let i = i % segments.len();
            segments.swap(i, j);
        }
        let mut r = Reassembly::new(&Budget::default(), TcpLimits { max_islands: 128, ..TcpLimits::default() });
        r.insert(isn, true, false, b"");
        let mut reads = reads.into_iter().cycle();
        let mut read = Vec::new();
        for (from, to) in segments {
            let seq = isn.wrapping_add(1).wrapping_add(u32::try_from(from).unwrap());
            let placed = r.insert(seq, false, to == 2000, &stream[from..to]);
            if placed.kind != Kind::Empty {
                prop_assert_eq!(placed.range, F + from as u64..F + to as u64);
            }
            let (offset, bytes) = r.readable();
            prop_assert_eq!(offset, F + read.len() as u64);
            let n = reads.next().unwrap_or(0).min(bytes.len());
            read.extend_from_slice(&bytes[..n]);
            r.consume(n);
        }
        read.extend_from_slice(r.readable().1);
        prop_assert!(read == stream);
        prop_assert!(r.is_closed());
        prop_assert_eq!(r.budget.counters(), TcpCounters::default());
    }

    #[test]
    fn joining_anywhere_keeps_the_bytes_from_there(isn: u32, from in 0usize..1990, seed: u8) {
        let stream = stream();
        let mut r = fresh();
        let mut at = from;
        let mut step = usize::from(seed % 37) + 2;
        while at < stream.len() {
            let to = (at + step).min(stream.len());
            r.insert(isn.wrapping_add(u32::try_from(at).unwrap()), false, false, &stream[at..to]);
            (at, step) = (to, step % 41 + 2);
        }
        prop_assert!(r.readable().1 == &stream[from..]);
    }

    #[test]
    fn hostile_segments_never_panic_and_stay_in_bounds(
        base: u32,
        ops in prop::collection::vec((0u8..10, any::<u16>(), any::<u32>(), 0usize..300, any::<bool>(), any::<bool>()), 1..400),
    ) {
        let budget = Budget::new(8192);
        let limits = TcpLimits { max_bytes: 4096, max_islands: 8 };
        let mut r = Reassembly::new(&budget, limits);
        let mut end = 0;
        for (op, near, far, n, syn, fin) in ops {
            let seq = base.wrapping_add(u32::from(near % 8192));
            match op {
                0 => _ = r.insert(far, syn, fin, &vec![op; n]),
                1 => _ = r.insert(seq, syn, fin, &vec![op; n]),
                2 => _ = r.handle_ack(if syn { far } else { seq }),
                3 => _ = r.skip_gap(),
                4 => r.consume(n),
                5 => r.handle_reset(if syn { far } else { seq }),
                6 => r.resume(),
                _ => _ = r.insert(seq, false, false, &vec![op; n]),
            }
            let (start, bytes) = r.readable();
            prop_assert!(bytes.len() <= limits.max_bytes);
            prop_assert!(r.islands.len() <= limits.max_islands + 1);
            prop_assert!(r.islands.windows(2).all(|w| w[0].end() <= w[1].start));
            prop_assert!(r.islands.first().is_none_or(|i| i.start > r.next));
            prop_assert!(!r.settled || start >= end, "reading never goes back");
            end = start;
            prop_assert_eq!(budget.used(), r.held());
            prop_assert!(budget.used() <= 8192);
        }
        drop(r);
        prop_assert_eq!(budget.used(), 0);
    }
}
