//! When each hunter's kernel or interfaces lost packets: any call alive then may miss some. Kept by time, since a hunter's word of a loss may come
//! before the packets of the calls it touched: those may still wait on its disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::packet::Timestamp;
use crate::record::json::{self, Hole};

/// Windows remembered per hunter; of more, the two that are closest become one.
const WINDOWS: usize = 64;
/// Hunters remembered; the one whose last loss is oldest goes.
const HUNTERS: usize = 1000;
/// A call whose first packet comes this long after a loss may have begun in it: a request is sent again after half a second, one and two.
const BEGAN_BEFORE: Duration = Duration::from_secs(2);

/// A time in which packets were lost, by the hunter's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// `kernel_dropped`, `interface_dropped`.
    pub reason: &'static str,
    /// Since when; none: since the hunter began.
    pub from: Option<Timestamp>,
    /// Until when.
    pub until: Timestamp,
    /// How many.
    pub packets: u64,
}

impl Loss {
    /// Whether it can touch what was alive from `first` to `last`.
    fn meets(&self, first: Timestamp, last: Timestamp) -> bool {
        first <= self.until.saturating_add(BEGAN_BEFORE) && self.from.is_none_or(|from| from <= last)
    }

    fn hole(&self, hunter: &str) -> Hole {
        Hole {
            reason: self.reason.to_owned(),
            from: self.from.map(json::time),
            until: Some(json::time(self.until)),
            packets: Some(self.packets),
            hunter: hunter.to_owned(),
        }
    }

    /// Takes in a later one of the same reason.
    fn join(&mut self, later: &Self) {
        self.until = self.until.max(later.until);
        self.packets = self.packets.saturating_add(later.packets);
    }

    fn follows(&self, earlier: &Self) -> bool {
        self.reason == earlier.reason && self.from.is_some_and(|from| from <= earlier.until)
    }
}

/// The losses of all hunters.
#[derive(Debug, Default)]
pub(super) struct Losses {
    by_hunter: HashMap<Arc<str>, Vec<Loss>, RandomState>,
}

impl Losses {
    /// Notes one; those of a hunter come in order.
    pub(super) fn note(&mut self, hunter: &Arc<str>, loss: Loss) {
        if !self.by_hunter.contains_key(hunter) && self.by_hunter.len() >= HUNTERS {
            let last = |all: &[Loss]| all.last().map(|l| l.until);
            let idle = self.by_hunter.iter().min_by_key(|(_, all)| last(all)).map(|(h, _)| Arc::clone(h));
            idle.and_then(|h| self.by_hunter.remove(&h));
        }
        let all = self.by_hunter.entry(Arc::clone(hunter)).or_default();
        match all.iter_mut().rev().find(|l| l.reason == loss.reason) {
            Some(earlier) if loss.follows(earlier) => earlier.join(&loss),
            _ => all.push(loss),
        }
        if all.len() > WINDOWS {
            merge_closest(all);
        }
    }

    /// Whether this hunter has lost any.
    pub(super) fn has(&self, hunter: &str) -> bool {
        self.by_hunter.contains_key(hunter)
    }

    /// What a call of this hunter may miss that was alive from `first` to `last`.
    pub(super) fn holes(&self, hunter: &str, first: Timestamp, last: Timestamp) -> impl Iterator<Item = Hole> {
        let all = self.by_hunter.get(hunter).into_iter().flatten();
        all.filter(move |loss| loss.meets(first, last)).map(move |loss| loss.hole(hunter))
    }
}

/// Makes one of the two windows of one reason that lie closest together.
fn merge_closest(all: &mut Vec<Loss>) {
    let gap = |a: &Loss, b: &Loss| b.from.map_or(Duration::ZERO, |from| from.since(a.until));
    let next_of = |n: usize, a: &Loss| all.iter().enumerate().skip(n.saturating_add(1)).find(|(_, b)| b.reason == a.reason);
    let pairs = all.iter().enumerate().filter_map(|(n, a)| next_of(n, a).map(|(m, b)| (gap(a, b), n, m)));
    let Some((_, n, m)) = pairs.min() else { return };
    let later = all.remove(m);
    all.get_mut(n).into_iter().for_each(|a| a.join(&later));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    fn loss(from: i64, until: i64, packets: u64) -> Loss {
        Loss { reason: "kernel_dropped", from: Some(at(from)), until: at(until), packets }
    }

    fn seen(losses: &Losses, first: i64, last: i64) -> Vec<u64> {
        losses.holes("edge", at(first), at(last)).map(|h| h.packets.unwrap()).collect()
    }

    #[test]
    fn a_loss_touches_what_was_alive_in_it_or_began_right_after() {
        let mut losses = Losses::default();
        let edge: Arc<str> = "edge".into();
        losses.note(&edge, loss(100, 101, 7));

        assert_eq!([seen(&losses, 0, 99), seen(&losses, 104, 200)], [[0; 0]; 2], "over before, begun later");
        for (first, last) in [(0, 100), (0, 1000), (100, 101), (101, 110), (103, 110)] {
            assert_eq!(seen(&losses, first, last), [7], "{first} to {last}");
        }
        assert_eq!(losses.holes("other", at(0), at(1000)).count(), 0);
    }

    #[test]
    fn losses_without_a_pause_are_one_and_another_reason_is_another() {
        let mut losses = Losses::default();
        let edge: Arc<str> = "edge".into();
        losses.note(&edge, loss(100, 101, 7));
        losses.note(&edge, Loss { reason: "interface_dropped", from: Some(at(100)), until: at(101), packets: 2 });
        losses.note(&edge, loss(101, 102, 1));
        losses.note(&edge, loss(110, 111, 3));

        let all: Vec<_> = losses.holes("edge", at(0), at(999)).map(|h| (h.reason, h.packets)).collect();
        let expected = [("kernel_dropped", Some(8)), ("interface_dropped", Some(2)), ("kernel_dropped", Some(3))];
        assert_eq!(all, expected.map(|(r, n)| (r.to_owned(), n)));
    }

    #[test]
    fn many_losses_lose_precision_and_no_packet() {
        let mut losses = Losses::default();
        let edge: Arc<str> = "edge".into();
        for n in 0..1000 {
            losses.note(&edge, loss(n * 10, n * 10 + 1, 1));
        }
        for n in 0..2000 {
            losses.note(&Arc::from(format!("h{n}")), loss(20_000 + n, 20_001 + n, 1));
        }

        let all = seen(&losses, 0, 99_999);
        assert_eq!(losses.by_hunter.len(), HUNTERS);
        assert!(all.is_empty(), "the one whose last loss is oldest went");
        let mut losses = Losses::default();
        for n in 0..1000 {
            losses.note(&edge, loss(n * 10, n * 10 + 1, 1));
        }
        let all = seen(&losses, 0, 99_999);
        assert_eq!((all.len(), all.iter().sum::<u64>()), (WINDOWS, 1000));
    }
}
