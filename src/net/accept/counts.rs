//! What an acceptor did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an [`super::Acceptor`] did so far; `accepted` and the refusals together are all connections that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptCounts {
    /// Connections handed out.
    pub accepted: u64,
    /// Refused because [`super::AcceptLimits::connections`] were open.
    pub refused_full: u64,
    /// Refused because [`super::AcceptLimits::per_address`] were open from there.
    pub refused_address: u64,
    /// Refused because [`super::AcceptLimits::memory`] was in use.
    pub refused_memory: u64,
    /// Handshakes cut after [`super::AcceptLimits::handshake`].
    pub handshakes_late: u64,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
    /// Peers that did not agree on HTTP/2.
    pub not_http2: u64,
    /// Refused because the peer it names had [`super::AcceptLimits::per_identity`] open.
    pub refused_identity: u64,
    /// Cut, or refused, because the certificate was revoked.
    pub revoked: u64,
    /// Cut because the peer did not begin HTTP/2 within [`super::FIRST_WORD`].
    pub silent: u64,
    /// Cut because they went on being used long after [`super::AcceptLimits::age`].
    pub aged: u64,
    /// Connections lost before they could be used, and times the process had no descriptors or memory for one.
    pub errors: u64,
    /// Open at this moment, pending handshakes included.
    pub open: u64,
    /// Bytes that these may hold of what was sent and is not read.
    pub window_bytes: u64,
}

/// Counts of an [`super::Acceptor`], readable from anywhere while it runs.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    pub(super) accepted: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_address: AtomicU64,
    pub(super) refused_memory: AtomicU64,
    pub(super) handshakes_late: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) not_http2: AtomicU64,
    pub(super) refused_identity: AtomicU64,
    pub(super) revoked: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) aged: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) window_bytes: AtomicU64,
}

impl AcceptCounts {
    /// Connections that were refused or cut by a limit.
    pub const fn refused(&self) -> u64 {
        self.refused_full
            .saturating_add(self.refused_address)
            .saturating_add(self.refused_identity)
            .saturating_add(self.refused_memory)
            .saturating_add(self.handshakes_late)
            .saturating_add(self.handshakes_failed)
            .saturating_add(self.not_http2)
            .saturating_add(self.revoked)
            .saturating_add(self.silent)
    }
}

impl AcceptCounters {
    /// The counts of this moment.
    pub fn read(&self) -> AcceptCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AcceptCounts {
            accepted: of(&self.accepted),
            refused_full: of(&self.refused_full),
            refused_address: of(&self.refused_address),
            refused_memory: of(&self.refused_memory),
            handshakes_late: of(&self.handshakes_late),
            handshakes_failed: of(&self.handshakes_failed),
            not_http2: of(&self.not_http2),
            refused_identity: of(&self.refused_identity),
            revoked: of(&self.revoked),
            silent: of(&self.silent),
            aged: of(&self.aged),
            errors: of(&self.errors),
            open: of(&self.open),
            window_bytes: of(&self.window_bytes),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
