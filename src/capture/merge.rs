//! Capture files as a [`Source`]: one as it lies, several merged by the time of their next packet.
//!
//! Promises: ties go to the file named first; the order inside each file is kept even where its times go back, so that
//! the same files in the same order always give the same frames in the same order; one file passes through untouched.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use smallvec::SmallVec;

use super::buffer::{READ_BUFFER, READ_BUFFER_MANY};
use super::file::{BURST, FileReader, Next, Truncated};
use super::{Ahead, CaptureError, InterfaceInfo, KernelStats, Progress, Source, Wake};
use crate::packet::{Frame, InterfaceId, Timestamp};

/// Files merged at once: each holds a descriptor and a read buffer (256 MiB in all at this limit).
pub const MAX_FILES: usize = 512;

/// From this many files on, each has the smaller read buffer.
const MANY_FILES: usize = 16;

/// About this many frames are handed over by one [`Source::poll`].
const POLL_FRAMES: usize = 1024;

const FOREVER: Timestamp = Timestamp::from_nanos(i64::MAX);

/// Frames from files.
pub struct FileSource {
    files: Vec<FileReader>,
    /// Only for several files.
    merge: Merge,
}

#[derive(Default)]
struct Merge {
    /// Files whose next packet is not known yet; the next to look at last.
    unknown: Vec<usize>,
    /// The next packet of every other file that has one.
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    interfaces: Vec<InterfaceInfo>,
    /// For each of them, its file.
    files: Vec<usize>,
    /// For each file, the id of each of its interfaces.
    of_file: Vec<Vec<InterfaceId>>,
}

impl FileSource {
    /// Opens every file and checks that it is a capture; `-` is standard input, once.
    ///
    /// # Errors
    /// The first file that cannot be read, none at all, more than [`MAX_FILES`], standard input named twice.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, CaptureError> {
        Self::open_while(paths, &|| true)
    }

    /// As [`Self::open`]; a pipe that has said nothing yet is waited for while it is `wanted`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_while<P: AsRef<Path>>(paths: &[P], wanted: &dyn Fn() -> bool) -> Result<Self, CaptureError> {
        let count = paths.len();
        if count == 0 || count > MAX_FILES {
            return Err(CaptureError::FileCount { count, must: "name at least one and at most 512" });
        }
        if paths.iter().filter(|p| p.as_ref() == Path::new("-")).count() > 1 {
            return Err(CaptureError::FileCount { count, must: "standard input (-) can be read only once" });
        }
        let buffer = if count < MANY_FILES { READ_BUFFER } else { READ_BUFFER_MANY };
        let files: Result<Vec<_>, _> = paths.iter().map(|p| FileReader::open(p.as_ref(), buffer, wanted)).collect();
        Ok(Self::new(files?))
    }

    /// Reads a capture from anything, under `name`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_reader<R: Read + Send + 'static>(name: &str, input: R) -> Result<Self, CaptureError> {
        Ok(Self::new(vec![FileReader::from_input(name.to_owned(), Box::new(input), READ_BUFFER, &|| true)?]))
    }

    fn new(files: Vec<FileReader>) -> Self {
        let mut merge = Merge::default();
        if files.len() > 1 {
            merge.unknown = (0..files.len()).rev().collect();
            merge.of_file = vec![Vec::new(); files.len()];
        }
        Self { files, merge }
    }

    /// The next frame, for pacing.
    ///
    /// # Errors
    /// As [`Source::poll`].
    pub fn peek(&mut self) -> Result<Next, CaptureError> {
        if let [file] = self.files.as_mut_slice() {
            return file.peek();
        }
        self.look()?;
        if !self.merge.unknown.is_empty() {
            return Ok(Next::NotYet);
        }
        Ok(self.merge.next.peek().map_or(Next::End, |Reverse((ts, _))| Next::Frame(*ts)))
    }

    /// As [`Source::burst`], but no frame later than `until`: `Frames(0)` when the next one is, or has not come yet.
    ///
    /// # Errors
    /// As [`Source::poll`].
    pub fn burst_until(
        &mut self,
        max: usize,
        until: Timestamp,
        f: &mut dyn FnMut(&[Frame<'_>]),
    ) -> Result<Progress, CaptureError> {
        if let [file] = self.files.as_mut_slice() {
            return file.burst(max, until, f);
        }
        if !self.look()? {
            return Ok(Progress::Frames(0));
        }
        let Some(Reverse((first, index))) = self.merge.next.peek().copied() else { return Ok(Progress::End) };
        if first > until {
            return Ok(Progress::Frames(0));
        }
        // As long as this file's next packet comes before every other file's, it goes on.
        self.merge.next.pop();
        let limit = match self.merge.next.peek() {
            None => FOREVER,
            Some(Reverse((ts, other))) if index < *other => *ts,
            Some(Reverse((ts, _))) => Timestamp::from_nanos(ts.as_nanos().saturating_sub(1)),
        };
        self.merge.unknown.push(index);
        let Some(file) = self.files.get_mut(index) else { return Ok(Progress::Frames(0)) };
        let ids = self.merge.of_file.get(index).map_or(&[][..], Vec::as_slice);
        let mut renumbered = |frames: &[Frame<'_>]| {
            let burst: SmallVec<[Frame<'_>; BURST]> = frames.iter().map(|frame| renumber(frame, ids)).collect();
            f(&burst);
        };
        // Not its end: `look` has seen its next frame.
        file.burst(max, limit.min(until).max(first.min(until)), &mut renumbered)
    }

    /// Files that ended in the middle of a record: said once each, at the end.
    pub fn truncated(&self) -> impl Iterator<Item = &Truncated> {
        self.files.iter().filter_map(FileReader::truncated)
    }

    /// Bytes read so far over all files, for a progress display.
    pub fn bytes_read(&self) -> u64 {
        self.files.iter().map(FileReader::offset).fold(0, u64::saturating_add)
    }

    /// Learns the next packet of every file that is not at its end; `false` when an interface came to light or a pipe
    /// has nothing yet.
    fn look(&mut self) -> Result<bool, CaptureError> {
        let known = self.merge.interfaces.len();
        while let Some(index) = self.merge.unknown.pop() {
            let Some(file) = self.files.get_mut(index) else { continue };
            let next = file.peek();
            self.merge.learn(index, file.interfaces());
            match next? {
                Next::Frame(ts) => self.merge.next.push(Reverse((ts, index))),
                Next::NotYet => {
                    self.merge.unknown.push(index);
                    return Ok(false);
                }
                Next::End => {}
            }
        }
        Ok(self.merge.interfaces.len() == known)
    }
}

impl Merge {
    fn learn(&mut self, index: usize, interfaces: &[InterfaceInfo]) {
        let Some(ids) = self.of_file.get_mut(index) else { return };
        for info in interfaces.iter().skip(ids.len()) {
            // Beyond 65536 interfaces over all files the last id stands for the rest.
            ids.push(InterfaceId(u16::try_from(self.interfaces.len()).unwrap_or(u16::MAX)));
            self.interfaces.push(info.clone());
            self.files.push(index);
        }
    }
}

/// The same frame with the id that its interface has among all files.
fn renumber<'a>(frame: &Frame<'a>, ids: &[InterfaceId]) -> Frame<'a> {
    let interface = ids.get(usize::from(frame.interface.0)).copied().unwrap_or_default();
    Frame { interface, ..*frame }
}

