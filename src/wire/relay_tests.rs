//! Batches that processors pass on, read by the generated types and by the view.

use prost::Message;

use super::data::{CapturedPacket, PacketBatch};
use crate::batch::{
    BatchKey, BatchSeq, BatchView, Epoch, GRPC_PREFIX, HOPS_MAX, Relay, ViewLimits, grpc_prefix, key_of, relayed,
};

fn batch(epoch: u64) -> BatchView {
    let packet = CapturedPacket { data: vec![7; 60].into(), interface_index: 1, ..CapturedPacket::default() };
    let batch = PacketBatch { hunter_id: "edge".into(), sequence: 9, epoch, packets: vec![packet; 3], ..PacketBatch::default() };
    BatchView::parse(batch.encode_to_vec().into(), &ViewLimits::default()).unwrap()
}

fn pass(view: &BatchView, processor: &str, interfaces: &[String], key: Option<(Epoch, BatchSeq)>) -> BatchView {
    let message = relayed(view, &Relay { processor, interfaces, key });
    assert_eq!(message[..GRPC_PREFIX], grpc_prefix(message.len() - GRPC_PREFIX));
    BatchView::parse(message.slice(GRPC_PREFIX..), &ViewLimits::default()).unwrap()
}

#[test]
fn a_batch_that_is_passed_on_keeps_its_key_and_tells_its_way() {
    let names = ["eth0".to_owned(), "eth1".to_owned()];
    let first = pass(&batch(5), "west", &names, None);
    let second = pass(&first, "centre", &["wrong".to_owned()], Some((Epoch(77), BatchSeq(1))));

    assert_eq!(second.path().collect::<Vec<_>>(), ["west", "centre"]);
    assert_eq!(second.relay_interfaces().collect::<Vec<_>>(), ["eth0", "eth1"]);
    assert_eq!((second.hunter_id(), second.epoch(), second.sequence(), second.len()), ("edge", Some(Epoch(5)), BatchSeq(9), 3));
    assert_eq!(second.key(), Some((Epoch(5), BatchSeq(9))));
    let key = BatchKey { hunter: "edge".into(), epoch: Epoch(5), seq: BatchSeq(9) };
    assert_eq!(key_of(second.message()), Ok(key));
    // the generated types read the same
    let wire = PacketBatch::decode(second.message().clone()).unwrap().relay.unwrap();
    assert_eq!((wire.path.len(), wire.interfaces.len(), wire.epoch, wire.sequence), (2, 2, 0, 0));
}

#[test]
fn a_hunter_without_epochs_gets_one_for_its_key_and_a_number_there_and_stays_without() {
    let given = Some((Epoch(6), BatchSeq(300)));
    let passed = pass(&pass(&batch(0), "west", &[], given), "centre", &[], Some((Epoch(7), BatchSeq(8))));

    assert_eq!((passed.epoch(), passed.sequence(), passed.key()), (None, BatchSeq(9), given));
    let key = key_of(passed.message()).unwrap();
    assert_eq!((key.epoch, key.seq), (Epoch(6), BatchSeq(300)));
    assert_eq!(batch(0).key(), None);
    let wire = PacketBatch::decode(passed.message().clone()).unwrap().relay.unwrap();
    assert_eq!((wire.epoch, wire.sequence), (6, 300));
}

#[test]
fn names_and_ways_are_bounded() {
    let names: Vec<String> = (0..100).map(|n| format!("{n:01000}")).collect();
    let mut view = pass(&batch(5), "p", &names, None);
    assert_eq!(view.relay_interfaces().len(), (32 << 10) / 1000);
    for _ in 0..HOPS_MAX {
        view = pass(&view, "p", &[], None);
    }
    let more = relayed(&view, &Relay { processor: "p", interfaces: &[], key: None });
    assert!(BatchView::parse(more.slice(GRPC_PREFIX..), &ViewLimits::default()).is_err());
    for len in 0..view.message().len() {
        let _no_panic = key_of(&view.message()[..len]);
    }
}
