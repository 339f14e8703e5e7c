//! When is a batch stored? The commit log and the thread that writes it.
//!
//! ```text
//! record thread ─▶ Group: batches with call packets, names of new files, files that grew, whom to answer
//!        │            ▼ commit thread
//!        │         what of the unified file is still in memory is written, then fdatasync of it and of rotating files
//!        │         that grew (they are their own log)
//!        │         commit log: batches, names, then Commit { marks, lengths } ─▶ fdatasync ─▶ acknowledgements
//!        └─ Checkpoint: call files as they are at this group ─▶ fdatasync each, a few between two groups
//!                      ─▶ processor-state.json or changes to it, slice by slice ─▶ the log before it is removed
//! ```
//!
//! | file | what |
//! |---|---|
//! | `entry` | what stands in the log |
//! | `log` | the log, in the spool's files |
//! | `committer` | the commit thread |
//! | `recover` | what an earlier process left: files are cut to what was stored, unknown files removed |
//!
//! A start cuts unified and rotating files to their last length in the log, call files to the checkpoint, removes files that
//! were made since and are in neither, and gives the record thread the batches since the checkpoint again. So every packet of
//! an acknowledged batch is once in each of its files, whenever the process ended; those of other batches are in none, and
//! their hunters send them again. A start that is told to stop before it has done all of that leaves the log as it is, as a crash would.
//!
//! Promises: nothing is acknowledged as durable that was not confirmed by the disk (`--durability disk`) or the kernel
//! (`process`); after an error of fsync nothing that was written since the last confirmation is believed: the log is cut back to it,
//! the files as after a crash, and what was received since is written again from memory, as often as it takes; a damaged log is
//! said and counted. Refuses: the log of another version, of another process, or without its state.

mod committer;
mod entry;
mod log;
mod recover;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

pub(in crate::processor) use committer::Committer;
pub use entry::Place;
pub(in crate::processor) use entry::{BatchHead, Entry};
pub use recover::{Recovered, recover};

use super::shared::{Incoming, Job};
use crate::record::dir::Entries;
use crate::record::state::{Places, State};
use crate::record::{Grown, Names, RecordError};
use crate::spool::SpoolError;
use crate::telemetry::clock;

/// What "stored" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The disk has confirmed it: it survives a loss of power.
    #[default]
    Disk,
    /// The kernel has it: it survives the process.
    Process,
}

/// Why the commit log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another process has it.
    #[error("the state directory of {path} is in use by another process; stop it or choose another --state-dir")]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// It cannot be read or opened.
    #[error("the commit log {path} cannot be used: {source}")]
    Spool {
        /// The log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SpoolError,
    },
    /// An entry that is whole and makes no sense.
    #[error(
        "the commit log cannot be understood: {0}; start the version that wrote it, or move the log away and lose what it holds"
    )]
    Entry(String),
    /// The state it belongs to is gone.
    #[error(
        "the commit log {path} has entries, and {state} beside it is gone; put it back, or move the log away and lose what it holds"
    )]
    NoState {
        /// The log.
        path: PathBuf,
        /// The state.
        state: PathBuf,
    },
    /// Call packets wait for files that are not written now.
    #[error(
        "{batches} acknowledged batches in {path} wait for call files in {wanted}; start once with --per-call-pcap \
         --per-call-pcap-dir {wanted}, or move the log away and lose them"
    )]
    Elsewhere {
        /// The log.
        path: PathBuf,
        /// Where the calls were.
        wanted: PathBuf,
        /// How many.
        batches: u64,
    },
    /// Told to stop first.
    #[error("told to stop before the commit log was read; it stays as it is")]
    Stopped,
    /// No room.
    #[error("the disk of the commit log is full")]
    Full,
    /// What is left of a file could not be written; trying again may help.
    #[error(transparent)]
    Unwritten(RecordError),
    /// It could not be written; trying again may help.
    #[error("the commit log cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The disk did not confirm it.
    #[error("the disk did not confirm the commit log: {0}")]
    Sync(#[source] io::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] RecordError),
}

impl CommitError {
    fn spool(path: &Path, e: SpoolError) -> Self {
        match e {
            SpoolError::InUse { .. } => Self::InUse { path: path.into() },
            source @ (SpoolError::Version { .. } | SpoolError::Foreign { .. } | SpoolError::Io { .. }) => {
                Self::Spool { path: path.into(), source }
            }
        }
    }

