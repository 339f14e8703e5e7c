//! The directories above one of ours: who may write to one of them puts another in the place of ours.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, Stat};

/// Directories told of.
const TOLD_MAX: usize = 16;

/// Whether everybody may rename and remove what is in a directory: all may write to it, and no sticky bit keeps others' names.
pub(super) const fn is_open(stat: &Stat) -> bool {
    stat.st_mode & 0o002 != 0 && stat.st_mode & 0o1000 == 0
}

/// The nearest directory above `dir`, which was opened by `path`, that [`is_open`]. What cannot be looked at is not.
pub(super) fn open_one(dir: &OwnedFd, path: &Path) -> Option<PathBuf> {
    let canonical = path.canonicalize().ok();
    let (mut at, mut below) = (up(dir)?, rustix::fs::fstat(dir).ok()?);
    // as many as a path may have (PATH_MAX, limits.h), and its last is its own parent
    for depth in 1..2048 {
        let stat = rustix::fs::fstat(&at).ok()?;
        if (stat.st_dev, stat.st_ino) == (below.st_dev, below.st_ino) {
            return None;
        }
        if is_open(&stat) {
            let named = canonical.as_deref().and_then(|path| path.ancestors().nth(depth)).map(Path::to_path_buf);
            return Some(named.unwrap_or_else(|| (0..depth).fold(path.to_path_buf(), |path, _| path.join(".."))));
        }
        (at, below) = (up(&at)?, stat);
    }
    None
}

/// Whether nobody was told of it yet; of many, some may not be told.
pub(super) fn is_news(open: &PathBuf) -> bool {
    static TOLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut told = TOLD.lock();
    let news = told.len() < TOLD_MAX && !told.contains(open);
    if news {
        told.push(open.clone());
    }
    news
}

fn up(dir: &OwnedFd) -> Option<OwnedFd> {
    rustix::fs::openat(dir, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_below_one_that_everybody_may_write_to_is_known() {
        let tmp = tempfile::tempdir().unwrap();
        let (upper, ours) = (tmp.path().join("upper"), tmp.path().join("upper/between/ours"));
        fs::create_dir_all(&ours).unwrap();
        symlink(&ours, tmp.path().join("link")).unwrap();
        let found = |mode, path: &Path| {
            fs::set_permissions(&upper, fs::Permissions::from_mode(mode)).unwrap();
            open_one(&fs::File::open(path).unwrap().into(), path)
        };

        for path in [&ours, &tmp.path().join("link")] {
            assert_eq!(found(0o777, path), Some(upper.canonicalize().unwrap()));
            assert_eq!([found(0o1777, path), found(0o775, path)], [None, None]);
        }
    }
}
