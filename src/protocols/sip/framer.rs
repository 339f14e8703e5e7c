//! Messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1): one framer per direction of one TCP connection.
//!
//! ```text
//!           start line          empty line, Content-Length n      n bytes there
//!   Start ─────────────▶ Headers ──────────────────────────▶ Body ─────────────▶ Message, Start
//!     │ anything else      │ line > 8 KiB, > 256 KiB
//!     ▼                    ▼
//!   Resync ◀───────────────┘      Resync ── next line that is a start line ──▶ Headers
//! ```
//!
//! The framer owns no bytes. The caller keeps them, gives all it has not yet been told to drop, and drops what each answer names.
//!
//! Promises: every byte is looked at a bounded number of times, however small the pieces; an error costs one message, not the connection;
//! of an incomplete message at most 256 KiB need be kept. Refuses: a Content-Length above the limits — the headers are given as a message
//! of their own and the body is skipped.

use super::{
    MAX_CONTENT_LENGTH, MAX_LINE, MAX_MESSAGE,
    header::{ContentLength, HeaderName, Line, line_at},
    start::{self, Start},
};
use crate::protocols::text::{from, sub, upto};

/// What to do with the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// Nothing yet; ask again when there are more bytes.
    NeedMore,
    /// Drop this many bytes: keep-alives, or what could not be framed.
    Skip(usize),
    /// The first `n` bytes are one message; then drop them.
    Message(usize),
}

/// Where the framer stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages.
    Start,
    /// Looking for the next start line. `joined`: the front of the buffer may be the tail of a line.
    Resync { joined: bool },
    /// In the middle of a line that is no start line.
    SkipLine,
    /// A start line stands at the front; lines before `scan` belong to the headers, `seen` bytes hold no further LF.
    Headers { scan: usize, seen: usize },
    /// The message at the front ends at `end`, its body begins at `body`.
    Body { body: usize, end: usize },
    /// That many bytes belong to a body that is too long to keep.
    SkipBody { left: u64 },
}

/// Finds message boundaries in one direction of a stream.
#[derive(Clone, Debug)]
pub struct Framer {
    state: State,
    /// Bytes of the line at the front known to hold no LF (states `Start` and `Resync`).
    scanned: usize,
    counts: Framing,
}

/// What could not be framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// Times framing was lost, gaps and bounds included.
    pub errors: u64,
    /// Of these, lines that were too long.
    pub line_too_long: u64,
    /// Of these, messages that were too long, or would be with the body that is announced.
    pub too_long: u64,
    /// Of these, lengths announced that no message may have.
    pub length_too_long: u64,
    /// Bytes skipped that were not keep-alives.
    pub skipped_bytes: u64,
}

impl Framing {
    const NONE: Self = Self { errors: 0, line_too_long: 0, too_long: 0, length_too_long: 0, skipped_bytes: 0 };
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// A framer at the beginning of a connection.
    pub const fn new() -> Self {
        Self { state: State::Start, scanned: 0, counts: Framing::NONE }
    }

    /// A framer for a connection whose beginning was not seen: the first line counts only when it cannot be the tail of another.
    pub const fn mid_stream() -> Self {
        Self { state: State::Resync { joined: true }, scanned: 0, counts: Framing::NONE }
    }

    /// What could not be framed so far.
    pub const fn counts(&self) -> Framing {
        self.counts
    }

    /// Says what the front of `buf` is. `buf` holds every byte not yet dropped.
    pub fn next(&mut self, buf: &[u8]) -> Framed {
        loop {
            let step = match self.state {
                State::Start => self.at_start(buf),
                State::Resync { joined } => self.resync(buf, joined),
                State::SkipLine => Some(self.skip_line(buf)),
                State::Headers { scan, seen } => self.headers(buf, scan, seen),
                State::Body { end, .. } => Some(self.body(buf, end)),
                State::SkipBody { left } => Some(self.skip_body(buf, left)),
            };
            if let Some(framed) = step {
                return framed;
            }
        }
    }

    /// Bytes are missing after `buf`. Gives the length of a message whose headers are complete and whose body is cut, if there is one; the
    /// caller then drops the whole buffer.
    pub fn gap(&mut self, buf: &[u8]) -> Option<usize> {
        let cut = self.close(buf);
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.state = State::Resync { joined: true };
        cut
    }