    /// Whether the same may work later.
    const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Write(_) | Self::Unwritten(_))
    }
}

/// A batch that is written but not stored.
pub(in crate::processor) struct Pending {
    pub(in crate::processor) batch: Incoming,
    /// Packets of it that no file can take.
    pub(in crate::processor) dropped: u64,
    /// Packets of it that no file is to have: copies, and of calls nobody asked for.
    pub(in crate::processor) left_out: [u64; 2],
}

/// An entry for the log, its body, and how many packets that is.
pub(in crate::processor) struct Logged {
    pub(in crate::processor) entry: Entry,
    pub(in crate::processor) body: Bytes,
    pub(in crate::processor) packets: u64,
}

/// What becomes durable together.
#[derive(Default)]
pub(in crate::processor) struct Group {
    pub(in crate::processor) number: u64,
    pub(in crate::processor) batches: Vec<Pending>,
    /// Hunters that stopped, and before which of the batches.
    pub(in crate::processor) gone: Vec<(usize, Arc<str>)>,
    pub(in crate::processor) entries: Vec<Logged>,
    /// Of call files and records that are made once this is durable.
    pub(in crate::processor) names: Vec<Box<str>>,
    pub(in crate::processor) grown: Vec<(Place, Grown)>,
    pub(in crate::processor) dirs: Vec<Entries>,
    pub(in crate::processor) checkpoint: Option<Checkpoint>,
}

impl Group {
    /// What it was made of, in order.
    pub(in crate::processor) fn into_jobs(self) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(self.batches.len().saturating_add(self.gone.len()));
        let mut gone = self.gone.into_iter().peekable();
        for (at, p) in self.batches.into_iter().enumerate() {
            jobs.extend(
                std::iter::from_fn(|| gone.next_if(|(before, _)| *before <= at)).map(|(_, hunter)| Job::Stopping { hunter }),
            );
            jobs.push(Job::Batch(Box::new(p.batch)));
        }
        jobs.extend(gone.map(|(_, hunter)| Job::Stopping { hunter }));
        jobs
    }
}

/// What a commit thread leaves.
pub(in crate::processor) struct Left {
    /// Received and not stored, in order.
    pub(in crate::processor) jobs: Vec<Job>,
    /// The last entry of the log that is stored.
    confirmed: u64,
    state: PathBuf,
    durability: Durability,
}

impl Left {
    /// Takes away from the log what is not stored. Afterwards [`recover()`] sees what is.
    ///
    /// # Errors
    /// [`CommitError`]: the disk is still not well.
    pub(in crate::processor) fn take_back(&self) -> Result<(), CommitError> {
        log::forget_after(&self.state, self.durability, self.confirmed)
    }
}

/// Everything as it is at the end of a group, or what changed since the last one.
pub(in crate::processor) struct Checkpoint {
    /// Without what the commit thread knows: what is stored, and where the log is.
    pub(in crate::processor) state: State,
    /// Whether only what changed is in it.
    pub(in crate::processor) changes: bool,
    /// Call files and records written to since the last one.
    pub(in crate::processor) files: Vec<Box<str>>,
    pub(in crate::processor) entries: Option<Entries>,
}

/// Work for the commit thread.
pub(in crate::processor) enum Ask {
    Group(Box<Group>),
    Names { place: Place, names: Vec<Box<str>>, ticket: u64 },
    Disowned { place: Place, name: String },
    End,
}

/// What the commit log was found with, for the threads that go on with it.
#[derive(Debug)]
pub struct Commit {
    log: log::Log,
    pub(in crate::processor) durability: Durability,
    pub(in crate::processor) places: Places,
    pub(in crate::processor) again: Again,
    /// The log ends with something that was not stored.
    tail: bool,
    state: PathBuf,
}

/// Takes an entry and its body.
pub(in crate::processor) type Reader<'a> = dyn FnMut(Entry, Bytes) -> Result<(), CommitError> + 'a;

/// Entries to be read again: after the first number, up to the second.
#[derive(Clone, Debug)]
pub(in crate::processor) struct Again {
    state: PathBuf,
    range: Option<(u64, u64)>,
}

