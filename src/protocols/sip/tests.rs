//! What the index, the identities and the framer promise, on messages of our own making; the properties hold on any bytes.

use proptest::prelude::*;

use super::{Framed, Framer, HeaderName, Message, identities, imeis, imsis, looks_like, probe};
use crate::field::Field;

const INVITE: &[u8] = b"INVITE sip:+4930123@gw.example;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1, SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2\r\n\
Max-Forwards: 70\r\n\
From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=a1\r\n\
To: <sip:%62ob@example.com>\r\n\
Call-ID: c1@192.0.2.1\r\n\
CSeq: 1 INVITE\r\n\
Contact: \"Bob, sip:x\" <sip:bob@192.0.2.9:5070;transport=udp>;+sip.instance=\"<urn:gsma:imei:35293602-014501-0>\", <sip:b2@192.0.2.10>\r\n\
P-Asserted-Identity: \"A\" <sip:alice@example.com>, <tel:+1-212-555-0101>\r\n\
Diversion: <sip:carol@example.com>;reason=user-busy\r\n\
History-Info: <sip:dave@example.com>;index=1, <sip:erin@example.com>;index=1.1\r\n\
Authorization: Digest username=\"262011234567890@ims.mnc001.mcc262.3gppnetwork.org\", realm=\"x\", uri=\"sip:x,y\"\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 5\r\n\
\r\n\
v=0\r\ntrailing octets";

fn index(bytes: &[u8]) -> Message<'_> {
    Message::index(bytes).unwrap()
}

fn reasons(bytes: &[u8]) -> Vec<&'static str> {
    index(bytes).malformed().reasons().collect()
}

#[test]
fn a_shorter_content_length_cuts_the_body_and_a_longer_one_is_marked() {
    assert_eq!(index(INVITE).body(), b"v=0\r\n");

    let longer = b"OPTIONS sip:a@b SIP/2.0\r\nl : 9\r\n\r\nabc";
    assert_eq!(index(longer).body(), b"abc");
    assert!(reasons(longer).contains(&"content_length_too_long"));

    let absent = b"OPTIONS sip:a@b SIP/2.0\r\n\r\nabc";
    assert_eq!(index(absent).body(), b"abc");
    assert!(Message::index_framed(absent).unwrap().marks().reasons().any(|r| r == "no_content_length"));
}

#[test]
fn comma_lists_and_repeated_headers_are_one_list() {
    let msg = index(INVITE);

    assert_eq!(msg.raw_values(HeaderName::Via).count(), 2);
    assert_eq!(msg.via_branch(), Some(&b"z9hG4bK1"[..]));
    assert_eq!(msg.contacts().count(), 2);
    assert_eq!(msg.contacts().next().unwrap().display().as_ref(), b"Bob, sip:x");
    let repeated = index(b"A sip:b SIP/2.0\r\nv: 1\r\nVIA : 2 , 3\r\n\r\n");
    let values: Vec<_> = repeated.values(HeaderName::Via).map(std::borrow::Cow::into_owned).collect();
    assert_eq!(values, [b"1", b"2", b"3"]);
}

#[test]
fn lf_only_folded_and_spaced_headers_read_like_any_other() {
    let msg = index(b"NEWMETHOD sip:b SIP/2.0\nI\t:\n abc@x\nCSeq : 7\n\tNEWMETHOD\nsubject: a\n b\n\nbody");

    assert_eq!(msg.call_id().unwrap().as_ref(), b"abc@x");
    assert_eq!(msg.cseq().map(|c| (c.number, c.method)), Some((7, &b"NEWMETHOD"[..])));
    assert_eq!(msg.first(HeaderName::Subject).unwrap().as_ref(), b"a b");
    assert_eq!(msg.body(), b"body");
}

#[test]
fn unknown_headers_keep_their_names() {
    let msg = index(b"OPTIONS sip:b SIP/2.0\r\nX-Call : 1\r\n\r\n");

    assert_eq!(msg.headers().next(), Some((HeaderName::Other, &b"X-Call"[..], &b"1"[..])));
}

