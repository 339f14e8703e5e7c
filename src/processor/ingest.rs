//! What has arrived and what has been stored, per hunter and epoch: the memory behind de-duplication and acknowledgement.
//!
//! A batch is written once although it may come several times: after a reconnect the hunter sends again everything that was not
//! acknowledged. Within an epoch a hunter's own stream brings batches in order; but one that goes from one processor below this one to
//! another sends by two ways, and what went the first way may come last. So each batch is remembered by its number, as ranges.
//!
//! | what is said | is | true, since |
//! |---|---|---|
//! | to a hunter (also where it is to resume) | everything up to this number is taken over | it sends in order all that it holds: below the last that it sent here and that is stored, it holds nothing that is not stored |
//! | to a processor below | everything from one number to another is stored | each of them is: its ways up are several, and so are its orders |
//!
//! A gap is no reason to wait, with either: who sends something else now was acknowledged for it elsewhere, or has given it up.
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | ranges of one epoch | 4096 | its lowest gap is closed: what comes for it later is taken for a repetition; counted |
//! | ranges of all beyond one each | 262 144 | half of those of every epoch that has half as many as the one that has most, likewise |
//! | epochs of a hunter; of all | 64; 100 000 | the one untouched for longest goes |
//! | hunters | 10 000 | the same |
//! | batches, or packets, left out before one | 2^44 | on the hunter's own stream it is refused; of one that was passed on nothing is counted as missing |
//! | time without a batch | 7 days of this process | its epoch is not in the next checkpoint, and unknown after a restart |
//!
//! That is 50 MB at most: 300 bytes an epoch, 32 a range, names of 256 bytes. Who goes is found without looking at the others: whoever makes
//! others go with every batch takes no time from those that stay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::batch::{BatchSeq, Epoch, SeqRanges};
use crate::record::state::Acked;
use crate::telemetry::clock::Moment;

/// Ranges of one epoch.
const RANGES: usize = 4096;
/// Of all epochs, beyond one each.
const RANGES_ALL: usize = 1 << 18;
/// Epochs remembered per hunter.
const EPOCHS: usize = 64;
/// Of all hunters.
const EPOCHS_ALL: usize = 100_000;
/// Hunters remembered, connected or not.
const HUNTERS: usize = 10_000;
/// An epoch without a batch for this long is forgotten. By this process's own clock: that of the wall may jump by years.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// Batches, and packets, that a hunter may leave out between two batches of an epoch. An epoch is one capture thread's: at two million
/// packets a second, each in a batch of its own, it takes a hundred days to get there. Nobody can send more; who says so spoils the counters.
pub(super) const LEAP: u64 = 1 << 44;

/// What to do with a batch that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Write it.
    New,
    /// Write it; it comes after later ones, by another way.
    Late,
    /// It was here before.
    Duplicate,
    /// Refuse it: further from the others of its epoch than anybody can get. Nothing has changed.
    Leap,
}

/// Which packets of its epoch a batch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index of the first.
    pub first: u64,
    /// How many.
    pub packets: u64,
}

/// What is stored of an epoch, as its sender is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The first; 0: all that the sender has of it.
    pub from: u64,
    /// The last; 0: nothing.
    pub through: u64,
}

#[derive(Debug)]
struct Marks {
    arrived: SeqRanges,
    /// Of these, what is not stored yet.
    pending: BTreeSet<u64>,
    /// The last that came on a stream of the hunter itself.
    reached: u64,
    /// Of what the hunter has, everything up to here is stored.
    through: u64,
    /// Index of the packet that comes next, once a batch of this process's time has told.
    next_index: Option<u64>,
    touched: Moment,
    /// Its place among those touched.
    turn: u64,
}

impl Marks {
    fn new() -> Self {
        Self {
            arrived: SeqRanges::default(),
            pending: BTreeSet::new(),
            reached: 0,
            through: 0,
            next_index: None,
            touched: Moment::now(),
            turn: 0,
        }
    }

    /// Something arrived or was stored.
    fn settle(&mut self) {
        let from = self.reached.max(self.through);
        let reach = self.arrived.around(from.max(1)).map_or(from, |(_, to)| to);
        let safe = self.pending.first().map_or(reach, |first| reach.min(first.saturating_sub(1)));
        self.through = self.through.max(safe);
    }

    /// The range of stored batches around this one.
    fn stored_around(&self, seq: u64) -> Option<Told> {
        let (from, to) = self.arrived.around(seq).filter(|_| !self.pending.contains(&seq))?;
        let before = self.pending.range(..seq).next_back().map_or(from, |p| from.max(p.saturating_add(1)));
        let after = self.pending.range(seq..).next().map_or(to, |p| to.min(p.saturating_sub(1)));
        Some(Told { from: before, through: after })
    }

    fn stored(&self) -> SeqRanges {
        let mut stored = self.arrived.clone();
        self.pending.iter().for_each(|seq| stored.remove(*seq));
        stored
    }

