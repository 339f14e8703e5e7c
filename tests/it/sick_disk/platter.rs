//! What a disk holds, and what only the kernel has: files and directories, each as it is seen and as it is after a loss of power.
//!
//! ```text
//! write   ─▶ seen, dirty
//! fsync   ─▶ what is dirty goes from seen to kept                well
//!         ─▶ EIO; what is dirty is so no longer, and not kept    sick: as Linux does it, a later fsync says nothing of it
//! power   ─▶ seen = kept
//! ```
//! A name is kept from the next fsync of its directory on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;

use fuser::Errno;

use crate::numbered::Dice;

/// The directory in which everything is.
pub(super) const ROOT: u64 = 1;
/// Bytes of the file system.
pub(super) const SIZE: u64 = 4 << 30;

/// What it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    #[default]
    Well,
    /// EIO to every fsync.
    NoSync,
    /// EIO to every write, and to every fsync.
    NoWrite,
    /// ENOSPC to every write that makes a file longer, and to every new name.
    Full,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    File(File),
    Dir(Dir),
}

#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) seen: Vec<u8>,
    kept: Vec<u8>,
    dirty: Vec<Range<usize>>,
    /// As short as it was made since the last fsync that was one.
    cut: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Dir {
    pub(super) seen: BTreeMap<OsString, u64>,
    kept: BTreeMap<OsString, u64>,
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct Platter {
    pub(super) nodes: BTreeMap<u64, Node>,
    next: u64,
    pub(super) health: Health,
    /// Calls that were answered with an error.
    pub(super) refused: u64,
}

impl File {
    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        // what lies between the end and a write behind it is zeros that were written
        self.dirty.push(at.min(self.seen.len())..end);
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[at..end].copy_from_slice(data);
    }

    fn resize(&mut self, len: usize) {
        self.cut = Some(self.cut.unwrap_or(usize::MAX).min(len));
        if len > self.seen.len() {
            self.dirty.push(self.seen.len()..len);
        }
        self.seen.resize(len, 0);
        self.dirty.iter_mut().for_each(|d| d.end = d.end.min(len));
        self.dirty.retain(|d| d.start < d.end);
    }

    fn sync(&mut self) {
        self.kept.truncate(self.cut.take().unwrap_or(usize::MAX));
        self.kept.resize(self.seen.len(), 0);
        for dirty in self.dirty.drain(..) {
            self.kept[dirty.clone()].copy_from_slice(&self.seen[dirty]);
        }
    }

    /// Some of what was not confirmed may be there all the same, in any order.
    fn lose(&mut self, dice: &mut Dice) {
        let some = dice.roll(2) == 0;
        for dirty in std::mem::take(&mut self.dirty) {
            if some && dice.roll(2) == 0 {
                self.kept.resize(self.kept.len().max(dirty.end), 0);
                self.kept[dirty.clone()].copy_from_slice(&self.seen[dirty]);
            }
        }
        self.cut = None;
        self.seen.clone_from(&self.kept);
    }
}

impl What {
    fn sync(&mut self) {
        match self {
            Self::File(file) => file.sync(),
            Self::Dir(dir) => dir.kept.clone_from(&dir.seen),
        }
    }
}

impl Platter {
    pub(super) fn new() -> Self {
        let root = Node { mode: 0o700, owner: (0, 0), what: What::Dir(Dir::default()) };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, health: Health::Well, refused: 0 }
    }

    /// Power goes, and comes back: nobody has a file open any more.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        for node in self.nodes.values_mut() {
            match &mut node.what {
                What::File(file) => file.lose(dice),
                What::Dir(dir) => dir.seen.clone_from(&dir.kept),
            }
        }
    }

    pub(super) fn write_back(&mut self) {
        for node in self.nodes.values_mut() {
            node.what.sync();
        }
    }

    pub(super) fn node(&mut self, of: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&of).ok_or(Errno::ENOENT)
    }

    pub(super) fn dir(&mut self, of: u64) -> Result<&mut Dir, Errno> {
        if let What::Dir(dir) = &mut self.node(of)?.what { Ok(dir) } else { Err(Errno::ENOTDIR) }
    }

    pub(super) fn file(&mut self, of: u64) -> Result<&mut File, Errno> {
        if let What::File(file) = &mut self.node(of)?.what { Ok(file) } else { Err(Errno::EISDIR) }
    }

    pub(super) fn find(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.dir(parent)?.seen.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn make(&mut self, parent: u64, name: &OsStr, node: Node) -> Result<u64, Errno> {
        if self.find(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.permit(|h| h == Health::Full, Errno::ENOSPC)?;
        let number = self.next;
        self.next += 1;
        self.dir(parent)?.seen.insert(name.to_owned(), number);
        self.nodes.insert(number, node);
        Ok(number)
    }

    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.dir(parent)?.seen.remove(name).map(|_| ()).ok_or(Errno::ENOENT)
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Result<(), Errno> {
        if !replace && self.find(to.0, to.1).is_ok() {
            return Err(Errno::EEXIST);
        }
        let number = self.find(from.0, from.1)?;
        self.dir(from.0)?.seen.remove(from.1);
        self.dir(to.0)?.seen.insert(to.1.to_owned(), number);
        Ok(())
    }

    pub(super) fn write(&mut self, of: u64, at: u64, data: &[u8]) -> Result<(), Errno> {
        let at = usize::try_from(at).unwrap();
        self.permit(|h| h == Health::NoWrite, Errno::EIO)?;
        let longer = at + data.len() > self.file(of)?.seen.len();
        self.permit(|h| h == Health::Full && longer, Errno::ENOSPC)?;
        self.file(of)?.write(at, data);
        Ok(())
    }

    pub(super) fn resize(&mut self, of: u64, len: u64) -> Result<(), Errno> {
        self.file(of)?.resize(usize::try_from(len).unwrap());
        Ok(())
    }

    pub(super) fn sync(&mut self, of: u64) -> Result<(), Errno> {
        let is_sick = |h| matches!(h, Health::NoSync | Health::NoWrite);
        if is_sick(self.health)
            && let What::File(file) = &mut self.node(of)?.what
        {
            file.dirty.clear();
        }
        self.permit(is_sick, Errno::EIO)?;
        self.node(of)?.what.sync();
        Ok(())
    }

    pub(super) fn free(&self) -> u64 {
        if self.health == Health::Full { 0 } else { SIZE / 2 }
    }

    fn permit(&mut self, refuse: impl Fn(Health) -> bool, with: Errno) -> Result<(), Errno> {
        if !refuse(self.health) {
            return Ok(());
        }
        self.refused += 1;
        Err(with)
    }
}
