//! The commit log: entries in order, in the spool's files.

use std::io;
use std::path::{Path, PathBuf};

use super::entry::{EPOCH, Entry};
use super::{CommitError, Durability};
use crate::batch::BatchSeq;
use crate::record::dir::MinFree;
use crate::spool::{self, Disk, Now, Queue, Refused, SpoolConfig, SpoolError, SpoolFull};
use crate::telemetry::clock::{self, Moment};

/// Its directory in the state directory.
const NAME: &str = "commit-log";
/// What the spool knows it by.
const OWNER: &str = "commit-log";
/// Files end at this size, so that what a checkpoint covers can be removed.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes at most; checkpoints keep it far below.
const MAX_BYTES: u64 = 4 << 30;

pub(super) fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// Takes away what stands behind the last entry that is stored; nobody has the log open.
pub(super) fn forget_after(state: &Path, durability: Durability, confirmed: u64) -> Result<(), CommitError> {
    with_lock(state, durability, |disk| spool::forget_after(disk, EPOCH, BatchSeq(confirmed)))
}

/// Makes durable what is there, before anybody believes it.
pub(super) fn confirm(state: &Path, durability: Durability) -> Result<(), CommitError> {
    with_lock(state, durability, spool::confirm)
}

fn with_lock(
    state: &Path,
    durability: Durability,
    what: impl FnOnce(&Disk) -> Result<(), SpoolError>,
) -> Result<(), CommitError> {
    let path = path(state);
    let lock = Disk::lock(&path).map(|disk| if durability == Durability::Disk { disk } else { disk.volatile() });
    lock.and_then(|disk| what(&disk)).map_err(|e| CommitError::spool(&path, e))
}

/// The log, open for writing; one thread owns it.
#[derive(Debug)]
pub(in crate::processor) struct Log {
    queue: Queue<Disk>,
    since: Moment,
    /// Number of the last entry, and of the last one that is stored.
    last: u64,
    confirmed: u64,
}

impl Log {
    /// Opens it for this process alone. `last` is the number of the last entry there ever was.
    pub(super) fn open(state: &Path, durability: Durability, min_free: MinFree, last: u64) -> Result<Self, CommitError> {
        let path = path(state);
        let disk = Disk::lock(&path).map_err(|e| CommitError::spool(&path, e))?;
        let disk = if durability == Durability::Disk { disk } else { disk.volatile() };
        let config = SpoolConfig {
            hunter_id: OWNER.into(),
            max_bytes: MAX_BYTES,
            min_free,
            when_full: SpoolFull::Refuse,
            segment_bytes: SEGMENT_BYTES,
            // it is synced when it is told to be
            sync_after: std::time::Duration::MAX,
            sync_bytes: u64::MAX,
        };
        let queue = Queue::open(disk, config).map_err(|e| CommitError::spool(&path, e))?;
        Ok(Self { queue, since: Moment::now(), last, confirmed: last })
    }

    fn now(&self) -> Now {
        Now { mono: self.since.elapsed(), wall_ns: clock::wall().as_nanos() }
    }

    /// Number of the last entry.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// What was found in it is stored.
    pub(super) fn set_last(&mut self, last: u64) {
        (self.last, self.confirmed) = (last, last);
    }

    /// Number of the last entry that is stored.
    pub(super) const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Puts an entry behind all others; on an error it may be tried again.
    pub(super) fn append(&mut self, entry: &Entry, body: &[u8], packets: u64) -> Result<(), CommitError> {
        let item = entry.item(self.last.saturating_add(1), body, packets)?;
        let now = self.now();
        self.queue.append(item, true, now).map_err(|e| match e {
            Refused::Full => CommitError::Full,
            e @ (Refused::Io(_) | Refused::TooLarge(_) | Refused::Order(_)) => CommitError::Write(io::Error::other(e)),
        })?;
        self.last = self.last.saturating_add(1);
        Ok(())
    }

    /// Makes every entry durable. What the disk does not confirm is written again, to another file; an error says that this failed too.
    pub(super) fn sync(&mut self) -> Result<(), CommitError> {
        let now = self.now();
        self.queue.sync(now).map_err(CommitError::Sync)?;
        self.confirmed = self.last;
        Ok(())
    }

    /// What comes goes to another file.
    pub(super) fn roll(&mut self) {
        let now = self.now();
        self.queue.roll(EPOCH, now);
    }

    /// Entries up to this one are not needed any more.
    pub(super) fn trim(&mut self, through: u64) {
        self.queue.ack(EPOCH, BatchSeq(through));
        // damage was told when the log was read
        self.queue.take_lost();
    }
}
