//! One capture file, read from front to back: what format it is, its records in bursts, and how it ended.
//!
//! Promises: every complete packet of a damaged or cut file is handed over before anything is said about the damage; a
//! cut tail is a [`Truncated`] note, not an error. After an error the file has ended: no attempt is made to find the next
//! record behind a damaged one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use smallvec::SmallVec;

use super::ahead::Ahead;
use super::buffer::{Patient, ReadBuffer};
use super::classic::{self, Classic};
use super::pcapng::Pcapng;
use super::{CaptureError, InterfaceInfo, Progress};
use crate::packet::{Frame, Timestamp};

/// Bytes of one packet beyond which a file is called damaged: libpcap's own ceiling (`MAXIMUM_SNAPLEN`).
pub const MAX_CAPLEN: u32 = 262_144;

/// Bytes of one record that must be at hand together: the largest packet and 128 KiB of pcapng options.
pub(super) const MAX_RECORD: usize = MAX_CAPLEN as usize + 128 * 1024;

/// Most frames in one burst: enough to overlap the cache misses of a flow table, few enough to stay in L1.
pub const BURST: usize = 32;

/// A file that ends in the middle of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The path.
    pub file: String,
    /// Where the incomplete record begins.
    pub offset: u64,
    /// Packets that were read before it.
    pub frames: u64,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, frames } = self;
        write!(f, "{file} is truncated: the record at byte {offset} is incomplete; the {frames} packets before it were read")
    }
}

/// A file format: finds the next record in the bytes at hand.
pub(super) trait Records {
    /// Looks at the record at the front of `data`. Takes note of everything but packets, so that what it answers
    /// `Described` or `Skip` to must be consumed.
    fn step<'a>(&mut self, data: &'a [u8]) -> Step<'a>;
    fn interfaces(&self) -> &[InterfaceInfo];
}

