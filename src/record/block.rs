//! Whole records in blocks, on anything that can be appended to and cut.
//!
//! ```text
//! |<------------- written ------------->|<--- pending (memory) --->|
//!  file: always ends at a record's end    whole records, ≤ block, in order
//! ```
//!
//! Promises: the file never keeps part of a record. A write that fails half-way is cut back to `written`, the pending
//! records stay in memory in order, and the next flush writes them again. If even cutting fails, it is done first thing
//! at the next flush.

use std::io;

use sha2::{Digest, Sha256};

/// Something that bytes are appended to.
pub(super) trait Disk {
    /// As `write(2)` on a file opened for appending.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// The same of what `memory` holds from `lead` on; what is before is there to be overwritten.
    fn write_after(&mut self, memory: &mut [u8], lead: usize) -> io::Result<usize> {
        self.write(memory.get(lead..).unwrap_or_default())
    }
    /// Makes it `len` bytes long.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

/// Pending records and how much is in the file.
#[derive(Debug)]
pub(super) struct Block {
    /// After `lead` bytes that are none of them.
    pending: Vec<u8>,
    lead: usize,
    /// Records lie in memory as they will in the file, relative to multiples of this.
    align: Option<usize>,
    size: usize,
    written: u64,
    torn: bool,
    hash: Option<Sha256>,
}

impl Block {
    /// For a file of `written` bytes; flushes are due at `size` bytes. With `hash`, sums what is written from here on.
    pub(super) fn new(size: usize, written: u64, hash: bool) -> Self {
        let hash = hash.then(Sha256::new);
        Self { pending: Vec::new(), lead: 0, align: None, size, written, torn: false, hash }
    }

    /// Flushes are due at so many bytes from here on, and what is then written lies in memory as it will in the file, relative to
    /// multiples of `align`, a power of two: a disk may take it from where it is.
    pub(super) fn align(&mut self, size: usize, align: usize) {
        (self.size, self.align) = (size, Some(align));
        let pending = self.pending.split_off(self.lead);
        self.begin();
        self.pending.extend_from_slice(&pending);
    }

    /// Begins again with nothing pending.
    fn begin(&mut self) {
        self.pending.clear();
        let Some(align) = self.align else { return };
        // never moved, since nothing more goes in before a flush is due
        self.pending.reserve(self.size.saturating_add(2 * align));
        let before = self.written.checked_rem(align as u64).unwrap_or(0);
        self.lead = self.pending.as_ptr().align_offset(align).saturating_add(usize::try_from(before).unwrap_or(0));
        self.pending.resize(self.lead, 0);
    }

    /// Whether `more` bytes would outgrow the block, so that it must be flushed first.
    #[inline]
    pub(super) fn is_due(&self, more: usize) -> bool {
        self.pending() > 0 && self.pending().saturating_add(more) > self.size
    }

    /// Where records are encoded; whole ones only.
    #[inline]
    pub(super) fn pending_mut(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Bytes in memory.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.pending.len().saturating_sub(self.lead)
    }

    /// Bytes in the file, or given away before ([`Self::split`]).
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether the file may be longer than [`Self::written`] because a cut did not succeed yet.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Bytes in the file and in memory.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.written.saturating_add(self.pending() as u64)
    }

    /// SHA-256 in hex of everything written, if it was summed from the first byte.
    pub(super) fn sha256(&self) -> Option<String> {
        self.hash.clone().map(|h| hex(&h.finalize()))
    }

    /// Writes all pending records.
    ///
    /// # Errors
    /// The disk's; nothing pending is lost and the file ends where it ended before.
    pub(super) fn flush(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        if self.torn {
            disk.cut(self.written)?;
            self.torn = false;
        }
        if self.pending() == 0 {
            return Ok(());
        }
        if let Err(e) = write_all(disk, &mut self.pending, self.lead) {
            self.torn = disk.cut(self.written).is_err();
            return Err(e);
        }
        if let Some(h) = &mut self.hash {
            h.update(self.pending.get(self.lead..).unwrap_or_default());
        }
        self.written = self.len();
        self.begin();
        Ok(())
    }

