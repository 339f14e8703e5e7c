//! What the protocols look like on the wire: one folder per protocol.
//!
//! Promises: readers borrow, never panic on any bytes, take linear time, and bound everything they keep. Refuses: to judge. A reader
//! says what is there and what is wrong with it; what follows from that is decided further down the map.

pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod text;
pub mod ws;
