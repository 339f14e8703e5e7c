//! SIP over WebSocket (RFC 6455, RFC 7118): one decoder per direction of one TCP connection.
//!
//! ```text
//! HTTP head (GET … | HTTP/1.1 101 …) CR LF CR LF  frame frame …
//! frame: FIN RSV opcode | MASK length7 | [length16 | length64] | [mask key] | payload
//! ```
//!
//! The decoder owns no bytes but those of a message that is masked or fragmented. The caller gives all it has not yet been told to drop,
//! and drops what each answer names. One WebSocket message is one SIP message; Content-Length does not frame it.
//!
//! Promises: any bytes in, no panic; every byte copied at most once; at most 256 KiB kept. Refuses: connections that were not upgraded to
//! the sub-protocol `sip`; compressed messages (RFC 7692), which are counted, not guessed; what follows a gap, until a frame begins that
//! holds SIP.

mod frame;
mod handshake;

#[cfg(test)]
mod tests;

pub use self::handshake::probe;

use self::frame::{Header, unmask};
use crate::protocols::sip::begins_like_sip;
use crate::protocols::text::{from, sub, upto};

/// Longest message, as on any stream.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// Longest HTTP head.
pub const MAX_HEAD: usize = 16 * 1024;
/// A buffer larger than this is given back after its message.
const KEEP_CAPACITY: usize = 16 * 1024;
/// Bytes of a payload that tell SIP from anything else: the longest registered method and a space fit.
const FRONT: usize = 16;

/// What to do with the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Nothing yet; ask again when there are more bytes.
    NeedMore,
    /// Drop this many bytes.
    Skip(usize),
    /// A message that ends after `consumed` bytes; then drop those.
    Message {
        /// Bytes to drop.
        consumed: usize,
        /// The SIP message.
        payload: &'a [u8],
    },
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were compressed.
    pub compressed: u64,
    /// Messages longer than [`MAX_MESSAGE`].
    pub too_long: u64,
    /// Frames that break RFC 6455.
    pub errors: u64,
    /// Bytes that could not be framed.
    pub skipped_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the end of the HTTP head; that many bytes hold no empty line.
    Head { scanned: usize },
    /// At a frame.
    Frame,
    /// Inside the payload of a frame nobody wants.
    SkipFrame { left: u64 },
    /// Framing is lost; a frame that begins like SIP finds it again.
    Lost,
    /// Not SIP over WebSocket.
    Foreign,
}

/// The fragments of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragments {
    None,
    Collecting,
    Discarding,
}

/// Finds messages in one direction of a WebSocket connection.
#[derive(Clone, Debug)]
pub struct Ws {
    state: State,
    fragments: Fragments,
    message: Vec<u8>,
    delivered: bool,
    counts: Counts,
}

impl Default for Ws {
    fn default() -> Self {
        Self::new()
    }
}

impl Ws {
    /// A decoder at the beginning of a connection: the HTTP head comes first.
    pub const fn new() -> Self {
        Self {
            state: State::Head { scanned: 0 },
            fragments: Fragments::None,
            message: Vec::new(),
            delivered: false,
            counts: Counts { compressed: 0, too_long: 0, errors: 0, skipped_bytes: 0 },
        }
    }

    /// A decoder for a connection known to be SIP over WebSocket whose beginning was not seen.
    pub const fn mid_stream() -> Self {
        let mut ws = Self::new();
        ws.state = State::Lost;
        ws
    }

    /// What was given up so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the head said that this is something else; everything is skipped then.
    pub fn is_foreign(&self) -> bool {
        self.state == State::Foreign
    }

    /// Payload bytes collected of a message whose last fragment is still to come. It grows when [`Self::next`] takes a fragment, and is 0
    /// when there is no such message.
    pub fn collected(&self) -> usize {
        if self.fragments == Fragments::Collecting && !self.delivered { self.message.len() } else { 0 }
    }

    /// Bytes are missing before the next call; the caller drops its buffer.
    pub fn gap(&mut self) {
        if self.state != State::Foreign {
            self.lose();
        }
    }

    /// Says what the front of `buf` is. `buf` holds every byte not yet dropped.
    pub fn next<'s>(&'s mut self, buf: &'s [u8]) -> Next<'s> {
        if std::mem::take(&mut self.delivered) {
            self.forget();
        }
        if buf.is_empty() {
            return Next::NeedMore;
        }
        match self.state {
            State::Head { scanned } => self.head(buf, scanned),
            State::Frame => self.frame(buf),
            State::SkipFrame { left } => self.skip_frame(buf, left),
            State::Lost if finds_sip(buf) => {
                self.state = State::Frame;
                self.frame(buf)
            }
            State::Lost | State::Foreign => self.skip_all(buf),
        }
    }

