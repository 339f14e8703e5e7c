//! Monitors: live copies of what hunters bring, for whoever may see it. Lossy by design: nothing waits for a monitor.
//!
//! ```text
//! data stream ─ new? ─▶ ring of each monitor (8 MiB, DropNewest) ─▶ its stream: filter ─▶ messages below 4 MiB
//!                                  │ no room
//!                                  └─▶ skipped, told in the next message
//! ```
//!
//! Promises: a batch is offered once, after it was recognised as new; the data stream only puts a reference into each ring that has room, adds
//! to one number for each that has none, and does nothing at all where nobody watches. Everything else (filters, old forms, pieces) happens
//! when a monitor's connection takes more, at the monitor's cost. Where subscribers have grants, what is not granted is not offered: hunters
//! are looked at once a batch, and packets only where filters are granted, at the monitor's cost. What monitors do is no part of flow control.
//! Every packet is in exactly one place:
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
mod seats;
mod watch;
mod wish;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Context;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use self::granted::Granted;
pub(super) use self::offered::Offered;
pub use self::ring::Figures;
use self::ring::{Next, RING, Ring};
use self::seats::Seats;
pub(super) use self::watch::Watch;
use self::wish::Wish;
use crate::telemetry::memory;

/// Monitors, where nobody says otherwise.
pub const MAX: usize = 100;
/// Filters compiled at once: each takes some tens of milliseconds at most, and that is no thread of the data streams.
const COMPILED_AT_ONCE: usize = 1;

/// All monitors.
#[derive(Debug)]
pub struct Monitors {
    max: usize,
    /// Bytes that may wait for each.
    ring: usize,
    /// Whether there is one; looked at for each batch.
    some: AtomicBool,
    seats: Mutex<Seats>,
    /// Bytes that wait, each once.
    held: Arc<AtomicU64>,
    compiling: Arc<Semaphore>,
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
            seats: Mutex::default(),
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
        self.seats.lock().offer(batch, &self.held, room);
    }

    /// What a monitor is to get next; it is woken when there is something.
    fn next(&self, ring: &Ring, cx: &Context<'_>) -> Next {
        let (next, full) = ring.next(cx);
        if full {
            self.seats.lock().reopen(ring);
        }
        next
    }

    /// Nothing more is offered to it; what waits stays.
    fn close(&self, ring: &Ring) {
        self.seats.lock().close(ring);
    }

    /// Somebody may see more, or less.
    fn granted_anew(&self) {
        self.seats.lock().forget();
    }

    /// What became of every packet offered so far.
    pub fn figures(&self) -> Figures {
        self.seats.lock().figures()
    }

    /// How many watch.
    pub fn len(&self) -> usize {
        self.seats.lock().len()
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
                let mut seats = self.seats.lock();
                if seats.len() >= self.max {
                    let text = format!("{} monitors are subscribed already; let one go, or raise --max-subscribers", self.max);
                    return Err(Status::resource_exhausted(text));
                }
                match seats.turn(Instant::now()) {
                    Ok(number) => {
                        let ring = Arc::new(Ring::new(number, wish, granted, self.ring));
                        seats.add(Arc::clone(&ring));
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
    fn leave(&self, ring: &Ring) -> Figures {
        let mut seats = self.seats.lock();
        let figures = seats.remove(ring);
        self.some.store(seats.len() > 0, Ordering::Release);
        figures
    }
}
