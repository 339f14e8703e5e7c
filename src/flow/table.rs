//! A bounded table from conversation to a few bytes of the caller's choice.
//!
//! ```text
//! tags   one u64 per bucket   [t0 t1 t2 t3 t4 t5 t6 t7]   0 = empty, else 8 bits of the hash
//! slots  8 × 64 bytes each    key and first side 40 · value ≤ 16 · last seen 8
//! ```
//!
//! A flow lives in one of the eight slots of either of two buckets, chosen by independent parts of a keyed hash; a new flow
//! goes into the first unless that is crowded, then where there is more room. Two choices keep every bucket from overflowing well past the load at which the table
//! doubles (Azar, Broder, Karlin, Upfal 1999), where one choice would lose one flow in fifty at 60 %. A lookup reads one
//! tag word, seldom two, and nearly always one slot: [`FlowTable::warm`] reads the same words ahead, so that the cache misses of a
//! burst of packets overlap.
//!
//! Promises: at most [`TableLimits::max_flows`] rounded up to what the buckets need, 64 bytes each; small until used; when
//! both buckets are full one of the sixteen goes, its value is handed back and it is counted; no allocation except while
//! growing.
//!
//! Which one: one past its idle limit, else one of the newcomer's own class (TCP, or everything else), so that a flood of the one does not push
//! the other out; of these one that nobody has answered; of these the one silent for longest. While flows are nine tenths of
//! [`TableLimits::max_flows`], until they are below eight, and while memory is short, idle limits are a sixth: an emergency. From eight
//! tenths on new flows pay for a look at a few others; what is idle of them is forgotten, and not handed back.
//!
//! Refuses: shrinking, iteration order, and reading a clock: time is the packets'.

use std::time::Duration;

use super::key::{Direction, FlowHasher, FlowKey, Side};
use crate::packet::{IpProto, Timestamp};

/// Slots of a bucket; one byte of tag each.
const WAYS: usize = 8;
/// A bucket with so many empty slots takes a flow without a look at the other.
const UNCROWDED: u32 = 3;
/// In an emergency idle limits are this part of what they are otherwise.
const EMERGENCY: i64 = 6;
/// Buckets that a new flow walks where room is scarce, for what is idle: where that is one flow in six, as many go as come.
const SWEEP: usize = 2;
/// After a walk that found nothing the next one waits for so many more: in a flood there may be nothing to find.
const BARREN: u8 = 8;
/// Nobody has been silent for longer than 73 years.
const LONGEST: i64 = (1 << 61) - 1;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// How big a table may get.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Slots at the start.
    pub initial_slots: usize,
    /// Flows the table holds without evicting any; about 130 bytes for each at the end.
    pub max_flows: usize,
}

impl Default for TableLimits {
    /// 32 KiB at first; 262 144 flows in 32 MiB at most: two media flows and their RTCP for each of 65 536 calls.
    fn default() -> Self {
        Self { initial_slots: 512, max_flows: 262_144 }
    }
}

/// How long a flow is remembered without packets.
#[derive(Clone, Copy, Debug)]
pub struct IdleLimits {
    /// TCP: past the slowest keep-alives in use, since the cost of forgetting is a mid-stream join.
    pub tcp: Duration,
    /// Everything else.
    pub other: Duration,
}

impl Default for IdleLimits {
    /// TCP 600 s, other 300 s.
    fn default() -> Self {
        Self { tcp: Duration::from_mins(10), other: Duration::from_mins(5) }
    }
}

/// What the table has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Slots in use; a flow past its idle limit counts until its slot is met again or [`FlowTable::expire`] passes.
    pub live: u64,
    /// Flows forgotten because both buckets were full.
    pub evicted: u64,
    /// Flows forgotten because they were idle.
    pub expired: u64,
    /// Flows forgotten because they were idle in an emergency, and would not have been otherwise.
    pub hurried: u64,
}

impl TableCounters {
    /// A flow was idle; `early`: not for as long as it may be.
    #[cold]
    fn note_idle(&mut self, early: bool) {
        let counter = if early { &mut self.hurried } else { &mut self.expired };
        *counter = counter.saturating_add(1);
    }
}

/// [`IdleLimits`] in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Idle {
    tcp: i64,
    other: i64,
}

impl Idle {
    #[inline]
    fn of(&self, proto: IpProto) -> i64 {
        if proto == IpProto::TCP { self.tcp } else { self.other }
    }
}

/// What a key is looked up by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookup {
    hash: u64,
    /// The slot to try first, once [`FlowTable::warm`] has found it.
    place: usize,
}

