//! Calls as the processor knows them: what each hunter's packets of a call say about it, and the JSON record made of that.
//!
//! Every call has an inspection of its own for each hunter that sends of it, so that calls cannot disturb each other, and so that a call can be
//! read again from its own files after a restart. Packets that come after a call's files were closed find it still known
//! ([`Calls::keep`] says for how long) and are added to what was said of it.

mod again;
mod clocks;
mod missing;
mod weight;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;

use self::clocks::Clocks;
use super::story;
use crate::engine::{EngineConfig, Guarded, Mode, Parsing};
use crate::filter::{BpfCompiler, FilterSet, PacketTest};
use crate::packet::headers::DecodeOptions;
use crate::packet::{Frame, LinkType, Timestamp, defrag};
use crate::processor::losses::Losses;
use crate::processor::shared::Overdue;
use crate::record::FileFact;
use crate::record::json::{CallRecord, Hole};
use crate::record::state::CallMemory;
use crate::voip::event::{CallFacts, Event};
use crate::voip::expiry::CallTimes;
use crate::voip::output::{Output, Owner};
use crate::voip::table::{Limits, NoFilterPolicy, TableConfig};

/// A record is written again this often while its call lives.
const REWRITE: Duration = Duration::from_mins(1);
/// A call that the inspection does not know is over after this long without a packet: longer than media may wait there for its signalling.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Later than anything.
const FOREVER: Timestamp = Timestamp::from_nanos(i64::MAX);
/// Filters named in a call's record.
const FILTERS: usize = 256;
/// Bytes of its packets that one call's inspection keeps: of TCP, of fragments, of media before its SDP. Messages of real calls need some
/// 100 KiB of them.
const KEPT: usize = 2 << 20;
/// Calls that are looked at in one go.
const LOOK: usize = 256;
/// Flows one call's inspection remembers.
const FLOWS: usize = 32;
/// Calls that the packets filed under one Call-ID may turn out to be: media that came before its SDP are one of their own at first.
const CALLS: usize = 16;

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

/// One call as one hunter saw it.
#[derive(Default)]
struct Seen {
    /// Until the call has left it.
    engine: Option<Box<Guarded>>,
    frames: u64,
    /// What the inspection said when the call left it.
    left: Option<Box<CallFacts>>,
    /// The hunter has stopped: what is not over is unfinished.
    gone: bool,
    /// What time has ended in this inspection, calls of other names included.
    overdue: Overdue,
}

impl Seen {
    /// What the packet had that could not be read is added to `parsing`.
    fn take(&mut self, call_id: &str, frame: &Frame<'_>, times: CallTimes, parsing: &mut Parsing) {
        self.gone = false;
        self.frames = self.frames.wrapping_add(1);
        let mut out = Leaving::default();
        let engine = self.engine.get_or_insert_with(|| engine(times));
        let before = engine.parsing();
        engine.handle_frame(frame, self.frames, &mut out);
        parsing.add_since(&before, &engine.parsing());
        self.note_left(call_id, out);
    }

    /// If it is over although nobody saw its end, it is added to `overdue`.
    fn handle_timeout(&mut self, call_id: &str, mark: Timestamp, overdue: &mut Overdue) {
        let Some(engine) = &mut self.engine else { return };
        let mut out = Leaving::default();
        engine.handle_timeout(mark, &mut out);
        if out.facts.iter().any(|f| f.unfinished) {
            let counters = engine.counters();
            let now = Overdue { idle: counters.calls_idle, aged: counters.calls_aged };
            let before = std::mem::replace(&mut self.overdue, now);
            if out.facts.iter().any(|f| f.unfinished && *f.call_id == *call_id) {
                overdue.add_since(before, now);
            }
        }
        self.note_left(call_id, out);
    }

    fn hunter_gone(&mut self, call_id: &str) {
        self.gone = true;
        let Some(engine) = &mut self.engine else { return };
        let mut out = Leaving::default();
        engine.finish(&mut out);
        self.note_left(call_id, out);
        self.engine = None;
    }

