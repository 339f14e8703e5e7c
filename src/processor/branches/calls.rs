//! Calls as the processor knows them: one inspection per hunter over what it sent, and the JSON record of every call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::engine::{Engine, EngineConfig, Mode};
use crate::filter::{BpfCompiler, FilterSet, PacketTest};
use crate::packet::headers::DecodeOptions;
use crate::packet::{Frame, LinkType, Timestamp};
use crate::record::FileFact;
use crate::record::json::{self, CallRecord};
use crate::voip::details::{Details, Dialog, DialogState};
use crate::voip::event::{CallFacts, Event, Hole, IdentityFact};
use crate::voip::output::{Output, Owner};
use crate::voip::state::CallState;
use crate::voip::table::{NoFilterPolicy, TableConfig};

/// A record is written again this often while its call lives.
const REWRITE: Duration = Duration::from_mins(1);
/// A call that the inspection does not know is over after this long without a packet: longer than media may wait there for its signalling.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Flows one hunter's inspection remembers.
const FLOWS: usize = 65_536;

/// The inspection needs no BPF: what came was chosen already.
struct NoBpf;

impl BpfCompiler for NoBpf {
    fn compile(&self, _: LinkType, _: &str) -> Result<Box<dyn PacketTest>, String> {
        Err("not used here".to_owned())
    }
}

/// Nothing is forwarded from here; the facts of calls that leave the table are kept.
#[derive(Default)]
struct Leaving {
    facts: Vec<CallFacts>,
}

impl Output for Leaving {
    fn forward(&mut self, _: &Frame<'_>, _: Option<&Owner<'_>>) {}

    fn event(&mut self, event: Event) {
        if let Event::Call(call) = event {
            self.facts.push(call.facts);
        }
    }

    fn wants_events(&self) -> bool {
        true
    }
}

/// One hunter's calls.
struct View {
    engine: Engine,
    newest: Timestamp,
    heard: Timestamp,
    frames: u64,
}

/// One call, over all hunters.
#[derive(Default)]
struct Entry {
    hunters: BTreeSet<Arc<str>>,
    filter_ids: BTreeSet<String>,
    sip: u64,
    rtp: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// What a hunter's inspection said when the call left it.
    left: BTreeMap<Arc<str>, CallFacts>,
    written: Option<Timestamp>,
    /// A hunter stopped: what is not over is unfinished.
    cut: bool,
    /// By which rule a phone number filter chose it.
    phone_rule: String,
    /// What each hunter says is missing.
    holes: BTreeMap<Arc<str>, String>,
    /// Packets that came for another call before.
    shared: u64,
}

/// What came with a packet of a call.
#[derive(Clone, Copy)]
pub(super) struct Owned<'a> {
    pub(super) call_id: &'a str,
    pub(super) sip: bool,
    pub(super) phone_rule: &'a str,
    pub(super) holes: &'a str,
    /// It came for another call before.
    pub(super) again: bool,
}

/// What is to be done with a call's files.
pub(super) struct Due {
    /// Which call.
    pub(super) call_id: Arc<str>,
    /// Close its files, or only write the record.
    pub(super) close: bool,
}

/// All calls whose files are open.
#[derive(Default)]
pub(super) struct Calls {
    views: HashMap<Arc<str>, View, RandomState>,
    open: BTreeMap<Arc<str>, Entry>,
}

impl Calls {
    /// Takes one packet of a call.
    pub(super) fn take(
        &mut self,
        hunter: &Arc<str>,
        owned: &Owned<'_>,
        filters: &mut dyn Iterator<Item = &str>,
        frame: &Frame<'_>,
    ) {
        let entry = match self.open.get_mut(owned.call_id) {
            Some(e) => e,
            None => self.open.entry(Arc::from(owned.call_id)).or_default(),
        };
        if !entry.hunters.contains(hunter) {
            entry.hunters.insert(Arc::clone(hunter));
        }
        for id in filters {
            if !entry.filter_ids.contains(id) {
                entry.filter_ids.insert(id.to_owned());
            }
        }
        if entry.phone_rule.is_empty() {
            owned.phone_rule.clone_into(&mut entry.phone_rule);
        }
        if !owned.holes.is_empty() && entry.holes.get(hunter).is_none_or(|h| h != owned.holes) {
            entry.holes.insert(Arc::clone(hunter), owned.holes.to_owned());
        }
        entry.shared = entry.shared.saturating_add(u64::from(owned.again));
        let count = if owned.sip { &mut entry.sip } else { &mut entry.rtp };
        *count = count.saturating_add(1);
        entry.first = Some(entry.first.map_or(frame.ts, |t| t.min(frame.ts)));
        entry.last = Some(entry.last.map_or(frame.ts, |t| t.max(frame.ts)));
        self.inspect(hunter, frame);
    }

    fn inspect(&mut self, hunter: &Arc<str>, frame: &Frame<'_>) {
        let view = self.views.entry(Arc::clone(hunter)).or_insert_with(|| View {
            engine: engine(),
            newest: Timestamp::MIN,
            heard: Timestamp::MIN,
            frames: 0,
        });
        view.newest = view.newest.max(frame.ts);
        view.frames = view.frames.wrapping_add(1);
        let mut out = Leaving::default();
        view.engine.handle_frame(frame, view.frames, &mut out);
        note_left(&mut self.open, hunter, out.facts);
    }

