//! The TCP connections an engine follows, and what it keeps of each direction until it knows whose it is.
//!
//! Promises: at most as many as [`super::Bounds::connections`] says, those without SIP gone first; constant work per packet to find one that must go. Refuses: to judge, or to forward, what it keeps.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::flow::FlowKey;
use crate::flow::tcp::{Budget, Reassembly, TcpCounters, TcpLimits};
use crate::packet::Timestamp;
use crate::packet::headers::{TcpFacts, TcpFlags};
use crate::protocols::sip::Framer;
use crate::protocols::ws::Ws;
use crate::voip::call::CallRef;
use crate::voip::event::SipEvent;
use crate::voip::hold::{HeldFrame, Pool};

/// Connections looked at for one that must go: a few suffice to find an old one, and the work per packet is bounded.
const LOOKS: usize = 16;
/// A connection without data for this long is forgotten.
const IDLE: Duration = Duration::from_mins(10);

/// When memory is short, and, of those that have shown nothing yet, long before.
const IDLE_SHORT: Duration = Duration::from_secs(100);
const UNKNOWN_SHORT: Duration = Duration::from_secs(10);

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Not decided.
    Unknown,
    Sip,
    WebSocket,
    /// Neither.
    Else,
}

pub(super) struct Segment {
    pub(super) range: Range<u64>,
    pub(super) frame: HeldFrame,
    /// Events of the messages that end here.
    pub(super) events: Vec<(CallRef, SipEvent)>,
}

/// A finished message's place in its stream, and whose it is.
pub(super) struct Finished {
    pub(super) range: Range<u64>,
    pub(super) call: CallRef,
}

pub(super) struct Half {
    pub(super) stream: Reassembly,
    pub(super) framer: Framer,
    pub(super) ws: Ws,
    pub(super) segments: VecDeque<Segment>,
    pub(super) finished: VecDeque<Finished>,
    /// Where the fragments of an unfinished WebSocket message lie.
    pub(super) parts: VecDeque<Range<u64>>,
    pub(super) gap_since: Option<Timestamp>,
}

impl Half {
    fn new(budget: &Budget, opening: Opening) -> Self {
        let mut stream = Reassembly::new(budget, TcpLimits::default());
        if let Some(seq) = opening.syn {
            stream.insert(seq, true, false, &[]);
        }
        if let Some(ack) = opening.acked {
            stream.handle_ack(ack);
        }
        Self {
            stream,
            framer: Framer::default(),
            ws: Ws::default(),
            segments: VecDeque::new(),
            finished: VecDeque::new(),
            parts: VecDeque::new(),
            gap_since: None,
        }
    }
}

/// What was seen of a direction before anything was said.
#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    /// The number of its SYN.
    syn: Option<u32>,
    /// What the other side has acknowledged of it.
    acked: Option<u32>,
}

pub(super) struct Connection {
    pub(super) key: FlowKey,
    serial: u64,
    openings: [Opening; 2],
    /// None until something is said, nor where nobody listens: most connections of a flood are never more than opened.
    pub(super) halves: Option<Box<[Half; 2]>>,
    pub(super) carries: Carries,
    pub(super) last: Timestamp,
}

impl Connection {
    /// Whether segments are kept of it.
    pub(super) fn keeps(&self) -> bool {
        self.halves.iter().flat_map(|halves| halves.iter()).any(|h| !h.segments.is_empty())
    }

    /// Whether both directions have ended.
    pub(super) fn is_closed(&self) -> bool {
        self.halves.as_ref().is_some_and(|halves| halves.iter().all(|h| h.stream.is_closed()))
    }

    pub(super) fn half(&mut self, half: usize) -> Option<&mut Half> {
        self.halves.as_mut()?.get_mut(half)
    }

    pub(super) fn halves(&mut self) -> impl Iterator<Item = &mut Half> {
        self.halves.iter_mut().flat_map(|halves| halves.iter_mut())
    }

