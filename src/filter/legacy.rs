//! Filters in the words of peers without our extensions, and theirs in ours.
//!
//! | ours | theirs |
//! |---|---|
//! | `sip_user` `alice` | `sip_uri` `alice@*`, since a bare `alice` means "contains" to them |
//! | `sip_uri` `alice@example.com` | `alice@example.com*`: hosts that begin alike are selected too |
//! | `phone_number` `+49 30 1234567` | `49301234567`; `*1234567` below ten digits, which they would never find; `110@*` below seven |
//! | `a*b` | the longer end |
//! | `media: none` | nothing: they send all media |
//!
//! Promises: a translated filter selects everything the filter means; [`Translation::exact`] says when it selects more.

use std::borrow::Cow;

use super::{Dialect, Filter, FilterKind, MediaPolicy, identity, phone};
use crate::pattern::Pattern;

/// Digits from which on they find a number.
const FOUND_FROM: usize = 10;

/// A filter as a peer without our extensions must be told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The kind to announce; not always that of the filter.
    pub kind: FilterKind,
    /// The pattern in the peer's syntax.
    pub pattern: String,
    /// Whether the peer selects with it what was asked for and nothing more.
    pub exact: bool,
}

/// What to tell a peer without our extensions; `knows_uri`: it announced `sip_uri`.
pub fn to_legacy(filter: &Filter, knows_uri: bool) -> Translation {
    let mut told = translate(filter, knows_uri).unwrap_or_else(|| Translation {
        kind: filter.kind,
        pattern: filter.pattern.clone(),
        exact: true,
    });
    told.exact &= filter.media == MediaPolicy::Full;
    told
}

/// What a peer without our extensions is to select by `filter`, told as `told`: for what it understands exactly, its own meaning; for the
/// rest ours, which is narrower than what it does.
pub fn meant_of_legacy(filter: &Filter, told: &Translation) -> Filter {
    let theirs = |pattern: String| Filter { kind: told.kind, pattern, dialect: Dialect::Legacy, ..filter.clone() };
    if told.kind == FilterKind::PhoneNumber {
        // it compares the ends of numbers, and by which prefixes is its own affair
        let digits = told.pattern.trim_start_matches('*');
        let end = digits.len().saturating_sub(phone::MIN_SUFFIX_DIGITS);
        return match digits.get(end..) {
            Some(_) if digits.ends_with('*') => theirs(told.pattern.clone()),
            Some(last) if last.len() == phone::MIN_SUFFIX_DIGITS => theirs(format!("*{last}")),
            Some(_) | None => filter.clone(),
        };
    }
    if told.exact { theirs(told.pattern.clone()) } else { filter.clone() }
}

/// The pattern as peers with our extensions read it.
pub fn to_native(filter: &Filter) -> Cow<'_, str> {
    let contains = match (filter.dialect, filter.kind) {
        (Dialect::Legacy, FilterKind::SipUser) => identity::parse_user(&filter.pattern, Dialect::Legacy),
        (Dialect::Legacy, FilterKind::SipUri) => identity::parse_uri(&filter.pattern, Dialect::Legacy),
        (Dialect::Native | Dialect::Legacy, _) => return Cow::Borrowed(&filter.pattern),
    };
    contains.map_or(Cow::Borrowed(&filter.pattern), |p| Cow::Owned(written(&p)))
}

/// `None` where the pattern means the same to both, or to neither.
fn translate(filter: &Filter, knows_uri: bool) -> Option<Translation> {
    if filter.dialect == Dialect::Legacy {
        return None;
    }
    let kind = filter.kind;
    let ours = match kind {
        FilterKind::SipUser => identity::parse_user(&filter.pattern, Dialect::Native).ok()?,
        FilterKind::SipUri => identity::parse_uri(&filter.pattern, Dialect::Native).ok()?,
        FilterKind::PhoneNumber => phone::digits_alone(&filter.pattern)?,
        FilterKind::IpAddress
        | FilterKind::CallId
        | FilterKind::Codec
        | FilterKind::Bpf
        | FilterKind::DnsDomain
        | FilterKind::EmailAddress
        | FilterKind::EmailSubject
        | FilterKind::TlsSni
        | FilterKind::TlsJa3
        | FilterKind::TlsJa3s
        | FilterKind::TlsJa4
        | FilterKind::HttpHost
        | FilterKind::HttpUrl
        | FilterKind::Imsi
        | FilterKind::Imei => return None,
    };
    let short = |digits: &[u8]| digits.len() < phone::MIN_SUFFIX_DIGITS;
    let (kind, theirs, exact) = match (kind, ours) {
        (FilterKind::SipUser, Pattern::Exact(user)) if knows_uri => (FilterKind::SipUri, whole_user(&user), true),
        (FilterKind::PhoneNumber, Pattern::Exact(d)) if short(&d) && knows_uri => (FilterKind::SipUri, whole_user(&d), true),
        (FilterKind::PhoneNumber, Pattern::Exact(d)) if d.len() < FOUND_FROM => (kind, Pattern::Suffix(d.clone()), !short(&d)),
        (FilterKind::SipUri, Pattern::Exact(uri)) => (kind, Pattern::Prefix(uri), false),
        (_, Pattern::Ends(head, tail)) if head.len() >= tail.len() => (kind, Pattern::Prefix(head), false),
        (_, Pattern::Ends(_, tail)) => (kind, Pattern::Suffix(tail), false),
        (_, same) => {
            let exact = kind != FilterKind::SipUser || !matches!(same, Pattern::Exact(_));
            (kind, same, exact)
        }
    };
    Some(Translation { kind, pattern: written(&theirs), exact })
}

