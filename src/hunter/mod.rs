//! The hunter: capture, inspect, and bring what was asked for to the processor.
//!
//! | file | what |
//! |---|---|
//! | [`topology`] | every thread, task and channel |
//! | [`inspect`] | one capture thread: source → engine → batches |
//! | [`names`] | interfaces that the registration does not name |
//! | [`control`] | filters in, heartbeat facts out |
//! | [`figures`] | what became of every packet |
//! | [`unaccounted`] | what a run that is killed may lose without anybody knowing |
//! | `promise` | how much more the record of that allows for |
//! | [`pages`] | figures and health over HTTP |
//!
//! Promises: capture never waits for the network (files do: they lose nothing); every captured packet is in exactly one counter of the
//! final report.

pub mod control;
pub mod figures;
pub mod inspect;
pub mod names;
pub mod pages;
mod promise;
pub mod topology;
pub mod unaccounted;

use crate::capture::CaptureError;
use crate::uplink::UplinkError;

pub use control::Facts;
pub use figures::{Report, drops};
pub use topology::{Parts, drain, endings, local_filters, run};
pub use unaccounted::{Account, Before, booted_ns};

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

/// How far a hunt came.
enum Hunt {
    NeverStarted,
    Finished,
}

impl Hunt {
    fn report(self, shared: &Shared) -> Report {
        if matches!(self, Self::NeverStarted) {
            tracing::warn!("ended before anything was read");
        }
        shared.report()
    }
}

/// One line of figures; no subscriber data. What nobody can read is said once.
fn stats_line(shared: &Shared, said: &mut bool) {
    let r = shared.report();
    if r.engine.sip_tls > 0 && !std::mem::replace(said, true) {
        tracing::warn!("SIP over TLS passes by here; it is not decrypted, and its calls are not seen");
    }
    tracing::info!(
        captured = r.engine.captured,
        matched = r.engine.forwarded,
        acknowledged = r.backlog.acked_packets,
        processor = r.processor(),
        in_memory = r.in_memory(),
        on_disk = r.backlog.on_disk_packets,
        held = r.engine.held,
        kernel_dropped = r.kernel.kernel_dropped,
        dropped = %drops(&r.drops),
        lost = r.lost(),
        lately = %r.recent.together(),
        difference = %r.difference(),
        calls = r.calls,
        rtp_only = r.engine.rtp_only,
        sip_tls = r.engine.sip_tls,
        "statistics"
    );
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod updates_tests;
