//! An existing file: is it one we may continue, and where does its last whole record end?
//!
//! Promises: constant memory (one block), one pass, nothing allocated by what the file says. Only the torn half of a
//! last record is ever cut; how many bytes that was is reported.
//!
//! Refuses: another format (microsecond pcap, big-endian pcap, pcap where pcapng was asked for), another link type, a
//! snap length shorter than ours, and files damaged before their end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::block::hex;
use super::pcap::{HEADER_LEN, MAGIC_NS, MAGIC_US, RECORD_LEN, snaplen};
use super::pcapng::{BYTE_ORDER, SHB};
use super::{Format, MAX_CAPTURED, RecordError};
use crate::packet::LinkType;

/// A pcap of this length holds no packet.
pub(super) const PCAP_HEADER: u64 = HEADER_LEN as u64;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;
/// Longest pcapng block accepted in an existing file; Wireshark's own limit (`MAX_BLOCK_SIZE`, 16 MiB).
const MAX_BLOCK: u64 = 16 * 1024 * 1024;

/// What is in an existing file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Link type of a pcap's header; `None` for pcapng and for a file without a whole header.
    pub link: Option<LinkType>,
    /// End of the last whole record; 0 when there is not even a header.
    pub end: u64,
    /// Bytes after it, part of a record that never was finished.
    pub torn: u64,
    /// Packets before it, as far as they were counted (from the start or from `trusted`).
    pub packets: u64,
}

/// Reads `file` through, from byte `trusted` on: a record boundary known from an earlier run, 0 without one.
///
/// # Errors
/// [`RecordError::Mismatch`], [`RecordError::Corrupt`], [`RecordError::Io`].
pub fn scan(file: &mut File, path: &Path, format: Format, trusted: u64) -> Result<Found, RecordError> {
    let io = |e| RecordError::io("read", path, e);
    let len = file.metadata().map_err(io)?.len();
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut input = Cursor { file, buf: vec![0; CHUNK], from: 0, to: 0, at: 0, len };
    let trusted = if trusted <= len { trusted } else { 0 };
    match format {
        Format::Pcap => scan_pcap(&mut input, path, trusted),
        Format::PcapNg => scan_pcapng(&mut input, path, trusted),
    }
}

/// Cuts what [`scan`] found torn.
pub(super) fn cut(file: &File, path: &Path, found: &Found) -> Result<(), RecordError> {
    if found.torn == 0 {
        return Ok(());
    }
    file.set_len(found.end).map_err(|e| RecordError::io("cut the torn tail of", path, e))
}

