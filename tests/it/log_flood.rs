//! Bad packets by the hundred thousand, one kind after another: what they are is counted, and the log stays as short as if they had not come.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use super::flood_frames::{invite, ipv4, tcp, udp};
use super::whole::{LC, Processor};

/// Bad packets of each kind.
const FRAMES: u32 = 20_000;
/// Lines of a whole run, however many bad packets there are in it: as many as a second of a million of them may bring.
const LINES: usize = 50;

/// Numbers without end that are the same in every run (xorshift32).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        usize::try_from(self.0).unwrap() % end
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// A SIP message of its own call that is wrong in one of ten ways.
fn sip(n: u32, any: &mut Numbers) -> Vec<u8> {
    let good = invite(n);
    let instead = |what: &str, by: &str| String::from_utf8(good.clone()).unwrap().replace(what, by).into_bytes();
    let message = match n % 10 {
        0 => good[..any.below(good.len())].to_vec(),
        1 => {
            let mut torn = good.clone();
            (0..20).for_each(|_| {
                let at = any.below(torn.len());
                torn[at] ^= 1 << any.below(8);
            });
            torn
        }
        2 => instead("Content-Length: ", "Content-Length: 9999999999"),
        3 => instead("Content-Length: ", "Content-Length: -"),
        4 => instead("CSeq: 1 INVITE", "CSeq: 99999999999999 BYE\r\nCSeq: x"),
        5 => instead("Call-ID: ", "X-Call: "),
        6 => instead("eve", "\u{1b}[31m\0evil\r"),
        7 => instead("m=audio ", "m=audio 99999"),
        8 => instead("Contact: ", &"A: b\r\n".repeat(100)),
        _ => [b"INVITE sip:".to_vec(), any.bytes(100), b" SIP/2.0\r\n\r\n".to_vec()].concat(),
    };
    ipv4(n, 17, 0, &udp(n, 5060, &message))
}

fn dns(n: u32, any: &mut Numbers) -> Vec<u8> {
    let header = |flags: u16, counts: u16| [1, flags, counts, counts, counts, counts].map(u16::to_be_bytes).concat();
    let message = match n % 5 {
        0 => [header(0x0100, 1), [0xc0, 12].repeat(20)].concat(),
        1 => [header(0x8180, u16::MAX), any.bytes(40)].concat(),
        2 => any.bytes(usize::try_from(n % 12).unwrap()),
        3 => [header(0x0100, 1), vec![63], any.bytes(20)].concat(),
        _ => [header(0x7fff, 0), any.bytes(60)].concat(),
    };
    ipv4(n, 17, 0, &udp(n, 53, &message))
}

/// Fragments that overlap, are too small, end beyond 64 KiB, and are never whole.
fn fragments(n: u32, any: &mut Numbers) -> Vec<u8> {
    match n % 5 {
        0 => ipv4(n, 17, 0x2000, &udp(n, 5060, &invite(n)[..200])),
        1 => ipv4(n, 17, 0x2000 | 8191, &any.bytes(64)),
        2 => ipv4(n - 2, 17, 0x2000 | 4, &any.bytes(64)),
        3 => ipv4(n - 3, 17, 0x2000 | 1, &any.bytes(13)),
        _ => ipv4(n, 6, 1, &[0; 8]),
    }
}

/// Segments with headers that are not whole, at random places of a few connections, of connections that never were.
fn segments(n: u32, any: &mut Numbers) -> Vec<u8> {
    let seq = u32::try_from(any.below(1 << 20)).unwrap();
    let few = n % 40;
    match n % 6 {
        0 => {
            let mut rest = tcp(n, 1, 2, b"");
            rest[12] = [0xf0, 0x10, 0][usize::try_from(n % 3).unwrap()];
            ipv4(n, 6, 0, &rest)
        }
        1 => ipv4(few, 6, 0, &tcp(few, seq, 24, &invite(n)[..any.below(300)])),
        2 => ipv4(few, 6, 0, &tcp(few, seq, u8::try_from(any.below(256)).unwrap(), b"")),
        3 => ipv4(few, 6, 0, &tcp(few, seq % 5000, 16, &any.bytes(100))),
        4 => ipv4(n, 6, 0, &[1, 2, 3]),
        _ => ipv4(n, 6, 0, &tcp(n, 1, 24, b"\x16\x03\x01\xff\xff\x01\x02\x03")),
    }
}

