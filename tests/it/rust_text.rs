//! Just enough of Rust's grammar for structural tests: code without comments, strings and tests, and what it imports.
//!
//! Textual on purpose: it also sees code behind features that are off.

/// `source` with comments and the contents of string and character literals blanked; every line break stays, so that line
/// numbers are those of the source.
pub(crate) fn without_comments_and_strings(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let blank = |out: &mut String, from: usize, to: usize| {
        out.extend(chars[from..to.min(chars.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while at < chars.len() {
        let rest = &chars[at..];
        let end = match rest {
            ['/', '/', ..] => at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => end_of_block_comment(&chars, at),
            ['"', ..] => end_of_string(&chars, at + 1),
            ['\'', ..] => end_of_char(&chars, at),
            ['r', ..] | ['b' | 'c', 'r', ..] if !follows_word(&chars, at) => end_of_raw_string(&chars, at),
            _ => at,
        };
        if end > at {
            blank(&mut out, at, end);
            at = end.min(chars.len());
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

/// Block comments nest.
fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match &chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// A character literal, or `start` when the quote begins a lifetime.
fn end_of_char(chars: &[char], start: usize) -> usize {
    match &chars[start..] {
        ['\'', '\\', ..] => chars[start + 3..].iter().position(|c| *c == '\'').map_or(chars.len(), |len| start + 4 + len),
        ['\'', _, '\'', ..] => start + 3,
        _ => start,
    }
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let after_r = chars[start..].iter().position(|c| *c == 'r').map_or(start, |len| start + len + 1);
    let hashes = chars[after_r..].iter().take_while(|c| **c == '#').count();
    if chars.get(after_r + hashes) != Some(&'"') {
        return start;
    }
    let mut at = after_r + hashes + 1;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// Blanked code without the items marked `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = end_of_item(&out, start + "#[cfg(test)]".len());
        let blanked: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blanked);
        from = start + blanked.len();
    }
    out
}

/// The end of the item that begins at `start`: its closing brace, or its semicolon.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if c == '}' && depth == 0 {
                    return start + at + 1;
                }
            }
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A path that code names, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `std::fs::File`.
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// Every path in blanked code: `use` trees taken apart, and paths written in full.
pub(crate) fn paths(code: &str) -> Vec<Named> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while let Some(c) = code[at..].chars().next() {
        if c == '\n' {
            line += 1;
        }
        if !(c.is_alphabetic() || c == '_') {
            at += c.len_utf8();
            continue;
        }
        let word = word_at(code, at);
        if word == "use" {
            let end = code[at..].find(';').map_or(code.len(), |len| at + len);
            for path in expand(&code[at + 3..end]) {
                out.push(Named { path, line });
            }
            line += code[at..end].matches('\n').count();
            at = end;
            continue;
        }
        let path = path_at(code, at);
        at += path.len().max(word.len());
        out.push(Named { path: path.to_owned(), line });
    }
    out
}

fn word_at(code: &str, at: usize) -> &str {
    let len = code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(code.len() - at);
    &code[at..at + len]
}

/// The longest `a::b::c`, with a final `!` of a macro.
fn path_at(code: &str, start: usize) -> &str {
    let mut end = start + word_at(code, start).len();
    while code[end..].starts_with("::") {
        let next = word_at(code, end + 2);
        if next.is_empty() {
            break;
        }
        end += 2 + next.len();
    }
    if code[end..].starts_with('!') && !code[end..].starts_with("!=") {
        end += 1;
    }
    &code[start..end]
}

/// `a::{b, c::{d as e, self}}` as `a::b`, `a::c::d`, `a::c`.
fn expand(tree: &str) -> Vec<String> {
    fn walk(prefix: &str, tree: &str, out: &mut Vec<String>) {
        let tree = tree.trim();
        match tree.split_once('{') {
            Some((head, group)) if group.trim_end().ends_with('}') => {
                let group = group.trim_end().strip_suffix('}').unwrap_or(group);
                let prefix = format!("{prefix}{}", head.trim());
                let (mut depth, mut start) = (0, 0);
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            walk(&prefix, &group[start..at], out);
                            start = at + 1;
                        }
                        _ => {}
                    }
                }
                walk(&prefix, &group[start..], out);
            }
            _ => {
                let name = tree.split(" as ").next().unwrap_or(tree).trim();
                if name.is_empty() {
                    return;
                }
                let path = format!("{prefix}{name}");
                let path = path.trim_start_matches("::");
                out.push(path.strip_suffix("::self").unwrap_or(path).to_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk("", tree, &mut out);
    out
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lines_stay() {
    let source = "a // unsafe\nb /* x /* y */ unsafe\n */ c \"un\\\"safe\" r#\"uns\"afe\"# 'x' '\\'' b'\"' &'a str d";

    let code = without_comments_and_strings(source);

    assert!(!code.contains("safe") && !code.contains('"'), "{code}");
    assert_eq!(code.lines().count(), source.lines().count());
    for word in ["a", "b", "c", "&'a str d"] {
        assert!(code.contains(word), "{code}");
    }
}

#[test]
fn test_items_are_cut_and_what_follows_stays() {
    let code = without_tests("fn a() {}\n#[cfg(test)]\nmod tests { fn x() { y(); } }\n#[cfg(test)]\nmod more;\nfn b() {}");

    assert!(!code.contains("tests") && !code.contains("more"), "{code}");
    assert!(code.contains("fn a") && code.contains("fn b"), "{code}");
}

#[test]
fn use_trees_are_taken_apart() {
    let found: Vec<String> =
        paths("use std::{fs, io::{self, Read as R}};\nlet x = crate::flow::Key::new();").into_iter().map(|n| n.path).collect();

    for path in ["std::fs", "std::io", "std::io::Read", "crate::flow::Key::new"] {
        assert!(found.iter().any(|found| found == path), "{path}: {found:?}");
    }
}
