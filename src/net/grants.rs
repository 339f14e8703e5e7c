//! What each subscriber may see: the file that `--subscriber-grants` names.
//!
//! ```text
//! # ID    what it sees; the lines of one ID add up
//! desk    hunters=edge-1,edge-2            every packet of these hunters
//! case    filters=alice,bob                packets of calls that one of these filters chose, whoever brings them
//! both    hunters=edge-1 filters=alice     packets of this hunter, of calls that this filter chose
//! boss    hunters=*                        everything
//! ```
//!
//! Promises: whoever is not in the file sees nothing; a file with a line that is not understood changes nothing. Refuses: files that others may
//! read.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys::{ID_MAX, lines, private};
use super::reload::Load;
use super::tls::TlsError;

/// Most lines.
const LINES_MAX: usize = 10_000;
/// Longest name of a hunter or a filter.
const NAME_MAX: usize = 256;
/// Bytes of a grant in the log.
const SAID_MAX: usize = 200;

/// Where the grants are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    path: PathBuf,
}

impl Grants {
    /// The file at `path`.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Load for Grants {
    type Config = GrantList;
    const WHAT: &'static str = "subscribers' grants";

    fn load(&self) -> Result<GrantList, TlsError> {
        GrantList::parse(&private("file of grants", &self.path)?, &self.path)
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// The grants of a file.
#[derive(Clone, Debug, Default)]
pub struct GrantList {
    of: HashMap<String, Arc<Grant>>,
}

impl GrantList {
    fn parse(text: &str, path: &Path) -> Result<Self, TlsError> {
        let mut of: HashMap<String, Grant> = HashMap::new();
        for (number, line) in lines(text) {
            let (id, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let bad = |why: String| TlsError::BadLine { path: path.into(), line: number, why };
            if id.len() > ID_MAX {
                return Err(bad(format!("the id is longer than {ID_MAX} bytes")));
            }
            if number > LINES_MAX {
                return Err(bad(format!("more than {LINES_MAX} lines")));
            }
            of.entry(id.to_owned()).or_default().add(rest).map_err(bad)?;
        }
        Ok(Self { of: of.into_iter().map(|(id, grant)| (id, Arc::new(grant))).collect() })
    }

    /// What this subscriber may see; none: nothing.
    pub fn find(&self, id: &str) -> Option<&Arc<Grant>> {
        self.of.get(id)
    }
}

/// Hunters by name, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hunters {
    All,
    These(BTreeSet<String>),
}

impl Hunters {
    fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(id),
        }
    }

    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::These(ids), Self::These(more)) => ids.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::These(_)) => {}
        }
    }
}

/// What one subscriber may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Every packet of these.
    hunters: Hunters,
    /// Of anybody, the calls that one of these chose.
    filters: BTreeSet<String>,
    /// Of some hunters, the calls that some filters chose.
    both: Vec<(Hunters, BTreeSet<String>)>,
    /// As it was written, for the log.
    said: String,
}

impl Default for Grant {
    fn default() -> Self {
        Self { hunters: Hunters::These(BTreeSet::new()), filters: BTreeSet::new(), both: Vec::new(), said: String::new() }
    }
}

/// What may be seen of a hunter's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight<'a> {
    /// All.
    All,
    /// Those of calls that a filter in one of these chose.
    Chosen(Vec<&'a BTreeSet<String>>),
    /// None.
    Nothing,
}

impl Sight<'_> {
    /// Whether this filter, or the calls that it chose, may be seen.
    pub fn has_filter(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Chosen(sets) => sets.iter().any(|set| set.contains(id)),
            Self::Nothing => false,
        }
    }
}

