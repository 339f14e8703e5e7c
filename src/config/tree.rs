//! A parsed configuration file before anybody looks at its meaning: scalars as written, each with its line.
//!
//! YAML and TOML both become this. Scalars stay text, because what `0049` means depends on the option it is given to.

mod toml;
mod yaml;

use std::path::Path;

/// Largest configuration file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Deepest nesting of maps and lists; the options need three.
pub const MAX_DEPTH: usize = 64;

/// One node and the line it starts on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The line.
    pub(super) line: usize,
    /// What stands there.
    pub(super) shape: Shape,
}

/// What stands at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: `key:` or `~`.
    Null,
    /// A scalar as written, quotes and escapes resolved.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A map in file order; the line is that of the key.
    Map(Vec<(String, usize, Node)>),
}

/// Why a file is not YAML or TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) what: String,
}

impl SyntaxError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// Parses `text` as TOML when `path` ends in `.toml`, else as YAML.
///
/// # Errors
/// The first line that cannot be understood.
pub(super) fn parse(path: &Path, text: &str) -> Result<Node, SyntaxError> {
    if path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("toml")) { toml::parse(text) } else { yaml::parse(text) }
}
