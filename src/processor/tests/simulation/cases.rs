//! Scenes that found something; each stays as a case.

use std::time::Duration;

use super::play_scene;
use super::scene::{Fault, Scene, What};
use super::{hunter, processor};
use crate::processor::commit::Durability;
use crate::record::calls::Layout;
use crate::uplink::{self, WhenFull};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn one_and_one(faults: &[(u64, u64, What)]) -> Scene {
    Scene {
        hunters: vec![hunter::Kind {
            durability: uplink::Durability::Wal,
            when_full: WhenFull::DropOldest,
            max_bytes: 4 << 20,
            spool_bytes: 16 << 20,
            roads: vec![0],
            gap: ms(30),
            most_packets: 6,
            kernel_goes_on: true,
        }],
        processors: vec![processor::Kind {
            durability: Durability::Disk,
            unified: "all.pcap",
            calls: "{callid}.pcap",
            layout: Layout::Split,
            lag: ms(20),
            age: None,
            jobs: 256,
            above: None,
        }],
        faults: faults.iter().map(|(at, lasts, what)| Fault { at: ms(*at), lasts: ms(*lasts), what: *what }).collect(),
        tick: ms(20),
        latency: ms(2),
        loss: 0,
        power: true,
        calm: ms(8000),
        hostile: false,
        idler: false,
        monitor: None,
    }
}

/// They were acknowledged on the stream they had come by first, and nobody reads that any more.
#[test]
fn what_is_on_its_way_into_the_files_while_its_hunter_starts_anew_is_acknowledged() {
    let (f, _) = play_scene(one_and_one(&[(400, 6000, What::SlowDisk(0, 3000)), (1000, 2000, What::StopHunter(0))]), 1);

    assert_eq!((f.packets, f.missing, f.doubled), (f.delivered, 0, 0));
}

/// A call whose record could not be written when it was closed, and that was continued and closed again, got the older record last.
#[test]
fn a_record_that_could_not_be_written_is_not_written_over_a_newer_one() {
    let hunter = |durability, when_full, max_bytes, gap, most_packets| hunter::Kind {
        durability,
        when_full,
        max_bytes,
        spool_bytes: 1 << 20,
        roads: vec![0],
        gap: ms(gap),
        most_packets,
        kernel_goes_on: true,
    };
    let processor = processor::Kind {
        durability: Durability::Disk,
        unified: "all.pcap",
        calls: "{timestamp}_{callid}.pcapng",
        layout: Layout::Split,
        lag: ms(40),
        age: None,
        jobs: 2,
        above: None,
    };
    for seed in 0..4 {
        let faults = [
            (700, 2000, What::CrashProcessor(0)),
            (1800, 3800, What::StopHunter(0)),
            (3800 + 100 * seed, 3400, What::FullDisk(0)),
        ];
        let scene = Scene {
            hunters: vec![
                hunter(uplink::Durability::Memory, WhenFull::DropOldest, 16 << 10, 182, 5),
                hunter(uplink::Durability::Spill, WhenFull::Block, 16 << 10, 98, 6),
            ],
            processors: vec![processor],
            latency: ms(100),
            ..one_and_one(&faults)
        };
        let (f, _) = play_scene(scene, seed);

        assert_eq!((f.missing, f.doubled), (0, 0));
    }
}

/// What it had sent to the first processor came to the one above after what it sent to the second, and was taken for repetitions.
#[test]
fn what_a_hunter_sends_by_two_ways_up_a_tree_is_on_top_once_whichever_comes_first() {
    for (seed, down) in (0..).zip([What::CutAbove(1, 0), What::CrashProcessor(1)]) {
        let scene = one_and_one(&[(500, 3500, What::CutAbove(1, 0)), (1200, 1500, What::Cut(0, 1)), (1500, 2500, down)]);
        let below = processor::Kind { above: Some(0), ..scene.processors[0] };
        let hunters = vec![hunter::Kind { roads: vec![1, 2], ..scene.hunters[0].clone() }];
        let scene = Scene { hunters, processors: vec![scene.processors[0], below, below], ..scene };

        let (f, _) = play_scene(scene, seed);

        assert_eq!((f.packets, f.missing, f.doubled), (f.delivered, 0, 0), "{down:?}");
        assert!(f.in_two > 0);
    }
}