impl Grant {
    /// One more line.
    fn add(&mut self, text: &str) -> Result<(), String> {
        let (mut hunters, mut filters) = (None, None);
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("hunters", "*")) if hunters.is_none() => hunters = Some(Hunters::All),
                Some(("hunters", ids)) if hunters.is_none() => hunters = Some(Hunters::These(names(ids)?)),
                Some(("filters", ids)) if filters.is_none() => filters = Some(names(ids)?),
                _ => return Err("a line is ID hunters=ID,… or ID filters=ID,… or both; hunters=* are all".to_owned()),
            }
        }
        match (hunters, filters) {
            (Some(hunters), None) => self.hunters.add(hunters),
            (None, Some(filters)) => self.filters.extend(filters),
            (Some(hunters), Some(filters)) => self.both.push((hunters, filters)),
            (None, None) => return Err("it grants nothing; say hunters=ID,… or filters=ID,…".to_owned()),
        }
        if self.said.len() < SAID_MAX {
            let words: Vec<&str> = text.split_whitespace().collect();
            let between = if self.said.is_empty() { "" } else { "; " };
            self.said = format!("{}{between}{}", self.said, words.join(" "));
        }
        Ok(())
    }

    /// What may be seen of this hunter's packets.
    pub fn of(&self, hunter: &str) -> Sight<'_> {
        if self.hunters.has(hunter) {
            return Sight::All;
        }
        let alone = Some(&self.filters).filter(|filters| !filters.is_empty());
        let both = self.both.iter().filter(|(hunters, _)| hunters.has(hunter)).map(|(_, filters)| filters);
        let sets: Vec<_> = alone.into_iter().chain(both).collect();
        if sets.is_empty() { Sight::Nothing } else { Sight::Chosen(sets) }
    }

    /// Whether anything may be seen of this hunter's packets.
    pub fn sees(&self, hunter: &str) -> bool {
        !self.filters.is_empty() || self.names(hunter)
    }

    /// Whether it names this hunter: then its state may be seen, too.
    pub fn names(&self, hunter: &str) -> bool {
        self.hunters.has(hunter) || self.both.iter().any(|(hunters, _)| hunters.has(hunter))
    }

    /// Whether a filter for `targets`, for everybody where there are none, may be seen.
    pub fn shows(&self, filter: &str, targets: &[String]) -> bool {
        let of_hunters = match &self.hunters {
            Hunters::All => true,
            Hunters::These(ids) if targets.is_empty() => !ids.is_empty(),
            Hunters::These(ids) => targets.iter().any(|id| ids.contains(id)),
        };
        of_hunters || self.filters.contains(filter) || self.both.iter().any(|(_, filters)| filters.contains(filter))
    }

    /// As it was written, cut where it is long.
    pub fn said(&self) -> &str {
        &self.said
    }
}

fn names(list: &str) -> Result<BTreeSet<String>, String> {
    let good = |id: &str| !id.is_empty() && id.len() <= NAME_MAX && id != "*";
    let all: BTreeSet<String> = list.split(',').map(str::to_owned).collect();
    match all.iter().find(|id| !good(id)) {
        Some(_) => Err(format!("names are separated by commas alone, of 1 to {NAME_MAX} bytes each; only hunters=* means all")),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GrantList, String> {
        GrantList::parse(text, Path::new("grants")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_lines_of_one_subscriber_add_up_and_whoever_is_not_there_sees_nothing() {
        let all = "# desks\na hunters=e1,e2\n\nboss hunters=*\nc filters=f1 # a case\nd hunters=e1 filters=f1\na hunters=e3\nd filters=f2\n";
        let list = parse(all).unwrap();
        let of = |id: &str| list.find(id).unwrap();

        assert!(list.find("e1").is_none() && list.find("").is_none());
        assert_eq!(["e1", "e3", "e4"].map(|h| of("a").of(h)), [Sight::All, Sight::All, Sight::Nothing]);
        assert_eq!((of("boss").of("any"), of("boss").names("any")), (Sight::All, true));
        assert!(of("c").sees("any") && !of("c").names("any") && of("c").of("any").has_filter("f1"));
        assert!(!of("c").of("any").has_filter("f2"));
        assert!(of("d").names("e1") && !of("d").names("e2"));
        assert_eq!(["f1", "f2", "f3"].map(|f| of("d").of("e1").has_filter(f)), [true, true, false]);
        assert_eq!(["f1", "f2", "f3"].map(|f| of("d").of("e2").has_filter(f)), [false, true, false]);
        assert_eq!(of("d").said(), "hunters=e1 filters=f1; filters=f2");
        assert!(of("a").shows("f", &[]) && of("a").shows("f", &["e3".into()]) && !of("a").shows("f", &["e4".into()]));
        assert!(of("c").shows("f1", &["e4".into()]) && !of("c").shows("f2", &[]));
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_and_nothing_is_granted() {
        for (text, line, part) in [
            ("a hunters=e\nb", 2, "grants nothing"),
            ("a hunters=e,", 1, "separated by commas"),
            ("a hunters=e, f", 1, "separated by commas"),
            ("a hunters=e,*", 1, "only hunters=*"),
            ("a filters=*", 1, "only hunters=*"),
            ("a hunters=e hunters=f", 1, "a line is"),
            ("a hunter=e", 1, "a line is"),
            ("a filters=f more", 1, "a line is"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.contains(&format!("line {line}")) && e.contains(part), "{text}: {e}");
        }
        let long = "x".repeat(257);
        assert!(parse(&format!("a hunters={long}")).is_err() && parse(&format!("{long} hunters=a")).is_err());
        assert!(parse(&"a hunters=b\n".repeat(10_001)).is_err());
    }
}
