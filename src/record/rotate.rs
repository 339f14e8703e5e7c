//! Rotating capture files: a new one by size, by time, and after silence.
//!
//! ```text
//! 20260131_235959.pcap.part ──close──▶ 20260131_235959.pcap      taken: 20260131_235959_1.pcap, _2, …
//! ```
//!
//! The name is the time of the file's first packet. A classic pcap holds one link type: each has a file of its own,
//! with `.dlt113` in the names of those after the first.
//!
//! Promises: a name without `.part` is a whole file that is not written any more; what a crash left under `.part` is
//! cut to its last whole record and named at the next start; one removed because nothing is in it is counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::append;
use super::dir::{Access, Dir, Entries, MinFree, Names, PART};
use super::file::{CaptureFile, Grown, Shape};
use super::name::{Parties, Pattern, file_name};
use super::readers::Readers;
use super::unified::Length;
use super::{FileFact, Format, Packet, RecordError};
use crate::packet::{LinkType, Timestamp};

/// Link types with a file open at once; more share nothing and close the oldest.
const MAX_LINKS: usize = 8;

/// When a file is closed.
#[derive(Clone, Debug)]
pub struct RotateConfig {
    /// Name pattern ([`super::name::Purpose::Rotating`]); its suffix is the format.
    pub pattern: Pattern,
    /// A file that would grow longer is closed.
    pub max_bytes: u64,
    /// A file is closed this long after it was begun.
    pub max_age: Duration,
    /// A file is closed this long after its last packet.
    pub idle: Duration,
    /// But not before it was open this long.
    pub min_age: Duration,
    /// Bytes per `write(2)`.
    pub block_bytes: usize,
    /// Free space that is never used up.
    pub min_free: MinFree,
    /// Who may read the files.
    pub readers: Readers,
}

impl RotateConfig {
    /// The predecessor's values, with this pattern.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            max_bytes: 100_000_000,
            max_age: Duration::from_hours(1),
            idle: Duration::from_secs(30),
            min_age: Duration::from_secs(10),
            block_bytes: 64 << 10,
            min_free: MinFree::default(),
            readers: Readers::NONE,
        }
    }
}

/// What happened so far; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets accepted.
    pub packets: u64,
    /// Files finished.
    pub files: u64,
    /// Unfinished files of an earlier process that were finished.
    pub recovered: u64,
    /// Bytes of torn records cut from them.
    pub torn_bytes: u64,
    /// Unfinished files without a packet that were removed.
    pub empty: u64,
    /// Unfinished files that could not be understood and were left as they are.
    pub left: u64,
    /// Times that did not fit the format and were moved to the nearest that does.
    pub clamped: u64,
}

#[derive(Debug)]
struct Open {
    link: LinkType,
    /// Name without suffix, and whether the link type belongs in it.
    stem: String,
    sibling: bool,
    file: CaptureFile,
    begun: Timestamp,
    last: Timestamp,
}

/// A file that is complete and gets its name once its bytes are durable: with which group they are.
#[derive(Debug)]
struct Closing {
    open: Open,
    group: Option<u64>,
}

/// The rotating files of one directory.
#[derive(Debug)]
pub struct Rotating {
    cfg: RotateConfig,
    dir: Dir,
    open: SmallVec<[Open; 1]>,
    closing: Vec<Closing>,
    now: Timestamp,
    finished: Vec<FileFact>,
    counters: Counters,
}

impl Rotating {
    /// Opens the directory, and finishes what an earlier process left under `.part`.
    ///
    /// # Errors
    /// [`RecordError::Unsafe`], [`RecordError::Io`].
    pub fn open(dir: &Path, cfg: RotateConfig) -> Result<Self, RecordError> {
        let dir = Dir::open_for(dir, Access::Private, cfg.min_free, cfg.readers)?;
        let (open, closing, finished) = (SmallVec::new(), Vec::new(), Vec::new());
        let mut new = Self { cfg, dir, open, closing, now: Timestamp::MIN, finished, counters: Counters::default() };
        new.recover()?;
        Ok(new)
    }

