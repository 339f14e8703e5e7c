//! A bounds-checked place inside a frame.
//!
//! Promises: never reads past what a length field of an outer layer allows, and never panics. Refuses by `None`.

use super::headers::Span;

/// Where the next header begins, and where the enclosing layer ends.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The frame, cut at the end of the innermost length seen.
    data: &'a [u8],
    /// Never greater than `data.len()`.
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    #[inline]
    pub(super) const fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.rest().first_chunk()
    }

    #[inline]
    pub(super) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let taken = self.rest().first_chunk()?;
        self.at += N;
        Some(taken)
    }

    /// Moves on by `n` bytes; stays and answers `None` when the layer has fewer.
    #[inline]
    pub(super) fn skip(&mut self, n: usize) -> Option<()> {
        if n > self.remaining() {
            return None;
        }
        self.at += n;
        Some(())
    }

    /// Ends the layer `len` bytes from here, if it does not end before.
    #[inline]
    pub(super) fn cut(&mut self, len: usize) {
        let end = self.at.saturating_add(len);
        if let Some(shorter) = self.data.get(..end) {
            self.data = shorter;
        }
    }

    /// From here to the end of the layer.
    #[inline]
    pub(super) fn span(&self) -> Span {
        Span::new(self.at, self.data.len())
    }

    /// The empty span at the end of the layer.
    #[inline]
    pub(super) fn empty(&self) -> Span {
        Span::new(self.data.len(), self.data.len())
    }
}
