//! Random use, faults and crashes, compared with a list of what was put in.
//!
//! `LC_SPOOL_CASES` sets the number of cases of each of the two tests; `make soak` sets it high. Each says at its end what it has played.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::model_fs::{Faults, Random};
use super::*;
use crate::reason::DropReason;

const MAX_BYTES: u64 = 6000;

#[derive(Clone, Debug)]
enum Op {
    Append { slot: u64, packets: u32, len: usize, skip: u64 },
    AppendRead { slot: u64, packets: u32, len: usize },
    AppendTogether { slot: u64, packets: u32, len: usize, count: usize, read: bool },
    Read(usize),
    Ack { slot: usize, back: u64 },
    Sync,
    Tick(u64),
    Restart,
    Kill,
    Crash(u64),
    FailWrite { after: usize, is_full: bool },
    FailSync,
    FailDirSync,
    FailCreate,
    FailCut,
    FailRead,
    FailRemove,
    Flip(u64),
    Free(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (0..2_u64, 1..5_u32, 1..200_usize, 0..20_u64)
            .prop_map(|(slot, packets, len, skip)| Op::Append { slot, packets, len, skip: skip.saturating_sub(17) }),
        6 => (0..2_u64, 1..5_u32, 1..200_usize).prop_map(|(slot, packets, len)| Op::AppendRead { slot, packets, len }),
        8 => (0..2_u64, 1..5_u32, 1..60_usize, 2..6_usize, any::<bool>())
            .prop_map(|(slot, packets, len, count, read)| Op::AppendTogether { slot, packets, len, count, read }),
        14 => (1..12_usize).prop_map(Op::Read),
        8 => (0..8_usize, 0..4_u64).prop_map(|(slot, back)| Op::Ack { slot, back }),
        6 => Just(Op::Sync),
        4 => (1..90_000_u64).prop_map(Op::Tick),
        2 => Just(Op::Restart),
        2 => Just(Op::Kill),
        3 => any::<u64>().prop_map(Op::Crash),
        3 => (0..250_usize, any::<bool>()).prop_map(|(after, is_full)| Op::FailWrite { after, is_full }),
        3 => Just(Op::FailSync),
        1 => Just(Op::FailDirSync),
        1 => Just(Op::FailCreate),
        1 => Just(Op::FailCut),
        1 => Just(Op::FailRead),
        1 => Just(Op::FailRemove),
        2 => any::<u64>().prop_map(Op::Flip),
        1 => (0..4_u64).prop_map(|n| Op::Free(n * 400)),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Put {
    packets: u32,
    len: usize,
    confirmed: bool,
    /// Not confirmed when its process ended: nobody will.
    orphan: bool,
}

/// What was played, in one case or in many.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cases: u64,
    batches: u64,
    read: u64,
    /// Errors that the file system was told to make, flips of bits among them.
    faults: u64,
    restarts: u64,
    kills: u64,
    power: u64,
    /// Counted as lost by the queue.
    lost: u64,
    /// Neither read nor acknowledged nor counted, at the end.
    missing: u64,
    /// Read again in one life.
    doubled: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, o: Self) {
        self.cases += o.cases;
        self.batches += o.batches;
        self.read += o.read;
        self.faults += o.faults;
        self.restarts += o.restarts;
        self.kills += o.kills;
        self.power += o.power;
        self.lost += o.lost;
        self.missing += o.missing;
        self.doubled += o.doubled;
    }
}

/// What the queue was given and what it gave back.
struct Model {
    fs: ModelFs,
    config: SpoolConfig,
    queue: Queue<ModelFs>,
    ms: u64,
    life: u64,
    next_seq: BTreeMap<u64, u64>,
    put: BTreeMap<(u64, u64), Put>,
    acked: BTreeMap<u64, u64>,
    /// Highest sequence read in this life.
    read: BTreeMap<u64, u64>,
    /// To be read, acknowledged or counted as lost.
    must: BTreeSet<(u64, u64)>,
    /// Epochs in which a bit was flipped.
    damaged: BTreeSet<u64>,
    /// Packets in and out of this life.
    came: u64,
    went: u64,
    figures: Figures,
}