    /// From here on `names` is told of files before they are made, and a complete one gets its name only once it is durable
    /// ([`Self::durable`]).
    pub fn watch(&mut self, names: Arc<dyn Names>) {
        self.dir.watch(names);
    }

    fn recover(&mut self) -> Result<(), RecordError> {
        let pattern = &self.cfg.pattern;
        for (name, _) in self.dir.files(|n| n.ends_with(PART) && pattern.made(n))? {
            let path = self.dir.join(&name);
            let Some(mut file) = self.dir.open_existing(&name)? else { continue };
            let found = match append::scan(&mut file, &path, self.cfg.pattern.format(), 0) {
                Ok(found) => found,
                Err(RecordError::Corrupt { .. } | RecordError::Mismatch { .. }) => {
                    self.counters.left = self.counters.left.saturating_add(1);
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.counters.torn_bytes = self.counters.torn_bytes.saturating_add(found.torn);
            if found.packets == 0 {
                self.dir.remove(&name)?;
                self.counters.empty = self.counters.empty.saturating_add(1);
                continue;
            }
            append::cut(&file, &path, &found)?;
            let stem = name.strip_suffix(PART).and_then(|n| n.strip_suffix(self.cfg.pattern.format().suffix()));
            let fact = FileFact { bytes: found.end, packets: found.packets, ..FileFact::default() };
            self.give_name(&name, stem.unwrap_or(&name), None, fact)?;
            self.counters.recovered = self.counters.recovered.saturating_add(1);
        }
        Ok(())
    }

    /// Accepts one packet.
    ///
    /// # Errors
    /// Retryable ones ([`RecordError::is_retryable`]): the packet was not accepted, everything before it was; try it
    /// again. [`RecordError::Oversize`]: never accepted.
    pub fn write(&mut self, pkt: &Packet<'_>) -> Result<(), RecordError> {
        let format = self.cfg.pattern.format();
        loop {
            let at = self.open.iter().position(|o| format == Format::PcapNg || o.link == pkt.link);
            let Some(open) = at.and_then(|at| self.open.get_mut(at)) else {
                self.begin(pkt)?;
                continue;
            };
            let size = open.file.size_of(pkt)?;
            let block = open.file.block();
            if open.file.packets() > 0 && block.len().saturating_add(size as u64) > self.cfg.max_bytes {
                self.finish(at.unwrap_or(0))?;
                continue;
            }
            if block.is_due(size) {
                open.file.flush(&self.dir)?;
            }
            let noted = open.file.push(pkt);
            open.last = self.now;
            self.counters.packets = self.counters.packets.saturating_add(1);
            self.counters.clamped = self.counters.clamped.saturating_add(u64::from(noted.clamped));
            return Ok(());
        }
    }

    fn begin(&mut self, pkt: &Packet<'_>) -> Result<(), RecordError> {
        if pkt.data.len() > super::MAX_CAPTURED {
            return Err(RecordError::Oversize { len: pkt.data.len(), max: super::MAX_CAPTURED });
        }
        if self.open.len() >= MAX_LINKS {
            self.finish(0)?;
        }
        let format = self.cfg.pattern.format();
        let sibling = !self.open.is_empty();
        let stem = self.cfg.pattern.stem(pkt.ts, &Parties::default());
        let shape = Shape { format, link: pkt.link, block: self.cfg.block_bytes, hash: false, comment: "" };
        for index in 0.. {
            let name = file_name(&stem, "", sibling.then_some(pkt.link), index, format);
            let part = format!("{name}{PART}");
            if self.dir.exists(&name)? || self.dir.exists(&part)? {
                continue;
            }
            if let Some(file) = CaptureFile::create(&self.dir, &part, shape)? {
                self.open.push(Open { link: pkt.link, stem, sibling, file, begun: self.now, last: self.now });
                break;
            }
        }
        Ok(())
    }

    /// Writes everything out and gives the file its name. Nothing is lost when it fails: it is still open.
    fn finish(&mut self, at: usize) -> Result<(), RecordError> {
        let Some(open) = self.open.get_mut(at) else { return Ok(()) };
        open.file.flush(&self.dir)?;
        if self.dir.is_watched() {
            let open = self.open.remove(at);
            self.closing.push(Closing { open, group: None });
            return Ok(());
        }
        let fact = FileFact { bytes: open.file.block().written(), packets: open.file.packets(), ..FileFact::default() };
        let (part, stem, link) = (open.file.name().to_owned(), open.stem.clone(), open.sibling.then_some(open.link));
        self.give_name(&part, &stem, link, fact)?;
        self.open.remove(at);
        Ok(())
    }

    fn give_name(&mut self, part: &str, stem: &str, link: Option<LinkType>, fact: FileFact) -> Result<(), RecordError> {
        for index in 0.. {
            let name = file_name(stem, "", link, index, self.cfg.pattern.format());
            if self.dir.rename_new(part, &name)? {
                self.finished.push(FileFact { name, ..fact });
                self.counters.files = self.counters.files.saturating_add(1);
                break;
            }
        }
        Ok(())
    }

    /// Says what time it is: closes what is old or silent. Time never goes back.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), RecordError> {
        self.now = self.now.max(now);
        let (now, cfg) = (self.now, &self.cfg);
        let (min_age, max_age, idle) = (cfg.min_age, cfg.max_age, cfg.idle);
        let due = |o: &Open| {
            let age = now.since(o.begun);
            age >= min_age && (age >= max_age || now.since(o.last) >= idle)
        };
        while let Some(at) = self.open.iter().position(due) {
            self.finish(at)?;
        }
        Ok(())
    }

    /// Hands everything accepted to `write(2)`: after this a batch may be acknowledged.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn commit(&mut self) -> Result<(), RecordError> {
        self.open.iter_mut().try_for_each(|o| o.file.flush(&self.dir).map(|_| ()))
    }

