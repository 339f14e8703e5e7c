//! What an option's value looks like: text in, checked [`figment`] value out, and back again for `lc config dump`.
//!
//! Every layer (file, environment, flags, defaults) goes through [`Kind::read`], so a value means the same wherever it is
//! written, and merged values are always well formed.

use figment::value::{Empty, Value};

use super::units;

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Switch,
    /// A whole number within bounds.
    Integer {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// The same, or 0 for what goes without.
    IntegerOrNone {
        /// Least value that is not 0.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// Bytes, with K, M, G or T.
    Size {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// The same, or 0 for what goes without.
    SizeOrNone {
        /// Least value that is not 0.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A duration whose plain number is milliseconds; bounds in milliseconds.
    Millis {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A duration with its unit.
    Duration {
        /// Greatest value, in seconds.
        max_secs: u64,
    },
    /// Any text without control characters.
    Text,
    /// Decimal digits.
    Digits,
    /// A path; a leading `~/` is the home directory.
    Path,
    /// `host:port` to connect to.
    Address,
    /// `host:port` to listen on.
    Listen {
        /// The port when none is given.
        port: u16,
    },
    /// Disk space left alone: `auto`, `5%`, `1G`.
    Reserve,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several, comma-separated or repeated, or a list in a file.
    List(Item),
}

/// The form of one element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// `host:port`.
    Address,
    /// The same, of a processor that hunters are told of.
    Peer,
    /// A port.
    Port,
    /// `10000-32768`.
    PortRange,
}

/// Longest text of one value; nothing sensible is longer (a BPF expression is at most 4 KiB).
pub const MAX_TEXT_BYTES: usize = 4096;

/// Most elements of one list.
pub const MAX_ITEMS: usize = 1024;

/// Most processors that hunters are told of; they heed no more.
pub const MAX_PEERS: usize = 16;

impl Kind {
    /// Reads one value written as text; `home` replaces `~`. Empty text means "not set" where that is possible.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that began with the name of the option.
    pub fn read(self, text: &str, home: Option<&str>) -> Result<Value, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("longer than {MAX_TEXT_BYTES} bytes"));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(format!("contains the control character {c:?}"));
        }
        match self {
            Self::Switch => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(Value::from(true)),
                "false" | "no" | "off" | "0" => Ok(Value::from(false)),
                _ => Err(format!("'{text}' is neither true nor false")),
            },
            Self::Integer { min, max } => within(whole(text)?, min, max, |n| n.to_string()),
            Self::IntegerOrNone { min, max } => match whole(text)? {
                0 => Ok(Value::from(0)),
                number => within(number, min, max, |n| n.to_string()),
            },
            Self::Size { min, max } => within(units::parse_size(text)?, min, max, units::format_size),
            Self::SizeOrNone { min, max } => match units::parse_size(text)? {
                0 => Ok(Value::from(0)),
                size => within(size, min, max, units::format_size),
            },
            Self::Millis { min, max } => {
                let (min, max) = (min.saturating_mul(1_000_000), max.saturating_mul(1_000_000));
                within(units::parse_duration(text, Some(1_000_000))?, min, max, units::format_duration)
            }
            Self::Duration { max_secs } => {
                within(units::parse_duration(text, None)?, 0, max_secs.saturating_mul(1_000_000_000), units::format_duration)
            }
            Self::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text.trim())) {
                Some(word) => Ok(Value::from(*word)),
                None => Err(format!("'{text}' is not one of {}", words.join(", "))),
            },
            Self::List(item) => read_items(text.split(','), item, home),
            Self::Text | Self::Digits | Self::Path | Self::Address | Self::Listen { .. } | Self::Reserve if text.is_empty() => {
                Ok(Value::from(Empty::None))
            }
            Self::Text => Ok(Value::from(text)),
            Self::Digits => match text.trim() {
                digits if digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 15 => Ok(Value::from(digits)),
                _ => Err(format!("'{text}' is not a string of digits")),
            },
            Self::Path => Ok(Value::from(expand(text, home))),
            Self::Address => units::parse_address(text).map(Value::from),
            Self::Listen { port } => units::parse_listen(text, port).map(Value::from),
            Self::Reserve => units::Reserve::parse(text).map(|_| Value::from(text.trim())),
        }
    }

    /// Reads several texts as one value: the elements of a list in a file, or a flag given more than once.
    ///
    /// # Errors
    /// As [`Self::read`]; also when the option takes one value only.
    pub fn read_many<'a>(self, texts: impl IntoIterator<Item = &'a str>, home: Option<&str>) -> Result<Value, String> {
        if let Self::List(item) = self {
            return read_items(texts, item, home);
        }
        Err(format!("a list, where {} is expected", self.noun()))
    }

    /// What a user would call such a value: "a size such as 64K".
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Integer { .. } | Self::IntegerOrNone { .. } => "a whole number",
            Self::Size { .. } | Self::SizeOrNone { .. } => "a size such as 64K",
            Self::Millis { .. } | Self::Duration { .. } => "a duration such as 5s",
            Self::Text => "text",
            Self::Digits => "a string of digits",
            Self::Path => "a path",
            Self::Address | Self::Listen { .. } => "an address",
            Self::Reserve => "a reserve such as 5% or 1G",
            Self::Choice(_) => "one of its words",
            Self::List(_) => "a list",
        }
    }

    /// Placeholder in `--help`.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Switch => "BOOL",
            Self::Integer { .. } | Self::IntegerOrNone { .. } => "N",
            Self::Size { .. } | Self::SizeOrNone { .. } => "SIZE",
            Self::Millis { .. } | Self::Duration { .. } => "TIME",
            Self::Text => "TEXT",
            Self::Digits => "DIGITS",
            Self::Path => "PATH",
            Self::Address | Self::Listen { .. } | Self::List(Item::Address | Item::Peer) => "HOST:PORT",
            Self::Reserve => "SHARE",
            Self::Choice(_) => "WORD",
            Self::List(Item::Text) => "LIST",
            Self::List(Item::Path) => "FILE",
            Self::List(Item::Port) => "PORTS",
            Self::List(Item::PortRange) => "A-B",
        }
    }

    /// Writes a merged value as YAML.
    pub fn write(self, value: &Value) -> String {
        let number = value.to_u128().and_then(|n| u64::try_from(n).ok());
        match (self, value) {
            (_, Value::Empty(..)) => "\"\"".to_owned(),
            (Self::Size { .. } | Self::SizeOrNone { .. }, _) => number.map_or_else(String::new, units::format_size),
            (Self::Millis { .. } | Self::Duration { .. }, _) => number.map_or_else(String::new, units::format_duration),
            (_, Value::Bool(_, switch)) => switch.to_string(),
            (_, Value::Num(..)) => number.map_or_else(String::new, |n| n.to_string()),
            (_, Value::Array(_, items)) => {
                let items: Vec<String> = items.iter().map(write_item).collect();
                format!("[{}]", items.join(", "))
            }
            (_, Value::String(_, text)) => quote(text),
            (_, Value::Char(..) | Value::Dict(..)) => String::new(),
        }
    }
}

