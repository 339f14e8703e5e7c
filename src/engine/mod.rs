//! The core: a frame goes in, verdicts and events come out. No I/O, no clock, no threads.
//!
//! ```text
//! frame ─▶ decode ─▶ defragment ─┬─ UDP ─ SIP? ──▶ message ─┐
//!                                │         └────▶ media ────┼─▶ CallTable ─▶ Output
//!                                └─ TCP ─▶ reassemble ─▶ message ┘
//! ```
//!
//! Every frame given to [`Engine::handle_frame`] ends in exactly one counter of [`Counters`]: forwarded, filtered, held (now) or dropped by
//! reason. Memory is bounded by the limits of the parts.

mod bounds;
mod connections;
mod counters;
mod fragments;
mod generic;
mod guarded;
mod parsing;
mod sip_event;
mod tcp;

use std::sync::Arc;

use ahash::RandomState;

use crate::filter::{BpfCompiler, FilterSet};
use crate::flow::{FlowKey, FlowTable, IdleLimits, Lookup, Side, TableLimits};
use crate::packet::dedup::{self, Dedup};
use crate::packet::defrag::Defrag;
use crate::packet::headers::{DecodeOptions, Decoded, Headers, Transport};
use crate::packet::{FiveTuple, Frame, Timestamp};
use crate::protocols::sdp;
use crate::protocols::sip::{self, Message};
use crate::voip::call::CallRef;
use crate::voip::claim::StampPlaces;
use crate::voip::deliver::Delivery;
use crate::voip::event::{Event, Place, SipEvent};
use crate::voip::hold::Part;
use crate::voip::media::{FlowMemo, MediaPacket};
use crate::voip::message::Seen;
use crate::voip::output::Output;
use crate::voip::table::{CallTable, TableConfig};

pub use bounds::Bounds;
use connections::TcpFlows;
pub use counters::{Counters, Forgotten};
use generic::Generic;
pub use guarded::{Guarded, panics};
pub use parsing::{ParseLimit, Parsing, Proto};

/// Frames decoded together, so that their cache misses overlap.
pub const BURST: usize = 32;
/// Buckets of flows walked at a time in an emergency: a full table of the usual size in 13 s where nothing comes.
const SWEEP: usize = 256;

/// What an engine looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Single packets: addresses and BPF.
    Generic,
    /// Calls.
    Voip,
}

/// How an engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// What it looks for.
    pub mode: Mode,
    /// The call table.
    pub table: TableConfig,
    /// Decoding options.
    pub decode: DecodeOptions,
    /// Keep packets that were seen twice (default: the second one is counted and let go).
    pub keep_duplicates: bool,
    /// Most flows remembered.
    pub flows: usize,
    /// Bounds of the other parts.
    pub bounds: Bounds,
}

/// What a flow remembers.
#[derive(Clone, Copy, Debug, Default)]
struct FlowState {
    memo: FlowMemo,
    /// Number of the TCP flow's state plus one; 0 when it has none.
    tcp: u32,
}

/// Where what is known about a packet is found; worked out for a burst at once.
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    flow: FlowKey,
    side: Side,
    at: StampPlaces,
    /// Whether the payload may be a SIP message; asked early, so that reading it overlaps, too.
    is_sip: bool,
    /// What a double of the packet would be known by; 0 where that has not been worked out.
    id: u64,
}

/// One engine: one capture thread's, one file's, one hunter's at the processor.
pub struct Engine {
    config: EngineConfig,
    flows: FlowTable<FlowState>,
    calls: CallTable,
    defrag: Defrag,
    tcp: TcpFlows,
    generic: Generic,
    dedup: Dedup,
    fragments_given_up: u64,
    own: Vec<FiveTuple>,
    /// The headers of the burst at hand, and the room for the next one's.
    decoded: Vec<Decoded>,
    counters: Counters,
}

