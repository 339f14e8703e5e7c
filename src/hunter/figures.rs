//! What became of every packet, at one instant: K1 to K3 of the reliability contract.
//!
//! ```text
//! K1  kernel_seen         = captured + kernel_dropped + interface_dropped + in_ring
//! K2  captured + shared   = matched + filtered + duplicates + own + held + dropped by the inspection
//! K3  matched + recovered = acked + in_memory + on_disk + dropped after it
//! ```
//! K2 and K3 hold at every instant: each capture thread hands its batches over and tells its counters under one lock, and a snapshot holds all of
//! these locks while it reads the backlog. K1 is of the moment at which the kernel was last asked; its `captured` is of that moment too.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::capture::KernelStats;
use crate::engine::Counters;
use crate::reason::DropReason;
use crate::telemetry::Windows;
use crate::telemetry::clock::Moment;
use crate::uplink::BacklogSnapshot;

use super::inspect::{Progressed, Shared};

/// Kinds of losses told by window: the kernel's, the interface's, our own.
pub const LOSSES: [&str; 3] = ["kernel", "interface", "hunter"];

/// What became of every packet.
#[derive(Clone, Debug)]
pub struct Report {
    /// The inspection's counters, all threads together.
    pub engine: Counters,
    /// What the kernel says it saw.
    pub kernel: KernelStats,
    /// The same, by what is captured from.
    pub kernels: BTreeMap<String, KernelStats>,
    /// Packets captured when the kernel said so.
    pub kernel_captured: u64,
    /// Packets chosen and not yet in the backlog.
    pub open: u64,
    /// What the network did with the forwarded packets.
    pub backlog: BacklogSnapshot,
    /// The processor that takes them, or took the last.
    pub processor: Option<String>,
    /// Packets given up, by [`DropReason::index`].
    pub drops: [u64; DropReason::ALL.len()],
    /// What was lost lately, by [`LOSSES`].
    pub recent: Windows<{ LOSSES.len() }>,
    /// Calls known.
    pub calls: usize,
    /// Packets whose time jumped ahead of all others.
    pub doubted_times: u64,
    /// A source is down.
    pub degraded: bool,
    /// Capture threads at work, and those that have ended.
    pub threads: [usize; 2],
    /// The oldest last sign of life of a thread at work; none before the first.
    pub alive: Option<Moment>,
}

impl Report {
    /// [`Self::processor`], for a log line.
    pub fn processor(&self) -> &str {
        self.processor.as_deref().unwrap_or("none")
    }

    /// Packets that were lost: given up by the uplink, too large, not delivered by the kernel, or held for a call and given up for want of room.
    pub fn lost(&self) -> u64 {
        self.losses().iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The same, by [`LOSSES`].
    pub fn losses(&self) -> [u64; LOSSES.len()] {
        let given_up = self.given_up_after_match().saturating_add(self.engine.crowded_out());
        [self.kernel.kernel_dropped, self.kernel.interface_dropped, given_up]
    }

    /// Packets chosen and given up since.
    pub fn given_up_after_match(&self) -> u64 {
        let inspection = self.engine.dropped_total();
        self.drops.iter().fold(0_u64, |a, n| a.saturating_add(*n)).saturating_sub(inspection)
    }

    /// Packets chosen that are in memory, in batches or before.
    pub fn in_memory(&self) -> u64 {
        self.backlog.in_memory_packets.saturating_add(self.open)
    }

    /// K1, K2 and K3, left minus right: what is not 0 is a bug.
    pub fn imbalance(&self) -> [i64; 3] {
        let (k, b) = (&self.kernel, &self.backlog);
        let less = |left: u64, right: &[u64]| {
            let right = right.iter().fold(0_u64, |a, n| a.saturating_add(*n));
            i64::try_from(left).unwrap_or(i64::MAX).saturating_sub(i64::try_from(right).unwrap_or(i64::MAX))
        };
        [
            less(k.seen(), &[self.kernel_captured, k.kernel_dropped, k.interface_dropped, k.in_ring]),
            self.engine.imbalance(),
            less(
                self.engine.forwarded.saturating_add(b.recovered_packets),
                &[b.acked_packets, self.in_memory(), b.on_disk_packets, self.given_up_after_match()],
            ),
        ]
    }

    /// All three, for a log line.
    pub fn difference(&self) -> String {
        let [k1, k2, k3] = self.imbalance();
        format!("k1={k1} k2={k2} k3={k3}")
    }
}

impl Shared {
    /// All figures of one instant.
    pub fn report(&self) -> Report {
        // no thread hands anything over while all of this is read
        let slots: Vec<_> = self.progress.iter().map(parking_lot::Mutex::lock).collect();
        let backlog = self.backlog.snapshot();
        let refused = self.refused.load(Ordering::Relaxed);
        let threads: Vec<Progressed> = slots.iter().map(|slot| **slot).collect();
        drop(slots);
        let mut r = Report {
            engine: Counters::default(),
            kernel: KernelStats::default(),
            kernels: BTreeMap::new(),
            kernel_captured: 0,
            open: 0,
            backlog,
            processor: self.link.lock().last.clone(),
            drops: [0; DropReason::ALL.len()],
            recent: self.recent.lock().clone(),
            calls: 0,
            doubted_times: 0,
            degraded: false,
            threads: [0; 2],
            alive: None,
        };
        let mut oversize = 0_u64;
        for (p, source) in threads.iter().zip(&self.sources) {
            let kernel = r.kernels.entry(source.clone()).or_default();
            *kernel = kernel.plus(p.kernel);
            r.engine.add(&p.engine);
            r.kernel = r.kernel.plus(p.kernel);
            r.kernel_captured = r.kernel_captured.saturating_add(p.kernel_captured);
            r.open = r.open.saturating_add(p.open);
            r.calls = r.calls.saturating_add(p.calls);
            r.doubted_times = r.doubted_times.saturating_add(p.doubted_times);
            r.degraded |= p.degraded;
            oversize = oversize.saturating_add(p.oversize);
            let [at_work, ended] = &mut r.threads;
            let count = if p.ended { ended } else { at_work };
            *count = count.saturating_add(1);
            let older = |a: Moment, b: Moment| if a.elapsed() > b.elapsed() { a } else { b };
            r.alive = r.alive.into_iter().chain(p.alive.filter(|_| !p.ended)).reduce(older);
        }
        r.drops = r.engine.dropped;
        let mut add = |reason: DropReason, n: u64| {
            r.drops.get_mut(reason.index()).into_iter().for_each(|s| *s = s.saturating_add(n));
        };
        for (reason, n) in DropReason::ALL.into_iter().zip(r.backlog.dropped_packets) {
            add(reason, n);
        }
        add(DropReason::Oversize, oversize);
        add(DropReason::Shutdown, refused);
        r
    }

    /// Notes what was lost so far; once a second.
    pub(super) fn tick(&self) {
        let losses = self.report().losses();
        self.recent.lock().tick(Instant::now(), losses);
    }
}

/// The reasons that are not zero, as `reason=n`.
pub fn drops(given_up: &[u64; DropReason::ALL.len()]) -> String {
    let some = DropReason::ALL.iter().zip(given_up).filter(|(_, n)| **n > 0);
    let text: Vec<String> = some.map(|(reason, n)| format!("{}={n}", reason.name())).collect();
    if text.is_empty() { "none".to_owned() } else { text.join(" ") }
}