/// Frames whose lengths, versions and tunnels are wrong.
fn below(n: u32, any: &mut Numbers) -> Vec<u8> {
    let mut frame = ipv4(n, 17, 0, &udp(n, 5060, &invite(n)));
    match n % 8 {
        0 => frame.truncate(any.below(60)),
        1 => frame[14] = 0x4f,
        2 => frame[14] = 0x41,
        3 => frame[16..18].copy_from_slice(&any.bytes(2)),
        4 => frame[38..40].copy_from_slice(&any.bytes(2)),
        5 => frame[12..14].copy_from_slice(&any.bytes(2)),
        6 => frame = [&frame[..12], &[0x81, 0].repeat(40)].concat(),
        _ => frame = ipv4(n, 17, 0, &udp(n, 4789, &[vec![8, 0, 0, 0, 0, 0, 0, 0], any.bytes(80)].concat())),
    }
    frame
}

/// RTP, RTCP and STUN that is none.
fn media(n: u32, any: &mut Numbers) -> Vec<u8> {
    let payload = match n % 5 {
        0 => [b"\x80\xc8\xff\xff".to_vec(), any.bytes(20)].concat(),
        1 => [b"\x8f\x00".to_vec(), any.bytes(8)].concat(),
        2 => [b"\x00\x01\xff\xff\x21\x12\xa4\x42".to_vec(), any.bytes(20)].concat(),
        3 => [b"\xbf\x80\x00\x01".to_vec(), any.bytes(18)].concat(),
        _ => any.bytes(30),
    };
    ipv4(n, 17, 0, &udp(n, u16::try_from(20_000 + n % 1000).unwrap(), &payload))
}

type Kind = fn(u32, &mut Numbers) -> Vec<u8>;
const KINDS: [(&str, Kind); 6] =
    [("sip", sip), ("dns", dns), ("fragments", fragments), ("segments", segments), ("below", below), ("media", media)];

/// A capture of one kind; every hundredth packet bears a time from anywhere.
fn write(path: &Path, kind: Kind) {
    let mut any = Numbers(7);
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]).unwrap();
    for n in 5..FRAMES + 5 {
        let data = kind(n, &mut any);
        let seconds = if n % 100 == 0 { u32::try_from(any.below(1 << 31)).unwrap() } else { 1_700_000_000 + n / 1000 };
        let length = u32::try_from(data.len()).unwrap();
        for field in [seconds, n % 1000, length, length] {
            file.write_all(&field.to_le_bytes()).unwrap();
        }
        file.write_all(&data).unwrap();
    }
}

#[track_caller]
fn is_short(what: &str, log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        !lines.is_empty() && lines.len() <= LINES,
        "{what}: {} lines, {:?} and so on",
        lines.len(),
        &lines[..lines.len().min(60)]
    );
    for line in lines {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{what}: {line:?}");
    }
}

#[test]
fn bad_packets_of_any_kind_and_number_are_a_handful_of_log_lines() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let said = |arguments: &[&str]| {
        let out =
            Command::new(LC).args(arguments).args(["--log-format", "json"]).current_dir(dir).env("HOME", dir).output().unwrap();
        let log = String::from_utf8(out.stderr).unwrap();
        assert!(matches!(out.status.code(), Some(0 | 5)), "{arguments:?}: {log}");
        log
    };
    for (what, kind) in KINDS {
        write(&dir.join("bad.pcap"), kind);
        let start = ["--insecure", "--state-dir", "state", "-w", "all.pcap", "--durability", "process"];
        let processor = Processor::start(dir, &start);
        let address = format!("127.0.0.1:{}", processor.port);

        is_short(&format!("{what}, sniff"), &said(&["sniff", "voip", "-r", "bad.pcap"]));
        let hunt = ["hunt", "-P", &address, "--insecure", "--no-filter-policy", "allow", "--id", "edge", "-r", "bad.pcap"];
        is_short(&format!("{what}, hunter"), &said(&hunt));
        is_short(&format!("{what}, processor"), &processor.end().1);
        fs::remove_dir_all(dir.join("state")).unwrap();
        fs::remove_file(dir.join("all.pcap")).unwrap();
    }
}