    /// Takes what is pending away, as a block that is written where this one would have been; this one goes on behind it, in `memory`.
    pub(super) fn split(&mut self, memory: Vec<u8>) -> Self {
        let behind =
            Self { pending: memory, lead: 0, align: self.align, size: self.size, written: self.len(), torn: false, hash: None };
        let before = std::mem::replace(self, behind);
        self.begin();
        before
    }

    /// Its memory, for another one.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.pending
    }

    /// Starts over in a new file: `header` goes before what is pending.
    pub(super) fn rehome(&mut self, mut header: Vec<u8>) {
        header.extend_from_slice(self.pending.get(self.lead..).unwrap_or_default());
        *self = Self { pending: header, ..Self::new(self.size, 0, true) };
    }
}

fn write_all(disk: &mut impl Disk, memory: &mut [u8], mut from: usize) -> io::Result<()> {
    while from < memory.len() {
        match disk.write_after(memory, from) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => from = from.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibble = |n: u8| DIGITS.get(usize::from(n)).map_or('?', |d| char::from(*d));
    bytes.iter().flat_map(|b| [nibble(b >> 4), nibble(b & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A disk that does what the script says: `Some(n)` takes at most `n` bytes, `None` is full.
    struct Flaky {
        held: Vec<u8>,
        script: VecDeque<Option<usize>>,
        cut_fails: VecDeque<bool>,
    }

    impl Disk for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let take = self.script.pop_front().unwrap_or(Some(usize::MAX)).ok_or(io::ErrorKind::StorageFull)?;
            let take = take.min(bytes.len());
            self.held.extend_from_slice(&bytes[..take]);
            Ok(take)
        }

        fn cut(&mut self, len: u64) -> io::Result<()> {
            if self.cut_fails.pop_front().unwrap_or(false) {
                return Err(io::ErrorKind::Other.into());
            }
            self.held.truncate(usize::try_from(len).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_short_write_is_cut_back_and_the_records_stay() {
        let mut disk = Flaky { held: Vec::new(), script: [Some(3), None].into(), cut_fails: VecDeque::new() };
        let mut block = Block::new(64, 0, true);
        block.pending_mut().extend_from_slice(b"record");

        let e = block.flush(&mut disk).unwrap_err();

        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
        assert_eq!((disk.held.len(), block.written(), block.pending()), (0, 0, 6));
        block.flush(&mut disk).unwrap();
        assert_eq!(disk.held, b"record");
        assert_eq!(block.sha256().unwrap(), hex(&Sha256::digest(b"record")));
    }

    proptest! {
        #[test]
        fn whatever_the_disk_does_the_file_is_a_prefix_of_whole_records(
            records in prop::collection::vec(1usize..40, 1..60),
            script in prop::collection::vec(prop::option::of(0usize..50), 0..80),
            cut_fails in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let mut disk = Flaky { held: Vec::new(), script: script.into(), cut_fails: cut_fails.into() };
            let mut block = Block::new(64, 0, true);
            let (mut want, mut ends) = (Vec::new(), vec![0]);

            for (i, len) in records.iter().enumerate() {
                for attempt in 0.. {
                    assert!(attempt < 200);
                    if !block.is_due(*len) || block.flush(&mut disk).is_ok() {
                        break;
                    }
                    prop_assert!(block.is_torn() || ends.contains(&disk.held.len()));
                }
                let record = vec![u8::try_from(i).unwrap(); *len];
                block.pending_mut().extend_from_slice(&record);
                want.extend_from_slice(&record);
                ends.push(want.len());
            }
            while block.flush(&mut disk).is_err() {}

            prop_assert_eq!(&disk.held, &want);
            prop_assert_eq!(block.sha256().unwrap(), hex(&Sha256::digest(&want)));
        }
    }
}