impl Engine {
    /// An engine with its first filters. `bpf` compiles pushed BPF filters.
    pub fn new(config: EngineConfig, filters: Arc<FilterSet>, bpf: Arc<dyn BpfCompiler + Send + Sync>) -> Self {
        let random = RandomState::new();
        let seed = random.hash_one(0);
        let limits = TableLimits { max_flows: config.flows, ..TableLimits::default() };
        let calls = CallTable::new(config.table, Arc::clone(&filters));
        Self {
            // one hash of an endpoint serves both tables
            flows: FlowTable::new(calls.hasher().clone(), limits, IdleLimits::default()),
            calls,
            defrag: Defrag::new(config.bounds.fragments),
            tcp: TcpFlows::new(config.bounds.connections, config.bounds.reassembly_bytes),
            generic: Generic::new(filters, bpf, config.table.no_filter),
            dedup: Dedup::new(seed, if config.keep_duplicates { 0 } else { dedup::CAPACITY }),
            fragments_given_up: 0,
            own: Vec::new(),
            decoded: Vec::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Swaps the filters, between frames.
    pub fn set_filters(&mut self, filters: &Arc<FilterSet>) {
        self.calls.set_filters(Arc::clone(filters));
        self.generic.set_filters(Arc::clone(filters));
    }

    /// No filter has come yet: calls are held undecided, whatever no filter would mean.
    pub fn await_filters(&mut self) {
        self.calls.await_filters();
    }

    /// Our own connections: their packets are let go, counted.
    pub fn set_own_connections(&mut self, own: Vec<FiveTuple>) {
        self.own = own;
    }

    /// Takes frames that lie side by side in a buffer; `first` is the number of the first one in its file.
    pub fn handle_burst(&mut self, frames: &[Frame<'_>], first: u64, out: &mut dyn Output) {
        let mut number = first;
        for chunk in frames.chunks(BURST) {
            let mut decoded = std::mem::take(&mut self.decoded);
            if decoded.len() < chunk.len() {
                decoded.resize(chunk.len(), Decoded::EMPTY);
            }
            for (frame, place) in chunk.iter().zip(&mut decoded) {
                self.decode(frame, place);
            }
            match self.config.mode {
                Mode::Generic => self.handle_generic(chunk, &decoded, out),
                Mode::Voip => self.handle_voip(chunk, &decoded, number, out),
            }
            self.decoded = decoded;
            number = number.wrapping_add(chunk.len() as u64);
        }
    }

    /// Takes one frame; `number` is its number in its file, from 1.
    pub fn handle_frame(&mut self, frame: &Frame<'_>, number: u64, out: &mut dyn Output) {
        self.handle_burst(std::slice::from_ref(frame), number, out);
    }

    fn handle_voip(&mut self, frames: &[Frame<'_>], decoded: &[Decoded], first: u64, out: &mut dyn Output) {
        let mut keys = [Key::default(); BURST];
        let mut lookups = [Lookup::default(); BURST];
        for (((frame, decoded), key), lookup) in frames.iter().zip(decoded).zip(&mut keys).zip(&mut lookups) {
            if let Some(h) = decoded.headers() {
                key.is_sip = sip::looks_like(h.payload(frame.data));
                (key.flow, key.side) = FlowKey::new(&h.tuple);
                let ends = self.calls.hasher().ends(&h.tuple);
                key.at = CallTable::stamp_places_of(ends);
                *lookup = self.flows.lookup_between(ends, h.tuple.proto);
            }
        }
        self.flows.warm(lookups.get_mut(..frames.len()).unwrap_or_default());
        self.calls.warm(keys.iter().take(frames.len()).map(|k| k.at));
        self.warm_wanted(frames, decoded, (&mut keys, &lookups));
        for ((((frame, decoded), key), lookup), number) in frames.iter().zip(decoded).zip(&keys).zip(lookups).zip(first..) {
            self.inspect(frame, decoded.headers(), (key, lookup), number, out);
        }
    }

    /// For packets that may be kept or forwarded: reads where their flow is kept, works out their identity, and reads where that is looked
    /// for. One pass for each, so that the loads of one pass overlap.
    fn warm_wanted(&self, frames: &[Frame<'_>], decoded: &[Decoded], (keys, lookups): (&mut [Key; BURST], &[Lookup; BURST])) {
        let lookups = lookups.get(..frames.len()).unwrap_or_default();
        let memos = lookups.iter().filter_map(|lookup| self.flows.hint(lookup)).map(|state| &state.memo);
        if self.calls.warm_wanted(memos) == 0 {
            return;
        }
        for (((frame, decoded), key), lookup) in frames.iter().zip(decoded).zip(&mut *keys).zip(lookups) {
            if self.flows.hint(lookup).is_some_and(|state| state.memo.is_wanted())
                && let Some(h) = decoded.headers()
                && h.transport == Transport::Udp
            {
                key.id = self.dedup.packet_id(h, frame.data);
            }
        }
        self.dedup.warm(keys.iter().map(|key| key.id).filter(|id| *id != 0));
    }

    /// Serves timers; `now` is packet time, or the receive time on an idle interface.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut dyn Output) {
        self.calls.handle_timeout(now, out);
        self.expire_fragments(now);
        self.expire_tcp(now, out);
        // new flows see to it themselves
        if self.flows.is_emergency() {
            self.flows.expire(now, SWEEP, |_, _| ());
        }
    }

    /// Memory is short, or no longer: idle flows, idle connections and unfinished datagrams are forgotten six times as soon, connections that
    /// have shown nothing yet before all others. What is held for a call waits as long as ever.
    pub fn set_short(&mut self, short: bool) {
        self.flows.set_short(short);
        self.tcp.set_short(short);
        let usual = self.config.bounds.fragments.timeout;
        self.defrag.set_timeout(if short { usual / 6 } else { usual });
    }

    /// End of input: everything still waiting is settled and told.
    pub fn finish(&mut self, out: &mut dyn Output) {
        self.finish_tcp(out);
        self.finish_fragments();
        self.calls.finish(out);
    }

    /// An interface did not deliver in this stretch of time: it stands in the calls that are alive.
    pub fn note_outage(&mut self, from: Timestamp, to: Timestamp) {
        self.calls.note_gap("interface_down", from, to.max(from));
    }

    /// What could not be read so far, and what was read up to a bound.
    pub fn parsing(&self) -> Parsing {
        let mut parsing = self.counters.parsing;
        let (tcp, fragments) = (self.tcp.counters(), self.defrag.counters());
        parsing.note_table(&self.calls.counters());
        parsing.error(Proto::Frame, self.counters.undecodable);
        parsing.error(Proto::Sip, self.counters.not_sip);
        parsing.error(Proto::Tcp, tcp.conflicts);
        for n in [fragments.malformed, fragments.truncated, fragments.oversize, fragments.overlaps_v6] {
            parsing.error(Proto::Ip, n);
        }
        parsing.limit(ParseLimit::Fragments, fragments.too_many);
        parsing
    }

    /// Counters at this moment; their sum is every frame taken.
    pub fn counters(&self) -> Counters {
        let mut c = self.counters;
        c.add_table(&self.calls.counters());
        c.parsing = self.parsing();
        let (tcp, fragments) = (self.tcp.counters(), self.defrag.counters());
        let flows = self.flows.counters();
        c.forgotten = Forgotten {
            flows: flows.evicted,
            flows_emergency: flows.hurried,
            tcp_directions: tcp.given_up,
            tcp_bytes: tcp.refused_bytes.saturating_add(tcp.discarded_bytes),
            datagrams: [fragments.evicted_trackers, fragments.evicted_bytes, fragments.timed_out, fragments.too_many]
                .iter()
                .fold(0, |sum, n| sum.saturating_add(*n)),
        };
        c
    }

    /// Calls known now.
    pub fn calls(&self) -> &CallTable {
        &self.calls
    }

    /// About what calls, their streams and whatever waits take, in bytes; an engine without any of that takes some more.
    pub fn bytes(&self) -> usize {
        let waiting = [self.tcp.kept_bytes, self.tcp.pool.bytes(), self.tcp.reassembly_bytes(), self.defrag.bytes()];
        waiting.into_iter().fold(self.calls.bytes(), usize::saturating_add)
    }

    /// Everything known of a call, while it is known.
    pub fn call_facts(&self, call_id: &str, input_ended: bool) -> Option<crate::voip::event::CallFacts> {
        self.calls.facts(call_id, input_ended)
    }

    fn decode(&mut self, frame: &Frame<'_>, place: &mut Decoded) {
        self.counters.captured = self.counters.captured.saturating_add(1);
        if place.decode(frame.link, frame.data, &self.config.decode).is_err() {
            self.counters.undecodable = self.counters.undecodable.saturating_add(1);
        }
    }

    fn inspect(
        &mut self,
        frame: &Frame<'_>,
        headers: Option<&Headers>,
        found_by: (&Key, Lookup),
        number: u64,
        out: &mut dyn Output,
    ) {
        let Some(h) = headers else { return self.filtered() };
        if self.is_own(&h.tuple) {
            self.counters.own = self.counters.own.saturating_add(1);
            return;
        }
        if !self.generic.passes_bpf(frame, Some(h)) {
            return self.filtered();
        }
        let place = Place { interface: frame.interface, frame: number };
        if h.too_deep {
            self.counters.parsing.limit(ParseLimit::Encapsulations, 1);
        }
        match h.transport {
            _ if h.fragment.is_some() => self.handle_fragment(frame, h, place, out),
            Transport::Udp => self.handle_udp(frame, h, found_by, place, out),
            Transport::Tcp(facts) => self.handle_tcp(&[*frame], h, h.payload(frame.data), &facts, place, out),
            Transport::Sctp | Transport::Other => self.filtered(),
        }
    }

    fn is_own(&self, t: &FiveTuple) -> bool {
        self.own.iter().any(|o| *o == *t || (o.src == t.dst && o.dst == t.src && o.proto == t.proto))
    }

    fn handle_udp(&mut self, frame: &Frame<'_>, h: &Headers, (key, lookup): (&Key, Lookup), place: Place, out: &mut dyn Output) {
        let payload = h.payload(frame.data);
        if key.is_sip {
            if self.is_duplicate(frame, self.dedup.packet_id(h, frame.data)) {
                return;
            }
            let seen = Seen { tuple: h.tuple, ts: frame.ts, place };
            let (call, event) = self.handle_sip(payload, &seen, false, out);
            self.deliver_signalling(call, frame, event, out);
            return;
        }
        let duplicates = self.config.keep_duplicates;
        let entry = self.flows.entry(&key.flow, key.side, lookup, frame.ts);
        let new_flow = entry.is_new;
        if !duplicates
            && entry.value.memo.is_wanted()
            && let id = if key.id == 0 { self.dedup.packet_id(h, frame.data) } else { key.id }
            && self.dedup.seen(id, frame.ts, frame.interface)
        {
            self.counters.duplicates = self.counters.duplicates.saturating_add(1);
            return;
        }
        let p = MediaPacket { frame, payload_at: h.payload.start as usize, payload, tuple: h.tuple, new_flow, continues: false };
        self.calls.handle_media(&p, key.at, &mut entry.value.memo, out);
    }

    /// Whether a packet of this identity was here a moment ago; counted if so.
    fn is_duplicate(&mut self, frame: &Frame<'_>, id: u64) -> bool {
        let twice = !self.config.keep_duplicates && self.dedup.seen(id, frame.ts, frame.interface);
        if twice {
            self.counters.duplicates = self.counters.duplicates.saturating_add(1);
        }
        twice
    }

    /// One whole SIP message; returns its call and its event, for the packets that carried it.
    fn handle_sip(
        &mut self,
        bytes: &[u8],
        seen: &Seen,
        stream: bool,
        out: &mut dyn Output,
    ) -> (Option<CallRef>, Option<SipEvent>) {
        let msg = if stream { Message::index_framed(bytes) } else { Message::index(bytes) };
        let Some(msg) = msg else {
            self.counters.not_sip = self.counters.not_sip.saturating_add(1);
            return (None, None);
        };
        self.counters.sip_messages = self.counters.sip_messages.saturating_add(1);
        let sessions: Vec<sdp::Session> = msg.sdp_bodies().into_iter().map(sdp::parse).collect();
        self.counters.parsing.note_message(msg.marks(), &sessions);
        let call = self.calls.handle_message(&msg, &sessions, seen, out);
        let event = out.wants_events().then(|| sip_event::of(&msg, &sessions, seen));
        (call, event)
    }

    fn deliver_signalling(&mut self, call: Option<CallRef>, frame: &Frame<'_>, event: Option<SipEvent>, out: &mut dyn Output) {
        if let Some(r) = call {
            let events = event.into_iter().collect();
            self.calls.deliver(r, Delivery { frame, payload_at: 0, part: Part::Signalling, tie: None, events, sent: None }, out);
        } else {
            // a message without a Call-ID belongs to no call; it is told, so that nobody overlooks it
            if let Some(event) = event {
                out.event(Event::Sip(Box::new(event)));
            }
            self.calls.let_pass();
        }
    }
}

#[cfg(test)]
mod tests;