    /// Remembers a segment without payload of a connection in which nothing was said so far; false: it must be looked at as others are.
    pub(super) fn notes(&mut self, half: usize, facts: &TcpFacts) -> bool {
        let (this, other) = this_and_other(&mut self.openings, half);
        let has = |flag| facts.flags.contains(flag);
        let syn = Some(facts.seq).filter(|_| has(TcpFlags::SYN));
        let again = syn.is_some() && this.syn.is_some() && this.syn != syn;
        if self.halves.is_some() || again || has(TcpFlags::FIN) || has(TcpFlags::RST) {
            return false;
        }
        this.syn = this.syn.or(syn);
        if has(TcpFlags::ACK) {
            // what is later: they may come in another order
            let is_later = |before: u32| facts.ack.wrapping_sub(before) < 1 << 31;
            other.acked = other.acked.filter(|before| !is_later(*before)).or(Some(facts.ack));
        }
        true
    }

    /// Both directions, now that something is said: this one and the other.
    pub(super) fn listen(&mut self, half: usize, budget: &Budget) -> (&mut Half, &mut Half) {
        let openings = std::mem::take(&mut self.openings);
        let halves = self.halves.get_or_insert_with(|| Box::new(openings.map(|opening| Half::new(budget, opening))));
        this_and_other(halves, half)
    }
}

fn this_and_other<T>([low, high]: &mut [T; 2], half: usize) -> (&mut T, &mut T) {
    if half == 0 { (low, high) } else { (high, low) }
}

/// All followed connections.
pub(super) struct TcpFlows {
    max: usize,
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    /// Every open connection once, by place and serial number, and some that are closed.
    order: VecDeque<(u32, u64)>,
    serial: u64,
    /// Bytes of the segments kept.
    pub(super) kept_bytes: usize,
    budget: Budget,
    pub(super) pool: Pool,
    /// Memory is short.
    short: bool,
}

impl Default for TcpFlows {
    fn default() -> Self {
        let bounds = super::Bounds::default();
        Self::new(bounds.connections, bounds.reassembly_bytes)
    }
}

