//! The thread between a [`Backlog`] and its spool: writes what waits, reads it back as there is room, tells what was acknowledged.
//!
//! Promises: it never holds the backlog's lock while it reads or writes a file; what it did becomes visible in one step. A disk that fails
//! or is full stops nothing: batches stay in memory as long as there is room, then they are counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::backlog::{Backlog, Done, Head, Kept, ToWrite};
use crate::batch::SealedBatch;
use crate::reason::DropReason;
use crate::spool::{Fs, Item, Now, Queue, Refused};
use crate::telemetry::clock::{self, Moment};

/// Timers are looked at this often at least.
const IDLE: Duration = Duration::from_millis(200);
/// A spool that took nothing is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// One spool at work.
pub struct Spooler<S: Fs> {
    queue: Queue<S>,
    backlog: Arc<Backlog>,
    start: Moment,
    /// When it may be asked again, after it refused.
    stuck_until: Option<Duration>,
    /// Told when batches in memory are on disk no more.
    exposes: Box<dyn Fn() + Send>,
}

impl<S: Fs> Spooler<S> {
    /// Joins a queue to a backlog; before anything is offered to it.
    pub fn new(queue: Queue<S>, backlog: Arc<Backlog>) -> Self {
        let found = queue.stats();
        if found.unread.packets > 0 {
            let (batches, packets) = (found.unread.batches, found.unread.packets);
            tracing::info!(batches, packets, bytes = found.bytes, "the spool holds batches of an earlier run; they go first");
        }
        backlog.recover(found, queue.epochs());
        Self { queue, backlog, start: Moment::now(), stuck_until: None, exposes: Box::new(|| {}) }
    }

    /// Calls this when a full disk gave up files, of which some batches may still be in memory.
    #[must_use]
    pub fn telling(self, exposes: impl Fn() + Send + 'static) -> Self {
        Self { exposes: Box::new(exposes), ..self }
    }

    /// Works until [`Backlog::close_spool`].
    pub fn run(mut self) {
        while self.step(IDLE) {
            self.backlog.gather();
        }
    }

    /// Does what there is to do, or waits for it, `patience` at most; false once it is closed.
    pub fn step(&mut self, patience: Duration) -> bool {
        let now = self.now();
        let due = self.queue.due().map_or(patience, |due| due.saturating_sub(now.mono).min(patience));
        let todo = self.backlog.todo(due, self.is_stuck(now));
        let now = self.now();
        let mut done = Done::default();
        for (epoch, seq) in &todo.acks {
            done.spared = done.spared.plus(self.queue.ack(*epoch, *seq));
        }
        if todo.closing {
            self.publish(done);
            self.close();
            return false;
        }
        if let Some(staged) = &todo.head {
            done.head = match self.write_together(staged, &todo.behind, todo.free, now) {
                0 => self.write(staged, todo.free, now),
                taken => {
                    done.together = taken.saturating_sub(1);
                    Some(Head::Written)
                }
            };
        }
        if todo.sync {
            let synced = self.queue.sync(now);
            if let Err(e) = &synced {
                tracing::error!(error = %e, "the disk does not confirm what the spool wrote");
            }
            done.synced = Some(synced.is_ok());
        }
        if todo.room && todo.unread {
            done.fed = self.queue.read().map(restored);
        }
        self.queue.tick(now);
        self.publish(done);
        true
    }

    fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), wall_ns: clock::wall().as_nanos() }
    }

    fn is_stuck(&self, now: Now) -> bool {
        self.stuck_until.is_some_and(|until| now.mono < until)
    }

    fn publish(&mut self, mut done: Done) {
        done.lost = self.queue.take_lost();
        done.given_way = self.queue.take_given_way();
        done.stats = self.queue.stats();
        done.epochs = self.queue.epochs();
        let exposes = !done.given_way.is_empty();
        self.backlog.done(done);
        if exposes {
            (self.exposes)();
        }
    }

    fn append(&mut self, staged: &ToWrite, now: Now) -> Result<(), Refused> {
        if staged.follows_memory {
            self.queue.roll(staged.batch.epoch, now);
        }
        self.queue.append(item(&staged.batch), staged.in_memory, now)
    }

    /// Writes the batch at the head and those behind it at once, if nothing speaks against it; returns how many.
    fn write_together(&mut self, staged: &ToWrite, behind: &[SealedBatch], free: bool, now: Now) -> usize {
        let wanted = staged.in_memory || !free;
        if behind.is_empty() || !wanted || staged.follows_memory || self.stuck_until.is_some() {
            return 0;
        }
        let items: Vec<Item> = std::iter::once(&staged.batch).chain(behind).map(item).collect();
        self.queue.append_together(&items, staged.in_memory, now)
    }

    /// Writes the batch at the head; `free` when it could as well go to memory.
    fn write(&mut self, staged: &ToWrite, free: bool, now: Now) -> Option<Head> {
        let in_memory = staged.in_memory;
        if !in_memory && free {
            return Some(Head::Skipped);
        }
        if self.is_stuck(now) {
            return None;
        }
        let Err(refused) = self.append(staged, now) else {
            if self.stuck_until.take().is_some() {
                tracing::info!("the spool takes batches again");
            }
            return Some(Head::Written);
        };
        let reason = reason(&refused);
        match refused {
            Refused::Full | Refused::Io(_) => {
                if self.stuck_until.is_none() {
                    tracing::error!(error = %refused, reason = reason.name(), "batches stay in memory, and are given up when it is full");
                }
                self.stuck_until = Some(now.mono.saturating_add(RETRY));
                Some(Head::Refused(reason))
            }
            Refused::TooLarge(_) | Refused::Order(_) => Some(if in_memory { Head::Skipped } else { Head::Dropped(reason) }),
        }
    }

    /// The hunter ends: what is in memory only goes to disk, then what waited behind it.
    fn close(&mut self) {
        let (now, mut copies) = (self.now(), Vec::new());
        for (batch, logged) in self.backlog.take_memory() {
            let kept = if logged && self.queue.covers(batch.epoch, batch.seq) {
                copies.push(SealedBatch { bytes: Bytes::new(), ..batch.clone() });
                Kept::Logged
            } else {
                match self.queue.append(item(&batch), false, now) {
                    Ok(()) => Kept::Written,
                    Err(refused) => Kept::Dropped(reason(&refused)),
                }
            };
            self.backlog.kept(&batch, kept, self.queue.stats());
            self.make_way(&mut copies);
        }
        while let Some(staged) = self.backlog.todo(Duration::ZERO, false).head {
            let head = match self.append(&staged, now) {
                Ok(()) => Head::Written,
                Err(refused) => Head::Dropped(reason(&refused)),
            };
            self.make_way(&mut copies);
            self.publish(Done { head: Some(head), ..Done::default() });
        }
        if let Err(e) = self.queue.close(now) {
            tracing::error!(error = %e, "the spool is closed, but its disk did not confirm everything");
        }
        self.publish(Done::default());
        let left = self.backlog.snapshot();
        if left.on_disk_packets > 0 {
            let (batches, packets) = (left.on_disk_batches, left.on_disk_packets);
            tracing::info!(batches, packets, bytes = left.spool_bytes, "kept on disk for the next start");
        }
    }

    /// Of these, which were on disk and are in memory no more, some made room for what came behind them.
    fn make_way(&mut self, copies: &mut Vec<SealedBatch>) {
        for (epoch, through) in self.queue.take_given_way() {
            let gone = copies.extract_if(.., |b| b.epoch == epoch && b.seq <= through);
            gone.for_each(|batch| self.backlog.made_way(&batch));
        }
    }
}

const fn reason(refused: &Refused) -> DropReason {
    match refused {
        Refused::Full | Refused::TooLarge(_) => DropReason::SpoolFull,
        Refused::Io(_) => DropReason::SpoolIoError,
        Refused::Order(_) => DropReason::Shutdown,
    }
}

fn item(batch: &SealedBatch) -> Item {
    Item { epoch: batch.epoch, seq: batch.seq, packets: batch.packets, bytes: batch.bytes.clone() }
}

fn restored(item: Item) -> SealedBatch {
    SealedBatch::stored(item.epoch, item.seq, item.packets, item.bytes)
}