impl Model {
    fn new(when_full: SpoolFull) -> Self {
        let (fs, config) = (ModelFs::new(), config(MAX_BYTES, when_full));
        let queue = open(&fs, &config);
        Self {
            fs,
            config,
            queue,
            ms: 0,
            life: 1,
            next_seq: BTreeMap::new(),
            put: BTreeMap::new(),
            acked: BTreeMap::new(),
            read: BTreeMap::new(),
            must: BTreeSet::new(),
            damaged: BTreeSet::new(),
            came: 0,
            went: 0,
            figures: Figures { cases: 1, ..Figures::default() },
        }
    }

    fn step(&mut self, op: &Op) {
        self.ms += 1;
        let f = &mut self.figures;
        match op {
            Op::Restart => f.restarts += 1,
            Op::Kill => f.kills += 1,
            Op::Crash(_) => f.power += 1,
            Op::FailWrite { .. }
            | Op::FailSync
            | Op::FailDirSync
            | Op::FailCreate
            | Op::FailCut
            | Op::FailRead
            | Op::FailRemove
            | Op::Flip(_)
            | Op::Free(_) => f.faults += 1,
            Op::Append { .. }
            | Op::AppendRead { .. }
            | Op::AppendTogether { .. }
            | Op::Read(_)
            | Op::Ack { .. }
            | Op::Sync
            | Op::Tick(_) => {}
        }
        match op {
            Op::Append { slot, packets, len, skip } => self.append(*slot, *packets, *len, *skip, false),
            Op::AppendRead { slot, packets, len } => {
                let read = self.queue.stats().unread.packets == 0;
                self.append(*slot, *packets, *len, 0, read);
            }
            Op::AppendTogether { slot, packets, len, count, read } => {
                let read = *read && self.queue.stats().unread.packets == 0;
                self.append_together(*slot, *packets, *len, *count, read);
            }
            Op::Read(n) => {
                for _ in 0..*n {
                    self.read_one();
                }
            }
            Op::Ack { slot, back } => self.ack(*slot, *back),
            Op::Sync => {
                if self.queue.sync(at(self.ms)).is_ok() {
                    self.confirm();
                }
            }
            Op::Tick(ms) => {
                self.ms += ms;
                self.queue.tick(at(self.ms));
            }
            Op::Restart => {
                if self.queue.close(at(self.ms)).is_ok() {
                    self.confirm();
                }
                self.reopen(None);
            }
            Op::Kill => self.reopen(None),
            Op::Crash(seed) => self.reopen(Some(*seed)),
            Op::FailWrite { after, is_full } => self.fs.fail(|f| f.write = Some((*after, *is_full))),
            Op::FailSync => self.fs.fail(|f| f.sync = true),
            Op::FailDirSync => self.fs.fail(|f| f.dir_sync = true),
            Op::FailCreate => self.fs.fail(|f| f.create = true),
            Op::FailCut => self.fs.fail(|f| f.cut = true),
            Op::FailRead => self.fs.fail(|f| f.read = true),
            Op::FailRemove => self.fs.fail(|f| f.remove = true),
            Op::Flip(seed) => self.flip(*seed),
            Op::Free(free) => self.fs.set_free(*free + 1),
        }
        self.take_lost();
        self.check();
    }

    fn append(&mut self, slot: u64, packets: u32, len: usize, skip: u64, read: bool) {
        let epoch = self.life * 4 + slot;
        let seq = self.next_seq.get(&epoch).copied().unwrap_or(1) + skip;
        self.next_seq.insert(epoch, seq + 1);
        if self.queue.append(item(Epoch(epoch), seq, packets, len), read, at(self.ms)).is_ok() {
            self.took((epoch, seq), packets, len, read);
        }
    }

    /// As a hunter does that has several: at once, or else one by one.
    fn append_together(&mut self, slot: u64, packets: u32, len: usize, count: usize, read: bool) {
        let epoch = self.life * 4 + slot;
        let first = self.next_seq.get(&epoch).copied().unwrap_or(1);
        let items: Vec<Item> = (first..).take(count).map(|seq| item(Epoch(epoch), seq, packets, len)).collect();
        let taken = self.queue.append_together(&items, read, at(self.ms));
        for item in &items[..taken] {
            self.next_seq.insert(epoch, item.seq.0 + 1);
            self.took((epoch, item.seq.0), packets, len, read);
        }
        (taken..count).for_each(|_| self.append(slot, packets, len, 0, read));
    }

