//! Who leaves the table of calls, and when: by time, or because others need room.
//!
//! | a call | leaves |
//! |---|---|
//! | that is over, or whose BYE nobody answers | 32 s after its end, so that retransmissions find it (64·T1, RFC 3261 §17.1.1.2) |
//! | that is a registration, a message, another transaction | 32 s after its last packet |
//! | without signalling | a minute after its last packet |
//! | whose media is seen, and not on hold | [`CallTimes::rtp_idle`] after its last packet |
//! | any other | at [`CallTimes::max_age`], or later, once it has been silent for 35 minutes |
//!
//! Media is seen once a packet of it came after the last SDP: a call that moves it elsewhere is judged by its signalling, which session timers
//! repeat (RFC 4028 §4: every half hour). So no time cuts a call short while its packets come, and time that was not watched is no silence.
//! Where calls need room, those that are over go first, in the order they ended; then those nobody has asked for, then the others, each time the one
//! that has been silent for longest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::call::{Call, CallRef, Verdict};
use super::output::Output;
use super::state::CallState;
use super::table::{CallTable, Limits};
use crate::packet::Timestamp;
use crate::reason::DropReason;

/// How long what is over stays.
const LINGER: Duration = Duration::from_secs(32);
/// Media without signalling is over when none came for this long.
const RTP_ONLY: Duration = Duration::from_mins(1);
/// A call whose media is not seen is old only if nothing came of it for so long: a session interval, as recommended, and a little more.
const SILENCE: Duration = Duration::from_mins(35);
/// Time that goes on by more than this at once was not watched: a clock was set, an interface was away, a machine slept.
pub(crate) const WATCHED: Duration = Duration::from_mins(1);
/// Timers served per call of [`CallTable::handle_timeout`]: bounded work after a jump of time.
const TIMERS_PER_TURN: usize = 1024;
/// Entries of calls that are gone or queued again, of which a queue is not cleared.
const STALE: usize = 64;

/// When a call is over whose end nobody saw; [`Duration::MAX`]: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimes {
    /// Its media has stopped for so long (5 min).
    pub rtp_idle: Duration,
    /// It is so old, where no media is seen, or it is on hold (2 h).
    pub max_age: Duration,
    /// Timers are served by the clock, so a leap of time was not watched; in a file it is a pause.
    pub live: bool,
}

impl Default for CallTimes {
    fn default() -> Self {
        Self { rtp_idle: Duration::from_mins(5), max_age: Duration::from_hours(2), live: false }
    }
}

/// When a call makes room for others: the least first, each since when it is over, or silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It is over.
    Over(Timestamp),
    /// Nobody has asked for it, so far: most of a flood.
    Unwanted(Timestamp),
    /// Chosen.
    Wanted(Timestamp),
}

impl Turn {
    const fn rank(self) -> u8 {
        match self {
            Self::Over(_) => 0,
            Self::Unwanted(_) => 1,
            Self::Wanted(_) => 2,
        }
    }
}

/// The entry of a call in a [`Queue`]: of all that were pushed for it the one that counts, since it is the one the call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queued<K> {
    key: K,
    /// Of the push; all that are in the queue differ.
    number: u32,
    slot: u32,
}

/// Calls by a key, the least first. Nothing is taken out when a call is queued again, or gone: what comes up is looked at.
#[derive(Debug)]
pub(super) struct Queue<K> {
    heap: BinaryHeap<Reverse<Queued<K>>>,
    pushed: u32,
}

impl<K: Ord> Default for Queue<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }
}

impl<K: Ord + Copy> Queue<K> {
    fn push(&mut self, key: K, slot: u32) -> Queued<K> {
        self.pushed = self.pushed.wrapping_add(1);
        let queued = Queued { key, number: self.pushed, slot };
        self.heap.push(Reverse(queued));
        queued
    }

    fn pop(&mut self) -> Option<Queued<K>> {
        self.heap.pop().map(|Reverse(queued)| queued)
    }

    fn first(&self) -> Option<K> {
        self.heap.peek().map(|Reverse(queued)| queued.key)
    }

    /// Clears it of what does not count, once that is more than all `calls` there are, each of which has one entry that does.
    fn clear(&mut self, calls: usize, counts: impl Fn(&Queued<K>) -> bool) {
        if self.heap.len() > calls.saturating_mul(2).saturating_add(STALE) {
            self.heap.retain(|Reverse(queued)| counts(queued));
        }
    }
}

impl CallTable {
    /// Queues the call's next deadline, if it is earlier than what is queued already, and its turn, if that comes sooner now.
    pub(super) fn schedule(&mut self, r: CallRef) {
        let limits = self.config.limits;
        let Some(call) = self.calls.get_mut(r.slot as usize).and_then(Option::as_mut).filter(|c| c.serial == r.serial) else {
            return;
        };
        let (due, turn) = (due(call, &limits), turn(call));
        if call.timer.is_none_or(|queued| due < queued.key) {
            call.timer = Some(self.timers.push(due, r.slot));
        }
        if call.turn.is_none_or(|queued| turn.rank() < queued.key.rank()) {
            call.turn = Some(self.turns.push(turn, r.slot));
        }
        let Self { calls, timers, turns, by_id, .. } = self;
        let of = |slot: u32| calls.get(slot as usize)?.as_ref();
        timers.clear(by_id.len(), |queued| of(queued.slot).is_some_and(|c| c.timer == Some(*queued)));
        turns.clear(by_id.len(), |queued| of(queued.slot).is_some_and(|c| c.turn == Some(*queued)));
    }

