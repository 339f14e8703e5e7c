//! How much is asked of the hunters: go on, slower, not at all. Pure: time is an argument.
//!
//! | what presses | slower | not at all | over |
//! |---|---|---|---|
//! | the record queue | 70 % full for a second | 90 % full for a second | below 30 % |
//! | the commit | one took a second | one has run for 3 s | one took 250 ms or less, or 10 s have passed |
//! | the processor above | it asks for less, or the queue for it is 80 % full | that queue is 95 % full, or takes nothing | below 60 % and 80 %, and it takes |
//! | the disk | | it is full, or cannot be written | it can |
//! | memory | nine tenths of the limit | | below eight |
//!
//! The worst of them counts: an idle queue does not hide a full disk. Whoever only asks or watches presses nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::Histogram;

/// A queue this full, in percent, for [`SUSTAINED`].
const QUEUE_SLOW: usize = 70;
const QUEUE_PAUSE: usize = 90;
/// Below this it is not pressed.
const QUEUE_CLEAR: usize = 30;
/// A burst that is over sooner needs no answer: the queue is there for it.
const SUSTAINED: Duration = Duration::from_secs(1);
/// A commit that took this long.
const COMMIT_SLOW: Duration = Duration::from_secs(1);
/// A commit that has run for this long.
const COMMIT_PAUSE: Duration = Duration::from_secs(3);
/// A commit that is no trouble.
const COMMIT_CLEAR: Duration = Duration::from_millis(250);
/// The queue for the processor above, in percent of its bytes: when it presses, and when no longer.
const ABOVE_SLOW: (u64, u64) = (80, 60);
const ABOVE_PAUSE: (u64, u64) = (95, 80);
/// Trouble is forgotten after this: slower hunters may not cause another commit.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// What is asked of the hunters, in order of severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Continue,
    /// Fewer, longer batches.
    Slow,
    /// Silence.
    Pause,
}

impl Level {
    /// Every name, in the order of the enum.
    pub const NAMES: [&'static str; 3] = ["continue", "slow", "pause"];

    /// The label in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Slow => "slow",
            Self::Pause => "pause",
        }
    }
}

/// What presses, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    queue: Level,
    /// Since when the queue is above each mark.
    above_slow: Option<Instant>,
    above_pause: Option<Instant>,
    commit_began: Option<Instant>,
    /// When a commit was last slow.
    commit_slow: Option<Instant>,
    disk_full: bool,
    /// The road to the processor above.
    upstream: Level,
    memory_short: bool,
    /// How long commits took.
    commits: Histogram,
}

impl Gauge {
    /// Looks at the queue.
    pub fn queue(&mut self, now: Instant, waiting: usize, room: usize) {
        let percent = waiting.saturating_mul(100).checked_div(room).unwrap_or(0);
        let since = |mark, before: Option<Instant>| (percent >= mark).then(|| before.unwrap_or(now));
        self.above_slow = since(QUEUE_SLOW, self.above_slow);
        self.above_pause = since(QUEUE_PAUSE, self.above_pause);
        let lasts = |since: Option<Instant>| since.is_some_and(|at| now.saturating_duration_since(at) >= SUSTAINED);
        if percent < QUEUE_CLEAR {
            self.queue = Level::Continue;
        } else if lasts(self.above_pause) {
            self.queue = Level::Pause;
        } else if lasts(self.above_slow) {
            self.queue = self.queue.max(Level::Slow);
        }
    }

    /// A commit begins.
    pub const fn commit_begins(&mut self, now: Instant) {
        self.commit_began = Some(now);
    }

    /// It is done; what was written can be acknowledged.
    pub fn commit_ends(&mut self, now: Instant) {
        let Some(began) = self.commit_began.take() else { return };
        let took = now.saturating_duration_since(began);
        self.commits.take(took);
        if took >= COMMIT_SLOW {
            self.commit_slow = Some(now);
        } else if took <= COMMIT_CLEAR {
            self.commit_slow = None;
        }
    }

    /// Memory is short, or no longer.
    pub const fn memory(&mut self, short: bool) {
        self.memory_short = short;
    }

    /// The disk takes nothing, or does again.
    pub const fn disk(&mut self, full: bool) {
        self.disk_full = full;
    }

    /// Looks at the road to the processor above: how full its queue is, whether it takes nothing more, whether less is asked for.
    pub fn upstream(&mut self, percent: u64, blocked: bool, asked: bool) {
        let over = |(begins, ends): (u64, u64), is: bool| percent >= if is { ends } else { begins };
        self.upstream = if blocked || over(ABOVE_PAUSE, self.upstream == Level::Pause) {
            Level::Pause
        } else if asked || over(ABOVE_SLOW, self.upstream >= Level::Slow) {
            Level::Slow
        } else {
            Level::Continue
        };
    }