    fn head(&mut self, buf: &[u8], scanned: usize) -> Next<'static> {
        match handshake::end_of_head(buf, scanned) {
            Some(end) => {
                let upgraded = handshake::is_sip_upgrade(upto(buf, end), false);
                self.state = if upgraded { State::Frame } else { State::Foreign };
                Next::Skip(end)
            }
            None if buf.len() >= MAX_HEAD || !handshake::could_begin(buf) => {
                self.state = State::Foreign;
                self.skip_all(buf)
            }
            None => {
                self.state = State::Head { scanned: buf.len() };
                Next::NeedMore
            }
        }
    }

    fn frame<'s>(&'s mut self, buf: &'s [u8]) -> Next<'s> {
        let header = match Header::read(buf) {
            Ok(Some(header)) => header,
            Ok(None) => return Next::NeedMore,
            Err(_) => {
                self.lose();
                return self.skip_all(buf);
            }
        };
        if header.is_control() {
            let end = header.len.saturating_add(header.payload_len());
            return if buf.len() < end { Next::NeedMore } else { Next::Skip(end) };
        }
        self.begin(&header);
        if self.fragments == Fragments::Discarding {
            if header.fin {
                self.forget();
            }
            let now = header.len.min(buf.len());
            if header.payload > 0 {
                self.state = State::SkipFrame { left: header.payload };
            }
            return Next::Skip(now);
        }
        let end = header.len.saturating_add(header.payload_len());
        if buf.len() < end {
            return Next::NeedMore;
        }
        let payload = sub(buf, header.len, end);
        if header.fin && self.message.is_empty() && header.mask.is_none() {
            self.fragments = Fragments::None;
            return Next::Message { consumed: end, payload };
        }
        unmask(&mut self.message, payload, header.mask);
        if !header.fin {
            self.fragments = Fragments::Collecting;
            return Next::Skip(end);
        }
        self.delivered = true;
        Next::Message { consumed: end, payload: &self.message }
    }

    /// Decides what a data frame means for the message being collected. May be asked again for the same frame.
    fn begin(&mut self, header: &Header) {
        let first = !header.is_continuation();
        if first && self.fragments != Fragments::None {
            // A new message before the end of the last one.
            self.counts.errors = self.counts.errors.saturating_add(1);
            self.forget();
        }
        if !first && self.fragments == Fragments::None {
            self.counts.errors = self.counts.errors.saturating_add(1);
            self.fragments = Fragments::Discarding;
        } else if first && header.compressed {
            self.counts.compressed = self.counts.compressed.saturating_add(1);
            self.fragments = Fragments::Discarding;
        } else if self.fragments != Fragments::Discarding && header.payload_len().saturating_add(self.message.len()) > MAX_MESSAGE
        {
            self.counts.too_long = self.counts.too_long.saturating_add(1);
            self.message.clear();
            self.fragments = Fragments::Discarding;
        }
    }

    fn skip_frame(&mut self, buf: &[u8], left: u64) -> Next<'static> {
        let now = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let left = left.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX));
        self.state = if left == 0 { State::Frame } else { State::SkipFrame { left } };
        Next::Skip(now)
    }

    fn lose(&mut self) {
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.forget();
        self.state = State::Lost;
    }

    fn forget(&mut self) {
        self.fragments = Fragments::None;
        self.message.clear();
        self.message.shrink_to(KEEP_CAPACITY);
    }

    fn skip_all(&mut self, buf: &[u8]) -> Next<'static> {
        self.counts.skipped_bytes = self.counts.skipped_bytes.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        Next::Skip(buf.len())
    }
}

/// Whether an unfragmented data frame begins here and what it holds begins like SIP. Anything less would be a guess. The way to recognise a
/// connection whose upgrade was not seen; allocates nothing.
pub fn finds_sip(buf: &[u8]) -> bool {
    if !matches!(buf, [0x81 | 0x82, ..]) {
        return false;
    }
    let Ok(Some(header)) = Header::read(buf) else { return false };
    if header.payload_len() > MAX_MESSAGE {
        return false;
    }
    let key = header.mask.unwrap_or_default();
    let mut front = [0; FRONT];
    let mut len = 0;
    for ((to, &byte), key) in front.iter_mut().zip(from(buf, header.len)).zip(key.iter().cycle()) {
        *to = byte ^ key;
        len += 1;
    }
    begins_like_sip(upto(&front, len))
}
