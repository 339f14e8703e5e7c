//! Reading a file ahead, on a thread of its own: what the kernel takes to copy a file costs its reader no time.
//!
//! ```text
//! Ahead::run   file ─read(2)─▶ block ─▶ Ring (full) ─▶ ReadBuffer, parsed where it lies
//!                                 ◀──── Ring (empty) ◀─ block
//! ```
//! Promises: the same bytes in the same order as without it; [`BLOCKS`] blocks of memory, allocated once; it ends with the file, with the
//! first error, or when nobody reads any more.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Bytes of a block.
const BLOCK_BYTES: usize = 256 << 10;
/// Room before a block's bytes, for the beginning of a record that goes on in it.
pub(super) const HEAD_ROOM: usize = 64 << 10;
/// Blocks under way: together they stay in a processor's cache.
const BLOCKS: usize = 8;
/// The reading thread sleeps until this many are empty: a wake-up costs as much as some blocks, and the rest lasts until it is awake.
const WAKE_AT: usize = BLOCKS - 2;

/// A block of a file.
#[derive(Debug)]
pub(super) struct Block {
    /// [`HEAD_ROOM`] bytes of no meaning, then the file's.
    pub(super) bytes: Box<[u8]>,
    /// One past the last byte of the file's.
    pub(super) end: usize,
}

#[derive(Debug, Default)]
struct State {
    full: VecDeque<Block>,
    empty: Vec<Block>,
    /// There are no more blocks than those at hand.
    ended: bool,
    /// Why that is no end of the file; told once.
    broken: Option<io::Error>,
    /// Nobody reads any more.
    left: bool,
}

/// Blocks on their way.
#[derive(Debug, Default)]
pub(super) struct Ring {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

/// The work of the reading thread.
#[derive(Debug)]
pub struct Ahead {
    file: File,
    ring: Arc<Ring>,
}

impl Ahead {
    /// For a file that is read on from where it stands.
    pub(super) fn new(file: File) -> (Self, Taker) {
        let ring = Arc::new(Ring::default());
        let block = || Block { bytes: vec![0; HEAD_ROOM + BLOCK_BYTES].into_boxed_slice(), end: HEAD_ROOM };
        ring.state.lock().empty = (0..BLOCKS).map(|_| block()).collect();
        (Self { file, ring: Arc::clone(&ring) }, Taker { ring })
    }

    /// Reads until the end.
    pub fn run(mut self) {
        while let Some(block) = self.ring.empty() {
            match self.fill(block) {
                Ok(block) if block.end > HEAD_ROOM => self.ring.give(block),
                Ok(_) => return self.ring.end(None),
                Err(e) => return self.ring.end(Some(e)),
            }
        }
    }

    fn fill(&mut self, mut block: Block) -> io::Result<Block> {
        block.end = HEAD_ROOM;
        while let Some(room) = block.bytes.get_mut(block.end..).filter(|room| !room.is_empty()) {
            match self.file.read(room) {
                Ok(0) => break,
                Ok(n) => block.end = block.end.saturating_add(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // what came before the error is handed over first; the next read meets it again
                Err(_) if block.end > HEAD_ROOM => break,
                Err(e) => return Err(e),
            }
        }
        Ok(block)
    }
}

impl Drop for Ahead {
    /// Without a thread, or after a panic of its thread: what is missing is not taken for the end of the file.
    fn drop(&mut self) {
        self.ring.end(Some(io::Error::other("it was not read to its end")));
    }
}

impl Ring {
    fn empty(&self) -> Option<Block> {
        let mut state = self.state.lock();
        if state.empty.is_empty() {
            while state.empty.len() < WAKE_AT && !state.left {
                self.emptied.wait(&mut state);
            }
        }
        if state.left { None } else { state.empty.pop() }
    }

    fn give(&self, block: Block) {
        let mut state = self.state.lock();
        state.full.push_back(block);
        if state.full.len() == 1 {
            self.filled.notify_one();
        }
    }

    fn end(&self, why: Option<io::Error>) {
        let mut state = self.state.lock();
        if !state.ended {
            (state.ended, state.broken) = (true, why);
        }
        self.filled.notify_one();
    }
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Taker {
    ring: Arc<Ring>,
}

impl Taker {
    /// The next block; `None` at the end of the file.
    pub(super) fn take(&self) -> io::Result<Option<Block>> {
        let mut state = self.ring.state.lock();
        loop {
            if let Some(block) = state.full.pop_front() {
                return Ok(Some(block));
            }
            if state.ended {
                return state.broken.take().map_or(Ok(None), Err);
            }
            self.ring.filled.wait(&mut state);
        }
    }

    /// Gives a block back that has been read.
    pub(super) fn give_back(&self, block: Block) {
        let mut state = self.ring.state.lock();
        state.empty.push(block);
        if state.empty.len() == WAKE_AT {
            self.ring.emptied.notify_one();
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.ring.state.lock().left = true;
        self.ring.emptied.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_file_comes_whole_and_in_order_and_then_ends() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let (ahead, taker) = Ahead::new(file);
        let reader = std::thread::spawn(move || ahead.run());

        let mut got = Vec::new();
        while let Some(block) = taker.take().unwrap() {
            got.extend_from_slice(&block.bytes[HEAD_ROOM..block.end]);
            taker.give_back(block);
        }

        assert!(got == bytes);
        assert!(taker.take().unwrap().is_none(), "and stays ended");
        reader.join().unwrap();
    }

    #[test]
    fn it_ends_when_nobody_reads_any_more() {
        let (ahead, taker) = Ahead::new(File::open("/dev/zero").unwrap());
        let reader = std::thread::spawn(move || ahead.run());
        assert!(taker.take().unwrap().is_some());

        drop(taker);

        reader.join().unwrap();
    }

    #[test]
    fn work_that_nobody_does_is_an_error_and_no_end() {
        let (ahead, taker) = Ahead::new(File::open("/dev/zero").unwrap());

        drop(ahead);

        assert!(taker.take().is_err());
    }

    #[test]
    fn an_error_is_told_after_what_came_before_it() {
        let (ahead, taker) = Ahead::new(File::open("/").unwrap());

        ahead.run();

        assert!(taker.take().is_err(), "a directory cannot be read");
        assert!(taker.take().unwrap().is_none());
    }
}
