//! What is fuzzed: one function per parser, called by the fuzz targets and by `tests/it/fuzz_corpora.rs`. A function panics when a parser
//! breaks a promise: a panic of its own, memory beyond its limit, or an answer that depends on how the same bytes came in pieces.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use lippycat::batch::legacy::{self, LegacyMeta};
use lippycat::batch::{BatchSeq, BatchView, Epoch, ViewLimits};
use lippycat::capture::{FileSource, Libpcap, MAX_CAPLEN, Progress, Source as _};
use lippycat::config::{Choice, Environment, Merged, Mode as HuntMode, Sources};
use lippycat::engine::{EngineConfig, Mode};

use lippycat::filter::{BpfCompiler as _, CompileOptions, Filter, FilterKind, FilterSet, MAX_BPF_BYTES, file as filter_file};
use lippycat::flow::tcp::{Budget, Kind, Reassembly, TcpLimits};
use lippycat::packet::defrag::{Defrag, Limits};
use lippycat::packet::headers::{DecodeOptions, decode};
use lippycat::packet::{Frame, InterfaceId, LinkType, Timestamp};
use lippycat::protocols::rtp::{self, dtmf, rtcp};
use lippycat::protocols::sip::{self, Framed, Framer, HeaderName, Message};
use lippycat::protocols::{sdp as sdp_reader, ws as web_socket};
use lippycat::record::dir::MinFree;
use lippycat::sniffer::{self, Format, SnifferConfig};
use lippycat::spool::{Disk, Item, Now, Queue, SpoolConfig, SpoolFull};
use lippycat::voip::table::{NoFilterPolicy, TableConfig};
use lippycat::wire::frame::Deframer;

/// Panics when a parser breaks a promise on these bytes.
pub(crate) type Entry = fn(&[u8]);

/// Every entry, by the name of its corpus.
pub(crate) const ENTRIES: &[(&str, Entry)] = &[
    ("packet", packet),
    ("defrag", defrag),
    ("tcp", tcp),
    ("sip", sip),
    ("sdp", sdp),
    ("rtp", rtp),
    ("ws", ws),
    ("pcap", pcap),
    ("batch", batch),
    ("filters", filters),
    ("bpf", bpf),
    ("spool", spool),
    ("config", config),
    ("engine", engine),
];

const LINKS: [LinkType; 8] = [
    LinkType::ETHERNET,
    LinkType::NULL,
    LinkType::RAW,
    LinkType::LOOP,
    LinkType::LINUX_SLL,
    LinkType::LINUX_SLL2,
    LinkType::IPV4,
    LinkType::IPV6,
];

/// A frame: one byte for the link type, then its bytes.
pub(crate) fn packet(data: &[u8]) {
    let Some((first, frame)) = data.split_first() else { return };
    let link = LINKS[usize::from(*first) % LINKS.len()];
    let esp = DecodeOptions { esp_null: true, ..DecodeOptions::default() };
    let heuristic = DecodeOptions { esp_heuristic: true, max_depth: 1, ..DecodeOptions::default() };
    for options in [DecodeOptions::default(), esp, heuristic] {
        if let Ok(h) = decode(link, frame, &options) {
            assert!(h.payload.end as usize <= frame.len() && h.depth <= options.max_depth, "{h:?}");
            let _payload = h.payload(frame);
        }
    }
}

/// Frames on Ethernet: two bytes for the length, one for the milliseconds since the one before, then its bytes.
pub(crate) fn defrag(mut data: &[u8]) {
    let limits = Limits { max_bytes: 64 << 10, max_trackers: 16, max_fragments: 16, timeout: Duration::from_secs(1) };
    let mut defrag = Defrag::new(limits);
    let (mut frames, mut now) = (0, Timestamp::from_nanos(0));
    let options = DecodeOptions::default();
    while let Some(([a, b, ms], rest)) = data.split_first_chunk() {
        let (bytes, rest) = rest.split_at(usize::from(u16::from_be_bytes([*a, *b])).min(rest.len()));
        data = rest;
        now = now.saturating_add(Duration::from_millis(u64::from(*ms)));
        let frame = Frame {
            ts: now,
            wire_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            link: LinkType::ETHERNET,
            interface: InterfaceId(0),
            data: bytes,
        };
        if let Ok(headers) = decode(frame.link, bytes, &options)
            && headers.fragment.is_some()
        {
            frames += 1;
            defrag.handle_fragment(&frame, &headers, &options);
            assert!(defrag.bytes() <= limits.max_bytes && defrag.trackers() <= limits.max_trackers);
        }
        defrag.handle_timeout(now);
    }
    defrag.finish();
    assert_eq!(defrag.bytes(), 0, "after {frames} fragments");
}

