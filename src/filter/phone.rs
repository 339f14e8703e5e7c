//! Telephone numbers: one number has many spellings, and a target must be found in each.
//!
//! | pattern | observed | rule |
//! |---|---|---|
//! | E.164 (`+4930123456`, or made so by the plan) | E.164 | equal |
//! | any other of 7 digits or more, or against any other | | the shorter, without leading zeros, ends the longer; at least 7 digits |
//! | fewer than 7 digits (`110`, `204`) | | the whole number, digit by digit |
//! | stars (`+4930*`, `*4567`, `*99*`, `+49*7`) | | the digits; a `+` in the pattern means international digits |
//!
//! A [`PhonePlan`] knows how numbers are dialled at this site and makes E.164 of `030…` and `0049…`, in patterns and in
//! observed numbers alike. Without one, only numbers with `+` are E.164.
//!
//! Promises: two hash probes per number whatever the number of filters (and those of a pattern set when stars are used);
//! no valid pattern is dead. Visual separators (RFC 3966 §5.1.1) do not count.
//!
//! Refuses: patterns with letters, patterns of more than 19 digits, and the 1025th pattern with the same last 7 digits.

use std::collections::HashMap;
use std::ops::Deref;

use ahash::RandomState;
use smallvec::SmallVec;
use thiserror::Error;

use crate::pattern::{Bare, MAX_PATTERN_BYTES, Pattern, PatternId, PatternSet, PatternSetBuilder, SetError};

use super::{BadPattern, Dialect, Hits};

/// Digits two numbers must share at their ends when not both are E.164. Shorter endings are extensions that exist in
/// every company.
pub const MIN_SUFFIX_DIGITS: usize = 7;
/// Longest E.164 number (ITU-T E.164 §6).
pub const MAX_E164_DIGITS: usize = 15;
/// Most digits compared; what a 64-bit number holds, more than E.164 and a routing prefix have together.
pub const MAX_DIGITS: usize = 19;
/// Longest run of dialled digits that is still taken for a number: E.164 behind the longest routing prefixes.
pub const MAX_DIALLED: usize = 40;
/// Most different patterns that may share their last 7 digits: they are compared one by one.
pub const MAX_SAME_ENDING: usize = 1024;

const LAST_7: u64 = 10_000_000;

/// How numbers are dialled where this node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhonePlan {
    country: Option<Country>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Country {
    code: String,
    international: String,
    national: String,
}

/// Why a plan is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPlan {
    /// Not a country code.
    #[error("a country code has 1 to 3 digits and no leading zero, like 49")]
    Country,
    /// Not a dialling prefix.
    #[error("a dialling prefix has at most 6 digits, like 00")]
    Prefix,
}

impl PhonePlan {
    /// No knowledge of the site: only numbers with `+` are E.164.
    pub fn none() -> Self {
        Self::default()
    }

    /// The plan of a country code. Prefixes not given are those of most countries (`00`, `0`), in the North American
    /// plan (`1`) those used there (`011`, `1`). An empty national prefix means there is none.
    ///
    /// # Errors
    /// [`BadPlan`] for anything but digits, or too many.
    pub fn new(country: &str, international: Option<&str>, national: Option<&str>) -> Result<Self, BadPlan> {
        let digits = |text: &str, max: usize| text.len() <= max && text.bytes().all(|b| b.is_ascii_digit());
        let code = country.strip_prefix('+').unwrap_or(country);
        if code.is_empty() || code.starts_with('0') || !digits(code, 3) {
            return Err(BadPlan::Country);
        }
        let north_america = code == "1";
        let international = international.unwrap_or(if north_america { "011" } else { "00" });
        let national = national.unwrap_or(if north_america { "1" } else { "0" });
        if international.is_empty() || !digits(international, 6) || !digits(national, 6) {
            return Err(BadPlan::Prefix);
        }
        Ok(Self { country: Some(Country { code: code.into(), international: international.into(), national: national.into() }) })
    }

    /// For records: what made E.164 of the numbers.
    pub fn describe(&self) -> String {
        match &self.country {
            None => "numbers with + are E.164".into(),
            Some(c) => format!("country {}, international prefix {}, national prefix {:?}", c.code, c.international, c.national),
        }
    }

