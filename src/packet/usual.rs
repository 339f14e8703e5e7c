//! Nearly every packet there is, read at fixed places: Ethernet (one VLAN tag at most) or cooked, IPv4 without options, UDP or TCP,
//! whole, no fragment, no tunnel.
//!
//! Promises: what it answers is what the general decoder would (a property test holds them against each other), at a third of the
//! instructions. Refuses by `None` everything else, and everything doubtful: the general decoder then says what it is.

use super::headers::{Headers, Span, TcpFacts, TcpFlags, Transport};
use super::{Endpoint, Ip, IpProto, LinkType, ip, link, tunnel};

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// Reads `data` as such a packet into `h`; leaves it alone and answers `None` if it is none.
#[inline]
pub(super) fn read_into(link: LinkType, data: &[u8], h: &mut Headers) -> Option<()> {
    let (at, vlan) = begin(link, data)?;
    let rest = data.get(at..)?;
    // the IP header and the part of the next that UDP and TCP have in common: ports, and UDP's length
    let b: &[u8; IP_HEADER + UDP_HEADER] = rest.first_chunk()?;
    let total = usize::from(u16::from_be_bytes([b[2], b[3]]));
    // version 4, five words; neither more fragments nor an offset
    if b[0] != 0x45 || (b[6] & 0x3f) | b[7] != 0 || total < b.len() || total > rest.len() {
        return None;
    }
    let (src_port, dst_port) = (u16::from_be_bytes([b[20], b[21]]), u16::from_be_bytes([b[22], b[23]]));
    let (transport, start, end) = match b[9] {
        ip::proto::UDP if !tunnel::is_udp_tunnel(dst_port) => {
            // a length that does not fit is not believed: the datagram ends with its packet
            let length = usize::from(u16::from_be_bytes([b[24], b[25]]));
            let fits = length >= UDP_HEADER && length <= total - IP_HEADER;
            (Transport::Udp, b.len(), if fits { IP_HEADER + length } else { total })
        }
        ip::proto::TCP => {
            let t: &[u8; TCP_HEADER] = rest.get(IP_HEADER..)?.first_chunk()?;
            let start = IP_HEADER + usize::from(t[12] >> 4) * 4;
            if start < IP_HEADER + TCP_HEADER || start > total {
                return None;
            }
            (Transport::Tcp(facts(t)), start, total)
        }
        _ => return None,
    };
    // field by field: a whole value would be made elsewhere and copied
    h.tuple.src = Endpoint { ip: Ip::v4([b[12], b[13], b[14], b[15]]), port: src_port };
    h.tuple.dst = Endpoint { ip: Ip::v4([b[16], b[17], b[18], b[19]]), port: dst_port };
    h.tuple.proto = IpProto(b[9]);
    h.transport = transport;
    h.ip = Span::new(at, at + total);
    h.body = Span::new(at + IP_HEADER, at + total);
    h.payload = Span::new(at + start, at + end);
    h.vlan = vlan;
    (h.outer, h.fragment) = (None, None);
    (h.depth, h.truncated, h.too_deep) = (0, false, false);
    Some(())
}

/// Where the IPv4 header begins, and the VLAN.
#[inline]
fn begin(link: LinkType, data: &[u8]) -> Option<(usize, Option<u16>)> {
    const ETHERNET: usize = 14;
    const TAGGED: usize = 18;
    const COOKED: usize = 16;
    match link {
        LinkType::ETHERNET => {
            let b: &[u8; TAGGED] = data.first_chunk()?;
            match (u16::from_be_bytes([b[12], b[13]]), u16::from_be_bytes([b[16], b[17]])) {
                (link::ether::IPV4, _) => Some((ETHERNET, None)),
                (link::ether::VLAN, link::ether::IPV4) => Some((TAGGED, Some(u16::from_be_bytes([b[14] & 0x0f, b[15]])))),
                _ => None,
            }
        }
        LinkType::LINUX_SLL => {
            let b: &[u8; COOKED] = data.first_chunk()?;
            // ARPHRD of Ethernet and of the loopback interface
            let (hardware, protocol) = (u16::from_be_bytes([b[2], b[3]]), u16::from_be_bytes([b[14], b[15]]));
            (matches!(hardware, 1 | 772) && protocol == link::ether::IPV4).then_some((COOKED, None))
        }
        _ => None,
    }
}

