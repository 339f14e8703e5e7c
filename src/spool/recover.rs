//! What an earlier process left: headers, footers, and a look through the segments that were never sealed.
//!
//! Nothing is changed while looking. Memory does not grow with what is on disk; time does only with unsealed segments.

use std::io;
use std::ops::RangeInclusive;

use super::fs::{Fs, FsFile, read_full};
use super::record::{self, FOOTER};
use super::segment::{Head, Key, SEGMENT_HEADER, Segment, Step, decode_head, hunter_mark};
use super::{Item, Lost, SpoolError, Tally};
use crate::batch::{BatchSeq, Epoch};

/// The segments of a directory, in order of epoch and sequence, and names of files that hold nothing.
pub(super) struct Loaded<F> {
    pub(super) segments: Vec<Segment<F>>,
    pub(super) empty: Vec<String>,
}

/// Reads a directory; `hunter` is checked where it is given.
pub(super) fn load<S: Fs>(fs: &S, hunter: Option<&str>) -> Result<Loaded<S::File>, SpoolError> {
    let files = fs.list().map_err(SpoolError::io("list", "directory"))?;
    let mut keys: Vec<(Key, u64)> = files.iter().filter_map(|(name, len)| Some((Key::of_name(name)?, *len))).collect();
    keys.sort_unstable();
    let mut loaded = Loaded { segments: Vec::new(), empty: Vec::new() };
    // from the last to the first, since a segment ends where the next begins
    let mut next: Option<Key> = None;
    for (key, len) in keys.into_iter().rev() {
        let name = key.to_string();
        let limit = next.filter(|n| n.epoch == key.epoch).map_or(u64::MAX, |n| n.first.0);
        let file = fs.open(&name).map_err(SpoolError::io("open", &name))?;
        let found = look(&file, key, len, limit, hunter).map_err(SpoolError::io("read", &name))?;
        match found {
            Looked::Segment(segment) => {
                next = Some(key);
                loaded.segments.push(*segment);
            }
            Looked::Empty => loaded.empty.push(name),
            Looked::Version(version) => return Err(SpoolError::Version { name, version }),
            Looked::Foreign => return Err(SpoolError::Foreign { name, hunter: hunter.unwrap_or_default().to_owned() }),
        }
    }
    loaded.segments.reverse();
    Ok(loaded)
}

enum Looked<F> {
    Segment(Box<Segment<F>>),
    Empty,
    Version(u32),
    Foreign,
}

fn look<F: FsFile>(file: &F, key: Key, len: u64, limit: u64, hunter: Option<&str>) -> io::Result<Looked<F>> {
    let mut head = [0; SEGMENT_HEADER];
    if !read_full(file, 0, &mut head)? {
        return Ok(Looked::Empty);
    }
    let (created_ns, damaged) = match decode_head(key, &head) {
        Head::Known { hunter: mark, .. } if hunter.is_some_and(|id| hunter_mark(id) != mark) => return Ok(Looked::Foreign),
        Head::Known { created_ns, .. } => (created_ns, false),
        Head::Version(version) => return Ok(Looked::Version(version)),
        Head::Damaged => (0, true),
    };
    let (last, total, end) = match footer(file, key, len)? {
        Some((last, total)) if last.0 < limit => (last, total, len.saturating_sub(FOOTER as u64)),
        Some(_) | None => {
            let found = scan(file, key, len, limit)?;
            let torn = len.saturating_sub(found.2);
            if torn > 0 {
                tracing::warn!(
                    file = %key,
                    bytes = torn,
                    "a segment of the spool ends in the middle of a batch: a crash leaves that, or somebody cut it; its end is given up"
                );
            }
            found
        }
    };
    if total.packets == 0 {
        return Ok(Looked::Empty);
    }
    let mut segment = Segment::found(key, created_ns, last, total, end, len);
    segment.damaged = damaged;
    Ok(Looked::Segment(Box::new(segment)))
}

fn footer<F: FsFile>(file: &F, key: Key, len: u64) -> io::Result<Option<(BatchSeq, Tally)>> {
    let mut bytes = [0; FOOTER];
    let Some(at) = len.checked_sub(FOOTER as u64) else { return Ok(None) };
    let whole = read_full(file, at, &mut bytes)?;
    Ok(record::decode_footer(key, &bytes).filter(|_| whole))
}

/// Reads a segment without a footer through: the last sequence, what is in it, and where its last whole record ends.
fn scan<F: FsFile>(file: &F, key: Key, len: u64, limit: u64) -> io::Result<(BatchSeq, Tally, u64)> {
    let (mut last, mut total, mut end) = (key.first.0.saturating_sub(1), Tally::default(), SEGMENT_HEADER as u64);
    loop {
        let seqs: RangeInclusive<u64> = last.saturating_add(1)..=limit.saturating_sub(1);
        let found = match record::read(file, key, end, len, &seqs)? {
            Some(found) => Some(found),
            None => record::search(file, key, end.saturating_add(1), len, &seqs)?.map(|(_, found)| found),
        };
        // a torn tail is what a crash leaves: it was never confirmed
        let Some(found) = found else { return Ok((BatchSeq(last), total, end)) };
        last = found.item.seq.0;
        total.batches = total.batches.saturating_add(1);
        total.packets = u64::from(found.header.before).saturating_add(u64::from(found.header.packets));
        end = found.end;
    }
}

/// One segment, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its file.
    pub name: String,
    /// Whose batches.
    pub epoch: Epoch,
    /// First and last sequence.
    pub seqs: (BatchSeq, BatchSeq),
    /// When it was created, ns since 1970; 0 when that cannot be read.
    pub created_ns: i64,
    /// Bytes on disk.
    pub bytes: u64,
    /// What is in it.
    pub total: Tally,
    /// What is damaged, after it was read through; empty before.
    pub lost: Vec<Lost>,
}

/// Looks at a directory without changing it; `each` is given every batch, in order, when `read` says so.
///
/// # Errors
/// [`SpoolError`], and what `each` says.
pub fn list<S: Fs, E: From<SpoolError>>(
    fs: &S,
    read: bool,
    mut each: impl FnMut(Item) -> Result<(), E>,
) -> Result<Vec<Listed>, E> {
    let mut out = Vec::new();
    for mut segment in load(fs, None)?.segments {
        let mut listed = Listed {
            name: segment.key.to_string(),
            epoch: segment.key.epoch,
            seqs: (segment.key.first, segment.last),
            created_ns: segment.created_ns,
            bytes: segment.disk_bytes,
            total: segment.total,
            lost: Vec::new(),
        };
        if read {
            loop {
                match segment.next(fs) {
                    Step::Batch(item) => each(item)?,
                    Step::Hole(range) => listed.lost.push(Lost { epoch: segment.key.epoch, range }),
                    Step::End => break,
                }
            }
        }
        out.push(listed);
    }
    Ok(out)
}
