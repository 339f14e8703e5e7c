//! The figures of a backlog.

use super::PeerKind;
use crate::reason::DropReason;
use crate::telemetry::Histogram;

/// All figures at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BacklogSnapshot {
    /// Packets ever offered.
    pub offered_packets: u64,
    /// Packets that an earlier process left on disk.
    pub recovered_packets: u64,
    /// Packets acknowledged.
    pub acked_packets: u64,
    /// Batches acknowledged.
    pub acked_batches: u64,
    /// Packets in memory.
    pub in_memory_packets: u64,
    /// Bytes in memory, as bounded.
    pub in_memory_bytes: u64,
    /// Batches in memory.
    pub in_memory_batches: u64,
    /// Batches that are to be written to disk.
    pub staged_batches: u64,
    /// Packets on disk and not in memory.
    pub on_disk_packets: u64,
    /// Batches on disk and not in memory.
    pub on_disk_batches: u64,
    /// When the oldest part of the spool was made, ns since 1970; 0 when it is empty.
    pub oldest_ns: i64,
    /// Bytes the spool takes on disk.
    pub spool_bytes: u64,
    /// Errors of the spool's file system.
    pub spool_errors: u64,
    /// Batches in flight on the present connection.
    pub in_flight_batches: u64,
    /// Batches put on the wire, repetitions included.
    pub sent_batches: u64,
    /// Repetitions after a reconnect.
    pub resent_batches: u64,
    /// Packets given up, by [`DropReason::index`].
    pub dropped_packets: [u64; DropReason::ALL.len()],
    /// From sending to acknowledgement, per batch.
    pub ack_latency: Histogram,
    /// Acknowledgements of batches that were never sent.
    pub bad_acks: u64,
    /// The bound on bytes.
    pub max_bytes: u64,
    /// Whether there is a connection.
    pub connected: bool,
    /// What an acknowledgement means: of the present connection, or the last.
    pub peer: PeerKind,
    /// Whether the peer asked for silence.
    pub paused: bool,
    /// Whether the peer asked for fewer, longer batches.
    pub slow: bool,
}

impl BacklogSnapshot {
    /// Packets given up, all reasons.
    pub fn dropped(&self) -> u64 {
        self.dropped_packets.iter().sum()
    }
}
