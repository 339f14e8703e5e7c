//! TCP, one direction at a time: segments in, bytes in order out.
//!
//! Promises: any order, duplication and overlap of segments of one byte stream gives that stream; memory is bounded per
//! direction and over all; work is linear in the bytes received, whatever their order.
//!
//! Refuses: checksums, states of the connection, and deciding when to give a hole up: that takes a clock, see
//! [`SKIP_ACKED_AFTER`] and [`SKIP_AFTER`].

mod budget;
mod placement;
mod reassembly;
pub mod seq;

use std::time::Duration;

pub use budget::{Budget, TcpCounters};
pub use placement::{Gap, Kind, Placement, TcpLimits};
pub use reassembly::Reassembly;

/// How long to wait for bytes the receiver has acknowledged: they were on the wire and the capture missed them, unless the
/// two directions reach us by different roads, which differ by less than this.
pub const SKIP_ACKED_AFTER: Duration = Duration::from_millis(50);

/// How long to wait for bytes nobody has acknowledged: past the first retransmissions (RFC 6298 §2: at least 1 s at first).
pub const SKIP_AFTER: Duration = Duration::from_secs(2);
