//! Who a message speaks of: every address a filter may know a subscriber by, field by field.
//!
//! Promises: an anonymous From does not hide the other fields; escapes are resolved; nothing is kept. Refuses: passwords and digests.

use super::{
    address::NameAddr,
    header::HeaderName,
    message::Message,
    number::Number,
    start::Start,
    uri::{Scheme, Uri, unescape},
    value::{find_unquoted, unquote},
};
use crate::field::Field;
use crate::protocols::text::{Short, from, split_once, starts_with_ignore_case, sub, trim};

/// One identity, borrowed from the message.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'v> {
    /// The user part, escapes resolved, password dropped; the number as written for `tel:`.
    pub user: &'v [u8],
    /// The host, ASCII-case-insensitive, without IPv6 brackets; empty for `tel:`; the realm for a user name without domain.
    pub host: &'v [u8],
    /// Whether it came from a `tel:` URI.
    pub is_tel: bool,
    /// The telephone number of a `tel:` URI or of a `sip:` URI with `user=phone`.
    pub number: Option<Number>,
    /// The `phone-context` of a local number; empty when there is none.
    pub phone_context: &'v [u8],
}

/// Header fields that carry addresses.
const ADDRESSES: [(HeaderName, Field); 9] = [
    (HeaderName::From, Field::SipFrom),
    (HeaderName::To, Field::SipTo),
    (HeaderName::PAssertedIdentity, Field::SipPAssertedIdentity),
    (HeaderName::PPreferredIdentity, Field::SipPPreferredIdentity),
    (HeaderName::PCalledPartyId, Field::SipPCalledPartyId),
    (HeaderName::RemotePartyId, Field::SipRemotePartyId),
    (HeaderName::Diversion, Field::SipDiversion),
    (HeaderName::HistoryInfo, Field::SipHistoryInfo),
    (HeaderName::Contact, Field::SipContact),
];

/// Calls `f` for every identity of `msg`: the Request-URI, then the address headers, then the authorisation user names.
pub fn identities(msg: &Message<'_>, f: &mut dyn FnMut(Field, Identity<'_>)) {
    addresses(msg, &mut |field, value| identity_in(field, value, f));
    credentials(msg, f);
}

/// Calls `f` with the Request-URI and with each value of the address headers, as they stand there.
pub fn addresses(msg: &Message<'_>, f: &mut dyn FnMut(Field, &[u8])) {
    if let Start::Request { uri, .. } = msg.start() {
        f(Field::SipRequestUri, uri);
    }
    for (name, field) in ADDRESSES {
        for value in msg.raw_values(name) {
            f(field, value);
        }
    }
}

/// Calls `f` with the identity in such a value, if there is one.
pub fn identity_in(field: Field, value: &[u8], f: &mut dyn FnMut(Field, Identity<'_>)) {
    let uri = if field == Field::SipRequestUri { Uri::parse(value) } else { NameAddr::parse(value).uri() };
    if let Some(uri) = uri {
        address(field, &uri, f);
    }
}

/// Calls `f` with the authorisation user names.
pub fn credentials(msg: &Message<'_>, f: &mut dyn FnMut(Field, Identity<'_>)) {
    user_names(msg, &mut |user, host| {
        f(Field::SipAuthUser, Identity { user, host, is_tel: false, number: None, phone_context: &[] });
    });
}

fn address(field: Field, uri: &Uri<'_>, f: &mut dyn FnMut(Field, Identity<'_>)) {
    if uri.scheme() == Scheme::Other {
        return;
    }
    f(
        field,
        Identity {
            user: &uri.user(),
            host: uri.host(),
            is_tel: uri.scheme() == Scheme::Tel,
            number: uri.number(),
            phone_context: uri.phone_context(),
        },
    );
}

/// Calls `f` with user and domain (or realm) of each set of credentials.
fn user_names(msg: &Message<'_>, f: &mut dyn FnMut(&[u8], &[u8])) {
    for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
        for value in msg.raw_values(name) {
            let Some(username) = auth_param(value, b"username").map(unquote).or_else(|| {
                // RFC 7616 §3.4: username*=UTF-8''escaped
                let extended = auth_param(value, b"username*")?;
                let (_, escaped) = split_once(extended, b'\'').and_then(|(_, rest)| split_once(rest, b'\''))?;
                Some(unescape(escaped))
            }) else {
                continue;
            };
            let realm = auth_param(value, b"realm").map(unquote).unwrap_or_default();
            match split_once(&username, b'@') {
                Some((user, domain)) => f(user, domain),
                None => f(&username, &realm),
            }
        }
    }
}

