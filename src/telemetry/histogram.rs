//! How long something took, counted by size.

use std::time::Duration;

/// Upper bounds of the buckets, in milliseconds; a last one takes the rest.
const BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 30_000];

/// Durations by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS_MS.len() + 1],
    micros: u64,
}

impl Histogram {
    /// Takes one.
    pub fn take(&mut self, d: Duration) {
        self.take_many(d, 1);
    }

    /// Takes `n` alike.
    pub fn take_many(&mut self, d: Duration, n: u64) {
        let micros = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_MS.iter().position(|ms| micros <= ms.saturating_mul(1000)).unwrap_or(BOUNDS_MS.len());
        self.buckets.get_mut(at).into_iter().for_each(|b| *b = b.saturating_add(n));
        self.micros = self.micros.saturating_add(micros.saturating_mul(n));
    }

    /// How many there were up to each bound, in milliseconds.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut sum = 0_u64;
        BOUNDS_MS.iter().zip(&self.buckets).map(move |(ms, n)| {
            sum = sum.saturating_add(*n);
            (*ms, sum)
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// How long all of them took.
    pub const fn total(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_takes_what_is_not_longer() {
        let mut h = Histogram::default();
        for ms in [0, 1, 2, 500, 501, 31_000, 99_000] {
            h.take(Duration::from_millis(ms));
        }

        let up_to: Vec<(u64, u64)> = h.cumulative().filter(|(ms, _)| [1, 2, 500, 1000, 30_000].contains(ms)).collect();
        assert_eq!(up_to, [(1, 2), (2, 3), (500, 4), (1000, 5), (30_000, 5)]);
        assert_eq!((h.count(), h.total()), (7, Duration::from_millis(131_004)));
    }
}
