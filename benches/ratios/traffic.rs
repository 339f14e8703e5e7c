//! Capture files to measure with, made here: the same bytes in every run and on every machine.
//!
//! | file | what is in it |
//! |---|---|
//! | [`Kind::Voip`] | 1 % SIP (whole calls, one message in a hundred packets), 99 % RTP G.711 of 214 bytes on 100 000 flows |
//! | [`Kind::Imix`] | 7 : 4 : 1 of 64-byte UDP, 576-byte and 1500-byte TCP on 100 000 flows |
//! | [`Kind::Small`] | 64-byte UDP on 100 000 flows |
//! | [`Kind::Media`] | the set-up of some calls, then media packets of theirs |
//! | [`Kind::Calls`] | the set-up of 100 000 calls that are never hung up, then one RTP packet each way |
//!
//! In the mix, [`ACTIVE`] calls at a time have their signalling in the file; the other flows are media of calls that began
//! before the capture did. Every fifth call is made by a subscriber whose number begins with [`TARGETS`]: with that as the
//! filter about 1 % of all packets are forwarded.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the numbers of the targeted subscribers begin with.
pub(crate) const TARGETS: &str = "+49301";
/// Media flows of the mix, two per call.
const FLOWS: u64 = 100_000;
/// Calls of the mix whose signalling is in the file and which have not ended.
const ACTIVE: u64 = 2_000;
/// Calls set up in [`Kind::Calls`].
pub(crate) const CALLS: u64 = 100_000;
/// Packet time between two packets of the mix: 100 000 packets per second.
const GAP_US: u64 = 10;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Voip,
    Imix,
    Small,
    Calls,
    /// That many calls that are never hung up, then that many media packets of theirs.
    Media {
        calls: u64,
        packets: u64,
    },
}

/// A file on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) path: PathBuf,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Voip => "voip",
            Self::Imix => "imix",
            Self::Small => "small",
            Self::Calls => "calls",
            Self::Media { packets: 0, .. } => "set-up",
            Self::Media { .. } => "media",
        }
    }

    /// Makes the file of about `bytes` bytes in `dir`, and reads it once, so that it is in the page cache.
    pub(crate) fn make(self, dir: &Path, bytes: u64) -> io::Result<Traffic> {
        let path = dir.join(format!("{}.pcap", self.name()));
        let mut out = Pcap::create(&path)?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        match self {
            Self::Voip => mix(&mut out, &mut random, bytes)?,
            Self::Imix | Self::Small => plain(&mut out, &mut random, bytes, self == Self::Imix)?,
            Self::Calls => calls(&mut out)?,
            Self::Media { calls, packets } => media(&mut out, &mut random, calls, packets)?,
        }
        let traffic = Traffic { path, packets: out.packets, bytes: out.bytes };
        out.file.flush()?;
        drop(out);
        io::copy(&mut File::open(&traffic.path)?, &mut io::sink())?;
        Ok(traffic)
    }
}

/// xorshift64 (Marsaglia 2003): fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}

/// A capture file in microseconds, as tcpdump writes it.
struct Pcap {
    file: BufWriter<File>,
    packets: u64,
    bytes: u64,
    frame: Vec<u8>,
}

impl Pcap {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
        Ok(Self { file, packets: 0, bytes: 24, frame: Vec::with_capacity(2048) })
    }

    /// Writes one packet of `proto` (6 or 17) with what `payload` appends.
    fn packet(&mut self, proto: u8, from: Address, to: Address, payload: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let header = if proto == 17 { 8 } else { 20 };
        let frame = &mut self.frame;
        frame.clear();
        frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0]);
        frame.extend(from.ip.to_be_bytes());
        frame.extend(to.ip.to_be_bytes());
        frame.extend(from.port.to_be_bytes());
        frame.extend(to.port.to_be_bytes());
        let rest = [0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
        frame.extend_from_slice(&rest[..header - 4]);
        payload(frame);
        let total = u16::try_from(frame.len() - 14).unwrap_or(u16::MAX);
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        // identification: every packet is another one, else the second of two equal ones would be taken for a double
        let id = (self.packets & 0xffff) as u16;
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        if proto == 17 {
            frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
        } else {
            frame[38..42].copy_from_slice(&((self.packets & 0xffff_ffff) as u32).to_be_bytes());
        }
        let us = self.packets * GAP_US;
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let secs = 1_763_000_000 + u32::try_from(us / 1_000_000).unwrap_or(0);
        let fraction = u32::try_from(us % 1_000_000).unwrap_or(0);
        for word in [secs, fraction, length, length] {
            self.file.write_all(&word.to_le_bytes())?;
        }
        self.file.write_all(frame)?;
        self.packets += 1;
        self.bytes += 16 + u64::from(length);
        Ok(())
    }
}

fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[derive(Clone, Copy)]
struct Address {
    ip: u32,
    port: u16,
}

/// A call: two parties, each with a signalling and a media address of its own.
#[derive(Clone, Copy)]
struct Call(u64);

/// The messages of a call, in order.
#[derive(Clone, Copy)]
enum Message {
    Invite,
    Ringing,
    Answer,
    Ack,
    Bye,
}

impl Call {
    const fn ip(self, callee: bool) -> u32 {
        let net = if callee { 0x0a80_0000 } else { 0x0a00_0000 };
        net + (self.0 % 60_000) as u32 * 2
    }

    /// Media: each call has ports of its own on its two hosts.
    const fn media(self, callee: bool) -> Address {
        Address { ip: self.ip(callee), port: 10_000 + (self.0 / 60_000) as u16 * 4 + if callee { 2 } else { 0 } }
    }

    const fn signalling(self, callee: bool) -> Address {
        Address { ip: self.ip(callee), port: 5060 }
    }

    /// Every fifth caller is a target.
    fn users(self) -> (String, String) {
        let caller = if self.0.is_multiple_of(5) { format!("{TARGETS}{:06}", self.0) } else { format!("+49307{:06}", self.0) };
        (caller, format!("+4989{:07}", self.0))
    }

    fn write(self, message: Message, out: &mut Pcap) -> io::Result<()> {
        let (from, to) = self.users();
        let n = self.0;
        let (ours, theirs) = (dotted(self.ip(false)), dotted(self.ip(true)));
        let (start, cseq) = match message {
            Message::Invite => (format!("INVITE sip:{to}@ims.example.net SIP/2.0"), "1 INVITE"),
            Message::Ringing => ("SIP/2.0 180 Ringing".to_owned(), "1 INVITE"),
            Message::Answer => ("SIP/2.0 200 OK".to_owned(), "1 INVITE"),
            Message::Ack => (format!("ACK sip:{to}@ims.example.net SIP/2.0"), "1 ACK"),
            Message::Bye => (format!("BYE sip:{to}@ims.example.net SIP/2.0"), "2 BYE"),
        };
        let tag = if matches!(message, Message::Invite) { String::new() } else { format!(";tag=b{n:08x}") };
        let by_callee = matches!(message, Message::Ringing | Message::Answer);
        let sdp = matches!(message, Message::Invite | Message::Answer).then(|| {
            let media = self.media(by_callee);
            let ip = dotted(media.ip);
            format!(
                "v=0\r\no=- {n} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 8 0 101\r\n\
                 a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n",
                media.port
            )
        });
        let body = sdp.unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP {ours}:5060;branch=z9hG4bK{n:016x}{cseq:.1};rport\r\nMax-Forwards: 70\r\n\
             From: \"User {n}\" <sip:{from}@ims.example.net>;tag=a{n:08x}\r\nTo: <sip:{to}@ims.example.net>{tag}\r\n\
             Call-ID: {:016x}{n:016x}@{ours}\r\nCSeq: {cseq}\r\nContact: <sip:{}:5060;transport=udp>\r\n\
             P-Asserted-Identity: <sip:{from}@ims.example.net>\r\nUser-Agent: bench/1.0\r\n\
             Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, UPDATE\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            n.wrapping_mul(0xdead_beef_cafe_1235),
            if by_callee { &theirs } else { &ours },
            body.len()
        );
        out.packet(17, self.signalling(by_callee), self.signalling(!by_callee), |frame| frame.extend_from_slice(text.as_bytes()))
    }

    /// 20 ms of G.711; `random` says what was heard.
    fn talk(self, callee: bool, random: &mut Random, out: &mut Pcap) -> io::Result<()> {
        let n = out.packets;
        let ssrc = (self.0 * 2 + u64::from(callee)) as u32 ^ 0x1357_2468;
        out.packet(17, self.media(callee), self.media(!callee), |frame| {
            frame.extend([0x80, 8]);
            frame.extend(((n & 0xffff) as u16).to_be_bytes());
            frame.extend(((n * 160) as u32).to_be_bytes());
            frame.extend(ssrc.to_be_bytes());
            for _ in 0..20 {
                frame.extend((random.next() & 0x1f1f_1f1f_1f1f_1f1f | 0x5050_5050_5050_5050).to_le_bytes());
            }
        })
    }
}

