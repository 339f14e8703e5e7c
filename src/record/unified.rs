//! Everything in one file: `-w FILE`.
//!
//! pcapng takes every link type. A classic pcap holds one: the first packet's (or the existing file's); packets of another
//! go to a sibling, `FILE.dlt113.pcap` beside `FILE.pcap`, so that none is lost; [`Counters::siblings`] says how many
//! there are.
//!
//! Promises: an existing file is continued after its torn tail was cut; one process at a time (a lock on the file); the
//! file is there from the start, so that a wrong path is an error at once. A file without packets is still a valid one
//! after [`Unified::finish`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use smallvec::SmallVec;

use super::append;
use super::dir::{Access, Dir, Entries, MinFree, Names};
use super::file::{CaptureFile, Grown, Shape};
use super::readers::Readers;
use super::{Format, MAX_LINKS, Packet, RecordError};
use crate::packet::LinkType;

/// Bytes per `write(2)`: still in a core's own cache when the kernel copies them; beside busy threads a MiB is not.
pub const BLOCK_BYTES: usize = 1 << 17;

/// What happened so far; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets accepted.
    pub packets: u64,
    /// Files opened beside the first because a pcap holds one link type.
    pub siblings: u64,
    /// Bytes of torn records cut from existing files.
    pub torn_bytes: u64,
    /// Times that did not fit the format and were moved to the nearest that does.
    pub clamped: u64,
    /// Packets under a shared interface because the table was full.
    pub shared_interface: u64,
}

/// How long a file is, for the state of a restart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Length {
    /// File name.
    pub name: String,
    /// Bytes in it; a record's end.
    pub bytes: u64,
}

/// The one file everything goes to.
#[derive(Debug)]
pub struct Unified {
    dir: Dir,
    name: String,
    format: Format,
    /// One for pcapng; one per link type for pcap. The first is FILE itself.
    files: SmallVec<[(LinkType, CaptureFile); 1]>,
    /// FILE while its link type is not known.
    waiting: Option<std::fs::File>,
    trusted: Vec<Length>,
    /// How long writes are that go past the page cache.
    bypass: Option<usize>,
    counters: Counters,
}

impl Unified {
    /// Opens or continues `path`; its suffix chooses the format. With `link`, an existing pcap must have that link type.
    /// `trusted` are lengths from a graceful stop ([`Self::lengths`]): what is before them is not read again.
    ///
    /// # Errors
    /// [`RecordError::Mismatch`], [`RecordError::Corrupt`], [`RecordError::Unsafe`], [`RecordError::Io`].
    pub fn open(path: &Path, link: Option<LinkType>, min_free: MinFree, trusted: Vec<Length>) -> Result<Self, RecordError> {
        Self::open_for(path, link, min_free, trusted, Readers::NONE)
    }

    /// The same, for files that `readers` may read.
    ///
    /// # Errors
    /// As [`Self::open`]; [`RecordError::Group`].
    pub fn open_for(
        path: &Path,
        link: Option<LinkType>,
        min_free: MinFree,
        trusted: Vec<Length>,
        readers: Readers,
    ) -> Result<Self, RecordError> {
        let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        let Some(name) = name else {
            return Err(RecordError::Unsafe { path: path.into(), reason: "its name is not a file name in UTF-8" });
        };
        let dir = Dir::open_for(path.parent().unwrap_or(Path::new("")), Access::Sticky, min_free, readers)?;
        let format = Format::from_name(&name);
        let mut new = Self {
            dir,
            name,
            format,
            files: SmallVec::new(),
            waiting: None,
            trusted,
            bypass: None,
            counters: Counters::default(),
        };
        new.open_first(link)?;
        Ok(new)
    }

