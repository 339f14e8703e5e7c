//! How much a backlog may hold, and how much of it may be in flight.

use super::Durability;

/// What to do with a batch that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Give up the oldest batch that was never sent (live capture).
    #[default]
    DropOldest,
    /// Hand it back, so that the reader waits (files).
    Block,
}

/// How much a backlog may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogConfig {
    /// Bytes in memory, bookkeeping included; default 64 MiB.
    pub max_bytes: usize,
    /// Batches in memory; default 65 536.
    pub max_batches: usize,
    /// What then.
    pub when_full: WhenFull,
    /// Whether there is a spool; then something must run a [`crate::uplink::Spooler`].
    pub durability: Durability,
    /// Batches of several hunters, acknowledged by their own keys ([`super::Backlog::ack_key`]); the queue's epochs and sequences are its own.
    pub relays: bool,
}

impl Default for BacklogConfig {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_batches: 65_536,
            when_full: WhenFull::DropOldest,
            durability: Durability::Memory,
            relays: false,
        }
    }
}

/// How much may be in flight; at least one batch always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Unacknowledged batches; default 256.
    pub batches: u32,
    /// Unacknowledged bytes; default 16 MiB.
    pub bytes: u64,
}

impl Default for Credit {
    fn default() -> Self {
        Self { batches: 256, bytes: 16 << 20 }
    }
}
