//! Blocks of a file that another thread writes: whoever fills the next one does not wait for the disk.
//!
//! ```text
//!  whoever encodes    fill ─▶ give ─▶ fill the next one, in memory that came back
//!  whoever syncs                └──▶ write, in order ─▶ the memory goes back
//! ```
//! Promises: blocks are written in the order they were given, each once, whoever writes them; a write that fails leaves its block
//! here and the file as long as it was before, and the next call tries it again; never more than [`WAITING`] blocks beside the one that
//! is filled: whoever gives one too many writes the oldest first.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::RecordError;
use super::block::Block;
use super::direct::Appended;

/// One that is being written and one for afterwards.
const WAITING: usize = 2;

/// A file, and what is to be written to it.
#[derive(Debug)]
pub(super) struct Behind {
    file: Arc<File>,
    /// For errors.
    path: PathBuf,
    /// Held by whoever writes.
    disk: Mutex<Written>,
    /// Never held while anything is written.
    blocks: Mutex<Blocks>,
}

/// What is in the file.
#[derive(Debug)]
struct Written {
    file: Appended,
    /// How long it is: where the next block begins.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Blocks {
    /// Those that are not written, oldest first.
    waiting: VecDeque<Block>,
    /// Given and not written: also the one that is being written.
    unwritten: usize,
    spare: Vec<Vec<u8>>,
}

impl Behind {
    /// For a file of `written` bytes.
    pub(super) fn new(disk: Appended, written: u64, path: PathBuf) -> Self {
        let file = Arc::clone(disk.file());
        Self { file, path, disk: Mutex::new(Written { file: disk, bytes: written }), blocks: Mutex::default() }
    }

    /// The file.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Leaves what is pending in `block` to be written, and that goes on behind it.
    ///
    /// # Errors
    /// The disk's, where too many are left already; `block` is as it was.
    pub(super) fn give(&self, block: &mut Block) -> io::Result<()> {
        if self.is_crowded() {
            let mut disk = self.disk.lock();
            // whoever had it may have made room
            if self.is_crowded() {
                self.write_next(&mut disk, u64::MAX)?;
            }
        }
        let mut blocks = self.blocks.lock();
        let memory = blocks.spare.pop().unwrap_or_default();
        blocks.waiting.push_back(block.split(memory));
        blocks.unwritten = blocks.unwritten.saturating_add(1);
        Ok(())
    }

    fn is_crowded(&self) -> bool {
        self.blocks.lock().unwritten >= WAITING
    }

    /// Writes what belongs to the first `through` bytes of the file.
    ///
    /// # Errors
    /// Retryable ones ([`RecordError::is_retryable`]): nothing is lost, and calling it again is right.
    pub(super) fn write(&self, through: u64) -> Result<(), RecordError> {
        let mut disk = self.disk.lock();
        while self.write_next(&mut disk, through).map_err(|e| RecordError::io("write", &self.path, e))? {}
        Ok(())
    }

    /// Writes the oldest block, if it belongs there; whether it did.
    fn write_next(&self, disk: &mut Written, through: u64) -> io::Result<bool> {
        let next = self.blocks.lock().waiting.pop_front_if(|b| b.written() < through);
        let Some(mut block) = next else { return Ok(false) };
        // a thread that ended while it wrote has taken one with it
        let written = if block.written() == disk.bytes {
            block.flush(&mut disk.file)
        } else {
            Err(io::Error::other("a block before this one is missing"))
        };
        let mut blocks = self.blocks.lock();
        if written.is_err() {
            blocks.waiting.push_front(block);
            return written.map(|()| false);
        }
        disk.bytes = block.written();
        blocks.unwritten = blocks.unwritten.saturating_sub(1);
        blocks.spare.push(block.into_memory());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::dir::{Access, Dir, MinFree};
    use crate::record::fault::{Crash, Witness};
    use proptest::prelude::*;

    /// A file that begins with `before`, and a block behind that.
    fn open(before: &[u8]) -> (tempfile::TempDir, Dir, Behind, Block) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        std::fs::write(dir.join("f"), before).unwrap();
        let mut disk = Appended::new(dir.open_existing("f").unwrap().unwrap());
        assert!(disk.bypass_cache(&dir, "f", 16 << 10));
        let mut block = Block::new(1, before.len() as u64, false);
        block.align(16 << 10, 4096);
        let path = dir.join("f");
        (tmp, dir, Behind::new(disk, before.len() as u64, path), block)
    }

