//! Configurations as text: what is in effect (`lc config dump`) and everything that could be said (`lc config defaults`).
//!
//! Both are YAML that this program reads back to the same settings (a test does); private values are hidden unless asked for.

use std::fmt::Write;

use super::layers::{Merged, Origin};
use super::options::{self, Opt};

/// What stands in place of a private value.
const HIDDEN: &str = "\"[redacted]\"";

/// The effective configuration with the origin of each value. With `reveal`, private values too.
pub fn dump(merged: &Merged, reveal: bool) -> String {
    let mut out = String::new();
    match &merged.file {
        Some(path) => line(&mut out, format_args!("# file: {}", path.display())),
        None => line(&mut out, format_args!("# file: none")),
    }
    let rows: Vec<(&str, &Opt)> = options::all().map(|opt| (opt.key, opt)).collect();
    section(&mut out, &rows, 0, &|out, indent, name, opt| {
        let origin = merged.origin(opt.key);
        let value = merged.value(opt).map_or_else(String::new, |value| opt.kind.write(&value));
        let hide = opt.private && !reveal && origin != Origin::Default;
        let value = if hide { HIDDEN } else { &value };
        line(out, format_args!("{indent}{name}: {value}  # {}", origin.name()));
    });
    out
}

/// Every option with its default, help, flag and variable: a file to start from.
pub fn defaults() -> String {
    let mut out = String::from(
        "# Every option of lc with its default. A file needs only what differs.\n\
         # Precedence: flag > environment > file > default.\n",
    );
    let rows: Vec<(&str, &Opt)> = options::all().map(|opt| (opt.key, opt)).collect();
    section(&mut out, &rows, 0, &|out, indent, name, opt| {
        let variable = opt.variable();
        if opt.long.is_empty() {
            line(out, format_args!("{indent}# {} ({variable})", opt.help));
        } else {
            line(out, format_args!("{indent}# {} ({}, {variable})", opt.help, opt.flag_name()));
        }
        let value = opt.kind.read(opt.default, None).map_or_else(|_| String::new(), |value| opt.kind.write(&value));
        line(out, format_args!("{indent}{name}: {value}"));
    });
    out
}

type Leaf<'a> = dyn Fn(&mut String, &str, &str, &Opt) + 'a;

/// Writes rows as nested maps, in the order of their first appearance.
fn section(out: &mut String, rows: &[(&str, &Opt)], depth: usize, leaf: &Leaf<'_>) {
    let indent = "  ".repeat(depth);
    let mut done: Vec<&str> = Vec::new();
    for (rest, opt) in rows {
        match rest.split_once('.') {
            None => leaf(out, &indent, rest, opt),
            Some((name, _)) if done.contains(&name) => {}
            Some((name, _)) => {
                done.push(name);
                line(out, format_args!("{indent}{name}:"));
                let inner: Vec<(&str, &Opt)> =
                    rows.iter().filter_map(|(rest, opt)| Some((rest.strip_prefix(name)?.strip_prefix('.')?, *opt))).collect();
                section(out, &inner, depth.saturating_add(1), leaf);
            }
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