impl Item {
    /// How many of them one list may have.
    const fn most(self) -> usize {
        match self {
            Self::Peer => MAX_PEERS,
            Self::Text | Self::Path | Self::Address | Self::Port | Self::PortRange => MAX_ITEMS,
        }
    }
}

fn read_items<'a>(texts: impl IntoIterator<Item = &'a str>, item: Item, home: Option<&str>) -> Result<Value, String> {
    let mut values = Vec::new();
    for text in texts.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
        if values.len() == item.most() {
            return Err(format!("more than {} values", item.most()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(format!("contains the control character {c:?}"));
        }
        values.push(match item {
            Item::Text => Value::from(text),
            Item::Path => Value::from(expand(text, home)),
            Item::Address | Item::Peer => Value::from(units::parse_address(text)?),
            Item::Port => match text.parse::<u16>() {
                Ok(port) if port > 0 => Value::from(u64::from(port)),
                _ => return Err(format!("'{text}' is not a port")),
            },
            Item::PortRange => Value::from(units::PortRange::parse(text)?.to_string()),
        });
    }
    Ok(Value::from(values))
}

fn write_item(value: &Value) -> String {
    if let Value::String(_, text) = value {
        return quote(text);
    }
    value.to_u128().map_or_else(String::new, |n| n.to_string())
}

/// A YAML double-quoted scalar, or the text itself where that is plainly a word. JSON's escapes are valid in YAML 1.2.
fn quote(text: &str) -> String {
    let word = text.bytes().all(|b| b.is_ascii_alphabetic()) && !text.is_empty();
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

fn whole(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("'{text}' is not a whole number"))
}

fn within(number: u64, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<Value, String> {
    if number < min {
        return Err(format!("{} is less than the minimum {} ({1} to {})", show(number), show(min), show(max)));
    }
    if number > max {
        return Err(format!("{} is more than the maximum {} ({} to {1})", show(number), show(max), show(min)));
    }
    Ok(Value::from(number))
}

fn expand(path: &str, home: Option<&str>) -> String {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => format!("{}/{rest}", home.trim_end_matches('/')),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_named_in_the_message() {
        let error = Kind::Size { min: 1024, max: 1 << 20 }.read("2M", None).unwrap_err();

        assert_eq!(error, "2M is more than the maximum 1M (1K to 1M)");
    }

    #[test]
    fn nothing_is_less_than_the_least() {
        let read = |text| Kind::SizeOrNone { min: 64 << 10, max: 1 << 20 }.read(text, None);

        assert_eq!(read("0"), Ok(Value::from(0)));
        assert_eq!(read("64K"), Ok(Value::from(65_536_u64)));
        assert_eq!(read("65535").unwrap_err(), "65535 is less than the minimum 64K (64K to 1M)");

        let read = |text| Kind::IntegerOrNone { min: 64, max: 100 }.read(text, None);

        assert_eq!(read("0"), Ok(Value::from(0)));
        assert_eq!(read("64"), Ok(Value::from(64_u64)));
        assert_eq!(read("63").unwrap_err(), "63 is less than the minimum 64 (64 to 100)");
        assert_eq!(read("many").unwrap_err(), "'many' is not a whole number");
    }

    #[test]
    fn a_tilde_is_the_home_directory_only_at_the_start() {
        let read = |text| Kind::Path.read(text, Some("/home/x/")).unwrap();

        assert_eq!(read("~/a"), Value::from("/home/x/a"));
        assert_eq!(read("a~/b"), Value::from("a~/b"));
    }

    #[test]
    fn lists_take_commas_and_drop_blanks() {
        let value = Kind::List(Item::Port).read("5060, 5061,", None).unwrap();

        assert_eq!(Kind::List(Item::Port).write(&value), "[5060, 5061]");
    }

    #[test]
    fn hunters_are_told_of_no_more_processors_than_they_heed() {
        let named = |n: usize| Kind::List(Item::Peer).read(&vec!["p:1"; n].join(","), None);

        assert!(named(MAX_PEERS).is_ok());
        assert_eq!(named(MAX_PEERS + 1).unwrap_err(), "more than 16 values");
    }

    #[test]
    fn words_that_yaml_would_read_as_something_else_are_quoted() {
        assert_eq!(Kind::Text.write(&Value::from("yes")), "\"yes\"");
        assert_eq!(Kind::Text.write(&Value::from("0049")), "\"0049\"");
        assert_eq!(Kind::Text.write(&Value::from("deny")), "deny");
    }
}
