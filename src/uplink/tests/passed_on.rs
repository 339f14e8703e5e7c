//! A processor's uplink: batches of several hunters, each acknowledged in its hunter's name.

use super::*;
use crate::batch::{BatchKey, BatchSeq, BatchView, Relay, ViewLimits, relayed};

/// Batches of two hunters that have the same epoch, in turn, as a processor puts them into its queue.
fn mixed(n: usize) -> Vec<SealedBatch> {
    let of = |hunter: &str| {
        let limits = Limits::default();
        let mut encoder = Encoder::new(EncoderConfig { hunter_id: hunter.into(), epoch: A, limits });
        let frame = Frame {
            ts: Timestamp::from_nanos(9),
            wire_len: 200,
            link: LinkType::ETHERNET,
            interface: InterfaceId(0),
            data: &[0x55; 200],
        };
        let batch = |_| {
            assert_eq!(encoder.push(&frame, None, &[], false), Pushed::Stored);
            encoder.seal(5, 1, &BatchStats::default()).unwrap()
        };
        (0..n).map(batch).collect::<Vec<_>>()
    };
    let turns = of("a").into_iter().zip(of("b")).flat_map(|(a, b)| [a, b]);
    let queued = |(i, sealed): (usize, SealedBatch)| {
        let view = BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap();
        let message = relayed(&view, &Relay { processor: "west", interfaces: &["eth9".to_owned()], key: None });
        SealedBatch::stored(B, BatchSeq(i as u64 + 1), 1, message)
    };
    turns.enumerate().map(queued).collect()
}

fn room() -> BacklogConfig {
    BacklogConfig { relays: true, ..BacklogConfig::default() }
}

fn as_processor(config: UplinkConfig) -> UplinkConfig {
    UplinkConfig { party: Party::Processor, ..config }
}

fn arrived(peer: &Peer, hunter: &str) -> Vec<u64> {
    peer.state.batches.lock().iter().filter(|b| b.hunter_id == hunter).map(|b| b.sequence).collect()
}

#[tokio::test]
async fn a_peer_killed_in_mid_stream_gets_every_batch_of_every_hunter_in_order() {
    let mut peer = Peer::start(State { extended: true, ack_lag: AtomicU64::new(7), ..State::default() });
    let processor = Hunter::with(&[&peer.target], as_processor, room());
    let batches = mixed(40);
    processor.offer(&batches[..50]);
    until(|| processor.backlog.snapshot().acked_batches > 10).await;
    peer.kill();
    processor.offer(&batches[50..]);
    peer.restart();

    processor.stop(Ending::Drain).await.unwrap();

    for hunter in ["a", "b"] {
        let seqs = arrived(&peer, hunter);
        let highest = seqs.iter().scan(0, |high, s| {
            assert!(*s <= *high + 1, "{seqs:?}");
            *high = (*high).max(*s);
            Some(*high)
        });
        assert_eq!(highest.last(), Some(40));
    }
    let s = processor.backlog.snapshot();
    assert_eq!((s.offered_packets, s.acked_packets, s.dropped()), (80, 80, 0));
    let first = &peer.state.processors.lock()[0];
    assert_eq!((&*first.processor_id, first.durable_acks), ("edge", true));
    assert!(peer.state.beats.lock().is_empty() && peer.state.registrations.lock().is_empty(), "it is no hunter");
}

#[tokio::test]
async fn an_acknowledgement_in_one_hunters_name_lets_go_of_no_other_batch() {
    let backlog = Backlog::new(room());
    for batch in mixed(3) {
        assert!(matches!(backlog.offer(batch), Offer::Taken));
    }
    let connection = backlog.begin(PeerKind::Extended, &[]);
    while backlog.next_to_send(connection).is_some() {}
    let key = |hunter: &str, epoch, seq| BatchKey { hunter: hunter.into(), epoch, seq: BatchSeq(seq) };

    let all = BatchSeq(0);
    backlog.ack_key(connection, &key("b", A, 2), all);
    backlog.ack_key(connection, &key("c", A, 3), all);
    backlog.ack_key(connection, &key("a", B, 3), all);
    assert_eq!((backlog.snapshot().acked_batches, backlog.snapshot().in_flight_batches), (2, 4));

    // what is below it may be elsewhere and not there
    backlog.ack_key(connection, &key("a", A, 3), BatchSeq(2));
    assert_eq!((backlog.snapshot().acked_batches, backlog.snapshot().in_flight_batches), (4, 2));
    backlog.ack_key(connection, &key("a", A, 1), BatchSeq(1));
    backlog.ack_key(connection, &key("b", A, 9), all);
    assert!(backlog.is_drained());
}

#[tokio::test]
async fn a_peer_of_the_predecessor_gets_every_hunters_batches_with_their_interfaces_by_name() {
    let peer = Peer::start(State::default());
    let processor = Hunter::with(&[&peer.target], as_processor, room());
    processor.offer(&mixed(5));

    processor.stop(Ending::Drain).await.unwrap();

    let batches = peer.state.batches.lock();
    assert_eq!(
        batches.iter().map(|b| b.sequence).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>(),
        "numbered on the connection"
    );
    assert!(batches.iter().all(|b| b.epoch == 0 && b.relay.is_none() && &*b.packets[0].interface_name == "eth9"));
    assert_eq!(batches.iter().filter(|b| b.hunter_id == "b").count(), 5);
    assert_eq!(processor.backlog.snapshot().peer, PeerKind::Plain);
    assert_eq!(peer.state.processors.lock().len(), 1, "it connects back each time: once is enough");
}

#[tokio::test]
async fn a_refusal_says_why_and_is_tried_again() {
    let peer = Peer::start(State { extended: true, ..State::default() });
    *peer.state.no_processors.lock() = "loop: west → top → west".to_owned();
    let processor = Hunter::with(&[&peer.target], as_processor, room());
    processor.offer(&mixed(1));
    until(|| peer.state.processors.lock().len() > 1).await;
    assert!(peer.state.batches.lock().is_empty());
    peer.state.no_processors.lock().clear();

    processor.stop(Ending::Drain).await.unwrap();

    assert_eq!(processor.backlog.snapshot().acked_batches, 2);
}
