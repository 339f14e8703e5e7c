//! A processor on a disk that does not confirm, answers with errors, is full, and loses power with what was not confirmed: whatever its hunter was told
//! is stored is there, once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lippycat::telemetry::clock::Moment;
use serde_json::Value;

use super::pipe::Hunter;
use super::trial::{count, pcaps};
use super::watch::Watch;
use crate::metrics::get;
use crate::numbered::Dice;
use crate::sick_disk::{Health, SickDisk, is_possible};
use crate::upstream::free_port;
use crate::whole::Processor;

/// Packets that come at once.
const HANDFUL: u64 = 1500;

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It is sick for a while.
    Sick(Health),
    /// Power goes.
    Power,
    /// It is sick, and then power goes.
    Both(Health),
}

/// What came out of it.
#[derive(Debug, Default)]
struct Tally {
    generated: u64,
    delivered: u64,
    doubled: u64,
    /// Acknowledged when power went, and not there afterwards.
    broken_promises: u64,
    sick: u64,
    losses_of_power: u64,
    /// Calls that the disk answered with an error.
    refused: u64,
    samples: u64,
}

struct Trial<'a> {
    dir: &'a Path,
    disk: SickDisk,
    durability: &'static str,
    dice: Dice,
    processor: Option<Processor>,
    hunter: Hunter,
    /// Where the processor listens, where it answers, and where the hunter does.
    ports: [u16; 3],
    tally: Tally,
}

