//! What an acknowledgement says at each level of `--durability`, and to whom.

use super::crash::{KERNEL, Kind, Life, PLAIN, live};
use super::*;
use crate::record::fault::{Crash, Witness};
use crate::wire::data::FlowControl;

/// A processor with files, and a hunter's stream to it.
fn connected(kind: Kind, hunter: &str) -> (tempfile::TempDir, Life, Arc<Crash>, Stream) {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::create_dir(tmp.path().join("state")).unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let life = live(tmp.path(), kind, &crash).unwrap();
    register(&life.shared, hunter);
    let stream = Stream::open(&life.shared);
    (tmp, life, crash, stream)
}

/// The next answer that acknowledges this batch of this epoch, and what was asked for until then.
async fn acknowledged(stream: &mut Stream, epoch: u64, seq: u64) -> (StreamControl, Vec<FlowControl>) {
    let mut asked = Vec::new();
    for _ in 0..600 {
        match stream.answer().await {
            Answer::Control(c) if (c.epoch, c.ack_sequence) == (epoch, seq) => return (c, asked),
            Answer::Control(c) => asked.push(c.flow_control()),
            Answer::Silence => {}
            Answer::End(code, why) => panic!("{code:?} {why}"),
        }
    }
    panic!("no acknowledgement; asked for {asked:?}");
}

#[tokio::test]
async fn an_acknowledgement_says_durable_once_the_disk_has_confirmed_and_is_not_given_before() {
    let (_tmp, _life, crash, mut stream) = connected(PLAIN, "edge");
    let batches = sealed("edge", 7, 2);
    stream.send(batches[0].bytes.clone());
    let (first, _) = acknowledged(&mut stream, 7, 1).await;
    crash.fail_syncs(0, u64::MAX);
    stream.send(batches[1].bytes.clone());
    let refused = crash.refused();
    while crash.refused() < refused + 3 {
        let unasked = stream.answer().await;
        let Answer::Control(c) = unasked else { continue };
        assert_ne!((c.epoch, c.ack_sequence), (7, 2), "nobody has confirmed it");
    }
    crash.fail_syncs(0, 0);

    let (second, _) = acknowledged(&mut stream, 7, 2).await;

    assert!(first.durable && second.durable);
    assert_ne!(second.flow_control(), FlowControl::FlowPause, "whoever is acknowledged may go on");
}

#[tokio::test]
async fn where_only_the_kernel_has_it_an_acknowledgement_does_not_say_durable() {
    let (_tmp, _life, _crash, mut stream) = connected(KERNEL, "edge");
    stream.send(sealed("edge", 7, 1)[0].bytes.clone());

    assert!(!acknowledged(&mut stream, 7, 1).await.0.durable);
}

#[tokio::test]
async fn a_hunter_without_epochs_is_never_told_durable() {
    let (_tmp, _life, _crash, mut stream) = connected(PLAIN, "old");
    stream.send(sealed("old", 0, 1)[0].bytes.clone());

    assert!(!acknowledged(&mut stream, 0, 1).await.0.durable);
}
