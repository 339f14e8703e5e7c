//! What could not be read, by protocol, and what was read only up to a bound.
//!
//! To add a bound: a variant of [`ParseLimit`], its line in [`ParseLimit::names`], and a way to reach it in `tests/limits.rs`.

use crate::protocols::sip::Malformed;
use crate::protocols::{sdp, sip, ws};
use crate::voip::table::TableCounters;

/// What is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// Link and network headers of a frame, up to and with the transport's.
    Frame,
    /// Fragments of IP: cut, empty, of odd length, overlapping, beyond the longest datagram.
    Ip,
    /// Segments of TCP that disagree with bytes that came before.
    Tcp,
    /// Messages that break a rule their index knows of, what came as SIP and is none, and places in a stream where no message begins.
    Sip,
    /// Frames that break RFC 6455, and SIP over it that is compressed.
    WebSocket,
    /// Bodies with lines that are none of SDP.
    Sdp,
    /// Media of a call that is no RTP, where streams are measured.
    Rtp,
    /// Reports of a call that break the rules, where streams are measured.
    Rtcp,
}

impl Proto {
    /// From the frame inwards.
    pub const ALL: [Self; 8] = [Self::Frame, Self::Ip, Self::Tcp, Self::Sip, Self::WebSocket, Self::Sdp, Self::Rtp, Self::Rtcp];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Ip => "ip",
            Self::Tcp => "tcp",
            Self::Sip => "sip",
            Self::WebSocket => "ws",
            Self::Sdp => "sdp",
            Self::Rtp => "rtp",
            Self::Rtcp => "rtcp",
        }
    }
}

/// A bound of a parser: what is beyond it is not looked at. The packets are stored all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseLimit {
    /// [`crate::packet::headers::MAX_DEPTH`].
    Encapsulations,
    /// [`crate::packet::defrag::Limits::max_fragments`].
    Fragments,
    /// [`sip::MAX_HEADERS`].
    Headers,
    /// [`sip::MAX_HEADER`], of a stream [`sip::MAX_LINE`].
    HeaderBytes,
    /// [`sip::MAX_MESSAGE`], with the body that is announced; of a stream.
    MessageBytes,
    /// [`sip::MAX_CONTENT_LENGTH`]; of a stream.
    ContentLength,
    /// [`ws::MAX_MESSAGE`].
    WebSocketBytes,
    /// [`sdp::MAX_MEDIA`].
    Media,
    /// [`sdp::MAX_FORMATS`].
    Formats,
    /// [`sdp::MAX_CANDIDATES`].
    Candidates,
    /// Places where a call waits for media: 64.
    Claims,
    /// Streams measured of a call: 64. Counted once for each packet of another.
    Streams,
}

impl ParseLimit {
    /// In the order of [`Proto::ALL`].
    pub const ALL: [Self; 12] = [
        Self::Encapsulations,
        Self::Fragments,
        Self::Headers,
        Self::HeaderBytes,
        Self::MessageBytes,
        Self::ContentLength,
        Self::WebSocketBytes,
        Self::Media,
        Self::Formats,
        Self::Candidates,
        Self::Claims,
        Self::Streams,
    ];

    /// The labels: protocol and bound.
    pub const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Encapsulations => ["frame", "encapsulations"],
            Self::Fragments => ["ip", "fragments"],
            Self::Headers => ["sip", "headers"],
            Self::HeaderBytes => ["sip", "header_bytes"],
            Self::MessageBytes => ["sip", "message_bytes"],
            Self::ContentLength => ["sip", "content_length"],
            Self::WebSocketBytes => ["ws", "message_bytes"],
            Self::Media => ["sdp", "media"],
            Self::Formats => ["sdp", "formats"],
            Self::Candidates => ["sdp", "candidates"],
            Self::Claims => ["sdp", "claims"],
            Self::Streams => ["rtp", "streams"],
        }
    }
}

/// Both, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsing {
    errors: [u64; Proto::ALL.len()],
    limits: [u64; ParseLimit::ALL.len()],
}

impl Parsing {
    /// What could not be read.
    pub fn errors(&self) -> impl Iterator<Item = (Proto, u64)> {
        Proto::ALL.into_iter().zip(self.errors)
    }

    /// What was read up to a bound.
    pub fn limits(&self) -> impl Iterator<Item = (ParseLimit, u64)> {
        ParseLimit::ALL.into_iter().zip(self.limits)
    }

