//! What is done to a directory that nobody writes to: what was never confirmed is taken away, what is there is confirmed.

use std::io;

use super::fs::{Fs, FsFile};
use super::segment::{Segment, Step};
use super::{SpoolError, recover};
use crate::batch::{BatchSeq, Epoch};

/// Removes every batch of `epoch` behind `seq`, durably. After an error of `fsync` nobody knows what the disk has of them; whoever
/// goes on writes them again.
///
/// # Errors
/// What the system says; then some of them may be gone, and the same may be tried again.
pub fn forget_after<S: Fs>(fs: &S, epoch: Epoch, seq: BatchSeq) -> Result<(), SpoolError> {
    let mut segments = recover::load(fs, None)?.segments;
    segments.retain(|s| s.key.epoch == epoch);
    let kept = segments.iter().rposition(|s| s.key.first <= seq);
    for (n, segment) in segments.iter_mut().enumerate() {
        let name = segment.key.to_string();
        if segment.key.first > seq {
            fs.remove(&name).map_err(SpoolError::io("remove", &name))?;
        } else if segment.last > seq || kept == Some(n) {
            // the last one always: an earlier attempt may have cut it, and not heard that the disk knows
            let end = end_of(segment, fs, seq);
            cut(fs, &name, end).map_err(SpoolError::io("cut", &name))?;
        }
    }
    fs.sync().map_err(SpoolError::io("sync", "directory"))
}

fn cut<S: Fs>(fs: &S, name: &str, end: u64) -> io::Result<()> {
    let mut file = fs.open(name)?;
    file.cut(end)?;
    file.sync()
}

/// Where the last record up to `seq` ends.
fn end_of<S: Fs>(segment: &mut Segment<S::File>, fs: &S, seq: BatchSeq) -> u64 {
    loop {
        let end = segment.read_to();
        match segment.next(fs) {
            Step::Batch(item) if item.seq > seq => return end,
            Step::Batch(_) | Step::Hole(_) => {}
            Step::End => return end,
        }
    }
}

/// Makes durable what an earlier process left: the kernel may have it, and the disk not yet.
///
/// # Errors
/// What the system says.
pub fn confirm<S: Fs>(fs: &S) -> Result<(), SpoolError> {
    for (name, _) in fs.list().map_err(SpoolError::io("list", "directory"))? {
        if super::segment::Key::of_name(&name).is_some() {
            let mut file = fs.open(&name).map_err(SpoolError::io("open", &name))?;
            file.sync().map_err(SpoolError::io("sync", &name))?;
        }
    }
    fs.sync().map_err(SpoolError::io("sync", "directory"))
}
