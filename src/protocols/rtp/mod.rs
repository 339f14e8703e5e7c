//! RTP and RTCP: what a media packet is, and how well a stream arrived.
//!
//! - [`header`]: the fixed header, and what may be media on a flow nobody announced.
//! - [`rtcp`]: compound reports.
//! - [`codec`]: payload types and clocks.
//! - [`quality`]: loss, jitter and order of one SSRC in one direction.
//! - [`dtmf`]: digits sent as telephone events.
//! - [`mos`]: the E-model.
//!
//! Promises: no allocation, no panic on any bytes, and each rule of measurement stated where it is applied.
//!
//! Refuses: decoding audio, and guessing which call a stream belongs to.

pub mod codec;
pub mod dtmf;
pub mod header;
pub mod mos;
pub mod quality;
pub mod rtcp;

pub use header::{FirstByte, Header, Violation, header_len, is_rtcp, may_precede, plausible, sequence, ssrc};
pub use quality::{Stream, Summary, Update};

/// Big-endian fields of a packet, checked.
fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|&b| u16::from_be_bytes(b))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|&b| u32::from_be_bytes(b))
}
