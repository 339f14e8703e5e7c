//! Validation of the kinds that look into DNS, HTTP, TLS and mail.
//!
//! Nodes in those modes apply them; every other node knows them by name, so that files and capabilities agree.

use crate::pattern::{Bare, Pattern};

use super::{BadPattern, Dialect};

/// A name or address: no white space, stars at the ends.
pub(super) fn validate_name(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    Pattern::parse(pattern, Bare::Exact)?;
    if pattern.chars().any(char::is_whitespace) { Err(BadPattern::WhiteSpace) } else { Ok(()) }
}

/// Any text, stars at the ends.
pub(super) fn validate_text(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    Pattern::parse(pattern, Bare::Exact)?;
    Ok(())
}

/// An MD5 in hexadecimal.
pub(super) fn validate_ja3(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    if pattern.len() == 32 && pattern.bytes().all(|b| b.is_ascii_hexdigit()) { Ok(()) } else { Err(BadPattern::Ja3) }
}

/// Three parts of 10, 12 and 12 characters.
pub(super) fn validate_ja4(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    let mut parts = pattern.split('_');
    let mut part =
        |len: usize, allowed: fn(&u8) -> bool| parts.next().is_some_and(|p| p.len() == len && p.as_bytes().iter().all(allowed));
    let whole = part(10, u8::is_ascii_alphanumeric) && part(12, u8::is_ascii_hexdigit) && part(12, u8::is_ascii_hexdigit);
    if whole && parts.next().is_none() { Ok(()) } else { Err(BadPattern::Ja4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_checked_in_form() {
        assert_eq!(validate_ja3(&"a0".repeat(16), Dialect::Native), Ok(()));
        assert_eq!(validate_ja3("a0", Dialect::Native), Err(BadPattern::Ja3));
        assert_eq!(validate_ja4("t13d1516h2_8daaf6152771_e5627efa2ab1", Dialect::Native), Ok(()));
        assert_eq!(validate_ja4("t13d1516h2_8daaf6152771", Dialect::Native), Err(BadPattern::Ja4));
        assert_eq!(validate_ja4("t13d1516h2_8daaf6152771_e5627efa2ab1_", Dialect::Native), Err(BadPattern::Ja4));
    }

    #[test]
    fn names_have_no_white_space() {
        assert_eq!(validate_name("*.example.com", Dialect::Native), Ok(()));
        assert_eq!(validate_name("a b", Dialect::Native), Err(BadPattern::WhiteSpace));
    }
}
