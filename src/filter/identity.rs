//! User, URI and Call-ID filters.
//!
//! | kind | held against | letters |
//! |---|---|---|
//! | `sip_user` | the user part; the number of a `tel:` URI | case does not count |
//! | `sip_uri` | `user@host`, without scheme, port and parameters | case does not count |
//! | `call_id` | the whole `Call-ID` | byte for byte (RFC 3261 §20.8) |
//!
//! Escapes (`%61lice`) mean the character they stand for (RFC 3261 §19.1.4), in patterns and in messages.

use std::borrow::Cow;

use crate::field::Field;
use crate::pattern::{Bare, Folded, MAX_PATTERN_BYTES, Pattern};

use super::{BadPattern, Dialect};

/// The pattern to hold folded user parts against.
pub(super) fn parse_user(pattern: &str, dialect: Dialect) -> Result<Pattern, BadPattern> {
    let text = checked(pattern)?;
    let text = without_scheme(text).map_or(text, |(_, rest)| rest);
    if text.contains('@') {
        return Err(BadPattern::UserWithHost);
    }
    decoded(&Pattern::parse(text, bare(dialect))?)
}

/// The pattern to hold folded `user@host` against.
pub(super) fn parse_uri(pattern: &str, dialect: Dialect) -> Result<Pattern, BadPattern> {
    let text = checked(pattern)?;
    let scheme = without_scheme(text);
    let text = without_port_and_parameters(scheme.map_or(text, |(_, rest)| rest));
    let parsed = Pattern::parse(text, bare(dialect))?;
    let hostless = matches!(&parsed, Pattern::Exact(whole) if !whole.contains(&b'@'));
    // `sip:example.com` and `tel:+4930…` are whole URIs without a user or a host.
    if hostless && scheme.is_none() {
        return Err(BadPattern::UriWithoutHost);
    }
    decoded(&parsed)
}

/// The pattern to hold Call-IDs against.
pub(super) fn parse_call_id(pattern: &str) -> Result<Pattern, BadPattern> {
    Ok(Pattern::parse(checked(pattern)?, Bare::Exact)?)
}

pub(super) fn validate_user(pattern: &str, dialect: Dialect) -> Result<(), BadPattern> {
    parse_user(pattern, dialect).map(drop)
}

pub(super) fn validate_uri(pattern: &str, dialect: Dialect) -> Result<(), BadPattern> {
    parse_uri(pattern, dialect).map(drop)
}

pub(super) fn validate_call_id(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse_call_id(pattern).map(drop)
}

fn bare(dialect: Dialect) -> Bare {
    match dialect {
        Dialect::Native => Bare::Exact,
        Dialect::Legacy => Bare::Contains,
    }
}

fn checked(pattern: &str) -> Result<&str, BadPattern> {
    let text = pattern.trim();
    if text.len() > MAX_PATTERN_BYTES {
        return Err(BadPattern::TooLong(text.len()));
    }
    if text.chars().any(char::is_whitespace) {
        return Err(BadPattern::WhiteSpace);
    }
    Ok(text)
}

/// The scheme and what follows it, for the schemes identities have.
fn without_scheme(text: &str) -> Option<(&'static str, &str)> {
    ["sip:", "sips:", "tel:"].into_iter().find_map(|scheme| {
        let (head, rest) = text.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some((scheme, rest))
    })
}

/// `alice@example.com:5061;transport=tls?x=y` is `alice@example.com`.
fn without_port_and_parameters(text: &str) -> &str {
    let host_at = text.rfind('@').map_or(0, |at| at.saturating_add(1));
    let host = text.get(host_at..).unwrap_or_default();
    let host_len = host.find([';', '?']).unwrap_or(host.len());
    let host = host.get(..host_len).unwrap_or_default();
    let host_len = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |end| end.saturating_add(1))
    } else {
        // An IPv6 address without brackets has several colons and no port.
        host.find(':').filter(|colon| host.rfind(':') == Some(*colon)).unwrap_or(host.len())
    };
    text.get(..host_at.saturating_add(host_len)).unwrap_or(text)
}

fn decoded(pattern: &Pattern) -> Result<Pattern, BadPattern> {
    let decoded = pattern.try_map(|part| Some(unescaped(part).into_owned()));
    decoded.ok_or(BadPattern::WhiteSpace)
}

/// `%xx` replaced by the byte it means; what is no escape stays as it is.
pub(super) fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let escape = match tail {
            [high, low, after @ ..] if *byte == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*byte, tail));
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}

