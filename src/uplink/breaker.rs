//! Leaves a processor alone that fails again and again. Pure: time and randomness are arguments.
//!
//! ```text
//!            5 failures in a row            30 s
//!   closed ─────────────────────▶ open ─────────────▶ half-open ─ 3 attempts failed ─▶ open
//!      ▲                                                  │
//!      └───────────────── an attempt succeeded ───────────┘
//! ```
//! An open breaker says where not to try, never to stop trying: with several processors the others are tried meanwhile, with one the hunter waits
//! and holds, for ever if need be (`addresses`).

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
pub(super) const FAILURES: u32 = 5;
/// How long it stays open, at least; a tenth more at most, so that many hunters do not come back at once.
pub(super) const OPEN: Duration = Duration::from_secs(30);
/// Attempts let through after that.
pub(super) const PROBES: u32 = 3;

/// Whether attempts are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// All.
    #[default]
    Closed,
    /// None.
    Open,
    /// A few.
    HalfOpen,
}

impl BreakerState {
    /// Every name, in the order of the enum.
    pub const NAMES: [&'static str; 3] = ["closed", "open", "half_open"];

    /// The label in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One processor's.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    state: BreakerState,
    /// Failures in a row; since the state changed.
    failures: u32,
    /// When an open one lets attempts through again.
    until: Option<Instant>,
}

impl Breaker {
    /// How it stands.
    pub(super) const fn state(&self) -> BreakerState {
        self.state
    }

    /// When an attempt may be made; none: at once.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// An attempt is made; true when the state changes.
    pub(super) fn attempt(&mut self) -> bool {
        if self.state != BreakerState::Open {
            return false;
        }
        (self.state, self.failures, self.until) = (BreakerState::HalfOpen, 0, None);
        true
    }

    /// It failed; true when the breaker opens. `random` spreads the time it stays so.
    pub(super) fn failed(&mut self, now: Instant, random: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let most = if self.state == BreakerState::HalfOpen { PROBES } else { FAILURES };
        self.failures >= most && self.open(now, random)
    }

    /// Opens it, however few have failed; true when it was not open.
    pub(super) fn open(&mut self, now: Instant, random: u64) -> bool {
        if self.state == BreakerState::Open {
            return false;
        }
        let spread = Duration::from_millis(random % 3000);
        (self.state, self.failures, self.until) = (BreakerState::Open, 0, now.checked_add(OPEN.saturating_add(spread)));
        true
    }

    /// It succeeded; true when the breaker closes.
    pub(super) fn succeeded(&mut self) -> bool {
        let closes = self.state != BreakerState::Closed;
        *self = Self::default();
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn five_failures_open_it_for_30_s_three_more_open_it_again_and_one_success_closes_it() {
        let start = Instant::now();
        let mut b = Breaker::default();

        assert_eq!((0..5).map(|_| b.failed(start, 0)).collect::<Vec<_>>(), [false, false, false, false, true]);
        assert_eq!((b.state(), b.ready_at(start + secs(29))), (BreakerState::Open, Some(start + secs(30))));
        let later = start + secs(30);
        assert_eq!(b.ready_at(later), None);
        assert!(b.attempt() && !b.attempt());
        assert_eq!((b.state(), b.ready_at(later)), (BreakerState::HalfOpen, None));
        assert_eq!((0..3).map(|_| b.failed(later, 0)).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(b.ready_at(later + secs(1)), Some(later + secs(30)));
        assert!(b.attempt() && b.succeeded());
        assert_eq!((b.state(), b.succeeded()), (BreakerState::Closed, false));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let mut b = Breaker::default();
        for _ in 0..10 {
            assert!((0..4).all(|_| !b.failed(now, 0)));
            b.succeeded();
        }

        assert_eq!((b.state(), b.ready_at(now)), (BreakerState::Closed, None));
    }

    #[test]
    fn many_hunters_come_back_within_three_seconds_of_each_other_and_not_at_once() {
        let now = Instant::now();
        let back = |random| {
            let mut b = Breaker::default();
            (0..5).for_each(|_| _ = b.failed(now, random));
            b.ready_at(now).unwrap() - now
        };

        let mut all: Vec<Duration> = (0..100).map(|n| back(n * 7919)).collect();
        all.sort_unstable();
        all.dedup();

        assert!(all.len() > 90 && all[0] >= OPEN && all[all.len() - 1] < OPEN + secs(3), "{all:?}");
    }
}
