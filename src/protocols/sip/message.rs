//! The index of one SIP message: where its parts are, not yet what they mean.
//!
//! ```text
//! [CR LF …] start line CR LF ( name [LWS] ":" value [CR LF LWS …] CR LF )* CR LF body
//! ```
//!
//! Promises: one pass over the headers, slices of the input, no heap below 41 headers; every message with a SIP start line is indexed, and
//! what is wrong with it is marked. Refuses: bytes without a SIP start line. Where a header that may stand once stands twice, the first
//! counts.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    MAX_HEADER, MAX_HEADERS, MAX_LINE, MAX_MESSAGE,
    address::NameAddr,
    header::{ContentLength, HeaderName, Line, line_at},
    malformed::Malformed,
    start::{self, Start},
    value::{Elements, Params, unfold},
};
use crate::protocols::text::{decimal, from, is_token, next_word, sub, trim, upto};

/// Headers kept without touching the heap; real messages have 8 to 30.
const INLINE_HEADERS: usize = 40;

/// One header, as offsets into the message.
#[derive(Clone, Copy, Debug)]
struct Header {
    name: HeaderName,
    name_len: u16,
    at: u32,
    value: u32,
    end: u32,
}

/// One indexed message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    start: Start<'a>,
    headers: SmallVec<[Header; INLINE_HEADERS]>,
    seen: u64,
    content_length: ContentLength,
    body_at: usize,
    marks: Malformed,
}

/// `CSeq` (RFC 3261 §20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number; `u32::MAX` when it is larger (marked).
    pub number: u32,
    /// The method, as written.
    pub method: &'a [u8],
}

impl<'a> Message<'a> {
    /// Indexes one datagram, or one WebSocket message: the body ends where the bytes end (RFC 3261 §18.3).
    pub fn index(bytes: &'a [u8]) -> Option<Self> {
        let marks = Malformed::MESSAGE_TOO_LONG.when(bytes.len() > MAX_MESSAGE);
        let bytes = upto(bytes, MAX_MESSAGE);
        let start_at = start::leading_crlf(bytes);
        let line = from(bytes, start_at);
        let line_len = memchr::memchr(b'\n', upto(line, MAX_LINE));
        let (start, start_marks) = start::parse(upto(line, line_len.unwrap_or(line.len().min(MAX_LINE))))?;
        let headers_at = start_at.saturating_add(line_len.map_or(line.len(), |len| len.saturating_add(1)));
        let mut message = Self {
            bytes,
            start,
            headers: SmallVec::new(),
            seen: 0,
            content_length: ContentLength::Absent,
            body_at: bytes.len(),
            marks: marks | start_marks,
        };
        message.index_headers(headers_at);
        message.check_presence();
        Some(message)
    }

    /// Indexes one message cut from a stream, where Content-Length is mandatory and counts as 0 when it is missing.
    pub fn index_framed(bytes: &'a [u8]) -> Option<Self> {
        let mut message = Self::index(bytes)?;
        if message.content_length == ContentLength::Absent {
            message.marks |= Malformed::NO_CONTENT_LENGTH;
        }
        Some(message)
    }

    #[inline]
    fn index_headers(&mut self, mut at: usize) {
        if matches!(self.bytes.get(at), Some(b' ' | b'\t')) {
            self.marks |= Malformed::LEADING_FOLD;
        }
        loop {
            at = match line_at(self.bytes, at) {
                Line::Field { name, value, next } => {
                    self.add_header(name, value);
                    next
                }
                Line::NoColon { next } => {
                    self.marks |= Malformed::HEADER_WITHOUT_COLON;
                    next
                }
                Line::End { next } => {
                    self.body_at = next;
                    return;
                }
                Line::Eof => {
                    self.marks |= Malformed::HEADERS_UNTERMINATED;
                    return;
                }
            };
        }
    }

    #[inline]
    fn add_header(&mut self, name_at: (usize, usize), value_at: (usize, usize)) {
        if self.headers.len() >= MAX_HEADERS {
            self.marks |= Malformed::TOO_MANY_HEADERS;
            return;
        }
        let written = sub(self.bytes, name_at.0, name_at.1);
        let name = HeaderName::find(written);
        let (value, mut end) = value_at;
        if end.saturating_sub(name_at.0) > MAX_HEADER {
            self.marks |= Malformed::HEADER_TOO_LONG;
            end = end.min(value.saturating_add(MAX_HEADER));
        }
        if name == HeaderName::Other {
            self.marks |= Malformed::BAD_HEADER_NAME.when(!is_token(written));
        } else if name == HeaderName::ContentLength {
            self.add_content_length(ContentLength::read(sub(self.bytes, value, end)));
        } else if name.is_single() {
            self.marks |= Malformed::DUPLICATE_HEADER.when(self.has(name));
        }
        self.seen |= name.bit();
        self.headers.push(Header {
            name,
            name_len: u16::try_from(written.len()).unwrap_or(u16::MAX),
            at: offset(name_at.0),
            value: offset(value),
            end: offset(end),
        });
    }

    fn add_content_length(&mut self, says: ContentLength) {
        self.marks |= Malformed::BAD_CONTENT_LENGTH.when(says == ContentLength::Bad);
        if self.content_length == ContentLength::Absent {
            self.content_length = says;
        } else {
            self.marks |= Malformed::CONTENT_LENGTH_CONFLICT.when(self.content_length != says);
        }
    }

