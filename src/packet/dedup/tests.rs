use super::*;
use crate::packet::LinkType;
use crate::packet::build::{ethernet, join, tcp, udp, v4, v6};
use crate::packet::headers::{DecodeOptions, decode};

const ETH0: InterfaceId = InterfaceId(0);
const ETH1: InterfaceId = InterfaceId(1);

#[test]
fn a_packet_is_the_same_after_a_router_and_in_a_tunnel() {
    let dedup = Dedup::new(1, CAPACITY);
    for packet in [v4(17, &udp(1, 2, b"abc")), v4(6, &tcp(1, 2, 3, 0x10, b"abc"))] {
        let id = identify(&dedup, &ethernet(0x0800, &packet));
        let transport_checksum = if packet[9] == 17 { 26 } else { 36 };
        for at in [8, 10, 11, transport_checksum, transport_checksum + 1] {
            let mut routed = packet.clone();
            routed[at] ^= 0x55;
            assert_eq!(identify(&dedup, &ethernet(0x0800, &routed)), id, "{at}");
        }
        let padded = join(&[&ethernet(0x8100, &join(&[&[0, 5, 8, 0], &packet])), &[0; 10]]);
        assert_eq!(identify(&dedup, &padded), id);
        assert_eq!(identify(&dedup, &ethernet(0x0800, &v4(4, &packet))), id);
    }
    let six = v6(17, &udp(1, 2, b"abc"));
    let mut routed = six.clone();
    routed[7] = 3;
    assert_eq!(identify(&dedup, &ethernet(0x86dd, &six)), identify(&dedup, &ethernet(0x86dd, &routed)));
}

#[test]
fn every_other_byte_makes_another_packet() {
    let dedup = Dedup::new(1, CAPACITY);
    for (kind, packet, ignored) in [
        (0x0800, v4(17, &udp(1, 2, b"abc")), vec![8, 10, 11, 26, 27]),
        (0x0800, v4(6, &tcp(1, 2, 3, 0x10, b"abc")), vec![8, 10, 11, 36, 37]),
        (0x86dd, v6(17, &udp(1, 2, b"abc")), vec![7, 46, 47]),
    ] {
        let id = identify(&dedup, &ethernet(kind, &packet));
        for at in (0..packet.len()).filter(|at| !ignored.contains(at)) {
            let mut other = packet.clone();
            other[at] ^= 1;
            let data = ethernet(kind, &other);
            if let Ok(h) = decode(LinkType::ETHERNET, &data, &DecodeOptions::default()) {
                assert_ne!(dedup.packet_id(&h, &data), id, "{kind:x} {at}");
            }
        }
    }
}

#[test]
fn another_seed_gives_other_identities() {
    let frame = ethernet(0x0800, &v4(17, &udp(1, 2, b"abc")));

    assert_ne!(identify(&Dedup::new(1, CAPACITY), &frame), identify(&Dedup::new(2, CAPACITY), &frame));
}

#[test]
fn recognises_a_double_within_the_window_only() {
    let mut dedup = Dedup::new(1, CAPACITY);
    let ms = |n: i64| Timestamp::from_nanos(n * 1_000_000);

    let answers = [
        dedup.seen(7, ms(0), ETH0),
        dedup.seen(7, ms(0), ETH0),
        dedup.seen(7, ms(99), ETH1),
        dedup.seen(8, ms(99), ETH0),
        dedup.seen(7, ms(100), ETH0),
        dedup.seen(7, ms(60), ETH1),
    ];

    assert_eq!(answers, [false, true, true, false, false, true]);
    assert_eq!(dedup.counters(), Counters { same_interface: 1, other_interface: 2, forgotten: 0 });
}

#[test]
fn forgets_the_oldest_when_full_and_counts_it() {
    let mut dedup = Dedup::new(1, 8);

    for id in 0..100_u64 {
        assert!(!dedup.seen(id << 32, Timestamp::from_nanos(i64::try_from(id).unwrap()), ETH0));
    }

    assert!(dedup.seen(99 << 32, Timestamp::from_nanos(100), ETH0));
    assert!(!dedup.seen(0, Timestamp::from_nanos(100), ETH0));
    assert_eq!(dedup.counters().forgotten, 97);
}

fn identify(dedup: &Dedup, frame: &[u8]) -> u64 {
    dedup.packet_id(&decode(LinkType::ETHERNET, frame, &DecodeOptions::default()).unwrap(), frame)
}
