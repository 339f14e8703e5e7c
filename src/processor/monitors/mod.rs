//! Monitors: live copies of what hunters bring, for whoever may see it. Lossy by design: nothing waits for a monitor.
//!
//! ```text
//! data stream ─ new? ─▶ ring of each monitor (8 MiB, DropNewest) ─▶ its stream: filter ─▶ messages below 4 MiB
//!                                  │ no room
//!                                  └─▶ skipped, told in the next message
//! ```
//!
//! Promises: a batch is offered once, after it was recognised as new; the data stream only puts a reference into each ring, and nothing at all
//! where nobody watches. Everything else (filters, old forms, pieces) happens when a monitor's connection takes more, at the monitor's cost.
//! Where subscribers have grants, what is not granted is not offered: hunters are looked at once a batch, and packets only where filters are
//! granted, at the monitor's cost. What monitors do is no part of flow control. Every packet is in exactly one place:
//!
//! ```text
//! offered = delivered + skipped + filtered + waiting
//! ```
//! What is skipped was not looked at: with a filter it is as many packets at most as were missed.
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | monitors (`--max-subscribers`) | 100, 1000 at most | `RESOURCE_EXHAUSTED` |
//! | what waits for one: bytes of batches, and 256 for each | 8 MiB | the newest is skipped |
//! | what waits for all, each batch once, and its old form | an eighth of `--memory-limit` | the newest is skipped, for all |
//! | a message to a monitor (what old ones receive, reference behaviour) | 4 MiB | it is cut between packets; a larger packet is skipped |
//! | bytes of hunters' ids asked for | 256 KiB | `INVALID_ARGUMENT` |
//! | a filter: bytes, terms, instructions, names of hosts | those of `bpf` filters: 4096, 64, 4096, none | `INVALID_ARGUMENT` |
//! | filters compiled at once | 1 | the next waits |
//! | subscriptions that begin in one second: each is two lines of the audit log | 10 | the next waits |

mod granted;
mod offered;
mod ring;
mod watch;
mod wish;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use self::granted::Granted;
pub(super) use self::offered::Offered;
pub use self::ring::Figures;
use self::ring::{RING, Ring};
pub(super) use self::watch::Watch;
use self::wish::Wish;
use crate::telemetry::memory;

/// Monitors, where nobody says otherwise.
pub const MAX: usize = 100;
/// Filters compiled at once: each takes some tens of milliseconds at most, and that is no thread of the data streams.
const COMPILED_AT_ONCE: usize = 1;
/// Subscriptions that begin in any second: whoever comes and goes must not fill the log, of which no line may be left out.
const BEGIN: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// All monitors.
#[derive(Debug)]
pub struct Monitors {
    max: usize,
    /// Bytes that may wait for each.
    ring: usize,
    /// Whether there is one; looked at for each batch.
    some: AtomicBool,
    seats: RwLock<Seats>,
    /// Bytes that wait, each once.
    held: Arc<AtomicU64>,
    compiling: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Seats {
    rings: Vec<Arc<Ring>>,
    /// How many there were so far.
    numbers: u64,
    /// When the last ones began, [`BEGIN`] at most.
    begun: VecDeque<Instant>,
    /// Of those that have left.
    gone: Figures,
}

impl Seats {
    /// One more begins; else the time to ask again, where too many have.
    fn turn(&mut self, now: Instant) -> Result<(), Instant> {
        let first = self.begun.front().copied().filter(|_| self.begun.len() >= BEGIN);
        if let Some(again) = first.and_then(|first| first.checked_add(SECOND)).filter(|again| now < *again) {
            return Err(again);
        }
        if first.is_some() {
            self.begun.pop_front();
        }
        self.begun.push_back(now);
        Ok(())
    }
}

impl Default for Monitors {
    fn default() -> Self {
        Self::new(MAX)
    }
}

impl Monitors {
    /// For at most `max` of them.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            ring: RING,
            some: AtomicBool::new(false),
            seats: RwLock::default(),
            held: Arc::default(),
            compiling: Arc::new(Semaphore::new(COMPILED_AT_ONCE)),
        }
    }

    /// With smaller rings, where little is played.
    #[cfg(test)]
    #[must_use]
    pub(super) fn with_rings(self, bytes: usize) -> Self {
        Self { ring: bytes, ..self }
    }

    /// Whether anybody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.some.load(Ordering::Acquire)
    }

    /// A new batch, for each who wants it.
    pub(super) fn offer(&self, batch: Offered) {
        let room = match memory::limit() {
            0 => u64::MAX,
            limit => limit / 8,
        };
        let batch = batch.held_in(&self.held);
        let fits = self.held.load(Ordering::Relaxed) <= room;
        let batch = Arc::new(batch);
        self.seats.read().rings.iter().for_each(|ring| ring.offer(&batch, fits));
    }

    /// What became of every packet offered so far.
    pub fn figures(&self) -> Figures {
        let seats = self.seats.read();
        seats.rings.iter().fold(seats.gone, |sum, ring| sum + ring.figures())
    }

    /// How many watch.
    pub fn len(&self) -> usize {
        self.seats.read().rings.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many may.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// One more, if there is a seat, as soon as one may begin. Nothing is held meanwhile: an opening goes on when its peer's connection takes
    /// more, and that may be never.
    ///
    /// # Errors
    /// There is no seat.
    async fn join(&self, wish: Wish, granted: Arc<Granted>) -> Result<Arc<Ring>, Status> {
        loop {
            let later = {
                let mut seats = self.seats.write();
                if seats.rings.len() >= self.max {
                    let text = format!("{} monitors are subscribed already; let one go, or raise --max-subscribers", self.max);
                    return Err(Status::resource_exhausted(text));
                }
                match seats.turn(Instant::now()) {
                    Ok(()) => {
                        seats.numbers = seats.numbers.saturating_add(1);
                        let ring = Arc::new(Ring::new(seats.numbers, wish, granted, self.ring));
                        seats.rings.push(Arc::clone(&ring));
                        self.some.store(true, Ordering::Release);
                        return Ok(ring);
                    }
                    Err(later) => later,
                }
            };
            sleep_until(later).await;
        }
    }

    /// One less; what became of its packets.
    fn leave(&self, ring: &Arc<Ring>) -> Figures {
        let mut seats = self.seats.write();
        seats.rings.retain(|r| !Arc::ptr_eq(r, ring));
        self.some.store(!seats.rings.is_empty(), Ordering::Release);
        let figures = ring.end();
        seats.gone = seats.gone + figures;
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_begin_in_any_second_wherever_it_begins() {
        let (mut seats, start) = (Seats::default(), Instant::now());
        let mut begin =
            |n: usize, millis: u64| (0..n).filter(|_| seats.turn(start + Duration::from_millis(millis)).is_ok()).count();

        assert_eq!([begin(1, 0), begin(20, 900), begin(20, 1000), begin(20, 1100), begin(20, 1900)], [1, 9, 1, 0, 9]);
        assert_eq!(seats.turn(start + Duration::from_millis(1950)), Err(start + Duration::from_secs(2)));
    }
}