/// The byte that stands at a sequence number in every segment of [`tcp`]: what is read must be these.
fn octet(seq: u32) -> u8 {
    seq.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]
}

/// One direction of a connection: four bytes for the first sequence number, then steps of four: what, how far, how much.
pub(crate) fn tcp(data: &[u8]) {
    let Some((isn, steps)) = data.split_first_chunk() else { return };
    let isn = u32::from_be_bytes(*isn);
    let budget = Budget::new(32 << 10);
    let limits = TcpLimits { max_bytes: 16 << 10, max_islands: 8 };
    let mut r = Reassembly::new(&budget, limits);
    // what to add to an offset to have its sequence number, from which offset on: another connection on the same ports has another
    let mut shifts: Vec<(u64, u32)> = Vec::new();
    for [what, far, near, len] in steps.as_chunks().0 {
        let seq = isn.wrapping_add(u32::from(u16::from_be_bytes([*far, *near])));
        let (syn, fin) = (what & 0x10 != 0, what & 0x20 != 0);
        match what % 8 {
            0..=3 => {
                let first = if syn { seq.wrapping_add(1) } else { seq };
                let payload: Vec<u8> = (0..u32::from(*len)).map(|n| octet(first.wrapping_add(n))).collect();
                let (unread, bytes) = r.readable();
                let end = (0_u64..).zip(bytes).last().map_or(unread, |(n, _)| unread + n + 1);
                let placement = r.insert(seq, syn, fin, &payload);
                if matches!(placement.kind, Kind::New | Kind::PartlyNew | Kind::OutOfOrder) {
                    let shift = first.wrapping_sub(low(placement.range.start));
                    if shifts.last().is_none_or(|(_, s)| *s != shift) {
                        shifts.push((if shifts.is_empty() { 0 } else { end }, shift));
                    }
                }
            }
            4 => drop(r.handle_ack(seq)),
            5 => drop(r.skip_gap()),
            6 => r.handle_reset(seq),
            _ => r.resume(),
        }
        assert!(budget.used() <= budget.max_bytes() && r.held() <= budget.used());
        // now and then bytes are left for later
        if what & 0x40 == 0 {
            let (offset, bytes) = r.readable();
            for (n, byte) in (0_u64..).zip(bytes) {
                let at = offset + n;
                let (_, shift) = shifts.iter().rev().find(|(from, _)| *from <= at).unwrap_or(&(0, 0));
                assert_eq!(*byte, octet(shift.wrapping_add(low(at))), "offset {at}");
            }
            let n = bytes.len();
            r.consume(n);
        }
    }
    drop(r);
    assert_eq!(budget.used(), 0);
}

fn low(offset: u64) -> u32 {
    u32::try_from(offset & u64::from(u32::MAX)).unwrap_or_default()
}

/// A datagram, and the same bytes as a stream.
pub(crate) fn sip(data: &[u8]) {
    for msg in [Message::index(data), Message::index_framed(data)].into_iter().flatten() {
        read(&msg);
    }
    let whole = framed(data, usize::MAX);
    let piece = 1 + data.len() % 17;
    assert!(whole == framed(data, piece), "pieces of {piece} bytes give other messages");
}

fn read(msg: &Message<'_>) {
    let length = msg.bytes().len();
    for (name, raw, value) in msg.headers() {
        assert!(raw.len() + value.len() <= length);
        let _values = msg.values(name).count();
    }
    let _facts = (
        msg.method(),
        msg.status(),
        msg.call_id(),
        msg.via_branch(),
        msg.content_type(),
        msg.content_length(),
        msg.cseq().is_some(),
    );
    assert!(msg.body().len() <= length);
    for address in msg.from().into_iter().chain(msg.to()).chain(msg.contacts()) {
        let _name = (address.display(), address.tag(), address.flaws());
        if let Some(uri) = address.uri() {
            let _uri = (uri.user(), uri.host(), uri.port(), uri.number(), uri.flaws(), uri.params().count());
        }
    }
    sip::identities(msg, &mut |_, who| assert!(who.user.len() <= length));
    sip::imsis(msg, &mut |imsi| assert!(imsi.len() <= length));
    sip::imeis(msg, &mut |imei| assert!(imei.len() <= length));
    let _marks = (msg.marks().reasons().count(), msg.first(HeaderName::Via).is_some());
    for body in msg.sdp_bodies() {
        sdp(body);
    }
}

