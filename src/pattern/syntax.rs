//! How a pattern is written: `x` exact, `x*` prefix, `*x` suffix, `*x*` contains, `a*b` both ends, `*` anything, `\*` a
//! star.
//!
//! Promises: a text either means exactly one thing or is refused with a reason; nothing is guessed.
//!
//! Refuses: more than one star between literal parts (`a*b*c`, `*a*b`), empty patterns, and patterns longer than
//! [`MAX_PATTERN_BYTES`]. A backslash is an ordinary character unless a star follows it.

use thiserror::Error;

/// Longest pattern, in bytes of its written form. Longer than any user, URI or Call-ID seen in practice, short enough
/// that a full set stays within memory.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// What a pattern without any star means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    /// The whole text.
    Exact,
    /// A part of the text: how peers without our extensions mean it for users and URIs.
    Contains,
}

/// A parsed pattern; its literal parts are never empty, except where the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The text equals this.
    Exact(Box<[u8]>),
    /// The text begins with this.
    Prefix(Box<[u8]>),
    /// The text ends with this.
    Suffix(Box<[u8]>),
    /// The text has this anywhere.
    Contains(Box<[u8]>),
    /// The text begins with the first and ends with the second, without the two overlapping.
    Ends(Box<[u8]>, Box<[u8]>),
    /// Every text.
    Any,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing to look for.
    #[error("the pattern is empty")]
    Empty,
    /// Over [`MAX_PATTERN_BYTES`].
    #[error("the pattern has {0} bytes, the limit is {MAX_PATTERN_BYTES}")]
    TooLong(usize),
    /// Stars in places that have no meaning together.
    #[error("a pattern takes one star in the middle (a*b) or stars at its ends (x*, *x, *x*); write \\* for a star itself")]
    Stars,
}

impl Pattern {
    /// Reads a pattern as written; letters keep their case.
    ///
    /// # Errors
    /// [`PatternError`] when the text is empty, too long, or has stars that mean nothing together.
    pub fn parse(text: &str, bare: Bare) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong(text.len()));
        }
        let parts = split_at_stars(text);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        match *parts.as_slice() {
            [whole] => Ok(match bare {
                Bare::Exact => Self::Exact(whole.into()),
                Bare::Contains => Self::Contains(whole.into()),
            }),
            [[], []] => Ok(Self::Any),
            [head, []] => Ok(Self::Prefix(head.into())),
            [[], tail] => Ok(Self::Suffix(tail.into())),
            [head, tail] => Ok(Self::Ends(head.into(), tail.into())),
            [[], middle, []] => Ok(Self::Contains(middle.into())),
            _ => Err(PatternError::Stars),
        }
    }

    /// The same pattern with every literal part passed through `f`; `None` when `f` refuses a part.
    pub fn try_map(&self, mut f: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Self> {
        let mut part = |bytes: &[u8]| f(bytes).map(Vec::into_boxed_slice);
        Some(match self {
            Self::Exact(x) => Self::Exact(part(x)?),
            Self::Prefix(x) => Self::Prefix(part(x)?),
            Self::Suffix(x) => Self::Suffix(part(x)?),
            Self::Contains(x) => Self::Contains(part(x)?),
            Self::Ends(head, tail) => Self::Ends(part(head)?, part(tail)?),
            Self::Any => Self::Any,
        })
    }

    /// The same pattern in ASCII lower case.
    #[must_use]
    pub fn folded(&self) -> Self {
        self.try_map(|part| Some(part.to_ascii_lowercase())).unwrap_or(Self::Any)
    }

    /// Whether `text` satisfies this pattern, byte for byte: the plain meaning that [`super::PatternSet`] must agree with.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(x) => **x == *text,
            Self::Prefix(x) => text.starts_with(x),
            Self::Suffix(x) => text.ends_with(x),
            Self::Contains(x) => text.windows(x.len().max(1)).any(|w| *w == **x),
            Self::Ends(head, tail) => {
                text.len() >= head.len().saturating_add(tail.len()) && text.starts_with(head) && text.ends_with(tail)
            }
            Self::Any => true,
        }
    }

    /// What the pattern asks for, in words for people and records.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::Contains(_) => "contains",
            Self::Ends(..) => "prefix and suffix",
            Self::Any => "anything",
        }
    }
}

/// The literal parts between stars; a run of stars counts as one, `\*` is part of a literal.
fn split_at_stars(text: &str) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut after_star = false;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            b'\\' if bytes.peek() == Some(&b'*') => bytes.next(),
            b'*' => None,
            other => Some(other),
        };
        match literal {
            Some(literal) => {
                if let Some(part) = parts.last_mut() {
                    part.push(literal);
                }
                after_star = false;
            }
            None if after_star => {}
            None => {
                parts.push(Vec::new());
                after_star = true;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Pattern {
        Pattern::parse(text, Bare::Exact).unwrap()
    }

    #[test]
    fn stars_at_the_ends_mean_prefix_suffix_and_contains() {
        assert_eq!(exact("alice"), Pattern::Exact(b"alice".as_slice().into()));
        assert_eq!(exact("+49*"), Pattern::Prefix(b"+49".as_slice().into()));
        assert_eq!(exact("*@example.com"), Pattern::Suffix(b"@example.com".as_slice().into()));
        assert_eq!(exact("*lic*"), Pattern::Contains(b"lic".as_slice().into()));
        assert_eq!(exact("a*z"), Pattern::Ends(b"a".as_slice().into(), b"z".as_slice().into()));
        assert_eq!(exact("*"), Pattern::Any);
        assert_eq!(exact("***"), Pattern::Any);
        assert_eq!(exact("**x"), exact("*x"));
    }

    #[test]
    fn an_escaped_star_is_a_star_and_a_lone_backslash_is_itself() {
        assert_eq!(exact("\\*21"), Pattern::Exact(b"*21".as_slice().into()));
        assert_eq!(exact("\\*21*"), Pattern::Prefix(b"*21".as_slice().into()));
        assert_eq!(exact("corp\\alice"), Pattern::Exact(b"corp\\alice".as_slice().into()));
        assert_eq!(exact("x\\"), Pattern::Exact(b"x\\".as_slice().into()));
    }

    #[test]
    fn a_bare_text_of_a_plain_peer_means_contains() {
        assert_eq!(Pattern::parse("lic", Bare::Contains), Ok(Pattern::Contains(b"lic".as_slice().into())));
        assert_eq!(Pattern::parse("lic*", Bare::Contains), Ok(Pattern::Prefix(b"lic".as_slice().into())));
    }

    #[test]
    fn meaningless_patterns_are_refused() {
        assert_eq!(Pattern::parse("", Bare::Exact), Err(PatternError::Empty));
        assert_eq!(Pattern::parse("a*b*c", Bare::Exact), Err(PatternError::Stars));
        assert_eq!(Pattern::parse("*a*b", Bare::Exact), Err(PatternError::Stars));
        assert_eq!(Pattern::parse("a*b*", Bare::Exact), Err(PatternError::Stars));
        assert_eq!(Pattern::parse(&"x".repeat(1025), Bare::Exact), Err(PatternError::TooLong(1025)));
    }

    #[test]
    fn both_ends_never_overlap() {
        let pattern = exact("aba*ba");

        assert!(!pattern.matches(b"aba"));
        assert!(pattern.matches(b"ababa"));
    }
}
