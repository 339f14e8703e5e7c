//! Encapsulations: what is peeled so that analysis sees the subscriber's packet.
//!
//! Promises: at most [`DecodeOptions::max_depth`] are peeled; one whose inside is not sound is left alone, so that its carrier
//! is described instead (a phone may well use port 4789). Where only a UDP port speaks for a tunnel, the inside must fit its
//! own lengths exactly, unless the capture was cut.
//!
//! | carrier | read as | from |
//! |---|---|---|
//! | `EtherType` 0x8847, 0x8848 | MPLS stack, then IP, or Ethernet with or without a control word | RFC 3032, 4385, 4448 |
//! | `EtherType` 0x8864 | `PPPoE` session, then IP or MPLS | RFC 2516, 1661, 5072 |
//! | protocol 4, 41 | IP in IP | RFC 2003, 4213 |
//! | protocol 47 | GRE version 0: any `EtherType`, bridged Ethernet (NVGRE), ERSPAN I, II, III | RFC 2784, 2890, 7637; draft-foschiano-erspan |
//! | UDP 4789, 8472 (Linux, from before the RFC) | VXLAN | RFC 7348 |
//! | UDP 6081 | GENEVE | RFC 8926 |
//! | UDP 2152 | GTP-U G-PDU | 3GPP TS 29.281 |
//!
//! GRE version 1 (PPTP), GRE source routing and VXLAN-GPE are not peeled.
//!
//! [`DecodeOptions::max_depth`]: super::headers::DecodeOptions::max_depth

use super::cursor::Cursor;
use super::headers::{Context, DecodeError, Headers};
use super::ip::{self, proto};
use super::link::{self, ether};

/// Labels per MPLS stack; carriers stack two to six.
const MAX_LABELS: usize = 16;
/// Extension headers per GTP-U message; 5G user plane has one.
const MAX_GTP_EXTENSIONS: usize = 8;

/// UDP destination ports (IANA; 3GPP TS 29.281 §4.4.2).
const VXLAN_PORT: u16 = 4789;
/// What Linux takes where nobody says which.
const VXLAN_PORT_LINUX: u16 = 8472;
const GENEVE_PORT: u16 = 6081;
const GTP_U_PORT: u16 = 2152;

type Step = Result<(), DecodeError>;

/// Tries `inside` one level deeper; if it is not sound, `h` is as before.
fn peel(cx: Context, h: &mut Headers, inside: impl FnOnce(&mut Headers) -> Step) -> Step {
    if h.depth >= cx.options.max_depth {
        return Err(DecodeError::TooDeep);
    }
    let before = *h;
    h.depth = h.depth.saturating_add(1);
    inside(h).inspect_err(|_| *h = before)
}

/// As [`peel`] for what an IP packet carries: that packet is described if nothing better comes of it.
fn peel_ip(cx: Context, h: &mut Headers, inside: impl FnOnce(&mut Headers) -> Step) {
    let carrier = h.tuple;
    let peeled = peel(cx, h, |h| {
        h.outer.get_or_insert(carrier);
        inside(h)
    });
    if peeled == Err(DecodeError::TooDeep) {
        h.too_deep = true;
    }
}

/// MPLS label stack (RFC 3032 §2.1). What follows is not announced: IP is known by its version, a pseudowire by elimination.
pub(super) fn mpls(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let mut bottom = false;
    for _ in 0..MAX_LABELS {
        let b: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("MPLS"))?;
        bottom = b[2] & 1 != 0;
        if bottom {
            break;
        }
    }
    if !bottom {
        return Err(DecodeError::TooDeep);
    }
    let &[first] = c.peek().ok_or(DecodeError::Truncated("MPLS"))?;
    peel(cx, h, |h| {
        let before = *h;
        let likely = match first >> 4 {
            4 | 6 => ip::any(cx, c, h),
            // A control word begins with a zero nibble (RFC 4385 §3); so do some MAC addresses.
            0 => {
                let mut behind = c;
                behind.skip(4).ok_or(DecodeError::Truncated("MPLS"))?;
                link::ethernet(cx, behind, h)
            }
            other => Err(DecodeError::NotIp(u16::from(other))),
        };
        likely.or_else(|_| {
            *h = before;
            link::ethernet(cx, c, h)
        })
    })
}

