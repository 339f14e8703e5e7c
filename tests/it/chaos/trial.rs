//! One trial: a hunter, a processor, packets without end, and whatever happens to them; then every packet is looked for.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lippycat::capture::{FileSource, Progress, Source};
use lippycat::telemetry::clock::Moment;
use serde_json::Value;

use super::feed::Feed;
use super::watch::{self, Samples, Watch};
use super::world::{CAPTURED, Cut, MID, World, enter, succeed};
use crate::full_disk::Disk;
use crate::numbered::{Dice, number};
use crate::started::Started;
use crate::whole::{LC, Processor};

/// Where the processor listens.
const LISTEN: u16 = 55_555;
/// Made by `apt install faketime`; hooks the clock of every program that is told to load it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What happens in a round.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// `kill -9` of either, a hunter half the time after it was cut off: its log alone has what it got since.
    Kill,
    /// The network between them, one way or both.
    Cut,
    /// A fifth of what goes over it is lost.
    Lossy,
    /// It takes a fraction of the packets that come.
    Narrow,
    /// The clock of either jumps.
    Clock,
    /// A new certificate for either.
    Certs,
    /// Nothing but time; the disk is small enough.
    Wait,
}

/// How a trial is set up.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) rounds: u64,
    pub(super) acts: &'static [Act],
    /// From an interface, not a pipe: a hunter that cannot keep up loses, and counts.
    pub(super) live: bool,
    /// Packets every 10 ms.
    pub(super) handful: u64,
    /// The processor's disk has 16 MiB, or the hunter's.
    pub(super) small: Option<Side>,
    /// Connections are rolled every three seconds.
    pub(super) ages: bool,
}

impl Plan {
    /// What a killed hunter may not have had in its log: an open batch of 100 ms, or 64 KiB of packets of some 550 bytes, as much read ahead, and as
    /// much in its pipe; a machine with better things to do has the rest of a second.
    fn may_be_unlogged(&self) -> u64 {
        self.handful * 100 + 3 * (64 << 10) / 550
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Processor,
    Hunter,
}

/// What came out of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    pub(super) kills: [u64; 2],
    /// Cuts, bad wires, jumps, certificates, times the disk was full.
    pub(super) others: u64,
    /// Times a hunter connected.
    pub(super) connected: u64,
    /// Segments that a bad wire lost or made wait.
    pub(super) held_up: u64,
    pub(super) generated: u64,
    pub(super) delivered: u64,
    pub(super) doubled: u64,
    /// Counted by the hunter as given up.
    pub(super) dropped: u64,
    /// Given to hunters that were killed before it was in their log: each time the last packets they got.
    pub(super) unlogged: u64,
    /// By one of them.
    pub(super) most_unlogged: u64,
    pub(super) samples: u64,
    pub(super) broken: Vec<String>,
}

impl Tally {
    /// Of which nobody knows anything.
    pub(super) fn missing(&self) -> u64 {
        self.generated.saturating_sub(self.delivered + self.dropped + self.unlogged)
    }

    pub(super) fn assert_exact(&self) {
        assert!(self.broken.is_empty(), "the equation is broken: {}", self.broken.join("\n"));
        assert_eq!(self.doubled, 0, "{self:?}");
        assert_eq!(self.generated, self.delivered + self.dropped + self.unlogged, "{self:?}");
        assert!(self.samples > 0, "{self:?}");
    }
}

struct Trial<'a> {
    plan: Plan,
    dir: &'a Path,
    world: World,
    disk: Option<Disk>,
    dice: Dice,
    tally: Tally,
    processor: Option<Processor>,
    hunter: Option<Hunter>,
    feed: Feed,
}

