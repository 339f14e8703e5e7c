//! The one place that reads clocks, and that waits: everything below the assemblies takes its time from packets.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, MutexGuard};
use tokio::time::Instant;

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

/// A moment on the monotonic clock, for the age of a batch; on a thread of a paused runtime, on its clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Instant);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(Instant::now())
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

/// Waits until somebody says that what `guard` protects has changed, `d` at most.
pub fn wait<T>(changed: &Condvar, guard: &mut MutexGuard<'_, T>, d: Duration) {
    let _timed_out = changed.wait_for(guard, d);
}

/// Waits for the next message; none once nobody is left to send one.
pub fn receive<T>(from: &Receiver<T>) -> Option<T> {
    from.recv().ok()
}

/// Waits for room for a message; false when nobody is left to receive it.
pub fn send<T>(to: &SyncSender<T>, message: T) -> bool {
    to.send(message).is_ok()
}