/// Every URI with this user part.
fn whole_user(user: &[u8]) -> Pattern {
    Pattern::Prefix([user, b"@"].concat().into())
}

/// A pattern as text; what is a star in it gets its backslash.
fn written(pattern: &Pattern) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('*', "\\*");
    match pattern {
        Pattern::Exact(x) => text(x),
        Pattern::Prefix(x) => format!("{}*", text(x)),
        Pattern::Suffix(x) => format!("*{}", text(x)),
        Pattern::Contains(x) => format!("*{}*", text(x)),
        Pattern::Ends(head, tail) => format!("{}*{}", text(head), text(tail)),
        Pattern::Any => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: FilterKind, pattern: &str) -> (FilterKind, String, bool) {
        let t = to_legacy(&Filter::new("f", kind, pattern), true);
        (t.kind, t.pattern, t.exact)
    }

    #[test]
    fn an_exact_user_is_a_uri_that_begins_with_it() {
        assert_eq!(told(FilterKind::SipUser, "alice"), (FilterKind::SipUri, "alice@*".into(), true));
        assert_eq!(told(FilterKind::SipUser, "sip:%61lice"), (FilterKind::SipUri, "alice@*".into(), true));
        assert_eq!(told(FilterKind::SipUser, "\\*21"), (FilterKind::SipUri, "\\*21@*".into(), true));
        let without = to_legacy(&Filter::new("f", FilterKind::SipUser, "alice"), false);
        assert_eq!((without.kind, without.pattern.as_str(), without.exact), (FilterKind::SipUser, "alice", false));
    }

    #[test]
    fn what_both_understand_stays_as_it_is() {
        for pattern in ["alice*", "*ice", "*lic*", "*"] {
            assert_eq!(told(FilterKind::SipUser, pattern), (FilterKind::SipUser, pattern.into(), true));
        }
        assert_eq!(told(FilterKind::IpAddress, "192.0.2.0/24"), (FilterKind::IpAddress, "192.0.2.0/24".into(), true));
        let theirs = Filter { dialect: Dialect::Legacy, ..Filter::new("f", FilterKind::SipUser, "lic") };
        assert_eq!(to_legacy(&theirs, true).pattern, "lic");
    }

    #[test]
    fn what_they_cannot_say_selects_more_and_says_so() {
        assert_eq!(told(FilterKind::SipUri, "alice@example.com"), (FilterKind::SipUri, "alice@example.com*".into(), false));
        assert_eq!(told(FilterKind::SipUser, "al*ce"), (FilterKind::SipUser, "al*".into(), false));
        assert_eq!(told(FilterKind::SipUser, "a*ice"), (FilterKind::SipUser, "*ice".into(), false));
        let quiet = Filter { media: MediaPolicy::None, ..Filter::new("f", FilterKind::SipUser, "alice") };
        assert!(!to_legacy(&quiet, true).exact);
    }

    #[test]
    fn numbers_are_told_so_that_they_are_found() {
        assert_eq!(told(FilterKind::PhoneNumber, "+49 30 1234567"), (FilterKind::PhoneNumber, "49301234567".into(), true));
        assert_eq!(told(FilterKind::PhoneNumber, "123-4567"), (FilterKind::PhoneNumber, "*1234567".into(), true));
        assert_eq!(told(FilterKind::PhoneNumber, "110"), (FilterKind::SipUri, "110@*".into(), true));
        assert_eq!(told(FilterKind::PhoneNumber, "+4930*"), (FilterKind::PhoneNumber, "4930*".into(), true));
    }

    #[test]
    fn what_they_do_exactly_is_meant_as_they_mean_it_and_the_rest_as_we_do() {
        let meant = |kind, pattern| {
            let f = Filter::new("f", kind, pattern);
            let m = meant_of_legacy(&f, &to_legacy(&f, true));
            (m.kind, m.pattern, m.dialect)
        };

        assert_eq!(meant(FilterKind::SipUser, "alice"), (FilterKind::SipUri, "alice@*".into(), Dialect::Legacy));
        assert_eq!(meant(FilterKind::SipUser, "al*ce"), (FilterKind::SipUser, "al*ce".into(), Dialect::Native));
        assert_eq!(
            meant(FilterKind::PhoneNumber, "+49 30 1234567"),
            (FilterKind::PhoneNumber, "*1234567".into(), Dialect::Legacy)
        );
        assert_eq!(meant(FilterKind::PhoneNumber, "+4930*"), (FilterKind::PhoneNumber, "4930*".into(), Dialect::Legacy));
    }

    #[test]
    fn their_bare_words_are_told_to_ours_as_contains() {
        let native =
            |kind, pattern| to_native(&Filter { dialect: Dialect::Legacy, ..Filter::new("f", kind, pattern) }).into_owned();

        assert_eq!(native(FilterKind::SipUser, "lic"), "*lic*");
        assert_eq!(native(FilterKind::SipUser, "lic*"), "lic*");
        assert_eq!(native(FilterKind::SipUri, "sip:alice@example.com:5060"), "*alice@example.com*");
        assert_eq!(to_native(&Filter::new("f", FilterKind::SipUser, "alice")), "alice");
    }
}
