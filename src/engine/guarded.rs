//! The last net: an engine that goes on after a panic of its parts.
//!
//! A panic is a bug, never bad input. If there is one all the same, a packet must not stop the capture: what the engine at hand knew is
//! forgotten, a fresh one takes its place, and every packet it held or was about to judge is counted (`parser_panic`). The equation of
//! [`Counters`] holds on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Counters, Engine, EngineConfig, Parsing};
use crate::filter::{BpfCompiler, FilterSet};
use crate::packet::{FiveTuple, Frame, Timestamp};
use crate::reason::DropReason;
use crate::voip::output::Output;
use crate::voip::table::CallTable;

/// Of this process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics caught in this process so far; anything but 0 is a bug.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// An [`Engine`], and what a fresh one is made of.
pub struct Guarded {
    engine: Engine,
    config: EngineConfig,
    bpf: Arc<dyn BpfCompiler + Send + Sync>,
    /// None: no filter has come yet.
    filters: Option<Arc<FilterSet>>,
    own: Vec<FiveTuple>,
    short: bool,
    /// What engines before this one counted.
    before: Counters,
}

impl Guarded {
    /// As [`Engine::new`].
    pub fn new(config: EngineConfig, filters: Arc<FilterSet>, bpf: Arc<dyn BpfCompiler + Send + Sync>) -> Self {
        let engine = Engine::new(config, Arc::clone(&filters), Arc::clone(&bpf));
        Self { engine, config, bpf, filters: Some(filters), own: Vec::new(), short: false, before: Counters::default() }
    }

    /// As [`Engine::set_filters`].
    pub fn set_filters(&mut self, filters: &Arc<FilterSet>) {
        self.engine.set_filters(filters);
        self.filters = Some(Arc::clone(filters));
    }

    /// As [`Engine::await_filters`].
    pub fn await_filters(&mut self) {
        self.engine.await_filters();
        self.filters = None;
    }

    /// As [`Engine::set_own_connections`].
    pub fn set_own_connections(&mut self, own: Vec<FiveTuple>) {
        self.own.clone_from(&own);
        self.engine.set_own_connections(own);
    }

    /// As [`Engine::set_short`].
    pub fn set_short(&mut self, short: bool) {
        if short != self.short {
            self.short = short;
            self.engine.set_short(short);
        }
    }

    /// As [`Engine::handle_burst`].
    pub fn handle_burst(&mut self, frames: &[Frame<'_>], first: u64, out: &mut dyn Output) {
        let captured = self.engine.counters.captured;
        let engine = &mut self.engine;
        // what a panic leaves behind in the engine is thrown away with it; the output takes packets one by one, whole
        if catch_unwind(AssertUnwindSafe(|| engine.handle_burst(frames, first, out))).is_err() {
            self.replace(captured.saturating_add(frames.len() as u64));
        }
    }

    /// As [`Engine::handle_frame`].
    pub fn handle_frame(&mut self, frame: &Frame<'_>, number: u64, out: &mut dyn Output) {
        self.handle_burst(std::slice::from_ref(frame), number, out);
    }

    /// As [`Engine::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut dyn Output) {
        let (captured, engine) = (self.engine.counters.captured, &mut self.engine);
        if catch_unwind(AssertUnwindSafe(|| engine.handle_timeout(now, out))).is_err() {
            self.replace(captured);
        }
    }

    /// As [`Engine::finish`].
    pub fn finish(&mut self, out: &mut dyn Output) {
        let (captured, engine) = (self.engine.counters.captured, &mut self.engine);
        if catch_unwind(AssertUnwindSafe(|| engine.finish(out))).is_err() {
            self.replace(captured);
        }
    }

    /// As [`Engine::note_outage`].
    pub fn note_outage(&mut self, from: Timestamp, to: Timestamp) {
        self.engine.note_outage(from, to);
    }

    /// As [`Engine::counters`], over all engines.
    pub fn counters(&self) -> Counters {
        let mut all = self.engine.counters();
        all.add(&self.before);
        all
    }

