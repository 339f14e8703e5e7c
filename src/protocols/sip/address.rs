//! `name-addr` and `addr-spec` (RFC 3261 §20.10, §25.1): the addresses in From, To, Contact and their kin.
//!
//! Promises: a display name may contain anything, `sip:` and `<` in quotes included; without angle brackets what follows a semicolon
//! belongs to the header, not to the URI. Refuses: nothing; flaws are marked.

use std::borrow::Cow;

use super::{
    malformed::Malformed,
    uri::Uri,
    value::{Params, closing_quote, find_unquoted, unquote},
};
use crate::protocols::text::{from, is_lws, is_token, split_once, sub, trim};

/// One address with the parameters of its header.
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    display: &'a [u8],
    uri: &'a [u8],
    params: &'a [u8],
    flaws: Malformed,
}

impl<'a> NameAddr<'a> {
    /// Splits one element of a header value.
    pub fn parse(value: &'a [u8]) -> Self {
        let value = trim(value);
        let mut flaws = Malformed::NONE;
        let mut after_name = 0;
        if value.first() == Some(&b'"') {
            match closing_quote(value) {
                Some(end) => after_name = end.saturating_add(1),
                None => flaws |= Malformed::UNBALANCED_QUOTE,
            }
        }
        let unclosed = !flaws.is_empty();
        let open = memchr::memchr(b'<', value).and_then(|first| if unclosed { Some(first) } else { find_unquoted(value, b'<') });
        match open {
            Some(open) if after_name > 0 || unclosed || !in_params(sub(value, 0, open)) => Self::bracketed(value, open, flaws),
            _ => Self::bare(value, after_name, flaws),
        }
    }

    fn bracketed(value: &'a [u8], open: usize, mut flaws: Malformed) -> Self {
        let display = trim(sub(value, 0, open));
        let inside = from(value, open.saturating_add(1));
        let (uri, after) = split_once(inside, b'>').unwrap_or_else(|| {
            flaws |= Malformed::UNBALANCED_BRACKET;
            (inside, &[])
        });
        if !matches!(display.first(), None | Some(b'"')) {
            let tokens = display.split(|b| is_lws(*b)).filter(|word| !word.is_empty()).all(is_token);
            flaws |= Malformed::DISPLAY_NAME_UNQUOTED.when(!tokens);
        }
        flaws |= Malformed::ADDR_SPEC_WHITESPACE.when(trim(uri).len() != uri.len());
        let params = find_unquoted(after, b';').map_or(&[][..], |i| from(after, i.saturating_add(1)));
        Self { display, uri: trim(uri), params, flaws }
    }

    fn bare(value: &'a [u8], after_name: usize, mut flaws: Malformed) -> Self {
        let rest = from(value, after_name);
        let (uri, params) = split_once(rest, b';').unwrap_or((rest, &[]));
        let uri = trim(uri);
        flaws |= Malformed::UNBALANCED_BRACKET.when(after_name > 0);
        flaws |= Malformed::ADDR_SPEC_UNBRACKETED.when(uri.iter().any(|b| matches!(b, b'?' | b',')));
        Self { display: trim(sub(value, 0, after_name)), uri, params, flaws }
    }

    /// The display name without quotes and escapes; empty when there is none.
    pub fn display(&self) -> Cow<'a, [u8]> {
        unquote(self.display)
    }

    /// The address as written, white space around it removed.
    pub const fn uri_bytes(&self) -> &'a [u8] {
        self.uri
    }

    /// The address, split; `None` when it has no scheme (`*`, a bare word).
    pub fn uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// The header's parameters.
    pub fn params(&self) -> Params<'a> {
        Params::after_semicolon(self.params)
    }

    /// One parameter's value as written; empty when it has none.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params().value_of(name)
    }

    /// The `tag` (RFC 3261 §19.3); `None` when missing or empty.
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.param(b"tag").filter(|tag| !tag.is_empty())
    }

    /// What is wrong with it, its URI included.
    pub fn flaws(&self) -> Malformed {
        let mut flaws = self.flaws;
        flaws |= self.uri().map_or(Malformed::BAD_URI, |uri| uri.flaws());
        flaws | Malformed::EMPTY_PARAM.when(self.params().any(|(name, _)| name.is_empty()))
    }
}

/// Whether an unbracketed address has already begun its parameters: then a later `<` is not the address's bracket.
fn in_params(before: &[u8]) -> bool {
    before.contains(&b';') && Uri::parse(before).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_never_become_addresses() {
        for (text, display, uri) in [
            (r#""sip:evil@x <sip:y@z>" <sip:a@b>;tag=1"#, &b"sip:evil@x <sip:y@z>"[..], &b"sip:a@b"[..]),
            ("sip:evil@x <sip:a@b>;tag=1", b"sip:evil@x", b"sip:a@b"),
            ("caller<sip:a@b>;tag=1", b"caller", b"sip:a@b"),
            (r#""a \" <b" <sip:a@b> ; tag=1"#, b"a \" <b", b"sip:a@b"),
            ("<sip:a@b;user=phone>;tag=1", b"", b"sip:a@b;user=phone"),
            ("sip:a@b;tag=1", b"", b"sip:a@b"),
            ("sip:a@b;x=<sip:c@d>;tag=1", b"", b"sip:a@b"),
            ("tel:+49-30;tag=1", b"", b"tel:+49-30"),
        ] {
            let addr = NameAddr::parse(text.as_bytes());
            assert_eq!((addr.display().as_ref(), addr.uri_bytes()), (display, uri), "{text}");
            assert_eq!(addr.tag(), Some(&b"1"[..]), "{text}");
        }
    }

    #[test]
    fn flaws_are_marked_and_the_address_is_still_read() {
        for (text, flaw, uri) in [
            ("\"Mr. J. User <sip:j.user@example.com>", Malformed::UNBALANCED_QUOTE, &b"sip:j.user@example.com"[..]),
            ("\"W\" < sip:t@example.org >", Malformed::ADDR_SPEC_WHITESPACE, b"sip:t@example.org"),
            ("Bell, Alexander <sip:a@b>", Malformed::DISPLAY_NAME_UNQUOTED, b"sip:a@b"),
            ("sip:a@b?Route=%3Csip:c%3E", Malformed::ADDR_SPEC_UNBRACKETED, b"sip:a@b?Route=%3Csip:c%3E"),
            ("<sip:a@b>;;;;", Malformed::EMPTY_PARAM, b"sip:a@b"),
            ("<sip:a@b", Malformed::UNBALANCED_BRACKET, b"sip:a@b"),
        ] {
            let addr = NameAddr::parse(text.as_bytes());
            assert!(addr.flaws().contains(flaw), "{text}");
            assert_eq!(addr.uri_bytes(), uri, "{text}");
        }
    }

    #[test]
    fn folded_addresses_read_as_if_they_were_not() {
        let addr = NameAddr::parse(b"\"J\" <sip:j@example.com>\r\n  ;\r\n  tag = 98asjd8");

        assert_eq!(addr.tag(), Some(&b"98asjd8"[..]));
        assert!(addr.flaws().is_empty());
    }
}
