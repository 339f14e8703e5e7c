use super::*;
use proptest::prelude::*;

const MS: i64 = 1_000_000;

fn header(sequence: u16, timestamp: u32) -> Header {
    Header {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc: 7,
        csrc_count: 0,
        extension: None,
        padding: 0,
        payload: 12..172,
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + ms * MS)
}

/// One packet of 20 ms of PCMU, sent on time and arriving at `ms`.
fn feed(s: &mut Stream, n: u32, ms: i64) -> Update {
    s.update(&header(u16::try_from(n & 0xffff).unwrap(), n.wrapping_mul(160)), at(ms), false)
}

/// A stream in which the packets `numbers` arrive in this order, 20 ms apart.
fn stream_of(numbers: impl IntoIterator<Item = u32>) -> Stream {
    let mut s = Stream::new(8000);
    for (i, n) in numbers.into_iter().enumerate() {
        feed(&mut s, n, i64::try_from(i).unwrap() * 20);
    }
    s
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn a_stream_is_small() {
    assert!(size_of::<Stream>() <= 208, "{}", size_of::<Stream>());
}

#[test]
fn a_perfect_stream_has_no_loss_and_no_jitter() {
    let s = stream_of(65_000..66_000).summary();

    assert_eq!((s.received, s.expected, s.lost, s.duplicates, s.late, s.restarts), (1000, 1000, 0, 0, 0, 0));
    assert!(s.validated && close(s.burst_ratio, 1.0) && close(s.lost_percent, 0.0));
    assert_eq!((s.jitter_last_ms, s.jitter_max_ms), (Some(0.0), Some(0.0)));
    assert_eq!((s.octets, s.longest_pause), (160_000, Duration::from_millis(20)));
}

#[test]
fn jitter_is_that_of_the_rfc_in_order_of_arrival() {
    // RFC 3550 §6.4.1 by hand, 8 kHz: sent at 0, 20, 40, 60 ms; arriving at 0, 30, 40, 75.
    // D = 80, −80, 120 units: J = 5; 5 + 75/16 = 9.6875; 9.6875 + 110.3125/16 = 16.58203125.
    let mut s = Stream::new(8000);
    for (n, ms) in [(0, 0), (1, 30), (2, 40), (3, 75)] {
        feed(&mut s, n, ms);
    }
    let s = s.summary();

    assert!(close(s.jitter_units, 16.582_031_25), "{s:?}");
    assert!(close(s.jitter_max_ms.unwrap(), 16.582_031_25 / 8.0));
    assert!(close(s.jitter_mean_ms.unwrap(), (5.0 + 9.6875 + 16.582_031_25) / 3.0 / 8.0));
}

#[test]
fn losses_are_counted_in_runs() {
    // 10 lost of 100 in runs of 1, 4 and 5: mean run 10/3; BurstR = 10/3 · (1 − 0.1) = 3.
    let s = stream_of((0..100).filter(|n| !matches!(n, 10 | 20..=23 | 50..=54))).summary();

    assert_eq!((s.expected, s.lost, s.loss_runs, s.longest_loss_run), (100, 10, 3, 5));
    assert!(close(s.lost_percent, 10.0) && close(s.burst_ratio, 3.0), "{s:?}");
}

#[test]
fn a_long_loss_is_one_run_whatever_the_window() {
    let s = stream_of((0..10).chain(2010..2020).chain(2200..2210)).summary();

    assert_eq!((s.expected, s.lost, s.loss_runs, s.longest_loss_run), (2210, 2180, 2, 2000));
}

#[test]
fn late_packets_are_not_lost_and_duplicates_not_received() {
    let mut s = stream_of([0, 1, 4, 3, 2, 5, 5, 3]);

    assert_eq!(feed(&mut s, 4, 200), Update::Duplicate);
    let s = s.summary();

    assert_eq!((s.received, s.expected, s.lost, s.late, s.duplicates), (6, 6, 0, 2, 3));
    assert_eq!(s.octets, 960);
}

#[test]
fn a_packet_that_overtook_the_first_one_belongs_to_the_stream() {
    let s = stream_of([65_537, 65_535, 65_538]).summary();

    assert_eq!((s.received, s.expected, s.lost, s.late), (3, 4, 1, 1));
}

#[test]
fn silence_suppression_is_no_loss_and_no_jitter() {
    let mut s = Stream::new(8000);
    feed(&mut s, 0, 0);
    feed(&mut s, 1, 20);
    // One minute of silence: the next number, the timestamp a minute on.
    let mut h = header(2, 160 + 480_000);
    h.marker = true;
    s.update(&h, at(20 + 60_000), false);
    let s = s.summary();

    assert_eq!((s.lost, s.time_steps, s.jitter_max_ms), (0, 0, Some(0.0)));
    assert_eq!(s.longest_pause, Duration::from_mins(1));
}

#[test]
fn a_new_time_base_is_not_jitter() {
    let mut s = Stream::new(8000);
    feed(&mut s, 0, 0);
    s.update(&header(1, 3_000_000_000), at(20), false);
    let mut h = header(2, 3_000_000_000 + 160 + 4000);
    h.marker = true;
    s.update(&h, at(40), false);
    let s = s.summary();

    assert_eq!((s.time_steps, s.jitter_units), (2, 0.0));
}

#[test]
fn telephone_events_count_as_packets_but_not_for_jitter() {
    let mut s = Stream::new(8000);
    for n in 0..5 {
        feed(&mut s, n, i64::from(n) * 20);
    }
    for n in 5..12 {
        // The timestamp stands still; the end comes three times at once.
        s.update(&header(n, 800), at(i64::from(n.min(9)) * 20), true);
    }
    feed(&mut s, 12, 240);
    let s = s.summary();

    assert_eq!((s.received, s.lost, s.events, s.duplicates), (13, 0, 7, 0));
    assert_eq!(s.jitter_max_ms, Some(0.0));
}

#[test]
fn a_jump_is_believed_when_the_next_number_follows() {
    let mut s = stream_of(0..10);
    assert_eq!(feed(&mut s, 30_000, 200), Update::Suspect);
    assert_eq!(feed(&mut s, 10, 220), Update::New);
    assert_eq!(feed(&mut s, 40_000, 240), Update::Suspect);
    assert_eq!(feed(&mut s, 40_001, 260), Update::Restarted);
    assert_eq!(feed(&mut s, 40_003, 280), Update::New);
    let s = s.summary();

    assert_eq!((s.received, s.expected, s.lost, s.restarts, s.discarded), (14, 15, 1, 1, 1));
}

#[test]
fn what_makes_no_sequence_is_discarded_until_one_appears() {
    let s = stream_of([5000, 60_000, 20_000]).summary();
    assert!(!s.validated);
    assert_eq!((s.received, s.discarded), (1, 2));

    let s = stream_of([5000, 60_000, 20_000, 20_001]).summary();
    assert!(s.validated);
    assert_eq!((s.received, s.expected, s.discarded, s.restarts), (2, 2, 2, 0));
}

#[test]
fn another_source_is_another_stream() {
    let mut s = stream_of(0..3);
    let mut h = header(3, 480);
    h.ssrc = 8;

    assert_eq!(s.update(&h, at(60), false), Update::OtherSsrc);
    assert_eq!(s.summary().received, 3);
}

#[test]
fn without_a_clock_there_is_loss_but_no_jitter() {
    let mut s = Stream::new(0);
    for n in [0, 1, 3] {
        feed(&mut s, n, 0);
    }
    assert_eq!((s.summary().lost, s.summary().jitter_last_ms), (1, None));
    let nothing = Stream::new(8000).summary();
    assert_eq!((nothing.expected, nothing.lost, nothing.loss_runs), (0, 0, 0));

    s.set_clock(8000);
    feed(&mut s, 4, 20);
    feed(&mut s, 5, 40);
    assert_eq!(s.summary().jitter_last_ms, Some(0.0));
}

proptest! {
    #[test]
    fn every_mix_of_loss_reordering_and_duplication_adds_up(
        start: u16,
        fates in prop::collection::vec((0u8..10, 0u32..90), 2..400),
    ) {
        // Two clean packets first and last; between them each is lost, kept, doubled or delayed by up to 90 places.
        let n = u32::try_from(fates.len()).unwrap();
        let mut order: Vec<(u32, u32)> = vec![(0, 0), (1, 1), (n + 2, n + 95), (n + 3, n + 96)];
        let (mut lost, mut duplicates) = (0, 0);
        for (i, (fate, delay)) in (2u32..).zip(fates) {
            match fate {
                0 => lost += 1,
                1 => { order.extend([(i, i), (i, i + delay)]); duplicates += 1 }
                2 => order.push((i, i + delay)),
                _ => order.push((i, i)),
            }
        }
        order.sort_by_key(|&(number, place)| (place, number));
        let s = stream_of(order.iter().map(|&(number, _)| u32::from(start) + number)).summary();

        prop_assert_eq!(s.expected, u64::from(n) + 4);
        prop_assert_eq!(s.lost, lost);
        prop_assert_eq!(u64::from(s.duplicates), duplicates);
        prop_assert_eq!(s.restarts, 0);
        prop_assert!(u64::from(s.longest_loss_run) <= lost && (lost == 0) == (s.loss_runs == 0));
    }

    #[test]
    fn anything_at_all_is_counted_without_contradiction(
        packets in prop::collection::vec((any::<u16>(), any::<u32>(), any::<i64>(), any::<bool>(), any::<bool>(), 0u8..4), 0..300),
        clock: u32,
    ) {
        let mut s = Stream::new(clock);
        let mut near = 0u16;
        for &(jump, timestamp, nanos, marker, event, kind) in &packets {
            near = if kind == 0 { jump } else { near.wrapping_add(jump % 200).wrapping_sub(60) };
            let mut h = header(near, timestamp);
            h.marker = marker;
            s.update(&h, Timestamp::from_nanos(nanos), event);
        }
        let sum = s.summary();
        let mut end = s;
        end.settle_window();

        prop_assert_eq!(sum.lost, end.lost);
        prop_assert_eq!(sum.received + sum.lost, sum.expected);
        prop_assert_eq!(sum.received + u64::from(sum.duplicates) + u64::from(sum.discarded), packets.len() as u64);
        prop_assert!((0.0..=100.0).contains(&sum.lost_percent) && sum.burst_ratio >= 1.0);
        prop_assert!(sum.jitter_units.is_finite());
    }
}