#[inline]
pub(super) fn facts(t: &[u8; TCP_HEADER]) -> TcpFacts {
    TcpFacts {
        seq: u32::from_be_bytes([t[4], t[5], t[6], t[7]]),
        ack: u32::from_be_bytes([t[8], t[9], t[10], t[11]]),
        flags: TcpFlags(t[13]),
        window: u16::from_be_bytes([t[14], t[15]]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::FiveTuple;
    use crate::packet::headers::{DecodeOptions, decode_at_length};

    /// A frame that is usual but for what `change` does to it.
    fn frame(link: LinkType, tagged: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut f = match link {
            LinkType::ETHERNET if tagged => vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0x20, 7, 8, 0],
            LinkType::ETHERNET => vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0],
            _ => vec![0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0],
        };
        let header = if tcp { TCP_HEADER } else { UDP_HEADER };
        let [total, udp] =
            [IP_HEADER + header + payload.len(), UDP_HEADER + payload.len()].map(|n| u16::try_from(n).unwrap().to_be_bytes());
        f.extend([0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, if tcp { 6 } else { 17 }, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([0x13, 0xc4, 0x13, 0xc5]);
        if tcp {
            f.extend([0, 0, 0, 9, 0, 0, 0, 8, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
        } else {
            f.extend([udp[0], udp[1], 0, 0]);
        }
        f.extend(payload);
        f
    }

    fn read(link: LinkType, data: &[u8]) -> Option<Headers> {
        // what was there before does not show through
        let old = FiveTuple::default();
        let span = Span::new(3, 4);
        let mut h = Headers { outer: Some(old), ip: span, body: span, payload: span, vlan: Some(1), depth: 9, ..Headers::EMPTY };
        (h.truncated, h.too_deep) = (true, true);
        read_into(link, data, &mut h).map(|()| h)
    }

    #[test]
    fn ordinary_packets_of_every_kind_are_read_here() {
        for (link, tagged) in [(LinkType::ETHERNET, false), (LinkType::ETHERNET, true), (LinkType::LINUX_SLL, false)] {
            for tcp in [false, true] {
                let data = frame(link, tagged, tcp, b"payload");
                let h = read(link, &data).unwrap();

                assert_eq!(h.payload(&data), b"payload");
                assert_eq!((h.tuple.src.port, h.tuple.dst.port, h.vlan), (5060, 5061, tagged.then_some(7)));
            }
        }
    }

    proptest! {
        /// Whatever it reads, the general decoder reads the same; a few bytes of an ordinary packet are spoilt, and its end is cut or padded.
        #[test]
        fn it_agrees_with_the_general_decoder(
            (link, tagged) in prop::sample::select(vec![
                (LinkType::ETHERNET, false), (LinkType::ETHERNET, true), (LinkType::LINUX_SLL, false), (LinkType::RAW, false),
            ]),
            tcp: bool,
            payload in prop::collection::vec(any::<u8>(), 0..40),
            spoilt in prop::collection::vec((0_usize..64, any::<u8>()), 0..3),
            length in prop::option::of(0_usize..120),
        ) {
            let mut data = frame(link, tagged, tcp, &payload);
            for (at, byte) in spoilt {
                data.get_mut(at).into_iter().for_each(|b| *b = byte);
            }
            data.resize(length.unwrap_or(data.len()), 0);
            if let Some(h) = read(link, &data) {
                let mut general = Headers::EMPTY;
                prop_assert_eq!(decode_at_length(link, &data, DecodeOptions::default(), &mut general), Ok(()));
                prop_assert_eq!(general, h);
            }
        }
    }
}