impl TcpFlows {
    /// Room for `max` connections and `reassembly_bytes` under reassembly.
    pub(super) fn new(max: usize, reassembly_bytes: usize) -> Self {
        Self {
            max,
            slots: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            serial: 0,
            kept_bytes: 0,
            budget: Budget::new(reassembly_bytes),
            pool: Pool::default(),
            short: false,
        }
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Connection> {
        self.slots.get_mut(id as usize)?.as_deref_mut()
    }

    pub(super) fn get_with_memory(&mut self, id: u32) -> Option<(&mut Connection, &mut Pool, &Budget)> {
        Some((self.slots.get_mut(id as usize)?.as_deref_mut()?, &mut self.pool, &self.budget))
    }

    /// What reassembly gave up.
    pub(super) fn counters(&self) -> TcpCounters {
        self.budget.counters()
    }

    /// Bytes under reassembly.
    pub(super) fn reassembly_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Places ever used.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// More connections than there is room for.
    pub(super) fn is_full(&self) -> bool {
        self.live() > self.max
    }

    fn live(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(super) fn open(&mut self, key: FlowKey, now: Timestamp) -> u32 {
        self.tidy();
        self.serial = self.serial.wrapping_add(1);
        let openings = <[Opening; 2]>::default();
        let connection = Connection { key, serial: self.serial, openings, halves: None, carries: Carries::Unknown, last: now };
        let id = if let Some(id) = self.free.pop() {
            id
        } else {
            self.slots.push(None);
            self.slots().saturating_sub(1)
        };
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = Some(Box::new(connection));
        }
        self.order.push_back((id, self.serial));
        id
    }

    /// Forgets everything about a connection but that it is there, and what it carries.
    pub(super) fn renew(&mut self, id: u32, carries: Carries) {
        if let Some(c) = self.get(id) {
            c.openings = Default::default();
            c.halves = None;
            c.carries = carries;
        }
    }

    pub(super) fn close(&mut self, id: u32) -> Option<Box<Connection>> {
        let connection = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(connection)
    }

    /// A connection that must go: one whose time is over; else, of a few that `may_go` allows, one without SIP, or the one silent for longest.
    pub(super) fn choose(&mut self, now: Timestamp, may_go: impl Fn(u32, &Connection) -> bool) -> Option<u32> {
        let short = self.short;
        let mut chosen: Option<(bool, Timestamp, u32)> = None;
        for _ in 0..LOOKS {
            let Some((id, serial)) = self.order.pop_front() else { break };
            let Some(c) = self.get(id).filter(|c| c.serial == serial) else { continue };
            let candidate = (c.carries == Carries::Sip, c.last, id);
            let idle = match (short, c.carries) {
                (false, _) => IDLE,
                (true, Carries::Unknown) => UNKNOWN_SHORT,
                (true, _) => IDLE_SHORT,
            };
            if now.since(c.last) > idle {
                return Some(id);
            }
            let allowed = may_go(id, c);
            self.order.push_back((id, serial));
            if allowed && chosen.is_none_or(|c| candidate < c) {
                chosen = Some(candidate);
            }
        }
        chosen.map(|(_, _, id)| id)
    }

    /// Memory is short, or no longer: what is idle goes earlier.
    pub(super) const fn set_short(&mut self, short: bool) {
        self.short = short;
    }

    /// Forgets the places of closed connections, once they are many.
    fn tidy(&mut self) {
        if self.order.len() > self.live().saturating_mul(2).saturating_add(LOOKS) {
            let slots = &self.slots;
            self.order
                .retain(|(id, serial)| slots.get(*id as usize).and_then(Option::as_deref).is_some_and(|c| c.serial == *serial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs_nanos(secs, 0)
    }

    #[test]
    fn connections_that_come_and_go_leave_nothing_behind() {
        let mut flows = TcpFlows::default();
        for _ in 0..10_000 {
            let id = flows.open(FlowKey::default(), at(0));
            flows.close(id);
        }

        assert!(flows.order.len() <= LOOKS + 1, "{}", flows.order.len());
        assert_eq!(flows.slots.len(), 1);
    }

    #[test]
    fn what_is_only_opened_keeps_two_numbers_and_knows_them_when_something_is_said() {
        let mut flows = TcpFlows::default();
        let id = flows.open(FlowKey::default(), at(0));
        let (c, _, budget) = flows.get_with_memory(id).unwrap();
        let facts = |seq, ack, flags| TcpFacts { seq, ack, flags: TcpFlags(flags), ..TcpFacts::default() };
        let (syn, ack, fin) = (2, 16, 1);

        assert!(c.notes(0, &facts(99, 0, syn)) && c.notes(1, &facts(499, 100, syn | ack)) && c.notes(0, &facts(100, 500, ack)));
        assert!(c.notes(0, &facts(99, 0, syn)), "sent again");
        assert!(c.notes(1, &facts(500, 110, ack)), "of something that was not seen");
        assert!(c.halves.is_none());
        assert!(![facts(7, 0, syn), facts(100, 0, fin), facts(100, 0, 4)].iter().any(|f| c.notes(0, f)), "another's, the end");
        let (this, _) = c.listen(0, budget);
        this.stream.insert(110, false, false, b"SIP");

        assert!(this.stream.has_begun() && this.stream.gap().is_some_and(|gap| gap.acked), "ten bytes before it are missing");
        assert!(!c.notes(0, &facts(113, 500, ack)), "it is listened to");
    }

    #[test]
    fn when_memory_is_short_what_is_idle_goes_six_times_as_soon_and_what_has_shown_nothing_first() {
        let mut flows = TcpFlows::default();
        let [sip, unknown] = [0, 1].map(|n| flows.open(FlowKey::default(), at(n)));
        flows.get(sip).unwrap().carries = Carries::Sip;

        assert_eq!(flows.choose(at(300), |_, _| false), None);
        flows.set_short(true);
        assert_eq!(flows.choose(at(11), |_, _| false), None);
        assert_eq!(flows.choose(at(12), |_, _| false), Some(unknown));
        flows.close(unknown);
        assert_eq!([at(100), at(101)].map(|now| flows.choose(now, |_, _| false)), [None, Some(sip)]);
    }

    #[test]
    fn the_one_without_sip_goes_first_then_the_one_silent_for_longest_and_never_one_that_may_not() {
        let mut flows = TcpFlows::default();
        let ids: Vec<u32> = (0..4).map(|n| flows.open(FlowKey::default(), at(n))).collect();
        for id in &ids[..3] {
            flows.get(*id).unwrap().carries = Carries::Sip;
        }

        assert_eq!(flows.choose(at(5), |_, _| true), Some(ids[3]));
        assert_eq!(flows.choose(at(5), |id, _| id != ids[3]), Some(ids[0]));
        assert_eq!(flows.choose(at(5), |_, _| false), None);
        assert_eq!(flows.choose(at(602), |_, _| false), Some(ids[0]), "idle for ten minutes");
    }
}
