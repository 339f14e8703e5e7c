//! How fast the streams of one hunter are read (`--hunter-max-rate`). What is beyond that waits at the hunter, in its own queue, since HTTP/2's
//! windows are full; nothing is dropped.
//!
//! A hunter has a second's worth in hand, and all its streams draw on it. A batch is taken whole and paid for afterwards: the next is read when
//! no more than that second's worth is owed. So whoever sends more is as far ahead as one message of each of its streams, at most.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// What a batch counts for at least: small ones cost a processor more than their bytes.
const BATCH: usize = 1 << 10;
/// What may be taken at once.
const BURST: Duration = Duration::from_secs(1);

/// One hunter's.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When everything that was taken is paid.
    paid: Mutex<Option<Instant>>,
    waits: AtomicU64,
}

impl Pace {
    /// `bytes` were taken, of which `rate` may be each second.
    pub(super) fn spend(&self, bytes: usize, rate: NonZeroU64) {
        let nanos = (bytes.max(BATCH) as u64).saturating_mul(1_000_000_000) / rate;
        let now = Instant::now();
        let mut paid = self.paid.lock();
        let from = paid.map_or(now, |at| at.max(now));
        *paid = from.checked_add(Duration::from_nanos(nanos)).or(Some(from));
    }

    /// How long nothing is to be read.
    fn owed(&self) -> Option<Duration> {
        let ahead = (*self.paid.lock())?.saturating_duration_since(Instant::now());
        ahead.checked_sub(BURST).filter(|owed| !owed.is_zero())
    }

    /// Returns when the next may be read; that it had to wait is counted, `of_all` hunters too.
    pub(super) async fn wait(&self, of_all: &AtomicU64) {
        let Some(mut owed) = self.owed() else { return };
        self.waits.fetch_add(1, Ordering::Relaxed);
        of_all.fetch_add(1, Ordering::Relaxed);
        loop {
            sleep(owed).await;
            // another stream may have been first
            match self.owed() {
                Some(more) => owed = more,
                None => return,
            }
        }
    }

    /// How often one of its streams was not read on.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }
}