    fn open_first(&mut self, link: Option<LinkType>) -> Result<(), RecordError> {
        let path = self.path();
        let (file, found) = self.open_or_create(&self.name.clone())?;
        let link = match (link, found.link) {
            (Some(l), Some(f)) if l != f && found.packets > 0 => {
                let reason = format!("its link type is {}, the capture's is {}", f.0, l.0);
                return Err(RecordError::Mismatch { path, reason });
            }
            (l, f) => f.filter(|_| found.packets > 0).or(l),
        };
        match link {
            _ if self.format == Format::PcapNg => self.begin(LinkType::NULL, file, &found),
            Some(link) if found.link == Some(link) => self.begin(link, file, &found),
            // Nothing but a header at most: begun again with the right link type.
            link => {
                file.set_len(0).map_err(|e| RecordError::io("write", path, e))?;
                match link {
                    Some(link) => self.begin(link, file, &append::Found::default()),
                    None => self.waiting = Some(file),
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, link: LinkType, file: std::fs::File, found: &append::Found) {
        let name = self.name_for(link);
        let mut file = CaptureFile::continue_at(&name, file, self.shape(link), found);
        // not its siblings: a capture has one kind of link, most of the time, and this takes memory
        if let Some(most) = self.bypass.filter(|_| self.files.is_empty()) {
            file.bypass_cache(&self.dir, most);
        }
        self.files.push((link, file));
    }

    /// From here on long writes go past the page cache, `most` bytes at once: right where everything is synced soon, since nothing is left
    /// to sync then. Whoever syncs writes ([`Grown::write`]); three times that much memory is taken at most until then, of which
    /// `min_free` does not know.
    #[must_use]
    pub fn bypassing_cache(mut self, most: usize) -> Self {
        self.bypass = Some(most);
        self.files.iter_mut().take(1).for_each(|(_, file)| file.bypass_cache(&self.dir, most));
        self
    }

    fn open_or_create(&mut self, name: &str) -> Result<(std::fs::File, append::Found), RecordError> {
        let path = self.dir.join(name);
        let existing = self.dir.open_existing(name)?;
        let new = existing.is_none();
        let file = if existing.is_some() {
            existing
        } else {
            self.dir.announce(&[name.into()])?;
            self.dir.create_announced(name)?
        };
        let Some(mut file) = file else {
            return Err(RecordError::Unsafe { path, reason: "somebody else creates files here" });
        };
        file.try_lock().map_err(|_| RecordError::Unsafe { path: path.clone(), reason: "another process is writing to it" })?;
        if new {
            return Ok((file, append::Found::default()));
        }
        let trusted = self.trusted.iter().find(|l| l.name == name).map_or(0, |l| l.bytes);
        // A boundary that does not hold is forgotten: the file was replaced meanwhile.
        let found = match append::scan(&mut file, &path, self.format, trusted) {
            Err(_) if trusted > 0 => append::scan(&mut file, &path, self.format, 0)?,
            found => found?,
        };
        append::cut(&file, &path, &found)?;
        self.counters.torn_bytes = self.counters.torn_bytes.saturating_add(found.torn);
        Ok((file, append::Found { packets: found.packets.max(u64::from(trusted > append::PCAP_HEADER)), ..found }))
    }

    /// The file this link type goes to: FILE for the first, siblings for the others.
    fn name_for(&self, link: LinkType) -> String {
        if self.files.is_empty() {
            return self.name.clone();
        }
        let stem = self.name.strip_suffix(self.format.suffix()).unwrap_or(&self.name);
        format!("{stem}.dlt{}{}", link.0, self.format.suffix())
    }

    fn shape(&self, link: LinkType) -> Shape<'static> {
        Shape { format: self.format, link, block: BLOCK_BYTES, hash: false, comment: "" }
    }

    /// Accepts one packet.
    ///
    /// # Errors
    /// Retryable ones ([`RecordError::is_retryable`]): the packet was not accepted, everything before it was; try it again.
    /// [`RecordError::Oversize`]: never accepted. [`RecordError::Mismatch`] when a sibling exists and is another format.
    #[inline]
    pub fn write(&mut self, pkt: &Packet<'_>) -> Result<(), RecordError> {
        let at = match self.files.first() {
            Some((l, _)) if self.format == Format::PcapNg || *l == pkt.link => 0,
            _ => self.file_for(pkt.link)?,
        };
        let Some((_, file)) = self.files.get_mut(at) else { return Ok(()) };
        let size = file.size_of(pkt)?;
        if file.block().is_due(size) {
            flush(&self.dir, file)?;
        }
        let noted = file.push(pkt);
        self.counters.packets = self.counters.packets.saturating_add(1);
        self.counters.clamped = self.counters.clamped.saturating_add(u64::from(noted.clamped));
        self.counters.shared_interface = self.counters.shared_interface.saturating_add(u64::from(noted.shared_interface));
        Ok(())
    }

    #[cold]
    fn file_for(&mut self, link: LinkType) -> Result<usize, RecordError> {
        if let Some(at) = self.files.iter().position(|(l, _)| *l == link) {
            return Ok(at);
        }
        if let Some(file) = self.waiting.take() {
            self.begin(link, file, &append::Found::default());
            return Ok(0);
        }
        if self.files.len() >= MAX_LINKS {
            return Err(RecordError::LinkTypes { path: self.dir.join(&self.name), max: MAX_LINKS });
        }
        let name = self.name_for(link);
        let (file, found) = self.open_or_create(&name)?;
        if found.link.is_some_and(|l| l != link) {
            let reason = format!("its link type is not {}", link.0);
            return Err(RecordError::Mismatch { path: self.dir.join(&name), reason });
        }
        self.begin(link, file, &found);
        self.counters.siblings = self.counters.siblings.saturating_add(1);
        Ok(self.files.len().saturating_sub(1))
    }

    /// Hands every packet accepted to `write(2)`, or leaves it to [`Grown::write`]: after that a batch may be acknowledged. A header alone
    /// waits: until there is a packet, the file is as long as it was found.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        self.files.iter_mut().filter(|(_, f)| f.owes_packets()).try_for_each(|(_, f)| flush(&self.dir, f))
    }

    /// From here on `names` is told of files before they are made.
    pub fn watch(&mut self, names: Arc<dyn Names>) {
        self.dir.watch(names);
    }

    /// What must be written and synced before what was flushed is durable.
    ///
    /// # Errors
    /// [`RecordError::Io`]; what was not named is named the next time.
    pub fn take_grown(&mut self, grown: &mut Vec<Grown>) -> Result<Option<Entries>, RecordError> {
        self.dir.take_written();
        for (_, file) in &mut self.files {
            grown.extend(file.take_grown());
        }
        self.dir.take_created()
    }

    /// Flushes and makes even an empty file a valid capture.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn finish(&mut self) -> Result<(), RecordError> {
        if let Some(file) = self.waiting.take() {
            self.begin(LinkType::ETHERNET, file, &append::Found::default());
        }
        self.files.iter_mut().try_for_each(|(_, f)| flush(&self.dir, f))
    }

