//! What is new and what is a repetition, in whatever order it comes; what is said of it; what hostile numbers cost.

use super::*;

const E: Epoch = Epoch(1);

/// A batch of its hunter's own stream.
fn comes(i: &Ingest, hunter: &str, epoch: Epoch, seq: u64) -> Arrival {
    i.arrive(hunter, epoch, BatchSeq(seq), Span::default(), false, |_| {})
}

/// One that a processor passed on.
fn climbs(i: &Ingest, seq: u64) -> Arrival {
    i.arrive("a", E, BatchSeq(seq), Span::default(), true, |_| {})
}

fn store(i: &Ingest, seqs: impl IntoIterator<Item = u64>) {
    seqs.into_iter().for_each(|seq| i.store("a", E, BatchSeq(seq)));
}

/// What a processor below is told of a batch.
fn run(i: &Ingest, seq: u64) -> (u64, u64) {
    let told = i.told("a", E, BatchSeq(seq), true);
    (told.from, told.through)
}

#[test]
fn a_batch_sent_again_is_recognised_even_before_it_is_stored() {
    let i = Ingest::default();

    assert_eq!(comes(&i, "h", E, 1), Arrival::New);
    assert_eq!(comes(&i, "h", E, 1), Arrival::Duplicate);
    assert_eq!(i.stored("h", E), BatchSeq(0));
    i.store("h", E, BatchSeq(1));
    assert_eq!(i.stored("h", E), BatchSeq(1));
}

#[test]
fn epochs_and_hunters_do_not_mix() {
    let i = Ingest::default();
    comes(&i, "a", E, 5);

    assert_eq!(comes(&i, "a", Epoch(2), 5), Arrival::New);
    assert_eq!(comes(&i, "b", E, 5), Arrival::New);
}

#[test]
fn what_comes_late_by_another_way_is_new_once_and_nobody_is_told_more_than_is_stored() {
    let i = Ingest::default();
    for (seq, expected) in [
        (11, Arrival::New),
        (12, Arrival::New),
        (13, Arrival::New),
        (1, Arrival::Late),
        (2, Arrival::Late),
        (12, Arrival::Duplicate),
        (1, Arrival::Duplicate),
    ] {
        assert_eq!(climbs(&i, seq), expected, "{seq}");
        store(&i, [seq]);
    }

    assert_eq!([run(&i, 12), run(&i, 2), run(&i, 3), run(&i, 14)], [(11, 13), (1, 2), (0, 0), (0, 0)]);
    assert_eq!(i.stored("a", E), BatchSeq(2), "the hunter may have the third, which is elsewhere or lost");
    assert_eq!([climbs(&i, 3), climbs(&i, 5), climbs(&i, 4)], [Arrival::Late; 3]);
    assert_eq!([run(&i, 3), run(&i, 5), run(&i, 2), run(&i, 11)], [(0, 0), (0, 0), (1, 2), (11, 13)], "on their way");
    store(&i, [5]);
    assert_eq!([run(&i, 5), run(&i, 4)], [(5, 5), (0, 0)]);
    store(&i, [4, 3]);
    assert_eq!((run(&i, 4), i.stored("a", E)), ((1, 5), BatchSeq(5)));
}

#[test]
fn a_gap_that_will_not_be_filled_here_holds_up_no_hunter() {
    let i = Ingest::default();
    // 1 to 10 were acknowledged by another processor; 13 was given up
    for seq in [11, 12, 14] {
        assert_eq!(comes(&i, "a", E, seq), Arrival::New);
    }
    store(&i, [11, 12]);
    assert_eq!(i.stored("a", E), BatchSeq(13), "the last is on its way");
    store(&i, [14]);
    assert_eq!(i.resume_points("a", &[1]), [(E, BatchSeq(14))]);

    // they come from the other one, late; what was said is not taken back
    assert_eq!(climbs(&i, 10), Arrival::Late);
    assert_eq!(i.stored("a", E), BatchSeq(14));
    // what came by another way first is stored: the hunter is told where it has it from
    assert_eq!(climbs(&i, 16), Arrival::New);
    store(&i, [10, 16]);
    assert_eq!(i.stored("a", E), BatchSeq(14), "15 may be with the hunter");
    assert_eq!(comes(&i, "a", E, 16), Arrival::Duplicate);
    assert_eq!(i.stored("a", E), BatchSeq(16), "it sends in order: it has no 15");
}

