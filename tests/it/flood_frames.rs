//! What floods are made of: frames by the million, each of another flow, call, connection or datagram, and a capture of them beside real calls.

use std::io::{self, BufWriter, Write};

use super::whole::{calls_capture, frames};

/// Frames of one flood.
const FRAMES: u32 = 150_000;

/// What a flood sends, as UDP payload or as something else on IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RTP that nobody signalled, each packet of another flow.
    Flows,
    /// The first fragment of a datagram, and never another.
    Fragments,
    /// Fragments that lie over each other and say different things: 65 535 of one datagram, then forty of each.
    Overlaps,
    /// A SYN, and half an INVITE after it.
    HalfOpen,
    /// INVITEs, each of another call.
    Calls,
    /// RTP that nobody signalled, four packets of each flow.
    Streams,
}

pub(super) const ALL: [Kind; 5] = [Kind::Flows, Kind::Fragments, Kind::Overlaps, Kind::HalfOpen, Kind::Calls];

impl Kind {
    /// Frames that are as many as there is a point in: ten million flows, a million connections, calls and overlapping fragments.
    const fn most(self) -> u32 {
        match self {
            Self::Flows | Self::Fragments | Self::Streams => 10_000_000,
            Self::HalfOpen => 2_000_000,
            Self::Calls | Self::Overlaps => 1_000_000,
        }
    }
}

/// Frames of a flood of these kinds: [`FRAMES`], or as many as `LC_FLOOD_FRAMES` says and they have.
pub(super) fn size(kinds: &[Kind]) -> u32 {
    let asked = std::env::var("LC_FLOOD_FRAMES").map_or(FRAMES, |n| n.parse().unwrap());
    asked.min(kinds.iter().map(|kind| kind.most()).sum())
}

/// Ethernet and IPv4 around `rest`; `n` makes the source, the ports and the identification.
pub(super) fn ipv4(n: u32, protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let source = n.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    let total = u16::try_from(20 + rest.len()).unwrap();
    frame.extend(total.to_be_bytes());
    frame.extend(&source[2..]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 64 + source[0], source[1], source[2], 10, 1, 1, 1 + (source[3] & 7)]);
    frame.extend(rest);
    frame
}

pub(super) fn udp(n: u32, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend((10_000 + u16::try_from(n % 50_000).unwrap()).to_be_bytes());
    rest.extend(port.to_be_bytes());
    rest.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    rest.extend([0, 0]);
    rest.extend(payload);
    rest
}

pub(super) fn tcp(n: u32, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend((10_000 + u16::try_from(n % 50_000).unwrap()).to_be_bytes());
    rest.extend(5060_u16.to_be_bytes());
    rest.extend(seq.to_be_bytes());
    rest.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    rest.extend(payload);
    rest
}

pub(super) fn invite(n: u32) -> Vec<u8> {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 10.9.9.9\r\ns=-\r\nc=IN IP4 10.9.9.9\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
        1024 + n % 60_000
    );
    format!(
        "INVITE sip:mallory@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bK{n}\r\nFrom: <sip:eve{n}@example.net>;tag={n}\r\n\
         To: <sip:mallory@example.net>\r\nCall-ID: flood-{n}@example.net\r\nCSeq: 1 INVITE\r\nContact: <sip:eve@10.9.9.9>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
    .into_bytes()
}

/// A fragment with more to come; what it says is its own, and lies over what others said.
fn overlap(n: u32) -> Vec<u8> {
    let datagram = n.saturating_sub(65_535) / 40;
    let offset = u16::try_from(n * 3 % 8000).unwrap();
    let mut rest = udp(datagram, 5060, &invite(n)[..64]);
    rest[8..12].copy_from_slice(&n.to_be_bytes());
    ipv4(datagram, 17, 0x2000 | offset, &rest)
}

pub(super) fn hostile(kind: Kind, n: u32) -> Vec<u8> {
    match kind {
        Kind::Flows => {
            let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 160];
            rtp.extend(n.to_be_bytes());
            rtp.resize(172, 0x55);
            ipv4(n, 17, 0, &udp(n, 20_000, &rtp))
        }
        Kind::Fragments => ipv4(n, 17, 0x2000, &udp(n, 5060, &invite(n)[..300])),
        Kind::Overlaps => overlap(n),
        Kind::HalfOpen if n.is_multiple_of(2) => ipv4(n / 2, 6, 0, &tcp(n / 2, 1, 2, b"")),
        Kind::HalfOpen => ipv4(n / 2, 6, 0, &tcp(n / 2, 2, 16, &invite(n)[..300])),
        Kind::Calls => ipv4(n, 17, 0, &udp(n, 5060, &invite(n))),
        Kind::Streams => {
            let (flow, seq) = (n / 4, u8::try_from(n % 4).unwrap());
            let mut rtp = vec![0x80, 0, 0, seq, 0, 0, 0, 160 * (seq & 1)];
            rtp.extend(flow.to_be_bytes());
            rtp.resize(172, 0x55);
            let port = 10_000 + 2 * u16::try_from(flow % 20_000).unwrap();
            ipv4(flow, 17, 0, &udp(flow, port, &rtp))
        }
    }
}

/// Writes a capture: the calls, with a flood of so many frames spread between theirs.
pub(super) fn write(to: impl Write, kinds: &[Kind], flood: u32) -> io::Result<()> {
    let calls = frames(&calls_capture());
    let mut to = BufWriter::new(to);
    to.write_all(&[0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
    let mut put = |ns: i64, wire: u32, data: &[u8]| -> io::Result<()> {
        let header = [ns / 1_000_000_000, ns % 1_000_000_000, i64::try_from(data.len()).unwrap(), i64::from(wire)];
        for field in header {
            to.write_all(&u32::try_from(field).unwrap().to_le_bytes())?;
        }
        to.write_all(data)
    };
    let (all, mut n) = (u64::try_from(calls.len()).unwrap(), 0);
    for ((ns, wire, data), nth) in calls.iter().zip(1..) {
        // the last of them after the flood is over
        while u64::from(n) < u64::from(flood) * nth / all {
            let frame = hostile(kinds[usize::try_from(n).unwrap() % kinds.len()], n);
            put(*ns, u32::try_from(frame.len()).unwrap(), &frame)?;
            n += 1;
        }
        put(*ns, *wire, data)?;
    }
    to.flush()
}