    fn note_left(&mut self, call_id: &str, out: Leaving) {
        for f in out.facts.into_iter().filter(|f| *f.call_id == *call_id) {
            (self.engine, self.overdue) = (None, Overdue::default());
            // a straggler after the end is a story of its own, and a short one
            if self.left.as_ref().is_none_or(|l| (l.messages, l.media_packets) <= (f.messages, f.media_packets)) {
                self.left = Some(Box::new(f));
            }
        }
    }

    fn facts(&self, call_id: &str) -> impl Iterator<Item = CallFacts> {
        let live = self.engine.as_ref().and_then(|e| e.call_facts(call_id, false));
        live.into_iter().chain(self.left.as_deref().cloned())
    }

    /// Whether the call is over as far as this hunter has seen it; `mark` is its packet time, `last` the call's last packet.
    fn is_over(&self, call_id: &str, mark: Option<Timestamp>, last: Timestamp, grace: Duration) -> bool {
        let Some(mark) = mark.filter(|_| !self.gone) else { return true };
        let Some(call) = self.engine.as_ref().and_then(|e| e.calls().by_id(call_id)) else {
            // it has left the inspection, or never been in it: media whose signalling went elsewhere, packets that cannot be read
            return mark >= last.saturating_add(grace.max(UNKNOWN));
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
}

/// One call, over all hunters.
#[derive(Default)]
pub(super) struct Entry {
    seen: BTreeMap<Arc<str>, Seen>,
    pub(super) filter_ids: BTreeSet<String>,
    pub(super) sip: u64,
    pub(super) rtp: u64,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// By which rule a phone number filter chose it.
    pub(super) phone_rule: String,
    /// What each hunter says is missing.
    pub(super) said_holes: BTreeMap<Arc<str>, String>,
    /// Packets that came for another call before.
    pub(super) shared: u64,
    /// What is missing, as an earlier program wrote it down.
    pub(super) holes: Vec<Hole>,
    /// What a restart must know of it changed, and it stands in [`Calls::changed`].
    changed: bool,
    /// When it was alive, once its files are closed.
    done: Option<(Timestamp, Timestamp)>,
    written: Option<Timestamp>,
    /// What it takes, in bytes, when it was last weighed; 0 before.
    weight: usize,
    /// What has come since.
    unweighed: usize,
    /// Of an earlier process: its files are to be read again before anything is said of it; these hunters had stopped.
    unread: Option<Vec<Arc<str>>>,
}

impl Entry {
    fn note_change(&mut self, id: &Arc<str>, changed: &mut Vec<Arc<str>>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(Arc::clone(id));
        }
    }

    /// What a restart cannot read from its files; `open`: its last record is still to be written.
    fn memory(&self, id: &str, open: bool) -> CallMemory {
        CallMemory {
            call_id: id.to_owned(),
            filter_ids: self.filter_ids.iter().cloned().collect(),
            phone_rule: self.phone_rule.clone(),
            said_holes: self.said_holes.iter().map(|(h, text)| (h.to_string(), text.clone())).collect(),
            shared: self.shared,
            holes: self.holes.clone(),
            gone: match &self.unread {
                Some(gone) => gone.iter().map(ToString::to_string).collect(),
                None => self.seen.iter().filter(|(_, s)| s.gone).map(|(h, _)| h.to_string()).collect(),
            },
            open,
        }
    }

    /// Whether every hunter has seen its end so long ago.
    fn is_over(&mut self, call_id: &str, clocks: &Clocks, (now, grace): (Timestamp, Duration), overdue: &mut Overdue) -> bool {
        let last = self.last.unwrap_or(Timestamp::MIN);
        let mut over = true;
        for (hunter, seen) in &mut self.seen {
            let clock = clocks.get(hunter);
            if let Some(clock) = clock {
                seen.handle_timeout(call_id, clock.settled(now), overdue);
            }
            over &= seen.is_over(call_id, clock.map(|c| c.mark(now)), last, grace);
        }
        over
    }

    /// Whether its record is to be written again.
    fn is_stale(&self, now: Timestamp) -> bool {
        self.unread.is_none() && self.written.is_none_or(|at| now.since(at) >= REWRITE)
    }

    /// Whether no hunter is left that could send more of it.
    pub(super) fn is_cut(&self) -> bool {
        self.seen.values().all(|s| s.gone)
    }

    pub(super) fn hunters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.seen.keys()
    }
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

/// All calls whose files are open, or were until lately.
#[derive(Default)]
pub(super) struct Calls {
    clocks: Clocks,
    open: BTreeMap<Arc<str>, Entry>,
    closed: BTreeMap<Arc<str>, Entry>,
    /// What all of them take.
    bytes: usize,
    /// How many are unread; open ones in the order in which they are read.
    unread: usize,
    to_read: VecDeque<Arc<str>>,
    /// The last one that was looked at, until all of them are.
    looked: Option<Arc<str>>,
    /// What of their packets could not be read, or only up to a bound.
    parsing: Parsing,
    /// Since [`Calls::take_changes`]: calls of which a restart must know something else, and those that are forgotten.
    changed: Vec<Arc<str>>,
    forgotten: Vec<String>,
    /// When packets were lost before any call could be told.
    losses: Arc<Mutex<Losses>>,
    /// When one is over whose end nobody saw, and how many were.
    times: CallTimes,
    overdue: Overdue,
}

impl Calls {
    /// With what hunters say they lost.
    pub(super) fn new(losses: Arc<Mutex<Losses>>, times: CallTimes) -> Self {
        Self { losses, times, ..Self::default() }
    }