#[test]
fn a_repetition_on_a_hunters_stream_waits_for_what_came_before_it() {
    let i = Ingest::default();
    assert_eq!(climbs(&i, 3), Arrival::New);
    store(&i, [3]);
    assert_eq!([comes(&i, "a", E, 2), comes(&i, "a", E, 3)], [Arrival::Late, Arrival::Duplicate]);

    assert_eq!(i.stored("a", E), BatchSeq(1), "the second is on its way, and it has no first");
    store(&i, [2]);
    assert_eq!(i.stored("a", E), BatchSeq(3));
}

#[test]
fn a_restart_goes_on_where_it_stopped() {
    let i = Ingest::default();
    for seq in [7, 8] {
        comes(&i, "a", E, seq);
    }
    climbs(&i, 3);
    store(&i, [3, 7]);

    let again = Ingest::restore(&i.snapshot());

    assert_eq!([7, 3].map(|seq| climbs(&again, seq)), [Arrival::Duplicate; 2]);
    assert_eq!([8, 4, 2].map(|seq| climbs(&again, seq)), [Arrival::New, Arrival::Late, Arrival::Late]);
    assert_eq!(again.resume_points("a", &[1, 9]), [(E, BatchSeq(7))]);
}

#[test]
fn what_a_program_without_ranges_left_is_all_up_to_its_mark() {
    let i = Ingest::restore(&[Acked { hunter: "a".into(), epoch: 1, through: 9, stored: None }]);

    assert_eq!([climbs(&i, 4), climbs(&i, 9), climbs(&i, 10)], [Arrival::Duplicate, Arrival::Duplicate, Arrival::New]);
    assert_eq!(i.stored("a", E), BatchSeq(9));
}

#[test]
fn packets_missing_before_a_batch_are_told_once() {
    let i = Ingest::default();
    let mut told = Vec::new();
    for (seq, first) in [(5, 100), (6, 110), (9, 150), (9, 150), (10, 160), (4, 0), (20, 170 + LEAP)] {
        i.arrive("a", E, BatchSeq(seq), Span { first, packets: 10 }, false, |missing| told.push(missing));
    }

    assert_eq!(told, [0, 0, 30, 0, 0, LEAP]);
}

#[test]
fn the_number_of_epochs_is_bounded() {
    let i = Ingest::default();
    for e in 0..1000 {
        comes(&i, "a", Epoch(e), 1);
    }

    assert_eq!(i.snapshot().len(), EPOCHS);
}

#[test]
fn numbers_that_jump_cost_bounded_memory_and_what_is_closed_is_counted() {
    let i = Ingest::default();
    for n in 0..2 * RANGES as u64 {
        assert_eq!(comes(&i, "a", E, 3 * n + 2), Arrival::New);
    }
    store(&i, (0..2 * RANGES as u64).map(|n| 3 * n + 2));

    let all = i.snapshot();
    assert_eq!(all[0].ranges().len(), RANGES);
    assert_eq!((i.closed(), all[0].through), (2 * RANGES as u64, 6 * RANGES as u64 - 1));
    assert_eq!([comes(&i, "a", E, 3), comes(&i, "a", E, 6 * RANGES as u64 - 3)], [Arrival::Duplicate, Arrival::Late]);
}

/// Where an epoch begins here, nobody knows: its hunter may come from elsewhere.
#[test]
fn a_leap_from_what_is_known_of_an_epoch_changes_nothing_and_its_first_batch_may_have_any_number() {
    let i = Ingest::default();
    assert_eq!(
        [u64::MAX, 1, u64::MAX - LEAP - 1].map(|seq| comes(&i, "a", E, seq)),
        [Arrival::New, Arrival::Leap, Arrival::Leap]
    );
    assert_eq!(
        [u64::MAX - LEAP, u64::MAX, 0].map(|seq| comes(&i, "a", E, seq)),
        [Arrival::Late, Arrival::Duplicate, Arrival::Duplicate]
    );
    assert_eq!([5, LEAP + 6, LEAP + 5].map(|seq| comes(&i, "b", E, seq)), [Arrival::New, Arrival::Leap, Arrival::New]);
    for seq in [5, LEAP + 5] {
        i.store("b", E, BatchSeq(seq));
    }
    assert_eq!(i.stored("b", E), BatchSeq(LEAP + 5), "nothing was reached by a leap");

    let again = Ingest::restore(&[Acked { hunter: "a".into(), epoch: 1, through: 9, stored: None }]);
    assert_eq!([u64::MAX, 10].map(|seq| comes(&again, "a", E, seq)), [Arrival::Leap, Arrival::New]);
}

