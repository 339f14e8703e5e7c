//! What is wrong with a message beyond what the index sees: addresses, numbers, dates, lists.
//!
//! Promises: linear time, no allocation; run only for messages somebody looks at, so the hot path does not pay for it. Refuses: to judge
//! headers whose grammar it does not know.

use super::{
    address::NameAddr,
    header::HeaderName,
    malformed::Malformed,
    message::{Message, via_param},
    start::Start,
    uri::Uri,
    value::Params,
};
use crate::protocols::text::{decimal, is_lws, is_token, next_word, split_once, starts_with_ignore_case, sub, trim};

/// Values looked at per header name; a hostile message may have thousands.
const MAX_VALUES: usize = 64;

/// RFC 3261 §8.1.1.7.
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

impl Message<'_> {
    /// Everything wrong with the message: the index's marks and a check of the headers every message has.
    pub fn malformed(&self) -> Malformed {
        let mut marks = self.marks();
        marks |= self.check_request_uri();
        marks |= self.check_cseq();
        marks |= self.check_addresses();
        marks |= self.check_vias();
        marks |= self.check_numbers();
        marks |= self.check_call_id();
        marks |= self.check_date();
        marks |= self.check_body();
        marks | self.check_extensions()
    }

    fn check_request_uri(&self) -> Malformed {
        let Start::Request { uri, .. } = self.start() else { return Malformed::NONE };
        if uri.is_empty() {
            return Malformed::NONE;
        }
        let mut marks = Malformed::REQUEST_URI_BRACKETS.when(uri.first() == Some(&b'<'));
        marks |= Malformed::REQUEST_URI_WHITESPACE.when(uri.iter().any(|b| is_lws(*b)));
        let Some(uri) = Uri::parse(uri) else { return marks | Malformed::BAD_URI };
        let flaws = uri.flaws();
        marks |= Malformed::REQUEST_URI_HEADERS.when(uri.headers().is_some());
        if marks.contains(Malformed::REQUEST_URI_WHITESPACE) {
            return marks;
        }
        marks | flaws
    }

    fn check_cseq(&self) -> Malformed {
        if !self.has(HeaderName::CSeq) {
            return Malformed::NONE;
        }
        let Some(cseq) = self.cseq() else { return Malformed::BAD_CSEQ };
        let mismatch = self.method().is_some_and(|method| method != cseq.method && !cseq.method.is_empty());
        Malformed::CSEQ_METHOD_MISMATCH.when(mismatch)
            | Malformed::BAD_CSEQ.when(cseq.number >= 1 << 31 || !is_token(cseq.method))
    }

    fn check_addresses(&self) -> Malformed {
        let mut marks = Malformed::NONE;
        if let Some(from) = self.from() {
            marks |= from.flaws() | Malformed::NO_FROM_TAG.when(from.tag().is_none());
        }
        if let Some(to) = self.to() {
            marks |= to.flaws();
        }
        for value in self.raw_values(HeaderName::Contact).take(MAX_VALUES) {
            marks |= check_contact(value);
        }
        for name in [HeaderName::PAssertedIdentity, HeaderName::PPreferredIdentity, HeaderName::Diversion] {
            for value in self.raw_values(name).take(MAX_VALUES) {
                marks |= if value.is_empty() { Malformed::EMPTY_PARAM } else { NameAddr::parse(value).flaws() };
            }
        }
        marks
    }

    fn check_vias(&self) -> Malformed {
        let mut marks = Malformed::NONE;
        for (i, via) in self.raw_values(HeaderName::Via).take(MAX_VALUES).enumerate() {
            if trim(via).is_empty() {
                marks |= Malformed::EMPTY_PARAM;
                continue;
            }
            let (sent, params) = split_once(via, b';').unwrap_or((via, &[]));
            let slashes = memchr::memchr_iter(b'/', sent).count();
            marks |= Malformed::BAD_VIA.when(slashes < 2 || !sent.iter().any(|b| is_lws(*b)));
            marks |= Malformed::BROADCAST_VIA.when(trim(sent).ends_with(b"255.255.255.255"));
            // `SIP/7.0/UDP` in a Via goes with the version of the start line, so only parameters are looked at here.
            marks |= Malformed::EMPTY_PARAM.when(
                Params::after_semicolon(params).any(|(name, _)| name.is_empty())
                    || (via.contains(&b';') && trim(params).is_empty()),
            );
            let branch = via_param(via, b"branch");
            marks |= Malformed::EMPTY_BRANCH.when(branch.is_some_and(|b| b.is_empty() || b.eq_ignore_ascii_case(MAGIC_COOKIE)));
            marks |= Malformed::NO_BRANCH.when(i == 0 && branch.is_none());
        }
        marks
    }

    fn check_numbers(&self) -> Malformed {
        let mut marks = Malformed::NONE;
        for (name, max) in [
            (HeaderName::MaxForwards, 255),
            (HeaderName::Expires, u64::from(u32::MAX)),
            (HeaderName::MinExpires, u64::from(u32::MAX)),
            (HeaderName::RetryAfter, u64::from(u32::MAX)),
            (HeaderName::SessionExpires, u64::from(u32::MAX)),
        ] {
            let Some(value) = self.first_raw(name) else { continue };
            // Retry-After and Session-Expires may have a comment or parameters behind the number.
            let end = value.iter().position(|b| matches!(b, b';' | b'(') || is_lws(*b)).unwrap_or(value.len());
            let number = decimal(sub(value, 0, end));
            marks |= Malformed::BAD_NUMBER.when(number.is_none_or(|n| n > max));
            marks |= Malformed::MAX_FORWARDS_ZERO.when(name == HeaderName::MaxForwards && number == Some(0));
        }
        for mut warning in self.raw_values(HeaderName::Warning).take(MAX_VALUES) {
            let code = next_word(&mut warning).unwrap_or_default();
            marks |= Malformed::BAD_NUMBER.when(code.len() != 3 || decimal(code).is_none());
        }
        marks
    }

    fn check_call_id(&self) -> Malformed {
        let Some(value) = self.first_raw(HeaderName::CallId) else { return Malformed::NONE };
        Malformed::BAD_CALL_ID.when(value.is_empty() || value.iter().any(|b| is_lws(*b)))
    }

    fn check_date(&self) -> Malformed {
        let Some(value) = self.first_raw(HeaderName::Date) else { return Malformed::NONE };
        Malformed::BAD_DATE.when(!trim(value).ends_with(b" GMT"))
    }

    fn check_body(&self) -> Malformed {
        if self.body().is_empty() {
            return Malformed::NONE;
        }
        let Some(kind) = self.content_type() else { return Malformed::NO_CONTENT_TYPE };
        Malformed::ENCODED_BODY.when(self.is_body_encoded())
            | Malformed::UNKNOWN_CONTENT_TYPE
                .when(starts_with_ignore_case(kind, b"application/") && !is_one_of(sub(kind, 12, kind.len()), APPLICATION_TYPES))
    }

    fn check_extensions(&self) -> Malformed {
        let mut marks = Malformed::NONE;
        for name in [HeaderName::Require, HeaderName::ProxyRequire] {
            for tag in self.raw_values(name).take(MAX_VALUES) {
                marks |= Malformed::UNKNOWN_OPTION_TAG.when(!is_one_of(tag, OPTION_TAGS));
            }
        }
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for mut value in self.raw_values(name).take(MAX_VALUES) {
                let scheme = next_word(&mut value).unwrap_or_default();
                marks |= Malformed::UNKNOWN_AUTH_SCHEME.when(!is_one_of(scheme, AUTH_SCHEMES));
            }
        }
        if self.method() == Some(b"INVITE") && self.has(HeaderName::Accept) {
            let accepts = self.raw_values(HeaderName::Accept).take(MAX_VALUES).any(|value| {
                let range = trim(value.split(|b| *b == b';').next().unwrap_or_default());
                is_one_of(range, &["application/sdp", "application/*", "*/*"])
            });
            marks |= Malformed::ACCEPT_WITHOUT_SDP.when(!accepts);
        }
        marks
    }
}

