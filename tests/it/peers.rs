//! Old peers: a hunter, a monitor and a processor of the predecessor, played by another implementation of gRPC in Python
//! (`tests/peers/`), against the real binary. `scripts/py-peers.sh` makes them; their messages have none of the fields we added.
//!
//! Without them the tests say that they did not run; with `LC_REQUIRE_PEERS=1`, as in the gate, that is a failure.

mod hunter;
mod monitor;
mod old;
mod processor;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lippycat::telemetry::clock::{self, Moment};
use serde_json::{Value, json};

use super::not_run;
use super::whole::{calls_capture, frames};

/// Patience for anything that must come about.
const PATIENCE: Duration = Duration::from_secs(30);

fn peers() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    target.join("peers")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the peers can be played; says loudly when not.
fn there() -> bool {
    let made = peers().join("made").exists();
    if !made {
        assert!(std::env::var_os("LC_REQUIRE_PEERS").is_none(), "the old peers are missing: run scripts/py-peers.sh");
        not_run::say_unless_it_must("old peers", "scripts/py-peers.sh has not made them");
    }
    made
}

/// The lines of a program, as they come.
struct Lines(Receiver<String>);

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(lines)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("nothing more was said: {e}"))
    }

    /// The lines up to the first that has `what` in it, that one included.
    fn until(&self, what: &str) -> Vec<String> {
        let (mut seen, since) = (Vec::new(), Moment::now());
        while !seen.last().is_some_and(|l: &String| l.contains(what)) {
            match self.0.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
                Ok(line) => seen.push(line),
                Err(e) => panic!("no line with '{what}' ({e}) after:\n{}", seen.join("\n")),
            }
        }
        seen
    }

    /// Everything to the end.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.0.recv_timeout(PATIENCE).ok()).collect()
    }
}

/// A program that is ended when the test is.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Ends its input and waits for its end.
    fn exit_code(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().unwrap().code()
    }
}

/// One of the Python peers.
struct Peer {
    running: Running,
    said: Lines,
}

impl Peer {
    fn start(script: &str) -> Self {
        let mut command = Command::new(peers().join("venv/bin/python"));
        command.arg(repository().join("tests/peers").join(script)).arg(peers().join("old")).stdout(Stdio::piped());
        let mut running = Running::new(&mut command);
        let said = Lines::of(running.child.stdout.take().unwrap());
        Self { running, said }
    }

    fn tell(&mut self, command: &Value) {
        self.running.write(format!("{command}\n").as_bytes());
    }

    fn hear(&self) -> Value {
        serde_json::from_str(&self.said.next()).unwrap()
    }
}

/// A 64-bit number of protobuf's JSON, which is text.
fn num(v: &Value) -> u64 {
    v.as_u64().or_else(|| v.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {v}"))
}

fn texts(v: &Value) -> Vec<&str> {
    v.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// A capture file as text for standard input: nanoseconds, Ethernet.
fn pcap(packets: &[(i64, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for n in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        out.extend(n.to_le_bytes());
    }
    for (ns, wire, data) in packets {
        let (secs, rest) = (u32::try_from(ns / 1_000_000_000).unwrap(), u32::try_from(ns % 1_000_000_000).unwrap());
        for n in [secs, rest, u32::try_from(data.len()).unwrap(), *wire] {
            out.extend(n.to_le_bytes());
        }
        out.extend(data);
    }
    out
}

fn calls() -> Vec<(i64, u32, Vec<u8>)> {
    frames(&calls_capture())
}

fn now_ns() -> u64 {
    u64::try_from(clock::wall().as_nanos()).unwrap()
}

/// Within a minute: a clock, and not the time of a capture made long ago.
#[track_caller]
fn is_now(ns: &Value) {
    assert!(num(ns).abs_diff(now_ns()) < 60_000_000_000, "{ns} is not now");
}

#[test]
fn base64_is_what_everybody_takes_for_it() {
    assert_eq!(["", "f", "fo", "foo"].map(|t| base64(t.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
    assert_eq!(json!(num(&json!("7"))), json!(7));
}
