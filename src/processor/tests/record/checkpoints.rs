//! Checkpoints of many calls, and stops that have no time for them.

use super::*;

/// So many calls of one packet each.
fn short_calls(n: usize) -> Vec<Packet> {
    let first = capture("refused.pcap", "").remove(0);
    (0..n).map(|n| Packet { call_id: format!("call-{n:04}"), ..first.clone() }).collect()
}

#[test]
fn a_checkpoint_lists_the_calls_that_changed_since_the_last_and_a_restart_finds_all() {
    let tmp = tempfile::tempdir().unwrap();
    let setup = Setup { grace: Duration::from_hours(1), ..SPLIT };
    let calls = short_calls(40);
    let mut hunter = Batcher::new("h", 1);
    for part in [&calls[..38], &calls[38..39], &calls[39..]] {
        let recorder = Recorder::start(tmp.path(), setup);
        recorder.send(hunter.batch(part, "h"));
        recorder.stop();
    }
    let dir = Dir::open(tmp.path().join("state"), Access::Private, MinFree::NONE).unwrap();

    // the first of a process is of all of them
    let all = fs::read_to_string(dir.join("processor-state.json")).unwrap();
    let changes = fs::read_to_string(dir.join("processor-state-1.json")).unwrap();
    let state = State::load(&dir).unwrap().unwrap();
    assert!(all.contains("call-0000") && all.contains("call-0038") && !all.contains("call-0039"), "{all}");
    assert!(!changes.contains("call-0000") && changes.contains("call-0039") && changes.len() < all.len() / 4, "{changes}");
    assert_eq!((state.calls.len(), state.memory.len(), state.clean), (40, 40, true));
}

#[test]
fn a_stop_without_time_for_files_leaves_calls_to_the_log_and_the_next_start_files_them() {
    let tmp = tempfile::tempdir().unwrap();
    let setup = Setup { grace: Duration::from_hours(1), durability: Durability::Disk, ..SPLIT };
    let dir = Dir::open(tmp.path().join("state"), Access::Private, MinFree::NONE).unwrap();
    let clean = || State::load(&dir).unwrap().unwrap().clean;
    let recorder = Recorder::start(tmp.path(), setup).begun();
    recorder.send(Batcher::new("h", 1).batch(&short_calls(40), "h"));
    recorder.shared.late.store(true, Ordering::Release);
    recorder.stop();
    assert!(!clean() && records(&tmp.path().join("calls")).is_empty());

    let recorder = Recorder::start(tmp.path(), setup);
    recorder.stop();

    let all = records(&tmp.path().join("calls"));
    assert!(clean() && all.len() == 40 && all.values().all(|r| r["packets"]["sip"] == 1), "{all:?}");
}

#[test]
fn a_stop_in_the_middle_of_a_checkpoint_leaves_a_whole_one() {
    for n in [200, 400, 600] {
        let tmp = tempfile::tempdir().unwrap();
        // one that takes long
        let setup = Setup { grace: Duration::from_hours(1), checkpoint_bytes: 1, durability: Durability::Disk, ..SPLIT };
        let calls = short_calls(n);
        let mut hunter = Batcher::new("h", 1);
        let recorder = Recorder::start(tmp.path(), setup);
        for part in calls.chunks(50) {
            recorder.send(hunter.batch(part, "h"));
        }
        recorder.stop();

        let dir = Dir::open(tmp.path().join("state"), Access::Private, MinFree::NONE).unwrap();
        let state = State::load(&dir).unwrap().unwrap();
        assert_eq!((state.calls.len(), state.memory.len(), state.clean), (n, n, true), "{n} calls");
    }
}