/// One packet's flow.
#[derive(Debug)]
pub struct Entry<'t, V> {
    /// The caller's value; `V::default()` for a new flow.
    pub value: &'t mut V,
    /// First packet of the flow, or first one after its idle limit.
    pub is_new: bool,
    /// The packet before this one; this one's time for a new flow.
    pub last_seen: Timestamp,
    /// Who sent the first packet seen.
    pub first_side: Side,
    /// Which way this packet goes.
    pub direction: Direction,
    /// The value of a flow that was forgotten to make room, or of this flow's expired predecessor.
    pub displaced: Option<V>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot<V> {
    last_seen: i64,
    value: V,
    /// With a note of who began.
    key: FlowKey,
}

/// See the module.
#[derive(Debug)]
pub struct FlowTable<V> {
    hasher: FlowHasher,
    tags: Vec<u64>,
    slots: Vec<Slot<V>>,
    /// Buckets − 1; buckets are a power of two.
    mask: u64,
    max_slots: usize,
    /// Slots in use at which the table doubles.
    grow_at: usize,
    live: usize,
    max_flows: usize,
    usual: Idle,
    /// As they are now.
    idle: Idle,
    /// Memory is short.
    short: bool,
    /// Nearly full.
    crowded: bool,
    /// New flows until the next one walks.
    barren: u8,
    /// The bucket [`FlowTable::expire`] looks at next.
    cursor: usize,
    counters: TableCounters,
    /// Stands in for a slot that cannot be missing.
    spare: Slot<V>,
}

impl<V: Copy + Default> FlowTable<V> {
    /// An empty table.
    pub fn new(hasher: FlowHasher, limits: TableLimits, idle: IdleLimits) -> Self {
        const { assert!(size_of::<V>() <= 16 && size_of::<Slot<V>>() == 64, "a slot is one cache line") };
        // Two-choice buckets of eight stay clear of overflow up to about three quarters full.
        let max_slots = power_of_two(limits.max_flows.saturating_add(limits.max_flows / 3));
        let slots = power_of_two(limits.initial_slots).min(max_slots);
        let empty = Slot { last_seen: 0, value: V::default(), key: FlowKey::default() };
        let usual = Idle { tcp: nanos(idle.tcp), other: nanos(idle.other) };
        Self {
            hasher,
            tags: vec![0; slots / WAYS],
            slots: vec![empty; slots],
            mask: bucket_mask(slots),
            max_slots,
            grow_at: grow_at(slots),
            live: 0,
            max_flows: limits.max_flows,
            usual,
            idle: usual,
            short: false,
            crowded: false,
            barren: 0,
            cursor: 0,
            counters: TableCounters::default(),
            spare: empty,
        }
    }

    /// What the other functions look a key up by.
    #[inline]
    pub fn lookup(&self, key: &FlowKey) -> Lookup {
        Lookup { hash: self.hasher.hash(key), place: usize::MAX }
    }

    /// As [`Self::lookup`], where the hashes of both ends are known; they are [`FlowHasher::ends`] of the hasher given to [`Self::new`].
    #[inline]
    pub fn lookup_between(&self, ends: [u64; 2], proto: IpProto) -> Lookup {
        Lookup { hash: self.hasher.between(ends, proto), place: usize::MAX }
    }

    /// Finds out where looking these hashes up will begin, and reads what is there, so that it is in the cache by then.
    ///
    /// For a burst of packets (32 at once are best), before the first of them is looked up. Two passes, so that the loads
    /// of the second depend on nothing and the processor overlaps their misses: measured at 100 000 flows, a lookup with
    /// its key and hash costs 33 ns so, 50 ns warmed one by one and 130 ns cold.
    pub fn warm(&self, lookups: &mut [Lookup]) {
        for lookup in lookups.iter_mut() {
            lookup.place = self.candidate(lookup.hash);
        }
        let seen = lookups.iter().fold(0, |all, l| all ^ self.slots.get(l.place).map_or(0, |s| s.last_seen.cast_unsigned()));
        // the value means nothing, but its reading must not be left out
        std::hint::black_box(seen);
    }

    /// The value where [`Self::warm`] found that looking up will begin: seldom another flow's, or one of a flow that is gone. For guesses
    /// about what is needed next.
    #[inline]
    pub fn hint(&self, lookup: &Lookup) -> Option<&V> {
        self.slots.get(lookup.place).map(|slot| &slot.value)
    }

