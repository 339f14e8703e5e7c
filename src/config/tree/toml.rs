//! TOML 1.0 through `toml`, which keeps the span of every key and value.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{MAX_DEPTH, Node, Shape, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    refuse_bombs(text)?;
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.of(span.start));
        SyntaxError::new(line, format!("not valid TOML: {}", error.message()))
    })?;
    Ok(Node { line: 1, shape: Shape::Map(pairs(table.get_ref(), &lines, 0)?) })
}

/// A dotted key nests as deep as it has dots, and nested values are dropped recursively.
fn refuse_bombs(text: &str) -> Result<(), SyntaxError> {
    for (at, line) in text.lines().enumerate() {
        let key = line.split(['=', '#']).next().unwrap_or(line);
        if key.bytes().filter(|b| *b == b'.').count() > MAX_DEPTH {
            return Err(SyntaxError::new(at.saturating_add(1), "nested too deeply"));
        }
    }
    Ok(())
}

/// Byte offsets of line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset).saturating_add(1)
    }
}

fn pairs(table: &DeTable<'_>, lines: &Lines, depth: usize) -> Result<Vec<(String, usize, Node)>, SyntaxError> {
    let mut out: Vec<(String, usize, Node)> = Vec::new();
    for (key, value) in table {
        out.push((key.get_ref().to_string(), lines.of(key.span().start), convert(value, lines, depth.saturating_add(1))?));
    }
    out.sort_by_key(|(_, line, _)| *line);
    Ok(out)
}

fn convert(value: &Spanned<DeValue<'_>>, lines: &Lines, depth: usize) -> Result<Node, SyntaxError> {
    let line = lines.of(value.span().start);
    if depth > MAX_DEPTH {
        return Err(SyntaxError::new(line, "nested too deeply"));
    }
    let shape = match value.get_ref() {
        DeValue::String(text) => Shape::Scalar(text.to_string()),
        DeValue::Integer(number) => Shape::Scalar(number.to_string()),
        DeValue::Float(number) => Shape::Scalar(number.to_string()),
        DeValue::Boolean(switch) => Shape::Scalar(switch.to_string()),
        DeValue::Datetime(time) => Shape::Scalar(time.to_string()),
        DeValue::Array(items) => {
            Shape::List(items.iter().map(|item| convert(item, lines, depth.saturating_add(1))).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Shape::Map(pairs(table, lines, depth)?),
    };
    Ok(Node { line, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_know_their_lines() {
        let node = parse("# first\n[hunter]\nid = \"a\"\nbatch_size = 5\n[hunter.tls]\nca_file = \"x\"\n").unwrap();

        let Shape::Map(top) = node.shape else { panic!() };
        let Shape::Map(hunter) = &top[0].2.shape else { panic!() };

        assert_eq!((hunter[0].0.as_str(), hunter[0].1), ("id", 3));
        assert_eq!((hunter[1].0.as_str(), hunter[1].1), ("batch_size", 4));
        assert_eq!(hunter[1].2.shape, Shape::Scalar("5".to_owned()));
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert_eq!(parse("a = 1\nb = = 2\n").unwrap_err().line, 2);
    }

    #[test]
    fn bombs_are_refused() {
        for text in [
            format!("a = {}", "[".repeat(100_000)),
            format!("{} = 1", vec!["a"; 100_000].join(".")),
            format!("[{}]", vec!["a"; 100_000].join(".")),
        ] {
            assert!(parse(&text).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ =\\[\\]{}.'\"#,a-c0-9\n\t\\\\-]{0,200}") {
            drop(parse(&text));
        }
    }
}
