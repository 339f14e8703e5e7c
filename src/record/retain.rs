//! `--retain-age`: finished files that are old enough go.
//!
//! Promises: only what this program made is removed. A call's files go when its JSON record, which names them, says the
//! call is closed and is old enough; rotating files when their name is one the pattern makes. The age is that of the
//! last write. Everything else in the directory is left alone.

use std::time::Duration;

use super::RecordError;
use super::dir::{Dir, PART};
use super::json::{CallRecord, MAX_BYTES};
use super::name::Pattern;
use crate::packet::Timestamp;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes the files and records of calls closed more than `age` before `now` (wall clock). Reads the directory once:
/// meant for every ten minutes or so.
///
/// # Errors
/// [`RecordError::Io`]; what was removed before stays removed, and the rest goes next time.
pub fn calls(dir: &Dir, now: Timestamp, age: Duration) -> Result<Swept, RecordError> {
    let mut swept = Swept::default();
    for (name, meta) in dir.files(|n| n.strip_suffix(".json").is_some())? {
        if !is_older(&meta, now, age) {
            continue;
        }
        let stem = name.strip_suffix(".json").unwrap_or("");
        let Some(record) = dir.read_whole(&name, MAX_BYTES)?.and_then(|b| serde_json::from_slice::<CallRecord>(&b).ok()) else {
            continue;
        };
        if !record.closed || record.schema_version == 0 {
            continue;
        }
        // A record only ever names files that begin as it does.
        for file in record.files.iter().filter(|f| !stem.is_empty() && f.name.starts_with(stem)) {
            if dir.exists(&file.name)? {
                dir.remove(&file.name)?;
                swept.add(file.bytes);
            }
        }
        dir.remove(&name)?;
        swept.add(meta.len());
    }
    Ok(swept)
}

/// Removes finished rotating files last written more than `age` before `now` (wall clock).
///
/// # Errors
/// As [`calls`].
pub fn rotating(dir: &Dir, pattern: &Pattern, now: Timestamp, age: Duration) -> Result<Swept, RecordError> {
    let mut swept = Swept::default();
    for (name, meta) in dir.files(|n| !n.ends_with(PART) && pattern.made(n))? {
        if is_older(&meta, now, age) {
            dir.remove(&name)?;
            swept.add(meta.len());
        }
    }
    Ok(swept)
}

impl Swept {
    fn add(&mut self, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn is_older(meta: &std::fs::Metadata, now: Timestamp, age: Duration) -> bool {
    use std::os::unix::fs::MetadataExt;
    now.since(Timestamp::from_secs_nanos(meta.mtime(), meta.mtime_nsec())) > age
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileFact;
    use crate::record::dir::{Access, MinFree};
    use crate::record::name::Purpose;
    use std::fs::{self, File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    const DAY: Duration = Duration::from_hours(24);

    fn put(dir: &Dir, name: &str, bytes: &[u8], days_old: u32) {
        fs::write(dir.join(name), bytes).unwrap();
        let time = UNIX_EPOCH + DAY * (100 - days_old);
        File::options().write(true).open(dir.join(name)).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    fn record(files: &[&str], closed: bool) -> Vec<u8> {
        let files = files.iter().map(|n| FileFact { name: (*n).into(), ..FileFact::default() }).collect();
        serde_json::to_vec(&CallRecord { closed, files, ..CallRecord::new(b"x") }).unwrap()
    }

    fn left(dir: &Dir) -> Vec<String> {
        dir.files(|_| true).unwrap().into_iter().map(|f| f.0).collect()
    }

    fn now() -> Timestamp {
        Timestamp::from_nanos(0).saturating_add(DAY * 100)
    }

    #[test]
    fn old_closed_calls_go_with_their_files_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path().join("d"), Access::Private, MinFree::NONE).unwrap();
        put(&dir, "old.json", &record(&["old_sip.pcap", "young_sip.pcap", "../d/open_sip.pcap", "old_gone.pcap"], true), 8);
        put(&dir, "old_sip.pcap", b"12345", 8);
        put(&dir, "old_notes.pcap", b"not ours", 8);
        put(&dir, "young.json", &record(&["young_sip.pcap"], true), 6);
        put(&dir, "young_sip.pcap", b"y", 6);
        put(&dir, "open.json", &record(&["open_sip.pcap"], false), 8);
        put(&dir, "open_sip.pcap", b"o", 8);
        put(&dir, "package.json", b"{}", 8);

        let swept = calls(&dir, now(), DAY * 7).unwrap();

        assert_eq!(swept.files, 2);
        let want = ["old_notes.pcap", "open.json", "open_sip.pcap", "package.json", "young.json", "young_sip.pcap"];
        assert_eq!(left(&dir), want);
    }

    #[test]
    fn old_rotating_files_go_and_unfinished_ones_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        let pattern = Pattern::parse("{timestamp}.pcap", Purpose::Rotating).unwrap();
        put(&dir, "20000101_000000.pcap", b"123", 8);
        put(&dir, "20000101_000001.pcap", b"1", 6);
        put(&dir, "20000101_000002.pcap.part", b"1", 8);
        put(&dir, "holiday.pcap", b"1", 8);

        let swept = rotating(&dir, &pattern, now(), DAY * 7).unwrap();

        assert_eq!(swept, Swept { files: 1, bytes: 3 });
        assert_eq!(left(&dir), ["20000101_000001.pcap", "20000101_000002.pcap.part", "holiday.pcap"]);
    }
}
