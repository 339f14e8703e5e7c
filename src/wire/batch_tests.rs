//! The hand-written batch encoding against the generated one, both ways.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::data;
use crate::batch::legacy::{LegacyMeta, LegacyRtp, LegacySip, rewrite};
use crate::batch::{
    BatchSeq, BatchStats, BatchView, Context, ContextKey, DroppedRange, Encoder, EncoderConfig, Epoch, Limits, Pushed,
    ViewLimits, with_ranges,
};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::reason::DropReason;

proptest! {
    #[test]
    fn the_view_reads_what_prost_writes(batch in batches()) {
        let bytes = Bytes::from(batch.encode_to_vec());

        let view = BatchView::parse(bytes, &ViewLimits::default());

        prop_assert_eq!(shown(&view.unwrap()), normal(batch));
    }

    #[test]
    fn the_view_and_prost_agree_on_damaged_batches(batch in batches(), at in any::<usize>(), byte in any::<u8>(), twice in any::<bool>()) {
        let mut bytes = batch.encode_to_vec();
        if twice {
            bytes.extend_from_slice(&bytes.clone());
        }
        let at = at % bytes.len().max(1);
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }

        if let (Ok(view), Ok(oracle)) =
            (BatchView::parse(Bytes::from(bytes.clone()), &ViewLimits::default()), data::PacketBatch::decode(&*bytes))
        {
            prop_assert_eq!(shown(&view), normal(oracle));
        }
    }

    #[test]
    fn prost_reads_what_the_encoder_writes(packets in prop::collection::vec(pushes(), 1..40), now in any::<i64>(), version in any::<u64>()) {
        let calls: Vec<_> = (0..5_u64).map(context).collect();
        let owner = |k: u64| (ContextKey(k), &calls[usize::try_from(k).unwrap()]);
        let mut encoder = Encoder::new(EncoderConfig { hunter_id: "höre".into(), epoch: Epoch(77), limits: Limits::default() });
        for p in &packets {
            let shared: Vec<_> = p.shared.iter().map(|k| owner(*k)).collect();
            let pushed = encoder.push(&p.frame(), p.owner.map(owner), &shared, p.repeat);
            prop_assert_eq!(pushed, Pushed::Stored);
        }
        let stats = BatchStats { total_captured: version, filtered_matched: 2, dropped: 3, buffer_usage: 4 };

        let sealed = encoder.seal(now, version, &stats).unwrap();
        let range = DroppedRange { from: BatchSeq(1), to: BatchSeq(2), packets: 9, reason: DropReason::MemFull };
        let wire = with_ranges(&sealed, &[range], None).concat();
        let read = data::PacketBatch::decode(&wire[5..]).unwrap();

        prop_assert_eq!(&read.hunter_id, "höre");
        prop_assert_eq!((read.sequence, read.timestamp_ns, read.epoch, read.filter_version), (1, now, 77, version));
        prop_assert_eq!(read.stats, Some(data::BatchStats { total_captured: version, filtered_matched: 2, dropped: 3, buffer_usage: 4 }));
        prop_assert_eq!(&read.dropped_ranges[0].reason, "mem_full");
        prop_assert_eq!(read.packets.len(), packets.len());
        let named = |index: u32| index.checked_sub(1).map(|i| read.contexts[i as usize].call_id.clone());
        for (got, put) in read.packets.iter().zip(&packets) {
            prop_assert_eq!(&got.data[..], &put.data[..]);
            prop_assert_eq!((got.timestamp_ns, got.capture_length as usize, got.repeat), (put.ts, put.data.len(), put.repeat));
            prop_assert_eq!((got.original_length, got.link_type, got.interface_index), (put.wire_len, u32::from(put.link), 3));
            prop_assert_eq!(named(got.context), put.owner.map(|k| calls[usize::try_from(k).unwrap()].call_id.to_string()));
            let shared: Vec<_> = got.shared_contexts.iter().map(|i| named(*i).unwrap()).collect();
            let wanted: Vec<_> = put.shared.iter().map(|k| calls[usize::try_from(*k).unwrap()].call_id.to_string()).collect();
            prop_assert_eq!(shared, wanted);
        }
        prop_assert_eq!(shown(&BatchView::parse(Bytes::from(wire).slice(5..), &ViewLimits::default()).unwrap()), normal(read));
    }

    #[test]
    fn an_old_peer_reads_what_the_rewriting_writes(packets in prop::collection::vec(pushes(), 1..20)) {
        let calls: Vec<_> = (0..5_u64).map(context).collect();
        let owner = |k: u64| (ContextKey(k), &calls[usize::try_from(k).unwrap()]);
        let mut encoder = Encoder::new(EncoderConfig { hunter_id: "h".into(), epoch: Epoch(77), limits: Limits::default() });
        for p in &packets {
            let _ = encoder.push(&p.frame(), p.owner.map(owner), &[], p.repeat);
        }
        let sealed = encoder.seal(5, 6, &BatchStats::default()).unwrap();
        let view = BatchView::parse(sealed.message(), &ViewLimits::default()).unwrap();
        let names: Vec<String> = ["eth0", "eth1", "eth2", "eth3"].map(String::from).into();

        let old = rewrite(&view, BatchSeq(42), &names, |p| match p.data().len() % 3 {
            0 => LegacyMeta { sip: Some(LegacySip { method: "INVITE".into(), ..LegacySip::default() }), rtp: None },
            1 => LegacyMeta { sip: None, rtp: Some(LegacyRtp { ssrc: 9, ..LegacyRtp::default() }) },
            _ => LegacyMeta { sip: Some(LegacySip::default()), rtp: Some(LegacyRtp::default()) },
        });
        let read = data::PacketBatch::decode(&old.bytes[5..]).unwrap();

        prop_assert_eq!((read.sequence, read.timestamp_ns, read.epoch, read.contexts.len()), (42, 5, 0, 0));
        for (got, put) in read.packets.iter().zip(&packets) {
            prop_assert_eq!(&got.data[..], &put.data[..]);
            prop_assert_eq!((got.timestamp_ns, &*got.interface_name, got.context), (put.ts, "eth3", 0));
            let call = put.owner.map(|k| &calls[usize::try_from(k).unwrap()]);
            let ids: Vec<String> = call.map(|c| c.filter_ids.iter().map(ToString::to_string).collect()).unwrap_or_default();
            prop_assert_eq!(&got.matched_filter_ids, &ids);
            let meta = got.metadata.clone().unwrap_or_default();
            prop_assert!(got.metadata.is_none() || meta.sip.is_some() || meta.rtp.is_some());
            prop_assert!(meta.sip != Some(data::SipMetadata::default()) && meta.rtp != Some(data::RtpMetadata::default()));
            if let Some(call) = call {
                prop_assert_eq!(&*meta.sip.unwrap().call_id, &*call.call_id);
            }
        }
        prop_assert_eq!(read.packets.len(), packets.len());
    }
}

