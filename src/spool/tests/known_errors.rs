//! Every bug this room ever had, and what a directory can hold that is not ours.

use std::fs;

use super::*;
use crate::reason::DropReason;
use crate::spool::record::HEADER;
use crate::spool::segment::{Key, SEGMENT_HEADER, encode_head};
use crate::spool::unlocked;

const A: Epoch = Epoch(0xa);
const B: Epoch = Epoch(0xb);
const PLENTY: u64 = 100_000;

fn put(queue: &mut Queue<ModelFs>, epoch: Epoch, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        queue.append(item(epoch, seq, 3, 100), false, at(seq)).unwrap();
    }
}

fn seqs(queue: &mut Queue<ModelFs>) -> Vec<u64> {
    drain(queue).into_iter().map(|(_, seq)| seq).collect()
}

/// Found by the model: a read error while the unconfirmed batches were written again counted all of them as lost.
#[test]
fn an_error_of_fsync_moves_what_was_not_confirmed_and_reads_nothing_for_it() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=2);
    queue.sync(at(3)).unwrap();
    put(&mut queue, A, 3..=4);
    assert_eq!([1, 2, 3].map(|_| queue.read().unwrap().seq.0), [1, 2, 3]);

    fs.fail(|f| (f.sync, f.read) = (true, true));
    queue.sync(at(5)).unwrap();
    fs.fail(|f| f.read = false);

    assert_eq!(seqs(&mut queue), [4]);
    assert_eq!(queue.take_lost(), []);
    fs.crash(1);
    assert_eq!(seqs(&mut open(&fs, &config)), [1, 2, 3, 4], "an Ok of sync means durable");
}

/// Found by the model: after a second error nothing said that some batches were never confirmed.
#[test]
fn sync_never_says_ok_while_something_is_not_durable() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=2);

    fs.fail(|f| (f.sync, f.create) = (true, true));

    assert!(queue.sync(at(3)).is_err());
    assert!(queue.sync(at(4)).is_err(), "also when asked again");
    assert_eq!(seqs(&mut queue), [1, 2], "it can be read all the same");
    assert!(queue.stats().io_errors >= 2);
}

/// Found by whole systems: what was declared as given up came back with the power, and was acknowledged as known.
#[test]
fn what_was_given_up_for_want_of_room_is_not_there_again_after_a_loss_of_power() {
    for seed in 0..30 {
        let (fs, config) = (ModelFs::new(), config(4000, SpoolFull::DropOldest));
        let mut queue = open(&fs, &config);
        put(&mut queue, A, 1..=40);
        // what is made new makes removals durable too
        fs.fail(|f| f.create = true);
        (41..=60).for_each(|seq| drop(queue.append(item(A, seq, 3, 100), false, at(seq))));
        let through = queue.take_given_way().last().expect("it is full").1.0;
        fs.crash(seed);

        assert!(seqs(&mut open(&fs, &config)).iter().all(|seq| *seq > through), "{seed}");
    }
}

/// A file was begun, and could be neither finished nor removed: nothing was taken until its first batch was acknowledged.
#[test]
fn a_file_that_was_begun_in_vain_is_begun_again() {
    for header_fails in [true, false] {
        let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
        let mut queue = open(&fs, &config);
        fs.fail(|f| {
            (f.write, f.remove, f.cut) = (Some((20, false)), header_fails, !header_fails);
            f.well = usize::from(!header_fails);
        });

        put(&mut queue, A, 1..=2);
        queue.sync(at(3)).unwrap();
        drop(queue);

        assert_eq!(seqs(&mut open(&fs, &config)), [1, 2], "{header_fails}");
    }
}

#[test]
fn half_a_record_that_cannot_be_cut_off_is_left_behind() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=2);

    fs.fail(|f| (f.write, f.cut) = (Some((50, false)), true));
    put(&mut queue, A, 3..=4);
    queue.sync(at(5)).unwrap();
    fs.crash(1);

    assert_eq!(seqs(&mut open(&fs, &config)), [1, 2, 3, 4]);
}

