//! Link layers, and what sits between them and IP: tags, labels, `PPPoE`, `MACsec` without encryption.

use etherparse::MacsecHeaderSlice;

use super::LinkType;
use super::cursor::Cursor;
use super::headers::{Context, DecodeError, Headers};
use super::{ip, tunnel};

/// `EtherType` numbers (IEEE 802, registered with IANA).
pub(super) mod ether {
    pub(in crate::packet) const IPV4: u16 = 0x0800;
    pub(in crate::packet) const IPV6: u16 = 0x86dd;
    pub(in crate::packet) const VLAN: u16 = 0x8100;
    pub(super) const PROVIDER_VLAN: u16 = 0x88a8;
    pub(super) const OLD_QINQ: u16 = 0x9100;
    pub(in crate::packet) const MPLS: u16 = 0x8847;
    pub(in crate::packet) const MPLS_UPSTREAM: u16 = 0x8848;
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
    pub(super) const MACSEC: u16 = 0x88e5;
    pub(in crate::packet) const TRANSPARENT_BRIDGING: u16 = 0x6558;
    pub(in crate::packet) const ERSPAN_2: u16 = 0x88be;
    pub(in crate::packet) const ERSPAN_3: u16 = 0x22eb;
    /// Up to here the field is an IEEE 802.3 length.
    pub(super) const MAX_LENGTH: u16 = 1500;
}

/// Tags per frame. `QinQ` has two, stacked provider bridges three; the rest is noise or malice.
const MAX_TAGS: usize = 8;

type Step = Result<(), DecodeError>;

/// A captured frame of any link type.
#[inline]
pub(super) fn frame(cx: Context, link: LinkType, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    match link {
        LinkType::ETHERNET => ethernet(cx, c, h),
        LinkType::LINUX_SLL => {
            // packet type 2 · ARPHRD 2 · address length 2 · address 8 · protocol 2
            let b: &[u8; 16] = c.take().ok_or(DecodeError::Truncated("SLL"))?;
            ether_type(cx, cooked(u16::from_be_bytes([b[2], b[3]]), u16::from_be_bytes([b[14], b[15]]))?, c, h)
        }
        LinkType::LINUX_SLL2 => {
            // protocol 2 · reserved 2 · interface 4 · ARPHRD 2 · packet type 1 · address length 1 · address 8
            let b: &[u8; 20] = c.take().ok_or(DecodeError::Truncated("SLL2"))?;
            ether_type(cx, cooked(u16::from_be_bytes([b[8], b[9]]), u16::from_be_bytes([b[0], b[1]]))?, c, h)
        }
        LinkType::RAW | LinkType(12 | 14) => ip::any(cx, c, h),
        LinkType::IPV4 => ip::v4(cx, c, h),
        LinkType::IPV6 => ip::v6(cx, c, h),
        LinkType::NULL => {
            // The writer's byte order is unknown here; a family is below 256, so one order alone makes sense.
            let b: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("NULL"))?;
            family(cx, u32::from_le_bytes(*b).min(u32::from_be_bytes(*b)), c, h)
        }
        LinkType::LOOP => {
            let b: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("LOOP"))?;
            family(cx, u32::from_be_bytes(*b), c, h)
        }
        other => Err(DecodeError::LinkType(other)),
    }
}

/// The protocol of a cooked header, where its ARPHRD type makes it an `EtherType`.
fn cooked(hardware: u16, protocol: u16) -> Result<u16, DecodeError> {
    /// Netlink (824) and 802.11 in its forms (801–803) put other things into the field.
    const FOREIGN: [u16; 4] = [801, 802, 803, 824];
    // Below 1536 the field is one of Linux's own ETH_P_ numbers, never an 802.3 length.
    if FOREIGN.contains(&hardware) || protocol <= ether::MAX_LENGTH {
        return Err(DecodeError::NotIp(protocol));
    }
    Ok(protocol)
}

/// An address family number: `AF_INET` is 2 everywhere, `AF_INET6` 10, 23, 24, 28 or 30.
fn family(cx: Context, family: u32, c: Cursor<'_>, h: &mut Headers) -> Step {
    match family {
        2 => ip::v4(cx, c, h),
        10 | 23 | 24 | 28 | 30 => ip::v6(cx, c, h),
        other => Err(DecodeError::NotIp(u16::try_from(other).unwrap_or(u16::MAX))),
    }
}

#[inline]
pub(super) fn ethernet(cx: Context, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    let b: &[u8; 14] = c.take().ok_or(DecodeError::Truncated("Ethernet"))?;
    ether_type(cx, u16::from_be_bytes([b[12], b[13]]), c, h)
}

/// What follows an `EtherType`.
#[inline]
pub(super) fn ether_type(cx: Context, kind: u16, c: Cursor<'_>, h: &mut Headers) -> Step {
    match kind {
        ether::IPV4 => ip::v4(cx, c, h),
        ether::IPV6 => ip::v6(cx, c, h),
        _ => between(cx, kind, c, h),
    }
}

/// Everything between Ethernet and IP, one layer per turn.
fn between(cx: Context, mut kind: u16, mut c: Cursor<'_>, h: &mut Headers) -> Step {
    for _ in 0..=MAX_TAGS {
        kind = match kind {
            ether::IPV4 => return ip::v4(cx, c, h),
            ether::IPV6 => return ip::v6(cx, c, h),
            ether::VLAN | ether::PROVIDER_VLAN | ether::OLD_QINQ => {
                let b: &[u8; 4] = c.take().ok_or(DecodeError::Truncated("802.1Q"))?;
                h.vlan.get_or_insert(u16::from_be_bytes([b[0] & 0x0f, b[1]]));
                u16::from_be_bytes([b[2], b[3]])
            }
            ether::MPLS | ether::MPLS_UPSTREAM => return tunnel::mpls(cx, c, h),
            ether::PPPOE_SESSION => return tunnel::pppoe(cx, c, h),
            ether::MACSEC => macsec(&mut c)?,
            length if length <= ether::MAX_LENGTH => {
                // IEEE 802.2 LLC with a SNAP header of organisation 0 (RFC 1042).
                let b: &[u8; 8] = c.take().ok_or(DecodeError::NotIp(length))?;
                if b[..6] != [0xaa, 0xaa, 0x03, 0, 0, 0] {
                    return Err(DecodeError::NotIp(length));
                }
                match u16::from_be_bytes([b[6], b[7]]) {
                    again if again <= ether::MAX_LENGTH => return Err(DecodeError::NotIp(again)),
                    snap => snap,
                }
            }
            other => return Err(DecodeError::NotIp(other)),
        };
    }
    Err(DecodeError::TooDeep)
}

/// Steps over an IEEE 802.1AE tag whose content is neither encrypted nor changed; IP's own length cuts off the integrity value.
fn macsec(c: &mut Cursor<'_>) -> Result<u16, DecodeError> {
    let tag = MacsecHeaderSlice::from_slice(c.rest()).map_err(|_| DecodeError::Malformed("MACsec"))?;
    let next = tag.next_ether_type().ok_or(DecodeError::NotIp(ether::MACSEC))?;
    c.skip(tag.slice().len()).ok_or(DecodeError::Truncated("MACsec"))?;
    // Short frames say how long they are (IEEE 802.1AE §9.7).
    if let Some(length) = tag.expected_payload_len() {
        c.cut(length);
    }
    Ok(next.0)
}
