//! What peers send and what is kept of it: batches, the disk queue, filters that change, checkpoints.

use bytes::Bytes;
use lippycat::batch::{BatchSeq, BatchView, Epoch, SeqRanges, ViewLimits, legacy};
use lippycat::filter::{Filter, FilterKind, Store, diff};
use lippycat::record::dir::{Access, Dir, MinFree};
use lippycat::record::name::{Parties, Pattern, Purpose};
use lippycat::record::state::{Acked, State};
use lippycat::spool::{Disk, Item, Now, Queue, SpoolConfig, SpoolFull};
use lippycat::wire::data::{CapturedPacket, DroppedRange, PacketBatch, PacketContext};
use lippycat::wire::frame::Deframer;
use prost::Message;

use super::Series;

pub(super) const ALL: &[Series] = &[
    Series {
        what: "batch of packets",
        n: 500,
        make: |n| batch(&PacketBatch { packets: vec![packet(1); n], contexts: vec![context(1)], ..PacketBatch::default() }),
    },
    Series {
        what: "batch of contexts",
        n: 500,
        make: |n| {
            batch(&PacketBatch {
                contexts: (0..n).map(context).collect(),
                packets: (0..n).map(|i| packet(i as u32 + 1)).collect(),
                ..PacketBatch::default()
            })
        },
    },
    Series {
        what: "batch of shared packets",
        n: 20,
        make: |n| {
            batch(&PacketBatch {
                contexts: (0..n).map(context).collect(),
                packets: vec![CapturedPacket { shared_contexts: (1..=n as u32).collect(), ..packet(1) }; 10],
                ..PacketBatch::default()
            })
        },
    },
    Series {
        what: "batch of filter ids",
        n: 500,
        make: |n| {
            batch(&PacketBatch {
                contexts: vec![PacketContext { filter_ids: vec!["f".into(); n], ..context(1) }],
                packets: vec![packet(1); 10],
                ..PacketBatch::default()
            })
        },
    },
    Series {
        what: "batch of dropped ranges",
        n: 500,
        make: |n| {
            batch(&PacketBatch {
                dropped_ranges: vec![DroppedRange { from_seq: 1, to_seq: 2, packets: 1, reason: "x".into() }; n],
                ..PacketBatch::default()
            })
        },
    },
    Series { what: "batch of unknown fields", n: 500, make: |n| bytes([0xc0, 0x3e, 1].repeat(n)) },
    Series { what: "batch of groups in groups", n: 500, make: |n| bytes([0xc3, 0x3e].repeat(n)) },
    Series { what: "batch of empty packets", n: 500, make: |n| bytes([0x1a, 0].repeat(n)) },
    Series { what: "message in pieces of one byte", n: 500, make: pieces },
    Series { what: "messages of nothing", n: 500, make: |n| deframed(vec![0; 5 * n], 4096) },
    Series { what: "numbers out of order", n: 500, make: ranges },
    Series { what: "disk queue of tiny records, written and read", n: 200, make: |n| queue(n, false) },
    Series { what: "disk queue of tiny records, opened again", n: 200, make: |n| queue(n, true) },
    Series { what: "filters put in force", n: 500, make: replaced },
    Series { what: "filters compared", n: 500, make: compared },
    Series { what: "names of files", n: 500, make: names },
    Series { what: "checkpoint of epochs, written and read", n: 200, make: checkpoint },
];

fn packet(context: u32) -> CapturedPacket {
    CapturedPacket {
        data: vec![0x55; 60].into(),
        capture_length: 60,
        original_length: 60,
        link_type: 1,
        context,
        ..CapturedPacket::default()
    }
}

fn context(n: usize) -> PacketContext {
    PacketContext { call_id: format!("call{n}"), filter_ids: vec!["f".into()], ..PacketContext::default() }
}

fn batch(batch: &PacketBatch) -> Box<dyn FnMut()> {
    bytes(batch.encode_to_vec())
}

/// Reads a batch whole, and says it in the words of old monitors.
fn bytes(message: Vec<u8>) -> Box<dyn FnMut()> {
    let message = Bytes::from(message);
    Box::new(move || {
        let many = usize::MAX >> 1;
        let limits = ViewLimits { bytes: many, packets: many, contexts: many, references: many };
        let Ok(view) = BatchView::parse(message.clone(), &limits) else { return };
        let seen: usize = view.packets().map(|p| p.data().len() + p.shared().count() + p.matched_filter_ids().len()).sum();
        std::hint::black_box(seen + view.dropped_ranges().count());
        drop(legacy::rewrite(&view, BatchSeq(1), &["eth0".to_owned()], |_| legacy::LegacyMeta::default()));
    })
}