#[test]
fn what_is_whole_before_half_a_record_that_cannot_be_cut_off_was_taken() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=2);
    let items: Vec<Item> = (3..=5).map(|seq| item(A, seq, 1, 40)).collect();

    // all of the first, a part of the second
    fs.fail(|f| (f.write, f.cut) = (Some((100, false)), true));
    let taken = queue.append_together(&items, false, at(3));
    drop(queue);

    assert_eq!(taken, 1);
    assert_eq!(seqs(&mut open(&fs, &config)), [1, 2, 3], "the next start finds no more and no less");
}

#[test]
fn a_batch_that_can_never_fit_costs_no_other() {
    let fs = ModelFs::new();
    let mut queue = open(&fs, &config(5000, SpoolFull::DropOldest));
    put(&mut queue, A, 1..=10);

    let refused = queue.append(item(A, 11, 1, 6000), false, at(11));

    assert!(matches!(refused, Err(Refused::TooLarge(6000))), "{refused:?}");
    assert_eq!(seqs(&mut queue).len(), 10);
}

#[test]
fn a_disk_others_filled_is_not_paid_for_with_everything_we_have() {
    let fs = ModelFs::new();
    let mut queue =
        open(&fs, &SpoolConfig { min_free: MinFree { percent: 100, bytes: 1 << 20 }, ..config(PLENTY, SpoolFull::DropOldest) });
    put(&mut queue, A, 1..=40);
    queue.sync(at(41)).unwrap();
    let mut queue = {
        drop(queue);
        open(&fs, &SpoolConfig { min_free: MinFree { percent: 100, bytes: 1 << 20 }, ..config(PLENTY, SpoolFull::DropOldest) })
    };

    fs.set_free(0);
    let refused = queue.append(item(B, 1, 1, 100), false, at(50));

    assert!(matches!(refused, Err(Refused::Full)), "{refused:?}");
    assert_eq!(seqs(&mut queue).len(), 40);
}

#[test]
fn a_full_spool_gives_up_whole_old_segments_and_says_which() {
    let fs = ModelFs::new();
    let mut queue = open(&fs, &config(4000, SpoolFull::DropOldest));
    put(&mut queue, A, 1..=60);

    let lost: Vec<Lost> = queue.take_lost();
    let left = seqs(&mut queue);

    let first = left[0];
    assert_eq!(left, (first..=60).collect::<Vec<_>>());
    assert_eq!((lost[0].range.from.0, lost.last().unwrap().range.to.0 + 1), (1, first));
    assert!(lost.windows(2).all(|w| w[0].range.to.0 + 1 == w[1].range.from.0), "{lost:?}");
    assert_eq!(lost.iter().map(|l| l.range.packets).sum::<u64>(), 3 * (first - 1));
    assert!(lost.iter().all(|l| l.range.reason == DropReason::SpoolFull));
}

#[test]
fn with_refuse_the_new_batch_is_not_taken_until_there_is_room() {
    let fs = ModelFs::new();
    let mut queue = open(&fs, &config(4000, SpoolFull::Refuse));
    let taken = (1..=60).take_while(|seq| queue.append(item(A, *seq, 3, 100), false, at(*seq)).is_ok()).count() as u64;
    assert!(matches!(queue.append(item(A, 100, 3, 100), false, at(99)), Err(Refused::Full)));

    assert_eq!(seqs(&mut queue).len() as u64, taken);
    queue.ack(A, BatchSeq(taken));

    assert!(queue.append(item(A, 101, 3, 100), false, at(100)).is_ok());
    assert_eq!(queue.take_lost(), []);
}

#[test]
fn older_batches_may_follow_into_their_own_segments_and_are_read_first() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 101..=130);
    put(&mut queue, A, 1..=30);
    put(&mut queue, A, 131..=140);

    let overlapping = queue.append(item(A, 110, 1, 10), false, at(200));
    queue.close(at(201)).unwrap();

    assert!(matches!(overlapping, Err(Refused::Order(BatchSeq(110)))), "{overlapping:?}");
    assert_eq!(seqs(&mut open(&fs, &config)), (1..=30).chain(101..=140).collect::<Vec<_>>());
}

