//! Which filters chose a call: a small ascending list without doubles.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::pattern::{PatternId, PatternSet};

/// Most filters recorded as having chosen one call. One is the rule; the bound is there because thousands of filters
/// may mean the same number. The lowest indices stay; [`Hits::is_cut`] says that there were more.
pub const MAX_HITS: usize = 64;

/// The place of an applied filter in its [`super::FilterSet`]; means nothing in another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterIndex(pub u32);

/// Filters that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    ids: SmallVec<[FilterIndex; 4]>,
    cut: bool,
}

impl Hits {
    /// No hits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing matched.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The filters, ascending.
    pub fn as_slice(&self) -> &[FilterIndex] {
        &self.ids
    }

    /// Whether more filters may have matched than [`MAX_HITS`] or a search bound allowed to list.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.cut = false;
    }

    /// Adds one filter; a second time changes nothing.
    pub fn insert(&mut self, index: FilterIndex) {
        let at = if self.ids.last().is_none_or(|last| *last < index) {
            self.ids.len()
        } else if let Err(at) = self.ids.binary_search(&index) {
            at
        } else {
            return;
        };
        if at >= MAX_HITS {
            self.cut = true;
            return;
        }
        if self.ids.len() >= MAX_HITS {
            self.ids.pop();
            self.cut = true;
        }
        self.ids.insert(at, index);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.ids.iter().for_each(|index| self.insert(*index));
        self.cut |= other.cut;
    }

    /// Adds every pattern of `set` that `text` satisfies.
    #[inline]
    pub(super) fn search(&mut self, set: &PatternSet, text: &[u8]) {
        let end = set.find(text, |id| self.take(id));
        self.cut |= end.is_break();
    }

    /// As [`Hits::search`], for a text already folded.
    #[inline]
    pub(super) fn search_folded(&mut self, set: &PatternSet, text: &[u8]) {
        let end = set.find_folded(text, |id| self.take(id));
        self.cut |= end.is_break();
    }

    /// Adds what a pattern set found; breaks when neither it nor anything above it can be kept.
    #[inline]
    pub(super) fn take(&mut self, id: PatternId) -> ControlFlow<()> {
        let index = FilterIndex(id.0);
        if self.ids.len() >= MAX_HITS && self.ids.last().is_some_and(|last| *last < index) {
            self.cut = true;
            return ControlFlow::Break(());
        }
        self.insert(index);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ids: impl IntoIterator<Item = u32>) -> Hits {
        let mut hits = Hits::new();
        ids.into_iter().for_each(|id| hits.insert(FilterIndex(id)));
        hits
    }

    #[test]
    fn hits_are_ascending_and_listed_once() {
        assert_eq!(hits([7, 3, 7, 5, 3]).as_slice(), [FilterIndex(3), FilterIndex(5), FilterIndex(7)]);
    }

    #[test]
    fn the_lowest_stay_and_the_cut_is_told() {
        let many = hits((0..1000).rev());

        assert_eq!(many.as_slice().len(), MAX_HITS);
        assert_eq!(many.as_slice().last(), Some(&FilterIndex(63)));
        assert!(many.is_cut());
        assert!(!hits(0..64).is_cut());
    }
}
