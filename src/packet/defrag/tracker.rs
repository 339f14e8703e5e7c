//! One datagram under reassembly.

use std::hash::BuildHasher;

use crate::packet::headers::Fragment;
use crate::packet::owned::OwnedFrame;
use crate::packet::{Ip, IpProto, Timestamp};

use super::Refusal;

pub(super) const V4_HEADER: usize = 20;

/// A fragment as it came, enough to recognise its repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    offset: u16,
    end: u16,
    more: bool,
    hash: u64,
}

impl Piece {
    /// `offset` plus `body` must have been checked to be at most 65 535.
    pub(super) fn new(fragment: Fragment, body: &[u8], hash: &impl BuildHasher) -> Self {
        let end = usize::from(fragment.offset).saturating_add(body.len());
        Self {
            offset: fragment.offset,
            end: u16::try_from(end).unwrap_or(u16::MAX),
            more: fragment.more,
            hash: hash.hash_one(body),
        }
    }
}

/// Bytes that count, in their place.
#[derive(Debug)]
struct Run {
    start: usize,
    bytes: Box<[u8]>,
}

impl Run {
    fn end(&self) -> usize {
        self.start.saturating_add(self.bytes.len())
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    /// It counts; `overlap` where other pieces had some of its bytes before, `whole` when nothing is missing any more.
    Kept { overlap: bool, whole: bool },
    /// It was here before.
    Duplicate,
    /// It does not count.
    Refused(Refusal),
    /// It spoils the datagram.
    Fatal(Refusal),
}

/// The pieces of one datagram.
#[derive(Debug)]
pub(super) struct Tracker {
    /// When its first piece came.
    pub(super) first: Timestamp,
    /// Its number in the order of ages.
    pub(super) age: u64,
    is_v4: bool,
    /// What it holds, in bytes of memory.
    pub(super) bytes: usize,
    /// The original frames.
    pub(super) frames: Vec<OwnedFrame>,
    pub(super) pieces: Vec<Piece>,
    /// In order of place, without overlap.
    runs: Vec<Run>,
    covered: usize,
    /// Length of the body, once the last piece is here.
    total: Option<usize>,
    /// Protocol of the body, from the piece at its beginning.
    next: Option<IpProto>,
    poisoned: bool,
}

impl Tracker {
    pub(super) fn new(first: Timestamp, age: u64, is_v4: bool) -> Self {
        Self {
            first,
            age,
            is_v4,
            bytes: 0,
            frames: Vec::new(),
            pieces: Vec::new(),
            runs: Vec::new(),
            covered: 0,
            total: None,
            next: None,
            poisoned: false,
        }
    }

    /// What a frame of `len` bytes costs besides its piece's bytes: itself, its descriptors, and a share of the tracker.
    pub(super) const fn cost(len: usize) -> usize {
        len.saturating_add(size_of::<OwnedFrame>() + size_of::<Piece>() + size_of::<Run>() + size_of::<Self>())
    }

    /// Adds a piece that came in `frames` frames.
    pub(super) fn insert(&mut self, piece: Piece, next: IpProto, body: &[u8], frames: usize, max_frames: usize) -> Insert {
        if self.poisoned {
            return Insert::Refused(Refusal::GivenUp);
        }
        if self.frames.len().saturating_add(frames) > max_frames {
            return Insert::Fatal(Refusal::TooMany);
        }
        if self.pieces.contains(&piece) {
            return Insert::Duplicate;
        }
        let (start, end) = (usize::from(piece.offset), usize::from(piece.end));
        let reaches = self.total.unwrap_or_else(|| self.runs.last().map_or(0, Run::end));
        let contradicts = if piece.more {
            self.total.is_some() && end > reaches
        } else {
            end < reaches || self.total.is_some_and(|t| t != end)
        };
        if contradicts {
            return Insert::Refused(Refusal::Malformed);
        }
        let gaps = self.gaps(start, end);
        let fresh: usize = gaps.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
        let overlap = fresh < body.len();
        if overlap && !self.is_v4 {
            return Insert::Fatal(Refusal::Overlap);
        }
        for (from, to) in gaps {
            let bytes = body.get(from.saturating_sub(start)..to.saturating_sub(start)).unwrap_or_default();
            self.runs.push(Run { start: from, bytes: bytes.into() });
        }
        self.runs.sort_unstable_by_key(|r| r.start);
        self.covered = self.covered.saturating_add(fresh);
        if !piece.more {
            self.total = Some(end);
        }
        if start == 0 && self.next.is_none() {
            self.next = Some(next);
        }
        self.pieces.push(piece);
        Insert::Kept { overlap, whole: self.total == Some(self.covered) }
    }

    /// The parts of a range that no run covers.
    fn gaps(&self, start: usize, end: usize) -> Vec<(usize, usize)> {
        let mut gaps = Vec::new();
        let mut at = start;
        for run in self.runs.iter().skip_while(|r| r.end() <= start).take_while(|r| r.start < end) {
            if run.start > at {
                gaps.push((at, run.start));
            }
            at = at.max(run.end());
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    /// Lets go of everything; what comes later is refused.
    pub(super) fn poison(&mut self) {
        *self = Self { poisoned: true, ..Self::new(self.first, self.age, self.is_v4) };
    }

    pub(super) const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The whole datagram behind a header of its own.
    pub(super) fn packet(&self, src: Ip, dst: Ip) -> Vec<u8> {
        let next = self.next.unwrap_or_default().0;
        let mut packet = Vec::with_capacity(40_usize.saturating_add(self.covered));
        let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
        if self.is_v4 {
            let [high, low] = length(self.covered.saturating_add(V4_HEADER));
            packet.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, next, 0, 0]);
            packet.extend(src.octets().iter().skip(12));
            packet.extend(dst.octets().iter().skip(12));
        } else {
            let [high, low] = length(self.covered);
            packet.extend([0x60, 0, 0, 0, high, low, next, 64]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
        }
        for run in &self.runs {
            packet.extend_from_slice(&run.bytes);
        }
        packet
    }
}
