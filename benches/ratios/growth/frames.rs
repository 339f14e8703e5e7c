//! Frames through the whole inspection, and the parts that put pieces together.

use std::sync::Arc;

use lippycat::capture::{FileSource, Libpcap, Progress, Source as _};
use lippycat::engine::{Bounds, Engine, EngineConfig, Mode};
use lippycat::filter::{CompileOptions, Filter, FilterKind, FilterSet};
use lippycat::packet::headers::DecodeOptions;
use lippycat::packet::{Frame, InterfaceId, LinkType, Timestamp};
use lippycat::protocols::rtp::rtcp;
use lippycat::voip::event::Event;
use lippycat::voip::output::{Output, Owner};
use lippycat::voip::table::TableConfig;

use super::Series;

pub(super) const ALL: &[Series] = &[
    Series { what: "calls", n: 500, make: |n| engine((0..n).map(|i| udp(i, 5060, &invite(i, i, 1))).collect()) },
    Series {
        what: "calls that end",
        n: 500,
        make: |n| {
            engine((0..2 * n).map(|i| udp(i / 2, 5060, &if i % 2 == 0 { invite(i / 2, i / 2, 1) } else { bye(i / 2) })).collect())
        },
    },
    Series { what: "dialogs of one call", n: 200, make: |n| engine((0..n).map(|i| udp(1, 5060, &invite(1, i, 1))).collect()) },
    Series { what: "new offers in one call", n: 200, make: |n| engine((0..n).map(|i| udp(1, 5060, &invite(1, 1, i))).collect()) },
    Series {
        what: "media lines of one call",
        n: 50,
        make: |n| engine((0..n / 10).map(|i| udp(1, 5060, &offer(1, 1, i, 10))).collect()),
    },
    Series {
        what: "media flows of calls",
        n: 200,
        make: |n| {
            engine((0..n).flat_map(|i| [udp(i, 5060, &invite(i, i, 1)), rtp(i, port(i), 1, 1), rtp(i, port(i), 1, 2)]).collect())
        },
    },
    Series {
        what: "claims on one endpoint",
        n: 200,
        make: |n| engine((0..n).map(|i| udp(i, 5060, &invite_at(i, i, 1, 20_000))).chain([rtp(7, 20_000, 1, 1)]).collect()),
    },
    Series {
        what: "sources of one stream's port",
        n: 500,
        make: |n| engine([udp(1, 5060, &invite(1, 1, 1))].into_iter().chain((0..n).map(|i| rtp(1, port(1), i, 1))).collect()),
    },
    Series { what: "RTP that nobody claimed, flows", n: 500, make: |n| engine((0..n).map(|i| rtp(i, port(i), i, 1)).collect()) },
    Series {
        what: "RTP that nobody claimed, sources of a flow",
        n: 500,
        make: |n| engine((0..n).map(|i| rtp(1, 20_000, i, 1)).collect()),
    },
    Series { what: "flows", n: 500, make: |n| engine((0..n).map(|i| udp(i, 9, b"anything")).collect()) },
    Series { what: "doubles of one packet", n: 500, make: |n| engine((0..n).map(|_| udp(1, 5060, &invite(1, 1, 1))).collect()) },
    Series {
        what: "calls on one connection",
        n: 200,
        make: |n| engine(segments(&(0..n).flat_map(|i| invite(i, i, 1)).collect::<Vec<_>>(), 1400)),
    },
    Series {
        what: "a connection of one-byte segments",
        n: 500,
        make: |n| engine(segments(&(0..n / 100).flat_map(|i| invite(i, i, 1)).collect::<Vec<_>>(), 1)),
    },
    Series { what: "a connection backwards", n: 500, make: |n| engine(reversed(n)) },
    Series {
        what: "a connection of holes",
        n: 500,
        make: |n| engine(segments(&vec![b'x'; 4 * n], 2).into_iter().step_by(2).collect()),
    },
    Series { what: "a connection that repeats and overlaps", n: 500, make: |n| engine(overlapping(n)) },
    // well above the bound on connections: from there on each costs more by one that goes
    Series { what: "connections half open", n: 64_000, make: |n| engine((0..n).map(|i| tcp(i, 1, 2, b"")).collect()) },
    Series {
        what: "connections half said",
        n: 200,
        make: |n| {
            engine(
                (0..2 * n)
                    .map(|i| if i % 2 == 0 { tcp(i / 2, 1, 2, b"") } else { tcp(i / 2, 2, 16, &invite(i / 2, 1, 1)[..200]) })
                    .collect(),
            )
        },
    },
    Series { what: "fragments of one datagram", n: 100, make: |n| engine(pieces(1, n)) },
    Series {
        what: "datagrams of one fragment",
        n: 500,
        make: |n| engine((0..n).map(|i| ipv4(i, 17, 0x2000, &[0x55; 64])).collect()),
    },
    Series { what: "tunnels in tunnels", n: 100, make: |n| engine((0..20).map(|_| tunnels(n)).collect()) },
    Series { what: "VLAN tags", n: 100, make: |n| engine((0..20).map(|_| tags(n)).collect()) },
    Series { what: "IPv6 extension headers", n: 100, make: |n| engine((0..20).map(|_| extensions(n)).collect()) },
    Series { what: "pcap records", n: 500, make: |n| file(pcap(n)) },
    Series { what: "pcapng packets", n: 500, make: |n| file(pcapng(1, n, 0)) },
    Series { what: "pcapng interfaces", n: 500, make: |n| file(pcapng(n, 1, 0)) },
    Series { what: "pcapng interfaces, and packets of the last", n: 200, make: |n| file(pcapng(n, n, 0)) },
    Series { what: "pcapng options", n: 500, make: |n| file(pcapng(1, 1, n)) },
    Series { what: "pcapng sections", n: 100, make: |n| file((0..n).flat_map(|_| pcapng(1, 1, 1)).collect()) },
    Series { what: "RTCP packets in one datagram", n: 500, make: |n| compound([0x80, 201, 0, 1, 0, 0, 0, 1].repeat(n)) },
    Series { what: "RTCP names in one packet", n: 100, make: |n| compound(names(n)) },
];

