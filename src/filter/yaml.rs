//! YAML as a tree that knows where everything stood, for errors that name line and column.
//!
//! Promises: scalars keep the text they were written with (`030123` stays `030123`, `+49` keeps its plus); a key given
//! twice is an error; memory and stack are bounded by constants and the length of the text.
//!
//! Refuses: anchors, aliases and tags (a few lines of them can stand for gigabytes), more than one document, texts over
//! [`MAX_YAML_BYTES`], lines indented deeper than [`MAX_INDENT`], collections nested deeper than [`MAX_DEPTH`].

mod shape;

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use thiserror::Error;

/// Longest text: 100 000 filters with generous descriptions are a third of it.
pub const MAX_YAML_BYTES: usize = 64 << 20;
/// Deepest indentation in columns. It bounds the nesting of block collections, on which the parser recurses.
pub const MAX_INDENT: usize = 64;
/// Deepest nesting of collections; no file of ours has more than six.
pub const MAX_DEPTH: usize = 32;

/// A place in a text, counted from one, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Why a text is not YAML as we take it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {}, column {}: {reason}", mark.line, mark.column)]
pub struct YamlError {
    /// Where.
    pub mark: Mark,
    /// What is wrong.
    pub reason: String,
}

/// A node and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, or `null`, or `~`.
    Null,
    /// `true` or `false`, as written.
    Bool(bool, String),
    /// A number, as written.
    Number(String),
    /// Anything else, without its quotes.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the text; no key twice.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar, as written.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Number(text) | Value::Bool(_, text) => Some(text),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// What it is, in words for errors.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(..) => "a truth value",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// Reads one document; `None` when the text holds none.
///
/// # Errors
/// [`YamlError`] with the first thing that is not YAML, or not YAML as we take it.
pub fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    guard(text)?;
    shape::check(text)?;
    let mut documents = MarkedYaml::load_from_str(text).map_err(|e| scan_error(&e))?.into_iter();
    let Some(document) = documents.next() else { return Ok(None) };
    if let Some(second) = documents.next() {
        return Err(error(mark(second.span.start), "a second document begins here; a file holds one"));
    }
    let lines: Vec<&str> = text.lines().collect();
    let node = convert(document, &lines, 0)?;
    Ok(if node.value == Value::Null { None } else { Some(node) })
}

fn error(mark: Mark, reason: impl Into<String>) -> YamlError {
    YamlError { mark, reason: reason.into() }
}

fn mark(marker: Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col().saturating_add(1) }
}

fn scan_error(e: &saphyr::ScanError) -> YamlError {
    let mut reason = e.info().to_owned();
    if reason.contains("unknown anchor") || reason.contains("alias") {
        reason.push_str("; a text that begins with '*' or '&' needs quotes");
    }
    error(mark(*e.marker()), reason)
}

/// Bounds what the parser is given.
fn guard(text: &str) -> Result<(), YamlError> {
    if text.len() > MAX_YAML_BYTES {
        return Err(error(Mark { line: 1, column: 1 }, format!("{} bytes, the limit is {MAX_YAML_BYTES}", text.len())));
    }
    for (line, content) in (1..).zip(text.split(['\n', '\r'])) {
        let indent = content.bytes().take_while(|b| matches!(b, b' ' | b'\t' | b'-' | b'?' | b':')).count();
        if indent > MAX_INDENT {
            return Err(error(Mark { line, column: MAX_INDENT }, format!("indented by more than {MAX_INDENT} columns")));
        }
    }
    Ok(())
}

fn convert(node: MarkedYaml<'_>, lines: &[&str], depth: usize) -> Result<Node, YamlError> {
    let mark = mark(node.span.start);
    if depth > MAX_DEPTH {
        return Err(error(mark, format!("nested deeper than {MAX_DEPTH}")));
    }
    let deeper = depth.saturating_add(1);
    let written = || written(lines, node.span.start, node.span.end);
    let value = match node.data {
        YamlData::Value(Scalar::Null) => Value::Null,
        YamlData::Value(Scalar::Boolean(truth)) => Value::Bool(truth, written()),
        YamlData::Value(Scalar::Integer(_) | Scalar::FloatingPoint(_)) => Value::Number(written()),
        YamlData::Value(Scalar::String(text)) | YamlData::Representation(text, ..) => Value::Text(text.into_owned()),
        YamlData::Sequence(items) => {
            Value::Sequence(items.into_iter().map(|item| convert(item, lines, deeper)).collect::<Result<_, _>>()?)
        }
        YamlData::Mapping(pairs) => {
            let pair = |(key, value)| Ok((convert(key, lines, deeper)?, convert(value, lines, deeper)?));
            Value::Mapping(pairs.into_iter().map(pair).collect::<Result<_, _>>()?)
        }
        YamlData::Tagged(..) | YamlData::Alias(_) => return Err(error(mark, "tags, anchors and aliases are not taken")),
        YamlData::BadValue if depth == 0 => Value::Null,
        YamlData::BadValue => return Err(error(mark, "the value does not suit its tag")),
    };
    Ok(Node { mark, value })
}

/// A scalar as it stands in the text. Numbers and truth values stand on one line, without quotes.
fn written(lines: &[&str], start: Marker, end: Marker) -> String {
    let line = start.line().checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or_default();
    let rest = line.chars().skip(start.col());
    let len = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
    rest.take(len).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests;
