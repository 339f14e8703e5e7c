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
            hunters: 100,
            peer: None,
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

#[test]
fn what_a_disk_does_not_confirm_is_stored_when_it_is_well_and_comes_again_after_a_loss_of_power() {
    for seed in 0..4 {
        let faults =
            [(500, 2000, What::DeafDisk(0)), (4000, 3000, What::DeafDisk(0)), (5000 + 100 * seed, 500, What::CrashProcessor(0))];
        let (f, _) = play_scene(one_and_one(&faults), seed);

        assert_eq!((f.packets, f.missing, f.doubled), (f.delivered, 0, 0));
        assert!(f.refused > 4, "{f:?}");
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
        hunters: 100,
        peer: None,
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

/// Two processors, the first of which names the second to its hunters, who know of it alone.
fn with_a_peer(calm: u64, faults: &[(u64, u64, What)]) -> Scene {
    let scene = one_and_one(faults);
    let first = processor::Kind { peer: Some(1), ..scene.processors[0] };
    Scene { processors: vec![first, processor::Kind { peer: Some(0), ..first }], calm: ms(calm), ..scene }
}

#[test]
fn what_a_processor_had_not_acknowledged_when_it_was_killed_for_good_goes_to_its_peer() {
    for seed in 0..4 {
        let (f, _) = play_scene(with_a_peer(70_000, &[(4000 + 10 * seed, 67_000, What::CrashProcessor(0))]), seed);

        assert_eq!((f.packets, f.missing, f.doubled), (f.delivered, 0, 0));
        assert!(f.at_peers > f.packets / 2 && f.in_two <= f.unacked, "{f:?}");
    }
}

#[test]
fn the_hunters_of_a_processor_that_is_stopped_go_on_with_its_peer_and_nothing_is_in_both_archives() {
    for seed in 0..4 {
        let (f, _) = play_scene(with_a_peer(70_000, &[(4000 + 10 * seed, 67_000, What::StopProcessor(0))]), seed);

        assert_eq!((f.packets, f.missing, f.doubled, f.in_two), (f.delivered, 0, 0, 0));
        assert!(f.at_peers > f.packets / 2, "{f:?}");
    }
}

#[test]
fn a_hunter_for_which_there_is_no_room_goes_to_the_peer_that_the_refusal_names() {
    let scene = with_a_peer(8000, &[]);
    let hunters = vec![scene.hunters[0].clone(); 3];
    let full = processor::Kind { hunters: 1, ..scene.processors[0] };
    let (f, _) = play_scene(Scene { hunters, processors: vec![full, scene.processors[1]], ..scene }, 1);

    assert_eq!((f.packets, f.missing, f.doubled, f.in_two), (f.delivered, 0, 0, 0));
    assert!(f.at_peers > f.packets / 2 && f.at_peers < f.packets * 3 / 4, "two of three: {f:?}");
}

/// It asks once a minute.
#[test]
fn a_hunter_goes_back_to_its_own_processor_when_that_is_there_again_and_nothing_is_in_both_archives() {
    for seed in 0..2 {
        let (f, _) = play_scene(with_a_peer(160_000, &[(4000, 40_000, What::StopProcessor(0))]), seed);

        assert_eq!((f.packets, f.missing, f.doubled, f.in_two), (f.delivered, 0, 0, 0));
        assert!((45..65).contains(&(f.at_peers * 100 / f.packets)), "of two and a half minutes one and a half: {f:?}");
    }
}
