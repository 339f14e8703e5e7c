//! A file system in memory that loses what was not synced, tears, flips bits and reports errors, as real ones do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::spool::{Fs, FsFile, Space};

/// Written whole or not at all, if at all; small, so that small records span several.
const SECTOR: usize = 64;

/// What goes wrong the next time.
#[expect(clippy::struct_excessive_bools, reason = "independent faults")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A write fails after this many bytes; whether the disk is full.
    pub(super) write: Option<(usize, bool)>,
    /// Writes that go well before.
    pub(super) well: usize,
    pub(super) sync: bool,
    pub(super) dir_sync: bool,
    pub(super) create: bool,
    pub(super) cut: bool,
    pub(super) read: bool,
    pub(super) remove: bool,
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Ranges the kernel believes it wrote.
    forgotten: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Unlink(String),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    small: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    aside: BTreeMap<String, u64>,
    faults: Faults,
    free: u64,
    /// Something could not be removed or cut, or came back: sizes are no longer what the queue thinks.
    untidy: bool,
}

#[derive(Clone, Debug)]
pub(super) struct ModelFs(Rc<RefCell<State>>);

#[derive(Debug)]
pub(super) struct ModelFile {
    fs: ModelFs,
    inode: usize,
}

/// Small and good enough.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { usize::try_from(self.next()).unwrap() % n }
    }

    fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl ModelFs {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(State { free: 1 << 40, ..State::default() })))
    }

    pub(super) fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.borrow_mut().faults);
    }

    pub(super) fn set_free(&self, free: u64) {
        self.0.borrow_mut().free = free;
    }

    pub(super) fn is_tidy(&self) -> bool {
        !self.0.borrow().untidy
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    pub(super) fn len(&self, name: &str) -> usize {
        let state = self.0.borrow();
        state.inodes[state.names[name]].live.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        let state = self.0.borrow();
        let files: usize = state.names.values().map(|i| state.inodes[*i].live.len()).sum();
        files as u64 + state.aside.values().sum::<u64>()
    }

    /// Changes one byte where it lies, now and for ever.
    pub(super) fn flip(&self, name: &str, at: usize, bits: u8) {
        let mut state = self.0.borrow_mut();
        let inode = state.names[name];
        for bytes in {
            let Inode { live, durable, .. } = &mut state.inodes[inode];
            [live, durable]
        } {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits.max(1);
            }
        }
    }

    /// Power loss: what was not synced is there, is not, or is there in part; so are names.
    pub(super) fn crash(&self, seed: u64) {
        let mut random = Random::new(seed);
        let state = &mut *self.0.borrow_mut();
        for inode in &mut state.inodes {
            inode.crash(&mut random);
        }
        let mut names = std::mem::take(&mut state.durable_names);
        for change in std::mem::take(&mut state.changes) {
            if random.coin() {
                match change {
                    Change::Link(name, inode) => drop(names.insert(name, inode)),
                    Change::Unlink(name) => drop(names.remove(&name)),
                }
            } else {
                state.untidy = true;
            }
        }
        for (old, new) in state.small.values_mut() {
            *new = match random.below(4) {
                0 => Vec::new(),
                1 => new[..random.below(new.len())].to_vec(),
                2 => old.clone(),
                _ => new.clone(),
            };
            old.clone_from(new);
        }
        state.durable_names.clone_from(&names);
        state.names = names;
        state.faults = Faults::default();
        state.free = 1 << 40;
    }
}

impl Inode {
    fn crash(&mut self, random: &mut Random) {
        let kept = self.durable.len().min(self.live.len());
        let mut after = self.durable.clone();
        if self.durable.len() > self.live.len() && random.coin() {
            after.truncate(self.live.len());
        }
        // the file may have become longer before its bytes were written, and sectors are written in any order
        let longer = kept + random.below(self.live.len() - kept + 1);
        after.resize(after.len().max(longer), 0);
        let mut start = kept;
        while start < longer {
            let end = ((start / SECTOR + 1) * SECTOR).min(longer);
            match random.below(4) {
                0 => {}
                1 => {
                    let torn = start + random.below(end - start);
                    after[start..torn].copy_from_slice(&self.live[start..torn]);
                }
                _ => after[start..end].copy_from_slice(&self.live[start..end]),
            }
            start = end;
        }
        for (from, to) in std::mem::take(&mut self.forgotten) {
            for byte in after.iter_mut().take(to).skip(from) {
                *byte = 0;
            }
        }
        self.live.clone_from(&after);
        self.durable = after;
    }
}

impl Fs for ModelFs {
    type File = ModelFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.borrow();
        Ok(state.names.iter().map(|(name, i)| (name.clone(), state.inodes[*i].live.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<ModelFile> {
        let state = &mut *self.0.borrow_mut();
        if std::mem::take(&mut state.faults.create) {
            return Err(broken());
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.changes.push(Change::Link(name.to_owned(), inode));
        Ok(ModelFile { fs: self.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<ModelFile> {
        let state = self.0.borrow();
        let inode = state.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(ModelFile { fs: self.clone(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if std::mem::take(&mut state.faults.remove) {
            state.untidy = true;
            return Err(broken());
        }
        state.names.remove(name);
        state.changes.push(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if std::mem::take(&mut state.faults.dir_sync) {
            return Err(broken());
        }
        state.changes.clear();
        state.durable_names.clone_from(&state.names);
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        let (_, new) = state.small.entry(name.to_owned()).or_default();
        *new = bytes.to_vec();
        Ok(())
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().small.get(name).map(|(_, new)| new.clone()))
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: self.0.borrow().free, total: 1 << 40 })
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        let len = self.len(name) as u64;
        self.remove(name)?;
        self.0.borrow_mut().aside.insert(name.to_owned(), len);
        Ok(())
    }

    fn quarantined(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.0.borrow().aside.clone().into_iter().collect())
    }

    fn remove_quarantined(&self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().aside.remove(name);
        Ok(())
    }
}

impl FsFile for ModelFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let state = &mut *self.fs.0.borrow_mut();
        let fault = if state.faults.well == 0 { state.faults.write.take() } else { None };
        state.faults.well = state.faults.well.saturating_sub(1);
        let live = &mut state.inodes[self.inode].live;
        let whole = pieces.concat();
        if let Some((after, is_full)) = fault {
            // the kernel never writes all and then says no
            live.extend_from_slice(&whole[..after.min(whole.len() - 1)]);
            return Err(if is_full { full() } else { broken() });
        }
        live.extend_from_slice(&whole);
        Ok(())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.fs.0.borrow_mut();
        if std::mem::take(&mut state.faults.read) {
            return Err(broken());
        }
        let live = &state.inodes[self.inode].live;
        let rest = live.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn end(&self) -> io::Result<u64> {
        Ok(self.fs.0.borrow().inodes[self.inode].live.len() as u64)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let state = &mut *self.fs.0.borrow_mut();
        if std::mem::take(&mut state.faults.cut) {
            state.untidy = true;
            return Err(broken());
        }
        state.inodes[self.inode].live.truncate(usize::try_from(len).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let state = &mut *self.fs.0.borrow_mut();
        let failed = std::mem::take(&mut state.faults.sync);
        let inode = &mut state.inodes[self.inode];
        if failed {
            // the pages count as clean from here on: no later sync writes them
            inode.forgotten.push((inode.durable.len().min(inode.live.len()), inode.live.len()));
            return Err(broken());
        }
        inode.durable.clone_from(&inode.live);
        Ok(())
    }
}