    /// Finds or makes the flow of a packet sent by `side` at `now`, and notes that it was seen.
    #[expect(clippy::inline_always, reason = "most of what it answers is not asked for, and then not worked out")]
    #[inline(always)]
    pub fn entry(&mut self, key: &FlowKey, side: Side, lookup: Lookup, now: Timestamp) -> Entry<'_, V> {
        let now_nanos = now.as_nanos();
        if let Some(index) = self.find(key, lookup) {
            let idle = self.idle.of(key.proto());
            let slot = self.slots.get_mut(index).unwrap_or(&mut self.spare);
            let last = slot.last_seen;
            let silent = now_nanos.saturating_sub(last);
            if silent <= idle {
                slot.last_seen = last.max(now_nanos);
                slot.key.note_sender(side);
                return Entry {
                    value: &mut slot.value,
                    is_new: false,
                    last_seen: Timestamp::from_nanos(last),
                    first_side: slot.key.first(),
                    direction: side.direction(slot.key.first()),
                    displaced: None,
                };
            }
            self.counters.note_idle(silent <= self.usual.of(key.proto()));
            let displaced = Some(std::mem::take(&mut slot.value));
            (slot.last_seen, slot.key) = (now_nanos, key.begun_by(side));
            return Entry::new(&mut slot.value, side, now, displaced);
        }
        self.insert(key, side, lookup.hash, now)
    }

    /// The value of a flow that is there and not expired; does not count as seeing it.
    pub fn get(&self, key: &FlowKey, lookup: Lookup, now: Timestamp) -> Option<&V> {
        let slot = self.slots.get(self.find(key, lookup)?)?;
        let fresh = now.as_nanos().saturating_sub(slot.last_seen) <= self.idle.of(key.proto());
        fresh.then_some(&slot.value)
    }

    /// Forgets a flow; its value.
    pub fn remove(&mut self, key: &FlowKey, lookup: Lookup) -> Option<V> {
        let index = self.find(key, lookup)?;
        self.clear(index);
        self.judge();
        self.slots.get(index).map(|s| s.value)
    }

    /// Walks the next `buckets` buckets, forgets what is past its idle limit and hands it over.
    ///
    /// Called with a few buckets per packet or a few thousand per second it keeps the table clean at a constant price.
    pub fn expire(&mut self, now: Timestamp, buckets: usize, mut gone: impl FnMut(&FlowKey, V)) {
        for _ in 0..buckets.min(self.tags.len()) {
            if self.cursor >= self.tags.len() {
                self.cursor = 0;
            }
            let bucket = self.cursor;
            self.cursor = bucket.saturating_add(1);
            let mut used = !same_bytes(self.tags.get(bucket).copied().unwrap_or(0), 0) & !LOW_SEVEN;
            while used != 0 {
                let index = slot_index(bucket, used);
                used &= used.wrapping_sub(1);
                let Some(slot) = self.slots.get(index).copied() else { continue };
                let (silent, proto) = (now.as_nanos().saturating_sub(slot.last_seen), slot.key.proto());
                if silent > self.idle.of(proto) {
                    self.clear(index);
                    self.counters.note_idle(silent <= self.usual.of(proto));
                    gone(&slot.key.bare(), slot.value);
                }
            }
        }
        self.judge();
    }

    /// Memory is short, or no longer.
    pub fn set_short(&mut self, short: bool) {
        self.short = short;
        self.judge();
    }

    /// Whether idle limits are a sixth now.
    pub const fn is_emergency(&self) -> bool {
        self.short || self.crowded
    }

    /// What it has done so far.
    pub fn counters(&self) -> TableCounters {
        TableCounters { live: u64::try_from(self.live).unwrap_or(u64::MAX), ..self.counters }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.slots.as_slice()).saturating_add(size_of_val(self.tags.as_slice()))
    }

    /// Whether so many tenths of the greatest number of flows are in use.
    const fn has_tenths(&self, tenths: usize) -> bool {
        self.live.saturating_mul(10) >= self.max_flows.saturating_mul(tenths)
    }

    /// An emergency begins, goes on or is over.
    fn judge(&mut self) {
        self.crowded = self.has_tenths(if self.crowded { 8 } else { 9 });
        let Idle { tcp, other } = self.usual;
        self.idle = if self.is_emergency() { Idle { tcp: tcp / EMERGENCY, other: other / EMERGENCY } } else { self.usual };
    }

    /// The two buckets of a hash: different ones, as long as there are two.
    #[inline]
    fn buckets(&self, hash: u64) -> (usize, usize) {
        let to_usize = |x: u64| usize::try_from(x & self.mask).unwrap_or(0);
        (to_usize(hash), to_usize(hash ^ ((hash >> 28) | 1)))
    }

    #[inline]
    fn tag_word(&self, bucket: usize) -> u64 {
        self.tags.get(bucket).copied().unwrap_or(0)
    }

    /// The slot a lookup tries first: nearly every flow is in the first of its buckets, see [`Self::vacancy`].
    #[inline]
    fn candidate(&self, hash: u64) -> usize {
        let (a, b) = self.buckets(hash);
        let tag = tag_of(hash);
        let in_a = same_bytes(self.tag_word(a), tag);
        if in_a != 0 { slot_index(a, in_a) } else { slot_index(b, same_bytes(self.tag_word(b), tag)) }
    }

    #[inline]
    fn find(&self, key: &FlowKey, lookup: Lookup) -> Option<usize> {
        let there = |index: usize| self.slots.get(index).is_some_and(|s| s.key.is(key)) && self.in_use(index);
        if there(lookup.place) { Some(lookup.place) } else { self.find_slowly(key, lookup.hash) }
    }

    /// An emptied slot keeps its key; only the tag says whether it counts.
    #[inline]
    fn in_use(&self, index: usize) -> bool {
        (self.tag_word(index / WAYS) >> ((index % WAYS) * 8)) & 0xff != 0
    }

    fn find_slowly(&self, key: &FlowKey, hash: u64) -> Option<usize> {
        let (a, b) = self.buckets(hash);
        for bucket in [a, b] {
            let mut hits = same_bytes(self.tag_word(bucket), tag_of(hash));
            while hits != 0 {
                let index = slot_index(bucket, hits);
                if self.slots.get(index).is_some_and(|s| s.key.is(key)) {
                    return Some(index);
                }
                hits &= hits.wrapping_sub(1);
            }
        }
        None
    }

    #[cold]
    fn insert(&mut self, key: &FlowKey, side: Side, hash: u64, now: Timestamp) -> Entry<'_, V> {
        if self.short || self.has_tenths(8) {
            self.sweep(now);
        }
        let mut room = self.vacancy(hash);
        // Both buckets full below the threshold is rare, and a reason to grow unless the table is nearly empty.
        if self.live >= self.grow_at || room.is_none() && self.live >= self.slots.len() / 4 {
            self.grow();
            room = self.vacancy(hash);
        }
        let mut displaced = None;
        let index = if let Some(index) = room {
            self.live = self.live.saturating_add(1);
            self.judge();
            index
        } else {
            let index = self.victim(hash, key.proto(), now);
            if let Some(old) = self.slots.get(index) {
                displaced = Some(old.value);
                let (silent, proto) = (now.as_nanos().saturating_sub(old.last_seen), old.key.proto());
                if silent > self.idle.of(proto) {
                    self.counters.note_idle(silent <= self.usual.of(proto));
                } else {
                    self.counters.evicted = self.counters.evicted.saturating_add(1);
                }
            }
            index
        };
        self.set_tag(index, tag_of(hash));
        let slot = self.slots.get_mut(index).unwrap_or(&mut self.spare);
        *slot = Slot { last_seen: now.as_nanos(), value: V::default(), key: key.begun_by(side) };
        Entry::new(&mut slot.value, side, now, displaced)
    }

    /// A new flow looks whether others are idle.
    fn sweep(&mut self, now: Timestamp) {
        if self.barren > 0 {
            self.barren = self.barren.saturating_sub(1);
            return;
        }
        let before = self.live;
        self.expire(now, SWEEP, |_, _| ());
        if self.live == before {
            self.barren = BARREN;
        }
    }

    /// An empty slot: in the first bucket while it is not crowded, so that a lookup needs to read no other; then in the emptier one.
    fn vacancy(&self, hash: u64) -> Option<usize> {
        let (a, b) = self.buckets(hash);
        let empty_a = same_bytes(self.tag_word(a), 0);
        if empty_a.count_ones() >= UNCROWDED {
            return Some(slot_index(a, empty_a));
        }
        let empty_b = same_bytes(self.tag_word(b), 0);
        let (bucket, empty) = if empty_a.count_ones() >= empty_b.count_ones() { (a, empty_a) } else { (b, empty_b) };
        (empty != 0).then(|| slot_index(bucket, empty))
    }

    /// Who goes for a flow of `proto` where both buckets are full; see the module.
    fn victim(&self, hash: u64, proto: IpProto, now: Timestamp) -> usize {
        let (a, b) = self.buckets(hash);
        let both = || self.row(a).zip(self.row(b));
        // in a flood a new flow costs what these sixteen cache misses cost, so they overlap, as in [`Self::warm`], and nothing branches on what
        // nobody can predict
        let seen = both().fold(0, |all, ((_, a), (_, b))| all ^ a.last_seen ^ b.last_seen);
        std::hint::black_box(seen);
        let is_tcp = |proto: IpProto| proto == IpProto::TCP;
        let rank = |slot: &Slot<V>| {
            let silent = now.as_nanos().saturating_sub(slot.last_seen).clamp(0, LONGEST);
            let alive = silent <= self.idle.of(slot.key.proto());
            let other_class = is_tcp(slot.key.proto()) != is_tcp(proto);
            let class = u64::from(alive) << 2 | u64::from(other_class) << 1 | u64::from(slot.key.is_answered());
            class << 61 | LONGEST.saturating_sub(silent).cast_unsigned()
        };
        let least = both().flat_map(|(a, b)| [a, b]).fold((u64::MAX, 0), |least, (index, slot)| {
            let rank = rank(slot);
            std::hint::select_unpredictable(rank < least.0, (rank, index), least)
        });
        least.1
    }

    /// The slots of a bucket, with their numbers.
    fn row(&self, bucket: usize) -> impl Iterator<Item = (usize, &Slot<V>)> {
        let first = bucket.saturating_mul(WAYS);
        (first..).zip(self.slots.get(first..first.saturating_add(WAYS)).unwrap_or_default())
    }

    fn clear(&mut self, index: usize) {
        self.set_tag(index, 0);
        self.live = self.live.saturating_sub(1);
    }

    fn set_tag(&mut self, index: usize, tag: u8) {
        let shift = (index % WAYS) * 8;
        if let Some(word) = self.tags.get_mut(index / WAYS) {
            *word = *word & !(0xff << shift) | u64::from(tag) << shift;
        }
    }

    /// Doubles, if it may. Should a flow find no room in the doubled table (nobody has seen that), the table
    /// stays as it is for good, so that growing never loses a flow.
    fn grow(&mut self) {
        let slots = self.slots.len().saturating_mul(2);
        if slots > self.max_slots {
            return;
        }
        let mut bigger = Self {
            hasher: self.hasher.clone(),
            tags: vec![0; slots / WAYS],
            slots: vec![self.spare; slots],
            mask: bucket_mask(slots),
            grow_at: grow_at(slots),
            live: self.live,
            cursor: 0,
            ..*self
        };
        for (_, slot) in self.slots.iter().enumerate().filter(|&(i, _)| self.in_use(i)) {
            let hash = self.hasher.hash(&slot.key.bare());
            let Some(place) = bigger.vacancy(hash) else {
                self.max_slots = self.slots.len();
                return;
            };
            bigger.set_tag(place, tag_of(hash));
            if let Some(new) = bigger.slots.get_mut(place) {
                *new = *slot;
            }
        }
        *self = bigger;
    }
}

