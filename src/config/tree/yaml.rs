//! YAML as the filter file takes it: scalars as written, no key twice, no aliases.

use super::{Node, Shape, SyntaxError};
use crate::filter::yaml::{self, Value};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = yaml::parse(text).map_err(|e| SyntaxError::new(e.mark.line, format!("not valid YAML: {}", e.reason)))?;
    document.map_or_else(|| Ok(Node { line: 1, shape: Shape::Null }), convert)
}

fn convert(node: yaml::Node) -> Result<Node, SyntaxError> {
    let shape = match node.value {
        Value::Null => Shape::Null,
        Value::Bool(_, text) | Value::Number(text) | Value::Text(text) => Shape::Scalar(text),
        Value::Sequence(items) => Shape::List(items.into_iter().map(convert).collect::<Result<_, _>>()?),
        Value::Mapping(pairs) => Shape::Map(pairs.into_iter().map(pair).collect::<Result<_, _>>()?),
    };
    Ok(Node { line: node.mark.line, shape })
}

fn pair((key, value): (yaml::Node, yaml::Node)) -> Result<(String, usize, Node), SyntaxError> {
    let line = key.mark.line;
    let name = key.as_text().ok_or_else(|| SyntaxError::new(line, "a key that is not a word"))?;
    Ok((name.to_owned(), line, convert(value)?))
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
    fn a_repeated_key_is_an_error() {
        let error = parse("b: 1\na:\n  x: 1\n  # x: 5\n  y: 2\n  x: 3\n").unwrap_err();

        assert_eq!(error.line, 3, "where the section begins");
        assert!(error.what.contains("the key x stands twice"), "{}", error.what);
        assert!(parse("a: 1\n\"a\": 2").is_err() && parse("a: {x: 1, x: 2}").is_err());
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
