//! Long writes past the page cache: the kernel then neither copies the bytes nor has pages to clean when they are synced.
//!
//! ```text
//!  file    |<--- whole 4 KiB blocks --->|<- rest ->|
//!  write   a long piece: from the last block boundary on, blocks whole        O_DIRECT
//!          what is short, and the rest of a long piece                         as any other write
//! ```
//! A block that lies in memory as it will in the file ([`Block::align`](super::block::Block::align)) is written from there; other bytes are
//! copied first.
//!
//! Promises: the file is never longer than what was written to it, and is the same as without this; where the file system cannot do
//! it, everything goes the usual way. Both ways see each other's bytes: the kernel cleans and forgets the pages under a direct write.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::block::Disk;
use super::dir::Dir;
use super::fault;

/// What memory, place and length of a direct write must be a multiple of. Disks have blocks of 512 or 4096 bytes.
pub(super) const ALIGN: usize = 4096;
/// Shorter writes are not worth a wait for the disk.
const DIRECT_FROM: usize = if cfg!(test) { 600 } else { 256 << 10 };

/// A second way into a file, over a descriptor with `O_DIRECT` and without `O_APPEND`, and the memory it needs.
#[derive(Debug)]
struct Direct {
    file: File,
    /// Bytes per write at most, a multiple of [`ALIGN`].
    most: usize,
    /// Empty until it is needed.
    memory: Box<[u8]>,
}

impl Direct {
    /// Writes whole blocks of these bytes at the end of `plain`, the same file; returns how many bytes of them, 0 when it is not worth it.
    fn write(&mut self, plain: &File, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if length(pieces) < DIRECT_FROM {
            return Ok(0);
        }
        if self.memory.is_empty() {
            self.memory = vec![0; self.most.saturating_add(ALIGN)].into_boxed_slice();
        }
        let start = self.memory.as_ptr().align_offset(ALIGN);
        let (block, kept) = last_block(plain)?;
        let Some(memory) = self.memory.get_mut(start..start.saturating_add(self.most)) else { return Ok(0) };
        let mut taken = kept;
        for piece in pieces {
            let Some(free) = memory.get_mut(taken..) else { break };
            let fits = piece.len().min(free.len());
            if let (Some(to), Some(from)) = (free.get_mut(..fits), piece.get(..fits)) {
                to.copy_from_slice(from);
            }
            taken = taken.saturating_add(fits);
        }
        write_blocks(&self.file, plain, memory.get_mut(..taken).unwrap_or_default(), (block, kept))
    }

    /// The same of what `memory` holds from `lead` on, if that lies there as it will in the file: nothing is copied.
    fn write_in_place(&self, plain: &File, memory: &mut [u8], lead: usize) -> io::Result<usize> {
        if memory.len().saturating_sub(lead) < DIRECT_FROM {
            return Ok(0);
        }
        let (block, kept) = last_block(plain)?;
        match lead.checked_sub(kept).and_then(|start| memory.get_mut(start..)) {
            Some(memory) if memory.as_ptr().align_offset(ALIGN) == 0 => write_blocks(&self.file, plain, memory, (block, kept)),
            Some(_) | None => Ok(0),
        }
    }
}

/// Writes the whole blocks of `memory`. The first goes to `block`, of which `plain` has `kept` bytes already: they are written again.
fn write_blocks(direct: &File, plain: &File, memory: &mut [u8], (block, kept): (u64, usize)) -> io::Result<usize> {
    let whole = memory.len() / ALIGN * ALIGN;
    if whole == 0 {
        return Ok(0);
    }
    plain.read_exact_at(memory.get_mut(..kept).unwrap_or_default(), block)?;
    let written = direct.write_at(memory.get(..whole).unwrap_or_default(), block)?;
    Ok(written.saturating_sub(kept))
}