    /// The international digits behind dialled `digits` (or the head of a pattern), if the plan can tell.
    fn international(&self, digits: &[u8]) -> Option<Digits> {
        let country = self.country.as_ref()?;
        let rest = |prefix: &str| digits.strip_prefix(prefix.as_bytes()).filter(|rest| !rest.is_empty());
        if let Some(rest) = rest(&country.international) {
            return Digits::of([rest, &[]]);
        }
        let rest = rest(&country.national).filter(|_| !country.national.is_empty())?;
        Digits::of([country.code.as_bytes(), rest])
    }
}

/// ASCII digits of one number.
#[derive(Clone)]
struct Digits {
    bytes: [u8; MAX_DIALLED],
    len: usize,
}

impl Digits {
    const fn new() -> Self {
        Self { bytes: [0; MAX_DIALLED], len: 0 }
    }

    /// `None` when they do not fit.
    fn of(parts: [&[u8]; 2]) -> Option<Self> {
        let mut digits = Self::new();
        parts.into_iter().flatten().try_for_each(|digit| digits.push(*digit))?;
        Some(digits)
    }

    #[inline]
    fn push(&mut self, digit: u8) -> Option<()> {
        *self.bytes.get_mut(self.len)? = digit;
        self.len = self.len.saturating_add(1);
        Some(())
    }
}