    /// Entries that are queued: timers, and turns to make room.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> [usize; 2] {
        [self.timers.heap.len(), self.turns.heap.len()]
    }

    /// The call in a slot, if that is what `is_queued` says.
    fn in_slot(&self, slot: u32, is_queued: impl Fn(&Call) -> bool) -> Option<CallRef> {
        let call = self.calls.get(slot as usize)?.as_ref().filter(|c| is_queued(c))?;
        Some(CallRef { slot, serial: call.serial })
    }

    /// Serves what is due at `now`: ends of transactions, ages of holds, calls to be forgotten.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut dyn Output) {
        self.make_room(0, out);
        // packets may have come that nobody saw
        if self.config.limits.times.live && self.observed != Timestamp::MIN && now.since(self.observed) > WATCHED {
            for call in self.calls.iter_mut().flatten() {
                call.alive = call.alive.max(now);
            }
        }
        self.observed = now;
        for _ in 0..TIMERS_PER_TURN {
            if self.timers.first().is_none_or(|at| at > now) {
                break;
            }
            if let Some(queued) = self.timers.pop()
                && let Some(r) = self.in_slot(queued.slot, |c| c.timer == Some(queued))
            {
                self.serve(r, now, out);
            }
        }
        self.expire_unclaimed(now, out);
        let gone = self.lookback.expire(now, &mut self.pool);
        self.lookback_gone(gone);
    }

    fn serve(&mut self, r: CallRef, now: Timestamp, out: &mut dyn Output) {
        let limits = self.config.limits;
        let Some(call) = self.get_mut(r) else { return };
        call.timer = None;
        call.machine.handle_timeout(now);
        if due(call, &limits) > now {
            self.schedule(r);
        } else if call.verdict == Verdict::Hold && forget_at(call, &limits) > now {
            // the signalling of an undecided call has been held long enough
            self.give_up_hold(r, DropReason::HoldAge);
            self.set_verdict(r, Verdict::Drop);
            self.schedule(r);
        } else {
            let end_unseen = is_live(call) && call.machine.state() != CallState::RtpOnly;
            let count = if has_media(call) { &mut self.counters.idle } else { &mut self.counters.aged };
            *count = count.saturating_add(u64::from(end_unseen));
            self.remove(r, end_unseen, out);
        }
    }

    /// Forgets one call to make room; false when there is none.
    pub(super) fn evict(&mut self, out: &mut dyn Output) -> bool {
        // one that has lived on is queued again: once per packet of that call at most
        while let Some(queued) = self.turns.pop() {
            let Some(r) = self.in_slot(queued.slot, |c| c.turn == Some(queued)) else { continue };
            let now = self.get(r).map_or(queued.key, turn);
            if now > queued.key {
                let again = self.turns.push(now, r.slot);
                self.get_mut(r).into_iter().for_each(|call| call.turn = Some(again));
                continue;
            }
            self.counters.evicted = self.counters.evicted.saturating_add(1);
            self.give_up_hold(r, DropReason::EvictedCall);
            self.remove(r, true, out);
            return true;
        }
        false
    }
}

fn is_live(call: &Call) -> bool {
    let state = call.machine.state();
    state.is_call() && !state.is_final()
}

fn turn(call: &Call) -> Turn {
    if !is_live(call) {
        Turn::Over(call.machine.ended_at().unwrap_or(call.alive))
    } else if call.verdict == Verdict::Forward {
        Turn::Wanted(call.alive)
    } else {
        Turn::Unwanted(call.alive)
    }
}

/// Whether media of the call is seen, so that its silence says something. Of a call nobody wants none is looked at.
fn has_media(call: &Call) -> bool {
    call.media_seen && call.verdict != Verdict::Drop && call.on_hold == [false; 2]
}

/// When something must be done about a call if nothing more comes.
fn due(call: &Call, limits: &Limits) -> Timestamp {
    let mut due = forget_at(call, limits);
    if let Some(at) = call.machine.deadline() {
        due = due.min(at);
    }
    if call.verdict == Verdict::Hold {
        due = due.min(call.first.saturating_add(limits.hold_age));
    }
    due
}

/// When a call leaves if nothing more comes.
fn forget_at(call: &Call, limits: &Limits) -> Timestamp {
    let silent_for = |time: Duration| call.alive.saturating_add(time);
    let hung_up = call.machine.state() == CallState::Ending;
    match call.machine.ended_at() {
        Some(at) if hung_up || !is_live(call) => at.saturating_add(LINGER),
        _ if !is_live(call) => silent_for(LINGER),
        _ if call.machine.state() == CallState::RtpOnly => silent_for(RTP_ONLY),
        _ if has_media(call) => silent_for(limits.times.rtp_idle),
        _ => silent_for(SILENCE).max(call.first.saturating_add(limits.times.max_age)),
    }
}
