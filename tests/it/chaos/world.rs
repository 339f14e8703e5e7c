//! Where a trial takes place: two network namespaces with a cable between them, which can be cut in each direction, lose a part
//! of what goes over it, and be narrow.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the processor listens.
pub(super) const MID: &str = "10.63.0.1";
/// The hunter's interface for live packets, and the other end of it.
pub(super) const CAPTURED: &str = "cap0";
pub(super) const GENERATOR: &str = "gen0";

/// Which way packets are lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Both,
    ToProcessor,
    ToHunter,
}

/// Both namespaces; gone when it is dropped.
pub(super) struct World {
    tag: String,
}

impl World {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let this = Self { tag: format!("lcchaos{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) };
        let (mid, edge) = (this.mid(), this.edge());
        for words in [
            format!("netns add {mid}"),
            format!("netns add {edge}"),
            format!("-n {mid} link add wire0 type veth peer name wire0 netns {edge}"),
            format!("-n {mid} addr add {MID}/24 dev wire0"),
            format!("-n {edge} addr add 10.63.0.2/24 dev wire0"),
            format!("-n {edge} link add {GENERATOR} type veth peer name {CAPTURED}"),
            format!("-n {edge} link set {GENERATOR} up"),
            format!("-n {edge} link set {CAPTURED} up"),
            format!("-n {edge} link set wire0 up"),
            format!("-n {mid} link set wire0 up"),
            format!("-n {edge} link set lo up"),
            format!("-n {mid} link set lo up"),
        ] {
            succeed(Command::new("ip").args(words.split(' ')));
        }
        this
    }

    /// The processor's namespace.
    pub(super) fn mid(&self) -> String {
        format!("{}-mid", self.tag)
    }

    /// The hunter's.
    pub(super) fn edge(&self) -> String {
        format!("{}-edge", self.tag)
    }

    /// From here on nothing passes that way.
    pub(super) fn cut(&self, way: Cut) {
        let mut rules = String::from("table inet cut {\n");
        if matches!(way, Cut::Both | Cut::ToProcessor) {
            rules.push_str("chain in { type filter hook input priority 0; iifname \"wire0\" drop; }\n");
        }
        if matches!(way, Cut::Both | Cut::ToHunter) {
            rules.push_str("chain out { type filter hook output priority 0; oifname \"wire0\" drop; }\n");
        }
        rules.push_str("}\n");
        self.nft(&rules);
    }

    pub(super) fn heal(&self) {
        self.nft("table inet cut {}\ndelete table inet cut\n");
    }

    /// From here on so many of a hundred segments are lost, in each direction.
    pub(super) fn lose(&self, percent: u64) {
        let lost = format!("numgen random mod 100 < {percent} counter drop; }}\n");
        self.nft(&format!(
            "table inet cut {{\nchain in {{ type filter hook input priority 0; iifname \"wire0\" {lost}\
             chain out {{ type filter hook output priority 0; oifname \"wire0\" {lost}}}\n"
        ));
    }

    /// How many have been lost.
    pub(super) fn lost(&self) -> u64 {
        number_after("packets", &succeed(enter(&self.mid()).args(["nft", "list", "table", "inet", "cut"])))
    }

    /// From here on the wire takes so many bits a second, in each direction; more waits for 100 ms at most, and is then thrown away.
    pub(super) fn narrow(&self, rate: &str) {
        for side in [self.mid(), self.edge()] {
            let words = format!("tc qdisc add dev wire0 root tbf rate {rate} burst 16kb latency 100ms");
            succeed(enter(&side).args(words.split(' ')));
        }
    }

    /// How often it was asked to take more than that; it is wide again.
    pub(super) fn widen(&self) -> u64 {
        let widen = |side: String| {
            let said = succeed(enter(&side).args("tc -s qdisc show dev wire0".split(' ')));
            succeed(enter(&side).args("tc qdisc del dev wire0 root".split(' ')));
            number_after("overlimits", &said)
        };
        [self.mid(), self.edge()].map(widen).iter().sum()
    }

    fn nft(&self, rules: &str) {
        let mut nft = enter(&self.mid()).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [self.mid(), self.edge()] {
            let _gone = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// What runs a program in a namespace.
pub(super) fn enter(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]);
    command
}

/// Takes this thread into a namespace, for good.
pub(super) fn go(namespace: &str) {
    let there = File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// What it says.
pub(super) fn succeed(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The sum of the numbers that follow a word.
fn number_after(word: &str, text: &str) -> u64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1].parse::<u64>().unwrap()).sum()
}