    fn took(&mut self, (epoch, seq): (u64, u64), packets: u32, len: usize, read: bool) {
        self.figures.batches += 1;
        self.put.insert((epoch, seq), Put { packets, len, confirmed: false, orphan: false });
        if read {
            self.read.insert(epoch, seq);
        } else {
            self.came += u64::from(packets);
            self.must.insert((epoch, seq));
        }
        if self.fs.is_tidy() {
            assert!(self.queue.stats().bytes <= MAX_BYTES, "{} bytes on disk", self.queue.stats().bytes);
            assert_eq!(self.fs.bytes(), self.queue.stats().bytes);
        }
    }

    fn read_one(&mut self) -> bool {
        let Some(got) = self.queue.read() else { return false };
        let id = (got.epoch.0, got.seq.0);
        let put = self.put.get(&id).unwrap_or_else(|| panic!("{id:?} was never put in"));
        assert_eq!(got, item(got.epoch, id.1, put.packets, put.len), "{id:?} is not what was put in");
        let before = self.read.insert(id.0, id.1);
        self.figures.read += 1;
        self.figures.doubled += u64::from(before == Some(id.1));
        assert!(before.is_none_or(|b| b < id.1), "{id:?} after {before:?}");
        self.went += u64::from(got.packets);
        self.must.remove(&id);
        true
    }

    /// Acknowledges what was read in some epoch, as a processor does; or, right after a restart, what it had before.
    fn ack(&mut self, slot: usize, back: u64) {
        let epochs: BTreeSet<u64> = self.read.keys().chain(self.acked.keys()).copied().collect();
        let Some(epoch) = epochs.iter().nth(slot % epochs.len().max(1)).copied() else { return };
        let read = self.read.get(&epoch).copied().unwrap_or(0);
        let seq = read.saturating_sub(back).max(self.acked.get(&epoch).copied().unwrap_or(0));
        self.acked.insert(epoch, seq);
        self.went += self.queue.ack(Epoch(epoch), BatchSeq(seq)).packets;
        self.must.retain(|(e, s)| *e != epoch || *s > seq);
    }

    fn confirm(&mut self) {
        for (id, put) in self.put.iter_mut().filter(|(_, put)| !put.orphan) {
            put.confirmed |= self.queue.covers(Epoch(id.0), BatchSeq(id.1));
        }
    }

    fn take_lost(&mut self) {
        for lost in self.queue.take_lost() {
            let (epoch, range) = (lost.epoch.0, lost.range);
            assert!(range.packets > 0 && range.from <= range.to, "{lost:?}");
            self.figures.lost += range.packets;
            self.went += range.packets;
            let gone: Vec<_> = self.must.range((epoch, range.from.0)..=(epoch, range.to.0)).copied().collect();
            if range.reason == DropReason::SpoolCorrupt && !self.damaged.contains(&epoch) {
                let confirmed = gone.iter().find(|id| self.put[id].confirmed);
                assert_eq!(confirmed, None, "a confirmed batch is corrupt although nobody touched it");
            }
            self.must.retain(|id| !gone.contains(id));
        }
        // what made room was confirmed; a copy that could not be removed was not
        for (epoch, to) in self.queue.take_given_way() {
            for put in self.put.range_mut((epoch.0, 0)..=(epoch.0, to.0)).map(|(_, put)| put) {
                (put.confirmed, put.orphan) = (false, true);
            }
        }
    }

    /// In what this process was given: read, acknowledged, lost and waiting are all there is.
    fn check(&self) {
        assert_eq!(self.came, self.went + self.queue.stats().unread.packets, "packets out of balance");
    }

    fn flip(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        let names = self.fs.names();
        let Some(name) = names.get(random.below(names.len())) else { return };
        let at = random.below(self.fs.len(name));
        self.fs.flip(name, at, u8::try_from(random.next() % 256).unwrap());
        self.damaged.insert(u64::from_str_radix(&name[..16], 16).unwrap());
    }

