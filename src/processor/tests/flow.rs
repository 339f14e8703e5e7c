//! Flow control: what presses, who hears of it, and that nobody waits for ever.

use std::sync::atomic::Ordering;

use super::*;
use crate::batch::BatchSeq;
use crate::net::{AcceptCounters, Pages, Transport};
use crate::processor::access::Access;
use crate::processor::data::ack;
use crate::processor::pages::ProcessorPages;
use crate::processor::pressure::Level;
use crate::processor::shared::Doors;
use crate::wire::PEERS;
use crate::wire::data::FlowControl;
use crate::wire::management::management_service_server::ManagementService;
use crate::wire::management::{ProcessorStatus, StatusRequest};

/// A stream of a hunter that has handed in one batch.
async fn opened(
    shared: &Arc<Shared>,
    queue: &mut mpsc::Receiver<Job>,
    id: &str,
) -> (Stream, Box<crate::processor::shared::Incoming>) {
    register(shared, id);
    let stream = Stream::open(shared);
    stream.send(sealed(id, 7, 1)[0].bytes.clone());
    let mut stream = stream;
    assert_eq!(stream.answer().await, Answer::Silence);
    let Ok(Job::Batch(batch)) = queue.try_recv() else { panic!("no batch") };
    (stream, batch)
}

async fn told(stream: &mut Stream) -> Vec<FlowControl> {
    let mut all = Vec::new();
    while let Answer::Control(c) = stream.answer().await {
        all.push(c.flow_control());
    }
    all
}

fn fill(shared: &Shared, n: usize) {
    for _ in 0..n {
        shared.jobs.try_send(Job::Stopping { hunter: "x".into() }).ok().unwrap();
    }
}

async fn look(shared: &Shared, times: u32) {
    for _ in 0..times {
        tokio::time::advance(Duration::from_millis(100)).await;
        shared.look();
    }
}

