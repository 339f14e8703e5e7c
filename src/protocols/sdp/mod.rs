//! SDP (RFC 8866), read for where media will flow: every media line with its addresses, ports, codecs and candidates.
//!
//! | file | what |
//! |---|---|
//! | `media` | what a media line says: [`Media`], [`Format`], [`Candidate`] |
//! | `parse` | the walk over lines |
//! | `attribute` | `a=` lines |
//!
//! Promises: any bytes in, no panic, one pass; no allocation below three media lines, nine formats and five candidates each; unknown lines
//! and attributes are passed over; order of attributes does not matter. Refuses: to resolve names (counted), to keep keys (`a=crypto` is
//! a flag), to judge whether an answer fits its offer.

mod attribute;
mod media;
mod parse;

#[cfg(test)]
mod tests;

pub use self::{
    media::{Candidate, CandidateKind, Direction, Format, Media, MediaKind, Session, Transport},
    parse::parse,
};

/// Media lines kept per body; the rest is counted in [`Session::dropped_media`]. Large conferences bundle some twenty.
pub const MAX_MEDIA: usize = 64;
/// Candidates kept per media line; the rest is counted in [`Session::dropped_candidates`].
pub const MAX_CANDIDATES: usize = 64;
/// Formats kept per media line; browsers offer some forty. The rest is counted in [`Session::dropped_formats`].
pub const MAX_FORMATS: usize = 64;
/// Media ids kept of `a=group:BUNDLE`.
pub const MAX_BUNDLE: usize = MAX_MEDIA;
