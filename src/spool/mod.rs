//! The disk queue: sealed batches that survive a processor that is away and a process that ends.
//!
//! ```text
//! <directory>/LOCK                                   held by the process that uses it
//! <directory>/<epoch, hex>-<first sequence, hex>.seg  records of one epoch, in order; sealed when full or 60 s old
//! <directory>/ack                                    how far each epoch was acknowledged: a hint, may be stale
//! <directory>/state                              what a hunter knew of its packets a moment ago
//! <directory>/quarantine/                            segments that were found damaged, after what was whole in them was read
//!
//! append ─▶ [ newest segment of the epoch ] … [ oldest ] ─▶ next ─▶ (window, network) ─▶ ack ─▶ the segment is removed
//! ```
//!
//! | file | what |
//! |---|---|
//! | `record` | one batch: length, checksum, search for the next whole one |
//! | `segment` | one file: append, read, seal |
//! | [`queue`](Queue) | all of them: bounds, drops, acknowledgement, errors |
//! | `recover` | what an earlier process left |
//! | `confirm` | what was never confirmed goes, what is there is confirmed |
//! | `ack` | the hint |
//! | `beside` | where it goes on when a newer version has left its files |
//! | `state` | what a hunter knew, for the run after a crash |
//! | [`Fs`] | what is asked of a file system |
//!
//! Promises: order within an epoch; what [`Queue::sync`] confirmed is there after a crash, unless it was acknowledged or is counted as lost;
//! every packet that was appended or recovered is read, acknowledged or in exactly one [`Lost`]; bytes on disk stay within
//! [`SpoolConfig::max_bytes`], and the reserve of the file system is left alone; memory does not grow with what is on disk.
//! Refuses: directories of another process, of another hunter or of another format (nothing in them is touched; [`lock`] has a place beside these); records above
//! [`MAX_PAYLOAD`]; sequences that would break the order. Reads no clock and starts no thread.
//!
//! An error of `fsync` is final for what was not durable in that file: it is written again, to a new file, from memory.

mod ack;
mod beside;
mod confirm;
mod fs;
mod queue;
mod record;
mod recover;
mod segment;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

pub use self::beside::{Other, directories, lock, other};
pub use self::confirm::{confirm, forget_after};
#[cfg(test)]
pub(crate) use self::fs::unlocked;
pub use self::fs::{Disk, DiskFile, Fs, FsFile, Space, TOGETHER};
pub use self::queue::{Queue, Stats};
pub use self::record::MAX_PAYLOAD;
pub use self::recover::{Listed, list};
pub use self::state::{LastRun, RunRecord, StateFile, StateRecord};

use crate::batch::{BatchSeq, DroppedRange, Epoch, GRPC_PREFIX};
use crate::record::dir::MinFree;

/// Longest name of a directory made of a hunter's id; `NAME_MAX` is 255.
const NAME_MAX: usize = 200;

/// The directory of a hunter below the spool's: its id, with what does not belong into a file name as `%XX`.
pub fn directory(base: &Path, hunter_id: &str) -> PathBuf {
    let mut name = String::new();
    for (i, byte) in hunter_id.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && i > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    if name.len() > NAME_MAX {
        name = format!("{}-{:08x}", name.get(..NAME_MAX).unwrap_or_default(), crc32c::crc32c(hunter_id.as_bytes()));
    }
    base.join(name)
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('?').to_ascii_uppercase()
}

/// A sealed batch as the spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its batcher.
    pub epoch: Epoch,
    /// Its number there.
    pub seq: BatchSeq,
    /// How many packets it holds; at least 1.
    pub packets: u32,
    /// The gRPC message, its 5-byte prefix included.
    pub bytes: Bytes,
}

impl Item {
    fn payload(&self) -> &[u8] {
        self.bytes.get(GRPC_PREFIX..).unwrap_or_default()
    }

    /// What its record takes.
    fn record_bytes(&self) -> u64 {
        (record::HEADER + self.payload().len()) as u64
    }
}

/// So many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
}

impl Tally {
    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { batches: self.batches.saturating_add(other.batches), packets: self.packets.saturating_add(other.packets) }
    }

    /// What is left without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { batches: self.batches.saturating_sub(other.batches), packets: self.packets.saturating_sub(other.packets) }
    }
}

/// Batches that were in the spool and will never be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Their epoch.
    pub epoch: Epoch,
    /// Which, how many packets, why.
    pub range: DroppedRange,
}

/// What to do when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolFull {
    /// The oldest segment goes: fresh packets matter more.
    #[default]
    DropOldest,
    /// The new batch is refused.
    Refuse,
}

/// How a spool is set up.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Whose batches these are.
    pub hunter_id: String,
    /// Bytes on disk at most, everything included.
    pub max_bytes: u64,
    /// Space of the file system that is left alone.
    pub min_free: MinFree,
    /// What to do when either is used up.
    pub when_full: SpoolFull,
    /// A segment is sealed at this size; bounded by an eighth of `max_bytes`.
    pub segment_bytes: u64,
    /// A batch is durable after this long at most.
    pub sync_after: Duration,
    /// Or after this many bytes.
    pub sync_bytes: u64,
}

/// The time, given by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// On a clock that never jumps.
    pub mono: Duration,
    /// Wall clock, ns since 1970.
    pub wall_ns: i64,
}

/// Why a spool cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool {path} is in use by another process; stop it, or give this hunter another --id or --disk-buffer-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file says it is of a format that is not known here.
    #[error("{name} in the spool has format {version}, which this version cannot read; drain it with the version that wrote it")]
    Version {
        /// The file.
        name: String,
        /// Its format.
        version: u32,
    },
    /// A file says it is another hunter's.
    #[error(
        "{name} in the spool belongs to another hunter than {hunter}; use the id that wrote it, or another --disk-buffer-dir"
    )]
    Foreign {
        /// The file.
        name: String,
        /// Who we are.
        hunter: String,
    },
    /// The file system.
    #[error("cannot {doing} the spool {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The directory, or a file in it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl SpoolError {
    /// What an error of the file system becomes where this was being done to it.
    fn io(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No room within the bounds, or the disk is full.
    #[error("the spool is full")]
    Full,
    /// The file system failed, twice.
    #[error("the spool cannot be written: {0}")]
    Io(#[source] io::Error),
    /// Larger than [`MAX_PAYLOAD`].
    #[error("a batch of {0} bytes is too large for the spool")]
    TooLarge(usize),
    /// Its place in the order is taken.
    #[error("batch {0} would stand in the wrong place")]
    Order(BatchSeq),
}

impl Refused {
    fn io(e: io::Error) -> Self {
        if is_full(&e) { Self::Full } else { Self::Io(e) }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
