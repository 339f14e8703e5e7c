//! The stream of a processor below this one: whose its batches are, what is refused of it, how its acknowledgements name hunters.

use super::*;
use crate::batch::{BatchView, Relay, ViewLimits, relayed};
use crate::processor::counts::Refused;
use crate::processor::data::{ack, of_hunter};
use crate::wire::data::{CapturedPacket, FlowControl, PacketBatch};
use crate::wire::management::ProcessorRegistration;

fn join(shared: &Shared, id: &str) {
    let r = ProcessorRegistration { processor_id: id.into(), durable_acks: true, ..ProcessorRegistration::default() };
    shared.below.lock().register(&shared.id, r, None, crate::telemetry::clock::wall()).unwrap();
}

/// A batch as the last of these processors passes it on.
fn passed(sealed: &SealedBatch, way: &[&str]) -> Bytes {
    let mut bytes = sealed.bytes.clone();
    for processor in way {
        let view = BatchView::parse(bytes.slice(5..), &ViewLimits::default()).unwrap();
        bytes = relayed(&view, &Relay { processor, interfaces: &["eth9".to_owned()], key: None });
    }
    bytes
}

#[tokio::test]
async fn a_processor_brings_the_batches_of_all_its_hunters_and_is_told_whose_are_stored() {
    let (shared, mut queue) = processor(8);
    join(&shared, "west");
    let mut stream = Stream::open(&shared);
    for hunter in ["a", "b"] {
        // the same epoch: a hunter's name is part of the key
        stream.send(passed(&sealed(hunter, 7, 1)[0], &["farm", "west"]));
    }
    assert_eq!(stream.answer().await, Answer::Silence);

    for hunter in ["a", "b"] {
        let Some(Job::Batch(b)) = queue.recv().await else { panic!("no batch") };
        assert_eq!((&*b.hunter, &*b.interfaces, b.announced), (hunter, &["eth9".to_owned()][..], Some(Epoch(7))));
        b.acks.answer(b.view.message().len(), of_hunter(ack(b.announced, b.seq, FlowControl::FlowContinue), &b.hunter, true));
    }

    for hunter in ["a", "b"] {
        let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
        assert_eq!((told.hunter_id.as_str(), told.epoch, told.ack_sequence), (hunter, 7, 1));
    }
    stream.send(passed(&sealed("b", 7, 1)[0], &["farm", "west"]));
    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
    assert_eq!((told.hunter_id.as_str(), told.epoch, shared.counters.counts().duplicate), ("b", 7, 3), "it came before");
}

/// What the record and commit threads do.
async fn store_next(shared: &Shared, queue: &mut mpsc::Receiver<Job>) -> (String, u64) {
    let Job::Batch(mut b) = timeout(LONG, queue.recv()).await.unwrap().unwrap() else { panic!("no batch") };
    b.queued.commit(0, [0, 0]);
    shared.ingest.store(&b.hunter, b.epoch, b.seq);
    shared.answer(&b, FlowControl::FlowContinue);
    shared.tell_stored();
    (b.hunter.to_string(), b.seq.0)
}

async fn acked(stream: &mut Stream) -> (u64, u64) {
    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
    assert_eq!((told.hunter_id.as_str(), told.epoch), ("a", 7));
    (told.ack_from, told.ack_sequence)
}

/// It was acknowledged by one, which was then cut off from here; the other was quicker.
#[tokio::test]
async fn what_a_hunter_sent_first_to_one_processor_and_then_to_another_is_taken_in_whatever_order_it_comes() {
    let (shared, mut queue) = processor(8);
    join(&shared, "west");
    join(&shared, "east");
    let batches = sealed("a", 7, 6);
    let (mut west, mut east) = (Stream::open(&shared), Stream::open(&shared));
    for b in &batches[3..5] {
        east.send(passed(b, &["east"]));
    }
    assert_eq!(east.answer().await, Answer::Silence);
    for seq in [4, 5] {
        assert_eq!(store_next(&shared, &mut queue).await, ("a".to_owned(), seq));
    }
    assert_eq!(acked(&mut east).await, (4, 5));

    for b in [&batches[0], &batches[1], &batches[4], &batches[5]] {
        west.send(passed(b, &["west"]));
    }
    assert_eq!(acked(&mut west).await, (4, 5), "the fifth is here; of what west sent before it nothing is stored");
    for seq in [1, 2, 6] {
        assert_eq!(store_next(&shared, &mut queue).await, ("a".to_owned(), seq));
    }

    assert_eq!([acked(&mut west).await, acked(&mut west).await], [(1, 2), (4, 6)]);
    let c = shared.counters.counts();
    assert_eq!((c.unique, c.duplicate, c.late, c.imbalance()), (15, 3, 6, [0, 0]));
    assert_eq!(
        shared.ingest.resume_points("a", &[7]),
        [(Epoch(7), crate::batch::BatchSeq(2))],
        "the third may be with the hunter"
    );
}