    /// Something came from a hunter at `now`, by our clock.
    pub(super) fn heard(&mut self, hunter: &Arc<str>, now: Timestamp) {
        if let Some(v) = self.views.get_mut(hunter) {
            v.heard = now;
        }
    }

    /// A hunter has stopped: its calls do not go on.
    pub(super) fn hunter_gone(&mut self, hunter: &Arc<str>) {
        let Some(mut view) = self.views.remove(hunter) else { return };
        let mut out = Leaving::default();
        view.engine.finish(&mut out);
        note_left(&mut self.open, hunter, out.facts);
        for entry in self.open.values_mut().filter(|e| e.hunters.contains(hunter)) {
            entry.cut = true;
        }
    }

    /// Which records are to be written, and which files closed: a call is over `grace` of packet time after its end.
    pub(super) fn due(&mut self, now: Timestamp, grace: Duration) -> Vec<Due> {
        let marks: HashMap<Arc<str>, Timestamp, RandomState> =
            self.views.iter().map(|(h, v)| (Arc::clone(h), watermark(v, now))).collect();
        for (hunter, view) in &mut self.views {
            let mut out = Leaving::default();
            view.engine.handle_timeout(watermark(view, now), &mut out);
            note_left(&mut self.open, hunter, out.facts);
        }
        let mut due = Vec::new();
        for (call_id, entry) in &self.open {
            let over = entry.hunters.iter().all(|h| is_over(self.views.get(h), marks.get(h), call_id, grace, entry));
            let stale = entry.written.is_none_or(|at| now.since(at) >= REWRITE);
            if over || stale {
                due.push(Due { call_id: Arc::clone(call_id), close: over });
            }
        }
        due
    }

    /// Every call still open, at the end of the processor.
    pub(super) fn rest(&self) -> Vec<Arc<str>> {
        self.open.keys().cloned().collect()
    }

    /// The record of a call as it stands.
    pub(super) fn record(&mut self, call_id: &str, files: Vec<FileFact>, closed: bool, now: Timestamp) -> CallRecord {
        let mut record = CallRecord::new(call_id.as_bytes());
        record.closed = closed;
        record.files = files;
        let Some(entry) = self.open.get_mut(call_id) else { return record };
        entry.written = Some(now);
        let mut all: Vec<CallFacts> = Vec::new();
        for h in &entry.hunters {
            let live = self.views.get(h).and_then(|v| v.engine.call_facts(call_id, false));
            all.extend(live.or_else(|| entry.left.get(h).cloned()));
        }
        fill(&mut record, entry, &all);
        record
    }

    /// Forgets a call whose files are closed.
    pub(super) fn forget(&mut self, call_id: &str) {
        self.open.remove(call_id);
    }
}

fn engine() -> Engine {
    let no_filter = NoFilterPolicy::Allow;
    let table = TableConfig { everything: true, quality: true, details: true, no_filter, ..TableConfig::default() };
    let config = EngineConfig { mode: Mode::Voip, table, decode: DecodeOptions::default(), keep_duplicates: true, flows: FLOWS };
    Engine::new(config, Arc::new(FilterSet::empty()), Arc::new(NoBpf))
}

/// Packet time at a hunter: its newest packet, and on from there while it is silent.
fn watermark(v: &View, now: Timestamp) -> Timestamp {
    v.newest.saturating_add(now.since(v.heard))
}

fn note_left(open: &mut BTreeMap<Arc<str>, Entry>, hunter: &Arc<str>, facts: Vec<CallFacts>) {
    for f in facts {
        if let Some(entry) = open.get_mut(&f.call_id) {
            entry.left.insert(Arc::clone(hunter), f);
        }
    }
}

/// Whether a call is over as far as one hunter has seen it.
fn is_over(view: Option<&View>, mark: Option<&Timestamp>, call_id: &str, grace: Duration, entry: &Entry) -> bool {
    let Some(view) = view else { return entry.cut };
    let mark = mark.copied().unwrap_or(Timestamp::MIN);
    let Some(call) = view.engine.calls().by_id(call_id) else {
        // it has left the inspection, or never been in it: media whose signalling went elsewhere, packets that cannot be read
        return entry.last.is_none_or(|last| mark >= last.saturating_add(grace.max(UNKNOWN)));
    };
    let state = call.machine.state();
    let end = if state.is_final() {
        call.machine.ended_at()
    } else if state.is_call() {
        None
    } else {
        // a registration or a message is over with its transaction
        Some(call.last)
    };
    end.is_some_and(|at| mark >= at.max(call.last).saturating_add(grace))
}

