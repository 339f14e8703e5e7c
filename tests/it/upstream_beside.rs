//! A processor whose queue for the one above holds segments of a format that it does not know: they are left alone, and nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::numbered::number;
use super::numbered_file::{header, record};
use super::spool::{of_format, segments};
use super::upstream::{CENTRE, free_port, passed_on, status, west};
use super::whole::{Processor, frames, succeed, wait_for};

/// Hands numbered packets to the processor at the edge, which must acknowledge them all.
fn hunt(dir: &Path, edge: &Processor, numbers: Range<u64>) {
    let mut file = header();
    file.extend(numbers.flat_map(record));
    fs::write(dir.join("in"), file).unwrap();
    let address = format!("127.0.0.1:{}", edge.port);
    let words =
        ["hunt", "--insecure", "--id", "edge", "--no-filter-policy", "allow", "--keep-duplicates", "-r", "in", "-P", &address];
    succeed(dir, &words);
}

fn numbers(path: &Path) -> Vec<u64> {
    frames(path).iter().map(|(_, _, data)| number(data)).collect()
}

/// Everything went up.
fn until_all_is_above(dir: &Path, edge: &Processor) {
    wait_for(|| {
        let s = status(dir, edge.port);
        s["upstream_backlog"] == 0 && s["upstream_connected"] == true
    });
}

/// All of these, each once.
fn assert_exact(path: &Path, of: Range<u64>) {
    let all = numbers(path);
    assert_eq!(
        (all.len() as u64, all.into_iter().collect()),
        (of.end - of.start, of.collect::<BTreeSet<u64>>()),
        "{}",
        path.display()
    );
}

fn contents(files: &[PathBuf]) -> Vec<Vec<u8>> {
    files.iter().map(|f| fs::read(f).unwrap()).collect()
}

#[test]
fn a_queue_upwards_goes_on_beside_segments_of_another_version_which_go_up_when_they_can_be_read() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let above = free_port();
    let (usual, beside) = (dir.join("west/upstream/processor%3Awest"), dir.join("west/upstream/processor%3Awest~v1"));
    let edge = west(dir, 0, above, &[]);
    hunt(dir, &edge, 0..1500);
    assert_eq!(passed_on(&edge.stop())["on_disk"], 1500);
    let foreign = segments(&usual);
    for segment in &foreign {
        of_format(9, segment);
    }
    let before = contents(&foreign);

    // the one above is away: what comes waits beside
    let edge = west(dir, 0, above, &[]);
    hunt(dir, &edge, 1500..2500);
    let first = edge.stop();
    let waits = segments(&beside).len();
    // it is there: what waits beside goes up, with what comes then
    let centre = Processor::start_at(dir, above, &CENTRE);
    let edge = west(dir, 0, above, &[]);
    hunt(dir, &edge, 2500..3000);
    until_all_is_above(dir, &edge);
    let second = edge.stop();
    let left = segments(&beside).len();
    let after = contents(&foreign);
    // this version takes the place of the one that wrote them
    for segment in &foreign {
        of_format(1, segment);
    }
    let edge = west(dir, 0, above, &[]);
    hunt(dir, &edge, 3000..3100);
    until_all_is_above(dir, &edge);
    let third = edge.stop();
    let log = centre.stop();

    assert_eq!(passed_on(&first)["on_disk"], 1000, "{first}");
    assert!(waits > 0);
    for said in [&first, &second] {
        let line = said
            .lines()
            .find(|l| l.contains("left alone, and the queue goes on beside them"))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("\"WARN\"") && line.contains("processor%3Awest~v1") && line.contains("\"format\":9"), "{line}");
    }
    assert_eq!(passed_on(&second)["acknowledged"], 1500, "{second}");
    assert_eq!((left, after), (0, before), "nothing is left beside, and nothing of the others was touched");
    assert_eq!(passed_on(&third)["acknowledged"], 1600, "{third}");
    assert!(!third.contains("goes on beside"), "{third}");
    assert_exact(&dir.join("west.pcap"), 0..3100);
    assert_exact(&dir.join("centre.pcap"), 0..3100);
    assert!(log.contains("\"difference\":\"p1=0 p2=0\""), "{log}");
    assert!(segments(&usual).is_empty(), "all of it was sent");
}
