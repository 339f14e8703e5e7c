//! Deadlines in packet time: a hierarchical wheel.
//!
//! ```text
//! level 0   64 slots of one tick (16.8 ms)          deadlines within ~1 s
//! level 1   64 slots of 64 ticks                    within ~69 s
//! …         an entry moves one level down when its slot's time comes, at most six times in all
//! level 6    8 slots                                to the end of the time scale
//! ```
//!
//! Promises: setting a deadline is O(1); nothing fires before its time, nor more than one tick after it when polled; time
//! may jump as far as it likes without a walk over the empty slots; one [`Timers::poll`] does a bounded amount of work and
//! says when more is due; no allocation once the number of pending deadlines has peaked.
//!
//! Refuses: cancelling. Put a generation into the key and ignore what is stale. Time never goes back: a packet older than
//! the latest poll polls nothing, and a deadline at least a
//! tick in the past fires at the next poll.

use crate::packet::Timestamp;

/// Nanoseconds per tick, as a power of two: 2²⁴ ns = 16.8 ms, finer than the shortest wait of the voip room (50 ms).
const TICK_SHIFT: u32 = 24;
/// Levels of 64 slots; 24 + 7 × 6 > 63 bits, so that every timestamp after 1970 has a place.
const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOT_MASK: u64 = 63;
/// Most entries one poll touches (fires or moves down): about 20 µs of work.
const MAX_STEPS_PER_POLL: u32 = 4096;
const NIL: u32 = u32::MAX;

/// Pending deadlines, each with a small key that says whose it is.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    levels: [Level; LEVELS],
    /// Deadlines already reached, or set before time was known.
    due: List,
    /// A slot of a higher level on its way down; emptied before anything else happens, so that order is kept.
    moving: List,
    nodes: Vec<Node<K>>,
    free: u32,
    /// The tick up to which everything has fired; `None` before the first poll.
    tick: Option<u64>,
    max_pending: usize,
    pending: usize,
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Bit n: slot n is not empty.
    occupied: u64,
    slots: [List; 64],
}

/// First in, first out.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node<K> {
    key: K,
    tick: u64,
    next: u32,
}

const EMPTY: List = List { head: NIL, tail: NIL };

impl<K: Copy> Timers<K> {
    /// Deadlines pending at one time when nothing else is said: ten for each of 100 000 calls, 32 MiB at most.
    pub const DEFAULT_MAX_PENDING: usize = 1_000_000;

    /// An empty wheel that takes at most `max_pending` deadlines.
    pub fn new(max_pending: usize) -> Self {
        Self {
            levels: [Level { occupied: 0, slots: [EMPTY; 64] }; LEVELS],
            due: EMPTY,
            moving: EMPTY,
            nodes: Vec::new(),
            free: NIL,
            tick: None,
            max_pending: max_pending.min(usize::try_from(NIL).unwrap_or(usize::MAX)),
            pending: 0,
            refused: 0,
        }
    }