fn fill(record: &mut CallRecord, entry: &Entry, all: &[CallFacts]) {
    let time = |ns: i64| json::time(Timestamp::from_nanos(ns));
    record.hunters = entry.hunters.iter().map(ToString::to_string).collect();
    record.filter_ids = entry.filter_ids.iter().cloned().collect();
    record.phone_rule = Some(entry.phone_rule.clone()).filter(|rule| !rule.is_empty());
    record.shared_packets = entry.shared;
    for (hunter, text) in &entry.holes {
        record.holes.extend(Hole::read(text).map(|(reason, from, until, packets)| json::Hole {
            reason: reason.to_owned(),
            from: Some(time(from)),
            until: Some(time(until)),
            packets: Some(packets),
            hunter: hunter.to_string(),
        }));
    }
    let rtcp = all.iter().fold(0_u64, |n, f| n.saturating_add(f.rtcp_packets)).min(entry.rtp);
    record.packets = json::Packets { sip: entry.sip, rtp: entry.rtp.saturating_sub(rtcp), rtcp };
    record.first_packet = entry.first.map(json::time);
    record.last_packet = entry.last.map(json::time);
    // the hunter that saw most of the signalling tells the story; media is everybody's
    let Some(f) = all.iter().max_by_key(|f| (f.messages, f.media_packets)) else {
        "active".clone_into(&mut record.state);
        return;
    };
    kind(f.state).clone_into(&mut record.kind);
    record.state =
        if f.unfinished || (entry.cut && !is_final(f.state)) { "unfinished".to_owned() } else { f.state.to_lowercase() };
    record.status = f.status;
    record.from = json::Party { user: f.from_user.clone(), host: f.from_host.clone(), ..json::Party::default() };
    record.to = json::Party { user: f.to_user.clone(), host: f.to_host.clone(), ..json::Party::default() };
    if let Some(d) = &f.details {
        describe(record, d);
    }
    record.answered = f.answered_ns.map(time);
    record.ended = f.ended_ns.map(time);
    #[expect(clippy::cast_precision_loss, reason = "seconds with a fraction, for people")]
    let secs = |ns: i64| (ns / 1_000_000) as f64 / 1000.0;
    record.talk_secs = f.answered_ns.zip(f.ended_ns).map(|(a, e)| secs(e.saturating_sub(a)));
    let whole = !record.holes.iter().any(|h| h.reason == "before_match");
    record.media_from =
        all.iter().filter_map(|f| f.media_from_ns).min().map(|ns| if whole { "start".to_owned() } else { time(ns) });
    for f in all {
        record.streams.extend(f.streams.iter().map(stream));
        if let Some(formula) = f.streams.iter().find_map(|s| s.mos_formula.clone()) {
            record.quality_formula = Some(formula);
        }
    }
}

fn describe(record: &mut CallRecord, d: &Details) {
    let said = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    for (party, side) in [(&mut record.from, &d.from), (&mut record.to, &d.to)] {
        party.display = side.display.to_string();
        party.uri = side.uri.to_string();
    }
    // the dialog that stood, or else the first
    let stood = d.dialogs.iter().find(|x| x.state == DialogState::Confirmed).or(d.dialogs.first());
    if let Some(x) = stood {
        record.from.tag = x.from_tag.to_string();
        record.to.tag = x.to_tag.to_string();
    }
    record.request_uri = said(&d.request_uri);
    record.reason = said(&d.reason);
    record.ringing = d.ringing.map(json::time);
    let value = |user: &str, host: &str| if host.is_empty() { user.to_owned() } else { format!("{user}@{host}") };
    let identity = |f: &IdentityFact| json::Identity { field: f.field.to_owned(), value: value(&f.user, &f.host) };
    record.identities = d.identities.iter().map(identity).collect();
    let dialog = |x: &Dialog| json::Dialog {
        from_tag: x.from_tag.to_string(),
        to_tag: x.to_tag.to_string(),
        state: x.state.name().to_owned(),
    };
    record.dialogs = d.dialogs.iter().map(dialog).collect();
}

fn is_final(state: &str) -> bool {
    [CallState::Ended, CallState::Failed, CallState::Cancelled, CallState::Busy, CallState::Redirected]
        .iter()
        .any(|s| s.name() == state)
}

fn kind(state: &str) -> &'static str {
    match state {
        "REGISTRATION" => "registration",
        "MESSAGE" => "message",
        "OTHER" => "transaction",
        "RTP-ONLY" => "media",
        _ => "call",
    }
}

fn stream(s: &crate::voip::event::StreamFacts) -> json::Stream {
    let time = |ns: i64| Some(json::time(Timestamp::from_nanos(ns)));
    json::Stream {
        ssrc: s.ssrc,
        payload_type: s.payload_types.first().copied().unwrap_or(0),
        codec: s.codec.clone(),
        clock_hz: s.clock_hz,
        from: s.src.clone(),
        to: s.dst.clone(),
        evidence: s.evidence.clone(),
        first_packet: time(s.first_ns),
        last_packet: time(s.last_ns),
        packets: s.packets,
        expected: s.expected,
        max_gap_ms: s.max_gap_ms,
        lost: s.lost,
        late: s.reordered,
        duplicates: s.duplicates,
        jitter_ms: s.jitter_mean_ms,
        jitter_max_ms: s.jitter_max_ms,
        mos: s.mos,
    }
}

#[cfg(test)]
mod tests;