#[test]
fn what_a_reader_has_and_the_disk_has_not_may_follow_later() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    for seq in [1, 2, 5, 6] {
        if seq == 5 {
            queue.roll(A, at(5));
        }
        queue.append(item(A, seq, 3, 100), true, at(seq)).unwrap();
    }
    put(&mut queue, A, 3..=4);
    queue.close(at(9)).unwrap();

    assert_eq!(seqs(&mut open(&fs, &config)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_was_acknowledged_does_not_come_again_after_a_restart() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=20);
    let _read = drain(&mut queue);
    queue.ack(A, BatchSeq(7));
    queue.close(at(50)).unwrap();

    let mut again = open(&fs, &config);

    assert_eq!(again.stats().unread, Tally { batches: 13, packets: 39 });
    assert_eq!(seqs(&mut again), (8..=20).collect::<Vec<_>>());
}

#[test]
fn a_processor_that_has_some_of_it_already_is_not_sent_that() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=20);
    put(&mut queue, B, 1..=5);
    drop(queue);

    let mut again = open(&fs, &config);
    let spared = again.ack(A, BatchSeq(12));

    assert_eq!(spared, Tally { batches: 12, packets: 36 });
    assert_eq!(drain(&mut again).into_iter().filter(|(e, _)| *e == A.0).count(), 8);
    assert_eq!(again.epochs(), []);
}

#[test]
fn a_damaged_record_is_counted_and_its_file_kept_aside() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=5);
    queue.close(at(6)).unwrap();
    fs.flip(&fs.names()[0], SEGMENT_HEADER + 2 * (HEADER + 100) + 40, 1);

    let mut queue = open(&fs, &config);
    let read = seqs(&mut queue);
    let lost = queue.take_lost();
    queue.ack(A, BatchSeq(5));

    assert_eq!(read, [1, 2, 4, 5]);
    let range = DroppedRange { from: BatchSeq(3), to: BatchSeq(3), packets: 3, reason: DropReason::SpoolCorrupt };
    assert_eq!(lost, [Lost { epoch: A, range }]);
    assert_eq!((fs.names().len(), fs.quarantined().unwrap().len()), (0, 1));
}

#[test]
fn a_damaged_header_costs_no_batch() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=3);
    queue.close(at(6)).unwrap();
    fs.flip(&fs.names()[0], 3, 0xff);

    assert_eq!(seqs(&mut open(&fs, &config)), [1, 2, 3]);
}

#[test]
fn a_captured_copy_of_a_spool_is_not_taken_for_the_spool() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    put(&mut queue, A, 1..=4);
    queue.close(at(6)).unwrap();
    let name = fs.names()[0].clone();
    let mut inside = vec![0; fs.len(&name)];
    fs.open(&name).unwrap().read_at(0, &mut inside).unwrap();
    let other = ModelFs::new();
    let mut queue = open(&other, &config);
    let mut carrier = item(B, 1, 1, 10);
    carrier.bytes = [&carrier.bytes[..], &inside].concat().into();
    queue.append(carrier, false, at(7)).unwrap();
    queue.append(item(B, 9, 1, 10), false, at(8)).unwrap();
    queue.close(at(9)).unwrap();
    other.flip(&other.names()[0], SEGMENT_HEADER, 1);

    assert_eq!(drain(&mut open(&other, &config)), [(B.0, 9)]);
}

#[test]
fn a_payload_full_of_headers_is_searched_in_linear_work_and_given_up() {
    let (fs, config) = (ModelFs::new(), config(4 << 20, SpoolFull::Refuse));
    let mut queue = open(&fs, &config);
    // each of these looks like a batch of 400 KiB with the right sequence
    let mut header = [0_u8; HEADER];
    header[..4].copy_from_slice(&400_000_u32.to_le_bytes());
    header[4..12].copy_from_slice(&2_u64.to_le_bytes());
    header[12..16].copy_from_slice(&1_u32.to_le_bytes());
    let mut evil = item(A, 1, 7, 10);
    evil.bytes = [&evil.bytes[..], &header.repeat(40_000)].concat().into();
    queue.append(evil, false, at(1)).unwrap();
    queue.close(at(2)).unwrap();
    fs.flip(&fs.names()[0], SEGMENT_HEADER, 1);

    let mut queue = open(&fs, &config);

    assert_eq!(queue.read(), None);
    assert_eq!(queue.take_lost().iter().map(|l| l.range.packets).sum::<u64>(), 7);
}

