//! What a seed means: who takes part, and what goes wrong when.

use std::time::Duration;

use super::{Dice, hunter, processor};
use crate::processor::commit::Durability;
use crate::record::calls::Layout;
use crate::uplink::{self, WhenFull};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing passes between a hunter and a processor.
    Cut(usize, usize),
    /// Nothing passes from the hunter to the processor.
    CutTo(usize, usize),
    /// Nothing passes from the processor to the hunter.
    CutFrom(usize, usize),
    /// Nothing passes between two processors.
    CutAbove(usize, usize),
    /// Everything is late.
    Stall(usize, usize),
    /// A hunter's host crashes; it is back when this is over.
    CrashHunter(usize),
    /// A hunter is stopped and started again.
    StopHunter(usize),
    /// A processor's host crashes.
    CrashProcessor(usize),
    /// A processor ends after so many changes of its files.
    CrashAt(usize, u64),
    /// A processor is stopped and started again.
    StopProcessor(usize),
    /// A hunter's disk is full.
    FullSpool(usize),
    /// A hunter's disk does not confirm.
    DeafSpool(usize),
    /// A hunter's disk is slow.
    SlowSpool(usize),
    /// A processor's disk is full.
    FullDisk(usize),
    /// A processor's disk takes so many milliseconds to confirm.
    SlowDisk(usize, u64),
    /// A processor's disk does not confirm.
    DeafDisk(usize),
}

/// When, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) hunters: Vec<hunter::Kind>,
    pub(super) processors: Vec<processor::Kind>,
    pub(super) faults: Vec<Fault>,
    pub(super) tick: Duration,
    /// Of what is sent, at most.
    pub(super) latency: Duration,
    /// Segments of a hundred that are lost and sent again.
    pub(super) loss: u64,
    /// Processors lose power when they crash.
    pub(super) power: bool,
    /// Nothing new comes after this, and everything is well.
    pub(super) calm: Duration,
    /// Somebody sends what no hunter should.
    pub(super) hostile: bool,
    /// Somebody asks for streams and reads none of them.
    pub(super) idler: bool,
    /// Somebody watches, and waits so long at most before it reads on.
    pub(super) monitor: Option<Duration>,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

impl Scene {
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d);
        let d = &mut dice;
        let mut processors = (0..[1, 1, 1, 2, 2, 3][index(d.roll(6))]).map(|_| processor(d)).collect::<Vec<_>>();
        let hunters = (0..[1, 1, 2, 2, 3, 3, 4, 5][index(d.roll(8))]).map(|_| hunter(d, processors.len())).collect::<Vec<_>>();
        // a tree: those below pass on to the first
        if d.roll(2) == 0 {
            for below in processors.iter_mut().skip(1) {
                below.above = Some(0);
            }
        }
        let latency = ms([2, 20, 100, 1000, 5000][index(d.roll(5))]);
        // a connection lives for some ways to and fro, or nothing is ever said on it
        for age in processors.iter_mut().filter_map(|p| p.age.as_mut()) {
            *age += 8 * latency;
        }
        let calm = ms(3000 + d.roll(7000));
        let faults = (0..d.roll(12)).map(|_| fault(d, hunters.len(), processors.len(), calm)).collect();
        let mut scene = Self {
            tick: ms(20),
            latency,
            loss: [0, 0, 1, 5, 20][index(d.roll(5))],
            power: d.roll(2) == 0,
            calm,
            hostile: d.roll(3) == 0,
            idler: d.roll(3) == 0,
            monitor: [None, None, Some(ms(20)), Some(ms(400))][index(d.roll(4))],
            hunters,
            processors,
            faults,
        };
        if d.roll(2) == 0 {
            let all = scene.processors.len();
            (1..).zip(&mut scene.processors).for_each(|(next, p)| p.peer = Some(next % all));
        }
        scene
    }
}

fn processor(d: &mut Dice) -> processor::Kind {
    let kinds = [
        (Durability::Process, "all.pcap", "{callid}.pcap", Layout::Split),
        (Durability::Disk, "all.pcapng", "{callid}.pcap", Layout::Merged),
        (Durability::Disk, "all.pcap", "{timestamp}_{callid}.pcapng", Layout::Split),
    ];
    let (durability, unified, calls, layout) = kinds[index(d.roll(3))];
    processor::Kind {
        durability,
        unified,
        calls,
        layout,
        lag: ms(20 + 20 * d.roll(2)),
        age: (d.roll(4) == 0).then(|| ms(1000 + d.roll(5000))),
        jobs: [2, 16, 256][index(d.roll(3))],
        above: None,
        hunters: 100,
        peer: None,
    }
}

fn hunter(d: &mut Dice, processors: usize) -> hunter::Kind {
    let first = index(d.roll(processors as u64));
    let mut roads: Vec<usize> = (0..processors).map(|n| (first + n) % processors).collect();
    if d.roll(3) == 0 {
        roads.truncate(1);
    }
    hunter::Kind {
        durability: [uplink::Durability::Memory, uplink::Durability::Spill, uplink::Durability::Wal][index(d.roll(3))],
        when_full: if d.roll(4) == 0 { WhenFull::Block } else { WhenFull::DropOldest },
        max_bytes: [16 << 10, 64 << 10, 4 << 20][index(d.roll(3))],
        spool_bytes: [24 << 10, 256 << 10, 16 << 20][index(d.roll(3))],
        roads,
        gap: ms(20 + d.roll(200)),
        most_packets: 1 + u32::try_from(d.roll(8)).unwrap(),
        kernel_goes_on: d.roll(2) == 0,
    }
}

fn fault(d: &mut Dice, hunters: usize, processors: usize, calm: Duration) -> Fault {
    let (h, p) = (index(d.roll(hunters as u64)), index(d.roll(processors as u64)));
    let q = index(d.roll(processors as u64));
    let what = match d.roll(20) {
        0 => What::Cut(h, p),
        1 => What::CutTo(h, p),
        2 => What::CutFrom(h, p),
        3 => What::Stall(h, p),
        4 | 5 => What::CrashHunter(h),
        6 => What::StopHunter(h),
        7 => What::CrashProcessor(p),
        8 | 9 => What::CrashAt(p, 1 + d.roll(200)),
        10 => What::StopProcessor(p),
        11 => What::FullSpool(h),
        12 => What::SlowSpool(h),
        13 => What::DeafSpool(h),
        14 | 15 => What::FullDisk(p),
        16 if p != q => What::CutAbove(p, q),
        17 => What::DeafDisk(p),
        _ => What::SlowDisk(p, 20 + d.roll(4000)),
    };
    let span = u64::try_from(calm.as_millis()).unwrap();
    Fault { at: ms(d.roll(span)), lasts: ms(20 + d.roll(4000)), what }
}
