//! How much a counter grew lately: in the last second, minute and hour. A total hides bursts.
//!
//! ```text
//! tick, once a second ─▶ 61 totals, one a second ─▶ last second, last minute
//!                    └─▶ 61 totals, one a minute ─▶ last hour, to the minute
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Totals kept of each kind: one more than the differences told.
const KEPT: usize = 61;

/// So much in the last second, minute and hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// In the last second.
    pub second: u64,
    /// In the last minute.
    pub minute: u64,
    /// In the last hour, or since the start.
    pub hour: u64,
}

impl Recent {
    /// The windows and their names.
    pub const fn each(self) -> [(&'static str, u64); 3] {
        [("1s", self.second), ("1m", self.minute), ("1h", self.hour)]
    }
}

impl fmt::Display for Recent {
    /// `1s=0 1m=3 1h=70`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1s={} 1m={} 1h={}", self.second, self.minute, self.hour)
    }
}

/// The totals of `N` counters that only grow, as they were.
#[derive(Clone, Debug)]
pub struct Windows<const N: usize> {
    start: Instant,
    ticked: Instant,
    seconds: VecDeque<(u64, [u64; N])>,
    minutes: VecDeque<(u64, [u64; N])>,
}

impl<const N: usize> Default for Windows<N> {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl<const N: usize> Windows<N> {
    /// All counters are 0 at the start.
    pub fn new(start: Instant) -> Self {
        let first = || VecDeque::from([(0, [0; N])]);
        Self { start, ticked: start, seconds: first(), minutes: first() }
    }

    /// Notes the totals of this moment; once a second.
    pub fn tick(&mut self, now: Instant, totals: [u64; N]) {
        self.ticked = now;
        let age = now.saturating_duration_since(self.start);
        // rounded: ticks of a timer come a little late, or a little early after one that came late
        let second = age.saturating_add(Duration::from_millis(500)).as_secs();
        keep(&mut self.seconds, second, totals);
        let minute = second / 60;
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            keep(&mut self.minutes, minute, totals);
        }
    }

    /// When that was last done.
    pub const fn ticked(&self) -> Instant {
        self.ticked
    }

    /// How much each counter had grown at the last tick.
    pub fn recent(&self) -> [Recent; N] {
        let Some((now, totals)) = self.seconds.back() else { return [Recent::default(); N] };
        let second = before(&self.seconds, now.saturating_sub(1));
        let minute = before(&self.seconds, now.saturating_sub(60));
        let hour = before(&self.minutes, (now / 60).saturating_sub(60));
        std::array::from_fn(|n| {
            let of = |all: &[u64; N]| all.get(n).copied().unwrap_or(0);
            let grown = |then: &[u64; N]| of(totals).saturating_sub(of(then));
            Recent { second: grown(second), minute: grown(minute), hour: grown(hour) }
        })
    }

    /// The sum over all counters.
    pub fn together(&self) -> Recent {
        self.recent().into_iter().fold(Recent::default(), |sum, r| Recent {
            second: sum.second.saturating_add(r.second),
            minute: sum.minute.saturating_add(r.minute),
            hour: sum.hour.saturating_add(r.hour),
        })
    }
}

fn keep<const N: usize>(kept: &mut VecDeque<(u64, [u64; N])>, at: u64, totals: [u64; N]) {
    match kept.back_mut() {
        Some(last) if last.0 >= at => last.1 = totals,
        _ => kept.push_back((at, totals)),
    }
    while kept.len() > KEPT {
        kept.pop_front();
    }
}

/// The newest totals of then or earlier, or the oldest there are.
fn before<const N: usize>(kept: &VecDeque<(u64, [u64; N])>, then: u64) -> &[u64; N] {
    let found = kept.iter().rev().find(|(at, _)| *at <= then).or_else(|| kept.front());
    found.map_or(&[0; N], |(_, totals)| totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_in_the_second_then_in_the_minute_then_in_the_hour_then_in_none() {
        let start = Instant::now();
        let mut windows = Windows::new(start);
        let mut seen = Vec::new();
        for second in 1..=7300_u64 {
            let total = if second >= 100 { 1000 } else { 0 };
            windows.tick(start + Duration::from_secs(second), [total, 5]);
            if [99, 100, 101, 159, 160, 3600, 3720].contains(&second) {
                let r = windows.recent()[0];
                seen.push((second, r.second, r.minute, r.hour));
            }
        }

        let full = [(100, 1000, 1000, 1000), (101, 0, 1000, 1000), (159, 0, 1000, 1000), (160, 0, 0, 1000)];
        assert_eq!(seen, [&[(99, 0, 0, 0)], &full[..], &[(3600, 0, 0, 1000), (3720, 0, 0, 0)]].concat());
        assert_eq!(windows.recent()[1], Recent { second: 0, minute: 0, hour: 0 });
    }

    #[test]
    fn late_and_missing_ticks_lose_nothing() {
        let start = Instant::now();
        let mut windows = Windows::new(start);
        let mut at = |ms: u64, total: u64| {
            windows.tick(start + Duration::from_millis(ms), [total]);
            windows.together()
        };

        assert_eq!(at(1010, 3).second, 3);
        assert_eq!(at(1990, 5).second, 2);
        let late = at(9000, 12);
        assert_eq!((late.second, late.minute, late.to_string()), (7, 12, "1s=7 1m=12 1h=12".to_owned()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let start = Instant::now();
        let mut windows = Windows::new(start);
        for second in 0..20_000 {
            windows.tick(start + Duration::from_secs(second), [second]);
        }

        assert_eq!((windows.seconds.len(), windows.minutes.len()), (KEPT, KEPT));
        let r = windows.together();
        assert_eq!((r.second, r.minute), (1, 60));
        assert!((3600..3660).contains(&r.hour), "{r}");
    }
}
