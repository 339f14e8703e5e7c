//! Processors below each other: what a hunter gives to the one at the edge is at the centre, each packet once, whoever is killed meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chaos::{Dice, Hunter, count};
use super::whole::{Processor, calls_capture, frames, succeed, wait_for};

const CENTRE: [&str; 7] = ["--insecure", "--id", "centre", "-w", "centre.pcap", "--state-dir", "centre"];

fn edge(port: u16) -> Vec<String> {
    let mut all: Vec<String> = ["--insecure", "--id", "west", "-w", "west.pcap", "--state-dir", "west"].map(str::to_owned).into();
    all.extend(["--upstream-insecure".to_owned(), "-P".to_owned(), format!("127.0.0.1:{port}")]);
    all
}

fn start(dir: &Path, port: u16, arguments: &[String]) -> Processor {
    Processor::start_at(dir, port, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The figures of its last line about the road upwards.
fn passed_on(log: &str) -> serde_json::Value {
    let line = log.lines().rev().find(|l| l.contains("\"passed on\"")).unwrap();
    serde_json::from_str(line).unwrap()
}

fn sorted(path: &Path) -> Vec<(i64, u32, Vec<u8>)> {
    let mut all = frames(path);
    all.sort();
    all
}

#[test]
fn calls_reach_the_centre_through_a_processor_at_the_edge() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let calls = ["--per-call-pcap", "--per-call-pcap-dir"];
    let centre = Processor::start(dir, &[&CENTRE[..], &calls, &["calls-centre"]].concat());
    let mut below = edge(centre.port);
    below.extend(calls.map(str::to_owned));
    below.push("calls-west".to_owned());
    let west = start(dir, 0, &below);
    let to = format!("127.0.0.1:{}", west.port);
    let capture = calls_capture();
    succeed(
        dir,
        &["hunt", "voip", "-P", &to, "--insecure", "--id", "sbc", "--sip-user", "alice", "-r", capture.to_str().unwrap()],
    );

    let west = west.stop();
    let centre = centre.stop();

    let stored = frames(&dir.join("west.pcap"));
    assert!(stored.len() > 10);
    assert_eq!(frames(&dir.join("centre.pcap")), stored);
    let files = |of: &str| {
        let all = std::fs::read_dir(dir.join(of)).unwrap().map(|e| e.unwrap().path());
        let mut pcaps: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "pcap")).collect();
        pcaps.sort();
        pcaps
    };
    let (here, there) = (files("calls-west"), files("calls-centre"));
    assert!(!here.is_empty() && here.len() == there.len());
    for (a, b) in here.iter().zip(&there) {
        assert_eq!((a.file_name(), frames(a)), (b.file_name(), frames(b)));
    }
    let up = passed_on(&west);
    assert_eq!((up["acknowledged"].as_u64(), up["difference"].as_i64()), (Some(stored.len() as u64), Some(0)), "{up}");
    assert!(west.contains("\"difference\":\"p1=0 p2=0\"") && centre.contains("\"difference\":\"p1=0 p2=0\""));
    assert!(centre.contains("processor registered below this one"));
}

/// Either processor is killed in mid-stream, again and again; at the end both files hold every packet once.
fn killed(seed: u64, kills: u64) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let mut dice = Dice(seed);
    let mut centre = Processor::start(dir, &CENTRE);
    let below = edge(centre.port);
    let mut west = start(dir, 0, &below);
    let (above_at, west_at) = (centre.port, west.port);
    let mut hunter = Hunter::start(dir, west_at, &[]);
    let mut generated = 0;
    for n in 0..kills {
        for _ in 0..=dice.roll(6) {
            let n = 100 + dice.roll(3000);
            hunter.send(generated..generated + n);
            generated += n;
        }
        std::thread::sleep(Duration::from_millis(dice.roll(400)));
        if n % 2 == 0 {
            west.kill();
            west = start(dir, west_at, &below);
        } else {
            centre.kill();
            std::thread::sleep(Duration::from_millis(dice.roll(300)));
            centre = Processor::start_at(dir, above_at, &CENTRE);
        }
    }
    assert_eq!(hunter.finish(), "none", "nothing is dropped here");
    let west = west.stop();
    let up = passed_on(&west);
    assert_eq!((up["difference"].as_i64(), up["dropped"].as_u64()), (Some(0), Some(0)), "{up}");
    if up["on_disk"] != 0 {
        // it stopped before everything was up: the next one goes on
        let west = start(dir, west_at, &below);
        let port = west.port;
        wait_for(|| succeed_status(dir, port) == 0);
        west.stop();
    }
    let centre = centre.stop();
    assert!(centre.contains("\"difference\":\"p1=0 p2=0\""), "{centre}");
    for file in ["west.pcap", "centre.pcap"] {
        assert_eq!(count(&[dir.join(file)], generated), (generated, 0, 0), "{file}");
    }
    assert_eq!(sorted(&dir.join("centre.pcap")), sorted(&dir.join("west.pcap")));
}

/// Packets that a processor has not passed on yet.
fn succeed_status(dir: &Path, port: u16) -> u64 {
    let to = format!("127.0.0.1:{port}");
    let out = super::whole::lc(dir, &["show", "status", "-P", &to, "--insecure", "--output-format", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    status["upstream_backlog"].as_u64().unwrap()
}

#[test]
fn processors_killed_again_and_again_lose_and_double_nothing_on_the_way_up() {
    killed(1, 6);
}