    fn file(dir: &Dir) -> Vec<u8> {
        std::fs::read(dir.join("f")).unwrap()
    }

    #[test]
    fn what_was_given_is_written_in_order_up_to_where_it_is_asked_for_and_its_memory_comes_back() {
        let (_tmp, dir, behind, mut block) = open(b"head");
        block.pending_mut().extend_from_slice(&[1; 5000]);
        let first = block.pending_mut().as_ptr();
        behind.give(&mut block).unwrap();
        block.pending_mut().extend_from_slice(&[2; 5000]);
        behind.give(&mut block).unwrap();
        assert_eq!((file(&dir).len(), block.written(), block.pending()), (4, 10_004, 0));

        behind.write(5004).unwrap();
        assert_eq!(file(&dir).len(), 5004);
        block.pending_mut().extend_from_slice(&[3; 5000]);
        behind.give(&mut block).unwrap();
        behind.write(15_004).unwrap();

        assert_eq!(file(&dir), [&b"head"[..], &[1; 5000], &[2; 5000], &[3; 5000]].concat());
        assert_eq!(block.pending_mut().as_ptr(), first);
    }

    #[test]
    fn whoever_gives_too_many_writes_first() {
        let (_tmp, dir, behind, mut block) = open(b"");

        for n in 1..=10 {
            block.pending_mut().extend_from_slice(&[n; 1000]);
            behind.give(&mut block).unwrap();
            assert!(behind.blocks.lock().waiting.len() <= WAITING);
        }

        let held = |b: &Blocks| b.spare.len() + b.waiting.len();
        assert_eq!(held(&behind.blocks.lock()), WAITING);
        behind.write(u64::MAX).unwrap();
        let want: Vec<u8> = (1..=10).flat_map(|n| [n; 1000]).collect();
        assert_eq!(file(&dir), want);
    }

    #[test]
    fn on_a_full_disk_nothing_is_lost_and_a_block_too_many_is_not_taken() {
        let (_tmp, dir, behind, mut block) = open(b"");
        let crash = Crash::after(u64::MAX, Witness::default());
        crash.enter();
        crash.fill(true);
        for n in 1..=3 {
            block.pending_mut().extend_from_slice(&[n; 1000]);
            assert_eq!(behind.give(&mut block).is_ok(), n < 3, "the third has to write the first");
        }
        assert_eq!((block.written(), block.pending()), (2000, 1000));
        assert!(behind.write(1000).unwrap_err().is_full());
        assert!(file(&dir).is_empty());

        crash.fill(false);
        behind.give(&mut block).unwrap();
        behind.write(u64::MAX).unwrap();

        assert_eq!(file(&dir), [[1; 1000], [2; 1000], [3; 1000]].concat());
    }

    proptest! {
        #[test]
        fn two_threads_and_a_disk_that_is_full_at_times_leave_all_of_it_in_order(
            pieces in prop::collection::vec((1usize..9000, any::<bool>()), 1..40),
        ) {
            let (_tmp, dir, behind, mut block) = open(b"before");
            let crash = Crash::after(u64::MAX, Witness::default());
            crash.enter();
            std::thread::scope(|s| {
                let (tell, told) = std::sync::mpsc::sync_channel(4);
                let (behind, of) = (&behind, &crash);
                s.spawn(move || {
                    of.enter();
                    for through in told {
                        while behind.write(through).is_err() {
                            of.fill(false);
                        }
                    }
                });
                for (n, (len, full)) in pieces.iter().enumerate() {
                    block.pending_mut().extend((0..251).cycle().skip(n).take(*len));
                    crash.fill(*full);
                    while behind.give(&mut block).is_err() {
                        crash.fill(false);
                    }
                    let held = { let b = behind.blocks.lock(); b.unwritten.max(b.waiting.len()) + b.spare.len() };
                    assert!(held <= WAITING, "{held}");
                    tell.send(block.written()).unwrap();
                }
            });
            let all = pieces.iter().enumerate().flat_map(|(n, (len, _))| (0..251).cycle().skip(n).take(*len));
            prop_assert_eq!(file(&dir), b"before".iter().copied().chain(all).collect::<Vec<u8>>());
            prop_assert_eq!(block.written(), std::fs::metadata(dir.join("f")).unwrap().len());
        }
    }
}
