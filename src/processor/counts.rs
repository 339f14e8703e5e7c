//! Packets by what became of them: P1 and P2 of the reliability contract, under one lock, so that every copy is of one moment.
//!
//! ```text
//! P1  received = unique + duplicate + waiting + Σ rejected
//! P2  unique   = committed + in_queue + dropped + doubled + unwanted
//! ```
//! Each term is counted where it happens, never computed from the others: a difference other than 0 is a defect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Why a message of a hunter is refused; the stream ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No packet batch.
    Malformed,
    /// Larger than a message may be.
    TooLarge,
    /// Compressed, which was not agreed.
    Compressed,
    /// Of a hunter that is not registered.
    Unregistered,
    /// Of another hunter than the stream's, or than the certificate's.
    Foreign,
    /// The connection broke.
    Broken,
    /// Too many bytes of unfinished messages.
    Crowded,
    /// A message that does not come to its end.
    Slow,
    /// The processor is stopping.
    Stopping,
    /// Passed on by this processor before.
    Loop,
    /// Passed on by too many processors.
    Depth,
    /// Leaves out more than a hunter can have sent.
    Leap,
}

impl Refused {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Compressed,
        Self::Unregistered,
        Self::Foreign,
        Self::Broken,
        Self::Crowded,
        Self::Slow,
        Self::Stopping,
        Self::Loop,
        Self::Depth,
        Self::Leap,
    ];

    /// The label in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Compressed => "compressed",
            Self::Unregistered => "unregistered",
            Self::Foreign => "foreign",
            Self::Broken => "broken",
            Self::Crowded => "crowded",
            Self::Slow => "slow",
            Self::Stopping => "stopping",
            Self::Loop => "loop",
            Self::Depth => "depth",
            Self::Leap => "leap",
        }
    }
}

/// Kinds of losses told by window: packets no file could take, those hunters gave up and said so, those that are missing without a word.
pub const LOSSES: [&str; 3] = ["file", "hunter", "undeclared"];

/// One moment's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of every batch that could be read.
    pub received: u64,
    /// Of these, packets of batches that wait for room in the queue: whether they are new is seen when there is.
    pub waiting: u64,
    /// Packets of batches that were new.
    pub unique: u64,
    /// Packets of batches that were here before.
    pub duplicate: u64,
    /// Packets in every file they belong to.
    pub committed: u64,
    /// Packets on their way into files; at the end, those left to their hunters.
    pub in_queue: u64,
    /// Packets no file could take.
    pub dropped: u64,
    /// Further copies of one packet, from hunters of the predecessor.
    pub doubled: u64,
    /// Packets of calls that hunters of the predecessor select although no filter means them.
    pub unwanted: u64,
    /// Packets of refused batches, as far as they could be read, by [`Refused`].
    pub rejected: [u64; Refused::ALL.len()],
    /// Streams that ended with a refusal, by [`Refused`].
    pub refusals: [u64; Refused::ALL.len()],
    /// Packets hunters gave up and said so.
    pub declared: u64,
    /// Packets missing between two batches without a word.
    pub undeclared: u64,
    /// Packets that another processor took over, and said so.
    pub elsewhere: u64,
    /// Packets of batches that came after later ones, by another way: what was missing until then was counted as undeclared.
    pub late: u64,
    /// Session secrets of TLS that came with packets, and were taken out.
    pub tls_keys: u64,
}

impl Counts {
    /// P1 and P2, left minus right.
    pub fn imbalance(&self) -> [i128; 2] {
        let sum = |terms: &[u64]| terms.iter().fold(0_i128, |s, n| s.saturating_add(i128::from(*n)));
        let p1 = sum(&[self.received]) - sum(&[self.unique, self.duplicate, self.waiting]) - sum(&self.rejected);
        [p1, sum(&[self.unique]) - sum(&[self.committed, self.in_queue, self.dropped, self.doubled, self.unwanted])]
    }

    /// Packets lost so far, by [`LOSSES`].
    pub const fn losses(&self) -> [u64; LOSSES.len()] {
        [self.dropped, self.declared, self.undeclared]
    }

