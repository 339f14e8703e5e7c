//! The hunter: capture, inspect, and bring what was asked for to the processor.
//!
//! | file | what |
//! |---|---|
//! | [`topology`] | every thread, task and channel |
//! | [`inspect`] | one capture thread: source → engine → batches |
//! | [`control`] | filters in, heartbeat facts out |
//!
//! Promises: capture never waits for the network (files do: they lose nothing); every captured packet is in exactly one counter of the
//! final report.

pub mod control;
pub mod inspect;
pub mod topology;

use crate::capture::CaptureError;
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
    /// What the kernel did not give us.
    pub kernel_dropped: u64,
    /// What the network did with the forwarded packets.
    pub backlog: BacklogSnapshot,
    /// Packets no batch could take.
    pub oversize: u64,
    /// Packets for which a stopping hunter had no room.
    pub refused: u64,
}

impl Report {
    /// Wanted packets that were lost: given up by the uplink, too large, or not delivered by the kernel.
    pub fn lost(&self) -> u64 {
        self.backlog.dropped().saturating_add(self.oversize).saturating_add(self.refused).saturating_add(self.kernel_dropped)
    }

    /// `forwarded + recovered = acknowledged + in memory + on disk + oversize + given up`: what is missing from it is 0, or there is a
    /// bug.
    pub fn imbalance(&self) -> i64 {
        let b = &self.backlog;
        let accounted = [b.acked_packets, b.in_memory_packets, b.on_disk_packets, b.dropped(), self.oversize, self.refused];
        let sum = accounted.iter().fold(0_u64, |a, n| a.saturating_add(*n));
        let came = self.engine.forwarded.saturating_add(b.recovered_packets);
        i64::try_from(came).unwrap_or(i64::MAX).saturating_sub(i64::try_from(sum).unwrap_or(i64::MAX))
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
        Report {
            engine: total.engine,
            kernel_dropped: total.kernel.kernel_dropped.saturating_add(total.kernel.interface_dropped),
            backlog: shared.backlog.snapshot(),
            oversize: total.oversize,
            refused: shared.refused.load(std::sync::atomic::Ordering::Relaxed),
        }
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
        dropped = %drops(&t.engine, &b),
        calls = t.calls,
        rtp_only = t.engine.rtp_only,
        "statistics"
    );
}

/// The reasons that are not zero, as `reason=n`.
pub fn drops(engine: &Counters, backlog: &BacklogSnapshot) -> String {
    let mut text = String::new();
    for reason in DropReason::ALL {
        let of = |a: &[u64]| a.get(reason.index()).copied().unwrap_or(0);
        let n = of(&engine.dropped).saturating_add(of(&backlog.dropped_packets));
        if n > 0 {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(reason.name());
            text.push('=');
            text.push_str(&n.to_string());
        }
    }
    if text.is_empty() { "none".to_owned() } else { text }
}