impl Again {
    /// Hands over what was stored since the checkpoint, in order, until that says no.
    ///
    /// # Errors
    /// The log cannot be read; what `each` answers.
    pub(in crate::processor) fn read(&self, each: &mut Reader<'_>) -> Result<(), CommitError> {
        let Some((after, through)) = self.range else { return Ok(()) };
        // a group at most: what was not stored is passed over
        let mut group = Vec::new();
        recover::entries(&self.state, after, &mut |seq, entry, body| {
            match entry {
                _ if seq > through => {}
                Entry::Start => group.clear(),
                Entry::Commit { .. } => return group.drain(..).try_for_each(|(entry, body)| each(entry, body)),
                entry @ (Entry::Batch(_) | Entry::Gone(_)) => group.push((entry, body)),
                Entry::Names { .. } | Entry::Disowned { .. } | Entry::Word(_) => {}
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// The record thread's end of the commit thread.
pub(in crate::processor) struct Line {
    pub(in crate::processor) asks: SyncSender<Ask>,
    pub(in crate::processor) progress: Arc<Progress>,
    pub(in crate::processor) again: Again,
    pub(in crate::processor) places: Places,
    /// A checkpoint is due after this much in the log: what a restart reads again at most, but for what comes while it is written.
    pub(in crate::processor) checkpoint_bytes: u64,
}

impl Line {
    /// Who is told of the names of new files.
    pub(in crate::processor) fn announcer(&self, place: Place) -> Arc<dyn Names> {
        Arc::new(Announcer { place, asks: self.asks.clone(), progress: Arc::clone(&self.progress) })
    }
}

/// How far the commit thread is; the record thread looks, or waits.
#[derive(Debug, Default)]
pub(in crate::processor) struct Progress {
    state: Mutex<At>,
    moved: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::processor) struct At {
    /// Groups up to this one are durable.
    pub(in crate::processor) durable: u64,
    /// Checkpoints written, or not to be written.
    pub(in crate::processor) checkpoints: u64,
    /// The next one is to be of everything: one could not be written, or the changes are as long.
    pub(in crate::processor) whole: bool,
    /// Tickets of announcements.
    issued: u64,
    announced: u64,
    /// Nothing will become durable any more.
    pub(in crate::processor) failed: bool,
    pub(in crate::processor) ended: bool,
}

impl Progress {
    pub(in crate::processor) fn at(&self) -> At {
        *self.state.lock()
    }

    fn note(&self, change: impl FnOnce(&mut At)) {
        change(&mut self.state.lock());
        self.moved.notify_all();
    }

    /// Waits until it is so, or never will be.
    pub(in crate::processor) fn wait(&self, so: impl Fn(&At) -> bool) -> At {
        let mut state = self.state.lock();
        while !so(&state) && !state.ended && !state.failed {
            clock::wait(&self.moved, &mut state, Duration::from_secs(1));
        }
        *state
    }

    pub(in crate::processor) fn wait_ended(&self) {
        let mut state = self.state.lock();
        while !state.ended {
            clock::wait(&self.moved, &mut state, Duration::from_secs(1));
        }
    }
}

/// Says the names of new files to the commit thread, and waits until they are in the log.
#[derive(Debug)]
struct Announcer {
    place: Place,
    asks: SyncSender<Ask>,
    progress: Arc<Progress>,
}

impl Names for Announcer {
    fn announce(&self, names: &[Box<str>]) -> Result<(), RecordError> {
        let mut ticket = 0;
        self.progress.note(|at| {
            at.issued = at.issued.saturating_add(1);
            ticket = at.issued;
        });
        // an error says that nobody is there, as waiting does
        let _sent = clock::send(&self.asks, Ask::Names { place: self.place, names: names.to_vec(), ticket });
        if self.progress.wait(|at| at.announced >= ticket).announced >= ticket {
            return Ok(());
        }
        Err(RecordError::log(io::Error::other("it is not written any more")))
    }

    fn disown(&self, name: &str) {
        // where nobody is there, nothing is written any more
        let _sent = clock::send(&self.asks, Ask::Disowned { place: self.place, name: name.to_owned() });
    }
}

#[cfg(test)]
mod tests;
