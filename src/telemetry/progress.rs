//! One line about long work, for a terminal: packets, rate, time left. The caller prints it, and only on a terminal.

use std::fmt;
use std::time::Duration;

/// How far a file replay has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets so far.
    pub packets: u64,
    /// Bytes of the input so far.
    pub bytes_done: u64,
    /// Bytes of the input, or 0 when unknown (stdin).
    pub bytes_total: u64,
    /// Time so far.
    pub elapsed: Duration,
}

impl Progress {
    /// Time left at the rate so far; none before anything can be said.
    pub fn left(&self) -> Option<Duration> {
        let (done, total) = (u128::from(self.bytes_done), u128::from(self.bytes_total));
        if done == 0 || total == 0 {
            return None;
        }
        let nanos = self.elapsed.as_nanos().checked_mul(total.saturating_sub(done))?.checked_div(done)?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }

    fn rate(&self) -> u64 {
        let millis = self.elapsed.as_millis().max(1);
        u64::try_from(u128::from(self.packets).saturating_mul(1000) / millis).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Progress {
    /// `1.2M packets, 340k/s, 42 %, 12s left`; at most 80 columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets, {}/s", Short(self.packets), Short(self.rate()))?;
        if let Some(percent) = u128::from(self.bytes_done).saturating_mul(100).checked_div(u128::from(self.bytes_total)) {
            write!(f, ", {} %", percent.min(100))?;
        }
        if let Some(left) = self.left() {
            let secs = left.as_secs();
            match secs {
                0..=59 => write!(f, ", {secs}s left")?,
                60..=3599 => write!(f, ", {}m{:02}s left", secs / 60, secs % 60)?,
                _ => write!(f, ", {}h{:02}m left", secs / 3600, secs % 3600 / 60)?,
            }
        }
        Ok(())
    }
}

/// A number in at most five characters.
struct Short(u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, suffix) = match self.0 {
            0..=9_999 => return write!(f, "{}", self.0),
            10_000..=999_999 => (1_000, "k"),
            1_000_000..=999_999_999 => (1_000_000, "M"),
            _ => (1_000_000_000, "G"),
        };
        let (whole, tenth) = (self.0 / unit, self.0 % unit / (unit / 10));
        if whole >= 100 { write!(f, "{whole}{suffix}") } else { write!(f, "{whole}.{tenth}{suffix}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_packets_rate_share_and_time_left() {
        let progress = Progress { packets: 1_234_567, bytes_done: 42, bytes_total: 100, elapsed: Duration::from_secs(4) };

        assert_eq!(progress.to_string(), "1.2M packets, 308k/s, 42 %, 5s left");
    }

    #[test]
    fn says_less_when_less_is_known() {
        let start = Progress::default();
        let stdin = Progress { packets: 10, bytes_done: 900, elapsed: Duration::from_secs(1), ..start };

        assert_eq!(start.to_string(), "0 packets, 0/s");
        assert_eq!(stdin.to_string(), "10 packets, 10/s");
    }

    #[test]
    fn fits_eighty_columns_whatever_the_numbers() {
        let huge = Progress { packets: 999_999_999_999, bytes_done: 1, bytes_total: u64::MAX, elapsed: Duration::from_secs(1) };

        assert!(huge.to_string().len() <= 80, "{huge}");
    }
}