    /// What could not be read, by label.
    pub fn named_errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.errors().map(|(proto, n)| (proto.name(), n))
    }

    /// What was read up to a bound, by labels.
    pub fn named_limits(&self) -> impl Iterator<Item = ([&'static str; 2], u64)> {
        self.limits().map(|(limit, n)| (limit.names(), n))
    }

    /// Adds what was counted after `before`.
    pub fn add_since(&mut self, before: &Self, now: &Self) {
        let since = before.errors.iter().chain(&before.limits).zip(now.errors.iter().chain(&now.limits));
        for (sum, (before, now)) in self.errors.iter_mut().chain(&mut self.limits).zip(since) {
            *sum = sum.saturating_add(now.saturating_sub(*before));
        }
    }

    /// How often this bound was reached.
    pub fn at(&self, limit: ParseLimit) -> u64 {
        self.limits.get(limit as usize).copied().unwrap_or(0)
    }

    pub(super) fn error(&mut self, of: Proto, n: u64) {
        add(self.errors.get_mut(of as usize), n);
    }

    pub(super) fn limit(&mut self, of: ParseLimit, n: u64) {
        add(self.limits.get_mut(of as usize), n);
    }

    pub(super) fn add(&mut self, o: &Self) {
        for (a, b) in self.errors.iter_mut().chain(&mut self.limits).zip(o.errors.iter().chain(&o.limits)) {
            *a = a.saturating_add(*b);
        }
    }

    /// What the index of one message says of it, and what its bodies say of themselves.
    pub(super) fn note_message(&mut self, marks: Malformed, sessions: &[sdp::Session]) {
        if marks.is_malformed() {
            self.error(Proto::Sip, 1);
            for (limit, mark) in [
                (ParseLimit::Headers, Malformed::TOO_MANY_HEADERS),
                (ParseLimit::HeaderBytes, Malformed::HEADER_TOO_LONG),
                (ParseLimit::MessageBytes, Malformed::MESSAGE_TOO_LONG),
            ] {
                self.limit(limit, u64::from(marks.contains(mark)));
            }
        }
        for s in sessions {
            self.error(Proto::Sdp, u64::from(s.bad_lines > 0));
            self.limit(ParseLimit::Media, u64::from(s.dropped_media > 0));
            self.limit(ParseLimit::Formats, u64::from(s.dropped_formats > 0));
            self.limit(ParseLimit::Candidates, u64::from(s.dropped_candidates > 0));
        }
    }

    /// What a call table counted.
    pub(super) fn note_table(&mut self, t: &TableCounters) {
        self.error(Proto::Rtp, t.bad_rtp);
        self.error(Proto::Rtcp, t.bad_rtcp);
        self.limit(ParseLimit::Claims, t.claims_refused);
        self.limit(ParseLimit::Streams, t.streams_refused);
    }

    /// What a framer counted since.
    pub(super) fn note_framing(&mut self, before: sip::Framing, now: sip::Framing) {
        if before == now {
            return;
        }
        let since = |of: fn(&sip::Framing) -> u64| of(&now).saturating_sub(of(&before));
        self.error(Proto::Sip, since(|c| c.errors));
        self.limit(ParseLimit::HeaderBytes, since(|c| c.line_too_long));
        self.limit(ParseLimit::MessageBytes, since(|c| c.too_long));
        self.limit(ParseLimit::ContentLength, since(|c| c.length_too_long));
    }

    /// What a WebSocket decoder counted since.
    pub(super) fn note_frames(&mut self, before: ws::Counts, now: ws::Counts) {
        if before == now {
            return;
        }
        let since = |of: fn(&ws::Counts) -> u64| of(&now).saturating_sub(of(&before));
        self.error(Proto::WebSocket, since(|c| c.errors).saturating_add(since(|c| c.compressed)));
        self.limit(ParseLimit::WebSocketBytes, since(|c| c.too_long));
    }
}

fn add(to: Option<&mut u64>, n: u64) {
    if let Some(to) = to {
        *to = to.saturating_add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_and_every_bound_has_its_place_and_its_own_name() {
        let mut names = std::collections::BTreeSet::new();
        for (n, limit) in ParseLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, n);
            assert!(names.insert(limit.names()), "{limit:?}");
            assert!(Proto::ALL.iter().any(|p| p.name() == limit.names()[0]), "{limit:?}");
        }
        for (n, proto) in Proto::ALL.into_iter().enumerate() {
            assert_eq!(proto as usize, n);
        }
    }
}
