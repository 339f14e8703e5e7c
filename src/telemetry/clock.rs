//! The one place that reads clocks: everything below the assemblies takes its time from packets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::packet::Timestamp;

/// Wall-clock time now.
pub fn wall() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge: batches and heartbeats carry the wall clock, and idle interfaces have no other time"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A moment on the monotonic clock, for the age of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Moment(std::time::Instant);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        #[expect(clippy::disallowed_methods, reason = "capture threads are no tasks: there is no tokio clock to pause here")]
        Self(std::time::Instant::now())
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits.
pub fn pause(d: Duration) {
    std::thread::sleep(d);
}
