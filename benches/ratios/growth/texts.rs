//! Messages, descriptions and files of one repeated part.

use std::fmt::Write as _;

use lippycat::config::{Choice, Environment, Merged, Mode, Sources};
use lippycat::filter::{CompileOptions, Filter, FilterKind, FilterSet, file};
use lippycat::pattern::{Bare, Pattern, PatternId, PatternSetBuilder};
use lippycat::protocols::sip::{self, Framed, Framer, Message};
use lippycat::protocols::{sdp, ws};

use super::Series;

const START: &str = "INVITE sip:bob@example.org SIP/2.0\r\nCall-ID: x@y\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:bob@example.org>\r\nCSeq: 1 INVITE\r\n";

pub(super) const ALL: &[Series] = &[
    Series { what: "SIP header lines", n: 100, make: |n| message(&"X-Any: thing\r\n".repeat(n)) },
    Series { what: "SIP header lines of one name", n: 100, make: |n| message(&"Contact: <sip:a@b>;expires=1\r\n".repeat(n)) },
    Series { what: "SIP folded lines", n: 100, make: |n| message(&format!("Subject: a{}\r\n", "\r\n b".repeat(n))) },
    Series { what: "SIP parameters", n: 100, make: |n| message(&format!("Contact: <sip:a@b>{}\r\n", ";a=b".repeat(n))) },
    Series { what: "SIP URI parameters", n: 100, make: |n| message(&format!("Contact: <sip:a@b{}>\r\n", ";a=b".repeat(n))) },
    Series { what: "SIP quotes without an end", n: 100, make: |n| message(&format!("Contact: {}\r\n", "\"".repeat(2 * n + 1))) },
    Series { what: "SIP escaped quotes", n: 100, make: |n| message(&format!("Contact: \"{}\" <sip:a@b>\r\n", "\\\"".repeat(n))) },
    Series { what: "SIP commas", n: 100, make: |n| message(&format!("Contact: {}\r\n", "<sip:a@b>,".repeat(n))) },
    Series { what: "SIP commas alone", n: 100, make: |n| message(&format!("Via: {}\r\n", ",".repeat(n))) },
    Series { what: "SIP angle brackets", n: 100, make: |n| message(&format!("From: {}\r\n", "<".repeat(n))) },
    Series {
        what: "SIP Via lists",
        n: 100,
        make: |n| message(&format!("Via: {}\r\n", "SIP/2.0/UDP h;branch=z9hG4bK1,".repeat(n))),
    },
    Series { what: "SIP CSeq digits", n: 100, make: |n| message(&format!("CSeq: {} INVITE\r\n", "1".repeat(n))) },
    Series {
        what: "SIP white space",
        n: 100,
        make: |n| message(&format!("From{}:{}<sip:a@b>\r\n", " ".repeat(n), "\t".repeat(n))),
    },
    Series { what: "SIP escapes in a user", n: 100, make: |n| message(&format!("From: <sip:{}@b>\r\n", "%41".repeat(n))) },
    Series { what: "SIP long Call-ID", n: 100, make: |n| message(&format!("Call-ID: {}\r\n", "x".repeat(n))) },
    Series {
        what: "SIP body of many parts",
        n: 100,
        make: |n| multipart(&"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n".repeat(n)),
    },
    Series { what: "SIP body of boundaries that are none", n: 100, make: |n| multipart(&"\r\n--".repeat(n)) },
    Series { what: "SIP stream of keep-alives", n: 1000, make: |n| stream("\r\n\r\n".repeat(n), usize::MAX) },
    Series {
        what: "SIP stream of short messages",
        n: 100,
        make: |n| stream(format!("{START}Content-Length: 0\r\n\r\n").repeat(n), usize::MAX),
    },
    Series { what: "SIP stream of anything", n: 1000, make: |n| stream("SIP/2.0 INVITE ".repeat(n), usize::MAX) },
    Series {
        what: "SIP message of header lines, byte by byte",
        n: 100,
        make: |n| stream(format!("{START}{}", "X: y\r\n".repeat(n)), 1),
    },
    Series { what: "SIP message of one line, byte by byte", n: 100, make: |n| stream(format!("{START}X: {}", "y".repeat(n)), 1) },
    Series {
        what: "SIP body, byte by byte",
        n: 100,
        make: |n| stream(format!("{START}Content-Length: {n}\r\n\r\n{}", "y".repeat(n)), 1),
    },
    Series { what: "SDP lines", n: 100, make: |n| described(&"b=AS:1\r\n".repeat(n)) },
    Series {
        what: "SDP attributes",
        n: 100,
        make: |n| described(&format!("m=audio 1 RTP/AVP 0\r\n{}", "a=rtpmap:0 PCMU/8000\r\n".repeat(n))),
    },
    Series {
        what: "SDP candidates",
        n: 100,
        make: |n| described(&format!("m=audio 1 RTP/AVP 0\r\n{}", "a=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n".repeat(n))),
    },
    Series { what: "SDP media", n: 100, make: |n| described(&"m=audio 1 RTP/AVP 0\r\n".repeat(n)) },
    Series { what: "SDP formats", n: 100, make: |n| described(&format!("m=audio 1 RTP/AVP{}\r\n", " 0".repeat(n))) },
    Series {
        what: "WebSocket frames of one byte",
        n: 1000,
        make: |n| web_socket([0x02, 1, b'x'].into_iter().chain([0, 1, b'x'].repeat(n)).collect(), usize::MAX),
    },
    Series { what: "WebSocket frame, byte by byte", n: 1000, make: |n| web_socket(long_frame(n), 1) },
    Series {
        what: "filter file, filters",
        n: 100,
        make: |n| {
            filter_file(&(0..n).fold("filters:\n".to_owned(), |mut t, i| {
                let _ok = writeln!(t, "  - {{id: f{i}, type: sip_user, pattern: a{i}}}");
                t
            }))
        },
    },
    Series {
        what: "filter file, mistakes",
        n: 100,
        make: |n| filter_file(&format!("filters:\n{}", "  - {id: f, typ: sip_user, pattern: a}\n".repeat(n))),
    },
    Series { what: "filter file, brackets", n: 100, make: |n| filter_file(&"[".repeat(n)) },
    Series {
        what: "filter file, one line",
        n: 100,
        make: |n| filter_file(&format!("filters: [{}]", "{id: f, type: bpf, pattern: udp}, ".repeat(n))),
    },
    Series {
        what: "filter file, aliases",
        n: 100,
        make: |n| filter_file(&format!("filters: &a [x]\nb: [{}]", "*a, ".repeat(n))),
    },
    Series {
        what: "filter file, long texts and comments",
        n: 100,
        make: |n| {
            filter_file(&format!("# {}\nfilters: [{{id: \"{}\", type: bpf, pattern: udp}}]", "#".repeat(n), "\\u0041".repeat(n)))
        },
    },
    Series {
        what: "configuration, unknown keys",
        n: 100,
        make: |n| {
            configuration(
                "yaml",
                (0..n).fold("hunter:\n".to_owned(), |mut t, i| {
                    let _ok = writeln!(t, "  key{i}: 1");
                    t
                }),
            )
        },
    },
    Series {
        what: "configuration, TOML keys",
        n: 100,
        make: |n| {
            configuration(
                "toml",
                (0..n).fold("[hunter]\n".to_owned(), |mut t, i| {
                    let _ok = writeln!(t, "key{i} = 1");
                    t
                }),
            )
        },
    },
    Series { what: "configuration, TOML depth", n: 100, make: |n| configuration("toml", format!("a{} = 1\n", ".a".repeat(n))) },
    Series { what: "filters compiled", n: 1000, make: compiled },
    Series { what: "patterns inside each other, in a text", n: 100, make: nested_patterns },
    Series { what: "patterns around a text, built", n: 1000, make: built_patterns },
];

