//! What the processor asks of the sending: less, or nothing for a while. The capture goes on either way.

use std::time::Duration;

use tokio::time::Instant;

use super::Backlog;

/// A question whether a pause is still meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// None is asked.
    #[default]
    No,
    /// One batch may go out in spite of the pause.
    Allowed,
    /// It went out.
    Sent,
}

impl Backlog {
    /// Stops or resumes sending; capturing goes on either way.
    pub fn pause(&self, paused: bool) {
        let mut state = self.state.lock();
        if !paused || !state.figures.paused {
            state.questioned = Instant::now();
        }
        state.figures.paused = paused;
        state.probe = Probe::No;
        state.wake();
        self.room.notify_all();
    }

    /// The peer said something of its pressure but not that a pause is over: that lifts one only when it answers a probe.
    pub fn go_on(&self) {
        let mut state = self.state.lock();
        if state.probe == Probe::Sent {
            state.probe = Probe::No;
            state.figures.paused = false;
            state.wake();
        }
    }

    /// Whether fewer, longer batches are asked for.
    pub fn slow(&self, slow: bool) {
        self.state.lock().figures.slow = slow;
    }

    /// See [`Self::slow`].
    pub fn is_slow(&self) -> bool {
        self.state.lock().figures.slow
    }

    /// Lets one batch through a pause that has lasted for `patience`, or has been questioned so long ago, to learn whether the peer still
    /// means it.
    pub fn probe(&self, patience: Duration) {
        let mut state = self.state.lock();
        if state.figures.paused && state.questioned.elapsed() >= patience {
            state.questioned = Instant::now();
            state.probe = Probe::Allowed;
            state.wake();
        }
    }
}
