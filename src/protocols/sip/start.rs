//! The first line: is this SIP, and if so what?
//!
//! Promises: nothing beyond the first line is read; binary payloads are refused on their first byte. Start lines that break the grammar
//! (RFC 4475 §3.1.2) are read and marked. Refuses: everything whose first line names another protocol (HTTP, RTSP, SSDP, NATS …).

use super::{MAX_LINE, malformed::Malformed};
use crate::protocols::text::{decimal, from, is_token_byte, split_once, starts_with_ignore_case, sub, upto};

/// Longest method that is believed; the longest in RFC 4475 has 45 bytes.
const MAX_METHOD: usize = 64;

/// What a look at the first bytes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A SIP start line.
    Yes,
    /// Not SIP.
    No,
    /// The first line is not complete and could still become a SIP start line.
    NeedMore,
}

/// The start line (RFC 3261 §7.1, §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request.
    Request {
        /// As written; methods are case-sensitive.
        method: &'a [u8],
        /// As written, outer white space removed; may be malformed, see [`Malformed`].
        uri: &'a [u8],
    },
    /// A response.
    Response {
        /// 0 when it does not fit three digits (marked).
        status: u16,
        /// As written; often empty, often not ASCII.
        reason: &'a [u8],
    },
}

/// Looks at the first line of `payload`.
#[inline]
pub fn probe(payload: &[u8]) -> Probe {
    let line = from(payload, leading_crlf(payload));
    // RTP, RTCP, STUN, DTLS, DNS: the first byte settles it.
    match line.first() {
        Some(b) if is_token_byte(*b) => probe_text(line),
        Some(_) => Probe::No,
        None => Probe::NeedMore,
    }
}

fn probe_text(line: &[u8]) -> Probe {
    if !could_begin(line) {
        return Probe::No;
    }
    match memchr::memchr(b'\n', upto(line, MAX_LINE)) {
        Some(end) if parse(sub(line, 0, end)).is_some() => Probe::Yes,
        Some(_) => Probe::No,
        None if line.len() >= MAX_LINE => Probe::No,
        None => Probe::NeedMore,
    }
}

/// Number of CR and LF bytes at the front (RFC 3261 §7.5: ignored before a start line).
#[inline]
pub(super) fn leading_crlf(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count()
}

/// Whether a line that begins like this can still be a start line: `SIP/…`, or a method, a space and no slash.
#[inline]
pub(super) fn could_begin(line: &[u8]) -> bool {
    let method = line.iter().take(MAX_METHOD.saturating_add(1)).take_while(|b| is_token_byte(**b)).count();
    match line.get(method) {
        None => method <= MAX_METHOD,
        Some(b'/') => starts_with_ignore_case(line, b"SIP/"),
        // `GET / HTTP/1.1`: no Request-URI begins with a slash.
        Some(b' ' | b'\t') => (1..=MAX_METHOD).contains(&method) && line.get(method.saturating_add(1)) != Some(&b'/'),
        Some(_) => false,
    }
}

/// Reads one line without its LF; `None` when it is no SIP start line.
pub(super) fn parse(line: &[u8]) -> Option<(Start<'_>, Malformed)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if starts_with_ignore_case(line, b"SIP/") { response(line) } else { request(line) }
}

fn response(line: &[u8]) -> Option<(Start<'_>, Malformed)> {
    let space = line.iter().position(|b| is_blank(*b))?;
    let (version, rest) = (sub(line, 0, space), from(line, space.saturating_add(1)));
    let mut marks = version_marks(version)?;
    let status_at = rest.iter().position(|b| !is_blank(*b))?;
    marks |= Malformed::START_LINE_WHITESPACE.when(status_at != 0);
    let rest = from(rest, status_at);
    let status_len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if status_len == 0 || rest.get(status_len).is_some_and(|b| !is_blank(*b)) {
        return None;
    }
    let status = if status_len == 3 { decimal(sub(rest, 0, 3)).and_then(|s| u16::try_from(s).ok()).unwrap_or(0) } else { 0 };
    marks |= Malformed::BAD_STATUS.when(!(100..=699).contains(&status));
    Some((Start::Response { status, reason: from(rest, status_len.saturating_add(1)) }, marks))
}

fn request(line: &[u8]) -> Option<(Start<'_>, Malformed)> {
    let mut marks = Malformed::NONE;
    let trimmed = trim_end(line);
    marks |= Malformed::START_LINE_WHITESPACE.when(trimmed.len() != line.len());
    let version_at = trimmed.iter().rposition(|b| is_blank(*b))?.saturating_add(1);
    marks |= version_marks(from(trimmed, version_at))?;
    let method_len = trimmed.iter().take_while(|b| is_token_byte(**b)).count();
    if !(1..=MAX_METHOD).contains(&method_len) || !trimmed.get(method_len).copied().is_some_and(is_blank) {
        return None;
    }
    let between = sub(trimmed, method_len.saturating_add(1), version_at.saturating_sub(1));
    if between.first() == Some(&b'/') {
        // as `could_begin` has it, or a stream would read otherwise in other pieces
        return None;
    }
    let uri = trim_end(between);
    let uri = from(uri, uri.iter().take_while(|b| is_blank(**b)).count());
    marks |= if uri.is_empty() {
        Malformed::NO_REQUEST_URI
    } else {
        Malformed::START_LINE_WHITESPACE.when(uri.len() != between.len())
    };
    Some((Start::Request { method: sub(trimmed, 0, method_len), uri }, marks))
}

