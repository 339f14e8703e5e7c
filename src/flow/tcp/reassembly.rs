//! One direction of one TCP connection, put back in order.
//!
//! ```text
//!   consumed      unread (contiguous)        hole        island      hole   island
//! ──────────────┬───────────────────────┬╌╌╌╌╌╌╌╌╌╌╌╌╌┬────────────┬╌╌╌╌╌╌┬────────┐
//!               start                   next                                        at most 64 islands,
//!               └── readable() ─────────┘└─── gap() ──┘                             1 MiB in all
//! ```
//!
//! Overlaps: **the first bytes received win**; a later segment only fills what is still missing. A segment that disagrees
//! with bytes still held is counted as a conflict. Bytes below `next` are never delivered twice.
//!
//! Joining in mid-stream: the first segment with data begins the stream; earlier ones still go in front of it as long as
//! nothing was consumed. A keep-alive probe (RFC 9293 §3.8.4: one octet or none, just before `next`) covers nothing.
//!
//! A stream that really is elsewhere (a port used again, a long hole in the capture) shows as several segments in a row
//! that continue each other outside the window; then the direction begins again there, behind a gap that says so. FIN and
//! RST are taken as said, and forgotten should data go on behind them, since anybody can send one.

use std::ops::Range;

use super::budget::{Budget, Count};
use super::placement::{Gap, Kind, Placement, TcpLimits};
use super::seq::{Anchor, FIRST_OFFSET};

/// How far before the first segment seen a mid-stream join may still reach back.
const BACK_BYTES: u64 = 64 << 10;
/// How often: each step may copy what is held.
const BACK_STEPS: u8 = 8;
/// Segments in a row outside the window that make a new beginning.
const STRAYS_TO_RESTART: u8 = 3;
/// How far apart two such segments may be.
const STRAY_SLACK: u32 = 64 << 10;
/// An empty buffer no larger than this is kept for the next message.
const KEEP_BYTES: usize = 2 << 10;
/// Consumed bytes in front of the unread ones that are worth moving them.
const COMPACT_BYTES: usize = 4 << 10;
/// What an allocation costs beside its bytes.
const ISLAND_OVERHEAD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte seen yet.
    Waiting,
    Open,
    GivenUp,
}

/// Segments that do not fit but fit each other.
#[derive(Clone, Copy, Debug)]
struct Stray {
    next: u32,
    seen: u8,
    syn: bool,
}

#[derive(Debug)]
struct Island {
    start: u64,
    bytes: Vec<u8>,
}

impl Island {
    fn end(&self) -> u64 {
        self.start.saturating_add(len(&self.bytes))
    }
}

/// See the module. About 200 bytes beside what it holds; dropping it gives its share of the budget back.
#[derive(Debug)]
pub struct Reassembly {
    budget: Budget,
    limits: TcpLimits,
    /// Contiguous bytes; the first `head` are consumed.
    ready: Vec<u8>,
    head: usize,
    /// Offset behind the last contiguous byte.
    next: u64,
    /// Sorted, disjoint, all beyond `next`.
    islands: Vec<Island>,
    anchor: Anchor,
    /// The receiver has everything below.
    acked: u64,
    fin: Option<u64>,
    reset: bool,
    /// Sequence number of the first byte, when its SYN was seen.
    first_seq: Option<u32>,
    stray: Option<Stray>,
    phase: Phase,
    /// Something was consumed, so that the beginning is fixed.
    settled: bool,
    back_steps: u8,
    /// Our share of the budget.
    held: usize,
    #[cfg(test)]
    moved: usize,
}

impl Reassembly {
    /// A direction of which nothing is known yet.
    pub fn new(budget: &Budget, limits: TcpLimits) -> Self {
        Self {
            budget: budget.clone(),
            limits,
            ready: Vec::new(),
            head: 0,
            next: FIRST_OFFSET,
            islands: Vec::new(),
            anchor: Anchor::default(),
            acked: 0,
            fin: None,
            reset: false,
            first_seq: None,
            stray: None,
            phase: Phase::Waiting,
            settled: false,
            back_steps: 0,
            held: 0,
            #[cfg(test)]
            moved: 0,
        }
    }

