//! Disks that confirm nothing, or have no room for one file, for a while or until the end.

use super::*;

/// Batches, and a processor with four of each hunter stored, whose disk was spoilt before it got as many again.
fn half_stored(spoil: impl FnOnce(&Crash, &Path)) -> (tempfile::TempDir, Vec<Vec<SealedBatch>>, Arc<Crash>, Life) {
    let (tmp, all) = (tempfile::tempdir().unwrap(), batches());
    let crash = Crash::after(u64::MAX, Witness::default());
    fs::create_dir(tmp.path().join("state")).unwrap();
    let life = live(tmp.path(), PLAIN, &crash).unwrap();
    let send = |from: usize, to: usize| {
        for (h, of) in all.iter().enumerate() {
            for b in &of[from..to] {
                while !life.offer(HUNTERS[h].0, b) {}
            }
        }
    };
    send(0, 4);
    wait(|| life.stored() == [4, 4]);
    spoil(&crash, tmp.path());
    send(4, 8);
    wait(|| life.shared.flow() == FlowControl::FlowPause);
    (tmp, all, crash, life)
}

/// Confirms nothing.
fn sick(crash: &Crash, _root: &Path) {
    crash.fail_syncs(0, u64::MAX);
}

/// Has no room for more of the unified file, although it has for others.
fn crowded(crash: &Crash, root: &Path) {
    crash.fill_for(Some(&root.join(PLAIN.unified)));
}

/// The next start has this stored, and takes the rest.
fn goes_on_from(stored: [u64; 2], root: &Path, all: &[Vec<SealedBatch>]) {
    let crash = Crash::after(u64::MAX, Witness::default());
    let next = live(root, PLAIN, &crash).unwrap();
    assert_eq!(next.stored(), stored);
    takes_the_rest(next, root, all, &crash);
}

fn takes_the_rest(life: Life, root: &Path, all: &[Vec<SealedBatch>], crash: &Crash) {
    assert!(feed(&life, all, crash, &mut Dice(1), 0));
    life.stop();
    check(root, PLAIN, all);
}

#[test]
fn what_the_disk_does_not_confirm_is_not_acknowledged_and_left_to_the_hunters_at_a_stop() {
    let (tmp, all, crash, first) = half_stored(sick);

    let refused = crash.refused();
    wait(|| crash.refused() > refused + 1);
    let stored = first.stored();
    first.stop();

    assert_eq!(stored, [4, 4]);
    goes_on_from([4, 4], tmp.path(), &all);
}

#[test]
fn a_disk_that_is_well_again_goes_on_without_a_restart_and_what_it_then_confirms_survives_a_loss_of_power() {
    let (tmp, all, crash, first) = half_stored(sick);

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
    goes_on_from([8, 8], tmp.path(), &all);
}

#[test]
fn a_unified_file_that_finds_no_room_in_the_commit_pauses_hunters_and_goes_on_once_there_is_some() {
    let (tmp, all, crash, life) = half_stored(crowded);
    assert_eq!(life.stored(), [4, 4], "nobody has stored it");

    crash.fill_for(None);
    wait(|| life.stored() == [8, 8]);

    assert_ne!(life.shared.flow(), FlowControl::FlowPause);
    takes_the_rest(life, tmp.path(), &all, &crash);
}

#[test]
fn stopped_while_a_unified_file_finds_no_room_it_ends_and_leaves_the_rest_to_the_hunters() {
    let (tmp, all, _crash, first) = half_stored(crowded);
    let stored = first.stored();

    first.stop();

    assert_eq!(stored, [4, 4]);
    goes_on_from([4, 4], tmp.path(), &all);
}
