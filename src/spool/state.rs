//! What a hunter knew of its packets a moment ago, for the process that comes after a crash.
//!
//! ```text
//!  0     3   4     8          16        24        32               40         48    56        60     64
//!  +-----+---+-----+----------+---------+---------+----------------+----------+-----+---------+------+
//!  | LCS | n | CRC | epoch    | time ns | captured | matched       | acked    | seq | at risk | rate |  of each capture thread
//!  | LCS | 3 | CRC | instance | began   | time ns | kernel_dropped | interface_dropped  | 0 …         |  of each run, this one last
//!  +-----+---+-----+----------+---------+---------+----------------+----------+-----+---------+------+
//! ```
//! Little-endian; `n` is 1 in a hunter at work and 2 in one that has stopped; versions that know no 3 read no such file. The CRC32C covers the hunter's id, then the record without the CRC:
//! a file of another hunter is not taken for ours. Figures of the whole process stand in the first record. A record of epoch 0 has at risk
//! what earlier runs left unaccounted.
//!
//! Promises: written over in place, so that a full disk has room for it; what one `write(2)` took survives the process. It is not synced: after a loss
//! of power it may be half a minute old. Refuses: to read anything of which one record is not whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::BufMut;

use super::fs::Disk;
use super::record::take;
use crate::batch::{BatchSeq, Epoch};

/// Its name.
pub(super) const NAME: &str = "state";
/// Bytes of a record.
const RECORD: usize = 64;
/// More capture threads than anybody has.
const RECORDS: usize = 1024;
/// What the byte after the magic says of a record.
const AT_WORK: u8 = 1;
const STOPPED: u8 = 2;
const RUN: u8 = 3;
const MAGIC: [u8; 3] = *b"LCS";

/// One capture thread's figures, and in the first record those of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateRecord {
    /// The thread's batcher; 0 for what earlier runs left.
    pub epoch: u64,
    /// When it was written, ns since 1970.
    pub written_ns: i64,
    /// Packets captured by the thread.
    pub captured: u64,
    /// Packets chosen by it.
    pub matched: u64,
    /// Packets acknowledged to the process.
    pub acked: u64,
    /// The thread's last batch that was on disk, or acknowledged; 0 without one.
    pub seq: BatchSeq,
    /// Packets of the process of which nothing would be known, had it ended then; at most `u32::MAX`.
    pub at_risk: u64,
    /// Packets a second that were chosen of late, or held; at most `u32::MAX`.
    pub rate: u64,
}

impl StateRecord {
    /// The batcher it speaks of; none where it is about earlier runs.
    pub fn batcher(&self) -> Option<Epoch> {
        (self.epoch != 0).then_some(Epoch(self.epoch))
    }
}

/// What one run's kernel and interfaces have lost, for processors that did not hear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// Unique per run.
    pub instance: u64,
    /// When it began, ns since 1970.
    pub began_ns: i64,
    /// When it was written, ns since 1970.
    pub written_ns: i64,
    /// Frames its kernel dropped.
    pub kernel_dropped: u64,
    /// Frames its interfaces dropped.
    pub interface_dropped: u64,
}

/// How the run before this one ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastRun {
    /// There was none, or none that left a word.
    Unknown,
    /// By itself: everything was delivered, kept or counted.
    Stopped,
    /// In the middle of its work; this is what it wrote last.
    Crashed(Vec<StateRecord>),
    /// What it left is torn, damaged or another hunter's.
    Unreadable,
}

/// The file; one thread owns it.
#[derive(Debug)]
pub struct StateFile {
    file: File,
    hunter: Vec<u8>,
    /// Keeps other processes out where no queue does.
    _lock: Option<Disk>,
}

