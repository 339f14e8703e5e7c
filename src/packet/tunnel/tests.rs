use super::*;
use crate::packet::build::{be16, ethernet, join, udp, v4, v4_piece, v6};
use crate::packet::headers::{DecodeOptions, Transport, decode};
use crate::packet::{FiveTuple, IpProto, LinkType};

const PORTS: (u16, u16) = (5060, 5070);

#[test]
fn peels_every_encapsulation_to_the_same_inside() {
    for (name, frame, has_outer) in encapsulations(&inside(), &ethernet(0x0800, &inside())) {
        let h = read(&frame);

        assert_eq!((h.tuple.src.port, h.tuple.dst.port), PORTS, "{name}");
        assert_eq!((h.transport, h.payload(&frame)), (Transport::Udp, &b"SIP/2.0 200 OK"[..]), "{name}");
        assert_eq!((h.outer.is_some(), h.depth, h.truncated, h.too_deep), (has_outer, 1, false, false), "{name}");
        assert_eq!(h.ip.of(&frame), inside(), "{name}");
    }
}

#[test]
fn names_the_outermost_addresses_of_nested_tunnels() {
    let nested = ip(47, &join(&[&[0, 0, 8, 0], &v4(17, &udp(9, 2152, &gtp(&inside(), 0x30, &[])))]));

    let h = read(&nested);

    assert_eq!((h.depth, h.outer.map(|o| o.proto)), (2, Some(IpProto(47))));
    assert_eq!(h.tuple.src.port, PORTS.0);
}

#[test]
fn stops_at_the_depth_limit_and_says_so() {
    let mut packet = inside();
    for _ in 0..5 {
        packet = v4(4, &packet);
    }

    let h = read(&ethernet(0x0800, &packet));
    assert_eq!((h.depth, h.too_deep, h.tuple.proto), (4, true, IpProto::default().max(IpProto(4))));

    let shallow = DecodeOptions { max_depth: 0, ..DecodeOptions::default() };
    let mpls = ethernet(0x8847, &join(&[&[0, 1, 1, 64], &inside()]));
    assert_eq!(decode(LinkType::ETHERNET, &mpls, &shallow), Err(DecodeError::TooDeep));
}

#[test]
fn leaves_a_carrier_alone_whose_inside_is_not_sound() {
    let rtp = [&[0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4][..], &[0xd5; 160]].concat();
    let almost = join(&[&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x0800, &inside()[..30])]);
    let carriers =
        [(4789, rtp.clone()), (6081, rtp.clone()), (2152, rtp), (4789, almost), (4789, vec![]), (2152, vec![0x30, 255])];

    for (port, payload) in carriers {
        let frame = ip(17, &udp(1, port, &payload));
        let h = read(&frame);
        assert_eq!((h.tuple.dst.port, h.outer, h.depth, h.too_deep), (port, None::<FiveTuple>, 0, false));
        assert_eq!((h.transport, h.payload(&frame)), (Transport::Udp, &payload[..]));
    }
    for proto in [4, 41, 47, 50] {
        let frame = ip(proto, &[0x99; 40]);
        let h = read(&frame);
        assert_eq!((h.tuple.proto, h.payload.len(), h.depth), (IpProto(proto), 40, 0));
    }
}

#[test]
fn peels_a_tunnel_the_capture_cut() {
    let frame = ip(17, &udp(1, 4789, &join(&[&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x0800, &inside())])));

    let h = read(&frame[..frame.len() - 4]);

    assert_eq!((h.tuple.src.port, h.truncated), (PORTS.0, true));
}

#[test]
fn does_not_peel_a_piece_of_a_tunnelled_packet() {
    let carried = udp(1, 4789, &join(&[&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x0800, &inside())]));
    let frame = ethernet(0x0800, &v4_piece(17, 1, 0, true, &carried[..64]));

    let h = read(&frame);

    assert_eq!((h.tuple.dst.port, h.depth), (4789, 0));
    assert!(h.fragment.is_some());
}

#[test]
fn leaves_pptp_and_source_routed_gre_alone() {
    for flags in [[0x20, 0x81], [0x40, 0x00]] {
        let frame = ip(47, &join(&[&flags, &[0x08, 0x00], &inside(), &inside()]));
        assert_eq!((read(&frame).tuple.proto, read(&frame).depth), (IpProto(47), 0));
    }
}

#[test]
fn refuses_an_endless_label_stack() {
    let frame = ethernet(0x8847, &[[0, 1, 0, 64]; 400].concat());

    assert_eq!(decode(LinkType::ETHERNET, &frame, &DecodeOptions::default()), Err(DecodeError::TooDeep));
}

#[test]
fn takes_the_vlan_of_the_outer_frame_first() {
    let tagged = |vlan: u8, ip: &[u8]| ethernet(0x8100, &join(&[&[0, vlan, 8, 0], ip]));
    let vxlan = join(&[&[8, 0, 0, 0, 0, 0, 1, 0], &tagged(9, &inside())]);
    let plain_outside = ip(17, &udp(1, 4789, &vxlan));
    let both = tagged(5, &v4(17, &udp(1, 4789, &vxlan)));

    assert_eq!((read(&both).vlan, read(&plain_outside).vlan), (Some(5), Some(9)));
}

