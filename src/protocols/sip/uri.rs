//! `sip:`, `sips:`, `tel:` and other URIs (RFC 3261 §19.1, RFC 3966), read tolerantly.
//!
//! Promises: slices of the message, one pass; a user part may contain `;`, `/`, `?`, `=` and escapes; an address that breaks the grammar
//! is still split, and [`Uri::flaws`] says what is wrong. Refuses: bytes without a scheme. A password is recognised so that it can be left
//! out; it is never given back.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{malformed::Malformed, number::Number, value::Params};
use crate::protocols::text::{decimal, from, hex, is_lws, split_once, sub, trim};

/// What stands before the first colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other; only [`Uri::opaque`] says something.
    Other,
}

/// A URI, split.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    scheme: Scheme,
    raw: &'a [u8],
    opaque: &'a [u8],
    user: &'a [u8],
    host: &'a [u8],
    bracketed: bool,
    port: Option<u16>,
    bad_port: bool,
    params: &'a [u8],
    headers: Option<&'a [u8]>,
}

impl<'a> Uri<'a> {
    /// Splits `bytes`; `None` when they do not begin with a scheme and a colon.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let raw = trim(bytes);
        let raw = raw.strip_prefix(b"<").map_or(raw, |inner| trim(inner.strip_suffix(b">").unwrap_or(inner)));
        let (name, opaque) = split_once(raw, b':')?;
        let scheme = match name {
            _ if name.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            _ if name.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            _ if name.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            [first, rest @ ..]
                if first.is_ascii_alphabetic()
                    && rest.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
            {
                Scheme::Other
            }
            _ => return None,
        };
        let mut uri = Self {
            scheme,
            raw,
            opaque,
            user: &[],
            host: &[],
            bracketed: false,
            port: None,
            bad_port: false,
            params: &[],
            headers: None,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.split_sip(opaque),
            Scheme::Tel => (uri.user, uri.params) = split_once(opaque, b';').unwrap_or((opaque, &[])),
            Scheme::Other => {}
        }
        Some(uri)
    }

    fn split_sip(&mut self, opaque: &'a [u8]) {
        let (userinfo, rest) = split_userinfo(opaque);
        self.user = split_once(userinfo, b':').map_or(userinfo, |(user, _password)| user);
        let hostport_len = memchr::memchr2(b';', b'?', rest).unwrap_or(rest.len());
        let (hostport, tail) = (sub(rest, 0, hostport_len), from(rest, hostport_len));
        match tail {
            [b';', after @ ..] => match split_once(after, b'?') {
                Some((params, headers)) => (self.params, self.headers) = (params, Some(headers)),
                None => self.params = after,
            },
            [b'?', headers @ ..] => self.headers = Some(headers),
            _ => {}
        }
        self.split_hostport(hostport);
    }

    fn split_hostport(&mut self, hostport: &'a [u8]) {
        let (host, port) = if let [b'[', inside @ ..] = hostport
            && let Some((host, after)) = split_once(inside, b']')
        {
            self.bracketed = true;
            (host, (!after.is_empty()).then(|| after.strip_prefix(b":").unwrap_or(after)))
        } else {
            match split_once(hostport, b':') {
                // `sip:2001:db8::10`: an address that forgot its brackets, not a port.
                Some((_, port)) if port.contains(&b':') => (hostport, None),
                Some((host, port)) => (host, Some(port)),
                None => (hostport, None),
            }
        };
        self.host = trim(host);
        if let Some(port) = port {
            self.port = decimal(trim(port)).and_then(|p| u16::try_from(p).ok());
            self.bad_port = self.port.is_none();
        }
    }

    /// The scheme.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The whole URI as written, angle brackets removed.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// What follows the scheme's colon.
    pub const fn opaque(&self) -> &'a [u8] {
        self.opaque
    }

    /// The user part with its escapes resolved.
    pub fn user(&self) -> Cow<'a, [u8]> {
        unescape(self.user)
    }

    /// The host as written, without the brackets of an IPv6 reference; compare it ASCII-case-insensitively.
    pub const fn host(&self) -> &'a [u8] {
        self.host
    }

    /// Whether the host stood in brackets (RFC 3261 §25.1, `IPv6reference`).
    pub const fn is_ipv6_reference(&self) -> bool {
        self.bracketed
    }

    /// The port, when there is one and it is a number.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URI's own parameters.
    pub fn params(&self) -> Params<'a> {
        Params::after_semicolon(self.params)
    }

    /// One parameter's value; empty when it has none.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.params().value_of(name)
    }

    /// The headers part after `?`.
    pub const fn headers(&self) -> Option<&'a [u8]> {
        self.headers
    }

    /// The telephone number of a `tel:` URI or of a `sip:` URI with `user=phone`: visual separators removed (RFC 3966 §3).
    pub fn number(&self) -> Option<Number> {
        Number::read(self.subscriber()?)
    }

    /// The `phone-context` of a local number (RFC 3966 §5.1.5); empty when there is none.
    pub fn phone_context(&self) -> &'a [u8] {
        if self.scheme == Scheme::Tel {
            return self.param(b"phone-context").unwrap_or_default();
        }
        // Inside the user part of a sip: URI (RFC 3261 §19.1.6), or, as some write it, after the host.
        split_once(self.user, b';')
            .and_then(|(_, params)| Params::after_semicolon(params).value_of(b"phone-context"))
            .or_else(|| self.param(b"phone-context"))
            .unwrap_or_default()
    }

    /// The telephone-subscriber as written, without its parameters.
    fn subscriber(&self) -> Option<&'a [u8]> {
        match self.scheme {
            Scheme::Tel => Some(self.user),
            Scheme::Sip | Scheme::Sips => self
                .param(b"user")
                .filter(|kind| kind.eq_ignore_ascii_case(b"phone"))
                .map(|_| split_once(self.user, b';').map_or(self.user, |(number, _)| number)),
            Scheme::Other => None,
        }
    }

    /// What is wrong with it.
    pub fn flaws(&self) -> Malformed {
        let mut flaws = Malformed::NONE;
        match self.scheme {
            Scheme::Other => return Malformed::UNKNOWN_URI_SCHEME,
            Scheme::Sip | Scheme::Sips => {
                flaws |= Malformed::BAD_HOST.when(!is_host(self.host, self.bracketed));
                flaws |= Malformed::BAD_PORT.when(self.bad_port);
            }
            Scheme::Tel => flaws |= Malformed::BAD_URI.when(Number::read(self.user).is_none()),
        }
        flaws |= Malformed::BAD_ESCAPE.when(has_bad_escape(self.opaque));
        flaws | Malformed::ADDR_SPEC_WHITESPACE.when(self.raw.iter().any(|b| is_lws(*b)))
    }
}