/// Where the last block of a file begins, and how much of it there is.
fn last_block(plain: &File) -> io::Result<(u64, usize)> {
    let end = plain.metadata()?.len();
    let kept = end % ALIGN as u64;
    Ok((end.saturating_sub(kept), usize::try_from(kept).unwrap_or(0)))
}

/// A file that bytes are appended to, in one way or two.
#[derive(Debug)]
pub(crate) struct Appended {
    file: Arc<File>,
    direct: Option<Direct>,
}

impl Appended {
    /// Over a descriptor opened for appending.
    pub(crate) fn new(file: File) -> Self {
        Self { file: Arc::new(file), direct: None }
    }

    /// The file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// From here on long writes go past the page cache, `most` bytes at once, if the file system can; false where it cannot. That much
    /// memory is taken at the first of them.
    pub(crate) fn bypass_cache(&mut self, dir: &Dir, name: &str, most: usize) -> bool {
        let most = (most / ALIGN).max(1) * ALIGN;
        self.direct = dir.open_direct(name, &self.file).map(|file| Direct { file, most, memory: Box::default() });
        self.direct.is_some()
    }

    /// Writes at the end; returns how many bytes of these.
    pub(crate) fn append(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.fault(pieces)?;
        match self.directly(|direct, plain| direct.write(plain, pieces)) {
            Ok(0) => self.file.write_vectored(pieces),
            written => written,
        }
    }

    /// What the test at hand makes of a write.
    fn fault(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        if fault::has_no_room(&self.file) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(half) = fault::torn(length(pieces)) {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter()).take(half).copied().collect();
            let _gone = self.file.write(&bytes);
            fault::die();
        }
        Ok(())
    }

    /// Tries the direct way; 0 where the usual one is to be taken.
    fn directly(&mut self, write: impl FnOnce(&mut Direct, &File) -> io::Result<usize>) -> io::Result<usize> {
        let Some(direct) = &mut self.direct else { return Ok(0) };
        match write(direct, &self.file) {
            Err(e) if e.kind() != io::ErrorKind::StorageFull => {
                // a file system without this way says so at the first write; a disk that is at fault says it again the usual way
                tracing::debug!(error = %e, "no direct writes from here on");
                self.direct = None;
                Ok(0)
            }
            written => written,
        }
    }

    /// Makes it `len` bytes long.
    pub(crate) fn cut(&self, len: u64) -> io::Result<()> {
        fault::step();
        self.file.set_len(len)?;
        fault::cut(&self.file, len);
        Ok(())
    }
}

impl Disk for Appended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(&[IoSlice::new(bytes)])
    }

    fn write_after(&mut self, memory: &mut [u8], lead: usize) -> io::Result<usize> {
        let bytes = memory.get(lead..).unwrap_or_default();
        self.fault(&[IoSlice::new(bytes)])?;
        match self.directly(|direct, plain| direct.write_in_place(plain, memory, lead)) {
            Ok(0) => self.file.write(memory.get(lead..).unwrap_or_default()),
            written => written,
        }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        Self::cut(self, len)
    }
}

