//! One file of the spool: a header, records of one epoch in order, and a footer once it is sealed.
//!
//! ```text
//!  0          8         12      16      24      32           40       48     60    64
//!  +----------+---------+-------+-------+-------+------------+--------+------+-----+
//!  | LCSPOOL1 | version | flags | epoch | first | created ns | hunter | zero | CRC |  records …  footer
//!  +----------+---------+-------+-------+-------+------------+--------+------+-----+
//! ```
//! The name repeats epoch and first sequence, so a damaged header costs nothing but the time of creation.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BufMut;
use smallvec::SmallVec;

use super::fs::{Fs, FsFile};
use super::record::{self, FOOTER, Found, take};
use super::{Item, Tally};
use crate::batch::{BatchSeq, DroppedRange, Epoch};
use crate::reason::DropReason;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
/// The format written and read here.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"LCSPOOL1";
const SUFFIX: &str = ".seg";

/// Which segment: its epoch, its first sequence, and which attempt to write it after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) epoch: Epoch,
    pub(super) first: BatchSeq,
    pub(super) copy: u8,
}

impl Key {
    /// Reads a file name; `None` for files that are no segments.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(SUFFIX)?;
        let (stem, copy) = stem.split_once('.').map_or((stem, Some(0)), |(stem, n)| (stem, n.parse().ok()));
        let (epoch, first) = stem.split_once('-')?;
        let hex = |s: &str| (s.len() == 16).then(|| u64::from_str_radix(s, 16).ok()).flatten();
        let key = Self { epoch: Epoch(hex(epoch)?), first: BatchSeq(hex(first)?), copy: copy? };
        (key.to_string() == name).then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.epoch.0, self.first.0)?;
        if self.copy > 0 {
            write!(f, ".{}", self.copy)?;
        }
        f.write_str(SUFFIX)
    }
}

/// What stands at the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Ours.
    Known { created_ns: i64, hunter: u64 },
    /// Whole, but of another format.
    Version(u32),
    /// Not whole.
    Damaged,
}

pub(super) fn encode_head(key: Key, created_ns: i64, hunter: u64) -> [u8; SEGMENT_HEADER] {
    let mut out = [0; SEGMENT_HEADER];
    let mut rest = out.as_mut_slice();
    rest.put_slice(&MAGIC);
    rest.put_u32_le(VERSION);
    rest.put_u32_le(0);
    rest.put_u64_le(key.epoch.0);
    rest.put_u64_le(key.first.0);
    rest.put_i64_le(created_ns);
    rest.put_u64_le(hunter);
    if let Some((body, crc)) = out.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
    out
}

pub(super) fn decode_head(key: Key, bytes: &[u8; SEGMENT_HEADER]) -> Head {
    let fields = || {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let mut rest = body;
        let whole = take(&mut rest)? == MAGIC && crc32c::crc32c(body) == u32::from_le_bytes(*crc);
        let version = u32::from_le_bytes(take(&mut rest)?);
        let _flags: [u8; 4] = take(&mut rest)?;
        let (epoch, first) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let (created_ns, hunter) = (i64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let named = (epoch, first) == (key.epoch.0, key.first.0);
        Some(match version {
            _ if !whole => Head::Damaged,
            VERSION if named => Head::Known { created_ns, hunter },
            VERSION => Head::Damaged,
            other => Head::Version(other),
        })
    };
    fields().unwrap_or(Head::Damaged)
}

/// Names a hunter in 64 bits.
pub(super) fn hunter_mark(id: &str) -> u64 {
    u64::from(crc32c::crc32c(id.as_bytes())) | (id.len() as u64) << 32
}

/// How far a segment was read.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    at: u64,
    tally: Tally,
    /// The lowest sequence that may come.
    next: u64,
}

/// What a read gave.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch.
    Batch(Item),
    /// Batches that are damaged or cannot be read.
    Hole(DroppedRange),
    /// Nothing more, for now.
    End,
}

