//! A read buffer over any input: bytes are read in large blocks and parsed where they lie.
//!
//! Promises: no allocation after creation (a record larger than a block read ahead has its own); a single `read(2)` is never waited for when the bytes asked for are there, so
//! that a live pipe delivers promptly; a read that an error ends ([`Patient`]: nothing yet) can be tried again, nothing is lost.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use super::ahead::{Block, HEAD_ROOM, Taker};
use super::sys;

/// Default size: measured as fast as any larger one, and one record always fits (performance.md: 29 Mpps).
pub(super) const READ_BUFFER: usize = 1 << 20;

/// Read at a time: still in a core's own cache when it is parsed.
const READ_CHUNK: usize = 64 * 1024;

/// Size per file when many files are merged; still holds one record of the largest kind.
pub(super) const READ_BUFFER_MANY: usize = 512 * 1024;

/// The longest wait of one read from a pipe: half a batch's age, as for a silent interface.
const SLICE: Duration = Duration::from_millis(50);

/// A pipe or terminal: a read that nothing comes to for [`SLICE`] ends with `WouldBlock`, so that its reader is heard from in between.
pub(super) struct Patient(pub(super) File);

impl Read for Patient {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if sys::wait_readable(&[self.0.as_fd()], SLICE)? { self.0.read(room) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

/// Unparsed bytes of an input.
pub(super) struct ReadBuffer {
    input: Box<dyn Read + Send>,
    /// Takes the place of `input` where the file is read ahead; then `bytes` is the block at hand.
    ahead: Option<Taker>,
    bytes: Box<[u8]>,
    /// Whether `bytes` is a block that goes back.
    is_block: bool,
    /// Most bytes that can be asked for together.
    max: usize,
    start: usize,
    end: usize,
    /// Offset in the input of `bytes[start]`.
    offset: u64,
    /// Bytes still to be skipped; [`Self::data`] is empty until they are.
    owed: u64,
}

impl ReadBuffer {
    pub(super) fn new(input: Box<dyn Read + Send>, capacity: usize) -> Self {
        let bytes = vec![0; capacity].into_boxed_slice();
        Self { input, ahead: None, bytes, is_block: false, max: capacity, start: 0, end: 0, offset: 0, owed: 0 }
    }

    /// From here on the rest of the input comes from these blocks.
    pub(super) fn read_ahead(&mut self, blocks: Taker) {
        self.ahead = Some(blocks);
    }

    /// What has been read and not consumed.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Offset in the input of the first byte of [`Self::data`].
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the input ended, or paused, in the middle of what is skipped.
    pub(super) fn is_skipping(&self) -> bool {
        self.owed > 0
    }

    /// Drops `n` bytes from the front of [`Self::data`].
    #[inline]
    pub(super) fn consume(&mut self, n: usize) {
        let n = n.min(self.end.saturating_sub(self.start));
        self.start = self.start.saturating_add(n);
        self.offset = self.offset.saturating_add(n as u64);
    }

    /// Reads until at least `need` bytes are at hand; `false` when the input ends first. `need` beyond the capacity is
    /// answered `false`.
    pub(super) fn fill(&mut self, need: usize) -> io::Result<bool> {
        if !self.skip(0)? {
            return Ok(false);
        }
        while self.end.saturating_sub(self.start) < need {
            if need > self.max || self.read_more()? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops `n` bytes, reading over those not yet at hand; `false` when the input ends first.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<bool> {
        self.owed = self.owed.saturating_add(n);
        loop {
            let have = self.end.saturating_sub(self.start);
            let step = usize::try_from(self.owed).unwrap_or(usize::MAX).min(have);
            self.consume(step);
            self.owed = self.owed.saturating_sub(step as u64);
            if self.owed == 0 {
                return Ok(true);
            }
            if self.read_more()? == 0 {
                return Ok(false);
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        if self.ahead.is_some() {
            return self.next_block();
        }
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        let to = self.end.saturating_add(READ_CHUNK).min(self.bytes.len());
        let Some(room) = self.bytes.get_mut(self.end..to) else { return Ok(0) };
        loop {
            match self.input.read(room) {
                Ok(n) => {
                    let n = n.min(room.len());
                    self.end = self.end.saturating_add(n);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Puts what is left before the next block's bytes, and goes on there.
    fn next_block(&mut self) -> io::Result<usize> {
        let Some(blocks) = &self.ahead else { return Ok(0) };
        let Some(mut next) = blocks.take()? else { return Ok(0) };
        let gained = next.end.saturating_sub(HEAD_ROOM);
        let rest = self.bytes.get(self.start..self.end).unwrap_or_default();
        let start = HEAD_ROOM.checked_sub(rest.len());
        if let Some((start, room)) = start.and_then(|start| Some((start, next.bytes.get_mut(start..HEAD_ROOM)?))) {
            room.copy_from_slice(rest);
            let read = Block { bytes: std::mem::replace(&mut self.bytes, next.bytes), end: self.end };
            if self.is_block {
                blocks.give_back(read);
            }
            (self.start, self.end, self.is_block) = (start, next.end, true);
        } else {
            // a record of many blocks
            let joined = [rest, next.bytes.get(HEAD_ROOM..next.end).unwrap_or_default()].concat().into_boxed_slice();
            (self.start, self.end) = (0, joined.len());
            let read = Block { bytes: std::mem::replace(&mut self.bytes, joined), end: 0 };
            if std::mem::take(&mut self.is_block) {
                blocks.give_back(read);
            }
            blocks.give_back(next);
        }
        Ok(gained)
    }
}
