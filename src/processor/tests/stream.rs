//! One data stream: what is refused, what comes twice, what a broken connection may leave behind.

use std::num::NonZeroU64;

use super::*;
use crate::batch::{BatchSeq, DroppedRange, grpc_prefix, with_ranges};
use crate::processor::Rates;
use crate::processor::counts::Refused;
use crate::processor::data::ack;
use crate::reason::DropReason;
use crate::wire::data::{self as wire, FlowControl, PacketBatch};

#[tokio::test]
async fn a_batch_that_waited_for_room_when_its_connection_broke_is_taken_when_it_comes_again() {
    let (shared, mut queue) = processor(1);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 2);
    let mut first = Stream::open(&shared);
    first.send(batches[0].bytes.clone());
    first.send(batches[1].bytes.clone());
    assert_eq!(first.answer().await, Answer::Silence);
    drop(first);
    assert_eq!(handed(&mut queue).await, (7, 1));

    let mut second = Stream::open(&shared);
    second.send(batches[1].bytes.clone());
    assert_eq!(second.answer().await, Answer::Silence);

    assert_eq!(handed(&mut queue).await, (7, 2));
}

#[tokio::test]
async fn a_batch_that_came_again_before_it_was_stored_is_acknowledged_where_it_came_last() {
    let (shared, mut queue) = processor(4);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 2);
    let mut first = Stream::open(&shared);
    for b in &batches {
        first.send(b.bytes.clone());
    }
    assert_eq!(first.answer().await, Answer::Silence);
    drop(first);
    let mut second = Stream::open(&shared);
    for b in &batches {
        second.send(b.bytes.clone());
    }
    for _ in 0..2 {
        let Answer::Control(told) = second.answer().await else { panic!("nothing is said") };
        assert_eq!((told.epoch, told.ack_sequence), (7, 0), "they are not stored");
    }

    for n in 1..=2 {
        assert_eq!(handed(&mut queue).await, (7, n));
        shared.ingest.store("edge", Epoch(7), BatchSeq(n));
        shared.tell_stored();
    }

    let Answer::Control(told) = second.answer().await else { panic!("nobody says that they are stored") };
    assert_eq!((told.epoch, told.ack_sequence), (7, 2));
    assert_eq!(second.answer().await, Answer::Silence, "once");
}

#[tokio::test]
async fn a_batch_waits_with_all_that_it_takes_in_memory() {
    let (shared, mut queue) = processor(4);
    register(&shared, "edge");
    let mut stream = Stream::open(&shared);
    // the name, the epoch, the number, and 10 000 packets without a byte
    let batch = [&b"\x0a\x04edge\x10\x01\xc1\x0c\x07\0\0\0\0\0\0\0"[..], &[0x22, 0].repeat(10_000)].concat();
    let framed = [&[0][..], &u32::try_from(batch.len()).unwrap().to_be_bytes(), &batch].concat();
    stream.send(framed.into());
    assert_eq!(stream.answer().await, Answer::Silence);

    let taken = shared.queue_kib - shared.queue.available_permits();

    assert!(taken > 500, "{taken} KiB for a message of 20");
    drop(queue.recv().await);
    assert_eq!(shared.queue.available_permits(), shared.queue_kib);
}

#[tokio::test]
async fn a_stream_that_opens_in_a_pause_is_told_of_it() {
    let (shared, _queue) = processor(4);
    register(&shared, "edge");
    assert!(shared.pause(true));
    let mut stream = Stream::open(&shared);
    stream.send(sealed("edge", 7, 1)[0].bytes.clone());

    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };

    assert_eq!(told.flow_control(), FlowControl::FlowPause);
    shared.pause(false);
    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
    assert_eq!(told.flow_control(), FlowControl::FlowResume);
}

#[tokio::test]
async fn a_stream_that_ends_gets_every_acknowledgement_before_its_status() {
    let (shared, mut queue) = processor(4);
    register(&shared, "edge");
    let mut stream = Stream::open(&shared);
    stream.send(sealed("edge", 7, 1)[0].bytes.clone());
    stream.finish();
    assert_eq!(stream.answer().await, Answer::Silence);
    let Some(Job::Batch(batch)) = queue.recv().await else { panic!("no batch") };

    batch.acks.answer(batch.view.message().len(), ack(Some(batch.epoch), batch.seq, FlowControl::FlowContinue));

    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
    assert_eq!((told.epoch, told.ack_sequence), (7, 1));
    assert_eq!(stream.answer().await, Answer::End(Code::Ok, String::new()));
}

fn refusals(shared: &Shared, why: Refused) -> u64 {
    shared.counters.counts().refusals[why as usize]
}

fn message(flag: u8, len: u32, bytes: &[u8]) -> Bytes {
    [&[flag][..], &len.to_be_bytes(), bytes].concat().into()
}

