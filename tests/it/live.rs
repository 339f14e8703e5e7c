//! Live calls between network namespaces; see `tests/live/run.sh`. Needs root, sipp, tcpdump and tshark, and says so when it has not run.

use std::path::Path;
use std::process::Command;

use parking_lot::Mutex;

use crate::not_run;

/// One at a time: several at once would show how fast this machine is.
static MACHINE: Mutex<()> = Mutex::new(());

/// Fifty live calls on each bridge, five targets: what is filed is compared by tshark with what a tcpdump beside the hunter saw.
fn run(scenario: &str, bridges: u32) {
    if !not_run::has_namespaces_and(&format!("live {scenario}"), &["sipp", "tcpdump", "tshark", "python3", "ip"]) {
        return;
    }
    let _alone = MACHINE.lock();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/run.sh");
    let out = Command::new("timeout").arg("120").arg(script).args([env!("CARGO_BIN_EXE_lc"), scenario]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{scenario}: {}\n{said}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    let line = said.lines().last().unwrap();
    let count = |word: &str| line.split(&format!("{word} ")).nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap();
    // a machine that is slow makes sipp send a message again
    assert!(count("calls") == 5 * bridges && count("packets") >= 3030 * bridges, "{scenario}: {said}");
    assert!(line.ends_with("missing 0 extra 0 twice 0"), "{scenario}: {said}");
}

#[test]
fn live_calls_of_five_targets_are_filed_completely_and_nothing_else_is() {
    run("plain", 1);
}

#[test]
fn a_connection_cut_for_ten_seconds_loses_and_doubles_nothing() {
    run("cut", 1);
}

#[test]
fn a_graceful_restart_of_the_processor_loses_and_doubles_nothing() {
    run("restart", 1);
}

#[test]
fn a_thousand_filters_swapped_during_the_calls_cost_no_packet() {
    run("swap", 1);
}

#[test]
fn two_hundred_megabytes_beside_the_calls_change_nothing() {
    run("traffic", 1);
}

#[test]
fn three_hunters_at_once_lose_and_mix_nothing() {
    run("hunters", 3);
}
