//! Header names, their compact forms, and the walk over header lines.
//!
//! To add a header the index should know, add a line to the table.

use crate::protocols::text::{decimal, from, is_lws, upto};

macro_rules! headers {
    ($($name:ident $text:literal $($compact:literal)?;)*) => {
        /// A header the index knows by name; every other one is `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum HeaderName {
            $(#[doc = concat!("`", $text, "`.")] $name,)*
            /// A header the index has no name for.
            Other,
        }

        impl HeaderName {
            /// The canonical spelling; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "",
                }
            }

            const TABLE: &[(&'static str, Self)] = &[$(($text, Self::$name)),*];

            /// The compact forms of the IANA registry (RFC 3261 §7.3.3 and the RFCs that added to it), case-insensitive.
            const fn from_compact(b: u8) -> Self {
                match b.to_ascii_lowercase() {
                    $($($compact => Self::$name,)?)*
                    _ => Self::Other,
                }
            }
        }
    };
}

headers! {
    Via "Via" b'v';
    From "From" b'f';
    To "To" b't';
    CallId "Call-ID" b'i';
    CSeq "CSeq";
    Contact "Contact" b'm';
    ContentLength "Content-Length" b'l';
    ContentType "Content-Type" b'c';
    ContentEncoding "Content-Encoding" b'e';
    MaxForwards "Max-Forwards";
    UserAgent "User-Agent";
    Allow "Allow";
    Supported "Supported" b'k';
    Expires "Expires";
    Route "Route";
    RecordRoute "Record-Route";
    Require "Require";
    ProxyRequire "Proxy-Require";
    Accept "Accept";
    Authorization "Authorization";
    ProxyAuthorization "Proxy-Authorization";
    WwwAuthenticate "WWW-Authenticate";
    ProxyAuthenticate "Proxy-Authenticate";
    PAssertedIdentity "P-Asserted-Identity";
    PPreferredIdentity "P-Preferred-Identity";
    PCalledPartyId "P-Called-Party-ID";
    RemotePartyId "Remote-Party-ID";
    Diversion "Diversion";
    HistoryInfo "History-Info";
    Event "Event" b'o';
    AllowEvents "Allow-Events" b'u';
    ReferTo "Refer-To" b'r';
    ReferredBy "Referred-By" b'b';
    Replaces "Replaces";
    Subject "Subject" b's';
    SessionExpires "Session-Expires" b'x';
    SessionId "Session-ID";
    Server "Server";
    Date "Date";
    Reason "Reason";
    RSeq "RSeq";
    RAck "RAck";
    RetryAfter "Retry-After";
    Warning "Warning";
    Path "Path";
    ServiceRoute "Service-Route";
    PAccessNetworkInfo "P-Access-Network-Info";
    PChargingVector "P-Charging-Vector";
    Identity "Identity" b'y';
    IdentityInfo "Identity-Info" b'n';
    AcceptContact "Accept-Contact" b'a';
    RejectContact "Reject-Contact" b'j';
    RequestDisposition "Request-Disposition" b'd';
    MinExpires "Min-Expires";
}

impl HeaderName {
    /// Finds a name, ASCII case ignored, compact forms included.
    #[inline]
    pub fn find(name: &[u8]) -> Self {
        if let [b] = name {
            return Self::from_compact(*b);
        }
        let mut slot = hash(name);
        loop {
            let index = BY_HASH.get(slot).copied().unwrap_or(u8::MAX);
            let Some((text, found)) = Self::TABLE.get(usize::from(index)) else { return Self::Other };
            if text.as_bytes() == name || text.as_bytes().eq_ignore_ascii_case(name) {
                return *found;
            }
            slot = slot.wrapping_add(1) % SLOTS;
        }
    }

    /// Whether several values may stand in one line, separated by commas (RFC 3261 §7.3.1). Lists of credentials and free text may not.
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Self::Via
                | Self::Contact
                | Self::ContentEncoding
                | Self::Allow
                | Self::Supported
                | Self::Route
                | Self::RecordRoute
                | Self::Require
                | Self::ProxyRequire
                | Self::Accept
                | Self::PAssertedIdentity
                | Self::PPreferredIdentity
                | Self::RemotePartyId
                | Self::Diversion
                | Self::HistoryInfo
                | Self::AllowEvents
                | Self::Reason
                | Self::Warning
                | Self::Path
                | Self::ServiceRoute
                | Self::PAccessNetworkInfo
                | Self::AcceptContact
                | Self::RejectContact
                | Self::RequestDisposition
        )
    }

    /// Whether a second one in a message is a fault.
    pub(super) const fn is_single(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::MaxForwards
                | Self::ContentType
                | Self::Expires
                | Self::Date
        )
    }

    /// One bit per name.
    pub(super) const fn bit(self) -> u64 {
        1 << (self as u32)
    }
}

/// Room in the hash table of names: four times as many as there are, so that a name that is not there is mostly settled by one look.
const SLOTS: usize = 256;