/// What is confirmed on disk, and what is not yet.
#[derive(Debug)]
struct Writer<F> {
    file: F,
    /// End, content and last sequence at the last good sync.
    synced: (u64, Tally, BatchSeq),
    unsynced: VecDeque<Item>,
    unsynced_bytes: u64,
    since: Option<Duration>,
    /// Half a record is at the end and cannot be cut off.
    torn: bool,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) key: Key,
    pub(super) created_ns: i64,
    opened: Duration,
    /// Highest sequence in it.
    pub(super) last: BatchSeq,
    pub(super) total: Tally,
    /// Where its records end.
    end: u64,
    /// What the file takes on disk.
    pub(super) disk_bytes: u64,
    /// Something in it was not what was written.
    pub(super) damaged: bool,
    /// Some of it could not be made durable, here or elsewhere.
    pub(super) stranded: bool,
    cursor: Cursor,
    writer: Option<Writer<F>>,
    reader: Option<F>,
}

impl<F: FsFile> Segment<F> {
    /// Creates the file, durable before the first record is in it.
    pub(super) fn create<S: Fs<File = F>>(fs: &S, key: Key, created_ns: i64, hunter: u64, now: Duration) -> io::Result<Self> {
        let name = key.to_string();
        let mut file = match fs.create(&name) {
            // it could be neither finished nor removed: it holds nothing
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => fs.remove(&name).and_then(|()| fs.create(&name))?,
            made => made?,
        };
        let made = file.append(&[&encode_head(key, created_ns, hunter)]).and_then(|()| file.sync()).and_then(|()| fs.sync());
        if let Err(e) = made {
            // it holds nothing: should it stay, recovery removes it
            let _gone = fs.remove(&name);
            return Err(e);
        }
        let end = SEGMENT_HEADER as u64;
        let last = BatchSeq(key.first.0.saturating_sub(1));
        let mut this = Self::found(key, created_ns, last, Tally::default(), end, end);
        this.opened = now;
        let synced = (end, Tally::default(), last);
        this.writer = Some(Writer { file, synced, unsynced: VecDeque::new(), unsynced_bytes: 0, since: None, torn: false });
        Ok(this)
    }

    /// A file that is only read.
    pub(super) fn found(key: Key, created_ns: i64, last: BatchSeq, total: Tally, end: u64, disk_bytes: u64) -> Self {
        let cursor = Cursor { at: SEGMENT_HEADER as u64, tally: Tally::default(), next: key.first.0 };
        Self {
            key,
            created_ns,
            opened: Duration::ZERO,
            last,
            total,
            end,
            disk_bytes,
            damaged: false,
            stranded: false,
            cursor,
            writer: None,
            reader: None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether one more record may go in.
    pub(super) fn takes(&self, seq: BatchSeq, record: u64, limit: u64) -> bool {
        let open = self.writer.as_ref().is_some_and(|w| !w.torn);
        open && seq > self.last && (self.total.batches == 0 || self.end.saturating_add(record) <= limit)
    }

    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.opened)
    }

