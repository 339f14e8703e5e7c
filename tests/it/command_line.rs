//! The real binary: exit codes, where output goes, which configuration file is read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `lc` in `directory` with nothing of our environment but what is said.
fn lc(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn results_go_to_stdout_and_errors_to_stderr() {
    let home = tempfile::tempdir().unwrap();

    let defaults = lc(home.path(), &[], &["config", "defaults"]);
    let wrong = lc(home.path(), &[], &["hunt", "--batch-size", "0", "-P", "x", "--insecure"]);

    assert_eq!((defaults.status.code(), stderr(&defaults).as_str()), (Some(0), ""));
    assert!(stdout(&defaults).contains("LIPPYCAT_HUNTER__BATCH_SIZE"));
    assert_eq!((wrong.status.code(), stdout(&wrong).as_str()), (Some(2), ""));
    assert_eq!(stderr(&wrong), "error: --batch-size: 0 is less than the minimum 1 (1 to 16384)\n");
}

#[test]
fn a_bound_beyond_its_range_is_refused_with_its_name_and_the_range_wherever_it_is_written() {
    let home = tempfile::tempdir().unwrap();
    let wrong = [
        ("max-flows", "max_flows", "4194305", "4194305 is more than the maximum 4194304 (1024 to 4194304)"),
        ("max-calls", "max_calls", "99", "99 is less than the minimum 100 (100 to 2000000)"),
        ("tcp-memory", "tcp_memory", "5G", "5G is more than the maximum 4G (1M to 4G)"),
    ];
    for (flag, key, value, said) in wrong {
        for command in ["hunt", "sniff"] {
            let run = lc(home.path(), &[], &[command, "voip", &format!("--{flag}"), value, "-r", "none.pcap"]);
            assert_eq!((run.status.code(), stderr(&run)), (Some(2), format!("error: --{flag}: {said}\n")));
        }
        write(&home.path().join("a.yaml"), &format!("system:\n  {key}: {value}\n"), 0o600);
        let check = lc(home.path(), &[], &["config", "check", "a.yaml"]);
        assert_eq!(check.status.code(), Some(2));
        assert!(stderr(&check).contains(&format!("a.yaml:2: 'system.{key}': {said}\n")), "{}", stderr(&check));
    }
    let large = "system: {max_flows: 4194304, max_calls: 2000000, tcp_memory: 4G}\n";
    write(&home.path().join("a.yaml"), large, 0o600);
    let check = lc(home.path(), &[], &["config", "check", "a.yaml"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn the_printed_defaults_are_a_valid_configuration_that_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let defaults = stdout(&lc(home.path(), &[], &["config", "defaults"]));
    write(&home.path().join("all.yaml"), &defaults, 0o600);

    let check = lc(home.path(), &[], &["config", "check", "all.yaml"]);

    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn the_configuration_in_the_readme_is_enough_for_a_hunter() {
    let home = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let example = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    write(&home.path().join("edge.yaml"), example, 0o600);

    let check = lc(home.path(), &[], &["config", "check", "edge.yaml", "--for", "hunt"]);

    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn a_broken_file_names_the_line_and_exits_with_two() {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join("x.yaml"), "hunter:\n  batchsize: 1\n", 0o600);

    for arguments in [&["config", "check", "x.yaml"][..], &["hunt", "-c", "x.yaml"], &["config", "dump", "-c", "x.yaml"]] {
        let output = lc(home.path(), &[], arguments);

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stderr(&output), "error: x.yaml:2: unknown key 'hunter.batchsize'; did you mean 'hunter.batch_size'?\n");
    }
}

#[test]
fn the_file_in_the_working_directory_comes_first_if_it_can_be_trusted() {
    let home = tempfile::tempdir().unwrap();
    let here = home.path().join("lippycat.yaml");
    write(&here, "log: {level: warn}\n", 0o600);
    write(&home.path().join(".config/lippycat/config.yaml"), "log: {level: debug}\n", 0o600);
    let dump =
        |variables: &[(&str, &str)], more: &[&str]| stdout(&lc(home.path(), variables, &[&["config", "dump"], more].concat()));

    assert!(dump(&[], &[]).contains("level: warn  # file"));

    fs::set_permissions(&here, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(dump(&[], &[]).contains("level: debug  # file"));
    assert!(stderr(&lc(home.path(), &[], &["config", "check"])).contains("others may write it"));

    assert!(dump(&[], &["-c", "lippycat.yaml"]).contains("level: warn  # file"), "a file that is named is trusted");
    assert!(dump(&[("LIPPYCAT_CONFIG", "lippycat.yaml")], &[]).contains("level: warn  # file"));
    assert!(dump(&[("LIPPYCAT_LOG__LEVEL", "error")], &[]).contains("level: error  # environment"));
    assert!(dump(&[("LIPPYCAT_LOG__LEVEL", "error")], &["-vv"]).contains("level: trace  # flag"));
    assert!(dump(&[("LOG_LEVEL", "error"), ("LOG__LEVEL", "error")], &[]).contains("level: debug  # file"));
}

#[test]
fn what_does_not_make_a_configuration_exits_with_two() {
    let home = tempfile::tempdir().unwrap();

    for arguments in [&["hunt"][..], &["hunt", "-P", "a:b"], &["process", "-m", "0", "--insecure"]] {
        assert_eq!(lc(home.path(), &[], arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_file_used_is_named_at_start() {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join("edge.yaml"), "hunter: {processor_addr: mid}\n", 0o600);

    let output = lc(home.path(), &[], &["hunt", "-c", "edge.yaml"]);

    assert_eq!(output.status.code(), Some(2));
    let first: serde_json::Value = serde_json::from_str(stderr(&output).lines().next().unwrap()).unwrap();
    assert_eq!((&first["message"], &first["file"]), (&"configuration read".into(), &"edge.yaml".into()));
}

#[test]
fn production_refuses_what_is_not_protected() {
    let home = tempfile::tempdir().unwrap();
    let production = [("LIPPYCAT_PRODUCTION", "true")];

    for arguments in
        [&["hunt", "-P", "x", "--insecure"][..], &["process", "--tls-cert", "c", "--tls-key", "k"], &["process", "--insecure"]]
    {
        let output = lc(home.path(), &production, arguments);

        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("LIPPYCAT_PRODUCTION"), "{}", stderr(&output));
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lc"))
        .args(["config", "defaults"])
        .current_dir(home.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());

    let output = child.wait_with_output().unwrap();

    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn shells_accept_their_completions() {
    let home = tempfile::tempdir().unwrap();
    let script = lc(home.path(), &[], &["completions", "bash"]);
    let path = home.path().join("lc.bash");
    write(&path, &stdout(&script), 0o600);

    let checked = Command::new("bash").arg("-n").arg(&path).output().unwrap();

    assert!(checked.status.success(), "{}", stderr(&checked));
}