    /// What must be synced before what was committed is durable; it is the group of this number.
    ///
    /// # Errors
    /// [`RecordError::Io`]; what was not named is named the next time.
    pub fn take_grown(&mut self, group: u64, grown: &mut Vec<Grown>) -> Result<Option<Entries>, RecordError> {
        self.dir.take_written();
        for open in &mut self.open {
            grown.extend(open.file.take_grown());
        }
        for c in self.closing.iter_mut().filter(|c| c.group.is_none()) {
            grown.extend(c.open.file.take_grown());
            c.group = Some(group);
        }
        self.dir.take_created()
    }

    /// The groups up to this one are durable: complete files of theirs get their names.
    ///
    /// # Errors
    /// Retryable.
    pub fn durable(&mut self, group: u64) -> Result<(), RecordError> {
        while let Some(at) = self.closing.iter().position(|c| c.group.is_some_and(|g| g <= group)) {
            let Some(Closing { open, .. }) = self.closing.get(at) else { break };
            let fact = FileFact { bytes: open.file.block().written(), packets: open.file.packets(), ..FileFact::default() };
            let (part, stem, link) = (open.file.name().to_owned(), open.stem.clone(), open.sibling.then_some(open.link));
            self.give_name(&part, &stem, link, fact)?;
            self.closing.remove(at);
        }
        Ok(())
    }

    /// Names and lengths of the files without a name, as they lie on the disk.
    pub fn lengths(&self) -> Vec<Length> {
        let all = self.open.iter().chain(self.closing.iter().map(|c| &c.open));
        all.map(|o| Length { name: o.file.name().into(), bytes: o.file.block().written() }).collect()
    }