struct Nothing(u64);

impl Output for Nothing {
    fn forward(&mut self, _: &Frame<'_>, _: Option<&Owner<'_>>) {
        self.0 += 1;
    }

    fn event(&mut self, _: Event) {
        self.0 += 1;
    }

    fn wants_events(&self) -> bool {
        true
    }
}

/// Frames, a millisecond apart, through an engine that wants everybody's calls.
fn engine(frames: Vec<Vec<u8>>) -> Box<dyn FnMut()> {
    let filters = [Filter::new("t", FilterKind::SipUser, "eve*")];
    let (filters, errors) = FilterSet::compile(&filters, &CompileOptions::default());
    assert!(errors.is_empty(), "{errors:?}");
    let config = EngineConfig {
        mode: Mode::Voip,
        table: TableConfig { quality: true, ..TableConfig::default() },
        decode: DecodeOptions::default(),
        keep_duplicates: false,
        flows: 1 << 16,
        bounds: Bounds::default(),
    };
    let mut engine = Engine::new(config, Arc::new(filters), Arc::new(Libpcap));
    Box::new(move || {
        let mut out = Nothing(0);
        let mut now = 1_700_000_000_000_000_000_i64;
        for (number, data) in (1..).zip(&frames) {
            now += 1_000_000;
            let ts = Timestamp::from_nanos(now);
            let wire_len = data.len() as u32;
            engine.handle_frame(
                &Frame { ts, wire_len, link: LinkType::ETHERNET, interface: InterfaceId(0), data },
                number,
                &mut out,
            );
            if number % 64 == 0 {
                engine.handle_timeout(ts, &mut out);
            }
        }
        engine.finish(&mut out);
        std::hint::black_box(out.0);
    })
}

fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind.to_be_bytes()[..], rest].concat()
}

/// IPv4 from the n-th host.
fn packet(n: usize, protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = (n as u32).to_be_bytes();
    let mut head = vec![0x45, 0];
    head.extend(((20 + rest.len()).min(65_535) as u16).to_be_bytes());
    head.extend([b, c]);
    head.extend(fragment.to_be_bytes());
    head.extend([64, protocol, 0, 0, 10, a, b, c, 192, 0, 2, 1]);
    head.extend(rest);
    head
}

fn ipv4(n: usize, protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &packet(n, protocol, fragment, rest))
}

fn datagram(to: u16, payload: &[u8]) -> Vec<u8> {
    let len = ((8 + payload.len()).min(65_535) as u16).to_be_bytes();
    [&[0x27, 0x10], &to.to_be_bytes()[..], &len, &[0, 0], payload].concat()
}

fn udp(n: usize, to: u16, payload: &[u8]) -> Vec<u8> {
    ipv4(n, 17, 0, &datagram(to, payload))
}

fn tcp(n: usize, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(
        n,
        6,
        0,
        &[&[0x27, 0x10, 0x13, 0xc4], &seq.to_be_bytes()[..], &[0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0], payload]
            .concat(),
    )
}

const fn port(n: usize) -> u16 {
    (10_000 + 2 * (n % 20_000)) as u16
}

fn rtp(n: usize, to: u16, source: usize, seq: u8) -> Vec<u8> {
    let [.., a, b, c] = (source as u32).to_be_bytes();
    let mut head = vec![0x80, 0, 0, seq, 0, 0, 0, seq, 7, a, b, c];
    head.resize(172, 0x55);
    udp(n, to, &head)
}

fn invite(call: usize, tag: usize, round: usize) -> Vec<u8> {
    invite_at(call, tag, round, port(call + round - 1))
}

fn invite_at(call: usize, tag: usize, round: usize, port: u16) -> Vec<u8> {
    message(call, tag, round, &format!("m=audio {port} RTP/AVP 0\r\n"))
}

fn offer(call: usize, tag: usize, round: usize, lines: usize) -> Vec<u8> {
    let lines: Vec<_> = (0..lines).map(|i| format!("m=audio {} RTP/AVP 0\r\n", port(round * lines + i))).collect();
    message(call, tag, round + 1, &lines.concat())
}