impl<'t, V> Entry<'t, V> {
    fn new(value: &'t mut V, side: Side, now: Timestamp, displaced: Option<V>) -> Self {
        Entry { value, is_new: true, last_seen: now, first_side: side, direction: Direction::Originator, displaced }
    }
}

/// The tag of a hash: its top byte, which no bucket number uses, but never 0.
#[inline]
fn tag_of(hash: u64) -> u8 {
    u8::try_from(hash >> 56).unwrap_or(0).max(1)
}

/// 0x80 in each byte of `word` that equals `byte`, 0 in the others.
#[inline]
const fn same_bytes(word: u64, byte: u8) -> u64 {
    let differ = word ^ LOW_BITS.wrapping_mul(byte as u64);
    !((differ & LOW_SEVEN).wrapping_add(LOW_SEVEN) | differ | LOW_SEVEN)
}

/// The slot of the lowest mark in a bucket; the bucket's first slot when there is none.
#[inline]
fn slot_index(bucket: usize, marks: u64) -> usize {
    let way = usize::try_from(marks.trailing_zeros() / 8).unwrap_or(0) % WAYS;
    bucket.saturating_mul(WAYS).saturating_add(way)
}

fn power_of_two(slots: usize) -> usize {
    slots.clamp(WAYS, 1 << 28).next_power_of_two()
}

fn bucket_mask(slots: usize) -> u64 {
    u64::try_from(slots / WAYS).unwrap_or(1).saturating_sub(1)
}

/// 60 % of the slots.
fn grow_at(slots: usize) -> usize {
    slots.saturating_mul(3) / 5
}

fn nanos(d: Duration) -> i64 {
    i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