    fn reopen(&mut self, crash: Option<u64>) {
        // read but not acknowledged counts as well, as long as it was not given up for room
        let acked = |id: &(u64, u64)| self.acked.get(&id.0).is_some_and(|seq| id.1 <= *seq);
        let kept = |id: &(u64, u64)| self.queue.covers(Epoch(id.0), BatchSeq(id.1));
        // a process that is killed leaves what it wrote; a machine without power, what was confirmed
        let stays = |put: &Put| put.confirmed || (crash.is_none() && !put.orphan);
        let must = self.put.iter().filter(|(id, put)| stays(put) && !acked(id) && kept(id)).map(|(id, _)| *id);
        let must: BTreeSet<_> = must.filter(|id| !self.lost_before(id)).collect();
        match crash {
            Some(seed) => self.fs.crash(seed),
            None => self.fs.fail(|f| *f = Faults::default()),
        }
        self.queue = open(&self.fs, &self.config);
        self.must = must.into_iter().filter(|id| !self.damaged.contains(&id.0)).collect();
        self.put.values_mut().filter(|put| !put.confirmed).for_each(|put| put.orphan = true);
        self.life += 1;
        self.read.clear();
        self.came = self.queue.stats().unread.packets;
        self.went = 0;
        self.ms += 1;
    }

    /// Counted as lost by a reader although its file is still there.
    fn lost_before(&self, id: &(u64, u64)) -> bool {
        let read = self.read.get(&id.0).copied().unwrap_or(0);
        self.damaged.contains(&id.0) && id.1 <= read
    }

    fn finish(mut self) -> Figures {
        self.fs.fail(|f| *f = Faults::default());
        while self.read_one() {
            self.take_lost();
        }
        self.take_lost();
        self.check();
        let stats = self.queue.stats();
        assert_eq!(stats.unread.packets, 0);
        self.figures.missing = self.must.len() as u64;
        assert_eq!(self.must, BTreeSet::new(), "neither read nor acknowledged nor counted as lost");
        for epoch in self.put.keys().map(|(epoch, _)| *epoch).collect::<BTreeSet<_>>() {
            self.queue.ack(Epoch(epoch), BatchSeq(u64::MAX));
        }
        let _closed = self.queue.close(at(self.ms));
        if self.fs.is_tidy() && self.damaged.is_empty() {
            assert_eq!(self.fs.names(), Vec::<String>::new(), "what is done is removed");
        }
        self.figures
    }
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("LC_SPOOL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

fn run(ops: &[Op], refuse: bool, damage: bool) -> Figures {
    let mut model = Model::new(if refuse { SpoolFull::Refuse } else { SpoolFull::DropOldest });
    for op in ops {
        if damage || !matches!(op, Op::Flip(_) | Op::FailRead) {
            model.step(op);
        }
    }
    model.finish()
}

fn run_all(what: &str, most: usize, damage: bool) {
    let sum = RefCell::new(Figures::default());
    let cases = (prop::collection::vec(op(), 1..most), any::<bool>());
    let played = TestRunner::new(self::cases()).run(&cases, |(ops, refuse)| {
        *sum.borrow_mut() += run(&ops, refuse, damage);
        Ok(())
    });
    if let Err(e) = played {
        panic!("{e}");
    }
    let f = sum.into_inner();
    println!(
        "| spool model | cases | batches | read | errors | restarts | kills | losses of power | packets counted as lost | missing | doubled |"
    );
    println!("|{}", "---|".repeat(11));
    println!(
        "| {what} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        f.cases, f.batches, f.read, f.faults, f.restarts, f.kills, f.power, f.lost, f.missing, f.doubled
    );
}

/// Errors, full disks and power losses, but no byte changes by itself.
#[test]
fn what_was_confirmed_is_there_after_a_crash() {
    run_all("errors", 50, false);
}

/// The same with flipped bits and unreadable blocks.
#[test]
fn damage_is_counted_to_the_packet_and_never_read() {
    run_all("errors and damage", 60, true);
}

/// Its file could not be removed: the disk had not confirmed it, and the copy that was confirmed made room for something else.
#[test]
fn what_was_given_up_for_room_may_be_there_again_and_is_no_promise() {
    let append = || Op::Append { slot: 0, packets: 1, len: 1, skip: 0 };
    let ops = [
        Op::FailRemove,
        append(),
        Op::FailSync,
        Op::FailCut,
        Op::Sync,
        Op::FailWrite { after: 0, is_full: true },
        append(),
        Op::Restart,
        Op::Crash(0),
    ];
    run(&ops, false, false);
}
