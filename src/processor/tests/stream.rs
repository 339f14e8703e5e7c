//! One data stream: what is refused, what comes twice, what a broken connection may leave behind.

use super::*;
use crate::processor::data::ack;
use crate::wire::data::FlowControl;

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

    batch.acks.answer(ack(Some(batch.epoch), batch.seq, FlowControl::FlowContinue));

    let Answer::Control(told) = stream.answer().await else { panic!("nothing is said") };
    assert_eq!((told.epoch, told.ack_sequence), (7, 1));
    assert_eq!(stream.answer().await, Answer::End(Code::Ok, String::new()));
}
