//! Builds packets for tests, layer by layer, from the inside out.

use super::{Frame, InterfaceId, LinkType, Timestamp};

pub(crate) const A: [u8; 4] = [192, 0, 2, 1];
pub(crate) const B: [u8; 4] = [198, 51, 100, 2];
pub(crate) const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn be16(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap().to_be_bytes()
}

pub(crate) fn ethernet(ether_type: u16, inside: &[u8]) -> Vec<u8> {
    join(&[&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ether_type.to_be_bytes(), inside])
}

pub(crate) fn v4(proto: u8, inside: &[u8]) -> Vec<u8> {
    v4_piece(proto, 7, 0, false, inside)
}

/// `offset` in bytes.
pub(crate) fn v4_piece(proto: u8, id: u16, offset: usize, more: bool, inside: &[u8]) -> Vec<u8> {
    let place = u16::try_from(offset / 8).unwrap() | if more { 0x2000 } else { 0 };
    join(&[&[0x45, 0], &be16(inside.len() + 20), &id.to_be_bytes(), &place.to_be_bytes(), &[64, proto, 0, 0], &A, &B, inside])
}

pub(crate) fn v6(next: u8, inside: &[u8]) -> Vec<u8> {
    join(&[&[0x60, 0, 0, 0], &be16(inside.len()), &[next, 64], &A6, &B6, inside])
}

/// `offset` in bytes.
pub(crate) fn v6_piece(next: u8, id: u32, offset: usize, more: bool, inside: &[u8]) -> Vec<u8> {
    let place = be16(offset | usize::from(more));
    v6(44, &join(&[&[next, 0], &place, &id.to_be_bytes(), inside]))
}

pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&src.to_be_bytes(), &dst.to_be_bytes(), &be16(payload.len() + 8), &[0, 0], payload])
}

pub(crate) fn tcp(src: u16, dst: u16, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let fixed = [0, 0, 0, 9, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
    join(&[&src.to_be_bytes(), &dst.to_be_bytes(), &seq.to_be_bytes(), &fixed, payload])
}

pub(crate) fn frame(link: LinkType, data: &[u8], nanos: i64) -> Frame<'_> {
    let wire_len = u32::try_from(data.len()).unwrap();
    Frame { ts: Timestamp::from_nanos(nanos), wire_len, link, interface: InterfaceId(0), data }
}
