//! What the program says about itself: logs, figures as Prometheus text, its own memory and processor time, progress.
//!
//! Promises: log lines go to stderr only, one record per line whatever bytes were on the wire ([`Escaped`]), and not many of them, whatever
//! comes.
//! Refuses: addresses, users, numbers and payload above DEBUG (a convention that `tests/it/privacy.rs` is for), and printing
//! to stdout, which belongs to results.

pub mod clock;
pub mod exposition;
mod histogram;
mod limit;
mod log;
pub mod memory;
mod process;
mod progress;
mod reloads;
mod windows;

pub use exposition::Exposition;
pub use histogram::Histogram;
pub use limit::OPERATOR;
pub use log::{Escaped, Format, InitError, Level, Logging, MAX_FIELD_BYTES, Said, init, is_plain};
pub use process::{ProcessSampler, ProcessUsage};
pub use progress::Progress;
pub(crate) use reloads::RELOADS;
pub use windows::{Recent, Windows};
