//! The RFC 4475 and RFC 5118 torture messages, read from `$LC_CORPORA` at run time (they are not part of this repository), and a handful of
//! messages of our own making that cover the same points.

use std::path::PathBuf;

use super::{Malformed, Message, NameAddr, Start, looks_like};

/// What a valid message must say, worked out by hand from the RFC's text.
struct Valid {
    file: &'static str,
    /// Method, or the status as text.
    start: &'static str,
    from_user: &'static [u8],
    from_host: &'static str,
    from_tag: &'static str,
    to_user: &'static [u8],
    to_host: &'static str,
    to_tag: &'static str,
    contacts: &'static [(&'static [u8], &'static str)],
    cseq: (u32, &'static str),
    call_id: &'static [u8],
    sdp: usize,
}

const LONG_CALLER: &[u8] =
    b"amazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallername";

const LONG_TAG: &str = "12982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982424";

#[rustfmt::skip]
const VALID: &[Valid] = &[
    Valid { file: "dblreq", start: "REGISTER", from_user: b"j.user", from_host: "example.com", from_tag: "43251j3j324", to_user: b"j.user", to_host: "example.com", to_tag: "", contacts: &[(b"j.user", "host.example.com")], cseq: (8, "REGISTER"), call_id: b"dblreq.0ha0isndaksdj99sdfafnl3lk233412", sdp: 0 },
    Valid { file: "esc01", start: "INVITE", from_user: b"I have spaces", from_host: "example.net", from_tag: "938", to_user: b"user", to_host: "example.com", to_tag: "", contacts: &[(b"caller", "host5.example.net")], cseq: (234_234, "INVITE"), call_id: b"esc01.239409asdfakjkn23onasd0-3234", sdp: 1 },
    Valid { file: "esc02", start: "RE%47IST%45R", from_user: b"resource", from_host: "example.com", from_tag: "f232jadfj23", to_user: b"resource", to_host: "example.com", to_tag: "", contacts: &[(b"alias1", "host1.example.com"), (b"alias3", "host3.example.com")], cseq: (29344, "RE%47IST%45R"), call_id: b"esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf", sdp: 0 },
    Valid { file: "escnull", start: "REGISTER", from_user: b"null-\0-null", from_host: "example.com", from_tag: "839923423", to_user: b"null-\0-null", to_host: "example.com", to_tag: "", contacts: &[(b"\0", "host5.example.com"), (b"\0\0", "host5.example.com")], cseq: (14_398_234, "REGISTER"), call_id: b"escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd", sdp: 0 },
    Valid { file: "intmeth", start: "!interesting-Method0123456789_*+`.%indeed'~", from_user: b"mundane", from_host: "example.com", from_tag: "_token~1'+`*%!-.", to_user: b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*", to_host: "example.com", to_tag: "", contacts: &[], cseq: (139_122_385, "!interesting-Method0123456789_*+`.%indeed'~"), call_id: b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{", sdp: 0 },
    Valid { file: "longreq", start: "INVITE", from_user: LONG_CALLER, from_host: "example.net", from_tag: LONG_TAG, to_user: b"user", to_host: "example.com", to_tag: "", contacts: &[(LONG_CALLER, "host5.example.net")], cseq: (3_882_340, "INVITE"), call_id: b"longreq.onereallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallylongcallid", sdp: 1 },
    Valid { file: "lwsdisp", start: "OPTIONS", from_user: b"caller", from_host: "example.com", from_tag: "323", to_user: b"user", to_host: "example.com", to_tag: "", contacts: &[], cseq: (60, "OPTIONS"), call_id: b"lwsdisp.1234abcd@funky.example.com", sdp: 0 },
    Valid { file: "mpart01", start: "MESSAGE", from_user: b"fluffy", from_host: "example.com", from_tag: "2fb0dcc9", to_user: b"kumiko", to_host: "example.org", to_tag: "", contacts: &[(b"fluffy", "127.0.0.1")], cseq: (1, "MESSAGE"), call_id: b"3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA..", sdp: 0 },
    Valid { file: "noreason", start: "100", from_user: b"user", from_host: "example.com", from_tag: "39ansfi3", to_user: b"user", to_host: "example.edu", to_tag: "902jndnke3", contacts: &[(b"user", "host105.example.com")], cseq: (35, "INVITE"), call_id: b"noreason.asndj203insdf99223ndf", sdp: 0 },
    Valid { file: "semiuri", start: "OPTIONS", from_user: b"caller", from_host: "example.org", from_tag: "33242", to_user: b"j_user", to_host: "example.com", to_tag: "", contacts: &[], cseq: (8, "OPTIONS"), call_id: b"semiuri.0ha0isndaksdj", sdp: 0 },
    Valid { file: "transports", start: "OPTIONS", from_user: b"caller", from_host: "example.com", from_tag: "323", to_user: b"user", to_host: "example.com", to_tag: "", contacts: &[], cseq: (60, "OPTIONS"), call_id: b"transports.kijh4akdnaqjkwendsasfdj", sdp: 0 },
    Valid { file: "unreason", start: "200", from_user: b"user", from_host: "example.com", from_tag: "11141343", to_user: b"user", to_host: "example.edu", to_tag: "2229", contacts: &[(b"user", "host198.example.com")], cseq: (35, "INVITE"), call_id: b"unreason.1234ksdfak3j2erwedfsASdf", sdp: 1 },
    Valid { file: "wsinv", start: "INVITE", from_user: b"jdrosen", from_host: "example.com", from_tag: "98asjd8", to_user: b"vivekg", to_host: "chair-dnrc.example.com", to_tag: "1918181833n", contacts: &[(b"jdrosen", "example.com")], cseq: (9, "INVITE"), call_id: b"wsinv.ndaksdj@192.0.2.1", sdp: 1 },
];

/// The other messages: Call-ID (empty when there is none) and the mark that says what is wrong or remarkable. `!` marks a remark: the message
/// breaks no rule of syntax (RFC 4475 §3.3, §3.4).
#[rustfmt::skip]
const OTHER: &[(&str, &str, &str)] = &[
    ("badaspec", "badaspec.sdf0234n2nds0a099u23h3hnnw009cdkne3", "addr_spec_whitespace"),
    ("badbranch", "badbranch.sadonfo23i420jv0as0derf3j3n", "empty_branch"),
    ("baddate", "baddate.239423mnsadf3j23lj42--sedfnm234", "bad_date"),
    ("baddn", "baddn.31415@c.example.com", "display_name_unquoted"),
    ("badinv01", "badinv01.0ha0isndaksdjasdf3234nas", "empty_param"),
    ("badvers", "badvers.31417@c.example.com", "bad_version"),
    ("bcast", "bcast.0384840201234ksdfak3j2erwedfsASdf", "!broadcast_via"),
    ("bext01", "bext01.0ha0isndaksdj", "!unknown_option_tag"),
    ("bigcode", "bigcode.asdof3uj203asdnf3429uasdhfas3ehjasdfas9i", "bad_status"),
    ("clerr", "clerr.0ha0isndaksdjweiafasdk3", "content_length_too_long"),
    ("cparam01", "cparam01.70710@saturn.example.com", "!unknown_contact_param"),
    ("cparam02", "cparam02.70710@saturn.example.com", "!unknown_contact_param"),
    ("escruri", "escruri.23940-asdfhj-aje3br-234q098w-fawerh2q-h4n5", "request_uri_headers"),
    ("insuf", "", "no_call_id"),
    ("inv2543", "inv2543.1717@ift.client.example.com", "!no_branch"),
    ("invut", "invut.0ha0isndaksdjadsfij34n23d", "!unknown_content_type"),
    ("ltgtruri", "ltgtruri.1@192.0.2.5", "request_uri_brackets"),
    ("lwsruri", "lwsruri.asdfasdoeoi2323-asdfwrn23-asd834rk423", "request_uri_whitespace"),
    ("lwsstart", "lwsstart.dfknq234oi243099adsdfnawe3@example.com", "start_line_whitespace"),
    ("mcl01", "mcl01.fhn2323orihawfdoa3o4r52o3irsdf", "content_length_conflict"),
    ("mismatch01", "mismatch01.dj0234sxdfl3", "cseq_method_mismatch"),
    ("mismatch02", "mismatch02.dj0234sxdfl3", "cseq_method_mismatch"),
    ("multi01", "multi01.98asdh@192.0.2.1", "duplicate_header"),
    ("ncl", "ncl.0ha0isndaksdj2193423r542w35", "bad_content_length"),
    ("novelsc", "novelsc.asdfasser0q239nwsdfasdkl34", "!unknown_uri_scheme"),
    ("quotbal", "quotbal.aksdj", "unbalanced_quote"),
    ("regaut01", "regaut01.0ha0isndaksdj", "!unknown_auth_scheme"),
    ("regbadct", "regbadct.k345asrl3fdbv@10.0.0.1", "addr_spec_unbracketed"),
    ("regescrt", "regescrt.k345asrl3fdbv@192.0.2.1", "!contact_uri_headers"),
    ("scalar02", "scalar02.23o0pd9vanlq3wnrlnewofjas9ui32", "bad_cseq"),
    ("scalarlg", "scalarlg.noase0of0234hn2qofoaf0232aewf2394r", "bad_cseq"),
    ("sdp01", "sdp01.ndaksdj9342dasdd", "!accept_without_sdp"),
    ("trws", "trws.oicu34958239neffasdhr2345r", "start_line_whitespace"),
    ("unkscm", "unkscm.nasdfasser0q239nwsdfasdkl34", "!unknown_uri_scheme"),
    ("unksm2", "unksm2.daksdj@hyphenated-host.example.com", "!unknown_uri_scheme"),
    ("zeromf", "zeromf.jfasdlfnm2o2l43r5u0asdfas", "!max_forwards_zero"),
];

/// RFC 5118: file, Call-ID, host of the Request-URI, its port, mark. The Content-Length of `ipv6-in-sdp` is wrong in the RFC itself.
#[rustfmt::skip]
const IPV6: &[(&str, &str, &str, Option<u16>, &str)] = &[
    ("ipv4-mapped-ipv6", "SSG9559905523997077@hlau_4100", "example.com", None, ""),
    ("ipv6-bad", "SSG9559905523997077@hlau_4100", "2001:db8::10", None, "bad_host"),
    ("ipv6-bug-abnf-3-colons", "G9559905523997077@hlau_4100", "2001:db8:::192.0.2.1", None, "bad_host"),
    ("ipv6-correct-abnf-2-colons", "G9559905523997077@hlau_4100", "2001:db8::192.0.2.1", None, ""),
    ("ipv6-good", "SSG9559905523997077@hlau_4100", "2001:db8::10", None, ""),
    ("ipv6-in-sdp", "SSG9559905523997077@hlau_4100", "2001:db8::10", None, "content_length_too_long"),
    ("mult-ip-in-header", "997077@lau_4100", "host.example.net", None, ""),
    ("mult-ip-in-sdp", "SSG9559905523997077@hlau_4100", "2001:db8::10", None, ""),
    ("port-ambiguous", "SSG9559905523997077@hlau_4100", "2001:db8::10:5070", None, ""),
    ("port-unambiguous", "SSG9559905523997077@hlau_4100", "2001:db8::10", Some(5070), ""),
    ("via-received-param-no-delim", "SSG95523997077@hlau_4100", "2001:db8::10", None, ""),
    ("via-received-param-with-delim", "SSG9559905523997077@hlau_4100", "2001:db8::10", None, ""),
];

#[test]
fn rfc_4475_valid_messages_say_exactly_what_they_say() {
    let Some(folder) = corpus("rfc4475-valid") else { return };
    for expected in VALID {
        let bytes = std::fs::read(folder.join(format!("{}.dat", expected.file))).unwrap();
        check_valid(expected, &bytes);
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), VALID.len());
}

fn check_valid(expected: &Valid, bytes: &[u8]) {
    let file = expected.file;
    assert!(looks_like(bytes), "{file}");
    let msg = Message::index(bytes).unwrap();
    let start = match msg.start() {
        Start::Request { method, .. } => method.escape_ascii().to_string(),
        Start::Response { status, .. } => status.to_string(),
    };
    assert_eq!(start, expected.start.as_bytes().escape_ascii().to_string(), "{file}");
    let (from, to) = (msg.from().unwrap(), msg.to().unwrap());
    assert_eq!(party(&from), (expected.from_user.to_vec(), expected.from_host.to_owned()), "{file}");
    assert_eq!(party(&to), (expected.to_user.to_vec(), expected.to_host.to_owned()), "{file}");
    assert_eq!(from.tag().unwrap_or_default(), expected.from_tag.as_bytes(), "{file}");
    assert_eq!(to.tag().unwrap_or_default(), expected.to_tag.as_bytes(), "{file}");
    let contacts: Vec<_> = msg.contacts().map(|contact| party(&contact)).collect();
    let wanted: Vec<_> = expected.contacts.iter().map(|(user, host)| (user.to_vec(), (*host).to_owned())).collect();
    assert_eq!(contacts, wanted, "{file}");
    let cseq = msg.cseq().unwrap();
    assert_eq!((cseq.number, cseq.method), (expected.cseq.0, expected.cseq.1.as_bytes()), "{file}");
    assert_eq!(msg.call_id().unwrap().as_ref(), expected.call_id, "{file}");
    assert_eq!(msg.sdp_bodies().len(), expected.sdp, "{file}");
    let marks: Vec<_> = msg.malformed().violations().reasons().collect();
    assert!(marks.is_empty(), "{file}: {marks:?}");
}

#[test]
fn rfc_4475_other_messages_keep_their_call_id_and_are_marked() {
    let Some(folder) = corpus("rfc4475-other") else { return };
    for (file, call_id, mark) in OTHER {
        let bytes = std::fs::read(folder.join(format!("{file}.dat"))).unwrap();
        assert!(looks_like(&bytes), "{file}");
        let msg = Message::index(&bytes).unwrap();
        assert_eq!(msg.call_id().unwrap_or_default().as_ref(), call_id.as_bytes(), "{file}");
        check_mark(file, msg.malformed(), mark);
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), OTHER.len());
}

/// A violation must be there; a remark must be there, and no violation beside it.
fn check_mark(file: &str, marks: Malformed, expected: &str) {
    let all: Vec<_> = marks.reasons().collect();
    if let Some(remark) = expected.strip_prefix('!') {
        assert!(all.contains(&remark), "{file}: {all:?}");
        assert!(!marks.is_malformed(), "{file}: {all:?}");
    } else {
        assert!(marks.violations().reasons().any(|reason| reason == expected), "{file}: {all:?}");
    }
}

/// Messages of our own making over the same points, for a checkout without the corpora.
#[test]
fn own_torture_messages_behave_like_those_of_the_rfc() {
    #[rustfmt::skip]
    let valid = [
        (
            Valid { file: "own folded", start: "INVITE", from_user: b"ann lee", from_host: "a.example", from_tag: "f1", to_user: b"bob;x=@y", to_host: "b.example", to_tag: "t1", contacts: &[(b"ann", "2001:db8::7"), (b"", "c.example")], cseq: (7, "INVITE"), call_id: b"Own-1@a", sdp: 1 },
            &b"INVITE sip:bob;x=%40y@b.example;p SIP/2.0\r\nTO :\r\n <sip:bob;x=%40y@b.example>\r\n\t; tag = t1\r\nf: \"sip:no@x, \\\"Ann\\\"\" <sip:ann%20lee@a.example>;u=\";tag=no\";tag=f1\r\nI :\r\n Own-1@a\r\ncseq: 0007\r\n  INVITE\r\nv: SIP / 2.0 / UDP\r\n a.example ; branch=z9hG4bKx ,SIP/2.0/TCP b;branch=z9hG4bKy\r\nm: \"A, B\" <sip:ann@[2001:db8::7]:5070>, sip:c.example\r\nX-Odd: ;;,,;\r\ns :\r\nc: application/sdp\r\nCONTENT-LENGTH  : 5\r\n\r\nv=0\r\nINVITE sip:next SIP/2.0\r\n"[..],
        ),
        (
            Valid { file: "own method", start: "x!%*_+`'~-.9", from_user: b"m", from_host: "a", from_tag: "f", to_user: b"nul\0", to_host: "b", to_tag: "", contacts: &[], cseq: (2, "x!%*_+`'~-.9"), call_id: b"w(<>:\\\"/[]?{}", sdp: 0 },
            b"x!%*_+`'~-.9 sip:a SIP/2.0\nTo: \"\\\0\" <sip:nul%00@b>\nFrom: tok.en *!<sip:m@a>;tag=f\nCall-ID: w(<>:\\\"/[]?{}\nCSeq: 2 x!%*_+`'~-.9\nVia: SIP/2.0/UDP a;branch=z9hG4bKq\nl:0\n\n",
        ),
        (
            Valid { file: "own answer", start: "183", from_user: b"a", from_host: "x", from_tag: "1", to_user: b"b", to_host: "x", to_tag: "2", contacts: &[], cseq: (3, "INVITE"), call_id: b"q", sdp: 0 },
            "SIP/2.0 183 в пути \r\nVia: SIP/2.0/UDP a;branch=z9hG4bKq\r\nt: sip:b@x;tag=2\r\nf: sip:a@x;tag=1\r\ni: q\r\nCSeq: 3 INVITE\r\n\r\n".as_bytes(),
        ),
    ];
    for (expected, bytes) in &valid {
        check_valid(expected, bytes);
    }

