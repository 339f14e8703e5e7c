//! What has arrived and what has been stored, per hunter and epoch: the memory behind de-duplication and acknowledgement.
//!
//! A batch is written once although it may come several times: after a reconnect the hunter sends again everything that was not
//! acknowledged. Within an epoch batches come in order, so one high-water mark for what has arrived and one for what is stored say all.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::batch::{BatchSeq, Epoch};
use crate::record::state::Acked;

/// Epochs remembered per hunter; the one untouched for longest goes (reliability limits).
const EPOCHS: usize = 64;
/// Hunters remembered, connected or not.
const HUNTERS: usize = 10_000;

/// What to do with a batch that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Write it.
    New,
    /// It was here before.
    Duplicate,
}

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    arrived: u64,
    stored: u64,
    /// Index of the packet that comes next, once a batch of this process's time has told.
    next_index: Option<u64>,
    touched: u64,
}

/// Which packets of its epoch a batch holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index of the first.
    pub first: u64,
    /// How many.
    pub packets: u64,
}

#[derive(Debug, Default)]
struct State {
    hunters: HashMap<String, BTreeMap<Epoch, Marks>>,
    clock: u64,
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
        for a in acked {
            let mut state = this.state.lock();
            let marks = marks(&mut state, &a.hunter, Epoch(a.epoch));
            marks.arrived = a.through;
            marks.stored = a.through;
        }
        this
    }

    /// A batch has come; what is missing before it is no reason to wait for it. A new one is passed on by `hand_over`, which learns how many
    /// packets are missing and must not wait: two streams of one hunter hand over in the order of this memory.
    pub fn arrive(&self, hunter: &str, epoch: Epoch, seq: BatchSeq, span: Span, hand_over: impl FnOnce(u64)) -> Arrival {
        let mut state = self.state.lock();
        let marks = marks(&mut state, hunter, epoch);
        if seq.0 <= marks.arrived {
            return Arrival::Duplicate;
        }
        let follows = seq.0 == marks.arrived.saturating_add(1);
        let missing = marks.next_index.filter(|_| !follows).map_or(0, |next| span.first.saturating_sub(next));
        marks.arrived = seq.0;
        marks.next_index = Some(span.first.saturating_add(span.packets));
        hand_over(missing);
        Arrival::New
    }

    /// A batch is in every file it belongs to.
    pub fn store(&self, hunter: &str, epoch: Epoch, seq: BatchSeq) {
        let mut state = self.state.lock();
        let marks = marks(&mut state, hunter, epoch);
        marks.stored = marks.stored.max(seq.0);
    }

    /// Everything up to here is stored.
    pub fn stored(&self, hunter: &str, epoch: Epoch) -> BatchSeq {
        let state = self.state.lock();
        BatchSeq(state.hunters.get(hunter).and_then(|e| e.get(&epoch)).map_or(0, |m| m.stored))
    }

    /// Where a hunter that registers may go on, for the epochs it names.
    pub fn resume_points(&self, hunter: &str, epochs: &[u64]) -> Vec<(Epoch, BatchSeq)> {
        let known = |e: &Epoch| self.stored(hunter, *e);
        epochs.iter().map(|e| Epoch(*e)).map(|e| (e, known(&e))).filter(|(_, seq)| seq.0 > 0).collect()
    }

    /// What was accepted but not yet stored is forgotten: it will be sent again (the record branch was restarted).
    pub fn snapshot(&self) -> Vec<Acked> {
        let state = self.state.lock();
        let mut all: Vec<Acked> = state
            .hunters
            .iter()
            .flat_map(|(h, epochs)| {
                epochs.iter().map(|(e, m)| Acked { hunter: h.clone(), epoch: e.0, through: m.stored, beyond: Vec::new() })
            })
            .collect();
        all.sort_by(|a, b| (&a.hunter, a.epoch).cmp(&(&b.hunter, b.epoch)));
        all
    }
}

fn marks<'s>(state: &'s mut State, hunter: &str, epoch: Epoch) -> &'s mut Marks {
    state.clock = state.clock.wrapping_add(1);
    let now = state.clock;
    if !state.hunters.contains_key(hunter) && state.hunters.len() >= HUNTERS {
        let idle = state.hunters.iter().min_by_key(|(_, e)| e.values().map(|m| m.touched).max()).map(|(h, _)| h.clone());
        if let Some(h) = idle {
            state.hunters.remove(&h);
        }
    }
    let epochs = state.hunters.entry(hunter.to_owned()).or_default();
    if !epochs.contains_key(&epoch)
        && epochs.len() >= EPOCHS
        && let Some(old) = epochs.iter().min_by_key(|(_, m)| m.touched).map(|(e, _)| *e)
    {
        epochs.remove(&old);
    }
    let marks = epochs.entry(epoch).or_default();
    marks.touched = now;
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_sent_again_is_recognised_even_before_it_is_stored() {
        let i = Ingest::default();

        assert_eq!(i.arrive("h", Epoch(1), BatchSeq(1), Span::default(), |_| {}), Arrival::New);
        assert_eq!(i.arrive("h", Epoch(1), BatchSeq(1), Span::default(), |_| {}), Arrival::Duplicate);
        assert_eq!(i.stored("h", Epoch(1)), BatchSeq(0));
        i.store("h", Epoch(1), BatchSeq(1));
        assert_eq!(i.stored("h", Epoch(1)), BatchSeq(1));
    }

    #[test]
    fn epochs_and_hunters_do_not_mix() {
        let i = Ingest::default();
        i.arrive("a", Epoch(1), BatchSeq(5), Span::default(), |_| {});

        assert_eq!(i.arrive("a", Epoch(2), BatchSeq(5), Span::default(), |_| {}), Arrival::New);
        assert_eq!(i.arrive("b", Epoch(1), BatchSeq(5), Span::default(), |_| {}), Arrival::New);
    }

    #[test]
    fn a_restart_goes_on_where_it_stopped() {
        let i = Ingest::default();
        i.arrive("a", Epoch(1), BatchSeq(7), Span::default(), |_| {});
        i.store("a", Epoch(1), BatchSeq(7));
        i.arrive("a", Epoch(1), BatchSeq(8), Span::default(), |_| {});

        let again = Ingest::restore(&i.snapshot());

        assert_eq!(again.arrive("a", Epoch(1), BatchSeq(7), Span::default(), |_| {}), Arrival::Duplicate);
        assert_eq!(again.arrive("a", Epoch(1), BatchSeq(8), Span::default(), |_| {}), Arrival::New);
        assert_eq!(again.resume_points("a", &[1, 9]), [(Epoch(1), BatchSeq(7))]);
    }

    #[test]
    fn packets_missing_before_a_batch_are_told_once() {
        let i = Ingest::default();
        let mut told = Vec::new();
        for (seq, first) in [(5, 100), (6, 110), (9, 150), (9, 150), (10, 160), (4, 0), (u64::MAX, u64::MAX)] {
            i.arrive("a", Epoch(1), BatchSeq(seq), Span { first, packets: 10 }, |missing| told.push(missing));
        }

        assert_eq!(told, [0, 0, 30, 0, u64::MAX - 170]);
    }

    #[test]
    fn the_number_of_epochs_is_bounded() {
        let i = Ingest::default();
        for e in 0..1000 {
            i.arrive("a", Epoch(e), BatchSeq(1), Span::default(), |_| {});
        }

        assert_eq!(i.snapshot().len(), EPOCHS);
    }
}