/// `PPPoE` session stage: version and type 1 · code 0 · session 2 · length 2 · PPP protocol 2 (RFC 2516 §4, RFC 1661 §2).
pub(super) fn pppoe(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 6] = c.take().ok_or(DecodeError::Truncated("PPPoE"))?;
    if b[0] != 0x11 || b[1] != 0 {
        return Err(DecodeError::Malformed("PPPoE"));
    }
    let length = usize::from(u16::from_be_bytes([b[4], b[5]]));
    h.truncated |= length > c.remaining();
    c.cut(length);
    let protocol = u16::from_be_bytes(*c.take().ok_or(DecodeError::Truncated("PPP"))?);
    peel(cx, h, |h| match protocol {
        0x0021 => ip::v4(cx, c, h),
        0x0057 => ip::v6(cx, c, h),
        0x0281 | 0x0283 => mpls(cx, c, h),
        other => Err(DecodeError::NotIp(other)),
    })
}

/// IP in IP, `version` being the protocol number.
#[cold]
pub(super) fn ip_in_ip(cx: Context, version: u8, c: Cursor<'_>, h: &mut Headers) {
    peel_ip(cx, h, |h| if version == proto::IPV4 { ip::v4(cx, c, h) } else { ip::v6(cx, c, h) });
}

/// GRE: flags and version 2 · protocol 2 · checksum 4 if C · key 4 if K · sequence 4 if S (RFC 2784 §2.1, RFC 2890 §2).
#[cold]
pub(super) fn gre(cx: Context, c: Cursor<'_>, h: &mut Headers) {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const VERSION: u16 = 0x0007;

    peel_ip(cx, h, |h| {
        let mut c = c;
        let b: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("GRE"))?;
        let flags = u16::from_be_bytes([b[0], b[1]]);
        if flags & (VERSION | ROUTING) != 0 {
            return Err(DecodeError::Malformed("GRE"));
        }
        for option in [CHECKSUM, KEY, SEQUENCE] {
            if flags & option != 0 {
                c.skip(4).ok_or(DecodeError::Truncated("GRE"))?;
            }
        }
        match u16::from_be_bytes([b[2], b[3]]) {
            ether::TRANSPARENT_BRIDGING => link::ethernet(cx, c, h),
            ether::ERSPAN_2 if flags & SEQUENCE == 0 => link::ethernet(cx, c, h),
            ether::ERSPAN_2 => erspan_2(cx, c, h),
            ether::ERSPAN_3 => erspan_3(cx, c, h),
            other => link::ether_type(cx, other, c, h),
        }
    });
}

/// ERSPAN type II: version 4 bits (1) and VLAN · session 2 · reserved and index 4.
fn erspan_2(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 8] = c.take().ok_or(DecodeError::Truncated("ERSPAN"))?;
    if b[0] >> 4 != 1 {
        return Err(DecodeError::Malformed("ERSPAN"));
    }
    link::ethernet(cx, c, h)
}

/// ERSPAN type III: version 4 bits (2) and VLAN · session 2 · time 4 · group 2 · P, frame type, hardware, D, granularity, O 2 ·
/// platform header 8 if O. Frame type 0 is Ethernet, 2 is IP.
fn erspan_3(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 12] = c.take().ok_or(DecodeError::Truncated("ERSPAN"))?;
    if b[0] >> 4 != 2 {
        return Err(DecodeError::Malformed("ERSPAN"));
    }
    if b[11] & 1 != 0 {
        c.skip(8).ok_or(DecodeError::Truncated("ERSPAN"))?;
    }
    match (b[10] >> 2) & 0x1f {
        0 => link::ethernet(cx, c, h),
        2 => ip::any(cx, c, h),
        _ => Err(DecodeError::Malformed("ERSPAN")),
    }
}

