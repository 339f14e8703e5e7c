use proptest::prelude::*;

use std::sync::Arc;

use super::legacy::{LEGACY_MAX, LegacyMeta, rewrite};
use super::*;
use crate::packet::{Frame, InterfaceId, LinkType};
use crate::reason::DropReason;

const EPOCH: Epoch = Epoch::new(1_700_000_000_000, 0xabcde);

#[test]
fn a_packet_comes_out_as_it_went_in() {
    let call = context("a@b", &["f1", "f2"]);
    let mut encoder = encoder(Limits::default());

    let pushed = encoder.push(&frame(7, &[1, 2, 3]), Some((ContextKey(1), &call)), &[], false);
    let sealed = encoder.seal(99, 5, &BatchStats { total_captured: 10, ..BatchStats::default() }).unwrap();
    let view = read(&sealed);

    assert_eq!(pushed, Pushed::Stored);
    assert_eq!((view.hunter_id(), view.sequence(), view.epoch()), ("edge", BatchSeq(1), Some(EPOCH)));
    assert_eq!((view.timestamp_ns(), view.filter_version(), view.stats().total_captured), (99, 5, 10));
    let p = view.packets().next().unwrap();
    assert_eq!((p.data(), p.ts(), p.wire_len()), (&[1, 2, 3][..], Timestamp::from_nanos(7), 1500));
    assert_eq!((p.link(), p.interface_index(), p.repeat()), (LinkType::LINUX_SLL, 3, false));
    let c = p.context().unwrap();
    assert_eq!((c.call_id(), c.leg(), c.claim()), ("a@b", "leg", "sdp"));
    assert_eq!((c.phone_rule(), c.holes()), ("whole number", "before_match 1 2 3"));
    assert_eq!(c.filter_ids().collect::<Vec<_>>(), ["f1", "f2"]);
}

#[test]
fn packets_of_an_interface_that_was_named_carry_its_name_and_no_others() {
    let mut encoder = encoder(Limits::default());
    encoder.name_interface(InterfaceId(4), "late0");
    for interface in [3, 4, 5] {
        let frame = Frame { interface: InterfaceId(interface), ..frame(7, &[1, 2, 3]) };
        assert_eq!(encoder.push(&frame, None, &[], false), Pushed::Stored);
    }

    let view = read(&encoder.seal(99, 5, &BatchStats::default()).unwrap());

    let named: Vec<_> = view.packets().map(|p| (p.interface_index(), p.interface_name(), p.data())).collect();
    assert_eq!(named, [(3, None, &[1, 2, 3][..]), (4, Some("late0"), &[1, 2, 3]), (5, None, &[1, 2, 3])]);
    let registered: Vec<String> = (0..6).map(|n| format!("eth{n}")).collect();
    let old = rewrite(&view, BatchSeq(1), &registered, |_| LegacyMeta::default());
    let old = BatchView::parse(old.bytes.slice(GRPC_PREFIX..), &ViewLimits::default()).unwrap();
    assert_eq!(old.packets().map(|p| p.interface_name()).collect::<Vec<_>>(), [Some("eth3"), Some("late0"), Some("eth5")]);
}

