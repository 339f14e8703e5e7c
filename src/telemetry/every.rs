//! A rate limit for one place that logs: ten lines per second, then "suppressed N".
//!
//! ```
//! # use lippycat::telemetry::Every;
//! static LIMIT: Every = Every::second(10);
//! if let Some(suppressed) = LIMIT.pass() {
//!     tracing::warn!(suppressed, "checksum does not match");
//! }
//! ```

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A token bucket that counts what it kept back. One per place, usually a `static`.
#[derive(Debug)]
pub struct Every {
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl Every {
    /// At most `burst` passes in each second.
    pub const fn second(burst: u32) -> Self {
        Self { burst, state: Mutex::new(State { window: None, used: 0, suppressed: 0 }) }
    }

    /// Whether this line may be written; if so, how many were suppressed since the last one that was.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let fresh = state.window.is_none_or(|start| now.saturating_duration_since(start) >= Duration::from_secs(1));
        if fresh {
            state.window = Some(now);
            state.used = 0;
        }
        if state.used >= self.burst {
            state.suppressed = state.suppressed.saturating_add(1);
            return None;
        }
        state.used = state.used.saturating_add(1);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_ten_a_second_and_says_how_many_it_kept_back() {
        let every = Every::second(10);
        let start = Instant::now();

        let passed = (0..1000).filter(|_| every.pass_at(start).is_some()).count();

        assert_eq!(passed, 10);
        assert_eq!(every.pass_at(start + Duration::from_secs(1)), Some(990));
        assert_eq!(every.pass_at(start + Duration::from_secs(1)), Some(0));
    }
}