fn message(call: usize, tag: usize, round: usize, media: &str) -> Vec<u8> {
    let sdp = format!("v=0\r\no=- 1 {round} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{media}");
    format!(
        "INVITE sip:mallory@example.net SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{call}-{tag}-{round}\r\nFrom: <sip:eve{call}@example.net>;tag={tag}\r\n\
         To: <sip:mallory@example.net>\r\nCall-ID: {call}@example.net\r\nCSeq: {round} INVITE\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
    .into_bytes()
}

fn bye(call: usize) -> Vec<u8> {
    format!(
        "BYE sip:mallory@example.net SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKb{call}\r\nFrom: <sip:eve{call}@example.net>;tag={call}\r\n\
         To: <sip:mallory@example.net>\r\nCall-ID: {call}@example.net\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A connection of these bytes, cut into pieces.
fn segments(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let data = bytes.chunks(piece).enumerate().map(|(i, part)| tcp(1, 2 + (i * piece) as u32, 16, part));
    [tcp(1, 1, 2, b"")].into_iter().chain(data).collect()
}

fn reversed(n: usize) -> Vec<Vec<u8>> {
    let mut all = segments(&vec![b'x'; 8 * n], 8);
    all[1..].reverse();
    all
}

fn overlapping(n: usize) -> Vec<Vec<u8>> {
    let piece = |i: usize| tcp(1, 10 + (i * 7 % (4 * n)) as u32, 16, &[b'x'; 64]);
    [tcp(1, 1, 2, b"")].into_iter().chain((0..n).map(piece)).collect()
}

/// The pieces of one datagram, the last one first, as many as there may be; then repetitions.
fn pieces(id: usize, n: usize) -> Vec<Vec<u8>> {
    let piece = |i: usize| {
        let at = i % 8000;
        ipv4(id, 17, at as u16 | if at == 7999 { 0 } else { 0x2000 }, &[0x55; 8])
    };
    (0..n).rev().map(piece).collect()
}

/// IP in IP in IP …
fn tunnels(n: usize) -> Vec<u8> {
    let mut inner = datagram(5060, b"x");
    let mut protocol = 17;
    for _ in 0..n.min(3000) {
        inner = packet(1, protocol, 0, &inner);
        protocol = 4;
    }
    // what does not fit is nested flat
    inner.resize(inner.len().max(n * 20), 0x45);
    ethernet(0x0800, &inner)
}

fn tags(n: usize) -> Vec<u8> {
    ethernet(0x8100, &[0, 1, 0x81, 0].repeat(n))
}

fn extensions(n: usize) -> Vec<u8> {
    let mut head = vec![0x60, 0, 0, 0];
    head.extend(((n * 8).min(65_535) as u16).to_be_bytes());
    head.extend([60, 64]);
    head.extend([0x20; 32]);
    head.extend([60, 0, 1, 4, 0, 0, 0, 0].repeat(n));
    ethernet(0x86dd, &head)
}

/// Reads a capture file that is in memory.
fn file(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut source = FileSource::from_reader("growth", std::io::Cursor::new(bytes.clone())).unwrap();
        let mut seen = 0;
        while let Ok(Progress::Frames(_)) = source.poll(&mut |f| seen += f.data.len()) {}
        std::hint::black_box(seen + source.interfaces().len());
    })
}

fn pcap(n: usize) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for i in 0..n {
        bytes.extend((i as u32).to_le_bytes());
        bytes.extend([0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0x55]);
    }
    bytes
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (12 + body.len() as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, &len].concat()
}

/// One section with so many interfaces, so many packets of the last of them, and so many options of the first packet.
fn pcapng(interfaces: usize, packets: usize, options: usize) -> Vec<u8> {
    let mut bytes = block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    for _ in 0..interfaces {
        bytes.extend(block(1, &[1, 0, 0, 0, 0, 0, 4, 0]));
    }
    for i in 0..packets {
        let mut body = ((interfaces - 1) as u32).to_le_bytes().to_vec();
        body.extend([0, 0, 0, 0]);
        body.extend((i as u32).to_le_bytes());
        body.extend([4, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4]);
        body.extend([1, 0, 4, 0, b'a', b'b', b'c', b'd'].repeat(if i == 0 { options } else { 0 }));
        bytes.extend(block(6, &body));
    }
    bytes
}

fn compound(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let seen = rtcp::Compound::new(&bytes).map(|part| match part {
            Ok(rtcp::Packet::SourceDescription(s)) => s.cnames().map(|(_, name)| name.len()).sum(),
            Ok(_) => 1,
            Err(_) => 0_usize,
        });
        std::hint::black_box(seen.sum::<usize>());
    })
}

fn names(n: usize) -> Vec<u8> {
    let chunk = [0, 0, 0, 1, 1, 1, b'a', 0];
    let words = (n * chunk.len() / 4).min(65_535) as u16;
    [&[0x80 | 31, 202][..], &words.to_be_bytes(), &chunk.repeat(n)].concat()
}
