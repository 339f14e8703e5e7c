//! Filters that change while packets come: nothing wanted is lost, and the capture thread never compiles.

use std::sync::Arc;
use std::time::Duration;

use super::control::{Facts, Plane};
use super::inspect::{Inspector, Shared};
use super::names::Names;
use crate::batch::{Encoder, EncoderConfig, Epoch, Limits};
use crate::capture::{CaptureError, InterfaceInfo, KernelStats, Outages, Progress, Source, Wake};
use crate::engine::{EngineConfig, Guarded, Mode};
use crate::filter::{self, BpfCompiler, CompileOptions, FilterKind, PacketTest};
use crate::flow::PacketTime;
use crate::packet::headers::DecodeOptions;
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::uplink::{Backlog, BacklogConfig, Control, FilterChange, WireFilter};
use crate::voip::table::{NoFilterPolicy, TableConfig};

const UPDATES: u64 = 1000;
/// Frames between two updates; one in four is wanted.
const BETWEEN: u64 = 32;

/// What a capture thread must not do.
struct Forbidden;

impl BpfCompiler for Forbidden {
    fn compile(&self, _: LinkType, _: &str) -> Result<Box<dyn PacketTest>, String> {
        panic!("compiled while packets wait")
    }
}

/// Frames of 600 and of 60 bytes; before each burst the filters change.
struct Changing {
    plane: Arc<Plane>,
    done: u64,
}

impl Source for Changing {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        self.burst(usize::MAX, &mut |frames| frames.iter().for_each(|frame| f(*frame)))
    }

    fn burst(&mut self, _: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        if self.done == UPDATES {
            return Ok(Progress::End);
        }
        self.plane.apply(update(self.done));
        let data = [0x55; 600];
        let frame = |i: u64| {
            let data = if i.is_multiple_of(4) { &data[..] } else { &data[..60] };
            let wire_len = u32::try_from(data.len()).unwrap();
            let ts = Timestamp::from_nanos((self.done * BETWEEN + i).cast_signed());
            Frame { ts, wire_len, link: LinkType::ETHERNET, interface: InterfaceId(0), data }
        };
        let frames: Vec<Frame<'_>> = (0..BETWEEN).map(frame).collect();
        f(&frames);
        self.done += 1;
        Ok(Progress::Frames(frames.len()))
    }

    fn wait(&mut self, _: Duration) -> Result<Wake, CaptureError> {
        Ok(Wake::Ready)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        &[]
    }

    fn stats(&mut self) -> KernelStats {
        KernelStats { received: self.done * BETWEEN, ..KernelStats::default() }
    }

    fn describe(&self) -> String {
        String::new()
    }
}

fn wire(id: String, pattern: String) -> WireFilter {
    let kind = FilterKind::Bpf.wire();
    WireFilter { id, kind, pattern, target_hunters: Vec::new(), enabled: true, description: String::new(), media: String::new() }
}

/// The n-th change: whatever it is, long frames are inside one filter and short ones inside none.
fn update(n: u64) -> FilterChange {
    let version = n + 1;
    let put = |id: String, pattern: String| FilterChange::Put { filter: wire(id, pattern), version, more: false, legacy: false };
    let long = format!("len > {}", 100 + n % 400);
    match n % 4 {
        0 => FilterChange::Replace { filters: vec![wire("a".into(), long)], version, legacy: false },
        1 => put(format!("b{n}"), format!("len < {}", 1 + n % 50)),
        2 => put("a".into(), long),
        _ => FilterChange::Remove { id: format!("b{}", n - 2), version, more: false },
    }
}

fn plane(shared: &Arc<Shared>) -> Arc<Plane> {
    let facts = Facts {
        hostname: "h".into(),
        interfaces: Vec::new(),
        mode: filter::Mode::Generic,
        max_memory: 0,
        memory_limit: 0,
        instance: 1,
        epochs: vec![Epoch(1)],
        earlier: Vec::new(),
    };
    let options = CompileOptions { mode: filter::Mode::Generic, ..CompileOptions::default() };
    Arc::new(Plane::new(facts, Arc::clone(shared), options, Vec::new()))
}

#[test]
fn a_thousand_changes_of_the_filters_lose_no_wanted_packet_and_let_no_other_through() {
    let backlog = BacklogConfig { max_bytes: 64 << 20, ..BacklogConfig::default() };
    let shared = Arc::new(Shared::new(Arc::new(Backlog::new(backlog)), 1));
    let plane = plane(&shared);
    let config = EngineConfig {
        mode: Mode::Generic,
        table: TableConfig { no_filter: NoFilterPolicy::Deny, ..TableConfig::default() },
        decode: DecodeOptions::default(),
        keep_duplicates: true,
        flows: 100,
        bounds: crate::engine::Bounds::default(),
    };
    let inspector = Inspector {
        source: Box::new(Changing { plane, done: 0 }),
        engine: Guarded::new(config, shared.filters.current(), Arc::new(Forbidden)),
        encoder: Encoder::new(EncoderConfig { hunter_id: "h".into(), epoch: Epoch(1), limits: Limits::default() }),
        names: Names::new(Arc::from([])),
        outages: Outages::default(),
        index: 0,
        offline: false,
        count: None,
        time: PacketTime::default(),
        shared: Arc::clone(&shared),
    };

    inspector.run().unwrap();

    let r = shared.report();
    assert_eq!((r.engine.captured, r.engine.forwarded), (UPDATES * BETWEEN, UPDATES * BETWEEN / 4), "{r:?}");
    assert_eq!((r.imbalance(), r.given_up_after_match(), r.engine.dropped_total()), ([0; 3], 0, 0), "{r:?}");
}

#[test]
fn a_filter_that_libpcap_does_not_take_is_told_to_the_processor() {
    let shared = Arc::new(Shared::new(Arc::new(Backlog::new(BacklogConfig::default())), 1));
    let plane = plane(&shared);
    let filters = [("good", "udp"), ("bad", "udp port"), ("name", "host example.org")];
    let filters = filters.map(|(id, pattern)| wire(id.into(), pattern.into())).to_vec();

    plane.apply(FilterChange::Replace { filters, version: 1, legacy: false });

    let told = plane.heartbeat().filter_errors;
    let of = |id: &str| told.iter().find(|(i, _)| i == id).map(|(_, why)| why.as_str()).unwrap_or_default();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(of("bad").contains("syntax error") && of("name").contains("names are not looked up"), "{told:?}");
}