impl StateFile {
    /// Opens the file of this hunter in its directory, and says what the last runs left in it, the oldest first. Nothing is changed in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(disk: &Disk, hunter_id: &str) -> io::Result<(Self, LastRun, Vec<RunRecord>)> {
        let file = disk.in_place(NAME)?;
        let mut bytes = vec![0; RECORD * RECORDS];
        let len = file.read_at(&mut bytes, 0)?;
        bytes.truncate(len);
        let (last, runs) = decode(hunter_id.as_bytes(), &bytes);
        Ok((Self { file, hunter: hunter_id.as_bytes().to_vec(), _lock: None }, last, runs))
    }

    /// The directory is locked for as long as this is open.
    #[must_use]
    pub fn holding(self, disk: Disk) -> Self {
        Self { _lock: Some(disk), ..self }
    }

    /// Writes all records over what was there.
    ///
    /// # Errors
    /// What the system says; what was there may be gone.
    pub fn write(&mut self, records: &[StateRecord], runs: &[RunRecord], stopped: bool) -> io::Result<()> {
        let records = records.iter().map(|r| encode(&self.hunter, r, stopped));
        let runs = runs.iter().map(|r| encode_run(&self.hunter, r));
        let bytes: Vec<u8> = records.chain(runs).take(RECORDS).flatten().collect();
        self.file.write_all_at(&bytes, 0)?;
        // an earlier run may have had more threads
        if self.file.metadata()?.len() > bytes.len() as u64 { self.file.set_len(bytes.len() as u64) } else { Ok(()) }
    }
}

fn checksum(hunter: &[u8], record: &[u8; RECORD]) -> u32 {
    let [a, b, c, d, _, _, _, _, rest @ ..] = record;
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(hunter), &[*a, *b, *c, *d]), rest)
}

fn encode(hunter: &[u8], r: &StateRecord, stopped: bool) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut rest = out.as_mut_slice();
    rest.put_slice(&MAGIC);
    rest.put_u8(if stopped { STOPPED } else { AT_WORK });
    rest.put_u32_le(0);
    rest.put_u64_le(r.epoch);
    rest.put_i64_le(r.written_ns);
    for n in [r.captured, r.matched, r.acked, r.seq.0] {
        rest.put_u64_le(n);
    }
    for n in [r.at_risk, r.rate] {
        rest.put_u32_le(u32::try_from(n).unwrap_or(u32::MAX));
    }
    sum(hunter, out)
}

fn encode_run(hunter: &[u8], r: &RunRecord) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut rest = out.as_mut_slice();
    rest.put_slice(&MAGIC);
    rest.put_u8(RUN);
    rest.put_u32_le(0);
    rest.put_u64_le(r.instance);
    rest.put_i64_le(r.began_ns);
    rest.put_i64_le(r.written_ns);
    rest.put_u64_le(r.kernel_dropped);
    rest.put_u64_le(r.interface_dropped);
    sum(hunter, out)
}

/// Puts the checksum in its place.
fn sum(hunter: &[u8], mut record: [u8; RECORD]) -> [u8; RECORD] {
    let crc = checksum(hunter, &record).to_le_bytes();
    if let Some(place) = record.get_mut(4..8) {
        place.copy_from_slice(&crc);
    }
    record
}

/// One record.
enum Read {
    Thread(bool, StateRecord),
    Run(RunRecord),
}

fn decode(hunter: &[u8], bytes: &[u8]) -> (LastRun, Vec<RunRecord>) {
    if bytes.is_empty() {
        return (LastRun::Unknown, Vec::new());
    }
    let unreadable = (LastRun::Unreadable, Vec::new());
    let (records, []) = bytes.as_chunks::<RECORD>() else { return unreadable };
    let (mut threads, mut runs, mut stopped) = (Vec::new(), Vec::new(), true);
    for record in records {
        match decode_one(hunter, record) {
            Some(Read::Thread(ended, r)) => {
                stopped &= ended;
                threads.push(r);
            }
            Some(Read::Run(r)) => runs.push(r),
            None => return unreadable,
        }
    }
    (if stopped { LastRun::Stopped } else { LastRun::Crashed(threads) }, runs)
}

