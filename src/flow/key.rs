//! The identity of a conversation: the same whichever way a packet goes.
//!
//! Promises: equal keys for both directions, and a hash that nobody can steer without the process's secret.

use crate::packet::{Endpoint, FiveTuple, Ip, IpProto};

/// Which of the two ordered endpoints of a [`FlowKey`] sent a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// The lower endpoint sent it.
    #[default]
    Low,
    /// The higher endpoint sent it.
    High,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    /// 0 for [`Side::Low`], 1 for [`Side::High`]: for a pair of per-side states.
    pub const fn index(self) -> usize {
        match self {
            Self::Low => 0,
            Self::High => 1,
        }
    }

    /// The packet's direction in a flow whose first packet came from `first`.
    pub fn direction(self, first: Self) -> Direction {
        if self == first { Direction::Originator } else { Direction::Responder }
    }
}

/// The way a packet goes, relative to the first packet seen of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet.
    Originator,
    /// Against it.
    Responder,
}

/// Direction-free identity of a conversation (RFC 7011 "Flow Key"): the lower endpoint first.
///
/// Five words, compared and hashed as such. Bits 40 to 63 of the last one are 0 and not part of the identity; the flow table notes
/// there who began, and whether the other side was seen, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    low: Ip,
    high: Ip,
    /// Port of the lower endpoint, port of the higher one, protocol: 16, 16 and 8 bits, from the least significant.
    rest: u64,
}

/// Set in the last word of a key in the flow table when the higher endpoint began.
const HIGH_BEGAN: u64 = 1 << 40;
/// Set there when packets went both ways.
const ANSWERED: u64 = 1 << 41;
/// All that is noted there.
const NOTES: u64 = HIGH_BEGAN | ANSWERED;

impl FlowKey {
    /// The key of a packet's conversation, and the side that sent this packet.
    ///
    /// A packet from an endpoint to itself counts as sent by [`Side::Low`].
    #[inline]
    pub fn new(tuple: &FiveTuple) -> (Self, Side) {
        // without a branch: nobody can predict which way the next packet goes
        let swap = rank(&tuple.src) > rank(&tuple.dst);
        let pick = |yes: u64, no: u64| std::hint::select_unpredictable(swap, yes, no);
        let ([src_head, src_tail], [dst_head, dst_tail]) = (tuple.src.ip.words(), tuple.dst.ip.words());
        let (src_port, dst_port) = (u64::from(tuple.src.port), u64::from(tuple.dst.port));
        let key = Self {
            low: Ip::from_words([pick(dst_head, src_head), pick(dst_tail, src_tail)]),
            high: Ip::from_words([pick(src_head, dst_head), pick(src_tail, dst_tail)]),
            rest: pick(dst_port | src_port << 16, src_port | dst_port << 16) | u64::from(tuple.proto.0) << 32,
        };
        (key, if swap { Side::High } else { Side::Low })
    }

    /// The endpoint on `side`.
    pub const fn endpoint(&self, side: Side) -> Endpoint {
        let [a, b, c, d, ..] = self.rest.to_le_bytes();
        match side {
            Side::Low => Endpoint { ip: self.low, port: u16::from_le_bytes([a, b]) },
            Side::High => Endpoint { ip: self.high, port: u16::from_le_bytes([c, d]) },
        }
    }

    /// Transport protocol.
    #[inline]
    pub const fn proto(&self) -> IpProto {
        let [_, _, _, _, proto, ..] = self.rest.to_le_bytes();
        IpProto(proto)
    }

    /// The tuple of a packet sent by `side`.
    pub const fn tuple(&self, side: Side) -> FiveTuple {
        FiveTuple { src: self.endpoint(side), dst: self.endpoint(side.other()), proto: self.proto() }
    }

    /// The key with a note of who began, and that nobody has answered.
    #[inline]
    pub(super) const fn begun_by(self, side: Side) -> Self {
        let note = match side {
            Side::Low => 0,
            Side::High => HIGH_BEGAN,
        };
        Self { rest: self.rest & !NOTES | note, ..self }
    }

    /// Notes a packet of `side`: one of the side that did not begin is an answer.
    #[inline]
    pub(super) const fn note_sender(&mut self, side: Side) {
        // without a branch: nobody can predict which way the next packet goes
        let differs = ((self.rest / HIGH_BEGAN) ^ side.index() as u64) & 1;
        self.rest |= differs * ANSWERED;
    }

    /// Whether packets went both ways, as far as that was noted.
    #[inline]
    pub(super) const fn is_answered(&self) -> bool {
        self.rest & ANSWERED != 0
    }

    /// The key without these notes.
    #[inline]
    pub(super) const fn bare(self) -> Self {
        Self { rest: self.rest & !NOTES, ..self }
    }

    /// Who began, as far as that was noted.
    #[inline]
    pub(super) const fn first(&self) -> Side {
        if self.rest & HIGH_BEGAN == 0 { Side::Low } else { Side::High }
    }

    /// Whether both are one conversation's, whoever began.
    #[inline]
    pub(super) fn is(&self, other: &Self) -> bool {
        self.low == other.low && self.high == other.high && (self.rest ^ other.rest) & !NOTES == 0
    }
}

