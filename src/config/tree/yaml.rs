//! YAML 1.2 through `saphyr`, which keeps the position of every node.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::{MAX_DEPTH, Node, Shape, SyntaxError};

/// Aliases (`*name`) are copied by the parser, so a few lines can grow without bound; this many cannot.
const MAX_ALIASES: usize = 16;

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_bombs(text)?;
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| SyntaxError::new(error.marker().line().max(1), format!("not valid YAML: {}", error.info())))?;
    match documents.as_slice() {
        [] => Ok(Node { line: 1, shape: Shape::Null }),
        [document] => convert(document, &Text::new(text), 0),
        [_, second, ..] => Err(SyntaxError::new(second.span.start.line(), "a second YAML document; one is expected")),
    }
}

/// Refuses, before the parser builds anything, what would make it build too much: deep nesting and alias expansion.
fn refuse_bombs(text: &str) -> Result<(), SyntaxError> {
    let mut aliases = 0_usize;
    for (at, line) in text.lines().enumerate() {
        let lead = line.bytes().take_while(|b| matches!(b, b' ' | b'-' | b'?' | b':' | b'\t')).count();
        let brackets = line.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
        if lead > MAX_DEPTH.saturating_mul(4) || brackets > MAX_DEPTH.saturating_mul(4) {
            return Err(SyntaxError::new(at.saturating_add(1), "nested too deeply"));
        }
        let bytes = line.as_bytes();
        aliases = aliases.saturating_add(
            bytes.windows(2).filter(|pair| matches!(pair, [b'*', next] if !next.is_ascii_whitespace() && *next != b'"')).count(),
        );
        if aliases > MAX_ALIASES && text.contains('&') {
            return Err(SyntaxError::new(at.saturating_add(1), "too many aliases (*name)"));
        }
    }
    Ok(())
}

/// The source, addressable by character as the parser's markers are.
struct Text<'a> {
    source: &'a str,
    /// Byte offset of every character, and of the end.
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(source: &'a str) -> Self {
        let starts = source.char_indices().map(|(at, _)| at).chain([source.len()]).collect();
        Self { source, starts }
    }

    /// The parser keeps the last of two equal keys and says nothing. In a block map every key stands at the column of the
    /// first, and nothing else does: values are indented further. (Maps in braces are not looked at.)
    fn refuse_repeated_keys(&self, map: &MarkedYaml<'_>, column: usize) -> Result<(), SyntaxError> {
        let (start, end) = (map.span.start, map.span.end);
        if self.slice(start.index(), start.index().saturating_add(1)) == Some("{") {
            return Ok(());
        }
        let last = if end.col() > column { end.line() } else { end.line().saturating_sub(1) };
        let first = start.line().saturating_sub(1);
        let mut seen: Vec<&str> = Vec::new();
        for (at, line) in self.source.lines().enumerate().take(last).skip(first) {
            let content = line.trim_start_matches(' ');
            if line.len().saturating_sub(content.len()) != column || content.starts_with('#') {
                continue;
            }
            let Some((key, _)) = content.split_once(':') else { continue };
            let key = key.trim().trim_matches(['"', '\'']);
            if seen.contains(&key) {
                return Err(SyntaxError::new(at.saturating_add(1), format!("the key '{key}' stands here twice")));
            }
            seen.push(key);
        }
        Ok(())
    }

    fn slice(&self, from: usize, to: usize) -> Option<&'a str> {
        self.source.get(*self.starts.get(from)?..*self.starts.get(to)?)
    }
}