#[derive(Clone, Debug)]
struct Push {
    data: Vec<u8>,
    ts: i64,
    wire_len: u32,
    link: u16,
    owner: Option<u64>,
    shared: Vec<u64>,
    repeat: bool,
}

impl Push {
    fn frame(&self) -> Frame<'_> {
        let ts = Timestamp::from_nanos(self.ts);
        Frame { ts, wire_len: self.wire_len, link: LinkType(self.link), interface: InterfaceId(3), data: &self.data }
    }
}

fn pushes() -> impl Strategy<Value = Push> {
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let shared = prop::collection::vec(0_u64..5, 0..3);
    (data, any::<i64>(), any::<u32>(), any::<u16>(), prop::option::of(0_u64..5), shared, any::<bool>())
        .prop_map(|(data, ts, wire_len, link, owner, shared, repeat)| Push { data, ts, wire_len, link, owner, shared, repeat })
}

fn context(i: u64) -> Context {
    let filter_ids = (0..i).map(|n| Arc::from(format!("filter-{n}"))).collect();
    Context { call_id: format!("call-{i}@host").into(), filter_ids, claim: "sdp".into(), ..Context::default() }
}

fn batches() -> impl Strategy<Value = data::PacketBatch> {
    let contexts =
        prop::collection::vec(
            (".{0,12}", prop::collection::vec(".{0,6}", 0..3), ".{0,4}").prop_map(|(call_id, filter_ids, leg)| {
                data::PacketContext { call_id, filter_ids, claim: leg.clone(), phone_rule: leg.clone(), holes: leg.clone(), leg }
            }),
            0..4,
        );
    let ranges = prop::collection::vec(
        (any::<u64>(), any::<u64>(), ".{0,6}").prop_map(|(from_seq, to_seq, reason)| data::DroppedRange {
            from_seq,
            to_seq,
            packets: 7,
            reason,
        }),
        0..3,
    );
    let stats = prop::option::of(any::<[u64; 3]>()).prop_map(|s| {
        s.map(|[total_captured, filtered_matched, dropped]| data::BatchStats {
            total_captured,
            filtered_matched,
            dropped,
            buffer_usage: 50,
        })
    });
    (contexts, ranges, stats, ".{0,10}", any::<[u64; 4]>(), any::<i64>()).prop_flat_map(
        |(contexts, dropped_ranges, stats, hunter_id, [sequence, epoch, first_packet_index, filter_version], timestamp_ns)| {
            let n = u32::try_from(contexts.len()).unwrap();
            prop::collection::vec(packets(n), 0..6).prop_map(move |packets| data::PacketBatch {
                relay: None,
                skipped_packets: 0,
                hunter_id: hunter_id.clone(),
                sequence,
                timestamp_ns,
                packets,
                stats,
                epoch,
                first_packet_index,
                dropped_ranges: dropped_ranges.clone(),
                filter_version,
                contexts: contexts.clone(),
            })
        },
    )
}

