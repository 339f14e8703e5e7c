//! The disk queue of a live hunter on a disk that answers with errors, or loses power.

use super::{
    BTreeSet, Command, Duration, Hunter, LONG, Moment, SHORT, SPILLS_AT, each_once, in_namespace, may_be_gone, metrics, numbers,
    processor, said_lost, send, send_steadily, send_while, sh, wait_for,
};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::check_status;
use crate::numbered::Dice;
use crate::sick_disk::{Health, SickDisk, is_possible};
use crate::whole::Processor;

/// A port of this namespace.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The status of a hunter, in which the equation holds.
fn status(pages: u16) -> Value {
    let Some((_, text)) = metrics::get(pages, "/statusz") else { return Value::Null };
    check_status(&text);
    serde_json::from_str(&text).unwrap()
}

fn term(status: &Value, equation: &str, term: &str) -> u64 {
    status["equation"][equation][term].as_u64().unwrap_or_default()
}

fn again(dir: &Path, port: u16) -> Processor {
    Processor::start_at(dir, port, &["--insecure", "-w", "all.pcap", "--state-dir", "state"])
}

fn nothing_waits(status: &Value) -> bool {
    *status != Value::Null && term(status, "k3", "in_memory") == 0 && term(status, "k3", "on_disk") == 0
}

/// A directory, a sick disk in it, and where a hunter whose queue is there tells its figures.
struct Place {
    disk: SickDisk,
    pages: u16,
    /// Goes last.
    tmp: TempDir,
}

impl Place {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let disk = SickDisk::mount(Command::new("env"), &tmp.path().join("disk"));
        Self { tmp, disk, pages: port() }
    }

    fn dir(&self) -> &Path {
        self.tmp.path()
    }

    fn hunter(&self, port: u16, more: &[&str]) -> Hunter {
        let listen = format!("127.0.0.1:{}", self.pages);
        let queue = ["--durability", "wal", "--disk-buffer-dir", "disk/queue", "--metrics-listen", &listen];
        Hunter::start_by(self.disk.disk.enter(self.dir()), self.dir(), port, &[&queue, more].concat())
    }
}

/// Does it in a namespace, if a sick disk is possible there; says so when not.
fn on_a_sick_disk(test: &str, body: fn()) {
    if is_possible(test) {
        in_namespace(test, body);
    }
}

/// More than memory takes comes while the disk is so, and the processor answers nothing.
fn captures_on(health: Health) {
    let place = Place::new();
    let (dir, disk, pages) = (place.dir(), &place.disk, place.pages);
    let processor = processor(dir);
    let hunter = place.hunter(processor.port, &["--max-memory", SPILLS_AT.0]);
    sh(&format!("kill -STOP {}", processor.id()));
    send(0..300);
    wait_for("the first of it on disk", || {
        let s = status(pages);
        term(&s, "k3", "in_memory") == 300 && s["spool"]["bytes"].as_u64() > Some(0)
    });

    disk.is(health);
    let all = 300 + 2 * u32::try_from(SPILLS_AT.1 / LONG).unwrap();
    send_while(300..all, LONG, || {
        std::thread::sleep(Duration::from_micros(100));
        true
    });
    wait_for("all of it to be captured", || term(&status(pages), "k1", "kernel_seen") == u64::from(all));
    wait_for("what does not fit to be counted", || status(pages)["dropped"]["spool_io_error"].as_u64() > Some(0));
    assert!(disk.refused() > 0);
    disk.is(Health::Well);
    sh(&format!("kill -CONT {}", processor.id()));
    wait_for("the rest to arrive", || nothing_waits(&status(pages)));
    send(all..all + 300);
    wait_for("what came after", || {
        let s = status(pages);
        term(&s, "k1", "kernel_seen") == u64::from(all) + 300 && nothing_waits(&s)
    });
    let s = status(pages);
    let (code, log) = hunter.stop();
    processor.stop();

    let dropped: Vec<(&String, u64)> =
        s["dropped"].as_object().unwrap().iter().map(|(k, n)| (k, n.as_u64().unwrap())).filter(|(_, n)| *n > 0).collect();
    // what did not fit before the disk had said anything is of the memory alone
    let honest = |(reason, _): &(&String, u64)| ["spool_io_error", "mem_full"].contains(&reason.as_str());
    assert!(dropped.iter().all(honest), "{health:?}: {dropped:?}");
    let lost =
        dropped.iter().map(|(_, n)| n).sum::<u64>() + term(&s, "k1", "kernel_dropped") + term(&s, "k1", "interface_dropped");
    let there = numbers(&dir.join("all.pcap"));
    let distinct: BTreeSet<u32> = there.iter().copied().collect();
    assert_eq!((distinct.len(), there.len() as u64 + lost), (there.len(), u64::from(all) + 300), "{health:?}");
    assert!((0..300).chain(all..all + 300).all(|n| distinct.contains(&n)), "{health:?}: what fitted is there");
    assert_eq!(code, Some(5), "packets were lost, and counted: {log}");
    assert!(log.contains("\"unaccounted\":0"), "{log}");
}

