//! One packet seen twice: a mirror that copies both directions, a bond, `any` on a bridge.
//!
//! Promises: two captures of one IP packet have the same [`Dedup::packet_id`] although routers changed TTL or hop limit, or an
//! interface left checksums to its hardware; link layer, tags, tunnels and padding do not count. Memory is fixed, nothing is
//! allocated per packet, and the hash is keyed, so that nobody can craft a packet that makes another one disappear.
//! An identity is remembered for [`WINDOW`] from its *first* sight, not longer because of repetitions.
//!
//! Refuses nothing; when more packets pass within the window than it has room for, the oldest of a bucket are forgotten and
//! counted ([`Counters::forgotten`]): a double may then pass, a packet is never lost.
//!
//! Packets that repeat in every byte within the window, by intent of the sender (IPv6 or ID-less duplicate TCP
//! acknowledgements), cannot be told from doubles.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use super::headers::{Headers, Transport};
use super::{InterfaceId, Timestamp};

/// How long one packet can take between two places that capture it; retransmissions of SIP (500 ms) and TCP (200 ms) are later.
pub const WINDOW: Duration = Duration::from_millis(100);

/// Default number of identities remembered, 1 MiB: the window at 650 000 packets/s.
pub const CAPACITY: usize = 65_536;

/// Slots that an identity can be in: one cache line.
const WAYS: usize = 4;

/// What was recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Doubles on the interface that had the first.
    pub same_interface: u64,
    /// Doubles on another interface.
    pub other_interface: u64,
    /// Identities overwritten within the window.
    pub forgotten: u64,
}

/// The packets of the last [`WINDOW`].
#[derive(Debug)]
pub struct Dedup {
    hash: ahash::RandomState,
    /// Sets chosen by the identity's low bits.
    sets: Box<[Set]>,
    /// [`WINDOW`] in nanoseconds.
    window: u64,
    counters: Counters,
}

/// Where an identity can be, one cache line: [`WAYS`] tags, then when each was first seen. Plain zeros at first, so that
/// memory which is not used is not touched.
type Set = [u64; 2 * WAYS];

/// No identity's tag.
const EMPTY: u64 = 0;
/// The part of a tag that is the identity's; the rest is the interface.
const TAG: u64 = !0xffff;

fn tag_of(id: u64, interface: InterfaceId) -> u64 {
    (id & TAG).max(!TAG + 1) | u64::from(interface.0)
}

impl Dedup {
    /// Remembers up to `capacity` packets (rounded up to a power of two); `seed` keys the hash and should be random.
    pub fn new(seed: u64, capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).clamp(1, 1 << 20).next_power_of_two();
        Self {
            hash: ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x6c63_2064_6564_7570),
            sets: vec![[EMPTY; 2 * WAYS]; sets].into_boxed_slice(),
            window: u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX),
            counters: Counters::default(),
        }
    }

    /// The identity of the innermost IP packet in `data`, the bytes `headers` came from.
    #[inline]
    pub fn packet_id(&self, headers: &Headers, data: &[u8]) -> u64 {
        let packet = headers.ip.of(data);
        // Where fields are that change on the way: TTL and checksum, or hop limit; then the transport's checksum.
        let (lifetime, after) = if packet.first().is_some_and(|b| b >> 4 == 4) { (8, 12) } else { (7, 8) };
        let transport = (headers.body.start.saturating_sub(headers.ip.start)) as usize;
        let checksum = match headers.transport {
            Transport::Udp if headers.fragment.is_none() => transport.saturating_add(6),
            Transport::Tcp(_) if headers.fragment.is_none() => transport.saturating_add(16),
            Transport::Udp | Transport::Tcp(_) | Transport::Sctp | Transport::Other => packet.len(),
        };
        let mut hasher = self.hash.build_hasher();
        let mut add = |from: usize, to: usize| hasher.write(packet.get(from..to).unwrap_or_default());
        add(0, lifetime);
        if after == 12 {
            add(9, 10);
        }
        add(after, checksum.min(packet.len()));
        add(checksum.saturating_add(2).min(packet.len()), packet.len());
        hasher.finish()
    }

    /// Reads what [`Dedup::seen`] will read of these identities, so that it is in the cache by then; the value means nothing.
    /// For a burst of packets, before the first of them is asked about: the misses overlap.
    pub fn warm(&self, ids: impl Iterator<Item = u64>) -> u64 {
        let first = |id: u64| self.sets.get(self.place(id)).map_or(0, |[tag, ..]| *tag);
        std::hint::black_box(ids.fold(0, |all, id| all ^ first(id)))
    }

    /// The set of an identity.
    #[inline]
    fn place(&self, id: u64) -> usize {
        usize::try_from(id & 0xffff_ffff).unwrap_or(0) & self.sets.len().saturating_sub(1)
    }

    /// Whether `id` was seen less than [`WINDOW`] ago; remembers it if not.
    #[inline]
    pub fn seen(&mut self, id: u64, ts: Timestamp, interface: InterfaceId) -> bool {
        let (place, window) = (self.place(id), self.window);
        let Some((tags, times)) = self.sets.get_mut(place).map(|set| set.split_at_mut(WAYS)) else { return false };
        // Clocks of two interfaces need not agree to the packet, so "ago" has no sign.
        let is_live = |tag: u64, at: u64| tag != EMPTY && ts.as_nanos().abs_diff(at.cast_signed()) < window;
        let tag = tag_of(id, interface);
        let (mut oldest, mut oldest_at) = (0, i64::MAX);
        for (way, (&known, &at)) in tags.iter().zip(&*times).enumerate() {
            if (known ^ tag) & TAG == 0 && is_live(known, at) {
                let counter = if known == tag { &mut self.counters.same_interface } else { &mut self.counters.other_interface };
                *counter = counter.saturating_add(1);
                return true;
            }
            let at = if known == EMPTY { i64::MIN } else { at.cast_signed() };
            if at < oldest_at {
                (oldest, oldest_at) = (way, at);
            }
        }
        if let (Some(old), Some(at)) = (tags.get_mut(oldest), times.get_mut(oldest)) {
            if is_live(*old, *at) {
                self.counters.forgotten = self.counters.forgotten.saturating_add(1);
            }
            (*old, *at) = (tag, ts.as_nanos().cast_unsigned());
        }
        false
    }

    /// Whether `id` was seen less than [`WINDOW`] ago; remembers nothing.
    pub fn knows(&self, id: u64, ts: Timestamp) -> bool {
        let Some((tags, times)) = self.sets.get(self.place(id)).map(|set| set.split_at(WAYS)) else { return false };
        let tag = tag_of(id, InterfaceId(0));
        let is_live = |at: u64| ts.as_nanos().abs_diff(at.cast_signed()) < self.window;
        tags.iter().zip(times).any(|(t, at)| (*t ^ tag) & TAG == 0 && is_live(*at))
    }

    /// What was recognised since the beginning.
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
