//! How fast the streams of one hunter are read (`--hunter-max-rate`, `--hunter-max-batches`). What is beyond that waits at the hunter, in its own
//! queue, since HTTP/2's windows are full; nothing is dropped.
//!
//! A hunter has a second's worth in hand, and all its streams draw on it. A batch is taken whole and paid for afterwards, in bytes and as one of so
//! many: the next is read when of neither more than that second's worth is owed. So whoever sends more is as far ahead as one message of each of
//! its streams, at most.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// What a batch counts for at least, in bytes: where only they are limited, small ones without end cost a processor more than theirs.
const BATCH: usize = 1 << 10;
/// What may be taken at once.
const BURST: Duration = Duration::from_secs(1);

/// What is read from one hunter in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Bytes of batches; none: as many as there are.
    pub bytes: Option<NonZeroU64>,
    /// Batches, likewise.
    pub batches: Option<NonZeroU64>,
}

impl Rates {
    /// How long one batch of so many bytes is paid for, by each.
    fn price(self, bytes: usize) -> [Duration; 2] {
        let of = |n: u64, rate: Option<NonZeroU64>| rate.map_or(0, |rate| n.saturating_mul(1_000_000_000) / rate);
        [of(bytes.max(BATCH) as u64, self.bytes), of(1, self.batches)].map(Duration::from_nanos)
    }
}

/// One hunter's.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When every byte and every batch that was taken is paid.
    paid: Mutex<Option<[Instant; 2]>>,
    waits: AtomicU64,
}

impl Pace {
    /// A batch of so many bytes was taken.
    pub(super) fn spend(&self, bytes: usize, rates: Rates) {
        let now = Instant::now();
        let mut paid = self.paid.lock();
        for (at, price) in paid.get_or_insert([now; 2]).iter_mut().zip(rates.price(bytes)) {
            let from = now.max(*at);
            *at = from.checked_add(price).unwrap_or(from);
        }
    }

    /// How long nothing is to be read.
    fn owed(&self) -> Option<Duration> {
        let [bytes, batches] = (*self.paid.lock())?;
        let ahead = bytes.max(batches).saturating_duration_since(Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(bytes: u64, batches: u64) -> Rates {
        Rates { bytes: NonZeroU64::new(bytes), batches: NonZeroU64::new(batches) }
    }

    /// Milliseconds until all of these batches, by their bytes, are taken and the next may be.
    async fn took(rates: Rates, sizes: impl IntoIterator<Item = usize>) -> u128 {
        let (pace, began, of_all) = (Pace::default(), Instant::now(), AtomicU64::new(0));
        for bytes in sizes {
            pace.spend(bytes, rates);
            pace.wait(&of_all).await;
        }
        assert_eq!(pace.waits(), of_all.load(Ordering::Relaxed));
        assert_eq!(pace.waits() > 0, began.elapsed() > Duration::ZERO);
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_limited_by_their_number_however_small_they_are() {
        assert_eq!(took(rates(0, 100), [1; 100]).await, 0, "a second's worth may come at once");
        assert_eq!(took(rates(0, 100), [1; 300]).await, 2000);
        assert_eq!(took(rates(0, 100), [4 << 20; 300]).await, 2000, "their bytes are not limited");
        assert_eq!(took(rates(1 << 40, 100), [1; 300]).await, 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_limited_however_few_batches_they_come_in() {
        assert_eq!(took(rates(1 << 20, 0), [1 << 20; 3]).await, 2000);
        assert_eq!(took(rates(1 << 20, 1_000_000), [1 << 20; 3]).await, 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn where_only_bytes_are_limited_a_batch_counts_for_some() {
        assert_eq!(took(rates(64 << 10, 0), [1; 64 * 3]).await, 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_within_both_limits_does_not_wait_for_the_sum_of_them() {
        // the first half of them takes most of the bytes
        let sizes = || [20 << 10; 50].into_iter().chain([1 << 10; 50]);
        assert_eq!(took(rates(1050 << 10, 100), sizes()).await, 0);
        assert_eq!(took(rates(1050 << 10, 100), sizes().chain([1])).await, 10, "a hundredth of a second for one batch more");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        assert_eq!(took(Rates::default(), [4 << 20; 1000]).await, 0);
    }
}