fn packets(contexts: u32) -> impl Strategy<Value = data::CapturedPacket> {
    let shared = prop::collection::vec(1..=contexts.max(1), 0..3).prop_map(move |s| if contexts == 0 { vec![] } else { s });
    let meta =
        prop::option::of((prop::option::of((".{0,5}", ".{0,8}", any::<u32>())), prop::option::of(any::<[u32; 4]>()), ".{0,5}"));
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    let ids = prop::collection::vec(".{0,4}", 0..3);
    (bytes, any::<i64>(), any::<[u32; 3]>(), 0..=contexts, shared, any::<bool>(), meta, ids, ".{0,5}").prop_map(
        |(
            bytes,
            timestamp_ns,
            [original_length, interface_index, link_type],
            context,
            shared_contexts,
            repeat,
            meta,
            ids,
            name,
        )| {
            data::CapturedPacket {
                capture_length: u32::try_from(bytes.len()).unwrap(),
                data: bytes.into(),
                timestamp_ns,
                original_length,
                interface_index,
                link_type: link_type & 0xffff,
                metadata: meta.map(|(sip, rtp, info)| data::PacketMetadata {
                    info,
                    sip: sip.map(|(method, call_id, response_code)| data::SipMetadata {
                        cseq_method: method.clone(),
                        from_uri: call_id.clone(),
                        method,
                        call_id,
                        response_code,
                        ..Default::default()
                    }),
                    rtp: rtp.map(|[ssrc, payload_type, sequence, timestamp]| data::RtpMetadata {
                        ssrc,
                        payload_type,
                        sequence,
                        timestamp,
                    }),
                    ..Default::default()
                }),
                interface_name: name,
                matched_filter_ids: ids,
                tls_keys: None,
                context,
                shared_contexts,
                repeat,
            }
        },
    )
}

/// What a view shows, as the generated type.
fn shown(view: &BatchView) -> data::PacketBatch {
    let packets = view.packets().map(|p| data::CapturedPacket {
        data: p.data_bytes(),
        timestamp_ns: p.ts().as_nanos(),
        original_length: p.wire_len(),
        interface_index: p.interface_index(),
        link_type: u32::from(p.link().0),
        interface_name: p.interface_name().unwrap_or_default().into(),
        matched_filter_ids: p.matched_filter_ids().map(String::from).collect(),
        context: p.context_index(),
        shared_contexts: p.shared_indices().to_vec(),
        repeat: p.repeat(),
        metadata: p.legacy().map(|m| data::PacketMetadata {
            sip: m.sip.map(|s| data::SipMetadata {
                method: s.method.into(),
                call_id: s.call_id.into(),
                from_user: s.from_user.into(),
                to_user: s.to_user.into(),
                response_code: s.response_code,
                p_asserted_identity: s.p_asserted_identity.into(),
                from_tag: s.from_tag.into(),
                to_tag: s.to_tag.into(),
                from_uri: s.from_uri.into(),
                to_uri: s.to_uri.into(),
                cseq_method: s.cseq_method.into(),
                ..Default::default()
            }),
            rtp: m.rtp.map(|r| data::RtpMetadata {
                ssrc: r.ssrc,
                payload_type: r.payload_type,
                sequence: r.sequence,
                timestamp: r.timestamp,
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let stats = view.stats();
    data::PacketBatch {
        relay: None,
        skipped_packets: 0,
        hunter_id: view.hunter_id().into(),
        sequence: view.sequence().0,
        timestamp_ns: view.timestamp_ns(),
        packets: packets.collect(),
        stats: Some(data::BatchStats {
            total_captured: stats.total_captured,
            filtered_matched: stats.filtered_matched,
            dropped: stats.dropped,
            buffer_usage: stats.buffer_usage,
        }),
        epoch: view.epoch().map_or(0, |e| e.0),
        first_packet_index: view.first_packet_index(),
        dropped_ranges: view
            .dropped_ranges()
            .map(|r| data::DroppedRange { from_seq: r.from.0, to_seq: r.to.0, packets: r.packets, reason: r.reason.into() })
            .collect(),
        filter_version: view.filter_version(),
        contexts: view
            .contexts()
            .map(|c| data::PacketContext {
                call_id: c.call_id().into(),
                filter_ids: c.filter_ids().map(String::from).collect(),
                leg: c.leg().into(),
                claim: c.claim().into(),
                phone_rule: c.phone_rule().into(),
                holes: c.holes().into(),
            })
            .collect(),
    }
}

/// What a view makes of this: the fields it reads, with its reading of the defaults.
fn normal(mut batch: data::PacketBatch) -> data::PacketBatch {
    let plain = batch.epoch == 0;
    batch.stats = Some(batch.stats.unwrap_or_default());
    for p in &mut batch.packets {
        p.original_length = p.original_length.max(u32::try_from(p.data.len()).unwrap());
        p.capture_length = 0;
        p.tls_keys = None;
        p.link_type = if plain && p.link_type == 0 { 1 } else { p.link_type.min(0xffff) };
        p.metadata = p.metadata.take().filter(|m| m.sip.is_some() || m.rtp.is_some()).map(|m| data::PacketMetadata {
            sip: m.sip.map(|s| data::SipMetadata { access_network_info: None, visited_network_id: String::new(), ..s }),
            rtp: m.rtp,
            ..Default::default()
        });
    }
    batch
}
