//! The table of calls: look-up, life and death, and the counters that account for every packet.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::filter::{FilterSet, Hits};
use crate::packet::{FiveTuple, Timestamp};
use crate::reason::DropReason;

use super::call::{Call, CallRef, Verdict};
use super::claim::{Claims, GRACE};
use super::event::{CallEvent, CallFacts, Common, Event, Place};
use super::expiry::{CallTimes, Queue, Turn};
use super::hold::{Part, Pool};
use super::lookback::Lookback;
use super::matching::Strangers;
use super::output::Output;
use super::state::CallState;
use super::unclaimed::Unclaimed;
use super::weight;

/// Bounds of the table and its holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls (100 000): one that is over goes, else the one silent for longest, `evicted_call`.
    pub calls: usize,
    /// Bytes of them (232 MiB, as many ordinary ones): the same.
    pub call_bytes: usize,
    /// When a call is over whose end nobody saw.
    pub times: CallTimes,
    /// Messages held per undecided call (64): `hold_messages`.
    pub hold_messages: usize,
    /// Age of an undecided call's signalling (180 s): `hold_age`.
    pub hold_age: Duration,
    /// Signalling bytes held over all calls (64 MiB): `hold_bytes`.
    pub hold_bytes: usize,
    /// Media packets held per undecided call (200): `hold_media`.
    pub hold_media_packets: usize,
    /// Age of held media (5 s): `hold_age`.
    pub hold_media_age: Duration,
    /// Packets of a flow nobody has claimed (50): `hold_unclaimed`.
    pub unclaimed_packets: usize,
    /// Age of the same (2 s).
    pub unclaimed_age: Duration,
    /// Bytes of the same over all flows (32 MiB).
    pub unclaimed_bytes: usize,
}

impl Limits {
    /// Room for so many calls, as large as calls usually are.
    #[must_use]
    pub fn with_calls(self, calls: usize) -> Self {
        Self { calls, call_bytes: calls.saturating_mul(weight::CALL), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 100_000,
            call_bytes: 100_000 * weight::CALL,
            times: CallTimes::default(),
            hold_messages: 64,
            hold_age: Duration::from_mins(3),
            hold_bytes: 64 << 20,
            hold_media_packets: 200,
            hold_media_age: Duration::from_secs(5),
            unclaimed_packets: 50,
            unclaimed_age: Duration::from_secs(2),
            unclaimed_bytes: 32 << 20,
        }
    }
}

/// What is wanted when no filter is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoFilterPolicy {
    /// Everything.
    Allow,
    /// Nothing.
    #[default]
    Deny,
}

/// How a call table is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableConfig {
    /// Bounds.
    pub limits: Limits,
    /// What no filter means.
    pub no_filter: NoFilterPolicy,
    /// Whether stream quality is computed (for calls that are, or may be, wanted).
    pub quality: bool,
    /// Whether what only records tell is kept.
    pub details: bool,
    /// Look-back: age and bytes; off when zero.
    pub lookback: (Duration, usize),
    /// Every call is wanted, whatever the filters say: a processor that looks at what it received.
    pub everything: bool,
}

/// Packets by what became of them: their sum is every packet given to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Handed to the output.
    pub forwarded: u64,
    /// Let go because nobody asked for them.
    pub filtered: u64,
    /// Given up, by [`DropReason::index`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Further copies of packets that several calls own: they are on the other side of the equation.
    pub shared: u64,
    /// Waiting now, for a verdict or for a claim.
    pub held: u64,
    /// Calls seen.
    pub calls: u64,
    /// Calls evicted from a full table.
    pub evicted: u64,
    /// Calls whose end nobody saw: their media had stopped for [`CallTimes::rtp_idle`].
    pub idle: u64,
    /// The same, without media: they were [`CallTimes::max_age`] old.
    pub aged: u64,
    /// Claims beyond what a call may make.
    pub claims_refused: u64,
    /// Packets of streams beyond what is measured of a call.
    pub streams_refused: u64,
    /// Media of measured calls that is no RTP.
    pub bad_rtp: u64,
    /// Reports of measured calls that cannot be read.
    pub bad_rtcp: u64,
    /// Flows of media that nobody has signalled.
    pub rtp_only: u64,
}