    /// Whether the disk takes what is written.
    pub const fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// How long commits took.
    pub const fn commits(&self) -> Histogram {
        self.commits
    }

    /// The worst of all.
    pub fn level(&self, now: Instant) -> Level {
        let running = self.commit_began.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let slow = self.commit_slow.is_some_and(|at| now.saturating_duration_since(at) < FORGOTTEN);
        let commit = if running >= COMMIT_PAUSE {
            Level::Pause
        } else if slow || running >= COMMIT_SLOW {
            Level::Slow
        } else {
            Level::Continue
        };
        let disk = if self.disk_full { Level::Pause } else { Level::Continue };
        // slower, not silent: what frees memory is that batches are written
        let memory = if self.memory_short { Level::Slow } else { Level::Continue };
        self.queue.max(commit).max(disk).max(self.upstream).max(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_queue_that_stays_full_slows_then_pauses_and_a_burst_does_neither() {
        let start = Instant::now();
        let mut g = Gauge::default();
        let mut at = |t: u64, waiting: usize| {
            g.queue(start + ms(t), waiting, 100);
            g.level(start + ms(t))
        };

        assert_eq!([at(0, 100), at(900, 100), at(950, 60), at(1000, 95), at(1900, 95)], [Level::Continue; 5], "bursts");
        assert_eq!([at(2000, 89), at(2100, 95)], [Level::Slow, Level::Slow]);
        assert_eq!([at(3000, 91), at(3100, 91)], [Level::Slow, Level::Pause]);
        assert_eq!([at(3200, 50), at(9000, 31)], [Level::Pause, Level::Pause], "until it is over");
        assert_eq!(at(9001, 29), Level::Continue);
    }

    #[test]
    fn a_slow_commit_slows_one_that_does_not_end_pauses_and_neither_for_ever() {
        let start = Instant::now();
        let mut g = Gauge::default();
        g.commit_begins(start);
        let running = [0, 999, 1000, 2999, 3000].map(|t| g.level(start + ms(t)));
        g.commit_ends(start + ms(3500));
        let after = [3500, 13_499, 13_500].map(|t| g.level(start + ms(t)));
        g.commit_begins(start + ms(4000));
        g.commit_ends(start + ms(4250));

        assert_eq!(running, [Level::Continue, Level::Continue, Level::Slow, Level::Slow, Level::Pause]);
        assert_eq!(after, [Level::Slow, Level::Slow, Level::Continue]);
        assert_eq!(g.level(start + ms(4250)), Level::Continue, "a quick one is enough");
        assert_eq!((g.commits().count(), g.commits().total()), (2, ms(3750)));
    }

    /// The predecessor never tells its hunters of a processor above that is behind.
    #[test]
    fn the_processor_above_presses_and_a_queue_at_its_mark_does_not_flutter() {
        let now = Instant::now();
        let mut g = Gauge::default();
        let mut at = |percent, blocked, asked| {
            g.upstream(percent, blocked, asked);
            g.queue(now, 0, 256);
            g.level(now)
        };

        assert_eq!(
            [at(79, false, false), at(0, false, true), at(0, false, false)],
            [Level::Continue, Level::Slow, Level::Continue]
        );
        assert_eq!(
            [at(80, false, false), at(60, false, false), at(59, false, false)],
            [Level::Slow, Level::Slow, Level::Continue]
        );
        assert_eq!([at(95, false, false), at(80, false, false), at(79, false, false)], [Level::Pause, Level::Pause, Level::Slow]);
        assert_eq!([at(10, true, false), at(10, false, false)], [Level::Pause, Level::Continue], "full for want of disk space");
    }

    /// The predecessor compares severities as numbers in which "resume" is the largest: an idle queue hides everything else.
    #[test]
    fn an_idle_queue_hides_neither_a_full_disk_nor_a_slow_commit() {
        let now = Instant::now();
        let mut g = Gauge::default();
        g.disk(true);
        g.queue(now, 0, 256);
        assert_eq!(g.level(now), Level::Pause);

        g.disk(false);
        g.memory(true);
        assert_eq!(g.level(now), Level::Slow, "nor that memory is short");
        g.memory(false);
        assert_eq!(g.level(now), Level::Continue);
        g.commit_begins(now);
        g.commit_ends(now + ms(1500));
        g.queue(now + ms(1600), 0, 256);
        assert_eq!(g.level(now + ms(1600)), Level::Slow);
        assert!(Level::Continue < Level::Slow && Level::Slow < Level::Pause);
    }
}
