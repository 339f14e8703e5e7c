//! What is wrong with a message, as a set of named marks.
//!
//! A sniffer shows broken messages instead of refusing them, so every rule that is broken becomes a mark. Two kinds share one set:
//! *violations* (the message breaks a MUST) and *remarks* (legal, or legal in RFC 2543, but worth telling an engineer). Names are stable:
//! they stand in events and records. To add a mark, add a line to the table.

use std::ops::{BitOr, BitOrAssign};

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Malformed(u64);

macro_rules! marks {
    ($($bit:literal $name:ident $text:literal, $doc:literal;)*) => {
        impl Malformed {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
            const TABLE: &[(u64, &'static str)] = &[$((1 << $bit, $text)),*];
        }
    };
}

/// Bits from here on are remarks.
const FIRST_REMARK: u32 = 48;

marks! {
    0 START_LINE_WHITESPACE "start_line_whitespace", "More than one space between the words of the start line, or space at its end (RFC 3261 §7.1).";
    1 BAD_VERSION "bad_version", "A version other than SIP/2.0.";
    2 BAD_STATUS "bad_status", "A status code that is not three digits from 100 to 699.";
    3 NO_REQUEST_URI "no_request_uri", "A request line without Request-URI.";
    4 HEADER_WITHOUT_COLON "header_without_colon", "A header line without a colon; the line is skipped.";
    5 BAD_HEADER_NAME "bad_header_name", "A header name that is not a token.";
    6 HEADERS_UNTERMINATED "headers_unterminated", "The empty line after the headers is missing.";
    7 TOO_MANY_HEADERS "too_many_headers", "More headers than the index keeps; the rest is not looked at.";
    8 HEADER_TOO_LONG "header_too_long", "A header longer than the limit; its value is cut.";
    9 MESSAGE_TOO_LONG "message_too_long", "A message longer than the limit; the rest is not looked at.";
    10 CONTENT_LENGTH_TOO_LONG "content_length_too_long", "Content-Length says more than there is (RFC 3261 §18.3).";
    11 BAD_CONTENT_LENGTH "bad_content_length", "Content-Length is not a number.";
    12 CONTENT_LENGTH_CONFLICT "content_length_conflict", "Several Content-Length headers that disagree; the first counts.";
    13 NO_CONTENT_LENGTH "no_content_length", "No Content-Length on a stream; taken as 0 (RFC 3261 §18.3).";
    14 DUPLICATE_HEADER "duplicate_header", "A header that may stand once stands twice; the first counts.";
    15 NO_CALL_ID "no_call_id", "No Call-ID.";
    16 NO_FROM "no_from", "No From.";
    17 NO_TO "no_to", "No To.";
    18 NO_CSEQ "no_cseq", "No `CSeq`.";
    19 NO_VIA "no_via", "No Via.";
    20 LEADING_FOLD "leading_fold", "A continuation line directly after the start line; skipped.";
    21 REQUEST_URI_WHITESPACE "request_uri_whitespace", "White space inside the Request-URI.";
    22 REQUEST_URI_BRACKETS "request_uri_brackets", "A Request-URI in angle brackets.";
    23 REQUEST_URI_HEADERS "request_uri_headers", "A Request-URI with a headers part (RFC 3261 §19.1.1).";
    24 BAD_URI "bad_uri", "An address without a scheme.";
    25 BAD_HOST "bad_host", "A host that is neither a name nor an address.";
    26 BAD_PORT "bad_port", "A port that is not a number below 65536.";
    27 BAD_ESCAPE "bad_escape", "A percent sign in a URI without two hexadecimal digits.";
    28 BAD_CSEQ "bad_cseq", "A `CSeq` that is not a number below 2^31 and a method (RFC 3261 §8.1.1.5).";
    29 CSEQ_METHOD_MISMATCH "cseq_method_mismatch", "The `CSeq` method differs from the request's method.";
    30 UNBALANCED_QUOTE "unbalanced_quote", "A quoted string that is not closed.";
    31 UNBALANCED_BRACKET "unbalanced_bracket", "An angle bracket that is not closed.";
    32 ADDR_SPEC_WHITESPACE "addr_spec_whitespace", "White space around or inside an address in angle brackets.";
    33 DISPLAY_NAME_UNQUOTED "display_name_unquoted", "A display name that would need quotes.";
    34 ADDR_SPEC_UNBRACKETED "addr_spec_unbracketed", "An address with a question mark or comma outside angle brackets (RFC 3261 §20).";
    35 EMPTY_PARAM "empty_param", "An empty parameter or list element.";
    36 EMPTY_BRANCH "empty_branch", "A Via branch that is nothing but the magic cookie.";
    37 BAD_DATE "bad_date", "A Date whose zone is not GMT (RFC 3261 §20.17).";
    38 BAD_NUMBER "bad_number", "A numeric header field out of its range.";
    39 BAD_CALL_ID "bad_call_id", "An empty Call-ID, or one with white space inside.";
    40 BAD_VIA "bad_via", "A Via without protocol, version, transport and sender.";
    48 NO_BRANCH "no_branch", "A top Via without branch (RFC 2543).";
    49 NO_FROM_TAG "no_from_tag", "A From without tag (RFC 2543).";
    50 UNKNOWN_URI_SCHEME "unknown_uri_scheme", "An address that is neither sip, sips nor tel.";
    51 UNKNOWN_OPTION_TAG "unknown_option_tag", "Require or Proxy-Require names an option that is not registered.";
    52 UNKNOWN_CONTENT_TYPE "unknown_content_type", "A body of an unregistered application type.";
    53 UNKNOWN_AUTH_SCHEME "unknown_auth_scheme", "Credentials of a scheme that is not registered.";
    54 MAX_FORWARDS_ZERO "max_forwards_zero", "A request that may not be forwarded any more.";
    55 BROADCAST_VIA "broadcast_via", "A Via that names the broadcast address.";
    56 CONTACT_URI_HEADERS "contact_uri_headers", "A Contact whose URI has a headers part.";
    57 UNKNOWN_CONTACT_PARAM "unknown_contact_param", "A Contact with a parameter that is not registered.";
    58 ACCEPT_WITHOUT_SDP "accept_without_sdp", "An INVITE whose Accept leaves out application/sdp.";
    59 ENCODED_BODY "encoded_body", "A body with a Content-Encoding; it is not decoded.";
    60 NO_CONTENT_TYPE "no_content_type", "A body without Content-Type.";
}

impl Malformed {
    /// No mark at all.
    pub const NONE: Self = Self(0);

    /// Whether no mark is set, remarks included.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the message breaks a rule; remarks do not count.
    pub const fn is_malformed(self) -> bool {
        self.violations().0 != 0
    }

    /// Whether every mark of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Only the broken rules.
    #[must_use]
    pub const fn violations(self) -> Self {
        Self(self.0 & ((1 << FIRST_REMARK) - 1))
    }

    /// Only what is legal and yet remarkable.
    #[must_use]
    pub const fn remarks(self) -> Self {
        Self(self.0 & !((1 << FIRST_REMARK) - 1))
    }

    /// The names of all marks set, violations first, in a fixed order.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| *name)
    }

    /// `self` when `when` holds, nothing otherwise.
    #[must_use]
    pub(super) const fn when(self, when: bool) -> Self {
        if when { self } else { Self::NONE }
    }
}

impl BitOr for Malformed {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Malformed {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_do_not_make_a_message_malformed() {
        assert!(!Malformed::NO_BRANCH.is_malformed());
        assert!((Malformed::NO_BRANCH | Malformed::BAD_HOST).is_malformed());
    }

    #[test]
    fn every_mark_has_its_own_bit_and_name() {
        let bits: std::collections::BTreeSet<_> = Malformed::TABLE.iter().map(|(bit, _)| bit).collect();
        let names: std::collections::BTreeSet<_> = Malformed::TABLE.iter().map(|(_, name)| name).collect();

        assert_eq!(bits.len(), Malformed::TABLE.len());
        assert_eq!(names.len(), Malformed::TABLE.len());
    }

    #[test]
    fn reasons_come_violations_first() {
        let both = Malformed::NO_BRANCH | Malformed::BAD_HOST;

        assert_eq!(both.reasons().collect::<Vec<_>>(), ["bad_host", "no_branch"]);
        assert_eq!(both.violations().reasons().collect::<Vec<_>>(), ["bad_host"]);
    }
}