impl Source for FileSource {
    fn poll(&mut self, f: &mut dyn FnMut(Frame<'_>)) -> Result<Progress, CaptureError> {
        let mut total = 0usize;
        let mut each = |frames: &[Frame<'_>]| {
            for frame in frames {
                f(*frame);
            }
        };
        loop {
            match self.burst_until(BURST, FOREVER, &mut each)? {
                Progress::Frames(n) if n > 0 && total < POLL_FRAMES => total = total.saturating_add(n),
                Progress::Frames(n) => return Ok(Progress::Frames(total.saturating_add(n))),
                Progress::End if total > 0 => return Ok(Progress::Frames(total)),
                end @ (Progress::End | Progress::Idle) => return Ok(end),
            }
        }
    }

    fn burst(&mut self, max: usize, f: &mut dyn FnMut(&[Frame<'_>])) -> Result<Progress, CaptureError> {
        self.burst_until(max, FOREVER, f)
    }

    fn read_ahead(&mut self) -> Option<Ahead> {
        // of many, nobody knows which is next
        if let [file] = self.files.as_mut_slice() { file.read_ahead() } else { None }
    }

    fn wait(&mut self, _timeout: Duration) -> Result<Wake, CaptureError> {
        Ok(Wake::Ready)
    }

    fn interfaces(&self) -> &[InterfaceInfo] {
        match self.files.as_slice() {
            [file] => file.interfaces(),
            _ => &self.merge.interfaces,
        }
    }

    fn file_of(&self, interface: InterfaceId) -> Option<(usize, &str)> {
        let index = match self.files.as_slice() {
            [_] => 0,
            _ => *self.merge.files.get(usize::from(interface.0))?,
        };
        Some((index, self.files.get(index)?.name()))
    }

    fn stats(&mut self) -> KernelStats {
        let received = self.files.iter().map(FileReader::frames).fold(0, u64::saturating_add);
        KernelStats { received, ..KernelStats::default() }
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.files.iter().map(FileReader::name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