    /// The stream ends after `buf`. Gives the length of a message whose headers are complete and whose body is cut, if there is one.
    pub fn close(&mut self, buf: &[u8]) -> Option<usize> {
        let cut = if let State::Body { body, end } = self.state { (buf.len() >= body).then(|| buf.len().min(end)) } else { None };
        self.count_skipped(buf.len().saturating_sub(cut.unwrap_or(0)));
        self.restart(State::Start);
        cut
    }

    fn restart(&mut self, state: State) {
        self.state = state;
        self.scanned = 0;
    }

    fn lose(&mut self) {
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.restart(State::Resync { joined: false });
    }

    fn count_skipped(&mut self, n: usize) {
        self.counts.skipped_bytes = self.counts.skipped_bytes.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
    }

    fn skip(&mut self, n: usize) -> Framed {
        self.count_skipped(n);
        self.scanned = 0;
        Framed::Skip(n)
    }

    fn at_start(&mut self, buf: &[u8]) -> Option<Framed> {
        let keep_alive = start::leading_crlf(buf);
        if keep_alive > 0 {
            self.scanned = 0;
            return Some(Framed::Skip(keep_alive));
        }
        if buf.is_empty() {
            return Some(Framed::NeedMore);
        }
        match self.find_lf(buf) {
            Some(lf) if start::parse(sub(buf, 0, lf)).is_some() => self.enter_headers(lf),
            None if buf.len() < MAX_LINE && start::could_begin(buf) => return Some(Framed::NeedMore),
            _ => self.lose(),
        }
        None
    }

    fn enter_headers(&mut self, lf: usize) {
        let next = lf.saturating_add(1);
        self.restart(State::Headers { scan: next, seen: next });
    }

    /// The LF that ends the first line, looked for only in bytes not looked at before.
    fn find_lf(&mut self, buf: &[u8]) -> Option<usize> {
        let window = upto(buf, MAX_LINE);
        let found = memchr::memchr(b'\n', from(window, self.scanned)).map(|i| self.scanned.saturating_add(i));
        if found.is_none() {
            self.scanned = window.len();
        }
        found
    }

    /// Skips lines until one is a start line. What is skipped is given back in one piece per call.
    fn resync(&mut self, buf: &[u8], mut joined: bool) -> Option<Framed> {
        let mut at = 0_usize;
        loop {
            let line = from(buf, at);
            let lf = memchr::memchr(b'\n', from(upto(line, MAX_LINE), if at == 0 { self.scanned } else { 0 }))
                .map(|i| if at == 0 { self.scanned.saturating_add(i) } else { i });
            let Some(lf) = lf else {
                return Some(self.resync_partial(buf, at, joined));
            };
            if is_start(sub(line, 0, lf), joined) {
                if at == 0 {
                    self.enter_headers(lf);
                    return None;
                }
                self.state = State::Start;
                return Some(self.skip(at));
            }
            joined = false;
            at = at.saturating_add(lf).saturating_add(1);
        }
    }

    /// The bytes at `at` have no LF yet: keep them if they may become a start line, else skip them too.
    fn resync_partial(&mut self, buf: &[u8], at: usize, joined: bool) -> Framed {
        let line = from(buf, at);
        let possible = line.len() < MAX_LINE && (line.is_empty() || start::could_begin(line));
        if at > 0 && possible {
            self.state = State::Resync { joined };
            return self.skip(at);
        }
        if possible {
            self.state = State::Resync { joined };
            self.scanned = line.len();
            return Framed::NeedMore;
        }
        let end = self.pass_line(buf, at);
        self.skip(end)
    }

    /// Leaves the line at `at` behind, whatever it is: gives where the next line begins, or the end of the buffer with the rest of the line
    /// still to come.
    fn pass_line(&mut self, buf: &[u8], at: usize) -> usize {
        let lf = memchr::memchr(b'\n', from(buf, at));
        self.restart(if lf.is_some() { State::Resync { joined: false } } else { State::SkipLine });
        lf.map_or(buf.len(), |i| at.saturating_add(i).saturating_add(1))
    }

    fn skip_line(&mut self, buf: &[u8]) -> Framed {
        if buf.is_empty() {
            return Framed::NeedMore;
        }
        let end = self.pass_line(buf, 0);
        self.skip(end)
    }