fn decode_one(hunter: &[u8], record: &[u8; RECORD]) -> Option<Read> {
    let mut rest = record.as_slice();
    let magic: [u8; 3] = take(&mut rest)?;
    let [kind] = take(&mut rest)?;
    let crc = u32::from_le_bytes(take(&mut rest)?);
    if magic != MAGIC || !(AT_WORK..=RUN).contains(&kind) || crc != checksum(hunter, record) {
        return None;
    }
    let mut eight = || take(&mut rest).map(u64::from_le_bytes);
    if kind == RUN {
        let (instance, began_ns, written_ns) = (eight()?, eight()?.cast_signed(), eight()?.cast_signed());
        let (kernel_dropped, interface_dropped) = (eight()?, eight()?);
        return Some(Read::Run(RunRecord { instance, began_ns, written_ns, kernel_dropped, interface_dropped }));
    }
    let (epoch, written_ns) = (eight()?, eight()?.cast_signed());
    let (captured, matched, acked, seq) = (eight()?, eight()?, eight()?, BatchSeq(eight()?));
    let (at_risk, rate) = (u32::from_le_bytes(take(&mut rest)?).into(), u32::from_le_bytes(take(&mut rest)?).into());
    Some(Read::Thread(kind == STOPPED, StateRecord { epoch, written_ns, captured, matched, acked, seq, at_risk, rate }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::unlocked;
    use std::fs;

    fn record(epoch: u64) -> StateRecord {
        StateRecord {
            epoch,
            written_ns: -7,
            captured: u64::MAX,
            matched: 3,
            acked: 2,
            seq: BatchSeq(9),
            at_risk: u64::MAX,
            rate: 17,
        }
    }

    #[test]
    fn what_was_written_last_comes_back_with_how_the_run_ended() {
        let tmp = tempfile::tempdir().unwrap();
        let disk = unlocked(|| Disk::lock(tmp.path())).unwrap();
        let last = || StateFile::open(&disk, "h").unwrap();
        let run = |instance| RunRecord { instance, began_ns: -9, written_ns: 8, kernel_dropped: u64::MAX, interface_dropped: 5 };
        let (mut file, first, none) = last();
        file.write(&[record(1), record(2), record(0)], &[run(6), run(7)], false).unwrap();
        let (_, crashed, runs) = last();
        file.write(&[record(3)], &[], false).unwrap();
        let fewer = last().1;
        file.write(&[record(3)], &[], true).unwrap();
        let stopped = last().1;

        assert_eq!((first, stopped), (LastRun::Unknown, LastRun::Stopped));
        assert_eq!((none, runs), (vec![], vec![run(6), run(7)]));
        let kept = |epoch| StateRecord { at_risk: u32::MAX.into(), ..record(epoch) };
        assert_eq!(crashed, LastRun::Crashed(vec![kept(1), kept(2), kept(0)]));
        assert_eq!(fewer, LastRun::Crashed(vec![kept(3)]));
        assert_eq!(fs::metadata(tmp.path().join(NAME)).unwrap().len(), 64);
    }

    #[test]
    fn a_torn_a_damaged_and_another_hunters_record_are_not_believed() {
        let whole = [encode(b"h", &record(1), false), encode_run(b"h", &RunRecord::default())].concat();
        let decode = |hunter: &[u8], bytes: &[u8]| decode(hunter, bytes).0;

        assert!(matches!(decode(b"h", &whole), LastRun::Crashed(_)));
        assert_eq!(decode(b"g", &whole), LastRun::Unreadable);
        for len in (1..whole.len()).filter(|len| *len != RECORD) {
            assert_eq!(decode(b"h", &whole[..len]), LastRun::Unreadable, "{len}");
        }
        for at in 0..whole.len() {
            let mut one = whole.clone();
            one[at] ^= 0x10;
            assert_eq!(decode(b"h", &one), LastRun::Unreadable, "{at}");
        }
    }
}
