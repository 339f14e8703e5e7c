//! The whole road from sources to settings.

use std::path::PathBuf;

use super::*;

/// Three different valid texts for an option, and how a dump writes them.
fn samples(opt: &Opt) -> [String; 3] {
    let of = |texts: [&str; 3]| texts.map(str::to_owned);
    match opt.kind {
        Kind::Switch if opt.default == "true" => of(["false", "true", "false"]),
        Kind::Switch => of(["true", "false", "true"]),
        Kind::Integer { min, .. } | Kind::IntegerOrNone { min, .. } => [1, 2, 3].map(|n| (min + n).to_string()),
        Kind::Size { min, .. } | Kind::SizeOrNone { min, .. } => [1, 2, 3].map(|n| (min * (n + 4)).to_string()),
        Kind::Millis { .. } => of(["11", "12ms", "1s"]),
        Kind::Duration { .. } => of(["11s", "12s", "2m"]),
        Kind::Text => of(["one", "two", "three"]),
        Kind::Digits => of(["11", "012", "0013"]),
        Kind::Path => of(["/a", "/b", "/c"]),
        Kind::Address | Kind::Listen { .. } => of(["a:1", "b:2", "[::1]:3"]),
        Kind::Reserve => of(["1%", "2G", "auto"]),
        Kind::Choice(words) => [0, 1, 0].map(|n: usize| words[n].to_owned()),
        Kind::List(Item::Text | Item::Path) => of(["a", "b,c", "d"]),
        Kind::List(Item::Address | Item::Peer) => of(["a:1", "b:2,c:3", "d:4"]),
        Kind::List(Item::Port) => of(["1", "2,3", "4"]),
        Kind::List(Item::PortRange) => of(["1-2", "3-4,5-6", "7-8"]),
    }
}

fn yaml(opt: &Opt, text: &str) -> String {
    let mut out = String::new();
    let parts: Vec<&str> = opt.key.split('.').collect();
    for (depth, part) in parts.iter().enumerate() {
        out.push_str(&"  ".repeat(depth));
        out.push_str(part);
        out.push_str(":\n");
    }
    out.pop();
    out + " " + &serde_json::Value::from(text).to_string() + "\n"
}

fn load(file: Option<&str>, variables: &[(&str, &str)], flags: &[(&str, &[&str])]) -> Result<Merged, ConfigError> {
    load_named("lc.yaml", file, variables, flags)
}

fn load_named(
    name: &str,
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&str, &[&str])],
) -> Result<Merged, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let choice = file.map_or(Choice::Nothing, |text| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Choice::Named(path)
    });
    let environment = Environment::from_pairs(variables.iter().copied());
    let flags: Vec<FlagValue> = flags
        .iter()
        .map(|(key, values)| FlagValue {
            option: find_option(key).unwrap(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        })
        .collect();
    Merged::load(&Sources { file: choice, environment: &environment, flags: &flags })
}

