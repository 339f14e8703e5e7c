//! The one place where files are created, opened, renamed and removed.
//!
//! Promises: every file is created with mode 0600 and `O_EXCL`, every directory with 0700, and then given to those who may read it
//! ([`Readers`]); no final symbolic link is ever followed; names are single components relative to an open directory, so nothing lands outside it; a writer asks
//! for room first, and is refused before `--min-free` is touched. That reserve is for small files: records and the state.
//!
//! Refuses: directories others may write to; existing files that are not plain files, are not ours or have a second name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::readers::{self, Readers};
use super::{RecordError, above, fault};

/// Suffix of a file that does not have its final name yet.
pub(crate) const PART: &str = ".part";
/// Longest file name Linux allows (`NAME_MAX`, limits.h).
pub(super) const NAME_MAX: usize = 255;
/// How much may be written before free space is asked for again; what others may take meanwhile.
const GRANT_BYTES: u64 = 16 * 1024 * 1024;

/// Free space that is never used up: the smaller of a share of the file system and a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinFree {
    /// Share of the whole file system.
    pub percent: u8,
    /// Bytes.
    pub bytes: u64,
}

impl Default for MinFree {
    /// 5 % or 1 GiB, whichever is less.
    fn default() -> Self {
        Self { percent: 5, bytes: 1 << 30 }
    }
}

impl MinFree {
    /// No reserve: only the disk itself says when it is full.
    pub const NONE: Self = Self { percent: 0, bytes: 0 };

    pub(crate) fn of(self, total: u64) -> u64 {
        (total / 100).saturating_mul(u64::from(self.percent)).min(self.bytes)
    }
}

impl FromStr for MinFree {
    type Err = String;

    /// `5%`, `2G`, `512M`, `1048576`, `0`.
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is neither a percentage (5%) nor a size (512M, 2G)");
        if let Some(p) = s.strip_suffix('%') {
            let percent = p.parse().ok().filter(|p| *p <= 100).ok_or_else(bad)?;
            return Ok(Self { percent, bytes: u64::MAX });
        }
        let digits = s.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match s.get(digits.len()..).unwrap_or("").to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(bad)?;
        Ok(Self { percent: 100, bytes })
    }
}

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For our files alone: nobody else may write to it.
    Private,
    /// Where the user pointed `-w`: others may write to it only under the sticky bit, as in `/tmp`.
    Sticky,
}

/// An open directory of ours.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// Its files are named after people: errors, which go into logs, do not name them.
    nameless: bool,
    min_free: MinFree,
    readers: Readers,
    /// Whether anybody may create files here.
    crowded: bool,
    /// Bytes that may be written before free space is looked at again.
    granted: Cell<u64>,
    /// Files written to since [`Self::take_written`].
    written: RefCell<BTreeSet<Box<str>>>,
    /// Whether a file was created since [`Self::take_created`].
    created: Cell<bool>,
    /// Who is told of names before files have them.
    names: Option<Arc<dyn Names>>,
}

/// Remembers which files are made, so that after a crash those that nobody knows can be removed.
pub trait Names: std::fmt::Debug + Send + Sync {
    /// Files of these names are about to be made; returns once that is remembered.
    ///
    /// # Errors
    /// Nothing may be made then.
    fn announce(&self, names: &[Box<str>]) -> Result<(), RecordError>;

    /// A file of an announced name is somebody else's.
    fn disown(&self, name: &str);
}

impl Dir {
    /// Opens `path`, creating it (0700) where it is missing.
    ///
    /// # Errors
    /// [`RecordError::Unsafe`] when others may write to it; [`RecordError::Io`].
    pub fn open(path: impl AsRef<Path>, access: Access, min_free: MinFree) -> Result<Self, RecordError> {
        Self::open_for(path, access, min_free, Readers::NONE)
    }

