//! The readers on files made here, byte by byte.

mod pipes;

use std::io::Write as _;

use proptest::prelude::*;

use super::super::buffer::READ_BUFFER;
use super::super::{FileSource, Source as _};
use super::*;
use crate::packet::LinkType;

/// A frame as the tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    nanos: i64,
    wire_len: u32,
    link: u16,
    interface: u16,
    data: Vec<u8>,
}

/// Hands out at most `step` bytes per read.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Dribble {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.step.min(buf.len()).min(self.bytes.len() - self.at);
        buf[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

struct Outcome {
    frames: Vec<Seen>,
    error: Option<CaptureError>,
    truncated: Option<Truncated>,
    interfaces: Vec<InterfaceInfo>,
}

fn read_in_steps(bytes: &[u8], step: usize, burst: usize) -> Result<Outcome, CaptureError> {
    let input = Dribble { bytes: bytes.to_vec(), at: 0, step };
    let mut file = FileReader::from_input("test".to_owned(), Box::new(input), READ_BUFFER, &|| true)?;
    let mut frames = Vec::new();
    let mut error = None;
    loop {
        let mut take = |burst: &[Frame<'_>]| {
            frames.extend(burst.iter().map(|f| Seen {
                nanos: f.ts.as_nanos(),
                wire_len: f.wire_len,
                link: f.link.0,
                interface: f.interface.0,
                data: f.data.to_vec(),
            }));
        };
        match file.burst(burst, Timestamp::from_nanos(i64::MAX), &mut take) {
            Ok(Progress::End) => break,
            Ok(_) => {}
            Err(e) => error = Some(e),
        }
    }
    assert_eq!(file.frames(), frames.len() as u64);
    Ok(Outcome { frames, error, truncated: file.truncated().cloned(), interfaces: file.interfaces().to_vec() })
}

fn read(bytes: &[u8]) -> Outcome {
    read_in_steps(bytes, usize::MAX, BURST).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    read_in_steps(bytes, usize::MAX, BURST).err().unwrap().to_string()
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

const ORDERS: [Order; 2] = [Order { big: false }, Order { big: true }];

impl Order {
    fn u16(self, n: u16) -> [u8; 2] {
        if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn u32(self, n: u32) -> [u8; 4] {
        if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn u64(self, n: u64) -> [u8; 8] {
        if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn pcap_header(self, magic: u32, minor: u16, link: u32) -> Vec<u8> {
        let words = [[0; 4], [0; 4], self.u32(65_535), self.u32(link)].concat();
        [&self.u32(magic)[..], &self.u16(2), &self.u16(minor), &words].concat()
    }

    fn pcap_record(self, secs: u32, fraction: u32, caplen: u32, len: u32, data: &[u8]) -> Vec<u8> {
        [&self.u32(secs)[..], &self.u32(fraction), &self.u32(caplen), &self.u32(len), data].concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let total = self.u32(u32::try_from(padded + 12).unwrap());
        [&self.u32(kind)[..], &total, body, &vec![0; padded - body.len()], &total].concat()
    }

    fn section(self) -> Vec<u8> {
        let body = [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &self.u64(u64::MAX)].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link: u16, snaplen: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.u16(link)[..], &[0, 0], &self.u32(snaplen)].concat();
        for (code, value) in options {
            body.extend(self.u16(*code));
            body.extend(self.u16(u16::try_from(value.len()).unwrap()));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        if !options.is_empty() {
            body.extend([0; 4]);
        }
        self.block(1, &body)
    }

    fn enhanced(self, interface: u32, ticks: u64, len: u32, data: &[u8]) -> Vec<u8> {
        self.block(6, &[&self.u32(interface)[..], &self.packet_tail(ticks, len, data)].concat())
    }

    fn obsolete(self, interface: u16, ticks: u64, len: u32, data: &[u8]) -> Vec<u8> {
        self.block(2, &[&self.u16(interface)[..], &[0xff, 0xff], &self.packet_tail(ticks, len, data)].concat())
    }

    fn simple(self, len: u32, data: &[u8]) -> Vec<u8> {
        self.block(3, &[&self.u32(len)[..], data].concat())
    }

    fn packet_tail(self, ticks: u64, len: u32, data: &[u8]) -> Vec<u8> {
        let (high, low) = (u32::try_from(ticks >> 32).unwrap(), u32::try_from(ticks & 0xffff_ffff).unwrap());
        let caplen = u32::try_from(data.len()).unwrap();
        [&self.u32(high)[..], &self.u32(low), &self.u32(caplen), &self.u32(len), data].concat()
    }
}

fn seen(nanos: i64, wire_len: u32, interface: u16, data: &[u8]) -> Seen {
    Seen { nanos, wire_len, link: 1, interface, data: data.to_vec() }
}

const LE: Order = ORDERS[0];

#[test]
fn reads_micro_and_nanoseconds_in_both_byte_orders_with_original_lengths() {
    for order in ORDERS {
        for (magic, fraction) in [(0xa1b2_c3d4, 123_456), (0xa1b2_3c4d, 123_456_789)] {
            let mut file = order.pcap_header(magic, 4, 1);
            file.extend(order.pcap_record(1_700_000_000, fraction, 3, 1500, b"abc"));
            file.extend(order.pcap_record(1_700_000_001, 0, 0, 0, b""));

            let got = read(&file);

            let nanos = if magic == 0xa1b2_c3d4 { 123_456_000 } else { 123_456_789 };
            let expected = [seen(1_700_000_000_000_000_000 + nanos, 1500, 0, b"abc"), seen(1_700_000_001_000_000_000, 0, 0, b"")];
            assert_eq!(got.frames, expected);
            assert!(got.error.is_none() && got.truncated.is_none());
            assert_eq!(got.interfaces[0].snaplen, 65_535);
        }
    }
}

#[test]
fn seconds_beyond_2038_and_the_link_type_beside_fcs_bits_are_kept() {
    let mut file = LE.pcap_header(0xa1b2_c3d4, 4, 0x2400_0114);
    file.extend(LE.pcap_record(u32::MAX, 0, 1, 1, b"a"));

    let got = read(&file);

    assert_eq!(got.frames[0].nanos, i64::from(u32::MAX) * 1_000_000_000);
    assert_eq!(got.frames[0].link, LinkType::LINUX_SLL2.0);
}

#[test]
fn raw_ip_under_its_internal_number_is_raw_ip() {
    assert_eq!(read(&LE.pcap_header(0xa1b2_c3d4, 4, 12)).interfaces[0].link, LinkType::RAW);
}

#[test]
fn old_versions_write_the_lengths_the_other_way_round() {
    for (minor, caplen, len) in [(2, 1500, 3), (3, 1500, 3), (3, 3, 1500), (4, 3, 1500)] {
        let mut file = LE.pcap_header(0xa1b2_c3d4, minor, 1);
        file.extend(LE.pcap_record(1, 0, caplen, len, b"abc"));

        assert_eq!(read(&file).frames, [seen(1_000_000_000, 1500, 0, b"abc")], "2.{minor}");
    }
}

#[test]
fn reads_every_kind_of_packet_block_in_both_byte_orders() {
    for order in ORDERS {
        let mut file = order.section();
        file.extend(order.interface(1, 4, &[]));
        file.extend(order.interface(1, 0, &[(2, b"eth1"), (9, &[9])]));
        file.extend(order.enhanced(1, 1_700_000_000_123_456_789, 1500, b"abc"));
        file.extend(order.obsolete(0, 1_700_000_001_000_000, 77, b"defgh"));
        file.extend(order.simple(9, b"ijkl"));

        let got = read(&file);

        assert_eq!(
            got.frames,
            [
                seen(1_700_000_000_123_456_789, 1500, 1, b"abc"),
                seen(1_700_000_001_000_000_000, 77, 0, b"defgh"),
                // No time of its own, and cut by the interface's snap length.
                seen(1_700_000_001_000_000_000, 9, 0, b"ijkl"),
            ]
        );
        assert!(got.error.is_none() && got.truncated.is_none());
        assert_eq!(got.interfaces[0].name, "test");
        assert_eq!(got.interfaces[1].name, "eth1");
    }
}

#[test]
fn padding_of_a_simple_packet_is_not_packet() {
    let mut file = LE.section();
    file.extend(LE.interface(1, 0, &[]));
    file.extend(LE.simple(5, b"abcde"));

    assert_eq!(read(&file).frames, [seen(0, 5, 0, b"abcde")]);
}

#[test]
fn reads_every_time_resolution_and_offset() {
    let second = 1_700_000_000u64;
    for (resolution, ticks, nanos) in [
        (0, second, 0),
        (3, second * 1000 + 123, 123_000_000),
        (6, second * 1_000_000 + 123_456, 123_456_000),
        (9, second * 1_000_000_000 + 1, 1),
        (10, second * 10_000_000_000 + 19, 1),
        (0x80, second, 0),
        (0x81, second * 2 + 1, 500_000_000),
        (0x8a, (second << 10) + 1, 976_562),
        (0xa0, (second << 32) + (1 << 31), 500_000_000),
    ] {
        let mut file = LE.section();
        file.extend(LE.interface(1, 0, &[(9, &[resolution])]));
        file.extend(LE.enhanced(0, ticks, 1, b"a"));

        assert_eq!(read(&file).frames[0].nanos, 1_700_000_000_000_000_000 + nanos, "{resolution:#x}");
    }
    for offset in [-3i64, 1_700_000_000] {
        let mut file = LE.section();
        file.extend(LE.interface(1, 0, &[(14, &LE.u64(offset.cast_unsigned()))]));
        file.extend(LE.enhanced(0, 5_000_001, 1, b"a"));

        assert_eq!(read(&file).frames[0].nanos, (offset + 5) * 1_000_000_000 + 1000);
    }
}

#[test]
fn absurd_resolutions_saturate() {
    for resolution in [18, 19, 20, 40, 127, 0xbf, 0xc0, 0xff] {
        let mut file = LE.section();
        file.extend(LE.interface(1, 0, &[(9, &[resolution]), (14, &LE.u64(i64::MAX.cast_unsigned()))]));
        file.extend(LE.enhanced(0, u64::MAX, 1, b"a"));

        assert_eq!(read(&file).frames.len(), 1);
    }
}

#[test]
fn sections_number_their_interfaces_anew_and_may_change_the_byte_order() {
    let mut file = LE.section();
    file.extend(LE.interface(1, 0, &[(2, b"eth0")]));
    file.extend(LE.interface(113, 0, &[(2, b"any")]));
    file.extend(LE.enhanced(1, 1, 1, b"a"));
    let big = ORDERS[1];
    file.extend(big.section());
    file.extend(big.interface(113, 0, &[(2, b"any")]));
    file.extend(big.interface(1, 0, &[(2, b"eth1")]));
    file.extend(big.enhanced(0, 2, 1, b"b"));
    file.extend(big.enhanced(1, 3, 1, b"c"));

    let got = read(&file);

    let ids: Vec<_> = got.frames.iter().map(|f| (f.interface, f.link)).collect();
    assert_eq!(ids, [(1, 113), (1, 113), (2, 1)]);
    let names: Vec<_> = got.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["eth0", "any", "eth1"]);
}

#[test]
fn an_interface_is_known_before_its_first_frame_is_handed_over() {
    let mut file = LE.section();
    file.extend(LE.interface(1, 0, &[]));
    file.extend(LE.enhanced(0, 1, 1, b"a"));
    file.extend(LE.interface(113, 0, &[]));
    file.extend(LE.enhanced(1, 1, 1, b"b"));
    let mut reader = FileReader::from_input("f".to_owned(), Box::new(io::Cursor::new(file)), READ_BUFFER, &|| true).unwrap();

    loop {
        let known = reader.interfaces().len();
        let mut check = |frames: &[Frame<'_>]| assert!(frames.iter().all(|f| usize::from(f.interface.0) < known));
        if reader.burst(BURST, Timestamp::from_nanos(i64::MAX), &mut check).unwrap() == Progress::End {
            break;
        }
    }

    assert_eq!(reader.frames(), 2);
}

#[test]
fn unknown_blocks_are_skipped_however_large() {
    let mut file = LE.section();
    file.extend(LE.block(0x0bad_f00d, &vec![7; 3 * READ_BUFFER]));
    file.extend(LE.interface(1, 0, &[]));
    file.extend(LE.block(5, &[1; 20]));
    file.extend(LE.enhanced(0, 1, 1, b"a"));

    let got = read(&file);

    assert_eq!(got.frames.len(), 1);
    assert!(got.error.is_none() && got.truncated.is_none());
}

#[test]
fn a_cut_tail_costs_only_the_cut_packet_and_is_noted() {
    let mut pcap = LE.pcap_header(0xa1b2_c3d4, 4, 1);
    let mut pcapng = [LE.section(), LE.interface(1, 0, &[])].concat();
    let whole = [pcap.len() + 2 * 19, pcapng.len() + 2 * 36];
    for n in 0..3 {
        pcap.extend(LE.pcap_record(n, 0, 3, 3, b"abc"));
        pcapng.extend(LE.enhanced(0, u64::from(n), 3, b"abc"));
    }
    for (file, whole) in [pcap, pcapng].iter().zip(whole) {
        for end in whole + 1..file.len() {
            let got = read(&file[..end]);

            assert_eq!(got.frames.len(), 2);
            assert!(got.error.is_none());
            let cut = got.truncated.unwrap();
            assert_eq!((cut.offset, cut.frames), (whole as u64, 2));
            assert!(cut.to_string().starts_with("test is truncated: the record at byte"), "{cut}");
        }
        assert!(read(&file[..whole]).truncated.is_none());
    }
}

#[test]
fn a_packet_beyond_the_limit_is_refused_after_those_before_it() {
    let mut file = LE.pcap_header(0xa1b2_c3d4, 4, 1);
    file.extend(LE.pcap_record(1, 0, 1, 1, b"a"));
    file.extend(LE.pcap_record(1, 0, 262_145, 262_145, b"b"));
    file.extend(LE.pcap_record(1, 0, 1, 1, b"c"));

    let got = read(&file);

    assert_eq!(got.frames.len(), 1);
    assert_eq!(
        got.error.unwrap().to_string(),
        "cannot read on in test at byte 41: a packet of more than 262144 bytes, the limit; the 1 packets before it were read"
    );
    assert!(got.truncated.is_none());
}

#[test]
fn the_largest_packet_is_read_wherever_it_lies_in_the_buffer() {
    for before in [0, READ_BUFFER / 2, READ_BUFFER - 50, READ_BUFFER - 10] {
        let mut file = LE.pcap_header(0xa1b2_c3d4, 4, 1);
        while file.len() + 16 < before {
            let n = (before - file.len() - 16).min(50_000);
            file.extend(LE.pcap_record(1, 0, u32::try_from(n).unwrap(), 9, &vec![1; n]));
        }
        file.extend(LE.pcap_record(1, 0, MAX_CAPLEN, 9, &vec![2; MAX_CAPLEN as usize]));
        file.extend(LE.pcap_record(1, 0, 1, 9, b"z"));

        let got = read(&file);

        let tail = &got.frames[got.frames.len() - 2..];
        assert!(tail[0].data.len() == MAX_CAPLEN as usize && tail[0].data.iter().all(|b| *b == 2));
        assert_eq!(tail[1].data, b"z");
    }
}

#[test]
fn damage_in_a_pcapng_file_is_named() {
    let section = LE.section();
    let described = [section.clone(), LE.interface(1, 0, &[])].concat();
    let mut odd = LE.enhanced(0, 1, 1, b"a");
    odd[4] = 33;
    let mut beyond = LE.enhanced(0, 1, 3, b"abc");
    beyond[20] = 200;
    for (file, words) in [
        ([section.clone(), LE.enhanced(0, 1, 1, b"a")].concat(), "an interface that was not described"),
        ([section.clone(), LE.simple(1, b"a")].concat(), "an interface that was not described"),
        ([section, LE.block(1, b"abc")].concat(), "too short"),
        ([described.clone(), odd].concat(), "impossible length"),
        ([described.clone(), beyond].concat(), "longer than its block"),
        ([described.clone(), LE.block(6, &vec![0; 500_000])].concat(), "more than 393216 bytes"),
        ([described, LE.block(0x0a0d_0d0a, &[0; 16])].concat(), "byte-order mark"),
    ] {
        let error = read(&file).error.unwrap().to_string();

        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn hostile_interface_names_are_shortened_and_made_readable() {
    let mut file = LE.section();
    file.extend(LE.interface(1, 0, &[(2, b"e\x1b[2Jth\0\0")]));
    file.extend(LE.interface(1, 0, &[(2, &[b'x'; 5000])]));

    let got = read(&file);

    assert_eq!(got.interfaces[0].name, "e?[2Jth");
    assert_eq!(got.interfaces[1].name.len(), 64);
}

#[test]
fn what_is_no_capture_is_refused_in_words() {
    for (bytes, words) in [
        (&b""[..], "cannot read test: the file is empty"),
        (b"\xd4\xc3\xb2\xa1\x02\0", "cannot read test: it ends after 6 bytes, inside the file header"),
        (b"\x0a\x0d\x0d\x0a\x1c\0", "cannot read test: it ends after 6 bytes, inside the file header"),
        (b"\x1f\x8b\x08\0", "gzip -dc < test | lc … -r -"),
        (b"\x28\xb5\x2f\xfd\0", "zstd-compressed"),
        (b"\x34\xcd\xb2\xa1\0\0\0\0", "modified pcap format"),
        (b"snoop\0\0\0", "snoop"),
        (b"<html>", "it is neither pcap nor pcapng (it begins with 3c 68 74 6d)"),
        (b"x", "it is neither pcap nor pcapng (it begins with 78)"),
    ] {
        let refusal = refusal(bytes);

        assert!(refusal.contains(words), "{refusal}");
    }
    assert!(
        refusal(&LE.pcap_header(0xa1b2_c3d4, 4, 1).iter().map(|b| if *b == 2 { 9 } else { *b }).collect::<Vec<_>>())
            .contains("version is not 2.x")
    );
}

#[test]
fn paths_that_cannot_be_read_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| FileSource::open(&[path]).err().unwrap().to_string();

    let missing = refusal(&dir.path().join("none.pcap"));
    assert!(missing.starts_with("cannot open ") && missing.ends_with("none.pcap: no such file"), "{missing}");
    assert!(refusal(dir.path()).contains("it is a directory"));
    let none: [&str; 0] = [];
    assert!(FileSource::open(&none).is_err());
    assert!(FileSource::open(&["-", "-"]).err().unwrap().to_string().contains("only once"));
}

#[test]
fn a_live_pipe_delivers_each_packet_as_it_comes() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&LE.pcap_header(0xa1b2_c3d4, 4, 1)).unwrap();
    writer.write_all(&LE.pcap_record(1, 0, 1, 1, b"a")).unwrap();
    let mut file = FileReader::from_input("pipe".to_owned(), Box::new(reader), READ_BUFFER, &|| true).unwrap();

    let progress = file.burst(BURST, Timestamp::from_nanos(i64::MAX), &mut |_| {}).unwrap();

    assert_eq!(progress, Progress::Frames(1));
    drop(writer);
    assert_eq!(file.burst(BURST, Timestamp::from_nanos(i64::MAX), &mut |_| {}).unwrap(), Progress::End);
}

#[test]
fn poll_and_burst_hand_over_the_same_frames() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    let mut file = LE.pcap_header(0xa1b2_c3d4, 4, 1);
    for n in 0..5000 {
        file.extend(LE.pcap_record(n, 0, 4, 4, &n.to_be_bytes()));
    }
    std::fs::write(&path, &file).unwrap();
    let mut polled = Vec::new();
    let mut source = FileSource::open(&[&path]).unwrap();
    while source.poll(&mut |f| polled.push(f.data.to_vec())).unwrap() != Progress::End {}

    let mut burst = Vec::new();
    let mut largest = 0;
    let mut source = FileSource::open(&[&path]).unwrap();
    while source
        .burst(usize::MAX, &mut |fs| {
            largest = largest.max(fs.len());
            burst.extend(fs.iter().map(|f| f.data.to_vec()));
        })
        .unwrap()
        != Progress::End
    {}

    assert_eq!(polled.len(), 5000);
    assert_eq!(polled, burst);
    assert_eq!(largest, BURST);
    assert_eq!(source.stats().received, 5000);
    assert_eq!(source.bytes_read(), file.len() as u64);
}

/// A pcapng or pcap file of some packets, and what is in it.
fn any_file() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
    let packets = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20);
    (packets, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(packets, big, ng, extra)| {
        let order = Order { big };
        let mut file = if ng {
            [order.section(), order.interface(1, 0, &[(2, b"eth0")])].concat()
        } else {
            order.pcap_header(0xa1b2_c3d4, 4, 1)
        };
        for (n, packet) in packets.iter().enumerate() {
            let (n, len) = (u32::try_from(n).unwrap(), u32::try_from(packet.len()).unwrap());
            if ng {
                if extra {
                    file.extend(order.block(0x99, packet));
                }
                file.extend(order.enhanced(0, u64::from(n), len, packet));
            } else {
                file.extend(order.pcap_record(n, 0, len, len, packet));
            }
        }
        (file, packets)
    })
}

proptest! {
    #[test]
    fn any_split_of_reads_and_any_burst_gives_the_same_packets(
        (file, packets) in any_file(), step in 1usize..200, burst in 1usize..40,
    ) {
        let got = read_in_steps(&file, step, burst).unwrap();

        let data: Vec<_> = got.frames.iter().map(|f| f.data.clone()).collect();
        prop_assert_eq!(data, packets);
        prop_assert!(got.error.is_none() && got.truncated.is_none());
    }

    #[test]
    fn any_cut_gives_a_prefix_of_the_packets((file, packets) in any_file(), cut in any::<prop::sample::Index>()) {
        let end = cut.index(file.len() + 1);

        if let Ok(got) = read_in_steps(&file[..end], usize::MAX, BURST) {
            let data: Vec<_> = got.frames.iter().map(|f| f.data.clone()).collect();
            prop_assert!(packets.starts_with(&data));
            prop_assert!(got.error.is_none());
        }
    }

    #[test]
    fn any_damage_ends_without_panic_and_alike_for_any_split(
        (mut file, _) in any_file(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        step in 1usize..200,
    ) {
        for (at, value) in damage {
            let at = at.index(file.len());
            file[at] = value;
        }

        let one = read_in_steps(&file, usize::MAX, BURST);
        let other = read_in_steps(&file, step, 3);

        match (one, other) {
            (Ok(a), Ok(b)) => {
                prop_assert_eq!(a.frames, b.frames);
                prop_assert_eq!(a.error.map(|e| e.to_string()), b.error.map(|e| e.to_string()));
                prop_assert_eq!(a.truncated, b.truncated);
            }
            (Err(a), Err(b)) => prop_assert_eq!(a.to_string(), b.to_string()),
            _ => prop_assert!(false, "opened only in one way"),
        }
    }

    #[test]
    fn any_bytes_behind_a_magic_end_without_panic(
        magic in prop::sample::select(vec![
            [0xd4u8, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4], [0x4d, 0x3c, 0xb2, 0xa1], [0x0a, 0x0d, 0x0d, 0x0a],
        ]),
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let file = [&magic[..], &bytes].concat();

        drop(read_in_steps(&file, 7, 5));
    }
}
