//! Where tests end a process, before any change it makes to the file system; in a shipped program, nothing.
//!
//! A test gives its threads one `Crash`. Every change is a step; at the chosen one the thread panics (a write may have
//! taken half of its bytes), and so does every other thread of the process at its next step. What was never synced is known
//! then, so that a loss of power can be played as well.

#[cfg(not(test))]
use std::{fs::File, path::Path};

#[cfg(test)]
pub(crate) use told::{Crash, Witness};

/// What this thread hands on to those it starts.
#[cfg(not(test))]
pub(crate) struct Here;

#[cfg(not(test))]
impl Here {
    #[expect(clippy::unused_self, reason = "in tests there is something to enter")]
    pub(crate) fn enter(self) {}
}

/// What this thread hands on to those it starts.
#[cfg(not(test))]
pub(crate) fn here() -> Here {
    Here
}

/// A change is about to be made.
#[cfg(not(test))]
#[inline]
pub(crate) fn step() {}

/// A write is about to be made; how much of it is still made before the process ends.
#[cfg(not(test))]
#[inline]
pub(crate) fn torn(_len: usize) -> Option<usize> {
    None
}

/// The process has ended.
#[cfg(not(test))]
#[inline]
pub(crate) fn die() {}

/// Whether the disk refuses to confirm.
#[cfg(not(test))]
#[inline]
pub(crate) fn sync_fails(_file: &File) -> bool {
    false
}

/// Whether the disk has no room.
#[cfg(not(test))]
#[inline]
pub(crate) fn is_full() -> bool {
    false
}

/// Whether the disk has no room, or none for this file.
#[cfg(not(test))]
#[inline]
pub(crate) fn has_no_room(_file: &File) -> bool {
    false
}

/// The bytes of a file are on the disk.
#[cfg(not(test))]
#[inline]
pub(crate) fn synced(_file: &File) {}

/// A name was made, or a file got another.
#[cfg(not(test))]
#[inline]
pub(crate) fn named(_dir: &Path, _from: Option<&str>, _to: &str) {}

/// A file is about to take the place of this one.
#[cfg(not(test))]
#[inline]
pub(crate) fn replacing(_dir: &Path, _to: &str) {}

/// A file is about to be removed.
#[cfg(not(test))]
#[inline]
pub(crate) fn removing(_dir: &Path, _name: &str) {}

/// A file was cut to this length.
#[cfg(not(test))]
#[inline]
pub(crate) fn cut(_file: &File, _len: u64) {}

/// The names of a directory are on the disk.
#[cfg(not(test))]
#[inline]
pub(crate) fn dir_synced(_dir: &Path) {}

#[cfg(test)]
pub(crate) use told::{
    cut, die, dir_synced, has_no_room, here, is_full, named, removing, replacing, step, sync_fails, synced, torn,
};

#[cfg(test)]
mod told {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use crate::telemetry::clock;

    thread_local! {
        static CRASH: RefCell<Option<Arc<Crash>>> = const { RefCell::new(None) };
    }

    /// One process of a test: when it ends, and what it made durable.
    #[derive(Debug)]
    pub(crate) struct Crash(Mutex<Inner>);

    #[derive(Debug)]
    struct Inner {
        left: u64,
        dead: bool,
        /// So many calls of fsync fail from here on.
        failing: u64,
        /// At how many of them from here on that begins.
        failing_in: u64,
        refused: u64,
        full: bool,
        /// The inode for which there is no room, though there is for others.
        no_room: Option<u64>,
        slow: Duration,
        /// At how many changes from here on something is done.
        told: Option<(u64, Told)>,
        witness: Witness,
    }

    struct Told(Box<dyn FnOnce() + Send>);