/// Indices into the table of names, open addressing; 255 is an empty slot.
static BY_HASH: [u8; SLOTS] = by_hash();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time: a wrong index would not build")]
const fn by_hash() -> [u8; SLOTS] {
    let mut table = [u8::MAX; SLOTS];
    let mut index = 0_u8;
    while (index as usize) < HeaderName::TABLE.len() {
        let mut slot = hash(HeaderName::TABLE[index as usize].0.as_bytes());
        while table[slot] != u8::MAX {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = index;
        index += 1;
    }
    table
}

/// Length, first and last letter tell header names apart, but for a few.
#[inline]
const fn hash(name: &[u8]) -> usize {
    match name {
        [first, .., last] => {
            let letters = (*first as usize & 0x1f).wrapping_mul(19) ^ (*last as usize & 0x1f).wrapping_mul(7);
            letters.wrapping_add(name.len().wrapping_mul(31)) % SLOTS
        }
        _ => 0,
    }
}

/// One header line with its continuation lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    /// A name and a value; offsets into the message, white space around both removed.
    Field { name: (usize, usize), value: (usize, usize), next: usize },
    /// A line without a colon.
    NoColon { next: usize },
    /// The empty line; the body begins at `next`.
    End { next: usize },
    /// The bytes ended before the empty line.
    Eof,
}

/// Reads the header line that begins at `at`. A line that begins with white space continues the one before it (RFC 3261 §7.3.1).
#[inline]
pub(super) fn line_at(bytes: &[u8], at: usize) -> Line {
    let rest = from(bytes, at);
    match rest {
        // A CR at the very end is an empty line whose LF was cut off.
        [] | [b'\r'] => return Line::Eof,
        [b'\n', ..] => return Line::End { next: at.saturating_add(1) },
        [b'\r', b'\n', ..] => return Line::End { next: at.saturating_add(2) },
        _ => {}
    }
    let mut end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    while matches!(rest.get(end.saturating_add(1)), Some(b' ' | b'\t')) {
        let begin = end.saturating_add(1);
        end = memchr::memchr(b'\n', from(rest, begin)).map_or(rest.len(), |i| begin.saturating_add(i));
    }
    let line = upto(rest, end);
    let next = at.saturating_add(end).saturating_add(1).min(bytes.len());
    // Names are short: a plain loop beats a vector search.
    let Some(colon) = line.iter().position(|b| *b == b':') else { return Line::NoColon { next } };
    let name = trim_end(upto(line, colon));
    let after = from(line, colon.saturating_add(1));
    let blank = after.iter().take_while(|b| is_lws(**b)).count();
    let value = trim_end(from(after, blank));
    let value_at = at.saturating_add(colon).saturating_add(1).saturating_add(blank);
    Line::Field { name: (at, at.saturating_add(name.len())), value: (value_at, value_at.saturating_add(value.len())), next }
}

#[inline]
fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes
        && is_lws(*last)
    {
        bytes = rest;
    }
    bytes
}

/// What the Content-Length headers say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ContentLength {
    /// There is none.
    #[default]
    Absent,
    /// The first one's number.
    Is(u64),
    /// The first one is not a number.
    Bad,
}

impl ContentLength {
    pub(super) fn read(value: &[u8]) -> Self {
        decimal(value).map_or(Self::Bad, Self::Is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::text::sub;

    #[test]
    fn compact_forms_are_those_of_the_registry() {
        let expected = [
            (b'a', "Accept-Contact"),
            (b'b', "Referred-By"),
            (b'c', "Content-Type"),
            (b'd', "Request-Disposition"),
            (b'e', "Content-Encoding"),
            (b'f', "From"),
            (b'i', "Call-ID"),
            (b'j', "Reject-Contact"),
            (b'k', "Supported"),
            (b'l', "Content-Length"),
            (b'm', "Contact"),
            (b'n', "Identity-Info"),
            (b'o', "Event"),
            (b'r', "Refer-To"),
            (b's', "Subject"),
            (b't', "To"),
            (b'u', "Allow-Events"),
            (b'v', "Via"),
            (b'x', "Session-Expires"),
            (b'y', "Identity"),
        ];
        for b in 0..=u8::MAX {
            let want = expected.iter().find(|(form, _)| *form == b.to_ascii_lowercase()).map_or("", |(_, name)| name);
            assert_eq!(HeaderName::find(&[b]).as_str(), want, "{}", b.escape_ascii());
        }
    }

    #[test]
    fn every_name_is_found_in_any_case() {
        for (text, name) in HeaderName::TABLE {
            assert_eq!(HeaderName::find(text.as_bytes()), *name);
            assert_eq!(HeaderName::find(text.to_ascii_uppercase().as_bytes()), *name);
            assert_eq!(HeaderName::find(text.to_ascii_lowercase().as_bytes()), *name);
        }
        assert_eq!(HeaderName::find(b"C%6Fntact"), HeaderName::Other);
        assert_eq!(HeaderName::find(b""), HeaderName::Other);
        assert!(HeaderName::TABLE.len() < 64, "one bit each");
    }

    #[test]
    fn a_line_that_begins_with_white_space_belongs_to_the_one_before() {
        let bytes = b"TO :\r\n a ;\n\ttag=1\r\nx: y\r\n";

        let Line::Field { name, value, next } = line_at(bytes, 0) else { panic!() };

        assert_eq!(sub(bytes, name.0, name.1), b"TO");
        assert_eq!(sub(bytes, value.0, value.1), b"a ;\n\ttag=1");
        assert_eq!(next, 19);
    }
}
