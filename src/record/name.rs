//! Safe file names out of patterns and hostile Call-IDs.
//!
//! ```text
//! {timestamp}_{callid}.pcap
//! 20260131_235959_a84b4c76e66710-5f0d2c9b8e7a6d41_sip.dlt113_1.pcap
//! |<------------------ stem ------------------->|part|link |n|
//! ```
//!
//! | placeholder | becomes |
//! |---|---|
//! | `{timestamp}` | the first packet's time in UTC, `YYYYMMDD_HHMMSS` |
//! | `{callid}` | at most 80 bytes of the Call-ID with everything but `A-Za-z0-9._-` replaced by `_`, then `-` and the first 16 hex digits of its SHA-256 |
//! | `{from}`, `{to}` | at most 32 bytes of the user, replaced likewise; `unknown` when empty |
//!
//! Promises: one component, at most `NAME_MAX` bytes with every suffix, never beginning with `.` or `-`; two Call-IDs that
//! differ only in what was replaced, cut or in their case have different names. The true Call-ID stands in the JSON
//! record. Refuses, at start: unknown placeholders, a call pattern without `{callid}`, path separators, patterns that
//! could outgrow a file name.

use sha2::{Digest, Sha256};

use super::block::hex;
use super::dir::NAME_MAX;
use super::{Format, RecordError};
use crate::packet::{LinkType, Timestamp};

/// Bytes of a Call-ID kept readable.
const CALL_ID_KEPT: usize = 80;
/// Bytes of the SHA-256 of the Call-ID in its name; twice as many hex digits.
const CALL_ID_SUM: usize = 8;
/// Bytes of a user kept.
const USER_KEPT: usize = 32;
const TIMESTAMP_LEN: usize = "YYYYMMDD_HHMMSS".len();
/// What may follow a stem at most.
const SUFFIX_ROOM: usize = "-4294967295_sip.dlt65535_4294967295.pcapng.part".len();

/// What a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Files of calls: `{callid}` must be there, all placeholders may.
    Call,
    /// Rotating files: `{timestamp}` must be there and is the only one.
    Rotating,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parties<'a> {
    /// The Call-ID as it came.
    pub call_id: &'a [u8],
    /// User of the From header.
    pub from: &'a str,
    /// User of the To header.
    pub to: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Timestamp,
    CallId,
    From,
    To,
}

/// A parsed file name pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    pieces: Vec<Piece>,
    format: Format,
}

impl Pattern {
    /// Reads a pattern such as `{timestamp}_{callid}.pcap`; its suffix, `.pcap` or `.pcapng`, is the format.
    ///
    /// # Errors
    /// [`RecordError::Pattern`] with what to write instead.
    pub fn parse(text: &str, purpose: Purpose) -> Result<Self, RecordError> {
        let wrong = |reason: String| RecordError::Pattern { pattern: text.into(), reason };
        let stem = text.strip_suffix(".pcapng").or_else(|| text.strip_suffix(".pcap"));
        let mut rest = stem.ok_or_else(|| wrong("must end in .pcap or .pcapng".into()))?;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (literal, after) = rest.split_once('{').map_or((rest, None), |(l, a)| (l, Some(a)));
            if let Some(c) = literal.chars().find(|c| !is_literal(*c)) {
                return Err(wrong(match c {
                    '/' | '\\' => "is a file name, not a path; the directory has an option of its own".into(),
                    c => format!("has {c:?}; use letters, digits and . _ - + = , @"),
                }));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            let Some(after) = after else { break };
            let (name, after) = after.split_once('}').ok_or_else(|| wrong("has a { without its }".into()))?;
            pieces.push(placeholder(name, purpose).map_err(wrong)?);
            rest = after;
        }
        let (needed, named) = match purpose {
            Purpose::Call => (Piece::CallId, "{callid}"),
            Purpose::Rotating => (Piece::Timestamp, "{timestamp}"),
        };
        if !pieces.contains(&needed) {
            return Err(wrong(format!("must contain {named}, or files would share a name")));
        }
        if pieces.first().is_some_and(|p| matches!(p, Piece::Literal(l) if l.starts_with(['.', '-']))) {
            return Err(wrong("must not begin with . or -".into()));
        }
        let longest = pieces.iter().map(Piece::longest).fold(SUFFIX_ROOM, usize::saturating_add);
        if longest > NAME_MAX {
            return Err(wrong(format!("can become {longest} bytes long, and a file name holds {NAME_MAX}")));
        }
        Ok(Self { pieces, format: Format::from_name(text) })
    }

