use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::packet::Timestamp;

const A: Epoch = Epoch(1);
const B: Epoch = Epoch(2);

#[test]
fn batches_go_out_in_order_and_leave_when_acknowledged() {
    let backlog = backlog(10_000);
    offer(&backlog, [(A, 1), (B, 1), (A, 2)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);

    assert_eq!(drain(&backlog, connection), [(A, 1), (B, 1), (A, 2)]);
    backlog.ack(connection, A, BatchSeq(2));

    let s = backlog.snapshot();
    assert_eq!((s.acked_batches, s.in_memory_batches, s.in_flight_batches), (2, 1, 1));
    assert_eq!(backlog.epochs(), [B]);
}

#[test]
fn after_a_reconnect_what_was_not_acknowledged_goes_out_again() {
    let backlog = backlog(10_000);
    offer(&backlog, [(A, 1), (B, 1), (A, 2), (A, 3)]);
    let first = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(drain(&backlog, first).len(), 4);

    let second = backlog.begin(PeerKind::Extended, &[(A, BatchSeq(2))]);

    assert_eq!(drain(&backlog, second), [(B, 1), (A, 3)]);
    assert_eq!(backlog.snapshot().resent_batches, 2);
}

#[test]
fn an_old_connection_neither_sends_nor_acknowledges() {
    let backlog = backlog(10_000);
    offer(&backlog, [(A, 1)]);
    let first = backlog.begin(PeerKind::Extended, &[]);
    let second = backlog.begin(PeerKind::Extended, &[]);

    assert!(backlog.next_to_send(first).is_none());
    assert!(backlog.next_to_send(second).is_some());
    backlog.ack(first, A, BatchSeq(1));

    assert_eq!(backlog.snapshot().in_memory_batches, 1);
}

#[test]
fn full_memory_gives_up_the_oldest_unsent_batch_and_declares_it() {
    let backlog = backlog(4 * (100 + ENTRY_BYTES));
    offer(&backlog, [(A, 1)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(drain(&backlog, connection), [(A, 1)]);

    offer(&backlog, [(A, 2), (A, 3), (A, 4), (A, 5), (A, 6)]);

    let next = backlog.next_to_send(connection).unwrap();
    assert_eq!(next.batch.seq, BatchSeq(4));
    let range = DroppedRange { from: BatchSeq(2), to: BatchSeq(3), packets: 10, reason: DropReason::MemFull };
    assert_eq!(next.ranges, [range]);
    assert_eq!(backlog.snapshot().dropped_packets[DropReason::MemFull.index()], 10);
}

#[test]
fn what_another_processor_took_over_is_said_with_the_first_batch_of_its_epoch_and_what_was_given_up_is_not() {
    let backlog = backlog(3 * (100 + ENTRY_BYTES));
    let first = backlog.begin(PeerKind::Extended, &[]);
    let taken = |connection, epoch, seqs: std::ops::RangeInclusive<u64>| {
        for seq in seqs {
            offer(&backlog, [(epoch, seq)]);
            let sent = backlog.next_to_send(connection).unwrap();
            assert_eq!((sent.batch.seq, sent.elsewhere), (BatchSeq(seq), None));
            backlog.ack(connection, epoch, BatchSeq(seq));
        }
    };
    taken(first, A, 1..=5);
    let second = backlog.begin(PeerKind::Extended, &[]);
    offer(&backlog, [(A, 6)]);
    let elsewhere = backlog.next_to_send(second).unwrap().elsewhere;
    backlog.ack(second, A, BatchSeq(6));
    taken(second, A, 7..=9);
    taken(second, B, 1..=2);
    backlog.end(second);
    offer(&backlog, [(A, 10), (A, 11), (A, 12), (A, 13), (B, 3)]);

    assert_eq!(elsewhere, Some((BatchSeq(1), BatchSeq(5))));
    let told = |resume: &[(Epoch, BatchSeq)]| {
        let connection = backlog.begin(PeerKind::Extended, resume);
        let all: Vec<_> = std::iter::from_fn(|| backlog.next_to_send(connection)).collect();
        all.into_iter().map(|o| (o.batch.seq.0, o.ranges.len(), o.elsewhere.map(|(f, t)| (f.0, t.0)))).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&[(A, BatchSeq(9)), (B, BatchSeq(2))]),
        [(12, 1, None), (13, 0, None), (3, 0, None)],
        "10 and 11 were given up"
    );
    assert_eq!(told(&[(A, BatchSeq(5))]), [(12, 1, Some((6, 11))), (13, 0, None), (3, 0, Some((1, 2)))]);
}

#[test]
fn a_declaration_is_repeated_until_acknowledged() {
    let backlog = backlog(2 * (100 + ENTRY_BYTES));
    offer(&backlog, [(A, 1), (A, 2), (A, 3)]);
    let first = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(backlog.next_to_send(first).unwrap().ranges.len(), 1);

    let second = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(backlog.next_to_send(second).unwrap().ranges.len(), 1);
    backlog.ack(second, A, BatchSeq(2));
    let third = backlog.begin(PeerKind::Extended, &[(A, BatchSeq(2))]);

    assert_eq!(backlog.next_to_send(third).unwrap().ranges, []);
}

#[test]
fn what_was_sent_once_is_never_given_up() {
    let backlog = backlog(2 * (100 + ENTRY_BYTES));
    offer(&backlog, [(A, 1), (A, 2)]);
    let first = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(drain(&backlog, first).len(), 2);

    backlog.end(first);
    offer(&backlog, [(A, 3), (A, 4)]);

    let second = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(drain(&backlog, second), [(A, 1), (A, 2)]);
    assert_eq!(backlog.snapshot().dropped(), 10);
}

#[test]
fn a_reader_of_files_waits_for_room() {
    let config = BacklogConfig { max_bytes: 400, when_full: WhenFull::Block, ..BacklogConfig::default() };
    let backlog = Arc::new(Backlog::new(config));
    assert!(matches!(backlog.offer(batch(A, 1)), Offer::Taken));
    assert!(matches!(backlog.offer(batch(A, 2)), Offer::Full(_)));
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert!(backlog.next_to_send(connection).is_some());

    let reader = std::thread::spawn({
        let backlog = Arc::clone(&backlog);
        move || {
            backlog.wait_for_room(&batch(A, 2), Duration::from_secs(20));
            matches!(backlog.offer(batch(A, 2)), Offer::Taken)
        }
    });
    backlog.ack(connection, A, BatchSeq(1));

    assert!(reader.join().unwrap());
    assert_eq!(backlog.snapshot().dropped(), 0);
}

#[test]
fn a_reader_of_files_with_a_spool_waits_for_a_peer_that_takes_and_not_for_one_that_does_not() {
    let config =
        BacklogConfig { max_bytes: 600, when_full: WhenFull::Block, durability: Durability::Spill, ..BacklogConfig::default() };
    let backlog = Backlog::new(config);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert!(matches!(backlog.offer(batch(A, 1)), Offer::Taken));
    assert_eq!(drain(&backlog, connection), [(A, 1)]);

    // memory is full and the peer will acknowledge
    assert!(matches!(backlog.offer(batch(A, 2)), Offer::Full(_)));
    backlog.pause(true);
    assert!(matches!(backlog.offer(batch(A, 2)), Offer::Taken), "a paused peer is not waited for");
    backlog.pause(false);
    backlog.ack(connection, A, BatchSeq(1));
    // what is on its way over the disk comes first, and then the quick way is open again
    assert!(matches!(backlog.offer(batch(A, 3)), Offer::Full(_)));
    backlog.end(connection);
    let takes = backlog.takes(&backlog.state.lock(), &batch(A, 3));
    assert_eq!(matches!(backlog.offer(batch(A, 3)), Offer::Taken), takes, "nobody waits for room that is there");
    assert_eq!(backlog.snapshot().dropped(), 0);
}

#[test]
fn credit_bounds_what_is_in_flight() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2), (A, 3)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    backlog.set_credit(Credit { batches: 2, bytes: u64::MAX });

    assert_eq!(drain(&backlog, connection).len(), 2);
    backlog.ack(connection, A, BatchSeq(1));

    assert_eq!(drain(&backlog, connection), [(A, 3)]);
}

