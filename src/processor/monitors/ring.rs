//! What waits for one monitor, and what became of everything offered to it.

use std::collections::VecDeque;
use std::ops::Add;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use super::granted::Granted;
use super::offered::Offered;
use super::wish::Wish;

/// Bytes that wait for one monitor.
pub(super) const RING: usize = 8 << 20;
/// What a batch is counted as beside its bytes: what the ring remembers of it.
const OVERHEAD: usize = 256;

/// Packets by what became of them; `bytes` of messages that were delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of every batch of a hunter that was asked for.
    pub offered: u64,
    /// Handed to the monitor's connection.
    pub delivered: u64,
    /// Not looked at: there was no room, or no message that is large enough.
    pub skipped: u64,
    /// Looked at, and not wanted.
    pub filtered: u64,
    /// In the ring.
    pub waiting: u64,
    /// Bytes of what was delivered.
    pub bytes: u64,
}

impl Figures {
    /// Left minus right of the equation: anything but 0 is a bug.
    pub fn imbalance(&self) -> i128 {
        let [left, right @ ..] = [self.offered, self.delivered, self.skipped, self.filtered, self.waiting].map(i128::from);
        left - right.iter().sum::<i128>()
    }
}

impl Add for Figures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            offered: self.offered.saturating_add(other.offered),
            delivered: self.delivered.saturating_add(other.delivered),
            skipped: self.skipped.saturating_add(other.skipped),
            filtered: self.filtered.saturating_add(other.filtered),
            waiting: self.waiting.saturating_add(other.waiting),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// One monitor's.
#[derive(Debug)]
pub(super) struct Ring {
    /// Tells it from others, whatever it calls itself.
    pub(super) number: u64,
    /// What it asked for.
    pub(super) wish: Wish,
    /// What it may see; none: everything.
    pub(super) granted: Arc<Granted>,
    /// Bytes that may wait.
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Packets skipped since the last that has a place.
    gap: u64,
    /// One had no room since the last that was taken out.
    full: bool,
    figures: Figures,
    waker: Option<Waker>,
}

impl State {
    fn miss(&mut self, packets: u64) {
        self.figures.offered = self.figures.offered.saturating_add(packets);
        self.figures.skipped = self.figures.skipped.saturating_add(packets);
        self.gap = self.gap.saturating_add(packets);
    }
}

#[derive(Debug)]
struct Waiting {
    /// Packets skipped before it.
    gap: u64,
    batch: Arc<Offered>,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It waits, or was skipped.
    Done,
    /// There is no room, nor will be until something is taken out.
    Full,
}

/// What is next for a monitor.
#[derive(Debug)]
pub(super) enum Next {
    /// Say that so many packets were skipped, then look at this. It waits until it is [settled](Ring::settle).
    Batch(u64, Arc<Offered>),
    /// Say that so many were skipped; there is nothing else.
    Gap(u64),
    /// Nothing, for now.
    Nothing,
}

impl Ring {
    pub(super) fn new(number: u64, wish: Wish, granted: Arc<Granted>, room: usize) -> Self {
        Self { number, wish, granted, room, state: Mutex::default() }
    }

    /// Whether it is to get packets of this hunter.
    pub(super) fn wants(&self, hunter: &str) -> bool {
        self.wish.wants(hunter) && self.granted.sees(hunter)
    }

    /// A batch that is wanted; `fits`: all rings together have room for it. It says that it has no room for more until something is taken out;
    /// this one is then [missed](Self::missed) like those that follow it.
    pub(super) fn offer(&self, batch: &Arc<Offered>, fits: bool) -> Offer {
        let cost = batch.message.len().saturating_add(OVERHEAD);
        let mut s = self.state.lock();
        if !fits || s.bytes.saturating_add(cost) > self.room {
            if s.waiting.is_empty() {
                // nobody will take anything out
                s.miss(batch.packets);
                return Offer::Done;
            }
            s.full = true;
            return Offer::Full;
        }
        s.bytes = s.bytes.saturating_add(cost);
        s.figures.offered = s.figures.offered.saturating_add(batch.packets);
        s.figures.waiting = s.figures.waiting.saturating_add(batch.packets);
        let gap = std::mem::take(&mut s.gap);
        s.waiting.push_back(Waiting { gap, batch: Arc::clone(batch) });
        let waker = s.waker.take();
        drop(s);
        if let Some(waker) = waker {
            waker.wake();
        }
        Offer::Done
    }

    /// So many packets were offered while it was full.
    pub(super) fn missed(&self, packets: u64) {
        self.state.lock().miss(packets);
    }

    /// What the monitor is to get next, and whether it was full before; it is woken when there is something.
    pub(super) fn next(&self, cx: &Context<'_>) -> (Next, bool) {
        let mut s = self.state.lock();
        if let Some(Waiting { gap, batch }) = s.waiting.pop_front() {
            s.bytes = s.bytes.saturating_sub(batch.message.len().saturating_add(OVERHEAD));
            return (Next::Batch(gap, batch), std::mem::take(&mut s.full));
        }
        let next = match std::mem::take(&mut s.gap) {
            0 => {
                s.waker = Some(cx.waker().clone());
                Next::Nothing
            }
            gap => Next::Gap(gap),
        };
        (next, false)
    }

    /// What became of a batch's packets.
    pub(super) fn settle(&self, of: Figures) {
        let mut s = self.state.lock();
        let settled = of.delivered.saturating_add(of.skipped).saturating_add(of.filtered);
        s.figures.waiting = s.figures.waiting.saturating_sub(settled);
        s.figures = s.figures + of;
    }

    /// The monitor is gone: what waits for it is skipped. It is freed with the ring, not here, where everybody waits for the caller's lock.
    pub(super) fn end(&self) -> Figures {
        let mut s = self.state.lock();
        let left = std::mem::take(&mut s.figures.waiting);
        s.figures.skipped = s.figures.skipped.saturating_add(left);
        s.figures
    }

    pub(super) fn figures(&self) -> Figures {
        self.state.lock().figures
    }
}
