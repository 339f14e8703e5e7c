use super::*;
use crate::packet::build::{A, A6, B, B6, ethernet, join, tcp, udp, v4, v4_piece, v6, v6_piece};
use crate::packet::{Endpoint, Ip};

#[path = "against_etherparse.rs"]
mod against_etherparse;

#[test]
fn reads_udp_over_ipv4_over_ethernet() {
    let frame = ethernet(0x0800, &v4(17, &udp(5060, 5062, b"hello")));

    let h = read(LinkType::ETHERNET, &frame);

    assert_eq!(h.tuple, tuple4(5060, 5062, IpProto::UDP));
    assert_eq!((h.transport, h.payload(&frame)), (Transport::Udp, &b"hello"[..]));
    assert_eq!((h.outer, h.vlan, h.fragment, h.depth, h.truncated, h.too_deep), (None, None, None, 0, false, false));
    assert_eq!((h.ip.start, h.body.start, h.ip.len()), (14, 34, 33));
}

#[test]
fn reads_tcp_over_ipv6_with_its_sequence_facts() {
    let frame = ethernet(0x86dd, &v6(6, &tcp(40000, 5060, 77, 0x18, b"data")));

    let h = read(LinkType::ETHERNET, &frame);

    assert_eq!(h.tuple, tuple6(40000, 5060, IpProto::TCP));
    let flags = TcpFlags(TcpFlags::PSH.0 | TcpFlags::ACK.0);
    assert_eq!(h.transport, Transport::Tcp(TcpFacts { seq: 77, ack: 9, flags, window: 0x2000 }));
    assert!(flags.contains(TcpFlags::ACK) && !flags.contains(TcpFlags::SYN));
    assert_eq!(h.payload(&frame), b"data");
}

#[test]
fn reads_every_link_type_alike() {
    let (four, six) = (v4(17, &udp(1, 2, b"x")), v6(17, &udp(1, 2, b"x")));
    let sll = |proto: [u8; 2], ip: &[u8]| join(&[&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0], &proto, ip]);
    let sll2 = |proto: [u8; 2], ip: &[u8]| join(&[&proto, &[0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0], ip]);
    let frames = [
        (LinkType::LINUX_SLL, sll([8, 0], &four), sll([0x86, 0xdd], &six)),
        (LinkType::LINUX_SLL2, sll2([8, 0], &four), sll2([0x86, 0xdd], &six)),
        (LinkType::RAW, four.clone(), six.clone()),
        (LinkType(12), four.clone(), six.clone()),
        (LinkType(14), four.clone(), six.clone()),
        (LinkType::NULL, join(&[&[2, 0, 0, 0], &four]), join(&[&[0, 0, 0, 30], &six])),
        (LinkType::NULL, join(&[&[0, 0, 0, 2], &four]), join(&[&[24, 0, 0, 0], &six])),
        (LinkType::LOOP, join(&[&[0, 0, 0, 2], &four]), join(&[&[0, 0, 0, 28], &six])),
    ];

    for (link, four, six) in frames {
        assert_eq!(read(link, &four).tuple, tuple4(1, 2, IpProto::UDP), "{link:?}");
        assert_eq!(read(link, &six).tuple, tuple6(1, 2, IpProto::UDP), "{link:?}");
    }
    assert_eq!(read(LinkType::IPV4, &four).tuple, tuple4(1, 2, IpProto::UDP));
    assert_eq!(read(LinkType::IPV6, &six).tuple, tuple6(1, 2, IpProto::UDP));
}

#[test]
fn names_the_outermost_vlan_of_a_stack() {
    let ip = v4(17, &udp(1, 2, b"x"));
    let tagged = |outer: u16| ethernet(outer, &join(&[&[0xe0, 100, 0x81, 0, 0, 7, 8, 0], &ip]));

    for outer in [0x8100, 0x88a8, 0x9100] {
        let h = read(LinkType::ETHERNET, &tagged(outer));
        assert_eq!((h.vlan, h.tuple, h.depth), (Some(100), tuple4(1, 2, IpProto::UDP), 0));
    }
}

#[test]
fn reads_snap_and_clear_macsec() {
    let ip = v4(17, &udp(1, 2, b"x"));
    let snap = ethernet(u16::try_from(ip.len() + 8).unwrap(), &join(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ip]));
    let macsec = ethernet(0x88e5, &join(&[&[0, 0, 0, 0, 0, 1, 8, 0], &ip, &[0xee; 16]]));

    assert_eq!(read(LinkType::ETHERNET, &snap).tuple, tuple4(1, 2, IpProto::UDP));
    let h = read(LinkType::ETHERNET, &macsec);
    assert_eq!((h.tuple, h.payload(&macsec)), (tuple4(1, 2, IpProto::UDP), &b"x"[..]));
}