/// A keyed 64-bit hash of flow keys.
///
/// A chain of folded 64×64→128-bit multiplications whose operands are masked by secret words, so that a sender who does
/// not know the seed cannot aim packets at one bucket. It is not a cryptographic hash: the value must not leave the process.
#[derive(Clone)]
pub struct FlowHasher {
    secret: [u64; 6],
}

impl FlowHasher {
    /// From 128 random bits, drawn once per process by whoever may.
    pub fn new(seed: [u64; 2]) -> Self {
        let [mut state, tweak] = seed;
        let mut next = || {
            // splitmix64 (Steele, Lea, Flood 2014): spreads the seed over the six words.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state ^ tweak;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31) ^ tweak.rotate_left(32)
        };
        Self { secret: [next(), next(), next(), next(), next(), next() | 1] }
    }

    /// The hash of one endpoint.
    #[inline]
    pub fn endpoint(&self, endpoint: &Endpoint) -> u64 {
        let [k0, k1, k2, ..] = self.secret;
        let [head, tail] = endpoint.ip.words();
        fold(fold(head ^ k0, tail ^ k1) ^ u64::from(endpoint.port), k2)
    }

    /// The hashes of sender and receiver.
    #[inline]
    pub fn ends(&self, tuple: &FiveTuple) -> [u64; 2] {
        [self.endpoint(&tuple.src), self.endpoint(&tuple.dst)]
    }

    /// The hash of the conversation between two endpoints, made of theirs; the same in both directions.
    #[inline]
    pub fn between(&self, [a, b]: [u64; 2], proto: IpProto) -> u64 {
        let [.., k3, k4, k5] = self.secret;
        fold(a ^ b ^ k3, a.wrapping_add(b) ^ u64::from(proto.0) ^ k4) ^ k5
    }

    /// The hash of `key`: a handful of nanoseconds, no memory touched.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.between([self.endpoint(&key.endpoint(Side::Low)), self.endpoint(&key.endpoint(Side::High))], key.proto())
    }
}

impl std::fmt::Debug for FlowHasher {
    /// The secret stays out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("FlowHasher")
    }
}

/// A total order of endpoints; the half of an address that is most likely to differ first.
#[inline]
fn rank(endpoint: &Endpoint) -> (u64, u64, u16) {
    let [head, tail] = endpoint.ip.words();
    (tail, head, endpoint.port)
}

#[inline]
fn fold(x: u64, y: u64) -> u64 {
    let (low, high) = split(u128::from(x).wrapping_mul(u128::from(y)));
    low ^ high
}

/// Low and high half.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are taken on purpose")]
const fn split(x: u128) -> (u64, u64) {
    (x as u64, (x >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (any::<[u8; 16]>(), any::<bool>(), any::<u16>()).prop_map(|(o, v4, port)| {
            let ip = if v4 { Ip::v4([o[0], o[1], o[2], o[3]]) } else { Ip::v6(o) };
            Endpoint { ip, port }
        })
    }

    proptest! {
        #[test]
        fn both_directions_share_one_key_and_hash(src in endpoint(), dst in endpoint(), proto: u8, seed: [u64; 2]) {
            let tuple = FiveTuple { src, dst, proto: IpProto(proto) };
            let (there, from) = FlowKey::new(&tuple);
            let (back, to) = FlowKey::new(&tuple.reversed());
            prop_assert_eq!(there, back);
            prop_assert!(src == dst || from == to.other());
            prop_assert_eq!(there.tuple(from), tuple);
            let hasher = FlowHasher::new(seed);
            prop_assert_eq!(hasher.hash(&there), hasher.hash(&back));
        }
    }

    #[test]
    fn neighbouring_keys_spread_evenly_over_buckets() {
        let hasher = FlowHasher::new([1, 2]);
        // 65 536 flows that differ in two ports only, into 4096 buckets: 16 each on average. For a Poisson count the
        // chance of any bucket above 48 is below 1e-6.
        let mut low = vec![0u32; 4096];
        let mut high = vec![0u32; 4096];
        for i in 0..65_536u32 {
            let [_, _, x, y] = i.to_be_bytes();
            let src = Endpoint { ip: Ip::v4([10, 0, 0, 1]), port: 10_000 + u16::from(x) };
            let dst = Endpoint { ip: Ip::v4([10, 0, 0, 2]), port: 20_000 + u16::from(y) };
            let (key, _) = FlowKey::new(&FiveTuple { src, dst, proto: IpProto::UDP });
            let hash = hasher.hash(&key);
            low[usize::try_from(hash & 4095).unwrap()] += 1;
            high[usize::try_from((hash >> 32) & 4095).unwrap()] += 1;
        }
        assert!(low.iter().chain(&high).all(|&n| n < 48), "{:?} {:?}", low.iter().max(), high.iter().max());
    }

    #[test]
    fn another_seed_gives_another_hash_and_debug_hides_it() {
        let key = FlowKey::default();

        assert_ne!(FlowHasher::new([1, 2]).hash(&key), FlowHasher::new([1, 3]).hash(&key));
        assert_ne!(FlowHasher::new([1, 2]).hash(&key), FlowHasher::new([2, 2]).hash(&key));
        assert_eq!(format!("{:?}", FlowHasher::new([1, 2])), "FlowHasher");
    }
}