/// (name, frame, whether an outer IP header carries it)
fn encapsulations(packet: &[u8], frame: &[u8]) -> Vec<(&'static str, Vec<u8>, bool)> {
    let gre = |flags: [u8; 2], proto: [u8; 2], rest: &[&[u8]]| ip(47, &join(&[&flags, &proto, &rest.concat()]));
    let to = |port: u16, payload: &[u8]| ip(17, &udp(33333, port, payload));
    let erspan3 = |ft: u8, o: u8| [0x20, 1, 0, 1, 0, 0, 0, 9, 0, 0, ft << 2, o];
    let pppoe = |proto: [u8; 2], p: &[u8]| ethernet(0x8864, &join(&[&[0x11, 0, 0, 1], &be16(p.len() + 2), &proto, p, &[0; 9]]));
    let word = [0_u8; 4];
    vec![
        ("mpls", ethernet(0x8847, &join(&[&[0, 1, 0, 64, 0, 2, 1, 64], packet])), false),
        ("mpls upstream", ethernet(0x8848, &join(&[&[0, 1, 1, 64], packet])), false),
        ("pseudowire", ethernet(0x8847, &join(&[&[0, 1, 1, 64], frame])), false),
        ("pseudowire with control word", ethernet(0x8847, &join(&[&[0, 1, 1, 64], &word, frame])), false),
        ("pseudowire to a 4x MAC", ethernet(0x8847, &join(&[&[0, 1, 1, 64, 0x44], &frame[1..]])), false),
        ("pppoe", pppoe([0, 0x21], packet), false),
        ("gre", gre([0, 0], [8, 0], &[packet]), true),
        ("gre with all options", gre([0xb0, 0], [8, 0], &[&[1; 12], packet]), true),
        ("gre bridged", gre([0x20, 0], [0x65, 0x58], &[&[0, 0, 1, 0], frame]), true),
        ("gre over ipv6", ethernet(0x86dd, &v6(47, &join(&[&[0, 0, 8, 0], packet]))), true),
        ("erspan 1", gre([0, 0], [0x88, 0xbe], &[frame]), true),
        ("erspan 2", gre([0x10, 0], [0x88, 0xbe], &[&[0, 0, 0, 1], &[0x10, 1, 0, 1, 0, 0, 0, 0], frame]), true),
        ("erspan 3", gre([0x10, 0], [0x22, 0xeb], &[&[0, 0, 0, 1], &erspan3(0, 0), frame]), true),
        ("erspan 3 with platform header", gre([0x10, 0], [0x22, 0xeb], &[&[0, 0, 0, 1], &erspan3(0, 1), &[3; 8], frame]), true),
        ("erspan 3 of ip", gre([0x10, 0], [0x22, 0xeb], &[&[0, 0, 0, 1], &erspan3(2, 0), packet]), true),
        ("vxlan", to(4789, &join(&[&[8, 0, 0, 0, 0, 0, 1, 0], frame])), true),
        ("vxlan where Linux has it", to(8472, &join(&[&[8, 0, 0, 0, 0, 0, 1, 0], frame])), true),
        ("geneve", to(6081, &join(&[&[0, 0, 0x65, 0x58, 0, 0, 1, 0], frame])), true),
        ("geneve with options and ip", to(6081, &join(&[&[2, 0, 8, 0, 0, 0, 1, 0], &[1; 8], packet])), true),
        ("gtp-u", to(2152, &gtp(packet, 0x30, &[])), true),
        ("gtp-u with sequence", to(2152, &gtp(packet, 0x32, &[0, 1, 0, 0x85])), true),
        ("gtp-u with extensions", to(2152, &gtp(packet, 0x34, &[0, 0, 0, 0x85, 1, 0, 9, 0xc0, 2, 1, 1, 1, 1, 1, 1, 0])), true),
        ("ip in ip", ip(4, packet), true),
        ("ip in ipv6", ethernet(0x86dd, &v6(4, packet)), true),
    ]
}

#[test]
fn peels_ipv6_in_ipv4_and_in_ipv6() {
    let six = v6(17, &udp(PORTS.0, PORTS.1, b"x"));

    for frame in [ip(41, &six), ethernet(0x86dd, &v6(41, &six))] {
        let h = read(&frame);
        assert_eq!((h.tuple.src.port, h.depth, h.payload(&frame)), (PORTS.0, 1, &b"x"[..]));
    }
}

fn gtp(packet: &[u8], flags: u8, options: &[u8]) -> Vec<u8> {
    join(&[&[flags, 255], &be16(options.len() + packet.len()), &[0, 0, 0, 1], options, packet])
}

fn inside() -> Vec<u8> {
    v4(17, &udp(PORTS.0, PORTS.1, b"SIP/2.0 200 OK"))
}

fn ip(proto: u8, body: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &v4(proto, body))
}

fn read(frame: &[u8]) -> Headers {
    decode(LinkType::ETHERNET, frame, &DecodeOptions::default()).unwrap()
}
