//! How much more the record of a hunter's state allows for, so that the figure of a killed run is not too low.
//!
//! ```text
//! capture thread: a batch is handed over ─▶ took ── more than the record allows for? ─▶ asks, and goes on
//!                                                                                        │
//! state thread:                              writes the record ◀─────────────────────────┤ every second anyway
//! spool thread: a full disk gives up its oldest file ─▶ ask ─────────────────────────────┘
//! ```
//! A flood asks a few times: what the next record allows for grows with it. Promises: whoever captures waits for nothing. So what comes between
//! the asking and the record, as a rule a fraction of a millisecond, is beyond what was allowed for.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::unaccounted::since;
use crate::telemetry::clock::{self, Moment};

/// The terms, shared by the capture threads and the state thread.
#[derive(Debug)]
pub(super) struct Promise {
    terms: Mutex<Terms>,
    asked: Condvar,
    /// Packets that may come before anybody looks: the open batch of every capture thread.
    unseen: u64,
}

#[derive(Debug, Default)]
struct Terms {
    /// Packets taken by now.
    taken: u64,
    /// Of the last record: packets taken then, the rate that stands in it, and when; none while nothing is written.
    record: Option<(u64, u64, Moment)>,
    asked: bool,
}

impl Promise {
    pub(super) fn new(unseen: u64) -> Self {
        Self { terms: Mutex::default(), asked: Condvar::new(), unseen }
    }

    /// See the field.
    pub(super) const fn unseen(&self) -> u64 {
        self.unseen
    }

    /// A thread had taken so many packets, and now has these; those of its open batch may double before it says so. Asks for a record that
    /// allows for them, where the last one does not; whether it asks.
    pub(super) fn took(&self, before: u64, now: u64) -> bool {
        let mut terms = self.terms.lock();
        terms.taken = terms.taken.wrapping_add(now).wrapping_sub(before);
        if terms.asked || !terms.is_exceeded() {
            return false;
        }
        terms.asked = true;
        self.asked.notify_one();
        true
    }

    /// What was on disk is in memory alone: asks for a record that says so.
    pub(super) fn ask(&self) {
        let mut terms = self.terms.lock();
        terms.asked |= terms.record.is_some();
        self.asked.notify_one();
    }

    /// Waits until a record is asked for, `most` at most; whether one is.
    pub(super) fn wait_asked(&self, most: Duration) -> bool {
        let mut terms = self.terms.lock();
        if !terms.asked {
            clock::wait(&self.asked, &mut terms, most);
        }
        terms.asked
    }

    /// Ends [`Self::wait_asked`].
    pub(super) fn wake(&self) {
        self.asked.notify_one();
    }

    /// A record was written when `taken` packets had been taken, with this rate.
    pub(super) fn keep(&self, taken: u64, rate: u64) {
        let mut terms = self.terms.lock();
        (terms.asked, terms.record) = (false, Some((taken, rate, Moment::now())));
    }

    /// No record can be written.
    pub(super) fn give_up(&self) {
        let mut terms = self.terms.lock();
        (terms.asked, terms.record) = (false, None);
    }
}

impl Terms {
    fn is_exceeded(&self) -> bool {
        let Some((recorded, rate, at)) = self.record else { return false };
        let age = i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        // fewer than then: what was held is not wanted
        let grown = self.taken.wrapping_sub(recorded).cast_signed().max(0).cast_unsigned();
        grown > since(rate, age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_asked_for_once_where_the_last_one_does_not_allow_for_what_was_taken() {
        let promise = Promise::new(10);
        assert!(!promise.took(0, 1000), "nothing is promised yet");
        promise.keep(1000, 0);
        assert!(!promise.took(1000, 1000) && !promise.wait_asked(Duration::ZERO));

        assert!(promise.took(1000, 1001) && !promise.took(1001, 1002));
        assert!(promise.wait_asked(Duration::from_secs(10)));
        promise.keep(1002, 50_000);

        assert!(!promise.took(1002, 11_002), "0.2 s of that rate");
        assert!(promise.took(11_002, 100_000));
        promise.give_up();
        promise.ask();
        assert!(!promise.took(100_000, 200_000) && !promise.wait_asked(Duration::ZERO), "nothing is promised");
    }
}
