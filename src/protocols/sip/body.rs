//! SDP inside a SIP body: directly, or as a part of a multipart body (RFC 2046 §5.1, RFC 5621), one multipart nested in another at most.
//!
//! Promises: slices of the message, linear time, at most [`MAX_PARTS`] parts looked at. Refuses: encoded bodies (`Content-Encoding: gzip`);
//! they are marked, not decoded.

use memchr::memmem;
use smallvec::SmallVec;

use super::{
    header::{HeaderName, Line, line_at},
    malformed::Malformed,
    message::Message,
    value::{Params, unquote},
};
use crate::protocols::text::{from, split_once, starts_with_ignore_case, sub, trim, upto};

/// Parts looked at per message; ISUP, SIPREC and PIDF bodies have two to four.
const MAX_PARTS: usize = 32;
/// Multiparts inside one another.
const MAX_DEPTH: u8 = 2;
/// Longest boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The SDP bodies of one message.
pub type SdpBodies<'a> = SmallVec<[&'a [u8]; 2]>;

impl<'a> Message<'a> {
    /// Every `application/sdp` body. A body without Content-Type counts when it begins like SDP.
    pub fn sdp_bodies(&self) -> SdpBodies<'a> {
        let mut found = SdpBodies::new();
        let mut body = self.body();
        if self.marks().contains(Malformed::CONTENT_LENGTH_TOO_LONG) {
            // a body cut short, by a snaplen perhaps: half a line says something else than the whole line
            body = upto(body, memchr::memrchr(b'\n', body).map_or(0, |end| end.saturating_add(1)));
        }
        if body.is_empty() {
            return found;
        }
        let content_type = self.first_raw(HeaderName::ContentType);
        let encoded = self.first_raw(HeaderName::ContentEncoding).is_some_and(is_encoding);
        let mut parts = MAX_PARTS;
        collect(content_type, encoded, body, MAX_DEPTH, &mut parts, &mut found);
        found
    }

    /// Whether the body is compressed or otherwise encoded.
    pub fn is_body_encoded(&self) -> bool {
        self.first_raw(HeaderName::ContentEncoding).is_some_and(is_encoding) && !self.body().is_empty()
    }
}

fn collect<'a>(
    content_type: Option<&'a [u8]>,
    encoded: bool,
    body: &'a [u8],
    depth: u8,
    parts: &mut usize,
    found: &mut SdpBodies<'a>,
) {
    if encoded {
        return;
    }
    let Some(content_type) = content_type else {
        if body.starts_with(b"v=0\r") || body.starts_with(b"v=0\n") {
            found.push(body);
        }
        return;
    };
    let (media_type, params) = split_once(content_type, b';').unwrap_or((content_type, &[]));
    if trim(media_type).eq_ignore_ascii_case(b"application/sdp") {
        found.push(body);
    } else if starts_with_ignore_case(trim(media_type), b"multipart/") && depth > 0 {
        let Some(boundary) = Params::after_semicolon(params).value_of(b"boundary").map(unquote) else { return };
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return;
        }
        for part in Parts::new(body, &boundary) {
            let Some(left) = parts.checked_sub(1) else { return };
            *parts = left;
            collect_part(part, depth.saturating_sub(1), parts, found);
        }
    }
}

fn collect_part<'a>(part: &'a [u8], depth: u8, parts: &mut usize, found: &mut SdpBodies<'a>) {
    let (mut content_type, mut encoded, mut at) = (None, false, 0);
    let body = loop {
        at = match line_at(part, at) {
            Line::Field { name, value, next } => {
                let (name, value) = (HeaderName::find(sub(part, name.0, name.1)), sub(part, value.0, value.1));
                if name == HeaderName::ContentType {
                    content_type = Some(value);
                } else if name == HeaderName::ContentEncoding {
                    encoded = is_encoding(value);
                }
                next
            }
            Line::NoColon { next } => next,
            Line::End { next } => break from(part, next),
            Line::Eof => return,
        };
    };
    collect(content_type, encoded, body, depth, parts, found);
}

fn is_encoding(value: &[u8]) -> bool {
    !trim(value).is_empty() && !trim(value).eq_ignore_ascii_case(b"identity")
}

/// The parts between the delimiter lines `--boundary`.
struct Parts<'a, 'b> {
    rest: &'a [u8],
    finder: memmem::Finder<'b>,
    boundary_len: usize,
    inside: bool,
}

impl<'a, 'b> Parts<'a, 'b> {
    fn new(body: &'a [u8], boundary: &'b [u8]) -> Self {
        Self { rest: body, finder: memmem::Finder::new(boundary), boundary_len: boundary.len(), inside: false }
    }

    /// Start and end of the next delimiter in `rest`, and whether it is the closing one. A delimiter begins a line.
    fn delimiter(&self) -> Option<(usize, usize, bool)> {
        let mut from_at = 0_usize;
        loop {
            let hit = from_at.saturating_add(self.finder.find(from(self.rest, from_at))?);
            let end = hit.saturating_add(self.boundary_len);
            let begins_line = hit.checked_sub(2).is_some_and(|dashes| {
                sub(self.rest, dashes, hit) == b"--" && (dashes == 0 || self.rest.get(dashes.wrapping_sub(1)) == Some(&b'\n'))
            });
            let after = from(self.rest, end);
            let ends_word = matches!(after.first(), None | Some(b'\r' | b'\n' | b' ' | b'\t' | b'-'));
            if begins_line && ends_word {
                return Some((hit.saturating_sub(2), end, after.starts_with(b"--")));
            }
            from_at = end;
        }
    }
}

impl<'a> Iterator for Parts<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (part, closing) = match self.delimiter() {
                Some((start, end, closing)) => {
                    let part = sub(self.rest, 0, start);
                    let after = from(self.rest, end);
                    let line = memchr::memchr(b'\n', after).map_or(after.len(), |i| i.saturating_add(1));
                    self.rest = from(after, line);
                    (part, closing)
                }
                // The closing delimiter is missing: the last part reaches to the end.
                None => (std::mem::take(&mut self.rest), true),
            };
            let was_inside = std::mem::replace(&mut self.inside, !closing);
            if closing {
                self.rest = &[];
            }
            if was_inside {
                // The line end before a delimiter belongs to the delimiter.
                let part = part.strip_suffix(b"\n").unwrap_or(part);
                return Some(part.strip_suffix(b"\r").unwrap_or(part));
            }
            if self.rest.is_empty() {
                return None;
            }
        }
    }
}
