//! What the spool needs of a file system, as a trait: tests run the same code on one that fails, tears and forgets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use super::SpoolError;
use crate::record::RecordError;
use crate::record::dir::{Access, Dir, MinFree, sync_data};
use crate::record::direct::Appended;

/// Where damaged segments go.
const QUARANTINE: &str = "quarantine";
/// Bytes that are written at once, where so many wait.
pub const TOGETHER: usize = 512 << 10;
/// Held while a process uses the directory.
const LOCK: &str = "LOCK";

/// One directory.
pub trait Fs {
    /// An open file of it.
    type File: FsFile;

    /// Names and lengths of the plain files.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Creates a file that must not exist.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file that must exist.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Removes a file; nothing when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// Replaces a small file whole; durable only by chance.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Reads a small file.
    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Free and total bytes.
    fn space(&self) -> io::Result<Space>;
    /// Puts a damaged file aside.
    fn quarantine(&self, name: &str) -> io::Result<()>;
    /// Files put aside.
    fn quarantined(&self) -> io::Result<Vec<(String, u64)>>;
    /// Removes a file put aside.
    fn remove_quarantined(&self, name: &str) -> io::Result<()>;
}

/// One file.
pub trait FsFile {
    /// Writes all pieces at the end. On an error some of the bytes may be there.
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()>;
    /// Reads; fewer bytes than asked for only at the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Where it ends.
    fn end(&self) -> io::Result<u64>;
    /// Shortens it.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// Makes its bytes durable. An error is final for what was not durable before: the kernel forgets which pages it could not write.
    fn sync(&mut self) -> io::Result<()>;
}

/// Room on the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes free for us.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Fills `into`; false when the file ends before.
pub(super) fn read_full<F: FsFile>(file: &F, at: u64, into: &mut [u8]) -> io::Result<bool> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(at.saturating_add(done as u64), rest) {
            Ok(0) => return Ok(false),
            Ok(n) => done = done.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// A real directory.
#[derive(Debug)]
pub struct Disk {
    dir: Dir,
    aside: PathBuf,
    /// Whether a sync is one.
    durable: bool,
    /// Keeps other processes out for as long as it is open.
    _lock: Option<File>,
}

impl Disk {
    /// Opens `path`, creating it (0700) where it is missing, for this process alone.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] when another process has it; what the system says.
    pub fn lock(path: &Path) -> Result<Self, SpoolError> {
        let io = |doing, source| SpoolError::Io { doing, path: path.into(), source };
        let disk = Self::open(path)?;
        let lock =
            match disk.dir.create_new(LOCK).and_then(|new| new.map_or_else(|| disk.dir.open_existing(LOCK), |f| Ok(Some(f)))) {
                Ok(Some(file)) => file,
                Ok(None) => return Err(io("lock", io::Error::other("somebody else removes files there"))),
                Err(e) => return Err(io("lock", plain(e))),
            };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: Some(lock), ..disk }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::InUse { path: path.into() }),
            Err(e) => Err(io("lock", e.into())),
        }
    }

    /// Never waits for the disk: what `write(2)` took survives the process, not a loss of power.
    #[must_use]
    pub fn volatile(self) -> Self {
        Self { durable: false, ..self }
    }

    /// Opens an existing directory to look at, also one in use. The caller changes nothing in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn look(path: &Path) -> Result<Self, SpoolError> {
        fs::metadata(path).map_err(|source| SpoolError::Io { doing: "open", path: path.into(), source })?;
        Self::open(path)
    }

    fn open(path: &Path) -> Result<Self, SpoolError> {
        let dir = Dir::open(path, Access::Private, MinFree::NONE).map_err(|e| SpoolError::Io {
            doing: "open",
            path: path.into(),
            source: plain(e),
        })?;
        Ok(Self { aside: dir.join(QUARANTINE), dir, durable: true, _lock: None })
    }

    /// A small file that is written over in place; made where it is missing.
    pub(super) fn in_place(&self, name: &str) -> io::Result<File> {
        let file = match self.dir.open_existing(name).map_err(plain)? {
            Some(file) => file,
            None => self.dir.create_new(name).map_err(plain)?.ok_or(io::ErrorKind::AlreadyExists)?,
        };
        // what a file appends goes behind its end, whatever place is named (open(2))
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        Ok(file)
    }

    /// The directory of the damaged segments that were put aside, to look at; none where there never was one.
    ///
    /// # Errors
    /// What the system says.
    pub fn put_aside(&self) -> Result<Option<Self>, SpoolError> {
        self.aside.is_dir().then(|| Self::look(&self.aside)).transpose()
    }

    fn aside(&self) -> io::Result<Dir> {
        Dir::open(&self.aside, Access::Private, MinFree::NONE).map_err(plain)
    }
}

/// What the system said, without the words for capture files.
fn plain(e: RecordError) -> io::Error {
    if let RecordError::Io { source, .. } = e {
        return source;
    }
    let kind = if e.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::PermissionDenied };
    io::Error::new(kind, e.to_string())
}

fn lengths(dir: &Dir) -> io::Result<Vec<(String, u64)>> {
    let files = dir.files(|_| true).map_err(plain)?;
    Ok(files.into_iter().map(|(name, meta)| (name, meta.len())).collect())
}

impl Fs for Disk {
    type File = DiskFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        lengths(&self.dir)
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        let file = self.dir.create_new(name).map_err(plain)?.ok_or(io::ErrorKind::AlreadyExists)?;
        let mut file = Appended::new(file);
        if self.durable {
            file.bypass_cache(&self.dir, name, TOGETHER);
        }
        Ok(DiskFile { file, durable: self.durable })
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        let file = self.dir.open_existing(name).map_err(plain)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(DiskFile { file: Appended::new(file), durable: self.durable })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name).map_err(plain)
    }

    fn sync(&self) -> io::Result<()> {
        if self.durable { self.dir.sync().map_err(plain) } else { Ok(()) }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.dir.write_whole(name, bytes, false).map_err(plain)
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.dir.read_whole(name, 1 << 16).map_err(plain)
    }

    fn space(&self) -> io::Result<Space> {
        let (free, total) = self.dir.space().map_err(plain)?;
        Ok(Space { free, total })
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        let _made = self.aside()?;
        fs::rename(self.dir.join(name), self.aside.join(name))
    }

    fn quarantined(&self) -> io::Result<Vec<(String, u64)>> {
        if self.aside.is_dir() { lengths(&self.aside()?) } else { Ok(Vec::new()) }
    }

    fn remove_quarantined(&self, name: &str) -> io::Result<()> {
        self.aside()?.remove(name).map_err(plain)
    }
}

/// A real file.
#[derive(Debug)]
pub struct DiskFile {
    file: Appended,
    durable: bool,
}

impl FsFile for DiskFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<io::IoSlice<'_>> = pieces.iter().map(|p| io::IoSlice::new(p)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match self.file.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => io::IoSlice::advance_slices(&mut rest, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&**self.file.file(), into, at)
    }

    fn end(&self) -> io::Result<u64> {
        Ok(self.file.file().metadata()?.len())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.cut(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.durable { sync_data(self.file.file()) } else { Ok(()) }
    }
}

/// Opens what another test, which starts a program at this moment, may hold until that has begun.
#[cfg(test)]
pub(crate) fn unlocked<T, E: std::error::Error>(open: impl Fn() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..500 {
        match open() {
            Err(e) if e.to_string().contains("in use") => std::thread::sleep(std::time::Duration::from_millis(2)),
            opened => return opened,
        }
    }
    open()
}
