//! The one place that reads clocks, and that waits: everything below the assemblies takes its time from packets.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, MutexGuard};
use tokio::time::Instant;

use crate::packet::Timestamp;

/// In tests a thread's clock may be one that is played.
#[cfg(test)]
pub(crate) mod played;

/// Without a play, nothing is played.
#[cfg(not(test))]
mod played {
    use super::{Duration, Timestamp};

    #[inline]
    pub(super) fn wall() -> Option<Timestamp> {
        None
    }

    #[inline]
    pub(super) fn is_on() -> bool {
        false
    }

    #[inline]
    pub(super) fn pause(_: Duration) {}
}

/// Wall-clock time now.
pub fn wall() -> Timestamp {
    if let Some(now) = played::wall() {
        return now;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge: batches and heartbeats carry the wall clock, and idle interfaces have no other time"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A moment on the monotonic clock, for the age of a batch; on a thread of a paused runtime, on its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A clock that nobody sets: the wall clock of its start, and the time since then. For silences, which a wall clock that is set would
/// make longer or shorter.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    wall: Timestamp,
    since: Moment,
}

impl Steady {
    /// Starts at the wall clock.
    pub fn start() -> Self {
        Self { wall: wall(), since: Moment::now() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.wall.saturating_add(self.since.elapsed())
    }

    /// What the wall clock says of a moment of this one.
    pub fn on_the_wall(&self, then: Timestamp) -> Timestamp {
        Timestamp::from_nanos(wall().as_nanos().saturating_sub(self.now().as_nanos().saturating_sub(then.as_nanos())))
    }
}

/// Waits.
pub fn pause(d: Duration) {
    if played::is_on() { played::pause(d) } else { std::thread::sleep(d) }
}

/// Waits until somebody says that what `guard` protects has changed, `d` at most.
pub fn wait<T>(changed: &Condvar, guard: &mut MutexGuard<'_, T>, d: Duration) {
    if played::is_on() {
        MutexGuard::unlocked(guard, || played::pause(Duration::ZERO));
    } else {
        let _timed_out = changed.wait_for(guard, d);
    }
}

/// Waits for the next message; none once nobody is left to send one.
pub fn receive<T>(from: &Receiver<T>) -> Option<T> {
    while played::is_on() {
        match from.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => played::pause(Duration::ZERO),
        }
    }
    from.recv().ok()
}

/// Waits for room for a message; false when nobody is left to receive it.
pub fn send<T>(to: &SyncSender<T>, mut message: T) -> bool {
    while played::is_on() {
        match to.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => message = back,
        }
        played::pause(Duration::ZERO);
    }
    to.send(message).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_clock_does_not_see_the_wall_clock_being_set_and_can_say_what_that_shows() {
        let (noon, year) = (Timestamp::from_nanos(1_000_000_000_000), Duration::from_hours(24 * 365));
        let play = played::Play::new(noon);
        let _played = play.enter();
        let steady = Steady::start();
        let then = steady.now();

        play.set(noon.saturating_add(year));

        assert!(steady.now().since(then) < Duration::from_hours(1));
        assert!(steady.on_the_wall(then).since(noon) > year.saturating_sub(Duration::from_hours(1)));
    }
}
