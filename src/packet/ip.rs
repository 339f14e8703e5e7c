//! IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200), and the transport header behind them.

use super::cursor::Cursor;
use super::headers::{Context, DecodeError, Fragment, Headers, Transport};
use super::{Endpoint, Ip, IpProto, esp, tunnel, usual};

/// IP protocol numbers (IANA) that lead on to another header.
pub(super) mod proto {
    pub(in crate::packet) const HOP_BY_HOP: u8 = 0;
    pub(in crate::packet) const IPV4: u8 = 4;
    pub(in crate::packet) const TCP: u8 = 6;
    pub(in crate::packet) const UDP: u8 = 17;
    pub(in crate::packet) const IPV6: u8 = 41;
    pub(in crate::packet) const ROUTING: u8 = 43;
    pub(in crate::packet) const FRAGMENT: u8 = 44;
    pub(in crate::packet) const GRE: u8 = 47;
    pub(in crate::packet) const ESP: u8 = 50;
    pub(in crate::packet) const AUTHENTICATION: u8 = 51;
    pub(in crate::packet) const DESTINATION: u8 = 60;
    pub(in crate::packet) const SCTP: u8 = 132;
    pub(in crate::packet) const MOBILITY: u8 = 135;
    pub(in crate::packet) const HIP: u8 = 139;
    pub(in crate::packet) const SHIM6: u8 = 140;
}

/// Extension headers per packet. RFC 8200 §4.1 has seven kinds, one of them twice.
const MAX_EXTENSIONS: usize = 16;

/// Length of the IPv6 base header.
const V6_HEADER: usize = 40;

type Step = Result<(), DecodeError>;

/// An IP packet of either version.
pub(super) fn any(cx: Context, c: Cursor<'_>, h: &mut Headers) -> Step {
    match c.peek::<1>() {
        Some([b]) if b >> 4 == 4 => v4(cx, c, h),
        Some([b]) if b >> 4 == 6 => v6(cx, c, h),
        Some([b]) => Err(DecodeError::NotIp(u16::from(b >> 4))),
        None => Err(DecodeError::Truncated("IP")),
    }
}

#[inline]
pub(super) fn v4(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 20] = c.peek().ok_or(DecodeError::Truncated("IPv4"))?;
    let header = usize::from(b[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([b[2], b[3]]));
    if b[0] >> 4 != 4 || header < 20 || (total != 0 && total < header) {
        return Err(DecodeError::Malformed("IPv4"));
    }
    // Zero is what segmentation offload leaves in packets longer than the field can say.
    fit(cx, total, &mut c, h).ok_or(DecodeError::Malformed("IPv4"))?;
    h.ip = c.span();
    c.skip(header).ok_or(DecodeError::Truncated("IPv4"))?;
    h.body = c.span();
    h.tuple.src = Endpoint { ip: Ip::v4([b[12], b[13], b[14], b[15]]), port: 0 };
    h.tuple.dst = Endpoint { ip: Ip::v4([b[16], b[17], b[18], b[19]]), port: 0 };
    h.tuple.proto = IpProto(b[9]);
    let place = u16::from_be_bytes([b[6], b[7]]);
    h.fragment = (place & 0x3fff != 0).then(|| Fragment {
        id: u32::from(u16::from_be_bytes([b[4], b[5]])),
        offset: (place & 0x1fff) << 3,
        more: place & 0x2000 != 0,
        next: IpProto(b[9]),
    });
    match b[9] {
        proto::AUTHENTICATION if !is_later_piece(h) => chain(cx, b[9], false, c, h),
        next => transport(cx, next, c, h),
    }
    Ok(())
}

pub(super) fn v6(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; V6_HEADER] = c.peek().ok_or(DecodeError::Truncated("IPv6"))?;
    if b[0] >> 4 != 6 {
        return Err(DecodeError::Malformed("IPv6"));
    }
    let bytes = usize::from(u16::from_be_bytes([b[4], b[5]]));
    // A zero payload length belongs to jumbograms (RFC 2675) and to offload; a header without payload says "no next header".
    let total = if bytes == 0 { 0 } else { V6_HEADER + bytes };
    fit(cx, total, &mut c, h).ok_or(DecodeError::Malformed("IPv6"))?;
    h.ip = c.span();
    c.skip(V6_HEADER).ok_or(DecodeError::Truncated("IPv6"))?;
    h.body = c.span();
    let [_, _, _, _, _, _, _, _, addresses @ ..] = b;
    let (src, dst) = addresses.split_at(16);
    h.tuple.src = Endpoint { ip: Ip::v6(src.try_into().unwrap_or_default()), port: 0 };
    h.tuple.dst = Endpoint { ip: Ip::v6(dst.try_into().unwrap_or_default()), port: 0 };
    h.fragment = None;
    match b[6] {
        next @ (proto::UDP | proto::TCP) => transport(cx, next, c, h),
        next => chain(cx, next, true, c, h),
    }
    Ok(())
}