#[tokio::test]
async fn what_is_no_batch_is_refused_by_name_and_what_came_before_it_is_kept() {
    let foreign = sealed("other", 9, 1)[0].bytes.clone();
    for (bytes, why, code) in [
        (message(0, 20, &[0xff; 20]), Refused::Malformed, Code::InvalidArgument),
        (message(0, 11 << 20, &[]), Refused::TooLarge, Code::ResourceExhausted),
        (message(1, 1, &[0]), Refused::Compressed, Code::Unimplemented),
        (foreign.clone(), Refused::Foreign, Code::PermissionDenied),
        (foreign.slice(..20), Refused::Malformed, Code::InvalidArgument),
    ] {
        let (shared, mut queue) = processor(4);
        register(&shared, "edge");
        register(&shared, "other");
        let mut stream = Stream::open(&shared);
        stream.send(sealed("edge", 7, 1)[0].bytes.clone());
        stream.send(bytes);
        stream.finish();

        let Answer::End(told, text) = stream.answer().await else { panic!("{why:?} is taken") };

        assert_eq!((told, text.is_empty()), (code, false), "{why:?}: {text}");
        assert_eq!(handed(&mut queue).await, (7, 1));
        assert_eq!((refusals(&shared, why), shared.counters.counts().imbalance()), (1, [0, 0]));
        assert_eq!(shared.roster.lock().get("edge").unwrap().streaming, 0);
    }
}

#[tokio::test]
async fn a_hunter_that_is_not_registered_is_told_so() {
    let (shared, _queue) = processor(4);
    let mut stream = Stream::open(&shared);
    stream.send(sealed("edge", 7, 1)[0].bytes.clone());

    let Answer::End(code, text) = stream.answer().await else { panic!("it is taken") };

    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("RegisterHunter"), "{text}");
    let c = shared.counters.counts();
    assert_eq!((c.received, c.rejected[Refused::Unregistered as usize], c.imbalance()), (3, 3, [0, 0]));
}

#[tokio::test]
async fn a_replay_is_counted_answered_and_not_written_again() {
    let (shared, mut queue) = processor(4);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 2);
    let mut stream = Stream::open(&shared);
    for n in [0, 0, 1, 0, 1] {
        stream.send(batches[n].bytes.clone());
    }
    let told = [stream.answer().await, stream.answer().await, stream.answer().await];

    assert!(told.iter().all(|a| matches!(a, Answer::Control(c) if c.epoch == 7 && c.ack_sequence == 0)), "{told:?}");
    assert_eq!((handed(&mut queue).await, handed(&mut queue).await), ((7, 1), (7, 2)));
    assert!(queue.try_recv().is_err());
    let c = shared.counters.counts();
    assert_eq!((c.received, c.unique, c.duplicate, c.imbalance()), (15, 6, 9, [0, 0]));
}

#[tokio::test]
async fn a_gap_is_counted_by_whether_it_was_declared() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 9);
    let range = DroppedRange { from: BatchSeq(5), to: BatchSeq(6), packets: 6, reason: DropReason::MemFull };
    let mut stream = Stream::open(&shared);
    stream.send(batches[0].bytes.clone());
    stream.send(batches[3].bytes.clone());
    for piece in with_ranges(&batches[6], &[range], None) {
        stream.send(piece);
    }
    stream.send(batches[7].bytes.clone());
    assert_eq!(stream.answer().await, Answer::Silence);

    let mut missing = Vec::new();
    while let Ok(Job::Batch(b)) = queue.try_recv() {
        missing.push(b.missing);
    }
    assert_eq!(missing, [0, 6, 6, 0]);
    let c = shared.counters.counts();
    assert_eq!((c.declared, c.undeclared, c.unique), (6, 6, 12));
}

/// A hunter that says of every number what no hunter can have sent.
#[tokio::test]
async fn a_leap_that_no_hunter_can_make_is_refused_and_spoils_no_counter() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let batch = |sequence, first_packet_index, packets| {
        let batch = PacketBatch {
            hunter_id: "edge".into(),
            epoch: 7,
            sequence,
            first_packet_index,
            dropped_ranges: vec![wire::DroppedRange { packets, ..Default::default() }],
            ..PacketBatch::default()
        };
        let message = batch.encode_to_vec();
        Bytes::from([&grpc_prefix(message.len())[..], &message].concat())
    };
    let far = u64::MAX - 9;

    for (n, (seq, first, given_up)) in [(far, 0, 0), (105, far, 0), (105, 0, far)].into_iter().enumerate() {
        let mut stream = Stream::open(&shared);
        for sealed in [batch(100, 0, 0), batch(seq, first, given_up)] {
            stream.send(sealed);
        }
        let end = loop {
            match stream.answer().await {
                Answer::End(code, text) => break (code, text),
                Answer::Control(_) => {}
                Answer::Silence => panic!("{n} is taken"),
            }
        };
        assert_eq!(end.0, Code::InvalidArgument, "{}", end.1);
    }

    let c = shared.counters.counts();
    assert_eq!((c.refusals[Refused::Leap as usize], c.undeclared, c.declared), (3, 0, 0));
    assert_eq!(handed(&mut queue).await, (7, 100));
    assert!(queue.try_recv().is_err());
}

