//! A first look at a YAML text: finds what the tree of the parser no longer shows.
//!
//! The parser's own tree drops all but the last of several equal keys, and copies whatever an alias stands for. Here no
//! two keys are equal and a copy is empty, so both can be seen, and neither costs anything.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use saphyr::{AnnotatedMapping, LoadableYamlNode, Marker, Tag, Yaml};

use super::{Mark, YamlError, error, mark, scan_error};

/// Refuses keys given twice, anchors, aliases and tags.
pub(super) fn check(text: &str) -> Result<(), YamlError> {
    let documents = Shape::load_from_str(text).map_err(|e| scan_error(&e))?;
    documents.iter().try_for_each(|document| document.check(Mark { line: 1, column: 1 }))
}

enum Body {
    /// No value yet, or none that suits its tag.
    Nothing,
    /// Stands for another node.
    Copy,
    Scalar(String),
    Sequence(Vec<Shape>),
    Mapping(AnnotatedMapping<'static, Shape>),
}

struct Shape {
    /// Makes every node different from every other, as a key.
    id: u64,
    mark: Option<Marker>,
    anchored: Cell<bool>,
    tagged: bool,
    body: Body,
}

impl Shape {
    fn new(body: Body) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), mark: None, anchored: Cell::new(false), tagged: false, body }
    }

    fn check(&self, outer: Mark) -> Result<(), YamlError> {
        let here = self.mark.map_or(outer, mark);
        if self.anchored.get() || self.tagged {
            return Err(error(here, "anchors and tags are not taken; a text that begins with '&' or '!' needs quotes"));
        }
        match &self.body {
            Body::Copy => Err(error(here, "aliases are not taken; a text that begins with '*' needs quotes")),
            Body::Nothing | Body::Scalar(_) => Ok(()),
            Body::Sequence(items) => items.iter().try_for_each(|item| item.check(here)),
            Body::Mapping(pairs) => {
                let mut seen: HashSet<&str, RandomState> = HashSet::default();
                for (key, value) in pairs {
                    key.check(here)?;
                    value.check(here)?;
                    if let Body::Scalar(text) = &key.body
                        && !seen.insert(text)
                    {
                        return Err(error(here, format!("the key {text} stands twice in the mapping that begins here")));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The parser copies a node when it has an anchor, and the copy again when it meets an alias.
impl Clone for Shape {
    fn clone(&self) -> Self {
        self.anchored.set(true);
        Self::new(Body::Copy)
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<'input> LoadableYamlNode<'input> for Shape {
    type HashKey = Self;

    fn from_bare_yaml(yaml: Yaml<'input>) -> Self {
        Self::new(match yaml {
            Yaml::Sequence(_) => Body::Sequence(Vec::new()),
            Yaml::Mapping(_) => Body::Mapping(AnnotatedMapping::new()),
            Yaml::Value(scalar) => Body::Scalar(scalar.as_str().map_or_else(|| format!("{scalar:?}"), str::to_owned)),
            Yaml::Representation(text, ..) => Body::Scalar(text.into_owned()),
            Yaml::Tagged(..) => return Self { tagged: true, ..Self::new(Body::Nothing) },
            Yaml::Alias(_) => Body::Copy,
            Yaml::BadValue => Body::Nothing,
        })
    }

    fn is_sequence(&self) -> bool {
        matches!(self.body, Body::Sequence(_))
    }

    fn is_mapping(&self) -> bool {
        matches!(self.body, Body::Mapping(_))
    }

    fn is_badvalue(&self) -> bool {
        matches!(self.body, Body::Nothing) && !self.tagged
    }

    /// The parser asks for this only where [`LoadableYamlNode::is_sequence`] said yes; a node that is none becomes one.
    fn sequence_mut(&mut self) -> &mut Vec<Self> {
        loop {
            match self.body {
                Body::Sequence(ref mut items) => return items,
                Body::Nothing | Body::Copy | Body::Scalar(_) | Body::Mapping(_) => self.body = Body::Sequence(Vec::new()),
            }
        }
    }

    /// As [`LoadableYamlNode::sequence_mut`].
    fn mapping_mut(&mut self) -> &mut AnnotatedMapping<'static, Self> {
        loop {
            match self.body {
                Body::Mapping(ref mut pairs) => return pairs,
                Body::Nothing | Body::Copy | Body::Scalar(_) | Body::Sequence(_) => {
                    self.body = Body::Mapping(AnnotatedMapping::new());
                }
            }
        }
    }

    fn into_tagged(self, _: Cow<'input, Tag>) -> Self {
        Self { tagged: true, ..self }
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(Body::Nothing))
    }

    fn with_start_marker(self, marker: Marker) -> Self {
        Self { mark: Some(marker), ..self }
    }
}