#[test]
fn ends_a_macsec_frame_at_its_short_length() {
    let datagram = v4(17, &udp(1, 2, b"abcdef"));
    let short = u8::try_from(datagram.len() - 4 + 2).unwrap();
    let frame = ethernet(0x88e5, &join(&[&[0, short, 0, 0, 0, 1, 8, 0], &datagram]));

    let h = read(LinkType::ETHERNET, &frame);

    assert_eq!((h.payload(&frame), h.truncated), (&b"ab"[..], true));
}

#[test]
fn leaves_ethernet_padding_out() {
    let frame = join(&[&ethernet(0x0800, &v4(17, &udp(1, 2, b"x"))), &[0; 17]]);

    let h = read(LinkType::ETHERNET, &frame);

    assert_eq!((h.payload(&frame), h.truncated), (&b"x"[..], false));
}

#[test]
fn takes_a_zero_total_length_as_the_rest_of_the_frame() {
    let mut frame = ethernet(0x0800, &v4(6, &tcp(1, 2, 0, 0x10, b"a very long segment")));
    frame[16..18].fill(0);

    let h = read(LinkType::ETHERNET, &frame);

    assert_eq!((h.payload(&frame), h.truncated), (&b"a very long segment"[..], false));
}

#[test]
fn describes_a_cut_packet_as_far_as_it_goes() {
    let whole = ethernet(0x0800, &v4(17, &udp(5060, 5061, b"INVITE sip:x")));

    for len in 0..whole.len() {
        let decoded = decode(LinkType::ETHERNET, &whole[..len], &DecodeOptions::default());
        match len {
            0..34 => assert!(matches!(decoded, Err(DecodeError::Truncated(_))), "{len}"),
            34..38 => assert_eq!(decoded.unwrap().tuple, tuple4(0, 0, IpProto::UDP)),
            38..42 => {
                let h = decoded.unwrap();
                assert_eq!((h.tuple.src.port, h.transport, h.payload.len()), (5060, Transport::Other, 0));
            }
            _ => {
                let h = decoded.unwrap();
                assert_eq!((h.transport, h.truncated), (Transport::Udp, true));
                assert_eq!(h.payload(&whole[..len]), &whole[42..len]);
            }
        }
    }
}

#[test]
fn cuts_the_payload_at_the_udp_length_when_it_fits() {
    let mut frame = v4(17, &join(&[&udp(1, 2, b"abc"), b"trailer"]));
    let h = read(LinkType::RAW, &frame);
    assert_eq!(h.payload(&frame), b"abc");

    frame[24..26].copy_from_slice(&[0xff, 0xff]);
    let h = read(LinkType::RAW, &frame);
    assert_eq!(h.payload(&frame), b"abctrailer");
}

#[test]
fn describes_fragments_without_inventing_ports() {
    let datagram = udp(5060, 5061, &[b'x'; 40]);
    let first = v4_piece(17, 99, 0, true, &datagram[..24]);
    let later = v4_piece(17, 99, 24, false, &datagram[24..]);

    let (one, two) = (read(LinkType::RAW, &first), read(LinkType::RAW, &later));

    assert_eq!(one.fragment, Some(Fragment { id: 99, offset: 0, more: true, next: IpProto::UDP }));
    assert_eq!((one.tuple.src.port, one.payload.len(), one.body.len()), (5060, 16, 24));
    assert_eq!(two.fragment, Some(Fragment { id: 99, offset: 24, more: false, next: IpProto::UDP }));
    assert_eq!((two.tuple.src.port, two.transport, two.payload(&later)), (0, Transport::Other, &datagram[24..]));
}

