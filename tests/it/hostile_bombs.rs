//! Bombs: what is small on the way and a gigabyte when it is unpacked. Nobody said that we unpack anything; it is refused unread, on every method.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;

use super::flood::peak_of;
use super::hostile::{REGISTER, STREAM, call, http2, processor, resident};
use super::hostile_good::{Good, assert_stored};
use super::hostile_hunter::{answered, register};
use super::not_run;

/// What each of them is when it is unpacked: zeros.
const UNPACKED: usize = 1 << 30;

/// Zeros in DEFLATE (RFC 1951): after a few letters one length code of one bit and one distance code of one bit say 258 more.
fn deflated() -> Vec<u8> {
    let mut bits = Bits::default();
    // the last block, codes of its own: 286 for letters and lengths, 1 for distances, 18 for the lengths of codes
    for (value, count) in [(1, 1), (2, 2), (29, 5), (0, 5), (14, 4)] {
        bits.number(value, count);
    }
    // in the order of §3.2.7: 18 has one bit, 2 and 1 have two; so 18 is 0, 1 is 10, 2 is 11
    for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        bits.number(length, 3);
    }
    let repeated_none = |bits: &mut Bits, times: u32| {
        bits.code("0");
        bits.number(times - 11, 7);
    };
    // letter 0 and the end (256) have two bits, length 258 (285) and distance 1 have one
    bits.code("11");
    repeated_none(&mut bits, 138);
    repeated_none(&mut bits, 117);
    bits.code("11");
    repeated_none(&mut bits, 28);
    bits.code("10");
    bits.code("10");
    let letters = (UNPACKED - 1) % 258 + 1;
    (0..letters).for_each(|_| bits.code("10"));
    (0..UNPACKED / 258).for_each(|_| bits.code("00"));
    bits.code("11");
    bits.bytes
}

/// Bits from the lowest of each byte on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn bit(&mut self, bit: u32) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().unwrap() |= u8::try_from(bit << (self.used % 8)).unwrap();
        self.used += 1;
    }

    /// Its lowest bit first.
    fn number(&mut self, value: u32, count: u32) {
        (0..count).for_each(|n| self.bit(value >> n & 1));
    }

    fn code(&mut self, code: &str) {
        code.bytes().for_each(|b| self.bit(u32::from(b - b'0')));
    }
}

/// The CRC-32 of a gigabyte of zeros.
const CRC32: u32 = 0x5b64_c2b0;

/// The same as a gzip file (RFC 1952).
fn gzip() -> Vec<u8> {
    let length = u32::try_from(UNPACKED).unwrap();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &deflated(), &CRC32.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// The same as zlib has it (RFC 1950).
fn zlib() -> Vec<u8> {
    let check = u32::try_from(UNPACKED % 65_521).unwrap() << 16 | 1;
    [&[0x78, 1][..], &deflated(), &check.to_be_bytes()].concat()
}

/// The same in zstd (RFC 8878): blocks of one byte that is said 128 KiB times.
pub(super) fn zstd() -> Vec<u8> {
    let mut all = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let blocks = UNPACKED >> 17;
    for n in 1..=blocks {
        let head = u32::from(n == blocks) | 1 << 1 | 1 << 17 << 3;
        all.extend([&head.to_le_bytes()[..3], &[0]].concat());
    }
    all
}

/// How many bytes a program makes of it.
fn unpacked(program: &str, bomb: &[u8]) -> Option<usize> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{program} -dc | wc -c")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let known = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status().unwrap();
    if !known.success() {
        not_run::say("the_bombs_are_bombs", &format!("missing: {program}"));
        return None;
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bomb).unwrap();
    Some(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().parse().unwrap())
}

#[test]
fn the_bombs_are_bombs() {
    for (program, bomb, most) in [("gzip", gzip(), 1 << 20), ("zstd", zstd(), 33 << 10)] {
        assert!(bomb.len() < most, "{} bytes of {program}", bomb.len());
        if let Some(length) = unpacked(program, &bomb) {
            assert_eq!(length, UNPACKED, "{program}");
        }
    }
    assert_eq!(zlib()[2..zlib().len() - 4], gzip()[10..gzip().len() - 8]);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "says what was measured")]
async fn bombs_of_a_gigabyte_are_refused_on_every_method_and_cost_no_memory() {
    const MANAGEMENT: &str = "/lippycat.management.ManagementService/";
    let tmp = tempfile::tempdir().unwrap();
    let processor = processor(tmp.path());
    let good = Good::start(tmp.path(), &processor);
    let evil = http2(processor.port).await.unwrap();
    register(&evil, "evil").await;
    let before = resident(processor.id());

    let mut paths = vec![STREAM.to_owned(), "/lippycat.data.DataService/SubscribePackets".into(), REGISTER.into()];
    paths.extend(
        ["Heartbeat", "GetFilters", "SubscribeFilters", "RegisterProcessor", "UpdateFilter"].map(|m| format!("{MANAGEMENT}{m}")),
    );
    // a hundred of the smallest
    let bombs = [("gzip", gzip(), 2), ("deflate", zlib(), 2), ("zstd", zstd(), 100)];
    for path in &paths {
        for (encoding, bomb, times) in &bombs {
            let message: Bytes = [&[1][..], &u32::try_from(bomb.len()).unwrap().to_be_bytes(), bomb].concat().into();
            for _ in 0..*times {
                let mut request = call(path);
                request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
                let status = answered(&evil, request, message.clone()).await;
                assert_eq!(status, "12", "{path}, {encoding}: UNIMPLEMENTED");
            }
        }
    }
    let sent = tokio::task::block_in_place(|| good.end());
    let grown = peak_of(processor.id()).saturating_sub(before);
    let log = processor.stop();

    println!("bombs: {} MiB; {sent} packets beside them", grown >> 20);
    assert!(grown <= 64 << 20, "{} MiB", grown >> 20);
    assert!(log.contains("p1=0 p2=0") && !log.contains("panicked"), "{log}");
    assert_stored(&tmp.path().join("all.pcap"), sent);
}
