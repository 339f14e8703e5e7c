use crate::packet::build::{ethernet, join, tcp, udp, v4, v6};
use crate::packet::headers::{DecodeOptions, Headers, Transport, decode};
use crate::packet::{IpProto, LinkType};

const SIP: &[u8] = b"REGISTER sip:ims.example SIP/2.0\r\n";

#[test]
fn is_left_alone_unless_asked_for() {
    let h = read(&packet(17, &udp(5060, 5060, SIP), 12), DecodeOptions::default());

    assert_eq!((h.tuple.proto, h.depth), (IpProto(50), 0));
}

#[test]
fn reads_the_content_for_every_length_of_integrity_value() {
    for icv in [0, 8, 12, 16] {
        for (next, content) in [(17, udp(5060, 5061, SIP)), (6, tcp(5060, 5061, 1, 0x18, SIP))] {
            let frame = packet(next, &content, icv);
            for options in [null(), DecodeOptions { esp_icv: Some(u8::try_from(icv).unwrap()), ..null() }, heuristic()] {
                let h = read(&frame, options);
                assert_eq!((h.tuple.proto, h.tuple.src.port, h.payload(&frame)), (IpProto(next), 5060, SIP), "{icv} {options:?}");
                assert_eq!((h.depth, h.outer, h.body.of(&frame)), (1, None, &content[..]));
            }
        }
    }
}

#[test]
fn reads_it_in_ipv6_too() {
    let frame = ethernet(0x86dd, &v6(50, &esp(17, &udp(5060, 5061, SIP), 12)));

    assert_eq!(read(&frame, null()).transport, Transport::Udp);
}

#[test]
fn the_heuristic_wants_sip_or_rtp() {
    let rtp = join(&[&[0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4], &[0xd5; 160]]);
    let report = [0x80, 200, 0, 1, 1, 2, 3, 4];
    let answer = b"SIP/2.0 200 OK\r\n".to_vec();

    for voice in [rtp, report.to_vec(), answer] {
        assert_eq!(read(&packet(17, &udp(1, 2, &voice), 12), heuristic()).tuple.proto, IpProto::UDP);
    }
    for other in [&b"GET / HTTP/1.1"[..], b"", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
        let frame = packet(17, &udp(1, 2, other), 12);
        assert_eq!(read(&frame, heuristic()).tuple.proto, IpProto(50));
        assert_eq!(read(&frame, null()).tuple.proto, IpProto::UDP);
    }
}

#[test]
fn refuses_an_inconsistent_trailer() {
    let good = packet(17, &udp(5060, 5061, b"abc"), 12);
    let padding = good.len() - 12 - 2 - 3;

    for (at, change) in [(padding, 9), (padding + 3, 200), (padding + 4, 58)] {
        let mut bad = good.clone();
        bad[at] = change;
        assert_eq!(read(&bad, null()).tuple.proto, IpProto(50), "{at}");
    }
    assert_eq!(read(&good[..good.len() - 1], null()).tuple.proto, IpProto(50));
    assert_eq!(read(&good, null()).tuple.proto, IpProto::UDP);
}

#[test]
fn refuses_a_trailer_that_does_not_end_on_a_word() {
    let content = udp(5060, 5061, b"abc");
    let odd = join(&[&[0, 0, 1, 0, 0, 0, 0, 1], &content, &[1, 2, 2, 17], &[0xa7; 12]]);

    assert_eq!(read(&ethernet(0x0800, &v4(50, &odd)), null()).tuple.proto, IpProto(50));
}

#[test]
fn the_heuristic_does_not_look_for_rtp_in_tcp() {
    let mut segment = tcp(5060, 5061, 1, 0x10, &[0; 20]);
    segment[8] = 0x80;
    let frame = packet(6, &segment, 12);

    assert_eq!(read(&frame, heuristic()).tuple.proto, IpProto(50));
    assert_eq!(read(&frame, null()).tuple.proto, IpProto::TCP);
}

fn null() -> DecodeOptions {
    DecodeOptions { esp_null: true, ..DecodeOptions::default() }
}

fn heuristic() -> DecodeOptions {
    DecodeOptions { esp_heuristic: true, ..DecodeOptions::default() }
}

fn packet(next: u8, content: &[u8], icv: usize) -> Vec<u8> {
    ethernet(0x0800, &v4(50, &esp(next, content, icv)))
}

fn esp(next: u8, content: &[u8], icv: usize) -> Vec<u8> {
    let pad = u8::try_from((4 - (content.len() + 2) % 4) % 4).unwrap();
    let padding: Vec<u8> = (1..=pad).collect();
    join(&[&[0, 0, 1, 0, 0, 0, 0, 1], content, &padding, &[pad, next], &vec![0xa7; icv]])
}

fn read(frame: &[u8], options: DecodeOptions) -> Headers {
    decode(LinkType::ETHERNET, frame, &options).unwrap()
}