#[test]
fn a_newer_format_and_another_hunters_files_are_refused_and_left_alone() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    put(&mut open(&fs, &config), A, 1..=3);

    let stranger = Queue::open(fs.clone(), SpoolConfig { hunter_id: "edge-2".into(), ..config });
    assert!(matches!(stranger, Err(SpoolError::Foreign { .. })));
    let key = Key { epoch: B, first: BatchSeq(1), copy: 0 };
    let mut head = encode_head(key, 0, 0);
    head[8] = 9;
    let crc = crc32c::crc32c(&head[..60]).to_le_bytes();
    head[60..].copy_from_slice(&crc);
    fs.create(&key.to_string()).unwrap().append(&[&head]).unwrap();

    let newer = Queue::open(fs.clone(), self::config(PLENTY, SpoolFull::Refuse));
    assert!(matches!(newer, Err(SpoolError::Version { version: 9, .. })));
    assert_eq!(fs.names().len(), 2);
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let (fs, config) = (ModelFs::new(), config(PLENTY, SpoolFull::Refuse));
    for name in ["x", "LOCK", "0-1.seg", "000000000000000a-0000000000000001.seg.bak", "000000000000000A-0000000000000001.seg"] {
        fs.create(name).unwrap();
        assert_eq!(Key::of_name(name), None);
    }

    let mut queue = open(&fs, &config);

    assert_eq!(queue.read(), None);
    assert_eq!(fs.names().len(), 5);
}

#[test]
fn on_a_real_disk_it_survives_a_restart_and_keeps_a_second_process_out() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("spool/edge-1");
    let config = config(PLENTY, SpoolFull::DropOldest);
    let mut queue = Queue::open(unlocked(|| Disk::lock(&path)).unwrap(), config.clone()).unwrap();
    for seq in 1..=50 {
        queue.append(item(A, seq, 3, 200), false, at(seq)).unwrap();
    }
    assert!(matches!(Disk::lock(&path), Err(SpoolError::InUse { .. })));
    queue.sync(at(60)).unwrap();
    drop(queue);

    let listed = list(&Disk::look(&path).unwrap(), true, |_| Ok::<_, SpoolError>(())).unwrap();
    let mut queue = Queue::open(unlocked(|| Disk::lock(&path)).unwrap(), config).unwrap();
    let bytes: u64 = fs::read_dir(&path)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().extension().is_some())
        .map(|e| e.metadata().unwrap().len())
        .sum();

    assert_eq!(listed.iter().map(|l| l.total.batches).sum::<u64>(), 50);
    assert_eq!((queue.stats().unread.packets, queue.stats().bytes), (150, bytes));
    let read: Vec<_> = std::iter::from_fn(|| queue.read()).collect();
    assert_eq!(read, (1..=50).map(|seq| item(A, seq, 3, 200)).collect::<Vec<_>>());
    queue.ack(A, BatchSeq(50));
    queue.close(at(70)).unwrap();
    assert!(!fs::read_dir(&path).unwrap().any(|e| e.unwrap().path().extension().is_some()));
}

#[test]
fn a_damaged_file_on_a_real_disk_goes_to_the_quarantine() {
    let tmp = tempfile::tempdir().unwrap();
    let config = config(PLENTY, SpoolFull::DropOldest);
    let mut queue = Queue::open(unlocked(|| Disk::lock(tmp.path())).unwrap(), config.clone()).unwrap();
    for seq in 1..=3 {
        queue.append(item(A, seq, 3, 100), false, at(seq)).unwrap();
    }
    queue.close(at(4)).unwrap();
    drop(queue);
    let file = tmp.path().join("000000000000000a-0000000000000001.seg");
    let mut bytes = fs::read(&file).unwrap();
    bytes[SEGMENT_HEADER + 60] ^= 1;
    fs::write(&file, bytes).unwrap();

    let mut queue = Queue::open(unlocked(|| Disk::lock(tmp.path())).unwrap(), config).unwrap();
    while queue.read().is_some() {}
    queue.ack(A, BatchSeq(3));

    assert_eq!(queue.take_lost().iter().map(|l| l.range.packets).sum::<u64>(), 3);
    assert!(!file.exists() && tmp.path().join("quarantine").join(file.file_name().unwrap()).exists());
}
