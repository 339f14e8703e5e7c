use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::super::disk::{Done, Durability, Head, Kept, Todo};
use super::super::{Backlog, BacklogConfig, Connection, Exposed, Offer, PeerKind};
use super::*;
use crate::batch::grpc_prefix;
use crate::reason::DropReason;
use crate::spool::{Stats, Tally};

const A: Epoch = Epoch(1);
const B: Epoch = Epoch(2);
const PACKETS: u64 = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Offer(Epoch),
    Send,
    Ack(Epoch, u64),
    Reconnect,
    /// The spool's thread looks what there is to do.
    Todo,
    /// It writes so many of it, or the disk refuses.
    Write(usize),
    /// It says what it did.
    Done,
    /// The state thread writes down what would be lost.
    Record,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let epoch = || prop_oneof![Just(A), Just(B)];
    let step = prop_oneof![
        8 => epoch().prop_map(Step::Offer),
        6 => Just(Step::Send),
        3 => (epoch(), 0..4_u64).prop_map(|(epoch, back)| Step::Ack(epoch, back)),
        1 => Just(Step::Reconnect),
        4 => Just(Step::Todo),
        4 => (0..4_usize).prop_map(Step::Write),
        4 => Just(Step::Done),
        1 => Just(Step::Record),
    ];
    prop::collection::vec(step, 1..200)
}

/// A backlog, its spool and its processor, as far as they can be told.
struct World {
    backlog: Backlog,
    connection: Connection,
    offered: BTreeMap<Epoch, u64>,
    sent: BTreeMap<Epoch, u64>,
    gone: BTreeSet<(Epoch, u64)>,
    on_disk: BTreeSet<(Epoch, u64)>,
    /// Written and in memory no more.
    unread: VecDeque<SealedBatch>,
    todo: Option<Todo>,
    done: Option<Done>,
    /// The last record, and how much had been offered.
    record: (Exposed, u64),
}

impl World {
    fn new(durability: Durability) -> Self {
        let size = batch(A, 1).bytes.len() + 256;
        let room = BacklogConfig { max_bytes: 12 * size, durability, ..BacklogConfig::default() };
        let backlog = Backlog::new(room);
        let connection = backlog.begin(PeerKind::Extended, &[]);
        Self {
            backlog,
            connection,
            offered: BTreeMap::new(),
            sent: BTreeMap::new(),
            gone: BTreeSet::new(),
            on_disk: BTreeSet::new(),
            unread: VecDeque::new(),
            todo: None,
            done: None,
            record: (Exposed::default(), 0),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Offer(epoch) => {
                let seq = self.offered.entry(epoch).or_default();
                *seq += 1;
                let before = self.backlog.snapshot().dropped();
                assert!(matches!(self.backlog.offer(batch(epoch, *seq)), Offer::Taken));
                if self.backlog.snapshot().dropped() > before {
                    self.gone.insert((epoch, *seq));
                }
            }
            Step::Send => {
                if let Some(out) = self.backlog.next_to_send(self.connection) {
                    self.sent.insert(out.batch.epoch, out.batch.seq.0);
                }
            }
            Step::Ack(epoch, back) => {
                let through = self.sent.get(&epoch).copied().unwrap_or_default().saturating_sub(back);
                self.backlog.ack(self.connection, epoch, BatchSeq(through));
                self.gone.extend((1..=through).map(|seq| (epoch, seq)));
            }
            Step::Reconnect => self.connection = self.backlog.begin(PeerKind::Extended, &[]),
            Step::Todo if self.todo.is_none() && self.done.is_none() => {
                self.todo = Some(self.backlog.todo(Duration::ZERO, false));
            }
            Step::Write(most) => self.done = self.todo.take().map(|todo| self.write(&todo, most)).or(self.done.take()),
            Step::Done => self.done.take().into_iter().for_each(|done| self.backlog.done(done)),
            Step::Record => self.record = (self.backlog.exposed(), self.packets_offered()),
            Step::Todo => {}
        }
    }

