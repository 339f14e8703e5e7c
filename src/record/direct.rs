//! Long writes past the page cache: the kernel then neither copies the bytes nor has pages to clean when they are synced.
//!
//! ```text
//!  file    |<--- whole 4 KiB blocks --->|<- rest ->|
//!  write   a long piece: from the last block boundary on, blocks whole        O_DIRECT
//!          what is short, and the rest of a long piece                         as any other write
//! ```
//! Promises: the file is never longer than what was written to it, and is the same as without this; where the file system cannot do
//! it, everything goes the usual way. Both ways see each other's bytes: the kernel cleans and forgets the pages under a direct write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::block::{Disk, before_write};

/// What memory, place and length of a direct write must be a multiple of. Disks have blocks of 512 or 4096 bytes.
const ALIGN: usize = 4096;
/// Bytes per direct write at most.
pub(super) const DIRECT_BYTES: usize = if cfg!(test) { 16 << 10 } else { 512 << 10 };
/// Shorter ones are not worth a wait for the disk.
const DIRECT_FROM: usize = if cfg!(test) { 600 } else { DIRECT_BYTES / 2 };

/// A second way into a file, and the memory it needs.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    memory: Box<[u8]>,
    start: usize,
}

impl Direct {
    /// Over a descriptor opened with `O_DIRECT` and without `O_APPEND`.
    pub(super) fn new(file: File) -> Self {
        let memory = vec![0; DIRECT_BYTES.saturating_add(ALIGN)].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { file, memory, start }
    }

    /// Writes whole blocks of `bytes` at the end of `plain`, the same file; returns how many bytes of them, 0 when it is not worth it.
    fn write(&mut self, plain: &mut File, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() < DIRECT_FROM {
            return Ok(0);
        }
        let end = plain.metadata()?.len();
        // the last block is written again, with what is in it
        let kept = usize::try_from(end % ALIGN as u64).unwrap_or(0);
        let block = end.saturating_sub(kept as u64);
        let Some(memory) = self.memory.get_mut(self.start..self.start.saturating_add(DIRECT_BYTES)) else { return Ok(0) };
        let (head, room) = memory.split_at_mut(kept);
        plain.read_exact_at(head, block)?;
        let taken = bytes.len().min(room.len());
        let (Some(to), Some(from)) = (room.get_mut(..taken), bytes.get(..taken)) else { return Ok(0) };
        to.copy_from_slice(from);
        let whole = (kept + taken) / ALIGN * ALIGN;
        if whole <= kept {
            return Ok(0);
        }
        before_write(plain, bytes)?;
        let written = self.file.write_at(memory.get(..whole).unwrap_or_default(), block)?;
        Ok(written.saturating_sub(kept))
    }
}

/// A file with a second way into it, if it has one.
pub(super) struct Both<'f> {
    pub(super) plain: &'f mut File,
    pub(super) direct: &'f mut Option<Direct>,
}

impl Disk for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(direct) = self.direct {
            match direct.write(self.plain, bytes) {
                Ok(0) => {}
                Ok(written) => return Ok(written),
                Err(e) if e.kind() == io::ErrorKind::StorageFull => return Err(e),
                // a file system without this way says so at the first write; a disk that is at fault says it again below
                Err(e) => {
                    tracing::debug!(error = %e, "no direct writes from here on");
                    *self.direct = None;
                }
            }
        }
        Disk::write(self.plain, bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.plain.cut(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::block::Block;
    use crate::record::dir::{Access, Dir, MinFree};
    use proptest::prelude::*;
    use std::fs;

    /// A file of this content and both ways into it.
    fn open(dir: &Dir, content: &[u8]) -> (File, Option<Direct>) {
        fs::write(dir.join("f"), content).unwrap();
        let plain = dir.open_existing("f").unwrap().unwrap();
        let direct = Direct::new(dir.open_direct("f", &plain).unwrap());
        (plain, Some(direct))
    }

    proptest! {
        #[test]
        fn whatever_is_written_either_way_the_file_is_all_of_it_in_order(
            before in 0usize..10_000,
            pieces in prop::collection::vec(prop_oneof![1usize..700, 1usize..40_000], 1..20),
        ) {
            let tmp = tempfile::tempdir().unwrap();
            let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
            let mut want: Vec<u8> = (0..before).map(|n| (n % 251) as u8).collect();
            let (mut plain, mut direct) = open(&dir, &want);
            let mut block = Block::new(1, want.len() as u64, false);

            for (n, len) in pieces.iter().enumerate() {
                let piece: Vec<u8> = (0..*len).map(|i| ((i + n) % 249) as u8).collect();
                block.pending_mut().extend_from_slice(&piece);
                want.extend_from_slice(&piece);
                block.flush(&mut Both { plain: &mut plain, direct: &mut direct }).unwrap();
                prop_assert_eq!(fs::metadata(dir.join("f")).unwrap().len(), want.len() as u64);
            }

            prop_assert!(direct.is_some());
            prop_assert_eq!(fs::read(dir.join("f")).unwrap(), want);
        }
    }

    #[test]
    fn where_it_is_not_possible_everything_goes_the_usual_way() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let (mut plain, _) = open(&dir, b"before ");
        // a descriptor that refuses to write
        let mut direct = Some(Direct::new(File::open(dir.join("f")).unwrap()));
        let mut block = Block::new(1, 7, false);
        block.pending_mut().extend_from_slice(&[7; 9000]);

        block.flush(&mut Both { plain: &mut plain, direct: &mut direct }).unwrap();

        assert!(direct.is_none());
        assert_eq!(fs::read(dir.join("f")).unwrap().len(), 9007);
    }

    #[test]
    fn another_file_of_the_name_is_not_written_to() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let (plain, _) = open(&dir, b"ours");
        fs::rename(dir.join("f"), dir.join("g")).unwrap();
        fs::write(dir.join("f"), b"theirs").unwrap();

        assert!(dir.open_direct("f", &plain).is_none());
    }
}
