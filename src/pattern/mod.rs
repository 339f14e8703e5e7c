//! Multi-pattern search over short, already extracted texts (a user part, a Call-ID, a number).
//!
//! Promises: a look-up costs the same with ten patterns as with a hundred thousand, allocates nothing for texts of at
//! most [`INLINE_TEXT`] bytes, and never takes more than linear time in the text. Every pattern that cannot be held
//! within the bounds is refused by name, never dropped in silence.
//!
//! Refuses: whole packets and media payloads. A matcher sees extracted fields only; see `performance.md` for what it
//! costs to do otherwise.
//!
//! ```text
//! Pattern::parse ──▶ PatternSetBuilder::add(pattern, id) ──▶ PatternSet
//!                                                              exact     one hash probe
//!                                                              affixes   one hash probe per distinct (head, tail) length
//!                                                              contains  Aho-Corasick, only when such patterns exist
//! ```

mod cpu;
mod nearest;
mod syntax;

use std::ops::ControlFlow;

pub use cpu::{
    MAX_AFFIX_SHAPES, MAX_AUTOMATON_BYTES, MAX_CONTAINS_BYTES, MAX_CONTAINS_STEPS, MAX_PATTERNS, PatternSet, PatternSetBuilder,
    SetError,
};
pub use nearest::{edits, nearest};
pub use syntax::{Bare, MAX_PATTERN_BYTES, Pattern, PatternError};

/// Texts of up to this many bytes are folded without touching the heap. SIP user parts and URIs are shorter by far.
pub const INLINE_TEXT: usize = 128;

/// Whatever the owner of a [`PatternSet`] wants to find again: a small number of its own choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternId(pub u32);

/// Finds which of many patterns a text satisfies.
///
/// The burst form exists because a device pays once per launch; a processor core gains nothing from it.
pub trait Matcher: Send + Sync {
    /// Calls `found` for the ids of every pattern that `text` satisfies, a pattern possibly more than once. The ids of one
    /// pattern come in ascending order; when `found` breaks, its remaining ones are passed over. Breaks itself when a
    /// bound ended the search before its end.
    fn find(&self, text: &[u8], found: &mut dyn FnMut(PatternId) -> ControlFlow<()>) -> ControlFlow<()>;

    /// Appends (index of the text, pattern) for every pattern that a text of the burst satisfies. Breaks when a bound
    /// ended the search in any of them; the others are searched all the same.
    fn find_burst(&self, texts: &[&[u8]], hits: &mut Vec<(usize, PatternId)>) -> ControlFlow<()> {
        let mut whole = ControlFlow::Continue(());
        for (index, text) in texts.iter().enumerate() {
            let one = self.find(text, &mut |id| {
                hits.push((index, id));
                ControlFlow::Continue(())
            });
            if one.is_break() {
                whole = one;
            }
        }
        whole
    }
}

/// A text whose ASCII letters are lower case: what a case-insensitive [`PatternSet`] is asked with.
#[derive(Clone, Debug)]
pub struct Folded {
    inline: [u8; INLINE_TEXT],
    len: usize,
    /// The whole text, once it is longer than `inline`.
    heap: Vec<u8>,
}

impl Default for Folded {
    fn default() -> Self {
        Self::new()
    }
}

impl Folded {
    /// An empty text.
    #[inline]
    pub const fn new() -> Self {
        Self { inline: [0; INLINE_TEXT], len: 0, heap: Vec::new() }
    }

    /// The lower-case copy of `text`.
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        let mut folded = Self::new();
        folded.push(text);
        folded
    }

    /// Appends the lower-case copy of `text`.
    #[inline]
    pub fn push(&mut self, text: &[u8]) {
        let end = self.len.saturating_add(text.len());
        match self.inline.get_mut(self.len..end) {
            Some(free) if self.heap.is_empty() => copy_lower_case(text, free),
            _ => self.push_on_heap(text),
        }
        self.len = end;
    }

    #[cold]
    fn push_on_heap(&mut self, text: &[u8]) {
        if self.heap.is_empty() {
            self.heap.extend_from_slice(self.inline.get(..self.len).unwrap_or_default());
        }
        self.heap.extend(text.iter().map(u8::to_ascii_lowercase));
    }

    /// The folded bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        if self.heap.is_empty() { self.inline.get(..self.len).unwrap_or_default() } else { &self.heap }
    }
}

/// Eight letters at a time: texts are too short for the vector loop of the library. Both slices are of one length.
#[inline]
fn copy_lower_case(from: &[u8], to: &mut [u8]) {
    let (words, rest) = from.as_chunks::<8>();
    let (to_words, to_rest) = to.as_chunks_mut::<8>();
    for (word, to) in words.iter().zip(to_words) {
        *to = lower_case(u64::from_ne_bytes(*word)).to_ne_bytes();
    }
    for (byte, to) in rest.iter().zip(to_rest) {
        *to = byte.to_ascii_lowercase();
    }
}

/// Eight bytes with their ASCII capitals in lower case.
#[inline]
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES * 0x80;
    // Per byte, without carries between them: the high bit says "at least A", "beyond Z", "not ASCII".
    let low = word & !HIGH;
    let from_a = low.wrapping_add(ONES * (0x80 - b'A' as u64));
    let beyond_z = low.wrapping_add(ONES * (0x7f - b'Z' as u64));
    let capital = (from_a ^ beyond_z) & !word & HIGH;
    // 0x80 >> 2 is 0x20, the bit that makes a capital small.
    word | (capital >> 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_is_folded_as_ascii_says() {
        for byte in 0..=u8::MAX {
            for at in 0..9 {
                let mut text = [b'A'; 9];
                text[at] = byte;
                assert_eq!(Folded::of(&text).as_bytes(), text.to_ascii_lowercase());
            }
        }
    }

    proptest! {
        #[test]
        fn parts_are_folded_as_the_whole(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..5)) {
            let mut folded = Folded::new();
            for part in &parts {
                folded.push(part);
            }
            prop_assert_eq!(folded.as_bytes(), parts.concat().to_ascii_lowercase());
        }
    }
}
