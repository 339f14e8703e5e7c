//! `--speed`: when a frame of a file is due. Pure arithmetic; the caller reads its clock and sleeps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::packet::Timestamp;

/// The longest pause kept between two frames, in packet time; a longer gap in a file is shortened to it and counted.
/// The same bound as decision 18 sets for forward jumps of packet time.
pub const MAX_PAUSE: Duration = Duration::from_mins(1);

/// How fast a file is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it is taken.
    #[default]
    Max,
    /// This many thousandths of the speed it was captured at.
    Times(u32),
}

/// A `--speed` that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a speed; write 'max', or a factor from 0.001x to 1000x such as '1x'")]
pub struct UnknownSpeed(String);

impl FromStr for Speed {
    type Err = UnknownSpeed;

    fn from_str(s: &str) -> Result<Self, UnknownSpeed> {
        if s == "max" {
            return Ok(Self::Max);
        }
        let unknown = || UnknownSpeed(s.to_owned());
        let factor = s.strip_suffix('x').ok_or_else(unknown)?;
        let (whole, fraction) = factor.split_once('.').unwrap_or((factor, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 4 || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
            return Err(unknown());
        }
        let whole: u32 = whole.parse().map_err(|_| unknown())?;
        let thousandths: u32 = format!("{fraction:0<3}").parse().map_err(|_| unknown())?;
        match whole.saturating_mul(1000).saturating_add(thousandths) {
            n @ 1..=1_000_000 => Ok(Self::Times(n)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Max => f.write_str("max"),
            Self::Times(n) => {
                let text = format!("{}.{:03}", n / 1000, n % 1000);
                write!(f, "{}x", text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

/// Keeps a replay in step with a clock.
#[derive(Clone, Debug)]
pub struct Pace {
    speed: Speed,
    /// The latest packet time seen, and when it was due.
    at: Option<(Timestamp, Duration)>,
    shortened: u64,
}

impl Pace {
    /// Before the first frame.
    pub fn new(speed: Speed) -> Self {
        Self { speed, at: None, shortened: 0 }
    }

    /// When the frame stamped `ts` is due, on the caller's monotonic clock, now at `now`. The first frame is due now;
    /// a frame stamped earlier than its predecessor is due with it; a replay that fell behind does not slow down.
    /// Call once per frame (or per run of frames that are handed over together), in order.
    pub fn due(&mut self, ts: Timestamp, now: Duration) -> Duration {
        let Speed::Times(thousandths) = self.speed else { return now };
        let (before, due_before) = *self.at.get_or_insert((ts, now));
        if ts <= before {
            return due_before;
        }
        let mut gap = ts.since(before);
        if gap > MAX_PAUSE {
            gap = MAX_PAUSE;
            self.shortened = self.shortened.saturating_add(1);
        }
        let nanos = gap.as_nanos().saturating_mul(1000).checked_div(u128::from(thousandths)).unwrap_or(0);
        let due = due_before.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        self.at = Some((ts, due));
        due
    }

    /// Whether frames are handed over as fast as they are taken.
    pub fn is_max(&self) -> bool {
        self.speed == Speed::Max
    }

    /// Pauses that were shortened to [`MAX_PAUSE`].
    pub fn shortened(&self) -> u64 {
        self.shortened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn at(n: i64) -> Timestamp {
        Timestamp::from_secs_nanos(n, 0)
    }

    #[test]
    fn keeps_the_gaps_of_the_file_at_1x_and_halves_them_at_2x() {
        for (speed, expected) in [("1x", 105), ("2.0x", 102)] {
            let mut pace = Pace::new(speed.parse().unwrap());

            assert_eq!(pace.due(at(1000), secs(100)), secs(100));
            let due = pace.due(at(1005), secs(100));

            assert_eq!(due.as_secs(), expected, "{speed}");
        }
    }

    #[test]
    fn a_frame_stamped_in_the_past_is_due_at_once_and_does_not_move_the_scale() {
        let mut pace = Pace::new(Speed::Times(1000));
        pace.due(at(10), secs(0));
        pace.due(at(12), secs(0));

        assert_eq!(pace.due(at(11), secs(2)), secs(2));
        assert_eq!(pace.due(at(13), secs(2)), secs(3));
    }

    #[test]
    fn a_gap_beyond_a_minute_is_shortened_and_counted() {
        let mut pace = Pace::new(Speed::Times(1000));
        pace.due(at(0), secs(0));

        assert_eq!(pace.due(at(86_400), secs(0)), secs(60));
        assert_eq!(pace.due(at(86_401), secs(60)), secs(61));
        assert_eq!(pace.shortened(), 1);
    }

    #[test]
    fn extreme_times_and_speeds_do_not_overflow() {
        let mut pace = Pace::new("0.001x".parse().unwrap());
        pace.due(Timestamp::MIN, Duration::MAX);

        assert_eq!(pace.due(Timestamp::from_nanos(i64::MAX), secs(0)), Duration::MAX);
    }

    #[test]
    fn max_is_always_now() {
        let mut pace = Pace::new(Speed::Max);

        assert_eq!(pace.due(at(5), secs(1)), secs(1));
        assert_eq!(pace.due(at(500), secs(2)), secs(2));
    }

    #[test]
    fn speeds_are_written_as_they_are_read() {
        for text in ["max", "1x", "0.5x", "10x", "0.001x", "1000x"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for text in ["", "x", "0x", "1", "-1x", "1.x.x", "0.0001x", "1001x", "1e3x", "MAX", ".5x"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
