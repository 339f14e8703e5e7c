//! The filter file.
//!
//! ```yaml
//! filters:
//!   - id: alice                # required, unique
//!     type: sip_user           # required; see KINDS
//!     pattern: "alice*"        # required
//!     target_hunters: [edge1]  # default: all
//!     enabled: true            # default: true
//!     description: text        # default: empty
//!     media: full              # full | headers | none; default: full
//!     dialect: native          # native | legacy; default: native
//! ```
//!
//! Promises: all or nothing; every error with line, column and the nearest right word. What [`to_yaml`] writes,
//! [`parse`] reads back the same.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use ahash::RandomState;

use crate::pattern::nearest;

use super::yaml::{self, Mark, Node, Value};
use super::{BpfCompiler, Dialect, Filter, FilterKind, KINDS, MAX_BPF_FILTERS, MAX_FILTERS, MediaPolicy, USUAL_LINKS};

/// Most problems listed of one file; the rest is counted.
pub const MAX_PROBLEMS: usize = 50;

const KEYS: [&str; 8] = ["id", "type", "pattern", "target_hunters", "enabled", "description", "media", "dialect"];

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Where.
    pub mark: Mark,
    /// What, and what to write instead.
    pub message: String,
}

/// Everything wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterFileError {
    /// In the order of the file; at most [`MAX_PROBLEMS`].
    pub errors: Vec<FileProblem>,
    /// How many more there are.
    pub more: usize,
}

impl FilterFileError {
    /// One line per problem: `file:line:column: message`.
    pub fn in_file(&self, file: &str) -> String {
        let mut out: Vec<String> =
            self.errors.iter().map(|p| format!("{file}:{}:{}: {}", p.mark.line, p.mark.column, p.message)).collect();
        if self.more > 0 {
            out.push(format!("{file}: and {} more", self.more));
        }
        out.join("\n")
    }
}

impl fmt::Display for FilterFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_file("filter file"))
    }
}

impl std::error::Error for FilterFileError {}

/// Reads a filter file.
///
/// # Errors
/// [`FilterFileError`] with everything that is wrong; a file with one bad filter is refused as a whole.
pub fn parse(text: &str) -> Result<Vec<Filter>, FilterFileError> {
    read(text, Reader::default())
}

/// The same, and every `bpf` expression must have a meaning for one of the usual link types.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, bpf: &dyn BpfCompiler) -> Result<Vec<Filter>, FilterFileError> {
    read(text, Reader { bpf: Some(bpf), ..Reader::default() })
}

fn read(text: &str, mut reader: Reader<'_>) -> Result<Vec<Filter>, FilterFileError> {
    let filters = match yaml::parse(text) {
        Ok(document) => reader.document(document.as_ref()),
        Err(e) => {
            reader.problem(e.mark, e.reason);
            Vec::new()
        }
    };
    if reader.errors.is_empty() {
        return Ok(filters);
    }
    reader.errors.sort_by_key(|p| p.mark);
    Err(FilterFileError { errors: reader.errors, more: reader.more })
}

#[derive(Default)]
struct Reader<'a> {
    bpf: Option<&'a dyn BpfCompiler>,
    errors: Vec<FileProblem>,
    more: usize,
}

