//! The corpora of `tests/fuzz`, replayed through the functions that the fuzz targets call, and mutations of them: the same ones in every run.
//!
//! `LC_FUZZ_SECONDS=600 cargo test --test it fuzz_corpora -- --nocapture` goes on for that long per entry and says how many inputs it tried; it
//! needs no fuzzer; then an input also fails that takes out of proportion long. An input that fails is written to the temporary folder
//! and named.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::numbered::Dice;

#[path = "../fuzz/src/entry.rs"]
mod entry;
#[path = "../fuzz/src/oracle.rs"]
mod oracle;

/// Mutations tried per entry in an ordinary run; one of `engine` takes as long as a hundred of the others, and one of `spool` makes files.
const MUTATIONS: u64 = 20_000;
const MUTATIONS_OF_ENGINE: u64 = 400;
const MUTATIONS_OF_SPOOL: u64 = 1000;
/// Longest input made by mutation, and most bytes of all corpora.
const LONGEST: usize = 64 << 10;
const ALL: u64 = 1 << 20;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = entries.map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    found.sort();
    assert!(!found.is_empty(), "{} is empty; tests/fuzz/seeds.py fills it", folder.display());
    found
}

/// Runs one input; a failure is kept and named.
fn try_input(name: &str, entry: entry::Entry, input: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| entry(input))).is_ok();
    assert!(held, "{name}: this input fails: {}", keep(name, input).display());
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("lc-{name}-failed"));
    fs::write(&kept, input).unwrap();
    kept
}

#[expect(clippy::print_stdout, reason = "says how much was tried, to who asks with --nocapture")]
fn replay(name: &str) {
    let (_, entry) = *entry::ENTRIES.iter().find(|(n, _)| *n == name).unwrap();
    let corpus = corpus(name);
    for (_, input) in &corpus {
        try_input(name, entry, input);
    }
    let seconds = std::env::var("LC_FUZZ_SECONDS").ok().map(|s| Duration::from_secs(s.parse().unwrap()));
    let most = match name {
        "engine" => MUTATIONS_OF_ENGINE,
        "spool" => MUTATIONS_OF_SPOOL,
        _ => MUTATIONS,
    };
    let (began, mut oracle) = (Instant::now(), oracle::Oracle::default());
    if seconds.is_some() {
        for (_, input) in &corpus {
            let _first = oracle.judge(input.len(), || began.elapsed(), || try_input(name, entry, input));
        }
    }
    let mut dice = Dice(0x1ced_c0ff_ee00_0001);
    let mut tried = 0_u64;
    while seconds.map_or(tried < most, |s| began.elapsed() < s) {
        let input = mutate(&corpus, &mut dice);
        if seconds.is_some() {
            let judged = oracle.judge(input.len(), || began.elapsed(), || try_input(name, entry, &input));
            assert!(judged.is_none(), "{name}: {judged:?}: {}", keep(name, &input).display());
        } else {
            try_input(name, entry, &input);
        }
        tried += 1;
    }
    println!("{name}: {} inputs of the corpus, {tried} mutations", corpus.len());
}

/// A part of `len` bytes, short ones more often than long ones.
fn part(dice: &mut Dice, len: usize) -> std::ops::Range<usize> {
    let start = dice.pick(len + 1);
    let most = [4, 32, len][dice.pick(3)];
    start..(start + dice.pick(most + 1)).min(len)
}

/// One to eight changes to an input of the corpus.
fn mutate(corpus: &[(PathBuf, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    const NUMBERS: [&[u8]; 9] =
        [&[0], &[0xff], &[0x7f], &[0, 0], &[0xff, 0xff], &[0, 1], &[0xff; 4], &[0x7f, 0xff, 0xff, 0xff], &[0xff; 8]];
    const TEXT: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b":",
        b";",
        b"<",
        b">",
        b"\"",
        b",",
        b"\\",
        b"%",
        b"-1",
        b"4294967296",
        b"99999999999999999999",
    ];
    let mut input = corpus[dice.pick(corpus.len())].1.clone();
    for _ in 0..=dice.pick(8) {
        let range = part(dice, input.len());
        match dice.pick(8) {
            0 | 1 if !input.is_empty() => {
                let at = dice.pick(input.len());
                input[at] ^= 1 << dice.pick(8);
            }
            2 if !input.is_empty() => {
                let at = dice.pick(input.len());
                input[at] = dice.roll(256).to_le_bytes()[0];
            }
            3 => drop(input.drain(range)),
            4 => {
                let copy = input[range].to_vec();
                let at = dice.pick(input.len() + 1);
                input.splice(at..at, copy);
            }
            5 => {
                let bytes = NUMBERS[dice.pick(NUMBERS.len())];
                let end = (range.start + bytes.len()).min(input.len());
                input.splice(range.start..end, bytes.iter().copied());
            }
            6 => {
                let bytes = TEXT[dice.pick(TEXT.len())];
                let end = if dice.pick(2) == 0 { range.start } else { range.end };
                input.splice(range.start..end, bytes.iter().copied());
            }
            _ => {
                let other = &corpus[dice.pick(corpus.len())].1;
                let piece = part(dice, other.len());
                input.splice(range, other[piece].iter().copied());
            }
        }
    }
    input.truncate(LONGEST);
    input
}

macro_rules! entries {
    ($($test:ident => $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                replay($name);
            }
        )*

        #[test]
        fn every_entry_has_its_test_and_its_target() {
            let tested = [$($name),*];
            let entries: Vec<&str> = entry::ENTRIES.iter().map(|(name, _)| *name).collect();
            let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml")).unwrap();

            assert_eq!(tested.as_slice(), entries);
            for name in entries {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} has no target");
            }
        }
    };
}

entries! {
    packets_of_any_bytes => "packet",
    fragments_of_any_bytes => "defrag",
    segments_of_any_bytes => "tcp",
    sip_of_any_bytes => "sip",
    sdp_of_any_bytes => "sdp",
    rtp_and_rtcp_of_any_bytes => "rtp",
    web_sockets_of_any_bytes => "ws",
    capture_files_of_any_bytes => "pcap",
    batches_of_any_bytes => "batch",
    filter_files_of_any_bytes => "filters",
    bpf_filters_of_any_bytes => "bpf",
    disk_queues_with_any_damage => "spool",
    configurations_of_any_bytes => "config",
    inspection_of_any_bytes => "engine",
}

#[test]
fn an_input_that_takes_out_of_proportion_long_is_told() {
    let now = std::cell::Cell::new(Duration::ZERO);
    let mut oracle = oracle::Oracle::default();
    let mut judge = |bytes, micros| oracle.judge(bytes, || now.get(), || now.set(now.get() + Duration::from_micros(micros)));

    for n in 0..2000 {
        let bytes = 1000 + n % 700;
        assert_eq!(judge(bytes, 100 + bytes as u64), None);
    }

    assert_eq!(judge(100_000, 90_000), None, "long, and slow only as it should be");
    assert_eq!(judge(1, 900), None, "short");
    assert!(judge(1000, 60_000).is_some());
}

#[test]
fn the_corpora_are_small() {
    let sizes = entry::ENTRIES.iter().flat_map(|(name, _)| corpus(name)).map(|(_, input)| input.len() as u64);

    assert!(sizes.sum::<u64>() <= ALL);
}