    /// The format its suffix asks for.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The name without its suffixes.
    pub fn stem(&self, first: Timestamp, parties: &Parties<'_>) -> String {
        let mut out = String::with_capacity(NAME_MAX);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(l) => out.push_str(l),
                Piece::Timestamp => out.push_str(&utc(first)),
                Piece::CallId => {
                    sanitise(&mut out, parties.call_id, CALL_ID_KEPT);
                    out.push('-');
                    out.push_str(&hex(Sha256::digest(parties.call_id).get(..CALL_ID_SUM).unwrap_or(&[])));
                }
                Piece::From => sanitise(&mut out, parties.from.as_bytes(), USER_KEPT),
                Piece::To => sanitise(&mut out, parties.to.as_bytes(), USER_KEPT),
            }
        }
        out
    }

    /// Whether `name` is one this rotating pattern makes, finished or `.part`.
    pub fn made(&self, name: &str) -> bool {
        let Some(mut rest) = name.strip_suffix(super::dir::PART).unwrap_or(name).strip_suffix(self.format.suffix()) else {
            return false;
        };
        for piece in &self.pieces {
            let after = match piece {
                Piece::Literal(l) => rest.strip_prefix(l.as_str()),
                Piece::Timestamp => rest.split_at_checked(TIMESTAMP_LEN).filter(|(t, _)| is_timestamp(t)).map(|(_, r)| r),
                Piece::CallId | Piece::From | Piece::To => None,
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let (link, index) = rest.split_once('_').map_or((rest, None), |(l, i)| (l, Some(i)));
        (link.is_empty() || link.strip_prefix(".dlt").is_some_and(number)) && index.is_none_or(number)
    }
}

/// `stem[_part][.dltN][_index].suffix`: a link type where it is not the first of its part, an index from 1 on.
pub fn file_name(stem: &str, part: &str, link: Option<LinkType>, index: u32, format: Format) -> String {
    let link = link.map_or(String::new(), |l| format!(".dlt{}", l.0));
    let index = if index == 0 { String::new() } else { format!("_{index}") };
    format!("{stem}{part}{link}{index}{}", format.suffix())
}

/// `YYYYMMDD_HHMMSS` in UTC.
pub fn utc(ts: Timestamp) -> String {
    let secs = ts.as_nanos().div_euclid(1_000_000_000);
    let (day, second) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (y, m, d) = civil(day);
    format!("{y:04}{m:02}{d:02}_{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years begin in March here, so that the leap day is
/// the last of its year and months have a regular pattern: 153 days in five months.
pub(super) fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_400Y: i64 = 146_097;
    const DAYS_0000_03_01_TO_1970: i64 = 719_468;
    let day = day.saturating_add(DAYS_0000_03_01_TO_1970);
    let (cycle, day) = (day.div_euclid(DAYS_400Y), day.rem_euclid(DAYS_400Y));
    // Leap days before this one in the cycle: one in 4 years, none in 100, one again in 400 (its very last day).
    let year = (day - day / 1460 + day / 36_524 - day / (DAYS_400Y - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + carry, month, date)
}

/// Appends what is kept of a value; it never begins with `.` or `-` itself, wherever the pattern puts it.
fn sanitise(out: &mut String, value: &[u8], keep: usize) {
    if value.is_empty() {
        out.push_str("unknown");
    }
    out.extend(value.iter().take(keep).enumerate().map(|(i, b)| match b {
        b'.' | b'-' if i > 0 => char::from(*b),
        b'_' => '_',
        b if b.is_ascii_alphanumeric() => char::from(*b),
        _ => '_',
    }));
}

impl Piece {
    fn longest(&self) -> usize {
        match self {
            Self::Literal(l) => l.len(),
            Self::Timestamp => TIMESTAMP_LEN,
            Self::CallId => CALL_ID_KEPT + 1 + 2 * CALL_ID_SUM,
            Self::From | Self::To => USER_KEPT,
        }
    }
}

fn placeholder(name: &str, purpose: Purpose) -> Result<Piece, String> {
    match (name, purpose) {
        ("timestamp", _) => Ok(Piece::Timestamp),
        ("callid", Purpose::Call) => Ok(Piece::CallId),
        ("from", Purpose::Call) => Ok(Piece::From),
        ("to", Purpose::Call) => Ok(Piece::To),
        (n, Purpose::Call) => Err(format!("has {{{n}}}; there are {{timestamp}}, {{callid}}, {{from}}, {{to}}")),
        (n, Purpose::Rotating) => Err(format!("has {{{n}}}; there is only {{timestamp}}")),
    }
}

fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-+=,@".contains(c)
}

fn is_timestamp(t: &str) -> bool {
    t.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'_' } else { b.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    use crate::record::dir::{Access, Dir, MinFree};

    const EVERYTHING: &str = "{timestamp}_{callid}_{from}_{to}.pcapng";

    fn call(text: &str) -> Result<Pattern, RecordError> {
        Pattern::parse(text, Purpose::Call)
    }

    fn stem(p: &Pattern, id: &[u8]) -> String {
        p.stem(Timestamp::from_nanos(0), &Parties { call_id: id, from: "", to: "../x" })
    }

    fn is_safe(name: &str) -> bool {
        !name.is_empty()
            && name.len() + "-9_sip.dlt65535_4294967295.pcapng.part".len() <= NAME_MAX
            && !name.starts_with(['.', '-'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    #[test]
    fn the_default_pattern_gives_the_name_of_the_first_packet_in_utc() {
        let p = call("{timestamp}_{callid}.pcap").unwrap();
        let first = Timestamp::from_secs_nanos(1_769_903_999, 999_999_999);

        let stem = p.stem(first, &Parties { call_id: b"a84b4c76e66710@pc33.example.com", from: "", to: "" });

        assert_eq!(stem, "20260131_235959_a84b4c76e66710_pc33.example.com-86e65ae07577e2e5");
        assert_eq!(file_name(&stem[..8], "_sip", None, 0, p.format()), "20260131_sip.pcap");
        assert_eq!(file_name("s", "_rtp", Some(LinkType(113)), 2, Format::PcapNg), "s_rtp.dlt113_2.pcapng");
    }

    #[test]
    fn wrong_patterns_are_refused_with_what_to_write() {
        for (text, hint) in [
            ("{timestamp}.pcap", "must contain {callid}"),
            ("{callid}", "must end in .pcap"),
            ("{callid}.pcap.gz", "must end in .pcap"),
            ("x/{callid}.pcap", "not a path"),
            ("..\\{callid}.pcap", "not a path"),
            ("{callid}_{form}.pcap", "{from}"),
            ("{callid.pcap", "without its }"),
            ("{callid}}.pcap", "'}'"),
            ("-{callid}.pcap", "must not begin"),
            (".{callid}.pcap", "must not begin"),
            ("{callid}{callid}{callid}.pcap", "can become"),
            ("a b{callid}.pcap", "' '"),
        ] {
            let e = call(text).unwrap_err().to_string();
            assert!(e.contains(hint) && e.contains(text), "{text}: {e}");
        }
        assert!(Pattern::parse("{callid}_{timestamp}.pcap", Purpose::Rotating).is_err());
        assert!(Pattern::parse("x.pcap", Purpose::Rotating).is_err());
    }

    #[test]
    fn recognises_the_names_a_rotating_pattern_makes() {
        let p = Pattern::parse("lc-{timestamp}.pcap", Purpose::Rotating).unwrap();

        for ours in ["lc-20260131_235959.pcap", "lc-20260131_235959_12.pcap.part", "lc-20260131_235959.dlt113_1.pcap"] {
            assert!(p.made(ours), "{ours}");
        }
        for other in [
            "lc-20260131_235959.pcapng",
            "20260131_235959.pcap",
            "lc-20260131-235959.pcap",
            "lc-.pcap",
            "lc-20260131_235959_x.pcap",
            "lc-20260131_235959é.pcap",
        ] {
            assert!(!p.made(other), "{other}");
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (11_322, (2000, 12, 31)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (-25_509, (1900, 2, 28)),
            (-25_508, (1900, 3, 1)),
        ] {
            assert_eq!(civil(day), date, "day {day}");
        }
    }

    #[test]
    fn every_day_from_1677_to_2262_follows_the_one_before() {
        let month_len = |y: i64, m: i64| match m {
            2 if (y % 4 == 0 && y % 100 != 0) || y % 400 == 0 => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut want = civil(-107_015);
        for day in -107_015..=106_752 {
            assert_eq!(civil(day), want);
            want.2 += 1;
            if want.2 > month_len(want.0, want.1) {
                want = if want.1 == 12 { (want.0 + 1, 1, 1) } else { (want.0, want.1 + 1, 1) };
            }
        }
        assert_eq!(utc(Timestamp::from_nanos(i64::MIN)), "16770921_001243");
        assert_eq!(utc(Timestamp::from_nanos(i64::MAX)), "22620411_234716");
    }

    #[test]
    fn hostile_call_ids_make_safe_names_that_never_collide() {
        let p = call(EVERYTHING).unwrap();
        let mut ids: Vec<Vec<u8>> =
            ["", ".", "..", "../../etc/passwd", "-rf", "CON", "con", "nul.txt", "a/b", "a_b", "a\\b", "a b", "A", "a"]
                .iter()
                .map(|s| s.as_bytes().to_vec())
                .collect();
        ids.extend([
            b"\0".to_vec(),
            b"a\0".to_vec(),
            vec![b'x'; 10_000],
            vec![b'x'; 10_001],
            vec![0xff; 300],
            "ß".into(),
            "ẞ".into(),
        ]);

        let names: HashMap<String, &[u8]> = ids.iter().map(|id| (stem(&p, id).to_ascii_lowercase(), id.as_slice())).collect();

        assert_eq!(names.len(), ids.len());
        assert!(ids.iter().all(|id| is_safe(&stem(&p, id))));
    }

    /// Call-IDs that want out of the directory or into each other's file, all different: as they are, folded, cut, extended, replaced.
    fn hostile(count: usize) -> Vec<Vec<u8>> {
        const PIECES: [&[u8]; 16] = [
            b"../",
            b"/",
            b"\\",
            b"\0",
            b"\n",
            b"..",
            b".",
            b"-",
            b"CON",
            b"%2e%2e%2f",
            b"~",
            "\u{202e}".as_bytes(),
            "ẞ".as_bytes(),
            b"\xff",
            b"a",
            b"{callid}",
        ];
        let mut random = 0x1ced_c0ff_ee00_0005_u64;
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 16).unwrap() % n
        };
        let mut ids = HashSet::new();
        while ids.len() < count {
            let mut id: Vec<u8> = (0..below(12)).flat_map(|_| PIECES[below(PIECES.len())]).copied().collect();
            id.extend(below(1 << 20).to_string().bytes());
            if below(100) == 0 {
                id.splice(0..0, vec![b'x'; 10_000]);
            }
            let replaced = id.iter().map(|b| if b.is_ascii_alphanumeric() { *b } else { b'_' }).collect();
            ids.extend([id.to_ascii_lowercase(), id.to_ascii_uppercase(), [&id[..], b"\0"].concat(), replaced, id]);
        }
        ids.into_iter().collect()
    }

    /// `LC_NAMES` sets how many; `make soak` takes a million.
    #[test]
    fn hostile_call_ids_by_the_thousand_are_files_of_the_directory_each_its_own() {
        let count = std::env::var("LC_NAMES").map_or(5000, |n| n.parse().unwrap());
        let (p, mut names) = (call(EVERYTHING).unwrap(), HashSet::new());
        let ids = hostile(count);

        for ids in ids.chunks(10_000) {
            let above = tempfile::tempdir().unwrap();
            let dir = Dir::open(above.path().join("in"), Access::Private, MinFree::NONE).unwrap();
            for id in ids {
                let name = file_name(&stem(&p, id), "_sip", Some(LinkType(65_535)), u32::MAX, Format::PcapNg);
                assert!(dir.create_new(&name).unwrap().is_some(), "{name} is taken");
                assert!(names.insert(name.to_ascii_lowercase()), "{name}: a name of another call, where case does not count");
            }
            assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 1, "a file beside the directory");
            assert_eq!(std::fs::read_dir(above.path().join("in")).unwrap().count(), ids.len());
        }

        assert!(names.len() >= count);
    }

    proptest! {
        #[test]
        fn any_call_id_makes_a_safe_name(id in prop::collection::vec(any::<u8>(), 0..300), from in ".{0,60}", to in ".{0,60}") {
            let p = call(EVERYTHING).unwrap();

            let stem = p.stem(Timestamp::from_nanos(0), &Parties { call_id: &id, from: &from, to: &to });

            prop_assert!(is_safe(&stem), "{}", stem);
        }

        #[test]
        fn any_pattern_is_read_or_refused(text in "[{}a-z./\\\\é-]{0,40}", ends in prop::bool::ANY) {
            let text = if ends { format!("{text}{{callid}}.pcap") } else { text };
            if let Ok(p) = call(&text) {
                prop_assert!(stem(&p, b"x").len() + SUFFIX_ROOM <= NAME_MAX);
            }
        }
    }
}