    /// Names and lengths as they lie on the disk once what was flushed is written.
    pub fn lengths(&self) -> Vec<Length> {
        let empty = self.waiting.iter().map(|_| Length { name: self.name.clone(), bytes: 0 });
        empty.chain(self.files.iter().map(|(_, f)| Length { name: f.name().into(), bytes: f.block().written() })).collect()
    }

    /// Bytes accepted and not flushed.
    pub fn pending(&self) -> usize {
        self.files.iter().map(|(_, f)| f.block().pending()).sum()
    }

    /// The file given to [`Self::open`].
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

fn flush(dir: &Dir, file: &mut CaptureFile) -> Result<(), RecordError> {
    // Never parked, so never found changed.
    file.flush(dir).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Timestamp;
    use crate::record::{MAX_CAPTURED, Origin};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn packet(link: u16, data: &[u8]) -> Packet<'_> {
        let origin = Origin { hunter: "h", interface: "eth0", filters: "" };
        Packet { ts: Timestamp::from_nanos(7), wire_len: 99, link: LinkType(link), data, origin }
    }

    fn open(path: &Path) -> Unified {
        Unified::open(path, None, MinFree::NONE, Vec::new()).unwrap()
    }

    fn count(path: &Path) -> u64 {
        let format = Format::from_name(path.to_str().unwrap());
        let found = append::scan(&mut fs::File::open(path).unwrap(), path, format, 0).unwrap();
        assert_eq!(found.torn, 0);
        found.packets
    }

    #[test]
    fn restarts_append_in_both_formats_and_the_file_is_private() {
        for name in ["u.pcap", "u.pcapng"] {
            let tmp = tempfile::tempdir().unwrap();
            let path = tmp.path().join(name);
            for run in 1..=3 {
                let mut u = open(&path);
                u.write(&packet(1, b"abc")).unwrap();
                u.finish().unwrap();
                assert_eq!(count(&path), run);
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn until_there_is_a_packet_the_file_is_as_long_as_it_was_found() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcapng");
        let len = || fs::metadata(&path).unwrap().len();
        let mut found = 0;
        for run in 1..=3 {
            let mut u = open(&path);

            u.flush().unwrap();
            assert_eq!((len(), u.lengths()[0].bytes), (found, found), "what a crash goes back to");
            u.write(&packet(1, b"abc")).unwrap();
            u.flush().unwrap();

            assert_eq!(count(&path), run);
            found = len();
        }
    }

    #[test]
    fn a_torn_tail_is_cut_and_counted() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        let mut u = open(&path);
        u.write(&packet(1, b"abc")).unwrap();
        u.finish().unwrap();
        drop(u);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&[9; 7]);
        fs::write(&path, &bytes).unwrap();

        let mut u = open(&path);
        u.write(&packet(1, b"def")).unwrap();
        u.finish().unwrap();

        assert_eq!((u.counters().torn_bytes, count(&path)), (7, 2));
    }