/// An identity as observed, folded once for all sets.
pub(super) struct Identity {
    /// `user@host`, `user` or `host`, in lower case and without escapes.
    text: Folded,
    user_len: usize,
}

impl Identity {
    /// `number` is the inside of a `tel:` URI, which has no user part; it stands for the user then.
    #[inline]
    pub(super) fn new(field: Field, user: &[u8], host: &[u8], number: Option<&str>) -> Self {
        let user = match number {
            Some(number) if user.is_empty() => number.as_bytes(),
            _ => user,
        };
        // IMS private identities are written user@realm in one string (3GPP TS 23.003 §13.3).
        let split_at = if field == Field::SipAuthUser && host.is_empty() { memchr::memrchr(b'@', user) } else { None };
        let (user, host) = match split_at {
            Some(at) => (user.get(..at).unwrap_or_default(), user.get(at.saturating_add(1)..).unwrap_or_default()),
            None => (user, host),
        };
        let mut text = Folded::new();
        text.push(&unescaped(user));
        let user_len = text.as_bytes().len();
        if user_len > 0 && !host.is_empty() {
            text.push(b"@");
        }
        // A dot at the end only says that the name is complete (RFC 1034 §3.1).
        text.push(host.strip_suffix(b".").unwrap_or(host));
        Self { text, user_len }
    }

    /// The user part.
    pub(super) fn user(&self) -> &[u8] {
        self.text.as_bytes().get(..self.user_len).unwrap_or_default()
    }

    /// The user part before any parameter of its own (`+4930;npdi@…`), if it has one.
    pub(super) fn user_without_parameters(&self) -> Option<&[u8]> {
        let user = self.user();
        let end = memchr::memchr(b';', user)?;
        user.get(..end).filter(|user| !user.is_empty())
    }

    /// `user@host`.
    pub(super) fn uri(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Pattern {
        Pattern::Exact(text.as_bytes().into())
    }

    #[test]
    fn scheme_port_and_parameters_of_a_pattern_do_not_count() {
        for uri in
            ["alice@example.com", "sip:alice@example.com", "SIPS:alice@example.com:5061;transport=tls", "alice@example.com?x=y"]
        {
            assert_eq!(parse_uri(uri, Dialect::Native), Ok(exact("alice@example.com")), "{uri}");
        }
        assert_eq!(parse_uri("sip:alice@[2001:db8::1]:5060", Dialect::Native), Ok(exact("alice@[2001:db8::1]")));
        assert_eq!(parse_uri("alice@2001:db8::1", Dialect::Native), Ok(exact("alice@2001:db8::1")));
        assert_eq!(parse_uri("tel:+4930", Dialect::Native), Ok(exact("+4930")));
        assert_eq!(parse_uri("*@example.com:5060", Dialect::Native), Ok(Pattern::Suffix(b"@example.com".as_slice().into())));
    }

    #[test]
    fn patterns_that_could_never_match_are_refused_with_a_hint() {
        assert_eq!(parse_user("alice@example.com", Dialect::Native), Err(BadPattern::UserWithHost));
        assert_eq!(parse_uri("example.com", Dialect::Native), Err(BadPattern::UriWithoutHost));
        assert!(parse_uri("example.com", Dialect::Legacy).is_ok(), "contains, for a peer without our extensions");
        assert_eq!(parse_user("al ice", Dialect::Native), Err(BadPattern::WhiteSpace));
    }

    #[test]
    fn escapes_mean_the_character_they_stand_for() {
        assert_eq!(parse_user("%61lice", Dialect::Native), Ok(exact("alice")));
        assert_eq!(&*unescaped(b"a%2"), b"a%2");
        assert_eq!(&*unescaped(b"%zz%41%"), b"%zzA%");
    }

    #[test]
    fn an_identity_is_user_and_host() {
        let identity = Identity::new(Field::SipFrom, b"Al%69ce", b"Example.COM.", None);

        assert_eq!(identity.user(), b"alice");
        assert_eq!(identity.uri(), b"alice@example.com");
        assert_eq!(Identity::new(Field::SipTo, b"", b"example.com", None).uri(), b"example.com");
        assert_eq!(Identity::new(Field::SipTo, b"", b"", Some("+4930")).user(), b"+4930");
        let private = Identity::new(Field::SipAuthUser, b"262011234567890@ims.example", b"", None);
        assert_eq!((private.user(), private.uri()), (&b"262011234567890"[..], &b"262011234567890@ims.example"[..]));
    }
}