/// The predecessor speaks only when it is sent something, and a hunter in a pause sends nothing: it stays there for ever.
#[tokio::test(start_paused = true)]
async fn a_silent_hunter_hears_that_a_pause_is_over_unasked() {
    let (shared, mut queue) = processor(10);
    let (mut one, _first) = opened(&shared, &mut queue, "one").await;
    let (mut two, _second) = opened(&shared, &mut queue, "two").await;

    assert!(shared.pause(true) && !shared.pause(true));
    let began = (told(&mut one).await, told(&mut two).await);
    shared.pause(false);
    let ended = (told(&mut one).await, told(&mut two).await);

    assert_eq!(began, (vec![FlowControl::FlowPause], vec![FlowControl::FlowPause]));
    assert_eq!(ended, (vec![FlowControl::FlowResume], vec![FlowControl::FlowResume]));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_stays_full_slows_and_pauses_and_takes_both_back() {
    let (shared, mut queue) = processor(100);
    let (mut stream, _batch) = opened(&shared, &mut queue, "one").await;

    fill(&shared, 75);
    look(&shared, 12).await;
    let slow = told(&mut stream).await;
    fill(&shared, 20);
    look(&shared, 12).await;
    let pause = told(&mut stream).await;
    (0..70).for_each(|_| drop(queue.try_recv()));
    shared.commit_begins();
    shared.commit_ends();
    let clear = told(&mut stream).await;

    assert_eq!((slow, pause), (vec![FlowControl::FlowSlow], vec![FlowControl::FlowPause]));
    assert_eq!(
        (clear, shared.level()),
        (vec![FlowControl::FlowResume], Level::Continue),
        "at once, with the commit that made room"
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_full_of_bytes_slows_and_pauses_however_few_its_batches() {
    let (shared, _queue) = processor(256);
    let take = |percent: usize| {
        Arc::clone(&shared.queue).try_acquire_many_owned(u32::try_from(shared.queue_kib * percent / 100).unwrap())
    };

    let many = take(75).unwrap();
    look(&shared, 12).await;
    let slow = shared.level();
    let rest = take(20).unwrap();
    look(&shared, 12).await;
    let pause = shared.level();
    drop((many, rest));
    look(&shared, 1).await;

    assert_eq!([slow, pause, shared.level()], [Level::Slow, Level::Pause, Level::Continue]);
}

/// An old hunter un-pauses on nothing but a resume, and ours takes a resume for the end of everything.
#[tokio::test(start_paused = true)]
async fn a_pause_that_becomes_a_slow_is_taken_back_first() {
    let (shared, mut queue) = processor(10);
    let (mut stream, _batch) = opened(&shared, &mut queue, "one").await;

    shared.commit_begins();
    look(&shared, 31).await;
    let running = told(&mut stream).await;
    shared.commit_ends();
    let ended = told(&mut stream).await;
    look(&shared, 101).await;
    let forgotten = told(&mut stream).await;

    assert_eq!(running, [FlowControl::FlowSlow, FlowControl::FlowPause]);
    assert_eq!(ended, [FlowControl::FlowResume, FlowControl::FlowSlow]);
    assert_eq!(forgotten, [FlowControl::FlowResume]);
}

#[tokio::test(start_paused = true)]
async fn a_hunter_that_waits_is_reminded_and_one_that_does_not_is_left_in_peace() {
    let (shared, mut queue) = processor(10);
    let (mut stream, batch) = opened(&shared, &mut queue, "one").await;

    shared.remind();
    let Answer::Control(waiting) = stream.answer().await else { panic!("it has a batch without an answer") };
    batch.acks.answer(batch.view.message().len(), ack(Some(batch.epoch), BatchSeq(1), FlowControl::FlowContinue));
    let Answer::Control(answer) = stream.answer().await else { panic!("no answer") };
    shared.remind();
    let idle = stream.answer().await;
    shared.pause(true);
    assert_eq!(told(&mut stream).await, [FlowControl::FlowPause]);
    shared.remind();
    let Answer::Control(paused) = stream.answer().await else { panic!("a pause is not repeated") };

    assert_eq!((waiting.ack_sequence, waiting.flow_control()), (0, FlowControl::FlowContinue));
    assert_eq!((answer.epoch, answer.ack_sequence, idle), (7, 1, Answer::Silence));
    assert_eq!((paused.epoch, paused.ack_sequence, paused.flow_control()), (7, 1, FlowControl::FlowPause));
}

#[tokio::test(start_paused = true)]
async fn whoever_only_asks_or_watches_moves_nothing() {
    let (shared, mut queue) = processor(10);
    let (mut stream, _batch) = opened(&shared, &mut queue, "one").await;
    let management = crate::processor::management::Management::new(Arc::clone(&shared));
    let pages = ProcessorPages::new(Arc::clone(&shared), Transport::default(), Arc::<AcceptCounters>::default());

    for _ in 0..200 {
        management.get_hunter_status(tonic::Request::new(StatusRequest::default())).await.unwrap();
        for path in ["/metrics", "/statusz", "/livez", "/readyz"] {
            assert!(!pages.page(path).unwrap().text.is_empty());
        }
        look(&shared, 1).await;
    }

    assert_eq!((shared.level(), told(&mut stream).await), (Level::Continue, Vec::new()));
    assert!(queue.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn monitors_are_told_when_hunters_are_slowed_and_when_the_disk_is_full() {
    let (shared, _queue) = processor(10);
    let management = crate::processor::management::Management::new(Arc::clone(&shared));
    let status = async || {
        let answer = management.get_hunter_status(tonic::Request::new(StatusRequest::default())).await.unwrap();
        answer.into_inner().processor_stats.unwrap().status()
    };

    let well = status().await;
    fill(&shared, 8);
    look(&shared, 12).await;
    let slow = status().await;
    shared.pause(true);
    let full = status().await;

    assert_eq!(well, ProcessorStatus::ProcessorHealthy);
    assert_eq!((slow, full), (ProcessorStatus::ProcessorWarning, ProcessorStatus::ProcessorError));
}

#[tokio::test]
async fn pages_say_what_keeps_a_processor_from_storing() {
    let (shared, _queue) = processor(10);
    let pages = ProcessorPages::new(Arc::clone(&shared), Transport::default(), Arc::<AcceptCounters>::default());
    let ready = || pages.page("/readyz").map(|p| (p.good, p.text)).unwrap();

    assert_eq!(ready(), (false, "what the last process left is still being written to its files\n".to_owned()));
    shared.begun.store(true, Ordering::Release);
    assert_eq!(ready(), (false, "the record thread gives no sign of life\n".to_owned()));
    shared.note_alive();
    assert_eq!(ready(), (true, "ok\n".to_owned()));
    shared.pause(true);
    assert_eq!(ready(), (false, "the disk is full or cannot be written\n".to_owned()));
    shared.pause(false);
    shared.ending.shut();
    assert_eq!(pages.page("/readyz").unwrap().text, "stopping\n");
}

#[tokio::test]
async fn more_hunters_than_series_are_summed_up() {
    let (jobs, _queue) = mpsc::channel(1);
    let shared = Arc::new(Shared::new("mid".into(), false, 3000, Ingest::default(), 1, Durability::Disk, jobs));
    (0..3000).for_each(|n| register(&shared, &format!("h{n}\"")));
    let pages = ProcessorPages::new(Arc::clone(&shared), Transport::default(), Arc::<AcceptCounters>::default());

    let text = pages.page("/metrics").unwrap().text;

    let series = text.lines().filter(|l| !l.starts_with('#')).count();
    assert!(series <= 2000 && text.contains("lc_metrics_left_out 0\n"), "{series}");
    assert!(text.contains("lc_hunters{up=\"0\"} 3000\n"));
}

#[tokio::test]
async fn a_hunter_that_finds_no_room_is_told_where_there_may_be_some() {
    let (shared, _queue) = processor(1);
    (0..10).for_each(|n| register(&shared, &format!("h{n}")));
    let management = crate::processor::management::Management::new(Arc::clone(&shared));
    let asks = || async {
        let r = HunterRegistration { hunter_id: "late".into(), ..HunterRegistration::default() };
        management.register_hunter(tonic::Request::new(r)).await
    };

    let alone = asks().await.unwrap_err();
    let peers = vec!["west:55555".to_owned(), "east:55555".to_owned()];
    let doors = Doors { connections: Arc::default(), access: Access::default(), peers: peers.clone() };
    assert!(shared.doors.set(doors).is_ok());
    let refused = asks().await.unwrap_err();
    shared.roster.lock().expire(Timestamp::from_nanos(i64::MAX));
    let taken = asks().await.unwrap().into_inner();

    assert_eq!((alone.code(), refused.code()), (Code::ResourceExhausted, Code::ResourceExhausted));
    assert!(alone.message().ends_with("raise --max-hunters") && alone.metadata().get(PEERS).is_none(), "{alone}");
    assert_eq!(refused.metadata().get(PEERS).unwrap(), "west:55555,east:55555");
    assert!(refused.message().ends_with("raise --max-hunters; or go to west:55555, east:55555"), "{refused}");
    assert_eq!((taken.accepted, taken.peers), (true, peers));
}