    impl std::fmt::Debug for Told {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Told")
        }
    }

    /// What a loss of power may take.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Witness {
        /// By inode: how long the file was when it was last synced.
        synced: BTreeMap<u64, u64>,
        /// By inode: from where on the disk did not take what was written, whatever a later fsync says: the kernel has forgotten it.
        refused: BTreeMap<u64, u64>,
        /// Names made, given and taken away since their directory was synced, oldest first.
        names: Vec<Named>,
        /// What had the name that is about to be given to another file.
        before: Option<Vec<u8>>,
    }

    #[derive(Clone, Debug)]
    struct Named {
        dir: PathBuf,
        from: Option<String>,
        to: String,
        before: Option<Vec<u8>>,
        /// The name was taken away: what had it is `before`, of which so much was durable.
        removed: Option<u64>,
    }

    impl Crash {
        /// A process that ends at its `steps`th change.
        pub(crate) fn after(steps: u64, witness: Witness) -> Arc<Self> {
            Arc::new(Self(Mutex::new(Inner {
                left: steps,
                dead: false,
                failing: 0,
                failing_in: 0,
                refused: 0,
                full: false,
                no_room: None,
                slow: Duration::ZERO,
                told: None,
                witness,
            })))
        }

        /// Makes this thread one of the process.
        pub(crate) fn enter(self: &Arc<Self>) {
            CRASH.set(Some(Arc::clone(self)));
        }

        /// It ends at its `steps`th change from here on.
        pub(crate) fn end_after(&self, steps: u64) {
            self.0.lock().left = steps;
        }

        /// Ends it here.
        pub(crate) fn kill(&self) {
            self.0.lock().dead = true;
        }

        /// At its `steps`th change from here on, somebody does this.
        pub(crate) fn tell_at(&self, steps: u64, told: impl FnOnce() + Send + 'static) {
            self.0.lock().told = Some((steps, Told(Box::new(told))));
        }

        /// The disk does not confirm `times` times, after it has `after` times more; for ever with [`u64::MAX`].
        pub(crate) fn fail_syncs(&self, after: u64, times: u64) {
            let mut c = self.0.lock();
            (c.failing_in, c.failing) = (after, times);
        }

        /// How often the disk did not confirm.
        pub(crate) fn refused(&self) -> u64 {
            self.0.lock().refused
        }

        /// Whether it has all of that behind it.
        pub(crate) fn syncs_well(&self) -> bool {
            self.0.lock().failing == 0
        }

        /// From here on the disk has no room.
        pub(crate) fn fill(&self, full: bool) {
            self.0.lock().full = full;
        }

        /// From here on the disk has no room for this file, or for every one again.
        pub(crate) fn fill_for(&self, file: Option<&Path>) {
            self.0.lock().no_room = file.map(|path| fs::metadata(path).unwrap().ino());
        }

        /// From here on the disk takes so long to confirm.
        pub(crate) fn slow_down(&self, takes: Duration) {
            self.0.lock().slow = takes;
        }

        pub(crate) fn is_dead(&self) -> bool {
            self.0.lock().dead
        }

        /// What it had made durable.
        pub(crate) fn witness(&self) -> Witness {
            self.0.lock().witness.clone()
        }
    }

    fn with<T>(f: impl FnOnce(&Crash) -> T) -> Option<T> {
        CRASH.with_borrow(|c| c.as_ref().map(|c| f(c)))
    }

    fn at_the_end() -> bool {
        with(|c| {
            let mut c = c.0.lock();
            if c.dead {
                return true;
            }
            if let Some((left, told)) = c.told.take() {
                match left.saturating_sub(1) {
                    0 => told.0(),
                    left => c.told = Some((left, told)),
                }
            }
            c.left = c.left.saturating_sub(1);
            c.dead = c.left == 0;
            c.dead
        })
        .unwrap_or(false)
    }

    pub(crate) fn step() {
        if at_the_end() {
            die();
        }
    }

    pub(crate) fn torn(len: usize) -> Option<usize> {
        if with(|c| c.0.lock().dead) == Some(true) {
            die();
        }
        at_the_end().then_some(len / 2)
    }

    pub(crate) fn die() {
        std::panic::resume_unwind(Box::new("the process was ended by its test"));
    }

    pub(crate) fn sync_fails(file: &File) -> bool {
        with(|c| {
            let c = &mut *c.0.lock();
            if c.failing == 0 {
                return false;
            }
            if let Some(left) = c.failing_in.checked_sub(1) {
                c.failing_in = left;
                return false;
            }
            if c.failing != u64::MAX {
                c.failing -= 1;
            }
            c.refused += 1;
            let meta = file.metadata().unwrap();
            let safe = c.witness.synced.get(&meta.ino()).copied().unwrap_or(0);
            // where nothing was written there is nothing to forget
            if meta.len() > safe {
                c.witness.refused.entry(meta.ino()).or_insert(safe);
            }
            true
        })
        .unwrap_or(false)
    }

    pub(crate) fn is_full() -> bool {
        with(|c| c.0.lock().full).unwrap_or(false)
    }

    pub(crate) fn has_no_room(file: &File) -> bool {
        let inode = with(|c| c.0.lock().no_room).flatten();
        is_full() || inode.is_some_and(|inode| file.metadata().unwrap().ino() == inode)
    }

    pub(crate) fn synced(file: &File) {
        if let Some(takes) = with(|c| c.0.lock().slow).filter(|takes| !takes.is_zero()) {
            clock::pause(takes);
        }
        if let Ok(meta) = file.metadata() {
            with(|c| {
                let w = &mut c.0.lock().witness;
                let safe = w.refused.get(&meta.ino()).map_or(meta.len(), |from| meta.len().min(*from));
                w.synced.insert(meta.ino(), safe);
            });
        }
    }

    pub(crate) fn cut(file: &File, len: u64) {
        let inode = file.metadata().unwrap().ino();
        with(|c| {
            let w = &mut c.0.lock().witness;
            if w.refused.get(&inode).is_some_and(|from| len <= *from) {
                w.refused.remove(&inode);
            }
            // what was durable beyond it may be so again only when it is synced
            w.synced.entry(inode).and_modify(|safe| *safe = len.min(*safe));
        });
    }

    /// What this thread hands on to those it starts.
    pub(crate) struct Here(Option<Arc<Crash>>);

    impl Here {
        pub(crate) fn enter(self) {
            CRASH.set(self.0);
        }
    }

    pub(crate) fn here() -> Here {
        Here(with(|_| ()).and_then(|()| CRASH.with_borrow(Clone::clone)))
    }

    pub(crate) fn named(dir: &Path, from: Option<&str>, to: &str) {
        with(|c| {
            let w = &mut c.0.lock().witness;
            let before = w.before.take().filter(|_| from.is_some());
            if from.is_none()
                && let Ok(meta) = fs::metadata(dir.join(to))
            {
                // a new file, whatever had its number before
                w.synced.remove(&meta.ino());
                w.refused.remove(&meta.ino());
            }
            w.names.push(Named { dir: dir.into(), from: from.map(str::to_owned), to: to.into(), before, removed: None });
        });
    }

    pub(crate) fn removing(dir: &Path, name: &str) {
        with(|c| {
            let path = dir.join(name);
            let (Ok(bytes), Ok(meta)) = (fs::read(&path), fs::metadata(&path)) else { return };
            let w = &mut c.0.lock().witness;
            let safe = w.synced.get(&meta.ino()).copied().unwrap_or(0);
            let (before, removed) = (Some(bytes), Some(safe));
            w.names.push(Named { dir: dir.into(), from: None, to: name.into(), before, removed });
        });
    }

    pub(crate) fn replacing(dir: &Path, to: &str) {
        with(|c| c.0.lock().witness.before = fs::read(dir.join(to)).ok());
    }

    pub(crate) fn dir_synced(dir: &Path) {
        with(|c| c.0.lock().witness.names.retain(|n| n.dir != dir));
    }

    impl Witness {
        /// Loses power: of what was not synced, each thing is kept or lost as `choose` says (a number below its argument).
        pub(crate) fn lose_power(&mut self, dirs: &[&Path], choose: &mut dyn FnMut(u64) -> u64) {
            // the last first; what has two such changes keeps or loses them in order
            let mut kept: Vec<(PathBuf, String)> = Vec::new();
            for Named { dir, from, to, before, removed } in self.names.drain(..).rev() {
                let touched = |name: &String| kept.contains(&(dir.clone(), name.clone()));
                if choose(2) == 0 || touched(&to) || from.as_ref().is_some_and(touched) {
                    kept.extend(from.into_iter().chain([to]).map(|name| (dir.clone(), name)));
                    continue;
                }
                match from {
                    None if let Some(safe) = removed => {
                        fs::write(dir.join(&to), before.unwrap_or_default()).unwrap();
                        self.synced.insert(fs::metadata(dir.join(to)).unwrap().ino(), safe);
                    }
                    None => drop(fs::remove_file(dir.join(to))),
                    Some(from) => {
                        let _gone = fs::rename(dir.join(&to), dir.join(from));
                        if let Some(before) = before {
                            fs::write(dir.join(&to), before).unwrap();
                            self.synced.insert(fs::metadata(dir.join(to)).unwrap().ino(), u64::MAX);
                        }
                    }
                }
            }
            for entry in dirs.iter().flat_map(|d| fs::read_dir(d).into_iter().flatten()) {
                let path = entry.unwrap().path();
                let meta = fs::metadata(&path).unwrap();
                let safe = self.synced.get(&meta.ino()).copied().unwrap_or(0);
                if !meta.is_file() || meta.len() <= safe {
                    continue;
                }
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                let keep = safe + choose(meta.len() - safe + 1);
                file.set_len(keep).unwrap();
                // the length may be there before the bytes are
                if choose(4) == 0 {
                    file.set_len(safe).unwrap();
                    file.set_len(keep).unwrap();
                }
            }
            self.synced.clear();
            self.refused.clear();
            for entry in dirs.iter().flat_map(|d| fs::read_dir(d).into_iter().flatten()) {
                let meta = entry.unwrap().metadata().unwrap();
                self.synced.insert(meta.ino(), meta.len());
            }
        }
    }
}
