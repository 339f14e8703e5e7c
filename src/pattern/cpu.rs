//! The processor-core matcher: hash tables for what has fixed ends, an automaton for what has not.
//!
//! Promises: exact patterns cost one probe whatever their number; prefixes, suffixes and both-ends patterns cost one
//! probe per distinct pair of lengths, of which there are at most [`MAX_AFFIX_SHAPES`]; the automaton runs only when
//! patterns of the `*x*` kind exist. Hashes are keyed at random per process, so nobody outside can choose collisions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;

use ahash::RandomState;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use smallvec::SmallVec;
use thiserror::Error;

use super::{Folded, INLINE_TEXT, Matcher, Pattern, PatternId};

/// Most patterns of one set: the number the product promises.
pub const MAX_PATTERNS: usize = 100_000;

/// Most distinct (head length, tail length) pairs of one set. Each costs one probe per look-up, so this bounds the
/// look-up; real lists have a handful.
pub const MAX_AFFIX_SHAPES: usize = 64;

/// Most bytes of all `*x*` patterns of one set together; the automaton is built in memory proportional to them.
pub const MAX_CONTAINS_BYTES: usize = 4 << 20;

/// Most bytes the finished automaton may take.
pub const MAX_AUTOMATON_BYTES: usize = 256 << 20;

/// Most automaton hits looked at in one text. Patterns contained in each other (`a`, `aa`, `aaa` …) could otherwise
/// make a look-up quadratic.
pub const MAX_CONTAINS_STEPS: usize = 4096;

/// Why a pattern was not taken into a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// Over [`MAX_PATTERNS`].
    #[error("more than {MAX_PATTERNS} patterns of one kind")]
    TooMany,
    /// Over [`MAX_AFFIX_SHAPES`].
    #[error("more than {MAX_AFFIX_SHAPES} different prefix and suffix lengths")]
    TooManyShapes,
    /// Over [`MAX_CONTAINS_BYTES`].
    #[error("the patterns of the form *x* have more than {MAX_CONTAINS_BYTES} bytes together")]
    ContainsTooLarge,
    /// Over [`MAX_AUTOMATON_BYTES`], or refused by the automaton itself.
    #[error("the patterns of the form *x* need more than {MAX_AUTOMATON_BYTES} bytes of memory")]
    AutomatonTooLarge,
}

/// The ids of one distinct pattern, ascending; nearly always one.
type Ids = SmallVec<[PatternId; 2]>;
type Table = HashMap<Box<[u8]>, Ids, RandomState>;

/// Patterns of one (head length, tail length); the key is head and tail in a row.
#[derive(Debug)]
struct Affix {
    head: usize,
    tail: usize,
    table: Table,
}

/// The `*x*` patterns.
#[derive(Debug)]
struct Contains {
    automaton: AhoCorasick,
    /// By automaton pattern number.
    ids: Vec<Ids>,
}

/// Collects patterns, then builds a [`PatternSet`].
#[derive(Debug, Default)]
pub struct PatternSetBuilder {
    ignore_case: bool,
    len: usize,
    any: Ids,
    exact: Table,
    affixes: Vec<Affix>,
    contains: Table,
    contains_bytes: usize,
}

impl PatternSetBuilder {
    /// A builder of a set that compares bytes as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder of a set that takes ASCII letters of either case for the same.
    pub fn ignoring_case() -> Self {
        Self { ignore_case: true, ..Self::default() }
    }

    /// Adds one pattern under `id`. The same pattern may be added under many ids.
    ///
    /// # Errors
    /// [`SetError`] when a bound of the set is reached; the set stays as it was.
    pub fn add(&mut self, pattern: &Pattern, id: PatternId) -> Result<(), SetError> {
        if self.len >= MAX_PATTERNS {
            return Err(SetError::TooMany);
        }
        let folded;
        let pattern = if self.ignore_case {
            folded = pattern.folded();
            &folded
        } else {
            pattern
        };
        match pattern {
            Pattern::Any => insert_id(&mut self.any, id),
            Pattern::Exact(x) => insert(&mut self.exact, x.clone(), id),
            Pattern::Prefix(x) => self.add_affix(x, &[], id)?,
            Pattern::Suffix(x) => self.add_affix(&[], x, id)?,
            Pattern::Ends(head, tail) => self.add_affix(head, tail, id)?,
            Pattern::Contains(x) => {
                if !self.contains.contains_key(x) {
                    let bytes = self.contains_bytes.saturating_add(x.len());
                    if bytes > MAX_CONTAINS_BYTES {
                        return Err(SetError::ContainsTooLarge);
                    }
                    self.contains_bytes = bytes;
                }
                insert(&mut self.contains, x.clone(), id);
            }
        }
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    fn add_affix(&mut self, head: &[u8], tail: &[u8], id: PatternId) -> Result<(), SetError> {
        let key: Box<[u8]> = [head, tail].concat().into();
        if let Some(affix) = self.affixes.iter_mut().find(|a| a.head == head.len() && a.tail == tail.len()) {
            insert(&mut affix.table, key, id);
            return Ok(());
        }
        if self.affixes.len() >= MAX_AFFIX_SHAPES {
            return Err(SetError::TooManyShapes);
        }
        let mut affix = Affix { head: head.len(), tail: tail.len(), table: Table::default() };
        insert(&mut affix.table, key, id);
        self.affixes.push(affix);
        Ok(())
    }

    /// Builds the set.
    ///
    /// When the automaton of the `*x*` patterns does not fit, the set is built without them and their ids come back
    /// beside it, for the caller to report.
    pub fn build(mut self) -> (PatternSet, Vec<(PatternId, SetError)>) {
        self.affixes.sort_by_key(|a| a.head.saturating_add(a.tail));
        let mut refused = Vec::new();
        let contains = match automaton(&self.contains, MAX_AUTOMATON_BYTES) {
            Ok(contains) => contains,
            Err(error) => {
                refused.extend(self.contains.values().flatten().map(|id| (*id, error)));
                refused.sort_unstable_by_key(|(id, _)| *id);
                None
            }
        };
        let set = PatternSet {
            ignore_case: self.ignore_case,
            len: self.len.saturating_sub(refused.len()),
            any: self.any,
            exact: self.exact,
            affixes: self.affixes,
            contains,
        };
        (set, refused)
    }
}

/// Many compiled patterns; immutable.
#[derive(Debug, Default)]
pub struct PatternSet {
    ignore_case: bool,
    len: usize,
    any: Ids,
    exact: Table,
    affixes: Vec<Affix>,
    contains: Option<Contains>,
}

impl PatternSet {
    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many (pattern, id) pairs are held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Most hash probes one look-up can take: the measure of its cost, which does not grow with the number of patterns.
    pub fn probes(&self) -> usize {
        self.affixes.len().saturating_add(usize::from(!self.exact.is_empty()))
    }