    fn check_presence(&mut self) {
        for (name, mark) in [
            (HeaderName::CallId, Malformed::NO_CALL_ID),
            (HeaderName::From, Malformed::NO_FROM),
            (HeaderName::To, Malformed::NO_TO),
            (HeaderName::CSeq, Malformed::NO_CSEQ),
            (HeaderName::Via, Malformed::NO_VIA),
        ] {
            self.marks |= mark.when(!self.has(name));
        }
        if let ContentLength::Is(length) = self.content_length {
            let there = self.bytes.len().saturating_sub(self.body_at);
            self.marks |= Malformed::CONTENT_LENGTH_TOO_LONG.when(usize::try_from(length).map_or(true, |l| l > there));
        }
    }

    /// The whole message.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The start line.
    pub const fn start(&self) -> Start<'a> {
        self.start
    }

    /// The method of a request.
    pub const fn method(&self) -> Option<&'a [u8]> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The status of a response.
    pub const fn status(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// Whether there is at least one header called `name`.
    #[inline]
    pub const fn has(&self, name: HeaderName) -> bool {
        self.seen & name.bit() != 0
    }

    /// Every header in order: its known name, its name as written, its value as written (folding kept).
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, &'a [u8], &'a [u8])> {
        let bytes = self.bytes;
        self.headers.iter().map(move |h| {
            let at = index(h.at);
            (h.name, sub(bytes, at, at.saturating_add(usize::from(h.name_len))), sub(bytes, index(h.value), index(h.end)))
        })
    }

    /// The values of all headers called `name`, as written: comma lists split where the header is a list, folding kept.
    #[inline]
    pub fn raw_values(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let (bytes, list) = (self.bytes, name.is_list());
        let headers = if self.has(name) { self.headers.as_slice() } else { &[] };
        headers.iter().filter(move |h| h.name == name).flat_map(move |h| {
            let value = sub(bytes, index(h.value), index(h.end));
            if list { Elements::list(value) } else { Elements::single(value) }
        })
    }

    /// The values of all headers called `name`, unfolded and trimmed.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = Cow<'a, [u8]>> {
        self.raw_values(name).map(unfold)
    }

    /// The first value of the first header called `name`, unfolded and trimmed.
    pub fn first(&self, name: HeaderName) -> Option<Cow<'a, [u8]>> {
        self.first_raw(name).map(unfold)
    }

    #[inline]
    pub(super) fn first_raw(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.raw_values(name).next()
    }

    /// The Call-ID (RFC 3261 §20.8): case-sensitive. `None` when missing or empty.
    pub fn call_id(&self) -> Option<Cow<'a, [u8]>> {
        self.first(HeaderName::CallId).filter(|id| !id.is_empty())
    }

    /// The `CSeq`; `None` when missing or when it does not begin with a number.
    pub fn cseq(&self) -> Option<CSeq<'a>> {
        let mut rest = self.first_raw(HeaderName::CSeq)?;
        let number = next_word(&mut rest)?;
        if !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = decimal(number).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        Some(CSeq { number, method: next_word(&mut rest).unwrap_or_default() })
    }

    /// The `From`.
    pub fn from(&self) -> Option<NameAddr<'a>> {
        self.first_raw(HeaderName::From).map(NameAddr::parse)
    }

    /// The `To`.
    pub fn to(&self) -> Option<NameAddr<'a>> {
        self.first_raw(HeaderName::To).map(NameAddr::parse)
    }

    /// Every `Contact`, `*` included.
    pub fn contacts(&self) -> impl Iterator<Item = NameAddr<'a>> {
        self.raw_values(HeaderName::Contact).filter(|value| !value.is_empty()).map(NameAddr::parse)
    }

    /// The branch of the topmost Via (RFC 3261 §8.1.1.7); `None` when missing or empty.
    pub fn via_branch(&self) -> Option<&'a [u8]> {
        via_param(self.first_raw(HeaderName::Via)?, b"branch").filter(|branch| !branch.is_empty())
    }

    /// The media type of the body without its parameters, as written.
    pub fn content_type(&self) -> Option<&'a [u8]> {
        let value = self.first_raw(HeaderName::ContentType)?;
        Some(trim(value.split(|b| *b == b';').next().unwrap_or_default()))
    }

    /// What the first Content-Length says; `None` when missing or not a number.
    pub const fn content_length(&self) -> Option<u64> {
        match self.content_length {
            ContentLength::Is(length) => Some(length),
            ContentLength::Absent | ContentLength::Bad => None,
        }
    }

    /// The body: up to Content-Length, or to the end when that is missing, wrong or beyond the end (RFC 3261 §18.3).
    pub fn body(&self) -> &'a [u8] {
        let rest = from(self.bytes, self.body_at);
        match self.content_length {
            ContentLength::Is(length) => usize::try_from(length).map_or(rest, |length| upto(rest, length)),
            ContentLength::Absent | ContentLength::Bad => rest,
        }
    }

    /// The marks the index itself set, at no further cost; [`Self::malformed`] looks deeper.
    pub const fn marks(&self) -> Malformed {
        self.marks
    }
}

/// One parameter of a Via value.
pub(super) fn via_param<'a>(via: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let semicolon = memchr::memchr(b';', via)?;
    Params::after_semicolon(from(via, semicolon.saturating_add(1))).value_of(name)
}

/// Offsets fit: a message is at most [`MAX_MESSAGE`] long.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
