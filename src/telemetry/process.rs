//! Memory and processor time of this process, from `/proc/self` (`proc_pid_status(5)`, `proc_pid_stat(5)`).

use std::time::Duration;

use tokio::time::Instant;

/// `/proc/self/stat` counts in ticks of `USER_HZ`, which is 100 on every Linux architecture Rust's std supports.
const TICKS_PER_SECOND: u64 = 100;

/// What the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// Resident memory, in bytes; 0 if unknown.
    pub rss_bytes: u64,
    /// Processor time since the sample before, in percent of one core; 0 in the first sample.
    pub cpu_percent: f32,
}

/// Takes samples; percentages are between one sample and the next.
#[derive(Debug, Default)]
pub struct ProcessSampler {
    last: Option<(Instant, Duration)>,
}

impl ProcessSampler {
    /// A sampler that has not looked yet.
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Looks now.
    pub fn sample(&mut self) -> ProcessUsage {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        self.step(Instant::now(), resident(&status).unwrap_or_default(), busy(&stat).unwrap_or_default())
    }

    fn step(&mut self, now: Instant, rss_bytes: u64, busy: Duration) -> ProcessUsage {
        let cpu_percent = self.last.map_or(0.0, |(then, before)| {
            let wall = now.saturating_duration_since(then).as_secs_f32();
            if wall > 0.0 { busy.saturating_sub(before).as_secs_f32() / wall * 100.0 } else { 0.0 }
        });
        self.last = Some((now, busy));
        ProcessUsage { rss_bytes, cpu_percent }
    }
}

/// Resident memory of this process, in bytes; 0 if unknown.
pub(super) fn resident_bytes() -> u64 {
    resident(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()).unwrap_or_default()
}

/// `VmRSS:      1234 kB`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15, user and system ticks. Field 2, the name, may hold spaces and parentheses.
fn busy(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        assert!(ProcessSampler::new().sample().rss_bytes > 1 << 20);
    }

    #[test]
    fn reads_the_fields_behind_a_hostile_name() {
        let stat = "1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0";

        assert_eq!(busy(stat), Some(Duration::from_secs(2)));
        assert_eq!(resident("VmRSS:\t  2 kB\n"), Some(2048));
        assert_eq!(busy("nonsense"), None);
    }

    #[test]
    fn percent_is_between_samples() {
        let mut sampler = ProcessSampler::new();
        let start = Instant::now();
        sampler.step(start, 0, Duration::from_secs(1));

        let usage = sampler.step(start + Duration::from_secs(2), 0, Duration::from_secs(2));

        assert!((usage.cpu_percent - 50.0).abs() < 0.01);
    }
}
