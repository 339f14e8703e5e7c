//! The one table.

use std::fmt;
use std::time::Duration;

/// The middle one of several, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self { median: all[all.len() / 2], least: all[0], most: all[all.len() - 1] }
    }
}

/// What a row is to come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Told, not demanded.
    None,
}

/// What a row's figure is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// How many times as fast, or as dear.
    Times,
    Mib,
    Millis,
    Nanos,
    Count,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) figure: Spread,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    /// What was measured to get there.
    pub(crate) from: String,
}

impl Row {
    /// Something of ours beside something of others', both timed `rounds` times, in turn: how many times as fast ours is.
    pub(crate) fn speed(
        what: &str,
        goal: Goal,
        rounds: usize,
        mut ours: impl FnMut() -> Duration,
        mut theirs: impl FnMut() -> Duration,
    ) -> Self {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // in turns, each first as often as the other
            if round % 2 == 0 {
                a.push(ours());
                b.push(theirs());
            } else {
                b.push(theirs());
                a.push(ours());
            }
        }
        let ratios = a.iter().zip(&b).map(|(a, b)| b.as_secs_f64() / a.as_secs_f64()).collect();
        let millis = |all: &[Duration]| Spread::of(all.iter().map(|d| d.as_secs_f64() * 1e3).collect()).median;
        let from = format!("{:.0} ms beside {:.0} ms", millis(&a), millis(&b));
        Self { what: what.to_owned(), figure: Spread::of(ratios), unit: Unit::Times, goal, from }
    }

    fn verdict(&self) -> &'static str {
        let met = match self.goal {
            Goal::AtLeast(goal) => self.figure.median >= goal,
            Goal::AtMost(goal) => self.figure.median <= goal,
            Goal::None => return "",
        };
        if met { "met" } else { "BELOW" }
    }
}

impl Unit {
    fn show(self, x: f64) -> String {
        match self {
            Self::Times => format!("{x:.2}×"),
            Self::Mib => format!("{x:.1} MiB"),
            Self::Millis => format!("{x:.0} ms"),
            Self::Nanos => format!("{x:.0} ns"),
            Self::Count => format!("{x:.0}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match self.goal {
            Goal::AtLeast(x) => format!("≥ {}", self.unit.show(x)),
            Goal::AtMost(x) => format!("≤ {}", self.unit.show(x)),
            Goal::None => String::new(),
        };
        let Spread { median, least, most } = self.figure;
        let range = if least < most { format!("{} … {}", self.unit.show(least), self.unit.show(most)) } else { String::new() };
        let median = self.unit.show(median);
        write!(f, "{:<58} {median:>10} {goal:>12} {:<6} {range:<20} {}", self.what, self.verdict(), self.from)
    }
}

/// The heads of the columns.
pub(crate) fn head() -> String {
    format!("{:<58} {:>10} {:>12} {:<6} {:<20} {}", "what", "median", "goal", "", "least … most", "measured")
}