    #[test]
    fn a_pcap_holds_one_link_type_and_the_others_go_beside_it_across_restarts() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        for first in [113, 1] {
            let mut u = open(&path);
            u.write(&packet(first, b"a")).unwrap();
            u.write(&packet(1, b"b")).unwrap();
            u.write(&packet(113, b"c")).unwrap();
            u.finish().unwrap();
            assert_eq!(u.counters().siblings, 1);
        }

        assert_eq!((count(&path), count(&tmp.path().join("u.dlt1.pcap"))), (3, 3));
        assert_eq!(fs::read(&path).unwrap()[20], 113);
    }

    #[test]
    fn one_link_type_too_many_is_refused_and_the_others_go_on() {
        let tmp = tempfile::tempdir().unwrap();
        let mut u = open(&tmp.path().join("u.pcap"));

        let taken: Vec<bool> = (1..=17).chain([1, 16]).map(|link| u.write(&packet(link, b"a")).is_ok()).collect();
        u.finish().unwrap();

        assert_eq!(taken.iter().position(|ok| !ok), Some(MAX_LINKS));
        assert_eq!(taken.iter().filter(|ok| !**ok).count(), 1);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), MAX_LINKS);
    }

    #[test]
    fn a_pcapng_holds_every_link_type() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcapng");
        let mut u = open(&path);

        for link in [1, 113, 228] {
            u.write(&packet(link, b"a")).unwrap();
        }
        u.finish().unwrap();

        assert_eq!((count(&path), fs::read_dir(tmp.path()).unwrap().count()), (3, 1));
    }

    #[test]
    fn refuses_another_link_type_another_format_and_a_second_process() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        let mut u = open(&path);
        u.write(&packet(1, b"a")).unwrap();
        u.finish().unwrap();
        let again = |link| Unified::open(&path, link, MinFree::NONE, Vec::new()).unwrap_err().to_string();

        assert!(again(None).contains("another process"));
        drop(u);
        assert!(again(Some(LinkType(113))).contains("link type is 1"));
        fs::rename(&path, tmp.path().join("u.pcapng")).unwrap();
        let e = Unified::open(&tmp.path().join("u.pcapng"), None, MinFree::NONE, Vec::new()).unwrap_err();
        assert!(e.to_string().contains("not a pcapng"), "{e}");
    }

    #[test]
    fn a_run_without_packets_leaves_a_valid_file_that_any_link_type_can_continue() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        open(&path).finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 24);

        let mut u = open(&path);
        u.write(&packet(113, b"a")).unwrap();
        u.finish().unwrap();

        assert_eq!((fs::read(&path).unwrap()[20], count(&path)), (113, 1));
    }

    #[test]
    fn continues_from_a_graceful_stop_without_reading_what_is_before() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        let mut u = open(&path);
        u.write(&packet(1, b"abc")).unwrap();
        u.finish().unwrap();
        let lengths = u.lengths();
        drop(u);

        let mut u = Unified::open(&path, None, MinFree::NONE, lengths).unwrap();
        u.write(&packet(1, b"def")).unwrap();
        u.finish().unwrap();

        assert_eq!(count(&path), 2);
        drop(u);
        let wrong = vec![Length { name: "u.pcap".into(), bytes: 31 }];
        assert!(Unified::open(&path, None, MinFree::NONE, wrong).is_ok());
        assert_eq!(count(&path), 2);
    }

    #[test]
    fn writes_whole_blocks_and_the_rest_when_told() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("u.pcap");
        let mut u = open(&path);
        let data = vec![0; MAX_CAPTURED];

        for _ in 0..4 {
            u.write(&packet(1, &data)).unwrap();
        }

        let record = MAX_CAPTURED as u64 + 16;
        assert_eq!(fs::metadata(&path).unwrap().len(), 24 + 3 * record);
        u.flush().unwrap();
        assert_eq!((fs::metadata(&path).unwrap().len(), u.pending()), (24 + 4 * record, 0));
        assert!(matches!(u.write(&packet(1, &vec![0; MAX_CAPTURED + 1])), Err(RecordError::Oversize { .. })));
    }
}