/// Ends the layer where the packet's own `total` length says. `None` when it cannot be a packet.
#[inline]
fn fit(cx: Context, total: usize, c: &mut Cursor<'_>, h: &mut Headers) -> Option<()> {
    if total == 0 {
        return (!cx.strict).then_some(());
    }
    if total > c.remaining() {
        if cx.strict && !h.truncated {
            return None;
        }
        h.truncated = true;
    }
    c.cut(total);
    Some(())
}

/// Walks extension headers; of these only the authentication header (RFC 4302) exists in IPv4, where `six` is false.
fn chain(cx: Context, mut next: u8, six: bool, mut c: Cursor<'_>, h: &mut Headers) {
    for _ in 0..MAX_EXTENSIONS {
        let Some(b) = c.peek::<8>() else { break };
        let length = match next {
            proto::FRAGMENT if six => 8,
            // The fixed part alone is 12 bytes (RFC 4302 §2).
            proto::AUTHENTICATION if b[1] > 0 => (usize::from(b[1]) + 2) * 4,
            proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION | proto::MOBILITY | proto::HIP | proto::SHIM6 if six => {
                (usize::from(b[1]) + 1) * 8
            }
            _ => break,
        };
        if c.skip(length).is_none() {
            break;
        }
        let place = u16::from_be_bytes([b[2], b[3]]);
        // A fragment header around a whole packet (RFC 6946) is only stepped over; a second one is not looked into.
        if next == proto::FRAGMENT && place & 0xfff9 != 0 && h.fragment.is_none() {
            h.fragment = Some(Fragment {
                id: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
                offset: place & 0xfff8,
                more: place & 1 != 0,
                next: IpProto(b[0]),
            });
            h.body = c.span();
        } else if h.fragment.is_none() {
            h.body = c.span();
        }
        next = b[0];
        if is_later_piece(h) {
            break;
        }
    }
    transport(cx, next, c, h);
}

/// Whether the bytes here are from the middle of a datagram.
fn is_later_piece(h: &Headers) -> bool {
    h.fragment.is_some_and(|f| f.offset != 0)
}

/// Reads the transport header, or peels the tunnel, that protocol number `next` announces.
#[inline]
pub(super) fn transport(cx: Context, next: u8, c: Cursor<'_>, h: &mut Headers) {
    h.tuple.proto = IpProto(next);
    h.transport = Transport::Other;
    h.payload = c.span();
    if is_later_piece(h) {
        return;
    }
    match next {
        proto::UDP => udp(cx, c, h),
        proto::TCP => tcp(c, h),
        proto::SCTP => sctp(c, h),
        // A tunnel is peeled once its datagram is whole.
        _ if h.fragment.is_some() => {}
        proto::IPV4 | proto::IPV6 => tunnel::ip_in_ip(cx, next, c, h),
        proto::GRE => tunnel::gre(cx, c, h),
        proto::ESP if cx.options.esp_null || cx.options.esp_heuristic => esp::null(cx, c, h),
        _ => {}
    }
}

/// UDP (RFC 768). A length that does not fit is not believed: the datagram then ends with its packet.
#[inline]
fn udp(cx: Context, mut c: Cursor<'_>, h: &mut Headers) {
    let Some(b) = c.take::<8>() else {
        return ports(&c, h);
    };
    let (src, dst) = (u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]]));
    let length = usize::from(u16::from_be_bytes([b[4], b[5]]));
    if let Some(payload) = length.checked_sub(8)
        && payload <= c.remaining()
    {
        c.cut(payload);
    }
    (h.tuple.src.port, h.tuple.dst.port) = (src, dst);
    h.transport = Transport::Udp;
    h.payload = c.span();
    if tunnel::is_udp_tunnel(dst) && h.fragment.is_none() {
        tunnel::udp(cx, c, h);
    }
}

/// TCP (RFC 9293 §3.1).
#[inline]
fn tcp(mut c: Cursor<'_>, h: &mut Headers) {
    ports(&c, h);
    let Some(b) = c.peek::<20>() else { return };
    let header = usize::from(b[12] >> 4) * 4;
    if header < 20 {
        return;
    }
    if c.skip(header).is_some() {
        h.payload = c.span();
    } else if !h.truncated {
        return;
    }
    h.transport = Transport::Tcp(usual::facts(b));
}

/// SCTP (RFC 9260 §3.1).
fn sctp(mut c: Cursor<'_>, h: &mut Headers) {
    ports(&c, h);
    if c.skip(12).is_some() {
        h.transport = Transport::Sctp;
        h.payload = c.span();
    }
}

/// The ports, which stand first in all three transports; without a whole header there is no payload.
#[inline]
fn ports(c: &Cursor<'_>, h: &mut Headers) {
    h.payload = c.empty();
    if let Some(b) = c.peek::<4>() {
        h.tuple.src.port = u16::from_be_bytes([b[0], b[1]]);
        h.tuple.dst.port = u16::from_be_bytes([b[2], b[3]]);
    }
}
