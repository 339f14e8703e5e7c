//! What must be true at the end: the set of (hunter, packet) that was made, against what lies in the processors' files and what was
//! counted as given up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::AddAssign;

use serde_json::Value;

use super::packets::{PER_HUNTER, files, numbers, owner};
use super::{hunter, processor};
use crate::reason::DropReason;
use crate::record::state::Acked;

/// The figures of one play, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) seeds: u64,
    pub(super) hunters: u64,
    pub(super) processors: u64,
    /// Faults, crashes among them.
    pub(super) faults: u64,
    pub(super) crashes: u64,
    /// Packets made and offered.
    pub(super) packets: u64,
    /// In a processor's file.
    pub(super) delivered: u64,
    /// In the files of two processors, since their hunter went from one to the other.
    pub(super) in_two: u64,
    /// In the file of a processor that their hunter's operator did not name.
    pub(super) at_peers: u64,
    /// Not acknowledged when a processor's host crashed.
    pub(super) unacked: u64,
    /// Times the disk of a processor did not confirm.
    pub(super) refused: u64,
    /// Of a processor's, in the file of the processor above it too.
    pub(super) passed_on: u64,
    /// Given up and counted.
    pub(super) dropped: u64,
    /// Of these, there all the same: sent, and given up without an answer.
    pub(super) there: u64,
    /// Gone with a hunter's host: not acknowledged, and not on its disk.
    pub(super) crashed: u64,
    /// Neither delivered nor accounted for.
    pub(super) missing: u64,
    /// Twice in one file.
    pub(super) doubled: u64,
}

impl Figures {
    /// For people.
    pub(super) fn table(&self) -> String {
        let head = "| seeds | hunters | processors | faults | crashes | packets | delivered | in two archives | passed on | counted as given up | \
                    of these there all the same | lost with a crashed host | missing | doubled |";
        let f = self;
        format!(
            "{head}\n|{}\n| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            "---|".repeat(14),
            f.seeds,
            f.hunters,
            f.processors,
            f.faults,
            f.crashes,
            f.packets,
            f.delivered,
            f.in_two,
            f.passed_on,
            f.dropped,
            f.there,
            f.crashed,
            f.missing,
            f.doubled
        )
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, o: Self) {
        self.seeds += o.seeds;
        self.hunters += o.hunters;
        self.processors += o.processors;
        self.faults += o.faults;
        self.crashes += o.crashes;
        self.packets += o.packets;
        self.delivered += o.delivered;
        self.in_two += o.in_two;
        self.at_peers += o.at_peers;
        self.unacked += o.unacked;
        self.refused += o.refused;
        self.passed_on += o.passed_on;
        self.dropped += o.dropped;
        self.there += o.there;
        self.crashed += o.crashed;
        self.missing += o.missing;
        self.doubled += o.doubled;
    }
}

/// Judges a play that is over.
pub(super) fn judge(hunters: &[std::rc::Rc<hunter::Node>], processors: &[std::rc::Rc<processor::Node>]) -> Figures {
    let mut f = Figures { seeds: 1, hunters: hunters.len() as u64, processors: processors.len() as u64, ..Figures::default() };
    let ours = 0..u32::try_from(hunters.len()).unwrap() * PER_HUNTER;
    let mut delivered: BTreeMap<u32, u64> = BTreeMap::new();
    let mut archives: Vec<BTreeSet<u32>> = Vec::new();
    for p in processors {
        f.refused += p.refused.get();
        let filed: BTreeMap<u32, usize> =
            numbers([p.root.join(p.kind.unified)].into_iter()).into_iter().filter(|(n, _)| ours.contains(n)).collect();
        let doubled: Vec<_> = filed.iter().filter(|(_, times)| **times > 1).collect();
        if !doubled.is_empty() {
            println!("{}: in its file more than once: {doubled:?}", p.name);
            f.doubled += doubled.len() as u64;
        }
        check_other_files(p, &filed.keys().copied().collect());
        for n in filed.keys() {
            *delivered.entry(*n).or_default() += 1;
        }
        archives.push(filed.into_keys().collect());
    }
    for (p, filed) in processors.iter().zip(&archives) {
        let Some(above) = p.kind.above else { continue };
        let lost: Vec<_> = filed.difference(&archives[above]).collect();
        if !lost.is_empty() {
            println!("{}: not passed on to the processor above: {lost:?}", p.name);
            f.missing += lost.len() as u64;
        }
        f.passed_on += filed.len() as u64;
    }
    for (h, numbers) in hunters.iter().zip((0..).map(|h| h * PER_HUNTER..(h + 1) * PER_HUNTER)) {
        let at_peers =
            archives.iter().enumerate().filter(|(p, _)| !h.kind.roads.contains(p) && processors[*p].kind.above.is_none());
        f.at_peers += at_peers.map(|(_, filed)| filed.range(numbers.clone()).count() as u64).sum::<u64>();
    }
    f.delivered = delivered.len() as u64;
    f.in_two = delivered.values().filter(|times| **times > 1).count() as u64;
    let not_passed_on = f.missing;
    for h in hunters {
        judge_hunter(h, &delivered, &mut f);
    }
    assert_eq!(f.packets, f.delivered + f.dropped - f.there + f.crashed + f.missing - not_passed_on);
    f
}

