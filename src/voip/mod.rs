//! Calls: what a subscriber's traffic is made of.
//!
//! The call is the unit of every verdict: signalling and media of one Call-ID are held, released, forwarded or let go together, whatever
//! flows they arrive on.
//!
//! ```text
//!  SIP message ──▶ CallTable::handle_message ──▶ state machine, parties, SDP claims, filters ──▶ verdict
//!                                                                                                   │
//!  UDP payload ──▶ CallTable::handle_media ──▶ claim on its endpoints ──▶ call ─────────────────────┤
//!                                          └─▶ nobody's: short hold until somebody claims it        ▼
//!                                                                          forward · hold · let go
//! ```
//!
//! Promises: every table and hold is bounded and what it gives up is counted by [`crate::reason::DropReason`]; media is never delivered
//! to two calls; time is packet time; the same packets give the same results.

pub mod call;
pub mod claim;
pub mod deliver;
pub mod details;
pub mod event;
pub mod expiry;
pub mod hold;
mod kept;
pub mod lookback;
pub mod matching;
pub mod media;
pub mod message;
mod mux;
pub mod output;
mod reports;
mod rtp_only;
pub mod state;
pub mod streams;
pub mod summary;
pub mod table;
pub mod unclaimed;
pub(crate) mod weight;