/// A SIP URI as written, without its password (RFC 3261 §19.1.1), which is for nobody to keep; any other URI as it is.
pub fn without_password(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(uri) = Uri::parse(bytes).filter(|uri| matches!(uri.scheme, Scheme::Sip | Scheme::Sips)) else { return bytes.into() };
    let (userinfo, _) = split_userinfo(uri.opaque);
    let Some((user, _password)) = split_once(userinfo, b':') else { return bytes.into() };
    let scheme = sub(uri.raw, 0, uri.raw.len().saturating_sub(uri.opaque.len()));
    [scheme, user, from(uri.opaque, userinfo.len())].concat().into()
}

/// Splits user information from the rest at the `@` (RFC 3261 §19.1.1). A user part may contain `;` and `?`, a host may not contain `@`; of
/// several `@` the last one before the parameters counts, which keeps an unescaped `user@home` together.
fn split_userinfo(opaque: &[u8]) -> (&[u8], &[u8]) {
    let Some(first) = memchr::memchr(b'@', opaque) else { return (&[], opaque) };
    let after = from(opaque, first.saturating_add(1));
    let host_len = memchr::memchr2(b';', b'?', after).unwrap_or(after.len());
    let last = memchr::memrchr(b'@', sub(after, 0, host_len)).map_or(first, |i| first.saturating_add(1).saturating_add(i));
    (sub(opaque, 0, last), from(opaque, last.saturating_add(1)))
}

fn is_host(host: &[u8], bracketed: bool) -> bool {
    let Ok(text) = std::str::from_utf8(host) else { return false };
    if bracketed {
        return text.parse::<Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && (host.iter().any(|b| !b.is_ascii_digit() && *b != b'.') || text.parse::<Ipv4Addr>().is_ok())
}

fn has_bad_escape(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes).any(|i| {
        let digit = |at: usize| bytes.get(i.saturating_add(at)).copied().and_then(hex).is_some();
        !(digit(1) && digit(2))
    })
}

