//! How much more the record of a hunter's state allows for, so that the figure of a killed run is never too low.
//!
//! ```text
//! capture thread: a batch is handed over ─▶ took ── more than the record allows for? ─▶ asks, and waits a moment
//!                                                                                        │
//! state thread:                              writes the record ◀─────────────────────────┘ every second anyway
//! ```
//! A flood asks a few times: what the next record allows for grows with it. Promises: whoever captures waits [`PATIENCE`] at most, and only until
//! the next record where the last one could not be written in that time.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::unaccounted::since;
use crate::telemetry::clock::{self, Moment};

/// How long a capture waits for a record: the kernel's ring holds much more.
const PATIENCE: Duration = Duration::from_millis(20);

/// The terms, shared by the capture threads and the state thread.
#[derive(Debug)]
pub(super) struct Promise {
    terms: Mutex<Terms>,
    asked: Condvar,
    kept: Condvar,
    /// Packets that may come before anybody looks: the open batch of every capture thread.
    unseen: u64,
}

#[derive(Debug)]
struct Terms {
    /// Packets taken by now, or more.
    taken: u64,
    /// Of the last record: packets taken then, the rate that stands in it, and when; none while nothing is written.
    record: Option<(u64, u64, Moment)>,
    asked: bool,
    /// The last record that was asked for took too long.
    late: bool,
}

impl Promise {
    pub(super) fn new(unseen: u64) -> Self {
        let terms = Terms { taken: 0, record: None, asked: false, late: false };
        Self { terms: Mutex::new(terms), asked: Condvar::new(), kept: Condvar::new(), unseen }
    }

    /// See the field.
    pub(super) const fn unseen(&self) -> u64 {
        self.unseen
    }

    /// A thread had taken so many packets, and now has these; those of its open batch may double before it says so. Waits for a record that
    /// allows for them.
    pub(super) fn took(&self, before: u64, now: u64) {
        let mut terms = self.note(before, now);
        if terms.late || !terms.is_exceeded() {
            return;
        }
        terms.asked = true;
        self.asked.notify_one();
        self.wait(&mut terms);
    }

    fn note(&self, before: u64, now: u64) -> MutexGuard<'_, Terms> {
        let mut terms = self.terms.lock();
        terms.taken = terms.taken.wrapping_add(now).wrapping_sub(before);
        terms
    }

    fn wait(&self, terms: &mut MutexGuard<'_, Terms>) {
        let began = Moment::now();
        while terms.asked && began.elapsed() < PATIENCE {
            clock::wait(&self.kept, terms, PATIENCE);
        }
        terms.late = terms.asked;
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
        *terms = Terms { taken, record: Some((taken, rate, Moment::now())), asked: false, late: false };
        self.kept.notify_all();
    }

    /// No record can be written.
    pub(super) fn give_up(&self) {
        let mut terms = self.terms.lock();
        (terms.asked, terms.record) = (false, None);
        self.kept.notify_all();
    }

    /// As [`Self::took`], without waiting; whether that would wait.
    #[cfg(test)]
    pub(super) fn is_exceeded(&self, before: u64, now: u64) -> bool {
        self.note(before, now).is_exceeded()
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
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_capture_waits_for_the_record_that_allows_for_what_it_took_and_not_for_one_that_does() {
        let promise = Arc::new(Promise::new(10));
        promise.took(0, 1000);
        promise.keep(1000, 0);
        promise.took(1000, 1000);
        assert!(!promise.is_exceeded(0, 0));

        let writer = Arc::clone(&promise);
        let thread = std::thread::spawn(move || {
            while !writer.wait_asked(Duration::from_secs(10)) {}
            writer.keep(1001, 50_000);
        });
        promise.took(1000, 1001);
        thread.join().unwrap();

        assert!(!promise.is_exceeded(0, 0));
        promise.took(1001, 11_001);
        assert!(!promise.is_exceeded(0, 0), "0.2 s of that rate");
    }

    #[test]
    fn a_record_that_cannot_be_written_in_time_is_waited_for_once() {
        let promise = Promise::new(10);
        promise.keep(0, 0);

        promise.took(0, 1);
        assert!(promise.terms.lock().late);
        promise.took(1, 5);
        promise.give_up();
        promise.took(5, 9);

        assert!(!promise.is_exceeded(0, 0), "nothing is promised");
        promise.keep(9, 0);
        assert!(!promise.terms.lock().late);
    }
}
