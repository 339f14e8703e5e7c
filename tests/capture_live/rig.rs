//! A network namespace with a pair of interfaces, frames to send on it, and what is captured there.

use std::process::Command;
use std::time::Duration;

use lippycat::capture::{KernelStats, LiveOptions, LiveSource, Progress, Source as _, Wake, open_live};
use lippycat::packet::Timestamp;

use crate::not_run;

const INSIDE: &str = "LC_TEST_IN_NAMESPACE";

/// Runs `body` in a process with a fresh network namespace that has `lo` up and a pair `ve0`–`ve1`.
pub(crate) fn in_namespace(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        sh("ip link set lo up");
        pair();
        body();
        return;
    }
    if !not_run::has_namespaces_and(test, &["ip"]) {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(exe)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
}

pub(crate) fn pair() {
    sh("ip link add ve0 type veth peer name ve1");
    for end in ["ve0", "ve1"] {
        // No neighbour discovery of the kernel's between our frames.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        sh(&format!("ip link set {end} up"));
    }
}

pub(crate) fn sh(command: &str) {
    let status = Command::new("sh").arg("-c").arg(command).status().unwrap();
    assert!(status.success(), "{command}");
}

pub(crate) struct Sender(pcap::Capture<pcap::Active>);

impl Sender {
    pub(crate) fn on(interface: &str) -> Self {
        Self(pcap::Capture::from_device(interface).unwrap().snaplen(64).open().unwrap())
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        // A full queue answers ENOBUFS.
        while self.0.sendpacket(frame).is_err() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// An Ethernet frame around `packet`.
pub(crate) fn ethernet(tag: Option<u16>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = tag {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// UDP over IPv4; `offset` in units of 8 bytes, a later fragment when not zero. The mark is the last four bytes.
pub(crate) fn udp4(src: [u8; 4], dst: [u8; 4], port: u16, offset: u16, mark: u32) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 32, 0, 1];
    p.extend(offset.to_be_bytes());
    p.extend([64, 17, 0, 0]);
    p.extend(src);
    p.extend(dst);
    if offset == 0 {
        p.extend([port.to_be_bytes(), port.to_be_bytes(), [0, 12], [0, 0]].concat());
    } else {
        p.extend([0xaa; 8]);
    }
    p.extend(mark.to_be_bytes());
    p
}

pub(crate) fn udp6(src: u8, dst: u8, fragment: Option<u16>, mark: u32) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, if fragment.is_some() { 20 } else { 12 }, if fragment.is_some() { 44 } else { 17 }, 64];
    for host in [src, dst] {
        p.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    if let Some(offset) = fragment {
        p.extend([17, 0]);
        p.extend((offset << 3).to_be_bytes());
        p.extend([0, 0, 0, 1]);
    }
    p.extend([0x13, 0xc4, 0x13, 0xc4, 0, 12, 0, 0]);
    p.extend(mark.to_be_bytes());
    p
}

pub(crate) fn mark(data: &[u8]) -> u32 {
    u32::from_be_bytes(*data.last_chunk().unwrap())
}

pub(crate) fn open(interface: &str, options: &LiveOptions) -> LiveSource {
    open_live(&[interface.to_owned()], 1, options).unwrap().pop().unwrap()
}

/// Takes everything until it was quiet for a while; what `take` is told: mark, time, captured and original length.
pub(crate) fn drain(source: &mut LiveSource, mut take: impl FnMut(&[u8], Timestamp, u32)) -> usize {
    let (mut count, mut quiet) = (0, 0);
    while quiet < 3 {
        match source.poll(&mut |f| take(f.data, f.ts, f.wire_len)) {
            Ok(Progress::Frames(n)) => count += n,
            Ok(_) => {
                if matches!(source.wait(Duration::from_millis(80)), Ok(Wake::Timeout) | Err(_)) {
                    quiet += 1;
                }
            }
            Err(e) => eprintln!("{e}"),
        }
    }
    count
}

pub(crate) fn assert_closed(stats: KernelStats, captured: usize) {
    assert_eq!(stats.in_ring, 0, "{stats:?}");
    assert_eq!(stats.seen(), captured as u64 + stats.kernel_dropped + stats.interface_dropped, "{stats:?}");
}
