//! Leaves a processor alone that fails again and again. Pure: time and randomness are arguments.
//!
//! ```text
//!            5 failures in a row            30 s
//!   closed ─────────────────────▶ open ─────────────▶ half-open ─ 3 attempts failed ─▶ open
//!      ▲                                                  │
//!      └───────────────── an attempt succeeded ───────────┘
//! ```
//! An open breaker says where not to try, never to stop trying: with several processors the others are tried meanwhile, with one the hunter waits
//! and holds, for ever if need be. A reader of files, whose patience is bounded anyway, is not held up by it.

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
        if self.state == BreakerState::Open || self.failures < most {
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

/// Processors in order of preference, each with its breaker.
#[derive(Clone, Debug)]
pub(super) struct Roads {
    breakers: Vec<Breaker>,
    /// Where the next choice begins.
    next: usize,
    /// Breakers are not asked.
    ignored: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Try this one.
    Try(usize),
    /// Wait until then.
    Wait(Instant),
}

impl Roads {
    pub(super) fn new(processors: usize, ignored: bool) -> Self {
        Self { breakers: vec![Breaker::default(); processors], next: 0, ignored }
    }

    /// From here on breakers are not asked: there is no later to wait for.
    pub(super) fn ignore(&mut self) {
        self.ignored = true;
    }

    /// The next processor in turn that may be tried.
    pub(super) fn choose(&mut self, now: Instant) -> Choice {
        let all = self.breakers.len();
        let mut soonest = None;
        for n in (self.next..all).chain(0..self.next.min(all)) {
            match self.breakers.get(n).and_then(|b| b.ready_at(now)).filter(|_| !self.ignored) {
                None => {
                    self.next = n.saturating_add(1);
                    return Choice::Try(n);
                }
                Some(at) => soonest = Some(soonest.map_or(at, |s: Instant| s.min(at))),
            }
        }
        Choice::Wait(soonest.unwrap_or(now))
    }

    pub(super) fn breaker(&mut self, n: usize) -> Option<&mut Breaker> {
        self.breakers.get_mut(n)
    }

    pub(super) fn states(&self) -> Vec<BreakerState> {
        self.breakers.iter().map(Breaker::state).collect()
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

    #[test]
    fn the_others_are_tried_while_one_is_left_alone_and_when_all_are_it_waits_for_the_first() {
        let start = Instant::now();
        let mut roads = Roads::new(3, false);
        let fail = |roads: &mut Roads, n: usize, at| (0..5).for_each(|_| _ = roads.breaker(n).unwrap().failed(at, 0));
        fail(&mut roads, 1, start);

        let tried: Vec<Choice> = (0..4).map(|_| roads.choose(start)).collect();
        assert_eq!(tried, [Choice::Try(0), Choice::Try(2), Choice::Try(0), Choice::Try(2)]);
        fail(&mut roads, 0, start + secs(1));
        fail(&mut roads, 2, start + secs(2));
        assert_eq!(roads.choose(start + secs(3)), Choice::Wait(start + secs(30)));
        assert_eq!(roads.choose(start + secs(30)), Choice::Try(1));
        assert_eq!(roads.states(), [BreakerState::Open; 3], "until the attempt");
    }

    #[test]
    fn who_reads_files_is_not_held_up() {
        let start = Instant::now();
        let mut roads = Roads::new(1, true);
        (0..5).for_each(|_| _ = roads.breaker(0).unwrap().failed(start, 0));

        assert_eq!(roads.choose(start), Choice::Try(0));
    }
}