    /// What of their packets could not be read so far, and what was read up to a bound.
    pub(super) const fn parsing(&self) -> Parsing {
        self.parsing
    }

    /// How many were over although nobody saw their end.
    pub(super) const fn overdue(&self) -> Overdue {
        self.overdue
    }

    /// Calls whose files may still grow.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes one packet of a call; if it was weighed, what it takes.
    pub(super) fn take(
        &mut self,
        hunter: &Arc<str>,
        owned: &Owned<'_>,
        filters: &mut dyn Iterator<Item = &str>,
        frame: &Frame<'_>,
    ) -> Option<usize> {
        let call_id = owned.call_id;
        let entry = if let Some(entry) = self.open.get_mut(call_id) {
            entry
        } else {
            // a new call, or one that late packets wake
            let known = self.closed.remove_entry(call_id);
            let (id, mut entry) = known.unwrap_or_else(|| (Arc::from(call_id), Entry::default()));
            entry.done = None;
            entry.note_change(&id, &mut self.changed);
            self.open.entry(id).or_insert(entry)
        };
        // texts that are new for it
        let (mut said, mut news) = (0_usize, owned.again);
        for id in filters {
            if !entry.filter_ids.contains(id) && entry.filter_ids.len() < FILTERS {
                said = said.saturating_add(id.len());
                news |= entry.filter_ids.insert(id.to_owned());
            }
        }
        if entry.phone_rule.is_empty() && !owned.phone_rule.is_empty() {
            said = said.saturating_add(owned.phone_rule.len());
            owned.phone_rule.clone_into(&mut entry.phone_rule);
            news = true;
        }
        if !owned.holes.is_empty() && entry.said_holes.get(hunter).is_none_or(|h| h != owned.holes) {
            said = said.saturating_add(owned.holes.len());
            entry.said_holes.insert(Arc::clone(hunter), owned.holes.to_owned());
            news = true;
        }
        news |= entry.seen.get(hunter).is_some_and(|s| s.gone);
        if news && !entry.changed {
            entry.note_change(&Arc::from(call_id), &mut self.changed);
        }
        entry.note_return(call_id, hunter, frame.ts, &self.losses);
        entry.shared = entry.shared.saturating_add(u64::from(owned.again));
        let count = if owned.sip { &mut entry.sip } else { &mut entry.rtp };
        *count = count.saturating_add(1);
        entry.first = Some(entry.first.map_or(frame.ts, |t| t.min(frame.ts)));
        entry.last = Some(entry.last.map_or(frame.ts, |t| t.max(frame.ts)));
        if let Some(seen) = entry.seen.get_mut(hunter) {
            seen.take(call_id, frame, self.times, &mut self.parsing);
        } else {
            entry.seen.entry(Arc::clone(hunter)).or_default().take(call_id, frame, self.times, &mut self.parsing);
        }
        if entry.note_packet(frame.data.len().saturating_add(said)) { self.weigh(call_id) } else { None }
    }

