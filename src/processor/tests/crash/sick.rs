//! Disks that confirm nothing, or have no room for one file, for a while or until the end.

use super::*;

/// A processor with so many batches of each hunter stored, and a disk that confirms nothing more although it got as many again.
fn sick(root: &Path, all: &[Vec<SealedBatch>], crash: &Arc<Crash>) -> Life {
    half_stored(root, all, crash, || crash.fail_syncs(0, u64::MAX))
}

/// The same of a disk that has no room for more of the unified file, although it has for others.
fn crowded(root: &Path, all: &[Vec<SealedBatch>], crash: &Arc<Crash>) -> Life {
    half_stored(root, all, crash, || crash.fill_for(Some(&root.join(PLAIN.unified))))
}

/// A processor with four batches of each hunter stored, and a disk that was spoilt before it got as many again.
fn half_stored(root: &Path, all: &[Vec<SealedBatch>], crash: &Arc<Crash>, spoil: impl FnOnce()) -> Life {
    fs::create_dir(root.join("state")).unwrap();
    let life = live(root, PLAIN, crash).unwrap();
    let send = |from: usize, to: usize| {
        for (h, of) in all.iter().enumerate() {
            for b in &of[from..to] {
                while !life.offer(HUNTERS[h].0, b) {}
            }
        }
    };
    send(0, 4);
    wait(|| life.stored() == [4, 4]);
    spoil();
    send(4, 8);
    wait(|| life.shared.flow() == FlowControl::FlowPause);
    life
}

#[test]
fn what_the_disk_does_not_confirm_is_not_acknowledged_and_left_to_the_hunters_at_a_stop() {
    let all = batches();
    let tmp = tempfile::tempdir().unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let first = sick(tmp.path(), &all, &crash);

    let refused = crash.refused();
    wait(|| crash.refused() > refused + 1);
    let stored = first.stored();
    first.stop();

    assert_eq!(stored, [4, 4]);
    let crash = Crash::after(u64::MAX, Witness::default());
    let second = live(tmp.path(), PLAIN, &crash).unwrap();
    assert_eq!(second.stored(), [4, 4]);
    assert!(feed(&second, &all, &crash, &mut Dice(1), 0));
    second.stop();
    check(tmp.path(), PLAIN, &all);
}

#[test]
fn a_disk_that_is_well_again_goes_on_without_a_restart_and_what_it_then_confirms_survives_a_loss_of_power() {
    let all = batches();
    let tmp = tempfile::tempdir().unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let first = sick(tmp.path(), &all, &crash);

    crash.fail_syncs(0, 0);
    wait(|| first.stored() == [8, 8]);
    let flow = first.shared.flow();
    crash.kill();
    first.stop();
    let mut witness = crash.witness();
    let dirs: Vec<PathBuf> = DIRS.map(|d| tmp.path().join(d)).into();
    // everything that was not confirmed goes
    witness.lose_power(&dirs.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &mut |below| u64::from(below == 2));

    assert_ne!(flow, FlowControl::FlowPause);
    let crash = Crash::after(u64::MAX, Witness::default());
    let second = live(tmp.path(), PLAIN, &crash).unwrap();
    assert_eq!(second.stored(), [8, 8]);
    assert!(feed(&second, &all, &crash, &mut Dice(1), 0));
    second.stop();
    check(tmp.path(), PLAIN, &all);
}

#[test]
fn a_unified_file_that_finds_no_room_in_the_commit_pauses_hunters_and_goes_on_once_there_is_some() {
    let all = batches();
    let tmp = tempfile::tempdir().unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let life = crowded(tmp.path(), &all, &crash);
    assert_eq!(life.stored(), [4, 4], "nobody has stored it");

    crash.fill_for(None);
    wait(|| life.stored() == [8, 8]);

    assert_ne!(life.shared.flow(), FlowControl::FlowPause);
    assert!(feed(&life, &all, &crash, &mut Dice(1), 0));
    life.stop();
    check(tmp.path(), PLAIN, &all);
}

#[test]
fn stopped_while_a_unified_file_finds_no_room_it_ends_and_leaves_the_rest_to_the_hunters() {
    let all = batches();
    let tmp = tempfile::tempdir().unwrap();
    let crash = Crash::after(u64::MAX, Witness::default());
    let first = crowded(tmp.path(), &all, &crash);
    let stored = first.stored();

    first.stop();

    assert_eq!(stored, [4, 4]);
    let crash = Crash::after(u64::MAX, Witness::default());
    let second = live(tmp.path(), PLAIN, &crash).unwrap();
    assert_eq!(second.stored(), [4, 4]);
    assert!(feed(&second, &all, &crash, &mut Dice(1), 0));
    second.stop();
    check(tmp.path(), PLAIN, &all);
}
