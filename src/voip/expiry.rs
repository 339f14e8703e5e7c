//! Who leaves the table of calls, and when: by time, or because others need room.
//!
//! | a call | leaves |
//! |---|---|
//! | that is over | 32 s after its end, so that retransmissions find it (64·T1, RFC 3261 §17.1.1.2) |
//! | that is a registration, a message, another transaction | 32 s after its last packet |
//! | without signalling | a minute after its last packet |
//! | whose media is seen, and not on hold | [`CallTimes::rtp_idle`] after its last packet |
//! | any other | at [`CallTimes::max_age`], or later, once it has been silent for five minutes |
//!
//! So no time cuts a call short while its packets come. Where calls need room, those that are over go first, in the order they ended; then
//! those that have been silent for longest.

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
/// A call whose media is not seen is old only if nothing came of it for so long.
const SILENCE: Duration = Duration::from_mins(5);
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
}

impl Default for CallTimes {
    fn default() -> Self {
        Self { rtp_idle: Duration::from_mins(5), max_age: Duration::from_hours(2) }
    }
}

/// When a call makes room for others: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It is over since then.
    Over(Timestamp),
    /// It goes on, and nothing has come of it since then.
    Live(Timestamp),
}

/// Calls by a key, the least first. What is queued is not taken out: whether it still counts is asked when it comes up.
#[derive(Debug)]
pub(super) struct Queue<K>(BinaryHeap<Reverse<(K, u32, u64)>>);

impl<K: Ord> Default for Queue<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord + Copy> Queue<K> {
    fn push(&mut self, key: K, r: CallRef) {
        self.0.push(Reverse((key, r.slot, r.serial)));
    }

    fn pop(&mut self) -> Option<(K, CallRef)> {
        self.0.pop().map(|Reverse((key, slot, serial))| (key, CallRef { slot, serial }))
    }

    fn first(&self) -> Option<K> {
        self.0.peek().map(|Reverse((key, ..))| *key)
    }

    /// Clears it of what does not count, once that is more than all `calls` there are.
    fn clear(&mut self, calls: usize, counts: impl Fn(K, CallRef) -> bool) {
        if self.0.len() > calls.saturating_mul(2).saturating_add(STALE) {
            self.0.retain(|Reverse((key, slot, serial))| counts(*key, CallRef { slot: *slot, serial: *serial }));
        }
    }
}

impl CallTable {
    /// Queues the call's next deadline, if it is earlier than what is queued already, and its turn, if it has ended since.
    pub(super) fn schedule(&mut self, r: CallRef) {
        let limits = self.config.limits;
        let Some(call) = self.get_mut(r) else { return };
        let due = Some(due(call, &limits)).filter(|at| call.timer.is_none_or(|queued| *at < queued));
        let ended = |queued, turn| matches!((queued, turn), (Turn::Live(_), Turn::Over(_)));
        let turn = Some(turn(call)).filter(|turn| call.turn.is_none_or(|queued| ended(queued, *turn)));
        call.timer = due.or(call.timer);
        call.turn = turn.or(call.turn);
        if let Some(at) = due {
            self.timers.push(at, r);
        }
        if let Some(turn) = turn {
            self.turns.push(turn, r);
        }
        self.clear_queues();
    }

    /// Entries that are queued, those that do not count included.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.timers.0.len().saturating_add(self.turns.0.len())
    }

    fn clear_queues(&mut self) {
        let Self { calls, timers, turns, by_id, .. } = self;
        let of = |r: CallRef| calls.get(r.slot as usize)?.as_ref().filter(|c| c.serial == r.serial);
        timers.clear(by_id.len(), |at, r| of(r).is_some_and(|c| c.timer == Some(at)));
        turns.clear(by_id.len(), |turn, r| of(r).is_some_and(|c| c.turn == Some(turn)));
    }

    /// Serves what is due at `now`: ends of transactions, ages of holds, calls to be forgotten.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut dyn Output) {
        self.make_room(0, out);
        for _ in 0..TIMERS_PER_TURN {
            if self.timers.first().is_none_or(|at| at > now) {
                break;
            }
            if let Some((_, r)) = self.timers.pop() {
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
        while let Some((queued, r)) = self.turns.pop() {
            let Some(call) = self.get_mut(r).filter(|c| c.turn == Some(queued)) else { continue };
            let now = turn(call);
            if now > queued {
                call.turn = Some(now);
                self.turns.push(now, r);
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
    if is_live(call) { Turn::Live(call.last) } else { Turn::Over(call.machine.ended_at().unwrap_or(call.last)) }
}

/// Whether media of the call is seen, so that its silence says something. Of a call nobody wants none is looked at.
fn has_media(call: &Call) -> bool {
    call.media_packets > 0 && call.verdict != Verdict::Drop && call.on_hold == [false; 2]
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
    let silent_for = |time: Duration| call.last.saturating_add(time);
    match (call.machine.ended_at(), is_live(call)) {
        (Some(at), false) => at.saturating_add(LINGER),
        (None, false) => silent_for(LINGER),
        _ if call.machine.state() == CallState::RtpOnly => silent_for(RTP_ONLY),
        _ if has_media(call) => silent_for(limits.times.rtp_idle),
        _ => silent_for(SILENCE).max(call.first.saturating_add(limits.times.max_age)),
    }
}
