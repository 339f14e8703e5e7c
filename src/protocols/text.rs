//! Small readers for line-based protocols: white space, tokens, decimals, short strings kept inline.
//!
//! Promises: no allocation, no panic, linear time. Refuses: anything that would need to know which protocol it reads.

use std::fmt;

/// The bytes of `range`, or nothing when it reaches outside.
#[inline]
pub fn sub(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    bytes.get(start..end).unwrap_or_default()
}

/// The bytes from `start` on, or nothing.
#[inline]
pub fn from(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

/// The bytes up to `end`, or all of them when there are fewer.
#[inline]
pub fn upto(bytes: &[u8], end: usize) -> &[u8] {
    bytes.get(..end).unwrap_or(bytes)
}

/// Space, tab, CR or LF: what may stand between tokens of a folded header line (RFC 3261 §25.1, `LWS`).
#[inline]
pub const fn is_lws(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without leading and trailing [`is_lws`] bytes.
#[inline]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_lws(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_lws(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Splits at the first `at`; the byte itself belongs to neither half.
#[inline]
pub fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = memchr::memchr(at, bytes)?;
    Some((sub(bytes, 0, i), from(bytes, i.saturating_add(1))))
}

/// Takes the first line off `rest`: without its LF, and without the CR before it. `None` when nothing is left.
#[inline]
pub fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let line = match split_once(rest, b'\n') {
        Some((line, after)) => {
            *rest = after;
            line
        }
        None => std::mem::take(rest),
    };
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Takes the first word off `rest`: words are separated by [`is_lws`] bytes. `None` when only white space is left.
#[inline]
pub fn next_word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut bytes = *rest;
    while let [first, after @ ..] = bytes
        && is_lws(*first)
    {
        bytes = after;
    }
    let end = bytes.iter().position(|b| is_lws(*b)).unwrap_or(bytes.len());
    *rest = from(bytes, end);
    let word = upto(bytes, end);
    (!word.is_empty()).then_some(word)
}

/// A decimal number made of nothing but digits; `None` when it is empty, has another byte, or overflows.
#[inline]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |n, b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The value of one hexadecimal digit.
#[inline]
pub const fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(b.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(b.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0_usize;
    let mut b = 0_u8;
    loop {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time; `i` runs from 0 to 255")]
        {
            table[i] =
                b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        }
        if b == u8::MAX {
            return table;
        }
        b = b.wrapping_add(1);
        i = i.wrapping_add(1);
    }
}

static TOKEN: [bool; 256] = token_table();

/// Whether `b` may stand in a `token` (RFC 3261 §25.1).
#[inline]
pub fn is_token_byte(b: u8) -> bool {
    TOKEN.get(usize::from(b)).copied().unwrap_or(false)
}

/// Whether `bytes` is a non-empty `token` (RFC 3261 §25.1).
#[inline]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| is_token_byte(*b))
}

/// Whether `bytes` begins with `prefix`, ASCII case ignored.
#[inline]
pub fn starts_with_ignore_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}

/// At most `N` (≤ 255) bytes kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Short<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    /// Nothing.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; N] };

    /// Keeps `bytes`, or as many of them as fit.
    pub fn cut(bytes: &[u8]) -> Self {
        let mut kept = Self::EMPTY;
        let len = bytes.len().min(N).min(255);
        if let (Some(to), Some(from)) = (kept.bytes.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
            kept.len = u8::try_from(len).unwrap_or(u8::MAX);
        }
        kept
    }

    /// Keeps `bytes`; `None` when they do not fit.
    pub fn whole(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= N.min(255)).then(|| Self::cut(bytes))
    }

    /// Adds one byte; false when there is no room.
    pub fn push(&mut self, b: u8) -> bool {
        match self.bytes.get_mut(usize::from(self.len)) {
            Some(slot) if self.len < u8::MAX => {
                *slot = b;
                self.len = self.len.saturating_add(1);
                true
            }
            _ => false,
        }
    }

    /// The bytes kept.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        upto(&self.bytes, usize::from(self.len))
    }

    /// The bytes as text; empty when they are not UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Whether nothing is kept.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> fmt::Debug for Short<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_digits_only_and_never_wrap() {
        assert_eq!(decimal(b"0150"), Some(150));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"1 ", b"0x1", b"18446744073709551616", b"36893488147419103232"] {
            assert_eq!(decimal(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn lines_end_at_lf_with_or_without_cr() {
        let mut rest: &[u8] = b"a\r\nb\n\nc";

        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut rest)).collect();

        assert_eq!(lines, [&b"a"[..], b"b", b"", b"c"]);
    }

    #[test]
    fn short_strings_keep_what_fits() {
        assert_eq!(Short::<4>::cut(b"abcdef").as_bytes(), b"abcd");
        assert_eq!(Short::<4>::whole(b"abcde"), None);
        assert_eq!(Short::<4>::whole(b"abcd").unwrap().as_str(), "abcd");
    }

    #[test]
    fn tokens_are_those_of_the_grammar() {
        assert!(is_token(b"!interesting-Method0123456789_*+`.%indeed'~"));
        assert!(!is_token(b""));
        assert!(!is_token(b"a b"));
        assert!(!is_token(b"a\xff"));
        assert!(!is_token(b"a/b"));
    }
}
