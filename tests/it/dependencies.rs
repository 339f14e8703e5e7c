//! What `cargo deny` checks, for machines that do not have it: licences, bans and sources of every crate in `Cargo.lock`,
//! from `cargo metadata`. The lists are those of `deny.toml`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn deny() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn words<'a>(list: &'a toml::Value, key: Option<&str>) -> Vec<&'a str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| key.map_or(item, |key| &item[key]).as_str().unwrap()).collect()
}

/// Crates that are really built here, the dependencies of tests and build scripts included.
fn packages(metadata: &Value) -> Vec<&Value> {
    let used: Vec<&str> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
    let all = metadata["packages"].as_array().unwrap().iter();
    all.filter(|package| used.contains(&package["id"].as_str().unwrap())).collect()
}

/// Whether an SPDX expression can be met with the allowed licences: `OR` needs one side, `AND` both.
fn allowed(expression: &str, allow: &[&str]) -> bool {
    fn any(words: &mut &[String], allow: &[&str]) -> bool {
        let mut met = all(words, allow);
        while words.first().is_some_and(|word| word == "OR" || word == "/") {
            *words = &words[1..];
            met |= all(words, allow);
        }
        met
    }
    fn all(words: &mut &[String], allow: &[&str]) -> bool {
        let mut met = one(words, allow);
        while words.first().is_some_and(|word| word == "AND") {
            *words = &words[1..];
            met &= one(words, allow);
        }
        met
    }
    fn one(words: &mut &[String], allow: &[&str]) -> bool {
        let (first, rest) = words.split_first().unwrap();
        *words = rest;
        if first == "(" {
            let met = any(words, allow);
            *words = &words[1..];
            return met;
        }
        // "X WITH an exception" allows more than X does.
        if words.first().is_some_and(|word| word == "WITH") {
            *words = &words[2..];
        }
        allow.contains(&first.as_str())
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " / ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    !words.is_empty() && any(&mut words.as_slice(), allow)
}

#[test]
fn every_licence_is_on_the_list() {
    let (metadata, deny) = (metadata(), deny());
    let allow = words(&deny["licenses"]["allow"], None);
    for package in packages(&metadata) {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(allowed(licence, &allow), "{}: {licence}", package["name"]);
    }
}

#[test]
fn nothing_banned_is_linked_and_everything_comes_from_crates_io() {
    let (metadata, deny) = (metadata(), deny());
    let banned = words(&deny["bans"]["deny"], Some("crate"));
    let packages = packages(&metadata);
    assert!(packages.len() > 50, "{}", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned by deny.toml");
        match package["source"].as_str() {
            None => assert_eq!(name, "lippycat", "a path dependency"),
            Some(source) => assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}"),
        }
    }
}

#[test]
fn a_second_version_of_a_crate_has_a_reason() {
    let (metadata, deny) = (metadata(), deny());
    let skipped: Vec<&str> = words(&deny["bans"]["skip"], Some("crate")).iter().filter_map(|id| id.split('@').next()).collect();
    let mut names: Vec<&str> = packages(&metadata).iter().map(|package| package["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        assert!(skipped.contains(&pair[0]), "two versions of {}; deny.toml has no reason for it", pair[0]);
    }
}

#[test]
fn std_has_its_own_lazy_values() {
    let metadata = metadata();
    let us = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "lippycat").unwrap();
    for dependency in us["dependencies"].as_array().unwrap() {
        let name = dependency["name"].as_str().unwrap();
        assert!(!["lazy_static", "once_cell"].contains(&name), "{name}: std has LazyLock and OnceLock");
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allow = ["MIT", "ISC"];
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("ISC AND (GPL-3.0 OR BSL-1.0)", false),
        ("MIT WITH LLVM-exception", true),
        ("", false),
    ] {
        assert_eq!(allowed(expression, &allow), met, "{expression}");
    }
}