    /// Takes one segment; says which offsets it covers and what it is.
    pub fn insert(&mut self, seq: u32, syn: bool, fin: bool, payload: &[u8]) -> Placement {
        // RFC 9293 §3.4: the SYN occupies the number before the first octet.
        let seq = if syn { seq.wrapping_add(1) } else { seq };
        let taken = match self.phase {
            Phase::GivenUp => Some(Kind::GivenUp),
            Phase::Waiting => self.join(seq, syn, payload.len()),
            Phase::Open if syn => self.handle_syn(seq),
            Phase::Open => None,
        };
        if self.stray.is_some_and(|s| s.syn && s.next == seq && !syn) {
            self.restart(seq, true);
        }
        let start = self.anchor.offset(seq, self.next);
        let range = start..start.saturating_add(len(payload));
        let kind = match taken {
            Some(kind) if payload.is_empty() && kind != Kind::GivenUp => Kind::Empty,
            Some(Kind::Empty) => return self.nothing(),
            Some(kind) => self.refuse(kind, payload.len()),
            None if payload.len() <= 1 && !syn && !fin && start.checked_add(1) == Some(self.next) => return self.nothing(),
            None => {
                let kind = self.place(seq, range.clone(), payload);
                if fin && matches!(kind, Kind::Empty | Kind::New | Kind::PartlyNew | Kind::OutOfOrder | Kind::Retransmission) {
                    self.note_fin(self.anchor.offset(seq, self.next).saturating_add(len(payload)));
                }
                kind
            }
        };
        // A restart has moved the stream's scale under the segment.
        let start = self.anchor.offset(seq, range.start.max(self.start()));
        Placement { range: start..start.saturating_add(len(payload)), kind }
    }

