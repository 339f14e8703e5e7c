//! Who may read what is written, besides its owner: nobody, or a group (`--pcap-group`).
//!
//! Promises: a file or directory is its owner's alone (0600, 0700) until it belongs to the group, and the group's to read from then on (0640,
//! 0750), whatever the umask; a directory that was there before keeps its mode, unless it is its owner's alone or the group's already.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Stat};

use super::{RecordError, above};

/// Nobody, or a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers(Option<u32>);

impl Readers {
    /// Nobody but the owner.
    pub const NONE: Self = Self(None);

    /// The members of this group.
    pub const fn group(id: u32) -> Self {
        Self(Some(id))
    }

    /// Which group that is.
    pub const fn id(self) -> Option<u32> {
        self.0
    }

    /// Lets them read a file of ours.
    pub(super) fn admit_to_file(self, file: impl AsFd, path: &Path) -> Result<(), RecordError> {
        self.admit(file, path, 0o640)
    }

    /// Lets them into a directory that is ours, was opened as such, and that nobody else enters.
    pub(super) fn admit_to_dir(self, dir: impl AsFd, path: &Path, stat: &Stat) -> Result<(), RecordError> {
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        let entered = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
        if ours && !entered { self.admit(dir, path, 0o750) } else { Ok(()) }
    }

    /// Says that they may not enter a directory, which keeps its mode.
    pub(super) fn warn_if_kept_out(self, dir: impl AsFd, path: &Path) {
        let Some(group) = self.0 else { return };
        if rustix::fs::fstat(dir).is_ok_and(|stat| keeps_out(&stat, group)) && above::is_news(&path.to_path_buf()) {
            tracing::warn!(
                directory = %path.display(),
                group,
                "--pcap-group may not enter this directory, which was there before: chgrp {group} and chmod g+rx"
            );
        }
    }

    /// The group first: before it is that one, what it may do another might.
    fn admit(self, it: impl AsFd, path: &Path, mode: u32) -> Result<(), RecordError> {
        let Some(group) = self.0 else { return Ok(()) };
        let it = it.as_fd();
        let given = rustix::fs::fchown(it, None, Some(Gid::from_raw(group)));
        given.and_then(|()| rustix::fs::fchmod(it, Mode::from_raw_mode(mode))).map_err(|e| RecordError::Group {
            path: path.into(),
            group,
            source: io::Error::from(e),
        })
    }
}

/// Whether the members of a group may not list or not enter a directory; some may by another group of theirs.
const fn keeps_out(stat: &Stat, group: u32) -> bool {
    let may = Mode::from_raw_mode(stat.st_mode);
    let wanted = if stat.st_gid == group { Mode::RGRP.union(Mode::XGRP) } else { Mode::ROTH.union(Mode::XOTH) };
    !may.contains(wanted)
}

/// Makes a directory, and those above it, where they are missing; what was made is there after a loss of power, too.
///
/// # Errors
/// [`RecordError::Group`], [`RecordError::Io`].
pub(crate) fn make_dir(path: &Path, readers: Readers) -> Result<(), RecordError> {
    let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
    let missing: Vec<PathBuf> =
        above.take_while(|path| !path.exists() && path.file_name().is_some()).map(Path::to_path_buf).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| RecordError::io("create", path, e))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for made in missing.iter().filter(|_| readers != Readers::NONE) {
        let dir =
            rustix::fs::open(made, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|e| RecordError::io("open", made, e))?;
        let stat = rustix::fs::fstat(&dir).map_err(|e| RecordError::io("inspect", made, e))?;
        readers.admit_to_dir(&dir, made, &stat)?;
    }
    for made in &missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // one that may be written to and not read cannot be synced
        let Ok(parent) = rustix::fs::open(parent, flags, Mode::empty()) else { continue };
        rustix::fs::fsync(&parent).map_err(|e| RecordError::io("sync", made, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn whom_a_directory_keeps_out_is_known_by_its_group_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let group = fs::metadata(dir.path()).unwrap().gid();
        let kept_out = |mode, group| {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            keeps_out(&rustix::fs::fstat(File::open(dir.path()).unwrap()).unwrap(), group)
        };

        assert_eq!([0o700, 0o710, 0o705, 0o750].map(|mode| kept_out(mode, group)), [true, true, true, false]);
        assert_eq!([0o750, 0o751, 0o755].map(|mode| kept_out(mode, group + 1)), [true, true, false]);
    }
}
