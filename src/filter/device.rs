//! Subscriber and device numbers of mobile networks: IMSI and IMEI.
//!
//! - IMSI (3GPP TS 23.003 §2.2): 6 to 15 digits; read from the private identity `<IMSI>@ims.mnc….mcc….3gppnetwork.org`,
//!   whose user part may carry one leading digit that names the authentication method (RFC 4187 §4.1.1.6).
//! - IMEI (3GPP TS 23.003 §6.2): 14 digits name the device. The 15th is a check digit that networks transmit as 0, an
//!   IMEISV has two digits of software version instead. Only the 14 are compared, on both sides, so that every spelling
//!   of a device meets every other.

use smallvec::SmallVec;

use crate::pattern::{Bare, MAX_PATTERN_BYTES, Pattern};

use super::{BadPattern, Dialect};

/// Digits that name a device.
const IMEI_DIGITS: usize = 14;

type Digits = SmallVec<[u8; 16]>;

/// Digits without separators; `None` for anything else or more than 16.
fn digits_of(text: &[u8]) -> Option<Digits> {
    let mut digits = Digits::new();
    for byte in text {
        match byte {
            b'0'..=b'9' if digits.len() < 16 => digits.push(*byte),
            b'-' | b' ' => {}
            _ => return None,
        }
    }
    Some(digits)
}

fn parse(pattern: &str, bad: &BadPattern) -> Result<Pattern, BadPattern> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(BadPattern::TooLong(pattern.len()));
    }
    let parsed = Pattern::parse(pattern.trim(), Bare::Exact)?;
    let digits = parsed.try_map(|part| digits_of(part).filter(|d| !d.is_empty()).map(SmallVec::into_vec));
    digits.ok_or_else(|| bad.clone())
}

/// The pattern to hold the digits of an IMSI against.
pub(super) fn parse_imsi(pattern: &str) -> Result<Pattern, BadPattern> {
    let text = pattern.trim();
    let text = text.split('@').next().unwrap_or(text);
    let parsed = parse(text, &BadPattern::Imsi)?;
    let fewest = if matches!(parsed, Pattern::Exact(_)) { 6 } else { 0 };
    if (fewest..=15).contains(&digits_in(&parsed)) { Ok(parsed) } else { Err(BadPattern::Imsi) }
}

/// The pattern to hold the first 14 digits of an IMEI against.
pub(super) fn parse_imei(pattern: &str) -> Result<Pattern, BadPattern> {
    let text = pattern.trim();
    let text = text.rsplit(':').next().unwrap_or(text);
    let parsed = parse(text, &BadPattern::Imei)?;
    let digits = digits_in(&parsed);
    if let Pattern::Exact(whole) = &parsed {
        let device = whole.get(..IMEI_DIGITS).ok_or(BadPattern::Imei)?;
        return if digits <= 16 { Ok(Pattern::Exact(device.into())) } else { Err(BadPattern::Imei) };
    }
    if digits <= IMEI_DIGITS { Ok(parsed) } else { Err(BadPattern::Imei) }
}

fn digits_in(pattern: &Pattern) -> usize {
    match pattern {
        Pattern::Exact(x) | Pattern::Prefix(x) | Pattern::Suffix(x) | Pattern::Contains(x) => x.len(),
        Pattern::Ends(head, tail) => head.len().saturating_add(tail.len()),
        Pattern::Any => 0,
    }
}

pub(super) fn validate_imsi(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse_imsi(pattern).map(drop)
}

pub(super) fn validate_imei(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse_imei(pattern).map(drop)
}

/// The IMSI in a private identity or its user part.
pub(super) fn observed_imsi(text: &[u8]) -> Option<SmallVec<[u8; 16]>> {
    let user = text.split(|b| *b == b'@').next().unwrap_or_default();
    let digits = digits_of(user)?;
    match digits.as_slice() {
        // 0 AKA, 1 SIM (RFC 4186 §4.2.1.6), 6 AKA' (RFC 5448 §3).
        [b'0' | b'1' | b'6', imsi @ ..] if imsi.len() == 15 => Some(imsi.into()),
        imsi if (6..=15).contains(&imsi.len()) => Some(imsi.into()),
        _ => None,
    }
}

/// The 14 digits of the device in an instance id (RFC 7254 §3) or a bare IMEI.
pub(super) fn observed_imei(text: &[u8]) -> Option<SmallVec<[u8; 16]>> {
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    let text = text.strip_prefix(b"<").unwrap_or(text);
    let text = text.split(|b| matches!(b, b'>' | b'"' | b';')).next().unwrap_or_default();
    let text = text.rsplit(|b| *b == b':').next().unwrap_or_default();
    let digits = digits_of(text)?;
    (IMEI_DIGITS..=16).contains(&digits.len()).then(|| digits.get(..IMEI_DIGITS).map(SmallVec::from_slice))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imei_matches(pattern: &str, text: &str) -> bool {
        let pattern = parse_imei(pattern).unwrap();
        observed_imei(text.as_bytes()).is_some_and(|digits| pattern.matches(&digits))
    }

    #[test]
    fn a_bug_of_the_predecessor_imei_padding_is_not_ours() {
        let spellings = ["35209900176148", "352099001761481", "35-209900-176148-1", "3520990017614823", "352099001761480"];
        let seen = [
            "urn:gsma:imei:35209900-176148-0",
            "\"<urn:gsma:imei:35209900-176148-1;svn=23>\"",
            "<urn:urn-7:3gpp-imei:35209900176148>",
            "352099001761481",
        ];
        for pattern in spellings {
            for text in seen {
                assert!(imei_matches(pattern, text), "{pattern} {text}");
            }
            assert!(!imei_matches(pattern, "urn:gsma:imei:35209900-176149-0"));
        }
        assert!(imei_matches("35209900*", seen[0]));
        assert!(!imei_matches("35209901*", seen[0]));
    }

    #[test]
    fn an_imsi_is_found_behind_the_method_digit_and_before_the_realm() {
        let imsi = b"262011234567890".as_slice();

        for text in
            ["262011234567890@ims.mnc001.mcc262.3gppnetwork.org", "0262011234567890@x", "1262011234567890", "262011234567890"]
        {
            assert_eq!(observed_imsi(text.as_bytes()).as_deref(), Some(imsi), "{text}");
        }
        assert_eq!(observed_imsi(b"alice@example.com"), None);
        assert_eq!(observed_imsi(b"9262011234567890"), None);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for bad in ["12345", "1234567890123456", "alice", "", "1234567890123456*"] {
            assert!(parse_imsi(bad).is_err(), "{bad}");
        }
        for bad in ["1234567890123", "12345678901234567", "35209900-x", "123456789012345*"] {
            assert!(parse_imei(bad).is_err(), "{bad}");
        }
    }
}
