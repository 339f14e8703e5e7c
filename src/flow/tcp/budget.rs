//! One account of reassembly memory for every direction of every engine, and the counts of what was given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The account; clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    max_bytes: usize,
    used: AtomicUsize,
    given_up: AtomicU64,
    refused_bytes: AtomicU64,
    discarded_bytes: AtomicU64,
    missing_bytes: AtomicU64,
    conflicts: AtomicU64,
    restarts: AtomicU64,
}

/// What reassembly has given up so far, over all directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Directions that stopped because the account was empty or their own limit was reached by bytes nobody read.
    pub given_up: u64,
    /// Payload bytes not taken: outside the window, or one hole too many.
    pub refused_bytes: u64,
    /// Bytes taken and then dropped unread: on giving up, on a restart, before a skipped gap.
    pub discarded_bytes: u64,
    /// Bytes that never came: the gaps skipped.
    pub missing_bytes: u64,
    /// Segments that disagreed with bytes received before them.
    pub conflicts: u64,
    /// Directions that began again at another sequence number.
    pub restarts: u64,
}

/// An event for one of the counters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    GivenUp,
    Refused(usize),
    Discarded(usize),
    Missing(u64),
    Conflict,
    Restart,
}

impl Budget {
    /// 128 MiB: about 100 000 directions with a SIP message of 1.3 KiB half received.
    pub const DEFAULT_MAX_BYTES: usize = 128 << 20;

    /// An account of `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Account {
            max_bytes,
            used: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            refused_bytes: AtomicU64::new(0),
            discarded_bytes: AtomicU64::new(0),
            missing_bytes: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }))
    }

    /// Bytes held by all directions, allocation overhead included.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn max_bytes(&self) -> usize {
        self.0.max_bytes
    }

    /// What was given up so far.
    pub fn counters(&self) -> TcpCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpCounters {
            given_up: read(&self.0.given_up),
            refused_bytes: read(&self.0.refused_bytes),
            discarded_bytes: read(&self.0.discarded_bytes),
            missing_bytes: read(&self.0.missing_bytes),
            conflicts: read(&self.0.conflicts),
            restarts: read(&self.0.restarts),
        }
    }

    /// Changes a direction's share from `held` to `wanted`; false, and no change, when that does not fit.
    pub(super) fn settle(&self, held: usize, wanted: usize) -> bool {
        let used = &self.0.used;
        let Some(more) = wanted.checked_sub(held) else {
            used.fetch_sub(held.saturating_sub(wanted), Ordering::Relaxed);
            return true;
        };
        let fits = |now: usize| now.checked_add(more).filter(|&sum| sum <= self.0.max_bytes);
        more == 0 || used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(super) fn count(&self, event: Count) {
        let bytes = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (counter, n) = match event {
            Count::GivenUp => (&self.0.given_up, 1),
            Count::Refused(n) => (&self.0.refused_bytes, bytes(n)),
            Count::Discarded(n) => (&self.0.discarded_bytes, bytes(n)),
            Count::Missing(n) => (&self.0.missing_bytes, n),
            Count::Conflict => (&self.0.conflicts, 1),
            Count::Restart => (&self.0.restarts, 1),
        };
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MAX_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_gives_back_and_refuses_what_does_not_fit() {
        let budget = Budget::new(100);

        assert!(budget.settle(0, 60));
        let shared = budget.clone();
        assert!(!shared.settle(0, 41));
        assert!(budget.settle(60, 100));
        assert!(budget.settle(100, 0));
        assert_eq!(budget.used(), 0);
    }
}
