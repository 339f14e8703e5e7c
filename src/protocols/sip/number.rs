//! Telephone numbers as URIs write them (RFC 3966 §3).

use std::fmt;

use crate::protocols::text::{Short, hex, is_lws};

/// Longest number kept. E.164 ends at 15 digits; local numbers with service codes may be longer.
const MAX_DIGITS: usize = 32;

/// A telephone number without visual separators; a leading `+` is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number(Short<MAX_DIGITS>);

impl Number {
    /// Reads digits, `*`, `#` and the letters A–D; skips `-`, `.`, `(`, `)` and white space, also when they are escaped. `None` for anything
    /// else, for no digit at all, and for more than 32.
    pub fn read(written: &[u8]) -> Option<Self> {
        let mut kept = Short::EMPTY;
        let mut digits = 0_u8;
        let mut rest = written;
        while let Some((b, after)) = rest.split_first() {
            rest = after;
            let b = match (*b, after) {
                (b'%', [high, low, tail @ ..]) => {
                    rest = tail;
                    hex(*high)?.wrapping_shl(4) | hex(*low)?
                }
                (b, _) => b,
            };
            match b {
                b'-' | b'.' | b'(' | b')' => continue,
                b if is_lws(b) => continue,
                b'+' if kept.is_empty() => {}
                b'0'..=b'9' => digits = digits.saturating_add(1),
                b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd' => {}
                _ => return None,
            }
            if !kept.push(b.to_ascii_uppercase()) {
                return None;
            }
        }
        (digits > 0).then_some(Self(kept))
    }

    /// The number: an optional `+`, then digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visual_separators_are_taken_out() {
        let read = |text: &str| Number::read(text.as_bytes()).map(|n| n.as_str().to_owned());

        assert_eq!(read("+49 (30) 123-45.67").as_deref(), Some("+49301234567"));
        assert_eq!(read("%2B49%2030").as_deref(), Some("+4930"));
        assert_eq!(read("*21#").as_deref(), Some("*21#"));
        for bad in ["", "+", "alice", "1+2", "12x", "#*", "%2", "123456789012345678901234567890123"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