    /// Closes everything: at a graceful stop.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn close(&mut self) -> Result<(), RecordError> {
        while !self.open.is_empty() {
            self.finish(0)?;
        }
        Ok(())
    }

    /// Files that got their names since the last call, for hooks.
    pub fn take_finished(&mut self) -> Vec<FileFact> {
        std::mem::take(&mut self.finished)
    }

    /// The path of a finished file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the files are.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use crate::record::name::Purpose;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn rotating(dir: &Path, change: impl FnOnce(&mut RotateConfig)) -> Rotating {
        let mut cfg = RotateConfig::new(Pattern::parse("{timestamp}.pcap", Purpose::Rotating).unwrap());
        cfg.min_free = MinFree::NONE;
        change(&mut cfg);
        Rotating::open(dir, cfg).unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs_nanos(secs, 0)
    }

    fn packet(secs: i64, link: u16) -> Packet<'static> {
        Packet { ts: at(secs), wire_len: 100, link: LinkType(link), data: &[7; 100], origin: Origin::default() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_file_is_named_when_it_is_closed_and_private_all_the_time() {
        let tmp = tempfile::tempdir().unwrap();
        let mut r = rotating(tmp.path(), |_| {});

        r.write(&packet(0, 1)).unwrap();
        r.commit().unwrap();
        let mode = fs::metadata(tmp.path().join("19700101_000000.pcap.part")).unwrap().permissions().mode();
        r.close().unwrap();

        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(tmp.path()), ["19700101_000000.pcap"]);
        let want = FileFact { name: "19700101_000000.pcap".into(), bytes: 24 + 116, packets: 1, sha256: None };
        assert_eq!(r.take_finished(), [want]);
    }

    #[test]
    fn rotates_by_size_age_and_silence_but_not_too_early() {
        let tmp = tempfile::tempdir().unwrap();
        let mut r = rotating(tmp.path(), |c| c.max_bytes = 24 + 2 * 116);

        for _ in 0..3 {
            r.write(&packet(0, 1)).unwrap();
        }
        assert_eq!(names(tmp.path()), ["19700101_000000.pcap", "19700101_000000_1.pcap.part"]);
        r.tick(at(100)).unwrap();
        assert_eq!(names(tmp.path()), ["19700101_000000.pcap", "19700101_000000_1.pcap"]);

        for s in (100..3700).step_by(20) {
            r.tick(at(s)).unwrap();
            r.write(&Packet { data: &[], ..packet(s, 1) }).unwrap();
            r.cfg.max_bytes = u64::MAX;
        }
        r.tick(at(3699)).unwrap();
        assert_eq!(r.counters().files, 2);
        r.tick(at(3700)).unwrap();
        assert_eq!(r.counters().files, 3);
        r.cfg.idle = Duration::from_secs(1);
        r.write(&packet(3700, 1)).unwrap();
        r.tick(at(3709)).unwrap();
        assert_eq!(r.counters().files, 3);
        r.tick(at(3710)).unwrap();
        assert_eq!(r.counters().files, 4);
    }

    #[test]
    fn each_link_type_has_a_pcap_of_its_own() {
        let tmp = tempfile::tempdir().unwrap();
        let mut r = rotating(tmp.path(), |_| {});

        for link in [1, 113, 1, 113] {
            r.write(&packet(0, link)).unwrap();
        }
        r.close().unwrap();

        assert_eq!(names(tmp.path()), ["19700101_000000.dlt113.pcap", "19700101_000000.pcap"]);
    }

    #[test]
    fn finishes_what_a_crash_left_and_touches_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let mut r = rotating(tmp.path(), |_| {});
        r.write(&packet(0, 1)).unwrap();
        r.commit().unwrap();
        drop(r);
        let part = tmp.path().join("19700101_000000.pcap.part");
        let mut bytes = fs::read(&part).unwrap();
        bytes.extend_from_slice(&[1, 2, 3]);
        fs::write(&part, &bytes).unwrap();
        for (name, content) in
            [("20000101_000000.pcap.part", &bytes[..24]), ("mine.pcap.part", &bytes[..30]), ("20010101_000000.pcap.part", b"?")]
        {
            fs::write(tmp.path().join(name), content).unwrap();
        }
        fs::write(tmp.path().join("19700101_000000.pcap"), b"older").unwrap();

        let mut r = rotating(tmp.path(), |_| {});

        let want = ["19700101_000000.pcap", "19700101_000000_1.pcap", "20010101_000000.pcap.part", "mine.pcap.part"];
        assert_eq!(names(tmp.path()), want);
        assert_eq!(r.take_finished()[0].packets, 1);
        let c = r.counters();
        assert_eq!((c.recovered, c.torn_bytes, c.empty, c.left), (1, 3, 1, 1));
        assert_eq!(fs::read(tmp.path().join("19700101_000000.pcap")).unwrap(), b"older");
    }
}
