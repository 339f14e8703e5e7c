//! The command line from arguments to exit code, without running an assembly.

use super::command::{command, flags};
use super::*;

fn parse(line: &str) -> ArgMatches {
    command().try_get_matches_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The matches of the innermost command.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, below)| innermost(below))
}

fn given(line: &str) -> Vec<(String, String)> {
    let matches = parse(line);
    flags(innermost(&matches)).into_iter().map(|flag| (flag.option.key.to_owned(), flag.values.join(" "))).collect()
}

fn exit_of(line: &str) -> Exit {
    run(line.split(' ').map(OsString::from))
}

fn help(path: &[&str]) -> String {
    let arguments = ["lc"].iter().chain(path).chain(&["--help"]);
    command().term_width(100).try_get_matches_from(arguments).unwrap_err().to_string()
}

#[test]
fn the_tree_is_sound() {
    command().debug_assert();
}

#[test]
fn every_option_reaches_the_command_it_belongs_to() {
    use crate::config::{Commands, Kind};
    let homes = [
        (Commands::HUNT, "hunt"),
        (Commands::HUNT, "hunt voip"),
        (Commands::HUNT_VOIP, "hunt voip"),
        (Commands::PROCESS, "process"),
        (Commands::SNIFF, "sniff"),
        (Commands::SNIFF, "sniff voip"),
        (Commands::SNIFF_VOIP, "sniff voip"),
        (Commands::REMOTE, "list hunters"),
        (Commands::REMOTE, "show status"),
        (Commands::LOCAL, "list interfaces"),
        (Commands::CERTS, "certs init"),
        (Commands::EVERY, "config defaults"),
        (Commands::EVERY, "hunt voip"),
    ];
    for opt in crate::config::options() {
        assert!(!opt.long.is_empty(), "{}: no flag", opt.key);
        for (_, home) in homes.iter().filter(|(on, _)| opt.on.meets(*on)) {
            let names = [Some(format!("--{}", opt.long)), opt.short.map(|short| format!("-{short}"))];
            for name in names.into_iter().flatten() {
                let (line, value) = if opt.kind == Kind::Switch {
                    (format!("lc {home} {name}=false"), "false")
                } else {
                    (format!("lc {home} {name} 1"), "1")
                };

                assert_eq!(given(&line), [(opt.key.to_owned(), value.to_owned())], "{line}");
            }
        }
    }
}

#[test]
fn flags_before_the_mode_count_as_well() {
    assert_eq!(
        given("lc --log-level debug hunt -P a:1 voip --lookback 30s"),
        [("hunter.processor_addr", "a:1"), ("voip.lookback", "30s"), ("log.level", "debug")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_bare_switch_is_true_and_takes_nothing_after_it() {
    assert_eq!(given("lc hunt --promisc voip"), [("capture.promiscuous".to_owned(), "true".to_owned())]);
    assert_eq!(given("lc process --stats=false -m 5").len(), 2);
}

#[test]
fn several_files_are_read_in_order() {
    assert_eq!(given("lc sniff voip -r b.pcap a.pcap -r - -p")[0].1, "b.pcap a.pcap -");
}

#[test]
fn the_predecessors_spellings_are_accepted() {
    for line in
        ["lc hunt --hunter-id x --tls", "lc process --processor-id x --tls", "lc show hunter --id x", "lc sniff --format json"]
    {
        let _matches = parse(line);
    }
    assert_eq!(given("lc hunt --esp-icv-size -1")[0].1, "-1");
}

#[test]
fn help_fits_two_screens() {
    for path in
        [&[][..], &["hunt"], &["hunt", "voip"], &["process"], &["sniff"], &["sniff", "voip"], &["list", "hunters"], &["certs"]]
    {
        let help = help(path);

        assert!(help.lines().count() <= 100, "{path:?}: {} lines\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{path:?}\n{help}");
    }
}

#[test]
fn help_is_grouped_and_has_three_examples_per_mode() {
    for path in [&["hunt"][..], &["hunt", "voip"], &["process"], &["sniff", "voip"]] {
        let help = help(path);

        assert!(help.contains("Security:") || path[0] == "sniff", "{help}");
        assert!(help.split("Examples:").nth(1).unwrap().lines().filter(|line| line.contains("lc ")).count() >= 3, "{help}");
    }
}

#[test]
fn help_names_only_modes_that_exist() {
    let help = help(&["hunt"]);

    for absent in ["dns", "http", "tls ", "email"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(absent)), "{absent}");
    }
    for line in ["lc hunt dns", "lc sniff http", "lc tap"] {
        assert_eq!(exit_of(line), Exit::Usage, "{line}");
    }
}

#[test]
fn wrong_usage_exits_with_two_and_help_with_zero() {
    // what gets as far as its configuration starts the log of the whole process: tests/it has those
    for line in ["lc", "lc hunt --no-such-flag", "lc hunt -P", "lc nonsense"] {
        assert_eq!(exit_of(line), Exit::Usage, "{line}");
    }
    for line in ["lc --help", "lc --version", "lc hunt voip --help"] {
        assert_eq!(exit_of(line), Exit::Done, "{line}");
    }
}

#[test]
fn a_missing_directory_exits_with_four() {
    assert_eq!(exit_of("lc man /nonexistent"), Exit::NotFound);
}
