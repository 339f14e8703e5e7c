//! What crosses the network: packets of one batcher, sealed once into a gRPC message that is never touched again.
//!
//! ```text
//!  0        5                                                                                     end
//!  +--------+-----------+-----------+ … +-----------------------------------------------------+
//!  | prefix | packet 1  | packet 2  |   | hunter id, sequence, time, stats, epoch, contexts … |
//!  +--------+-----------+-----------+ … +-----------------------------------------------------+
//!   0 LLLL    written as they come        written at sealing
//! ```
//!
//! The prefix is gRPC's (one byte "not compressed", four bytes length, big-endian); what follows is one
//! `lippycat.data.PacketBatch`, protobuf fields in the order that is cheapest to write. [`Encoder`] writes it straight from
//! the captured frame, [`BatchView`] reads it in place, [`legacy`] turns it into what peers without our extensions expect.
//!
//! Promises: one copy per packet and no allocation in the steady state; a sequence from 1 per [`Epoch`] that is never
//! reused; no batch above its limits except a single packet that is larger alone; no panic on any bytes. Refuses: packets
//! above the hard cap, and on the reading side anything that breaks a bound of [`ViewLimits`].

mod declare;
mod encode;
mod keys;
pub mod legacy;
mod protobuf;
mod ranges;
mod relay;
mod select;
mod view;

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use bytes::Bytes;

pub use self::declare::{DroppedRange, ELSEWHERE, GRPC_PREFIX, grpc_prefix, with_ranges};
pub use self::encode::{Encoder, EncoderConfig, Owner, Pushed};
pub use self::keys::without_tls_keys;
pub use self::ranges::SeqRanges;
pub use self::relay::{BatchKey, HOPS_MAX, Relay, key_of, relayed};
pub use self::select::{Selected, selected, skipped};
pub use self::view::{BatchError, BatchView, ContextView, DroppedView, PacketView, ViewLimits};

use crate::packet::Timestamp;
pub use crate::voip::output::Context;

/// One batcher in one process start: 44 bits of milliseconds since 1970 above 20 random bits. Never 0 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An epoch that starts at `ms` milliseconds since 1970; of `random` the low 20 bits are used.
    #[must_use]
    pub const fn new(ms: u64, random: u32) -> Self {
        let value = (ms << 20) | (random as u64 & 0xf_ffff);
        Self(if value == 0 { 1 } else { value })
    }

    /// When its process started, to the millisecond.
    #[must_use]
    pub fn began(self) -> Timestamp {
        Timestamp::from_nanos(i64::try_from(self.0 >> 20).unwrap_or(i64::MAX).saturating_mul(1_000_000))
    }

    /// An epoch of this process that starts at `now`, of what batches so.
    #[must_use]
    pub fn starting(now: Timestamp, batcher: impl Hash) -> Self {
        let random = ahash::RandomState::new().hash_one(batcher);
        Self::new(u64::try_from(now.as_nanos() / 1_000_000).unwrap_or(0), u32::try_from(random & 0xf_ffff).unwrap_or(0))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A sealed batch's number within its [`Epoch`], from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchSeq(pub u64);

impl fmt::Display for BatchSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a [`Context`]'s content: the same key always means the same strings, a change of content takes a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextKey(pub u64);

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets per batch; default 1024.
    pub packets: u32,
    /// Bytes per batch, contexts and framing included; default 64 KiB. One larger packet travels alone.
    pub bytes: usize,
    /// What not even a packet alone may exceed; default 4 MiB, the receive limit of old monitoring clients.
    pub hard_bytes: usize,
    /// Age at which a batch is sealed although it has room; default 100 ms.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { packets: 1024, bytes: 64 << 10, hard_bytes: 4 << 20, age: Duration::from_millis(100) }
    }
}

impl Limits {
    /// So many times as long, as far as receivers have room; a batch of a packet at least.
    fn lengthened(self, times: u32) -> Self {
        let Self { packets, bytes, hard_bytes, age } = self;
        Self {
            packets: packets.saturating_mul(times).min(LONG_PACKETS.max(packets)).max(1),
            bytes: bytes.saturating_mul(times as usize).min(LONG_BYTES.max(bytes)),
            hard_bytes,
            age: age.saturating_mul(times),
        }
    }
}

/// What a batch that is made longer has at most, unless its limits say more: receivers serve a connection whatever others hold as long as it has no
/// more unfinished than 128 KiB, and take no more packets in one.
pub const LONG_BYTES: usize = 120 << 10;
/// See [`LONG_BYTES`].
pub const LONG_PACKETS: u32 = 16_384;

/// Totals of the sending process since its start, as every batch repeats them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// Packets captured.
    pub total_captured: u64,
    /// Packets chosen by filters.
    pub filtered_matched: u64,
    /// Packets given up, all reasons together.
    pub dropped: u64,
    /// How full the hunter's memory for batches is, in percent.
    pub buffer_usage: u32,
}

/// A finished batch, ready for a socket or a disk.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    /// Its batcher.
    pub epoch: Epoch,
    /// Its number there.
    pub seq: BatchSeq,
    /// How many packets it holds; at least 1.
    pub packets: u32,
    /// Packets sealed in this epoch before it.
    pub first_index: u64,
    /// Captured bytes in it, framing and contexts not counted.
    pub captured_bytes: u64,
    /// Capture time of the first packet.
    pub first_ts: Timestamp,
    /// Capture time of the last packet.
    pub last_ts: Timestamp,
    /// The gRPC message, its 5-byte prefix included.
    pub bytes: Bytes,
}

impl SealedBatch {
    /// A batch that comes back from a disk. Index, lengths and times stand in the message and are not read.
    #[must_use]
    pub const fn stored(epoch: Epoch, seq: BatchSeq, packets: u32, bytes: Bytes) -> Self {
        let none = Timestamp::from_nanos(0);
        Self { epoch, seq, packets, first_index: 0, captured_bytes: 0, first_ts: none, last_ts: none, bytes }
    }

    /// The `PacketBatch` without the gRPC prefix; shares the memory.
    #[must_use]
    pub fn message(&self) -> Bytes {
        self.bytes.slice(GRPC_PREFIX.min(self.bytes.len())..)
    }
}

#[cfg(test)]
mod tests;