    /// Something came from a hunter at `now`, by our clock; its newest packet is of that time.
    pub(super) fn heard(&mut self, hunter: &Arc<str>, newest: Option<Timestamp>, now: Timestamp) {
        self.clocks.heard(hunter, now);
        if let Some(ts) = newest {
            self.clocks.note_packet(hunter, ts);
        }
    }

    /// A hunter has stopped: its calls do not go on.
    pub(super) fn hunter_gone(&mut self, hunter: &Arc<str>) {
        // nobody heard of has a call, but for those of an earlier process
        if !self.clocks.remove(hunter) && self.unread == 0 {
            return;
        }
        for (call_id, entry) in &mut self.open {
            if let Some(gone) = &mut entry.unread {
                gone.push(Arc::clone(hunter));
                entry.note_change(call_id, &mut self.changed);
            }
            if let Some(seen) = entry.seen.get_mut(hunter) {
                seen.hunter_gone(call_id);
                entry.note_change(call_id, &mut self.changed);
            }
        }
    }

    /// Somebody looks at `now`; `is_there` says of a hunter whether it is connected and has sent what it has.
    pub(super) fn note_there(&mut self, now: Timestamp, is_there: impl Fn(&str) -> bool) {
        self.clocks.look(now, is_there);
    }

    /// Of the next calls, whose records are to be written, and whose files closed: a call is over `grace` of packet time after its end.
    pub(super) fn due(&mut self, now: Timestamp, grace: Duration) -> Vec<Due> {
        let (mut due, mut last) = (Vec::new(), None);
        let from = self.looked.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut calls = self.open.range_mut((from, Bound::Unbounded));
        for (call_id, entry) in calls.by_ref().take(LOOK) {
            let over = entry.unread.is_none() && entry.is_over(call_id, &self.clocks, (now, grace), &mut self.overdue);
            if over || entry.is_stale(now) {
                due.push(Due { call_id: Arc::clone(call_id), close: over });
            }
            last = Some(call_id);
        }
        self.looked = last.filter(|_| calls.next().is_some()).cloned();
        due
    }

    /// Of what was [`Self::due`] nothing was done after this one: the next look goes on there.
    pub(super) fn go_on_after(&mut self, call_id: &Arc<str>) {
        self.looked = Some(Arc::clone(call_id));
    }

    /// Whether [`Self::due`] has looked at the last of them, and begins anew.
    pub(super) const fn is_round(&self) -> bool {
        self.looked.is_none()
    }

    /// Every call still open, at the end of the processor.
    pub(super) fn rest(&self) -> Vec<Arc<str>> {
        self.open.iter().filter(|(_, e)| e.unread.is_none()).map(|(id, _)| Arc::clone(id)).collect()
    }

    fn get(&self, call_id: &str) -> Option<&Entry> {
        self.open.get(call_id).or_else(|| self.closed.get(call_id))
    }

    fn get_mut(&mut self, call_id: &str) -> Option<&mut Entry> {
        self.open.get_mut(call_id).or_else(|| self.closed.get_mut(call_id))
    }

    /// The record of a call as it stands.
    pub(super) fn record(&self, call_id: &str, files: Vec<FileFact>, closed: bool) -> CallRecord {
        let mut record = CallRecord::new(call_id.as_bytes());
        record.closed = closed;
        record.files = files;
        if let Some(entry) = self.get(call_id) {
            let all: Vec<CallFacts> = entry.seen.values().flat_map(|s| s.facts(call_id)).collect();
            story::tell(&mut record, entry, &all);
            record.holes.extend(self.lost_of(call_id, entry));
            record.complete = record.holes.is_empty();
        }
        record
    }

    /// A call's record was written.
    pub(super) fn written(&mut self, call_id: &str, now: Timestamp) {
        if let Some(entry) = self.open.get_mut(call_id) {
            entry.written = Some(now);
        }
    }