    fn spare_ranges(&self) -> usize {
        self.arrived.len().saturating_sub(1)
    }
}

#[derive(Debug, Default)]
struct Known {
    epochs: BTreeMap<Epoch, Marks>,
    /// Its place among those touched.
    turn: u64,
}

#[derive(Debug, Default)]
struct State {
    hunters: HashMap<Arc<str>, Known>,
    turn: u64,
    /// All of them, and every epoch, the one untouched for longest first.
    hunters_by_turn: BTreeMap<u64, Arc<str>>,
    epochs_by_turn: BTreeMap<u64, (Arc<str>, Epoch)>,
    /// Ranges beyond one per epoch.
    ranges: usize,
    closed: u64,
}

/// The marks of every hunter.
#[derive(Debug, Default)]
pub struct Ingest {
    state: Mutex<State>,
}

impl Ingest {
    /// With what an earlier run of this processor had stored.
    pub fn restore(acked: &[Acked]) -> Self {
        let this = Self::default();
        let mut state = this.state.lock();
        for a in acked {
            state.change(&a.hunter, Epoch(a.epoch), |marks| {
                for (from, to) in a.ranges().iter() {
                    marks.arrived.insert(from, to);
                }
                marks.reached = marks.reached.max(a.through);
                marks.settle();
            });
        }
        drop(state);
        this
    }

    /// A batch has come, from its hunter or passed on by a processor; what is missing before it is no reason to wait for it. A new one is
    /// passed on by `hand_over`, which learns how many packets are missing and must not wait: two streams of one hunter hand over in the
    /// order of this memory.
    pub fn arrive(
        &self,
        hunter: &str,
        epoch: Epoch,
        seq: BatchSeq,
        span: Span,
        passed_on: bool,
        hand_over: impl FnOnce(u64),
    ) -> Arrival {
        let BatchSeq(seq) = seq;
        self.state.lock().change(hunter, epoch, |marks| {
            // they are numbered from 1
            let known = seq == 0 || marks.arrived.around(seq).is_some();
            let last = marks.arrived.last();
            let late = seq < last;
            let follows = late || seq == last.saturating_add(1);
            let mut missing = marks.next_index.filter(|_| !follows).map_or(0, |next| span.first.saturating_sub(next));
            // where an epoch begins here, nobody knows
            if !known && (missing > LEAP || (last > 0 && last.abs_diff(seq) > LEAP)) {
                if !passed_on {
                    return Arrival::Leap;
                }
                // it is not its sender's fault, and refused it would hold up other hunters
                missing = 0;
            }
            if !passed_on {
                marks.reached = marks.reached.max(seq);
            }
            if known {
                marks.settle();
                return Arrival::Duplicate;
            }
            if !late {
                marks.next_index = Some(span.first.saturating_add(span.packets));
            }
            marks.pending.insert(seq);
            marks.arrived.insert(seq, seq);
            hand_over(missing);
            if late { Arrival::Late } else { Arrival::New }
        })
    }

    /// A batch is in every file it belongs to.
    pub fn store(&self, hunter: &str, epoch: Epoch, seq: BatchSeq) {
        self.state.lock().change(hunter, epoch, |marks| {
            marks.pending.remove(&seq.0);
            // it may have been forgotten meanwhile
            marks.arrived.insert(seq.0, seq.0);
            marks.settle();
        });
    }

    /// Of what the hunter has, everything up to here is stored.
    pub fn stored(&self, hunter: &str, epoch: Epoch) -> BatchSeq {
        BatchSeq(self.told(hunter, epoch, BatchSeq(0), false).through)
    }

    /// What whoever sent this batch is told: its hunter, or a processor that passed it on. It is stored if that reaches so far.
    pub fn told(&self, hunter: &str, epoch: Epoch, seq: BatchSeq, passed_on: bool) -> Told {
        let state = self.state.lock();
        let marks = state.hunters.get(hunter).and_then(|known| known.epochs.get(&epoch));
        let told = |m: &Marks| if passed_on { m.stored_around(seq.0) } else { Some(Told { from: 0, through: m.through }) };
        marks.and_then(told).unwrap_or_default()
    }

    /// Where a hunter that registers may go on, for the epochs it names.
    pub fn resume_points(&self, hunter: &str, epochs: &[u64]) -> Vec<(Epoch, BatchSeq)> {
        let known = |e: &Epoch| self.stored(hunter, *e);
        epochs.iter().map(|e| Epoch(*e)).map(|e| (e, known(&e))).filter(|(_, seq)| seq.0 > 0).collect()
    }

    /// What is stored. What was accepted and is not stored yet is left out: after a restart it is sent again.
    pub fn snapshot(&self) -> Vec<Acked> {
        let state = self.state.lock();
        let each = state.hunters.iter().flat_map(|(h, known)| known.epochs.iter().map(move |(e, m)| (h, e, m)));
        let young = each.filter(|(_, _, m)| m.touched.elapsed() < KEPT);
        let mut all: Vec<Acked> = young
            .map(|(h, e, m)| Acked { hunter: h.to_string(), epoch: e.0, through: m.through, stored: Some(m.stored()) })
            .collect();
        all.sort_by(|a, b| (&a.hunter, a.epoch).cmp(&(&b.hunter, b.epoch)));
        all
    }

