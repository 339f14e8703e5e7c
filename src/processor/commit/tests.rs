//! What a start makes of what it finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::entry::Extent;
use super::*;
use crate::record::dir::{Access, Dir, MinFree};
use crate::record::losses::{RunLosses, RunWord};

fn places(root: &Path, calls: bool) -> Places {
    Places { unified: Some(root.into()), calls: calls.then(|| root.join("calls")), rotating: None }
}

fn start(root: &Path, calls: bool) -> Result<Recovered, CommitError> {
    start_told(root, calls, &AtomicBool::new(false))
}

fn start_told(root: &Path, calls: bool, stopping: &AtomicBool) -> Result<Recovered, CommitError> {
    let dir = Dir::open(root.join("state"), Access::Private, MinFree::NONE).unwrap();
    recover(&dir, Durability::Disk, MinFree::NONE, places(root, calls), stopping)
}

/// What an earlier process left: files of 100 bytes, of which 40 and none are stored, and a batch of calls.
fn left(root: &Path) {
    let Recovered { mut commit, .. } = start(root, true).unwrap();
    let dir = Dir::open(root.join("state"), Access::Private, MinFree::NONE).unwrap();
    let state = State { places: places(root, true), ..State::default() };
    state.save(&dir, true).unwrap();
    fs::create_dir_all(root.join("calls")).unwrap();
    for name in ["all.pcap", "calls/new_sip.pcap", "calls/new.json", "calls/old_sip.pcap"] {
        fs::write(root.join(name), [7; 100]).unwrap();
    }
    let head = BatchHead { hunter: "h".into(), interfaces: Vec::new(), epoch: 5, seq: 9, received: 1, missing: 0, kept: None };
    let marks = vec![crate::record::state::Acked { hunter: "h".into(), epoch: 5, through: 9, stored: None }];
    let extents = vec![Extent { place: Place::Unified, name: "all.pcap".into(), bytes: 40 }];
    let names = ["new_sip.pcap", "new.json", "old_sip.pcap"].map(Into::into).to_vec();
    let log = &mut commit.log;
    log.append(&Entry::Gone("somebody".into()), b"", 0).unwrap();
    log.append(&Entry::Batch(head.clone()), &[1; 500], 3).unwrap();
    log.append(&Entry::Names { place: Place::Calls, names }, b"", 0).unwrap();
    log.append(&Entry::Disowned { place: Place::Calls, name: "old_sip.pcap".into() }, b"", 0).unwrap();
    log.append(&Entry::Commit { marks, extents }, b"", 0).unwrap();
    log.append(&Entry::Batch(BatchHead { seq: 10, ..head }), &[2; 500], 3).unwrap();
    log.sync().unwrap();
}

fn segment(root: &Path) -> PathBuf {
    let all = fs::read_dir(root.join("state/commit-log")).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "seg")).last().unwrap()
}

#[test]
fn files_are_cut_to_what_was_stored_and_unknown_ones_removed() {
    let tmp = tempfile::tempdir().unwrap();
    left(tmp.path());

    let Recovered { state, commit } = start(tmp.path(), true).unwrap();

    assert_eq!(fs::metadata(tmp.path().join("all.pcap")).unwrap().len(), 40);
    let mut calls: Vec<_> = fs::read_dir(tmp.path().join("calls")).unwrap().map(|e| e.unwrap().file_name()).collect();
    calls.sort();
    assert_eq!(calls, ["old_sip.pcap"], "the one that is somebody else's stays");
    assert_eq!((state.acked.len(), state.acked[0].through), (1, 9));
    let mut again = Vec::new();
    let mut read = |entry, body: Bytes| {
        again.push((matches!(entry, Entry::Batch(_)), body.len()));
        Ok(())
    };
    commit.again.read(&mut read).unwrap();
    assert_eq!(again, [(false, 0), (true, 500)], "what was not committed is not read again");
}

#[test]
fn a_start_that_is_told_to_stop_before_it_has_read_the_log_touches_no_file() {
    let tmp = tempfile::tempdir().unwrap();
    left(tmp.path());
    let len = || fs::metadata(tmp.path().join("all.pcap")).unwrap().len();

    let stopped = start_told(tmp.path(), true, &AtomicBool::new(true)).unwrap_err();
    let before = len();
    let next = start(tmp.path(), true).unwrap();

    assert!(matches!(stopped, CommitError::Stopped), "{stopped}");
    assert_eq!((before, len(), next.state.acked[0].through), (100, 40, 9));
}

#[test]
fn what_hunters_said_of_their_runs_is_known_again_whether_a_commit_followed_or_not() {
    let tmp = tempfile::tempdir().unwrap();
    left(tmp.path());
    let Recovered { mut commit, .. } = start(tmp.path(), true).unwrap();
    for (run, at, begins) in [(1, 100, true), (1, 150, false), (2, 200, true)] {
        let said = RunLosses { run, at, ..RunLosses::default() };
        let word = RunWord { hunter: "h".into(), said, began: None, begins };
        commit.log.append(&Entry::Word(word), b"", 0).unwrap();
    }
    commit.log.sync().unwrap();
    drop(commit);

    let Recovered { state, .. } = start(tmp.path(), true).unwrap();

    let told: Vec<_> = state.losses[0].windows.iter().map(|w| (&*w.reason, w.from, w.until)).collect();
    assert_eq!(told, [("hunter_down", Some(150), 200)]);
}

#[test]
fn a_damaged_log_is_no_reason_to_cut_files_or_to_stop() {
    let tmp = tempfile::tempdir().unwrap();
    left(tmp.path());
    let path = segment(tmp.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|w| w == [1; 8]).unwrap();
    bytes[at] = 9;
    fs::write(&path, bytes).unwrap();

    let Recovered { state, .. } = start(tmp.path(), true).unwrap();

    assert_eq!(fs::metadata(tmp.path().join("all.pcap")).unwrap().len(), 100);
    assert_eq!(state.acked[0].through, 9);
}

#[test]
fn what_cannot_be_gone_on_from_is_one_clear_error() {
    let tmp = tempfile::tempdir().unwrap();
    left(tmp.path());
    let said = |e: Result<Recovered, CommitError>| e.unwrap_err().to_string();

    let first = start(tmp.path(), true).unwrap();
    let second = said(start(tmp.path(), true));
    drop(first);
    let elsewhere = said(start(tmp.path(), false));
    let state = tmp.path().join("state/processor-state.json");
    fs::rename(&state, tmp.path().join("aside")).unwrap();
    let lost = said(start(tmp.path(), true));
    fs::rename(tmp.path().join("aside"), &state).unwrap();
    let path = segment(tmp.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 77;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(&path, bytes).unwrap();
    let version = said(start(tmp.path(), true));

    assert!(second.contains("in use by another process"), "{second}");
    assert!(elsewhere.contains("--per-call-pcap-dir") && elsewhere.contains("1 acknowledged batches"), "{elsewhere}");
    assert!(lost.contains("processor-state.json"), "{lost}");
    assert!(version.contains("format 77"), "{version}");
}