#[test]
fn one_batch_goes_out_however_small_the_credit() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    backlog.set_credit(Credit { batches: 0, bytes: 1 });

    assert_eq!(drain(&backlog, connection), [(A, 1)]);
}

#[test]
fn a_pause_stops_sending_and_a_probe_lets_one_through() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2), (A, 3)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    backlog.pause(true);

    assert_eq!(drain(&backlog, connection), []);
    backlog.probe(Duration::ZERO);
    assert_eq!(drain(&backlog, connection), [(A, 1)]);
    backlog.pause(false);

    assert_eq!(drain(&backlog, connection), [(A, 2), (A, 3)]);
}

#[test]
fn only_a_resume_or_the_answer_to_a_probe_lifts_a_pause() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2), (A, 3)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert!(backlog.next_to_send(connection).is_some());
    backlog.pause(true);

    backlog.go_on();
    assert!(backlog.snapshot().paused, "an acknowledgement of what was in flight");
    backlog.probe(Duration::ZERO);
    backlog.go_on();
    assert!(backlog.snapshot().paused, "the probe has not gone out");
    assert!(backlog.next_to_send(connection).is_some());
    backlog.go_on();
    assert!(!backlog.snapshot().paused);

    assert_eq!(drain(&backlog, connection), [(A, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_questioned_30_s_after_it_began_and_every_30_s_from_then_on() {
    let patience = Duration::from_secs(30);
    let backlog = backlog(100_000);
    offer(&backlog, (1..=9).map(|n| (A, n)));
    let connection = backlog.begin(PeerKind::Extended, &[]);
    tokio::time::advance(patience * 3).await;
    backlog.pause(true);
    let mut sent = Vec::new();
    for second in 1..=100 {
        tokio::time::advance(Duration::from_secs(1)).await;
        backlog.probe(patience);
        if backlog.next_to_send(connection).is_some() {
            sent.push(second);
        }
        // said again: no new pause
        backlog.pause(true);
    }

    assert_eq!(sent, [30, 60, 90]);
    assert!(backlog.snapshot().paused);
}

#[tokio::test(start_paused = true)]
async fn the_time_from_sending_to_acknowledgement_is_told() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2), (A, 3)]);
    tokio::time::advance(Duration::from_mins(1)).await;
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert_eq!(drain(&backlog, connection).len(), 3);
    tokio::time::advance(Duration::from_millis(300)).await;

    backlog.ack(connection, A, BatchSeq(2));

    let h = backlog.snapshot().ack_latency;
    assert_eq!((h.count(), h.total()), (2, Duration::from_millis(600)), "the wait before is not part of it");
}