    /// Deadlines that have not fired.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Deadlines refused because too many were pending.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Asks for `key` at the first poll at or after `at`. False, and counted, when too many are pending.
    pub fn set(&mut self, key: K, at: Timestamp) -> bool {
        if self.pending >= self.max_pending {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        let node = Node { key, tick: tick_after(at), next: NIL };
        let mut index = self.free;
        if let Some(free) = self.node_mut(index) {
            let next = free.next;
            *free = node;
            self.free = next;
        } else {
            index = u32::try_from(self.nodes.len()).unwrap_or(NIL);
            self.nodes.push(node);
        }
        self.pending = self.pending.saturating_add(1);
        self.place(index);
        true
    }

    /// Advances to `now` and hands over what has become due, earliest tick first; the order within a tick is the
    /// same in every run.
    ///
    /// True when the work of one call did not suffice: poll again with the same time.
    pub fn poll(&mut self, now: Timestamp, mut fire: impl FnMut(K)) -> bool {
        let now = tick_before(now);
        let mut steps = MAX_STEPS_PER_POLL;
        if self.tick.is_none() {
            self.tick = Some(now);
            let mut early = std::mem::replace(&mut self.due, EMPTY);
            while let Some(index) = self.pop(&mut early) {
                self.place(index);
            }
        }
        while steps > 0 {
            steps -= 1;
            let mut moving = self.moving;
            if let Some(index) = self.pop(&mut moving) {
                self.moving = moving;
                self.place(index);
                continue;
            }
            let mut due = self.due;
            if let Some(index) = self.pop(&mut due) {
                self.due = due;
                self.fire(index, &mut fire);
                continue;
            }
            let Some((level, slot, start)) = self.next_slot().filter(|&(_, _, start)| start <= now) else { break };
            self.tick = self.tick.max(Some(start));
            let Some(place) = self.levels.get_mut(level) else { break };
            place.occupied &= !(1 << slot);
            let Some(list) = place.slots.get_mut(slot) else { break };
            let taken = std::mem::replace(list, EMPTY);
            *(if level == 0 { &mut self.due } else { &mut self.moving }) = taken;
        }
        if steps > 0 {
            self.tick = self.tick.max(Some(now));
            return false;
        }
        self.moving.head != NIL || self.due.head != NIL || self.next_slot().is_some_and(|(_, _, start)| start <= now)
    }

    /// The earliest occupied slot: level, slot, first tick. A lower level always comes before a higher one.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let tick = self.tick?;
        self.levels.iter().enumerate().find(|(_, l)| l.occupied != 0).map(|(level, l)| {
            let slot = l.occupied.trailing_zeros();
            let shift = shift_of(level);
            let above = tick.checked_shr(shift.saturating_add(SLOT_BITS)).unwrap_or(0);
            let base = above.checked_shl(shift.saturating_add(SLOT_BITS)).unwrap_or(0);
            let start = base | u64::from(slot).checked_shl(shift).unwrap_or(0);
            (level, usize::try_from(slot).unwrap_or(0), start)
        })
    }

    /// Links a node where its tick belongs: the level is that of the highest digit in which it differs from the present.
    fn place(&mut self, index: u32) {
        let Some(node) = self.node_mut(index) else { return };
        node.next = NIL;
        let when = node.tick;
        let Some(now) = self.tick.filter(|&now| when > now) else {
            let mut due = self.due;
            self.push(&mut due, index);
            self.due = due;
            return;
        };
        let digit = (now ^ when).checked_ilog2().unwrap_or(0) / SLOT_BITS;
        let level = usize::try_from(digit).unwrap_or(0).min(LEVELS - 1);
        let slot = usize::try_from((when >> shift_of(level)) & SLOT_MASK).unwrap_or(0);
        let Some(mut list) = self.levels.get(level).and_then(|l| l.slots.get(slot)).copied() else { return };
        self.push(&mut list, index);
        if let Some(l) = self.levels.get_mut(level) {
            l.occupied |= 1 << slot;
            if let Some(s) = l.slots.get_mut(slot) {
                *s = list;
            }
        }
    }

    fn fire(&mut self, index: u32, fire: &mut impl FnMut(K)) {
        let free = self.free;
        if let Some(node) = self.node_mut(index) {
            node.next = free;
            let key = node.key;
            self.free = index;
            self.pending = self.pending.saturating_sub(1);
            fire(key);
        }
    }

    fn push(&mut self, list: &mut List, index: u32) {
        match self.node_mut(list.tail) {
            Some(tail) => tail.next = index,
            None => list.head = index,
        }
        list.tail = index;
    }

    fn pop(&mut self, list: &mut List) -> Option<u32> {
        let index = list.head;
        let next = self.node_mut(index)?.next;
        *list = if next == NIL { EMPTY } else { List { head: next, tail: list.tail } };
        Some(index)
    }

    fn node_mut(&mut self, index: u32) -> Option<&mut Node<K>> {
        self.nodes.get_mut(usize::try_from(index).ok()?)
    }
}

impl<K: Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MAX_PENDING)
    }
}

fn shift_of(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(0).saturating_mul(SLOT_BITS)
}

/// The tick that has begun at `ts`; times before 1970 are 0.
fn tick_before(ts: Timestamp) -> u64 {
    u64::try_from(ts.as_nanos()).unwrap_or(0) >> TICK_SHIFT
}