/// One parameter of `Digest name="value", …` (RFC 3261 §25.1, `dig-resp`).
fn auth_param<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = trim(value);
    let scheme_len = value.iter().position(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))?;
    let mut rest = Some(from(value, scheme_len));
    while let Some(params) = rest.take() {
        let param = match find_unquoted(params, b',') {
            Some(comma) => {
                rest = Some(from(params, comma.saturating_add(1)));
                sub(params, 0, comma)
            }
            None => params,
        };
        if let Some((n, v)) = split_once(param, b'=')
            && trim(n).eq_ignore_ascii_case(name)
        {
            return Some(trim(v));
        }
    }
    None
}

/// Calls `f` with every IMSI: 15 digits as user of the private identity (authorisation user name) or of an address in From, To,
/// P-Asserted-Identity or P-Preferred-Identity, when its domain is a 3GPP one (3GPP TS 23.003 §13).
pub fn imsis(msg: &Message<'_>, f: &mut dyn FnMut(&[u8])) {
    user_names(msg, &mut |user, host| imsi(user, host, f));
    for name in [HeaderName::PAssertedIdentity, HeaderName::PPreferredIdentity, HeaderName::From, HeaderName::To] {
        for value in msg.raw_values(name) {
            if let Some(uri) = NameAddr::parse(value).uri() {
                imsi(&uri.user(), uri.host(), f);
            }
        }
    }
}

fn imsi(user: &[u8], host: &[u8], f: &mut dyn FnMut(&[u8])) {
    if user.len() == 15 && user.iter().all(u8::is_ascii_digit) && is_3gpp(host) {
        f(user);
    }
}

fn is_3gpp(host: &[u8]) -> bool {
    [&b"3gppnetwork.org"[..], b".mnc"].iter().any(|part| host.windows(part.len()).any(|at| at.eq_ignore_ascii_case(part)))
}

/// Calls `f` with every IMEI in a Contact's `+sip.instance` (RFC 7254, 3GPP TS 24.229): 15 digits, dashes removed. The last digit may be
/// the spare 0 or the check digit, so an IMEI is given with the spare digit, with the check digit, and as written where that differs.
pub fn imeis(msg: &Message<'_>, f: &mut dyn FnMut(&[u8])) {
    for contact in msg.contacts() {
        let Some(instance) = contact.param(b"+sip.instance") else { continue };
        let urn = unquote(instance);
        let urn = trim(&urn);
        let urn = urn.strip_prefix(b"<").map_or(urn, |inner| inner.strip_suffix(b">").unwrap_or(inner));
        for prefix in [&b"urn:gsma:imei:"[..], b"urn:gsma:imeisv:", b"urn:urn-7:3gpp-imei:"] {
            if starts_with_ignore_case(urn, prefix) {
                imei(from(urn, prefix.len()), f);
            }
        }
    }
}

fn imei(written: &[u8], f: &mut dyn FnMut(&[u8])) {
    let written = split_once(written, b';').map_or(written, |(digits, _)| digits);
    let mut digits = Short::<16>::EMPTY;
    for b in written.iter().filter(|b| **b != b'-') {
        if !b.is_ascii_digit() || !digits.push(*b) {
            return;
        }
    }
    let all = digits.as_bytes();
    let Some(serial) = all.get(..14) else { return };
    let with = |last: u8| {
        let mut imei = Short::<15>::cut(serial);
        imei.push(last);
        imei
    };
    let (spare, checked) = (with(b'0'), with(check_digit(serial)));
    f(spare.as_bytes());
    if checked != spare {
        f(checked.as_bytes());
    }
    if all.len() == 15 && all != spare.as_bytes() && all != checked.as_bytes() {
        f(all);
    }
}

/// The Luhn digit over the first 14 (3GPP TS 23.003 Annex B).
fn check_digit(serial: &[u8]) -> u8 {
    let sum = serial.iter().enumerate().fold(0_u16, |sum, (i, b)| {
        let digit = u16::from(b.wrapping_sub(b'0'));
        let doubled = digit.saturating_mul(2);
        sum.saturating_add(if i % 2 == 0 {
            digit
        } else if doubled > 9 {
            doubled.saturating_sub(9)
        } else {
            doubled
        })
    });
    u8::try_from((10_u16.wrapping_sub(sum % 10)) % 10).map_or(b'0', |d| b'0'.wrapping_add(d))
}
