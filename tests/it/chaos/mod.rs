//! Real processes that are killed, cut off from each other, out of room and out of time while numbered packets go through them: what is in
//! the files is what was generated, each packet once, and the equation of both sides holds whenever somebody looks.
//!
//! Short forms run always; `make chaos` runs many rounds and prints a table (`LC_CHAOS_ROUNDS`).

mod feed;
mod pipe;
mod sick;
mod trial;
mod watch;
mod world;

use lippycat::telemetry::clock::Moment;

use self::pipe::Hunter;
use self::trial::{Act, Plan, Side, Tally, count};
use super::not_run;
use super::whole::Processor;

const PROGRAMS: [&str; 5] = ["ip", "nft", "tc", "unshare", "nsenter"];

const KILLS: Plan =
    Plan { name: "kill -9 of either side", rounds: 0, acts: &[Act::Kill], live: false, handful: 40, small: None, ages: false };
const CUTS: Plan = Plan { name: "cut off, both ways or one", acts: &[Act::Cut], ..KILLS };
const WIRE: Plan = Plan { name: "a wire that loses a fifth, or takes 1 or 8 Mbit/s", acts: &[Act::Lossy, Act::Narrow], ..KILLS };
const CLOCKS: Plan = Plan { name: "clocks jump by 1 h and 10 years", acts: &[Act::Clock, Act::Clock, Act::Kill], ..KILLS };
const CERTS: Plan = Plan { name: "certificates are renewed, and taken", acts: &[Act::Certs], ages: true, ..KILLS };
const ROTATION: Plan = Plan { name: "certificates are renewed in one stream", acts: &[Act::Certs], ..KILLS };
const FULL_PROCESSOR: Plan =
    Plan { name: "16 MiB at the processor", acts: &[Act::Wait, Act::Kill], small: Some(Side::Processor), ..KILLS };
const FULL_HUNTER: Plan =
    Plan { name: "16 MiB at the hunter, live", acts: &[Act::Cut], live: true, handful: 150, small: Some(Side::Hunter), ..KILLS };
const ALL: Plan = Plan {
    name: "all of it, but the clocks",
    acts: &[Act::Kill, Act::Cut, Act::Lossy, Act::Narrow, Act::Certs],
    ages: true,
    ..KILLS
};

/// A short form.
fn short(plan: Plan, rounds: u64, programs: &[&str]) -> Option<Tally> {
    if !not_run::has_namespaces_and(plan.name, &[&PROGRAMS, programs].concat()) {
        return None;
    }
    let tmp = tempfile::tempdir().unwrap();

    let tally = trial::run(tmp.path(), Plan { rounds, ..plan }, 1);

    tally.assert_exact();
    assert_eq!(tally.dropped > 0, plan.live, "{tally:?}");
    assert_eq!(tally.held_up > 0, plan.acts.iter().any(|a| matches!(a, Act::Lossy | Act::Narrow)), "{tally:?}");
    assert!(tally.kills.iter().sum::<u64>() + tally.others >= rounds, "{tally:?}");
    Some(tally)
}

#[test]
fn either_side_killed_again_and_again_loses_and_doubles_nothing() {
    short(KILLS, 5, &[]);
}

#[test]
fn a_network_that_is_cut_one_way_or_both_loses_and_doubles_nothing() {
    short(CUTS, 4, &[]);
}

#[test]
fn a_wire_that_loses_or_holds_up_segments_loses_and_doubles_no_packet() {
    short(WIRE, 4, &[]);
}

#[test]
fn clocks_that_jump_by_hours_and_years_lose_and_double_nothing() {
    short(CLOCKS, 6, &["faketime"]);
}

#[test]
fn certificates_renewed_under_load_lose_and_double_nothing() {
    let tally = short(CERTS, 4, &["openssl"]);

    assert!(tally.is_none_or(|t| t.connected > 1), "connections are rolled, and take the new ones");
}

#[test]
fn certificates_renewed_under_load_break_no_stream() {
    let tally = short(ROTATION, 4, &["openssl"]);

    assert!(tally.is_none_or(|t| t.connected == 1), "it goes on as it began");
}

#[test]
fn a_processors_disk_that_is_full_again_and_again_loses_and_doubles_nothing() {
    short(FULL_PROCESSOR, 2, &["mkfs.ext4"]);
}

#[test]
fn a_hunters_disk_that_is_full_counts_every_packet_it_gives_up() {
    short(FULL_HUNTER, 2, &["mkfs.ext4"]);
}

/// `make chaos`: many rounds; the table is the result.
#[test]
#[expect(clippy::print_stdout, reason = "the table is the result")]
fn many_rounds() {
    let Some(rounds) = std::env::var("LC_CHAOS_ROUNDS").ok().and_then(|n| n.parse::<u64>().ok()) else { return };
    let only = std::env::var("LC_CHAOS_ONLY").unwrap_or_default();
    assert!(not_run::has_namespaces_and("chaos", &[&PROGRAMS[..], &["faketime", "mkfs.ext4", "openssl"]].concat()));
    let began = Moment::now();
    println!(
        "| what happens | rounds | kills: processor, hunter | other events | generated | delivered | missing | doubled | counted drops | \
         not yet logged by killed hunters, most at once | samples of the equation | broken |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut tallies = Vec::new();
    let fifth = (rounds / 5).max(1);
    for (n, plan) in [KILLS, CUTS, WIRE, CLOCKS, CERTS, ROTATION, FULL_PROCESSOR, FULL_HUNTER, ALL].into_iter().enumerate() {
        if !plan.name.contains(&only) {
            continue;
        }
        let tmp = tempfile::tempdir().unwrap();
        let rounds = match n {
            0 => rounds,
            _ if plan.small.is_some() => fifth.div_ceil(2),
            _ => fifth,
        };
        let tally = trial::run(tmp.path(), Plan { rounds, ..plan }, n as u64);
        let Tally {
            kills: [processor, hunter],
            others,
            generated,
            delivered,
            doubled,
            dropped,
            unlogged,
            most_unlogged: most,
            samples,
            ..
        } = tally;
        println!(
            "| {} | {rounds} | {processor}, {hunter} | {others} | {generated} | {delivered} | {} | {doubled} | {dropped} | {unlogged}, {most} | \
             {samples} | {} |",
            plan.name,
            tally.missing(),
            tally.broken.len()
        );
        assert!(plan.name != ROTATION.name || tally.connected == 1, "a stream broke: {tally:?}");
        tallies.push(tally);
    }
    println!("in {:.0?}", began.elapsed());
    tallies.iter().for_each(Tally::assert_exact);
}

/// Without namespaces: a hunter on a pipe and a processor on loopback, the processor killed in between.
#[test]
fn a_processor_killed_in_any_level_of_durability_loses_and_doubles_nothing() {
    for durability in ["disk", "process"] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let arguments = ["--insecure", "-w", "all.pcap", "--state-dir", "state", "--durability", durability];
        let mut processor = Processor::start(dir, &arguments);
        let port = processor.port;
        let mut hunter = Hunter::start(dir, port, &[]);
        for round in 0..4 {
            hunter.send(round * 3000..(round + 1) * 3000);
            processor.kill();
            processor = Processor::start_at(dir, port, &arguments);
        }
        assert_eq!(hunter.finish(), "none", "{durability}");
        processor.stop();

        assert!(count(&[dir.join("all.pcap")], 12_000).iter().all(|times| *times == 1), "{durability}");
    }
}