fn dotted(ip: u32) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

/// 1 % SIP, 99 % RTP.
fn mix(out: &mut Pcap, random: &mut Random, bytes: u64) -> io::Result<()> {
    const MESSAGES: [Message; 4] = [Message::Invite, Message::Ringing, Message::Answer, Message::Ack];
    // calls from here on were set up before the capture began
    let earlier = 1_000_000;
    let mut slot = 0_u64;
    while out.bytes < bytes {
        if out.packets.is_multiple_of(100) {
            let (newest, step) = (slot / 5, slot % 5);
            slot += 1;
            match (MESSAGES.get(step as usize), newest.checked_sub(ACTIVE)) {
                (Some(message), _) => Call(newest).write(*message, out)?,
                (None, Some(oldest)) => Call(oldest).write(Message::Bye, out)?,
                // nobody to hang up yet: one call more
                (None, None) => {}
            }
        }
        let set_up = slot / 5;
        let active = set_up.min(ACTIVE);
        let pick = random.below(FLOWS / 2);
        let call = if pick < active { Call(set_up - 1 - pick) } else { Call(earlier + pick) };
        call.talk(random.below(2) == 1, random, out)?;
    }
    Ok(())
}

/// Traffic that is nobody's call.
fn plain(out: &mut Pcap, random: &mut Random, bytes: u64, imix: bool) -> io::Result<()> {
    while out.bytes < bytes {
        let c = random.below(FLOWS) as u32;
        let (proto, length) = match random.below(12) {
            _ if !imix => (17, 64),
            0..7 => (17, 64),
            7..11 => (6, 576),
            _ => (6, 1500),
        };
        let from = Address { ip: 0x0a00_0000 + c, port: 1024 + (c % 60_000) as u16 };
        let to = Address { ip: 0x0a90_0000 + c % 251, port: 4000 + (c % 100) as u16 };
        let header = if proto == 17 { 42 } else { 54 };
        out.packet(proto, from, to, |frame| {
            for _ in 0..(length - header) / 2 {
                frame.extend((random.next() as u16).to_le_bytes());
            }
        })?;
    }
    Ok(())
}

fn set_up(out: &mut Pcap, calls: u64) -> io::Result<()> {
    for n in 0..calls {
        for message in [Message::Invite, Message::Answer, Message::Ack] {
            Call(n).write(message, out)?;
        }
    }
    Ok(())
}

/// Some calls that are set up and talk, nobody knows which next.
fn media(out: &mut Pcap, random: &mut Random, calls: u64, packets: u64) -> io::Result<()> {
    set_up(out, calls)?;
    (0..packets).try_for_each(|_| Call(random.below(calls)).talk(random.below(2) == 1, random, out))
}

/// Calls that are set up and never end.
fn calls(out: &mut Pcap) -> io::Result<()> {
    set_up(out, CALLS)?;
    let mut random = Random(1);
    for n in 0..CALLS {
        Call(n).talk(false, &mut random, out)?;
        Call(n).talk(true, &mut random, out)?;
    }
    Ok(())
}