/// All calls one engine sees.
#[derive(Debug)]
pub struct CallTable {
    pub(super) config: TableConfig,
    pub(super) filters: Arc<FilterSet>,
    pub(super) wanted: Wanted,
    pub(super) calls: Vec<Option<Call>>,
    free: Vec<u32>,
    pub(super) by_id: HashMap<Arc<str>, u32, RandomState>,
    serial: u64,
    pub(super) timers: Queue<Timestamp>,
    /// When timers were last served.
    pub(super) observed: Timestamp,
    /// Who goes first where calls need room.
    pub(super) turns: Queue<Turn>,
    pub(super) claims: Claims,
    pub(super) unclaimed: Unclaimed,
    pub(super) pool: Pool,
    pub(super) lookback: Lookback,
    /// Calls in the order their holds began: whose hold goes when all holds together are full.
    pub(super) hold_order: VecDeque<CallRef>,
    pub(super) held_signalling_bytes: usize,
    pub(super) next_key: u64,
    pub(super) hits: Hits,
    pub(super) strangers: Strangers,
    pub(super) hasher: RandomState,
    pub(super) counters: TableCounters,
    /// What is weighed of all calls.
    pub(super) weight: usize,
}

/// Which calls are wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Everything,
    Nothing,
    Matching,
}

impl CallTable {
    /// An empty table.
    pub fn new(config: TableConfig, filters: Arc<FilterSet>) -> Self {
        let claims = Claims::new(config.limits.calls);
        let mut table = Self {
            config,
            wanted: Wanted::Nothing,
            filters: Arc::clone(&filters),
            calls: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            serial: 0,
            timers: Queue::default(),
            observed: Timestamp::MIN,
            turns: Queue::default(),
            unclaimed: Unclaimed::new(config.limits.calls, claims.hasher().clone()),
            claims,
            pool: Pool::default(),
            lookback: Lookback::new(config.lookback.0, config.lookback.1),
            hold_order: VecDeque::new(),
            held_signalling_bytes: 0,
            next_key: 0,
            hits: Hits::default(),
            strangers: Strangers::default(),
            hasher: RandomState::new(),
            counters: TableCounters::default(),
            weight: 0,
        };
        table.set_filters(filters);
        table
    }

    /// Swaps the filters. Calls already chosen stay so as long as one of the filters that chose them remains.
    pub fn set_filters(&mut self, filters: Arc<FilterSet>) {
        self.wanted = if self.config.everything || filters.only_bpf() {
            Wanted::Everything
        } else if !filters.is_empty() {
            Wanted::Matching
        } else if self.config.no_filter == NoFilterPolicy::Allow {
            Wanted::Everything
        } else {
            Wanted::Nothing
        };
        self.filters = filters;
        self.strangers.forget();
        for slot in 0..self.calls.len() {
            self.recheck_filters(slot);
        }
    }

    /// No filter has come yet: calls are held undecided, whatever no filter would mean.
    pub fn await_filters(&mut self) {
        if !self.config.everything {
            self.wanted = Wanted::Matching;
        }
    }

    /// Counters and the number of packets held now.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }

    /// Calls in the table.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no call.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A call by reference, unless it is gone.
    pub fn get(&self, r: CallRef) -> Option<&Call> {
        self.calls.get(r.slot as usize)?.as_ref().filter(|c| c.serial == r.serial)
    }

    pub(super) fn get_mut(&mut self, r: CallRef) -> Option<&mut Call> {
        self.calls.get_mut(r.slot as usize)?.as_mut().filter(|c| c.serial == r.serial)
    }

    /// A call by its Call-ID.
    pub fn by_id(&self, id: &str) -> Option<&Call> {
        self.get(self.find(id)?)
    }