/// `None` when this is not `SIP/` and a version number. The name is case-insensitive (RFC 3261 §7.1).
fn version_marks(version: &[u8]) -> Option<Malformed> {
    let number = version.get(4..).filter(|_| starts_with_ignore_case(version, b"SIP/"))?;
    if number == b"2.0" {
        return Some(Malformed::NONE);
    }
    let plausible = number.first().is_some_and(u8::is_ascii_digit) && number.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    plausible.then_some(Malformed::BAD_VERSION)
}

/// Whether a method is one of the IANA registry.
pub(super) fn is_registered(method: &[u8]) -> bool {
    METHODS.contains(&method)
}

/// Whether `bytes` begins with `SIP/2.0` or a registered method and a space: a guess for places where no line end can be waited for.
pub fn begins_like_sip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"SIP/2.0 ") || split_once(bytes, b' ').is_some_and(|(method, _)| is_registered(method))
}

/// The methods of the IANA registry.
const METHODS: [&[u8]; 14] = [
    b"INVITE",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"REGISTER",
    b"OPTIONS",
    b"PRACK",
    b"SUBSCRIBE",
    b"NOTIFY",
    b"PUBLISH",
    b"INFO",
    b"REFER",
    b"MESSAGE",
    b"UPDATE",
];

const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &[u8]) -> (&[u8], &[u8], Malformed) {
        match parse(line) {
            Some((Start::Request { method, uri }, marks)) => (method, uri, marks),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_any_method_and_any_version_case() {
        assert_eq!(request(b"INVITE sip:a@b SIP/2.0\r"), (&b"INVITE"[..], &b"sip:a@b"[..], Malformed::NONE));
        assert_eq!(request(b"NEWMETHOD sip:a@b SIP/2.0").0, b"NEWMETHOD");
        assert_eq!(request(b"RE%47IST%45R sip:a sip/2.0").2, Malformed::NONE);
        assert_eq!(request(b"OPTIONS sip:a@b SIP/7.0").2, Malformed::BAD_VERSION);
    }

    #[test]
    fn marks_start_lines_that_break_the_grammar() {
        assert_eq!(request(b"INVITE  sip:a@b  SIP/2.0"), (&b"INVITE"[..], &b"sip:a@b"[..], Malformed::START_LINE_WHITESPACE));
        assert_eq!(request(b"INVITE sip:a@b SIP/2.0  ").2, Malformed::START_LINE_WHITESPACE);
        assert_eq!(request(b"INVITE sip:a@b; lr SIP/2.0").1, b"sip:a@b; lr");
        assert_eq!(request(b"INVITE SIP/2.0").2, Malformed::NO_REQUEST_URI);
    }

    #[test]
    fn reads_responses_with_any_reason() {
        assert_eq!(parse(b"SIP/2.0 100 "), Some((Start::Response { status: 100, reason: b"" }, Malformed::NONE)));
        assert_eq!(parse(b"SIP/2.0 100"), Some((Start::Response { status: 100, reason: b"" }, Malformed::NONE)));
        assert_eq!(parse(b"SIP/2.0 200 = 2**3"), Some((Start::Response { status: 200, reason: b"= 2**3" }, Malformed::NONE)));
        assert_eq!(parse(b"SIP/2.0 4294967301 x"), Some((Start::Response { status: 0, reason: b"x" }, Malformed::BAD_STATUS)));
        assert_eq!(parse(b"SIP/2.0 OK"), None);
    }

    #[test]
    fn every_beginning_of_a_start_line_could_begin_one() {
        for line in ["INVITE sip:a@b SIP/2.0", "SIP/2.0 200 OK", "SIP2 /a b SIP/1.0", "X  /a SIP/2.0", "SIP /a SIP/2.0"] {
            let is_one = parse(line.as_bytes()).is_some();

            assert!(!is_one || (1..=line.len()).all(|n| could_begin(upto(line.as_bytes(), n))), "{line}");
        }
    }

    #[test]
    fn refuses_other_protocols() {
        for other in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET http://a/ HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"OPTIONS rtsp://a/b RTSP/1.0\r\n\r\n",
            b"RTSP/1.0 200 OK\r\n\r\n",
            b"NOTIFY * HTTP/1.1\r\n\r\n",
            b"M-SEARCH * HTTP/1.1\r\n\r\n",
            b"PUB foo 5\r\nhello\r\n",
            b"INFO {\"server_id\":\"x\"}\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"220 mail ESMTP\r\n",
            b"EHLO a\r\n",
            b"\x80\x00\x12\x34aaaa\n",
            b"\x16\x03\x01\x02\x00",
            b"jaK ",
        ] {
            assert_ne!(probe(other), Probe::Yes, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn skips_keep_alives_and_asks_for_the_rest_of_a_line() {
        assert_eq!(probe(b"\r\n\r\nINVITE sip:a@b SIP/2.0\n"), Probe::Yes);
        assert_eq!(probe(b"\r\n\r\n"), Probe::NeedMore);
        assert_eq!(probe(b"INV"), Probe::NeedMore);
        assert_eq!(probe(b"SIP/2.0 20"), Probe::NeedMore);
        assert_eq!(probe(b"HTTP/1.1 20"), Probe::No);
        assert_eq!(probe(b"GET /x"), Probe::No);
    }
}
