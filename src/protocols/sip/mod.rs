//! SIP (RFC 3261): detection, a zero-copy index, addresses, identities, and message framing on streams.
//!
//! | file | what |
//! |---|---|
//! | `start` | is this SIP; the start line |
//! | `header` | names, compact forms, the walk over header lines |
//! | `message` | [`Message`]: the index and its accessors |
//! | `value`, `address`, `uri`, `number` | the grammar inside values |
//! | `body` | SDP in the body, directly or in a multipart |
//! | `malformed`, `check` | [`Malformed`]: what is wrong, by stable names |
//! | `identity` | who a message speaks of, field by field |
//! | `framer` | [`Framer`]: messages out of a byte stream |
//!
//! Promises: any bytes in, no panic; linear time; nothing kept beyond the limits below; a message that breaks the grammar is indexed and
//! marked. Refuses: bytes whose first line is not SIP.

mod address;
mod body;
mod check;
mod framer;
mod header;
mod identity;
mod malformed;
mod message;
mod number;
mod start;
mod uri;
mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;

pub use self::{
    address::NameAddr,
    body::SdpBodies,
    framer::{Framed, Framer, Framing},
    header::HeaderName,
    identity::{Identity, addresses, credentials, identities, identity_in, imeis, imsis},
    malformed::Malformed,
    message::{CSeq, Message},
    number::Number,
    start::{Probe, Start, begins_like_sip, probe},
    uri::{Scheme, Uri, unescape, without_password},
    value::{Elements, Params, unfold, unquote},
};

/// Longest message looked at: 256 KiB, four times what a datagram can hold (reliability: SIP message limits).
pub const MAX_MESSAGE: usize = 256 * 1024;
/// Headers kept per message; the rest is marked `too_many_headers`.
pub const MAX_HEADERS: usize = 256;
/// Longest header, its continuation lines included; a longer one is cut and marked `header_too_long`.
pub const MAX_HEADER: usize = 8 * 1024;
/// Longest start line, and longest line on a stream.
pub const MAX_LINE: usize = 8 * 1024;
/// Largest Content-Length believed on a stream.
pub const MAX_CONTENT_LENGTH: u64 = 1024 * 1024;

/// Whether `payload` begins with a SIP start line, leading CRLFs skipped.
#[inline]
pub fn looks_like(payload: &[u8]) -> bool {
    probe(payload) == Probe::Yes
}