/// A SIP message with these lines, read whole.
fn message(lines: &str) -> Box<dyn FnMut()> {
    let bytes = format!("{}{lines}{}\r\n", &START[..36], &START[36..]).into_bytes();
    Box::new(move || {
        for msg in [Message::index(&bytes), Message::index_framed(&bytes)].into_iter().flatten() {
            read(&msg);
        }
    })
}

fn read(msg: &Message<'_>) {
    let mut seen = 0;
    for (name, raw, value) in msg.headers() {
        seen += raw.len() + value.len() + usize::from(name == sip::HeaderName::Via);
    }
    seen += msg.values(sip::HeaderName::Via).count() + msg.values(sip::HeaderName::Contact).count();
    seen += usize::from(msg.cseq().is_some()) + msg.call_id().map_or(0, |t| t.len()) + msg.body().len();
    for address in msg.from().into_iter().chain(msg.to()).chain(msg.contacts()) {
        seen += address.display().len() + address.tag().map_or(0, <[u8]>::len);
        seen += address.uri().map_or(0, |uri| uri.user().len() + uri.params().count());
    }
    sip::identities(msg, &mut |_, who| seen += who.user.len());
    sip::imsis(msg, &mut |imsi| seen += imsi.len());
    sip::imeis(msg, &mut |imei| seen += imei.len());
    seen += msg.sdp_bodies().iter().map(|body| sdp::parse(body).media.len()).sum::<usize>();
    std::hint::black_box(seen);
}