    /// The same, for files that `readers` may read; where nobody else writes, they may enter it too.
    ///
    /// # Errors
    /// As [`Self::open`]; [`RecordError::Group`].
    pub fn open_for(path: impl AsRef<Path>, access: Access, min_free: MinFree, readers: Readers) -> Result<Self, RecordError> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        readers::make_dir(path, readers)?;
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| RecordError::io("open", path, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| RecordError::io("inspect", path, e))?;
        let others_write = stat.st_mode & 0o002 != 0;
        if others_write && (access == Access::Private || above::is_open(&stat)) {
            let reason = "everybody may write to this directory; choose another or: chmod o-w";
            return Err(RecordError::Unsafe { path: path.into(), reason });
        }
        // no more than a warning: volumes of containers are like that, and there nobody else is in them
        if let Some(above) = above::open_one(&fd, path).filter(above::is_news) {
            tracing::warn!(
                directory = %path.display(),
                below = %above.display(),
                "everybody may write to a directory above this one, and put another in its place; should others be on this machine: chmod o-w or +t"
            );
        }
        if access == Access::Private {
            readers.admit_to_dir(&fd, path, &stat)?;
        }
        readers.warn_if_kept_out(&fd, path);
        Ok(Self {
            fd,
            path: path.into(),
            nameless: false,
            min_free,
            readers,
            crowded: others_write,
            granted: Cell::new(0),
            written: RefCell::default(),
            created: Cell::new(false),
            names: None,
        })
    }

    /// From here on `names` is told of files before they are made.
    pub(super) fn watch(&mut self, names: Arc<dyn Names>) {
        self.names = Some(names);
    }

    /// Whether somebody is told of files before they are made.
    pub(super) fn is_watched(&self) -> bool {
        self.names.is_some()
    }

    /// Says that files of these names are about to be made.
    pub(super) fn announce(&self, names: &[Box<str>]) -> Result<(), RecordError> {
        self.names.as_ref().map_or(Ok(()), |n| n.announce(names))
    }

    /// Creates a file that was announced here; `None` when the name is taken.
    pub(super) fn create_announced(&self, name: &str) -> Result<Option<File>, RecordError> {
        let file = self.create_new(name)?;
        if let (None, Some(names)) = (&file, &self.names) {
            names.disown(name);
        }
        Ok(file)
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, for messages and hooks.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its files are named after subscribers and their calls: no error will name one.
    #[must_use]
    pub(super) fn nameless(mut self) -> Self {
        self.nameless = true;
        self
    }

    /// The path of a file of it for an error.
    pub(super) fn said(&self, name: &str) -> PathBuf {
        self.path.join(if self.nameless { "(a call)" } else { name })
    }

    /// Creates a file that must not exist: 0600, or 0640 for readers, readable and appending. `None` when the name is taken.
    ///
    /// Every file this program leaves on a disk is made here.
    pub(crate) fn create_new(&self, name: &str) -> Result<Option<File>, RecordError> {
        self.check_name(name)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fault::step();
        match rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                fault::named(&self.path, None, name);
                self.created.set(true);
                if let Err(e) = self.readers.admit_to_file(&fd, &self.said(name)) {
                    self.remove(name)?;
                    return Err(e);
                }
                Ok(Some(File::from(fd)))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(e) => Err(RecordError::io("create", self.said(name), e)),
        }
    }

    /// Opens an existing file for reading and appending; `None` when there is none.
    pub(crate) fn open_existing(&self, name: &str) -> Result<Option<File>, RecordError> {
        self.check_name(name)?;
        let path = self.said(name);
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(RecordError::Unsafe { path, reason: "it is a symbolic link" }),
            Err(e) => return Err(RecordError::io("open", path, e)),
        };
        let meta = file.metadata().map_err(|e| RecordError::io("inspect", &path, e))?;
        let me = rustix::process::geteuid().as_raw();
        let reason = match () {
            () if !meta.file_type().is_file() => "it is not a regular file",
            () if meta.nlink() != 1 => "it has a second name (hard link)",
            // Root may continue anybody's file, but not one that was put in its way.
            () if meta.uid() != me && (me != 0 || self.crowded) => "it belongs to somebody else",
            () => {
                let file = self.private(file, &path, meta.mode())?;
                if meta.uid() == me {
                    self.readers.admit_to_file(&file, &path)?;
                }
                return Ok(Some(file));
            }
        };
        Err(RecordError::Unsafe { path, reason })
    }

    /// A second descriptor of `file`, to write past the page cache; `None` where the file system has no such thing.
    pub(crate) fn open_direct(&self, name: &str, file: &File) -> Option<File> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let direct = File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty()).ok()?);
        let which = |f: &File| f.metadata().ok().map(|m| (m.dev(), m.ino()));
        (which(&direct)? == which(file)?).then_some(direct)
    }

    /// Takes away what "others" may do with a file we are going to continue; the group's rights are the operator's choice.
    fn private(&self, file: File, path: &Path, mode: u32) -> Result<File, RecordError> {
        debug_assert!(path.starts_with(&self.path));
        if mode & 0o007 != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o770)).map_err(|e| RecordError::io("protect", path, e))?;
        }
        Ok(file)
    }

    /// Whether the name is taken, by whatever.
    pub(super) fn exists(&self, name: &str) -> Result<bool, RecordError> {
        self.check_name(name)?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(RecordError::io("inspect", self.said(name), e)),
        }
    }

    /// Gives a finished file its name; false when that name is taken.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> Result<bool, RecordError> {
        self.check_name(to)?;
        fault::step();
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                fault::named(&self.path, Some(from), to);
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // File systems without RENAME_NOREPLACE (NFS, old FUSE): look first; only we write here.
            Err(Errno::INVAL | Errno::NOSYS) if self.exists(to)? => Ok(false),
            Err(Errno::INVAL | Errno::NOSYS) => {
                self.replace(from, to)?;
                Ok(true)
            }
            Err(e) => Err(RecordError::io("rename", self.said(from), e)),
        }
    }

    /// Renames over whatever has the name.
    pub(super) fn replace(&self, from: &str, to: &str) -> Result<(), RecordError> {
        fault::step();
        fault::replacing(&self.path, to);
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(|e| RecordError::io("rename", self.said(from), e))?;
        fault::named(&self.path, Some(from), to);
        Ok(())
    }

    /// Writes a small file whole: readers see the old one or the new one, never a part. Synced when `durable`.
    pub(crate) fn write_whole(&self, name: &str, bytes: &[u8], durable: bool) -> Result<(), RecordError> {
        let part = format!("{name}{PART}");
        self.remove(&part)?;
        let Some(mut file) = self.create_new(&part)? else {
            return Err(RecordError::Unsafe { path: self.said(&part), reason: "somebody else creates files here" });
        };
        fault::step();
        let whole =
            if fault::is_full() { Err(io::ErrorKind::StorageFull.into()) } else { io::Write::write_all(&mut file, bytes) };
        let done = whole.and_then(|()| if durable { sync_data(&file) } else { Ok(()) });
        if let Err(e) = done {
            self.remove(&part)?;
            return Err(RecordError::io("write", self.said(&part), e));
        }
        self.replace(&part, name)?;
        if durable {
            self.sync()?;
        }
        Ok(())
    }

    /// Reads a small file of ours; `None` when there is none.
    pub(crate) fn read_whole(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, RecordError> {
        let Some(file) = self.open_existing(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, max_bytes), &mut bytes)
            .map_err(|e| RecordError::io("read", self.said(name), e))?;
        Ok(Some(bytes))
    }

    /// Removes a file; nothing when there is none.
    pub(crate) fn remove(&self, name: &str) -> Result<(), RecordError> {
        self.check_name(name)?;
        fault::step();
        fault::removing(&self.path, name);
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(RecordError::io("remove", self.said(name), e)),
        }
    }

    /// Names and facts of the plain files in it whose name passes `wanted`.
    pub(crate) fn files(&self, mut wanted: impl FnMut(&str) -> bool) -> Result<Vec<(String, fs::Metadata)>, RecordError> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|e| RecordError::io("list", &self.path, e))? {
            let entry = entry.map_err(|e| RecordError::io("list", &self.path, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| wanted(n)) else { continue };
            // Gone between listing and looking: nothing to report.
            if let Ok(meta) = entry.metadata()
                && meta.is_file()
            {
                out.push((name.to_owned(), meta));
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// A file of it was written to.
    pub(super) fn note(&self, name: &str) {
        let mut written = self.written.borrow_mut();
        if !written.contains(name) {
            written.insert(name.into());
        }
    }

    /// The files written to since the last call.
    pub(super) fn take_written(&self) -> BTreeSet<Box<str>> {
        self.written.take()
    }

    /// A descriptor to sync, if files were created since the last call.
    ///
    /// # Errors
    /// [`RecordError::Io`]; ask again.
    pub(super) fn take_created(&self) -> Result<Option<Entries>, RecordError> {
        if !self.created.get() {
            return Ok(None);
        }
        let fd = self.fd.try_clone().map_err(|e| RecordError::io("open", &self.path, e))?;
        self.created.set(false);
        Ok(Some(Entries { fd, path: self.path.clone() }))
    }

    /// Asks for room for `bytes` more; cheap while an earlier answer lasts ([`GRANT_BYTES`]).
    ///
    /// # Errors
    /// [`RecordError::Full`] when `--min-free` would be touched.
    pub(super) fn reserve(&self, name: &str, bytes: u64) -> Result<(), RecordError> {
        if let Some(left) = self.granted.get().checked_sub(bytes) {
            self.granted.set(left);
            return Ok(());
        }
        let (free, total) = self.space()?;
        let keep = self.min_free.of(total);
        let Some(left) = free.saturating_sub(keep).checked_sub(bytes) else {
            let detail = format!("{free} bytes are free and {keep} must stay free");
            return Err(RecordError::Full { path: self.said(name), detail });
        };
        // a share: the other directories on this file system have grants of their own
        self.granted.set((left / 4).min(GRANT_BYTES));
        Ok(())
    }

    /// Free and total bytes of its file system.
    pub(crate) fn space(&self) -> Result<(u64, u64), RecordError> {
        let fs = rustix::fs::fstatvfs(&self.fd).map_err(|e| RecordError::io("inspect", &self.path, e))?;
        Ok((fs.f_bavail.saturating_mul(fs.f_frsize), fs.f_blocks.saturating_mul(fs.f_frsize)))
    }

    /// Makes creations, renames and removals durable.
    pub(crate) fn sync(&self) -> Result<(), RecordError> {
        fault::step();
        rustix::fs::fsync(&self.fd).map_err(|e| RecordError::io("sync", &self.path, e))?;
        fault::dir_synced(&self.path);
        Ok(())
    }

    /// A name is one component that needs no quoting and hides nothing.
    fn check_name(&self, name: &str) -> Result<(), RecordError> {
        let bad =
            name.is_empty() || name.len() > NAME_MAX || matches!(name, "." | "..") || name.bytes().any(|b| b == b'/' || b == 0);
        if bad {
            return Err(RecordError::Unsafe { path: self.path.clone(), reason: "a file name that is not one component" });
        }
        Ok(())
    }
}

/// The names of a directory, to be synced by another thread.
#[derive(Debug)]
pub struct Entries {
    fd: OwnedFd,
    path: PathBuf,
}

impl Entries {
    /// Makes them durable.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn sync(&self) -> Result<(), RecordError> {
        fault::step();
        rustix::fs::fsync(&self.fd).map_err(|e| RecordError::io("sync", &self.path, e))?;
        fault::dir_synced(&self.path);
        Ok(())
    }
}

/// Makes the bytes of a file durable.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    fault::step();
    if fault::sync_fails(file) {
        return Err(io::Error::other("the test says so"));
    }
    file.sync_data()?;
    fault::synced(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn makes_directories_0700_and_files_0600_whatever_the_umask() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path().join("a/b"), Access::Private, MinFree::NONE).unwrap();

        dir.create_new("x").unwrap().unwrap();

        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&tmp.path().join("a")), mode(dir.path())), (0o700, 0o700));
        assert_eq!(mode(&dir.join("x")), 0o600);
        assert!(dir.create_new("x").unwrap().is_none());
    }

    #[test]
    fn refuses_a_directory_everybody_may_write_to() {
        let tmp = tempfile::tempdir().unwrap();
        let set = |mode| fs::set_permissions(tmp.path(), fs::Permissions::from_mode(mode)).unwrap();
        let open = |access| Dir::open(tmp.path(), access, MinFree::NONE);

        set(0o777);
        assert!(matches!(open(Access::Private), Err(RecordError::Unsafe { .. })));
        assert!(matches!(open(Access::Sticky), Err(RecordError::Unsafe { .. })));
        set(0o1777);
        assert!(matches!(open(Access::Private), Err(RecordError::Unsafe { .. })));
        assert!(open(Access::Sticky).is_ok());
    }

    #[test]
    fn follows_no_link_and_leaves_no_directory() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("victim"), b"v").unwrap();
        let dir = Dir::open(tmp.path().join("d"), Access::Private, MinFree::NONE).unwrap();
        symlink("../victim", dir.join("link")).unwrap();
        fs::hard_link(tmp.path().join("victim"), dir.join("hard")).unwrap();

        assert!(matches!(dir.open_existing("link"), Err(RecordError::Unsafe { .. })));
        assert!(matches!(dir.open_existing("hard"), Err(RecordError::Unsafe { .. })));
        assert!(dir.create_new("link").unwrap().is_none());
        for name in ["", ".", "..", "../x", "a/b", "/etc/x", "a\0b"] {
            assert!(matches!(dir.create_new(name), Err(RecordError::Unsafe { .. })), "{name:?}");
        }
    }

    #[test]
    fn takes_the_rights_of_others_from_a_file_it_continues() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        fs::write(dir.join("x"), b"x").unwrap();
        fs::set_permissions(dir.join("x"), fs::Permissions::from_mode(0o644)).unwrap();

        dir.open_existing("x").unwrap().unwrap();

        assert_eq!(fs::metadata(dir.join("x")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn keeps_the_reserve_free() {
        let tmp = tempfile::tempdir().unwrap();
        let greedy = Dir::open(tmp.path(), Access::Private, MinFree { percent: 100, bytes: u64::MAX }).unwrap();
        let modest = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();

        assert!(greedy.reserve("x", 1).unwrap_err().is_full());
        assert!(modest.reserve("x", 1).is_ok());
    }

    #[test]
    fn reads_sizes_and_percentages() {
        assert_eq!("7%".parse(), Ok(MinFree { percent: 7, bytes: u64::MAX }));
        assert_eq!("2G".parse(), Ok(MinFree { percent: 100, bytes: 2 << 30 }));
        assert_eq!("512MiB".parse(), Ok(MinFree { percent: 100, bytes: 512 << 20 }));
        assert_eq!(MinFree::default().of(10 << 30), (10 << 30) / 100 * 5);
        assert_eq!(MinFree::default().of(100 << 30), 1 << 30);
        for bad in ["", "101%", "-1", "5 %", "9x", "99999999999T"] {
            assert!(bad.parse::<MinFree>().is_err(), "{bad}");
        }
    }

    #[test]
    fn replaces_small_files_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();

        dir.write_whole("s", b"one", true).unwrap();
        dir.write_whole("s", b"two", false).unwrap();

        assert_eq!(dir.read_whole("s", 100).unwrap().unwrap(), b"two");
        assert_eq!(dir.read_whole("none", 100).unwrap(), None);
        assert_eq!(dir.files(|_| true).unwrap().len(), 1);
    }
}