fn pieces(n: usize) -> Box<dyn FnMut()> {
    let mut message = vec![0];
    message.extend((n as u32).to_be_bytes());
    message.resize(5 + n, 0x55);
    deframed(message, 1)
}

fn deframed(body: Vec<u8>, piece: usize) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut deframer = Deframer::new(usize::MAX >> 1);
        let mut seen = 0;
        for piece in body.chunks(piece) {
            deframer.push(Bytes::copy_from_slice(piece));
            while let Ok(Some(message)) = deframer.next() {
                seen += message.len();
            }
        }
        std::hint::black_box(seen);
    })
}

/// Every other number, from the last to the first, then the rest.
fn ranges(n: usize) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut ranges = SeqRanges::default();
        for odd in [1, 0] {
            for i in (0..n as u64).rev() {
                ranges.insert(2 * i + odd, 2 * i + odd);
            }
        }
        assert_eq!(ranges.len(), 1);
    })
}

fn queue(n: usize, again: bool) -> Box<dyn FnMut()> {
    let dir = tempfile::tempdir().unwrap();
    let config = SpoolConfig {
        hunter_id: "h".into(),
        max_bytes: 1 << 30,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 1 << 16,
        sync_after: std::time::Duration::from_hours(1),
        sync_bytes: u64::MAX,
    };
    let fill = move |queue: &mut Queue<Disk>| {
        for i in 0..n as u64 {
            let item = Item { epoch: Epoch(1), seq: BatchSeq(i + 1), packets: 1, bytes: Bytes::from_static(&[0, 0, 0, 0, 1, 7]) };
            queue.append(item, false, Now::default()).unwrap();
        }
    };
    let open = move |dir: &tempfile::TempDir| Queue::open(Disk::lock(dir.path()).unwrap().volatile(), config.clone()).unwrap();
    if again {
        fill(&mut open(&dir));
    }
    Box::new(move || {
        let mut queue = open(&dir);
        if !again {
            fill(&mut queue);
        }
        let mut read = 0;
        while let Some(item) = queue.read() {
            read += 1;
            queue.ack(item.epoch, item.seq);
        }
        assert_eq!(read, n);
    })
}

fn filters(n: usize, pattern: &str) -> Vec<Filter> {
    (0..n).map(|i| Filter::new(format!("f{i}"), FilterKind::SipUser, format!("{pattern}{i}"))).collect()
}

fn replaced(n: usize) -> Box<dyn FnMut()> {
    let (old, mut new) = (filters(n, "a"), Some(filters(n, "b")));
    let mut store = Store::new(1);
    store.replace_all(old).unwrap();
    Box::new(move || drop(store.replace_all(new.take().unwrap())))
}

fn compared(n: usize) -> Box<dyn FnMut()> {
    let list = |pattern| {
        let mut all: Vec<_> = filters(n, pattern).into_iter().map(std::sync::Arc::new).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    };
    let (old, new) = (list("a"), list("b"));
    Box::new(move || assert_eq!(diff(&old, &new).len(), n))
}

fn names(n: usize) -> Box<dyn FnMut()> {
    let pattern = Pattern::parse("{timestamp}_{callid}_{from}.pcap", Purpose::Call).unwrap();
    let call_id = "../é".repeat(n);
    Box::new(move || {
        let parties = Parties { call_id: call_id.as_bytes(), from: &call_id, to: &call_id };
        for _ in 0..20 {
            std::hint::black_box(pattern.stem(lippycat::packet::Timestamp::MIN, &parties));
        }
    })
}

fn checkpoint(n: usize) -> Box<dyn FnMut()> {
    let at = tempfile::tempdir().unwrap();
    let dir = Dir::open(at.path(), Access::Private, MinFree::NONE).unwrap();
    let acked =
        |epoch| Acked { hunter: format!("h{}", epoch % 100), epoch, through: epoch, stored: Some(SeqRanges::through(epoch)) };
    let state = State { acked: (0..n as u64).map(acked).collect(), ..State::default() };
    Box::new(move || {
        let _kept = &at;
        state.save(&dir, false).unwrap();
        assert!(State::load(&dir).unwrap().is_some());
    })
}