    /// Everything known of a call.
    pub fn facts(&self, id: &str, input_ended: bool) -> Option<CallFacts> {
        Some(super::summary::facts(self.by_id(id)?, &self.claims, input_ended))
    }

    /// The call that [`CallRef::pack`] meant, unless it is gone.
    pub fn unpack(&self, packed: u64) -> Option<CallRef> {
        let slot = u32::try_from(packed & 0xffff_ffff).ok()?;
        let serial = self.calls.get(slot as usize)?.as_ref()?.serial;
        (serial & 0xffff_ffff == packed >> 32).then_some(CallRef { slot, serial })
    }

    pub(super) fn find(&self, id: &str) -> Option<CallRef> {
        let slot = *self.by_id.get(id)?;
        let call = self.calls.get(slot as usize)?.as_ref()?;
        Some(CallRef { slot, serial: call.serial })
    }

    /// Makes a call; a full table first loses another one.
    pub(super) fn create(&mut self, id: &str, tuple: FiveTuple, ts: Timestamp, out: &mut dyn Output) -> CallRef {
        self.make_room(1, out);
        self.serial = self.serial.wrapping_add(1);
        self.counters.calls = self.counters.calls.saturating_add(1);
        let id: Arc<str> = Arc::from(id);
        let verdict = match self.wanted {
            Wanted::Everything => Verdict::Forward,
            Wanted::Nothing => Verdict::Drop,
            Wanted::Matching => Verdict::Hold,
        };
        let mut call = Call::new(Arc::clone(&id), self.serial, tuple, ts, verdict);
        call.alive = ts.max(self.observed);
        call.filter_version = self.filters.version();
        let slot = if let Some(slot) = self.free.pop() {
            slot
        } else {
            self.calls.push(None);
            u32::try_from(self.calls.len()).unwrap_or(u32::MAX).saturating_sub(1)
        };
        if let Some(place) = self.calls.get_mut(slot as usize) {
            *place = Some(call);
        }
        self.by_id.insert(id, slot);
        let r = CallRef { slot, serial: self.serial };
        self.schedule(r);
        r
    }

    /// Packets of this stretch of time may be missing, nobody knows how many, from every call that is not over.
    pub fn note_gap(&mut self, cause: &'static str, from: Timestamp, to: Timestamp) {
        for call in self.calls.iter_mut().flatten().filter(|c| !c.machine.state().is_final()) {
            call.note_hole(cause, from, to, 0);
            call.alive = call.alive.max(to);
        }
    }

