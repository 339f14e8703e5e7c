//! Names of interfaces: what a capture file says of its own ones is what the files in the middle say.

use std::collections::BTreeSet;
use std::fs;

use lippycat::capture::{FileSource, Progress, Source};

use super::whole::{Processor, calls_capture, frames, succeed};

/// A pcapng block.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let total = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &total, body, &total].concat()
}

/// An Ethernet interface of this name, 4 bytes long, with times in nanoseconds.
fn interface(name: &str) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 4, 0, 2, 0, 4, 0];
    body.extend(name.as_bytes());
    body.extend([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    block(1, &body)
}

fn packet(interface: u32, at: i64, data: &[u8]) -> Vec<u8> {
    let at = at.cast_unsigned();
    let (high, low) = (u32::try_from(at >> 32).unwrap(), u32::try_from(at & 0xffff_ffff).unwrap());
    let len = u32::try_from(data.len()).unwrap();
    let mut body: Vec<u8> = [interface, high, low, len, len].iter().flat_map(|w| w.to_le_bytes()).collect();
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
    block(6, &body)
}

#[test]
fn interfaces_of_capture_files_keep_their_names_on_the_way() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let calls = frames(&calls_capture());
    let at = |n: usize| calls[n].0;
    // the second interface is described only after packets of the first
    let mut two = block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    two.extend([interface("lan1"), packet(0, at(0), &calls[0].2), interface("wan2")].concat());
    two.extend([packet(1, at(1), &calls[1].2), packet(0, at(2), &calls[2].2)].concat());
    fs::write(dir.join("two.pcapng"), two).unwrap();
    let plain = calls_capture();
    let processor = Processor::start(dir, &["--insecure", "-w", "all.pcapng", "--state-dir", "state"]);
    let address = format!("127.0.0.1:{}", processor.port);

    let hunt = ["hunt", "-P", &address, "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates"];
    succeed(dir, &[&hunt[..], &["-r", "two.pcapng", plain.to_str().unwrap()]].concat());
    processor.stop();

    let mut all = FileSource::open(&[dir.join("all.pcapng")]).unwrap();
    let mut seen: Vec<(i64, u16)> = Vec::new();
    while all.poll(&mut |f| seen.push((f.ts.as_nanos(), f.interface.0))).unwrap() != Progress::End {}
    let names: Vec<&str> = all.interfaces().iter().map(|i| i.name.as_str()).collect();
    let of = |at: i64| seen.iter().filter(|s| s.0 == at).map(|s| names[usize::from(s.1)]).collect::<BTreeSet<_>>();
    assert_eq!(seen.len(), calls.len() + 3);
    assert_eq!(of(at(0)), ["calls.pcap", "lan1"].into());
    assert_eq!(of(at(1)), ["calls.pcap", "wan2"].into());
    assert_eq!(of(at(2)), ["calls.pcap", "lan1"].into());
    assert_eq!(of(at(50)), ["calls.pcap"].into());
}