#[test]
fn limits_are_marked_and_the_rest_is_still_read() {
    let mut many = b"OPTIONS sip:b SIP/2.0\r\nCall-ID: a\r\n".to_vec();
    for i in 0..300 {
        many.extend_from_slice(format!("X-{i}: y\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\nbody");
    let msg = index(&many);
    assert_eq!((msg.headers().count(), msg.body()), (256, &b"body"[..]));
    assert!(reasons(&many).contains(&"too_many_headers"));

    let mut long = b"OPTIONS sip:b SIP/2.0\r\nSubject: ".to_vec();
    long.resize(long.len() + 9000, b'x');
    long.extend_from_slice(b"\r\nCall-ID: a\r\n\r\n");
    assert_eq!(index(&long).call_id().unwrap().as_ref(), b"a");
    assert!(reasons(&long).contains(&"header_too_long"));
}

#[test]
fn broken_messages_are_indexed_and_marked() {
    for (bytes, reason) in [
        (&b"OPTIONS sip:b SIP/2.0\r\nno colon here\r\n\r\n"[..], "header_without_colon"),
        (b"OPTIONS sip:b SIP/2.0\r\nCall-ID: a", "headers_unterminated"),
        (b"OPTIONS sip:b SIP/2.0\r\n X: y\r\n\r\n", "leading_fold"),
        (b"OPTIONS sip:b SIP/2.0\r\nb ad: y\r\n\r\n", "bad_header_name"),
        (b"OPTIONS sip:b SIP/2.0\r\nl: 1x\r\n\r\n", "bad_content_length"),
        (b"OPTIONS sip:b SIP/2.0\r\ni: a b\r\n\r\n", "bad_call_id"),
        (b"OPTIONS sip:b SIP/2.0\r\nv: x\r\n\r\n", "bad_via"),
        (b"OPTIONS sip:b SIP/2.0\r\nc: application/sdp\r\ne: gzip\r\n\r\nx", "encoded_body"),
        (b"OPTIONS sip:b SIP/2.0\r\n\r\nx", "no_content_type"),
        (b"OPTIONS sip:b SIP/2.0", "no_via"),
    ] {
        let all = reasons(bytes);
        assert!(all.contains(&reason), "{}: {all:?}", bytes.escape_ascii());
    }
}

#[test]
fn an_anonymous_from_does_not_hide_the_other_identities() {
    let mut seen = Vec::new();

    identities(&index(INVITE), &mut |field, id| {
        let number = id.number.map(|n| n.as_str().to_owned()).unwrap_or_default();
        seen.push((field, String::from_utf8_lossy(id.user).into_owned(), String::from_utf8_lossy(id.host).into_owned(), number));
    });

    let seen: Vec<_> = seen.iter().map(|(f, u, h, n)| (*f, u.as_str(), h.as_str(), n.as_str())).collect();
    assert_eq!(
        seen,
        [
            (Field::SipRequestUri, "+4930123", "gw.example", "+4930123"),
            (Field::SipFrom, "anonymous", "anonymous.invalid", ""),
            (Field::SipTo, "bob", "example.com", ""),
            (Field::SipPAssertedIdentity, "alice", "example.com", ""),
            (Field::SipPAssertedIdentity, "+1-212-555-0101", "", "+12125550101"),
            (Field::SipDiversion, "carol", "example.com", ""),
            (Field::SipHistoryInfo, "dave", "example.com", ""),
            (Field::SipHistoryInfo, "erin", "example.com", ""),
            (Field::SipContact, "bob", "192.0.2.9", ""),
            (Field::SipContact, "b2", "192.0.2.10", ""),
            (Field::SipAuthUser, "262011234567890", "ims.mnc001.mcc262.3gppnetwork.org", ""),
        ]
    );
}

#[test]
fn the_remaining_identity_fields_are_read_too() {
    let msg = b"INVITE tel:1 SIP/2.0\r\nP-Preferred-Identity: sip:p@x;a=b\r\nP-Called-Party-ID: <sip:q@x>\r\n\
Remote-Party-ID: \"R\" <sip:r@x>;party=calling\r\nProxy-Authorization: Digest realm=\"re,alm\", username*=UTF-8''%c3%a4\r\n\r\n";
    let mut seen = Vec::new();

    identities(&index(msg), &mut |field, id| seen.push((field, id.user.to_vec(), id.host.to_vec(), id.is_tel)));

    assert_eq!(
        seen,
        [
            (Field::SipRequestUri, b"1".to_vec(), vec![], true),
            (Field::SipPPreferredIdentity, b"p".to_vec(), b"x".to_vec(), false),
            (Field::SipPCalledPartyId, b"q".to_vec(), b"x".to_vec(), false),
            (Field::SipRemotePartyId, b"r".to_vec(), b"x".to_vec(), false),
            (Field::SipAuthUser, "ä".as_bytes().to_vec(), b"re,alm".to_vec(), false),
        ]
    );
}

#[test]
fn imsi_needs_a_3gpp_domain_and_imei_comes_with_both_last_digits() {
    let (mut subscribers, mut devices) = (Vec::new(), Vec::new());
    imsis(&index(INVITE), &mut |id| subscribers.push(id.to_vec()));
    imeis(&index(INVITE), &mut |id| devices.push(id.to_vec()));

    assert_eq!(subscribers, [b"262011234567890"]);
    assert_eq!(devices, [b"352936020145010", b"352936020145016"]);

    let plain = b"REGISTER sip:b SIP/2.0\r\nAuthorization: Digest username=\"262011234567890\", realm=\"example.com\"\r\n\
m: <sip:b>;+sip.instance=\"<urn:urn-7:3gpp-imei:35293602-014501>\"\r\n\r\n";
    subscribers.clear();
    devices.clear();
    imsis(&index(plain), &mut |id| subscribers.push(id.to_vec()));
    imeis(&index(plain), &mut |id| devices.push(id.to_vec()));
    assert!(subscribers.is_empty());
    assert_eq!(devices.len(), 2);
}

#[test]
fn sdp_is_found_in_multipart_bodies_one_inside_another() {
    let body = "preamble\r\n--b1\r\nContent-Type: application/isup\r\n\r\n--b1x\r\n\r\n--b1\r\n\
c : multipart/mixed; boundary=\"b2\"\r\n\r\n--b2\r\nContent-Type: application/SDP\r\n\r\nv=0\r\ns=inner\r\n--b2--\r\n\r\n--b1\r\n\
Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n\r\nxx\r\n--b1\r\nContent-Type: application/sdp;x=y\r\n\r\nv=0\r\ns=outer\r\n--b1--\r\nepilogue";
    let message = format!("INVITE sip:b SIP/2.0\r\nContent-Type: multipart/mixed;boundary=b1\r\n\r\n{body}");

    let found = index(message.as_bytes()).sdp_bodies();

    assert_eq!(found.as_slice(), [&b"v=0\r\ns=inner"[..], b"v=0\r\ns=outer"]);
}

#[test]
fn sdp_bodies_are_direct_or_recognised_and_never_decoded() {
    for (head, found) in [
        ("Content-Type: application/sdp", 1),
        ("c: APPLICATION/SDP ; charset=x", 1),
        ("X: y", 1),
        ("Content-Type: text/plain", 0),
        ("Content-Type: application/sdp\r\ne: gzip", 0),
        ("Content-Type: multipart/mixed", 0),
    ] {
        let message = format!("INVITE sip:b SIP/2.0\r\n{head}\r\n\r\nv=0\r\n");
        assert_eq!(index(message.as_bytes()).sdp_bodies().len(), found, "{head}");
    }
}

/// Feeds `stream` in pieces that end at `cuts` and gives what the framer found.
fn frame(framer: &mut Framer, stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let (mut buffer, mut found, mut at) = (Vec::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([stream.len()]) {
        let cut = cut.clamp(at, stream.len());
        buffer.extend_from_slice(&stream[at..cut]);
        at = cut;
        loop {
            match framer.next(&buffer) {
                Framed::NeedMore => break,
                Framed::Skip(n) => {
                    assert!(n > 0);
                    buffer.drain(..n);
                }
                Framed::Message(n) => found.push(buffer.drain(..n).collect()),
            }
        }
        assert!(buffer.len() <= super::MAX_MESSAGE);
    }
    if let Some(n) = framer.close(&buffer) {
        found.push(buffer[..n].to_vec());
    }
    found
}

fn every_byte(stream: &[u8]) -> Vec<usize> {
    (1..stream.len()).collect()
}

fn message(n: u32, head: &str, body: &str) -> Vec<u8> {
    format!("MESSAGE sip:b SIP/2.0\r\nCall-ID: {n}\r\n{head}\r\n\r\n{body}").into_bytes()
}

#[test]
fn frames_every_legal_spelling_of_content_length() {
    let heads = [
        "Content-Length: 4",
        "l:4",
        "L : 4",
        "CONTENT-LENGTH : 0004",
        "content-length:\r\n 4",
        "Content-Length\t:\r\n\t4  ",
        "l: 4\r\nX: y",
    ];
    let messages: Vec<_> = heads.iter().enumerate().map(|(i, head)| message(u32::try_from(i).unwrap(), head, "a\r\nb")).collect();
    let stream = messages.concat();

    assert_eq!(frame(&mut Framer::new(), &stream, &[]), messages);
    assert_eq!(frame(&mut Framer::new(), &stream, &every_byte(&stream)), messages);
}

#[test]
fn keep_alives_in_the_same_segment_do_not_hide_messages() {
    let one = message(1, "l: 0", "");
    let stream = [b"\r\n\r\n", &one[..], b"\r\n\r\n", &one, b"\r\n", &one, b"\r\n\r\n"].concat();
    let mut framer = Framer::new();

    assert_eq!(frame(&mut framer, &stream, &[]).len(), 3);
    assert_eq!((framer.counts().errors, framer.counts().skipped_bytes), (0, 0));
}

#[test]
fn a_framing_error_costs_one_message() {
    let good = message(1, "l: 2", "ok");
    for bad in [
        message(2, "l: -5", "body\r\nmore\r\n"),
        message(2, "X: y", "v=0\r\ns=-\r\n"),
        message(2, "l: 99999999999999999999", "body\r\n"),
        message(2, "l: 2", "longer than said\r\n"),
        b"\x16\x03\x01\x00\x05garbage\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&b"INVITE sip:b SIP/2.0\r\nX: "[..], &[b'x'; 9000], b"\r\n\r\n"].concat(),
        [&[b'x'; 9000][..], b"\r\n"].concat(),
    ] {
        let stream = [&good[..], &bad, &good, &good].concat();
        for cuts in [vec![], every_byte(&stream)] {
            let found = frame(&mut Framer::new(), &stream, &cuts);
            let whole = found.iter().filter(|m| **m == good).count();
            assert_eq!(whole, 3, "{}", bad.escape_ascii());
        }
    }
}

#[test]
fn a_body_too_long_to_keep_is_skipped_by_count() {
    let mut stream = message(1, "l: 300000", "");
    let head = stream.len();
    stream.resize(head + 300_000, b'\n');
    let next = message(2, "l: 0", "");
    stream.extend_from_slice(&next);

    let found = frame(&mut Framer::new(), &stream, &[70_000, 140_000, 210_000]);

    assert_eq!(found.len(), 2);
    assert_eq!((found[0].len(), &found[1]), (head, &next));
}

#[test]
fn a_gap_costs_the_cut_message_and_the_tail_of_a_line_is_not_a_start_line() {
    let one = message(1, "l: 4", "body");
    let mut framer = Framer::new();
    assert_eq!(framer.next(&one[..one.len() - 2]), Framed::NeedMore);
    assert_eq!(framer.gap(&one[..one.len() - 2]), Some(one.len() - 2));

    let stream = [&b"VITE sip:tail@x SIP/2.0\r\nCall-ID: z\r\nl: 0\r\n\r\n"[..], &one].concat();
    assert_eq!(frame(&mut framer, &stream, &[]), std::slice::from_ref(&one));

    let mut joined = Framer::mid_stream();
    assert_eq!(frame(&mut joined, &[b"\ntail\r\n\r\n", &one[..], &one].concat(), &[]).len(), 2);
    assert_eq!(joined.counts().skipped_bytes, 9);
}

#[test]
fn framing_work_grows_with_the_stream_not_with_its_square() {
    // A block of start lines without end, fed a byte at a time, would be scanned from each of its lines by a framer that tries them all.
    let stream = b"OPTIONS sip:b SIP/2.0\r\n".repeat(40_000);
    let mut framer = Framer::new();
    let mut buffer = Vec::new();
    for piece in stream.chunks(1400) {
        buffer.extend_from_slice(piece);
        let mut steps = 0;
        loop {
            match framer.next(&buffer) {
                Framed::NeedMore => break,
                Framed::Skip(n) | Framed::Message(n) => drop(buffer.drain(..n)),
            }
            steps += 1;
            assert!(steps < 8, "many answers for one piece");
        }
    }
    assert!(framer.counts().errors < 8);
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("INVITE sip:a@b SIP/2.0\r\n"),
        Just("SIP/2.0 200 OK\r\n"),
        Just("Via: "),
        Just("f:"),
        Just("To : "),
        Just("\"a"),
        Just("<sip:"),
        Just("@"),
        Just(";tag="),
        Just(","),
        Just("\r\n"),
        Just("\n"),
        Just(" "),
        Just("\t"),
        Just("\\"),
        Just("Content-Length: "),
        Just("5"),
        Just("l:"),
        Just("i: x"),
        Just("CSeq: 1 "),
        Just("[::1]:"),
        Just("%4"),
        Just("m:"),
        Just(">"),
        Just("Authorization: Digest username=\""),
        Just("c: multipart/mixed;boundary=x\r\n\r\n--x\r\n"),
        Just("--x--"),
        Just("tel:+1"),
        Just("urn:gsma:imei:12345678-123456"),
        Just("+sip.instance="),
        Just("\r\n\r\n"),
        Just("Contact:"),
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(word, 0..60).prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in hostile(), prefix in any::<bool>()) {
        let bytes = if prefix { [b"INVITE sip:a@b SIP/2.0\r\n", &bytes[..]].concat() } else { bytes };
        let _ = probe(&bytes);
        if let Some(msg) = Message::index(&bytes) {
            prop_assert!(looks_like(&bytes) || !bytes.contains(&b'\n'));
            drop((msg.malformed(), msg.call_id(), msg.cseq(), msg.via_branch(), msg.content_type(), msg.body(), msg.sdp_bodies()));
            for (name, _, _) in msg.headers() {
                for value in msg.values(name) {
                    let addr = super::NameAddr::parse(&value);
                    drop((addr.display(), addr.flaws(), addr.tag(), addr.uri().map(|u| (u.user(), u.number()))));
                }
            }
            identities(&msg, &mut |_, _| ());
            imsis(&msg, &mut |_| ());
            imeis(&msg, &mut |_| ());
        }
    }

    #[test]
    fn any_split_of_any_stream_gives_the_same_messages(
        parts in prop::collection::vec(prop_oneof![
            4 => (0_u32..9, 0_usize..40).prop_map(|(n, len)| message(n, &format!("Content-Length: {len}"), &"b".repeat(len))),
            1 => Just(b"\r\n\r\n".to_vec()),
            1 => Just(message(9, "X: y", "")),
            1 => hostile(),
        ], 0..8),
        cuts in prop::collection::vec(0_usize..3000, 0..20),
    ) {
        let stream = parts.concat();
        let mut sorted = cuts;
        sorted.sort_unstable();
        let whole = frame(&mut Framer::new(), &stream, &[]);
        prop_assert_eq!(&frame(&mut Framer::new(), &stream, &sorted), &whole);
        prop_assert_eq!(&frame(&mut Framer::new(), &stream, &every_byte(&stream)), &whole);
        for found in &whole {
            prop_assert!(Message::index_framed(found).is_some());
        }
    }
}
