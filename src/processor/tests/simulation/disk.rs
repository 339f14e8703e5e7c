//! A hunter's spool on turmoil's file system: what was not synced is lost when the host crashes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use turmoil::fs::shim::std::fs::{self, File, OpenOptions};

use crate::spool::{Fs, FsFile, Space};

const DIR: &str = "/spool";
const ASIDE: &str = "/aside";

/// What a disk is like, and what it was given; it outlives crashes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// A crash is the end of the process: the kernel goes on and writes what it has.
    kernel_goes_on: bool,
    /// It takes nothing more.
    pub(super) full: Cell<bool>,
    /// It does not confirm.
    pub(super) deaf: Cell<bool>,
    files: RefCell<BTreeMap<String, Kept>>,
    /// Removed since names were last confirmed.
    removed: RefCell<BTreeSet<String>>,
}

/// What a file was given.
#[derive(Debug, Default)]
struct Kept {
    /// Records: their number, and where they end.
    records: Vec<(u64, u64)>,
    len: u64,
    synced: u64,
}

impl Facts {
    pub(super) fn new(kernel_goes_on: bool) -> Self {
        Self { kernel_goes_on, ..Self::default() }
    }

    /// Batches that must be there after a crash: by the name of the file, which says the epoch, and their number.
    pub(super) fn must_survive(&self) -> BTreeSet<(u64, u64)> {
        let mut all = BTreeSet::new();
        for (name, kept) in &*self.files.borrow() {
            let Some(epoch) = name.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()) else { continue };
            let safe = if self.kernel_goes_on { u64::MAX } else { kept.synced };
            all.extend(kept.records.iter().filter(|(_, end)| *end <= safe).map(|(seq, _)| (epoch, *seq)));
        }
        all
    }

    /// Its host has crashed.
    pub(super) fn crashed(&self) {
        if self.kernel_goes_on {
            return;
        }
        for kept in self.files.borrow_mut().values_mut() {
            let safe = kept.synced;
            kept.records.retain(|(_, end)| *end <= safe);
            kept.len = safe;
        }
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let one = |(name, k): (&String, &Kept)| format!("{name}: {:?}, {} of {} bytes confirmed\n", k.records, k.synced, k.len);
        self.files.borrow().iter().map(one).collect()
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut Kept)) {
        change(self.files.borrow_mut().entry(name.to_owned()).or_default());
    }
}

/// The disk.
#[derive(Clone, Debug)]
pub(super) struct SpoolDisk(Rc<Facts>);

#[derive(Debug)]
pub(super) struct SpoolFile {
    disk: SpoolDisk,
    name: String,
    file: File,
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn path(name: &str) -> String {
    format!("{DIR}/{name}")
}

impl SpoolDisk {
    pub(super) fn open(facts: &Rc<Facts>) -> io::Result<Self> {
        for dir in [DIR, ASIDE] {
            if !fs::exists(dir) {
                fs::create_dir(dir)?;
                fs::sync_dir(dir)?;
                fs::sync_dir("/")?;
            }
        }
        Ok(Self(Rc::clone(facts)))
    }

    fn opened(&self, name: &str, options: &OpenOptions) -> io::Result<SpoolFile> {
        Ok(SpoolFile { disk: self.clone(), name: name.to_owned(), file: options.open(path(name))? })
    }

    fn names_changed(&self) -> io::Result<()> {
        if self.0.kernel_goes_on { self.sync() } else { Ok(()) }
    }
}

fn lengths(dir: &str) -> io::Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        all.push((entry.file_name().to_str().unwrap_or_default().to_owned(), entry.metadata()?.len()));
    }
    all.sort();
    Ok(all)
}

impl Fs for SpoolDisk {
    type File = SpoolFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        lengths(DIR)
    }

    fn create(&self, name: &str) -> io::Result<SpoolFile> {
        if self.0.full.get() {
            return Err(full());
        }
        // turmoil knows files by their path: what is still to happen to the old one would happen to the new one
        if self.0.removed.borrow().contains(name) {
            self.sync()?;
        }
        let file = self.opened(name, OpenOptions::new().read(true).append(true).create_new(true))?;
        self.0.files.borrow_mut().insert(name.to_owned(), Kept::default());
        self.names_changed()?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<SpoolFile> {
        self.opened(name, OpenOptions::new().read(true).append(true))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.files.borrow_mut().remove(name);
        self.0.removed.borrow_mut().insert(name.to_owned());
        match fs::remove_file(path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.names_changed(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.removed.borrow_mut().clear();
        fs::sync_dir(DIR)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let part = path(&format!("{name}.part"));
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        if self.0.kernel_goes_on {
            file.sync_all()?;
        }
        fs::rename(&part, path(name))?;
        self.names_changed()
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free: if self.0.full.get() { 0 } else { 1 << 39 }, total: 1 << 40 })
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        self.0.files.borrow_mut().remove(name);
        fs::rename(path(name), format!("{ASIDE}/{name}"))?;
        self.names_changed()
    }

    fn quarantined(&self) -> io::Result<Vec<(String, u64)>> {
        lengths(ASIDE)
    }

    fn remove_quarantined(&self, name: &str) -> io::Result<()> {
        fs::remove_file(format!("{ASIDE}/{name}"))
    }
}

impl FsFile for SpoolFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let facts = Rc::clone(&self.disk.0);
        let whole = pieces.concat();
        if facts.full.get() {
            // what fits is written before the disk says so
            let half = whole.get(..whole.len() / 2).unwrap_or_default();
            self.file.write_all(half)?;
            facts.note(&self.name, |k| k.len += half.len() as u64);
            return Err(full());
        }
        self.file.write_all(&whole)?;
        facts.note(&self.name, |k| {
            // a record is two pieces, what else is written one
            for record in pieces.chunks(2) {
                let seq = record.first().filter(|_| record.len() == 2).and_then(|head| head.get(4..12)?.try_into().ok());
                k.len += record.iter().map(|piece| piece.len() as u64).sum::<u64>();
                k.records.extend(seq.map(|seq| (u64::from_le_bytes(seq), k.len)));
            }
        });
        if facts.kernel_goes_on { self.file.sync_all() } else { Ok(()) }
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&self.file, into, at)
    }

    fn end(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.disk.0.note(&self.name, |k| {
            k.records.retain(|(_, end)| *end <= len);
            k.len = len;
            k.synced = k.synced.min(len);
        });
        if self.disk.0.kernel_goes_on { self.file.sync_all() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.disk.0.deaf.get() {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.sync_all()?;
        self.disk.0.note(&self.name, |k| k.synced = k.len);
        Ok(())
    }
}