fn check_contact(value: &[u8]) -> Malformed {
    if value.is_empty() {
        return Malformed::EMPTY_PARAM;
    }
    if value == b"*" {
        return Malformed::NONE;
    }
    let contact = NameAddr::parse(value);
    let mut marks = contact.flaws();
    for (name, number) in contact.params() {
        if name.eq_ignore_ascii_case(b"expires") {
            marks |= Malformed::BAD_NUMBER.when(number.and_then(decimal).is_none_or(|n| n > u64::from(u32::MAX)));
        }
    }
    if let Some(uri) = contact.uri() {
        marks |= Malformed::CONTACT_URI_HEADERS.when(uri.headers().is_some());
        // RFC 4475 §3.3.12, §3.3.13: a parameter nobody registered, on either side of the angle bracket.
        marks |= Malformed::UNKNOWN_CONTACT_PARAM
            .when(contact.params().any(|(name, _)| !is_contact_param(name)) || uri.params().any(|(name, _)| !is_uri_param(name)));
    }
    marks
}

/// Registered Contact parameters; `+…` are feature tags of their own tree (RFC 3840 §9). An empty name is another mark's business.
fn is_contact_param(name: &[u8]) -> bool {
    matches!(name.first(), None | Some(b'+')) || is_one_of(name, CONTACT_PARAMS)
}