#[tokio::test]
async fn a_hunter_is_told_of_what_could_not_be_said_when_it_was_stored() {
    let (shared, mut queue) = processor(8);
    register(&shared, "a");
    join(&shared, "west");
    let batches = sealed("a", 7, 2);
    let (mut own, mut west) = (Stream::open(&shared), Stream::open(&shared));
    own.send(batches[1].bytes.clone());
    assert_eq!(own.answer().await, Answer::Silence);
    west.send(passed(&batches[0], &["west"]));
    assert_eq!(west.answer().await, Answer::Silence);

    store_next(&shared, &mut queue).await;
    let Answer::Control(told) = own.answer().await else { panic!("nothing is said") };
    assert_eq!(told.ack_sequence, 0, "the first is on its way, and might be the hunter's");
    store_next(&shared, &mut queue).await;

    let Answer::Control(told) = own.answer().await else { panic!("nobody says that it is stored") };
    assert_eq!((told.epoch, told.ack_from, told.ack_sequence), (7, 0, 2));
    assert_eq!((acked(&mut west).await, own.answer().await), ((1, 2), Answer::Silence));
}

#[tokio::test]
async fn a_processor_of_the_predecessor_brings_its_hunters_batches_whatever_they_are_numbered_also_further_up() {
    let (shared, mut queue) = processor(8);
    let r = ProcessorRegistration { processor_id: "go".into(), ..ProcessorRegistration::default() };
    shared.below.lock().register("mid", r, None, crate::telemetry::clock::wall()).unwrap();
    let mut stream = Stream::open(&shared);
    let plain = |hunter: &str, sequence| {
        let batch = PacketBatch {
            hunter_id: hunter.into(),
            sequence,
            packets: vec![CapturedPacket::default()],
            ..PacketBatch::default()
        };
        let message = batch.encode_to_vec();
        Bytes::from([&crate::batch::grpc_prefix(message.len())[..], &message].concat())
    };
    // a hunter of the predecessor counts from 1 again whenever it connects
    for (hunter, sequence) in [("a", 1), ("b", 1), ("a", 2), ("a", 1)] {
        stream.send(plain(hunter, sequence));
    }
    assert_eq!(stream.answer().await, Answer::Silence);

    let (mut seen, mut climbing) = (Vec::new(), Vec::new());
    while let Ok(Job::Batch(b)) = queue.try_recv() {
        seen.push((b.hunter.to_string(), b.seq.0, b.announced));
        climbing.push(crate::processor::upstream::passed_on(&b, "low"));
    }
    let expected = [("a", 1), ("b", 1), ("a", 2), ("a", 3)].map(|(h, seq)| (h.to_owned(), seq, None));
    assert_eq!(seen, expected);
    assert_eq!(shared.counters.counts().duplicate, 0);

    let (top, mut queue) = processor(8);
    join(&top, "low");
    let mut stream = Stream::open(&top);
    for bytes in climbing {
        stream.send(bytes);
    }
    assert_eq!(stream.answer().await, Answer::Silence);
    let mut seen = Vec::new();
    while let Ok(Job::Batch(b)) = queue.try_recv() {
        seen.push((b.hunter.to_string(), b.seq.0));
    }
    assert_eq!(seen, expected.map(|(h, seq, _)| (h, seq)), "so they are recognised above, too");
}

#[tokio::test]
async fn loops_depths_strangers_and_feigned_ways_end_the_stream() {
    let deep: Vec<String> = (0..9).map(|n| format!("p{n}")).chain(["west".to_owned()]).collect();
    let deep: Vec<&str> = deep.iter().map(String::as_str).collect();
    let cases: [(&[&[&str]], Refused, &str); 5] = [
        (&[&["mid", "west"]], Refused::Loop, "loop: mid → west → mid"),
        (&[&deep], Refused::Depth, "more than 10 processors"),
        (&[&["east"]], Refused::Unregistered, "processor 'east' is not registered"),
        (&[&["west"], &["west", "south"]], Refused::Foreign, "this stream is processor 'west's"),
        (&[&[], &["west"]], Refused::Foreign, "this stream is hunter 'a's"),
    ];
    for (ways, why, text) in cases {
        let (shared, _queue) = processor(8);
        register(&shared, "a");
        join(&shared, "west");
        let mut stream = Stream::open(&shared);
        for (way, batch) in ways.iter().zip(sealed("a", 7, 2)) {
            stream.send(passed(&batch, way));
        }

        let Answer::End(_, said) = stream.answer().await else { panic!("{why:?} goes on") };

        assert!(said.contains(text), "{said}");
        assert_eq!(shared.counters.counts().refusals[why as usize], 1, "{why:?}");
        assert_eq!(shared.counters.counts().imbalance(), [0, 0]);
    }
}