/// Where the messages of a stream begin and end when it comes in pieces.
fn framed(data: &[u8], piece: usize) -> Vec<(usize, usize)> {
    let (mut framer, mut found, mut front) = (Framer::new(), Vec::new(), 0);
    for end in ends(data.len(), piece) {
        loop {
            let buffer = &data[front..end];
            match framer.next(buffer) {
                Framed::NeedMore => break,
                Framed::Skip(n) => front += within(n, buffer),
                Framed::Message(n) => {
                    found.push((front, n));
                    front += within(n, buffer);
                }
            }
        }
    }
    framer.close(&data[front..]);
    found
}

/// How much of a buffer is dropped: something, and no more than there is.
fn within(n: usize, buffer: &[u8]) -> usize {
    assert!(0 < n && n <= buffer.len(), "{n} of {}", buffer.len());
    n
}

/// Where each piece of so many bytes ends.
fn ends(len: usize, piece: usize) -> impl Iterator<Item = usize> {
    (1..=len.div_ceil(piece)).map(move |n| n.saturating_mul(piece).min(len))
}

/// A session description.
pub(crate) fn sdp(data: &[u8]) {
    let session = sdp_reader::parse(data);
    assert!(session.media.len() <= sdp_reader::MAX_MEDIA);
    for media in &session.media {
        assert!(media.formats.len() <= sdp_reader::MAX_FORMATS && media.candidates.len() <= sdp_reader::MAX_CANDIDATES);
        let _where = (media.rtp(), media.rtcp_endpoint(), media.format(8));
    }
}