fn judge_hunter(h: &hunter::Node, delivered: &BTreeMap<u32, u64>, f: &mut Figures) {
    let book = h.book.borrow();
    // a batch that was not delivered is to be answered for by the last process that knew of it
    let mut missing = vec![0_u64; book.lives.len()];
    let mut which = vec![Vec::new(); book.lives.len()];
    for (id, (packets, lives)) in &book.batches {
        f.packets += packets.len() as u64;
        let there = packets.clone().filter(|n| delivered.contains_key(n)).count();
        assert!(there == 0 || there == packets.len(), "{}: {there} packets of batch {id:?}, which has {packets:?}", h.name);
        if there == 0 {
            let last = *lives.last().unwrap();
            missing[last] += packets.len() as u64;
            which[last].push(id);
        }
    }
    for (life, missing) in missing.into_iter().enumerate() {
        let s = book.lives[life].figures();
        let crashed = book.lives[life].end.as_ref().is_some_and(|(_, crashed)| *crashed);
        let dropped = s.dropped();
        let waited = if crashed { s.in_memory_packets + s.on_disk_packets } else { 0 };
        let which = &which[life];
        // what was sent is never given up for want of memory; for other reasons it may be, and be there all the same
        let unsent = s.dropped_packets[DropReason::MemFull.index()];
        assert!(unsent <= missing, "{}: process {life} never sent {unsent}, and {missing} are missing: {s:?}", h.name);
        let lost = missing.saturating_sub(dropped + waited);
        if lost > 0 {
            println!("{}: process {life}: {missing} packets are missing, of batches {which:?}: {s:?}", h.name);
            f.missing += lost;
        }
        f.dropped += dropped;
        f.there += dropped.saturating_sub(missing);
        f.crashed += missing.saturating_sub(dropped) - lost;
    }
}

/// The files of calls and the rotating ones hold the same packets as the one for all.
fn check_other_files(p: &processor::Node, filed: &BTreeSet<u32>) {
    let expect = |what: &str, got: &BTreeMap<u32, usize>, of: &dyn Fn(u32) -> bool| {
        let wanted: BTreeMap<u32, usize> = filed.iter().filter(|n| of(**n)).map(|n| (*n, 1)).collect();
        let got: BTreeMap<u32, usize> = got.iter().filter(|(n, _)| **n < STRANGERS).map(|(n, times)| (*n, *times)).collect();
        let wrong: Vec<_> = wanted
            .iter()
            .filter(|(n, _)| got.get(n) != Some(&1))
            .chain(got.iter().filter(|(n, _)| !wanted.contains_key(n)))
            .collect();
        if !wrong.is_empty() {
            for path in ["calls", "rotating"].into_iter().flat_map(|dir| files(&p.root.join(dir))) {
                let is_record = path.extension().is_some_and(|e| e == "json");
                let holds = if is_record {
                    fs::read_to_string(&path).unwrap()
                } else {
                    format!("{:?}", numbers([path.clone()].into_iter()).keys())
                };
                println!("{}: {holds}", path.display());
            }
        }
        assert!(wrong.is_empty(), "{}: {what}: not there as often as they should be: {wrong:?}", p.name);
    };
    let rotating = files(&p.root.join("rotating"));
    expect("rotating", &numbers(rotating.into_iter()), &|n| owner(n).is_none());
    let dir = p.root.join("calls");
    let all = files(&dir);
    let (records, captures): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| path.extension().is_some_and(|e| e == "json"));
    let mut named = 0;
    let mut told = BTreeSet::new();
    for path in records {
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let call = record["call_id"].as_str().unwrap().to_owned();
        let of = |n: u32| owner(n).is_some_and(|(c, _)| c == call);
        let list = record["files"].as_array().unwrap();
        named += list.len();
        expect(&call, &numbers(list.iter().map(|f| dir.join(f["name"].as_str().unwrap()))), &of);
        let count: u64 = ["sip", "rtp", "rtcp"].iter().filter_map(|k| record["packets"][k].as_u64()).sum();
        assert_eq!(count, filed.iter().filter(|n| of(**n)).count() as u64, "{}: {record:#}", p.name);
        told.insert(call);
    }
    let calls: BTreeSet<String> = filed.iter().filter_map(|n| owner(*n)).map(|(call, _)| call.to_owned()).collect();
    assert_eq!(told, calls, "{}: calls with a record", p.name);
    assert_eq!(named, captures.len(), "{}: a file that no record names: {captures:?}", p.name);
}

/// Packets from here on are of those who take part to disturb.
pub(super) const STRANGERS: u32 = 90 * PER_HUNTER;

/// What was stored at one time is stored for good.
pub(super) fn remember(known: &mut BTreeMap<(String, String, u64), Acked>, p: &processor::Node) {
    let Some(shared) = &*p.shared.borrow() else { return };
    for a in shared.ingest.snapshot() {
        let before = known.insert((p.name.clone(), a.hunter.clone(), a.epoch), a.clone());
        let Some(before) = before else { continue };
        let kept = before.ranges().iter().all(|(from, to)| a.ranges().around(from).is_some_and(|(_, end)| end >= to));
        assert!(kept, "{}: it had stored {before:?}, and has {a:?}", p.name);
    }
}
