//! The HTTP exchange that opens the connection (RFC 6455 §4, RFC 7118 §4).

use memchr::memmem;

use super::MAX_HEAD;
use crate::protocols::sip::Probe;
use crate::protocols::text::{next_line, split_once, sub, trim, upto};

/// Whether `payload`, the first bytes of a connection's direction, opens SIP over WebSocket: `GET` with the sub-protocol `sip`, or the 101
/// that grants it.
pub fn probe(payload: &[u8]) -> Probe {
    if !could_begin(payload) {
        return Probe::No;
    }
    match end_of_head(payload, 0) {
        Some(end) if is_sip_upgrade(upto(payload, end), true) => Probe::Yes,
        None if payload.len() < MAX_HEAD => Probe::NeedMore,
        Some(_) | None => Probe::No,
    }
}

/// Whether bytes that begin like this can become a head.
pub(super) fn could_begin(bytes: &[u8]) -> bool {
    [&b"GET "[..], b"HTTP/1.1 101"].iter().any(|start| {
        let n = start.len().min(bytes.len());
        upto(start, n) == upto(bytes, n)
    })
}

/// Where the head ends: behind its empty line. The first `scanned` bytes are known to hold none.
pub(super) fn end_of_head(buf: &[u8], scanned: usize) -> Option<usize> {
    let begin = scanned.saturating_sub(3);
    let window = sub(buf, begin, buf.len().min(MAX_HEAD));
    memmem::find(window, b"\r\n\r\n").map(|i| begin.saturating_add(i).saturating_add(4))
}

/// Whether a complete head upgrades to SIP. A 101 without sub-protocol counts unless `strict`: the client asked for `sip`, and the other
/// direction says so.
pub(super) fn is_sip_upgrade(head: &[u8], strict: bool) -> bool {
    let mut rest = head;
    let first = next_line(&mut rest).unwrap_or_default();
    let response = first.starts_with(b"HTTP/1.1 101");
    let request = first.starts_with(b"GET ") && first.ends_with(b" HTTP/1.1");
    if !response && !request {
        return false;
    }
    let (mut upgrade, mut protocol) = (false, None);
    while let Some(line) = next_line(&mut rest) {
        let Some((name, value)) = split_once(line, b':') else { continue };
        if name.eq_ignore_ascii_case(b"Upgrade") {
            upgrade |= has_token(value, b"websocket");
        } else if name.eq_ignore_ascii_case(b"Sec-WebSocket-Protocol") {
            protocol = Some(protocol.unwrap_or(false) || has_token(value, b"sip"));
        }
    }
    upgrade && protocol.unwrap_or(response && !strict)
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|b| *b == b',').any(|element| trim(element).eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sub_protocol_sip_counts() {
        let get = |extra: &str| format!("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n{extra}\r\n\r\n");

        assert_eq!(probe(get("Sec-WebSocket-Protocol: chat, SIP").as_bytes()), Probe::Yes);
        assert_eq!(probe(get("Sec-WebSocket-Protocol: siprec").as_bytes()), Probe::No);
        assert_eq!(probe(get("X: y").as_bytes()), Probe::No);
        assert_eq!(probe(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n"), Probe::Yes);
        assert_eq!(probe(b"HTTP/1.1 200 OK\r\n\r\n"), Probe::No);
        assert_eq!(probe(b"GET /ws HTTP/1.1\r\nSec-"), Probe::NeedMore);
        assert_eq!(probe(b"GE"), Probe::NeedMore);
        assert_eq!(probe(b"INVITE"), Probe::No);
    }
}