#[test]
fn a_plain_peer_acknowledges_by_the_number_on_its_connection() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 7), (B, 3), (A, 8)]);
    let connection = backlog.begin(PeerKind::Plain, &[]);
    let numbers: Vec<_> = std::iter::from_fn(|| backlog.next_to_send(connection)).map(|o| o.connection_seq.0).collect();

    backlog.ack_plain(connection, BatchSeq(2));

    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!((backlog.snapshot().acked_batches, backlog.epochs()), (2, vec![A]));
    backlog.ack_plain(connection, BatchSeq(9));
    assert_eq!(backlog.snapshot().bad_acks, 1);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_frees_nothing() {
    let backlog = backlog(100_000);
    offer(&backlog, [(A, 1), (A, 2)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert!(backlog.next_to_send(connection).is_some());

    backlog.ack(connection, A, BatchSeq(2));

    let s = backlog.snapshot();
    assert_eq!((s.acked_batches, s.in_memory_batches, s.bad_acks), (1, 1, 1));
}

#[tokio::test]
async fn drained_is_told_when_the_last_batch_is_acknowledged() {
    let backlog = Arc::new(backlog(100_000));
    offer(&backlog, [(A, 1)]);
    let connection = backlog.begin(PeerKind::Extended, &[]);
    assert!(backlog.next_to_send(connection).is_some());

    let waiting = backlog.wait_drained();
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        () = &mut waiting => panic!("not drained yet"),
        () = std::future::ready(()) => {}
    }
    backlog.ack(connection, A, BatchSeq(1));

    waiting.await;
}

#[derive(Clone, Debug)]
enum Step {
    Offer(bool),
    Send,
    Ack(bool, u64),
    Reconnect(bool, u64),
    Abandon,
}

proptest! {
    #[test]
    fn every_packet_is_acknowledged_in_memory_or_counted_as_dropped(steps in prop::collection::vec(steps(), 1..200)) {
        let backlog = backlog(5 * (100 + ENTRY_BYTES));
        let mut next = BTreeMap::from([(A, 0_u64), (B, 0)]);
        // By epoch: the batches a perfect receiver has, and the highest it may acknowledge.
        let mut stored: BTreeMap<Epoch, Vec<u64>> = BTreeMap::new();
        let mut connection = backlog.begin(PeerKind::Extended, &[]);
        let mut declared: BTreeMap<Epoch, Vec<(u64, u64)>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Offer(a) => {
                    let epoch = if a { A } else { B };
                    let seq = next.get_mut(&epoch).unwrap();
                    *seq += 1;
                    offer(&backlog, [(epoch, *seq)]);
                }
                Step::Send => if let Some(out) = backlog.next_to_send(connection) {
                    declared.entry(out.batch.epoch).or_default().extend(out.ranges.iter().map(|r| (r.from.0, r.to.0)));
                    let mine = stored.entry(out.batch.epoch).or_default();
                    let seq = out.batch.seq.0;
                    let gap = mine.iter().max().map_or(1, |m| m + 1)..seq;
                    let ranges = &declared[&out.batch.epoch];
                    for missing in gap {
                        prop_assert!(ranges.iter().any(|(f, t)| (*f..=*t).contains(&missing)), "{} is missing, undeclared", missing);
                    }
                    mine.push(seq);
                },
                Step::Ack(a, back) => {
                    let epoch = if a { A } else { B };
                    if let Some(highest) = stored.get(&epoch).and_then(|s| s.iter().max()) {
                        backlog.ack(connection, epoch, BatchSeq(highest.saturating_sub(back)));
                    }
                }
                Step::Reconnect(a, back) => {
                    let epoch = if a { A } else { B };
                    let highest = stored.get(&epoch).and_then(|s| s.iter().max()).copied().unwrap_or(0);
                    connection = backlog.begin(PeerKind::Extended, &[(epoch, BatchSeq(highest.saturating_sub(back)))]);
                }
                Step::Abandon => { backlog.abandon(DropReason::Shutdown); }
            }
            let s = backlog.snapshot();
            prop_assert_eq!(s.offered_packets, s.acked_packets + s.in_memory_packets + s.dropped());
            prop_assert!(s.in_memory_bytes <= s.max_bytes);
            prop_assert_eq!(s.bad_acks, 0);
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Offer),
        6 => Just(Step::Send),
        3 => (any::<bool>(), 0_u64..3).prop_map(|(a, back)| Step::Ack(a, back)),
        1 => (any::<bool>(), 0_u64..3).prop_map(|(a, back)| Step::Reconnect(a, back)),
        1 => Just(Step::Abandon),
    ]
}

fn backlog(max_bytes: usize) -> Backlog {
    Backlog::new(BacklogConfig { max_bytes, ..BacklogConfig::default() })
}

fn offer(backlog: &Backlog, batches: impl IntoIterator<Item = (Epoch, u64)>) {
    for (epoch, seq) in batches {
        assert!(matches!(backlog.offer(batch(epoch, seq)), Offer::Taken));
    }
}

fn drain(backlog: &Backlog, connection: Connection) -> Vec<(Epoch, u64)> {
    std::iter::from_fn(|| backlog.next_to_send(connection)).map(|o| (o.batch.epoch, o.batch.seq.0)).collect()
}

/// A batch of 5 packets and 100 bytes.
fn batch(epoch: Epoch, seq: u64) -> SealedBatch {
    SealedBatch {
        epoch,
        seq: BatchSeq(seq),
        packets: 5,
        first_index: 0,
        captured_bytes: 80,
        first_ts: Timestamp::MIN,
        last_ts: Timestamp::MIN,
        bytes: Bytes::from(vec![0; 100]),
    }
}