    fn headers(&mut self, buf: &[u8], mut scan: usize, mut seen: usize) -> Option<Framed> {
        loop {
            let Some(lf) = memchr::memchr(b'\n', from(buf, seen)).map(|i| seen.saturating_add(i)) else {
                if buf.len().saturating_sub(scan) > MAX_LINE || buf.len() > MAX_MESSAGE {
                    return Some(self.give_up(buf, scan, buf.len()));
                }
                self.state = State::Headers { scan, seen: buf.len() };
                return Some(Framed::NeedMore);
            };
            if lf.saturating_sub(scan) > MAX_LINE || lf >= MAX_MESSAGE {
                return Some(self.give_up(buf, scan, lf));
            }
            let next = lf.saturating_add(1);
            if matches!(sub(buf, scan, lf), b"" | b"\r") {
                return self.end_of_headers(buf, next);
            }
            (scan, seen) = (next, next);
        }
    }

    /// The message at the front cannot be framed: it is skipped with the line from `scan` to `end`, which is too long or one too many. Its lines are
    /// not tried again as start lines, or a block of start lines would cost a scan each.
    fn give_up(&mut self, buf: &[u8], scan: usize, end: usize) -> Framed {
        let is_line = end.saturating_sub(scan) > MAX_LINE;
        let counter = if is_line { &mut self.counts.line_too_long } else { &mut self.counts.too_long };
        *counter = counter.saturating_add(1);
        self.lose();
        let end = self.pass_line(buf, scan);
        self.skip(end)
    }

    fn end_of_headers(&mut self, buf: &[u8], body: usize) -> Option<Framed> {
        match content_length(sub(buf, 0, body)) {
            ContentLength::Is(length) if length <= MAX_CONTENT_LENGTH => {
                let end = usize::try_from(length).map_or(usize::MAX, |length| body.saturating_add(length));
                if end <= MAX_MESSAGE {
                    self.state = State::Body { body, end };
                    return None;
                }
                self.counts.too_long = self.counts.too_long.saturating_add(1);
                self.counts.errors = self.counts.errors.saturating_add(1);
                self.restart(State::SkipBody { left: length });
            }
            // RFC 3261 §18.3 makes it mandatory. Without it the body, if any, is found out by resynchronising.
            ContentLength::Absent => self.restart(State::Start),
            ContentLength::Is(_) => {
                self.counts.length_too_long = self.counts.length_too_long.saturating_add(1);
                self.lose();
            }
            ContentLength::Bad => self.lose(),
        }
        Some(Framed::Message(body))
    }

    fn body(&mut self, buf: &[u8], end: usize) -> Framed {
        if buf.len() < end {
            return Framed::NeedMore;
        }
        self.restart(State::Start);
        Framed::Message(end)
    }

    fn skip_body(&mut self, buf: &[u8], left: u64) -> Framed {
        if buf.is_empty() {
            return Framed::NeedMore;
        }
        let now = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let left = left.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX));
        self.state = if left == 0 { State::Start } else { State::SkipBody { left } };
        self.skip(now)
    }
}

/// Whether a line is a start line. At the front of a stream joined in the middle, `VITE sip:… SIP/2.0` would be one too, so there the
/// method must be one of those that are in use.
fn is_start(line: &[u8], joined: bool) -> bool {
    match start::parse(line) {
        Some((Start::Response { .. }, _)) => true,
        Some((Start::Request { method, .. }, _)) => !joined || start::is_registered(method),
        None => false,
    }
}

/// The first Content-Length of a complete header block, in any legal spelling.
fn content_length(head: &[u8]) -> ContentLength {
    let mut at = memchr::memchr(b'\n', head).map_or(head.len(), |i| i.saturating_add(1));
    loop {
        at = match line_at(head, at) {
            Line::Field { name, value, next } => {
                let name = sub(head, name.0, name.1);
                if matches!(name.len(), 1 | 14) && HeaderName::find(name) == HeaderName::ContentLength {
                    return ContentLength::read(sub(head, value.0, value.1));
                }
                next
            }
            Line::NoColon { next } => next,
            Line::End { .. } | Line::Eof => return ContentLength::Absent,
        };
    }
}