#[test]
fn a_queue_whose_disk_answers_with_errors_captures_on_and_counts_what_does_not_fit() {
    const TEST: &str = "spool::sick::a_queue_whose_disk_answers_with_errors_captures_on_and_counts_what_does_not_fit";
    on_a_sick_disk(TEST, || {
        captures_on(Health::NoWrite);
        captures_on(Health::NoSync);
    });
}

/// What its disk did not take at the time is written once it does, before what came later.
#[test]
fn a_hunter_killed_after_its_disk_got_well_has_lost_nothing_in_the_middle() {
    const TEST: &str = "spool::sick::a_hunter_killed_after_its_disk_got_well_has_lost_nothing_in_the_middle";
    on_a_sick_disk(TEST, || {
        let place = Place::new();
        let (dir, disk, pages) = (place.dir(), &place.disk, place.pages);
        let first = processor(dir);
        let port = first.port;
        let mut hunter = place.hunter(port, &[]);
        first.stop();
        let captured = |n: u32| wait_for("it to be captured", || term(&status(pages), "k1", "kernel_seen") == u64::from(n));

        send(0..300);
        captured(300);
        disk.is(Health::NoWrite);
        send(300..3300);
        captured(3300);
        wait_for("an error", || disk.refused() > 0);
        disk.is(Health::Well);
        send(3300..3600);
        let all = 3600 * SHORT as u64;
        wait_for("the queue to grow", || status(pages)["spool"]["bytes"].as_u64() > Some(all));
        hunter.signal("KILL");
        drop(hunter);
        let processor = again(dir, port);
        hunter = place.hunter(port, &[]);
        wait_for("what survived to arrive", || nothing_waits(&status(pages)));
        let (code, log) = hunter.stop();
        processor.stop();

        let there = numbers(&dir.join("all.pcap"));
        each_once(&there, 0..u32::try_from(there.len()).unwrap());
        assert!(there.len() > 3300, "{}: {log}", there.len());
        assert_eq!(code, Some(0), "{log}");
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "says how much was lost")]
fn a_hunter_that_loses_power_loses_what_was_not_yet_synced_and_says_that_it_went_down() {
    const TEST: &str = "spool::sick::a_hunter_that_loses_power_loses_what_was_not_yet_synced_and_says_that_it_went_down";
    on_a_sick_disk(TEST, || {
        let (place, mut dice) = (Place::new(), Dice(1));
        let (dir, disk, pages) = (place.dir(), &place.disk, place.pages);
        let first = processor(dir);
        let port = first.port;
        let mut up = Some(first);
        let mut hunter = place.hunter(port, &[]);
        let (mut next, mut gone) = (0, 0);
        for _ in 0..3 {
            up.take().map(Processor::stop);
            let (go_on, before, began) = (AtomicBool::new(true), next, Moment::now());
            next = std::thread::scope(|scope| {
                let wire = scope.spawn(|| send_steadily(next, SHORT, &go_on));
                let captured = |n| term(&status(pages), "k1", "captured") > n;
                let at_start = term(&status(pages), "k1", "captured");
                wait_for("traffic", || captured(at_start + 3000));
                disk.write_back();
                wait_for("more of it", || captured(at_start + 8000));
                // in mid-stream
                hunter.signal("KILL");
                go_on.store(false, Ordering::Relaxed);
                wire.join().unwrap()
            });
            let per_second = u64::from(next - before) * 1000 / u64::try_from(began.elapsed().as_millis()).unwrap();
            drop(hunter);
            disk.lose_power(&mut dice);
            up = Some(again(dir, port));
            hunter = place.hunter(port, &[]);
            wait_for("what survived to arrive", || nothing_waits(&status(pages)));

            let (last_run, at_most) = said_lost(&hunter.log);
            let there = numbers(&dir.join("all.pcap"));
            let distinct: BTreeSet<u32> = there.iter().copied().collect();
            let missing = u64::from(next) - distinct.len() as u64 - gone;
            println!("{missing} of {} are missing, {last_run} reported, {at_most} in all; {per_second} a second", next - before);
            assert_eq!(distinct.len(), there.len(), "each once");
            assert!(last_run > 0 && at_most >= last_run, "{}", hunter.log);
            assert!(missing <= may_be_gone("wal", per_second), "{missing} are missing, {per_second} came in a second");
            gone += missing;
        }
        let (code, log) = hunter.stop();
        up.unwrap().stop();
        assert_eq!(code, Some(0), "{log}");
    });
}