impl Deref for Digits {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A number as seen or as written, taken apart.
struct Number {
    /// As dialled, without `+` and separators.
    dialled: Digits,
    e164: E164,
}

/// What is known of a number's international form.
enum E164 {
    /// Nothing.
    Unknown,
    /// It is what was dialled, behind a `+`.
    Dialled,
    /// The plan says it is this.
    Planned(Digits),
}

impl Number {
    /// The digits that other numbers are compared with, and whether they are E.164.
    fn comparable(&self) -> (&[u8], bool) {
        match &self.e164 {
            E164::Dialled => (&self.dialled, true),
            E164::Planned(digits) => (digits, true),
            E164::Unknown => (without_leading_zeros(&self.dialled), false),
        }
    }
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|d| **d == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

/// `text` without separators and `+`, and whether a `+` stood in front; `None` if it holds anything else or too much.
fn digits_of(text: &[u8]) -> Option<(Digits, bool)> {
    let (plus, rest) = match text {
        [b'+', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut digits = Digits::new();
    for byte in rest {
        match byte {
            b'0'..=b'9' => digits.push(*byte)?,
            b'-' | b'.' | b'(' | b')' | b' ' | b'/' => {}
            _ => return None,
        }
    }
    Some((digits, plus))
}

fn number(digits: Digits, plus: bool, plan: &PhonePlan) -> Number {
    let is_e164 = |d: &[u8]| (MIN_SUFFIX_DIGITS..=MAX_E164_DIGITS).contains(&d.len()) && d.first() != Some(&b'0');
    let e164 = if plus {
        if is_e164(&digits) { E164::Dialled } else { E164::Unknown }
    } else {
        plan.international(&digits).filter(|d| is_e164(d)).map_or(E164::Unknown, E164::Planned)
    };
    Number { dialled: digits, e164 }
}

/// The number in a user part or `tel:` URI: up to any parameter, behind any routing prefix that ends in `#`.
fn observed(text: &[u8], plan: &PhonePlan) -> Option<Number> {
    let text = memchr::memchr(b';', text).and_then(|end| text.get(..end)).unwrap_or(text);
    let text = memchr::memrchr(b'#', text).and_then(|at| text.get(at.saturating_add(1)..)).unwrap_or(text);
    let (digits, plus) = digits_of(text)?;
    (!digits.is_empty()).then(|| number(digits, plus, plan))
}

/// A phone pattern, taken apart.
enum PhonePattern {
    /// No stars: (digits, with `+`).
    Number(Digits, bool),
    /// Stars; the parts are digits; whether the first part began with `+`.
    Stars(Pattern, bool),
}

fn parse(pattern: &str) -> Result<PhonePattern, BadPattern> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(BadPattern::TooLong(pattern.len()));
    }
    let text = strip_uri(pattern.trim());
    let parsed = Pattern::parse(text, Bare::Exact)?;
    let mut plus = false;
    let mut first = true;
    let mut longest = 0;
    let digits = parsed.try_map(|part| {
        let (digits, has_plus) = digits_of(part)?;
        // A '+' stands only where the number begins.
        let begins = std::mem::take(&mut first) && !text.starts_with('*');
        plus |= has_plus;
        longest = longest.max(digits.len());
        (!digits.is_empty() && (begins || !has_plus)).then(|| digits.to_vec())
    });
    match digits {
        None => Err(BadPattern::Phone),
        Some(_) if longest > MAX_DIGITS => Err(BadPattern::PhoneTooLong(longest)),
        Some(Pattern::Exact(digits)) => Ok(PhonePattern::Number(Digits::of([&digits, &[]]).ok_or(BadPattern::Phone)?, plus)),
        Some(stars) => Ok(PhonePattern::Stars(stars, plus)),
    }
}

/// Without `tel:`, `sip:` or `sips:`, a host and parameters.
fn strip_uri(text: &str) -> &str {
    let strip =
        |scheme: &str| text.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).and_then(|_| text.get(scheme.len()..));
    let rest = ["tel:", "sip:", "sips:"].into_iter().find_map(strip).unwrap_or(text);
    rest.split(['@', ';']).next().unwrap_or(rest)
}

/// Checks what can be checked without the plan.
pub(super) fn validate(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    parse(pattern).map(drop)
}

/// The pattern's digits and stars, without `+` and separators.
pub(super) fn digits_alone(pattern: &str) -> Option<Pattern> {
    Some(match parse(pattern).ok()? {
        PhonePattern::Number(digits, _) => Pattern::Exact((&*digits).into()),
        PhonePattern::Stars(stars, _) => stars,
    })
}

/// A pattern compared by its digits.
#[derive(Debug)]
struct Entry {
    value: u64,
    len: u32,
    e164: bool,
    ids: SmallVec<[PatternId; 2]>,
}

/// Collects phone patterns.
#[derive(Debug, Default)]
pub(super) struct PhoneSetBuilder {
    plan: PhonePlan,
    entries: Vec<Entry>,
    endings: HashMap<u64, SmallVec<[u32; 2]>, RandomState>,
    short: PatternSetBuilder,
    international: PatternSetBuilder,
    dialled: PatternSetBuilder,
    len: usize,
}

/// Many compiled phone patterns.
#[derive(Debug, Default)]
pub(super) struct PhoneSet {
    plan: PhonePlan,
    entries: Vec<Entry>,
    /// By the last 7 digits: the entries that end in them.
    endings: HashMap<u64, SmallVec<[u32; 2]>, RandomState>,
    /// Whole numbers of fewer than 7 digits, as dialled.
    short: PatternSet,
    /// Star patterns over international digits.
    international: PatternSet,
    /// Star patterns over the digits as dialled.
    dialled: PatternSet,
    len: usize,
}

/// Why a phone pattern could not be taken into a set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum PhoneError {
    /// No number.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A bound of the pattern sets.
    #[error(transparent)]
    Set(#[from] SetError),
    /// Over [`MAX_SAME_ENDING`].
    #[error("more than {MAX_SAME_ENDING} different numbers with the same last {MIN_SUFFIX_DIGITS} digits")]
    SameEnding,
}

impl PhoneSetBuilder {
    pub(super) fn new(plan: PhonePlan) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Adds one pattern; the answer says in words how it will be compared.
    pub(super) fn add(&mut self, pattern: &str, id: PatternId) -> Result<&'static str, PhoneError> {
        let rule = match parse(pattern)? {
            PhonePattern::Number(digits, plus) => self.add_number(digits, plus, id)?,
            PhonePattern::Stars(pattern, plus) => self.add_stars(&pattern, plus, id)?,
        };
        self.len = self.len.saturating_add(1);
        Ok(rule)
    }