/// Whether datagrams to this port are looked into.
#[inline]
pub(super) const fn is_udp_tunnel(port: u16) -> bool {
    matches!(port, VXLAN_PORT | VXLAN_PORT_LINUX | GENEVE_PORT | GTP_U_PORT)
}

/// Tunnels over UDP, known by the destination port; `c` is at the payload. Kept out of the way of ordinary datagrams.
#[cold]
pub(super) fn udp(cx: Context, c: Cursor<'_>, h: &mut Headers) {
    let inside: fn(Context, Cursor<'_>, &mut Headers) -> Step = match h.tuple.dst.port {
        VXLAN_PORT | VXLAN_PORT_LINUX => vxlan,
        GENEVE_PORT => geneve,
        GTP_U_PORT => gtp_u,
        _ => return,
    };
    peel_ip(cx, h, |h| inside(Context { strict: true, ..cx }, c, h));
}

/// VXLAN: flags 1 (the I bit is 0x08) · reserved 3 · network 3 · reserved 1 (RFC 7348 §5).
fn vxlan(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 8] = c.take().ok_or(DecodeError::Truncated("VXLAN"))?;
    if b[0] & 0x08 == 0 {
        return Err(DecodeError::Malformed("VXLAN"));
    }
    link::ethernet(cx, c, h)
}

/// GENEVE: version 2 bits, option length 6 bits in words · flags 1 · protocol 2 · network 3 · reserved 1 (RFC 8926 §3.4).
fn geneve(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 8] = c.take().ok_or(DecodeError::Truncated("GENEVE"))?;
    if b[0] >> 6 != 0 {
        return Err(DecodeError::Malformed("GENEVE"));
    }
    c.skip(usize::from(b[0] & 0x3f) * 4).ok_or(DecodeError::Truncated("GENEVE"))?;
    match u16::from_be_bytes([b[2], b[3]]) {
        ether::TRANSPARENT_BRIDGING => link::ethernet(cx, c, h),
        ether::IPV4 => ip::v4(cx, c, h),
        ether::IPV6 => ip::v6(cx, c, h),
        other => Err(DecodeError::NotIp(other)),
    }
}

/// GTP-U: version 3 bits (1), PT (1), spare, E, S, PN · type 1 · length 2 · tunnel 4 · with any of E, S, PN: sequence 2,
/// N-PDU 1, next extension 1. An extension is its length in words, content, next type (3GPP TS 29.281 §5.1, §5.2).
fn gtp_u(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    const G_PDU: u8 = 255;
    let b: &[u8; 8] = c.take().ok_or(DecodeError::Truncated("GTP-U"))?;
    let length = usize::from(u16::from_be_bytes([b[2], b[3]]));
    if b[0] >> 4 != 0b0011 || b[1] != G_PDU || (length > c.remaining() && !h.truncated) {
        return Err(DecodeError::Malformed("GTP-U"));
    }
    c.cut(length);
    if b[0] & 0x07 != 0 {
        let options: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("GTP-U"))?;
        let mut next = if b[0] & 0x04 != 0 { options[3] } else { 0 };
        for _ in 0..MAX_GTP_EXTENSIONS {
            if next == 0 {
                break;
            }
            let words = c.peek::<1>().map_or(0, |b| usize::from(b[0]));
            let extension = c.rest().get(..words * 4).ok_or(DecodeError::Truncated("GTP-U"))?;
            next = *extension.last().ok_or(DecodeError::Malformed("GTP-U"))?;
            c.skip(extension.len()).ok_or(DecodeError::Truncated("GTP-U"))?;
        }
        if next != 0 {
            return Err(DecodeError::TooDeep);
        }
    }
    ip::any(cx, c, h)
}

#[cfg(test)]
mod tests;