/// What lies at the front of the buffer.
pub(super) enum Step<'a> {
    /// A packet, and the length of its record.
    Frame(Frame<'a>, usize),
    /// An interface description of this length.
    Described(usize),
    /// Something else of this length, perhaps longer than what is at hand.
    Skip(u64),
    /// A record of which at least this many bytes must be at hand.
    Need(usize),
    /// Damage.
    Bad(&'static str),
}

enum Format {
    Classic(Classic),
    Pcapng(Box<Pcapng>),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame of this time.
    Frame(Timestamp),
    /// A pipe has nothing yet: ask again.
    NotYet,
    /// Nothing.
    End,
}

/// A file being read.
pub(super) struct FileReader {
    name: String,
    buffer: ReadBuffer,
    /// The file again, where it can be read ahead: a regular one.
    regular: Option<File>,
    format: Format,
    frames: u64,
    /// Where the record begins that is skipped.
    skipped: u64,
    ended: bool,
    truncated: Option<Truncated>,
}

/// Why a burst was not longer.
enum Stop {
    Full,
    Later,
    Described,
    Skip(u64),
    Need(usize),
    Bad(&'static str),
}

impl FileReader {
    /// Opens `path` (`-` is standard input) and checks that it is a capture file. A pipe is waited for while it is `wanted`.
    ///
    /// # Errors
    /// What is wrong with it: missing, unreadable, empty, cut in its header, compressed, of another kind.
    pub(super) fn open(path: &Path, capacity: usize, wanted: &dyn Fn() -> bool) -> Result<Self, CaptureError> {
        let (name, input) = if path == Path::new("-") {
            let name = "standard input".to_owned();
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            let fd = stdin.map_err(|source| CaptureError::Open { file: name.clone(), reason: source.to_string(), io: source })?;
            (name, File::from(fd))
        } else {
            let name = path.display().to_string();
            // a fifo is opened before anybody writes to it: what is waited for then is its first bytes
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
            let file = opened.map_err(|source| cannot_open(name.clone(), source))?;
            if file.metadata().is_ok_and(|m| m.is_dir()) {
                return Err(cannot_open(name, io::ErrorKind::IsADirectory.into()));
            }
            (name, file)
        };
        if !input.metadata().is_ok_and(|m| m.is_file()) {
            return Self::from_input(name, Box::new(Patient(input)), capacity, wanted);
        }
        let regular = input.try_clone().ok();
        Ok(Self { regular, ..Self::from_input(name, Box::new(input), capacity, wanted)? })
    }

    pub(super) fn from_input(
        name: String,
        input: Box<dyn Read + Send>,
        capacity: usize,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Self, CaptureError> {
        let mut buffer = ReadBuffer::new(input, capacity);
        let whole = loop {
            match buffer.fill(classic::HEADER) {
                Ok(whole) => break whole,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && wanted() => {}
                Err(source) => return Err(CaptureError::Read { file: name, offset: 0, source }),
            }
        };
        let data = buffer.data();
        let format = match data {
            [] => return Err(CaptureError::Empty { file: name }),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Format::Pcapng(Box::new(Pcapng::new(&name))),
            [0xd4, 0xc3, 0xb2, 0xa1, ..]
            | [0xa1, 0xb2, 0xc3, 0xd4, ..]
            | [0x4d, 0x3c, 0xb2, 0xa1, ..]
            | [0xa1, 0xb2, 0x3c, 0x4d, ..] => {
                let Some(header) = data.first_chunk() else {
                    return Err(CaptureError::ShortHeader { file: name, have: data.len() });
                };
                match Classic::open(header, &name) {
                    Ok(format) => Format::Classic(format),
                    Err(what) => return Err(CaptureError::NotACapture { file: name, what: what.to_owned() }),
                }
            }
            other => return Err(CaptureError::NotACapture { what: stranger(other, &name), file: name }),
        };
        match &format {
            Format::Pcapng(_) if !whole => return Err(CaptureError::ShortHeader { file: name, have: data.len() }),
            Format::Pcapng(_) => {}
            Format::Classic(_) => buffer.consume(classic::HEADER),
        }
        Ok(Self { name, buffer, regular: None, format, frames: 0, skipped: 0, ended: false, truncated: None })
    }

    /// Hands over up to `max` frames in one call, none later than `until` ahead of its turn: the burst ends before the
    /// first frame that is later. `Frames(0)`: an interface was described, the next frame is later than `until`, or a pipe
    /// has nothing yet.
    pub(super) fn burst(
        &mut self,
        max: usize,
        until: Timestamp,
        f: &mut dyn FnMut(&[Frame<'_>]),
    ) -> Result<Progress, CaptureError> {
        while !self.ended {
            let mut frames = SmallVec::new();
            let data = self.buffer.data();
            let (used, stop) = match &mut self.format {
                Format::Classic(format) => gather(format, data, max, until, &mut frames),
                Format::Pcapng(format) => gather(&mut **format, data, max, until, &mut frames),
            };
            let count = frames.len();
            if count > 0 {
                f(&frames);
            }
            drop(frames);
            self.frames = self.frames.saturating_add(count as u64);
            self.buffer.consume(used);
            match stop {
                Stop::Full | Stop::Later | Stop::Described => return Ok(Progress::Frames(count)),
                // Found again at the front of the next burst.
                Stop::Need(_) | Stop::Bad(_) if count > 0 => return Ok(Progress::Frames(count)),
                Stop::Need(n) => {
                    if !self.read(n)? {
                        return Ok(Progress::Frames(0));
                    }
                }
                Stop::Bad(what) => return Err(self.damaged(what)),
                Stop::Skip(n) => {
                    let skipped = self.skip(n);
                    if count > 0 {
                        // An error in reading comes back with the next read.
                        return Ok(Progress::Frames(count));
                    }
                    if !skipped? {
                        return Ok(Progress::Frames(0));
                    }
                }
            }
        }
        Ok(Progress::End)
    }

    /// The time of the next frame, without taking it.
    pub(super) fn peek(&mut self) -> Result<Next, CaptureError> {
        while !self.ended {
            let data = self.buffer.data();
            let step = match &mut self.format {
                Format::Classic(format) => format.step(data),
                Format::Pcapng(format) => format.step(data),
            };
            let at_hand = match step {
                Step::Frame(frame, _) => return Ok(Next::Frame(frame.ts)),
                Step::Described(n) => {
                    self.buffer.consume(n);
                    true
                }
                Step::Skip(n) => self.skip(n)?,
                Step::Need(n) => self.read(n)?,
                Step::Bad(what) => return Err(self.damaged(what)),
            };
            if !at_hand {
                return Ok(Next::NotYet);
            }
        }
        Ok(Next::End)
    }

    /// From here on a file is read by another thread, which does this; `None` for what is no file, or is read so already.
    pub(super) fn read_ahead(&mut self) -> Option<Ahead> {
        // it goes on where this reader is: both have one offset
        let (ahead, blocks) = Ahead::new(self.regular.take()?);
        self.buffer.read_ahead(blocks);
        Some(ahead)
    }

    pub(super) fn interfaces(&self) -> &[InterfaceInfo] {
        match &self.format {
            Format::Classic(format) => format.interfaces(),
            Format::Pcapng(format) => format.interfaces(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Packets handed over.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes consumed, for progress displays.
    pub(super) fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    pub(super) fn truncated(&self) -> Option<&Truncated> {
        self.truncated.as_ref()
    }

    /// `false`: nothing yet.
    fn read(&mut self, need: usize) -> Result<bool, CaptureError> {
        let filled = self.buffer.fill(need);
        self.settle(filled)
    }

    /// `false`: nothing yet; the next read goes on with it.
    fn skip(&mut self, n: u64) -> Result<bool, CaptureError> {
        self.skipped = self.buffer.offset();
        let skipped = self.buffer.skip(n);
        self.settle(skipped)
    }

    fn settle(&mut self, whole: io::Result<bool>) -> Result<bool, CaptureError> {
        match whole {
            Ok(true) => {}
            Ok(false) if self.buffer.is_skipping() => self.cut(self.skipped),
            Ok(false) if self.buffer.data().is_empty() => self.ended = true,
            Ok(false) => self.cut(self.buffer.offset()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(self.unreadable(e)),
        }
        Ok(true)
    }

    fn cut(&mut self, offset: u64) {
        self.ended = true;
        self.truncated = Some(Truncated { file: self.name.clone(), offset, frames: self.frames });
    }

    fn damaged(&mut self, what: &'static str) -> CaptureError {
        self.ended = true;
        CaptureError::Malformed { file: self.name.clone(), offset: self.buffer.offset(), what, frames: self.frames }
    }

    fn unreadable(&mut self, source: io::Error) -> CaptureError {
        self.ended = true;
        CaptureError::Read { file: self.name.clone(), offset: self.buffer.offset(), source }
    }
}

/// Takes frames from the front of `data`; returns how many bytes they and what lay between them take.
#[inline]
fn gather<'a, R: Records>(
    records: &mut R,
    data: &'a [u8],
    max: usize,
    until: Timestamp,
    frames: &mut SmallVec<[Frame<'a>; BURST]>,
) -> (usize, Stop) {
    let max = max.clamp(1, BURST);
    let mut used = 0usize;
    let mut rest = data;
    while frames.len() < max {
        let len = match records.step(rest) {
            Step::Frame(frame, _) if frame.ts > until => return (used, Stop::Later),
            Step::Frame(frame, len) => {
                frames.push(frame);
                len
            }
            Step::Described(len) => return (used.saturating_add(len), Stop::Described),
            Step::Skip(len) => match usize::try_from(len) {
                Ok(len) if len <= rest.len() => len,
                _ => return (used, Stop::Skip(len)),
            },
            Step::Need(n) => return (used, Stop::Need(n)),
            Step::Bad(what) => return (used, Stop::Bad(what)),
        };
        used = used.saturating_add(len);
        rest = rest.get(len..).unwrap_or_default();
    }
    (used, Stop::Full)
}

fn cannot_open(file: String, source: io::Error) -> CaptureError {
    let known = [
        (io::ErrorKind::NotFound, "no such file"),
        (io::ErrorKind::PermissionDenied, "permission denied; is it readable for this user?"),
        (io::ErrorKind::IsADirectory, "it is a directory; name the capture files in it"),
    ];
    let words = known.iter().find(|(kind, _)| *kind == source.kind()).map(|(_, words)| (*words).to_owned());
    let reason = words.unwrap_or_else(|| source.to_string());
    CaptureError::Open { file, reason, io: source }
}

/// What a file that is no capture seems to be.
fn stranger(head: &[u8], name: &str) -> String {
    let packed = |how: &str, tool: &str| format!("it is {how}-compressed; unpack it first: {tool} < {name} | lc … -r -");
    match head {
        [0x1f, 0x8b, ..] => packed("gzip", "gzip -dc"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => packed("zstd", "zstd -dc"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => packed("xz", "xz -dc"),
        [b'B', b'Z', b'h', ..] => packed("bzip2", "bzip2 -dc"),
        [0x04, 0x22, 0x4d, 0x18, ..] => packed("lz4", "lz4 -dc"),
        [0x34, 0xcd, 0xb2, 0xa1, ..] | [0xa1, 0xb2, 0xcd, 0x34, ..] => {
            "it is in the modified pcap format of patched libpcaps; convert it: editcap -F pcap IN OUT".to_owned()
        }
        [b's', b'n', b'o', b'o', b'p', ..] => "it is a snoop file; convert it: editcap -F pcap IN OUT".to_owned(),
        [b'G', b'M', b'B', b'U', ..] | [b'R', b'T', b'S', b'S', ..] => {
            "it is a Network Monitor file; convert it: editcap -F pcap IN OUT".to_owned()
        }
        _ => {
            let bytes: Vec<String> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
            format!("it is neither pcap nor pcapng (it begins with {})", bytes.join(" "))
        }
    }
}

#[cfg(test)]
mod tests;