impl Reader<'_> {
    fn problem(&mut self, mark: Mark, message: impl Into<String>) {
        if self.errors.len() < MAX_PROBLEMS {
            self.errors.push(FileProblem { mark, message: message.into() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn document(&mut self, document: Option<&Node>) -> Vec<Filter> {
        let Some(document) = document else {
            self.problem(Mark { line: 1, column: 1 }, "the file is empty; write 'filters: []' for no filters");
            return Vec::new();
        };
        let Value::Mapping(pairs) = &document.value else {
            self.problem(document.mark, format!("expected 'filters:' and a list, found {}", document.describe()));
            return Vec::new();
        };
        let mut filters = Vec::new();
        let mut found = false;
        for (key, value) in pairs {
            if key.as_text() == Some("filters") {
                found = true;
                filters = self.list(value);
            } else {
                self.unknown_key(key, &["filters"]);
            }
        }
        if !found && self.errors.is_empty() {
            self.problem(document.mark, "the key 'filters' is missing");
        }
        filters
    }

    fn list(&mut self, node: &Node) -> Vec<Filter> {
        let items = match &node.value {
            Value::Null => return Vec::new(),
            Value::Sequence(items) => items,
            Value::Bool(..) | Value::Number(_) | Value::Text(_) | Value::Mapping(_) => {
                self.problem(node.mark, format!("expected a list of filters, found {}", node.describe()));
                return Vec::new();
            }
        };
        if items.len() > MAX_FILTERS {
            self.problem(node.mark, format!("{} filters, the limit is {MAX_FILTERS}", items.len()));
            return Vec::new();
        }
        let mut filters = Vec::with_capacity(items.len());
        let mut ids: HashMap<String, usize, RandomState> = HashMap::default();
        let mut bpf = 0_usize;
        for item in items {
            let Some((filter, id_mark)) = self.filter(item) else { continue };
            bpf = bpf.saturating_add(usize::from(filter.kind == FilterKind::Bpf));
            if filter.kind == FilterKind::Bpf && bpf == MAX_BPF_FILTERS.saturating_add(1) {
                self.problem(item.mark, format!("more than {MAX_BPF_FILTERS} bpf filters"));
            }
            if let Some(line) = ids.insert(filter.id.clone(), id_mark.line) {
                self.problem(id_mark, format!("the id {:?} is used in line {line} already", filter.id));
            }
            filters.push(filter);
        }
        filters
    }

    /// One filter and where its id stands; `None` after a problem was noted.
    fn filter(&mut self, node: &Node) -> Option<(Filter, Mark)> {
        let Value::Mapping(pairs) = &node.value else {
            self.problem(node.mark, format!("expected a filter with id, type and pattern, found {}", node.describe()));
            return None;
        };
        let before = self.errors.len().saturating_add(self.more);
        let mut filter = Filter::new("", FilterKind::SipUser, "");
        let mut at: [Option<Mark>; 3] = [None; 3];
        let [id_at, type_at, pattern_at] = &mut at;
        for (key, value) in pairs {
            match key.as_text() {
                Some("id") => {
                    *id_at = Some(value.mark);
                    filter.id = self.text(value, "id");
                }
                Some("type") => {
                    *type_at = Some(value.mark);
                    let name = self.text(value, "type");
                    filter.kind = self.named(value, "filter type", &name, FilterKind::parse(&name), &kind_names(), filter.kind);
                }
                Some("pattern") => {
                    *pattern_at = Some(value.mark);
                    filter.pattern = self.text(value, "pattern");
                }
                Some("target_hunters") => filter.target_hunters = self.texts(value),
                Some("enabled") => filter.enabled = self.truth(value),
                Some("description") if value.value == Value::Null => {}
                Some("description") => filter.description = self.text(value, "description"),
                Some("media") => {
                    let name = self.text(value, "media");
                    let names = MediaPolicy::ALL.map(MediaPolicy::name);
                    filter.media = self.named(value, "media policy", &name, MediaPolicy::parse(&name), &names, filter.media);
                }
                Some("dialect") => {
                    let name = self.text(value, "dialect");
                    let names = Dialect::ALL.map(Dialect::name);
                    filter.dialect = self.named(value, "dialect", &name, Dialect::parse(&name), &names, filter.dialect);
                }
                Some(_) | None => self.unknown_key(key, &KEYS),
            }
        }
        for (key, at) in ["id", "type", "pattern"].into_iter().zip(at) {
            if at.is_none() {
                self.problem(node.mark, format!("the filter has no {key}"));
            }
        }
        if self.errors.len().saturating_add(self.more) > before {
            return None;
        }
        let [id_at, _, pattern_at] = at;
        if let Err(bad) = filter.validate() {
            let mark = if matches!(bad, super::BadFilter::Pattern(_)) { pattern_at } else { id_at };
            self.problem(mark.unwrap_or(node.mark), format!("{} {:?}: {bad}", filter.kind.name(), filter.pattern));
            return None;
        }
        if let Some(reason) = self.refuses(&filter) {
            self.problem(pattern_at.unwrap_or(node.mark), reason);
            return None;
        }
        Some((filter, id_at.unwrap_or(node.mark)))
    }

    /// Why a `bpf` filter can be applied nowhere.
    fn refuses(&self, filter: &Filter) -> Option<String> {
        let compiler = self.bpf.filter(|_| filter.kind == FilterKind::Bpf)?;
        let mut reasons = Vec::new();
        for link in USUAL_LINKS {
            reasons.push(compiler.compile(link, &filter.pattern).err()?);
        }
        reasons.into_iter().next()
    }

    fn unknown_key(&mut self, key: &Node, known: &[&'static str]) {
        let name = key.as_text().unwrap_or_default();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("; did you mean {near:?}?"),
            None => format!("; known keys: {}", known.join(", ")),
        };
        self.problem(key.mark, format!("unknown key {name:?}{hint}"));
    }

    fn named<T>(&mut self, node: &Node, what: &str, name: &str, value: Option<T>, names: &[&'static str], default: T) -> T {
        value.unwrap_or_else(|| {
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => format!("; known: {}", names.join(", ")),
            };
            self.problem(node.mark, format!("unknown {what} {name:?}{hint}"));
            default
        })
    }

    fn text(&mut self, node: &Node, key: &str) -> String {
        if let Some(text) = node.as_text() {
            return text.to_owned();
        }
        self.problem(node.mark, format!("{key} takes a text, found {}", node.describe()));
        String::new()
    }

    fn texts(&mut self, node: &Node) -> Vec<String> {
        match &node.value {
            Value::Null => Vec::new(),
            Value::Sequence(items) => items.iter().map(|item| self.text(item, "target_hunters")).collect(),
            Value::Bool(..) | Value::Number(_) | Value::Text(_) | Value::Mapping(_) => {
                self.problem(node.mark, format!("target_hunters takes a list like [edge1, edge2], found {}", node.describe()));
                Vec::new()
            }
        }
    }

    fn truth(&mut self, node: &Node) -> bool {
        if let Value::Bool(truth, _) = &node.value {
            return *truth;
        }
        self.problem(node.mark, format!("enabled takes true or false, found {}", node.describe()));
        false
    }
}

fn kind_names() -> Vec<&'static str> {
    KINDS.iter().flat_map(|row| std::iter::once(row.name).chain(row.aliases.iter().copied())).collect()
}

/// Writes filters as a file that [`parse`] reads back the same; keys with default values are left out.
pub fn to_yaml(filters: &[Filter]) -> String {
    if filters.is_empty() {
        return "filters: []\n".into();
    }
    let mut out = String::from("filters:\n");
    for filter in filters {
        line(&mut out, "  - id", &quoted(&filter.id));
        line(&mut out, "    type", filter.kind.name());
        line(&mut out, "    pattern", &quoted(&filter.pattern));
        if !filter.target_hunters.is_empty() {
            let targets: Vec<String> = filter.target_hunters.iter().map(|t| quoted(t)).collect();
            line(&mut out, "    target_hunters", &format!("[{}]", targets.join(", ")));
        }
        line(&mut out, "    enabled", if filter.enabled { "true" } else { "false" });
        if !filter.description.is_empty() {
            line(&mut out, "    description", &quoted(&filter.description));
        }
        if filter.media != MediaPolicy::default() {
            line(&mut out, "    media", filter.media.name());
        }
        if filter.dialect != Dialect::default() {
            line(&mut out, "    dialect", filter.dialect.name());
        }
    }
    out
}

fn line(out: &mut String, key: &str, value: &str) {
    out.push_str(key);
    out.push_str(": ");
    out.push_str(value);
    out.push('\n');
}

/// A double-quoted scalar (YAML 1.2.2 §7.3.1): on one line, whatever the text.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Control characters, line and paragraph separators, the byte order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // Writing to a String cannot fail.
                let _: fmt::Result = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