    /// Notes an acknowledgement number sent by the other side. True when a gap stands that it covers.
    ///
    /// Numbers outside the window are ignored.
    pub fn handle_ack(&mut self, ack: u32) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let offset = self.anchor.offset(ack, self.next);
        if offset <= self.next.saturating_add(bytes(self.limits.max_bytes)) {
            self.acked = self.acked.max(offset);
        }
        self.gap().is_some_and(|gap| gap.acked)
    }

    /// Notes an RST; one outside the window is ignored (RFC 9293 §3.5.3).
    pub fn handle_reset(&mut self, seq: u32) {
        let offset = self.anchor.offset(seq, self.next);
        let window = self.next.saturating_sub(1)..=self.next.saturating_add(bytes(self.limits.max_bytes));
        self.reset |= self.phase != Phase::Open || window.contains(&offset);
    }

    /// The offset of the first unread byte and all unread bytes that follow it without a hole.
    pub fn readable(&self) -> (u64, &[u8]) {
        let unread = self.ready.get(self.head..).unwrap_or_default();
        (self.next.saturating_sub(len(unread)), unread)
    }

    /// Gives back the first `n` unread bytes, or all when there are fewer.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.unread());
        self.settled |= n > 0;
        self.head = self.head.saturating_add(n);
        if self.unread() == 0 {
            self.ready.clear();
            self.head = 0;
            if self.ready.capacity() > KEEP_BYTES {
                self.ready = Vec::new();
            }
        } else if self.head >= COMPACT_BYTES && self.head >= self.unread() {
            // Moves no more than was consumed since the last time, so that reading byte by byte stays linear.
            self.note_moved(self.unread());
            self.ready.drain(..self.head);
            self.head = 0;
        }
        self.account();
    }

    /// The hole in front of the bytes that wait, if any do.
    pub fn gap(&self) -> Option<Gap> {
        let island = self.islands.first()?;
        Some(Gap { missing: island.start.saturating_sub(self.next), acked: island.start <= self.acked })
    }

    /// Gives the hole up: reading goes on behind it. What was unread before it is dropped. Returns the bytes missing, 0
    /// when there is no hole.
    pub fn skip_gap(&mut self) -> u64 {
        let Some(gap) = self.gap() else { return 0 };
        self.budget.count(Count::Discarded(self.unread()));
        self.budget.count(Count::Missing(gap.missing));
        self.ready.clear();
        self.head = 0;
        self.settled = true;
        self.next = self.next.saturating_add(gap.missing);
        self.drain();
        self.account();
        gap.missing
    }

    /// Whether its SYN was seen: what is readable first is what was sent first.
    pub fn has_begun(&self) -> bool {
        self.first_seq.is_some()
    }

    /// Whether everything up to the FIN was received, or the connection was reset. Unread bytes may remain.
    pub fn is_closed(&self) -> bool {
        self.reset || self.fin.is_some_and(|fin| self.next >= fin)
    }

    /// Whether the direction has given up and holds nothing.
    pub fn has_given_up(&self) -> bool {
        self.phase == Phase::GivenUp
    }

    /// After giving up: begins again with the next segment, behind a gap.
    pub fn resume(&mut self) {
        if self.phase == Phase::GivenUp {
            self.phase = Phase::Waiting;
        }
    }

    /// Memory charged to the budget, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    fn unread(&self) -> usize {
        self.ready.len().saturating_sub(self.head)
    }

    /// Offset of the first unread byte.
    fn start(&self) -> u64 {
        self.next.saturating_sub(bytes(self.unread()))
    }

    fn window(&self) -> u64 {
        bytes(self.limits.max_bytes)
    }

    fn nothing(&self) -> Placement {
        Placement { range: self.next..self.next, kind: Kind::Empty }
    }

    fn refuse(&self, kind: Kind, n: usize) -> Kind {
        self.budget.count(Count::Refused(n));
        kind
    }

    /// The first segment: a SYN, or data. What carries no byte, or the one byte of a keep-alive probe, says too little.
    fn join(&mut self, seq: u32, syn: bool, len: usize) -> Option<Kind> {
        if !syn && len <= 1 {
            return Some(Kind::Empty);
        }
        self.phase = Phase::Open;
        if self.settled {
            // After giving up: bytes were lost on the way.
            self.restart(seq, false);
        } else {
            self.anchor = Anchor::new(seq, self.next);
            self.first_seq = syn.then_some(seq);
        }
        None
    }

    /// A SYN on a stream that is known: sent again, late, or of a new connection on the same ports.
    fn handle_syn(&mut self, seq: u32) -> Option<Kind> {
        let start = self.anchor.offset(seq, self.next);
        match self.first_seq {
            Some(first) if first == seq => None,
            None if start <= self.start() && self.start().saturating_sub(start) <= BACK_BYTES => {
                self.first_seq = Some(seq);
                if !self.settled && start < self.start() {
                    self.reach_back(start);
                }
                None
            }
            _ if self.is_closed() => {
                self.restart(seq, true);
                None
            }
            _ => {
                // Only data that continues it makes this SYN credible (RFC 5961 §4).
                self.stray = Some(Stray { next: seq, seen: 0, syn: true });
                Some(Kind::OutOfWindow)
            }
        }
    }

    fn note_fin(&mut self, end: u64) {
        if self.phase == Phase::Open && end >= self.next && end <= self.next.saturating_add(self.window()) {
            self.fin.get_or_insert(end);
        }
    }

    fn place(&mut self, seq: u32, range: Range<u64>, payload: &[u8]) -> Kind {
        if payload.is_empty() {
            return Kind::Empty;
        }
        let ahead = range.start > self.next && range.end > self.next.saturating_add(self.window());
        let behind = range.end.saturating_add(self.window()) < self.next;
        if ahead || behind {
            return self.place_stray(seq, payload);
        }
        if range.start < self.start() && self.may_reach_back(range.start) {
            self.reach_back(range.start);
        }
        let old = self.compare(&range, payload);
        let from = self.next.max(range.start);
        let tail = usize::try_from(from.saturating_sub(range.start)).ok().and_then(|cut| payload.get(cut..)).unwrap_or_default();
        let (in_order, taken) = (from == self.next, self.fill(from, tail));
        if taken > 0 {
            self.stray = None;
            if self.fin.is_some_and(|fin| range.end > fin) {
                self.fin = None;
            }
            self.reset = false;
        }
        if self.phase == Phase::GivenUp || !self.account() {
            return Kind::GivenUp;
        }
        let missing = payload.len().saturating_sub(taken).saturating_sub(old);
        self.budget.count(Count::Refused(missing));
        match taken {
            0 if missing > 0 => Kind::OutOfWindow,
            0 => Kind::Retransmission,
            n if n < payload.len() => Kind::PartlyNew,
            _ if in_order => Kind::New,
            _ => Kind::OutOfOrder,
        }
    }

    /// A segment outside the window: refused, unless it makes a new beginning credible.
    fn place_stray(&mut self, seq: u32, payload: &[u8]) -> Kind {
        let seen = match self.stray {
            Some(stray) if seq.wrapping_sub(stray.next) < STRAY_SLACK => stray.seen.saturating_add(1),
            _ => 1,
        };
        if seen < STRAYS_TO_RESTART {
            let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            self.stray = Some(Stray { next: seq.wrapping_add(size), seen, syn: false });
            return self.refuse(Kind::OutOfWindow, payload.len());
        }
        self.restart(seq, false);
        let start = self.anchor.offset(seq, self.next);
        self.fill(start, payload);
        if self.account() { Kind::OutOfOrder } else { Kind::GivenUp }
    }

    /// The stream goes on at `seq`, behind a gap that counts as acknowledged: its true length when `seq` lies ahead, else 1;
    /// none when a SYN finds everything read.
    fn restart(&mut self, seq: u32, syn: bool) {
        let ahead = self.anchor.offset(seq, self.next).saturating_sub(self.next);
        let torn = u64::from(self.unread() > 0 || !self.islands.is_empty());
        let gap = if syn { torn } else { ahead.max(1) };
        let dropped: usize = self.islands.iter().map(|i| i.bytes.len()).sum();
        self.budget.count(Count::Discarded(dropped));
        self.budget.count(Count::Restart);
        self.islands.clear();
        self.acked = self.next.saturating_add(gap);
        self.anchor = Anchor::new(seq, self.acked);
        self.first_seq = syn.then_some(seq);
        self.fin = None;
        self.reset = false;
        self.stray = None;
        self.settled = true;
    }

    fn may_reach_back(&self, start: u64) -> bool {
        !self.settled
            && self.first_seq.is_none()
            && self.back_steps < BACK_STEPS
            && self.islands.len() < self.limits.max_islands
            && self.start().saturating_sub(start) <= BACK_BYTES
    }

    /// Moves the beginning back to `start`: what was contiguous becomes an island behind it.
    fn reach_back(&mut self, start: u64) {
        self.back_steps = self.back_steps.saturating_add(1);
        if self.unread() > 0 {
            let old = Island { start: self.start(), bytes: std::mem::take(&mut self.ready) };
            self.islands.insert(0, old);
        }
        self.next = start;
    }

    /// Bytes of a segment that are known already; counts a conflict when one that is still held differs.
    fn compare(&self, range: &Range<u64>, payload: &[u8]) -> usize {
        let mut known = self.next.min(range.end).saturating_sub(range.start);
        let mut differs = {
            let (start, unread) = self.readable();
            differ(range, payload, start, unread)
        };
        for island in self.overlapping(range) {
            known = known.saturating_add(island.end().min(range.end).saturating_sub(island.start.max(range.start)));
            differs |= differ(range, payload, island.start, &island.bytes);
        }
        if differs {
            self.budget.count(Count::Conflict);
        }
        usize::try_from(known).unwrap_or(usize::MAX)
    }

    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = &Island> {
        let (first, end) = (self.islands.partition_point(|i| i.end() <= range.start), range.end);
        self.islands.iter().skip(first).take_while(move |i| i.start < end)
    }

    /// Puts the bytes of `[from, …)` that are missing where they belong; how many were.
    fn fill(&mut self, from: u64, bytes: &[u8]) -> usize {
        let (mut at, mut rest, mut taken) = (from, bytes, 0usize);
        let mut index = self.islands.partition_point(|i| i.end() <= from);
        while !rest.is_empty() {
            let (piece, known) = match self.islands.get(index) {
                None => (rest.len(), 0),
                Some(island) if island.start > at => (cut(rest, island.start, at), 0),
                Some(island) => (0, cut(rest, island.end(), at)),
            };
            let Some((new, behind)) = rest.split_at_checked(piece.max(known)) else { break };
            if known > 0 {
                index = index.saturating_add(1);
            } else if self.put(at, new, &mut index) {
                taken = taken.saturating_add(new.len());
            } else {
                break;
            }
            at = at.saturating_add(len(new));
            rest = behind;
        }
        self.drain();
        taken
    }

    /// Stores one missing piece, in front of the island at `index`; false when there is no room for it.
    fn put(&mut self, at: u64, piece: &[u8], index: &mut usize) -> bool {
        let waiting: usize = self.islands.iter().map(|i| i.bytes.len()).sum();
        let fits = self.unread().saturating_add(waiting).saturating_add(piece.len()) <= self.limits.max_bytes;
        if at == self.next {
            if !fits {
                // Nobody reads: more waiting would not help.
                self.give_up();
                return false;
            }
            self.note_moved(piece.len());
            self.ready.extend_from_slice(piece);
            self.next = self.next.saturating_add(len(piece));
            return true;
        }
        let full = self.islands.len() >= self.limits.max_islands;
        match index.checked_sub(1).and_then(|i| self.islands.get_mut(i)) {
            Some(before) if fits && before.end() == at => before.bytes.extend_from_slice(piece),
            _ if !fits || full => return false,
            _ => {
                self.islands.insert(*index, Island { start: at, bytes: piece.to_vec() });
                *index = index.saturating_add(1);
            }
        }
        self.note_moved(piece.len());
        true
    }

    /// Appends the islands that have become contiguous.
    fn drain(&mut self) {
        let mut joined = 0;
        while let Some(island) = self.islands.get_mut(joined).filter(|i| i.start == self.next) {
            self.next = island.end();
            let mut bytes = std::mem::take(&mut island.bytes);
            if self.ready.is_empty() {
                std::mem::swap(&mut self.ready, &mut bytes);
            } else {
                self.note_moved(bytes.len());
                self.ready.extend_from_slice(&bytes);
            }
            joined = joined.saturating_add(1);
        }
        self.islands.drain(..joined);
        if self.islands.is_empty() && self.islands.capacity() > 0 {
            self.islands = Vec::new();
        }
    }

    /// Brings our share of the budget up to date; gives up when it does not fit.
    fn account(&mut self) -> bool {
        let islands = self.islands.iter().map(|i| i.bytes.capacity().saturating_add(ISLAND_OVERHEAD));
        let wanted = islands.fold(self.ready.capacity(), usize::saturating_add);
        if self.budget.settle(self.held, wanted) {
            self.held = wanted;
            return true;
        }
        self.give_up();
        false
    }

    fn give_up(&mut self) {
        let dropped = self.islands.iter().fold(self.unread(), |sum, i| sum.saturating_add(i.bytes.len()));
        self.budget.count(Count::Discarded(dropped));
        self.budget.count(Count::GivenUp);
        self.budget.settle(self.held, 0);
        self.held = 0;
        self.ready = Vec::new();
        self.head = 0;
        self.islands = Vec::new();
        self.stray = None;
        self.phase = Phase::GivenUp;
        self.settled = true;
    }

    #[cfg(test)]
    fn note_moved(&mut self, n: usize) {
        self.moved += n;
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "measured by the growth test only")]
    fn note_moved(&mut self, _n: usize) {}
}

impl Drop for Reassembly {
    fn drop(&mut self) {
        self.budget.settle(self.held, 0);
    }
}

fn bytes(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn len(b: &[u8]) -> u64 {
    bytes(b.len())
}

/// How much of `rest`, which begins at `at`, lies before `limit`.
fn cut(rest: &[u8], limit: u64, at: u64) -> usize {
    usize::try_from(limit.saturating_sub(at)).map_or(rest.len(), |n| n.min(rest.len()))
}

/// Whether `payload` at `range` and `other` at `start` differ where they overlap.
fn differ(range: &Range<u64>, payload: &[u8], start: u64, other: &[u8]) -> bool {
    let part = |bytes: &'_ [u8], begin: u64| -> Option<(usize, usize)> {
        let from = range.start.max(start).checked_sub(begin)?;
        let to = range.end.min(start.saturating_add(len(other))).checked_sub(begin)?;
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        (from < to && to <= bytes.len()).then_some((from, to))
    };
    let (Some((a, b)), Some((c, d))) = (part(payload, range.start), part(other, start)) else { return false };
    payload.get(a..b) != other.get(c..d)
}

#[cfg(test)]
mod tests;