    /// Closes every call: end of input.
    pub fn finish(&mut self, out: &mut dyn Output) {
        while let Some(flow) = self.unclaimed.oldest() {
            self.end_unclaimed(&flow, out);
        }
        let mut open: Vec<CallRef> = self
            .calls
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some(CallRef { slot: u32::try_from(i).ok()?, serial: c.as_ref()?.serial }))
            .collect();
        open.sort_by_key(|r| r.serial);
        for r in open {
            self.remove(r, true, out);
        }
    }

    /// Takes a call out, lets go of what it held, tells about it.
    pub(super) fn remove(&mut self, r: CallRef, input_ended: bool, out: &mut dyn Output) {
        let Some(call) = self.detach(r) else { return };
        if out.wants_events() && call.verdict == Verdict::Forward {
            self.tell(&call, input_ended, out);
        }
        self.drop_claims(&call);
    }

    /// Takes a call out and lets go of what it held; its claims are still there.
    pub(super) fn detach(&mut self, r: CallRef) -> Option<Call> {
        self.let_go(r);
        let call = self.calls.get_mut(r.slot as usize)?.take_if(|c| c.serial == r.serial)?;
        let gone = self.lookback.forget(r, &mut self.pool);
        self.lookback_gone(gone);
        self.by_id.remove(&call.id);
        self.unweigh(&call);
        self.free.push(r.slot);
        Some(call)
    }

    pub(super) fn drop_claims(&mut self, call: &Call) {
        for claim in &call.claims {
            self.claims.remove(*claim);
        }
    }

    fn tell(&self, call: &Call, input_ended: bool, out: &mut dyn Output) {
        let facts = super::summary::facts(call, &self.claims, input_ended);
        for event in super::summary::streams(call, &facts) {
            out.event(event);
        }
        let common = Common { ts: call.last, tuple: call.tuple, place: Place::default() };
        out.event(Event::Call(Box::new(CallEvent { common, facts })));
    }

    pub(super) fn set_verdict(&mut self, r: CallRef, verdict: Verdict) {
        let Some(call) = self.calls.get_mut(r.slot as usize).and_then(Option::as_mut).filter(|c| c.serial == r.serial) else {
            return;
        };
        if call.verdict == verdict {
            return;
        }
        call.verdict = verdict;
        if verdict == Verdict::Drop
            && !self.lookback.is_enabled()
            && let Some(streams) = &mut call.streams
        {
            streams.forget();
        }
        for id in &call.claims {
            if let Some(at) = self.claims.get(*id).map(|c| c.at) {
                self.claims.touch(&at);
            }
        }
    }

    pub(super) fn count_drop(&mut self, reason: DropReason, packets: u64) {
        if let Some(n) = self.counters.dropped.get_mut(reason.index()) {
            *n = n.saturating_add(packets);
        }
    }

    /// Ends the claims of a call that is over, or lets them live again when it goes on after all.
    pub(super) fn settle_claims(&mut self, r: CallRef) {
        let Some(call) = self.calls.get(r.slot as usize).and_then(Option::as_ref).filter(|c| c.serial == r.serial) else {
            return;
        };
        let state = call.machine.state();
        let over = state.is_final() || state == CallState::Ending;
        let end = call.machine.ended_at().filter(|_| over).map(|at| at.saturating_add(GRACE));
        for id in &call.claims {
            match end {
                Some(at) => self.claims.end(*id, at),
                None => self.claims.revive(*id),
            }
        }
    }

    /// Drops the filters that are gone from a call's list; a call none of whose filters remains is no longer wanted.
    fn recheck_filters(&mut self, slot: usize) {
        let filters = Arc::clone(&self.filters);
        let Some(call) = self.calls.get_mut(slot).and_then(Option::as_mut) else { return };
        let r = CallRef { slot: u32::try_from(slot).unwrap_or(u32::MAX), serial: call.serial };
        call.filter_version = filters.version();
        let target = match self.wanted {
            Wanted::Everything => Verdict::Forward,
            Wanted::Nothing => Verdict::Drop,
            Wanted::Matching => {
                let left: Vec<Arc<str>> = call.filter_ids.iter().filter(|id| filters.has_id(id)).cloned().collect();
                if left.len() != call.filter_ids.len() {
                    call.filter_ids = Arc::from(left);
                    call.contexts.clear();
                }
                match (call.filter_ids.is_empty(), call.verdict) {
                    (false, _) => Verdict::Forward,
                    (true, Verdict::Hold) => Verdict::Hold,
                    (true, _) => Verdict::Drop,
                }
            }
        };
        if target == Verdict::Drop {
            self.let_go(r);
        }
        if target != Verdict::Forward || self.get(r).is_some_and(|c| c.verdict == Verdict::Forward) {
            self.set_verdict(r, target);
        }
    }

    pub(super) fn count_part(&mut self, r: CallRef, part: Part, ts: Timestamp) {
        let observed = self.observed;
        let Some(call) = self.get_mut(r) else { return };
        call.last = call.last.max(ts);
        call.alive = ts.max(observed);
        match part {
            Part::Signalling => call.signalling_packets = call.signalling_packets.saturating_add(1),
            Part::Media => call.media_packets = call.media_packets.saturating_add(1),
        }
        if part == Part::Media && !std::mem::replace(&mut call.media_seen, true) {
            // from now on its silence says something
            self.schedule(r);
        }
    }
}
