//! How long to wait before the next attempt. Pure: randomness comes from a seed, time is the caller's.

use std::time::Duration;

/// Longest first wait; with jitter it is 45 to 90 ms.
const FIRST: Duration = Duration::from_millis(90);
/// Longest wait.
const MAX: Duration = Duration::from_secs(30);

/// Doubles from at most 90 ms to at most 30 s; each wait is drawn from the upper half, so that many hunters cut off at once do
/// not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    ceiling: Duration,
    random: u64,
}

impl Backoff {
    /// Starts at the shortest wait; hunters need different seeds.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // xorshift must not start at 0.
        Self { ceiling: FIRST, random: seed | 1 }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let half = self.ceiling / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        self.ceiling = self.ceiling.saturating_mul(2).min(MAX);
        half.saturating_add(Duration::from_micros(self.random().checked_rem(spread).unwrap_or(0)))
    }

    /// An attempt succeeded: the next wait is the shortest again.
    pub const fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// A number that differs from hunter to hunter: xorshift64 (Marsaglia, 2003).
    pub const fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_is_below_100_ms_and_no_wait_exceeds_30_s() {
        for seed in 0..1000 {
            let mut backoff = Backoff::new(seed);
            let waits: Vec<_> = (0..20).map(|_| backoff.wait()).collect();

            assert!(waits[0] < Duration::from_millis(100) && waits[0] >= Duration::from_millis(45));
            assert!(waits.iter().all(|w| *w <= MAX) && waits[19] >= MAX / 2);
            backoff.reset();
            assert!(backoff.wait() < Duration::from_millis(100));
        }
    }

    #[test]
    fn different_seeds_wait_differently() {
        let mut firsts: Vec<_> = (0..100).map(|seed| Backoff::new(seed << 8).wait()).collect();
        firsts.sort_unstable();
        firsts.dedup();

        assert!(firsts.len() > 90);
    }
}
