//! Several files as one source.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Writes a classic nanosecond file of (time, mark) packets.
fn file(dir: &Path, name: &str, link: u32, packets: &[(u32, u8)]) -> PathBuf {
    let mut bytes = Vec::new();
    for word in [0xa1b2_3c4du32, 0x0004_0002, 0, 0, 65_535, link] {
        bytes.extend(word.to_le_bytes());
    }
    for (nanos, mark) in packets {
        for word in [0, *nanos, 1, 1] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(*mark);
    }
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn marks(paths: &[PathBuf], burst: usize) -> (Vec<(u16, u8)>, Vec<String>) {
    let mut source = FileSource::open(paths).unwrap();
    let (mut marks, mut errors) = (Vec::new(), Vec::new());
    loop {
        let known = source.interfaces().len();
        let mut take = |frames: &[Frame<'_>]| {
            assert!(frames.iter().all(|f| usize::from(f.interface.0) < known), "known before its frames");
            marks.extend(frames.iter().map(|f| (f.interface.0, f.data[0])));
        };
        match source.burst(burst, &mut take) {
            Ok(Progress::End) => return (marks, errors),
            Ok(_) => {}
            Err(e) => errors.push(e.to_string()),
        }
    }
}

#[test]
fn files_are_merged_by_time_and_ties_go_to_the_file_named_first() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(1, b'a'), (3, b'b'), (3, b'c'), (9, b'd')]);
    let b = file(dir.path(), "b", 1, &[(2, b'p'), (3, b'q'), (4, b'r')]);
    let order = |paths: &[PathBuf]| marks(paths, 32).0.into_iter().map(|(_, m)| char::from(m)).collect::<String>();

    assert_eq!(order(&[a.clone(), b.clone()]), "apbcqrd");
    assert_eq!(order(&[b, a]), "apqbcrd");
}

#[test]
fn disorder_inside_one_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(5, b'a'), (1, b'b'), (6, b'c')]);
    let b = file(dir.path(), "b", 1, &[(2, b'p'), (7, b'q')]);

    let (got, _) = marks(&[a, b], 32);

    let order: String = got.into_iter().map(|(_, m)| char::from(m)).collect();
    assert_eq!(order, "pabcq");
}

#[test]
fn frames_name_the_interface_of_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(1, 0), (4, 0)]);
    let b = file(dir.path(), "b", 113, &[(2, 1), (3, 1)]);
    let mut source = FileSource::open(&[a, b]).unwrap();

    let mut links = Vec::new();
    while source.poll(&mut |f| links.push((f.interface.0, f.link.0))).unwrap() != Progress::End {}

    assert_eq!(links, [(0, 1), (1, 113), (1, 113), (0, 1)]);
    assert_eq!(source.interfaces()[1].link.0, 113);
    assert!(source.interfaces()[1].name.ends_with("/b"));
    let named = |id| source.file_of(InterfaceId(id)).map(|(n, name)| (n, name.ends_with(['a', 'b'])));
    assert_eq!((named(0), named(1), named(2)), (Some((0, true)), Some((1, true)), None));
    assert_eq!(source.stats().received, 4);
}

#[test]
fn a_damaged_file_is_named_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(1, b'a'), (2, b'b')]);
    let b = file(dir.path(), "b", 1, &[(3, b'c')]);
    let mut bytes = fs::read(&a).unwrap();
    bytes[24 + 17 + 8..24 + 17 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    fs::write(&a, bytes).unwrap();

    let (got, errors) = marks(&[a, b], 32);

    assert_eq!(got, [(0, b'a'), (1, b'c')]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("/a at byte 41"), "{}", errors[0]);
}

#[test]
fn a_cut_file_is_noted_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(1, b'a'), (2, b'b')]);
    let b = file(dir.path(), "b", 1, &[(3, b'c')]);
    let bytes = fs::read(&a).unwrap();
    fs::write(&a, &bytes[..bytes.len() - 1]).unwrap();
    let mut source = FileSource::open(&[a, b]).unwrap();
    let mut count = 0;

    while source.poll(&mut |_| count += 1).unwrap() != Progress::End {}

    assert_eq!(count, 2);
    assert_eq!(source.truncated().count(), 1);
}

#[test]
fn pacing_sees_the_next_time_and_stops_before_later_frames() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(dir.path(), "a", 1, &[(1, b'a'), (5, b'b')]);
    let b = file(dir.path(), "b", 1, &[(3, b'c')]);
    for paths in [vec![a.clone(), b], vec![a]] {
        let mut source = FileSource::open(&paths).unwrap();
        let next = source.peek().unwrap();
        assert_eq!(next, Next::Frame(Timestamp::from_nanos(1)));

        let mut taken = Vec::new();
        for _ in 0..4 {
            let mut take = |fs: &[Frame<'_>]| taken.extend(fs.iter().map(|f| f.data[0]));
            source.burst_until(32, Timestamp::from_nanos(4), &mut take).unwrap();
        }

        assert_eq!(taken.len(), paths.len());
        assert_eq!(source.peek().unwrap(), Next::Frame(Timestamp::from_nanos(5)));
    }
}

/// A mark that names a packet among all files of a case.
fn mark(file: usize, packet: usize) -> u8 {
    u8::try_from(file * 50 + packet).unwrap()
}

proptest! {
    #[test]
    fn equals_a_reference_that_compares_next_packets(
        files in proptest::collection::vec(proptest::collection::vec(0u32..12, 0..12), 1..5),
        burst in 1usize..8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        let mut heads = vec![0; files.len()];
        while let Some(n) = (0..files.len()).filter(|&n| heads[n] < files[n].len()).min_by_key(|&n| files[n][heads[n]]) {
            expected.push(mark(n, heads[n]));
            heads[n] += 1;
        }
        let paths: Vec<_> = files.iter().enumerate().map(|(n, times)| {
            let packets: Vec<_> = times.iter().enumerate().map(|(i, t)| (*t, mark(n, i))).collect();
            file(dir.path(), &n.to_string(), 1, &packets)
        }).collect();

        let got: Vec<_> = marks(&paths, burst).0.into_iter().map(|(_, m)| m).collect();

        prop_assert_eq!(got, expected);
    }
}