#[tokio::test]
async fn what_another_processor_has_taken_over_is_not_lost_and_stands_in_the_records_of_calls() {
    let (shared, mut queue) = processor(8);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 9);
    let range = DroppedRange { from: BatchSeq(5), to: BatchSeq(5), packets: 3, reason: DropReason::MemFull };
    let send = |stream: &mut Stream, n: usize, ranges: &[DroppedRange], from: u64| {
        let elsewhere = Some((BatchSeq(from), BatchSeq(n as u64)));
        for piece in with_ranges(&batches[n], ranges, elsewhere) {
            stream.send(piece);
        }
    };
    let mut stream = Stream::open(&shared);
    send(&mut stream, 3, &[], 1);
    assert_eq!(stream.answer().await, Answer::Silence);
    let mut stream = Stream::open(&shared);
    send(&mut stream, 7, &[range], 5);
    assert_eq!(stream.answer().await, Answer::Silence);

    let c = shared.counters.counts();
    assert_eq!((c.unique, c.declared, c.undeclared, c.elsewhere), (6, 3, 0, 6));
    let missing: Vec<_> = std::iter::from_fn(|| queue.try_recv().ok())
        .map(|job| match job {
            Job::Batch(b) => b.missing,
            Job::Stopping { .. } => u64::MAX,
        })
        .collect();
    assert_eq!(missing, [0, 9]);
}

#[tokio::test]
async fn a_batch_that_is_gone_without_a_word_is_missing_in_the_equation_but_not_at_the_end() {
    let (shared, mut queue) = processor(10);
    register(&shared, "edge");
    let mut stream = Stream::open(&shared);
    for batch in sealed("edge", 7, 3) {
        stream.send(batch.bytes);
    }
    assert_eq!(stream.answer().await, Answer::Silence);

    let mut imbalance = || {
        drop(queue.try_recv().ok());
        shared.counters.counts().imbalance()
    };
    let gone = [imbalance(), imbalance()];
    shared.counters.end();

    assert_eq!((gone, imbalance()), ([[0, 3], [0, 6]], [0, 6]));
}