    /// A call's files are closed, and its record is written, named after this stem: whatever comes later of what it says is missing changes it.
    pub(super) fn close(&mut self, call_id: &str, stem: &str) {
        if let Some((id, mut entry)) = self.open.remove_entry(call_id) {
            entry.done = Self::life(call_id, &entry);
            entry.note_change(&id, &mut self.changed);
            self.closed.insert(id, entry);
        }
        let Some((entry, (first, last))) = self.closed.get(call_id).and_then(|e| Some((e, e.done?))) else { return };
        let mut losses = self.losses.lock();
        for hunter in entry.seen.keys() {
            losses.remember_record(hunter, first, last, stem);
        }
    }

    /// Whether a call's files are closed and no late packet has come since.
    pub(super) fn is_closed(&self, call_id: &str) -> bool {
        self.closed.contains_key(call_id)
    }

    /// Forgets a call: another with its Call-ID begins.
    pub(super) fn forget(&mut self, call_id: &str) {
        let entry = self.open.remove(call_id).or_else(|| self.closed.remove(call_id));
        if let Some(e) = &entry {
            self.unweigh(e);
            self.forgotten.push(call_id.to_owned());
        }
        self.unread = self.unread.saturating_sub(usize::from(entry.is_some_and(|e| e.unread.is_some())));
    }

    /// Forgets closed calls whose files are not continued any more, and hunters of whom there is no open call.
    pub(super) fn keep(&mut self, known: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self.closed.keys().filter(|id| !known(id)).cloned().collect();
        for id in gone {
            self.forget(&id);
        }
        let busy: BTreeSet<&Arc<str>> = self.open.values().flat_map(Entry::hunters).collect();
        self.clocks.keep(|hunter| busy.contains(hunter));
    }

    /// What a restart cannot read from a call's files; `unsaved` are closed calls whose last record could not be written.
    pub(super) fn memory(&self, unsaved: &BTreeSet<String>) -> Vec<CallMemory> {
        let of = |(id, entry): (&Arc<str>, &Entry), open: bool| entry.memory(id, open || unsaved.contains(&**id));
        self.open.iter().map(|e| of(e, true)).chain(self.closed.iter().map(|e| of(e, false))).collect()
    }

    /// The same of calls that changed since the last look, or are in one of `unsaved` and `before` alone; and those that are forgotten since then:
    /// where another has their Call-ID, it is among the first.
    pub(super) fn take_changes(
        &mut self,
        unsaved: &BTreeSet<String>,
        before: &BTreeSet<String>,
    ) -> (Vec<CallMemory>, Vec<String>) {
        let mut ids: BTreeSet<Arc<str>> = std::mem::take(&mut self.changed).into_iter().collect();
        ids.extend(unsaved.symmetric_difference(before).map(|id| Arc::from(id.as_str())));
        let mut changed = Vec::with_capacity(ids.len());
        for id in ids {
            let open = self.open.contains_key(&id) || unsaved.contains(&*id);
            if let Some(entry) = self.get_mut(&id) {
                entry.changed = false;
                changed.push(entry.memory(&id, open));
            }
        }
        (changed, std::mem::take(&mut self.forgotten))
    }
}

fn engine(times: CallTimes) -> Box<Guarded> {
    static NO_FILTERS: LazyLock<Arc<FilterSet>> = LazyLock::new(|| Arc::new(FilterSet::empty()));
    let no_filter = NoFilterPolicy::Allow;
    let limits = Limits { calls: CALLS, unclaimed_bytes: KEPT, times, ..Limits::default() };
    let table = TableConfig { limits, everything: true, quality: true, details: true, no_filter, ..TableConfig::default() };
    let config = EngineConfig {
        mode: Mode::Voip,
        table,
        decode: DecodeOptions::default(),
        keep_duplicates: true,
        flows: FLOWS,
        bounds: crate::engine::Bounds {
            connections: FLOWS,
            reassembly_bytes: KEPT,
            kept_bytes: KEPT,
            fragments: defrag::Limits { max_bytes: KEPT, max_trackers: FLOWS, ..defrag::Limits::default() },
        },
    };
    Box::new(Guarded::new(config, Arc::clone(&NO_FILTERS), Arc::new(NoBpf)))
}

#[cfg(test)]
mod tests;
