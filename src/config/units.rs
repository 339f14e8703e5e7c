//! How sizes, durations, addresses and ports are written, and what they mean.
//!
//! Pure text in, numbers out. Every function refuses what it cannot represent exactly; none of them guesses a unit.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Port of a processor when an address names none.
pub const DEFAULT_PORT: u16 = 55_555;
/// Port of figures and health when an address names none.
pub(super) const METRICS_PORT: u16 = 9464;

const SIZE_UNITS: [(&str, u64); 4] = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

const TIME_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Bytes: a number, optionally with K, M, G or T (powers of 1024), optionally followed by B or iB.
///
/// # Errors
/// What a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size (64K, 100M, 1G)");
    let upper = text.trim().to_ascii_uppercase();
    let (digits, unit) = split_number(&upper);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "" | "B" => return Ok(number),
        other => other.strip_suffix("IB").or_else(|| other.strip_suffix('B')).unwrap_or(other),
    };
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

/// The shortest exact way to write `bytes`.
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// A duration in nanoseconds: one or more numbers with units, `100ms`, `1h30m`. A plain number is taken in `plain_unit`,
/// or refused when there is none (except 0).
///
/// # Errors
/// What a duration looks like.
pub fn parse_duration(text: &str, plain_unit: Option<u64>) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a duration (100ms, 5s, 2m, 1h)");
    let mut rest = text.trim();
    if let Ok(number) = rest.parse::<u64>() {
        let unit = plain_unit.or((number == 0).then_some(0));
        let unit = unit.ok_or_else(|| format!("'{text}' has no unit (100ms, 5s, 2m, 1h)"))?;
        return number.checked_mul(unit).ok_or_else(wrong);
    }
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (digits, after) = split_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end).ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = number.checked_mul(*factor).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = next;
    }
    Ok(total)
}

/// The shortest exact way to write a duration with one unit.
pub fn format_duration(nanos: u64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    TIME_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| nanos.is_multiple_of(*factor))
        .map_or_else(|| format!("{nanos}ns"), |(name, factor)| format!("{}{name}", nanos / factor))
}

/// `host:port`, `[v6]:port` or either without its port, normalised to carry one.
///
/// # Errors
/// What an address looks like.
pub fn parse_address(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not an address (host:port, [2001:db8::1]:port)");
    let text_trimmed = text.trim();
    let (host, port) = split_address(text_trimmed).ok_or_else(wrong)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@')) {
        return Err(wrong());
    }
    match port {
        Some(0) => Err(format!("'{text}' names port 0")),
        port => Ok(format!("{host}:{}", port.unwrap_or(DEFAULT_PORT))),
    }
}

/// As [`parse_address`], but the host may be missing (every address), the port may be 0 (any free one), and the usual one is given.
///
/// # Errors
/// What an address looks like.
pub fn parse_listen(text: &str, usual_port: u16) -> Result<String, String> {
    let wrong = || format!("'{text}' is not an address to listen on (:55555, 192.0.2.1:55555, [::1]:55555)");
    let (host, port) = split_address(text.trim()).ok_or_else(wrong)?;
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@')) {
        return Err(wrong());
    }
    Ok(format!("{host}:{}", port.unwrap_or(usual_port)))
}

fn split_address(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let address: std::net::Ipv6Addr = host.parse().ok()?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if after.is_empty() => None,
            None => return None,
        };
        return Some((format!("[{address}]"), port));
    }
    if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
        return Some((format!("[{address}]"), None));
    }
    match text.split_once(':') {
        None => (!text.is_empty()).then(|| (text.to_owned(), None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host.to_owned(), Some(port.parse().ok()?))),
    }
}

/// An inclusive range of UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// `10000-20000`, or one port.
    ///
    /// # Errors
    /// What a range looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a port range (10000-32768)");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim().parse().map_err(|_| wrong())?;
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Disk space that is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// 5 % of the file system or 1 GiB, whichever is less.
    Auto,
    /// This share of the file system, in percent.
    Percent(u8),
    /// This many bytes.
    Bytes(u64),
}

impl Reserve {
    /// `auto`, `5%` or a size.
    ///
    /// # Errors
    /// What a reserve looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a reserve of disk space (auto, 5%, 1G)");
        let text = text.trim();
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: u8 = percent.trim().parse().map_err(|_| wrong())?;
                if percent > 99 { Err(wrong()) } else { Ok(Self::Percent(percent)) }
            }
            None => parse_size(text).map(Self::Bytes).map_err(|_| wrong()),
        }
    }

    /// Bytes to leave free on a file system of `total` bytes.
    pub const fn bytes(self, total: u64) -> u64 {
        const GIB: u64 = 1 << 30;
        match self {
            Self::Auto => {
                let share = total / 20;
                if share < GIB { share } else { GIB }
            }
            Self::Percent(percent) => (total / 100).saturating_mul(percent as u64),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'de> Deserialize<'de> for Reserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For `#[serde(deserialize_with)]`: the merged value is nanoseconds.
pub(super) fn nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_nanos)
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_with_or_without_a_b() {
        for (text, bytes) in
            [("0", 0), ("64K", 65_536), ("64kb", 65_536), ("100M", 104_857_600), ("1GiB", 1 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "64X", "1.5G", "-1", "99999999999T", "1 0K"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_unless_the_key_has_one() {
        assert_eq!(parse_duration("100ms", None), Ok(100_000_000));
        assert_eq!(parse_duration("1h30m", None), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("100", Some(1_000_000)), Ok(100_000_000));
        assert_eq!(parse_duration("0", None), Ok(0));
        for text in ["", "5", "s", "5 s", "5y", "-5s", "99999999999d", "5é"] {
            assert!(parse_duration(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn formatting_is_read_back_as_the_same_number() {
        for n in [0, 1, 1024, 65_536, 100 << 20, 1 << 40, 1_000_000, 90_000_000_000, 86_400_000_000_000] {
            assert_eq!(parse_size(&format_size(n)), Ok(n));
            assert_eq!(parse_duration(&format_duration(n), None), Ok(n));
        }
    }

    #[test]
    fn addresses_get_the_default_port_and_v6_gets_brackets() {
        for (text, want) in [
            ("mid", "mid:55555"),
            ("mid:1", "mid:1"),
            ("192.0.2.1", "192.0.2.1:55555"),
            ("2001:db8::1", "[2001:db8::1]:55555"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            assert_eq!(parse_address(text).as_deref(), Ok(want), "{text}");
        }
        for text in ["", ":1", "a:b", "a:0", "a:70000", "a:1:2", "[x]:1", "http://a", "a b"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
        assert_eq!(parse_listen(":0", 9464).as_deref(), Ok(":0"));
        assert_eq!(parse_listen("::1", 9464).as_deref(), Ok("[::1]:9464"));
    }

    #[test]
    fn ranges_and_reserves() {
        assert_eq!(PortRange::parse("10000-20000"), Ok(PortRange { first: 10_000, last: 20_000 }));
        assert_eq!(PortRange::parse("5004"), Ok(PortRange { first: 5004, last: 5004 }));
        assert!(PortRange::parse("20-10").is_err());
        assert_eq!(Reserve::parse("5%"), Ok(Reserve::Percent(5)));
        assert_eq!(Reserve::Auto.bytes(100 << 30), 1 << 30);
        assert_eq!(Reserve::Auto.bytes(10 << 30), 512 << 20);
        assert!(Reserve::parse("100%").is_err());
    }
}