/// Does it.
pub(super) fn run(dir: &Path, plan: Plan, seed: u64) -> Tally {
    let world = World::new();
    let watches = [world.mid(), world.edge()].map(Watch::start);
    let feed = if plan.live { Feed::wire(plan.handful, world.edge()) } else { Feed::pipes(plan.handful) };
    let disk = plan.small.map(|side| {
        let namespace = if side == Side::Processor { world.mid() } else { world.edge() };
        Disk::mount_ext4(enter(&namespace), &dir.join("disk"))
    });
    let mut trial =
        Trial { plan, dir, world, disk, dice: Dice(seed), tally: Tally::default(), processor: None, hunter: None, feed };
    trial.prepare();
    for _ in 0..plan.rounds {
        let at = trial.dice.roll(plan.acts.len() as u64);
        let time = 200 + trial.dice.roll(2800);
        trial.act(plan.acts[usize::try_from(at).unwrap()], Duration::from_millis(time));
        trial.tally.rounds += 1;
    }
    let mut tally = trial.end();
    for Samples { taken, broken } in watches.map(Watch::end) {
        tally.samples += taken;
        tally.broken.extend(broken);
    }
    tally
}

impl Trial<'_> {
    fn is(&self, act: fn(&Act) -> bool) -> bool {
        self.plan.acts.iter().any(act)
    }

    fn prepare(&mut self) {
        if self.is(|a| matches!(a, Act::Certs)) {
            self.certs(&["init"]);
            self.certs(&["issue", "processor", "mid", "--ip", MID]);
            self.certs(&["issue", "hunter", "edge"]);
        }
        for side in ["mid", "edge"] {
            fs::write(self.dir.join(side), "+0").unwrap();
        }
        fs::create_dir(self.dir.join("moved")).unwrap();
        self.start_processor();
        self.start_hunter();
    }

    fn certs(&self, words: &[&str]) {
        succeed(Command::new(LC).arg("certs").args(words).args(["--dir", "c", "-q"]).current_dir(self.dir).env("HOME", self.dir));
    }

    /// `lc` of a side, in its namespace, with its clock.
    fn lc(&self, side: Side) -> Command {
        let (namespace, clock) = if side == Side::Processor { (self.world.mid(), "mid") } else { (self.world.edge(), "edge") };
        let mut command = match &self.disk {
            Some(disk) if self.plan.small == Some(side) => disk.enter(self.dir),
            _ => {
                let mut command = enter(&namespace);
                command.arg(LC);
                command
            }
        };
        if self.is(|a| matches!(a, Act::Clock)) {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", self.dir.join(clock))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// A clock that is a file must be readable.
    fn sandbox(&self) -> &'static [&'static str] {
        if self.is(|a| matches!(a, Act::Clock)) { &["--sandbox", "off"] } else { &[] }
    }

    fn start_processor(&mut self) {
        let root = if self.plan.small == Some(Side::Processor) { "disk" } else { "." };
        let (state, rotating, unified) = (format!("{root}/state"), format!("{root}/rotating"), format!("{root}/all.pcap"));
        let metrics = format!("127.0.0.1:{}", watch::PORT);
        let mut arguments = vec!["--id", "mid", "--metrics-listen", &metrics, "--state-dir", &state];
        arguments.extend(["--auto-rotate-pcap", "--auto-rotate-pcap-dir", &rotating, "--auto-rotate-max-size", "1M"]);
        if self.plan.small == Some(Side::Processor) {
            arguments.extend(["--min-free", "0"]);
        } else {
            arguments.extend(["-w", &unified]);
        }
        if self.is(|a| matches!(a, Act::Certs)) {
            arguments.extend(["--tls-cert", "c/processor-mid.crt", "--tls-key", "c/processor-mid.key", "--tls-ca", "c/ca.crt"]);
            arguments.extend(["--tls-client-auth", "--max-connection-age", if self.plan.ages { "3s" } else { "0s" }]);
        } else {
            arguments.push("--insecure");
        }
        arguments.extend(self.sandbox());
        self.processor = Some(Processor::spawn_on(self.lc(Side::Processor), self.dir, MID, LISTEN, &arguments));
    }

    fn start_hunter(&mut self) {
        let (target, metrics) = (format!("{MID}:{LISTEN}"), format!("127.0.0.1:{}", watch::PORT));
        let mut arguments = vec!["hunt", "-P", &target, "--id", "edge", "--metrics-listen", &metrics, "--log-format", "json"];
        arguments.extend(["--no-filter-policy", "allow", "--keep-duplicates", "--connect-timeout", "10m"]);
        let spool = if self.plan.small == Some(Side::Hunter) { "disk/spool" } else { "spool" };
        arguments.extend(["--disk-buffer-dir", spool, "--durability", if self.plan.live { "spill" } else { "wal" }]);
        if self.plan.live {
            arguments.extend(["-i", CAPTURED, "-f", "udp port 30001", "--max-memory", "8M", "--pcap-buffer-size", "32M"]);
        } else {
            arguments.extend(["-r", "-"]);
        }
        if self.is(|a| matches!(a, Act::Certs)) {
            arguments.extend(["--tls-cert", "c/hunter-edge.crt", "--tls-key", "c/hunter-edge.key", "--tls-ca", "c/ca.crt"]);
        } else {
            arguments.push("--insecure");
        }
        arguments.extend(self.sandbox());
        let log = self.dir.join("hunter.log");
        let stderr = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = self.lc(Side::Hunter);
        command.args(arguments).current_dir(self.dir).env("HOME", self.dir).stderr(stderr);
        let mut child = command.stdin(if self.plan.live { Stdio::null() } else { Stdio::piped() }).spawn().unwrap();
        if let Some(pipe) = child.stdin.take() {
            self.feed.to(pipe);
        }
        self.hunter = Some(Hunter { child: Started(child), log });
        if self.plan.live {
            // what comes before it captures is nobody's
            self.wait("it captures", |t| t.status(Side::Hunter).is_some_and(|s| s["ready"] == true));
            self.feed.begin();
        }
    }

    fn status(&self, side: Side) -> Option<Value> {
        watch::status(&if side == Side::Processor { self.world.mid() } else { self.world.edge() })
    }

    fn act(&mut self, act: Act, time: Duration) {
        if self.plan.small == Some(Side::Processor) {
            self.clear_out();
        }
        match act {
            Act::Kill => {
                let (hunter, cut) = (self.dice.roll(2) == 1, self.dice.roll(2) == 0);
                if hunter && cut {
                    self.world.cut(Cut::Both);
                }
                std::thread::sleep(time);
                if hunter {
                    self.hunter.take().unwrap().kill();
                    self.world.heal();
                    self.tally.kills[1] += 1;
                    self.start_hunter();
                } else {
                    self.processor.take().unwrap().kill();
                    self.tally.kills[0] += 1;
                    self.start_processor();
                }
            }
            Act::Cut => {
                let way = [Cut::Both, Cut::ToProcessor, Cut::ToHunter][usize::try_from(self.dice.roll(3)).unwrap()];
                self.world.cut(way);
                // a small disk is full in three seconds
                std::thread::sleep(if self.plan.small.is_some() { time + Duration::from_secs(3) } else { time });
                self.world.heal();
                self.tally.others += 1;
                std::thread::sleep(Duration::from_millis(self.dice.roll(700)));
            }
            Act::Lossy => {
                self.world.lose(20);
                std::thread::sleep(time);
                self.tally.held_up += self.world.lost();
                self.world.heal();
                self.tally.others += 1;
            }
            Act::Narrow => {
                // the packets are some 18 Mbit/s
                self.world.narrow(if self.dice.roll(2) == 0 { "1mbit" } else { "8mbit" });
                std::thread::sleep(time);
                self.tally.held_up += self.world.widen();
                self.tally.others += 1;
            }
            Act::Clock => {
                let jump = ["+1h", "-1h", "+10y", "-10y", "+0"][usize::try_from(self.dice.roll(5)).unwrap()];
                let side = ["mid", "edge"][usize::try_from(self.dice.roll(2)).unwrap()];
                // whoever reads it meanwhile must not see half of it
                fs::write(self.dir.join("new"), jump).unwrap();
                fs::rename(self.dir.join("new"), self.dir.join(side)).unwrap();
                std::thread::sleep(time / 3);
                self.tally.others += 1;
            }
            Act::Certs => {
                let (words, id) = if self.dice.roll(2) == 0 {
                    (["renew", "processor", "mid"], self.processor.as_ref().unwrap().id())
                } else {
                    (["renew", "hunter", "edge"], self.hunter.as_ref().unwrap().child.id())
                };
                self.certs(&words);
                succeed(Command::new("kill").args(["-HUP", &id.to_string()]));
                self.wait("the processor shows its new certificate", Self::shows_its_certificate);
                std::thread::sleep(time);
                self.tally.others += 1;
            }
            Act::Wait => std::thread::sleep(time),
        }
    }

    /// Whether the processor shows whoever connects the certificate that lies in its file.
    fn shows_its_certificate(&self) -> bool {
        let mut client = enter(&self.world.edge());
        client.args(["openssl", "s_client", "-connect", &format!("{MID}:{LISTEN}")]).stdin(Stdio::null());
        let shown = String::from_utf8(client.output().unwrap().stdout).unwrap();
        let pem = |text: &str| text.split("-----").nth(2).map(str::to_owned);
        pem(&shown).is_some_and(|shown| Some(shown) == pem(&fs::read_to_string(self.dir.join("c/processor-mid.crt")).unwrap()))
    }

    /// Takes what is finished off the processor's disk once that is full, as somebody would.
    fn clear_out(&mut self) {
        self.wait("the disk is full", Self::is_full);
        self.tally.others += 1;
        for path in pcaps(&self.disk.as_ref().unwrap().outside().join("rotating")) {
            let to =
                self.dir.join("moved").join(format!("{}-{}", self.tally.others, path.file_name().unwrap().to_str().unwrap()));
            fs::copy(&path, to).unwrap();
            fs::remove_file(path).unwrap();
        }
        self.wait("it goes on", |t| !t.is_full());
    }

    fn is_full(&self) -> bool {
        self.status(Side::Processor).is_some_and(|s| s["trouble"].as_str().is_some_and(|t| t.contains("disk")))
    }

    /// The end of the packets: the hunter must get rid of all it has not counted as given up, both must end well, and the files are read.
    fn end(mut self) -> Tally {
        let generated = self.feed.end();
        if self.plan.live {
            self.wait("everything is captured and stored", |t| t.has_stored(generated.packets));
            let id = self.hunter.as_ref().unwrap().child.id();
            succeed(Command::new("kill").args(["-TERM", &id.to_string()]));
        }
        let began = Moment::now();
        let status = loop {
            if let Some(status) = self.hunter.as_mut().unwrap().child.try_wait().unwrap() {
                break status;
            }
            if self.plan.small == Some(Side::Processor) && self.is_full() {
                self.clear_out();
            }
            assert!(began.elapsed() < Duration::from_mins(2), "the hunter does not get rid of its packets: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = self.hunter.as_ref().unwrap().said();
        let last =
            said.lines().rev().find(|l| l.contains("\"unaccounted\":")).unwrap_or_else(|| panic!("{status}: {}", self.said()));
        let last: Value = serde_json::from_str(last).unwrap();
        let last = last.get("fields").unwrap_or(&last);
        assert_eq!(last["unaccounted"], 0, "{last}");
        self.tally.connected = said.matches("\"connected\"").count() as u64;
        let dropped = last["dropped"].as_str().unwrap();
        let numbers = dropped.split(' ').filter_map(|d| d.split_once('=')).map(|(_, n)| n.parse::<u64>().unwrap());
        self.tally.dropped =
            numbers.sum::<u64>() + ["kernel_dropped", "interface_dropped"].map(|k| last[k].as_u64().unwrap()).iter().sum::<u64>();
        assert_eq!(status.code(), Some(if self.tally.dropped > 0 { 5 } else { 0 }), "{}", self.said());
        let log = self.processor.take().unwrap().stop();
        assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");

        self.tally.generated = generated.packets;
        let root =
            if self.plan.small == Some(Side::Processor) { self.disk.as_ref().unwrap().outside() } else { self.dir.to_owned() };
        let rotated = [pcaps(&root.join("rotating")), pcaps(&self.dir.join("moved"))].concat();
        let times = count(&rotated, generated.packets);
        if self.plan.small != Some(Side::Processor) {
            assert!(
                count(&[self.dir.join("all.pcap")], generated.packets) == times,
                "not everything is in both files: {}",
                self.plan.name
            );
        }
        self.tally.delivered = times.iter().filter(|n| **n > 0).count() as u64;
        self.tally.doubled = times.iter().filter(|n| **n > 1).count() as u64;
        let unlogged: Vec<u64> = generated.ended.iter().map(|of| unlogged(&times, of)).collect();
        self.tally.unlogged = unlogged.iter().sum();
        self.tally.most_unlogged = unlogged.into_iter().max().unwrap_or_default();
        assert!(
            self.tally.most_unlogged <= self.plan.may_be_unlogged(),
            "a killed hunter takes too many with it: {:?}",
            self.tally
        );
        self.tally
    }

    fn has_stored(&self, sent: u64) -> bool {
        let Some(status) = self.status(Side::Hunter) else { return false };
        let n = |k: &str, term: &str| status["equation"][k][term].as_u64().unwrap();
        let seen = n("k1", "captured") + n("k1", "kernel_dropped") + n("k1", "interface_dropped");
        seen >= sent && ["in_memory", "on_disk"].iter().all(|term| n("k3", term) == 0)
    }

    fn wait(&self, what: &str, there: impl Fn(&Self) -> bool) {
        let began = Moment::now();
        while !there(self) {
            assert!(began.elapsed() < Duration::from_mins(2), "it does not come about: {what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn said(&self) -> String {
        let hunter = self.hunter.as_ref().map(Hunter::said).unwrap_or_default();
        let processor = self.processor.as_ref().map(Processor::log).unwrap_or_default();
        format!("{}\n\nhunter:\n{hunter}\n\nprocessor:\n{processor}", self.plan.name)
    }
}

/// `lc hunt`.
struct Hunter {
    child: Started,
    log: PathBuf,
}

impl Hunter {
    fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9), "{}", self.said());
    }

    fn said(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// The rotating files; each has its name, and nothing is left without one.
pub(super) fn pcaps(dir: &Path) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.into_iter().filter(|p| p.extension().is_some_and(|e| e == "pcap")).collect()
}

/// How often each number is in these files.
pub(super) fn count(paths: &[PathBuf], generated: u64) -> Vec<u8> {
    let mut times = vec![0_u8; usize::try_from(generated).unwrap()];
    for path in paths {
        let mut source = FileSource::open(&[path]).unwrap();
        let mut note = |frame: &[u8]| {
            let at = usize::try_from(number(frame)).unwrap();
            // one that nobody generated fails here
            times[at] = times[at].saturating_add(1);
        };
        while source.poll(&mut |f| note(f.data)).unwrap() != Progress::End {}
    }
    times
}

/// What a hunter that was killed had got and not yet in its log: only the last of it may be missing.
fn unlogged(times: &[u8], of: &Range<u64>) -> u64 {
    let of = &times[usize::try_from(of.start).unwrap()..usize::try_from(of.end).unwrap()];
    let missing = of.len() - of.iter().filter(|n| **n > 0).count();
    let last = of.iter().rev().take_while(|n| **n == 0).count();
    assert_eq!(missing, last, "packets in the middle of what a killed hunter got are missing");
    last as u64
}
