//! Rows measured inside this process: the inspection without the network.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lippycat::capture::{BURST, FileSource, Libpcap, Progress, Source};
use lippycat::engine::{Engine, EngineConfig, Mode};
use lippycat::filter::{CompileOptions, Filter, FilterKind, FilterSet, Hits};
use lippycat::flow::{FlowHasher, FlowKey, FlowTable, IdleLimits, Lookup, Side, TableLimits};
use lippycat::packet::Frame;
use lippycat::packet::headers::{DecodeOptions, Decoded, decode};
use lippycat::protocols::{rtp, sip};
use lippycat::voip::event::Event;
use lippycat::voip::output::{Output, Owner};
use lippycat::voip::table::TableConfig;

/// Frames between two looks at the timers, as in a capture thread.
const TIMERS_EVERY: u64 = 4096;

/// A file as a hunter opens it: read ahead by a thread of its own.
fn open(path: &Path) -> FileSource {
    let mut source = FileSource::open(&[path]).unwrap();
    if let Some(ahead) = source.read_ahead() {
        std::thread::spawn(move || ahead.run());
    }
    source
}

/// Reads a file, decodes each packet, says what it is and finds its flow: what every packet costs before anything is known
/// about it.
pub(crate) fn read_decode_detect_flow(path: &Path) -> Duration {
    let start = Instant::now();
    let mut source = open(path);
    let mut flows = FlowTable::<[u32; 2]>::new(FlowHasher::new([1, 2]), TableLimits::default(), IdleLimits::default());
    let options = DecodeOptions::default();
    let mut seen = [0_u64; 3];
    let mut decoded = [Decoded::EMPTY; BURST];
    let mut burst = |frames: &[Frame<'_>]| {
        let mut keys = [(FlowKey::default(), Side::Low); BURST];
        let mut lookups = [Lookup::default(); BURST];
        for (((frame, place), key), lookup) in frames.iter().zip(&mut decoded).zip(&mut keys).zip(&mut lookups) {
            if place.decode(frame.link, frame.data, &options).is_ok()
                && let Some(headers) = place.headers()
            {
                *key = FlowKey::new(&headers.tuple);
                *lookup = flows.lookup(&key.0);
            }
        }
        flows.warm(&mut lookups[..frames.len()]);
        for (((frame, place), (key, side)), lookup) in frames.iter().zip(&decoded).zip(&keys).zip(lookups) {
            let Some(headers) = place.headers() else { continue };
            let payload = headers.payload(frame.data);
            let is = if sip::looks_like(payload) { 0 } else { 1 + usize::from(rtp::plausible(payload)) };
            seen[is] += 1;
            flows.entry(key, *side, lookup, frame.ts).value[0] += 1;
        }
    };
    while source.burst(BURST, &mut burst).unwrap() != Progress::End {}
    std::hint::black_box(seen);
    start.elapsed()
}

/// Counts what is forwarded and drops it.
#[derive(Default)]
struct Count(u64);

impl Output for Count {
    fn forward(&mut self, _: &Frame<'_>, _: Option<&Owner<'_>>) {
        self.0 += 1;
    }

    fn event(&mut self, _: Event) {}

    fn wants_events(&self) -> bool {
        false
    }
}

/// The whole inspection of a file, as a hunter's capture thread does it; also how many packets were chosen.
pub(crate) fn inspection(path: &Path, filters: &[Filter]) -> (Duration, u64) {
    let (filters, errors) = FilterSet::compile(filters, &CompileOptions::default());
    assert!(errors.is_empty(), "{errors:?}");
    let config = EngineConfig {
        mode: Mode::Voip,
        table: TableConfig::default(),
        decode: DecodeOptions::default(),
        keep_duplicates: false,
        flows: 262_144,
        bounds: lippycat::engine::Bounds::default(),
    };
    let start = Instant::now();
    let mut source = open(path);
    let mut engine = Engine::new(config, Arc::new(filters), Arc::new(Libpcap));
    let mut out = Count::default();
    let mut number = 1;
    while source
        .burst(BURST, &mut |frames| {
            engine.handle_burst(frames, number, &mut out);
            let before = number / TIMERS_EVERY;
            number += frames.len() as u64;
            if number / TIMERS_EVERY > before
                && let Some(last) = frames.last()
            {
                engine.handle_timeout(last.ts, &mut out);
            }
        })
        .unwrap()
        != Progress::End
    {}
    engine.finish(&mut out);
    (start.elapsed(), out.0)
}

/// The SIP messages of a file.
pub(crate) fn messages(path: &Path) -> Vec<Vec<u8>> {
    let mut source = open(path);
    let mut all = Vec::new();
    let mut burst = |frames: &[Frame<'_>]| {
        for frame in frames {
            let Ok(headers) = decode(frame.link, frame.data, &DecodeOptions::default()) else { continue };
            let payload = headers.payload(frame.data);
            if sip::looks_like(payload) {
                all.push(payload.to_vec());
            }
        }
    };
    while source.burst(BURST, &mut burst).unwrap() != Progress::End {}
    all
}

/// That many patterns, half of them exact, the rest prefixes and suffixes; none is in the traffic.
pub(crate) fn patterns(count: u32) -> FilterSet {
    let filters: Vec<Filter> = (0..count)
        .map(|n| {
            let pattern = match n % 4 {
                0 | 1 => format!("+4420{n:08}"),
                2 => format!("+33{n:06}*"),
                _ => format!("*77{n:06}"),
            };
            Filter::new(format!("f{n}"), FilterKind::SipUser, pattern)
        })
        .collect();
    let (set, errors) = FilterSet::compile(&filters, &CompileOptions::default());
    assert!(errors.is_empty(), "{errors:?}");
    set
}

/// What a hunter does with one change among so many filters, sixteen of them `bpf`: everything is compiled anew.
pub(crate) fn apply(count: u32) -> Duration {
    let filter = |n: u32| match n % 4 {
        _ if n < 16 => Filter::new(format!("f{n}"), FilterKind::Bpf, format!("udp port {} or host 192.0.2.{n}", 5060 + n)),
        0 => Filter::new(format!("f{n}"), FilterKind::SipUser, format!("+4420{n:08}*")),
        1 => Filter::new(format!("f{n}"), FilterKind::PhoneNumber, format!("+4930{n:07}")),
        2 => Filter::new(format!("f{n}"), FilterKind::SipUri, format!("user{n}@example.org")),
        _ => Filter::new(format!("f{n}"), FilterKind::SipUser, format!("*x{n}*")),
    };
    let filters: Vec<Filter> = (0..count).map(filter).collect();
    let start = Instant::now();
    let (mut set, mut errors) = FilterSet::compile(&filters, &CompileOptions::default());
    errors.extend(set.compile_bpf(&Libpcap));
    let took = start.elapsed();
    assert!(errors.is_empty(), "{errors:?}");
    took
}

/// Finds the identities in every message and holds them against the patterns.
pub(crate) fn filter(set: &FilterSet, messages: &[Vec<u8>]) -> Duration {
    let mut hits = Hits::default();
    let start = Instant::now();
    for message in messages {
        let Some(message) = sip::Message::index(message) else { continue };
        sip::identities(&message, &mut |field, who| {
            let number = who.number.as_ref().map(sip::Number::as_str);
            set.match_identity(field, who.user, who.host, number, &mut hits);
        });
    }
    let took = start.elapsed();
    assert!(hits.is_empty());
    took
}