/// The problems as lines, the temporary directory cut off.
fn problems(result: Result<Merged, ConfigError>) -> Vec<String> {
    let error = result.map(|_| ()).unwrap_err();
    error.to_string().lines().map(|line| line.rsplit_once("/lc.").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn limits_that_would_be_an_end_are_refused_wherever_they_are_written() {
    for (text, least) in [
        ("processor: {hunter_max_rate: 1K}", "64K"),
        ("processor: {hunter_max_batches: 63}", "64"),
        ("system: {memory_limit: 1M}", "64M"),
    ] {
        let error = load(Some(text), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("less than the minimum") && error.contains(least), "{error}");
    }
    assert!(load(Some("processor: {hunter_max_rate: 0, hunter_max_batches: 0}\nsystem: {memory_limit: 64M}"), &[], &[]).is_ok());
}

#[test]
fn flag_beats_environment_beats_file_beats_default_for_every_option() {
    let mut checked = 0;
    for opt in options() {
        let [a, b, c] = samples(opt);
        let variable = opt.variable();
        let file = yaml(opt, &a);
        let write = |text: &str| opt.kind.write(&opt.kind.read(text, None).unwrap());
        let shown = |merged: &Merged| (opt.kind.write(&merged.value(opt).unwrap()), merged.origin(opt.key));

        let none = load(None, &[], &[]).unwrap();
        let by_file = load(Some(&file), &[], &[]).unwrap();
        let by_variable = load(Some(&file), &[(&variable, &b)], &[]).unwrap();
        let by_flag = load(Some(&file), &[(&variable, &b)], &[(opt.key, &[&c])]).unwrap();

        assert_eq!(shown(&none), (write(opt.default), Origin::Default), "{}", opt.key);
        assert_eq!(shown(&by_file), (write(&a), Origin::File), "{}", opt.key);
        assert_eq!(shown(&by_variable), (write(&b), Origin::Environment), "{}", opt.key);
        assert_eq!(shown(&by_flag), (write(&c), Origin::Flag), "{}", opt.key);
        for merged in [&by_file, &by_variable, &by_flag] {
            let _settings = merged.settings().unwrap_or_else(|error| panic!("{}: {error}", opt.key));
        }
        checked += 1;
    }
    assert!(checked >= 80, "{checked}");
}

#[test]
fn every_alias_sets_its_option_in_a_file_and_in_the_environment() {
    for opt in options() {
        for alias in opt.aliases {
            let [a, ..] = samples(opt);
            let renamed = Opt { key: alias, ..*opt };

            let by_file = load(Some(&yaml(&renamed, &a)), &[], &[]).unwrap();
            let by_variable = load(None, &[(&variable_of(alias), &a)], &[]).unwrap();

            assert_eq!(by_file.origin(opt.key), Origin::File, "{alias}");
            assert_eq!(by_variable.origin(opt.key), Origin::Environment, "{alias}");
        }
    }
}

#[test]
fn the_table_is_sound() {
    let all: Vec<&Opt> = options().collect();
    for (at, opt) in all.iter().enumerate() {
        assert!(!opt.help.is_empty() && opt.help.len() <= 100, "{}: help", opt.key);
        assert!(!opt.help.ends_with('.'), "{}: help ends in a full stop", opt.key);
        assert!(opt.kind.read(opt.default, None).is_ok(), "{}: default", opt.key);
        for other in all.iter().skip(at + 1) {
            let names = |opt: &Opt| opt.aliases.iter().copied().chain([opt.key]).collect::<Vec<_>>();
            assert!(names(opt).iter().all(|name| !names(other).contains(name)), "{} and {}", opt.key, other.key);
        }
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let settings = load(None, &[("HOME", "/home/x")], &[]).unwrap().settings().unwrap();

    assert_eq!(settings.hunter.batch_size, 1024);
    assert_eq!(settings.hunter.batch_bytes, 65_536);
    assert_eq!(settings.hunter.batch_timeout.as_millis(), 100);
    assert_eq!(settings.hunter.no_filter_policy, NoFilterPolicy::Deny);
    assert_eq!(settings.hunter.interfaces, ["any"]);
    assert_eq!(settings.capture.pcap_buffer_size, 16_777_216);
    assert_eq!(settings.capture.esp_icv_size, None);
    assert_eq!(settings.processor.listen(), (None, 55_555));
    assert_eq!(settings.processor.filter_file, Some(PathBuf::from("/home/x/.config/lippycat/filters.yaml")));
    assert_eq!(settings.processor.per_call_pcap.layout, CallLayout::Split);
    assert_eq!(settings.processor.auto_rotate_pcap.max_size, 100 << 20);
    assert!(!settings.hunter.insecure && !settings.processor.insecure && !settings.remote.insecure);
    assert!(settings.voip.lookback.is_zero() && settings.filters.is_empty());
}

#[test]
fn a_file_alone_is_enough_for_a_hunter() {
    for (name, text) in [
        ("lc.yaml", "hunter:\n  processor_addr: [mid-a, mid-b:1]\n  interfaces: eth0,eth1\n  tls: {ca_file: /ca.pem}\n"),
        (
            "lc.toml",
            "[hunter]\nprocessor_addr = [\"mid-a\", \"mid-b:1\"]\ninterfaces = \"eth0,eth1\"\ntls.ca_file = \"/ca.pem\"\n",
        ),
    ] {
        let config = load_named(name, Some(text), &[], &[]).unwrap().hunt(Mode::Voip, &Environment::default()).unwrap();

        assert_eq!(config.hunter.processor_addr, ["mid-a:55555", "mid-b:1"]);
        assert_eq!(config.hunter.interfaces, ["eth0", "eth1"]);
        assert!(matches!(config.security, ClientSecurity::Tls(_)));
        assert!(!config.id.is_empty());
    }
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    let text = "# edge\nhunter:\n  id: a\n  batchsize: 5\nprocesor:\n  id: b\nsecurity:\n  api_keys: {enabled: true}\n";

    assert_eq!(
        problems(load(Some(text), &[], &[])),
        [
            "yaml:4: unknown key 'hunter.batchsize'; did you mean 'hunter.batch_size'?",
            "yaml:5: unknown key 'procesor'; did you mean 'processor'?",
            "yaml:7: unknown option; API keys are hashes in a file of their own (processor.tls.api_keys_file)",
        ]
    );
    assert_eq!(
        problems(load_named("lc.toml", Some("[hunter]\n\nbatch-size = 1\n"), &[], &[])),
        ["toml:3: unknown key 'hunter.batch-size'; did you mean 'hunter.batch_size'?"]
    );
}

#[test]
fn wrong_types_name_the_line_and_what_is_expected() {
    let text = "hunter:\n  batch_size: many\n  id: [a, b]\n  tls: yes\n  batch_timeout_ms:\n    a: 1\nlog: {level: loud}\n";

    assert_eq!(
        problems(load(Some(text), &[], &[])),
        [
            "yaml:2: 'hunter.batch_size': 'many' is not a whole number",
            "yaml:3: 'hunter.id': a list, where text is expected",
            "yaml:4: 'hunter.tls' is a section, not a value",
            "yaml:6: 'hunter.batch_timeout_ms': a section, where a duration such as 5s is expected",
            "yaml:7: 'log.level': 'loud' is not one of error, warn, info, debug, trace",
        ]
    );
}

#[test]
fn wrong_variables_and_flags_are_named() {
    let result =
        load(None, &[("LIPPYCAT_HUNTER__BATCH_BYTES", "8M")], &[("hunter.batch_size", &["0"]), ("hunter.id", &["a", "b"])]);

    assert_eq!(
        problems(result),
        [
            "environment variable LIPPYCAT_HUNTER__BATCH_BYTES: 8M is more than the maximum 4M (1K to 4M)",
            "--batch-size: 0 is less than the minimum 1 (1 to 16384)",
            "-I/--id: given more than once",
        ]
    );
}

#[test]
fn a_key_said_twice_is_an_error() {
    assert_eq!(
        problems(load(Some("promiscuous: true\ncapture:\n  promiscuous: false\n"), &[], &[])),
        ["yaml:3: 'capture.promiscuous' was already set on line 1"]
    );
    assert!(load(Some("log:\n  level: info\n  level: debug\n"), &[], &[]).is_err());
}

#[test]
fn numbers_that_are_names_stay_as_written() {
    let merged = load(Some("hunter: {id: 007}\nfilters:\n  phone: [+4917012, 0049170]\n"), &[], &[]).unwrap();
    let settings = merged.settings().unwrap();

    assert_eq!(settings.hunter.id.as_deref(), Some("007"));
    assert_eq!(settings.filters.phone, ["+4917012", "0049170"]);
}

#[test]
fn a_repeated_flag_is_a_list() {
    let merged = load(None, &[], &[("hunter.interfaces", &["eth0,eth1", "lo"])]).unwrap();

    assert_eq!(merged.settings().unwrap().hunter.interfaces, ["eth0", "eth1", "lo"]);
}

#[test]
fn no_unprefixed_variable_changes_anything() {
    let untouched = dump(&load(None, &[], &[]).unwrap(), true);
    for opt in options() {
        let [a, ..] = samples(opt);
        let bare = opt.key.to_ascii_uppercase();
        for name in [bare.replace('.', "__"), bare.replace('.', "_"), bare.rsplit('.').next().unwrap().to_owned()] {
            assert_eq!(dump(&load(None, &[(&name, &a)], &[]).unwrap(), true), untouched, "{name}");
        }
    }
}

#[test]
fn tls_is_on_and_plain_text_must_be_said() {
    let none = Environment::default();
    let errors = |result: Result<(), ConfigError>| result.unwrap_err().to_string();
    let hunt = |flags: &[(&str, &[&str])]| {
        let all: Vec<_> = [("hunter.processor_addr", &["mid"][..])].into_iter().chain(flags.iter().copied()).collect();
        load(None, &[], &all).unwrap().hunt(Mode::Generic, &none)
    };

    assert!(errors(hunt(&[]).map(|_| ())).contains("--tls-ca"));
    assert_eq!(hunt(&[("hunter.insecure", &["true"])]).unwrap().security, ClientSecurity::PlainText);
    assert!(errors(hunt(&[("hunter.tls.ca_file", &["ca"]), ("hunter.tls.cert_file", &["c"])]).map(|_| ())).contains("--tls-key"));
    assert!(errors(load(None, &[("HOME", "/x")], &[]).unwrap().process(&none).map(|_| ())).contains("--tls-cert"));
    assert!(errors(load(None, &[], &[]).unwrap().hunt(Mode::Generic, &none).map(|_| ())).contains("-P host:port"));
}

#[test]
fn production_refuses_plain_text_and_demands_client_certificates() {
    let production = Environment::from_pairs([(PRODUCTION, "true"), ("HOME", "/x")]);
    let hunt = load(None, &[], &[("hunter.processor_addr", &["mid"]), ("hunter.insecure", &["true"])]).unwrap();
    let tls: [(&str, &[&str]); 2] = [("processor.tls.cert_file", &["c"]), ("processor.tls.key_file", &["k"])];
    let process = |more: &[(&str, &[&str])]| {
        let flags: Vec<_> = tls.into_iter().chain(more.iter().copied()).collect();
        load(None, &[], &flags).unwrap().process(&production)
    };

    assert!(hunt.hunt(Mode::Voip, &production).unwrap_err().to_string().contains("LIPPYCAT_PRODUCTION"));
    assert!(process(&[]).unwrap_err().to_string().contains("--tls-client-auth"));
    assert!(process(&[("processor.insecure", &["true"])]).is_err());
    assert!(process(&[("processor.tls.client_auth", &["true"])]).unwrap_err().to_string().contains("--tls-ca"));
    assert!(process(&[("processor.tls.client_auth", &["true"]), ("processor.tls.ca_file", &["ca"])]).is_ok());
}

#[test]
fn state_goes_where_systemd_says_unless_somebody_says_otherwise() {
    let of = |variables: &[(&str, &str)], flags: &[(&str, &[&str])]| {
        let flags: Vec<_> = [("processor.insecure", &["true"][..])].into_iter().chain(flags.iter().copied()).collect();
        let environment = Environment::from_pairs(variables.iter().copied());
        load(None, variables, &flags).unwrap().process(&environment).map(|config| config.state_dir)
    };
    let both = [("HOME", "/h"), ("STATE_DIRECTORY", "/var/lib/lc:/x")];

    assert_eq!(of(&both, &[]).unwrap(), PathBuf::from("/var/lib/lc"));
    assert_eq!(of(&both[..1], &[]).unwrap(), PathBuf::from("/h/.local/state/lippycat"));
    assert_eq!(of(&both, &[("processor.state_dir", &["/s"])]).unwrap(), PathBuf::from("/s"));
    assert!(of(&[], &[]).unwrap_err().to_string().contains("--state-dir"));
}

#[test]
fn interfaces_and_files_exclude_each_other_only_on_the_command_line() {
    let file = "sniff: {interfaces: eth0}\n";

    assert!(load(Some(file), &[], &[("capture.read", &["a.pcap"])]).unwrap().sniff(Mode::Voip).is_ok());
    let both = load(None, &[], &[("capture.read", &["a.pcap"]), ("sniff.interfaces", &["eth0"])]).unwrap();
    assert!(both.sniff(Mode::Voip).is_err());
}

#[test]
fn dumps_and_defaults_are_read_back_as_the_same_settings() {
    let merged = load(None, &[("LIPPYCAT_FILTERS__SIP_USER", "alice*,\\*x")], &[("processor.retain_age", &["36h"])]).unwrap();

    let again = load(Some(&dump(&merged, true)), &[], &[]).unwrap();
    let defaults = load(Some(&defaults()), &[], &[]).unwrap();

    assert_eq!(again.settings().unwrap(), merged.settings().unwrap());
    assert_eq!(defaults.settings().unwrap(), load(None, &[], &[]).unwrap().settings().unwrap());
}

#[test]
fn dumps_hide_private_values_and_name_origins() {
    let merged = load(Some("filters: {sip_user: [canary]}\n"), &[], &[("log.level", &["debug"])]).unwrap();

    let text = dump(&merged, false);

    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("  sip_user: \"[redacted]\"  # file"), "{text}");
    assert!(text.contains("  level: debug  # flag"), "{text}");
    assert!(text.contains("  batch_bytes: 64K  # default"), "{text}");
    assert!(dump(&merged, true).contains("canary"));
}

#[test]
fn hostile_files_end_in_an_error_or_a_configuration() {
    for text in
        ["", "[]", "5", "a", "{", "\u{0}", "? a", "hunter: &a {id: *a}", "- a\n- b", "hunter:\n- a", "1: 2", "[1]: 2", "!x y"]
    {
        if let Err(error) = load(Some(text), &[], &[]) {
            assert!(!error.problems.is_empty());
        }
    }
}
