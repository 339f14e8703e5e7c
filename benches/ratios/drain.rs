//! A disk queue that a long outage has left, drained by `lc spool drain`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lippycat::batch::SealedBatch;
use lippycat::record::dir::MinFree;
use lippycat::spool::{Disk, Item, Now, Queue, SpoolConfig, SpoolFull};

use crate::Bench;
use crate::process::{self, Processor, lc};
use crate::stream;
use crate::table::{Goal, Row, Spread, Unit};
use crate::traffic::Traffic;

/// Of whose queue it is.
const HUNTER: &str = "bench";

/// A queue with everything of a file in it.
fn fill(dir: &Path, traffic: &Traffic) {
    let disk = Disk::lock(&dir.join("filled").join(HUNTER)).unwrap();
    let mut queue = Queue::open(disk, config()).unwrap();
    for SealedBatch { epoch, seq, packets, bytes, .. } in stream::batches(&traffic.path) {
        queue.append(Item { epoch, seq, packets, bytes }, false, Now::default()).unwrap();
    }
    queue.close(Now::default()).unwrap();
}

fn config() -> SpoolConfig {
    SpoolConfig {
        hunter_id: HUNTER.into(),
        max_bytes: 1 << 40,
        min_free: MinFree::NONE,
        when_full: SpoolFull::Refuse,
        segment_bytes: 16 << 20,
        sync_after: Duration::from_millis(500),
        sync_bytes: u64::MAX,
    }
}

/// A copy of that queue, to be drained.
fn copy(dir: &Path) {
    let (from, to) = (dir.join("filled").join(HUNTER), dir.join("queue").join(HUNTER));
    let _old = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    fs::set_permissions(dir.join("queue"), fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// How fast it goes, beside what a file is read and sent at, and how much memory that takes.
pub(crate) fn rows(
    dir: &Path,
    bench: &Bench,
    traffic: &Traffic,
    sent: impl Fn(&Processor) -> Duration,
    done: &mut dyn FnMut(Row),
) {
    fill(dir, traffic);
    let processor = || {
        copy(dir);
        let _old = fs::remove_file(dir.join("all.pcap"));
        let _old = fs::remove_dir_all(dir.join("state"));
        Processor::start(dir, &["--insecure", "-w", "all.pcap"])
    };
    let stored = |processor: Processor| {
        processor.stop();
        assert_eq!(fs::metadata(dir.join("all.pcap")).unwrap().len(), traffic.bytes, "every packet is in the file");
    };
    let command = |processor: &Processor| {
        let address = processor.address();
        lc(dir, &["spool", "drain", "--id", HUNTER, "--disk-buffer-dir", "queue", "--insecure", "-P", &address])
    };
    let drained = || {
        let processor = processor();
        let cost = process::run(&mut command(&processor));
        stored(processor);
        cost.wall
    };
    let straight = || {
        let processor = processor();
        let wall = sent(&processor);
        stored(processor);
        wall
    };
    let what = "drain: a disk queue to lc process -w : the same read from the file it was made of";
    done(Row::speed(what, Goal::AtLeast(0.9), bench.rounds, drained, straight));
    let processor = processor();
    let peak = process::peak_kib(&mut command(&processor));
    stored(processor);
    done(Row {
        what: "drain: most memory of lc spool drain".to_owned(),
        figure: Spread::of(vec![peak as f64 / 1024.0]),
        unit: Unit::Mib,
        goal: Goal::AtMost(100.0),
        from: format!("{} MiB in the queue", traffic.bytes >> 20),
    });
}
