//! How often something was read again while the process runs: certificates, keys, filters, the log level.

use std::sync::atomic::{AtomicU64, Ordering};

/// This process's.
pub(crate) static RELOADS: Reloads = Reloads::new();

/// Counts by how it went.
#[derive(Debug)]
pub(crate) struct Reloads {
    good: AtomicU64,
    bad: AtomicU64,
}

impl Reloads {
    const fn new() -> Self {
        Self { good: AtomicU64::new(0), bad: AtomicU64::new(0) }
    }

    /// Something new is in force.
    pub(crate) fn succeeded(&self) {
        self.good.fetch_add(1, Ordering::Relaxed);
    }

    /// Something could not be used; what was in force stays.
    pub(crate) fn failed(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Both so far, with their labels.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("success", self.good.load(Ordering::Relaxed)), ("failure", self.bad.load(Ordering::Relaxed))]
    }
}