/// The first tick that begins at or after `ts`.
fn tick_after(ts: Timestamp) -> u64 {
    u64::try_from(ts.as_nanos()).unwrap_or(0).div_ceil(1 << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const TICK: i64 = 1 << TICK_SHIFT;
    const T0: i64 = 1_700_000_000_000_000_000;

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn fired(timers: &mut Timers<u32>, now: Timestamp) -> Vec<u32> {
        let mut out = Vec::new();
        while timers.poll(now, |k| out.push(k)) {}
        out
    }

    #[test]
    fn fires_at_its_time_and_never_before() {
        let mut timers = Timers::default();
        fired(&mut timers, at(T0));
        assert!(timers.set(7, at(T0 + 2_000_000_000)));

        assert!(fired(&mut timers, at(T0 + 1_999_999_999)).is_empty());
        assert_eq!(fired(&mut timers, at(T0 + 2_000_000_000 + TICK)), [7]);
        assert!(fired(&mut timers, at(T0 + 9_000_000_000)).is_empty());
        assert_eq!(timers.pending(), 0);
    }

    #[test]
    fn deadlines_set_before_the_first_packet_wait_for_their_time() {
        let mut timers = Timers::default();
        timers.set(1, at(T0 + 5_000_000_000));
        timers.set(2, at(T0 - TICK));

        assert_eq!(fired(&mut timers, at(T0)), [2]);
        assert_eq!(fired(&mut timers, at(T0 + 5_000_000_000 + TICK)), [1]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_poll() {
        let mut timers = Timers::default();
        fired(&mut timers, at(T0));
        timers.set(1, at(T0 - TICK));
        timers.set(2, Timestamp::MIN);

        assert_eq!(fired(&mut timers, at(T0)), [1, 2]);
    }

    #[test]
    fn time_may_jump_to_its_ends() {
        let mut timers = Timers::default();
        fired(&mut timers, Timestamp::MIN);
        timers.set(1, at(T0));
        timers.set(2, at(i64::MAX));
        timers.set(3, at(1));

        assert_eq!(fired(&mut timers, at(i64::MAX - TICK)), [3, 1]);
        assert!(fired(&mut timers, at(0)).is_empty());
        timers.set(4, at(T0));
        assert_eq!(fired(&mut timers, at(0)), [4]);
    }

    #[test]
    fn one_poll_does_bounded_work_and_says_that_more_is_due() {
        let mut timers = Timers::default();
        fired(&mut timers, at(T0));
        for k in 0..10_000 {
            timers.set(k, at(T0 + TICK * 10));
        }
        let mut count = 0u32;

        assert!(timers.poll(at(T0 + TICK * 20), |_| count += 1));
        assert!(count <= MAX_STEPS_PER_POLL);
        while timers.poll(at(T0 + TICK * 20), |_| count += 1) {}
        assert_eq!(count, 10_000);
    }

    #[test]
    fn refuses_and_counts_beyond_its_limit_and_reuses_its_memory() {
        let mut timers = Timers::new(2);
        assert!(timers.set(1, at(T0)));
        assert!(timers.set(2, at(T0)));
        assert!(!timers.set(3, at(T0)));
        assert_eq!(timers.refused(), 1);

        assert_eq!(fired(&mut timers, at(T0 + TICK)), [1, 2]);
        assert!(timers.set(4, at(T0)));
        assert_eq!(timers.nodes.len(), 2);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            steps in prop::collection::vec((0i64..1 << 40, 0i64..1 << 36, any::<bool>()), 1..200),
        ) {
            let mut timers = Timers::default();
            let mut model: Vec<(i64, u32)> = Vec::new();
            let mut now = T0;
            fired(&mut timers, at(now));
            for (k, (ahead, advance, small)) in steps.into_iter().enumerate() {
                let k = u32::try_from(k).unwrap();
                let deadline = now + if small { ahead >> 14 } else { ahead };
                timers.set(k, at(deadline));
                model.push((deadline, k));
                now += advance;
                let got = fired(&mut timers, at(now));
                for k in got {
                    let i = model.iter().position(|&(_, m)| m == k).expect("fires once");
                    let (deadline, _) = model.swap_remove(i);
                    prop_assert!(deadline <= now, "fired early");
                }
                let late = at(now).since(at(model.iter().map(|m| m.0).min().unwrap_or(now)));
                prop_assert!(late < Duration::from_nanos(1 << TICK_SHIFT), "late by {late:?}");
            }
            let rest = fired(&mut timers, at(i64::MAX)).len();
            prop_assert_eq!(rest, model.len());
        }
    }
}