    /// Batches that never came and would not be believed any more: their gaps were closed for want of room.
    pub fn closed(&self) -> u64 {
        self.state.lock().closed
    }
}

impl State {
    /// Changes the marks of an epoch, within the bounds.
    fn change<T>(&mut self, hunter: &str, epoch: Epoch, change: impl FnOnce(&mut Marks) -> T) -> T {
        self.make_room(hunter, epoch);
        self.touch(hunter, epoch);
        let Some(marks) = self.hunters.get_mut(hunter).and_then(|known| known.epochs.get_mut(&epoch)) else {
            debug_assert!(false, "what is touched is there");
            return change(&mut Marks::new());
        };
        let ranges = marks.spare_ranges();
        let changed = change(marks);
        while marks.arrived.len() > RANGES {
            self.closed = self.closed.saturating_add(marks.arrived.close_first_gap());
        }
        self.ranges = self.ranges.saturating_sub(ranges).saturating_add(marks.spare_ranges());
        if self.ranges > RANGES_ALL {
            self.close_gaps();
        }
        changed
    }

    /// Puts an epoch and its hunter behind all others, anew if they are new.
    fn touch(&mut self, hunter: &str, epoch: Epoch) {
        self.turn = self.turn.wrapping_add(1);
        let known = self.hunters.get_key_value(hunter).map(|(id, known)| (Arc::clone(id), known.turn));
        let (id, before) = known.unwrap_or_else(|| (Arc::from(hunter), 0));
        self.hunters_by_turn.remove(&before);
        self.hunters_by_turn.insert(self.turn, Arc::clone(&id));
        let known = self.hunters.entry(Arc::clone(&id)).or_default();
        known.turn = self.turn;
        let marks = known.epochs.entry(epoch).or_insert_with(Marks::new);
        marks.touched = Moment::now();
        let before = std::mem::replace(&mut marks.turn, self.turn);
        self.epochs_by_turn.remove(&before);
        self.epochs_by_turn.insert(self.turn, (id, epoch));
    }

    /// Forgets somebody, if this epoch is one too many.
    fn make_room(&mut self, hunter: &str, epoch: Epoch) {
        let known = self.hunters.get(hunter);
        if known.is_some_and(|k| k.epochs.contains_key(&epoch)) {
            return;
        }
        if let Some(known) = known.filter(|k| k.epochs.len() >= EPOCHS) {
            let idle = known.epochs.iter().min_by_key(|(_, m)| m.turn).map(|(e, _)| *e);
            if let Some(idle) = idle {
                self.forget_epoch(hunter, idle);
            }
        } else if known.is_none() && self.hunters.len() >= HUNTERS {
            let idle = self.hunters_by_turn.pop_first();
            let gone = idle.and_then(|(_, id)| self.hunters.remove(&id)).unwrap_or_default();
            for marks in gone.epochs.into_values() {
                self.note_gone(&marks);
            }
        }
        if self.epochs_by_turn.len() >= EPOCHS_ALL
            && let Some((_, (hunter, epoch))) = self.epochs_by_turn.pop_first()
        {
            self.forget_epoch(&hunter, epoch);
            if let Some(known) = self.hunters.get(&hunter).filter(|k| k.epochs.is_empty()) {
                self.hunters_by_turn.remove(&known.turn);
                self.hunters.remove(&hunter);
            }
        }
    }

    fn forget_epoch(&mut self, hunter: &str, epoch: Epoch) {
        if let Some(marks) = self.hunters.get_mut(hunter).and_then(|known| known.epochs.remove(&epoch)) {
            self.note_gone(&marks);
        }
    }

    fn note_gone(&mut self, marks: &Marks) {
        self.ranges = self.ranges.saturating_sub(marks.spare_ranges());
        self.epochs_by_turn.remove(&marks.turn);
    }

    /// Closes the lower half of the gaps of the epoch that has most, and of those that have half as many: it looks at all, and makes room for long.
    fn close_gaps(&mut self) {
        let all = self.hunters.values_mut().flat_map(|known| known.epochs.values_mut());
        let many: Vec<&mut Marks> = all.filter(|m| m.spare_ranges() > 0).collect();
        let most = many.iter().map(|m| m.spare_ranges()).max().unwrap_or(0);
        for marks in many.into_iter().filter(|m| m.spare_ranges() >= most.div_ceil(2)) {
            let half = marks.spare_ranges().div_ceil(2);
            for _ in 0..half {
                self.closed = self.closed.saturating_add(marks.arrived.close_first_gap());
            }
            self.ranges = self.ranges.saturating_sub(half);
        }
    }
}

#[cfg(test)]
mod tests;