fn length(pieces: &[IoSlice<'_>]) -> usize {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::block::Block;
    use crate::record::dir::{Access, MinFree};
    use proptest::prelude::*;
    use std::fs;

    /// A file of this content.
    fn open(dir: &Dir, content: &[u8]) -> Appended {
        fs::write(dir.join("f"), content).unwrap();
        Appended::new(dir.open_existing("f").unwrap().unwrap())
    }

    fn directory() -> (tempfile::TempDir, Dir) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        (tmp, dir)
    }

    /// Writes at the end, which is at `end`: from a block, or what lies anywhere.
    fn write(file: &mut Appended, end: u64, mut bytes: &[u8], in_place: bool) {
        if in_place {
            let mut block = Block::new(1, end, false);
            block.align(16 << 10, ALIGN);
            block.pending_mut().extend_from_slice(bytes);
            return block.flush(file).unwrap();
        }
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            let n = file.append(&[IoSlice::new(head), IoSlice::new(tail)]).unwrap();
            bytes = &bytes[n..];
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_either_way_the_file_is_all_of_it_in_order(
            before in 0usize..10_000,
            pieces in prop::collection::vec((prop_oneof![1usize..700, 1usize..40_000], any::<bool>()), 1..20),
        ) {
            let (_tmp, dir) = directory();
            let mut want: Vec<u8> = (0..251).cycle().take(before).collect();
            let mut file = open(&dir, &want);
            prop_assert!(file.bypass_cache(&dir, "f", 16 << 10));

            for (n, (len, in_place)) in pieces.iter().enumerate() {
                let piece: Vec<u8> = (0..249).cycle().skip(n).take(*len).collect();
                write(&mut file, want.len() as u64, &piece, *in_place);
                want.extend_from_slice(&piece);
                prop_assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), want.len() as u64);
            }

            prop_assert!(file.direct.is_some());
            prop_assert_eq!(fs::read(dir.join("f")).unwrap(), want);
        }
    }

    #[test]
    fn where_it_is_not_possible_everything_goes_the_usual_way() {
        for in_place in [true, false] {
            let (_tmp, dir) = directory();
            let mut file = open(&dir, b"before ");
            // a descriptor that refuses to write
            file.direct = Some(Direct { file: File::open(dir.join("f")).unwrap(), most: 16 << 10, memory: Box::default() });

            write(&mut file, 7, &[7; 9000], in_place);

            assert!(file.direct.is_none());
            assert_eq!(fs::read(dir.join("f")).unwrap().len(), 9007);
        }
    }

    #[test]
    fn a_block_is_written_from_where_it_lies_and_the_next_goes_on_behind_it() {
        let (_tmp, dir) = directory();
        let mut file = open(&dir, b"before ");
        assert!(file.bypass_cache(&dir, "f", 16 << 10));
        let mut block = Block::new(1, 7, false);
        block.pending_mut().extend_from_slice(b"pending ");
        block.align(16 << 10, ALIGN);
        let memory = block.pending_mut().as_ptr();

        for _ in 0..3 {
            block.pending_mut().extend_from_slice(&[7; 9000]);
            block.flush(&mut file).unwrap();
        }

        assert_eq!(block.pending_mut().as_ptr(), memory);
        assert!(file.direct.unwrap().memory.is_empty(), "nothing was copied");
        let written = fs::read(dir.join("f")).unwrap();
        assert_eq!((&written[..15], written.len()), (&b"before pending "[..], 15 + 3 * 9000));
    }

    #[test]
    fn whole_disk_blocks_take_the_direct_way_and_the_rest_the_usual_one() {
        let (_tmp, dir) = directory();
        let mut file = open(&dir, b"before ");
        // a second file in place of the same: it shows what went which way
        fs::write(dir.join("g"), b"").unwrap();
        let other = dir.open_existing("g").unwrap().unwrap();
        file.direct = Some(Direct { file: dir.open_direct("g", &other).unwrap(), most: 16 << 10, memory: Box::default() });
        let mut block = Block::new(1, 7, false);
        block.align(16 << 10, ALIGN);
        block.pending_mut().extend_from_slice(&[7; 9000]);

        block.flush(&mut file).unwrap();

        let direct = fs::read(dir.join("g")).unwrap();
        assert_eq!((&direct[..8], direct.len()), (&b"before \x07"[..], 2 * ALIGN));
        assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), 7 + 9007 - 2 * ALIGN as u64);
    }

    #[test]
    fn another_file_of_the_name_is_not_written_to() {
        let (_tmp, dir) = directory();
        let mut file = open(&dir, b"ours");
        fs::rename(dir.join("f"), dir.join("g")).unwrap();
        fs::write(dir.join("f"), b"theirs").unwrap();

        assert!(!file.bypass_cache(&dir, "f", 16 << 10));
    }
}
