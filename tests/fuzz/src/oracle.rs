//! Time out of proportion: an input that takes more than a millisecond and, per byte, fifty times as long as inputs do as a rule; where most
//! are refused at once, ten times as long as the first hundred do, which begin with the corpus.

use std::time::Duration;

/// Inputs that are remembered, and those that are needed before any is judged.
const REMEMBERED: usize = 1000;
/// What is shorter is never too long.
const LEAST: Duration = Duration::from_millis(1);
/// How many times the median is too long.
const FACTOR: f64 = 50.0;
/// How many times the slowest of the first ones is.
const FACTOR_OF_FIRST: f64 = 10.0;
const FIRST: usize = 100;
/// A shorter input counts as one of so many bytes: what is done once for each would make the shortest the slowest.
const SHORT: usize = 1000;
/// Times an input is tried again: only the shortest counts, since the machine has other things to do, too.
const AGAIN: u32 = 50;

/// What inputs take as a rule.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Nanoseconds per byte of the last ones, beyond what no input takes less than.
    rates: Vec<f64>,
    next: usize,
    /// The highest rate of the first ones.
    slowest: f64,
    floor: Option<Duration>,
}

impl Oracle {
    /// Runs an input of so many bytes by `clock`; what is wrong with the time it took.
    pub(crate) fn judge(&mut self, bytes: usize, clock: impl Fn() -> Duration, mut run: impl FnMut()) -> Option<String> {
        let mut time = || {
            let start = clock();
            run();
            clock().saturating_sub(start)
        };
        let mut took = time();
        let floor = self.floor.map_or(took, |floor| floor.min(took));
        self.floor = Some(floor);
        let rate = |took: Duration| {
            took.saturating_sub(floor).as_secs_f64() * 1e9 / f64::from(u32::try_from(bytes.max(SHORT)).unwrap_or(u32::MAX))
        };
        if self.rates.len() == REMEMBERED && took > LEAST {
            let mut sorted = self.rates.clone();
            sorted.sort_by(f64::total_cmp);
            let most = (FACTOR * sorted[REMEMBERED / 2]).max(FACTOR_OF_FIRST * self.slowest).max(FACTOR);
            for _ in 0..AGAIN {
                if took <= LEAST || rate(took) <= most {
                    break;
                }
                took = took.min(time());
            }
            if took > LEAST && rate(took) > most {
                return Some(format!(
                    "{took:?} for {bytes} bytes: {:.0} ns a byte, where {most:.0} would be too much",
                    rate(took)
                ));
            }
        }
        if self.rates.len() < FIRST {
            self.slowest = self.slowest.max(rate(took));
        }
        if self.rates.len() < REMEMBERED {
            self.rates.push(rate(took));
        } else {
            self.rates[self.next % REMEMBERED] = rate(took);
            self.next += 1;
        }
        None
    }
}