fn is_uri_param(name: &[u8]) -> bool {
    name.is_empty() || is_one_of(name, URI_PARAMS)
}

fn is_one_of(value: &[u8], known: &[&str]) -> bool {
    let value = trim(value);
    known.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(value))
}

/// Application types that travel in SIP (IANA media types, and what 3GPP and SIP RFCs added).
const APPLICATION_TYPES: &[&str] = &[
    "sdp",
    "dtmf-relay",
    "dtmf",
    "pidf+xml",
    "pidf-diff+xml",
    "xpidf+xml",
    "isup",
    "qsig",
    "rlmi+xml",
    "reginfo+xml",
    "dialog-info+xml",
    "conference-info+xml",
    "simple-message-summary",
    "resource-lists+xml",
    "rs-metadata+xml",
    "rs-metadata",
    "vq-rtcpxr",
    "media_control+xml",
    "watcherinfo+xml",
    "im-iscomposing+xml",
    "kpml-request+xml",
    "kpml-response+xml",
    "trickle-ice-sdpfrag",
    "pkcs7-mime",
    "pkcs7-signature",
    "octet-stream",
    "xml",
    "json",
    "3gpp-ims+xml",
    "vnd.3gpp.sms",
    "vnd.3gpp.ussd+xml",
    "vnd.etsi.aoc+xml",
    "vnd.etsi.pstn+xml",
    "load-control+xml",
    "emergencycalldata.ecall.msd",
];

/// Option tags of the IANA registry.
const OPTION_TAGS: &[&str] = &[
    "100rel",
    "199",
    "answermode",
    "early-session",
    "eventlist",
    "explicitsub",
    "from-change",
    "geolocation-http",
    "geolocation-sip",
    "gin",
    "gruu",
    "histinfo",
    "ice",
    "join",
    "multiple-refer",
    "norefersub",
    "nosub",
    "outbound",
    "path",
    "policy",
    "precondition",
    "pref",
    "privacy",
    "recipient-list-invite",
    "recipient-list-message",
    "recipient-list-subscribe",
    "record-aware",
    "replaces",
    "resource-priority",
    "sdp-anat",
    "sec-agree",
    "siprec",
    "sip-cc",
    "tdialog",
    "timer",
    "trickle-ice",
    "uui",
];

/// Schemes of the IANA registry that SIP uses, and what 3GPP added.
const AUTH_SCHEMES: &[&str] = &["Digest", "Basic", "Bearer", "NTLM", "Kerberos", "Negotiate", "TLS-DSK"];

/// Contact parameters and base feature tags of the IANA registries.
const CONTACT_PARAMS: &[&str] = &[
    "q",
    "expires",
    "tag",
    "reg-id",
    "pub-gruu",
    "temp-gruu",
    "temp-gruu-cookie",
    "mp",
    "np",
    "rc",
    "audio",
    "video",
    "text",
    "data",
    "application",
    "control",
    "automata",
    "class",
    "duplex",
    "mobility",
    "description",
    "events",
    "priority",
    "methods",
    "extensions",
    "schemes",
    "actor",
    "language",
    "isfocus",
    "type",
];

/// SIP URI parameters of the IANA registry, and `;rport`-like ones every registrar writes.
const URI_PARAMS: &[&str] = &[
    "transport",
    "user",
    "method",
    "ttl",
    "maddr",
    "lr",
    "comp",
    "gr",
    "ob",
    "aai",
    "bnc",
    "cause",
    "ccxml",
    "content-type",
    "delay",
    "duration",
    "extension",
    "locale",
    "m",
    "maxage",
    "maxstale",
    "play",
    "repeat",
    "sg",
    "sigcomp-id",
    "target",
    "voicexml",
    "isub",
    "ext",
    "phone-context",
    "cpc",
    "oli",
    "rinstance",
    "line",
    "alias",
    "tgrp",
    "trunk-context",
    "iotl",
];