    /// Whether a look-up also runs the automaton.
    pub fn has_automaton(&self) -> bool {
        self.contains.is_some()
    }

    /// Calls `found` for the ids of every pattern that `text` satisfies. The ids of one pattern come in ascending order; a
    /// break passes over its remaining ones. Breaks itself when [`MAX_CONTAINS_STEPS`] automaton hits were seen and there
    /// may be more.
    #[inline]
    pub fn find(&self, text: &[u8], found: impl FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.len == 0 {
            return ControlFlow::Continue(());
        }
        if self.ignore_case { self.find_folded(Folded::of(text).as_bytes(), found) } else { self.find_folded(text, found) }
    }

    /// As [`PatternSet::find`], with the bytes of a [`Folded`] text: folded once, asked of several sets.
    #[inline]
    pub fn find_folded(&self, text: &[u8], mut found: impl FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.len == 0 {
            return ControlFlow::Continue(());
        }
        self.look_up(text, &mut found)
    }

    #[inline]
    fn look_up(&self, text: &[u8], found: &mut impl FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()> {
        report(Some(&self.any), found);
        if !self.exact.is_empty() {
            report(self.exact.get(text), found);
        }
        for affix in &self.affixes {
            if affix.head.saturating_add(affix.tail) > text.len() {
                break;
            }
            report(affix.get(text), found);
        }
        self.contains.as_ref().map_or(ControlFlow::Continue(()), |contains| contains.find(text, found))
    }
}

impl Matcher for PatternSet {
    fn find(&self, text: &[u8], found: &mut dyn FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()> {
        Self::find(self, text, found)
    }
}

impl Affix {
    /// The ids whose ends `text`, which is long enough, has.
    #[inline]
    fn get(&self, text: &[u8]) -> Option<&Ids> {
        let head = text.get(..self.head)?;
        let tail = text.get(text.len().checked_sub(self.tail)?..)?;
        if self.tail == 0 {
            self.table.get(head)
        } else if self.head == 0 {
            self.table.get(tail)
        } else {
            let mut key: SmallVec<[u8; INLINE_TEXT]> = SmallVec::from_slice(head);
            key.extend_from_slice(tail);
            self.table.get(key.as_slice())
        }
    }
}

impl Contains {
    fn find(&self, text: &[u8], found: &mut impl FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()> {
        let Ok(hits) = self.automaton.try_find_overlapping_iter(text) else { return ControlFlow::Continue(()) };
        for (step, hit) in hits.enumerate() {
            if step >= MAX_CONTAINS_STEPS {
                return ControlFlow::Break(());
            }
            report(self.ids.get(hit.pattern().as_usize()), found);
        }
        ControlFlow::Continue(())
    }
}

#[inline]
fn report(ids: Option<&Ids>, found: &mut impl FnMut(PatternId) -> ControlFlow<()>) {
    for id in ids.into_iter().flatten() {
        if found(*id).is_break() {
            break;
        }
    }
}

fn insert(table: &mut Table, key: Box<[u8]>, id: PatternId) {
    match table.entry(key) {
        Entry::Occupied(mut ids) => insert_id(ids.get_mut(), id),
        Entry::Vacant(slot) => {
            slot.insert(SmallVec::from_slice(&[id]));
        }
    }
}

/// Keeps `ids` ascending and free of doubles; ids that come in ascending order, as they do, cost nothing.
fn insert_id(ids: &mut Ids, id: PatternId) {
    if ids.last().is_none_or(|last| *last < id) {
        ids.push(id);
    } else if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

/// Of at most `max_bytes` when it is finished; while it is built it takes a few times as much, in proportion to the patterns' bytes, which are
/// bounded before ([`MAX_CONTAINS_BYTES`]).
fn automaton(patterns: &Table, max_bytes: usize) -> Result<Option<Contains>, SetError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut sorted: Vec<(&[u8], &Ids)> = patterns.iter().map(|(text, ids)| (&**text, ids)).collect();
    sorted.sort_unstable();
    let automaton = AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(sorted.iter().map(|(text, _)| *text))
        .map_err(|_| SetError::AutomatonTooLarge)?;
    if automaton.memory_usage() > max_bytes {
        return Err(SetError::AutomatonTooLarge);
    }
    Ok(Some(Contains { automaton, ids: sorted.into_iter().map(|(_, ids)| ids.clone()).collect() }))
}

#[cfg(test)]
mod tests;