    /// As the spool's thread does, on a disk that takes `most` batches and refuses the next.
    fn write(&mut self, todo: &Todo, most: usize) -> Done {
        let mut done = Done::default();
        if let Some(head) = &todo.head {
            let batches: Vec<&SealedBatch> = std::iter::once(&head.batch).chain(&todo.behind).take(most).collect();
            if !head.in_memory && todo.free {
                done.head = Some(Head::Skipped);
            } else if batches.is_empty() {
                done.head = Some(Head::Refused(DropReason::SpoolIoError));
            } else {
                done.head = Some(Head::Written);
                done.together = batches.len() - 1;
                for batch in batches {
                    let last = self.on_disk.iter().filter(|(epoch, _)| *epoch == batch.epoch).map(|(_, seq)| *seq).max();
                    assert!(last.is_none_or(|last| last < batch.seq.0), "{:?} behind {last:?}", batch.seq);
                    self.on_disk.insert((batch.epoch, batch.seq.0));
                    self.unread.extend((!head.in_memory).then(|| batch.clone()));
                }
            }
        }
        done.fed = if todo.room && todo.unread { self.unread.pop_front() } else { None };
        let batches = self.unread.len() as u64;
        done.stats = Stats { unread: Tally { batches, packets: batches * PACKETS }, ..Stats::default() };
        done
    }

    fn packets_offered(&self) -> u64 {
        self.offered.values().sum::<u64>() * PACKETS
    }

    fn check(&self) {
        let s = self.backlog.snapshot();
        assert_eq!(s.offered_packets, s.acked_packets + s.in_memory_packets + s.on_disk_packets + s.dropped(), "{s:?}");
        assert!(s.in_memory_bytes <= s.max_bytes, "{s:?}");
        let state = self.backlog.state.lock();
        let to_log = &state.disk.as_ref().unwrap().to_log;
        let waits: Vec<(usize, &Entry)> = state.entries.iter().enumerate().filter(|(_, e)| e.log == Log::Waits).collect();
        assert_eq!(
            (to_log.batches, to_log.bytes),
            (waits.len() as u64, waits.iter().map(|(_, e)| e.cost).sum()),
            "what waits is counted"
        );
        assert!(waits.first().is_none_or(|(at, _)| to_log.passed <= *at), "none is passed over");
        drop(state);
        self.check_record();
    }

    /// Killed now, the next start would report no less than what is missing.
    fn check_record(&self) {
        let (exposed, offered) = &self.record;
        let all = self.offered.iter().flat_map(|(epoch, last)| (1..=*last).map(move |seq| (*epoch, seq)));
        let missing = all.filter(|b| !self.gone.contains(b) && !self.on_disk.contains(b)).count() as u64 * PACKETS;
        let behind = |(epoch, seq): &&(Epoch, u64)| exposed.logged.get(epoch).is_none_or(|logged| logged.0 < *seq);
        let found = self.on_disk.iter().filter(behind).count() as u64 * PACKETS;
        let reported = exposed.packets + (self.packets_offered() - offered);
        assert!(missing + found <= reported, "{missing} missing, {found} found, {exposed:?}");
    }
}

fn batch(epoch: Epoch, seq: u64) -> SealedBatch {
    let bytes = [&grpc_prefix(100)[..], &[7; 100]].concat();
    SealedBatch::stored(epoch, BatchSeq(seq), u32::try_from(PACKETS).unwrap(), bytes.into())
}

#[test]
fn at_the_end_too_what_is_not_written_yet_would_be_lost() {
    let mut world = World::new(Durability::Wal);
    for _ in 0..3 {
        world.step(Step::Offer(A));
    }
    world.backlog.close_spool();
    let taken = world.backlog.take_memory();
    let before = world.backlog.exposed().packets;

    world.backlog.kept(&taken[0].0, Kept::Written, Stats::default());

    let after = world.backlog.exposed();
    assert_eq!((before, after.packets, after.logged[&A]), (3 * PACKETS, 2 * PACKETS, BatchSeq(1)));
}

proptest! {
    #[test]
    fn whatever_happens_between_the_log_is_in_order_and_what_waits_for_it_is_known(
        steps in steps(),
        durability in prop_oneof![Just(Durability::Spill), Just(Durability::Wal)],
    ) {
        let mut world = World::new(durability);
        for step in steps {
            world.step(step);
            world.check();
        }
        // a disk that takes everything has all of it in the end, but what the processor has
        while durability == Durability::Wal && world.backlog.snapshot().staged_batches > 0 {
            for step in [Step::Todo, Step::Write(usize::MAX), Step::Done] {
                world.step(step);
                world.check();
            }
        }
        if durability == Durability::Wal {
            let all = world.offered.iter().flat_map(|(epoch, last)| (1..=*last).map(move |seq| (*epoch, seq)));
            prop_assert!(all.into_iter().all(|b| world.gone.contains(&b) || world.on_disk.contains(&b)));
        }
    }
}
