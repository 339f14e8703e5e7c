//! Where a queue goes on when its directory holds segments of a format that is not known here.
//!
//! ```text
//! <base>/ID        segments of another format: nothing in it is touched, not even its LOCK
//! <base>/ID~v1     the queue of this version meanwhile; no id makes such a name
//! ```
//! Which of the two it is depends on what is there alone, so every start finds the same. Once the first has none of them any more, what waits in
//! the second is moved there, file by file, under both locks, and the queue is in its usual place again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::fs::{Disk, Fs, read_full};
use super::segment::{Head, Key, SEGMENT_HEADER, VERSION, decode_head};
use super::{SpoolError, directory, state};

/// A segment of another format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its file.
    pub name: String,
    /// Its format.
    pub version: u32,
}

/// The directories of a queue that are there, the usual one first.
pub fn directories(base: &Path, hunter_id: &str) -> Vec<PathBuf> {
    let usual = directory(base, hunter_id);
    let beside = beside(&usual);
    [usual, beside].into_iter().filter(|path| path.is_dir()).collect()
}

/// Opens the directory of a queue for this process alone: the usual one, or the one beside it, which is said.
///
/// # Errors
/// [`SpoolError::InUse`] when another process has either; what the system says.
pub fn lock(base: &Path, hunter_id: &str) -> Result<Disk, SpoolError> {
    let usual = directory(base, hunter_id);
    let beside = beside(&usual);
    // looked at before it is locked: the version that wrote it may be sending it
    if usual.is_dir()
        && let Some(found) = other(&Disk::look(&usual)?)?
    {
        return lock_beside(&usual, &beside, &found);
    }
    let disk = Disk::lock(&usual)?;
    if let Some(found) = other(&disk)? {
        return lock_beside(&usual, &beside, &found);
    }
    if beside.is_dir() {
        let from = Disk::lock(&beside)?;
        let moved = move_all(&from, &beside, &disk, &usual);
        let moved = moved.map_err(|source| SpoolError::Io { doing: "move what waits in", path: beside.clone(), source })?;
        if moved > 0 {
            tracing::info!(from = %beside.display(), to = %usual.display(), segments = moved, "the disk queue is in its usual place again");
        }
    }
    Ok(disk)
}

fn lock_beside(usual: &Path, beside: &Path, found: &Other) -> Result<Disk, SpoolError> {
    let disk = Disk::lock(beside)?;
    tracing::warn!(
        directory = %usual.display(),
        file = %found.name,
        format = found.version,
        goes_on_in = %beside.display(),
        "the disk queue holds segments of a format that this version cannot read: they are left alone, and the queue goes on beside them; \
         send them with the version that wrote them ('lc spool drain' of it)"
    );
    Ok(disk)
}

fn beside(usual: &Path) -> PathBuf {
    let mut name = usual.file_name().unwrap_or_default().to_owned();
    name.push(format!("~v{VERSION}"));
    usual.with_file_name(name)
}

/// A segment of another format, if there is one.
///
/// # Errors
/// What the system says.
pub fn other<S: Fs>(fs: &S) -> Result<Option<Other>, SpoolError> {
    for (name, _) in fs.list().map_err(SpoolError::io("list", "directory"))? {
        let Some(key) = Key::of_name(&name) else { continue };
        let file = match fs.open(&name) {
            // whoever wrote it may be sending it
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(SpoolError::io("open", &name))?,
        };
        let mut head = [0; SEGMENT_HEADER];
        if read_full(&file, 0, &mut head).map_err(SpoolError::io("read", &name))?
            && let Head::Version(version) = decode_head(key, &head)
        {
            return Ok(Some(Other { name, version }));
        }
    }
    Ok(None)
}