    /// As [`Engine::parsing`], over all engines.
    pub fn parsing(&self) -> Parsing {
        let mut all = self.engine.parsing();
        all.add(&self.before.parsing);
        all
    }

    /// As [`Engine::calls`].
    pub fn calls(&self) -> &CallTable {
        self.engine.calls()
    }

    /// As [`Engine::bytes`].
    pub fn bytes(&self) -> usize {
        self.engine.bytes()
    }

    /// As [`Engine::call_facts`].
    pub fn call_facts(&self, call_id: &str, input_ended: bool) -> Option<crate::voip::event::CallFacts> {
        self.engine.call_facts(call_id, input_ended)
    }

    /// Goes on with a fresh engine. `captured`: how many frames the old one was given in all.
    fn replace(&mut self, captured: u64) {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let mut old = self.engine.counters();
        // where it stopped, a frame may have been counted on one side of the equation and not on the other
        old.captured = old.captured.max(captured);
        old.held = 0;
        let missing = old.imbalance();
        let lost = u64::try_from(missing).unwrap_or(0);
        old.shared = old.shared.saturating_add(missing.min(0).unsigned_abs());
        if let Some(n) = old.dropped.get_mut(DropReason::ParserPanic.index()) {
            *n = n.saturating_add(lost);
        }
        self.before.add(&old);
        let filters = self.filters.clone().unwrap_or_else(|| Arc::new(FilterSet::empty()));
        self.engine = Engine::new(self.config, filters, Arc::clone(&self.bpf));
        if self.filters.is_none() {
            self.engine.await_filters();
        }
        self.engine.set_own_connections(self.own.clone());
        self.engine.set_short(self.short);
        tracing::error!(
            lost,
            "the inspection panicked; this is a bug, please report it. It goes on, but has forgotten all calls"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Bounds, Mode};
    use crate::filter::{CompileOptions, Filter, FilterKind, PacketTest};
    use crate::packet::headers::DecodeOptions;
    use crate::packet::{InterfaceId, LinkType};
    use crate::voip::event::Event;
    use crate::voip::output::Owner;
    use crate::voip::table::TableConfig;

    /// A bug: a frame that ends in 13 panics.
    struct Bug;

    impl PacketTest for Bug {
        fn test(&self, frame: &[u8]) -> bool {
            assert!(frame.last() != Some(&13), "a bug in a test");
            true
        }
    }

    impl BpfCompiler for Bug {
        fn compile(&self, _: LinkType, _: &str) -> Result<Box<dyn PacketTest>, String> {
            Ok(Box::new(Self))
        }
    }

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

    #[test]
    fn a_panic_costs_its_burst_and_is_counted_and_the_capture_goes_on() {
        let config = EngineConfig {
            mode: Mode::Generic,
            table: TableConfig::default(),
            decode: DecodeOptions::default(),
            keep_duplicates: true,
            flows: 100,
            bounds: Bounds::default(),
        };
        let filter = Filter::new("b", FilterKind::Bpf, "udp");
        let options = CompileOptions { mode: crate::filter::Mode::Generic, ..CompileOptions::default() };
        let filters = Arc::new(FilterSet::compile(&[filter], &options).0);
        let mut engine = Guarded::new(config, filters, Arc::new(Bug));
        let mut out = Count::default();
        let frame = |data: &'static [u8]| Frame {
            ts: Timestamp::from_nanos(1),
            wire_len: 4,
            link: LinkType::ETHERNET,
            interface: InterfaceId(0),
            data,
        };
        let (good, bad) = (frame(&[0; 60]), frame(&[13; 60]));

        engine.handle_burst(&[good, good], 1, &mut out);
        engine.handle_burst(&[good, bad, good], 3, &mut out);
        engine.handle_burst(&[good], 6, &mut out);
        engine.finish(&mut out);

        let c = engine.counters();
        assert_eq!((c.captured, c.imbalance(), panics()), (6, 0, 1), "{c:?}");
        assert_eq!(c.forwarded, out.0, "{c:?}");
        assert!(out.0 >= 3, "{c:?}");
        assert_eq!(c.forwarded + c.dropped[DropReason::ParserPanic.index()], 6, "{c:?}");
    }
}