    let base = "Via: SIP/2.0/UDP a;branch=z9hG4bKq\r\nFrom: sip:a@x;tag=1\r\nCall-ID: q\r\nMax-Forwards: 9\r\n";
    for (start, headers, mark) in [
        ("OPTIONS sip:a SIP/3.1", "To: sip:b\r\nCSeq: 1 OPTIONS", "bad_version"),
        ("OPTIONS  sip:a SIP/2.0", "To: sip:b\r\nCSeq: 1 OPTIONS", "start_line_whitespace"),
        ("OPTIONS <sip:a> SIP/2.0", "To: sip:b\r\nCSeq: 1 OPTIONS", "request_uri_brackets"),
        ("OPTIONS sip:a; lr SIP/2.0", "To: sip:b\r\nCSeq: 1 OPTIONS", "request_uri_whitespace"),
        ("OPTIONS sip:a?X=y SIP/2.0", "To: sip:b\r\nCSeq: 1 OPTIONS", "request_uri_headers"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nCSeq: 1 INVITE", "cseq_method_mismatch"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nCSeq: 4294967296 OPTIONS", "bad_cseq"),
        ("OPTIONS sip:a SIP/2.0", "To: \"b <sip:b>\r\nCSeq: 1 OPTIONS", "unbalanced_quote"),
        ("OPTIONS sip:a SIP/2.0", "To: < sip:b >\r\nCSeq: 1 OPTIONS", "addr_spec_whitespace"),
        ("OPTIONS sip:a SIP/2.0", "To: B, C <sip:b>\r\nCSeq: 1 OPTIONS", "display_name_unquoted"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nTo: sip:c\r\nCSeq: 1 OPTIONS", "duplicate_header"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nl: 1\r\nl: 0\r\nCSeq: 1 OPTIONS", "content_length_conflict"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nDate: Fri, 01 Jan 2010 16:00:00 EST\r\nCSeq: 1 OPTIONS", "bad_date"),
        ("OPTIONS sip:a SIP/2.0", "To: sip:b\r\nm: <sip:b>;;\r\nCSeq: 1 OPTIONS", "empty_param"),
        ("OPTIONS urn:a SIP/2.0", "To: sip:b\r\nCSeq: 1 OPTIONS", "!unknown_uri_scheme"),
        ("SIP/2.0 99999 x", "To: sip:b\r\nCSeq: 1 OPTIONS", "bad_status"),
    ] {
        let bytes = format!("{start}\r\n{base}{headers}\r\n\r\n");
        let msg = Message::index(bytes.as_bytes()).unwrap();
        assert_eq!(msg.call_id().unwrap().as_ref(), b"q", "{mark}");
        check_mark(&bytes, msg.malformed(), mark);
    }
}

#[test]
fn rfc_5118_messages_read_the_same_with_crlf_and_with_lf() {
    let Some(folder) = corpus("rfc5118") else { return };
    for (file, call_id, host, port, mark) in IPV6 {
        let lf: Vec<u8> = std::fs::read(folder.join(file)).unwrap().into_iter().filter(|b| *b != b'\r').collect();
        let crlf =
            lf.iter().flat_map(|b| if *b == b'\n' { &b"\r\n"[..] } else { std::slice::from_ref(b) }).copied().collect::<Vec<_>>();
        for (bytes, strict) in [(crlf, true), (lf, false)] {
            assert!(looks_like(&bytes), "{file}");
            let msg = Message::index(&bytes).unwrap();
            let Start::Request { uri, .. } = msg.start() else { panic!("{file}") };
            let uri = super::Uri::parse(uri).unwrap();
            assert_eq!(msg.call_id().unwrap().as_ref(), call_id.as_bytes(), "{file}");
            assert_eq!((uri.host(), uri.port()), (host.as_bytes(), *port), "{file}");
            // Content-Length counts CRs, so the LF form may fall short of it.
            let marks: Vec<_> = msg
                .malformed()
                .violations()
                .reasons()
                .filter(|m| strict || m == mark || *m != "content_length_too_long")
                .collect();
            let wanted: &[&str] = if mark.is_empty() { &[] } else { &[mark] };
            assert_eq!(marks, wanted, "{file}");
        }
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), IPV6.len());
}

fn party(addr: &NameAddr<'_>) -> (Vec<u8>, String) {
    let uri = addr.uri().unwrap();
    (uri.user().to_vec(), String::from_utf8(uri.host().to_vec()).unwrap())
}

/// The folder of torture messages: `$LC_CORPORA/sip/…`, or `../shared/corpora/sip/…` beside the checkout.
fn corpus(name: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let root = std::env::var_os("LC_CORPORA").map_or(beside, PathBuf::from);
    let folder = root.join("sip").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    crate::not_run::say("torture messages of the RFCs", &format!("set LC_CORPORA ({} is missing)", folder.display()));
    None
}