#[tokio::test]
async fn a_hunter_with_a_new_epoch_in_every_batch_costs_bounded_memory() {
    let (shared, mut queue) = processor(1000);
    register(&shared, "edge");
    let mut stream = Stream::open(&shared);
    for epoch in 1..=200 {
        stream.send(sealed("edge", epoch, 1)[0].bytes.clone());
    }
    assert_eq!(stream.answer().await, Answer::Silence);

    assert!(shared.ingest.snapshot().len() <= 64);
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_look_at_its_credit_is_not_read_from_until_something_is_stored() {
    let (shared, mut queue) = processor(1000);
    register(&shared, "edge");
    let mut stream = Stream::open(&shared);
    for batch in sealed("edge", 7, 300) {
        stream.send(batch.bytes);
    }
    let mut taken = async || {
        assert_eq!(stream.answer().await, Answer::Silence);
        std::iter::from_fn(|| queue.try_recv().ok()).collect::<Vec<_>>()
    };

    let first = taken().await;
    let nothing = taken().await;
    let Job::Batch(batch) = &first[0] else { panic!("no batch") };
    shared.answer(batch, FlowControl::FlowContinue);
    assert!(matches!(stream.answer().await, Answer::Control(_)));
    assert_eq!(stream.answer().await, Answer::Silence);
    let next = std::iter::from_fn(|| queue.try_recv().ok()).count();

    assert_eq!((first.len(), nothing.len(), next), (256, 0, 1));
}

#[tokio::test]
async fn a_connection_that_breaks_while_a_batch_waits_leaves_the_equation_whole() {
    let (shared, mut queue) = processor(1);
    register(&shared, "edge");
    let batches = sealed("edge", 7, 2);
    let mut stream = Stream::open(&shared);
    stream.send(batches[0].bytes.clone());
    stream.send(batches[1].bytes.clone());
    assert_eq!(stream.answer().await, Answer::Silence);
    drop(stream);

    let c = shared.counters.counts();

    assert_eq!(handed(&mut queue).await, (7, 1));
    assert_eq!((c.received, c.rejected[Refused::Broken as usize], c.imbalance()), (6, 3, [0, 0]));
    assert_eq!(shared.roster.lock().get("edge").unwrap().streaming, 0);
}

/// Sends 15 batches on each stream: what they are worth and what it took until all were handed on, in seconds.
async fn paced(streams: &mut [(Stream, u64)], hunter: &str, queue: &mut mpsc::Receiver<Job>) -> (f64, f64) {
    let (began, mut bytes, mut stored) = (tokio::time::Instant::now(), 0_u32, 0);
    for (stream, epoch) in &*streams {
        for batch in sealed_of(40, hunter, *epoch, 15) {
            bytes += u32::try_from(batch.bytes.len()).unwrap();
            stream.send(batch.bytes);
        }
    }
    while stored < 15 * streams.len() {
        for (stream, _) in &mut *streams {
            assert_eq!(stream.answer().await, Answer::Silence);
            stored += std::iter::from_fn(|| queue.try_recv().ok()).count();
        }
    }
    (f64::from(bytes) / 100_000.0, began.elapsed().as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_hunter_is_read_at_its_rate_over_all_its_streams_and_another_does_not_wait_for_it() {
    let (jobs, mut queue) = mpsc::channel(1024);
    let shared = Shared::new("mid".into(), false, 10, Ingest::default(), 1, Durability::Disk, jobs);
    let shared = Arc::new(shared.reading(Rates { bytes: NonZeroU64::new(100_000), batches: None }));
    register(&shared, "edge");
    register(&shared, "other");
    let two = &mut [(Stream::open(&shared), 1), (Stream::open(&shared), 2)];
    let (worth, took) = paced(two, "edge", &mut queue).await;
    assert!(worth > 2.0 && (worth - 1.2..worth).contains(&took), "{took} of {worth} s, of which one is at hand");
    let again = &mut [(Stream::open(&shared), 4)];
    assert!(paced(again, "edge", &mut queue).await.1 > 1.0, "what is owed is owed on another stream, too");

    let (worth, took) = paced(&mut [(Stream::open(&shared), 3)], "other", &mut queue).await;
    assert!(worth > 1.0 && took < worth, "{took} of {worth} s");
    let waits = ["edge", "other"].map(|id| shared.roster.lock().get(id).unwrap().pace.waits());
    assert!(waits[0] > 0 && shared.rate_waits.load(std::sync::atomic::Ordering::Relaxed) == waits[0] + waits[1]);
}

#[tokio::test(start_paused = true)]
async fn small_batches_without_end_are_read_at_the_number_a_second_that_a_hunter_may_send() {
    let (jobs, mut queue) = mpsc::channel(1024);
    let shared = Shared::new("mid".into(), false, 10, Ingest::default(), 1, Durability::Disk, jobs);
    let shared = Arc::new(shared.reading(Rates { bytes: NonZeroU64::new(1 << 40), batches: NonZeroU64::new(10) }));
    register(&shared, "edge");
    let two = &mut [(Stream::open(&shared), 1), (Stream::open(&shared), 2)];
    let took = paced(two, "edge", &mut queue).await.1;
    assert!((1.8..3.0).contains(&took), "{took} s for 30 batches, of which 10 may come at once");
    assert!(shared.roster.lock().get("edge").unwrap().pace.waits() > 0);
}

#[tokio::test(start_paused = true)]
async fn neither_many_batches_in_one_frame_nor_a_stream_for_each_makes_a_hunter_faster() {
    let (jobs, mut queue) = mpsc::channel(1024);
    let shared = Shared::new("mid".into(), false, 10, Ingest::default(), 1, Durability::Disk, jobs);
    let shared = Arc::new(shared.reading(Rates { bytes: None, batches: NonZeroU64::new(10) }));
    register(&shared, "edge");
    let now = tokio::time::Instant::now;
    let (one_frame, mut stored) = (now(), 0);
    let mut at_once = Stream::open(&shared);
    let all: Vec<u8> = sealed_of(40, "edge", 1, 30).into_iter().flat_map(|batch| batch.bytes).collect();
    at_once.send(all.into());
    while stored < 30 {
        assert_eq!(at_once.answer().await, Answer::Silence);
        stored += std::iter::from_fn(|| queue.try_recv().ok()).count();
    }
    assert!(one_frame.elapsed().as_secs_f64() >= 1.8, "one frame: {:?}", one_frame.elapsed());

    let many = now();
    let mut streams: Vec<Stream> = (0..20).map(|_| Stream::open(&shared)).collect();
    for (stream, epoch) in streams.iter_mut().zip(2..) {
        stream.send(sealed_of(40, "edge", epoch, 1).remove(0).bytes);
    }
    while stored < 50 {
        let answers = futures_util::future::join_all(streams.iter_mut().map(Stream::answer)).await;
        assert!(answers.iter().all(|a| *a == Answer::Silence), "{answers:?}");
        stored += std::iter::from_fn(|| queue.try_recv().ok()).count();
    }
    assert!(many.elapsed().as_secs_f64() >= 1.0, "a stream each: {:?}", many.elapsed());
}
