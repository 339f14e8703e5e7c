//! Defaults < file < environment < flags, merged by figment.
//!
//! Each layer is a dictionary of values that [`super::kind::Kind::read`] has already checked, so every problem is found where
//! it was written, and all of them are found at once.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::Environment;
use super::error::{ConfigError, Place, Problem};
use super::keys;
use super::locate::{self, Choice};
use super::options::{self, Opt};
use super::settings::Settings;
use super::tree::{self, Node, Shape};

/// One flag as it was given, or several times the same.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The option.
    pub option: &'static Opt,
    /// Its values, in order.
    pub values: Vec<String>,
}

/// Everything a configuration is made from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// Which file.
    pub file: Choice,
    /// The environment.
    pub environment: &'a Environment,
    /// Flags of the command line.
    pub flags: &'a [FlagValue],
}

/// The layer a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Default, Self::File, Self::Environment, Self::Flag];

    /// The word for it in `lc config dump`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

/// The merged configuration.
#[derive(Clone, Debug)]
pub struct Merged {
    figment: Figment,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Files that were passed over, and why; to be logged as warnings.
    pub notes: Vec<String>,
}

impl Merged {
    /// Reads and merges all layers.
    ///
    /// # Errors
    /// Every problem in every layer.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let home = sources.environment.home();
        let mut problems = Vec::new();
        let mut notes = Vec::new();
        let mut figment = Figment::from(Layer::defaults(home));

        let found = locate::find(&sources.file, sources.environment, &mut notes).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let path = found.as_ref().map(|found| found.path.clone());
        if let Some(found) = found {
            figment = figment.merge(Layer::of_file(&found.path, &found.text, home, &mut problems));
        }

        let (variables, wrong) = sources.environment.options();
        problems.extend(wrong);
        let mut layer = Layer::new(Origin::Environment);
        for (opt, name, text) in variables {
            layer.put(opt, opt.kind.read(text, home), || Place::Variable(name.clone()), &mut problems);
        }
        figment = figment.merge(layer);

        let mut layer = Layer::new(Origin::Flag);
        for FlagValue { option, values } in sources.flags {
            let value = match values.as_slice() {
                [one] => option.kind.read(one, home),
                many => option
                    .kind
                    .read_many(many.iter().flat_map(|text| text.split(',')), home)
                    .map_err(|_| "given more than once".into()),
            };
            layer.put(option, value, || Place::Flag(option.flag_name()), &mut problems);
        }
        figment = figment.merge(layer);

        ConfigError::unless_empty(problems, Self { figment, file: path, notes })
    }

    /// The typed settings.
    ///
    /// # Errors
    /// Never for values that came through [`Self::load`]; a mismatch of table and struct, which a test excludes.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        self.figment.extract().map_err(|error| Problem::whole(error.to_string()).into())
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        let name = self.figment.find_metadata(key).map(|metadata| metadata.name.as_ref());
        Origin::ALL.into_iter().find(|origin| name == Some(origin.name())).unwrap_or(Origin::Default)
    }

    /// The merged value of an option.
    pub(super) fn value(&self, opt: &Opt) -> Option<Value> {
        self.figment.find_value(opt.key).ok()
    }
}

/// One figment provider.
struct Layer {
    origin: Origin,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

impl Layer {
    const fn new(origin: Origin) -> Self {
        Self { origin, dict: Dict::new() }
    }

    fn defaults(home: Option<&str>) -> Self {
        let mut layer = Self::new(Origin::Default);
        let mut problems = Vec::new();
        for opt in options::all() {
            layer.put(opt, opt.kind.read(opt.default, home), || Place::Flag(opt.key.to_owned()), &mut problems);
        }
        debug_assert_eq!(problems, [], "a default its own kind refuses");
        layer
    }

    fn put(&mut self, opt: &Opt, value: Result<Value, String>, place: impl Fn() -> Place, problems: &mut Vec<Problem>) {
        match value {
            Ok(value) => insert(&mut self.dict, opt.key, value),
            Err(what) => problems.push(Problem { place: place(), what }),
        }
    }

    fn of_file(path: &Path, text: &str, home: Option<&str>, problems: &mut Vec<Problem>) -> Self {
        let mut layer = Self::new(Origin::File);
        let place = |line| Place::File { path: path.to_owned(), line };
        match tree::parse(path, text) {
            Err(error) => problems.push(Problem { place: place(error.line), what: error.what }),
            Ok(Node { shape: Shape::Null, .. }) => {}
            Ok(Node { shape: Shape::Map(pairs), .. }) => {
                let mut reader = FileReader { layer: &mut layer, place: &place, home, problems, seen: Vec::new() };
                reader.section("", &pairs);
            }
            Ok(Node { line, shape: Shape::Scalar(_) | Shape::List(_) }) => {
                problems.push(Problem {
                    place: place(line),
                    what: "not a configuration: sections with keys are expected".to_owned(),
                });
            }
        }
        layer
    }
}

/// Walks the sections of a file.
struct FileReader<'a> {
    layer: &'a mut Layer,
    place: &'a dyn Fn(usize) -> Place,
    home: Option<&'a str>,
    problems: &'a mut Vec<Problem>,
    /// Options already set, and on which line.
    seen: Vec<(&'static str, usize)>,
}

impl FileReader<'_> {
    fn section(&mut self, prefix: &str, pairs: &[(String, usize, Node)]) {
        for (name, line, node) in pairs {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (options::find(&key), &node.shape) {
                (Some(opt), _) => self.option(opt, &key, *line, node),
                (None, Shape::Null) if keys::is_section(&key) => {}
                (None, Shape::Map(inner)) if keys::is_section(&key) => self.section(&key, inner),
                (None, Shape::Scalar(_) | Shape::List(_)) if keys::is_section(&key) => {
                    self.wrong(*line, format!("'{key}' is a section, not a value"));
                }
                (None, _) => self.wrong(*line, keys::unknown(&key, false)),
            }
        }
    }

    fn option(&mut self, opt: &'static Opt, key: &str, line: usize, node: &Node) {
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == opt.key) {
            let what = format!("'{key}' was already set on line {first}");
            return self.wrong(line, what);
        }
        let value = match &node.shape {
            Shape::Null => return,
            Shape::Scalar(text) => opt.kind.read(text, self.home),
            Shape::List(items) => texts(items).and_then(|texts| opt.kind.read_many(texts, self.home)),
            Shape::Map(_) => Err(format!("a section, where {} is expected", opt.kind.noun())),
        };
        self.seen.push((opt.key, line));
        match value {
            Ok(value) => insert(&mut self.layer.dict, opt.key, value),
            Err(what) => self.wrong(node.line, format!("'{key}': {what}")),
        }
    }

    fn wrong(&mut self, line: usize, what: String) {
        self.problems.push(Problem { place: (self.place)(line), what });
    }
}

fn texts(items: &[Node]) -> Result<Vec<&str>, String> {
    items
        .iter()
        .map(|item| match &item.shape {
            Shape::Scalar(text) => Ok(text.as_str()),
            Shape::Null | Shape::List(_) | Shape::Map(_) => Err("a list may hold only plain values".to_owned()),
        })
        .collect()
}

/// Puts a value at a dotted key.
fn insert(dict: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
