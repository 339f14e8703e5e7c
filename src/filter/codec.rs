//! Codec filters: encoding names as SDP writes them (RFC 4855 §3: case does not count), with the spellings people use.

use crate::pattern::{Bare, Pattern};

use super::{BadPattern, Dialect};

/// What people call some codecs, and the registered encoding name (RFC 3551 §6).
const SPELLINGS: [(&str, &str); 8] = [
    ("g711a", "pcma"),
    ("g.711a", "pcma"),
    ("alaw", "pcma"),
    ("g711u", "pcmu"),
    ("g.711u", "pcmu"),
    ("ulaw", "pcmu"),
    ("g.722", "g722"),
    ("g.729", "g729"),
];

/// The pattern to hold encoding names against.
pub(super) fn parse(pattern: &str) -> Result<Pattern, BadPattern> {
    let text = pattern.trim();
    if text.contains(char::is_whitespace) {
        return Err(BadPattern::WhiteSpace);
    }
    let name = SPELLINGS.iter().find(|(said, _)| said.eq_ignore_ascii_case(text)).map_or(text, |(_, name)| name);
    Ok(Pattern::parse(name, Bare::Exact)?)
}

pub(super) fn validate(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse(pattern).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_spellings_mean_the_registered_name() {
        assert_eq!(parse("G711A"), Ok(Pattern::Exact(b"pcma".as_slice().into())));
        assert_eq!(parse("PCMU"), Ok(Pattern::Exact(b"PCMU".as_slice().into())));
        assert_eq!(parse("AMR*"), Ok(Pattern::Prefix(b"AMR".as_slice().into())));
        assert_eq!(parse("a b"), Err(BadPattern::WhiteSpace));
    }
}