/// SHA-256 in hex of a whole file.
pub(super) fn sha256(mut file: File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let (mut sum, mut buf) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Ok(hex(&sum.finalize())),
            Ok(n) => sum.update(buf.get(..n).unwrap_or(&[])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn scan_pcap(input: &mut Cursor<'_>, path: &Path, trusted: u64) -> Result<Found, RecordError> {
    let refuse = |reason: String| Err(RecordError::Mismatch { path: path.into(), reason });
    let io = |e| RecordError::io("read", path, e);
    let Some(h) = input.peek::<HEADER_LEN>().map_err(io)? else { return short_header(input, path, MAGIC_NS.to_le_bytes()) };
    match le32(&h, 0) {
        MAGIC_NS => {}
        MAGIC_US => return refuse("it is a pcap with microseconds, and nanoseconds would be lost".into()),
        m if m.swap_bytes() == MAGIC_NS || m.swap_bytes() == MAGIC_US => return refuse("it is a big-endian pcap".into()),
        SHB => return refuse("it is a pcapng file, and its name asks for pcap".into()),
        _ => return refuse("it is not a capture file".into()),
    }
    if (le32(&h, 4), le32(&h, 20) >> 16) != (0x0004_0002, 0) {
        return refuse("its pcap version is not 2.4".into());
    }
    if !matches!(le32(&h, 16), 0 | 0x4_0000..) {
        return refuse(format!("its snap length is {}, ours {}", le32(&h, 16), snaplen()));
    }
    let [l0, l1] = [h[20], h[21]];
    let mut found = Found { link: Some(LinkType(u16::from_le_bytes([l0, l1]))), ..Found::default() };
    input.skip_to(trusted.max(HEADER_LEN as u64)).map_err(io)?;
    loop {
        (found.end, found.torn) = (input.at, input.left());
        let Some(r) = input.peek::<RECORD_LEN>().map_err(io)? else { return Ok(found) };
        let captured = le32(&r, 8);
        if captured as usize > MAX_CAPTURED || le32(&r, 4) >= 1_000_000_000 {
            let reason = "a record with an impossible length or time";
            return Err(RecordError::Corrupt { path: path.into(), offset: input.at, reason });
        }
        let next = input.at.saturating_add(RECORD_LEN as u64).saturating_add(u64::from(captured));
        if next > input.len {
            return Ok(found);
        }
        input.skip_to(next).map_err(io)?;
        found.packets = found.packets.saturating_add(1);
    }
}

fn scan_pcapng(input: &mut Cursor<'_>, path: &Path, trusted: u64) -> Result<Found, RecordError> {
    let io = |e| RecordError::io("read", path, e);
    let Some(h) = input.peek::<12>().map_err(io)? else { return short_header(input, path, SHB.to_le_bytes()) };
    let mut big = match (le32(&h, 0), le32(&h, 8)) {
        (SHB, BYTE_ORDER) => false,
        (SHB, b) if b.swap_bytes() == BYTE_ORDER => true,
        _ => {
            let reason = "it is not a pcapng file, and its name asks for one".into();
            return Err(RecordError::Mismatch { path: path.into(), reason });
        }
    };
    let corrupt = |offset, reason| Err(RecordError::Corrupt { path: path.into(), offset, reason });
    let mut found = Found::default();
    input.skip_to(trusted).map_err(io)?;
    loop {
        (found.end, found.torn) = (input.at, input.left());
        let Some(b) = input.peek::<12>().map_err(io)? else { return Ok(found) };
        if le32(&b, 0) == SHB {
            big = match le32(&b, 8) {
                BYTE_ORDER => false,
                o if o.swap_bytes() == BYTE_ORDER => true,
                _ => return corrupt(input.at, "a section without a byte order"),
            };
        }
        let word = |at| if big { le32(&b, at).swap_bytes() } else { le32(&b, at) };
        let (kind, total) = (word(0), u64::from(word(4)));
        if total < 12 || total % 4 != 0 || total > MAX_BLOCK {
            return corrupt(input.at, "a block with an impossible length");
        }
        let next = input.at.saturating_add(total);
        if next > input.len {
            return Ok(found);
        }
        input.skip_to(next.saturating_sub(4)).map_err(io)?;
        let again = input.peek::<4>().map_err(io)?.map_or(0, |e| if big { le32(&e, 0).swap_bytes() } else { le32(&e, 0) });
        if u64::from(again) != total {
            return corrupt(found.end, "a block whose two lengths differ");
        }
        input.skip_to(next).map_err(io)?;
        // Simple, obsolete and enhanced packets (draft-ietf-opsawg-pcapng §4.3, §4.4, appendix A).
        found.packets = found.packets.saturating_add(u64::from(matches!(kind, 2 | 3 | 6)));
    }
}

/// A file that ends inside its header: ours if it begins like one of ours, and then it is begun again.
fn short_header(input: &mut Cursor<'_>, path: &Path, magic: [u8; 4]) -> Result<Found, RecordError> {
    let mut have = 0_u8;
    for want in magic {
        let at = u64::from(have);
        input.skip_to(at).map_err(|e| RecordError::io("read", path, e))?;
        match input.peek::<1>().map_err(|e| RecordError::io("read", path, e))? {
            Some([b]) if b == want => have = have.saturating_add(1),
            Some(_) => {
                return Err(RecordError::Mismatch { path: path.into(), reason: "it is not a capture file".into() });
            }
            None => break,
        }
    }
    Ok(Found { torn: input.len, ..Found::default() })
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

/// A file read forward through one buffer.
struct Cursor<'f> {
    file: &'f mut File,
    buf: Vec<u8>,
    /// Valid bytes of `buf`, and their place: `buf[from..to]` begins at `at`.
    from: usize,
    to: usize,
    at: u64,
    len: u64,
}

impl Cursor<'_> {
    fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    /// The next `N` bytes, still unread; `None` when the file has fewer.
    fn peek<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        while self.to.saturating_sub(self.from) < N {
            self.buf.copy_within(self.from..self.to, 0);
            (self.to, self.from) = (self.to.saturating_sub(self.from), 0);
            let room = self.buf.get_mut(self.to..).unwrap_or(&mut []);
            match self.file.read(room) {
                Ok(0) => return Ok(None),
                Ok(n) => self.to = self.to.saturating_add(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.buf.get(self.from..self.to).and_then(|b| b.first_chunk()).copied())
    }

    /// Goes on at byte `at` of the file.
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        let ahead = at.checked_sub(self.at).and_then(|d| usize::try_from(d).ok());
        if let Some(from) = ahead.and_then(|d| self.from.checked_add(d)).filter(|f| *f <= self.to) {
            self.from = from;
        } else {
            self.file.seek(SeekFrom::Start(at))?;
            (self.from, self.to) = (0, 0);
        }
        self.at = at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Timestamp;
    use crate::record::dir::{Access, Dir, MinFree};
    use crate::record::file::{CaptureFile, Shape};
    use crate::record::{Origin, Packet};
    use proptest::prelude::*;
    use std::fs;

    fn shape(format: Format) -> Shape<'static> {
        Shape { format, link: LinkType::ETHERNET, block: 1 << 16, hash: false, comment: "" }
    }

    fn packet(n: i64, data: &[u8]) -> Packet<'_> {
        let origin = Origin { hunter: "h", interface: "eth0", filters: "f" };
        Packet { ts: Timestamp::from_nanos(n), wire_len: 99, link: LinkType::ETHERNET, data, origin }
    }

    fn written(format: Format, payloads: &[&[u8]]) -> Vec<u8> {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let mut f = CaptureFile::create(&dir, "f", shape(format)).unwrap().unwrap();
        for (n, p) in (0..).zip(payloads) {
            f.push(&packet(n, p));
        }
        assert!(f.flush(&dir).unwrap());
        fs::read(dir.join("f")).unwrap()
    }

    fn scan_bytes(bytes: &[u8], format: Format, trusted: u64) -> Result<Found, RecordError> {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("f"), bytes).unwrap();
        scan(&mut File::open(tmp.path().join("f")).unwrap(), Path::new("f"), format, trusted)
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_its_whole_records_and_can_be_continued() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let payloads: [&[u8]; 4] = [b"one", b"", b"three three", b"4"];
        for format in [Format::Pcap, Format::PcapNg] {
            let whole = written(format, &payloads);
            let counts: Vec<usize> = (0..=payloads.len()).map(|n| written(format, &payloads[..n]).len()).collect();
            for cut_at in 0..=whole.len() {
                fs::write(dir.join("f"), &whole[..cut_at]).unwrap();
                let mut file = dir.open_existing("f").unwrap().unwrap();

                let found = scan(&mut file, Path::new("f"), format, 0).unwrap();
                cut(&file, Path::new("f"), &found).unwrap();
                let mut f = CaptureFile::continue_at("f", file, shape(format), &found);
                f.push(&packet(77, b"after"));
                assert!(f.flush(&dir).unwrap());
                drop(f);

                let kept = counts.iter().rposition(|len| *len <= cut_at).unwrap_or(0);
                assert_eq!(found.packets, kept as u64, "{format:?} cut at {cut_at}");
                assert_eq!(found.end + found.torn, cut_at as u64);
                let mut file = dir.open_existing("f").unwrap().unwrap();
                let again = scan(&mut file, Path::new("f"), format, 0).unwrap();
                assert_eq!((again.packets, again.torn), (kept as u64 + 1, 0));
                assert!(fs::read(dir.join("f")).unwrap().starts_with(&whole[..usize::try_from(found.end).unwrap()]));
            }
        }
    }

    #[test]
    fn goes_on_from_a_known_boundary_without_reading_what_is_before() {
        let mut bytes = written(Format::Pcap, &[b"one", b"two"]);
        let boundary = bytes.len() as u64;
        bytes[30] = 0xff;
        bytes.extend_from_slice(&written(Format::Pcap, &[b"three"])[HEADER_LEN..]);

        let found = scan_bytes(&bytes, Format::Pcap, boundary).unwrap();

        assert_eq!((found.packets, found.end, found.torn), (1, bytes.len() as u64, 0));
    }

    #[test]
    fn says_what_differs_and_touches_nothing() {
        let good = written(Format::Pcap, &[b"one"]);
        let with = |at: usize, bytes: &[u8]| {
            let mut b = good.clone();
            b[at..at + bytes.len()].copy_from_slice(bytes);
            b
        };
        for (bytes, format, hint) in [
            (with(0, &MAGIC_US.to_le_bytes()), Format::Pcap, "microseconds"),
            (with(0, &MAGIC_NS.to_be_bytes()), Format::Pcap, "big-endian"),
            (with(16, &[96, 0, 0, 0]), Format::Pcap, "snap length is 96"),
            (with(4, &[9]), Format::Pcap, "version"),
            (written(Format::PcapNg, &[b"x"]), Format::Pcap, "name asks for pcap"),
            (good.clone(), Format::PcapNg, "not a pcapng"),
            (b"#!/bin/sh".to_vec(), Format::Pcap, "not a capture file"),
            (b"%".to_vec(), Format::Pcap, "not a capture file"),
            (b"some text, 24 bytes long".to_vec(), Format::Pcap, "not a capture file"),
            (with(35, &[0x7f]), Format::Pcap, "damaged at byte 24"),
        ] {
            let e = scan_bytes(&bytes, format, 0).unwrap_err().to_string();
            assert!(e.contains(hint), "{hint}: {e}");
        }
    }

    #[test]
    fn records_longer_than_the_read_buffer_are_stepped_over() {
        let big = vec![7; MAX_CAPTURED];
        for format in [Format::Pcap, Format::PcapNg] {
            let bytes = written(format, &[b"a", &big, &big, b"z"]);

            let found = scan_bytes(&bytes, format, 0).unwrap();

            assert_eq!((found.packets, found.torn), (4, 0));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_after_a_good_start_end_in_an_answer(tail in prop::collection::vec(any::<u8>(), 0..200), ng in any::<bool>()) {
            let format = if ng { Format::PcapNg } else { Format::Pcap };
            let mut bytes = written(format, &[b"one"]);
            let end = bytes.len() as u64;
            bytes.extend_from_slice(&tail);

            if let Ok(found) = scan_bytes(&bytes, format, 0) {
                prop_assert!(found.end >= end);
                prop_assert_eq!(found.end + found.torn, bytes.len() as u64);
            }
        }
    }
}