/// Moves the segments and the newer word on the last run; how many segments. A crash leaves the rest for the next start.
fn move_all(from: &Disk, at: &Path, to: &Disk, usual: &Path) -> io::Result<usize> {
    let files = from.list()?;
    let mut moved = 0_usize;
    for (name, _) in files.iter().filter(|(name, _)| Key::of_name(name).is_some()) {
        let there = usual.join(name);
        if there.exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} is in both directories")));
        }
        fs::rename(at.join(name), there)?;
        moved = moved.saturating_add(1);
    }
    // the last of all: until then the next start comes here again
    if files.iter().any(|(name, _)| name == state::NAME) {
        fs::rename(at.join(state::NAME), usual.join(state::NAME))?;
    }
    to.sync()?;
    from.sync()?;
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchSeq, Epoch};
    use crate::record::dir::MinFree;
    use crate::spool::{Item, LastRun, Now, Queue, SpoolConfig, SpoolFull, StateFile, StateRecord, unlocked};
    use bytes::Bytes;
    use std::time::Duration;

    fn queue(base: &Path) -> Result<Queue<Disk>, SpoolError> {
        let config = SpoolConfig {
            hunter_id: "edge-1".into(),
            max_bytes: 1 << 20,
            min_free: MinFree::NONE,
            when_full: SpoolFull::Refuse,
            segment_bytes: 1 << 16,
            sync_after: Duration::from_millis(50),
            sync_bytes: 1 << 20,
        };
        Queue::open(unlocked(|| lock(base, "edge-1"))?, config)
    }

    fn append(queue: &mut Queue<Disk>, epoch: u64, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            let item = Item { epoch: Epoch(epoch), seq: BatchSeq(seq), packets: 1, bytes: Bytes::from_static(&[0; 40]) };
            queue.append(item, true, Now::default()).unwrap();
        }
        queue.close(Now::default()).unwrap();
    }

    fn read(queue: &mut Queue<Disk>) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| queue.read()).map(|item| (item.epoch.0, item.seq.0)).collect()
    }

    /// Everything in a directory, as it is.
    fn all(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(p).unwrap())).collect();
        all.sort();
        all
    }

    /// Makes a segment one of format 9; its path.
    fn of_format_9(base: &Path) -> PathBuf {
        let path = all(&base.join("edge-1")).into_iter().map(|(path, _)| path).find(|p| p.extension().is_some()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
        bytes[60..64].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn segments_of_another_format_are_left_alone_and_the_queue_goes_on_beside_them_at_every_start() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        append(&mut queue(base).unwrap(), 1, 1..=3);
        let foreign = of_format_9(base);
        let before = all(&base.join("edge-1"));

        append(&mut queue(base).unwrap(), 2, 1..=4);
        let mut second = queue(base).unwrap();
        let waits = read(&mut second);
        let third = lock(base, "edge-1");

        assert_eq!(waits, [(2, 1), (2, 2), (2, 3), (2, 4)]);
        assert!(matches!(third, Err(SpoolError::InUse { path }) if path == base.join("edge-1~v1")));
        assert_eq!(all(&base.join("edge-1")), before);
        assert_eq!(directories(base, "edge-1"), [base.join("edge-1"), base.join("edge-1~v1")]);
        drop(second);

        // the version that wrote it has sent it
        fs::remove_file(foreign).unwrap();
        let mut usual = queue(base).unwrap();
        assert_eq!(read(&mut usual), waits);
        assert!(base.join("edge-1").join("0000000000000002-0000000000000001.seg").exists());
        usual.ack(Epoch(2), BatchSeq(4));
        append(&mut usual, 3, 1..=1);
        drop(usual);
        assert_eq!(read(&mut queue(base).unwrap()), [(3, 1)]);
    }

    #[test]
    fn the_version_that_wrote_them_may_send_them_meanwhile_and_nobody_takes_the_usual_place_then() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        append(&mut queue(base).unwrap(), 1, 1..=3);
        let foreign = of_format_9(base);
        let newer = unlocked(|| Disk::lock(&base.join("edge-1"))).unwrap();

        let beside = queue(base).unwrap();
        fs::remove_file(foreign).unwrap();
        let while_it_sends = lock(base, "edge-1");
        drop(newer);
        let second = unlocked(|| match lock(base, "edge-1") {
            Err(SpoolError::InUse { path }) if path == base.join("edge-1~v1") => Ok::<_, SpoolError>(()),
            Err(e) => Err(e),
            Ok(_) => panic!("two have the queue"),
        });

        assert!(matches!(while_it_sends, Err(SpoolError::InUse { path }) if path == base.join("edge-1")));
        assert!(second.is_ok());
        drop(beside);
    }

    #[test]
    fn what_a_run_wrote_of_itself_beside_is_what_the_next_in_the_usual_place_reads() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        let open = |base| StateFile::open(&unlocked(|| lock(base, "edge-1")).unwrap(), "edge-1").unwrap();
        let word = |epoch| StateRecord { epoch, ..StateRecord::default() };
        append(&mut queue(base).unwrap(), 1, 1..=3);
        open(base).0.write(&[word(1)], &[], true).unwrap();
        let foreign = of_format_9(base);

        let (mut file, first, _) = open(base);
        file.write(&[word(2)], &[], false).unwrap();
        let second = open(base).1;
        fs::remove_file(foreign).unwrap();
        let third = open(base).1;

        assert_eq!(first, LastRun::Unknown);
        assert_eq!((second, third), (LastRun::Crashed(vec![word(2)]), LastRun::Crashed(vec![word(2)])));
    }

    #[test]
    fn what_could_not_be_done_to_a_segment_is_what_the_error_says() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        append(&mut queue(base).unwrap(), 1, 1..=3);
        let segment = all(&base.join("edge-1")).into_iter().map(|(path, _)| path).find(|p| p.extension().is_some()).unwrap();
        // one that is not opened for writing, as none is where the file system is read-only
        fs::hard_link(&segment, base.join("second name")).unwrap();

        let locked = unlocked(|| lock(base, "edge-1")).unwrap_err().to_string();
        let disk = Disk::look(&base.join("edge-1")).unwrap();
        let listed = crate::spool::list(&disk, false, |_| Ok::<_, SpoolError>(())).unwrap_err().to_string();

        let name = segment.file_name().unwrap().to_str().unwrap();
        for said in [locked, listed] {
            assert!(said.starts_with(&format!("cannot open the spool {name}: ")), "{said}");
        }
    }

    #[test]
    fn a_segment_that_is_in_both_is_overwritten_in_neither() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        append(&mut queue(base).unwrap(), 1, 1..=3);
        let foreign = of_format_9(base);
        append(&mut queue(base).unwrap(), 1, 1..=2);
        fs::write(&foreign, all(&base.join("edge-1~v1")).pop().unwrap().1).unwrap();

        let both = queue(base).unwrap_err().to_string();

        assert!(both.contains("in both directories"), "{both}");
        let there = |dir: &str| base.join(dir).join(foreign.file_name().unwrap()).exists();
        assert!(there("edge-1") && there("edge-1~v1"));
    }
}
