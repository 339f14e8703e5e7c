use proptest::prelude::*;

use super::*;

fn mapping(text: &str) -> Vec<(String, Node)> {
    let Value::Mapping(pairs) = parse(text).unwrap().unwrap().value else { panic!("no mapping: {text}") };
    pairs.into_iter().map(|(k, v)| (k.as_text().unwrap().to_owned(), v)).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn scalars_keep_the_text_they_were_written_with() {
    let pairs =
        mapping("a: 030123456\nb: +493012\nc: \"007\"\nd: yes\ne: true\nf: 1.50\ng: ~\nh:\nä: 0049 # note\ni: {x: 012}\n");

    let values: Vec<(&str, &Value)> = pairs.iter().map(|(k, v)| (k.as_str(), &v.value)).collect();
    let number = |n: &str| Value::Number(n.into());
    assert_eq!(values[0], ("a", &number("030123456")));
    assert_eq!(values[1], ("b", &number("+493012")));
    assert_eq!(values[2], ("c", &text("007")));
    assert_eq!(values[3], ("d", &text("yes")));
    assert_eq!(values[4], ("e", &Value::Bool(true, "true".into())));
    assert_eq!(values[5], ("f", &number("1.50")));
    assert_eq!((values[6].1, values[7].1), (&Value::Null, &Value::Null));
    assert_eq!(values[8], ("ä", &number("0049")));
    let Value::Mapping(inner) = values[9].1 else { panic!() };
    assert_eq!(inner[0].1.value, number("012"));
}

#[test]
fn everything_knows_where_it_stands() {
    let pairs = mapping("first: 1\nsecond:\n  - x\n  - key: y\n");

    assert_eq!(pairs[0].1.mark, Mark { line: 1, column: 8 });
    let Value::Sequence(items) = &pairs[1].1.value else { panic!() };
    assert_eq!(items[0].mark, Mark { line: 3, column: 5 });
    assert_eq!(items[1].mark, Mark { line: 4, column: 5 });
}

#[test]
fn a_key_given_twice_is_an_error() {
    let error = parse("a:\n  x: 1\n  y: 2\n  x: 3\n").unwrap_err();

    assert_eq!(error.mark, Mark { line: 2, column: 3 });
    assert!(error.reason.contains("key x stands twice"), "{error}");
}

#[test]
fn aliases_anchors_and_tags_are_refused_with_a_hint() {
    for bad in ["a: &x 1\nb: *x\n", "a: &x 1\n", "a: *x\n", "pattern: *alice\n", "a: !thing [1]\n", "a: !thing b\n"] {
        let error = parse(bad).unwrap_err();
        assert!(error.reason.contains("quotes") || error.reason.contains("tags"), "{bad:?}: {error}");
    }
}

#[test]
fn a_bomb_of_aliases_costs_nothing() {
    let level = |n: u32| match n.checked_sub(1) {
        None => "a0: &a0 [x, x, x, x, x, x, x, x, x]".to_owned(),
        Some(below) => format!("a{n}: &a{n} [{}]", vec![format!("*a{below}"); 6].join(", ")),
    };
    let bomb: Vec<String> = (0..60).map(level).collect();

    assert!(
        parse(&bomb.join(
            "
"
        ))
        .is_err()
    );
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    assert!(parse(&"- ".repeat(100_000)).is_err());
    assert!(parse(&"? ".repeat(100_000)).is_err());
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).is_err());
    assert!(parse(&format!("{}{}", "{a: ".repeat(200), "}".repeat(200))).is_err());
    let stairs: Vec<String> = (0..5000).map(|n| format!("{}a:", " ".repeat(n))).collect();
    assert!(parse(&stairs.join("\n")).is_err());
}

#[test]
fn nothing_is_nothing_and_two_documents_are_one_too_many() {
    assert_eq!(parse(""), Ok(None));
    assert_eq!(parse("# only a comment\n"), Ok(None));
    assert_eq!(parse("---\n"), Ok(None));
    assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err().mark.line, 3);
}

#[test]
fn errors_say_where() {
    let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();

    assert!(error.mark.line >= 2, "{error}");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "[-a-c0-9:,*&!?#|> '\"\\[\\]{}\\\\\n\r\t%@~\u{e4}]{0,80}") {
        // Whether it is YAML does not matter here.
        drop(parse(&text));
    }

    #[test]
    fn any_quoted_text_comes_back(value in "\\PC{0,40}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let pairs = mapping(&format!("k: \"{quoted}\"\n"));
        prop_assert_eq!(&pairs[0].1.value, &Value::Text(value));
    }
}