impl<'a> Trial<'a> {
    fn begin(dir: &'a Path, durability: &'static str, seed: u64) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let pages = format!("127.0.0.1:{}", ports[2]);
        let mut trial = Self {
            dir,
            disk: SickDisk::mount(Command::new("env"), &dir.join("disk")),
            durability,
            dice: Dice(seed),
            processor: None,
            hunter: Hunter::start(dir, ports[0], &["--metrics-listen", &pages]),
            ports,
            tally: Tally::default(),
        };
        trial.processor = Some(trial.start_processor(ports[0]));
        trial
    }

    fn start_processor(&self, port: u16) -> Processor {
        let pages = format!("127.0.0.1:{}", self.ports[1]);
        let files = ["-w", "disk/all.pcap", "--auto-rotate-pcap", "--auto-rotate-pcap-dir", "disk/below/rotating"];
        let more = ["--auto-rotate-max-size", "1M", "--state-dir", "disk/below/state", "--insecure", "--metrics-listen", &pages];
        Processor::spawn(
            self.disk.disk.enter(self.dir),
            self.dir,
            port,
            &[&files[..], &more, &["--durability", self.durability]].concat(),
        )
    }

    fn said(&self) -> String {
        self.processor.as_ref().map(Processor::log).unwrap_or_default()
    }

    fn send(&mut self, packets: u64) {
        self.hunter.send(self.tally.generated..self.tally.generated + packets);
        self.tally.generated += packets;
    }

    fn status(&self, port: usize) -> Value {
        get(self.ports[port], "/statusz").and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn wait(&self, what: &str, there: impl Fn(&Self) -> bool) {
        let began = Moment::now();
        while !there(self) {
            assert!(began.elapsed() < Duration::from_mins(1), "it does not come about: {what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn act(&mut self, act: Act) {
        self.send(HANDFUL);
        if act == Act::Power {
            std::thread::sleep(Duration::from_millis(self.dice.roll(300)));
        } else {
            self.wait("some of it is stored", |t| t.status(1)["equation"]["p2"]["committed"].as_u64().is_some_and(|n| n > 0));
        }
        if let Act::Sick(health) | Act::Both(health) = act {
            self.disk.is(health);
            self.tally.sick += 1;
            self.send(HANDFUL);
            self.wait("hunters are paused", |t| {
                let status = t.status(1);
                status["flow_control"] == "pause" && status["ready"] == false
            });
            std::thread::sleep(Duration::from_millis(self.dice.roll(700)));
        }
        if matches!(act, Act::Sick(_)) {
            self.disk.is(Health::Well);
            self.wait("it goes on", |t| t.status(1)["ready"] == true);
        } else {
            self.lose_power();
        }
    }

    fn lose_power(&mut self) {
        self.processor.take().unwrap().kill();
        self.tally.losses_of_power += 1;
        self.disk.lose_power(&mut self.dice);
        self.disk.is(Health::Well);
        self.wait("the hunter has read every answer", |t| t.status(2)["processor"]["connected"].is_null());
        let acked = self.status(2)["equation"]["k3"]["acked"].as_u64().unwrap();
        // nobody sends anything to this one: what is there then has survived
        self.start_processor(0).stop();
        for files in self.files() {
            let times = count(&files, self.tally.generated);
            let (told, rest) = times.split_at(usize::try_from(acked).unwrap());
            self.tally.broken_promises += acked - told.iter().filter(|n| **n > 0).count() as u64;
            assert!(told.iter().chain(rest).all(|n| *n <= 1), "something is there twice: {files:?}");
        }
        self.processor = Some(self.start_processor(self.ports[0]));
    }

    /// Both of these have everything. Nobody syncs `below` but who makes directories in it.
    fn files(&self) -> [Vec<PathBuf>; 2] {
        let root = self.disk.disk.outside();
        [vec![root.join("all.pcap")], pcaps(&root.join("below/rotating"))]
    }

    fn end(mut self) -> Tally {
        self.send(HANDFUL);
        assert_eq!(self.hunter.finish(), "none");
        let processor = self.processor.take().unwrap();
        let log = processor.stop();
        assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
        let root = self.disk.disk.outside();
        let [unified, rotated] =
            [vec![root.join("all.pcap")], pcaps(&root.join("below/rotating"))].map(|files| count(&files, self.tally.generated));
        assert!(unified == rotated, "not everything is in both files");
        self.tally.delivered = unified.iter().filter(|n| **n > 0).count() as u64;
        self.tally.doubled = unified.iter().filter(|n| **n > 1).count() as u64;
        self.tally.refused = self.disk.refused();
        self.tally
    }
}

fn run(acts: impl IntoIterator<Item = Act>, seed: u64) -> Tally {
    let tmp = tempfile::tempdir().unwrap();
    let mut trial = Trial::begin(tmp.path(), "disk", seed);
    let [_, at_processor, at_hunter] = trial.ports;
    let watches = [at_processor, at_hunter].map(Watch::at);
    for act in acts {
        trial.act(act);
    }
    let mut tally = trial.end();
    for samples in watches.map(Watch::end) {
        assert!(samples.broken.is_empty(), "the equation is broken: {}", samples.broken.join("\n"));
        tally.samples += samples.taken;
    }
    assert_eq!((tally.delivered, tally.doubled, tally.broken_promises), (tally.generated, 0, 0), "{tally:?}");
    assert!(tally.samples > 0, "{tally:?}");
    tally
}

#[test]
fn a_processors_disk_that_does_not_confirm_or_takes_nothing_pauses_hunters_and_loses_and_doubles_nothing() {
    if !is_possible("a sick disk at the processor") {
        return;
    }
    let tally = run([Health::NoSync, Health::NoWrite, Health::Full].map(Act::Sick), 1);

    assert!(tally.refused > 2, "{tally:?}");
}

#[test]
fn a_processor_that_loses_power_has_everything_it_acknowledged_once() {
    if !is_possible("a processor that loses power") {
        return;
    }
    let tally = run([Act::Power, Act::Power, Act::Both(Health::NoSync), Act::Power, Act::Both(Health::NoWrite)], 1);

    assert_eq!((tally.losses_of_power, tally.sick), (5, 2));
}

#[test]
fn a_processor_that_does_not_wait_for_its_disk_loses_what_it_acknowledged_when_power_goes() {
    if !is_possible("a processor that does not wait for its disk") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let mut trial = Trial::begin(tmp.path(), "process", 1);
    trial.send(HANDFUL);
    trial.wait("it is acknowledged", |t| t.status(2)["equation"]["k3"]["acked"] == HANDFUL);

    trial.lose_power();

    assert!(trial.tally.broken_promises > 0, "the disk forgets nothing: {:?}", trial.tally);
}

/// `make chaos`: many rounds.
#[test]
#[expect(clippy::print_stdout, reason = "the line is the result")]
fn many_rounds() {
    let Some(rounds) = std::env::var("LC_CHAOS_ROUNDS").ok().and_then(|n| n.parse::<u64>().ok()) else { return };
    assert!(is_possible("chaos"), "it must run here");
    let mut dice = Dice(rounds);
    let healths = [Health::NoSync, Health::NoWrite, Health::Full];
    let acts = (0..rounds).map(move |_| {
        let health = healths[dice.pick(3)];
        [Act::Power, Act::Sick(health), Act::Both(health)][dice.pick(3)]
    });

    let t = run(acts, rounds);

    println!(
        "\n| a processor's disk (FUSE): rounds | sick | losses of power | calls refused | generated | delivered | missing | doubled | samples |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    println!(
        "| {rounds} | {} | {} | {} | {} | {} | {} | {} | {} |",
        t.sick,
        t.losses_of_power,
        t.refused,
        t.generated,
        t.delivered,
        t.generated - t.delivered,
        t.doubled,
        t.samples
    );
}
