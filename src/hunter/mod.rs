//! The hunter: capture, inspect, and bring what was asked for to the processor.
//!
//! | file | what |
//! |---|---|
//! | [`topology`] | every thread, task and channel |
//! | [`inspect`] | one capture thread: source → engine → batches |
//! | [`names`] | interfaces that the registration does not name |
//! | [`control`] | filters in, heartbeat facts out |
//!
//! Promises: capture never waits for the network (files do: they lose nothing); every captured packet is in exactly one counter of the
//! final report.

pub mod control;
pub mod inspect;
pub mod names;
pub mod topology;

use crate::capture::{CaptureError, KernelStats};
use crate::engine::Counters;
use crate::reason::DropReason;
use crate::uplink::{BacklogSnapshot, UplinkError};

pub use control::Facts;
pub use topology::{Parts, drain, endings, run};

use inspect::Shared;

/// Why a hunter ended early.
#[derive(Debug, thiserror::Error)]
pub enum HunterError {
    /// The source; everything before it was handed over.
    #[error(transparent)]
    Capture(CaptureError),
    /// The processor.
    #[error(transparent)]
    Uplink(UplinkError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A bug.
    #[error("a part of the hunter panicked; this is a bug, please report it with the log above")]
    Panicked,
}

/// What became of every packet.
#[derive(Clone, Debug)]
pub struct Report {
    /// The inspection's counters, all threads together.
    pub engine: Counters,
    /// What the kernel says it saw.
    pub kernel: KernelStats,
    /// What the network did with the forwarded packets.
    pub backlog: BacklogSnapshot,
    /// Packets given up, by [`DropReason::index`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Report {
    /// Packets that were lost: given up by the uplink, too large, not delivered by the kernel, or held for a call and given up for want of room.
    pub fn lost(&self) -> u64 {
        let kernel = self.kernel.kernel_dropped.saturating_add(self.kernel.interface_dropped);
        self.given_up_after_match().saturating_add(kernel).saturating_add(self.engine.crowded_out())
    }

    fn given_up_after_match(&self) -> u64 {
        let inspection = self.engine.dropped_total();
        self.drops.iter().fold(0_u64, |a, n| a.saturating_add(*n)).saturating_sub(inspection)
    }

    /// K1, K2 and K3 of the reliability contract, left minus right: what is not 0 is a bug. K1 is exact at rest.
    pub fn imbalance(&self) -> [i64; 3] {
        let (k, b) = (&self.kernel, &self.backlog);
        let less = |left: u64, right: &[u64]| {
            let right = right.iter().fold(0_u64, |a, n| a.saturating_add(*n));
            i64::try_from(left).unwrap_or(i64::MAX).saturating_sub(i64::try_from(right).unwrap_or(i64::MAX))
        };
        [
            less(k.seen(), &[self.engine.captured, k.kernel_dropped, k.interface_dropped, k.in_ring]),
            self.engine.imbalance(),
            less(
                self.engine.forwarded.saturating_add(b.recovered_packets),
                &[b.acked_packets, b.in_memory_packets, b.on_disk_packets, self.given_up_after_match()],
            ),
        ]
    }
}

/// How far a hunt came.
enum Hunt {
    NeverStarted,
    Finished,
}

impl Hunt {
    fn report(self, shared: &Shared) -> Report {
        let total = shared.total();
        if matches!(self, Self::NeverStarted) {
            tracing::warn!("ended before anything was read");
        }
        let backlog = shared.backlog.snapshot();
        Report { drops: shared.drops(&total, &backlog), engine: total.engine, kernel: total.kernel, backlog }
    }
}

/// One line of figures; no subscriber data.
fn stats_line(shared: &Shared) {
    let t = shared.total();
    let b = shared.backlog.snapshot();
    tracing::info!(
        captured = t.engine.captured,
        matched = t.engine.forwarded,
        acknowledged = b.acked_packets,
        in_memory = b.in_memory_packets,
        on_disk = b.on_disk_packets,
        held = t.engine.held,
        kernel_dropped = t.kernel.kernel_dropped,
        dropped = %drops(&shared.drops(&t, &b)),
        calls = t.calls,
        rtp_only = t.engine.rtp_only,
        "statistics"
    );
}

/// The reasons that are not zero, as `reason=n`.
pub fn drops(given_up: &[u64; DropReason::ALL.len()]) -> String {
    let some = DropReason::ALL.iter().zip(given_up).filter(|(_, n)| **n > 0);
    let text: Vec<String> = some.map(|(reason, n)| format!("{}={n}", reason.name())).collect();
    if text.is_empty() { "none".to_owned() } else { text.join(" ") }
}