#[test]
fn walks_ipv6_extension_headers() {
    let datagram = udp(1, 2, b"x");
    let authentication = [60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let extensions =
        join(&[&[43, 0, 0, 0, 0, 0, 0, 0], &[51, 0, 0, 0, 0, 0, 0, 0], &authentication, &[17, 1], &[0; 14], &datagram]);
    let packet = v6(0, &extensions);

    let h = read(LinkType::RAW, &packet);

    assert_eq!((h.tuple, h.payload(&packet)), (tuple6(1, 2, IpProto::UDP), &b"x"[..]));
    assert_eq!(h.body.of(&packet), datagram);
}

#[test]
fn does_not_step_over_an_authentication_header_shorter_than_its_fixed_part() {
    for packet in [
        v4(51, &[17, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 9, 0, 0, 5]),
        v6(51, &[17, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 9, 0, 0, 5]),
    ] {
        let h = read(LinkType::RAW, &packet);
        assert_eq!((h.tuple.proto, h.tuple.src.port, h.transport), (IpProto(51), 0, Transport::Other));
    }
}

#[test]
fn steps_over_an_atomic_ipv6_fragment_header() {
    let packet = v6_piece(17, 5, 0, false, &udp(1, 2, b"x"));

    let h = read(LinkType::RAW, &packet);

    assert_eq!((h.fragment, h.tuple), (None, tuple6(1, 2, IpProto::UDP)));
}

#[test]
fn keeps_the_whole_piece_of_an_ipv6_fragment() {
    let body = join(&[&[17, 0, 0, 0, 0, 0, 0, 0], &udp(1, 2, &[9; 24])]);
    let first = v6_piece(60, 0xdead_beef, 0, true, &body);
    let later = v6_piece(17, 0xdead_beef, 40, false, &[7; 5]);

    let (one, two) = (read(LinkType::RAW, &first), read(LinkType::RAW, &later));

    assert_eq!(one.fragment, Some(Fragment { id: 0xdead_beef, offset: 0, more: true, next: IpProto(60) }));
    assert_eq!((one.tuple, one.body.of(&first)), (tuple6(1, 2, IpProto::UDP), &body[..]));
    assert_eq!((two.fragment.unwrap().offset, two.payload(&later)), (40, &[7; 5][..]));
}

#[test]
fn stops_at_too_many_extension_headers_and_tags() {
    let packet = v6(60, &[[60, 0, 0, 0, 0, 0, 0, 0]; 100].concat());
    assert_eq!(read(LinkType::RAW, &packet).tuple.proto, IpProto(60));

    let tags = ethernet(0x8100, &[[0, 1, 0x81, 0]; 100].concat());
    assert_eq!(decode(LinkType::ETHERNET, &tags, &DecodeOptions::default()), Err(DecodeError::TooDeep));
}

#[test]
fn refuses_what_is_not_ip_and_headers_that_contradict_themselves() {
    let mut short = v4(17, &udp(1, 2, b"x"));
    short[0] = 0x44;
    let mut tiny = v4(17, &udp(1, 2, b"x"));
    tiny[2..4].copy_from_slice(&[0, 19]);
    let cases = [
        (LinkType::ETHERNET, ethernet(0x0806, &[0; 28]), DecodeError::NotIp(0x0806)),
        (LinkType::ETHERNET, ethernet(0x0800, &v6(17, &[0; 8])), DecodeError::Malformed("IPv4")),
        (LinkType::RAW, short, DecodeError::Malformed("IPv4")),
        (LinkType::RAW, tiny, DecodeError::Malformed("IPv4")),
        (LinkType::RAW, vec![0x50; 40], DecodeError::NotIp(5)),
        (LinkType(147), vec![0; 40], DecodeError::LinkType(LinkType(147))),
        (LinkType::NULL, vec![7, 0, 0, 0, 0x45], DecodeError::NotIp(7)),
    ];

    for (link, frame, error) in cases {
        assert_eq!(decode(link, &frame, &DecodeOptions::default()), Err(error));
    }
}

#[test]
fn marks_a_tcp_header_longer_than_its_packet_as_no_segment() {
    let mut packet = v4(6, &tcp(1, 2, 0, 0x10, b""));
    packet[32] = 0xf0;

    let h = read(LinkType::RAW, &packet);

    assert_eq!((h.transport, h.tuple.dst.port, h.payload.len()), (Transport::Other, 2, 0));
}

fn read(link: LinkType, frame: &[u8]) -> Headers {
    decode(link, frame, &DecodeOptions::default()).unwrap()
}

fn tuple4(src: u16, dst: u16, proto: IpProto) -> FiveTuple {
    FiveTuple { src: Endpoint { ip: Ip::v4(A), port: src }, dst: Endpoint { ip: Ip::v4(B), port: dst }, proto }
}

fn tuple6(src: u16, dst: u16, proto: IpProto) -> FiveTuple {
    FiveTuple { src: Endpoint { ip: Ip::v6(A6), port: src }, dst: Endpoint { ip: Ip::v6(B6), port: dst }, proto }
}