#[test]
fn each_context_is_written_once_per_batch() {
    let (a, b) = (context("a", &[]), context("b", &[]));
    let mut encoder = encoder(Limits::default());
    for i in 0..10 {
        let (key, call) = if i % 2 == 0 { (ContextKey(1), &a) } else { (ContextKey(2), &b) };
        assert_eq!(encoder.push(&frame(i, &[0; 40]), Some((key, call)), &[], false), Pushed::Stored);
    }

    let view = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());

    assert_eq!(view.contexts().map(|c| c.call_id()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(view.packets().enumerate().all(|(i, p)| p.context_index() as usize == i % 2 + 1));
}

#[test]
fn a_shared_packet_names_every_call_and_a_repeat_says_so() {
    let (a, b) = (context("a", &[]), context("b", &[]));
    let mut encoder = encoder(Limits::default());
    let shared = [(ContextKey(2), &b)];

    assert_eq!(encoder.push(&frame(0, &[0; 40]), Some((ContextKey(1), &a)), &shared, true), Pushed::Stored);
    let view = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());

    let p = view.packets().next().unwrap();
    assert!(p.repeat());
    assert_eq!(p.context().unwrap().call_id(), "a");
    assert_eq!(p.shared().map(|c| c.call_id()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn sequences_and_packet_indices_run_on_over_batches() {
    let mut encoder = encoder(Limits::default());
    let mut seen = Vec::new();
    for n in [2, 3, 1] {
        for _ in 0..n {
            assert_eq!(encoder.push(&frame(0, &[0; 9]), None, &[], false), Pushed::Stored);
        }
        let view = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());
        seen.push((view.sequence().0, view.first_packet_index()));
    }

    assert_eq!(seen, [(1, 0), (2, 2), (3, 5)]);
    assert!(encoder.seal(0, 0, &BatchStats::default()).is_none());
    assert_eq!(encoder.sealed_packets(), 6);
}

#[test]
fn a_packet_that_does_not_fit_leaves_no_trace() {
    let (a, b) = (context("a", &[]), context("b", &[]));
    let mut encoder = encoder(Limits { bytes: 1000, ..Limits::default() });

    assert_eq!(encoder.push(&frame(0, &[0; 500]), Some((ContextKey(1), &a)), &[], false), Pushed::Stored);
    assert_eq!(encoder.push(&frame(0, &[0; 500]), Some((ContextKey(2), &b)), &[], false), Pushed::SealFirst);
    let first = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());
    assert_eq!(encoder.push(&frame(0, &[0; 500]), Some((ContextKey(2), &b)), &[], false), Pushed::Stored);
    let second = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());

    assert_eq!(first.contexts().map(|c| c.call_id()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(second.packets().next().unwrap().context().unwrap().call_id(), "b");
}

#[test]
fn a_packet_above_the_hard_cap_is_refused_and_counted() {
    let limits = Limits { bytes: 1000, hard_bytes: 3000, ..Limits::default() };
    let mut encoder = encoder(limits);

    assert_eq!(encoder.push(&frame(0, &[0; 3000]), None, &[], false), Pushed::Refused(DropReason::Oversize));
    assert_eq!(encoder.push(&frame(0, &[0; 2000]), None, &[], false), Pushed::StoredFull);

    assert_eq!((encoder.oversize(), encoder.pending()), (1, 1));
}

#[test]
fn dropped_ranges_follow_a_sealed_batch() {
    let mut encoder = encoder(Limits::default());
    assert_eq!(encoder.push(&frame(0, &[5; 9]), None, &[], false), Pushed::Stored);
    let sealed = encoder.seal(0, 0, &BatchStats::default()).unwrap();
    let range = DroppedRange { from: BatchSeq(3), to: BatchSeq(300), packets: 77, reason: DropReason::MemFull };

    let wire = with_ranges(&sealed, &[range, range], None).concat();
    let view = BatchView::parse(Bytes::from(wire.clone()).slice(GRPC_PREFIX..), &ViewLimits::default()).unwrap();

    assert_eq!(wire[..5], grpc_prefix(wire.len() - 5));
    let expected = DroppedView { from: BatchSeq(3), to: BatchSeq(300), packets: 77, reason: "mem_full" };
    assert_eq!(view.dropped_ranges().collect::<Vec<_>>(), [expected, expected]);
    assert_eq!(view.packets().next().unwrap().data(), [5; 9]);
}

#[test]
fn a_batch_that_is_made_longer_stays_within_what_receivers_have_room_for() {
    for (len, times, packets) in [(1000, 5, 110..123), (1, 1000, LONG_PACKETS..LONG_PACKETS + 1)] {
        let mut encoder = encoder(Limits { bytes: if len == 1 { 1 << 20 } else { 64 << 10 }, ..Limits::default() });
        encoder.lengthen(times);
        let data = vec![1; len];
        while encoder.push(&frame(1, &data), None, &[], false) == Pushed::Stored {}
        let sealed = encoder.seal(0, 0, &BatchStats::default()).unwrap();

        assert!(packets.contains(&sealed.packets), "{}", sealed.packets);
        read(&sealed);
    }
}

#[test]
fn full_batches_reuse_buffers_that_nobody_holds() {
    let mut encoder = encoder(Limits::default());
    let mut addresses = Vec::new();
    for _ in 0..20 {
        while encoder.push(&frame(0, &[0; 1400]), None, &[], false) == Pushed::Stored {}
        let sealed = encoder.seal(0, 0, &BatchStats::default()).unwrap();
        addresses.push(sealed.bytes.as_ptr() as usize);
    }

    addresses.sort_unstable();
    addresses.dedup();

    assert!(addresses.len() <= 3, "{} buffers for batches dropped at once", addresses.len());
}

#[test]
fn a_context_index_without_a_context_refuses_the_batch() {
    // packets { context: 2 }
    let bytes = Bytes::from_static(&[0x22, 3, 0xc0, 0x0c, 2]);

    let refused = BatchView::parse(bytes, &ViewLimits::default());

    assert_eq!(refused.err(), Some(BatchError::NoSuchContext { index: 2, contexts: 0 }));
}

#[test]
fn more_packets_than_the_limit_refuse_the_batch() {
    let bytes = Bytes::from([0x22, 0].repeat(5));
    let limits = ViewLimits { packets: 4, ..ViewLimits::default() };

    let refused = BatchView::parse(bytes, &limits);

    assert_eq!(refused.err(), Some(BatchError::TooMany { what: "packets", limit: 4 }));
}

#[test]
fn a_batch_weighs_what_was_noted_of_it_too() {
    let empty = Bytes::from([0x22, 0].repeat(10_000));

    let view = BatchView::parse(empty, &ViewLimits::default()).unwrap();

    assert_eq!(view.len(), 10_000);
    assert!(view.bytes() > 20_000 + 10_000 * 40, "{}", view.bytes());
}

#[test]
fn an_old_peer_means_ethernet_by_link_type_zero() {
    let plain = BatchView::parse(Bytes::from_static(&[0x22, 0]), &ViewLimits::default()).unwrap();
    let ours = BatchView::parse(Bytes::from_static(&[0x22, 0, 0xc1, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0]), &ViewLimits::default());

    assert_eq!(plain.packets().next().unwrap().link(), LinkType::ETHERNET);
    assert_eq!(ours.unwrap().packets().next().unwrap().link(), LinkType::NULL);
}

#[test]
fn rewriting_for_an_old_peer_stays_below_its_limit() {
    let long = "x".repeat(60_000);
    let mut encoder = encoder(Limits { bytes: 4 << 20, ..Limits::default() });
    let call = context(&long, &[]);
    for _ in 0..200 {
        assert_eq!(encoder.push(&frame(0, &[0; 100]), Some((ContextKey(1), &call)), &[], false), Pushed::Stored);
    }
    let view = read(&encoder.seal(0, 0, &BatchStats::default()).unwrap());

    let old = rewrite(&view, BatchSeq(1), &[], |_| LegacyMeta::default());
    let back = BatchView::parse(old.bytes.slice(GRPC_PREFIX..), &ViewLimits::default()).unwrap();

    assert!(old.bytes.len() <= LEGACY_MAX && old.without_metadata > 0);
    assert_eq!(back.len(), 200);
}

proptest! {
    #[test]
    fn the_encoder_never_exceeds_its_limits_but_takes_one_larger_packet_alone(
        sizes in prop::collection::vec((0_usize..3000, 0_u64..6), 1..200),
    ) {
        let limits = Limits { packets: 20, bytes: 2000, hard_bytes: 3500, ..Limits::default() };
        let mut encoder = encoder(limits);
        let calls: Vec<_> = (0..6).map(|i| context(&"c".repeat(i * 30), &["id"])).collect();
        let (mut sealed, mut pushed) = (Vec::new(), 0);
        for (size, key) in sizes {
            let data = vec![0; size];
            let owner = (key > 0).then(|| (ContextKey(key), &calls[usize::try_from(key).unwrap()]));
            loop {
                match encoder.push(&frame(0, &data), owner, &[], false) {
                    Pushed::Stored => { pushed += 1; break }
                    Pushed::StoredFull => {
                        pushed += 1;
                        sealed.extend(encoder.seal(0, 0, &BatchStats::default()));
                        break;
                    }
                    Pushed::SealFirst => {
                        let batch = encoder.seal(0, 0, &BatchStats::default());
                        prop_assert!(batch.is_some());
                        sealed.extend(batch);
                    }
                    Pushed::Refused(_) => prop_assert!(false, "nothing here is above the hard cap"),
                }
            }
        }
        sealed.extend(encoder.seal(0, 0, &BatchStats::default()));
        for batch in &sealed {
            prop_assert!(batch.packets <= 20);
            prop_assert!(batch.bytes.len() <= 2000 || batch.packets == 1 && batch.bytes.len() <= 3500);
            prop_assert_eq!(read(batch).len(), batch.packets as usize);
        }
        prop_assert_eq!(sealed.iter().map(|b| u64::from(b.packets)).sum::<u64>(), pushed);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        touch(BatchView::parse(Bytes::from(bytes), &ViewLimits::default()));
    }

    #[test]
    fn damaged_batches_never_panic(at in 0_usize..2000, bit in 0_u8..8, cut in 0_usize..2000) {
        let call = context("call", &["f1", "f2"]);
        let mut encoder = encoder(Limits::default());
        for i in 0..8 {
            let shared = [(ContextKey(9), &call)];
            let _ = encoder.push(&frame(i, &[7; 30]), Some((ContextKey(1), &call)), &shared, i == 3);
        }
        let sealed = encoder.seal(0, 0, &BatchStats::default()).unwrap();
        let old = rewrite(&read(&sealed), BatchSeq(1), &["eth0".into()], |_| LegacyMeta::default()).bytes;
        for message in [sealed.message(), old.slice(GRPC_PREFIX..)] {
            let mut bytes = message.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            bytes.truncate(bytes.len() - cut % bytes.len());
            touch(BatchView::parse(Bytes::from(bytes), &ViewLimits::default()));
        }
    }
}

/// Uses everything a view gives.
fn touch(view: Result<BatchView, BatchError>) {
    let Ok(view) = view else { return };
    let mut n = view.hunter_id().len() + view.dropped_ranges().map(|r| r.reason.len()).sum::<usize>();
    for p in view.packets() {
        n += p.data().len() + p.data_bytes().len() + p.wire_len() as usize + p.matched_filter_ids().count();
        n += p.context().map_or(0, |c| c.call_id().len() + c.filter_ids().count()) + p.shared().count();
        n += p.legacy().map_or(0, |m| m.sip.map_or(0, |s| s.call_id.len()));
    }
    n += rewrite(&view, BatchSeq(1), &[], |p| p.legacy().unwrap_or_default()).bytes.len();
    std::hint::black_box(n);
}

fn encoder(limits: Limits) -> Encoder {
    Encoder::new(EncoderConfig { hunter_id: "edge".into(), epoch: EPOCH, limits })
}

fn context(call_id: &str, filter_ids: &[&str]) -> Context {
    Context {
        call_id: call_id.into(),
        filter_ids: filter_ids.iter().map(|id| Arc::from(*id)).collect(),
        leg: "leg",
        claim: "sdp".into(),
        phone_rule: "whole number".into(),
        holes: "before_match 1 2 3".into(),
    }
}

fn frame(ns: i64, data: &[u8]) -> Frame<'_> {
    let ts = Timestamp::from_nanos(ns);
    Frame { ts, wire_len: 1500, link: LinkType::LINUX_SLL, interface: InterfaceId(3), data }
}

fn read(sealed: &SealedBatch) -> BatchView {
    assert_eq!(sealed.bytes[..GRPC_PREFIX], grpc_prefix(sealed.bytes.len() - GRPC_PREFIX));
    BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap()
}
