//! Mechanisms: which conversation a packet belongs to, what time it is there, and what its bytes say in order.
//!
//! - [`key`]: the direction-free identity of a conversation and its keyed hash.
//! - [`table`]: a bounded table from conversation to a few bytes of the caller's choice.
//! - [`timer`]: deadlines in packet time.
//! - [`clock`]: what time that is.
//! - [`tcp`]: one direction of a TCP connection, put back in order.
//!
//! Promises: no I/O, no clock (time is the packets'), no panic on any bytes, every structure bounded and what it gave up
//! counted, no work that grows faster than the input.
//!
//! Refuses: knowing any protocol above TCP, and deciding what a flow is worth.

pub mod clock;
pub mod key;
pub mod table;
pub mod tcp;
pub mod timer;

pub use clock::PacketTime;
pub use key::{Direction, FlowHasher, FlowKey, Side};
pub use table::{Entry, FlowTable, IdleLimits, Lookup, TableCounters, TableLimits};
pub use timer::Timers;
