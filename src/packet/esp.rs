//! ESP that protects integrity only (RFC 4303 with NULL encryption, RFC 2410): 3GPP phones often speak SIP this way.
//!
//! ```text
//! SPI 4 · sequence 4 · content · padding 1, 2, 3 … n · n 1 · protocol 1 · integrity value
//! ```
//! Nothing in the packet says that encryption is NULL, so this is asked for (`esp_null`, `esp_heuristic`). The trailer is
//! believed when it is consistent and the content is as long as its own header says. UDP carries a length and is hard to
//! hit by chance; TCP does not: of 40 million random packets, `esp_null` took 1 in 24 000 for TCP and none for UDP, so on
//! a link with encrypted ESP `esp_heuristic` is the one to use. Each packet is judged alone: the heuristic does not see TCP
//! segments that begin inside a message or carry nothing.
//! The content keeps the addresses of its packet. Refuses: packets the capture cut, since the trailer is at the end;
//! tunnel mode.

use super::IpProto;
use super::cursor::Cursor;
use super::headers::{Context, Headers};
use super::ip::{self, proto};

/// Lengths of the integrity value: HMAC-SHA-1-96 and MD5-96, SHA-256-128, AES-GMAC, none; the likeliest first.
const ICV_LENGTHS: [u8; 4] = [12, 16, 8, 0];

/// Replaces the description of an ESP packet by that of its content, if it can be read; `c` is at the ESP header.
#[cold]
pub(super) fn null(cx: Context, mut c: Cursor<'_>, h: &mut Headers) {
    if h.truncated {
        return;
    }
    if h.depth >= cx.options.max_depth {
        h.too_deep = true;
        return;
    }
    let one = cx.options.esp_icv.map(|n| [n]);
    let lengths: &[u8] = one.as_ref().map_or(&ICV_LENGTHS, |n| n);
    if c.skip(8).is_none() {
        return;
    }
    let found = lengths.iter().find_map(|&icv| content(c.rest(), usize::from(icv)));
    let Some((next, inside)) = found.filter(|(next, inside)| !cx.options.esp_heuristic || is_voip(*next, inside)) else { return };
    c.cut(inside.len());
    h.depth = h.depth.saturating_add(1);
    h.tuple.proto = IpProto(next);
    h.body = c.span();
    ip::transport(cx, next, c, h);
}

/// Protocol and content, if the trailer before an integrity value of `icv` bytes is sound.
fn content(behind_header: &[u8], icv: usize) -> Option<(u8, &[u8])> {
    let (protected, _) = behind_header.split_at_checked(behind_header.len().checked_sub(icv)?)?;
    let [padded @ .., pad, next] = protected else { return None };
    let (inside, padding) = padded.split_at_checked(padded.len().checked_sub(usize::from(*pad))?)?;
    // RFC 4303 §2.4: the padding counts from one, and the trailer ends on a word.
    let sound = protected.len() % 4 == 0 && padding.iter().zip(1u8..).all(|(byte, n)| *byte == n);
    let whole = match (*next, inside) {
        (proto::UDP, [_, _, _, _, high, low, _, _, ..]) => usize::from(u16::from_be_bytes([*high, *low])) == inside.len(),
        (proto::TCP, tcp) => tcp.get(12).is_some_and(|b| (20..=tcp.len()).contains(&(usize::from(b >> 4) * 4))),
        _ => false,
    };
    (sound && whole).then_some((*next, inside))
}

/// Whether a UDP datagram carries what looks like SIP, RTP or RTCP, or a TCP segment what looks like SIP.
fn is_voip(next: u8, segment: &[u8]) -> bool {
    if next == proto::TCP {
        let header = segment.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
        return is_sip(segment.get(header..).unwrap_or_default());
    }
    let payload = segment.get(8..).unwrap_or_default();
    is_sip(payload) || is_rtp(payload)
}

/// A status line, or a method and the beginning of a URI (RFC 3261 §7.1, §7.2).
fn is_sip(payload: &[u8]) -> bool {
    let start = payload.get(..payload.len().min(64)).unwrap_or_default();
    let mut words = start.splitn(3, |b| *b == b' ');
    let (Some(method), Some(uri)) = (words.next(), words.next()) else { return false };
    let is_scheme = |scheme: &[u8]| uri.get(..scheme.len()).is_some_and(|u| u.eq_ignore_ascii_case(scheme));
    method == b"SIP/2.0"
        || (!method.is_empty()
            && method.iter().all(u8::is_ascii_uppercase)
            && [&b"sip:"[..], b"sips:", b"tel:"].iter().any(|s| is_scheme(s)))
}

/// Version 2 and room for the announced sources (RFC 3550 §5.1); RTCP packet types 192 to 223 (RFC 5761 §4).
fn is_rtp(payload: &[u8]) -> bool {
    let [first, second, _, _, _, _, _, _, ..] = payload else { return false };
    first >> 6 == 2 && ((192..=223).contains(second) || payload.len() >= 12 + 4 * usize::from(first & 0x0f))
}

#[cfg(test)]
mod tests;
