//! The grammar inside header values: comma lists, parameters, quoted strings, folding.
//!
//! Promises: everything is a slice of the message; one pass per question; a quote or bracket that is never closed reaches to the end of
//! its value and no further. Refuses: nothing; what breaks the grammar is read as far as it goes.

use std::borrow::Cow;

use crate::protocols::text::{from, is_lws, split_once, sub, trim, upto};

/// The elements of a comma list (RFC 3261 §7.3.1): commas inside quotes or angle brackets do not split.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: Option<&'a [u8]>,
    list: bool,
}

impl<'a> Elements<'a> {
    /// The elements of `value`.
    pub const fn list(value: &'a [u8]) -> Self {
        Self { rest: Some(value), list: true }
    }

    /// `value` itself, as the only element.
    pub const fn single(value: &'a [u8]) -> Self {
        Self { rest: Some(value), list: false }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        if self.list
            && let Some(comma) = find_outside(rest, b',')
        {
            self.rest = Some(from(rest, comma.saturating_add(1)));
            return Some(trim(sub(rest, 0, comma)));
        }
        Some(trim(rest))
    }
}

/// The first `wanted` that stands neither in a quoted string nor in angle brackets.
pub(super) fn find_outside(bytes: &[u8], wanted: u8) -> Option<usize> {
    let plain = memchr::memchr(wanted, bytes)?;
    if memchr::memchr2(b'"', b'<', upto(bytes, plain)).is_none() {
        return Some(plain);
    }
    let (mut quoted, mut angle, mut escaped) = (false, false, false);
    for (i, b) in bytes.iter().enumerate() {
        match *b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            _ if quoted => {}
            b'<' => angle = true,
            b'>' => angle = false,
            b if b == wanted && !angle => return Some(i),
            _ => {}
        }
    }
    None
}

/// `;name=value` parameters.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Params<'a> {
    /// Reads what follows the first semicolon; `after` may be empty.
    pub fn after_semicolon(after: &'a [u8]) -> Self {
        Self { rest: (!trim(after).is_empty()).then_some(after) }
    }

    /// The value of the parameter called `name` (ASCII case ignored), quotes kept; empty for a parameter without value.
    pub fn value_of(mut self, name: &[u8]) -> Option<&'a [u8]> {
        self.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.unwrap_or_default())
    }
}

impl<'a> Iterator for Params<'a> {
    /// Name and value, white space around both removed; the name is empty between two semicolons.
    type Item = (&'a [u8], Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let param = match find_unquoted(rest, b';') {
            Some(end) => {
                self.rest = Some(from(rest, end.saturating_add(1)));
                sub(rest, 0, end)
            }
            None => rest,
        };
        Some(match split_once(param, b'=') {
            Some((name, value)) => (trim(name), Some(trim(value))),
            None => (trim(param), None),
        })
    }
}

/// The first `wanted` outside quoted strings.
pub(super) fn find_unquoted(bytes: &[u8], wanted: u8) -> Option<usize> {
    let plain = memchr::memchr(wanted, bytes)?;
    if memchr::memchr(b'"', upto(bytes, plain)).is_none() {
        return Some(plain);
    }
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in bytes.iter().enumerate() {
        match *b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b if b == wanted && !quoted => return Some(i),
            _ => {}
        }
    }
    None
}

/// Where the quoted string that begins at `bytes[0]` ends: the index of its closing quote.
pub(super) fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (i, b) in bytes.iter().enumerate().skip(1) {
        match *b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(i),
            _ => {}
        }
    }
    None
}

/// A value without its line folding: CR, LF and the white space around them become one space (RFC 3261 §7.3.1).
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let value = trim(value);
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(i) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(sub(rest, 0, i));
        while out.last().is_some_and(|b| is_lws(*b)) {
            out.pop();
        }
        out.push(b' ');
        rest = from(rest, i);
        let skip = rest.iter().take_while(|b| is_lws(**b)).count();
        rest = from(rest, skip);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// A parameter value or display name without its quotes and backslashes (RFC 3261 §25.1, `quoted-string`).
pub fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ ..] = value else { return unfold(value) };
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    if memchr::memchr3(b'\\', b'\r', b'\n', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let unfolded = if memchr::memchr2(b'\r', b'\n', inner).is_some() { unfold(inner) } else { Cow::Borrowed(inner) };
    let mut out = Vec::with_capacity(unfolded.len());
    let mut bytes = unfolded.iter();
    while let Some(b) = bytes.next() {
        match (*b, bytes.as_slice().first()) {
            (b'\\', Some(escaped)) => {
                out.push(*escaped);
                bytes.next();
            }
            _ => out.push(*b),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_split() {
        let value = br#""Bell, A\", B" <sip:a,b@c;x=","> , <sip:d@e>;q="1,2",sip:f@g"#;

        let elements: Vec<_> = Elements::list(value).collect();

        assert_eq!(elements, [&br#""Bell, A\", B" <sip:a,b@c;x=",">"#[..], br#"<sip:d@e>;q="1,2""#, b"sip:f@g"]);
    }

    #[test]
    fn params_ignore_semicolons_in_quotes() {
        let params = Params::after_semicolon(b" a = 1 ; b=\"x;tag=no\";tag = yes;c");

        assert_eq!(params.clone().value_of(b"TAG"), Some(&b"yes"[..]));
        assert_eq!(params.clone().value_of(b"c"), Some(&b""[..]));
        assert_eq!(params.clone().value_of(b"d"), None);
        assert_eq!(params.count(), 4);
    }

    #[test]
    fn folding_becomes_one_space() {
        assert_eq!(unfold(b"0009\r\n  INVITE").as_ref(), b"0009 INVITE");
        assert_eq!(unfold(b" a \n\t b ").as_ref(), b"a b");
        assert!(matches!(unfold(b" plain "), Cow::Borrowed(b"plain")));
    }

    #[test]
    fn quotes_and_backslashes_are_taken_off() {
        assert_eq!(unquote(br#""J Rosenberg \\\"""#).as_ref(), br#"J Rosenberg \""#);
        assert_eq!(unquote(b"\"a\r\n b\"").as_ref(), b"a b");
        assert_eq!(unquote(b"token one").as_ref(), b"token one");
    }
}