/// Resolves `%XX`; a percent sign without two hexadecimal digits stays.
pub fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((b, after)) = rest.split_first() {
        if *b == b'%'
            && let [high, low, tail @ ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high.wrapping_shl(4) | low);
            rest = tail;
        } else {
            out.push(*b);
            rest = after;
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn user_parts_may_contain_almost_anything() {
        for (text, user, host) in [
            ("sip:sips%3Auser%40example.com@example.net", &b"sips:user@example.com"[..], &b"example.net"[..]),
            ("sip:%75se%72@example.com", b"user", b"example.com"),
            ("sip:user;par=u%40example.net@example.com", b"user;par=u@example.net", b"example.com"),
            (
                "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
                b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*",
                b"example.com",
            ),
            ("sip:null-%00-null@example.com", b"null-\0-null", b"example.com"),
            ("SIPS:a@B.example:5061;transport=tls?x=y", b"a", b"B.example"),
            ("sip:joe@home.example@proxy.example;x=a@b", b"joe@home.example", b"proxy.example"),
            ("sip:example.com", b"", b"example.com"),
        ] {
            let uri = uri(text);
            assert_eq!((uri.user().as_ref(), uri.host()), (user, host), "{text}");
        }
    }

    #[test]
    fn passwords_are_dropped() {
        assert_eq!(uri("sip:alice:secret@a.example").user().as_ref(), b"alice");
        for (text, without) in [
            ("sip:alice:secret@a.example:5060;x=y:z@w?h=v", "sip:alice@a.example:5060;x=y:z@w?h=v"),
            ("SIPS:alice:@a.example", "SIPS:alice@a.example"),
            ("sip:alice:a:b@a.example", "sip:alice@a.example"),
            ("sip:a.example:5060", "sip:a.example:5060"),
            ("tel:+49:1@x", "tel:+49:1@x"),
            ("alice:secret@a.example", "alice:secret@a.example"),
            ("*", "*"),
        ] {
            assert_eq!(without_password(text.as_bytes()).as_ref(), without.as_bytes());
        }
    }

    #[test]
    fn ipv6_references_and_ports() {
        let good = uri("sip:user@[2001:db8::10]:5070;lr");
        assert_eq!((good.host(), good.port(), good.is_ipv6_reference()), (&b"2001:db8::10"[..], Some(5070), true));
        assert!(good.flaws().is_empty());

        assert!(uri("sip:[2001:db8::192.0.2.1]").flaws().is_empty());
        assert!(uri("sip:[2001:db8:::192.0.2.1]").flaws().contains(Malformed::BAD_HOST));
        assert!(uri("sip:2001:db8::10").flaws().contains(Malformed::BAD_HOST));
        assert!(uri("sip:a@b:99999").flaws().contains(Malformed::BAD_PORT));
        assert!(uri("sip:a@300.1.1.1").flaws().contains(Malformed::BAD_HOST));
    }

    #[test]
    fn numbers_come_from_tel_and_from_user_phone() {
        let number = |text| uri(text).number().map(|n| n.as_str().to_owned());

        assert_eq!(number("tel:+49-(30)-12.34").as_deref(), Some("+49301234"));
        assert_eq!(number("tel:7042;phone-context=example.com").as_deref(), Some("7042"));
        assert_eq!(number("sip:+1-212-555-0101:1234@gw.example;user=phone").as_deref(), Some("+12125550101"));
        assert_eq!(number("sip:%2B1212;phone-context=x@gw.example;user=PHONE").as_deref(), Some("+1212"));
        assert_eq!(number("sip:+1212@gw.example"), None);
        assert_eq!(number("tel:alice"), None);
        assert_eq!(uri("tel:7042;phone-context=example.com").phone_context(), b"example.com");
        assert_eq!(uri("sip:7042;phone-context=+49@gw;user=phone").phone_context(), b"+49");
    }

    #[test]
    fn other_schemes_are_kept_whole_and_no_scheme_is_refused() {
        assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme(), Scheme::Other);
        assert_eq!(uri("isbn:2983792873").opaque(), b"2983792873");
        for bad in [&b"user"[..], b"", b"1x:y", b"*", b"\"a:b\""] {
            assert!(Uri::parse(bad).is_none(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn bad_escapes_stay_and_are_marked() {
        assert_eq!(unescape(b"%zz%4").as_ref(), b"%zz%4");
        assert!(uri("sip:a%zz@b").flaws().contains(Malformed::BAD_ESCAPE));
    }
}