    fn add_number(&mut self, digits: Digits, plus: bool, id: PatternId) -> Result<&'static str, PhoneError> {
        let number = number(digits, plus, &self.plan);
        let (digits, e164) = number.comparable();
        if digits.len() < MIN_SUFFIX_DIGITS {
            self.short.add(&Pattern::Exact((*number.dialled).into()), id)?;
            return Ok("whole number");
        }
        let (value, len) = value(digits);
        let same = self.endings.entry(value % LAST_7).or_default();
        let rule = if e164 { "E.164; other spellings by suffix of at least 7 digits" } else { "suffix of at least 7 digits" };
        for at in same.iter() {
            let entry = usize::try_from(*at).ok().and_then(|at| self.entries.get_mut(at));
            if let Some(entry) = entry.filter(|e| e.value == value && e.len == len && e.e164 == e164) {
                entry.ids.push(id);
                return Ok(rule);
            }
        }
        if same.len() >= MAX_SAME_ENDING {
            return Err(PhoneError::SameEnding);
        }
        let at = u32::try_from(self.entries.len()).map_err(|_| PhoneError::Set(SetError::TooMany))?;
        same.push(at);
        self.entries.push(Entry { value, len, e164, ids: SmallVec::from_slice(&[id]) });
        Ok(rule)
    }

    fn add_stars(&mut self, pattern: &Pattern, plus: bool, id: PatternId) -> Result<&'static str, PhoneError> {
        let head = match pattern {
            Pattern::Prefix(head) | Pattern::Ends(head, _) if !plus => self.plan.international(head),
            Pattern::Exact(_)
            | Pattern::Prefix(_)
            | Pattern::Suffix(_)
            | Pattern::Contains(_)
            | Pattern::Ends(..)
            | Pattern::Any => None,
        };
        match (pattern, head) {
            (Pattern::Ends(_, tail), Some(head)) => {
                self.international.add(&Pattern::Ends((*head).into(), tail.clone()), id)?;
                Ok("prefix and suffix of the international digits")
            }
            (_, Some(head)) => {
                self.international.add(&Pattern::Prefix((*head).into()), id)?;
                Ok("prefix of the international digits")
            }
            (_, None) if plus => {
                self.international.add(pattern, id)?;
                Ok("international digits with stars")
            }
            (_, None) => {
                self.dialled.add(pattern, id)?;
                Ok("dialled digits with stars")
            }
        }
    }

    /// Builds the set; the ids that did not fit come back beside it.
    pub(super) fn build(self) -> (PhoneSet, Vec<(PatternId, SetError)>) {
        let (short, mut refused) = self.short.build();
        let (international, more) = self.international.build();
        refused.extend(more);
        let (dialled, more) = self.dialled.build();
        refused.extend(more);
        let set = PhoneSet {
            plan: self.plan,
            entries: self.entries,
            endings: self.endings,
            short,
            international,
            dialled,
            len: self.len,
        };
        (set, refused)
    }
}

impl PhoneSet {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds every filter that means the number in `text`: a user part or the inside of a `tel:` URI, folded or not.
    pub(super) fn find(&self, text: &[u8], hits: &mut Hits) {
        let Some(number) = observed(text, &self.plan) else { return };
        let (digits, e164) = number.comparable();
        if digits.len() >= MIN_SUFFIX_DIGITS {
            self.find_ending(digits, e164, hits);
        }
        hits.search(&self.short, &number.dialled);
        hits.search(&self.international, digits);
        hits.search(&self.dialled, &number.dialled);
    }

    fn find_ending(&self, digits: &[u8], e164: bool, hits: &mut Hits) {
        let (value, len) = value(digits);
        for at in self.endings.get(&(value % LAST_7)).into_iter().flatten() {
            let Some(entry) = usize::try_from(*at).ok().and_then(|at| self.entries.get(at)) else { continue };
            let same = if entry.e164 && e164 {
                entry.value == value
            } else {
                // At most 10^19, which 64 bits hold.
                let modulus = 10_u64.saturating_pow(entry.len.min(len));
                entry.value % modulus == value % modulus
            };
            if same {
                for id in &entry.ids {
                    if hits.take(*id).is_break() {
                        break;
                    }
                }
            }
        }
    }
}

/// The last [`MAX_DIGITS`] digits as a number, and how many they are.
fn value(digits: &[u8]) -> (u64, u32) {
    let last = digits.get(digits.len().saturating_sub(MAX_DIGITS)..).unwrap_or_default();
    last.iter().fold((0, 0), |(value, len), digit| {
        (value * 10 + u64::from(digit.wrapping_sub(b'0')), len + 1) // at most 19 digits: below 10^19
    })
}

#[cfg(test)]
mod tests;