fn multipart(parts: &str) -> Box<dyn FnMut()> {
    message(&format!("Content-Type: multipart/mixed;boundary=b\r\nContent-Length: {}\r\n\r\n{parts}", parts.len()))
}

/// The messages of a stream that comes in pieces.
fn stream(bytes: String, piece: usize) -> Box<dyn FnMut()> {
    let bytes = bytes.into_bytes();
    Box::new(move || {
        let (mut framer, mut front, mut end) = (Framer::new(), 0, 0);
        while end < bytes.len() {
            end = end.saturating_add(piece).min(bytes.len());
            loop {
                match framer.next(&bytes[front..end]) {
                    Framed::NeedMore => break,
                    Framed::Skip(n) => front += n,
                    Framed::Message(n) => {
                        std::hint::black_box(Message::index_framed(&bytes[front..front + n]).is_some());
                        front += n;
                    }
                }
            }
        }
    })
}

fn described(lines: &str) -> Box<dyn FnMut()> {
    let text = format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}").into_bytes();
    Box::new(move || {
        let session = sdp::parse(&text);
        let found = session.media.iter().map(|m| usize::from(m.rtp().is_some()) + usize::from(m.format(8).is_some()));
        std::hint::black_box(found.sum::<usize>());
    })
}

fn long_frame(n: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 127];
    frame.extend((n as u64).to_be_bytes());
    frame.resize(10 + n, b'x');
    frame
}

fn web_socket(bytes: Vec<u8>, piece: usize) -> Box<dyn FnMut()> {
    Box::new(move || {
        let (mut ws, mut front, mut end) = (ws::Ws::new(), 0, 0);
        while end < bytes.len() {
            end = end.saturating_add(piece).min(bytes.len());
            loop {
                match ws.next(&bytes[front..end]) {
                    ws::Next::NeedMore => break,
                    ws::Next::Skip(n) => front += n,
                    ws::Next::Message { consumed, .. } => front += consumed,
                }
            }
        }
    })
}

fn filter_file(text: &str) -> Box<dyn FnMut()> {
    let text = text.to_owned();
    Box::new(move || drop(file::parse(&text).map(|filters| file::to_yaml(&filters))))
}

fn configuration(suffix: &str, text: String) -> Box<dyn FnMut()> {
    let path = std::env::temp_dir().join(format!("lc-growth-{}.{suffix}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    Box::new(move || {
        let environment = Environment::from_pairs([("HOME", "/nonexistent")]);
        let sources = Sources { file: Choice::Named(path.clone()), environment: &environment, flags: &[] };
        drop(Merged::load(&sources).map(|merged| merged.hunt(Mode::Voip, &environment).is_ok()));
        let _gone = std::fs::remove_file(&path);
    })
}

fn compiled(n: usize) -> Box<dyn FnMut()> {
    let filter = |i: usize| {
        let (kind, pattern) = match i % 5 {
            0 => (FilterKind::SipUser, format!("u{i}*")),
            1 => (FilterKind::PhoneNumber, format!("+4930{i:07}")),
            2 => (FilterKind::IpAddress, format!("10.{}.{}.0/24", i >> 8 & 255, i & 255)),
            3 => (FilterKind::SipUri, format!("*u{i}@example.org*")),
            _ => (FilterKind::CallId, format!("call{i}")),
        };
        Filter::new(format!("f{i}"), kind, pattern)
    };
    let filters: Vec<Filter> = (0..n).map(filter).collect();
    Box::new(move || drop(FilterSet::compile(&filters, &CompileOptions::default())))
}

/// `*a*`, `*aa*`, `*aaa*` … in a text of so many.
fn nested_patterns(n: usize) -> Box<dyn FnMut()> {
    let mut builder = PatternSetBuilder::new();
    for i in 1..200_u32 {
        builder.add(&Pattern::parse(&format!("*{}*", "a".repeat(i as usize)), Bare::Exact).unwrap(), PatternId(i)).unwrap();
    }
    let (set, text) = (builder.build().0, "a".repeat(n));
    Box::new(move || {
        let mut found = 0;
        for _ in 0..100 {
            let _whole = set.find(text.as_bytes(), |_| {
                found += 1;
                std::ops::ControlFlow::Continue(())
            });
        }
        std::hint::black_box(found);
    })
}

fn built_patterns(n: usize) -> Box<dyn FnMut()> {
    let patterns: Vec<_> =
        (0..n).map(|i| Pattern::parse(&format!("*{i:07}{}*", "a".repeat(i % 30)), Bare::Exact).unwrap()).collect();
    Box::new(move || {
        let mut builder = PatternSetBuilder::ignoring_case();
        for (i, pattern) in (0..).zip(&patterns) {
            let _full = builder.add(pattern, PatternId(i));
        }
        drop(builder.build());
    })
}
