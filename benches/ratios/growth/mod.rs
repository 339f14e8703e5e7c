//! Whether time grows with the input and no faster: each series is one kind of hostile input at n, 2n and 4n of something, and doubling it
//! may cost 2.5 times as much, where a quadratic one costs 4.

mod frames;
mod peers;
mod texts;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::table::{Goal, Row, Spread, Unit};

/// One kind of input.
pub(crate) struct Series {
    what: &'static str,
    /// Of what there are so many at first; doubled until it takes [`LEAST`].
    n: usize,
    /// Makes the input; what it gives back is timed.
    make: fn(usize) -> Box<dyn FnMut()>,
}

/// What is shorter is not measured but doubled.
const LEAST: Duration = Duration::from_millis(1);
/// Whatever is shorter at 4n, too, has met its bound.
const DOUBLINGS: u32 = 7;
/// Differences below this are the machine's.
const NOISE: Duration = Duration::from_micros(500);
/// How many times longer a series is looked at that seems to grow too fast.
const AGAIN: usize = 10;
/// More than the caches of most machines.
const CACHES: usize = 96 << 20;
/// What something may cost more when there is twice as much of it.
const MOST: f64 = 2.5;

/// A row per series, and the worst of all.
pub(crate) fn rows(bench: &Bench, done: &mut dyn FnMut(Row)) {
    let mut worst = (0.0, "");
    let mut count = 0;
    for series in [texts::ALL, frames::ALL, peers::ALL].into_iter().flatten().filter(|series| series.is_wanted(bench)) {
        let row = series.row(bench.rounds.max(7));
        count += 1;
        if row.figure.median > worst.0 {
            worst = (row.figure.median, series.what);
        }
        done(row);
    }
    if count == 0 {
        return;
    }
    done(Row {
        what: format!("growth: the worst of {count} hostile inputs when doubled"),
        figure: Spread::of(vec![worst.0]),
        unit: Unit::Times,
        goal: Goal::AtMost(MOST),
        from: worst.1.to_owned(),
    });
}

/// No input is in the processor's caches, as those that do not fit into them are not: what is measured is the work, not where caches end.
fn forget_input() {
    static OTHER: OnceLock<Vec<u8>> = OnceLock::new();
    let other = OTHER.get_or_init(|| vec![1; CACHES]);
    std::hint::black_box(other.iter().step_by(64).map(|b| u64::from(*b)).sum::<u64>());
}

impl Series {
    /// `growth` is all of them, `growth:half-open` those with these words.
    fn is_wanted(&self, bench: &Bench) -> bool {
        let words = |wanted: &String| wanted.strip_prefix("growth:").is_some_and(|w| self.what.replace(' ', "-").contains(w));
        bench.wants("growth") || bench.wanted.iter().any(words)
    }

    /// How long it takes once; input and result are made and dropped outside of it.
    fn time(&self, n: usize) -> Duration {
        let mut work = (self.make)(n);
        forget_input();
        let start = Instant::now();
        work();
        start.elapsed()
    }

    fn row(&self, rounds: usize) -> Row {
        let mut n = self.n;
        while self.time(n) < LEAST && n < self.n << DOUBLINGS {
            n *= 2;
        }
        let sizes = [n, 2 * n, 4 * n];
        // the shortest of some, in turns: what else the machine does only ever adds, so what is too much is looked at longer
        let mut times = [Duration::MAX; 3];
        let ratios = |times: [Duration; 3]| {
            let [a, b, c] = times.map(|t| t.max(NOISE).as_secs_f64());
            [b / a, c / b]
        };
        for round in 0..rounds * AGAIN {
            if round >= rounds && ratios(times).iter().all(|ratio| *ratio <= MOST) {
                break;
            }
            for (time, n) in times.iter_mut().zip(sizes) {
                *time = self.time(n).min(*time);
            }
        }
        let [a, b, c] = times.map(|t| t.max(NOISE).as_secs_f64() * 1e3);
        Row {
            what: format!("growth: {}", self.what),
            // of two the median is the worse one
            figure: Spread::of(ratios(times).to_vec()),
            unit: Unit::Times,
            goal: Goal::AtMost(MOST),
            from: format!("{a:.1}, {b:.1}, {c:.1} ms for {}, {}, {}", sizes[0], sizes[1], sizes[2]),
        }
    }
}