/// To refuse it would hold up every hunter below that processor.
#[test]
fn a_leap_that_an_honest_processor_passes_on_is_taken_and_counts_as_nothing() {
    let i = Ingest::default();
    let mut told = Vec::new();
    for (seq, first) in [(1, 0), (3, u64::MAX - 9), (u64::MAX, u64::MAX)] {
        let span = Span { first, packets: 1 };
        assert_eq!(i.arrive("a", E, BatchSeq(seq), span, true, |missing| told.push(missing)), Arrival::New);
    }

    assert_eq!(told, [0, 0, 0]);
}

/// Whoever has most gaps pays for them.
#[test]
fn the_gaps_of_all_hunters_are_bounded_together_and_an_honest_one_keeps_its_own() {
    let i = Ingest::default();
    comes(&i, "honest", E, 5);
    comes(&i, "honest", E, 9);
    for e in 0..EPOCHS as u64 {
        for n in 0..RANGES as u64 {
            comes(&i, "a", Epoch(e), 2 * n);
        }
    }
    comes(&i, "b", E, 5);
    for n in 0..RANGES as u64 {
        comes(&i, "b", E, 2 * n);
    }

    let ranges = |hunter: &str| {
        let state = i.state.lock();
        state.hunters[hunter].epochs.values().map(|m| m.arrived.len()).sum::<usize>()
    };
    assert!(ranges("a") + ranges("b") <= RANGES_ALL + EPOCHS + 2, "{} {}", ranges("a"), ranges("b"));
    let state = i.state.lock();
    let spare: usize = state.hunters.values().flat_map(|k| k.epochs.values()).map(Marks::spare_ranges).sum();
    assert_eq!((state.ranges, state.epochs_by_turn.len()), (spare, EPOCHS + 2));
    drop(state);
    assert!(ranges("honest") == 2 && i.closed() > 0);
}

#[test]
fn hunters_are_bounded_and_the_one_silent_for_longest_goes() {
    let i = Ingest::default();
    for h in 0..HUNTERS + 5 {
        comes(&i, &format!("h{h}"), E, 1);
    }

    let state = i.state.lock();
    assert_eq!((state.hunters.len(), state.epochs_by_turn.len()), (HUNTERS, HUNTERS));
    assert!(!state.hunters.contains_key("h0") && state.hunters.contains_key(&*format!("h{}", HUNTERS + 4)));
}

/// Looking at all epochs is dear: it must not be due again soon.
#[test]
fn gaps_that_are_evenly_spread_are_closed_by_many_at_once() {
    let i = Ingest::default();
    let spread = 3000;
    for n in 0..=(RANGES_ALL / spread + 1) as u64 {
        for h in 0..spread as u64 {
            comes(&i, &format!("h{}", h / 60), Epoch(h % 60), 2 * (n + 1));
        }
    }

    let state = i.state.lock();
    assert!(state.ranges < RANGES_ALL * 6 / 10, "{}", state.ranges);
    assert_eq!((state.epochs_by_turn.len(), state.hunters.len()), (spread, spread / 60));
}

#[test]
fn the_epoch_untouched_for_longest_goes_first_and_its_hunter_with_its_last() {
    let i = Ingest::default();
    for e in 0..EPOCHS_ALL as u64 {
        comes(&i, &format!("h{}", e / 50), Epoch(e), 1);
    }
    comes(&i, "h0", Epoch(0), 2);
    for e in 0..100_u64 {
        comes(&i, &format!("n{}", e / 50), Epoch(e), 1);
    }

    let state = i.state.lock();
    assert_eq!(state.epochs_by_turn.len(), EPOCHS_ALL);
    assert_eq!(state.hunters["h0"].epochs.keys().collect::<Vec<_>>(), [&Epoch(0)], "touched again");
    assert!(!state.hunters.contains_key("h1") && state.hunters["h2"].epochs.len() == 49, "{:?}", state.hunters.get("h2"));
    assert_eq!(state.hunters.len(), state.hunters_by_turn.len());
}