fn convert(node: &MarkedYaml<'_>, text: &Text<'_>, depth: usize) -> Result<Node, SyntaxError> {
    let line = node.span.start.line().max(1);
    if depth > MAX_DEPTH {
        return Err(SyntaxError::new(line, "nested too deeply"));
    }
    let below = depth.saturating_add(1);
    let shape = match &node.data {
        YamlData::Value(scalar) => as_written(scalar, node, text),
        YamlData::Representation(written, ..) => Shape::Scalar(written.to_string()),
        YamlData::Sequence(items) => Shape::List(items.iter().map(|item| convert(item, text, below)).collect::<Result<_, _>>()?),
        YamlData::Mapping(map) => {
            if let Some(key) = map.keys().next() {
                text.refuse_repeated_keys(node, key.span.start.col())?;
            }
            let mut pairs = Vec::with_capacity(map.len());
            for (key, value) in map {
                let key_line = key.span.start.line().max(1);
                let Shape::Scalar(name) = convert(key, text, below)?.shape else {
                    return Err(SyntaxError::new(key_line, "a key that is not a word"));
                };
                pairs.push((name, key_line, convert(value, text, below)?));
            }
            Shape::Map(pairs)
        }
        YamlData::Tagged(tag, _) => return Err(SyntaxError::new(line, format!("the tag {tag} is not understood here"))),
        YamlData::Alias(_) | YamlData::BadValue => return Err(SyntaxError::new(line, "a value that YAML does not define")),
    };
    Ok(Node { line, shape })
}

/// The parser has already read `0049` as 49 and `+49` as 49; the source still has what the user wrote.
fn as_written(scalar: &Scalar<'_>, node: &MarkedYaml<'_>, text: &Text<'_>) -> Shape {
    let parsed = match scalar {
        Scalar::Null => return Shape::Null,
        Scalar::String(string) => return Shape::Scalar(string.to_string()),
        Scalar::Boolean(switch) => switch.to_string(),
        Scalar::Integer(number) => number.to_string(),
        Scalar::FloatingPoint(number) => number.to_string(),
    };
    let written = text.slice(node.span.start.index(), node.span.end.index()).map(str::trim);
    Shape::Scalar(written.filter(|written| !written.is_empty()).map_or(parsed, str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> String {
        let node = parse(text).unwrap();
        let Shape::Map(pairs) = node.shape else { panic!("{node:?}") };
        match pairs.into_iter().next() {
            Some((_, _, Node { shape: Shape::Scalar(text), .. })) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_are_kept_as_written() {
        for (text, want) in [
            ("a: 0049170", "0049170"),
            ("a: +49170 # comment", "+49170"),
            ("a: 1_000", "1_000"),
            ("a: true", "true"),
            ("a: 1.50", "1.50"),
            ("a: \"x\\ty\"", "x\ty"),
            ("a: 'it''s'", "it's"),
            ("{a: 007}", "007"),
            ("ü: é\na: 1", "é"),
        ] {
            assert_eq!(scalar(text), want, "{text}");
        }
    }

    #[test]
    fn keys_and_values_know_their_lines() {
        let node = parse("# first\n\nhunter:\n  id: a\n  batch_size: 5\n").unwrap();

        let Shape::Map(top) = node.shape else { panic!() };
        let Shape::Map(inner) = &top[0].2.shape else { panic!() };

        assert_eq!(top[0].1, 3);
        assert_eq!((inner[0].1, inner[1].1, inner[1].2.line), (4, 5, 5));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(parse("# only a comment\n").unwrap().shape, Shape::Null);
        assert_eq!(parse("").unwrap().shape, Shape::Null);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert_eq!(parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
    }

    #[test]
    fn a_repeated_key_is_an_error_on_its_second_line() {
        assert_eq!(parse("a:\n  x: 1\n  # x: 5\n  y: 2\n  x: 3\n").unwrap_err().line, 5);
        assert_eq!(parse("a: 1\n\"a\": 2").unwrap_err().line, 2);
        assert!(parse("a:\n  x: 1\nb:\n  x: 1\nc: {x: 1, y: {x: 2}}\nd: |\n  x: 1\n  x: 1\n").is_ok());
    }

    #[test]
    fn bombs_are_refused_before_they_are_built() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let items = vec![format!("*a{}", n - 1); 9].join(", ");
            laughs = format!("{laughs}a{n}: &a{n} [{items}]\n");
        }
        for text in
            [laughs, "- ".repeat(100_000), "[".repeat(100_000), "? ".repeat(100_000), "a:\n".repeat(3) + &"{".repeat(9000)]
        {
            assert!(parse(&text).is_err());
        }
        let staircase = (0..2000).fold(String::new(), |text, n| text + &" ".repeat(n) + "a:\n");
        assert!(parse(&staircase).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ \\-:\\[\\]{}?&*!|>'\"%@`#,a-c0-9\n\t]{0,200}") {
            drop(parse(&text));
        }
    }
}
