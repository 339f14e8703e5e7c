//! Which sequences of an epoch are there, where they may come in any order.

use std::collections::VecDeque;

/// Sequences, as the ranges without a gap that they form: in order, disjoint, not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct SeqRanges(VecDeque<(u64, u64)>);

impl SeqRanges {
    /// Everything from 1 up to this one; nothing for 0.
    pub fn through(to: u64) -> Self {
        let mut all = Self::default();
        all.insert(1, to);
        all
    }

    /// Adds `from` and everything up to `to`; nothing when `to` is below it.
    pub fn insert(&mut self, from: u64, to: u64) {
        if to < from {
            return;
        }
        let all = &mut self.0;
        // those it touches become one with it
        let first = all.partition_point(|(_, end)| end.saturating_add(1) < from);
        let after = all.partition_point(|(begin, _)| *begin <= to.saturating_add(1));
        let touched = all.drain(first..after.max(first));
        let one = touched.fold((from, to), |(from, to), (begin, end)| (from.min(begin), to.max(end)));
        all.insert(first, one);
    }

    /// Takes one away.
    pub fn remove(&mut self, seq: u64) {
        let at = self.0.partition_point(|(_, end)| *end < seq);
        let Some(range) = self.0.get_mut(at).filter(|r| r.0 <= seq) else { return };
        let (from, to) = *range;
        match (from < seq, seq < to) {
            (true, true) => {
                range.1 = seq.saturating_sub(1);
                self.0.insert(at.saturating_add(1), (seq.saturating_add(1), to));
            }
            (true, false) => range.1 = seq.saturating_sub(1),
            (false, true) => range.0 = seq.saturating_add(1),
            (false, false) => drop(self.0.remove(at)),
        }
    }

    /// The range that has it, first and last.
    pub fn around(&self, seq: u64) -> Option<(u64, u64)> {
        let at = self.0.partition_point(|(_, end)| *end < seq);
        self.0.get(at).copied().filter(|(from, _)| *from <= seq)
    }

    /// The highest; 0 for nothing.
    pub fn last(&self) -> u64 {
        self.0.back().map_or(0, |(_, to)| *to)
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes one of the first two ranges; how many sequences were missing between them.
    pub fn close_first_gap(&mut self) -> u64 {
        let Some((from, end)) = self.0.pop_front() else { return 0 };
        let Some(next) = self.0.front_mut() else {
            self.0.push_front((from, end));
            return 0;
        };
        let missing = next.0.saturating_sub(end).saturating_sub(1);
        next.0 = from;
        missing
    }

    /// Each range, first and last.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }
}

impl From<Vec<(u64, u64)>> for SeqRanges {
    fn from(all: Vec<(u64, u64)>) -> Self {
        let mut ranges = Self::default();
        for (from, to) in all {
            ranges.insert(from, to);
        }
        ranges
    }
}

impl From<SeqRanges> for Vec<(u64, u64)> {
    fn from(ranges: SeqRanges) -> Self {
        ranges.0.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(ranges: &SeqRanges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(from, to)| from..=to).collect()
    }

    proptest! {
        #[test]
        fn is_the_set_of_what_was_put_in_and_not_taken_out(steps in prop::collection::vec((0..5_u8, 0..40_u64, 0..6_u64), 0..60)) {
            let (mut ranges, mut model) = (SeqRanges::default(), BTreeSet::new());
            for (what, from, more) in steps {
                if what == 0 {
                    ranges.remove(from);
                    model.remove(&from);
                } else {
                    ranges.insert(from, from + more);
                    model.extend(from..=from + more);
                }
                prop_assert_eq!(members(&ranges), model.clone());
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", all);
                prop_assert_eq!(ranges.around(from).is_some(), model.contains(&from));
                prop_assert_eq!(ranges.last(), model.last().copied().unwrap_or(0));
            }
            let text = serde_json::to_string(&ranges).unwrap();
            prop_assert_eq!(serde_json::from_str::<SeqRanges>(&text).unwrap(), ranges.clone());
            let (before, gaps) = (members(&ranges), ranges.len().saturating_sub(1));
            let mut closed = 0;
            while ranges.len() > 1 {
                closed += ranges.close_first_gap();
            }
            prop_assert!(gaps == 0 || closed > 0);
            prop_assert_eq!(members(&ranges).len() as u64, before.len() as u64 + closed);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_ends_of_the_program() {
        let mut ranges = SeqRanges::through(0);
        assert!(ranges.is_empty());
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(0, 0);
        ranges.insert(5, 4);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 0), (u64::MAX, u64::MAX)]);
        assert_eq!(ranges.close_first_gap(), u64::MAX - 1);
        ranges.remove(u64::MAX);
        ranges.remove(0);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, u64::MAX - 1)]);
    }
}