/// Datagrams of one stream: one byte for the length, then its bytes.
pub(crate) fn rtp(mut data: &[u8]) {
    let mut stream = rtp::Stream::new(8000);
    let mut digits = dtmf::Events::default();
    let mut now = Timestamp::from_nanos(0);
    while let Some((len, rest)) = data.split_first() {
        let (datagram, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        now = now.saturating_add(Duration::from_millis(u64::from(*len)));
        assert!(rtp::header_len(datagram) <= datagram.len().max(12));
        let _looks = (rtp::ssrc(datagram), rtp::plausible(datagram), rtp::is_rtcp(datagram), rtp::FirstByte::of(datagram));
        if let Ok(header) = rtp::Header::parse(datagram) {
            let payload = &datagram[header.payload.clone()];
            stream.update(&header, now, header.payload_type == 101);
            digits.update(&header, payload, 8000, now, |_| {});
        }
        for part in rtcp::Compound::new(datagram) {
            match part {
                Ok(rtcp::Packet::SenderReport(r)) => drop(r.reports().count()),
                Ok(rtcp::Packet::ReceiverReport(r)) => drop(r.reports().count()),
                Ok(rtcp::Packet::SourceDescription(s)) => s.cnames().for_each(|(_, name)| assert!(name.len() <= datagram.len())),
                Ok(rtcp::Packet::Bye(b)) => drop(b.sources().count()),
                Ok(rtcp::Packet::ExtendedReport(x)) => drop(x.voip_metrics().count()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    digits.finish(8000, |_| {});
    let s = stream.summary();
    assert!(s.lost <= s.expected && (0.0..=100.0).contains(&s.lost_percent) && s.jitter_units >= 0.0, "{s:?}");
    if let Some(constants) = rtp::mos::constants_for("PCMA") {
        let mos = rtp::mos::estimate(constants, s.lost_percent, s.burst_ratio).mos;
        assert!((1.0..=4.5).contains(&mos), "{mos}");
    }
}

/// One direction of a WebSocket connection.
pub(crate) fn ws(data: &[u8]) {
    let (whole, errors) = messages(data, usize::MAX);
    let piece = 1 + data.len() % 17;
    let (pieces, their_errors) = messages(data, piece);
    // once framing is lost, a message is looked for where a segment begins
    assert_eq!(errors > 0, their_errors > 0);
    assert!(errors > 0 || whole == pieces, "pieces of {piece} bytes give other messages");
}

/// The messages of a WebSocket stream when it comes in pieces, and how often its framing was broken.
fn messages(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, u64) {
    let (mut ws, mut found, mut front) = (web_socket::Ws::new(), Vec::new(), 0);
    for end in ends(data.len(), piece) {
        loop {
            let buffer = &data[front..end];
            match ws.next(buffer) {
                web_socket::Next::NeedMore => break,
                web_socket::Next::Skip(n) => front += within(n, buffer),
                web_socket::Next::Message { consumed, payload } => {
                    assert!(payload.len() <= web_socket::MAX_MESSAGE);
                    found.push(payload.to_vec());
                    front += within(consumed, buffer);
                }
            }
        }
        assert!(ws.collected() <= web_socket::MAX_MESSAGE);
    }
    (found, ws.counts().errors)
}

/// A capture file.
pub(crate) fn pcap(data: &[u8]) {
    let Ok(mut source) = FileSource::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) else { return };
    let mut bytes = 0;
    loop {
        let progress = source.poll(&mut |f| {
            assert!(f.data.len() <= MAX_CAPLEN as usize);
            bytes += f.data.len();
        });
        assert!(bytes <= data.len(), "more bytes came out than went in");
        if !matches!(progress, Ok(Progress::Frames(_))) {
            return;
        }
    }
}

/// The body of a hunter's stream: one byte for the pieces it comes in, then gRPC messages; and a batch without its prefix.
pub(crate) fn batch(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let limits = ViewLimits { bytes: 1 << 16, packets: 256, contexts: 64, references: 256 };
    view(Bytes::copy_from_slice(body), &limits);
    let mut deframer = Deframer::new(limits.bytes);
    for piece in body.chunks(1 + usize::from(*first)) {
        deframer.push(Bytes::copy_from_slice(piece));
        loop {
            match deframer.next() {
                Ok(Some(message)) => view(message, &limits),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ended = deframer.finish();
}

fn view(message: Bytes, limits: &ViewLimits) {
    let length = message.len();
    let Ok(view) = BatchView::parse(message, limits) else { return };
    assert!(view.len() <= limits.packets && view.contexts().len() <= limits.contexts);
    let mut bytes = 0;
    for p in view.packets() {
        bytes += p.data().len();
        let _owner = (p.context().map(|c| (c.call_id(), c.leg(), c.claim(), c.filter_ids().len())), p.shared().count());
        let _old = (p.legacy().is_some(), p.matched_filter_ids().len(), p.interface_name(), p.wire_len(), p.link());
    }
    assert!(bytes <= length);
    let _ranges = view.dropped_ranges().map(|r| r.reason.len()).sum::<usize>();
    let _rewritten = legacy::rewrite(&view, BatchSeq(1), &["eth0".to_owned()], |_| LegacyMeta::default());
}

/// A filter file: what is read is written and read again alike, and can be compiled.
pub(crate) fn filters(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(filters) = filter_file::parse(text) else { return };
    let written = filter_file::to_yaml(&filters);
    assert_eq!(filter_file::parse(&written).ok().as_ref(), Some(&filters), "{written}");
    let (set, _errors) = FilterSet::compile(&filters, &CompileOptions::default());
    assert!(set.len() <= filters.len());
}

/// A `bpf` filter, held against frames: refused, or a program that ends.
pub(crate) fn bpf(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for link in [LinkType::ETHERNET, LinkType::RAW] {
        let Ok(filter) = Libpcap.compile(link, text) else { continue };
        assert!(text.len() <= MAX_BPF_BYTES);
        let _passes = (filter.test(data), filter.test(&[]), filter.test(&[0x45; 80]));
    }
}

/// A disk queue of some records that were damaged on the disk: what comes out of it was put in, in order, and once.
pub(crate) fn spool(data: &[u8]) {
    let Some(([count, cut, lengths @ ..], damage)) = data.split_first_chunk::<10>() else { return };
    let dir = std::env::temp_dir().join(format!("lc-fuzz-spool-{}", std::process::id()));
    let _old = std::fs::remove_dir_all(&dir);
    let config = SpoolConfig {
        hunter_id: "h".into(),
        max_bytes: 1 << 20,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 4096,
        sync_after: Duration::from_secs(1),
        sync_bytes: 1 << 20,
    };
    // beside other tests: a process that one of them begins has the lock, too, until it is another program
    let lock = || {
        for _ in 0..1000 {
            if let Ok(disk) = Disk::lock(&dir) {
                return disk;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Disk::lock(&dir).unwrap()
    };
    let open = || Queue::open(lock().volatile(), config.clone()).unwrap();
    let mut put = Vec::new();
    let mut queue = open();
    for n in 0..=u64::from(*count % 32) {
        let len = 1 + u32::from(lengths[low(n) as usize % lengths.len()]);
        let bytes = Bytes::from([&[0][..], &len.to_be_bytes(), &vec![n.to_le_bytes()[0]; len as usize]].concat());
        let item = Item { epoch: Epoch(1), seq: BatchSeq(n + 1), packets: 1, bytes };
        queue.append(item.clone(), false, Now::default()).unwrap();
        put.push(item);
    }
    let _closed = queue.close(Now::default());
    drop(queue);
    let segments = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path());
    for path in segments.filter(|p| p.extension().is_some_and(|e| e == "seg")) {
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        for [high, near, flip] in damage.as_chunks::<3>().0 {
            let at = usize::from(u16::from_be_bytes([*high, *near])) % bytes.len();
            bytes[at] ^= flip;
        }
        bytes.truncate(bytes.len().saturating_sub(usize::from(*cut)));
        let _written = std::fs::write(&path, bytes);
    }
    let mut queue = open();
    let mut expected = put.iter();
    while let Some(item) = queue.read() {
        assert!(expected.any(|e| *e == item), "{item:?} was not put in, or not here");
    }
    drop(queue);
    let _gone = std::fs::remove_dir_all(&dir);
}

/// A configuration file: one byte for its format, then its text.
pub(crate) fn config(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let suffix = if first % 2 == 0 { "yaml" } else { "toml" };
    let path: PathBuf = std::env::temp_dir().join(format!("lc-fuzz-{}.{suffix}", std::process::id()));
    if std::fs::write(&path, text).is_err() {
        return;
    }
    let environment = Environment::from_pairs([("HOME", "/nonexistent")]);
    let loaded = Merged::load(&Sources { file: Choice::Named(path.clone()), environment: &environment, flags: &[] });
    let _gone = std::fs::remove_file(&path);
    if let Ok(merged) = loaded {
        let _hunter = merged.hunt(HuntMode::Voip, &environment);
        let _sniffer = merged.sniff(HuntMode::Voip);
        let _processor = merged.process(&environment);
        let _remote = merged.remote(&environment);
    }
}

/// A capture file through the whole inspection, with one target or none: every frame ends in one counter.
pub(crate) fn engine(data: &[u8]) {
    let targeted = data.len().is_multiple_of(2);
    let filters = if targeted { vec![Filter::new("t", FilterKind::SipUser, "alice")] } else { Vec::new() };
    let (filters, _errors) = FilterSet::compile(&filters, &CompileOptions::default());
    let no_filter = if targeted { NoFilterPolicy::Deny } else { NoFilterPolicy::Allow };
    let config = SnifferConfig {
        engine: EngineConfig {
            mode: Mode::Voip,
            table: TableConfig { no_filter, quality: true, ..TableConfig::default() },
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 1 << 8,
            bounds: lippycat::engine::Bounds::default(),
        },
        filters: Arc::new(filters),
        bpf: Arc::new(Libpcap),
        format: Format::Json,
        write: None,
        min_free: MinFree::NONE,
        readers: lippycat::record::readers::Readers::NONE,
        count: None,
        renewed: Arc::default(),
        is_short: || false,
    };
    let Ok(mut source) = FileSource::from_reader("fuzz", std::io::Cursor::new(data.to_vec())) else { return };
    let mut events = Vec::new();
    let outcome = sniffer::run(config, &mut source, &|| Timestamp::MIN, &mut events, &AtomicBool::new(false));
    if let Ok(outcome) = outcome {
        assert_eq!((outcome.counters.imbalance(), outcome.counters.held), (0, 0), "{:?}", outcome.counters);
    }
    assert!(str::from_utf8(&events).is_ok_and(|e| e.lines().all(|l| l.starts_with('{') && l.ends_with('}'))));
}