    /// Since when something is not durable.
    pub(super) fn unsynced_since(&self) -> Option<Duration> {
        self.writer.as_ref().and_then(|w| w.since)
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |w| w.unsynced_bytes)
    }

    /// Writes a record of each, in one write, and returns how many it has. After an error the file ends where it did; or, where it
    /// cannot be cut, behind the last whole record in it, which the next start would find, and it takes no more.
    pub(super) fn append(&mut self, items: &[Item], now: Duration) -> (usize, io::Result<()>) {
        let Some(writer) = &mut self.writer else { return (0, Err(io::Error::other("the segment is sealed"))) };
        let (mut headers, mut packets) = (SmallVec::<[_; 1]>::new(), self.total.packets);
        for item in items {
            headers.push(record::encode(self.key, item, u32::try_from(packets).unwrap_or(u32::MAX)));
            packets = packets.saturating_add(u64::from(item.packets));
        }
        let pieces: SmallVec<[&[u8]; 2]> =
            headers.iter().zip(items).flat_map(|(h, item)| [h.as_slice(), item.payload()]).collect();
        let written = writer.file.append(&pieces);
        let mut there = u64::MAX;
        if written.is_err() {
            there = self.end;
            if writer.file.cut(self.end).is_err() {
                writer.torn = true;
                there = writer.file.end().unwrap_or(self.end);
            }
        }
        let mut taken = 0_usize;
        for item in items {
            let end = self.end.saturating_add(item.record_bytes());
            if end > there {
                break;
            }
            writer.unsynced_bytes = writer.unsynced_bytes.saturating_add(item.record_bytes());
            writer.since.get_or_insert(now);
            writer.unsynced.push_back(item.clone());
            self.end = end;
            self.total = self.total.plus(Tally { batches: 1, packets: u64::from(item.packets) });
            self.last = item.seq;
            taken = taken.saturating_add(1);
        }
        self.disk_bytes = if writer.torn { there.max(self.end) } else { self.end };
        (taken, written)
    }

    /// The reader has all of it already.
    pub(super) fn consume(&mut self) -> Tally {
        let unread = self.unread();
        self.cursor = Cursor { at: self.end, tally: self.total, next: self.last.0.saturating_add(1) };
        unread
    }

    /// Makes all of it durable. After an error [`Self::stop_writing`] must follow.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if writer.since.is_none() {
            return Ok(());
        }
        writer.file.sync()?;
        writer.synced = (self.end, self.total, self.last);
        writer.unsynced.clear();
        writer.unsynced_bytes = 0;
        writer.since = None;
        Ok(())
    }

    /// Writes the footer and makes all durable; nothing is appended afterwards. After an error [`Self::stop_writing`] must follow.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if !writer.torn {
            let footer = record::encode_footer(self.key, self.last, self.total);
            self.disk_bytes = self.end.saturating_add(FOOTER as u64);
            writer.since.get_or_insert(Duration::ZERO);
            if writer.file.append(&[&footer]).is_err() && writer.file.cut(self.end).is_ok() {
                // without a footer the next start reads the segment through
                self.disk_bytes = self.end;
            }
        }
        self.sync()?;
        self.stop_writing();
        Ok(())
    }

    /// Appends no more; returns what was not durable.
    pub(super) fn stop_writing(&mut self) -> VecDeque<Item> {
        self.writer.take().map(|w| w.unsynced).unwrap_or_default()
    }

    /// Where the last good sync was, before [`Self::stop_writing`].
    pub(super) fn synced(&self) -> Option<(u64, Tally, BatchSeq)> {
        self.writer.as_ref().map(|w| w.synced)
    }

    /// Goes back to what was durable: the rest stands in another file.
    pub(super) fn retreat<S: Fs<File = F>>(&mut self, fs: &S, (end, total, last): (u64, Tally, BatchSeq)) {
        (self.end, self.disk_bytes, self.total, self.last) = (end, end, total, last);
        if self.cursor.at > end {
            self.consume();
        }
        // where this fails, recovery ignores what is repeated elsewhere
        let _cut = fs.open(&self.key.to_string()).and_then(|mut file| file.cut(end));
    }

    /// Packets of batches behind `seq`, read or not.
    pub(super) fn packets_after<S: Fs<File = F>>(&self, fs: &S, seq: BatchSeq) -> u64 {
        let mut whole = Self::found(self.key, self.created_ns, self.last, self.total, self.end, self.disk_bytes);
        if seq >= self.key.first {
            whole.skip(fs, seq);
        }
        whole.unread().packets
    }

    /// What was not read.
    pub(super) fn unread(&self) -> Tally {
        self.total.minus(self.cursor.tally)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.cursor.at < self.end || self.cursor.tally.packets < self.total.packets
    }

    /// Where the record that is read next begins, or is looked for.
    pub(super) const fn read_to(&self) -> u64 {
        self.cursor.at
    }

    /// The lowest sequence that may still be read.
    pub(super) const fn next_unread(&self) -> BatchSeq {
        BatchSeq(self.cursor.next)
    }

    /// Reads on.
    pub(super) fn next<S: Fs<File = F>>(&mut self, fs: &S) -> Step {
        loop {
            if self.cursor.at >= self.end {
                return self.rest(DropReason::SpoolCorrupt);
            }
            match self.read(fs) {
                Ok(Some(found)) => return self.take(found),
                Ok(None) => self.cursor.at = self.end,
                Err(_) => {
                    self.cursor.at = self.end;
                    return self.rest(DropReason::SpoolIoError);
                }
            }
        }
    }

    /// Goes past everything up to `seq`; returns how much of it had not been read, and holes that are not covered.
    pub(super) fn skip<S: Fs<File = F>>(&mut self, fs: &S, seq: BatchSeq) -> (Tally, Vec<DroppedRange>) {
        let (mut skipped, mut holes) = (Tally::default(), Vec::new());
        if seq >= self.last {
            return (self.consume(), holes);
        }
        while self.cursor.next <= seq.0 {
            let here = self.cursor;
            match self.next(fs) {
                Step::Batch(item) if item.seq > seq => {
                    self.cursor = here;
                    break;
                }
                Step::Batch(item) => skipped = skipped.plus(Tally { batches: 1, packets: u64::from(item.packets) }),
                Step::Hole(range) if range.to <= seq => skipped.packets = skipped.packets.saturating_add(range.packets),
                Step::Hole(range) => holes.push(range),
                Step::End => break,
            }
        }
        (skipped, holes)
    }

    fn read<S: Fs<File = F>>(&mut self, fs: &S) -> io::Result<Option<Found>> {
        let seqs = self.cursor.next..=self.last.0;
        if self.writer.is_none() && self.reader.is_none() {
            self.reader = Some(fs.open(&self.key.to_string())?);
        }
        let file = self.writer.as_ref().map(|w| &w.file).or(self.reader.as_ref());
        let Some(file) = file else { return Ok(None) };
        if let Some(found) = record::read(file, self.key, self.cursor.at, self.end, &seqs)? {
            return Ok(Some(found));
        }
        self.damaged = true;
        let found = record::search(file, self.key, self.cursor.at.saturating_add(1), self.end, &seqs)?;
        Ok(found.map(|(at, found)| {
            self.cursor.at = at;
            found
        }))
    }

    fn take(&mut self, found: Found) -> Step {
        let before = u64::from(found.header.before);
        let missing = before.saturating_sub(self.cursor.tally.packets);
        if missing > 0 {
            // the record is read again by the next call
            let (from, to) = (BatchSeq(self.cursor.next), BatchSeq(found.item.seq.0.saturating_sub(1)));
            self.cursor.tally.packets = before;
            self.cursor.next = found.item.seq.0;
            return Step::Hole(DroppedRange { from, to, packets: missing, reason: DropReason::SpoolCorrupt });
        }
        self.cursor.at = found.end;
        self.cursor.next = found.item.seq.0.saturating_add(1);
        self.cursor.tally = self.cursor.tally.plus(Tally { batches: 1, packets: u64::from(found.item.packets) });
        Step::Batch(found.item)
    }

    /// At the end: what should have been there and was not.
    fn rest(&mut self, reason: DropReason) -> Step {
        let missing = self.total.packets.saturating_sub(self.cursor.tally.packets);
        let from = BatchSeq(self.cursor.next);
        self.consume();
        if self.writer.is_none() {
            self.reader = None;
        }
        if missing == 0 { Step::End } else { Step::Hole(DroppedRange { from, to: self.last, packets: missing, reason }) }
    }
}