    /// Both differences, for a log line.
    pub fn difference(&self) -> String {
        let [p1, p2] = self.imbalance();
        format!("p1={p1} p2={p2}")
    }

    /// Refused streams by reason, for a log line.
    pub fn refused(&self) -> String {
        let some = Refused::ALL.iter().zip(self.refusals).filter(|(_, n)| *n > 0);
        let text: Vec<String> = some.map(|(r, n)| format!("{}={n}", r.name())).collect();
        if text.is_empty() { "none".to_owned() } else { text.join(" ") }
    }
}

/// The counters; all only grow, but what waits and what is in the queue.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<Counts>,
    /// The processor ends: what is in the queue is left to its hunters.
    ends: AtomicBool,
}

/// Packets of a batch on their way into files. It goes with them: a batch that is gone although nothing was said of it is missing in P2.
#[derive(Debug, Default)]
pub struct Queued {
    counters: Option<Arc<Counters>>,
    packets: u64,
}

impl Queued {
    /// They are written, but for those that no file can take, further copies, and those that nobody asked for.
    pub(super) fn commit(&mut self, dropped: u64, [doubled, unwanted]: [u64; 2]) {
        let (Some(counters), packets) = (self.counters.take(), std::mem::take(&mut self.packets)) else { return };
        let mut c = counters.counts.lock();
        c.in_queue = c.in_queue.saturating_sub(packets);
        add(&mut c.committed, [dropped, doubled, unwanted].into_iter().fold(packets, u64::saturating_sub));
        add(&mut c.dropped, dropped);
        add(&mut c.doubled, doubled);
        add(&mut c.unwanted, unwanted);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.take().filter(|c| !c.ends.load(Ordering::Acquire)) {
            let mut c = counters.counts.lock();
            c.in_queue = c.in_queue.saturating_sub(self.packets);
        }
    }
}

fn add(to: &mut u64, n: u64) {
    *to = to.saturating_add(n);
}

impl Counters {
    /// A batch could be read.
    pub(super) fn received(&self, packets: u64) {
        let mut c = self.counts.lock();
        add(&mut c.received, packets);
        add(&mut c.waiting, packets);
    }

    /// It was new, and `missing` packets before it will not come: `declared` of them with a reason, the others perhaps since another processor has
    /// them.
    pub(super) fn unique(self: &Arc<Self>, packets: u64, missing: u64, declared: u64, elsewhere: bool) -> Queued {
        let mut c = self.counts.lock();
        c.waiting = c.waiting.saturating_sub(packets);
        add(&mut c.unique, packets);
        add(&mut c.in_queue, packets);
        add(&mut c.declared, declared);
        let rest = missing.saturating_sub(declared);
        add(if elsewhere { &mut c.elsewhere } else { &mut c.undeclared }, rest);
        Queued { counters: Some(Arc::clone(self)), packets }
    }

    /// It was new, and came after later ones.
    pub(super) fn late(&self, packets: u64) {
        add(&mut self.counts.lock().late, packets);
    }

    /// So many session secrets of TLS came with its packets.
    pub(super) fn tls_keys(&self, secrets: u64) {
        add(&mut self.counts.lock().tls_keys, secrets);
    }

    /// It was here before.
    pub(super) fn duplicate(&self, packets: u64) {
        let mut c = self.counts.lock();
        c.waiting = c.waiting.saturating_sub(packets);
        add(&mut c.duplicate, packets);
    }

    /// What is in the queue from here on may be left there.
    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::Release);
    }

    /// A stream ended with a refusal of a batch of so many packets, where that is known.
    pub(super) fn rejected(&self, why: Refused, packets: u64) {
        let mut c = self.counts.lock();
        let at = why as usize;
        c.waiting = c.waiting.saturating_sub(packets);
        c.rejected.get_mut(at).into_iter().for_each(|n| add(n, packets));
        c.refusals.get_mut(at).into_iter().for_each(|n| add(n, 1));
    }

    /// All figures of this moment.
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }
}
